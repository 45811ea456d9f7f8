"""Plain Lark reads every shipped grammar, and accepts every conforming trace whose lanes come one by one."""

from __future__ import annotations

import functools
from itertools import permutations
from pathlib import Path

import pytest
from lab.judging import judge, only
from lab.plain import rules, tokens
from lark.exceptions import LarkError

from tracer import engine
from tracer.alignment.alignment import walk
from tracer.capture.arguments import example_names
from tracer.engine import Settings
from tracer.grammar import Grammar, load
from tracer.grammar.automaton import Alt, Automaton, Rep, Seq, Shuffle, Term, compile_term
from tracer.grammar.files import shipped
from tracer.model import Verdict
from tracer.testing.cloud import Cloud
from tracer.testing.operations import Operation

PARSERS = ("lalr", "earley")
CAPTURES = Path(__file__).parent.parent.parent / "captures"


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("parser", PARSERS)
def test_it_builds_a_parser_with_every_step(name: str, parser: str) -> None:
    """Each documented step is a rule of the parser that plain Lark builds."""
    grammar = load(name)
    found = {rule.rpartition("__")[2] for rule in rules(grammar, parser)}
    assert {f"step_{step.name}" for step in grammar.steps} <= found


def one_by_one(term: Term) -> Term:
    """The term with its lanes one after the other, in either order: what plain Lark makes of interleave."""
    match term:
        case Seq(parts):
            return Seq(tuple(map(one_by_one, parts)))
        case Alt(parts):
            return Alt(tuple(map(one_by_one, parts)))
        case Rep(part, low, high):
            return Rep(one_by_one(part), low, high)
        case Shuffle(parts):
            return Alt(tuple(Seq(order) for order in permutations(map(one_by_one, parts))))
    return term


@functools.cache
def serial(name: str) -> Automaton:
    grammar = load(name)
    return compile_term(one_by_one(grammar.term), grammar.automaton.symbols)


def lines_of(grammar: Grammar, verdict: Verdict) -> list[str]:
    """The calls that the grammar knows, as it matches them, in time order."""
    return [call.matched for call in verdict.calls if grammar.candidates(call.matched)]


@functools.cache
def conforming(capture: str) -> list[Verdict]:
    found = engine.check([str(CAPTURES / capture)], Settings()).verdicts
    return [verdict for verdict in found if verdict.verdict == "conforms"]


def holds(grammar: Grammar, verdict: Verdict) -> bool:
    """Hold plain Lark to a conforming trace; return whether its lanes came one by one."""
    lines = lines_of(grammar, verdict)
    exact = [[c for c in grammar.candidates(line) if c.kind == "sync"] for line in lines]
    # Near misses of a healthy trace (asked again after a failure) are no part of the language.
    if not all(exact):
        return False
    assert walk(grammar.automaton, exact) is not None
    is_serial = walk(serial(grammar.name), exact) is not None
    for parser in PARSERS:
        if is_serial:
            assert tokens(grammar, parser, lines) == lines
        else:
            with pytest.raises(LarkError):
                tokens(grammar, parser, lines)
    return is_serial


@pytest.mark.parametrize("capture", example_names())
def test_conforming_traces_of_the_captures(capture: str) -> None:
    """Accepted where their lanes happen to come one by one; no others are, since it knows no interleaving."""
    for verdict in conforming(capture):
        if any(call.ambiguous for call in verdict.calls):
            continue  # some of these calls may be another trace's
        holds(load("cloudvm_create"), verdict)


def test_there_are_such_traces() -> None:
    """The captures hold conforming creations of both kinds, or the test above could not fail."""
    grammar = load("cloudvm_create")
    kinds = {holds(grammar, verdict) for capture in example_names() for verdict in conforming(capture)
             if not any(call.ambiguous for call in verdict.calls)}  # fmt: skip
    assert kinds == {True, False}


@pytest.mark.parametrize("name, stops", [("server_delete", False), ("server_stop", True)])
def test_traces_of_the_other_workflows(name: str, stops: bool, tmp_path: Path) -> None:
    """A delete and a stop as nova makes them."""
    cloud = Cloud()
    cloud.background(0, 130)
    Operation(cloud, cloud.fresh_id(), stops=stops).run()
    assert holds(load(name), only(judge(cloud, tmp_path, Settings(grammar=name))))
