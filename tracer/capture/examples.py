"""The captures that come with the package: `example:NAME`."""

from __future__ import annotations

import difflib
from pathlib import Path

from tracer.errors import UsageError

__all__ = ["example_names", "example_path"]

PREFIX = "example:"


def _folder() -> Path:
    """Return the folder of captures: inside an installed package, else beside it in a checkout."""
    package = Path(__file__).parent.parent
    inside = package / "captures"
    return inside if inside.is_dir() else package.parent / "captures"


def example_names() -> list[str]:
    """Return the names that may follow `example:`."""
    folder = _folder()
    return sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


def example_path(argument: str) -> str:
    """Return the path that `example:NAME` means; any other argument as it is.

    Raises UsageError for a name that does not exist.
    """
    if not argument.startswith(PREFIX) or Path(argument).exists():
        return argument
    name = argument.removeprefix(PREFIX)
    names = example_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, 1)
        hint = f"did you mean {PREFIX}{near[0]}?" if near else f"known are {', '.join(names) or 'none'}"
        raise UsageError(f"{argument}: there is no such example; {hint}")
    return str(_folder() / name)
