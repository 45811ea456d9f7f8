"""Calls that were answered well, and whose bodies say that what was asked for is not there.

A port whose binding failed, a volume in error, a task of the VRM that failed: such an answer is the failure
of its step, whatever its status (case.py). Here is the rest: which later answer mends it, and what was still
open when the creation failed.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracer.conformance.case import Witness
from tracer.model import RestFacts
from tracer.openstack.services import HOST_SERVICE
from tracer.openstack.states import GOOD, OPEN

__all__ = ["is_good_later", "not_done", "said_of"]


def is_good_later(failing: Witness, others: Sequence[Witness]) -> bool:
    """Return whether a later answer says of the resource of *failing* that it is usable."""
    names = _names(failing)
    return any(
        w.call.started_ns > failing.call.started_ns
        and _condition(w) == GOOD
        and not names.isdisjoint(_names(w))
        for w in others
    )


def not_done(witnesses: Sequence[Witness]) -> Witness | None:
    """Return the call of a host whose answer left a resource open, if no later one says that it was done.

    The steps that it fits are those that it failed: this is asked of attempts that failed only.
    """
    for position, witness in enumerate(witnesses):
        if witness.record.caller != HOST_SERVICE or _condition(witness) != OPEN or witness.ambiguous:
            continue
        names = _names(witness)
        later = [w for w in witnesses[position + 1 :] if not names.isdisjoint(_names(w))]
        # The last of several answers that leave it open says for how long; an answer without a condition says
        # nothing of the resource, and nothing is claimed.
        if not later:
            return witness._replace(steps=frozenset(), failed=witness.all_steps)
    return None


def said_of(witness: Witness) -> str:
    """Return what the body of a good answer says is wrong, or was not done; '' for other calls."""
    facts = witness.call.facts
    if not isinstance(facts, RestFacts):
        return ""
    return facts.said.replace(" is ", " was still ", 1) if facts.condition == OPEN else facts.said


def _condition(witness: Witness) -> str:
    facts = witness.call.facts
    return facts.condition if isinstance(facts, RestFacts) else ""


def _names(witness: Witness) -> set[str]:
    """Return what names the resource of a call: the id in its answer, and the end of its path."""
    facts = witness.call.facts
    if not isinstance(facts, RestFacts):
        return set()
    # The path of a POST is that of the collection.
    own = () if facts.method == "POST" else (facts.path.rpartition("/")[2].partition(".")[0],)
    return {*facts.answered_ids[:1], *own}
