"""`tracer calls`: aligned text and JSON Lines."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

from tracer.model import CallRecord
from tracer.reports.calls import write_lines, write_text
from tracer.reports.json import call_members


def as_text(*records: CallRecord, color: bool = False) -> str:
    """The text of some calls."""
    file = io.StringIO()
    write_text(records, file, color)
    return file.getvalue()


def as_lines(*records: CallRecord) -> list[dict[str, object]]:
    """The JSON lines of some calls, parsed."""
    file = io.TextIOWrapper(io.BytesIO(), "utf-8")
    write_lines(records, file)
    file.seek(0)
    return [json.loads(line) for line in file]


def test_columns_are_aligned(build: SimpleNamespace) -> None:
    """Index, time of day, canonical line, duration, step, frame."""
    assert as_text(*build.flow()[:2]).splitlines() == [
        "      1  06:53:32.739  External_api REST admin > sc POST /sc/cloudhosts 202               "
        "                                  6.6 s  1    External_api.pcap#14",
        "      2  06:53:32.742  External_api REST sc > lb POST /v3/auth/tokens 201                 "
        "                                 394 ms       External_api.pcap#26",
    ]


def test_the_canonical_line_can_be_grepped(build: SimpleNamespace) -> None:
    """It stands in the text as it is matched by grammars."""
    for record in build.flow():
        assert f"  {record.line} " in as_text(record)


def test_a_failed_call_tells_its_error_in_red(build: SimpleNamespace) -> None:
    """Only where colours are on."""
    call = replace(build.flow()[0], result="503", error="no agent\x1b[2J")
    assert as_text(call).rstrip().endswith("no agent\\e[2J")
    assert "\x1b[31m" in as_text(call, color=True)
    assert "\x1b" not in as_text(call)


def test_lines_have_the_members_of_check_and_the_traces(build: SimpleNamespace) -> None:
    """One program can read both."""
    call = replace(build.flow()[0], traces=("req-1", "req-2"))
    [line] = as_lines(call)
    assert line.pop("traces") == ["req-1", "req-2"]
    assert line == call_members(call)


def test_calls_are_written_as_they_come(build: SimpleNamespace) -> None:
    """Nothing waits for the last call of a long capture."""
    file = io.StringIO()

    def records() -> Iterator[CallRecord]:
        for record in build.flow():
            yield record
            assert f" {record.operation} " in file.getvalue()

    write_text(records(), file)


def test_hostile_calls_are_a_line_each(build: SimpleNamespace) -> None:
    """In either format."""
    calls = build.hostile().calls
    assert len(as_text(*calls).splitlines()) == len(calls)
    assert len(as_lines(*calls)) == len(calls)


def test_an_action_is_told_behind_the_line(build: SimpleNamespace) -> None:
    """Which only the body holds: grammars see it at the end of the path."""
    line = "External_api REST sc > lb POST /v2.1/servers/{id}/action 202"
    assert as_text(build.record(1, 0, line, action="reboot")).rstrip().endswith("  (reboot)")
