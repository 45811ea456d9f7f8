"""Encodes the blocks of a pcapng file: section header, interfaces, packets, statistics.

Every block is complete and aligned, and depends on no later block. So a file whose writer was killed is valid
up to its last complete block.

Source: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["Described", "drops_block", "interface_block", "packet_block", "section_block", "statistics_block"]

_NAME, _DESCRIPTION, _FILTER, _RESOLUTION, _HARDWARE, _APPLICATION = 2, 3, 11, 9, 2, 4
_END_TIME, _DROPPED, _DELIVERED = 3, 5, 8
_NANOSECONDS = b"\x09"
_PACKET = struct.Struct("<7I")


class Described(NamedTuple):
    """The description of one interface of a file."""

    name: str
    """The plane, which readers take from here (if_name)."""
    description: str
    """The name of the captured interface (if_description)."""
    link_type: int
    bpf: str = ""


def section_block(application: str) -> bytes:
    """Return the section header block; its section length is -1, unknown."""
    body = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _option(_APPLICATION, application.encode()) + bytes(4)
    return _block(0x0A0D0D0A, body)


def interface_block(interface: Described) -> bytes:
    """Return an interface description block with a time resolution of nanoseconds."""
    options = _option(_NAME, interface.name.encode()) + _option(_DESCRIPTION, interface.description.encode())
    options += _option(_RESOLUTION, _NANOSECONDS)
    if interface.bpf:
        # The first byte is the kind of filter; 0 is a libpcap filter string.
        options += _option(_FILTER, b"\0" + interface.bpf.encode())
    return _block(1, struct.pack("<HHI", interface.link_type, 0, 0) + options + bytes(4))


def packet_block(interface: int, time_ns: int, data: bytes, wire_bytes: int) -> bytes:
    """Return an enhanced packet block; *wire_bytes* is the original length of the packet."""
    # Written in one piece rather than with `_block`: this runs for every packet.
    padding = -len(data) & 3
    length = 32 + len(data) + padding
    head = _PACKET.pack(
        6, length, interface, time_ns >> 32 & 0xFFFFFFFF, time_ns & 0xFFFFFFFF, len(data), wire_bytes
    )
    return b"".join((head, data, bytes(padding), length.to_bytes(4, "little")))


def statistics_block(interface: int, ended_ns: int, packets: int) -> bytes:
    """Return an interface statistics block with the end time of the recording and its number of packets."""
    end = struct.pack("<II", ended_ns >> 32 & 0xFFFFFFFF, ended_ns & 0xFFFFFFFF)
    return _statistics(
        interface, ended_ns, _option(_END_TIME, end) + _option(_DELIVERED, struct.pack("<Q", packets))
    )


def drops_block(interface: int, time_ns: int, dropped: int) -> bytes:
    """Return an interface statistics block with the total of packets that the kernel dropped by *time_ns*."""
    return _statistics(interface, time_ns, _option(_DROPPED, struct.pack("<Q", dropped)))


def _statistics(interface: int, time_ns: int, options: bytes) -> bytes:
    head = struct.pack("<3I", interface, time_ns >> 32 & 0xFFFFFFFF, time_ns & 0xFFFFFFFF)
    return _block(5, head + options + bytes(4))


def _option(code: int, value: bytes) -> bytes:
    value = value[:0xFFFF]
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) & 3)


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) & 3)
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length
