"""One thing goes wrong in a good creation: does the first finding name the step where it did?

Each call of two real creations that a step may be witnessed by is dropped, doubled, swapped with the next
one, moved to the other plane, and failed. What still is a word of the grammar can be told from a good
creation by nobody, and is listed as such. The whole is kept in tests/golden/localisation.txt.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import tracer.engine.run
from tracer.alignment.alignment import walk
from tracer.conformance import Checker
from tracer.conformance.case import Case, lay_out
from tracer.engine import Settings
from tracer.model import Call, CallRecord, Trace, Verdict

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "golden" / "localisation.txt"
CREATIONS = ("ok-image", "ok-volume")
MUTATIONS = ("drop", "double", "swap", "plane", "fail")
PLANES = {"External_api": "Internal_base", "Internal_base": "External_api"}
FAILED = {"REST": "500", "RPC": "unroutable", "SQL": "error"}
GOAL = 0.95
COPIED = 1_000_000
"""Serials of doubled calls begin here."""


@functools.cache
def creation(name: str) -> tuple[Checker, Trace]:
    """The checker and the trace of a capture's one good creation, as the pipeline makes them."""
    found = []
    check = Checker.check

    def kept(self: Checker, trace: Trace) -> Verdict:
        found.append((self, trace))
        return check(self, trace)

    with patch.object(Checker, "check", kept):
        report = tracer.engine.check([str(ROOT / "captures" / name)], Settings())
    ((checker, trace),) = found
    assert [v.verdict for v in report.verdicts] == ["conforms"]
    return checker, trace


@dataclass(eq=False)
class Mutant:
    """A creation with one thing changed."""

    checker: Checker
    trace: Trace
    steps: frozenset[str]
    """Where it was changed; a swap concerns two."""

    def is_word(self) -> bool:
        case = self.case()
        return walk(self.checker.grammar.automaton, [w.candidates for w in case.witnesses]) is not None

    def case(self) -> Case:
        return lay_out(self.trace, self.checker.grammar, self.checker.record)

    def first(self) -> tuple[str, str | None]:
        """Kind and step of the first finding.

        A deviation; else what failed and was asked again, which is noted; else a required step of which
        the verdict says that nobody could have seen it (the first call, when the capture begins with it).
        """
        verdict = self.checker.check(self.trace)
        found = [(d.kind, d.step) for d in verdict.deviations]
        found += [(n.kind, n.step) for n in verdict.notes if n.kind == "retry"]
        required = {s.name for s in self.checker.grammar.steps if s.presence == "required"}
        found += [
            (s.status, s.step)
            for s in verdict.steps
            if s.status == "unobserved" and s.step in required and verdict.verdict == "inconclusive"
        ]
        return found[0] if found else ("-", None)


def mutants(name: str) -> Iterator[tuple[str, str, Mutant]]:
    """(line of the call, mutation, what comes of it), for each call that the grammar knows."""
    checker, trace = creation(name)
    witnesses = lay_out(trace, checker.grammar, checker.record).witnesses
    for place, witness in enumerate(witnesses):
        following = witnesses[place + 1] if place + 1 < len(witnesses) else None
        for how in MUTATIONS:
            if how == "swap" and following is None:
                continue
            steps = witness.steps | (following.steps if how == "swap" and following else frozenset())
            call = witness.call
            mutant = Mutant(checker, copy.copy(trace), steps)
            calls = mutant.trace.calls = list(trace.calls)
            at = calls.index(call)
            if how == "drop":
                del calls[at]
                if trace.created is call:
                    mutant.trace.created = None
            elif how == "double":
                again = copy.copy(call)
                again.serial = COPIED
                calls.insert(at + 1, again)
            elif how == "swap" and following is not None:
                swap(mutant.trace, call, following.call)
            elif how == "plane":
                plane = PLANES[witness.record.plane]
                mutant.checker = shown(checker, call, plane=plane)
            elif how == "fail":
                result = "failure" if " reply " in witness.record.line else FAILED[witness.record.protocol]
                mutant.checker = shown(checker, call, result=result)
            yield witness.record.line, how, mutant


def swap(trace: Trace, left: Call, right: Call) -> None:
    """Let two calls change places and times."""
    early, late = copy.copy(right), copy.copy(left)
    early.started_ns, late.started_ns = left.started_ns, right.started_ns
    renewed = {left: early, right: late}
    trace.calls = [renewed.get(call, call) for call in trace.calls]
    trace.created = renewed.get(trace.created, trace.created) if trace.created else None


def shown(checker: Checker, call: Call, **change: str) -> Checker:
    """The checker, to which *call* appears otherwise."""

    def record(asked: Call, ambiguous: bool) -> CallRecord:
        found = checker.record(asked, ambiguous)
        if asked is not call:
            return found
        return replace(found, **change)

    return replace(checker, record=record)


class Cell(NamedTuple):
    how: str
    told: str
    """Kind and step of the first finding; `=` for a word of the grammar."""
    right: bool | None


class Row(NamedTuple):
    creation: str
    line: str
    steps: frozenset[str]
    cells: list[Cell]


@functools.cache
def matrix() -> list[Row]:
    """A row for each call."""
    rows: list[Row] = []
    for name in CREATIONS:
        for line, how, mutant in mutants(name):
            kind, step = mutant.first()
            if how == MUTATIONS[0]:
                rows.append(Row(name, line, mutant.steps, []))
            if mutant.is_word():
                rows[-1].cells.append(Cell(how, "=" if kind == "-" else f"= {kind} {step}", None))
            else:
                rows[-1].cells.append(Cell(how, f"{kind} {step or ''}".rstrip(), step in mutant.steps))
    return rows


def printed() -> str:
    """The matrix as a table, and what it comes to."""
    lines = [
        "# The first finding when one call of a good creation is dropped, doubled, swapped with the next,"
    ]
    lines += ["# moved to the other plane, or failed.  =: still a word of the grammar  !: not the right step"]
    cells = [cell for row in matrix() for cell in row.cells]
    told = [cell for cell in cells if cell.right is not None]
    right = sum(cell.right is True for cell in told)
    for name in CREATIONS:
        lines += ["", (f"{name:66}" + "".join(f"{how:14}" for how in MUTATIONS)).rstrip()]
        for row in matrix():
            if row.creation == name:
                by_how = {cell.how: cell for cell in row.cells}
                words = row.line.split(" ", 2)[2]
                shown = "".join(f"{_cell(by_how.get(how)):14}" for how in MUTATIONS)
                lines.append(f"{','.join(sorted(row.steps)):4}{words[:60]:62}{shown}".rstrip())
    lines += [
        "",
        f"{len(cells)} mutations, {len(told)} leave the language: {right} first findings name the right step"
        f" ({right / len(told):.1%})",
        f"{len(cells) - len(told)} are words of the grammar and conform: nobody can tell them from good ones",
    ]
    return "\n".join(lines) + "\n"


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return cell.told if cell.right is not False else f"{cell.told} !"


def test_the_first_finding_names_the_right_step() -> None:
    """Of at least 95 % of the mutations that leave the grammar's language."""
    told = [cell.right for row in matrix() for cell in row.cells if cell.right is not None]
    assert len(told) > 150
    assert sum(told) / len(told) >= GOAL


def test_what_nobody_can_tell_conforms() -> None:
    """A mutation that leaves a word of the grammar is no finding."""
    assert {cell.told for row in matrix() for cell in row.cells if cell.right is None} == {"="}


def test_the_matrix_is_the_golden_one(update_golden: bool) -> None:
    table = printed()
    print(table)
    if update_golden:
        GOLDEN.write_text(table, encoding="utf-8")
    assert table == GOLDEN.read_text(encoding="utf-8"), "meant? pytest --update-golden, then read the diff"
