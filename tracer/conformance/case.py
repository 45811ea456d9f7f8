"""One trace laid out for the check: each call with its line and the ways a grammar may take it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from tracer.alignment.alignment import Candidate
from tracer.grammar.grammar import Grammar
from tracer.model import Call, CallRecord, ConnectFacts, Connection, RestFacts, RpcFacts, Trace

__all__ = ["ATTEMPT_STEPS", "Case", "Sight", "Tried", "Witness", "lay_out"]

SAME_ATTEMPT_NS = 1_000_000_000
"""Two messages to one host within a second are one attempt whose two legs could not be joined."""


ATTEMPT_STEPS = ("7", "8a", "8b", "8c")
"""Steps of the documented creation through which every host goes that is asked."""


class Sight(Protocol):
    """What the checker asks about the captures (tracer/conformance/coverage.py)."""

    def planes(self) -> set[str]: ...

    def span_ns(
        self, plane: str, protocol: str = "", ends: Sequence[str] | set[str] = ()
    ) -> tuple[int, int]: ...

    def one_way(
        self, protocol: str, caller: Sequence[str] | set[str], callee: Sequence[str] | set[str]
    ) -> bool: ...

    def plane_is_given(self, connection: Connection) -> bool: ...

    def unseen(
        self,
        plane: str,
        protocol: str,
        caller: Sequence[str] | set[str],
        callee: Sequence[str] | set[str],
        names: tuple[str, str],
        strict: bool = True,
    ) -> str | None: ...

    def damaged(
        self,
        protocol: str,
        caller: Sequence[str] | set[str],
        callee: Sequence[str] | set[str],
        since_ns: int,
        until_ns: int,
    ) -> bool: ...

    def interruption(self, since_ns: int, until_ns: int) -> str | None: ...

    def cut_short(self) -> bool: ...

    def broke_off(self, plane: str, until_ns: int) -> str | None: ...


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
    """Step 7; None when it is only known from what the host did."""
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
    attempts: list[Tried]

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
                # A service that has lost its broker knocks for ever, with or without this creation.
                continue
            outer = self._is_outer(call)
            latest = max(latest, call.started_ns, 0 if outer else (call.ended_ns or 0))
        return latest

    def _is_outer(self, call: Call) -> bool:
        """Tell whether *call* is the request that began it all, on one of its legs."""
        to = self.grammar.begun_at(call.protocol, call.asked) if call.protocol == "REST" else frozenset()
        return bool(to - {"sc"}) or (bool(to) and not call.connection.server_role)


def lay_out(
    trace: Trace,
    grammar: Grammar,
    record: Callable[[Call, bool], CallRecord],
    host_of: Callable[[str], str | None],
) -> Case:
    """Return *trace* with lines and candidates; *record* resolves roles, *host_of* names a host."""
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
    case = Case(trace, grammar, witnesses, records, [])
    case.attempts = _attempts(case, host_of)
    return case


def _candidates(grammar: Grammar, call: Call, shown: CallRecord) -> tuple[Candidate, ...]:
    """Return the ways to take a call; a VRM task that failed is answered 200 and is a failure."""
    facts = call.facts
    if isinstance(facts, RestFacts) and shown.callee == "vrm" and facts.status_text == "failed":
        words = shown.line.rsplit(" ", 1)[0]
        return grammar.candidates(f"{words} 500")
    return grammar.candidates(shown.matched)


def _workers(case: Case, host_of: Callable[[str], str | None]) -> list[Tried]:
    """Return the host whose nova-compute was asked to do something to a server that is there."""
    for call in case.trace.calls:
        facts = call.facts
        if (
            isinstance(facts, RpcFacts)
            and facts.mode in ("call", "cast")
            and not facts.object_method
            and case.trace.server_id in facts.ids
            and case.records[call.serial].callee == "nova-compute"
        ):
            address = facts.consumer.endpoint.address if facts.consumer else None
            host = facts.routing_key.partition(".")[2] or (host_of(address) if address else None)
            addresses = frozenset([address] if address else [])
            return [Tried(host or address or "?", call, addresses, call.started_ns)]
    return []


def _attempts(case: Case, host_of: Callable[[str], str | None]) -> list[Tried]:
    if not case.trace.creates:
        return _workers(case, host_of)
    tried: list[Tried] = []
    for call in case.trace.calls:
        facts = call.facts
        if (
            not isinstance(facts, RpcFacts)
            or facts.method != "build_and_run_instance"
            or facts.mode == "reply"
            or call.serial in case.trace.ambiguous
        ):
            continue
        if case.trace.server_id and facts.ids and case.trace.server_id not in facts.ids:
            continue
        address = facts.consumer.endpoint.address if facts.consumer else None
        host = (
            facts.routing_key.partition(".")[2] or (host_of(address) if address else None) or address or "?"
        )
        last = tried[-1] if tried else None
        if last is not None and last.host == host and call.started_ns - last.since_ns < SAME_ATTEMPT_NS:
            continue
        tried.append(Tried(host, call, frozenset([address] if address else []), call.started_ns))
    return _add_silent(case, tried, host_of)


def _add_silent(case: Case, tried: list[Tried], host_of: Callable[[str], str | None]) -> list[Tried]:
    """Add hosts whose message of step 7 is lost, but that built all the same."""
    known = {t.host for t in tried}
    for witness in case.witnesses:
        if witness.record.caller != "nova-compute" or witness.ambiguous or witness.record.protocol != "REST":
            continue
        if isinstance(witness.call.facts, ConnectFacts) and case.trace.shared:
            continue
        address = witness.record.caller_address
        host = host_of(address)
        if host and host not in known and not any(address in t.addresses for t in tried):
            known.add(host)
            tried.append(Tried(host, None, frozenset([address]), witness.call.started_ns))
    return sorted(tried, key=lambda t: t.since_ns)
