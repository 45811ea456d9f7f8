"""What is said of a creation of which some planes, or some of the time, were not captured.

What could not have been seen is unobserved (or inferred from what followed): never missing, and not reached
only behind the step at which the creation is known to have stopped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from lab.judging import statuses

from tracer.capture import open_capture
from tracer.engine import Settings, check
from tracer.model import Capture, Verdict
from tracer.testing.cloud import SPREAD, Cloud, Layout
from tracer.testing.creation import Creation
from tracer.testing.packets import pcap

CAPTURES = Path(__file__).parents[2] / "captures"
EXTERNAL, INTERNAL, MANAGEMENT = "External_api", "Internal_base", "External_om"
STEPS = {EXTERNAL: "1 2", INTERNAL: "3 4a 4b 4c 4d 4e 5 6 7 8a 8b"}
ORDER = ["1", "2", "3", "4a", "4b", "4c", "4d", "4e", "5", "6", "7", "8a", "8b", "8c"]

Packets = list[tuple[int, bytes]]


class _ThreePlanes(Layout):
    """The VRM is on a plane of its own."""

    def points(self, a: str, b: str) -> Sequence[str]:
        return (MANAGEMENT,) if self.address["vrm"] in (a, b) else super().points(a, b)


SYNTHETIC: dict[str, dict[str, Any]] = {
    "active": {},
    "volume": {"volume": True},
    "saved": {"polls": False},
    "rejected by keystone": {"breaks": {"4a": "404"}},
    "rejected by quota": {"breaks": {"4c": "403"}},
    "refused by the portal": {"breaks": {"1": "403"}},
    "broker down": {"breaks": {"4e": "refused silent"}},
    "no conductor": {"breaks": {"4e": "undelivered"}},
    "no scheduler": {"breaks": {"5": "undelivered"}},
    "no valid host": {"breaks": {"6": "failure"}},
}
REAL = ["fail-400", "fail-401", "fail-conductor-down", "fail-no-valid-host"]


def synthetic(name: str) -> dict[str, Packets]:
    cloud = Cloud(_ThreePlanes(SPREAD.address))
    cloud.background(0, 260)
    Creation(cloud, **SYNTHETIC[name]).run()
    return dict(cloud.network.packets())


def real(name: str) -> dict[str, Packets]:
    found: dict[str, Packets] = {}
    for plane in (EXTERNAL, INTERNAL):
        source = str(CAPTURES / name / f"{plane}.pcap.zst")
        batches = open_capture(source, Capture(0, source, plane))
        found[plane] = [(packet[0], packet[1]) for batch in batches for packet in batch]
    return found


def judged(folder: Path, planes: Mapping[str, Packets], stall_s: float) -> Sequence[Verdict]:
    paths = []
    for plane, packets in planes.items():
        path = folder / f"{plane}.pcap"
        path.write_bytes(pcap(packets))
        paths.append(str(path))
    # The documented steps, whatever a part of the captures shows of the portal and the VRM.
    return check(paths, Settings(grammar="cloudvm_create", stall_s=stall_s)).verdicts


def cuts(whole: Verdict) -> Iterator[tuple[int, int]]:
    """From when until when is captured: all of it, its beginning, its end, its middle."""
    yield 0, 1 << 62
    times = [
        whole.started_ns + (whole.ended_ns - whole.started_ns) * share // 100 for share in (0, 1, 5, 40, 99)
    ]
    yield from ((0, at) for at in times)
    yield from ((at, 1 << 62) for at in times)
    yield times[1], times[3]


def dishonest(verdict: Verdict, planes: Sequence[str], whole: Verdict) -> list[str]:
    """What *verdict* says that nobody can know who saw *planes* alone; *whole* is what all of them tell."""
    stopped = verdict.stopped_at or (verdict.stopped_between or ("", ORDER[-1]))[1]
    found = []
    for step, status in statuses(verdict).items():
        unseen = any(step in steps.split() and plane not in planes for plane, steps in STEPS.items())
        known = verdict.outcome != "active" and ORDER.index(step) > ORDER.index(stopped)
        if status == "missing" or (unseen and status == "not_reached" and not known):
            found.append(f"{step} {status}")
        if unseen and status == "seen":
            found.append(f"{step} {status}, on a plane that was left out")
    allowed = {d.kind for d in whole.deviations}
    if whole.outcome != "active":
        # While it lasted, its silence was one.
        allowed.add("stalled")
    found += [f"{d.kind} {d.step}" for d in verdict.deviations if d.kind not in allowed]
    return found


def every_subset(planes: Mapping[str, Packets], folder: Path, stall_s: float) -> dict[str, list[str]]:
    """What is dishonest in any subset of the planes, whole or cut: nothing, it is hoped."""
    [whole] = judged(folder, planes, stall_s)
    found = {}
    for size in range(1, len(planes) + 1):
        for chosen in combinations(planes, size):
            for since_ns, until_ns in cuts(whole):
                part = {p: [k for k in planes[p] if since_ns <= k[0] < until_ns] for p in chosen}
                for verdict in judged(folder, part, stall_s):
                    wrong = dishonest(verdict, chosen, whole)
                    if wrong:
                        found[f"{chosen} {since_ns} {until_ns} {verdict.summary}"] = wrong
    return found


@pytest.mark.parametrize("stall_s", [60, pytest.param(5, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_synthetic_creation_in_part(name: str, stall_s: float, tmp_path: Path) -> None:
    assert every_subset(synthetic(name), tmp_path, stall_s) == {}


@pytest.mark.parametrize("name", REAL)
def test_a_real_creation_in_part(name: str, tmp_path: Path) -> None:
    assert every_subset(real(name), tmp_path, 20) == {}


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_the_outside_alone_tells_nothing_of_the_inside(share: float, tmp_path: Path) -> None:
    """External_api alone, ended in the middle: each step inside says that its plane is not captured."""
    planes = synthetic("active")
    [whole] = judged(tmp_path, planes, 60)
    until_ns = whole.started_ns + int((whole.ended_ns - whole.started_ns) * share)
    part = {EXTERNAL: [packet for packet in planes[EXTERNAL] if packet[0] < until_ns]}
    [verdict] = judged(tmp_path, part, 60)
    assert verdict.outcome == "unfinished"
    inside = [step for step in verdict.steps if step.step in STEPS[INTERNAL].split()]
    assert {(step.status, step.reason) for step in inside} == {
        ("unobserved", "Internal_base is not captured")
    }


@pytest.mark.parametrize("stall_s", [60, 2])
def test_the_answer_alone_shows_that_its_question_came_before(stall_s: float, tmp_path: Path) -> None:
    """A capture that begins behind the requests of steps 1 and 2: it sees answers, and the server active."""
    planes = real("ok-image")
    [whole] = judged(tmp_path, planes, 60)
    since_ns = next(step.calls[0].started_ns for step in whole.steps if step.step == "2") + 500_000_000
    part = {EXTERNAL: [packet for packet in planes[EXTERNAL] if packet[0] >= since_ns]}
    [verdict] = judged(tmp_path, part, stall_s)
    assert (verdict.outcome, verdict.verdict) == ("active", "inconclusive")
    assert (statuses(verdict)["1"], statuses(verdict)["2"]) == ("unobserved", "unobserved")


def test_a_low_stall_limit_does_not_make_the_portal_quick(tmp_path: Path) -> None:
    """The creation is first seen 30 s behind the begin of the captures, at step 3: its order may be older."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 60)
    Creation(cloud, at=30, breaks={"1": "left out", "2": "left out"}).run()
    [verdict] = check(cloud.network.write(tmp_path), Settings(stall_s=5)).verdicts
    assert {step: statuses(verdict)[step] for step in ("1", "2")} == {"1": "unobserved", "2": "unobserved"}
