"""Parts that all commands share: their common options, and how signals stop a run.

The options may be given before the command, after it, or both. This module imports no other of the package.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol, TypeVar

import click

from tracer import __version__

__all__ = [
    "COMPLETE_VARIABLE",
    "PROGRAM_NAME",
    "SHELLS",
    "STOP_SIGNALS",
    "CommonOptions",
    "Function",
    "common_options",
    "stoppable",
    "version",
]

PROGRAM_NAME = "tracer"
COMPLETE_VARIABLE = "_TRACER_COMPLETE"
"""The environment variable that click's completion scripts set."""
SHELLS = ("bash", "zsh", "fish")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(slots=True)
class CommonOptions:
    """The values of the options that every command takes; the object of click's contexts."""

    color: str = "auto"
    quiet: bool = False
    verbose: int = 0
    debug: bool = False


def _color(context: click.Context, _: click.Parameter, value: str | None) -> None:
    common = context.ensure_object(CommonOptions)
    common.color = value or common.color


def _quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    common = context.ensure_object(CommonOptions)
    common.quiet = common.quiet or value


def _verbose(context: click.Context, _: click.Parameter, value: int) -> None:
    context.ensure_object(CommonOptions).verbose += value


def _debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    common = context.ensure_object(CommonOptions)
    common.debug = common.debug or value


def common_options(function: Function) -> Function:
    """Add --color, -q, -v and --debug to a command; their values are in its CommonOptions."""
    for add in (
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_debug,
            help="Show the traceback of an internal error.",
        ),
        click.option(
            "--verbose",
            "-v",
            count=True,
            expose_value=False,
            callback=_verbose,
            help="More detail; -vv: even more.",
        ),
        click.option(
            "--quiet",
            "-q",
            is_flag=True,
            expose_value=False,
            callback=_quiet,
            help="Only errors on standard error.",
        ),
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            metavar="WHEN",
            expose_value=False,
            callback=_color,
            help="Colours: always, never, or auto: on a terminal, unless NO_COLOR is set.",
        ),
    ):
        function = add(function)
    return function


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"{PROGRAM_NAME} {__version__}")
        context.exit()


version = click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version and stop.",
)


class Stoppable(Protocol):
    """A run that can be ended from outside."""

    def stop(self) -> None:
        """End the run soon, with its result; called by a signal handler."""


@contextmanager
def stoppable(run: Stoppable) -> Iterator[None]:
    """Make Ctrl-C and SIGTERM end *run* with its report; a second signal ends the program."""

    def stop(number: int, _: FrameType | None) -> None:
        run.stop()
        for each in STOP_SIGNALS:
            signal.signal(each, signal.default_int_handler)

    before = [signal.signal(number, stop) for number in STOP_SIGNALS]
    try:
        yield
    finally:
        for number, handler in zip(STOP_SIGNALS, before, strict=True):
            signal.signal(number, handler)
