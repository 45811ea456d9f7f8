"""How far the clocks of several captures are apart, learnt from the traffic that they hold.

Three things are seen at two points. A packet: the same at both, within the time of its way. A request through
a proxy: the leg towards the proxy begins before the leg behind it and ends after it, and the answers of
both carry the id that the service gave it. A request and the calls made for it, which carry that id: they
come after its begin, and the first one before its end if it only reads or is refused. Each such pair bounds
the offset of one clock against the other. What all bounds allow is kept: no offset as long as none is needed,
else the least that is. Where no offset satisfies all, a clock drifts or was set: from there on another one
counts.

Source: reference, the x-openstack-request-id of answers; packets at two points as in points.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

from tracer.model import Capture, SegmentFields, reverse_flow

__all__ = ["AHEAD", "ClockEstimates", "read_ahead"]

AHEAD = 512
"""Segments of each capture that are looked at before they are needed."""
AT_FIRST = 16_384
"""And as long as nothing is known."""
WAY_NS = 400_000
"""Smaller differences are the way of a packet (up to 322 µs seen), not the clock."""
_MARGIN_NS = 100_000
"""How far within its bounds a clock is taken to be."""
_LEAST_PACKETS = 2
"""A single packet at two points may be two that look alike."""
_PAIRS = 4_096
"""Pairs of two captures that are kept: bounds of older times no longer matter."""
_IDS = 20_000
"""Requests and packets that may still be seen at another point, at least; twice as many at most."""
_ALL_PACKETS = 5_000
"""Segments of a capture all of which are compared; then one in 16."""
_LEAP_NS = 2_000_000
"""What moves by more was set, and did not drift."""

_HEAD_BYTES = 2_048
"""Where the headers of a message are."""

_NEVER_NS = 1 << 80
_OPEN_NS = _NEVER_NS >> 1
"""Bounds beyond that are none: no two clocks are so far apart."""
_START = frozenset((b"HTTP", b"POST", b"GET ", b"PUT ", b"DELE", b"PATC", b"HEAD"))
_FIRST = frozenset(start[0] for start in _START)
_SYN_OR_FIN = 3

_TOLD = 1_000

LEGS, PACKETS = range(2)
"""What lies within each other: the legs of a request at a proxy, a request and the calls made for it. And
copies of a packet, which say more."""

_Span = tuple[int, int, bool, int]
"""Begin and end of a request, whether a proxy has handed it on, and until when calls are first made for it: 0
where its id does not tell."""
_Asked = tuple[int, bool, bool, bytes]
"""Begin of a request, whether a proxy has handed it on, whether it only reads, and the id that it carries."""
_Pair = tuple[int, int, int, int]
"""Begin and end here, begin and end there: here the capture with the smaller number."""


@dataclass(slots=True, eq=False)
class _Link:
    """Two captures that saw the same."""

    rank: int
    """Of what its pairs are: `LEGS`, or `PACKETS` instead."""
    pairs: deque[_Pair] = field(default_factory=lambda: deque(maxlen=_PAIRS))
    new: list[_Pair] = field(default_factory=list)
    """Those that nothing was concluded from."""
    count: int = 0
    mentions: int = 0
    """Calls made for a request, which are not among the pairs that are counted."""
    there_outer: int = 0
    """Of how many pairs the outer leg is there, less the others. The proxy's own word counts most."""


@dataclass(slots=True, eq=False)
class _Piece:
    """From when on, by the capture's own clock, it is how far ahead of its parent."""

    since_ns: int
    ahead_ns: int
    low_ns: int
    high_ns: int


class ClockEstimates:
    """What is known of the clocks of *captures* against each other.

    A clock that the user corrected is right; so is that of the capture that shares most with the others.
    """

    def __init__(self, captures: Sequence[Capture]) -> None:
        self._captures = captures
        self._held: dict[int, deque[list[SegmentFields]]] = {}
        self._links: dict[tuple[int, int], _Link] = {}
        self._linked: set[int] = set()
        self._parents: dict[int, int | None] = {}
        self._pieces: dict[int, list[_Piece]] = {}
        self._stale: set[tuple[int, int]] = set()
        self._read: dict[int, int] = {}
        planes = [capture.plane for capture in captures if not capture.protocol]
        self._apart = None not in planes and len(set(planes)) == len(planes)
        self._requests = len({plane for plane in planes if plane}) > 1
        self._asked: dict[int, dict[bytes, _Asked]] = {c.number: {} for c in captures}
        self._answered: dict[bytes, dict[int, _Span]] = {}
        self._mentioned: dict[bytes, dict[int, int]] = {}
        """Id of a request -> when each capture first saw a call that carries it."""
        self._packets: dict[tuple[bytes, int, int, int, int, int], dict[int, int]] = {}
        self.version = 0
        """Grows when offsets change."""

    # --- learning ---

    def see(self, capture: int, batch: Sequence[SegmentFields]) -> None:
        """Take note of what may be seen at another point, of segments that *capture* holds next."""
        if self._requests:
            for segment in batch:
                payload = segment[5]
                # The first byte excludes nearly all: of the others a slice is made.
                if payload and payload[0] in _FIRST and payload[:4] in _START:
                    self._message(capture, segment)
        if not self._apart:
            self._share(capture, batch)

    def _message(self, capture: int, segment: SegmentFields) -> None:
        time_ns, flow, payload = segment[0], segment[1], segment[5]
        asked = self._asked[capture]
        at = payload.find(b": req-", 0, _HEAD_BYTES)
        key = payload[at + 2 : at + 42] if at > 0 else b""
        if not payload.startswith(b"HTTP"):
            asked[flow] = time_ns, payload.find(b"orwarded-", 0, _HEAD_BYTES) > 0, payload[:4] == b"GET ", key
            if len(asked) > 2 * _IDS:
                _halve(asked)
            if key:
                self._mention(capture, key, time_ns)
            return
        request = asked.get(reverse_flow(flow)) if key else None
        if request is not None:
            self._answer(capture, key, segment, request)

    def _answer(self, capture: int, key: bytes, segment: SegmentFields, request: _Asked) -> None:
        """Take note of the answer to *request*, which holds the id *key*."""
        begin_ns, was_handed_on, reads, carried = request
        seen = self._answered.setdefault(key, {})
        known = seen.get(capture)
        if known is not None and begin_ns >= known[0]:
            # A call made on the way carries the id as well: it lies within.
            return
        time_ns = segment[0]
        # What is only read, or refused, is over with its answer.
        is_over = reads or segment[5][9:12] >= b"400"
        mine = seen[capture] = begin_ns, time_ns, was_handed_on, time_ns if is_over else _NEVER_NS
        for other, span in seen.items():
            if self._are_planes(other, capture):
                self._pair(other, span, capture, mine, LEGS)
        if carried != key:
            # The service made this id. Some give back the one that they are asked with.
            for other, mentioned_ns in self._mentioned.get(key, {}).items():
                self._mention_within(other, mentioned_ns, capture, mine)
        elif capture in self._mentioned.get(key, {}):
            mine = seen[capture] = (*mine[:3], 0)
        if len(self._answered) > 2 * _IDS:
            _halve(self._answered)

    def _are_planes(self, one: int, two: int) -> bool:
        """Return whether two captures are of two planes."""
        return one != two and self._captures[one].plane != self._captures[two].plane

    def _mention(self, capture: int, key: bytes, time_ns: int) -> None:
        """Take note of a call that carries the id of the request for which it is made."""
        seen = self._mentioned.setdefault(key, {})
        if capture in seen:
            return
        seen[capture] = time_ns
        if len(self._mentioned) > 2 * _IDS:
            _halve(self._mentioned)
        for other, span in self._answered.get(key, {}).items():
            self._mention_within(capture, time_ns, other, span)

    def _mention_within(self, capture: int, time_ns: int, other: int, span: _Span) -> None:
        """Conclude that a call, made for a request that *other* saw, lies within that."""
        begin_ns, _, _, until_ns = span
        if until_ns and self._are_planes(other, capture):
            self._pair(capture, (time_ns, time_ns, True, 0), other, (begin_ns, until_ns, False, 0), LEGS)

    def _pair(self, one: int, span: _Span, two: int, other_span: _Span, rank: int) -> None:
        """Add what two captures saw, to be concluded from."""
        if one > two:
            one, span, two, other_span = two, other_span, one, span
        key = one, two
        link = self._links.get(key)
        if link is None or link.rank < rank:
            link = self._links[key] = _Link(rank)
            self._linked.update(key)
        elif link.rank > rank:
            return
        pair = (*span[:2], *other_span[:2])
        link.pairs.append(pair)
        link.new.append(pair)
        if rank == LEGS and (pair[0] == pair[1] or pair[2] == pair[3]):
            link.mentions += 1
        else:
            link.count += 1
        if rank != PACKETS:
            longer = other_span[1] - other_span[0] >= span[1] - span[0]
            if span[2] is other_span[2]:
                link.there_outer += 1 if longer else -1
            else:
                link.there_outer += _TOLD if span[2] else -_TOLD
        self._stale.add(key)

    def _share(self, capture: int, batch: Sequence[SegmentFields]) -> None:
        read = self._read.get(capture, 0)
        self._read[capture] = read + len(batch)
        packets = self._packets
        for time_ns, flow, seq, ack, flags, payload, _, ip_id, _, _, _ in batch:
            if (ip_id & 15 and read > _ALL_PACKETS) or not (payload or flags & _SYN_OR_FIN):
                continue
            seen = packets.setdefault((flow, seq, ack, flags, len(payload), ip_id), {})
            if capture in seen:
                continue
            for other, other_ns in seen.items():
                span, mine = (other_ns, other_ns, False, 0), (time_ns, time_ns, False, 0)
                self._pair(other, span, capture, mine, PACKETS)
            seen[capture] = time_ns
            if len(packets) > 2 * _IDS:
                _halve(packets)

    # --- answering ---

    def has_pairs(self, capture: int) -> bool:
        """Return whether *capture* is linked to another one."""
        return capture in self._linked

    def settled(self) -> int:
        """Return the version, after all that was seen is taken into account."""
        if self._stale:
            self._estimate()
        return self.version

    def ahead(self, capture: int, time_ns: int) -> tuple[int, int]:
        """Return how far *capture* is ahead at *time_ns* of its clock, and until when that holds."""
        if self._stale:
            self._estimate()
        parent = self._parents.get(capture)
        if parent is None:
            return 0, _NEVER_NS
        ahead_ns, until_ns = 0, _NEVER_NS
        pieces = self._pieces.get(capture, ())
        if pieces:
            at = max(0, bisect_right(pieces, time_ns, key=_since) - 1)
            ahead_ns = pieces[at].ahead_ns
            if at + 1 < len(pieces):
                until_ns = pieces[at + 1].since_ns
        if self._parents.get(parent) is not None:
            more_ns, other_ns = self.ahead(parent, time_ns - ahead_ns)
            return ahead_ns + more_ns, min(until_ns, other_ns + ahead_ns)
        return ahead_ns, until_ns

    def correct(
        self, capture: int, batch: list[SegmentFields], ahead_ns: int, reached_ns: dict[int, int]
    ) -> list[SegmentFields]:
        """Return *batch* in corrected time, which never goes back: *reached_ns* is where each capture is."""
        first_ns, last_ns = batch[0][0] - ahead_ns, batch[-1][0] - ahead_ns
        least_ns = reached_ns.get(capture, 0)
        clock = self._captures[capture].clock
        reached_ns[capture] = max(least_ns, last_ns)
        if first_ns < least_ns:
            clock.ahead(least_ns, ahead_ns)
            return [(max(s[0] - ahead_ns, least_ns), *s[1:]) for s in batch]
        clock.ahead(first_ns, ahead_ns)
        return [(s[0] - ahead_ns, *s[1:]) for s in batch] if ahead_ns else batch

    def conclude(self) -> None:
        """Write into the clock of each capture what it was compared with, and how well that is known."""
        for number, parent in self._parents.items():
            if parent is None:
                continue
            clock = self._captures[number].clock
            link = self._links[min(number, parent), max(number, parent)]
            clock.reference, clock.pairs = parent, link.count or link.mentions
            pieces = self._fit(number, (min(number, parent), max(number, parent)))
            bounded = (p for p in pieces if p.low_ns > -_OPEN_NS and p.high_ns < _OPEN_NS)
            widths = [piece.high_ns - piece.low_ns for piece in bounded]
            clock.uncertain_ns = max(widths, default=0) // 2
            clock.is_bounded = bool(widths)

    # --- estimating ---

    def _estimate(self) -> None:
        stale, self._stale = self._stale, set()
        if any(one not in self._parents or two not in self._parents for one, two in stale):
            self._grow()
        before = self.version
        for key in stale:
            one, two = key
            new, self._links[key].new = self._links[key].new, []
            for child, parent in ((one, two), (two, one)):
                if self._parents.get(child) == parent and not self._holds(child, key, new):
                    pieces = self._pieces[child] = self._fit(child, key)
                    if not pieces:
                        self._links[key].new = new
                    self.version = before + 1

    def _grow(self) -> None:
        """Give captures that are linked by now a parent, by the links of most pairs."""
        if not self._parents:
            given = [c.number for c in self._captures if c.clock.given_ns is not None]
            self._parents.update(dict.fromkeys(given))
        while True:
            found = [
                (link.count or link.mentions, child, parent)
                for (one, two), link in self._links.items()
                for child, parent in ((one, two), (two, one))
                if child not in self._parents and parent in self._parents
            ]
            if found:
                _, child, parent = max(found)
                self._parents[child] = parent
                continue
            free = [number for key in self._links for number in key if number not in self._parents]
            if not free:
                return
            links = self._links.items()
            weight = {n: sum(link.count + link.mentions for key, link in links if n in key) for n in free}
            seen = {n: self._captures[n].packets for n in free}
            self._parents[max(free, key=lambda n: (weight[n], seen[n], -n))] = None

    def _holds(self, child: int, key: tuple[int, int], new: Iterable[_Pair]) -> bool:
        """Return whether what is known of *child* satisfies the *new* pairs as well."""
        pieces = self._pieces.get(child, [])
        starts = [piece.since_ns for piece in pieces]
        for since_ns, low_ns, high_ns in self._bounds(child, key, new):
            ahead_ns = pieces[max(0, bisect_right(starts, since_ns) - 1)].ahead_ns if pieces else 0
            if not low_ns <= ahead_ns <= high_ns:
                return False
        return True

    def _bounds(self, child: int, key: tuple[int, int], pairs: Iterable[_Pair]) -> list[tuple[int, int, int]]:
        """Return (since when by its own clock, the least, the most) that *child* is ahead of its parent."""
        link = self._links[key]
        is_there = child == key[1]
        if link.rank == PACKETS:
            shared = ((p[2], p[2] - p[0]) if is_there else (p[0], p[0] - p[2]) for p in pairs)
            return sorted((at_ns, ahead_ns - WAY_NS, ahead_ns + WAY_NS) for at_ns, ahead_ns in shared)
        is_outer = (link.there_outer >= 0) is is_there
        found = []
        for begin, end, other_begin, other_end in pairs:
            mine, other = (
                ((other_begin, other_end), (begin, end))
                if is_there
                else ((begin, end), (other_begin, other_end))
            )
            at_begin, at_end = mine[0] - other[0], mine[1] - other[1]
            low_ns, high_ns = (at_begin, at_end) if is_outer else (at_end, at_begin)
            if max(mine[1], other[1]) >= _NEVER_NS:
                # The end of one of them is not known: their begins alone bound the clock.
                low_ns, high_ns = (at_begin, _NEVER_NS) if is_outer else (-_NEVER_NS, at_begin)
            if low_ns <= high_ns:
                found.append((mine[0], low_ns, high_ns))
            elif is_outer:
                # A clock was set while this went on.
                found += [(mine[0], low_ns, _NEVER_NS), (mine[1], -_NEVER_NS, high_ns)]
            else:
                found += [(mine[0], -_NEVER_NS, high_ns), (mine[1], low_ns, _NEVER_NS)]
        return sorted(found)

    def _fit(self, child: int, key: tuple[int, int]) -> list[_Piece]:
        link = self._links[key]
        bounds, packets = self._bounds(child, key, link.pairs), link.rank == PACKETS
        if packets and len(bounds) < _LEAST_PACKETS:
            return []
        pieces = [_Piece(-_NEVER_NS, 0, -_NEVER_NS, _NEVER_NS)]
        before_ns = [-_NEVER_NS]
        last_ns = -_NEVER_NS
        for at, (since_ns, low_ns, high_ns) in enumerate(bounds):
            piece = pieces[-1]
            low, high = max(low_ns, piece.low_ns), min(high_ns, piece.high_ns)
            if low <= high:
                piece.low_ns, piece.high_ns = low, high
            elif not packets or _is_confirmed(bounds[at + 1 : at + 3], piece):
                pieces.append(_Piece(since_ns, 0, low_ns, high_ns))
                before_ns.append(last_ns)
            last_ns = since_ns
        ahead_ns = 0
        for piece, last_ns in zip(pieces, before_ns, strict=True):
            previous_ns = ahead_ns
            if not piece.low_ns <= ahead_ns <= piece.high_ns:
                ahead_ns = _nearest(ahead_ns, piece.low_ns, piece.high_ns)
            piece.ahead_ns = ahead_ns
            if abs(ahead_ns - previous_ns) > _LEAP_NS and last_ns > -_NEVER_NS:
                piece.since_ns = self._quiet_end(child, last_ns, piece.since_ns)
        return pieces

    def _quiet_end(self, capture: int, since_ns: int, until_ns: int) -> int:
        """Return where the longest silence between the two times ends: there the clock was set."""
        times = [
            segment[0]
            for batch in self._held.get(capture, ())
            if batch[-1][0] >= since_ns and batch[0][0] <= until_ns
            for segment in batch
            if since_ns <= segment[0] <= until_ns
        ]
        gaps = [(later - earlier, later) for earlier, later in pairwise(times)]
        return max(gaps)[1] if gaps else until_ns

    def hold(self, capture: int) -> deque[list[SegmentFields]]:
        """Return where the batches of *capture* are kept that were seen and are not needed yet."""
        return self._held.setdefault(capture, deque())


def read_ahead(
    batches: Iterable[list[SegmentFields]], capture: int, clocks: ClockEstimates, ahead: int = AHEAD
) -> Iterator[list[SegmentFields]]:
    """Yield *batches* of *capture*, each after *clocks* has seen *ahead* segments behind it."""
    held, count, read = clocks.hold(capture), 0, 0
    for batch in batches:
        if not batch:
            continue
        clocks.see(capture, batch)
        held.append(batch)
        count += len(batch)
        read += len(batch)
        # To begin with, until something was seen at another point too. What shared nothing by then has
        # nothing to share: a plane of the broker alone.
        waits = read <= AT_FIRST and not clocks.has_pairs(capture)
        least = max(ahead, AT_FIRST) if waits else ahead
        while held and count - len(held[0]) >= least:
            count -= len(held[0])
            yield held.popleft()
    while held:
        yield held.popleft()


def _halve(known: dict[Any, Any]) -> None:
    """Drop the older half of *known*. At once: taking the oldest of a dict again and again gets slow."""
    for key in [*islice(known, len(known) // 2)]:
        del known[key]


def _since(piece: _Piece) -> int:
    return piece.since_ns


def _is_confirmed(following: Collection[tuple[int, int, int]], piece: _Piece) -> bool:
    """Return whether the packets behind one that is off are off as well: else it was late."""
    return len(following) == 2 and all(
        max(low_ns, piece.low_ns) > min(high_ns, piece.high_ns) for _, low_ns, high_ns in following
    )


def _nearest(ahead_ns: int, low_ns: int, high_ns: int) -> int:
    """Return what lies between the bounds and nearest to *ahead_ns*, with a margin where there is room.

    Not the middle: of a long request only the begin or the end may be near to what it is compared with.
    """
    margin_ns = min(_MARGIN_NS, (high_ns - low_ns) // 2)
    return low_ns + margin_ns if ahead_ns < low_ns else high_ns - margin_ns
