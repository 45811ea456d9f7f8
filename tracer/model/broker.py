"""What happens at the broker apart from messages: to consumers, to publishers and to connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from tracer.model.streams import Connection

__all__ = ["NO_BROKER", "Broker", "BrokerEvent", "BrokerEventKind", "Returns"]

BrokerEventKind = Literal["consuming", "gone", "blocked", "unblocked", "opened", "lost"]
"""consuming, gone: a queue's consumer · blocked, unblocked: the publishers of a connection · opened, lost: a
connection."""


class BrokerEvent(NamedTuple):
    """One event at the broker, of one connection."""

    time_ns: int
    kind: BrokerEventKind
    connection: Connection
    queue: str = ""
    by_broker: bool = False
    """The broker did it; else the client, or whoever ended the connection."""
    words: str = ""
    """How it happened: `the broker cancelled the consumer`. Of opened: the program and the process."""
    left: int = 0
    """gone: how many consumers of the queue were left."""


class Returns(NamedTuple):
    """The messages for one queue that the broker returned."""

    often: int
    first_ns: int
    last_ns: int


class Broker(Protocol):
    """Answers what was seen at the brokers."""

    def of_queue(self, queue: str) -> Sequence[BrokerEvent]:
        """Return the latest events of the consumers of *queue*, in order of time."""

    def of_client(self, address: str) -> Sequence[BrokerEvent]:
        """Return the latest events of the connections of the clients at *address*, in order of time."""

    def returns(self, queue: str) -> Returns | None:
        """Return the messages for *queue* that came back as unroutable; None if none did."""


class _Unseen:
    """No broker was seen."""

    def of_queue(self, queue: str) -> Sequence[BrokerEvent]:
        return ()

    def of_client(self, address: str) -> Sequence[BrokerEvent]:
        return ()

    def returns(self, queue: str) -> Returns | None:
        return None


NO_BROKER: Broker = _Unseen()
"""For judgements without captures."""
