"""Made-up traffic of a cloud's three protocols, with every message's place in it known to the byte.

HTTP exchanges on keep-alive connections (a tenth of the answers chunked), AMQP contents in both
directions, MySQL queries: about 20,000 packets. A message has a number of its own, which the decoders'
output holds again, so a test can say not only how many messages came out but which.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pika.frame
import pika.spec

__all__ = ["Packet", "Place", "Traffic", "make", "whole", "write"]

MSS = 1448
START_NS = 1_700_000_000_000_000_000


class Place(NamedTuple):
    """Which bytes of a stream a message is."""

    kind: str
    number: int
    stream: tuple[int, str]
    """Connection and direction."""
    start: int
    stop: int


class Packet(NamedTuple):
    """One TCP segment; `at` is the place of its payload in its stream."""

    time_ns: int
    connection: int
    way: str
    at: int
    payload: bytes
    flags: int
    acked: int
    ip_id: int
    wire_bytes: int = 0
    """Of the payload, where the capture holds less."""


@dataclass
class Traffic:
    packets: list[Packet] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)


class _Talk:
    """One connection that is written."""

    def __init__(self, traffic: Traffic, clock: _Clock, number: int) -> None:
        self.traffic, self.clock, self.number = traffic, clock, number
        self.sent = {">": 0, "<": 0}
        self.written = {">": bytearray(), "<": bytearray()}
        self.coalesced = False
        for way, flags in ((">", 2), ("<", 18), (">", 16)):
            self._packet(way, b"", flags)

    def message(self, way: str, raw: bytes, kind: str = "", number: int = 0) -> None:
        """Write *raw*; it is sent at once, or, when coalesced, as soon as it fills segments."""
        written = self.written[way]
        if kind:
            place = Place(kind, number, (self.number, way), len(written), len(written) + len(raw))
            self.traffic.places.append(place)
        written += raw
        self.flush(way, MSS if self.coalesced else 1)

    def flush(self, way: str, least: int = 1) -> None:
        written = self.written[way]
        other = "<" if way == ">" else ">"
        while len(written) - self.sent[way] >= least:
            at = self.sent[way]
            payload = bytes(written[at : at + MSS])
            self._packet(way, payload, 24)
            self.sent[way] = at + len(payload)
            if self.clock.rng.random() < 0.4:
                self._packet(other, b"", 16)

    def close(self) -> None:
        for way in "><":
            self.flush(way)
            self._packet(way, b"", 17)

    def _packet(self, way: str, payload: bytes, flags: int) -> None:
        time_ns, ip_id = self.clock.tick()
        acked = self.sent["<" if way == ">" else ">"]
        self.traffic.packets.append(
            Packet(time_ns, self.number, way, self.sent[way], payload, flags, acked, ip_id)
        )


class _Clock:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now_ns = START_NS
        self.ip_id = 0

    def tick(self) -> tuple[int, int]:
        self.now_ns += self.rng.randrange(20_000, 400_000)
        self.ip_id = self.ip_id % 65_535 + 1
        return self.now_ns, self.ip_id


def make(*, coalesced: bool = False, size: float = 1.0, seed: int = 20) -> Traffic:
    """Return the traffic; *coalesced*: AMQP frames ignore the segments' edges, as behind a backlog."""
    traffic, clock = Traffic(), _Clock(seed)
    rng = clock.rng
    https = [_Talk(traffic, clock, n) for n in range(100, 160)]
    amqps = [_Talk(traffic, clock, n) for n in range(200, 250)]
    sqls = [_Talk(traffic, clock, n) for n in range(300, 312)]
    for talk in amqps:
        _open_amqp(talk)
        talk.coalesced = coalesced
    for talk in sqls:
        _open_mysql(talk)
    todo = ["http"] * int(781 * size) + ["amqp"] * int(738 * size) + ["sql"] * int(368 * size)
    rng.shuffle(todo)
    for number, kind in enumerate(todo, 1):
        if kind == "http":
            _exchange(rng.choice(https), number, rng)
        elif kind == "amqp":
            _content(rng.choice(amqps), ">", "publish", number, rng)
            _content(rng.choice(amqps), "<", "deliver", number, rng)
        else:
            _query(rng.choice(sqls), number, rng)
    for talk in (*https, *amqps, *sqls):
        talk.close()
    return traffic


def _text(rng: random.Random, size: int) -> str:
    return json.dumps({"blob": "".join(rng.choices("abcdef0123456789-_ ", k=size)), "list": [1, 2, None]})


def _exchange(talk: _Talk, number: int, rng: random.Random) -> None:
    if rng.random() < 0.3:
        body = _text(rng, rng.randrange(200, 6000)).encode()
        head = f"POST /v2.1/servers/{number} HTTP/1.1\r\nHost: nova\r\nContent-Length: {len(body)}\r\n\r\n"
    else:
        body = b""
        head = f"GET /v2.1/servers/{number} HTTP/1.1\r\nHost: nova\r\nAccept: application/json\r\n\r\n"
    talk.message(">", head.encode() + body, "request", number)
    body = _text(rng, rng.randrange(100, 12_000)).encode()
    head = f"HTTP/1.1 200 OK\r\nX-Number: {number}\r\nContent-Type: application/json\r\n"
    if rng.random() < 0.1:
        chunks = [body[at : at + 4000] for at in range(0, len(body), 4000)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
        head += "Transfer-Encoding: chunked\r\n\r\n"
    else:
        head += f"Content-Length: {len(body)}\r\n\r\n"
    talk.message("<", head.encode() + body, "response", number)


def _open_amqp(talk: _Talk) -> None:
    spec = pika.spec
    talk.message(">", b"AMQP\x00\x00\x09\x01")
    talk.message("<", pika.frame.Method(0, spec.Connection.Tune(2047, 131072, 60)).marshal())
    talk.message(">", pika.frame.Method(0, spec.Connection.TuneOk(2047, 131072, 60)).marshal())
    talk.message(">", pika.frame.Method(0, spec.Connection.Open("/")).marshal())
    talk.message("<", pika.frame.Method(0, spec.Connection.OpenOk()).marshal())
    talk.message(">", pika.frame.Method(1, spec.Channel.Open()).marshal())
    talk.message("<", pika.frame.Method(1, spec.Channel.OpenOk()).marshal())


def _content(talk: _Talk, way: str, kind: str, number: int, rng: random.Random) -> None:
    spec = pika.spec
    if kind == "publish":
        method = spec.Basic.Publish(exchange="nova", routing_key="conductor")
    else:
        method = spec.Basic.Deliver("3", number, False, "nova", "conductor")
    body = _text(rng, rng.randrange(1000, 9000)).encode()
    if rng.random() < 0.05:
        body = rng.randbytes(len(body))
    properties = spec.BasicProperties(content_type="application/json", correlation_id=str(number))
    pieces = [pika.frame.Method(1, method), pika.frame.Header(1, len(body), properties)]
    pieces.append(pika.frame.Body(1, body))
    talk.message(way, b"".join(piece.marshal() for piece in pieces), kind, number)
    if rng.random() < 0.2:
        talk.message(way, pika.frame.Heartbeat().marshal())
    if kind == "deliver":
        talk.message(">", pika.frame.Method(1, spec.Basic.Ack(number)).marshal())


def _sql(seq: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes((seq,)) + body


def _open_mysql(talk: _Talk) -> None:
    numbers = struct.pack("<I8sxHBHHB10x12sx", 9, b"saltsalt", 0xF7FF, 33, 2, 0x81FF, 21, b"s" * 12)
    talk.message("<", _sql(0, b"\x0a8.0.36\x00" + numbers + b"mysql_native_password\x00"))
    flags = 0x200 | 0x8000 | 0x8 | 0x80000
    login = struct.pack("<IIB23x", flags, 1 << 24, 33) + b"nova\x00\x14" + b"h" * 20
    talk.message(">", _sql(1, login + b"nova\x00mysql_native_password\x00"))
    talk.message("<", _sql(2, b"\x00\x00\x00\x02\x00\x00\x00"))


def _query(talk: _Talk, number: int, rng: random.Random) -> None:
    columns = ", ".join(f"instances.column_{i}" for i in range(rng.randrange(2, 150)))
    text = f"SELECT {columns} FROM instances WHERE instances.id = {number}"
    talk.message(">", _sql(0, b"\x03" + text.encode()), "command", number)
    rows = [_sql(1, b"\x01"), _sql(2, b"\x03def\x04nova\x01t\x01t\x01a\x01a\x0c\x21\x00" + bytes(10))]
    rows.append(_sql(3, b"\xfe\x00\x00\x02\x00"))
    for seq in range(4, 4 + rng.randrange(8)):
        row = _text(rng, rng.randrange(20, 230)).encode()[:250]
        rows.append(_sql(seq, bytes((len(row),)) + row))
    rows.append(_sql(len(rows) + 1, b"\xfe\x00\x00\x02\x00"))
    talk.message("<", b"".join(rows))


# --- what of it is there --------------------------------------------------------------------------


def whole(places: Iterable[Place], packets: Iterable[Packet]) -> dict[str, set[int]]:
    """Return the messages, by kind, of which every byte is in *packets*."""
    seen: dict[tuple[int, str], set[tuple[int, int]]] = {}
    for packet in packets:
        if packet.payload:
            spans = seen.setdefault((packet.connection, packet.way), set())
            spans.add((packet.at, packet.at + len(packet.payload)))
    joined: dict[tuple[int, str], list[list[int]]] = {}
    for stream, spans in seen.items():
        found = joined[stream] = []
        for start, stop in sorted(spans):
            if found and start <= found[-1][1]:
                found[-1][1] = max(found[-1][1], stop)
            else:
                found.append([start, stop])
    there: dict[str, set[int]] = {place.kind: set() for place in places}
    for place in places:
        if any(start <= place.start and place.stop <= stop for start, stop in joined.get(place.stream, ())):
            there[place.kind].add(place.number)
    return there


def write(packets: Iterable[Packet], path: Path) -> Path:
    """Write *packets* as a pcap file with nanoseconds."""
    out = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)]
    for packet in packets:
        client, server = bytes((10, 0, 0, 1)), bytes((10, 0, 1, packet.connection // 100))
        ports = (40_000 + packet.connection, {1: 8774, 2: 5672, 3: 3306}[packet.connection // 100])
        isn = {">": packet.connection * 0x01000193, "<": packet.connection * 0x9E3779B1}
        way, other = packet.way, "<" if packet.way == ">" else ">"
        if way == "<":
            client, server, ports = server, client, ports[::-1]
        syn = packet.flags & 2 != 0
        seq = isn[way] + packet.at + (not syn)
        ack = isn[other] + packet.acked + 1 if packet.flags & 16 else 0
        size = max(packet.wire_bytes, len(packet.payload))
        head = bytes(12) + b"\x08\x00" + struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 40 + size, packet.ip_id, 0x4000, 64, 6, 0, client, server
        ) + struct.pack(
            ">HHIIBBHHH", *ports, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, packet.flags, 8192, 0, 0
        )  # fmt: skip
        seconds, nanoseconds = divmod(packet.time_ns, 1_000_000_000)
        captured = head + packet.payload
        out.append(struct.pack("<IIII", seconds, nanoseconds, len(captured), len(head) + size))
        out.append(captured)
    path.write_bytes(b"".join(out))
    return path
