"""Writes the report as JSON, schema `tracer.check/1`: public API.

There is one trace per line, so that line tools can search and cut a report of thousands of traces. Each trace
is encoded separately: memory is needed for one of them at a time.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from tracer.model import Attempt, CallRecord, Capture, Dark, Deviation, Note, Report, StepResult, Verdict
from tracer.model.second import CrossCheck
from tracer.reports import cross_check, timestamp
from tracer.reports.clusters import Cluster, clusters

__all__ = ["SCHEMA", "call_members", "encoded", "pieces", "render"]

SCHEMA = "tracer.check/1"
_NAME_LIMIT = 255
_TEXT_LIMIT = 4096

_ACTING = re.compile(
    rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8b-\x8f\xa8-\xae]|\xe2\x81[\xa0-\xaf]|\xef\xbb\xbf"
)
"""In UTF-8: what acts on a terminal or an editor, and that JSON need not escape: C1 controls, directions
of text (UAX 9), zero widths, line separators."""
_plain_encode = msgspec.json.Encoder().encode


def encoded(value: object) -> bytes:
    """Return *value* as JSON in which no character acts: it reads back as the same value."""
    content = _plain_encode(value)
    if content.isascii() and b"\x7f" not in content:
        return content
    return _ACTING.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), content)


def render(report: Report) -> bytes:
    """Return the whole report as one JSON document with a line feed at its end."""
    return b"".join(pieces(report))


def pieces(report: Report) -> Iterator[bytes]:
    """Yield the document in parts, one for each trace: for writing a large report as it is made."""
    yield encoded(_head(report))[:-1] + b',\n"traces": ['
    for position, verdict in enumerate(report.verdicts):
        yield (b",\n" if position else b"\n") + encoded(_trace(verdict))
    yield b"]}\n"


def _head(report: Report) -> dict[str, Any]:
    counts = Counter(verdict.verdict for verdict in report.verdicts)
    head: dict[str, Any] = {"schema": SCHEMA, "grammar": _text(report.grammar)}
    if report.grammar_reason:
        head["grammar_reason"] = _text(report.grammar_reason)
    if report.partial:
        head["partial"] = True
    head["summary"] = {
        "traces": len(report.verdicts),
        "conforms": counts["conforms"],
        "deviates": counts["deviates"],
        "inconclusive": counts["inconclusive"],
        "outcomes": dict(sorted(Counter(verdict.outcome for verdict in report.verdicts).items())),
    }
    if report.baseline:
        head["baseline"] = {"path": _text(report.baseline[0]), "traces": report.baseline[1]}
    head["clusters"] = [_cluster(cluster) for cluster in clusters(report.verdicts)]
    head["captures"] = [_capture(capture) for capture in report.captures]
    clocks = [_clock(capture, report.captures) for capture in report.captures if not capture.clock.is_right]
    if clocks:
        head["clocks"] = clocks
    head["seen"] = [{"what": _text(words), "count": count} for words, count in report.seen]
    if report.internal_errors:
        head["internal_errors"] = {_text(what): count for what, count in report.internal_errors}
    if report.cross_check is not None:
        head["cross_check"] = _cross_check(report.cross_check)
    head["forgotten"] = {_text(what): count for what, count in report.forgotten}
    if report.remarks:
        head["remarks"] = [_text(words) for words in report.remarks]
    if report.dark:
        head["dark"] = [_dark(group) for group in report.dark]
    head["advice"] = [_text(words) for words in report.advice]
    return head


def _cross_check(found: CrossCheck) -> dict[str, Any]:
    head = cross_check.members(found)
    for each in head["differences"]:
        for example in each["examples"]:
            for who, call in example.items():
                example[who] = call_members(call) if call is not None else None
    return head


def _dark(group: Dark) -> dict[str, Any]:
    return {
        "plane": _or_null(group.plane),
        "caller": _or_null(group.caller.removesuffix("?")),
        "callee": _or_null(group.callee.removesuffix("?")),
        "port": group.port or None,
        "connections": group.connections,
        "steps": list(group.steps),
    }


def _cluster(cluster: Cluster) -> dict[str, Any]:
    return {
        "count": len(cluster.verdicts),
        "outcome": cluster.outcome,
        "kind": cluster.kind,
        "step": cluster.step,
        "between": list(cluster.between) if cluster.between else None,
        "peer": _or_null(cluster.peer),
        "error": _or_null(cluster.cause),
        "compute_hosts": {_text(host): count for host, count in cluster.hosts.most_common()},
        "traces": [_text(verdict.id) for verdict in cluster.verdicts],
    }


def _capture(capture: Capture) -> dict[str, Any]:
    planes = sorted(capture.planes) or ([capture.plane] if capture.plane else [])
    return {
        "path": _text(capture.path),
        "planes": [_text(plane) for plane in planes],
        "packets": capture.packets,
        "bytes": capture.size_bytes,
        "first": timestamp(capture.first_ns),
        "last": timestamp(capture.last_ns),
        "calls": capture.calls,
        "skipped_statements": capture.skipped_statements,
        "truncated_packets": capture.truncated_packets,
        "duplicate_segments": capture.duplicate_segments,
        "reordered_segments": capture.reordered_segments,
        "gaps": capture.gaps,
        "lost_bytes": capture.lost_bytes,
        "undecoded_streams": capture.undecoded_streams,
        "undecoded": _counts(capture.undecoded),
        "anomalies": _counts(capture.anomalies),
        "broke_off": capture.broke_off,
    }


def _clock(capture: Capture, captures: Sequence[Capture]) -> dict[str, Any]:
    clock = capture.clock
    least_ns, most_ns = clock.range_ahead_ns
    compared = clock.reference is not None
    return {
        "path": _text(capture.path),
        "given_ms": None if clock.given_ns is None else clock.given_ns / 1e6,
        "reference": _text(captures[clock.reference].path) if clock.reference is not None else None,
        "ahead_ms": [least_ns / 1e6, most_ns / 1e6] if compared else None,
        "pairs": clock.pairs if compared else None,
        "uncertain_ms": clock.uncertain_ns / 1e6 if compared and clock.is_bounded else None,
        "steps_back": clock.steps_back,
    }


def _trace(verdict: Verdict) -> dict[str, Any]:
    return {
        "id": _text(verdict.id),
        "request_id": _or_null(verdict.request_id),
        "server_id": _or_null(verdict.server_id),
        "project_id": _or_null(verdict.project_id),
        "name": _or_null(verdict.name, _NAME_LIMIT),
        "grammar": _or_null(verdict.grammar),
        "verdict": verdict.verdict,
        "outcome": verdict.outcome,
        "stopped_at": verdict.stopped_at,
        "stopped_between": list(verdict.stopped_between) if verdict.stopped_between else None,
        "api_host": _or_null(verdict.api_host),
        "compute_host": _or_null(verdict.compute_host),
        "attempts": [_text(host) for host in verdict.attempts],
        "attempt_details": [_attempt(attempt) for attempt in verdict.attempt_details],
        "started": timestamp(verdict.captured_ns),
        "ended": timestamp(verdict.captured_end_ns),
        "duration_ms": _ms(verdict.ended_ns - verdict.started_ns),
        "summary": _text(verdict.summary),
        "steps": [_step(step) for step in verdict.steps],
        "deviations": [_deviation(deviation) for deviation in verdict.deviations],
        "notes": [_note(note) for note in verdict.notes],
        "log_ids": [{"service": _text(service), "id": _text(key)} for service, key in verdict.log_ids],
        "calls": [call_members(call) for call in verdict.calls],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "host": _text(attempt.host),
        "stopped_at": attempt.stopped_at,
        "error": _or_null(attempt.error),
        "started": timestamp(attempt.captured_ns),
        "duration_ms": _ms(attempt.duration_ns),
        "steps": [_step(step) for step in attempt.steps],
    }


def _step(step: StepResult) -> dict[str, Any]:
    return {
        "step": step.step,
        "title": _text(step.title),
        "status": step.status,
        "started": timestamp(step.captured_ns),
        "duration_ms": _ms(step.duration_ns),
        "waited_ms": _ms(step.waited_ns),
        "usual_ms": _ms(step.usual_ns),
        "usual_p95_ms": _ms(step.usual_p95_ns),
        "calls": [call.index for call in step.calls],
        "reason": _or_null(step.reason),
    }


def _deviation(deviation: Deviation) -> dict[str, Any]:
    return {
        "kind": deviation.kind,
        "step": deviation.step,
        "message": _text(deviation.message),
        "call": deviation.call.index if deviation.call else None,
        "expected": [_text(line) for line in deviation.expected],
        "peer": _or_null(deviation.peer),
        "cause": _or_null(deviation.cause),
    }


def _note(note: Note) -> dict[str, Any]:
    return {
        "kind": note.kind,
        "step": note.step,
        "message": _text(note.message),
        "call": note.call.index if note.call else None,
    }


def call_members(call: CallRecord) -> dict[str, Any]:
    """Return the members of one call's object, the same in `check` and in `calls`."""
    return {
        "index": call.index,
        "plane": _text(call.plane),
        "protocol": call.protocol,
        "caller": _text(call.caller),
        "callee": _text(call.callee),
        "operation": _text(call.operation),
        "result": _text(call.result),
        "line": _text(call.line),
        "started": timestamp(call.captured_ns),
        "duration_ms": _ms(call.duration_ns),
        "step": call.step,
        "ambiguous": call.ambiguous,
        "action": _or_null(call.action),
        "evidence": [{"path": _text(path), "frame": frame} for path, frame in call.evidence],
        "error": _or_null(call.error),
        "via": _or_null(call.via),
        "caller_address": _or_null(call.caller_address),
        "callee_address": _or_null(call.callee_address),
        "request_id": _or_null(call.request_id),
        "message_id": _or_null(call.message_id),
        "queue": _or_null(call.queue),
    }


def _ms(duration_ns: int | None) -> float | None:
    return None if duration_ns is None else round(duration_ns / 1_000_000, 1)


def _or_null(text: str | None, limit: int = _TEXT_LIMIT) -> str | None:
    return _text(text, limit) if text else None


def _text(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Return *text* with lone surrogates escaped (undecodable bytes of a path): UTF-8 cannot encode them."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _counts(counter: Counter[str]) -> dict[str, int]:
    return {_text(words): count for words, count in counter.most_common()}
