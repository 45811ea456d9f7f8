"""Why a creation does not go on, as far as the wire shows it: unanswered requests, undelivered messages.

`Queues` follows messages that were not delivered and the consumers of each queue. A queue is identified by
the routing key of its messages, as oslo.messaging names its queues. A queue is reported without a consumer
only when its last consumer has gone, or when the broker counted none.
"""

from __future__ import annotations

from collections import OrderedDict

from tracer.grammar import Grammar
from tracer.model import TO_CLIENT, AmqpMethod, Call, CallRecord, Closed, RpcFacts, Trace, Verdict
from tracer.model.events import BrokerQueue, OpenTrace
from tracer.model.tables import trim

__all__ = ["Queues", "stall_words", "why_held_up"]

MOST_WAITING = 20_000
MOST_QUEUES = 50_000

_Consumer = tuple[int, int, str]
"""Connection, channel, tag."""


class Queues:
    """Follows the undelivered messages and the consumers of all brokers."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, Call] = OrderedDict()
        self._consumers: OrderedDict[str, set[_Consumer]] = OrderedDict()
        self._queue_of: dict[_Consumer, str] = {}
        self._is_full = False
        """Consumers were left out for lack of room: from then on no queue is reported without a consumer."""
        self._asked: dict[tuple[int, int], str] = {}
        """(connection, channel) -> queue of a basic.consume without a tag: the broker chooses the tag."""

    def method(self, message: AmqpMethod) -> None:
        """Record consumers that start and end."""
        arguments, number = message.arguments, message.connection.number
        tag = str(arguments.get("consumer_tag", ""))
        if message.name == "basic.consume":
            queue = str(arguments.get("queue", ""))
            if tag:
                self._comes((number, message.channel, tag), queue)
            else:
                self._asked[number, message.channel] = queue
        elif message.name == "basic.consume-ok":
            queue = self._asked.pop((number, message.channel), "")
            if queue:
                self._comes((number, message.channel, tag), queue)
        elif message.name == "basic.cancel":
            self._goes((number, message.channel, tag))
        elif message.name == "channel.close":
            for consumer in [c for c in self._queue_of if c[:2] == (number, message.channel)]:
                self._goes(consumer)
        elif message.name == "queue.declare-ok" and message.direction == TO_CLIENT:
            queue = str(arguments.get("queue", ""))
            if arguments.get("consumer_count") == 0 and not self._consumers.get(queue):
                self._set(queue)

    def closed(self, closed: Closed) -> None:
        """Record that a connection has ended, and its consumers with it."""
        if closed.connection.protocol not in ("amqp091", "firehose"):
            return
        number = closed.connection.number
        self._asked = {key: queue for key, queue in self._asked.items() if key[0] != number}
        for consumer in [c for c in self._queue_of if c[0] == number]:
            self._goes(consumer)

    def call(self, call: Call) -> None:
        """Record that a message was published or delivered."""
        facts = call.facts
        if not isinstance(facts, RpcFacts):
            return
        # A fanout or a notification without a consumer is normal: only calls and casts count as waiting.
        if call.result == "undelivered" and facts.mode in ("call", "cast"):
            self._waiting[call.serial] = call
            trim(self._waiting, MOST_WAITING)
            return
        self._waiting.pop(call.serial, None)
        if facts.consumer is not None and facts.mode in ("call", "cast") and facts.routing_key:
            # A delivery shows a consumer without its tag and channel (-1): it ends with its connection.
            self._comes((facts.consumer.connection.number, -1, facts.routing_key), facts.routing_key)

    def _comes(self, consumer: _Consumer, queue: str) -> None:
        self._is_full |= len(self._queue_of) >= MOST_QUEUES
        if consumer not in self._queue_of and not self._is_full:
            self._queue_of[consumer] = queue
            self._set(queue).add(consumer)

    def _goes(self, consumer: _Consumer) -> None:
        queue = self._queue_of.pop(consumer, None)
        if queue is None:
            return
        consumers = self._set(queue)
        consumers.discard(consumer)
        # The same consumer may be recorded twice: by its basic.consume, and by a delivery (channel -1).
        shadow = (consumer[0], -1, queue)
        if consumer[1] >= 0 and not any(c[0] == consumer[0] and c[1] >= 0 for c in consumers):
            self._queue_of.pop(shadow, None)
            consumers.discard(shadow)

    def _set(self, queue: str) -> set[_Consumer]:
        found = self._consumers.setdefault(queue, set())
        while len(self._consumers) > MOST_QUEUES:
            self._consumers.popitem(last=False)
            self._is_full = True
        return found

    def has_no_consumer(self, queue: str) -> bool:
        """Return whether *queue* is known to have no consumer."""
        return not self._is_full and queue in self._consumers and not self._consumers[queue]

    def forget(self, before_ns: int) -> None:
        """Forget messages published before *before_ns*."""
        for serial in [s for s, call in self._waiting.items() if call.started_ns < before_ns]:
            del self._waiting[serial]

    def unwell(self, now_ns: int, patience_ns: int = 2_000_000_000) -> list[BrokerQueue]:
        """Return the queues with messages that wait longer than *patience_ns*, the worst first."""
        found: dict[str, BrokerQueue] = {}
        for call in self._waiting.values():
            if call.started_ns > now_ns - patience_ns or not isinstance(call.facts, RpcFacts):
                continue
            key = call.facts.routing_key or call.facts.exchange
            queue = found.get(key)
            if queue is None:
                # None: not known, which differs from 0 consumers.
                known = None if self._is_full else self._consumers.get(key)
                consumers = None if known is None else len(known)
                queue = found[key] = BrokerQueue(key, 0, consumers, call.started_ns)
            queue.waiting += 1
            queue.oldest_ns = min(queue.oldest_ns, call.started_ns)
        return sorted(found.values(), key=lambda queue: (queue.consumers != 0, -queue.waiting, queue.name))


# --- one trace -------------------------------------------------------------------------------------


def why_held_up(trace: Trace, verdict: Verdict, grammar: Grammar, queues: Queues) -> str:
    """Return why the creation does not go on, as far as the wire shows it; '' when it does not show it."""
    if verdict.outcome not in ("stuck", "unfinished"):
        return ""
    if verdict.deviations and verdict.deviations[0].hindrance:
        return verdict.deviations[0].hindrance
    if verdict.calls and verdict.calls[-1].result == "refused":
        callee = verdict.calls[-1].callee
        count = sum(call.result == "refused" and call.callee == callee for call in verdict.calls)
        return f"{callee} refused {f'{count:,} connections' if count > 1 else 'the connection'}"
    # The later of the two is the cause: the last unanswered request, or the last message.
    asked = next((call for call in reversed(verdict.calls) if _is_open_request(call, grammar)), None)
    last = next((call for call in reversed(verdict.calls) if _is_message(call)), None)
    if asked is not None and (last is None or asked.started_ns > last.started_ns):
        return f"{asked.operation} to {asked.callee} unanswered"
    if last is None:
        portal = grammar.portal_step
        order = next((c for c in verdict.calls if c.step and c.step == portal and c.result == "?"), None)
        return f"{order.operation} unanswered" if order is not None and not trace.created else ""
    waits = {"undelivered": "not delivered", "unacked": "not acknowledged", "unroutable": "unroutable"}
    if last.result == "ok" and last.operation.startswith("call "):
        return f"{_method(last)} unanswered"
    if last.result not in waits:
        return ""
    words = f"{_method(last)} {waits[last.result]}"
    queue = _queue(trace, last)
    if queue and queues.has_no_consumer(queue):
        words += f"; {last.callee}'s queue has no consumer"
    return words


def stall_words(shown: OpenTrace, quiet_ns: int) -> str:
    """Return the message for a stalled trace: how long, at which step, which role owes it, and why."""
    verdict = shown.verdict
    step = f"before step {verdict.stopped_at}"
    if verdict.stopped_between:
        step = f"between steps {' and '.join(verdict.stopped_between)}"
    owed = f", owed by {shown.owes}" if shown.owes else ""
    why = f": {shown.why}" if shown.why else ""
    return f"stalled for {quiet_ns / 1e9:.0f} s {step}{owed}{why}"


def _is_open_request(call: CallRecord, grammar: Grammar) -> bool:
    """Return whether *call* is a step's unanswered request, other than the steps on the way in.

    These wait for everything inside them, so an answer that is missing there explains nothing.
    """
    is_asked = call.step is not None and call.step not in grammar.inward
    return call.protocol == "REST" and call.result == "?" and is_asked


def _queue(trace: Trace, record: CallRecord) -> str:
    """Return the queue (routing key) of the message that *record* describes; '' when unknown."""
    for call in trace.calls:
        if isinstance(call.facts, RpcFacts) and call.started_ns == record.started_ns:
            return call.facts.routing_key
    return ""


def _is_message(call: CallRecord) -> bool:
    return call.protocol == "RPC" and call.step is not None


def _method(call: CallRecord) -> str:
    return call.operation.partition(" ")[2] or call.operation
