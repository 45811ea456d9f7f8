"""Recorded AMQP onto a real RabbitMQ: what the firehose sees there is what was recorded."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pika
import pytest
from lab.brokers import RabbitMQ, needs_broker, queue_made
from lab.recorded import CAPTURES, ROOT, delivered, messages, published
from lab.relay import Relay

from tracer import engine
from tracer.engine import Settings

pytestmark = needs_broker
OWN = {"tracer-replay.names", "tracer-replay.running"}


@pytest.fixture(scope="module", autouse=True)
def traced(rabbit: RabbitMQ) -> None:
    """Switch the firehose of the broker on."""
    rabbit.ctl("trace_on")


def replay(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tracer", "replay", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def client(rabbit: RabbitMQ) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(rabbit.url()))


class Firehose:
    """All that passes the broker while it is open."""

    def __init__(self, rabbit: RabbitMQ) -> None:
        self.connection = client(rabbit)
        self.channel = self.connection.channel()
        self.queue = self.channel.queue_declare("", exclusive=True).method.queue
        for key in ("publish.#", "deliver.#"):
            self.channel.queue_bind(self.queue, "amq.rabbitmq.trace", key)

    def taken(self) -> list[tuple[str, str, str, dict[str, Any], bytes]]:
        """(publish or deliver, name of exchange or queue, routing key, properties, body), in order."""
        found = []
        for method, properties, body in self.channel.consume(self.queue, auto_ack=True, inactivity_timeout=2):
            if method is None:
                break
            kind, _, name = method.routing_key.partition(".")
            if name not in OWN and not set(properties.headers["routing_keys"]) & OWN:
                key = properties.headers["routing_keys"][0]
                found.append((kind, name, key, properties.headers["properties"], body))
        self.connection.close()
        return found


def names(rabbit: RabbitMQ) -> set[str]:
    """The queues and exchanges on the broker that are not its own."""
    found = (
        rabbit.ctl("-q", "list_queues", "name").split() + rabbit.ctl("-q", "list_exchanges", "name").split()
    )
    return {name for name in found if name != "name" and not name.startswith("amq.")}


@pytest.mark.parametrize(
    ("name", "undelivered"),
    [
        pytest.param("ok-image", {}, marks=pytest.mark.long),
        ("fail-scheduler-down", {"scheduler": 1}),
        pytest.param("fail-conductor-down", {"conductor": 5}, marks=pytest.mark.long),
    ],
)
def test_the_broker_sees_what_was_recorded(rabbit: RabbitMQ, name: str, undelivered: dict[str, int]) -> None:
    recorded = messages(CAPTURES / name)
    firehose = Firehose(rabbit)
    done = replay(f"example:{name}", "--speed", "max", "--format", "json", "--amqp", rabbit.url())
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    seen = firehose.taken()
    expected = published(recorded)
    assert [(exchange, key, body) for kind, exchange, key, _, body in seen if kind == "publish"] == [
        (exchange, key, body) for exchange, key, _, body in expected
    ]
    wanted = delivered(recorded)
    found: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for kind, queue, key, _, body in seen:
        if kind == "deliver":
            found[queue.partition("_replayed")[0]].append((key, body))
    assert dict(found) == {queue: [(key, body) for _, key, body in those] for queue, those in wanted.items()}
    amqp = summary["amqp"]
    assert amqp["undelivered"] == undelivered
    assert (amqp["published"], amqp["delivered"]) == (len(expected), sum(map(len, wanted.values())))
    assert (amqp["not_delivered"], amqp["unasked"], amqp["supplied"], amqp["channel_errors"]) == (0, 0, 0, 0)
    assert names(rabbit) == set()


def test_properties_are_the_recorded_bytes(rabbit: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of each message through the exchange nova, its properties caught before pika decodes them."""
    recorded = messages(CAPTURES / "fail-quota-403")
    expected = [raw for exchange, _, raw, _ in published(recorded) if exchange == "nova"]
    with client(rabbit) as connection:
        channel = connection.channel()
        channel.exchange_declare("nova", "topic")
        channel.queue_declare("copies", exclusive=True)
        channel.queue_bind("copies", "nova", "#")
        done = replay("example:fail-quota-403", "--speed", "max", "--force", "--amqp", rabbit.url())
        assert done.returncode == 0, done.stderr
        raw: list[bytes] = []
        decode = pika.BasicProperties.decode
        monkeypatch.setattr(
            pika.BasicProperties,
            "decode",
            lambda self, encoded, offset=0: raw.append(encoded[offset:]) or decode(self, encoded, offset),
        )
        while channel.basic_get("copies", auto_ack=True)[0] is not None:
            pass
        assert raw == expected and len(raw) > 10
        channel.exchange_delete("nova")
    assert "1 of the names existed before (--force) and are kept" in done.stdout


@pytest.mark.parametrize(
    "name",
    [
        "ok-image",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("fail-scheduler-down", "fail-conductor-down", "ok-volume")
        ),
    ],
)
def test_a_capture_of_the_replay_shows_the_same_rpc(rabbit: RabbitMQ, name: str, tmp_path: Path) -> None:
    """Who called whom, what, in which order and with which result, as `tracer calls` tells of both."""
    relay = Relay(rabbit.port)
    url = rabbit.url().replace(str(rabbit.port), str(relay.port))
    assert replay(f"example:{name}", "--speed", "max", "--amqp", url).returncode == 0
    again = relay.write(tmp_path)
    assert rpc(str(again)) == rpc(str(CAPTURES / name))


def rpc(capture: str) -> list[tuple[str, str, str, str]]:
    return [
        (call.caller, call.callee, call.operation, call.result)
        for call in engine.calls([capture], Settings())
        if call.protocol == "RPC" and call.queue not in OWN
    ]


def test_a_broker_with_such_names_is_refused_and_left_as_it_was(rabbit: RabbitMQ) -> None:
    with client(rabbit) as connection:
        channel = connection.channel()
        channel.queue_declare("scheduler")
        channel.exchange_declare("nova", "topic")
        channel.basic_publish("", "scheduler", b"the cloud's own")
        try:
            before = names(rabbit)
            done = replay("example:fail-scheduler-down", "--speed", "max", "--amqp", rabbit.url())
            assert (done.returncode, done.stdout) == (2, "")
            assert "exchange nova, queue scheduler" in done.stderr and done.stderr.count("\n") == 1
            assert names(rabbit) == before == {"nova", "scheduler"}
            forced = replay(
                "example:fail-scheduler-down", "--speed", "max", "--force", "--amqp", rabbit.url()
            )
            assert forced.returncode == 0
            # Forced, it uses what is there and deletes nothing of it.
            assert names(rabbit) == before
            bodies = [channel.basic_get("scheduler", auto_ack=True)[2] for _ in range(3)]
            assert (
                bodies[0] == b"the cloud's own" and b"select_destinations" in bodies[1] and bodies[2] is None
            )
        finally:
            channel.queue_delete("scheduler")
            channel.exchange_delete("nova")


def test_what_is_kept_is_cleared_away_by_the_next_replay(rabbit: RabbitMQ) -> None:
    first = replay("example:fail-scheduler-down", "--speed", "max", "--keep", "--amqp", rabbit.url())
    assert first.returncode == 0 and "is kept" in first.stdout
    assert {"scheduler", "conductor", "nova", "tracer-replay.names"} <= names(rabbit)
    with client(rabbit) as connection:
        channel = connection.channel()
        kept = channel.basic_get("scheduler")
        assert b"select_destinations" in kept[2]
    second = replay("example:fail-conductor-down", "--speed", "max", "--amqp", rabbit.url())
    assert (second.returncode, second.stderr) == (0, "")
    assert names(rabbit) == set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_replay_that_is_ended_leaves_nothing_for_long(rabbit: RabbitMQ, number: int) -> None:
    command = [sys.executable, "-m", "tracer", "replay", "example:ok-image", "--amqp", rabbit.url()]
    with queue_made(rabbit, "tracer-replay.names") as wait:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        wait()
    # Meanwhile no other may begin.
    other = replay("example:fail-scheduler-down", "--speed", "max", "--amqp", rabbit.url())
    assert (other.returncode, other.stdout) == (2, "") and "another replay" in other.stderr
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert (process.returncode, errors) == (0, "") and "stopped before the end" in output
    else:
        assert process.returncode == -signal.SIGKILL
        assert names(rabbit) - {"tracer-replay.running"} != set()
        again = replay("example:fail-scheduler-down", "--speed", "max", "--amqp", rabbit.url())
        assert (again.returncode, again.stderr) == (0, "")
    assert names(rabbit) == set()


def test_a_dry_run_does_not_ask_the_broker() -> None:
    done = replay("example:ok-image", "--dry-run", "--amqp", "amqp://guest:hidden@127.0.0.1:1/")
    assert (done.returncode, done.stderr) == (0, "")
    assert "16 exchanges, 32 queues" in done.stdout and "129 messages published" in done.stdout
    assert "nothing was sent" in done.stdout and "hidden" not in done.stdout


def test_the_pace_is_kept(rabbit: RabbitMQ) -> None:
    begun_s = time.monotonic()
    done = replay("example:fail-scheduler-down", "--speed", "6", "--format", "json", "--amqp", rabbit.url())
    summary = json.loads(done.stdout)
    assert time.monotonic() - begun_s > 17.1 / 6 > 2
    assert summary["recorded_s"] == pytest.approx(17.1, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--amqp", "amqp://guest:hidden@127.0.0.1:1/"], "no connection to the broker: Connection refused"),
        (["--amqp", "amqp://guest:hidden@nowhere.invalid/"], "no such host"),
        (["--amqp", "http://guest:hidden@127.0.0.1/"], "begins with amqp://"),
        (["--amqp", "amqp://guest:hidden@127.0.0.1:x/"], "that is no URL"),
        (["--amqp", "amqp://"], "names no host"),
        (["--amqp", "amqp://guest:12/hidden@127.0.0.1/"], "as %2F"),
        (["--amqp", "amqp://guest:hidden@a..b/"], "that is no URL"),
        (["--amqp", "amqp://guest:hidden@127.0.0.1:1/?ssl_options=("], "Connection refused"),
        (["--force"], "--force: no target given"),
        (["--dry-run"], "--dry-run: no target given"),
        (["--format", "json"], "--format json"),
        (["--keep", "--rest", "sc=http://localhost:1"], "--keep: only with --amqp"),
        (["--format", "view", "--amqp", "amqp://guest:hidden@127.0.0.1:1/"], "the formats are text and json"),
    ],
)
def test_a_mistake_is_one_line_and_2_without_the_password(arguments: list[str], words: str) -> None:
    done = replay("example:fail-scheduler-down", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr and done.stderr.count("\n") == 1 and "hidden" not in done.stderr


def test_a_wrong_password_is_said_and_not_told(rabbit: RabbitMQ) -> None:
    url = rabbit.url().replace("guest:guest", "guest:hidden")
    done = replay("example:fail-scheduler-down", "--amqp", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "refuses this user and password" in done.stderr and "hidden" not in done.stderr


def test_a_capture_without_amqp() -> None:
    done = replay("example:fail-400", "--amqp", "amqp://127.0.0.1:1/")
    assert (done.returncode, done.stdout) == (2, "") and "hold no AMQP" in done.stderr


def test_standard_input_cannot_be_read_twice() -> None:
    done = replay("-", "--amqp", "amqp://127.0.0.1:1/")
    assert (done.returncode, done.stdout) == (2, "") and "save the stream to a file" in done.stderr
