"""Output of the commands: results to standard output or `-o`, remarks and progress to standard error.

rich is imported only where it is used: for a text report, and for progress on a terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tracer.errors import UsageError, reason

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from tracer.cli.common import CommonOptions
    from tracer.model import Report

__all__ = [
    "CONFORMS",
    "COULD_NOT_RUN",
    "DEVIATES",
    "INCONCLUSIVE",
    "INTERRUPTED",
    "NO_TRACE",
    "CaptureProgress",
    "colourful",
    "console",
    "destination",
    "discard_stdout",
    "exit_code",
    "plain",
    "progress",
    "ready",
    "say",
    "write_line",
    "write_report",
]

CONFORMS, DEVIATES, COULD_NOT_RUN, INCONCLUSIVE, NO_TRACE, INTERRUPTED = 0, 1, 2, 3, 5, 130
_PIPE_WIDTH = 160
"""Columns of a text report that goes to a file or a pipe: wide enough for a step's whole row."""


def exit_code(report: Report) -> int:
    """Return the exit code of check and watch for *report*."""
    if report.partial:
        return INTERRUPTED
    if report.internal_errors:
        return COULD_NOT_RUN
    verdicts = {verdict.verdict for verdict in report.verdicts}
    if not verdicts:
        return NO_TRACE
    if "deviates" in verdicts:
        return DEVIATES
    return INCONCLUSIVE if "inconclusive" in verdicts else CONFORMS


# --- remarks --------------------------------------------------------------------------------------


def say(message: str, common: CommonOptions) -> None:
    """Write a remark to standard error, unless -q is given."""
    if message and not common.quiet:
        write_line(message)


def write_line(message: str) -> None:
    """Write one line to standard error; a closed or broken standard error is ignored."""
    if sys.stderr is not None:
        with suppress(BrokenPipeError):
            print(f"tracer: {plain(message, 2000)}", file=sys.stderr)


def plain(text: str, limit: int) -> str:
    """Return `tracer.reports.plain` of *text*; the reports are imported with the first remark."""
    from tracer import reports

    return reports.plain(text, limit)


# --- progress --------------------------------------------------------------------------------------


@contextmanager
def progress(common: CommonOptions) -> Iterator[CaptureProgress]:
    """Show progress bars while captures are read; none with `-q` or without a terminal."""
    if common.quiet or sys.stderr is None or not sys.stderr.isatty():
        yield CaptureProgress(None, common)
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
        console=Console(stderr=True, color_system="auto" if colourful(sys.stderr, common) else None),
        transient=True,
    ) as bars:
        yield CaptureProgress(bars, common)


class CaptureProgress:
    """Shows how far the captures are read; an implementation of `tracer.engine.Progress`."""

    def __init__(self, bars: Bars | None, common: CommonOptions) -> None:
        self._bars = bars
        self._manner = common
        self._tasks: dict[str, TaskID] = {}

    def opened(self, path: str, size_bytes: int | None) -> None:
        """Show a bar for a capture; *size_bytes* is None for a stream."""
        if self._bars is not None:
            name = plain(path.rsplit("/", 1)[-1], 60)
            self._tasks[path] = self._bars.add_task(name, total=size_bytes, counts="")

    def advanced(self, path: str, bytes_read: int, packets: int, traces: int) -> None:
        """Update the bar of a capture."""
        if self._bars is not None and path in self._tasks:
            counts = f"{packets:,} packets, {traces:,} traces"
            self._bars.update(self._tasks[path], completed=bytes_read, counts=counts)

    def ignored(self, path: str, why: str) -> None:
        """Report, with -v, a file of a folder that is no capture."""
        if self._manner.verbose:
            say(f"ignored {path}: {why}", self._manner)


# --- results --------------------------------------------------------------------------------------


@contextmanager
def destination(path: Path | None, captures: Sequence[str], option: str = "-o") -> Iterator[TextIO]:
    """Open *path*, or standard output, for results; *option* is named in errors.

    A file that cannot be written is reported before the work begins. The old content of a file stays until
    the first result is written. Raises UsageError.
    """
    if path is None or str(path) == "-":
        if sys.stdout is None:
            raise UsageError(f"standard output is closed; name a file for the result with {option}")
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has ended (`| head`); the exit code still shows the result.
            discard_stdout()
        return
    if any(_same_file(path, capture) for capture in captures):
        raise UsageError(f"{option} {path}: that is a capture to be read; it would be overwritten")
    existed = path.exists()
    try:
        # A report says who did what in a cloud: the reader decides who else may see it.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    except OSError as error:
        raise UsageError(f"{option} {path}: cannot be written: {reason(error)}") from None
    with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
        try:
            yield file
            file.flush()
            with suppress(OSError):  # a pipe or a device has no old end to cut off
                os.truncate(descriptor, os.lseek(descriptor, 0, os.SEEK_CUR))
        except BaseException:
            if not existed:
                path.unlink(missing_ok=True)
            raise


def _same_file(path: Path, capture: str) -> bool:
    """Return whether *path* is the capture that an argument names, or one in the folder that it names."""
    with suppress(OSError, ValueError):
        for name in filter(None, (capture, capture.partition("=")[2])):
            source = Path(name)
            if source.is_file() and path.samefile(source):
                return True
            if source.is_dir() and path.is_file() and path.parent.samefile(source):
                return any(part in path.name.lower() for part in (".pcap", ".cap"))
    return False


def discard_stdout() -> None:
    """Redirect standard output to /dev/null, so that the flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def ready(form: str, file: TextIO) -> None:
    """Raise UsageError if libraries of a format are missing, or if it is binary and *file* a terminal."""
    from tracer.cli import formats

    chosen = formats.FORMATS.get(form)
    if chosen is None:
        return
    if chosen.binary and file.isatty():
        raise UsageError(f"--format {form} cannot be written to a terminal; name a file with -o")
    if chosen.extra:
        formats.loaded(form, f"--format {form}")


def write_report(form: str, report: Report, file: TextIO) -> None:
    """Write the report in a format of `formats.FORMATS`."""
    from tracer.cli import formats

    file.flush()
    for piece in formats.pieces(form, report):
        file.buffer.write(piece)


# --- colours and width -----------------------------------------------------------------------------


def console(file: TextIO, common: CommonOptions) -> Console:
    """Return a console on a stream: as wide as the terminal, or _PIPE_WIDTH columns without one."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would exit with 1, which means that a trace deviates

    on_screen, coloured = file.isatty(), colourful(file, common)
    has_width = on_screen or os.environ.get("COLUMNS", "").isdigit()
    return Screen(
        file=file,
        width=None if has_width else _PIPE_WIDTH,
        force_terminal=on_screen,
        # Without a terminal rich detects no colours, even if they are requested.
        color_system=("auto" if on_screen else "standard") if coloured else None,
        no_color=not coloured,
        highlight=False,
        markup=False,
        emoji=False,
    )


def colourful(file: TextIO, common: CommonOptions) -> bool:
    """Return whether output to *file* is coloured: by the option, else the environment, else the terminal."""
    if common.color != "auto":
        return common.color == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return file.isatty() and os.environ.get("TERM") != "dumb"
