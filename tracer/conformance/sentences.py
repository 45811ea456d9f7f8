"""The sentences of a verdict: its summary and the messages of its deviations and notes.

One sentence names who, what and how long; the operator must be able to act on it alone. Ids, frames and
addresses are added by the reports.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tracer.alignment.out_of_order import OutOfOrder
from tracer.conformance.answers import (
    candidates_offered,
    claim_refused,
    claim_words,
    resources_wanted,
    selects_host,
)
from tracer.conformance.call_words import (
    NOT_TAKEN,
    REFUSED,
    after_colon,
    between_words,
    brief,
    call_words,
    failing_end,
    last_message,
    with_error,
)
from tracer.conformance.case import Case, Ending
from tracer.conformance.outcome import failing_of_attempt, host_unknown_after
from tracer.conformance.stalls import deletion_words, open_call, so_far, stall
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import time_words
from tracer.grammar import Grammar
from tracer.grammar.patterns import expected_of
from tracer.model import (
    CLOSED_UNANSWERED,
    Attempt,
    Call,
    CallRecord,
    ConnectFacts,
    Deviation,
    RestFacts,
    RpcFacts,
    StepResult,
)
from tracer.openstack.rest import validates_token
from tracer.openstack.services import BROKER, HOST_SERVICE, KEYSTONE, NOVA_SCHEDULER, PROXY
from tracer.openstack.states import TASK_FAILED

__all__ = [
    "cause_of",
    "expected_words",
    "failure_words",
    "granted_words",
    "host_words",
    "missing_words",
    "order_words",
    "peer_of",
    "retry_words",
    "shown_for",
    "summary_words",
]


def peer_of(case: Case, ending: Ending, coverage: StepCoverage) -> str:
    """Return the role that failed, or that owes the step; empty where the captures do not show it."""
    if ending.hindrance is not None:
        return ending.hindrance.peer
    if ending.peer:
        return ending.peer
    if ending.outcome == "deleted":
        waits = open_call(case, ending)
        return waits.callee if waits is not None else case.grammar.caller(ending.stopped_at)
    if ending.outcome == "stuck":
        return stall(case, ending, coverage).peer
    record = case.records.get(ending.call.serial) if ending.call is not None else None
    if ending.by_host:
        return HOST_SERVICE
    if record is None or ending.call is case.trace.failed_call:
        return case.grammar.caller(ending.stopped_at)
    if record.protocol != "RPC" or record.operation.startswith("CONNECT"):
        return failing_end(record)
    if ending.proxy is not None and record.result == "undelivered":
        return BROKER
    if record.result == "failure":
        return record.caller
    return BROKER if record.result in ("unroutable", "error") else record.callee


def shown_for(case: Case, ending: Ending) -> CallRecord | None:
    """Return the call that shows where the creation failed.

    For a VM that was put in error because a reply did not come it is the message that waited for the reply;
    else the call that ended the creation.
    """
    if ending.call is None:
        return None
    is_known_by_state = ending.outcome == "error" and ending.call is case.trace.failed_call
    if is_known_by_state and case.grammar.replies(ending.stopped_at):
        return last_message(case) or case.records.get(ending.call.serial)
    if ending.outcome == "rejected" and ending.call is case.trace.created:
        # The API repeats the refusal of another service: the token is unknown, the image does not exist. The
        # other service's answer is the better evidence.
        api = case.grammar.api
        inner = [w for w in case.witnesses if ending.stopped_at in w.failed and w.record.caller == api]
        if inner:
            return inner[-1].record
    return case.records.get(ending.call.serial)


def cause_of(case: Case, ending: Ending, coverage: StepCoverage) -> str:
    """Return the cause: the text of the fault, else the result of the last call."""
    if ending.outcome == "deleted":
        return f"deleted {deletion_words(case, ending)}"
    if ending.hindrance is not None:
        return ending.hindrance.words
    if ending.outcome == "stuck":
        return stall(case, ending, coverage).cause
    if ending.how:
        return f"{ending.how}{after_colon(ending.error)}"
    if unknown := _unknown_token(case, ending):
        return unknown
    record = case.records.get(ending.call.serial) if ending.call is not None else None
    if ending.proxy is not None and record is not None and ending.call is not ending.proxy:
        return _hung_words(case, ending, record)
    if record is not None and (record.answered_by or record.error.startswith(CLOSED_UNANSWERED)):
        return call_words(record)
    if ending.error and ending.error != REFUSED:
        return ending.error
    message = last_message(case)
    if ending.state:
        return f"state error, after {ending.state}"
    if message is not None and message.result in NOT_TAKEN:
        record = message
    if record is None or (ending.call is case.trace.failed_call and record is not message):
        return ""
    return call_words(record)


def failure_words(case: Case, ending: Ending, coverage: StepCoverage) -> str:
    """Return the message of a failed creation."""
    left = f"; no other host was left: {ending.left}" if ending.left else ""
    if ending.proxy is not None:
        return _proxy_words(case, ending, coverage, ending.proxy) + left
    return _own_failure_words(case, ending) + left


def _own_failure_words(case: Case, ending: Ending) -> str:
    """Return the message of a failed creation without what was left after it."""
    where = f"step {ending.stopped_at} failed" if ending.stopped_at else between_words(ending)
    while_ = f" in state {ending.state}" if ending.state else ""
    record = case.records.get(ending.call.serial) if ending.call is not None else None
    if ending.hindrance is not None:
        state = "; the VM was put in state error" if ending.call is case.trace.failed_call else ""
        how = f"; {ending.how}" if ending.how else ""
        return f"{where}: {ending.hindrance.words}{how}{state}{after_colon(ending.error)}"
    if ending.how:
        return f"{where}: {ending.how}{after_colon(ending.error)}"
    who = f"{HOST_SERVICE} on {case.attempts[-1].host}" if case.attempts else HOST_SERVICE
    if ending.peer and not ending.by_host:
        # Nova's own words, however they travelled.
        return f"{where}: {who} could not build the VM{after_colon(ending.error)}"
    if record is None:
        return where + after_colon(ending.error)
    if ending.by_host:
        if not while_ and re.match(r"\w+: ", ending.error):
            return f"{where}: {who} reported {ending.error}"
        return f"{where}: {who} gave up{while_}{after_colon(ending.error)}"
    if ending.outcome == "error" and ending.call is case.trace.failed_call:
        how = "the VM was put in state error"
        if ending.state:
            on = f" on {case.attempts[-1].host}" if case.attempts else ""
            how += f", after {ending.state}{on}"
            if not ending.error:
                is_sure = not case.is_damaged() and not case.trace.curtailed
                how += f"; no reason {'was recorded' if is_sure else 'is in the captures'}"
        last = last_message(case)
        if last is not None and case.grammar.replies(ending.stopped_at):
            how = f"{last.operation} {_unanswered_words(case, last)}; {how}"
        return f"{where}: {how}{after_colon(ending.error)}"
    unknown = _unknown_token(case, ending)
    if unknown:
        return f"{where}: {unknown}"
    if record.operation.startswith("reply ") and selects_host(case, ending.stopped_at):
        # Its exception is known by its name.
        answer = f"{record.caller} answered {ending.error}" if ending.error else call_words(record)
        return f"{where}: {_offered(case)}{answer}"
    text = f"{where}: {call_words(record)}"
    facts = ending.call.facts if ending.call is not None else None
    if isinstance(facts, RestFacts) and facts.status_text == TASK_FAILED:
        text = f"{where}: {record.callee} reports that the task failed ({record.operation})"
    if isinstance(facts, ConnectFacts):
        return text
    return with_error(text, ending.error)


def _proxy_words(case: Case, ending: Ending, coverage: StepCoverage, leg: Call) -> str:
    """Return the message of a request that a proxy answered by itself on *leg*."""
    where = f"step {ending.stopped_at} failed" if ending.stopped_at else between_words(ending)
    proxy, api = case.records[leg.serial], case.grammar.api
    said = f"{proxy.callee} answered {proxy.result} by itself to {proxy.operation}"
    record = case.records[ending.call.serial] if ending.call is not None else proxy
    if ending.hindrance is not None:
        return f"{where}: {ending.hindrance.words}; {said}"
    if record is proxy:
        hop = case.grammar.proxy_step
        is_whole = hop is not None and coverage.would_show(hop)
        passed = "and did not pass it on" if is_whole else f"and no {api} is seen behind it"
        return f"{where}: {said} {passed}{after_colon(leg.error)}"
    return f"{where}: {_hung_words(case, ending, record)}; {said}"


def _hung_words(case: Case, ending: Ending, record: CallRecord) -> str:
    """Return what the service was doing, in *record*, when a proxy gave it up."""
    if record.protocol == "RPC" and record.result == "undelivered":
        return f"{BROKER} never confirmed {record.operation} of {record.caller}{after_colon(ending.error)}"
    if ending.call is case.trace.created:
        does = call_words(record, is_silent=True)
        if record.error.startswith(CLOSED_UNANSWERED):
            return does
        made = [w.record for w in case.witnesses if w.record.caller == case.grammar.api and w.steps]
        return does + (f", its last call was {made[-1].operation}" if made else ", and made no call")
    is_late = record.result in ("?", "none", "ok") or record.result[:1] in "23"
    if is_late and not record.operation.startswith("CONNECT"):
        return f"{record.callee} had not answered {record.operation} of {record.caller}"
    return call_words(record)


def _unknown_token(case: Case, ending: Ending) -> str:
    """Return, in words, that keystone does not know a token and who presented it; empty for other failures.

    The token that is validated is in a header, and 404 means that this token is unknown (Identity API v3).
    """
    shown, created = shown_for(case, ending), case.trace.created
    if shown is None or created is None or shown.callee != KEYSTONE or shown.result != "404":
        return ""
    if not validates_token(shown.operation):
        return ""
    presented = case.records.get((created.front or created).serial)
    who = presented.caller if presented is not None else "?"
    by = f" that {who} presented" if who not in ("?", PROXY) else " of the request"
    status = case.records[created.serial].result
    return f"keystone does not know the token{by} (404), so {shown.caller} answered {status}"


def _unanswered_words(case: Case, last: CallRecord) -> str:
    """Return what happened to *last*, a message whose reply did not come in time."""
    if last.result == "undelivered":
        return f"was published, never delivered to {last.callee} and never answered"
    for witness in case.witnesses:
        facts = witness.call.facts
        if witness.record is last and isinstance(facts, RpcFacts) and facts.answered_ns is not None:
            took = time_words(facts.answered_ns - witness.call.started_ns)
            return f"was answered by {last.callee} only after {took}"
    if last.result == "ok":
        return f"was delivered to {last.callee}, and {last.callee} never answered"
    return f"was never answered by {last.callee}"


def _offered(case: Case) -> str:
    """Return, before a semicolon, whether placement offered no host, refused a claim, or filters refused all.

    With what was asked for.
    """
    offer = candidates_offered(case)
    if offer is None or not isinstance(offer.facts, RestFacts):
        return ""
    count, wanted = offer.facts.candidates, resources_wanted(offer.facts.query)
    if not count:
        return f"placement offered no host{wanted}; "
    hosts, all_of_them = ("1 host", "it") if count == 1 else (f"{count} hosts", "them all")
    claim = claim_refused(case)
    if claim is not None:
        return f"placement offered {hosts}{wanted} and {claim_words(claim)}; "
    return f"placement offered {hosts}{wanted} and {NOVA_SCHEDULER} refused {all_of_them}; "


def expected_words(grammar: Grammar, step: str | None, by_state: bool = False) -> tuple[str, ...]:
    """Return the lines of calls that would be evidence of *step*; () for a step that is not known.

    With *by_state* these are the states by which nova says that the step is done.
    """
    if step not in grammar.places:
        return ()
    found = grammar.step(step)
    names = grammar.shown_by(step) if by_state else found.terminals
    lines = dict.fromkeys(expected_of(grammar.terminals[name].pattern) for name in names)
    return tuple(f"{line}: {found.title}" for line in lines)


def granted_words(case: Case, ending: Ending, shown: CallRecord | None) -> tuple[str, ...]:
    """Return the answer that was expected in place of the refusal *shown*; () where it is no such refusal.

    A service that refuses by its own judgement has done the call of the step that stopped it, or makes none.
    """
    witness = next((w for w in case.witnesses if w.record is shown), None)
    step = ending.stopped_at or (ending.between[1] if ending.between else None)
    if ending.outcome != "rejected" or ending.proxy is not None or witness is None or step is None:
        return ()
    if step in witness.failed or witness.record.callee != case.grammar.caller(step):
        return ()
    terminals = (case.grammar.automaton.symbols[c.symbol].terminal for c in witness.candidates)
    found = (expected_of(case.grammar.terminals[name].pattern) for name in terminals)
    good = next(found).rpartition(" ")[2]
    record, title = witness.record, case.grammar.step(step).title
    return (f"{record.protocol} {record.caller} > {record.callee} {record.operation} {good}: {title}",)


def missing_words(step: StepResult, steps: Sequence[StepResult]) -> str:
    """Return the message of a step that should have been seen."""
    later = [s.step for s in steps[[s.step for s in steps].index(step.step) + 1 :] if s.status == "seen"]
    follows = f", although step {later[0]} after it was seen" if later else ""
    return f"step {step.step} ({step.title}) never came{follows}"


def retry_words(case: Case, attempts: Sequence[Attempt], is_known: bool = True) -> str:
    """Return the hosts that failed before the last one, with the step and the peer of each failure.

    *is_known* says that the last host built the VM.
    """
    failures = []
    for number, attempt in enumerate(attempts[:-1]):
        where = f"failed at {attempt.stopped_at}" if attempt.stopped_at else "failed"
        failing = failing_of_attempt(case, number)
        who = ""
        if failing is not None and failing.record.result.isdigit():
            who = f"{failing.record.callee} answered {failing.record.result}"
        elif failing is not None:
            who = call_words(failing.record)
        words = attempt.error if attempt.error != REFUSED else ""
        failures.append(f"{attempt.host} {where}{after_colon(who)}{after_colon(words)}")
    end = "built it" if is_known else "was asked last"
    return f"rescheduled: {', then '.join(failures)}; {attempts[-1].host} {end}"


def host_words(case: Case, unknown_after: tuple[str, int]) -> str:
    """Return, in words, why the host that built the VM is unknown; *unknown_after* is (plane, end in ns)."""
    plane, end_ns = unknown_after
    hosts = ", then ".join(tried.host for tried in case.attempts)
    what = "the capture" if plane == "*" else plane
    ends = (end_ns - case.first_ns) / 1e9
    return f"asked {hosts}; {what} ends at +{ends:.1f} s, so the host that built it is unknown"


def order_words(moved: OutOfOrder, record: CallRecord) -> str:
    """Return the message of a call out of order."""
    if moved.changed_with is not None and moved.changed_with != moved.step:
        return f"steps {moved.step} and {moved.changed_with} have changed places: {record.line}"
    place = f"after step {moved.after}" if moved.after else "before all others"
    return f"step {moved.step} is out of order, it belongs {place}: {record.line}"


def summary_words(
    case: Case,
    ending: Ending,
    coverage: StepCoverage,
    steps: Sequence[StepResult],
    deviations: Sequence[Deviation],
) -> str:
    """Return the verdict in one sentence: the outcome, where and after what time, then what is not known."""
    took = time_words(max(0, ending.time_ns - case.first_ns))
    if ending.outcome in ("rejected", "error"):
        became = "in error" if ending.outcome == "error" else ending.outcome
        return f"{brief(failure_words(case, ending, coverage))} ({became} after {took})"
    if ending.outcome == "stuck":
        return f"stuck: {brief(stall(case, ending, coverage).words)}"
    if ending.outcome == "deleted":
        return brief(f"deleted after {took} {deletion_words(case, ending)}")
    hidden = [s.step for s in steps if s.status == "unobserved" and s.step in case.required]
    unseen = f"; {len(hidden)} of {len(steps)} steps cannot be seen in these captures" if hidden else ""
    if ending.outcome == "unfinished":
        where = f"before step {ending.stopped_at}"
        if ending.stopped_at is None:
            where = f"between steps {' and '.join(ending.between or ())}"
        return f"unfinished: the capture ends {where}{so_far(case, ending, coverage)}{unseen}"
    unknown_after = host_unknown_after(case, ending, coverage)
    if unknown_after is not None:
        unseen = f"; {host_words(case, unknown_after)}{unseen}"
    host = f" on {case.attempts[-1].host}" if case.attempts and unknown_after is None else ""
    tries = f" at attempt {len(case.attempts)}" if len(case.attempts) > 1 else ""
    if deviations:
        return f"{ending.outcome}{host} after {took}{tries}, but {brief(deviations[0].message)}{unseen}"
    return f"{ending.outcome}{host} after {took}{tries}{unseen}"
