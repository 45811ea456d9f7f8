"""The bytes of each direction in order: what is next, what waits behind a hole, and what is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from tracer.model import Capture, Closed, Data, Frames, Gap, Segment
from tracer.reassembly.halves import ABSURD_BYTES, ACK, HOLE_NS, MASK, Event, Half, ahead, awaits

__all__ = ["Ordering"]

HOLE_PACKETS = 48
"""A hole is lost after this many later packets of its connection (Arkime gives up after 256)..."""
LATE_NS = 100_000_000
"""... but not before this time: so late a packet may be captured."""
LOOK_AHEAD = 64
"""So many segments that wait are asked whether they come after one that came late."""
PENDING_BYTES = 4 << 20
"""Limit of the bytes that wait behind holes of one direction. A receive window is rarely larger."""
PENDING_TOTAL_BYTES = 64 << 20
"""Limit of the bytes that wait behind the holes of all connections."""


class Ordering:
    """Puts the bytes of directions in order, and gives up what is lost.

    Duplicates, reordered segments and gaps are counted in *captures*.
    """

    def __init__(self, captures: Sequence[Capture]) -> None:
        self._captures = captures
        self.holes: dict[Half, None] = {}
        """Directions with an open hole: a set that keeps its order."""
        self._pending_total = 0

    # --- data that is not simply the next ---

    def accept(self, segment: Segment, half: Half) -> list[Event]:
        """Deliver, hold or drop the data of *segment* by its place relative to the expected byte."""
        size = len(segment.payload) + segment.missing_bytes
        by = ahead(segment.seq, half.next_seq)
        if not -ABSURD_BYTES <= by <= ABSURD_BYTES:
            return self._stray(segment, half)
        if by == 1 and half.probed:
            # The first packet was a keep-alive probe after all, so this byte is the expected one.
            half.next_seq, by = segment.seq, 0
        counters = self._captures[segment.frames[0][0]]
        if by + size <= 0:
            if half.start < 0 and _is_before_all(segment, half):
                return [self._passed(segment, half, size)]
            # One byte behind is a keep-alive probe (RFC 9293 §3.8.4), not a retransmission.
            if not (size == 1 and by == -1):
                counters.duplicate_segments += 1
            return []
        if by > 0 or _awaits(segment, half):
            self._hold(segment, half)
            # Over the limit, the hole of the direction that grew is given up, not the oldest of all.
            if half.pending_bytes > PENDING_BYTES or self._pending_total > PENDING_TOTAL_BYTES:
                return self._give_up(half, segment.time_ns)
            return []
        if half in self.holes or (half.peer.pending and _awaits(half.peer.pending[0][1], half.peer)):
            counters.reordered_segments += 1
        events = self._deliver(segment, half)
        events += self._drain(half)
        return events

    def _passed(self, segment: Segment, half: Half, size_bytes: int) -> Gap:
        """Return a gap for the bytes of *segment*, which came too late: what follows was handed on before."""
        half.first_seq = segment.seq
        gap = self._gap(half, size_bytes, segment.time_ns, segment.frames)
        return gap._replace(since_ns=half.connection.first_ns, passed=True)

    def _stray(self, segment: Segment, half: Half) -> list[Event]:
        """Continue a stream at a far-off sequence number, with a gap of unknown size.

        Either the ports were used again and the SYN was not captured, or the number is damaged. A single
        damaged number must not cost the connection, so a segment that fits the place before the jump takes
        the stream back there.
        """
        events: list[Event] = []
        while half.pending:
            events += self._give_up(half, segment.time_ns)
        if half.finished:
            # The FIN was among the segments that waited.
            return events + self.late(segment, half)
        before, half.strayed = half.strayed, half.next_seq
        back = before >= 0 and -ABSURD_BYTES <= ahead(segment.seq, before) <= ABSURD_BYTES
        events.append(self._gap(half, 0, segment.time_ns, segment.frames))
        half.next_seq = before if back else segment.seq
        return events + self.accept(segment, half)

    def late(self, segment: Segment, half: Half) -> list[Event]:
        """Drop data of a direction that has ended, and count it if it is a retransmission."""
        # Data behind the end was not accepted by the receiver either.
        if ahead(segment.seq, half.next_seq) + len(segment.payload) + segment.missing_bytes <= 0:
            self._captures[segment.frames[0][0]].duplicate_segments += 1
        return []

    def _deliver(self, segment: Segment, half: Half) -> list[Event]:
        """Return the new part of *segment*, and a gap for the bytes that the snap length cut."""
        events: list[Event] = []
        # Where segments overlap, the bytes that came first are kept: they were handed on already.
        behind = -ahead(segment.seq, half.next_seq)
        payload = segment.payload[behind:] if behind else segment.payload
        # The cut bytes lie behind the payload; the overlap may reach into them.
        missing = segment.missing_bytes - max(0, behind - len(segment.payload))
        half.last_ns = segment.time_ns
        half.probed = False
        if segment.flags & ACK and segment.ack == half.peer.next_seq:
            half.peer.lacked_seq, half.peer.lacked_ns = segment.ack, segment.time_ns
        if payload:
            waits = half.pending or half.peer.pending
            time_ns = _sent_ns(segment, half) if waits else segment.time_ns
            events.append(Data(half.connection, half.direction, time_ns, payload, segment.frames))
        if missing > 0:
            events.append(self._gap(half, missing, segment.time_ns, segment.frames))
        half.next_seq = (segment.seq + len(segment.payload) + segment.missing_bytes) & MASK
        return events

    def _hold(self, segment: Segment, half: Half) -> None:
        """Keep *segment* behind a hole, in order of sequence number."""
        pending, seq = half.pending, segment.seq
        size = len(segment.payload) + segment.missing_bytes
        # From the end: segments behind a hole mostly come in order.
        at = len(pending)
        while at and ahead(pending[at - 1][0], seq) > 0:
            at -= 1
        if at and pending[at - 1][0] == seq and len(pending[at - 1][1].payload) >= size:
            self._captures[segment.frames[0][0]].duplicate_segments += 1
            return
        self.wait(half, segment.time_ns)
        pending.insert(at, (seq, segment, half.later_packets))
        half.pending_bytes += size
        self._pending_total += size

    def wait(self, half: Half, time_ns: int) -> None:
        """Start the clock of a hole, in time and in packets; an open hole keeps its own."""
        if half not in self.holes:
            self.holes[half] = None
            half.since_ns, half.since_packets, half.later_packets = time_ns, 0, 0

    def _drain(self, half: Half) -> list[Event]:
        """Return the waiting data that is next now; either direction may have waited for the other."""
        events: list[Event] = []
        side, stuck = half, 0
        while stuck < 2:
            found = self._drain_one(side)
            events += found
            side, stuck = side.peer, 0 if found else stuck + 1
        return events

    def _drain_one(self, half: Half) -> list[Event]:
        """Return the waiting data of *half* that is next now."""
        events: list[Event] = []
        pending = half.pending
        if not pending and half not in self.holes:
            return events
        while pending and ahead(pending[0][0], half.next_seq) <= 0 and not _awaits(pending[0][1], half):
            events += self._take_first(half)
        if pending:
            # The age of the next hole counts from the first segment that came behind it.
            half.since_ns = min(segment.time_ns for _, segment, _ in pending)
            half.since_packets = min(later_packets for _, _, later_packets in pending)
        elif half.fin < 0 or half.fin == half.next_seq:
            self.holes.pop(half, None)
        return events + self.finish(half, events[-1].time_ns, events[-1].time_ns) if events else events

    def _take_first(self, half: Half) -> list[Event]:
        """Return the events of the first segment that waits, which is next now."""
        seq, segment, _ = half.pending.pop(0)
        size = len(segment.payload) + segment.missing_bytes
        half.pending_bytes -= size
        self._pending_total -= size
        if ahead(seq, half.next_seq) + size > 0:
            return self._deliver(segment, half)
        self._captures[segment.frames[0][0]].duplicate_segments += 1
        return []

    def _gap(self, half: Half, size_bytes: int, time_ns: int, frames: Frames = ()) -> Gap:
        """Return a gap at the expected byte, and count it; *size_bytes* 0 is an unknown size."""
        connection = half.connection
        capture = self._captures[frames[0][0] if frames else connection.captures[0]]
        capture.gaps += 1
        capture.lost_bytes += size_bytes
        connection.gaps += 1
        since_ns = half.last_ns
        # The other end sent data while it lacked these bytes, so they arrived there later. The narrower
        # interval helps decoders to pair messages around the hole.
        if half.lacked_seq == half.next_seq and half.lacked_ns < time_ns:
            since_ns = max(since_ns, half.lacked_ns)
        return Gap(connection, half.direction, time_ns, size_bytes, since_ns, frames)

    # --- holes that are lost, and the end ---

    def count_packet(self, half: Half, time_ns: int) -> list[Event]:
        """Count a packet of *half* for the holes of its connection; return what is due by it."""
        # Packets of either direction count: the other end's packets, too, show that time has passed.
        is_due = False
        for side in (half, half.peer):
            if side in self.holes:
                side.later_packets += 1
                is_due = is_due or _has_waited(side, time_ns)
        return self.give_up_all(half, time_ns, lambda side: _has_waited(side, time_ns)) if is_due else []

    def give_up_old(self, time_ns: int) -> list[Event]:
        """Return the events of the holes that are due at *time_ns* by the time alone."""
        events: list[Event] = []
        for half in [h for h in self.holes if time_ns - h.since_ns >= HOLE_NS]:
            events += self.give_up_all(half, time_ns, lambda side: time_ns - side.since_ns >= HOLE_NS)
        return events

    def give_up_all(self, half: Half, time_ns: int, is_due: Callable[[Half], bool]) -> list[Event]:
        """Give up all due holes of both directions, in the order of arrival of the data behind them.

        One direction after the other would put all requests before all responses.
        """
        events: list[Event] = []
        while due := [side for side in (half, half.peer) if side in self.holes and is_due(side)]:
            events += self._give_up(min(due, key=_behind_hole_ns), time_ns)
        return events

    def _give_up(self, half: Half, time_ns: int) -> list[Event]:
        """Declare the first hole of *half* lost and return the gap and the data behind it."""
        events: list[Event] = []
        if half.pending:
            seq, segment, _ = half.pending[0]
            if ahead(seq, half.next_seq) > 0:
                events.append(self._gap(half, ahead(seq, half.next_seq), time_ns, segment.frames))
                half.next_seq = seq
            else:
                # It has waited for bytes of the other end. What follows those tells whether they are lost.
                half.peer.excused = segment.ack
            events += self._drain(half)
        else:
            # Only the FIN showed this hole: nothing waits behind it.
            self.holes.pop(half, None)
            if half.fin >= 0 and half.fin != half.next_seq:
                lost = ahead(half.fin, half.next_seq)
                events.append(self._gap(half, lost if 0 < lost <= ABSURD_BYTES else 0, time_ns))
                half.next_seq = half.fin
        return events + self.finish(half, time_ns)

    def finish(self, half: Half, time_ns: int, data_ns: int = 0) -> list[Event]:
        """Close the direction if all bytes up to its FIN were handed on or declared lost.

        It ended with its FIN, or with the data from *data_ns* if that came late, whenever this is noticed.
        """
        if half.fin < 0 or half.finished or half.pending or half.fin != half.next_seq:
            return []
        half.finished = True
        self.holes.pop(half, None)
        # The FIN takes one sequence number (RFC 9293 section 3.4).
        half.next_seq = (half.fin + 1) & MASK
        half.last_ns = time_ns
        ended_ns = max(half.fin_ns, data_ns)
        return [Closed(half.connection, ended_ns, "fin", half.direction, half.fin_frames)]

    def tail(self, half: Half, time_ns: int) -> list[Event]:
        """Return a gap for bytes that the other end acknowledged and the capture lacks."""
        if half.finished or half.next_seq < 0 or half.acked < 0:
            return []
        lost = ahead(half.acked, half.next_seq)
        # A distance of 1 is the sequence number of the FIN, not a byte.
        if 1 < lost < ABSURD_BYTES:
            half.next_seq = half.acked
            return [self._gap(half, lost, time_ns)]
        return []


def _is_before_all(segment: Segment, half: Half) -> bool:
    """Return whether *segment*, of a connection joined in the middle, lies before all that was seen of it.

    So a packet that was captured late shows. Much later it is a retransmission of what nobody has read.
    """
    return (
        half.first_seq >= 0
        and ahead(segment.seq, half.first_seq) < 0
        and len(segment.payload) + segment.missing_bytes > 1
        and segment.time_ns - half.connection.first_ns < HOLE_NS
    )


def _sent_ns(segment: Segment, half: Half) -> int:
    """Return when *segment* was sent at the latest, by what was captured before it and comes after it.

    That is what waits behind it, and what acknowledges it. Then it was captured late, or it is a copy of one
    that was lost on its way; its own time would put a question behind its answer.
    """
    end = (segment.seq + len(segment.payload) + segment.missing_bytes) & MASK
    later = [s.time_ns for _, s, _ in islice(half.pending, LOOK_AHEAD)]
    later += [s.time_ns for _, s, _ in islice(half.peer.pending, LOOK_AHEAD) if ahead(s.ack, end) >= 0]
    return min(segment.time_ns, min(later, default=segment.time_ns + 1) - 1)


def _awaits(segment: Segment, half: Half) -> bool:
    """Return whether *segment* comes after bytes of the other end that were not handed on yet."""
    return segment.flags & ACK != 0 and awaits(segment.ack, half.peer)


def _behind_hole_ns(half: Half) -> int:
    """Return the capture time of the data behind the first hole of *half*."""
    return half.pending[0][1].time_ns if half.pending else half.since_ns


def _has_waited(half: Half, time_ns: int) -> bool:
    """Return whether a hole of *half* is due by the packets since, or by the bytes that wait behind it."""
    if half.pending_bytes > PENDING_BYTES:
        return True
    return half.later_packets - half.since_packets >= HOLE_PACKETS and time_ns - half.since_ns >= LATE_NS
