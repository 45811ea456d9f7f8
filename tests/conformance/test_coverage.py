"""What captures could have shown: damage, encryption and cuts make steps unobserved, never missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lab.judging import judge, only, run, statuses

from tracer.conformance.coverage import BURST_NS, LONGEST_WAIT_NS, SECOND_NS, Coverage
from tracer.conformance.losses import MAX_TIMES, QUIET_NS, Losses, Silences
from tracer.engine import Settings, check
from tracer.model import (
    BOTH,
    CLIENT,
    SERVER,
    TO_SERVER,
    Call,
    Capture,
    Closed,
    Connection,
    End,
    Endpoint,
    Gap,
    Report,
    RestFacts,
    Verdict,
)
from tracer.testing.cloud import SPREAD, Cloud
from tracer.testing.creation import Creation
from tracer.testing.packets import pcap

TLS = b"\x16\x03\x03\x00\x10" + b"\x01" * 16


def reason(verdict: Verdict, step: str) -> str:
    return next(s.reason for s in verdict.steps if s.step == step)


def encrypted(port: int) -> Callable[[Cloud], None]:
    def change(cloud: Cloud) -> None:
        cloud.network.events = [
            (at, made, side, flags, TLS if data and made.server[1] == port else data, lost)
            for at, made, side, flags, data, lost in cloud.network.events
        ]

    return change


@pytest.mark.parametrize("port, steps", [(5672, {"4e", "5", "6", "7"}), (3306, {"4c", "4d"}), (7070, {"8c"})])
def test_encrypted_traffic_is_unobserved(port: int, steps: set[str], tmp_path: Path) -> None:
    """TLS on one port: those steps are unobserved, with a reason, and nothing deviates."""
    verdict = only(run(tmp_path, change=encrypted(port)))
    assert (verdict.verdict, verdict.outcome, verdict.deviations) == ("inconclusive", "active", ())
    assert {step for step, status in statuses(verdict).items() if status == "unobserved"} == steps
    assert all(reason(verdict, step) for step in steps)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.8, 0.9, 0.97])
@pytest.mark.parametrize("which", ["Internal_base", "External_api"])
def test_a_file_that_breaks_off_shows_no_missing_step(which: str, share: float, tmp_path: Path) -> None:
    """Cut anywhere inside one creation: nothing is missing, stuck or out of order for that."""
    cloud = Cloud(SPREAD)
    cloud.background(20, 80)
    Creation(cloud, at=40, polls=False).run()
    for path in cloud.network.write(tmp_path):
        if which in path:
            data = Path(path).read_bytes()
            Path(path).write_bytes(data[: int(len(data) * share)])
    verdicts = check([str(tmp_path)], Settings()).verdicts
    assert verdicts
    for verdict in verdicts:
        assert verdict.deviations == (), (verdict.summary, verdict.deviations)


def cut_by(snap: int, folder: Path) -> Report:
    """What is said of a creation of whose packets no more than *snap* bytes were captured."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 260)
    Creation(cloud, at=100).run()
    for point, packets in cloud.network.packets().items():
        data = bytearray(pcap([]))
        for time_ns, frame in packets:
            record = bytearray(pcap([(time_ns, frame)])[24:40])
            record[8:12] = min(snap, len(frame)).to_bytes(4, "little")
            data += record + frame[:snap]
        (folder / f"{point}.pcap").write_bytes(data)
    return check([str(folder)], Settings())


@pytest.mark.parametrize("snap", [96, 128, 200, 256])
def test_a_snap_length_shows_no_missing_step(snap: int, tmp_path: Path) -> None:
    """Every packet cut: whatever is left, nothing is called missing, failed or stuck."""
    verdicts = cut_by(snap, tmp_path).verdicts
    # Under 200 bytes no id of a creation is left: nothing is shown rather than a trace without a name.
    assert bool(verdicts) is (snap >= 200)
    for verdict in verdicts:
        assert verdict.deviations == (), (verdict.summary, verdict.deviations)


def test_a_request_without_a_name_is_counted(tmp_path: Path) -> None:
    """It is not shown, and not passed over in silence."""
    assert cut_by(128, tmp_path).remarks == (
        "1 request is not in the report: the packets are cut before their ids;"
        " capture whole packets (tcpdump -s 0)",
    )


@pytest.mark.parametrize("ends, outcome", [({"Internal_base": 130.0}, "unfinished"), ({}, "stuck")])
def test_the_stall_clock_stops_with_the_plane(ends: dict[str, float], outcome: str, tmp_path: Path) -> None:
    """A stall while the plane of the next step is no longer captured is none, though another goes on."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 260)
    Creation(cloud, breaks={"4e": "undelivered"}).run()
    for path in cloud.network.write(tmp_path):
        name = Path(path).stem
        packets = cloud.network.packets()[name]
        last_ns = packets[0][0] + int(ends.get(name, 1e6) * 1e9)
        Path(path).write_bytes(pcap([p for p in packets if p[0] <= last_ns]))
    verdict = only(check([str(tmp_path)], Settings()))
    assert (verdict.outcome, verdict.stopped_at) == (outcome, "5")


def test_polls_do_not_keep_a_stalled_creation_alive(tmp_path: Path) -> None:
    """The SC asks every 10 s: stuck all the same."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 260)
    made = Creation(cloud, breaks={"5": "stop"}).run()
    for at in range(110, 255, 10):
        made.poll(0, at, "BUILD")
    assert only(judge(cloud, tmp_path)).outcome == "stuck"


def test_the_advice_names_what_to_capture(tmp_path: Path) -> None:
    """What could not be seen this time is asked for in words."""

    def change(cloud: Cloud) -> None:
        cloud.network.points_of = lambda a, b: [p for p in SPREAD.points(a, b) if p != "External_api"]

    report = run(tmp_path, change=change)
    assert statuses(only(report))["1"] == "unobserved"
    assert any("External_api" in advice for advice in report.advice)


# --- the evidence, piece by piece -----------------------------------------------------------------

AT_NS = 1_000 * SECOND_NS


def coverage() -> Coverage:
    """Of two captures, with roles and planes that nobody asks for here."""
    captures = [Capture(number, f"{number}.pcap", "Internal_base") for number in range(2)]
    return Coverage(captures, lambda role: set(), lambda made: "Internal_base", lambda role: True)


def connection(number: int = 1, capture: int = 0, seen: int = BOTH, certain: bool = True) -> Connection:
    ends = Endpoint(f"10.0.0.{number}", 40_000), Endpoint("10.0.1.1", 9696)
    return Connection(number, *ends, AT_NS, certain=certain, captures=[capture], protocol="http1", seen=seen)


@pytest.mark.parametrize(
    "holes, is_burst",
    [
        ([(1, 0, 0), (2, 0, 0), (3, 0, 0)], True),
        ([(1, 0, 0), (2, 0, 0)], False),
        ([(1, 0, 0), (1, 0, 0), (1, 0, 0)], False),
        ([(1, 0, 0), (2, 0, 0), (3, 1, 0)], False),
        ([(1, 0, 0), (2, 0, 0), (3, 0, 60)], False),
    ],
    ids=["three", "two", "one connection", "two captures", "a minute later"],
)
def test_holes_of_many_connections_at_once_are_a_burst(
    holes: list[tuple[int, int, int]], is_burst: bool
) -> None:
    """(connection, capture, seconds later) of bytes that are missing."""
    known = coverage()
    for number, capture, later_s in holes:
        at_ns = AT_NS + later_s * SECOND_NS
        known.gap(Gap(connection(number, capture), TO_SERVER, at_ns, 10, at_ns - SECOND_NS // 2))
    assert known.is_in_burst(AT_NS - SECOND_NS, AT_NS) is is_burst
    assert not known.is_in_burst(AT_NS + 100 * SECOND_NS, AT_NS + 101 * SECOND_NS)


def test_a_hole_that_shows_late_is_of_no_burst() -> None:
    """Of bytes that may be missing since long nobody knows when they were sent."""
    known = coverage()
    for number in range(1, 4):
        known.gap(Gap(connection(number), TO_SERVER, AT_NS, 10, AT_NS - BURST_NS - 1))
    assert not known.is_in_burst(AT_NS - SECOND_NS, AT_NS)


@pytest.mark.parametrize(
    "seen, how, is_one_way",
    [(2, "end", True), (1, "fin", True), (BOTH, "end", False), (1, "unanswered", False)],
)
def test_a_connection_of_one_direction_makes_the_other_unknown(seen: int, how: str, is_one_way: bool) -> None:
    """Whichever end was taken for the client. An attempt that nobody answers has no other direction."""
    known = coverage()
    made = connection(seen=seen)
    known.closed(Closed(made, AT_NS, how))
    ends = {made.client.address}, {made.server.address}
    assert known.one_way("REST", *ends) is is_one_way
    assert known.one_way("REST", *ends[::-1]) is is_one_way
    assert not known.one_way("REST", ends[0], {"10.0.9.9"})
    known.forget(AT_NS)
    assert known.one_way("REST", *ends) is is_one_way
    known.forget(AT_NS + 1)
    assert not known.one_way("REST", *ends), "a run of days is not blind for one odd connection"


@pytest.mark.parametrize("certain, since_s", [(True, 0), (False, -60)])
def test_an_answer_without_its_request_was_asked_for_before(certain: bool, since_s: int) -> None:
    """From the connection's first packet on; where that is not its beginning, within a time-out before."""
    known = coverage()
    made = connection(certain=certain)
    until_ns = AT_NS + 10 * SECOND_NS
    facts = RestFacts("?", "", status=200)
    known.observe(
        Call(
            1, "REST", "? ?", "200", until_ns, until_ns, [], End(made, CLIENT), End(made, SERVER), facts, made
        )
    )
    ends = {made.client.address}, {made.server.address}
    assert known.damaged("REST", *ends, until_ns, until_ns)
    begins_ns = (until_ns if not certain else AT_NS) + since_s * SECOND_NS
    assert known.damaged("REST", *ends, begins_ns, begins_ns)
    assert not known.damaged("REST", *ends, begins_ns - 3 * SECOND_NS, begins_ns - 3 * SECOND_NS)
    assert not known.damaged("SQL", *ends, until_ns, until_ns)


def test_a_connection_of_one_direction_says_nothing_of_other_times_and_protocols() -> None:
    """Nor does one that is idle: an acknowledgement and an end hide no call."""
    known = coverage()
    made = connection(seen=1)
    known.closed(Closed(made, AT_NS + SECOND_NS, "fin"))
    ends = {made.client.address}, {made.server.address}
    assert known.one_way("REST", *ends, AT_NS - SECOND_NS, AT_NS)
    assert not known.one_way("REST", *ends, AT_NS + 2 * SECOND_NS, AT_NS + 3 * SECOND_NS)
    assert not known.one_way("REST", *ends, AT_NS - 2 * SECOND_NS, AT_NS - SECOND_NS)
    assert not known.one_way("SQL", *ends, AT_NS - SECOND_NS, AT_NS)
    idle = connection(number=2, seen=1)
    idle.protocol = None
    known.closed(Closed(idle, AT_NS, "fin"))
    assert not known.one_way("REST", {idle.client.address}, {idle.server.address})


def test_a_burst_of_one_plane_says_nothing_of_another() -> None:
    """Nor one of another capture than that which holds a call."""
    known = coverage()
    for number in range(1, 4):
        known.gap(Gap(connection(number), TO_SERVER, AT_NS, 10, AT_NS))
    assert known.is_in_burst(AT_NS, AT_NS, [0], "Internal_base")
    assert not known.is_in_burst(AT_NS, AT_NS, [1])
    assert not known.is_in_burst(AT_NS, AT_NS, (), "External_api")


# --- losses and silences of a capture -------------------------------------------------------------


def test_one_hole_tells_that_the_capture_point_lost_packets_then() -> None:
    """Of a connection of which all packets were lost at that time, nothing else tells."""
    known = coverage()
    known.gap(Gap(connection(capture=1), TO_SERVER, AT_NS, 10, AT_NS - SECOND_NS))
    assert known.lost_packets(AT_NS - 2 * SECOND_NS, AT_NS - SECOND_NS, "Internal_base")
    assert known.lost_packets(AT_NS, AT_NS + SECOND_NS, "*")
    assert not known.lost_packets(AT_NS + 1, AT_NS + SECOND_NS, "Internal_base")
    assert not known.lost_packets(AT_NS - SECOND_NS, AT_NS, "External_api")
    long = coverage()
    long.gap(Gap(connection(), TO_SERVER, AT_NS, 10, AT_NS - LONGEST_WAIT_NS - 1))
    assert not long.lost_packets(AT_NS - SECOND_NS, AT_NS, "*")


def test_losses_that_meet_are_one_and_their_number_is_bounded() -> None:
    """In whatever order they come; with too many of them the last one grows."""
    losses = Losses()
    for since, until in ((50, 60), (10, 20), (15, 30), (55, 58), (58, 70)):
        losses.add((0,), since, until)
    assert [at for at in range(0, 80, 5) if losses.captures_in(at, at)] == [
        10,
        15,
        20,
        25,
        30,
        *range(50, 75, 5),
    ]
    losses.forget(40)
    assert (losses.captures_in(0, 40), losses.captures_in(0, 50)) == ([], [0])
    for number in range(MAX_TIMES + 50):
        losses.add((1,), number * 10, number * 10 + 1)
    assert losses.captures_in(5, 5) == [] and losses.captures_in(MAX_TIMES * 10 + 5, MAX_TIMES * 10 + 5) == [
        1
    ]


def test_a_capture_is_silent_where_no_call_began_in_nearly_all_of_a_time() -> None:
    silences = Silences()
    for time_ns in (0, QUIET_NS, 4 * QUIET_NS, 4 * QUIET_NS + 1):
        silences.heard(0, time_ns)
    assert silences.covers(0, QUIET_NS, 4 * QUIET_NS)
    assert silences.covers(0, QUIET_NS, 4 * QUIET_NS + QUIET_NS // 2)
    # Half of that time, the time before it, a time that is short, and another capture.
    assert not silences.covers(0, 0, 6 * QUIET_NS)
    assert not silences.covers(0, 0, QUIET_NS)
    assert not silences.covers(0, 2 * QUIET_NS, 2 * QUIET_NS + 1)
    assert not silences.covers(1, QUIET_NS, 4 * QUIET_NS)
    silences.forget(5 * QUIET_NS)
    assert not silences.covers(0, QUIET_NS, 4 * QUIET_NS)


@pytest.mark.parametrize(
    "reference, bounded, steps, error",
    [(1, True, 0, True), (1, False, 0, False), (None, True, 0, False), (1, True, 1, False)],
)
def test_how_far_clocks_may_differ_is_known_where_they_are_compared(
    reference: int | None, bounded: bool, steps: int, error: bool
) -> None:
    """Not where pairs say one side only, nor across the silence in which a clock was set back."""
    captures = [Capture(n, f"{n}.pcap", plane) for n, plane in enumerate(("External_api", "Internal_base"))]
    for capture in captures:
        capture.packets = 1
    clock = captures[0].clock
    clock.reference, clock.is_bounded, clock.steps_back = reference, bounded, steps
    known = Coverage(captures, lambda role: set(), lambda made: "Internal_base", lambda role: True)
    assert (known.clock_error_on("Internal_base", {0}) is not None) is error
    assert known.clock_error_on("Internal_base", {1}) == 0
