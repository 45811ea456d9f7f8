"""Calls out of order: a missing step and an extra call of that step are one finding, not two.

An alignment knows no exchange of places, only what is missing here and too many there. Two findings are one

- when each of the two came where the other was missing: they changed places;
- when they are missing side by side and came side by side: they were moved together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from tracer.alignment.edits import Edit, Extra, Missing, Sync

__all__ = ["OutOfOrder", "out_of_order"]


class OutOfOrder(NamedTuple):
    """A step whose call came where it does not belong."""

    step: str
    after: str | None
    """The step behind which it belongs; None at the very beginning."""
    changed_with: str | None = None
    """The step that came in its place."""
    with_it: tuple[str, ...] = ()
    """Steps of the findings that are one with this."""

    @property
    def steps(self) -> frozenset[str]:
        """All that this finding is about."""
        return frozenset((self.step, *self.with_it))


class _Pair(NamedTuple):
    missing: int
    """Where among the edits it belongs."""
    extra: int
    """Where among the edits it came."""
    step: str


def out_of_order(edits: Sequence[Edit], steps_of: Callable[[int], Collection[str]]) -> list[OutOfOrder]:
    """Return the steps out of order, in order of the trace; *steps_of* tells what a call can witness."""
    found: list[OutOfOrder] = []
    leaders: list[_Pair] = []
    for pair in _pairs(edits, steps_of):
        for number, leader in enumerate(leaders):
            changed = _near(edits, pair.missing, leader.extra) and _near(edits, leader.missing, pair.extra)
            together = _near(edits, pair.missing, leader.missing) and _near(edits, pair.extra, leader.extra)
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
            own = [(abs(at - place), place, step) for place, step in missing if step in steps]
            if own:
                _, place, step = min(own, key=lambda way: way[:2])
                missing.remove((place, step))
                pairs.append(_Pair(place, at, step or ""))
    return pairs


def _near(edits: Sequence[Edit], one: int, other: int) -> bool:
    """Tell whether no call that fits is between two edits."""
    low, high = sorted((one, other))
    return not any(isinstance(edit, Sync) for edit in edits[low:high])


def _before(edits: Sequence[Edit], pair: _Pair) -> str | None:
    """Return the step behind which a missing one belongs."""
    for edit in reversed(edits[: pair.missing]):
        if not isinstance(edit, Extra) and edit.symbol.step not in (None, pair.step):
            return edit.symbol.step
    return None
