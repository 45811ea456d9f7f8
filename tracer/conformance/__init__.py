"""Judges a trace by its grammar: how it ended, the status of each step, what deviates, and the messages.

`Checker` turns a trace into a verdict; `Coverage` answers what the captures could have shown.
"""

from tracer.conformance.call_words import owes
from tracer.conformance.checker import Checker
from tracer.conformance.coverage import Coverage

__all__ = ["Checker", "Coverage", "owes"]
