"""The outcome of a creation, or of an operation on a server, and the documented step at which it stopped.

An outcome needs evidence: a state that was saved or shown, a refusal in an answer. Where the evidence does
not determine the step, the two steps between which it lies are given instead.

A creation is active when its VM is. A workflow on an existing server (delete, stop) is done when its last
step was seen.
"""

# A step failed only when a call of it failed, said so in its body, or its owner recorded it. That nova saved
# the state error names no step by itself; the last state that the host saved before does (told.py). Without
# one the first step that did not happen is where it stopped.

from __future__ import annotations

from collections.abc import Sequence

from tracer.conformance.blame import Blame, blame, failed_meanwhile, words_of
from tracer.conformance.bodies import is_good_later, not_done, said_of
from tracer.conformance.case import GOOD, Case, Ending, Witness
from tracer.conformance.refusals import failing_call, refusal_of, rejected
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.told import GaveUp, begun_in, fault_of, gave_up, shown_in, span_of
from tracer.conformance.waiting import at_begun, first_absent, silent, unanswered
from tracer.model import Call, ConnectFacts, RpcFacts
from tracer.openstack.rpc import SAVES_SERVER
from tracer.openstack.services import HOST_SERVICE
from tracer.openstack.states import BAD

__all__ = ["failing_of_attempt", "host_unknown_after", "judge"]

LOST = ("undelivered", "unroutable")
"""Results of a message that nobody took: what was to come of it has not come."""


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
    deleted_ns = trace.deleted_ns
    if deleted_ns is not None and (failed_reply is None or failed_reply.started_ns > deleted_ns):
        ending = Ending("deleted", call=trace.deleted_call, time_ns=deleted_ns)
        first_absent(case, coverage, ending)
        return ending
    if trace.failed_ns is not None or failed_reply is not None:
        return _error(case, coverage, failed_reply)
    return silent(case, coverage, stall_ns)


def _of_operation(case: Case, coverage: StepCoverage, stall_ns: int) -> Ending:
    """Return how an operation on an existing server ended."""
    refusal = refusal_of(case)
    if refusal is not None:
        return rejected(case, coverage, refusal)
    last, failing = _last_call(case, coverage), failing_call(case)
    # The last step alone proves no success: nova records a failure with the same statement. So a failing call
    # of a required step comes first.
    is_needed = failing is not None and not case.required.isdisjoint(failing.failed)
    if case.trace.failed_ns is not None or is_needed or (failing is not None and last is None):
        return _operation_failed(case, coverage, failing, stall_ns)
    if last is not None and last.result not in LOST and not _is_at_work(case):
        return Ending("done", call=last, time_ns=last.ended_ns or last.started_ns)
    return silent(case, coverage, stall_ns)


# --- an operation on a server that is there ---------------------------------------------------------


def _last_call(case: Case, coverage: StepCoverage) -> Call | None:
    """Return the last call of the last required step that the captures could show; None if none was seen."""
    required = [step for step in case.grammar.steps if step.presence == "required"]
    last = next((step for step in reversed(required) if coverage.would_show(step.name)), None)
    if last is None:
        return None
    return next((w.call for w in reversed(case.step_calls(last.name)) if not w.ambiguous), None)


def _is_at_work(case: Case) -> bool:
    """Return whether the state that nova-compute saved last says that something is still being done."""
    facts = (call.facts for call in reversed(case.trace.calls))
    saves = (f for f in facts if isinstance(f, RpcFacts) and f.mode != "reply")
    last = next((f for f in saves if f.object_method == SAVES_SERVER), None)
    return last is not None and bool(last.task_state)


def _operation_failed(case: Case, coverage: StepCoverage, failing: Witness | None, stall_ns: int) -> Ending:
    """Return the ending of a failed operation: at its failing call, else where it went no further."""
    if failing is not None:
        call = failing.call
        time_ns = case.trace.failed_ns or call.ended_ns or call.started_ns
        stopped_at = case.grammar.earliest(failing.failed)
        return Ending("error", stopped_at, call=call, error=call.error, time_ns=time_ns)
    state_call = case.trace.failed_call
    ending = silent(case, coverage, stall_ns)
    ending.outcome, ending.call, ending.time_ns = "error", state_call, case.trace.failed_ns or 0
    if state_call is None:
        return ending
    facts = state_call.facts
    recorded = [fault for call in case.trace.calls if (fault := fault_of(call))]
    said = facts.event_error if isinstance(facts, RpcFacts) else ""
    ending.error = state_call.error or said or (recorded[-1] if recorded else "")
    steps = case.grammar.steps_refusing(case.records[state_call.serial].line, said) if said else ()
    known = [step for step in (*steps[:1], ending.stopped_at) if step is not None]
    if steps and ending.between is None:
        # Where no call shows the step, the host's report does, unless an earlier step did not happen.
        ending.stopped_at = case.grammar.earliest(known)
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
    # host was asked; what neutron reported, nova's words and bad replies (blame.py); what the last host said
    # of itself; a message that the broker refused or could not route; a reply that came too late; else
    # between which steps it lies.
    trace, grammar = case.trace, case.grammar
    state_call = trace.failed_call
    replied_ns = failed_reply.started_ns if failed_reply is not None else 0
    ending = Ending("error", call=state_call, time_ns=trace.failed_ns or replied_ns)
    last = len(case.attempts) - 1
    failing = failing_of_attempt(case, last)
    given_up = gave_up(case, last) if case.attempts else None
    if given_up is not None and given_up.asks_another:
        ending.left = _what_was_left(case, given_up, failed_reply)
    if failing is not None:
        ending.call, ending.error = failing.call, failing.call.error or said_of(failing)
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
        if (met := failed_meanwhile(case, failed_reply)) is not None:
            ending.call, ending.how, ending.peer = met.call, met.how, met.peer
        return ending
    late = _answered_late(case)
    blamed = blame(case, coverage) if late is None or case.attempts else None
    if blamed is not None and not _came_after(given_up, blamed.call):
        _blamed(case, coverage, ending, blamed, given_up)
        return ending
    if case.attempts and _said_by_host(case, coverage, ending, given_up):
        return ending
    lost = next((w for w in case.witnesses if w.failed and w.record.protocol == "RPC" and not w.steps), None)
    if lost is not None:
        ending.stopped_at = grammar.earliest(lost.failed)
        ending.call, ending.error = lost.call, lost.call.error
        return ending
    recorded = [each.words for each in words_of(case) if each.call not in trace.polls]
    ending.error = next(reversed(recorded), "") or (state_call.error if state_call is not None else "")
    if late is not None and not case.attempts:
        ending.stopped_at = late
    else:
        first_absent(case, coverage, ending)
        _claim_no_more(case, coverage, ending)
    return ending


def _came_after(given_up: GaveUp | None, call: Call | None) -> bool:
    """Return whether *call* came after the last host had asked for another one: then it is no cause."""
    if given_up is None or call is None or not given_up.asks_another:
        return False
    return call.started_ns > given_up.call.started_ns


def _blamed(
    case: Case, coverage: StepCoverage, ending: Ending, blamed: Blame, given_up: GaveUp | None
) -> None:
    """Set where a creation stopped by what the services said of it."""
    ending.how, ending.peer, ending.error = blamed.how, blamed.peer, blamed.error
    ending.expected = blamed.expected
    ending.call = blamed.call or ending.call
    begun = begun_in(case, len(case.attempts) - 1) if case.attempts else None
    if not blamed.how:
        ending.by_host = given_up is not None
        ending.state = begun.word if begun is not None else ""
    if blamed.step is not None:
        ending.stopped_at = blamed.step
    elif begun is not None:
        at_begun(case, coverage, ending, begun)
    else:
        first_absent(case, coverage, ending)
        _claim_no_more(case, coverage, ending)


def _claim_no_more(case: Case, coverage: StepCoverage, ending: Ending) -> None:
    """Replace the step of *ending*, the first that did not happen, by what is known, if nothing shows that it
    failed: the last step that was seen, and that one.

    A reply that did not come, a message that the broker holds and a call without an answer do show it.
    """
    grammar, step = case.grammar, ending.stopped_at
    since_ns = case.attempts[-1].since_ns if case.attempts else 0
    waiting = unanswered(case, coverage, since_ns)
    if step is None or coverage.owed_by_broker(step) or (waiting is not None and waiting.step == step):
        return
    if any(_is_asked(case, method) for method in grammar.replies(step)):
        return
    required = [s.name for s in grammar.steps if s.name in case.required]
    at = required.index(step) if step in required else 0
    # Where all steps were seen, any of the attempt may have failed.
    seen = bool(case.step_calls(step)) and bool(grammar.attempt)
    before = grammar.attempt[0] if seen else required[max(0, at - 1)]
    ending.stopped_at, ending.between = None, (before, step)


def _is_asked(case: Case, method: str) -> bool:
    """Return whether a call of *method* was seen, whose reply is a step."""
    return any(
        isinstance(c.facts, RpcFacts) and c.facts.mode == "call" and c.facts.method == method
        for c in case.trace.calls
    )


def _said_by_host(case: Case, coverage: StepCoverage, ending: Ending, given_up: GaveUp | None) -> bool:
    """Set where a creation stopped by what the last host said of itself; return whether it said enough.

    The last state that it saved names the step. Where it gave up without one, the step is the first that did
    not happen, as far as that is known.
    """
    begun = begun_in(case, len(case.attempts) - 1)
    if begun is None and (given_up is None or not given_up.asks_another):
        return False
    if begun is not None:
        ending.state = begun.word
        at_begun(case, coverage, ending, begun)
    else:
        first_absent(case, coverage, ending)
        _claim_no_more(case, coverage, ending)
    if given_up is not None:
        ending.call, ending.error, ending.by_host = given_up.call, given_up.reason, True
    elif ending.call is not None:
        ending.error = ending.call.error
    return True


def _what_was_left(case: Case, given_up: GaveUp, failed_reply: Call | None) -> str:
    """Return, in nova's words, why no other host was asked after the last one gave up; '' if unknown."""
    after = [call for call in case.trace.calls if call.started_ns > given_up.call.started_ns]
    if failed_reply is not None and failed_reply in after:
        return failed_reply.error
    return next((fault for call in after if (fault := fault_of(call)) and fault != given_up.reason), "")


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
    # Where the message that asks the host is not in the captures, the calls of any host count.
    since_ns, until_ns = span_of(case, number)
    of_attempt = [w for w in case.witnesses if since_ns <= w.call.started_ns < until_ns]
    for witness in of_attempt:
        if witness.record.caller != HOST_SERVICE or witness.record.protocol != "REST" or not witness.failed:
            continue
        if not _succeeded_later(witness, of_attempt):
            return witness
    # Of an attempt that built the VM nothing was left open: its end was not asked for, or not captured.
    built = case.trace.active_ns is not None and number == len(case.attempts) - 1
    return None if built else not_done(of_attempt)


def _succeeded_later(failing: Witness, others: Sequence[Witness]) -> bool:
    """Return whether a call that failed was repeated with success (a token renewed, a retry).

    After a refused connection any later call of the same step counts as its repetition.
    """
    # The VRM answers 401 in healthy creations: then come a new login and the same call again.
    is_connection = isinstance(failing.call.facts, ConnectFacts)
    if getattr(failing.call.facts, "condition", "") == BAD:
        # Its body says that it failed. What is asked of the same resource to clean up is answered well.
        return is_good_later(failing, others)
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
    said = shown_in(case, len(case.attempts) - 1, last_step)
    if said or (built and failing_of_attempt(case, len(case.attempts) - 1) is None):
        return None
    plane = case.records[last.call.serial].plane if last.call is not None else "*"
    seen_ns = coverage.seen_for_ns(plane, case.first_ns)
    return (plane, case.first_ns + seen_ns) if case.first_ns + seen_ns < ending.time_ns else None
