"""One trace prepared for the check: each call with its line and the symbols that it may be taken for.

Holds the types of the judgement: Case, Witness, Tried (a host) and Ending.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from tracer.grammar import Candidate, Grammar
from tracer.model import Call, CallRecord, ConnectFacts, Outcome, RestFacts, Trace
from tracer.openstack.rest import NO_NETWORK, UNNAMED, networks_listed
from tracer.openstack.services import HOST_SERVICE, NEUTRON_SERVER, PORTAL
from tracer.openstack.states import BAD

__all__ = ["GOOD", "Case", "Ending", "Hindrance", "Said", "Tried", "Witness", "lay_out"]

GOOD = ("active", "done")
"""Outcomes of success: of a creation, and of an operation on an existing server."""


class Witness(NamedTuple):
    """A call of the trace that the grammar knows: evidence of one or several steps."""

    call: Call
    record: CallRecord
    candidates: tuple[Candidate, ...]
    steps: frozenset[str]
    """Steps that it fits as it is."""
    failed: frozenset[str]
    """Steps that it would fit if its result were good, and those that refuse by it."""
    ambiguous: bool
    """It may belong to another trace: then it makes no step failed and has no certain time."""

    @property
    def all_steps(self) -> frozenset[str]:
        """The steps that it fits, with its own result or with a good one."""
        return self.steps | self.failed


class Said(NamedTuple):
    """A call in which nova says at which step it is (the grammar's rule `states`)."""

    call: Call
    record: CallRecord
    begun: str
    """The step that has begun; empty where none is told."""
    shown: frozenset[str]
    """The steps that are done."""
    is_shown: bool
    """It says that something is done, by the rule `states` or as the witness of a step."""

    @property
    def word(self) -> str:
        """The state, as nova names it."""
        return self.record.action.rpartition(" ")[2]


class Tried(NamedTuple):
    """A host that was asked to build the VM."""

    host: str
    call: Call | None
    """The message that asks the host; None when the host is known only by its own calls."""
    addresses: frozenset[str]
    since_ns: int


@dataclass(eq=False)
class Case:
    """Everything about one trace that the rules look at."""

    trace: Trace
    grammar: Grammar
    witnesses: list[Witness]
    records: dict[int, CallRecord]
    """serial of a call -> the record that reports show"""
    attempts: list[Tried] = field(default_factory=list)
    """The hosts that were asked, in order of time (attempts.py)."""
    said: list[Said] = field(default_factory=list)
    """What nova says of itself, in order of time (told.py)."""
    _last_own_ns: int | None = None

    def step_calls(self, step: str) -> list[Witness]:
        """Return the calls that fit *step* as they are."""
        return [w for w in self.witnesses if step in w.steps]

    def is_harmless(self, call: Call) -> bool:
        """Return whether *call* is a refusal that a healthy run contains."""
        return self.grammar.alphabet.is_harmless(self.records[call.serial].line)

    @cached_property
    def required(self) -> frozenset[str]:
        """The steps that must happen: those of the grammar, without what the request does not ask for."""
        return frozenset(step for step in self.grammar.required if not self.not_asked_for(step))

    def not_asked_for(self, step: str) -> str:
        """Return, in words, that the request asks for nothing of *step*; '' where it does, or may."""
        if self._networks_said == NO_NETWORK:
            words = "the request asks for no network"
        elif self._networks_said == UNNAMED and self._has_networks is False:
            words = "the request names no network, and the project has none"
        else:
            return ""
        return words if self._is_of_network(step) else ""

    def may_not_be_asked_for(self, step: str) -> str:
        """Return, in words, why nobody can say whether the request asks for *step*; '' where one can."""
        if self._networks_said != UNNAMED or self._has_networks is not None:
            return ""
        words = "the request names no network; whether the project has one is not in the captures"
        return words if self._is_of_network(step) else ""

    def _is_of_network(self, step: str) -> bool:
        ends = {(leg.caller, leg.callee) for leg in self.grammar.legs(step)}
        return ends == {(HOST_SERVICE, NEUTRON_SERVER)}

    @cached_property
    def _networks_said(self) -> str:
        """What the request says of networks, as `RestFacts.networks`."""
        created = self.trace.created
        return created.facts.networks if created is not None and isinstance(created.facts, RestFacts) else ""

    @cached_property
    def _has_networks(self) -> bool | None:
        """Whether the project may use a network, by neutron's last answers to its host; None where unknown.

        It has none only if both lists are empty, that of its own and that of the shared ones.
        """
        listed: dict[str, int | None] = {}
        for call in self.trace.calls:
            facts = call.facts
            if not isinstance(facts, RestFacts) or facts.method != "GET":
                continue
            which = networks_listed(facts.path, facts.query)
            if which and self.records[call.serial].caller == HOST_SERVICE:
                listed[which] = facts.listed
        if any(listed.values()):
            return True
        return False if listed.get("own") == listed.get("shared") == 0 else None

    def is_damaged(self) -> bool:
        """Return whether the captures lack bytes of calls or connections that the grammar knows."""
        return any(w.call.connection.gaps or getattr(w.call.facts, "broken", False) for w in self.witnesses)

    @property
    def first_ns(self) -> int:
        """Start of the trace's first call."""
        return self.trace.calls[0].started_ns

    def last_own_ns(self) -> int:
        """Return the time of the last activity of the creation itself.

        Polls do not count, nor do the late ends of the outer calls, which wait for their own time-outs.
        """
        # Otherwise nothing would ever be stuck: in fail-compute-down the creation's own calls stop 26 s
        # before the end, the SC's polls 0.4 s before it; in fail-mq-down the POST ends 40 s after the rest.
        if self._last_own_ns is not None:
            # It is asked once for each step.
            return self._last_own_ns
        latest = self.first_ns
        for call in self.trace.calls:
            if isinstance(call.facts, ConnectFacts) and call is not self.trace.calls[0]:
                # A service that has lost its broker keeps retrying the connection, trace or no trace.
                continue
            outer = self._is_outer(call)
            latest = max(latest, call.started_ns, 0 if outer else (call.ended_ns or 0))
        self._last_own_ns = latest
        return latest

    def _is_outer(self, call: Call) -> bool:
        """Return whether *call* is a leg of the request that began the trace, or the call to the portal."""
        to = self.grammar.begun_at(call.protocol, call.asked) if call.protocol == "REST" else frozenset()
        return bool(to - {PORTAL}) or (bool(to) and not call.connection.server_role)


class Hindrance(NamedTuple):
    """What at the broker kept the creation from going on."""

    words: str
    peer: str
    """The role that did it."""


@dataclass(slots=True)
class Ending:
    """The outcome of a creation, where it stopped, and the evidence."""

    outcome: Outcome
    stopped_at: str | None = None
    """The step that failed, or that is owed; None where it is not known, or nothing stopped."""
    between: tuple[str, str] | None = None
    """Where `stopped_at` is not known: the last step seen, and the first that may have failed."""
    call: Call | None = None
    """The call that failed, or the last call."""
    error: str = ""
    """The text of the fault."""
    how: str = ""
    """What failed, in words, where `call` alone does not say it."""
    peer: str = ""
    """Who failed, where `call` alone does not say it."""
    proxy: Call | None = None
    """The leg that a proxy answered by itself, because of a time-out or by its own rules."""
    hindrance: Hindrance | None = None
    """What at the broker kept it from going on (hindrances.py)."""
    time_ns: int = 0
    """When the outcome was known; for what is stuck or unfinished the last activity."""
    by_host: bool = False
    """The host that was asked last said so: `call` is its message, or its last state."""
    state: str = ""
    """The state in which the host stopped, as nova names it."""
    expected: str = ""
    """The line of the call that would have been good, where it is none of the step's own."""
    left: str = ""
    """What was left after the last host gave up: that no other one was there."""


def lay_out(
    trace: Trace,
    grammar: Grammar,
    record: Callable[[Call, bool], CallRecord],
) -> Case:
    """Return *trace* with the record and the candidates of each call.

    *record* resolves roles, plane and evidence of a call; its second argument says that it is ambiguous.
    """
    records: dict[int, CallRecord] = {}
    witnesses = []
    said = []
    symbols = grammar.automaton.symbols
    for call in trace.calls:
        ambiguous = call.serial in trace.ambiguous
        shown = records[call.serial] = record(call, ambiguous)
        candidates = _candidates(grammar, call, shown)
        if shown.action and call.protocol != "REST" and not ambiguous:
            said += _said(grammar, call, shown, bool(candidates))
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
    return Case(trace, grammar, witnesses, records, said=said)


def _said(grammar: Grammar, call: Call, shown: CallRecord, is_step: bool) -> list[Said]:
    """Return what *call* says of the steps, as a list of one; [] where it says nothing."""
    told = grammar.told(shown.matched)
    if not told and not is_step:
        return []
    begun = next((state.step for state in told if not state.is_done), "")
    done = frozenset(state.step for state in told if state.is_done)
    return [Said(call, shown, begun, done, bool(done) or is_step)]


def _candidates(grammar: Grammar, call: Call, shown: CallRecord) -> tuple[Candidate, ...]:
    """Return the symbols that a call may be taken for, with their costs."""
    # The VRM reports a failed task, neutron a failed binding and cinder a volume in error with status 200. To
    # the grammar that is a call with a bad result, so its line is matched with status 500.
    facts = call.facts
    if isinstance(facts, RestFacts) and facts.condition == BAD:
        words = shown.line.rsplit(" ", 1)[0]
        return grammar.candidates(f"{words} 500")
    # A grammar that names no states takes all statements and messages of a kind for the same.
    found = grammar.candidates(shown.matched)
    return found or (grammar.candidates(shown.line) if shown.action and call.protocol != "REST" else ())
