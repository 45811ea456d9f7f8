"""Secrets of every kind, planted wherever a cloud says them: no output holds one, nor any file beside it.

All commands run in this process, with an empty folder for temporary files: what they say on both streams,
what they write, and what they leave behind is searched. That each secret was read shows in what is told of
the message that holds it, and in what is told with the digests turned off.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
from lab.canaries import CANARIES, LOGINS, NEIGHBOURS, leaks, planted, rpc_bodies
from lab.hearing import Receiver
from lab.streams import pipes, watch

from tracer.capture.rabbitmq.messages import TRACE, Firehose
from tracer.cli.formats import FORMATS
from tracer.cli.program import run
from tracer.engine import Settings, calls, check
from tracer.engine.internal_errors import InternalErrors
from tracer.engine.stages import Stages
from tracer.grammar import load
from tracer.model import Call, Capture, Endpoint
from tracer.testing.cloud import Cloud
from tracer.testing.creation import Creation
from tracer.topology import GivenTopology

Say = Callable[..., tuple[int, bytes]]
LAID_OPEN = {
    *("token", "X-Auth-Token", "X-Subject-Token", "REST error", "REST error, token", "VRM error"),
    *("RPC failure", "RPC fault", "notification", "SQL error", "token as a name", "password in a name"),
}
"""What a run keeps in the place of which a digest or nothing stands; all else is never kept."""
NAMES = {
    "escape": "\x1b]0;owned\x07web",
    "bidi": "\u202eweb\u2066",
    "formula": "=cmd|' /C calc'!A0",
    "plus": "+1+cmd|web",
    "minus": "-2+3+cmd|web",
    "at": "@SUM(1+1)*cmd|web",
    "tab": "\t=1+1 web",
    "markup": "web <script>alert(1)</script> `x` [y](http://z) |a| #; --> end",
}
ACTS = ("\x1b", "\x07", "\u202e", "\u2066")
FORMULA = re.compile(r"""(?:^|,)"?[=+@\t\r-]""")
"""The begin of a cell that a spreadsheet may run."""


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return planted().network.write(tmp_path_factory.mktemp("planted"))


@pytest.fixture
def say(capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Runs a command; returns its exit code and all it says: both streams, and what it leaves behind."""
    left = tmp_path / "temporary"
    left.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(left))

    def run_and_read(*arguments: str) -> tuple[int, bytes]:
        code = run([str(argument) for argument in arguments])
        told = capfdbinary.readouterr()
        files = b"".join(path.read_bytes() for path in left.rglob("*") if path.is_file())
        return code, told.out + told.err + files

    return run_and_read


def unpacked(form: str, path: Path) -> bytes:
    """Return what a result says, without its compression."""
    content = path.read_bytes()
    if form == "parquet":
        return repr(pyarrow.parquet.read_table(path).to_pylist()).encode()
    if form == "html":
        packed = re.findall(rb"eJ[\w+/]{40,}={0,2}|eN[\w+/]{40,}={0,2}", content)
        assert packed
        return content + b"".join(zlib.decompress(base64.b64decode(part)) for part in packed)
    return content


def is_its_owners(path: Path) -> bool:
    return stat.S_IMODE(path.stat().st_mode) == 0o600


# --- they are there, and are read -------------------------------------------------------------------


def test_all_canaries_are_in_the_captures(captures: list[str]) -> None:
    """Else nothing would be tested; AMQP and HTTP may cut none of them, so short ones are used."""
    content = b"".join(Path(path).read_bytes() for path in captures)
    assert set(CANARIES) - set(leaks(content)) <= {"Basic, plain"}
    assert {kind for kinds in NEIGHBOURS.values() for kind in kinds} | LOGINS == set(CANARIES)


def test_what_holds_a_canary_is_read_and_told(captures: list[str], say: Say) -> None:
    told = say("calls", *captures, "--format", "jsonl")[1] + say("check", *captures, "--format", "json")[1]
    told += kept(captures)
    assert [each for each in NEIGHBOURS if each.encode() not in told] == []
    assert leaks(told) == []


def kept(captures: list[str]) -> bytes:
    """Return all that a run keeps of its traffic."""
    heard: list[object] = []
    with pytest.MonkeyPatch.context() as patched:
        receive = Stages.receive
        patched.setattr(Stages, "receive", lambda self, changed: receive(self, _noted(changed, heard)))
        records = list(calls(captures, Settings()))
    return pickle.dumps([check(captures, Settings()).verdicts, records, heard])


def _noted(changed: Iterable[Call], heard: list[object]) -> list[Call]:
    found = list(changed)
    heard += [(call.facts, call.error) for call in found]
    return found


def test_nothing_that_is_kept_holds_a_secret(captures: list[str]) -> None:
    assert leaks(kept(captures)) == []


def test_the_search_finds_what_is_not_cut_out(captures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With digests and the cutting of texts turned off, what they stand for is found."""
    never = re.compile(r"(?!)")
    monkeypatch.setattr("tracer.protocols.http1.head.digest", lambda secret: secret)
    monkeypatch.setattr("tracer.calls.bodies._TOKEN_LIKE", never)
    monkeypatch.setattr("tracer.calls.bodies._IN_A_NAME", never)
    found = set(leaks(kept(captures)))
    assert found >= LAID_OPEN, LAID_OPEN - found


# --- every output -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", *FORMATS])
@pytest.mark.parametrize("command", ["check", "show"])
def test_no_report_holds_a_secret(
    command: str, form: str, captures: list[str], say: Say, tmp_path: Path
) -> None:
    result = tmp_path / "result"
    more = ["-v"] if form == "text" else ["--format", form]
    more += ["--trace", "bad"] if command == "show" else []
    code, said = say(command, *captures, *more, "-o", str(result))
    assert code == (1 if command == "check" else 0), said
    written = unpacked(form, result)
    assert b"bad" in written or (form in ("har", "svg", "mermaid", "junit") and len(written) > 100)
    assert leaks(said + written) == []
    assert is_its_owners(result)


@pytest.mark.parametrize("more", [[], ["--format", "jsonl"], ["--format", "parquet"]])
def test_no_list_of_calls_holds_a_secret(
    more: list[str], captures: list[str], say: Say, tmp_path: Path
) -> None:
    result = tmp_path / "calls"
    _, said = say("calls", *captures, *more, "-v", "-o", str(result))
    assert leaks(said + unpacked(more[-1] if more else "", result)) == []
    assert result.stat().st_size > 1000 and is_its_owners(result)


def test_no_baseline_comparison_or_anonymous_report_holds_a_secret(
    captures: list[str], say: Say, tmp_path: Path
) -> None:
    usual, page = tmp_path / "usual.json", tmp_path / "page.html"
    told = say("baseline", *captures, "-o", str(usual))[1] + usual.read_bytes()
    told += say("check", *captures, "--baseline", str(usual), "-v")[1]
    told += say("check", *captures, "--anonymize", "-v")[1]
    told += say("check", *captures, "--anonymize", "--format", "json")[1]
    report = tmp_path / "report.json"
    say("check", *captures, "--format", "json", "-o", str(report))
    told += say("compare", str(report), str(report), "--format", "json")[1]
    say("compare", str(report), str(report), "--format", "html", "-o", str(page))
    assert leaks(told + unpacked("page", page)) == []
    assert all(is_its_owners(path) for path in (usual, page, report))


def test_an_extract_holds_no_secret_and_is_its_owners(captures: list[str], say: Say, tmp_path: Path) -> None:
    for name in ("good", "bad", "canary-server"):
        target = tmp_path / f"{name}.pcapng"
        code, said = say("extract", *captures, "--trace", name, "-w", str(target))
        assert code == 0, said
        assert leaks(said + target.read_bytes()) == []
        assert is_its_owners(target)


def test_a_recording_that_is_redacted_holds_no_secret(captures: list[str], say: Say, tmp_path: Path) -> None:
    """And one that is not is its owner's alone too."""
    for redact in (["--redact"], []):
        folder = tmp_path / f"recorded{len(redact)}"
        (tmp_path / f"pipes{len(redact)}").mkdir()
        with pipes(tmp_path / f"pipes{len(redact)}", [Path(path) for path in captures]) as sources:
            given = [word for source in sources for word in ("-i", f"{Path(source).stem}={source}")]
            code, said = say("capture", *given, "-w", str(folder), *redact)
        assert code == 0, said
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert files and all(is_its_owners(path) for path in files)
        found = leaks(said + b"".join(path.read_bytes() for path in files))
        assert (found == []) is bool(redact), found


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_a_watch_tells_no_secret_anywhere(form: str, captures: list[str], say: Say, tmp_path: Path) -> None:
    """Events, notifications, checkpoint."""
    stored = tmp_path / "kept.json"
    with Receiver().listening() as receiver, pipes(tmp_path, [Path(path) for path in captures]) as sources:
        given = [word for source in sources for word in ("-i", source)]
        _, said = say(
            "watch", *given, "--format", form, "--notify", receiver.url, "--checkpoint", str(stored)
        )
    assert b"bad" in said and receiver.bodies
    assert leaks(said + b"".join(receiver.bodies) + stored.read_bytes()) == []
    assert is_its_owners(stored)


def test_metrics_hold_no_secret(captures: list[str], tmp_path: Path) -> None:
    prometheus = pytest.importorskip("prometheus_client")
    from tracer.reports.metrics import Metrics

    with Metrics("127.0.0.1:0", "cloudvm_create") as metrics:
        with pipes(tmp_path, [Path(path) for path in captures]) as sources:
            run, _ = watch(sources, metrics.tell)
        metrics.show(run.picture())
        told = prometheus.generate_latest(metrics._registry)
    assert b"tracer_verdicts_total{" in told
    assert leaks(told) == []


def test_a_firehose_tells_no_secret() -> None:
    """The broker's own copies, with their headers."""
    cloud = Cloud()
    bad = Creation(cloud, at=60, name="bad", breaks={"8c": "500"}).run()
    capture = Capture(0, "amqp://nova:broker-password@b:5672/%2F", protocol="RPC")
    firehose = Firehose(capture, Endpoint("10.0.0.9", 5672))
    stages = Stages([capture], GivenTopology(), Settings(), load("cloudvm_create"), every_statement=True)
    headers = {
        "exchange_name": "nova",
        "routing_keys": ["conductor"],
        "properties": {"message_id": "7", "headers": {"password": CANARIES["RPC password"]}},
        "connection": "10.0.0.31:40000 -> 10.0.0.9:5672",
        "channel": 4,
        "user": "nova",
        "routed_queues": [],
    }
    for at, body in rpc_bodies(cloud, bad):
        for key in ("publish.nova", "deliver.conductor"):
            stages.hear(firehose.read([(int(at * 1e9), TRACE, key, headers, body)]))
    stages.finish()
    told = pickle.dumps([(c.facts, c.error) for c in stages.every_call or []])
    assert b"canary-rpc-fault" in told and b"canary-notified" in told
    assert leaks(told) == []


# --- what breaks ------------------------------------------------------------------------------------


def test_no_internal_error_quotes_the_traffic(
    captures: list[str], say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that is counted, nor one that ends the run, at whatever place."""

    def breaks(*_: object, **__: object) -> None:
        raise ValueError(f"could not convert {CANARIES['adminPass']!r}")

    monkeypatch.setattr(InternalErrors, "is_strict", False)
    for place in ("tracer.calls.rest.read_request", "tracer.engine.run.report", "tracer.reports.json.pieces"):
        with monkeypatch.context() as patched:
            patched.setattr(place, breaks)
            code, said = say("check", *captures, "--format", "json")
            assert code == 2 and b"ValueError in " in said, said[-500:]
            assert leaks(said) == []


# --- what acts on the reader's side -----------------------------------------------------------------


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    cloud = Cloud()
    cloud.background(0, 300, every=100)
    for number, name in enumerate(NAMES.values()):
        Creation(cloud, at=20 + 30 * number, name=name, breaks={"4c": "403"} if number else {}).run()
    yield cloud.network.write(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("form", ["text", "calls", "calls jsonl", *(f for f in FORMATS if f != "parquet")])
def test_names_act_on_nothing(form: str, hostile: list[str], say: Say) -> None:
    """No escape sequence, no control of the direction of text, no cell that a spreadsheet runs."""
    if form.startswith("calls"):
        arguments = ["calls", *hostile, *(["--format", "jsonl"] if "jsonl" in form else [])]
    else:
        arguments = ["check", *hostile, *(["-vv"] if form == "text" else ["--format", form])]
    text = say(*arguments)[1].decode()
    assert "web" in text or form.startswith("calls") or form == "har"
    for character in ACTS:
        assert character not in text, repr(text[max(0, text.index(character) - 40) :][:80])
    if form == "csv":
        assert all(f"'{name}" in text for name in (NAMES["formula"], NAMES["plus"], NAMES["minus"]))
        assert [line for line in text.splitlines() if FORMULA.search(line)] == []
    if form in ("html", "svg", "mermaid"):
        assert "<script>alert" not in text
    if form == "json":
        assert {t["name"] for t in json.loads(text[: text.rindex("}") + 1])["traces"]} == set(NAMES.values())


def test_names_act_on_nothing_on_the_way(hostile: list[str], say: Say, tmp_path: Path) -> None:
    """The other commands: a ladder, a comparison, a baseline, a watch."""
    for name in NAMES.values():
        text = say("show", *hostile, "--trace", name)[1].decode()
        assert not [character for character in ACTS if character in text]
    report = tmp_path / "report.json"
    say("check", *hostile, "--format", "json", "-o", str(report))
    with pipes(tmp_path, [Path(path) for path in hostile]) as sources:
        text = say("watch", *(word for source in sources for word in ("-i", source)))[1].decode()
    text += say("compare", str(report), str(report))[1].decode()
    text += say("baseline", *hostile)[1].decode()
    assert not [character for character in ACTS if character in text]
    assert os.listdir(tmp_path / "temporary") == []
