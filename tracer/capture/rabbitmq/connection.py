"""The connection to a broker: pika's connection, whose bytes we read first, and our two queues.

Nothing else on the broker is changed. The steps of the setup follow each other as the broker answers: each
step gets the function that is called with the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from pika.adapters.select_connection import SelectConnection

from tracer.capture.rabbitmq.frames import Deliveries
from tracer.capture.rabbitmq.messages import EVENTS, TRACE

__all__ = ["FirehoseConnection", "Step", "listen"]

RECEIVE_BYTES = 1 << 18
"""Bytes of one read from the socket."""
MOST_MESSAGES, MOST_BYTES = 50_000, 128 << 20
"""Limits of our queue in the broker's memory."""
LOST_MESSAGES, LOST_BYTES = 100_000, 8 << 20
"""Limits of the queue of dropped messages, which is counted and emptied once a second."""
_OURS: dict[str, bool] = {"exclusive": True, "auto_delete": True}

Step = Callable[[Callable[..., None]], object]


class FirehoseConnection(SelectConnection):  # type: ignore[misc]  # pika is not typed
    """A connection of the client library, whose deliveries go to `deliveries` first.

    This class alone uses what is private to pika: two methods of its connection, which pika calls when the
    transport is connected and when bytes have come, and `_MAX_RECV_BYTES` of the transport. pika has no
    public way to read a connection's bytes before it makes objects of them. If a later pika stops calling
    these methods, all bytes pass through the library, which is slower: tests/capture/test_rabbitmq_connection
    fails then.
    """

    deliveries: Deliveries | None = None

    def _proto_connection_made(self, transport: Any) -> None:
        # The library reads 4 KiB at a time, which is about two messages.
        transport._MAX_RECV_BYTES = RECEIVE_BYTES
        super()._proto_connection_made(transport)

    def _proto_data_received(self, data: bytes) -> None:
        if self.deliveries is None:
            super()._proto_data_received(data)
            return
        rest = self.deliveries.receive(data)
        # The library checks this counter to detect a dead broker.
        self.bytes_received += len(data) - len(rest)
        if rest:
            super()._proto_data_received(rest)


def listen(
    connection: Any, channel: Any, queue: str, lost_queue: str, arrived: Callable[..., None]
) -> Generator[Step, Any, bool]:
    """Declare the queues and consume; return whether an event exchange reports who is connected.

    Both queues are exclusive and auto-deleting, so they end with the connection.
    """
    yield lambda done: channel.exchange_declare(TRACE, passive=True, callback=done)
    limits = _limits(LOST_MESSAGES, LOST_BYTES)
    yield lambda done: channel.queue_declare(lost_queue, **_OURS, arguments=limits, callback=done)
    limits = _limits(MOST_MESSAGES, MOST_BYTES) | {
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": lost_queue,
    }
    yield lambda done: channel.queue_declare(queue, **_OURS, arguments=limits, callback=done)
    knows_peers = yield from _has_events(connection)
    bindings = [(EVENTS, kind) for kind in ("connection.*", "channel.*", "consumer.*") if knows_peers]
    for exchange, key in (*bindings, (TRACE, "publish.#"), (TRACE, "deliver.#")):
        yield _binding(channel, queue, exchange, key)
    yield lambda done: channel.basic_consume(queue, arrived, auto_ack=True, exclusive=True, callback=done)
    return knows_peers


def _has_events(connection: Any) -> Generator[Step, Any, bool]:
    """Return whether the broker has an event exchange.

    It is asked on a channel of its own, because the broker closes the channel if there is none.
    """
    asking = yield lambda done: connection.channel(on_open_callback=done)

    def ask(done: Callable[..., None]) -> None:
        asking.add_on_close_callback(lambda _, __: done(None))
        asking.exchange_declare(EVENTS, passive=True, callback=done)

    return (yield ask) is not None


def _binding(channel: Any, queue: str, exchange: str, key: str) -> Step:
    return lambda done: channel.queue_bind(queue, exchange, key, callback=done)


def _limits(messages: int, size_bytes: int) -> dict[str, Any]:
    return {"x-max-length": messages, "x-max-length-bytes": size_bytes, "x-overflow": "drop-head"}
