"""What is read out of oslo.messaging bodies: whole, cut, in another order, compressed, hostile."""

from __future__ import annotations

import bz2
import gzip
import json
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.long import examples

from tracer.calls import oslo
from tracer.calls.oslo import ObjectAction, OsloMessage

REQ = "req-3fff385c-4b13-4f7e-844a-f2d25f9d2d7b"
GLOBAL = "req-94073849-bc5f-4d67-a2d6-5ccd4f8750f0"
VM = "145c135d-63cb-41ba-98cd-3235a30c2e27"
VM2 = "976eff23-e73e-4459-9068-3e78c469b377"
OTHER = "5da90ed0-8eec-44af-9fb5-d5cba803f3fb"
MSG_ID = "fd74d192b388472a89c50c821f71447e"
UNIQUE = "78d52f1e3c314280bf76e9184c5b9aa4"
REPLY_Q = "reply_0405fb820db44b088fe3a7dff08b290f"
PROJECT = "e114495f4b7d49c18a052454413cd3db"
TOKEN = "gAAAAABrApExhBeOz-4inH37NmUWQSJYRTO1MAkBC8WVvTxRUYIh7nzEzNpv"


# --- building, as oslo.messaging does --------------------------------------------------------------


def envelope(message: dict[str, Any], **dump: Any) -> bytes:
    inner = json.dumps(message, **dump)
    return json.dumps({"oslo.version": "2.0", "oslo.message": inner}, **dump).encode()


def context() -> dict[str, Any]:
    return {
        "_context_user": "f126ab5581ba416583546a48a43b81ff",
        "_context_project_id": PROJECT,
        "_context_auth_token": TOKEN,
        "_context_request_id": REQ,
        "_context_global_request_id": GLOBAL,
        "_context_service_catalog": [{"type": "image", "endpoints": [{"publicURL": "http://10.0.0.1:9292"}]}],
    }


def request(
    method: str, args: dict[str, Any], *, call: bool = True, namespace: str | None = None
) -> dict[str, Any]:
    message: dict[str, Any] = {"method": method, "args": args}
    if namespace:
        message["namespace"] = namespace
    message["version"] = "1.17"
    if call:
        message |= {"_msg_id": MSG_ID, "_reply_q": REPLY_Q, "_timeout": None}
    return message | {"_unique_id": UNIQUE} | context()


def reply(result: Any = None, failure: str | None = None, *, ending: bool = True) -> dict[str, Any]:
    return {"result": result, "failure": failure, "ending": ending, "_msg_id": MSG_ID, "_unique_id": UNIQUE}


def obj(name: str, changes: tuple[str, ...] = (), **data: Any) -> dict[str, Any]:
    made = {"nova_object.name": name, "nova_object.namespace": "nova", "nova_object.version": "1.0"}
    return made | {"nova_object.data": data} | ({"nova_object.changes": list(changes)} if changes else {})


def instance(uuid: str = VM, changes: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    """An Instance with its fields in nova's order."""
    data = {"id": 2, "hostname": "vm", "vm_state": "building", "task_state": None, "ephemeral_key_uuid": None}
    data |= {"host": None, "node": None, "user_data": None, "vm_mode": None, "uuid": uuid}
    data |= {"info_cache": obj("InstanceInfoCache", instance_uuid=uuid, network_info='[{"id": "x"}]')}
    return obj("Instance", changes, **(data | fields))


def failure(name: str = "NoValidHost", message: str = "No valid host was found. ") -> str:
    tb = ["Traceback (most recent call last):\n", '  File "/usr/lib/x.py", line 1, in f\n    {"a": 1}\n']
    made = {"class": name, "module": "nova.exception", "message": message, "tb": tb, "args": [message]}
    return json.dumps(made | {"kwargs": {"code": 500}})


# --- read -----------------------------------------------------------------------------------------

CALL = OsloMessage(
    "request",
    "select_destinations",
    MSG_ID,
    UNIQUE,
    REQ,
    GLOBAL,
    PROJECT,
)


def compact(message: dict[str, Any]) -> bytes:
    return envelope(message, separators=(",", ":"))


def shuffled(message: dict[str, Any]) -> bytes:
    """Keys in another order, as Python 2 and sort_keys write them."""
    return envelope(dict(reversed(message.items())), sort_keys=False)


def unenveloped(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


FORMS = [envelope, compact, shuffled, unenveloped]


@pytest.mark.parametrize("form", FORMS)
def test_reads_a_call(form: Any) -> None:
    """A call has its method, ids and context, in whatever form it is written."""
    assert oslo.read(form(request("select_destinations", {"a": 1}))) == CALL


@pytest.mark.parametrize("form", FORMS)
def test_reads_a_cast(form: Any) -> None:
    """A cast has no _msg_id; a namespace may stand before its version."""
    message = oslo.read(form(request("build_instances", {}, call=False, namespace="compute_task")))
    assert message is not None
    assert (message.method, message.msg_id) == ("build_instances", None)
    assert (message.unique_id, message.request_id) == (UNIQUE, REQ)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", [True, False])
def test_reads_a_reply(form: Any, ending: bool) -> None:
    """A reply has the request's _msg_id, and a heartbeat of a monitored call is no ending."""
    expected = OsloMessage("reply", msg_id=MSG_ID, unique_id=UNIQUE, ending=ending)
    assert oslo.read(form(reply({"failure": None, "method": "x"}, ending=ending))) == expected


@pytest.mark.parametrize("form", FORMS)
def test_reads_a_failure(form: Any) -> None:
    """A failure is its class and message, without the traceback."""
    message = oslo.read(form(reply(failure=failure())))
    assert message is not None
    assert message.failure == "NoValidHost: No valid host was found. "


FAILURES = [
    (failure("MessagingTimeout", "Timed out"), "MessagingTimeout: Timed out"),
    (failure("X", "y" * 1000), "X: " + "y" * 297),
    (failure("X", 'say "no"\n'), 'X: say "no"\n'),
    ("not json", "not json"),
    ("[1, 2]", None),
    (json.dumps({"class": 7}), "unknown failure"),
    ("", None),
]


@pytest.mark.parametrize(("sent", "expected"), FAILURES)
def test_failure_texts(sent: str, expected: str | None) -> None:
    """A failure's text is at most 300 characters; one in no known form does not get in the way."""
    message = oslo.read(envelope(reply(failure=sent)))
    assert message is not None
    assert message.failure == expected


@pytest.mark.parametrize("form", FORMS)
def test_reads_a_notification(form: Any) -> None:
    """A notification has an event type."""
    sent: dict[str, Any] = {
        "message_id": "6b4d",
        "publisher_id": "nova-compute:compute1",
        "event_type": "instance.create.end",
    }
    sent |= {"priority": "INFO", "payload": {"method": "x"}, "_unique_id": UNIQUE, "_context_request_id": REQ}
    message = oslo.read(form(sent))
    assert message == OsloMessage(
        "notification",
        unique_id=UNIQUE,
        request_id=REQ,
        event_type="instance.create.end",
    )


def test_ids_inside_arguments_are_not_the_messages() -> None:
    """Arguments that hold a whole message, or JSON of one, do not lend it their ids."""
    other = {"method": "evil", "version": "9.9", "_msg_id": "0" * 32, "_reply_q": "reply_x", "_timeout": None}
    other |= {"_unique_id": "1" * 32, "_context_request_id": GLOBAL, "_context_project_id": "evil"}
    for args in (other, {"text": json.dumps(other)}, {"list": [other]}):
        assert oslo.read(envelope(request("select_destinations", args))) == CALL
        assert oslo.read(shuffled(request("select_destinations", args))) == CALL


NOT_OURS = [b"", b"{", b"hello", b"{}", b"[1]", b"\x00" * 50, b'{"a": 1}', b'{"oslo.version": "2.0"}']


@pytest.mark.parametrize("body", NOT_OURS)
@pytest.mark.parametrize("truncated", [True, False])
def test_other_bodies_are_none(body: bytes, truncated: bool) -> None:
    """What is no oslo.messaging message is None."""
    assert oslo.read(body, truncated) is None


@pytest.mark.parametrize("shape", ["req-" + "\x00" * 36, "req-1", "REQ", "", None, 7, ["req"]])
def test_ids_have_a_shape(shape: object) -> None:
    """A request id is req-<uuid> or nothing."""
    for form in FORMS:
        message = oslo.read(form(request("ping", {}) | {"_context_request_id": shape}))
        assert message is not None
        assert (message.request_id, message.unique_id) == (None, UNIQUE)


def test_reply_queues_of_a_queue_manager() -> None:
    """With use_queue_manager a reply queue names host and process."""
    message = oslo.read(envelope(request("ping", {}) | {"_reply_q": "reply_sc1:nova-conductor:3"}))
    assert message is not None
    assert (message.msg_id, message.unique_id) == (MSG_ID, UNIQUE)


# --- cut bodies -----------------------------------------------------------------------------------


@given(st.integers(0, 2000))
def test_a_cut_body_tells_no_lies(cut: int) -> None:
    """At whatever byte a body breaks off, what is read of it is what the whole says."""
    body = envelope(request("select_destinations", {"text": "x" * 300}))
    message = oslo.read(body[:cut], truncated=True)
    assert message is None or all(
        got in (None, said) for got, said in zip(message, CALL, strict=True) if got is not False
    )


@given(st.integers(0, 1500), st.integers(1, 400), st.booleans())
def test_a_hole_tells_no_lies(start: int, size: int, filled: bool) -> None:
    """With a hole anywhere, marked by one NUL or filled with them, ids are right or absent."""
    body = envelope(request("select_destinations", {"text": "x" * 300}))
    hole = b"\x00" * (size if filled else 1)
    message = oslo.read(body[:start] + hole + body[start + size :], truncated=True)
    said = (None, MSG_ID, UNIQUE, REQ, GLOBAL, PROJECT)
    if message is not None:
        ids = (message.msg_id, message.unique_id, message.request_id, message.global_request_id)
        assert all(got in said for got in (*ids, message.project_id))


def test_a_snap_length_keeps_the_method() -> None:
    """The first 100 bytes of a body name the method."""
    message = oslo.read(envelope(request("select_destinations", {"x": "y" * 500}))[:100], truncated=True)
    assert message is not None
    assert (message.kind, message.method, message.request_id) == ("request", "select_destinations", None)


def test_a_hole_in_the_arguments_loses_nothing() -> None:
    """Ids behind a hole in the arguments are read."""
    body = envelope(request("select_destinations", {"x": "y" * 500}))
    at = body.index(b"yyyy")
    assert oslo.read(body[: at + 10] + b"\x00" + body[at + 300 :], truncated=True) == CALL


def test_a_cut_failure_keeps_its_class() -> None:
    """A reply whose traceback is cut still names the exception."""
    body = envelope(reply(failure=failure()))
    message = oslo.read(body[: body.index(b"Traceback")], truncated=True)
    assert message is not None
    assert (message.kind, message.failure) == ("reply", "NoValidHost: No valid host was found. ")


# --- compressed bodies ----------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, bz2.compress])
def test_reads_through_compression(pack: Any) -> None:
    """zlib, gzip and bz2 bodies (kombu_compression) are read as others are."""
    body = pack(envelope(request("select_destinations", {"instance_uuids": [VM]})))
    assert oslo.read(body) == CALL
    assert oslo.instance_uuids("select_destinations", body) == (VM,)


def test_a_compression_that_we_cannot_undo() -> None:
    """A zstd body is known to be compressed, and nothing else."""
    assert oslo.read(b"\x28\xb5\x2f\xfd" + b"x" * 50) == OsloMessage("compressed")


def test_a_bomb_is_cut() -> None:
    """A body that unfolds to a gigabyte is read as far as 4 MiB."""
    bomb = zlib.compress(b'{"oslo.version": "2.0", "oslo.message": "{' + b" " * (64 << 20))
    assert oslo.read(bomb) is None


# --- instances ------------------------------------------------------------------------------------

BUILD_REQUESTS = [obj("BuildRequest", instance_uuid=uuid, instance=instance(uuid)) for uuid in (VM, VM2)]
INSTANCES: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("schedule_and_build_instances", {"build_requests": BUILD_REQUESTS, "request_specs": []}, (VM, VM2)),
    (
        "schedule_and_build_instances",
        {"request_specs": [obj("RequestSpec", instance_uuid=VM)]},
        (VM,),
    ),
    ("select_destinations", {"instance_uuids": [VM, VM2, VM], "spec_obj": obj("RequestSpec")}, (VM, VM2)),
    ("select_destinations", {"spec_obj": obj("RequestSpec", instance_uuid=VM)}, (VM,)),
    ("select_destinations", {"request_spec": {"instance_properties": {"uuid": VM}}}, (VM,)),
    ("build_and_run_instance", {"instance": instance(), "bdms": [obj("B", uuid=OTHER)]}, (VM,)),
    ("build_instances", {"instances": [instance(VM), instance(VM2)]}, (VM, VM2)),
    ("external_instance_event", {"instances": [instance(VM)], "events": [obj("E", instance_uuid=VM)]}, (VM,)),
    ("external_instance_event", {"events": [obj("E", instance_uuid=VM)]}, (VM,)),
    ("update_instance_info", {"instance_info": instance()}, ()),
    ("build_and_run_instance", {"instance": None}, ()),
]


@pytest.mark.parametrize(("method", "args", "expected"), INSTANCES)
def test_instances_of_a_request(method: str, args: dict[str, Any], expected: tuple[str, ...]) -> None:
    """A request names its instances in order, each once; a host's periodic list names none."""
    assert oslo.instance_uuids(method, envelope(request(method, args))) == expected


@pytest.mark.parametrize(("method", "args", "expected"), INSTANCES)
def test_instances_of_a_cut_request(method: str, args: dict[str, Any], expected: tuple[str, ...]) -> None:
    """Wherever a body breaks off, its instances are the first of those it names."""
    body = envelope(request(method, args))
    for cut in range(0, len(body), 7):
        found = oslo.instance_uuids(method, body[:cut])
        assert found == expected[: len(found)]


# --- selections -----------------------------------------------------------------------------------


def selection(host: str) -> dict[str, Any]:
    return obj("Selection", service_host=host, nodename=host, allocation_request='{"allocations": {}}')


SELECTIONS = [
    ([[selection("c1"), selection("c2")], [selection("c2")]], (("c1", "c2"), ("c2",))),
    ([{"host": "c1", "nodename": "c1", "limits": {}}], (("c1",),)),
    (None, ()),
    ([], ()),
    ({"host": "c1"}, ()),
    ("c1", ()),
]


@pytest.mark.parametrize(("result", "expected"), SELECTIONS)
def test_selected_hosts(result: Any, expected: tuple[tuple[str, ...], ...]) -> None:
    """A reply of the scheduler names for each instance the chosen host, then the alternates."""
    assert oslo.selected_hosts(envelope(reply(result))) == expected


def test_selected_hosts_of_a_cut_reply() -> None:
    """A cut reply gives the hosts that are still in it, by instance."""
    body = envelope(reply([[selection("c1"), selection("c2")], [selection("c3")]]))
    assert oslo.selected_hosts(body[:-60]) == (("c1", "c2"), ("c3",))
    assert oslo.selected_hosts(body[: body.index(b"c2")]) == (("c1",),)


# --- object actions -------------------------------------------------------------------------------


def action(objinst: dict[str, Any], objmethod: str = "save") -> bytes:
    args = {"objinst": objinst, "objmethod": objmethod, "args": [], "kwargs": {}}
    return envelope(request("object_action", args))


def class_action(objname: str, objmethod: str, *args: Any, **kwargs: Any) -> bytes:
    made = {"objname": objname, "objmethod": objmethod, "object_versions": {"Instance": "2.7"}}
    return envelope(request("object_class_action_versions", made | {"args": list(args), "kwargs": kwargs}))


ACTIVE: dict[str, Any] = {"vm_state": "active", "task_state": None, "host": "compute1"}
# A resize puts what it resizes first: the first uuid and host of the body are another object's.
RESIZED = {"nova_object.name": "Instance"} | {
    "nova_object.data": {"resources": obj("R", uuid=OTHER, host="old")}
    | instance(VM, **ACTIVE)["nova_object.data"]
}
ACTIONS = [
    (
        action(instance(VM, ("vm_state", "host"), **ACTIVE)),
        ObjectAction("Instance", "save", VM, "active", None, "compute1", changes=("vm_state", "host")),
    ),
    (
        action(instance(VM, vm_state="building", task_state="spawning")),
        ObjectAction("Instance", "save", VM, "building", "spawning"),
    ),
    (action(RESIZED), ObjectAction("Instance", "save", VM, "active", None, "compute1")),
    (
        action(obj("Instance", ("vm_state",), uuid=VM, vm_state="error")),
        ObjectAction("Instance", "save", VM, "error", changes=("vm_state",)),
    ),
    (
        action(obj("Service", uuid=OTHER, host="compute2", binary="nova-compute")),
        ObjectAction("Service", "save", host="compute2", binary="nova-compute"),
    ),
    (action(obj("ComputeNode", uuid=OTHER, host="compute2")), ObjectAction("ComputeNode", "save")),
    (
        action(obj("BlockDeviceMapping", uuid=OTHER, instance_uuid=VM)),
        ObjectAction("BlockDeviceMapping", "save", VM),
    ),
    (
        class_action(
            "InstanceActionEvent", "event_start", VM, "compute__do_build_and_run_instance", host="c1"
        ),
        ObjectAction(
            "InstanceActionEvent", "event_start", VM, host="c1", event="compute__do_build_and_run_instance"
        ),
    ),
    (
        class_action("InstanceActionEvent", "event_finish_with_failure", VM, "e", exc_val=None, exc_tb=None),
        ObjectAction("InstanceActionEvent", "event_finish_with_failure", VM, event="e"),
    ),
    (
        class_action(
            "InstanceActionEvent", "event_finish_with_failure", VM, "e", exc_val='Build "x" aborted'
        ),
        ObjectAction(
            "InstanceActionEvent", "event_finish_with_failure", VM, event="e", error='Build "x" aborted'
        ),
    ),
    (class_action("Instance", "get_by_uuid", uuid=VM), ObjectAction("Instance", "get_by_uuid", VM)),
    (class_action("Service", "get_by_compute_host", "c1"), ObjectAction("Service", "get_by_compute_host")),
    (envelope(request("ping", {"arg": 1})), None),
    (b"", None),
]


@pytest.mark.parametrize(("body", "expected"), ACTIONS)
def test_object_actions(body: bytes, expected: ObjectAction | None) -> None:
    """An object's action is told by its own fields, not by those of objects that it holds."""
    assert oslo.object_action_facts(body) == expected


@pytest.mark.parametrize("body", [body for body, expected in ACTIONS if expected])
def test_cut_object_actions(body: bytes) -> None:
    """However a body is cut, a vm_state that is read is the one that was sent."""
    whole = oslo.object_action_facts(body)
    assert whole is not None
    for cut in range(0, len(body), 11):
        part = oslo.object_action_facts(body[:cut])
        assert part is None or (part.objname == whole.objname and part.vm_state in (None, whole.vm_state))


# --- faults and reasons ---------------------------------------------------------------------------

TRACEBACK = ["Traceback (most recent call last):\n", '  File "a.py"\n', "a.Error: no memory left\n"]


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        ({"exc_reason": "no memory left", "exc": TRACEBACK}, "no memory left"),
        ({"exc_reason": ["no memory", "left"]}, "no memory left"),
        ({"exc_reason": None, "exc": TRACEBACK}, "a.Error: no memory left"),
        ({"exc_reason": "", "exc": []}, ""),
        ({"num_attempts": 1, "hosts": []}, ""),
        (None, ""),
        ({"exc_reason": {"a": 1}}, ""),
    ],
)
def test_the_reason_of_a_reschedule(retry: object, expected: str) -> None:
    args = {"instances": [], "filter_properties": {"retry": retry}}
    body = json.dumps({"oslo.message": json.dumps({"method": "build_instances", "args": args})}).encode()
    assert oslo.reason_given("build_instances", body) == expected
    assert oslo.reason_given("select_destinations", body) == ""


@pytest.mark.parametrize("text", ["no memory left", 'the "disk" is full'])
def test_the_text_of_a_fault(text: str) -> None:
    """InstanceFault.create holds the reason, quotes included; a cut body keeps what is before the first."""
    fault = {
        "nova_object.name": "InstanceFault",
        "nova_object.data": {"code": 500, "instance_uuid": VM, "message": text, "details": "Traceback"},
    }
    message = {"method": "object_action", "args": {"objinst": fault, "objmethod": "create"}}
    body = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()
    found = oslo.object_action_facts(body)
    assert found is not None and (found.objname, found.instance_uuid, found.error) == (
        "InstanceFault",
        VM,
        text,
    )
    cut = oslo.object_action_facts(body[: body.index(b"details")])
    assert cut is not None and cut.error is not None and text.startswith(cut.error)


# --- hostile bodies -------------------------------------------------------------------------------

READERS: list[Callable[[bytes], object]] = [
    oslo.read,
    lambda body: oslo.read(body, True),
    oslo.object_action_facts,
    oslo.selected_hosts,
    lambda body: oslo.instance_uuids("select_destinations", body),
    lambda body: oslo.instance_uuids("build_instances", body),
    lambda body: oslo.reason_given("build_instances", body),
]
KEYS = ["method", "args", "result", "failure", "ending", "_msg_id", "_unique_id", "version", "instances"]
KEYS += [
    "instance_uuids",
    "objinst",
    "objname",
    "objmethod",
    "nova_object.data",
    "nova_object.name",
    "kwargs",
]
KEYS += [
    "nova_object.changes",
    "event_type",
    "oslo.message",
    "_context_request_id",
    "service_host",
    "exc_val",
]
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=20), st.just(REQ), st.just(VM)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(KEYS),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=15,
)


@given(JSON)
@settings(max_examples=examples(300))
def test_any_json_is_survived(value: object) -> None:
    """JSON of any shape in the places we look at raises nothing, and reads the same again."""
    for body in (json.dumps(value).encode(), json.dumps({"oslo.message": json.dumps(value)}).encode()):
        for reader in READERS:
            assert reader(body) == reader(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(body: bytes) -> None:
    """Bytes of any kind raise nothing, and read the same again."""
    inner = b'{"oslo.version": "2.0", "oslo.message": "{\\"method\\": \\"object_action\\", ' + body
    for reader in READERS:
        for each in (body, inner):
            assert reader(each) == reader(each)


HEAD = b'{"oslo.version": "2.0", "oslo.message": "{\\"'
HOSTILE = {
    "nested": b'{"oslo.message": ' + b"[" * 300_000,
    "nested inside": b'{"oslo.message": "' + b"[" * 300_000 + b"]" * 300_000 + b'"}',
    "backslashes": HEAD + b"\\" * 300_000,
    "quotes": HEAD + b'\\"' * 150_000,
    "keys": HEAD + b'method\\": \\"' * 30_000,
    "failures": HEAD + b'result\\": null, ' + b'\\"failure\\": \\"{' * 20_000,
    "messages": HEAD + b'result\\": null, ' + b'\\\\\\"message\\\\\\": \\\\\\"' * 20_000,
    "versions": HEAD + b'method\\": \\"a\\", ' + b'\\"version\\": \\"1\\", ' * 20_000,
    "lists": HEAD + b'method\\": \\"a\\", ' + b'\\"instance_uuids\\": [' * 15_000,
    "args": HEAD + b'method\\": \\"a\\", \\"objname\\": \\"X\\"' + b', \\"args\\": [' * 20_000,
    "objects": HEAD + b'nova_object.name\\": \\"Instance\\", \\"' + b'nova_object.changes\\": [' * 15_000,
    "spaces": b" " * 300_000,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bodies_take_linear_time(body: bytes) -> None:
    """A body made to be slow costs no more than its size."""
    for reader in READERS:
        began = time.process_time()
        reader(body)
        assert time.process_time() - began < 1
