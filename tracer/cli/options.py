"""The options of the commands: their names, their help, and the parsing of their values.

Invalid values are refused here, before a capture is opened or the pipeline imported.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.common import Function
from tracer.cli.formats import FORMATS
from tracer.errors import UsageError
from tracer.settings import ENGINES, Settings

if TYPE_CHECKING:
    from tracer.model import Report, Verdict

__all__ = [
    "Where",
    "allow",
    "anonymize",
    "autostop",
    "baseline",
    "bpf",
    "brokers",
    "calls_since",
    "calls_until",
    "captures",
    "checkpoint",
    "cross_check",
    "engine",
    "every",
    "form",
    "grammar",
    "interfaces",
    "keylog",
    "metrics",
    "most_files",
    "notify",
    "otlp",
    "packets",
    "path",
    "report_form",
    "settings",
    "since",
    "size",
    "speed",
    "stall",
    "target",
    "topology",
    "trace",
    "until",
    "where",
]


class Where:
    """The conditions of --where as a predicate on verdicts."""

    def __init__(self, conditions: Sequence[str]) -> None:
        self.conditions = conditions
        self.fits: Callable[[Verdict], bool] = lambda _: True
        self.steps: tuple[str, ...] = ()
        if conditions:
            from tracer import reports

            self.fits = reports.selection(conditions)
            self.steps = reports.named_steps(conditions)

    def of(self, report: Report) -> Report:
        """Return *report* with only the traces that match."""
        return replace(report, verdicts=[verdict for verdict in report.verdicts if self.fits(verdict)])

    def __str__(self) -> str:
        return " ".join(f"--where {condition}" for condition in self.conditions)


_SHARED = frozenset(each.name for each in fields(Settings))
_DEFAULTS = Settings()


def settings(function: Callable[..., int]) -> Callable[..., int]:
    """Pass the command one `Settings` in place of the options that are fields of it.

    The command applies --where itself; the steps that --where names go into the settings, where the grammar
    checks that it has them.
    """

    @functools.wraps(function)
    def gathered(*arguments: object, **answers: Any) -> int:
        given: dict[str, Any] = {name: answers.pop(name) for name in _SHARED & answers.keys()}
        if "where" in answers:
            given["steps"] = answers["where"].steps
        return function(*arguments, settings=Settings(**given), **answers)

    return gathered


# --- what to read, and how ------------------------------------------------------------------------

captures = click.argument("captures", metavar="CAPTURE...", nargs=-1, required=True, type=click.Path())
grammar = click.option(
    "--grammar",
    "-g",
    metavar="NAME|FILE|all",
    type=click.Path(),
    default=_DEFAULTS.grammar,
    show_default="by what is seen",
    help="What to check against; all: each operation against its own workflow.",
)


def path(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    """Convert a value to a path (a callback of click)."""
    return None if value is None else Path(value)


cross_check = click.option(
    "--cross-check",
    is_flag=True,
    help="Decode with tshark too, and report each call that only one saw, or that differs.",
)
engine = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    metavar="|".join(ENGINES),
    default=_DEFAULTS.engine,
    show_default=True,
    help="Who decodes; tshark reads more formats, slowly (needs tshark).",
)
topology = click.option(
    "--topology",
    "-t",
    metavar="FILE",
    type=click.Path(),
    callback=path,
    help="Planes, roles and ports (TOML); else inferred.",
)


keylog = click.option(
    "--keylog",
    metavar="FILE",
    type=click.Path(),
    callback=path,
    help="TLS secrets (NSS key log): encrypted connections are read as well.",
)

MOST = 1_000_000_000
"""Limit of seconds, megabytes and speeds: more cannot be meant, and overflows."""


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise UsageError(f"--stall {text!r}: not a number of seconds; write 60 or 2.5") from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"--stall {seconds:g}: must be more than 0 seconds")
    if seconds > MOST:
        raise UsageError(f"--stall {seconds:g}: must be at most {MOST:,} seconds")
    return seconds


stall = click.option(
    "--stall",
    "stall_s",
    metavar="SECONDS",
    default=f"{_DEFAULTS.stall_s:g}",
    show_default=True,
    callback=_seconds,
    help="Silence after which a creation counts as stuck.",
)


def _time(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    from tracer import reports

    try:
        time_ns = reports.nanoseconds(text)
    except (ValueError, OverflowError):
        known = "write 2026-01-01T06:53:28Z (UTC without a zone) or seconds since 1970"
        raise UsageError(f"{parameter.opts[0]} {text!r}: not a time; {known}") from None
    # click calls this for each of the two options; the second call finds the value of the first.
    times = {**context.params, parameter.name: time_ns}
    since_ns, until_ns = times.get("since_ns"), times.get("until_ns")
    if since_ns is not None and until_ns is not None and since_ns >= until_ns:
        raise UsageError(
            f"--since {reports.timestamp(since_ns)} is not before --until {reports.timestamp(until_ns)}:"
            " nothing lies between them"
        )
    return time_ns


def _span(what: str) -> tuple[Callable[[Function], Function], Callable[[Function], Function]]:
    """Return the options --since and --until, which select *what*: traces or calls."""
    since_help = f"Only {what} that start at TIME or later: RFC 3339, or epoch seconds."
    until_help = f"Only {what} that start before TIME."
    return (
        click.option("--since", "since_ns", metavar="TIME", callback=_time, help=since_help),
        click.option("--until", "until_ns", metavar="TIME", callback=_time, help=until_help),
    )


since, until = _span("traces")
calls_since, calls_until = _span("calls")
allow = click.option(
    "--allow",
    metavar="KIND[:STEP]",
    multiple=True,
    help="Accept such deviations, or 'unobserved', and report them as notes.",
)

baseline = click.option(
    "--baseline",
    metavar="FILE",
    type=click.Path(),
    callback=path,
    help="Report steps that are slow compared with this file of `tracer baseline`.",
)


# --- what to show, and where ----------------------------------------------------------------------


def form(*names: str, description: str) -> Callable[[Function], Function]:
    """Return --format with the choices *names*, the first by default; *description* is its help."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(names),
        metavar="|".join(names),
        default=names[0],
        show_default=True,
        help=description,
    )


anonymize = click.option(
    "--anonymize",
    is_flag=True,
    help="Replace names, hosts, addresses, and ids of projects and users, so that it can be mailed.",
)
otlp = click.option(
    "--otlp", metavar="URL", help="Send the traces to this OpenTelemetry collector too: http://HOST:4318."
)
report_form = form(
    "text",
    *FORMATS,
    description="; ".join(f"{name}: {format.description}" for name, format in FORMATS.items()) + ".",
)


target = click.option(
    "--output",
    "-o",
    "target",
    metavar="FILE",
    type=click.Path(),
    callback=path,
    help="Write the result to FILE instead of standard output.",
)


def _where(_: click.Context, __: click.Parameter, conditions: Sequence[str]) -> Where:
    return Where(conditions)


where = click.option(
    "--where",
    metavar="KEY=VALUE",
    multiple=True,
    callback=_where,
    help="Only traces whose name, id, host, outcome, step or verdict is VALUE (name and host: with * and ?;"
    " id: a part of it, or of an RPC message's). Repeat it: one key, either value; several keys,"
    " all of them.",
)


def _one_trace(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> str | None:
    """Return the one trace that is named; the last of several would be taken in silence."""
    if len(given) > 1:
        raise UsageError(f"--trace is given {len(given)} times; name one, and run once for each")
    return given[0] if given else None


trace = click.option(
    "--trace",
    metavar="ID",
    multiple=True,
    callback=_one_trace,
    help="An id, request id, server id or name, or the beginning of one; or an RPC message's id.",
)


# --- live sources, recordings, replays ----------------------------------------------------------------

interfaces = click.option(
    "--interface",
    "-i",
    "interfaces",
    metavar="PLANE=WHAT",
    multiple=True,
    help="An interface, a named pipe, or - for standard input; one plane each. Repeat it.",
)


brokers = click.option(
    "--amqp",
    "brokers",
    metavar="URL",
    multiple=True,
    help="Listen to a broker's firehose: amqp://USER:PASSWORD@HOST/VHOST, or amqps://. Repeat it.",
)


bpf = click.option(
    "--filter",
    "-f",
    "bpf",
    metavar="BPF",
    help="Capture filter (tcpdump syntax) instead of the protocols' ports; '' captures all.",
)


def _autostop(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    kind, _colon, number = text.rpartition(":")
    try:
        seconds = float(number)
    except ValueError:
        seconds = math.nan
    if kind not in ("", "duration") or not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"-a {text!r}: write duration:SECONDS, as duration:60")
    return seconds


autostop = click.option(
    "--autostop",
    "-a",
    "duration_s",
    metavar="duration:S",
    callback=_autostop,
    help="Stop after so many seconds.",
)
packets = click.option(
    "--count", "-c", "packets", metavar="N", type=click.IntRange(1), help="Stop after so many packets."
)

metrics = click.option(
    "--metrics",
    metavar="[ADDRESS:]PORT",
    help="Serve Prometheus metrics at PORT; on 127.0.0.1 unless an address is given.",
)
notify = click.option(
    "--notify",
    metavar="URL",
    help="POST the JSON line of each creation that is stuck or failed, and of its recovery, to URL.",
)
checkpoint = click.option(
    "--checkpoint",
    metavar="FILE",
    type=click.Path(),
    callback=path,
    help="Save open creations in FILE; the next watch goes on with them.",
)


def _more_than_nothing(_: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UsageError(f"{parameter.opts[0]} {value:g}: must be more than 0")
    if value is not None and value > MOST:
        raise UsageError(f"{parameter.opts[0]} {value:g}: must be at most {MOST:,}")
    return value


def _times(_: click.Context, __: click.Parameter, text: str) -> float:
    if text == "max":
        return 0.0
    try:
        speed = float(text)
    except ValueError:
        speed = math.nan
    if not (math.isfinite(speed) and speed > 0):
        raise UsageError(f"--speed {text!r}: write how many times faster, as 10 or 0.5, or max")
    if not 1 / MOST <= speed <= MOST:
        raise UsageError(f"--speed {text!r}: must be at most {MOST:,} times faster or slower; or write max")
    return speed


speed = click.option(
    "--speed",
    metavar="N|max",
    default="1",
    show_default=True,
    callback=_times,
    help="How many times faster than it was recorded; max: as fast as possible.",
)
size = click.option(
    "--size",
    "-C",
    "size_mb",
    metavar="MB",
    type=float,
    callback=_more_than_nothing,
    help="Begin a new file after so many MB.",
)
every = click.option(
    "--every",
    "-G",
    "every_s",
    metavar="SECONDS",
    type=float,
    callback=_more_than_nothing,
    help="Begin a new file after so many seconds.",
)
most_files = click.option(
    "--files", "-W", "most", metavar="N", type=click.IntRange(1), help="Keep the last N files."
)
