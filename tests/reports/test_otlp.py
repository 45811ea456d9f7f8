"""Spans, as the official packages read them: from the file, and from the wire."""

from __future__ import annotations

import base64
import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from tracer.cli import main
from tracer.errors import TracerError
from tracer.model import Report
from tracer.reports import otlp

ERROR = 2
"""StatusCode of a span that failed."""


def decoded(report: Report) -> list[ExportTraceServiceRequest]:
    """The file's lines in the official decoder, which has ids in base64."""

    def standard(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: base64.b64encode(bytes.fromhex(inside)).decode()
                if key in ("traceId", "spanId", "parentSpanId")
                else standard(inside)
                for key, inside in value.items()
            }
        return [standard(inside) for inside in value] if isinstance(value, list) else value

    lines = b"".join(otlp.pieces(report)).splitlines()
    return [ParseDict(standard(json.loads(line)), ExportTraceServiceRequest()) for line in lines]


def by_id(message: ExportTraceServiceRequest) -> dict[bytes, tuple[str, Any]]:
    """Service and span of each span's id."""
    return {
        span.span_id: (resource.resource.attributes[0].value.string_value, span)
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }


def test_a_span_for_each_call_under_its_step_under_the_trace(build: SimpleNamespace) -> None:
    verdict = build.conforming()
    (message,) = decoded(build.report(verdict))
    spans = by_id(message)
    roots = [span for _, span in spans.values() if not span.parent_span_id]
    assert [span.name for span in roots] == ["create web-1"]
    seen = {step.step for step in verdict.steps if step.calls}
    assert len(spans) == 1 + len(seen) + len(verdict.calls)
    for call in verdict.calls:
        service, span = next(
            (service, span)
            for service, span in spans.values()
            if any(a.key == "tracer.call" and a.value.int_value == call.index for a in span.attributes)
        )
        parent = spans[span.parent_span_id][1]
        assert service == call.callee
        assert parent.name.partition(" ")[0] == (call.step or "create")
        assert span.start_time_unix_nano == call.started_ns
        assert span.end_time_unix_nano == call.started_ns + call.duration_ns


def test_ids_are_those_of_the_request_and_the_same_in_every_run(build: SimpleNamespace) -> None:
    verdict = build.stopped_at_8b()
    first, second = (decoded(build.report(verdict))[0] for _ in range(2))
    assert first == second
    assert {span.trace_id.hex() for _, span in by_id(first).values()} == {"da31b12ef49d4bbf83a221ef1429fb6c"}
    several = [replace(verdict, id=f"{verdict.request_id}/{n}") for n in "12"]
    ids = [{span.trace_id for _, span in by_id(m).values()} for m in decoded(build.report(*several))]
    assert [len(found) for found in ids] == [1, 1]
    assert ids[0] != ids[1]


def test_deviations_are_events_and_status(build: SimpleNamespace) -> None:
    verdict = build.stopped_at_8b()
    spans = by_id(decoded(build.report(verdict))[0]).values()
    root = next(span for _, span in spans if not span.parent_span_id)
    assert [(event.name, event.time_unix_nano) for event in root.events] == [
        ("failed 8b", verdict.calls[-1].started_ns)
    ]
    failed = {span.name for _, span in spans if span.status.code == ERROR}
    assert failed == {"create web-1", "8b applies for network", "POST /v2.0/ports"}


def test_hostile_text_and_times_are_taken(build: SimpleNamespace) -> None:
    verdict = build.hostile()
    verdict = replace(verdict, calls=(replace(verdict.calls[0], started_ns=2**70), *verdict.calls[1:]))
    (message,) = decoded(build.report(verdict))
    assert not re.search(r"[\x00-\x1f\u202e]", str(by_id(message)[next(iter(by_id(message)))][1].name))


@contextmanager
def collector(*statuses: int) -> Iterator[tuple[str, list[ExportTraceServiceRequest], list[str]]]:
    """A collector of the official messages, over HTTP: its address, what it took, and how that was encoded.

    It answers with the *statuses* in turn, then with 200, and takes what it answers 200 to.
    """
    received: list[ExportTraceServiceRequest] = []
    encodings: list[str] = []
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            encodings.append(self.headers.get("Content-Encoding", ""))
            if encodings[-1] == "gzip":
                body = gzip.decompress(body)
            status = left.pop(0) if left else 200
            right = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
            if status == 200 and right:
                received.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", received, encodings
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("path", ["", "/", "/v1/traces"])
def test_a_collector_gets_what_the_file_holds(build: SimpleNamespace, path: str) -> None:
    report = build.report(build.stopped_at_8b(), build.rescheduled())
    with collector() as (url, received, encodings):
        sent = otlp.send(report, url + path)
    inside = {key for message in received for key in by_id(message)}
    assert inside == {key for message in decoded(report) for key in by_id(message)}
    assert sent == len(inside)
    assert set(encodings) == {"gzip"}


def test_the_environment_chooses_the_compression(
    build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    with collector() as (url, received, encodings):
        otlp.send(build.report(build.conforming()), url)
    assert received
    assert set(encodings) == {""}


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_collector_that_is_busy_is_asked_again(build: SimpleNamespace, status: int) -> None:
    report = build.report(build.conforming())
    with collector(status, status) as (url, received, encodings):
        sent = otlp.send(report, url)
    assert len(encodings) == len(received) + 2
    assert sum(len(by_id(message)) for message in received) == sent


@pytest.mark.parametrize("status", [400, 401, 404, 500])
def test_a_collector_that_refuses_is_an_error(build: SimpleNamespace, status: int) -> None:
    with (
        collector(status) as (url, received, encodings),
        pytest.raises(TracerError, match=f"did not accept the spans: it answered {status} "),
    ):
        otlp.send(build.report(build.conforming()), url)
    assert (received, len(encodings)) == ([], 1)


def test_a_collector_that_is_not_there_is_an_error(
    build: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, and without the password of its address."""
    monkeypatch.setattr(otlp, "_TIMEOUT_S", 1.5)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TracerError, match=r"^--otlp http://…@127\.0\.0\.1:\d+: .*: Connection refused$"):
        otlp.send(build.report(build.conforming()), f"http://user:Geheim@127.0.0.1:{port}")


@pytest.mark.parametrize("url", ["localhost:4318", "ftp://x", "http://[::1", "http://", "http://x:0", "x"])
def test_what_is_no_address_is_said_before_the_work(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["check", "no-such-capture.pcap", "--otlp", url])
    assert end.value.code == 2
    assert "no address of a collector; write http://HOST:4318" in capsys.readouterr().err


def test_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    with collector() as (url, received, _), pytest.raises(SystemExit) as end:
        main(["check", "example:fail-quota-403", "--otlp", url])
    assert end.value.code == 1
    assert "sent" in capsys.readouterr().err
    assert sum(len(by_id(message)) for message in received) > 50


def test_a_collector_that_fails_costs_no_report(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with collector(400) as (url, _, __), pytest.raises(SystemExit) as end:
        main(["check", "example:fail-400", "--otlp", url, "--format", "json"])
    assert end.value.code == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["summary"]["traces"] == 1
    assert told.err.count("\n") == 1
