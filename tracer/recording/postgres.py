"""What is secret in the messages of a PostgreSQL connection: rows, copied data, passwords, parameters.

Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct

__all__ = ["MESSAGE_BYTES", "message_at", "secrets_of", "skipped"]

MESSAGE_BYTES = 5
"""Type and length, before the body."""
_HEAD, _SHORT, _LONG = Struct(">BI").unpack_from, Struct(">H").unpack_from, Struct(">i").unpack_from
_FROM_CLIENT = frozenset(b"QPBEDCSHXcFpdf")
_FROM_SERVER = frozenset(b"EZRKSTDCNA123nsIctGHWdVv")
_UNTYPED_BYTES = 10_000
"""MAX_STARTUP_PACKET_LENGTH of the server."""
_LONGEST_NOTICE = 1 << 20
# What joins statements with calls: ids, and numbers. Other parameters may be passwords or user data.
_KEPT = re.compile(
    rb"(?:req-)?[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}|-?[0-9]{1,12}"
    rb"|\0.{0,7}",
    re.DOTALL,
)
_WORD = re.compile(rb"[a-z_]{1,24}")
_SHOWN = frozenset(b"SVCMFLR")
"""Fields of an error that are kept: severity, code, message, place in the server's source. Others quote
rows."""


def skipped(data: bytes | bytearray, at: int, from_server: bool) -> int:
    """Return how many bytes at data[at], the first of a stream, have no type; -1 when more must come first.

    From a client: a start-up message, or a request for encryption or cancellation. From a server: the byte
    that answers such a request.
    """
    if len(data) - at < MESSAGE_BYTES:
        return -1
    kind, length = _HEAD(data, at)
    if from_server:
        return 1 if kind in b"NSG" and length > _LONGEST_NOTICE else 0
    if kind:
        return 0
    size = _LONG(data, at)[0]
    if not 8 <= size <= _UNTYPED_BYTES:
        return 0
    return size if at + size <= len(data) else -1


def message_at(data: bytes | bytearray, at: int, from_server: bool) -> int | None:
    """Return the index behind the message at data[at]; -1 until its end has come; None if there is none."""
    if len(data) - at < MESSAGE_BYTES:
        return -1 if len(data) == at or data[at] in (_FROM_SERVER if from_server else _FROM_CLIENT) else None
    kind, length = _HEAD(data, at)
    if kind not in (_FROM_SERVER if from_server else _FROM_CLIENT) or length < 4 or length >= 1 << 30:
        return None
    end = at + 1 + int(length)
    return end if end <= len(data) else -1


def secrets_of(
    data: bytes | bytearray, at: int, end: int, from_server: bool, words: frozenset[bytes]
) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of what is secret in the whole message data[at:end], apart from SQL text.

    *words* are values of parameters that are kept, as ids and numbers are.
    """
    kind, body = chr(data[at]), at + MESSAGE_BYTES
    if kind == "d" or (kind == "p" and not from_server) or (kind == "V" and from_server):
        yield body, end
    elif kind == "D" and from_server:
        yield from _values(data, body, end)
    elif kind == "B" and not from_server:
        for begin, until in _values(data, _behind_formats(data, body, end), end):
            value = bytes(data[begin:until])
            if _KEPT.fullmatch(value) is None and not (_WORD.fullmatch(value) and value in words):
                yield begin, until
    elif kind in "EN" and from_server:
        yield from _quoting_fields(data, body, end)


def _behind_formats(data: bytes | bytearray, at: int, end: int) -> int:
    """Return the index of the number of values in a Bind: behind two names and the formats."""
    for _ in range(2):
        at = data.find(b"\0", at, end) + 1
        if not at:
            return end
    return at + 2 + 2 * _SHORT(data, at)[0] if at + 2 <= end else end


def _values(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int]]:
    if at + 2 > end:
        return
    count = _SHORT(data, at)[0]
    at += 2
    for _ in range(count):
        if at + 4 > end:
            return
        size = _LONG(data, at)[0]
        at += 4
        if size > 0:
            yield at, min(at + size, end)
            at += size


def _quoting_fields(data: bytes | bytearray, at: int, end: int) -> Iterator[tuple[int, int]]:
    while at < end and data[at]:
        until = data.find(b"\0", at, end)
        until = end if until < 0 else until
        if data[at] not in _SHOWN and until > at + 1:
            yield at + 1, until
        at = until + 1
