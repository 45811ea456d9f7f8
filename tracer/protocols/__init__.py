"""Protocol decoders: bytes of a connection in, messages out. Each protocol is a package.

A decoder is made for one connection. It does no I/O and reads no clock. `Decoder` lists what it must offer.
A new protocol is one package, beside `http1/`, `amqp091/` and the others, and one name in `BUILTIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
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
from tracer.model.messages import TLS_UNKNOWN
from tracer.openstack.services import PROTOCOL_OF_PORT, PROTOCOL_WITHIN_TLS
from tracer.protocols.amqp091 import Amqp091
from tracer.protocols.http1 import Http1
from tracer.protocols.http2 import Http2
from tracer.protocols.mysql import MySql
from tracer.protocols.postgres import Postgres
from tracer.protocols.tls import KeyLog, Tls

__all__ = ["BUILTIN", "PORTS", "RAW_LIMIT", "SERVER_PORTS", "Decoder", "Decoders", "Options"]


class Decoder(Protocol):
    """The interface of a protocol's decoder. Each instance decodes one connection.

    Reassembly calls `receive` with the bytes of each direction in order, and `gap` where bytes are missing.
    Then it calls `closed` once for both directions, or once for each of them (fin). Nothing is raised.
    """

    name: ClassVar[str]

    @staticmethod
    def recognises(payload: bytes, direction: int) -> int | None:
        """Return the direction in which *payload* travels if it belongs to this protocol, else None.

        *direction* is the guess of reassembly, and the answer where the bytes alone do not decide.
        """

    def receive(self, data: Data) -> Iterable[Message]:
        """Return the messages that *data*, the next bytes of its direction, completes."""

    def gap(self, gap: Gap) -> Iterable[Message]:
        """Return the messages that the missing bytes end, flagged as truncated."""

    def closed(self, closed: Closed) -> Iterable[Message]:
        """Return the messages that the end of one direction (fin) or of both completes."""


# In the order in which they are tried on an unknown port.
BUILTIN: tuple[type[Decoder], ...] = (Http1, Http2, Amqp091, MySql, Postgres)

PORTS: dict[int, str] = PROTOCOL_OF_PORT
"""Server port -> protocol, by the default ports of a cloud's services; a topology file adds to it."""

RAW_LIMIT = 16 << 20
"""Bytes of a body that are kept for `tracer replay`, which sends it again."""
SERVER_PORTS = frozenset((*PORTS, *PROTOCOL_WITHIN_TLS))
"""Default ports of servers, those of encrypted protocols as well."""
SHORT_BYTES, SHORT_PIECES = 8, 2
"""So many first pieces of a connection that are shorter wait for the next one: no message of HTTP fits into
them. Floods and scans send no more."""
UNKNOWN_AFTER = 12
"""A connection is given up when this many pieces of data show no known protocol."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the later stages need from the decoders; a decoder is faster if it keeps less."""

    wants_body: Callable[[str, str, dict[str, str], int], bool] | None = None
    """(method, target, headers, status or 0) -> keep the HTTP body? None: keep all."""
    wants_statement: Callable[[bytes], bool] | None = None
    """Text of an SQL statement -> make a message of it? None: of all."""
    skipped: Callable[[int, Frames], object] = lambda time_ns, frames: None
    """Called with time and frames of each statement that was not wanted."""
    keys: KeyLog | None = None
    """The secrets that open TLS connections."""
    raw: bool = False
    """Keep messages as they were sent, with their secrets, so that they can be sent again."""


class Decoders:
    """Chooses a decoder for each connection and feeds it.

    *ports* decides, unless the bytes clearly belong to another protocol. On an unknown port the bytes decide
    alone. *turn* is called when the bytes show that client and server were mistaken for each other.
    """

    def __init__(
        self, ports: Mapping[int, str], options: Options, turn: Callable[[Connection], None] | None = None
    ) -> None:
        self._by_name = {decoder.name: decoder for decoder in BUILTIN}
        # What the user states of a port holds for what is within TLS, too.
        self._within_tls = {**PROTOCOL_WITHIN_TLS, **ports}
        self._ports = dict(ports)
        self._options = options
        self._raw: dict[str, Any] = {"raw": True, "body_limit": RAW_LIMIT} if options.raw else {}
        self._turn = turn
        self._decoders: dict[int, Decoder] = {}
        self._tries: dict[int, int] = {}
        """Connection number -> pieces of data that no decoder recognised."""
        self._short: dict[int, list[Data]] = {}
        """Connection number -> its first pieces, which are too short to be a message."""
        self._ignored: set[int] = set()
        """Numbers of the connections that were given up."""
        self._half_closed: set[int] = set()
        """Numbers of the connections of which one direction has ended."""

    def receive(self, event: Data | Gap | Closed) -> Iterable[Message]:
        """Return the messages that *event* completes."""
        # The connection is the first field of each; by its index, since this runs for each piece of data.
        decoder = self._decoders.get(event[0].number)
        if type(event) is Data:
            return self._begin(event) if decoder is None else decoder.receive(event)
        if type(event) is Gap:
            if event.connection.number in self._short:
                return [*self._begin_at_last(event.connection), *self.receive(event)]
            return () if decoder is None or event.passed else decoder.gap(event)
        return self._close(decoder, event)  # type: ignore[arg-type]

    def give_up(self, connection: Connection) -> None:
        """Read nothing more of *connection*."""
        self._decoders.pop(connection.number, None)
        self._ignored.add(connection.number)

    def _close(self, decoder: Decoder | None, closed: Closed) -> Iterable[Message]:
        number = closed.connection.number
        if closed.how == "fin" and number not in self._half_closed:
            # The first FIN: the other direction goes on.
            self._half_closed.add(number)
        else:
            self._half_closed.discard(number)
            self._ignored.discard(number)
            self._tries.pop(number, None)
            self._decoders.pop(number, None)
            self._short.pop(number, None)
        return () if decoder is None else decoder.closed(closed)

    def _begin(self, data: Data) -> Iterable[Message]:
        """Choose the decoder of a connection by *data*, and return what it decodes."""
        connection = data.connection
        number = connection.number
        if number in self._ignored:
            return ()
        if len(data.payload) < SHORT_BYTES and self._may_wait(connection):
            held = self._short.setdefault(number, [])
            if len(held) < SHORT_PIECES:
                held.append(data)
                return ()
        if number in self._short:
            return [*self._begin_at_last(connection), *self.receive(data)]
        kind, direction = self._recognise(data, self._name_of(connection, self._ports))
        if kind is None:
            return self._unknown(data, "unknown protocol")
        if direction != data.direction and not connection.certain and self._turn is not None:
            self._turn(connection)
            # This piece was labelled before the turn; the following ones have the new directions.
            data = data._replace(direction=TO_CLIENT if data.direction == TO_SERVER else TO_SERVER)
        self._tries.pop(connection.number, None)
        # Of an encrypted connection the port says what is in it.
        is_tls = kind is Tls
        connection.protocol = self._name_of(connection, self._within_tls) if is_tls else kind.name
        decoder = self._decoders[connection.number] = self._make(kind, connection)
        if kind is Http1 and connection.joined and kind.recognises(data.payload, direction) is None:
            self._decoders[connection.number] = _ByPort(decoder, self._by_bytes)
        return decoder.receive(data)

    def _by_bytes(self, decoder: Decoder, data: Data) -> Decoder:
        """Return what decodes *data* and what follows, where *decoder* was chosen by the port alone."""
        if Tls.recognises(data.payload, data.direction) is not None:
            decoder = self._make(Tls, data.connection)
        elif Http2.recognises(data.payload, data.direction) is not None:
            data.connection.protocol = Http2.name
            decoder = self._make(Http2, data.connection)
        self._decoders[data.connection.number] = decoder
        return decoder

    def _may_wait(self, connection: Connection) -> bool:
        """Return whether few first bytes say nothing yet: on a port of HTTP, or of no known protocol."""
        name = self._name_of(connection, self._ports)
        return name in (None, Http1.name) and connection.number not in self._tries

    def _begin_at_last(self, connection: Connection) -> Iterable[Message]:
        """Return what the pieces hold that waited for more of *connection*."""
        self._tries[connection.number] = self._tries.get(connection.number, 0)
        for data in self._short.pop(connection.number):
            yield from self.receive(data)

    def _begin_within(self, data: Data) -> tuple[Decoder | None, Iterable[Message]]:
        """Choose the decoder of what is within a TLS connection by *data*, the first of it."""
        connection = data.connection
        kind, _ = self._recognise(data, self._name_of(connection, self._within_tls), encrypted=True)
        if kind is None:
            return None, self._unknown(data, TLS_UNKNOWN)
        self._tries.pop(connection.number, None)
        connection.protocol = kind.name
        return self._make(kind, connection), ()

    def _unknown(self, data: Data, reason: str) -> Iterable[Message]:
        """Count a piece of data that no decoder recognises; after some of them the connection is given up."""
        connection = data.connection
        tries = self._tries[connection.number] = self._tries.get(connection.number, 0) + 1
        # A connection that began before the capture may start in the middle of a message: more data may show
        # its protocol.
        if tries < UNKNOWN_AFTER:
            return ()
        return self._ignore(connection, data.time_ns, reason, data.frames)

    def _recognise(
        self, data: Data, name: str | None, encrypted: bool = False
    ) -> tuple[type[Decoder] | None, int]:
        """Return the decoder for *data* and the direction in which it travels.

        That of the port, *name*, comes first. TLS is one unless *data* was *encrypted* itself.
        """
        expected = self._by_name.get(name) if name else None
        candidates: list[type[Decoder] | None]
        candidates = [expected, *(d for d in BUILTIN if d is not expected)] if expected else list(BUILTIN)
        candidates += [] if encrypted else [Tls]
        for decoder in candidates:
            direction = decoder.recognises(data.payload, data.direction) if decoder else None
            if direction is not None:
                return decoder, direction
        # Nothing recognised: trust a known port. Its decoder can find the next message by itself.
        return expected, data.direction

    def _name_of(self, connection: Connection, ports: Mapping[int, str]) -> str | None:
        """Return the decoder that the port of *connection* names."""
        name = ports.get(connection.server.port)
        # While the server is a guess, the port of the service may be the client's.
        if name is None and not connection.certain:
            name = ports.get(connection.client.port)
        return name

    def _make(self, kind: type[Decoder], connection: Connection) -> Decoder:
        if kind is Http1:
            return Http1(connection, wants_body=self._options.wants_body, upgrade=self._upgraded, **self._raw)
        if kind is Http2:
            return Http2(connection, wants_body=self._options.wants_body, **self._raw)
        if kind is Amqp091:
            return Amqp091(connection, **self._raw)
        if kind is MySql or kind is Postgres:
            database: type[MySql | Postgres] = kind
            return database(
                connection,
                wanted=self._options.wants_statement,
                skipped=self._options.skipped,
                encrypted=partial(self._encrypted, connection),
            )
        if kind is Tls:
            return Tls(connection, self._options.keys, self._begin_within, self._turn)
        return kind(connection)  # type: ignore[call-arg]

    def _encrypted(self, connection: Connection, decoder: Decoder) -> Callable[[Data], Iterable[Message]]:
        """Let TLS take what follows on *connection*, and *decoder* what is within."""
        tls = Tls(connection, self._options.keys, lambda _: (decoder, ()), self._turn)
        self._decoders[connection.number] = tls
        return tls.receive

    def _upgraded(self, connection: Connection, request: tuple[int, str, str] | None) -> Decoder:
        """Return the decoder of a connection that changes from HTTP/1.1 to HTTP/2."""
        connection.protocol = Http2.name
        return Http2(connection, wants_body=self._options.wants_body, upgraded=request, **self._raw)

    def _ignore(self, connection: Connection, time_ns: int, reason: str, frames: Frames) -> Iterable[Message]:
        self._ignored.add(connection.number)
        self._tries.pop(connection.number, None)
        return (Undecoded(connection, time_ns, reason, frames),)


class _ByPort:
    """Stands in for a decoder that the port alone chose, until it finds a message.

    The first bytes of a connection that began before the capture may be the inside of a long frame of HTTP/2
    or of a TLS record; then a later piece of data begins with one.
    """

    name: ClassVar[str] = ""

    def __init__(self, decoder: Decoder, choose: Callable[[Decoder, Data], Decoder]) -> None:
        self._decoder = decoder
        self._choose = choose

    @staticmethod
    def recognises(payload: bytes, direction: int) -> int | None:
        return None

    def receive(self, data: Data) -> Iterable[Message]:
        payload, direction = data.payload, data.direction
        if any(kind.recognises(payload, direction) is not None for kind in (Tls, Http2)):
            return self._choose(self._decoder, data).receive(data)
        found = list(self._decoder.receive(data))
        if found:
            self._choose(self._decoder, data)
        return found

    def gap(self, gap: Gap) -> Iterable[Message]:
        return self._decoder.gap(gap)

    def closed(self, closed: Closed) -> Iterable[Message]:
        return self._decoder.closed(closed)
