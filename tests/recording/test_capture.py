"""`tracer capture` on virtual wires: rotation, killing, redaction; files with the verdicts of the wire."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import pytest
from streams import CAPTURES, ROOT
from wires import inside, listens, why_not, wires

from tracer import pipeline
from tracer.model import Capture
from tracer.pipeline import Settings
from tracer.recording.rotation import Files, Rotation
from tracer.sources import open_capture

needs_wires = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
NAME = "fail-quota-403"
PLANES = ("External_api", "Internal_base")
SENDER = str(ROOT / "tests" / "live" / "wires.py")


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


def outcomes(folder: Path) -> list[tuple[str | None, str, str, str | None]]:
    report = pipeline.check([str(folder)], Settings())
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
        time.sleep(0.3)
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
        time.sleep(0.3)
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
        until = time.monotonic() + 60
        while time.monotonic() < until and sum(f.stat().st_size for f in tmp_path.iterdir()) < 200_000:
            time.sleep(0.05)
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
        (["-w", "x"], "record what?"),
        (["-i", "lo"], "tracer capture needs"),
        (["-i", "lo", "-w", "/proc/nothing"], "-w /proc/nothing: cannot be made"),
        (["-i", "lo", "-w", "x", "-W", "3"], "when is a new file to begin?"),
        (["-i", "lo", "-w", "x", "-C", "0"], "must be more than 0"),
        (["-i", "Internal_base=-", "-w", "x"], "capture records interfaces"),
    ],
)
def test_a_mistake_is_one_line_and_2(arguments: list[str], words: str) -> None:
    if "/proc/nothing" in arguments and why_not() is not None:
        pytest.skip("sniffing needs root")
    command = [sys.executable, "-m", "tracer", "capture", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert words in done.stderr.decode() and done.stderr.count(b"\n") == 1


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
