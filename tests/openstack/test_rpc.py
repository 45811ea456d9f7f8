"""The methods: who sends them, and where they name servers."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tracer.calls.oslo import instance_uuids, object_action_facts
from tracer.openstack import rpc
from tracer.openstack.rpc import METHODS, Method, Path

VM = "145c135d-63cb-41ba-98cd-3235a30c2e27"
OTHER = "5da90ed0-8eec-44af-9fb5-d5cba803f3fb"


def at(path: Path, value: object, *, as_object: bool = False) -> Any:
    """What lies at *path* is *value*; *as_object*: in versioned objects."""
    if not path:
        return value
    inner = at(path[1:], value, as_object=as_object)
    if path[0] == "*":
        return [inner]
    held = {"id": 1, path[0]: inner}
    return {"nova_object.name": "Thing", rpc.OBJECT_DATA: held} if as_object else held


def body(method: str, args: object) -> bytes:
    message = json.dumps({"method": method, "args": args, "version": "1.0", "_unique_id": "0" * 32})
    return json.dumps({"oslo.version": "2.0", "oslo.message": message}).encode()


@pytest.mark.parametrize("as_object", [False, True])
@pytest.mark.parametrize(
    "method, path", [(method, path) for method in METHODS for path in method.servers], ids=str
)
def test_a_method_names_servers_where_the_table_says(method: Method, path: Path, as_object: bool) -> None:
    """In a message of that shape, with plain dictionaries and with versioned objects below the arguments."""
    args = {path[0]: at(path[1:], VM, as_object=as_object), "context": OTHER}
    assert instance_uuids(method.name, body(method.name, args)) == (VM,)


@pytest.mark.parametrize("method", [method for method in METHODS if not method.servers], ids=str)
def test_other_methods_name_none(method: Method) -> None:
    args = {"instance": {"uuid": VM}, "instances": [{"uuid": VM}], "instance_uuids": [VM]}
    assert instance_uuids(method.name, body(method.name, args)) == ()


@pytest.mark.parametrize(
    "method, sender",
    [
        ("schedule_and_build_instances", "nova-api"),
        ("select_destinations", "nova-conductor"),
        ("build_and_run_instance", "nova-conductor"),
        ("build_instances", "nova-compute"),
        ("external_instance_event", "nova-api"),
        ("terminate_instance", "nova-api"),
        ("stop_instance", "nova-api"),
        ("object_action", "nova-compute"),
    ],
)
def test_who_sends_what(method: str, sender: str) -> None:
    """nova/*/rpcapi.py, and who imports it."""
    row = next(row for row in METHODS if row.name == method)
    assert row.sender == sender
    assert rpc.SENDER[method] == sender


def test_the_messages_of_a_creation() -> None:
    """Three of them fork it, and one goes to the host that builds."""
    assert {
        "schedule_and_build_instances",
        "select_destinations",
        "build_and_run_instance",
    } == rpc.FORKS
    assert {"build_instances", "external_instance_event"} == rpc.NAMES_NEW_SERVERS - rpc.FORKS
    assert {"build_and_run_instance"} == rpc.ASKS_A_HOST_TO_BUILD


def test_what_acts_on_a_server_makes_none() -> None:
    """A message is about a server that is made or about one that is there."""
    assert not rpc.ACTS_ON_A_SERVER & rpc.NAMES_NEW_SERVERS
    assert rpc.ACTS_ON_A_SERVER | rpc.NAMES_NEW_SERVERS == rpc.ABOUT_SERVERS
    assert {
        "terminate_instance",
        "stop_instance",
        "reboot_instance",
        "resize_instance",
    } < rpc.ACTS_ON_A_SERVER


def test_a_saved_instance_says_its_state_in_the_fields_of_the_table() -> None:
    data = {rpc.VM_STATE: "active", rpc.TASK_STATE: None, rpc.BEFORE_HOST: None, rpc.HOST: "host1"}
    data |= {rpc.BEFORE_ID: None, rpc.ID: VM}
    saved = {"nova_object.name": rpc.INSTANCE, rpc.OBJECT_DATA: data, rpc.OBJECT_CHANGES: [rpc.VM_STATE]}
    facts = object_action_facts(body("object_action", {"objinst": saved, "objmethod": "save"}))
    assert facts is not None
    assert (facts.objname, facts.instance_uuid, facts.host) == ("Instance", VM, "host1")
    assert (facts.vm_state, facts.changes) == ("active", ("vm_state",))


def test_a_method_has_one_row() -> None:
    assert [name for name, count in Counter(row.name for row in METHODS).items() if count > 1] == []
