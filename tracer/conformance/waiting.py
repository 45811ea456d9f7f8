"""What a workflow waits for that neither succeeded nor failed: the call, the host or the step that is owed.

It is stuck when the captures go on for the stall limit and would have shown what it waits for; else
unfinished. A call without an answer comes first, then what the host says of itself, then the first step that
did not happen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tracer.conformance.blame import reply_that_stopped
from tracer.conformance.bodies import not_done, said_of
from tracer.conformance.case import Case, Ending, Said, Witness
from tracer.conformance.refusals import failing_in_api, hangs_in_api, step_of_failure
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.told import begun_in, span_of
from tracer.model import BOTH, Call, ConnectFacts, RestFacts
from tracer.openstack.services import HOST_SERVICE, PROXY

__all__ = ["at_begun", "first_absent", "only_refused", "silent", "step_begun", "unanswered"]


def silent(case: Case, coverage: StepCoverage, stall_ns: int) -> Ending:
    """Return the ending of a trace that neither succeeded nor failed: stuck, or unfinished."""
    # Silence means something only where the next step would have been seen: the clock runs while every plane
    # that could carry it is captured. A capture of one plane that goes on longer proves nothing.
    last_ns = case.last_own_ns()
    ending = Ending("unfinished", time_ns=last_ns)
    begun = begun_in(case, len(case.attempts) - 1)
    first_absent(case, coverage, ending, is_silent=True)
    # A call that was captured and has no answer: its answer would have been captured as well.
    since_ns = case.attempts[-1].since_ns if case.attempts else 0
    waiting = unanswered(case, coverage, since_ns)
    if begun is not None and case.attempts and waiting is None:
        # The host says where it is, unless a call of it waits for an answer.
        at_begun(case, coverage, ending, begun)
        if ending.stopped_at == begun.begun:
            ending.state = begun.word
    left_open = _left_open(case) if waiting is None else None
    if left_open is not None:
        ending.stopped_at, ending.between, ending.state = case.grammar.earliest(left_open.all_steps), None, ""
    owed = ending.stopped_at or (ending.between[1] if ending.between else None)
    end_ns = coverage.captured_until_ns(owed, bool(ending.state))
    quiet = waiting is not None or coverage.quiet_is_known(owed, last_ns, bool(ending.state))
    if end_ns - last_ns >= stall_ns and quiet:
        ending.outcome = "stuck"
    ending.call = waiting.call if waiting is not None else _last_own_call(case)
    stopped = reply_that_stopped(case, coverage, since_ns)
    if stopped is not None and ending.outcome == "stuck":
        ending.call, ending.how, ending.error = stopped.call, stopped.how, stopped.error
        ending.peer = stopped.peer
    elif left_open is not None and ending.outcome == "stuck":
        record = left_open.record
        ending.call, ending.peer, ending.error = left_open.call, record.callee, said_of(left_open)
        ending.how = f"{record.callee} answered {record.result} to {record.operation}"
    return ending


def _left_open(case: Case) -> Witness | None:
    """Return the last call of the last host, if its answer says that what was asked for is not done yet."""
    since_ns = case.attempts[-1].since_ns if case.attempts else 0
    made = [w for w in case.witnesses if w.call.started_ns >= since_ns and w.record.caller == HOST_SERVICE]
    found = not_done(made)
    return found if found is not None and found.call is made[-1].call else None


def _last_own_call(case: Case) -> Call:
    """Return the last call of a trace that waits for no call of its own; or the request, if that is open."""
    created = case.trace.created
    if created is None or case.attempts or _is_accepted(created) or not isinstance(created.facts, RestFacts):
        return _last_sign(case)
    return _last_sign(case) if created.facts.status else created


def _last_sign(case: Case) -> Call:
    """Return the last call of a trace that tells how far it came.

    A look-up that is refused, as of an extension that the cloud lacks, tells nothing.
    """
    known = {w.call.serial for w in case.witnesses}
    told = (c for c in reversed(case.trace.calls) if c.serial in known or not _is_turned_down(c))
    return next(told, case.trace.calls[-1])


def _is_turned_down(call: Call) -> bool:
    """Return whether a service refused *call* by its own judgement."""
    return isinstance(call.facts, RestFacts) and 400 <= call.facts.status < 500


def only_refused(witnesses: Sequence[Witness], ending: Ending) -> bool:
    """Return whether a step got no further than failed connections, in a creation that may still retry."""
    waits = ending.outcome in ("stuck", "deleted", "unfinished")
    return waits and bool(witnesses) and all(isinstance(w.call.facts, ConnectFacts) for w in witnesses)


# --- the first step that did not happen -------------------------------------------------------------


def first_absent(case: Case, coverage: StepCoverage, ending: Ending, is_silent: bool = False) -> None:
    """Set where a creation without a visible failure stopped: at the first step that did not happen.

    Where the captures could not have shown that step, `between` is set instead: to the last step that was
    seen and the first one that would have been. With *is_silent* (it has not failed) it is enough that nova
    would have said that the step is done.
    """
    steps = [s for s in case.grammar.steps if s.name in case.required]
    since_ns = case.attempts[-1].since_ns if case.attempts else 0
    ended_ns = ending.time_ns if ending.outcome == "error" else 0
    waiting = unanswered(case, coverage, since_ns, ended_ns)
    last_seen, absent = -1, list[str]()
    for i, step in enumerate(steps):
        # Each attempt repeats these steps: those of an earlier attempt do not count.
        is_repeated = len(case.attempts) > 1 and step.name in case.grammar.attempt[1:]
        calls = case.step_calls(step.name)
        calls += [w for w in case.witnesses if step.name in w.failed and _is_given_up(case, w)]
        if any(w.call.started_ns >= since_ns or not is_repeated for w in calls):
            last_seen = i
        elif not case.trace.creates:
            absent.append(step.name)
    if waiting is not None:
        ending.stopped_at = waiting.step
        return
    # What a host saves comes beside the messages of an operation: the last step may be seen before another.
    earlier = next((step for step in absent if coverage.would_show(step)), None)
    if earlier is not None and case.grammar.places[earlier] < case.grammar.places[steps[last_seen].name]:
        ending.stopped_at = earlier
        return
    if last_seen + 1 >= len(steps):
        # All steps were seen and the VM is not active: the last step has not ended.
        ending.stopped_at = steps[-1].name
        return
    following = steps[last_seen + 1]
    inferred = _inferred_before(case, following.name)
    if inferred is not None and coverage.would_show(following.name):
        ending.stopped_at = inferred
        return
    if _may_be_refused(case, following.name):
        in_api = case.grammar.asked_by(case.grammar.api)
        ending.between = (steps[max(last_seen, 0)].name, in_api[-1])
        return
    would_be_told = is_silent and coverage.would_be_told(following.name)
    if (
        coverage.would_show(following.name)
        or coverage.owed_by_broker(following.name, ended_ns)
        or would_be_told
    ):
        ending.stopped_at = following.name
        return
    visible = next((s.name for s in steps[last_seen + 1 :] if coverage.would_show(s.name)), None)
    before = steps[last_seen].name if last_seen >= 0 else steps[0].name
    ending.between = (before, visible or steps[-1].name)


def _inferred_before(case: Case, step: str) -> str | None:
    """Return the step right before *step* if the API hangs, and nothing shows that it was past that.

    It may leave nothing on the wire; the API owes it all the same, as where a proxy gives the API up.
    """
    created, inside = case.trace.created, case.grammar.asked_by(case.grammar.api)
    if created is None or case.attempts or _is_accepted(created) or step not in inside[1:]:
        return None
    before = inside[inside.index(step) - 1]
    return before if before in case.grammar.inferred and not case.step_calls(before) else None


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


# --- what the host says of itself -------------------------------------------------------------------


def step_begun(case: Case, coverage: StepCoverage, begun: str) -> str:
    """Return the step at which a host is that says that it has begun *begun*.

    A required step before it that is not seen and would have been is where it is: nova-compute asks for the
    network in a thread of its own, and waits for that where it needs it.
    """
    return next((step for step in _unseen_before(case, begun) if coverage.would_show(step)), begun)


def at_begun(case: Case, coverage: StepCoverage, ending: Ending, begun: Said) -> None:
    """Set where a host is, or stopped, whose last state says that it has begun a step."""
    step = step_begun(case, coverage, begun.begun)
    ending.stopped_at, ending.between = step, None
    hidden = _hidden_before(case, coverage, step)
    last = case.grammar.attempt[-1]
    if hidden is not None:
        # Its thread may have failed meanwhile, and the captures could not show it.
        ending.stopped_at, ending.between = None, (hidden, step)
    elif step != last and coverage.may_lack_states(begun.call.started_ns, ending.time_ns):
        ending.stopped_at, ending.between = None, (step, last)


def _hidden_before(case: Case, coverage: StepCoverage, step: str) -> str | None:
    """Return the first required step of the last attempt before *step* that the captures could not show."""
    return next((each for each in _unseen_before(case, step) if not coverage.would_show(each)), None)


def _unseen_before(case: Case, step: str) -> Iterator[str]:
    """Yield the required steps of the last attempt before *step* of which no call was seen."""
    since_ns = span_of(case, len(case.attempts) - 1)[0]
    places = case.grammar.places
    for each in case.grammar.attempt[1:]:
        if places[each] >= places[step]:
            return
        seen = any(w.call.started_ns >= since_ns for w in case.step_calls(each))
        if each in case.required and not seen:
            yield each


# --- a call without an answer -----------------------------------------------------------------------


class _Waiting(NamedTuple):
    """A call that has no answer, and the step that it belongs to."""

    step: str
    call: Call


def unanswered(case: Case, coverage: StepCoverage, since_ns: int, ended_ns: int = 0) -> _Waiting | None:
    """Return the last call that waits for its answer, of the host or of the API; None without one.

    *ended_ns* is when the workflow ended, 0 where it waits: until then the answer would have been captured.
    """
    created = case.trace.created
    # A VM in state error was left to the services behind the API: it did not hang.
    is_left = bool(case.attempts or ended_ns)
    if created is not None and not is_left and not _is_accepted(created):
        found = _unanswered_in_api(case, coverage, created)
        if found is not None:
            return found
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
    step = case.grammar.earliest(waiting[-1].all_steps) if waiting else None
    return _Waiting(step, waiting[-1].call) if step is not None else None


def _was_left(case: Case, doing: Call) -> bool:
    """Return whether a step behind those of the API began after *doing*: it did not hang there."""
    last = max((case.grammar.places[step] for step in case.grammar.asked_by(case.grammar.api)), default=0)
    return any(
        w.call.started_ns > doing.started_ns and any(case.grammar.places[step] > last for step in w.steps)
        for w in case.witnesses
    )


def _unanswered_in_api(case: Case, coverage: StepCoverage, created: Call) -> _Waiting | None:
    """Return the call in which the API hangs, or failed, and leaves its client without an answer.

    It may be a call to the broker, to the database or to another service: the innermost one is the cause.
    """
    grammar = case.grammar
    failed, doing = failing_in_api(case, created), hangs_in_api(case, created)
    last_ns = max((w.call.started_ns for w in case.witnesses if w.steps), default=0)
    step = None
    if failed is not None and failed.started_ns >= last_ns:
        step = step_of_failure(case, failed)
    elif doing is not None and not (coverage.may_lack_answer(doing) or _was_left(case, doing)):
        failed, step = doing, step_of_failure(case, doing)
    if failed is not None and step is not None:
        return _Waiting(step, failed)
    leg = next((w for w in case.witnesses if w.call is created), None)
    if leg is None or created.started_ns < last_ns:
        return None
    hop = grammar.proxy_step if leg.record.callee == PROXY else None
    if hop is not None and (
        _is_given_up(case, leg) or (leg.record.result == "?" and coverage.would_show(hop))
    ):
        # The proxy owes the step behind it.
        return _Waiting(hop, created)
    # A service that made no call yet is at none of its own steps.
    step = grammar.earliest(leg.failed) if _is_given_up(case, leg) else None
    return _Waiting(step, created) if step is not None else None
