"""A real RabbitMQ for tests: that of the small cloud, one for all tests of a worker.

The example is shown to users and stands by itself, so what starts a broker is written there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pika
import pytest
from rabbitmq import RabbitMQ, broker, free_port, why_not

__all__ = ["RabbitMQ", "broker", "free_port", "needs_broker", "queue_made", "rabbit", "running_broker"]

_MISSING = why_not()
needs_broker = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))


@pytest.fixture(scope="session")
def running_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One broker for all tests of a worker: to start one takes seconds."""
    with broker(tmp_path_factory.mktemp("rabbit")) as running:
        yield running


@pytest.fixture(scope="module")
def rabbit(running_broker: RabbitMQ) -> Iterator[RabbitMQ]:
    """The worker's broker, for the tests of a module: afterwards it holds nothing of theirs."""
    yield running_broker
    cleared(running_broker)


@contextmanager
def queue_made(rabbit: RabbitMQ, name: str) -> Iterator[Callable[[], None]]:
    """What waits until a queue of that *name* is made, from now on: the broker tells (event exchange)."""
    with pika.BlockingConnection(pika.URLParameters(rabbit.url())) as connection:
        channel = connection.channel()
        told = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(told, "amq.rabbitmq.event", "queue.created")

        def wait() -> None:
            for _, properties, _ in channel.consume(told, auto_ack=True, inactivity_timeout=60):
                assert properties is not None, f"no queue {name} was made"
                if properties.headers["name"] == name:
                    break
            channel.cancel()

        yield wait


def cleared(rabbit: RabbitMQ) -> None:
    """Delete all queues and exchanges of the vhost / but the broker's own, and switch its firehose off."""
    rabbit.ctl("trace_off")
    queues = rabbit.ctl("-q", "list_queues", "--no-table-headers", "name").splitlines()
    exchanges = rabbit.ctl("-q", "list_exchanges", "--no-table-headers", "name").splitlines()
    with pika.BlockingConnection(pika.URLParameters(rabbit.url())) as connection:
        channel = connection.channel()
        for queue in queues:
            channel.queue_delete(queue)
        for exchange in exchanges:
            if exchange and not exchange.startswith("amq."):
                channel.exchange_delete(exchange)
