"""The states of a server, as nova writes them, as its API says them, and as the VRM says of its tasks.

Sources: nova/compute/vm_states.py; nova/api/openstack/common.py (the status in an answer is the state in
capitals); FusionCompute's interface reference, tasks.
"""

from __future__ import annotations

__all__ = [
    "ACTIVE",
    "ENDS_CREATION",
    "ERROR",
    "STATE_OF_STATUS",
    "STATUS_OF_FAILURE",
    "TASK_FAILED",
    "TASK_SUCCEEDED",
]

# vm_state: of instances.vm_state and of a saved Instance.
ACTIVE = "active"
ERROR = "error"

ENDS_CREATION = frozenset({ACTIVE, ERROR})
"""States with which a creation is over."""
STATE_OF_STATUS = {"ACTIVE": ACTIVE, "ERROR": ERROR}
"""What a poll (GET /servers/ID) shows when the creation is over -> the state that it means."""

TASK_SUCCEEDED, TASK_FAILED = "success", "failed"
"""What a task of the VRM has come to."""
STATUS_OF_FAILURE = frozenset({TASK_FAILED, *(s for s, state in STATE_OF_STATUS.items() if state == ERROR)})
"""What the body of a good answer says when what it is about has failed: a server, or a task."""
