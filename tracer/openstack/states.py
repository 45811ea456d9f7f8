"""The states of a server in nova's database and in its API, and the states of the VRM's tasks.

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
"""States that end a creation."""
STATE_OF_STATUS = {"ACTIVE": ACTIVE, "ERROR": ERROR}
"""Status in the answer to a poll (GET /servers/ID) after the end of a creation -> the state."""

TASK_SUCCEEDED, TASK_FAILED = "success", "failed"
"""Final states of a task of the VRM."""
STATUS_OF_FAILURE = frozenset({TASK_FAILED, *(s for s, state in STATE_OF_STATUS.items() if state == ERROR)})
"""Status in the body of a good answer about a server or a task that has failed."""
