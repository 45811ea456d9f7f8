"""The reassembler of all TCP connections. The package's docstring describes its strategy.

`read` handles the next in-order segment of a healthy connection by itself. Every other segment goes through
`_receive_slowly`, which opens connections, keeps segments behind holes, and ends directions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Capture,
    Closed,
    Connection,
    Data,
    Endpoint,
    Frames,
    Gap,
    Segment,
    SegmentFields,
    reverse_flow,
)
from tracer.reassembly.halves import ABSURD_BYTES, HOLE_NS, MASK, Half, Opening, ahead, endpoints

__all__ = ["Event", "Reassembler"]

Event = Data | Gap | Closed

FIN, SYN, RST, ACK = 1, 2, 4, 16

HOLE_PACKETS = 48
"""A hole is lost after this many later packets of its connection (Arkime gives up after 256)."""
PENDING_BYTES = 4 << 20
"""Limit of the bytes that wait behind holes of one direction. A receive window is rarely larger."""
PENDING_TOTAL_BYTES = 64 << 20
"""Limit of the bytes that wait behind the holes of all connections."""
UNANSWERED_NS = 3_000_000_000
"""A SYN is unanswered after this time; Linux has repeated it twice by then."""
FORGET_CLOSED_NS = 60_000_000_000
"""Late packets of a closed connection are recognised for this long (TIME_WAIT in Linux is 60 s)."""
FORGET_IDLE_NS = 2 * 3600 * 1_000_000_000
"""An idle connection is forgotten after two hours, the default of TCP keep-alive."""
MAX_CONNECTIONS = 100_000
MAX_ATTEMPTS = 32_768
"""SYNs whose answer is waited for, about 600 bytes each; more are a flood."""
LIGHT_BYTES = 32 << 20
"""What connections may take together that are over, or of which little was heard."""
LIGHT_CONNECTIONS = 16_384
"""So many new connections later, those are looked for again."""
LITTLE_BYTES = 512
"""A connection that carried no more, either way, and shows no role is of little interest: no login, no
request that tells its service."""
_COST_BYTES, _DECODER_BYTES = 1_200, 3_000
"""What a connection takes, and its decoder."""
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
        self._captures = captures
        self._ports = frozenset(server_ports)
        self._halves: dict[bytes, Half] = {}
        """Flow -> direction; each connection is here twice."""
        self._openings: dict[int, Opening] = {}
        """Connection number -> its unanswered SYN."""
        self._holes: dict[Half, None] = {}
        """Directions with an open hole: a set that keeps its order."""
        self._uncertain: dict[int, Half] = {}
        """Connection number -> one of its directions, while its server is a guess."""
        self._asked: dict[bytes, tuple[int, Segment]] = {}
        """Flow -> number of its connection and the SYN, as long as nothing else was seen of it."""
        self._room = 2 * LIGHT_CONNECTIONS
        """With more directions than this it is looked for connections to forget."""
        self._number = 0
        self._swept_ns = 0
        self._sweep_ns = SWEEP_NS
        """Capture time of the next sweep."""
        self._pending_total = 0
        self.evicted = 0
        """Connections forgotten because there were too many."""
        self.unanswered = 0
        """SYNs forgotten because there were too many."""

    # --- the hot path ---

    def read(self, batches: Iterable[Iterable[SegmentFields]]) -> Iterator[Event]:
        """Yield the events that the segments of *batches* complete, before the next segment is taken.

        This is a generator, not a method called for each segment, because most segments complete nothing.
        """
        # Locals, and `tuple.__new__` in place of the constructor: this loop runs once for each segment.
        halves, holes, openings, new = self._halves, self._holes, self._openings, tuple.__new__
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
                    half.peer.acked = ack
                    half.last_ns = time_ns
                    if openings:
                        openings.pop(half.connection.number, None)
                    if not payload:
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
        time_ns, flags = segment.time_ns, segment.flags
        if time_ns >= self._sweep_ns or len(self._halves) > self._room:
            events += self._sweep(time_ns)
            # The sweep may have forgotten this connection.
            half = self._halves.get(segment.flow)
        if half is None:
            half = self._recall(segment.flow)
            if half is None and flags & (SYN | RST | ACK) == SYN:
                self._number += 1
                self._asked[segment.flow] = (self._number, segment)
                if len(self._asked) > MAX_ATTEMPTS:
                    self._forget_attempts()
                return events
        if flags & SYN:
            self._synchronise(segment, half, events)
            return events
        if half is not None and half.is_resumed_by(segment):
            # The recording was stopped in between. The bytes of the pause were never captured, so this is
            # the end of one capture and a join in the next one, not a hole.
            events += self._end(half, time_ns, "end")
            half = self._open(segment, joined=True)
        if half is None or (half.finished and half.is_replaced_by(segment)):
            if half is not None:
                events += self._end(half, time_ns, "reused")
            # A reset, or a packet without ACK and without data, does not show that a connection exists.
            if flags & RST or not (segment.payload or segment.missing_bytes or flags & ACK):
                return events
            half = self._open(segment, joined=True)
        half.connection.seen |= 1 << half.direction
        self._note_capture(half.connection, segment)
        if flags & RST:
            events += self._reset(segment, half)
            return events
        if flags & ACK:
            # Also for an ACK of the client: it acknowledges a SYN-ACK that the capture may lack.
            half.peer.acked = segment.ack
            self._established(half.connection)
        if half.next_seq < 0:
            half.next_seq = segment.seq
            half.probed = half.connection.joined
        if segment.payload or segment.missing_bytes:
            events += self._late(segment, half) if half.finished else self._accept(segment, half)
        if flags & FIN and half.fin < 0 and not half.finished:
            half.fin = (segment.seq + len(segment.payload) + segment.missing_bytes) & MASK
            half.fin_frames = segment.frames
            # Bytes before the FIN are missing and no data behind them has come: the FIN shows the hole.
            if half.fin != half.next_seq and not half.pending:
                self._wait(half, time_ns)
        # Packets of either direction count: the other end's packets, too, show that time has passed.
        if self._holes:
            is_due = False
            for side in (half, half.peer):
                if side in self._holes:
                    side.later_packets += 1
                    is_due = is_due or _has_waited(side)
            if is_due:
                events += self._give_up_all(half, time_ns, _has_waited)
        events += self._finish(half, time_ns)
        return events

    def _synchronise(self, segment: Segment, half: Half | None, events: list[Event]) -> None:
        """Open a connection by its SYN or SYN-ACK, or record a repeated one."""
        # The SYN takes one sequence number (RFC 9293 section 3.4).
        first = (segment.seq + 1) & MASK
        if half is not None and half.is_opened_by(segment, first):
            if half.connection.joined and not half.finished:
                # Data was captured before its SYN, so the connection began within the capture after all.
                half.connection.joined = False
            opening = self._openings.get(half.connection.number)
            if opening is not None and not segment.flags & ACK:
                # A repeated SYN has a new IP identification, a copy by a second capture point the same one.
                # 0 says nothing: IPv6, or a sender that sets none.
                if not segment.ip_id or segment.ip_id != opening.ip_id:
                    opening.attempts += 1
                opening.last_ns, opening.ip_id = segment.time_ns, segment.ip_id
                return
        elif half is not None:
            events += self._end(half, segment.time_ns, "reused")
            half = self._open(segment, joined=False)
        else:
            half = self._open(segment, joined=False)
        self._begin(segment, half)

    def _begin(self, segment: Segment, half: Half) -> None:
        """Take a SYN or SYN-ACK that is the first one of *half*, or a copy of it."""
        first = (segment.seq + 1) & MASK
        half.connection.seen |= 1 << half.direction
        self._note_capture(half.connection, segment)
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
                self.turn(connection)
            connection.certain = True
            self._established(connection)
            return
        if half.direction == TO_CLIENT and not connection.certain:
            self.turn(connection)
        connection.certain = True
        if half.peer.next_seq < 0 and not half.finished:
            self._openings[connection.number] = Opening(half, segment)

    def _recall(self, flow: bytes) -> Half | None:
        """Return the direction *flow* of a connection of which only the SYN was seen, now that more is."""
        if not self._asked:
            return None
        found = self._asked.pop(flow, None) or self._asked.pop(reverse_flow(flow), None)
        if found is None:
            return None
        number, segment = found
        half = self._open(segment, joined=False, number=number)
        self._begin(segment, half)
        return half if segment.flow == flow else half.peer

    def _unanswered(self, number: int, segment: Segment, time_ns: int) -> Closed:
        """Return that nothing ever followed the SYN *segment*."""
        client, server = endpoints(segment.flow)
        connection = Connection(
            number, client, server, segment.time_ns, vlan=segment.vlan, interface=segment.interface, seen=1
        )
        self._note_capture(connection, segment)
        return Closed(connection, time_ns, "unanswered", TO_SERVER, segment.frames, 1)

    def _forget_attempts(self) -> None:
        """Forget the older half of the SYNs that wait, but for those of clients that are heard elsewhere."""
        heard = {half.connection.client.address for half in self._halves.values() if half.connection.protocol}
        oldest = list(self._asked.items())[: MAX_ATTEMPTS // 2]
        strange = [flow for flow, _ in oldest if endpoints(flow)[0].address not in heard]
        for flow in strange if len(strange) > MAX_ATTEMPTS // 8 else [flow for flow, _ in oldest]:
            del self._asked[flow]
            self.unanswered += 1

    def _open(self, segment: Segment, joined: bool, number: int = 0) -> Half:
        """Start a connection with *segment* and return the direction of that segment.

        *joined*: the connection began before the capture.
        """
        source, destination = endpoints(segment.flow)
        certain = True
        if segment.flags & SYN:
            to_server = not segment.flags & ACK
        elif destination.port in self._ports or source.port in self._ports:
            to_server = destination.port in self._ports
            certain = not (destination.port in self._ports and source.port in self._ports)
        else:
            # Services listen on low ports, clients use ephemeral ones (from 32768 on in Linux).
            to_server, certain = destination.port <= source.port, False
        client, server = (source, destination) if to_server else (destination, source)
        if not number:
            self._number += 1
        connection = Connection(
            number or self._number,
            client,
            server,
            segment.time_ns,
            joined,
            certain,
            segment.vlan,
            segment.interface,
        )
        half = Half(connection, TO_SERVER if to_server else TO_CLIENT)
        half.peer = Half(connection, TO_CLIENT if to_server else TO_SERVER)
        half.peer.peer = half
        half.last_ns = half.peer.last_ns = segment.time_ns
        if not certain:
            self._uncertain[connection.number] = half
        before = self._halves.get(segment.flow)
        if before is not None:
            _gone(before)
        self._halves[segment.flow] = half
        self._halves[reverse_flow(segment.flow)] = half.peer
        return half

    @staticmethod
    def _note_capture(connection: Connection, segment: Segment) -> None:
        for capture, _ in segment.frames:
            if capture not in connection.captures:
                connection.captures.append(capture)
        if segment.vlan and not connection.vlan:
            connection.vlan = segment.vlan

    def turn(self, connection: Connection) -> None:
        """Swap client and server of *connection*; no effect once its server is certain."""
        half = self._uncertain.pop(connection.number, None)
        if half is None:
            return
        connection.client, connection.server = connection.server, connection.client
        connection.certain = True
        # Swap the two bits of `seen`.
        connection.seen = connection.seen >> 1 | (connection.seen & 1) << 1
        half.direction, half.peer.direction = half.peer.direction, half.direction

    def _established(self, connection: Connection) -> None:
        self._openings.pop(connection.number, None)

    # --- data that is not simply the next ---

    def _accept(self, segment: Segment, half: Half) -> list[Event]:
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
            # One byte behind is a keep-alive probe (RFC 9293 §3.8.4), not a retransmission.
            if not (size == 1 and by == -1):
                counters.duplicate_segments += 1
            return []
        if by > 0:
            self._hold(segment, half)
            # Over the limit, the hole of the direction that grew is given up, not the oldest of all.
            if half.pending_bytes > PENDING_BYTES or self._pending_total > PENDING_TOTAL_BYTES:
                return self._give_up(half, segment.time_ns)
            return []
        if half in self._holes:
            counters.reordered_segments += 1
        events = self._deliver(segment, half)
        events += self._drain(half)
        return events

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
            return events + self._late(segment, half)
        before, half.strayed = half.strayed, half.next_seq
        back = before >= 0 and -ABSURD_BYTES <= ahead(segment.seq, before) <= ABSURD_BYTES
        events.append(self._gap(half, 0, segment.time_ns, segment.frames))
        half.next_seq = before if back else segment.seq
        return events + self._accept(segment, half)

    def _late(self, segment: Segment, half: Half) -> list[Event]:
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
            events.append(Data(half.connection, half.direction, segment.time_ns, payload, segment.frames))
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
        self._wait(half, segment.time_ns)
        pending.insert(at, (seq, segment, half.later_packets))
        half.pending_bytes += size
        self._pending_total += size

    def _wait(self, half: Half, time_ns: int) -> None:
        """Start the clock of a hole, in time and in packets; an open hole keeps its own."""
        if half not in self._holes:
            self._holes[half] = None
            half.since_ns, half.since_packets, half.later_packets = time_ns, 0, 0

    def _drain(self, half: Half) -> list[Event]:
        """Return the waiting data that is next now."""
        events: list[Event] = []
        pending = half.pending
        while pending and ahead(pending[0][0], half.next_seq) <= 0:
            seq, segment, _ = pending.pop(0)
            size = len(segment.payload) + segment.missing_bytes
            half.pending_bytes -= size
            self._pending_total -= size
            if ahead(seq, half.next_seq) + size > 0:
                events += self._deliver(segment, half)
            else:
                self._captures[segment.frames[0][0]].duplicate_segments += 1
        if pending:
            # The age of the next hole counts from the first segment that came behind it.
            half.since_ns = min(segment.time_ns for _, segment, _ in pending)
            half.since_packets = min(later_packets for _, _, later_packets in pending)
        elif half.fin < 0 or half.fin == half.next_seq:
            self._holes.pop(half, None)
        return events

    def _gap(self, half: Half, size_bytes: int, time_ns: int, frames: Frames = ()) -> Gap:
        """Return a gap at the expected byte, and count it; *size_bytes* 0 is an unknown size."""
        connection = half.connection
        capture = self._captures[frames[0][0] if frames else connection.captures[0]]
        capture.gaps += 1
        capture.lost_bytes += size_bytes
        connection.gaps += 1
        connection.lost_bytes += size_bytes
        since_ns = half.last_ns
        # The other end sent data while it lacked these bytes, so they arrived there later. The narrower
        # interval helps decoders to pair messages around the hole.
        if half.lacked_seq == half.next_seq and half.lacked_ns < time_ns:
            since_ns = max(since_ns, half.lacked_ns)
        return Gap(connection, half.direction, time_ns, size_bytes, since_ns, frames)

    def _give_up_all(self, half: Half, time_ns: int, is_due: Callable[[Half], bool]) -> list[Event]:
        """Give up all due holes of both directions, in the order of arrival of the data behind them.

        One direction after the other would put all requests before all responses.
        """
        events: list[Event] = []
        while due := [side for side in (half, half.peer) if side in self._holes and is_due(side)]:
            events += self._give_up(min(due, key=_behind_hole_ns), time_ns)
        return events

    def _give_up(self, half: Half, time_ns: int) -> list[Event]:
        """Declare the first hole of *half* lost and return the gap and the data behind it."""
        events: list[Event] = []
        if half.pending:
            seq, segment, _ = half.pending[0]
            events.append(self._gap(half, ahead(seq, half.next_seq), time_ns, segment.frames))
            half.next_seq = seq
            events += self._drain(half)
        else:
            # Only the FIN showed this hole: nothing waits behind it.
            self._holes.pop(half, None)
            if half.fin >= 0 and half.fin != half.next_seq:
                lost = ahead(half.fin, half.next_seq)
                events.append(self._gap(half, lost if 0 < lost <= ABSURD_BYTES else 0, time_ns))
                half.next_seq = half.fin
        return events + self._finish(half, time_ns)

    # --- ends ---

    def _finish(self, half: Half, time_ns: int) -> list[Event]:
        """Close the direction if all bytes up to its FIN were handed on or declared lost."""
        if half.fin < 0 or half.finished or half.pending or half.fin != half.next_seq:
            return []
        half.finished = True
        self._holes.pop(half, None)
        # The FIN takes one sequence number (RFC 9293 section 3.4).
        half.next_seq = (half.fin + 1) & MASK
        half.last_ns = time_ns
        return [Closed(half.connection, time_ns, "fin", half.direction, half.fin_frames)]

    def _reset(self, segment: Segment, half: Half) -> list[Event]:
        """Close both directions by a RST: *refused* if it answers the SYN, else *reset*."""
        connection = half.connection
        opening = self._openings.pop(connection.number, None)
        if half.finished and half.peer.finished:
            return []
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
        opening = self._openings.pop(half.connection.number, None)
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
        events += self._give_up_all(half, time_ns, lambda side: True)
        for side in (half, half.peer):
            events += self._tail(side, time_ns)
            side.finished = True
        events.append(Closed(half.connection, time_ns, how, half.direction, frames))
        return events

    def _tail(self, half: Half, time_ns: int) -> list[Event]:
        """Return a gap for bytes that the other end acknowledged and the capture lacks."""
        if half.finished or half.next_seq < 0 or half.acked < 0:
            return []
        lost = ahead(half.acked, half.next_seq)
        # A distance of 1 is the sequence number of the FIN, not a byte.
        if 1 < lost < ABSURD_BYTES:
            half.next_seq = half.acked
            return [self._gap(half, lost, time_ns)]
        return []

    def _sweep(self, time_ns: int) -> list[Event]:
        """Give up old holes, end unanswered SYNs, and forget old connections, by the time alone."""
        events: list[Event] = []
        for half in [h for h in self._holes if time_ns - h.since_ns >= HOLE_NS]:
            events += self._give_up_all(half, time_ns, lambda side: time_ns - side.since_ns >= HOLE_NS)
        for opening in [o for o in self._openings.values() if time_ns - o.last_ns >= UNANSWERED_NS]:
            events += self._end(opening.half, time_ns, "unanswered")
        events += self._give_up_attempts(time_ns, UNANSWERED_NS)
        if len(self._halves) > self._room:
            events += self._lighten(time_ns)
        if time_ns // FORGET_EVERY_NS != self._swept_ns // FORGET_EVERY_NS:
            events += self._forget(time_ns)
        self._swept_ns, self._sweep_ns = time_ns, time_ns + SWEEP_NS
        return events

    def _forget(self, time_ns: int) -> list[Event]:
        """Forget closed connections after `FORGET_CLOSED_NS`, idle ones after `FORGET_IDLE_NS`."""
        events: list[Event] = []
        gone = []
        for flow, half in self._halves.items():
            quiet_ns = time_ns - max(half.last_ns, half.peer.last_ns)
            if half.finished and half.peer.finished:
                if quiet_ns > FORGET_CLOSED_NS:
                    gone.append(flow)
            elif quiet_ns > FORGET_IDLE_NS:
                events += self._end(half, time_ns, "idle")
        # Two entries for each connection.
        for flow in gone:
            self._drop(flow)
        if len(self._halves) > 2 * MAX_CONNECTIONS:
            events += self._evict(time_ns)
        return events

    def _evict(self, time_ns: int) -> list[Event]:
        """Forget the quarter of the connections that was silent for longest."""
        events: list[Event] = []
        # A quarter at once, so that the sort is paid rarely. Both directions of a connection have the same
        # key and stand next to each other; an even number of entries keeps them together.
        oldest = sorted(self._halves.items(), key=lambda item: max(item[1].last_ns, item[1].peer.last_ns))
        for flow, half in oldest[: len(oldest) // 8 * 2]:
            if not (half.finished and half.peer.finished):
                self.evicted += 1
                events += self._end(half, time_ns, "idle")
            self._drop(flow)
        return events

    def _drop(self, flow: bytes) -> None:
        half = self._halves.pop(flow)
        self._uncertain.pop(half.connection.number, None)
        _gone(half)

    def _give_up_attempts(self, time_ns: int, after_ns: int) -> list[Event]:
        """Return those of the SYNs alone that are unanswered for *after_ns*."""
        events: list[Event] = []
        for number, segment in list(self._asked.values()):
            if time_ns - segment.time_ns < after_ns:
                break
            events.append(self._unanswered(number, segment, time_ns))
            del self._asked[segment.flow]
        return events

    def _lighten(self, time_ns: int) -> list[Event]:
        """Forget the oldest connections that are over, or that carried nothing of interest.

        Of these is kept what `LIGHT_BYTES` hold: only floods have more. What one of them still says opens
        it anew, as joined.
        """
        events: list[Event] = []
        light = [
            (max(half.last_ns, half.peer.last_ns), flow, half)
            for flow, half in self._halves.items()
            if half.direction == TO_SERVER and _is_light(half)
        ]
        light.sort(key=_first, reverse=True)
        left_bytes = LIGHT_BYTES
        for _, flow, half in light:
            over = half.finished and half.peer.finished
            decoded = half.connection.protocol and not over
            left_bytes -= _COST_BYTES + _DECODER_BYTES if decoded else _COST_BYTES
            if left_bytes >= 0:
                continue
            if not over:
                self.evicted += 1
                waits = half.connection.number in self._openings and not half.pending
                if waits and not half.peer.pending:
                    # Whether it would be answered is not known yet.
                    del self._openings[half.connection.number]
                else:
                    events += self._end(half, time_ns, "idle")
                for side in (half, half.peer):
                    self._holes.pop(side, None)
            for key in (flow, reverse_flow(flow)):
                if key in self._halves:
                    self._drop(key)
        self._room = len(self._halves) + 2 * LIGHT_CONNECTIONS
        return events

    def expire(self, time_ns: int) -> list[Event]:
        """Return the events that are due at *time_ns* without a packet; a live run calls it when idle."""
        return self._sweep(time_ns) if time_ns - self._swept_ns >= SWEEP_NS else []

    def flush(self, time_ns: int) -> Iterator[Event]:
        """Yield the remaining events when the capture ends at *time_ns*."""
        # The answer to a later one may just be outside of the capture.
        yield from self._give_up_attempts(time_ns, HOLE_NS)
        self._asked.clear()
        for half in list(self._halves.values()):
            if half.direction != TO_SERVER:
                continue
            opening = self._openings.get(half.connection.number)
            waits = half.pending or half.peer.pending
            if opening is not None and time_ns - opening.last_ns < HOLE_NS and not waits:
                # The capture ends less than a second after the SYN: the answer may have come later.
                self._openings.pop(half.connection.number)
                half.finished = half.peer.finished = True
            yield from self._end(half, time_ns, "end")
        self._halves.clear()


def _behind_hole_ns(half: Half) -> int:
    """Return the capture time of the data behind the first hole of *half*."""
    return half.pending[0][1].time_ns if half.pending else half.since_ns


def _has_waited(half: Half) -> bool:
    """Return whether a hole of *half* is due by the packets since, or by the bytes that wait behind it."""
    return half.later_packets - half.since_packets >= HOLE_PACKETS or half.pending_bytes > PENDING_BYTES


def _is_light(half: Half) -> bool:
    """Return whether the connection of *half* is over, or has carried nothing that tells of anything."""
    connection, peer = half.connection, half.peer
    if half.finished and peer.finished:
        return True
    if connection.protocol is None:
        return True
    if connection.joined or connection.client_role or connection.server_role:
        return False
    return half.carried() <= LITTLE_BYTES and peer.carried() <= LITTLE_BYTES


def _gone(half: Half) -> None:
    """Untie *half* from its peer: a cycle would be left to the garbage collector, which looks rarely."""
    half.peer.peer = half.peer = _NOBODY


def _first(light: tuple[int, bytes, Half]) -> int:
    return light[0]


_NOBODY = Half(Connection(0, Endpoint("", 0), Endpoint("", 0), 0), TO_SERVER)
"""The peer of a direction that is forgotten."""
_NOBODY.finished = True
