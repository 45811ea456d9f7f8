"""The differences between two runs: the values of `tracer compare`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["LEAST", "Change", "ChangeKind", "Comparison", "StepPair"]

ChangeKind = Literal["deviation", "outcome", "step", "order", "time", "call"]

LEAST = 8
"""Fewer times than this on one side are not compared by a statistical test."""


@dataclass(frozen=True, slots=True)
class Change:
    """One difference, in words."""

    kind: ChangeKind
    step: str | None
    words: str
    breaks: bool = False
    """It breaks conformance."""
    p: float | None = None
    """Probability of so large a difference by chance; None if nothing was tested."""


@dataclass(frozen=True, slots=True)
class StepPair:
    """One step in both runs."""

    step: str
    title: str
    came: tuple[int, int]
    """Number of creations in which the step was seen, in each run."""
    observable: tuple[int, int]
    """Number of creations in which it could have been seen."""
    medians_ms: tuple[float | None, float | None]
    p: float | None
    """Probability of the difference of times by chance; None if there are too few times."""


@dataclass(slots=True)
class Comparison:
    """All differences between two runs; those that break conformance come first."""

    names: tuple[str, str]
    counts: tuple[int, int]
    changes: list[Change] = field(default_factory=list)
    steps: list[StepPair] = field(default_factory=list)

    @property
    def breaks(self) -> bool:
        """Whether any difference breaks conformance."""
        return any(change.breaks for change in self.changes)
