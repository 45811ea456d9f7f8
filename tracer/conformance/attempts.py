"""The hosts that were asked to build the VM, and how far each of them came."""

from __future__ import annotations

from tracer.conformance.case import ATTEMPT_STEPS, Case
from tracer.conformance.outcome import GOOD, Ending, failing_of_attempt
from tracer.conformance.times import times_of
from tracer.model import Attempt, StepResult, StepStatus

__all__ = ["attempt_details"]


def attempt_details(case: Case, ending: Ending) -> tuple[Attempt, ...]:
    """Return the attempts in order of time, with the steps of each where there were several."""
    details = []
    attempts = case.attempts
    for i, tried in enumerate(attempts):
        last = i == len(attempts) - 1
        until_ns = None if last else attempts[i + 1].since_ns
        broken = failing_of_attempt(case, i)
        stopped, error = (min(broken.failed), broken.call.error) if broken is not None else (None, "")
        if last:
            stopped = ending.stopped_at if ending.outcome not in GOOD else None
            error = (error or ending.error) if ending.outcome == "error" else ""
        end_ns = until_ns or ending.time_ns or case.last_own_ns()
        steps = _steps(case, tried.since_ns, until_ns, stopped) if len(attempts) > 1 else ()
        duration_ns = end_ns - tried.since_ns if end_ns >= tried.since_ns else None
        details.append(Attempt(tried.host, stopped, error, tried.since_ns, duration_ns, steps))
    return tuple(details)


def _steps(case: Case, since_ns: int, until_ns: int | None, stopped: str | None) -> tuple[StepResult, ...]:
    """Return what became of the steps of one attempt; *until_ns* is None of the last one."""
    results = []
    for step in case.grammar.steps:
        if step.name not in ATTEMPT_STEPS:
            continue
        mine = [
            w
            for w in case.witnesses
            if step.name in w.all_steps
            and since_ns <= w.call.started_ns
            and (until_ns is None or w.call.started_ns < until_ns)
        ]
        status: StepStatus
        if step.name == stopped:
            status = "failed"
        else:
            status = "seen" if any(step.name in w.steps for w in mine) else "not_reached"
            if not mine and step.presence == "optional":
                status = "skipped"
        started_ns, duration_ns = times_of(mine)
        calls = tuple(w.record for w in mine)
        results.append(StepResult(step.name, step.title, status, started_ns, duration_ns, calls))
    return tuple(results)
