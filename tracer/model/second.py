"""What two decoders say of the same captures: the values of `--cross-check`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tracer.model.verdicts import CallRecord

__all__ = ["CrossCheck", "Difference", "DifferenceKind"]

DifferenceKind = Literal["only tracer", "only tshark", "line", "time", "frames"]


@dataclass(frozen=True, slots=True)
class Difference:
    """Calls that differ in the same way."""

    kind: DifferenceKind
    what: str
    """What of them differs, without what is particular to each."""
    count: int
    examples: tuple[tuple[CallRecord | None, CallRecord | None], ...]
    """The first of them, as tracer and as tshark saw it; None for the one that did not."""


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """The calls of tracer's decoders compared with those of tshark."""

    version: str
    """Of tshark."""
    ours: int
    """Calls that tracer's decoders found."""
    theirs: int
    same: int
    different: int
    """Calls that differ, or that one of them alone saw."""
    differences: tuple[Difference, ...]
    """The most frequent first."""
    left_out: int = 0
    """Ways to differ that are not listed, for lack of room."""
