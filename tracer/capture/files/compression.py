"""The bytes of a capture, chunk by chunk, whatever they are packed in.

Packing is recognised by the first bytes, never by the name: rotated and renamed files keep no suffix. A
chunk is what is there (a pipe gives what has arrived, so a live stream is seen at once), and about
1 MiB of a file. Nothing here allocates by a length that the file declares.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import IO

__all__ = ["CHUNK_BYTES", "ByteStream", "packing"]

CHUNK_BYTES = 64 << 10
"""Buffers of this size are used again and again; of 1 MiB each is fresh memory, faulted in page by page:
a quarter of what reading costs."""
_ZSTD_STEP_BYTES = 512
"""A zstd block of 4 bytes may hold 128 KiB, and one call unpacks all it is given: so little at once
bounds a malicious file to 16 MiB a call, and costs an honest one some percent."""

_GZIP_STEP_BYTES = 32 << 10
"""zlib hands back what it did not use as a copy: with small members, long steps would copy far too much."""

Read = Callable[[], bytes]


class _Broken(Exception):
    """The packed stream cannot be read any further; says why."""


class ByteStream:
    """The unpacked bytes of an open file or pipe; after opening nothing is raised.

    `packing` is 'gzip', 'zstd' or ''. `damage` says in words why the bytes end before their end, and
    is '' as long as all is well.
    """

    def __init__(self, source: IO[bytes]) -> None:
        self.damage = ""
        self.ended = False
        """True once all bytes were read."""
        self._source = source
        # A pipe may hand over its first bytes one by one; six tell every packing.
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
        """Return *rest* and what follows it: at least *wanted_bytes*, if the stream has as many.

        Always reads on, so that a result as short as *rest* means the end.
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
        self._source.close()

    def _take(self) -> bytes:
        # `read1` of a buffered stream and `read` of a raw one (a file, standard input) return what is there.
        read = getattr(self._source, "read1", self._source.read)
        return bytes(read(CHUNK_BYTES) or b"")


def packing(head: bytes) -> str:
    """Return how the bytes that begin with *head* are packed: 'gzip', 'zstd' or ''.

    A zstd stream may begin with a skippable frame (pzstd, seekable zstd). RFC 1952 §2.3.1, RFC 8878 §3.1.
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
    """Yield the members of a gzip stream, one behind the other; zeros behind them are padding."""
    member = zlib.decompressobj(31)
    begun = False
    while chunk := read():
        for start in range(0, len(chunk), _GZIP_STEP_BYTES):
            packed = chunk[start : start + _GZIP_STEP_BYTES]
            while packed:
                if not begun and not (packed := packed.lstrip(b"\0")):
                    break
                begun = True
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
    # zlib throws away what one call unpacked when the call meets the damage (a wrong checksum at the
    # very end, for one): byte by byte nothing is lost.
    try:
        for value in packed:
            if unpacked := member.decompress(bytes((value,))):
                yield unpacked
        if unpacked := member.flush():
            yield unpacked
    except zlib.error:
        return


def _unzstd(read: Read) -> Iterator[bytes]:
    """Yield the frames of a zstd stream, one behind the other; a damaged block loses the step it is in."""
    # Imported when the first .zst is met: most runs never do.
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
