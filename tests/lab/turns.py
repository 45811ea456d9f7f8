"""A recorded scenario again and again, each time as other traffic of another time.

A turn has client ports and ids (UUIDs, and 32 hexadecimal digits, as oslo.messaging's) of its own, so that
each of its creations is a new one. At its end connections that are still open are reset: they do not go on.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tracer.capture import open_capture
from tracer.capture.streams import Deliver
from tracer.model import Capture, PacketFields

FIRST_CLIENT_PORT = 32768
CLIENT_PORTS = 28000
BATCH = 256
ID = re.compile(rb"[0-9a-f]{8}(?=-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{24}(?![0-9a-f]))")
_FIN_RST, _RST_ACK = 0x05, 0x14


class Changing(NamedTuple):
    """One packet, and where a turn changes it."""

    since_ns: int
    """Behind the begin of the turn."""
    plane: int
    data: bytes
    wire: int
    port_at: int
    """0 where there is nothing to change."""
    rank: int
    """Of its client's port, among those between the same two hosts and to the same service."""
    ports: int
    """How many these are."""
    ids_at: tuple[int, ...]


@dataclass
class Recording:
    """The packets of one scenario, all planes, in time order."""

    planes: list[str]
    packets: list[Changing]
    span_ns: int

    @classmethod
    def of(cls, folder: Path, keep: Callable[[bytes], bool] = lambda data: True) -> Recording:
        """Read the captures in *folder*, each of one plane, packets that *keep* does not want left out."""
        paths = sorted(p for p in folder.iterdir() if ".pcap" in p.name)
        found = [
            (packet[0], plane, packet[1], packet[2])
            for plane, path in enumerate(paths)
            for packet in chain.from_iterable(open_capture(str(path), Capture(plane, str(path))))
            if keep(packet[1])
        ]
        found.sort(key=lambda packet: packet[0])
        first_ns, last_ns = found[0][0], found[-1][0]
        found += [(last_ns + 1_000_000, plane, data, len(data)) for plane, data in _resets(found)]
        ranks = _Ranks()
        places = [ranks.place(data) for _, _, data, _ in found]
        packets = [
            Changing(time_ns - first_ns, plane, data, wire, at, rank, ranks.count(group), _ids(data))
            for (time_ns, plane, data, wire), (at, rank, group) in zip(found, places, strict=True)
        ]
        return cls([path.name.partition(".")[0] for path in paths], packets, last_ns - first_ns)

    def turn(self, number: int) -> Iterator[tuple[int, int, bytes, int]]:
        """Yield (nanoseconds since the turn began, plane, packet, length on the wire)."""
        names = number * 2654435761 & 0xFFFFFFFF
        for since_ns, plane, data, wire, port_at, rank, ports, ids_at in self.packets:
            if not number or not (port_at or ids_at):
                yield since_ns, plane, data, wire
                continue
            changed = bytearray(data)
            if port_at:
                port = FIRST_CLIENT_PORT + (rank + number * ports) % CLIENT_PORTS
                changed[port_at : port_at + 2] = port.to_bytes(2, "big")
            for at in ids_at:
                changed[at : at + 8] = b"%08x" % (int(data[at : at + 8], 16) ^ names)
            yield since_ns, plane, bytes(changed), wire


class _Ranks:
    """Numbers the client ports between two hosts, for each service."""

    def __init__(self) -> None:
        self._groups: dict[bytes, dict[bytes, int]] = {}

    def place(self, data: bytes) -> tuple[int, int, bytes]:
        """Return where the client's port stands in *data* (0: nowhere), its rank and its group."""
        if data[12:15] != b"\x08\x00\x45" or data[23] != 6:
            return 0, 0, b""
        sender, receiver = data[34:36], data[36:38]
        if int.from_bytes(sender, "big") >= FIRST_CLIENT_PORT:
            at, port, group = 34, sender, data[26:34] + receiver
        elif int.from_bytes(receiver, "big") >= FIRST_CLIENT_PORT:
            at, port, group = 36, receiver, data[30:34] + data[26:30] + sender
        else:
            return 0, 0, b""
        ranks = self._groups.setdefault(group, {})
        return at, ranks.setdefault(port, len(ranks)), group

    def count(self, group: bytes) -> int:
        return len(self._groups.get(group, ()))


def _ids(data: bytes) -> tuple[int, ...]:
    return tuple(found.start() for found in ID.finditer(data, 54))


def _resets(packets: Sequence[tuple[int, int, bytes, int]]) -> Iterator[tuple[int, bytes]]:
    """Yield (plane, packet) for each connection that is open at the end."""
    last: dict[tuple[int, bytes], tuple[int, bytes]] = {}
    over: set[tuple[int, bytes]] = set()
    for _, plane, data, _ in packets:
        if data[12:15] != b"\x08\x00\x45" or data[23] != 6:
            continue
        ends = sorted((data[26:30] + data[34:36], data[30:34] + data[36:38]))
        key = plane, ends[0] + ends[1]
        if data[47] & _FIN_RST:
            over.add(key)
        elif data[47] & 2:
            over.discard(key)
        last[key] = plane, data
    for key, (plane, data) in last.items():
        if key in over:
            continue
        size = int.from_bytes(data[16:18], "big") - 20 - (data[46] >> 4) * 4
        seq = int.from_bytes(data[38:42], "big") + size & 0xFFFFFFFF
        packet = bytearray(data[:54])
        packet[16:18] = (40).to_bytes(2, "big")
        packet[38:42] = seq.to_bytes(4, "big")
        packet[46], packet[47] = 0x50, _RST_ACK
        yield plane, bytes(packet)


class Together:
    """Lets all planes begin a turn together, and end together: at a number of turns, or a time."""

    def __init__(self, count: int, turns: int | None = None, seconds: float | None = None) -> None:
        self._left = turns
        self._until_s = None if seconds is None else time.monotonic() + seconds
        self._go = True
        self._barrier = threading.Barrier(count, self._decide)

    def _decide(self) -> None:
        if self._left is not None:
            self._left -= 1
            self._go = self._left >= 0
        if self._until_s is not None:
            self._go = self._go and time.monotonic() < self._until_s

    def goes_on(self) -> bool:
        self._barrier.wait()
        return self._go


class Turns:
    """One plane of *recordings* by turns, each *pause_ns* after the one before, as fast as it is read."""

    ends_on_stop = False
    dropped = 0

    def __init__(
        self, recordings: Sequence[Recording], plane: int, together: Together, begin_ns: int, pause_ns: int
    ) -> None:
        name = recordings[0].planes[plane]
        self.capture = Capture(plane, f"{name}.pcap", name)
        self._recordings = recordings
        self._plane = plane
        self._together = together
        self._begin_ns = begin_ns
        self._pause_ns = pause_ns

    def open(self) -> None:
        return

    def stop(self) -> None:
        return

    def read(self, deliver: Deliver) -> None:
        capture, begin_ns, number = self.capture, self._begin_ns, 0
        capture.first_ns = begin_ns
        while self._together.goes_on():
            recording = self._recordings[number % len(self._recordings)]
            batch: list[PacketFields] = []
            for since_ns, plane, data, wire in recording.turn(number):
                if plane != self._plane:
                    continue
                capture.packets += 1
                capture.last_ns = begin_ns + since_ns
                batch.append((begin_ns + since_ns, data, wire, 1, (capture.number, capture.packets), 0))
                if len(batch) >= BATCH:
                    deliver(batch, 0)
                    batch = []
            number += 1
            begin_ns += recording.span_ns + self._pause_ns
            # Nothing more comes of this turn: the others need not wait for it.
            deliver(batch, begin_ns)
