"""What became of each documented step: seen, failed, missing, or why nobody could have seen it."""

from __future__ import annotations

from dataclasses import replace

from tracer.conformance.case import GOOD, Case, Ending
from tracer.conformance.explanation import Explanation
from tracer.conformance.outcome import only_turned_away
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import times_of, with_waits
from tracer.grammar.grammar import Step
from tracer.model import RestFacts, StepResult, StepStatus
from tracer.openstack.services import CINDER_API

__all__ = ["step_results"]


def step_results(
    case: Case, coverage: StepCoverage, ending: Ending, explanation: Explanation
) -> tuple[StepResult, ...]:
    """Return the result of each step, in documented order."""
    places = case.grammar.places
    furthest = max((places[step] for step in explanation.step_of.values()), default=-1)
    if ending.stopped_at in places:
        furthest = max(furthest, places[ending.stopped_at])
    if ending.outcome in GOOD:
        furthest = len(places)
    results = [
        _result(case, coverage, ending, explanation, step, places[step.name] < furthest)
        for step in case.grammar.steps
    ]
    retried = case.grammar.attempt[0] if len(case.attempts) > 1 and case.grammar.attempt else None
    return tuple(with_waits(results, retried))


def _result(
    case: Case, coverage: StepCoverage, ending: Ending, explanation: Explanation, step: Step, passed: bool
) -> StepResult:
    taken = explanation.taken.get(step.name, [])
    failed = ending.stopped_at == step.name and ending.outcome in ("rejected", "error")
    if failed and not taken and ending.call is not None:
        record = case.records.get(ending.call.serial)
        shown = record is not None and record.operation.startswith("CONNECT")
        told = (replace(record, step=step.name),) if record is not None and shown else ()
        return StepResult(step.name, step.title, "failed", calls=told)
    status: StepStatus
    if failed:
        status, reason = "failed", ""
    elif any(kind != "failed" or step.name in case.grammar.inward for _, kind in taken):
        asked = [w for w, _ in taken] if step.name not in case.grammar.inward else []
        status, reason = "failed" if only_turned_away(asked, ending) else "seen", ""
    else:
        status, reason = _unseen(case, coverage, ending, step, passed)
    calls = tuple(replace(case.records[w.call.serial], step=step.name) for w, _ in taken)
    started_ns, duration_ns = times_of([w for w, _ in taken])
    return StepResult(step.name, step.title, status, started_ns, duration_ns, calls, reason)


def _unseen(
    case: Case, coverage: StepCoverage, ending: Ending, step: Step, passed: bool
) -> tuple[StepStatus, str]:
    """Return the status of a step of which nothing was seen, and the reason where it is unobserved.

    *passed* tells that the creation went further than this step.
    """
    if not passed and not _may_have_come(case, ending, step):
        return "not_reached", ""
    if passed and step.presence == "inferred":
        return "inferred", ""
    # Who was never seen was never needed, unless the request itself says that it is.
    needed = step.presence == "required" or _needs_storage(case, step.name)
    reason = coverage.why_not(step.name, strict=needed) or ""
    if reason:
        return "unobserved", reason
    return ("missing" if needed else "skipped") if passed else "not_reached", ""


def _may_have_come(case: Case, ending: Ending, step: Step) -> bool:
    """Tell whether *step*, behind the last one that was seen, may have come all the same: nobody knows where
    the creation stopped, but not that it stopped before this step."""
    places = case.grammar.places
    return ending.between is not None and places[step.name] <= places.get(ending.between[1], len(places))


def _needs_storage(case: Case, step: str) -> bool:
    """Tell whether *step* asks for storage, and the VM boots from a volume (so says the request)."""
    created = case.trace.created
    facts = created.facts if created is not None else None
    asks = any(leg.callee == CINDER_API for leg in case.grammar.legs(step))
    return asks and isinstance(facts, RestFacts) and facts.volume
