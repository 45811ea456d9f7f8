"""The durations of steps in good creations, and the steps of another creation that were slow.

A baseline is learnt from creations that conform and were not rescheduled. For each step it has two times:

- `took`: from the step's first call to the end of its last call;
- `waited`: the time before the step in which no documented call was made. A slow scheduler does not take
  longer to *send* its reply (step 6); the wait before the reply grows.

**When is a time slow?** When it exceeds p50 + 3 (p95 - p50), and exceeds p95 by at least 50 ms. Times of
services have a long right tail, which makes mean and deviation unstable; p95 - p50 measures that tail and
does not change as long as fewer than one good creation in twenty is an outlier. With exponential times one
step in 2,000 exceeds the limit, with normal times one in a million. A delay below 50 ms matters to no user.
With fewer than 20 samples the maximum stands in for p95, and a time counts as slow only above twice the
maximum. With fewer than 5 samples nothing is compared.

A slow step is a note and never a deviation. A step that encloses others (steps 1 to 3 wait for all of 4) is
not reported when a slow step within it explains its delay.

The numbers are collected in one pass: count, mean and deviation by Welford's method, quantiles in a histogram
of logarithmic buckets of 2 % (Masson et al., DDSketch, VLDB 2019): exact within 1 %, and of bounded size.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tracer.engine.workflows import one_workflow
from tracer.errors import UsageError, reason
from tracer.model import Note, Report, StepResult, Verdict

__all__ = ["LEAST", "SCHEMA", "Baseline", "Learner", "Times", "learn", "load"]

SCHEMA = "tracer.baseline/1"
LEAST = 5
"""With fewer samples than this nothing is compared."""
_FEW = 20
"""With fewer samples than this p95 is the maximum."""
_FLOOR_MS = 50.0
_GROWTH = math.log(1.02)
_MAX_BYTES = 10_000_000
_TOTAL = "total"


# --- one step's times -----------------------------------------------------------------------------


class Times(NamedTuple):
    """Statistics of one time of one step in good creations, in milliseconds; n is the number of samples."""

    n: int
    mean_ms: float
    sd_ms: float
    min_ms: float
    p50_ms: float
    p95_ms: float
    max_ms: float

    @property
    def limit_ms(self) -> float | None:
        """A time above this is slow; None with too few samples."""
        if self.n < LEAST:
            return None
        limit = self.p50_ms + 3 * (self.p95_ms - self.p50_ms)
        if self.n < _FEW:
            limit = max(limit, 2 * self.max_ms)
        return max(limit, self.p95_ms + _FLOOR_MS)


@dataclass(slots=True)
class _Tally:
    """Collects the samples of one time in one pass."""

    n: int = 0
    mean_ms: float = 0.0
    squares: float = 0.0
    min_ms: float = math.inf
    max_ms: float = 0.0
    buckets: dict[int, int] = field(default_factory=dict)

    def add(self, ms: float) -> None:
        """Add a sample (Welford's method)."""
        self.n += 1
        change = ms - self.mean_ms
        self.mean_ms += change / self.n
        self.squares += change * (ms - self.mean_ms)
        self.min_ms, self.max_ms = min(self.min_ms, ms), max(self.max_ms, ms)
        # Times below a microsecond share a bucket: the timestamps of a pcap have no more digits.
        bucket = math.ceil(math.log(max(ms, 1e-3)) / _GROWTH)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def quantile(self, share: float) -> float:
        """Return the time that *share* of the samples do not exceed (nearest rank), exact within 1 %."""
        rank, passed = math.ceil(share * self.n), 0
        if rank >= self.n:
            return self.max_ms
        for bucket in sorted(self.buckets):
            passed += self.buckets[bucket]
            if passed >= rank:
                middle = math.exp((bucket - 0.5) * _GROWTH)
                return min(max(middle, self.min_ms), self.max_ms)
        return self.max_ms

    def times(self) -> Times:
        """Return the statistics of the samples, rounded to a microsecond."""
        deviation = math.sqrt(self.squares / (self.n - 1)) if self.n > 1 else 0.0
        quantiles = self.quantile(0.5), self.quantile(0.95)
        values = (self.mean_ms, deviation, self.min_ms, *quantiles, self.max_ms)
        return Times(self.n, *(round(value, 3) for value in values))


# --- learning -------------------------------------------------------------------------------------


class Learner:
    """Collects the step times of good creations."""

    def __init__(self, grammar: str) -> None:
        self._grammar = grammar
        self._tallies: dict[tuple[str, str], _Tally] = {}
        self.learnt = 0
        self.left_out: dict[str, int] = {"did not conform": 0, "rescheduled": 0}

    def add(self, verdict: Verdict) -> None:
        """Add the times of *verdict* if it conforms at the first attempt."""
        if verdict.verdict != "conforms":
            self.left_out["did not conform"] += 1
            return
        if len(verdict.attempts) > 1:
            self.left_out["rescheduled"] += 1
            return
        self.learnt += 1
        for measure in _measures(verdict):
            self._tallies.setdefault((measure.step, measure.kind), _Tally()).add(measure.ms)

    def render(self) -> bytes:
        """Return the baseline as a JSON document, schema tracer.baseline/1."""
        steps: dict[str, dict[str, Any]] = {}
        for (step, kind), tally in self._tallies.items():
            steps.setdefault(step, {})[kind] = tally.times()._asdict()
        document = {
            "schema": SCHEMA,
            "grammar": self._grammar,
            "traces": self.learnt,
            "left_out": self.left_out,
            "steps": {step: times for step, times in steps.items() if step != _TOTAL},
            _TOTAL: steps.get(_TOTAL, {}),
        }
        return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def learn(report: Report) -> tuple[bytes, int]:
    """Return a baseline (schema tracer.baseline/1) of the good creations in *report*, and how many they are.

    Raises UsageError when there is none, or when the report is of several workflows.
    """
    one_workflow(report.grammar, "a baseline is of one workflow")
    learner = Learner(report.grammar)
    for verdict in report.verdicts:
        learner.add(verdict)
    if not learner.learnt:
        left_out = [f"{count} {why}" for why, count in learner.left_out.items() if count]
        reasons = f" ({', '.join(left_out)})" if left_out else ""
        raise UsageError(f"the captures hold no creation to learn from{reasons}; a baseline is of good ones")
    return learner.render(), learner.learnt


class _Measure(NamedTuple):
    """One time of one step of one creation."""

    step: str
    kind: str
    """took · waited"""
    since_ns: int
    until_ns: int

    @property
    def ms(self) -> float:
        return (self.until_ns - self.since_ns) / 1e6


def _measures(verdict: Verdict) -> list[_Measure]:
    """Return all times of a creation that are known for certain."""
    found = []
    for step in verdict.steps:
        if step.status not in ("seen", "failed") or step.started_ns is None:
            continue
        if step.duration_ns is not None:
            until_ns = step.started_ns + step.duration_ns
            found.append(_Measure(step.step, "took", step.started_ns, until_ns))
        if step.waited_ns is not None:
            since_ns = step.started_ns - step.waited_ns
            found.append(_Measure(step.step, "waited", since_ns, step.started_ns))
    if verdict.outcome in ("active", "done") and len(verdict.attempts) < 2:
        found.append(_Measure(_TOTAL, "took", verdict.started_ns, verdict.ended_ns))
    return found


# --- comparing ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Baseline:
    """The times of good creations, as read from a file."""

    path: str
    grammar: str
    traces: int
    times: dict[tuple[str, str], Times]
    """(step, took or waited) -> times"""

    def compare(self, verdict: Verdict) -> Verdict:
        """Return *verdict* with the usual times of its steps and a note for each slow step, slowest first."""
        measures = _measures(verdict)
        notes = [self._note(each, verdict) for each in self._slow(measures)]
        few = [m.step for m in measures if m.kind == "took" and self._limit(m) is None and m.step != _TOTAL]
        if few:
            words = f"times not compared: fewer than {LEAST} in {self.path}"
            notes += [Note("baseline", step, words) for step in few]
        return replace(
            verdict,
            steps=tuple(self._usual(step) for step in verdict.steps),
            notes=(*verdict.notes, *notes),
        )

    def _usual(self, step: StepResult) -> StepResult:
        times = self.times.get((step.step, "took"))
        if times is None:
            return step
        return replace(step, usual_ns=round(times.mean_ms * 1e6), usual_p95_ns=round(times.p95_ms * 1e6))

    def _limit(self, measure: _Measure) -> float | None:
        times = self.times.get((measure.step, measure.kind))
        return times.limit_ms if times is not None else None

    def _slow(self, measures: Sequence[_Measure]) -> list[_Measure]:
        """Return the slow times that no slow time within them explains, the longest delay first."""
        late: dict[_Measure, float] = {}
        # Shortest first, so that times within another are known before it.
        for each in sorted(measures, key=lambda m: (m.until_ns - m.since_ns, m.step == _TOTAL)):
            limit = self._limit(each)
            if limit is None or each.ms <= limit:
                continue
            delay = each.ms - self.times[each.step, each.kind].p50_ms
            inside = sum(
                other
                for within, other in late.items()
                if each.since_ns <= within.since_ns and within.until_ns <= each.until_ns
            )
            # Explained: the delays within it are half of its own or more.
            if inside < delay / 2:
                late[each] = delay
        return sorted(late, key=lambda each: -late[each])

    def _note(self, measure: _Measure, verdict: Verdict) -> Note:
        times = self.times[measure.step, measure.kind]
        usual = (
            f"half of {times.n} good runs within {_words(times.p50_ms)}, 95 % within {_words(times.p95_ms)},"
            f" slow above {_words(times.limit_ms or 0)}"
        )
        if measure.step == _TOTAL:
            return Note("slow", None, f"the creation took {_words(measure.ms)}; {usual}")
        title = next(step.title for step in verdict.steps if step.step == measure.step)
        call = next((s.calls[0] for s in verdict.steps if s.step == measure.step and s.calls), None)
        did = "took" if measure.kind == "took" else "began only after a wait of"
        return Note(
            "slow", measure.step, f"step {measure.step} ({title}) {did} {_words(measure.ms)}; {usual}", call
        )


def _words(ms: float) -> str:
    if ms < 9.95:
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if ms < 999.5 else f"{ms / 1000:.1f} s"


# --- reading --------------------------------------------------------------------------------------


def load(path: Path, grammars: Collection[str]) -> Baseline:
    """Read a baseline file that was learnt under one of *grammars*.

    Raises UsageError, one line, for a file that is not there, is not a baseline, or is another grammar's.
    """
    where = f"--baseline {path}"
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{where}: cannot be read: {reason(error)}") from None
    if len(text) > _MAX_BYTES:
        raise UsageError(f"{where}: too large for a baseline; write one with `tracer baseline`")
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise UsageError(f"{where}: not JSON; write one with `tracer baseline CAPTURE -o FILE`") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(document, dict) or schema != SCHEMA:
        found = f"schema {schema!r}" if isinstance(schema, str) else "no schema"
        raise UsageError(f"{where}: not a baseline ({found[:80]}); expected {SCHEMA!r}")
    learnt = document.get("grammar")
    if not isinstance(learnt, str) or learnt not in grammars:
        checked = " or ".join(repr(name) for name in grammars)
        raise UsageError(f"{where}: learnt under grammar {str(learnt)[:80]!r}, and this run checks {checked}")
    traces = document.get("traces")
    if not isinstance(traces, int) or traces < 1:
        raise UsageError(f"{where}: `traces` must be a number from 1 on")
    return Baseline(str(path), learnt, traces, dict(_read_times(where, document)))


def _read_times(where: str, document: dict[str, Any]) -> Iterable[tuple[tuple[str, str], Times]]:
    steps = document.get("steps")
    if not isinstance(steps, dict):
        raise UsageError(f"{where}: `steps` must be an object")
    for step, kinds in (*steps.items(), (_TOTAL, document.get(_TOTAL, {}))):
        if not isinstance(kinds, dict):
            raise UsageError(f"{where}: step {step[:20]!r} must be an object")
        for kind in ("took", "waited"):
            if kind in kinds:
                yield (step, kind), _times(f"{where}: step {step[:20]!r}, {kind}", kinds[kind])


def _times(where: str, found: object) -> Times:
    if not isinstance(found, dict):
        raise UsageError(f"{where}: must be an object")
    values: list[float] = []
    for name in Times._fields:
        value = found.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e12:
            raise UsageError(f"{where}: {name} must be a number from 0 on")
        values.append(value)
    n, *rest = values
    times = Times(int(n), *rest)
    ordered = times.min_ms <= times.p50_ms <= times.p95_ms <= times.max_ms
    if times.n != n or times.n < 1 or not ordered:
        raise UsageError(f"{where}: its numbers contradict each other")
    return times
