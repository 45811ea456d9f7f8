"""The nouns of an alignment: the ways to take a call, what a misfit costs, and the moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tracer.conformance.automaton import Symbol

__all__ = [
    "EXTRA",
    "MISSING",
    "NEAR",
    "UNOBSERVED",
    "Alignment",
    "Candidate",
    "Event",
    "Extra",
    "Missing",
    "Move",
    "Sync",
]

EXTRA = 40
"""Cost of a call that fits nowhere."""
MISSING = 40
"""Cost of a symbol that should have been seen."""
UNOBSERVED = 1
"""Cost of a symbol that could not have been seen."""
NEAR = {"failed": 20, "plane": 20, "mode": 20}
"""Cost of a near miss: less than EXTRA, and so less than missing + extra, even of an unobserved step."""


class Candidate(NamedTuple):
    """One way to take a call: as *symbol*, at a *cost*."""

    symbol: int
    """Its id."""
    cost: int = 0
    kind: str = "sync"
    """sync · failed · plane · mode"""


Event = Sequence[Candidate]
"""A call: all the ways to take it. Without any it can only be extra; leave such calls out instead
where they are outside of the grammar's alphabet."""


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


Move = Sync | Missing | Extra


@dataclass(frozen=True, slots=True)
class Alignment:
    """A cheapest explanation."""

    cost: int
    moves: tuple[Move, ...]
    """In order: leaving out the Missing gives each call once; leaving out the Extra gives a word
    (when not complete: the beginning of a word) of the grammar."""
    state: int
    """Where it ends: ask `automaton.expected(state)` and `automaton.finish(state)`."""
