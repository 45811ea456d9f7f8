"""What the words behind `-i` mean: a capture stream or an interface, and its plane."""

from __future__ import annotations

import difflib
import os
import socket
import stat
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tracer.capture.arguments import plane_of_name
from tracer.errors import SourceError, UsageError
from tracer.model import place_of

__all__ = ["ANY", "LiveArgument", "resolve_live"]

ANY = "any"
"""All interfaces of the host, as with tcpdump."""


class LiveArgument(NamedTuple):
    """One live source."""

    target: str
    """'-', a path, or the name of an interface."""
    plane: str | None
    is_stream: bool


def resolve_live(arguments: Sequence[str], planes: Collection[str]) -> list[LiveArgument]:
    """Return the sources that *arguments* mean: PLANE=TARGET, or TARGET alone for a capture point.

    TARGET is '-', an existing path (a named pipe, as a rule), or an interface. Raises UsageError.
    """
    found: list[LiveArgument] = []
    for argument in arguments:
        plane, target = _split(argument, planes)
        is_stream = target == "-" or os.sep in target or _is_pipe(target)
        if is_stream and target != "-" and not os.path.exists(target):
            raise SourceError(f"{target}: no such file or named pipe (make one with mkfifo)")
        if not is_stream:
            _check_interface(target)
        if plane is None and is_stream and target != "-":
            plane = plane_of_name(target, planes)
        if any(other.target == target for other in found):
            raise UsageError(f"-i: {place_of(target)} is given twice")
        found.append(LiveArgument(target, plane, is_stream))
    return found


def _split(argument: str, planes: Collection[str]) -> tuple[str | None, str]:
    plane, equals, target = argument.partition("=")
    if not equals or os.path.lexists(argument) or os.sep in plane:
        return None, argument
    if plane not in planes:
        near = difflib.get_close_matches(plane, list(planes), 1)
        hint = f"did you mean {near[0]}?" if near else "a new one is named in a topology file"
        raise UsageError(f"-i {argument}: no plane '{plane}' (known: {', '.join(sorted(planes))}): {hint}")
    if not target:
        raise UsageError(
            f"-i {argument}: nothing behind '=': write {plane}=INTERFACE, {plane}=FIFO or {plane}=-"
        )
    return plane, target


def _is_pipe(target: str) -> bool:
    """Tell whether *target* is a named pipe or a file here, and no interface is called so."""
    if target in _interfaces():
        return False
    try:
        mode = os.stat(target).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISCHR(mode)


def _interfaces() -> list[str]:
    return [name for _, name in socket.if_nameindex()]


def _check_interface(name: str) -> None:
    known = _interfaces()
    if name == ANY or name in known:
        return
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise UsageError(f"-i: no interface and no file '{name}': {hint}")
