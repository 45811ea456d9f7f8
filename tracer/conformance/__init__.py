"""Does a trace follow the documented steps? Grammar -> automaton -> alignment -> verdict.

grammar.py reads a Lark file, automaton.py compiles it, alignment.py explains a trace by it (walk.py when
it conforms, rows.py when it deviates), checker.py turns the explanation into a verdict. online.py does the
explaining while the calls still arrive.
"""

from tracer.conformance.alignment import (
    EXTRA,
    MISSING,
    NEAR,
    UNOBSERVED,
    Alignment,
    Candidate,
    Event,
    Extra,
    Missing,
    Move,
    Sync,
    align,
    walk,
)
from tracer.conformance.automaton import Automaton, Symbol
from tracer.conformance.grammar import Grammar, Step
from tracer.conformance.legs import Leg
from tracer.conformance.loading import load
from tracer.conformance.online import Online, Owed, Standing
from tracer.conformance.shelf import shipped
from tracer.conformance.words import owes

__all__ = [
    "EXTRA",
    "MISSING",
    "NEAR",
    "UNOBSERVED",
    "Alignment",
    "Automaton",
    "Candidate",
    "Event",
    "Extra",
    "Grammar",
    "Leg",
    "Missing",
    "Move",
    "Online",
    "Owed",
    "Standing",
    "Step",
    "Symbol",
    "Sync",
    "align",
    "load",
    "owes",
    "shipped",
    "walk",
]
