"""Classic pcap files: every flavour, every packing, every kind of damage."""

from __future__ import annotations

import gzip
import io
import os
import resource
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.reading import packets_of

from tracer.capture import open_capture
from tracer.errors import SourceError
from tracer.model import Capture, Packet

START_S = 1_767_225_600
SIZES = [60, 1514, 0, 90, 300, 66, 1514, 1514]
CUT = "file ends inside a record"


def record(number: int, size: int, order: str = "<", per_second: int = 1_000_000, pad: int = 0) -> bytes:
    fraction = number * 1000 % per_second
    header = struct.pack(order + "4I", START_S + number, fraction, size, size)
    return header + bytes(pad) + bytes([number % 256]) * size


def pcap(
    sizes: list[int] = SIZES,
    order: str = "<",
    magic: int = 0xA1B2C3D4,
    snap_bytes: int = 262_144,
    link_type: int = 1,
) -> bytes:
    per_second = 1_000_000_000 if magic == 0xA1B23C4D else 1_000_000
    pad = 8 if magic == 0xA1B2CD34 else 0
    head = struct.pack(order + "I2HiI2I", magic, 2, 4, 0, 0, snap_bytes, link_type)
    return head + b"".join(record(n, size, order, per_second, pad) for n, size in enumerate(sizes))


def read(data: bytes, folder: Path, name: str = "x.pcap") -> tuple[list[Packet], Capture]:
    path = folder / name
    path.write_bytes(data)
    capture = Capture(3, str(path))
    return list(packets_of(str(path), capture)), capture


# --- what is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "unit_ns"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1), (0xA1B2CD34, 1000)])
def test_every_flavour(order: str, magic: int, unit_ns: int, tmp_path: Path) -> None:
    """Either byte order, micro- and nanoseconds, and Kuznetzov's longer record headers."""
    packets, capture = read(pcap(order=order, magic=magic), tmp_path)
    assert [len(packet.data) for packet in packets] == SIZES
    expected_ns = [(START_S + n) * 1_000_000_000 + n * 1000 * unit_ns for n in range(len(SIZES))]
    assert [packet.time_ns for packet in packets] == expected_ns
    assert [packet.frame for packet in packets] == [(3, n) for n in range(1, len(SIZES) + 1)]
    assert packets[5].data == bytes([5]) * 66
    assert (capture.packets, capture.size_bytes) == (len(SIZES), sum(SIZES))
    assert (capture.first_ns, capture.last_ns) == (expected_ns[0], expected_ns[-1])
    assert not capture.anomalies
    assert not capture.broke_off


@pytest.mark.parametrize(("link_type", "expected"), [(1, 1), (0x30000001, 1), (0x300000E5, 229), (276, 276)])
def test_upper_bits_of_the_link_type_are_masked(link_type: int, expected: int, tmp_path: Path) -> None:
    """The upper bits tell the length of a frame check sequence, not the link type."""
    assert read(pcap([60], link_type=link_type), tmp_path)[0][0].link_type == expected


def test_a_header_without_packets_is_a_capture(tmp_path: Path) -> None:
    """A capture that saw nothing has 0 packets, no times and no anomalies."""
    packets, capture = read(pcap([]), tmp_path)
    assert packets == []
    assert (capture.packets, capture.first_ns, capture.broke_off) == (0, None, False)


def test_snap_length(tmp_path: Path) -> None:
    """A packet that the snap length cut tells its length on the wire, and is counted."""
    whole = struct.pack("<4I", START_S, 0, 60, 60) + bytes(60)
    cut = struct.pack("<4I", START_S, 0, 60, 1514) + bytes(60)
    packets, capture = read(pcap([]) + whole + cut + cut, tmp_path)
    assert [packet.wire_bytes for packet in packets] == [60, 1514, 1514]
    assert (capture.truncated_packets, capture.size_bytes) == (2, 180)


def test_packets_out_of_order_keep_their_times(tmp_path: Path) -> None:
    """First and last are by time, not by position: queues of a card are not in step."""
    times = [5, 3, 9, 8]
    data = pcap([]) + b"".join(struct.pack("<4I", START_S + s, 0, 1, 1) + b"x" for s in times)
    packets, capture = read(data, tmp_path)
    assert [packet.time_ns // 1_000_000_000 - START_S for packet in packets] == times
    assert capture.first_ns == (START_S + 3) * 1_000_000_000
    assert capture.last_ns == (START_S + 9) * 1_000_000_000
    assert not capture.anomalies


# --- packing --------------------------------------------------------------------------------------


def skippable(data: bytes) -> bytes:
    return struct.pack("<2I", 0x184D2A50, len(data)) + data


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "gzip, two members": lambda data: gzip.compress(data[:500]) + gzip.compress(data[500:]),
    "gzip, zeros behind": lambda data: gzip.compress(data) + bytes(1000),
    "zstd": zstandard.compress,
    "zstd, two frames": lambda data: zstandard.compress(data[:77]) + zstandard.compress(data[77:]),
    "zstd, skippable first": lambda data: skippable(b"index") + zstandard.compress(data) + skippable(b""),
}


@pytest.mark.parametrize("packing", PACKINGS)
def test_packing_is_told_by_the_bytes(packing: str, tmp_path: Path) -> None:
    """A capture reads the same however it is packed, whatever its name says."""
    plain, _ = read(pcap(), tmp_path)
    packets, capture = read(PACKINGS[packing](pcap()), tmp_path, "misleading.pcap.gz")
    assert packets == plain
    assert not capture.anomalies


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_bomb_is_read_in_bounded_memory(packing: str, tmp_path: Path) -> None:
    """Packed bytes are unpacked as they are asked for: 200 MB of zeros never are in memory at once."""
    zeros = struct.pack("<4I", START_S, 0, 1 << 18, 1 << 18) + bytes(1 << 18)
    path = tmp_path / "bomb"
    opener = gzip.open if packing == "gzip" else zstandard.open
    with opener(path, "wb") as file:
        file.write(pcap([]))
        for _ in range(800):
            file.write(zeros)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    capture = Capture(0, str(path))
    assert sum(1 for _ in packets_of(str(path), capture)) == 800
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
def test_standard_input_may_be_a_pipe(packing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """'-' reads a pipe: no seeking, packed or not, in whatever pieces the bytes arrive."""
    out, into = os.pipe()
    data = PACKINGS[packing](pcap(SIZES * 50))

    def feed() -> None:
        with open(into, "wb", buffering=0) as file:
            for start in range(0, len(data), 97):
                file.write(data[start : start + 97])

    feeder = threading.Thread(target=feed)
    with open(out) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        feeder.start()
        packets = list(packets_of("-", Capture(0, "-")))
        feeder.join()
        assert not stdin.closed
    assert [len(packet.data) for packet in packets] == SIZES * 50


def test_packets_of_a_pipe_come_as_they_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A live stream is not held back until a chunk is full."""
    out, into = os.pipe()
    with open(out) as stdin, open(into, "wb", buffering=0) as feed:
        monkeypatch.setattr(sys, "stdin", stdin)
        feed.write(pcap([60]))
        packets = packets_of("-", Capture(0, "-"))
        assert len(next(packets)[1]) == 60
        feed.write(record(1, 90))
        assert len(next(packets)[1]) == 90
        feed.close()
        assert list(packets) == []


# --- damage ---------------------------------------------------------------------------------------


@given(st.integers(0, len(pcap())), st.sampled_from(["plain", "gzip", "zstd"]))
@settings(deadline=None)
def test_cut_anywhere_gives_a_prefix(
    tmp_path_factory: pytest.TempPathFactory, cut: int, packing: str
) -> None:
    """A capture that breaks off is read to the break; only a header that is cut is no capture."""
    folder = tmp_path_factory.mktemp("cut", numbered=True)
    whole, _ = read(pcap(), folder)
    data = PACKINGS[packing](pcap())
    cut = min(cut, len(data))
    try:
        packets, capture = read(data[:cut], folder)
    except SourceError:
        assert cut < 24 or packing != "plain"
        return
    assert packets == whole[: len(packets)]
    if packing == "plain":
        ends = [24 + sum(16 + size for size in SIZES[:n]) for n in range(len(SIZES) + 1)]
        assert len(packets) == sum(end <= cut for end in ends) - 1
        assert capture.broke_off == (cut not in ends)
        assert capture.anomalies == ({CUT: 1} if capture.broke_off else {})
    else:
        assert capture.broke_off == (cut < len(data))
        assert sum(capture.anomalies.values()) == (cut < len(data))


@pytest.mark.parametrize("packing", ["gzip", "zstd"])
def test_a_packed_capture_that_is_cut_is_read_to_the_break(packing: str, tmp_path: Path) -> None:
    """A packed stream that ends early gives what can be unpacked of it."""
    size = 1000
    noise = os.urandom(size)
    data = pcap([]) + b"".join(struct.pack("<4I", START_S + n, 0, size, size) + noise for n in range(3000))
    packed = PACKINGS[packing](data)
    packets, capture = read(packed[: len(packed) // 2], tmp_path)
    assert 100 < len(packets) < 3000
    assert {packet.data for packet in packets} == {noise}
    assert capture.broke_off
    assert capture.anomalies == {f"{packing} stream ends before its end": 1}


def test_a_wrong_checksum_of_gzip_loses_no_packet(tmp_path: Path) -> None:
    """What was unpacked before the damage is read, though zlib throws it away."""
    packed = bytearray(gzip.compress(pcap()))
    packed[-8] ^= 1
    packets, capture = read(bytes(packed), tmp_path)
    assert len(packets) == len(SIZES)
    assert capture.anomalies == {"gzip stream is damaged": 1}
    assert capture.broke_off


def damaged(position: int, field: int, value: int) -> bytes:
    """A capture of 20 packets, one 32-bit field of one record header replaced."""
    data = bytearray(pcap([100] * 20))
    struct.pack_into("<I", data, 24 + position * 116 + 4 * field, value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "numbers", "anomaly"),
    [
        (
            damaged(5, 2, 0xFFFFFFFF),
            [*range(5), *range(6, 20)],
            "record header is damaged, read on at the next one",
        ),
        (damaged(5, 2, 50), [*range(20)], "record header is damaged, read on at the next one"),
        (damaged(0, 2, 0x7F000000), [*range(1, 20)], "record header is damaged, read on at the next one"),
        (damaged(18, 2, 0x7F000000), [*range(18), 19], "record header is damaged, read on at the next one"),
        (damaged(18, 2, 5000), [*range(18), 19], "record header is damaged, read on at the next one"),
        (damaged(5, 1, 2_000_000), [*range(20)], "record header contradicts itself"),
        (damaged(5, 3, 1), [*range(20)], "record header contradicts itself"),
        (damaged(19, 3, 1), [*range(20)], "record header contradicts itself"),
        (damaged(5, 0, 7), [*range(20)], "time of a record is damaged"),
        (damaged(5, 0, 0xFFFFFFF0), [*range(20)], "time of a record is damaged"),
    ],
)
def test_a_damaged_record_header(data: bytes, numbers: list[int], anomaly: str, tmp_path: Path) -> None:
    """One damaged header costs at most its own packet, and is counted."""
    packets, capture = read(data, tmp_path)
    assert [packet.data[0] for packet in packets] == numbers
    assert [packet.frame[1] for packet in packets] == [*range(1, len(numbers) + 1)]
    assert set(capture.anomalies) == {anomaly}
    assert not capture.broke_off
    assert capture.first_ns == (START_S + numbers[0]) * 10**9 + numbers[0] * 1_000_000
    assert all(START_S <= packet.time_ns // 10**9 <= START_S + 20 for packet in packets)


def test_bytes_lost_in_the_middle(tmp_path: Path) -> None:
    """A block of the disk that turned to zeros costs the packets in it, not those behind."""
    data = bytearray(pcap([200] * 2000))
    data[100_000:200_000] = bytes(100_000)
    packets, capture = read(bytes(data), tmp_path)
    assert len(packets) > 1500
    assert packets[-1].data == bytes([1999 % 256]) * 200
    assert capture.anomalies


def test_garbage_to_the_end(tmp_path: Path) -> None:
    """When no record follows the damage, the file is read no further, and that is said."""
    data = pcap([100] * 5) + b"\xff" * 3_000_000
    packets, capture = read(data, tmp_path)
    assert len(packets) == 5
    assert capture.broke_off
    assert capture.anomalies == {"record header is damaged and none follows: the rest is not read": 1}


def test_a_snap_length_may_allow_long_records(tmp_path: Path) -> None:
    """A record beyond 256 KiB is damage, unless the file header announces such ones."""
    long = struct.pack("<4I", START_S, 0, 400_000, 400_000) + bytes(400_000)
    assert len(read(pcap([], snap_bytes=1 << 20) + long, tmp_path)[0]) == 1
    assert len(read(pcap([], snap_bytes=65_535) + long, tmp_path)[0]) == 0


def test_a_file_whose_every_record_contradicts_itself(tmp_path: Path) -> None:
    """A writer that notes no length on the wire costs an anomaly a packet, not a search a packet."""
    one = struct.pack("<4I", START_S, 0, 100, 0) + bytes(100)
    packets, capture = read(pcap([]) + one * 40_000, tmp_path)
    assert {packet.wire_bytes for packet in packets} == {100}
    assert (len(packets), capture.truncated_packets) == (40_000, 0)
    assert capture.anomalies == {"record header contradicts itself": 40_000}


def test_a_leap_of_time_that_stays_is_true(tmp_path: Path) -> None:
    """Captures of different days may be in one file."""
    times = [START_S, START_S + 1, START_S + 900_000, START_S + 900_001]
    data = pcap([]) + b"".join(struct.pack("<4I", s, 0, 1, 1) + b"x" for s in times)
    packets, capture = read(data, tmp_path)
    assert [packet.time_ns // 10**9 for packet in packets] == times
    assert not capture.anomalies


@given(st.binary(max_size=400), st.sampled_from(["<", ">"]))
@settings(deadline=None)
def test_any_bytes_behind_a_header_are_read_to_an_end(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, order: str
) -> None:
    """Nothing is raised and nothing hangs; no packet is longer than what is there."""
    packets, capture = read(pcap([60], order) + garbage, tmp_path_factory.mktemp("garbage", numbered=True))
    assert packets
    assert capture.packets == len(packets)
    assert sum(len(packet.data) for packet in packets) <= 60 + len(garbage)


# --- what cannot be opened ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["0 bytes"]),
        (gzip.compress(b""), ["0 bytes", "gzip"]),
        (b"# Hello\nworld", ["text", "'# Hello'"]),
        ("# Größe\nα".encode(), ["text", "'# Größe'"]),
        (b"x" * 511 + "ß".encode(), ["text that begins with 'xxxx"]),
        (gzip.compress(b"Jan  1 00:00:00 host sshd"), ["gzip of text", "Jan  1"]),
        (zstandard.compress(gzip.compress(pcap())), ["zstd of", "packed twice"]),
        (b"PK\x03\x04" + bytes(50), ["zip archive"]),
        (b"\xfd7zXZ\0" + bytes(50), ["xz"]),
        (b"BZh91AY&SY", ["bzip2"]),
        (b"\x7fELF" + bytes(50), ["a program"]),
        (b"\0\1\2\3\4\5\6\7\x08", ["00 01 02 03 04 05 06 07"]),
        (b"\xd4\xc3", ["d4 c3"]),
        (pcap()[:20], ["inside its header", "20 of 24"]),
        (gzip.compress(pcap())[:11], ["gzip stream ends before its end"]),
        (b"\x28\xb5\x2f\xfd" + b"\xff" * 40, ["zstd stream is damaged"]),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "data",
)
def test_what_is_no_capture_is_refused_before_any_packet(
    data: bytes, words: list[str], tmp_path: Path
) -> None:
    """The error names the file and what it is instead, in one line."""
    path = tmp_path / "x.pcap"
    path.write_bytes(data)
    with pytest.raises(SourceError) as raised:
        open_capture(str(path), Capture(0, str(path)))
    text = str(raised.value)
    assert "\n" not in text
    assert [word for word in ["x.pcap", *words] if word not in text] == []


def test_what_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    """A missing file and a folder are errors of the source."""
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SourceError, match="cannot be"):
            open_capture(str(path), Capture(0, str(path)))


def test_standard_input_may_hold_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes in at '-' and is no capture is refused by that name."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"hello world")))
    with pytest.raises(SourceError, match="standard input: not a capture"):
        open_capture("-", Capture(0, "-"))
