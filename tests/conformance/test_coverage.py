"""What captures could have shown: damage, encryption and cuts make steps unobserved, never missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lab.judging import judge, only, run, statuses

from tracer.engine import Settings, check
from tracer.model import Verdict
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


@pytest.mark.parametrize("snap", [96, 128, 200, 256])
def test_a_snap_length_shows_no_missing_step(snap: int, tmp_path: Path) -> None:
    """Every packet cut: whatever is left, nothing is called missing, failed or stuck."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 260)
    Creation(cloud, at=100).run()
    for point, packets in cloud.network.packets().items():
        data = bytearray(pcap(packets)[:24])
        for time_ns, frame in packets:
            record = bytearray(pcap([(time_ns, frame)])[24:40])
            record[8:12] = min(snap, len(frame)).to_bytes(4, "little")
            data += record + frame[:snap]
        (tmp_path / f"{point}.pcap").write_bytes(data)
    verdicts = check([str(tmp_path)], Settings()).verdicts
    # Under 200 bytes no id of a creation is left: nothing is shown rather than a trace without a name.
    assert bool(verdicts) is (snap >= 200)
    for verdict in verdicts:
        assert verdict.deviations == (), (verdict.summary, verdict.deviations)


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
