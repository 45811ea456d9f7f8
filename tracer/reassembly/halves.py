"""The state of one direction of a TCP connection, and arithmetic on sequence numbers."""

from __future__ import annotations

import socket

from tracer.model import Closed, Connection, Data, Endpoint, Frames, Gap, Segment

__all__ = [
    "ABSURD_BYTES",
    "ACK",
    "FIN",
    "HOLE_NS",
    "MASK",
    "RST",
    "SYN",
    "Event",
    "Half",
    "Opening",
    "ahead",
    "awaits",
    "endpoints",
]

Event = Data | Gap | Closed

FIN, SYN, RST, ACK = 1, 2, 4, 16

HOLE_NS = 1_000_000_000
"""A hole is declared lost when it has been open for this long, in capture time."""
RESUME_NS = 2_000_000_000
"""A longer pause between two captures of one wire means that the recording was stopped in between."""
COPY_NS = 50_000_000
"""Copies of one SYN come within this time; a later SYN with the same number opens a new connection."""
# 256 MiB. A TCP window holds at most 1 GiB (RFC 7323 section 2.3), and in practice a few MiB.
ABSURD_BYTES = 1 << 28
"""A jump of the sequence number by more than this, in either direction, is not a hole: another stream
uses the ports, or the number is damaged."""
MASK = 0xFFFFFFFF
# Half of the number space: a distance of this or more counts as backwards.
_WRAP = 0x80000000


class Half:
    """The state of one direction of a connection."""

    # There are two for each connection, up to 400 000 in all (`MAX_CONNECTIONS`).
    __slots__ = (
        "acked",
        "connection",
        "direction",
        "excused",
        "fin",
        "fin_frames",
        "fin_ns",
        "finished",
        "first_seq",
        "lacked_ns",
        "lacked_seq",
        "last_ns",
        "later_packets",
        "next_seq",
        "peer",
        "pending",
        "pending_bytes",
        "probed",
        "since_ns",
        "since_packets",
        "start",
        "strayed",
    )

    def __init__(self, connection: Connection, direction: int) -> None:
        self.connection = connection
        self.direction = direction
        self.peer: Half = self
        self.next_seq = -1
        """Sequence number of the next expected byte; -1 before the first packet."""
        self.start = -1
        """Sequence number of the first byte, from the SYN or the SYN-ACK; -1 while neither was seen."""
        self.first_seq = -1
        """Sequence number of the first packet of a direction that was joined in the middle; -1 for others."""
        self.probed = False
        """`next_seq` is a guess from the first packet of a connection that began before the capture.
        That packet may be a keep-alive probe, whose number is one too low."""
        self.strayed = -1
        """`next_seq` before the last absurd jump; -1 if there was none."""
        self.acked = -1
        """Latest acknowledgement number that the other end sent for this direction."""
        self.excused = -1
        """Up to this number the other end's data waits for no bytes any more: it has waited in vain."""
        self.lacked_seq, self.lacked_ns = -1, 0
        """Acknowledgement number and time of the other end's last data that acknowledged exactly the
        bytes seen here. Bytes from this number on reached the other end after this time."""
        self.last_ns = 0
        """Capture time of the last packet that carried this direction on."""
        self.pending: list[tuple[int, Segment, int]] = []
        """Segments behind a hole, in order of seq: (seq, segment, `later_packets` at its arrival)."""
        self.pending_bytes = 0
        self.since_ns = 0
        """Capture time at which the first open hole was noticed."""
        self.since_packets = 0
        """`later_packets` at that moment."""
        self.later_packets = 0
        """Packets of the connection since the first of the holes that are open now."""
        self.fin = -1
        """Sequence number of the FIN; -1 before it was seen."""
        self.fin_frames: Frames = ()
        self.fin_ns = 0
        self.finished = False
        """The end of this direction was reported."""

    def carried(self) -> int:
        """Return how many bytes this direction has carried so far; 0 where its begin was not seen."""
        return (self.next_seq - self.start) & MASK if self.start >= 0 else 0

    def is_opened_by(self, segment: Segment, first: int) -> bool:
        """Return whether the SYN in *segment* opens this connection, not a later one on the same ports.

        *first* is the sequence number of the byte that follows the SYN.
        """
        if self.next_seq < 0:
            return not self.finished
        if self.start >= 0:
            # A host may choose the same initial number again. A copy of the SYN by a second capture point
            # comes within milliseconds, a new connection does not.
            again = self.finished and self.peer.finished and segment.time_ns - self.last_ns >= COPY_NS
            return self.start == first and not again
        # Data was captured before its SYN. 64 KiB is the largest window before scaling is agreed
        # (RFC 7323 section 2.2), and a SYN that is more than a second late is another connection's.
        distance = ahead(self.next_seq, first)
        return 0 <= distance < 65536 and segment.time_ns - self.connection.first_ns < HOLE_NS

    def is_resumed_by(self, segment: Segment) -> bool:
        """Return whether *segment* continues this connection in a later capture, with a hole in between."""
        # All of it must hold: the number jumps, this capture has not shown the connection yet, and both
        # directions were silent for the pause. A second capture point of the same time fails the last.
        return (
            not self.finished
            and self.next_seq >= 0
            and segment.seq != self.next_seq
            and segment.frames[0][0] not in self.connection.captures
            and segment.time_ns - max(self.last_ns, self.peer.last_ns) > RESUME_NS
        )

    def is_replaced_by(self, segment: Segment) -> bool:
        """Return whether *segment*, seen after the end, belongs to a new connection whose SYN is missing."""
        if not segment.payload:
            return False
        if self.next_seq < 0:
            return True
        # Behind `next_seq` or one byte ahead (the FIN takes a number): a retransmission of this connection.
        return not -ABSURD_BYTES < ahead(segment.seq, self.next_seq) <= 1


class Opening:
    """A connection whose SYN was seen and has no answer yet."""

    __slots__ = ("attempts", "frames", "half", "ip_id", "last_ns")

    def __init__(self, half: Half, segment: Segment) -> None:
        self.half = half
        self.last_ns = segment.time_ns
        self.ip_id = segment.ip_id
        """IP identification of the last SYN: two copies of one packet are one attempt."""
        self.frames = segment.frames
        self.attempts = 1


def ahead(a: int, b: int) -> int:
    """Return the distance in bytes from *b* to *a*, negative if *a* is behind.

    Source: RFC 9293 §3.4, arithmetic modulo 2**32.
    """
    distance = (a - b) & MASK
    return distance - (MASK + 1) if distance >= _WRAP else distance


def awaits(ack: int, peer: Half) -> bool:
    """Return whether data that acknowledges *ack* comes after bytes of *peer* that were not handed on yet."""
    # A distance of 1 is mostly the number of a FIN, not a byte.
    if peer.next_seq < 0 or peer.finished or not 1 < ahead(ack, peer.next_seq) < ABSURD_BYTES:
        return False
    return peer.excused < 0 or ahead(ack, peer.excused) > 0


def endpoints(flow: bytes) -> tuple[Endpoint, Endpoint]:
    """Return source and destination of *flow*; `Segment.flow` has the layout."""
    if len(flow) == 12:
        both = int.from_bytes(flow[8:], "big")
        return (
            Endpoint(socket.inet_ntoa(flow[:4]), both >> 16),
            Endpoint(socket.inet_ntoa(flow[4:8]), both & 0xFFFF),
        )
    # Two IPv4 addresses, two ports and a tunnel id make 16 bytes; two IPv6 addresses and two ports 36.
    size = 4 if len(flow) < 36 else 16
    family = socket.AF_INET if size == 4 else socket.AF_INET6
    source, destination = flow[:size], flow[size : 2 * size]
    ports = flow[2 * size : 2 * size + 4]
    return (
        Endpoint(socket.inet_ntop(family, source), int.from_bytes(ports[:2], "big")),
        Endpoint(socket.inet_ntop(family, destination), int.from_bytes(ports[2:], "big")),
    )
