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
from typing import Any

from tracer.calls import oslo
from tracer.calls.bodies import clean
from tracer.calls.broker import BrokerLog
from tracer.calls.handshakes import Handshakes
from tracer.model import (
    BOTH,
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
from tracer.openstack.rpc import (
    ABOUT_SERVERS,
    ACTION_EVENT,
    FAULT,
    GIVES_UP,
    INSTANCE,
    OF_OBJECTS,
    SAVE,
    SELECTS_HOSTS,
)
from tracer.openstack.services import FANOUT
from tracer.openstack.states import saved_word

__all__ = ["RpcCalls"]

UNACKED_LIMIT = 4_096
"""Unacknowledged deliveries of one channel; RabbitMQ's prefetch is rarely more than some hundreds."""
EARLY_LIMIT = 256
"""Acknowledgements of one channel that wait for their delivery; a hole delays it by a second at most."""
REMEMBERED = 50_000
"""Messages whose delivery, acknowledgement or reply may still come; beyond it the oldest are forgotten."""
CONFIRMING, CHANNELS = 50_000, 64
"""Connections on which the broker confirms, and channels of each, that are remembered."""
ALIKE = 64
"""Messages of the same exchange, key and size, without a unique id, that wait for their other leg."""

_FREQUENT = frozenset(("basic.ack", "basic.nack", "basic.reject", "basic.get", "basic.get-empty"))
"""Methods that come with each message."""
FIREHOSE = "amq.rabbitmq."
"""Prefix of the broker's own exchanges for tracing and events."""

_Channel = tuple[int, int]
"""Connection number and channel."""
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
        self._no_ack: dict[_Channel, set[str]] = {}
        """Channel -> tags of its consumers that acknowledge nothing."""
        self._asks_no_ack: set[_Channel] = set()
        """Channels that asked for no-ack without a known tag: by basic.consume, whose -ok names the tag, or
        by basic.get."""
        self._unacked: dict[_Channel, dict[int, Call]] = {}
        """Channel -> delivery tag -> call."""
        self._early: dict[_Channel, dict[int, AmqpMethod]] = {}
        """Channel -> delivery tag -> acknowledgement that came before its delivery: a hole held up the
        delivery in reassembly, and the other direction went on."""
        self._outstanding: dict[_Channel, list[Call]] = {}
        """Channel -> its latest publishes, to which a nack or an error of the broker may belong."""
        self._replied_keys: set[tuple[str, str]] = set()
        """(exchange, routing key) of calls that were answered although no delivery was seen: the capture does
        not show the consumer's connection, so a missing delivery means nothing."""
        self._never_delivered: OrderedDict[int, Call] = OrderedDict()
        self._confirming: dict[int, set[int]] = {}
        """Connection number -> channels on which the broker confirms what is published."""
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
        size_key = (str(message.arguments.get("exchange", "")), _key(message), message.body_bytes)
        if call is None and not unique:
            call = self._other_leg(message, size_key)
        if call is not None and message.name == "basic.publish" and unique and _facts(call).published:
            return self._join_second_publish(call, message)
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
        """Return the oldest call without a unique id that lacks this leg.

        A fanout or a redelivered message has several deliveries, so it joins the latest call.
        """
        waiting = self._unjoined.get(likeness, deque())
        # Complete calls at the front wait for nothing; the last one stays for further deliveries.
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
            # A message that is published again moves to the end: the table must stay in order of age.
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
        """Expect the delivery, acknowledgement or reply of *call*, which began in an earlier run.

        It may have been delivered or acknowledged between the runs, so its result becomes `?`.
        """
        facts = _facts(call)
        if call.result in ("undelivered", "unacked"):
            call.result = "?"
        # The size is not known any more. -1 matches no message, so the call joins by its unique id only.
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
            # Unreadable. oslo.messaging publishes replies on the default exchange '', all else on named ones.
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
            _read_notification(facts, message.body)
        elif facts.mode == "reply":
            self._read_reply(facts, message)
        elif facts.method in ABOUT_SERVERS:
            facts.ids = tuple(oslo.instance_uuids(facts.method, message.body))
            if facts.method in GIVES_UP and not message.truncated:
                facts.fault = clean(oslo.reason_given(facts.method, message.body))
        elif facts.method in OF_OBJECTS:
            _read_object(facts, message.body)
        return facts

    def _read_reply(self, facts: RpcFacts, message: AmqpContent) -> None:
        """Copy method, ids and states of the request to its reply, which carries only the message id."""
        request = self._by_msg.get(facts.msg_id)
        if request is None:
            facts.method = "?"
            return
        request_facts = _facts(request)
        if request_facts.answered_ns is None:
            request_facts.answered_ns = message.time_ns
        facts.method, facts.request_id, facts.ids = (
            request_facts.method,
            request_facts.request_id,
            request_facts.ids,
        )
        facts.project_id = request_facts.project_id
        facts.object_method, facts.vm_state = request_facts.object_method, request_facts.vm_state
        if request_facts.method in SELECTS_HOSTS and not facts.failure:
            facts.hosts = tuple(hosts[0] for hosts in oslo.selected_hosts(message.body) if hosts)
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
        channel = (connection.number, message.channel)
        outstanding = self._outstanding.setdefault(channel, [])
        outstanding.append(call)
        facts.unconfirmed = self._is_confirmed(connection, message.channel)
        # Without confirms nothing takes publishes off this list, so it is bounded here.
        for dropped in outstanding[:-64]:
            _facts(dropped).unconfirmed = False
        del outstanding[:-64]
        if facts.mode == "reply":
            request = self._by_msg.get(facts.msg_id)
            if request is not None and request.caller is not None:
                call.callee = call.callee or request.caller
        elif not facts.delivered:
            self._set_result(call, "undelivered")
            self._never_delivered[call.serial] = call
            _trim(self._never_delivered)

    def _join_second_publish(self, call: Call, message: AmqpContent) -> list[Call]:
        """Join a publish of a message that is known already: its unique id is made for each message anew.

        Seen by the other kind of capture point (sniffed, or the firehose); on the other side of a proxy
        before the broker; or published again, since the connection was lost before the broker confirmed it.
        """
        facts, connection = _facts(call), message.connection
        call.started_ns = min(call.started_ns, message.time_ns)
        if connection.is_reported or not call.connection.is_reported:
            call.frames.extend(message.frames)
        else:
            call.frames[:0] = message.frames
            call.connection = connection
            call.caller = End(connection, CLIENT)
        if connection.is_reported:
            return [call]
        channel = (connection.number, message.channel)
        outstanding = self._outstanding.setdefault(channel, [])
        outstanding.append(call)
        del outstanding[:-64]
        is_late = call.ended_ns is not None and message.time_ns <= call.ended_ns
        if facts.delivered or is_late or call.result == "ok":
            return [call]
        # What the broker said of an earlier copy (returned, refused) does not hold for this one.
        facts.unconfirmed = self._is_confirmed(connection, message.channel)
        if facts.mode != "reply":
            call.result = "undelivered"
            call.error = ""
            self._never_delivered[call.serial] = call
            _trim(self._never_delivered)
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
        facts.redelivered = facts.redelivered or bool(message.arguments.get("redelivered"))
        self._never_delivered.pop(call.serial, None)
        if not facts.exchange.endswith(FANOUT):
            name = str(message.arguments.get("consumer_tag", ""))
            self.log.delivers(message.connection, message.channel, name, _key(message), message.time_ns)
        consumer = End(message.connection, CLIENT)
        tag = message.arguments.get("delivery_tag")
        if facts.consumer is None or self._is_passed_on(channel, call, tag):
            facts.consumer = consumer
            call.callee = consumer
        if not facts.routing_key:
            facts.routing_key = _key(message)
        if facts.mode == "reply":
            request = self._by_msg.get(facts.msg_id)
            if request is not None and call.caller is None:
                call.caller = _facts(request).consumer
        call.frames.extend(message.frames)
        call.ended_ns = message.end_ns
        if from_firehose or self._wants_no_ack(channel, message):
            # From the firehose it is unknown whether the consumer acknowledges.
            facts.no_ack = not from_firehose
            self._set_result(call, "ok")
            call.closed = facts.mode != "call"
            return
        self._set_result(call, "unacked")
        if isinstance(tag, int):
            waiting = self._unacked.setdefault(channel, {})
            waiting[tag] = call
            if len(waiting) > UNACKED_LIMIT:
                # The consumer never acknowledges, or its acknowledgements are not captured.
                del waiting[next(iter(waiting))]
            early = self._early.get(channel, {}).pop(tag, None)
            # An older acknowledgement belongs to an earlier channel of this number: tags start again at 1.
            if early is not None and early.time_ns >= message.time_ns:
                self._acknowledged(channel, early)

    def _is_passed_on(self, channel: _Channel, call: Call, tag: object) -> bool:
        """Return whether a proxy passes a delivery on: same channel, same tag, to another client.

        The consumer is the last that gets it. The bytes on both sides of a proxy for TCP are the same.
        """
        before = _facts(call).consumer
        if before is None or before.connection.is_reported or before.connection.number == channel[0]:
            return False
        return self._unacked.get((before.connection.number, channel[1]), {}).get(tag) is call  # type: ignore[call-overload]

    def _wants_no_ack(self, channel: _Channel, message: AmqpContent) -> bool:
        if message.name == "basic.get-ok":
            return channel in self._asks_no_ack
        return str(message.arguments.get("consumer_tag", "")) in self._no_ack.get(channel, ())

    def _consumes(self, key: _Channel, message: AmqpMethod) -> None:
        """Record a consumer that acknowledges nothing (no-ack, AMQP 0-9-1 section 1.8.3.3)."""
        tag = str(message.arguments.get("consumer_tag", ""))
        # A client may leave the tag empty; then the server chooses one and names it in consume-ok.
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
        # The result of a reply is that of the method (ok or failure), whatever the broker does with it.
        if _facts(call).mode != "reply":
            call.result = result

    def method(self, message: AmqpMethod) -> list[Call]:
        """Return the calls whose fate *message* decides: acks, nacks, rejects, channel errors."""
        key = (message.connection.number, message.channel)
        if message.name not in _FREQUENT:
            self.log.method(message)
        late = self.handshakes.overdue(message.time_ns) if self.handshakes else []
        return late + self._method(key, message)

    def _method(self, key: _Channel, message: AmqpMethod) -> list[Call]:
        if message.name in ("basic.ack", "basic.nack", "basic.reject"):
            # The same methods in two roles: from the broker they confirm publishes, from a client they
            # acknowledge deliveries.
            if message.direction == TO_CLIENT:
                return self._confirmed(key, message)
            return self._acknowledged(key, message)
        if message.name == "channel.close" and message.direction == TO_CLIENT:
            return self._refused(key, message)
        if message.name in ("basic.consume", "basic.consume-ok", "basic.get"):
            self._consumes(key, message)
        elif message.name == "confirm.select":
            self._confirms(key)
        elif not message.channel:
            return self.handshakes.method(message)
        return []

    def _is_confirmed(self, connection: Connection, channel: int) -> bool:
        """Return whether the broker confirms what is published on *channel*, and the capture shows that."""
        return connection.seen == BOTH and channel in self._confirming.get(connection.number, ())

    def _confirms(self, key: _Channel) -> None:
        """Record that the broker confirms what is published on a channel."""
        channels = self._confirming.get(key[0])
        if channels is None:
            channels = self._confirming[key[0]] = set()
            if len(self._confirming) > CONFIRMING:
                del self._confirming[next(iter(self._confirming))]
        if len(channels) < CHANNELS:
            channels.add(key[1])

    def _acknowledged(self, key: _Channel, message: AmqpMethod) -> list[Call]:
        waiting = self._unacked.get(key, {})
        tag = message.arguments.get("delivery_tag")
        if not isinstance(tag, int):
            return []
        # `multiple`: all deliveries up to this tag (AMQP 0-9-1 section 1.8.3.13).
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
                self._set_result(call, "ok")
            else:
                # Requeued: the message waits for a consumer again.
                self._set_result(call, "undelivered" if message.arguments.get("requeue") else "error")
            call.ended_ns = message.time_ns
            call.fate = message.frames
            call.closed = facts.mode != "call"
        return calls

    def _confirmed(self, key: _Channel, message: AmqpMethod) -> list[Call]:
        """Return the calls that the broker's nack refuses; an ack confirms them and changes nothing.

        Delivery tags of confirms count from confirm.select, which a capture may not hold, so a confirm is
        attributed to the oldest publish that is not confirmed.
        """
        self._confirms(key)
        outstanding = self._outstanding.get(key)
        if not outstanding:
            return []
        if message.arguments.get("multiple"):
            calls, outstanding[:] = outstanding[:], []
        else:
            calls = [outstanding.pop(0)]
        for call in calls:
            _facts(call).unconfirmed = False
            if message.name != "basic.ack":
                call.result = "error"
                call.error = "the broker refused the message (basic.nack)"
        return calls if message.name != "basic.ack" else []

    def _refused(self, key: _Channel, message: AmqpMethod) -> list[Call]:
        """Return the publish that the broker answers with a channel error."""
        outstanding = self._outstanding.pop(key, [])
        if not outstanding:
            return []
        # The error closes the channel at once, so the latest publish has caused it.
        call = outstanding[-1]
        call.result = "error"
        call.error = clean(
            f"{message.arguments.get('reply_code', '')} {message.arguments.get('reply_text', '')}"
        )
        call.ended_ns = message.time_ns
        return [call]

    def _returned(self, message: AmqpContent, envelope: oslo.OsloMessage | None) -> list[Call]:
        """Return the publish that the broker returns as unroutable (basic.return)."""
        call = self._by_unique.get(envelope.unique_id) if envelope and envelope.unique_id else None
        if call is None:
            # Without an id: the channel's latest publish, since the broker returns a message at once.
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
        self.log.returned(_key(message), message.time_ns, call.error)
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
        number = closed.connection.number
        self.log.closed(closed)
        failed = self.handshakes.closed(closed)
        # A half-close: the broker's direction may still carry deliveries.
        if closed.how == "fin" and closed.direction == TO_SERVER:
            return failed
        changed = failed
        if closed.connection.seen != BOTH:
            waiting = [calls for key, calls in self._unacked.items() if key[0] == number]
            unseen = [call for calls in waiting for call in calls.values() if call.result == "unacked"]
            for call in unseen:
                call.result = "?"
            changed += unseen
        for table in (self._unacked, self._early, self._outstanding, self._no_ack):
            for key in [key for key in table if key[0] == number]:
                del table[key]
        self._confirming.pop(number, None)
        self._asks_no_ack = {key for key in self._asks_no_ack if key[0] != number}
        return changed

    def forget(self, before_ns: int, kept: Collection[int]) -> None:
        """Forget messages that began before *before_ns*, except those with the serials *kept*."""
        for table in (self._by_unique, self._by_msg, self._never_delivered):
            _forget(table, before_ns, kept)
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

    def flush(self) -> list[Call]:
        """Change *undelivered* to `?` where the capture does not show the deliveries to that consumer."""
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
    facts.vm_state, facts.task_state = found.vm_state or "", found.task_state or ""
    facts.binary = found.binary or ""
    if found.objname == INSTANCE and found.objmethod == SAVE:
        word = saved_word(facts.vm_state, found.task_state or "", found.changes)
        facts.action = f"{facts.object_method} {word}" if word else ""
    elif found.objname == ACTION_EVENT:
        facts.event_error = clean(found.error or "")
    elif found.objname == FAULT:
        facts.action = facts.object_method
        facts.fault = clean(found.error or "")


def _read_notification(facts: RpcFacts, body: bytes) -> None:
    found = oslo.notified(facts.method, body)
    if found is not None:
        facts.ids, facts.fault, facts.told_by = found.servers, clean(found.words), found.host


def _forget(table: OrderedDict[Any, Call], before_ns: int, kept: Collection[int]) -> None:
    # The tables are in order of age, so the first young call ends the search.
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
