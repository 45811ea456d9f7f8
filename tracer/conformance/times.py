"""The duration of each step, and the wait before it, in which no documented call was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tracer.conformance.case import Witness
from tracer.model import StepResult

__all__ = ["time_words", "times_of", "with_waits"]


def time_words(nanoseconds: int) -> str:
    """Return a duration in words, as in 250 ms, 15.2 s, 30 s, 2.5 min."""
    seconds = nanoseconds / 1e9
    # Below 0.95, so that no duration reads "1000 ms" where its neighbour reads "1.0 s".
    if seconds < 0.95:
        return f"{seconds * 1000:.0f} ms"
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:g} s" if seconds == int(seconds) else f"{seconds:.1f} s"


def times_of(witnesses: Sequence[Witness]) -> tuple[int | None, int | None]:
    """Return start and duration of a step in ns; (None, None) when any of its evidence is ambiguous."""
    # A time that may be another creation's must not be printed as a fact.
    if not witnesses or any(w.ambiguous for w in witnesses):
        return None, None
    begin_ns = min(w.call.started_ns for w in witnesses)
    ends = [w.call.ended_ns for w in witnesses if w.call.ended_ns is not None]
    return begin_ns, max(0, max(ends) - begin_ns) if ends else None


def with_waits(steps: Sequence[StepResult], retried_from: str | None = None) -> list[StepResult]:
    """Return *steps*, in documented order, each with the wait before it.

    The wait begins with the latest end of a step before it in the document, or with its start where that step
    is still open (the requests of the first steps wait for all that follows). The wait is None where a step
    before it could not be seen or has no certain time, and for *retried_from*: before it lies an attempt that
    failed.
    """
    found: list[StepResult] = []
    unknown = False
    ends: list[tuple[int, int]] = []
    for step in steps:
        begun_ns = step.started_ns
        if step.status not in ("seen", "failed") or begun_ns is None:
            unknown = unknown or step.status in ("seen", "failed", "unobserved", "missing")
            found.append(step)
            continue
        signs = [end if end <= begun_ns else start for start, end in ends if start <= begun_ns]
        known = bool(signs) and not unknown and step.step != retried_from
        found.append(replace(step, waited_ns=begun_ns - max(signs)) if known else step)
        unknown = False
        ends.append((begun_ns, begun_ns + (step.duration_ns or 0)))
    return found
