"""What at the broker kept a creation from going on: an evidence that no call of the creation shows.

A publisher that is blocked, a consumer that is gone, a reply for which there is no queue, a service that was
restarted. A hindrance counts only where it explains what the creation waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tracer.conformance.case import Case, Ending, Hindrance
from tracer.conformance.times import time_words
from tracer.model import Broker, BrokerEvent, Call, RpcFacts
from tracer.openstack.rpc import REPLY_QUEUE
from tracer.openstack.services import BROKER, HOST_SERVICE

__all__ = ["hinder"]

_SOON_NS = 60_000_000_000
"""A block that begins later than this after a message is not why the message was not confirmed."""
_SKEW_NS = 5_000_000


def hinder(case: Case, broker: Broker, ending: Ending, addresses_of: Callable[[str], set[str]]) -> None:
    """Set the hindrance of an ending that is no success, and the step where the hindrance tells it."""
    if ending.outcome not in ("stuck", "error", "rejected", "unfinished") or _has_failed_call(case, ending):
        return
    step = ending.stopped_at or (ending.between[1] if ending.between else None)
    owner = case.grammar.caller(step)
    found = (
        _unanswerable(case, broker, owner, step)
        or _untaken(case, broker, owner)
        or _blocked(case, broker, step, owner, _addresses(case, owner, addresses_of))
        or _restarted(case, broker, ending, owner, _addresses(case, owner, addresses_of))
    )
    if found is None or (ending.outcome == "rejected" and ending.proxy is None):
        return
    ending.hindrance = found
    if ending.outcome == "error" and ending.stopped_at is None and ending.between is not None:
        # Nothing more came of the service that owes the next step, and this is why.
        ending.stopped_at, ending.between = ending.between[1], None


def _has_failed_call(case: Case, ending: Ending) -> bool:
    """Return whether a call that failed explains the ending already."""
    call = ending.call
    if call is None or ending.outcome in ("stuck", "unfinished") or call is case.trace.failed_call:
        return False
    if ending.how and isinstance(call.facts, RpcFacts) and call.facts.mode == "call":
        # A call whose reply came late, or never.
        return False
    return ending.proxy is None or (call is not case.trace.created and call.result != "undelivered")


def _addresses(case: Case, role: str, addresses_of: Callable[[str], set[str]]) -> frozenset[str]:
    """Return the addresses of *role* in this trace, else in all captures."""
    if role == HOST_SERVICE and case.attempts:
        return case.attempts[-1].addresses
    created = case.trace.created
    if role == case.grammar.api and created is not None:
        return frozenset((created.connection.server.address,))
    return frozenset(addresses_of(role))


# --- a reply without a queue ----------------------------------------------------------------------


def _unanswerable(case: Case, broker: Broker, owner: str, step: str | None) -> Hindrance | None:
    """Return that a service waits for a reply which the broker returned, if it did nothing since it asked.

    The service is *owner*, who owes the next *step*; or that step is the reply itself.
    """
    returned = [
        call
        for call in case.trace.calls
        if isinstance(call.facts, RpcFacts) and call.facts.mode == "reply" and call.result == "unroutable"
    ]
    if not returned:
        return None
    last = returned[-1]
    asked, record = last.parent, case.records[last.serial]
    waiter = record.callee
    if not isinstance(last.facts, RpcFacts):
        return None
    if waiter != owner and last.facts.method not in case.grammar.replies(step):
        return None
    since_ns = asked.started_ns if asked is not None else last.started_ns
    if any(_is_made_by(case, call, waiter) and call.started_ns > since_ns for call in case.trace.calls):
        # It went on without that reply.
        return None
    queue = last.facts.routing_key
    same = [c for c in returned if isinstance(c.facts, RpcFacts) and c.facts.routing_key == queue]
    known = broker.returns(queue)
    count, first_ns, until_ns = len(same), same[0].started_ns, last.started_ns
    if known is not None and known.often > count:
        count, first_ns, until_ns = known.often, known.first_ns, known.last_ns
    often = "once" if count == 1 else f"{count} times in {time_words(max(0, until_ns - first_ns))}"
    if first_ns < case.first_ns:
        often += f", first {_from_beginning(case, first_ns)}"
    what = record.operation.removeprefix("reply ")
    words = (
        f"{BROKER} cannot deliver the reply of {record.caller} to {what}, for which {waiter} waits:"
        f" {last.error}, there is no queue {queue} (returned {often})"
    )
    return Hindrance(words, BROKER)


def _is_made_by(case: Case, call: Call, role: str) -> bool:
    record = case.records[call.serial]
    return record.caller == role and not record.operation.startswith("reply ")


# --- a message that nobody takes ------------------------------------------------------------------


def _last_message(case: Case, owner: str) -> Call | None:
    """Return the last RPC call or cast that is a step, or that *owner*, who owes the next step, sent."""
    steps = {w.call.serial for w in case.witnesses if w.steps}
    found = [
        call
        for call in case.trace.calls
        if isinstance(call.facts, RpcFacts)
        and call.facts.mode in ("call", "cast")
        and (call.serial in steps or case.records[call.serial].caller == owner)
        and call.serial not in case.trace.ambiguous
    ]
    return found[-1] if found else None


def _untaken(case: Case, broker: Broker, owner: str) -> Hindrance | None:
    """Return why the last message was taken by nobody: its publisher is blocked, or its consumer is gone."""
    call = _last_message(case, owner)
    if call is None or not isinstance(call.facts, RpcFacts) or call.result not in ("undelivered", "unacked"):
        return None
    record = case.records[call.serial]
    if call.facts.unconfirmed:
        blocked = _block_of(broker, call.connection.client.address, call.started_ns, call.connection.number)
        if blocked is not None:
            when = _from(call.started_ns, blocked.time_ns, f"the {call.facts.mode}")
            words = _block_words(record.caller, blocked, when)
            return Hindrance(f"{words}: {record.operation} was never confirmed", BROKER)
        if (lost := _cut_off(broker, call)) is not None:
            words = _ended_words(lost, record.caller)
            after = time_words(lost.time_ns - call.started_ns)
            words = f"{words} {after} after {record.operation}, and it was never confirmed"
            return Hindrance(words, BROKER if lost.by_broker else record.caller)
    queue = call.facts.routing_key
    gone = _consumer_gone(broker.of_queue(queue), call)
    if gone is None:
        return None
    fate = "never delivered" if call.result == "undelivered" else "not acknowledged"
    when = _from(call.started_ns, gone.time_ns, record.operation)
    did = gone.words.replace("the broker", BROKER).replace("its client", record.callee)
    did = did.replace("the client", record.callee).replace("the consumer", f"the consumer of queue {queue}")
    did = did.replace("the connection", f"the connection of the consumer of queue {queue}")
    words = f"{when}, {did}: the {call.facts.mode} was {fate}"
    return Hindrance(words, BROKER if gone.by_broker else record.callee)


def _cut_off(broker: Broker, call: Call) -> BrokerEvent | None:
    """Return the end of the connection on which *call* was published, if it was not confirmed by then."""
    events = broker.of_client(call.connection.client.address)
    ends = (e for e in events if e.kind == "lost" and e.connection.number == call.connection.number)
    return next((e for e in ends if call.started_ns <= e.time_ns <= call.started_ns + _SOON_NS), None)


def _ended_words(lost: BrokerEvent, role: str) -> str:
    """Return how a connection of *role* ended: 'rabbitmq reset the connection of nova-api'."""
    own = f"its connection to {BROKER}" if not lost.by_broker else f"the connection of {role}"
    words = lost.words.replace("the connection", own, 1)
    return words.replace("the client", role).replace("the broker", BROKER)


def _consumer_gone(events: Iterable[BrokerEvent], call: Call) -> BrokerEvent | None:
    """Return the event with which the last consumer of a queue went before, or while it had, the message."""
    gone = None
    # An undelivered message waits as long as the capture goes on: a consumer that comes later would get it.
    for event in events:
        if event.kind == "consuming":
            gone = None if event.time_ns <= call.started_ns or call.result == "undelivered" else gone
        elif event.kind == "gone" and not event.left:
            gone = event
    if gone is None or (call.result == "unacked" and gone.time_ns < call.started_ns):
        return None
    return gone


def _from(time_ns: int, event_ns: int, what: str) -> str:
    """Return how long before or after *what*, which was at *time_ns*, an event was, in words."""
    if event_ns <= time_ns:
        return f"{time_words(time_ns - event_ns)} before {what}"
    return f"{time_words(event_ns - time_ns)} after {what}"


def _from_beginning(case: Case, event_ns: int) -> str:
    """Return how long before or after the beginning of *case* an event was, in words."""
    workflow = "creation" if case.trace.creates else "operation"
    return _from(case.first_ns, event_ns, f"this {workflow} began")


# --- a publisher that is blocked ------------------------------------------------------------------


def _block_of(broker: Broker, address: str, time_ns: int, number: int | None = None) -> BrokerEvent | None:
    """Return the event by which a connection of *address* is blocked at *time_ns*, or was soon after it."""
    blocked: dict[int, BrokerEvent] = {}
    for event in broker.of_client(address):
        at = event.connection.number
        if event.kind == "blocked" and event.time_ns <= time_ns + _SOON_NS:
            blocked[at] = event
        elif event.kind in ("unblocked", "lost") and event.time_ns <= time_ns + _SKEW_NS:
            blocked.pop(at, None)
    # Of several connections the one on which the message went counts; else any one of that client.
    return blocked.get(number) if number is not None else next(iter(blocked.values()), None)


def _block_words(role: str, blocked: BrokerEvent, when: str) -> str:
    """Return, in words, that the broker takes no messages of *role*, since when and why."""
    return f"{BROKER} blocked the publishers of {role} {when} ({blocked.words or 'no reason given'})"


def _blocked(
    case: Case, broker: Broker, step: str | None, owner: str, addresses: frozenset[str]
) -> Hindrance | None:
    """Return that *owner*, who owes the message of *step*, cannot publish: its connection is blocked."""
    legs = case.grammar.legs(step) if step in case.grammar.places else ()
    if not any(leg.protocol == "RPC" for leg in legs[:1]):
        return None
    for address in sorted(addresses):
        blocked = _block_of(broker, address, case.last_own_ns())
        if blocked is not None and blocked.connection.client_role in ("", owner):
            when = _from_beginning(case, blocked.time_ns)
            return Hindrance(_block_words(owner, blocked, when), BROKER)
    return None


# --- a service that was restarted -----------------------------------------------------------------


def _restarted(
    case: Case, broker: Broker, ending: Ending, owner: str, addresses: frozenset[str]
) -> Hindrance | None:
    """Return that *owner* was restarted, or lost the broker, while the creation was its turn."""
    since_ns = max(_began_to_owe(case, owner), case.first_ns)
    until_ns = ending.time_ns if ending.outcome == "error" else 1 << 62
    if owner == case.grammar.api:
        return None
    for address in sorted(addresses):
        events = [
            e
            for e in broker.of_client(address)
            if e.connection.client_role == owner and since_ns - _SKEW_NS <= e.time_ns <= until_ns
        ]
        lost = [e for e in events if e.kind == "lost"]
        if not lost:
            continue
        before = [e for e in broker.of_client(address) if e.time_ns < lost[0].time_ns]
        opened = [e for e in events if e.kind == "opened" and e.time_ns > lost[0].time_ns]
        host = f" on {case.attempts[-1].host}" if owner == HOST_SERVICE and case.attempts else ""
        at = _from_beginning(case, lost[0].time_ns)
        did = _ended_words(lost[0], owner)
        if not opened and _has_another(broker.of_client(address), owner, lost):
            continue
        if not opened:
            who = f"{owner}{host}" if lost[0].by_broker else "it"
            words = f"{did} {at}, and {who} did not connect again"
            return Hindrance(words, BROKER if lost[0].by_broker else owner)
        gap = time_words(opened[0].time_ns - lost[0].time_ns)
        if _is_another_process(before, [e for e in events if e.time_ns > lost[0].time_ns]):
            words = (
                f"{owner}{host} was restarted: its connections to {BROKER} ended {at},"
                f" and a new process connected {gap} later"
            )
            return Hindrance(words, owner)
        words = f"{did} {at}, and {owner}{host} connected again {gap} later"
        return Hindrance(words, BROKER if lost[0].by_broker else owner)
    return None


def _has_another(events: Iterable[BrokerEvent], owner: str, lost: Iterable[BrokerEvent]) -> bool:
    """Return whether *owner* keeps a connection that it had before one was *lost*.

    A service closes a connection of its pool that was idle, and goes on with the others.
    """
    first_ns = min(each.time_ns for each in lost)
    ended = {e.connection.number for e in events if e.kind == "lost"}
    return any(
        e.connection.client_role == owner and e.time_ns < first_ns and e.connection.number not in ended
        for e in events
        if e.kind in ("opened", "consuming")
    )


def _began_to_owe(case: Case, owner: str) -> int:
    """Return when the last message reached *owner*, or it last acted in this creation."""
    times = [
        w.call.started_ns
        for w in case.witnesses
        if w.record.callee == owner and isinstance(w.call.facts, RpcFacts) and w.steps
    ]
    return times[-1] if times else case.first_ns


def _is_another_process(before: list[BrokerEvent], after: list[BrokerEvent]) -> bool:
    """Return whether the process that connected *after* is another one than that *before*.

    Its connections are named with another process id; or it consumes another reply queue, which a process
    names once (oslo_messaging/_drivers/amqpdriver.py, _get_reply_q).
    """
    named = {e.words for e in before if e.kind == "opened" and ":" in e.words}
    renamed = {e.words for e in after if e.kind == "opened" and ":" in e.words}
    if named and renamed and named.isdisjoint(renamed):
        return True
    queues = {e.queue for e in before if e.kind == "consuming" and e.queue.startswith(REPLY_QUEUE)}
    others = {e.queue for e in after if e.kind == "consuming" and e.queue.startswith(REPLY_QUEUE)}
    return bool(queues and others and queues.isdisjoint(others))
