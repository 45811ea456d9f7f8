"""Calls out of order: a missing step and an extra call of that step are one finding, not two.

An alignment knows no moves, only what is missing here and too many there. Two findings are one again

- when each of the two came where the other was missing: they changed places;
- when they are missing side by side and came side by side: they were moved together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from tracer.alignment.moves import Extra, Missing, Move, Sync

__all__ = ["Displaced", "displaced"]


class Displaced(NamedTuple):
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
    """Where among the moves it belongs."""
    extra: int
    """Where among the moves it came."""
    step: str


def displaced(moves: Sequence[Move], steps_of: Callable[[int], Collection[str]]) -> list[Displaced]:
    """Return the steps out of order, in order of the trace; *steps_of* tells what a call can witness."""
    found: list[Displaced] = []
    leaders: list[_Pair] = []
    for pair in _pairs(moves, steps_of):
        for number, leader in enumerate(leaders):
            changed = _near(moves, pair.missing, leader.extra) and _near(moves, leader.missing, pair.extra)
            together = _near(moves, pair.missing, leader.missing) and _near(moves, pair.extra, leader.extra)
            if changed or together:
                known = found[number]
                found[number] = known._replace(
                    with_it=(*known.with_it, pair.step),
                    changed_with=pair.step if changed else known.changed_with,
                )
                break
        else:
            leaders.append(pair)
            found.append(Displaced(pair.step, _before(moves, pair)))
    return found


def _pairs(moves: Sequence[Move], steps_of: Callable[[int], Collection[str]]) -> list[_Pair]:
    """Pair each extra call with the nearest missing symbol of a step that it can witness."""
    missing = [(at, move.symbol.step) for at, move in enumerate(moves) if isinstance(move, Missing)]
    pairs = []
    for at, move in enumerate(moves):
        if isinstance(move, Extra):
            steps = steps_of(move.event)
            own = [(abs(at - place), place, step) for place, step in missing if step in steps]
            if own:
                _, place, step = min(own, key=lambda way: way[:2])
                missing.remove((place, step))
                pairs.append(_Pair(place, at, step or ""))
    return pairs


def _near(moves: Sequence[Move], one: int, other: int) -> bool:
    """Tell whether no call that fits is between two moves."""
    low, high = sorted((one, other))
    return not any(isinstance(move, Sync) for move in moves[low:high])


def _before(moves: Sequence[Move], pair: _Pair) -> str | None:
    """Return the step behind which a missing one belongs."""
    for move in reversed(moves[: pair.missing]):
        if not isinstance(move, Extra) and move.symbol.step not in (None, pair.step):
            return move.symbol.step
    return None
