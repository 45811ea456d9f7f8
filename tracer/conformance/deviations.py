"""The deviations of a trace, the root cause first: its ending, steps missing or late, calls that fit nowhere.

A step with a deadline is due from the last call of another step before it, and its time ends with the end of
its own last call. A step whose evidence may belong to another trace cannot be late.
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
    granted_words,
    missing_words,
    order_words,
    peer_of,
    shown_for,
)
from tracer.conformance.stalls import deletion_words, stall, stalled_in
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import time_words
from tracer.conformance.told import rests_on_states
from tracer.grammar.grammar import Step
from tracer.grammar.patterns import example_of
from tracer.model import Call, CallRecord, Deviation, DeviationKind, Note, StepResult

__all__ = ["findings"]


def findings(
    case: Case, coverage: StepCoverage, ending: Ending, explanation: Explanation, steps: Sequence[StepResult]
) -> tuple[list[Deviation], list[Note]]:
    """Return the deviations, the one that explains the others first, and notes on calls that do not fit."""
    deviations = [
        *_ended_badly(case, coverage, ending),
        *_missing(case, steps),
        *_incomplete(case, coverage, explanation, steps),
        *_late_steps(case, ending, coverage, explanation.witnesses_of),
    ]
    # Where steps are unobserved no call is extra: the call that would explain it may be one of theirs.
    some_unobserved = any(step.status == "unobserved" for step in steps)
    misplaced, notes = _unexplained_calls(case, coverage, ending, explanation, some_unobserved)
    return _root_first(case, explanation, deviations + misplaced), notes


def _ended_badly(case: Case, coverage: StepCoverage, ending: Ending) -> Iterator[Deviation]:
    """Yield the deviation by which the creation failed or is stuck; none for other outcomes."""
    kind: DeviationKind
    shown: CallRecord | None
    if ending.outcome in ("rejected", "error"):
        kind, words, shown = "failed", failure_words(case, ending, coverage), shown_for(case, ending)
    elif ending.outcome == "stuck":
        kind, words = "stalled", stall(case, ending, coverage).words
        begun = stalled_in(case, ending)
        shown = case.records.get(ending.call.serial) if ending.call is not None else None
        # What the host does after it has saved its state, in other threads, does not show where it is.
        shown = begun.record if begun is not None else shown
    elif ending.outcome == "deleted":
        kind, words = "stalled", f"deleted {deletion_words(case, ending)}"
        shown = case.records.get(ending.call.serial) if ending.call is not None else None
    else:
        return
    step = ending.stopped_at or (ending.between[1] if ending.between else None)
    expected = (ending.expected,) if ending.expected else granted_words(case, ending, shown)
    expected = expected or expected_words(case.grammar, step, rests_on_states(case, coverage, step))
    peer, cause = peer_of(case, ending, coverage), cause_of(case, ending, coverage)
    hindrance = ending.hindrance.words if ending.hindrance is not None else ""
    yield Deviation(kind, ending.stopped_at, words, shown, expected, peer, cause, hindrance)


def _missing(case: Case, steps: Sequence[StepResult]) -> Iterator[Deviation]:
    """Yield a deviation for each step with the status missing."""
    for step in steps:
        if step.status == "missing":
            expected, peer = expected_words(case.grammar, step.step), case.grammar.caller(step.step)
            words = missing_words(step, steps)
            yield Deviation("missing", step.step, words, None, expected, peer, "never came")


def _incomplete(
    case: Case, coverage: StepCoverage, explanation: Explanation, steps: Sequence[StepResult]
) -> Iterator[Deviation]:
    """Yield a deviation for each step of which an early call is missing although later calls were seen.

    None are given with several attempts (the first may lie before the capture) or with missing bytes.
    """
    if len(case.attempts) > 1 or case.is_damaged():
        return
    seen = {s.step: s for s in steps if s.status == "seen" and s.step in case.required}
    # Without the extra calls the edits are a word of the grammar: a missing symbol right before a call of the
    # same step is that step's earlier call.
    word = [edit for edit in explanation.edits if not isinstance(edit, Extra)]
    for edit, following in pairwise(word):
        if not isinstance(edit, Missing) or not isinstance(following, Sync):
            continue
        symbol = edit.symbol
        step = seen.get(symbol.step or "")
        if step is None or symbol.step != following.symbol.step or not coverage.would_show(step.step):
            continue
        example = example_of(case.grammar.terminals[symbol.terminal].pattern)
        words = f"step {step.step} ({step.title}): {example} never came, although later calls of the step did"
        peer = case.grammar.caller(step.step)
        expected = (f"{example}: {step.title}",)
        yield Deviation("missing", step.step, words, None, expected, peer, "never came")


def _root_first(case: Case, explanation: Explanation, deviations: Sequence[Deviation]) -> list[Deviation]:
    """Return *deviations* by cause, without steps that are missing only because they came out of order."""
    reported = {d.step for d in deviations if d.kind == "order"}
    moved = {step for d in explanation.out_of_order if not d.steps.isdisjoint(reported) for step in d.steps}
    places = case.grammar.places
    # The ending first: a failure explains what is missing after it. Then in documented order, because a
    # deviation at an earlier step may be the cause of those that follow.
    return sorted(
        (d for d in deviations if not (d.kind == "missing" and d.step in moved)),
        key=lambda d: (d.kind not in ("failed", "stalled"), places.get(d.step or "", len(places))),
    )


# --- calls that do not fit ----------------------------------------------------------------------


def _unexplained_calls(
    case: Case, coverage: StepCoverage, ending: Ending, explanation: Explanation, some_unobserved: bool
) -> tuple[list[Deviation], list[Note]]:
    """Return deviations for calls that do not fit, and notes on those that are accepted.

    With *some_unobserved* (some step could not be seen) no call counts as extra.
    """
    found = _Unexplained(case, coverage, ending, explanation.out_of_order)
    for edit in explanation.edits:
        if isinstance(edit, Sync):
            found.takes(edit, explanation.witnesses[edit.event])
        elif isinstance(edit, Extra) and not some_unobserved:
            found.takes_nowhere(explanation.witnesses[edit.event])
    return found.deviations, found.notes


class _Unexplained:
    """Collects deviations and notes on calls, one of each kind for each step."""

    def __init__(self, case: Case, coverage: StepCoverage, ending: Ending, moved: list[OutOfOrder]) -> None:
        self.case, self.coverage, self.ending, self.moved = case, coverage, ending, moved
        self.damaged = case.is_damaged() or not coverage.order_is_known()
        self.deviations: list[Deviation] = []
        self.notes: list[Note] = []
        self.reported: set[tuple[str, str]] = set()

    def takes(self, edit: Sync, witness: Witness) -> None:
        """Take a call that fits a step, or would fit with another plane, mode or result."""
        step, note, record = edit.symbol.step, edit.symbol.note, witness.record
        if note and step and self._first(note, step):
            documented = "RPC" if record.protocol == "REST" else "REST"
            self.notes.append(
                Note("mode", step, f"documented as {documented}, observed as {record.protocol}")
            )
        if edit.kind == "failed":
            self._failed_without_effect(witness, step)
        elif (
            edit.kind in ("plane", "mode")
            and not witness.ambiguous
            # An inferred plane is a guess: a call is on the wrong plane only where the user named the plane.
            and (edit.kind == "mode" or self.coverage.plane_is_given(witness.call.connection))
            and self._first(edit.kind, step or "")
        ):
            self.deviations.append(self._misplaced(edit, record))

    def _first(self, kind: str, step: str) -> bool:
        """Return whether this is the first of its kind at this step, and record it."""
        new = (kind, step) not in self.reported
        self.reported.add((kind, step))
        return new

    def _misplaced(self, edit: Sync, record: CallRecord) -> Deviation:
        """Return the deviation of a step that came on another plane, or in another mode, than documented."""
        grammar, step = self.case.grammar, edit.symbol.step
        kind: DeviationKind = "plane" if edit.kind == "plane" else "mode"
        if step is None:
            # A symbol of no step: the message that asks for the next host of a reschedule.
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
            # The call itself was right; only the plane is to be read as expected.
            expected = tuple(f"{usual} {example}" for example in expected)
        return Deviation(kind, step, words, record, expected, record.caller, cause)

    def _failed_without_effect(self, witness: Witness, step: str | None) -> None:
        """Note a call that failed in a creation that succeeded: it was repeated, or its result not needed."""
        # Healthy creations contain refusals: neutron answers 404 to GET /v2.0/floatingips in every one.
        if self.ending.outcome not in GOOD or witness.ambiguous:
            return
        record = witness.record
        workflow = "creation" if self.case.trace.creates else "operation"
        called = f"{record.caller} > {record.callee} {record.operation} {record.result}"
        words = f"{called}: the {workflow} went on"
        self.notes.append(Note("retry", step, words))

    def takes_nowhere(self, witness: Witness) -> None:
        """Take a call that fits nowhere: it is extra, or out of order."""
        record = witness.record
        if witness.ambiguous or self.damaged:
            return
        if witness.failed and not witness.steps:
            # The call was repeated and failed again: the first failure is reported already.
            self._failed_without_effect(witness, self.case.grammar.earliest(witness.failed))
            return
        steps = witness.all_steps
        # Steps that may leave nothing on the wire are free to leave more than one call, too.
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

    *witnesses* returns the calls taken for a step.
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
    steps: Sequence[Step], expected: Callable[[str], tuple[str, ...]]
) -> Callable[[str], tuple[str, ...]]:
    """Return *expected* with the deadline added to each line: without it a late call looks as expected."""
    known = {step.name: step for step in steps}

    def within(name: str) -> tuple[str, ...]:
        title = f": {known[name].title}"
        time = f", within {time_words(known[name].deadline_ns or 0)}"
        return tuple(f"{line.removesuffix(title)}{time}{title}" for line in expected(name))

    return within


_Late = tuple[str, str, Call | None]
"""(step, message, the call that shows it)"""


def _late(
    case: Case, ending: Ending, coverage: StepCoverage, step: Step, own: Mapping[str, Sequence[Witness]]
) -> _Late | None:
    """Return how late *step* was; None when it met its deadline, or its times are not certain."""
    allowed_ns = step.deadline_ns or 0
    witnesses = own[step.name]
    if not witnesses:
        return _never_came(case, ending, coverage, step, own)
    if any(w.ambiguous for w in witnesses):
        return None
    calls = [w.call for w in witnesses]
    first = min(calls, key=lambda call: call.started_ns)
    last = max(calls, key=lambda call: call.ended_ns or call.started_ns)
    due_ns, after = _due(own, step.name, first.started_ns)
    # A call that has no answer yet lasts at least until the capture ends.
    open_call = next((w.call for w in witnesses if w.call.ended_ns is None and w.record.result == "?"), None)
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
    """Return how late an owed step is; None before its deadline.

    Of a stuck trace nothing is returned: the deviation `stalled` reports the same.
    """
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
    """Return since when *step* was due, and from which step on: the last call of another step before it."""
    # The last call of any step, not of the step before it in the document: steps may interleave.
    due_ns, after = 0, ""
    for name, witnesses in own.items():
        for witness in witnesses if name != step else ():
            call = witness.call
            # The outer calls of a request are open until the end: of an open call the start counts.
            ended = call.ended_ns is not None and call.ended_ns <= before_ns
            time_ns = call.ended_ns if ended and call.ended_ns is not None else call.started_ns
            if due_ns < time_ns <= before_ns:
                due_ns, after = time_ns, f"step {name}"
    return (due_ns, after) if after else (before_ns, "its beginning")
