"""Several capture points, one stream of segments in time order.

Three things happen here, all of them cheap when there is nothing to do: records of one capture that
are slightly out of time order are sorted; captures are merged by time; a packet that several capture
points saw becomes one segment with several frames. The clocks of the points are compared on such
packets, and a point whose clock differs is corrected, so that cause stays before effect.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator

from tracer.model import Segment, SegmentFields

__all__ = ["Clocks", "in_time_order", "join_sightings", "merge"]

WINDOW_NS = 20_000_000
"""How far records of one capture may be out of order, and how far the copies of one packet may lie
apart (kernel buffers: up to 5 ms seen; clocks of one site: a few ms)."""
CORRECT_NS = 400_000
"""Smaller differences are the way of the packet (up to 322 µs seen), not the clock."""


class Clocks:
    """How far the clock of each capture is ahead of the first one's, learnt from shared packets."""

    def __init__(self) -> None:
        self._offset: dict[int, float] = {}
        self._samples: dict[int, int] = {}

    def learn(self, capture: int, reference: int, ahead_ns: int) -> None:
        """Take one packet that *capture* saw *ahead_ns* later than *reference*, by raw clocks."""
        known = self._offset
        if reference not in known and capture not in known:
            known[reference] = 0.0
        if capture not in known:
            known[capture] = known[reference] + ahead_ns
        elif reference not in known:
            known[reference] = known[capture] - ahead_ns
        else:
            # A slow average: single packets are late, clocks drift by some µs a second.
            samples = self._samples[capture] = min(self._samples.get(capture, 1) + 1, 64)
            known[capture] += (known[reference] + ahead_ns - known[capture]) / samples

    def offset_ns(self, capture: int) -> int:
        """Return what to take off times of *capture*; 0 for differences too small to matter."""
        offset = self._offset.get(capture, 0.0)
        return int(offset) if abs(offset) >= CORRECT_NS else 0


def in_time_order(segments: Iterable[SegmentFields], window_ns: int = WINDOW_NS) -> Iterator[SegmentFields]:
    """Yield *segments* by time, if none is late by more than *window_ns*.

    Sorting starts at the first inversion: most captures have none and pay one comparison a packet.
    """
    last_ns = 0
    iterator = iter(segments)
    for segment in iterator:
        if segment[0] < last_ns:
            break
        last_ns = segment[0]
        yield segment
    else:
        return
    waiting = deque([segment])
    newest_ns = segment[0]
    for segment in iterator:
        time_ns = segment[0]
        if time_ns >= newest_ns:
            newest_ns = time_ns
            waiting.append(segment)
            until_ns = time_ns - window_ns
            while waiting[0][0] <= until_ns:
                yield waiting.popleft()
        else:
            # Inversions are rare and short: look for the place from the end.
            at = len(waiting)
            while at and waiting[at - 1][0] > time_ns:
                at -= 1
            waiting.insert(at, segment)
    yield from waiting


def merge(
    captures: Iterable[Iterator[SegmentFields]], clocks: Clocks | None = None
) -> Iterator[SegmentFields]:
    """Yield the segments of all *captures*, each in time order, by time (corrected by *clocks*)."""
    heads: list[tuple[int, int, SegmentFields, Iterator[SegmentFields]]] = []
    for position, iterator in enumerate(captures):
        first = next(iterator, None)
        if first is not None:
            heads.append((first[0], position, first, iterator))
    heapq.heapify(heads)
    while len(heads) > 1:
        _, position, segment, iterator = heapq.heappop(heads)
        other_ns = heads[0][0]
        offset_ns = clocks.offset_ns(_capture_of(segment)) if clocks else 0
        yield _earlier(segment, offset_ns) if offset_ns else segment
        for segment in iterator:
            # Only a change of capture re-reads the clock: within a run of packets of one capture
            # nothing new is learnt about it.
            if segment[0] - offset_ns > other_ns:
                heapq.heappush(heads, (segment[0] - offset_ns, position, segment, iterator))
                break
            yield _earlier(segment, offset_ns) if offset_ns else segment
    for _, _, segment, iterator in heads:
        offset_ns = clocks.offset_ns(_capture_of(segment)) if clocks else 0
        if offset_ns:
            yield _earlier(segment, offset_ns)
            for segment in iterator:
                yield _earlier(segment, offset_ns)
        else:
            yield segment
            yield from iterator


def _capture_of(segment: SegmentFields) -> int:
    return segment[8][0][0]


def _earlier(segment: SegmentFields, by_ns: int) -> SegmentFields:
    return (segment[0] - by_ns, *segment[1:])


def join_sightings(
    segments: Iterable[SegmentFields], clocks: Clocks, window_ns: int = WINDOW_NS
) -> Iterator[SegmentFields]:
    """Yield each packet once, with a frame for every capture that saw it within *window_ns*.

    Two sightings are one packet when flow, sequence numbers, flags, length and IP identification are
    the same: the header of a retransmission has another identification.
    """
    held: OrderedDict[tuple[bytes, int, int, int, int, int], SegmentFields] = OrderedDict()
    serial = 0
    for segment in segments:
        time_ns, flow, seq, ack, flags, payload, _, ip_id, frames, _, _ = segment
        while held:
            key, oldest = next(iter(held.items()))
            if time_ns - oldest[0] <= window_ns:
                break
            del held[key]
            yield oldest
        same = (flow, seq, ack, flags, len(payload), ip_id)
        seen = held.get(same)
        capture = frames[0][0]
        if seen is None:
            held[same] = segment
        elif all(number != capture for number, _ in seen[8]):
            first = _capture_of(seen)
            raw_ns = time_ns + clocks.offset_ns(capture)
            seen_ns = seen[0] + clocks.offset_ns(first)
            clocks.learn(capture, first, raw_ns - seen_ns)
            held[same] = Segment._make(seen)._replace(frames=seen[8] + frames)
        else:
            # The same point saw it twice (SPAN, bridges): reassembly counts it as a duplicate.
            serial += 1
            held[flow, seq, ack, flags, -serial, ip_id] = segment
    yield from held.values()
