"""Who failed a creation of which no call of a step failed: what the services themselves said.

In this order:

- what neutron and cinder reported to nova-api of this server, refused or with the status *failed*;
- nova's own words, as recorded, notified or shown to a poll, where they name the service that failed;
- an RPC call whose reply was a failure, came too late or never, and after which no step came.
"""

# The state error that nova saves says that the VM failed and not why; its words do. They travel by SQL, by
# notifications and in answers to polls, and a capture holds any of these.

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from tracer.conformance.call_words import FATES, call_words, failing_end, is_unconfirmed
from tracer.conformance.case import Case
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import time_words
from tracer.conformance.told import fault_of
from tracer.model import Call, CallRecord, Event, RestFacts, RpcFacts
from tracer.openstack.faults import service_blamed, waited_for_callback
from tracer.openstack.rest import CLAIM, EXTERNAL_EVENTS, PLUGGED, sender_of_event
from tracer.openstack.rpc import REPLY_WITHIN_NS
from tracer.openstack.services import BROKER, HOST_SERVICE

__all__ = ["Blame", "Words", "blame", "failed_meanwhile", "reply_that_stopped", "words_of"]

_WAITED_NS = 10_000_000_000
"""A pause of a host's calls at least this long before nova gave up is a wait: nothing else takes so long."""


_WAITS = f"waits {time_words(REPLY_WITHIN_NS)} unless configured otherwise"


class Blame(NamedTuple):
    """What failed a creation."""

    step: str | None
    """The step that failed; None where what is known names none."""
    call: Call | None
    """The call that shows it; None for what never came."""
    how: str
    """What failed, in words; empty where nova's words say all."""
    error: str
    """The text of the fault."""
    peer: str
    """The role that failed."""
    expected: str = ""
    """The line of the call that would have been good, where it is none of the step's own."""


class Words(NamedTuple):
    """Nova's words of why the VM is in error."""

    time_ns: int
    words: str
    call: Call


def words_of(case: Case) -> list[Words]:
    """Return nova's words of why the VM is in error: recorded or notified, by time; then shown to polls."""
    found = []
    polls = {call.serial for call in case.trace.polls}
    for call in (*case.trace.calls, *case.trace.polls):
        facts = call.facts
        words = call.error if isinstance(facts, RestFacts) and call.serial in polls else fault_of(call)
        if words:
            found.append(Words(call.ended_ns or call.started_ns, words, call))
    # What a poll shows was said before, and in more words.
    return sorted(found, key=lambda each: (each.call.serial in polls, each.time_ns))


def blame(case: Case, coverage: StepCoverage) -> Blame | None:
    """Return what failed the last attempt of a creation in error; None where nothing says so."""
    since_ns = case.attempts[-1].since_ns if case.attempts else 0
    words = [each for each in words_of(case) if each.time_ns >= since_ns]
    naming = next(((role, each) for each in words if (role := service_blamed(each.words))), None)
    reported = _bad_report(case, since_ns, _given_up_ns(case, since_ns, words))
    if reported is not None and (naming is None or naming[0] == reported[0]):
        return reported[1]
    if naming is None:
        return reply_that_stopped(case, coverage, since_ns)
    role, first = naming
    step = _step_asking(case, role)
    if step is None:
        return reply_that_stopped(case, coverage, since_ns)
    missing = _never_plugged(case, coverage, words, since_ns) if role == sender_of_event(PLUGGED) else ""
    # The words name the step. Who failed there is known only where a call of the other service shows it.
    if missing:
        report = _report_of(role, case.grammar.api, f"POST {EXTERNAL_EVENTS}", PLUGGED)
        return Blame(step, None, missing, first.words, role, report)
    return Blame(step, first.call, "", first.words, HOST_SERVICE)


def _given_up_ns(case: Case, since_ns: int, words: list[Words]) -> int:
    """Return when the last host gave the VM up: it said so, or began to free what it had asked for."""
    freed = (
        c.started_ns
        for c in case.trace.calls
        if isinstance(c.facts, RestFacts)
        and c.facts.method == "DELETE"
        and c.started_ns >= since_ns
        and _is_of_host(case, c)
    )
    # A poll shows the words later than they were said.
    said = (each.time_ns for each in words if each.call not in case.trace.polls)
    failed_ns = case.trace.failed_ns
    return min((*freed, *said, *(() if failed_ns is None else (failed_ns,))), default=1 << 62)


def _step_asking(case: Case, role: str) -> str | None:
    """Return the step in which a host asks *role*; None in a workflow without one."""
    grammar = case.grammar
    asks = (s for s in grammar.asked_by(HOST_SERVICE) if any(leg.callee == role for leg in grammar.legs(s)))
    return next(asks, None)


# --- what neutron and cinder reported ---------------------------------------------------------------


def _reports(case: Case, since_ns: int) -> Iterator[tuple[Call, RestFacts, Event]]:
    """Yield the reports about the server of *case*, in order of time."""
    for call in case.trace.calls:
        facts = call.facts
        if isinstance(facts, RestFacts) and call.started_ns >= since_ns:
            for event in facts.events:
                if event.server_id == case.trace.server_id:
                    yield call, facts, event


def _bad_report(case: Case, since_ns: int, until_ns: int) -> tuple[str, Blame] | None:
    """Return the last report that failed or was refused and not repeated, behind the service that sent it.

    What is reported once the host had given up is no cause: nova-api refuses that a port was deleted with it.
    """
    left: dict[tuple[str, str], tuple[str, Blame] | None] = {}
    for call, facts, event in _reports(case, since_ns):
        record, sender = case.records[call.serial], sender_of_event(event.name)
        status = event.code if event.code >= 400 else facts.status
        step = _step_asking(case, sender)
        key = (event.name, event.tag)
        good = _report_of(record.caller, record.callee, record.operation, event.name)
        if step is None or call.started_ns > until_ns:
            continue
        if status >= 400:
            how = f"{record.callee} answered {status} to {record.operation} of {record.caller} ({event.name})"
            left[key] = sender, Blame(step, call, how, call.error, record.callee, good)
        elif record.result == "none":
            how = f"{record.callee} never answered {record.operation} of {record.caller} ({event.name})"
            left[key] = sender, Blame(step, call, how, "", record.callee, good)
        elif event.status == "failed":
            how = f"{record.caller} reported {event.name} with status failed to {record.callee}"
            left[key] = sender, Blame(step, call, how, "", record.caller, good)
        else:
            left[key] = None
    found = [each for each in left.values() if each is not None]
    return found[-1] if found else None


def _report_of(sender: str, api: str, operation: str, event: str) -> str:
    """Return the line of a good report of *event*."""
    return f"REST {sender} > {api} {operation} 2xx: {event}"


def _never_plugged(case: Case, coverage: StepCoverage, words: list[Words], since_ns: int) -> str:
    """Return, in words, that the report that a port is plugged never came; '' where that is not known.

    It is known where nova says that it waited for it, the host's calls paused so long, and the report would
    have been seen.
    """
    if not any(waited_for_callback(each.words) for each in words):
        return ""
    came = next((call for call, _, event in _reports(case, since_ns) if event.name == PLUGGED), None)
    if came is not None and came.started_ns <= _given_up_ns(case, since_ns, words):
        return ""
    host = [c for c in case.trace.calls if c.started_ns >= since_ns and _is_of_host(case, c)]
    paused = max(
        ((b.started_ns - a.started_ns, a) for a, b in pairwise(host)), default=None, key=lambda p: p[0]
    )
    if paused is None or paused[0] < _WAITED_NS:
        return ""
    sender, api = sender_of_event(PLUGGED), case.grammar.api
    waited = time_words(paused[0])
    if came is not None:
        late = time_words(came.started_ns - paused[1].started_ns)
        return f"{sender} sent {PLUGGED} only after {late}, and {HOST_SERVICE} had given up after {waited}"
    plane = case.records[paused[1].serial].plane
    if not coverage.would_show_call(plane, sender, api, paused[1].started_ns):
        return ""
    # Where nothing was ever seen on its way, it may have travelled on another one.
    did = "never sent" if coverage.has_shown_call(sender, api) else "was not seen to send"
    return f"{sender} {did} {PLUGGED} to {api}, and {HOST_SERVICE} gave up after {waited}"


def _is_of_host(case: Case, call: Call) -> bool:
    return case.records[call.serial].caller == HOST_SERVICE


# --- replies ----------------------------------------------------------------------------------------


def reply_that_stopped(case: Case, coverage: StepCoverage, since_ns: int) -> Blame | None:
    """Return the RPC call behind which no step came: its reply was a failure, or late, or never came.

    Of a creation that is not in error only a failure counts: its callers may wait still.
    """
    last_ns = max((w.call.started_ns for w in case.witnesses if w.steps and not w.ambiguous), default=0)
    until_ns = case.trace.failed_ns
    for call in reversed(case.trace.calls):
        facts = call.facts
        if call.started_ns < max(last_ns, since_ns):
            break
        if not isinstance(facts, RpcFacts) or call.serial in case.trace.ambiguous or facts.broken:
            continue
        record = case.records[call.serial]
        if facts.mode == "reply" and facts.failure:
            how = f"{record.caller} answered {facts.method} of {record.callee} with a failure"
            return Blame(None, call, how, facts.failure, record.caller)
        if facts.mode == "call" and facts.msg_id and until_ns is not None:
            waited_ns = _gave_up_after_ns(case, call, facts.msg_id)
            if facts.answered_ns is not None and 0 < facts.answered_ns - call.started_ns <= waited_ns:
                how = (
                    f"{record.callee} answered {facts.method} of {record.caller} only after"
                    f" {time_words(facts.answered_ns - call.started_ns)}, and {record.caller} timed out"
                    " waiting for it"
                )
                return Blame(None, call, how, "", record.callee)
            is_unsure = coverage.may_lack_answer(call, until_ns)
            late = None if is_unsure else _too_late(call, facts, until_ns, waited_ns or REPLY_WITHIN_NS)
            if late is not None:
                asked = f"{record.callee} {late[0]} {facts.method} of {record.caller} {late[1]}"
                waits = f"gave up after {time_words(waited_ns)}" if waited_ns else _WAITS
                why, peer = _why_late(case, call, until_ns)
                return Blame(None, call, f"{why}{asked} (its caller {waits})", "", peer)
    return None


def _why_late(case: Case, call: Call, until_ns: int) -> tuple[str, str]:
    """Return why *call* has no answer, before a semicolon, and who failed; ('', its callee) if unknown."""
    record = case.records[call.serial]
    if call.result in ("undelivered", "unacked"):
        if is_unconfirmed(case, record):
            return f"{BROKER} never confirmed {record.operation}; ", BROKER
        return f"{record.operation} {FATES[call.result]}; ", record.callee
    met = _met_meanwhile(case, record.callee, call.started_ns, until_ns)
    if met is None:
        return "", record.callee
    shown = case.records[met.serial]
    return f"{_met_words(shown)}; ", failing_end(shown)


def _met_meanwhile(case: Case, role: str, since_ns: int, until_ns: int) -> Call | None:
    """Return the last call that *role* made for this creation in that time, if that failed or has no answer.

    A claim that placement refused is none: that is an answer to a choice, and tells of itself.
    """
    found = None
    for call in case.trace.calls:
        if case.records[call.serial].caller != role or call.protocol == "RPC":
            continue
        if since_ns <= call.started_ns <= until_ns and call.serial not in case.trace.ambiguous:
            found = call
    if found is None or found.operation.startswith(CLAIM) or case.is_harmless(found):
        return None
    status = found.facts.status if isinstance(found.facts, RestFacts) else 0
    is_broken = getattr(found.facts, "broken", False) or found.connection.gaps
    has_failed = status >= 400 or found.result in ("none", "refused", "error", "?")
    return found if has_failed and not is_broken else None


def _met_words(met: CallRecord) -> str:
    """Return what a service met, with the words of the other one."""
    is_text = met.result.isdigit() and met.error
    return call_words(met, is_silent=True) + (f" ({met.error})" if is_text else "")


def failed_meanwhile(case: Case, reply: Call) -> Blame | None:
    """Return what the service met that answered with the exception in *reply*; None where it met nothing."""
    record, asked = case.records[reply.serial], reply.parent
    if asked is None or not isinstance(reply.facts, RpcFacts):
        return None
    met = _met_meanwhile(case, record.caller, asked.started_ns, reply.started_ns)
    if met is None:
        return None
    shown = case.records[met.serial]
    how = f"{_met_words(shown)}; {record.caller} answered {reply.facts.method} with a failure"
    return Blame(None, met, how, reply.error, failing_end(shown))


def _gave_up_after_ns(case: Case, call: Call, msg_id: str) -> int:
    """Return how long the caller of *call* waited, where nova's words name that message; else 0."""
    polls = case.trace.polls
    named = (each.time_ns for each in words_of(case) if msg_id in each.words and each.call not in polls)
    return max(0, next(named, 0) - call.started_ns)


def _too_late(call: Call, facts: RpcFacts, until_ns: int, waits_ns: int) -> tuple[str, str] | None:
    """Return the verb, and what follows the call, for a reply that came too late or never; None in time.

    *waits_ns* is how long its caller waits.
    """
    if until_ns - call.started_ns <= REPLY_WITHIN_NS:
        return None
    if facts.answered_ns is not None:
        took_ns = facts.answered_ns - call.started_ns
        return ("answered", f"too late, after {time_words(took_ns)}") if took_ns > waits_ns else None
    consumer = facts.consumer.connection if facts.consumer else None
    is_lost = call.connection.gaps or (consumer is not None and consumer.gaps)
    return None if is_lost else ("did not answer", "in time")
