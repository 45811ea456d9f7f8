"""Clouds by the kinds of their queues, as oslo.messaging declares them: made conversations.

    quorum      rabbit_quorum_queue: durable queues of kind quorum, with a limit of deliveries; transient ones
                stay classic
    streams     rabbit_stream_fanout beside that: one stream for all fanouts of a topic, read from its end

Sources: oslo_messaging/_drivers/impl_rabbit.py (Consumer, _get_queue_arguments); on rabbitmq.com:
docs/quorum-queues
(x-delivery-limit, x-delivery-count), docs/streams (x-stream-offset), docs/dlx (x-first-death-reason).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pika.spec

from tracer.testing.cloud import PORTS, SPREAD, Cloud, Layout
from tracer.testing.messages import ack, amqp_set_up, content, method, publish
from tracer.testing.packets import ACK, RST, Connection

__all__ = ["LIMIT", "NoConfirms", "QuorumQueues", "QuorumWithoutConfirms", "Streams"]

spec = pika.spec
_OWN = ("unconfirmed", "limit", "dead", "expired", "requeued", "retried")
LIMIT = 3
"""Deliveries of a message before the broker drops it: x-delivery-limit."""


def _deliver(exchange: str, key: str, body: bytes, tag: int, again: bool, **headers: Any) -> bytes:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return content(spec.Basic.Deliver("1", tag, again, exchange, key), body, headers=named)


class QuorumQueues(Cloud):
    """Quorum queues, whose publishes the broker confirms.

    Fates of `rpc` beside those of a `Cloud`: unconfirmed (published, and nothing more of the broker); limit
    (the consumer dies of each delivery, until the broker drops the message); dead (the same, and a monitor
    gets it from a queue of dead letters); expired (nobody takes it, until the monitor does); requeued
    (rejected once, with requeue, and taken then); retried (taken after it was a dead letter once).
    `fates`: routing key -> fate of the next message with that key.
    """

    confirms = True
    queues: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": LIMIT}  # noqa: RUF012

    def __init__(self, layout: Layout = SPREAD, **arranged: Any) -> None:
        super().__init__(layout, **arranged)
        self.address = {**self.address, "monitor": "172.28.0.90"}
        self.fates: dict[str, str] = {}

    def arguments(self, queue: str) -> dict[str, Any]:
        """Return the arguments with which *queue* is declared."""
        is_transient = queue.startswith("reply_") or "_fanout" in queue
        return {"x-expires": 1_800_000} if is_transient else self.queues

    def _standing(self, role: str, what: str, queues: Sequence[str]) -> Connection:
        key = (role, what)
        if key not in self._amqp:
            self._amqp[key] = self._opened(role, queues, 0.0)
        return self._amqp[key]

    def _opened(self, role: str, queues: Sequence[str], at: float) -> Connection:
        made = self.network.connection(self.address[role], self.address["rabbitmq"], PORTS["rabbitmq"], at=at)
        program = "nova-compute" if role.startswith("compute") else role
        program = "nova-api" if role.startswith("nova-api") else program
        declared = {queue: self.arguments(queue) for queue in queues}
        amqp_set_up(made, at + 0.01, program, declared, confirms=self.confirms)
        return made

    def rpc(
        self, at: float, caller: str, consumer: str, exchange: str, key: str, body: bytes, fate: str = "ok"
    ) -> None:
        fate = self.fates.pop(key, fate)
        if self.confirms and fate not in _OWN:
            super().rpc(at, caller, consumer, exchange, key, body, fate)
            return
        made = self.publisher(caller)
        made.say(at, publish(exchange, key, body))
        if fate == "unconfirmed":
            return
        self._published += 1
        if self.confirms:
            made.hear(at + 0.0003, ack(self._published))
        if fate in ("limit", "dead"):
            self._dies(at + 0.0005, consumer, exchange, key, body, fate == "dead")
            return
        if fate == "expired":
            self._monitored(at + 60, key, body, fate)
        if fate in ("undelivered", "unroutable", "expired"):
            return
        taker = self.consumer(consumer)
        self._tags += 1
        headers = {"x_first_death_reason": "expired"} if fate == "retried" else {}
        taker.hear(at + 0.0005, _deliver(exchange, key, body, self._tags, False, **headers))
        if fate == "requeued":
            taker.say(at + 0.001, method(spec.Basic.Reject(self._tags, True)))
            self._tags += 1
            taker.hear(at + 0.0015, _deliver(exchange, key, body, self._tags, True, x_delivery_count=1))
        if fate != "unacked":
            taker.say(at + 0.002, ack(self._tags))

    def _dies(self, at: float, consumer: str, exchange: str, key: str, body: bytes, is_told: bool) -> None:
        """Write deliveries that the consumer dies of, one beyond the limit; *is_told*: a monitor too."""
        queues = [key, key.partition(".")[0] + "_fanout_aa", f"reply_{consumer}"]
        for number in range(LIMIT + 1):
            taker = self.consumer(consumer)
            self._tags += 1
            headers = {"x_delivery_count": number} if number else {}
            taker.hear(at, _deliver(exchange, key, body, self._tags, number > 0, **headers))
            taker.close(at + 0.5, RST | ACK, by=0)
            at += 1.0
            self._amqp[consumer, "consume"] = self._opened(consumer, queues, at - 0.3)
        if is_told:
            self._monitored(at, key, body, "delivery_limit")

    def _monitored(self, at: float, key: str, body: bytes, why: str) -> None:
        """Write the delivery of a dead letter to a monitor, which acknowledges it."""
        ends = self.address["monitor"], self.address["rabbitmq"]
        monitor = self.network.connection(*ends, PORTS["rabbitmq"], at=at)
        amqp_set_up(monitor, at + 0.01, "", {"dead-letters": {}})
        monitor.hear(at + 0.1, _deliver("dlx", key, body, 1, False, x_first_death_reason=why))
        monitor.say(at + 0.2, ack(1))


class NoConfirms(QuorumQueues):
    """Classic queues, whose publishes the broker does not confirm."""

    confirms = False
    queues: dict[str, Any] = {}  # noqa: RUF012


class QuorumWithoutConfirms(QuorumQueues):
    """Quorum queues; the publishers ask for no confirms."""

    confirms = False


class Streams(QuorumQueues):
    """Streams for fanouts: each consumer of a topic reads the same one, and acknowledges what it has read."""

    def arguments(self, queue: str) -> dict[str, Any]:
        if queue.endswith("_fanout"):
            return {"x-queue-type": "stream", "x-max-age": "1800s"}
        return super().arguments(queue)

    def consumer(self, role: str) -> Connection:
        topic = {"nova-conductor": "conductor", "nova-scheduler": "scheduler"}.get(role, f"compute.{role}")
        queues = (topic, topic.partition(".")[0] + "_fanout", f"reply_{role}")
        return self._standing(role, "consume", queues)

    def fanout(self, at: float, caller: str, topic: str, consumers: Sequence[str], body: bytes) -> None:
        """Write one message to a topic's stream, which each of *consumers* reads."""
        self._published += 1
        made = self.publisher(caller)
        made.say(at, publish(f"{topic}_fanout", "", body))
        made.hear(at + 0.0003, ack(self._published))
        for number, role in enumerate(consumers):
            self._tags += 1
            taker = self.consumer(role)
            read = _deliver(f"{topic}_fanout", "", body, self._tags, False, x_stream_offset=40 + number)
            taker.hear(at + 0.001, read)
            taker.say(at + 0.002, ack(self._tags))
