"""Progress bars on standard error, when a person is looking at it. rich is imported for nobody else."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tracer.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from tracer.cli.manner import Manner

__all__ = ["CaptureProgress", "progress"]


@contextmanager
def progress(manner: Manner) -> Iterator[CaptureProgress]:
    """Bars for as long as the captures are read; without a terminal or with `-q`, none."""
    if manner.quiet or sys.stderr is None or not sys.stderr.isatty():
        yield CaptureProgress(None, manner)
        return
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    with Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[counts]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=Console(stderr=True, color_system="auto" if output.colourful(sys.stderr, manner) else None),
        transient=True,
    ) as bars:
        yield CaptureProgress(bars, manner)


class CaptureProgress:
    """Tells how far the captures are read: `tracer.engine.Progress`."""

    def __init__(self, bars: Bars | None, manner: Manner) -> None:
        self._bars = bars
        self._manner = manner
        self._tasks: dict[str, TaskID] = {}

    def opened(self, path: str, size_bytes: int | None) -> None:
        if self._bars is not None:
            name = output.plain(path.rsplit("/", 1)[-1], 60)
            self._tasks[path] = self._bars.add_task(name, total=size_bytes, counts="")

    def advanced(self, path: str, bytes_read: int, packets: int, traces: int) -> None:
        if self._bars is not None and path in self._tasks:
            counts = f"{packets:,} packets, {traces:,} traces"
            self._bars.update(self._tasks[path], completed=bytes_read, counts=counts)

    def ignored(self, path: str, why: str) -> None:
        if self._manner.verbose:
            output.say(f"ignored {path}: {why}", self._manner)
