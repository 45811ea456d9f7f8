"""The reference of the alignment: a plain table of costs, nothing left out and nothing remembered.

For each state, the least cost of having read the first i calls and being there:

    D0(q)  = cheapest missing symbols from the start to q
    D'(t)  = min( D(t) + EXTRA,  min over q -symbol-> t of D(q) + cost of taking the call as symbol )

closed under missing symbols again (Dijkstra). Its ties are those that tracer/alignment/rows.py promises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from tracer.alignment.alignment import (
    EXTRA,
    Alignment,
    Candidate,
    Edit,
    Event,
    Extra,
    Missing,
    Sync,
)
from tracer.grammar.automaton import Automaton


def unpruned(
    automaton: Automaton,
    events: Sequence[Event],
    missing_cost: Callable[[str | None], int],
    *,
    complete: bool = True,
) -> Alignment:
    """A cheapest alignment."""
    scale = len(events) + 1  # makes room for the number of extra calls below the cost
    costs = {step: missing_cost(step) * scale for step in {symbol.step for symbol in automaton.symbols}}
    skips = [costs[symbol.step] for symbol in automaton.symbols]
    rows = _rows(automaton, events, skips, scale)
    last = rows[-1].closed if complete else rows[-1].reached
    ends = [state for state in last if state in automaton.accepting or not complete]
    state = min(ends, key=lambda state: (last[state], state))
    return Alignment(last[state] // scale, _moves(automaton, events, rows, state, complete), state)


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
            # The second of two equal steps is missing. Only where it costs: free edits could form a ring.
            late = there > cost and target not in skipped and taken.get(target, (0, None))[1] is not None
            if target not in closed or there < closed[target] or (late and there == closed[target]):
                closed[target] = there
                skipped[target] = (state, symbol)
                heappush(waiting, (there, target))
    return closed, skipped


def _moves(
    automaton: Automaton, events: Sequence[Event], rows: Sequence[_Row], state: int, complete: bool
) -> tuple[Edit, ...]:
    """Return the edits that lead to *state* after the last row, read backwards."""
    edits: list[Edit] = []
    for position in range(len(events), -1, -1):
        row = rows[position]
        if complete or position < len(events):
            while state in row.skipped:
                state, symbol = row.skipped[state]
                edits.append(Missing(automaton.symbols[symbol]))
        if position:
            state, candidate = row.taken[state]
            if candidate is None:
                edits.append(Extra(position - 1))
            else:
                edits.append(Sync(position - 1, automaton.symbols[candidate.symbol], candidate.kind))
    return tuple(reversed(edits))
