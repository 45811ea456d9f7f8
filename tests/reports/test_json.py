"""tracer.check/1, the public JSON report."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tracer.model import Report
from tracer.reports.json import encoded, render


def document(report: Report) -> dict[str, Any]:
    """The report as another program's parser sees it."""
    text = render(report)
    assert text.endswith(b"\n")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


# The members that interface.md promises.
REPORT = {"schema", "grammar", "summary", "captures", "traces"}
CAPTURE = {"path", "planes", "packets", "bytes", "first", "last", "calls", "skipped_statements",
           "truncated_packets", "duplicate_segments", "reordered_segments", "gaps", "lost_bytes",
           "undecoded_streams"}  # fmt: skip
TRACE = {"id", "request_id", "server_id", "project_id", "name", "verdict", "outcome", "stopped_at",
         "api_host", "compute_host", "attempts", "attempt_details", "started", "ended", "duration_ms",
         "summary", "steps", "deviations", "notes", "calls"}  # fmt: skip
CALL = {"index", "plane", "protocol", "caller", "callee", "operation", "result", "line", "started",
        "duration_ms", "step", "ambiguous", "evidence"}  # fmt: skip


def test_every_promised_member_is_there(build: SimpleNamespace) -> None:
    """More members are allowed, fewer are not."""
    loaded = document(build.report(build.rescheduled()))
    [trace] = loaded["traces"]
    assert set(loaded) >= REPORT
    assert set(loaded["captures"][0]) >= CAPTURE
    assert set(trace) >= TRACE
    assert all(set(call) >= CALL for call in trace["calls"])
    assert set(trace["steps"][0]) >= {"step", "title", "status", "started", "duration_ms", "calls"}
    assert set(trace["deviations"][0]) >= {"kind", "step", "message", "call", "expected"}
    assert set(trace["notes"][0]) >= {"kind", "step", "message"}
    assert set(trace["attempt_details"][0]) >= {"host", "stopped_at", "error", "started", "duration_ms"}


def test_the_summary_counts_verdicts(build: SimpleNamespace) -> None:
    """A trace counts once, under its verdict."""
    loaded = document(build.report(build.conforming(), build.stuck(), build.unobserved()))
    summary = loaded["summary"]
    assert loaded["schema"] == "tracer.check/1"
    assert (summary["traces"], summary["conforms"], summary["deviates"], summary["inconclusive"]) == (
        3,
        1,
        1,
        1,
    )


def test_a_step_and_a_deviation_point_at_calls_by_index(build: SimpleNamespace) -> None:
    """What a reader needs to find the call in the list, and with it the frame."""
    [trace] = document(build.report(build.stopped_at_8b()))["traces"]
    step = next(step for step in trace["steps"] if step["step"] == "8b")
    by_index = {call["index"]: call for call in trace["calls"]}
    assert [by_index[index]["result"] for index in step["calls"]] == ["503"] * 3
    assert by_index[trace["deviations"][0]["call"]]["evidence"][0] == {
        "path": "captures/Internal_base.pcap.zst",
        "frame": 290,
    }


def test_times_have_microseconds_and_durations_a_tenth_of_a_millisecond(build: SimpleNamespace) -> None:
    """2026-01-01T06:53:32.739000Z and 11362.0."""
    [trace] = document(build.report(build.conforming()))["traces"]
    assert trace["started"] == "2026-01-01T06:53:32.739000Z"
    assert trace["duration_ms"] == 11362.0
    assert {call["duration_ms"] for call in trace["calls"]} >= {0.5, 0.6, 305.0}


def test_null_stands_for_what_the_capture_does_not_hold(build: SimpleNamespace) -> None:
    """Never an empty string, never a zero."""
    verdict = replace(build.stuck(), name=None, project_id=None, api_host="", compute_host=None, attempts=())
    [trace] = document(build.report(verdict))["traces"]
    assert [trace[key] for key in ("name", "project_id", "api_host", "compute_host")] == [None] * 4
    assert trace["attempts"] == []
    assert trace["calls"][-1]["duration_ms"] is None
    assert trace["steps"][-1]["started"] is None


def test_a_step_without_a_time_has_none(build: SimpleNamespace) -> None:
    """Null, and not a time that was guessed: the checker gives none where evidence is ambiguous."""
    verdict = build.conforming()
    doubtful = replace(verdict.steps[0], started_ns=None, duration_ns=None)
    [trace] = document(build.report(replace(verdict, steps=(doubtful, *verdict.steps[1:]))))["traces"]
    assert trace["steps"][0]["started"] is None
    assert trace["steps"][0]["duration_ms"] is None
    assert trace["steps"][1]["started"] is not None


def test_hostile_strings_are_valid_json(build: SimpleNamespace) -> None:
    """Surrogates, control characters and a name of 10,000 letters."""
    [trace] = document(build.report(build.hostile()))["traces"]
    assert len(trace["name"]) <= 255
    assert trace["name"].startswith("[red]x[/red]\x1b[2J")
    surrogate = replace(build.conforming(), name="a\ud800b")
    [trace] = document(build.report(surrogate))["traces"]
    assert trace["name"] == "a\\ud800b"


def test_partial_is_said_only_when_it_is_so(build: SimpleNamespace) -> None:
    """An interrupted run says so."""
    assert "partial" not in document(build.report(build.conforming()))
    assert document(build.report(build.conforming(), partial=True))["partial"] is True


def test_no_trace_is_an_empty_list(build: SimpleNamespace) -> None:
    """With exit code 5 the report is complete, and says what was seen instead."""
    loaded = document(build.report(seen=(("SQL statements", 1200),)))
    assert loaded["traces"] == []
    assert loaded["seen"] == [{"what": "SQL statements", "count": 1200}]


def test_between_and_damage_are_there(build: SimpleNamespace) -> None:
    """stopped_between is a pair; a capture tells why streams were not decoded and that it broke off."""
    verdict = replace(build.stuck(), stopped_at=None, stopped_between=("2", "7"))
    loaded = document(build.report(verdict, captures=[build.damaged()]))
    assert loaded["traces"][0]["stopped_between"] == ["2", "7"]
    assert loaded["captures"][0]["undecoded"] == {"tls": 2, "http2": 1}
    assert loaded["captures"][0]["broke_off"] is True


def test_a_trace_takes_one_line(build: SimpleNamespace) -> None:
    """A report of thousands can be cut with line tools."""
    first, second = render(build.report(build.conforming(1), build.conforming(2))).splitlines()[2:]
    assert json.loads(first.removesuffix(b","))["name"] == "web-1"
    assert json.loads(second.removesuffix(b"]}"))["name"] == "web-2"


@given(st.text(), st.sampled_from("\x7f\x9b\u061c\u200b\u200f\u2028\u202e\u2066\u2060\ufeff"))
def test_no_character_of_a_text_acts_and_none_is_lost(text: str, acting: str) -> None:
    """Escapes and directions of text are written as \\u escapes, which read back as what they are."""
    written = encoded({"name": text + acting})
    assert acting.encode() not in written
    assert json.loads(written) == {"name": text + acting}
