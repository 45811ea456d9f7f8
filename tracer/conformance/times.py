"""How long a creation waited before each step: the time in which nothing documented happened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tracer.model import StepResult

__all__ = ["with_waits"]


def with_waits(steps: Sequence[StepResult], retried_from: str | None = None) -> list[StepResult]:
    """Return *steps*, in the order of the document, each with the wait before it.

    The wait runs from the latest sign of a step before it in the document: its end, or its beginning where
    it goes on meanwhile (1 to 3 wait for all of 4). It is None where a step before it could not be seen or
    has no certain time, and of *retried_from*: what lies before it is an attempt that failed.
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
