"""The body of an HTTP/1.x message: how long it is, and what of it is kept.

A `Body` eats bytes of its stream until it is complete. What nobody wants is counted, not copied, and
nothing is allocated because a sender declared a size.

Source: RFC 9112 §6 (length), §7.1 (chunked); RFC 9110 §8.4.1 (content codings).
"""

from __future__ import annotations

import re
import zlib

__all__ = [
    "CHUNKED",
    "DECODED_LIMIT",
    "LENGTH",
    "UNTIL_CLOSE",
    "Body",
    "content_length",
    "request_framing",
    "response_framing",
]

LENGTH, CHUNKED, UNTIL_CLOSE = range(3)
"""How the end of a body is found."""

DECODED_LIMIT = 1 << 20
"""Of a decompressed body: gzip can swell a kilobyte to a megabyte."""
_LINE_LIMIT = 4_096
"""Of a chunk's size with its extensions, and of a trailer line."""
_TRAILER_LIMIT = 65_536
_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t\r]*(?:;.*)?", re.DOTALL)
_HOLE = b"\x00"
"""Stands for bytes that are not in the capture: no JSON holds a NUL, so what lies on both sides of a
hole never reads as one."""

_IN_DATA, _SIZE_LINE, _DATA_END, _TRAILER = range(4)


class Body:
    """The body of one message while it arrives.

    *keep* is how many bytes to keep, 0 for none. `complete` says that its last byte was seen,
    `broken` that it cannot be followed any more (a chunk size that is none, say).
    """

    __slots__ = ("_kept", "_left", "_limit", "_line", "_parts", "_state", "_trailer_bytes", "broken",
                 "complete", "framing", "holed", "received")  # fmt: skip

    def __init__(self, framing: int, size: int, keep: int) -> None:
        self.framing = framing
        self.complete = framing == LENGTH and size == 0
        self.broken = False
        self.holed = False
        self.received = 0
        self._left = size
        self._limit = keep
        self._kept = 0
        self._parts: list[bytes] = []
        self._line = bytearray()
        self._trailer_bytes = 0
        self._state = _SIZE_LINE if framing == CHUNKED else _IN_DATA

    @property
    def ended(self) -> bool:
        """Whether all content is there, even if the last line of a trailer is not."""
        return self.complete or self._state == _TRAILER

    def feed(self, payload: bytes, at: int) -> int:
        """Eat *payload* from offset *at* on and return the offset behind the last byte eaten."""
        size = len(payload)
        while at < size and not (self.complete or self.broken):
            at = self._data(payload, at) if self._state == _IN_DATA else self._lines(payload, at)
        return at

    def lose(self, size_bytes: int) -> bool:
        """Skip a hole; return False when it reaches beyond what is known of this body.

        A hole of unknown size (0) is survived by nothing but a body that lasts until the close.
        """
        self.holed = True
        if self.framing == UNTIL_CLOSE:
            self._keep_hole()
            return True
        if self._state != _IN_DATA or not 0 < size_bytes <= self._left:
            return False
        self._keep_hole()
        self._advance(size_bytes)
        return True

    def content(self, coding: str) -> bytes:
        """Return what was kept, decompressed when *coding* (Content-Encoding) says gzip or deflate.

        Of a compressed body with a hole only the part before the hole can be read. A coding that is
        unknown or untrue leaves the bytes as they are.
        """
        coding = coding.strip().lower()
        if coding not in ("gzip", "x-gzip", "deflate"):
            return b"".join(self._parts)
        parts = self._parts
        if self.holed and _HOLE in parts:
            parts = parts[: parts.index(_HOLE)]
        return _decompress(b"".join(parts), coding)

    # --- data ---

    def _data(self, payload: bytes, at: int) -> int:
        size = len(payload) - at
        if self.framing != UNTIL_CLOSE and size > self._left:
            size = self._left
        if self._kept < self._limit:
            part = payload[at : at + min(size, self._limit - self._kept)]
            self._parts.append(part)
            self._kept += len(part)
        self.received += size
        self._advance(size)
        return at + size

    def _advance(self, size: int) -> None:
        if self.framing == UNTIL_CLOSE:
            return
        self._left -= size
        if not self._left:
            if self.framing == LENGTH:
                self.complete = True
            else:
                self._state = _DATA_END

    def _keep_hole(self) -> None:
        if self._kept < self._limit:
            self._parts.append(_HOLE)
            self._kept += 1

    # --- lines between the data of chunks ---

    def _lines(self, payload: bytes, at: int) -> int:
        end = payload.find(b"\n", at)
        line = self._line
        if end < 0:
            line += payload[at : at + _LINE_LIMIT + 1]
            self.broken = len(line) > _LINE_LIMIT
            return len(payload)
        line += payload[at : min(end, at + _LINE_LIMIT + 1)]
        self.broken = len(line) > _LINE_LIMIT
        if not self.broken:
            self._line_read(bytes(line))
        line.clear()
        return end + 1

    def _line_read(self, line: bytes) -> None:
        if self._state == _DATA_END:
            self._state = _SIZE_LINE
            if line.strip():
                self.broken = True
        elif self._state == _SIZE_LINE:
            found = _SIZE.fullmatch(line)
            if found is None:
                self.broken = True
                return
            self._left = int(found[1], 16)
            self._state = _IN_DATA if self._left else _TRAILER
        else:
            self._trailer_bytes += len(line)
            self.complete = not line.rstrip(b"\r")
            self.broken = self._trailer_bytes > _TRAILER_LIMIT


def request_framing(headers: dict[str, str]) -> tuple[int, int]:
    """Return how a request's body ends, and its length (RFC 9112 §6.3)."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return CHUNKED, 0
    return LENGTH, content_length(headers) or 0


def response_framing(headers: dict[str, str], status: int, asked: str) -> tuple[int, int]:
    """Return how the body of a response to a request *asked* ends, and its length (RFC 9112 §6.3)."""
    tunnel = asked == "CONNECT" and 200 <= status < 300
    if asked == "HEAD" or status in (101, 204, 304) or tunnel:
        return LENGTH, 0
    coding = headers.get("transfer-encoding", "").lower()
    if coding and coding != "identity":
        return CHUNKED if coding.endswith("chunked") else UNTIL_CLOSE, 0
    size = content_length(headers)
    return (UNTIL_CLOSE, 0) if size is None else (LENGTH, size)


def content_length(headers: dict[str, str]) -> int | None:
    """Return the declared length, of a repeated one the first, or None (RFC 9112 §6.3)."""
    value = headers.get("content-length")
    if value is None:
        return None
    first = value.partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and len(first) <= 18 else None


def _decompress(data: bytes, coding: str) -> bytes:
    """Return *data* decompressed, at most DECODED_LIMIT bytes; *data* itself if it is not compressed."""
    # 47 finds out whether it is gzip or zlib; "deflate" is zlib by RFC 9110 §8.4.1.2, and raw by
    # custom of some servers.
    for window in (47, -15) if coding == "deflate" else (47,):
        out = bytearray()
        rest = data
        try:
            while rest and len(out) < DECODED_LIMIT:
                stream = zlib.decompressobj(window)
                out += stream.decompress(rest, DECODED_LIMIT - len(out))
                if not stream.eof:
                    break
                rest = stream.unused_data
        except zlib.error:
            if not out:
                continue
        return bytes(out)
    return data
