"""What a trace means by its grammar: how it ended, what became of each step, what deviates, in which words.

`Checker` turns a trace into a verdict; `Coverage` knows what the captures could have shown.
"""

from tracer.conformance.checker import Checker
from tracer.conformance.coverage import Coverage
from tracer.conformance.sentences import owes

__all__ = ["Checker", "Coverage", "owes"]
