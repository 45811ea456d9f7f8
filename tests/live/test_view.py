"""The live view: what a person sees while a run goes on."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lab.streams import ROOT, files, pipes
from rich.console import Console

from tracer.engine import Settings
from tracer.live.run import open_watch
from tracer.model.events import BrokerQueue, Event, OpenTrace, Picture, Plane
from tracer.reports.events import json_line, text_line
from tracer.reports.live import picture

S_NS = 1_000_000_000


@pytest.fixture(scope="module")
def stalled(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """The picture of a creation that waits for a conductor that is down, as it was while it waited."""
    hold = threading.Event()
    pictures: list[Picture] = []
    folder = tmp_path_factory.mktemp("pipes")
    with pipes(folder, files("fail-conductor-down"), hold=hold) as sources:

        def tell(event: Event) -> None:
            if event.kind == "stalled":
                pictures.append(run.picture())
                hold.set()

        run = open_watch(sources, Settings(stall_s=20), tell)
        run.run()
    return pictures[0]


def drawn(shown: Picture, width: int, *, color: bool = False, rows: int = 20) -> str:
    file = io.StringIO()
    system = "standard" if color else None
    console = Console(file=file, width=width, force_terminal=True, color_system=system, no_color=not color)
    console.print(picture(shown, console, rows))
    return file.getvalue()


def test_a_row_tells_the_steps_and_who_owes_the_next(stalled: Picture) -> None:
    text = drawn(stalled, 200)
    [head] = [line for line in text.splitlines() if "waits for" in line]
    [row] = [line for line in text.splitlines() if "fail-cond" in line]
    place = head.index("1 2 3 4abcde 5 6 7 8abc")
    assert row[place : place + 23] == "● ● ●  ●●●●● ▲ · ·  ···"
    assert "nova-conductor: schedule_and_build_instances not delivered" in row
    assert "49e1daca…" in row
    assert re.search(r"queue +conductor +\d+ messages undelivered for 2\d\.\d s", text)


def test_what_nobody_has_reached_yet_is_not_said_to_be_unseen(stalled: Picture) -> None:
    """Steps that could not be seen are marked up to the last one that was, and not behind it."""
    [trace] = stalled.open
    steps = tuple(
        replace(step, status="unobserved") if step.step in ("4c", "6", "8c") else step
        for step in trace.verdict.steps
    )
    unsure = replace(stalled, open=[replace(trace, verdict=replace(trace.verdict, steps=steps))])
    [row] = [line for line in drawn(unsure, 200).splitlines() if "fail-cond" in line]
    assert "● ● ●  ●●?●● ▲ · ·  ···" in row


@pytest.mark.parametrize("width", [40, 80, 120, 200])
@pytest.mark.parametrize("color", [False, True])
def test_no_line_is_wider_than_the_screen(stalled: Picture, width: int, color: bool) -> None:
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in drawn(stalled, width, color=color).splitlines()]
    assert max(map(len, lines)) <= width
    assert len(lines) >= 5


def test_without_colours_there_is_no_escape_sequence(stalled: Picture) -> None:
    assert "\x1b" not in drawn(stalled, 80)
    assert "\x1b[" in drawn(stalled, 80, color=True)


def test_at_80_columns_it_still_says_who_is_waited_for(stalled: Picture) -> None:
    [row] = [line for line in drawn(stalled, 80).splitlines() if "fail-cond" in line]
    assert "nova-conductor" in row


def _many(shown: Picture, count: int) -> Picture:
    [one] = shown.open
    names = [replace(one.verdict, name=f"vm-{n}") for n in range(count)]
    return replace(shown, open=[OpenTrace(n, name, one.quiet_since_ns) for n, name in enumerate(names)])


def test_more_rows_than_the_screen_has_are_counted(stalled: Picture) -> None:
    text = drawn(_many(stalled, 50), 80, rows=10)
    assert "and 40 more creations" in text
    assert text.count("vm-") == 10


HOSTILE = ["\x1b[2J\x1b]0;owned\x07", "a\nb\rc", "[bold red]markup[/]", "x" * 10_000, "\u202egpj.exe"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_moves_no_cursor(stalled: Picture, name: str) -> None:
    [one] = stalled.open
    verdict = replace(one.verdict, name=name)
    hostile = OpenTrace(1, verdict, one.quiet_since_ns, announced="stuck", owes=name, why=name)
    shown = replace(
        stalled, open=[hostile], planes=[Plane(name, name, state=name)], queues=[BrokerQueue(name, 3, 0, 1)]
    )
    text = drawn(shown, 80)
    assert "\x1b" not in text and "\r" not in text and "\u202e" not in text
    assert max(map(len, text.splitlines())) <= 80
    event = Event("verdict", S_NS, hostile, verdict, message=name)
    assert "\n" not in text_line(event) and "\x1b" not in text_line(event)
    assert len(text_line(event)) < 1000
    line = json_line(event)
    assert line.count(b"\n") == 1 and b"\x1b" not in line and len(line) < 5000


def test_drops_are_shown() -> None:
    shown = Picture(S_NS, planes=[Plane("eth0", "Internal_base", 10, dropped=3, gaps=1, state="quiet")])
    assert "3 packets DROPPED by the kernel  1 gap  quiet" in drawn(shown, 120)


def test_a_queue_without_a_consumer_is_shown() -> None:
    shown = Picture(5 * S_NS, queues=[BrokerQueue("scheduler", 2, 0, S_NS)])
    assert "scheduler  2 messages undelivered for 4.0 s  no consumer" in drawn(shown, 120)


def _terminal(arguments: list[str], **environment: str) -> tuple[int, str]:
    """Run `tracer watch` on a terminal of its own."""
    main, side = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tracer", "watch", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=side,
        stderr=side,
        env=kept | {"TERM": "xterm", "COLUMNS": "100"} | environment,
    )
    os.close(side)
    output = b""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if select.select([main], [], [], 0.1)[0]:
            try:
                output += os.read(main, 1 << 16)
            except OSError:
                break
    os.close(main)
    return process.wait(60), output.decode()


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_on_a_terminal_the_view_gives_way_to_the_report(
    environment: dict[str, str], coloured: bool, tmp_path: Path
) -> None:
    with pipes(tmp_path, files("fail-vrm-500-reschedule")) as sources:
        code, output = _terminal(["-i", sources[0], "-i", sources[1]], **environment)
    assert code == 0
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", output)
    assert "in progress  0 conform  0 deviate" in plain
    assert re.search(r"✓ vrm-resched \w+…  active on compute1", plain)
    assert "1 trace: 1 conforms" in plain.splitlines()[-2]
    assert bool(re.search(r"\x1b\[[\d;]*3\dm", output)) is coloured
