"""Alignment while calls arrive: what a trace has cost so far, and what it waits for.

    online = Online(grammar)
    online.feed("VM 1", "External_api REST admin > sc POST /sc/cloudhosts 202", time_ns)
    online.standing("VM 1").expected       # what may come next, and who owes it
    for key in online.expire(now_ns): ...  # silent for too long

An open trace is a row (rows.py), a few numbers and the numbers of its calls, 4 bytes each. A call is one
look-up where a call like it has come to a row like it before. The cost is always that of the cheapest
alignment of the calls so far: where a pruned entry could beat it, the calls are read again with a wider
reach. There is no clock here: time is what the caller says, from the capture.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from tracer.alignment.alignment import aligner, full_cost
from tracer.alignment.edits import Alignment, Event, Sync
from tracer.alignment.rows import SCALE, Row, Step
from tracer.grammar.automaton import Symbol
from tracer.grammar.grammar import Grammar
from tracer.grammar.patterns import legs_of

__all__ = ["Online", "Owed", "Standing"]

Key = TypeVar("Key", bound=Hashable)

_OUTSIDE = -1
"""Stands for the number of a call outside of the grammar's alphabet."""


class Owed(NamedTuple):
    """A call that may come next."""

    symbol: Symbol
    """Its step and terminal."""
    by: tuple[str, ...]
    """Roles that can send it: a reply is owed by the one who was asked."""
    to: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an open trace is."""

    cost: int
    """Least cost of all its calls so far; 0 while all fits."""
    last_step: str | None
    """The last call that fits a step fits this one; None before the first."""
    last_ns: int
    """When its last call was fed."""
    expected: tuple[Owed, ...]
    """All that may come next, what is optional included."""
    owed: Owed | None
    """What comes next on the shortest way to the end; None at the end."""
    to_go: int
    """Fewest calls to the end."""


class _Open:
    """An open trace."""

    __slots__ = ("base", "floor", "is_quiet", "last_ns", "numbers", "row")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.base = 0
        """Scaled least cost."""
        self.floor = 1 << 80
        """Least cost that anything pruned could have had."""
        self.numbers = array("I")
        """Of the events, for the day when they must be read again."""
        self.last_ns = 0
        self.is_quiet = False
        """Whether `expire` has told of it."""


class Online(Generic[Key]):
    """Many open traces of one grammar, fed call by call; a trace goes by whatever *Key* the caller uses.

    *missing_cost* is what a missing symbol of a step costs (see `align`); a trace is quiet when nothing
    was fed to it for *quiet_ns*.
    """

    def __init__(
        self,
        grammar: Grammar,
        missing_cost: Callable[[str | None], int] = full_cost,
        quiet_ns: int = 60_000_000_000,
    ) -> None:
        self.grammar = grammar
        self.quiet_ns = quiet_ns
        self._aligner = aligner(grammar.automaton)
        self._engine = self._aligner.engine
        self._costs = self._engine.costs(missing_cost)
        self._table = self._engine.table(self._costs)
        self._open: dict[Key, _Open] = {}
        self._numbers: dict[Event, int] = {(): _OUTSIDE}
        self._owed = {symbol.id: _owed(grammar, symbol) for symbol in grammar.automaton.symbols}

    def __len__(self) -> int:
        """Return how many traces are open."""
        return len(self._open)

    def __contains__(self, key: object) -> bool:
        return key in self._open

    def feed(self, key: Key, line: str, time_ns: int) -> int:
        """Add a call, by its canonical line, to a trace, which it may open; return the cost so far.

        A line outside of the grammar's alphabet is a sign of life and costs nothing.
        """
        return self.feed_event(key, self.grammar.candidates(line), time_ns)

    def feed_event(self, key: Key, event: Event, time_ns: int) -> int:
        """Do the same with the ways to take a call (a tuple), which the caller may have weighed anew.

        None at all, (), is a call outside of the alphabet.
        """
        trace = self._open.get(key)
        if trace is None:
            trace = self._open[key] = _Open(self._table.start)
        trace.last_ns = time_ns
        trace.is_quiet = False
        number = self._numbers.get(event)
        if number is None:
            number = self._numbers[event] = self._engine.number(event)
        if number != _OUTSIDE:
            trace.numbers.append(number)
            self._advance(trace, trace.row.following.get(number) or trace.row.table.step(trace.row, number))
            while trace.base >= trace.floor:
                self._widen(trace)
        return trace.base // SCALE

    @staticmethod
    def _advance(trace: _Open, step: Step) -> None:
        floor = trace.base + step.floor
        if floor < trace.floor:
            trace.floor = floor
        trace.base += step.cost
        trace.row = step.row

    def _widen(self, trace: _Open) -> None:
        """Read the trace again with twice the reach: something pruned could be as cheap."""
        table = self._engine.wider(trace.row.table)
        trace.row, trace.base, trace.floor = table.start, 0, 1 << 80
        for step in table.read(trace.numbers):
            self._advance(trace, step)

    def standing(self, key: Key) -> Standing:
        """Return where a trace is; KeyError when it is not open."""
        trace = self._open[key]
        automaton = self.grammar.automaton
        states = [state for state, cost in trace.row.costs.items() if not cost]
        symbols = sorted({symbol for state in states for symbol in automaton.arcs[state]})
        nearest = min(states, key=lambda state: (automaton.finish_distance[state], state))
        way = automaton.finish(nearest)
        return Standing(
            trace.base // SCALE,
            self._last_step(key),
            trace.last_ns,
            tuple(self._owed[symbol] for symbol in symbols),
            self._owed[way[0].id] if way else None,
            len(way),
        )

    def _last_step(self, key: Key) -> str | None:
        for edit in reversed(self.alignment(key).edits):
            if isinstance(edit, Sync) and edit.symbol.step is not None:
                return edit.symbol.step
        return None

    def alignment(self, key: Key, *, complete: bool = False) -> Alignment:
        """Return the cheapest alignment of a trace's calls so far; KeyError when it is not open.

        With *complete* the trace is taken to have ended, and what it never reached is missing.
        """
        return self._aligner.explain(self._open[key].numbers, self._costs, complete)

    def expire(self, now_ns: int) -> Iterator[Key]:
        """Yield the traces that have gone quiet, each once until it is fed again. They stay open."""
        since_ns = now_ns - self.quiet_ns
        for key, trace in list(self._open.items()):
            if trace.last_ns <= since_ns and not trace.is_quiet:
                trace.is_quiet = True
                yield key

    def close(self, key: Key) -> None:
        """Forget a trace; KeyError when it is not open."""
        del self._open[key]


def _owed(grammar: Grammar, symbol: Symbol) -> Owed:
    legs = legs_of(grammar.terminals[symbol.terminal].pattern)
    callers = dict.fromkeys(leg.caller for leg in legs if leg.caller != "*")
    callees = dict.fromkeys(leg.callee for leg in legs if leg.callee != "*")
    return Owed(symbol, tuple(callers), tuple(callees))
