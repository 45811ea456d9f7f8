"""The state of one direction of an HTTP/1.x connection, and of the message in it."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from tracer.model import TO_CLIENT, Frames
from tracer.protocols.http1.body import LENGTH, Body, content_length
from tracer.protocols.http1.head import KEEP_BYTES, Head

__all__ = ["BODY", "HEAD", "LOST", "PEEK", "Mark", "MessageUnderWay", "Stream"]

HEAD, BODY, PEEK, LOST = range(4)
"""States of a direction; `decoder` describes them."""

WAIT_BYTES = 65_536
"""A request whose declared body is not larger is emitted with its last frame, even if the body is not wanted.
A larger one (an image upload) is emitted at the end of its head."""
_TRIM_BYTES = 65_536
"""A buffer is shortened only by this much or more, so that a long search takes linear time."""


class Mark(NamedTuple):
    """Time and frames of a byte."""

    time_ns: int
    frames: Frames


_NOWHERE = Mark(0, ())


_NO_BODY = Body(LENGTH, 0, 0)


class MessageUnderWay:
    """A message whose head is known, while its body arrives."""

    __slots__ = ("body", "emitted", "end", "exchange", "head", "keep", "raw", "request_method", "start",
                 "truncated")  # fmt: skip

    def __init__(self, head: Head, start: Mark, end: Mark, exchange: int, request_method: str) -> None:
        self.head = head
        self.start = start
        self.end = end
        self.exchange = exchange
        self.request_method = request_method
        """A response: the method of its request, '' if unknown. A request: its own method."""
        # Replaced once the framing is known.
        self.body = _NO_BODY
        self.keep = 0
        self.emitted = False
        self.truncated = False
        self.raw = b""
        """The head as it was sent; empty unless the decoder runs with *raw*."""

    @property
    def is_request(self) -> bool:
        """Whether this is a request, not a response."""
        return self.head.status == 0

    @property
    def waits(self) -> bool:
        """Whether this request is emitted at the end of its body, not of its head."""
        if self.keep:
            return True
        # A small body ends soon, and the message then has the last frame, where Wireshark shows it.
        size = content_length(self.head.headers)
        return self.body.framing == LENGTH and size is not None and size <= WAIT_BYTES

    def frames(self) -> Frames:
        """Return the frames of its end, where Wireshark shows it, then those of its start."""
        start, end = self.start.frames, self.end.frames
        return end if start == end else end + start

    def content(self) -> bytes:
        """Return the kept body, decompressed unless the request will be sent again."""
        if not self.keep:
            return b""
        # `tracer replay` sends the body with its original Content-Encoding.
        as_sent = self.raw and self.is_request
        return self.body.content("" if as_sent else self.head.headers.get("content-encoding", ""))


class Stream:
    """The state of one direction."""

    __slots__ = ("buffer", "checked", "direction", "fresh", "mark", "marks", "message", "responses",
                 "scanned", "start", "state")  # fmt: skip

    def __init__(self, direction: int, joined: bool) -> None:
        self.direction = direction
        self.responses = direction == TO_CLIENT
        """Whether it carries responses: by the direction first, then by its latest start line."""
        # A connection that began before the capture starts anywhere in a message.
        self.state = LOST if joined else HEAD
        self.fresh = True
        """Nothing was decoded yet."""
        self.buffer = bytearray()
        """HEAD: the incomplete head. PEEK: the first bytes behind it. LOST: bytes that may hold a start
        line."""
        self.scanned = 0
        """Offset in the buffer up to which it was searched."""
        self.checked = False
        """The start line in the buffer is complete and valid."""
        self.mark = _NOWHERE
        """Of the latest Data."""
        self.marks: list[tuple[int, Mark]] = []
        """LOST only: (offset in the buffer, mark of the bytes from there on)."""
        self.start: Mark | None = None
        """Mark of the first byte of the message in the buffer."""
        self.message: MessageUnderWay | None = None
        """The message whose body arrives."""

    def reset(self, state: int) -> None:
        """Enter *state* with an empty buffer and without a message."""
        self.state = state
        self.buffer.clear()
        self.marks.clear()
        self.scanned = 0
        self.checked = False
        self.start = None
        self.message = None

    def trim(self) -> None:
        """Drop bytes that no later search needs, and their marks."""
        cut = min(self.scanned, len(self.buffer)) - KEEP_BYTES
        if cut < _TRIM_BYTES:
            return
        del self.buffer[:cut]
        self.scanned -= cut
        # The mark before the cut stays: it covers the first byte that is kept.
        at = max(0, bisect_right(self.marks, cut, key=lambda mark: mark[0]) - 1)
        self.marks = [(max(0, offset - cut), mark) for offset, mark in self.marks[at:]]
