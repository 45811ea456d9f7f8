"""The times in which a capture point may have lost packets: of whichever connection, or all."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

__all__ = ["Losses", "Silences"]

QUIET_NS = 500_000_000
"""A capture without a call for longer than this is silent."""
MAX_TIMES = 10_000
"""So many times apart from each other are kept of a capture; with more, the last one grows."""


class Losses:
    """Intervals of time for each capture, joined where they meet."""

    # A packet that is lost is known by the next one of its connection, so it is known of an interval only.
    # They come nearly in order of their ends, so joining them is mostly a look at the last one.

    def __init__(self) -> None:
        self._of: dict[int, tuple[list[int], list[int]]] = {}
        """Capture -> the begins and the ends of its intervals, both in order."""

    def add(self, captures: Iterable[int], since_ns: int, until_ns: int) -> None:
        """Record that each of *captures* may have lost packets in that time."""
        for capture in captures:
            begins, ends = self._of.setdefault(capture, ([], []))
            # Those from `first` to before `last` meet the new one.
            first, last = bisect_left(ends, since_ns), bisect_right(begins, until_ns)
            if first == last == len(ends) >= MAX_TIMES:
                first -= 1
            met = range(first, last)
            begins[first:last] = [min(since_ns, begins[first]) if met else since_ns]
            ends[first:last] = [max(until_ns, ends[last - 1]) if met else until_ns]

    def captures_in(self, since_ns: int, until_ns: int) -> list[int]:
        """Return the captures that may have lost a packet in that time."""
        return [
            capture
            for capture, (begins, ends) in self._of.items()
            if bisect_left(ends, since_ns) < bisect_right(begins, until_ns)
        ]

    def forget(self, before_ns: int) -> None:
        """Drop the times that ended before *before_ns*."""
        for begins, ends in self._of.values():
            old = bisect_left(ends, before_ns)
            del begins[:old], ends[:old]


class Silences:
    """The times in which no call began in a capture, as far as they are long."""

    def __init__(self) -> None:
        self._latest_ns: dict[int, int] = {}
        self._of: dict[int, list[tuple[int, int]]] = {}

    def heard(self, capture: int, time_ns: int) -> None:
        """Record that a call began in *capture*. Calls come nearly in order of time."""
        latest_ns = self._latest_ns.get(capture)
        if latest_ns is not None and time_ns - latest_ns > QUIET_NS:
            self._of.setdefault(capture, []).append((latest_ns, time_ns))
            del self._of[capture][:-MAX_TIMES]
        if latest_ns is None or time_ns > latest_ns:
            self._latest_ns[capture] = time_ns

    def covers(self, capture: int, since_ns: int, until_ns: int) -> bool:
        """Return whether *capture* was silent in nearly all of that time."""
        least_ns = max(QUIET_NS, (until_ns - since_ns) * 4 // 5)
        return any(
            min(until_ns, end_ns) - max(since_ns, begin_ns) >= least_ns
            for begin_ns, end_ns in self._of.get(capture, ())
        )

    def forget(self, before_ns: int) -> None:
        """Drop the times that ended before *before_ns*."""
        for capture, times in self._of.items():
            self._of[capture] = [each for each in times if each[1] >= before_ns]
