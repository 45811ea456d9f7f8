"""Trace + grammar -> verdict.

lay out the calls (case) -> how it ended (outcome, refusals) -> explain the calls (explanation)
    -> what became of each step (step_results) -> what deviates (deviations)
    -> the verdict, with the hosts that were tried (attempts) and what operators ask (answers)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tracer.conformance.answers import answers, redelivered
from tracer.conformance.attempts import attempt_details, hosts_asked
from tracer.conformance.case import GOOD, Case, lay_out
from tracer.conformance.coverage import Visibility
from tracer.conformance.deviations import findings
from tracer.conformance.explanation import explain
from tracer.conformance.outcome import blind_host, judge
from tracer.conformance.sentences import host_words, retry_words, summary_words
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.step_results import step_results
from tracer.grammar.grammar import Grammar
from tracer.model import (
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

    *record* resolves a call's roles, plane and evidence; *coverage* knows what the captures could show;
    *allow* is what the user accepts, as KIND or KIND:STEP.
    """

    grammar: Grammar
    record: Callable[[Call, bool], CallRecord]
    coverage: Visibility
    addresses_of: Callable[[str], set[str]]
    fronts_of: Callable[[str], set[str]]
    host_of: Callable[[str], str | None]
    stall_ns: int = 60_000_000_000
    allow: tuple[str, ...] = ()

    def check(self, trace: Trace) -> Verdict:
        """Return the verdict on *trace*."""
        case = lay_out(trace, self.grammar, self.record)
        case.attempts = hosts_asked(case, self.host_of)
        coverage = StepCoverage(case, self.coverage, self.addresses_of, self.fronts_of, self.stall_ns)
        ending = judge(case, coverage, self.stall_ns)
        explanation = explain(case, coverage, ending)
        # From here on, what another trace explains better is no witness of this one.
        case.witnesses = explanation.witnesses
        steps = step_results(case, coverage, ending, explanation)
        deviations, notes = findings(case, coverage, ending, explanation, steps)
        hosts = tuple(tried.host for tried in case.attempts)
        attempts = attempt_details(case, ending)
        blind = blind_host(case, ending, coverage)
        first = next(iter(self.grammar.attempt), None)
        if len(hosts) > 1 and ending.outcome in GOOD:
            notes.append(Note("retry", first, retry_words(case, attempts, is_known=blind is None)))
        if blind is not None:
            notes.append(Note("host", first, host_words(case, blind)))
        notes += [*redelivered(case), *answers(case, ending, coverage), *_shared(case)]
        deviations, accepted = self._accept(steps, deviations)
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
            tuple(
                replace(record, step=explanation.step_of[serial]) if serial in explanation.step_of else record
                for serial, record in case.records.items()
            ),
            _log_ids(case),
            ending.time_ns if ending.outcome not in ("stuck", "unfinished") else None,
        )

    def _judged(
        self, outcome: Outcome, steps: Sequence[StepResult], deviations: Sequence[Deviation]
    ) -> Conformance:
        if deviations:
            return "deviates"
        blind = any(self._is_blind(step) and not self._allows("unobserved", step.step) for step in steps)
        return "inconclusive" if blind or outcome == "unfinished" else "conforms"

    def _is_blind(self, step: StepResult) -> bool:
        return step.status == "unobserved" and step.step in self.grammar.required

    # --- what the user accepts ---

    def _allows(self, kind: str, step: str | None) -> bool:
        return kind in self.allow or f"{kind}:{step}" in self.allow

    def _accept(
        self, steps: Sequence[StepResult], deviations: Sequence[Deviation]
    ) -> tuple[list[Deviation], list[Note]]:
        """Return the deviations that are left, and the others as notes."""
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
            if self._is_blind(step) and self._allows("unobserved", step.step)
        ]
        return kept, notes


def _shared(case: Case) -> list[Note]:
    """Note the steps whose evidence may be another creation's."""
    shared = {step for w in case.witnesses if w.ambiguous for step in w.steps}
    steps = [step for step in case.grammar.places if step in shared]
    return [Note("ambiguous", step, "some of its calls may belong to another creation") for step in steps]


def _log_ids(case: Case) -> tuple[tuple[str, str], ...]:
    """Return, for each service that took part, the request id under which its log knows this VM."""
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
