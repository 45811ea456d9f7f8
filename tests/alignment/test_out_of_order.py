"""What is missing here and too many there is one finding."""

from __future__ import annotations

import pytest

from tracer.alignment.alignment import Candidate, align
from tracer.alignment.out_of_order import Displaced, displaced
from tracer.grammar.automaton import Seq, Sym, Symbol, compile_term

STEPS = "ABCDEF"
AUTOMATON = compile_term(
    Seq(tuple(Sym(i) for i in range(len(STEPS)))),
    tuple(Symbol(i, name, name) for i, name in enumerate(STEPS)),
)

CASES = [
    # calls, findings
    ("ABCDEF", []),
    ("ABCDF", []),  # missing, and nowhere else
    ("ABCCDEF", []),  # once more, and missing nowhere
    ("BACDEF", [Displaced("A", None)]),
    ("ABDCEF", [Displaced("C", "B")]),
    ("BCDEFA", [Displaced("A", None)]),
    ("FABCDE", [Displaced("F", "E")]),
    # E and B: each where the other belongs.
    ("AECDBF", [Displaced("E", "D", "B", ("B",))]),
    # DE moved in front of B, or BC behind E: two calls moved together are one finding.
    ("ADEBCF", [Displaced("B", "A", None, ("C",))]),
    # Two that have nothing to do with each other.
    ("BACDFE", [Displaced("A", None), Displaced("E", "D")]),
]


@pytest.mark.parametrize("calls, findings", CASES)
def test_findings(calls: str, findings: list[Displaced]) -> None:
    found = align(AUTOMATON, [(Candidate(STEPS.index(call)),) for call in calls])
    assert displaced(found.edits, lambda event: {calls[event]}) == findings
