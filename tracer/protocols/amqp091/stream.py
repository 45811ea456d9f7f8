"""The state of one direction of an AMQP connection, and the form of a frame."""

from __future__ import annotations

import struct
from bisect import bisect_right

from tracer.model import Frames
from tracer.protocols.amqp091.methods import Arguments

__all__ = [
    "BODY",
    "FRAME_END",
    "HEAD",
    "HEADER",
    "HEARTBEAT",
    "KINDS",
    "METHOD",
    "Content",
    "Direction",
    "Mark",
    "evidence",
    "may_be_frame",
]

# Frame types and the frame end (section 4.2.3).
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
KINDS = frozenset((METHOD, HEADER, BODY, HEARTBEAT))
FRAME_END = 0xCE
HEAD = struct.Struct(">BHI")
"""Type, channel and size of a frame."""
_FURTHEST_CHANNEL = 2_047
"""RabbitMQ's default channel_max."""

Mark = tuple[int, int, Frames]
"""Offset in the stream, time and frames of a Data: where its bytes were captured."""


class Content:
    """A content that is not complete yet, on one channel."""

    __slots__ = (
        "arguments",
        "body_bytes",
        "kept",
        "mark",
        "name",
        "parts",
        "properties",
        "raw_header",
        "received",
        "truncated",
    )

    def __init__(self, name: str, arguments: Arguments, mark: Mark) -> None:
        self.name = name
        self.arguments = arguments
        self.mark = mark
        self.properties: dict[str, str | int] = {}
        self.body_bytes = -1
        """Size that the header declares; -1 before the header."""
        self.received = 0
        """Bytes of the body so far, kept or not."""
        self.kept = 0
        self.parts: list[bytes] = []
        self.truncated = False
        self.raw_header = b""

    def add(self, part: bytes, limit: int) -> None:
        """Keep *part* of the body, up to *limit* bytes in all."""
        # Bytes beyond the limit are dropped here; the caller counts them in `received`.
        if self.kept < limit:
            part = part[: limit - self.kept]
            self.kept += len(part)
            self.parts.append(part)


class Direction:
    """The state of one direction."""

    __slots__ = (
        "buffer",
        "contents",
        "direction",
        "ended",
        "fresh",
        "holes",
        "last",
        "lost",
        "marks",
        "offset",
    )

    def __init__(self, direction: int, joined: bool) -> None:
        self.direction = direction
        self.buffer = bytearray()
        """Unread bytes. In step they begin with a frame; out of step they may hold the head of a method
        frame."""
        self.offset = 0
        """Offset of the buffer in the stream."""
        self.marks: list[Mark] = []
        """Where the bytes of the buffer were captured, in order."""
        self.last: Mark = (0, 0, ())
        """Mark of the latest Data."""
        self.contents: dict[int, Content] = {}
        """Channel -> its unfinished content."""
        self.holes: list[tuple[int, int]] = []
        """(start, end) in the buffer of bytes that are not in the capture."""
        self.fresh = True
        """Nothing was read yet: a protocol header may come."""
        self.lost = joined
        """Out of step."""
        self.ended = False

    def mark_at(self, at: int) -> Mark:
        """Return the mark of the byte at buffer offset *at*."""
        if len(self.marks) > 1:
            # 1 << 63 sorts behind every time, so that a mark with this offset is included.
            return self.marks[bisect_right(self.marks, (self.offset + at, 1 << 63)) - 1]
        return self.marks[0]

    def keep_from(self, view: bytes | bytearray, at: int) -> None:
        """Drop the bytes of *view* before *at*, and their marks; keep the rest in the buffer."""
        # A view that is the payload itself leaves its unread rest in the buffer.
        if view is self.buffer:
            del self.buffer[:at]
        elif at < len(view):
            self.buffer += view[at:]
        self.offset += at
        if not self.buffer:
            self.marks.clear()
        elif at and len(self.marks) > 1:
            # The mark before the offset stays: the first kept byte came with it.
            del self.marks[: bisect_right(self.marks, (self.offset, 1 << 63)) - 1]


def evidence(first: Mark, last: Mark) -> Frames:
    """Return the frames of a message: those of its first bytes, then those of its last ones."""
    return first[2] if first is last or first[2] == last[2] else first[2] + last[2]


def may_be_frame(view: bytes | bytearray, at: int, frame_max: int) -> bool:
    """Return whether the bytes from *at* on, as far as they are there, can be a frame."""
    if at >= len(view):
        return True
    if view[at] not in KINDS:
        return False
    if at + 7 > len(view):
        return True
    kind, channel, size = HEAD.unpack_from(view, at)
    # A heartbeat has no payload (section 4.2.7).
    if size > frame_max or channel > _FURTHEST_CHANNEL or (kind == HEARTBEAT and size):
        return False
    stop = at + 7 + size
    return bool(stop >= len(view) or view[stop] == FRAME_END)
