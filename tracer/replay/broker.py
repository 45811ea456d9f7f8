"""The recorded broker: exchanges, queues, bindings and consumers that a recording shows or implies.

A capture that begins in the middle of a connection shows deliveries without the declarations before them.
Then the smallest set of declarations is inferred that routes the same message to the same queue:

    delivered through the default exchange   a queue with the routing key as its name (RabbitMQ's rule)
    delivered through a fanout exchange       a queue of the consumer's own, bound to it
    delivered through another exchange        a queue with the routing key as its name, bound with that key:
                                              oslo.messaging names queues so
    published, never delivered nor returned   such a queue, without a consumer. The capture does not show
                                              whether it existed; with it the message can be inspected.
                                              Only if connections were open before the capture began

Source: AMQP 0-9-1 section 3.1.3; oslo.messaging, _drivers/amqpdriver.py.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pika import spec
from pika.exceptions import AMQPError

from tracer.model import TO_SERVER, AmqpContent, AmqpMethod
from tracer.model.tables import trim
from tracer.openstack.services import FANOUT

__all__ = ["REMEMBERED", "Broker", "Exchange", "Queue", "decoded", "digest", "digest_of", "live_name"]

REMEMBERED = 20_000
"""Published messages that are remembered by their digest."""

_METHODS: Mapping[int, Any] = spec.methods
_ABSENT = re.compile(r"no (exchange|queue) '(.*?)' in vhost")
_PREDEFINED = re.compile(r"amq\.(direct|fanout|headers|match|rabbitmq\.\w+|topic)\Z|\Z")
"""Exchanges that every broker has; the default exchange is ''."""

Key = tuple[int, int, str]
"""Connection, channel and consumer tag."""


def decoded(payload: bytes) -> Any:
    """Return pika's object of the method in *payload*, with all of its arguments; None if damaged."""
    # Class id and method id, 2 bytes each.
    kind = _METHODS.get(int.from_bytes(payload[:4], "big"))
    try:
        return None if kind is None else kind().decode(payload, 4)
    except (struct.error, LookupError, ValueError, TypeError, OverflowError, AMQPError):
        return None


def digest(exchange: str, key: str, body: bytes) -> bytes:
    """Return a digest that identifies a message by exchange, routing key and body.

    Through the default exchange the key is the name of a queue, which a replay may change (`live_name`): it
    is left out.
    """
    head = f"{exchange}\0{key if exchange else ''}\0".encode()
    return hashlib.blake2b(head + body, digest_size=16).digest()


def digest_of(message: AmqpContent) -> bytes:
    """Return the digest of a recorded message."""
    return digest(str(message.arguments["exchange"]), str(message.arguments["routing_key"]), message.body)


def live_name(queue: str) -> str:
    """Return the name of *queue* in a replay; names that the recorded broker chose are changed."""
    # A client may not declare a queue with the reserved prefix amq.
    return f"replayed.{queue[4:]}" if queue.startswith("amq.gen-") else queue


@dataclass(slots=True)
class Exchange:
    """The properties of an exchange, recorded or inferred."""

    kind: str = "topic"
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: dict[str, Any] | None = None
    declared: bool = False
    """Whether the recording holds its declaration; else it is inferred."""
    early: bool = False
    """Whether it is used before the recording declares it: it must exist from the beginning."""


@dataclass(slots=True)
class Queue:
    """The properties of a queue, recorded or inferred; *declared* and *early* as of `Exchange`."""

    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: dict[str, Any] | None = None
    declared: bool = False
    early: bool = False
    since: int = 0
    """Number of messages that were published before its declaration."""


@dataclass(slots=True)
class Broker:
    """The state of the recorded broker, learnt from its methods and contents in recorded order."""

    exchanges: dict[str, Exchange] = field(default_factory=dict)
    queues: dict[str, Queue] = field(default_factory=dict)
    bound: dict[str, dict[tuple[str, str], int]] = field(default_factory=dict)
    """queue -> (exchange, routing key) -> messages published before the binding; 0: bound from the start"""
    inferred_bindings: dict[tuple[str, str, str], None] = field(default_factory=dict)
    """(queue, exchange, routing key) of bindings that are not in the recording"""
    consumers: dict[Key, str] = field(default_factory=dict)
    """consumer -> queue"""
    inferred_consumers: int = 0
    consumed: int = 0
    """Number of consumers with a basic.consume in the recording."""
    absent: set[tuple[str, str]] = field(default_factory=set)
    """('exchange' or 'queue', name) that did not exist, by the broker's own error"""
    _asked: dict[tuple[int, int], list[tuple[str, str]]] = field(default_factory=dict)
    """(connection, channel) -> consumers that wait for a tag from the broker"""
    _last: dict[tuple[int, int], str] = field(default_factory=dict)
    """(connection, channel) -> queue declared last; an empty name in later methods means this queue"""
    _count: int = 0
    """Messages published so far."""
    _sent: OrderedDict[bytes, int] = field(default_factory=OrderedDict)
    """Digest of a message -> its number"""
    _published: dict[tuple[str, str], None] = field(default_factory=dict)
    _arrived: set[tuple[str, str]] = field(default_factory=set)
    """(exchange, routing key) of messages that were delivered or returned"""

    # --- learning ---

    def method(self, message: AmqpMethod) -> None:
        """Learn from a method; a damaged one is ignored."""
        method = decoded(message.raw) if message.raw else None
        if method is None:
            return
        at = message.connection.number, message.channel
        match message.name:
            case "exchange.declare":
                self._exchange_declared(method)
            case "exchange.bind" | "exchange.unbind":
                self._use_exchange(method.source)
                self._use_exchange(method.destination)
            case "queue.declare":
                self._queue_declared(at, method)
            case "queue.declare-ok":
                self._named(at, str(message.arguments["queue"]))
            case "queue.bind":
                queue = self.queue_meant(message)
                self._use_queue(queue)
                self._use_exchange(method.exchange)
                bindings = self.bound.setdefault(queue, {})
                bindings.setdefault((method.exchange, method.routing_key), self._count)
            case "basic.consume":
                queue, tag = self.queue_meant(message), str(message.arguments["consumer_tag"])
                self._use_queue(queue)
                self.consumed += 1
                if tag:
                    self.consumers[(*at, tag)] = queue
                else:
                    self._asked.setdefault(at, []).append((queue, tag))
            case "basic.consume-ok":
                if waiting := self._asked.get(at):
                    self.consumers[(*at, str(message.arguments["consumer_tag"]))] = waiting.pop(0)[0]
            case "basic.get":
                self._use_queue(self.queue_meant(message))
            case "basic.cancel":
                self.consumers.pop((*at, str(message.arguments["consumer_tag"])), None)
            case "channel.close":
                self._channel_closed(message)

    def content(self, message: AmqpContent) -> None:
        """Learn from a message with content: publish, return, deliver or get-ok."""
        exchange, key = str(message.arguments["exchange"]), str(message.arguments["routing_key"])
        if message.name == "basic.publish":
            self._use_exchange(exchange)
            self._published[exchange, key] = None
            self._count += 1
            self._sent[digest_of(message)] = self._count
            trim(self._sent, REMEMBERED)
        elif message.name == "basic.return":
            self._arrived.add((exchange, key))
        elif message.name == "basic.deliver":
            self._arrived.add((exchange, key))
            self._use_exchange(exchange)
            queue = self.queue_of(message)
            self._use_queue(queue)
            # A message whose publish was not seen counts as the next one: bindings known by now may route it.
            self._lead(exchange, key, queue, self._sent.get(digest_of(message), self._count + 1))
        elif message.name == "basic.get-ok":
            self._arrived.add((exchange, key))

    def closed(self, connection: int) -> None:
        """Remove the consumers and open requests of a connection that has ended."""
        for table in (self._asked, self._last):
            for at in [at for at in table if at[0] == connection]:
                del table[at]
        for key in [key for key in self.consumers if key[0] == connection]:
            del self.consumers[key]

    def finish(self, *, midstream: bool) -> None:
        """At the end of the recording, infer queues for messages that were published and never delivered.

        *midstream*: a connection was open before the recording. Otherwise all declarations are known.
        """
        for kind, name in self.absent:
            table: dict[str, Any] = self.exchanges if kind == "exchange" else self.queues
            if name in table and not table[name].declared:
                del table[name]
        for exchange, key in self._published:
            if (exchange, key) in self._arrived or ("exchange", exchange) in self.absent:
                continue
            known = self.exchanges.get(exchange)
            # Here the routing key does not name a queue.
            if not key or (known is not None and known.kind in ("fanout", "headers")):
                continue
            # All bindings of this exchange are in the recording: none of them matched.
            if not midstream and known is not None and known.declared:
                continue
            if exchange.startswith("amq.") or self._leads_somewhere(exchange, key):
                continue
            self._use_queue(key)
            self._lead(exchange, key, key, self._count + 1)
        self._published.clear()
        self._arrived.clear()

    # --- answering ---

    def queue_meant(self, message: AmqpMethod) -> str:
        """Return the queue of a method; an empty name means the queue that its channel declared last."""
        queue = str(message.arguments["queue"])
        return queue or self._last.get((message.connection.number, message.channel), "")

    def queue_of(self, delivery: AmqpContent) -> str:
        """Return the queue of *delivery*; inferred when the recording holds no basic.consume for it."""
        tag = str(delivery.arguments["consumer_tag"])
        consumer = delivery.connection.number, delivery.channel, tag
        queue = self.consumers.get(consumer)
        if queue is None:
            exchange, key = str(delivery.arguments["exchange"]), str(delivery.arguments["routing_key"])
            known = self.exchanges.get(exchange)
            is_fanout = known.kind == "fanout" if known else exchange.endswith(FANOUT)
            # The form of oslo.messaging's fanout queues, from which a capture of the replay infers roles.
            queue = f"{exchange}_replayed{self.inferred_consumers}" if is_fanout or not key else key
            self.consumers[consumer] = queue
            self.inferred_consumers += 1
        return queue

    # --- inside ---

    def _exchange_declared(self, method: Any) -> None:
        known = self.exchanges.get(method.exchange)
        if method.passive:
            self._use_exchange(method.exchange)
        elif not _PREDEFINED.match(method.exchange) and (known is None or not known.declared):
            self.exchanges[method.exchange] = Exchange(
                method.type,
                method.durable,
                method.auto_delete,
                method.internal,
                method.arguments,
                declared=True,
                early=known is not None,
            )

    def _queue_declared(self, at: tuple[int, int], method: Any) -> None:
        if method.passive:
            self._use_queue(method.queue)
        elif method.queue:
            known = self.queues.get(method.queue)
            if known is None or not known.declared:
                self.queues[method.queue] = Queue(
                    method.durable,
                    method.exclusive,
                    method.auto_delete,
                    method.arguments,
                    declared=True,
                    early=known is not None and not method.exclusive,
                    since=self._count if known is None else known.since,
                )
        self._last[at] = method.queue

    def _named(self, at: tuple[int, int], queue: str) -> None:
        if queue.startswith("amq.gen-"):
            self.queues.setdefault(queue, Queue(declared=True, since=self._count))
            self._last[at] = queue

    def _use_exchange(self, name: str) -> None:
        if name not in self.exchanges and not _PREDEFINED.match(name):
            self.exchanges[name] = Exchange("fanout" if name.endswith(FANOUT) else "topic")

    def _use_queue(self, name: str) -> None:
        if name and name not in self.queues:
            self.queues[name] = Queue()

    def _lead(self, exchange: str, key: str, queue: str, number: int) -> None:
        """Infer a binding for message *number* from *exchange* to *queue* unless a known one routes it."""
        known = self.queues[queue]
        if not known.exclusive and known.since >= number:
            # It existed before this declaration: clients declare queues that may exist already.
            known.early, known.since = True, 0
        if not exchange or self._covers(exchange, key, queue, number):
            return
        self.bound.setdefault(queue, {})[exchange, key] = 0
        self.inferred_bindings[queue, exchange, key] = None

    def _leads_somewhere(self, exchange: str, key: str) -> bool:
        if not exchange:
            return key in self.queues
        return any(self._covers(exchange, key, queue, self._count + 1) for queue in self.bound)

    def _covers(self, exchange: str, key: str, queue: str, number: int) -> bool:
        known = self.exchanges.get(exchange)
        kind = known.kind if known else exchange.removeprefix("amq.")
        for (source, pattern), since in self.bound.get(queue, {}).items():
            if source != exchange or since >= number:
                continue
            if (
                kind in ("fanout", "headers")
                or pattern == key
                or (kind == "topic" and _matches(pattern, key))
            ):
                return True
        return False

    def _channel_closed(self, message: AmqpMethod) -> None:
        if message.direction == TO_SERVER:
            return
        found = _ABSENT.search(str(message.arguments.get("reply_text", "")))
        if found:
            self.absent.add((found[1], found[2]))


def _matches(pattern: str, key: str) -> bool:
    """Return whether a topic binding's *pattern* matches *key*: * is one word, # is any number of words."""
    words = key.split(".") if key else []
    # The numbers of words that the pattern so far may match.
    taken = {0}
    for part in pattern.split(".") if pattern else ():
        if part == "#":
            taken = set(range(min(taken), len(words) + 1)) if taken else taken
        else:
            taken = {at + 1 for at in taken if at < len(words) and part in ("*", words[at])}
    return len(words) in taken
