"""tshark as the engine: the same messages, hence the same calls and verdicts; and what it alone can read."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lab.http2 import as_http2
from lab.judging import only, run
from lab.ours import decode
from lab.shark import tshark

from tracer import engine
from tracer.cli import main
from tracer.engine.cross_check import cross_check
from tracer.errors import SourceError, UsageError
from tracer.model import Capture, HttpRequest, HttpResponse, Message
from tracer.model.digest import digest
from tracer.protocols import PORTS, Options
from tracer.reports.cross_check import text
from tracer.second import heard, require
from tracer.second.tshark import frames
from tracer.settings import TSHARK, Settings
from tracer.testing.cloud import Cloud


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tshark()
    folder = tmp_path_factory.mktemp("plain")
    run(folder, since=99, until=140)
    return folder


def spoken(cloud: Cloud) -> None:
    as_http2(cloud.network)


def test_both_see_the_same_calls_in_http2(tmp_path: Path) -> None:
    """Lines, times and frames of each."""
    tshark()
    run(tmp_path, since=99, until=140, change=spoken)
    found = cross_check([str(tmp_path)], Settings())
    assert found.differences == (), "\n".join(text(found, {}))
    assert found.same == found.ours == found.theirs > 50


def test_headers_and_bodies_are_the_same(plain: Path) -> None:
    """So secrets are digests here, too."""
    (path,) = plain.glob("Internal_base.pcap")

    def web(messages: list[Message]) -> list[tuple[object, ...]]:
        return [
            (type(m).__name__, m.frames, m.headers, m.body)
            for m in messages
            if isinstance(m, HttpRequest | HttpResponse)
        ]

    ours, _ = decode([path])
    theirs = [message for _, message in heard(Capture(0, str(path)), PORTS, Options())]
    assert web(theirs) == web(ours)  # type: ignore[arg-type]
    tokens = {m.headers["x-auth-token"] for m in ours if "x-auth-token" in getattr(m, "headers", {})}
    assert tokens and all(len(token) == len(digest("t")) for token in tokens)


def test_a_format_that_we_do_not_read(plain: Path, tmp_path: Path) -> None:
    """Our reader says who may read it, and tshark does."""
    editcap = shutil.which("editcap")
    if editcap is None:
        pytest.skip("editcap is not installed")
    for path in plain.glob("*.pcap"):
        subprocess.run([editcap, "-F", "snoop", str(path), str(tmp_path / path.name)], check=True)
    with pytest.raises(SourceError, match=r"snoop.*--engine tshark may read it"):
        engine.check([str(tmp_path)], Settings())
    assert only(engine.check([str(tmp_path)], Settings(engine=TSHARK))).verdict == "conforms"


def test_the_command_counts_the_differences(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """None over HTTP/1, AMQP and MySQL. The exit code is that of the verdicts; the report has a member,
    standard error a line."""
    report = tmp_path / "report.json"
    with pytest.raises(SystemExit) as ended:
        main(["check", str(plain), "--cross-check", "--format", "json", "-o", str(report)])
    found = json.loads(report.read_bytes())["cross_check"]
    assert (ended.value.code, found["different"], found["differences"]) == (0, 0, [])
    assert f"{found['same']:,} the same, 0 not" in capsys.readouterr().err


def test_a_file_that_is_no_capture_is_refused(tmp_path: Path) -> None:
    tshark()
    path = tmp_path / "text.pcap"
    path.write_text("not a capture")
    with pytest.raises(SourceError, match="tshark cannot read it"):
        engine.check([str(path)], Settings(engine=TSHARK))


def test_a_missing_tshark_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="not installed: install it: apt install tshark"):
        require()


def test_an_old_tshark_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "tshark"
    program.write_text("#!/bin/sh\necho 'TShark (Wireshark) 2.6.20'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(UsageError, match=r"is 2\.6\.20, and 3\.6 is needed"):
        require()


def test_the_caller_can_still_run_subprocesses(plain: Path) -> None:
    """pyshark replaces asyncio's child watcher of the process, unless it is given a loop.

    The one that it sets serves the thread's current loop only; playwright runs one that is not.
    """

    async def run_one() -> int | None:
        return await (await asyncio.create_subprocess_exec(sys.executable, "-c", "")).wait()

    (path,) = plain.glob("Internal_base.pcap")
    assert sum(1 for _ in frames(str(path), {})) > 50
    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(run_one()) == 0
    finally:
        loop.close()


@pytest.mark.parametrize("what", ["-", "Internal_base={path}@+1ms"])
def test_what_tshark_cannot_be_asked_for_is_told(what: str, plain: Path) -> None:
    (path,) = plain.glob("Internal_base.pcap")
    with pytest.raises(UsageError, match="--engine tshark"):
        engine.check([what.format(path=path)], Settings(engine=TSHARK))


def test_a_key_log_that_is_not_there_is_told(tmp_path: Path) -> None:
    tshark()
    log = tmp_path / "keys.log"
    log.write_text("")
    assert require(log) == require()
    with pytest.raises(UsageError, match="no such file"):
        require(tmp_path / "absent.log")
