"""The legs of one request: paired over the proxy, merged where they could not be."""

from __future__ import annotations

from tracer.correlation.material import NEAR_NS, SKEW_NS, Material, Request, rest
from tracer.model import Call, RestFacts

__all__ = ["merged", "pair_legs"]


def _is_outer(material: Material, leg: Call) -> bool:
    return not rest(leg).forwarded_for and (leg.back is not None or material.is_front(leg.connection.server))


def pair_legs(material: Material) -> list[Request]:
    """Pair the two legs of each request: as the proxy told, else by answer, by content, by time."""
    requests: list[Request] = []
    taken: set[int] = set()
    known = {leg.serial for leg in material.legs}
    for leg in material.legs:
        if leg.back is not None and leg.back.serial in known:
            requests.append(Request(leg, leg.back))
            taken |= {leg.serial, leg.back.serial}
    single = [leg for leg in material.legs if leg.serial not in taken]
    outers = [leg for leg in single if _is_outer(material, leg)]
    outside = {leg.serial for leg in outers}
    inners = [leg for leg in single if leg.serial not in outside]
    for rule, keys_of in ((_same_answer, _answers), (_same_content, _contents), (_near, _times)):
        by_key: dict[object, list[tuple[int, Call]]] = {}
        for place, inner in enumerate(inners):
            for key in keys_of(inner, 0):
                by_key.setdefault(key, []).append((place, inner))
        for outer in outers:
            candidates = {item for key in keys_of(outer, 1) for item in by_key.get(key, ())}
            fitting = [
                inner
                for _, inner in sorted(candidates, key=lambda item: item[0])
                if inner.serial not in taken and rule(outer, inner)
            ]
            if len(fitting) == 1 or (fitting and rule is _same_answer):
                requests.append(Request(outer, fitting[0]))
                taken |= {outer.serial, fitting[0].serial}
        outers = [leg for leg in outers if leg.serial not in taken]
        inners = [leg for leg in inners if leg.serial not in taken]
    requests += [Request(outer=leg) for leg in outers]
    requests += [Request(inner=leg) for leg in inners]
    return requests


# What two legs share that a rule can pair; with `around` also the keys beside their own.


def _answers(leg: Call, around: int) -> list[object]:
    facts = rest(leg)
    return [key for key in (facts.answered_id, *facts.answered_ids) if key]


def _contents(leg: Call, around: int) -> list[object]:
    facts = rest(leg)
    return [(facts.token, facts.name)] if facts.token else []


def _times(leg: Call, around: int) -> list[object]:
    return [leg.started_ns // NEAR_NS + beside for beside in range(-around, around + 1)]


def _same_answer(outer: Call, inner: Call) -> bool:
    a, b = rest(outer), rest(inner)
    if a.answered_id and b.answered_id:
        return a.answered_id == b.answered_id
    return bool(set(a.answered_ids) & set(b.answered_ids))


def _within(outer: Call, inner: Call) -> bool:
    return outer.started_ns <= inner.started_ns + SKEW_NS and (
        outer.ended_ns is None or inner.ended_ns is None or inner.ended_ns <= outer.ended_ns + SKEW_NS
    )


def _same_content(outer: Call, inner: Call) -> bool:
    a, b = rest(outer), rest(inner)
    different = a.answered_id and b.answered_id and a.answered_id != b.answered_id
    same = a.token == b.token and a.name == b.name and _same_subject(a, b)
    return bool(not different and a.token and same and _within(outer, inner))


def _same_subject(a: RestFacts, b: RestFacts) -> bool:
    return "?" in (a.method, b.method) or (a.server_id, a.action) == (b.server_id, b.action)


def _near(outer: Call, inner: Call) -> bool:
    a, b = rest(outer), rest(inner)
    if (a.answered_id and b.answered_id) or (a.token and b.token and a.token != b.token):
        return False
    if not _same_subject(a, b):
        return False
    return _within(outer, inner) and abs(inner.started_ns - outer.started_ns) < NEAR_NS


def merged(material: Material, requests: list[Request]) -> list[Request]:
    """Make one of requests that share their request id or a VM: legs that could not be paired.

    Of a VM that is there, the request id alone: the same may be asked twice.
    """
    found: list[Request] = []
    by_key: dict[str, Request] = {}
    for request in requests:
        made = request.server_ids if material.creates else ()
        keys = [key for key in (request.request_id, *made) if key]
        same = next((by_key[key] for key in keys if key in by_key), None)
        if same is None:
            found.append(request)
            same = request
        else:
            legs = sorted({*same.legs, *request.legs}, key=lambda leg: (leg.started_ns, leg.serial))
            same.outer, same.inner = (legs[0], legs[-1]) if len(legs) > 1 else (same.outer, same.inner)
            if legs and not same.legs:
                same.outer, same.inner = request.outer, request.inner
            same.request_id = same.request_id or request.request_id
            same.server_ids += [i for i in request.server_ids if i not in same.server_ids]
            same.add(request.calls)
        by_key.update(dict.fromkeys(keys, same))
    return found
