"""Two hosts asked, and failures that only nova's states show, as each form of the ladder draws them."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from lab.browser import launched, opened
from rich.console import Console

from tracer.engine import check
from tracer.model import Report
from tracer.reports import html, ladder, shown_status, svg
from tracer.reports import json as json_report
from tracer.reports.sequence import Mark, entries, rows
from tracer.settings import Settings
from tracer.testing import SPREAD, Cloud, UpstreamCreation

REASON = "the hypervisor is unwell"
TWO_HOSTS: dict[str, Any] = {"hosts": [{"compute1": {"8b": "fails"}, "compute2": {"8c": "fails"}}]}
BUILD = "cast build_and_run_instance"


def judged(folder: Path, **options: Any) -> Report:
    cloud = Cloud(SPREAD, portal=False)
    cloud.background(0, 200)
    UpstreamCreation(cloud, at=100, reason=REASON, **options).run()
    return check(cloud.network.write(folder), Settings())


def shown(report: Report) -> list[str]:
    """The lines of `tracer show`."""
    console = Console(width=150, record=True, file=StringIO())
    ladder.render(report.verdicts[0], report, console)
    return console.export_text().splitlines()


def test_each_attempt_has_its_own_row_of_the_message_that_asks_the_host(tmp_path: Path) -> None:
    report = judged(tmp_path, **TWO_HOSTS)
    (verdict,) = report.verdicts
    assert [row.count for row in rows(verdict) if row.call.operation == BUILD] == [1, 1]
    drawn = list(entries(verdict))
    mark = next(n for n, each in enumerate(drawn) if isinstance(each, Mark) and each.kind == "attempt")
    asked = [n for n, each in enumerate(drawn) if not isinstance(each, Mark) and each.call.operation == BUILD]
    assert asked[0] < mark == asked[1] - 1
    lines = shown(report)
    assert sum(BUILD in line for line in lines) == 2
    words = f"attempt 2 on compute2 (compute1 stopped at 8b: {REASON})"
    (band,) = [n for n, line in enumerate(lines) if words in line]
    assert BUILD in lines[band - 1] and BUILD in lines[band + 1]


def test_the_page_draws_it_too(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(b"".join(html.pieces(judged(tmp_path, **TWO_HOSTS))))
    with launched() as browser, opened(browser, page) as opened_page:
        labels = opened_page.locator(".arrow-row text").all_text_contents()
        assert labels.count(f"{BUILD} ok") == 2
        (mark,) = opened_page.locator(".mark-row.attempt text").all_text_contents()
        steps = opened_page.locator("svg text.step").all_text_contents()
        assert steps.count("7") == 2
        assert f"compute1 stopped at 8b: {REASON}" in mark


def test_a_drawing_names_the_step_again_in_each_attempt(tmp_path: Path) -> None:
    """The host before called nobody. Once more it is the heading of its rows in the waterfall."""
    hosts = [{"compute1": {"8b": "fails"}, "compute2": {}}]
    drawn = b"".join(svg.pieces(judged(tmp_path, hosts=hosts))).decode()
    assert len(re.findall(r">7</text>", drawn)) == 3


@pytest.mark.parametrize(
    ("breaks", "step", "arrow"),
    [
        ({"8c": "dies"}, "8c", "Instance.save error ok"),
        ({"8c": "aborts"}, "8c", "InstanceFault.create ok"),
        ({"8c": "fails"}, "8c", "cast build_instances ok"),
        ({"6": "silent"}, "6", ""),
        ({"4b": "400"}, "4b", ""),
    ],
)
def test_a_step_that_no_refused_call_shows_is_drawn_as_failed(
    breaks: dict[str, str], step: str, arrow: str, tmp_path: Path
) -> None:
    lines = shown(judged(tmp_path, breaks=breaks))
    (band,) = [n for n, line in enumerate(lines) if "FAILED" in line]
    assert lines[band].startswith(f"{step} ")
    if arrow:
        assert lines[band - 1].startswith(f"{step} ") and arrow in lines[band - 1]


def test_a_refused_call_is_its_own_sign(tmp_path: Path) -> None:
    lines = shown(judged(tmp_path, breaks={"8b": "503"}))
    assert not [line for line in lines if "FAILED" in line]
    assert [line for line in lines if line.startswith("8b") and "POST /v2.0/ports 503" in line]


def test_a_call_that_shows_a_step_says_so(tmp_path: Path) -> None:
    """In the JSON, a call that is listed by a step names that step, where it is taken for no other one."""
    document = json.loads(json_report.render(judged(tmp_path, breaks={"8c": "dies"})))
    (trace,) = document["traces"]
    (step,) = [each for each in trace["steps"] if each["status"] == "failed"]
    of_step = [call["index"] for call in trace["calls"] if call["step"] == step["step"] == "8c"]
    assert of_step == step["calls"] != []


@pytest.mark.parametrize(("step", "how"), [("5", "undelivered"), ("7", "undelivered"), ("7", "unacked")])
def test_a_message_that_nobody_took_is_sent_and_not_ok(step: str, how: str, tmp_path: Path) -> None:
    (verdict,) = judged(tmp_path, breaks={step: how}).verdicts
    statuses = {each.step: (each.status, shown_status(each, verdict)) for each in verdict.steps}
    assert statuses[step] == ("seen", "sent")
    assert statuses["4e"] == ("seen", "seen")
