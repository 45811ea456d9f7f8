"""Calls on the wrong plane or in the wrong mode, out of order, too many, and failures that did not matter."""

from __future__ import annotations

from tracer.alignment.edits import Extra, Sync
from tracer.alignment.out_of_order import OutOfOrder
from tracer.conformance.case import GOOD, Case, Ending, Witness
from tracer.conformance.explanation import Explanation
from tracer.conformance.sentences import expected_words, order_words
from tracer.conformance.step_coverage import StepCoverage
from tracer.model import CallRecord, Deviation, DeviationKind, Note

__all__ = ["unexplained_calls"]


def unexplained_calls(
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
