"""PM4Py's exact alignments cost what ours cost.

It works on a Petri net of the grammar, ours on one automaton: the two have nothing in common but the
term. PM4Py is AGPL and is not needed by tracer: `pip install -e '.[oracle]'`.

Asked is its Dijkstra without heuristics. Its A* says the same at a third of the speed. Its fastest
variant, "less memory", is not asked: of 1,750 traces like these it put one a move too high, against both
of the others and against our own edits, played back (2.7.23.11).
"""

from __future__ import annotations

import importlib.util
from itertools import islice
from types import ModuleType

import pytest
from lab.chance import MUTATIONS, Labels, distinct_traces, events_of, load_with_term

from tracer.alignment.alignment import EXTRA, MISSING, align

EACH = 320
SEVERAL = 440
pytestmark = pytest.mark.long
AGAIN = 0.4
"""How often repetitions go on: the longer a trace, the longer PM4Py takes."""


def net_library() -> ModuleType:
    """lab.petri; skip where PM4Py is not installed."""
    if importlib.util.find_spec("pm4py") is None:
        pytest.skip("pm4py is not installed: pip install -e '.[oracle]'")
    return importlib.import_module("lab.petri")


def test_costs_are_those_of_pm4py() -> None:
    """0 differences on 2,040 distinct traces of the shipped grammar that something happened to."""
    petri = net_library()
    grammar, term = load_with_term("cloudvm_create")
    automaton = grammar.automaton
    traces: dict[Labels, None] = {}
    for seed, kind in enumerate(MUTATIONS):
        made = (
            t for t in distinct_traces(term, automaton, seed, (kind,), most=1, again=AGAIN) if t not in traces
        )
        traces.update(dict.fromkeys(islice(made, EACH)))
    found = distinct_traces(term, automaton, 99, again=AGAIN)
    made = (trace for trace in found if trace not in traces)
    traces.update(dict.fromkeys(islice(made, SEVERAL)))
    assert len(traces) == EACH * len(MUTATIONS) + SEVERAL >= 2000
    assert sum("RESCHEDULE" in trace for trace in traces) > 500
    net, events = petri.Net(term, automaton.symbols), events_of(automaton)
    assert EXTRA == MISSING, "unit costs"
    ours = {labels: align(automaton, [events[label] for label in labels]).cost for labels in traces}
    exact = petri.EXACT["Dijkstra, no heuristics"]
    differ = [
        f"{' '.join(labels)}: {cost / MISSING}, PM4Py {theirs}"
        for labels, cost in ours.items()
        if cost != MISSING * (theirs := net.cost(labels, exact))
    ]
    assert not differ, differ
    # Most of them deviate, and not all by the same.
    assert sum(cost > 0 for cost in ours.values()) > 1500
    assert len(set(ours.values())) > 5
