"""Several capture points: sorting, merging, joining what two of them saw, and their clocks."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.capture.clocks import ClockEstimates, read_ahead
from tracer.capture.points import CORRECT_NS, WINDOW_NS, Clocks, in_time_order, join_sightings, merge
from tracer.model import Capture, Segment, SegmentFields

MS = 1_000_000
START_NS = 1_700_000_000_000_000_000
FLOW = bytes((10, 0, 0, 1, 10, 0, 0, 2, 0x9C, 0x40, 0x22, 0x46))


def segment(
    time_ns: int, seq: int = 0, capture: int = 0, number: int = 1, *, ip_id: int = 1, payload: bytes = b"x"
) -> Segment:
    """Return a segment of one flow; *time_ns* counts from the start of the test."""
    frames = ((capture, number),)
    return Segment(START_NS + time_ns, FLOW, seq, 0, 16, payload, 0, ip_id, frames)


def batches(segments: Iterable[SegmentFields], size: int = 3) -> Iterator[list[SegmentFields]]:
    given = list(segments)
    return (given[at : at + size] for at in range(0, len(given), size))


def flat(found: Iterable[list[SegmentFields]]) -> list[Segment]:
    return [Segment._make(segment) for batch in found for segment in batch]


def ordered(segments: Iterable[SegmentFields], size: int = 1) -> list[Segment]:
    return flat(in_time_order(batches(segments, size)))


def estimates(count: int = 2) -> ClockEstimates:
    return ClockEstimates([Capture(number, f"{number}.pcap") for number in range(count)])


def joined(
    first: list[Segment], second: list[Segment], clocks: ClockEstimates | None = None
) -> list[Segment]:
    clocks = clocks or estimates()
    streams = [read_ahead(batches(each), at, clocks) for at, each in enumerate((first, second))]
    return flat(join_sightings(merge(streams, clocks), Clocks()))


def times(segments: Sequence[SegmentFields]) -> list[int]:
    return [s[0] - START_NS for s in segments]


# --- one capture ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given_times",
    [[], [5], [1, 2, 3], [1, 1, 1], [1, 5, 4, 6], [1, 2, 9, 7, 8, 3 * WINDOW_NS], [1, 9, 8, 7, 30, 29]],
)
def test_in_time_order_loses_nothing(given_times: list[int]) -> None:
    """Every segment comes out once, whatever the order."""
    found = ordered(segment(t, seq=i) for i, t in enumerate(given_times))
    assert sorted(s.seq for s in found) == list(range(len(given_times)))


@settings(deadline=None)
@given(st.lists(st.integers(0, 3 * MS), max_size=80), st.randoms(use_true_random=False))
def test_in_time_order_sorts_what_is_late(steps: list[int], rng: random.Random) -> None:
    """Late by no more than the window: sorted, from the first inversion between two batches on."""
    true = [0]
    for step in steps:
        true.append(true[-1] + step)
    late = [t for _, t in sorted((t + rng.uniform(0, WINDOW_NS * 0.99), t) for t in true)]
    found = times(ordered((segment(t) for t in late), size=len(late)))
    assert found == sorted(late)
    # The largest of what went out before the first inversion can be later than what came then.
    inversion = next((at for at in range(1, len(late)) if late[at] < late[at - 1]), len(late))
    found = times(ordered(segment(t) for t in late))
    assert sorted(found) == sorted(late)
    assert found[inversion - 1 :] == sorted(found[inversion - 1 :])


@given(st.lists(st.integers(0, 3 * MS), max_size=60), st.integers(1, 70))
def test_whole_batches_are_sorted_from_the_first_on(given_times: list[int], size: int) -> None:
    """What is late by less than the window comes out in order, but for what had gone out before it came."""
    found = ordered((segment(t, seq=i) for i, t in enumerate(given_times)), size)
    assert sorted(s.seq for s in found) == list(range(len(given_times)))
    if size >= len(given_times):
        assert [(s.time_ns, s.seq) for s in found] == sorted((s.time_ns, s.seq) for s in found)


def test_equal_times_keep_their_order() -> None:
    """The order of the file is the order of the wire where the clock cannot tell (Homer #366)."""
    given_times = [5, 3, 7, 7, 6, 6, 7]
    found = ordered(segment(t, seq=i) for i, t in enumerate(given_times))
    assert [s.seq for s in found if s.time_ns - START_NS == 7] == [2, 3, 6]
    assert [s.seq for s in found if s.time_ns - START_NS == 6] == [4, 5]


def test_what_is_later_than_the_window_is_given_all_the_same() -> None:
    """A record that is seconds late is not lost and does not stop the others."""
    late = [0, 10 * WINDOW_NS, 5 * WINDOW_NS, 20 * WINDOW_NS, 1, 21 * WINDOW_NS]
    assert sorted(times(ordered(segment(t) for t in late))) == sorted(late)


# --- several captures -----------------------------------------------------------------------------


def test_merge_is_by_time() -> None:
    """Three captures, one of them empty, one that goes on alone."""
    first = [segment(t * MS, capture=0) for t in (1, 4, 6)]
    second = [segment(t * MS, capture=1) for t in (2, 3, 5, 7, 8, 9)]
    found = flat(merge(map(batches, (first, [], second))))
    assert times(found) == [t * MS for t in range(1, 10)]


@pytest.mark.parametrize("ahead", [CORRECT_NS - 1, -(CORRECT_NS - 1), 0])
def test_small_differences_are_not_the_clock(ahead: int) -> None:
    """The way from one point to the other takes time, too."""
    clocks = Clocks()
    clocks.learn(1, 0, ahead)
    assert clocks.offset_ns(1) == 0 and clocks.offset_ns(0) == 0


@pytest.mark.parametrize("ahead", [5 * MS, -5 * MS, CORRECT_NS, 20 * MS])
def test_an_offset_is_learnt_from_one_packet(ahead: int) -> None:
    """And the one who is first in the list is the reference."""
    clocks = Clocks()
    clocks.learn(1, 0, ahead)
    assert (clocks.offset_ns(0), clocks.offset_ns(1)) == (0, ahead)


def test_offsets_add_up_along_a_chain() -> None:
    """Points 0 and 2 never saw the same packet; both share some with 1."""
    clocks = Clocks()
    clocks.learn(1, 0, 3 * MS)
    clocks.learn(2, 1, 4 * MS)
    assert clocks.offset_ns(2) == 7 * MS


def test_the_reference_can_be_learnt_behind_the_other() -> None:
    """A point that is only ever the earlier one of a pair gets its offset, too."""
    clocks = Clocks()
    clocks.learn(1, 0, 3 * MS)
    clocks.learn(1, 2, 1 * MS)
    assert clocks.offset_ns(2) == 2 * MS


def test_one_late_packet_does_not_move_a_clock() -> None:
    """The average is slow."""
    clocks = Clocks()
    for _ in range(100):
        clocks.learn(1, 0, 5 * MS)
    clocks.learn(1, 0, 15 * MS)
    assert abs(clocks.offset_ns(1) - 5 * MS) < MS // 4


def test_a_drifting_clock_is_followed() -> None:
    """5 µs a second over ten minutes is 3 ms."""
    clocks = Clocks()
    for second in range(600):
        clocks.learn(1, 0, 5 * MS + 5_000 * second)
    assert abs(clocks.offset_ns(1) - 8 * MS) < MS // 2


# --- one packet, two sightings --------------------------------------------------------------------


def points(
    count: int, skew_ns: int, *, delay_ns: int = 100_000, every_ns: int = MS
) -> tuple[list[Segment], list[Segment]]:
    """Return what two points saw of *count* packets, the second *delay_ns* later by a clock that is ahead."""
    ids = [(i * 7919) & 0xFFFF for i in range(1, count + 1)]
    first = [segment(i * every_ns, i, 0, i + 1, ip_id=ids[i]) for i in range(count)]
    second = [segment(i * every_ns + delay_ns + skew_ns, i, 1, i + 1, ip_id=ids[i]) for i in range(count)]
    return first, second


@pytest.mark.parametrize("skew_ms", [-5, -1, 0, 1, 5])
def test_copies_are_joined_whatever_the_clocks(skew_ms: int) -> None:
    """A packet that two points saw is one segment with both frames, in the order of the wire."""
    first, second = points(300, skew_ms * MS)
    clocks = estimates()
    found = joined(first, second, clocks)
    assert len(found) == 300
    assert [s.seq for s in found] == list(range(300))
    assert all({capture for capture, _ in s.frames} == {0, 1} for s in found)
    assert all(s.frames[0][1] == s.frames[1][1] for s in found)
    apart = clocks.ahead(1, START_NS)[0] - clocks.ahead(0, START_NS)[0]
    assert abs(apart - skew_ms * MS) <= CORRECT_NS


@pytest.mark.parametrize("skew_ms", [-5, 5])
def test_cause_stays_before_effect_on_packets_that_one_point_saw(skew_ms: int) -> None:
    """Once the clocks are known, a question seen only here and its answer seen only there are in order."""
    first, second = points(100, skew_ms * MS)
    for i in range(100, 200):
        (first if i % 2 == 0 else second).append(
            segment(i * MS + (skew_ms * MS if i % 2 else 0), i, i % 2, i + 1, ip_id=i)
        )
    found = [s[2] for s in joined(first, second)]
    assert sorted(found) == list(range(200))
    assert found == list(range(200))


def test_a_retransmission_is_not_a_second_sighting() -> None:
    """Same bytes, another IP identification: two packets, each with its frame."""
    first = [segment(0, 1, 0, 1, ip_id=10), segment(5 * MS, 1, 0, 2, ip_id=11)]
    second = [segment(5 * MS + 1, 1, 1, 1, ip_id=11)]
    found = joined(first, second)
    assert [s.frames for s in found] == [((0, 1),), ((0, 2), (1, 1))]


def test_the_same_point_twice_stays_two() -> None:
    """Copies within one capture (SPAN) are left to reassembly, which counts them."""
    one = [segment(0, 1, 0, 1), segment(10, 1, 0, 2)]
    two = [segment(20, 1, 1, 1)]
    found = joined(one, two)
    assert len(found) == 2
    assert sorted(frame for s in found for frame in s.frames) == [(0, 1), (0, 2), (1, 1)]


def test_sightings_too_far_apart_are_two() -> None:
    """An IP identification comes again after 65536 packets."""
    one, two = [segment(0, 1, 0, 1)], [segment(2 * WINDOW_NS, 1, 1, 1)]
    assert len(joined(one, two)) == 2


def test_other_payload_lengths_are_other_packets() -> None:
    """Segmentation offload: a host sees one large segment, the wire several small ones."""
    one = [segment(0, 1, 0, 1, payload=b"x" * 2000)]
    two = [segment(1, 1, 1, 1, payload=b"x" * 1000), segment(2, 1001, 1, 2, payload=b"x" * 1000)]
    assert len(joined(one, two)) == 3
