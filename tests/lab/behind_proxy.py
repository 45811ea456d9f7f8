"""Captures of a server as if a proxy for TCP stood before it, with both sides of that on the plane."""

from __future__ import annotations

import socket
import struct

__all__ = ["behind_proxy"]

_DELAY_NS = 40_000
_Packets = list[tuple[int, bytes]]


def behind_proxy(packets: _Packets, server: str, port: int, proxy: str) -> _Packets:
    """*packets* with each packet of *server*:*port* twice: client <-> proxy, proxy <-> server."""
    own: dict[tuple[bytes, int], int] = {}
    at, middle = socket.inet_aton(server), socket.inet_aton(proxy)
    found: _Packets = []
    for time_ns, frame in packets:
        source, target = frame[26:30], frame[30:34]
        ports = struct.unpack_from(">HH", frame, 34)
        if frame[12:14] != b"\x08\0" or (at, port) not in ((source, ports[0]), (target, ports[1])):
            found.append((time_ns, frame))
            continue
        inwards = (target, ports[1]) == (at, port)
        client, number = (source, ports[0]) if inwards else (target, ports[1])
        mine = own.setdefault((client, number), 20_000 + len(own))
        legs = [(client, number, middle, port), (middle, mine, at, port)]
        if not inwards:
            legs = [(b, bp, a, ap) for a, ap, b, bp in reversed(legs)]
        for n, (a, ap, b, bp) in enumerate(legs):
            found.append((time_ns + n * _DELAY_NS, _between(frame, a, ap, b, bp)))
    return sorted(found, key=lambda packet: packet[0])


def _between(frame: bytes, a: bytes, a_port: int, b: bytes, b_port: int) -> bytes:
    return frame[:26] + a + b + struct.pack(">HH", a_port, b_port) + frame[38:]
