"""Traffic meant to exhaust: what it takes is bounded, and what is left out is counted. Small forms.

`benchmarks/attacks.py` runs them at full size.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import attacks
from lab.judging import only, run

from tracer.engine import Settings, check, stages
from tracer.reassembly import connections
from tracer.testing.cloud import Cloud
from tracer.testing.packets import Network

BASE_MIB = 60
"""The program with its libraries, and what it reads at once."""
SMALL = {
    "syn-flood": 0.05, "few-bytes": 0.02, "port-scan": 0.1, "pipelined": 0.05, "fragments": 0.05,
    "bomb-zst": 0.1, "bomb-gz": 0.02, "deep-json": 0.1, "headers": 0.02, "channels": 0.1, "holes": 0.01,
}  # fmt: skip


@pytest.mark.parametrize("name", ["syn-flood", "few-bytes", "bomb-zst"])
def test_an_attack_takes_little_and_ends_no_run(name: str) -> None:
    cost = attacks.run(name, SMALL[name])
    assert cost.code == 5
    assert cost.peak_mib < BASE_MIB + 50
    assert "internal_errors" not in cost.answer
    if name == "syn-flood":
        assert cost.answer["forgotten"] == {"connection attempts": 32_768}


def test_a_bomb_is_read_as_a_stream_and_ends_on_ctrl_c() -> None:
    """A file of megabytes that would be gigabytes."""
    cost = attacks.run("bomb-ctrl-c", 1)
    assert cost.unpacked_bytes > 1000 * cost.packed_bytes
    assert (cost.code, cost.peak_mib < 2 * BASE_MIB, cost.ended_s < 5) == (130, True, True)


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(SMALL))
def test_each_attack_takes_little_and_ends_no_run(name: str) -> None:
    cost = attacks.run(name, SMALL[name])
    assert cost.code in (3, 5)
    assert cost.peak_mib < BASE_MIB + 50
    assert "internal_errors" not in cost.answer


def test_a_flood_hides_no_failed_connection_of_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers flood nova-api, and what a service cannot reach is told all the same."""
    monkeypatch.setattr(connections, "MAX_ATTEMPTS", 64)
    monkeypatch.setattr(stages, "MAX_STRANGERS", 10)

    def flood(cloud: Cloud) -> None:
        network: Network = cloud.network
        for number in range(1_000):
            network.ignore(
                99.0 + number / 1000, f"10.9.{number // 250}.{number % 250 + 1}", "172.28.0.11", 8774
            )

    for what in ({}, {"4b": "glance refused"}, {"8b": "refused"}):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        quiet = run(folder, breaks=what)
        other = folder / "flooded"
        other.mkdir()
        flooded = run(other, breaks=what, change=flood)
        assert dict(flooded.forgotten)["connection attempts"] > 500
        assert "connection attempts" not in dict(quiet.forgotten)
        before, after = only(quiet), only(flooded)
        assert (after.outcome, after.stopped_at) == (before.outcome, before.stopped_at)
        assert [(s.step, s.status) for s in after.steps] == [(s.step, s.status) for s in before.steps]


def test_of_a_scan_so_many_calls_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One host that asks all others: each refusal is a call, up to a number; the others are counted."""
    monkeypatch.setattr(stages, "MAX_STRANGERS", 50)
    path = tmp_path / "scan.pcap"
    attacks.write(path, attacks.ATTACKS["port-scan"], 400)
    found = check([str(path)], Settings())
    assert [capture.calls for capture in found.captures] == [50]
    assert dict(found.forgotten)["connection attempts"] >= 150


def test_requests_that_nobody_answers_are_closed_when_there_are_too_many(tmp_path: Path) -> None:
    path = tmp_path / "pipelined.pcap"
    attacks.write(path, attacks.ATTACKS["pipelined"], 3_000)
    (capture,) = check([str(path)], Settings()).captures
    assert capture.calls == 3_000
