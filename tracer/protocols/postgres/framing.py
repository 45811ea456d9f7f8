"""Messages of the PostgreSQL protocol: splitting the stream into them, and finding where they begin.

Source: PostgreSQL documentation, "Frontend/Backend Protocol", "Message Formats".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from struct import Struct
from typing import NamedTuple

from tracer.model import Frames

__all__ = [
    "FROM_CLIENT",
    "FROM_SERVER",
    "TEXT_LIMIT",
    "Splitter",
    "are_answers",
    "are_commands",
    "is_head",
    "is_query",
    "is_startup",
    "is_tls",
    "ready_at",
    "search_command",
]

TEXT_LIMIT = 256 << 10
"""Bytes of a statement, or of its parameters, that are kept. OpenStack's largest has tens of kilobytes."""
_ANY = (1 << 30) - 4
"""A message has at most 1 GiB (MaxAllocSize of the server)."""


class Form(NamedTuple):
    """What is known of one type of message; sizes are of the body, without type and length."""

    least: int
    most: int
    kept: int = 0
    """Bytes of the body that are read."""


def _forms(*rows: tuple[str, int, int, int]) -> dict[int, Form]:
    return {ord(kind): Form(least, most, kept) for kinds, least, most, kept in rows for kind in kinds}


FROM_CLIENT: Mapping[int, Form] = _forms(
    ("QP", 1, _ANY, TEXT_LIMIT),  # Query, Parse
    ("B", 8, _ANY, TEXT_LIMIT),  # Bind
    ("E", 5, 1_024, 1_024),  # Execute
    ("DC", 2, 1_024, 1_024),  # Describe, Close
    ("SHXc", 0, 0, 0),  # Sync, Flush, Terminate, CopyDone
    ("F", 8, _ANY, 0),  # FunctionCall
    ("p", 0, 65_536, 0),  # passwords: never kept
    ("d", 0, _ANY, 0),  # CopyData
    ("f", 1, 65_536, 0),  # CopyFail
)
FROM_SERVER: Mapping[int, Form] = _forms(
    ("E", 1, 1 << 20, 4_096),  # ErrorResponse
    ("C", 1, 256, 128),  # CommandComplete
    ("Z", 1, 1, 1),  # ReadyForQuery
    ("R", 4, 65_536, 0),  # Authentication
    ("K", 4, 264, 0),  # BackendKeyData
    ("S", 2, 1 << 20, 0),  # ParameterStatus
    ("TD", 2, _ANY, 0),  # RowDescription, DataRow
    ("NA", 1, 1 << 20, 0),  # NoticeResponse, NotificationResponse
    ("123nsIc", 0, 0, 0),  # completions without a body
    ("t", 2, 1 << 20, 0),  # ParameterDescription
    ("GHW", 3, 65_536, 0),  # CopyInResponse, CopyOutResponse, CopyBothResponse
    ("d", 0, _ANY, 0),  # CopyData
    ("V", 4, _ANY, 0),  # FunctionCallResponse
    ("v", 8, 65_536, 0),  # NegotiateProtocolVersion
)
_HEAD = Struct(">BI").unpack_from
"""Type, and length of the message with its own four bytes."""

# --- splitting --------------------------------------------------------------------------------------


class Splitter:
    """Splits the bytes of one direction into messages, of which it keeps what their form says.

    The caller sets `mark` to the time and frames of the bytes before it feeds them; `start` is the mark of a
    message's first byte.
    """

    __slots__ = ("_forms", "_head", "_parts", "_room", "broken", "complete", "kind", "left", "mark", "size",
                 "start", "truncated")  # fmt: skip

    def __init__(self, forms: Mapping[int, Form]) -> None:
        self._forms = forms
        self.mark: tuple[int, Frames] = (0, ())
        self.start: tuple[int, Frames] = (0, ())
        self._head = b""
        self._parts: list[bytes] = []
        self.reset()

    def reset(self) -> None:
        """Expect the first byte of a message."""
        self._head = b""
        self._parts.clear()
        self._room = 0
        self.kind = -1
        """Type of the message; -1 while its head is not whole."""
        self.size = 0
        self.left = 0
        """Bytes of the body still to come."""
        self.complete = False
        self.truncated = False
        """Bytes of it are missing, or were too many to keep."""
        self.broken = False
        """No message begins like this."""

    @property
    def busy(self) -> bool:
        """Whether a message has begun and is not complete."""
        return (self.kind >= 0 or len(self._head) > 0) and not self.complete

    def body(self) -> bytes:
        """Return the kept bytes of the body."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def feed(self, payload: bytes, at: int) -> int:
        """Consume *payload* from *at* on, up to the end of one message; return the offset behind it."""
        if self.kind < 0:
            at = self._begin(payload, at)
            if self.kind < 0 or self.broken or self.complete:
                return at
        take = min(self.left, len(payload) - at)
        if self._room > 0 and take:
            part = payload[at : at + min(take, self._room)]
            self._parts.append(part)
            self._room -= len(part)
        self.left -= take
        self.complete = not self.left
        return at + take

    def _begin(self, payload: bytes, at: int) -> int:
        if not self._head:
            self.start = self.mark
            if len(payload) - at >= 5:
                kind, length = _HEAD(payload, at)
                self._take_head(kind, length)
                return at + 5
        part = payload[at : at + 5 - len(self._head)]
        self._head += part
        if len(self._head) == 5:
            kind, length = _HEAD(self._head)
            self._take_head(kind, length)
        elif self._head[0] not in self._forms:
            self.broken = True
        return at + len(part)

    def _take_head(self, kind: int, length: int) -> None:
        self.kind, self.size = kind, length - 4
        form = self._forms.get(kind)
        if form is None or not form.least <= self.size <= form.most:
            self.broken = True
            return
        self.left, self._room = self.size, form.kept
        self.truncated = 0 < form.kept < self.size
        self.complete = not self.size

    def skip(self, size_bytes: int) -> bool:
        """Skip a hole of known size inside the body; return False if it may reach beyond the body."""
        if not 0 < size_bytes <= self.left:
            return False
        self.left -= size_bytes
        # What follows the hole is not kept: text with a hole in it cannot be read.
        self._room = 0
        self.truncated = True
        self.complete = not self.left
        return True


# --- recognising ----------------------------------------------------------------------------------

_WORDS = (
    rb"(?:select|insert|update|delete|merge|begin|commit|rollback|abort|end|set|reset|show|start|savepoint"
    rb"|release|create|alter|drop|truncate|lock|call|with|explain|values|copy|grant|revoke|analyze|vacuum"
    rb"|prepare|execute|deallocate|discard|declare|fetch|move|close|listen|unlisten|notify|do|table)\b"
)
_BLANK = rb"(?:[\s(;]|--[^\n]{0,200}\n|/\*(?:[^*]|\*(?!/)){0,200}\*/)*"
_BEGINS_SQL = re.compile(_BLANK + _WORDS, re.IGNORECASE)
# A length below 1 MiB and a first word of SQL; Parse has the statement's name in between.
_FIND = re.compile(
    rb"(?:Q\0[\0-\x0f]..|P\0[\0-\x0f]..[\w.$-]{0,64}\0)[\s(]?" + _WORDS, re.DOTALL | re.IGNORECASE
)
_READY = re.compile(rb"Z\0\0\0\x05[ITE]")
_TLS = re.compile(rb"[\x14-\x17]\x03[\0-\x04]")
_ERROR = re.compile(rb"S[A-Z]{2,20}\0|[SVCM][^\0]{1,200}\0")
_VERSIONS = frozenset((0, 2, 51))
"""Minor numbers of version 3: PostgreSQL's, and 51 of openGauss and GaussDB (PG_PROTOCOL(3, 51))."""
REQUESTS = {80877102: 0, 80877103: 8, 80877104: 8}
"""Codes in place of a version: CancelRequest, SSLRequest, GSSENCRequest -> length; 0: 16 or more."""
_Fits = Callable[[int, bytes, bool, bool], bool]
_MOST_AT_ONCE = 64
"""This many plausible messages in a row are enough to recognise them."""


def is_startup(payload: bytes) -> bool:
    """Return whether *payload* begins with a message without a type: a start-up, or one of the requests."""
    if len(payload) < 8 or payload[0] or payload[1]:
        return False
    length, code = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
    if code in REQUESTS:
        return length == REQUESTS[code] or (not REQUESTS[code] and 16 <= length <= 272)
    # PG_PROTOCOL: the major number in the upper 16 bits. At most 10,000 bytes (MAX_STARTUP_PACKET_LENGTH).
    known = code >> 16 == 3 and code & 0xFFFF in _VERSIONS and 9 <= length <= 10_000
    return known and b"user\0" in payload[8:1_024]


def is_tls(payload: bytes) -> bool:
    """Return whether *payload* begins with a TLS record (RFC 8446 §5.1)."""
    return _TLS.match(payload) is not None


def are_commands(payload: bytes) -> bool:
    """Return whether *payload* consists of messages as clients send them; the last one may be cut."""
    return _chain(payload, FROM_CLIENT, _is_command)


def are_answers(payload: bytes) -> bool:
    """Return whether *payload* consists of messages as servers send them; the last one may be cut."""
    return _chain(payload, FROM_SERVER, _is_answer)


def is_head(payload: bytes, forms: Mapping[int, Form]) -> bool:
    """Return whether *payload* begins with type and length of a message; it may be shorter than that."""
    form = forms.get(payload[0])
    return form is not None and (
        len(payload) < 5 or form.least <= int.from_bytes(payload[1:5], "big") - 4 <= form.most
    )


def _chain(payload: bytes, forms: Mapping[int, Form], fits: _Fits) -> bool:
    at = 0
    for _ in range(_MOST_AT_ONCE):
        if len(payload) - at < 5:
            return at > 0 and (at == len(payload) or payload[at] in forms)
        kind, length = _HEAD(payload, at)
        form = forms.get(kind)
        end = at + 1 + length
        if form is None or not form.least <= length - 4 <= form.most:
            return False
        goes_on = end > len(payload)
        if not fits(kind, payload[at + 5 : min(end, at + 261)], end <= at + 261 and not goes_on, goes_on):
            return False
        if end >= len(payload):
            return True
        at = end
    return True


def _is_command(kind: int, text: bytes, whole: bool, goes_on: bool) -> bool:
    """Return whether a message of type *kind* can begin with *text*; *whole*: that is all of it.

    *goes_on*: its end lies behind the data, so its length is not confirmed and more is demanded of it.
    """
    if kind == 0x51:  # Query
        return _BEGINS_SQL.match(text) is not None or (
            not goes_on and (not whole or text[-1:] == b"\0") and b"\0" not in text[:-1]
        )
    if kind == 0x50:  # Parse
        name = text.find(b"\0")
        return 0 <= name <= 128 and (_BEGINS_SQL.match(text, name + 1) is not None or not goes_on)
    if kind in b"DC":
        return text[:1] in (b"S", b"P") and (not whole or text[-1:] == b"\0")
    if kind == 0x45:  # Execute
        return not whole or text.find(b"\0") == len(text) - 5
    return not goes_on or kind in b"Bd"


def _is_answer(kind: int, text: bytes, whole: bool, goes_on: bool) -> bool:
    """Return whether a message of type *kind* can begin with *text*; as in `_is_command`."""
    if kind == 0x5A:  # ReadyForQuery
        return text in (b"I", b"T", b"E", b"")
    if kind in b"EN":
        return _ERROR.match(text) is not None
    if kind == 0x43:  # CommandComplete
        return text[:1].isupper() and (not whole or goes_on or text[-1:] == b"\0")
    if kind in b"TD" and len(text) >= 2:
        # The number of fields; each has 18 bytes and a name, or at least its length.
        return text[0] < 0x07
    return not goes_on or kind in b"TDdtSRV"


def is_query(payload: bytes) -> bool:
    """Return whether *payload* begins with a Query or Parse whose text is SQL."""
    if payload[:1] == b"P":
        name = payload.find(b"\0", 5, 5 + 129)
        return name >= 0 and _BEGINS_SQL.match(payload, name + 1) is not None
    return payload[:1] == b"Q" and _BEGINS_SQL.match(payload, 5) is not None


def search_command(payload: bytes) -> int:
    """Return the offset of the first query in *payload*, recognised by head and first word; -1 if none."""
    found = _FIND.search(payload)
    return found.start() if found else -1


def ready_at(payload: bytes) -> int:
    """Return the offset of the first ReadyForQuery in *payload*; -1 if none."""
    found = _READY.search(payload)
    return found.start() if found else -1
