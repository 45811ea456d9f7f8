"""What nova says of itself: at which step a host is, why it gave up, and that a step is done.

The states come by RPC and again in the database (the grammar's rule `states`); either is enough. Which host
they are about follows from their time: the host that was asked last before them.
"""

# nova saves the states of one server one after another, and the host that gives up has saved its last one
# before the next host is asked. So the time separates the attempts, where a statement names no host at all.

from __future__ import annotations

from typing import NamedTuple

from tracer.conformance.case import Case, Said
from tracer.conformance.step_coverage import StepCoverage
from tracer.model import Call, RpcFacts, SqlFacts
from tracer.openstack.rpc import GIVES_UP

__all__ = [
    "GaveUp",
    "begun_in",
    "begun_ns",
    "begun_step",
    "fault_of",
    "gave_up",
    "rests_on_states",
    "shown_in",
    "span_of",
]

_FAR_NS = 1 << 62


class GaveUp(NamedTuple):
    """A host that said that it could not build the VM."""

    call: Call
    """The request for another host; without one the record of the fault."""
    reason: str
    """Empty where it gave none, or its text is not in the captures."""
    asks_another: bool
    """It asked for another host."""


def span_of(case: Case, number: int) -> tuple[int, int]:
    """Return (since, until) in ns of attempt *number*; all time where no host is known to have been asked."""
    if not 0 <= number < len(case.attempts):
        return 0, _FAR_NS
    following = case.attempts[number + 1 :]
    return case.attempts[number].since_ns, following[0].since_ns if following else _FAR_NS


def begun_in(case: Case, number: int) -> Said | None:
    """Return the last state of attempt *number* that says which step the host has begun; None without one.

    Of several calls that say the same state, as a message and the statement that follows it, it is the first.
    A state after it that says more, as that the step is done, leaves nothing that is only begun: None.
    """
    since_ns, until_ns = span_of(case, number)
    last = None
    for said in case.said:
        if since_ns <= said.call.started_ns < until_ns:
            is_same = last is not None and (last.begun, last.word) == (said.begun, said.word)
            last = last if is_same else said if said.begun else None if said.is_shown else last
    return last


def begun_ns(case: Case, begun: Said, step: str, until_ns: int) -> int:
    """Return since when a host is at *step*: since it said so in *begun*, and the step before has ended.

    It says so while another thread of its own still does the step before; that one may end until *until_ns*.
    """
    places, since_ns = case.grammar.places, begun.call.started_ns
    ends = [
        w.call.ended_ns or w.call.started_ns
        for w in case.witnesses
        if w.call.started_ns >= since_ns
        and not w.ambiguous
        and any(places.get(own, 0) < places[step] and own in case.grammar.attempt for own in w.steps)
    ]
    return max((end_ns for end_ns in ends if end_ns <= until_ns), default=since_ns)


def begun_step(case: Case, step: str | None) -> Said | None:
    """Return the state that says that the last host has begun *step* and no more; None where none does."""
    begun = begun_in(case, len(case.attempts) - 1)
    return begun if begun is not None and begun.begun == step else None


def rests_on_states(case: Case, coverage: StepCoverage, step: str | None) -> bool:
    """Return whether only nova's states tell of *step*: the service that it asks is not known to be there.

    They tell of it where the host said that it has begun, or would have been seen to say that it is done.
    """
    if step is None or not case.grammar.shown_by(step) or coverage.has_callee(step):
        return False
    return begun_step(case, step) is not None or coverage.would_be_told(step)


def shown_in(case: Case, number: int, step: str) -> Said | None:
    """Return the first state of attempt *number* that says that *step* is done; None without one."""
    since_ns, until_ns = span_of(case, number)
    found = (s for s in case.said if step in s.shown and since_ns <= s.call.started_ns < until_ns)
    return next(found, None)


def fault_of(call: Call) -> str:
    """Return the reason that *call* records or gives for a failure; '' for most calls."""
    facts = call.facts
    is_said = isinstance(facts, SqlFacts) or (isinstance(facts, RpcFacts) and facts.mode != "reply")
    return facts.fault if is_said and isinstance(facts, RpcFacts | SqlFacts) else ""


def gave_up(case: Case, number: int) -> GaveUp | None:
    """Return how the host of attempt *number* said that it gave up; None where it did not.

    Its own messages come first: what nova-conductor writes after them is what was left to do.
    """
    since_ns, until_ns = span_of(case, number)
    request = message = statement = None
    for call in case.trace.calls:
        facts = call.facts
        if not since_ns <= call.started_ns < until_ns or call.serial in case.trace.ambiguous:
            continue
        if isinstance(facts, RpcFacts) and facts.method in GIVES_UP and facts.mode != "reply":
            request = request or call
        elif fault_of(call):
            if isinstance(facts, RpcFacts):
                message = call
            elif request is None:
                statement = call
    told = message or statement
    if request is not None:
        reason = fault_of(request) or (fault_of(told) if told is not None else "")
        return GaveUp(request, reason, True)
    return GaveUp(told, fault_of(told), False) if told is not None else None
