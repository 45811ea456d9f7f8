"""The status of each documented step: seen, failed, missing, or unobserved with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from tracer.conformance.case import GOOD, Case, Ending, Said
from tracer.conformance.explanation import Explanation
from tracer.conformance.stalls import stalled_in
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import times_of, with_waits
from tracer.conformance.told import begun_ns, begun_step, shown_in
from tracer.conformance.waiting import only_refused
from tracer.grammar.grammar import Step
from tracer.model import RestFacts, StepResult, StepStatus
from tracer.openstack.services import CINDER_API

__all__ = ["step_results"]


def step_results(
    case: Case, coverage: StepCoverage, ending: Ending, explanation: Explanation
) -> tuple[StepResult, ...]:
    """Return the result of each step, in documented order."""
    places = case.grammar.places
    # Of a step of an attempt the last attempt counts: what an earlier one reached says nothing of it.
    reached = {step for step, taken in explanation.taken.items() if taken}
    if ending.stopped_at in places:
        reached.add(ending.stopped_at)
    furthest = len(places) if ending.outcome in GOOD else max((places[s] for s in reached), default=-1)
    results = []
    for step in case.grammar.steps:
        # What comes before a step that was reached must have happened: what was not seen of it is missing or
        # unobserved. Not so what runs side by side with that step.
        beside = case.grammar.beside(step.name)
        is_over = ending.outcome in GOOD or any(
            places[step.name] < places[other] and other not in beside for other in reached
        )
        passed = places[step.name] < furthest
        results.append(_result(case, coverage, ending, explanation, step, _Passed(passed, is_over)))
    retried = case.grammar.attempt[0] if len(case.attempts) > 1 and case.grammar.attempt else None
    return tuple(with_waits(results, retried))


class _Passed(NamedTuple):
    """Whether the creation went further than a step."""

    documented: bool
    """Further in documented order."""
    surely: bool
    """Further than where the step may still come: what it reached does not run side by side with the step."""


def _result(
    case: Case, coverage: StepCoverage, ending: Ending, explanation: Explanation, step: Step, passed: _Passed
) -> StepResult:
    """Return the result of one step."""
    taken = explanation.taken.get(step.name, [])
    failed = ending.stopped_at == step.name and ending.outcome in ("rejected", "error")
    if failed and not taken and ending.call is not None:
        # A failed step without calls of its own: a refused connection is its only evidence.
        record = case.records.get(ending.call.serial)
        is_connection = record is not None and record.operation.startswith("CONNECT")
        is_evidence = is_connection or ending.by_host or bool(ending.state)
        evidence = (replace(record, step=step.name),) if record is not None and is_evidence else ()
        begun = begun_step(case, step.name) if ending.by_host or ending.state else None
        if begun is None:
            return StepResult(step.name, step.title, "failed", calls=evidence)
        since_ns = begun_ns(case, begun, step.name, ending.call.started_ns)
        took_ns = ending.call.started_ns - since_ns
        return StepResult(step.name, step.title, "failed", since_ns, took_ns, evidence)
    status: StepStatus
    if failed:
        status, reason = "failed", ""
    elif any(kind != "failed" or step.name in case.grammar.inward for _, kind in taken):
        # A step by which the request came in was done even if the answer is a refusal: that is a failure of
        # the innermost step alone.
        asked = [w for w, _ in taken] if step.name not in case.grammar.inward else []
        status, reason = "failed" if only_refused(asked, ending) else "seen", ""
    else:
        status, reason = _unseen(case, coverage, ending, step, passed)
        if status == "not_reached" and taken and ending.stopped_at == step.name and ending.outcome == "stuck":
            # Its only calls failed, and nobody tried again.
            status = "failed"
        told = shown_in(case, len(case.attempts) - 1, step.name) if status == "unobserved" else None
        if told is not None and not coverage.has_callee(step.name):
            return _told(case, step, told)
    calls = tuple(replace(case.records[w.call.serial], step=step.name) for w, _ in taken)
    started_ns, duration_ns = times_of([w for w, _ in taken])
    if not taken and ending.stopped_at == step.name and (begun := stalled_in(case, ending)) is not None:
        started_ns = begun_ns(case, begun, step.name, case.last_own_ns())
    return StepResult(step.name, step.title, status, started_ns, duration_ns, calls, reason)


def _told(case: Case, step: Step, told: Said) -> StepResult:
    """Return the result of a step that no packet can show, and that nova says is done: it is inferred.

    Its time is that from the state with which it began to that with which it was done.
    """
    begun = [s for s in case.said if s.begun == step.name and s.call.started_ns < told.call.started_ns]
    told_ns = told.call.started_ns
    since_ns = begun_ns(case, begun[-1], step.name, told_ns) if begun else told_ns
    took_ns = told_ns - since_ns or None
    calls = (replace(told.record, step=step.name),)
    return StepResult(step.name, step.title, "inferred", since_ns, took_ns, calls)


def _unseen(
    case: Case, coverage: StepCoverage, ending: Ending, step: Step, passed: _Passed
) -> tuple[StepStatus, str]:
    """Return the status of a step of which no call was seen, and the reason where it is unobserved."""
    # An optional step whose service was never seen was not needed, unless the request shows that it was.
    needed = step.name in case.required or _needs_storage(case, step.name)
    is_over = passed.surely if needed else passed.documented
    if not is_over and not _may_have_come(case, ending, step):
        return "not_reached", ""
    if is_over and step.presence == "inferred":
        return "inferred", ""
    if is_over and coverage.absent(step.name):
        return "skipped", ""
    if is_over and (unasked := case.not_asked_for(step.name)):
        return "skipped", unasked
    if is_over and (unclear := case.may_not_be_asked_for(step.name)):
        return "unobserved", unclear
    reason = coverage.why_not(step.name, strict=needed) or ""
    if reason:
        return "unobserved", reason
    return ("missing" if needed else "skipped") if is_over else "not_reached", ""


def _may_have_come(case: Case, ending: Ending, step: Step) -> bool:
    """Return whether *step*, after the last one that was seen, may have happened without being seen.

    That is so where the creation stopped between two steps, and *step* is not after the second.
    """
    places = case.grammar.places
    return ending.between is not None and places[step.name] <= places.get(ending.between[1], len(places))


def _needs_storage(case: Case, step: str) -> bool:
    """Return whether *step* asks cinder, and the request says that the VM boots from a volume."""
    created = case.trace.created
    facts = created.facts if created is not None else None
    asks = any(leg.callee == CINDER_API for leg in case.grammar.legs(step))
    return asks and isinstance(facts, RestFacts) and facts.volume
