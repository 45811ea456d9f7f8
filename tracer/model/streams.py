"""The values of reassembly: connections, and the bytes of their two directions in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tracer.model.packets import Frames

__all__ = [
    "BOTH",
    "CALLS_OVER",
    "FIREHOSE",
    "TO_CLIENT",
    "TO_SERVER",
    "Closed",
    "Connection",
    "Data",
    "Endpoint",
    "Gap",
]


class Endpoint(NamedTuple):
    """An IP address and a port."""

    address: str
    """Textual IPv4 or IPv6 address."""
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


TO_SERVER = 0
TO_CLIENT = 1
BOTH = 3
"""Of `Connection.seen`: packets of both directions were captured."""
FIREHOSE = "firehose"
"""Of `Connection.protocol`: the connection is known from what a broker reports, not from packets."""
CALLS_OVER = {
    "http1": "REST",
    "http2": "REST",
    "amqp091": "RPC",
    FIREHOSE: "RPC",
    "mysql": "SQL",
    "postgres": "SQL",
}
"""`Connection.protocol` -> `Call.protocol`: what calls over a connection are, as reports name it."""


@dataclass(slots=True, eq=False)
class Connection:
    """One TCP connection between a client and a server.

    The same ports used again make another connection. Roles are learnt later, so this holds only facts of the
    packets.
    """

    number: int
    client: Endpoint
    server: Endpoint
    first_ns: int
    joined: bool = False
    """It began before the capture: no SYN was seen."""
    certain: bool = True
    """False while the choice of the server is a guess."""
    vlan: int = 0
    interface: int = 0
    captures: list[int] = field(default_factory=list)
    """Capture points that saw it, the first one first."""
    protocol: str | None = None
    """Name of its decoder, once known; or FIREHOSE."""
    gaps: int = 0
    client_role: str = ""
    """Role of the client by its own words (User-Agent, AMQP connection name)."""
    server_role: str = ""
    """Role of the server by the requests to it."""
    seen: int = 0
    """Bit mask. 1: packets to the server were seen; 2: packets to the client."""
    quiet_ns: int = 0
    """Of a broker's connection that has ended: how long its client had sent nothing, no heartbeat either."""
    deaf: bool = False
    """The decoder has no use for the server's bytes now: reassembly follows them and does not hand them
    on."""

    @property
    def is_reported(self) -> bool:
        """Whether it is known from a broker's firehose, which reports no acknowledgements."""
        return self.protocol == FIREHOSE


class Data(NamedTuple):
    """The next bytes of one direction of a connection, in order, each byte once."""

    connection: Connection
    direction: int
    """TO_SERVER or TO_CLIENT."""
    time_ns: int
    payload: bytes
    frames: Frames


class Gap(NamedTuple):
    """Bytes of one direction that are not in the capture. The next Data follows behind them."""

    connection: Connection
    direction: int
    time_ns: int
    """When it was noticed."""
    size_bytes: int
    """0 if it is not known."""
    since_ns: int = 0
    """Time of the last byte before the hole, or of later data of the other end that acknowledges no more than
    that byte."""
    frames: Frames = ()
    passed: bool = False
    """These bytes came late: they lie before the first byte that was handed on, of a connection that began
    before the capture. The next Data follows where the last one ended."""


class Closed(NamedTuple):
    """A connection has ended, or was never established."""

    connection: Connection
    time_ns: int
    how: str
    """fin · reset · refused (SYN answered by RST) · unanswered (SYN answered by nothing) · reused
    (the same ports began again) · idle (forgotten for its age) · end (the capture ends)."""
    direction: int = TO_SERVER
    """The direction of the FIN or RST. fin closes one direction, everything else closes both."""
    frames: Frames = ()
    attempts: int = 1
    """SYNs seen, for refused and unanswered."""
