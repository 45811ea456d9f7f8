"""The state of a redactor: the streams that are searched for secrets, and the packets that wait."""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter

from tracer.model import PacketFields, SegmentFields
from tracer.recording.patterns import Start

__all__ = ["MOST_PATCHES", "TAIL_BYTES", "Fragment", "Held", "Stream", "Waiting"]

TAIL_BYTES = 512
"""Bytes before new data that are searched again: the end of a packet may cut a name."""
MOST_PATCHES = 4_000
"""Patches of one stream that are kept for retransmissions."""
MOST_SEAMS = 1_000
"""Holes of one stream that are kept to place retransmissions from before them."""


class Stream:
    """One direction of a connection. Positions count its bytes from the first one seen and do not wrap."""

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
        "untyped_to",
    )

    def __init__(self, seq: int, port: int) -> None:
        self.beginning: list[Waiting] | None = []
        """All segments so far, for `_begin_again`; None once a packet of the stream was released."""
        self.begin(seq, port)

    def begin(self, seq: int, port: int) -> None:
        """Reset the stream: it is empty and goes on at *seq*."""
        self.next_seq = seq
        """Next expected sequence number, counted on from the first one without wrapping."""
        self.seams = [(seq, 0)]
        """(sequence number, position) at the start and after each hole; both grow alike up to the next"""
        self.port = port
        """Port of the database; negative in the direction from the server; 0 when it is no database."""
        self.base = 0
        """Position of the first byte of `data`."""
        self.data = bytearray()
        self.passed = 0
        """Position after the last secret."""
        self.seen = 0
        """Position up to which patterns of secrets were searched for."""
        self.known_to = 0
        """Position up to which known secrets were searched for."""
        self.open: Start | None = None
        """A secret whose end has not come yet; its `at` is a position."""
        self.row = 0
        """Position of the next packet or message of a database; -1 when it is not known."""
        self.untyped_to = 1
        """PostgreSQL: messages that begin before this position may have no type, as a start-up has none."""
        self.patches: list[tuple[int, bytes]] = []
        """(position, bytes to write there), by position; none longer than PATCH_BYTES"""
        self.most_patches = 2 * MOST_PATCHES
        self.overwritten = 0
        """Number of byte ranges of this stream that were overwritten."""
        self.behind: list[Waiting] = []
        """Heap of the segments after a hole."""
        self.at_once = True
        """Whether segments are read when they come; else they wait until the first must be released."""

    def go_on(self, seq: int) -> None:
        """Go on at *seq*; the missing bytes before it become a hole."""
        self.next_seq = seq
        self.row = -1
        if not self.end:
            # No byte was seen before: the stream simply begins later.
            self.seams.clear()
        self.seams.append((seq, self.end))
        if len(self.seams) > 2 * MOST_SEAMS:
            del self.seams[:-MOST_SEAMS]

    def position(self, seq: int, size_bytes: int) -> int:
        """Return the position of the bytes from *seq* on; -1 when they are unknown or reach into a hole."""
        n = bisect_right(self.seams, seq, key=itemgetter(0))
        if not n:
            return -1
        begin = self.seams[n - 1][1] + seq - self.seams[n - 1][0]
        return -1 if n < len(self.seams) and begin + size_bytes > self.seams[n][1] else begin

    @property
    def end(self) -> int:
        """Position after the last byte of `data`."""
        return self.base + len(self.data)

    @property
    def safe(self) -> int:
        """Position before which nothing will be overwritten any more."""
        safe = self.end - TAIL_BYTES
        if self.open is not None:
            safe = min(safe, self.open.at)
        return min(safe, self.row) if self.port and self.row >= 0 else safe


class Held:
    """A packet that waits to be released."""

    __slots__ = ("at", "begin", "end", "packet", "stream")

    def __init__(self, packet: PacketFields) -> None:
        self.packet = packet
        self.stream: Stream | None = None
        self.at = 0
        """Index of the payload in the packet."""
        self.begin = self.end = -1
        """Positions of the payload in its stream; -1 while it waits after a hole."""

    def place(self) -> None:
        """Update the positions in the stream; only `Fragment` needs that: its segment determines them."""

    @property
    def is_settled(self) -> bool:
        """Whether the packet will not change any more."""
        return self.stream is None or 0 <= self.end <= self.stream.safe


class Fragment(Held):
    """An IP fragment that waits for the rest of its datagram, then like its segment."""

    __slots__ = ("data_at", "first", "last", "start", "whole")

    def __init__(self, packet: PacketFields, data_at: int, start: int) -> None:
        super().__init__(packet)
        self.data_at, self.start = data_at, start
        """Index of its data in the packet, and in the datagram."""
        self.whole: Held | None = None
        """The segment in the complete datagram; None before that."""
        self.first = self.last = 0
        """The part of the segment's payload that this fragment holds: begin and end."""

    @property
    def data(self) -> bytes:
        """The part of the datagram that this fragment holds."""
        return self.packet[1][self.data_at :]

    def belongs(self, whole: Held, payload_at: int, size_bytes: int) -> None:
        """Link the fragment to the segment *whole* of its datagram, whose payload begins at *payload_at*."""
        self.whole = whole
        self.first = min(max(0, self.start - payload_at), size_bytes)
        self.last = min(max(0, self.start + len(self.data) - payload_at), size_bytes)
        self.at = self.data_at + max(0, payload_at - self.start)

    def place(self) -> None:
        """Derive the positions from those of the segment."""
        whole = self.whole
        self.stream = whole.stream if whole is not None else None
        if whole is None or whole.begin < 0:
            self.begin = self.end = -1
        else:
            self.begin, self.end = whole.begin + self.first, whole.begin + self.last

    @property
    def is_settled(self) -> bool:
        """Whether the fragment will not change any more; never while its datagram is incomplete."""
        self.place()
        return self.stream is not None and 0 <= self.end <= self.stream.safe


Waiting = tuple[int, int, SegmentFields, Held]
"""Sequence number without wrapping, order of arrival, segment, its packet"""
