"""How many firehose messages a second a watch takes, beside bare consumers of the same library.

    python tests/benchmarks/firehose_rate.py [messages]

A RabbitMQ of its own, its firehose on. Each consumer connects, and is held while recorded messages are
published and delivered on the broker; then it reads what has piled up. What it takes a second is the rate
above which its queue begins to grow. The bare consumers only count messages; the watch does all it does.
Goal: at least half of the faster bare one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [
    str(HERE.parent),
    str(HERE.parent / "examples" / "small_cloud"),
    str(HERE.parent.parent),
]

import pika  # noqa: E402
from lab.brokered import recorded  # noqa: E402
from lab.brokers import RabbitMQ as Broker  # noqa: E402
from lab.brokers import broker  # noqa: E402

from tracer.engine import Settings  # noqa: E402
from tracer.live.run import open_watch  # noqa: E402
from tracer.model import AmqpContent  # noqa: E402

CAPTURE = HERE.parent.parent / "captures" / "ok-concurrent-20"
MESSAGES = 10_000


def publish(url: str, count: int) -> None:
    """Publish *count* recorded messages; another connection takes them. Runs in a process of its own."""
    bodies = [
        m.body.replace(b'"_unique_id', b'"_unique_id')
        for m in recorded(next(CAPTURE.glob("Internal_base*")))
        if isinstance(m, AmqpContent) and m.name == "basic.publish"
    ]
    sink = pika.BlockingConnection(pika.URLParameters(url))
    taken = sink.channel()
    taken.exchange_declare("nova", exchange_type="topic")
    taken.queue_declare("conductor")
    taken.queue_bind("conductor", "nova", "conductor")
    got = 0

    def take(*_: Any) -> None:
        nonlocal got
        got += 1

    taken.basic_consume("conductor", take, auto_ack=True)
    source = pika.BlockingConnection(pika.URLParameters(url))
    out = source.channel()
    for number in range(count):
        out.basic_publish("nova", "conductor", bodies[number % len(bodies)])
        if number % 100 == 0:
            sink.process_data_events(0)
    while got < count:
        sink.process_data_events(0.1)
    source.close()
    taken.queue_delete("conductor")
    sink.close()


def blocking(url: str, load: Callable[[], None], total: int) -> float:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    queue = _bound(channel)
    got = 0

    def take(*_: Any) -> None:
        nonlocal got
        got += 1
        if got == total:
            channel.stop_consuming()

    channel.basic_consume(queue, take, auto_ack=True)
    load()
    begun_s = time.perf_counter()
    channel.start_consuming()
    passed_s = time.perf_counter() - begun_s
    connection.close()
    return total / passed_s


def select(url: str, load: Callable[[], None], total: int) -> float:
    got = 0
    begun_s = passed_s = 0.0

    def take(*_: Any) -> None:
        nonlocal got, passed_s
        got += 1
        if got == total:
            passed_s = time.perf_counter() - begun_s
            connection.close()

    def opened(channel: Any) -> None:
        def loaded(_: Any) -> None:
            nonlocal begun_s
            load()
            begun_s = time.perf_counter()

        def declared(frame: Any) -> None:
            queue = frame.method.queue
            channel.queue_bind(queue, "amq.rabbitmq.trace", "publish.#")
            channel.queue_bind(queue, "amq.rabbitmq.trace", "deliver.#")
            channel.basic_consume(queue, take, auto_ack=True, callback=loaded)

        channel.queue_declare("", exclusive=True, callback=declared)

    connection = pika.SelectConnection(
        pika.URLParameters(url),
        on_open_callback=lambda c: c.channel(on_open_callback=opened),
        on_close_callback=lambda c, _: c.ioloop.stop(),
    )
    connection.ioloop.start()
    return total / passed_s


def watch(url: str, load: Callable[[], None], total: int) -> float:
    run = open_watch([], Settings(), lambda event: None, brokers=[url])
    load()
    thread = threading.Thread(target=run.run, daemon=True)
    begun_s = time.perf_counter()
    thread.start()
    capture = run.captures[0]
    while capture.packets + sum(source.dropped for source in run._sources) < total:
        time.sleep(0.005)
    passed_s = time.perf_counter() - begun_s
    run.stop()
    thread.join()
    lost = sum(source.dropped for source in run._sources)
    assert not lost, f"{lost} messages did not fit into the queue: take fewer"
    return total / passed_s


def _bound(channel: Any) -> str:
    queue = str(channel.queue_declare("", exclusive=True).method.queue)
    for key in ("publish.#", "deliver.#"):
        channel.queue_bind(queue, "amq.rabbitmq.trace", key)
    return queue


def main(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as running:
        running.ctl("trace_on")
        rates = {name: _best(run, running, count) for name, run in CONSUMERS.items()}
    for name, rate in rates.items():
        print(f"{name:<24} {rate:8,.0f} messages/s")
    bare = max(rate for name, rate in rates.items() if name != "tracer watch --amqp")
    print(f"{rates['tracer watch --amqp'] / bare:.2f} of the faster bare consumer (goal: 0.50)")


CONSUMERS = {
    "pika BlockingConnection": blocking,
    "pika SelectConnection": select,
    "tracer watch --amqp": watch,
}


def _best(run: Callable[[str, Callable[[], None], int], float], running: Broker, count: int) -> float:
    command = [sys.executable, __file__, "publish", running.url(), str(count)]
    return max(run(running.url(), lambda: subprocess.run(command, check=True), 2 * count) for _ in range(3))  # type: ignore[arg-type,return-value]


if __name__ == "__main__":
    if sys.argv[1:2] == ["publish"]:
        publish(sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES)
