"""Real packets on virtual wires: the verdicts of `tracer check` on the file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from lab.running import Running
from lab.streams import CAPTURES, ROOT
from lab.wires import inside, why_not, wires

from tracer import engine
from tracer.capture.interface import default_filter
from tracer.engine import Settings
from tracer.protocols import PORTS

needs_wires = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
PLANES = ("External_api", "Internal_base")
SENDER = str(ROOT / "tests" / "lab" / "wires.py")


TAPS = tuple(f"-i{plane}=w{number}" for number, plane in enumerate(PLANES))


def start(space: str, *arguments: str, sources: tuple[str, ...] = TAPS) -> Running:
    """`tracer watch` on both planes in *space*, once it says that it is watching."""
    process = subprocess.Popen(
        inside(space, sys.executable, "-m", "tracer", "watch", *sources, *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    running = Running(process)
    running.until(lambda said: b'"event":"watching"' in said)
    return running


def end_after(running: Running, verdicts: int) -> tuple[bytes, bytes]:
    """Interrupt it once it has told so many verdicts: each is told when all of its creation has passed."""
    running.until(lambda said: said.count(b'"event":"verdict"') >= verdicts)
    running.process.send_signal(signal.SIGINT)
    return running.end()


def cut(space: str) -> None:
    """End the wires: what has passed is still taken in, then the watch ends by itself."""
    for name in ("w0", "w1"):
        subprocess.run(["ip", "-n", space, "link", "set", name, "down"], check=True)


def resend(space: str, name: str, speed: float) -> int:
    files = [f"w{n}={next((CAPTURES / name).glob(f'{plane}*'))}" for n, plane in enumerate(PLANES)]
    sent = subprocess.run(
        [sys.executable, SENDER, space, str(speed), *files], cwd=ROOT, capture_output=True, check=True
    )
    return int(sent.stdout)


def report(output: bytes) -> dict[str, Any]:
    last = json.loads(output.splitlines()[-1])
    assert last["event"] == "report"
    found: dict[str, Any] = last["report"]
    return found


@needs_wires
@pytest.mark.parametrize(
    ("name", "speed"),
    [
        pytest.param("fail-quota-403", 1, marks=pytest.mark.long),
        ("fail-quota-403", 10),
        pytest.param("fail-vrm-500-reschedule", 10, marks=pytest.mark.long),
        pytest.param("ok-concurrent-20", 10, marks=pytest.mark.long),
    ],
)
def test_packets_on_a_wire_give_the_verdicts_of_the_file(name: str, speed: float) -> None:
    expected = engine.check([str(CAPTURES / name)], Settings())
    with wires(["w0", "w1"]) as space:
        running = start(space)
        resend(space, name, speed)
        output, errors = end_after(running, len(expected.verdicts))
    assert errors == b""
    found = report(output)
    assert sum(c["gaps"] for c in found["captures"]) == 0
    assert [c["anomalies"] for c in found["captures"]] == [{}, {}]
    key = "id", "verdict", "outcome", "stopped_at", "attempts"
    assert [tuple(t[k] for k in key) for t in found["traces"]] == [
        (v.id, v.verdict, v.outcome, v.stopped_at, list(v.attempts)) for v in expected.verdicts
    ]
    steps = [[(s["step"], s["status"]) for s in t["steps"]] for t in found["traces"]]
    assert steps == [[(s.step, s.status) for s in v.steps] for v in expected.verdicts]
    assert running.process.returncode == (1 if any(v.verdict == "deviates" for v in expected.verdicts) else 0)


@needs_wires
def test_any_interface_is_all_of_them() -> None:
    """Both planes through one socket, each packet where it leaves and where it comes in: same verdicts."""
    expected = engine.check([str(CAPTURES / "fail-quota-403")], Settings())
    with wires(["w0", "w1"]) as space:
        subprocess.run(["ip", "-n", space, "link", "set", "lo", "up"], check=True)
        running = start(space, sources=("-iany",))
        resend(space, "fail-quota-403", 10)
        output, errors = end_after(running, len(expected.verdicts))
    assert errors == b""
    key = "id", "verdict", "outcome", "stopped_at"
    assert [tuple(t[k] for k in key) for t in report(output)["traces"]] == [
        (v.id, v.verdict, v.outcome, v.stopped_at) for v in expected.verdicts
    ]


@needs_wires
def test_a_limit_of_packets() -> None:
    with wires(["w0", "w1"]) as space:
        running = start(space, "-c", "200", "-f", "tcp")
        resend(space, "fail-quota-403", 100)
        output, _ = running.end()
    assert sum(c["packets"] for c in report(output)["captures"]) >= 200


@needs_wires
def test_a_filter_of_its_own() -> None:
    with wires(["w0", "w1"]) as space:
        running = start(space, "-f", "port 8774")
        resend(space, "fail-quota-403", 100)
        cut(space)
        output, _ = running.end()
    every = engine.check([str(CAPTURES / "fail-quota-403")], Settings())
    found = sum(c["packets"] for c in report(output)["captures"])
    assert 0 < found < sum(c.packets for c in every.captures)


@needs_wires
def test_a_filter_that_fits_nothing() -> None:
    """All has passed when the wires are cut, and a watch that took nothing in has nothing to report."""
    with wires(["w0", "w1"]) as space:
        running = start(space, "-f", "port 9")
        resend(space, "fail-quota-403", 100)
        cut(space)
        output, errors = running.end()
    assert output.count(b"\n") == 1, "that it watches, and no report"
    assert errors.endswith(b": no packets any more: Network is down\n") and errors.count(b"\n") == 1
    assert running.process.returncode == 2


@needs_wires
def test_a_wire_that_is_cut_ends_the_run() -> None:
    with wires(["w0", "w1"]) as space:
        running = start(space)
        resend(space, "fail-quota-403", 100)
        cut(space)
        output, _ = running.end()
    told = [json.loads(line)["message"] for line in output.splitlines() if b'"trouble"' in line]
    assert sorted(told) == [f"w{n}: no packets any more: Network is down" for n in range(2)]
    assert len(report(output)["traces"]) == 2


@needs_wires
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-i", "Internal_base=w0", "-f", "prot 80"], "-f 'prot 80'"),
        (["-i", "Internal_base=w7"], "no interface and no file 'w7'"),
    ],
)
def test_a_mistake_is_one_line_and_2(arguments: list[str], words: str) -> None:
    with wires(["w0"]) as space:
        command = inside(space, sys.executable, "-m", "tracer", "watch", *arguments)
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode() and done.stderr.count(b"\n") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are of Linux")
def test_without_the_privilege_it_says_which_and_how_to_give_it() -> None:
    """Also root may lack it: the capability is dropped, not the user changed."""
    program = (
        "from tracer.capture import privileges; privileges.drop();"
        " from tracer.cli import main; main(['watch', '-i', 'Internal_base=lo'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"CAP_NET_RAW" in done.stderr and b"setcap cap_net_raw+ep /" in done.stderr
    assert done.stderr.count(b"\n") == 1


@needs_wires
def test_privileges_are_given_up_once_the_sockets_are_open() -> None:
    with wires(["w0", "w1"]) as space:
        running = start(space)
        lines = Path(f"/proc/{running.process.pid}/status").read_text(encoding="ascii").splitlines()
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        running.process.send_signal(signal.SIGTERM)
        running.end()
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    assert running.process.returncode == 5


@needs_wires
def test_sudo_is_given_back() -> None:
    program = (
        "from tracer.capture import privileges; privileges.drop();"
        " import os; print(os.getresuid(), os.getgroups())"
    )
    environment = os.environ | {"SUDO_UID": "12345", "SUDO_GID": "12346"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    assert done.stdout == b"(12345, 12345, 12345) []\n"


def test_the_filter_comes_from_the_ports() -> None:
    assert (
        default_filter({80: "http1", 5672: "amqp091", 3306: "mysql"})
        == "tcp and (port 80 or port 5672 or (port 3306))"
    )


def test_of_sql_only_that_of_nova_api_where_that_is_known() -> None:
    bpf = default_filter({80: "http1", 3306: "mysql"}, ("10.0.0.1", "10.0.0.2"))
    assert bpf == "tcp and (port 80 or ((port 3306) and (host 10.0.0.1 or host 10.0.0.2)))"


def test_every_port_of_a_protocol_is_in_the_filter() -> None:
    words = default_filter(PORTS)
    assert [port for port in PORTS if f"port {port} " not in f"{words} ".replace(")", " ")] == []
