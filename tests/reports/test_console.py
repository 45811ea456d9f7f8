"""The text of `tracer check`."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from tracer.model import Note, Report
from tracer.reports.console import render


def text_of(report: Report, width: int = 160, verbose: int = 0, **how: Any) -> str:
    """What is written for a report."""
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False, emoji=False,
                      **({"color_system": None} | how))  # fmt: skip
    render(report, console, verbose)
    return file.getvalue()


def test_a_conforming_trace_is_one_line(build: SimpleNamespace) -> None:
    """The answer, and the sum."""
    assert text_of(build.report(build.conforming())).splitlines() == [
        "✓ VM web-1 00000001…  active on compute1 after 11.4 s",
        "1 trace: 1 conforms  (1 active)",
        "checked against cloudvm_create: asked for",
    ]


def test_the_first_line_is_the_answer(build: SimpleNamespace) -> None:
    """Which VM, which step, why: before anything else."""
    first = text_of(build.report(build.stopped_at_8b())).splitlines()[0]
    assert first == (
        "✗ VM web-1 9f6acf79…  stopped at step 8b after 3.1 s:"
        " neutron-server answered 503 to POST /v2.0/ports"
    )


def test_the_fault_has_its_own_words(build: SimpleNamespace) -> None:
    """The text of the answer is quoted, with who said it."""
    text = text_of(build.report(build.stopped_at_8b()))
    assert "neutron-server said: “Networking service is temporarily unavailable" in text


def test_what_was_seen_last_before_a_stall_is_no_fault(build: SimpleNamespace) -> None:
    """A look-up that is answered 404 in every healthy creation is not quoted as the cause of a silence."""
    failed = build.stopped_at_8b()
    for step, is_quoted in ((None, False), ("8b", True)):
        first = failed.deviations[0]
        last = replace(first, kind="stalled", call=replace(first.call, step=step))
        stuck = replace(failed, outcome="stuck", deviations=(last,), attempt_details=())
        assert ("neutron-server said" in text_of(build.report(stuck))) is is_quoted


def test_repeated_refusals_are_one_row_with_a_count(build: SimpleNamespace) -> None:
    """Three times 503 is one row, with the frames of the first ones."""
    text = text_of(build.report(build.stopped_at_8b()))
    [row] = [line for line in text.splitlines() if re.match(r"  8b ", line)]
    assert re.search(r"FAILED +\+8\.863 +2\.6 s  nova-compute > neutron-server POST /v2\.0/ports 503 ×3", row)
    assert row.endswith("Int#266 Int#278")


def test_the_table_has_every_step(build: SimpleNamespace) -> None:
    """Also those that were not reached."""
    text = text_of(build.report(build.stopped_at_8b()))
    shown = re.findall(r"^  (\d[a-e]?) +\S", text, re.M)
    assert shown == list(build.TITLES)


def test_earlier_attempts_have_tables_of_their_own(build: SimpleNamespace) -> None:
    """The host, how far it came there, and why not further."""
    text = text_of(build.report(build.rescheduled()))
    assert "attempt 1 on compute2: stopped at 8c after 2.2 s: Connection refused" in text
    assert "attempt 2 on compute1: stopped at 8c after 1.7 s: Connection refused  (the steps above)" in text
    assert len(re.findall(r"^ +8c .*FAILED .*CONNECT :7070 refused", text, re.MULTILINE)) == 2


def test_a_stuck_creation_says_who_owes_what(build: SimpleNamespace) -> None:
    """Status OWED at the step, and the owner beside it."""
    text = text_of(build.report(build.stuck()))
    assert re.search(r"8b .*OWED +owed by nova-compute@compute2", text)


def test_unobserved_steps_with_one_reason_are_one_line(build: SimpleNamespace) -> None:
    """Which capture point would show them."""
    text = text_of(build.report(build.unobserved()))
    assert "not observed: 4a, 4c, 4d, 5, 6: both ends are on controller1; a capture of its loopback" in text


def test_log_ids_are_grouped_by_id(build: SimpleNamespace) -> None:
    """One id, all the logs that have it."""
    text = text_of(build.report(build.stopped_at_8b()))
    assert (
        "grep req-da31b12e-f49d-4bbf-83a2-21ef1429fb6c in the log of nova-api, nova-conductor, nova-c" in text
    )
    assert "grep req-f2afd727-5c1b-4f3c-9a6e-0b7f4b2f9d01 in the log of neutron-server" in text


def test_notes_alike_share_a_line(build: SimpleNamespace) -> None:
    """8a and 8b were both observed as REST."""
    notes = (Note("mode", "8a", "observed as REST"), Note("mode", "8b", "observed as REST"))
    assert "note: mode 8a, 8b  observed as REST" in text_of(build.report(replace(build.stuck(), notes=notes)))


def test_a_retry_shows_on_the_line_of_a_conforming_trace(build: SimpleNamespace) -> None:
    """It conforms, and yet an operator wants to know."""
    verdict = replace(build.conforming(), notes=(Note("retry", "7", "rescheduled: compute2 → compute1"),))
    assert "(rescheduled: compute2 → compute1)" in text_of(build.report(verdict))


def test_many_conforming_traces_are_one_line(build: SimpleNamespace) -> None:
    """2,000 good ones do not hide the bad one; -v lists them."""
    report = build.report(*[build.conforming(n) for n in range(60)], build.stuck())
    text = text_of(report)
    assert "60 VMs conform" in text
    assert "-v lists them" in text
    assert "web-17" not in text
    assert "web-17" in text_of(report, verbose=1)


def test_many_alike_are_shown_by_example_and_counted(build: SimpleNamespace) -> None:
    """One broken service, many broken VMs: three in full, the others by a line, and one line for all."""
    broken = [replace(build.stopped_at_8b(), id=f"req-{n}", name=f"db-{n}") for n in range(60)]
    text = text_of(build.report(*broken))
    assert len(re.findall("^  step  ", text, re.MULTILINE)) == 3
    assert "db-59" in text
    assert re.search(
        r"^   60  failed      8b .*neutron-server answered 503 to POST /v2.0/ports  \(db-0, db-1, db-2, …",
        text,
        re.M,
    )
    assert "57 traces shown by one line each" in text


def test_one_broken_creation_is_no_table(build: SimpleNamespace) -> None:
    """The reasons are compared where there are two to compare; those that conform do not count."""
    assert "VMs  what" not in text_of(build.report(build.stopped_at_8b(), build.conforming()))
    assert "VMs  what" in text_of(build.report(build.stopped_at_8b(), build.stuck()))


def test_losses_are_told_and_silence_means_none(build: SimpleNamespace) -> None:
    """A capture is mentioned when it lost something."""
    good = build.report(build.conforming())
    assert "captures/" not in text_of(good)
    assert "3 gaps (48,211 bytes lost)" in text_of(replace(good, captures=[build.damaged()]))


def test_without_a_trace_it_says_what_was_seen(build: SimpleNamespace) -> None:
    """And what to capture next time."""
    text = text_of(build.report(seen=(("SQL statements", 1200),), advice=("capture External_api too",)))
    assert "No trace of cloudvm_create found in 2 captures (37,349 packets)." in text
    assert "1,200  SQL statements" in text
    assert "advice: capture External_api too" in text


def test_an_interrupted_run_says_so(build: SimpleNamespace) -> None:
    """The report looks complete otherwise."""
    assert "interrupted" in text_of(build.report(build.conforming(), partial=True))


@pytest.mark.parametrize("terminal", [True, False])
def test_hostile_names_change_nothing_on_the_screen(build: SimpleNamespace, terminal: bool) -> None:
    """No escape, no markup, no bidi control, no line feed of the wire reaches a terminal."""
    text = text_of(build.report(build.hostile()), verbose=2, force_terminal=terminal)
    assert "[red]x[/red]\\e[2J\\e]0;owned\\x07\\r\\nroot\\u202etxt.exe\\u2066AAA" in text.replace("\n", "")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)
    assert max(map(len, text.splitlines())) < 1000


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 200])
def test_a_terminal_is_never_overrun(build: SimpleNamespace, width: int) -> None:
    """Tables are cut to the width, sentences are wrapped."""
    report = build.report(build.stopped_at_8b(), build.rescheduled(), build.unobserved(), build.hostile())
    text = text_of(report, width, 1, force_terminal=True)
    assert max(cell_len(line) for line in text.splitlines()) <= max(width, 78)


def test_a_pipe_gets_whole_lines(build: SimpleNamespace) -> None:
    """No sentence is wrapped where grep would lose its half; no line ends in spaces."""
    text = text_of(build.report(build.stuck()))
    assert "published for compute.compute2 and never delivered: no consumer on the queue\n" in text
    assert not re.search(r" $", text, re.M)


def test_colours_go_by_verdict(build: SimpleNamespace) -> None:
    """Green is good, red is bad, and only when colours are on."""
    text = text_of(
        build.report(build.conforming(), build.stuck()), color_system="standard", force_terminal=True
    )
    assert "\x1b[32m✓" in text
    assert "\x1b[1;31m✗" in text
    assert "\x1b" not in text_of(build.report(build.conforming(), build.stuck()))


def test_very_verbose_lists_the_calls(build: SimpleNamespace) -> None:
    """-vv has every call's canonical line."""
    text = text_of(build.report(build.conforming()), verbose=2)
    assert "Internal_base SQL nova-api > db INSERT build_requests ok" in text


def test_frames_are_explained(build: SimpleNamespace) -> None:
    """Int#266 is worth something only to one who knows what Int is."""
    text = text_of(build.report(build.stopped_at_8b()))
    assert "Int# is captures/Internal_base.pcap.zst" in text
    assert "Internal_base#266" in text_of(build.report(build.stopped_at_8b()), 200)


def test_a_failed_step_shows_the_refusal_though_its_own_calls_went_well(build: SimpleNamespace) -> None:
    """Quota: all the SELECTs were answered, and nova-api said 403."""
    verdict = build.stopped_at_8b()
    [deviation] = verdict.deviations
    calls = [build.record(n, 5000 + n, build.FLOW[8][3], step="4c") for n in range(3)]
    answer = build.record(9, 405, "Internal_base REST lb > nova-api POST /v2.1/servers 403", step="3")
    refusal = replace(deviation, step="4c", call=answer, message="step 4c failed: nova-api answered 403")
    text = text_of(
        build.report(replace(verdict, steps=build.steps(calls, _4c="failed"), deviations=(refusal,)))
    )
    assert re.search(r"4c .*FAILED .*lb > nova-api POST /v2\.1/servers 403 \(\+3\) +Int#110", text)
    assert "! failed 4c (checks the user's quota)  nova-api answered 403" in text
    assert "seen     Internal_base REST lb > nova-api POST /v2.1/servers 403  Int#110" in text


def test_what_was_forgotten_is_told(build: SimpleNamespace) -> None:
    """More connections or ids than there is room for: the traces may lack calls."""
    good = build.report(build.conforming())
    assert "forgotten" not in text_of(good)
    told = text_of(replace(good, forgotten=(("connections", 1200), ("ids", 3))))
    assert "forgotten for lack of room: 1,200 connections, 3 ids; traces may lack calls" in told


TIMES = [
    # (step, begun, took, waited), in s; the sum of the shares is never more than the whole.
    ([("8a", 1, 4, 0), ("8b", 3, 5, 0)], "time of 10.0 s: 8a with 8b 7.0 s (70 %)"),
    (
        [("1", 0, 9, 0), ("4b", 1, 2, 0), ("8b", 4, 3, 1)],
        "time of 10.0 s: 8b 3.0 s (30 %), 4b 2.0 s (20 %), wait before 8b 1.0 s (10 %)",
    ),
    # A wait for the one while the other goes on is none, and what goes on behind the end is not counted.
    ([("8a", 1, 4, 0), ("8b", 3, 9, 2)], "time of 10.0 s: 8a with 8b 9.0 s (90 %)"),
]  # fmt: skip


@pytest.mark.parametrize("spans, line", TIMES)
def test_the_shares_of_the_time(
    build: SimpleNamespace, spans: list[tuple[str, int, int, int]], line: str
) -> None:
    """Of the time that the headline tells; steps side by side share one."""
    verdict = build.conforming()
    known = {name: (begun, took, waited) for name, begun, took, waited in spans}
    second = 1_000_000_000
    table = []
    for step in verdict.steps:
        begun, took, waited = known.get(step.step, (None, None, None))
        times: dict[str, Any] = {"started_ns": None, "duration_ns": None, "waited_ns": None}
        if begun is not None:
            times = {
                "started_ns": verdict.started_ns + begun * second,
                "duration_ns": took * second,
                "waited_ns": waited * second or None,
            }
        table.append(replace(step, **times))
    settled = verdict.started_ns + 10 * second
    verdict = replace(verdict, steps=tuple(table), settled_ns=settled, ended_ns=settled + 3 * second)
    assert f"  {line}\n" in text_of(build.report(verdict), verbose=1)


@pytest.mark.parametrize(
    "outcome, status, shown",
    [("unfinished", "failed", "retrying"), ("error", "failed", "FAILED")],
)
def test_what_fails_and_may_be_asked_again_is_retried(
    build: SimpleNamespace, outcome: str, status: str, shown: str
) -> None:
    """The step is not over while the creation is not."""
    verdict = build.stopped_at_8b()
    assert [step.status for step in verdict.steps if step.step == "8b"] == [status]
    text = text_of(build.report(replace(verdict, outcome=outcome)))
    [row] = [line for line in text.splitlines() if re.match(r"  8b ", line)]
    assert f" {shown} " in row


def test_a_title_is_told_once(build: SimpleNamespace) -> None:
    """It stands behind the step already."""
    verdict = build.stopped_at_8b()
    title = next(step.title for step in verdict.steps if step.step == "8b")
    words = f"step 8b ({title}) never came"
    missing = replace(verdict.deviations[0], kind="missing", message=words)
    text = text_of(build.report(replace(verdict, deviations=(missing,))))
    assert f"! missing 8b ({title})  never came  " in text


@pytest.mark.parametrize("runs, words", [(1, "nothing was compared with"), (5, "times compared with")])
def test_a_baseline_of_too_few_is_compared_with_nothing(
    build: SimpleNamespace, runs: int, words: str
) -> None:
    text = text_of(build.report(build.conforming(), baseline=("usual.json", runs)))
    assert f"{words} usual.json" in text


def test_no_trace_of_any_workflow_is_told_as_such(build: SimpleNamespace) -> None:
    assert "No trace of any workflow found" in text_of(replace(build.report(), grammar="all"))
