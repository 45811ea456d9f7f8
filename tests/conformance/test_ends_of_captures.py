"""What may be said of a creation that a capture ends in the middle of: no more than was seen.

Shipped captures, each cut off at a time of day.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.judging import only, statuses

from tracer import engine
from tracer.capture import open_capture
from tracer.engine import Settings
from tracer.model import Capture, Note, Verdict
from tracer.reports import nanoseconds
from tracer.testing.packets import pcap

CAPTURES = Path(__file__).parents[2] / "captures"
EXTERNAL, INTERNAL = "External_api", "Internal_base"


def cut(folder: Path, name: str, day: str = "", **ends: str) -> Verdict:
    """The verdict on *name*, whose planes end at a time of that day each."""
    paths = []
    for number, plane in enumerate((EXTERNAL, INTERNAL)):
        source = str(CAPTURES / name / f"{plane}.pcap.zst")
        until_ns = nanoseconds(f"2026-11-22T{ends[plane]}Z") if plane in ends else 1 << 62
        batches = open_capture(source, Capture(number, source, plane))
        kept = [(packet[0], packet[1]) for batch in batches for packet in batch if packet[0] < until_ns]
        path = folder / f"{plane}.pcap"
        path.write_bytes(pcap(kept))
        paths.append(str(path))
    return only(engine.check(paths, Settings()))


def told(verdict: Verdict, kind: str) -> list[Note]:
    return [note for note in verdict.notes if note.kind == kind]


# --- the host -----------------------------------------------------------------------------------------


def test_who_built_it_is_not_known_where_the_capture_ends_before(tmp_path: Path) -> None:
    """compute2 was asked, and failed behind the end; that compute1 built it only the whole capture shows."""
    verdict = cut(tmp_path, "fail-vrm-500-reschedule", Internal_base="07:10:14.0")
    assert (verdict.outcome, verdict.verdict) == ("active", "inconclusive")
    words = "asked compute2; Internal_base ends at +1.3 s, so the host that built it is unknown"
    assert words in verdict.summary
    assert "on compute2" not in verdict.summary
    assert [note.message for note in told(verdict, "host")] == [words]
    assert verdict.attempts == ("compute2",)


def test_who_built_it_is_known_when_its_start_was_seen(tmp_path: Path) -> None:
    """The VRM took the start of the last host. Of the one before it is told who failed it, and how."""
    whole = cut(tmp_path, "fail-vrm-500-reschedule")
    assert "active on compute1" in whole.summary
    assert not told(whole, "host")
    [retry] = [note for note in told(whole, "retry") if note.message.startswith("rescheduled")]
    assert retry.message == (
        "rescheduled: compute2 failed at 8c: vrm answered 500: lab: internal error; compute1 built it"
    )


# --- what fails so far ----------------------------------------------------------------------------------


def test_refused_connections_are_told_before_they_are_given_up(tmp_path: Path) -> None:
    """Not unfinished alone, and no step that went well: neutron-server refuses, nova-compute asks again."""
    verdict = cut(tmp_path, "fail-neutron-down-midway", External_api="07:06:57.9", Internal_base="07:06:57.9")
    assert (verdict.outcome, verdict.stopped_at, verdict.verdict) == ("unfinished", "8b", "inconclusive")
    assert statuses(verdict)["8b"] == "failed"
    assert verdict.summary.startswith("unfinished: the capture ends before step 8b: neutron-server refused ")
    assert verdict.summary.endswith(" so far")


# --- silence --------------------------------------------------------------------------------------------


def test_silence_is_told_before_the_stall_limit() -> None:
    """Who has not taken the message, for how long, and which --stall would call that stuck."""
    paths = [str(CAPTURES / "fail-conductor-down")]
    verdict = only(engine.check(paths, Settings()))
    assert verdict.summary == (
        "unfinished: the capture ends before step 5: nova-conductor has not taken the message for 27 s;"
        " --stall 20 would report it as stuck"
    )
    assert only(engine.check(paths, Settings(stall_s=20))).outcome == "stuck"
    [broker] = told(verdict, "broker")
    assert broker.message.endswith("no consumer took it in the 27.0 s captured")


@pytest.mark.parametrize(
    "end, external, words",
    [
        ("07:04:03.0", "07:04:03.0", "was not answered in the 8.5 s captured"),
        ("07:03:54.0", "", "was not answered in the 93 ms captured; its caller gave up after at most 16.0 s"),
    ],
)
def test_never_is_not_said_of_a_few_seconds(end: str, external: str, words: str, tmp_path: Path) -> None:
    """A reply may come behind the end; a poll shows that the VM is in error, not since when."""
    ends = {INTERNAL: end} | ({EXTERNAL: external} if external else {})
    verdict = cut(tmp_path, "fail-scheduler-down", **ends)
    [reply] = told(verdict, "reply")
    assert reply.message.endswith(words)
    assert "never" not in reply.message
