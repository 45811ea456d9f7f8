"""A message that is sniffed and told by the broker's firehose is one call."""

from __future__ import annotations

import itertools
import json

import pytest

from tracer.calls import Calls
from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    AmqpContent,
    AmqpMethod,
    Call,
    Connection,
    Endpoint,
    Message,
    RpcFacts,
)

UNIQUE = "0123456789abcdef0123456789abcdef"
BROKER = Endpoint("10.0.0.9", 5672)
BODY = json.dumps(
    {
        "oslo.version": "2.0",
        "oslo.message": json.dumps({"method": "build_and_run_instance", "args": {}, "_unique_id": UNIQUE}),
    }
).encode()


def connection(number: int, client: str, protocol: str) -> Connection:
    return Connection(number, Endpoint(client, 4000), BROKER, 1, protocol=protocol, captures=[0])


SNIFFED = connection(1, "10.0.0.1", "amqp091"), connection(2, "10.0.0.2", "amqp091")
TOLD = connection(-1, "10.0.0.1", "firehose"), connection(-2, "10.0.0.2", "firehose")


def content(name: str, where: Connection, time_ns: int, exchange: str = "nova") -> AmqpContent:
    arguments: dict[str, str | int | bool] = {"exchange": exchange, "routing_key": "compute.cmp1"}
    if name == "basic.deliver":
        arguments |= {"delivery_tag": 1, "consumer_tag": "1"}
    direction = TO_SERVER if name == "basic.publish" else TO_CLIENT
    frames = ((0 if where.number > 0 else 1, time_ns),)
    return AmqpContent(
        where, direction, time_ns, time_ns, frames, 1, name, arguments, {}, BODY, len(BODY), False
    )


PUBLISH = content("basic.publish", SNIFFED[0], 1)
DELIVER = content("basic.deliver", SNIFFED[1], 3)
ACK = AmqpMethod(SNIFFED[1], TO_SERVER, 5, (), 1, "basic.ack", {"delivery_tag": 1})
TOLD_PUBLISH = content("basic.publish", TOLD[0], 2)
TOLD_DELIVER = content("basic.deliver", TOLD[1], 4)


def calls(messages: tuple[Message, ...]) -> list[Call]:
    """The calls that *messages* make."""
    stage = Calls({})
    found = {call.serial: call for message in messages for call in stage.receive(message)}
    return list(found.values())


def orders() -> list[tuple[Message, ...]]:
    """Both accounts of one message, mixed in each way in which they may come."""
    sniffed, told = (PUBLISH, DELIVER), (TOLD_PUBLISH, TOLD_DELIVER)
    return [
        order
        for order in itertools.permutations((*sniffed, *told))
        if order.index(PUBLISH) < order.index(DELIVER)
        and order.index(TOLD_PUBLISH) < order.index(TOLD_DELIVER)
    ]


@pytest.mark.parametrize("order", orders(), ids=lambda order: " ".join(str(m.time_ns) for m in order))
def test_what_both_tell_is_one_call(order: tuple[Message, ...]) -> None:
    (call,) = calls(order)
    assert isinstance(call.facts, RpcFacts)
    # What is known of acknowledgements the wire tells.
    assert (call.operation, call.result, call.started_ns) == ("cast build_and_run_instance", "unacked", 1)
    assert call.connection is SNIFFED[0]
    assert call.facts.consumer is not None and call.facts.consumer.connection is SNIFFED[1]
    assert call.frames[0] == (0, 1) and sorted(call.frames) == [(0, 1), (0, 3), (1, 2), (1, 4)]
    (call,) = calls((*order, ACK))
    assert call.result == "ok"


@pytest.mark.parametrize(
    ("messages", "result"),
    [
        ((TOLD_PUBLISH,), "undelivered"),
        ((TOLD_PUBLISH, TOLD_DELIVER), "ok"),
        ((TOLD_PUBLISH, TOLD_PUBLISH._replace(name="basic.return")), "unroutable"),
        ((PUBLISH, TOLD_DELIVER), "ok"),
        ((TOLD_PUBLISH, DELIVER), "unacked"),
    ],
)
def test_the_fate_that_is_told(messages: tuple[Message, ...], result: str) -> None:
    assert [call.result for call in calls(messages)] == [result]


def test_a_message_that_is_published_twice_on_the_wire_is_one_call() -> None:
    """Its unique id is made for each message anew: a proxy passes it on, or its client publishes it again."""
    assert len(calls((PUBLISH, PUBLISH))) == 1


def test_the_copies_of_a_firehose_on_a_sniffed_wire_are_no_calls() -> None:
    copies = [content("basic.deliver", SNIFFED[1], 9, exchange) for exchange in ("amq.rabbitmq.trace",)]
    assert len(calls((PUBLISH, DELIVER, *copies))) == 1


def test_nothing_is_undelivered_while_the_broker_tells_nothing() -> None:
    """What was published before may have been delivered; when that is told later it counts."""
    stage = Calls({})
    told = content("basic.publish", TOLD[0], 2)
    (call,) = stage.receive(told)
    assert [*stage.unseen(7)] == [] and call.result == "undelivered"
    assert [*stage.unseen(0)] == [call] and call.result == "?"
    stage.receive(TOLD_DELIVER)
    assert call.result == "ok"
