"""One direction of a connection, as far as it was seen, and the arithmetic of its sequence numbers."""

from __future__ import annotations

import socket

from tracer.model import Connection, Endpoint, Frames, Segment

__all__ = ["ABSURD_BYTES", "HOLE_NS", "MASK", "Half", "Opening", "ahead", "endpoints", "reverse"]

HOLE_NS = 1_000_000_000
"""A hole in which nothing has come for so long is lost."""
RESUME_NS = 2_000_000_000
"""Two captures of the same wire that lie further apart than this are two goes."""
COPY_NS = 50_000_000
"""Copies of one SYN lie no further apart; what comes later with the same number is another try."""
ABSURD_BYTES = 1 << 28
"""A jump of more than this, either way, is no hole: the stream is another one."""
MASK = 0xFFFFFFFF
_WRAP = 0x80000000


class Half:
    """One direction of a connection."""

    __slots__ = (
        "acked",
        "connection",
        "direction",
        "fin",
        "fin_frames",
        "finished",
        "last_ns",
        "later",
        "next_seq",
        "peer",
        "pending",
        "pending_bytes",
        "probed",
        "since_later",
        "since_ns",
        "start",
        "strayed",
        "unheard_ns",
        "unheard_seq",
    )

    def __init__(self, connection: Connection, direction: int) -> None:
        self.connection = connection
        self.direction = direction
        self.peer: Half = self
        self.next_seq = -1
        """Next byte expected; -1 before anything was seen."""
        self.start = -1
        """First byte, by the SYN or its answer; -1 while that was not seen."""
        self.probed = False
        """The first packet of a joined connection had no data: it may be a keep-alive probe."""
        self.strayed = -1
        """What was expected before the last absurd jump; -1 without one."""
        self.acked = -1
        """Highest acknowledgement that the other end sent for this direction."""
        self.unheard_seq, self.unheard_ns = -1, 0
        """Up to where the other end had this direction, as it said with its last data, and when that was:
        what is missing from there on reached it later."""
        self.last_ns = 0
        self.pending: list[tuple[int, Segment, int]] = []
        """Segments behind a hole, in order of seq: seq, segment, and `later` when it came."""
        self.pending_bytes = 0
        self.since_ns = 0
        """When the first hole was noticed, in capture time and in `later`."""
        self.since_later = 0
        self.later = 0
        """Packets of the connection since the first of the holes that are open now."""
        self.fin = -1
        self.fin_frames: Frames = ()
        self.finished = False

    def carried(self) -> int:
        """Return how many bytes this direction has carried so far; 0 where its begin was not seen."""
        return (self.next_seq - self.start) & MASK if self.start >= 0 else 0

    def is_opened_by(self, segment: Segment, first: int) -> bool:
        """Return whether a SYN is of this connection and of no later one; *first* is the byte behind it."""
        if self.next_seq < 0:
            return not self.finished
        if self.start >= 0:
            again = self.finished and self.peer.finished and segment.time_ns - self.last_ns >= COPY_NS
            return self.start == first and not again
        # Data came before its SYN.
        distance = ahead(self.next_seq, first)
        return 0 <= distance < 65536 and segment.time_ns - self.connection.first_ns < HOLE_NS

    def is_resumed_by(self, segment: Segment) -> bool:
        """Return whether a later capture goes on with a connection of an earlier one, with a jump."""
        return (
            not self.finished
            and self.next_seq >= 0
            and segment.seq != self.next_seq
            and segment.frames[0][0] not in self.connection.captures
            and segment.time_ns - max(self.last_ns, self.peer.last_ns) > RESUME_NS
        )

    def is_replaced_by(self, segment: Segment) -> bool:
        """Return whether data after the end belongs to another connection whose SYN was lost."""
        if not segment.payload:
            return False
        if self.next_seq < 0:
            return True
        return not -ABSURD_BYTES < ahead(segment.seq, self.next_seq) <= 1


class Opening:
    """A connection whose SYN was seen and not answered yet."""

    __slots__ = ("attempts", "frames", "half", "ip_id", "last_ns")

    def __init__(self, half: Half, segment: Segment) -> None:
        self.half = half
        self.last_ns = segment.time_ns
        self.ip_id = segment.ip_id
        """Of the last SYN: the same packet seen twice is one attempt."""
        self.frames = segment.frames
        self.attempts = 1


def ahead(a: int, b: int) -> int:
    """Return how far sequence number *a* is ahead of *b*; negative when behind (RFC 9293 §3.4)."""
    distance = (a - b) & MASK
    return distance - (MASK + 1) if distance >= _WRAP else distance


def endpoints(flow: bytes) -> tuple[Endpoint, Endpoint]:
    if len(flow) == 12:
        both = int.from_bytes(flow[8:], "big")
        return (
            Endpoint(socket.inet_ntoa(flow[:4]), both >> 16),
            Endpoint(socket.inet_ntoa(flow[4:8]), both & 0xFFFF),
        )
    size = 4 if len(flow) < 36 else 16
    family = socket.AF_INET if size == 4 else socket.AF_INET6
    source, destination = flow[:size], flow[size : 2 * size]
    ports = flow[2 * size : 2 * size + 4]
    return (
        Endpoint(socket.inet_ntop(family, source), int.from_bytes(ports[:2], "big")),
        Endpoint(socket.inet_ntop(family, destination), int.from_bytes(ports[2:], "big")),
    )


def reverse(flow: bytes) -> bytes:
    if len(flow) == 12:
        return flow[4:8] + flow[:4] + flow[10:] + flow[8:10]
    size = 4 if len(flow) < 36 else 16
    at = 2 * size
    return flow[size:at] + flow[:size] + flow[at + 2 : at + 4] + flow[at : at + 2] + flow[at + 4 :]
