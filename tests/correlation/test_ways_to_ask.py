"""Ways to ask for a server: other paths, no id in the answer, and several tries of one order."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.judging import judge, only, run, statuses
from lab.stepped import UNTIL_S, Stepped

from tracer.engine import Settings, Stages
from tracer.grammar import load
from tracer.model import Capture, Verdict
from tracer.testing.cloud import PROJECT, PROXY_PAGE, SPREAD, Cloud
from tracer.testing.creation import Creation
from tracer.topology import GivenTopology

PATHS = (
    "/v2.1/os-volumes_boot",
    f"/v2.1/{PROJECT}/os-volumes_boot",
    f"/v2/{PROJECT}/servers",
    f"/compute/v2.1/{PROJECT}/os-volumes_boot",
    "/nova-api/v2.1/servers",
)


@pytest.mark.parametrize("path", PATHS)
def test_a_server_may_be_asked_for_under_several_paths(tmp_path: Path, path: str) -> None:
    verdict = only(run(tmp_path, path=path, volume=path.endswith("boot")))
    assert (verdict.verdict, verdict.outcome, verdict.name) == ("conforms", "active", "web-1")


@pytest.mark.parametrize("path", PATHS)
def test_a_refusal_is_told_under_each_path(tmp_path: Path, path: str) -> None:
    verdict = only(run(tmp_path, path=path, breaks={"4c": "403"}))
    assert (verdict.outcome, verdict.stopped_at) == ("rejected", "4c")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("lost", ["", "4e"])
def test_an_answer_with_a_reservation_names_no_server(tmp_path: Path, count: int, lost: str) -> None:
    """The servers are known by the messages that follow, or by the INSERTs before these."""
    hosts = tuple({f"compute{n}": {}} for n in range(1, count + 1))
    breaks = {lost: "left out"} if lost and count == 1 else {}
    report = run(tmp_path, hosts=hosts, reservation=True, breaks=breaks)
    assert len({v.server_id for v in report.verdicts}) == count
    assert {(v.outcome, v.name) for v in report.verdicts} == {("active", "web-1")}
    assert all(statuses(v)["2"] == statuses(v)["3"] == "seen" for v in report.verdicts)


def tries(
    cloud: Cloud, refusals: list[tuple[float, int, str]], good: bool = True, name: str = "web-1"
) -> None:
    """One order, answered at the end; a POST is refused at each of *refusals* (time, status, legs)."""
    ends = refusals[-1][0] + (6 if good else 0.1)
    for at, status, legs in refusals:
        by_proxy = legs == "outer"
        cloud.from_outside(
            at,
            "nova-api",
            "POST",
            "/v2.1/servers",
            status,
            0.02,
            body={"server": {"name": name}},
            answer=PROXY_PAGE if by_proxy else {"overLimit": {"code": status, "message": "Slow down."}},
            answer_headers={"Content-Type": "text/html"} if by_proxy else None,
            legs=legs,
        )
    if good:
        Creation(cloud, at=ends - 4, name=name, breaks={"1": "left out"}).run()
    cloud.rest(
        refusals[0][0] - 0.1,
        "admin",
        "sc",
        "POST",
        "/sc/cloudhosts",
        202 if good else 429,
        took=ends - refusals[0][0],
        token="",
        body={"name": name},
        answer={},
    )


def shows_the_order(verdict: Verdict) -> bool:
    return any(call.operation == "POST /sc/cloudhosts" for call in verdict.calls)


REFUSALS = [
    [(100.0, 413, "both")],
    [(100.0, 503, "outer")],
    [(100.0, 429, "outer"), (104.0, 413, "both"), (109.0, 502, "outer")],
    [(100.0, 409, "inner")],
]


@pytest.mark.parametrize("refusals", REFUSALS)
def test_each_try_of_an_order_has_the_order(tmp_path: Path, refusals: list[tuple[float, int, str]]) -> None:
    cloud = Cloud(SPREAD)
    cloud.background(0, 200)
    tries(cloud, refusals)
    verdicts = judge(cloud, tmp_path).verdicts
    assert [v.outcome for v in verdicts] == ["rejected"] * len(refusals) + ["active"]
    assert verdicts[-1].verdict == "conforms"
    assert all(shows_the_order(v) for v in verdicts)


def test_tries_of_an_order_that_were_all_refused(tmp_path: Path) -> None:
    cloud = Cloud(SPREAD)
    cloud.background(0, 200)
    tries(cloud, [(100.0, 413, "both"), (103.0, 413, "both")], good=False)
    verdicts = judge(cloud, tmp_path).verdicts
    assert [v.outcome for v in verdicts] == ["rejected", "rejected"]
    assert all(shows_the_order(v) for v in verdicts)


def test_two_orders_of_one_name_keep_their_own_requests(tmp_path: Path) -> None:
    """The second order begins while the first waits for its second try."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 200)
    tries(cloud, [(100.0, 413, "both")])
    Creation(cloud, at=101, name="web-1", breaks={"4c": "403"}).run()
    verdicts = judge(cloud, tmp_path).verdicts
    assert sorted(v.outcome for v in verdicts) == ["active", "rejected", "rejected"]
    assert all(shows_the_order(v) for v in verdicts)
    assert {v.verdict for v in verdicts if v.outcome == "active"} == {"conforms"}


@pytest.mark.parametrize("wait", [5.0, 100.0])
def test_live_the_second_try_has_the_order_though_the_first_is_done(wait: float) -> None:
    """The verdict on the first try is final, and its calls are dropped, before the second try comes."""
    cloud = Cloud(SPREAD)
    cloud.background(0, UNTIL_S, every=2)
    Creation(cloud, at=5, name="good").run()
    tries(cloud, [(20.0, 413, "both"), (20.0 + wait, 413, "both")])
    planes = cloud.network.packets()
    packets = sorted((t, n, f) for n, plane in enumerate(sorted(planes)) for t, f in planes[plane])
    captures = [Capture(number, plane, plane) for number, plane in enumerate(sorted(planes))]
    stepped = Stepped(Stages(captures, GivenTopology(), Settings(), load("cloudvm_create")))
    events = [event for event in stepped.events_of(packets) if event.kind == "verdict" and event.verdict]
    told = [
        (e.verdict.outcome, shows_the_order(e.verdict))
        for e in events
        if e.verdict and e.verdict.name == "web-1"
    ]
    assert told == [("rejected", True), ("rejected", True), ("active", True)]
