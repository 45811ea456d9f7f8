"""Parsing of the bodies of PostgreSQL's messages. Users, passwords and rows are not read.

Source: PostgreSQL documentation, "Message Formats", "Error and Notice Message Fields".
"""

from __future__ import annotations

import re
from struct import Struct

__all__ = ["Value", "bound", "error_of", "parameters_of", "text_to_nul"]

Value = bytes | None
"""A parameter as text; None for NULL."""
_SHORT, _LONG = Struct(">H").unpack_from, Struct(">i").unpack_from
_NUMBERS = {1: Struct(">b"), 2: Struct(">h"), 4: Struct(">i"), 8: Struct(">q")}
_UUID = 2950
"""Number of the type uuid (pg_type.dat)."""
_TEXTS = frozenset((18, 19, 25, 114, 142, 1042, 1043))
"""char, name, text, json, xml, bpchar, varchar: their binary form is the text."""
_JSONB = 3802
_ATTRIBUTES_LIMIT, _ATTRIBUTE_BYTES = 32, 256
# Errors quote values of the statement, which may be user data or secrets; short ones are mostly names.
_QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
_ERROR_LIMIT = 200
_VALUE_LIMIT = 64


def text_to_nul(body: bytes, at: int) -> tuple[bytes, int]:
    """Return the text from *at* on, and the offset behind its NUL; the end of *body* where there is none."""
    end = body.find(b"\0", at)
    return (body[at:end], end + 1) if end >= 0 else (body[at:], len(body))


def parameters_of(body: bytes) -> tuple[str, dict[str, str]]:
    """Return (database, other parameters) of a start-up message; not the user, nor what may hold a password.

    *body* begins behind the protocol's version.
    """
    found: dict[str, str] = {}
    database, at = "", 0
    while at < len(body) and len(found) < _ATTRIBUTES_LIMIT:
        name, at = text_to_nul(body, at)
        value, at = text_to_nul(body, at)
        if name == b"database":
            database = value[:_ATTRIBUTE_BYTES].decode("utf-8", "replace")
        elif name and not any(word in name for word in (b"user", b"pass", b"options", b"_pq_")):
            key = name[:_ATTRIBUTE_BYTES].decode("utf-8", "replace")
            found[key] = value[:_ATTRIBUTE_BYTES].decode("utf-8", "replace")
    return database, found


def error_of(body: bytes) -> tuple[str, str]:
    """Return (SQLSTATE, text) of an ErrorResponse; the text without long values.

    DETAIL and HINT quote rows, so they are not read.
    """
    state, text, at = "", "", 0
    while at < len(body) and body[at]:
        kind = body[at : at + 1]
        value, at = text_to_nul(body, at + 1)
        if kind == b"C":
            state = value[:5].decode("ascii", "replace")
        elif kind == b"M":
            text = _QUOTED.sub(_short, value[:2_048].decode("utf-8", "replace"))[:_ERROR_LIMIT]
    return state, text


def _short(found: re.Match[str]) -> str:
    text = found[0]
    return text if len(text) <= _VALUE_LIMIT + 2 else f"{text[0]}…{text[0]}"


def bound(body: bytes, at: int, types: tuple[int, ...]) -> tuple[tuple[Value, ...], bool]:
    """Return the parameters of a Bind as text, and whether all of them are there.

    *at* is the offset behind the two names; *types* are the numbers of the parameters' types, 0 where the
    client leaves the type to the server.
    """
    if at + 2 > len(body):
        return (), False
    count = _SHORT(body, at)[0]
    at += 2
    if at + 2 * count + 2 > len(body):
        return (), False
    formats = [_SHORT(body, at + 2 * n)[0] for n in range(count)]
    at += 2 * count
    many = _SHORT(body, at)[0]
    at += 2
    values: list[Value] = []
    for number in range(many):
        if at + 4 > len(body):
            return tuple(values), False
        size = _LONG(body, at)[0]
        at += 4
        if size < 0:
            values.append(None)
            continue
        raw = body[at : at + size]
        at += size
        # One format for all, one for each, or none: text.
        form = formats[number] if number < count > 1 else formats[0] if count == 1 else 0
        known = types[number] if number < len(types) else 0
        values.append(_as_text(raw, known) if form else raw)
        if at > len(body):
            return tuple(values), False
    return tuple(values), True


def _as_text(raw: bytes, kind: int) -> bytes:
    """Return a binary value as text, by the number of its type, or by its form where that is not known.

    A type that is neither gives its bytes in hexadecimal. Text in binary form is the text itself, and numbers
    hold bytes that no text has, except in rare cases, which then read as text.
    """
    if kind in _TEXTS:
        return raw
    if kind == _UUID or (not kind and len(raw) == 16 and not _is_text(raw)):
        digits = raw.hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])).encode()
    if kind == _JSONB or (not kind and raw[:1] == b"\x01" and raw[1:2] in (b"{", b"[")):
        return raw[1:]
    if not kind and _is_text(raw):
        return raw
    number = _NUMBERS.get(len(raw))
    return str(number.unpack(raw)[0]).encode() if number else raw.hex().encode()


def _is_text(raw: bytes) -> bool:
    if len(raw.translate(None, _CONTROLS)) < len(raw):
        return False
    try:
        raw.decode()
    except UnicodeDecodeError:
        # The end of a long text may be cut in the middle of a character.
        return len(raw) > 64
    return True


_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\r\n") + b"\x7f"
