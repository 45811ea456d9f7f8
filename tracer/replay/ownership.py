"""Records which exchanges and queues on a broker a replay has declared: it deletes no others.

A durable queue (LEDGER) holds one message with the names that a replay is about to declare. It remains when a
replay is killed or run with --keep; the next replay deletes these names. An exclusive queue (RUNNING) exists
while a replay is running. No other exchange or queue is ever deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

import pika
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection
from pika.exceptions import ChannelClosedByBroker

from tracer.errors import SourceError, UsageError
from tracer.reports import plain

__all__ = ["LEDGER", "Ownership"]

LEDGER = "tracer-replay.names"
RUNNING = "tracer-replay.running"
_NOT_FOUND, _LOCKED = 404, 405
_NAMED = 5
"""Most names in a refusal message."""


@dataclass(slots=True)
class Ownership:
    """The exchanges and queues of one replay on the broker of *connection*."""

    connection: BlockingConnection
    where: str
    """The broker in messages, without its password."""
    exchanges: list[str] = field(default_factory=list)
    """Own exchanges, in the order in which they were claimed."""
    queues: list[str] = field(default_factory=list)
    """Own queues, likewise."""
    foreign: set[tuple[str, str]] = field(default_factory=set)
    """('exchange' or 'queue', name) that existed before and is used with --force."""

    def claim(self, exchanges: Iterable[str], queues: Iterable[str], *, force: bool) -> None:
        """Claim the names for this replay, after deleting what an earlier replay left.

        Raises UsageError when such names exist already (unless *force*), or when another replay is running.
        """
        self._begin()
        self._clear_leftovers()
        wanted = [("exchange", name) for name in exchanges] + [("queue", name) for name in queues]
        self.foreign = {each for each in wanted if self._exists(*each)}
        if self.foreign and not force:
            raise UsageError(self._refusal())
        self.exchanges = [
            name for kind, name in wanted if (kind, name) not in self.foreign and kind == "exchange"
        ]
        self.queues = [name for kind, name in wanted if (kind, name) not in self.foreign and kind == "queue"]
        # Before anything is declared: a replay that is killed leaves nothing that is not in the ledger.
        self._write()

    def is_own(self, kind: str, name: str) -> bool:
        """Return whether this replay may delete the exchange or queue (*kind*) of that name."""
        return (kind, name) not in self.foreign

    def release(self, *, keep: bool) -> None:
        """Delete all own exchanges and queues; with *keep* they stay, and so does the ledger."""
        if keep:
            return
        self._delete(self.exchanges, self.queues)
        self._channel().queue_delete(LEDGER)

    # --- inside ---

    def _channel(self) -> BlockingChannel:
        # A channel for each operation: the broker closes a channel on the first error.
        return self.connection.channel()

    def _begin(self) -> None:
        try:
            self._channel().queue_declare(RUNNING, exclusive=True)
        except ChannelClosedByBroker as refused:
            if refused.reply_code == _LOCKED:
                raise UsageError(
                    f"--amqp {self.where}: another replay onto this broker is under way"
                ) from None
            raise SourceError(f"--amqp {self.where}: {refused.reply_text}") from None

    def _clear_leftovers(self) -> None:
        if not self._exists("queue", LEDGER):
            return
        channel = self._channel()
        _, _, body = channel.basic_get(LEDGER)
        channel.close()
        try:
            left = json.loads(body or b"{}")
            self._delete(left.get("exchanges", []), left.get("queues", []))
        except (ValueError, AttributeError, TypeError):
            raise UsageError(
                f"--amqp {self.where}: queue {LEDGER} is not as tracer left it: inspect it and delete it"
            ) from None

    def _write(self) -> None:
        channel = self._channel()
        channel.queue_declare(LEDGER, durable=True)
        channel.queue_purge(LEDGER)
        channel.confirm_delivery()
        names = json.dumps({"exchanges": self.exchanges, "queues": self.queues})
        channel.basic_publish("", LEDGER, names.encode(), pika.BasicProperties(delivery_mode=2))
        channel.close()

    def _exists(self, kind: str, name: str) -> bool:
        channel = self._channel()
        try:
            if kind == "exchange":
                channel.exchange_declare(name, passive=True)
            else:
                channel.queue_declare(name, passive=True)
        except ChannelClosedByBroker as answer:
            # Any other refusal, such as a queue that is exclusive to another connection, means it exists.
            return bool(answer.reply_code != _NOT_FOUND)
        channel.close()
        return True

    def _delete(self, exchanges: Iterable[str], queues: Iterable[str]) -> None:
        channel = self._channel()
        for name in queues:
            channel.queue_delete(name)
        for name in exchanges:
            channel.exchange_delete(name)
        channel.close()

    def _refusal(self) -> str:
        found = sorted(self.foreign)
        named = ", ".join(f"{kind} {plain(name)}" for kind, name in found[:_NAMED])
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        return (
            f"--amqp {self.where}: the broker already has {named}{more}, which no replay declared: is it the"
            " cloud's own? Use an empty test broker or vhost, or --force"
        )
