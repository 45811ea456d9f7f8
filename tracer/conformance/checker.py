"""Turns a trace into a verdict, by a grammar.

lay out the calls (case) -> outcome (outcome, refusals) -> align the calls (explanation)
    -> status of each step (step_results) -> deviations (deviations)
    -> the verdict, with the hosts that were asked (attempts) and notes for operators (answers)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from tracer.conformance.answers import answers, redelivered
from tracer.conformance.attempts import attempt_details, hosts_asked
from tracer.conformance.case import GOOD, Case, Ending, lay_out
from tracer.conformance.deviations import findings
from tracer.conformance.explanation import explain
from tracer.conformance.hindrances import hinder
from tracer.conformance.outcome import host_unknown_after, judge
from tracer.conformance.sentences import host_words, retry_words, summary_words
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.step_results import step_results
from tracer.conformance.told import begun_step, rests_on_states
from tracer.conformance.visibility import Visibility
from tracer.grammar.grammar import Grammar
from tracer.model import (
    NO_BROKER,
    Broker,
    Call,
    CallRecord,
    Conformance,
    Deviation,
    Note,
    Outcome,
    RestFacts,
    StepResult,
    Trace,
    Verdict,
)
from tracer.openstack.services import NOVA, PROXY

__all__ = ["Checker"]


@dataclass(frozen=True, slots=True)
class Checker:
    """Checks traces against one grammar.

    *record* resolves a call's roles, plane and evidence; *coverage* answers what the captures could show;
    *addresses_of*, *fronts_of* and *host_of* return the addresses of a role, the addresses of the proxies
    before a role, and the host name of an address. Silence becomes `stuck` after *stall_ns*. *allow* is what
    the user accepts, as KIND or KIND:STEP. *broker* answers what happened at the broker apart from messages.
    *works_with* returns whether something that was seen works with a role that may not have been seen itself.
    """

    grammar: Grammar
    record: Callable[[Call, bool], CallRecord]
    coverage: Visibility
    addresses_of: Callable[[str], set[str]]
    fronts_of: Callable[[str], set[str]]
    host_of: Callable[[str], str | None]
    stall_ns: int = 60_000_000_000
    allow: tuple[str, ...] = ()
    broker: Broker = NO_BROKER
    works_with: Callable[[str], bool] = lambda role: False

    def check(self, trace: Trace) -> Verdict:
        """Return the verdict on *trace*."""
        case = lay_out(trace, self.grammar, self.record)
        case.attempts = hosts_asked(case, self.host_of)
        coverage = StepCoverage(
            case, self.coverage, self.addresses_of, self.fronts_of, self.stall_ns, self.works_with
        )
        # The outcome comes before the alignment: only a creation that succeeded must reach the end of the
        # grammar. It rests on evidence (a saved state, a refusal), not on the steps that were seen.
        ending = judge(case, coverage, self.stall_ns)
        hinder(case, self.broker, ending, self.addresses_of)
        explanation = explain(case, coverage, ending)
        # From here on, an ambiguous call that the alignment does not need is no evidence of this trace.
        case.witnesses = explanation.witnesses
        steps = step_results(case, coverage, ending, explanation)
        deviations, notes = findings(case, coverage, ending, explanation, steps)
        hosts = tuple(tried.host for tried in case.attempts)
        attempts = attempt_details(case, coverage, ending)
        host_unknown = host_unknown_after(case, ending, coverage)
        first = next(iter(self.grammar.attempt), None)
        # A creation that succeeds on another host conforms: the reschedule is nova's design, hence a note.
        if len(hosts) > 1 and ending.outcome in GOOD:
            notes.append(Note("retry", first, retry_words(case, attempts, is_known=host_unknown is None)))
        if host_unknown is not None:
            notes.append(Note("host", first, host_words(case, host_unknown)))
        notes += _absent(case, coverage, ending, steps)
        notes += [*redelivered(case), *answers(case, ending, coverage), *_shared(case)]
        deviations, accepted = self._accept(steps, deviations)
        # The leg nearest to the API may end at the proxy: then which API worker answered is not known.
        api = trace.created
        at_api = api is not None and case.records[api.serial].callee == self.grammar.api
        return Verdict(
            "",
            trace.request_id or None,
            trace.server_id or None,
            trace.project_id or None,
            trace.name or None,
            self._judged(ending.outcome, steps, deviations),
            ending.outcome,
            ending.stopped_at,
            ending.between,
            api.connection.server.address if api is not None and at_api else None,
            hosts[-1] if hosts else None,
            hosts,
            attempts,
            case.first_ns,
            max(ending.time_ns, case.last_own_ns()),
            summary_words(case, ending, coverage, steps, deviations),
            steps,
            tuple(deviations),
            (*notes, *accepted),
            _with_steps(case, explanation.step_of, steps),
            _log_ids(case),
            ending.time_ns if ending.outcome not in ("stuck", "unfinished") else None,
            self.grammar.name,
        )

    def _judged(
        self, outcome: Outcome, steps: Sequence[StepResult], deviations: Sequence[Deviation]
    ) -> Conformance:
        """Return whether the trace follows the grammar; *deviations* are those that are not accepted."""
        if deviations:
            return "deviates"
        unknown = any(
            self._is_unobserved(step) and not self._allows("unobserved", step.step) for step in steps
        )
        return "inconclusive" if unknown or outcome == "unfinished" else "conforms"

    def _is_unobserved(self, step: StepResult) -> bool:
        """Return whether *step* must happen and could not be seen; an optional step is no doubt."""
        return step.status == "unobserved" and step.step in self.grammar.required

    # --- what the user accepts ---

    def _allows(self, kind: str, step: str | None) -> bool:
        return kind in self.allow or f"{kind}:{step}" in self.allow

    def _accept(
        self, steps: Sequence[StepResult], deviations: Sequence[Deviation]
    ) -> tuple[list[Deviation], list[Note]]:
        """Return the deviations that the user does not accept, and notes on those that are accepted."""
        kept: list[Deviation] = []
        notes = []
        for deviation in deviations:
            if self._allows(deviation.kind, deviation.step):
                notes.append(Note("allowed", deviation.step, f"{deviation.kind}: {deviation.message}"))
            else:
                kept.append(deviation)
        notes += [
            Note("allowed", step.step, f"unobserved: {step.reason}")
            for step in steps
            if self._is_unobserved(step) and self._allows("unobserved", step.step)
        ]
        return kept, notes


def _absent(case: Case, coverage: StepCoverage, ending: Ending, steps: Sequence[StepResult]) -> list[Note]:
    """Return notes on the steps that this cloud has no service for, and what takes their place."""
    notes = []
    stopped_at = ending.stopped_at if ending.outcome != "unfinished" else None
    for step in steps:
        if step.status == "skipped" and (words := coverage.absent(step.step)):
            notes.append(Note("absent", step.step, words))
        elif step.status == "inferred" and step.step in case.required:
            for saved in step.calls[:1]:
                words = f"no {coverage.callee(step.step)} in these captures: {_saved(saved)}"
                notes.append(Note("absent", step.step, words, saved))
        elif step.step == stopped_at and rests_on_states(case, coverage, step.step):
            begun = begun_step(case, step.step)
            shown = begun.record if begun is not None else None
            seen = _saved(shown) if shown is not None else "nova's states would show that it is done"
            words = f"no {coverage.callee(step.step)} in these captures: {seen}"
            notes.append(Note("absent", step.step, words, shown))
    return notes


def _with_steps(
    case: Case, step_of: Mapping[int, str], steps: Sequence[StepResult]
) -> tuple[CallRecord, ...]:
    """Return the calls of the trace, each with the step that it was taken for, or that it alone shows."""
    shows = {call.index: step.step for step in reversed(steps) for call in step.calls}
    return tuple(
        record if step is None else replace(record, step=step)
        for serial, record in case.records.items()
        for step in [step_of.get(serial) or shows.get(record.index)]
    )


def _saved(record: CallRecord) -> str:
    return f"{record.caller} saved {record.action}"


def _shared(case: Case) -> list[Note]:
    """Return notes on the steps whose evidence may belong to another creation."""
    shared = {step for w in case.witnesses if w.ambiguous for step in w.steps}
    steps = [step for step in case.grammar.places if step in shared]
    return [Note("ambiguous", step, "some of its calls may belong to another creation") for step in steps]


def _log_ids(case: Case) -> tuple[tuple[str, str], ...]:
    """Return (service, request id) for each service that took part: what to search for in its log."""
    # nova's services pass one id on; glance, neutron and the others make one of their own for each request.
    found: dict[tuple[str, str], None] = {}
    trace = case.trace
    if trace.request_id:
        records = [w.record for w in case.witnesses]
        took_part = {record.caller for record in records}
        took_part |= {r.callee for r in records if r.result not in ("undelivered", "unroutable")}
        got = [role for role in NOVA if role in took_part]
        found[(", ".join(got) or case.grammar.api, trace.request_id)] = None
    for witness in case.witnesses:
        facts, record = witness.call.facts, witness.record
        own = facts.answered_id if isinstance(facts, RestFacts) else ""
        if own and own != trace.request_id and record.callee not in (*NOVA, PROXY):
            found[(record.callee, own)] = None
    return tuple(found)
