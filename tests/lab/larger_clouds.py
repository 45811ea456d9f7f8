"""Clouds with more than one of something, or with their services in other places: made conversations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tracer.testing.cloud import PORTS, SPREAD, Cloud, Layout
from tracer.testing.messages import amqp_set_up
from tracer.testing.packets import Connection

__all__ = [
    "BrokerCluster",
    "GaleraBehindProxy",
    "OtherPorts",
    "PathPrefixes",
    "SixOnly",
    "TlsEndsAtProxy",
    "TwoCells",
    "chunked",
    "until_closed",
]

PREFIXES = {
    "keystone": "/identity",
    "nova-api": "/compute",
    "glance-api": "/image",
    "neutron-server": "/networking",
    "cinder-api": "/volume",
    "placement": "/placement",
}


class BrokerCluster(Cloud):
    """Two nodes of RabbitMQ: a message is published to one and delivered by the other."""

    def __init__(self, **arranged: Any) -> None:
        super().__init__(Layout(dict(SPREAD.address) | {"rabbitmq-2": "172.28.0.53"}), **arranged)

    def broker(self, role: str, what: str) -> str:
        """Return the node that *role* is connected to."""
        return "rabbitmq-2" if what == "consume" else "rabbitmq"

    def _standing(self, role: str, what: str, queues: Sequence[str]) -> Connection:
        node = self.broker(role, what)
        key = (f"{role} at {node}", what)
        if key not in self._amqp:
            made = self.network.connection(self.address[role], self.address[node], PORTS["rabbitmq"], at=0.0)
            program = re.sub(r"(-2|\d)$", "", role).replace("compute", "nova-compute")
            amqp_set_up(made, 0.01, program.replace("nova-nova-", "nova-"), queues)
            self._amqp[key] = made
        return self._amqp[key]


class TwoCells(BrokerCluster):
    """compute2 and compute3 are in a cell with a broker, a conductor and a database of its own.

    The conductor of the API asks the hosts of each cell by the cell's broker; they answer to its conductor.
    """

    cell_of = {"compute2": "2", "compute3": "2"}  # noqa: RUF012  a constant

    def __init__(self, **arranged: Any) -> None:
        super().__init__(**arranged)
        self.address = {**self.address, "nova-conductor-2": "172.28.0.24", "db-2": "172.28.0.54"}
        self._in_second = False

    def broker(self, role: str, what: str) -> str:
        return "rabbitmq-2" if self._in_second else "rabbitmq"

    def rpc(
        self, at: float, caller: str, consumer: str, exchange: str, key: str, body: bytes, fate: str = "ok"
    ) -> None:
        self._in_second = caller in self.cell_of or consumer in self.cell_of
        if caller in self.cell_of and consumer == "nova-conductor":
            consumer = "nova-conductor-2"
        elif consumer in self.cell_of and key.startswith("reply_"):
            caller = "nova-conductor-2"
        super().rpc(at, caller, consumer, exchange, key, body, fate)
        self._in_second = False

    def consumer(self, role: str) -> Connection:
        queues = ("conductor", "conductor_fanout_bb") if role == "nova-conductor-2" else None
        return super().consumer(role) if queues is None else self._standing(role, "consume", queues)


class _Both:
    """Two connections with the same bytes: to the proxy, and from the proxy to a node."""

    def __init__(self, outer: Connection, inner: Connection) -> None:
        self.outer, self.inner = outer, inner

    def say(self, at: float, data: bytes, *, lost: bool = False) -> None:
        self.outer.say(at, data, lost=lost)
        self.inner.say(at + 0.0001, data, lost=lost)

    def hear(self, at: float, data: bytes, *, lost: bool = False) -> None:
        self.inner.hear(at - 0.0001, data, lost=lost)
        self.outer.hear(at, data, lost=lost)


class GaleraBehindProxy(Cloud):
    """The services ask the database at a proxy, which passes the bytes on to one of its nodes."""

    def __init__(self, **arranged: Any) -> None:
        addresses = dict(SPREAD.address) | {"db": "172.28.0.50", "galera": "172.28.0.55"}
        super().__init__(Layout(addresses), **arranged)

    def database(self, role: str, at: float) -> Any:
        own, proxy = self.address, {**self.address, role: self.address["db"], "db": self.address["galera"]}
        outer = super().database(role, at)
        self.address = proxy
        inner = super().database(role, at + 0.0001)
        self.address = own
        return _Both(outer, inner)


class OtherPorts(Cloud):
    """Each service listens on a port that is not the usual one."""

    shift = 10_000

    def __init__(self, **arranged: Any) -> None:
        super().__init__(**arranged)
        connection, refuse = self.network.connection, self.network.refuse
        self.network.connection = (  # type: ignore[method-assign]
            lambda a, b, port, *more, **named: connection(a, b, port + self.shift, *more, **named)
        )
        self.network.refuse = (  # type: ignore[method-assign]
            lambda at, a, b, port, *more: refuse(at, a, b, port + self.shift, *more)
        )


class _Sixes(Layout):
    def points(self, a: str, b: str) -> Sequence[str]:
        outside = a.startswith("fd00:10:") and b.startswith("fd00:10:")
        return ("External_api",) if outside else ("Internal_base",)


class SixOnly(Cloud):
    """No address of IPv4."""

    def __init__(self, **arranged: Any) -> None:
        sixes = {
            role: address.replace("172.28.0.", "fd00:28::").replace("10.10.0.", "fd00:10::")
            for role, address in SPREAD.address.items()
        }
        super().__init__(_Sixes(sixes), **arranged)


class PathPrefixes(Cloud):
    """One web server for all services, which tells them apart by the path, as Apache does for uwsgi.

    With a proxy, clients from outside ask that, and it asks the services themselves.
    """

    port = 80

    def _leg(
        self, at: float, client: str, server: str, port: int, method: str, target: str, *more: Any
    ) -> None:
        service = next((role for role, its in PORTS.items() if its == port and role in PREFIXES), "")
        if service and client != self.address["lb"]:
            server = self.address["lb-outside" if server.startswith("10.10.") else "lb"]
            port, target = self.port, PREFIXES[service] + target
        super()._leg(at, client, server, port, method, target, *more)


_HELLO = bytes.fromhex("16030100050100000101")
_DATA = bytes.fromhex("1703030010") + bytes(range(16))


class TlsEndsAtProxy(Cloud):
    """All services behind one proxy, in whose outer legs nothing can be read; it knows them by a prefix."""

    def _leg(
        self,
        at: float,
        client: str,
        server: str,
        port: int,
        method: str,
        target: str,
        status: int | str,
        took: float,
        headers: Mapping[str, str],
        *more: Any,
    ) -> None:
        service = next((role for role, its in PORTS.items() if its == port and role in PREFIXES), "")
        is_passed_on = "x-forwarded-for" in headers
        if not service or client == self.address["lb"]:
            super()._leg(
                at, client, server, port, method, PREFIXES.get(service, "") + target, status, took, headers,
                *more,
            )  # fmt: skip
            return
        outside = server.startswith("10.10.")
        made = self.network.connection(
            client, self.address["lb-outside" if outside else "lb"], 443, at - 0.0006
        )
        made.say(at - 0.0004, _HELLO)
        made.hear(at - 0.0003, _HELLO)
        made.say(at - 0.0002, _DATA)
        made.hear(at + took + 0.0002, _DATA)
        made.close(at + took + 0.0003)
        if not outside and not is_passed_on:
            inner = {"X-Forwarded-For": client, "Host": f"{self.address['lb']}:443"} | dict(headers)
            super()._leg(
                at, self.address["lb"], server, port, method, PREFIXES[service] + target, status, took, inner,
                *more,
            )  # fmt: skip


_LENGTH = re.compile(rb"Content-Length: \d+\r\n", re.IGNORECASE)


def _answers(cloud: Cloud, change: Any) -> None:
    """Change each whole answer over HTTP that has a length."""
    cloud.network.events = [
        (at, made, side, flags, change(data) if data.startswith(b"HTTP/1.1 ") else data, lost)
        for at, made, side, flags, data, lost in cloud.network.events
    ]


def chunked(cloud: Cloud) -> None:
    """Send the answers in chunks, without their length, as Apache does for uwsgi."""

    def change(data: bytes) -> bytes:
        head, _, body = data.partition(b"\r\n\r\n")
        if not _LENGTH.search(head + b"\r\n") or not body:
            return data
        head = _LENGTH.sub(b"", head + b"\r\n") + b"Transfer-Encoding: chunked\r\n\r\n"
        return head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"

    _answers(cloud, change)


def until_closed(cloud: Cloud) -> None:
    """Send the answers without their length: their end is that of the connection."""

    def change(data: bytes) -> bytes:
        head, _, body = data.partition(b"\r\n\r\n")
        return _LENGTH.sub(b"", head + b"\r\n") + b"Connection: close\r\n\r\n" + body

    _answers(cloud, change)
