"""Terms become one minimal automaton with the same language."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.long import examples

from tracer.errors import GrammarError
from tracer.grammar.automaton import Alt, Automaton, Rep, Seq, Shuffle, Sym, Symbol, Term, compile_term

A, B, C = Sym(0), Sym(1), Sym(2)
SYMBOLS = tuple(Symbol(i, name) for i, name in enumerate("ABC"))
LONGEST = 4


def compiled(term: Term, most_states: int = 50_000) -> Automaton:
    return compile_term(term, SYMBOLS, most_states)


def word(text: str) -> list[int]:
    return ["ABC".index(letter) for letter in text]


# --- the reference: the language as a set of words, up to a length ---------------------------------


def shuffled(left: tuple[int, ...], right: tuple[int, ...]) -> set[tuple[int, ...]]:
    if not left or not right:
        return {left + right}
    return {(left[0], *rest) for rest in shuffled(left[1:], right)} | {
        (right[0], *rest) for rest in shuffled(left, right[1:])
    }


def words(term: Term, longest: int) -> set[tuple[int, ...]]:
    match term:
        case Sym(symbol):
            return {(symbol,)} if longest else set()
        case Alt(parts):
            return set().union(*(words(part, longest) for part in parts))
        case Seq(parts):
            found: set[tuple[int, ...]] = {()}
            for part in parts:
                found = {w + v for w in found for v in words(part, longest) if len(w + v) <= longest}
            return found
        case Shuffle(parts):
            found = {()}
            for part in parts:
                found = {
                    mixed
                    for w in found
                    for v in words(part, longest)
                    if len(w + v) <= longest
                    for mixed in shuffled(w, v)
                }
            return found
        case Rep(part, low, high):
            # more than low + longest rounds add no word: a round without a symbol adds nothing
            rounds = low + longest if high is None else high
            one = words(part, longest)
            found, last = set(), {()}
            for count in range(rounds + 1):
                if count >= low:
                    found |= last
                last = {w + v for w in last for v in one if len(w + v) <= longest}
            return found
    raise AssertionError(term)


def nested(inner: st.SearchStrategy[Term]) -> st.SearchStrategy[Term]:
    parts = st.lists(inner, min_size=1, max_size=3).map(tuple)
    bounds = st.sampled_from([(0, 1), (0, None), (1, None), (2, 2), (1, 3), (0, 0)])
    return st.one_of(
        parts.map(Seq),
        parts.map(Alt),
        parts.map(Shuffle),
        st.tuples(inner, bounds).map(lambda pair: Rep(pair[0], *pair[1])),
    )


TERMS: st.SearchStrategy[Term] = st.recursive(
    st.one_of(st.sampled_from([A, B, C]), st.just(Seq())), nested, max_leaves=6
)


@settings(deadline=None, max_examples=examples(300))
@given(TERMS)
def test_accepts_the_words_of_the_term_and_no_others(term: Term) -> None:
    """The automaton's language is the term's, for every word up to four symbols."""
    automaton = compiled(term)
    accepted = {w for n in range(LONGEST + 1) for w in product(range(3), repeat=n) if automaton.accepts(w)}
    assert accepted == words(term, LONGEST)


@settings(deadline=None, max_examples=examples(200))
@given(TERMS)
def test_is_minimal(term: Term) -> None:
    """No two states accept the same rests, each state is reached, and each reaches an end."""
    automaton = compiled(term)
    count = len(automaton.arcs)
    kinds = [int(state in automaton.accepting) for state in range(count)]
    for _ in range(count):  # Moore: refine until states of one kind cannot be told apart
        rows = [
            (
                kinds[state],
                *sorted((symbol, kinds[target]) for symbol, target in automaton.arcs[state].items()),
            )
            for state in range(count)
        ]
        kinds = [rows.index(row) for row in rows]
    assert len(set(kinds)) == count
    assert set(automaton.distance(automaton.start)) == set(range(count))
    assert min(automaton.finish_distance) >= 0


@settings(deadline=None, max_examples=examples(100))
@given(TERMS)
def test_finish_is_a_shortest_way_to_the_end(term: Term) -> None:
    """`finish` leads to an accepting state in `finish_distance` symbols, from each state."""
    automaton = compiled(term)
    for state in range(len(automaton.arcs)):
        here = state
        for symbol in automaton.finish(state):
            here = automaton.arcs[here][symbol.id]
        assert here in automaton.accepting
        ends = [d for target, d in automaton.distance(state).items() if target in automaton.accepting]
        assert len(automaton.finish(state)) == automaton.finish_distance[state] == min(ends)


CASES = [
    (Seq((A, B, C)), "ABC", "AB ACB ABCC", 4),
    (Seq(()), "", "A", 1),
    (Rep(A, 1), "A AAA", "AB B", 2),
    (Rep(A, 2, 3), "AA AAA", "A AAAA", 4),
    (Seq((Rep(A), Alt((B, C)))), "B C AAB", "A BC", 2),
    (Shuffle((Seq((A, B)), C)), "ABC ACB CAB", "BAC AB ABCC", 6),
    (Shuffle((A, B, C)), "ABC CBA BAC", "AB ABCA", 8),
    (Shuffle((A, Shuffle((B, C)))), "ABC CBA BAC", "AB ABCA", 8),
    (Shuffle((Seq((A, B)), Seq((A, C)))), "AABC ABAC ACAB", "AAB ABCA", 8),
]


@pytest.mark.parametrize("term, accepted, refused, states", CASES)
def test_terms(term: Term, accepted: str, refused: str, states: int) -> None:
    """Sequence, choice, repetition and interleaving mean what they say, in the fewest states."""
    automaton = compiled(term)
    assert all(automaton.accepts(word(text)) for text in accepted.split())
    assert not any(automaton.accepts(word(text)) for text in refused.split())
    assert len(automaton.arcs) == states


def test_says_what_may_come_next_and_how_far_it_is() -> None:
    """After A, B or C may come, and the end is one symbol away."""
    automaton = compiled(Seq((A, Rep(B), C)))
    state = automaton.arcs[automaton.start][A.id]
    assert [symbol.terminal for symbol in automaton.expected(state)] == ["B", "C"]
    assert [symbol.terminal for symbol in automaton.finish(state)] == ["C"]
    assert dict(automaton.distance(automaton.start)) == {0: 0, 1: 1, 2: 2}


def test_knows_which_symbols_no_word_can_do_without() -> None:
    """A is in every word, B in some, and of B and C one is in every word."""
    automaton = compiled(Seq((A, Alt((B, C)))))
    assert automaton.needs([A.id])
    assert not automaton.needs([B.id])
    assert automaton.needs([B.id, C.id])


def test_numbers_are_the_same_in_every_run() -> None:
    """States are numbered by breadth in order of symbols, however the term is nested."""
    one = compiled(Alt((Seq((A, B)), Seq((B, A)))))
    other = compiled(Shuffle((B, A)))
    assert (one.arcs, one.accepting) == (other.arcs, other.accepting)


EXPLOSIONS = [
    (
        Shuffle((Rep(A, 60, 60), Rep(B, 60, 60)), "x.lark:7: interleave in rule step_8"),
        "x.lark:7: interleave",
    ),
    (
        Seq((Shuffle((A, B), "x.lark:3: here"), Rep(Alt((A, B))), A, Rep(Alt((A, B)), 20, 20))),
        "x.lark:3: here",
    ),
    (Rep(A, 1, 1_000_000), "this grammar: "),
]


@pytest.mark.parametrize("term, message", EXPLOSIONS)
def test_refuses_an_explosion(term: Term, message: str) -> None:
    """Too many states are refused early, and the interleave to split is named."""
    with pytest.raises(GrammarError, match="needs more than 2,000 states; split it") as caught:
        compiled(term, 2000)
    assert str(caught.value).startswith(message)
