"""Steps that took longer than the grammar allows.

The clock of a step starts with the last call of another step before it, for from then on it was due, and
stops with the end of its own last call. A step whose evidence may be another trace's has no clock.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tracer.conformance.case import GOOD, Case, Ending, Witness
from tracer.conformance.sentences import expected_words
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import time_words
from tracer.grammar.grammar import Step
from tracer.model import Call, Deviation

__all__ = ["late_steps"]


def late_steps(
    case: Case,
    ending: Ending,
    coverage: StepCoverage,
    witnesses: Callable[[str], Sequence[Witness]],
) -> list[Deviation]:
    """Return a deviation of kind `late` for each step that missed its deadline, in documented order.

    *witnesses* gives the calls taken for a step.
    """
    steps = [step for step in case.grammar.steps if step.deadline_ns is not None]
    if not steps:
        return []
    own = {step.name: list(witnesses(step.name)) for step in case.grammar.steps}
    within = _with_deadlines(steps, lambda step: expected_words(case.grammar, step))
    found = [_late(case, ending, coverage, step, own) for step in steps]
    return [
        Deviation(
            "late",
            step,
            words,
            case.records.get(call.serial) if call else None,
            within(step),
        )
        for step, words, call in filter(None, found)
    ]


def _with_deadlines(
    steps: Sequence[Step], ways: Callable[[str], tuple[str, ...]]
) -> Callable[[str], tuple[str, ...]]:
    """Return *ways*, each with the time that the step has: what came late looks like what was expected."""
    known = {step.name: step for step in steps}

    def within(name: str) -> tuple[str, ...]:
        title = f": {known[name].title}"
        time = f", within {time_words(known[name].deadline_ns or 0)}"
        return tuple(f"{way.removesuffix(title)}{time}{title}" for way in ways(name))

    return within


_Late = tuple[str, str, Call | None]


def _late(
    case: Case, ending: Ending, coverage: StepCoverage, step: Step, own: Mapping[str, Sequence[Witness]]
) -> _Late | None:
    allowed_ns = step.deadline_ns or 0
    mine = own[step.name]
    if not mine:
        return _never_came(case, ending, coverage, step, own)
    if any(w.ambiguous for w in mine):
        return None
    calls = [w.call for w in mine]
    first = min(calls, key=lambda call: call.started_ns)
    last = max(calls, key=lambda call: call.ended_ns or call.started_ns)
    due_ns, after = _due(own, step.name, first.started_ns)
    # What still waits for an answer is as late as the capture is long.
    open_call = next((w.call for w in mine if w.call.ended_ns is None and w.record.result == "?"), None)
    waits = open_call is not None and ending.outcome not in GOOD and coverage.would_show(step.name)
    end_ns = coverage.captured_until_ns(step.name) if waits else last.ended_ns or last.started_ns
    if end_ns - due_ns <= allowed_ns:
        return None
    how = "had no answer" if waits else "ended"
    took = time_words(end_ns - due_ns)
    return (
        step.name,
        f"step {step.name} {how} {took} after {after}; its deadline is {time_words(allowed_ns)}",
        last,
    )


def _never_came(
    case: Case, ending: Ending, coverage: StepCoverage, step: Step, own: Mapping[str, Sequence[Witness]]
) -> _Late | None:
    """A step that is owed is late once its deadline is over; when the trace is stuck, that says it all."""
    owed = ending.outcome == "unfinished" and ending.stopped_at == step.name
    if not owed or not coverage.quiet_is_known(step.name, case.last_own_ns()):
        return None
    until_ns = coverage.captured_until_ns(step.name)
    due_ns, after = _due(own, step.name, until_ns)
    waited_ns, allowed_ns = until_ns - due_ns, step.deadline_ns or 0
    if waited_ns <= allowed_ns:
        return None
    waited = f"step {step.name} had not come {time_words(waited_ns)} after {after}"
    return step.name, f"{waited}; its deadline is {time_words(allowed_ns)}", None


def _due(own: Mapping[str, Sequence[Witness]], step: str, before_ns: int) -> tuple[int, str]:
    """Return since when *step* was due, and in words what that was: the last call before it, else itself."""
    due_ns, after = 0, ""
    for name, witnesses in own.items():
        for witness in witnesses if name != step else ():
            call = witness.call
            # The outer calls of a request are open all the time: then their beginning counts.
            over = call.ended_ns is not None and call.ended_ns <= before_ns
            time_ns = call.ended_ns if over and call.ended_ns is not None else call.started_ns
            if due_ns < time_ns <= before_ns:
                due_ns, after = time_ns, f"step {name}"
    return (due_ns, after) if after else (before_ns, "its beginning")
