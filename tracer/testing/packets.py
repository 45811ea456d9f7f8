"""Makes packets of conversations, as capture points see them.

Data are collected first, and cut into TCP segments in order of time when they are written. So the data of one
connection may be added in any order. Times are seconds since T0; no clock is read.

    network = Network()
    web = network.connection("10.0.0.1", "10.0.0.2", 8774, at=0)
    web.say(0.1, request("GET", "/"))
    web.hear(0.2, response(200))
    network.write(folder)                      # -> the files, one for each capture point
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

T0_NS = 1_795_330_000_000_000_000
"""2026-11-22T06:46:40Z"""
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
MSS = 1448


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
    """Return an Ethernet frame with one TCP segment."""
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
    """Return the content of a pcap file with times in nanoseconds."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)]
    for time_ns, data in packets:
        parts += (struct.pack("<4I", *divmod(time_ns, 1_000_000_000), len(data), len(data)), data)
    return b"".join(parts)


@dataclass(eq=False)
class Connection:
    """One TCP connection; its client sends with `say` and receives with `hear`."""

    network: Network
    client: tuple[str, int]
    server: tuple[str, int]
    points: tuple[str, ...] | None = None
    """The capture points that see it; None: those of `Network.points_of`."""

    def say(self, at: float, data: bytes, *, lost: bool = False) -> None:
        """Add data to the server; *lost*: it was sent, and no capture point saw it."""
        self.network.events.append((at, self, 0, PSH | ACK, data, lost))

    def hear(self, at: float, data: bytes, *, lost: bool = False) -> None:
        """Add data to the client; *lost* as of `say`."""
        self.network.events.append((at, self, 1, PSH | ACK, data, lost))

    def close(self, at: float, how: int = FIN | ACK, by: int = 1) -> None:
        """Close the connection: FIN from both sides, or RST from one."""
        self.network.events.append((at, self, by, how, b"", False))
        if how & FIN:
            self.network.events.append((at + 0.00002, self, 1 - by, how, b"", False))


class Network:
    """All connections, and the capture points that see them.

    *points_of* returns the names of the capture points that see a packet between two addresses.
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
        """Return a connection that is opened at *at*; None: it was open before the capture."""
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
        """Add a connection attempt that is answered with RST."""
        made = self.connection(client, server, port, points=points)
        self.events += [(at, made, 0, SYN, b"", False), (at + 0.00005, made, 1, RST | ACK, b"", False)]

    def ignore(self, at: float, client: str, server: str, port: int, tries: int = 3) -> None:
        """Add a connection attempt that is never answered."""
        made = self.connection(client, server, port)
        self.events += [(at + 2**n - 1, made, 0, SYN, b"", False) for n in range(tries)]

    def packets(self) -> dict[str, list[tuple[int, bytes]]]:
        """Return capture point -> (time, frame), in order of time."""
        seen: dict[str, list[tuple[int, bytes]]] = {}
        following: dict[Connection, list[int]] = {}
        free_ns: dict[Connection, int] = {}
        ip_id = 0
        for at, made, side, flags, data, lost in sorted(
            [*self.events, *self._first_acks()], key=lambda event: event[0]
        ):
            ends, seqs = (made.client, made.server), following.setdefault(made, [1_000_001, 5_000_001])
            # Segments of long data are sent one after the other; later data of the connection follow them.
            time_ns = max(T0_NS + round(at * 1e9), free_ns.get(made, 0))
            free_ns[made] = time_ns + len(data)
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

    def _first_acks(self) -> list[tuple[float, Connection, int, int, bytes, bool]]:
        """Return one pure ACK for each end that only listens, as a real one sends (RFC 9293, 3.8.6.3)."""
        sides: dict[Connection, set[int]] = {}
        first: dict[Connection, tuple[float, int]] = {}
        for at, made, side, _, data, _ in self.events:
            sides.setdefault(made, set()).add(side)
            if data and at <= first.get(made, (at, 0))[0]:
                first[made] = (at, side)
        delay = 0.04
        return [
            (at + delay, made, 1 - side, ACK, b"", False)
            for made, (at, side) in first.items()
            if len(sides[made]) == 1
        ]

    def write(self, folder: Path) -> list[str]:
        """Write one pcap file for each capture point; return their paths."""
        paths = []
        for point, packets in sorted(self.packets().items()):
            path = folder / f"{point}.pcap"
            path.write_bytes(pcap(packets))
            paths.append(str(path))
        return paths
