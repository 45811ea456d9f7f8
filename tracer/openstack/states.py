"""The states of a server in nova's database and in its API, and the states of the VRM's tasks.

Sources: nova/compute/vm_states.py and task_states.py (the tasks of a build are the same in all releases);
nova/api/openstack/common.py (the status in an answer is the state in capitals); FusionCompute's interface
reference, tasks.
"""

from __future__ import annotations

from collections.abc import Collection

from tracer.openstack.rpc import TASK_STATE, VM_STATE

__all__ = [
    "ACTIVE",
    "BUILD_TASKS",
    "ENDS_CREATION",
    "ERROR",
    "STATE_OF_STATUS",
    "STATUS_OF_FAILURE",
    "TASK_FAILED",
    "TASK_SUCCEEDED",
    "saved_word",
]

# vm_state: of instances.vm_state and of a saved Instance.
ACTIVE = "active"
ERROR = "error"

BUILD_TASKS = ("networking", "block_device_mapping", "spawning")
"""task_state of a server while its host builds it, in the order in which nova-compute saves them."""

ENDS_CREATION = frozenset({ACTIVE, ERROR})
"""States that end a creation."""
STATE_OF_STATUS = {"ACTIVE": ACTIVE, "ERROR": ERROR}
"""Status in the answer to a poll (GET /servers/ID) after the end of a creation -> the state."""

TASK_SUCCEEDED, TASK_FAILED = "success", "failed"
"""Final states of a task of the VRM."""
STATUS_OF_FAILURE = frozenset({TASK_FAILED, *(s for s, state in STATE_OF_STATUS.items() if state == ERROR)})
"""Status in the body of a good answer about a server or a task that has failed."""


def saved_word(vm_state: str, task_state: str, changed: Collection[str] = ()) -> str:
    """Return what a save of a server tells: its new task, or without one its new state; '' for neither.

    *changed* are the fields that it writes; without them both states count.
    """
    if changed and TASK_STATE not in changed and VM_STATE not in changed:
        return ""
    if task_state and (not changed or TASK_STATE in changed):
        return task_state
    return vm_state if not changed or VM_STATE in changed else ""
