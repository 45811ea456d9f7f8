"""What the two ends of one TLS connection say openly, and the one message that is made of it."""

from __future__ import annotations

from collections.abc import Iterable

from tracer.model import TO_CLIENT, TO_SERVER, Connection, Frames, Message, TlsHello
from tracer.protocols.tls.handshake import (
    CERTIFICATE,
    CLIENT_HELLO,
    SERVER_HELLO,
    SERVER_HELLO_DONE,
    TLS_1_0,
    TLS_1_3,
    ClientHello,
    Messages,
    ServerHello,
    certificate_names,
    read_client_hello,
    read_server_hello,
)
from tracer.protocols.tls.records import APPLICATION, HANDSHAKE, Record

__all__ = ["Greeting"]

_MOST_RECORDS = 64
"""A handshake has fewer; of a connection whose server is not captured no more are looked at."""


class Greeting:
    """Reads the handshake of *connection* up to where it is encrypted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._messages = (Messages(), Messages())
        self._records = 0
        self._names: tuple[str, ...] = ()
        self._seen: tuple[int, Frames] | None = None
        self.client: ClientHello | None = None
        self.server: ServerHello | None = None
        self.told = False
        """Nothing more is to be read: the message was made, or there is none."""

    def receive(self, direction: int, record: Record) -> Iterable[Message]:
        """Return the message if *record* completes what is said openly."""
        if self.told:
            return ()
        self._records += 1
        if record.kind != HANDSHAKE or self._records > _MOST_RECORDS:
            # From here on it is encrypted: of the server that is all. It may ask for another hello before,
            # and its direction may be read before the client's.
            is_greeted = self.client is not None and self.server is not None
            is_joined = self._seen is None and record.kind == APPLICATION
            ends = direction == TO_CLIENT and (is_greeted or is_joined)
            return self.finish() if ends or self._records > _MOST_RECORDS else ()
        ends = False
        for kind, body in self._messages[direction].receive(record.body):
            if direction == TO_SERVER:
                ends |= self._from_client(kind, body, record)
            else:
                ends |= self._from_server(kind, body, record)
        return self.finish() if ends else ()

    def gap(self, direction: int) -> None:
        """Drop a message that is not whole."""
        self._messages[direction].reset()

    def finish(self) -> Iterable[Message]:
        """Return the message with what is known; none if nothing is, or it was made before."""
        told, self.told = self.told, True
        if told or self._seen is None:
            return ()
        client, server = self.client, self.server
        alpn = (server.alpn if server else ()) or (client.alpn if client else ())
        name = client.server_name if client else ""
        version = version_words(server.version) if server else ""
        return (TlsHello(self._connection, *self._seen, name, alpn, version, self._names),)

    def _from_client(self, kind: int, body: bytes, record: Record) -> bool:
        found = read_client_hello(body) if kind == CLIENT_HELLO else None
        if found is not None and self.client is None:
            self.client = found
            if self._seen is None:
                self._seen = record.time_ns, record.frames
            # The server's direction may have been read first: packets are reordered.
            return self.server is not None and self.server.version == TLS_1_3
        return False

    def _from_server(self, kind: int, body: bytes, record: Record) -> bool:
        if kind == SERVER_HELLO and self.server is None:
            found = read_server_hello(body)
            if found is None or found.is_retry:
                return False
            self.server, self._seen = found, (record.time_ns, record.frames)
            return found.version == TLS_1_3 and self.client is not None
        if kind == CERTIFICATE and self.server is not None and not self._names:
            self._names = certificate_names(body)
        return kind == SERVER_HELLO_DONE


def version_words(version: int) -> str:
    """Return a version as people write it: 1.2."""
    return f"1.{version - TLS_1_0}" if TLS_1_0 <= version <= TLS_1_3 else "unknown"
