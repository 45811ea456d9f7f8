"""A watch that is killed and started again goes on with its open traces, and guesses at nothing between."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import struct
import subprocess
import threading
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lab.hearing import until
from lab.stepped import Stepped
from lab.streams import command, files, pipes, whole

from tracer.capture import open_capture
from tracer.engine import Settings, Stages
from tracer.errors import UsageError
from tracer.grammar import load as grammar
from tracer.live import checkpoint
from tracer.live.checkpoint import SCHEMA, State, load, save
from tracer.live.run import open_watch
from tracer.live.watch import Watch
from tracer.model import Capture
from tracer.model.events import Event
from tracer.testing.cloud import SPREAD, Cloud
from tracer.testing.creation import Creation
from tracer.testing.packets import T0_NS, pcap
from tracer.topology import GivenTopology

HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
SECOND = 1_000_000_000


class Wire:
    """The pipes of a scenario's planes; what lies in a span of its time is written into them on demand."""

    def __init__(self, folder: Path, name: str) -> None:
        self.packets: list[tuple[int, int, bytes]] = []
        self.pipes = []
        for number, path in enumerate(files(name)):
            pipe = folder / path.name.replace(".zst", "")
            os.mkfifo(pipe)
            self.pipes.append(pipe)
            found = chain.from_iterable(open_capture(str(path), Capture(number, str(path))))
            self.packets += [(packet[0], number, packet[1]) for packet in found]
        self.packets.sort(key=lambda packet: packet[0])
        self.begin_ns = self.packets[0][0]

    @property
    def arguments(self) -> list[str]:
        return [word for pipe in self.pipes for word in ("-i", str(pipe))]

    def open(self) -> list[int]:
        found = [0] * len(self.pipes)

        def one(number: int) -> None:
            found[number] = os.open(self.pipes[number], os.O_WRONLY)
            os.write(found[number], HEADER)

        threads = [threading.Thread(target=one, args=(n,), daemon=True) for n in range(len(self.pipes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        return found

    def send(self, fds: list[int], since_s: float, until_s: float) -> None:
        streams = [bytearray() for _ in fds]
        for time_ns, number, data in self.packets:
            if since_s <= (time_ns - self.begin_ns) / SECOND < until_s:
                head = struct.pack("<IIII", *divmod(time_ns, SECOND), len(data), len(data))
                streams[number] += head + data
        threads = [
            threading.Thread(target=whole, args=(fd, bytes(stream)), daemon=True)
            for fd, stream in zip(fds, streams, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)


def events(process: subprocess.Popen[bytes], into: list[dict[str, Any]]) -> threading.Thread:
    """Collect the lines of a watch while it runs."""

    def read() -> None:
        assert process.stdout is not None
        into.extend(map(json.loads, process.stdout))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


def killed_and_started_again(
    folder: Path, name: str, cut_s: float, again_s: float, seen: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The events of a watch that is killed when *cut_s* was seen, and of the next, from *again_s* on."""
    wire, kept = Wire(folder, name), folder / "kept.json"
    first: list[dict[str, Any]] = []
    second: list[dict[str, Any]] = []
    process = command("watch", *wire.arguments, "--checkpoint", str(kept))
    reading = events(process, first)
    fds = wire.open()
    wire.send(fds, 0, cut_s)
    until(lambda: any(e.get("step") == seen for e in first))
    opened = sum(e["event"] == "trace_opened" for e in first)
    until(lambda: kept.exists() and len(msgspec.json.decode(kept.read_bytes())["traces"]) == opened)
    told = {e["step"] for e in first if e["event"] == "step_seen"}
    until(lambda: set(msgspec.json.decode(kept.read_bytes())["traces"][0]["told"]) >= told)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    reading.join(10)
    for fd in fds:
        os.close(fd)
    process = command("watch", *wire.arguments, "--checkpoint", str(kept))
    reading = events(process, second)
    fds = wire.open()
    wire.send(fds, again_s, 1e9)
    for fd in fds:
        os.close(fd)
    process.wait(60)
    reading.join(10)
    assert process.stderr is not None and process.stderr.read() == b""
    return first, second


def test_a_trace_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed in the middle of a creation, started at once: the same trace, told once, with its verdict."""
    first, second = killed_and_started_again(tmp_path, "fail-vrm-500-reschedule", 2.5, 2.5, "7")
    [opened] = [e for e in first if e["event"] == "trace_opened"]
    assert [e for e in second if e["event"] == "trace_opened"] == []
    [verdict] = [e for e in second if e["event"] == "verdict"]
    assert (verdict["trace"], verdict["name"]) == (opened["trace"], opened["name"])
    assert verdict["outcome"] == "active"
    assert verdict["verdict"] in ("conforms", "inconclusive")
    told = [(e["step"], e["status"]) for e in first + second if e["event"] == "step_seen"]
    assert len(told) == len(set(told)), "no step is told twice"
    assert {"1", "2", "3", "4e", "5", "6", "7", "8b", "8c"} <= {step for step, _ in told}
    [trace] = second[-1]["report"]["traces"]
    now = {s["step"]: s["status"] for s in trace["steps"]}
    # 4a is a validation of the requester's token while nova-api's call is open: no id tells it again.
    assert dict(e for e in told if e[1] == "seen").items() <= now.items(), "what was seen stays seen"
    assert now["4a"] == "seen"
    assert any("resumed with 1 open trace" in e.get("message", "") for e in second)
    [trace] = second[-1]["report"]["traces"]
    assert [s["status"] for s in trace["steps"] if s["status"] == "missing"] == []


@pytest.mark.parametrize(
    ("again_s", "gone"), [(3.0, "7"), *(pytest.param(s, "8c", marks=pytest.mark.long) for s in (4.0, 5.0))]
)
def test_what_happened_between_is_not_missing(again_s: float, gone: str, tmp_path: Path) -> None:
    first, second = killed_and_started_again(tmp_path, "fail-vrm-500-reschedule", 2.0, again_s, "5")
    assert [e["event"] for e in first].count("trace_opened") == 1
    assert [e["event"] for e in second].count("trace_opened") == 0
    [trace] = second[-1]["report"]["traces"]
    assert trace["verdict"] in ("conforms", "inconclusive"), trace["deviations"]
    statuses = {s["step"]: s["status"] for s in trace["steps"]}
    assert "missing" not in statuses.values()
    assert all(statuses[step] in ("seen", "inferred") for step in ("1", "2", "3", "4e", "5"))
    assert any("before were not captured" in e.get("message", "") for e in second)
    # What is unobserved is so for the time between the runs, and the advice is not that of lost packets.
    [reason] = [s["reason"] for s in trace["steps"] if s["status"] == "unobserved" and s["step"] == gone]
    moment = r"2026-11-22 07:10:\d\d\.\d{3}"
    hole = f"nothing is known from {moment} to {moment} UTC, between two runs of the watch"
    assert re.fullmatch(hole, reason)
    assert second[-1]["report"]["advice"] == [f"{reason}: let `tracer capture` run beside it"]


THE_END = Event("trouble", 0, message="all is taken in, and nothing was closed yet")


def cut_in_two(
    folder: Path, cloud: Cloud, cut_s: float, again_s: float
) -> tuple[list[Event], State, list[Event]]:
    """What is told until *cut_s* of the cloud's time, what is kept then, what is told from *again_s* on."""
    planes = cloud.network.packets()
    told: tuple[list[Event], list[Event]] = ([], [])
    states: list[State] = []
    (folder / "pipes").mkdir()
    for into, (since_s, until_s) in zip(told, ((0, cut_s), (again_s, 1e9)), strict=True):
        paths = [folder / f"{plane}.pcap" for plane in sorted(planes)]
        for path in paths:
            packets = planes[path.stem]
            path.write_bytes(pcap([p for p in packets if since_s <= (p[0] - T0_NS) / SECOND < until_s]))
        with pipes(folder / "pipes", paths) as sources:
            run = open_watch(sources, Settings(), into.append)
            for state in states:
                run.resume(state)

            def at_end(run: Watch = run, into: list[Event] = into) -> None:
                states.append(run.state())
                into.append(THE_END)

            run.before_end = at_end
            run.run()
        for source in sources:
            os.unlink(source)
    return told[0], msgspec.json.decode(msgspec.json.encode(states[0]), type=State), told[1]


@pytest.mark.parametrize(("one_was_made", "cut_s"), [(True, 130), (True, 200), (False, 200)])
def test_an_order_that_hangs_goes_on_too(one_was_made: bool, cut_s: float, tmp_path: Path) -> None:
    """Whether an order was seen to lead to a creation or not: the same number, and stalled is told once."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 400, every=2)
    if one_was_made:
        Creation(cloud, at=20, name="good").run()
    cloud.rest(100, "admin", "sc", "POST", "/sc/cloudhosts", "silent", token="", body={"name": "hangs"})
    first, state, second = cut_in_two(tmp_path, cloud, cut_s, cut_s + 2)
    told = [e for e in (*first, *second) if e.verdict is not None and e.verdict.name == "hangs"]
    told = [e for e in told if e.kind not in ("step_seen", "verdict")]
    assert [e.kind for e in told] == ["trace_opened", "stalled"]
    number = 2 if one_was_made else 1
    assert {e.trace.number for e in told if e.trace} == {number}
    assert [kept.number for kept in state.traces] == [number]
    assert "resumed with 1 open trace" in second[0].message
    ends = [e for e in second if e.kind == "verdict"]
    assert [(e.trace and e.trace.number, e.verdict and e.verdict.outcome) for e in ends] == [
        (number, "stuck")
    ]


@pytest.mark.parametrize(("path", "told"), [("cloudhosts", ["trace_opened"]), ("volumes", [])])
def test_what_orders_look_like_is_known_again(path: str, told: list[str], tmp_path: Path) -> None:
    """Another that hangs behind the restart is told; one of another kind is not, however long it waits."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 190, every=2)
    Creation(cloud, at=20, name="good").run()
    cloud.rest(115, "admin", "sc", "POST", f"/sc/{path}", "silent", token="", body={"name": "hangs"})
    _, state, second = cut_in_two(tmp_path, cloud, 100, 102)
    assert state.orders == ["POST /sc/cloudhosts"]
    second = second[: second.index(THE_END)]
    found = [e.kind for e in second if e.verdict is not None and e.verdict.name == "hangs"]
    assert [kind for kind in found if kind == "trace_opened"] == told


def test_an_order_whose_creation_is_over_is_no_trace_again() -> None:
    """The portal answers it only when the run has ended that saw the creation, and badly."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 220, every=2)
    Creation(cloud, at=20, breaks={"1": "left out"}).run()
    Creation(cloud, at=150, breaks={"6": "stop"}, name="open").run()
    order = {"name": "web-1"}
    cloud.rest(19.9, "admin", "sc", "POST", "/sc/cloudhosts", 502, took=170, token="", body=order)
    planes = cloud.network.packets()
    packets = sorted(
        (time_ns, n, frame) for n, plane in enumerate(sorted(planes)) for time_ns, frame in planes[plane]
    )
    cut_ns = T0_NS + 160 * SECOND

    def run(part: list[tuple[int, int, bytes]], resumed: State | None) -> tuple[Stepped, list[Event]]:
        captures = [Capture(n, f"{plane}.pcap", plane) for n, plane in enumerate(sorted(planes))]
        stepped = Stepped(Stages(captures, GivenTopology(), Settings(), grammar("cloudvm_create")), resumed)
        return stepped, stepped.events_of(part)

    first, told = run([p for p in packets if p[0] < cut_ns], None)
    assert [e.kind for e in told if e.verdict and e.verdict.name == "web-1"][-1:] == ["verdict"]
    assert first.restart is not None
    kept = first.restart.state(cut_ns)
    assert [calls.operation for n, calls in enumerate(kept.calls) if n in kept.led] == ["POST /sc/cloudhosts"]
    _, told = run([p for p in packets if p[0] >= cut_ns], kept)
    assert [e.kind for e in told if e.verdict and e.verdict.name == "web-1"] == []


def test_the_file_is_its_owners_and_holds_no_secret(tmp_path: Path) -> None:
    wire, kept = Wire(tmp_path, "ok-image"), tmp_path / "kept.json"
    process = command("watch", *wire.arguments, "--checkpoint", str(kept))
    seen: list[dict[str, Any]] = []
    events(process, seen)
    fds = wire.open()
    wire.send(fds, 0, 1e9)
    until(lambda: any(e["event"] == "trace_opened" for e in seen))
    until(lambda: kept.exists())
    for fd in fds:
        os.close(fd)
    process.wait(60)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [], (
        "nothing is left beside"
    )
    tokens = {
        word
        for _, _, data in wire.packets
        for line in data.split(b"\r\n")
        if line.lower().startswith((b"x-auth-token:", b"x-subject-token:"))
        for word in line.split()[1:]
    }
    assert tokens
    assert not any(token in kept.read_bytes() for token in tokens)


def state(**changes: Any) -> dict[str, Any]:
    empty = State(SCHEMA, "cloudvm_create", [("x", None)], 0, [None], 0, {}, {}, [], 0, [], [])
    return msgspec.to_builtins(empty) | changes


CALL = [
    "REST",
    "GET /",
    "200",
    1,
    2,
    [[0, 1]],
    0,
    [0, 0],
    [0, 1],
    None,
    "",
    1,
    True,
    None,
    None,
    None,
    "REST",
]
CONNECTION = [["10.0.0.1", 1], ["10.0.0.2", 2], 1, [0], "http1", 0, 0, 3, "", ""]
REST = {"method": "GET", "path": "/"}
GOOD = state(calls=[[*CALL, REST]], connections=[CONNECTION])


def test_what_is_well_formed_is_read(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(msgspec.json.encode(GOOD))
    found = load(tmp_path / "c")
    assert found is not None and len(found.calls) == 1


DAMAGED = [
    b"",
    b"{",
    b"[]",
    b"\x80\x04\x95pickle",
    b'{"schema":"something/else"}',
    b"[" * 100_000,
    msgspec.json.encode(state(first_ns=[])),
    msgspec.json.encode(
        state(traces=[{"number": 1, "request_id": "", "server_id": "", "call": 0, "told": {}}])
    ),
    *(
        msgspec.json.encode(GOOD | {"calls": [[*CALL[:at], value, *CALL[at + 1 :], REST]]})
        for at, value in [
            (0, "X"),
            (3, "now"),
            (5, [[7, 1]]),
            (6, 9),
            (6, -1),
            (7, [0, 5]),
            (13, 4),
            (16, "RPC"),
        ]
    ),
    msgspec.json.encode(GOOD | {"calls": [[*CALL, {"method": 7, "path": "/"}]]}),
    *(
        msgspec.json.encode(GOOD | {"connections": [[*CONNECTION[:at], value, *CONNECTION[at + 1 :]]]})
        for at, value in [(0, ["nobody", 1]), (1, ["10.0.0.1", 99999]), (3, []), (3, [4])]
    ),
]


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_what_is_damaged_or_foreign_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(content)
    words = "damaged, or not a checkpoint of tracer: move it away to start anew"
    with pytest.raises(UsageError, match=words):
        load(tmp_path / "c")


def test_that_names_a_call_which_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(msgspec.json.encode(GOOD | {"led": [99]}))
    with pytest.raises(UsageError, match="damaged"):
        load(tmp_path / "c")


def test_that_of_a_version_that_kept_no_orders_is_read(tmp_path: Path) -> None:
    older = {key: value for key, value in GOOD.items() if key != "orders"}
    (tmp_path / "c").write_bytes(msgspec.json.encode(older))
    found = load(tmp_path / "c")
    assert found is not None and found.orders == []


def test_that_of_another_version_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "c").write_bytes(msgspec.json.encode(state(schema="tracer.checkpoint/99")))
    with pytest.raises(UsageError, match="of another version of tracer"):
        load(tmp_path / "c")


def test_none_is_no_mistake(tmp_path: Path) -> None:
    assert load(tmp_path / "nothing") is None


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 60))
def test_any_damage_is_refused_or_read(piece: bytes, at: int, gone: int) -> None:
    """Nothing that a file can hold raises anything else, or goes further than the reader."""
    import tempfile

    content = msgspec.json.encode(GOOD)
    with tempfile.NamedTemporaryFile() as file:
        file.write(content[:at] + piece + content[at + gone :])
        file.flush()
        try:
            found = load(Path(file.name))
        except UsageError:
            return
        assert found is not None


def test_a_place_that_cannot_be_written_is_one_line_and_2(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "Internal_base.pcap")
    process = command(
        "watch", "-i", str(tmp_path / "Internal_base.pcap"), "--checkpoint", str(tmp_path / "no" / "c")
    )
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, b"")
    assert b"cannot be written: No such file or directory" in errors and errors.count(b"\n") == 1


def test_that_of_other_sources_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "Internal_base.pcap")
    save(tmp_path / "c", msgspec.convert(state(), State))
    process = command(
        "watch", "-i", str(tmp_path / "Internal_base.pcap"), "--checkpoint", str(tmp_path / "c")
    )
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (2, b"")
    assert b"the file is of a run with sources " in errors and errors.count(b"\n") == 1


def test_there_is_room_for_so_many_calls_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What has no room is counted, not written; the next run tells how many traces that are."""
    from tracer.live import restart as room

    monkeypatch.setattr(room, "MOST_CALLS", 300)
    states: list[State] = []
    with pipes(tmp_path, files("ok-concurrent-20")) as sources:
        run = open_watch(sources, Settings(), lambda event: None)
        run.run(show=lambda picture: states.append(run.state()) if picture.open else None)
    most = max(states, key=lambda each: each.left_out)
    assert most.left_out > 0
    assert all(len(each.calls) < 1000 for each in states)
    assert all(checkpoint.unpack(each) for each in states if each.calls)
    for source in sources:
        os.unlink(source)
    told: list[Event] = []
    with pipes(tmp_path, files("ok-concurrent-20")) as sources:
        run = open_watch(sources, Settings(), told.append)
        run.resume(most)
        run.run()
    assert any(f"{most.left_out} more had no room in the checkpoint" in event.message for event in told)
