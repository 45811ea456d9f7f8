"""Packets of the MySQL protocol: splitting the stream into them, recognising and parsing them.

Source: MySQL source documentation, "Protocol Basics" (PAGE_PROTOCOL_BASIC_PACKETS), "Connection
Phase", "Command Phase"; MariaDB's additions from its knowledge base.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tracer.model import Frames

__all__ = [
    "CHANGE_USER",
    "COMMANDS",
    "NEW_SESSION",
    "PREPARE",
    "QUERY",
    "SILENT",
    "WITH_SCHEMA",
    "WITH_STATEMENT",
    "Login",
    "Packets",
    "error_of",
    "foreign",
    "greeting_capabilities",
    "is_answer",
    "is_command",
    "is_first_answer",
    "is_greeting",
    "is_login",
    "login_of",
    "query_text",
    "search_query",
]

COMMANDS = {
    0x00: "sleep", 0x01: "quit", 0x02: "init_db", 0x03: "query", 0x04: "field_list", 0x05: "create_db",
    0x06: "drop_db", 0x07: "refresh", 0x08: "shutdown", 0x09: "statistics", 0x0A: "process_info",
    0x0B: "connect", 0x0C: "process_kill", 0x0D: "debug", 0x0E: "ping", 0x0F: "time",
    0x10: "delayed_insert", 0x11: "change_user", 0x12: "binlog_dump", 0x13: "table_dump",
    0x14: "connect_out", 0x15: "register_slave", 0x16: "prepare", 0x17: "execute",
    0x18: "send_long_data", 0x19: "close", 0x1A: "reset", 0x1B: "set_option", 0x1C: "fetch",
    0x1D: "daemon", 0x1E: "binlog_dump_gtid", 0x1F: "reset_connection", 0xFA: "bulk_execute",
}  # fmt: skip
"""Command byte -> name; 0xFA is MariaDB's."""
QUERY, CHANGE_USER, PREPARE = 0x03, 0x11, 0x16
WITH_SCHEMA = frozenset((0x02, 0x05, 0x06))
"""Commands whose text is the name of a schema."""
WITH_STATEMENT = frozenset((0x17, 0x18, 0x19, 0x1A, 0x1C, 0xFA))
"""Commands that begin with the number of a prepared statement."""
SILENT = frozenset((0x01, 0x18, 0x19))
"""Commands that the server does not answer: quit, send_long_data, close."""
NEW_SESSION = frozenset((0x11, 0x1F))
"""Commands that drop all prepared statements: change_user, reset_connection."""
_BARE = frozenset((0x01, 0x09, 0x0A, 0x0D, 0x0E, 0x1F))
"""Commands of one byte, without arguments."""

_WHOLE = 0xFFFFFF
"""A packet of this size continues in the next packet."""

# --- splitting --------------------------------------------------------------------------------------


class Packets:
    """Splits the bytes of one direction into packets; a body that is split at 16 MiB is one packet.

    At most *limit* bytes of a body are kept. A longer body, and one with a hole, is `truncated`. The caller
    sets `mark` to the time and frames of the bytes before it feeds them; `start` is the mark of a packet's
    first byte.
    """

    __slots__ = ("_header", "_kept", "_left", "_limit", "_more", "_parts", "complete", "last_seq", "mark",
                 "seq", "size", "start", "truncated")  # fmt: skip

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.mark: tuple[int, Frames] = (0, ())
        self.start: tuple[int, Frames] = (0, ())
        self._header = bytearray()
        self._parts: list[bytes] = []
        self.reset()

    def reset(self) -> None:
        """Expect the first byte of a packet."""
        self._header.clear()
        self._parts.clear()
        self._kept = 0
        self._left = -1
        """Bytes of the body still to come; -1 in the header."""
        self._more = False
        """The current part has the maximum size, so another part follows."""
        self.seq = -1
        """Sequence number of the first part; -1 while it is not known."""
        self.last_seq = -1
        """Sequence number of the latest part."""
        self.size = 0
        """Declared size of the latest part."""
        self.truncated = False
        self.complete = False

    @property
    def busy(self) -> bool:
        """Whether a packet has begun and is not complete."""
        return (self.seq >= 0 or len(self._header) > 0) and not self.complete

    @property
    def first_byte(self) -> int:
        """The first byte of the body, -1 while it is not known."""
        return self._parts[0][0] if self._parts else -1

    def body(self) -> bytes:
        """Return the kept bytes of the body."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)

    def feed(self, payload: bytes, at: int) -> int:
        """Consume *payload* from *at* on, up to the end of one packet; return the offset behind it."""
        size = len(payload)
        while at < size and not self.complete:
            at = self._head(payload, at) if self._left < 0 else self._eat(payload, at, size)
        return at

    def _head(self, payload: bytes, at: int) -> int:
        header = self._header
        if not header and self.seq < 0:
            self.start = self.mark
        part = payload[at : at + 4 - len(header)]
        header += part
        if len(header) == 4:
            self.last_seq = header[3]
            if self.seq < 0:
                self.seq = self.last_seq
            self._left = self.size = int.from_bytes(header[:3], "little")
            self._more = self._left == _WHOLE
            header.clear()
            # An empty body, or an empty last part, ends at once.
            self._end_part()
        return at + len(part)

    def _eat(self, payload: bytes, at: int, size: int) -> int:
        take = min(self._left, size - at)
        room = self._limit - self._kept
        if room > 0:
            part = payload[at : at + min(take, room)]
            self._parts.append(part)
            self._kept += len(part)
        self.truncated = self.truncated or take > room
        self._left -= take
        self._end_part()
        return at + take

    def _end_part(self) -> None:
        if self._left == 0:
            self._left = -1
            self.complete = not self._more

    def skip(self, size_bytes: int) -> bool:
        """Skip a hole of known size inside the body; return False if it may reach beyond the body.

        The bytes behind the hole are not kept, because SQL with a hole in it cannot be read.
        """
        if not 0 < size_bytes <= self._left:
            return False
        self._left -= size_bytes
        # No room is left, so later bytes are counted only.
        self._kept = self._limit
        self.truncated = True
        self._end_part()
        return True


# --- recognising ----------------------------------------------------------------------------------

_WORDS = (
    rb"(?:select|insert|update|delete|replace|begin|commit|rollback|set|show|start|savepoint|release|use"
    rb"|create|alter|drop|truncate|lock|unlock|call|with|explain|desc|describe|load|grant|analyze|xa)\b"
)
# SQL may begin with blanks, brackets and comments; \x00\x01 in front are query attributes without parameters.
_BEGINS_SQL = re.compile(rb"(?:\x00\x01)?(?:[\s(]|/\*(?:[^*]|\*(?!/)){0,200}\*/)*" + _WORDS, re.IGNORECASE)
# A length below 1 MiB, sequence number 0, COM_QUERY or COM_STMT_PREPARE, a first word of SQL.
_FIND_QUERY = re.compile(
    rb"..[\x00-\x0f]\x00[\x03\x16](?:\x00\x01)?[\s(]?" + _WORDS, re.DOTALL | re.IGNORECASE
)
# Sequence number 0, protocol version 10, the server's version up to its NUL.
_GREETING = re.compile(rb"..\x00\x00\x0a[0-9]+\.[0-9]+[^\x00]{0,80}\x00", re.DOTALL)
_REFUSED = re.compile(rb"..\x00\x00\xff(?:\x10\x04|\x68\x04|\x69\x04|\x6a\x04)", re.DOTALL)
"""Errors 1040, 1128, 1129, 1130 in place of a greeting: too many connections, host blocked."""
# RFC 8446 §5.1.
_TLS_RECORD = re.compile(rb"[\x14-\x17]\x03[\x00-\x04]")
_CLIENT_TLS = 0x800
"""CLIENT_SSL of the capability flags."""
_MOST_AT_ONCE = 16
"""This many plausible commands in a row are enough to recognise them."""


def _size(payload: bytes, at: int = 0) -> int:
    return int.from_bytes(payload[at : at + 3], "little")


def is_greeting(payload: bytes) -> bool:
    """Return whether *payload* begins with a server's greeting, or with its refusal."""
    if _GREETING.match(payload) is None and _REFUSED.match(payload) is None:
        return False
    # The packet is complete, or cut behind its characteristic part.
    return _size(payload) + 4 <= len(payload) or len(payload) >= 40


def is_login(payload: bytes) -> bool:
    """Return whether *payload* begins with a client's handshake response or request for TLS.

    CLIENT_PROTOCOL_41 must be set, and 19 bytes of filler must be 0 (MariaDB uses the last four of 23).

    Source: PAGE_PROTOCOL_CONNECTION_PHASE_PACKETS_PROTOCOL_HANDSHAKE_RESPONSE.
    """
    # Below 64 KiB, sequence number 1 behind the greeting's 0; flags, packet size, character set and filler
    # are 32 bytes.
    if len(payload) < 36 or payload[2] or payload[3] != 1 or _size(payload) < 32:
        return False
    return bool(payload[5] & 0x02) and payload[13:32] == bytes(19)


def is_command(payload: bytes) -> bool:
    """Return whether *payload* consists of commands as clients send them; the last one may be cut."""
    at = 0
    # Drivers may send several commands at once, so what follows a command must be another one.
    for _ in range(_MOST_AT_ONCE):
        size = _size(payload, at)
        end = at + 4 + size
        if len(payload) < at + 5 or payload[at + 3] or not size:
            return False
        if not _fits(payload[at + 4], size, payload[at + 5 : at + 261], end > len(payload)):
            return False
        if end >= len(payload):
            return True
        at = end
        if len(payload) - at < 5:
            return len(payload) - at < 4 or payload[at + 3] == 0
    return True


def _fits(code: int, size: int, text: bytes, goes_on: bool) -> bool:
    """Return whether a command of *size* bytes can begin with *code* and *text*.

    *goes_on*: its end lies behind the data, so its size is not confirmed and more is demanded of its text.
    """
    if code in (QUERY, PREPARE):
        # Query attributes begin with a byte below TAB.
        if goes_on or text[:1] < b"\t":
            return _BEGINS_SQL.match(text) is not None
        return text[:1].isascii() and not text[:5].strip(b"\t\r\n").translate(None, _PRINTABLE)
    if goes_on or code not in COMMANDS:
        return False
    if code in _BARE:
        return size == 1
    if code in WITH_SCHEMA:
        return 1 < size <= 256 and not text.translate(None, _PRINTABLE)
    # close and reset hold the statement's number alone; fetch, execute and others hold more.
    if code in (0x19, 0x1A):
        return size == 5
    return code in WITH_STATEMENT and size >= 7


_PRINTABLE = bytes(range(0x20, 0x7F))


def search_query(payload: bytes) -> int:
    """Return the offset of the first query in *payload*, recognised by head and first word; -1 if none."""
    found = _FIND_QUERY.search(payload)
    return found.start() if found else -1


def is_answer(size: int, first: int) -> bool:
    """Return whether a packet of *size* bytes with this *first* byte can begin an answer.

    Source: PAGE_PROTOCOL_BASIC_RESPONSE_PACKETS, PAGE_PROTOCOL_COM_QUERY_RESPONSE.
    """
    # OK, and LOCAL INFILE with its file name.
    if first in (0x00, 0xFB):
        return 2 <= size <= 65_535
    # ERR: code and text.
    if first == 0xFF:
        return 3 <= size <= 2_048
    # EOF; a longer packet with this byte is a row.
    if first == 0xFE:
        return size < 9
    # The number of columns, as a length-encoded integer of one or three bytes.
    return size == 1 or (first == 0xFC and size == 3)


def is_first_answer(payload: bytes) -> bool:
    """Return whether *payload* begins with a typical answer: an OK without rows, or columns."""
    # OK, 0 rows affected, no insert id, autocommit.
    if payload[:8] == b"\x07\x00\x00\x01\x00\x00\x00\x02":
        return True
    # A column count, then the first column's definition, whose catalogue is always "def".
    return payload[:4] == b"\x01\x00\x00\x01" and payload[7:13] == b"\x00\x02\x03def"


def foreign(payload: bytes) -> str | None:
    """Return 'tls' or 'compressed' if the lengths in a client's *payload* show it, else None.

    A compressed packet has a header of seven bytes: length, sequence number, uncompressed length or 0.

    Source: PAGE_PROTOCOL_BASIC_COMPRESSION; RFC 8446 §5.1.
    """
    if len(payload) < 8:
        return None
    if _TLS_RECORD.match(payload):
        end = 5 + int.from_bytes(payload[3:5], "big")
        # The record fills the data, or another record follows, or it is a long one that is cut: its length is
        # at most 2**14 + 256 (RFC 8446 §5.2).
        if end == len(payload) or _TLS_RECORD.match(payload, end) or 5 + 512 < len(payload) < end < 16_700:
            return "tls"
        return None
    size, inner = _size(payload), int.from_bytes(payload[4:7], "little")
    if size + 7 != len(payload):
        return None
    if inner:
        # First bytes of zlib, in four levels, and of zstd.
        packed = payload[7:9] in (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x28\xb5")
        return "compressed" if packed and inner > size else None
    # Uncompressed length 0: a short packet that was not compressed, in the compressed form.
    plain = payload[7:]
    return "compressed" if is_command(plain) and _size(plain) + 4 == size else None


# --- parsing --------------------------------------------------------------------------------------

# Capability flags (group__group__cs__capabilities__flags in the MySQL source documentation).
_CONNECT_WITH_DB, _COMPRESS, _PROTOCOL_41, _SECURE_CONNECTION = 0x8, 0x20, 0x200, 0x8000
_PLUGIN_AUTH, _CONNECT_ATTRS, _LENENC_AUTH, _ZSTD = 0x80000, 0x100000, 0x200000, 0x4000000
_ATTRIBUTES_LIMIT = 64
_ATTRIBUTE_BYTES = 256


class Login(NamedTuple):
    """A client's handshake response, or its request for TLS; without user and password."""

    schema: str
    attributes: dict[str, str]
    tls: bool
    compressed: bool


def greeting_capabilities(body: bytes) -> int:
    """Return the capability flags that a server offers in its greeting.

    Source: PAGE_PROTOCOL_CONNECTION_PHASE_PACKETS_PROTOCOL_HANDSHAKE_V10.
    """
    # Behind the version's NUL: connection id (4), half of the challenge (8), filler (1). Between the lower
    # and the upper half of the flags stand character set (1) and status (2).
    at = body.find(b"\x00") + 1 + 13
    low = int.from_bytes(body[at : at + 2], "little")
    return low | int.from_bytes(body[at + 5 : at + 7], "little") << 16


def login_of(body: bytes, offered: int | None) -> Login | None:
    """Return the parsed handshake response *body*; None if it is too short to be one.

    User and password are skipped. *offered* are the server's capabilities, None if unknown: compression is
    used only if both sides support it.
    """
    if len(body) < 32:
        return None
    flags = int.from_bytes(body[:4], "little")
    if not flags & _PROTOCOL_41:
        # The protocol before MySQL 4.1 has two bytes of flags and another layout behind them.
        return Login("", {}, bool(flags & _CLIENT_TLS) and len(body) <= 32, False)
    # A request for TLS is the handshake response without its user; the rest follows encrypted.
    if flags & _CLIENT_TLS and len(body) == 32:
        return Login("", {}, True, False)
    at = body.find(b"\x00", 32) + 1
    if not at:
        return Login("", {}, False, False)
    at = _behind_password(body, at, flags)
    schema, attributes = b"", {}
    if flags & _CONNECT_WITH_DB:
        schema, at = _text_to_nul(body, at)
    if flags & _PLUGIN_AUTH:
        _, at = _text_to_nul(body, at)
    if flags & _CONNECT_ATTRS:
        size, at = _number(body, at)
        attributes = _attributes(body[at : at + size])
    both = flags if offered is None else flags & offered
    return Login(schema.decode("utf-8", "replace"), attributes, False, bool(both & (_COMPRESS | _ZSTD)))


def _behind_password(body: bytes, at: int, flags: int) -> int:
    """Return the offset behind the authentication data, whose form depends on the flags."""
    if flags & _LENENC_AUTH:
        size, at = _number(body, at)
        return at + size
    if flags & _SECURE_CONNECTION:
        return at + 1 + (body[at] if at < len(body) else 0)
    return _text_to_nul(body, at)[1]


def _attributes(data: bytes) -> dict[str, str]:
    """Return the connection attributes, without those that may hold a user or a password."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data) and len(found) < _ATTRIBUTES_LIMIT:
        name, at = _string(data, at)
        value, at = _string(data, at)
        if b"user" not in name and b"pass" not in name:
            found[name[:_ATTRIBUTE_BYTES].decode("utf-8", "replace")] = value[:_ATTRIBUTE_BYTES].decode(
                "utf-8", "replace"
            )
    return found


def _text_to_nul(body: bytes, at: int) -> tuple[bytes, int]:
    end = body.find(b"\x00", at)
    return (body[at:end], end + 1) if end >= 0 else (body[at:], len(body))


def _number(body: bytes, at: int) -> tuple[int, int]:
    """Return a length-encoded integer and the offset behind it; 0 at the end of *body*.

    Source: PAGE_PROTOCOL_BASIC_DT_INTEGERS.
    """
    if at >= len(body):
        return 0, len(body)
    # Up to 0xFA the byte is the number. 0xFB (NULL) and 0xFF (ERR) are none, and count as 0.
    first = body[at]
    width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
    if not width:
        return (first if first < 0xFB else 0), at + 1
    return int.from_bytes(body[at + 1 : at + 1 + width], "little"), at + 1 + width


def _string(body: bytes, at: int) -> tuple[bytes, int]:
    size, at = _number(body, at)
    return body[at : at + size], at + size


_FIXED = {0x01: 1, 0x02: 2, 0x03: 4, 0x04: 4, 0x05: 8, 0x06: 0, 0x08: 8, 0x09: 4, 0x0D: 2}
"""Field type -> size of its binary value. Dates have a length byte, other types a length-encoded length."""
_DATES = frozenset((0x07, 0x0A, 0x0B, 0x0C))
"""Timestamp, date, time and datetime."""


def query_text(body: bytes) -> bytes:
    """Return the text of a COM_QUERY packet, without its query attributes.

    The login agrees on attributes (CLIENT_QUERY_ATTRIBUTES), but it may not be in the capture. They are
    recognised by their parameter_set_count, which is always 1: SQL does not begin with a byte 1.

    Source: PAGE_PROTOCOL_COM_QUERY.
    """
    # Above 0xFC the parameter count would have more than two bytes, so the body is text.
    if len(body) < 3 or body[1] > 0xFC:
        return body[1:]
    count, at = _number(body, 1)
    if at >= len(body) or body[at] != 1:
        return body[1:]
    at += 1
    return body[_behind_parameters(body, at, count) :] if count else body[at:]


def _behind_parameters(body: bytes, at: int, count: int) -> int:
    """Return the offset behind *count* query attributes."""
    # One bit for each parameter that is NULL; such a parameter has no value.
    nulls = body[at : at + (count + 7) // 8]
    # new_params_bind_flag, one byte; then type (2 bytes) and name of each parameter, then the values.
    at += len(nulls) + 1
    kinds: list[int] = []
    while len(kinds) < count and at < len(body):
        kinds.append(body[at])
        _, at = _string(body, at + 2)
    for number, kind in enumerate(kinds):
        if nulls[number >> 3] >> (number & 7) & 1:
            continue
        if kind in _FIXED:
            at += _FIXED[kind]
        elif kind in _DATES:
            at += 1 + (body[at] if at < len(body) else 0)
        else:
            at = _string(body, at)[1]
    return at


# Errors quote values of the statement, which may be user data or secrets; short ones are mostly names.
_QUOTED = re.compile(r"'[^']*'")
_ERROR_LIMIT = 200
_VALUE_LIMIT = 64


def error_of(body: bytes) -> tuple[int, str]:
    """Return code and text of an ERR packet; the text without SQL state and without long values.

    Source: PAGE_PROTOCOL_BASIC_ERR_PACKET.
    """
    code = int.from_bytes(body[1:3], "little")
    # "#" and five characters of SQL state; absent in errors before the login.
    text = body[9:] if body[3:4] == b"#" else body[3:]
    shown = _QUOTED.sub(_short, text[:2_048].decode("utf-8", "replace"))
    return code, shown[:_ERROR_LIMIT]


def _short(found: re.Match[str]) -> str:
    return found[0] if len(found[0]) <= _VALUE_LIMIT + 2 else "'…'"
