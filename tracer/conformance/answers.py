"""What operators ask of a creation that broke, answered as notes where the evidence is on the wire.

- `placement`: was "No valid host" an empty answer of placement, or did a filter of the scheduler refuse?
- `reply`: did the reply that somebody waited for come late or never, and to which method does it belong?
- `broker`: which messages no queue took, nobody fetched, or nobody acknowledged?
- `fault`: what nova itself recorded as the reason, as `openstack server show` tells it.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from tracer.conformance.case import GOOD, Case, Ending
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import time_words
from tracer.model import Call, Note, RestFacts, RpcFacts, SqlFacts
from tracer.openstack.rest import CANDIDATES, CLAIM, asks_for_resources, leaves_hosts_out
from tracer.openstack.services import NOVA_SCHEDULER

__all__ = ["answers", "candidates_offered", "faults_recorded", "redelivered", "selects_host"]

_MOST = 5
"""Notes of one kind; a conductor that died owes hundreds of replies."""
_TEXT_LIMIT = 200


def answers(case: Case, ending: Ending, coverage: StepCoverage) -> list[Note]:
    """Return what the captures answer of a creation that did not succeed."""
    if ending.outcome in GOOD:
        return []
    return [
        *_placement(case, ending),
        *_replies(case, ending, coverage),
        *_messages(case, coverage),
        *(
            Note("fault", None, f"nova recorded: {call.facts.fault}", case.records[call.serial])
            for call in faults_recorded(case)[-_MOST:]
            if isinstance(call.facts, SqlFacts)
        ),
    ]


# --- placement, or a filter? ----------------------------------------------------------------------


def candidates_offered(case: Case) -> Call | None:
    """Return the last answer of placement that says how many hosts could take the VM."""
    found = None
    for call in case.trace.calls:
        if isinstance(call.facts, RestFacts) and call.facts.candidates is not None:
            found = call
    return found


def selects_host(case: Case, step: str | None) -> bool:
    """Tell whether *step* is the answer that names the hosts: placement and filters decide it."""
    return bool(case.grammar.replies(step)) and case.grammar.caller(step) == NOVA_SCHEDULER


def _placement(case: Case, ending: Ending) -> list[Note]:
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
            "placement's answer is not in the captures: it may have been empty, or a filter refused the rest"
        )
        return [Note("placement", step, why, case.records[asked[-1].serial] if asked else None)]
    count, wanted = offer.facts.candidates, _wanted(offer.facts.query)
    if not count:
        why = f"placement offered no host{wanted}: not a filter of nova-scheduler"
    elif ending.call is not None and ending.call.result == "failure":
        hosts = "1 host" if count == 1 else f"{count} hosts"
        why = f"placement offered {hosts}{wanted}: nova-scheduler's filters refused, or claiming failed"
        claims = [
            c
            for c in case.trace.calls
            if c.operation.startswith(CLAIM) and c.result[:1] in "45" and c.result != "?"
        ]
        if claims:
            why += f" (placement answered {claims[-1].result} to {CLAIM}{{id}})"
    else:
        return []
    return [Note("placement", step, why, case.records[offer.serial])]


def _wanted(query: str) -> str:
    """Return what was asked for, as in ' with VCPU 5000, MEMORY_MB 1024'."""
    fields = parse_qsl(query, max_num_fields=100)
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
    notes = []
    reply_step = next((step for step in case.grammar.places if case.grammar.replies(step)), None)
    for call in case.trace.calls:
        facts = call.facts
        if not isinstance(facts, RpcFacts) or facts.mode != "call" or facts.broken or not facts.msg_id:
            continue
        recorded_ns = _gave_up_ns(case, facts.msg_id)
        gave_up_ns = recorded_ns or _error_behind(case, call)
        record = case.records[call.serial]
        step = _step_of(case, call)
        what = f"{call.operation} of {record.caller} (message ID {facts.msg_id})"
        if facts.answered_ns is None:
            if _lost(call):
                continue
            after_ns = coverage.seen_for_ns(record.plane, call.started_ns)
            if after_ns < 1_000_000_000 and not gave_up_ns:
                continue  # the capture ends in its middle
            is_visible = reply_step is not None and coverage.would_show(reply_step)
            said = "was never answered" if is_visible else "has no answer in the captures"
            if after_ns < (gave_up_ns - call.started_ns if gave_up_ns else coverage.stall_ns):
                said = f"was not answered in the {time_words(after_ns)} captured"
            if gave_up_ns:
                # The answer to a poll tells that the VM is in error, not since when.
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


def _lost(call: Call) -> bool:
    """Tell whether the reply may be in a hole of the capture."""
    facts = call.facts
    consumer = facts.consumer.connection if isinstance(facts, RpcFacts) and facts.consumer else None
    return bool(call.connection.gaps or (consumer is not None and consumer.gaps))


def _gave_up_ns(case: Case, msg_id: str) -> int:
    """Return when nova recorded that it waited in vain for the reply to this very message."""
    for call in case.trace.calls:
        if isinstance(call.facts, SqlFacts) and msg_id in call.facts.fault:
            return call.started_ns
    return 0


def _error_behind(case: Case, call: Call) -> int:
    """Return when the VM was put in error while an answer that is a step was outstanding."""
    facts, failed_ns = call.facts, case.trace.failed_ns or 0
    waits = isinstance(facts, RpcFacts) and bool(
        case.grammar.steps_by_operation("RPC", f"reply {facts.method}")
    )
    return failed_ns if waits and failed_ns > call.started_ns else 0


# --- the broker, and nova's own words -------------------------------------------------------------

_FATES = {
    "unroutable": "went to {queue}: no queue is bound for it, the broker returned it",
    "undelivered": "waits in queue {queue}: no consumer took it",
    "unacked": "was delivered to {consumer} from queue {queue} and not acknowledged",
    "error": "was refused by the broker",
}


def _messages(case: Case, coverage: StepCoverage) -> list[Note]:
    notes = []
    for call in case.trace.calls:
        facts = call.facts
        if not isinstance(facts, RpcFacts) or facts.mode not in ("call", "cast") or facts.answered_ns:
            continue
        record = case.records[call.serial]
        fate = _FATES.get(record.result)
        if fate is None or facts.broken:
            continue
        queue = facts.routing_key or facts.exchange or "?"
        consumer = f"{record.callee} ({record.callee_address})" if record.callee_address else record.callee
        step = _step_of(case, call)
        words = fate.format(queue=queue[:_TEXT_LIMIT], consumer=consumer)
        if call.connection.protocol == "firehose":
            # It tells that no queue took a message; returned is only what its sender wanted back.
            words = words.removesuffix(", the broker returned it")
        seen_ns = coverage.seen_for_ns(record.plane, call.started_ns)
        if record.result in ("undelivered", "unacked") and seen_ns < coverage.stall_ns:
            words += f" in the {time_words(seen_ns)} captured"
        notes.append(Note("broker", step, f"{call.operation} of {record.caller} {words}", record))
    return notes[-_MOST:]


def redelivered(case: Case) -> list[Note]:
    """Note the messages that the broker delivered more than once, however the trace ended."""
    return [
        Note("redelivered", case.grammar.earliest(w.steps), f"{w.record.operation} was delivered again")
        for w in case.witnesses
        if isinstance(w.call.facts, RpcFacts) and w.call.facts.redelivered
    ]


def faults_recorded(case: Case) -> list[Call]:
    """Return the statements in which nova records why this VM is in error, each reason once."""
    found: dict[str, Call] = {}
    for call in case.trace.calls:
        if isinstance(call.facts, SqlFacts) and call.facts.fault:
            found.setdefault(call.facts.fault, call)
    return list(found.values())


def _step_of(case: Case, call: Call) -> str | None:
    return next((case.grammar.earliest(w.all_steps) for w in case.witnesses if w.call is call), None)
