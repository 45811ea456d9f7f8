"""What is said of a command line that makes no sense: one line, what is wrong and what to write instead.

click says it in three lines and differently in each of its versions; here its exceptions get our words.
"""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Sequence

import click

__all__ = ["no_such_command", "words"]

_CAPTURES = "capture files, PLANE=FILE, a folder of them, - or example:NAME"


def words(error: click.ClickException) -> str:
    """Return the line for a mistake that click has found."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "tracer"
    see = f"`{command} --help`" if context else "--help"
    if isinstance(error, click.NoSuchOption):
        near = _near(error.option_name, _options(context))
        return f"{command} has no option {error.option_name}; {near or f'{see} lists those it has'}"
    if isinstance(error, click.MissingParameter):
        name = error.param.metavar if error.param else None
        if error.param is not None and error.param.name == "captures":
            return f"{command}: which captures? Name {_CAPTURES}"
        return f"{command} needs {name or 'an argument'}; {see} shows how"
    if isinstance(error, click.BadParameter) and error.param is not None:
        # An option is known by its name, an argument by its command.
        name = error.param.opts[0] if isinstance(error.param, click.Option) else command
        return f"{name}: {error.message.rstrip('.')}"
    message = error.format_message().rstrip(".")
    return f"{message[:1].lower()}{message[1:]}; {see} shows how"


def no_such_command(name: str, rest: Sequence[str], known: Sequence[str]) -> str:
    """Return the line for a first word that is no command; a capture is most likely meant for `check`."""
    if os.path.exists(name) or name.startswith("example:"):
        return f"no command {name!r}; to check captures, write `tracer check {shlex.join([name, *rest])}`"
    return f"no command {name!r}; " + (_near(name, known) or f"there are {', '.join(known)}")


def _near(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else ""


def _options(context: click.Context | None) -> list[str]:
    if context is None:
        return []
    return [name for parameter in context.command.get_params(context) for name in parameter.opts]
