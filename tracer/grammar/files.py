"""Locates grammar files: the shipped ones by name, a user's own by path."""

from __future__ import annotations

import re
from pathlib import Path

from tracer.errors import GrammarError, close_matches

__all__ = ["EXTENSION", "find", "grammars_dir", "shipped"]

EXTENSION = ".lark"


def grammars_dir() -> Path:
    """Return the folder of the shipped grammars: in the installed package, else in the checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "grammars"
    return inside if inside.is_dir() else package.parent / "grammars"


def shipped() -> list[str]:
    """Return the names of the grammars that come with tracer, sorted; vocabularies are left out."""
    start = re.compile(r"^(start\b|%import\b.*\bstart\b)", re.MULTILINE)
    return [
        path.stem
        for path in sorted(grammars_dir().glob(f"*{EXTENSION}"))
        if start.search(path.read_text(encoding="utf-8"))
    ]


def find(name_or_path: str | Path) -> Path:
    """Return the path of a shipped name, or the path itself (anything with a `/` or ending in .lark).

    An unknown name raises GrammarError, with the known ones.
    """
    text = str(name_or_path)
    if text.endswith(EXTENSION) or "/" in text or "\\" in text:
        return Path(text)
    path = grammars_dir() / (text + EXTENSION)
    if not path.is_file():
        close = close_matches(text, shipped(), 1)
        hint = f". Did you mean {close[0]}?" if close else f"; a file's name ends in {EXTENSION}"
        raise GrammarError(f"no grammar '{text}' (known: {', '.join(shipped())}){hint}")
    return path
