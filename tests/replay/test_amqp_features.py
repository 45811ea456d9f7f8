"""What oslo.messaging does not do and other clients do, recorded from a real broker and replayed onto it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pika
import pytest
from lab.brokers import RabbitMQ, needs_broker, queue_made
from lab.recorded import ROOT, delivered, messages, published
from lab.relay import Relay
from pika.adapters.blocking_connection import BlockingChannel

from tracer.errors import SourceError
from tracer.replay.amqp import OntoBroker
from tracer.replay.broker import Exchange
from tracer.replay.ownership import LEDGER
from tracer.replay.plan import Plan
from tracer.replay.sessions import broker_at
from tracer.replay.summary import AmqpSummary

pytestmark = needs_broker


def wait(channel: BlockingChannel, got: list[Any], count: int) -> None:
    until_s = time.monotonic() + 60
    while len(got) < count:
        assert time.monotonic() < until_s, f"{len(got)} of {count} came"
        channel.connection.process_data_events(0.1)


def direct_and_headers(channel: BlockingChannel, other: BlockingChannel) -> None:
    """A direct exchange, a queue with arguments, properties of all types."""
    got: list[Any] = []
    channel.exchange_declare("jobs", "direct", durable=True)
    channel.queue_declare("work", durable=True, arguments={"x-message-ttl": 60000, "x-max-length": 50})
    channel.queue_bind("work", "jobs", "now")
    channel.basic_consume("work", lambda c, m, p, b: (got.append(b), c.basic_ack(m.delivery_tag)))
    properties = pika.BasicProperties(
        content_type="text/plain",
        headers={"n": 7, "big": 1 << 40, "t": True, "none": None, "list": [1, "a"], "in": {"x": 1}},
        delivery_mode=2,
        priority=3,
        timestamp=1,
        reply_to="somewhere",
    )
    for body in (b"one", b"", b"x" * 300_000, bytes(range(256))):
        other.basic_publish("jobs", "now", body, properties)
    wait(channel, got, 4)
    other.basic_publish("jobs", "never", b"not routed")


def server_named(channel: BlockingChannel, other: BlockingChannel) -> None:
    """A queue that the broker names, and a reply through the default exchange."""
    got: list[Any] = []
    name = channel.queue_declare("", exclusive=True).method.queue
    channel.basic_consume(name, lambda c, m, p, b: got.append(b), auto_ack=True)
    other.basic_publish("", name, b"reply")
    wait(channel, got, 1)


def returned(channel: BlockingChannel, other: BlockingChannel) -> None:
    """A mandatory message that no queue takes."""
    channel.exchange_declare("empty", "topic", auto_delete=False)
    other.confirm_delivery()
    with pytest.raises(pika.exceptions.UnroutableError):
        other.basic_publish("empty", "nobody", b"come back", mandatory=True)
    other.basic_publish("empty", "nobody", b"lost")


def channel_error(channel: BlockingChannel, other: BlockingChannel) -> None:
    """A message to an exchange that does not exist ends the channel; the client goes on with another."""
    channel.queue_declare("after")
    other.confirm_delivery()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker):
        other.basic_publish("gone", "x", b"nowhere")
    again = channel.connection.channel()
    again.basic_publish("", "after", b"later")


def fetched(channel: BlockingChannel, other: BlockingChannel) -> None:
    """basic.get, reject with requeue, nack without, and a message that is left."""
    channel.queue_declare("box")
    for body in (b"a", b"b", b"c"):
        other.confirm_delivery() if body == b"a" else None
        other.basic_publish("", "box", body)
    method, _, _ = channel.basic_get("box")
    channel.basic_reject(method.delivery_tag, requeue=True)
    method, _, _ = channel.basic_get("box")
    channel.basic_ack(method.delivery_tag)
    method, _, _ = channel.basic_get("box")
    channel.basic_nack(method.delivery_tag, requeue=False)


def one_at_a_time(channel: BlockingChannel, other: BlockingChannel) -> None:
    """A consumer with a prefetch limit that never acknowledges: the second message waits."""
    got: list[Any] = []
    channel.queue_declare("slow")
    channel.basic_qos(prefetch_count=1)
    channel.basic_consume("slow", lambda c, m, p, b: got.append(b))
    other.confirm_delivery()
    other.basic_publish("", "slow", b"first")
    other.basic_publish("", "slow", b"second")
    wait(channel, got, 1)


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (direct_and_headers, {"published": 5, "delivered": 4, "acknowledged": 4, "undelivered": {}}),
        (server_named, {"published": 1, "delivered": 1, "acknowledged": 0, "undelivered": {}}),
        (returned, {"published": 2, "returned": 1, "returned_recorded": 1, "undelivered": {}}),
        (channel_error, {"channel_errors": 1, "channel_errors_recorded": 1, "undelivered": {"after": 1}}),
        (fetched, {"published": 3, "delivered": 3, "acknowledged": 3, "undelivered": {"box": 1}}),
        # At the end the consumer goes, and what it never acknowledged is in the queue again.
        (one_at_a_time, {"published": 2, "delivered": 1, "acknowledged": 0, "undelivered": {"slow": 2}}),
    ],
)
def test_a_session_is_replayed_as_it_was(
    rabbit: RabbitMQ,
    session: Callable[[BlockingChannel, BlockingChannel], None],
    expected: dict[str, Any],
    tmp_path: Path,
) -> None:
    first = record(rabbit.port, session, tmp_path)
    clean(rabbit)
    # Replayed through a relay, the replay itself is a recording.
    relay = Relay(rabbit.port)
    url = rabbit.url().replace(str(rabbit.port), str(relay.port))
    command = [sys.executable, "-m", "tracer", "replay", str(first), "--amqp", url]
    done = subprocess.run(
        [*command, "--speed", "max", "--format", "json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert {name: summary["amqp"][name] for name in expected} == expected
    assert (summary["left_out"], summary["amqp"]["not_delivered"], summary["amqp"]["unasked"]) == ({}, 0, 0)
    (tmp_path / "again").mkdir()
    was, now = messages(first), messages(relay.write(tmp_path / "again"))
    own = [each for each in published(now) if each[1] != "tracer-replay.names"]
    assert [renamed(each) for each in own] == [renamed(each) for each in published(was)]
    assert {
        k.replace("replayed.gen-", "amq.gen-"): [b for *_, b in v] for k, v in delivered(now).items()
    } == {k: [b for *_, b in v] for k, v in delivered(was).items()}
    assert rabbit.ctl("-q", "list_queues", "name") == ""


@pytest.mark.long
def test_a_broker_that_dies_is_said_and_what_is_left_is_cleared_away_later(rabbit: RabbitMQ) -> None:
    command = [sys.executable, "-m", "tracer", "replay", "example:ok-image", "--amqp", rabbit.url()]
    with queue_made(rabbit, "tracer-replay.names") as wait:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait()
    rabbit.kill()
    output, errors = process.communicate(timeout=60)
    rabbit.start()
    assert (process.returncode, output) == (2, "")
    assert "the next replay clears it away" in errors and errors.count("\n") == 1
    assert "tracer-replay.names" in rabbit.ctl("-q", "list_queues", "name")
    again = [*command[:4], "example:fail-scheduler-down", "--speed", "max", "--amqp", rabbit.url()]
    done = subprocess.run(again, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert rabbit.ctl("-q", "list_queues", "name") == ""


def test_a_declaration_that_ends_the_connection_is_said(rabbit: RabbitMQ) -> None:
    """An exchange of a type that only a plugin of the recorded broker knew."""
    plan = Plan()
    plan.broker.exchanges["delayed"] = Exchange("x-no-such-type")
    parameters, where = broker_at(rabbit.url())
    onto = OntoBroker(parameters, AmqpSummary(where), plan, Counter(), force=False, keep=False)
    try:
        with pytest.raises(SourceError, match=r"exchange type .*the next replay clears it away"):
            onto.open()
    finally:
        onto.close()
        with pika.BlockingConnection(pika.URLParameters(rabbit.url())) as connection:
            connection.channel().queue_delete(LEDGER)


def renamed(message: tuple[str, str, bytes, bytes]) -> tuple[str, str, bytes, bytes]:
    """Names that the broker gave are replaced: nobody else may use them."""
    exchange, key, properties, body = message
    return exchange, key.replace("amq.gen-", "replayed.gen-"), properties, body


def record(port: int, session: Callable[[BlockingChannel, BlockingChannel], None], folder: Path) -> Path:
    relay = Relay(port)
    parameters = pika.ConnectionParameters("127.0.0.1", relay.port)
    ends = [pika.BlockingConnection(parameters) for _ in range(2)]
    session(ends[0].channel(), ends[1].channel())
    for end in ends:
        end.close()
    return relay.write(folder)


def clean(rabbit: RabbitMQ) -> None:
    with pika.BlockingConnection(pika.URLParameters(rabbit.url())) as connection:
        channel = connection.channel()
        for queue in ("work", "box", "slow", "after"):
            channel.queue_delete(queue)
        for exchange in ("jobs", "empty"):
            channel.exchange_delete(exchange)
