"""Bodies of oslo.messaging as bytes and as JSON: decompression, envelope, limits.

`oslo` (ids) and `oslo_facts` (facts of arguments) both build on it.
"""

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
"""Limit of a decompressed body."""

decode_any = msgspec.json.Decoder().decode
NOT_JSON = (msgspec.MsgspecError, RecursionError, UnicodeError)
"""Exceptions of decoding bytes that are not JSON, or JSON that is nested too deeply."""

# First bytes of a compressed body: gzip, the four levels of zlib, then bz2, xz and zstd. What kombu calls
# gzip is zlib (kombu.compression). Brotli has no magic number, so it cannot be recognised.
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
    """Return *body* decompressed and without leading white space; b'' if the compression is damaged.

    A cut body gives what its bytes hold; a large one at most `LARGEST_BODY` bytes. xz and zstd are returned
    as they are.
    """
    if body[:1] == b"{":
        return body
    try:
        # The first five are gzip and zlib; wbits 47 (32 + 15) makes zlib recognise which.
        if body.startswith(COMPRESSIONS[:5]):
            return zlib.decompressobj(wbits=47).decompress(body, LARGEST_BODY)
        if body.startswith(b"BZh"):
            return bz2.BZ2Decompressor().decompress(body, LARGEST_BODY)
    except (zlib.error, OSError, ValueError, EOFError):
        return b""
    return body.lstrip() if body[:1] in b" \t\r\n" else body


def unescaped(text: bytes) -> str:
    """Return a piece of escaped JSON text as plain text, on one line."""
    # At any depth of nesting, so all backslashes go; the text is shown, not parsed.
    words = re.sub(rb"\\+n", b" ", text).replace(b"\\", b"")
    return words.decode("utf-8", "replace")


def whole(body: bytes) -> dict[str, Any] | None:
    """Return the decoded message in *body*, without its envelope; None if it is not a JSON object."""
    try:
        outer = decode_any(body)
        if isinstance(outer, dict) and isinstance(outer.get("oslo.message"), str):
            outer = decode_any(outer["oslo.message"])
    except NOT_JSON:
        return None
    return outer if isinstance(outer, dict) else None
