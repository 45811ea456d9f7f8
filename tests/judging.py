"""Synthesised creations through the whole pipeline, and short words for what it says of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from creation import SPREAD, Cloud, Creation, Layout

import tracer.pipeline
from tracer.model import Report, Verdict
from tracer.pipeline import Settings

# A grammar is the same each time; to read it takes longer than a small capture does.
tracer.pipeline.load = functools.cache(tracer.pipeline.load)

UNTIL_S = 260
"""The capture goes on so long after T0; creations begin at 100 s: time for a stall on either side."""


def judge(cloud: Cloud, folder: Path, settings: Settings | None = None) -> Report:
    """What `tracer check` says of the captures of *cloud*."""
    return tracer.pipeline.check(cloud.network.write(folder), settings or Settings())


def run(
    folder: Path,
    layout: Layout = SPREAD,
    *,
    until: float = UNTIL_S,
    since: float = 0,
    settings: Settings | None = None,
    change: Callable[[Cloud], None] | None = None,
    **creation: Any,
) -> Report:
    """One creation among noise; *change* has the last word on the packets."""
    cloud = Cloud(layout)
    cloud.background(since, until)
    Creation(cloud, **creation).run()
    if change is not None:
        change(cloud)
    return judge(cloud, folder, settings)


def only(report: Report) -> Verdict:
    assert len(report.verdicts) == 1, [v.summary for v in report.verdicts]
    return report.verdicts[0]


def statuses(verdict: Verdict) -> dict[str, str]:
    return {s.step: s.status for s in verdict.steps}


def kinds(verdict: Verdict) -> list[tuple[str, str | None]]:
    return [(d.kind, d.step) for d in verdict.deviations]


def note_kinds(verdict: Verdict) -> set[str]:
    return {note.kind for note in verdict.notes}
