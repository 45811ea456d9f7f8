"""The cheapest explanation of a trace's calls by an automaton: what fits, what is missing, what is extra.

A conforming trace is a walk through the automaton and costs nothing (walk.py). All others are aligned by
cost rows (rows.py): exactly, and with the same edits in every run, whatever was aligned before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from tracer.alignment.edits import (
    EXTRA,
    MISSING,
    UNOBSERVED,
    Alignment,
    Candidate,
    Edit,
    Event,
    Extra,
    Missing,
    Sync,
)
from tracer.alignment.rows import MOST_CELLS, REACH, SCALE, Engine
from tracer.alignment.walk import Walks
from tracer.grammar.automaton import Automaton

__all__ = [
    "EXTRA",
    "MISSING",
    "UNOBSERVED",
    "Aligner",
    "Alignment",
    "Candidate",
    "Edit",
    "Event",
    "Extra",
    "Missing",
    "Sync",
    "align",
    "aligner",
    "full_cost",
    "walk",
]


def full_cost(step: str | None) -> int:
    """Return MISSING: every step could have been seen."""
    return MISSING


class Aligner:
    """Aligns traces with one automaton, and remembers what they have in common."""

    def __init__(self, automaton: Automaton, reach: int = REACH, most_cells: int = MOST_CELLS) -> None:
        self.engine = Engine(automaton, reach, most_cells)
        self._walks = Walks(automaton, self.engine.events)

    def walk(self, events: Sequence[Event], *, complete: bool = True) -> Alignment | None:
        """Return the alignment of a trace that conforms, None when it does not."""
        return self._walks.walk([self.engine.number(event) for event in events], complete)

    def align(
        self,
        events: Sequence[Event],
        missing_cost: Callable[[str | None], int] = full_cost,
        *,
        complete: bool = True,
    ) -> Alignment:
        """Return a cheapest alignment of *events*; see `align`."""
        numbers = [self.engine.number(event) for event in events]
        found = self._walks.walk(numbers, complete)
        if found is not None:
            return found
        return self.explain(numbers, self.engine.costs(missing_cost), complete)

    def explain(self, numbers: Sequence[int], costs: tuple[int, ...], complete: bool) -> Alignment:
        """Return the alignment of a trace, given as the numbers of its events; see `Engine.costs`."""
        table = self.engine.table(costs)
        while True:
            steps = table.read(numbers)
            last = steps[-1].row if steps else table.start
            rest, state = table.end(last, complete)
            total = sum(step.cost for step in steps) + rest
            if table.certified(steps, total, complete):
                return Alignment(total // SCALE, tuple(table.edits(steps, state)), state)
            table = self.engine.wider(table)


@lru_cache(maxsize=16)
def aligner(automaton: Automaton) -> Aligner:
    """Return the aligner of *automaton*, made once."""
    return Aligner(automaton)


def align(
    automaton: Automaton,
    events: Sequence[Event],
    missing_cost: Callable[[str | None], int] = full_cost,
    *,
    complete: bool = True,
) -> Alignment:
    """Return a cheapest alignment of *events* with a word of the automaton.

    *missing_cost* is what a missing symbol of a step costs; it is asked with None for symbols of no
    step, and a cost below 1 raises ValueError. Without *complete* the trace may end anywhere: what was
    not yet reached is neither paid for nor listed. Of several cheapest alignments it is always the same
    (rows.py says which).
    """
    return aligner(automaton).align(events, missing_cost, complete=complete)


def walk(automaton: Automaton, events: Sequence[Event], *, complete: bool = True) -> Alignment | None:
    """Return the alignment of a trace that conforms, None when it does not.

    Uses the candidates that cost nothing; of several ways the one with the lowest numbers.
    """
    return aligner(automaton).walk(events, complete=complete)
