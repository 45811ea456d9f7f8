"""Writes steps and calls as Parquet tables, for DuckDB, pandas and similar tools.

Columns have the names of the members of tracer.check/1. A step's `calls` hold the `index` of calls, the same
in both tables. Tables are written in row groups, so memory use does not grow with their length.

Source: parquet.apache.org/docs/file-format; pyarrow writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pyarrow
from pyarrow.parquet import ParquetWriter

from tracer.model import CallRecord, Report, StepResult, Verdict
from tracer.reports import plain
from tracer.reports.json import call_members

__all__ = ["CALLS", "STEPS", "call_pieces", "pieces"]

_GROUP_ROWS = 5_000
_TEXT_LIMIT = 2000
_TEXT, _NUMBER, _FLAG, _MS = pyarrow.string(), pyarrow.int64(), pyarrow.bool_(), pyarrow.float64()
_TIME = pyarrow.timestamp("us", tz="UTC")
_WORD = pyarrow.dictionary(pyarrow.int32(), pyarrow.string())
"""Type of columns with few different texts."""

STEPS = pyarrow.schema(
    {
        "trace": _TEXT,
        "request_id": _TEXT,
        "server_id": _TEXT,
        "name": _TEXT,
        "verdict": _WORD,
        "outcome": _WORD,
        "stopped_at": _WORD,
        "compute_host": _WORD,
        "step": _WORD,
        "title": _WORD,
        "status": _WORD,
        "started": _TIME,
        "duration_ms": _MS,
        "waited_ms": _MS,
        "usual_ms": _MS,
        "usual_p95_ms": _MS,
        "calls": pyarrow.list_(_NUMBER),
        "reason": _TEXT,
    }
)
CALLS = pyarrow.schema(
    {
        "index": _NUMBER,
        "plane": _WORD,
        "protocol": _WORD,
        "caller": _WORD,
        "callee": _WORD,
        "operation": _TEXT,
        "result": _WORD,
        "line": _TEXT,
        "started": _TIME,
        "duration_ms": _MS,
        "step": _WORD,
        "ambiguous": _FLAG,
        "action": _TEXT,
        "evidence": pyarrow.list_(pyarrow.struct({"path": _TEXT, "frame": _NUMBER})),
        "error": _TEXT,
        "via": _WORD,
        "caller_address": _TEXT,
        "callee_address": _TEXT,
        "request_id": _TEXT,
        "message_id": _TEXT,
        "queue": _TEXT,
        "traces": pyarrow.list_(_TEXT),
    }
)


def pieces(report: Report) -> Iterator[bytes]:
    """Yield the table of steps: a row for each step of each trace."""
    rows = (_step(step, verdict) for verdict in report.verdicts for step in verdict.steps)
    return _table(STEPS, rows)


def call_pieces(records: Iterable[CallRecord]) -> Iterator[bytes]:
    """Yield the table of calls: a row for each."""
    return _table(CALLS, map(_call, records))


def _step(step: StepResult, verdict: Verdict) -> dict[str, Any]:
    return {
        "trace": _text(verdict.id),
        "request_id": _text(verdict.request_id),
        "server_id": _text(verdict.server_id),
        "name": _text(verdict.name),
        "verdict": verdict.verdict,
        "outcome": verdict.outcome,
        "stopped_at": verdict.stopped_at,
        "compute_host": _text(verdict.compute_host),
        "step": step.step,
        "title": _text(step.title),
        "status": step.status,
        "started": _time(step.started_ns),
        "duration_ms": _ms(step.duration_ns),
        "waited_ms": _ms(step.waited_ns),
        "usual_ms": _ms(step.usual_ns),
        "usual_p95_ms": _ms(step.usual_p95_ns),
        "calls": [call.index for call in step.calls],
        "reason": _text(step.reason),
    }


def _call(call: CallRecord) -> dict[str, Any]:
    members = call_members(call)
    members["started"] = _time(call.started_ns)
    members["duration_ms"] = _ms(call.duration_ns)
    members["traces"] = [plain(trace, 255) for trace in call.traces]
    return members


def _text(text: str | None) -> str | None:
    return plain(text, _TEXT_LIMIT) if text else None


def _ms(time_ns: int | None) -> float | None:
    """Return milliseconds with microsecond precision, because they are computed with."""
    return None if time_ns is None else round(time_ns / 1_000_000, 3)


def _time(time_ns: int | None) -> int | None:
    """Return microseconds clamped to 64 bits: a damaged capture may hold any time."""
    return None if time_ns is None else min(max(time_ns // 1000, 0), 2**63 - 1)


# --- the file -------------------------------------------------------------------------------------


class _Sink:
    """A file object for pyarrow whose content is taken out piece by piece."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def close(self) -> None:
        self.closed = True

    def taken(self) -> bytes:
        """Return what was written since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data


def _table(schema: pyarrow.Schema, rows: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    sink = _Sink()
    with ParquetWriter(pyarrow.PythonFile(sink, "w"), schema, compression="zstd") as writer:
        while group := list(islice(rows, _GROUP_ROWS)):
            writer.write_batch(pyarrow.RecordBatch.from_pylist(group, schema))
            yield sink.taken()
    yield sink.taken()
