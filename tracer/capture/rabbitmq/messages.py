"""Deliveries of the firehose and the event exchange -> the messages that a sniffed connection would give.

The firehose reports each published and each delivered message with its body; headers hold the exchange, the
routing keys and the connection. These become basic.publish and basic.deliver. A message that no queue got
becomes a basic.return as well, as the broker sends it for a mandatory message. The firehose holds no
acknowledgements. Events report who is connected and who consumes; they become connection.start-ok,
basic.consume, basic.cancel, and the end of connections.

Source: rabbitmq.com/docs/firehose; rabbitmq_event_exchange/README; rabbit_trace.erl and rabbit_net.erl for
the form of connection names (`10.0.0.1:36394 -> 10.0.0.2:5672`, IPv6 in brackets).
"""

from __future__ import annotations

import ipaddress
import re
from collections import OrderedDict
from collections.abc import Iterable
from itertools import count
from typing import Any

from tracer.model import (
    BOTH,
    BROKER_HEADERS,
    FIREHOSE,
    TO_CLIENT,
    TO_SERVER,
    AmqpContent,
    AmqpMethod,
    Capture,
    Closed,
    Connection,
    Endpoint,
    Frames,
    Heard,
)
from tracer.model.tables import trim

__all__ = ["EVENTS", "OWN", "TRACE", "Delivery", "Firehose"]

TRACE, EVENTS = "amq.rabbitmq.trace", "amq.rabbitmq.event"
OWN = "tracer.firehose."
"""Prefix of our own queues."""
BODY_LIMIT = 256 << 10
"""Bytes of a body that are kept, as with a sniffed one."""
REMEMBERED = 50_000
"""Limit of connections and channels that are remembered."""
NO_ROUTE = 312
"""AMQP 0-9-1 section 1.2, reply codes."""
UNREADABLE = "firehose messages that cannot be read"

Delivery = tuple[int, str, str, dict[str, Any], bytes]
"""Arrival in ns, exchange (TRACE or EVENTS), routing key, headers, body."""

# A connection's name: client -> server, and behind it a channel's number. The event exchange writes a peer's
# address as an Erlang tuple.
_NAME = re.compile(r"(\[[^\]]*\]|[^\[\]\s]*):(\d{1,5}) -> (\[[^\]]*\]|[^\[\]\s]*):(\d{1,5})(?: \(\d+\))?")
_TUPLE = re.compile(r"\{([\d,]+)\}")
_NOWHERE = "0.0.0.0"  # noqa: S104  # stands for an address that the broker does not report


class Firehose:
    """Decodes the deliveries of one broker. *server* is its endpoint for connections without an address."""

    def __init__(self, capture: Capture, server: Endpoint) -> None:
        self._capture = capture
        self._server = server
        self._numbers = count(-1 - capture.number, -256)
        """Numbers of connections: negative, to differ from sniffed ones; a step of 256 separates captures."""
        self._connections: OrderedDict[str, Connection] = OrderedDict()
        self._by_pid: OrderedDict[str, Connection] = OrderedDict()
        self._channels: OrderedDict[str, tuple[Connection, int]] = OrderedDict()
        """Erlang pid of a channel -> its connection and number."""

    def read(self, deliveries: Iterable[Delivery]) -> list[Heard]:
        """Return the messages of *deliveries*. Nothing is raised; unreadable deliveries are counted."""
        heard: list[Heard] = []
        capture = self._capture
        for delivery in deliveries:
            capture.packets += 1
            capture.size_bytes += len(delivery[4])
            try:
                self._event(delivery, heard) if delivery[1] == EVENTS else self._message(delivery, heard)
            except (KeyError, TypeError, ValueError, IndexError, OverflowError):
                capture.anomalies[UNREADABLE] += 1
        return heard

    def reset(self, time_ns: int) -> list[Heard]:
        """Return the end of all connections, because the connection to the broker broke."""
        heard = [self._heard(Closed(c, time_ns, "reset", TO_CLIENT)) for c in self._connections.values()]
        self._connections.clear()
        self._by_pid.clear()
        self._channels.clear()
        return heard

    def _heard(self, message: AmqpMethod | AmqpContent | Closed) -> Heard:
        return Heard(message.time_ns, self._capture.number, message)

    def _frames(self) -> Frames:
        return ((self._capture.number, self._capture.packets),)

    # --- messages ---

    def _message(self, delivery: Delivery, heard: list[Heard]) -> None:
        time_ns, _, key, headers, body = delivery
        exchange, keys = headers["exchange_name"], headers["routing_keys"]
        routing_key = str(keys[0]) if keys else ""
        # The firehose also traces our own messages.
        if exchange in (TRACE, EVENTS) or routing_key.startswith(OWN):
            return
        connection = self._connection(str(headers.get("connection", "")), time_ns)
        arguments: dict[str, str | int | bool] = {"exchange": str(exchange), "routing_key": routing_key}
        published = key.startswith("publish.")
        if not published:
            arguments["redelivered"] = bool(headers.get("redelivered"))
        content = AmqpContent(
            connection,
            TO_SERVER if published else TO_CLIENT,
            time_ns,
            time_ns,
            self._frames(),
            int(headers.get("channel", 0)),
            "basic.publish" if published else "basic.deliver",
            arguments,
            _properties(headers.get("properties")),
            body[:BODY_LIMIT],
            len(body),
            False,
        )
        heard.append(Heard(time_ns, self._capture.number, content))
        if published and headers.get("routed_queues") == []:
            why: dict[str, str | int | bool] = {**arguments, "reply_code": NO_ROUTE, "reply_text": "NO_ROUTE"}
            returned = content._replace(name="basic.return", direction=TO_CLIENT, arguments=why, frames=())
            heard.append(Heard(time_ns, self._capture.number, returned))

    # --- who is connected ---

    def _connection(self, name: str, time_ns: int, *, joined: bool = True) -> Connection:
        known = self._connections.get(name)
        if known is not None:
            return known
        client, server = self._ends(name)
        known = Connection(
            next(self._numbers),
            client,
            server,
            time_ns,
            joined,
            captures=[self._capture.number],
            protocol=FIREHOSE,
            seen=BOTH,
        )
        self._connections[name] = known
        trim(self._connections, REMEMBERED)
        return known

    def _ends(self, name: str) -> tuple[Endpoint, Endpoint]:
        found = _NAME.fullmatch(name)
        if found is None:
            return Endpoint(_NOWHERE, 0), self._server
        client, client_port, server, server_port = found.groups()
        return (
            Endpoint(_address(client) or _NOWHERE, int(client_port)),
            Endpoint(_address(server) or self._server.address, int(server_port)),
        )

    def _event(self, delivery: Delivery, heard: list[Heard]) -> None:
        _, _, kind, headers, _ = delivery
        if kind == "connection.created":
            self._connected(delivery, heard)
        elif kind == "connection.closed":
            self._by_pid.pop(str(headers.get("pid", "")), None)
            gone = self._connections.pop(str(headers["name"]), None)
            if gone is not None:
                heard.append(self._heard(Closed(gone, delivery[0], "reset", TO_SERVER)))
        elif kind == "channel.created":
            connection = self._by_pid.get(str(headers["connection"])) or self._connection(
                re.sub(r" \(\d+\)$", "", str(headers["name"])), delivery[0]
            )
            self._channels[str(headers["pid"])] = (connection, int(headers["number"]))
            trim(self._channels, REMEMBERED)
        elif kind == "channel.closed":
            known = self._channels.pop(str(headers["pid"]), None)
            if known is not None:
                heard.append(self._method(delivery[0], known, "channel.close", {}))
        elif kind in ("consumer.created", "consumer.deleted"):
            known = self._channels.get(str(headers["channel"]))
            queue = str(headers["queue"])
            if known is not None and not queue.startswith(OWN):
                arguments = {"queue": queue, "consumer_tag": str(headers["consumer_tag"])}
                name = "basic.consume" if kind == "consumer.created" else "basic.cancel"
                heard.append(self._method(delivery[0], known, name, arguments))

    def _connected(self, delivery: Delivery, heard: list[Heard]) -> None:
        time_ns, _, _, headers, _ = delivery
        name = str(headers["name"])
        self._connections.pop(name, None)
        connection = self._connection(name, time_ns, joined=False)
        if connection.client.address == _NOWHERE:
            # A broker with reverse look-ups has host names in the name; the event also holds the address.
            peer = _TUPLE.fullmatch(str(headers.get("peer_host", "")))
            address = _address(peer[1].replace(",", ".")) if peer else None
            if address:
                connection.client = Endpoint(address, int(headers.get("peer_port", 0)))
        self._by_pid[str(headers.get("pid", ""))] = connection
        trim(self._by_pid, REMEMBERED)
        given_name = str(headers.get("user_provided_name") or "")
        if given_name:
            heard.append(
                self._method(time_ns, (connection, 0), "connection.start-ok", {"connection_name": given_name})
            )

    def _method(
        self, time_ns: int, where: tuple[Connection, int], name: str, arguments: dict[str, str]
    ) -> Heard:
        connection, channel = where
        method = AmqpMethod(connection, TO_SERVER, time_ns, self._frames(), channel, name, {**arguments})
        return self._heard(method)


def _properties(given: object) -> dict[str, str | int]:
    """Return the properties of a message, and of its headers those that a stage needs."""
    if not isinstance(given, dict):
        return {}
    headers = given.get("headers")
    of_broker = headers if isinstance(headers, dict) else {}
    read = given | {name: of_broker[name] for name in BROKER_HEADERS if name in of_broker}
    return {str(k): v for k, v in read.items() if isinstance(v, str | int)}


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        return None
