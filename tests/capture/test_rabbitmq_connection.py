"""What tracer.capture.rabbitmq.connection uses of pika's private parts is there and means what it meant.

pika has no public way to read a connection's bytes. When one of these tests fails, a release of pika has
changed what `FirehoseConnection` overrides: the firehose still works, but each message costs pika's objects.
"""

from __future__ import annotations

import inspect
import socket
import threading

import pika
from pika.adapters.base_connection import BaseConnection
from pika.adapters.utils import io_services_utils

from tracer.capture.rabbitmq.connection import RECEIVE_BYTES, FirehoseConnection

OURS = f"tracer.capture.rabbitmq.connection must follow pika {pika.__version__}"
SENT_BYTES = 200_000


def test_pika_has_the_methods_that_we_override() -> None:
    for name, parameter in (("_proto_connection_made", "transport"), ("_proto_data_received", "data")):
        method = vars(BaseConnection).get(name)
        assert method is not None, f"{OURS}: BaseConnection.{name} is gone"
        assert list(inspect.signature(method).parameters) == ["self", parameter], f"{OURS}: {name}"


def test_pika_s_transports_have_the_size_that_we_set() -> None:
    transports = [
        each
        for name, each in vars(io_services_utils).items()
        if inspect.isclass(each) and name.startswith("_Async") and name.endswith("Transport")
    ]
    assert transports, f"{OURS}: io_services_utils has no transports"
    for each in transports:
        size_bytes = getattr(each, "_MAX_RECV_BYTES", None)
        assert size_bytes is not None, f"{OURS}: {each.__name__}._MAX_RECV_BYTES is gone"
        assert size_bytes < RECEIVE_BYTES, f"{OURS}: pika reads {size_bytes} bytes at once by itself"


class Seen:
    """Stands for `Deliveries`: counts what comes, and leaves nothing for pika."""

    def __init__(self, connection: FirehoseConnection) -> None:
        self.connection = connection
        self.sizes: list[int] = []

    def receive(self, data: bytes) -> bytes:
        self.sizes.append(len(data))
        if sum(self.sizes) >= SENT_BYTES:
            self.connection.ioloop.stop()
        return b""


def test_pika_hands_over_what_it_receives_in_large_pieces() -> None:
    """Over a socket: the bytes come to our method, and more of them at once than pika's own 4 KiB."""

    def answer() -> None:
        client, _ = listening.accept()
        with client:
            client.recv(8)
            client.sendall(bytes(SENT_BYTES))
            client.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, daemon=True).start()

        def ended(connection: FirehoseConnection, _: object) -> None:
            connection.ioloop.stop()

        connection = FirehoseConnection(
            pika.ConnectionParameters(*listening.getsockname()[:2]), None, ended, ended
        )
        seen = Seen(connection)
        connection.deliveries = seen  # type: ignore[assignment]
        connection.ioloop.call_later(10, connection.ioloop.stop)
        connection.ioloop.start()
    assert sum(seen.sizes) == SENT_BYTES, f"{OURS}: bytes pass by FirehoseConnection._proto_data_received"
    assert max(seen.sizes) > 4096, f"{OURS}: _MAX_RECV_BYTES does not say how much is read at once"
