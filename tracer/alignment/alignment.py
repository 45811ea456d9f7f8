"""The cheapest explanation of a trace's calls by an automaton: what fits, what is missing, what is extra.

A conforming trace is a walk through the automaton and costs nothing. All other traces are aligned by
cost rows (rows.py). The result is exact, and the same in every run, whatever was aligned before.
"""

# Two engines, because nearly all traces conform and a walk is one dictionary look-up per call: a prototype
# walked 60,000 conforming traces per second and aligned 895 deviating ones. Lark's own parsers were rejected:
# they stop at the first error, and Earley is 24 times slower than LALR. PM4Py's alignments give the same
# costs (A* at a 59th of the speed); its licence (AGPL) makes it an oracle for development only.

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
"""The most sets of states that are remembered; the shipped grammars need some dozens."""


class _Place:
    """The states in which a walk can be after some calls, ascending.

    One line may fit several symbols, so a walk is in a set of states (a subset construction, built lazily).
    """

    __slots__ = ("following", "states")

    def __init__(self, states: tuple[int, ...]) -> None:
        self.states = states
        self.following: dict[int, _Stride] = {}
        """Number of an event -> where that event leads."""


class _Stride:
    """Where one call leads from a place.

    *came* maps each state to (state before, how the call was taken), so that a walk can be traced back.
    """

    __slots__ = ("came", "place")

    def __init__(self, place: _Place, came: dict[int, tuple[int, Candidate]]) -> None:
        self.place = place
        self.came = came


class Walks:
    """Walks of one automaton; *events* holds the candidates of each event, by its number."""

    def __init__(self, automaton: Automaton, events: Sequence[tuple[Candidate, ...]]) -> None:
        self._automaton = automaton
        self._events = events
        self._start = _Place((automaton.start,))
        self._places = {self._start.states: self._start}

    def walk(self, events: Sequence[int], complete: bool = True) -> Alignment | None:
        """Return the alignment of a trace that conforms, None when it does not.

        *events* are the numbers of the trace's events. Only candidates that cost nothing are used; of several
        walks the one with the lowest states is returned. Without *complete* the trace may end anywhere.
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
        # Which of several symbols a call is taken for is known only at the end: read the walk backwards.
        state, symbols = end, self._automaton.symbols
        edits: list[Edit] = []
        for position in range(len(strides) - 1, -1, -1):
            state, candidate = strides[position].came[state]
            edits.append(Sync(position, symbols[candidate.symbol], candidate.kind))
        edits.reverse()
        return Alignment(0, tuple(edits), end)

    def _stride(self, place: _Place, event: int) -> _Stride:
        """Return where *event* leads from *place*, and remember it."""
        came: dict[int, tuple[int, Candidate]] = {}
        for state in place.states:
            arcs = self._automaton.arcs[state]
            for candidate in self._events[event]:
                target = arcs.get(candidate.symbol)
                if target is not None and not candidate.cost:
                    # `setdefault`: states and candidates come in ascending order, and the first one counts.
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
        """Drop all places but the start. Links between places are cut, so that the dropped ones are freed."""
        for place in self._places.values():
            place.following.clear()
        self._places = {self._start.states: self._start}


# --- any trace ----------------------------------------------------------------------------------


def full_cost(step: str | None) -> int:
    """Return MISSING for every step: the captures could have shown all of them."""
    return MISSING


class Aligner:
    """Aligns traces with one automaton, and remembers rows and walks that traces have in common."""

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
        # Ends: the reach doubles each time, and rows that keep every state prune nothing.
        while True:
            steps = table.read(numbers)
            last = steps[-1].row if steps else table.start
            rest, state = table.end(last, complete)
            total = sum(step.cost for step in steps) + rest
            if table.certified(steps, total, complete):
                # Below SCALE is the number of extra calls, which only breaks ties.
                return Alignment(total // SCALE, tuple(table.edits(steps, state)), state)
            table = self.engine.wider(table)


@lru_cache(maxsize=16)
def aligner(automaton: Automaton) -> Aligner:
    """Return the aligner of *automaton*; it is made once per automaton."""
    return Aligner(automaton)


def align(
    automaton: Automaton,
    events: Sequence[Event],
    missing_cost: Callable[[str | None], int] = full_cost,
    *,
    complete: bool = True,
) -> Alignment:
    """Return a cheapest alignment of *events* with a word of the automaton.

    *missing_cost* returns the cost of a missing symbol of a step; it is called with None for symbols of no
    step, and a cost below 1 raises ValueError. Without *complete* the trace may end anywhere: symbols after
    its last call are neither paid for nor listed. Of several cheapest alignments the same one is returned in
    every run; rows.py documents which.
    """
    return aligner(automaton).align(events, missing_cost, complete=complete)


def walk(automaton: Automaton, events: Sequence[Event], *, complete: bool = True) -> Alignment | None:
    """Return the alignment of a trace that conforms, None when it does not.

    Only candidates that cost nothing are used; of several walks the one with the lowest states is returned.
    """
    return aligner(automaton).walk(events, complete=complete)
