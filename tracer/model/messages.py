"""The messages that decoders produce. Secrets in them are replaced by digests."""

from __future__ import annotations

from typing import NamedTuple

from tracer.model.packets import Frames
from tracer.model.streams import TO_SERVER, Closed, Connection, Gap

__all__ = [
    "BROKER_HEADERS",
    "DEATH_REASON",
    "DELIVERY_COUNT",
    "TLS_UNKNOWN",
    "AmqpContent",
    "AmqpMethod",
    "Heard",
    "HttpRequest",
    "HttpResponse",
    "Message",
    "SqlLogin",
    "SqlResult",
    "SqlStatement",
    "TlsHello",
    "Undecoded",
]

# Messages may hold secrets, and a traceback can print any value. So the repr of a message has no header, no
# query and no body.


def _path(target: str) -> str:
    return target.partition("?")[0].rpartition("@")[2][:200]


def _place(frames: Frames) -> str:
    return f"frame {frames[0][0]}#{frames[0][1]}" if frames else "no frame"


class HttpRequest(NamedTuple):
    """One HTTP request.

    Emitted with its body if the body is wanted, or small and of HTTP/1.x, else at the end of its head.
    """

    connection: Connection
    exchange: int
    """Number of the exchange on this connection; equal for a request and its response."""
    time_ns: int
    """First byte."""
    end_ns: int
    frames: Frames
    """The frame on which Wireshark shows the message, then the other end of it. HTTP/1.x is shown on its last
    frame, HTTP/2 on that of its headers."""
    method: str
    """'?' if only an unknown entry of the header table of HTTP/2 tells it."""
    target: str
    """As sent: path and query, or absolute form; '' if it is not known, as the method."""
    headers: dict[str, str]
    """Names in lower case; secrets are digests; values of a repeated header joined by ', '."""
    body: bytes
    """Decoded (chunked, gzip, deflate); empty unless asked for."""
    truncated: bool
    """Bytes of it are not in the capture."""
    direction: int = TO_SERVER
    raw_head: bytes = b""
    """As sent, secrets and all; empty unless asked for."""

    def __repr__(self) -> str:
        what = f"{self.method} {_path(self.target)}"
        return f"HttpRequest({what}, {len(self.body)} bytes, {_place(self.frames)})"


class HttpResponse(NamedTuple):
    """One final HTTP response. Of the interim responses (1xx), only 101 is emitted."""

    connection: Connection
    exchange: int
    time_ns: int
    end_ns: int
    frames: Frames
    status: int
    """0 if only an unknown entry of the header table of HTTP/2 tells it."""
    reason: str
    headers: dict[str, str]
    body: bytes
    truncated: bool
    raw_head: bytes = b""
    """As sent, secrets and all; empty unless asked for."""

    def __repr__(self) -> str:
        return f"HttpResponse({self.status}, {len(self.body)} bytes, {_place(self.frames)})"


class AmqpMethod(NamedTuple):
    """One AMQP method that carries no content."""

    connection: Connection
    direction: int
    time_ns: int
    frames: Frames
    channel: int
    name: str
    """As in the specification: 'basic.ack', 'connection.start-ok', 'queue.declare' ..."""
    arguments: dict[str, str | int | bool]
    """Names of the specification, with '_'; only arguments that a stage needs; no credentials."""
    raw: bytes = b""
    """The payload of its frame; empty unless asked for, and always for the connection's own methods."""

    def __repr__(self) -> str:
        return f"AmqpMethod({self.name}, channel {self.channel}, {_place(self.frames)})"


DELIVERY_COUNT = "x-delivery-count"
"""Header: how often a quorum queue has delivered the message before (rabbitmq.com/docs/quorum-queues)."""
DEATH_REASON = "x-first-death-reason"
"""Header of a dead letter: rejected, expired, maxlen, delivery_limit (rabbitmq.com/docs/dlx)."""
BROKER_HEADERS = (DELIVERY_COUNT, DEATH_REASON)
"""What RabbitMQ adds to a message, as far as it is read."""


class AmqpContent(NamedTuple):
    """One AMQP message: method, properties and body."""

    connection: Connection
    direction: int
    time_ns: int
    """First byte of its method frame."""
    end_ns: int
    frames: Frames
    """The frame in which its method starts, where Wireshark shows it, then the last one."""
    channel: int
    name: str
    """basic.publish · basic.deliver · basic.return · basic.get-ok"""
    arguments: dict[str, str | int | bool]
    """exchange, routing_key, delivery_tag, consumer_tag, redelivered, mandatory, reply_code, reply_text."""
    properties: dict[str, str | int]
    """content_type, correlation_id, reply_to, expiration, message_id, ...; of the headers only 'compression'
    and `BROKER_HEADERS`."""
    body: bytes
    """The captured bytes, at most as many as the decoder's limit."""
    body_bytes: int
    """Its declared size."""
    truncated: bool
    raw_header: bytes = b""
    """The payload of its header frame, which holds the properties; empty unless asked for."""

    def __repr__(self) -> str:
        return f"AmqpContent({self.name}, {self.body_bytes} bytes, {_place(self.frames)})"


class SqlLogin(NamedTuple):
    """The client's handshake response. User and password are not read."""

    connection: Connection
    time_ns: int
    frames: Frames
    schema: str
    attributes: dict[str, str]
    """Connection attributes such as _pid, program_name, _client_name."""


class SqlStatement(NamedTuple):
    """One statement or command of a database client."""

    connection: Connection
    exchange: int
    time_ns: int
    end_ns: int
    frames: Frames
    command: str
    """query · prepare · execute · init_db · quit · ping · … (lower case)"""
    text: bytes
    """The statement; for execute the prepared text, or b'#7' (its number or name) if the prepare was not
    seen."""
    truncated: bool
    values: tuple[bytes | None, ...] = ()
    """Parameters of an execute as text, in order: what stands for $1, $2 …; None for NULL."""

    def __repr__(self) -> str:
        return f"SqlStatement({self.command}, {len(self.text)} bytes, {_place(self.frames)})"


class SqlResult(NamedTuple):
    """The answer to one statement; rows are not parsed."""

    connection: Connection
    exchange: int
    time_ns: int
    end_ns: int
    frames: Frames
    ok: bool
    error_code: int | str
    """MySQL's number, or PostgreSQL's SQLSTATE."""
    error_text: str
    truncated: bool


TLS_UNKNOWN = "tls: unknown protocol within"
"""The reason of a connection under TLS that was opened, and whose protocol is not known."""


class Undecoded(NamedTuple):
    """A connection that cannot be decoded from here on."""

    connection: Connection
    time_ns: int
    reason: str
    """tls · compressed · websocket · unknown protocol · garbage · http2 headers unknown …"""
    frames: Frames


class TlsHello(NamedTuple):
    """What the two ends of a TLS connection have said before they encrypted; one for a connection.

    Keys are not needed for it. Of a connection that began before the capture there is none.
    """

    connection: Connection
    time_ns: int
    """When the server had said what it says openly, or the connection ended."""
    frames: Frames
    """The frame that completes the server's hello, else the client's."""
    server_name: str
    """The name that the client asks for (SNI); empty without one."""
    alpn: tuple[str, ...]
    """Application protocols ('h2', 'http/1.1'): the chosen one where told openly, else those offered."""
    version: str
    """'1.2', '1.3' …; empty if the server has not answered."""
    certificate_names: tuple[str, ...] = ()
    """Names of the server's certificate. TLS 1.3 encrypts it, and a session that goes on has none."""


Message = (
    HttpRequest
    | HttpResponse
    | AmqpMethod
    | AmqpContent
    | SqlLogin
    | SqlStatement
    | SqlResult
    | TlsHello
    | Undecoded
)


class Heard(NamedTuple):
    """A message that was decoded elsewhere: reported by a broker, or shown by tshark.

    The time is the first field, as in the segments that it is merged with.
    """

    time_ns: int
    """Time of the report."""
    capture: int
    message: Message | Closed | Gap
