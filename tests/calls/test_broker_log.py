"""What is kept of consumers and of channels that ask for no acknowledgements, and what that costs."""

from __future__ import annotations

import time

import pytest

from tracer.calls.broker import BrokerLog
from tracer.calls.channels import CHANNELS, CONFIRMING, Channels
from tracer.model import TO_SERVER, AmqpMethod, Connection, Endpoint

MANY = 20_000


def connection(number: int = 1) -> Connection:
    return Connection(number, Endpoint("10.0.0.1", 40_000), Endpoint("10.0.0.2", 5672), 0)


def method(made: Connection, channel: int, name: str, **arguments: str | int | bool) -> AmqpMethod:
    return AmqpMethod(made, TO_SERVER, 1, (), channel, name, arguments)


def test_closing_channels_costs_what_they_hold() -> None:
    """Of 20,000 channels of one connection, each with its consumer, each is closed by itself."""
    log, made = BrokerLog(), connection()
    for n in range(MANY):
        log.method(method(made, n, "basic.consume", consumer_tag="1", queue=f"q{n % 100}"))
    begun = time.process_time()
    for n in range(MANY):
        log.method(method(made, n, "channel.close", reply_code=200))
    assert time.process_time() - begun < 2.0
    assert [e.left for e in log.of_queue("q7") if e.kind == "gone"][-1] == 0


def test_a_channel_takes_its_own_consumers_with_it() -> None:
    log, made = BrokerLog(), connection()
    for channel in (1, 2):
        log.method(method(made, channel, "basic.consume", consumer_tag="1", queue="conductor"))
    log.method(method(made, 2, "channel.close", reply_code=200))
    assert [(e.kind, e.left) for e in log.of_queue("conductor")] == [
        ("consuming", 0),
        ("consuming", 0),
        ("gone", 1),
    ]


@pytest.mark.parametrize("name", ["basic.get", "basic.consume"])
def test_what_asks_for_no_acknowledgements_is_bounded(name: str) -> None:
    """And is forgotten with its connection."""
    channels = Channels()
    for n in range(CONFIRMING + 50):
        channels.method((n, 1), method(connection(n), 1, name, no_ack=True))
    for n in range(CHANNELS + 50):
        channels.method((7, n), method(connection(7), n, name, no_ack=True))
    asked = channels._asks_no_ack
    assert len(asked) <= CONFIRMING and len(asked[7]) == CHANNELS
    channels.closed(connection(7))
    assert 7 not in asked
