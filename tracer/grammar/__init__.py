"""A workflow's grammar: a Lark file becomes steps, terminals over canonical lines and one minimal automaton.

`load` reads a grammar by name or file; `shipped` names those that come with tracer.
"""

from tracer.grammar.alphabet import NEAR, Candidate, Event
from tracer.grammar.automaton import Automaton, Symbol
from tracer.grammar.files import shipped
from tracer.grammar.grammar import Grammar, Step
from tracer.grammar.loading import load
from tracer.grammar.patterns import Leg

__all__ = ["NEAR", "Automaton", "Candidate", "Event", "Grammar", "Leg", "Step", "Symbol", "load", "shipped"]
