"""Baselines: what is learnt from good creations, what is slow against them, and files that are none."""

from __future__ import annotations

import json
import math
import random
import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.engine.baseline import LEAST, SCHEMA, Baseline, Learner, Times, load
from tracer.errors import UsageError
from tracer.model import Note, StepResult, Verdict
from tracer.reports import console

BUILD = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent.parent / "reports" / "conftest.py")))
S = 1_000_000_000
T0 = 1_767_250_412 * S
Spans = dict[str, tuple[float, float, float | None]]
"""step -> (begin, duration, wait before it), in seconds since the creation began."""
USUAL: Spans = {
    "1": (0.0, 2.0, None),
    "2": (0.1, 1.8, 0.1),
    "4b": (0.2, 1.0, 0.1),
    "6": (2.1, 0.001, 0.1),
    "8b": (3.0, 0.5, 0.9),
}


def creation(spans: Spans = USUAL, **more: Any) -> Verdict:
    """A good creation with these spans."""
    steps = tuple(
        StepResult(
            name,
            f"title {name}",
            "seen",
            T0 + round(begin * S),
            round(took * S),
            waited_ns=None if wait is None else round(wait * S),
        )
        for name, (begin, took, wait) in spans.items()
    )
    ends = max(begin + took for begin, took, _ in spans.values())
    known: dict[str, Any] = {"steps": steps, "started_ns": T0, "ended_ns": T0 + round(ends * S), "notes": ()}
    verdict: Verdict = replace(BUILD.conforming(), **(known | more))
    return verdict


def learnt(path: Path, count: int, spread: float = 0.1) -> Baseline:
    """A baseline of *count* creations whose times differ by so much."""
    learner = Learner("cloudvm_create")
    for n in range(count):
        factor = 1 + spread * (n / max(1, count - 1) - 0.5)
        learner.add(creation({step: (b, t * factor, w and w * factor) for step, (b, t, w) in USUAL.items()}))
    path.write_bytes(learner.render())
    return load(path, "cloudvm_create")


def slow(verdict: Verdict) -> list[tuple[str | None, str]]:
    return [(note.step, note.message) for note in verdict.notes if note.kind == "slow"]


# --- learning ---------------------------------------------------------------------------------------


def test_what_a_baseline_holds(tmp_path: Path) -> None:
    """Schema, grammar, how many, and of each step count, mean, deviation and quantiles."""
    learnt(tmp_path / "usual.json", 21)
    document = json.loads((tmp_path / "usual.json").read_text(encoding="utf-8"))
    assert (document["schema"], document["grammar"], document["traces"]) == (SCHEMA, "cloudvm_create", 21)
    took = document["steps"]["8b"]["took"]
    assert (took["n"], took["mean_ms"], took["min_ms"], took["max_ms"]) == (21, 500.0, 475.0, 525.0)
    assert took["p50_ms"] == pytest.approx(500, rel=0.011)
    assert set(document["steps"]["1"]) == {"took"}
    assert document["total"]["took"]["n"] == 21


def test_only_good_creations_count(tmp_path: Path) -> None:
    """What deviates is no measure, nor is what was tried on two hosts."""
    learner = Learner("cloudvm_create")
    learner.add(creation())
    learner.add(replace(creation(), verdict="deviates"))
    learner.add(replace(creation(), verdict="inconclusive"))
    learner.add(replace(creation(), attempts=("compute1", "compute2")))
    document = json.loads(learner.render())
    assert learner.learnt == document["traces"] == 1
    assert document["left_out"] == {"did not conform": 2, "rescheduled": 1}


def test_a_step_without_a_certain_time_is_not_learnt() -> None:
    """Ambiguous evidence has no time: the step has fewer of them."""
    learner = Learner("cloudvm_create")
    verdict = creation()
    unclear = tuple(
        replace(s, started_ns=None, duration_ns=None) if s.step == "4b" else s for s in verdict.steps
    )
    learner.add(replace(verdict, steps=unclear))
    assert "4b" not in json.loads(learner.render())["steps"]


@given(st.lists(st.floats(0, 1e7), min_size=1, max_size=300))
def test_the_statistics_are_those_of_the_list(times: list[float]) -> None:
    """Mean and deviation exact, quantiles within 1 % of the nearest rank, whatever the times."""
    learner = Learner("g")
    for ms in times:
        learner.add(creation({"8b": (0, ms / 1000, None)}))
    took = json.loads(learner.render())["steps"]["8b"]["took"]
    exact = sorted(round(ms / 1000 * S) / 1e6 for ms in times)
    n = len(exact)
    assert took["n"] == n
    mean = math.fsum(exact) / n
    assert took["mean_ms"] == pytest.approx(mean, rel=1e-6, abs=1e-3)
    if n > 1:
        deviation = math.sqrt(math.fsum((ms - mean) ** 2 for ms in exact) / (n - 1))
        assert took["sd_ms"] == pytest.approx(deviation, rel=1e-6, abs=2e-3)
    for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95)):
        rank = exact[math.ceil(share * n) - 1]
        assert took[name] == pytest.approx(rank, rel=0.0101, abs=2e-3)
    assert took["min_ms"] <= took["p50_ms"] <= took["p95_ms"] <= took["max_ms"]


def test_memory_does_not_grow_with_the_number_of_creations() -> None:
    """Ten thousand creations of log-normal times leave some hundred buckets for each step."""
    rng, learner = random.Random(7), Learner("g")
    for _ in range(10_000):
        learner.add(creation({"8b": (0, rng.lognormvariate(0, 1), None)}))
    assert all(len(tally.buckets) < 600 for tally in learner._tallies.values())


# --- comparing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "times, limit",
    [
        (Times(100, 1000, 0, 500, 1000, 1200, 5000), 1600.0),
        (Times(100, 100, 0, 90, 100, 110, 120), 160.0),
        (Times(10, 1000, 0, 500, 1000, 1200, 1200), 2400.0),
        (Times(10, 10, 0, 5, 10, 12, 12), 62.0),
        (Times(LEAST - 1, 10, 0, 5, 10, 12, 12), None),
    ],
)
def test_what_is_slow(times: Times, limit: float | None) -> None:
    """p50 + 3 (p95 - p50); twice the largest of a few; 50 ms above p95; too few: no limit."""
    assert times.limit_ms == limit


def test_good_creations_are_not_slow(tmp_path: Path) -> None:
    """Of 2,000 with exponential or log-normal times, one step in a hundred at most passes the limit."""
    draws: list[Callable[[random.Random], float]] = [
        lambda rng: rng.expovariate(1),
        lambda rng: rng.lognormvariate(0, 0.5),
    ]
    for draw in draws:
        rng, learner = random.Random(7), Learner("cloudvm_create")
        for _ in range(200):
            learner.add(creation({"8b": (0, draw(rng), None)}))
        (tmp_path / "usual.json").write_bytes(learner.render())
        usual = load(tmp_path / "usual.json", "cloudvm_create")
        late = sum(bool(slow(usual.compare(creation({"8b": (0, draw(rng), None)})))) for _ in range(2000))
        assert late <= 20


def test_the_slow_step_is_named(tmp_path: Path) -> None:
    """With what it took, what is usual, and of how many runs."""
    usual = learnt(tmp_path / "usual.json", 30)
    assert slow(usual.compare(creation())) == []
    found = usual.compare(creation({**USUAL, "8b": (3.0, 5.0, 0.9)}))
    [(name, words)] = slow(found)
    assert name == "8b"
    assert words.startswith("step 8b (title 8b) took 5.0 s; half of 30 good runs within 4")
    assert "95 % within 5" in words and "slow above " in words
    step = next(s for s in found.steps if s.step == "8b")
    assert step.usual_ns == 500_000_000
    assert found.verdict == "conforms" and found.deviations == ()


def test_a_slow_scheduler_is_a_wait(tmp_path: Path) -> None:
    """It sends its reply as fast as ever: what has grown is the wait before it."""
    usual = learnt(tmp_path / "usual.json", 30)
    late = {**USUAL, "6": (17.0, 0.001, 15.0), "8b": (18.0, 0.5, 0.9)}
    [(step, words)] = slow(usual.compare(creation(late)))
    assert step == "6"
    assert words.startswith("step 6 (title 6) began only after a wait of 15.0 s; half of 30 good runs")


def test_what_encloses_the_slow_step_is_not_named(tmp_path: Path) -> None:
    """1 and 2 are still open while 4b runs, and so is the whole: only 4b is slow."""
    usual = learnt(tmp_path / "usual.json", 30)
    late = {"1": (0.0, 12.0, None), "2": (0.1, 11.8, 0.1), "4b": (0.2, 11.0, 0.1)}
    assert [step for step, _ in slow(usual.compare(creation(late)))] == ["4b"]
    outer = {"1": (0.0, 12.0, None), "2": (0.1, 11.8, 0.1), "4b": (0.2, 1.0, 0.1)}
    assert [step for step, _ in slow(usual.compare(creation(outer)))] == ["2"]


def test_the_longest_delay_comes_first(tmp_path: Path) -> None:
    """Two steps are slow: the one that cost most is the first note."""
    usual = learnt(tmp_path / "usual.json", 30)
    late = {**USUAL, "4b": (0.2, 3.0, 0.1), "8b": (5.0, 9.0, 0.9)}
    assert next(step for step, _ in slow(usual.compare(creation(late)))) == "8b"


def test_few_times_are_said_and_not_compared(tmp_path: Path) -> None:
    """Three runs are no measure: a note says that nothing was compared."""
    usual = learnt(tmp_path / "usual.json", 3)
    found = usual.compare(creation({**USUAL, "8b": (3.0, 500.0, 0.9)}))
    assert slow(found) == []
    assert {n.step for n in found.notes if n.kind == "baseline"} == set(USUAL)


def test_a_step_that_the_baseline_never_saw_is_not_slow(tmp_path: Path) -> None:
    """A volume boot against a baseline of image boots."""
    usual = learnt(tmp_path / "usual.json", 30)
    found = usual.compare(creation({**USUAL, "8a": (3.0, 0.4, 0.9)}))
    assert slow(found) == []
    assert Note("baseline", "8a", f"times not compared: fewer than {LEAST} in {usual.path}") in found.notes


# --- files that are none ----------------------------------------------------------------------------

GOOD: dict[str, Any] = {"n": 5, "mean_ms": 1, "sd_ms": 0, "min_ms": 1, "p50_ms": 1, "p95_ms": 1, "max_ms": 1}


def document(**changed: Any) -> bytes:
    base = {"schema": SCHEMA, "grammar": "g", "traces": 5, "steps": {"1": {"took": GOOD}}, "total": {}}
    return json.dumps(base | changed).encode()


@pytest.mark.parametrize(
    "text, words",
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a baseline (no schema)"),
        (b'{"schema": "tracer.check/1"}', "not a baseline (schema 'tracer.check/1')"),
        (document(schema="tracer.baseline/2"), "not a baseline (schema 'tracer.baseline/2')"),
        (document(grammar="other"), "learnt under grammar 'other', and this run checks 'g'"),
        (document(traces=0), "`traces` must be"),
        (document(steps=[]), "`steps` must be an object"),
        (document(steps={"1": 7}), "step '1' must be an object"),
        (document(steps={"1": {"took": 7}}), "step '1', took: must be an object"),
        (document(steps={"1": {"took": {}}}), "n must be a number"),
        (document(steps={"1": {"took": GOOD | {"p95_ms": -1}}}), "p95_ms must be a number"),
        (document(steps={"1": {"took": GOOD | {"p95_ms": "1"}}}), "p95_ms must be a number"),
        (document(steps={"1": {"took": GOOD | {"n": True}}}), "n must be a number"),
        (document(steps={"1": {"took": GOOD | {"p95_ms": 0.5}}}), "contradict each other"),
        (document(steps={"1": {"took": GOOD | {"n": 1.5}}}), "contradict each other"),
        (document(total=[]), "step 'total' must be an object"),
    ],
)
def test_a_bad_file_is_one_clear_line(text: bytes, words: str, tmp_path: Path) -> None:
    """What is wrong, and where, with the file's name."""
    path = tmp_path / "usual.json"
    path.write_bytes(text)
    with pytest.raises(UsageError) as error:
        load(path, "g")
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_more_than_is_known_is_no_mistake(tmp_path: Path) -> None:
    """Fields are added, not changed."""
    path = tmp_path / "usual.json"
    path.write_bytes(document(more=1, steps={"1": {"took": GOOD | {"p99_ms": 1}, "slept": 7}}))
    assert load(path, "g").times == {("1", "took"): Times(5, 1, 0, 1, 1, 1, 1)}


@pytest.mark.parametrize("missing", [True, False])
def test_a_file_that_cannot_be_read(missing: bool, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.json" if missing else tmp_path, "g")


def test_the_least_number_of_runs_is_one_number() -> None:
    """Reports know the model alone, and have their own copy."""
    assert console._LEAST == LEAST
