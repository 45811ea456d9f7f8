"""The cheapest explanation of a trace's calls by a grammar's automaton.

walk.py explains what conforms, rows.py what deviates.
"""

from tracer.alignment.alignment import align, walk
from tracer.alignment.moves import EXTRA, MISSING, UNOBSERVED, Alignment, Extra, Missing, Move, Sync

__all__ = [
    "EXTRA",
    "MISSING",
    "UNOBSERVED",
    "Alignment",
    "Extra",
    "Missing",
    "Move",
    "Sync",
    "align",
    "walk",
]
