"""What a run that does not end may forget: traces that are done, and calls that nobody asked for.

Offline nothing is forgotten but for lack of room. Live, a trace that has its verdict is retired with all
that joined it, and what belongs to no trace is forgotten by its age, in capture time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable

from tracer.correlation.index import CallIndex
from tracer.correlation.material import Material
from tracer.model import Call, RestFacts, Trace

__all__ = ["forget", "forget_oldest", "retire"]


def retire(material: Material, traces: Iterable[Trace]) -> set[str]:
    """Drop all that belongs to *traces* alone; return their request and server ids.

    *traces* are all that share a request: its legs go with the last of them.
    """
    keys: set[str] = set()
    serials: set[int] = set()
    shared: set[int] = set()
    legs: set[int] = set()
    known = {leg.serial for leg in material.legs}
    for trace in traces:
        keys |= {key for key in (trace.request_id, trace.server_id) if key}
        for call in trace.calls:
            for leg in (call, call.front, call.back):
                if leg is not None and leg.serial in known:
                    legs.add(leg.serial)
            (shared if call.serial in trace.ambiguous else serials).add(call.serial)
    for key in keys:
        material.by_request.discard(key)
        material.by_uuid.discard(key)
        material.seeds.pop(key, None)
        material.states.pop(key, None)
    for serial in legs:
        material.validations.pop(serial, None)
    material.legs = [leg for leg in material.legs if leg.serial not in legs]
    material.quota = _left_to_others(material, legs, serials)
    material.shared_reads = (material.shared_reads | shared) & {call.serial for call, _ in material.quota}
    for calls in (material.portal, material.loose, material.logins):
        calls.discard(lambda call: call.serial in serials)
    return keys


def _left_to_others(material: Material, legs: set[int], own: set[int]) -> list[tuple[Call, list[Call]]]:
    """Return the quota reads that are not *own*, with the requests that may have made them but for *legs*."""
    left = []
    for call, candidates in material.quota:
        kept = [leg for leg in candidates if leg.serial not in legs]
        if kept and call.serial not in own:
            left.append((call, kept))
    return left


def forget(
    material: Material,
    before_ns: int,
    keys: Collection[str],
    serials: Collection[int],
    uuids: Collection[str],
) -> None:
    """Drop what was last heard of before *before_ns* and belongs to no open trace.

    Open are those with these request ids (*keys*), calls (*serials*) and servers (*uuids*).
    """
    _forget_keys(material.by_request, before_ns, keys)
    _forget_keys(material.by_uuid, before_ns, uuids)
    for key in [key for key in material.seeds if not material.by_request.get(key)]:
        del material.seeds[key]
    for server_id in [s for s in material.changes if s not in uuids]:
        if all(_is_old(call, before_ns) for call in material.changes[server_id]):
            del material.changes[server_id]
    for calls in (material.portal, material.loose, material.logins):
        calls.discard(lambda call: _is_old(call, before_ns) and call.serial not in serials)
    legs = {leg.serial for leg in material.legs}
    for serial in [s for s in material.validations if s not in legs]:
        del material.validations[serial]
    material.quota = [item for item in material.quota if any(leg.serial in legs for leg in item[1])]
    for server_id in [s for s in material.states if s not in uuids]:
        polls = material.states[server_id].values()
        if all(_is_old(call, before_ns) for call in polls):
            del material.states[server_id]


def _forget_keys(index: CallIndex, before_ns: int, kept: Collection[str]) -> None:
    """Drop keys last heard of before *before_ns*, and of the others the calls that are older."""
    old = []
    for key, calls in index.oldest():
        if key in kept or not _is_old(calls[0], before_ns):
            continue
        if _is_old(calls[-1], before_ns):
            old.append(key)
        else:
            # A service's periodic tasks go on under one id for as long as it runs.
            calls[:] = [call for call in calls if not _is_old(call, before_ns)]
    for key in old:
        index.discard(key)


def _is_old(call: Call, before_ns: int) -> bool:
    if isinstance(call.facts, RestFacts) and not call.closed:
        # Its answer may still come: reassembly closes what is idle.
        return False
    return max(call.started_ns, call.ended_ns or 0) < before_ns


def forget_oldest(table: OrderedDict[str, None], most: int) -> None:
    """Keep the *most* youngest keys of *table*."""
    while len(table) > most:
        table.popitem(last=False)
