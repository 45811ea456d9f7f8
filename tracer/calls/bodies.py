"""Facts of HTTP bodies: names, ids, states, the text of a fault. The bodies themselves are not kept.

A whole JSON body is decoded. In a body with lost bytes, patterns find the ids in what is left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs

import msgspec

from tracer.calls.paths import UUID, split_target, uuids
from tracer.model import Event, RestFacts
from tracer.openstack import faults, rest, states

__all__ = ["fault_text", "named", "read_answer", "read_request", "wants_body"]

TEXT_LIMIT = 300
"""Characters of a fault's text that are kept."""
_MOST_EVENTS = 64
"""Events of one report that are read: neutron sends those of some seconds together."""
FORM_BYTES = 65_536
"""How much of a form is looked at for a name: a field more than that many bytes long may hold a file."""
_WANTED_GETS = re.compile("|".join(rest.SHOWS_WHAT_A_CREATION_IS))
_FAULT_FIELDS = faults.FIELDS
_CONDITIONS = {row.resource: row for row in states.CONDITIONS}
_CUT_FAULT = re.compile(rf'"(?:{"|".join(faults.CUT_FIELDS)})"\s*:\s*"((?:[^"\\]|\\.){{1,300}})')
_NAME = re.compile(rb'"(?:name|display_name)"\s*:\s*"((?:[^"\\]|\\.){1,255})"')
# An action's name is shown and matched as a part of the path, so a body cannot put anything else there.
_ACTION = re.compile(r"[A-Za-z][\w-]{0,40}")
_STATUS = re.compile(rb'"status"\s*:\s*"(\w{1,32})"')
# Texts of faults quote what was sent, so what looks like a secret is cut out of them.
_TOKEN_LIKE = re.compile(
    r"""(?xi)
    gAAAA[\w\-=]{6,}                                          # a Fernet token of keystone
    | \b[0-9a-f]{64,}\b
    | \b(?:basic|bearer)\s+\S+
    # User and password of a URL. A password may hold a slash; a port and a path with an @ in it are none.
    | (?<=://)(?:[^/\s@:]+:(?![0-9]{1,5}(?:[/?\s]|$))\S*@ | [^/\s@]+@)
    # The class of an exception is told before its text: InstancePasswordSetFailed: no agent.
    | (?:pass|token|secret|user_?data|personality|credential)
      (?!\w*(?:failed|error|exception|notfound|exists):)
      [\w.\-]*['"]?(?:\s*(?:[=:]|\bwas\b)\s*(?:'[^']*'?|"[^"]*"?|\S+) | (?<=\w)\s+(?:'[^']+'|"[^"]+"))
    | (?<![\w\-])(?:[\w\-]{0,40}[\-_])?key['"]?\s*[=:]\s*(?:'[^']*'?|"[^"]*"?|\S+)         # X-Auth-Key: …
    | --[\w\-]{0,40}(?:pass|token|secret|key)[\w\-]{0,40}(?:\s*=\s*|\s+)                   # a command line
      (?:'[^']*'?|"[^"]*"?|\S+)
    | \bpass\w*\s+is\s+
      (?!(?:not|no|too|in\w*|un\w*|required|expired|missing|empty|wrong|null|none|a|an|the)\b)
      (?:'[^']*'?|"[^"]*"?|\S+)
    | (?<=duplicate[ ]entry[ ])'[^']*'? | (?<=near[ ])'[^']*'?  # MySQL's errors quote values
    """
)
_IN_A_NAME = re.compile(r"(?i)gAAAA[\w\-=]{6,}|(?:pass\w{0,8}|token|secret)[=:]\S+|(?<=://)[^/\s@]+@")
"""What is surely a secret, since the rest of a name is what its user looks for."""
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[@-~]|[\x00-\x08\x0e-\x1f\x7f-\x9f]")
"""Sequences of a terminal, and other characters that are not shown."""
_FIELD_VALUE = re.compile(
    r"(?is)(pass|token|secret|user_?data|personality|key|credential)(.{0,80}?\bvalue:).*"
)
"""The value that nova's schema check repeats: 'Invalid input for field/attribute adminPass. Value: …'."""


def wants_body(method: str, target: str, headers: dict[str, str], status: int) -> bool:
    """Return whether the body of a request (*status* 0) or response holds facts that we need.

    Bodies that hold credentials are never read.
    """
    path, query = split_target(target)
    # Before all other rules: not even the text of a refused login is read.
    if rest.is_secret(path):
        return False
    if status >= 400:
        return True
    if method in ("POST", "PUT"):
        kind = headers.get("content-type", "")
        # Not images and other binary uploads.
        return not kind or "json" in kind or "form-urlencoded" in kind or "text" in kind
    if method != "GET" or status != 200:
        return False
    return _WANTED_GETS.search(path) is not None or rest.networks_listed(path, query) != ""


def _decode(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def _text(body: bytes) -> str:
    return body.decode("utf-8", "replace")


def read_request(facts: RestFacts, body: bytes) -> None:
    """Fill *facts* with the ids, name and action in the *body* of a request."""
    if not body:
        return
    # dict.fromkeys removes repeated ids and keeps their order.
    facts.ids = tuple(dict.fromkeys([*facts.ids, *uuids(_text(body))]))
    decoded = _decode(body)
    if isinstance(decoded, dict):
        _read_names(facts, decoded)
        if facts.path.endswith(rest.EXTERNAL_EVENTS):
            facts.events = tuple(_events(decoded))
    elif match := _NAME.search(body):
        facts.name = named(_text(match.group(1)))
    elif b"=" in body[:200] and b"{" not in body[:1]:
        # A form (application/x-www-form-urlencoded), as portals send.
        fields = parse_qs(_text(body[:FORM_BYTES]))
        facts.name = named(next((fields[key][0] for key in rest.NAMES if key in fields), ""))


def named(name: str) -> str:
    """Return a name that a user gave, at most 255 characters, without a token or a password in it."""
    return _IN_A_NAME.sub("…", name[:255])


def _events(decoded: dict[str, object]) -> Iterator[Event]:
    """Yield the events in a report to nova-api, or in its answer."""
    listed = decoded.get(rest.EVENTS)
    for each in listed[:_MOST_EVENTS] if isinstance(listed, list) else ():
        if isinstance(each, dict):
            name, server, tag, status = (
                value[:64] if isinstance(value := each.get(key), str) else ""
                for key in ("name", "server_uuid", "tag", "status")
            )
            code = each.get("code")
            yield Event(name, server, tag, status, code if isinstance(code, int) else 0)


def _read_names(facts: RestFacts, decoded: dict[str, object]) -> None:
    """Read action, name, boot volume and want of a network from the JSON of a request."""
    # A POST to /action is one key, the action, with its arguments: {"os-stop": null}.
    if facts.path.endswith(rest.ACTION) and len(decoded) == 1:
        facts.action = next((key for key in decoded if _ACTION.fullmatch(key)), "")
    # OpenStack wraps the resource in a key: {"server": {"name": …}}.
    inner = decoded
    if not isinstance(decoded.get("name"), str):
        nested = [value for value in decoded.values() if isinstance(value, dict)]
        inner = next((value for value in nested if isinstance(value.get("name"), str)), decoded)
    name = inner.get("name")
    if isinstance(name, str):
        facts.name = named(name)
    if facts.creates:
        facts.volume = _boots_from_volume(inner)
        facts.networks = _networks_said(inner.get(rest.NETWORKS))


def _networks_said(networks: object) -> str:
    if networks == rest.NO_NETWORK:
        return rest.NO_NETWORK
    return "" if networks else rest.UNNAMED


def _boots_from_volume(server: dict[str, object]) -> bool:
    """Return whether a server is booted from a volume (block_device_mapping, versions 1 and 2)."""
    disks = next((found for key in rest.DISKS if (found := server.get(key))), None)
    if not isinstance(disks, list):
        return False
    return any(
        isinstance(disk, dict)
        and ("volume" in (disk.get("source_type"), disk.get("destination_type")) or disk.get("volume_id"))
        for disk in disks[:64]
    )


def read_answer(facts: RestFacts, body: bytes, headers: dict[str, str]) -> None:
    """Fill *facts* with the ids and states in the *body* of a response and in its Location header."""
    if not body and "location" not in headers:
        return
    ids = list(uuids(headers.get("location", "")))
    decoded = _decode(body) if body else None
    if facts.method == "GET" and rest.networks_listed(facts.path, facts.query):
        listed = decoded.get(rest.NETWORKS) if isinstance(decoded, dict) else None
        facts.listed = len(listed) if isinstance(listed, list) else None
        return
    if isinstance(decoded, dict):
        ids += _described(decoded)
        _read_states(facts, decoded)
        _read_condition(facts, decoded)
        if facts.events:
            answers = {(e.name, e.server_id, e.tag): e.code for e in _events(decoded)}
            facts.events = tuple(e._replace(code=answers.get(e[:3], e.code)) for e in facts.events)
    elif body and (match := _STATUS.search(body)):
        facts.status_text = match.group(1).decode()
    # An answer to a GET may list resources that have nothing to do with the call.
    if body and not ids and facts.method != "GET":
        ids = list(uuids(_text(body)))
    facts.answered_ids = tuple(dict.fromkeys(ids))


def _described(decoded: dict[str, object]) -> list[str]:
    """Return the ids of the resources in an answer: `{"server": {"id": …}}`, `{"servers": {id: …}}`."""
    texts: list[object] = []
    for key, value in decoded.items():
        if isinstance(value, dict):
            texts.append(value.get("id"))
            texts += list(value)[:64]
        elif isinstance(value, list):
            texts += [item.get("id") if isinstance(item, dict) else item for item in value[:64]]
        elif key == "id" or key.lower().endswith("id"):
            texts.append(value)
    return [text for text in texts if type(text) is str and len(text) == 36 and UUID.fullmatch(text)]


def _read_states(facts: RestFacts, decoded: dict[str, object]) -> None:
    """Read task and VM URIs, status, project and number of candidates from the JSON of a response."""
    for key, attribute in ((rest.TASK_URI, "task_uri"), (rest.VM_URI, "vm_uri")):
        value = decoded.get(key)
        if isinstance(value, str) and value.startswith("/"):
            setattr(facts, attribute, value)
    server = decoded.get(rest.SERVER)
    holder = server if isinstance(server, dict) else decoded
    status = holder.get(rest.STATUS)
    if isinstance(status, str):
        facts.status_text = status[:32]
    project = holder.get(rest.OLD_PROJECT) or holder.get(rest.PROJECT)
    if isinstance(project, str):
        facts.project_id = project[:64]
    requests = decoded.get(rest.ALLOCATION_REQUESTS)
    if isinstance(requests, list):
        facts.candidates = len(requests)


def _read_condition(facts: RestFacts, decoded: dict[str, object]) -> None:
    """Read whether the resource in a good answer is usable: the binding of a port, the status of a volume."""
    if facts.status >= 400:
        return
    key = next((key for key in decoded if key in _CONDITIONS), "")
    row = _CONDITIONS[key] if key or rest.is_vrm(facts.path) else None
    found = decoded.get(key) if key else decoded
    value = found.get(row.member) if row is not None and isinstance(found, dict) else None
    if row is None or not isinstance(found, dict) or not isinstance(value, str):
        return
    if value in row.bad:
        facts.condition = states.BAD
    elif value not in row.open:
        facts.condition = states.GOOD
    elif not row.given or found.get(row.given):
        facts.condition = states.OPEN
    if facts.condition in (states.BAD, states.OPEN):
        facts.said = f"{row.member} is {value}"


def fault_text(body: bytes, path: str = "") -> str:
    """Return the reason that the body of an error response gives; '' if it gives none.

    Known forms: OpenStack (`{"forbidden": {"message": …}}`, `{"NeutronError": …}`,
    `{"errors": [{"detail": …}]}`),
    FusionCompute (`errorDes`), a failed server or task, and HTML titles.
    """
    decoded = _decode(body)
    server = decoded.get(rest.SERVER) if isinstance(decoded, dict) else None
    if isinstance(server, dict):
        # Beside its fault, a server has a description, which is its user's.
        decoded = server.get(faults.OF_A_SERVER, {})
    fault = _find_fault(decoded, 4) if decoded is not None else None
    if fault is None:
        text = _text(body[:4096])
        match = re.search(r"<(?:title|h1|p)>([^<]{3,200})<", text) or _CUT_FAULT.search(text)
        # Plain text is the reason itself; JSON and markup without a known field give none.
        fault = match.group(1) if match else ("" if text.lstrip()[:1] in "{[<" else text)
    return clean(fault)


def clean(text: str) -> str:
    """Return *text* on one line, at most `TEXT_LIMIT` characters, without what looks like a secret."""
    # Cut once before the patterns, which bounds their time, and once after. Control characters would hide a
    # secret from them, and reach a terminal.
    text = _CONTROL.sub("", text[: 4 * TEXT_LIMIT])
    text = _FIELD_VALUE.sub(r"\1\2 …", text)
    return " ".join(_TOKEN_LIKE.sub("…", text).split())[:TEXT_LIMIT]


def _find_fault(value: object, depth: int) -> str | None:
    """Return the first known fault field with text, the outermost first; *depth* bounds the recursion."""
    if isinstance(value, dict):
        for key in _FAULT_FIELDS:
            text = value.get(key)
            if isinstance(text, str) and text.strip():
                return text
        children: list[object] = list(value.values())
    elif isinstance(value, list):
        children = value[:8]
    else:
        return None
    if depth:
        for child in children:
            text = _find_fault(child, depth - 1)
            if text is not None:
                return text
    return None
