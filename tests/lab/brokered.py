"""The AMQP of a recorded capture on a real broker again: its connections, exchanges, queues and consumers."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pika
from pika.adapters.utils import connection_workflow
from pika.exceptions import AMQPError

from tracer.capture import open_capture
from tracer.engine import Listeners, Settings, Stages, open_captures, read
from tracer.grammar import load
from tracer.model import AmqpContent, AmqpMethod, Capture, Connection
from tracer.topology import GivenTopology

AMQP = 5672
WAIT_S = 10.0


def recorded(path: Path) -> list[AmqpContent | AmqpMethod]:
    """All that AMQP says in the capture at *path*, in time order."""
    said: list[AmqpContent | AmqpMethod] = []
    opened = open_captures([str(path)], GivenTopology())
    listeners = Listeners({AmqpContent: said.append, AmqpMethod: said.append})
    stages = Stages(opened.captures, GivenTopology(), Settings(), load("cloudvm_create"), listeners=listeners)
    read(stages, opened)
    return sorted(said, key=lambda message: message.time_ns)


def packets_of(source: Path, wanted: Callable[[int, int], bool]) -> Iterator[tuple[int, int, bytes]]:
    """Yield time, length on the wire and bytes of those packets of *source* whose ports are *wanted*."""
    capture = Capture(0, str(source))
    for time_ns, data, wire, _, _, _ in chain.from_iterable(open_capture(str(source), capture)):
        if data[12:14] == b"\x08\x00" and data[23] == 6:
            ports = struct.unpack_from(">HH", data, 14 + (data[14] & 15) * 4)
            if wanted(*ports):
                yield time_ns, wire, data


def record(time_ns: int, wire: int, data: bytes) -> bytes:
    """One packet in a pcap file."""
    return struct.pack("<IIII", *divmod(time_ns, 1_000_000_000), len(data), wire) + data


HEAD = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 1 << 18, 1)
"""Of a pcap file: nanoseconds, Ethernet."""


def write_packets(source: Path, target: Path, wanted: Callable[[int, int], bool]) -> None:
    """Write those packets of *source* whose ports are *wanted*."""
    target.write_bytes(HEAD + b"".join(record(*packet) for packet in packets_of(source, wanted)))


class Clock:
    """When something recorded is due now: *first_ns* of the recording is *ahead_s* from here."""

    def __init__(self, first_ns: int, speed: float, ahead_s: float = 0.5) -> None:
        self._first_ns, self._speed = first_ns, speed
        self._begin_ns = time.time_ns() + int(ahead_s * 1e9)

    def due_ns(self, time_ns: int) -> int:
        return self._begin_ns + int((time_ns - self._first_ns) / self._speed)

    def wait(self, time_ns: int) -> None:
        left_ns = self.due_ns(time_ns) - time.time_ns()
        if left_ns > 0:
            time.sleep(left_ns / 1e9)


def pour(source: Path, pipe: Path, wanted: Callable[[int, int], bool], clock: Clock) -> None:
    """Send packets through *pipe* as they are due, with the time of now."""
    packets = list(packets_of(source, wanted))
    with pipe.open("wb", buffering=0) as file:
        file.write(HEAD)
        for time_ns, wire, data in packets:
            clock.wait(time_ns)
            file.write(record(clock.due_ns(time_ns), wire, data))


def is_amqp(source: int, destination: int) -> bool:
    return AMQP in (source, destination)


class Cloud:
    """The clients of a recorded cloud, connected to the broker at *url*, one after the other as recorded.

    What was delivered is consumed by the connection that consumed it, and acknowledged; what was not is left
    in its queue, and what no queue took has none.
    """

    def __init__(self, url: str, said: Sequence[AmqpContent | AmqpMethod]) -> None:
        self._url = url
        self._said = said
        self._clients: dict[int, Client] = {}
        self._arrived = 0
        self._delivered = {unique(m) for m in said if m.name == "basic.deliver"}
        self._returned = {unique(m) for m in said if m.name == "basic.return"}
        self.published = 0

    def connect(self) -> None:
        """Make exchanges, queues and consumers."""
        names = {
            m.connection.number: str(m.arguments.get("connection_name", ""))
            for m in self._said
            if m.name == "connection.start-ok"
        }
        for message in self._said:
            number = message.connection.number
            if isinstance(message, AmqpContent) and number not in self._clients:
                self._clients[number] = Client(self._url, message.connection, names.get(number, ""))
        for message in self._said:
            client = self._clients.get(message.connection.number)
            if client is None or not isinstance(message, AmqpContent):
                continue
            exchange, key = _where(message)
            if exchange:
                kind = "fanout" if exchange.endswith("_fanout") else "topic"
                client.channel.exchange_declare(exchange, exchange_type=kind)
            if message.name == "basic.deliver":
                client.consume(exchange, key, self._take)
            elif message.name == "basic.publish" and unique(message) not in self._delivered | self._returned:
                client.queue(exchange, key)

    def _take(self, channel: Any, method: Any, *_: Any) -> None:
        channel.basic_ack(method.delivery_tag)
        self._arrived += 1

    def play(self, begin: int = 0, end: int | None = None, clock: Clock | None = None) -> None:
        """Publish the messages from *begin* to *end*, at once or by *clock*.

        Each when the one before has arrived: what was asked for by a message comes behind it.
        """
        for message in self.to_publish()[begin:end]:
            while clock is not None and clock.due_ns(message.time_ns) > time.time_ns():
                self._serve()
            exchange, key = _where(message)
            before = self._arrived
            self._clients[message.connection.number].channel.basic_publish(exchange, key, message.body)
            self.published += 1
            until_s = time.monotonic() + WAIT_S
            while unique(message) in self._delivered and self._arrived == before:
                assert time.monotonic() < until_s, f"not delivered: {exchange} {key}"
                self._serve()

    def _serve(self) -> None:
        for each in self._clients.values():
            each.connection.process_data_events(0)

    def to_publish(self) -> list[AmqpContent]:
        """The messages, in their order."""
        return [m for m in self._said if isinstance(m, AmqpContent) and m.name == "basic.publish"]

    def close(self) -> None:
        """Leave the broker as it was."""
        for client in self._clients.values():
            # Of a broker that was killed nothing is left.
            with suppress(AMQPError):
                for name in client.queues:
                    client.channel.queue_delete(name)
                client.connection.close()


class Client:
    """One connection, from an address of the loopback network that ends like the recorded one."""

    def __init__(self, url: str, recorded: Connection, name: str) -> None:
        parameters = pika.URLParameters(url)
        if name:
            parameters.client_properties = {"connection_name": name}
        address = "127." + recorded.client.address.partition(".")[2]
        with _from(address):
            self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()
        self._consumed: set[tuple[str, str]] = set()
        self.queues: set[str] = set()

    def queue(self, exchange: str, key: str) -> str:
        name = key if not exchange.endswith("_fanout") else f"{exchange}_{id(self)}"
        self.channel.queue_declare(name)
        self.queues.add(name)
        if exchange:
            self.channel.queue_bind(name, exchange, key)
        return name

    def consume(self, exchange: str, key: str, take: Callable[..., None]) -> None:
        if (exchange, key) not in self._consumed:
            self._consumed.add((exchange, key))
            self.channel.basic_consume(self.queue(exchange, key), take)


class _from:
    """Connections that are made inside come from *address*, as those of different hosts do."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> None:
        self._socket = connection_workflow.socket.socket
        address = self._address

        class Bound(self._socket):  # type: ignore[misc,name-defined]
            def connect(self, target: Any) -> None:
                if target[0].startswith("127."):
                    self.bind((address, 0))
                super().connect(target)

        connection_workflow.socket.socket = Bound

    def __exit__(self, *_: object) -> None:
        connection_workflow.socket.socket = self._socket


def _where(message: AmqpContent) -> tuple[str, str]:
    return str(message.arguments.get("exchange", "")), str(message.arguments.get("routing_key", ""))


def unique(message: AmqpContent | AmqpMethod) -> tuple[str, str, bytes]:
    """What is the same in all that is said of one message."""
    if isinstance(message, AmqpMethod):
        return "", "", b""
    return (*_where(message), message.body)
