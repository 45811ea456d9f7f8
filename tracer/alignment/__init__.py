"""The cheapest explanation of a trace's calls by a grammar's automaton, whole or while calls arrive.

walk.py explains what conforms, rows.py what deviates; online.py keeps many open traces explained.
"""

from tracer.alignment.alignment import align, walk
from tracer.alignment.edits import EXTRA, MISSING, UNOBSERVED, Alignment, Edit, Extra, Missing, Sync
from tracer.alignment.online import Online, Owed, Standing

__all__ = [
    "EXTRA",
    "MISSING",
    "UNOBSERVED",
    "Alignment",
    "Edit",
    "Extra",
    "Missing",
    "Online",
    "Owed",
    "Standing",
    "Sync",
    "align",
    "walk",
]
