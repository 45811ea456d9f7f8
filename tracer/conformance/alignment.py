"""The cheapest explanation of a trace's calls by an automaton: what fits, what is missing, what is extra.

A conforming trace is a walk through the automaton and costs nothing. For all others a row holds, for
each state, the least cost of having read the first i calls and being there:

    D0(q)  = cheapest missing symbols from the start to q
    D'(t)  = min( D(t) + EXTRA,  min over q -symbol-> t of D(q) + cost of taking the call as symbol )

closed under missing symbols again (Dijkstra). The result is exact. A memoised automaton of rows with
an exactness certificate (conformance.md §3.3) can take the place of `_rows` without a change outside.

Ties: least cost, then fewest extra calls; then a call is taken rather early than late (of two equal
calls the second is extra, of two equal steps the second is missing), then low numbers of states and
symbols; so the same trace gives the same moves in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from tracer.conformance.automaton import Automaton, Symbol

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
    "align",
    "walk",
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


def full_cost(step: str | None) -> int:
    """Return MISSING: every step could have been seen."""
    return MISSING


def align(
    automaton: Automaton,
    events: Sequence[Event],
    missing_cost: Callable[[str | None], int] = full_cost,
    *,
    complete: bool = True,
) -> Alignment:
    """Return a cheapest alignment of *events* with a word of the automaton.

    *missing_cost* is what a missing symbol of a step costs, at least 0; it is asked with None for
    symbols of no step. Without *complete* the trace may end anywhere: what was not yet reached is
    neither paid for nor listed.
    """
    found = walk(automaton, events, complete=complete)
    if found is not None:
        return found
    scale = len(events) + 1  # makes room for the number of extra calls below the cost
    costs = {step: missing_cost(step) * scale for step in {symbol.step for symbol in automaton.symbols}}
    skips = [costs[symbol.step] for symbol in automaton.symbols]
    rows = _rows(automaton, events, skips, scale)
    last = rows[-1].closed if complete else rows[-1].reached
    ends = [state for state in last if state in automaton.accepting or not complete]
    state = min(ends, key=lambda state: (last[state], state))
    return Alignment(last[state] // scale, _moves(automaton, events, rows, state, complete), state)


def walk(automaton: Automaton, events: Sequence[Event], *, complete: bool = True) -> Alignment | None:
    """Return the alignment of a trace that conforms, None when it does not.

    Uses the candidates that cost nothing; of several ways the one with the lowest numbers.
    """
    rows: list[dict[int, tuple[int, Candidate]]] = []
    states = [automaton.start]
    for event in events:
        row: dict[int, tuple[int, Candidate]] = {}
        for state in states:
            for candidate in event:
                target = automaton.arcs[state].get(candidate.symbol)
                if target is not None and not candidate.cost:
                    row.setdefault(target, (state, candidate))
        rows.append(row)
        states = sorted(row)
    ends = [state for state in states if state in automaton.accepting or not complete]
    if not ends:
        return None
    state = end = ends[0]
    moves: list[Move] = []
    for position in range(len(events) - 1, -1, -1):
        state, candidate = rows[position][state]
        moves.append(Sync(position, automaton.symbols[candidate.symbol], candidate.kind))
    return Alignment(0, tuple(reversed(moves)), end)


# --- the exact alignment --------------------------------------------------------------------------


class _Row(NamedTuple):
    """Least costs after so many calls, and how they came about."""

    reached: dict[int, int]
    """State -> cost right after the call."""
    taken: dict[int, tuple[int, Candidate | None]]
    """State -> (state before the call, how it was taken; None for extra)."""
    closed: dict[int, int]
    """State -> cost when symbols may be missing after the call."""
    skipped: dict[int, tuple[int, int]]
    """State -> (state before it, missing symbol), where that is cheaper."""


def _rows(automaton: Automaton, events: Sequence[Event], skips: Sequence[int], scale: int) -> list[_Row]:
    """Return one row for the start and one for each call."""
    reached = {automaton.start: 0}
    rows = [_Row(reached, {}, *_closed(automaton, reached, skips, {}))]
    for event in events:
        before = rows[-1].closed
        reached = {}
        taken: dict[int, tuple[int, Candidate | None]] = {}
        for state in sorted(before):
            arcs = automaton.arcs[state]
            for candidate in event:
                target = arcs.get(candidate.symbol)
                if target is not None:
                    cost = before[state] + candidate.cost * scale
                    if target not in reached or cost < reached[target]:
                        reached[target] = cost
                        taken[target] = (state, candidate)
        for state in sorted(before):
            cost = before[state] + EXTRA * scale + 1
            if state not in reached or cost <= reached[state]:
                reached[state] = cost
                taken[state] = (state, None)
        rows.append(_Row(reached, taken, *_closed(automaton, reached, skips, taken)))
    return rows


def _closed(
    automaton: Automaton,
    reached: dict[int, int],
    skips: Sequence[int],
    taken: dict[int, tuple[int, Candidate | None]],
) -> tuple[dict[int, int], dict[int, tuple[int, int]]]:
    """Return the costs when any symbols may be missing next, and the last missing symbol of each."""
    closed = dict(reached)
    skipped: dict[int, tuple[int, int]] = {}
    waiting = [(cost, state) for state, cost in reached.items()]
    heapify(waiting)
    while waiting:
        cost, state = heappop(waiting)
        if cost > closed[state]:
            continue
        for symbol, target in automaton.arcs[state].items():
            there = cost + skips[symbol]
            # The second of two equal steps is missing. Only where it costs: free moves could form a ring.
            late = there > cost and target not in skipped and taken.get(target, (0, None))[1] is not None
            if target not in closed or there < closed[target] or (late and there == closed[target]):
                closed[target] = there
                skipped[target] = (state, symbol)
                heappush(waiting, (there, target))
    return closed, skipped


def _moves(
    automaton: Automaton, events: Sequence[Event], rows: Sequence[_Row], state: int, complete: bool
) -> tuple[Move, ...]:
    """Return the moves that lead to *state* after the last row, read backwards."""
    moves: list[Move] = []
    for position in range(len(events), -1, -1):
        row = rows[position]
        if complete or position < len(events):
            while state in row.skipped:
                state, symbol = row.skipped[state]
                moves.append(Missing(automaton.symbols[symbol]))
        if position:
            state, candidate = row.taken[state]
            if candidate is None:
                moves.append(Extra(position - 1))
            else:
                moves.append(Sync(position - 1, automaton.symbols[candidate.symbol], candidate.kind))
    return tuple(reversed(moves))
