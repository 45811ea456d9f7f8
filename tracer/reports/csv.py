"""Writes the steps of all traces as a CSV table (RFC 4180, UTF-8), for spreadsheets.

There is one row for each step of each trace. A text that a spreadsheet would run as a formula gets an
apostrophe before it, because it may come from the wire.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

from tracer.model import Report, StepResult, Verdict
from tracer.reports import plain, timestamp, witnesses

__all__ = ["COLUMNS", "pieces"]

COLUMNS = (
    "trace",
    "name",
    "server_id",
    "verdict",
    "outcome",
    "stopped_at",
    "compute_host",
    "step",
    "title",
    "status",
    "started",
    "since_ms",
    "duration_ms",
    "usual_ms",
    "calls",
    "line",
    "error",
    "path",
    "frame",
    "reason",
)


def pieces(report: Report) -> Iterator[bytes]:
    """Yield the table in parts, one for each trace."""
    yield _written([COLUMNS])
    for verdict in report.verdicts:
        yield _written([_row(step, verdict) for step in verdict.steps])


def _written(rows: list[tuple[object, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return "" if value is None else value
    shown = plain(value, 1000)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") else shown


def _row(step: StepResult, verdict: Verdict) -> tuple[object, ...]:
    shown = witnesses(step, verdict)
    first = shown[0] if shown else None
    path, frame = first.evidence[0] if first and first.evidence else (None, None)
    since_ns = None if step.started_ns is None else step.started_ns - verdict.started_ns
    return (
        verdict.id,
        verdict.name,
        verdict.server_id,
        verdict.verdict,
        verdict.outcome,
        verdict.stopped_at,
        verdict.compute_host,
        step.step,
        step.title,
        step.status,
        timestamp(step.captured_ns),
        _ms(since_ns),
        _ms(step.duration_ns),
        _ms(step.usual_ns),
        len(step.calls),
        first.line if first else None,
        first.error if first else None,
        path,
        frame,
        step.reason,
    )


def _ms(time_ns: int | None) -> float | None:
    return None if time_ns is None else round(time_ns / 1_000_000, 1)
