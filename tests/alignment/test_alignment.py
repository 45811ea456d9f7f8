"""Alignments are cheapest, valid, and the same in every run."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lab.long import examples
from lab.unpruned import unpruned

from tracer.alignment.alignment import (
    EXTRA,
    MISSING,
    UNOBSERVED,
    Aligner,
    Alignment,
    Candidate,
    Event,
    Extra,
    Missing,
    Sync,
    align,
    walk,
)
from tracer.grammar.alphabet import NEAR
from tracer.grammar.automaton import Alt, Automaton, Rep, Seq, Shuffle, Sym, Symbol, Term, compile_term

NAMES = "ABC"
SYMBOLS = tuple(Symbol(i, name, name) for i, name in enumerate(NAMES))
A, B, C = Sym(0), Sym(1), Sym(2)
COSTS = {"A": MISSING, "B": UNOBSERVED, "C": 2}


def compiled(term: Term) -> Automaton:
    return compile_term(term, SYMBOLS)


def seen(text: str) -> list[Event]:
    """A call for each letter; a small letter is a near miss, `-` fits nothing."""
    return [
        []
        if letter == "-"
        else [Candidate(NAMES.index(letter.upper()), NEAR["failed"], "failed")]
        if letter.islower()
        else [Candidate(NAMES.index(letter))]
        for letter in text
    ]


def told(alignment: Alignment) -> str:
    """One word a edit: A taken, a near miss, ?A missing, !0 extra call 0."""
    words = []
    for edit in alignment.edits:
        match edit:
            case Sync(_, symbol, kind):
                words.append(symbol.terminal if kind == "sync" else symbol.terminal.lower())
            case Missing(symbol):
                words.append(f"?{symbol.terminal}")
            case Extra(event):
                words.append(f"!{event}")
    return " ".join(words)


ABC = Seq((A, B, C))
CASES = [
    # term, calls, cost when complete, edits, cost when it may go on, edits
    (ABC, "ABC", 0, "A B C", 0, "A B C"),
    (ABC, "AB", MISSING, "A B ?C", 0, "A B"),
    (ABC, "AC", MISSING, "A ?B C", MISSING, "A ?B C"),
    (ABC, "", 3 * MISSING, "?A ?B ?C", 0, ""),
    (ABC, "ABBC", EXTRA, "A B !2 C", EXTRA, "A B !2 C"),
    (ABC, "A-BC", EXTRA, "A !1 B C", EXTRA, "A !1 B C"),
    (ABC, "ACB", MISSING + EXTRA, "A ?B C !2", EXTRA, "A !1 B"),
    (ABC, "AbC", NEAR["failed"], "A b C", NEAR["failed"], "A b C"),
    (Seq((A, Rep(B, 1), C)), "AC", MISSING, "A ?B C", MISSING, "A ?B C"),
    (Seq((A, Rep(B, 1), C)), "AbBC", NEAR["failed"], "A b B C", NEAR["failed"], "A b B C"),
    (Seq((A, Rep(B), C)), "AC", 0, "A C", 0, "A C"),
    (Shuffle((Seq((A, B)), C)), "CB", MISSING, "C ?A B", MISSING, "C ?A B"),
    (Alt((Seq((A, A, A)), B)), "AA", MISSING, "A A ?A", 0, "A A"),
]


@pytest.mark.parametrize("term, calls, cost, edits, open_cost, open_moves", CASES)
def test_moves(term: Term, calls: str, cost: int, edits: str, open_cost: int, open_moves: str) -> None:
    """What is missing, extra or nearly right is said at the least cost; an open end owes nothing."""
    found = align(compiled(term), seen(calls))
    assert (found.cost, told(found)) == (cost, edits)
    found = align(compiled(term), seen(calls), complete=False)
    assert (found.cost, told(found)) == (open_cost, open_moves)


def test_a_step_that_could_not_be_seen_costs_little() -> None:
    """Of two ways the one through an unobserved step is taken."""
    found = align(compiled(Seq((Alt((A, B)), C))), seen("C"), lambda step: COSTS[step or "A"])
    assert (found.cost, told(found)) == (UNOBSERVED, "?B C")


def test_a_near_miss_is_cheaper_than_missing_and_extra() -> None:
    """A call on the wrong plane is one defect, even where the step itself could not have been seen."""
    assert all(cost < EXTRA + UNOBSERVED and cost < EXTRA for cost in NEAR.values())


def test_the_end_tells_what_is_owed() -> None:
    """The state after the last call says what may come next and what is still needed."""
    automaton = compiled(Seq((A, Rep(B), C)))
    found = align(automaton, seen("A"), complete=False)
    assert [symbol.terminal for symbol in automaton.expected(found.state)] == ["B", "C"]
    assert [symbol.terminal for symbol in automaton.finish(found.state)] == ["C"]


def test_walk_takes_conforming_traces_only() -> None:
    """The fast path answers None as soon as anything costs something."""
    automaton = compiled(ABC)
    assert told(walk(automaton, seen("ABC")) or pytest.fail()) == "A B C"
    assert walk(automaton, seen("AB")) is None
    assert walk(automaton, seen("AbC")) is None
    assert told(walk(automaton, seen("AB"), complete=False) or pytest.fail()) == "A B"


# --- against a reference --------------------------------------------------------------------------


def language(term: Term) -> set[tuple[int, ...]]:
    """All words of a term without endless repetition."""
    match term:
        case Sym(symbol):
            return {(symbol,)}
        case Alt(parts):
            return set().union(*map(language, parts))
        case Rep(part, low, high):
            found: set[tuple[int, ...]] = set()
            for count in range(low, (high or low) + 1):
                found |= {sum(ws, ()) for ws in product(language(part), repeat=count)}
            return found
        case Seq(parts):
            return {sum(ws, ()) for ws in product(*map(language, parts))}
        case Shuffle(parts):
            left = {()}
            for part in parts:
                left = {m for w in left for v in language(part) for m in mixes(w, v)}
            return left
    raise AssertionError(term)


def mixes(left: tuple[int, ...], right: tuple[int, ...]) -> set[tuple[int, ...]]:
    if not left or not right:
        return {left + right}
    return {(left[0], *w) for w in mixes(left[1:], right)} | {(right[0], *w) for w in mixes(left, right[1:])}


def edit_cost(word: tuple[int, ...], events: list[Event]) -> int:
    """The cheapest way to explain the calls by exactly this word: a table, as for an edit distance."""
    table = [[0] * (len(events) + 1) for _ in range(len(word) + 1)]
    for i, j in product(range(len(word) + 1), range(len(events) + 1)):
        ways = [0] if i == j == 0 else []
        if i:
            ways.append(table[i - 1][j] + COSTS[NAMES[word[i - 1]]])
        if j:
            ways.append(table[i][j - 1] + EXTRA)
        if i and j:
            ways += [table[i - 1][j - 1] + c.cost for c in events[j - 1] if c.symbol == word[i - 1]]
        table[i][j] = min(ways)
    return table[-1][-1]


def finite(inner: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    parts = st.lists(inner, min_size=1, max_size=3).map(tuple)
    return st.one_of(
        parts.map(Seq),
        parts.map(Alt),
        parts.map(Shuffle),
        st.tuples(inner, st.sampled_from([(0, 1), (1, 2), (2, 2)])).map(lambda p: Rep(p[0], *p[1])),
    )


def endless(inner: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    return st.one_of(finite(inner), inner.map(Rep), inner.map(lambda part: Rep(part, 1)))


LEAVES: st.SearchStrategy[Term] = st.sampled_from([A, B, C])
FINITE = st.recursive(LEAVES, finite, max_leaves=5)
ENDLESS = st.recursive(LEAVES, endless, max_leaves=6)
CANDIDATES = st.builds(
    lambda symbol, cost: Candidate(symbol, cost, "failed" if cost else "sync"),
    st.integers(0, 2),
    st.sampled_from([0, 0, 2]),
)
TRACES = st.lists(st.lists(CANDIDATES, max_size=3), max_size=5)


def cost_of(step: str | None) -> int:
    return COSTS[step or "A"]


@settings(deadline=None, max_examples=examples(300))
@given(FINITE, TRACES)
def test_cost_is_the_least(term: Term, events: list[Event]) -> None:
    """No word of the grammar, and no beginning of one, explains the calls for less."""
    all_words = language(term)
    assume(len(all_words) <= 300)
    automaton = compiled(term)
    least = min(edit_cost(word, events) for word in all_words)
    assert align(automaton, events, cost_of).cost == least
    begun = {word[:n] for word in all_words for n in range(len(word) + 1)}
    least = min(edit_cost(word, events) for word in begun)
    assert align(automaton, events, cost_of, complete=False).cost == least


@settings(deadline=None, max_examples=examples(300))
@given(ENDLESS, TRACES, st.booleans())
def test_moves_are_a_proof(term: Term, events: list[Event], complete: bool) -> None:
    """Played back, the edits use each call once, in order, give a word, and cost what is said."""
    automaton = compiled(term)
    found = align(automaton, events, cost_of, complete=complete)
    state, cost, used = automaton.start, 0, []
    for edit in found.edits:
        match edit:
            case Sync(event, symbol, kind):
                used.append(event)
                state = automaton.arcs[state][symbol.id]
                cost += min(c.cost for c in events[event] if (c.symbol, c.kind) == (symbol.id, kind))
            case Missing(symbol):
                state = automaton.arcs[state][symbol.id]
                cost += cost_of(symbol.step)
            case Extra(event):
                used.append(event)
                cost += EXTRA
    assert used == list(range(len(events)))
    assert (state, cost) == (found.state, found.cost)
    assert state in automaton.accepting or not complete
    if not complete:
        assert not (found.edits and isinstance(found.edits[-1], Missing))


COST = st.sampled_from([1, 2, 7, 40])
WEIGHTS = st.fixed_dictionaries({name: COST for name in NAMES})
LONG = st.lists(st.lists(CANDIDATES, max_size=3), max_size=12)


@settings(deadline=None, max_examples=examples(800))
@given(ENDLESS, st.lists(LONG, min_size=1, max_size=3), WEIGHTS, st.booleans(), st.sampled_from([1, 7, 80]))
def test_moves_are_those_of_the_unpruned_reference(
    term: Term, traces: list[list[Event]], costs: dict[str, int], complete: bool, reach: int
) -> None:
    """Cost, edits and end, whatever is pruned at first, and whatever was aligned before."""
    automaton = compiled(term)
    aligner = Aligner(automaton, reach=reach)
    for events in traces:
        expected = unpruned(automaton, events, lambda step: costs[step or "A"], complete=complete)
        assert aligner.align(events, lambda step: costs[step or "A"], complete=complete) == expected


@settings(deadline=None, max_examples=examples(100))
@given(ENDLESS, st.lists(TRACES, min_size=2, max_size=6))
def test_a_full_memory_is_forgotten_and_changes_nothing(term: Term, traces: list[list[Event]]) -> None:
    """Also in the middle of a trace."""
    automaton = compiled(term)
    small = Aligner(automaton, most_cells=20)
    for events in traces:
        assert small.align(events, cost_of) == align(automaton, events, cost_of)
    assert small.engine.cells <= 20 + len(automaton.arcs) * len(automaton.arcs) + 300


def test_a_step_that_costs_nothing_is_refused() -> None:
    """Free symbols could form a ring: what may be absent is optional in the grammar instead."""
    with pytest.raises(ValueError, match="at least 1"):
        align(compiled(ABC), seen("A"), lambda step: 0)


def test_a_far_better_end_is_found_in_spite_of_pruning() -> None:
    """What looked twelve times as bad as the rest was right: the certificate asks for a wider reach."""
    # Right up to the last call, the second way is the dearer one by more than any row keeps at first.
    term = Alt((Seq((A, *[B] * 8, C)), Seq((B, *[A] * 8, *[C] * 12))))
    events = seen("A" + "B" * 8 + "C" * 12)
    automaton = compiled(term)
    aligner = Aligner(automaton)
    numbers = [aligner.engine.number(event) for event in events]
    table = aligner.engine.table((MISSING,) * 3)
    steps = table.read(numbers)
    rest, _ = table.end(steps[-1].row, True)
    assert not table.certified(steps, sum(step.cost for step in steps) + rest, True)
    assert aligner.align(events) == unpruned(automaton, events, lambda step: MISSING)


@settings(deadline=None, max_examples=examples(100))
@given(ENDLESS, TRACES)
def test_the_same_trace_gives_the_same_moves(term: Term, events: list[Event]) -> None:
    """Ties are broken by a fixed order, also in an automaton compiled anew."""
    assert align(compiled(term), events, cost_of) == align(compiled(term), events, cost_of)
