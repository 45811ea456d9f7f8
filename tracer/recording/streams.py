"""What a redactor remembers: the streams that secrets are looked for in, and the packets that wait."""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter

from tracer.model import PacketFields, SegmentFields
from tracer.recording.patterns import Start

__all__ = ["MOST_PATCHES", "TAIL_BYTES", "Fragment", "Held", "Stream", "Waiting"]

TAIL_BYTES = 512
"""So much of what came before is looked at again: a name may be cut by the end of a packet."""
MOST_PATCHES = 4_000
"""Of one stream, kept for what is sent again."""
MOST_SEAMS = 1_000
"""Holes of one stream, kept for what is sent again from before them."""


class Stream:
    """One direction of a connection. Positions count its bytes from the first one seen, and do not wrap."""

    __slots__ = (
        "at_once",
        "base",
        "beginning",
        "behind",
        "data",
        "known_to",
        "most_patches",
        "next_seq",
        "open",
        "overwritten",
        "passed",
        "patches",
        "port",
        "row",
        "seams",
        "seen",
    )

    def __init__(self, seq: int, port: int) -> None:
        self.beginning: list[Waiting] | None = []
        """All that came, until something of it is written."""
        self.begin(seq, port)

    def begin(self, seq: int, port: int) -> None:
        """Hold nothing, and go on at *seq*."""
        self.next_seq = seq
        """Counted on from the first one: it does not wrap."""
        self.seams = [(seq, 0)]
        """(sequence number, position) from where on both count alike: behind what was never captured"""
        self.port = port
        """Of the database at the other end or at this one; 0 for others. Negative: what it sends."""
        self.base = 0
        """Position of the first byte of `data`."""
        self.data = bytearray()
        self.passed = 0
        """Behind the last secret."""
        self.seen = 0
        """Up to where secrets were looked for."""
        self.known_to = 0
        """Up to where known secrets were looked for."""
        self.open: Start | None = None
        """A secret whose end has not come; its `at` is a position."""
        self.row = 0
        """Where the next packet of the database begins; -1 when that is not known."""
        self.patches: list[tuple[int, bytes]] = []
        """(position, what to write there), by position; none longer than PATCH_BYTES"""
        self.most_patches = 2 * MOST_PATCHES
        self.overwritten = 0
        """Pieces of it that were."""
        self.behind: list[Waiting] = []
        """A heap of what came behind a hole."""
        self.at_once = True
        """Whether what comes is read; else it waits until the first of it has to be written."""

    def go_on(self, seq: int) -> None:
        """Leave out what is before *seq* and did not come."""
        self.next_seq = seq
        self.row = -1
        if not self.end:
            self.seams.clear()
        self.seams.append((seq, self.end))
        if len(self.seams) > 2 * MOST_SEAMS:
            del self.seams[:-MOST_SEAMS]

    def position(self, seq: int, size_bytes: int) -> int:
        """Return where the bytes from *seq* on are; -1 when not all of them are in one place."""
        n = bisect_right(self.seams, seq, key=itemgetter(0))
        if not n:
            return -1
        begin = self.seams[n - 1][1] + seq - self.seams[n - 1][0]
        return -1 if n < len(self.seams) and begin + size_bytes > self.seams[n][1] else begin

    @property
    def end(self) -> int:
        return self.base + len(self.data)

    @property
    def safe(self) -> int:
        """Up to where no more will be overwritten."""
        safe = self.end - TAIL_BYTES
        if self.open is not None:
            safe = min(safe, self.open.at)
        return min(safe, self.row) if self.port and self.row >= 0 else safe


class Held:
    """A packet that waits."""

    __slots__ = ("at", "begin", "end", "packet", "stream")

    def __init__(self, packet: PacketFields) -> None:
        self.packet = packet
        self.stream: Stream | None = None
        self.at = 0
        """Where in the packet the payload begins."""
        self.begin = self.end = -1
        """Positions of the payload in its stream; -1 while it waits behind a hole."""

    def place(self) -> None:
        """Take the place in the stream that others have found for it: those who hold a part of a segment."""

    @property
    def is_settled(self) -> bool:
        return self.stream is None or 0 <= self.end <= self.stream.safe


class Fragment(Held):
    """An IP fragment that waits, for the others of its datagram first."""

    __slots__ = ("data_at", "first", "last", "start", "whole")

    def __init__(self, packet: PacketFields, data_at: int, start: int) -> None:
        super().__init__(packet)
        self.data_at, self.start = data_at, start
        """Where its data begin, in the packet and in the datagram."""
        self.whole: Held | None = None
        """The segment that the complete datagram holds, and what of its payload is here: from, to."""
        self.first = self.last = 0

    @property
    def data(self) -> bytes:
        return self.packet[1][self.data_at :]

    def belongs(self, whole: Held, payload_at: int, size_bytes: int) -> None:
        """Tell that the datagram is complete, and where in it the payload of its segment is."""
        self.whole = whole
        self.first = min(max(0, self.start - payload_at), size_bytes)
        self.last = min(max(0, self.start + len(self.data) - payload_at), size_bytes)
        self.at = self.data_at + max(0, payload_at - self.start)

    def place(self) -> None:
        whole = self.whole
        self.stream = whole.stream if whole is not None else None
        if whole is None or whole.begin < 0:
            self.begin = self.end = -1
        else:
            self.begin, self.end = whole.begin + self.first, whole.begin + self.last

    @property
    def is_settled(self) -> bool:
        self.place()
        return self.stream is not None and 0 <= self.end <= self.stream.safe


Waiting = tuple[int, int, SegmentFields, Held]
"""Sequence number, which does not wrap; order of arrival; segment; its packet"""
