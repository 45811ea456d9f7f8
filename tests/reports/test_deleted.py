"""A VM that its user deleted while it was being built, as each output tells it: offline and live."""

from __future__ import annotations

import io
import json
import urllib.request
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from lab.judging import judge, only
from lab.stepped import Stepped
from rich.console import Console

from tracer.engine import Settings, Stages
from tracer.grammar import load
from tracer.model import Capture, Report
from tracer.model.events import Event
from tracer.reports import console, csv, events, html, junit, ladder
from tracer.reports import json as json_report
from tracer.reports.metrics import Metrics
from tracer.testing.cloud import Cloud
from tracer.testing.creation import Creation
from tracer.testing.operations import Operation
from tracer.topology import GivenTopology

WAITED = "while step 8c had not ended: vrm had not answered POST /service/sites/{id}/vms"
BY = "by sc (DELETE /v2.1/servers/{id})"


def cloud(at: float = 130) -> Cloud:
    made = Cloud()
    made.background(0, 200)
    creation = Creation(made, hosts=({"compute1": {"8c": "silent"}},)).run()
    Operation(made, creation.server_ids[0], at).run()
    return made


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return judge(cloud(), tmp_path_factory.mktemp("deleted"))


@pytest.fixture(scope="module")
def told() -> list[Event]:
    """What a live run tells that is looked at each second."""
    planes = cloud().network.packets()
    captures = [Capture(n, f"{plane}.pcap", plane) for n, plane in enumerate(sorted(planes))]
    packets = [(time_ns, n, frame) for n, p in enumerate(sorted(planes)) for time_ns, frame in planes[p]]
    stages = Stages(captures, GivenTopology(), Settings(), load("cloudvm_create"))
    return Stepped(stages).events_of(sorted(packets))


def text_of(report: Report) -> str:
    file = io.StringIO()
    console.render(report, Console(file=file, width=250))
    return file.getvalue()


def test_text_tells_who_and_what_it_waited_for(report: Report) -> None:
    text = text_of(report)
    head = text.splitlines()[0]
    assert head.startswith("✗ VM web-1") and BY in head and WAITED in head
    assert "deviates, deleted" in text and "(1 deleted)" in text
    assert "FAILED" not in text


def test_a_ladder_ends_where_it_stopped(report: Report) -> None:
    file = io.StringIO()
    ladder.render(only(report), report, Console(file=file, width=200))
    assert WAITED.partition(":")[0] in file.getvalue()


def test_json_and_csv_have_the_outcome(report: Report) -> None:
    (trace,) = json.loads(b"".join(json_report.pieces(report)))["traces"]
    assert (trace["outcome"], trace["verdict"], trace["stopped_at"]) == ("deleted", "deviates", "8c")
    (found,) = trace["deviations"]
    assert (found["kind"], found["step"], found["peer"]) == ("stalled", "8c", "vrm")
    assert found["cause"].startswith(f"deleted {BY}")
    assert "deleted" in b"".join(csv.pieces(report)).decode().splitlines()[1].split(",")


def test_the_page_has_the_outcome_and_the_words(report: Report) -> None:
    page = b"".join(html.pieces(report)).decode()
    assert f"<title>web-1: deleted after 30.1 s {BY}, {WAITED}" in page
    # Once in the title, once in what the page knows of the trace.
    assert page.count(WAITED) == 2


def test_junit_has_a_failure(report: Report) -> None:
    suite = ET.fromstring(b"".join(junit.pieces(report)))
    (failure,) = suite.iter("failure")
    assert failure.get("type") == "stalled"
    assert BY in (failure.get("message") or "") and "deviates: deleted after" in (
        failure.get("message") or ""
    )
    assert WAITED in (failure.text or "")


def last_verdict(told: list[Event]) -> Event:
    found = [event for event in told if event.kind == "verdict"]
    assert len(found) == 1
    return found[0]


def test_a_live_run_tells_it_soon(told: list[Event]) -> None:
    """Within seconds of the deletion, before the creation counts as stuck; and it is told as bad news."""
    event = last_verdict(told)
    verdict = event.verdict
    assert verdict is not None and verdict.outcome == "deleted"
    assert "stalled" not in [each.kind for each in told]
    line = events.text_line(event)
    assert BY in line and WAITED in line
    shown = json.loads(events.json_line(event))
    assert "deleted" in (shown["outcome"], shown.get("summary", ""))


def test_metrics_count_it(told: list[Event]) -> None:
    with Metrics("0", "cloudvm_create") as metrics:
        for event in told:
            metrics.tell(event)
        with urllib.request.urlopen(metrics.url) as answer:
            lines = answer.read().decode().splitlines()
    (counted,) = [line for line in lines if 'outcome="deleted"' in line and "_created" not in line]
    assert 'verdict="deviates"' in counted and counted.endswith(" 1.0")


def test_a_deletion_of_another_server_changes_nothing(tmp_path: Path) -> None:
    made = Cloud()
    made.background(0, 300)
    Creation(made, hosts=({"compute1": {"8c": "silent"}},)).run()
    Operation(made, made.fresh_id(), 130).run()
    assert only(judge(made, tmp_path)).outcome == "stuck"
