"""The flags: their names, their help, and what the words after them mean.

A value that makes no sense is refused here, before a capture is opened or the pipeline imported.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.formats import FORMATS
from tracer.cli.manner import Function
from tracer.errors import UsageError
from tracer.settings import Settings

if TYPE_CHECKING:
    from tracer.model import Report, Verdict

__all__ = [
    "Where",
    "allow",
    "anonymize",
    "baseline",
    "calls_since",
    "calls_until",
    "captures",
    "form",
    "grammar",
    "otlp",
    "path",
    "report_form",
    "settings",
    "since",
    "stall",
    "target",
    "topology",
    "trace",
    "until",
    "where",
]


class Where:
    """The conditions of --where, and whether a trace fits them."""

    def __init__(self, conditions: Sequence[str]) -> None:
        self.conditions = conditions
        self.fits: Callable[[Verdict], bool] = lambda _: True
        self.steps: tuple[str, ...] = ()
        if conditions:
            from tracer import reports

            self.fits = reports.selection(conditions)
            self.steps = reports.named_steps(conditions)

    def of(self, report: Report) -> Report:
        """Return *report* with the traces that fit, and no others."""
        return replace(report, verdicts=[verdict for verdict in report.verdicts if self.fits(verdict)])

    def __str__(self) -> str:
        return " ".join(f"--where {condition}" for condition in self.conditions)


_SHARED = frozenset(each.name for each in fields(Settings))
_DEFAULTS = Settings()


def settings(function: Callable[..., int]) -> Callable[..., int]:
    """Give the command one `Settings` in the place of those of its options that are answers to its questions.

    What --where chooses the command does itself; the steps that it names are for the grammar to know.
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
    metavar="NAME|FILE",
    type=click.Path(),
    default=_DEFAULTS.grammar,
    show_default=True,
    help="What to check against.",
)


def path(_: click.Context, __: click.Parameter, value: str | None) -> Path | None:
    """Return the path that a word is."""
    return None if value is None else Path(value)


topology = click.option(
    "--topology",
    "-t",
    metavar="FILE",
    type=click.Path(),
    callback=path,
    help="Planes, roles and ports (TOML); else inferred.",
)


def _seconds(_: click.Context, __: click.Parameter, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise UsageError(f"--stall {text!r}: not a number of seconds; write 60 or 2.5") from None
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"--stall {seconds:g}: must be more than 0 seconds")
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
    # Whichever of the two comes second sees the other one.
    times = {**context.params, parameter.name: time_ns}
    since_ns, until_ns = times.get("since_ns"), times.get("until_ns")
    if since_ns is not None and until_ns is not None and since_ns >= until_ns:
        raise UsageError(
            f"--since {reports.timestamp(since_ns)} is not before --until {reports.timestamp(until_ns)}:"
            " nothing lies between them"
        )
    return time_ns


def _span(what: str) -> tuple[Callable[[Function], Function], Callable[[Function], Function]]:
    """--since and --until, which choose among *what*."""
    since_help = f"Only {what} started from then on: RFC 3339, or epoch seconds."
    until_help = f"Only {what} started before that: likewise."
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
    help="Accept such a deviation, or 'unobserved', as a mere note.",
)

baseline = click.option(
    "--baseline",
    metavar="FILE",
    type=click.Path(),
    callback=path,
    help="Name steps that are slow against this file of `tracer baseline`.",
)


# --- what to show, and where ----------------------------------------------------------------------


def form(*names: str, words: str) -> Callable[[Function], Function]:
    """--format with these *names*, the first of them by default; *words* tell what they are."""
    return click.option(
        "--format",
        "form",
        type=click.Choice(names),
        metavar="|".join(names),
        default=names[0],
        show_default=True,
        help=words,
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
    "text", *FORMATS, words="; ".join(f"{name}: {format.words}" for name, format in FORMATS.items()) + "."
)


target = click.option(
    "--output",
    "-o",
    "target",
    metavar="FILE",
    type=click.Path(),
    callback=path,
    help="Write the result there, not to standard output.",
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
trace = click.option(
    "--trace",
    metavar="ID",
    help="An id, request id, server id or name, or the beginning of one; or an RPC message's id.",
)
