"""The wait before each step: what counts as a sign of life before it, and where it is not known."""

from __future__ import annotations

import pytest

from tracer.conformance.times import with_waits
from tracer.model import StepResult

Row = tuple[str, str, int | None, int | None]


def waits(*rows: Row, retried: str | None = None) -> dict[str, int | None]:
    """step, status, begin, duration -> step: wait."""
    steps = [StepResult(name, "", status, begin, took) for name, status, begin, took in rows]
    return {step.step: step.waited_ns for step in with_waits(steps, retried)}


@pytest.mark.parametrize(
    "rows, wait",
    [
        ([("1", "seen", 0, 10), ("2", "seen", 15, 5)], 5),
        ([("1", "seen", 0, 100), ("2", "seen", 15, 5)], 15),
        ([("1", "seen", 0, 100), ("1a", "seen", 10, 20), ("2", "seen", 50, 5)], 20),
        ([("1", "seen", 0, None), ("2", "seen", 50, 5)], 50),
        ([("1", "seen", 60, 10), ("2", "seen", 50, 5)], None),
        ([("1", "skipped", None, None), ("2", "seen", 50, 5)], None),
        ([("1", "seen", 0, 10), ("1a", "skipped", None, None), ("2", "seen", 50, 5)], 40),
        ([("1", "seen", 0, 10), ("1a", "unobserved", None, None), ("2", "seen", 50, 5)], None),
        ([("1", "seen", 0, 10), ("1a", "seen", None, None), ("2", "seen", 50, 5)], None),
        ([("1", "seen", 0, 10), ("2", "not_reached", None, None)], None),
    ],
)
def test_the_wait_before_a_step(rows: list[Row], wait: int | None) -> None:
    """From the end of the latest step before it, or its beginning while it goes on; None where not known."""
    assert waits(*rows)["2"] == wait


def test_an_attempt_that_failed_is_no_wait() -> None:
    """Of the step that was tried again nothing is known; of those behind it all is."""
    rows: list[Row] = [("6", "seen", 0, 1), ("7", "seen", 50, 1), ("8b", "seen", 60, 1)]
    assert waits(*rows, retried="7") == {"6": None, "7": None, "8b": 9}
