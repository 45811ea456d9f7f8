"""`tracer doctor`: what it says of this host and of captures."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tracer.capture.host import diagnose_host, may_sniff
from tracer.testing.packets import Network

ROOT = Path(__file__).parent.parent


def doctor(*arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in {"FORCE_COLOR", "CLICOLOR_FORCE"}}
    return subprocess.run(
        [sys.executable, "-m", "tracer", "doctor", *arguments],
        cwd=ROOT,
        env=kept | {"COLUMNS": "160", "NO_COLOR": "1", "PYTHONUTF8": "1"} | ({"PATH": path} if path else {}),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def document(*arguments: str) -> dict[str, Any]:
    ran = doctor(*arguments, "--format", "json")
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


# --- captures ---------------------------------------------------------------------------------------


def test_a_capture_that_shows_every_step() -> None:
    found = document("captures/ok-image")["captures"]
    assert [step["step"] for step in found["steps"] if not step["visible"]] == []
    assert (found["grammar"], found["traces"]) == ("cloudvm_create", 1)
    assert {role["role"]: role["addresses"] for role in found["roles"]}["vrm"] == ["172.28.0.61"]


def test_one_plane_says_which_steps_the_other_one_would_show() -> None:
    found = document("captures/ok-image/Internal_base.pcap.zst")["captures"]
    hidden = {step["step"]: step["reason"] for step in found["steps"] if not step["visible"]}
    assert hidden == {step: "External_api is not captured" for step in ("1", "2")}


def test_each_capture_point_lists_what_it_saw() -> None:
    found = document("captures/colo-ok")["captures"]
    seen = {(row["capture"].rpartition("/")[2].split("-")[0], row["protocol"]) for row in found["traffic"]}
    assert {("ctl", "REST"), ("ctl", "SQL"), ("compute1", "RPC"), ("sc", "REST")} <= seen


def test_calls_are_those_of_check() -> None:
    found = document("captures/fail-400")["captures"]
    checked = subprocess.run(
        [sys.executable, "-m", "tracer", "check", "captures/fail-400", "--format", "json"],
        cwd=ROOT, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    calls = sum(capture["calls"] for capture in json.loads(checked.stdout)["captures"])
    assert sum(row["calls"] for row in found["traffic"]) == calls


def test_what_is_encrypted_is_listed_with_its_port(tmp_path: Path) -> None:
    """A request under TLS, as its first record alone: enough to know that nothing can be read."""
    network = Network()
    network.connection("10.10.0.5", "10.10.0.20", 8774, at=0).say(0.1, bytes.fromhex("16030100050100000100"))
    network.write(tmp_path)
    (row,) = document(str(tmp_path))["captures"]["traffic"]
    assert (row["protocol"], row["port"], row["connections"], row["calls"]) == ("tls", 8774, 1, 0)


def test_a_key_log_that_is_not_there_is_one_line_and_2() -> None:
    ran = doctor("captures/fail-400", "--keylog", "nothing.log")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "nothing.log" in ran.stderr and ran.stderr.count("\n") == 1


def test_the_text_has_planes_roles_and_steps() -> None:
    ran = doctor("captures/fail-400")
    assert (ran.returncode, ran.stderr) == (0, "")
    for part in ("a tap of External_api", "roles", "steps of cloudvm_create", " of 14 steps could be seen"):
        assert part in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nothing.pcap",), "nothing.pcap: no such file"),
        (("captures/ok-image", "--listen", "1"), "not both at once"),
        (("--listen", "0"), "--listen: "),
        (("--listen", "nan"), "--listen nan: not a number of seconds"),
        (("--amqp", "http://broker"), "a broker's URL begins with amqp://"),
    ],
)
def test_what_it_cannot_do_is_one_line_and_2(arguments: tuple[str, ...], says: str) -> None:
    ran = doctor(*arguments)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert says in ran.stderr and ran.stderr.count("\n") == 1


# --- this host --------------------------------------------------------------------------------------


def test_missing_tools_are_named_with_how_to_get_them(tmp_path: Path) -> None:
    ran = doctor(path=str(tmp_path))
    assert ran.returncode == 0
    assert "tshark: not here" in ran.stdout and "do: apt install tshark" in ran.stdout


def test_the_loopback_is_an_interface_of_this_host() -> None:
    assert [each.is_up for each in diagnose_host().interfaces if each.name == "lo"] == [True]


def test_a_broker_that_is_not_there_is_a_finding_without_its_password() -> None:
    found = diagnose_host(["amqp://guest:s3cret-canary@127.0.0.1:1/"]).findings[-1]
    assert (found.subject, found.level) == ("RabbitMQ", "bad")
    assert "Connection refused" in found.text and "s3cret-canary" not in repr(found)


@pytest.mark.skipif(not may_sniff(), reason="needs the capability CAP_NET_RAW")
def test_listening_shows_what_flows_on_an_interface() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = threading.Event()
        asking = threading.Thread(target=_ask_until, args=(server, done))
        asking.start()
        try:
            found = document("--listen", "2")["captures"]
        finally:
            done.set()
            asking.join()
    (row,) = [row for row in found["traffic"] if row["port"] == port]
    assert (row["capture"], row["protocol"]) == ("lo", "REST")


def _ask_until(server: socket.socket, done: threading.Event) -> None:
    """Ask *server* for servers and answer, on one connection, until *done*."""
    with socket.create_connection(server.getsockname()) as client, server.accept()[0] as answering:
        while not done.wait(0.05):
            client.sendall(b"GET /v2.1/servers HTTP/1.1\r\nHost: nova\r\n\r\n")
            answering.recv(4096)
            answering.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            client.recv(4096)
