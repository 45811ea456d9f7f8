"""Mistakes of ours, met while a run goes on: counted, said in the report and in the exit code, ending no run.

A crafted request must not end a watch, and a bug must not pass unseen. So each stage takes one message, call
or trace at a time, and what it cannot take is left out and counted here. Only the type and the place of an
exception are kept: its text may quote the traffic.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType

from tracer.errors import TracerError

__all__ = ["InternalErrors", "type_and_place"]

_HOUSE = Path(__file__).parents[1]


class InternalErrors:
    """Counts the exceptions of one run by type and place."""

    is_strict = False
    """Whether an exception is raised on: our own tests must fail where the product goes on."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """As in `ValueError in calls/bodies.py:83` -> how often."""

    def add(self, error: Exception) -> None:
        """Count *error*; raise it again when it is our caller's mistake, or the system's refusal."""
        if self.is_strict or isinstance(error, TracerError | OSError):
            raise error
        self.counts[type_and_place(error)] += 1

    def found(self) -> tuple[tuple[str, int], ...]:
        """Return (type and place, how often), the most frequent first."""
        return tuple(self.counts.most_common())


def type_and_place(error: BaseException) -> str:
    """Return what is told of a bug, as in `ValueError in calls/bodies.py:83`; its text may quote traffic."""
    return f"{type(error).__name__} in {_place(error.__traceback__)}"


def _place(traceback: TracebackType | None) -> str:
    """Return file and line of the innermost frame that is ours."""
    place = "?"
    while traceback is not None:
        path = Path(traceback.tb_frame.f_code.co_filename)
        if path.is_relative_to(_HOUSE):
            place = f"{path.relative_to(_HOUSE)}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
