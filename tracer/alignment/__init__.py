"""The cheapest explanation of a trace's calls by a grammar's automaton.

alignment.py walks the automaton, which suffices for traces that conform; rows.py aligns those that deviate;
out_of_order.py joins findings that are one exchange of places.
"""

from tracer.alignment.alignment import align, walk
from tracer.alignment.edits import EXTRA, MISSING, UNOBSERVED, Alignment, Edit, Extra, Missing, Sync

__all__ = [
    "EXTRA",
    "MISSING",
    "UNOBSERVED",
    "Alignment",
    "Edit",
    "Extra",
    "Missing",
    "Sync",
    "align",
    "walk",
]
