"""Two runs against each other."""

from __future__ import annotations

import json
import random
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lab.browser import launched

from tracer.cli import main
from tracer.engine.comparison import _fisher, _mann_whitney, compare, decode
from tracer.errors import UsageError
from tracer.model.comparison import Comparison
from tracer.reports import comparison as report
from tracer.reports import json as check_json

BUILD = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent.parent / "reports" / "conftest.py")))
MS = 1_000_000


def run(*verdicts: Any) -> bytes:
    """A report of `tracer check`."""
    return check_json.render(BUILD.report(*verdicts))


def compared(before: bytes, after: bytes) -> Comparison:
    """The comparison of two reports."""
    return compare(decode(before, "a"), decode(after, "b"), ("a", "b"))


def good(number: int, **took_ms: float) -> Any:
    """A good creation; `_4a=300` says how long a step took."""
    verdict = BUILD.conforming(number)
    steps = tuple(
        replace(step, duration_ns=round(took_ms.get(f"_{step.step}", (step.duration_ns or 0) / MS) * MS))
        for step in verdict.steps
    )
    return replace(verdict, steps=steps)


def told(found: Comparison) -> list[tuple[str, str | None, bool]]:
    """Kind, step, and whether it breaks conformance."""
    return [(change.kind, change.step, change.breaks) for change in found.changes]


def test_a_run_against_itself_has_no_difference() -> None:
    data = run(*(good(n, _4a=300 + n) for n in range(12)), BUILD.stopped_at_8b())
    found = compared(data, data)
    assert told(found) == []
    assert not found.breaks
    assert next(iter(report.text(found))) == "b (13 traces) against a (13): no difference that holds"
    assert not [line for line in report.text(found) if "are tested from" in line]


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        (run(good(1)), run(), ["b (0 traces) against a (1): nothing to compare"]),
        (run(), run(), ["b (0 traces) against a (0): nothing to compare"]),
        (
            run(good(1)),
            run(good(1)),
            [
                "b (1 trace) against a (1): no difference that holds",
                "  times are tested from 8 creations on each side",
            ],
        ),
    ],
)
def test_too_little_to_compare_is_said(before: bytes, after: bytes, lines: list[str]) -> None:
    assert list(report.text(compared(before, after)))[: len(lines)] == lines
    assert b"nothing to compare" in report.html(compared(before, run()))


def test_a_new_deviation_breaks_conformance_and_one_that_is_gone_does_not() -> None:
    before, after = run(good(1), good(2)), run(good(1), BUILD.stopped_at_8b())
    assert told(compared(before, after)) == [("deviation", "8b", True)]
    assert told(compared(after, before)) == [("deviation", "8b", False)]


def test_a_known_deviation_breaks_nothing() -> None:
    before = run(good(1), BUILD.stopped_at_8b())
    after = run(BUILD.stopped_at_8b(), BUILD.stopped_at_8b())
    assert not compared(before, after).breaks


@pytest.mark.parametrize(
    ("count", "changes"), [(7, []), (10, [("time", "4a", False)]), (30, [("time", "4a", False)])]
)
def test_a_time_that_moved_is_told_when_there_are_enough(count: int, changes: list[Any]) -> None:
    before = run(*(good(n, _4a=300 + n) for n in range(count)))
    after = run(*(good(n, _4a=500 + n) for n in range(count)))
    assert told(compared(before, after)) == changes


@pytest.mark.parametrize(("now", "why"), [(302, "less than a tenth"), (305, "less than 10 ms")])
def test_a_time_that_moved_by_little_is_not_told(now: float, why: str) -> None:
    before = run(*(good(n, _4a=300 + n / 100) for n in range(50)))
    after = run(*(good(n, _4a=now + n / 100) for n in range(50)))
    found = compared(before, after)
    assert told(found) == [], why
    assert next(pair.p for pair in found.steps if pair.step == "4a") < 1e-9


def test_a_step_that_vanished_and_one_that_appeared() -> None:
    def skipped(number: int) -> Any:
        verdict = good(number)
        steps = [replace(s, status="skipped", calls=()) if s.step == "8a" else s for s in verdict.steps]
        return replace(verdict, steps=tuple(steps))

    def seen(number: int) -> Any:
        verdict = good(number)
        return replace(
            verdict, steps=tuple(replace(s, status="seen") if s.step == "8a" else s for s in verdict.steps)
        )

    before, after = run(*map(skipped, range(10))), run(*map(seen, range(10)))
    assert told(compared(before, after)) == [("step", "8a", False)]
    assert "came in 10 of 10, before in 0 of 10" in compared(before, after).changes[0].words
    # Of few it is told, too, when all of them differ.
    few = compared(run(skipped(1)), run(seen(1)))
    assert told(few) == [("step", "8a", False)]
    some = compared(run(skipped(1), skipped(2)), run(seen(1), skipped(2)))
    assert told(some) == []


def test_what_was_not_observed_tells_nothing() -> None:
    hidden = [replace(BUILD.unobserved(), id=f"trace-{n}") for n in range(20)]
    found = compared(run(*(good(n) for n in range(20))), run(*hidden))
    assert [change for change in found.changes if change.kind == "step"] == []
    assert next(pair.observable for pair in found.steps if pair.step == "4c") == (20, 0)


def test_an_order_that_turned_round() -> None:
    def turned(number: int) -> Any:
        verdict = good(number)
        begun = {step.step: step.started_ns for step in verdict.steps}
        swap = {"4c": begun["4d"], "4d": begun["4c"]}
        steps = tuple(
            replace(step, started_ns=swap.get(step.step, step.started_ns)) for step in verdict.steps
        )
        return replace(verdict, steps=steps)

    found = compared(run(*map(good, range(4))), run(*map(turned, range(4))))
    assert told(found) == [("order", "4d", False)]


def test_calls_that_are_new_or_gone_in_good_creations() -> None:
    def more(number: int) -> Any:
        verdict = good(number)
        extra = replace(verdict.calls[5], index=90, callee="cinder-api", step=None)
        return replace(verdict, calls=(*verdict.calls, extra))

    before, after = run(good(1), good(2)), run(more(1), more(2))
    assert [c.words.partition(":")[0] for c in compared(before, after).changes] == [
        "seen in 2 of 2, before in none"
    ]
    assert [c.words.partition(":")[0] for c in compared(after, before).changes] == [
        "seen in none, before in 2 of 2"
    ]
    assert told(compared(before, run(BUILD.stuck()))) == [("deviation", "8b", True)]


@pytest.mark.long  # scipy comes with the extra `oracle`
def test_the_statistics_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    draw = random.Random(7)
    for _ in range(60):
        n, m = draw.randint(8, 40), draw.randint(8, 40)
        a = [round(draw.gauss(100, 20), draw.choice((0, 3))) for _ in range(n)]
        b = [round(draw.gauss(draw.choice((100, 110)), 20), draw.choice((0, 3))) for _ in range(m)]
        theirs = stats.mannwhitneyu(a, b, method="asymptotic").pvalue
        assert _mann_whitney(a, b) == pytest.approx(theirs, rel=1e-6, abs=1e-12)
        x, y = draw.randint(0, n), draw.randint(0, m)
        theirs = stats.fisher_exact([[x, n - x], [y, m - y]]).pvalue
        assert _fisher((x, n), (y, m)) == pytest.approx(theirs, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b'{"schema": "tracer.check/0", "traces": 7}', "schema 'tracer.check/0'; known is tracer.check/1"),
        (b'{"schema": "tracer.baseline/1"}', "schema 'tracer.baseline/1'"),
        (b'{"log": {}}', "it names no schema"),
        (b'{"schema": "tracer.check/1"}', "required field `grammar`"),
        (b'{"schema": "tracer.check/1", "grammar": "g", "traces": [{}]}', r"\$\.traces\[0\]"),
    ],
)
def test_what_a_file_is_instead_is_told(data: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=f"^last.json: no report of `tracer check --format json`: .*{words}"):
        decode(data, "last.json")


def test_members_of_later_versions_may_be_missing() -> None:
    """What the first reports of that schema did not have is not asked for."""
    document = json.loads(run(good(1)))
    known = ("id", "verdict", "outcome", "steps", "deviations", "calls")
    for trace in document["traces"]:
        for key in set(trace) - set(known):
            del trace[key]
        for step in trace["steps"]:
            for key in set(step) - {"step", "title", "status", "started", "duration_ms"}:
                del step[key]
        for call in trace["calls"]:
            for key in set(call) - {"line", "step"}:
                del call[key]
    assert told(compared(json.dumps(document).encode(), run(good(1)))) == []


def test_reports_that_are_none_or_on_two_grammars_are_usage_errors() -> None:
    for data in (b"", b"[]", b'{"schema": "x", "grammar": "g", "traces": []}', b'{"schema": 7}'):
        with pytest.raises(UsageError, match=r"last\.json"):
            decode(data, "last.json")
    other = decode(run(good(1)), "b")
    other.grammar = "server_delete"
    with pytest.raises(UsageError, match="two grammars"):
        compare(decode(run(good(1)), "a"), other, ("a", "b"))


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_bytes(run(good(1), good(2)))
    (tmp_path / "b.json").write_bytes(run(BUILD.hostile()))
    (tmp_path / "none.json").write_bytes(run())
    a, b, none = (str(tmp_path / f"{name}.json") for name in ("a", "b", "none"))
    for arguments, code in (([a, a], 0), ([a, b], 1), ([b, a], 0), ([a, none], 5), ([a, "gone.json"], 2)):
        with pytest.raises(SystemExit) as end:
            main(["compare", *arguments])
        assert end.value.code == code
        out = capsys.readouterr()
        assert "\x1b" not in out.out
        assert out.err.count("\n") == (code in (2, 5))
    (tmp_path / "part.json").write_bytes(run(good(1)).replace(b'"grammar"', b'"partial":true,"grammar"', 1))
    with pytest.raises(SystemExit):
        main(["compare", a, str(tmp_path / "part.json")])
    assert "part.json: its run was interrupted" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["compare", a, b, "--format", "json"])
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "tracer.compare/1"
    assert document["breaks_conformance"] is True
    with pytest.raises(SystemExit):
        main(["compare", a, b, "--format", "html", "-o", str(tmp_path / "c.html")])
    with launched() as browser:
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto((tmp_path / "c.html").as_uri())
        assert "breaks conformance" in page.inner_text("h1")
        assert page.locator("tbody tr").count() == 14
        assert complaints == []
