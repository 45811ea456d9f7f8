"""The hosts that were asked to build the VM, and the steps that each of them reached.

The grammar's rule `attempt` lists the steps of an attempt; its first step asks a host. A workflow without
that rule works on an existing server, on one host.
"""

# A reschedule asks the next of the scheduler's alternate hosts under the same request id and uuid, so only
# the host in the routing key separates the attempts. nova-conductor does not ask nova-scheduler again.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tracer.conformance.bodies import said_of
from tracer.conformance.case import GOOD, Case, Ending, Said, Tried
from tracer.conformance.outcome import failing_of_attempt
from tracer.conformance.step_coverage import StepCoverage
from tracer.conformance.times import times_of
from tracer.conformance.told import begun_in, begun_ns, gave_up
from tracer.model import Attempt, Call, ConnectFacts, RpcFacts, SqlFacts, StepResult, StepStatus
from tracer.openstack.services import HOST_SERVICE

__all__ = ["attempt_details", "hosts_asked"]

SAME_ATTEMPT_NS = 1_000_000_000
"""Two messages to one host within a second are one attempt: a publish and a delivery that were not joined.

They cannot be joined where the tail of the message, with its unique id, is lost.
"""

HostOf = Callable[[str], str | None]
"""Address -> name of the host, where it is known from a queue."""


# --- who was asked --------------------------------------------------------------------------------


def hosts_asked(case: Case, host_of: HostOf) -> list[Tried]:
    """Return the hosts that were asked to do the work of *case*, in order of time."""
    if not case.trace.creates:
        return _asked_about_the_server(case, host_of)
    tried: list[Tried] = []
    for call in case.trace.calls:
        if not _begins_attempt(case, call):
            continue
        found = _tried(call, host_of)
        last = tried[-1] if tried else None
        if last is None or last.host != found.host or call.started_ns - last.since_ns >= SAME_ATTEMPT_NS:
            tried.append(found)
    return _with_recorded_hosts(case, _with_unasked_hosts(case, tried, host_of))


def _begins_attempt(case: Case, call: Call) -> bool:
    """Return whether *call* is the first step of an attempt to build the VM of *case*."""
    facts, attempt = call.facts, case.grammar.attempt
    if not isinstance(facts, RpcFacts) or not attempt or call.serial in case.trace.ambiguous:
        return False
    if attempt[0] not in case.grammar.steps_by_operation(call.protocol, call.operation):
        return False
    return not (case.trace.server_id and facts.ids and case.trace.server_id not in facts.ids)


def _tried(call: Call, host_of: HostOf) -> Tried:
    """Return the host that the message *call* asks: its routing key is `<topic>.<host>`."""
    facts = call.facts
    assert isinstance(facts, RpcFacts)  # noqa: S101  # a host is asked by a message
    address = facts.consumer.endpoint.address if facts.consumer else None
    # Names first: two messages to one host must compare equal, whether their deliveries were seen or not.
    host = facts.routing_key.partition(".")[2] or (host_of(address) if address else None)
    return Tried(host or address or "?", call, frozenset([address] if address else []), call.started_ns)


def _asked_about_the_server(case: Case, host_of: HostOf) -> list[Tried]:
    """Return the host that got the first message about an existing server: there is only this one."""
    for call in case.trace.calls:
        facts = call.facts
        if (
            isinstance(facts, RpcFacts)
            and facts.mode in ("call", "cast")
            and not facts.object_method
            and case.trace.server_id in facts.ids
            and case.records[call.serial].callee == HOST_SERVICE
        ):
            return [_tried(call, host_of)]
    return []


def _with_unasked_hosts(case: Case, tried: list[Tried], host_of: HostOf) -> list[Tried]:
    """Add hosts that made REST calls for the VM although no message to them was captured."""
    # This took a capture that lacks 10 % of its packets from 16 creations judged right to 20.
    known = {t.host for t in tried}
    for witness in case.witnesses:
        if witness.record.caller != HOST_SERVICE or witness.ambiguous or witness.record.protocol != "REST":
            continue
        if isinstance(witness.call.facts, ConnectFacts) and case.trace.shared:
            # A refused connection names no VM: with several VMs it may be another one's host.
            continue
        address = witness.record.caller_address
        host = host_of(address)
        if host and host not in known and not any(address in t.addresses for t in tried):
            known.add(host)
            tried.append(Tried(host, None, frozenset([address]), witness.call.started_ns))
    return sorted(tried, key=lambda t: t.since_ns)


def _with_recorded_hosts(case: Case, tried: list[Tried]) -> list[Tried]:
    """Add hosts that took the VM by the database alone: the messages to them could not be read."""
    known = {t.host for t in tried}
    recorded: list[tuple[str, int]] = []
    for call in case.trace.calls:
        host = call.facts.host if isinstance(call.facts, SqlFacts) else ""
        if host and host not in known and (not recorded or recorded[-1][0] != host):
            recorded.append((host, call.started_ns))
    for i, (host, since_ns) in enumerate(recorded):
        until_ns = recorded[i + 1][1] if i + 1 < len(recorded) else 1 << 62
        # A statement names the host, and not its address: its own calls show that.
        addresses = frozenset(
            w.record.caller_address
            for w in case.witnesses
            if w.record.caller == HOST_SERVICE
            and w.record.protocol == "REST"
            and since_ns <= w.call.started_ns < until_ns
            and not w.ambiguous
        )
        shown = next((t for t in tried if addresses and t.addresses == addresses), None)
        if shown is not None:
            tried.remove(shown)
        tried.append(Tried(host, None, addresses, min(since_ns, shown.since_ns) if shown else since_ns))
    return sorted(tried, key=lambda t: t.since_ns)


# --- how far they came ----------------------------------------------------------------------------


def attempt_details(case: Case, coverage: StepCoverage, ending: Ending) -> tuple[Attempt, ...]:
    """Return the attempts in order of time, with the steps of each where there were several.

    The last attempt stopped where the creation stopped; each earlier one where its own call failed.
    """
    details = []
    attempts, grammar = case.attempts, case.grammar
    for i, tried in enumerate(attempts):
        last = i == len(attempts) - 1
        until_ns = None if last else attempts[i + 1].since_ns
        failing = failing_of_attempt(case, i)
        stopped = grammar.earliest(failing.failed) if failing is not None else None
        error = (failing.call.error or said_of(failing)) if failing is not None else ""
        given_up, begun = gave_up(case, i), begun_in(case, i)
        if given_up is not None:
            error = error or given_up.reason
        if begun is not None:
            stopped = stopped or begun.begun
        built = last and ending.outcome in GOOD
        if last:
            stopped = ending.stopped_at if ending.outcome not in GOOD else None
            error = (error or ending.error) if ending.outcome == "error" else ""
        end_ns = until_ns or ending.time_ns or case.last_own_ns()
        said = given_up.call if given_up is not None and failing is None else None
        steps = _steps(case, tried.since_ns, until_ns, stopped, said, begun) if len(attempts) > 1 else ()
        duration_ns = end_ns - tried.since_ns if end_ns >= tried.since_ns else None
        if not last or built:
            steps = tuple(_unless_hidden(case, coverage, step) for step in steps)
        details.append(Attempt(tried.host, stopped, error, tried.since_ns, duration_ns, steps, built))
    return tuple(details)


def _unless_hidden(case: Case, coverage: StepCoverage, step: StepResult) -> StepResult:
    """Return the result of a step of an attempt that is over: unobserved if it could not have been seen."""
    if step.status not in ("not_reached", "skipped"):
        return step
    reason = coverage.why_not(step.step, strict=step.step in case.required)
    return replace(step, status="unobserved", reason=reason) if reason else step


def _steps(
    case: Case,
    since_ns: int,
    until_ns: int | None,
    stopped: str | None,
    said: Call | None,
    begun: Said | None,
) -> tuple[StepResult, ...]:
    """Return the results of the steps of one attempt; *until_ns* is None for the last one.

    *said* is the message with which the host gave up: the evidence of a step that failed without a call. Its
    time is that from *begun*, the last state of the host.
    """
    # By time and not by the alignment: the alignment takes the calls of all attempts for one word.
    results = []
    for name in case.grammar.attempt:
        step = case.grammar.step(name)
        witnesses = [
            w
            for w in case.witnesses
            if name in w.all_steps
            and since_ns <= w.call.started_ns
            and (until_ns is None or w.call.started_ns < until_ns)
        ]
        status: StepStatus
        if name == stopped:
            status = "failed"
        else:
            status = "seen" if any(name in w.steps for w in witnesses) else "not_reached"
            if not witnesses and step.presence == "optional":
                status = "skipped"
        started_ns, duration_ns = times_of(witnesses)
        calls = tuple(w.record for w in witnesses)
        if status == "failed" and not calls and said is not None:
            calls = (case.records[said.serial],)
            if begun is not None and begun.begun == name:
                started_ns = begun_ns(case, begun, name, said.started_ns)
                duration_ns = said.started_ns - started_ns
        results.append(StepResult(name, step.title, status, started_ns, duration_ns, calls))
    return tuple(results)
