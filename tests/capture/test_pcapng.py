"""pcapng files: sections, interfaces, times, blocks that carry packets, and damage."""

from __future__ import annotations

import gzip
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.reading import packets_of
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, PcapWriter

from tracer.errors import SourceError
from tracer.model import Capture, Packet

START_S = 1_767_225_600
ETHER = Ether(src="52:54:00:00:00:01", dst="52:54:00:00:00:02")
"""With both addresses: scapy asks the network for one that is left out, and waits for the answer."""


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    length = struct.pack(order + "I", len(body) + 12)
    return struct.pack(order + "I", kind) + length + body + length


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "2H", code, len(value)) + value + bytes(-len(value) % 4)


def section(order: str = "<") -> bytes:
    return block(0x0A0D0D0A, struct.pack(order + "I2Hq", 0x1A2B3C4D, 1, 0, -1), order)


def interface(options: bytes = b"", link_type: int = 1, snap_bytes: int = 0, order: str = "<") -> bytes:
    return block(1, struct.pack(order + "2HI", link_type, 0, snap_bytes) + options, order)


def enhanced(data: bytes, stamp: int, number: int = 0, wire: int | None = None, order: str = "<") -> bytes:
    wire = len(data) if wire is None else wire
    head = struct.pack(order + "5I", number, stamp >> 32, stamp & 0xFFFFFFFF, len(data), wire)
    return block(6, head + data, order)


def simple(data: bytes, wire: int | None = None, order: str = "<") -> bytes:
    return block(3, struct.pack(order + "I", len(data) if wire is None else wire) + data, order)


def obsolete(data: bytes, stamp: int, number: int = 0, order: str = "<") -> bytes:
    return block(
        2,
        struct.pack(order + "2H4I", number, 0, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data)) + data,
        order,
    )


def read(data: bytes, folder: Path) -> tuple[list[Packet], Capture]:
    path = folder / "x.pcapng"
    path.write_bytes(data)
    capture = Capture(3, str(path))
    return list(packets_of(str(path), capture)), capture


MICROS = START_S * 1_000_000 + 5
FILE = section() + interface() + b"".join(enhanced(bytes([n]) * (n * 7 % 50), MICROS + n) for n in range(20))

# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_block_that_carries_a_packet(order: str, tmp_path: Path) -> None:
    """Enhanced, simple and obsolete packet blocks are read; others are skipped."""
    packets, capture = read(
        section(order)
        + block(5, b"statistics", order)
        + interface(order=order)
        + enhanced(b"one", MICROS, order=order)
        + block(0xBAD, b"custom", order)
        + block(10, b"secrets!", order)
        + simple(b"twoooo", order=order)
        + obsolete(b"three", MICROS + 1, order=order)
        + block(0x12345678, b"", order),
        tmp_path,
    )
    assert [packet.data for packet in packets] == [b"one", b"twoooo", b"three"]
    times = [MICROS * 1000, MICROS * 1000, (MICROS + 1) * 1000]
    assert [packet.time_ns for packet in packets] == times
    assert [packet.frame for packet in packets] == [(3, 1), (3, 2), (3, 3)]
    assert (capture.packets, capture.size_bytes) == (3, 14)
    assert (capture.first_ns, capture.last_ns) == (times[0], times[-1])
    assert not capture.anomalies
    assert not capture.broke_off


RESOLUTION, OFFSET, NAME, DESCRIPTION = 9, 14, 2, 3


@pytest.mark.parametrize(
    ("options", "stamp", "time_ns"),
    [
        (b"", 1_500_000, 1_500_000_000),
        (option(RESOLUTION, b"\x06"), 1_500_000, 1_500_000_000),
        (option(RESOLUTION, b"\x09"), 1_500_000_007, 1_500_000_007),
        (option(RESOLUTION, b"\x03"), 1_500, 1_500_000_000),
        (option(RESOLUTION, b"\x00"), 3, 3_000_000_000),
        (option(RESOLUTION, b"\x0c"), 1_500_000_007_999, 1_500_000_007),
        (option(RESOLUTION, b"\x94"), 3 << 19, 1_500_000_000),
        (option(RESOLUTION, b"\x80"), 3, 3_000_000_000),
        (option(RESOLUTION, b"\xff"), 1 << 63, 0),
        (option(OFFSET, struct.pack("<q", 100)), 0, 100_000_000_000),
        (option(OFFSET, struct.pack("<q", -1)), 1_500_000, 500_000_000),
        (option(1, b"comment") + option(RESOLUTION, b"\x09") + option(0, b""), 7, 7),
    ],
)
def test_units_of_time(options: bytes, stamp: int, time_ns: int, tmp_path: Path) -> None:
    """An interface counts time in powers of ten or of two, from an offset in seconds."""
    packets, _ = read(section() + interface(options) + enhanced(b"x", stamp), tmp_path)
    assert packets[0].time_ns == time_ns


def test_interfaces_are_numbered_over_the_whole_file(tmp_path: Path) -> None:
    """Each section counts its interfaces from 0 and has its own byte order; ours go on."""
    packets, capture = read(
        section()
        + interface(option(NAME, b"Internal_base"))
        + interface(option(DESCRIPTION, b"tap"), link_type=276)
        + enhanced(b"a", 1)
        + enhanced(b"b", 2, 1)
        + section(">")
        + interface(option(NAME, "größe".encode(), ">"), link_type=101, order=">")
        + enhanced(b"c", 3, order=">"),
        tmp_path,
    )
    assert [(packet.data, packet.interface, packet.link_type) for packet in packets] == [
        (b"a", 0, 1),
        (b"b", 1, 276),
        (b"c", 2, 101),
    ]
    assert capture.interfaces == {0: "Internal_base", 1: "tap", 2: "größe"}


def test_snap_length(tmp_path: Path) -> None:
    """A packet that was cut is counted; a simple packet block is cut by its interface's snap length."""
    packets, capture = read(
        section() + interface(snap_bytes=4) + enhanced(b"abcd", 1, wire=1514) + simple(b"efgh", wire=90),
        tmp_path,
    )
    assert [(packet.data, packet.wire_bytes) for packet in packets] == [(b"abcd", 1514), (b"efgh", 90)]
    assert capture.truncated_packets == 2


def test_a_section_without_packets_is_a_capture(tmp_path: Path) -> None:
    """A capture that saw nothing has 0 packets and no anomalies."""
    packets, capture = read(section(), tmp_path)
    assert packets == []
    assert (capture.packets, capture.first_ns, capture.broke_off) == (0, None, False)


def test_pcapng_and_pcap_hold_the_same(tmp_path: Path) -> None:
    """The same packets, written by scapy in either format, are the same packets."""
    built = [ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(seq=n) / (b"x" * n) for n in range(50)]
    for n, packet in enumerate(built):
        packet.time = START_S + n / 4
    for name, writer in (
        ("a.pcap", PcapWriter(str(tmp_path / "a.pcap"))),
        ("b.pcap", PcapNgWriter(str(tmp_path / "b.pcap"))),
    ):
        for packet in built:
            writer.write(packet)
        writer.close()
        assert (tmp_path / name).stat().st_size
    classic, other = (list(packets_of(str(tmp_path / n), Capture(0, n))) for n in ("a.pcap", "b.pcap"))
    assert len(classic) == 50
    assert classic == other


@pytest.mark.skipif(shutil.which("editcap") is None, reason="editcap is not installed")
def test_what_editcap_converts(tmp_path: Path) -> None:
    """A pcapng file of Wireshark's own writer holds the packets of the pcap file it was made from."""
    built = [ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(seq=n) / (b"y" * n) for n in range(30)]
    path, converted = str(tmp_path / "a.pcap"), str(tmp_path / "a.pcapng")
    writer = PcapWriter(path)
    for packet in built:
        packet.time = START_S
        writer.write(packet)
    writer.close()
    subprocess.run(["editcap", "-F", "pcapng", path, converted], check=True)
    assert list(packets_of(converted, Capture(0, ""))) == list(packets_of(path, Capture(0, "")))


# --- damage ---------------------------------------------------------------------------------------


@given(st.integers(0, len(FILE)))
@settings(deadline=None)
def test_cut_anywhere_gives_a_prefix(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    """A capture that breaks off is read to the break; only a section header that is cut is no capture."""
    folder = tmp_path_factory.mktemp("cut", numbered=True)
    whole, _ = read(FILE, folder)
    if cut < len(section()):
        with pytest.raises(SourceError):
            read(FILE[:cut], folder)
        return
    packets, capture = read(FILE[:cut], folder)
    assert packets == whole[: len(packets)]
    ends = [len(section()), len(section()) + len(interface())]
    for number in range(20):
        ends.append(ends[-1] + len(enhanced(bytes(number * 7 % 50), 0)))
    assert len(packets) == sum(end <= cut for end in ends[2:])
    assert capture.broke_off == (cut not in ends)
    assert capture.anomalies == ({"file ends inside a block": 1} if cut not in ends else {})


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_packed(pack: type[bytes], tmp_path: Path) -> None:
    """A pcapng file reads the same from gzip and zstd."""
    assert read(pack(FILE), tmp_path)[0] == read(FILE, tmp_path)[0]


HEAD = section() + interface()
A, B, C, D = (enhanced(letter * 20, MICROS + n) for n, letter in enumerate([b"a", b"b", b"c", b"d"]))
SKIPPED = "block is damaged, read on at the next one"


@pytest.mark.parametrize(
    ("data", "letters", "anomalies", "broke_off"),
    [
        (
            HEAD + A + B[:-4] + b"\0\0\1\0" + C + D,
            b"abcd",
            {"length behind a block differs from the one before it"},
            0,
        ),
        (HEAD + A + B[:-4] + b"\0\0\1\0", b"ab", {"length behind a block differs from the one before it"}, 0),
        (HEAD + A + B[:4] + b"\xff\xff\xff\xff" + B[8:] + C + D, b"acd", {SKIPPED}, 0),
        (HEAD + A + B[:4] + b"\0\x10\0\0" + B[8:] + C + D, b"acd", {SKIPPED}, 0),
        (HEAD + A + B[:4] + b"\4\0\0\0" + B[8:] + C + D, b"acd", {SKIPPED}, 0),
        (HEAD + A + B[:17] + C + D, b"acd", {SKIPPED}, 0),
        (HEAD + A + bytes(100) + C + D, b"acd", {SKIPPED}, 0),
        (HEAD + A + b"\xff" * 100, b"a", {"block is damaged and none follows: the rest is not read"}, 1),
        (HEAD + A + enhanced(b"x", 1, 7) + C, b"ac", {"packet of an interface that is not described"}, 0),
        (section() + A, b"", {"packet of an interface that is not described"}, 0),
        (section() + simple(b"x"), b"", {"packet block is damaged"}, 0),
        (HEAD + block(6, b"short") + C, b"c", {"packet block is damaged"}, 0),
        (HEAD + block(1, b"") + C, b"c", {"interface description is damaged"}, 0),
        (HEAD + A + enhanced(b"b", 1 << 63) + C, b"abc", {"time of a packet is damaged"}, 0),
    ],
)
def test_a_damaged_block(
    data: bytes, letters: bytes, anomalies: set[str], broke_off: int, tmp_path: Path
) -> None:
    """One damaged block costs at most its own packet, and is counted."""
    packets, capture = read(data, tmp_path)
    assert b"".join(packet.data[:1] for packet in packets) == letters
    assert set(capture.anomalies) == anomalies
    assert capture.broke_off == bool(broke_off)


def test_a_packet_longer_than_its_block(tmp_path: Path) -> None:
    """A packet never holds bytes of the block behind it."""
    lying = bytearray(A)
    struct.pack_into("<I", lying, 20, 4000)
    packets, capture = read(HEAD + bytes(lying) + C, tmp_path)
    assert [packet.data for packet in packets] == [b"a" * 20, b"c" * 20]
    assert capture.anomalies == {"packet is longer than its block": 1}


def test_a_file_transferred_as_text_is_refused(tmp_path: Path) -> None:
    """A section header without its byte order mark is no capture."""
    with pytest.raises(SourceError, match="byte order mark"):
        read(section().replace(b"\x4d\x3c\x2b\x1a", b"\x4d\x3c\x2b\x2b"), tmp_path)


@given(st.binary(max_size=300), st.booleans())
@settings(deadline=None)
def test_any_bytes_behind_a_section_are_read_to_an_end(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, as_block: bool
) -> None:
    """Nothing is raised and nothing hangs."""
    data = HEAD + A + (block(garbage[0] % 8, garbage) if as_block and garbage else garbage)
    packets, capture = read(data, tmp_path_factory.mktemp("garbage", numbered=True))
    assert packets[0].data == b"a" * 20
    assert capture.packets >= len(packets)
