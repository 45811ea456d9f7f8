"""Merging of several capture points into one stream of segments in time order.

Batches stay as they were read. Three steps, each of them cheap if there is nothing to do: records of one
capture that are slightly out of order are sorted; captures are merged by time; a packet that several points
saw becomes one segment with several frames. Such packets also show how far the clocks of the points differ.
The times of a point with a different clock are corrected, so that a cause stays before its effect.
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
"""Largest disorder of the records of one capture, and largest distance of two copies of one packet. Kernel
buffers were seen to cause up to 5 ms; the clocks of one site differ by a few ms."""
CORRECT_NS = 400_000
"""Smaller differences are the packet's travel time (up to 322 µs were seen), not a difference of clocks."""

_TIME = itemgetter(0)
"""Key of a segment: its time."""
_NEVER_NS = 1 << 80
"""Later than every time."""


class Clocks:
    """The offset of each capture's clock from the first one's, learnt from packets that both saw."""

    def __init__(self) -> None:
        self._offset: dict[int, float] = {}
        self._samples: dict[int, int] = {}

    def learn(self, capture: int, reference: int, ahead_ns: int) -> None:
        """Learn from a packet that *capture* saw *ahead_ns* later than *reference*, by uncorrected clocks."""
        known = self._offset
        if reference not in known and capture not in known:
            known[reference] = 0.0
        if capture not in known:
            known[capture] = known[reference] + ahead_ns
        elif reference not in known:
            known[reference] = known[capture] - ahead_ns
        else:
            # A running average over up to 64 packets: single packets are late, and clocks drift by some µs a
            # second.
            samples = self._samples[capture] = min(self._samples.get(capture, 1) + 1, 64)
            known[capture] += (known[reference] + ahead_ns - known[capture]) / samples

    def offset_ns(self, capture: int) -> int:
        """Return the correction to subtract from times of *capture*; 0 for small differences."""
        offset = self._offset.get(capture, 0.0)
        return int(offset) if abs(offset) >= CORRECT_NS else 0


def in_time_order(
    batches: Iterable[list[SegmentFields]], window_ns: int = WINDOW_NS
) -> Iterator[list[SegmentFields]]:
    """Yield the segments of *batches* in time order, if none is late by more than *window_ns*.

    Before the first inversion nothing is held back. Most captures have none.
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
        # Python's sort takes nearly linear time for nearly sorted lists.
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
    """Yield the segments of all *captures* in time order; *clocks* corrects the times.

    Each capture must be in time order by itself.
    """
    # One entry for each capture: time of its next segment, position (to break ties), batch, index of the next
    # segment in it, iterator.
    heads: list[tuple[int, int, list[SegmentFields], int, Iterator[list[SegmentFields]]]] = []
    for position, iterator in enumerate(captures):
        first = next(filter(None, iterator), None)
        if first is not None:
            heads.append((first[0][0], position, first, 0, iterator))
    heapq.heapify(heads)
    while heads:
        _, position, batch, at, iterator = heapq.heappop(heads)
        other_ns = heads[0][0] if heads else _NEVER_NS
        # The clock is read again only at a change of capture: a run of packets of one capture shows nothing
        # new about it.
        offset_ns = clocks.offset_ns(_capture_of(batch[at])) if clocks else 0
        while batch:
            end = len(batch)
            if batch[-1][0] - offset_ns > other_ns:
                # At least one segment, so that the loop moves on: it was the earliest by the clock correction
                # of the moment when it was pushed, which may have changed since.
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
    """Joins the copies of one packet that several captures saw within *window_ns* to one segment.

    The segment has a frame for each capture. Two copies are one packet if flow, sequence numbers, flags,
    length and IP identification are equal; a retransmission has another identification.
    """

    def __init__(self, clocks: Clocks, window_ns: int = WINDOW_NS) -> None:
        self._clocks = clocks
        self._window_ns = window_ns
        self._held: OrderedDict[tuple[bytes, int, int, int, int, int], SegmentFields] = OrderedDict()
        self._serial = 0

    def read(self, batch: Iterable[SegmentFields]) -> list[SegmentFields]:
        """Add *batch*, in time order; return the segments of which no further copy can come."""
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
                # The times here are corrected already; the offsets undo that for the comparison.
                raw_ns = time_ns + clocks.offset_ns(capture)
                seen_ns = seen[0] + clocks.offset_ns(first)
                clocks.learn(capture, first, raw_ns - seen_ns)
                held[same] = Segment._make(seen)._replace(frames=seen[8] + frames)
            else:
                # The same capture saw it twice (SPAN ports, bridges). It stays a segment of its own, under a
                # key that matches nothing, and reassembly counts it as a duplicate.
                self._serial += 1
                held[flow, seq, ack, flags, -self._serial, ip_id] = segment
        return joined

    def release(self, until_ns: int) -> list[SegmentFields]:
        """Return the held segments that are older than *until_ns*."""
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
        """Return whether segments are held, waiting for further copies."""
        return bool(self._held)

    def flush(self) -> list[SegmentFields]:
        """Return all held segments."""
        ready = list(self._held.values())
        self._held.clear()
        return ready


def join_sightings(
    batches: Iterable[list[SegmentFields]], clocks: Clocks, window_ns: int = WINDOW_NS
) -> Iterator[list[SegmentFields]]:
    """Yield each packet once, with a frame for each capture that saw it within *window_ns*."""
    sightings = Sightings(clocks, window_ns)
    for batch in batches:
        joined = sightings.read(batch)
        if joined:
            yield joined
    yield sightings.flush()
