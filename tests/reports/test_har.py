"""The archive of REST calls, as a library for archives reads it."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import pytest

from tracer.reports import har

haralyzer = pytest.importorskip("haralyzer")


def test_a_library_reads_every_rest_call(build: SimpleNamespace) -> None:
    verdict = build.stopped_at_8b()
    archive = json.loads(b"".join(har.pieces(build.report(verdict, build.stuck()))))
    entries = haralyzer.HarParser(archive).pages[0].entries if archive["log"].get("pages") else None
    found = [haralyzer.HarEntry(entry) for entry in archive["log"]["entries"]]
    assert entries is None
    rest = {call.index: call for call in (*verdict.calls, *build.stuck().calls) if call.protocol == "REST"}
    assert len(found) == len(rest)
    for entry, call in zip(found, sorted(rest.values(), key=lambda call: call.index), strict=False):
        assert entry.request.method == call.operation.partition(" ")[0]
        assert str(entry.response.status).isdigit()
        assert entry.startTime == datetime.fromisoformat(entry.raw_entry["startedDateTime"])


def test_a_refused_connection_is_no_request_and_silence_has_status_0(build: SimpleNamespace) -> None:
    silent = replace(build.flow()[0], result="none", duration_ns=None)
    refused = build.record(99, 1, "Internal_base REST nova-compute > vrm CONNECT :7070 refused")
    report = build.report(replace(build.conforming(), calls=(silent, refused)))
    (entry,) = json.loads(b"".join(har.pieces(report)))["log"]["entries"]
    assert (entry["response"]["status"], entry["response"]["statusText"], entry["time"]) == (0, "none", 0)


def test_hostile_text_makes_no_address(build: SimpleNamespace) -> None:
    entries = json.loads(b"".join(har.pieces(build.report(build.hostile()))))["log"]["entries"]
    assert entries
    assert all(entry["request"]["url"].isascii() and " " not in entry["request"]["url"] for entry in entries)
