"""What the kernel dropped while it was recorded stands in the file, and is missing to nobody."""

from __future__ import annotations

import struct
from itertools import chain
from pathlib import Path

import pytest
from lab.judging import kinds, statuses

from tracer import engine
from tracer.capture import open_capture
from tracer.capture.streams import Deliver
from tracer.engine import Settings
from tracer.model import Capture, PacketFields
from tracer.recording.pcapng_writer import (
    Described,
    drops_block,
    interface_block,
    packet_block,
    section_block,
)
from tracer.recording.recorder import Recorder
from tracer.recording.rotation import Files, Rotation
from tracer.testing.cloud import Cloud
from tracer.testing.creation import Creation

SECOND = 1_000_000_000


def recorded(folder: Path) -> tuple[list[PacketFields], list[str]]:
    """Two creations from a volume, of which the second one never asks for it, and their files."""
    cloud = Cloud()
    cloud.background(0, 160)
    Creation(cloud, at=100, name="good", volume=True).run()
    Creation(cloud, at=120, name="bad", volume=True, hosts=({"compute1": {"8a": "left out"}},)).run()
    files = cloud.network.write(folder)
    packets = [p for n, f in enumerate(files) for p in chain.from_iterable(open_capture(f, Capture(n, f)))]
    return sorted(packets, key=lambda packet: packet[0]), files


def written(path: Path, packets: list[PacketFields], files: list[str], drops: dict[int, int]) -> Path:
    """A recording of *packets*; *drops*: seconds since its begin -> what was dropped up to then in all."""
    names = [Path(file).name.partition(".")[0] for file in files]
    blocks = [section_block("test"), *(interface_block(Described(n, n, packets[0][3])) for n in names)]
    begun_ns, left = packets[0][0], sorted(drops.items())
    for time_ns, data, wire, _, frame, _ in packets:
        while left and time_ns - begun_ns > left[0][0] * SECOND:
            at_s, count = left.pop(0)
            blocks.append(drops_block(1, begun_ns + at_s * SECOND, count))
        blocks.append(packet_block(frame[0], time_ns, data, wire))
    path.write_bytes(b"".join(blocks))
    return path


@pytest.mark.parametrize(
    ("drops", "status"),
    [
        ({}, "missing"),
        ({110: 0, 140: 7}, "unobserved"),
        ({10: 5, 110: 5}, "missing"),
        ({150: 7}, "unobserved"),
    ],
    ids=["none", "while it was made", "long before", "nobody knows when"],
)
def test_what_the_file_says_was_dropped_is_not_missing(
    drops: dict[int, int], status: str, tmp_path: Path
) -> None:
    packets, files = recorded(tmp_path)
    path = written(tmp_path / "recorded.pcapng", packets, files, drops)
    report = engine.check([str(path)], Settings())
    found = {verdict.name: verdict for verdict in report.verdicts}
    assert statuses(found["bad"])["8a"] == status
    assert kinds(found["bad"]) == ([("missing", "8a")] if status == "missing" else [])
    assert report.captures[0].anomalies["packets dropped by the kernel"] == max(drops.values(), default=0)


class Lossy:
    """A source of two packets, between which the kernel drops three."""

    ends_on_stop = True

    def __init__(self) -> None:
        self.capture = Capture(0, "eth0")
        self.dropped = 0

    def open(self) -> None: ...

    def stop(self) -> None: ...

    def read(self, deliver: Deliver) -> None:
        deliver([(SECOND, b"one", 3, 1, (0, 1), 0)], 0)
        self.dropped = 3
        deliver([(2 * SECOND, b"two", 3, 1, (0, 2), 0)], 0)


def test_a_recording_tells_its_drops(tmp_path: Path) -> None:
    """In the file in which they were noticed; a later file begins with the count, which is not its own."""
    files = Files(tmp_path, [], Rotation(size_bytes=1), "test")
    Recorder([Lossy()], files, None).run()
    told = []
    for path in files.written:
        capture = Capture(0, str(path))
        assert sum(len(batch) for batch in open_capture(str(path), capture)) == capture.packets
        told += [count for _, _, count in capture.drops]
    assert told == [3]
    assert files.preface == drops_block(0, _time_of(files.preface), 3)
    assert b"".join(path.read_bytes() for path in files.written).count(struct.pack("<HHQ", 5, 8, 3)) >= 1


def _time_of(block: bytes) -> int:
    high, low = struct.unpack_from("<II", block, 12)
    return int(high << 32 | low)
