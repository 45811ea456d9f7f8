"""Writes a comparison as text, as JSON (schema tracer.compare/1) and as an HTML page."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from tracer.model.comparison import LEAST, Comparison, StepPair
from tracer.reports import duration, plain, plural

__all__ = ["SCHEMA", "html", "json", "text"]

SCHEMA = "tracer.compare/1"
_LIMIT = 400


def text(found: Comparison) -> Iterator[str]:
    """Yield lines: the result, the differences, and the steps of both runs."""
    yield answer(found)
    for change in found.changes:
        sure = "" if change.p is None else f"  (p = {change.p:.1g})"
        yield f"  {'✗' if change.breaks else '·'} {change.kind:<9} {plain(change.words, _LIMIT)}{sure}"
    if 0 < min(found.counts) < LEAST:
        yield f"  times are tested from {LEAST} creations on each side"
    if not found.steps:
        return
    yield ""
    yield f"  {'step':<5} {'what':<46} {'came':>16} {'median':>20} {'change':>8} {'p':>8}"
    for pair in found.steps:
        yield (
            "  "
            + " ".join(
                (
                    f"{pair.step:<5}",
                    f"{plain(pair.title, 46):<46}",
                    f"{_came(pair, 0)} → {_came(pair, 1)}".rjust(16),
                    f"{_median(pair, 0)} → {_median(pair, 1)}".rjust(20),
                    moved(pair).rjust(8),
                    sureness(pair).rjust(8),
                )
            ).rstrip()
        )


def answer(found: Comparison) -> str:
    """Return the result of the comparison in one line."""
    before, after = (plain(name, 200) for name in found.names)
    worse = sum(change.breaks for change in found.changes)
    result = plural(len(found.changes), "difference") if found.changes else "no difference that holds"
    if not all(found.counts):
        result = "nothing to compare"
    result += f", {worse} {'breaks' if worse == 1 else 'break'} conformance" if worse else ""
    return f"{after} ({plural(found.counts[1], 'trace')}) against {before} ({found.counts[0]}): {result}"


def _came(pair: StepPair, side: int) -> str:
    return f"{pair.came[side]}/{pair.observable[side]}" if pair.observable[side] else "?"


def _median(pair: StepPair, side: int) -> str:
    value = pair.medians_ms[side]
    return "-" if value is None else duration(round(value * 1e6))


def moved(pair: StepPair) -> str:
    """Return how a step's time changed: in percent, or as a factor."""
    before, after = pair.medians_ms
    if not before or after is None:
        return ""
    return f"×{after / before:.0f}" if after >= 10 * before else f"{100 * (after / before - 1):+.0f} %"


def sureness(pair: StepPair) -> str:
    """Return the p-value of the difference of times, or that there are too few."""
    if pair.p is not None:
        return f"{pair.p:.1g}"
    return "too few" if None not in pair.medians_ms else ""


def json(found: Comparison) -> bytes:
    """Return the comparison as one JSON document."""
    document = {
        "schema": SCHEMA,
        "before": {"name": plain(found.names[0], _LIMIT), "traces": found.counts[0]},
        "after": {"name": plain(found.names[1], _LIMIT), "traces": found.counts[1]},
        "breaks_conformance": found.breaks,
        "changes": [
            {
                "kind": change.kind,
                "step": change.step,
                "message": plain(change.words, _LIMIT),
                "breaks_conformance": change.breaks,
                "p": change.p,
            }
            for change in found.changes
        ],
        "steps": [
            {
                "step": pair.step,
                "title": plain(pair.title, _LIMIT),
                "came": list(pair.came),
                "observable": list(pair.observable),
                "median_ms": list(pair.medians_ms),
                "p": pair.p,
            }
            for pair in found.steps
        ],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def html(found: Comparison) -> bytes:
    """Return the comparison as one HTML page that needs no network and no script."""
    from tracer.reports.html import rendered

    rows = [
        {
            "step": pair.step,
            "title": plain(pair.title, 200),
            "came": [_came(pair, 0), _came(pair, 1)],
            "medians": [_median(pair, 0), _median(pair, 1)],
            "moved": moved(pair),
            "p": sureness(pair),
            "changed": any(change.step == pair.step for change in found.changes),
        }
        for pair in found.steps
    ]
    changes = [(change, plain(change.words, _LIMIT)) for change in found.changes]
    return rendered("comparison.html", title=answer(found), changes=changes, steps=rows, breaks=found.breaks)
