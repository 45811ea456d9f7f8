"""What a test is to be checked with: ini file, then command line, then markers from the module inwards."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tracer.errors import UsageError
from tracer.settings import Settings

__all__ = ["Asked", "of_item", "of_run"]

KEYS = ("grammar", "topology", "captures", "allow", "stall")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for; paths are absolute, or as given where there is no such file."""

    settings: Settings
    captures: tuple[str, ...] = ()


def of_run(config: pytest.Config) -> Asked:
    """Return what the ini file and the command line ask for. UsageError for what makes no sense."""
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
    """Return what is asked for a test. UsageError for what makes no sense."""
    asked = of_run(item.config)
    # The closest marker comes first in pytest's order, and has the last word in ours.
    for marker in reversed(list(item.iter_markers("tracer"))):
        if marker.args:
            raise UsageError("@pytest.mark.tracer takes names: @pytest.mark.tracer(captures=…, grammar=…)")
        for key in marker.kwargs:
            if key not in KEYS:
                near = difflib.get_close_matches(key, KEYS, 1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise UsageError(f"@pytest.mark.tracer has no {key!r} (known: {', '.join(KEYS)}){hint}")
        asked = _with(asked, marker.kwargs, (item.path.parent, item.config.rootpath))
    return asked


def _with(asked: Asked, values: Mapping[str, Any], bases: Sequence[Path]) -> Asked:
    """Return *asked* with what *values* hold; what is allowed adds up, all else is replaced."""
    from tracer.testing.step import nanoseconds

    settings = asked.settings
    grammar, topology, stall = (values.get(key) for key in ("grammar", "topology", "stall"))
    captures = values.get("captures") or ()
    captures = (captures,) if isinstance(captures, str | os.PathLike) else tuple(captures)
    allow = values.get("allow") or ()
    allow = (allow,) if isinstance(allow, str) else tuple(allow)
    return Asked(
        Settings(
            grammar=locate(grammar, bases) if grammar else settings.grammar,
            topology=Path(locate(topology, bases)) if topology else settings.topology,
            stall_s=nanoseconds(_number(stall)) / 1e9 if stall else settings.stall_s,
            allow=tuple(dict.fromkeys((*settings.allow, *allow))),
        ),
        tuple(locate(capture, bases) for capture in captures) or asked.captures,
    )


def _number(stall: Any) -> Any:
    """A bare number of seconds, as on tracer's own command line, comes from ini files as text."""
    try:
        return float(stall)
    except (TypeError, ValueError):
        return stall


def locate(name: str | os.PathLike[str], bases: Sequence[Path]) -> str:
    """Return where *name* is: beside the test, else under pytest's root, else as given.

    A plane before it (`PLANE=FILE`) stays there. Names of grammars and examples are no files, and stay.
    """
    text = os.fspath(name)
    plane, equals, path = text.rpartition("=")
    for base in bases:
        for prefix, candidate in ((f"{plane}{equals}", path), ("", text)):
            if (base / candidate).exists() and candidate != "-":
                return f"{prefix}{base / candidate}"
    return text
