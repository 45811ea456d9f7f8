"""Notes that answer what operators ask about a failed creation, where the evidence is in the captures.

- `placement`: was "No valid host" an empty answer of placement, or did a filter of the scheduler refuse?
- `reply`: did the reply that a service waited for come late or never, and to which method does it belong?
- `broker`: which messages were routed to no queue, not delivered, or not acknowledged?
- `fault`: the reason that nova itself recorded, as `openstack server show` displays it.
"""

# These are the questions that no single log answers: nova logs "No valid host" and "message ID …" without
# what placement or the broker did. A creation that succeeded gets none of them.

from __future__ import annotations

from urllib.parse import parse_qsl

from tracer.conformance.case import GOOD, Case, Ending
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import time_words
from tracer.conformance.told import fault_of
from tracer.model import Call, CallRecord, Note, RestFacts, RpcFacts
from tracer.openstack.faults import meaning_of
from tracer.openstack.rest import CANDIDATES, CLAIM, asks_for_resources, leaves_hosts_out
from tracer.openstack.services import NOVA_SCHEDULER

__all__ = [
    "answers",
    "candidates_offered",
    "claim_refused",
    "claim_words",
    "faults_recorded",
    "redelivered",
    "resources_wanted",
    "selects_host",
]

_MOST = 5
"""The most notes of one kind: a nova-conductor that died leaves hundreds of calls without a reply."""
_TEXT_LIMIT = 200
_QUERY_LIMIT = 10_000


def answers(case: Case, ending: Ending, coverage: StepCoverage) -> list[Note]:
    """Return the notes on a creation that did not succeed; none on one that did."""
    if ending.outcome in GOOD:
        return []
    return [
        *_placement(case, ending),
        *_replies(case, ending, coverage),
        *_meanings(case, ending),
        *_messages(case, ending, coverage),
        *(
            Note("fault", None, _fault_words(call), case.records[call.serial])
            for call in faults_recorded(case)
        ),
    ]


# --- placement, or a filter? ----------------------------------------------------------------------


def candidates_offered(case: Case) -> Call | None:
    """Return the last answer of placement that lists the hosts that could take the VM."""
    # The last one, because a rescheduled creation may have asked more than once.
    found = None
    for call in case.trace.calls:
        if isinstance(call.facts, RestFacts) and call.facts.candidates is not None:
            found = call
    return found


def claim_refused(case: Case) -> Call | None:
    """Return the last claim of a host's resources, if placement refused it; None if there was none."""
    offer = candidates_offered(case)
    since_ns = offer.started_ns if offer is not None else 0
    claims = [c for c in case.trace.calls if c.operation.startswith(CLAIM) and c.started_ns >= since_ns]
    status = claims[-1].result if claims else ""
    return claims[-1] if status.isdigit() and int(status) >= 400 else None


def claim_words(claim: Call) -> str:
    """Return what placement answered to a claim that it refused, with its words."""
    said = f": {claim.error}" if claim.error else ""
    return f"refused the claim with {claim.result}{said}"


def selects_host(case: Case, step: str | None) -> bool:
    """Return whether *step* is nova-scheduler's reply with the hosts, which placement and filters decide."""
    return bool(case.grammar.replies(step)) and case.grammar.caller(step) == NOVA_SCHEDULER


def _placement(case: Case, ending: Ending) -> list[Note]:
    """Return why no host was found: an empty answer of placement, or nova-scheduler's filters."""
    step = ending.stopped_at
    if not selects_host(case, step):
        return []
    asked = [
        call
        for call in case.trace.calls
        if isinstance(call.facts, RestFacts) and call.facts.path.endswith(CANDIDATES)
    ]
    offer = candidates_offered(case)
    if offer is None or not isinstance(offer.facts, RestFacts):
        refused = ending.call is not None and ending.call.result == "failure"
        if not refused:
            return []
        why = (
            "placement's answer is not in the captures: it was empty, or nova-scheduler's filters refused all"
        )
        return [Note("placement", step, why, case.records[asked[-1].serial] if asked else None)]
    # The query is shown, because what was asked for (a trait, an aggregate, a large flavor) explains an
    # empty answer.
    count, wanted = offer.facts.candidates, resources_wanted(offer.facts.query)
    if not count:
        why = f"placement offered no host{wanted}: nova-scheduler's filters are not the cause"
    elif ending.call is not None and ending.call.result == "failure":
        hosts = "1 host" if count == 1 else f"{count} hosts"
        why = f"placement offered {hosts}{wanted}: nova-scheduler's filters refused, or claiming failed"
        claim = claim_refused(case)
        if claim is not None:
            why = f"placement offered {hosts}{wanted}, and {claim_words(claim)}: no filter is the cause"
    else:
        return []
    return [Note("placement", step, why, case.records[offer.serial])]


def resources_wanted(query: str) -> str:
    """Return what was asked for, as in ' with VCPU 5000, MEMORY_MB 1024'; '' where it is not known."""
    fields = parse_qsl(query[:_QUERY_LIMIT])
    parts = [
        part.replace(":", " ", 1)
        for key, value in fields
        if asks_for_resources(key)
        for part in value.split(",")
    ]
    parts += [f"{key} {value}" for key, value in fields if leaves_hosts_out(key)]
    return f" with {', '.join(parts)}"[:_TEXT_LIMIT] if parts else ""


# --- late, or never? ------------------------------------------------------------------------------


def _replies(case: Case, ending: Ending, coverage: StepCoverage) -> list[Note]:
    """Return a note for each RPC call whose reply came too late or never."""
    notes = []
    reply_step = next((step for step in case.grammar.places if case.grammar.replies(step)), None)
    for call in case.trace.calls:
        facts = call.facts
        if not isinstance(facts, RpcFacts) or facts.mode != "call" or facts.broken or not facts.msg_id:
            continue
        # The caller raises MessagingTimeout after its own time-out; when, is known from the fault that nova
        # recorded, or at most from the state error.
        recorded_ns = _gave_up_ns(case, facts.msg_id)
        gave_up_ns = recorded_ns or _error_after(case, call)
        record = case.records[call.serial]
        step = _step_of(case, call)
        what = f"{call.operation} of {record.caller} (message ID {facts.msg_id})"
        if facts.answered_ns is None:
            if _lost(call):
                continue
            after_ns = coverage.seen_for_ns(record.plane, call.started_ns)
            if after_ns < 1_000_000_000 and not gave_up_ns:
                # The capture ends while the call is in progress: that it has no reply means nothing.
                continue
            is_visible = reply_step is not None and coverage.would_show(reply_step)
            said = "was never answered" if is_visible else "has no answer in the captures"
            if after_ns < (gave_up_ns - call.started_ns if gave_up_ns else coverage.stall_ns):
                said = f"was not answered in the {time_words(after_ns)} captured"
            if gave_up_ns:
                # The state error may be known from the answer to a poll, which comes later than the state.
                most = "" if recorded_ns else "at most "
                said += f"; its caller gave up after {most}{time_words(gave_up_ns - call.started_ns)}"
            notes.append(Note("reply", step, f"{what} {said}", record))
        elif gave_up_ns and facts.answered_ns > gave_up_ns:
            took, late = facts.answered_ns - call.started_ns, facts.answered_ns - gave_up_ns
            said = (
                f"was answered after {time_words(took)}, {time_words(late)} too late: its caller had given up"
            )
            notes.append(Note("reply", step, f"{what} {said}", record))
    return notes[-_MOST:]


def _meanings(case: Case, ending: Ending) -> list[Note]:
    """Return what the exception means with which a creation ended, where it is one that asks for more."""
    facts = ending.call.facts if ending.call is not None else None
    if not isinstance(facts, RpcFacts) or ending.call is None:
        return []
    record = case.records[ending.call.serial]
    words = meaning_of(facts.failure, asker=record.callee, answerer=record.caller)
    return [Note("reply", ending.stopped_at, words, record)] if words else []


def _lost(call: Call) -> bool:
    """Return whether the reply may be among bytes that the capture lacks."""
    facts = call.facts
    consumer = facts.consumer.connection if isinstance(facts, RpcFacts) and facts.consumer else None
    return bool(call.connection.gaps or (consumer is not None and consumer.gaps))


def _gave_up_ns(case: Case, msg_id: str) -> int:
    """Return when nova recorded a time-out of this message; 0 if it did not."""
    # oslo.messaging puts the message id into the text of MessagingTimeout.
    for call in case.trace.calls:
        if msg_id in fault_of(call):
            return call.started_ns
    return 0


def _error_after(case: Case, call: Call) -> int:
    """Return when the VM was put in error after *call*, if the reply to *call* is a step; else 0."""
    facts, failed_ns = call.facts, case.trace.failed_ns or 0
    waits = isinstance(facts, RpcFacts) and bool(
        case.grammar.steps_by_operation("RPC", f"reply {facts.method}")
    )
    return failed_ns if waits and failed_ns > call.started_ns else 0


# --- the broker, and nova's own words -------------------------------------------------------------

_FATES = {
    "unroutable": "went to {queue}: no queue is bound for it, the broker returned it",
    "undelivered": "waits in queue {queue}: no consumer took it",
    "unconfirmed": "was sent for queue {queue}: the broker never confirmed it and no consumer took it",
    "unacked": "was delivered to {consumer} from queue {queue} and not acknowledged",
    "error": "was refused by the broker",
}


def _messages(case: Case, ending: Ending, coverage: StepCoverage) -> list[Note]:
    """Return a note for each message that did not get through the broker to an acknowledgement."""
    notes = []
    for call in case.trace.calls:
        facts = call.facts
        # A message that was answered got through, whatever the capture shows of its delivery.
        if not isinstance(facts, RpcFacts) or facts.mode not in ("call", "cast") or facts.answered_ns:
            continue
        record = case.records[call.serial]
        if ending.hindrance is not None and record.result == "undelivered" and not facts.dead:
            # The headline says what became of it.
            continue
        fate = _FATES.get("unconfirmed" if facts.unconfirmed and not facts.delivered else record.result)
        if fate is None or facts.broken:
            continue
        queue = facts.routing_key or facts.exchange or "?"
        consumer = f"{record.callee} ({record.callee_address})" if record.callee_address else record.callee
        step = _step_of(case, call)
        words = fate.format(queue=queue[:_TEXT_LIMIT], consumer=consumer)
        if call.connection.is_reported:
            # The firehose shows that no queue took a message, but not whether the sender got it back: the
            # broker returns only messages that were published with the flag `mandatory`.
            words = words.removesuffix(", the broker returned it")
        seen_ns = coverage.seen_for_ns(record.plane, call.started_ns)
        if facts.dead:
            words = words.replace("waits in", "was in")
            words += f", and the broker made a dead letter of it ({facts.dead})"
        elif record.result in ("undelivered", "unacked") and seen_ns < coverage.stall_ns:
            words += f" in the {time_words(seen_ns)} captured"
        notes.append(Note("broker", step, f"{call.operation} of {record.caller} {words}", record))
    return notes[-_MOST:]


def redelivered(case: Case) -> list[Note]:
    """Return notes on the messages that the broker delivered more than once, whatever the outcome."""
    return [
        Note("redelivered", case.grammar.earliest(w.steps), _again_words(w.record, w.call.facts.redelivered))
        for w in case.witnesses
        if isinstance(w.call.facts, RpcFacts) and w.call.facts.redelivered
    ]


def _again_words(message: CallRecord, times: int) -> str:
    often = f" {times} times" if times > 1 else ""
    return f"{message.operation} was delivered again{often}"


def faults_recorded(case: Case) -> list[Call]:
    """Return the calls with which nova recorded why this VM is in error, one for each reason."""
    found: dict[str, Call] = {}
    for call in case.trace.calls:
        if fault := fault_of(call):
            found.setdefault(fault, call)
    return list(found.values())[-_MOST:]


def _fault_words(call: Call) -> str:
    """Return nova's words of why a VM is in error, behind who said so."""
    facts = call.facts
    if isinstance(facts, RpcFacts) and facts.mode == "notify":
        where = f" on {facts.told_by}" if facts.told_by else ""
        return f"nova notified{where} ({facts.method}): {facts.fault}"
    return f"nova recorded: {fault_of(call)}"


def _step_of(case: Case, call: Call) -> str | None:
    """Return the earliest step that *call* can be evidence of."""
    return next((case.grammar.earliest(w.all_steps) for w in case.witnesses if w.call is call), None)
