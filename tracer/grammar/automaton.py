"""Regular terms, and the minimal automaton of a term.

    Sym, Seq, Alt, Rep, Shuffle -> NFA (Thompson) -> subset construction -> Hopcroft -> Automaton

The branches of a shuffle are minimised first; then a product state (q1 .. qk) moves one branch per symbol.
Each of these steps keeps the language, so a cheapest repair of a trace is the same before and after. States
are numbered by breadth from the start, in order of symbol ids: a grammar gives the same numbers in every run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tracer.errors import GrammarError

__all__ = [
    "MOST_STATES",
    "Alt",
    "Automaton",
    "Rep",
    "Seq",
    "Shuffle",
    "Sym",
    "Symbol",
    "Term",
    "compile_term",
    "symbols_in",
]

MOST_STATES = 50_000
"""The most states of an automaton. The shipped grammars need far fewer: one above this is a mistake."""


class Symbol(NamedTuple):
    """One letter of a grammar's alphabet: a terminal as evidence of a step.

    A terminal that can be evidence of two steps gives two symbols.
    """

    id: int
    """Position in `Automaton.symbols`."""
    terminal: str
    step: str | None = None
    """'4a'; None for a call outside of every documented step (a reschedule)."""
    role: str = "step"
    """step · tried (good call of an attempt that failed) · refused (failing call of such an attempt)
    · other (no step)."""
    note: str = ""
    """The kind of note that is made when it is seen: 'mode' from `noted_mode{…}`."""


# --- terms ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sym:
    """One symbol, by its id."""

    id: int


@dataclass(frozen=True, slots=True)
class Seq:
    """All parts, in order; the empty word without parts."""

    parts: tuple[Term, ...] = ()


@dataclass(frozen=True, slots=True)
class Alt:
    """One of the parts; at least one is needed."""

    parts: tuple[Term, ...]


@dataclass(frozen=True, slots=True)
class Rep:
    """The part, `low` to `high` times; `high` None is without end."""

    part: Term
    low: int = 0
    high: int | None = None


@dataclass(frozen=True, slots=True)
class Shuffle:
    """All parts at the same time, each in its own order."""

    parts: tuple[Term, ...]
    where: str = ""
    """`file:line: interleave in rule …`, for messages."""


Term = Sym | Seq | Alt | Rep | Shuffle


def symbols_in(term: Term, enters: Callable[[Rep], bool] = lambda _: True) -> Iterator[int]:
    """Yield the ids of the symbols of *term*, in order; of a repetition only if *enters* is true for it."""
    match term:
        case Sym(symbol):
            yield symbol
        case Rep(part, _, _):
            if enters(term):
                yield from symbols_in(part, enters)
        case Seq(parts) | Alt(parts) | Shuffle(parts):
            for part in parts:
                yield from symbols_in(part, enters)


# --- the automaton --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Automaton:
    """A minimal deterministic automaton without dead states; state 0 is the start."""

    symbols: tuple[Symbol, ...]
    arcs: tuple[Mapping[int, int], ...]
    """For each state: symbol id -> next state, in order of symbol ids."""
    accepting: frozenset[int]
    finish_distance: tuple[int, ...]
    """For each state: fewest symbols to an accepting state."""
    start: int = 0
    _distances: dict[int, dict[int, int]] = field(default_factory=dict)

    def accepts(self, word: Iterable[int]) -> bool:
        """Return whether the symbol ids of *word* lead from the start to an accepting state."""
        state = self.start
        for symbol in word:
            following = self.arcs[state].get(symbol)
            if following is None:
                return False
            state = following
        return state in self.accepting

    def expected(self, state: int) -> tuple[Symbol, ...]:
        """Return the symbols that may come next in *state*, optional ones included, in order of ids."""
        return tuple(self.symbols[symbol] for symbol in self.arcs[state])

    def finish(self, state: int) -> tuple[Symbol, ...]:
        """Return the symbols of a shortest path from *state* to the end: what is owed. Lower ids win ties."""
        path = []
        while self.finish_distance[state]:
            wanted = self.finish_distance[state] - 1
            symbol, state = next(
                (symbol, target)
                for symbol, target in self.arcs[state].items()
                if self.finish_distance[target] == wanted
            )
            path.append(self.symbols[symbol])
        return tuple(path)

    def distance(self, state: int) -> Mapping[int, int]:
        """Return the fewest symbols from *state* to each state that it reaches; computed once."""
        known = self._distances.get(state)
        if known is None:
            known = {state: 0}
            waiting = deque([state])
            while waiting:
                here = waiting.popleft()
                for target in self.arcs[here].values():
                    if target not in known:
                        known[target] = known[here] + 1
                        waiting.append(target)
            self._distances[state] = known
        return known

    def needs(self, symbols: Iterable[int]) -> bool:
        """Return whether every accepted word holds at least one of *symbols*."""
        avoided = set(symbols)
        seen = {self.start}
        waiting = [self.start]
        while waiting:
            state = waiting.pop()
            if state in self.accepting:
                return False
            for symbol, target in self.arcs[state].items():
                if symbol not in avoided and target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return True


def compile_term(
    term: Term, symbols: Sequence[Symbol], most_states: int = MOST_STATES, where: str = "this grammar"
) -> Automaton:
    """Return the minimal automaton of *term* over *symbols*.

    More than *most_states* states, also of an intermediate automaton, raise GrammarError. It names the
    largest interleave, or *where* when there is none.
    """
    arcs, accepting = _minimal(term, most_states, where)
    return Automaton(tuple(symbols), tuple(arcs), frozenset(accepting), _finish_distances(arcs, accepting))


def _finish_distances(arcs: Sequence[Mapping[int, int]], accepting: set[int]) -> tuple[int, ...]:
    before: list[set[int]] = [set() for _ in arcs]
    for state, out in enumerate(arcs):
        for target in out.values():
            before[target].add(state)
    distances = [0 if state in accepting else -1 for state in range(len(arcs))]
    waiting = deque(sorted(accepting))
    while waiting:
        state = waiting.popleft()
        for previous in before[state]:
            if distances[previous] < 0:
                distances[previous] = distances[state] + 1
                waiting.append(previous)
    return tuple(distances)


# --- from a term to an automaton ------------------------------------------------------------------

_Arcs = list[dict[int, int]]


class _Nfa:
    """Thompson's construction: each term becomes a fragment with one entry and one exit."""

    def __init__(self, most_states: int, where: str) -> None:
        self.arcs: list[list[tuple[int, int]]] = []
        self.empty: list[list[int]] = []
        self.closures: dict[int, frozenset[int]] = {}
        self.most_states = most_states
        self.where = where
        self.largest = (0, where)
        """States and place of the largest shuffle, for the message when there are too many states."""

    def state(self) -> int:
        """Add a state and return its number."""
        # 20: a Thompson automaton has a few states for each symbol, a minimal one about one.
        if len(self.arcs) > 20 * self.most_states:
            raise self.too_large()
        self.arcs.append([])
        self.empty.append([])
        return len(self.arcs) - 1

    def too_large(self, where: str = "") -> GrammarError:
        return GrammarError(
            f"{where or self.largest[1]}: needs more than {self.most_states:,} states; split it: fewer or"
            " shorter parts side by side, or smaller repetition counts"
        )

    def fragment(self, term: Term) -> tuple[int, int]:
        """Add the states of *term*; return (entry, exit)."""
        match term:
            case Sym(symbol):
                entry, leave = self.state(), self.state()
                self.arcs[entry].append((symbol, leave))
                return entry, leave
            case Seq(parts):
                return self.sequence(parts)
            case Alt(parts):
                entry, leave = self.state(), self.state()
                for part in parts:
                    self.join(entry, self.fragment(part), leave)
                return entry, leave
            case Rep(part, low, high):
                return self.repetition(part, low, high)
            case Shuffle(parts, where):
                return self.shuffle(parts, where)

    def join(self, entry: int, inner: tuple[int, int], leave: int) -> None:
        self.empty[entry].append(inner[0])
        self.empty[inner[1]].append(leave)

    def sequence(self, parts: Iterable[Term]) -> tuple[int, int]:
        entry = leave = self.state()
        for part in parts:
            first, last = self.fragment(part)
            self.empty[leave].append(first)
            leave = last
        return entry, leave

    def repetition(self, part: Term, low: int, high: int | None) -> tuple[int, int]:
        entry, here = self.sequence([part] * low)
        leave = self.state()
        self.empty[here].append(leave)
        if high is None:
            hub = self.state()
            self.empty[here].append(hub)
            self.join(hub, self.fragment(part), hub)
            self.empty[hub].append(leave)
        else:
            for _ in range(high - low):
                first, here_next = self.fragment(part)
                self.empty[here].append(first)
                here = here_next
                self.empty[here].append(leave)
        return entry, leave

    def shuffle(self, parts: Sequence[Term], where: str) -> tuple[int, int]:
        """Add the product of the parts' minimal automata."""
        lanes = [_minimal(part, self.most_states, where or self.where) for part in parts]
        begin = (0,) * len(lanes)
        entry, leave = self.state(), self.state()
        numbers = {begin: entry}
        waiting = [begin]
        while waiting:
            places = waiting.pop()
            here = numbers[places]
            for lane, (arcs, _) in enumerate(lanes):
                for symbol, target in arcs[places[lane]].items():
                    there = (*places[:lane], target, *places[lane + 1 :])
                    if there not in numbers:
                        if len(numbers) >= self.most_states:
                            raise self.too_large(where)
                        numbers[there] = self.state()
                        waiting.append(there)
                    self.arcs[here].append((symbol, numbers[there]))
        for places, here in numbers.items():
            if all(place in lane[1] for place, lane in zip(places, lanes, strict=True)):
                self.empty[here].append(leave)
        if len(numbers) > self.largest[0]:
            self.largest = (len(numbers), where or self.where)
        return entry, leave

    def closure(self, states: Iterable[int]) -> frozenset[int]:
        """Return *states* and what they reach without a symbol."""
        return frozenset().union(*map(self._reached, states))

    def _reached(self, state: int) -> frozenset[int]:
        """Return the states with arcs, and possible exits, that *state* reaches without a symbol.

        Most states only join others: without them the sets are a tenth as large. Computed once per state.
        """
        known = self.closures.get(state)
        if known is None:
            reached = {state}
            waiting = [state]
            while waiting:
                for target in self.empty[waiting.pop()]:
                    if target not in reached:
                        reached.add(target)
                        waiting.append(target)
            known = frozenset(s for s in reached if self.arcs[s] or not self.empty[s])
            self.closures[state] = known
        return known


def _minimal(term: Term, most_states: int, where: str) -> tuple[_Arcs, set[int]]:
    nfa = _Nfa(most_states, where)
    entry, leave = nfa.fragment(term)
    arcs, accepting = _determinised(nfa, entry, leave)
    return _renumbered(arcs, accepting, _equivalent(arcs, accepting))


def _determinised(nfa: _Nfa, entry: int, leave: int) -> tuple[_Arcs, set[int]]:
    begin = nfa.closure([entry])
    numbers = {begin: 0}
    arcs: _Arcs = [{}]
    waiting = [begin]
    while waiting:
        states = waiting.pop()
        moves: dict[int, set[int]] = {}
        for state in states:
            for symbol, target in nfa.arcs[state]:
                moves.setdefault(symbol, set()).add(target)
        for symbol in sorted(moves):
            there = nfa.closure(moves[symbol])
            if there not in numbers:
                if len(numbers) >= nfa.most_states:
                    raise nfa.too_large()
                numbers[there] = len(arcs)
                arcs.append({})
                waiting.append(there)
            arcs[numbers[states]][symbol] = numbers[there]
    return arcs, {number for states, number in numbers.items() if leave in states}


def _equivalent(arcs: _Arcs, accepting: set[int]) -> list[int]:
    """Return for each state the number of its class of equivalent states (Hopcroft 1971).

    The arcs are partial, and every state reaches an accepting one. Both first classes are splitters, so that
    states with and without an arc are separated; after that the smaller half of a split suffices.
    """
    before: dict[int, dict[int, list[int]]] = {}
    for state, out in enumerate(arcs):
        for symbol, target in out.items():
            before.setdefault(target, {}).setdefault(symbol, []).append(state)
    classes = [part for part in (set(accepting), set(range(len(arcs))) - accepting) if part]
    class_of = [0] * len(arcs)
    for number, part in enumerate(classes):
        for state in part:
            class_of[state] = number
    waiting = set(range(len(classes)))
    while waiting:
        sources: dict[int, set[int]] = {}
        for state in classes[waiting.pop()]:
            for symbol, previous in before.get(state, {}).items():
                sources.setdefault(symbol, set()).update(previous)
        for symbol in sources:
            _split(classes, class_of, sources[symbol], waiting)
    return class_of


def _split(classes: list[set[int]], class_of: list[int], inside: set[int], waiting: set[int]) -> None:
    touched: dict[int, set[int]] = {}
    for state in inside:
        touched.setdefault(class_of[state], set()).add(state)
    for number, part in touched.items():
        if len(part) == len(classes[number]):
            continue
        rest = classes[number] - part
        smaller, larger = sorted((part, rest), key=len)
        classes[number] = larger
        classes.append(smaller)
        for state in smaller:
            class_of[state] = len(classes) - 1
        # If the class itself is still waiting, both halves must wait; the larger half keeps its number.
        waiting.add(len(classes) - 1)


def _renumbered(arcs: _Arcs, accepting: set[int], class_of: list[int]) -> tuple[_Arcs, set[int]]:
    """Return the automaton of the classes, numbered by breadth in order of symbol ids."""
    numbers = {class_of[0]: 0}
    members = [0]
    merged: _Arcs = []
    for state in members:  # grows while it is read
        out: dict[int, int] = {}
        for symbol, target in sorted(arcs[state].items()):
            kind = class_of[target]
            if kind not in numbers:
                numbers[kind] = len(members)
                members.append(target)
            out[symbol] = numbers[kind]
        merged.append(out)
    return merged, {number for number, state in enumerate(members) if state in accepting}
