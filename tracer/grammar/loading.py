"""Loads a grammar by name or file; a shipped one from a cache of compiled grammars.

Reading Lark files takes 0.15 s, half of a short run: Lark is imported, builds the parser of its own language,
and our automaton is built. So a compiled grammar is kept in the user's cache folder, under a digest of all
that it was made of: the shipped grammars, the code, Python. A user's own files are read each time. A cache
that cannot be read or written is ignored.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

import tracer
from tracer.grammar.automaton import MOST_STATES
from tracer.grammar.files import EXTENSION, find, grammars_dir
from tracer.grammar.grammar import Grammar

__all__ = ["load"]


def load(name_or_path: str | Path, most_states: int = MOST_STATES) -> Grammar:
    """Return the grammar of a shipped name or of a file (anything with a `/` or ending in .lark).

    Anything wrong with it raises GrammarError, in one line: place, what, what to do.
    """
    path = find(name_or_path)
    if path.parent != grammars_dir() or most_states != MOST_STATES:
        return _read(path, most_states)
    folder = _cache_dir()
    if folder is None:
        return _read(path, most_states)
    kept = folder / f"{path.stem}-{_fingerprint(path.parent)}.pickle"
    grammar = _unpacked(kept)
    if grammar is None or grammar.path != path:
        grammar = _read(path, most_states)
        _keep(grammar, kept)
    return grammar


def _read(path: Path, most_states: int) -> Grammar:
    # Imported here: a compiled grammar does without Lark.
    from tracer.grammar.reading import read

    return read(path, most_states)[0]


def _cache_dir() -> Path | None:
    """Return the cache folder (XDG Base Directory Specification 0.8), None for a user without a home.

    In containers a user may be a bare number, without a home.
    """
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    return Path(base) / "tracer" if os.path.isabs(base) else None


@cache
def _fingerprint(folder: Path) -> str:
    """Return a digest of all that a compiled grammar of *folder* depends on."""
    digest = hashlib.sha256(f"{tracer.__version__} {sys.version} {sys.byteorder}".encode())
    # By size and time, not by content: this is done at each start.
    for place, ending in ((folder, EXTENSION), (Path(__file__).parent, ".py")):
        for entry in sorted(os.scandir(place), key=lambda entry: entry.name):
            if entry.name.endswith(ending):
                about = entry.stat()
                digest.update(f"{entry.name} {about.st_size} {about.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def _unpacked(path: Path) -> Grammar | None:
    """Return the grammar in a cache file; None if the file is not there, not the user's own, or damaged."""
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & 0o022):
                return None
            found = pickle.load(file)  # noqa: S301 - written by `_keep`, writable by this user alone
    except Exception:  # whatever is wrong with it: it can be made again
        return None
    return found if isinstance(found, Grammar) else None


def _keep(grammar: Grammar, path: Path) -> None:
    """Write a compiled grammar by renaming a complete file, and delete its older versions."""
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.touch(mode=0o600)
        new.write_bytes(pickle.dumps(grammar))
        new.replace(path)
        for old in path.parent.glob(f"{grammar.name}-*.pickle"):
            if old != path:
                old.unlink(missing_ok=True)
