"""Each service that can fail, in each way in which it can: what tracer says to the one on duty.

The whole matrix is kept in tests/golden/failures.txt, to be read. What holds for all of its cells is here.
"""

from __future__ import annotations

import functools
import re
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest
from lab.agreement import disagreements, names
from lab.failing import ROWS, Row, conversation
from lab.judging import judge

from tracer.grammar import load
from tracer.model import Verdict
from tracer.openstack.services import SERVICES
from tracer.reports import shown_status

GOLDEN = Path(__file__).parent.parent / "golden" / "failures.txt"
WORDS = {"seen": "ok", "failed": "FAILED", "missing": "MISSING", "not_reached": "not reached"}
ROLES = {service.role for service in SERVICES}
UNSEEN = {
    ("sc", "bad"): "an order that the portal accepts, and of which nothing follows, may be of another kind",
    ("sc", "refused"): "a connection names no order",
    ("lb", "refused"): "nor does that of a client without a portal",
}
"""(role, way) -> why there is no trace of such a creation."""


class Cell(NamedTuple):
    flow: str
    row: Row
    way: str
    verdicts: list[Verdict]
    """Of the creation that failed."""
    good: list[Verdict]

    @property
    def verdict(self) -> Verdict:
        (found,) = self.verdicts
        return found

    @property
    def name(self) -> str:
        return f"{self.flow}: {self.row}: {self.way}"


@functools.cache
def matrix() -> list[Cell]:
    """All cells, judged."""
    cells = []
    for row in ROWS:
        for flow in row.flows:
            for way in row.faults:
                with tempfile.TemporaryDirectory() as folder:
                    found = judge(conversation(flow, row, way), Path(folder)).verdicts
                good = [v for v in found if v.name == "good"]
                cells.append(Cell(flow, row, way, [v for v in found if v.name != "good"], good))
    return cells


def told() -> list[Cell]:
    """The cells with a trace of the creation that failed."""
    return [cell for cell in matrix() if cell.verdicts]


def printed() -> str:
    """The matrix as a text."""
    lines = [
        "# What is said of a creation in which one service fails at one place, in each way that it can.",
        "# bad: a good status, and a body that is not. proxy N: a proxy before the service answers N for it.",
    ]
    for (flow, row), cells in groupby(matrix(), lambda cell: (cell.flow, cell.row)):
        lines += ["", f"== {flow}: {row}"]
        for cell in cells:
            lines += ["", *_printed(cell)]
    return "\n".join(lines) + "\n"


def _printed(cell: Cell) -> Iterator[str]:
    if not cell.verdicts:
        yield f"{cell.way:20}no trace: {UNSEEN[cell.row.role, cell.way]}"
        return
    verdict = cell.verdict
    first = verdict.deviations[0]
    where = verdict.stopped_at or " to ".join(verdict.stopped_between or ())
    yield f"{cell.way:20}{verdict.outcome} at {where}, because of {first.peer or 'nobody'}"
    yield f"    {verdict.summary}"
    yield f"    cause     {first.cause}"
    if first.call is not None:
        yield f"    seen      {first.call.matched}{f': {first.call.said}' if first.call.said else ''}"
    for number, line in enumerate(first.expected[:2]):
        yield f"    {'       or' if number else 'expected '} {line}"
    yield f"    steps     {_steps(verdict)}"
    for other in verdict.deviations[1:]:
        yield f"    also      {other.message}"
    for note in verdict.notes:
        if note.kind not in ("mode", "absent"):
            yield f"    note      {note.message[:160]}"


def _steps(verdict: Verdict) -> str:
    parts = []
    for status, steps in groupby(verdict.steps, lambda step: step.status):
        names = [step.step for step in steps]
        shown = names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}"
        parts.append(f"{shown} {WORDS.get(status, status)}")
    return " · ".join(parts)


def test_the_matrix_is_the_golden_one(update_golden: bool) -> None:
    text = printed()
    if update_golden:
        GOLDEN.write_text(text, encoding="utf-8")
    assert text == GOLDEN.read_text(encoding="utf-8"), "meant? pytest --update-golden, then read the diff"


def test_each_cell_is_a_trace() -> None:
    """One trace of what failed, except where nothing of it is on the wire; and the good one conforms."""
    unseen = {(cell.row.role, cell.way) for cell in matrix() if not cell.verdicts}
    assert unseen == set(UNSEEN)
    assert {len(cell.verdicts) for cell in told()} == {1}
    assert {cell.name: [v.verdict for v in cell.good] for cell in matrix()} == {
        cell.name: ["conforms"] for cell in matrix()
    }
    assert len(matrix()) > 300


def test_headline_finding_and_table_agree() -> None:
    found = {cell.name: words for cell in told() if (words := disagreements(cell.verdict))}
    assert found == {}


def test_the_step_of_the_headline_is_never_ok_in_the_table() -> None:
    """It failed, or never came, or has not ended."""
    wrong = {}
    for cell in told():
        verdict = cell.verdict
        shown = {step.step: shown_status(step, verdict) for step in verdict.steps}
        named = {
            *re.findall(r"step (\w+) (?:failed|never came|has not ended|had not ended)", verdict.summary)
        }
        if ok := [step for step in {*named, verdict.stopped_at} if shown.get(step or "") in ("seen", "sent")]:
            wrong[cell.name] = ok
    assert wrong == {}


def test_a_row_says_refused_only_if_an_answer_was_seen() -> None:
    wrong = [
        cell.name
        for cell in told()
        for step in cell.verdict.steps
        if shown_status(step, cell.verdict) == "refused"
        and not any(call.result.isdigit() for call in step.calls)
    ]
    assert wrong == []


def test_headlines_are_bounded_and_nothing_is_lost() -> None:
    """A long one is cut, and says so; the finding has it in full, and begins as the headline does."""
    for cell in told():
        summary, message = cell.verdict.summary, cell.verdict.deviations[0].message
        assert len(summary) < 240, summary
        assert ("…" in summary) == (message not in summary), cell.name


def blamed(cell: Cell) -> str:
    """Who is to be named."""
    if cell.way.startswith("proxy") and cell.row.role not in ("sc", "vrm"):
        return "lb"
    if cell.way in ("bad", "over") and cell.row.place.startswith("asked by nova-"):
        # The one that asked judges what it was answered, and says so; but for what the answer itself says.
        asker = cell.row.place.split()[2]
        return asker if asker in ("nova-api", "nova-scheduler") else cell.row.role
    return cell.row.role


def test_the_one_that_failed_is_named() -> None:
    """As peer, and in the headline."""
    wrong = {}
    for cell in told():
        peer, who = cell.verdict.deviations[0].peer, blamed(cell)
        if peer != who or not names(cell.verdict.summary, who, cell.verdict.compute_host):
            wrong[cell.name] = f"{peer}, not {who}: {cell.verdict.summary}"
    assert wrong == {}


def test_it_is_the_step_that_failed() -> None:
    """Or what was owed next; or the steps between which it is, where nothing shows it."""
    wrong = {}
    for cell in told():
        stopped = cell.verdict.stopped_at
        between = cell.verdict.stopped_between
        if stopped is None and between is not None:
            places = [step.step for step in cell.verdict.steps]
            ends = range(places.index(between[0]), places.index(between[1]) + 1)
            if not any(places.index(step) in ends for step in cell.row.steps):
                wrong[cell.name] = f"between {between}"
        elif stopped not in cell.row.steps:
            wrong[cell.name] = f"at {stopped}"
    assert wrong == {}


def test_nobody_else_is_blamed() -> None:
    """The headline names the two ends of the call that is shown, who owes the step, and who answered it."""
    wrong = {}
    for cell in told():
        verdict, first = cell.verdict, cell.verdict.deviations[0]
        grammar = load(verdict.grammar)
        known = {first.peer, grammar.caller(first.step)}
        for call in verdict.calls:
            is_shown = first.call is not None and call.index == first.call.index
            # A message that waits for its reply is told with what its receiver waits for.
            if is_shown or call.operation in verdict.summary:
                known |= {call.caller, call.callee}
        words = re.sub(r"and no \S+ is seen behind it|in place of \S+|placement offered", "", verdict.summary)
        named = {role for role in ROLES if re.search(rf"(?<![\w-]){role}(?![\w-])", words)}
        if others := named - known - {"rabbitmq"} - ({"lb"} if "by itself" in first.message else set()):
            wrong[cell.name] = f"{others}: {verdict.summary}"
    assert wrong == {}


def test_what_is_seen_is_not_what_is_expected() -> None:
    """A call that failed is none that would have been good; the body of a good answer tells the difference.

    Nor does a call without an answer look like one that has it.
    """
    wrong = {}
    for cell in told():
        first = cell.verdict.deviations[0]
        assert first.expected, cell.name
        if first.kind != "failed" or first.call is None or first.step is None or first.call.said:
            continue
        grammar = load(cell.verdict.grammar)
        names = grammar.step(first.step).terminals
        if any(grammar.terminals[name].matches(first.call.matched) for name in names):
            wrong[cell.name] = first.call.matched
    # The line of a call ends with `?` or `undelivered`, and the expected one with what is good.
    assert {name for name, line in wrong.items() if not line.endswith((" ?", " undelivered"))} == set()


@pytest.mark.parametrize("words", ["is not in the capture", "Unexpected API Error.: ", ": :"])
def test_no_headline_says(words: str) -> None:
    """All was captured, so nothing is said to be missing in the capture; and nothing is said twice."""
    assert [cell.name for cell in told() if words in cell.verdict.summary] == []


def test_no_text_is_told_twice_in_a_headline() -> None:
    wrong = {}
    for cell in told():
        parts = [part for part in re.split(r": |; ", cell.verdict.summary) if len(part) > 12]
        if len(parts) != len(set(parts)):
            wrong[cell.name] = cell.verdict.summary
    assert wrong == {}
