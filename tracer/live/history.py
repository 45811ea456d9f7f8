"""The verdicts of traces that are done, in bounded room: all are counted, the last ones kept."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace

from tracer.model import Verdict

__all__ = ["History"]

WHOLE = 200
"""Verdicts that keep all of their calls."""
SLIM = 2_000
"""Verdicts that keep the calls of their steps only, behind those."""


class History:
    """Receives the last word on each trace."""

    def __init__(self) -> None:
        self._whole: deque[Verdict] = deque()
        self._slim: deque[Verdict] = deque()
        self.verdicts: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        """Verdicts that are counted and not kept any more."""

    def add(self, verdict: Verdict) -> None:
        """Keep *verdict*, at the cost of the oldest."""
        self.verdicts[verdict.verdict] += 1
        self.outcomes[verdict.outcome] += 1
        self._whole.append(verdict)
        if len(self._whole) > WHOLE:
            self._slim.append(_slim(self._whole.popleft()))
        if len(self._slim) > SLIM:
            self.dropped[self._slim.popleft().verdict] += 1

    def kept(self) -> list[Verdict]:
        """Return the verdicts that are kept, the oldest first."""
        return [*self._slim, *self._whole]


def _slim(verdict: Verdict) -> Verdict:
    calls = tuple(call for call in verdict.calls if call.step)
    return replace(verdict, calls=calls)
