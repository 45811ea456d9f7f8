"""A real broker's firehose gives the RPC-side steps that its sniffed wire gives."""

from __future__ import annotations

import faulthandler
import gc
import math
import os
import shlex
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pika
import pytest
from lab.brokered import Clock, Cloud, is_amqp, packets_of, pour, recorded, write_packets
from lab.brokers import RabbitMQ, needs_broker
from lab.hearing import until
from lab.streams import CAPTURES, ROOT

from tracer import engine
from tracer.capture.rabbitmq import connection as firehose_connection
from tracer.capture.rabbitmq import source as source_of_firehose
from tracer.capture.sources import broker_sources
from tracer.engine import Settings
from tracer.live.follow import Patience
from tracer.live.run import open_watch
from tracer.model import AmqpContent, CallRecord, Heard, Report, Verdict
from tracer.model.events import Event

pytestmark = needs_broker
RPC_STEPS = ("4e", "5", "6", "7")


@pytest.fixture(scope="module", autouse=True)
def traced(rabbit: RabbitMQ) -> None:
    """Switch the firehose of the broker on."""
    rabbit.ctl("trace_on")


class Listening:
    """A watch in a thread of its own, and what it tells."""

    def __init__(
        self,
        sources: Sequence[str],
        urls: Sequence[str],
        stall_s: float = 60,
        patience: Patience | None = None,
    ) -> None:
        self.events: list[Event] = []
        self._news = threading.Condition()
        self.run = open_watch(sources, Settings(stall_s=stall_s), self._tell, patience, brokers=urls)
        self.reports: list[Report] = []
        self._thread = threading.Thread(target=lambda: self.reports.append(self.run.run()), daemon=True)
        self._thread.start()

    def _tell(self, event: Event) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def _first(self, is_wanted: Callable[[Event], bool], words: str, seconds: float) -> Event:
        with self._news:
            self._news.wait_for(lambda: any(map(is_wanted, self.events)), seconds)
            found = next(filter(is_wanted, self.events), None)
        assert found is not None, f"nobody said {words!r}: {self.troubles()}"
        return found

    def until(self, words: str, seconds: float = 60) -> Event:
        """The first event that holds *words*."""
        return self._first(lambda event: words in event.message, words, seconds)

    def until_told(self, kind: str, seconds: float = 60) -> Event:
        """The first event of a kind."""
        return self._first(lambda event: event.kind == kind, kind, seconds)

    def until_seen(self, step: str, seconds: float = 60) -> None:
        """Wait until *step* was told."""
        self._first(lambda event: event.step is not None and event.step.step == step, step, seconds)

    def troubles(self) -> list[str]:
        return [event.message for event in list(self.events) if event.kind == "trouble"]

    def end(self) -> Report:
        self.run.stop()
        self._thread.join(60)
        if self._thread.is_alive():
            faulthandler.dump_traceback()
        return self.reports[0]


def internal(name: str) -> Path:
    return next((CAPTURES / name).glob("Internal_base*"))


@contextmanager
def cloud(rabbit: RabbitMQ, name: str, vhost: str = "%2F") -> Iterator[Cloud]:
    """The clients of a shipped capture."""
    running = Cloud(rabbit.url(vhost), recorded(internal(name)))
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


def lines(call: CallRecord) -> tuple[str, ...]:
    """A call without its place and time."""
    return call.protocol, call.caller, call.callee, call.operation, call.result


def offline(name: str, folder: Path, stall_s: float) -> dict[str, tuple[object, ...]]:
    """What `tracer check` says of the sniffed AMQP of a capture alone."""
    path = folder / "Internal_base.pcap"
    write_packets(internal(name), path, is_amqp)
    report = engine.check([str(path)], Settings(stall_s=stall_s))
    return {verdict.id: told(verdict) for verdict in report.verdicts}


@pytest.mark.parametrize(
    ("name", "stall_s"),
    [
        ("ok-image", 60),
        pytest.param("ok-concurrent-20", 60, marks=pytest.mark.long),
        pytest.param("fail-no-valid-host", 60, marks=pytest.mark.long),
        pytest.param("fail-vrm-500-reschedule", 60, marks=pytest.mark.long),
        ("fail-conductor-down", 2),
    ],
)
def test_the_rpc_side_of_the_sniffed_wire(
    rabbit: RabbitMQ, tmp_path: Path, name: str, stall_s: float
) -> None:
    expected = offline(name, tmp_path, stall_s)
    with cloud(rabbit, name) as clients:
        listening = Listening([], [rabbit.url()], stall_s)
        clients.play()
        if stall_s < 10:
            listening.until_told("stalled")
        report = listening.end()
    assert {v.id: told(v) for v in report.verdicts} == expected
    assert listening.troubles() == []
    assert [c.calls for c in report.captures] == [clients.published]


def steps(report: Report) -> dict[str, str]:
    """step -> status of the only trace."""
    (verdict,) = report.verdicts
    return {step.step: step.status for step in verdict.steps}


def test_a_broker_that_dies_and_comes_back(rabbit: RabbitMQ) -> None:
    """It keeps its trace open, says what it could not see, and misses nothing that was never sent."""
    with cloud(rabbit, "ok-image") as clients:
        asked = place(clients, b"schedule_and_build_instances") + 1
        built = place(clients, b"build_and_run_instance")
        listening = Listening([], [rabbit.url()])
        clients.play(0, asked)
        listening.until_seen("4e")
        rabbit.kill()
    try:
        listening.until("RPC is unobserved until it is back: trying to connect again")
    finally:
        rabbit.start()
    # A broker that starts anew does not trace.
    told = listening.until("trace is off").message
    assert "rabbitmqctl trace_on -p / switches it on" in told
    rabbit.ctl("trace_on")
    listening.until("RPC is seen again; what passed for")
    with cloud(rabbit, "ok-image") as clients:
        clients.play(built)
        report = listening.end()
    found = steps(report)
    assert [found[step] for step in RPC_STEPS] == ["seen", "unobserved", "unobserved", "seen"]
    assert "missing" not in found.values()
    assert [verdict.outcome for verdict in report.verdicts] == ["active"]
    assert report.captures[0].anomalies["times without the firehose"] == 1


def place(clients: Cloud, method: bytes) -> int:
    """Where the first message that asks for *method* stands among the published."""
    return next(at for at, m in enumerate(clients.to_publish()) if method in m.body[:200])


@pytest.mark.parametrize(
    "sniffed",
    [
        pytest.param(False, id="REST and SQL sniffed", marks=pytest.mark.long),
        pytest.param(True, id="AMQP sniffed as well"),
    ],
)
def test_rest_and_sql_from_packets_rpc_from_the_broker(
    rabbit: RabbitMQ, tmp_path: Path, sniffed: bool
) -> None:
    """One trace over both, with the verdict of the whole capture; what both tell of is one call.

    Messages carry the time at which they came. Where the machine is short of CPU they come too late to stand
    where they belong among the packets: then once more.
    """
    expected = engine.check([str(CAPTURES / "fail-vrm-500-reschedule")], Settings())
    wanted = whole(expected)
    if not sniffed:
        # It holds no id and is found by its host's address, which on this broker is another one.
        wanted[-1] -= Counter({("REST", "nova-compute", "vrm", "POST /service/session", "200"): 2})
    found: list[Any] = []
    for attempt in range(3):
        if found != wanted:
            folder = tmp_path / str(attempt)
            folder.mkdir()
            found = whole(combined(rabbit, folder, sniffed))
    assert found == wanted


def whole(report: Report) -> list[Any]:
    """What is told of the only trace, and its calls without place and time."""
    (verdict,) = report.verdicts
    statuses = [(step.step, step.status) for step in verdict.steps]
    return [told(verdict), statuses, verdict.verdict, Counter(map(lines, verdict.calls))]


def combined(rabbit: RabbitMQ, folder: Path, sniffed: bool) -> Report:
    """The report on packets from streams and messages from the broker, at their recorded pace."""
    name = "fail-vrm-500-reschedule"
    with cloud(rabbit, name) as clients:
        first_ns = next(packets_of(internal(name), lambda *_: True))[0]
        clock = Clock(first_ns, 1.0, ahead_s=1.5)
        threads = []
        for path in (internal(name), next((CAPTURES / name).glob("External_api*"))):
            pipe = folder / path.name.partition(".")[0]
            os.mkfifo(pipe)
            wanted = (lambda *_: True) if sniffed else (lambda *ports: not is_amqp(*ports))
            threads.append(threading.Thread(target=pour, args=(path, pipe, wanted, clock), daemon=True))
        for thread in threads:
            thread.start()
        pipes = [f"{plane}={folder / plane}" for plane in ("Internal_base", "External_api")]
        listening = Listening(pipes, [rabbit.url()])
        clients.play(clock=clock)
        for thread in threads:
            thread.join(60)
        report = listening.end()
    assert listening.troubles() == []
    return report


@pytest.mark.long
def test_without_the_inner_plane_its_rest_is_unobserved(rabbit: RabbitMQ, tmp_path: Path) -> None:
    """A broker shows RPC alone: nothing else of its plane is missing."""
    name = "fail-vrm-500-reschedule"
    with cloud(rabbit, name) as clients:
        path = next((CAPTURES / name).glob("External_api*"))
        clock = Clock(next(packets_of(path, lambda *_: True))[0], 1.0, ahead_s=1.5)
        pipe = tmp_path / "External_api"
        os.mkfifo(pipe)
        thread = threading.Thread(target=pour, args=(path, pipe, lambda *_: True, clock), daemon=True)
        thread.start()
        listening = Listening([f"External_api={pipe}"], [rabbit.url()])
        clients.play(clock=clock)
        thread.join(60)
        report = listening.end()
    found = steps(report)
    assert [found[step] for step in RPC_STEPS] == ["seen"] * 4
    assert {found[step] for step in ("3", "4c", "4d", "8b")} == {"unobserved"}
    # nova says by RPC that the VM is active.
    assert found["8c"] == "inferred"


def test_only_queues_of_its_own(rabbit: RabbitMQ) -> None:
    """Exclusive, auto-deleting, bounded; gone with the watch. No exchange is made."""
    exchanges = rabbit.ctl("list_exchanges", "-q", "name")
    listening = Listening([], [rabbit.url()])
    made = rabbit.ctl(
        "list_queues", "-q", "name", "exclusive", "auto_delete", "durable", "arguments"
    ).splitlines()
    assert rabbit.ctl("list_exchanges", "-q", "name") == exchanges
    listening.end()
    queues = [line.split("\t") for line in made if line.startswith("tracer.")]
    assert len(queues) == 2 and len(made) == 3
    for _, exclusive, auto_delete, durable, arguments in queues:
        assert (exclusive, auto_delete, durable) == ("true", "true", "false")
        assert "x-max-length" in arguments and "x-max-length-bytes" in arguments and "drop-head" in arguments
    assert "tracer" not in rabbit.ctl("list_queues", "-q", "name")


def test_trace_that_is_off(rabbit: RabbitMQ) -> None:
    rabbit.ctl("trace_off")
    try:
        listening = Listening([], [rabbit.url()])
        listening.until("rabbitmqctl trace_on -p / switches it on")
    finally:
        rabbit.ctl("trace_on")
    listening.until("RPC is seen again")
    listening.end()
    off, on = listening.troubles()
    assert "trace is off" in off and "RPC is seen again" in on


def refused(url: str) -> str:
    """What the command says of a broker that it cannot listen to; one line, no password, and 2."""
    command = [sys.executable, "-m", "tracer", "watch", "--amqp", url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=60, check=False)
    words = done.stderr.decode()
    assert (done.returncode, done.stdout, words.count("\n")) == (2, b"", 1)
    assert "secret" not in words
    return words


def test_a_refusal_says_the_way_out(rabbit: RabbitMQ) -> None:
    at = f"127.0.0.1:{rabbit.port}"
    assert "it refuses user 'guest': look at user and password" in refused(f"amqp://guest:secret@{at}/")
    assert "it has no vhost 'nova': `rabbitmqctl list_vhosts` tells which" in refused(
        f"amqp://guest:guest@{at}/nova"
    )
    rabbit.ctl("add_user", "viewer", "secret")
    url = f"amqp://viewer:secret@{at}/"
    try:
        no_entry = refused(url)
        rabbit.ctl("set_permissions", "-p", "/", "viewer", "", "", "")
        no_rights = refused(url)
        assert all("rabbitmqctl set_permissions -p / viewer" in words for words in (no_entry, no_rights))
        assert "may not enter" in no_entry and "may not listen" in no_rights
        # As told: these rights are enough, and they are no more than for queues of its own.
        rights = shlex.split(no_rights.partition("set_permissions")[2])
        rabbit.ctl("set_permissions", *rights)
        listening = Listening([], [url])
        listening.end()
        assert listening.troubles() == []
    finally:
        rabbit.ctl("delete_user", "viewer")


@pytest.mark.long
def test_what_the_broker_had_to_drop_is_counted(rabbit: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that does not come after: the queue stays small, and each message is taken or counted."""
    monkeypatch.setattr(firehose_connection, "MOST_MESSAGES", 100)
    monkeypatch.setattr(firehose_connection, "LOST_BYTES", 1 << 30)
    monkeypatch.setattr(source_of_firehose, "LEAVE_S", 60.0)
    (source,) = broker_sources([rabbit.url()])
    source.open()
    count, body = 4_000, b"x" * 10_000
    with pika.BlockingConnection(pika.URLParameters(rabbit.url())) as publisher:
        channel = publisher.channel()
        channel.confirm_delivery()
        for _ in range(count):
            channel.basic_publish("amq.topic", "nobody", body)
    heard: list[Heard] = []
    thread = threading.Thread(target=source.read, args=(lambda told, _: heard.extend(told),))
    thread.start()

    def published() -> int:
        return sum(isinstance(h.message, AmqpContent) and h.message.name == "basic.publish" for h in heard)

    until(lambda: published() + source.dropped >= count - 20)
    source.stop()
    thread.join(60)
    assert source.dropped > 0
    assert published() + source.dropped == pytest.approx(count, abs=20)


def test_what_was_dropped_just_before_the_end_is_counted(
    rabbit: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for once a second, and once more at the end: nothing is called missing for it."""
    monkeypatch.setattr(firehose_connection, "MOST_MESSAGES", 100)
    monkeypatch.setattr(source_of_firehose, "PROBE_S", math.inf)
    monkeypatch.setattr(source_of_firehose, "LEAVE_S", 60.0)
    (source,) = broker_sources([rabbit.url()])
    source.open()
    with pika.BlockingConnection(pika.URLParameters(rabbit.url())) as publisher:
        channel = publisher.channel()
        channel.confirm_delivery()
        for _ in range(2_000):
            channel.basic_publish("amq.topic", "nobody", b"x" * 10_000)
    thread = threading.Thread(target=source.read, args=(lambda *_: None,))
    thread.start()
    source.stop()
    thread.join(60)
    assert source.dropped > 0


def refusals(rabbit: RabbitMQ, user: str) -> int:
    """How often the broker's log says that it refused something to *user*."""
    logs = [path.read_text(errors="replace") for path in (rabbit.folder / "logs").rglob("*.log")]
    return sum(text.count(f"refused for user '{user}'") for text in logs)


@pytest.mark.long
def test_a_broker_that_refuses_again_and_again_is_left_with_no_connection(rabbit: RabbitMQ) -> None:
    """Rights are taken away: each attempt ends its connection, and the watch goes on when they are back."""
    rights = ("set_permissions", "-p", "/", "viewer")
    rabbit.ctl("add_user", "viewer", "secret")
    rabbit.ctl(*rights, ".*", ".*", ".*")
    gc.collect()
    gc.disable()
    try:
        listening = Listening([], [rabbit.url().replace("guest:guest", "viewer:secret")])
        rabbit.ctl(*rights, "", "", "")
        rabbit.ctl("close_all_connections", "-p", "/", "rights are taken away")
        listening.until("RPC is unobserved until it is back")
        before = refusals(rabbit, "viewer")
        until(lambda: refusals(rabbit, "viewer") >= before + 3)
        assert rabbit.ctl("-q", "list_connections", "user").split().count("viewer") <= 1
        rabbit.ctl(*rights, ".*", ".*", ".*")
        listening.until("RPC is seen again")
        listening.end()
    finally:
        gc.enable()
        rabbit.ctl("delete_user", "viewer")


def test_without_the_event_exchange(rabbit: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who connects is not known then; that is said, and the rest works."""
    monkeypatch.setattr(firehose_connection, "EVENTS", "amq.rabbitmq.no-such-plugin")
    with cloud(rabbit, "fail-no-valid-host") as clients:
        listening = Listening([], [rabbit.url()])
        clients.play()
        report = listening.end()
    (said,) = listening.troubles()
    assert "the plugin rabbitmq_event_exchange reports it" in said
    assert [verdict.stopped_at for verdict in report.verdicts] == ["6"]


def test_two_cells(rabbit: RabbitMQ) -> None:
    rabbit.ctl("add_vhost", "cell1")
    rabbit.ctl("set_permissions", "-p", "cell1", "guest", ".*", ".*", ".*")
    rabbit.ctl("trace_on", "-p", "cell1")
    with cloud(rabbit, "fail-no-valid-host") as one, cloud(rabbit, "ok-image", "cell1") as other:
        listening = Listening([], [rabbit.url(), rabbit.url("cell1")])
        one.play()
        other.play()
        report = listening.end()
    assert sorted(verdict.outcome for verdict in report.verdicts) == ["active", "error"]
    assert [capture.calls for capture in report.captures] == [one.published, other.published]
    # The broker has one event exchange, in the first vhost.
    (said,) = listening.troubles()
    assert "which services connect is unknown in vhost 'cell1'" in said
