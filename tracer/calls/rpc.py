"""RPC calls, made of AMQP messages: publish, delivery and acknowledgement of one message are one call.

The result of a call is what the broker did with the message:

    unroutable    it returned the message
    undelivered   published, and no consumer got it
    unacked       delivered, and not acknowledged
    ok            acknowledged, or delivered to a consumer that acknowledges nothing
    error         rejected without requeueing, or refused by the broker
    ?             not known

oslo.messaging acknowledges before it runs the method, so *ok* does not mean that the work was done.

A broker's firehose reports publishes and deliveries but no acknowledgements, so there a delivered message is
*ok*. A message that is sniffed and also reported by the firehose is one call, joined by its unique id. The
sniffed connection stays the connection of the call, since Wireshark shows it, and a sniffed *unacked* is
never made *ok* by the firehose. The firehose's own copies, seen when the connection of its consumer is
sniffed, are not calls.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection

from tracer.calls import oslo
from tracer.calls.broker import BrokerLog
from tracer.calls.channels import Channels
from tracer.calls.endings import is_half_close
from tracer.calls.handshakes import Handshakes
from tracer.calls.rpc_facts import (
    death_of,
    deliveries_before,
    facts_of,
    is_dead_letter,
    read,
    reply_text,
    routing_key,
    set_result,
)
from tracer.model import (
    CALLS_OVER,
    CLIENT,
    AmqpContent,
    AmqpMethod,
    Call,
    Closed,
    End,
    RpcFacts,
    Undecoded,
)
from tracer.model.tables import forget, trim
from tracer.openstack.services import FANOUT

__all__ = ["RpcCalls"]

REMEMBERED = 50_000
"""Messages whose delivery, acknowledgement or reply may still come; beyond it the oldest are forgotten."""
ALIKE = 64
"""Messages of the same exchange, key and size, without a unique id, that wait for their other leg."""

_FREQUENT = frozenset(("basic.ack", "basic.nack", "basic.reject", "basic.get", "basic.get-empty"))
"""Methods that come with each message."""
FIREHOSE = "amq.rabbitmq."
"""Prefix of the broker's own exchanges for tracing and events."""

_Likeness = tuple[str, str, int]
"""Exchange, routing key and size of the body."""


class RpcCalls:
    """Joins the two legs of each message by its `_unique_id`, and replies to calls by `_msg_id`."""

    def __init__(self, serial: Callable[[], int], log: BrokerLog | None = None) -> None:
        self._serial = serial
        self._by_unique: OrderedDict[str, Call] = OrderedDict()
        """`_unique_id` -> call, the oldest first."""
        self._by_msg: OrderedDict[str, Call] = OrderedDict()
        """`_msg_id` -> call that waits for a reply, the oldest first."""
        self._unjoined: OrderedDict[_Likeness, deque[Call]] = OrderedDict()
        """Calls whose unique id is lost, the oldest first; joined by exchange, key and size."""
        self._replied_keys: set[tuple[str, str]] = set()
        """(exchange, routing key) of calls that were answered although no delivery was seen: the capture does
        not show the consumer's connection, so a missing delivery means nothing."""
        self._dark: set[str] = set()
        """Addresses of brokers with an encrypted connection that is not opened."""
        self._never_delivered: OrderedDict[int, Call] = OrderedDict()
        self._channels = Channels()
        self.handshakes = Handshakes(serial)
        self.log = log or BrokerLog()

    # --- contents ---

    def content(self, message: AmqpContent) -> list[Call]:
        """Return the call that *message* begins or continues."""
        if str(message.arguments.get("exchange", "")).startswith(FIREHOSE):
            return []
        envelope = oslo.read(message.body, message.truncated)
        if message.name == "basic.return":
            return self._returned(message, envelope)
        unique = (envelope.unique_id or "") if envelope else ""
        call = self._by_unique.get(unique) if unique else None
        size_key = (str(message.arguments.get("exchange", "")), routing_key(message), message.body_bytes)
        if call is None and not unique:
            call = self._other_leg(message, size_key)
        if call is not None and message.name == "basic.publish" and unique and facts_of(call).published:
            return self._join_second_publish(call, message)
        if call is None or (message.name == "basic.publish" and facts_of(call).published):
            if envelope is not None and envelope.kind == "reply" and envelope.ending is False:
                return self._heartbeat(message, envelope)
            call = self._begin(message, envelope)
            self._remember(call, unique, size_key)
        facts = facts_of(call)
        if message.name == "basic.publish":
            self._published(call, facts, message)
        elif is_dead_letter(message, facts):
            # Whoever reads the dead letters does not do what the message asks for.
            facts.dead = death_of(message)
            call.frames.extend(message.frames)
        else:
            self._delivered(call, facts, message)
        return [call]

    def _other_leg(self, message: AmqpContent, likeness: _Likeness) -> Call | None:
        """Return the oldest call without a unique id that lacks this leg.

        A fanout or a redelivered message has several deliveries, so it joins the latest call.
        """
        waiting = self._unjoined.get(likeness, deque())
        # Complete calls at the front wait for nothing; the last one stays for further deliveries.
        while len(waiting) > 1 and facts_of(waiting[0]).published and facts_of(waiting[0]).delivered:
            waiting.popleft()
        if message.name == "basic.publish":
            return next((call for call in waiting if not facts_of(call).published), None)
        many = likeness[0].endswith(FANOUT) or bool(message.arguments.get("redelivered"))
        found = next((call for call in waiting if not facts_of(call).delivered), None)
        return found or (waiting[-1] if waiting and many else None)

    def _remember(self, call: Call, unique: str, likeness: _Likeness) -> None:
        if unique:
            self._by_unique[unique] = call
            # A message that is published again moves to the end: the table must stay in order of age.
            self._by_unique.move_to_end(unique)
            trim(self._by_unique, REMEMBERED)
        else:
            self._unjoined.setdefault(likeness, deque(maxlen=ALIKE)).append(call)
            trim(self._unjoined, REMEMBERED)
        facts = facts_of(call)
        if facts.msg_id and facts.mode == "call":
            self._by_msg[facts.msg_id] = call
            self._by_msg.move_to_end(facts.msg_id)
            trim(self._by_msg, REMEMBERED)

    def restore(self, call: Call) -> None:
        """Expect the delivery, acknowledgement or reply of *call*, which began in an earlier run.

        It may have been delivered or acknowledged between the runs, so its result becomes `?`.
        """
        facts = facts_of(call)
        if call.result in ("undelivered", "unacked"):
            call.result = "?"
        # The size is not known any more. -1 matches no message, so the call joins by its unique id only.
        self._remember(call, facts.unique_id, (facts.exchange, facts.routing_key, -1))

    def _begin(self, message: AmqpContent, envelope: oslo.OsloMessage | None) -> Call:
        facts = read(message, envelope)
        if facts.mode == "reply":
            self._join_reply(facts, message)
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

    def _join_reply(self, facts: RpcFacts, message: AmqpContent) -> None:
        """Copy method, ids and states of the request to its reply, which carries only the message id."""
        request = self._by_msg.get(facts.msg_id)
        if request is None:
            return
        request_facts = facts_of(request)
        if request_facts.answered_ns is None:
            request_facts.answered_ns = message.time_ns
        facts.method, facts.request_id, facts.ids = (
            request_facts.method,
            request_facts.request_id,
            request_facts.ids,
        )
        facts.project_id = request_facts.project_id
        facts.object_method, facts.vm_state = request_facts.object_method, request_facts.vm_state
        # A reply proves that the request was delivered, even if its delivery is not in the capture.
        if not request_facts.delivered:
            self._replied_keys.add((request_facts.exchange, request_facts.routing_key))
            request_facts.delivered = True
            request.result = "ok"

    # --- what the broker did ---

    def _published(self, call: Call, facts: RpcFacts, message: AmqpContent) -> None:
        connection = message.connection
        facts.published = True
        # The delivery may have been seen first (two capture points): the call begins with its publish.
        call.started_ns = min(call.started_ns, message.time_ns)
        call.connection = connection
        call.caller = End(connection, CLIENT)
        call.frames[:0] = message.frames
        self._channels.published((connection.number, message.channel), call)
        facts.unconfirmed = self._channels.is_confirmed(connection, message.channel)
        if facts.mode == "reply":
            request = self._by_msg.get(facts.msg_id)
            if request is not None and request.caller is not None:
                call.callee = call.callee or request.caller
        elif not facts.delivered:
            set_result(call, "undelivered")
            self._never_delivered[call.serial] = call
            trim(self._never_delivered, REMEMBERED)

    def _join_second_publish(self, call: Call, message: AmqpContent) -> list[Call]:
        """Join a publish of a message that is known already: its unique id is made for each message anew.

        Seen by the other kind of capture point (sniffed, or the firehose); on the other side of a proxy
        before the broker; or published again, since the connection was lost before the broker confirmed it.
        """
        facts, connection = facts_of(call), message.connection
        call.started_ns = min(call.started_ns, message.time_ns)
        if connection.is_reported or not call.connection.is_reported:
            call.frames.extend(message.frames)
        else:
            call.frames[:0] = message.frames
            call.connection = connection
            call.caller = End(connection, CLIENT)
        if connection.is_reported:
            return [call]
        self._channels.published((connection.number, message.channel), call)
        is_late = call.ended_ns is not None and message.time_ns <= call.ended_ns
        if facts.delivered or is_late or call.result == "ok":
            return [call]
        # What the broker said of an earlier copy (returned, refused) does not hold for this one.
        facts.unconfirmed = self._channels.is_confirmed(connection, message.channel)
        if facts.mode != "reply":
            call.result = "undelivered"
            call.error = ""
            self._never_delivered[call.serial] = call
            trim(self._never_delivered, REMEMBERED)
        return [call]

    def _delivered(self, call: Call, facts: RpcFacts, message: AmqpContent) -> None:
        from_firehose = message.connection.is_reported
        if from_firehose and facts.consumer is not None and not facts.consumer.connection.is_reported:
            # The delivery was sniffed, so its acknowledgement is sniffed, too: the firehose adds only frames.
            call.frames.extend(message.frames)
            return
        if not from_firehose and facts.consumer is not None and facts.consumer.connection.is_reported:
            # The sniffed delivery replaces the one that the firehose reported first.
            facts.consumer = None
        channel = (message.connection.number, message.channel)
        facts.delivered = True
        self._never_delivered.pop(call.serial, None)
        if not facts.exchange.endswith(FANOUT):
            name, queue = str(message.arguments.get("consumer_tag", "")), routing_key(message)
            self.log.delivers(message.connection, message.channel, name, queue, message.time_ns)
        consumer = End(message.connection, CLIENT)
        tag = message.arguments.get("delivery_tag")
        is_passed_on = self._channels.is_passed_on(channel, call, tag)
        if message.arguments.get("redelivered"):
            facts.redelivered = deliveries_before(message, facts.redelivered, is_passed_on or from_firehose)
        if facts.consumer is None or is_passed_on:
            facts.consumer = consumer
            call.callee = consumer
        if not facts.routing_key:
            facts.routing_key = routing_key(message)
        if facts.mode == "reply":
            request = self._by_msg.get(facts.msg_id)
            if request is not None and call.caller is None:
                call.caller = facts_of(request).consumer
        call.frames.extend(message.frames)
        call.ended_ns = message.end_ns
        if from_firehose or self._channels.acknowledges_nothing(channel, message):
            # From the firehose it is unknown whether the consumer acknowledges.
            set_result(call, "ok")
            call.closed = facts.mode != "call"
            return
        set_result(call, "unacked")
        if isinstance(tag, int):
            self._channels.delivered(channel, tag, call, message.time_ns)

    def method(self, message: AmqpMethod) -> list[Call]:
        """Return the calls whose fate *message* decides: acks, nacks, rejects, channel errors."""
        if message.name not in _FREQUENT:
            self.log.method(message)
        late = self.handshakes.overdue(message.time_ns) if self.handshakes else []
        if message.channel:
            return late + self._channels.method((message.connection.number, message.channel), message)
        return late + self.handshakes.method(message)

    def _returned(self, message: AmqpContent, envelope: oslo.OsloMessage | None) -> list[Call]:
        """Return the publish that the broker returns as unroutable (basic.return)."""
        call = self._by_unique.get(envelope.unique_id) if envelope and envelope.unique_id else None
        if call is None:
            # Without an id: the channel's latest publish, since the broker returns a message at once.
            call = self._channels.latest((message.connection.number, message.channel))
        if call is None:
            call = self._begin(message, envelope)
        call.result = "unroutable"
        call.error = reply_text(message)
        call.ended_ns = message.end_ns
        call.frames.extend(message.frames)
        self._never_delivered.pop(call.serial, None)
        self.log.returned(routing_key(message), message.time_ns)
        return [call]

    def _heartbeat(self, message: AmqpContent, envelope: oslo.OsloMessage) -> list[Call]:
        """Return the call whose server is still working on it; a heartbeat is not the reply."""
        request = self._by_msg.get(envelope.msg_id or "")
        if request is None:
            return []
        request.ended_ns = message.time_ns
        return [request]

    # --- ends ---

    def closed(self, closed: Closed) -> list[Call]:
        """Forget the channels of a connection that has ended.

        Returns the calls whose acknowledgements could not be seen: the broker's direction alone was captured,
        so *unacked* becomes `?`. Other results stay.
        """
        self.log.closed(closed)
        failed = self.handshakes.closed(closed)
        # The broker's direction may still carry deliveries.
        if is_half_close(closed):
            return failed
        return failed + self._channels.closed(closed.connection)

    def forget(self, before_ns: int, kept: Collection[int]) -> None:
        """Forget messages that began before *before_ns*, except those with the serials *kept*."""
        for table in (self._by_unique, self._by_msg, self._never_delivered):
            forget(table, before_ns, kept)
        # Calls that look alike are forgotten together, by the age of the youngest.
        for key in [
            key for key, calls in self._unjoined.items() if not calls or calls[-1].started_ns < before_ns
        ]:
            del self._unjoined[key]

    def unseen(self, capture: int) -> list[Call]:
        """Change *undelivered* to `?` for messages that the broker of *capture* reported.

        Called when that broker reports nothing any more.
        """
        calls = [
            call
            for call in self._never_delivered.values()
            if call.connection.is_reported and capture in call.connection.captures
        ]
        for call in calls:
            del self._never_delivered[call.serial]
            if call.result == "undelivered":
                call.result = "?"
        return calls

    def undecoded(self, message: Undecoded) -> None:
        """Follow a connection no more. Where it is encrypted, it may carry any delivery of its broker."""
        self.handshakes.ignore(message.connection)
        connection = message.connection
        is_rpc = CALLS_OVER.get(connection.protocol or "") == "RPC"
        if is_rpc and message.reason.startswith("tls") and len(self._dark) < REMEMBERED:
            self._dark.add(connection.server.address)

    def flush(self) -> list[Call]:
        """Change *undelivered* to `?` where the capture does not show the deliveries to that consumer."""
        calls = []
        for call in self._never_delivered.values():
            facts = facts_of(call)
            is_hidden = call.connection.server.address in self._dark
            is_hidden = is_hidden or (facts.exchange, facts.routing_key) in self._replied_keys
            if call.result == "undelivered" and is_hidden:
                call.result = "?"
                calls.append(call)
        self._never_delivered.clear()
        return calls
