"""The types of an alignment: the edits, and what each of them costs."""

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

# Only the ratios matter. A near miss (a call on the wrong plane, in the wrong mode, or failed: NEAR in
# grammar/alphabet.py) must cost less than EXTRA alone, so that even for an unobserved step it is one finding
# and not two. UNOBSERVED is not 0: of two explanations the one with fewer gaps wins, and symbols without cost
# could form a ring.
EXTRA = 40
"""Cost of a call that fits nowhere."""
MISSING = 40
"""Cost of a symbol that the captures would show if it had happened."""
UNOBSERVED = 1
"""Cost of a symbol that the captures could not have shown."""


class Sync(NamedTuple):
    """A call taken as a symbol."""

    event: int
    """Position of the call in the trace, from 0."""
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
    """In order. Without the Missing they are each call once; without the Extra they are a word of the
    grammar, or when not complete the beginning of a word."""
    state: int
    """State of the automaton at the end; see `automaton.expected(state)` and `automaton.finish(state)`."""
