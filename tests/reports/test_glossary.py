"""The words of reports that `tracer explain` explains."""

from __future__ import annotations

from typing import get_args

import pytest

from tracer.model import Conformance, DeviationKind, NoteKind, Outcome, StepStatus
from tracer.reports.glossary import KINDS, entries
from tracer.reports.page import STATUSES


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("verdict", set(get_args(Conformance))),
        ("outcome", set(get_args(Outcome))),
        ("status of a step", {*get_args(StepStatus), *STATUSES, "ok"}),
        ("deviation", set(get_args(DeviationKind))),
        ("note", set(get_args(NoteKind))),
    ],
)
def test_each_word_of_a_report_is_explained(kind: str, words: set[str]) -> None:
    assert {entry.word for entry in entries() if entry.kind == kind} == words


def test_the_kinds_are_those_of_the_entries() -> None:
    assert {entry.kind for entry in entries()} == set(KINDS)


@pytest.mark.parametrize("form", ["not_reached", "not reached", "NOT-REACHED", " Not Reached "])
def test_a_word_is_found_in_each_of_its_forms(form: str) -> None:
    assert [entry.word for entry in entries(form)] == ["not_reached"]


def test_a_word_with_two_meanings_has_both() -> None:
    assert [entry.kind for entry in entries("failed")] == ["status of a step", "deviation"]


def test_an_unknown_word_has_no_meaning() -> None:
    assert entries("nonsense") == ()
