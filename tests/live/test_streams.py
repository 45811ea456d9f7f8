"""Capture streams through pipes: the same verdicts as `tracer check` on the files, told while they flow."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab import damage
from lab.streams import CAPTURES, STALL_S, answers, command, files, pipes, watch, whole
from scapy.layers.inet import IP, TCP, fragment
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tracer import engine
from tracer.capture import open_capture
from tracer.capture.layers import Layers
from tracer.capture.streams import CaptureStream, Deliver
from tracer.engine import Settings
from tracer.grammar import load
from tracer.live.follow import Patience
from tracer.live.run import open_watch
from tracer.live.watch import Watch
from tracer.model import Capture, PacketFields, Report
from tracer.model.events import Event
from tracer.recording.pcapng_writer import Described, interface_block, packet_block, section_block
from tracer.topology import GivenTopology

NAMES = sorted(p.parent.name for p in CAPTURES.glob("*/truth.json"))


@functools.cache
def checked(name: str) -> Report:
    return engine.check([str(CAPTURES / name)], Settings(stall_s=STALL_S))


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_gives_the_verdicts_of_the_file(name: str, tmp_path: Path) -> None:
    events: list[Event] = []
    with pipes(tmp_path, files(name)) as sources:
        _, report = watch(sources, events.append)
    expected = checked(name)
    paths = {Path(c.path).name: (c.packets, c.calls, c.gaps, c.duplicate_segments) for c in expected.captures}
    assert {
        Path(c.path).name: (c.packets, c.calls, c.gaps, c.duplicate_segments) for c in report.captures
    } == paths
    assert answers(report) == [_at(tmp_path, name, each) for each in answers(expected)]
    told = {
        e.verdict.id: (e.verdict.verdict, e.verdict.outcome)
        for e in events
        if e.kind == "verdict" and e.verdict
    }
    assert told == {v.id: (v.verdict, v.outcome) for v in expected.verdicts}


def _at(folder: Path, name: str, answer: tuple[object, ...]) -> object:
    """The answer, with the paths that a reason may name."""
    return eval(repr(answer).replace(str(CAPTURES / name), str(folder)))


def _dribble(seed: int, fd: int, content: bytes) -> None:
    """Write in pieces of any size, now and then with a pause."""
    choose = random.Random(seed)
    at = 0
    while at < len(content):
        size = choose.choice((1, 7, 300, 5_000, 60_000))
        whole(fd, content[at : at + size])
        at += size
        if choose.random() < 0.02:
            time.sleep(0.005)


@pytest.mark.parametrize("seed", range(3))
def test_the_pieces_in_which_a_stream_comes_make_no_difference(seed: int, tmp_path: Path) -> None:
    name = "fail-vrm-500-reschedule"
    with pipes(tmp_path, files(name), functools.partial(_dribble, seed)) as sources:
        _, report = watch(sources)
    assert answers(report) == [_at(tmp_path, name, each) for each in answers(checked(name))]


def test_traces_that_are_done_are_forgotten(tmp_path: Path) -> None:
    """Memory follows the open traces: a run keeps no call of a trace that it has retired."""
    patience = Patience(stall_ns=STALL_S * 10**9, settle_ns=2 * 10**9, stray_ns=5 * 10**9)
    with pipes(tmp_path, files("ok-concurrent-20")) as sources:
        run, report = watch(sources, patience=patience)
    verdicts = [(v.verdict, v.outcome, v.name) for v in report.verdicts]
    assert sorted(verdicts) == sorted(
        (v.verdict, v.outcome, v.name) for v in checked("ok-concurrent-20").verdicts
    )
    assert run.follow.traces() == []


def test_a_stall_is_told_while_it_lasts(tmp_path: Path) -> None:
    """The stream is still open when the event comes, and it says whose turn it is and why."""
    hold = threading.Event()
    stalled: list[tuple[str, bool]] = []

    def tell(event: Event) -> None:
        if event.kind == "stalled":
            stalled.append((event.message, hold.is_set()))
            hold.set()

    with pipes(tmp_path, files("fail-conductor-down"), hold=hold) as sources:
        _, report = watch(sources, tell)
    [(message, ended)] = stalled
    assert not ended
    assert "before step 5, owed by nova-conductor: schedule_and_build_instances not delivered" in message
    assert [v.outcome for v in report.verdicts] == ["stuck"]


# --- the command ----------------------------------------------------------------------------------


def lines(output: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_standard_input_and_the_last_line(tmp_path: Path) -> None:
    """Each line is an object; the last one holds the report; the exit code is that of check."""
    (external, internal) = files("fail-quota-403")
    with pipes(tmp_path, [external]) as [pipe], internal.open("rb") as stdin:
        process = command("watch", "-i", f"External_api={pipe}", "-i", "Internal_base=-", stdin=stdin)
        output, errors = process.communicate(timeout=60)
    events = lines(output)
    assert (process.returncode, errors) == (1, b"")
    assert {event["schema"] for event in events} == {"tracer.watch/1"}
    assert [e["event"] for e in events if e["event"] not in ("step_seen",)] == [
        "watching",
        "trace_opened",
        "verdict",
        "trace_opened",
        "verdict",
        "report",
    ]
    assert events[0] == {
        "schema": "tracer.watch/1",
        "event": "watching",
        "time": None,
        "message": f"watching External_api ({pipe}), Internal_base (standard input)",
    }
    report = events[-1]["report"]
    assert report["schema"] == "tracer.check/1"
    assert [(t["name"], t["outcome"]) for t in report["traces"]] == [
        ("quota-a", "active"),
        ("quota-b", "rejected"),
    ]
    steps = [e["step"] for e in events if e["event"] == "step_seen" and e["name"] == "quota-a"]
    # A step is told when it is certain whose it is: 4b may be later than 4c.
    assert sorted(steps) == ["1", "2", "3", "4a", "4b", "4c", "4d", "4e", "5", "6", "7", "8b", "8c"]


def test_that_it_watches_is_told_before_anything_comes() -> None:
    """A script that starts what it wants to see, or the sender of the stream, can wait for it."""
    process = command("watch", "-i", "Internal_base=-", stdin=subprocess.PIPE)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    output, errors = process.communicate(_unpacked(files("ok-image")[1]), timeout=60)
    assert (first["event"], process.returncode, errors) == ("watching", 3, b"")
    assert "watching" not in {event["event"] for event in lines(output)}


@pytest.mark.parametrize(
    ("more", "line"), [([], b"tracer: watching Internal_base (standard input)\n"), (["-q"], b"")]
)
def test_as_text_that_it_watches_is_a_remark(more: list[str], line: bytes) -> None:
    process = command("watch", "-i", "Internal_base=-", "--format", "text", *more, stdin=subprocess.PIPE)
    output, errors = process.communicate(_unpacked(files("ok-image")[1]), timeout=60)
    assert (process.returncode, errors) == (3, line) and b"watching" not in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_the_report(number: int, tmp_path: Path) -> None:
    hold = threading.Event()
    with pipes(tmp_path, files("ok-image"), hold=hold) as sources:
        process = command("watch", "-i", sources[0], "-i", sources[1])
        assert process.stdout is not None
        first = []
        for line in process.stdout:
            first.append(line)
            if b'"verdict"' in line and json.loads(line)["event"] == "verdict":
                break
        process.send_signal(number)
        rest, errors = process.communicate(timeout=60)
        hold.set()
    report = lines(rest)[-1]["report"]
    assert (process.returncode, errors) == (0, b"")
    assert [t["outcome"] for t in report["traces"]] == ["active"]
    assert "partial" not in report


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_standard_input_stays_open(number: int) -> None:
    """The thread that waits for more of it keeps nobody from leaving, with the exit code of the report."""
    process = command("watch", "-i", "Internal_base=-", stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    process.stdin.write(_unpacked(files("ok-image")[1]))
    process.stdin.flush()
    while json.loads(process.stdout.readline())["event"] != "verdict":
        pass
    process.send_signal(number)
    rest = process.stdout.read()
    assert (process.wait(60), process.stderr.read()) == (3, b"")
    process.stdin.close()
    assert lines(rest)[-1]["event"] == "report"


def test_a_limit_of_packets_ends_it(tmp_path: Path) -> None:
    with pipes(tmp_path, files("ok-image")) as sources:
        process = command("watch", "-i", sources[0], "-i", sources[1], "-c", "100")
        output, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 3, 5)
    assert lines(output)[-1]["event"] == "report"


def test_a_limit_of_time_ends_it(tmp_path: Path) -> None:
    hold = threading.Event()
    with pipes(tmp_path, files("ok-image"), hold=hold) as sources:
        process = command("watch", "-i", sources[0], "-i", sources[1], "-a", "duration:4", "--format", "text")
        output, _ = process.communicate(timeout=60)
        hold.set()
    assert process.returncode == 0
    assert "1 trace: 1 conforms" in output.decode()


MISTAKES = [
    (["-i", "Internal_bse=-"], "did you mean Internal_base?"),
    (["-i", "Internal_base="], "nothing behind '='"),
    (["-i", "Internal_base=nosuch0"], "no interface and no file 'nosuch0'"),
    (["-i", "Internal_base=/nosuch/fifo"], "no such file or named pipe"),
    (["-i", "Internal_base=-", "-i", "External_api=-"], "standard input is given twice"),
    (["-i", "Internal_base=-", "-a", "soon"], "write duration:SECONDS"),
    ([], "no source given: use -i PLANE=INTERFACE"),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES)
def test_a_mistake_is_one_line_and_2(arguments: list[str], words: str) -> None:
    process = command("watch", *arguments, stdin=subprocess.DEVNULL)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (2, b"")
    assert words in errors.decode() and errors.count(b"\n") == 1


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty, 0 bytes"), (b"hello world\n" * 9, "not a capture")]
)
def test_what_is_no_capture_stops_it(content: bytes, words: str) -> None:
    process = command("watch", "-i", "Internal_base=-", stdin=subprocess.PIPE)
    _, errors = process.communicate(content, timeout=60)
    assert process.returncode == 2
    assert words in errors.decode()


def test_a_stream_that_breaks_off_is_counted() -> None:
    """ssh was cut in the middle of a record: what came is reported, and that it breaks off."""
    process = command("watch", "-i", "Internal_base=-", stdin=subprocess.PIPE)
    plain = _unpacked(files("ok-image")[1])
    output, _ = process.communicate(plain[: len(plain) * 2 // 3 + 5], timeout=30)
    [capture] = lines(output)[-1]["report"]["captures"]
    assert capture["broke_off"] is True
    assert capture["anomalies"] == {"file ends inside a record": 1}


def _unpacked(path: Path) -> bytes:
    import zstandard

    with path.open("rb") as file:
        return zstandard.ZstdDecompressor().stream_reader(file).read()


def test_a_reader_that_leaves_ends_nothing(tmp_path: Path) -> None:
    """`tracer watch | head -1`: the exit code still tells what was found."""
    with pipes(tmp_path, files("fail-quota-403")) as sources:
        process = command("watch", "-i", sources[0], "-i", sources[1])
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) in (0, 1, 3, 5)
        assert process.stderr is not None and process.stderr.read() == b""
    assert os.path.exists(sources[0])


class _Losing(CaptureStream):
    """A stream whose sender says what it lost, as an interface does."""

    dropped = 0

    def read(self, deliver: Deliver) -> None:
        def deliver_and_lose(packets: list[PacketFields], reached_ns: int) -> None:
            # All that the computes say to neutron-server never reaches us.
            deliver([p for p in packets if not self._is_lost(p)], reached_ns)

        super().read(deliver_and_lose)

    def _is_lost(self, packet: PacketFields) -> bool:
        flow = next((segment[1] for segment in Layers().read([packet], {})), b"")
        compute, port = bytes((172, 28, 0, 31)), (9696).to_bytes(2, "big")
        lost = port in (flow[8:10], flow[10:12]) and compute in (flow[:4], flow[4:8])
        self.dropped += lost and self.tells
        return lost

    tells = True


@pytest.mark.parametrize(
    ("tells", "verdict", "status"), [(True, "inconclusive", "unobserved"), (False, "deviates", "missing")]
)
def test_what_the_kernel_dropped_is_never_called_missing(
    tells: bool, verdict: str, status: str, tmp_path: Path
) -> None:
    events: list[Event] = []
    with pipes(tmp_path, files("ok-image")) as names:
        sources = [
            _Losing(name, Capture(number, name, Path(name).name.partition(".")[0]))
            for number, name in enumerate(names)
        ]
        for source in sources:
            source.tells = tells
        run = Watch(sources, GivenTopology(), Settings(), load("cloudvm_create"), events.append)
        report = run.run()
    [found] = report.verdicts
    assert (found.verdict, {s.step: s.status for s in found.steps}["8b"]) == (verdict, status)
    lost = sum(source.dropped for source in sources)
    told = [e.message for e in events if e.kind == "trouble"]
    assert bool(told) is (lost > 0) is tells
    assert sum(c.anomalies["packets dropped by the kernel"] for c in report.captures) == lost


def test_a_plane_that_ends_before_the_other_leaves_steps_unobserved(tmp_path: Path) -> None:
    """The VM is active by what the outer plane shows; where the inner one had ended, nothing is missing."""
    external, internal = files("ok-image")
    packets = [p for batch in open_capture(str(internal), Capture(0, "")) for p in batch]
    blocks = [packet_block(0, p[0], p[1], p[2]) for p in packets if p[0] < CUT_NS]
    head = section_block("test") + interface_block(Described("Internal_base", "test", packets[0][3]))
    (tmp_path / "Internal_base.pcapng").write_bytes(head + b"".join(blocks))
    [verdict] = engine.check([str(external), str(tmp_path)], Settings()).verdicts
    assert (verdict.verdict, verdict.outcome) == ("inconclusive", "active")
    assert {s.status for s in verdict.steps} == {"seen", "unobserved"}


CUT_NS = 1_795_330_356_000_000_000
"""2026-11-22T06:52:36Z: 3 s into the creation."""


@pytest.mark.parametrize("hold", [False, True])
def test_a_datagram_whose_rest_never_comes_is_counted_as_in_the_file(hold: bool, tmp_path: Path) -> None:
    """Of a request in IP fragments the first one comes alone: at the end of the stream, or of the run."""
    whole_packet = IP(src="10.0.0.1", dst="10.0.0.2", id=7) / TCP(sport=40000, dport=8774) / Raw(bytes(2_000))
    [first, *_] = fragment(whole_packet, 800)  # type: ignore[no-untyped-call]
    packets = [p for batch in open_capture(str(files("ok-image")[1]), Capture(0, "")) for p in batch]
    data = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / first)
    blocks = [packet_block(0, packets[0][0], data, len(data))]
    blocks += [packet_block(0, p[0], p[1], p[2]) for p in packets]
    head = section_block("test") + interface_block(Described("Internal_base", "test", packets[0][3]))
    path = tmp_path / "Internal_base.pcapng"
    path.write_bytes(head + b"".join(blocks))
    [expected] = engine.check([str(path)], Settings()).captures
    holding = threading.Event()
    (tmp_path / "pipes").mkdir()
    with pipes(tmp_path / "pipes", [path], hold=holding) as sources:
        run = open_watch(
            sources, Settings(), lambda event: run.stop() if hold and event.kind == "verdict" else None
        )
        if not hold:
            holding.set()
        report = run.run()
        holding.set()
    [capture] = report.captures
    assert capture.anomalies == expected.anomalies
    assert expected.anomalies["IP fragments of a datagram that never became complete"] == 1


def _external_begun(fd: int, content: bytes) -> None:
    """The begin of the smaller file comes first, then the larger one, then the rest."""
    if len(content) > 2_000_000:
        time.sleep(0.4)
        whole(fd, content)
    else:
        whole(fd, content[:40_000])
        time.sleep(1.5)
        whole(fd, content[40_000:])


@pytest.mark.parametrize("write", [whole, _external_begun])
@pytest.mark.parametrize("by_ms", [11, -200, 2_000])
def test_taps_with_different_clocks_show_each_creation_once(
    by_ms: int, write: Callable[[int, bytes], None], tmp_path: Path
) -> None:
    """The offset is learnt while they run: none opens twice, waits for its load balancer, or deviates.

    Also where of one tap only the begin is read before the other one.
    """
    folder = tmp_path / "shifted"
    folder.mkdir()
    for path in files("ok-concurrent-20"):
        link_type, packets = damage.read(path)
        if path.name.startswith("External_api"):
            packets = damage.shift(packets, by_ms * 1_000_000)
        damage.write(folder / path.name.removesuffix(".zst"), packets, link_type)
    events: list[Event] = []
    with pipes(tmp_path, sorted(folder.iterdir()), write) as sources:
        _, report = watch(sources, events.append)
    kinds = [event.kind for event in events]
    assert (kinds.count("trace_opened"), kinds.count("withdrawn")) == (20, 0)
    assert not [event for event in events if event.kind == "stalled" and "owed by lb" in event.message]
    assert {verdict.verdict for verdict in report.verdicts} == {"conforms"}
    assert all(event.verdict.name for event in events if event.kind == "verdict" and event.verdict)
