"""`Reassembler`. Its strategy and limits are described in the package's docstring."""

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
)
from tracer.reassembly.halves import ABSURD_BYTES, HOLE_NS, MASK, Half, Opening, ahead, endpoints, reverse

__all__ = ["Event", "Reassembler"]

Event = Data | Gap | Closed

FIN, SYN, RST, ACK = 1, 2, 4, 16

HOLE_PACKETS = 48
"""Later packets of the connection after which a hole is lost (Arkime gives up after 256)."""
PENDING_BYTES = 4 << 20
"""Of one direction. A receive window is rarely more."""
PENDING_TOTAL_BYTES = 64 << 20
UNANSWERED_NS = 3_000_000_000
"""A SYN without any answer for so long is unanswered; Linux has repeated it twice by then."""
FORGET_CLOSED_NS = 60_000_000_000
"""How long late packets of a closed connection are still taken for its own (TIME_WAIT)."""
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
FORGET_EVERY_NS = 10_000_000_000


class Reassembler:
    """Turns segments of all connections, in time order, into Data, Gap and Closed.

    *server_ports* tell which end is the server where no SYN was seen; else the lower port is, and the
    connection says that this is not certain (`turn` puts it right). *captures* get their counters.
    """

    def __init__(self, captures: Sequence[Capture], server_ports: Collection[int] = ()) -> None:
        self._captures = captures
        self._ports = frozenset(server_ports)
        self._halves: dict[bytes, Half] = {}
        self._openings: dict[int, Opening] = {}
        self._holes: dict[Half, None] = {}
        self._uncertain: dict[int, Half] = {}
        self._asked: dict[bytes, tuple[int, Segment]] = {}
        """Flow -> number of its connection and the SYN, as long as nothing else was seen of it."""
        self._room = 2 * LIGHT_CONNECTIONS
        """With more directions than this it is looked for connections to forget."""
        self._number = 0
        self._swept_ns = 0
        self._sweep_ns = SWEEP_NS
        """When to sweep next."""
        self._pending_total = 0
        self.evicted = 0
        """Connections forgotten because there were too many."""
        self.unanswered = 0
        """SYNs forgotten because there were too many."""

    # --- the hot path ---

    def read(self, batches: Iterable[Iterable[SegmentFields]]) -> Iterator[Event]:
        """Yield what the segments of *batches* complete, each before the next segment is taken.

        A generator and not a call for each segment: most of them complete nothing.
        """
        halves, holes, openings, new = self._halves, self._holes, self._openings, tuple.__new__
        for segment in chain.from_iterable(batches):
            time_ns, flow, seq, ack, flags, payload, missing, _, frames, _, _ = segment
            half = halves.get(flow)
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
                    if connection.deaf and half.direction and not half.peer.pending:
                        continue
                    yield new(Data, (connection, half.direction, time_ns, payload, frames))
                    continue
                if not payload and half.next_seq >= 0:
                    half.peer.acked = ack
                    continue
            yield from self._receive_slowly(Segment._make(segment), half)

    # --- everything else ---

    def _receive_slowly(self, segment: Segment, half: Half | None) -> list[Event]:
        events: list[Event] = []
        time_ns, flags = segment.time_ns, segment.flags
        if time_ns >= self._sweep_ns or len(self._halves) > self._room:
            events += self._sweep(time_ns)
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
            # Captured in two goes: what was said in between was never to be seen, and is no hole.
            events += self._end(half, time_ns, "end")
            half = self._open(segment, joined=True)
        if half is None or (half.finished and half.is_replaced_by(segment)):
            if half is not None:
                events += self._end(half, time_ns, "reused")
            if flags & RST or not (segment.payload or segment.missing_bytes or flags & ACK):
                return events
            half = self._open(segment, joined=True)
        half.connection.seen |= 1 << half.direction
        self._note_capture(half.connection, segment)
        if flags & RST:
            events += self._reset(segment, half)
            return events
        if flags & ACK:
            # The client's too: it has seen an answer, if we have not.
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
            if half.fin != half.next_seq and not half.pending:
                self._wait(half, time_ns)
        if self._holes:
            is_due = False
            for side in (half, half.peer):
                if side in self._holes:
                    side.later += 1
                    is_due = is_due or _has_waited(side)
            if is_due:
                events += self._give_up_all(half, time_ns, _has_waited)
        events += self._finish(half, time_ns)
        return events

    def _synchronise(self, segment: Segment, half: Half | None, events: list[Event]) -> None:
        """Take a SYN or SYN-ACK."""
        first = (segment.seq + 1) & MASK
        if half is not None and half.is_opened_by(segment, first):
            if half.connection.joined and not half.finished:
                # Packets out of time order: data came before its SYN.
                half.connection.joined = False
            opening = self._openings.get(half.connection.number)
            if opening is not None and not segment.flags & ACK:
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
                half.peer.next_seq = half.peer.start = segment.ack
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
        found = self._asked.pop(flow, None) or self._asked.pop(reverse(flow), None)
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
        source, destination = endpoints(segment.flow)
        certain = True
        if segment.flags & SYN:
            to_server = not segment.flags & ACK
        elif destination.port in self._ports or source.port in self._ports:
            to_server = destination.port in self._ports
            certain = not (destination.port in self._ports and source.port in self._ports)
        else:
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
        self._halves[reverse(segment.flow)] = half.peer
        return half

    @staticmethod
    def _note_capture(connection: Connection, segment: Segment) -> None:
        for capture, _ in segment.frames:
            if capture not in connection.captures:
                connection.captures.append(capture)
        if segment.vlan and not connection.vlan:
            connection.vlan = segment.vlan

    def turn(self, connection: Connection) -> None:
        """Make the server of *connection* its client, and the other way round."""
        half = self._uncertain.pop(connection.number, None)
        if half is None:
            return
        connection.client, connection.server = connection.server, connection.client
        connection.certain = True
        connection.seen = connection.seen >> 1 | (connection.seen & 1) << 1
        half.direction, half.peer.direction = half.peer.direction, half.direction

    def _established(self, connection: Connection) -> None:
        self._openings.pop(connection.number, None)

    # --- data that is not simply the next ---

    def _accept(self, segment: Segment, half: Half) -> list[Event]:
        size = len(segment.payload) + segment.missing_bytes
        by = ahead(segment.seq, half.next_seq)
        if not -ABSURD_BYTES <= by <= ABSURD_BYTES:
            return self._stray(segment, half)
        if by == 1 and half.probed:
            half.next_seq, by = segment.seq, 0
        counters = self._captures[segment.frames[0][0]]
        if by + size <= 0:
            # One byte behind is a keep-alive probe (RFC 9293 §3.8.4), not a retransmission.
            if not (size == 1 and by == -1):
                counters.duplicate_segments += 1
            return []
        if by > 0:
            self._hold(segment, half)
            if half.pending_bytes > PENDING_BYTES or self._pending_total > PENDING_TOTAL_BYTES:
                return self._give_up(half, segment.time_ns)
            return []
        if half in self._holes:
            counters.reordered_segments += 1
        events = self._deliver(segment, half)
        events += self._drain(half)
        return events

    def _stray(self, segment: Segment, half: Half) -> list[Event]:
        """Follow a stream that goes on somewhere else: the ports began again unseen, or damage.

        One damaged sequence number must not cost the connection: what fits in where the stream was
        before takes it back there.
        """
        events: list[Event] = []
        while half.pending:
            events += self._give_up(half, segment.time_ns)
        if half.finished:
            # Its end was among what waited.
            return events + self._late(segment, half)
        before, half.strayed = half.strayed, half.next_seq
        back = before >= 0 and -ABSURD_BYTES <= ahead(segment.seq, before) <= ABSURD_BYTES
        events.append(self._gap(half, 0, segment.time_ns, segment.frames))
        half.next_seq = before if back else segment.seq
        return events + self._accept(segment, half)

    def _late(self, segment: Segment, half: Half) -> list[Event]:
        """Take data of a direction that has ended: a repetition, or what nobody received."""
        if ahead(segment.seq, half.next_seq) + len(segment.payload) + segment.missing_bytes <= 0:
            self._captures[segment.frames[0][0]].duplicate_segments += 1
        return []

    def _deliver(self, segment: Segment, half: Half) -> list[Event]:
        """Return the part of *segment* that is new, and a gap for what the snap length cut."""
        events: list[Event] = []
        behind = -ahead(segment.seq, half.next_seq)
        payload = segment.payload[behind:] if behind else segment.payload
        missing = segment.missing_bytes - max(0, behind - len(segment.payload))
        half.last_ns = segment.time_ns
        half.probed = False
        if segment.flags & ACK and segment.ack == half.peer.next_seq:
            half.peer.unheard_seq, half.peer.unheard_ns = segment.ack, segment.time_ns
        if payload:
            events.append(Data(half.connection, half.direction, segment.time_ns, payload, segment.frames))
        if missing > 0:
            events.append(self._gap(half, missing, segment.time_ns, segment.frames))
        half.next_seq = (segment.seq + len(segment.payload) + segment.missing_bytes) & MASK
        return events

    def _hold(self, segment: Segment, half: Half) -> None:
        pending, seq = half.pending, segment.seq
        size = len(segment.payload) + segment.missing_bytes
        at = len(pending)
        while at and ahead(pending[at - 1][0], seq) > 0:
            at -= 1
        if at and pending[at - 1][0] == seq and len(pending[at - 1][1].payload) >= size:
            self._captures[segment.frames[0][0]].duplicate_segments += 1
            return
        self._wait(half, segment.time_ns)
        pending.insert(at, (seq, segment, half.later))
        half.pending_bytes += size
        self._pending_total += size

    def _wait(self, half: Half, time_ns: int) -> None:
        if half not in self._holes:
            self._holes[half] = None
            half.since_ns, half.since_later, half.later = time_ns, 0, 0

    def _drain(self, half: Half) -> list[Event]:
        """Return the data that waited and is next now."""
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
            # The next hole is as old as what showed it first.
            half.since_ns = min(segment.time_ns for _, segment, _ in pending)
            half.since_later = min(later for _, _, later in pending)
        elif half.fin < 0 or half.fin == half.next_seq:
            self._holes.pop(half, None)
        return events

    def _gap(self, half: Half, size_bytes: int, time_ns: int, frames: Frames = ()) -> Gap:
        connection = half.connection
        capture = self._captures[frames[0][0] if frames else connection.captures[0]]
        capture.gaps += 1
        capture.lost_bytes += size_bytes
        connection.gaps += 1
        connection.lost_bytes += size_bytes
        since_ns = half.last_ns
        if half.unheard_seq == half.next_seq and half.unheard_ns < time_ns:
            since_ns = max(since_ns, half.unheard_ns)
        return Gap(connection, half.direction, time_ns, size_bytes, since_ns, frames)

    def _give_up_all(self, half: Half, time_ns: int, is_due: Callable[[Half], bool]) -> list[Event]:
        """Give up the holes of both directions that are due, in the order in which what follows them came.

        Else, where parts of a conversation are missing, all questions would come before all answers.
        """
        events: list[Event] = []
        while due := [side for side in (half, half.peer) if side in self._holes and is_due(side)]:
            events += self._give_up(min(due, key=_came_ns), time_ns)
        return events

    def _give_up(self, half: Half, time_ns: int) -> list[Event]:
        """Declare the first hole of *half* lost and return what follows it."""
        events: list[Event] = []
        if half.pending:
            seq, segment, _ = half.pending[0]
            events.append(self._gap(half, ahead(seq, half.next_seq), time_ns, segment.frames))
            half.next_seq = seq
            events += self._drain(half)
        else:
            self._holes.pop(half, None)
            if half.fin >= 0 and half.fin != half.next_seq:
                lost = ahead(half.fin, half.next_seq)
                events.append(self._gap(half, lost if 0 < lost <= ABSURD_BYTES else 0, time_ns))
                half.next_seq = half.fin
        return events + self._finish(half, time_ns)

    # --- ends ---

    def _finish(self, half: Half, time_ns: int) -> list[Event]:
        if half.fin < 0 or half.finished or half.pending or half.fin != half.next_seq:
            return []
        half.finished = True
        self._holes.pop(half, None)
        half.next_seq = (half.fin + 1) & MASK
        half.last_ns = time_ns
        return [Closed(half.connection, time_ns, "fin", half.direction, half.fin_frames)]

    def _reset(self, segment: Segment, half: Half) -> list[Event]:
        connection = half.connection
        opening = self._openings.pop(connection.number, None)
        if half.finished and half.peer.finished:
            return []
        # Data behind a hole: somebody did answer, unseen.
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
        """Close both directions, giving out what waits behind holes first."""
        events: list[Event] = []
        opening = self._openings.pop(half.connection.number, None)
        if half.finished and half.peer.finished:
            return events
        asker = opening.half if opening is not None else half
        asked = opening is not None and asker.peer.next_seq < 0 and asker.next_seq == asker.start
        # Data behind a hole: somebody did answer, unseen.
        if opening is not None and asked and not asker.pending:
            half.finished = half.peer.finished = True
            # What still comes of it opens it anew.
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
        """Return a gap for bytes that the other end acknowledged and that never came."""
        if half.finished or half.next_seq < 0 or half.acked < 0:
            return []
        lost = ahead(half.acked, half.next_seq)
        # One more is the FIN's own number.
        if 1 < lost < ABSURD_BYTES:
            half.next_seq = half.acked
            return [self._gap(half, lost, time_ns)]
        return []

    def _sweep(self, time_ns: int) -> list[Event]:
        """Do what time alone decides: holes, unanswered SYNs, forgotten connections."""
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
        events: list[Event] = []
        gone = []
        for flow, half in self._halves.items():
            quiet_ns = time_ns - max(half.last_ns, half.peer.last_ns)
            if half.finished and half.peer.finished:
                if quiet_ns > FORGET_CLOSED_NS:
                    gone.append(flow)
            elif quiet_ns > FORGET_IDLE_NS:
                events += self._end(half, time_ns, "idle")
        for flow in gone:
            self._drop(flow)
        if len(self._halves) > 2 * MAX_CONNECTIONS:
            events += self._evict(time_ns)
        return events

    def _evict(self, time_ns: int) -> list[Event]:
        events: list[Event] = []
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
            for key in (flow, reverse(flow)):
                if key in self._halves:
                    self._drop(key)
        self._room = len(self._halves) + 2 * LIGHT_CONNECTIONS
        return events

    def expire(self, time_ns: int) -> list[Event]:
        """Return what time alone decides up to *time_ns*, while nothing comes."""
        return self._sweep(time_ns) if time_ns - self._swept_ns >= SWEEP_NS else []

    def flush(self, time_ns: int) -> Iterator[Event]:
        """Yield what is left when the capture ends at *time_ns*."""
        # The answer to a later one may just be outside of the capture.
        yield from self._give_up_attempts(time_ns, HOLE_NS)
        self._asked.clear()
        for half in list(self._halves.values()):
            if half.direction != TO_SERVER:
                continue
            opening = self._openings.get(half.connection.number)
            waits = half.pending or half.peer.pending
            if opening is not None and time_ns - opening.last_ns < HOLE_NS and not waits:
                # The answer may just be outside of the capture.
                self._openings.pop(half.connection.number)
                half.finished = half.peer.finished = True
            yield from self._end(half, time_ns, "end")
        self._halves.clear()


def _came_ns(half: Half) -> int:
    """Return when what follows the first hole of *half* came."""
    return half.pending[0][1].time_ns if half.pending else half.since_ns


def _has_waited(half: Half) -> bool:
    """Return whether a hole of *half* is lost by what came since then."""
    return half.later - half.since_later >= HOLE_PACKETS or half.pending_bytes > PENDING_BYTES


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
