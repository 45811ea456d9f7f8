"""Several capture points, one stream of segments in time order, in batches as they were read.

Three things happen here, all of them cheap when there is nothing to do: records of one capture that
are slightly out of time order are sorted; captures are merged by time; a packet that several capture
points saw becomes one segment with several frames. The clocks of the points are compared on such
packets, and a point whose clock differs is corrected, so that cause stays before effect.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import itemgetter

from tracer.model import Segment, SegmentFields

__all__ = ["Clocks", "Sightings", "in_time_order", "join_sightings", "merge"]

WINDOW_NS = 20_000_000
"""How far records of one capture may be out of order, and how far the copies of one packet may lie
apart (kernel buffers: up to 5 ms seen; clocks of one site: a few ms)."""
CORRECT_NS = 400_000
"""Smaller differences are the way of the packet (up to 322 µs seen), not the clock."""

_TIME = itemgetter(0)
"""Of a segment."""
_NEVER_NS = 1 << 80


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


def in_time_order(
    batches: Iterable[list[SegmentFields]], window_ns: int = WINDOW_NS
) -> Iterator[list[SegmentFields]]:
    """Yield the segments of *batches* by time, if none is late by more than *window_ns*.

    Nothing is held back before the first inversion: most captures have none.
    """
    last_ns = 0
    iterator = iter(batches)
    waiting: list[SegmentFields] = []
    for batch in iterator:
        times = list(map(_TIME, batch))
        if times and (times[0] < last_ns or times != sorted(times)):
            waiting = batch
            break
        if batch:
            last_ns = times[-1]
            yield batch
    for batch in chain([[]], iterator):
        # Nearly sorted, which costs little.
        waiting = sorted(waiting + batch, key=_TIME)
        if waiting:
            ready = bisect_right(waiting, waiting[-1][0] - window_ns, key=_TIME)
            if ready:
                yield waiting[:ready]
                waiting = waiting[ready:]
    if waiting:
        yield waiting


def merge(
    captures: Iterable[Iterator[list[SegmentFields]]], clocks: Clocks | None = None
) -> Iterator[list[SegmentFields]]:
    """Yield the segments of all *captures*, each in time order, by time (corrected by *clocks*)."""
    heads: list[tuple[int, int, list[SegmentFields], int, Iterator[list[SegmentFields]]]] = []
    for position, iterator in enumerate(captures):
        first = next(filter(None, iterator), None)
        if first is not None:
            heads.append((first[0][0], position, first, 0, iterator))
    heapq.heapify(heads)
    while heads:
        _, position, batch, at, iterator = heapq.heappop(heads)
        other_ns = heads[0][0] if heads else _NEVER_NS
        # Only a change of capture re-reads the clock: within a run of packets of one capture nothing
        # new is learnt about it.
        offset_ns = clocks.offset_ns(_capture_of(batch[at])) if clocks else 0
        while batch:
            end = len(batch)
            if batch[-1][0] - offset_ns > other_ns:
                # At least one: it was the earliest when it was put here, by the clock of then.
                end = max(at + 1, bisect_right(batch, other_ns + offset_ns, at, key=_TIME))
            part = batch[at:end] if end - at < len(batch) else batch
            yield [_earlier(segment, offset_ns) for segment in part] if offset_ns else part
            if end < len(batch):
                heapq.heappush(heads, (batch[end][0] - offset_ns, position, batch, end, iterator))
                break
            batch, at = next(filter(None, iterator), []), 0
            if batch and batch[0][0] - offset_ns > other_ns:
                heapq.heappush(heads, (batch[0][0] - offset_ns, position, batch, 0, iterator))
                break


def _capture_of(segment: SegmentFields) -> int:
    return segment[8][0][0]


def _earlier(segment: SegmentFields, by_ns: int) -> SegmentFields:
    return (segment[0] - by_ns, *segment[1:])


class Sightings:
    """Makes one segment, with a frame for every capture, of what several captures saw within *window_ns*.

    Two sightings are one packet when flow, sequence numbers, flags, length and IP identification are
    the same: the header of a retransmission has another identification.
    """

    def __init__(self, clocks: Clocks, window_ns: int = WINDOW_NS) -> None:
        self._clocks = clocks
        self._window_ns = window_ns
        self._held: OrderedDict[tuple[bytes, int, int, int, int, int], SegmentFields] = OrderedDict()
        self._serial = 0

    def read(self, batch: Iterable[SegmentFields]) -> list[SegmentFields]:
        """Take *batch*, in time order, and return those that no other capture can have seen any more."""
        held, clocks, window_ns = self._held, self._clocks, self._window_ns
        joined = []
        for segment in batch:
            time_ns, flow, seq, ack, flags, payload, _, ip_id, frames, _, _ = segment
            while held:
                key, oldest = next(iter(held.items()))
                if time_ns - oldest[0] <= window_ns:
                    break
                del held[key]
                joined.append(oldest)
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
                self._serial += 1
                held[flow, seq, ack, flags, -self._serial, ip_id] = segment
        return joined

    def release(self, until_ns: int) -> list[SegmentFields]:
        """Return what is held and older than *until_ns*."""
        ready: list[SegmentFields] = []
        held = self._held
        while held:
            key, oldest = next(iter(held.items()))
            if oldest[0] >= until_ns:
                break
            del held[key]
            ready.append(oldest)
        return ready

    def holds(self) -> bool:
        """Return whether segments wait for other sightings of theirs."""
        return bool(self._held)

    def flush(self) -> list[SegmentFields]:
        """Return all that is held."""
        ready = list(self._held.values())
        self._held.clear()
        return ready


def join_sightings(
    batches: Iterable[list[SegmentFields]], clocks: Clocks, window_ns: int = WINDOW_NS
) -> Iterator[list[SegmentFields]]:
    """Yield each packet once, with a frame for every capture that saw it within *window_ns*."""
    sightings = Sightings(clocks, window_ns)
    for batch in batches:
        joined = sightings.read(batch)
        if joined:
            yield joined
    yield sightings.flush()
