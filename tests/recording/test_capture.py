"""`tracer capture` on virtual wires: rotation, killing, redaction; files with the verdicts of the wire."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import pytest
import zstandard
from lab.hearing import until
from lab.streams import CAPTURES, ROOT, command, files, pipes
from lab.wires import inside, listens, why_not, wires

from tracer import engine
from tracer.capture import live, open_capture
from tracer.capture.streams import CaptureStream
from tracer.engine import Settings
from tracer.errors import SourceError
from tracer.model import Capture
from tracer.protocols import PORTS
from tracer.recording.pcapng_writer import Described, interface_block, packet_block, section_block
from tracer.recording.recorder import BLOCKS, MOST_INTERFACES, Recorder
from tracer.recording.redaction import Redactor
from tracer.recording.rotation import Files, Rotation

needs_wires = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
NAME = "fail-quota-403"
PLANES = ("External_api", "Internal_base")
SENDER = str(ROOT / "tests" / "lab" / "wires.py")


def start(space: str, *arguments: str) -> subprocess.Popen[bytes]:
    """`tracer capture` of both planes in *space*, once it is listening."""
    sources = [f"-i{plane}=w{number}" for number, plane in enumerate(PLANES)]
    process = subprocess.Popen(
        inside(space, sys.executable, "-m", "tracer", "capture", *sources, *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    listens(process)
    return process


def resend(space: str, speed: float) -> None:
    files = [f"w{n}={next((CAPTURES / NAME).glob(f'{plane}*'))}" for n, plane in enumerate(PLANES)]
    subprocess.run(
        [sys.executable, SENDER, space, str(speed), *files], cwd=ROOT, check=True, capture_output=True
    )


def recorded_last(plane: str) -> bytes:
    """The last packet of a plane that is recorded: that of a port that is."""
    path = next((CAPTURES / NAME).glob(f"{plane}*"))
    packets = [packet[1] for packet in chain.from_iterable(open_capture(str(path), Capture(0, "")))]
    ports = {port.to_bytes(2, "big") for port in PORTS}
    return next(data for data in reversed(packets) if ports & {data[34:36], data[36:38]})


def until_written(folder: Path) -> None:
    """Wait until the last packet of each plane stands in a file."""
    last = [recorded_last(plane) for plane in PLANES]
    assert all(len(packet) < 100 for packet in last), "no secret that is overwritten is in them"

    def is_written() -> bool:
        content = b"".join(path.read_bytes() for path in sorted(folder.iterdir())[-2:])
        return all(packet in content for packet in last)

    until(is_written)


def outcomes(folder: Path) -> list[tuple[str | None, str, str, str | None]]:
    report = engine.check([str(folder)], Settings())
    assert [c.broke_off for c in report.captures] == [False] * len(report.captures)
    return [(v.name, v.verdict, v.outcome, v.stopped_at) for v in report.verdicts]


EXPECTED = [("quota-a", "conforms", "active", None), ("quota-b", "deviates", "rejected", "4c")]


@needs_wires
@pytest.mark.parametrize("redact", [False, True])
def test_what_is_recorded_gives_the_verdicts_of_the_wire(redact: bool, tmp_path: Path) -> None:
    folder = tmp_path / "incident"
    with wires(["w0", "w1"]) as space:
        process = start(space, "-w", str(folder), *(["--redact"] if redact else []))
        resend(space, 10)
        until_written(folder)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, b"")
    assert (b"secrets in the clear" in errors) is not redact
    assert outcomes(folder) == EXPECTED
    [file] = folder.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    capture = Capture(0, "")
    times = [packet[0] for packet in chain.from_iterable(open_capture(str(file), capture))]
    assert capture.interfaces == {0: "External_api", 1: "Internal_base"}
    assert times == sorted(times)
    assert bool(re.search(rb"gAAAAA[\w-]{20}", file.read_bytes())) is not redact


@needs_wires
def test_a_ring_of_files(tmp_path: Path) -> None:
    with wires(["w0", "w1"]) as space:
        process = start(space, "-w", str(tmp_path), "-C", "0.3", "-W", "3", "-q")
        resend(space, 10)
        until_written(tmp_path)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    files = sorted(tmp_path.iterdir())
    assert (process.returncode, errors) == (0, b"")
    assert len(files) == 3 and all(300_000 < file.stat().st_size < 600_000 for file in files[:-1])
    assert int(files[0].name.split("_")[1]) > 1
    packets = [len(list(chain.from_iterable(open_capture(str(file), Capture(0, ""))))) for file in files]
    assert min(packets) > 0


@needs_wires
def test_killed_at_any_moment_the_file_is_good_up_to_its_last_block(tmp_path: Path) -> None:
    with wires(["w0", "w1"]) as space:
        process = start(space, "-w", str(tmp_path))
        sender = subprocess.Popen(
            [
                sys.executable,
                SENDER,
                space,
                "3",
                *(f"w{n}={next((CAPTURES / NAME).glob(f'{plane}*'))}" for n, plane in enumerate(PLANES)),
            ],
            cwd=ROOT,
        )
        until(lambda: sum(f.stat().st_size for f in tmp_path.iterdir()) >= 200_000)
        process.kill()
        process.wait()
        sender.wait()
    [file] = tmp_path.iterdir()
    capture = Capture(0, "")
    assert len(list(chain.from_iterable(open_capture(str(file), capture)))) > 300
    assert set(capture.anomalies) <= {"file ends inside a block"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-w", "x"], "no source given: use -i PLANE=INTERFACE"),
        (["-i", "lo"], "tracer capture needs"),
        (["-i", "lo", "-w", "/proc/nothing"], "-w /proc/nothing: cannot be made"),
        (["-i", "lo", "-w", "x", "-W", "3"], "-W: no limit given at which a new file begins"),
        (["-i", "lo", "-w", "x", "-C", "0"], "must be more than 0"),
        (["-i", "Internal_base=-", "-i", "External_api=-", "-w", "x"], "standard input is given twice"),
        (["-i", "Internal_base=/nosuch/fifo", "-w", "x"], "no such file or named pipe"),
    ],
)
def test_a_mistake_is_one_line_and_2(arguments: list[str], words: str) -> None:
    if "/proc/nothing" in arguments and why_not() is not None:
        pytest.skip("sniffing needs root")
    line = [sys.executable, "-m", "tracer", "capture", *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode() and done.stderr.count(b"\n") == 1


# --- capture streams ------------------------------------------------------------------------------


def plain(path: Path) -> bytes:
    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read()


def packets_of(*paths: Path) -> list[tuple[int, bytes, int, int, str]]:
    """Time, bytes, length, link layer and plane of all packets, in file order."""
    found = []
    for path in paths:
        capture = Capture(0, str(path), path.name.partition(".")[0])
        for batch in open_capture(str(path), capture):
            planes = capture.interfaces or {0: str(capture.plane)}
            found += [(*packet[:4], planes[packet[5]]) for packet in batch]
        assert not capture.anomalies
    return found


def ordered(packets: Iterable[tuple[int, bytes, int, int, str]]) -> list[tuple[int, bytes, int, int, str]]:
    return sorted(packets, key=lambda packet: (packet[0], packet[4], packet[1]))


def test_standard_input_and_a_pipe_are_recorded_as_they_come(tmp_path: Path) -> None:
    external, internal = files(NAME)
    folder = tmp_path / "incident"
    with pipes(tmp_path, [internal]) as [pipe]:
        process = command(
            "capture",
            "-i",
            "External_api=-",
            "-i",
            f"Internal_base={pipe}",
            "-w",
            str(folder),
            stdin=subprocess.PIPE,
        )
        _, errors = process.communicate(plain(external), timeout=120)
    assert process.returncode == 0, errors
    expected = packets_of(external, internal)
    assert ordered(packets_of(*folder.iterdir())) == ordered(expected)
    many = Counter(packet[4] for packet in expected)
    assert f"External_api (standard input): {many['External_api']:,} packets\n" in errors.decode()
    assert f"Internal_base ({pipe}): {many['Internal_base']:,} packets\n" in errors.decode()


@pytest.mark.parametrize("name", [NAME, pytest.param("ok-concurrent-20", marks=pytest.mark.long)])
@pytest.mark.parametrize("redact", [False, True])
def test_recordings_through_pipes_keep_their_order_and_verdicts(
    name: str, redact: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However unevenly the pipes are read: one waits for the other, as long as it speaks."""
    monkeypatch.setattr(live, "FIRST_S", 600)
    monkeypatch.setattr(live, "RECORDED_SILENCE_S", 600)
    paths = files(name)
    folder = tmp_path / "incident"
    folder.mkdir()
    with pipes(tmp_path, paths) as names:
        sources = [CaptureStream(pipe, Capture(n, pipe, PLANES[n])) for n, pipe in enumerate(names)]
        Recorder(sources, Files(folder, [], Rotation(), "test"), Redactor() if redact else None).run()
    times = [packet[0] for packet in packets_of(*folder.iterdir())]
    assert times == sorted(packet[0] for packet in packets_of(*paths))
    assert outcomes(folder) == [
        (v.name, v.verdict, v.outcome, v.stopped_at)
        for v in engine.check([str(CAPTURES / name)], Settings()).verdicts
    ]


def test_each_link_layer_has_an_interface_of_its_own_in_every_file(tmp_path: Path) -> None:
    """What each stream is told by its packets; files of a ring that are begun later have all of them."""
    head = (
        section_block("test")
        + interface_block(Described("eth7", "x", 1))
        + interface_block(Described("tun0", "y", 101))
    )
    rows = [(n % 2, n * 10_000_000, bytes([n % 256]) * 100) for n in range(600)]
    content = head + b"".join(packet_block(i, t, data, 1500) for i, t, data in rows)
    process = command("capture", "-i", "-", "-w", str(tmp_path), "-C", "0.002", "-q", stdin=subprocess.PIPE)
    _, errors = process.communicate(content, timeout=60)
    assert (process.returncode, errors) == (0, b"")
    written = sorted(tmp_path.iterdir())
    assert len(written) > 1
    assert packets_of(*written) == [(t, data, 1500, (1, 101)[i], ("eth7", "tun0")[i]) for i, t, data in rows]


def test_thousands_of_interfaces_of_a_stream_share_one_by_link_layer(tmp_path: Path) -> None:
    """Each file repeats what is described: a stream could fill the disk with that, without a packet."""
    count = 3_000
    head = b"".join(interface_block(Described(f"n{n}", "d", (1, 101)[n % 2])) for n in range(count))
    data = [n.to_bytes(4, "big") * 15 for n in range(count)]
    content = section_block("test") + head + b"".join(packet_block(n, n, data[n], 60) for n in range(count))
    process = command("capture", "-i", "-", "-w", str(tmp_path), "-C", "0.001", "-q", stdin=subprocess.PIPE)
    _, errors = process.communicate(content, timeout=60)
    assert (process.returncode, errors) == (0, b"")
    written = sorted(tmp_path.iterdir())
    assert 1 < len(written) <= 1 + count // BLOCKS + 1
    shared = "standard input, further interfaces"
    names = [f"n{n}" if n < MOST_INTERFACES else shared for n in range(count)]
    assert packets_of(*written) == [(n, data[n], 60, (1, 101)[n % 2], names[n]) for n in range(count)]
    assert written[-1].read_bytes().count(shared.encode()) == 2 * 2


def test_what_all_files_begin_with_begins_no_new_file(tmp_path: Path) -> None:
    """It is as long in the next one: with a limit below it, each write would have a file of its own."""
    recorded = Files(tmp_path, [Described("x" * 5_000, "x", 1)], Rotation(size_bytes=1_000), "tracer")
    for time_ns in range(10):
        recorded.write(
            [packet_block(recorded.describe(Described("y" * 900, "y", 1)), time_ns, bytes(68), 68)], 0
        )
    recorded.close()
    # A packet's block has 100 bytes.
    assert len(recorded.written) == 1
    recorded.write([packet_block(0, 10, b"", 0)], 0)
    recorded.close()
    assert [len(times(path)) for path in recorded.written] == [10, 1]
    assert recorded.size_bytes == sum(path.stat().st_size for path in recorded.written)


def test_a_stream_that_breaks_off_is_recorded_to_the_break_and_that_is_said(tmp_path: Path) -> None:
    content = plain(files(NAME)[1])[:100_005]
    process = command("capture", "-i", "Internal_base=-", "-w", str(tmp_path), stdin=subprocess.PIPE)
    _, errors = process.communicate(content, timeout=60)
    assert process.returncode == 0
    count = len(packets_of(*tmp_path.iterdir()))
    assert f"Internal_base (standard input): {count:,} packets, breaks off\n" in errors.decode() and count


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty, 0 bytes"), (b"hello world\n" * 9, "not a capture")]
)
def test_what_is_no_capture_stops_it(content: bytes, words: str, tmp_path: Path) -> None:
    process = command("capture", "-i", "Internal_base=-", "-w", str(tmp_path), "-q", stdin=subprocess.PIPE)
    _, errors = process.communicate(content, timeout=60)
    assert process.returncode == 2 and words in errors.decode() and errors.count(b"\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("redact", [False, True])
def test_in_silence_all_that_came_is_in_the_file_soon(number: int, redact: bool, tmp_path: Path) -> None:
    """The stream stays open and silent: nothing is held for packets that do not come, and nothing is lost."""
    internal = files(NAME)[1]
    expected = [packet[0] for packet in packets_of(internal)]
    folder = tmp_path / "incident"
    options = ["--redact"] if redact else []
    process = command("capture", "-i", "Internal_base=-", "-w", str(folder), *options, stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(plain(internal))
    process.stdin.flush()

    def all_there() -> bool:
        return folder.exists() and len([t for path in folder.iterdir() for t in times(path)]) == len(expected)

    until(all_there)
    process.send_signal(number)
    assert process.wait(60) == (-number if number == signal.SIGKILL else 0)
    process.stdin.close()
    recorded = packets_of(*folder.iterdir())
    assert [packet[0] for packet in recorded] == expected
    assert (b"gAAAAA" in b"".join(packet[1] for packet in recorded)) is not redact


@pytest.mark.parametrize("years", [-30, 100])
def test_a_clock_that_is_wrong_keeps_nothing_waiting(years: int, tmp_path: Path) -> None:
    """Packets of a host whose clock is years behind or ahead are written while the stream stays open."""
    begin_ns = time.time_ns() + years * 365 * 86_400 * 10**9
    head = section_block("test") + interface_block(Described("Internal_base", "x", 1))
    content = head + b"".join(packet_block(0, begin_ns + n, bytes(60), 60) for n in range(20))
    folder = tmp_path / "incident"
    process = command("capture", "-i", "Internal_base=-", "-w", str(folder), stdin=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(content)
    process.stdin.flush()
    until(lambda: folder.exists() and sum(len(times(path)) for path in folder.iterdir()) == 20)
    process.stdin.close()
    assert process.wait(60) == 0
    assert [packet[0] - begin_ns for packet in packets_of(*folder.iterdir())] == list(range(20))


@pytest.mark.parametrize("time_ns", [-1, 0, 1 << 64, 10**30])
def test_a_file_is_begun_at_any_time(time_ns: int, tmp_path: Path) -> None:
    """What a stream tells may be no time of a calendar: that is the packet's, and ends no recording."""
    recorded = Files(tmp_path, [Described("Internal_base", "x", 1)], Rotation(), "tracer")
    recorded.write([packet_block(0, time_ns, b"data", 4)], time_ns)
    recorded.close()
    [path] = tmp_path.iterdir()
    assert len(times(path)) == 1


def times(path: Path) -> list[int]:
    """Times of the packets of a file that is still written."""
    try:
        return [packet[0] for batch in open_capture(str(path), Capture(0, "")) for packet in batch]
    except SourceError:
        return []


@pytest.mark.skipif(os.geteuid() != 0, reason="owners are changed by root")
def test_with_sudo_the_new_folders_belong_to_the_user_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are made before privileges are given up, and written to after."""
    monkeypatch.setenv("SUDO_UID", "12345")
    monkeypatch.setenv("SUDO_GID", "12346")
    Files(tmp_path / "incident" / "today", [], Rotation(), "tracer").prepare()
    for folder, owner in (
        (tmp_path, 0),
        (tmp_path / "incident", 12345),
        (tmp_path / "incident/today", 12345),
    ):
        assert folder.stat().st_uid == owner
