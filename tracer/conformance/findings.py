"""What deviates, the root first: how the trace ended, steps that never came, calls that fit nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tracer.alignment.edits import Extra, Missing, Sync
from tracer.conformance.case import Case, Ending
from tracer.conformance.deadlines import late_steps
from tracer.conformance.explanation import Explanation
from tracer.conformance.sentences import (
    cause_of,
    expected_words,
    failure_words,
    missing_words,
    peer_of,
    shown_for,
    stall_words,
)
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.unexplained import unexplained_calls
from tracer.grammar.patterns import example_of
from tracer.model import CallRecord, Deviation, DeviationKind, Note, StepResult

__all__ = ["findings"]


def findings(
    case: Case, coverage: StepCoverage, ending: Ending, explanation: Explanation, steps: Sequence[StepResult]
) -> tuple[list[Deviation], list[Note]]:
    """Return the deviations, the one that explains the others first, and the notes on calls that misfit."""
    deviations = [
        *_ended_badly(case, coverage, ending),
        *_missing(case, steps),
        *_incomplete(case, coverage, explanation, steps),
        *late_steps(case, ending, coverage, explanation.witnesses_of),
    ]
    # Where steps could not be seen, no call is too many: what would explain it may be among them.
    blind = any(step.status == "unobserved" for step in steps)
    misplaced, notes = unexplained_calls(case, coverage, ending, explanation, blind)
    return _root_first(case, explanation, deviations + misplaced), notes


def _ended_badly(case: Case, coverage: StepCoverage, ending: Ending) -> Iterator[Deviation]:
    kind: DeviationKind
    shown: CallRecord | None
    if ending.outcome in ("rejected", "error"):
        kind, words, shown = "failed", failure_words(case, ending), shown_for(case, ending)
    elif ending.outcome == "stuck":
        kind, words = "stalled", stall_words(case, ending, coverage)
        shown = case.records.get(ending.call.serial) if ending.call is not None else None
    else:
        return
    step = ending.stopped_at or (ending.between[1] if ending.between else None)
    expected = expected_words(case.grammar, step)
    peer, cause = peer_of(case, ending), cause_of(case, ending)
    yield Deviation(kind, ending.stopped_at, words, shown, expected, peer, cause)


def _missing(case: Case, steps: Sequence[StepResult]) -> Iterator[Deviation]:
    for step in steps:
        if step.status == "missing":
            expected, peer = expected_words(case.grammar, step.step), case.grammar.caller(step.step)
            words = missing_words(step, steps)
            yield Deviation("missing", step.step, words, None, expected, peer, "never came")


def _incomplete(
    case: Case, coverage: StepCoverage, explanation: Explanation, steps: Sequence[StepResult]
) -> Iterator[Deviation]:
    """Yield each step of which only later calls came: its first call should have been seen, too.

    Of several attempts an earlier one may lie before the capture: nothing is said there.
    """
    if len(case.attempts) > 1 or case.is_damaged():
        return
    seen = {s.step: s for s in steps if s.status == "seen" and s.step in case.grammar.required}
    word = [edit for edit in explanation.edits if not isinstance(edit, Extra)]
    for edit, following in pairwise(word):
        if not isinstance(edit, Missing) or not isinstance(following, Sync):
            continue
        symbol = edit.symbol
        step = seen.get(symbol.step or "")
        if step is None or symbol.step != following.symbol.step or not coverage.would_show(step.step):
            continue
        way = example_of(case.grammar.terminals[symbol.terminal].pattern)
        words = f"step {step.step} ({step.title}): {way} never came, though later calls of it did"
        peer = case.grammar.caller(step.step)
        expected = (f"{way}: {step.title}",)
        yield Deviation("missing", step.step, words, None, expected, peer, "never came")


def _root_first(case: Case, explanation: Explanation, deviations: Sequence[Deviation]) -> list[Deviation]:
    """Leave out what is missing only because it came elsewhere; order by what explains the rest."""
    told = {d.step for d in deviations if d.kind == "order"}
    moved = {step for d in explanation.out_of_order if not d.steps.isdisjoint(told) for step in d.steps}
    places = case.grammar.places
    # How the whole ended tells it all; else what went wrong at an earlier step explains what follows.
    return sorted(
        (d for d in deviations if not (d.kind == "missing" and d.step in moved)),
        key=lambda d: (d.kind not in ("failed", "stalled"), places.get(d.step or "", len(places))),
    )
