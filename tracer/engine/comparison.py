"""Compares two runs: before and after an upgrade, for example.

Both runs are reports of `tracer check` (schema tracer.check/1), so a JSON file of last month can be compared
with captures of today. A difference **breaks conformance** when the second run has a kind of deviation at a
step at which the first run has none of that kind.

Shares (outcomes, steps that were seen) are compared by Fisher's exact test, times by the Mann-Whitney test
with the normal approximation, from 8 creations on each side. The level is 1 % after Holm's correction,
because of a hundred comparisons one is "significant" by chance. Steps that were unobserved, or not reached
because the creation had stopped, are left out: they are no evidence about the step.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import get_args

import msgspec

from tracer.engine.workflows import one_workflow
from tracer.errors import UsageError
from tracer.model.comparison import LEAST, Change, ChangeKind, Comparison, StepPair

__all__ = ["Document", "compare", "decode"]

_KINDS = get_args(ChangeKind)

LEVEL = 0.01
_LEAST_MS, _LEAST_SHARE = 10.0, 0.1
"""A median that changed by less than either is not reported, however significant the change is."""
_CAME = frozenset({"seen", "failed", "inferred"})
_GOOD = frozenset({"active", "done"})
_ABSENT = frozenset({"skipped", "missing"})


class _Step(msgspec.Struct):
    step: str
    title: str
    status: str
    started: str | None = None
    duration_ms: float | None = None


class _Deviation(msgspec.Struct):
    kind: str
    step: str | None
    message: str


class _Call(msgspec.Struct):
    line: str
    step: str | None = None


class _Trace(msgspec.Struct):
    id: str
    verdict: str
    outcome: str
    steps: list[_Step]
    deviations: list[_Deviation]
    calls: list[_Call]
    duration_ms: float | None = None


class Document(msgspec.Struct):
    """The part of a report that is compared."""

    schema: str
    grammar: str
    traces: list[_Trace]
    partial: bool = False
    """The run was interrupted; the report holds the traces up to then."""


class _Headed(msgspec.Struct):
    schema: str = ""


def decode(data: bytes, name: str) -> Document:
    """Read a report of `tracer check --format json`; raises UsageError when *data* is none."""
    none = f"{name}: no report of `tracer check --format json`"
    try:
        schema = msgspec.json.decode(data, type=_Headed).schema
        if schema != "tracer.check/1":
            why = f"schema {schema[:60]!r}; known is tracer.check/1" if schema else "it names no schema"
            raise UsageError(f"{none}: {why}")
        return msgspec.json.decode(data, type=Document)
    except msgspec.DecodeError as error:
        raise UsageError(f"{none}: {error}") from None


def compare(before: Document, after: Document, names: tuple[str, str]) -> Comparison:
    """Return the differences of *after* from *before*; raises UsageError unless both are of one grammar."""
    for document in (before, after):
        one_workflow(document.grammar, "steps of several workflows cannot be compared")
    if before.grammar != after.grammar:
        raise UsageError(
            f"checked against two grammars: {before.grammar[:60]} and {after.grammar[:60]};"
            " --grammar says against which one captures are checked"
        )
    sides = (before.traces, after.traces)
    found = Comparison(names, (len(sides[0]), len(sides[1])))
    found.steps = _steps(sides)
    tested = [*_outcomes(sides), *_came(found.steps), *_times(found.steps)]
    certain = [*_deviations(sides), *_held(tested)]
    # A step that is reported already is not reported again as one that appeared.
    known = {change.step for change in certain if change.kind in ("deviation", "step")}
    appeared = (change for change in _appeared(found.steps) if change.step not in known)
    changes = [*certain, *appeared, *_orders(sides), *_calls(sides)]
    place = {pair.step: number for number, pair in enumerate(found.steps)}
    found.changes = sorted(
        changes,
        key=lambda c: (not c.breaks, _KINDS.index(c.kind), place.get(c.step or "", len(place))),
    )
    return found


# --- differences that need no test ------------------------------------------------------------------


def _deviations(sides: tuple[list[_Trace], list[_Trace]]) -> Iterable[Change]:
    kinds = [Counter((d.kind, d.step) for t in side for d in _distinct(t.deviations)) for side in sides]
    example = {(d.kind, d.step): d.message for trace in sides[1] for d in trace.deviations}
    for key, count in kinds[1].items():
        if key not in kinds[0]:
            kind, step = key
            words = f"{kind} {step or ''}".rstrip() + f" in {count} of {len(sides[1])}, before in none"
            yield Change("deviation", step, f"{words}: {example[key]}", breaks=True)
    for (kind, step), count in kinds[0].items():
        if (kind, step) not in kinds[1]:
            words = f"{kind} {step or ''}".rstrip() + f" in none, before in {count} of {len(sides[0])}"
            yield Change("deviation", step, words)


def _distinct(deviations: Iterable[_Deviation]) -> list[_Deviation]:
    return list({(each.kind, each.step): each for each in deviations}.values())


def _orders(sides: tuple[list[_Trace], list[_Trace]]) -> Iterable[Change]:
    """Yield the pairs of steps that always came in one order, and now always come in the other."""
    first, second = (_precedences(side) for side in sides)
    for (one, other), count in first.items():
        if not first[other, one] and second[other, one] and not second[one, other]:
            words = f"{other} comes before {one} in {second[other, one]}, before always behind it ({count})"
            yield Change("order", other, words)


def _precedences(traces: Iterable[_Trace]) -> Counter[tuple[str, str]]:
    """Return how often one step began before another."""
    found: Counter[tuple[str, str]] = Counter()
    for trace in traces:
        begun = sorted((step.started, step.step) for step in trace.steps if step.started)
        for at, (_, one) in enumerate(begun):
            for _, other in begun[at + 1 :]:
                found[one, other] += 1
    return found


def _appeared(steps: Iterable[StepPair]) -> Iterable[Change]:
    """Yield the steps that most creations of one run have and none of the other, however few there are."""
    for pair in steps:
        (before, after), (before_of, after_of) = pair.came, pair.observable
        if not all(pair.observable) or (before and after):
            continue
        if 2 * before > before_of or 2 * after > after_of:
            yield Change("step", pair.step, _came_words(pair))


def _calls(sides: tuple[list[_Trace], list[_Trace]]) -> Iterable[Change]:
    """Yield the calls that most good creations of one run make and none of the other."""
    # Good ones only: a creation that stopped makes fewer calls.
    good = [[trace for trace in side if trace.outcome in _GOOD] for side in sides]
    lines = [Counter(line for trace in side for line in {call.line for call in trace.calls}) for side in good]
    if not all(good):
        return
    for line, count in sorted(lines[1].items()):
        if not lines[0][line] and 2 * count > len(good[1]):
            yield Change("call", None, f"seen in {count} of {len(good[1])}, before in none: {line}")
    for line, count in sorted(lines[0].items()):
        if not lines[1][line] and 2 * count > len(good[0]):
            yield Change("call", None, f"seen in none, before in {count} of {len(good[0])}: {line}")


# --- differences that are tested --------------------------------------------------------------------


def _held(tested: Iterable[tuple[float, Change]]) -> list[Change]:
    """Return the changes that are significant at `LEVEL` together (Holm's correction)."""
    ordered = sorted(tested, key=lambda each: each[0])
    held = []
    for rank, (p, change) in enumerate(ordered):
        if p * (len(ordered) - rank) > LEVEL:
            break
        held.append(change)
    return [change for change in held if change.words]


def _outcomes(sides: tuple[list[_Trace], list[_Trace]]) -> Iterable[tuple[float, Change]]:
    counts = [Counter(trace.outcome for trace in side) for side in sides]
    outcomes = sorted({*counts[0], *counts[1]})
    for outcome in outcomes if len(outcomes) > 1 else ():
        table = ((counts[0][outcome], len(sides[0])), (counts[1][outcome], len(sides[1])))
        p = _fisher(*table)
        words = f"{outcome}: {_share(*table[1])}, before {_share(*table[0])}"
        yield p, Change("outcome", None, words, p=p)


def _came(steps: Iterable[StepPair]) -> Iterable[tuple[float, Change]]:
    for pair in steps:
        table = ((pair.came[0], pair.observable[0]), (pair.came[1], pair.observable[1]))
        # A step that came in all creations or in none cannot differ, and must not count in the correction.
        if all(pair.observable) and 0 < sum(pair.came) < sum(pair.observable):
            p = _fisher(*table)
            yield p, Change("step", pair.step, _came_words(pair), p=p)


def _came_words(pair: StepPair) -> str:
    before, after = (_share(*share) for share in zip(pair.came, pair.observable, strict=True))
    return f"step {pair.step} ({pair.title}) came in {after}, before in {before}"


def _times(steps: Iterable[StepPair]) -> Iterable[tuple[float, Change]]:
    for pair in steps:
        before, after = pair.medians_ms
        if pair.p is None or before is None or after is None:
            continue
        moved = abs(after - before)
        worth = moved >= _LEAST_MS and moved >= _LEAST_SHARE * before
        words = f"step {pair.step} ({pair.title}) takes {_span(after)}, before {_span(before)}"
        yield pair.p, Change("time", pair.step, words if worth else "", p=pair.p)


def _steps(sides: tuple[list[_Trace], list[_Trace]]) -> list[StepPair]:
    # Imported here: `check` imports this module, and compares nothing.
    from statistics import median

    titles = {step.step: step.title for side in sides for trace in side for step in trace.steps}
    found = []
    for name, title in titles.items():
        own = [[step for trace in side for step in trace.steps if step.step == name] for side in sides]
        came = [sum(step.status in _CAME for step in side) for side in own]
        observable = [sum(step.status in _CAME | _ABSENT for step in side) for side in own]
        times = [
            [s.duration_ms for s in side if s.duration_ms is not None and s.status == "seen"] for side in own
        ]
        medians = [median(side) if side else None for side in times]
        p = _mann_whitney(*times) if min(map(len, times)) >= LEAST else None
        found.append(
            StepPair(
                name, title, (came[0], came[1]), (observable[0], observable[1]), (medians[0], medians[1]), p
            )
        )
    return found


def _span(ms: float) -> str:
    return f"{ms:.1f} ms" if ms < 1000 else f"{ms / 1000:,.1f} s"


def _share(count: int, total: int) -> str:
    return f"{count} of {total}"


def _fisher(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Return p of Fisher's exact test, two-sided: the sum over all tables no likelier than this one."""
    (a, n), (b, m) = before, after
    hits = a + b
    total = math.comb(n + m, hits)

    def likelihood(k: int) -> int:
        return math.comb(n, k) * math.comb(m, hits - k)

    here = likelihood(a)
    tail = sum(p for k in range(max(0, hits - m), min(n, hits) + 1) if (p := likelihood(k)) <= here)
    return tail / total


def _mann_whitney(before: Sequence[float], after: Sequence[float]) -> float:
    """Return p of the Mann-Whitney test, two-sided, corrected for ties and continuity."""
    ranked = sorted([(value, 0) for value in before] + [(value, 1) for value in after])
    n, m = len(before), len(after)
    ranks, ties, at = 0.0, 0.0, 0
    while at < len(ranked):
        end = at
        while end < len(ranked) and ranked[end][0] == ranked[at][0]:
            end += 1
        same = end - at
        ranks += sum(1 for _, side in ranked[at:end] if side == 0) * (at + 1 + end) / 2
        ties += same**3 - same
        at = end
    total = n + m
    variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return 1.0
    distance = abs(ranks - n * (n + 1) / 2 - n * m / 2) - 0.5
    # Both tails of the normal distribution.
    return math.erfc(max(distance, 0.0) / math.sqrt(2 * variance))
