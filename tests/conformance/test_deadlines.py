"""Deadlines that a grammar states: when a step is late, and when nothing of the kind may be said."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from lab.judging import judge, kinds, only, run, statuses

from tracer.engine import Settings
from tracer.model import Report
from tracer.reports import json as report_json
from tracer.testing.cloud import Cloud
from tracer.testing.creation import Creation

STEPS = {
    "4a": ("inferred", "AUTHENTICATE", "AUTHENTICATE*"),
    "6": ("", "HOST_SELECTED", "HOST_SELECTED"),
    "8b": ("", "NETWORK_REST", "NETWORK_REST+"),
    "8c": ("", "VM_CREATE, VM_TASK, VM_START", "VM_CREATE (VM_TASK | VM_START)*"),
}


def grammar(folder: Path, step: str, within: str) -> str:
    """The documented creation with a deadline for one step."""
    _, imported, body = STEPS[step]
    path = folder / "mine.lark"
    path.write_text(
        f"// With a deadline\n%import cloudvm_create (start, begins, harmless, step_{step}, {imported})\n"
        f"%override step_{step}: {within}{{body}} // in time\nbody: {body}\n{within}{{x}}: x\n",
        encoding="utf-8",
    )
    return str(path)


CASES = [
    # The clock of 8c runs from the end of 8b to the end of its last call: 0.7 s in this traffic.
    ("8c", "within_5s", []),
    ("8c", "within_1min", []),
    ("8c", "within_200ms", [("late", "8c")]),
    ("6", "within_1s", []),
    ("6", "within_1ms", [("late", "6")]),
    ("4a", "within_5ms", [("late", "4a")]),
]


@pytest.mark.parametrize("step, within, found", CASES)
def test_a_slow_step_is_late(step: str, within: str, found: list[tuple[str, str]], tmp_path: Path) -> None:
    """One deviation of kind late; the outcome and the status of the step stay what they are."""
    settings = Settings(grammar=grammar(tmp_path, step, within))
    verdict = only(run(tmp_path, settings=settings))
    assert (kinds(verdict), verdict.outcome) == (found, "active")
    assert verdict.verdict == ("deviates" if found else "conforms")
    assert statuses(verdict)[step] == "seen"


def test_it_is_told_in_words_and_in_json(tmp_path: Path) -> None:
    """With the time that it took, since when, the deadline, and the call that ended it."""
    report = run(tmp_path, settings=Settings(grammar=grammar(tmp_path, "8c", "within_200ms")))
    verdict = only(report)
    (late,) = verdict.deviations
    assert late.message.startswith("step 8c ended ")
    assert late.message.endswith("after step 8b; its deadline is 200 ms")
    assert late.call is not None
    assert late.call.operation == "GET /service/sites/{id}/tasks/{id}"
    assert "but step 8c ended" in verdict.summary
    (told,) = written(report)["traces"][0]["deviations"]
    assert (told["kind"], told["step"], told["message"]) == ("late", "8c", late.message)
    assert told["call"] == late.call.index


def written(report: Report) -> dict[str, list[dict[str, list[dict[str, object]]]]]:
    file = io.BytesIO()
    for piece in report_json.pieces(report):
        file.write(piece)
    found: dict[str, list[dict[str, list[dict[str, object]]]]] = json.loads(file.getvalue())
    return found


def test_an_allowed_delay_is_a_note(tmp_path: Path) -> None:
    settings = Settings(grammar=grammar(tmp_path, "8c", "within_200ms"), allow=("late:8c",))
    verdict = only(run(tmp_path, settings=settings))
    assert (verdict.verdict, kinds(verdict)) == ("conforms", [])
    assert [(n.kind, n.step) for n in verdict.notes if n.kind == "allowed"] == [("allowed", "8c")]


UNENDED = [
    # break of the host, step with the deadline, deadline, end of the capture, what is found
    ({"8c": "silent"}, "8c", "within_5s", 130, "unfinished", [("late", "8c")]),
    ({"8c": "silent"}, "8c", "within_2min", 130, "unfinished", []),
    ({"7": "undelivered"}, "8b", "within_5s", 130, "unfinished", [("late", "8b")]),
    ({"7": "undelivered"}, "8b", "within_2min", 130, "unfinished", []),
    ({"7": "undelivered"}, "8b", "within_5s", 260, "stuck", [("stalled", "8b")]),
]


@pytest.mark.parametrize("host, step, within, until, outcome, found", UNENDED)
def test_a_step_that_never_ended(
    host: dict[str, str],
    step: str,
    within: str,
    until: float,
    outcome: str,
    found: list[tuple[str, str]],
    tmp_path: Path,
) -> None:
    """It waits, or never came: late once the capture outlasts the deadline; what is stuck is told once."""
    settings = Settings(grammar=grammar(tmp_path, step, within))
    verdict = only(run(tmp_path, until=until, settings=settings, hosts=({"compute1": host},)))
    assert (verdict.outcome, kinds(verdict)) == (outcome, found), verdict.deviations
    assert verdict.verdict == ("deviates" if found else "inconclusive")


def test_the_attempt_that_counts_is_the_last(tmp_path: Path) -> None:
    """The clock of 8b does not run from the host that was asked in vain."""
    settings = Settings(grammar=grammar(tmp_path, "8b", "within_2s"))
    hosts = ({"compute1": {"8c": "task failed"}, "compute2": {}},)
    verdict = only(run(tmp_path, settings=settings, hosts=hosts))
    assert kinds(verdict) == []
    assert verdict.attempts == ("compute1", "compute2")


def test_what_could_not_be_seen_is_not_late(tmp_path: Path) -> None:
    """The VRM's port is not captured: nobody knows how long 8c took."""
    cloud = Cloud()
    cloud.background(0, 260)
    Creation(cloud).run()
    cloud.network.events = [e for e in cloud.network.events if e[1].server[1] != 7070]
    verdict = only(judge(cloud, tmp_path, Settings(grammar=grammar(tmp_path, "8c", "within_1ms"))))
    assert (kinds(verdict), statuses(verdict)["8c"]) == ([], "unobserved")


def test_what_came_late_was_expected_within_its_time(tmp_path: Path) -> None:
    """Seen and expected would look alike without it."""
    verdict = only(run(tmp_path, settings=Settings(grammar=grammar(tmp_path, "8c", "within_200ms"))))
    [late] = verdict.deviations
    assert late.expected
    assert all(", within 200 ms: " in way for way in late.expected)
