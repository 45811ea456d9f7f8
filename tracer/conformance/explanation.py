"""The cheapest explanation of a trace: the step of each call, what is missing, what is extra."""

# The alignment knows costs, not reasons. What is known beside the calls enters as costs: a step that could
# not be seen costs next to nothing when it is missing, and a reschedule costs much unless a second host was
# asked.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracer.alignment.alignment import MISSING, UNOBSERVED, Alignment, Candidate, Edit, Sync, align
from tracer.alignment.out_of_order import OutOfOrder, out_of_order
from tracer.conformance.case import GOOD, Case, Ending, Witness
from tracer.conformance.step_coverage import StepCoverage
from tracer.grammar import Grammar
from tracer.model import ConnectFacts

__all__ = ["Explanation", "Taken", "explain"]

Taken = tuple[Witness, str]
"""A call taken for a step, and how: sync · failed · plane · mode."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The alignment of a trace's calls with the grammar, and what follows from it."""

    witnesses: list[Witness]
    """The calls that were aligned. Ambiguous calls are among them only where they are needed."""
    edits: tuple[Edit, ...]
    """The alignment; an event in it is a position in `witnesses`."""
    taken: dict[str, list[Taken]]
    """step -> the calls taken for it; for a step of an attempt, those of the last attempt"""
    step_of: dict[int, str]
    """serial of a call -> the step that it is taken for, in any attempt"""
    out_of_order: list[OutOfOrder]

    def witnesses_of(self, step: str) -> list[Witness]:
        """Return the calls taken for *step*, of the last attempt where there were several."""
        return [witness for witness, _ in self.taken.get(step, ())]


def _is_owed(case: Case, step: str) -> bool:
    return step in case.required and not case.may_not_be_asked_for(step)


def explain(case: Case, coverage: StepCoverage, ending: Ending) -> Explanation:
    """Return the cheapest explanation of the calls of *case* by its grammar.

    A missing step costs UNOBSERVED instead of MISSING where the captures could not have shown it.
    """
    grammar = case.grammar
    costs = {
        step.name: MISSING if _is_owed(case, step.name) and coverage.would_show(step.name) else UNOBSERVED
        for step in grammar.steps
    }
    # Symbols of no step are those of a reschedule. Without this cost a repeated call could be explained by a
    # reschedule of which nothing was seen.
    retry = UNOBSERVED if len(case.attempts) > 1 else 2 * MISSING
    # Three choices: without the ambiguous calls, with all of them, with one of each kind. The cheapest wins;
    # of equal costs the first, so ambiguous calls count only where they explain something.
    ordered = _in_causal_order(case.witnesses, grammar, coverage)
    certain = [w for w in ordered if not w.ambiguous]
    choices = [certain]
    if len(certain) < len(ordered):
        choices += [ordered, _one_of_each(ordered)]

    def aligned(witnesses: Sequence[Witness]) -> Alignment:
        return align(
            grammar.automaton,
            [_event(case, ending, w) for w in witnesses],
            lambda step: costs.get(step or "", retry),
            # A creation that failed or is not over has not reached the end of the grammar.
            complete=ending.outcome in GOOD,
        )

    found = [(aligned(witnesses), witnesses) for witnesses in choices]
    best, witnesses = min(found, key=lambda each: each[0].cost)
    moved = out_of_order(best.edits, lambda event: witnesses[event].all_steps)
    taken: dict[str, list[Taken]] = {}
    step_of: dict[int, str] = {}
    last_ns = case.attempts[-1].since_ns if len(case.attempts) > 1 else 0
    for edit in best.edits:
        if not isinstance(edit, Sync) or not edit.symbol.step:
            continue
        witness, step = witnesses[edit.event], edit.symbol.step
        if step not in grammar.places or _records_failure(case, ending, witness, step):
            continue
        step_of[witness.call.serial] = step
        if step not in grammar.attempt or witness.call.started_ns >= last_ns:
            taken.setdefault(step, []).append((witness, edit.kind))
    return Explanation(witnesses, best.edits, taken, step_of, moved)


def _in_causal_order(witnesses: Sequence[Witness], grammar: Grammar, coverage: StepCoverage) -> list[Witness]:
    """Return *witnesses* in order of time, but what a request caused after the request.

    Two capture points have two clocks: a call that another point saw before the request that caused it shows
    their difference, and no deviation, as far as these clocks may differ. Calls of one point keep their
    order.
    """
    found: list[Witness] = []
    for witness in witnesses:
        own = [grammar.places[step] for step in witness.all_steps if step in grammar.inward]
        captures = {capture for capture, _ in witness.call.frames}
        at = len(found)
        for position, earlier in enumerate(found if own else ()):
            places = [grammar.places[step] for step in earlier.all_steps if step in grammar.places]
            elsewhere = captures.isdisjoint(capture for capture, _ in earlier.call.frames)
            if not (places and min(places) > max(own) and elsewhere):
                continue
            error_ns = coverage.clock_error_ns(witness.call, earlier.call)
            if error_ns is None or witness.call.started_ns - earlier.call.started_ns <= error_ns:
                at = position
                break
        found.insert(at, witness)
    return found


def _one_of_each(witnesses: Sequence[Witness]) -> list[Witness]:
    """Return *witnesses* without ambiguous calls that repeat an earlier ambiguous call of the same line."""
    # Two creations at the same time read the same: one of two equal calls may well be the other's.
    seen: set[str] = set()
    kept = []
    for witness in witnesses:
        if not witness.ambiguous or witness.record.line not in seen:
            kept.append(witness)
        if witness.ambiguous:
            seen.add(witness.record.line)
    return kept


def _event(case: Case, ending: Ending, witness: Witness) -> Sequence[Candidate]:
    """Return the candidates of a call; a refusal that only travels outwards costs nothing.

    A refusal of nova-api appears again on the outer legs and at the portal: that is one failure, not three.
    """
    symbols, inward = case.grammar.automaton.symbols, case.grammar.inward
    if isinstance(witness.call.facts, ConnectFacts) and ending.stopped_at in witness.failed:
        # One connection is for any of its steps: it failed for the one where the creation stopped.
        own = [c for c in witness.candidates if symbols[c.symbol].step == ending.stopped_at]
        witness = witness._replace(candidates=tuple(own) or witness.candidates)
    if ending.outcome not in ("rejected", "stuck", "deleted", "unfinished"):
        return witness.candidates
    return tuple(
        c._replace(cost=0) if c.kind == "failed" and symbols[c.symbol].step in inward else c
        for c in witness.candidates
    )


def _records_failure(case: Case, ending: Ending, witness: Witness, step: str) -> bool:
    """Return whether *witness* is the statement that records the failure of an operation.

    It has the same line as the one that records success, and would be taken for the last step.
    """
    places = case.grammar.places
    return (
        not case.trace.creates
        and ending.outcome == "error"
        and ending.stopped_at in places
        and ending.call is not None
        and witness.record.protocol == "SQL"
        and witness.call.started_ns > ending.call.started_ns
        and places[step] > places[ending.stopped_at]
    )
