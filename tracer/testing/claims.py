"""Claims of a test about a documented step or a trace: true or false, with the reason.

An `assert` shows only that an expression is false. A claim keeps the reason. False claims are recorded: the
pytest plugin finds the one whose text is in the failed assertion, and adds the full explanation.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Callable
from datetime import timedelta

from tracer.errors import UsageError
from tracer.model import CallRecord, StepResult, StepStatus, Verdict
from tracer.reports import duration, plain

__all__ = ["CheckedStep", "Claim", "denied", "nanoseconds"]

WORDS = 200
"""Longest text of a claim: pytest cuts a value in an assertion at 240 characters."""

denied: deque[Claim] = deque(maxlen=64)
"""False claims of the current test, in the order of their evaluation."""
_UNITS = {"us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9, "m": 60e9, "min": 60e9, "h": 3600e9}
_SPAN = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(us|µs|ms|s|min|m|h)\s*")
_STATES = {
    "seen": "was seen",
    "inferred": "was not seen, only inferred",
    "failed": "failed",
    "missing": "is missing",
    "unobserved": "could not be observed",
    "skipped": "did not happen (optional)",
    "not_reached": "was not reached",
}


class Claim:
    """A statement that is true or false. Its repr is one line; `explain` gives all details."""

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
        """Returns the ladder diagram of the trace; None when there is nothing to draw."""

    def explain(self) -> str:
        """Return the reason, several lines: findings, expectation, steps, captures; '' without details."""
        return self._explain() if self._explain is not None else ""

    def __bool__(self) -> bool:
        if not self._holds and self not in denied:
            denied.append(self)
        return self._holds

    def __repr__(self) -> str:
        return f"<{self.words}>"


def nanoseconds(span: str | float | timedelta) -> int:
    """Return a span of time: '2s', '1.5 m', '300ms', a timedelta, or a number of seconds.

    UsageError for anything else.
    """
    if isinstance(span, timedelta):
        return round(span.total_seconds() * 1e9)
    if isinstance(span, str) and (match := _SPAN.fullmatch(span)):
        return round(float(match[1]) * _UNITS[match[2]])
    if isinstance(span, int | float) and math.isfinite(span):
        return round(span * 1e9)
    raise UsageError(f"no span of time: {span!r}; write '2s', '300ms' or '1.5m'")


class CheckedStep:
    """The result of one documented step, as a test sees it."""

    def __init__(
        self,
        result: StepResult,
        verdict: Verdict,
        story: Callable[[], str],
        diagram: Callable[[], str],
    ) -> None:
        self.result = result
        self._verdict, self._story, self._diagram = verdict, story, diagram

    def __repr__(self) -> str:
        return f"<step {self.name} of {plain(self._verdict.name or self._verdict.id, 60)}: {self.status}>"

    @property
    def name(self) -> str:
        """The step's name in the grammar, such as 8b."""
        return self.result.step

    @property
    def title(self) -> str:
        """The step's title in the grammar."""
        return self.result.title

    @property
    def status(self) -> StepStatus:
        """seen · inferred · failed · missing · unobserved · skipped · not_reached"""
        return self.result.status

    @property
    def state(self) -> str:
        """The status in words, with its reason if there is one."""
        words = _STATES.get(self.status, self.status)
        return f"{words}: {plain(self.result.reason, 80)}" if self.result.reason else words

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """The calls that are evidence of the step."""
        return self.result.calls

    @property
    def count(self) -> int:
        """The number of calls that are evidence of the step."""
        return len(self.result.calls)

    @property
    def started_ns(self) -> int | None:
        """Start of the step, in nanoseconds since the epoch; None when it was not seen."""
        return self.result.started_ns

    @property
    def duration_ns(self) -> int | None:
        """Time from first message to last answer; None when not seen, or when the evidence is ambiguous."""
        return self.result.duration_ns

    def within(self, span: str | float | timedelta) -> Claim:
        """Claim that the step took at most *span* (see `nanoseconds`). False when the duration is unknown."""
        most, took = nanoseconds(span), self.duration_ns
        if took is None:
            return self._claim(False, f"step {self.name} has no duration: it {self.state}")
        if self.status == "failed":
            return self._claim(False, f"step {self.name} failed after {duration(took)}")
        words = f"step {self.name} took {duration(took)}"
        return self._claim(took <= most, words + ("" if took <= most else f", more than {duration(most)}"))

    def on(self, plane: str) -> Claim:
        """Claim that the step was seen, with all of its calls on *plane*."""
        found = sorted({call.plane for call in self.calls})
        if not found:
            return self._claim(False, f"step {self.name} is on no plane: it {self.state}")
        words = f"step {self.name} is on {', '.join(plain(each, 40) for each in found)}"
        good = found == [plane]
        return self._claim(good, words + ("" if good else f", not on {plain(plane, 40)}"))

    def _claim(self, holds: bool, words: str) -> Claim:
        return Claim(holds, words, self._story, self._diagram)
