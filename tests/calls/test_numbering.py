"""Calls are numbered by their start, the same in check and calls."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from lab.judging import judge

from tracer.calls import Numbering
from tracer.engine import Settings, calls
from tracer.model import Call, ConnectFacts, Connection, Endpoint
from tracer.testing.cloud import COLOCATED, SPREAD, Cloud, Layout
from tracer.testing.creation import Creation
from tracer.testing.messages import request, response
from tracer.testing.packets import Network

S = 1_000_000_000


def call(started_ns: int, frame: int) -> Call:
    end = Endpoint("10.0.0.1", 1)
    connection = Connection(1, end, end, 0)
    return Call(
        frame, "REST", "", "?", started_ns, None, [(0, frame)], None, None, ConnectFacts(), connection
    )


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("every", [1, 7, 1000])
def test_late_recognised_calls_keep_their_place(seed: int, every: int) -> None:
    """Begun up to 2 s late, advanced often or seldom, skipped statements in between: numbers follow time."""
    chance = random.Random(seed)
    numbering = Numbering()
    arrivals = []
    for n in range(400):
        started = n * S // 10
        skipped = chance.random() < 0.5
        arrivals.append(
            (started + (0 if skipped else chance.randint(0, 19 * S // 10)), started, n + 1, skipped)
        )
    made = []
    for n, (now, started, frame, skipped) in enumerate(sorted(arrivals)):
        if skipped:
            numbering.skipped(started, ((0, frame),))
        else:
            made.append(call(started, frame))
            numbering.begun(made[-1])
        if n % every == 0:
            numbering.advance(now)
    numbering.flush()
    assert [c.index for c in sorted(made, key=lambda c: c.started_ns)] == sorted(c.index for c in made)
    assert {c.index: c.started_ns for c in made} == {c.frames[0][1]: c.started_ns for c in made}
    assert numbering.skipped_in[0] == 400 - len(made)


@pytest.mark.parametrize("layout", [SPREAD, COLOCATED])
def test_check_and_calls_give_the_same_numbers(layout: Layout, tmp_path: Path) -> None:
    """Though check skips statements: index 1 … n without a gap in calls, the same line under each."""
    cloud = Cloud(layout)
    cloud.background(0, 130)
    Creation(cloud, volume=True).run()
    report = judge(cloud, tmp_path)
    listed = list(calls([str(tmp_path)], Settings()))
    assert [record.index for record in listed] == list(range(1, len(listed) + 1))
    assert [record.started_ns for record in listed] == sorted(record.started_ns for record in listed)
    lines = {record.index: (record.line, record.evidence) for record in listed}
    for verdict in report.verdicts:
        for record in verdict.calls:
            assert lines[record.index] == (record.line, record.evidence)
    assert sum(c.calls + c.skipped_statements for c in report.captures) == len(listed)
    assert {record.index for record in listed if record.traces} == {
        c.index for v in report.verdicts for c in v.calls
    }


def test_two_calls_at_one_time_are_numbered_by_frame(tmp_path: Path) -> None:
    """Same nanosecond: the earlier record first."""
    network = Network()
    for n in range(4):
        made = network.connection("10.0.0.1", "10.0.0.2", 9696, 0.5)
        made.say(1, request("GET", f"/v2.0/a{n}"))
        made.hear(2, response(200))
    network.write(tmp_path)
    listed = list(calls([str(tmp_path)], Settings()))
    frames = [record.evidence for record in listed]
    assert [record.index for record in listed] == [1, 2, 3, 4]
    assert [min(f for _, f in evidence) for evidence in frames] == sorted(
        min(f for _, f in e) for e in frames
    )
