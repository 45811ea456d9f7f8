"""Writes traces as OpenTelemetry spans: one for the creation, below it one for each step, then each call.

The callee of a call is the span's service, so Jaeger and similar tools draw services as if they were
instrumented. The trace id is the UUID of the request if there is one. All ids are derived from the report, so
a report that is sent twice gives one trace.
The format is OTLP/JSON (opentelemetry.io/docs/specs/otlp, "JSON Protobuf Encoding"), or HTTP to a collector.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tracer import __version__
from tracer.errors import TracerError, UsageError
from tracer.model import CallRecord, Report, StepResult, Verdict
from tracer.openstack.services import BROKER
from tracer.reports import plain, refused

__all__ = ["endpoint", "pieces", "send", "shown", "spans"]

_DATABASES = {"mysql": "mysql", "postgres": "postgresql"}
"""Name of a decoder -> OpenTelemetry's name of the database (semantic conventions, db.system.name)."""
_SCOPE = InstrumentationScope("tracer", __version__)
_UUID = re.compile(r"req-([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
_IDS = ("traceId", "spanId", "parentSpanId")
_BATCH = 512
_TIMEOUT_S = 10
"""Time for one batch, including retries."""
_COMPRESSIONS = ("OTEL_EXPORTER_OTLP_COMPRESSION", "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION")


def pieces(report: Report) -> Iterator[bytes]:
    """Yield lines with one OTLP/JSON object each, one for each trace, as collectors read them from a file."""
    for verdict in report.verdicts:
        message = MessageToDict(encode_spans(list(spans(verdict))), use_integers_for_enums=True)
        yield json.dumps(_hexadecimal(message), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    if not report.verdicts:
        yield b'{"resourceSpans":[]}\n'


def endpoint(url: str) -> str:
    """Return the URL for spans of the collector at *url*. Raises UsageError if it is no HTTP URL."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise UsageError(f"--otlp {url}: no address of a collector; write http://HOST:4318")
    return url if parts.path.strip("/") else f"{url.rstrip('/')}/v1/traces"


def send(report: Report, url: str) -> int:
    """Send all spans to a collector by HTTP; return their number. Raises TracerError if it refuses them.

    Compressed with gzip, which every collector accepts (OTLP/HTTP Request). The environment variables
    OTEL_EXPORTER_OTLP_HEADERS, …_CERTIFICATE and …_COMPRESSION apply, as for any exporter.
    """
    chosen = any(name in os.environ for name in _COMPRESSIONS)
    sent = 0
    with _reasons() as reasons:
        exporter = OTLPSpanExporter(
            endpoint=endpoint(url), timeout=_TIMEOUT_S, compression=None if chosen else Compression.Gzip
        )
        try:
            for verdict in report.verdicts:
                made = list(spans(verdict))
                for start in range(0, len(made), _BATCH):
                    batch = made[start : start + _BATCH]
                    if exporter.export(batch) is not SpanExportResult.SUCCESS:
                        raise TracerError(_refused(url, reasons, sent))
                    sent += len(batch)
        finally:
            exporter.shutdown()  # type: ignore[no-untyped-call]
    return sent


def shown(url: str) -> str:
    """Return the URL without a password, for messages."""
    return re.sub(r"//[^/@]*@", "//…@", url)


@contextmanager
def _reasons() -> Iterator[list[str]]:
    """Collect the exporter's reasons for failures, which it writes only to its log."""
    heard: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.WARNING:
                heard.append(record.getMessage())

    logger, listener = logging.getLogger("opentelemetry"), Listener()
    before = logger.propagate
    logger.addHandler(listener)
    logger.propagate = False
    try:
        yield heard
    finally:
        logger.removeHandler(listener)
        logger.propagate = before


_ANSWERED = re.compile(r"code: (\d{3}), reason: (.*)", re.DOTALL)
_SYSTEM = re.compile(r"\[Errno -?\d+\] ([\w ]+)")
_TRANSIENT = re.compile(r"Transient error (.*) encountered while", re.DOTALL)


def _refused(url: str, reasons: Sequence[str], sent: int) -> str:
    hint = "; 4317 is gRPC's port, OTLP over HTTP is at 4318" if urlsplit(url).port == 4317 else ""
    before = f" after {sent:,} of them" if sent else ""
    why = plain(_why(reasons), 300)
    return f"--otlp {shown(url)}: the collector did not accept the spans{before}: {why}{hint}"


def _why(reasons: Sequence[str]) -> str:
    """Return the exporter's reason, shortened; the last log line may only say that it gives up."""
    for words in reversed(reasons):
        if found := _ANSWERED.search(words):
            return f"it answered {found[1]} {found[2]}"
        if found := _SYSTEM.search(words):
            return found[1].strip()
        if "time" in words and "max retries or shutdown" not in words:
            return f"no answer within {_TIMEOUT_S} s"
        if found := _TRANSIENT.search(words):
            return found[1]
    return reasons[-1] if reasons else "no reason is known"


def spans(verdict: Verdict) -> Iterator[ReadableSpan]:
    """Yield the spans of one trace, each after its parent."""
    trace_id = _trace_id(verdict)
    root = _context(trace_id, "trace")
    steps = {step.step: step for step in verdict.steps if step.started_ns is not None}
    name = plain(verdict.name or verdict.id, 255)
    yield ReadableSpan(
        f"create {name}",
        root,
        None,
        _resource("cloudvm"),
        _attributes(
            ("tracer.trace", verdict.id),
            ("tracer.verdict", verdict.verdict),
            ("tracer.outcome", verdict.outcome),
            ("tracer.stopped_at", verdict.stopped_at),
            ("tracer.summary", verdict.summary),
            ("server.id", verdict.server_id),
            ("request.id", verdict.request_id),
            ("project.id", verdict.project_id),
            ("host.name", verdict.compute_host),
        ),
        tuple(_events(verdict)),
        kind=SpanKind.INTERNAL,
        status=_status(verdict.verdict == "deviates", verdict.summary),
        start_time=_time(verdict.started_ns),
        end_time=_time(max(verdict.ended_ns, verdict.started_ns)),
        instrumentation_scope=_SCOPE,
    )
    for step in steps.values():
        yield _step(step, trace_id, root)
    for call in verdict.calls:
        parent = _context(trace_id, f"step {call.step}") if call.step in steps else root
        yield _call(call, trace_id, parent)


def _step(step: StepResult, trace_id: int, root: SpanContext) -> ReadableSpan:
    started_ns = step.started_ns or 0
    return ReadableSpan(
        f"{step.step} {plain(step.title, 200)}",
        _context(trace_id, f"step {step.step}"),
        root,
        _resource("cloudvm"),
        _attributes(
            ("tracer.step", step.step), ("tracer.status", step.status), ("tracer.reason", step.reason)
        ),
        status=_status(step.status == "failed", step.reason or f"step {step.step} failed"),
        start_time=_time(started_ns),
        end_time=_time(started_ns + (step.duration_ns or 0)),
        instrumentation_scope=_SCOPE,
    )


def _call(call: CallRecord, trace_id: int, parent: SpanContext) -> ReadableSpan:
    method, _, path = call.operation.partition(" ")
    own: list[tuple[str, str | int | list[str] | None]] = []
    if call.protocol == "REST":
        own = [("http.request.method", method), ("url.path", path)]
        if call.result.isdigit():
            own.append(("http.response.status_code", int(call.result)))
    elif call.protocol == "RPC":
        own = [("messaging.system", BROKER), ("messaging.operation.name", method)]
        own += [("messaging.message.id", call.message_id), ("messaging.destination.name", call.queue)]
        own += [("rpc.method", path)]
    else:
        system = _DATABASES.get(call.spoken, "other_sql")
        own = [("db.system.name", system), ("db.operation.name", method), ("db.collection.name", path)]
    frames = [f"{plain(file, 400)}#{frame}" for file, frame in call.evidence]
    return ReadableSpan(
        plain(call.operation, 255),
        _context(trace_id, f"call {call.index}"),
        parent,
        _resource(call.callee),
        _attributes(
            *own,
            ("peer.service", call.caller),
            ("client.address", call.caller_address),
            ("server.address", call.callee_address),
            ("tracer.plane", call.plane),
            ("tracer.line", call.line),
            ("tracer.result", call.result),
            ("tracer.step", call.step),
            ("tracer.frames", frames),
            ("tracer.call", call.index),
            ("request.id", call.request_id),
        ),
        kind=SpanKind.CONSUMER if call.protocol == "RPC" else SpanKind.SERVER,
        status=_status(refused(call), call.error or call.result),
        start_time=_time(call.started_ns),
        end_time=_time(call.started_ns + (call.duration_ns or 0)),
        instrumentation_scope=_SCOPE,
    )


def _events(verdict: Verdict) -> Iterator[Event]:
    """Return the deviations as events, at the time of their call; without a call, at the end."""
    for each in verdict.deviations:
        yield Event(
            f"{each.kind} {each.step or ''}".rstrip(),
            _attributes(
                ("tracer.step", each.step),
                ("exception.message", each.message),
                ("tracer.expected", list(each.expected)),
            ),
            _time(each.call.started_ns if each.call else verdict.ended_ns),
        )


def _attributes(*pairs: tuple[str, str | int | list[str] | None]) -> dict[str, Any]:
    """Return the pairs that have a value, with texts escaped by `plain`."""
    return {
        key: plain(value, 2000) if isinstance(value, str) else value
        for key, value in pairs
        if value not in (None, "", [])
    }


def _status(failed: bool, words: str) -> Status:
    return Status(StatusCode.ERROR, plain(words, 1000)) if failed else Status(StatusCode.UNSET)


def _resource(service: str) -> Resource:
    return Resource({"service.name": plain(service, 120), "service.namespace": "cloudvm"})


def _time(time_ns: int) -> int:
    """Return a time clamped to 64 bits: a damaged capture may hold any."""
    return min(max(time_ns, 0), 2**64 - 1)


def _trace_id(verdict: Verdict) -> int:
    """Return the UUID of the request, by which users search; a digest if several VMs share the request."""
    uuid = _UUID.fullmatch(verdict.id)
    if uuid:
        return int(uuid[1].replace("-", ""), 16) or 1
    return int.from_bytes(hashlib.sha256(verdict.id.encode("utf-8", "replace")).digest()[:16], "big") or 1


def _context(trace_id: int, what: str) -> SpanContext:
    digest = hashlib.sha256(f"{trace_id:032x} {what}".encode()).digest()
    span_id = int.from_bytes(digest[:8], "big") or 1
    return SpanContext(trace_id, span_id, is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _hexadecimal(value: Any) -> Any:
    """Convert ids to hexadecimal: OTLP/JSON requires it, while Protobuf's own JSON has base64."""
    if isinstance(value, dict):
        return {
            key: base64.b64decode(inside).hex() if key in _IDS else _hexadecimal(inside)
            for key, inside in value.items()
        }
    if isinstance(value, list):
        return [_hexadecimal(inside) for inside in value]
    return value
