"""Parsing of CAPTURE and `-i` arguments: files, examples, streams, interfaces, each with its plane."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from tracer.errors import SourceError, UsageError, close_matches, reason
from tracer.model import place_of

__all__ = [
    "ANY",
    "CaptureArgument",
    "LiveArgument",
    "Resolved",
    "example_names",
    "example_path",
    "plane_of_name",
    "resolve",
    "resolve_live",
]

ANY = "any"
"""All interfaces of the host, as with tcpdump."""
EXAMPLE_PREFIX = "example:"

# With a number of rotation, as tcpdump -C (.pcap2) and logrotate (.pcap.1) write it, and compressed.
_CAPTURE_NAME = re.compile(r"\.(pcap|pcapng|cap)([._-]?\d+)?(\.(gz|zst))?$", re.IGNORECASE)
_ROTATION = re.compile(r"[-_.]?\d+$")
_NEAR = 0.8
"""Similarity from which a file name is suggested. The suffix of a capture is half of its name and always
equal, so the default of difflib (0.6) would suggest any capture."""
_OFFSET = re.compile(r"([+-])(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", re.ASCII)
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_MOST_NS = 3650 * 86_400 * 1_000_000_000
_DIGITS = re.compile(r"(\d+)")


class CaptureArgument(NamedTuple):
    """One capture to be read."""

    path: str
    """Path as given, or below the given folder; '-' is standard input."""
    plane: str | None
    """None for a capture point, whose plane is not known."""
    behind_ns: int | None = None
    """Nanoseconds that the user adds to its times; None if no offset is given."""


class Resolved(NamedTuple):
    """The captures that the arguments name, and what was left out."""

    captures: list[CaptureArgument]
    ignored: list[str]
    """Entries of the given folders that are not captures by their name."""


def resolve(arguments: Sequence[str], planes: Collection[str]) -> Resolved:
    """Return the captures that *arguments* name, in the given order, each file once.

    An argument is a file, '-', a folder of captures (its files in order of rotation), or one of these behind
    'PLANE='. An argument that exists as a path is a path, even with '=' in it. *planes* are the known planes:
    PLANE must be one of them, and a file that is named after one was recorded on it. '@+1.2ms' at
    the end of any of these is the time by which the clock was behind.

    Raises SourceError for a path that is missing or cannot be read, UsageError for an invalid argument.
    """
    captures: dict[str, CaptureArgument] = {}
    named: set[str] = set()
    ignored: list[str] = []
    if not arguments:
        raise UsageError("no capture given: name a file, a folder, or - for standard input")
    for argument in arguments:
        plane, path = _split(argument, planes)
        path, behind_ns = _split_clock(argument, path)
        for file in _files(path, ignored):
            key = file if file == "-" else os.path.realpath(file)
            known = captures.get(key)
            if known is not None and plane is not None and key in named and known.plane != plane:
                raise UsageError(f"{file}: given for two planes, {known.plane} and {plane}: name it once")
            if plane is not None:
                named.add(key)
                captures[key] = CaptureArgument(file, plane, behind_ns)
            elif known is None:
                captures[key] = CaptureArgument(file, plane_of_name(file, planes), behind_ns)
            elif file == "-":
                raise UsageError("standard input is given twice: it can be read only once")
    return Resolved(list(captures.values()), ignored)


def plane_of_name(path: str, planes: Collection[str]) -> str | None:
    """Return the plane that a file is named after, None if there is none.

    The plane is the name up to the first dot, without numbers of rotation at its end:
    `Internal_base_00001_20260101120000.pcap` was recorded on Internal_base.
    """
    name = os.path.basename(path).split(".", 1)[0]
    # One number at a time, because a plane's own name may end in a number.
    while name not in planes:
        shorter = _ROTATION.sub("", name)
        if shorter == name:
            return None
        name = shorter
    return name


def _split(argument: str, planes: Collection[str], option: str = "") -> tuple[str | None, str]:
    """Return the plane and the target of `PLANE=TARGET`; the plane is None for a target alone.

    *option* is the option that the argument belongs to (`-i`), if any: messages name it.
    """
    plane, equals, target = argument.partition("=")
    if not equals or os.path.lexists(argument) or os.sep in plane:
        return None, argument
    place = f"{option} {argument}".lstrip()
    if plane not in planes:
        near = close_matches(plane, list(planes), 1)
        hint = f"did you mean {near[0]}?" if near else "a new one is named in a topology file"
        if not near and not option:
            hint += f", as [planes.{plane or 'NAME'}]"
        raise UsageError(f"{place}: no plane '{plane}' (known: {', '.join(sorted(planes))}): {hint}")
    if not target:
        if option:
            raise UsageError(
                f"{place}: nothing behind '=': write {plane}=INTERFACE, {plane}=FIFO or {plane}=-"
            )
        raise UsageError(f"{place}: no file behind '=': write {plane}=FILE")
    return plane, target


def _split_clock(argument: str, path: str) -> tuple[str, int | None]:
    """Return *path* without the offset of its clock, and that offset in nanoseconds."""
    file, at, words = path.rpartition("@")
    if not at or os.path.lexists(path) or not (file == "-" or os.path.lexists(file)):
        return path, None
    found = _OFFSET.fullmatch(words)
    if found is None:
        raise UsageError(
            f"{argument}: '@{words}' is no offset of a clock: write what is to be added to its times,"
            " as @+1.2ms, @-50us or @+2s"
        )
    sign, number, unit = found.groups()
    behind_ns = int(Decimal(number) * _UNITS[unit])
    if behind_ns > _MOST_NS:
        raise UsageError(f"{argument}: '@{words}' is more than 10 years")
    return file, -behind_ns if sign == "-" else behind_ns


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
    """Describe the contents of a folder without captures, in a few words."""
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
    near = close_matches(os.path.basename(path), names, 3, _NEAR)
    # The file was compressed since, or its suffix was not given.
    near += [name for name in names if name.startswith(os.path.basename(path) + ".") and name not in near][:3]
    hint = f": did you mean {' or '.join(near[:3])}?" if near else f": is it in {os.path.abspath(folder)}?"
    return f"{path}: no such file{hint}"


# --- example:NAME, the captures that come with the package ---


def _examples_folder() -> Path:
    """Return the folder of captures: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "captures"
    return inside if inside.is_dir() else package.parent / "captures"


def example_names() -> list[str]:
    """Return the names that may follow `example:`."""
    folder = _examples_folder()
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def example_path(argument: str) -> str:
    """Return the path of `example:NAME`; any other argument unchanged.

    Raises UsageError for a name that does not exist.
    """
    if not argument.startswith(EXAMPLE_PREFIX) or Path(argument).exists():
        return argument
    name = argument.removeprefix(EXAMPLE_PREFIX)
    names = example_names()
    if name not in names:
        near = close_matches(name, names, 1)
        known = f"known are {', '.join(names) or 'none'}"
        hint = f"did you mean {EXAMPLE_PREFIX}{near[0]}?" if near else known
        raise UsageError(f"{argument}: there is no such example; {hint}")
    return str(_examples_folder() / name)


# --- -i: live sources ---


class LiveArgument(NamedTuple):
    """One live source."""

    target: str
    """'-', a path, or the name of an interface."""
    plane: str | None
    is_stream: bool


def resolve_live(arguments: Sequence[str], planes: Collection[str]) -> list[LiveArgument]:
    """Return the live sources of *arguments*: PLANE=TARGET, or TARGET alone for a capture point.

    TARGET is '-', an existing path (usually a named pipe), or an interface. Raises UsageError for an invalid
    argument, SourceError for a path that does not exist.
    """
    found: list[LiveArgument] = []
    for argument in arguments:
        plane, target = _split(argument, planes, "-i")
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


def _is_pipe(target: str) -> bool:
    """Return whether *target* is a pipe or file in the current folder, and not the name of an interface."""
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
    near = close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise UsageError(f"-i: no interface and no file '{name}': {hint}")
