r"""Facts in the arguments of nova's RPC that correlation needs: servers, hosts, states.

Rare requests are decoded. Frequent requests and cut bodies are searched with patterns on the escaped bytes;
`oslo.py` explains the backslashes. The tables of methods and fields are in `tracer/openstack/rpc.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from tracer.calls.oslo_body import LONGEST_TEXT, UUID, plain, unescaped, whole
from tracer.openstack import rpc

__all__ = [
    "Notified",
    "ObjectAction",
    "instance_uuids",
    "notified",
    "object_action_facts",
    "reason_given",
]


class ObjectAction(NamedTuple):
    """A method of an object that nova-compute asks nova-conductor to run; None for an absent field."""

    objname: str | None = None
    """Instance, Service, InstanceActionEvent ..."""
    objmethod: str | None = None
    """save, event_start, get_by_uuid ..."""
    instance_uuid: str | None = None
    vm_state: str | None = None
    """The state after the save; None when it is null or absent."""
    task_state: str | None = None
    host: str | None = None
    binary: str | None = None
    event: str | None = None
    """InstanceActionEvent: compute__do_build_and_run_instance ..."""
    error: str | None = None
    """Text of the exception in event_finish_with_failure, which is also sent without an exception; of an
    InstanceFault the reason that is recorded."""
    changes: tuple[str, ...] = ()
    """Instance: the fields that the save writes."""


class Notified(NamedTuple):
    """A notification that a server was not built."""

    servers: tuple[str, ...]
    words: str
    """Class and text of the exception."""
    host: str
    """Where, if the notification says so."""


# --- facts for correlation ------------------------------------------------------------------------

_UUIDS = re.compile(UUID)
_UUID_TEXT = re.compile(UUID.decode())
_INSTANCE_UUID = re.compile(rb'"' + rpc.SERVER_ID.encode() + rb'\\{0,9}": ?\\{0,9}"(' + UUID + rb')\\{0,9}"')
_OWN_UUID = re.compile(
    rb'"' + rpc.BEFORE_ID.encode() + rb'\\{0,9}": ?(?:null|\\{0,9}"\w{0,40}\\{0,9}"), ?\\{0,9}"'
    + rpc.ID.encode() + rb'\\{0,9}": ?\\{0,9}"(' + UUID + rb')\\{0,9}"'
)  # fmt: skip

_SERVERS_IN, _DATA = rpc.SERVERS_IN, rpc.OBJECT_DATA
_OF_ONE = frozenset(method for method, paths in _SERVERS_IN.items() if rpc.OWN in paths)
"""Methods about one server, whose object in the message holds its own uuid."""
_LISTS = {
    method: re.compile(rb'"' + paths[0][0].encode() + rb'\\{0,9}": ?\[([^\]]{0,100000})')
    for method, paths in _SERVERS_IN.items()
    if paths[0][1:] == ("*",)
}
"""Method -> pattern of its list of plain ids, for methods that have one."""


def instance_uuids(method: str, body: bytes) -> tuple[str, ...]:
    """Return the instances that a request is about, in order, each once; () for an unknown method.

    `rpc.ABOUT_SERVERS` holds the known methods. A cut body gives the instances that are left in it.
    """
    paths = _SERVERS_IN.get(method)
    if paths is None:
        return ()
    body = plain(body)
    inner = whole(body)
    if inner is None:
        return _instance_uuids_in_pieces(method, body)
    # The first path with ids wins: the paths of a method are sorted, best first.
    for path in paths:
        values = _follow(inner.get("args"), path)
        uuids = dict.fromkeys(v for v in values if isinstance(v, str) and _UUID_TEXT.fullmatch(v))
        if uuids:
            return tuple(uuids)
    return ()


def notified(event: str, body: bytes) -> Notified | None:
    """Return what a notification of a failure says; None for other events, and for a cut body."""
    row = rpc.NOTIFIED.get(event)
    inner = whole(plain(body)) if row is not None else None
    if row is None or inner is None:
        return None
    payload = inner.get("payload")

    def texts(path: tuple[str, ...]) -> list[str]:
        return [value for value in _follow(payload, path) if isinstance(value, str) and value]

    servers = (s for path in row.servers for s in texts(path)[:64] if _UUID_TEXT.fullmatch(s))
    words = ": ".join(text[:LONGEST_TEXT] for path in row.words for text in texts(path)[:1])
    publisher = inner.get("publisher_id")
    sender = publisher if isinstance(publisher, str) else ""
    # nova-compute:compute1, and compute.compute1 of legacy notifications.
    host = next(iter(texts(row.host)), "") if row.host else ""
    host = host or (re.split("[:.]", sender, maxsplit=1)[-1] if row.host else "")
    return Notified(tuple(dict.fromkeys(servers)), words, host[:255])


def _follow(value: object, path: tuple[str, ...]) -> Iterator[object]:
    """Yield the values at *path*; a versioned object stands for the dict of its data.

    Source: oslo_versionedobjects/base.py, obj_to_primitive.
    """
    if not path:
        yield value
    elif path[0] == "*":
        for item in value if isinstance(value, list) else ():
            yield from _follow(item, path[1:])
    elif isinstance(value, dict):
        data = value.get(_DATA, value)
        if isinstance(data, dict):
            yield from _follow(data.get(path[0]), path[1:])


def _instance_uuids_in_pieces(method: str, body: bytes) -> tuple[str, ...]:
    listing = _LISTS.get(method)
    if listing is not None and (listed := listing.search(body)):
        found = _UUIDS.findall(listed[1])
    elif method in _OF_ONE:
        # What the instance holds names it as instance_uuid. Its own uuid is known by the field before it: any
        # other that is left of a cut body may be a block device's.
        first = _INSTANCE_UUID.search(body) or _OWN_UUID.search(body)
        found = [first[1]] if first else []
    else:
        found = _INSTANCE_UUID.findall(body)
    return tuple(dict.fromkeys(uuid.decode() for uuid in found))


# --- object actions -------------------------------------------------------------------------------
# The most frequent requests of all, so keys are found with bytes.find, which is faster than any pattern.

_OBJECT_NAME = re.compile(rb'\\"(?:nova_object\.name|objname)\\": ?\\"(\w{1,80})\\"')
_OBJECT_METHOD = b'\\"objmethod\\"'


def _key(name: str) -> bytes:
    """Return *name* as a quoted key in the escaped bytes of the message."""
    return b'\\"' + name.encode() + b'\\"'


_HOST, _BINARY, _VM_STATE, _TASK_STATE = map(_key, (rpc.HOST, rpc.BINARY, rpc.VM_STATE, rpc.TASK_STATE))
_ID, _SERVER_ID, _CHANGES = map(_key, (rpc.ID, rpc.SERVER_ID, rpc.OBJECT_CHANGES))
_UUID_VALUE = re.compile(rb': ?\\"(' + UUID + rb')\\"')
_WORD_VALUE = re.compile(rb': ?\\"([\w.-]{1,255})\\"')
# An Instance holds other objects with a uuid and a host. Its own ones follow known fields (`rpc.BEFORE_*`).
_BEFORE_HOST = _key(rpc.BEFORE_HOST)
_OWN_HOST = re.compile(rb': ?(?:null|\\"[\w-]{0,40}\\"), ?\\"host\\": ?(?:null|\\"([\w.-]{1,255})\\")')
_BEFORE_UUID = _key(rpc.BEFORE_ID)
_OWN_UUID_VALUE = re.compile(rb': ?(?:null|\\"\w{0,40}\\"), ?\\"uuid\\": ?\\"(' + UUID + rb')\\"')
_FIRST_ARGS = re.compile(rb'\\"args\\": ?\[(?:\\"(' + UUID + rb')\\")?(?:, ?\\"(\w{1,80})\\")?')
_ERROR = re.compile(re.escape(_key(rpc.ERROR_TEXT)) + rb': ?\\"([^"\x00]{1,600})')
_FAULT_MESSAGE = re.compile(re.escape(_key(rpc.FAULT_TEXT)) + rb': ?\\"([^"\x00]{1,600})')
_TRACEBACK = "Traceback"
"""Beginning of a formatted exception (Python's traceback module)."""
_CHANGE = re.compile(rb'\\"(\w{1,60})\\"')


def object_action_facts(body: bytes) -> ObjectAction | None:
    """Return the action in an object_action or object_class_action_versions; None if *body* is neither.

    Fields whose bytes are missing are None. The body is decoded only if its fields have an unusual order.
    """
    body = plain(body)
    name = _OBJECT_NAME.search(body)
    if name is None:
        return None
    start = name.end()
    # The object's data lie between its name and the method's name.
    method = _match_after(body, _OBJECT_METHOD, start, len(body), _WORD_VALUE)
    stop = method.start() if method else len(body)
    objname, objmethod = name[1].decode(), method[1].decode() if method else None
    # `objname` is the argument of a class action; an object names itself with nova_object.name. The two bytes
    # before it are the escaped quote.
    if body.startswith(b"objname", name.start() + 2):
        return _class_action(body, stop, objname, objmethod)
    if objname == rpc.INSTANCE:
        return _instance_action(body, start, stop, objmethod)
    if objname == rpc.SERVICE:
        host = _value(body, _HOST, start, stop, _WORD_VALUE)
        binary = _value(body, _BINARY, start, stop, _WORD_VALUE)
        return ObjectAction(objname, objmethod, host=host, binary=binary)
    uuid = _value(body, _SERVER_ID, start, stop, _UUID_VALUE)
    error = _fault_text(body, start, stop) if objname == rpc.FAULT else None
    return ObjectAction(objname, objmethod, instance_uuid=uuid, error=error)


def _fault_text(body: bytes, start: int, stop: int) -> str | None:
    """Return the reason in an InstanceFault: its message, without the traceback in its details."""
    # Faults are rare, so the body is decoded. The pattern is for a cut body: it stops at the first quote.
    for text in _follow((whole(body) or {}).get("args"), ("objinst", rpc.FAULT_TEXT)):
        if isinstance(text, str):
            return text[:LONGEST_TEXT]
    found = _FAULT_MESSAGE.search(body, start, stop)
    return unescaped(found[1])[:LONGEST_TEXT] if found else None


def reason_given(method: str, body: bytes) -> str:
    """Return why the host that sends this request gives up; '' where it does not say so.

    A list of texts is joined to one; of a traceback only its last line tells the reason. Nothing is read of a
    cut body.
    """
    paths = rpc.REASONS.get(method, ())
    inner = whole(plain(body)) if paths else None
    for path in paths if inner is not None else ():
        for value in _follow((inner or {}).get("args"), path):
            lines = [value] if isinstance(value, str) else value if isinstance(value, list) else []
            texts = [line.strip() for line in lines if isinstance(line, str) and line.strip()]
            if texts and texts[0].startswith(_TRACEBACK):
                texts = texts[-1:]
            if texts:
                return " ".join(texts)[:LONGEST_TEXT]
    return ""


def _instance_action(body: bytes, start: int, stop: int, objmethod: str | None) -> ObjectAction:
    """Read an action on an Instance: its own fields, not those of the objects in it.

    *stop* is the end of the object; the list of its changed fields stands right before it. The order of
    fields can vary (a resize puts others first); if it does, the body is decoded.
    """
    own_host = _match_after(body, _BEFORE_HOST, start, stop, _OWN_HOST)
    own_uuid = _match_after(body, _BEFORE_UUID, start, stop, _OWN_UUID_VALUE)
    if (own_host is None or own_uuid is None) and (inner := whole(body)):
        return _decoded_instance_action(inner, objmethod)
    if own_uuid is None:
        own_uuid = _match_after(body, _SERVER_ID, start, stop, _UUID_VALUE)
    # The last list is the Instance's own; the objects in it have lists of their own, before it.
    listed = body.rfind(_CHANGES, start, stop)
    fields = body[listed : body.find(b"]", listed)] if listed >= 0 else b""
    return ObjectAction(
        rpc.INSTANCE,
        objmethod,
        instance_uuid=own_uuid[1].decode() if own_uuid else None,
        vm_state=_value(body, _VM_STATE, start, stop, _WORD_VALUE),
        task_state=_value(body, _TASK_STATE, start, stop, _WORD_VALUE),
        host=own_host[1].decode() if own_host and own_host[1] else None,
        changes=tuple(field.decode() for field in _CHANGE.findall(fields)),
    )


def _decoded_instance_action(inner: dict[str, Any], objmethod: str | None) -> ObjectAction:
    arguments = inner.get("args")

    def text(*path: str) -> str | None:
        return next((value for value in _follow(arguments, path) if isinstance(value, str)), None)

    return ObjectAction(
        rpc.INSTANCE,
        objmethod,
        instance_uuid=text("objinst", rpc.ID) or text("kwargs", rpc.ID),
        vm_state=text("objinst", rpc.VM_STATE),
        task_state=text("objinst", rpc.TASK_STATE),
        host=text("objinst", rpc.HOST),
        changes=tuple(field for field in _changes(arguments) if isinstance(field, str)),
    )


def _changes(arguments: object) -> list[object]:
    instance = arguments.get("objinst") if isinstance(arguments, dict) else None
    changes = instance.get(rpc.OBJECT_CHANGES) if isinstance(instance, dict) else None
    return changes if isinstance(changes, list) else []


def _class_action(body: bytes, start: int, objname: str, objmethod: str | None) -> ObjectAction:
    """Read an action on a class; its arguments follow the name of its method, from *start* on.

    The arguments of InstanceActionEvent are the instance and the event.
    """
    end = len(body)
    arguments = _FIRST_ARGS.search(body, start)
    uuid, second = arguments.groups() if arguments else (None, None)
    if objname == rpc.INSTANCE and uuid is None:
        own = _match_after(body, _ID, start, end, _UUID_VALUE)
        uuid = own[1] if own else None
    about_instance = objname.startswith(rpc.INSTANCE) or "instance" in (objmethod or "")
    instance_uuid = uuid.decode() if uuid and about_instance else None
    if objname != rpc.ACTION_EVENT:
        return ObjectAction(objname, objmethod, instance_uuid)
    return ObjectAction(
        objname,
        objmethod,
        instance_uuid,
        host=_value(body, _HOST, start, end, _WORD_VALUE),
        event=second.decode() if second else None,
        error=_error_text(body, start) if rpc.FAILURE in (objmethod or "") else None,
    )


def _error_text(body: bytes, start: int) -> str | None:
    """Return the text of exc_val; None if it is null, as in most messages."""
    found = _ERROR.search(body, start)
    if found is None:
        return None
    # The pattern stops at the first quote inside the text, so the body is decoded where it is whole.
    for text in _follow((whole(body) or {}).get("args"), ("kwargs", rpc.ERROR_TEXT)):
        if isinstance(text, str):
            return text[:LONGEST_TEXT]
    return unescaped(found[1])[:LONGEST_TEXT]


def _match_after(
    body: bytes, key: bytes, start: int, stop: int, shape: re.Pattern[bytes]
) -> re.Match[bytes] | None:
    at = body.find(key, start, stop)
    return shape.match(body, at + len(key)) if at >= 0 else None


def _value(body: bytes, key: bytes, start: int, stop: int, shape: re.Pattern[bytes]) -> str | None:
    """Return the value of the first *key* from *start* to *stop*; None if it has another shape, as null."""
    found = _match_after(body, key, start, stop, shape)
    return found[1].decode() if found else None
