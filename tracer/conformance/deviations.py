"""What deviates, the root first: how the trace ended, steps missing or late, calls that fit nowhere.

The clock of a step with a deadline starts with the last call of another step before it, for from then on it
was due, and stops with the end of its own last call. A step whose evidence may be another trace's has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

from tracer.alignment.edits import Extra, Missing, Sync
from tracer.alignment.out_of_order import OutOfOrder
from tracer.conformance.case import GOOD, Case, Ending, Witness
from tracer.conformance.explanation import Explanation
from tracer.conformance.sentences import (
    cause_of,
    expected_words,
    failure_words,
    missing_words,
    order_words,
    peer_of,
    shown_for,
    stall_words,
)
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import time_words
from tracer.grammar.grammar import Step
from tracer.grammar.patterns import example_of
from tracer.model import Call, CallRecord, Deviation, DeviationKind, Note, StepResult

__all__ = ["findings"]


def findings(
    case: Case, coverage: StepCoverage, ending: Ending, explanation: Explanation, steps: Sequence[StepResult]
) -> tuple[list[Deviation], list[Note]]:
    """Return the deviations, the one that explains the others first, and the notes on calls that misfit."""
    deviations = [
        *_ended_badly(case, coverage, ending),
        *_missing(case, steps),
        *_incomplete(case, coverage, explanation, steps),
        *_late_steps(case, ending, coverage, explanation.witnesses_of),
    ]
    # Where steps could not be seen, no call is too many: what would explain it may be among them.
    blind = any(step.status == "unobserved" for step in steps)
    misplaced, notes = _unexplained_calls(case, coverage, ending, explanation, blind)
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


# --- calls that do not fit ----------------------------------------------------------------------


def _unexplained_calls(
    case: Case, coverage: StepCoverage, ending: Ending, explanation: Explanation, blind: bool
) -> tuple[list[Deviation], list[Note]]:
    """Return what the calls that do not fit deviate by, and notes on what is accepted.

    *blind* tells that steps could not be seen: then no call is too many.
    """
    found = _Unexplained(case, coverage, ending, explanation.out_of_order)
    for edit in explanation.edits:
        if isinstance(edit, Sync):
            found.takes(edit, explanation.witnesses[edit.event])
        elif isinstance(edit, Extra) and not blind:
            found.takes_nowhere(explanation.witnesses[edit.event])
    return found.deviations, found.notes


class _Unexplained:
    """Collects deviations and notes, each once."""

    def __init__(self, case: Case, coverage: StepCoverage, ending: Ending, moved: list[OutOfOrder]) -> None:
        self.case, self.coverage, self.ending, self.moved = case, coverage, ending, moved
        self.damaged = case.is_damaged()
        self.deviations: list[Deviation] = []
        self.notes: list[Note] = []
        self.told: set[tuple[str, str]] = set()

    def takes(self, edit: Sync, witness: Witness) -> None:
        """Take a call that fits a step, if only nearly."""
        step, note, record = edit.symbol.step, edit.symbol.note, witness.record
        if note and step and self._first(note, step):
            documented = "RPC" if record.protocol == "REST" else "REST"
            self.notes.append(
                Note("mode", step, f"documented as {documented}, observed as {record.protocol}")
            )
        if edit.kind == "failed":
            self._failed_on_the_way(witness, step)
        elif (
            edit.kind in ("plane", "mode")
            and not witness.ambiguous
            and (edit.kind == "mode" or self.coverage.plane_is_given(witness.call.connection))
            and self._first(edit.kind, step or "")
        ):
            self.deviations.append(self._misplaced(edit, record))

    def _first(self, kind: str, step: str) -> bool:
        """Tell whether this is the first of its kind at this step."""
        new = (kind, step) not in self.told
        self.told.add((kind, step))
        return new

    def _misplaced(self, edit: Sync, record: CallRecord) -> Deviation:
        """Return that a step came on another plane, or in another mode, than is documented."""
        grammar, step = self.case.grammar, edit.symbol.step
        kind: DeviationKind = "plane" if edit.kind == "plane" else "mode"
        if step is None:
            # Between the steps: what asks for the next host.
            what, legs = record.operation, grammar.terminal_legs(edit.symbol.terminal)
        else:
            what, legs = f"step {step} ({grammar.step(step).title})", grammar.legs(step)
        if kind == "plane":
            came, documented = f"on {record.plane}", [leg.plane for leg in legs]
        else:
            came, documented = f"as {record.protocol}", [leg.protocol for leg in legs]
        usual = " or ".join(dict.fromkeys(documented))
        words = f"{what} came {came}; documented is {usual}"
        cause = f"came {came}, not {usual}"
        expected = expected_words(grammar, step)
        if kind == "plane":
            # The call itself was right.
            expected = tuple(f"{usual} {way}" for way in expected)
        return Deviation(kind, step, words, record, expected, record.caller, cause)

    def _failed_on_the_way(self, witness: Witness, step: str | None) -> None:
        """A call that failed in a creation that went on: noted, since it was asked again or not needed."""
        if self.ending.outcome not in GOOD or witness.ambiguous:
            return
        record = witness.record
        words = f"{record.caller} > {record.callee} {record.operation} {record.result}: went on all the same"
        self.notes.append(Note("retry", step, words))

    def takes_nowhere(self, witness: Witness) -> None:
        """Take a call that fits nowhere: too many, or out of order."""
        record = witness.record
        if witness.ambiguous or self.damaged:
            return
        if witness.failed and not witness.steps:
            # Asked again, refused again: the first one tells it.
            self._failed_on_the_way(witness, self.case.grammar.earliest(witness.failed))
            return
        steps = witness.all_steps
        if steps and self.case.grammar.inferred.issuperset(steps):
            return
        step = self.case.grammar.earliest(steps)
        deviation = Deviation("extra", step, f"{record.line} fits nowhere", record)
        moved = next((d for d in self.moved if not d.steps.isdisjoint(steps)), None)
        if moved is not None:
            if any(d.kind == "order" and d.step in moved.steps for d in self.deviations):
                return
            deviation = Deviation("order", moved.step, order_words(moved, record), record, (), record.caller)
        if not any((d.kind, d.step) == (deviation.kind, deviation.step) for d in self.deviations):
            self.deviations.append(deviation)


# --- steps that took longer than the grammar allows ---------------------------------------------


def _late_steps(
    case: Case,
    ending: Ending,
    coverage: StepCoverage,
    witnesses: Callable[[str], Sequence[Witness]],
) -> list[Deviation]:
    """Return a deviation of kind `late` for each step that missed its deadline, in documented order.

    *witnesses* gives the calls taken for a step.
    """
    steps = [step for step in case.grammar.steps if step.deadline_ns is not None]
    if not steps:
        return []
    own = {step.name: list(witnesses(step.name)) for step in case.grammar.steps}
    within = _with_deadlines(steps, lambda step: expected_words(case.grammar, step))
    found = [_late(case, ending, coverage, step, own) for step in steps]
    return [
        Deviation(
            "late",
            step,
            words,
            case.records.get(call.serial) if call else None,
            within(step),
        )
        for step, words, call in filter(None, found)
    ]


def _with_deadlines(
    steps: Sequence[Step], ways: Callable[[str], tuple[str, ...]]
) -> Callable[[str], tuple[str, ...]]:
    """Return *ways*, each with the time that the step has: what came late looks like what was expected."""
    known = {step.name: step for step in steps}

    def within(name: str) -> tuple[str, ...]:
        title = f": {known[name].title}"
        time = f", within {time_words(known[name].deadline_ns or 0)}"
        return tuple(f"{way.removesuffix(title)}{time}{title}" for way in ways(name))

    return within


_Late = tuple[str, str, Call | None]


def _late(
    case: Case, ending: Ending, coverage: StepCoverage, step: Step, own: Mapping[str, Sequence[Witness]]
) -> _Late | None:
    allowed_ns = step.deadline_ns or 0
    mine = own[step.name]
    if not mine:
        return _never_came(case, ending, coverage, step, own)
    if any(w.ambiguous for w in mine):
        return None
    calls = [w.call for w in mine]
    first = min(calls, key=lambda call: call.started_ns)
    last = max(calls, key=lambda call: call.ended_ns or call.started_ns)
    due_ns, after = _due(own, step.name, first.started_ns)
    # What still waits for an answer is as late as the capture is long.
    open_call = next((w.call for w in mine if w.call.ended_ns is None and w.record.result == "?"), None)
    waits = open_call is not None and ending.outcome not in GOOD and coverage.would_show(step.name)
    end_ns = coverage.captured_until_ns(step.name) if waits else last.ended_ns or last.started_ns
    if end_ns - due_ns <= allowed_ns:
        return None
    how = "had no answer" if waits else "ended"
    took = time_words(end_ns - due_ns)
    return (
        step.name,
        f"step {step.name} {how} {took} after {after}; its deadline is {time_words(allowed_ns)}",
        last,
    )


def _never_came(
    case: Case, ending: Ending, coverage: StepCoverage, step: Step, own: Mapping[str, Sequence[Witness]]
) -> _Late | None:
    """A step that is owed is late once its deadline is over; when the trace is stuck, that says it all."""
    owed = ending.outcome == "unfinished" and ending.stopped_at == step.name
    if not owed or not coverage.quiet_is_known(step.name, case.last_own_ns()):
        return None
    until_ns = coverage.captured_until_ns(step.name)
    due_ns, after = _due(own, step.name, until_ns)
    waited_ns, allowed_ns = until_ns - due_ns, step.deadline_ns or 0
    if waited_ns <= allowed_ns:
        return None
    waited = f"step {step.name} had not come {time_words(waited_ns)} after {after}"
    return step.name, f"{waited}; its deadline is {time_words(allowed_ns)}", None


def _due(own: Mapping[str, Sequence[Witness]], step: str, before_ns: int) -> tuple[int, str]:
    """Return since when *step* was due, and in words what that was: the last call before it, else itself."""
    due_ns, after = 0, ""
    for name, witnesses in own.items():
        for witness in witnesses if name != step else ():
            call = witness.call
            # The outer calls of a request are open all the time: then their beginning counts.
            over = call.ended_ns is not None and call.ended_ns <= before_ns
            time_ns = call.ended_ns if over and call.ended_ns is not None else call.started_ns
            if due_ns < time_ns <= before_ns:
                due_ns, after = time_ns, f"step {name}"
    return (due_ns, after) if after else (before_ns, "its beginning")
