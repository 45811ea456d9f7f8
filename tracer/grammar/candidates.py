"""The ways to take a call as a symbol of a grammar, and what a near miss costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["NEAR", "Candidate", "Event"]

NEAR = {"failed": 20, "plane": 20, "mode": 20}
"""Cost of a near miss: less than EXTRA, and so less than missing + extra, even of an unobserved step."""


class Candidate(NamedTuple):
    """One way to take a call: as *symbol*, at a *cost*."""

    symbol: int
    """Its id."""
    cost: int = 0
    kind: str = "sync"
    """sync · failed · plane · mode"""


Event = Sequence[Candidate]
"""A call: all the ways to take it. Without any it can only be extra; leave such calls out instead
where they are outside of the grammar's alphabet."""
