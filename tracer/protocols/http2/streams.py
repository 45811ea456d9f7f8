"""The state of one direction of an HTTP/2 connection, and of one exchange."""

from __future__ import annotations

from bisect import bisect_right

from tracer.model import HttpResponse
from tracer.protocols.http1.stream import Mark, MessageUnderWay
from tracer.protocols.http2.fields import Fields

__all__ = ["Block", "Exchange", "Side"]

_NOWHERE = Mark(0, ())


class Exchange:
    """One request with its response: a stream."""

    __slots__ = ("answered", "asked", "held", "method", "request", "response", "target")

    def __init__(self) -> None:
        self.method = ""
        """Of the request; '' if it was not seen."""
        self.target = ""
        self.asked = False
        """The head of the request was seen."""
        self.answered = False
        """The head of the response was seen."""
        self.request: MessageUnderWay | None = None
        """While its body arrives."""
        self.response: MessageUnderWay | None = None
        self.held: HttpResponse | None = None
        """It ended before the body of its request did."""


class Block:
    """A header block while its CONTINUATION frames arrive."""

    __slots__ = ("ends", "fields", "parts", "promise", "start", "stream", "unsure")

    def __init__(self, stream: int, ends: bool, promise: bool, start: Mark) -> None:
        self.stream = stream
        self.ends = ends
        """It is the last of its stream's direction, but for data."""
        self.promise = promise
        """Of a PUSH_PROMISE."""
        self.start = start
        """Time of its first byte; once it is decoded, with the frames on which it is shown."""
        self.parts = bytearray()
        self.fields: list[tuple[bytes, bytes]] = []
        self.unsure = False
        """A field of it is not known."""


class Side:
    """The state of one direction."""

    __slots__ = ("block", "buffer", "data_ends", "data_stream", "direction", "fields", "fresh", "highest",
                 "in_data", "left", "lost", "mark", "marks", "needed", "padding", "scanned",
                 "start")  # fmt: skip

    def __init__(self, direction: int, joined: bool) -> None:
        self.direction = direction
        self.lost = joined
        """Out of step: searching the head of a frame."""
        self.fresh = True
        """Nothing was read yet."""
        self.fields = Fields(joined)
        self.mark = _NOWHERE
        """Of the latest Data."""
        self.buffer = bytearray()
        """The incomplete frame; if lost, bytes that may hold a head."""
        self.needed = 0
        """Size of the buffer with which reading goes on."""
        self.start: Mark | None = None
        """Mark of the first byte in the buffer."""
        self.marks: list[tuple[int, Mark]] = []
        """If lost: (offset in the buffer, mark of the bytes from there on)."""
        self.scanned = 0
        self.in_data = False
        """Inside of the payload of DATA."""
        self.data_stream = 0
        self.data_ends = False
        self.left = 0
        """Bytes of content that are left of it."""
        self.padding = 0
        """Bytes of padding behind them."""
        self.block: Block | None = None
        self.highest = 0
        """Highest stream of which headers were seen."""

    def keep(self, rest: bytes, needed: int) -> None:
        """Wait for *needed* bytes of which *rest* is the beginning."""
        if self.start is None:
            self.start = self.mark
        self.buffer += rest
        self.needed = needed

    def lose(self) -> None:
        """Be out of step; what the table holds is not known any more."""
        self.lost = True
        self.fields.lose()
        self.buffer.clear()
        self.marks.clear()
        self.scanned = 0
        self.start = None
        self.block = None
        self.in_data = False

    def step(self) -> None:
        """Be in step, with an empty buffer."""
        self.lost = self.fresh = False
        self.buffer.clear()
        self.marks.clear()
        self.scanned = 0

    def mark_at(self, offset: int) -> Mark:
        """Return the mark of the Data that holds the *offset* of the buffer, if lost."""
        at = bisect_right(self.marks, offset, key=lambda mark: mark[0]) - 1
        return self.marks[at][1] if at >= 0 else self.mark

    def drop_scanned(self) -> None:
        """Drop the bytes that no later search needs, and their marks."""
        cut, self.scanned = self.scanned, 0
        del self.buffer[:cut]
        at = max(0, bisect_right(self.marks, cut, key=lambda mark: mark[0]) - 1)
        self.marks = [(max(0, offset - cut), mark) for offset, mark in self.marks[at:]]
