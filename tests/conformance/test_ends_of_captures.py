"""What may be said of a creation that a capture ends in the middle of: no more than was seen.

Shipped captures, each cut off at a time of day.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from lab import damage, harms
from lab.captures import SHARED, needs_shared
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


# --- what has not come yet, and what nobody saw ---------------------------------------------------------


def test_storage_that_may_still_come_is_not_missing(tmp_path: Path) -> None:
    """8a and 8b run side by side: that 8b is owed says nothing of 8a, though a volume is asked for."""
    start = cut(tmp_path, "ok-volume").started_ns
    for after_ms in range(0, 12_000, 750):
        end = f"{datetime.fromtimestamp(start / 1e9 + after_ms / 1e3, tz=UTC):%H:%M:%S.%f}"
        verdict = cut(tmp_path, "ok-volume", External_api=end, Internal_base=end) if after_ms else None
        assert verdict is None or verdict.deviations == (), (after_ms, verdict.summary)


def test_a_message_behind_which_the_capture_ends_was_perhaps_taken(tmp_path: Path) -> None:
    """External_api shows the error; what came of 4e is behind the end of Internal_base."""
    whole = cut(tmp_path, "fail-no-valid-host")
    sent_ns = next(s.started_ns for s in whole.steps if s.step == "4e")
    assert sent_ns is not None
    end = f"{datetime.fromtimestamp(sent_ns / 1e9 + 0.001, tz=UTC):%H:%M:%S.%f}"
    verdict = cut(tmp_path, "fail-no-valid-host", Internal_base=end)
    assert (verdict.outcome, verdict.stopped_at) == ("error", None)
    assert verdict.stopped_between is not None


def test_a_request_of_the_host_is_no_order_at_the_portal(tmp_path: Path) -> None:
    """The VRM refused a host, and the capture begins behind the request: another host built the VM."""
    whole = cut(tmp_path, "fail-vrm-500-reschedule")
    sent_ns = next(s.started_ns for s in whole.steps if s.step == "4e")
    assert sent_ns is not None
    paths = []
    for plane in (EXTERNAL, INTERNAL):
        source = str(CAPTURES / "fail-vrm-500-reschedule" / f"{plane}.pcap.zst")
        batches = open_capture(source, Capture(0, source, plane))
        path = tmp_path / f"{plane}.pcap"
        path.write_bytes(
            pcap([(p[0], p[1]) for b in batches for p in b if 0 < p[0] - sent_ns < 2_000_000_000])
        )
        paths.append(str(path))
    verdict = only(engine.check(paths, Settings()))
    assert verdict.outcome != "rejected"
    assert verdict.deviations == ()


def test_without_times_no_order_is_judged(tmp_path: Path) -> None:
    """All packets of a file at 0: no step is late, missing or out of order, and a warning says why."""
    for plane in (EXTERNAL, INTERNAL):
        source = str(CAPTURES / "ok-image" / f"{plane}.pcap.zst")
        batches = open_capture(source, Capture(0, source, plane))
        (tmp_path / f"{plane}.pcap").write_bytes(pcap([(0, p[1]) for b in batches for p in b]))
    report = engine.check([str(tmp_path)], Settings())
    assert all(verdict.deviations == () for verdict in report.verdicts), [v.summary for v in report.verdicts]
    assert any("have the same time" in warning for warning in report.remarks)
    assert not any("±" in warning for warning in report.remarks)


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


@needs_shared
@pytest.mark.parametrize("share", [0.02, 0.05, 0.08, 0.2, 0.35, 0.65])
def test_where_the_last_host_stopped_is_not_known_behind_the_end_of_its_plane(
    share: float, tmp_path: Path
) -> None:
    """External_api goes on and shows the error: the state that was saved last names no step."""
    folder = SHARED / "quorum-fail-vrm-500-all"
    whole = only(engine.check([str(folder)], Settings()))
    second = whole.attempt_details[1]
    assert (whole.stopped_at, second.stopped_at) == ("8c", "8c")
    end_ns = second.started_ns + int((whole.ended_ns - second.started_ns) * share)
    files = harms.read(folder)
    link, packets = files["Internal_base"]
    harms.Harmed("", files | {"Internal_base": (link, damage.until(packets, end_ns))}).write(tmp_path)
    verdict = only(engine.check([str(tmp_path)], Settings()))
    assert (verdict.outcome, verdict.deviations[0].kind) == ("error", "failed")
    assert verdict.stopped_at in ("8c", None)


@needs_shared
@pytest.mark.parametrize("plane", [EXTERNAL, INTERNAL])
def test_a_creation_whose_202_is_lost_conforms_all_the_same(plane: str, tmp_path: Path) -> None:
    """In a cloud without a load balancer there is no second leg that would show the answer."""
    folder = SHARED / "nolb-ok-image-midstream"
    files = harms.read(folder)
    link, packets = files[plane]
    kept = [packet for packet in packets if b"HTTP/1.1 202" not in packet[1]]
    assert len(kept) == len(packets) - 1
    harms.Harmed("", files | {plane: (link, kept)}).write(tmp_path)
    verdict = only(engine.check([str(tmp_path)], Settings()))
    assert (verdict.verdict, verdict.outcome) == ("conforms", "active")
