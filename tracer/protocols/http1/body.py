"""The body of an HTTP/1.x message: its length, and the part of it that is kept.

A `Body` consumes bytes of its stream until it is complete. Bytes that are not wanted are counted, not copied.
No memory is allocated by a declared size.

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
"""How the end of a body is determined: Content-Length, chunks, or the close of the connection."""

DECODED_LIMIT = 1 << 20
"""Limit of a decompressed body: gzip can expand a kilobyte to a megabyte."""
_LINE_LIMIT = 4_096
"""Limit of a chunk-size line with its extensions, and of a trailer line."""
_TRAILER_LIMIT = 65_536
# chunk-size and chunk extensions (RFC 9112 §7.1.1). 16 digits are 64 bits.
_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t\r]*(?:;.*)?", re.DOTALL)
_HOLE = b"\x00"
"""Replaces bytes that are not in the capture. JSON holds no NUL, so the bytes before and behind a hole are
never read as one value."""

# States: in the data, in a line with a chunk's size, in the CRLF behind a chunk, in the trailer.
_IN_DATA, _SIZE_LINE, _DATA_END, _TRAILER = range(4)


class Body:
    """The body of one message while it arrives.

    *keep* is the number of bytes to keep. `complete`: its last byte was seen. `broken`: its end cannot be
    determined any more, by an invalid chunk size for example. `holed`: bytes of it are missing.
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
        """Whether all content was seen, even if the end of the trailer was not."""
        return self.complete or self._state == _TRAILER

    @property
    def kept_bytes(self) -> int:
        """How many bytes are kept so far."""
        return self._kept

    def feed(self, payload: bytes, at: int) -> int:
        """Consume *payload* from offset *at* on; return the offset behind the last consumed byte."""
        size = len(payload)
        while at < size and not (self.complete or self.broken):
            at = self._data(payload, at) if self._state == _IN_DATA else self._lines(payload, at)
        return at

    def lose(self, size_bytes: int) -> bool:
        """Skip a hole; return False if its end may lie outside of this body's known data.

        A hole of unknown size (0) can be skipped only in a body that lasts until the close.
        """
        self.holed = True
        if self.framing == UNTIL_CLOSE:
            self._keep_hole()
            return True
        # For chunks, `_left` is what is left of the current one: the size of the next is in the hole.
        if self._state != _IN_DATA or not 0 < size_bytes <= self._left:
            return False
        self._keep_hole()
        self._advance(size_bytes)
        return True

    def content(self, coding: str) -> bytes:
        """Return the kept bytes, decompressed if *coding* (Content-Encoding) is gzip or deflate.

        Of a compressed body with a hole, only the part before the hole can be decompressed. An unknown or
        wrong coding leaves the bytes as they are.
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
            # Cut to the limit before it is copied.
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
        """Consume one line, or the part of it that is there; its length is limited before it is copied."""
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
            # The CRLF behind the data of a chunk: an empty line.
            self._state = _SIZE_LINE
            if line.strip():
                self.broken = True
        elif self._state == _SIZE_LINE:
            found = _SIZE.fullmatch(line)
            if found is None:
                self.broken = True
                return
            self._left = int(found[1], 16)
            # A chunk of size 0 is the last one; the trailer follows.
            self._state = _IN_DATA if self._left else _TRAILER
        else:
            # An empty line ends the trailer.
            self._trailer_bytes += len(line)
            self.complete = not line.rstrip(b"\r")
            self.broken = self._trailer_bytes > _TRAILER_LIMIT


def request_framing(headers: dict[str, str]) -> tuple[int, int]:
    """Return the framing of a request's body, and its length (RFC 9112 §6.3)."""
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return CHUNKED, 0
    return LENGTH, content_length(headers) or 0


def response_framing(headers: dict[str, str], status: int, request_method: str) -> tuple[int, int]:
    """Return the framing of a response's body, and its length; *request_method* '' is an unknown one.

    Source: RFC 9112 §6.3.
    """
    # These have no body, whatever their headers say.
    tunnel = request_method == "CONNECT" and 200 <= status < 300
    if request_method == "HEAD" or status in (101, 204, 304) or tunnel:
        return LENGTH, 0
    # Transfer-Encoding overrides Content-Length. If its last coding is not chunked, the close ends the body.
    coding = headers.get("transfer-encoding", "").lower()
    if coding and coding != "identity":
        return CHUNKED if coding.endswith("chunked") else UNTIL_CLOSE, 0
    size = content_length(headers)
    return (UNTIL_CLOSE, 0) if size is None else (LENGTH, size)


def content_length(headers: dict[str, str]) -> int | None:
    """Return the declared length, or None; of a repeated header the first value (RFC 9112 §6.3)."""
    value = headers.get("content-length")
    if value is None:
        return None
    # At most 18 digits, which is less than 2**63; isdigit alone would accept other scripts' digits.
    first = value.partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() and len(first) <= 18 else None


def _decompress(data: bytes, coding: str) -> bytes:
    """Return *data* decompressed, at most DECODED_LIMIT bytes; *data* itself if it is not compressed."""
    # wbits 47 detects gzip and zlib. "deflate" is zlib by RFC 9110 §8.4.1.2, but some servers send raw
    # deflate, which is wbits -15.
    for window in (47, -15) if coding == "deflate" else (47,):
        out = bytearray()
        rest = data
        try:
            while rest and len(out) < DECODED_LIMIT:
                stream = zlib.decompressobj(window)
                out += stream.decompress(rest, DECODED_LIMIT - len(out))
                if not stream.eof:
                    break
                # Another gzip member follows (RFC 1952 §2.2).
                rest = stream.unused_data
        except zlib.error:
            # Damage behind the start: what was decompressed so far is returned.
            if not out:
                continue
        return bytes(out)
    return data
