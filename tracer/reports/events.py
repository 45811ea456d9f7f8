"""Writes events of a live run as lines: JSON objects for programs (schema `tracer.watch/1`), text for people.

Each line is complete and is written at once. `trace` is a number that a trace keeps to its end, while its
`id` and name may become known later. The last line holds the whole report, as `tracer check` writes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TextIO

from tracer.model import Report
from tracer.model.events import Event
from tracer.reports import call_words, clock, lead, plain, timestamp
from tracer.reports.json import encoded, pieces

__all__ = ["SCHEMA", "json_line", "report_line", "text_line", "writer"]

SCHEMA = "tracer.watch/1"
_NAME_LIMIT = 255
_SIGNS = {"conforms": "✓", "deviates": "✗", "inconclusive": "?"}


def json_line(event: Event) -> bytes:
    """Return *event* as one JSON object with a line feed at its end."""
    members: dict[str, Any] = {
        "schema": SCHEMA,
        "event": event.kind,
        "time": timestamp(event.time_ns or None),
    }
    if event.trace is not None and event.verdict is not None:
        verdict = event.verdict
        members |= {
            "trace": event.trace.number,
            "id": _text(verdict.id),
            "request_id": verdict.request_id,
            "server_id": verdict.server_id,
            "name": _text(verdict.name) if verdict.name else None,
        }
        if event.kind in ("verdict", "stalled"):
            members |= {
                "verdict": verdict.verdict,
                "outcome": verdict.outcome,
                "stopped_at": verdict.stopped_at,
                "stopped_between": verdict.stopped_between,
                "compute_host": _text(verdict.compute_host) if verdict.compute_host else None,
                "started": timestamp(verdict.captured_ns),
                "ended": timestamp(verdict.captured_end_ns),
            }
        if event.kind == "verdict":
            members["revised"] = event.revised
        if event.kind == "stalled":
            members |= {"owed_by": event.trace.owes or None, "quiet_ms": round(event.quiet_ns / 1e6, 1)}
    if event.step is not None:
        members |= {
            "step": event.step.step,
            "title": _text(event.step.title),
            "status": event.step.status,
            "duration_ms": None if event.step.duration_ns is None else round(event.step.duration_ns / 1e6, 1),
        }
    if event.call is not None:
        evidence = [{"path": _text(path), "frame": frame} for path, frame in event.call.evidence]
        members |= {"line": _text(event.call.line), "evidence": evidence}
    if event.message:
        members["message"] = _text(event.message, 2000)
    return encoded(members) + b"\n"


def report_line(report: Report) -> bytes:
    """Return the report as the last line: its `report` is a document of schema `tracer.check/1`."""
    # JSON escapes line feeds in strings, so a line feed is only between members.
    whole = b"".join(pieces(report)).replace(b"\n", b"")
    return b'{"schema":"' + SCHEMA.encode() + b'","event":"report","report":' + whole + b"}\n"


def text_line(event: Event) -> str:
    """Return *event* as one line of text."""
    who = ""
    if event.trace is not None and event.verdict is not None:
        verdict = event.verdict
        who = plain(verdict.name or "", 40) or lead(verdict.server_id or verdict.id)
        if verdict.name and verdict.server_id:
            who += f" {lead(verdict.server_id)}"
    words: dict[str, Callable[[], str]] = {
        "trace_opened": lambda: f"… {who}  begins",
        "step_seen": lambda: f"  {who}  step {_step_words(event)}",
        "stalled": lambda: f"! {who}  {plain(event.message, 400)}",
        "resumed": lambda: f"  {who}  goes on",
        "withdrawn": lambda: f"  {who}  {plain(event.message, 400)}",
        "verdict": lambda: f"{_sign(event)} {who}  {_revised(event)}{plain(event.message, 400)}",
    }
    text = words[event.kind]() if event.kind in words else f"! {plain(event.message, 400)}"
    return f"{clock(event.time_ns)} {text}"


def _sign(event: Event) -> str:
    return _SIGNS.get(event.verdict.verdict, "?") if event.verdict else "?"


def _revised(event: Event) -> str:
    return "now " if event.revised else ""


def _step_words(event: Event) -> str:
    step, verdict = event.step, event.verdict
    if step is None or verdict is None:
        return ""
    since = f" +{max(0, event.time_ns - verdict.started_ns) / 1e9:.3f}"
    call = f"  {call_words(event.call, 100)}" if event.call else ""
    return f"{step.step}{' FAILED' if step.status == 'failed' else ''}{since}{call}"


def writer(file: TextIO, form: str) -> Callable[[Event], None]:
    """Return a function that writes an event to *file* and flushes; *form* is 'jsonl' or 'text'."""

    def write_json(event: Event) -> None:
        file.buffer.write(json_line(event))
        file.buffer.flush()

    def write_text(event: Event) -> None:
        file.write(text_line(event) + "\n")
        file.flush()

    return write_json if form == "jsonl" else write_text


def _text(text: str, limit: int = _NAME_LIMIT) -> str:
    """Return *text* without lone surrogates, which UTF-8 cannot encode, at most *limit* characters."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
