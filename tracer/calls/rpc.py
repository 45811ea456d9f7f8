"""AMQP messages become RPC calls: publish, delivery and acknowledgement of one message are one call.

What the broker did with a message is its result: *unroutable* (returned), *undelivered* (published, no
consumer got it), *unacked* (delivered, not acknowledged), *ok* (acknowledged, or delivered to a consumer
that acknowledges nothing). oslo.messaging acknowledges before it works, so *ok* does not say that the
work was done.

A broker's firehose tells publish and delivery, no acknowledgement: delivered is *ok* there. What is sniffed
and told by the firehose as well is one call, by the unique id: the publish of a message from the other kind
of capture point adds its frames. The sniffed connection stays the call's own, since Wireshark shows it, and a
sniffed delivery's *unacked* is never made *ok* by the firehose. The copies that a firehose makes, seen when
its listener's wire is sniffed, are no calls.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from typing import Any

from tracer.calls import oslo
from tracer.calls.bodies import clean
from tracer.model import (
    CLIENT,
    TO_CLIENT,
    TO_SERVER,
    AmqpContent,
    AmqpMethod,
    Call,
    Closed,
    Connection,
    End,
    RpcFacts,
)
from tracer.openstack.rpc import ABOUT_SERVERS, OF_OBJECTS, SELECTS_HOSTS
from tracer.openstack.services import FANOUT

__all__ = ["RpcCalls"]

UNACKED_LIMIT = 4_096
"""Of one channel; RabbitMQ's prefetch is rarely more than some hundreds."""
EARLY_LIMIT = 256
"""Of one channel; a hole in the stream of deliveries holds up no more of them than a second brings."""
REMEMBERED = 50_000
"""Messages whose delivery, acknowledgement or reply may still come; the oldest are forgotten."""
ALIKE = 64
"""Messages of one exchange, key and size without a unique id that wait for their other leg."""

FIREHOSE = "amq.rabbitmq."
"""How the broker's own exchanges for tracing and events begin."""

_Ack = tuple[int, int]
_Likeness = tuple[str, str, int]


class RpcCalls:
    """Joins the two legs of each message by its `_unique_id`, and replies to calls by `_msg_id`."""

    def __init__(self, serial: Callable[[], int]) -> None:
        self._serial = serial
        self._by_unique: OrderedDict[str, Call] = OrderedDict()
        self._by_msg: OrderedDict[str, Call] = OrderedDict()
        self._unjoined: OrderedDict[_Likeness, deque[Call]] = OrderedDict()
        """Messages whose unique id is lost: joined by exchange, key and size, the oldest first."""
        self._no_ack: dict[_Ack, set[str]] = {}
        """(connection, channel) -> tags of consumers that acknowledge nothing"""
        self._asks_no_ack: set[_Ack] = set()
        """Channels that asked so without a tag (basic.consume before its -ok), or by basic.get."""
        self._unacked: dict[_Ack, dict[int, Call]] = {}
        """(connection, channel) -> delivery tag -> call"""
        self._early: dict[_Ack, dict[int, AmqpMethod]] = {}
        """Acknowledgements of what was not delivered yet: lost bytes held the delivery up, not them."""
        self._outstanding: dict[_Ack, list[Call]] = {}
        """Publishes of a channel, for a broker's nack."""
        self._replied_keys: set[tuple[str, str]] = set()
        """(exchange, routing key) of calls that were answered though no delivery was seen: the way
        to that consumer cannot be seen, so its silence means nothing."""
        self._never_delivered: OrderedDict[int, Call] = OrderedDict()

    # --- contents ---

    def content(self, message: AmqpContent) -> list[Call]:
        """Return the call that *message* begins or carries on."""
        if str(message.arguments.get("exchange", "")).startswith(FIREHOSE):
            return []
        envelope = oslo.read(message.body, message.truncated)
        if message.name == "basic.return":
            return self._returned(message, envelope)
        unique = (envelope.unique_id or "") if envelope else ""
        call = self._by_unique.get(unique) if unique else None
        size_key = (str(message.arguments.get("exchange", "")), _key(message), message.body_bytes)
        if call is None and not unique:
            call = self._other_leg(message, size_key)
        if call is not None and message.name == "basic.publish" and _is_told_twice(call, message):
            return self._told_twice(call, message)
        if call is None or (message.name == "basic.publish" and _facts(call).published):
            if envelope is not None and envelope.kind == "reply" and envelope.ending is False:
                return self._heartbeat(message, envelope)
            call = self._begin(message, envelope)
            self._remember(call, unique, size_key)
        facts = _facts(call)
        if message.name == "basic.publish":
            self._published(call, facts, message)
        else:
            self._delivered(call, facts, message)
        return [call]

    def _other_leg(self, message: AmqpContent, likeness: _Likeness) -> Call | None:
        """Return the oldest call without unique id that lacks this leg; a fanout has many deliveries."""
        waiting = self._unjoined.get(likeness, deque())
        while len(waiting) > 1 and _facts(waiting[0]).published and _facts(waiting[0]).delivered:
            waiting.popleft()
        if message.name == "basic.publish":
            return next((call for call in waiting if not _facts(call).published), None)
        many = likeness[0].endswith(FANOUT) or bool(message.arguments.get("redelivered"))
        found = next((call for call in waiting if not _facts(call).delivered), None)
        return found or (waiting[-1] if waiting and many else None)

    def _remember(self, call: Call, unique: str, likeness: _Likeness) -> None:
        if unique:
            self._by_unique[unique] = call
            # One that is published again is as young as its last time: the table is in order of age.
            self._by_unique.move_to_end(unique)
            _trim(self._by_unique)
        else:
            self._unjoined.setdefault(likeness, deque(maxlen=ALIKE)).append(call)
            _trim(self._unjoined)
        facts = _facts(call)
        if facts.msg_id and facts.mode == "call":
            self._by_msg[facts.msg_id] = call
            self._by_msg.move_to_end(facts.msg_id)
            _trim(self._by_msg)

    def restore(self, call: Call) -> None:
        """Expect what may still come of *call*, which an earlier run has seen.

        Whether it was delivered since then, nobody knows.
        """
        facts = _facts(call)
        if call.result in ("undelivered", "unacked"):
            call.result = "?"
        self._remember(call, facts.unique_id, (facts.exchange, facts.routing_key, -1))

    def _begin(self, message: AmqpContent, envelope: oslo.OsloMessage | None) -> Call:
        facts = self._read(message, envelope)
        call = Call(
            self._serial(),
            "RPC",
            f"{facts.mode} {facts.method}",
            "?",
            message.time_ns,
            None,
            [],
            None,
            None,
            facts,
            message.connection,
        )
        if facts.mode == "reply":
            call.parent = self._by_msg.get(facts.msg_id)
            call.result = "failure" if facts.failure else "ok"
            call.error = facts.failure
        return call

    def _read(self, message: AmqpContent, envelope: oslo.OsloMessage | None) -> RpcFacts:
        exchange, key = str(message.arguments.get("exchange", "")), _key(message)
        if envelope is None:
            return RpcFacts("?", "cast" if exchange else "reply", exchange, key, broken=message.truncated)
        facts = RpcFacts(
            envelope.method or "?",
            _mode(envelope, exchange),
            exchange,
            key,
            envelope.msg_id or "",
            envelope.unique_id or "",
            envelope.request_id or "",
            envelope.global_request_id or "",
            envelope.project_id or "",
            failure=clean(envelope.failure or ""),
            broken=message.truncated,
        )
        if facts.mode == "notify":
            facts.method = envelope.event_type or "?"
        elif facts.mode == "reply":
            self._read_reply(facts, message)
        elif facts.method in ABOUT_SERVERS:
            facts.ids = tuple(oslo.instance_uuids(facts.method, message.body))
        elif facts.method in OF_OBJECTS:
            _read_object(facts, message.body)
        return facts

    def _read_reply(self, facts: RpcFacts, message: AmqpContent) -> None:
        asked = self._by_msg.get(facts.msg_id)
        if asked is None:
            facts.method = "?"
            return
        question = _facts(asked)
        if question.answered_ns is None:
            question.answered_ns = message.time_ns
        facts.method, facts.request_id, facts.ids = question.method, question.request_id, question.ids
        facts.project_id = question.project_id
        facts.object_method, facts.vm_state = question.object_method, question.vm_state
        if question.method in SELECTS_HOSTS and not facts.failure:
            facts.hosts = tuple(hosts[0] for hosts in oslo.selected_hosts(message.body) if hosts)
        if not question.delivered:
            self._replied_keys.add((question.exchange, question.routing_key))
            question.delivered = question.acknowledged = True
            asked.result = "ok"

    # --- what the broker did ---

    def _published(self, call: Call, facts: RpcFacts, message: AmqpContent) -> None:
        connection = message.connection
        facts.published = True
        # The delivery may have been seen first (two capture points): the call begins with its publish.
        call.started_ns = min(call.started_ns, message.time_ns)
        call.connection = connection
        call.caller = End(connection, CLIENT)
        call.frames[:0] = message.frames
        outstanding = self._outstanding.setdefault((connection.number, message.channel), [])
        outstanding.append(call)
        del outstanding[:-64]
        if facts.mode == "reply":
            asked = self._by_msg.get(facts.msg_id)
            if asked is not None and asked.caller is not None:
                call.callee = call.callee or asked.caller
        elif not facts.delivered:
            self._set_result(call, "undelivered")
            self._never_delivered[call.serial] = call
            _trim(self._never_delivered)

    def _told_twice(self, call: Call, message: AmqpContent) -> list[Call]:
        """Take the other account of a publish that is known: sniffed, and told by the broker."""
        call.started_ns = min(call.started_ns, message.time_ns)
        if _is_told(message.connection):
            call.frames.extend(message.frames)
            return [call]
        call.frames[:0] = message.frames
        call.connection = message.connection
        call.caller = End(message.connection, CLIENT)
        self._outstanding.setdefault((message.connection.number, message.channel), []).append(call)
        return [call]

    def _delivered(self, call: Call, facts: RpcFacts, message: AmqpContent) -> None:
        told = _is_told(message.connection)
        if told and facts.consumer is not None and not _is_told(facts.consumer.connection):
            # Sniffed already, and what becomes of it will be.
            call.frames.extend(message.frames)
            return
        if not told and facts.consumer is not None and _is_told(facts.consumer.connection):
            facts.consumer = None
        facts.delivered = True
        facts.redelivered = facts.redelivered or bool(message.arguments.get("redelivered"))
        self._never_delivered.pop(call.serial, None)
        consumer = End(message.connection, CLIENT)
        if facts.consumer is None:
            facts.consumer = consumer
            call.callee = consumer
        if not facts.routing_key:
            facts.routing_key = _key(message)
        if facts.mode == "reply":
            asked = self._by_msg.get(facts.msg_id)
            if asked is not None and call.caller is None:
                call.caller = _facts(asked).consumer
        call.frames.extend(message.frames)
        call.ended_ns = message.end_ns
        channel = (message.connection.number, message.channel)
        if told or self._wants_no_ack(channel, message):
            facts.no_ack = not told
            self._set_result(call, "ok")
            call.closed = facts.mode != "call"
            return
        self._set_result(call, "unacked")
        tag = message.arguments.get("delivery_tag")
        if isinstance(tag, int):
            waiting = self._unacked.setdefault(channel, {})
            waiting[tag] = call
            if len(waiting) > UNACKED_LIMIT:
                # A consumer that never acknowledges, or whose acknowledgements are not captured.
                del waiting[next(iter(waiting))]
            early = self._early.get(channel, {}).pop(tag, None)
            # An older one was for another delivery, before the channel was opened anew.
            if early is not None and early.time_ns >= message.time_ns:
                self._acknowledged(channel, early)

    def _wants_no_ack(self, channel: _Ack, message: AmqpContent) -> bool:
        if message.name == "basic.get-ok":
            return channel in self._asks_no_ack
        return str(message.arguments.get("consumer_tag", "")) in self._no_ack.get(channel, ())

    def _consumes(self, key: _Ack, message: AmqpMethod) -> None:
        """Take note of a consumer that acknowledges nothing (no-ack, AMQP 0-9-1 section 1.8.3.3)."""
        tag = str(message.arguments.get("consumer_tag", ""))
        if message.name == "basic.consume-ok":
            if key not in self._asks_no_ack:
                return
            self._asks_no_ack.discard(key)
        elif message.name == "basic.get" or not tag:
            wanted = bool(message.arguments.get("no_ack"))
            (self._asks_no_ack.add if wanted else self._asks_no_ack.discard)(key)
            return
        elif not message.arguments.get("no_ack"):
            self._no_ack.get(key, set()).discard(tag)
            return
        tags = self._no_ack.setdefault(key, set())
        if len(tags) < UNACKED_LIMIT:
            tags.add(tag)

    @staticmethod
    def _set_result(call: Call, result: str) -> None:
        if _facts(call).mode != "reply":
            call.result = result

    def method(self, message: AmqpMethod) -> list[Call]:
        """Return the calls whose fate *message* tells: acks, nacks, rejects, channel errors."""
        key = (message.connection.number, message.channel)
        if message.name in ("basic.ack", "basic.nack", "basic.reject"):
            if message.direction == TO_CLIENT:
                return self._confirmed(key, message)
            return self._acknowledged(key, message)
        if message.name == "channel.close" and message.direction == TO_CLIENT:
            return self._refused(key, message)
        if message.name in ("basic.consume", "basic.consume-ok", "basic.get"):
            self._consumes(key, message)
        return []

    def _acknowledged(self, key: _Ack, message: AmqpMethod) -> list[Call]:
        waiting = self._unacked.get(key, {})
        tag = message.arguments.get("delivery_tag")
        if not isinstance(tag, int):
            return []
        several = bool(message.arguments.get("multiple"))
        tags = [t for t in waiting if t <= tag] if several else [tag]
        if not several and tag not in waiting:
            early = self._early.setdefault(key, {})
            early[tag] = message
            if len(early) > EARLY_LIMIT:
                del early[next(iter(early))]
        calls = [waiting.pop(t) for t in tags if t in waiting]
        for call in calls:
            facts = _facts(call)
            if message.name == "basic.ack":
                facts.acknowledged = True
                self._set_result(call, "ok")
            else:
                self._set_result(call, "undelivered" if message.arguments.get("requeue") else "error")
            call.ended_ns = message.time_ns
            call.fate = message.frames
            call.closed = facts.mode != "call"
        return calls

    def _confirmed(self, key: _Ack, message: AmqpMethod) -> list[Call]:
        """Take the broker's confirm; only a nack changes what is known of the message.

        Delivery tags of confirms count from confirm.select, which a capture may not hold, so a nack is
        given to the oldest publish that is not confirmed.
        """
        outstanding = self._outstanding.get(key)
        if not outstanding:
            return []
        if message.arguments.get("multiple"):
            calls, outstanding[:] = outstanding[:], []
        else:
            calls = [outstanding.pop(0)]
        for call in calls:
            if message.name != "basic.ack":
                call.result = "error"
        return calls if message.name != "basic.ack" else []

    def _refused(self, key: _Ack, message: AmqpMethod) -> list[Call]:
        """A channel error of the broker ends the publish that caused it."""
        outstanding = self._outstanding.pop(key, [])
        if not outstanding:
            return []
        call = outstanding[-1]
        call.result = "error"
        call.error = clean(
            f"{message.arguments.get('reply_code', '')} {message.arguments.get('reply_text', '')}"
        )
        call.ended_ns = message.time_ns
        return [call]

    def _returned(self, message: AmqpContent, envelope: oslo.OsloMessage | None) -> list[Call]:
        call = self._by_unique.get(envelope.unique_id) if envelope and envelope.unique_id else None
        if call is None:
            outstanding = self._outstanding.get((message.connection.number, message.channel))
            call = outstanding[-1] if outstanding else None
        if call is None:
            call = self._begin(message, envelope)
        call.result = "unroutable"
        call.error = clean(
            f"{message.arguments.get('reply_code', '')} {message.arguments.get('reply_text', '')}"
        )
        call.ended_ns = message.end_ns
        call.frames.extend(message.frames)
        self._never_delivered.pop(call.serial, None)
        return [call]

    def _heartbeat(self, message: AmqpContent, envelope: oslo.OsloMessage) -> list[Call]:
        """A long call's server says that it is alive: no reply yet, but its delivery is certain."""
        asked = self._by_msg.get(envelope.msg_id or "")
        if asked is None:
            return []
        asked.ended_ns = message.time_ns
        return [asked]

    # --- ends ---

    def closed(self, closed: Closed) -> list[Call]:
        """Forget the channels of a connection that has ended."""
        number = closed.connection.number
        if closed.how == "fin" and closed.direction == TO_SERVER:
            return []
        for table in (self._unacked, self._early, self._outstanding, self._no_ack):
            for key in [key for key in table if key[0] == number]:
                del table[key]
        self._asks_no_ack = {key for key in self._asks_no_ack if key[0] != number}
        return []

    def forget(self, before_ns: int, kept: Collection[int]) -> None:
        """Forget messages that began before *before_ns*, but for those with the serials *kept*."""
        for table in (self._by_unique, self._by_msg, self._never_delivered):
            _forget(table, before_ns, kept)
        # Of several that look alike, the last one tells the age.
        for key in [
            key for key, calls in self._unjoined.items() if not calls or calls[-1].started_ns < before_ns
        ]:
            del self._unjoined[key]

    def unseen(self, capture: int) -> list[Call]:
        """Say `?` instead of *undelivered*: the broker of *capture* tells nothing now."""
        calls = [
            call
            for call in self._never_delivered.values()
            if _is_told(call.connection) and capture in call.connection.captures
        ]
        for call in calls:
            del self._never_delivered[call.serial]
            if call.result == "undelivered":
                call.result = "?"
        return calls

    def flush(self) -> list[Call]:
        """Say `?` instead of *undelivered* where deliveries to that consumer cannot be seen."""
        calls = []
        for call in self._never_delivered.values():
            facts = _facts(call)
            if call.result == "undelivered" and (facts.exchange, facts.routing_key) in self._replied_keys:
                call.result = "?"
                calls.append(call)
        self._never_delivered.clear()
        return calls


def _facts(call: Call) -> RpcFacts:
    assert isinstance(call.facts, RpcFacts)  # noqa: S101  # every call made here holds them
    return call.facts


def _is_told(connection: Connection) -> bool:
    """Tell whether the broker itself tells of *connection*, which nobody sniffed."""
    return connection.protocol == "firehose"


def _is_told_twice(call: Call, message: AmqpContent) -> bool:
    """Tell whether *message* is the publish of *call* once more, from the other kind of capture point."""
    return _facts(call).published and _is_told(call.connection) != _is_told(message.connection)


def _key(message: AmqpContent) -> str:
    return str(message.arguments.get("routing_key", ""))


def _mode(envelope: oslo.OsloMessage, exchange: str) -> str:
    if envelope.kind == "reply":
        return "reply"
    if envelope.kind == "notification":
        return "notify"
    if envelope.msg_id:
        return "call"
    return "fanout" if exchange.endswith(FANOUT) else "cast"


def _read_object(facts: RpcFacts, body: bytes) -> None:
    found = oslo.object_action_facts(body)
    if found is None:
        return
    facts.object_method = f"{found.objname}.{found.objmethod}" if found.objname else ""
    if found.instance_uuid:
        facts.ids = (found.instance_uuid,)
    facts.vm_state = found.vm_state or ""
    facts.binary = found.binary or ""


def _forget(table: OrderedDict[Any, Call], before_ns: int, kept: Collection[int]) -> None:
    old = []
    for key, call in table.items():
        if call.started_ns >= before_ns:
            break
        if call.serial not in kept:
            old.append(key)
    for key in old:
        del table[key]


def _trim(table: OrderedDict[Any, Any]) -> None:
    while len(table) > REMEMBERED:
        table.popitem(last=False)
