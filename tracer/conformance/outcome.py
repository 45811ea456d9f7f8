"""The outcome of a creation, or of an operation on a server, and the documented step at which it stopped.

An outcome needs evidence: a state that was saved or shown, a refusal in an answer. Where the evidence does
not determine the step, the two steps between which it lies are given instead.

A creation is active when its VM is. A workflow on an existing server (delete, stop) is done when its last
step was seen.
"""

# A step failed only when a call of it failed, said so in its body, or its owner recorded it. That nova saved
# the state error names no step by itself: then the first step that did not happen is where it stopped.

from __future__ import annotations

from collections.abc import Sequence

from tracer.conformance.case import GOOD, Case, Ending, Witness
from tracer.conformance.refusals import failing_call, failing_in_api, refusal_of, rejected, step_of_failure
from tracer.conformance.step_coverage import StepCoverage
from tracer.model import BOTH, Call, ConnectFacts, RestFacts, RpcFacts, SqlFacts
from tracer.openstack.services import HOST_SERVICE

__all__ = ["failing_of_attempt", "host_unknown_after", "judge", "only_refused"]

_FAR_NS = 1 << 62


def judge(case: Case, coverage: StepCoverage, stall_ns: int) -> Ending:
    """Return how the workflow of *case* ended; it is stuck after *stall_ns* without a call of its own."""
    return (_of_creation if case.trace.creates else _of_operation)(case, coverage, stall_ns)


def _of_creation(case: Case, coverage: StepCoverage, stall_ns: int) -> Ending:
    """Return how a creation ended. Active first: a VM that was built settles all that failed before."""
    trace = case.trace
    if trace.active_ns is not None:
        return Ending("active", call=trace.active_call, time_ns=trace.active_ns)
    refusal = refusal_of(case)
    if refusal is not None:
        return rejected(case, coverage, refusal)
    failed_reply = _failed_reply(case)
    if trace.failed_ns is not None or failed_reply is not None:
        return _error(case, coverage, failed_reply)
    return _silent(case, coverage, stall_ns)


def _of_operation(case: Case, coverage: StepCoverage, stall_ns: int) -> Ending:
    """Return how an operation on an existing server ended."""
    refusal = refusal_of(case)
    if refusal is not None:
        return rejected(case, coverage, refusal)
    last, failing = _last_call(case, coverage), failing_call(case)
    # The last step alone proves no success: nova records a failure with the same statement. So a failing call
    # of a required step comes first.
    is_needed = failing is not None and not case.grammar.required.isdisjoint(failing.failed)
    if case.trace.failed_ns is not None or is_needed or (failing is not None and last is None):
        return _operation_failed(case, coverage, failing, stall_ns)
    if last is not None:
        return Ending("done", call=last, time_ns=last.ended_ns or last.started_ns)
    return _silent(case, coverage, stall_ns)


# --- an operation on a server that is there ---------------------------------------------------------


def _last_call(case: Case, coverage: StepCoverage) -> Call | None:
    """Return the last call of the last required step that the captures could show; None if none was seen."""
    required = [step for step in case.grammar.steps if step.presence == "required"]
    last = next((step for step in reversed(required) if coverage.would_show(step.name)), None)
    if last is None:
        return None
    return next((w.call for w in reversed(case.step_calls(last.name)) if not w.ambiguous), None)


def _operation_failed(case: Case, coverage: StepCoverage, failing: Witness | None, stall_ns: int) -> Ending:
    """Return the ending of a failed operation: at its failing call, else where it went no further."""
    if failing is not None:
        call = failing.call
        time_ns = case.trace.failed_ns or call.ended_ns or call.started_ns
        stopped_at = case.grammar.earliest(failing.failed)
        return Ending("error", stopped_at, call=call, error=call.error, time_ns=time_ns)
    state_call = case.trace.failed_call
    ending = _silent(case, coverage, stall_ns)
    ending.outcome, ending.call, ending.time_ns = "error", state_call, case.trace.failed_ns or 0
    ending.error = state_call.error if state_call is not None else ""
    return ending


# --- a creation that failed -------------------------------------------------------------------------


def _reply_steps(case: Case, method: str) -> frozenset[str]:
    """Return the steps that are the reply to *method*; none for most methods."""
    return case.grammar.steps_by_operation("RPC", f"reply {method}")


def _failed_reply(case: Case) -> Call | None:
    """Return the first reply that is a step and holds an exception; the creation ends with it."""
    for call in case.trace.calls:
        facts = call.facts
        is_failure = isinstance(facts, RpcFacts) and facts.mode == "reply" and facts.failure
        if is_failure and isinstance(facts, RpcFacts) and _reply_steps(case, facts.method):
            return call
    return None


def _error(case: Case, coverage: StepCoverage, failed_reply: Call | None) -> Ending:
    """Return the ending of a creation in error: the step of the evidence that comes nearest to the cause."""
    # In this order: a call of the last host that failed; the scheduler's reply with an exception, where no
    # host was asked; a message that the broker refused or could not route; a reply that came too late;
    # else the first step that did not happen.
    trace, grammar = case.trace, case.grammar
    state_call = trace.failed_call
    replied_ns = failed_reply.started_ns if failed_reply is not None else 0
    ending = Ending("error", call=state_call, time_ns=trace.failed_ns or replied_ns)
    failing = failing_of_attempt(case, len(case.attempts) - 1)
    if failing is not None:
        ending.call, ending.error = failing.call, failing.call.error
        if coverage.shows_attempts_until(ending.time_ns):
            ending.stopped_at = grammar.earliest(failing.failed)
        else:
            # Another host may have been asked after the end of the capture, and have failed at another step.
            ending.between = grammar.attempt[0], grammar.attempt[-1]
        return ending
    if failed_reply is not None and not case.attempts:
        facts = failed_reply.facts
        steps = _reply_steps(case, facts.method) if isinstance(facts, RpcFacts) else ()
        ending.stopped_at = grammar.earliest(frozenset(steps))
        ending.call, ending.error = failed_reply, failed_reply.error
        return ending
    lost = next((w for w in case.witnesses if w.failed and w.record.protocol == "RPC" and not w.steps), None)
    if lost is not None:
        ending.stopped_at = grammar.earliest(lost.failed)
        ending.call, ending.error = lost.call, lost.call.error
        return ending
    late = _answered_late(case)
    if late is not None and not case.attempts:
        ending.stopped_at = late
    else:
        _first_absent(case, coverage, ending)
    recorded = [c.facts.fault for c in trace.calls if isinstance(c.facts, SqlFacts) and c.facts.fault]
    ending.error = (state_call.error if state_call is not None else "") or (recorded[-1] if recorded else "")
    return ending


def _answered_late(case: Case) -> str | None:
    """Return the step that is a reply, if that came after the VM was put in error; None otherwise.

    Its caller had given up by then: the reply was seen, and yet it is the step that failed.
    """
    failed_ns = case.trace.failed_ns
    if failed_ns is None:
        return None
    for call in case.trace.calls:
        facts = call.facts
        if isinstance(facts, RpcFacts) and facts.mode == "call" and call.started_ns < failed_ns:
            steps = _reply_steps(case, facts.method)
            if steps and failed_ns < (facts.answered_ns or 0):
                return case.grammar.earliest(steps)
    return None


def failing_of_attempt(case: Case, number: int) -> Witness | None:
    """Return the call with which attempt *number* failed: refused, answered badly, or never answered."""
    if not 0 <= number < len(case.attempts):
        # The message that asks the host is not in the captures: the calls of any host count.
        since_ns, until_ns = 0, _FAR_NS
    else:
        since_ns = case.attempts[number].since_ns
        following = case.attempts[number + 1 :]
        until_ns = following[0].since_ns if following else _FAR_NS
    of_attempt = [w for w in case.witnesses if since_ns <= w.call.started_ns < until_ns]
    for witness in of_attempt:
        if witness.record.caller != HOST_SERVICE or witness.record.protocol != "REST" or not witness.failed:
            continue
        if not _succeeded_later(witness, of_attempt):
            return witness
    return None


def _succeeded_later(failing: Witness, others: Sequence[Witness]) -> bool:
    """Return whether a call that failed was repeated with success (a token renewed, a retry).

    After a refused connection any later call of the same step counts as its repetition.
    """
    # The VRM answers 401 in healthy creations: then come a new login and the same call again.
    is_connection = isinstance(failing.call.facts, ConnectFacts)
    return any(
        w.call.started_ns > failing.call.started_ns
        and w.steps & failing.failed
        and (is_connection or w.record.operation == failing.record.operation)
        for w in others
    )


# --- what is known in part ------------------------------------------------------------------------


def host_unknown_after(case: Case, ending: Ending, coverage: StepCoverage) -> tuple[str, int] | None:
    """Return (plane, end of its capture in ns) if the host that built the VM is unknown because of that end.

    The host that was asked last built the VM when its last step was seen to succeed, or when the capture
    goes on until the VM was active. Otherwise another host may have been asked after the end. None when the
    host is known, or there is no VM.
    """
    if ending.outcome not in GOOD or not case.trace.creates or not case.attempts:
        return None
    last = case.attempts[-1]
    last_step = case.grammar.attempt[-1] if case.grammar.attempt else ""
    built = [w for w in case.step_calls(last_step) if w.call.started_ns >= last.since_ns]
    if built and failing_of_attempt(case, len(case.attempts) - 1) is None:
        return None
    plane = case.records[last.call.serial].plane if last.call is not None else "*"
    seen_ns = coverage.seen_for_ns(plane, case.first_ns)
    return (plane, case.first_ns + seen_ns) if case.first_ns + seen_ns < ending.time_ns else None


def only_refused(witnesses: Sequence[Witness], ending: Ending) -> bool:
    """Return whether a step got no further than failed connections, in a creation that may still retry."""
    waits = ending.outcome in ("stuck", "unfinished")
    return waits and bool(witnesses) and all(isinstance(w.call.facts, ConnectFacts) for w in witnesses)


# --- stuck and unfinished -------------------------------------------------------------------------


def _silent(case: Case, coverage: StepCoverage, stall_ns: int) -> Ending:
    """Return the ending of a trace that neither succeeded nor failed: stuck, or unfinished."""
    # Silence means something only where the next step would have been seen: the clock runs while every plane
    # that could carry it is captured. A capture of one plane that goes on longer proves nothing.
    last_ns = case.last_own_ns()
    ending = Ending("unfinished", time_ns=last_ns)
    _first_absent(case, coverage, ending)
    owed = ending.stopped_at or (ending.between[1] if ending.between else None)
    end_ns = coverage.captured_until_ns(owed)
    # A call that was captured and has no answer: its answer would have been captured as well.
    waits = _unanswered(case, coverage, case.attempts[-1].since_ns if case.attempts else 0) is not None
    if end_ns - last_ns >= stall_ns and (waits or coverage.quiet_is_known(owed, last_ns)):
        ending.outcome = "stuck"
    ending.call = case.trace.calls[-1]
    return ending


def _first_absent(case: Case, coverage: StepCoverage, ending: Ending) -> None:
    """Set where a creation without a visible failure stopped: at the first step that did not happen.

    Where the captures could not have shown that step, `between` is set instead: to the last step that was
    seen and the first one that would have been.
    """
    steps = [s for s in case.grammar.steps if s.presence == "required"]
    since_ns = case.attempts[-1].since_ns if case.attempts else 0
    ended_ns = ending.time_ns if ending.outcome == "error" else 0
    unanswered = _unanswered(case, coverage, since_ns, ended_ns)
    last_seen = -1
    for i, step in enumerate(steps):
        # Each attempt repeats these steps: those of an earlier attempt do not count.
        is_repeated = len(case.attempts) > 1 and step.name in case.grammar.attempt[1:]
        calls = case.step_calls(step.name)
        calls += [w for w in case.witnesses if step.name in w.failed and _is_given_up(case, w)]
        if any(w.call.started_ns >= since_ns or not is_repeated for w in calls):
            last_seen = i
    if unanswered is not None:
        ending.stopped_at = unanswered
        return
    if last_seen + 1 >= len(steps):
        # All steps were seen and the VM is not active: the last step has not ended.
        ending.stopped_at = steps[-1].name
        return
    waiting = steps[last_seen + 1]
    if _may_be_refused(case, waiting.name):
        in_api = case.grammar.asked_by(case.grammar.api)
        ending.between = (steps[max(last_seen, 0)].name, in_api[-1])
        return
    if coverage.would_show(waiting.name) or coverage.owed_by_broker(waiting.name, ended_ns):
        ending.stopped_at = waiting.name
        return
    visible = next((s.name for s in steps[last_seen + 1 :] if coverage.would_show(s.name)), None)
    before = steps[last_seen].name if last_seen >= 0 else steps[0].name
    ending.between = (before, visible or steps[-1].name)


def _may_be_refused(case: Case, step: str) -> bool:
    """Return whether the request may have been refused where *step* waits: its answer could not be seen."""
    created, grammar = case.trace.created, case.grammar
    if created is None or case.attempts or step not in grammar.asked_by(grammar.api):
        return False
    is_answered = isinstance(created.facts, RestFacts) and created.facts.status
    return not is_answered and created.connection.seen != BOTH


def _is_given_up(case: Case, witness: Witness) -> bool:
    """Return whether *witness* is a request from outside whose connection was closed without an answer."""
    return witness.record.result == "none" and witness.record.caller in case.grammar.askers


def _is_accepted(created: Call) -> bool:
    """Return whether a leg of the request was answered with success: its service waits for nothing more."""
    legs = [leg.facts for leg in (created, created.front) if leg is not None]
    return any(isinstance(facts, RestFacts) and 200 <= facts.status < 300 for facts in legs)


def _unanswered(case: Case, coverage: StepCoverage, since_ns: int, ended_ns: int = 0) -> str | None:
    """Return the step of the last call that waits for its answer: a call of the host's, or of the API's.

    *ended_ns* is when the workflow ended, 0 where it waits: until then the answer would have been captured.
    """
    created, grammar = case.trace.created, case.grammar
    if created is not None and not case.attempts and not _is_accepted(created):
        # The API may hang in a call of its own (to the broker, say) and leave its client without an answer:
        # the innermost call is the cause.
        failed = failing_in_api(case, created)
        last_ns = max((w.call.started_ns for w in case.witnesses if w.steps), default=0)
        if failed is not None and failed.started_ns >= last_ns:
            return step_of_failure(case, failed)
        leg = next((w for w in case.witnesses if w.call is created and _is_given_up(case, w)), None)
        if leg is not None and created.started_ns >= last_ns:
            return grammar.earliest(leg.failed)
    waiting = [
        w
        for w in case.witnesses
        if w.record.protocol == "REST"
        and w.record.caller == HOST_SERVICE
        and w.call.started_ns >= since_ns
        and w.record.result in ("?", "none")
        and not getattr(w.call.facts, "broken", False)
        and not w.call.connection.gaps
        and not coverage.may_lack_answer(w.call, ended_ns)
    ]
    return grammar.earliest(waiting[-1].all_steps) if waiting else None
