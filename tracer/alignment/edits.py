"""The nouns of an alignment: the ways to take a call, what a misfit costs, and the edits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tracer.grammar.alphabet import Candidate, Event
from tracer.grammar.automaton import Symbol

__all__ = [
    "EXTRA",
    "MISSING",
    "UNOBSERVED",
    "Alignment",
    "Candidate",
    "Edit",
    "Event",
    "Extra",
    "Missing",
    "Sync",
]

EXTRA = 40
"""Cost of a call that fits nowhere."""
MISSING = 40
"""Cost of a symbol that should have been seen."""
UNOBSERVED = 1
"""Cost of a symbol that could not have been seen."""


class Sync(NamedTuple):
    """A call taken as a symbol."""

    event: int
    """Position of the call."""
    symbol: Symbol
    kind: str
    """sync · failed · plane · mode"""


class Missing(NamedTuple):
    """A symbol without a call."""

    symbol: Symbol


class Extra(NamedTuple):
    """A call that fits nowhere."""

    event: int


Edit = Sync | Missing | Extra


@dataclass(frozen=True, slots=True)
class Alignment:
    """A cheapest explanation."""

    cost: int
    edits: tuple[Edit, ...]
    """In order: leaving out the Missing gives each call once; leaving out the Extra gives a word
    (when not complete: the beginning of a word) of the grammar."""
    state: int
    """Where it ends: ask `automaton.expected(state)` and `automaton.finish(state)`."""
