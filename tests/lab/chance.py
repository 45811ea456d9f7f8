"""Random words of a term, and what goes wrong with them: the traces that alignments are held against."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from tracer.alignment.alignment import Candidate, Event
from tracer.grammar import load
from tracer.grammar.automaton import Alt, Automaton, Rep, Seq, Shuffle, Sym, Term
from tracer.grammar.grammar import Grammar

NOWHERE = ""
"""The label of a call that fits nothing: on the wrong plane where near misses count for nothing."""
Labels = tuple[str, ...]


def load_with_term(name: str | Path) -> tuple[Grammar, Term]:
    """A grammar, and the term that its automaton is compiled from."""
    loaded = load(name)
    return loaded, loaded.term


def word(term: Term, chance: Random, again: float = 0.5) -> list[int]:
    """A word of *term*, in symbol ids; repetitions go on with the probability *again*."""
    match term:
        case Sym(symbol):
            return [symbol]
        case Seq(parts):
            return [symbol for part in parts for symbol in word(part, chance, again)]
        case Alt(parts):
            return word(chance.choice(parts), chance, again)
        case Rep(part, low, high):
            count = low
            while (high is None or count < high) and chance.random() < again:
                count += 1
            return [symbol for _ in range(count) for symbol in word(part, chance, again)]
        case Shuffle(parts):
            lanes = [lane for part in parts if (lane := word(part, chance, again))]
            mixed = []
            while lanes:
                lane = chance.choice(lanes)
                mixed.append(lane.pop(0))
                lanes = [lane for lane in lanes if lane]
            return mixed
    raise AssertionError(term)


MUTATIONS = ("drop", "swap", "insert", "wrong plane", "cut")


def mutated(labels: Labels, how: str, chance: Random, alphabet: Labels) -> Labels:
    """*labels* with one thing gone wrong."""
    calls, place = list(labels), chance.randrange(len(labels))
    if how == "drop":
        del calls[place]
    elif how == "swap":
        other = chance.randrange(len(calls))
        calls[place], calls[other] = calls[other], calls[place]
    elif how == "insert":
        calls.insert(place, chance.choice(alphabet))
    elif how == "wrong plane":
        calls[place] = NOWHERE
    elif how == "cut":
        del calls[max(1, place) :]
    else:
        raise AssertionError(how)
    return tuple(calls)


def distinct_traces(
    term: Term,
    automaton: Automaton,
    seed: int,
    kinds: Sequence[str] = MUTATIONS,
    most: int = 5,
    again: float = 0.5,
) -> Iterator[Labels]:
    """Distinct traces without end, each with one to *most* mutations of these *kinds*."""
    chance, seen = Random(seed), set[Labels]()
    alphabet = tuple(sorted({symbol.terminal for symbol in automaton.symbols}))
    while True:
        labels = tuple(automaton.symbols[symbol].terminal for symbol in word(term, chance, again))
        for _ in range(chance.randint(1, most) if most else 0):
            if labels:
                labels = mutated(labels, chance.choice(kinds), chance, alphabet)
        if labels and labels not in seen:
            seen.add(labels)
            yield labels


def events_of(automaton: Automaton) -> dict[str, Event]:
    """For each label the ways to take it: as any symbol of the terminal, for nothing."""
    found: dict[str, Event] = {NOWHERE: ()}
    for symbol in automaton.symbols:
        found[symbol.terminal] = (*found.get(symbol.terminal, ()), Candidate(symbol.id))
    return found
