"""Encodes messages of services: HTTP/1.1, AMQP 0-9-1 with oslo.messaging, MySQL.

The bytes are those that a client or a server sends on one connection; `packets.Connection` makes packets of
them.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import pika.frame
import pika.spec

from tracer.testing.packets import Connection

Json = Any
"""A value that json.dumps encodes: dicts, lists, texts, numbers."""


# --- HTTP -------------------------------------------------------------------------------------------


def _body(body: Json) -> bytes:
    if body is None:
        return b""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _head(start: str, headers: dict[str, str], body: bytes, kind: str) -> bytes:
    named = {name.lower() for name in headers}
    if body and "content-type" not in named:
        headers = headers | {"Content-Type": kind}
    lines = [start, *(f"{name}: {value}" for name, value in headers.items()), f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def request(method: str, target: str, headers: dict[str, str] | None = None, body: Json = None) -> bytes:
    """Return an HTTP/1.1 request; a *body* that is not bytes is encoded as JSON."""
    return _head(f"{method} {target} HTTP/1.1", headers or {}, _body(body), "application/json")


def response(status: int, headers: dict[str, str] | None = None, body: Json = None) -> bytes:
    """Return an HTTP/1.1 response; a *body* that is not bytes is encoded as JSON, and 204 has none."""
    data = _body(body)
    if status == 204:
        return (
            b"HTTP/1.1 204 No Content\r\n"
            + b"".join(f"{name}: {value}\r\n".encode() for name, value in (headers or {}).items())
            + b"\r\n"
        )
    return _head(
        f"HTTP/1.1 {status} {_REASONS.get(status, 'Other')}", headers or {}, data, "application/json"
    )


_REASONS = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    300: "Multiple Choices",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


# --- AMQP and oslo.messaging ------------------------------------------------------------------------


def method(spec: Any, channel: int = 1) -> bytes:
    """Return the AMQP frame of pika's method object *spec*."""
    return bytes(pika.frame.Method(channel, spec).marshal())


def content(spec: Any, body: bytes, channel: int = 1, headers: Mapping[str, Any] | None = None) -> bytes:
    """Return a method with content: its frame, header and body frames of at most 128 KB."""
    properties = pika.spec.BasicProperties(
        content_type="application/json", content_encoding="utf-8", headers=headers or None
    )
    parts = [method(spec, channel), pika.frame.Header(channel, len(body), properties).marshal()]
    parts += [
        pika.frame.Body(channel, body[at : at + 131_064]).marshal() for at in range(0, len(body), 131_064)
    ]
    return b"".join(parts)


def publish(exchange: str, key: str, body: bytes, mandatory: bool = False) -> bytes:
    """Return a basic.publish with its content."""
    return content(pika.spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory), body)


def deliver(exchange: str, key: str, body: bytes, tag: int, redelivered: bool = False) -> bytes:
    """Return a basic.deliver with its content, for consumer 1."""
    return content(pika.spec.Basic.Deliver("1", tag, redelivered, exchange, key), body)


def returned(exchange: str, key: str, body: bytes, code: int = 312, text: str = "NO_ROUTE") -> bytes:
    """Return a basic.return with its content: a message that no queue took."""
    return content(pika.spec.Basic.Return(code, text, exchange, key), body)


def ack(tag: int, multiple: bool = False) -> bytes:
    """Return a basic.ack of delivery or publish *tag*."""
    return method(pika.spec.Basic.Ack(tag, multiple))


def nack(tag: int, requeue: bool = False) -> bytes:
    """Return a basic.nack of delivery or publish *tag*."""
    return method(pika.spec.Basic.Nack(tag, False, requeue))


def pid_of(program: str) -> int:
    """Return the process id of *program*, always the same for a name."""
    return zlib.crc32(program.encode()) % 9000


def amqp_set_up(
    made: Connection,
    at: float,
    program: str,
    queues: Sequence[str] | Mapping[str, Mapping[str, Any]] = (),
    *,
    confirms: bool = True,
) -> None:
    """Write handshake, one channel, and its consumers of *queues*; without queues, confirm.select.

    With a mapping, queue -> arguments, each queue is declared with them, and a stream is read from its end.
    """
    declared = queues if isinstance(queues, Mapping) else {}
    spec = pika.spec
    step = iter(at + 0.0001 * n for n in range(100))
    made.say(next(step), b"AMQP\x00\x00\x09\x01")
    made.hear(next(step), method(spec.Connection.Start(0, 9, {"product": "RabbitMQ"}, "PLAIN", "en_US"), 0))
    name = {"connection_name": f"{program}:{pid_of(program)}:aa"} if program else {}
    start_ok = spec.Connection.StartOk(
        {"product": "py-amqp", **name}, "PLAIN", "\0openstack\0broker-password", "en_US"
    )
    made.say(next(step), method(start_ok, 0))
    made.hear(next(step), method(spec.Connection.Tune(2047, 131072, 60), 0))
    made.say(next(step), method(spec.Connection.TuneOk(2047, 131072, 60), 0))
    made.say(next(step), method(spec.Connection.Open("/"), 0))
    made.hear(next(step), method(spec.Connection.OpenOk(), 0))
    made.say(next(step), method(spec.Channel.Open()))
    made.hear(next(step), method(spec.Channel.OpenOk()))
    if not queues and confirms:
        made.say(next(step), method(spec.Confirm.Select()))
        made.hear(next(step), method(spec.Confirm.SelectOk()))
    for queue in queues:
        offset = {}
        if queue in declared:
            arguments = dict(declared[queue])
            made.say(next(step), method(spec.Queue.Declare(queue=queue, durable=True, arguments=arguments)))
            made.hear(next(step), method(spec.Queue.DeclareOk(queue, 0, 0)))
            offset = {"x-stream-offset": "last"} if arguments.get("x-queue-type") == "stream" else {}
        consume = spec.Basic.Consume(queue=queue, consumer_tag=queue, arguments=offset)
        made.say(next(step), method(consume))
        made.hear(next(step), method(spec.Basic.ConsumeOk(queue)))


def envelope(message: dict[str, Json]) -> bytes:
    """Return *message* in the envelope of oslo.messaging 2.0: JSON in JSON."""
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def nova_object(name: str, **data: Json) -> dict[str, Json]:
    """Return a versioned object of nova as it is serialised in RPC arguments."""
    return {"nova_object.name": name, "nova_object.namespace": "nova", "nova_object.data": data}


# --- MySQL ------------------------------------------------------------------------------------------


def mysql_packet(number: int, body: bytes) -> bytes:
    """Return a MySQL packet: 3 bytes of length, sequence number, *body*."""
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def mysql_login(made: Connection, at: float, schema: str, **attributes: str) -> None:
    """Write greeting, login with connection attributes, and OK."""
    greeting = b"\x0a10.6.12-MariaDB\x00" + struct.pack("<I", 7) + b"abcdefgh\x00" + struct.pack("<H", 0xF7FE)
    greeting += b"\x21\x02\x00" + struct.pack("<H", 0x81BF) + b"\x15" + bytes(10) + b"ijklmnopqrst\x00"
    greeting += b"mysql_native_password\x00"
    flags = 0x00000200 | 0x00008000 | 0x00080000 | 0x00100000 | 0x00000008
    pairs = b"".join(bytes([len(text)]) + text.encode() for pair in attributes.items() for text in pair)
    login = struct.pack("<IIB", flags, 1 << 24, 33) + bytes(23) + b"nova\x00" + b"\x14" + b"\xee" * 20
    login += schema.encode() + b"\x00mysql_native_password\x00" + bytes([len(pairs)]) + pairs
    made.hear(at, mysql_packet(0, greeting))
    made.say(at + 0.0001, mysql_packet(1, login))
    made.hear(at + 0.0002, mysql_packet(2, b"\x00\x00\x00\x02\x00\x00\x00"))


def query(text: str) -> bytes:
    """Return a COM_QUERY packet."""
    return mysql_packet(0, b"\x03" + text.encode())


def sql_ok() -> bytes:
    """Return an OK packet: one affected row."""
    return mysql_packet(1, b"\x00\x01\x00\x02\x00\x00\x00")


def sql_error(code: int, text: str, state: str = "HY000") -> bytes:
    """Return an ERR packet."""
    return mysql_packet(1, b"\xff" + struct.pack("<H", code) + b"#" + state.encode() + text.encode())


def sql_rows(*rows: str) -> bytes:
    """Return a result set of one column."""
    column = b"\x03def\x00\x00\x00\x01c\x00\x0c\x21\x00\x00\x01\x00\x00\xfd\x00\x00\x00\x00\x00"
    eof = b"\xfe\x00\x00\x02\x00"
    bodies = [b"\x01", column, eof, *(bytes([len(row)]) + row.encode() for row in rows), eof]
    return b"".join(mysql_packet(n, body) for n, body in enumerate(bodies, 1))
