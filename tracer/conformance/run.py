"""How a workflow ended that makes no server, but does something to one that is there: deletes, stops it.

Nothing here knows a workflow. It is done when its last step was seen; what refused or failed is told by the
calls that the grammar knows.
"""

from __future__ import annotations

from tracer.conformance.case import Case, Witness
from tracer.conformance.outcome import Ending, silent
from tracer.conformance.sight import StepSight
from tracer.grammar.grammar import Step
from tracer.model import Call, RestFacts

__all__ = ["judge_run"]


def judge_run(case: Case, sight: StepSight, stall_ns: int) -> Ending:
    """Return how the workflow of *case* ended: done, rejected, error, stuck or unfinished."""
    refusal = _refusal(case)
    if refusal is not None:
        return _rejected(case, refusal)
    last, failing = _last_call(case, sight), _failing(case)
    # What records a failure is the same call that would record success.
    needed = failing is not None and not case.grammar.required.isdisjoint(failing.failed)
    if case.trace.failed_ns is not None or needed or (failing is not None and last is None):
        return _error(case, sight, failing, stall_ns)
    if last is not None:
        return Ending("done", call=last, time_ns=last.ended_ns or last.started_ns)
    return silent(case, sight, stall_ns)


def _last_call(case: Case, sight: StepSight) -> Call | None:
    """Return the last call of the last required step that the captures could show, None without one."""
    required = [step for step in case.grammar.steps if step.presence == "required"]
    last = next((step for step in reversed(required) if sight.would_show(step.name)), None)
    if last is None:
        return None
    return next((w.call for w in reversed(case.step_calls(last.name)) if not w.ambiguous), None)


# --- rejected -------------------------------------------------------------------------------------


def _refusal(case: Case) -> Call | None:
    """Return the innermost answer that refused the request, None when it was accepted."""
    created = case.trace.created
    legs = [created, created.front] if created is not None else _asked_of_the_portal(case)
    for leg in legs:
        if leg is not None and isinstance(leg.facts, RestFacts) and leg.facts.status:
            return leg if leg.facts.status >= 400 else None
    return None


def _asked_of_the_portal(case: Case) -> list[Call | None]:
    return [w.call for w in case.witnesses if (w.steps | w.failed) & case.grammar.inward]


def _rejected(case: Case, refusal: Call) -> Ending:
    ending = Ending(
        "rejected", call=refusal, error=refusal.error, time_ns=refusal.ended_ns or refusal.started_ns
    )
    facts = refusal.facts
    status = facts.status if isinstance(facts, RestFacts) else 0
    own = isinstance(facts, RestFacts) and bool(facts.answered_id)
    service = case.records[refusal.serial].callee
    culprit = _failing(case, caller=service)
    step = next((min(w.steps | w.failed) for w in case.witnesses if w.call is refusal), None)
    ending.stopped_at = step
    behind = _behind(case, step)
    if culprit is not None and status >= 500:
        ending.call, ending.error = culprit.call, culprit.call.error or refusal.error
        ending.stopped_at = min(culprit.failed)
    elif service == "lb" and status >= 500 and not own and behind:
        # The proxy answers by itself: it found nobody to pass the request on to.
        ending.stopped_at = behind[0].name
    elif own:
        # Refused by the service itself: at the first thing that it had to do and that was not seen.
        login = status in (401, 407)
        for following in behind:
            legs = case.grammar.legs(following.name)
            asks = {leg.callee for leg in legs if leg.caller == service}
            if asks and ("keystone" in asks) == login and (login or not case.step_calls(following.name)):
                ending.stopped_at = following.name
                break
    return ending


def _behind(case: Case, step: str | None) -> list[Step]:
    names = [s.name for s in case.grammar.steps]
    return list(case.grammar.steps[names.index(step) + 1 :]) if step in names else []


# --- error ----------------------------------------------------------------------------------------


def _failing(case: Case, caller: str | None = None) -> Witness | None:
    """Return the first call that failed and was not made again with success; of *caller*, where given."""
    for position, witness in enumerate(case.witnesses):
        failed = witness.failed - case.grammar.inward
        if not failed or witness.steps or witness.ambiguous or caller not in (None, witness.record.caller):
            continue
        if not any(w.steps & failed for w in case.witnesses[position + 1 :]):
            return witness
    return None


def _error(case: Case, sight: StepSight, failing: Witness | None, stall_ns: int) -> Ending:
    if failing is not None:
        call = failing.call
        time_ns = case.trace.failed_ns or call.ended_ns or call.started_ns
        return Ending("error", min(failing.failed), call=call, error=call.error, time_ns=time_ns)
    told = case.trace.failed_call
    ending = silent(case, sight, stall_ns)
    ending.outcome, ending.call, ending.time_ns = "error", told, case.trace.failed_ns or 0
    ending.error = told.error if told is not None else ""
    return ending
