"""The RPC methods by which a creation, or an operation on a server, is recognised.

Sources: nova/conductor/rpcapi.py, nova/scheduler/rpcapi.py, nova/compute/rpcapi.py (names, who calls them,
their arguments), Kilo to 2026.1; nova/objects/*.py (the objects of object_action).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tracer.openstack.services import NOVA_API, NOVA_COMPUTE, NOVA_CONDUCTOR

__all__ = [
    "ABOUT_SERVERS",
    "ACTION_EVENT",
    "ACTS_ON_A_SERVER",
    "ASKS_A_HOST_TO_BUILD",
    "BEFORE_HOST",
    "BEFORE_ID",
    "BINARY",
    "DELETES",
    "ERROR_TEXT",
    "FAILURE",
    "FAULT",
    "FAULT_TEXT",
    "FORKS",
    "GIVES_UP",
    "HOST",
    "ID",
    "INSTANCE",
    "METHODS",
    "NAMES_NEW_SERVERS",
    "NOTIFIED",
    "OBJECT_CHANGES",
    "OBJECT_DATA",
    "OF_OBJECTS",
    "OWN",
    "REASONS",
    "REPLY_QUEUE",
    "REPLY_WITHIN_NS",
    "SAVE",
    "SAVES_SERVER",
    "SENDER",
    "SERVERS_IN",
    "SERVER_ID",
    "SERVICE",
    "TASK_STATE",
    "VM_STATE",
    "Method",
    "Notification",
    "Path",
    "sender_of",
]

Path = tuple[str, ...]
"""Keys that lead from a method's arguments to a value; `*` is each item of a list. Objects are entered."""

OWN: Path = ("instance", "uuid")
"""The one server that a message is about."""


REPLY_WITHIN_NS = 60_000_000_000
"""How long a caller waits for a reply: rpc_response_timeout, as oslo.messaging has it by default.

No message carries it; `_timeout` is that of the heartbeats of a long call. Nova's words of a time-out name
the message, which shows how long its caller waited.
"""


class Method(NamedTuple):
    """What is known of one method."""

    name: str
    sender: str = ""
    """Its sender, for connections that do not identify themselves; empty where several services send it."""
    servers: tuple[Path, ...] = ()
    """Where its arguments name the servers that it is about, best first."""
    names_new_servers: bool = False
    """It is part of a creation and names the new servers."""
    forks: bool = False
    """It names all servers of one request: each of them gets a trace."""
    asks_a_host_to_build: bool = False
    """It is sent to the host on which the server will be built."""
    acts_on_a_server: bool = False
    """It asks for an operation on one existing server."""
    passed_on_by: str = ""
    """Its receiver, where that passes it on to a host as a message of the same name."""
    deletes: bool = False
    """That operation deletes it."""
    reasons: tuple[Path, ...] = ()
    """Where its arguments say why the host that sends it gives up: a text or a list of texts, best first."""
    of_objects: bool = False
    """nova-compute asks nova-conductor for an operation on an object; the arguments name both."""


def _acting(names: Iterable[str], sender: str = "", *, deletes: bool = False) -> tuple[Method, ...]:
    """Return the rows of requests to nova-compute about one existing server."""
    return tuple(Method(name, sender, (OWN,), acts_on_a_server=True, deletes=deletes) for name in names)


METHODS = (
    # --- a creation
    Method(
        "schedule_and_build_instances",
        NOVA_API,
        (("build_requests", "*", "instance_uuid"), ("request_specs", "*", "instance_uuid")),
        names_new_servers=True,
        forks=True,
    ),
    Method(
        "select_destinations",
        NOVA_CONDUCTOR,
        (
            ("instance_uuids", "*"),
            ("spec_obj", "instance_uuid"),
            # until Mitaka
            ("request_spec", "instance_uuids", "*"),
            ("request_spec", "instance_properties", "uuid"),
        ),
        names_new_servers=True,
        forks=True,
    ),
    Method(
        "build_and_run_instance",
        NOVA_CONDUCTOR,
        (OWN,),
        names_new_servers=True,
        forks=True,
        asks_a_host_to_build=True,
    ),
    # A host that could not build asks for another one. In old releases nova-api sends it too; it is then
    # recognised by its address.
    Method(
        "build_instances",
        NOVA_COMPUTE,
        (("instances", "*", "uuid"),),
        names_new_servers=True,
        # nova/compute/manager.py, _do_build_and_run_instance: the reason, and the traceback of the exception.
        reasons=(("filter_properties", "retry", "exc_reason"), ("filter_properties", "retry", "exc")),
    ),
    # Neutron and cinder report to nova-api that a port or volume is ready; nova-api passes it on to the host.
    Method(
        "external_instance_event",
        NOVA_API,
        (("instances", "*", "uuid"), ("events", "*", "instance_uuid")),
        names_new_servers=True,
    ),
    # --- an existing server
    *_acting(("terminate_instance",), NOVA_API, deletes=True),
    *_acting(("stop_instance", "start_instance", "reboot_instance", "attach_volume"), NOVA_API),
    *_acting(("reserve_block_device_name",), NOVA_API),
    *_acting(("soft_delete_instance",), NOVA_API, deletes=True),
    *_acting(("restore_instance", "confirm_resize", "revert_resize"), NOVA_API),
    *_acting(("pause_instance", "unpause_instance", "suspend_instance", "resume_instance"), NOVA_API),
    *_acting(("rescue_instance", "unrescue_instance", "snapshot_instance"), NOVA_API),
    *_acting(("shelve_instance", "shelve_offload_instance"), NOVA_API),
    *_acting(("detach_volume", "swap_volume", "extend_volume"), NOVA_API),
    *_acting(("attach_interface", "detach_interface"), NOVA_API),
    # nova-conductor takes these on, and passes two of them on to a host by the same name. migrate_server is
    # that of a resize and of a cold migration, until Newton of a live one too; a host that cannot take the
    # server sends it again.
    Method("migrate_server", NOVA_API, (OWN,), acts_on_a_server=True),
    Method("live_migrate_instance", NOVA_API, (OWN,), acts_on_a_server=True),
    Method("rebuild_instance", NOVA_API, (OWN,), acts_on_a_server=True, passed_on_by=NOVA_CONDUCTOR),
    Method("unshelve_instance", NOVA_API, (OWN,), acts_on_a_server=True, passed_on_by=NOVA_CONDUCTOR),
    *_acting(("prep_resize", "live_migration", "check_can_live_migrate_destination"), NOVA_CONDUCTOR),
    *_acting(("resize_instance", "finish_resize"), NOVA_COMPUTE),
    *_acting(("check_can_live_migrate_source", "pre_live_migration"), NOVA_COMPUTE),
    *_acting(("post_live_migration_at_destination", "rollback_live_migration_at_destination"), NOVA_COMPUTE),
    # --- periodic messages of nova-compute
    Method("object_action", NOVA_COMPUTE, of_objects=True),
    Method("object_class_action_versions", NOVA_COMPUTE, of_objects=True),
    # oslo.versionedobjects 0.10 and older
    Method("object_class_action", of_objects=True),
    Method("object_backport_versions", NOVA_COMPUTE),
    Method("update_instance_info", NOVA_COMPUTE),
    Method("sync_instance_info", NOVA_COMPUTE),
    Method("delete_instance_info", NOVA_COMPUTE),
)

REPLY_QUEUE = "reply_"
"""Start of the name of the queue of a process for replies (oslo_messaging/_drivers/amqpdriver.py)."""

# --- objects --------------------------------------------------------------------------------------
# What object_action and its like are about. Sources: oslo.versionedobjects; nova/objects/base.py.

OBJECT_DATA, OBJECT_CHANGES = "nova_object.data", "nova_object.changes"
"""Members of an object: its fields, and the names of the fields that a save writes."""

INSTANCE = "Instance"
"""A server, saved with its states (nova/objects/instance.py). It contains objects with ids and hosts too."""
SAVES_SERVER = f"{INSTANCE}.save"
"""The method of an object by which nova-compute saves what became of a server."""
SERVICE = "Service"
"""A process that reports that it is alive (nova/objects/service.py): its host and binary."""
ACTION_EVENT = "InstanceActionEvent"
"""The start or the end of an operation on a server (nova/objects/instance_action.py)."""

FAULT = "InstanceFault"
"""The reason why a server is in error (nova/objects/instance_fault.py), created when it is recorded."""
SAVE = "save"
"""Method by which an object's changes are written."""

# Their fields.
ID, HOST, BINARY, VM_STATE, TASK_STATE = "uuid", "host", "binary", "vm_state", "task_state"
SERVER_ID = "instance_uuid"
"""Field with which other objects name the server that they belong to."""
BEFORE_ID, BEFORE_HOST = "vm_mode", "ephemeral_key_uuid"
"""The fields of an Instance before its own id and host. They separate these from those of objects in it."""
FAILURE = "failure"
"""Part of the names of methods that report a failure: event_finish_with_failure."""
FAULT_TEXT = "message"
"""Field of a fault with the text that `openstack server show` displays."""
ERROR_TEXT = "exc_val"
"""Argument of these methods with the exception's text."""

# --- notifications of failure ---------------------------------------------------------------------
# Sources: nova/notifications/objects/instance.py, exception.py and compute_task.py (versioned); legacy:
# nova/compute/utils.py (notify_about_instance_usage), nova/scheduler/utils.py (set_vm_state_and_notify).


class Notification(NamedTuple):
    """An event by which nova reports why a server was not built, and where its payload says so."""

    event: str
    servers: tuple[Path, ...]
    words: tuple[Path, ...]
    """The class of the exception, and its text."""
    host: Path = ()


_EXCEPTION = (("fault", "exception"), ("fault", "exception_message"))
_REASON = (("reason", "exception"), ("reason", "exception_message"))
NOTIFICATIONS = (
    Notification("instance.create.error", (("uuid",),), _EXCEPTION, ("host",)),
    Notification("compute.instance.create.error", (("instance_id",),), (("message",),), ("host",)),
    Notification("compute_task.build_instances.error", (("instance_uuid",),), _REASON),
    Notification("compute_task.build_instances", (("instance_id",), ("instance_uuids", "*")), (("reason",),)),
)

# --- look-ups -------------------------------------------------------------------------------------

SENDER = {method.name: method.sender for method in METHODS if method.sender}
"""Method -> its sender, for connections that do not identify themselves."""
_PASSED_ON = {method.name: method.passed_on_by for method in METHODS if method.passed_on_by}
SERVERS_IN = {method.name: method.servers for method in METHODS if method.servers}
"""Method -> where its arguments name the servers that it is about, best first."""
ABOUT_SERVERS = frozenset(SERVERS_IN)
NAMES_NEW_SERVERS = frozenset(method.name for method in METHODS if method.names_new_servers)
FORKS = frozenset(method.name for method in METHODS if method.forks)
ASKS_A_HOST_TO_BUILD = frozenset(method.name for method in METHODS if method.asks_a_host_to_build)
REASONS = {method.name: method.reasons for method in METHODS if method.reasons}
"""Method -> where its arguments say why the host that sends it gives up."""
GIVES_UP = frozenset(REASONS)
"""Methods with which a host gives up, and another one is asked."""
ACTS_ON_A_SERVER = frozenset(method.name for method in METHODS if method.acts_on_a_server)
OF_OBJECTS = frozenset(method.name for method in METHODS if method.of_objects)
DELETES = frozenset(method.name for method in METHODS if method.deletes)
NOTIFIED = {each.event: each for each in NOTIFICATIONS}


def sender_of(method: str, receiver: str) -> str:
    """Return the role that sends *method* to *receiver*; empty where several may, or it is not known."""
    first = _PASSED_ON.get(method)
    return first if first is not None and receiver != first else SENDER.get(method, "")
