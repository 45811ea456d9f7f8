"""The calls of two runs over the same captures, difference by difference.

Two calls are one if they are of one kind and share a frame of their evidence, the most frames first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from tracer.model import CallRecord
from tracer.model.second import CrossCheck, Difference, DifferenceKind

__all__ = ["compared"]

EXAMPLES = 3
"""Examples of each way to differ."""
MOST_WAYS = 100
"""Ways to differ that are listed."""
_PARTS = ("plane", "caller", "callee", "operation", "result")

_Pair = tuple[CallRecord | None, CallRecord | None]


def compared(ours: Sequence[CallRecord], theirs: Sequence[CallRecord], version: str) -> CrossCheck:
    """Return how the calls of tracer (*ours*) and of tshark (*theirs*) differ; *version* is tshark's."""
    counts: Counter[tuple[DifferenceKind, str]] = Counter()
    examples: dict[tuple[DifferenceKind, str], list[_Pair]] = {}
    same = different = 0
    for pair in _pairs(ours, theirs):
        found = list(_ways(*pair))
        same += not found
        different += bool(found)
        for way in found:
            counts[way] += 1
            kept = examples.setdefault(way, [])
            if len(kept) < EXAMPLES:
                kept.append(pair)
    listed = [
        Difference(kind, what, count, tuple(examples[kind, what]))
        for (kind, what), count in counts.most_common(MOST_WAYS)
    ]
    left_out = max(0, len(counts) - MOST_WAYS)
    return CrossCheck(version, len(ours), len(theirs), same, different, tuple(listed), left_out)


def _pairs(ours: Sequence[CallRecord], theirs: Sequence[CallRecord]) -> Iterable[_Pair]:
    at: dict[tuple[str, int], list[int]] = {}
    for number, call in enumerate(theirs):
        for place in {*call.evidence, *call.fate}:
            at.setdefault(place, []).append(number)
    free = [True] * len(theirs)
    for call in ours:
        shared = Counter(
            number
            for place in {*call.evidence, *call.fate}
            for number in at.get(place, ())
            if free[number] and theirs[number].protocol == call.protocol
        )
        if not shared:
            yield call, None
            continue
        best = max(shared, key=lambda number: (_likeness(call, theirs[number]), shared[number], -number))
        free[best] = False
        yield call, theirs[best]
    yield from ((None, call) for number, call in enumerate(theirs) if free[number])


def _likeness(call: CallRecord, other: CallRecord) -> tuple[bool, bool]:
    """Return what tells the calls of one frame apart."""
    return call.operation == other.operation, call.started_ns == other.started_ns


def _ways(ours: CallRecord | None, theirs: CallRecord | None) -> Iterable[tuple[DifferenceKind, str]]:
    """Yield each way in which the two differ."""
    if ours is None or theirs is None:
        call = ours or theirs
        if call is not None:
            kind: DifferenceKind = "only tracer" if theirs is None else "only tshark"
            yield kind, f"{call.protocol} {call.operation} {call.result}"
        return
    for part in _PARTS:
        one, other = getattr(ours, part), getattr(theirs, part)
        if one != other:
            yield "line", f"{part} {one}, tshark: {other}"
    if ours.started_ns != theirs.started_ns:
        yield "time", f"start of {ours.protocol}"
    if ours.duration_ns != theirs.duration_ns:
        yield "time", f"duration of {ours.protocol}"
    if ours.evidence[:1] != theirs.evidence[:1]:
        yield "frames", f"first frame of {ours.protocol}"
    elif set(ours.evidence) != set(theirs.evidence):
        yield "frames", f"later frames of {ours.protocol}"
