"""The sentences of a verdict: its summary and the messages of its deviations and notes.

One sentence names who, what and how long; the operator must be able to act on it alone. Ids, frames and
addresses are added by the reports.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracer.alignment.out_of_order import OutOfOrder
from tracer.conformance.answers import candidates_offered, claim_refused, claim_words, selects_host
from tracer.conformance.bodies import not_done, said_of
from tracer.conformance.case import Case, Ending, Said
from tracer.conformance.outcome import failing_of_attempt, host_unknown_after
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import time_words
from tracer.conformance.told import begun_in
from tracer.grammar import Grammar
from tracer.grammar.patterns import expected_of
from tracer.model import Attempt, Call, CallRecord, ConnectFacts, Deviation, RestFacts, RpcFacts, StepResult
from tracer.openstack.rest import validates_token
from tracer.openstack.services import BROKER, HOST_SERVICE, KEYSTONE, PROXY
from tracer.openstack.states import TASK_FAILED

__all__ = [
    "between_words",
    "cause_of",
    "deletion_words",
    "expected_words",
    "failure_words",
    "granted_words",
    "host_words",
    "missing_words",
    "order_words",
    "owed_by",
    "owes",
    "peer_of",
    "retry_words",
    "shown_for",
    "stall_words",
    "stalled_in",
    "summary_words",
]

_BROKER = {
    "undelivered": "was published and never delivered: no consumer took it from the queue",
    "unacked": "was delivered and not acknowledged",
    "unroutable": "could not be routed: no queue is bound for it",
    "ok": "was delivered and acknowledged, then silence",
}
_UNFETCHED = ("undelivered", "unacked", "unroutable")
CLOSED_UNANSWERED = "closed the connection without an answer: it died or was restarted"
"""The error of a call whose server closed the connection (calls/rest.py)."""
REFUSED = "Connection refused"
"""The error of a refused connection. It is no text of a service, so it is not quoted as a cause."""


def _after_colon(text: str) -> str:
    return f": {text}" if text else ""


def call_words(record: CallRecord) -> str:
    """Return the result of a call in words, as in 'neutron-server answered 503 to POST /v2.0/ports'."""
    operation = record.operation
    if operation.startswith("CONNECT"):
        verb = (
            "refused the connection of"
            if record.result == "refused"
            else "never answered the connection attempt of"
        )
        port = operation.removeprefix("CONNECT ")
        callee = f"{record.callee} ({record.callee_address}{port})"
        if record.error and record.error != REFUSED and record.result != "refused":
            verb = "never finished connecting with" if record.result == "none" else "refused the client"
            return f"{callee} {verb} {record.caller} ({record.caller_address}): {record.error}"
        return f"{callee} {verb} {record.caller} ({record.caller_address})"
    if record.protocol == "RPC":
        if record.result == "failure":
            return f"{record.caller} answered {operation.removeprefix('reply ')} with a failure"
        if record.result in _BROKER:
            return f"{operation} from {record.caller} to {record.callee} {_BROKER[record.result]}"
        if record.result == "error":
            return f"{operation} from {record.caller} to {record.callee} was refused by the broker"
        return f"{operation} from {record.caller} to {record.callee}: {record.result}"
    if record.result == "none" and record.error == CLOSED_UNANSWERED:
        return f"{record.callee} {record.error} ({operation} of {record.caller})"
    if record.result == "none":
        return f"{record.callee} never answered {operation} of {record.caller}"
    if record.result == "?":
        return f"{record.callee}'s answer to {operation} of {record.caller} is not in the capture"
    return f"{record.callee} answered {record.result} to {operation}"


def owes(grammar: Grammar, step: str, host: str | None) -> str:
    """Return who owes *step*; *host* is the one that builds the VM, where it is known."""
    role = grammar.caller(step)
    return f"{role} on {host}" if role == HOST_SERVICE and host else role


def owed_by(case: Case, step: str) -> str:
    """Return who owes *step*, with the host where it is known."""
    return owes(case.grammar, step, case.attempts[-1].host if case.attempts else None)


def peer_of(case: Case, ending: Ending) -> str:
    """Return the role that failed, or that owes the step; empty where the captures do not show it."""
    if ending.hindrance is not None:
        return ending.hindrance.peer
    if ending.peer:
        return ending.peer
    if ending.outcome == "deleted":
        waits = _open_call(case, ending)
        return waits.callee if waits is not None else case.grammar.caller(ending.stopped_at)
    record = case.records.get(ending.call.serial) if ending.call is not None else None
    step = ending.stopped_at
    if ending.by_host:
        return HOST_SERVICE
    if record is not None and ending.outcome == "stuck" and _is_waited_for(record):
        return record.callee
    if record is None or ending.outcome == "stuck" or ending.call is case.trace.failed_call:
        return case.grammar.caller(step)
    if record.protocol != "RPC" or record.operation.startswith("CONNECT"):
        return record.callee
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
        return _last_message(case) or case.records.get(ending.call.serial)
    if ending.outcome == "rejected" and ending.call is case.trace.created:
        # The API repeats the refusal of another service: the token is unknown, the image does not exist. The
        # other service's answer is the better evidence.
        api = case.grammar.api
        inner = [w for w in case.witnesses if ending.stopped_at in w.failed and w.record.caller == api]
        if inner:
            return inner[-1].record
    return case.records.get(ending.call.serial)


def _is_waited_for(record: CallRecord) -> bool:
    """Return whether the creation waits for the callee of *record*, a REST call or a connection."""
    return record.result in ("none", "refused", "?") and (
        record.protocol == "REST" or record.operation.startswith("CONNECT")
    )


def cause_of(case: Case, ending: Ending) -> str:
    """Return the cause: the text of the fault, else the result of the last call."""
    if ending.outcome == "deleted":
        return f"deleted {deletion_words(case, ending)}"
    if ending.hindrance is not None:
        return ending.hindrance.words
    if ending.how:
        return f"{ending.how}{_after_colon(ending.error)}"
    if unknown := _unknown_token(case, ending):
        return unknown
    if ending.error and ending.error != REFUSED:
        return ending.error
    record = case.records.get(ending.call.serial) if ending.call is not None else None
    message = _last_message(case)
    if ending.state:
        what = "no state" if ending.outcome == "stuck" else "error"
        return f"{what} after {ending.state}"
    if message is not None and message.result in _UNFETCHED:
        record = message
    if record is None or (ending.call is case.trace.failed_call and record is not message):
        return ""
    if ending.outcome == "stuck" and record.result == "?" and _is_waited_for(record):
        return f"{record.callee} never answered {record.operation}"
    return call_words(record)


def failure_words(case: Case, ending: Ending) -> str:
    """Return the message of a failed creation."""
    left = f"; no other host was left: {ending.left}" if ending.left else ""
    return _own_failure_words(case, ending) + left


def _own_failure_words(case: Case, ending: Ending) -> str:
    """Return the message of a failed creation without what was left after it."""
    if ending.proxy is not None:
        return _proxy_words(case, ending, ending.proxy)
    where = f"step {ending.stopped_at} failed" if ending.stopped_at else between_words(ending)
    while_ = f" in state {ending.state}" if ending.state else ""
    record = case.records.get(ending.call.serial) if ending.call is not None else None
    if ending.hindrance is not None:
        state = "; the VM was put in state error" if ending.call is case.trace.failed_call else ""
        return f"{where}: {ending.hindrance.words}{state}{_after_colon(ending.error)}"
    if ending.how:
        return f"{where}: {ending.how}{_after_colon(ending.error)}"
    if ending.peer and not ending.by_host:
        # Nova's own words, however they travelled.
        return f"{where}: the VM was put in state error because of {ending.peer}{_after_colon(ending.error)}"
    if record is None:
        return where + _after_colon(ending.error)
    if ending.by_host:
        who = f"{HOST_SERVICE} on {case.attempts[-1].host}" if case.attempts else HOST_SERVICE
        over = f" because of {ending.peer}" if ending.peer else ""
        return f"{where}: {who} gave up{while_}{over}{_after_colon(ending.error)}"
    if ending.outcome == "error" and ending.call is case.trace.failed_call:
        how = "the VM was put in state error"
        if ending.state:
            on = f" on {case.attempts[-1].host}" if case.attempts else ""
            how += f", after {ending.state}{on}"
            if not ending.error:
                is_sure = not case.is_damaged() and not case.trace.curtailed
                how += f"; no reason {'was recorded' if is_sure else 'is in the captures'}"
        last = _last_message(case)
        if last is not None and case.grammar.replies(ending.stopped_at):
            how = f"{last.operation} {_unanswered_words(case, last)}; {how}"
        return f"{where}: {how}{_after_colon(ending.error)}"
    unknown = _unknown_token(case, ending)
    text = f"{where}: {unknown or call_words(record)}"
    if unknown:
        return text
    facts = ending.call.facts if ending.call is not None else None
    if isinstance(facts, RestFacts) and facts.status_text == TASK_FAILED:
        text = f"{where}: {record.callee} reports that the task failed ({record.operation})"
    if isinstance(facts, ConnectFacts):
        return text
    if record.operation.startswith("reply ") and selects_host(case, ending.stopped_at):
        text += _offered(case)
    return text + _after_colon(ending.error)


def _proxy_words(case: Case, ending: Ending, leg: Call) -> str:
    """Return the message of a request that a proxy answered by itself on *leg*."""
    where = f"step {ending.stopped_at} failed" if ending.stopped_at else between_words(ending)
    proxy, api = case.records[leg.serial], case.grammar.api
    said = f"{proxy.callee} answered {proxy.result} by itself to {proxy.operation}"
    record = case.records[ending.call.serial] if ending.call is not None else proxy
    if ending.hindrance is not None:
        return f"{where}: {ending.hindrance.words}; {said}"
    if record is proxy:
        return f"{where}: {said}, no {api} answered behind it{_after_colon(leg.error)}"
    if record.protocol == "RPC" and record.result == "undelivered":
        what = f"{BROKER} never confirmed {record.operation} of {record.caller}"
        return f"{where}: {what}{_after_colon(ending.error)}; {said}"
    is_leg = case.trace.created is ending.call
    does = call_words(record)
    is_late = record.result in ("?", "none", "ok") or record.result[:1] in "23"
    if is_late and not is_leg and not record.operation.startswith("CONNECT"):
        does = f"{record.callee} had not answered {record.operation} of {record.caller}"
    if is_leg and record.error != CLOSED_UNANSWERED:
        made = [w.record for w in case.witnesses if w.record.caller == api and w.steps]
        does += f", its last call was {made[-1].operation}" if made else ", and made no call"
    return f"{where}: {does}; {said}"


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
    return f"was never answered by {last.callee}"


def _offered(case: Case) -> str:
    """Return, in brackets, whether placement offered no host, refused a claim, or the filters refused all."""
    offer = candidates_offered(case)
    if offer is None or not isinstance(offer.facts, RestFacts):
        return ""
    count = offer.facts.candidates
    if not count:
        return " (placement offered no host)"
    hosts, all_of_them = ("1 host", "it") if count == 1 else (f"{count} hosts", "them all")
    claim = claim_refused(case)
    if claim is not None:
        return f" (placement offered {hosts}, and {claim_words(claim)})"
    return f" (placement offered {hosts}, and the scheduler refused {all_of_them})"


def _last_message(case: Case) -> CallRecord | None:
    """Return the last RPC call or cast that is a step: its consumer owes what comes next."""
    found = [
        w.record
        for w in case.witnesses
        if isinstance(w.call.facts, RpcFacts) and w.call.facts.mode in ("call", "cast") and w.steps
    ]
    return found[-1] if found else None


def between_words(ending: Ending) -> str:
    """Return between which two steps a creation stopped, where the captures do not show more."""
    if ending.between is None:
        return "stopped at a step that the captures do not show"
    return f"stopped after step {ending.between[0]}, at step {ending.between[1]} at the latest"


def stalled_in(case: Case, ending: Ending) -> Said | None:
    """Return the state that the host of a stuck creation saved last; None where something else tells more."""
    if ending.outcome != "stuck" or not ending.state or ending.how or ending.hindrance is not None:
        return None
    return begun_in(case, len(case.attempts) - 1)


def stall_words(case: Case, ending: Ending, coverage: StepCoverage) -> str:
    """Return the message of a stuck creation."""
    step = ending.stopped_at
    if step is None:
        return between_words(ending)
    quiet_ns = coverage.captured_until_ns(step, bool(ending.state)) - case.last_own_ns()
    begun = begun_in(case, len(case.attempts) - 1) if ending.state and not ending.how else None
    if begun is not None:
        begun_ns = begun.call.started_ns
        lasts = time_words(case.last_own_ns() + quiet_ns - begun_ns)
        after = (begun_ns - case.first_ns) / 1e9
        saved = f"it saved the state {ending.state} at +{after:.1f} s, and none since"
        return f"step {step} has not ended in {lasts}, owed by {owed_by(case, step)}: {saved}"
    since_ns = case.attempts[-1].since_ns if case.attempts else 0
    came = any(
        w.call.started_ns >= since_ns or step not in case.grammar.attempt for w in case.step_calls(step)
    )
    verb = "has not ended" if came else "never came"
    turned_away = [w.record for w in case.witnesses if step in w.failed and w.record.protocol == "RPC"]
    is_sent = bool(turned_away) and not turned_away[-1].operation.startswith("CONNECT")
    if is_sent and not came and ending.hindrance is None and not ending.how:
        return f"step {step} did not get through in {time_words(quiet_ns)}: {call_words(turned_away[-1])}"
    text = f"step {step} {verb} in {time_words(quiet_ns)}, owed by {owed_by(case, step)}"
    if ending.hindrance is not None:
        return f"{text}: {ending.hindrance.words}"
    if ending.how:
        return f"{text}: {ending.how}{_after_colon(ending.error)}"
    message = _last_message(case)
    waits = message is not None and coverage.owed_by_broker(step)
    if waits and message is not None:
        return f"{text}: {message.operation} {_BROKER.get(message.result, '')}"
    if turned_away:
        return f"{text}: {call_words(turned_away[-1])}"
    last = case.records[ending.call.serial] if ending.call is not None else None
    asker = owed_by(case, step) or (last.caller if last is not None else "")
    # Where the callee owes the step itself, it owes the answer to its client: `call_words` says that.
    if last is not None and last.result == "?" and last.protocol == "REST" and last.callee != asker:
        return (
            f"step {step} has not ended in {time_words(quiet_ns)}: {last.callee} owes {asker}"
            f" the answer to {last.operation}"
        )
    if last is not None and last.result in ("none", "refused", "?"):
        return f"{text}: {call_words(last)}"
    if message is not None and message.result == "ok" and _is_newest(case, message):
        fate = "was delivered, then silence" if _is_from_firehose(case, message) else _BROKER["ok"]
        return f"{text}: {message.operation} {fate}"
    return text


def deletion_words(case: Case, ending: Ending) -> str:
    """Return who deleted a VM that was being built, and what it was waiting for."""
    record = case.records.get(ending.call.serial) if ending.call is not None else None
    who = f"by {record.caller} ({record.operation})" if record is not None else "by its user"
    step = ending.stopped_at
    if step is None:
        return f"{who}, between steps {' and '.join(ending.between or ())}"
    if not case.step_calls(step):
        by = owed_by(case, step)
        return f"{who}, before step {step}{f', owed by {by}' if by else ''}"
    waits = _open_call(case, ending)
    said = ""
    if waits is not None and waits.result == "?":
        said = f": {waits.callee} had not answered {waits.operation}"
    elif waits is not None:
        facts = next(w for w in case.witnesses if w.record is waits)
        said = f": {call_words(waits)}, {said_of(facts)}"
    return f"{who}, while step {step} had not ended{said}"


def _open_call(case: Case, ending: Ending) -> CallRecord | None:
    """Return the call of the step that a deleted VM waited for: without an answer, or with one of no end."""
    calls = case.step_calls(ending.stopped_at) if ending.stopped_at is not None else []
    unanswered = [w.record for w in calls if w.record.result == "?"]
    waits = not_done(calls)
    return unanswered[-1] if unanswered else waits.record if waits is not None else None


def _is_from_firehose(case: Case, message: CallRecord) -> bool:
    """Return whether *message* is known from the broker's firehose, which reports no acknowledgements."""
    facts = [w.call.facts for w in case.witnesses if w.record is message and w.call is not None]
    ends = [f.consumer for f in facts if isinstance(f, RpcFacts)]
    return any(end is not None and end.connection.is_reported for end in ends)


def _is_newest(case: Case, message: CallRecord) -> bool:
    """Return whether no call that the grammar knows began after *message*."""
    return not any(w.steps and w.record.started_ns > message.started_ns for w in case.witnesses)


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
        failures.append(f"{attempt.host} {where}{_after_colon(who)}{_after_colon(words)}")
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
        return f"{failure_words(case, ending)} (after {took})"
    if ending.outcome == "stuck":
        return f"stuck: {stall_words(case, ending, coverage)}"
    if ending.outcome == "deleted":
        return f"deleted after {took} {deletion_words(case, ending)}"
    hidden = [s.step for s in steps if s.status == "unobserved" and s.step in case.required]
    unseen = f"; {len(hidden)} of {len(steps)} steps cannot be seen in these captures" if hidden else ""
    if ending.outcome == "unfinished":
        where = f"before step {ending.stopped_at}"
        if ending.stopped_at is None:
            where = f"between steps {' and '.join(ending.between or ())}"
        return f"unfinished: the capture ends {where}{_so_far(case, ending, coverage)}{unseen}"
    unknown_after = host_unknown_after(case, ending, coverage)
    if unknown_after is not None:
        unseen = f"; {host_words(case, unknown_after)}{unseen}"
    host = f" on {case.attempts[-1].host}" if case.attempts and unknown_after is None else ""
    tries = f" at attempt {len(case.attempts)}" if len(case.attempts) > 1 else ""
    if deviations:
        return f"{ending.outcome}{host} after {took}{tries}, but {deviations[0].message}{unseen}"
    return f"{ending.outcome}{host} after {took}{tries}{unseen}"


_QUIET_NS = 5_000_000_000
"""An unfinished creation reports a silence of at least this length."""


def _so_far(case: Case, ending: Ending, coverage: StepCoverage) -> str:
    """Return what is known of the step that an unfinished creation waits for: refusals, or a silence."""
    step = ending.stopped_at
    if step is None:
        return ""
    since_ns = case.attempts[-1].since_ns if case.attempts else 0
    refused = [
        w.record
        for w in case.witnesses
        if step in w.failed and w.record.result == "refused" and w.call.started_ns >= since_ns
    ]
    if refused and not case.step_calls(step):
        connections = "1 connection" if len(refused) == 1 else f"{len(refused)} connections"
        return f": {refused[-1].callee} refused {connections} so far"
    by_state = bool(ending.state)
    quiet_ns = coverage.captured_until_ns(step, by_state) - case.last_own_ns()
    if quiet_ns < _QUIET_NS or not coverage.quiet_is_known(step, case.last_own_ns(), by_state):
        return ""
    message = _last_message(case)
    if message is not None and message.result in _UNFETCHED and coverage.owed_by_broker(step):
        does = f"{message.callee} has not taken the message"
        if message.result == "unroutable":
            does = f"no queue is bound for the message to {message.callee}, and no further call came"
        elif message.result == "unacked":
            does = f"{message.callee} has not acknowledged the message"
    elif owed_by(case, step):
        does = f"{owed_by(case, step)} has made no further call"
    else:
        does = "no further call came"
    seconds = quiet_ns // 1_000_000_000
    stall = seconds // 10 * 10 if seconds > 10 else seconds - seconds % 5
    return f": {does} for {quiet_ns / 1e9:.0f} s; --stall {stall} would report it as stuck"
