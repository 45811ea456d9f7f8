"""A real broker's firehose gives the RPC-side steps that its sniffed wire gives."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from brokered import Cloud, is_amqp, packets_of, recorded
from streams import CAPTURES, ROOT

from tracer import pipeline
from tracer.events import Event
from tracer.live.follow import Patience
from tracer.live.run import open_watch
from tracer.model import Report, Verdict
from tracer.pipeline import Settings

sys.path.insert(0, str(ROOT / "tests" / "examples" / "small_cloud"))
from rabbitmq import RabbitMQ, broker, why_not

WHY_NOT = why_not()
needs_broker = pytest.mark.skipif(WHY_NOT is not None and not os.environ.get("CI"), reason=str(WHY_NOT))
pytestmark = needs_broker
RPC_STEPS = ("4e", "5", "6", "7")


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One broker for the tests of this file, with its firehose on."""
    with broker(tmp_path_factory.mktemp("rabbit")) as running:
        running.ctl("trace_on")
        yield running


class Listening:
    """A watch in a thread of its own, and what it tells."""

    def __init__(
        self, sources: Sequence[str], urls: Sequence[str], stall_s: float = 60, patience: Patience | None = None
    ) -> None:
        self.events: list[Event] = []
        self.run = open_watch(sources, Settings(stall_s=stall_s), self.events.append, patience, brokers=urls)
        self.reports: list[Report] = []
        self._thread = threading.Thread(target=lambda: self.reports.append(self.run.run()), daemon=True)
        self._thread.start()

    def until(self, words: str, seconds: float = 30) -> Event:
        """The first trouble that holds *words*."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            for event in list(self.events):
                if words in event.message:
                    return event
            time.sleep(0.02)
        raise AssertionError(f"nobody said {words!r}: {self.troubles()}")

    def troubles(self) -> list[str]:
        return [event.message for event in list(self.events) if event.kind == "trouble"]

    def end(self) -> Report:
        self.run.stop()
        self._thread.join(30)
        return self.reports[0]


@contextmanager
def cloud(rabbit: RabbitMQ, name: str) -> Iterator[Cloud]:
    """The clients of a shipped capture."""
    running = Cloud(rabbit.url(), recorded(next((CAPTURES / name).glob("Internal_base*"))))
    running.connect()
    try:
        yield running
    finally:
        running.close()


def told(verdict: Verdict) -> tuple[object, ...]:
    """What a verdict says of the RPC side."""
    steps = [
        (s.step, s.status, [(c.caller, c.callee, c.operation, c.result) for c in s.calls])
        for s in verdict.steps
        if s.step in RPC_STEPS
    ]
    return verdict.id, verdict.server_id, verdict.outcome, verdict.stopped_at, verdict.attempts, steps


def offline(name: str, folder: Path, stall_s: float) -> dict[str, tuple[object, ...]]:
    """What `tracer check` says of the sniffed AMQP of a capture alone."""
    path = folder / "Internal_base.pcap"
    packets_of(next((CAPTURES / name).glob("Internal_base*")), path, is_amqp)
    report = pipeline.check([str(path)], Settings(stall_s=stall_s))
    return {verdict.id: told(verdict) for verdict in report.verdicts}


@pytest.mark.parametrize(
    ("name", "stall_s"),
    [
        ("ok-image", 60),
        ("ok-concurrent-20", 60),
        ("fail-no-valid-host", 60),
        ("fail-vrm-500-reschedule", 60),
        ("fail-conductor-down", 2),
    ],
)
def test_the_rpc_side_of_the_sniffed_wire(rabbit: RabbitMQ, tmp_path: Path, name: str, stall_s: float) -> None:
    expected = offline(name, tmp_path, stall_s)
    with cloud(rabbit, name) as clients:
        listening = Listening([], [rabbit.url()], stall_s)
        clients.play()
        if stall_s < 10:
            time.sleep(stall_s + 1)
        report = listening.end()
    assert {v.id: told(v) for v in report.verdicts} == expected
    assert listening.troubles() == []
    assert [c.calls for c in report.captures] == [clients.published]
