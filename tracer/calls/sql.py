"""SQL calls, made of statements and their results. The text of a statement is not kept."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable

from tracer.calls.bodies import clean
from tracer.calls.endings import end_unanswered, is_half_close
from tracer.calls.paths import uuids
from tracer.calls.rows import Row, row_of, set_host
from tracer.model import (
    CLIENT,
    CLOSED_UNANSWERED,
    SERVER,
    TO_CLIENT,
    Call,
    Closed,
    End,
    SqlFacts,
    SqlResult,
    SqlStatement,
)
from tracer.openstack import faults, sql
from tracer.openstack.states import saved_word

__all__ = ["SqlCalls", "is_quota", "wants_statement"]

# The verb (groups 1 to 5) and the table (group 6), with or without a schema and quotes; ONLY is PostgreSQL's.
_TABLE = re.compile(
    rb"(?is)\s*(?:(insert)\s+(?:ignore\s+)?into|(replace)\s+into|(delete)\s+from|(update)|(select)\b.*?\bfrom)"
    rb"\s+(?:only\s+)?[`\"]?(?:\w+[`\"]?\s*\.\s*[`\"]?){0,2}(\w+)"
)
_VERB = re.compile(rb"\s*(\w{1,20})")
_REQUEST_ID = re.compile(rb"req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_VM_STATE = re.compile(sql.VM_STATE.encode() + rb"\s*=\s*'(\w{1,32})'")
_TASK_STATE = re.compile(sql.TASK_STATE.encode() + rb"\s*=\s*'(\w{1,32})'")
# A quoted value, or the word that ends what is set: a value may hold the word, too.
_VALUE_OR_WHERE = re.compile(rb"(?is)'(?:[^'\\]+|\\.|'')*+'|\"(?:[^\"\\]+|\\.)*+\"|(\swhere\s)")
_PROJECT = re.compile(sql.PROJECT.encode() + rb"\W{1,6}'?([0-9a-f]{32})")
_QUOTA = tuple(mark.encode() for mark in sql.QUOTA_MARKS)
_HINT, _OTHER_HINT = (hint.encode() for hint in sql.QUOTA_HINTS)
_QUOTA_WITHIN = sql.QUOTA_HEAD_BYTES
# First letters of SELECT (SET, SHOW), which read, and of INSERT, UPDATE, DELETE, REPLACE, which write.
_READS = (b"s", b"S")
_WRITES = frozenset((b"i", b"I", b"u", b"U", b"d", b"D", b"r", b"R"))
_FAULT = re.compile(
    rb"(?is)\s*insert\s+into\s+[`\"]?(?:\w+[`\"]?\s*\.\s*[`\"]?){0,2}"
    + sql.FAULTS.encode()
    + rb"[`\"]?\s*\(([^)]{1,1000})\)\s*values\s*\("
)
# One value of a list: a quoted string (with \' or '' inside, PostgreSQL's with E in front and a type behind)
# or a bare word, then what ends it. It never spans a closing parenthesis, so a function call ends the search.
_VALUE = re.compile(
    rb"\s*(?:[Ee]?'((?:[^'\\]|\\.|'')*)'(?:::[\w ]{1,40})?|([^',()]{1,64}))\s*(,|\)|$)", re.DOTALL
)
_PLACE = re.compile(rb"\$(\d{1,5})")
"""Where a parameter stands in a prepared statement of PostgreSQL."""
NOT_SEEN = b"#"
"""Begins the text of an execute whose prepare is not in the capture."""
_FAULT_TEXT, _NO_REPLY = sql.FAULT_TEXT.encode(), faults.NO_REPLY.encode()
_MESSAGE_ID = re.compile(_NO_REPLY + rb" ([0-9a-f]{32})")
_NO_ROW = Row()
MOST_ASKED = 4_096
"""Statements that wait for their copy behind a proxy, which follows within a millisecond."""
_LOOK_AT = 65536
"""Bytes of a statement that are searched: user data make statements of megabytes, and ids stand in front."""


def is_quota(text: bytes) -> bool:
    """Return whether a SELECT belongs to nova's quota check, not to neutron's."""
    # SQLAlchemy names all columns first, so the marks stand near the beginning.
    head = text[:_QUOTA_WITHIN]
    return any(word in head for word in _QUOTA)


def wants_statement(text: bytes) -> bool:
    """Return whether a grammar or a correlation rule can need this statement: one in twenty.

    These are the writes, the reads of the quota check, and what was prepared before the capture began.
    """
    if text.startswith(_READS):
        # Two hints exclude nearly all statements, so the marks themselves are rarely searched. find gives -1
        # for each hint that is absent: -2 means that both are.
        mentioned = text.find(_HINT, 0, _QUOTA_WITHIN) + text.find(_OTHER_HINT, 0, _QUOTA_WITHIN)
        return mentioned > -2 and is_quota(text)
    # Which statement it executes is not known, so it may be one of these.
    return (text[:1] in _WRITES and text[:8].upper() != b"ROLLBACK") or text[:1] == NOT_SEEN


class SqlCalls:
    """Pairs results with statements by connection and exchange."""

    def __init__(self, serial: Callable[[], int]) -> None:
        self._serial = serial
        self._open: dict[int, dict[int, Call]] = {}
        """Connection number -> exchange -> call without a result."""
        self._asked: OrderedDict[tuple[str, int], Call] = OrderedDict()
        """(server's address, hash of the text) -> open call: a proxy there may pass it on."""

    def statement(self, message: SqlStatement) -> Call:
        """Return the call that *message* begins."""
        text = _with_values(message) if message.values else message.text[:_LOOK_AT]
        verb, table = _verb_and_table(message.command, text, message.truncated)
        request_id = _REQUEST_ID.search(text)
        states, host = _written(text) if verb == "UPDATE" else (("", ""), "")
        row = row_of(text, table) if verb == "INSERT" else _NO_ROW
        project = _PROJECT.search(text)
        facts = SqlFacts(
            verb,
            table,
            uuids(text.decode("latin-1")),
            request_id.group().decode() if request_id else "",
            project.group(1).decode() if project else "",
            states[0] or row.vm_state,
            saved_word(*states) if table in sql.KEEPS_STATES else "",
            verb == "SELECT" and is_quota(text),
            message.truncated or _is_hidden(message),
            _fault(text) if table == sql.FAULTS else "",
            row.server_id,
            row.name,
            row.purpose,
            host if table in sql.KEEPS_STATES else "",
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
        same = hash((message.text, message.values))
        front = self._asked.get((connection.client.address, same))
        if front is not None and not front.closed and front.connection.server != connection.server:
            # A proxy for TCP before the database passes the same text on.
            front.back, call.front = call, front
        else:
            asked = self._asked
            asked[connection.server.address, same] = call
            # A copy is asked while the first one is open.
            while next(iter(asked.values())).closed or len(asked) > MOST_ASKED:
                asked.popitem(last=False)
        return call

    def result(self, message: SqlResult) -> Call | None:
        """Return the call that *message* ends; None if its statement was skipped or not seen."""
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
        """Return the statements of the connection that stay without a result.

        Their result is `none` if the capture shows that no answer came, else `?`.
        """
        if is_half_close(closed):
            return []
        calls = list((self._open.pop(closed.connection.number, None) or {}).values())
        for call in calls:
            end_unanswered(call, closed)
            if call.result == "none" and closed.direction == TO_CLIENT:
                # Not that it died: a proxy before it closes as well, and the database closes what is idle.
                call.error = CLOSED_UNANSWERED
        return calls


_CUT = (b"", b"\x00")
"""What may stand behind a word that is cut: nothing, or the mark of a hole."""


def _verb_and_table(command: str, text: bytes, truncated: bool) -> tuple[str, str]:
    # Other commands (ping, quit, init_db) carry no SQL: the command itself is the verb. So it is with an
    # execute of what was prepared before the capture began.
    if command not in ("query", "prepare", "execute", "bulk_execute") or text[:1] == NOT_SEEN:
        return command.upper(), ""
    match = _TABLE.match(text)
    if match is not None:
        # A prepare executes nothing.
        verb = next(group for group in match.groups()[:5] if group) if command != "prepare" else b"prepare"
        if truncated and text[match.end() : match.end() + 1] in _CUT:
            # Only the beginning of a name, or the schema before it.
            return verb.decode().upper(), "?"
        return verb.decode().upper(), match.group(6).decode()[:64]
    word = _VERB.match(text)
    if word is not None and truncated and text[word.end() : word.end() + 1] in _CUT:
        return "?", ""
    return (word.group(1).decode("latin-1").upper() if word else "?"), ""


def _is_hidden(message: SqlStatement) -> bool:
    """Return whether the statement is executed, and only its number or name is known."""
    return message.text[:1] == NOT_SEEN and message.command in ("execute", "bulk_execute")


def _with_values(message: SqlStatement) -> bytes:
    """Return the text with its parameters in their places, as a client without parameters writes it."""
    text, values = message.text[:_LOOK_AT], message.values
    parts, at, room = [], 0, _LOOK_AT
    for found in _PLACE.finditer(text):
        number = int(found.group(1))
        if not 0 < number <= len(values):
            continue
        value = values[number - 1]
        literal = b"NULL" if value is None else b"'%b'" % value[:_LOOK_AT].replace(b"'", b"''")
        parts += [text[at : found.start()], literal]
        at = found.end()
        # A parameter may be used many times.
        room -= len(literal)
        if room < 0:
            break
    parts.append(text[at:])
    return b"".join(parts)[:_LOOK_AT]


def _written(text: bytes) -> tuple[tuple[str, str], str]:
    """Return (vm_state, task_state) and host that an UPDATE sets; '' for one not set, or set to NULL."""
    # nova repeats the state that it expects in the condition, which is no news.
    end = next((m.start() for m in _VALUE_OR_WHERE.finditer(text) if m.group(1)), len(text))
    found = (pattern.search(text, 0, end) for pattern in (_VM_STATE, _TASK_STATE))
    vm_state, task_state = (match.group(1).decode() if match else "" for match in found)
    return (vm_state, task_state), set_host(text, end)


def _fault(text: bytes) -> str:
    """Return the reason that nova records for a VM in error: the `message` column of instance_faults.

    After a messaging timeout this column holds the bare class; the id of the message is in `details`, and is
    appended.
    """
    match = _FAULT.match(text)
    if match is None:
        return ""
    columns = [name.strip(b' `"\r\n\t') for name in match.group(1).split(b",")]
    at = match.end()
    # Values are walked in the order of the columns; one that cannot be read ends the search.
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
    # The inside of an SQL string: '' is a quote, a backslash escapes, line breaks become blanks.
    text = literal.replace(b"''", b"'").decode("utf-8", "replace")
    return re.sub(r"\\(.)", lambda m: {"n": " ", "r": " ", "t": " "}.get(m[1], m[1]), text, flags=re.DOTALL)
