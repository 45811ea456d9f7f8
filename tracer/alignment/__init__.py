"""The cheapest explanation of a trace's calls by a grammar's automaton.

walk.py explains what conforms, rows.py what deviates.
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
