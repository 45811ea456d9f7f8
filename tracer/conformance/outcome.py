"""What became of the VM, and at which documented step it stopped.

Outcome needs evidence: a state that was saved or shown, a refusal that was answered. Where the evidence
does not tell the step, the two steps between which it lies are given instead.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tracer.conformance.case import Case, Witness
from tracer.conformance.sight import StepSight
from tracer.model import Call, CallRecord, ConnectFacts, Outcome, RestFacts, RpcFacts, SqlFacts

__all__ = ["GOOD", "Ending", "blind_host", "judge", "only_turned_away", "silent"]

GOOD = ("active", "done")
"""Outcomes of what succeeded."""

_QUOTA_TEXT = re.compile(r"uota|exceeded.*limit|limit.*exceeded", re.IGNORECASE)
_CALLEE_STEPS = {
    "keystone": "4a",
    "glance-api": "4b",
    "neutron-server": "4b",
    "cinder-api": "4b",
    "placement": "4c",
    "db": "4d",
    "rabbitmq": "4e",
    "nova-conductor": "4e",
}


@dataclass(slots=True)
class Ending:
    """How a creation ended."""

    outcome: Outcome
    stopped_at: str | None = None
    between: tuple[str, str] | None = None
    call: Call | None = None
    """The call that failed, or the last one that was made."""
    error: str = ""
    """The fault's own words."""
    time_ns: int = 0


def judge(case: Case, sight: StepSight, stall_ns: int) -> Ending:
    """Return how the creation of *case* ended."""
    trace = case.trace
    if trace.active_ns is not None:
        return Ending("active", call=trace.active_call, time_ns=trace.active_ns)
    refusal = _refusal(case)
    if refusal is not None:
        return _rejected(case, sight, refusal)
    failed_reply = _failed_reply(case)
    if trace.failed_ns is not None or failed_reply is not None:
        return _error(case, sight, failed_reply)
    return silent(case, sight, stall_ns)


# --- rejected -------------------------------------------------------------------------------------


def _refusal(case: Case) -> Call | None:
    """Return the innermost answer that refused the request, if one did."""
    created = case.trace.created
    if created is None:
        portal = [
            c
            for c in case.trace.calls
            if isinstance(c.facts, RestFacts) and c.facts.status >= 400 and c.facts.name
        ]
        return portal[0] if portal else None
    legs = [created] + ([created.front] if created.front is not None else [])
    for leg in legs:
        if isinstance(leg.facts, RestFacts) and leg.facts.status >= 400:
            return leg
        if isinstance(leg.facts, RestFacts) and 200 <= leg.facts.status < 300:
            return None
    return None


def _rejected(case: Case, sight: StepSight, refusal: Call) -> Ending:
    ending = Ending(
        "rejected", call=refusal, error=refusal.error, time_ns=refusal.ended_ns or refusal.started_ns
    )
    created = case.trace.created
    facts = refusal.facts
    status = facts.status if isinstance(facts, RestFacts) else 0
    if created is None:
        _refused_by_portal(case, sight, ending)
        return ending
    behind = isinstance(created.facts, RestFacts) and bool(created.facts.forwarded_for)
    by_service = isinstance(facts, RestFacts) and bool(facts.answered_id)
    if not behind and not by_service and status >= 500 and case.records[created.serial].callee == "lb":
        ending.stopped_at = "3"
        return ending
    culprit = _failing_in_api(case, created)
    if status in (401, 407):
        ending.stopped_at = "4a"
    elif status in (403, 413, 429) and _QUOTA_TEXT.search(refusal.error):
        ending.stopped_at = "4c"
    elif culprit is not None and status >= 500:
        ending.stopped_at = _culprit_step(culprit)
        ending.call = culprit.call
        ending.error = culprit.call.error or refusal.error
    elif status == 403 and (refusal.error in ("", "Forbidden") or getattr(facts, "broken", False)):
        # The words are lost: policy (4b) or quota (4c).
        ending.between = ("4a", "4c")
    else:
        ending.stopped_at = "4b"
    return ending


def _refused_by_portal(case: Case, sight: StepSight, ending: Ending) -> None:
    logins = [
        c for c in case.trace.calls if "/auth/tokens" in c.operation or c.operation.startswith("CONNECT")
    ]
    if logins and all(c.serial in case.trace.ambiguous for c in logins):
        # Another order's, perhaps: then the SC refused by itself.
        ending.between = ("1", "2")
    elif logins:
        bad = [c for c in logins if c.result[:1] not in "23?"]
        if bad:
            ending.call = bad[0]
            ending.error = bad[0].error or ending.error
        if bad or sight.would_show("2"):
            ending.stopped_at = "2"
        else:
            ending.between = ("1", "4e")
    elif sight.whole("2"):
        ending.stopped_at = "1"
    else:
        ending.between = ("1", "3")


class _Culprit:
    __slots__ = ("call", "record")

    def __init__(self, call: Call, record: CallRecord) -> None:
        self.call, self.record = call, record


def _failing_in_api(case: Case, created: Call) -> _Culprit | None:
    """Return the last call of nova-api, while it worked on the request, that failed."""
    until_ns = created.ended_ns or (1 << 62)
    found = None
    for call in case.trace.calls:
        record = case.records[call.serial]
        if (
            record.caller not in ("nova-api", "?")
            and record.caller_address != created.connection.server.address
        ):
            continue
        bad = (
            record.result in ("refused", "none", "error", "unroutable", "failure") or record.result[:1] == "5"
        )
        if bad and created.started_ns <= call.started_ns <= until_ns and call is not created:
            found = _Culprit(call, record)
    return found


def _culprit_step(culprit: _Culprit) -> str:
    if culprit.record.protocol == "SQL" and culprit.record.operation.startswith("SELECT"):
        return "4c"
    return _CALLEE_STEPS.get(culprit.record.callee, "4b")


# --- error ----------------------------------------------------------------------------------------


def _failed_reply(case: Case) -> Call | None:
    """Return a reply of select_destinations that holds a failure: nothing follows it but the error."""
    for call in case.trace.calls:
        facts = call.facts
        if (
            isinstance(facts, RpcFacts)
            and facts.mode == "reply"
            and facts.failure
            and facts.method == "select_destinations"
        ):
            return call
    return None


def _error(case: Case, sight: StepSight, failed_reply: Call | None) -> Ending:
    trace = case.trace
    told = trace.failed_call
    ending = Ending(
        "error", call=told, time_ns=trace.failed_ns or (failed_reply.started_ns if failed_reply else 0)
    )
    broken = failing_of_attempt(case, len(case.attempts) - 1)
    if broken is not None:
        ending.stopped_at = min(broken.failed)
        ending.call, ending.error = broken.call, broken.call.error
        return ending
    if failed_reply is not None and not case.attempts:
        ending.stopped_at, ending.call, ending.error = "6", failed_reply, failed_reply.error
        return ending
    lost = next((w for w in case.witnesses if w.failed and w.record.protocol == "RPC" and not w.steps), None)
    if lost is not None:
        ending.stopped_at, ending.call, ending.error = min(lost.failed), lost.call, lost.call.error
        return ending
    if _answered_late(case) and not case.attempts:
        ending.stopped_at = "6"
    else:
        _first_absent(case, sight, ending)
    recorded = [c.facts.fault for c in trace.calls if isinstance(c.facts, SqlFacts) and c.facts.fault]
    ending.error = (told.error if told is not None else "") or (recorded[-1] if recorded else "")
    return ending


def _answered_late(case: Case) -> bool:
    """Tell whether the scheduler's answer came when the VM was in error already: it is none."""
    failed_ns = case.trace.failed_ns
    return failed_ns is not None and any(
        isinstance(call.facts, RpcFacts)
        and call.facts.method == "select_destinations"
        and call.facts.mode == "call"
        and call.started_ns < failed_ns < (call.facts.answered_ns or 0)
        for call in case.trace.calls
    )


def failing_of_attempt(case: Case, number: int) -> Witness | None:
    """Return the call with which attempt *number* failed: refused, answered badly, or never answered."""
    if not 0 <= number < len(case.attempts):
        # Step 7 is not in the captures: all that a nova-compute did counts.
        since_ns, until_ns = 0, 1 << 62
    else:
        since_ns = case.attempts[number].since_ns
        following = case.attempts[number + 1 :]
        until_ns = following[0].since_ns if following else 1 << 62
    found = None
    for witness in case.witnesses:
        if not since_ns <= witness.call.started_ns < until_ns or witness.record.caller != "nova-compute":
            continue
        if witness.failed and witness.record.protocol == "REST":
            later = [
                w
                for w in case.witnesses
                if w.call.started_ns > witness.call.started_ns
                and w.call.started_ns < until_ns
                and w.record.operation == witness.record.operation
                and w.steps & witness.failed
            ]
            # Asked again with success (a token renewed, a retry): no failure of the step.
            if not later or isinstance(witness.call.facts, ConnectFacts):
                recovered = isinstance(witness.call.facts, ConnectFacts) and any(
                    w.call.started_ns > witness.call.started_ns
                    and w.steps & witness.failed
                    and w.call.started_ns < until_ns
                    for w in case.witnesses
                )
                if not recovered:
                    found = found or witness
    return found


# --- what is known in part ------------------------------------------------------------------------


def blind_host(case: Case, ending: Ending, sight: StepSight) -> tuple[str, int] | None:
    """Return the plane, and when its capture ends, if that is why nobody knows which host built the VM.

    The host that was asked last has built it when its start of the VM was seen to succeed, or when the
    capture goes on until the VM was up: else another one may have been asked behind the end.
    """
    if ending.outcome not in GOOD or not case.trace.creates or not case.attempts:
        return None
    last = case.attempts[-1]
    built = [w for w in case.step_calls("8c") if w.call.started_ns >= last.since_ns]
    if built and failing_of_attempt(case, len(case.attempts) - 1) is None:
        return None
    plane = case.records[last.call.serial].plane if last.call is not None else "*"
    seen_ns = sight.seen_for_ns(plane, case.first_ns)
    return (plane, case.first_ns + seen_ns) if case.first_ns + seen_ns < ending.time_ns else None


def only_turned_away(witnesses: Sequence[Witness], ending: Ending) -> bool:
    """Tell whether a step never got further than refused connections, in a creation that may ask again."""
    waits = ending.outcome in ("stuck", "unfinished")
    return waits and bool(witnesses) and all(_lost(w) for w in witnesses)


def _lost(witness: Witness) -> bool:
    return isinstance(witness.call.facts, ConnectFacts)


# --- stuck and unfinished -------------------------------------------------------------------------


def silent(case: Case, sight: StepSight, stall_ns: int) -> Ending:
    """Return the ending of what neither succeeded nor failed: stuck, or unfinished when the capture ends."""
    last_ns = case.last_own_ns()
    ending = Ending("unfinished", time_ns=last_ns)
    _first_absent(case, sight, ending)
    owed = ending.stopped_at or (ending.between[1] if ending.between else None)
    end_ns = sight.captured_until_ns(owed)
    # Where a call is seen to wait, its end would be seen as well.
    waits = _unanswered(case, case.attempts[-1].since_ns if case.attempts else 0) is not None
    if end_ns - last_ns >= stall_ns and (waits or sight.quiet_is_known(owed, last_ns)):
        ending.outcome = "stuck"
    ending.call = case.trace.calls[-1]
    return ending


def _first_absent(case: Case, sight: StepSight, ending: Ending) -> None:
    """Set where a creation stopped that shows no failure: the first step that did not happen.

    Where steps in between could not have been seen, it is between the last one that was and the first
    one that would have been.
    """
    steps = [s for s in case.grammar.steps if s.presence == "required"]
    since_ns = case.attempts[-1].since_ns if case.attempts else 0
    unanswered = _unanswered(case, since_ns)
    last_seen = -1
    for i, step in enumerate(steps):
        again = len(case.attempts) > 1 and step.name.startswith("8")
        made = case.step_calls(step.name)
        made += [w for w in case.witnesses if step.name in w.failed and _given_up(w)]
        if any(w.call.started_ns >= since_ns or not again for w in made):
            last_seen = i
    if unanswered is not None:
        ending.stopped_at = unanswered
        return
    if last_seen + 1 >= len(steps):
        # Everything was asked for and the VM is not up: the last step has not come to its end.
        ending.stopped_at = steps[-1].name
        return
    waiting = steps[last_seen + 1]
    if sight.would_show(waiting.name) or sight.owed_by_broker(waiting.name):
        ending.stopped_at = waiting.name
        return
    visible = next((s.name for s in steps[last_seen + 1 :] if sight.would_show(s.name)), None)
    before = steps[last_seen].name if last_seen >= 0 else steps[0].name
    ending.between = (before, visible or steps[-1].name)


def _given_up(witness: Witness) -> bool:
    """Tell whether a request on its way in was made, and its connection closed without an answer."""
    return witness.record.result == "none" and witness.record.caller in ("admin", "sc", "lb")


def _unanswered(case: Case, since_ns: int) -> str | None:
    """Return the step of the last call that waits for its answer: nova-compute's, or nova-api's."""
    created = case.trace.created
    if created is not None and not case.attempts:
        culprit = _failing_in_api(case, created)
        last_ns = max((w.call.started_ns for w in case.witnesses if w.steps), default=0)
        if culprit is not None and culprit.call.started_ns >= last_ns:
            return _culprit_step(culprit)
        leg = next((w for w in case.witnesses if w.call is created and _given_up(w)), None)
        if leg is not None and created.started_ns >= last_ns:
            return min(leg.failed, default=None)
    waiting = [
        w
        for w in case.witnesses
        if w.record.protocol == "REST"
        and w.record.caller == "nova-compute"
        and w.call.started_ns >= since_ns
        and w.record.result in ("?", "none")
        and not getattr(w.call.facts, "broken", False)
        and not w.call.connection.gaps
    ]
    if not waiting:
        return None
    return min(waiting[-1].steps | waiting[-1].failed, default=None)
