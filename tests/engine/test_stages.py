"""The stages and who hears with them; captures opened for them."""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from pathlib import Path

import pytest

from tracer.engine import (
    Listeners,
    OpenCaptures,
    Settings,
    Stages,
    check,
    open_captures,
    read,
    reopen,
    report_on,
    resolve_captures,
)
from tracer.engine.results import report
from tracer.errors import SourceError
from tracer.grammar import load
from tracer.model import AmqpMethod, Call, Closed, SqlLogin, Undecoded
from tracer.testing.cloud import Cloud
from tracer.testing.creation import Creation
from tracer.topology import GivenTopology

GIVEN = GivenTopology()


@pytest.fixture
def paths(tmp_path: Path) -> list[str]:
    """Captures of one creation, a file for each plane."""
    cloud = Cloud()
    cloud.background(0, 130)
    Creation(cloud).run()
    return cloud.network.write(tmp_path)


def stages_of(opened: OpenCaptures, listeners: Listeners | None = None) -> Stages:
    return Stages(opened.captures, GIVEN, Settings(), load("cloudvm_create"), listeners=listeners)


def test_listeners_hear_and_change_nothing(paths: list[str]) -> None:
    """Each type of message that was asked for, connections that end, calls as they begin and change."""
    messages, closed, serials = Counter[type](), list[Closed](), set[int]()

    def hear(message: object) -> None:
        messages[type(message)] += 1

    def hear_calls(calls: object) -> None:
        assert isinstance(calls, list | tuple)
        serials.update(call.serial for call in calls if isinstance(call, Call))

    opened = open_captures(paths, GIVEN)
    listeners = Listeners({AmqpMethod: hear, SqlLogin: hear, Undecoded: hear}, closed.append, hear_calls)
    stages = stages_of(opened, listeners)
    assert read(stages, opened) is False
    assert messages[AmqpMethod] > 10 and messages[SqlLogin] > 0
    assert set(messages) <= {AmqpMethod, SqlLogin, Undecoded}
    assert len(closed) > 10
    assert serials == set(range(1, stages.newest + 1))
    found, usual = report(stages, partial=False), check(paths, Settings())
    assert found.verdicts == usual.verdicts
    assert [each.calls for each in found.captures] == [each.calls for each in usual.captures]


def test_stages_are_freed_when_nobody_needs_them(paths: list[str]) -> None:
    """They hold all calls of a run: none of them waits for the garbage collector."""
    opened = open_captures(paths, GIVEN)
    stages = stages_of(opened)
    read(stages, opened)
    known = weakref.ref(stages)
    gc.disable()
    try:
        assert report_on(stages, []).seen
        del stages
        assert known() is None
    finally:
        gc.enable()


class Heard:
    """What a run tells of the captures that it opens."""

    def __init__(self) -> None:
        self.of: list[tuple[str, object]] = []

    def opened(self, path: str, size_bytes: int | None) -> None:
        self.of.append((path, size_bytes))

    def advanced(self, path: str, bytes_read: int, packets: int, traces: int) -> None:
        pass

    def ignored(self, path: str, why: str) -> None:
        self.of.append((path, why))


def test_what_is_opened_is_told(paths: list[str], tmp_path: Path) -> None:
    """What is no capture by its name first, then each file with its size."""
    (tmp_path / "notes.txt").write_text("no capture", encoding="utf-8")
    heard = Heard()
    opened = open_captures([str(tmp_path)], GIVEN, heard)
    sizes = [(capture.path, Path(capture.path).stat().st_size) for capture in opened.captures]
    assert heard.of == [(str(tmp_path / "notes.txt"), "not a capture by its name"), *sizes]
    assert [capture.number for capture in opened.captures] == list(range(len(paths)))
    assert [capture.path for capture in opened.captures] == [
        each.path for each in resolve_captures([str(tmp_path)], GIVEN).captures
    ]


def test_a_capture_is_read_again_without_being_counted_again(paths: list[str]) -> None:
    opened = open_captures(paths[:1], GIVEN)
    (capture,) = opened.captures
    first = [packet for batch in opened.packets[0] for packet in batch]
    counted = capture.packets
    assert [packet for batch in reopen(capture) for packet in batch] == first
    assert capture.packets == counted == len(first)
    Path(capture.path).unlink()
    with pytest.raises(SourceError, match="cannot be read"):
        reopen(capture)
