"""Requests that were turned down: by whom, and which step the refusal belongs to.

A refusal travels outwards through all steps on which the request came in; it is one failure, of the innermost
step. Which one that is, the grammar says (rule `refusals`: by the answer's status and words, by the call that
failed meanwhile); where it says nothing, it follows from what the service had to do next.
"""

from __future__ import annotations

from tracer.conformance.case import Case, Ending, Witness
from tracer.conformance.step_coverage import StepCoverage
from tracer.model import Call, RestFacts
from tracer.openstack.rest import is_login
from tracer.openstack.services import KEYSTONE, PROXY

__all__ = ["failing_call", "failing_in_api", "refusal_of", "rejected", "step_of_failure"]

_FAILED = frozenset(("refused", "none", "error", "unroutable", "failure"))


def refusal_of(case: Case) -> Call | None:
    """Return the innermost answer that refused the request; None when it was accepted, or has no answer."""
    for leg in _legs(case):
        if isinstance(leg.facts, RestFacts) and leg.facts.status:
            if leg.facts.status >= 400:
                return leg
            if not case.trace.creates or 200 <= leg.facts.status < 300:
                return None
    return None


def _legs(case: Case) -> list[Call]:
    """Return the calls that may have been refused, the innermost first."""
    created, creates = case.trace.created, case.trace.creates
    if created is not None:
        return [leg for leg in (created, created.front) if leg is not None]
    if creates:
        # An order at the portal is known by the name in its body.
        orders = (c for c in case.trace.calls if isinstance(c.facts, RestFacts) and c.facts.name)
        return [c for c in orders if isinstance(c.facts, RestFacts) and c.facts.status >= 400]
    return [w.call for w in case.witnesses if w.all_steps & case.grammar.inward]


def rejected(case: Case, coverage: StepCoverage, refusal: Call) -> Ending:
    """Return the ending of a request that *refusal* turned down."""
    time_ns = refusal.ended_ns or refusal.started_ns
    ending = Ending("rejected", call=refusal, error=refusal.error, time_ns=time_ns)
    if case.trace.creates and case.trace.created is None:
        _refused_by_portal(case, coverage, ending)
        return ending
    hop, culprit = _refused_by_proxy(case, refusal), _culprit(case, refusal)
    if hop is not None and (culprit is None or case.records[culprit.serial].caller != PROXY):
        ending.stopped_at = hop
        return ending
    if culprit is not None:
        ending.stopped_at = step_of_failure(case, culprit)
        ending.call, ending.error = culprit, culprit.error or refusal.error
        return ending
    steps = _steps_refusing(case, refusal)
    if len(steps) > 1:
        # The grammar leaves it open which of them refused.
        ending.between = (_before(case, steps[0]), steps[-1])
    else:
        ending.stopped_at = steps[0] if steps else _next_thing_to_do(case, refusal)
    return ending


def _status(call: Call) -> int:
    return call.facts.status if isinstance(call.facts, RestFacts) else 0


def _refused_by_proxy(case: Case, refusal: Call) -> str | None:
    """Return the step of the hop behind the proxy when the proxy answered by itself: it found nobody."""
    created, hop = case.trace.created, case.grammar.proxy_step
    asked = created if case.trace.creates and created is not None else refusal
    facts = asked.facts
    by_proxy = case.records[asked.serial].callee == PROXY and _status(refusal) >= 500
    is_passed_on = isinstance(facts, RestFacts) and bool(facts.forwarded_for) and case.trace.creates
    by_service = isinstance(refusal.facts, RestFacts) and bool(refusal.facts.answered_id)
    return hop if by_proxy and not is_passed_on and not by_service else None


def _culprit(case: Case, refusal: Call) -> Call | None:
    """Return the call that failed while the service worked on the request, where its answer may be due to it.

    A 4xx is the service's own word on the request, whatever failed meanwhile.
    """
    if _status(refusal) < 500:
        return None
    if case.trace.creates and case.trace.created is not None:
        return failing_in_api(case, case.trace.created)
    witness = failing_call(case, caller=case.records[refusal.serial].callee)
    return witness.call if witness is not None else None


def failing_in_api(case: Case, created: Call) -> Call | None:
    """Return the last call that failed of those that the service made while it worked on *created*."""
    until_ns = created.ended_ns or (1 << 62)
    api, address = case.grammar.api, created.connection.server.address
    found = None
    for call in case.trace.calls:
        record = case.records[call.serial]
        if record.caller not in (api, "?") and record.caller_address != address:
            continue
        is_failed = record.result in _FAILED or (record.result.isdigit() and int(record.result) >= 500)
        if is_failed and created.started_ns <= call.started_ns <= until_ns and call is not created:
            found = call
    return found


def failing_call(case: Case, caller: str | None = None) -> Witness | None:
    """Return the first call that failed and was not made again with success; of *caller*, where given."""
    for position, witness in enumerate(case.witnesses):
        failed = witness.failed - case.grammar.inward
        if not failed or witness.steps or witness.ambiguous or caller not in (None, witness.record.caller):
            continue
        if not any(w.steps & failed for w in case.witnesses[position + 1 :]):
            return witness
    return None


def step_of_failure(case: Case, call: Call) -> str | None:
    """Return the step that a failed call belongs to: as the grammar says, else of which it is a near miss."""
    steps = case.grammar.steps_refusing(case.records[call.serial].line, call.error)
    if steps:
        return steps[0]
    witness = next((w for w in case.witnesses if w.call is call), None)
    if witness is not None and witness.failed:
        return case.grammar.earliest(witness.failed)
    # No call of a step, but made to one whom a step asks.
    record = case.records[call.serial]
    ends, grammar = (record.caller, record.callee), case.grammar
    asks = [s for s in grammar.places if any((leg.caller, leg.callee) == ends for leg in grammar.legs(s))]
    return grammar.earliest(asks)


def _steps_refusing(case: Case, refusal: Call) -> tuple[str, ...]:
    is_cut = getattr(refusal.facts, "broken", False)
    return case.grammar.steps_refusing(case.records[refusal.serial].line, refusal.error, is_cut)


def _before(case: Case, step: str) -> str:
    names = list(case.grammar.places)
    return names[max(0, names.index(step) - 1)]


def _next_thing_to_do(case: Case, refusal: Call) -> str | None:
    """Return the step on which the request was refused, as it follows from who does what.

    A service that refuses by itself (its answer carries a request id) does so at the first thing that it had
    to do and that was not seen; a login that is refused is the step that asks keystone.
    """
    grammar = case.grammar
    facts, service = refusal.facts, case.records[refusal.serial].callee
    step = next((grammar.earliest(w.all_steps) for w in case.witnesses if w.call is refusal), None)
    if not (isinstance(facts, RestFacts) and facts.answered_id):
        return step
    is_login = facts.status in (401, 407)
    names = list(grammar.places)
    for following in names[names.index(step) + 1 :] if step in names else ():
        asks = {leg.callee for leg in grammar.legs(following) if leg.caller == service}
        if asks and (KEYSTONE in asks) == is_login and (is_login or not case.step_calls(following)):
            return following
    return step


def _refused_by_portal(case: Case, coverage: StepCoverage, ending: Ending) -> None:
    """Set where an order stopped that came no further than the portal.

    The portal logs in before it asks the cloud: a login that failed, or nothing behind it, is the request
    that it did not send.
    """
    grammar = case.grammar
    portal = grammar.portal_step or grammar.request[0]
    asked = [step for step in grammar.request if step != portal] or [portal]
    in_api = grammar.asked_by(grammar.api)
    logins = [c for c in case.trace.calls if is_login(c.operation) or c.operation.startswith("CONNECT")]
    if logins and all(c.serial in case.trace.ambiguous for c in logins):
        # Another order's, perhaps: then the portal refused by itself.
        ending.between = (portal, asked[0])
    elif logins:
        bad = [c for c in logins if c.result[:1] not in "23?"]
        if bad:
            ending.call = bad[0]
            ending.error = bad[0].error or ending.error
        if bad or coverage.would_show(asked[0]):
            ending.stopped_at = asked[0]
        else:
            ending.between = (portal, in_api[-1] if in_api else asked[-1])
    elif coverage.whole(asked[0]):
        ending.stopped_at = portal
    else:
        ending.between = (portal, asked[-1])
