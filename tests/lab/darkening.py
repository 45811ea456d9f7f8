"""Captures in which the payload of some protocols is TLS that nobody has the keys of."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from pathlib import Path

from tracer.capture import open_capture
from tracer.model import Capture
from tracer.testing.packets import pcap

REST = frozenset({8774, 5000, 9292, 9696, 8776, 8778, 7070, 8080})
AMQP = frozenset({5672})
SQL = frozenset({3306, 5432})
SECURE = {5672: 5671}
"""Port of a protocol -> the port of the same under TLS."""

Packets = list[tuple[int, bytes]]


def darkened(packets: Iterable[tuple[int, bytes]], ports: Collection[int]) -> Packets:
    """*packets* (Ethernet, IPv4), those of *ports* with records of TLS as payload, of the same lengths."""
    return [(time_ns, _darkened(frame, ports)) for time_ns, frame in packets]


def _darkened(frame: bytes, ports: Collection[int]) -> bytes:
    if frame[12:14] != b"\x08\x00" or frame[23] != 6:
        return frame
    tcp = 14 + (frame[14] & 15) * 4
    ends = struct.unpack_from(">HH", frame, tcp)
    if not any(port in ports for port in ends):
        return frame
    out = bytearray(frame)
    struct.pack_into(">HH", out, tcp, *(SECURE.get(port, port) for port in ends))
    begin = tcp + (frame[tcp + 12] >> 4) * 4
    size = 14 + struct.unpack_from(">H", frame, 16)[0] - begin
    if size > 0:
        noise = bytes((7 * i + 131) & 255 for i in range(size))
        out[begin : begin + size] = (struct.pack(">BHH", 23, 0x303, max(0, size - 5)) + noise)[:size]
    return bytes(out)


def dark_copy(source: Path, folder: Path, ports: Collection[int], only: str = "") -> list[str]:
    """Write the captures of the folder *source* to *folder*, dark on *ports*; return their paths.

    With *only*, a plane, those of the other planes stay as they are.
    """
    paths = []
    for path in sorted(source.glob("*.pcap*")):
        plane = path.name.partition(".")[0]
        batches = open_capture(str(path), Capture(0, str(path), plane))
        packets = [(packet[0], packet[1]) for batch in batches for packet in batch]
        copy = folder / f"{plane}.pcap"
        copy.write_bytes(pcap(darkened(packets, ports if only in ("", plane) else ())))
        paths.append(str(copy))
    return paths
