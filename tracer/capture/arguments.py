"""CAPTURE arguments: which files they mean, and on which plane each was recorded."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from tracer.errors import SourceError, UsageError, reason

__all__ = ["CaptureArgument", "Resolved", "plane_of_name", "resolve"]

_CAPTURE_NAME = re.compile(r"\.(pcap|pcapng|cap)([._-]?\d+)?(\.(gz|zst))?$", re.IGNORECASE)
_ROTATION = re.compile(r"[-_.]?\d+$")
_NEAR = 0.8
"""How alike names must be that are taken for one another: all captures end alike, which is half of a name."""
_DIGITS = re.compile(r"(\d+)")


class CaptureArgument(NamedTuple):
    """One capture to be read."""

    path: str
    """As reached from the argument; '-' is standard input."""
    plane: str | None
    """None for a capture point: nothing says which plane it was recorded on."""


class Resolved(NamedTuple):
    captures: list[CaptureArgument]
    ignored: list[str]
    """What lies in the given folders and is no capture by its name."""


def resolve(arguments: Sequence[str], planes: Collection[str]) -> Resolved:
    """Return the captures that *arguments* mean, in the order given, each file once.

    An argument is a file, '-', a folder of captures (its files in the order of their rotation), or one
    of these behind 'PLANE='. A path that exists is a path, whatever its name holds. *planes* are the
    known planes: a plane must be one of them, and a file named after one was recorded on it.

    Raises SourceError for what is not there or cannot be entered, UsageError for what makes no sense.
    """
    captures: dict[str, CaptureArgument] = {}
    named: set[str] = set()
    ignored: list[str] = []
    if not arguments:
        raise UsageError("no capture given: name a file, a folder, or - for standard input")
    for argument in arguments:
        plane, path = _split(argument, planes)
        for file in _files(path, ignored):
            key = file if file == "-" else os.path.realpath(file)
            known = captures.get(key)
            if known is not None and plane is not None and key in named and known.plane != plane:
                raise UsageError(f"{file}: given for two planes, {known.plane} and {plane}: name it once")
            if plane is not None:
                named.add(key)
                captures[key] = CaptureArgument(file, plane)
            elif known is None:
                captures[key] = CaptureArgument(file, plane_of_name(file, planes))
            elif file == "-":
                raise UsageError("standard input is given twice: it can be read only once")
    return Resolved(list(captures.values()), ignored)


def plane_of_name(path: str, planes: Collection[str]) -> str | None:
    """Return the plane that a file is named after, None if there is none.

    That is its name up to the first dot, without the digits of rotation behind it:
    `Internal_base_00001_20260101120000.pcap` was recorded on Internal_base.
    """
    name = os.path.basename(path).split(".", 1)[0]
    while name not in planes:
        shorter = _ROTATION.sub("", name)
        if shorter == name:
            return None
        name = shorter
    return name


def _split(argument: str, planes: Collection[str]) -> tuple[str | None, str]:
    plane, equals, path = argument.partition("=")
    if not equals or os.path.lexists(argument) or os.sep in plane:
        return None, argument
    if plane not in planes:
        near = difflib.get_close_matches(plane, list(planes), 1)
        hint = f"did you mean {near[0]}?" if near else "a new one is named in a topology file"
        raise UsageError(
            f"{argument}: no plane '{plane}' (known: {', '.join(sorted(planes))}):"
            f" {hint}{'' if near else f', as [planes.{plane}]' if plane else ', as [planes.NAME]'}"
        )
    if not path:
        raise UsageError(f"{argument}: no file behind '=': write {plane}=FILE")
    return plane, path


def _files(path: str, ignored: list[str]) -> Iterator[str]:
    if path == "-":
        yield path
    elif not path:
        raise UsageError("an empty argument: name a file, a folder, or - for standard input")
    elif os.path.isdir(path):
        yield from _folder(path, ignored)
    elif os.path.exists(path):
        yield path
    else:
        raise SourceError(_missing(path))


def _folder(folder: str, ignored: list[str]) -> Iterator[str]:
    found = False
    names = _names(folder)
    for name in names:
        path = os.path.join(folder, name)
        if _CAPTURE_NAME.search(name) and os.path.isfile(path):
            found = True
            yield path
        else:
            ignored.append(path)
    if not found:
        raise SourceError(
            f"{folder}: no captures in this folder (*.pcap, *.pcapng, *.cap, also .gz and .zst),"
            f" but {_contents(folder, names)}"
        )


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder), key=_by_rotation)
    except OSError as error:
        raise SourceError(f"{folder}: cannot be read: {reason(error)}") from error


def _by_rotation(name: str) -> list[tuple[int, int, str]]:
    # .pcap2 before .pcap10
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in _DIGITS.split(name)]


def _contents(folder: str, names: list[str]) -> str:
    """Say what is in a folder without captures, in a few words."""
    if not names:
        return "nothing: it is empty"
    below = [name for name in names if os.path.isdir(os.path.join(folder, name))]
    kinds = Counter(os.path.splitext(name)[1] or name for name in names if name not in below)
    words = [f"{count} × {kind}" for kind, count in kinds.most_common(3)]
    if below:
        more = " …" if len(below) > 3 else ""
        words.append(f"the folders {', '.join(below[:3])}{more} (folders below are not searched: name one)")
    return ", ".join(words)


def _missing(path: str) -> str:
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return f"{path}: no such file, and no folder {folder}: is the path right?"
    try:
        names = os.listdir(folder)
    except OSError:
        return f"{path}: no such file"
    near = difflib.get_close_matches(os.path.basename(path), names, 3, _NEAR)
    # A file that was packed since, or given without its suffix.
    near += [name for name in names if name.startswith(os.path.basename(path) + ".") and name not in near][:3]
    hint = f": did you mean {' or '.join(near[:3])}?" if near else f": is it in {os.path.abspath(folder)}?"
    return f"{path}: no such file{hint}"
