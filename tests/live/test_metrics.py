"""What Prometheus gets: numbers that agree with the report, and labels that traffic cannot multiply."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from lab.alive import sent_now
from lab.hearing import until
from lab.streams import ROOT, command, files, pipes, watch
from lab.turns import Recording
from prometheus_client.parser import text_string_to_metric_families

from tracer.engine import Settings, check
from tracer.errors import UsageError
from tracer.model.events import BrokerQueue, Event, OpenTrace, Picture, Plane
from tracer.reports.metrics import Metrics, address
from tracer.testing import SPREAD, Cloud, Creation, UpstreamCreation

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(url: str) -> Samples:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(samples: Samples, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (each, given), value in samples.items() if each == name and wanted <= set(given))


def test_the_numbers_are_those_of_the_report(tmp_path: Path) -> None:
    with Metrics("127.0.0.1:0", "cloudvm_create") as metrics:
        with pipes(tmp_path, files("ok-concurrent-20")) as sources:
            run, report = watch(sources, metrics.tell)
        metrics.show(run.picture())
        samples = scrape(metrics.url)
    for capture in report.captures:
        mine = {"plane": capture.plane or "", "source": capture.path}
        assert total(samples, "tracer_packets_total", **mine) == capture.packets > 0
        assert total(samples, "tracer_gaps_total", **mine) == capture.gaps
        assert total(samples, "tracer_source_up", **mine) == 0
    assert total(samples, "tracer_calls_total") == sum(c.calls for c in report.captures)
    assert total(samples, "tracer_traces_opened_total") == 20
    told = {"verdict": "conforms", "outcome": "active", "revised": "false"}
    assert total(samples, "tracer_verdicts_total", **told) == 20
    steps = Counter(s.step for v in report.verdicts for s in v.steps if s.duration_ns is not None)
    counted = {s: total(samples, "tracer_step_duration_seconds_count", step=s) for s in steps}
    assert counted == dict(steps)
    assert total(samples, "tracer_build_info", grammar="cloudvm_create") == 1
    assert total(samples, "process_resident_memory_bytes") > 1e6
    # It was recorded long ago: how far behind the wall it is tells nothing.
    assert total(samples, "tracer_verdict_lag_seconds_count") == 0


@pytest.mark.parametrize(
    ("made_by", "grammar"), [(Creation, "cloudvm_create"), (UpstreamCreation, "openstack_create")]
)
def test_the_grammar_is_the_one_that_was_chosen(
    made_by: type[Creation], grammar: str, tmp_path: Path
) -> None:
    cloud = Cloud(SPREAD, portal=grammar == "cloudvm_create")
    made_by(cloud, at=20).run()
    (tmp_path / "made").mkdir()
    cloud.network.write(tmp_path / "made")
    with Metrics("0", "auto") as metrics:
        assert total(scrape(metrics.url), "tracer_build_info", grammar="auto") == 1
        with pipes(tmp_path, sorted((tmp_path / "made").iterdir())) as sources:
            run, report = watch(sources, metrics.tell)
        metrics.show(run.picture())
        samples = scrape(metrics.url)
    assert report.grammar == grammar
    assert total(samples, "tracer_build_info", grammar=grammar) == 1
    assert total(samples, "tracer_build_info") == 1


def test_what_stalls_is_there_while_it_does(tmp_path: Path) -> None:
    hold = threading.Event()
    with pipes(tmp_path, files("fail-conductor-down"), hold=hold) as sources:
        process = command(
            "watch", "-i", sources[0], "-i", sources[1], "--stall", "10", "--metrics", "0", "--format", "text"
        )
        assert process.stderr is not None
        said = process.stderr.readline().decode()
        url = said.removeprefix("tracer: metrics at ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url), said
        stalled = {"step": "5", "owed_by": "nova-conductor"}
        until(lambda: total(scrape(url), "tracer_traces_stalled", **stalled))
        samples = scrape(url)
        assert total(samples, "tracer_traces_open") == total(samples, "tracer_traces_stalled")
        assert total(samples, "tracer_queues_unwell") == 1
        assert total(samples, "tracer_queue_messages_waiting") >= 1
        hold.set()
        process.communicate(timeout=60)
        assert process.returncode == 1


def test_no_label_comes_from_the_traffic() -> None:
    """A thousand creations with hostile names on hostile hosts: not one time series more."""
    good = check([str(files("ok-image")[0].parent)], Settings()).verdicts[0]
    bad = check([str(files("fail-conductor-down")[0].parent)], Settings(stall_s=20)).verdicts[0]

    def series(count: int) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        with Metrics("0", "cloudvm_create") as metrics:
            picture = Picture(10**18, planes=[Plane("eth0", "Internal_base", 5)])
            for number in range(count):
                hostile = f'"}} 1\n\x1b[2J<script>{number}'
                verdict = replace(good, name=hostile, compute_host=hostile, id=hostile)
                metrics.tell(Event("verdict", 1, OpenTrace(number, verdict, 1), verdict, lag_ns=1))
                verdict = replace(bad, name=hostile, stopped_at="8b")
                owes = f"nova-compute on {hostile}"
                picture.open.append(OpenTrace(number, verdict, 1, owes, announced="stuck"))
                picture.queues.append(BrokerQueue(hostile, 3, 0, 10**18 - 10**9))
                metrics.tell(Event("trouble", 1, message=hostile))
            metrics.show(picture)
            samples = scrape(metrics.url)
            assert total(samples, "tracer_traces_stalled", step="8b", owed_by="nova-compute") == count
            assert total(samples, "tracer_verdict_lag_seconds_count") == count
            assert total(samples, "tracer_queues_without_consumer") == count
            return set(samples)

    assert series(1_000) == series(1)


def test_a_port_that_is_taken_is_one_line_and_2(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pipes(tmp_path, files("ok-image")) as sources:
        port = taken.getsockname()[1]
        process = command("watch", "-i", sources[0], "-i", sources[1], "--metrics", str(port))
        output, errors = process.communicate(timeout=30)
        for name in sources:
            Path(name).open("rb").close()
    assert (process.returncode, output) == (2, b"")
    assert errors.decode() == (
        f"tracer: error: --metrics {port}: Address already in use: give another port, or 0 for any\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("[::1]:9464", ("::1", 9464)),
        ("metrics.local:80", ("metrics.local", 80)),
    ],
)
def test_an_address(text: str, expected: tuple[str, int]) -> None:
    assert address(text) == expected


@pytest.mark.parametrize("text", ["", "x", "70000", "host:", "::1", "-1", "9464/metrics", "٩", "1:2:3"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write PORT or ADDRESS:PORT"):
        address(text)


def test_without_the_library_it_says_what_to_install(tmp_path: Path) -> None:
    """The client is an extra: nothing but --metrics asks for it."""
    program = (
        "import sys; sys.modules['prometheus_client'] = None; from tracer.cli import main;"
        f" main(['watch', '-i', 'Internal_base={tmp_path}/p', '--metrics', '0'])"
    )
    os.mkfifo(tmp_path / "p")
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, cwd=ROOT, timeout=30, check=False
    )
    assert ran.returncode == 2
    assert b"pip install 'cloudvm-tracer[metrics]'" in ran.stderr and ran.stderr.count(b"\n") == 1


def test_the_lag_is_that_of_live_packets(tmp_path: Path) -> None:
    """It is measured where packets carry the time of the wall."""
    recording = Recording.of(files("fail-quota-403")[0].parent)
    with Metrics("0", "cloudvm_create") as metrics:
        with sent_now(tmp_path, recording, speed=3) as sources:
            _, report = watch(sources, metrics.tell)
        samples = scrape(metrics.url)
    assert len(report.verdicts) == 2
    assert total(samples, "tracer_verdict_lag_seconds_count") == 2
    assert total(samples, "tracer_verdict_lag_seconds_bucket", le="10.0") == 2
