"""Captures played again: the verdicts of check, at any speed, told at the pace that was asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from lab.streams import CAPTURES, ROOT, STALL_S, answers

from tracer import engine
from tracer.engine import Settings
from tracer.live.run import open_replay
from tracer.model.events import Event


@pytest.mark.parametrize(("name", "speed"), [("fail-quota-403", 0), ("fail-quota-403", 5), ("colo-ok", 0)])
def test_a_replay_gives_the_verdicts_of_check(name: str, speed: float) -> None:
    folder = str(CAPTURES / name)
    events: list[tuple[float, Event]] = []
    begun_s = time.monotonic()
    settings = Settings(stall_s=STALL_S)
    run = open_replay([folder], settings, speed, lambda event: events.append((time.monotonic(), event)))
    report = run.run()
    took_s = time.monotonic() - begun_s
    expected = engine.check([folder], settings)
    assert answers(report) == answers(expected)
    first_ns = min(c.first_ns or 0 for c in expected.captures)
    last_ns = max(c.last_ns or 0 for c in expected.captures)
    if speed:
        assert took_s >= (last_ns - first_ns) / 1e9 / speed
        # Nothing is told before it has happened.
        early = [e.kind for at_s, e in events if (at_s - begun_s) * speed * 1e9 < e.time_ns - first_ns - 1e8]
        assert early == []


def command(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    program = [sys.executable, "-m", "tracer", "replay", *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, timeout=60, check=False)


def test_the_command_ends_with_0_and_the_report() -> None:
    done = command("example:fail-quota-403", "--speed", "max")
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines[-1]["event"] == "report"
    assert {line["event"] for line in lines} == {"trace_opened", "step_seen", "verdict", "report"}


@pytest.mark.parametrize("speed", ["0", "-1", "fast", "nan"])
def test_a_speed_that_makes_no_sense(speed: str) -> None:
    done = command("example:fail-quota-403", "--speed", speed)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"--speed" in done.stderr and done.stderr.count(b"\n") == 1


def test_a_capture_that_is_not_there(tmp_path: Path) -> None:
    done = command(str(tmp_path / "nothing.pcap"))
    assert (done.returncode, done.stdout) == (2, b"")
