"""Damage done to captures, as pure functions: a list of packets in, a new list of packets out.

A packet is `(time_ns, frame, wire_bytes)`; `frame` is what the file holds of it. Everything that is
random takes a seed: the same seed gives the same damage. Functions that must look into a packet take
the file's link type (ETHERNET or COOKED2, which are those of the captures at hand).

    link_type, packets = read("Internal_base.pcap.zst")
    write("damaged.pcap", lose(packets, 0.01), link_type)
"""

from __future__ import annotations

import gzip
import random
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import zstandard

ETHERNET, COOKED2 = 1, 276
Packet = tuple[int, bytes, int]
Packets = list[Packet]

_MAGICS = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
_VLAN_TYPES = (0x8100, 0x88A8, 0x9100)
_FIN_SYN_RST = 0x07


# Files


def read(path: str | Path) -> tuple[int, Packets]:
    """Link type and packets of a little-endian pcap file, plain, .gz or .zst."""
    data = Path(path).read_bytes()
    if data[:4] == b"\x28\xb5\x2f\xfd":
        data = zstandard.ZstdDecompressor().stream_reader(data).read()
    elif data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    magic, *_, link_type = struct.unpack_from("<IHHiIII", data)
    unit_ns = _MAGICS[magic]
    packets, offset = [], 24
    while offset + 16 <= len(data):
        seconds, fraction, captured, wire = struct.unpack_from("<4I", data, offset)
        offset += 16
        packets.append((seconds * 1_000_000_000 + fraction * unit_ns, data[offset : offset + captured], wire))
        offset += captured
    return link_type & 0xFFFF, packets


def pcap(packets: Sequence[Packet], link_type: int, unit_ns: int = 1000, snap_bytes: int = 262144) -> bytes:
    """A pcap file in microseconds (unit_ns 1000) or nanoseconds (1)."""
    magic = next(magic for magic, unit in _MAGICS.items() if unit == unit_ns)
    parts = [struct.pack("<IHHiIII", magic, 2, 4, 0, 0, snap_bytes, link_type)]
    for time_ns, frame, wire in packets:
        seconds, rest = divmod(time_ns, 1_000_000_000)
        parts += (struct.pack("<4I", seconds, rest // unit_ns, len(frame), wire), frame)
    return b"".join(parts)


def pcapng(interfaces: Sequence[tuple[str, int, Sequence[Packet]]]) -> bytes:
    """One pcapng file with nanoseconds, an interface for each (name, link type, packets), merged by time."""

    def block(kind: int, body: bytes) -> bytes:
        size = 12 + len(body)
        return struct.pack("<2I", kind, size) + body + struct.pack("<I", size)

    def option(code: int, value: bytes) -> bytes:
        return struct.pack("<2H", code, len(value)) + value + bytes(-len(value) % 4)

    parts = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    for name, link_type, _ in interfaces:
        options = option(2, name.encode()) + option(9, b"\x09") + option(0, b"")
        parts.append(block(1, struct.pack("<HHI", link_type, 0, 0) + options))
    merged = sorted(
        (packet[0], number, place)
        for number, (_, _, packets) in enumerate(interfaces)
        for place, packet in enumerate(packets)
    )
    for time_ns, number, place in merged:
        _, frame, wire = interfaces[number][2][place]
        head = struct.pack("<5I", number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(frame), wire)
        parts.append(block(6, head + frame + bytes(-len(frame) % 4)))
    return b"".join(parts)


def write(path: str | Path, packets: Sequence[Packet], link_type: int, unit_ns: int = 1000) -> None:
    """Write a pcap file; a name in .gz or .zst compresses it."""
    data, name = pcap(packets, link_type, unit_ns), str(path)
    if name.endswith(".gz"):
        data = gzip.compress(data, 1)
    elif name.endswith(".zst"):
        data = zstandard.ZstdCompressor(3).compress(data)
    Path(path).write_bytes(data)


def cut_bytes(data: bytes, share: float) -> bytes:
    """The first *share* of a file's bytes: the last record is mostly a truncated one."""
    return data[: max(24, int(len(data) * share))]


# A look into packets


class Segment(NamedTuple):
    """One IPv4 TCP segment of a frame."""

    ip: int
    """Where the IPv4 header starts in the frame."""
    tcp: int
    data: int
    end: int
    """Where the TCP payload ends in the undamaged frame."""
    source: tuple[bytes, int]
    destination: tuple[bytes, int]
    sequence: int
    flags: int


def segment(frame: bytes, link_type: int) -> Segment | None:
    """The TCP segment in a frame, or None."""
    if link_type == COOKED2:
        kind, ip = int.from_bytes(frame[:2]), 20
    else:
        kind, ip = int.from_bytes(frame[12:14]), 14
        while kind in _VLAN_TYPES:
            kind, ip = int.from_bytes(frame[ip + 2 : ip + 4]), ip + 4
    if kind != 0x0800 or len(frame) < ip + 40 or frame[ip + 9] != 6:
        return None
    tcp = ip + (frame[ip] & 15) * 4
    source_port, destination_port, sequence = struct.unpack_from("!HHI", frame, tcp)
    return Segment(
        ip,
        tcp,
        tcp + (frame[tcp + 12] >> 4) * 4,
        ip + int.from_bytes(frame[ip + 2 : ip + 4]),
        (frame[ip + 12 : ip + 16], source_port),
        (frame[ip + 16 : ip + 20], destination_port),
        sequence,
        frame[tcp + 13],
    )


def _rebuilt(frame: bytes, at: Segment, sequence: int, payload: bytes, flags: int) -> bytes:
    """The frame with another piece of the stream in it; the checksums are wrong, as with offload."""
    head = bytearray(frame[: at.data])
    struct.pack_into("!H", head, at.ip + 2, at.data - at.ip + len(payload))
    struct.pack_into("!I", head, at.tcp + 4, sequence & 0xFFFFFFFF)
    head[at.tcp + 13] = flags
    return bytes(head) + payload


# What a capture point does without losing anything


def reorder(
    packets: Sequence[Packet],
    share: float = 0.02,
    seed: int = 1,
    keep_times: bool = True,
    within_ns: int = 5_000_000,
) -> Packets:
    """Displace a share of the packets by 1 to 3 positions, as far as 5 ms reach.

    With *keep_times* each packet keeps its time, so records are out of time order (several capture
    queues); without it the times stay in place, so the packets really came in another order.
    """
    chance, moved = random.Random(seed), list(packets)
    for place in range(len(moved) - 1, 0, -1):
        if chance.random() < share:
            to = max(0, place - chance.randint(1, 3))
            while packets[place][0] - packets[to][0] > within_ns:
                to += 1
            moved.insert(to, moved.pop(place))
    if keep_times:
        return moved
    return [(time[0], packet[1], packet[2]) for time, packet in zip(packets, moved, strict=True)]


def duplicate(packets: Sequence[Packet], later_ns: int = 1000, share: float = 1.0, seed: int = 1) -> Packets:
    """A share of the packets twice; all, as a SPAN port with both directions of both ports shows them."""
    chance, twice = random.Random(seed), []
    for time_ns, frame, wire in packets:
        twice.append((time_ns, frame, wire))
        if chance.random() < share:
            twice.append((time_ns + later_ns, frame, wire))
    return sorted(twice, key=lambda packet: packet[0])


def delay(packets: Sequence[Packet], share: float, within_ns: int, seed: int = 1) -> Packets:
    """A share of the packets is captured late, by up to *within_ns*, and has the time of that."""
    chance = random.Random(seed)
    late = [
        (time_ns + chance.randint(0, within_ns) if chance.random() < share else time_ns, frame, wire)
        for time_ns, frame, wire in packets
    ]
    return sorted(late, key=lambda packet: packet[0])


def displace(packets: Sequence[Packet], share: float, within_ns: int, seed: int = 1) -> Packets:
    """A share of the records is written late, by up to *within_ns*; each packet keeps its time."""
    chance = random.Random(seed)
    written = [packet[0] + chance.randint(0, within_ns) * (chance.random() < share) for packet in packets]
    return [packets[place] for place in sorted(range(len(packets)), key=written.__getitem__)]


def retransmit(packets: Sequence[Packet], link_type: int, share: float = 0.02, seed: int = 1) -> Packets:
    """A share of the TCP data segments is sent again 1 to 200 ms later, with another IP identification."""
    chance, sent = random.Random(seed), list(packets)
    for time_ns, frame, wire in packets:
        at = segment(frame, link_type)
        if at and at.end > at.data and chance.random() < share:
            again = bytearray(frame)
            again[at.ip + 4 : at.ip + 6] = chance.randbytes(2)
            sent.append((time_ns + chance.randint(1_000_000, 200_000_000), bytes(again), wire))
    return sorted(sent, key=lambda packet: packet[0])


def qinq(packets: Sequence[Packet], outer: int = 100, inner: int = 200) -> Packets:
    """Two VLAN tags (802.1ad) on each Ethernet frame."""
    tags = struct.pack("!4H", 0x88A8, outer, 0x8100, inner)
    return [(time_ns, frame[:12] + tags + frame[12:], wire + 8) for time_ns, frame, wire in packets]


def vxlan(packets: Sequence[Packet], network: int = 4000) -> Packets:
    """Each Ethernet frame in VXLAN between two hosts, over UDP 4789."""
    wrapped = []
    for number, (time_ns, frame, wire) in enumerate(packets):
        ip = struct.pack(
            "!BBHHHBBH8s",
            0x45,
            0,
            min(36 + wire, 65535),
            number & 0xFFFF,
            0,
            64,
            17,
            0,
            bytes((192, 0, 2, 1, 192, 0, 2, 2)),
        )
        udp = struct.pack("!4H", 49152 + number % 1000, 4789, min(16 + wire, 65535), 0)
        outer = b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0" + ip + udp + struct.pack("!II", 8 << 24, network << 8)
        wrapped.append((time_ns, outer + frame, wire + len(outer)))
    return wrapped


def shift(packets: Sequence[Packet], by_ns: int) -> Packets:
    """A capture point whose clock is off."""
    return [(time_ns + by_ns, frame, wire) for time_ns, frame, wire in packets]


def drift(packets: Sequence[Packet], parts_per_million: float) -> Packets:
    """A capture point whose clock runs fast (slow below 0); right at the first packet."""
    start_ns = packets[0][0] if packets else 0
    return [
        (time_ns + round((time_ns - start_ns) * parts_per_million / 1e6), frame, wire)
        for time_ns, frame, wire in packets
    ]


def step_clock(packets: Sequence[Packet], at_ns: int, by_ns: int) -> Packets:
    """The clock of a capture point is set at *at_ns*; the records stay in the order of their capture."""
    return [
        (time_ns + by_ns if time_ns >= at_ns else time_ns, frame, wire) for time_ns, frame, wire in packets
    ]


def super_segments(
    packets: Sequence[Packet], link_type: int, within_ns: int = 2_000_000, longest: int = 60_000
) -> Packets:
    """Consecutive segments of one direction as one packet of up to 60 KB with a wrong checksum (GRO).

    The merged packet is where its last segment was. Data of the other direction, or a FIN, ends it.
    """
    merged: list[Packet | None] = []
    open_ones: dict[tuple[tuple[bytes, int], tuple[bytes, int]], tuple[int, int]] = {}
    for time_ns, frame, wire in packets:
        at = segment(frame, link_type)
        merged.append((time_ns, frame, wire))
        if at is None or len(frame) != wire:
            continue
        flow, payload = (at.source, at.destination), frame[at.data : at.end]
        if not payload or at.flags & _FIN_SYN_RST:
            if at.flags & _FIN_SYN_RST:
                open_ones.pop(flow, None)
                open_ones.pop((at.destination, at.source), None)
            continue
        open_ones.pop((at.destination, at.source), None)
        place, following = open_ones.get(flow, (-1, -1))
        before = merged[place] if place >= 0 else None
        if before and following == at.sequence and time_ns - before[0] <= within_ns:
            first = segment(before[1], link_type)
            assert first is not None
            data = before[1][first.data : first.end] + payload
            if len(data) <= longest:
                whole = _rebuilt(before[1], first, first.sequence, data, at.flags)
                merged[place], merged[-1] = None, (time_ns, whole, len(whole))
        open_ones[flow] = len(merged) - 1, (at.sequence + len(payload)) & 0xFFFFFFFF
    return [packet for packet in merged if packet]


def coalesce(
    packets: Sequence[Packet], link_type: int, port: int = 5672, seed: int = 1, spared: int = 40
) -> Packets:
    """Segment edges of one protocol that ignore its frames, after the first packets of each connection.

    Each segment is cut in two at a random place, 1 µs apart; then parts of one burst are joined anew.
    Nothing comes later than it came, so that no effect precedes its cause.
    """
    chance, counts, parts = random.Random(seed), {}, []
    for time_ns, frame, wire in packets:
        at = segment(frame, link_type)
        ours = at and len(frame) == wire and port in (at.source[1], at.destination[1])
        if not at or not ours or at.end - at.data < 2:
            parts.append((time_ns, frame, wire))
            continue
        connection = frozenset((at.source, at.destination))
        counts[connection] = counts.get(connection, 0) + 1
        if counts[connection] <= spared:
            parts.append((time_ns, frame, wire))
            continue
        payload = frame[at.data : at.end]
        where = chance.randint(1, len(payload) - 1)
        front = _rebuilt(frame, at, at.sequence, payload[:where], at.flags & ~_FIN_SYN_RST)
        back = _rebuilt(frame, at, at.sequence + where, payload[where:], at.flags)
        parts += ((time_ns, front, len(front)), (time_ns + 1000, back, len(back)))
    return [packet for packet in _joined_ends(parts, link_type, port)]


def _joined_ends(packets: Sequence[Packet], link_type: int, port: int) -> Iterator[Packet]:
    """Join a segment's end to the start of the next one of its burst; their common edge goes away."""
    held: dict[tuple[tuple[bytes, int], tuple[bytes, int]], tuple[Packet, Segment]] = {}
    out: Packets = []
    for time_ns, frame, wire in packets:
        at = segment(frame, link_type)
        if not at or port not in (at.source[1], at.destination[1]):
            out.append((time_ns, frame, wire))
            continue
        flow, size = (at.source, at.destination), at.end - at.data
        back = held.pop((at.destination, at.source), None)
        if back:
            out.append(back[0])
        before = held.pop(flow, None)
        if before:
            (then_ns, old, _), first = before
            gap = 1000 < time_ns - then_ns <= 2_000_000
            if gap and size and at.sequence == (first.sequence + first.end - first.data) & 0xFFFFFFFF:
                data = old[first.data : first.end] + frame[at.data : at.end]
                whole = _rebuilt(old, first, first.sequence, data, at.flags)
                out.append((time_ns, whole, len(whole)))
                continue
            out.append(before[0])
        if size and not at.flags & _FIN_SYN_RST:
            held[flow] = (time_ns, frame, wire), at
        else:
            out.append((time_ns, frame, wire))
    out += (packet for packet, _ in held.values())
    yield from sorted(out, key=lambda packet: packet[0])


# What loses something


def lose(packets: Sequence[Packet], share: float, seed: int = 1) -> Packets:
    """Each packet lost with this probability."""
    chance = random.Random(seed)
    return [packet for packet in packets if chance.random() >= share]


def without_front(packets: Sequence[Packet], share: float) -> Packets:
    """Without the first share of the packets: the capture began in the middle."""
    return list(packets[int(len(packets) * share) :])


def without_end(packets: Sequence[Packet], share: float) -> Packets:
    """Without the last share of the packets: the capture was stopped too early."""
    return list(packets[: len(packets) - int(len(packets) * share)])


def time_at(files: Sequence[Sequence[Packet]], share: float) -> int:
    """When this share of the packets of all files has passed: for damage common to several files."""
    times = sorted(packet[0] for packets in files for packet in packets)
    return times[min(len(times) - 1, int(len(times) * share))] if times else 0


def since(packets: Sequence[Packet], start_ns: int) -> Packets:
    return [packet for packet in packets if packet[0] >= start_ns]


def until(packets: Sequence[Packet], end_ns: int) -> Packets:
    return [packet for packet in packets if packet[0] < end_ns]


def outside(packets: Sequence[Packet], spans: Sequence[tuple[int, int]]) -> Packets:
    """Without the packets of some spans of time (from, to) in ns: bursts of loss."""
    return [packet for packet in packets if not any(since <= packet[0] < to for since, to in spans)]


def snap(packets: Sequence[Packet], snap_bytes: int) -> Packets:
    """Each packet cut at a snap length."""
    return [(time_ns, frame[:snap_bytes], wire) for time_ns, frame, wire in packets]


def _kept(packets: Sequence[Packet], link_type: int, keep: Callable[[Segment], bool]) -> Packets:
    return [packet for packet in packets if not (at := segment(packet[1], link_type)) or keep(at)]


def without_port(packets: Sequence[Packet], link_type: int, port: int) -> Packets:
    """Without the connections of one TCP port: a capture filter too narrow."""
    return _kept(packets, link_type, lambda at: port not in (at.source[1], at.destination[1]))


def one_direction(packets: Sequence[Packet], link_type: int, to_server: bool) -> Packets:
    """Only client to server, or only server to client; the server is the end with the lower port."""
    return _kept(packets, link_type, lambda at: (at.destination[1] < at.source[1]) == to_server)


def half_connections(packets: Sequence[Packet], link_type: int, share: float = 0.1, seed: int = 1) -> Packets:
    """A share of the connections loses one of its directions, as with routes that differ."""
    chance = random.Random(seed)
    lost: dict[frozenset[tuple[bytes, int]], tuple[bytes, int] | None] = {}

    def keep(at: Segment) -> bool:
        ends = frozenset((at.source, at.destination))
        if ends not in lost:
            lost[ends] = chance.choice(sorted(ends)) if chance.random() < share else None
        return lost[ends] != at.source

    return _kept(packets, link_type, keep)


def without_host(packets: Sequence[Packet], link_type: int, address: bytes) -> Packets:
    """Without the TCP packets to and from one IPv4 address: a port of a switch that is not mirrored."""
    return _kept(packets, link_type, lambda at: address not in (at.source[0], at.destination[0]))


def without_sender(packets: Sequence[Packet], link_type: int, address: bytes) -> Packets:
    """Without the TCP packets that one IPv4 address sends: its port is mirrored in one direction."""
    return _kept(packets, link_type, lambda at: address != at.source[0])


def flip_bits(packets: Sequence[Packet], share: float = 0.01, seed: int = 1) -> Packets:
    """One bit, anywhere, of a share of the frames is another; checksums stay as they were."""
    chance, spoilt = random.Random(seed), []
    for time_ns, frame, wire in packets:
        if frame and chance.random() < share:
            bit = chance.randrange(len(frame) * 8)
            place = bit // 8
            frame = frame[:place] + bytes((frame[place] ^ 1 << bit % 8,)) + frame[place + 1 :]
        spoilt.append((time_ns, frame, wire))
    return spoilt


def corrupt(packets: Sequence[Packet], share: float = 0.01, seed: int = 1) -> Packets:
    """A few bytes of a share of the frames overwritten, behind the headers."""
    chance, spoilt = random.Random(seed), []
    for time_ns, frame, wire in packets:
        if len(frame) > 80 and chance.random() < share:
            place = chance.randrange(70, len(frame) - 4)
            frame = frame[:place] + chance.randbytes(4) + frame[place + 4 :]
        spoilt.append((time_ns, frame, wire))
    return spoilt


def rotated(packets: Sequence[Packet], files: int) -> list[Packets]:
    """The packets in several files of equal length, as a rotating capture writes them."""
    size = -(-len(packets) // files) or 1
    return [list(packets[start : start + size]) for start in range(0, len(packets), size)]
