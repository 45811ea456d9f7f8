"""Trace + grammar -> verdict: the status of each step, what deviates, what could not be seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from tracer.conformance.alignment import MISSING, UNOBSERVED, Candidate, Extra, Missing, Move, Sync, align
from tracer.conformance.answers import answers
from tracer.conformance.case import Case, Sight, Witness, lay_out
from tracer.conformance.deadlines import late_steps
from tracer.conformance.displaced import displaced
from tracer.conformance.grammar import Grammar, Step
from tracer.conformance.legs import example_of, expected_of
from tracer.conformance.outcome import GOOD, Ending, blind_host, failing_of_attempt, judge, only_turned_away
from tracer.conformance.run import judge_run
from tracer.conformance.sight import StepSight
from tracer.conformance.times import with_waits
from tracer.conformance.words import (
    cause_of,
    failure_words,
    host_words,
    missing_words,
    note_of_broker,
    order_words,
    owing_role,
    peer_of,
    retry_words,
    shown_for,
    stall_words,
    summary_words,
)
from tracer.model import Attempt, Call, CallRecord, Deviation, Note, RestFacts, StepResult, Trace, Verdict

__all__ = ["Checker"]

_NOVA = ("nova-api", "nova-conductor", "nova-scheduler", "nova-compute")


@dataclass(frozen=True, slots=True)
class Checker:
    """Checks traces against one grammar.

    *record* resolves a call's roles, plane and evidence; *sight* knows what the captures could show.
    """

    grammar: Grammar
    record: Callable[[Call, bool], CallRecord]
    sight: Sight
    addresses_of: Callable[[str], set[str]]
    fronts_of: Callable[[str], set[str]]
    host_of: Callable[[str], str | None]
    stall_ns: int = 60_000_000_000
    allow: tuple[str, ...] = ()

    def check(self, trace: Trace) -> Verdict:
        """Return the verdict on *trace*."""
        case = lay_out(trace, self.grammar, self.record, self.host_of)
        sight = StepSight(case, self.sight, self.addresses_of, self.fronts_of, self.stall_ns)
        ended = judge if trace.creates else judge_run
        ending = ended(case, sight, self.stall_ns)
        return _Report(self, case, sight, ending).verdict()


def _one_of_each(witnesses: Sequence[Witness]) -> list[Witness]:
    """Leave out what is like an earlier call and as uncertain: one of the two may be another trace's."""
    seen: set[str] = set()
    kept = []
    for witness in witnesses:
        if not witness.ambiguous or witness.record.line not in seen:
            kept.append(witness)
        if witness.ambiguous:
            seen.add(witness.record.line)
    return kept


class _Report:
    """Builds the verdict of one case."""

    def __init__(self, checker: Checker, case: Case, sight: StepSight, ending: Ending) -> None:
        self.checker, self.case, self.sight, self.ending = checker, case, sight, ending
        self.grammar = checker.grammar
        self.taken: dict[int, tuple[str, str]] = {}
        """serial of a call -> (step, kind)"""
        self.moves = self._align()
        self.deviations: list[Deviation] = []
        self.notes: list[Note] = []
        self.displaced = displaced(self.moves, lambda event: self.case.witnesses[event].all_steps)

    # --- alignment ---

    def _align(self) -> tuple[Move, ...]:
        """Explain the calls by the grammar; what may be missing for want of sight is cheap."""
        grammar, ending = self.grammar, self.ending
        required = {s.name for s in grammar.steps if s.presence == "required"}
        costs = {
            step: (MISSING if self.sight.would_show(step) else UNOBSERVED) if step in required else UNOBSERVED
            for step in (s.name for s in grammar.steps)
        }
        # Nothing explains itself by a reschedule that nobody saw, unless a second host was asked.
        retry = UNOBSERVED if len(self.case.attempts) > 1 else 2 * MISSING
        # What may belong to another creation is only asked where the rest does not explain itself.
        certain = [w for w in self.case.witnesses if not w.ambiguous]
        choices = [certain]
        if len(certain) < len(self.case.witnesses):
            choices += [self.case.witnesses, _one_of_each(self.case.witnesses)]
        found = [
            align(
                grammar.automaton,
                [self._event(w) for w in witnesses],
                lambda step: costs.get(step or "", retry),
                complete=ending.outcome in GOOD,
            )
            for witnesses in choices
        ]
        best = min(range(len(found)), key=lambda i: (found[i].cost, i))
        self.case.witnesses = choices[best]
        for move in found[best].moves:
            if isinstance(move, Sync):
                witness = self.case.witnesses[move.event]
                if move.symbol.step and not self._records_failure(witness, move.symbol.step):
                    self.taken[witness.call.serial] = (move.symbol.step, move.kind)
        return found[best].moves

    def _records_failure(self, witness: Witness, step: str) -> bool:
        """Tell whether a statement records the failure: it looks like one that records success."""
        ending, order = self.ending, [s.name for s in self.grammar.steps]
        return (
            not self.case.trace.creates
            and ending.outcome == "error"
            and ending.stopped_at in order
            and ending.call is not None
            and witness.record.protocol == "SQL"
            and witness.call.started_ns > ending.call.started_ns
            and order.index(step) > order.index(ending.stopped_at)
        )

    def _event(self, witness: Witness) -> Sequence[Candidate]:
        """Return the ways to take a call: a refusal that only travels outwards costs nothing."""
        symbols = self.grammar.automaton.symbols
        return [
            c._replace(cost=0)
            if c.kind == "failed"
            and symbols[c.symbol].step in self.grammar.inward
            and self.ending.outcome in ("rejected", "stuck", "unfinished")
            else c
            for c in witness.candidates
        ]

    # --- steps ---

    def _step_results(self) -> list[StepResult]:
        order = {s.name: i for i, s in enumerate(self.grammar.steps)}
        seen = [order[step] for step, _ in self.taken.values()]
        furthest = max(seen, default=-1)
        if self.ending.stopped_at in order:
            furthest = max(furthest, order[self.ending.stopped_at])
        if self.ending.outcome in GOOD:
            furthest = len(order)
        return [self._step(step, order[step.name] < furthest) for step in self.grammar.steps]

    def _step(self, step: Step, passed: bool) -> StepResult:
        witnesses = self._witnesses(step.name)
        failed = self.ending.stopped_at == step.name and self.ending.outcome in ("rejected", "error")
        reason = ""
        if failed:
            status = "failed"
            if not witnesses and self.ending.call is not None:
                record = self.case.records.get(self.ending.call.serial)
                shown = record is not None and record.operation.startswith("CONNECT")
                told = (replace(record, step=step.name),) if record is not None and shown else ()
                return StepResult(step.name, step.title, status, calls=told)
        elif any(
            kind in ("sync", "plane", "mode") or step.name in self.grammar.inward for _, kind in witnesses
        ):
            taken = [w for w, _ in witnesses] if step.name not in self.grammar.inward else []
            status = "failed" if only_turned_away(step.name, taken, self.ending) else "seen"
        elif self.ending.between is not None and not passed and step.presence == "required":
            reason = self.sight.why_not(step.name) or ""
            status = "unobserved" if reason else "not_reached"
        elif not passed:
            status = "not_reached"
        elif step.presence == "inferred":
            status = "inferred"
        elif step.presence == "optional":
            # Who was never seen was never needed, unless the request itself says that it is.
            needed = self._needs_storage(step.name)
            reason = self.sight.why_not(step.name, strict=needed) or ""
            status = "unobserved" if reason else "missing" if needed else "skipped"
        else:
            reason = self.sight.why_not(step.name) or ""
            status = "unobserved" if reason else "missing"
        calls = tuple(replace(self.case.records[w.call.serial], step=step.name) for w, _ in witnesses)
        started, duration = self._times([w for w, _ in witnesses])
        return StepResult(step.name, step.title, status, started, duration, calls, reason)

    def _needs_storage(self, step: str) -> bool:
        """Tell whether *step* asks for storage, and the VM boots from a volume (so says the request)."""
        created = self.case.trace.created
        facts = created.facts if created is not None else None
        asks = any(leg.callee == "cinder-api" for leg in self.grammar.legs(step))
        return asks and isinstance(facts, RestFacts) and facts.volume

    def _witnesses(self, step: str) -> list[tuple[Witness, str]]:
        """Return the calls taken for *step*, of the last attempt where there were several."""
        found = [
            (w, self.taken[w.call.serial][1])
            for w in self.case.witnesses
            if self.taken.get(w.call.serial, ("", ""))[0] == step
        ]
        attempts = self.case.attempts
        if len(attempts) > 1 and step in ("7", "8a", "8b", "8c"):
            return [(w, k) for w, k in found if w.call.started_ns >= attempts[-1].since_ns]
        return found

    @staticmethod
    def _times(witnesses: list[Witness]) -> tuple[int | None, int | None]:
        """Return begin and length of a step; nothing when any of its evidence is ambiguous."""
        if not witnesses or any(w.ambiguous for w in witnesses):
            return None, None
        begin = min(w.call.started_ns for w in witnesses)
        ends = [w.call.ended_ns for w in witnesses if w.call.ended_ns is not None]
        return begin, max(0, max(ends) - begin) if ends else None

    # --- deviations and notes ---

    def _deviate(self, steps: list[StepResult]) -> None:
        ending = self.ending
        if ending.outcome in ("rejected", "error"):
            call = shown_for(self.case, ending)
            self.deviations.append(
                Deviation(
                    "failed",
                    ending.stopped_at,
                    failure_words(self.case, ending),
                    call,
                    self._expected(ending),
                    peer_of(self.case, ending),
                    cause_of(self.case, ending),
                )
            )
        elif ending.outcome == "stuck":
            words = stall_words(self.case, ending, self.sight)
            self.deviations.append(
                Deviation(
                    "stalled",
                    ending.stopped_at,
                    words,
                    self._record(ending.call),
                    self._expected(ending),
                    peer_of(self.case, ending),
                    cause_of(self.case, ending),
                )
            )
        for step in steps:
            if step.status == "missing":
                words = missing_words(step, steps)
                self.deviations.append(
                    Deviation(
                        "missing",
                        step.step,
                        words,
                        None,
                        self._witness_words(step.step),
                        owing_role(self.case, step.step),
                        "never came",
                    )
                )
        self._incomplete(steps)
        self.deviations += late_steps(
            self.case,
            ending,
            self.sight,
            lambda step: [witness for witness, _ in self._witnesses(step)],
            self._witness_words,
        )
        self._misfits(blind=any(step.status == "unobserved" for step in steps))
        self._order()

    def _incomplete(self, steps: list[StepResult]) -> None:
        """Report a step of which only later calls came: its first call should have been seen, too.

        Of several attempts an earlier one may lie before the capture: nothing is said there.
        """
        seen = {s.step: s for s in steps if s.status == "seen"}
        if len(self.case.attempts) > 1 or self._is_damaged():
            return
        word = [move for move in self.moves if not isinstance(move, Extra)]
        for move, following in pairwise(word):
            if not isinstance(move, Missing) or not isinstance(following, Sync):
                continue
            if move.symbol.step not in seen or move.symbol.step != following.symbol.step:
                continue
            step = seen[move.symbol.step]
            if self._required(step.step) and self.sight.would_show(step.step):
                way = example_of(self.grammar.terminals[move.symbol.terminal].pattern)
                words = f"step {step.step} ({step.title}): {way} never came, though later calls of it did"
                peer = owing_role(self.case, step.step)
                self.deviations.append(
                    Deviation(
                        "missing", step.step, words, None, (f"{way}: {step.title}",), peer, "never came"
                    )
                )

    def _record(self, call: Call | None) -> CallRecord | None:
        return self.case.records.get(call.serial) if call is not None else None

    def _expected(self, ending: Ending) -> tuple[str, ...]:
        step = ending.stopped_at or (ending.between[1] if ending.between else None)
        return self._witness_words(step) if step else ()

    def _witness_words(self, step: str) -> tuple[str, ...]:
        """Return what would have witnessed *step*, in words."""
        found = next((s for s in self.grammar.steps if s.name == step), None)
        if found is None:
            return ()
        ways = dict.fromkeys(expected_of(self.grammar.terminals[name].pattern) for name in found.terminals)
        return tuple(f"{way}: {found.title}" for way in ways)

    def _misfits(self, blind: bool) -> None:
        """Report calls on the wrong plane, in the wrong mode, and those that fit nowhere.

        Where steps could not be seen, no call is too many: what would explain it may be among them.
        """
        noted: set[tuple[str, str]] = set()
        for move in self.moves:
            if isinstance(move, Sync):
                witness = self.case.witnesses[move.event]
                step = move.symbol.step
                if move.symbol.note and step and (move.symbol.note, step) not in noted:
                    noted.add((move.symbol.note, step))
                    record = witness.record
                    documented = "RPC" if record.protocol == "REST" else "REST"
                    self.notes.append(
                        Note(
                            move.symbol.note,
                            step,
                            f"documented as {documented}, observed as {record.protocol}",
                        )
                    )
                if (
                    move.kind in ("plane", "mode")
                    and not witness.ambiguous
                    and (move.kind == "mode" or self.checker.sight.plane_is_given(witness.call.connection))
                    and (move.kind, step or "") not in noted
                ):
                    noted.add((move.kind, step or ""))
                    self.deviations.append(self._misplaced(move.kind, step or "", witness.record))
                elif move.kind == "failed":
                    self._failed_on_the_way(witness, step)
            elif isinstance(move, Extra) and not blind:
                self._extra(self.case.witnesses[move.event])

    def _misplaced(self, kind: str, step: str, record: CallRecord) -> Deviation:
        """Return that a step came on another plane, or in another mode, than is documented."""
        legs = self.grammar.legs(step)
        if kind == "plane":
            came, documented = f"on {record.plane}", [leg.plane for leg in legs]
        else:
            came, documented = f"as {record.protocol}", [leg.protocol for leg in legs]
        usual = " or ".join(dict.fromkeys(documented))
        title = next((s.title for s in self.grammar.steps if s.name == step), "")
        words = f"step {step} ({title}) came {came}; documented is {usual}"
        return Deviation(
            kind, step, words, record, self._witness_words(step), record.caller, f"came {came}, not {usual}"
        )

    def _failed_on_the_way(self, witness: Witness, step: str | None) -> None:
        """A call that failed in a creation that went on: noted, since it was asked again or not needed."""
        if self.ending.outcome not in GOOD or witness.ambiguous:
            return
        record = witness.record
        self.notes.append(
            Note(
                "retry",
                step,
                f"{record.caller} > {record.callee} {record.operation} {record.result}: went on all the same",
            )
        )

    def _extra(self, witness: Witness) -> None:
        record = witness.record
        if witness.ambiguous or self._is_damaged():
            return
        if witness.failed and not witness.steps:
            # Asked again, refused again: the first one tells it.
            self._failed_on_the_way(witness, min(witness.failed))
            return
        steps = sorted(witness.steps | witness.failed)
        presence = {s.name: s.presence for s in self.grammar.steps}
        if steps and all(presence.get(s) == "inferred" for s in steps):
            return
        deviation = Deviation("extra", min(steps, default=None), f"{record.line} fits nowhere", record)
        moved = next((d for d in self.displaced if not d.steps.isdisjoint(steps)), None)
        if moved is not None:
            if any(d.kind == "order" and d.step in moved.steps for d in self.deviations):
                return
            words = order_words(moved, record)
            deviation = Deviation("order", moved.step, words, record, (), record.caller)
        if not any((d.kind, d.step) == (deviation.kind, deviation.step) for d in self.deviations):
            self.deviations.append(deviation)

    def _order(self) -> None:
        """A missing and an extra of one step are one finding: out of order. The root comes first."""
        told = {d.step for d in self.deviations if d.kind == "order"}
        moved = {step for d in self.displaced if not d.steps.isdisjoint(told) for step in d.steps}
        places = {s.name: i for i, s in enumerate(self.grammar.steps)}
        self.deviations = [d for d in self.deviations if not (d.kind == "missing" and d.step in moved)]
        # How the whole ended tells it all; else what went wrong at an earlier step explains what follows.
        self.deviations.sort(
            key=lambda d: (d.kind not in ("failed", "stalled"), places.get(d.step or "", len(places)))
        )

    def _is_damaged(self) -> bool:
        return any(
            w.call.connection.gaps or getattr(w.call.facts, "broken", False) for w in self.case.witnesses
        )

    # --- attempts ---

    def _attempts(self) -> tuple[Attempt, ...]:
        details = []
        attempts = self.case.attempts
        for i, tried in enumerate(attempts):
            last = i == len(attempts) - 1
            until_ns = None if last else attempts[i + 1].since_ns
            broken = failing_of_attempt(self.case, i)
            stopped, error = (min(broken.failed), broken.call.error) if broken is not None else (None, "")
            if last:
                stopped = self.ending.stopped_at if self.ending.outcome not in GOOD else None
                error = (error or self.ending.error) if self.ending.outcome == "error" else ""
            end_ns = until_ns or self.ending.time_ns or self.case.last_own_ns()
            steps = self._attempt_steps(tried.since_ns, until_ns, stopped)
            duration = end_ns - tried.since_ns if end_ns >= tried.since_ns else None
            details.append(Attempt(tried.host, stopped, error, tried.since_ns, duration, steps))
        return tuple(details)

    def _attempt_steps(
        self, since_ns: int, until_ns: int | None, stopped: str | None
    ) -> tuple[StepResult, ...]:
        if len(self.case.attempts) < 2:
            return ()
        results = []
        for step in self.grammar.steps:
            if step.name not in ("7", "8a", "8b", "8c"):
                continue
            mine = [
                w
                for w in self.case.witnesses
                if step.name in w.steps | w.failed
                and since_ns <= w.call.started_ns
                and (until_ns is None or w.call.started_ns < until_ns)
            ]
            if step.name == stopped:
                status = "failed"
            else:
                status = "seen" if any(step.name in w.steps for w in mine) else "not_reached"
                if not mine and step.presence == "optional":
                    status = "skipped"
            started, duration = self._times(mine)
            calls = tuple(w.record for w in mine)
            results.append(StepResult(step.name, step.title, status, started, duration, calls))
        return tuple(results)

    # --- the whole ---

    def verdict(self) -> Verdict:
        retried = "7" if len(self.case.attempts) > 1 else None
        steps = with_waits(self._step_results(), retried)
        self._deviate(steps)
        case, ending, trace = self.case, self.ending, self.case.trace
        hosts = tuple(t.host for t in case.attempts)
        attempts = self._attempts()
        blind = blind_host(case, ending, self.sight)
        if len(hosts) > 1 and ending.outcome in GOOD:
            self.notes.append(Note("retry", "7", retry_words(case, attempts, is_known=blind is None)))
        if blind is not None:
            self.notes.append(Note("host", "7", host_words(case, blind)))
        self.notes += note_of_broker(case)
        self.notes += answers(case, ending, self.sight)
        if trace.ambiguous & {w.call.serial for w in case.witnesses}:
            shared = sorted({s for w in case.witnesses if w.ambiguous for s in w.steps})
            for step in shared:
                self.notes.append(Note("ambiguous", step, "some of its calls may belong to another creation"))
        self._accept(steps)
        judged = self._judged(steps)
        records = [
            replace(record, step=self.taken[serial][0]) if serial in self.taken else record
            for serial, record in case.records.items()
        ]
        api = trace.created
        return Verdict(
            "",
            trace.request_id or None,
            trace.server_id or None,
            trace.project_id or None,
            trace.name or None,
            judged,
            ending.outcome,
            ending.stopped_at,
            ending.between,
            api.connection.server.address
            if api is not None and case.records[api.serial].callee == "nova-api"
            else None,
            hosts[-1] if hosts else None,
            hosts,
            attempts,
            case.first_ns,
            max(ending.time_ns, case.last_own_ns()),
            summary_words(case, ending, self.sight, steps, self.deviations),
            tuple(steps),
            tuple(self.deviations),
            tuple(self.notes),
            tuple(records),
            self._log_ids(),
            ending.time_ns if ending.outcome not in ("stuck", "unfinished") else None,
        )

    def _judged(self, steps: list[StepResult]) -> str:
        if self.deviations:
            return "deviates"
        blind = [
            s
            for s in steps
            if s.status == "unobserved" and self._required(s.step) and not self._allowed("unobserved", s.step)
        ]
        if self.ending.outcome == "unfinished" or blind:
            return "inconclusive"
        return "conforms"

    def _required(self, step: str) -> bool:
        return self.grammar.step(step).presence == "required"

    def _allowed(self, kind: str, step: str | None) -> bool:
        return kind in self.checker.allow or f"{kind}:{step}" in self.checker.allow

    def _accept(self, steps: list[StepResult]) -> None:
        """Turn what the user allows into notes."""
        kept = []
        for deviation in self.deviations:
            if self._allowed(deviation.kind, deviation.step):
                self.notes.append(Note("allowed", deviation.step, f"{deviation.kind}: {deviation.message}"))
            else:
                kept.append(deviation)
        self.deviations = kept
        for step in steps:
            if (
                step.status == "unobserved"
                and self._required(step.step)
                and self._allowed("unobserved", step.step)
            ):
                self.notes.append(Note("allowed", step.step, f"unobserved: {step.reason}"))

    def _log_ids(self) -> tuple[tuple[str, str], ...]:
        """Return, for each service that took part, the request id under which its log knows this VM."""
        found: dict[tuple[str, str], None] = {}
        trace = self.case.trace
        if trace.request_id:
            ends = {(w.record.caller, True) for w in self.case.witnesses}
            ends |= {
                (w.record.callee, w.record.result not in ("undelivered", "unroutable"))
                for w in self.case.witnesses
            }
            got = [role for role in _NOVA if (role, True) in ends]
            found[(", ".join(got) or "nova-api", trace.request_id)] = None
        for witness in self.case.witnesses:
            facts, record = witness.call.facts, witness.record
            own = facts.answered_id if isinstance(facts, RestFacts) else ""
            if own and own != trace.request_id and not record.callee.startswith(("nova", "lb")):
                found[(record.callee, own)] = None
        return tuple(found)
