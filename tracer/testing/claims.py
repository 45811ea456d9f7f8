"""What a test claims of traffic: true or false, with the reason that a failing assertion shows.

An `assert` sees only that something is false. A claim remembers why, and that it was asked: the pytest plugin
looks here for the claim whose words stand in the failed assertion, and adds the whole story.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

__all__ = ["Claim", "denied"]

WORDS = 200
"""pytest cuts what an assertion shows of a value at 240 characters."""

denied: deque[Claim] = deque(maxlen=64)
"""Claims that turned out false, the last one last. Emptied before each test."""


class Claim:
    """Something that holds or not. Its repr is one line; `explain` is all that is known about it."""

    __slots__ = ("_explain", "_holds", "ladder", "words")

    def __init__(
        self,
        holds: bool,
        words: str,
        explain: Callable[[], str] | None = None,
        ladder: Callable[[], str] | None = None,
    ) -> None:
        self._holds = holds
        self.words = words if len(words) <= WORDS else f"{words[: WORDS - 1]}…"
        self._explain = explain
        self.ladder = ladder
        """Draws the trace that the claim is about; None when there is nothing to draw."""

    def explain(self) -> str:
        """Return the reason in lines: what was found, what was expected, the steps, the captures."""
        return self._explain() if self._explain is not None else ""

    def __bool__(self) -> bool:
        if not self._holds and self not in denied:
            denied.append(self)
        return self._holds

    def __repr__(self) -> str:
        return f"<{self.words}>"
