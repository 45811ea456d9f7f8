"""The fast path: a trace that conforms is a walk through the automaton, and costs nothing.

A call may be taken as one of several symbols, so a walk is in a set of states. The sets that occur are
few; each is kept with where each call leads from it (the automaton made deterministic as it is used).
"""

from __future__ import annotations

from collections.abc import Sequence

from tracer.alignment.edits import Alignment, Candidate, Edit, Sync
from tracer.grammar.automaton import Automaton

__all__ = ["MOST_PLACES", "Walks"]

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
