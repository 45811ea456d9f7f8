"""A body of oslo.messaging as bytes and as JSON: what reading ids and drawing facts have in common."""

from __future__ import annotations

import bz2
import re
import zlib
from typing import Any

import msgspec

__all__ = [
    "COMPRESSIONS",
    "LARGEST_BODY",
    "LONGEST_TEXT",
    "NOT_JSON",
    "REQUEST_ID",
    "UUID",
    "decode_any",
    "plain",
    "unescaped",
    "whole",
]

UUID = rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
REQUEST_ID = rb"req-" + UUID
LONGEST_TEXT = 300
LARGEST_BODY = 4 << 20
"""Bytes that a compressed body may unfold to."""

decode_any = msgspec.json.Decoder().decode
NOT_JSON = (msgspec.MsgspecError, RecursionError, UnicodeError)
"""What decoding raises for bytes that are no JSON, and for JSON that is nested without end."""

# What kombu calls gzip is zlib; bz2, lzma, zstd and brotli have their own (kombu.compression).
COMPRESSIONS = (
    b"\x1f\x8b",
    b"x\x01",
    b"x\x5e",
    b"x\x9c",
    b"x\xda",
    b"BZh",
    b"\xfd7zXZ",
    b"\x28\xb5\x2f\xfd",
)


def plain(body: bytes) -> bytes:
    """Return *body* without its compression and leading white space; cut if it is cut or very large."""
    if body[:1] == b"{":
        return body
    try:
        if body.startswith(COMPRESSIONS[:5]):
            return zlib.decompressobj(wbits=47).decompress(body, LARGEST_BODY)
        if body.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(body, LARGEST_BODY)
    except (zlib.error, OSError, ValueError, EOFError):
        return b""
    return body.lstrip() if body[:1] in b" \t\r\n" else body


def unescaped(text: bytes) -> str:
    """Return a piece of escaped JSON text as words."""
    words = re.sub(rb"\\+n", b" ", text).replace(b"\\", b"")
    return words.decode("utf-8", "replace")


def whole(body: bytes) -> dict[str, Any] | None:
    """Return the message in *body*, out of its envelope where it has one; None if that is no JSON object."""
    try:
        outer = decode_any(body)
        if isinstance(outer, dict) and isinstance(outer.get("oslo.message"), str):
            outer = decode_any(outer["oslo.message"])
    except NOT_JSON:
        return None
    return outer if isinstance(outer, dict) else None
