"""A real RabbitMQ for tests: that of the small cloud, one for all tests of a worker.

The example is shown to users and stands by itself, so what starts a broker is written there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rabbitmq import RabbitMQ, broker, free_port, why_not

__all__ = ["RabbitMQ", "broker", "free_port", "needs_broker", "new_vhost", "rabbit", "running_broker"]

_MISSING = why_not()
needs_broker = pytest.mark.skipif(_MISSING is not None, reason=str(_MISSING))
DEFAULT_VHOST = "/"


@pytest.fixture(scope="session")
def running_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One broker for all tests of a worker: to start one takes seconds."""
    with broker(tmp_path_factory.mktemp("rabbit")) as running:
        yield running


@pytest.fixture(scope="module")
def rabbit(running_broker: RabbitMQ) -> Iterator[RabbitMQ]:
    """The worker's broker, for the tests of a module: afterwards it holds nothing of theirs."""
    yield running_broker
    new_vhost(running_broker)


def new_vhost(rabbit: RabbitMQ, name: str = DEFAULT_VHOST) -> None:
    """Replace a vhost by an empty one that `guest` may use: no queue, exchange or message is left in it."""
    if name in rabbit.ctl("-q", "list_vhosts", "name").splitlines():
        rabbit.ctl("delete_vhost", name)
    rabbit.ctl("add_vhost", name)
    rabbit.ctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*")
