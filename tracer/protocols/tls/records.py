"""The record layer of TLS: bytes of one direction -> records, and what is missing of them.

The reader is *in step* while it knows where records begin. A hole inside a record costs that record only:
its length is known, so the start of the next one is, too. A hole that reaches farther puts the reader out of
step: it searches the head of a record behind which another head follows, or the bytes at hand end.

Source: RFC 8446 §5.1; RFC 5246 §6.2.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tracer.model import Data, Frames, Gap

__all__ = [
    "ALERT",
    "APPLICATION",
    "CHANGE_CIPHER",
    "HANDSHAKE",
    "HEAD_BYTES",
    "LONGEST_BYTES",
    "Missing",
    "Record",
    "Records",
]

# ContentType.
CHANGE_CIPHER, ALERT, HANDSHAKE, APPLICATION = 20, 21, 22, 23
HEAD_BYTES = 5
LONGEST_BYTES = (1 << 14) + 2048
"""TLS 1.2 allows 2048 bytes beside the 2**14 of the content, TLS 1.3 only 256."""
_HEAD = re.compile(rb"[\x14-\x17]\x03[\x00-\x04]")
_BEGINNINGS = tuple(re.compile(part) for part in (rb"[\x14-\x17]\Z", rb"[\x14-\x17]\x03\Z"))


class Record(NamedTuple):
    """One record, as it was sent."""

    kind: int
    """ContentType; APPLICATION for all encrypted records of TLS 1.3."""
    version: int
    body: bytes
    time_ns: int
    """When its last byte was captured."""
    frames: Frames
    """The packet that completes it: Wireshark shows what is in it there."""


class Missing(NamedTuple):
    """Records that are not in the capture, whole or in part."""

    time_ns: int
    kind: int
    """ContentType of the one record that is missing; 0: it is not known how many are."""
    size_bytes: int
    """Of one record: the length of its body. Else the bytes that are missing; 0 if that is not known."""


class Records:
    """Cuts the bytes of one direction into records. *in_step*: the first byte begins one."""

    def __init__(self, in_step: bool) -> None:
        self._buffer = b""
        self._in_step = in_step
        self._skip_bytes = 0
        """Bytes to come of a record of which others are missing."""

    def receive(self, data: Data) -> Iterator[Record | Missing]:
        """Yield the records that *data* completes."""
        payload = data.payload
        if self._skip_bytes:
            passed = min(self._skip_bytes, len(payload))
            self._skip_bytes -= passed
            payload = payload[passed:]
        buffer = self._buffer + payload if self._buffer else payload
        at, size = 0, len(buffer)
        while at < size:
            if not self._in_step:
                at = self._search(buffer, at)
                if not self._in_step:
                    break
            if not _may_begin(buffer, at):
                self._in_step = False
                yield Missing(data.time_ns, 0, 0)
                continue
            if size - at < HEAD_BYTES:
                break
            end = at + HEAD_BYTES + (buffer[at + 3] << 8 | buffer[at + 4])
            if end > size:
                break
            version = buffer[at + 1] << 8 | buffer[at + 2]
            yield Record(buffer[at], version, buffer[at + HEAD_BYTES : end], data.time_ns, data.frames)
            at = end
        self._buffer = buffer[at:]

    def gap(self, gap: Gap) -> Missing | None:
        """Return what *gap* costs; None if all of it was known to be missing already."""
        missing, skip = gap.size_bytes, self._skip_bytes
        buffer, self._buffer = self._buffer, b""
        if skip:
            self._skip_bytes = max(0, skip - missing) if missing else 0
            if missing and missing <= skip:
                return None
        elif self._in_step and missing and len(buffer) >= HEAD_BYTES:
            length = buffer[3] << 8 | buffer[4]
            rest = HEAD_BYTES + length - len(buffer)
            if missing <= rest:
                self._skip_bytes = rest - missing
                return Missing(gap.time_ns, buffer[0], length)
        self._in_step = False
        return Missing(gap.time_ns, 0, missing)

    def _search(self, buffer: bytes, at: int) -> int:
        """Return the offset of the first record from *at* on, or the offset where to search again."""
        size = len(buffer)
        while found := _HEAD.search(buffer, at):
            at = found.start()
            if size - at < HEAD_BYTES:
                return at
            end = at + HEAD_BYTES + (buffer[at + 3] << 8 | buffer[at + 4])
            if not _may_begin(buffer, at) or (end < size and not _may_begin(buffer, end)):
                at += 1
                continue
            if end <= size:
                self._in_step = True
            return at
        # The beginning of a head may stand at the end.
        return next((size - n for n in (2, 1) if size - at >= n and _BEGINNINGS[n - 1].search(buffer)), size)


def _may_begin(buffer: bytes, at: int) -> bool:
    """Return whether a record may begin at *at*, as far as its head is there."""
    head = buffer[at : at + HEAD_BYTES]
    if len(head) >= 3:
        if not _HEAD.match(head):
            return False
    elif not _BEGINNINGS[len(head) - 1].match(head):
        return False
    return len(head) < HEAD_BYTES or 0 < (head[3] << 8 | head[4]) <= LONGEST_BYTES
