"""Mistakes of our caller: a bad argument, an unreadable capture, a broken grammar.

Strange *traffic* never raises: it becomes an anomaly or a gap and is counted. Every message of these
errors names what, where and what to do, in one line; the command line prints it and exits with 2.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["GrammarError", "InternalError", "SourceError", "TracerError", "UsageError", "close_matches",
           "reason"]  # fmt: skip


class TracerError(Exception):
    """Something the caller can mend; the message is one line that says how."""


class SourceError(TracerError):
    """A capture cannot be opened or is not a capture."""


class GrammarError(TracerError):
    """A grammar is unknown, does not load, or cannot be compiled."""


class UsageError(TracerError):
    """An argument, a topology file or a selection makes no sense."""


class InternalError(TracerError):
    """A mistake of ours was met on the way: what was found without it has been given out."""


def reason(error: OSError) -> str:
    """Return why the system refuses a file, the same words wherever it does."""
    if isinstance(error, PermissionError):
        return "no permission: run as its owner"
    return error.strerror or str(error)


def close_matches(word: str, known: Iterable[str], n: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return the *n* at most of *known* that are nearest to a misspelt *word*, for "did you mean".

    *cutoff* is the least similarity, from 0 to 1.
    """
    # Imported here: a run without a mistake does without it.
    from difflib import get_close_matches

    return get_close_matches(word, [*known], n, cutoff)
