"""A creation whose services speak HTTP/2 is the same creation; and tshark sees the same messages in it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lab.http2 import as_http2
from lab.judging import only, run
from lab.ours import decode
from lab.shark import tshark

from tracer.model import HttpRequest, HttpResponse, Report
from tracer.openstack.services import PROTOCOL_OF_PORT
from tracer.testing.cloud import Cloud

WEB = [port for port, name in PROTOCOL_OF_PORT.items() if name == "http1"]


def spoken(cloud: Cloud) -> None:
    assert as_http2(cloud.network) > 40


def lines(report: Report) -> list[str]:
    return [call.line for call in only(report).calls]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return run(tmp_path_factory.mktemp("http1"), since=99, until=140)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("http2")


@pytest.fixture(scope="module")
def second(folder: Path) -> Report:
    return run(folder, since=99, until=140, change=spoken)


def test_the_calls_of_a_creation_are_the_same(plain: Report, second: Report) -> None:
    """Line by line, in the same order; the verdict, and each step."""
    assert lines(second) == lines(plain)
    assert only(second).verdict == only(plain).verdict == "conforms"
    assert [(s.step, s.status) for s in only(second).steps] == [(s.step, s.status) for s in only(plain).steps]


def test_nothing_of_it_is_undecoded(second: Report) -> None:
    assert [(c.undecoded_streams, dict(c.undecoded)) for c in second.captures] == [(0, {})] * 2


def test_messages_are_on_the_frames_that_wireshark_shows(folder: Path, second: Report) -> None:
    """tshark shows each head on our first frame, with the same method and path or status."""
    program = tshark()
    names = ("frame.number", "http2.headers.method", "http2.headers.path", "http2.headers.status")
    fields = [part for name in names for part in ("-e", name)]
    ports = [part for port in WEB for part in ("-d", f"tcp.port=={port},http2")]
    for path in sorted(folder.glob("*.pcap")):
        shown = subprocess.run(
            [program, "-n", "-r", str(path), "-Y", "http2.headers", "-T", "fields", *fields, *ports],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        theirs = sorted(tuple(line.split("\t")) for line in shown.stdout.splitlines())
        messages, _ = decode([path])
        ours = [
            (str(m.frames[0][1]), m.method, m.target, "") if isinstance(m, HttpRequest) else
            (str(m.frames[0][1]), "", "", str(m.status))
            for m in messages
            if isinstance(m, HttpRequest | HttpResponse)
        ]  # fmt: skip
        assert len(theirs) > 5
        assert sorted(ours) == theirs
