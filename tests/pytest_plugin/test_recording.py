"""Recording while a test runs: real sockets on the loopback interface, recorded by pytest in a process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab.recorded_runs import RAW, ROOT, SECRET, failures_of, kept, run

from tracer.pytest_plugin.recorder import BROKE_OFF

pytestmark = pytest.mark.skipif(not RAW, reason="recording needs CAP_NET_RAW")
RECORDS = """
from conversation import create

def test_it(tracer):
    with tracer.record({"Internal_base": "lo"}, settle=0.3) as traffic:
        create()
    assert traffic.packets >= 8
    assert traffic.only().name == "web-1"
    assert traffic.only().request_id == "req-2f3ede67-5c1b-4f3c-9a6e-0b7f4b2f9d01"
"""


def test_what_a_test_does_is_recorded_and_checked(tmp_path: Path, installed: list[str]) -> None:
    """A test that passes leaves nothing behind."""
    ran = run(tmp_path, installed, RECORDS)
    assert ran.returncode == 0, ran.stdout
    assert not (tmp_path / "tracer-captures").exists()


FAILS = RECORDS + "    assert traffic.conforms()\n"


@pytest.mark.parametrize(
    "arguments, files, words",
    [
        ([], 1, "captures: {folder}/tracer-captures/test_recorded.py/test_it (secrets overwritten)"),
        (["--tracer-keep=none"], 0, "captures: not kept"),
        (
            ["--tracer-folder=else"],
            0,
            "captures: {folder}/else/test_recorded.py/test_it (secrets overwritten)",
        ),
        (["--tracer-raw"], 1, "(with all secrets, for --tracer-raw)"),
    ],
)
def test_the_captures_of_a_failure(
    arguments: list[str], files: int, words: str, tmp_path: Path, installed: list[str]
) -> None:
    """They are kept under the test's name, without secrets, and the message says where."""
    ran = run(tmp_path, installed, FAILS, *arguments)
    assert ran.returncode == 1, ran.stdout
    assert words.format(folder=tmp_path) in ran.stdout
    assert "step" in ran.stdout
    assert "is inconclusive" in ran.stdout
    assert len(kept(tmp_path)) == files
    for capture in kept(tmp_path):
        assert (SECRET.encode() in capture.read_bytes()) == ("--tracer-raw" in arguments)


def test_all_captures_are_kept_on_demand(tmp_path: Path, installed: list[str]) -> None:
    assert run(tmp_path, installed, RECORDS, "--tracer-keep=all").returncode == 0
    assert [path.parent.name for path in kept(tmp_path)] == ["test_it"]


def test_without_the_privilege(tmp_path: Path, installed: list[str]) -> None:
    """Skipped with the reason, or failed under --tracer-strict."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is not installed")
    no_raw = ("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw")
    ran = run(tmp_path, installed, RECORDS, before=no_raw)
    assert ran.returncode == 0, ran.stdout
    assert "1 skipped" in ran.stdout
    assert "SKIPPED" in ran.stdout
    assert "CAP_NET_RAW" in ran.stdout
    ran = run(tmp_path, installed, RECORDS, "--tracer-strict", before=no_raw)
    assert ran.returncode == 1, ran.stdout
    assert "1 failed" in ran.stdout
    assert "CAP_NET_RAW" in ran.stdout


MISTAKES = {
    "with tracer.record({'Internal_base': 'eth99'}): pass": "UsageError: -i: no interface and no file",
    "with tracer.record({'Internl_base': 'lo'}): pass": "did you mean Internal_base?",
    "with tracer.record('lo', bpf='nonsense and'): pass": "nonsense",
    "with tracer.record('lo') as traffic: traffic.traces": "ask after the `with` block",
    "tracer.record('lo').traces": "ask after the `with` block",
    "with tracer.record('lo', bpf='tcp port 1') as t: pass\n    t.traces": "nothing was recorded on lo",
}


def test_a_mistake_says_what_to_do(tmp_path: Path, installed: list[str]) -> None:
    """One line, and no capture is left behind for it."""
    tests = [f"def test_{n}(tracer):\n    {mistake}\n" for n, mistake in enumerate(MISTAKES)]
    ran = run(tmp_path, installed, "\n".join(tests), "--tracer-keep=none", "--junitxml=junit.xml")
    assert ran.returncode == 1, ran.stdout
    failures = failures_of(tmp_path / "junit.xml")
    assert sorted(failures) == [f"test_{n}" for n in range(len(MISTAKES))]
    for n, words in enumerate(MISTAKES.values()):
        assert words in failures[f"test_{n}"]
    assert kept(tmp_path) == []


def test_an_interface_that_goes_away_is_one_line_and_no_traceback(tmp_path: Path) -> None:
    """The recorder says why it broke off; the plugin passes that on."""
    asked = {
        "folder": str(tmp_path / "kept"),
        "interfaces": ["Internal_base=w0"],
        "filter": None,
        "redact": True,
        "topology": "",
        "brokers": [],
        "grammar": "cloudvm_create",
        "stall_s": 60,
        "allow": [],
    }
    begin = 'ip link add w0 type veth peer name w1 && ip link set w0 up && exec "$@"'
    recorder = [sys.executable, "-m", "tracer.pytest_plugin.recorder"]
    with subprocess.Popen(
        ["unshare", "-n", "sh", "-c", begin, "sh", *recorder],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        down = ["nsenter", "-t", str(process.pid), "-n", "ip", "link", "set", "w0", "down"]
        subprocess.run(down, check=True)
        assert process.wait(60) == BROKE_OFF
        assert process.stderr.read() == "w0: no packets any more: Network is down\n"
