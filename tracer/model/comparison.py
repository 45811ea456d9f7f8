"""What is different between two runs: the nouns of `tracer compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["LEAST", "Change", "ChangeKind", "Comparison", "StepPair"]

ChangeKind = Literal["deviation", "outcome", "step", "order", "time", "call"]

LEAST = 8
"""Fewer times than this on one side are not tested."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, in words."""

    kind: ChangeKind
    step: str | None
    words: str
    breaks: bool = False
    """It breaks conformance."""
    p: float | None = None
    """How likely so great a difference is by chance; None where nothing was tested."""


@dataclass(frozen=True, slots=True)
class StepPair:
    """One step in both runs."""

    step: str
    title: str
    came: tuple[int, int]
    """In how many creations it came."""
    observable: tuple[int, int]
    """Of how many that can tell."""
    medians_ms: tuple[float | None, float | None]
    p: float | None
    """Of the times; None where there are too few."""


@dataclass(slots=True)
class Comparison:
    """All differences between two runs, what breaks conformance first."""

    names: tuple[str, str]
    counts: tuple[int, int]
    changes: list[Change] = field(default_factory=list)
    steps: list[StepPair] = field(default_factory=list)

    @property
    def breaks(self) -> bool:
        return any(change.breaks for change in self.changes)
