"""Clocks of captures against each other: offsets, drift and steps, from requests and from packets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from tracer.capture.clocks import ClockEstimates, read_ahead
from tracer.capture.points import in_time_order, merge
from tracer.model import Capture, Clock, Segment, SegmentFields

MS = 1_000_000
S = 1_000 * MS
START_NS = 1_700_000_000 * S

OUTER, INNER = bytes((10, 0, 0, 1, 10, 0, 0, 2)), bytes((10, 1, 0, 1, 10, 1, 0, 2))
Move = Callable[[int], int]


def flow(addresses: bytes, port: int, *, back: bool = False) -> bytes:
    ports = port.to_bytes(2), (8774).to_bytes(2)
    if back:
        return addresses[4:] + addresses[:4] + ports[1] + ports[0]
    return addresses + ports[0] + ports[1]


def leg(addresses: bytes, number: int, begin_ns: int, end_ns: int, capture: int) -> list[Segment]:
    """Return the request and the answer of one leg; *number* makes the request id."""
    forwarded = b"x-forwarded-for: 10.0.0.1\r\n" if addresses is INNER else b""
    request = b"GET /v2.1/servers HTTP/1.1\r\nhost: x\r\n" + forwarded + b"\r\n"
    answer = b"HTTP/1.1 200 OK\r\nx-openstack-request-id: req-%036d\r\n\r\n" % number
    port = 1024 + number
    frames = ((capture, number + 1),)
    return [
        Segment(begin_ns, flow(addresses, port), 1, 1, 24, request, 0, number, frames),
        Segment(end_ns, flow(addresses, port, back=True), 1, 1 + len(request), 24, answer, 0, number, frames),
    ]


def planes(count: int, move: Move, every_ns: int = 100 * MS) -> tuple[list[Segment], list[Segment]]:
    """Return *count* requests as seen on both planes; the outer capture's clock is moved by *move*."""
    outer, inner = [], []
    for number in range(count):
        at_ns = START_NS + number * every_ns
        outer += leg(OUTER, number, at_ns, at_ns + 10 * MS, 0)
        inner += leg(INNER, number, at_ns + MS // 5, at_ns + 10 * MS - MS // 5, 1)
    return [s._replace(time_ns=move(s.time_ns)) for s in outer], inner


def batches(segments: Sequence[SegmentFields], size: int = 7) -> Iterator[list[SegmentFields]]:
    return (list(segments[at : at + size]) for at in range(0, len(segments), size))


def merged(*each: Sequence[SegmentFields], named: bool = True) -> tuple[list[Segment], list[Capture]]:
    """Return the segments of captures in corrected order, and the captures with their clocks."""
    names = ["External_api", "Internal_base"] if named else [None] * len(each)
    captures = [Capture(number, f"{number}.pcap", names[number]) for number in range(len(each))]
    captures[1].packets = 1
    clocks = ClockEstimates(captures)
    streams = [
        read_ahead(in_time_order(batches(segments), clock=captures[number].clock), number, clocks)
        for number, segments in enumerate(each)
    ]
    found = [Segment._make(s) for batch in merge(streams, clocks) for s in batch]
    clocks.conclude()
    return found, captures


def order(segments: Sequence[Segment]) -> list[tuple[int, bytes]]:
    return [(s.ip_id, s.flow) for s in segments]


OFFSETS = [sign * ns for ns in (MS // 2, 5 * MS, 50 * MS, 2 * S, 3600 * S) for sign in (1, -1)]


@pytest.mark.parametrize("offset_ns", OFFSETS)
def test_an_offset_between_planes_changes_no_order(offset_ns: int) -> None:
    """Each leg towards the proxy encloses the one behind it, however far the clock is off."""
    undamaged, _ = merged(*planes(50, lambda ns: ns))
    found, captures = merged(*planes(50, lambda ns: ns + offset_ns))
    assert order(found) == order(undamaged)
    clock = captures[0].clock
    assert clock.range_ahead_ns[0] == clock.range_ahead_ns[1]
    assert abs(clock.range_ahead_ns[0] - offset_ns) <= MS // 5
    assert (clock.reference, clock.pairs, clock.uncertain_ns) == (1, 50, MS // 5)


def test_clocks_that_agree_are_left_alone() -> None:
    """No time is changed without need."""
    found, captures = merged(*planes(50, lambda ns: ns + MS // 10))
    assert all(capture.clock.is_right for capture in captures)
    assert min(s.time_ns for s in found) == START_NS + MS // 10


@pytest.mark.parametrize("parts_per_million", [100, -100, 1000])
def test_a_drifting_clock_changes_no_order(parts_per_million: int) -> None:
    def drift(ns: int) -> int:
        return ns + (ns - START_NS) * parts_per_million // 1_000_000

    undamaged, _ = merged(*planes(600, lambda ns: ns))
    found, captures = merged(*planes(600, drift))
    assert order(found) == order(undamaged)
    assert not captures[0].clock.is_right


@pytest.mark.parametrize("step_ns", [MS, 50 * MS, 2 * S, -MS, -50 * MS, -2 * S])
@pytest.mark.parametrize("within", [False, True])
def test_a_step_in_one_capture_changes_no_order(step_ns: int, within: bool) -> None:
    """Between two requests, or while one is under way."""
    at_ns = START_NS + 2 * S + (5 * MS if within else 50 * MS)
    undamaged, _ = merged(*planes(50, lambda ns: ns))
    found, _ = merged(*planes(50, lambda ns: ns + step_ns if ns >= at_ns else ns))
    assert order(found) == order(undamaged)


def test_captured_times_are_told_again() -> None:
    """What is corrected can be shown as it was captured."""
    outer, inner = planes(50, lambda ns: ns + 7 * MS)
    found, captures = merged(outer, inner)
    mine = [captures[0].clock.as_captured(s.time_ns) for s in found if s.frames[0][0] == 0]
    assert mine == [s.time_ns for s in outer]


def test_a_given_offset_is_not_estimated() -> None:
    """It makes the capture the one that the others are compared with."""
    clock = Clock(given_ns=5 * MS)
    assert clock.as_captured(START_NS + 5 * MS) == START_NS
    assert clock.corrected(START_NS) == START_NS + 5 * MS
    captures = [Capture(0, "a", "External_api"), Capture(1, "b", "Internal_base", packets=9)]
    captures[0].clock.given_ns = 5 * MS
    clocks = ClockEstimates(captures)
    outer, inner = planes(20, lambda ns: ns + 3 * MS)
    clocks.see(0, outer)
    clocks.see(1, inner)
    assert clocks.ahead(0, START_NS)[0] == 0
    assert abs(clocks.ahead(1, START_NS)[0] + 3 * MS) <= MS // 5


def host(count: int, capture: int, offset_ns: int) -> list[Segment]:
    return [
        Segment(START_NS + n * MS + offset_ns, flow(OUTER, 2000), n, 0, 24, b"x", 0, n, ((capture, n + 1),))
        for n in range(count)
    ]


@pytest.mark.parametrize("offset_ns", OFFSETS[2:])
def test_packets_at_several_hosts_tell_their_clocks(offset_ns: int) -> None:
    """Three hosts saw the same packets, each by its own clock."""
    found, _ = merged(host(300, 0, 0), host(300, 1, offset_ns), host(300, 2, -2 * offset_ns), named=False)
    times = [sorted(s.time_ns for s in found if s.seq == n) for n in range(300)]
    assert all(each[-1] - each[0] <= MS // 2 for each in times)


def test_one_late_packet_moves_no_clock() -> None:
    """A kernel hands a packet over 30 ms late."""
    second = [s._replace(time_ns=s.time_ns + 30 * MS) if s.seq == 150 else s for s in host(300, 1, 0)]
    second.sort(key=lambda s: s.time_ns)
    _, captures = merged(host(300, 0, 0), second, named=False)
    assert all(capture.clock.is_right for capture in captures)


# --- one capture ------------------------------------------------------------------------------------


def stream(count: int, move: Move) -> list[Segment]:
    """Return a transfer in one direction, with times moved."""
    times = [START_NS + n * MS for n in range(count)]
    return [
        Segment(move(at), flow(OUTER, 3000), 10 * n, 0, 24, b"0123456789", 0, n, ((0, n + 1),))
        for n, at in enumerate(times)
    ]


@pytest.mark.parametrize("back_ns", [2 * MS, 50 * MS, 2 * S, 3600 * S])
def test_a_clock_that_is_set_back_goes_on(back_ns: int) -> None:
    """Sequence numbers tell a clock that was set back from packets that are late."""
    at_ns = START_NS + 500 * MS
    clock = Clock()
    segments = stream(1000, lambda ns: ns - back_ns if ns >= at_ns else ns)
    found = [s for batch in in_time_order(batches(segments), clock=clock) for s in batch]
    assert [s[2] for s in found] == [10 * n for n in range(1000)]
    assert clock.steps_back == 1
    assert [clock.as_captured(s[0]) for s in found[:499]] == [s.time_ns for s in segments[:499]]
    assert [clock.as_captured(s[0]) for s in found[501:]] == [s.time_ns for s in segments[501:]]
    assert clock.corrected_first_ns(segments[500].time_ns) == START_NS
    assert clock.corrected_last_ns(0) == found[-1][0]


def test_late_packets_are_no_step() -> None:
    """One in ten comes up to 100 ms late."""
    segments = stream(1000, lambda ns: ns)
    late = sorted(segments, key=lambda s: s.time_ns + (95 * MS if s.ip_id % 10 == 3 else 0))
    clock = Clock()
    found = [s for batch in in_time_order(batches(late, 300), clock=clock) for s in batch]
    assert [s[2] for s in found] == [10 * n for n in range(1000)]
    assert clock.steps_back == 0 and clock.is_right


# --- requests, and the calls that carry their ids -------------------------------------------------


def asked(number: int, begin_ns: int, end_ns: int, method: bytes, status: bytes) -> list[Segment]:
    """A client's request to the API itself: its answer names the id."""
    request, answer = leg(OUTER, number, begin_ns, end_ns, 0)
    return [
        request._replace(payload=request.payload.replace(b"GET", method)),
        answer._replace(payload=answer.payload.replace(b"200", status)),
    ]


def made_for(number: int, at_ns: int) -> list[Segment]:
    """A call of the API behind it: it carries the id of the request, and is answered with another one."""
    request, answer = leg(INNER, 500 + number, at_ns, at_ns + MS, 1)
    carried = b"x-openstack-request-id: req-%036d\r\n\r\n" % number
    return [request._replace(payload=request.payload[:-2] + carried), answer]


def without_proxy(by_ns: int, method: bytes = b"GET", status: bytes = b"200") -> tuple[Clock, list[Segment]]:
    """Ten requests of 40 ms, with a call 10 ms after each begin; the outer clock is ahead."""
    outer, inner = [], []
    for number in range(10):
        at_ns = START_NS + number * 100 * MS
        outer += asked(number, at_ns + by_ns, at_ns + by_ns + 40 * MS, method, status)
        inner += made_for(number, at_ns + 10 * MS)
    found, captures = merged(outer, inner)
    return captures[0].clock, found


@pytest.mark.parametrize("by_ns", [ns for ns in OFFSETS if abs(ns) >= 50 * MS])
def test_without_a_proxy_the_calls_made_for_a_request_tell_the_offset(by_ns: int) -> None:
    """They carry its id. What is only read is over with the answer, so both ends bound the offset."""
    clock, _ = without_proxy(by_ns)
    least_ns, most_ns = clock.range_ahead_ns
    assert by_ns - 10 * MS <= least_ns <= most_ns <= by_ns + 30 * MS
    assert clock.is_bounded and clock.uncertain_ns == 20 * MS and clock.pairs == 10


def test_of_what_goes_on_after_its_answer_only_the_begin_is_a_bound() -> None:
    """202: accepted. Calls before their request show that a clock is off, later ones show nothing."""
    late, _ = without_proxy(-5 * S, b"POST", b"202")
    assert (late.range_ahead_ns, late.is_bounded) == ((0, 0), False)
    early, found = without_proxy(5 * S, b"POST", b"202")
    assert early.range_ahead_ns[1] == 5 * S - 10 * MS + MS // 10 and not early.is_bounded
    assert [s.ip_id for s in found][:2] == [0, 500]


def test_an_id_that_a_service_gives_back_bounds_nothing() -> None:
    """The client made it, and sends it with each of its requests."""
    request, answer = leg(INNER, 7, START_NS, START_NS + 10 * MS, 1)
    carried = b"x-openstack-request-id: req-%036d\r\n\r\n" % 7
    echo = [request._replace(payload=request.payload[:-2] + carried), answer]
    first, _ = leg(OUTER, 1, START_NS - 5 * S, START_NS, 0)
    other = [first._replace(payload=first.payload[:-2] + carried)]
    _, captures = merged(other, echo)
    assert captures[0].clock.reference is None and captures[1].clock.reference is None
