"""SQL statements and their results become SQL calls. No statement's text is kept."""

from __future__ import annotations

import re
from collections.abc import Callable

from tracer.calls.bodies import clean
from tracer.calls.paths import uuids
from tracer.model import (
    CLIENT,
    SERVER,
    TO_SERVER,
    Call,
    Closed,
    End,
    SqlFacts,
    SqlLogin,
    SqlResult,
    SqlStatement,
)
from tracer.openstack import faults, sql

__all__ = ["SqlCalls", "is_quota", "wants_statement"]

_TABLE = re.compile(
    rb"(?is)\s*(?:(insert)\s+(?:ignore\s+)?into|(replace)\s+into|(delete)\s+from|(update)|(select)\b.*?\bfrom)"
    rb"\s+[`\"]?(?:\w+[`\"]?\s*\.\s*[`\"]?)?(\w+)"
)
_VERB = re.compile(rb"\s*(\w{1,20})")
_REQUEST_ID = re.compile(rb"req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_VM_STATE = re.compile(sql.VM_STATE.encode() + rb"\s*=\s*'(\w{1,32})'")
_PROJECT = re.compile(sql.PROJECT.encode() + rb"\W{1,6}'?([0-9a-f]{32})")
_QUOTA = tuple(mark.encode() for mark in sql.QUOTA_MARKS)
_HINT, _OTHER_HINT = (hint.encode() for hint in sql.QUOTA_HINTS)
_QUOTA_WITHIN = sql.QUOTA_HEAD_BYTES
_READS = (b"s", b"S")
_WRITES = frozenset((b"i", b"I", b"u", b"U", b"d", b"D", b"r", b"R"))
_FAULT = re.compile(
    rb"(?is)\s*insert\s+into\s+[`\"]?" + sql.FAULTS.encode() + rb"[`\"]?\s*\(([^)]{1,1000})\)\s*values\s*\("
)
_VALUE = re.compile(rb"\s*(?:'((?:[^'\\]|\\.|'')*)'|([^',()]{1,64}))\s*(,|\)|$)", re.DOTALL)
_FAULT_TEXT, _NO_REPLY = sql.FAULT_TEXT.encode(), faults.NO_REPLY.encode()
_MESSAGE_ID = re.compile(_NO_REPLY + rb" ([0-9a-f]{32})")
_LOOK_AT = 65536
"""Statements carry user data of megabytes; ids stand at their beginning."""


def is_quota(text: bytes) -> bool:
    """Tell whether a SELECT is one of those of nova's quota check (step 4c), and not neutron's."""
    head = text[:_QUOTA_WITHIN]
    return any(word in head for word in _QUOTA)


def wants_statement(text: bytes) -> bool:
    """Tell whether any grammar or correlation rule can need this statement: one in twenty is.

    Writes, and the reads of the quota check.
    """
    if text.startswith(_READS):
        # Nearly always nothing of it is found, so this asks twice, not for each of the words.
        mentioned = text.find(_HINT, 0, _QUOTA_WITHIN) + text.find(_OTHER_HINT, 0, _QUOTA_WITHIN)
        return mentioned > -2 and is_quota(text)
    return text[:1] in _WRITES and text[:8].upper() != b"ROLLBACK"


class SqlCalls:
    """Pairs results with statements by connection and exchange; MySQL answers strictly in turn."""

    def __init__(self, serial: Callable[[], int]) -> None:
        self._serial = serial
        self._open: dict[int, dict[int, Call]] = {}
        self._schemas: dict[int, str] = {}

    def login(self, message: SqlLogin) -> None:
        if message.schema:
            self._schemas[message.connection.number] = message.schema[:64]

    def statement(self, message: SqlStatement) -> Call:
        """Return the call that *message* begins."""
        text = message.text[:_LOOK_AT]
        verb, table = _verb_and_table(message.command, text)
        request_id = _REQUEST_ID.search(text)
        state = _VM_STATE.search(text) if verb == "UPDATE" else None
        project = _PROJECT.search(text)
        facts = SqlFacts(
            verb,
            table,
            uuids(text.decode("latin-1")),
            request_id.group().decode() if request_id else "",
            project.group(1).decode() if project else "",
            state.group(1).decode() if state else "",
            self._schemas.get(message.connection.number, ""),
            verb == "SELECT" and is_quota(text),
            message.truncated,
            _fault(text) if table == sql.FAULTS else "",
        )
        connection = message.connection
        call = Call(
            self._serial(),
            "SQL",
            f"{verb} {table}".rstrip(),
            "?",
            message.time_ns,
            None,
            list(message.frames),
            End(connection, CLIENT),
            End(connection, SERVER),
            facts,
            connection,
        )
        self._open.setdefault(connection.number, {})[message.exchange] = call
        return call

    def result(self, message: SqlResult) -> Call | None:
        """Return the call that *message* ends; None when its statement was skipped or not seen."""
        waiting = self._open.get(message.connection.number)
        call = waiting.pop(message.exchange, None) if waiting else None
        if call is None:
            return None
        call.result = "ok" if message.ok else "error"
        if not message.ok:
            call.error = clean(f"{message.error_code} {message.error_text}")
        call.ended_ns = message.end_ns
        call.frames.extend(message.frames)
        call.closed = True
        return call

    def closed(self, closed: Closed) -> list[Call]:
        """Return the statements that will have no result any more."""
        number = closed.connection.number
        if closed.how == "fin" and closed.direction == TO_SERVER:
            return []
        observed = closed.how in ("fin", "reset") and not closed.connection.gaps
        calls = list((self._open.pop(number, None) or {}).values())
        for call in calls:
            call.result = "none" if observed and not call.facts.broken else "?"  # type: ignore[union-attr]
            call.closed = True
        if closed.how != "fin":
            self._schemas.pop(number, None)
        return calls


def _verb_and_table(command: str, text: bytes) -> tuple[str, str]:
    if command not in ("query", "prepare", "execute"):
        return command.upper(), ""
    match = _TABLE.match(text)
    if match is not None:
        verb = next(group for group in match.groups()[:5] if group)
        return verb.decode().upper(), match.group(6).decode()[:64]
    word = _VERB.match(text)
    return (word.group(1).decode("latin-1").upper() if word else "?"), ""


def _fault(text: bytes) -> str:
    """Return the words in which nova records why a VM is in error: the `message` of instance_faults.

    Of a message timeout the words are the bare class; the id of the message stands in `details`.
    """
    match = _FAULT.match(text)
    if match is None:
        return ""
    columns = [name.strip(b' `"\r\n\t') for name in match.group(1).split(b",")]
    at = match.end()
    for column in columns:
        value = _VALUE.match(text, at)
        if value is None:
            return ""
        if column == _FAULT_TEXT:
            words = _unquoted(value.group(1) or b"")
            waited = _MESSAGE_ID.search(text, value.end())
            if waited is not None and _NO_REPLY not in (value.group(1) or b""):
                words += f": no reply to {faults.NO_REPLY} {waited.group(1).decode()}"
            return clean(words)
        at = value.end()
    return ""


def _unquoted(literal: bytes) -> str:
    text = literal.replace(b"''", b"'").decode("utf-8", "replace")
    return re.sub(r"\\(.)", lambda m: {"n": " ", "r": " ", "t": " "}.get(m[1], m[1]), text, flags=re.DOTALL)
