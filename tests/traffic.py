"""Traffic made to measure: conversations of HTTP, AMQP and MySQL as packets, seen at capture points.

What is said is collected first and cut into TCP segments when it is written, in order of time, so that
conversations of one connection may be told in any order. Times are seconds since T0; no clock is read.

    network = Network()
    web = network.connection("10.0.0.1", "10.0.0.2", 8774, at=0)
    web.say(0.1, request("GET", "/"))
    web.hear(0.2, response(200))
    network.write(folder)                      # -> the files, one for each capture point
"""

from __future__ import annotations

import ipaddress
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pika.frame
import pika.spec

T0_NS = 1_795_330_000_000_000_000
"""2026-11-22T06:46:40Z"""
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MSS = 1448

Json = Any


# --- packets ----------------------------------------------------------------------------------------


def frame(
    source: tuple[str, int],
    destination: tuple[str, int],
    flags: int,
    seq: int = 0,
    ack: int = 0,
    payload: bytes = b"",
    ip_id: int = 1,
) -> bytes:
    """One Ethernet frame with a TCP segment in it."""
    tcp = struct.pack(
        "!HHIIBBHHH",
        source[1],
        destination[1],
        seq & 0xFFFFFFFF,
        ack & 0xFFFFFFFF,
        5 << 4,
        flags,
        65535,
        0,
        0,
    )
    a, b = _packed(source[0]), _packed(destination[0])
    if len(a) == 16:
        ip = struct.pack("!IHBB", 6 << 28, 20 + len(payload), 6, 64) + a + b
        return bytes(12) + b"\x86\xdd" + ip + tcp + payload
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 40 + len(payload), ip_id & 0xFFFF, 0, 64, 6, 0) + a + b
    return bytes(12) + b"\x08\x00" + ip + tcp + payload


@lru_cache
def _packed(address: str) -> bytes:
    return ipaddress.ip_address(address).packed


def pcap(packets: Iterable[tuple[int, bytes]]) -> bytes:
    """A pcap file with nanoseconds."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)]
    for time_ns, data in packets:
        parts += (struct.pack("<4I", *divmod(time_ns, 1_000_000_000), len(data), len(data)), data)
    return b"".join(parts)


@dataclass(eq=False)
class Connection:
    """One TCP connection; `say` is what its client sends, `hear` what it gets."""

    network: Network
    client: tuple[str, int]
    server: tuple[str, int]
    points: tuple[str, ...] | None = None
    """Where it is seen; None: where the network's rule says."""

    def say(self, at: float, data: bytes, *, lost: bool = False) -> None:
        """Data to the server; *lost*: it was sent, and no capture point saw it."""
        self.network.events.append((at, self, 0, PSH | ACK, data, lost))

    def hear(self, at: float, data: bytes, *, lost: bool = False) -> None:
        self.network.events.append((at, self, 1, PSH | ACK, data, lost))

    def close(self, at: float, how: int = FIN | ACK, by: int = 1) -> None:
        """Both sides close; with RST only one says so."""
        self.network.events.append((at, self, by, how, b"", False))
        if how & FIN:
            self.network.events.append((at + 0.00002, self, 1 - by, how, b"", False))


class Network:
    """All connections, and the capture points that see them.

    *points_of* gives the names of the capture points that a packet between two addresses passes.
    """

    def __init__(self, points_of: Callable[[str, str], Sequence[str]] = lambda a, b: ("all",)) -> None:
        self.points_of = points_of
        self.events: list[tuple[float, Connection, int, int, bytes, bool]] = []
        self._ports = 40_000

    def connection(
        self,
        client: str,
        server: str,
        port: int,
        at: float | None = None,
        points: Sequence[str] | None = None,
        client_port: int = 0,
    ) -> Connection:
        """A connection that is opened at *at*, or was open before the capture."""
        self._ports += 1
        made = Connection(
            self,
            (client, client_port or self._ports),
            (server, port),
            None if points is None else tuple(points),
        )
        if at is not None:
            self.events += [
                (at, made, 0, SYN, b"", False),
                (at + 0.00001, made, 1, SYN | ACK, b"", False),
                (at + 0.00002, made, 0, ACK, b"", False),
            ]
        return made

    def refuse(
        self, at: float, client: str, server: str, port: int, points: Sequence[str] | None = None
    ) -> None:
        """A connection that the server's host answers with RST."""
        made = self.connection(client, server, port, points=points)
        self.events += [(at, made, 0, SYN, b"", False), (at + 0.00005, made, 1, RST | ACK, b"", False)]

    def ignore(self, at: float, client: str, server: str, port: int, tries: int = 3) -> None:
        """A connection attempt that is answered by nothing."""
        made = self.connection(client, server, port)
        self.events += [(at + 2**n - 1, made, 0, SYN, b"", False) for n in range(tries)]

    def packets(self) -> dict[str, list[tuple[int, bytes]]]:
        """Capture point -> (time, frame), in order of time."""
        seen: dict[str, list[tuple[int, bytes]]] = {}
        following: dict[Connection, list[int]] = {}
        ip_id = 0
        for at, made, side, flags, data, lost in sorted(self.events, key=lambda event: event[0]):
            ends, seqs = (made.client, made.server), following.setdefault(made, [1_000_001, 5_000_001])
            time_ns = T0_NS + round(at * 1e9)
            points = made.points if made.points is not None else self.points_of(ends[0][0], ends[1][0])
            for start in range(0, max(1, len(data)), MSS):
                piece = data[start : start + MSS]
                ip_id += 1
                seq = seqs[side] - (1 if flags & SYN else 0)
                shown = frame(ends[side], ends[1 - side], flags, seq, seqs[1 - side], piece, ip_id)
                seqs[side] += len(piece) + (1 if flags & FIN else 0)
                for number, point in enumerate(() if lost else points):
                    seen.setdefault(point, []).append((time_ns + start + number * 4000, shown))
        return {point: sorted(packets, key=lambda packet: packet[0]) for point, packets in seen.items()}

    def write(self, folder: Path) -> list[str]:
        """Write one pcap file for each capture point; return their paths."""
        paths = []
        for point, packets in sorted(self.packets().items()):
            path = folder / f"{point}.pcap"
            path.write_bytes(pcap(packets))
            paths.append(str(path))
        return paths


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
    """An HTTP/1.1 request; a *body* that is no bytes becomes JSON."""
    return _head(f"{method} {target} HTTP/1.1", headers or {}, _body(body), "application/json")


def response(status: int, headers: dict[str, str] | None = None, body: Json = None) -> bytes:
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
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


# --- AMQP and oslo.messaging ------------------------------------------------------------------------


def method(spec: Any, channel: int = 1) -> bytes:
    return bytes(pika.frame.Method(channel, spec).marshal())


def content(spec: Any, body: bytes, channel: int = 1) -> bytes:
    """A method with content: its frame, header and body frames of at most 128 KB."""
    properties = pika.spec.BasicProperties(content_type="application/json", content_encoding="utf-8")
    parts = [method(spec, channel), pika.frame.Header(channel, len(body), properties).marshal()]
    parts += [
        pika.frame.Body(channel, body[at : at + 131_064]).marshal() for at in range(0, len(body), 131_064)
    ]
    return b"".join(parts)


def publish(exchange: str, key: str, body: bytes, mandatory: bool = False) -> bytes:
    return content(pika.spec.Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory), body)


def deliver(exchange: str, key: str, body: bytes, tag: int, redelivered: bool = False) -> bytes:
    return content(pika.spec.Basic.Deliver("1", tag, redelivered, exchange, key), body)


def returned(exchange: str, key: str, body: bytes, code: int = 312, text: str = "NO_ROUTE") -> bytes:
    return content(pika.spec.Basic.Return(code, text, exchange, key), body)


def ack(tag: int, multiple: bool = False) -> bytes:
    return method(pika.spec.Basic.Ack(tag, multiple))


def nack(tag: int, requeue: bool = False) -> bytes:
    return method(pika.spec.Basic.Nack(tag, False, requeue))


def pid_of(program: str) -> int:
    """The process id under which *program* runs in these captures."""
    return zlib.crc32(program.encode()) % 9000


def amqp_set_up(made: Connection, at: float, program: str, queues: Sequence[str] = ()) -> None:
    """Handshake, one channel, and the queues consumed on it (or confirms asked for)."""
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
    if not queues:
        made.say(next(step), method(spec.Confirm.Select()))
        made.hear(next(step), method(spec.Confirm.SelectOk()))
    for queue in queues:
        made.say(next(step), method(spec.Basic.Consume(queue=queue, consumer_tag=queue)))
        made.hear(next(step), method(spec.Basic.ConsumeOk(queue)))


def envelope(message: dict[str, Json]) -> bytes:
    """As oslo.messaging sends it: JSON in JSON."""
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def nova_object(name: str, **data: Json) -> dict[str, Json]:
    return {"nova_object.name": name, "nova_object.namespace": "nova", "nova_object.data": data}


# --- MySQL ------------------------------------------------------------------------------------------


def mysql_packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


def mysql_login(made: Connection, at: float, schema: str, **attributes: str) -> None:
    """Greeting, login with attributes, OK."""
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
    return mysql_packet(0, b"\x03" + text.encode())


def sql_ok() -> bytes:
    return mysql_packet(1, b"\x00\x01\x00\x02\x00\x00\x00")


def sql_error(code: int, text: str, state: str = "HY000") -> bytes:
    return mysql_packet(1, b"\xff" + struct.pack("<H", code) + b"#" + state.encode() + text.encode())


def sql_rows(*rows: str) -> bytes:
    """A result set of one column."""
    column = b"\x03def\x00\x00\x00\x01c\x00\x0c\x21\x00\x00\x01\x00\x00\xfd\x00\x00\x00\x00\x00"
    eof = b"\xfe\x00\x00\x02\x00"
    bodies = [b"\x01", column, eof, *(bytes([len(row)]) + row.encode() for row in rows), eof]
    return b"".join(mysql_packet(n, body) for n, body in enumerate(bodies, 1))
