"""How to talk: the options that every command takes, and that may stand before the command, too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from tracer import __version__

__all__ = ["COMPLETE_VARIABLE", "PROGRAM_NAME", "SHELLS", "Function", "Manner", "mannered", "version"]

PROGRAM_NAME = "tracer"
COMPLETE_VARIABLE = "_TRACER_COMPLETE"
"""Where click's completion scripts put their question."""
SHELLS = ("bash", "zsh", "fish")

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(slots=True)
class Manner:
    """How to talk: given before the command, after it, or both. The object of click's contexts."""

    color: str = "auto"
    quiet: bool = False
    verbose: int = 0
    debug: bool = False


def _color(context: click.Context, _: click.Parameter, value: str | None) -> None:
    talk = context.ensure_object(Manner)
    talk.color = value or talk.color


def _quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
    talk = context.ensure_object(Manner)
    talk.quiet = talk.quiet or value


def _verbose(context: click.Context, _: click.Parameter, value: int) -> None:
    context.ensure_object(Manner).verbose += value


def _debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    talk = context.ensure_object(Manner)
    talk.debug = talk.debug or value


def mannered(function: Function) -> Function:
    """--color, -q, -v and --debug, which every command takes; they are kept in the Manner alone."""
    for add in (
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_debug,
            help="Show the trace of an internal error.",
        ),
        click.option(
            "--verbose",
            "-v",
            count=True,
            expose_value=False,
            callback=_verbose,
            help="Say more; twice: still more.",
        ),
        click.option(
            "--quiet",
            "-q",
            is_flag=True,
            expose_value=False,
            callback=_quiet,
            help="Nothing on standard error but errors.",
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
