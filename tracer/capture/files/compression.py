"""The decompressed bytes of a capture, chunk by chunk.

The compression is recognised by the first bytes, not by the name: rotated and renamed files lose their
suffix. A chunk is what one read returns, at most `CHUNK_BYTES`; a pipe returns what has arrived, so a live
stream is seen at once. No memory is allocated by a length that the file declares.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import IO

__all__ = ["CHUNK_BYTES", "ByteStream", "packing"]

CHUNK_BYTES = 64 << 10
"""Bytes of one read. The allocator reuses buffers of this size. A buffer of 1 MiB would be fresh memory each
time, and its page faults would take a quarter of the time of reading."""
_ZSTD_STEP_BYTES = 512
"""Compressed bytes that are passed to zstd at once. A zstd block of 4 bytes may hold 128 KiB, and a call
decompresses all its input, so this limits a malicious file to 16 MiB a call. It costs some percent."""

_GZIP_STEP_BYTES = 32 << 10
"""Compressed bytes that are passed to zlib at once. zlib returns unused input as a copy, so with many small
members, longer steps would copy the same bytes again and again."""

Read = Callable[[], bytes]


class _Broken(Exception):
    """The compressed stream cannot be read any further; the message has the reason."""


class ByteStream:
    """The decompressed bytes of an open file or pipe. After construction nothing is raised.

    `packing` is 'gzip', 'zstd' or ''. `damage` is the reason why the bytes end too early, in words; '' while
    there is none.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self.damage = ""
        self.ended = False
        """All bytes were read."""
        self._source = source
        # A pipe may return its first bytes one by one. Six are enough to recognise every compression.
        head = b""
        while len(head) < 6 and (more := self._take()):
            head += more
        self.packing = packing(head)
        unpack = {"gzip": _gunzip, "zstd": _unzstd}.get(self.packing, _plain)
        self._chunks = unpack(_after(head, self._take))

    def read(self) -> bytes:
        """Return the next bytes, b'' at the end."""
        try:
            if chunk := next(self._chunks, b""):
                return chunk
        except _Broken as broken:
            self.damage = str(broken)
        except OSError as error:
            self.damage = f"file cannot be read on: {error.strerror or error}"
        self.ended = True
        return b""

    def extend(self, rest: bytes, wanted_bytes: int) -> bytes:
        """Return *rest* and the bytes that follow it, at least *wanted_bytes* if the stream has them.

        At least one read is made, so a result of the length of *rest* means the end of the stream.
        """
        chunks = [rest]
        size_bytes = len(rest)
        while chunk := self.read():
            chunks.append(chunk)
            size_bytes += len(chunk)
            if size_bytes >= wanted_bytes:
                break
        return b"".join(chunks)

    def close(self) -> None:
        """Close the file or pipe."""
        self._source.close()

    def _take(self) -> bytes:
        # `read1` of a buffered stream and `read` of a raw one do not wait until the buffer is full.
        read = getattr(self._source, "read1", self._source.read)
        return bytes(read(CHUNK_BYTES) or b"")


def packing(head: bytes) -> str:
    """Return the compression of a stream by its first bytes, *head*: 'gzip', 'zstd' or ''.

    A zstd stream may begin with a skippable frame (pzstd, seekable zstd).

    Source: RFC 1952 §2.3.1, RFC 8878 §3.1.
    """
    if head[:3] == b"\x1f\x8b\x08":
        return "gzip"
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50):
        return "zstd"
    return ""


def _after(head: bytes, read: Read) -> Read:
    pending = [head] if head else []
    return lambda: pending.pop() if pending else read()


def _plain(read: Read) -> Iterator[bytes]:
    while chunk := read():
        yield chunk


def _gunzip(read: Read) -> Iterator[bytes]:
    """Yield the members of a gzip stream, one after the other; zeros behind them are padding."""
    # wbits 31: gzip only.
    member = zlib.decompressobj(31)
    begun = False
    while chunk := read():
        for start in range(0, len(chunk), _GZIP_STEP_BYTES):
            packed = chunk[start : start + _GZIP_STEP_BYTES]
            while packed:
                if not begun and not (packed := packed.lstrip(b"\0")):
                    break
                begun = True
                # A copy of the state, to repeat the step byte by byte in case of damage.
                before = member.copy()
                try:
                    unpacked = member.decompress(packed, CHUNK_BYTES)
                except zlib.error as error:
                    yield from _up_to_damage(before, packed)
                    raise _Broken("gzip stream is damaged") from error
                if unpacked:
                    yield unpacked
                packed = member.unconsumed_tail
                if member.eof:
                    packed = member.unused_data
                    member = zlib.decompressobj(31)
                    begun = False
    if begun:
        yield from _up_to_damage(member, b"")
        raise _Broken("gzip stream ends before its end")


def _up_to_damage(member: zlib._Decompress, packed: bytes) -> Iterator[bytes]:
    # A zlib call that meets damage (such as a wrong checksum at the very end) discards its output. Byte by
    # byte, all bytes before the damage are kept.
    try:
        for value in packed:
            if unpacked := member.decompress(bytes((value,))):
                yield unpacked
        if unpacked := member.flush():
            yield unpacked
    except zlib.error:
        return


def _unzstd(read: Read) -> Iterator[bytes]:
    """Yield the frames of a zstd stream, one after the other; damage costs the step that it is in."""
    # Imported at the first zstd stream, because most runs have none.
    from zstandard import ZstdDecompressor, ZstdError

    frame = ZstdDecompressor().decompressobj()
    begun = False
    while chunk := read():
        unpacked: list[bytes] = []
        size_bytes = position = 0
        while position < len(chunk):
            step = chunk[position : position + _ZSTD_STEP_BYTES]
            begun = True
            try:
                unpacked.append(frame.decompress(step))
            except ZstdError as error:
                if size_bytes:
                    yield b"".join(unpacked)
                raise _Broken("zstd stream is damaged") from error
            position += len(step)
            size_bytes += len(unpacked[-1])
            if frame.eof:
                position -= len(frame.unused_data)
                frame = ZstdDecompressor().decompressobj()
                begun = False
            if size_bytes >= CHUNK_BYTES:
                yield b"".join(unpacked)
                unpacked.clear()
                size_bytes = 0
        if size_bytes:
            yield b"".join(unpacked)
    if begun:
        raise _Broken("zstd stream ends before its end")
