"""The cheapest explanation of a trace's calls by an automaton: what fits, what is missing, what is extra.

A conforming trace is a walk through the automaton and costs nothing. All others are aligned by
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
from tracer.grammar.automaton import Automaton

__all__ = [
    "EXTRA",
    "MISSING",
    "MOST_PLACES",
    "UNOBSERVED",
    "Aligner",
    "Alignment",
    "Candidate",
    "Edit",
    "Event",
    "Extra",
    "Missing",
    "Sync",
    "Walks",
    "align",
    "aligner",
    "full_cost",
    "walk",
]

MOST_PLACES = 50_000
"""Sets of states that are remembered; the shipped grammars need some dozens."""


class _Place:
    """The states in which a walk can be after some calls, ascending."""

    __slots__ = ("following", "states")

    def __init__(self, states: tuple[int, ...]) -> None:
        self.states = states
        self.following: dict[int, _Stride] = {}
        """Number of an event -> where it leads."""


class _Stride:
    """Where one call leads from a place; *came*: state -> (state before, how the call was taken)."""

    __slots__ = ("came", "place")

    def __init__(self, place: _Place, came: dict[int, tuple[int, Candidate]]) -> None:
        self.place = place
        self.came = came


class Walks:
    """Walks of one automaton; *events* gives what the numbers of events stand for."""

    def __init__(self, automaton: Automaton, events: Sequence[tuple[Candidate, ...]]) -> None:
        self._automaton = automaton
        self._events = events
        self._start = _Place((automaton.start,))
        self._places = {self._start.states: self._start}

    def walk(self, events: Sequence[int], complete: bool = True) -> Alignment | None:
        """Return the alignment of a trace that conforms, None when it does not.

        The trace is the numbers of its events. Uses the candidates that cost nothing; of several ways
        the one with the lowest numbers.
        Without *complete* the trace may end anywhere.
        """
        place = self._start
        strides = []
        for event in events:
            stride = place.following.get(event) or self._stride(place, event)
            strides.append(stride)
            place = stride.place
            if not place.states:
                return None
        accepting = self._automaton.accepting
        end = next((state for state in place.states if not complete or state in accepting), None)
        if end is None:
            return None
        state, symbols = end, self._automaton.symbols
        edits: list[Edit] = []
        for position in range(len(strides) - 1, -1, -1):
            state, candidate = strides[position].came[state]
            edits.append(Sync(position, symbols[candidate.symbol], candidate.kind))
        edits.reverse()
        return Alignment(0, tuple(edits), end)

    def _stride(self, place: _Place, event: int) -> _Stride:
        came: dict[int, tuple[int, Candidate]] = {}
        for state in place.states:
            arcs = self._automaton.arcs[state]
            for candidate in self._events[event]:
                target = arcs.get(candidate.symbol)
                if target is not None and not candidate.cost:
                    came.setdefault(target, (state, candidate))
        states = tuple(sorted(came))
        known = self._places.get(states)
        if known is None:
            if len(self._places) >= MOST_PLACES:
                self._forget()
            known = self._places[states] = _Place(states)
        stride = place.following[event] = _Stride(known, came)
        return stride

    def _forget(self) -> None:
        for place in self._places.values():
            place.following.clear()
        self._places = {self._start.states: self._start}


# --- any trace ----------------------------------------------------------------------------------


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
