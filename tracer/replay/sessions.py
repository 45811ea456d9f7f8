"""Connections to a test broker: the recorded connections, channels and consumers as they live there.

Whatever goes wrong, no message holds the password of the broker's URL.
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
"""A broker that is out of memory or disk takes nothing: so long is it waited for."""

Taken = tuple[BlockingChannel, int, bool]
"""What was delivered: on which channel, with which tag, and whether it needs no acknowledgement."""


class _Live:
    """One recorded connection on the broker."""

    def __init__(self, connection: BlockingConnection) -> None:
        self.connection = connection
        self.channels: dict[int, BlockingChannel] = {}
        self.confirming: set[int] = set()
        self.consumers: dict[tuple[int, str], str] = {}
        """(channel, consumer tag) -> queue"""


class Arrived:
    """Deliveries of one queue that the recording has not come to yet."""

    def __init__(self) -> None:
        self.order: deque[tuple[bytes, BlockingChannel, int, bool]] = deque()
        """Key, channel, delivery tag, whether it needs no acknowledgement"""

    def take(self, key: bytes) -> Taken | None:
        """Return the first delivery of the message with the digest *key*, on a channel that is open."""
        for at, (its, channel, tag, no_ack) in enumerate(self.order):
            if its == key and channel.is_open:
                del self.order[at]
                return channel, tag, no_ack
        return None


class Sessions:
    """Opens connections and channels when they are first needed, under the names that the recording tells.

    *names*: recorded connection -> its name, where it does not say one in the recording.
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
        """queue -> what came and was not asked for yet"""
        self.tags: dict[tuple[int, int], dict[int, Taken]] = {}
        """Recorded channel -> recorded delivery tag -> what was delivered instead"""

    def pump(self, queue: str, first: int) -> None:
        """Take in what the broker has sent to the consumers of *queue*."""
        numbers = [first, *(n for n in self._on_queue.get(queue, ()) if n != first)]
        for number in numbers:
            live = self._lives.get(number)
            if live is not None and live.connection.is_open:
                live.connection.process_data_events(0.01 if len(numbers) == 1 else 0.001)

    def free(self, arrived: Arrived) -> None:
        """Acknowledge what was delivered and is not recorded so."""
        while arrived.order:
            _, channel, tag, no_ack = arrived.order.popleft()
            self._summary.unasked += 1
            if not no_ack and channel.is_open:
                channel.basic_ack(tag)

    # --- consumers ---

    def consume(self, connection: Connection, channel_number: int, tag: str, queue: str, method: Any) -> None:
        """Begin to consume *queue* as the recorded *method* (basic.consume) does; None: inferred."""
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
        """End a consumer."""
        live = self._lives.get(number)
        queue = live.consumers.pop((channel_number, tag), None) if live is not None else None
        if live is not None and queue is not None:
            live.channels[channel_number].basic_cancel(tag)
            self._left(number, live, queue)

    def _left(self, number: int, live: _Live, queue: str) -> None:
        """Take note that a consumer of *queue* is gone."""
        if queue not in live.consumers.values():
            self._on_queue.get(queue, {}).pop(number, None)
            if not self._on_queue.get(queue):
                self._on_queue.pop(queue, None)
                self.arrived.pop(queue, None)

    # --- connections and channels ---

    def live(self, connection: Connection) -> _Live:
        """Return the twin of a recorded connection, open. Raises SourceError."""
        live = self._lives.get(connection.number)
        if live is None or not live.connection.is_open:
            self.forget(connection.number)
            name = self.names.get(connection.number) or self._planned.get(connection.number, "")
            live = _Live(connect(self._parameters, self._summary.where, name or "tracer replay"))
            self._lives[connection.number] = live
        return live

    def channel(self, connection: Connection, number: int) -> BlockingChannel:
        """Return the twin of a recorded channel, open."""
        live = self.live(connection)
        channel = live.channels.get(number)
        if channel is None or not channel.is_open:
            live.confirming.discard(number)
            channel = live.channels[number] = live.connection.channel()
        return channel

    def confirm(self, number: int, channel_number: int, channel: BlockingChannel) -> None:
        """Have the broker confirm what is published on a channel."""
        live = self._lives.get(number)
        if live is None:
            channel.confirm_delivery()
        elif channel_number not in live.confirming:
            live.confirming.add(channel_number)
            channel.confirm_delivery()

    def drop_channel(self, number: int, channel_number: int) -> None:
        """End a channel, its consumers, and what waits for an acknowledgement on it."""
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
        """End what is open, at the end of the replay."""
        for number in list(self._lives):
            self.end(number)

    def end(self, number: int) -> None:
        """End the twin of a recorded connection."""
        live = self._lives.get(number)
        self.forget(number)
        if live is not None and live.connection.is_open:
            try:
                live.connection.close()
            except failures.AMQPError:
                return


# --- a connection by its URL ---


def broker_at(url: str) -> tuple[pika.ConnectionParameters, str]:
    """Return how to connect to the broker that *url* names, and how to name it to people.

    The URL is as of `tracer watch --amqp`. Raises UsageError, whose words hold no password.
    """
    broker = broker_of(url)
    parameters = broker.parameters
    # A replay waits for what is due, and serves no heartbeat meanwhile.
    parameters.heartbeat = 0
    parameters.blocked_connection_timeout = BLOCKED_S
    host = f"[{parameters.host}]" if ":" in parameters.host else parameters.host
    return parameters, f"{host}:{parameters.port}, vhost {plain(broker.vhost, 255)}"


def connect(parameters: pika.ConnectionParameters, where: str, name: str) -> BlockingConnection:
    """Return a connection that calls itself *name*. Raises SourceError."""
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
    """Return the innermost reason that the system gave, in a few words."""
    for each in causes(error):
        if isinstance(each, socket.gaierror):
            return "no such host"
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return "it did not answer"
