"""The states of a server in nova's database and in its API, of the VRM's tasks, of ports and of volumes.

Sources: nova/compute/vm_states.py and task_states.py (the tasks of a build are the same in all releases);
nova/api/openstack/common.py (the status in an answer is the state in capitals); FusionCompute's interface
reference, tasks; neutron-lib, api/definitions/portbindings.py; cinder, objects/fields.py (VolumeStatus,
VolumeAttachStatus). What nova takes for a failure of these: nova/network/neutron.py
(_ensure_no_port_binding_failure), nova/compute/manager.py (_await_block_device_map_created).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from tracer.openstack.rpc import TASK_STATE, VM_STATE

__all__ = [
    "ACTIVE",
    "BAD",
    "BUILD_TASKS",
    "CONDITIONS",
    "DELETED",
    "ENDS_CREATION",
    "ERROR",
    "GOOD",
    "OPEN",
    "STATE_OF_STATUS",
    "STATUS_OF_FAILURE",
    "TASK_FAILED",
    "TASK_SUCCEEDED",
    "Condition",
    "saved_word",
]

# vm_state: of instances.vm_state and of a saved Instance.
ACTIVE = "active"
ERROR = "error"
DELETED = frozenset({"deleted", "soft-delete"})

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

# --- what a good status does not say ----------------------------------------------------------------

GOOD, OPEN, BAD = "good", "open", "bad"
"""What the body of a good answer says of the resource in it; open: work on it is not done yet."""


class Condition(NamedTuple):
    """A member of a resource in an answer that says whether the resource is usable."""

    resource: str
    """The key of the resource in the body; empty for the body of an answer of the VRM."""
    member: str
    bad: frozenset[str]
    open: frozenset[str]
    given: str = ""
    """`open` counts only where this member has a value."""


CONDITIONS = (
    # A port that no host was asked for is rightly unbound.
    Condition(
        "port", "binding:vif_type", frozenset({"binding_failed"}), frozenset({"unbound"}), "binding:host_id"
    ),
    Condition("binding", "vif_type", frozenset({"binding_failed"}), frozenset({"unbound"}), "host"),
    Condition(
        "volume",
        "status",
        frozenset({"error", "error_restoring", "error_extending", "error_managing", "error_deleting"}),
        frozenset({"creating", "downloading", "restoring-backup"}),
    ),
    Condition("attachment", "status", frozenset({"error_attaching"}), frozenset()),
    Condition(
        "", "status", frozenset({TASK_FAILED, "canceled", "cancelled"}), frozenset({"running", "waiting"})
    ),
)


def saved_word(vm_state: str, task_state: str, changed: Collection[str] = ()) -> str:
    """Return what a save of a server tells: its new task, or without one its new state; '' for neither.

    *changed* are the fields that it writes; without them both states count.
    """
    if changed and TASK_STATE not in changed and VM_STATE not in changed:
        return ""
    if task_state and (not changed or TASK_STATE in changed):
        return task_state
    return vm_state if not changed or VM_STATE in changed else ""
