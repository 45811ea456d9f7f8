"""Finds the begin and the end of secrets in the bytes of a stream.

In HTTP, AMQP and SQL text a secret is found by its name or its form. Packets of a MySQL server are classified
one by one: rows hold user data and count as secret. Packets that show how a statement ended (OK, ERR, EOF,
column counts and definitions) are left unchanged. Only the first bytes of a packet classify it, so a row that
looks like an OK keeps its first seven bytes.

Source: MySQL client/server protocol, "Text Resultset", "OK_Packet", "Connection Phase", "COM_CHANGE_USER".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tracer.openstack.rest import TOKEN_IN_PATH

__all__ = [
    "FRAMING",
    "Start",
    "end_of",
    "inserted",
    "is_mysql_error",
    "mysql_login_secret",
    "mysql_packets",
    "mysql_row",
    "mysql_values",
    "secrets_in",
    "starts",
]

_HEADER = rb"x-[a-z-]*(?:token|secret|signature|key)|(?:proxy-)?authorization|(?:set-)?cookie"
_NAME = (
    rb"(?:passw(?:or)?d|passphrase|admin_?pass|new_pass|user_?data|secret|private_key|token"
    rb"|password_hash|encrypted_blob|contents)"
)
"""End of the name of a JSON member that holds a secret."""
_WORDS = (
    b"pass", b"token", b"secret", b"user_data", b"userdata", b"_key", b"-key", b"_blob", b"contents",
    b"signature", b"_sig", b"authorization", b"cookie", b"gaaaaa", b"\x05plain\0\0", b"@",
    b'["/', b'[\\"/', b'[\\\\\\"/',
)  # fmt: skip
"""Every match of _STARTS holds one of these in lower case. A search for them is cheaper than the pattern."""
_STARTS = re.compile(
    rb"(?:^|\n)(?P<header>" + _HEADER + rb")[ \t]*:[ \t]*"
    rb"|" + _NAME + rb'\\*"\s*:\s*(?P<open>\\*)"'
    rb'|(?P<id>"token"\s*:\s*\{\s*"id"\s*:\s*")'
    rb"|`?\b(?:user_data|password|password_hash|admin_pass)`?\s*=\s*(?P<sql>')"
    rb"|(?P<query>[?&](?:token|password|secret|signature|temp_url_sig)=)"
    rb"|(?P<fernet>\bgAAAAA)"
    rb"|(?P<plain>\x05PLAIN\0\0..)"
    # In a field table of AMQP. AMQPLAIN's answer is one, found by this alone: what is hidden then does not
    # depend on which packet of it came first.
    rb"|(?P<table>\x08passwordS....)"
    # What a text quotes: password=x, X-Auth-Token: x. In JSON a quote stands before the colon.
    rb"|(?P<text>(?:pass\w{0,12}|token|secret)(?:=|\s?[:=]\s|\s(?=\\*['\"]))\\*['\"]?)"
    rb"|(?P<user>://[^/\s@:\"'\\]{1,64}:(?=[^\s@/\"'\\]{1,128}@))"
    rb"|(?P<path>" + re.escape(TOKEN_IN_PATH.encode()) + rb")"
    # The content behind the path of a file that a server is given: ["/etc/motd", "…"].
    rb'|\[\\*"/[^"\\]{1,255}\\*",\s*(?P<file>\\*)"',
    re.IGNORECASE | re.DOTALL,
)
_INSERT = re.compile(rb"INSERT\s+INTO\s+`?\w+`?\s*\(([^)]*)\)\s*VALUES\s*\(", re.IGNORECASE)
_COLUMNS = frozenset(
    b"user_data password password_hash admin_pass admin_password encrypted_blob private_key auth_password"
    b" secret secret_hash token".split()
)
_VALUE = re.compile(rb"\s*('(?:[^'\\]|\\.|'')*'|[^,')(]*(?:\([^)]*\))?)\s*", re.DOTALL)
_ENDS = {
    "header": re.compile(rb"[\r\n]"),
    "fernet": re.compile(rb"[^\w=-]"),
    "query": re.compile(rb"[&\s]"),
    "text": re.compile(rb"[\s'\"\\,;)&<]"),
    "user": re.compile(rb"[@\s/\"'\\]"),
    "path": re.compile(rb"[/?\s]"),
}
_SQL_END = re.compile(rb"(?:[^'\\]|\\.|'')*?'(?!')", re.DOTALL)
FRAMING = re.compile(rb"\xce[\x01-\x03\x08].{6}|\r\n[0-9A-Fa-f]+(?:;[^\r\n]*)?\r\n", re.DOTALL)
"""Framing that may lie inside a secret: end of an AMQP frame and the next header; a chunk size of HTTP."""
_OK, _EOF, _ERROR, _GREETING = 0x00, 0xFE, 0xFF, 0x0A
_CHANGE_USER, _EXECUTE, _LONG_DATA = 0x11, 0x17, 0x18
_LAST_ANSWER, _ANSWER_BYTES = 8, 1_024
"""Highest sequence number and largest size of a client's packet that is taken for an answer in a login."""
_OK_BYTES = 16
_KEPT_BYTES = 7


class Start(NamedTuple):
    """The begin of a secret."""

    at: int
    """Index of its first byte."""
    kind: str
    """The group of _STARTS that matched (header, sql, query …); json for a JSON string."""
    depth: int = 0
    """json: number of backslashes before the closing quote. plain: length in bytes."""


def starts(data: bytes | bytearray, at: int) -> Start | None:
    """Return the first secret that begins at *at* or later; None if there is none."""
    plain = bytes(data[at:]).lower()
    if not any(word in plain for word in _WORDS):
        return None
    found = _STARTS.search(data, at)
    if found is None:
        return None
    kind = found.lastgroup or ""
    if kind == "fernet":
        return Start(found.start(), kind)
    if kind in ("open", "file"):
        return Start(found.end(), "json", len(found[kind]))
    if kind == "id":
        return Start(found.end(), "json")
    if kind in ("plain", "table"):
        return Start(found.end(), "plain", int.from_bytes(data[found.end() - 4 : found.end()], "big"))
    return Start(found.end(), kind)


def end_of(start: Start, data: bytes | bytearray, begin: int, seen: int) -> int:
    """Return the end of the secret of *start*, which begins at data[begin]; -1 if *data* ends before it.

    data[:seen] was searched already.
    """
    if start.kind == "plain":
        end = begin + start.depth
        return end if end <= len(data) else -1
    if start.kind == "json":
        # Some bytes again: the backslashes before the quote may have been the end of the data before.
        return _closing_quote(data, max(begin, seen - 16), start.depth)
    if start.kind == "sql":
        found = _SQL_END.match(data, begin)
        return found.end() - 1 if found else -1
    ending = _ENDS[start.kind].search(data, max(begin, seen))
    return ending.start() if ending else -1


def secrets_in(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of each secret in data[at:end], which is a whole text."""
    text = bytes(data[at:end])
    position = 0
    while (start := starts(text, position)) is not None:
        stop = end_of(start, text, start.at, start.at)
        position = len(text) if stop < 0 else max(stop, start.at + 1)
        yield at + start.at, at + min(position, len(text))


def _closing_quote(data: bytes | bytearray, at: int, depth: int) -> int:
    """Return the index of the closing quote with its backslashes; -1 if there is none.

    JSON inside JSON escapes its quotes: the closing one has *depth* backslashes, inner ones have more.
    """
    while (at := data.find(b'"', at)) >= 0:
        slashes = 0
        while slashes < at and data[at - 1 - slashes] == 0x5C:
            slashes += 1
        if slashes % (2 * (depth + 1)) == depth:
            return at - depth
        at += 1
    return -1


def inserted(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of values of secret columns in INSERT statements of data[at:end], without quotes."""
    for statement in _INSERT.finditer(data, at, end):
        columns = [name.strip(b" `\n\t") for name in statement[1].split(b",")]
        if not _COLUMNS.intersection(columns):
            continue
        position = statement.end()
        for column in columns:
            value = _VALUE.match(data, position)
            if value is None:
                break
            if column in _COLUMNS and value[1][:1] == b"'":
                yield value.start(1) + 1, value.end(1) - 1
            position = value.end()
            if data[position : position + 1] != b",":
                break
            position += 1


def mysql_packets(data: bytes | bytearray, at: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of the body of each complete packet from *at* on, after its 4-byte header."""
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at : at + 3], "little")
        if end > len(data):
            return
        yield at + 4, end
        at = end


def is_mysql_error(data: bytes | bytearray, begin: int, end: int) -> bool:
    """Return whether a server's packet data[begin:end] is an error, whose text may quote what was sent."""
    return end - begin > 3 and data[begin] == _ERROR


def mysql_row(data: bytes | bytearray, begin: int, end: int) -> int:
    """Return the index from which a server's packet data[begin:end] holds row data; *end* if it is no row."""
    length = end - begin
    first = data[begin] if length else _ERROR
    greets = first == _GREETING and data[begin - 1] == 0
    # 0xFE begins an EOF only in a short packet; in a longer one it is a length prefix of a row's value.
    ends = first == _ERROR or (first == _EOF and length < 9)
    if length <= 2 or greets or ends or data[begin + 1 : begin + 4] == b"def":
        return end
    if first == _OK:
        return end if length <= _OK_BYTES else begin + _KEPT_BYTES
    return begin + 1


def mysql_values(data: bytes | bytearray, begin: int, end: int) -> int:
    """Return where the values of a prepared statement begin in a client's packet; *end* if it has none.

    They follow its number, flags and an iteration count. No stage of tracer reads them.
    Source: MySQL client/server protocol, "COM_STMT_EXECUTE"; "COM_STMT_SEND_LONG_DATA".
    """
    if data[begin - 1] or begin >= end or data[begin] not in (_EXECUTE, _LONG_DATA):
        return end
    return min(end, begin + (10 if data[begin] == _EXECUTE else 7))


def mysql_login_secret(data: bytes | bytearray, begin: int, end: int) -> tuple[int, int] | None:
    """Return (begin, end) of the authentication response in a client's packet data[begin:end], or None.

    It is in the login, in COM_CHANGE_USER, and in answers to later challenges; other methods (LDAP, PAM) may
    send the password itself there. Sequence numbers tell them apart: every command has the number 0.
    """
    number = data[begin - 1]
    if 2 <= number <= _LAST_ANSWER:
        return (begin, end) if 0 < end - begin <= _ANSWER_BYTES else None
    if number == 1 and end - begin >= 34:
        # HandshakeResponse41: 32 bytes of flags, sizes and filler precede the user name.
        name_at = begin + 32
    elif number == 0 and end > begin and data[begin] == _CHANGE_USER:
        name_at = begin + 1
    else:
        return None
    name = data.find(b"\0", name_at, end)
    if name < 0 or name + 1 >= end:
        return None
    # The response follows the user name: one byte of length, then the data.
    return name + 2, min(name + 2 + data[name + 1], end)
