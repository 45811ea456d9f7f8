"""Bytes of a connection in, messages out. Each protocol is a package.

A decoder is made for one connection and does no I/O and reads no clock. It has `receive(data)`,
`gap(gap)` and `closed(closed)`, each giving messages, and a static `recognises(payload, direction)`.
A new protocol is one package (`http1/`, `amqp091/`, `mysql/` are there) and one name in `BUILTIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Closed,
    Connection,
    Data,
    Frames,
    Gap,
    Message,
    Undecoded,
)
from tracer.openstack.services import PROTOCOL_OF_PORT
from tracer.protocols.amqp091 import Amqp091
from tracer.protocols.http1 import Http1
from tracer.protocols.mysql import MySql

__all__ = ["BUILTIN", "PORTS", "RAW_LIMIT", "Decoder", "Decoders", "Options"]


class Decoder(Protocol):
    """What a protocol must offer."""

    name: ClassVar[str]

    @staticmethod
    def recognises(payload: bytes, direction: int) -> int | None:
        """Return the direction in which *payload* travels if it is this protocol's, else None."""

    def receive(self, data: Data) -> Iterable[Message]: ...

    def gap(self, gap: Gap) -> Iterable[Message]: ...

    def closed(self, closed: Closed) -> Iterable[Message]: ...


BUILTIN: tuple[type[Decoder], ...] = (Http1, Amqp091, MySql)

PORTS: dict[int, str] = PROTOCOL_OF_PORT
"""Server port -> protocol, as the services of a cloud listen; a topology file adds to it."""

RAW_LIMIT = 16 << 20
"""Bytes of a body that are kept where it is to be sent again."""
UNKNOWN_AFTER = 12
"""Pieces of data without anything known in them, after which a connection is given up."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the pipeline wants of the decoders; less is faster."""

    wants_body: Callable[[str, str, dict[str, str], int], bool] | None = None
    wants_statement: Callable[[bytes], bool] | None = None
    skipped: Callable[[int, Frames], object] = lambda time_ns, frames: None
    """Called with the time and frames of each statement that was not wanted."""
    raw: bool = False
    """Hand on what was sent as it was sent, secrets and all: for sending it again."""


class Decoders:
    """Gives each connection its decoder and feeds it.

    The port decides, except where the bytes are plainly of another protocol; on an unknown port the
    bytes decide alone. *turn* is called when they show that client and server were taken for each
    other.
    """

    def __init__(
        self, ports: Mapping[int, str], options: Options, turn: Callable[[Connection], None] | None = None
    ) -> None:
        self._by_name = {decoder.name: decoder for decoder in BUILTIN}
        self._ports = dict(ports)
        self._options = options
        self._raw: dict[str, Any] = {"raw": True, "body_limit": RAW_LIMIT} if options.raw else {}
        self._turn = turn
        self._decoders: dict[int, Decoder] = {}
        self._tries: dict[int, int] = {}
        self._ignored: set[int] = set()
        self._half_closed: set[int] = set()
        """Connections of which one direction has ended."""

    def receive(self, event: Data | Gap | Closed) -> Iterable[Message]:
        """Return the messages that *event* completes."""
        decoder = self._decoders.get(event.connection.number)
        if type(event) is Data:
            return self._begin(event) if decoder is None else decoder.receive(event)
        if type(event) is Gap:
            return () if decoder is None else decoder.gap(event)
        return self._close(decoder, event)  # type: ignore[arg-type]

    def _close(self, decoder: Decoder | None, closed: Closed) -> Iterable[Message]:
        number = closed.connection.number
        if closed.how == "fin" and number not in self._half_closed:
            self._half_closed.add(number)
        else:
            self._half_closed.discard(number)
            self._ignored.discard(number)
            self._tries.pop(number, None)
            self._decoders.pop(number, None)
        return () if decoder is None else decoder.closed(closed)

    def _begin(self, data: Data) -> Iterable[Message]:
        connection = data.connection
        if connection.number in self._ignored:
            return ()
        kind, direction = self._recognise(data)
        if kind is None:
            if _is_tls(data.payload):
                return self._ignore(connection, data.time_ns, "tls", data.frames)
            tries = self._tries[connection.number] = self._tries.get(connection.number, 0) + 1
            if tries < UNKNOWN_AFTER:
                return ()
            return self._ignore(connection, data.time_ns, "unknown protocol", data.frames)
        if direction != data.direction and not connection.certain and self._turn is not None:
            self._turn(connection)
            data = data._replace(direction=TO_CLIENT if data.direction == TO_SERVER else TO_SERVER)
        self._tries.pop(connection.number, None)
        connection.protocol = kind.name
        decoder = self._decoders[connection.number] = self._make(kind, connection)
        return decoder.receive(data)

    def _recognise(self, data: Data) -> tuple[type[Decoder] | None, int]:
        name = self._ports.get(data.connection.server.port)
        if name is None and not data.connection.certain:
            name = self._ports.get(data.connection.client.port)
        expected = self._by_name.get(name) if name else None
        candidates = [expected, *(d for d in BUILTIN if d is not expected)] if expected else list(BUILTIN)
        for decoder in candidates:
            direction = decoder.recognises(data.payload, data.direction) if decoder else None
            if direction is not None:
                return decoder, direction
        return expected, data.direction

    def _make(self, kind: type[Decoder], connection: Connection) -> Decoder:
        if kind is Http1:
            return Http1(connection, wants_body=self._options.wants_body, **self._raw)
        if kind is Amqp091:
            return Amqp091(connection, **self._raw)
        if kind is MySql:
            return MySql(connection, wanted=self._options.wants_statement, skipped=self._options.skipped)
        return kind(connection)  # type: ignore[call-arg]

    def _ignore(self, connection: Connection, time_ns: int, reason: str, frames: Frames) -> Iterable[Message]:
        self._ignored.add(connection.number)
        self._tries.pop(connection.number, None)
        return (Undecoded(connection, time_ns, reason, frames),)


def _is_tls(payload: bytes) -> bool:
    """Return whether *payload* begins with a TLS record (RFC 8446 §5.1)."""
    return len(payload) > 5 and 20 <= payload[0] <= 23 and payload[1] == 3 and payload[2] <= 4
