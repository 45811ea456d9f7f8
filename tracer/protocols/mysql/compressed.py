"""The compressed protocol: what follows a login that agrees on it is split into compressed packets.

A compressed packet is `length:3 seq:1 uncompressed length:3`, then zlib or zstd data; with an uncompressed
length of 0 its data are plain. Packets of MySQL's own framing may begin and end anywhere in them.

Source: MySQL source documentation, "Compression" (PAGE_PROTOCOL_BASIC_COMPRESSION).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import zstandard

from tracer.model import Frames

__all__ = ["Piece", "Unpacker", "is_packed"]

_HEADER_BYTES = 7
MOST_PACKED = 1 << 20
"""Bytes of a compressed packet that are kept until it is whole; a longer one is a hole of known size."""
MOST_PLAIN = 1 << 20
"""Bytes that are decompressed of a packet; the rest is a hole of known size. What is read of a statement is
less, and a small packet may claim 16 MiB."""
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_ZSTD = b"\x28\xb5\x2f\xfd"


class Piece(NamedTuple):
    """Plain bytes, and what is missing behind them."""

    time_ns: int
    frames: Frames
    payload: bytes
    missing: int = 0
    """Bytes that follow and are not read; -1: it is not known how many."""


def is_packed(payload: bytes) -> bool:
    """Return whether *payload* can begin with a compressed packet."""
    if len(payload) < _HEADER_BYTES:
        return False
    size, plain = int.from_bytes(payload[:3], "little"), int.from_bytes(payload[4:7], "little")
    start = payload[_HEADER_BYTES : _HEADER_BYTES + 4]
    if plain:
        return size > 0 and (start[:2] in _ZLIB or start == _ZSTD)
    # The plain data begin with the length of a packet in them, or continue one.
    return size > 0 and len(payload) <= size + _HEADER_BYTES


class Unpacker:
    """Takes the bytes of one direction of a connection and gives the plain ones."""

    def __init__(self) -> None:
        self.in_step = True
        """The next byte begins or continues a compressed packet."""
        self._packet = bytearray()
        self._size = -1
        """Bytes of the packet's data; -1 while its header is not whole."""
        self._plain = 0
        self._left = 0
        """Bytes of its data still to come."""
        self._start: tuple[int, Frames] = (0, ())
        self._kept = True
        """Its data are kept: wanted, and not too many."""

    def feed(self, time_ns: int, frames: Frames, payload: bytes, wanted: bool) -> Iterator[Piece]:
        """Yield what *payload* completes; of packets that begin while nothing is *wanted*, the size alone."""
        at = 0
        if not self.in_step:
            if not is_packed(payload):
                return
            self.in_step = True
        while at < len(payload):
            if self._size < 0:
                if not self._packet:
                    self._start = (time_ns, frames)
                part = payload[at : at + _HEADER_BYTES - len(self._packet)]
                self._packet += part
                at += len(part)
                if len(self._packet) < _HEADER_BYTES:
                    return
                self._begin(wanted)
            take = min(self._left, len(payload) - at)
            if self._kept:
                self._packet += payload[at : at + take]
            self._left -= take
            at += take
            if not self._left:
                yield self._end((time_ns, frames))

    def _begin(self, wanted: bool) -> None:
        header = self._packet
        self._size = self._left = int.from_bytes(header[:3], "little")
        self._plain = int.from_bytes(header[4:7], "little")
        self._packet = bytearray()
        self._kept = wanted and self._size <= MOST_PACKED

    def _end(self, end: tuple[int, Frames]) -> Piece:
        time_ns, frames = self._start
        frames = frames if end[1] == frames else end[1] + frames
        data, kept = bytes(self._packet), self._kept
        size = self._plain or self._size
        self._reset()
        if not kept:
            return Piece(time_ns, frames, b"", size)
        if not self._plain:
            return Piece(time_ns, frames, data)
        plain = _decompressed(data)
        if plain is None:
            # Not what its header says, so nothing says where the next packet begins either.
            self.in_step = False
            return Piece(time_ns, frames, b"", -1)
        plain = plain[:size]
        return Piece(time_ns, frames, plain, size - len(plain))

    def lose(self, size_bytes: int) -> int:
        """Skip a hole; return how many plain bytes it hides, -1 if that is not known."""
        if self._size >= 0 and 0 < size_bytes <= self._left:
            # The rest of the packet cannot be decompressed without them.
            self._kept = False
            self._left -= size_bytes
            if self._left:
                return 0
            hidden = self._plain or self._size
            self._reset()
            return hidden
        self._reset()
        self.in_step = False
        return -1

    def _reset(self) -> None:
        self._packet = bytearray()
        self._size = -1
        self._left = 0


def _decompressed(data: bytes) -> bytes | None:
    """Return the beginning of what *data* hold, at most MOST_PLAIN bytes; None if they are damaged."""
    try:
        if data[:4] == _ZSTD:
            with zstandard.ZstdDecompressor(max_window_size=1 << 24).stream_reader(
                io.BytesIO(data)
            ) as reader:
                return bytes(reader.read(MOST_PLAIN))
        return zlib.decompressobj().decompress(data, MOST_PLAIN)
    except (zlib.error, zstandard.ZstdError):
        return None
