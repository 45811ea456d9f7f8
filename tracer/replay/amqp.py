"""Sends recorded AMQP to a test broker: one connection, channel and method for each recorded one.

The order is strict: a message is sent only after the declaration before it is answered, the publish before it
confirmed, and the delivery before it has arrived. So a queue receives its messages in recorded order,
whichever client published them, and no reply is sent before its request was delivered. Among several
consumers of one queue the broker chooses; the one that receives the message acknowledges it when the recorded
consumer did.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import pika
from pika import exceptions as failures
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from tracer.capture.live import monotonic_s
from tracer.errors import SourceError
from tracer.model import TO_SERVER, AmqpContent, AmqpMethod, Closed
from tracer.model.tables import trim
from tracer.replay.broker import (
    REMEMBERED,
    Broker,
    Exchange,
    Queue,
    decoded,
    digest_of,
    live_name,
)
from tracer.replay.ownership import Ownership
from tracer.replay.plan import Plan
from tracer.replay.sessions import Arrived, Sessions, connect
from tracer.replay.summary import AmqpSummary

__all__ = ["OntoBroker"]

WAIT_S = 5.0
"""How long to wait for a delivery."""
SHORT_S = 0.2
"""The same after PATIENCE waits in a row without a delivery."""
PATIENCE = 10
CUT = "messages cut in the captures (snap length, lost packets)"


class RawProperties(pika.BasicProperties):  # type: ignore[misc]  # pika is not typed
    """Message properties as recorded, byte for byte: decoding and encoding changes types of header values."""

    def __init__(self, raw: bytes) -> None:
        super().__init__()
        self.raw = raw

    def encode(self) -> list[bytes]:
        """Return the recorded bytes; pika calls this for the content header of a publish."""
        return [self.raw]


class OntoBroker:
    """Repeats the methods and messages of a recording on the broker."""

    def __init__(
        self,
        parameters: pika.ConnectionParameters,
        summary: AmqpSummary,
        plan: Plan,
        left_out: Counter[str],
        *,
        force: bool,
        keep: bool,
    ) -> None:
        self._parameters = parameters
        self._summary = summary
        self._plan = plan
        self._left_out = left_out
        self._force = force
        self._keep = keep
        self._sessions = Sessions(parameters, summary, plan.names)
        self._seen = Broker()
        self._published: OrderedDict[bytes, int] = OrderedDict()
        self._in_vain = 0
        self._deferred: dict[tuple[int, int, str], Any] = {}
        """(connection, channel, name of the reply) -> recorded method that waits for the recorded reply"""
        self._admin: BlockingConnection | None = None
        self._own: Ownership | None = None

    # --- begin and end ---

    def open(self) -> None:
        """Claim the names, and declare the exchanges, queues and bindings that the recording starts with.

        Raises SourceError or UsageError.
        """
        # pika logs each closed channel as an error; the summary counts these.
        logging.getLogger("pika").setLevel(logging.CRITICAL + 1)
        self._admin = connect(self._parameters, self._summary.where, "tracer replay")
        try:
            self._prepare(self._admin)
        except failures.AMQPError as error:
            # Some errors close the whole connection, such as an exchange of a type whose plugin is missing.
            self._own = None
            raise SourceError(
                f"--amqp {self._summary.where}: the broker ended the connection ({_words(error)}): what was"
                " declared may still be there; the next replay clears it away"
            ) from None

    def _prepare(self, admin: BlockingConnection) -> None:
        summary, broker = self._summary, self._plan.broker
        own = Ownership(admin, summary.where)
        own.claim(broker.exchanges, [live_name(queue) for queue in broker.queues], force=self._force)
        self._own = own
        summary.foreign = [f"{kind} {name}" for kind, name in sorted(own.foreign)]
        channel = admin.channel()
        pairs = broker.inferred_bindings
        for name, exchange in broker.exchanges.items():
            if not exchange.declared or exchange.early or any(name == e for _, e, _ in pairs):
                channel = self._before(channel, partial(_declare_exchange, name=name, exchange=exchange))
        for name, queue in broker.queues.items():
            # An exclusive queue belongs to its connection: the recorded client's connection declares it.
            if queue.exclusive:
                continue
            if not queue.declared or queue.early or any(name == q for q, _, _ in pairs):
                channel = self._before(channel, partial(_declare_queue, name=name, queue=queue))
        for pair in pairs:
            channel = self._before(channel, partial(_bind, pair=pair))
        channel.close()

    def _before(self, channel: BlockingChannel, do: Callable[[BlockingChannel], object]) -> BlockingChannel:
        """Call *do* with *channel*; return an open channel, another one when the broker closed this one."""
        assert self._admin is not None  # noqa: S101  # opened first
        try:
            do(channel)
        except failures.ChannelClosedByBroker as error:
            self._left_out[f"declarations that the broker refused: {error.reply_text}"] += 1
            return self._admin.channel()
        return channel

    def close(self) -> None:
        """Count the messages left in queues, end all connections, and delete what this replay declared."""
        own, admin = self._own, self._admin
        if own is None or admin is None:
            if admin is not None and admin.is_open:
                admin.close()
            return
        try:
            # Counted first: a closed connection gives its unacknowledged messages back to the queues.
            self._count_left(admin)
            self._sessions.end_all()
            own.release(keep=self._keep)
            self._summary.kept = self._keep
            admin.close()
        except failures.AMQPError as error:
            raise SourceError(
                f"--amqp {self._summary.where}: lost before the end ({_words(error)}): what was declared may"
                " still be there; the next replay clears it away"
            ) from None

    def _count_left(self, admin: BlockingConnection) -> None:
        channel = admin.channel()
        for name in self._plan.broker.queues:
            try:
                ready = channel.queue_declare(live_name(name), passive=True).method.message_count
            except failures.ChannelClosedByBroker:
                channel = admin.channel()
                continue
            if ready:
                self._summary.undelivered[name] = ready
        channel.close()

    # --- receiving ---

    def receive(self, message: AmqpMethod | AmqpContent | Closed) -> None:
        """Repeat *message* on the broker. Raises SourceError when the broker cannot be reached."""
        if isinstance(message, Closed):
            self._closed(message)
            return
        try:
            self._try(message)
        except failures.ChannelClosedByBroker:
            self._summary.channel_errors += 1
            self._sessions.drop_channel(message.connection.number, message.channel)
        except (failures.DuplicateConsumerTag, failures.NackError, ValueError, TypeError):
            self._left_out["methods that pika or the broker refused"] += 1
        except failures.AMQPError:
            # The broker ended this connection or all of them. The next method opens it again, and raises
            # SourceError if that fails.
            self._sessions.forget(message.connection.number)
            self._left_out["methods on connections that the broker ended"] += 1

    def _try(self, message: AmqpMethod | AmqpContent) -> None:
        if isinstance(message, AmqpContent):
            self._content(message)
            self._seen.content(message)
            return
        self._seen.method(message)
        try:
            self._method(message)
        except failures.ChannelWrongStateError:
            # An earlier method closed the channel asynchronously: a new channel, and once again.
            self._sessions.drop_channel(message.connection.number, message.channel)
            self._method(message)

    def _closed(self, closed: Closed) -> None:
        number = closed.connection.number
        # idle and end are no end of the connection; a refused or unanswered attempt opened none.
        if closed.how in ("fin", "reset", "reused"):
            self._sessions.end(number)
            self._seen.closed(number)
            self._sessions.names.pop(number, None)

    def _method(self, message: AmqpMethod) -> None:
        if message.name.startswith("connection."):
            self._of_connection(message)
            return
        at = message.connection.number, message.channel
        if message.direction != TO_SERVER:
            # Replies of the recorded broker: only those matter that hold a name it chose.
            self._answered(message, at)
            return
        if message.name == "channel.open":
            self._sessions.drop_channel(message.connection.number, message.channel)
            self._sessions.channel(message.connection, message.channel)
        elif message.name == "channel.close":
            self._sessions.drop_channel(message.connection.number, message.channel)
        elif message.name in ("basic.ack", "basic.nack", "basic.reject"):
            self._acknowledge(message, at)
        elif (method := decoded(message.raw)) is not None:
            self._do(message, method)

    def _of_connection(self, message: AmqpMethod) -> None:
        number = message.connection.number
        if message.name == "connection.start-ok":
            self._sessions.names[number] = str(message.arguments.get("connection_name", ""))
        elif message.name == "connection.open":
            self._sessions.live(message.connection)
        elif message.name == "connection.close":
            self._sessions.end(number)

    def _answered(self, message: AmqpMethod, at: tuple[int, int]) -> None:
        """Repeat the recorded method that waited for the name in the recorded reply *message*."""
        waiting = self._deferred.pop((*at, message.name), None)
        if waiting is None:
            return
        channel = self._sessions.channel(message.connection, message.channel)
        if message.name == "queue.declare-ok":
            queue = Queue(waiting.durable, waiting.exclusive, waiting.auto_delete, waiting.arguments)
            _declare_queue(channel, str(message.arguments["queue"]), queue)
        else:
            queue_name = self._seen.consumers.get((*at, str(message.arguments["consumer_tag"])), "")
            tag = str(message.arguments["consumer_tag"])
            self._sessions.consume(message.connection, message.channel, tag, queue_name, waiting)

    def _do(self, message: AmqpMethod, method: Any) -> None:
        """Repeat what a client asked of the broker; replies that hold a name are waited for."""
        channel = self._sessions.channel(message.connection, message.channel)
        at = message.connection.number, message.channel
        match message.name.partition(".")[0]:
            case "exchange":
                self._of_exchange(message.name, method, channel)
                return
            case "queue":
                self._of_queue(message, method, channel)
                return
        match message.name:
            case "basic.qos":
                channel.basic_qos(method.prefetch_size, method.prefetch_count, method.global_qos)
            case "basic.consume" if not method.consumer_tag:
                self._deferred[(*at, "basic.consume-ok")] = method
            case "basic.consume":
                queue_name = self._seen.queue_meant(message)
                self._sessions.consume(
                    message.connection, message.channel, method.consumer_tag, queue_name, method
                )
            case "basic.cancel":
                self._sessions.cancel(*at, method.consumer_tag)
            case "basic.get":
                self._deferred[(*at, "got")] = method
            case "basic.recover":
                channel.basic_recover(method.requeue)
            case "confirm.select":
                self._sessions.confirm(message.connection.number, message.channel, channel)
            case "tx.select":
                # A channel cannot have both confirms, which keep the order, and transactions.
                self._left_out["transactions: their messages are sent at once"] += 1

    def _of_exchange(self, name: str, method: Any, channel: BlockingChannel) -> None:
        match name:
            case "exchange.declare" if method.passive:
                channel.exchange_declare(method.exchange, passive=True)
            case "exchange.declare":
                kind = Exchange(
                    method.type, method.durable, method.auto_delete, method.internal, method.arguments
                )
                _declare_exchange(channel, method.exchange, kind)
            case "exchange.delete":
                if self._may_delete("exchange", method.exchange):
                    channel.exchange_delete(method.exchange, method.if_unused)
            case "exchange.bind":
                channel.exchange_bind(method.destination, method.source, method.routing_key, method.arguments)
            case "exchange.unbind":
                channel.exchange_unbind(
                    method.destination, method.source, method.routing_key, method.arguments
                )

    def _of_queue(self, message: AmqpMethod, method: Any, channel: BlockingChannel) -> None:
        if message.name == "queue.declare":
            if not method.queue:
                # The broker chose the name: declared when the recorded reply shows it.
                at = message.connection.number, message.channel
                self._deferred[(*at, "queue.declare-ok")] = method
            elif method.passive:
                channel.queue_declare(live_name(method.queue), passive=True)
            else:
                queue = Queue(method.durable, method.exclusive, method.auto_delete, method.arguments)
                _declare_queue(channel, method.queue, queue)
            return
        name = live_name(self._seen.queue_meant(message))
        match message.name:
            case "queue.bind":
                channel.queue_bind(name, method.exchange, method.routing_key, method.arguments)
            case "queue.unbind":
                channel.queue_unbind(name, method.exchange, method.routing_key, method.arguments)
            case "queue.purge":
                if self._may_delete("queue", name):
                    channel.queue_purge(name)
            case "queue.delete":
                if self._may_delete("queue", name):
                    channel.queue_delete(name, method.if_unused, method.if_empty)

    def _may_delete(self, kind: str, name: str) -> bool:
        if self._own is not None and self._own.is_own(kind, name):
            return True
        self._left_out["deletions of what is not a replay's own"] += 1
        return False

    # --- contents ---

    def _content(self, message: AmqpContent) -> None:
        whole = not message.truncated and len(message.body) == message.body_bytes and message.raw_header
        if message.name == "basic.publish":
            if whole:
                self._publish(
                    message,
                    self._sessions.channel(message.connection, message.channel),
                    message.connection.number,
                )
            else:
                self._left_out[CUT] += 1
        elif message.name in ("basic.deliver", "basic.get-ok"):
            if not whole:
                self._left_out["deliveries of " + CUT] += 1
                return
            key = digest_of(message)
            # Its publish is not in the recording: before the capture, or lost.
            if key not in self._published and not message.arguments["redelivered"]:
                self._supply(message)
            if message.name == "basic.get-ok":
                self._get(message)
            else:
                self._deliver(message, key)

    def _publish(self, message: AmqpContent, channel: BlockingChannel, number: int) -> None:
        self._sessions.confirm(number, message.channel, channel)
        exchange, key = str(message.arguments["exchange"]), str(message.arguments["routing_key"])
        self._remember(digest_of(message))
        self._summary.published += 1
        try:
            channel.basic_publish(
                exchange,
                key if exchange else live_name(key),
                message.body,
                # After class id, weight and body size, which pika writes itself.
                RawProperties(message.raw_header[12:]),
                bool(message.arguments.get("mandatory", False)),
            )
        except failures.UnroutableError:
            self._summary.returned += 1

    def _remember(self, key: bytes) -> None:
        self._published[key] = self._published.pop(key, 0) + 1
        trim(self._published, REMEMBERED)

    def _supply(self, message: AmqpContent) -> None:
        """Publish a message of which the recording shows only the delivery."""
        assert self._admin is not None  # noqa: S101  # opened first
        channel = self._admin.channel()
        try:
            self._publish(message, channel, -1)
            self._summary.published -= 1
            self._summary.supplied += 1
        finally:
            if channel.is_open:
                channel.close()

    def _deliver(self, message: AmqpContent, key: bytes) -> None:
        """Wait until the message with the digest *key* has arrived at a consumer of its queue."""
        queue = self._seen.queue_of(message)
        connection, tag = message.connection, str(message.arguments["consumer_tag"])
        live = self._sessions.live(connection)
        if (message.channel, tag) not in live.consumers:
            self._sessions.consume(connection, message.channel, tag, queue, None)
        arrived = self._sessions.arrived.setdefault(queue, Arrived())
        begun_s, wait_s = monotonic_s(), WAIT_S if self._in_vain < PATIENCE else SHORT_S
        freed = False
        while (found := arrived.take(key)) is None:
            waited_s = monotonic_s() - begun_s
            if waited_s > wait_s:
                self._summary.not_delivered += 1
                self._in_vain += 1
                return
            if waited_s > SHORT_S / 2 and not freed:
                # With a prefetch limit, unacknowledged messages that the recording does not show may hold it
                # back.
                freed = True
                self._sessions.free(arrived)
            self._sessions.pump(queue, connection.number)
        self._in_vain = 0
        self._summary.delivered += 1
        if not found[2]:
            self._sessions.tags.setdefault((connection.number, message.channel), {})[
                int(message.arguments["delivery_tag"])
            ] = found

    def _get(self, message: AmqpContent) -> None:
        at = message.connection.number, message.channel
        method = self._deferred.pop((*at, "got"), None)
        channel = self._sessions.channel(message.connection, message.channel)
        queue = method.queue if method is not None and method.queue else str(message.arguments["routing_key"])
        no_ack = bool(method.no_ack) if method is not None else False
        got, _, _ = channel.basic_get(live_name(queue), no_ack)
        if got is None:
            self._summary.not_delivered += 1
            return
        self._summary.delivered += 1
        if not no_ack:
            self._sessions.tags.setdefault(at, {})[int(message.arguments["delivery_tag"])] = (
                channel,
                got.delivery_tag,
                no_ack,
            )

    def _acknowledge(self, message: AmqpMethod, at: tuple[int, int]) -> None:
        tag, multiple = int(message.arguments["delivery_tag"]), bool(message.arguments.get("multiple", False))
        known = self._sessions.tags.get(at, {})
        # With `multiple`, tag 0 means all deliveries so far (AMQP 0-9-1, basic.ack).
        meant = [each for each in known if each == tag or (multiple and (not tag or each <= tag))]
        if not meant:
            self._left_out["acknowledgements of what was not delivered here"] += 1
        for each in meant:
            channel, live_tag, _ = known.pop(each)
            if not channel.is_open:
                continue
            self._summary.acknowledged += 1
            if message.name == "basic.ack":
                channel.basic_ack(live_tag)
            elif message.name == "basic.reject":
                channel.basic_reject(live_tag, bool(message.arguments["requeue"]))
            else:
                channel.basic_nack(live_tag, requeue=bool(message.arguments["requeue"]))


def _declare_exchange(channel: BlockingChannel, name: str, exchange: Exchange) -> None:
    channel.exchange_declare(
        name,
        exchange.kind,
        durable=exchange.durable,
        auto_delete=exchange.auto_delete,
        internal=exchange.internal,
        arguments=exchange.arguments,
    )


def _declare_queue(channel: BlockingChannel, name: str, queue: Queue) -> None:
    channel.queue_declare(
        live_name(name),
        durable=queue.durable,
        exclusive=queue.exclusive,
        auto_delete=queue.auto_delete,
        arguments=queue.arguments,
    )


def _bind(channel: BlockingChannel, pair: tuple[str, str, str]) -> None:
    queue, exchange, key = pair
    channel.queue_bind(live_name(queue), exchange, key)


def _words(error: Exception) -> str:
    return str(getattr(error, "reply_text", "")) or type(error).__name__
