"""The table of connections, and its bounds: what is over, idle, of little interest, or only asked for.

Floods and scans open more connections than a cloud has. What is forgotten here opens anew, as joined, if more
is seen of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Connection,
    Endpoint,
    Segment,
    reverse_flow,
)
from tracer.reassembly.halves import ACK, SYN, Half, Opening, endpoints

__all__ = ["Attempts", "Connections", "note_capture"]

FORGET_CLOSED_NS = 60_000_000_000
"""Late packets of a closed connection are recognised for this long (TIME_WAIT in Linux is 60 s)."""
FORGET_IDLE_NS = 2 * 3600 * 1_000_000_000
"""An idle connection is forgotten after two hours, the default of TCP keep-alive."""
MAX_CONNECTIONS = 100_000
MAX_ATTEMPTS = 32_768
"""SYNs whose answer is waited for, about 600 bytes each; more are a flood."""
LIGHT_BYTES = 32 << 20
"""What connections may take together that are over, or of which little was heard."""
LIGHT_CONNECTIONS = 16_384
"""So many new connections later, those are looked for again."""
LITTLE_BYTES = 512
"""A connection that carried no more, either way, and shows no role is of little interest: no login, no
request that tells its service."""
_COST_BYTES, _DECODER_BYTES = 1_200, 3_000
"""What a connection takes, and its decoder."""


class Connections:
    """The directions of all connections that are known, by their flows.

    Without a SYN, the end whose port is in *server_ports* is the server, else it is a guess.
    """

    def __init__(self, server_ports: Collection[int]) -> None:
        self._ports = frozenset(server_ports)
        self.halves: dict[bytes, Half] = {}
        """Flow -> direction; each connection is here twice."""
        self.openings: dict[int, Opening] = {}
        """Connection number -> its unanswered SYN."""
        self._uncertain: dict[int, Half] = {}
        """Connection number -> one of its directions, while its server is a guess."""
        self._room = 2 * LIGHT_CONNECTIONS
        """With more directions than this it is looked for connections to forget."""
        self._number = 0
        self.evicted = 0
        """Connections forgotten because there were too many."""

    def next_number(self) -> int:
        """Return the number of a new connection."""
        self._number += 1
        return self._number

    def open(self, segment: Segment, joined: bool, number: int = 0) -> Half:
        """Start a connection with *segment* and return the direction of that segment.

        *joined*: the connection began before the capture.
        """
        source, destination = endpoints(segment.flow)
        certain = True
        if segment.flags & SYN:
            to_server = not segment.flags & ACK
        elif destination.port in self._ports or source.port in self._ports:
            to_server = destination.port in self._ports
            certain = not (destination.port in self._ports and source.port in self._ports)
        else:
            # Services listen on low ports, clients use ephemeral ones (from 32768 on in Linux).
            to_server, certain = destination.port <= source.port, False
        client, server = (source, destination) if to_server else (destination, source)
        connection = Connection(
            number or self.next_number(),
            client,
            server,
            segment.time_ns,
            joined,
            certain,
            segment.vlan,
            segment.interface,
        )
        half = Half(connection, TO_SERVER if to_server else TO_CLIENT)
        half.peer = Half(connection, TO_CLIENT if to_server else TO_SERVER)
        half.peer.peer = half
        half.last_ns = half.peer.last_ns = segment.time_ns
        if not certain:
            self._uncertain[connection.number] = half
        before = self.halves.get(segment.flow)
        if before is not None:
            _gone(before)
        self.halves[segment.flow] = half
        self.halves[reverse_flow(segment.flow)] = half.peer
        return half

    def turn(self, connection: Connection) -> None:
        """Swap client and server of *connection*; no effect once its server is certain."""
        half = self._uncertain.pop(connection.number, None)
        if half is None:
            return
        connection.client, connection.server = connection.server, connection.client
        connection.certain = True
        # Swap the two bits of `seen`.
        connection.seen = connection.seen >> 1 | (connection.seen & 1) << 1
        half.direction, half.peer.direction = half.peer.direction, half.direction

    def is_full(self) -> bool:
        """Return whether so many were opened that some should be forgotten."""
        return len(self.halves) > self._room

    def drop(self, flow: bytes) -> None:
        """Forget the direction *flow*."""
        half = self.halves.pop(flow)
        self._uncertain.pop(half.connection.number, None)
        _gone(half)

    def drop_both(self, flow: bytes) -> None:
        """Forget both directions of a connection."""
        for key in (flow, reverse_flow(flow)):
            if key in self.halves:
                self.drop(key)

    def idle(self, time_ns: int) -> list[Half]:
        """Forget connections closed for `FORGET_CLOSED_NS`; return directions idle for `FORGET_IDLE_NS`."""
        idle, gone = [], []
        for flow, half in self.halves.items():
            quiet_ns = time_ns - max(half.last_ns, half.peer.last_ns)
            if half.finished and half.peer.finished:
                if quiet_ns > FORGET_CLOSED_NS:
                    gone.append(flow)
            elif quiet_ns > FORGET_IDLE_NS:
                idle.append(half)
        # Two entries for each connection.
        for flow in gone:
            self.drop(flow)
        return idle

    def too_many(self) -> list[tuple[bytes, Half]]:
        """Return the quarter of the connections that was silent for longest, if there are too many."""
        if len(self.halves) <= 2 * MAX_CONNECTIONS:
            return []
        # A quarter at once, so that the sort is paid rarely. Both directions of a connection have the same
        # key and stand next to each other; an even number of entries keeps them together.
        oldest = sorted(self.halves.items(), key=lambda item: max(item[1].last_ns, item[1].peer.last_ns))
        return oldest[: len(oldest) // 8 * 2]

    def light(self) -> Iterator[tuple[bytes, Half]]:
        """Yield the oldest connections that are over, or that carried nothing of interest.

        Of these is kept what `LIGHT_BYTES` hold: only floods have more.
        """
        light = [
            (max(half.last_ns, half.peer.last_ns), flow, half)
            for flow, half in self.halves.items()
            if half.direction == TO_SERVER and _is_light(half)
        ]
        light.sort(key=_first, reverse=True)
        left_bytes = LIGHT_BYTES
        for _, flow, half in light:
            over = half.finished and half.peer.finished
            decoded = half.connection.protocol and not over
            left_bytes -= _COST_BYTES + _DECODER_BYTES if decoded else _COST_BYTES
            if left_bytes < 0:
                yield flow, half
        self._room = len(self.halves) + 2 * LIGHT_CONNECTIONS


class Attempts:
    """SYNs of which nothing else was seen: a flood of them takes no connections."""

    def __init__(self) -> None:
        self._asked: dict[bytes, tuple[int, Segment]] = {}
        """Flow -> number of its connection and the SYN."""
        self.forgotten = 0
        """SYNs forgotten because there were too many."""

    def add(self, number: int, segment: Segment, halves: dict[bytes, Half]) -> None:
        """Keep the SYN *segment* of connection *number*; with too many, forget half of them."""
        self._asked[segment.flow] = number, segment
        if len(self._asked) > MAX_ATTEMPTS:
            self._forget(halves)

    def take(self, flow: bytes) -> tuple[int, Segment] | None:
        """Return and remove number and SYN of *flow* or of its other direction; None if there is none."""
        if not self._asked:
            return None
        return self._asked.pop(flow, None) or self._asked.pop(reverse_flow(flow), None)

    def due(self, time_ns: int, after_ns: int) -> list[tuple[int, Segment]]:
        """Return and remove those that are unanswered for *after_ns*."""
        due = []
        for number, segment in self._asked.values():
            if time_ns - segment.time_ns < after_ns:
                break
            due.append((number, segment))
        for _, segment in due:
            del self._asked[segment.flow]
        return due

    def clear(self) -> None:
        """Forget all: their answers may just be outside of the capture."""
        self._asked.clear()

    def _forget(self, halves: dict[bytes, Half]) -> None:
        """Forget the older half of them, but for those of clients that are heard elsewhere."""
        heard = {half.connection.client.address for half in halves.values() if half.connection.protocol}
        oldest = list(self._asked.items())[: MAX_ATTEMPTS // 2]
        strange = [flow for flow, _ in oldest if endpoints(flow)[0].address not in heard]
        for flow in strange if len(strange) > MAX_ATTEMPTS // 8 else [flow for flow, _ in oldest]:
            del self._asked[flow]
            self.forgotten += 1


def note_capture(connection: Connection, segment: Segment) -> None:
    """Record that *segment* of *connection* was seen, and where."""
    for capture, _ in segment.frames:
        if capture not in connection.captures:
            connection.captures.append(capture)
    if segment.vlan and not connection.vlan:
        connection.vlan = segment.vlan


def _is_light(half: Half) -> bool:
    """Return whether the connection of *half* is over, or has carried nothing that tells of anything."""
    connection, peer = half.connection, half.peer
    if half.finished and peer.finished:
        return True
    if connection.protocol is None:
        return True
    if connection.joined or connection.client_role or connection.server_role:
        return False
    return half.carried() <= LITTLE_BYTES and peer.carried() <= LITTLE_BYTES


def _gone(half: Half) -> None:
    """Untie *half* from its peer: a cycle would be left to the garbage collector, which looks rarely."""
    half.peer.peer = half.peer = _NOBODY


def _first(light: tuple[int, bytes, Half]) -> int:
    return light[0]


_NOBODY = Half(Connection(0, Endpoint("", 0), Endpoint("", 0), 0), TO_SERVER)
"""The peer of a direction that is forgotten."""
_NOBODY.finished = True
