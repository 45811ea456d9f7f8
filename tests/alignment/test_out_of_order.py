"""What is missing here and too many there is one finding."""

from __future__ import annotations

import pytest

from tracer.alignment.alignment import Candidate, align
from tracer.alignment.out_of_order import OutOfOrder, out_of_order
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
    ("BACDEF", [OutOfOrder("A", None)]),
    ("ABDCEF", [OutOfOrder("C", "B")]),
    ("BCDEFA", [OutOfOrder("A", None)]),
    ("FABCDE", [OutOfOrder("F", "E")]),
    # E and B: each where the other belongs.
    ("AECDBF", [OutOfOrder("E", "D", "B", ("B",))]),
    # DE moved in front of B, or BC behind E: two calls moved together are one finding.
    ("ADEBCF", [OutOfOrder("B", "A", None, ("C",))]),
    # Two that have nothing to do with each other.
    ("BACDFE", [OutOfOrder("A", None), OutOfOrder("E", "D")]),
]


@pytest.mark.parametrize("calls, findings", CASES)
def test_findings(calls: str, findings: list[OutOfOrder]) -> None:
    found = align(AUTOMATON, [(Candidate(STEPS.index(call)),) for call in calls])
    assert out_of_order(found.edits, lambda event: {calls[event]}) == findings
