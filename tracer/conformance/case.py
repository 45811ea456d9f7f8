"""One trace laid out for the check: each call with its line and the ways a grammar may take it.

The nouns of the judgement: Case, Witness, the hosts Tried, and the Ending.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from tracer.grammar import Candidate, Grammar
from tracer.model import Call, CallRecord, ConnectFacts, Outcome, RestFacts, Trace
from tracer.openstack.services import PORTAL, VRM
from tracer.openstack.states import TASK_FAILED

__all__ = ["GOOD", "Case", "Ending", "Tried", "Witness", "lay_out"]

GOOD = ("active", "done")
"""Outcomes of what succeeded."""


class Witness(NamedTuple):
    """A call of the trace that the grammar knows."""

    call: Call
    record: CallRecord
    candidates: tuple[Candidate, ...]
    steps: frozenset[str]
    """Steps it fits as it is."""
    failed: frozenset[str]
    """Steps it would fit if its result were good."""
    ambiguous: bool

    @property
    def all_steps(self) -> frozenset[str]:
        return self.steps | self.failed


class Tried(NamedTuple):
    """A host that was asked to build the VM."""

    host: str
    call: Call | None
    """The first call of the attempt; None when it is only known from what the host did."""
    addresses: frozenset[str]
    since_ns: int


@dataclass(slots=True, eq=False)
class Case:
    """Everything about one trace that the rules look at."""

    trace: Trace
    grammar: Grammar
    witnesses: list[Witness]
    records: dict[int, CallRecord]
    """serial of a call -> as it is shown"""
    attempts: list[Tried] = field(default_factory=list)
    """The hosts that were asked, in order of time (attempts.py)."""

    def step_calls(self, step: str) -> list[Witness]:
        return [w for w in self.witnesses if step in w.steps]

    def is_damaged(self) -> bool:
        """Tell whether bytes of what the grammar knows are missing in the captures."""
        return any(w.call.connection.gaps or getattr(w.call.facts, "broken", False) for w in self.witnesses)

    @property
    def first_ns(self) -> int:
        return self.trace.calls[0].started_ns

    def last_own_ns(self) -> int:
        """Return the time of the last sign of life of the creation itself.

        Polls do not count, nor do the late ends of the outer calls, which wait for their own time-outs.
        """
        latest = self.first_ns
        for call in self.trace.calls:
            if isinstance(call.facts, ConnectFacts) and call is not self.trace.calls[0]:
                # A service that has lost its broker keeps retrying the connection, whatever the trace.
                continue
            outer = self._is_outer(call)
            latest = max(latest, call.started_ns, 0 if outer else (call.ended_ns or 0))
        return latest

    def _is_outer(self, call: Call) -> bool:
        """Tell whether *call* is the request that began it all, on one of its legs."""
        to = self.grammar.begun_at(call.protocol, call.asked) if call.protocol == "REST" else frozenset()
        return bool(to - {PORTAL}) or (bool(to) and not call.connection.server_role)


@dataclass(slots=True)
class Ending:
    """How a creation ended."""

    outcome: Outcome
    stopped_at: str | None = None
    between: tuple[str, str] | None = None
    call: Call | None = None
    """The call that failed, or the last one that was made."""
    error: str = ""
    """The fault's own words."""
    time_ns: int = 0


def lay_out(
    trace: Trace,
    grammar: Grammar,
    record: Callable[[Call, bool], CallRecord],
) -> Case:
    """Return *trace* with lines and candidates; *record* resolves roles."""
    records: dict[int, CallRecord] = {}
    witnesses = []
    symbols = grammar.automaton.symbols
    for call in trace.calls:
        ambiguous = call.serial in trace.ambiguous
        shown = records[call.serial] = record(call, ambiguous)
        candidates = _candidates(grammar, call, shown)
        if candidates:
            steps = frozenset(
                symbols[c.symbol].step or ""
                for c in candidates
                if c.kind == "sync" and symbols[c.symbol].role == "step"
            )
            failed = frozenset(symbols[c.symbol].step or "" for c in candidates if c.kind == "failed")
            refused = frozenset(
                symbols[c.symbol].step or "" for c in candidates if symbols[c.symbol].role == "refused"
            )
            witnesses.append(
                Witness(call, shown, candidates, steps - {""}, (failed | refused) - {""}, ambiguous)
            )
    return Case(trace, grammar, witnesses, records)


def _candidates(grammar: Grammar, call: Call, shown: CallRecord) -> tuple[Candidate, ...]:
    """Return the ways to take a call; a VRM task that failed is answered 200 and is a failure."""
    facts = call.facts
    if isinstance(facts, RestFacts) and shown.callee == VRM and facts.status_text == TASK_FAILED:
        words = shown.line.rsplit(" ", 1)[0]
        return grammar.candidates(f"{words} 500")
    return grammar.candidates(shown.matched)
