"""The exact alignment of a trace that deviates, by a lazily built automaton of cost rows.

A row holds, for each state, the least cost of having read the calls so far and being there right after
the last one (what may be missing next is not yet paid):

    R0(start) = 0
    R'(t) = min( R(t) + EXTRA,  min over q, p: R(q) + distance(q, p) + cost of taking the call p -> t )

`distance` is what the missing symbols on the cheapest way from q to p cost. A row is made small and made
to recur, so that it can be kept and met again, by this trace and by others:

- its least cost is taken off (and added up beside it);
- an entry q that another one p reaches by missing symbols for no more, R(p) + distance(p, q) <= R(q), is
  *dominated* and left out: nothing is lost;
- an entry more than `reach` above the least one is *pruned*: what was pruned is remembered with the step.

Rows are interned, and (row, call) -> (row, added cost, how each entry came about) is kept. Afterwards the
*certificate*: had a pruned entry led to an explanation as cheap as the one found, then its cost and the
least that is still to come from there would be no more than that. If so for any of them the trace is read
again with twice the reach. So the result is always exact, and pruning never shows in it.

Ties. Of explanations of equal cost one is taken that has the fewest extra calls. Among these, read from
the end: it is in the lowest state; a call is extra rather than a symbol missing, and a symbol missing
rather than a call taken; a call is taken, and a symbol is missing, from the lowest state, in the order
of candidates and symbol ids (missing: from the cheapest state first). So of two equal calls the second
is extra, of two equal steps the second is missing. Nothing of this depends on what was aligned before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from weakref import WeakSet

from tracer.alignment.edits import EXTRA, Candidate, Edit, Event, Extra, Missing, Sync
from tracer.grammar.automaton import Automaton

__all__ = ["MOST_CELLS", "REACH", "Engine", "Row", "Step", "Table", "Weights"]

REACH = 4 * EXTRA
"""What a row keeps above its least cost, at first: most traces that deviate need no more."""
SCALE = 1 << 40
"""Makes room for the number of extra calls below the cost: more than any memory holds."""
MOST_CELLS = 3_000_000
"""Entries of rows and distances that are remembered, about 100 bytes each; then all is forgotten."""
MOST_WEIGHTS = 64
"""Cost vectors that are remembered: traces that could see the same steps share one."""
_ROW_CELLS = 12
"""What an empty row takes, in entries."""
_FAR = 1 << 80
"""Cost of what cannot be reached."""


class Step:
    """What one call does to a row."""

    __slots__ = ("back", "came", "cost", "floor", "pruned", "row")

    def __init__(self, row: Row, cost: int, came: dict[int, tuple[int, Candidate | None]]) -> None:
        self.row = row
        self.cost = cost
        """Added to the base."""
        self.came = came
        """State -> (state before the call, how it was taken; None for extra)."""
        self.pruned: tuple[tuple[int, int], ...] = ()
        """(cost above the base before the call, least cost from there to the end) of what was pruned."""
        self.floor = _FAR
        """The least cost in *pruned*."""
        self.back: dict[int, tuple[tuple[Missing, ...], Candidate | None, int]] = {}
        """State when symbols may be missing after the call -> (these, last first; how the call was
        taken; state before it)."""


class Row:
    """Least costs above the base, by state; of all rows of equal costs in a table there is one."""

    __slots__ = ("closed", "costs", "end", "following", "table")

    def __init__(self, table: Table, costs: dict[int, int]) -> None:
        self.table = table
        self.costs = costs
        self.following: dict[int, Step] = {}
        """Number of an event -> what it does."""
        self.closed: dict[int, int] = {}
        """State -> cost when symbols may be missing next, as far as it was asked for."""
        self.end: tuple[int, int] | None = None
        """Least cost to the end of a word, and the accepting state; once it was asked for."""


class Weights:
    """What missing symbols cost, and the distances that follow from it."""

    def __init__(self, engine: Engine, skips: Sequence[int]) -> None:
        self.engine = engine
        self.automaton = engine.automaton
        self.skips = skips
        """Per symbol, scaled."""
        self.extra = EXTRA * SCALE + 1
        self.dearest = max(skips, default=0)
        self.finish = self._finish_costs()
        """Per state: least cost to the end of a word."""
        self.tables: dict[int, Table] = {}
        self._distances: dict[int, list[int]] = {}
        self._landings: dict[tuple[int, int], tuple[tuple[int, int, int], ...]] = {}

    def distances(self, state: int) -> list[int]:
        """Return what it costs to get from *state* to each state by missing symbols (Dijkstra)."""
        known = self._distances.get(state)
        if known is None:
            arcs, skips = self.automaton.arcs, self.skips
            known = self._distances[state] = [_FAR] * len(arcs)
            self.engine.cells += len(arcs)
            known[state] = 0
            waiting = [(0, state)]
            while waiting:
                cost, here = heappop(waiting)
                if cost > known[here]:
                    continue
                for symbol, target in arcs[here].items():
                    there = cost + skips[symbol]
                    if there < known[target]:
                        known[target] = there
                        heappush(waiting, (there, target))
        return known

    def landings(self, state: int, symbol: int) -> tuple[tuple[int, int, int], ...]:
        """Return where *symbol* leads from *state* when others may be missing before it.

        Each as (state after it, state before it, cost). Without those that another one reaches by
        missing symbols for no more.
        """
        known = self._landings.get((state, symbol))
        if known is None:
            arcs = self.automaton.arcs
            found: dict[int, tuple[int, int]] = {}
            for before, cost in enumerate(self.distances(state)):
                target = arcs[before].get(symbol)
                if target is not None and cost < _FAR and (cost, before) < found.get(target, (_FAR, 0)):
                    found[target] = (cost, before)
            kept: list[tuple[int, int, int]] = []
            for cost, before, target in sorted((c, b, t) for t, (c, b) in found.items()):
                if all(c + self.distances(t)[target] > cost for t, _, c in kept):
                    kept.append((target, before, cost))
            known = self._landings[state, symbol] = tuple(kept)
            self.engine.cells += 2 + 2 * len(kept)
        return known

    def forget(self) -> None:
        self._distances.clear()
        self._landings.clear()

    def _finish_costs(self) -> list[int]:
        costs = [_FAR] * len(self.automaton.arcs)
        for state in self.automaton.accepting:
            costs[state] = 0
        waiting = [(0, state) for state in self.automaton.accepting]
        heapify(waiting)
        entries = self.engine.entries
        while waiting:
            cost, here = heappop(waiting)
            if cost > costs[here]:
                continue
            for before, symbol in entries[here]:
                there = cost + self.skips[symbol]
                if there < costs[before]:
                    costs[before] = there
                    heappush(waiting, (there, before))
        return costs


def _entries(automaton: Automaton) -> list[list[tuple[int, int]]]:
    """Return for each state the arcs that enter it, as (state before, symbol)."""
    entries: list[list[tuple[int, int]]] = [[] for _ in automaton.arcs]
    for state, arcs in enumerate(automaton.arcs):
        for symbol, target in arcs.items():
            entries[target].append((state, symbol))
    return entries


def _nearest(pruned: Sequence[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the pairs of which no other is at most as large in both; *pruned* is ascending."""
    kept: list[tuple[int, int]] = []
    for cost, finish in pruned:
        if not kept or finish < kept[-1][1]:
            kept.append((cost, finish))
    return tuple(kept)


class Table:
    """The rows of one cost vector at one reach."""

    def __init__(self, engine: Engine, weights: Weights, reach: int) -> None:
        self.engine = engine
        self.weights = weights
        self.reach = reach
        self.start = Row(self, {engine.automaton.start: 0})
        self.rows = {tuple(self.start.costs.items()): self.start}

    def forget(self) -> None:
        for row in self.rows.values():
            row.following.clear()
        self.rows = {tuple(self.start.costs.items()): self.start}
        self.weights.forget()

    def read(self, events: Sequence[int]) -> list[Step]:
        """Return the steps of a trace, given as the numbers of its events."""
        row, steps = self.start, []
        for event in events:
            step = row.following.get(event) or self.step(row, event)
            steps.append(step)
            row = step.row
        return steps

    def step(self, row: Row, event: int) -> Step:
        """Return what the event of this number does to *row*, and keep it."""
        engine, weights = self.engine, self.weights
        arrivals: dict[int, tuple[int, int, int, Candidate | None]] = {}
        for state, cost in row.costs.items():
            arrivals[state] = (cost + weights.extra, -1, state, None)
        candidates = engine.events[event]
        for state, cost in row.costs.items():
            for order, candidate in enumerate(candidates):
                paid = cost + candidate.cost * SCALE
                for target, before, missing in weights.landings(state, candidate.symbol):
                    # An extra call wins a tie; then the lowest state before, then the first candidate.
                    way = (paid + missing, before * len(candidates) + order, before, candidate)
                    if target not in arrivals or way[:2] < arrivals[target][:2]:
                        arrivals[target] = way
        return self._kept(row, event, arrivals)

    def _kept(
        self, row: Row, event: int, arrivals: dict[int, tuple[int, int, int, Candidate | None]]
    ) -> Step:
        weights = self.weights
        ordered = sorted((way[0], state) for state, way in arrivals.items())
        least = ordered[0][0]
        kept: list[tuple[int, int, list[int]]] = []
        pruned: list[tuple[int, int]] = []
        for cost, state in ordered:
            for other, _, distances in kept:
                if other + distances[state] <= cost:
                    break
            else:
                if cost - least > self.reach:
                    pruned.append((cost, weights.finish[state]))
                else:
                    kept.append((cost, state, weights.distances(state)))
        costs = {state: cost - least for state, cost in sorted((s, c) for c, s, _ in kept)}
        came = {state: arrivals[state][2:] for state in costs}
        step = Step(self._row(costs), least, came)
        if pruned:
            step.pruned = _nearest(pruned)
            step.floor = pruned[0][0]
        row.following[event] = step
        return step

    def _row(self, costs: dict[int, int]) -> Row:
        key = tuple(costs.items())
        known = self.rows.get(key)
        if known is None:
            self.engine.make_room(_ROW_CELLS + 3 * len(key))
            known = self.rows[key] = Row(self, costs)
        return known

    # --- reading a row ---

    def closed(self, row: Row, state: int) -> int:
        """Return the least cost of being in *state* when symbols may be missing after the last call."""
        known = row.closed.get(state)
        if known is None:
            distances = self.weights.distances
            known = row.closed[state] = min(c + distances(s)[state] for s, c in row.costs.items())
        return known

    def end(self, row: Row, complete: bool) -> tuple[int, int]:
        """Return the least cost at the end of the trace, and the lowest state that has it."""
        if not complete:
            return next((cost, state) for state, cost in row.costs.items() if not cost)
        if row.end is None:
            row.end = min((self.closed(row, state), state) for state in self.engine.automaton.accepting)
        return row.end

    def certified(self, steps: Sequence[Step], total: int, complete: bool) -> bool:
        """Return whether nothing that was pruned could have led to *total* or less."""
        base, left = 0, len(steps)
        for step in steps:
            left -= 1
            if base + step.floor <= total:
                spared = left * self.weights.dearest
                for cost, finish in step.pruned:
                    # Each call that is left spares one symbol from being missing, at the most.
                    least = base + cost + (max(0, finish - spared) if complete else 0)
                    if least <= total:
                        return False
            base += step.cost
        return True

    def edits(self, steps: Sequence[Step], state: int) -> list[Edit]:
        """Return the edits that lead to *state* after the last step, symbols missing behind it included."""
        symbols = self.engine.automaton.symbols
        edits: list[Edit] = []
        for position in range(len(steps) - 1, -1, -1):
            step = steps[position]
            back = step.back.get(state)
            if back is None:
                before = steps[position - 1].row if position else self.start
                back = step.back[state] = self._back(before, step, state)
            missing, candidate, state = back
            edits += missing
            if candidate is None:
                edits.append(Extra(position))
            else:
                edits.append(Sync(position, symbols[candidate.symbol], candidate.kind))
        edits += self._way(self.start, state)[0]
        edits.reverse()
        return edits

    def _back(self, before: Row, step: Step, state: int) -> tuple[tuple[Missing, ...], Candidate | None, int]:
        missing, state, is_extra = self._way(step.row, state, before, step.cost)
        if is_extra:
            return missing, None, state
        source, candidate = step.came[state]
        return missing, candidate, source

    def _way(
        self, row: Row, state: int, before: Row | None = None, added: int = 0
    ) -> tuple[tuple[Missing, ...], int, bool]:
        """Return the symbols missing behind a call, last first, and the state right after the call.

        The third tells that the call is extra there although the row has no entry: the tie of an extra
        call and a missing symbol, which are told in this order.
        """
        missing: list[Missing] = []
        entries, skips, extra = self.engine.entries, self.weights.skips, self.weights.extra
        while state not in row.costs:
            cost = self.closed(row, state)
            if before is not None and self.closed(before, state) + extra == cost + added:
                return tuple(missing), state, True
            _, state, symbol = min(
                (self.closed(row, source), source, symbol)
                for source, symbol in entries[state]
                if self.closed(row, source) + skips[symbol] == cost
            )
            missing.append(self.engine.missing[symbol])
        return tuple(missing), state, False


class Engine:
    """All that is remembered about the alignments of one automaton."""

    def __init__(self, automaton: Automaton, reach: int = REACH, most_cells: int = MOST_CELLS) -> None:
        self.automaton = automaton
        self.reach = reach
        self.most_cells = most_cells
        self.entries = _entries(automaton)
        """Per state: the arcs that enter it, as (state before, symbol)."""
        self.missing = [Missing(symbol) for symbol in automaton.symbols]
        self.steps = tuple(dict.fromkeys(symbol.step for symbol in automaton.symbols))
        self.events: list[tuple[Candidate, ...]] = []
        """By number. Never forgotten: the lines of a grammar can be taken in few ways."""
        self.cells = 0
        """Entries that are remembered."""
        self._numbers: dict[tuple[Candidate, ...], int] = {}
        self._weights: dict[tuple[int, ...], Weights] = {}
        self._tables: WeakSet[Table] = WeakSet()

    def number(self, event: Event) -> int:
        """Return the number of an event; equal events have the same."""
        key = event if type(event) is tuple else tuple(event)
        known = self._numbers.get(key)
        if known is None:
            known = self._numbers[key] = len(self.events)
            self.events.append(key)
        return known

    def costs(self, missing_cost: Callable[[str | None], int]) -> tuple[int, ...]:
        """Return what a missing symbol costs, in the order of `steps`."""
        return tuple(missing_cost(step) for step in self.steps)

    def table(self, costs: tuple[int, ...]) -> Table:
        """Return the rows for these costs of a missing symbol, in the order of `steps`.

        A cost below 1 raises ValueError.
        """
        weights = self._weights.get(costs)
        if weights is None:
            if min(costs, default=1) < 1:
                raise ValueError("a missing symbol costs at least 1: free ones could form a ring")
            if len(self._weights) >= MOST_WEIGHTS:
                self.forget()
                self._weights.clear()
            by_step = dict(zip(self.steps, costs, strict=True))
            skips = [by_step[symbol.step] * SCALE for symbol in self.automaton.symbols]
            weights = self._weights[costs] = Weights(self, skips)
        return self._table(weights, self.reach * SCALE)

    def wider(self, table: Table) -> Table:
        """Return the rows for the same costs with twice the reach."""
        return self._table(table.weights, 2 * table.reach)

    def _table(self, weights: Weights, reach: int) -> Table:
        table = weights.tables.get(reach)
        if table is None:
            table = weights.tables[reach] = Table(self, weights, reach)
            self._tables.add(table)
        return table

    def make_room(self, cells: int) -> None:
        """Count what is about to be remembered; forget all before it is too much."""
        self.cells += cells
        if self.cells > self.most_cells:
            self.forget()

    def forget(self) -> None:
        """Forget what rows lead to. Rows in use stay good; what follows them is found anew."""
        for table in self._tables:
            table.forget()
        self.cells = 0
