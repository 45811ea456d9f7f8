"""What is remembered of one direction of an AMQP connection, and what a frame looks like."""

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

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
KINDS = frozenset((METHOD, HEADER, BODY, HEARTBEAT))
FRAME_END = 0xCE
HEAD = struct.Struct(">BHI")
_FURTHEST_CHANNEL = 2_047

Mark = tuple[int, int, Frames]
"""Offset in the stream, time and frames of a Data."""


class Content:
    """A content under way on one channel."""

    __slots__ = (
        "arguments",
        "body_bytes",
        "kept",
        "mark",
        "name",
        "parts",
        "properties",
        "raw_header",
        "raw_method",
        "received",
        "truncated",
    )

    def __init__(self, name: str, arguments: Arguments, mark: Mark) -> None:
        self.name = name
        self.arguments = arguments
        self.mark = mark
        self.properties: dict[str, str | int] = {}
        self.body_bytes = -1
        """Declared; -1 until the header is there."""
        self.received = 0
        self.kept = 0
        self.parts: list[bytes] = []
        self.truncated = False
        self.raw_method = self.raw_header = b""

    def add(self, part: bytes, limit: int) -> None:
        if self.kept < limit:
            part = part[: limit - self.kept]
            self.kept += len(part)
            self.parts.append(part)


class Direction:
    """What is remembered of one direction's bytes.

    `buffer` begins at a frame while in step; out of step it holds what may be the head of a method
    frame. `holes` are the places in the buffered frame that are not in the capture, (start, end).
    """

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
        self.offset = 0
        self.marks: list[Mark] = []
        """Where the bytes of the buffer came from."""
        self.last: Mark = (0, 0, ())
        self.contents: dict[int, Content] = {}
        self.holes: list[tuple[int, int]] = []
        self.fresh = True
        self.lost = joined
        self.ended = False

    def mark_at(self, at: int) -> Mark:
        """Return the Data that brought the byte at buffer offset *at*."""
        if len(self.marks) > 1:
            return self.marks[bisect_right(self.marks, (self.offset + at, 1 << 63)) - 1]
        return self.marks[0]

    def keep_from(self, view: bytes | bytearray, at: int) -> None:
        """Forget the bytes of *view* before *at* and the marks that only they needed."""
        if view is self.buffer:
            del self.buffer[:at]
        elif at < len(view):
            self.buffer += view[at:]
        self.offset += at
        if not self.buffer:
            self.marks.clear()
        elif at and len(self.marks) > 1:
            del self.marks[: bisect_right(self.marks, (self.offset, 1 << 63)) - 1]


def evidence(first: Mark, last: Mark) -> Frames:
    return first[2] if first is last or first[2] == last[2] else first[2] + last[2]


def may_be_frame(view: bytes | bytearray, at: int, frame_max: int) -> bool:
    """Say whether the bytes from *at* on, as far as they are there, can be a frame."""
    if at >= len(view):
        return True
    if view[at] not in KINDS:
        return False
    if at + 7 > len(view):
        return True
    kind, channel, size = HEAD.unpack_from(view, at)
    if size > frame_max or channel > _FURTHEST_CHANNEL or (kind == HEARTBEAT and size):
        return False
    stop = at + 7 + size
    return bool(stop >= len(view) or view[stop] == FRAME_END)
