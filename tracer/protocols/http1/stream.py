"""What is remembered of one direction of an HTTP/1.x connection, and of the message in it."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from tracer.model import TO_CLIENT, Frames
from tracer.protocols.http1.body import LENGTH, Body, content_length
from tracer.protocols.http1.head import KEEP_BYTES, Head

__all__ = ["BODY", "HEAD", "LOST", "PEEK", "Mark", "MessageUnderWay", "Stream"]

HEAD, BODY, PEEK, LOST = range(4)
"""At the start of a message; inside its body; where a body may follow or not; out of step."""

WAIT_BYTES = 65_536
"""A request with a declared body up to this is emitted at its true last frame even if the body is not
wanted; a larger one (an image upload) at the end of its head."""
_TRIM_BYTES = 65_536
"""A buffer is shortened only by so much at once, which keeps a long search linear."""


class Mark(NamedTuple):
    """Where and when a byte was seen."""

    time_ns: int
    frames: Frames


class MessageUnderWay:
    """A message whose head is known, while its body arrives."""

    __slots__ = ("asked", "body", "emitted", "end", "exchange", "head", "keep", "raw", "start", "truncated")

    def __init__(self, head: Head, start: Mark, end: Mark, exchange: int, asked: str) -> None:
        self.head = head
        self.start = start
        self.end = end
        self.exchange = exchange
        self.asked = asked
        """Method of the request that this answers, '' if unknown; of a request, its own."""
        self.body = Body(LENGTH, 0, 0)
        self.keep = 0
        self.emitted = False
        self.truncated = False
        self.raw = b""
        """The head as it was sent, where that is asked for."""

    @property
    def is_request(self) -> bool:
        return self.head.status == 0

    @property
    def waits(self) -> bool:
        """Whether this request is emitted only behind its body."""
        if self.keep:
            return True
        size = content_length(self.head.headers)
        return self.body.framing == LENGTH and size is not None and size <= WAIT_BYTES

    def frames(self) -> Frames:
        start, end = self.start.frames, self.end.frames
        return end if start == end else end + start

    def content(self) -> bytes:
        if not self.keep:
            return b""
        # What is to be sent again stays compressed.
        as_sent = self.raw and self.is_request
        return self.body.content("" if as_sent else self.head.headers.get("content-encoding", ""))


class Stream:
    """What is remembered of one direction's bytes."""

    __slots__ = ("buffer", "checked", "direction", "fresh", "mark", "marks", "message", "responses",
                 "scanned", "start", "state")  # fmt: skip

    def __init__(self, direction: int, joined: bool) -> None:
        self.direction = direction
        self.responses = direction == TO_CLIENT
        """Whether it carries responses; its start lines put it right."""
        self.state = LOST if joined else HEAD
        self.fresh = True
        """Nothing was decoded here yet."""
        self.buffer = bytearray()
        """The head (HEAD), the first bytes behind it (PEEK) or what may hold a start line (LOST)."""
        self.scanned = 0
        self.checked = False
        """The start line in the buffer is complete and is one."""
        self.mark = Mark(0, ())
        self.marks: list[tuple[int, Mark]] = []
        """LOST only: offset in the buffer -> where its bytes came from."""
        self.start: Mark | None = None
        """Where the message in the buffer began."""
        self.message: MessageUnderWay | None = None

    def reset(self, state: int) -> None:
        self.state = state
        self.buffer.clear()
        self.marks.clear()
        self.scanned = 0
        self.checked = False
        self.start = None
        self.message = None

    def trim(self) -> None:
        """Forget bytes that no search will need again."""
        cut = min(self.scanned, len(self.buffer)) - KEEP_BYTES
        if cut < _TRIM_BYTES:
            return
        del self.buffer[:cut]
        self.scanned -= cut
        at = max(0, bisect_right(self.marks, cut, key=lambda mark: mark[0]) - 1)
        self.marks = [(max(0, offset - cut), mark) for offset, mark in self.marks[at:]]
