"""Refused requests: by which service, and to which step the refusal belongs.

A refusal travels outwards through all steps by which the request came in; it is one failure, of the innermost
step. The grammar's rule `refusals` determines that step, by the answer's status and words and by the call
that failed meanwhile. Where the rule has nothing, the step follows from what the service had to do next.
"""

# Status codes alone do not name the step: a 403 is about the quota only with words such as "Quota exceeded",
# and a 500 of nova-api may be a failure of a service that it asked (glance, neutron, database, broker).

from __future__ import annotations

from tracer.conformance.case import Case, Ending, Witness
from tracer.conformance.step_coverage import StepCoverage
from tracer.model import BOTH, Call, ConnectFacts, RestFacts, RpcFacts
from tracer.openstack.rest import is_login
from tracer.openstack.services import HOST_SERVICE, KEYSTONE, PROXY

__all__ = ["failing_call", "failing_in_api", "hangs_in_api", "refusal_of", "rejected", "step_of_failure"]

_FAILED = frozenset(("refused", "none", "error", "unroutable", "failure"))
"""Results of failed calls that are no HTTP status."""


def refusal_of(case: Case) -> Call | None:
    """Return the innermost answer that refused the request; None when it was accepted or has no answer."""
    for leg in _legs(case):
        if isinstance(leg.facts, RestFacts) and leg.facts.status:
            if leg.facts.status >= 400:
                return leg
            # The inner leg decides: what a proxy answers after nova-api accepted is no refusal.
            if not case.trace.creates or 200 <= leg.facts.status < 300:
                return None
    created = case.trace.created
    if created is not None and case.trace.creates and created.result == "none":
        # The portal refuses an order for which the cloud gave it no answer.
        return next((c for c in case.trace.calls if _status(c) >= 400 and _is_order(case, c)), None)
    return None


def _legs(case: Case) -> list[Call]:
    """Return the calls that may have been refused, the innermost first."""
    created, creates = case.trace.created, case.trace.creates
    if created is not None:
        return [leg for leg in (created, created.front) if leg is not None]
    if creates:
        # An order at the portal. Its ends may not be known; what a host asks of the VRM has a name as well.
        asked = [c for c in case.trace.calls if _is_order(case, c)]
        return [c for c in asked if isinstance(c.facts, RestFacts) and c.facts.name and c.facts.status >= 400]
    return [w.call for w in case.witnesses if w.all_steps & case.grammar.inward]


def _is_order(case: Case, call: Call) -> bool:
    """Return whether *call* may be an order at the portal, by its path and its ends."""
    record = case.records[call.serial]
    is_known = record.callee != record.callee_address
    if is_known or record.caller == HOST_SERVICE:
        return record.callee in case.grammar.begun_at(call.protocol, call.asked)
    return bool(case.grammar.begun_at(call.protocol, call.asked))


def rejected(case: Case, coverage: StepCoverage, refusal: Call) -> Ending:
    """Return the ending of a request that was refused by the answer *refusal*."""
    time_ns = refusal.ended_ns or refusal.started_ns
    ending = Ending("rejected", call=refusal, error=refusal.error, time_ns=time_ns)
    if case.trace.creates and case.trace.created is None:
        _refused_by_portal(case, coverage, ending)
        return ending
    if _gave_up(case, refusal):
        _hung(case, coverage, ending, refusal)
        return ending
    if _is_unanswered_inside(case, refusal):
        _died(case, coverage, ending)
        return ending
    hop, cause = _refused_by_proxy(case, coverage, refusal), _cause(case, refusal)
    # A connection of the proxy that nova-api refused is more precise than the proxy's 503.
    if hop is not None and (cause is None or case.records[cause.serial].caller != PROXY):
        ending.stopped_at, ending.proxy = hop, refusal
        return ending
    if cause is not None:
        ending.stopped_at = step_of_failure(case, cause)
        # What the service says of a call that was not answered at all tells less than that.
        said = "" if cause.result in ("none", "refused", "?") else refusal.error
        ending.call, ending.error = cause, cause.error or said
        return ending
    steps = _steps_refusing(case, refusal)
    if len(steps) > 1:
        # The grammar allows several steps for such an answer.
        ending.between = (_before(case, steps[0]), steps[-1])
    elif not steps and _failed_by_itself(case, refusal):
        ending.between = (_last_seen(case), case.grammar.asked_by(case.grammar.api)[-1])
    else:
        ending.stopped_at = steps[0] if steps else _next_duty(case, refusal)
    return ending


def _status(call: Call) -> int:
    return call.facts.status if isinstance(call.facts, RestFacts) else 0


def _gave_up(case: Case, refusal: Call) -> bool:
    """Return whether *refusal* is the answer of a proxy that waited in vain for the service behind it."""
    created = case.trace.created
    if created is None or created is refusal or created.front is not refusal:
        return False
    return not _status(created) and created.result == "none" and not getattr(refusal.facts, "answered_id", "")


def _is_unanswered_inside(case: Case, refusal: Call) -> bool:
    """Return whether *refusal* is the portal's, and the cloud gave it no answer."""
    created = case.trace.created
    return case.trace.creates and created is not None and refusal not in (created, created.front)


def _died(case: Case, coverage: StepCoverage, ending: Ending) -> None:
    """Set where the one was that took the request and ended the connection without an answer."""
    created, grammar = case.trace.created, case.grammar
    if created is None:
        return
    ending.call, ending.error = created, created.error
    if case.records[created.serial].callee == grammar.api:
        _at_next_in_api(case, coverage, ending)
    else:
        ending.stopped_at = grammar.proxy_step or grammar.request[-1]


def _failed_by_itself(case: Case, refusal: Call) -> bool:
    """Return whether the API answered that it failed, and no call of it shows at which of its steps."""
    is_of_api = case.records[refusal.serial].callee == case.grammar.api
    return case.trace.creates and is_of_api and _status(refusal) >= 500


def _last_seen(case: Case) -> str:
    """Return the last step of the API that was seen; without one the last by which the request came in."""
    came = [step for step in case.grammar.request if any(step in w.all_steps for w in case.witnesses)]
    return _last_in_api(case) or (came or list(case.grammar.request))[-1]


def _last_in_api(case: Case) -> str | None:
    """Return the last step of the API that was seen; None without one."""
    inside = case.grammar.asked_by(case.grammar.api)
    seen = [step for w in case.witnesses if not w.ambiguous for step in w.steps if step in inside]
    return max(seen, key=inside.index, default=None)


def _hung(case: Case, coverage: StepCoverage, ending: Ending, refusal: Call) -> None:
    """Set where the service was when the proxy gave it up: in a call of its own, else at its next step."""
    created = case.trace.created
    if created is None:
        return
    ending.proxy = refusal
    ending.call, ending.error = created, created.error
    found = (failing_in_api(case, created), _waiting_in_api(case, created))
    doing = max((call for call in found if call is not None), key=lambda call: call.started_ns, default=None)
    if doing is not None and not _worked_after(case, created, doing):
        ending.stopped_at = step_of_failure(case, doing)
        ending.call, ending.error = doing, doing.error
        return
    _at_next_in_api(case, coverage, ending)


def _at_next_in_api(case: Case, coverage: StepCoverage, ending: Ending) -> None:
    """Set where the API was after its last call: at its next step, as far as that is known."""
    created, grammar = case.trace.created, case.grammar
    inside, last = grammar.asked_by(grammar.api), _last_in_api(case)
    at = inside.index(last) if last is not None else -1
    following = inside[at + 1] if at + 1 < len(inside) else inside[-1] if inside else None
    if last is None:
        # Not one call of the service: that it took the request is all that is known.
        legs = (w.failed for w in case.witnesses if w.call is created)
        ending.stopped_at = grammar.earliest(next(legs, frozenset()))
    elif following is not None and (coverage.would_show(following) or following in grammar.inferred):
        ending.stopped_at = following
    else:
        ending.between = (last, inside[-1])


def hangs_in_api(case: Case, created: Call) -> Call | None:
    """Return the call in which the service of *created* waits; None if it made another one since."""
    doing = _waiting_in_api(case, created)
    return None if doing is None or _worked_after(case, created, doing) else doing


def _waiting_in_api(case: Case, created: Call) -> Call | None:
    """Return the last call that the service made for *created* and that waits: for an answer or a confirm."""
    until_ns = created.ended_ns or (1 << 62)
    found = None
    for call in _made_by_api(case, created):
        facts = call.facts
        if isinstance(facts, RpcFacts):
            waits = facts.unconfirmed and not facts.delivered and call.result != "unroutable"
            if facts.mode == "call":
                waits = waits or facts.answered_ns is None or facts.answered_ns > until_ns
        else:
            # The answer may have come when the proxy had given up.
            waits = call.ended_ns is None or call.ended_ns > until_ns
        if waits and not _is_broken(call):
            found = call
    return found


def _is_broken(call: Call) -> bool:
    """Return whether bytes of *call*, or a direction of its connection, are missing in the captures."""
    if isinstance(call.facts, ConnectFacts):
        return bool(call.connection.gaps)
    one_way = call.connection.seen != BOTH
    return bool(getattr(call.facts, "broken", False) or call.connection.gaps or one_way)


def _worked_after(case: Case, created: Call, doing: Call) -> bool:
    """Return whether the service began another call after *doing*: then it did not hang there."""
    return any(
        call.started_ns > doing.started_ns for call in _made_by_api(case, created) if call is not doing
    )


def _made_by_api(case: Case, created: Call) -> list[Call]:
    """Return the calls that the API made while it worked on *created*, in order of time."""
    until_ns = created.ended_ns or (1 << 62)
    api, addresses = case.grammar.api, {created.connection.server.address}
    if created.front is None and case.records[created.serial].callee == api:
        # Where clients ask it itself, it has one address for them and another one inside.
        addresses |= {w.record.caller_address for w in case.witnesses if w.record.caller == api}
    made = []
    for call in case.trace.calls:
        record = case.records[call.serial]
        # By role or by address: a refused connection carries nothing that names its client.
        is_its = record.caller in (api, "?") or record.caller_address in addresses
        if is_its and call is not created and created.started_ns <= call.started_ns <= until_ns:
            made.append(call)
    return made


def _refused_by_proxy(case: Case, coverage: StepCoverage, refusal: Call) -> str | None:
    """Return the step of the proxy's inner leg when the proxy answered by itself: it reached no backend.

    A service gives each of its answers a request id. An answer below 500 without one is the proxy's where the
    leg behind it would have been seen.
    """
    created, hop = case.trace.created, case.grammar.proxy_step
    asked = created if case.trace.creates and created is not None else refusal
    facts = asked.facts
    by_proxy = case.records[asked.serial].callee == PROXY
    if by_proxy and _status(refusal) < 500:
        by_proxy = hop is not None and case.trace.creates and coverage.would_show(hop)
    is_passed_on = isinstance(facts, RestFacts) and bool(facts.forwarded_for) and case.trace.creates
    # An answer with a request id was made by a service and passed on by the proxy.
    by_service = isinstance(refusal.facts, RestFacts) and bool(refusal.facts.answered_id)
    return hop if by_proxy and not is_passed_on and not by_service else None


def _cause(case: Case, refusal: Call) -> Call | None:
    """Return the call that failed while the service worked on the request, if that may be why it refused.

    A 4xx is the service's own judgement of the request, whatever failed meanwhile: None.
    """
    if _status(refusal) < 500:
        return None
    if case.trace.creates and case.trace.created is not None:
        return failing_in_api(case, case.trace.created) or _refused_to_api(case, case.trace.created)
    witness = failing_call(case, caller=case.records[refusal.serial].callee)
    return witness.call if witness is not None else None


def failing_in_api(case: Case, created: Call) -> Call | None:
    """Return the last failed call of those that nova-api made while it worked on *created*."""
    # The last one: earlier failures were survived, because the service went on after them.
    found = None
    for call in _made_by_api(case, created):
        result = case.records[call.serial].result
        if result in _FAILED or (result.isdigit() and int(result) >= 500):
            found = call
    return found


def _refused_to_api(case: Case, created: Call) -> Call | None:
    """Return the last call of nova-api while it worked on *created*, if that was refused; else None."""
    made = [call for call in _made_by_api(case, created) if not case.is_harmless(call)]
    return made[-1] if made and 400 <= _status(made[-1]) < 500 else None


def failing_call(case: Case, caller: str | None = None) -> Witness | None:
    """Return the first call that failed and was not repeated with success; of *caller* only, if given."""
    for position, witness in enumerate(case.witnesses):
        failed = witness.failed - case.grammar.inward
        if not failed or witness.steps or witness.ambiguous or caller not in (None, witness.record.caller):
            continue
        if not any(w.steps & failed for w in case.witnesses[position + 1 :]):
            return witness
    return None


def step_of_failure(case: Case, call: Call) -> str | None:
    """Return the step that a failed call belongs to: by rule `refusals`, else as a near miss of a step."""
    if isinstance(call.facts, ConnectFacts) and (step := _step_connecting(case, call)) is not None:
        return step
    steps = case.grammar.steps_refusing(case.records[call.serial].line, call.error)
    if steps:
        return steps[0]
    witness = next((w for w in case.witnesses if w.call is call), None)
    if witness is not None and witness.failed:
        return case.grammar.earliest(witness.failed)
    # It is like no call of a step. The step then is one in which the same caller asks the same callee.
    record = case.records[call.serial]
    ends, grammar = (record.caller, record.callee), case.grammar
    asks = [s for s in grammar.places if any((leg.caller, leg.callee) == ends for leg in grammar.legs(s))]
    return grammar.earliest(asks)


def _step_connecting(case: Case, call: Call) -> str | None:
    """Return the first step for which the client of a failed connection had not asked its server before.

    None where the ends do not fit, or where all such steps were seen.
    """
    record, grammar = case.records[call.serial], case.grammar
    ends = record.caller, record.callee
    asks = [
        s for s in grammar.required if any((leg.caller, leg.callee) == ends for leg in grammar.legs(s)[:1])
    ]
    seen = {step for w in case.witnesses if w.call.started_ns < call.started_ns for step in w.steps}
    return grammar.earliest([step for step in asks if step not in seen])


def _steps_refusing(case: Case, refusal: Call) -> tuple[str, ...]:
    """Return the steps that refuse with such an answer, by the grammar's rule `refusals`."""
    # The words that decide may be in the part of the body that was not captured.
    is_cut = getattr(refusal.facts, "broken", False)
    return case.grammar.steps_refusing(case.records[refusal.serial].line, refusal.error, is_cut)


def _before(case: Case, step: str) -> str:
    """Return the step before *step* in documented order; of the first one itself."""
    names = list(case.grammar.places)
    return names[max(0, names.index(step) - 1)]


def _next_duty(case: Case, refusal: Call) -> str | None:
    """Return the step at which the request was refused, derived from the callers and callees of the steps.

    A service that refuses by itself (its answer carries a request id) does so at its first step that was not
    seen. A 401 or 407 belongs to its step that asks keystone.
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
    """Set where an order stopped for which the portal sent no request to the cloud.

    The portal logs in before it sends the request. After a failed login, or a login without a request, it
    stopped at the request; without a login, at the portal itself.
    """
    grammar = case.grammar
    portal = grammar.portal_step or grammar.request[0]
    asked = [step for step in grammar.request if step != portal] or [portal]
    in_api = grammar.asked_by(grammar.api)
    logins = [c for c in case.trace.calls if is_login(c.operation) or c.operation.startswith("CONNECT")]
    if logins and all(c.serial in case.trace.ambiguous for c in logins):
        # The logins may be another order's; then the portal refused by itself. Both are possible.
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
