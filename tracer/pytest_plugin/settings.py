"""The settings of a test: from the ini file, the command line, and markers; later ones override."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tracer.errors import UsageError, close_matches
from tracer.settings import Settings

__all__ = ["Asked", "locate", "of_item", "of_run", "several", "stall_seconds"]

KEYS = ("grammar", "topology", "captures", "allow", "stall")


@dataclass(frozen=True, slots=True)
class Asked:
    """The settings; paths are absolute, or as given if there is no such file."""

    settings: Settings
    captures: tuple[str, ...] = ()


def of_run(config: pytest.Config) -> Asked:
    """Return the settings of the ini file and the command line. Raises UsageError for invalid ones."""
    values: dict[str, Any] = {}
    base = config.inipath.parent if config.inipath else config.rootpath
    for key in ("grammar", "topology", "stall"):
        values[key] = config.getini(f"tracer_{key}") or None
    values["captures"] = config.getini("tracer_captures")
    values["allow"] = config.getini("tracer_allow")
    asked = _with(Asked(Settings()), values, (base,))
    given = {key: config.getoption(f"tracer_{key}") for key in ("grammar", "topology", "stall", "allow")}
    return _with(asked, given, (config.invocation_params.dir,))


def of_item(item: pytest.Item) -> Asked:
    """Return the settings of a test. Raises UsageError for an invalid marker."""
    asked = of_run(item.config)
    # pytest returns the closest marker first; it is applied last, so that it overrides the others.
    for marker in reversed(list(item.iter_markers("tracer"))):
        if marker.args:
            raise UsageError("@pytest.mark.tracer takes names: @pytest.mark.tracer(captures=…, grammar=…)")
        for key in marker.kwargs:
            if key not in KEYS:
                near = close_matches(key, KEYS, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise UsageError(f"@pytest.mark.tracer has no {key!r} (known: {', '.join(KEYS)}){hint}")
        asked = _with(asked, marker.kwargs, (item.path.parent, item.config.rootpath))
    return asked


def _with(asked: Asked, values: Mapping[str, Any], bases: Sequence[Path]) -> Asked:
    """Return *asked* with *values*; `allow` is extended, everything else is replaced."""
    settings = asked.settings
    grammar, topology, stall = (values.get(key) for key in ("grammar", "topology", "stall"))
    captures, allow = (several(key, values.get(key)) for key in ("captures", "allow"))
    return Asked(
        Settings(
            grammar=locate(grammar, bases) if grammar else settings.grammar,
            topology=Path(locate(topology, bases)) if topology else settings.topology,
            stall_s=settings.stall_s if stall is None else stall_seconds(_number(stall)),
            allow=tuple(dict.fromkeys((*settings.allow, *allow))),
        ),
        tuple(locate(capture, bases) for capture in captures) or asked.captures,
    )


def several(name: str, value: Any) -> tuple[Any, ...]:
    """Return one text or a list of texts as a tuple. Raises UsageError for anything else."""
    if value is None:
        return ()
    if isinstance(value, str | os.PathLike):
        return (value,)
    if isinstance(value, Iterable):
        listed = tuple(value)
        if all(isinstance(each, str | os.PathLike) for each in listed):
            return listed
    raise UsageError(f"{name}={value!r}: neither a text nor a list of them")


def stall_seconds(stall: str | float | timedelta) -> float:
    """Return the silence after which a creation is stuck, in seconds. Raises UsageError."""
    from tracer.testing.claims import nanoseconds

    seconds = nanoseconds(stall) / 1e9
    if seconds <= 0:
        raise UsageError(f"stall={stall!r}: must be more than 0 seconds")
    return seconds


def _number(stall: Any) -> Any:
    """Return *stall* as a float if it is a number, also one in a text, as ini files give it."""
    try:
        return float(stall)
    except (TypeError, ValueError):
        return stall


def locate(name: str | os.PathLike[str], bases: Sequence[Path]) -> str:
    """Return the path of *name*: in the folder of the test, else in pytest's root, else as given.

    A plane before it (`PLANE=FILE`) is kept. Names of grammars and examples are not files and are returned
    unchanged.
    """
    if not isinstance(name, str | os.PathLike):
        raise UsageError(f"no path and no name: {name!r}")
    text = os.fspath(name)
    plane, equals, path = text.rpartition("=")
    for base in bases:
        for prefix, candidate in ((f"{plane}{equals}", path), ("", text)):
            if (base / candidate).exists() and candidate != "-":
                return f"{prefix}{base / candidate}"
    return text
