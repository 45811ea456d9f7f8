"""What a creation that is stuck, deleted or not over waits for: the step, who owes it, what is seen of it."""

from __future__ import annotations

from typing import NamedTuple

from tracer.conformance.bodies import not_done, said_of
from tracer.conformance.call_words import (
    FATES,
    NOT_TAKEN,
    after_colon,
    between_words,
    call_words,
    is_unconfirmed,
    last_message,
    owed_by,
    with_error,
)
from tracer.conformance.case import Case, Ending, Said
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import time_words
from tracer.conformance.told import begun_in, begun_step
from tracer.model import CallRecord, RpcFacts
from tracer.openstack.services import BROKER

__all__ = ["Stall", "deletion_words", "open_call", "so_far", "stall", "stalled_in"]

_QUIET_NS = 5_000_000_000
"""An unfinished creation reports a silence of at least this length."""


class Stall(NamedTuple):
    """What a stuck creation waits for."""

    head: str
    """Which step, how long, and who owes it."""
    seen: str
    """What is seen of that; '' for nothing."""
    peer: str
    """The role that it waits for."""
    own_cause: str = ""
    """`seen` as a sentence of its own, where it is none."""

    @property
    def words(self) -> str:
        """Return it in one sentence."""
        return self.head + after_colon(self.seen)

    @property
    def cause(self) -> str:
        """Return why it is stuck, without the step; '' where nothing shows it."""
        return self.own_cause or self.seen


def stalled_in(case: Case, ending: Ending) -> Said | None:
    """Return the state that the host of a stuck creation saved last; None where something else tells more."""
    if ending.outcome != "stuck" or not ending.state or ending.how or ending.hindrance is not None:
        return None
    return begun_in(case, len(case.attempts) - 1)


def stall(case: Case, ending: Ending, coverage: StepCoverage) -> Stall:
    """Return what a stuck creation waits for."""
    step = ending.stopped_at
    last = case.records.get(ending.call.serial) if ending.call is not None else None
    if step is None:
        waits = last if last is not None and last.result in ("none", "?") else None
        cause = call_words(waits, is_silent=True) if waits is not None else ""
        return Stall(between_words(ending), cause, waits.callee if waits is not None else "")
    owner, role = owed_by(case, step), case.grammar.caller(step)
    quiet_ns = coverage.captured_until_ns(step, bool(ending.state)) - case.last_own_ns()
    begun = begun_in(case, len(case.attempts) - 1) if ending.state and not ending.how else None
    if begun is not None:
        began_ns = begun.call.started_ns
        lasts = time_words(case.last_own_ns() + quiet_ns - began_ns)
        after = f"+{(began_ns - case.first_ns) / 1e9:.1f} s"
        saved = f"it saved the state {ending.state} at {after}, and none since"
        cause = f"no state after {ending.state}"
        return Stall(f"step {step} has not ended in {lasts}, owed by {owner}", saved, role, cause)
    since = f"step {step} {_verb(case, step)} in {time_words(quiet_ns)}"
    head = f"{since}, owed by {owner}"
    if ending.hindrance is not None:
        # Who did it owes the rest: a service gives nothing for a message that it never got.
        peer = ending.hindrance.peer
        return Stall(head if peer == role else f"{since}, owed by {peer}", ending.hindrance.words, peer)
    if ending.how:
        peer = ending.peer or role
        how = f"{ending.how}{after_colon(ending.error)}"
        return Stall(head if peer == role else since, how, peer)
    message = last_message(case)
    if message is not None and coverage.owed_by_broker(step):
        if is_unconfirmed(case, message):
            return Stall(head, f"{BROKER} never confirmed {message.operation} of {message.caller}", BROKER)
        fate = f"{message.operation} {FATES.get(message.result, '')}"
        return Stall(head, fate, role, call_words(message))
    turned_away = [w.record for w in case.witnesses if step in w.failed and w.record.protocol == "RPC"]
    turned_away = [record for record in turned_away if not record.operation.startswith("CONNECT")]
    if turned_away:
        head = f"step {step} did not get through in {time_words(quiet_ns)}"
        return Stall(head, with_error(call_words(turned_away[-1]), _own_error(turned_away[-1])), BROKER)
    return _by_last_call(case, step, head, quiet_ns, last, message)


def _by_last_call(
    case: Case, step: str, head: str, quiet_ns: int, last: CallRecord | None, message: CallRecord | None
) -> Stall:
    """Return what a stuck creation waits for, as its last call tells it."""
    role = case.grammar.caller(step)
    if last is not None and last.result in ("undelivered", "unacked") and is_unconfirmed(case, last):
        return Stall(head, f"{BROKER} never confirmed {last.operation} of {last.caller}", BROKER)
    asker = owed_by(case, step) or (last.caller if last is not None else "")
    # Where the callee owes the step itself, it owes the answer to its client: `call_words` says that.
    waits = last is not None and last.result == "?" and last.protocol != "RPC"
    if last is not None and waits and last.callee not in (asker, role):
        owed = f"{last.callee} owes {asker} the answer to {last.operation}"
        cause = f"{last.callee} never answered {last.operation}"
        return Stall(f"step {step} {_verb(case, step)} in {time_words(quiet_ns)}", owed, last.callee, cause)
    if last is not None and last.result in ("none", "refused", "?", "error"):
        words = with_error(call_words(last, is_silent=True), last.error) + _last_of_api(case, last)
        is_message = last.protocol == "RPC" and not last.operation.startswith("CONNECT")
        return Stall(head, words, role if is_message else last.callee)
    if message is not None and message.result == "ok" and _is_newest(case, message):
        fate = "was delivered, then silence" if _is_from_firehose(case, message) else FATES["ok"]
        return Stall(head, f"{message.operation} {fate}", role, call_words(message))
    return Stall(head, "", role)


def _own_error(record: CallRecord) -> str:
    """Return the broker's words about a message that it did not take; '' where its fate says it all."""
    return record.error if record.result == "error" else ""


def _verb(case: Case, step: str) -> str:
    """Return what is to be said of *step*, of the last attempt where it is one of these."""
    since_ns = case.attempts[-1].since_ns if case.attempts and step in case.grammar.attempt else 0
    if any(w.call.started_ns >= since_ns for w in case.step_calls(step)):
        return "has not ended"
    tried = (w for w in case.witnesses if step in w.failed and w.call.started_ns >= since_ns)
    return "did not get through" if step not in case.grammar.inward and any(tried) else "never came"


def _last_of_api(case: Case, leg: CallRecord) -> str:
    """Return what the API did last for *leg*, a request that it has not answered; '' for other calls."""
    created, api = case.trace.created, case.grammar.api
    if created is None or case.records[created.serial] is not leg or leg.callee != api or leg.result != "?":
        return ""
    made = [w.record for w in case.witnesses if w.record.caller == api and w.steps]
    return f", its last call was {made[-1].operation}" if made else ", and made no call"


def deletion_words(case: Case, ending: Ending) -> str:
    """Return who deleted a VM that was being built, and what it was waiting for."""
    record = case.records.get(ending.call.serial) if ending.call is not None else None
    who = f"by {record.caller} ({record.operation})" if record is not None else "by its user"
    step = ending.stopped_at
    if step is None:
        return f"{who}, between steps {' and '.join(ending.between or ())}"
    if (begun := begun_step(case, step)) is not None and open_call(case, ending) is None:
        return (
            f"{who}, while step {step} had not ended: {owed_by(case, step)} had saved the state {begun.word}"
        )
    if not case.step_calls(step):
        by = owed_by(case, step)
        return f"{who}, before step {step}{f', owed by {by}' if by else ''}"
    waits = open_call(case, ending)
    said = ""
    if waits is not None and waits.result == "?":
        said = f": {waits.callee} had not answered {waits.operation}"
    elif waits is not None:
        facts = next(w for w in case.witnesses if w.record is waits)
        said = f": {call_words(waits)}, {said_of(facts)}"
    return f"{who}, while step {step} had not ended{said}"


def open_call(case: Case, ending: Ending) -> CallRecord | None:
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


def so_far(case: Case, ending: Ending, coverage: StepCoverage) -> str:
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
    message = last_message(case)
    if message is not None and message.result in NOT_TAKEN and coverage.owed_by_broker(step):
        does = f"{message.callee} has not taken the message"
        if is_unconfirmed(case, message):
            does = f"{BROKER} has not confirmed the message to {message.callee}"
        elif message.result == "unroutable":
            does = f"no queue is bound for the message to {message.callee}, and no further call came"
        elif message.result == "unacked":
            does = f"{message.callee} has not acknowledged the message"
    elif owed_by(case, step):
        does = f"{owed_by(case, step)} has made no further call"
    else:
        does = "no further call came"
    seconds = quiet_ns // 1_000_000_000
    limit = seconds // 10 * 10 if seconds > 10 else seconds - seconds % 5
    return f": {does} for {quiet_ns / 1e9:.0f} s; --stall {limit} would report it as stuck"
