"""The section of a report on what tshark decodes otherwise, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tracer.model import CallRecord
from tracer.model.second import CrossCheck
from tracer.reports import plain

__all__ = ["members", "summary", "text"]


def summary(found: CrossCheck) -> str:
    """Return one line: how many calls each saw, and how many differ."""
    counts = f"{found.ours:,} calls by tracer, {found.theirs:,} by tshark {found.version}"
    return f"cross-check: {counts}: {found.same:,} the same, {found.different:,} not"


def text(found: CrossCheck, names: Mapping[str, str]) -> Iterator[str]:
    """Yield the lines of the section; *names* are the short names of the captures."""
    yield summary(found)
    for each in found.differences:
        yield f"  {each.count:,} × {each.kind}: {plain(each.what, 200)}"
        for ours, theirs in each.examples:
            call = ours or theirs
            if call is None:
                continue
            seen = (("tracer", ours), ("tshark", theirs))
            places = ", ".join(f"{who} {_place(one, names)}" for who, one in seen if one is not None)
            yield f"      {places}  {plain(call.line, 200)}"
    if found.left_out:
        yield f"  and {found.left_out:,} more ways to differ"


def _place(call: CallRecord, names: Mapping[str, str]) -> str:
    if not call.evidence:
        return "no frame"
    path, frame = call.evidence[0]
    return f"{names.get(path, path)}#{frame}"


def members(found: CrossCheck) -> dict[str, Any]:
    """Return the JSON object, but for the calls of the examples, which are records."""
    return {
        "tshark": found.version,
        "calls": {"tracer": found.ours, "tshark": found.theirs},
        "same": found.same,
        "different": found.different,
        "differences": [
            {
                "kind": each.kind,
                "what": plain(each.what, 200),
                "count": each.count,
                "examples": [{"tracer": ours, "tshark": theirs} for ours, theirs in each.examples],
            }
            for each in found.differences
        ],
        "left_out": found.left_out,
    }
