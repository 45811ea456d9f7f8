"""Writes the REST calls of all traces as an HTTP Archive (HAR 1.2), for the network view of browsers.

It holds only what a report holds: no headers and no bodies, ids in paths as `{id}`, and unknown sizes (-1). A
call of several traces occurs once. A call without an answer has status 0, as browsers write it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import quote

import harfile

from tracer import __version__
from tracer.model import CallRecord, Report
from tracer.reports import plain, timestamp

__all__ = ["pieces"]

_PATH_LIMIT = 1000


def pieces(report: Report) -> Iterator[bytes]:
    """Yield the archive in parts, one for each trace."""
    text = io.StringIO()
    written: set[int] = set()
    with harfile.HarFile(text, creator=harfile.Creator(name="tracer", version=__version__)) as archive:
        for verdict in report.verdicts:
            for call in verdict.calls:
                if call.protocol == "REST" and "/" in call.operation and call.index not in written:
                    written.add(call.index)
                    _write(archive, call)
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    yield text.getvalue().encode() + b"\n"


def _write(archive: harfile.HarFile, call: CallRecord) -> None:
    method, _, path = call.operation.partition(" ")
    took_ms = -1 if call.duration_ns is None else round(call.duration_ns / 1e6, 3)
    answered = call.result.isdigit()
    host = plain(call.callee_address or call.callee, 120)
    frames = ", ".join(f"{plain(file, 200)}#{frame}" for file, frame in call.evidence)
    archive.add_entry(
        startedDateTime=timestamp(call.captured_ns) or "1970-01-01T00:00:00Z",
        time=max(took_ms, 0),
        request=harfile.Request(
            method=plain(method, 20),
            url=f"http://{quote(host, safe=':[].')}{quote(plain(path, _PATH_LIMIT), safe='/{}')}",
            httpVersion="HTTP/1.1",
        ),
        response=harfile.Response(
            status=int(call.result) if answered else 0,
            statusText=_reason(call.result) if answered else plain(call.result, 60),
            httpVersion="HTTP/1.1",
        ),
        timings=harfile.Timings(send=0, wait=max(took_ms, 0), receive=0),
        comment=f"{f'step {call.step}: ' if call.step else ''}{plain(call.line, 1400)} ({frames})",
    )


def _reason(status: str) -> str:
    try:
        return HTTPStatus(int(status)).phrase
    except ValueError:
        return ""
