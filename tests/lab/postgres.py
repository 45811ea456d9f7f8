"""Messages of the PostgreSQL protocol, as clients and servers send them."""

from __future__ import annotations

import struct

__all__ = [
    "CLOSED",
    "LOGGED_IN",
    "READY",
    "SYNC",
    "bind",
    "done",
    "error",
    "execute",
    "extended",
    "message",
    "parse",
    "query",
    "rows",
    "startup",
]


def message(kind: str, body: bytes = b"") -> bytes:
    return kind.encode() + struct.pack(">I", len(body) + 4) + body


def startup(version: int = 3 << 16, **parameters: str) -> bytes:
    said = parameters or {"user": "nova", "database": "nova_api", "application_name": "nova-api"}
    body = b"".join(name.encode() + b"\0" + value.encode() + b"\0" for name, value in said.items()) + b"\0"
    return struct.pack(">II", len(body) + 8, version) + body


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


def parse(text: str, name: str = "", types: tuple[int, ...] = ()) -> bytes:
    numbers = b"".join(struct.pack(">I", kind) for kind in types)
    body = name.encode() + b"\0" + text.encode() + b"\0" + struct.pack(">H", len(types)) + numbers
    return message("P", body)


def bind(*values: bytes | None, name: str = "", portal: str = "", binary: bool = False) -> bytes:
    body = portal.encode() + b"\0" + name.encode() + b"\0"
    body += struct.pack(">HH", 1, 1) if binary else struct.pack(">H", 0)
    body += struct.pack(">H", len(values))
    for value in values:
        body += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
    return message("B", body + struct.pack(">H", 0))


def execute(portal: str = "", most: int = 0) -> bytes:
    return message("E", portal.encode() + b"\0" + struct.pack(">I", most))


def extended(text: str, *values: bytes | None, binary: bool = False) -> bytes:
    """A statement by the extended protocol, as psycopg sends one."""
    described = message("D", b"P\0")
    return parse(text) + bind(*values, binary=binary) + described + execute() + SYNC


def done(tag: str = "INSERT 0 1") -> bytes:
    return message("C", tag.encode() + b"\0")


def rows(*values: str) -> bytes:
    """One column: its description, the rows and the tag."""
    column = b"v\0" + struct.pack(">IHIhiH", 0, 0, 25, -1, -1, 0)
    found = message("T", struct.pack(">H", 1) + column)
    for value in values:
        found += message("D", struct.pack(">HI", 1, len(value)) + value.encode())
    return found + done(f"SELECT {len(values)}")


def error(state: str, text: str, detail: str = "") -> bytes:
    fields = {"S": "ERROR", "V": "ERROR", "C": state, "M": text} | ({"D": detail} if detail else {})
    body = b"".join(name.encode() + value.encode() + b"\0" for name, value in fields.items()) + b"\0"
    return message("E", body)


SYNC = message("S")
READY = message("Z", b"I")
CLOSED = message("X")
LOGGED_IN = (
    message("R", struct.pack(">I", 0))
    + message("S", b"server_version\x0015.5\0")
    + message("K", struct.pack(">II", 7, 8))
    + READY
)
