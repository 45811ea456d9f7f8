"""The command line: flags, streams and exit codes. What is decided about traces is decided elsewhere.

Results go to standard output or `-o`, everything else to standard error. The pipeline, rich and the
reports are imported inside the commands: `tracer --help` and shell completion answer at once.
"""

from __future__ import annotations

import dataclasses
import io
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO

import typer

from tracer import reports
from tracer.errors import TracerError, UsageError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from tracer.model import Report, Verdict
    from tracer.pipeline import Settings

__all__ = ["app", "main"]

CONFORMS, DEVIATES, COULD_NOT_RUN, INCONCLUSIVE, NO_TRACE, INTERRUPTED = 0, 1, 2, 3, 5, 130
_PIPE_WIDTH = 160
"""Columns of a text report that goes to a file or a pipe: wide enough for a step's whole row."""

app = typer.Typer(
    name="tracer",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(StrEnum):
    """Of check and show."""

    text = "text"
    json = "json"


class CallFormat(StrEnum):
    """Of calls."""

    text = "text"
    jsonl = "jsonl"


class Color(StrEnum):
    """When to colour."""

    auto = "auto"
    always = "always"
    never = "never"


Captures = Annotated[
    list[str],
    typer.Argument(
        metavar="CAPTURE",
        help="Capture files (pcap, pcapng; .gz, .zst), PLANE=FILE, a folder of them, - or example:NAME.",
        show_default=False,
    ),
]
Grammar = Annotated[str, typer.Option("--grammar", "-g", metavar="NAME|FILE", help="What to check against.")]
Topology = Annotated[
    Path | None,
    typer.Option("--topology", "-t", metavar="FILE", help="Planes, roles and ports (TOML); else inferred."),
]
Out = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write the result there, not to standard output."),
]
Stall = Annotated[
    float,
    typer.Option("--stall", metavar="SECONDS", help="Silence after which a creation counts as stuck."),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Only traces started from then on: RFC 3339, or epoch seconds."
    ),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only traces started before that: likewise.")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        metavar="KEY=VALUE",
        help="Only traces whose name, id, host, outcome, step or verdict is VALUE (name and host: with * and"
        " ?; id: a part of it). Repeat it: one key, either value; several keys, all of them.",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="KIND[:STEP]", help="Accept such a deviation, or 'unobserved', as a mere note."
    ),
]
Colour = Annotated[
    Color | None, typer.Option("--color", help="Colours; auto: on a terminal, and NO_COLOR is obeyed.")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on standard error but errors.")]
Verbose = Annotated[
    int, typer.Option("--verbose", "-v", count=True, show_default=False, help="Say more; twice: still more.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the trace of an internal error.")]


@dataclasses.dataclass(slots=True)
class Manner:
    """How to talk: given before the command, after it, or both."""

    color: Color = Color.auto
    quiet: bool = False
    verbose: int = 0
    debug: bool = False


_manner = Manner()


def _version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("cloudvm-tracer")
    except PackageNotFoundError:
        number = "(not installed, run from its source tree)"
    typer.echo(f"tracer {number}")
    raise typer.Exit()


@app.callback(invoke_without_command=True)
def _tracer(
    context: typer.Context,
    color: Colour = None,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    debug: Debug = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Says at which documented step the creation of a cloud VM broke, from network captures alone.

    \b
    Examples:
      tracer check captures/                  which creations are in there, and which broke where
      tracer show captures/ --trace web-1     one of them as a ladder diagram
      tracer calls boot.pcap --format jsonl   every call that the captures hold

    Exit codes of check: 0 all traces conform, 1 one deviates, 2 could not run, 3 none deviates but one is
    inconclusive, 5 no trace found, 130 interrupted. The other commands: 0 or 2.
    """
    global _manner
    _manner = Manner()
    _speak(color, quiet, verbose, debug)
    if context.invoked_subcommand is None:
        # Not 0: a script whose command came out empty has checked nothing.
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(COULD_NOT_RUN)


def _speak(color: Color | None, quiet: bool, verbose: int, debug: bool) -> None:
    _manner.color = color or _manner.color
    _manner.quiet = quiet or _manner.quiet
    _manner.verbose += verbose
    _manner.debug = debug or _manner.debug


# --- the commands ---------------------------------------------------------------------------------


@app.command()
def check(
    captures: Captures,
    grammar: Grammar = "cloudvm_create",
    topology: Topology = None,
    format: Annotated[Format, typer.Option("--format", help="text, or tracer.check/1.")] = Format.text,
    output: Out = None,
    stall: Stall = 60.0,
    since: Since = None,
    until: Until = None,
    where: Where = None,
    allow: Allow = None,
    color: Colour = None,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    debug: Debug = False,
) -> None:
    """Checks every VM creation in the captures against its documented steps.

    \b
    Examples:
      tracer check External_api.pcap Internal_base.pcap.zst
      tracer check captures/ --where outcome=stuck --where 'name=web-*' -v
      tracer check captures/ --format json -o report.json --allow unobserved:1

    Exit codes: 0 every trace conforms, 1 a trace deviates, 2 could not run, 3 none deviates but one is
    inconclusive, 5 no trace found, 130 interrupted (the report so far is printed).
    """
    _speak(color, quiet, verbose, debug)

    def run() -> int:
        selection = reports.selection(where or [])
        settings = _settings(grammar, topology, stall, since, until, allow)
        with _destination(output, captures) as file:
            report, found = _report(captures, settings, selection)
            if format is Format.json:
                _write_json(report, file)
                _comment(report)
            elif report.verdicts or not found:
                from tracer.reports import console

                console.render(report, _console(file), _manner.verbose)
        if not report.verdicts:
            _say(_nothing(report, found, where or []))
        return _exit_code(report)

    _leave(run)


@app.command()
def calls(
    captures: Captures,
    grammar: Grammar = "cloudvm_create",
    topology: Topology = None,
    format: Annotated[
        CallFormat, typer.Option("--format", help="text, or one object a line.")
    ] = CallFormat.text,
    output: Out = None,
    since: Since = None,
    until: Until = None,
    color: Colour = None,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    debug: Debug = False,
) -> None:
    """Prints every call that the captures hold: REST, RPC and SQL, in time order.

    \b
    Examples:
      tracer calls Internal_base.pcap | grep 'nova-compute > '
      tracer calls captures/ --format jsonl -o calls.jsonl
      tracer calls captures/ --format jsonl | jq 'select(.traces | length > 1)'
    """
    _speak(color, quiet, verbose, debug)

    def run() -> int:
        settings = _settings(grammar, topology, None, since, until, None)
        with _destination(output, captures) as file, _progress() as progress:
            from tracer import pipeline
            from tracer.reports import calls as report

            records = pipeline.calls(captures, settings, progress)
            if format is CallFormat.jsonl:
                report.write_lines(records, file)
            else:
                report.write_text(records, file, color=_colourful(file))
        return CONFORMS

    _leave(run)


@app.command()
def show(
    captures: Captures,
    trace: Annotated[
        str | None,
        typer.Option(
            "--trace", metavar="ID", help="An id, request id, server id or name, or the beginning of one."
        ),
    ] = None,
    grammar: Grammar = "cloudvm_create",
    topology: Topology = None,
    format: Annotated[Format, typer.Option("--format", help="text, or tracer.check/1.")] = Format.text,
    output: Out = None,
    stall: Stall = 60.0,
    since: Since = None,
    until: Until = None,
    allow: Allow = None,
    color: Colour = None,
    quiet: Quiet = False,
    verbose: Verbose = 0,
    debug: Debug = False,
) -> None:
    """Draws one creation as a ladder diagram, with time deltas and frame numbers.

    \b
    Examples:
      tracer show captures/ --trace web-1
      tracer show captures/ --trace req-2f3ede67 -v     with the calls outside the documented steps
      tracer show External_api.pcap Internal_base.pcap --trace 8450a932 | less -S
    """
    _speak(color, quiet, verbose, debug)

    def run() -> int:
        settings = _settings(grammar, topology, stall, since, until, allow)
        with _destination(output, captures) as file:
            report, _ = _report(captures, settings, lambda _: True)
            chosen = reports.chosen(report.verdicts, trace)
            report = dataclasses.replace(report, verdicts=chosen)
            if format is Format.json:
                _write_json(report, file)
            else:
                from tracer.reports import ladder

                screen = _console(file)
                for verdict in chosen:
                    ladder.render(verdict, report, screen, _manner.verbose)
        return INTERRUPTED if report.partial else CONFORMS

    _leave(run)


# --- arguments ------------------------------------------------------------------------------------


def _settings(
    grammar: str,
    topology: Path | None,
    stall: float | None,
    since: str | None,
    until: str | None,
    allow: Sequence[str] | None,
) -> Settings:
    from tracer.pipeline import Settings

    if stall is not None and not (math.isfinite(stall) and stall > 0):
        raise UsageError(f"--stall {stall:g}: must be more than 0 seconds")
    settings = Settings(
        grammar=grammar,
        topology=topology,
        since_ns=_epoch("--since", since),
        until_ns=_epoch("--until", until),
        allow=tuple(allow or ()),
    )
    return settings if stall is None else dataclasses.replace(settings, stall_s=stall)


def _epoch(option: str, text: str | None) -> int | None:
    try:
        return None if text is None else reports.nanoseconds(text)
    except (ValueError, OverflowError):
        known = "write 2026-01-01T06:53:28Z (UTC without a zone) or seconds since 1970"
        raise UsageError(f"{option} {text!r}: not a time; {known}") from None


# --- running --------------------------------------------------------------------------------------


def _report(
    captures: Sequence[str], settings: Settings, selection: Callable[[Verdict], bool]
) -> tuple[Report, int]:
    """The report on the traces that are asked for, and how many traces there were."""
    from tracer import pipeline

    with _progress() as progress:
        report = pipeline.check(captures, settings, progress)
    chosen = [verdict for verdict in report.verdicts if selection(verdict)]
    return dataclasses.replace(report, verdicts=chosen), len(report.verdicts)


def _exit_code(report: Report) -> int:
    if report.partial:
        return INTERRUPTED
    verdicts = {verdict.verdict for verdict in report.verdicts}
    if not verdicts:
        return NO_TRACE
    if "deviates" in verdicts:
        return DEVIATES
    return INCONCLUSIVE if "inconclusive" in verdicts else CONFORMS


def _leave(run: Callable[[], int]) -> NoReturn:
    """Run a command and exit with its code; every mistake of the caller is one line on standard error."""
    try:
        code = run()
    except TracerError as error:
        code = _fail(str(error))
    except KeyboardInterrupt:
        _say("interrupted")
        code = INTERRUPTED
    except OSError as error:
        code = _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:
        if _manner.debug:
            import traceback

            traceback.print_exc()
        what = reports.plain(f"{type(error).__name__}: {error}", 500)
        code = _fail(f"{what} (this is a bug; run with --debug for the trace)", "internal error")
    raise typer.Exit(code)


def _fail(message: str, kind: str = "error") -> int:
    print(f"tracer: {kind}: {reports.plain(message, 2000)}", file=sys.stderr)
    return COULD_NOT_RUN


def _say(message: str) -> None:
    if message and not _manner.quiet:
        print(f"tracer: {reports.plain(message, 2000)}", file=sys.stderr)


def _nothing(report: Report, found: int, where: Sequence[str]) -> str:
    """Why there is nothing to report, for standard error."""
    if found:
        return f"none of the {found} traces fits {' '.join('--where ' + condition for condition in where)}"
    return f"no trace found; the captures hold {reports.seen_instead(report)}"


def _comment(report: Report) -> None:
    """Say on standard error what the captures lost: a pipe that reads the JSON may not look."""
    for capture in report.captures:
        if lost := reports.losses(capture):
            _say(f"warning: {capture.path}: {lost}")


# --- streams --------------------------------------------------------------------------------------


@contextmanager
def _destination(path: Path | None, captures: Sequence[str]) -> Iterator[TextIO]:
    """Where results go. That a file cannot be written is found out before the work; what it held before
    stays until then."""
    if path is None or str(path) == "-":
        try:
            yield sys.stdout
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has had enough (`| head`); the exit code still says what was found.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if any(_same_file(path, capture) for capture in captures):
        raise UsageError(f"-o {path}: that is a capture to be read; it would be overwritten")
    existed = path.exists()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    except OSError as error:
        raise UsageError(f"-o {path}: cannot be written: {error.strerror}") from None
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
    with suppress(OSError, ValueError):
        names = (capture, capture.partition("=")[2])
        return any(path.samefile(name) for name in names if name and Path(name).is_file())
    return False


def _write_json(report: Report, file: TextIO) -> None:
    from tracer.reports import json

    file.flush()
    for piece in json.pieces(report):
        file.buffer.write(piece)


def _console(file: TextIO) -> Console:
    """A console on a stream: as wide as the terminal, or wide enough where no window cuts the lines."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise  # rich would exit with 1, which means that a trace deviates

    on_screen, colourful = file.isatty(), _colourful(file)
    has_width = on_screen or os.environ.get("COLUMNS", "").isdigit()
    return Screen(
        file=file,
        width=None if has_width else _PIPE_WIDTH,
        force_terminal=on_screen,
        # rich finds no colours where there is no terminal, however loudly they are asked for.
        color_system=("auto" if on_screen else "standard") if colourful else None,
        no_color=not colourful,
        highlight=False,
        markup=False,
        emoji=False,
    )


def _colourful(file: TextIO) -> bool:
    if _manner.color is not Color.auto:
        return _manner.color is Color.always
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return file.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def _progress() -> Iterator[CaptureProgress]:
    """Progress bars on standard error, when a person is looking at it."""
    if _manner.quiet or not sys.stderr.isatty():
        yield CaptureProgress(None)
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
        console=Console(stderr=True, color_system="auto" if _colourful(sys.stderr) else None),
        transient=True,
    ) as bars:
        yield CaptureProgress(bars)


class CaptureProgress:
    """Tells how far the captures are read: `tracer.pipeline.Progress`."""

    def __init__(self, bars: Bars | None) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def opened(self, path: str, size_bytes: int | None) -> None:
        if self._bars is not None:
            name = reports.plain(path.rsplit("/", 1)[-1], 60)
            self._tasks[path] = self._bars.add_task(name, total=size_bytes, counts="")

    def advanced(self, path: str, bytes_read: int, packets: int, traces: int) -> None:
        if self._bars is not None and path in self._tasks:
            counts = f"{packets:,} packets, {traces:,} traces"
            self._bars.update(self._tasks[path], completed=bytes_read, counts=counts)

    def ignored(self, path: str, why: str) -> None:
        if _manner.verbose:
            _say(f"ignored {path}: {why}")


def main() -> None:
    """The console script `tracer`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show an arrow gets a question mark, not a traceback.
            stream.reconfigure(errors="replace")
    app(prog_name="tracer")
