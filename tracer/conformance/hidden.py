"""What shows, in the calls of one trace, that the captures hide a part of it."""

from __future__ import annotations

from tracer.conformance.case import Case, Witness
from tracer.conformance.coverage import CLOCK_NS
from tracer.conformance.visibility import Visibility

__all__ = ["clocks_hide", "lacks_answer", "taken_ns"]

SECOND_NS = 1_000_000_000
READ_NS = CLOCK_NS + 50_000_000
"""So far clocks may differ, and reads still be found within the request that they are made for."""


def clocks_hide(case: Case, captures: Visibility, step: str, plane: str, servers: set[str]) -> bool:
    """Return whether calls of *step* may have been left out because of their times on *plane*.

    Calls that name the VM alone are taken up to its end, and reads without an id within the request.
    """
    trace = case.trace
    is_read = trace.creates and case.grammar.is_read(step)
    marks = (trace.created,) if is_read else (trace.active_call, trace.deleted_call)
    for call in marks:
        if call is not None:
            seen = {capture for capture, _ in call.frames}
            error_ns = captures.clock_error_on(plane, seen, servers)
            if error_ns is None or error_ns > (READ_NS if is_read else SECOND_NS):
                return True
    return False


def lacks_answer(case: Case, plane: str, since_ns: int, until_ns: int) -> bool:
    """Return whether an answer, or a delivery, is missing on *plane* that must have come in that time.

    Its asker went on, or who was to take it did something.
    """
    for witness in case.witnesses:
        call, record = witness.call, witness.record
        if plane not in ("*", record.plane) or call.started_ns > until_ns:
            continue
        went_on_ns = 0
        if record.protocol == "REST" and record.result == "?":
            went_on_ns = _went_on_ns(case, witness)
        elif record.protocol == "RPC" and record.result == "undelivered":
            went_on_ns = taken_ns(case, witness)
        if since_ns <= went_on_ns:
            return True
    return False


def taken_ns(case: Case, witness: Witness) -> int:
    """Return when the service did something of this trace that *witness*, a message, is for; else 0."""
    taker = witness.record.callee
    return next(
        (
            call.started_ns
            for call in case.trace.calls
            if call.started_ns > witness.call.started_ns and case.records[call.serial].caller == taker
        ),
        0,
    )


def _went_on_ns(case: Case, witness: Witness) -> int:
    """Return when a later step was seen that waits for what *witness* asks; 0 without one."""
    places = case.grammar.places
    beside = {other for step in witness.steps for other in case.grammar.beside(step)}
    last = max((places.get(step, 0) for step in witness.steps), default=len(places))
    return min(
        (
            other.call.started_ns
            for other in case.witnesses
            if other.call.started_ns > witness.call.started_ns
            and any(places.get(step, 0) > last and step not in beside for step in other.steps)
        ),
        default=0,
    )
