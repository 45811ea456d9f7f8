"""Headline, first finding and step table say one thing, over captures and conversations of every kind."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from lab.agreement import disagreements
from lab.judging import run

import tracer.engine
from tracer.engine import Settings
from tracer.model import Verdict
from tracer.testing.cloud import Cloud
from tracer.testing.creation import Creation

ROOT = Path(__file__).parent.parent.parent
CAPTURES = sorted(path.name for path in (ROOT / "captures").iterdir() if path.is_dir())
HOST = [
    ("8a", "volume error"),
    ("8a", "volume creating"),
    ("8b", "503"),
    ("8b", "refused"),
    ("8b", "unanswered"),
    ("8b", "silent"),
    ("8b", "vif binding_failed"),
    ("8b", "vif unbound"),
    ("8b", "event 404"),
    ("8b", "event failed"),
    ("8b", "event never"),
    ("8b", "event late"),
    ("8c", "500"),
    ("8c", "silent"),
    ("8c", "task failed"),
    ("8c", "task running"),
    ("8c", "told versioned: PortBindingFailed: Binding failed for port 7"),
    ("8c", "told sql: Volume 7 did not finish being created"),
    ("8c", "told poll: Something else"),
    ("7", "undelivered"),
    ("7", "unroutable"),
    ("7", "silence"),
    ("7", "error"),
    ("7", "reply late"),
    ("7", "reply never"),
    ("7", "reply RemoteError"),
]
BEFORE = [
    ("3", "503"),
    ("4a", "404"),
    ("4b", "400"),
    ("4b", "neutron 503"),
    ("4c", "403"),
    ("4c", "error"),
    ("4d", "error"),
    ("4e", "unroutable"),
    ("4e", "undelivered"),
    ("4e", "stop"),
    ("5", "undelivered"),
    ("5", "stop"),
    ("6", "failure"),
    ("6", "filtered"),
    ("6", "silent"),
    ("6", "late"),
]


@functools.cache
def captured(name: str) -> tuple[Verdict, ...]:
    return tuple(tracer.engine.check([str(ROOT / "captures" / name)], Settings()).verdicts)


@pytest.mark.parametrize(
    "name", [name for name in CAPTURES if not name.startswith(("load", "ok-concurrent"))]
)
def test_captures(name: str) -> None:
    """Those that come with tracer."""
    assert [words for verdict in captured(name) for words in disagreements(verdict)] == []


def heard(tmp_path: Path, breaks: dict[str, str], host: dict[str, str]) -> list[str]:
    report = run(tmp_path, breaks=breaks, hosts=({"compute1": host},), until=520)
    return [words for verdict in report.verdicts for words in disagreements(verdict)]


@pytest.mark.parametrize("step, how", HOST)
def test_failures_on_the_host(step: str, how: str, tmp_path: Path) -> None:
    """Whatever fails on the host, and however it is told."""
    assert heard(tmp_path, {}, {step: how}) == []


@pytest.mark.parametrize("step, how", BEFORE)
def test_failures_before(step: str, how: str, tmp_path: Path) -> None:
    """Whatever fails before a host is asked."""
    assert heard(tmp_path, {step: how}, {}) == []


@pytest.mark.parametrize("how", ["500", "task failed", "vif binding_failed"])
def test_the_second_host_fails_as_well(how: str, tmp_path: Path) -> None:
    """The last host counts."""
    cloud = Cloud()
    cloud.background(0, 260)
    step = "8b" if how.startswith("vif") else "8c"
    Creation(cloud, hosts=({"compute1": {"8c": "500"}, "compute2": {step: how}},)).run()
    report = tracer.engine.check(cloud.network.write(tmp_path), Settings())
    assert [words for verdict in report.verdicts for words in disagreements(verdict)] == []
