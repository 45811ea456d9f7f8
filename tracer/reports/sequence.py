"""The content of a sequence diagram of one creation: its columns, its rows, and the marks between them.

HTML, SVG and Mermaid draw the same sequence, so all formats show the same rows.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tracer.model import Attempt, CallRecord, Deviation, StepResult, Verdict
from tracer.openstack.services import FLOW
from tracer.reports import plain

__all__ = ["Mark", "Row", "arrives", "attempt_words", "entries", "in_flow_order", "look", "marks", "rows"]

_ENDS = re.compile(r"(?:^| )([^\s>]+) > ([^\s:]+)")
_NEVER_ARRIVED = frozenset({"refused", "none", "unroutable", "undelivered"})
_WORDS_LIMIT = 400


@dataclass(slots=True)
class Row:
    """One call, or consecutive calls of the same kind."""

    call: CallRecord
    position: int
    """Index of the first call in the verdict's calls."""
    count: int = 1
    ended_ns: int = 0
    """End of the last call."""


@dataclass(slots=True, frozen=True)
class Mark:
    """A mark between calls, for something that is no call."""

    before: int
    """Position of the call after the mark; the number of calls when it is at the end."""
    kind: str
    """deviation · missing · unobserved · attempt · rest"""
    step: str
    words: str
    ends: tuple[str, str] | None = None
    """Caller and callee of a call that should have come."""


def in_flow_order(roles: Iterable[str]) -> list[str]:
    """Return the *roles*, each once, in the order of the workflow; unknown ones last."""
    found = dict.fromkeys(roles)
    return [role for role in FLOW if role in found] + [role for role in found if role not in FLOW]


def arrives(call: CallRecord) -> bool:
    """Return whether the call reached its callee."""
    return call.result not in _NEVER_ARRIVED


def rows(verdict: Verdict, *, every: bool = False) -> list[Row]:
    """Return the calls of the documented steps, or *every* call.

    Consecutive calls of a kind share a row, unless another host is asked between them.
    """
    # Without a call of any step the other calls are all there is to show.
    every = every or not any(call.step for call in verdict.calls)
    found: list[Row] = []
    for position, call in enumerate(verdict.calls):
        if not (call.step or every):
            continue
        ended_ns = call.started_ns + (call.duration_ns or 0)
        if found and look(found[-1].call, verdict) == look(call, verdict):
            found[-1].count += 1
            found[-1].ended_ns = max(found[-1].ended_ns, ended_ns)
        else:
            found.append(Row(call, position, 1, ended_ns))
    return found


def look(call: CallRecord, verdict: Verdict) -> tuple[str | int | None, ...]:
    """Return what calls that share a row have in common; the attempt is part of it."""
    begun = [attempt.started_ns for attempt in verdict.attempt_details]
    attempt = max(bisect_right(begun, call.started_ns), 1)
    return attempt, call.step, call.caller, call.callee, call.operation, call.action, call.result


def attempt_words(number: int, attempts: Sequence[Attempt]) -> str:
    """Return the host of attempt *number*, from 2 on, and how the attempt before it ended."""
    before = attempts[number - 2]
    ended = f"stopped at {before.stopped_at}" if before.stopped_at else "gave up"
    why = f": {plain(before.error, 200)}" if before.error else ""
    hosts = (plain(attempts[number - 1].host, 60), plain(before.host, 60))
    return f"attempt {number} on {hosts[0]} ({hosts[1]} {ended}{why})"


def entries(verdict: Verdict, *, every: bool = False) -> Iterator[Row | Mark]:
    """Yield rows and marks in drawing order."""
    waiting = marks(verdict)
    for row in rows(verdict, every=every):
        while waiting and waiting[0].before <= row.position:
            yield waiting.pop(0)
        yield row
    yield from waiting


def marks(verdict: Verdict) -> list[Mark]:
    """Return the marks between the calls, in order."""
    found = [*_attempts(verdict), *_deviations(verdict), *_absent(verdict)]
    order = {"deviation": 0, "attempt": 1, "unobserved": 2, "missing": 2, "rest": 3}
    return sorted(found, key=lambda mark: (mark.before, order[mark.kind]))


def _attempts(verdict: Verdict) -> Iterator[Mark]:
    for number, attempt in enumerate(verdict.attempt_details, start=1):
        if number > 1:
            times = enumerate(call.started_ns for call in verdict.calls)
            before = next((n for n, time_ns in times if time_ns >= attempt.started_ns), len(verdict.calls))
            yield Mark(before, "attempt", "", attempt_words(number, verdict.attempt_details))


def _deviations(verdict: Verdict) -> Iterator[Mark]:
    for deviation in verdict.deviations:
        words, step = plain(deviation.message, _WORDS_LIMIT), deviation.step or ""
        if _never_came(deviation, verdict):
            end = len(verdict.calls)
            before = end if deviation.kind == "stalled" else _place(verdict, step)
            yield Mark(before, "missing", step, words, _ends(deviation.expected))
        else:
            yield Mark(_behind(verdict, deviation.call), "deviation", step, words)


def _never_came(deviation: Deviation, verdict: Verdict) -> bool:
    """Return whether the deviation is about a call that did not come."""
    if deviation.kind == "stalled":
        step = next((step for step in verdict.steps if step.step == deviation.step), None)
        return step is None or not step.calls
    return deviation.kind == "missing"


def _ends(expected: Sequence[str]) -> tuple[str, str] | None:
    """Return caller and callee named in 'REST nova-compute > neutron-server: apply for network'."""
    found = (_ENDS.search(line[:200]) for line in expected)
    return next(((plain(match[1], 60), plain(match[2], 60)) for match in found if match), None)


def _absent(verdict: Verdict) -> Iterator[Mark]:
    """Return marks for steps without a call: one for each reason, and one for steps that were not reached."""
    explained = {deviation.step for deviation in verdict.deviations}
    unseen: dict[tuple[int, str], list[str]] = {}
    rest: list[StepResult] = []
    for step in verdict.steps:
        if step.calls:
            continue
        if step.status == "unobserved":
            unseen.setdefault((_place(verdict, step.step), plain(step.reason, 200)), []).append(step.step)
        elif step.status == "missing" and step.step not in explained:
            words = f"step {step.step} ({plain(step.title, 80)}) never came"
            yield Mark(_place(verdict, step.step), "missing", step.step, words)
        elif step.status == "not_reached" and step.step not in explained:
            rest.append(step)
    for (before, why), names in unseen.items():
        words = f"{', '.join(names)} not observed{': ' + why if why else ''}"
        yield Mark(before, "unobserved", names[0] if len(names) == 1 else "", words)
    if rest:
        words = f"not reached: {', '.join(step.step for step in rest)}"
        yield Mark(len(verdict.calls), "rest", "", words)


def _place(verdict: Verdict, step: str) -> int:
    """Return the position of a step without a call: before the first call of a later step."""
    order = {each.step: number for number, each in enumerate(verdict.steps)}
    own = order.get(step, len(order))
    return _position(verdict, lambda call: call.step is not None and order.get(call.step, -1) > own)


def _behind(verdict: Verdict, call: CallRecord | None) -> int:
    if call is None:
        return len(verdict.calls)
    return _position(verdict, lambda other: other.index == call.index) + 1


def _position(verdict: Verdict, fits: Callable[[CallRecord], bool]) -> int:
    return next((n for n, call in enumerate(verdict.calls) if fits(call)), len(verdict.calls))
