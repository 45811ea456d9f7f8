"""Live connections, channels and consumers on a test broker, one for each recorded one.

No error message holds the password of the broker's URL.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import Any

import pika
from pika import exceptions as failures
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from tracer.capture.rabbitmq.broker import broker_of, causes
from tracer.errors import SourceError
from tracer.model import Connection
from tracer.replay.broker import REMEMBERED, digest, live_name
from tracer.replay.summary import AmqpSummary
from tracer.reports import plain

__all__ = ["Arrived", "Sessions", "Taken", "broker_at", "connect"]

BLOCKED_S = 60.0
"""How long to wait for a broker that blocks publishers because memory or disk is short."""

Taken = tuple[BlockingChannel, int, bool]
"""A delivery: its channel, its delivery tag, and whether it needs no acknowledgement."""


class _Live:
    """The live connection for a recorded one, with its channels and consumers."""

    def __init__(self, connection: BlockingConnection) -> None:
        self.connection = connection
        self.channels: dict[int, BlockingChannel] = {}
        self.confirming: set[int] = set()
        self.consumers: dict[tuple[int, str], str] = {}
        """(channel, consumer tag) -> queue"""


class Arrived:
    """Live deliveries of one queue whose recorded delivery is not reached yet."""

    def __init__(self) -> None:
        self.order: deque[tuple[bytes, BlockingChannel, int, bool]] = deque()
        """Digest, channel, delivery tag, whether it needs no acknowledgement; in order of arrival"""

    def take(self, key: bytes) -> Taken | None:
        """Remove and return the first delivery with the digest *key* on an open channel, or None."""
        for at, (its, channel, tag, no_ack) in enumerate(self.order):
            if its == key and channel.is_open:
                del self.order[at]
                return channel, tag, no_ack
        return None


class Sessions:
    """Opens connections and channels when they are first needed, with the recorded connection names.

    *names*: recorded connection -> name to use when the recording does not hold its name.
    """

    def __init__(
        self, parameters: pika.ConnectionParameters, summary: AmqpSummary, names: dict[int, str]
    ) -> None:
        self._parameters = parameters
        self._summary = summary
        self._planned = names
        self._lives: dict[int, _Live] = {}
        self._on_queue: dict[str, dict[int, None]] = {}
        """queue -> recorded connections that consume it"""
        self.names: dict[int, str] = {}
        self.arrived: dict[str, Arrived] = {}
        """queue -> deliveries that were not matched to recorded ones yet"""
        self.tags: dict[tuple[int, int], dict[int, Taken]] = {}
        """(connection, channel) of the recording -> recorded delivery tag -> live delivery"""

    def pump(self, queue: str, first: int) -> None:
        """Process the deliveries that the broker has sent to the consumers of *queue*."""
        # The recorded consumer's connection first: mostly the message arrives there.
        numbers = [first, *(n for n in self._on_queue.get(queue, ()) if n != first)]
        for number in numbers:
            live = self._lives.get(number)
            if live is not None and live.connection.is_open:
                live.connection.process_data_events(0.01 if len(numbers) == 1 else 0.001)

    def free(self, arrived: Arrived) -> None:
        """Acknowledge the deliveries in *arrived*, which the recording does not show."""
        while arrived.order:
            _, channel, tag, no_ack = arrived.order.popleft()
            self._summary.unasked += 1
            if not no_ack and channel.is_open:
                channel.basic_ack(tag)

    # --- consumers ---

    def consume(self, connection: Connection, channel_number: int, tag: str, queue: str, method: Any) -> None:
        """Consume *queue* with the options of the recorded basic.consume; *method* is None if inferred."""
        channel = self.channel(connection, channel_number)
        no_ack = bool(method.no_ack) if method is not None else False
        arrived = self.arrived.setdefault(queue, Arrived())

        def take(its: BlockingChannel, delivery: Any, properties: object, body: bytes) -> None:
            if len(arrived.order) > REMEMBERED:
                self.free(arrived)
            key = digest(delivery.exchange, delivery.routing_key, body)
            arrived.order.append((key, its, delivery.delivery_tag, no_ack))

        channel.basic_consume(
            live_name(queue),
            take,
            auto_ack=no_ack,
            exclusive=bool(method.exclusive) if method is not None else False,
            consumer_tag=tag,
            arguments=method.arguments if method is not None else None,
        )
        self._lives[connection.number].consumers[channel_number, tag] = queue
        self._on_queue.setdefault(queue, {})[connection.number] = None

    def cancel(self, number: int, channel_number: int, tag: str) -> None:
        """Cancel a consumer; an unknown one is ignored."""
        live = self._lives.get(number)
        queue = live.consumers.pop((channel_number, tag), None) if live is not None else None
        if live is not None and queue is not None:
            live.channels[channel_number].basic_cancel(tag)
            self._left(number, live, queue)

    def _left(self, number: int, live: _Live, queue: str) -> None:
        """Forget deliveries of *queue* when its last consumer has gone."""
        if queue not in live.consumers.values():
            self._on_queue.get(queue, {}).pop(number, None)
            if not self._on_queue.get(queue):
                self._on_queue.pop(queue, None)
                self.arrived.pop(queue, None)

    # --- connections and channels ---

    def live(self, connection: Connection) -> _Live:
        """Return the open live connection for a recorded one. Raises SourceError."""
        live = self._lives.get(connection.number)
        if live is None or not live.connection.is_open:
            self.forget(connection.number)
            name = self.names.get(connection.number) or self._planned.get(connection.number, "")
            live = _Live(connect(self._parameters, self._summary.where, name or "tracer replay"))
            self._lives[connection.number] = live
        return live

    def channel(self, connection: Connection, number: int) -> BlockingChannel:
        """Return the open live channel for a recorded one. Raises SourceError."""
        live = self.live(connection)
        channel = live.channels.get(number)
        if channel is None or not channel.is_open:
            live.confirming.discard(number)
            channel = live.channels[number] = live.connection.channel()
        return channel

    def confirm(self, number: int, channel_number: int, channel: BlockingChannel) -> None:
        """Switch publisher confirms on for a channel, once."""
        live = self._lives.get(number)
        if live is None:
            channel.confirm_delivery()
        elif channel_number not in live.confirming:
            live.confirming.add(channel_number)
            channel.confirm_delivery()

    def drop_channel(self, number: int, channel_number: int) -> None:
        """Close a channel; forget its consumers and its unacknowledged deliveries."""
        self.tags.pop((number, channel_number), None)
        live = self._lives.get(number)
        if live is None:
            return
        channel = live.channels.pop(channel_number, None)
        if channel is not None and channel.is_open:
            channel.close()
        live.confirming.discard(channel_number)
        for key in [key for key in live.consumers if key[0] == channel_number]:
            self._left(number, live, live.consumers.pop(key))

    def forget(self, number: int) -> None:
        """Forget a connection that has ended."""
        live = self._lives.pop(number, None)
        for at in [at for at in self.tags if at[0] == number]:
            del self.tags[at]
        if live is not None:
            queues = set(live.consumers.values())
            live.consumers.clear()
            for queue in queues:
                self._left(number, live, queue)

    def end_all(self) -> None:
        """Close all connections at the end of the replay."""
        for number in list(self._lives):
            self.end(number)

    def end(self, number: int) -> None:
        """Close the live connection for a recorded one."""
        live = self._lives.get(number)
        self.forget(number)
        if live is not None and live.connection.is_open:
            try:
                live.connection.close()
            except failures.AMQPError:
                return


# --- a connection by its URL ---


def broker_at(url: str) -> tuple[pika.ConnectionParameters, str]:
    """Return the connection parameters for *url*, and the broker's name for messages, without password.

    The URL is as of `tracer watch --amqp`. Raises UsageError; its message holds no password.
    """
    broker = broker_of(url)
    parameters = broker.parameters
    # Off: a replay that waits for the next message does not answer heartbeats.
    parameters.heartbeat = 0
    parameters.blocked_connection_timeout = BLOCKED_S
    host = f"[{parameters.host}]" if ":" in parameters.host else parameters.host
    return parameters, f"{host}:{parameters.port}, vhost {plain(broker.vhost, 255)}"


def connect(parameters: pika.ConnectionParameters, where: str, name: str) -> BlockingConnection:
    """Return a connection to the broker with the connection name *name*. Raises SourceError."""
    parameters.client_properties = {"connection_name": name}
    try:
        return BlockingConnection(parameters)
    except failures.ProbableAuthenticationError:
        why = "it refuses this user and password"
    except failures.ProbableAccessDeniedError:
        why = "this user may not enter that vhost, or there is none of that name"
    except failures.IncompatibleProtocolError:
        why = "what answers there does not speak AMQP 0-9-1"
    except (failures.AMQPError, OSError) as error:
        why = _reason(error)
    raise SourceError(f"--amqp {where}: no connection to the broker: {why}")


def _reason(error: BaseException) -> str:
    """Return the innermost system error in the chain of causes, in a few words."""
    for each in causes(error):
        if isinstance(each, socket.gaierror):
            return "no such host"
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return "it did not answer"
