"""What operators ask: placement or a filter, late or never, queued or not acknowledged, nova's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab.judging import only, run

from tracer.model import Note, Verdict
from tracer.testing.cloud import Cloud


def told(verdict: Verdict, kind: str) -> list[Note]:
    return [note for note in verdict.notes if note.kind == kind]


# --- no valid host ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how, words, summary",
    [
        (
            "failure",
            "placement offered no host with VCPU 5000, MEMORY_MB 512:"
            " nova-scheduler's filters are not the cause",
            "placement offered no host with VCPU 5000",
        ),
        (
            "filtered",
            "placement offered 2 hosts with VCPU 5000, MEMORY_MB 512:"
            " nova-scheduler's filters refused, or claiming failed",
            "512 and nova-scheduler refused them all",
        ),
    ],
)
def test_no_valid_host_is_placement_or_a_filter(how: str, words: str, summary: str, tmp_path: Path) -> None:
    """The count in the answer of GET /allocation_candidates tells, and the note shows that call."""
    verdict = only(run(tmp_path, breaks={"6": how}))
    assert (verdict.stopped_at, verdict.deviations[0].peer) == ("6", "nova-scheduler")
    [note] = told(verdict, "placement")
    assert (note.step, note.message) == ("6", words)
    assert note.call is not None and note.call.operation == "GET /allocation_candidates"
    assert summary in verdict.summary


def test_placement_that_is_not_captured_is_not_guessed_at(tmp_path: Path) -> None:
    """Its traffic was filtered away: it may have been empty or not."""

    def without_placement(cloud: Cloud) -> None:
        cloud.network.events = [e for e in cloud.network.events if e[1].server[1] != 8778]

    verdict = only(run(tmp_path, breaks={"6": "failure"}, change=without_placement))
    [note] = told(verdict, "placement")
    assert note.message.startswith("placement's answer is not in the captures")
    assert "placement offered" not in verdict.summary


# --- the reply --------------------------------------------------------------------------------------


def test_a_reply_that_never_came(tmp_path: Path) -> None:
    """Method, caller and message id of the question, and when its caller gave up."""
    verdict = only(run(tmp_path, breaks={"6": "silent"}))
    [note] = told(verdict, "reply")
    assert note.call is not None and len(note.call.message_id) == 32
    what = f"call select_destinations of nova-conductor (message ID {note.call.message_id})"
    assert note.message == f"{what} was never answered; its caller gave up after 15.0 s"
    assert (verdict.outcome, verdict.stopped_at) == ("error", "6")


def test_a_reply_that_came_too_late(tmp_path: Path) -> None:
    """3 s behind the time-out: said, with the method that it belongs to; the creation failed all the same."""
    verdict = only(run(tmp_path, breaks={"6": "late"}))
    assert (verdict.outcome, verdict.stopped_at) == ("error", "6")
    assert "select_destinations was answered by nova-scheduler only after 18.0 s; the VM" in verdict.summary
    [note] = told(verdict, "reply")
    assert note.call is not None
    what = f"call select_destinations of nova-conductor (message ID {note.call.message_id})"
    assert note.message == f"{what} was answered after 18.0 s, 3 s too late: its caller had given up"


@pytest.mark.parametrize("breaks", [{}, {"6": "failure"}, {"8b": "503"}])
def test_a_reply_in_time_is_no_news(breaks: dict[str, str], tmp_path: Path) -> None:
    """Every call was answered: nothing is said of replies."""
    how: dict[str, Any] = {"hosts": ({"compute1": breaks},)} if "8b" in breaks else {"breaks": breaks}
    assert told(only(run(tmp_path, **how)), "reply") == []


# --- the broker -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "breaks, step, words, summary",
    [
        (
            {"4e": "undelivered"},
            "4e",
            "cast schedule_and_build_instances of nova-api waits in queue conductor: no consumer took it",
            "never delivered: no consumer took it from the queue",
        ),
        (
            {"4e": "unacked"},
            "4e",
            "cast schedule_and_build_instances of nova-api was delivered to nova-conductor (172.28.0.21)"
            " from queue conductor and not acknowledged",
            "was delivered and not acknowledged",
        ),
        (
            {"4e": "unroutable 202"},
            "4e",
            "cast schedule_and_build_instances of nova-api went to conductor:"
            " no queue is bound for it, the broker returned it",
            "could not be routed: no queue is bound for it",
        ),
    ],
)
def test_what_the_broker_did_with_the_last_message(
    breaks: dict[str, str], step: str, words: str, summary: str, tmp_path: Path
) -> None:
    """Queued, not acknowledged or not routed: in the first line, and as a note with the call."""
    verdict = only(run(tmp_path, breaks=breaks))
    [note] = told(verdict, "broker")
    assert (note.step, note.message) == (step, words)
    assert note.call is not None and note.call.queue == "conductor"
    assert summary in verdict.summary
    assert verdict.deviations[0].cause


def test_acknowledged_and_then_nothing(tmp_path: Path) -> None:
    """The broker has done its part: said in the first line, and the host that owes the next step."""
    verdict = only(run(tmp_path, hosts=({"compute1": {"7": "silence"}},)))
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", "8b")
    assert told(verdict, "broker") == []
    assert verdict.summary.endswith(
        "owed by nova-compute on compute1:"
        " cast build_and_run_instance was delivered and acknowledged, then silence"
    )
    assert verdict.deviations[0].peer == "nova-compute"


# --- nova's own words -------------------------------------------------------------------------------


def test_what_nova_recorded(tmp_path: Path) -> None:
    """The fault in the database is quoted, and the error where nothing else says why."""
    verdict = only(run(tmp_path, breaks={"6": "silent"}))
    [note] = told(verdict, "fault")
    assert note.message.startswith("nova recorded: Timed out: no reply to message ID ")
    assert note.message.removeprefix("nova recorded: ") in verdict.deviations[0].message
    assert verdict.deviations[0].cause == note.message.removeprefix("nova recorded: ")


def test_a_good_creation_needs_no_answer(tmp_path: Path) -> None:
    """Nothing of all this is said of a VM that is active."""
    verdict = only(run(tmp_path))
    assert {note.kind for note in verdict.notes} <= {"mode"}
