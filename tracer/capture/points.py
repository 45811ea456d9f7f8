"""Merging of several capture points into one stream of segments in time order.

Batches stay as they were read. Three steps, each of them cheap if there is nothing to do: records of one
capture that are slightly out of order are sorted; captures are merged by time; a packet that several points
saw becomes one segment with several frames. Such packets also show how far the clocks of the points differ.
The times of a point with a different clock are corrected, so that a cause stays before its effect.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter

from tracer.capture.clocks import ClockEstimates
from tracer.model import Clock, Segment, SegmentFields, reverse_flow

__all__ = ["Clocks", "Sightings", "in_time_order", "join_sightings", "merge"]

WINDOW_NS = 20_000_000
"""Largest distance of two copies of one packet. Kernel buffers were seen to cause up to 5 ms."""
LATE_NS = 120_000_000
"""Largest disorder of the records of one capture: several queues of a card, a merge of files."""
TRIALS = 64
"""Inversions that are examined. A capture with more of them has late packets."""
CORRECT_NS = 400_000
"""Smaller differences are the packet's travel time (up to 322 µs were seen), not a difference of clocks."""

_TIME = itemgetter(0)
"""Key of a segment: its time."""
_HALF, _MASK = 1 << 31, (1 << 32) - 1
_ACK = 16
_SEVERAL = 3
_FAR_NS = 60_000_000_000


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
    batches: Iterable[list[SegmentFields]], window_ns: int = LATE_NS, clock: Clock | None = None
) -> Iterator[list[SegmentFields]]:
    """Yield the segments of *batches* in time order, if none is late by more than *window_ns*.

    A clock that was set back goes on from its latest time: what is added is written into *clock*. Before the
    first inversion one batch at most is held back. Most captures have none.
    """
    iterator = iter(batches)
    waiting: list[SegmentFields] = []
    begun_ns = None
    for batch in iterator:
        times = list(map(_TIME, batch))
        if begun_ns is None and times:
            begun_ns = times[0]
        if times and ((waiting and times[0] < waiting[-1][0]) or times != sorted(times)):
            break
        if waiting:
            yield waiting
        waiting = batch
    else:
        batch = []
    steps = _StepsBack(clock, begun_ns or 0)
    held = deque([waiting] if waiting else [])
    """Batches in time order, each behind the one before it."""
    for each in filter(None, chain([batch], iterator)):
        moved = steps.moved(each)
        if steps.is_next(held, moved):
            held.append(moved)
        else:
            waiting = steps.undone([*chain.from_iterable(held)], moved)
            # Python's sort takes nearly linear time for nearly sorted lists.
            waiting.sort(key=_TIME)
            held = deque([waiting])
        # Whole batches: a cut would copy the segments of each batch twice.
        until_ns = held[-1][-1][0] - window_ns
        while held and held[0][-1][0] <= until_ns:
            yield held.popleft()
    yield from held


class _StepsBack:
    """Finds where a clock was set back within one capture, and undoes it.

    Packets that come late are out of order by their place, and in order by their times: sequence numbers
    tell. Where a clock was set back it is the other way round.
    """

    def __init__(self, clock: Clock | None, begun_ns: int) -> None:
        self._clock = clock
        self._begun_ns = begun_ns
        self._added_ns = 0
        self._left = TRIALS if clock is not None else 0
        self._newest_ns = 0

    def moved(self, batch: list[SegmentFields]) -> list[SegmentFields]:
        """Return *batch* by the clock as it was before it was set back."""
        if not self._added_ns:
            return batch
        return [(segment[0] + self._added_ns, *segment[1:]) for segment in batch]

    def is_next(self, held: Sequence[Sequence[SegmentFields]], batch: list[SegmentFields]) -> bool:
        """Return whether *batch* is in time order, and behind *held*, which is."""
        newest_ns = max(self._newest_ns, held[-1][-1][0] if held else 0)
        times = list(map(_TIME, batch))
        if times[0] < newest_ns or times != sorted(times):
            return False
        self._reached(times[-1])
        return True

    def undone(self, before: list[SegmentFields], batch: list[SegmentFields]) -> list[SegmentFields]:
        """Return *before*, which is in time order, and *batch*, which is not, behind it."""
        newest_ns = max(self._newest_ns, before[-1][0] if before else 0)
        whole = before + batch
        if self._left:
            newest_ns = self._look(whole, len(before), newest_ns)
        else:
            newest_ns = max(newest_ns, *map(_TIME, batch))
        self._reached(newest_ns)
        return whole

    def _reached(self, newest_ns: int) -> None:
        self._newest_ns = newest_ns
        if self._clock is not None:
            self._clock.reached_ns = newest_ns

    def _look(self, whole: list[SegmentFields], start: int, newest_ns: int) -> int:
        """Undo steps back in *whole* from *start* on; return its latest time."""
        for at in range(start, len(whole)):
            time_ns = whole[at][0]
            if time_ns >= newest_ns:
                newest_ns = time_ns
            elif self._left:
                back_ns = newest_ns - time_ns
                if _is_set_back(whole[max(0, at - 512) : at], whole[at : at + 512], newest_ns):
                    # Its own time, which boundaries of clocks are told by.
                    back_ns += 1
                    whole[at:] = [(s[0] + back_ns, *s[1:]) for s in whole[at:]]
                    self._added_ns += back_ns
                    if self._clock is not None:
                        self._clock.add(newest_ns + 1, self._added_ns)
                        self._clock.steps_back += 1
                        self._clock.begun_ns = self._begun_ns
                else:
                    self._left -= 1
        return newest_ns


def _is_set_back(earlier: Sequence[SegmentFields], later: Sequence[SegmentFields], newest_ns: int) -> bool:
    """Return whether *later*, which begins before *newest_ns* by its times, belongs behind *earlier*."""
    since_ns = later[0][0]
    back_ns = newest_ns - since_ns
    if back_ns > _FAR_NS and len(earlier) > 1 and earlier[-1][0] - earlier[-2][0] >= back_ns:
        # One record alone is ahead: its time is wrong.
        return False
    ends: dict[bytes, tuple[int, int, int, int]] = {}
    for time_ns, flow, seq, ack, flags, payload, *_ in earlier:
        if time_ns > since_ns:
            ends[flow] = seq, len(payload) + (flags & 1), ack, time_ns
    votes = 0
    seen = set()
    for time_ns, flow, seq, ack, flags, payload, *_ in later:
        if time_ns >= newest_ns:
            break
        known = ends.get(flow)
        # Only where place and time contradict each other does either say anything.
        if known is not None and flow not in seen and time_ns < known[3]:
            seen.add(flow)
            moved = (seq - known[0] + _HALF & _MASK) - _HALF
            if moved:
                votes += 1 if moved >= known[1] > 0 or (moved > 0 and known[1] == 0) else -1
        other = ends.get(reverse_flow(flow))
        if other is not None and flags & _ACK and time_ns < other[3]:
            size = len(payload) + (flags & 1)
            if other[1] and (ack - other[0] - other[1] & _MASK) < _HALF:
                votes += 1
            elif size and (other[2] - seq - size & _MASK) < _HALF:
                votes -= 1
    if not votes and back_ns > LATE_NS:
        # So late comes no packet, let alone several.
        return len(later) >= _SEVERAL and all(segment[0] < newest_ns for segment in later[:_SEVERAL])
    return votes > 0


@dataclass(slots=True, eq=False)
class _InHand:
    """What was read of one capture and not yet handed on. Never empty."""

    batch: list[SegmentFields]
    at: int
    rest: Iterator[list[SegmentFields]]
    ahead_ns: int = 0
    """How far its clock is ahead at `at`."""
    end: int = 0
    """Up to where in the batch that holds."""

    def correct_by(self, clocks: ClockEstimates) -> None:
        """Look up how far the clock is ahead from `at` on."""
        first = self.batch[self.at]
        self.ahead_ns, until_ns = clocks.ahead(_capture_of(first), first[0])
        self.end = len(self.batch)
        if self.batch[-1][0] >= until_ns:
            # At least one segment, so that the merge moves on.
            self.end = max(self.at + 1, bisect_right(self.batch, until_ns - 1, self.at, key=_TIME))

    def last_ns(self) -> int:
        """Return the corrected time up to which all is in hand."""
        return self.batch[self.end - 1][0] - self.ahead_ns

    def take(self, until_ns: int) -> list[SegmentFields]:
        """Return the segments up to *until_ns* of corrected time. Their times are not corrected yet."""
        batch, at, until_ns = self.batch, self.at, until_ns + self.ahead_ns
        if batch[at][0] > until_ns:
            return []
        end = self.end
        if batch[end - 1][0] > until_ns:
            end = bisect_right(batch, until_ns, at, end, key=_TIME)
        self.at = end
        return batch[at:end] if end - at < len(batch) else batch

    def reads_on(self) -> bool:
        """Read the next batch once this one is used up; return False at the end of the capture."""
        if self.at == len(self.batch):
            self.batch, self.at = next(filter(None, self.rest), []), 0
        self.end = len(self.batch)
        return bool(self.batch)


def merge(
    captures: Iterable[Iterator[list[SegmentFields]]], clocks: ClockEstimates | None = None
) -> Iterator[list[SegmentFields]]:
    """Yield the segments of all *captures* in time order; *clocks* corrects the times.

    Each capture must be in time order by itself. Corrections are written into the clock of each capture. Of
    segments of one time those of the earlier capture come first.
    """
    # Each round hands on all that no later batch can precede. Sorting does it, not a heap of single segments:
    # on parts that are in order by themselves it only merges.
    found = [_InHand([], 0, iter(capture)) for capture in captures]
    hands = [hand for hand in found if hand.reads_on()]
    if len(hands) < 2:
        clocks = None
    version = -1
    reached_ns: dict[int, int] = {}
    while hands:
        if clocks is not None:
            settled = clocks.settled()
            for hand in hands:
                # `end` is the whole batch where it is new, or where a correction ended before it.
                if settled != version or hand.end == len(hand.batch):
                    hand.correct_by(clocks)
            version = settled
        until_ns = min(hand.last_ns() for hand in hands)
        parts = []
        for hand in hands:
            part = hand.take(until_ns)
            if part:
                if clocks is not None:
                    part = clocks.correct(_capture_of(part[0]), part, hand.ahead_ns, reached_ns)
                parts.append(part)
        yield parts[0] if len(parts) == 1 else sorted(chain.from_iterable(parts), key=_TIME)
        hands = [hand for hand in hands if hand.at < hand.end or hand.reads_on()]


def _capture_of(segment: SegmentFields) -> int:
    return segment[8][0][0]


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
