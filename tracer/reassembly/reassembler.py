"""The reassembler of all TCP connections. The package's docstring describes its strategy.

`read` handles the next in-order segment of a healthy connection by itself. Every other segment goes through
`_receive_slowly`: it opens and ends connections. `ordering.py` keeps segments behind holes, `connections.py`
knows which connections are there and which are to be forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Capture,
    Closed,
    Connection,
    Data,
    Frames,
    Segment,
    SegmentFields,
)
from tracer.reassembly.connections import Attempts, Connections, note_capture
from tracer.reassembly.halves import (
    ACK,
    FIN,
    HOLE_NS,
    MASK,
    RST,
    SYN,
    Event,
    Half,
    Opening,
    awaits,
    endpoints,
)
from tracer.reassembly.ordering import Ordering

__all__ = ["Reassembler"]

UNANSWERED_NS = 3_000_000_000
"""A SYN is unanswered after this time; Linux has repeated it twice by then."""
SWEEP_NS = 1_000_000_000
"""Interval of capture time between two sweeps."""
FORGET_EVERY_NS = 10_000_000_000
"""Interval between two searches for connections to forget; a search walks over all of them."""


class Reassembler:
    """Turns segments of all connections, in time order, into Data, Gap and Closed.

    Without a SYN, the end whose port is in *server_ports* is the server. If neither or both are, the guess is
    marked in `Connection.certain`, and a decoder may correct it with `turn`. Duplicates, reordered segments
    and gaps are counted in *captures*.
    """

    def __init__(self, captures: Sequence[Capture], server_ports: Collection[int] = ()) -> None:
        self._connections = Connections(server_ports)
        self._attempts = Attempts()
        self._ordering = Ordering(captures)
        self._swept_ns = 0
        self._sweep_ns = SWEEP_NS
        """Capture time of the next sweep."""

    @property
    def evicted(self) -> int:
        """Connections forgotten because there were too many."""
        return self._connections.evicted

    @property
    def unanswered(self) -> int:
        """SYNs forgotten because there were too many."""
        return self._attempts.forgotten

    def turn(self, connection: Connection) -> None:
        """Swap client and server of *connection*; no effect once its server is certain."""
        self._connections.turn(connection)

    # --- the hot path ---

    def read(self, batches: Iterable[Iterable[SegmentFields]]) -> Iterator[Event]:
        """Yield the events that the segments of *batches* complete, before the next segment is taken.

        This is a generator, not a method called for each segment, because most segments complete nothing.
        """
        # Locals, and `tuple.__new__` in place of the constructor: this loop runs once for each segment.
        halves, openings, new = self._connections.halves, self._connections.openings, tuple.__new__
        holes = self._ordering.holes
        for segment in chain.from_iterable(batches):
            time_ns, flow, seq, ack, flags, payload, missing, _, frames, _, _ = segment
            half = halves.get(flow)
            # The fast path: a known direction, ACK without FIN, SYN or RST (23 masks these four; PSH may be
            # set), no sweep due, no hole on either side, nothing cut by the snap length, no FIN before.
            if (
                half is not None
                and flags & 23 == ACK
                and time_ns < self._sweep_ns
                and (not holes or not (half in holes or half.peer in holes))
                and not missing
                and not half.finished
            ):
                if half.next_seq == seq:
                    peer = half.peer
                    peer.acked = ack
                    half.last_ns = time_ns
                    if openings:
                        openings.pop(half.connection.number, None)
                    if not payload:
                        continue
                    # It acknowledges what the capture has not shown yet: that was captured late, or lost.
                    if ack != peer.next_seq and awaits(ack, peer):
                        yield from self._receive_slowly(Segment._make(segment), half)
                        continue
                    half.next_seq = (seq + len(payload)) & MASK
                    connection = half.connection
                    # The decoder has no use for the server's bytes (`direction` 1) now. Not skipped while a
                    # client's segment waits behind a hole: these bytes may answer what is in it.
                    if connection.deaf and half.direction and not half.peer.pending:
                        continue
                    yield new(Data, (connection, half.direction, time_ns, payload, frames))
                    continue
                # A bare ACK whose number is not the expected one: a keep-alive probe without data, or an ACK
                # that came out of order. It carries no bytes, so its number does not matter.
                if not payload and half.next_seq >= 0:
                    half.peer.acked = ack
                    continue
            yield from self._receive_slowly(Segment._make(segment), half)

    # --- everything else ---

    def _receive_slowly(self, segment: Segment, half: Half | None) -> list[Event]:
        """Return the events of a segment that is not on the fast path. The order of the checks matters."""
        events: list[Event] = []
        if segment.time_ns >= self._sweep_ns or self._connections.is_full():
            events += self._sweep(segment.time_ns)
            # The sweep may have forgotten this connection.
            half = self._connections.halves.get(segment.flow)
        if half is None:
            half = self._recall(segment.flow)
            if half is None and segment.flags & (SYN | RST | ACK) == SYN:
                self._attempts.add(self._connections.next_number(), segment, self._connections.halves)
                return events
        if segment.flags & SYN:
            self._synchronise(segment, half, events)
            return events
        half = self._current(segment, half, events)
        if half is not None:
            half.connection.seen |= 1 << half.direction
            note_capture(half.connection, segment)
            events += self._reset(segment, half) if segment.flags & RST else self._take(segment, half)
        return events

    def _current(self, segment: Segment, half: Half | None, events: list[Event]) -> Half | None:
        """Return the direction that *segment* belongs to, of a new connection if it does not continue *half*.

        None if it does not show that a connection exists.
        """
        if half is not None and half.is_resumed_by(segment):
            # The recording was stopped in between. The bytes of the pause were never captured, so this is
            # the end of one capture and a join in the next one, not a hole.
            events += self._end(half, segment.time_ns, "end")
            half = self._connections.open(segment, joined=True)
        if half is not None and not (half.finished and half.is_replaced_by(segment)):
            return half
        if half is not None:
            events += self._end(half, segment.time_ns, "reused")
        # A reset, or a packet without ACK and without data, shows no connection.
        if segment.flags & RST or not (segment.payload or segment.missing_bytes or segment.flags & ACK):
            return None
        return self._connections.open(segment, joined=True)

    def _take(self, segment: Segment, half: Half) -> list[Event]:
        """Return the events of a segment of *half* that is neither SYN nor RST."""
        events: list[Event] = []
        time_ns, ordering = segment.time_ns, self._ordering
        size_bytes = len(segment.payload) + segment.missing_bytes
        if segment.flags & ACK:
            # Also for an ACK of the client: it acknowledges a SYN-ACK that the capture may lack.
            half.peer.acked = segment.ack
            self._connections.openings.pop(half.connection.number, None)
        if half.next_seq < 0:
            half.next_seq = half.first_seq = segment.seq
            half.probed = half.connection.joined
        if size_bytes:
            events += ordering.late(segment, half) if half.finished else ordering.accept(segment, half)
        if segment.flags & FIN and half.fin < 0 and not half.finished:
            half.fin = (segment.seq + size_bytes) & MASK
            half.fin_frames = segment.frames
            half.fin_ns = segment.time_ns
            # Bytes before the FIN are missing and no data behind them has come: the FIN shows the hole.
            if half.fin != half.next_seq and not half.pending:
                ordering.wait(half, time_ns)
        if ordering.holes:
            events += ordering.count_packet(half, time_ns)
        events += ordering.finish(half, time_ns)
        return events

    def _synchronise(self, segment: Segment, half: Half | None, events: list[Event]) -> None:
        """Open a connection by its SYN or SYN-ACK, or record a repeated one."""
        # The SYN takes one sequence number (RFC 9293 section 3.4).
        first = (segment.seq + 1) & MASK
        if half is not None and half.is_opened_by(segment, first):
            if half.connection.joined and not half.finished:
                # Data was captured before its SYN, so the connection began within the capture after all.
                half.connection.joined = False
            opening = self._connections.openings.get(half.connection.number)
            if opening is not None and not segment.flags & ACK:
                # A repeated SYN has a new IP identification, a copy by a second capture point the same one.
                # 0 says nothing: IPv6, or a sender that sets none.
                if not segment.ip_id or segment.ip_id != opening.ip_id:
                    opening.attempts += 1
                opening.last_ns, opening.ip_id = segment.time_ns, segment.ip_id
                return
        elif half is not None:
            events += self._end(half, segment.time_ns, "reused")
            half = self._connections.open(segment, joined=False)
        else:
            half = self._connections.open(segment, joined=False)
        self._begin(segment, half)

    def _begin(self, segment: Segment, half: Half) -> None:
        """Take a SYN or SYN-ACK that is the first one of *half*, or a copy of it."""
        first = (segment.seq + 1) & MASK
        half.connection.seen |= 1 << half.direction
        note_capture(half.connection, segment)
        if half.next_seq < 0:
            half.next_seq = first
        half.start = first
        half.last_ns = segment.time_ns
        connection = half.connection
        if segment.flags & ACK:
            half.peer.acked = segment.ack
            if half.peer.next_seq < 0:
                # The SYN itself was not captured; its answer names the client's first byte.
                half.peer.next_seq = half.peer.start = segment.ack
            # The sender of a SYN-ACK is the server, whatever was guessed from the ports.
            if half.direction == TO_SERVER and not connection.certain:
                self._connections.turn(connection)
            connection.certain = True
            self._connections.openings.pop(connection.number, None)
            return
        if half.direction == TO_CLIENT and not connection.certain:
            self._connections.turn(connection)
        connection.certain = True
        if half.peer.next_seq < 0 and not half.finished:
            self._connections.openings[connection.number] = Opening(half, segment)

    def _recall(self, flow: bytes) -> Half | None:
        """Return the direction *flow* of a connection of which only the SYN was seen, now that more is."""
        found = self._attempts.take(flow)
        if found is None:
            return None
        number, segment = found
        half = self._connections.open(segment, joined=False, number=number)
        self._begin(segment, half)
        return half if segment.flow == flow else half.peer

    # --- ends ---

    def _reset(self, segment: Segment, half: Half) -> list[Event]:
        """Close both directions by a RST: *refused* if it answers the SYN, else *reset*."""
        connection = half.connection
        opening = self._connections.openings.pop(connection.number, None)
        if half.finished and half.peer.finished:
            return []
        if segment.flags & ACK:
            # It may acknowledge what the capture lacks, such as the answer.
            half.peer.acked = segment.ack
        # If data waits behind a hole, the server did answer, but its SYN-ACK is not in the capture.
        if opening is not None and half.direction == TO_CLIENT and not opening.half.pending:
            half.finished = half.peer.finished = True
            return [
                Closed(
                    connection,
                    segment.time_ns,
                    "refused",
                    TO_CLIENT,
                    opening.frames + segment.frames,
                    opening.attempts,
                )
            ]
        return self._end(half, segment.time_ns, "reset", segment.frames)

    def _end(self, half: Half, time_ns: int, how: str, frames: Frames = ()) -> list[Event]:
        """Close both directions, after handing on the data that waits behind holes."""
        events: list[Event] = []
        opening = self._connections.openings.pop(half.connection.number, None)
        if half.finished and half.peer.finished:
            return events
        asker = opening.half if opening is not None else half
        asked = opening is not None and asker.peer.next_seq < 0 and asker.next_seq == asker.start
        # If data waits behind a hole, the server did answer, but its SYN-ACK is not in the capture.
        if opening is not None and asked and not asker.pending:
            half.finished = half.peer.finished = True
            # A later packet of these ports starts a new connection.
            asker.next_seq = asker.start = -1
            return [
                Closed(half.connection, time_ns, "unanswered", TO_SERVER, opening.frames, opening.attempts)
            ]
        events += self._ordering.give_up_all(half, time_ns, lambda side: True)
        for side in (half, half.peer):
            events += self._ordering.tail(side, time_ns)
            side.finished = True
        events.append(Closed(half.connection, time_ns, how, half.direction, frames))
        return events

    def _sweep(self, time_ns: int) -> list[Event]:
        """Give up old holes, end unanswered SYNs, and forget old connections, by the time alone."""
        connections = self._connections
        events = self._ordering.give_up_old(time_ns)
        for opening in [o for o in connections.openings.values() if time_ns - o.last_ns >= UNANSWERED_NS]:
            events += self._end(opening.half, time_ns, "unanswered")
        events += self._give_up_attempts(time_ns, UNANSWERED_NS)
        if connections.is_full():
            events += self._lighten(time_ns)
        if time_ns // FORGET_EVERY_NS != self._swept_ns // FORGET_EVERY_NS:
            events += self._forget(time_ns)
        self._swept_ns, self._sweep_ns = time_ns, time_ns + SWEEP_NS
        return events

    def _forget(self, time_ns: int) -> list[Event]:
        """End connections that were idle for long, and forget those that are over or too many."""
        connections = self._connections
        events: list[Event] = []
        for half in connections.idle(time_ns):
            events += self._end(half, time_ns, "idle")
        for flow, half in connections.too_many():
            if not (half.finished and half.peer.finished):
                connections.evicted += 1
                events += self._end(half, time_ns, "idle")
            connections.drop(flow)
        return events

    def _lighten(self, time_ns: int) -> list[Event]:
        """Forget connections of a flood. What one of them still says opens it anew, as joined."""
        connections = self._connections
        events: list[Event] = []
        for flow, half in connections.light():
            if not (half.finished and half.peer.finished):
                connections.evicted += 1
                waits = half.connection.number in connections.openings and not half.pending
                if waits and not half.peer.pending:
                    # Whether it would be answered is not known yet.
                    del connections.openings[half.connection.number]
                else:
                    events += self._end(half, time_ns, "idle")
                for side in (half, half.peer):
                    self._ordering.holes.pop(side, None)
            connections.drop_both(flow)
        return events

    def _give_up_attempts(self, time_ns: int, after_ns: int) -> list[Event]:
        """Return those of the SYNs alone that are unanswered for *after_ns*."""
        return [
            _unanswered(number, segment, time_ns) for number, segment in self._attempts.due(time_ns, after_ns)
        ]

    def expire(self, time_ns: int) -> list[Event]:
        """Return the events that are due at *time_ns* without a packet; a live run calls it when idle."""
        return self._sweep(time_ns) if time_ns - self._swept_ns >= SWEEP_NS else []

    def flush(self, time_ns: int) -> Iterator[Event]:
        """Yield the remaining events when the capture ends at *time_ns*."""
        # The answer to a later one may just be outside of the capture.
        yield from self._give_up_attempts(time_ns, HOLE_NS)
        self._attempts.clear()
        for half in list(self._connections.halves.values()):
            if half.direction != TO_SERVER:
                continue
            opening = self._connections.openings.get(half.connection.number)
            waits = half.pending or half.peer.pending
            if opening is not None and time_ns - opening.last_ns < HOLE_NS and not waits:
                # The capture ends less than a second after the SYN: the answer may have come later.
                self._connections.openings.pop(half.connection.number)
                half.finished = half.peer.finished = True
            yield from self._end(half, time_ns, "end")
        self._connections.halves.clear()


def _unanswered(number: int, segment: Segment, time_ns: int) -> Closed:
    """Return that nothing ever followed the SYN *segment*."""
    client, server = endpoints(segment.flow)
    connection = Connection(
        number, client, server, segment.time_ns, vlan=segment.vlan, interface=segment.interface, seen=1
    )
    note_capture(connection, segment)
    return Closed(connection, time_ns, "unanswered", TO_SERVER, segment.frames, 1)
