"""Recording from a broker while a test runs: a real RabbitMQ, and a pytest of its own that listens to it."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.brokers import RabbitMQ, free_port, needs_broker
from lab.recorded_runs import RAW, ROOT, failures_of, kept, run
from lab.recorded_runs import SECRET as TOKEN

from tracer import engine
from tracer.engine import Settings

pytestmark = needs_broker
needs_raw = pytest.mark.skipif(not RAW, reason="recording an interface needs CAP_NET_RAW")
PASSWORD = "s3cret-of-the-listener"
SERVER, REQUEST = "145c135d-63cb-41ba-98cd-3235a30c2e27", "req-3fff385c-4b13-4f7e-844a-f2d25f9d2d7b"
"""Of the creation in ok-image."""
PRELUDE = f'''
import contextlib, os, pathlib, time
import conversation, pytest
from conversation import create
from lab import brokered
from tracer.errors import SourceError, UsageError

PATH = next(pathlib.Path({str(ROOT / "captures" / "ok-image")!r}).glob("Internal_base*"))

@pytest.fixture
def url():
    """Where the recording listens."""
    return os.environ["LISTENER"]

@contextlib.contextmanager
def cloud():
    """The clients of a shipped capture, on the broker."""
    running = brokered.Cloud(os.environ["CLOUD"], brokered.recorded(PATH))
    running.connect()
    try:
        yield running
    finally:
        running.close()

def played(tracer, *planes, **asked):
    asked.setdefault("settle", 0.3)
    with cloud() as clients, tracer.record(*planes, **asked) as traffic:
        if planes:
            create()
        clients.play()
    return traffic

def in_the_table_of_processes(words):
    shown = [path.read_bytes() for path in pathlib.Path("/proc").glob("[0-9]*/cmdline")]
    return any(words.encode() in each for each in shown)

RPC = ("4e", "5", "6", "7")
'''


@pytest.fixture(scope="module", autouse=True)
def listened_to(rabbit: RabbitMQ) -> Iterator[None]:
    """Switch the firehose of the broker on, and give it a user that may listen."""
    rabbit.ctl("trace_on")
    rabbit.ctl("add_user", "listener", PASSWORD)
    rabbit.ctl(
        "set_permissions",
        "listener",
        r"^tracer\.",
        r"^(tracer\.|amq\.default$)",
        r"^(tracer\.|amq\.rabbitmq\.)",
    )
    yield
    rabbit.ctl("delete_user", "listener")


def listener(rabbit: RabbitMQ, password: str = PASSWORD, vhost: str = "%2F") -> str:
    return f"amqp://listener:{password}@{rabbit.address}:{rabbit.port}/{vhost}"


def tried(
    folder: Path, installed: list[str], rabbit: RabbitMQ, test: str, *arguments: str, url: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run *test*; whatever comes of it, it holds no password."""
    more = {"CLOUD": rabbit.url(), "LISTENER": url or listener(rabbit), "PASSWORD": PASSWORD}
    ran = run(folder, installed, PRELUDE + test, *arguments, f"--junitxml={folder}/junit.xml", more=more)
    assert PASSWORD not in ran.stdout + ran.stderr + (folder / "junit.xml").read_text(encoding="utf-8")
    assert not any(PASSWORD.encode() in path.read_bytes() for path in kept(folder))
    return ran


ALONE = """
def test_it(tracer, url):
    traffic = played(tracer, amqp=url)
    trace = traffic.only()
    assert (traffic.packets, traffic.messages > 20, traffic.troubles) == (0, True, [])
    assert trace.outcome == "active"
    assert [trace.step(step).status for step in RPC] == ["seen"] * 4
    assert trace.before("4e", "5")
    assert not trace.step("8b").within("1h")
    # What a broker cannot show is not missing; the grammar that it was checked against may be named again.
    assert "is inconclusive" in repr(trace.conforms()) and not trace.conforms("openstack_create")
    for ask in (traffic, trace):
        with pytest.raises(UsageError, match="not kept, so against one grammar alone"):
            ask.conforms("server_delete")

def test_allowed(tracer, url, monkeypatch):
    # The password beside the URL, as `tracer watch` takes it.
    monkeypatch.setenv("TRACER_AMQP_PASSWORD", os.environ["PASSWORD"])
    url = url.replace(":" + os.environ["PASSWORD"], "")
    assert played(tracer, amqp=[url], allow="inconclusive").conforms()

def test_another_grammar(tracer, url):
    # That one wants 8b by RPC, which was listened to.
    traffic = played(tracer, amqp=url, grammar="cloudvm_create_literal")
    assert traffic.only().step("8b").status == "missing"
"""


def test_a_broker_alone(rabbit: RabbitMQ, tmp_path: Path, installed: list[str]) -> None:
    """The steps by RPC are seen, and there is no file of packets that nobody saw."""
    ran = tried(tmp_path, installed, rabbit, ALONE, "--tracer-keep=all")
    assert ran.returncode == 0, ran.stdout
    assert not (tmp_path / "tracer-captures").exists()


BOTH = f"""
conversation.SERVER = {SERVER!r}
conversation.REQUEST = {REQUEST!r}

def test_it(tracer, url):
    with cloud() as clients, tracer.record({{"External_api": "lo"}}, amqp=url) as traffic:
        assert in_the_table_of_processes("tracer.pytest_plugin.recorder")
        assert not in_the_table_of_processes(os.environ["PASSWORD"])
        create()
        clients.play()
    trace = traffic.only()
    assert trace.name == "web-1"
    assert [trace.step(step).status for step in RPC] == ["seen"] * 4
    assert traffic.packets >= 8 and traffic.messages > 20
    assert traffic.conforms(), url
"""


@needs_raw
@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["-l", "--full-trace"], id="locals"),
        pytest.param(["-n1", "-l"], id="xdist", marks=pytest.mark.long),
    ],
)
def test_interfaces_and_a_broker(
    arguments: list[str], rabbit: RabbitMQ, tmp_path: Path, installed: list[str]
) -> None:
    """One trace of both. The packets are kept, redacted, and the message says what is not."""
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        ran = tried(folder, installed, rabbit, BOTH, *arguments)
        assert ran.returncode == 1, ran.stdout
        # What a broker tells carries the time of its arrival: under load later than what was sniffed.
        if "is inconclusive" in ran.stdout:
            break
    assert "is inconclusive" in ran.stdout, ran.stdout[-8_000:]
    assert "amqp://…@127.0.0.1" in ran.stdout
    shown = listener(rabbit).replace(f"listener:{PASSWORD}@", "")
    where = f"{folder}/tracer-captures/test_recorded.py/test_it (secrets overwritten)"
    assert f"captures: {where}; none of {shown}: messages are checked as they come" in ran.stdout
    (capture,) = kept(folder)
    assert TOKEN.encode() not in capture.read_bytes()
    assert TOKEN not in ran.stdout


LISTENS = """
def test_it(tracer, url):
    with tracer.record(amqp=url):
        raise AssertionError("listens")
"""


def test_trace_that_is_off(rabbit: RabbitMQ, tmp_path: Path, installed: list[str]) -> None:
    """It would see nothing: the test fails before it does anything, and says what switches trace on."""
    rabbit.ctl("trace_off")
    try:
        ran = tried(tmp_path, installed, rabbit, LISTENS)
    finally:
        rabbit.ctl("trace_on")
    assert ran.returncode == 1, ran.stdout
    assert "SourceError: amqp://127.0.0.1" in ran.stdout
    assert "rabbitmqctl trace_on -p / switches it on" in ran.stdout
    assert "AssertionError" not in ran.stdout


REFUSED = {
    "password": (
        f"amqp://listener:{PASSWORD}-not@{{at}}/",
        "SourceError: {name}/%2F: it refuses user 'listener'",
    ),
    "vhost": (f"amqp://listener:{PASSWORD}@{{at}}/nova", "SourceError: {name}/nova: it has no vhost 'nova'"),
    "port": (f"amqp://listener:{PASSWORD}@{{dead}}/", "cannot be reached: Connection refused"),
    "scheme": (
        f"http://listener:{PASSWORD}@{{at}}/",
        "write amqp://USER:PASSWORD@HOST:5672/VHOST",
    ),
    "no URL": (f"amqp://listener:{PASSWORD}@[{{at}}/", "UsageError: amqp: that is no URL"),
}


EACH = """
@pytest.mark.parametrize("number", range(COUNT))
def test_it(tracer, url, number):
    with tracer.record(amqp=url.split()[number]):
        raise AssertionError("listens")
"""


@pytest.mark.long
def test_a_broker_that_cannot_be_listened_to(rabbit: RabbitMQ, tmp_path: Path, installed: list[str]) -> None:
    """Not skipped: that is no missing privilege. One line at `record`, with the way out."""
    at, dead = f"{rabbit.address}:{rabbit.port}", f"127.0.0.1:{free_port('127.0.0.1')}"
    urls = [url.format(at=at, dead=dead) for url, _ in REFUSED.values()]
    test = EACH.replace("COUNT", str(len(urls)))
    ran = tried(tmp_path, installed, rabbit, test, url=" ".join(urls))
    assert ran.returncode == 1, ran.stdout
    failures = failures_of(tmp_path / "junit.xml")
    assert len(failures) == len(urls)
    for number, (_, words) in enumerate(REFUSED.values()):
        assert words.format(name=f"amqp://{at}") in failures[f"test_it[{number}]"]
    assert "AssertionError" not in ran.stdout


@pytest.mark.long
def test_nothing_to_record(rabbit: RabbitMQ, tmp_path: Path, installed: list[str]) -> None:
    test = """
def test_no_source(tracer):
    with pytest.raises(UsageError, match="no source given"):
        tracer.record()

def test_silence(tracer, url):
    with tracer.record(amqp=url, settle=0) as traffic:
        pass
    with pytest.raises(SourceError, match="nothing was recorded on amqp://127.*: no RPC passed there"):
        traffic.traces

def test_too_early(tracer, url):
    with tracer.record(amqp=url, settle=0) as traffic:
        with pytest.raises(UsageError, match="ask after the `with` block"):
            traffic.traces
"""
    ran = tried(tmp_path, installed, rabbit, test)
    assert ran.returncode == 0, ran.stdout


DIES = """
def test_it(tracer, url):
    here = pathlib.Path(__file__).parent
    with tracer.record(amqp=url) as traffic:
        with cloud() as clients:
            bodies = [message.body[:200] for message in clients.to_publish()]
            asked = next(n for n, body in enumerate(bodies) if b"schedule_and_build" in body)
            clients.play(0, asked + 1)
            # What the recorder has taken in shows nowhere before its end.
            time.sleep(1.5)
            (here / "die").write_text("now")
            (here / "dead").read_text()
        time.sleep(1)
    found = {step.name: step.status for step in traffic.only().steps}
    assert found["4e"] == "seen"
    assert {found[step] for step in ("5", "6", "7")} <= {"unobserved", "not_reached"}
    assert "RPC is unobserved until it is back" in "".join(traffic.troubles)
    assert traffic.conforms()
"""


@pytest.mark.long
def test_a_broker_that_dies(rabbit: RabbitMQ, tmp_path: Path, installed: list[str]) -> None:
    """What was seen stays seen, the rest is not called missing, and the report of the failure says why."""

    for name in ("die", "dead"):
        os.mkfifo(tmp_path / name)

    def kill() -> None:
        (tmp_path / "die").read_text(encoding="ascii")
        rabbit.kill()
        (tmp_path / "dead").write_text("now", encoding="ascii")

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    try:
        ran = tried(tmp_path, installed, rabbit, DIES)
    finally:
        thread.join(10)
        assert not thread.is_alive(), "the test did not come so far"
        rabbit.start()
        rabbit.ctl("trace_on")
    assert ran.returncode == 1, ran.stdout
    assert "is inconclusive" in ran.stdout
    assert "tracer: while it was recorded" in ran.stdout
    assert "RPC is unobserved until it is back: trying to connect again" in ran.stdout
    assert "missing" not in ran.stdout


SNIFFED = """
def test_it(tracer, url):
    traffic = played(tracer, {"Internal_base": "lo"}, amqp=url, topology="topology.toml")
    trace = traffic.only(server_id=SERVER)
    assert [trace.step(step).status for step in RPC] == ["seen"] * 4
    assert [trace.step(step).count for step in RPC] == [1] * 4
    assert traffic.packets > 200 and traffic.troubles == []
"""


@pytest.mark.long
@needs_raw
def test_what_is_told_and_sniffed_is_one_call(rabbit: RabbitMQ, tmp_path: Path, installed: list[str]) -> None:
    """Also where the interface carries the recording's own connection. The packets alone show as much."""
    topology = tmp_path / "topology.toml"
    topology.write_text(f'[ports]\n{rabbit.port} = "amqp"\n', encoding="utf-8")
    test = SNIFFED.replace("SERVER", repr(SERVER))
    ran = tried(tmp_path, installed, rabbit, test, "--tracer-keep=all")
    assert ran.returncode == 0, ran.stdout
    report = engine.check([*map(str, kept(tmp_path))], Settings(topology=topology))
    (verdict,) = (verdict for verdict in report.verdicts if verdict.server_id == SERVER)
    assert [s.status for s in verdict.steps if s.step in ("4e", "5", "6", "7")] == ["seen"] * 4


@pytest.mark.long
def test_more_traces_than_are_kept(rabbit: RabbitMQ, tmp_path: Path, installed: list[str]) -> None:
    """One that nobody looks at any more may have deviated: no claim about the others is true then."""
    limits = "import tracer.live.follow as follow\nfollow.WHOLE = follow.SLIM = 3\n"
    (tmp_path / "sitecustomize.py").write_text(limits, encoding="utf-8")
    test = """
PATH = next(pathlib.Path(FOLDER).glob("Internal_base*"))

def test_it(tracer, url):
    traffic = played(tracer, amqp=url, allow="inconclusive")
    with pytest.raises(SourceError, match="too many traces for one recording with a broker: 14 of the first"):
        traffic.conforms()
"""
    test = test.replace("FOLDER", repr(str(ROOT / "captures" / "ok-concurrent-20")))
    ran = tried(tmp_path, installed, rabbit, test)
    assert ran.returncode == 0, ran.stdout
