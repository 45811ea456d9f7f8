"""Calls out of order: a missing step and an extra call of that step are one finding, not two.

An alignment has no edit for an exchange of places: it reports a symbol missing in one place and a call extra
in another. Two such pairs are one finding

- when each step's call is where the other step is missing: they changed places;
- when the steps are missing side by side and their calls are side by side: they were moved together.
"""

# Joined here, after the alignment, because an edit "moved" would make the cost of a call depend on calls far
# from it, and rows (rows.py) could no longer be shared between traces.

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from tracer.alignment.edits import Edit, Extra, Missing, Sync

__all__ = ["OutOfOrder", "out_of_order"]


class OutOfOrder(NamedTuple):
    """A step whose call came where it does not belong."""

    step: str
    after: str | None
    """The step after which it belongs; None at the very beginning."""
    changed_with: str | None = None
    """The step with which it changed places."""
    with_it: tuple[str, ...] = ()
    """Other steps that are part of this finding."""

    @property
    def steps(self) -> frozenset[str]:
        """All steps of this finding."""
        return frozenset((self.step, *self.with_it))


class _Pair(NamedTuple):
    """A missing symbol and an extra call that can be the same call, as positions among the edits."""

    missing: int
    extra: int
    step: str


def out_of_order(edits: Sequence[Edit], steps_of: Callable[[int], Collection[str]]) -> list[OutOfOrder]:
    """Return the steps out of order, in order of the trace.

    *steps_of* returns the steps that the call at a position can witness.
    """
    found: list[OutOfOrder] = []
    # leaders[i] is the pair that began found[i].
    leaders: list[_Pair] = []
    for pair in _pairs(edits, steps_of):
        for number, leader in enumerate(leaders):
            changed = _adjacent(edits, pair.missing, leader.extra) and _adjacent(
                edits, leader.missing, pair.extra
            )
            together = _adjacent(edits, pair.missing, leader.missing) and _adjacent(
                edits, pair.extra, leader.extra
            )
            if changed or together:
                known = found[number]
                found[number] = known._replace(
                    with_it=(*known.with_it, pair.step),
                    changed_with=pair.step if changed else known.changed_with,
                )
                break
        else:
            leaders.append(pair)
            found.append(OutOfOrder(pair.step, _before(edits, pair)))
    return found


def _pairs(edits: Sequence[Edit], steps_of: Callable[[int], Collection[str]]) -> list[_Pair]:
    """Pair each extra call with the nearest missing symbol of a step that it can witness."""
    missing = [(at, edit.symbol.step) for at, edit in enumerate(edits) if isinstance(edit, Missing)]
    pairs = []
    for at, edit in enumerate(edits):
        if isinstance(edit, Extra):
            steps = steps_of(edit.event)
            fitting = [(abs(at - place), place, step) for place, step in missing if step in steps]
            if fitting:
                _, place, step = min(fitting, key=lambda choice: choice[:2])
                missing.remove((place, step))
                pairs.append(_Pair(place, at, step or ""))
    return pairs


def _adjacent(edits: Sequence[Edit], one: int, other: int) -> bool:
    """Return whether no call that fits lies between two edits."""
    low, high = sorted((one, other))
    return not any(isinstance(edit, Sync) for edit in edits[low:high])


def _before(edits: Sequence[Edit], pair: _Pair) -> str | None:
    """Return the step after which the missing step of *pair* belongs; None at the very beginning."""
    for edit in reversed(edits[: pair.missing]):
        if not isinstance(edit, Extra) and edit.symbol.step not in (None, pair.step):
            return edit.symbol.step
    return None
