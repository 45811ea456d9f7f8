"""The legs of one request: paired over the proxy, given their request id, merged."""

from __future__ import annotations

from tracer.correlation.material import NEAR_NS, SKEW_NS, Material, Request, rest
from tracer.model import Call, RestFacts, RpcFacts, SqlFacts

__all__ = ["find_request_ids", "find_server_by_insert", "merged", "pair_legs", "seeded_by_rpc"]

_BUILDS = frozenset(
    {
        "schedule_and_build_instances", "select_destinations", "build_and_run_instance", "build_instances",
        "external_instance_event",
    }
)  # fmt: skip
"""Messages that name the server which a creation makes."""
_FIRST_TABLES = frozenset({"request_specs", "build_requests"})


def _is_outer(material: Material, leg: Call) -> bool:
    return not rest(leg).forwarded_for and (leg.back is not None or material.is_front(leg.connection.server))


def pair_legs(material: Material) -> list[Request]:
    requests: list[Request] = []
    single: list[Call] = []
    taken: set[int] = set()
    known = {leg.serial for leg in material.legs}
    for leg in material.legs:
        if leg.back is not None and leg.back.serial in known:
            requests.append(Request(leg, leg.back))
            taken |= {leg.serial, leg.back.serial}
    single = [leg for leg in material.legs if leg.serial not in taken]
    outers = [leg for leg in single if _is_outer(material, leg)]
    inners = [leg for leg in single if leg not in outers]
    for rule in (_same_answer, _same_content, _near):
        for outer in list(outers):
            fitting = [inner for inner in inners if rule(outer, inner)]
            if len(fitting) == 1 or (fitting and rule is _same_answer):
                requests.append(Request(outer, fitting[0]))
                outers.remove(outer)
                inners.remove(fitting[0])
    requests += [Request(outer=leg) for leg in outers]
    requests += [Request(inner=leg) for leg in inners]
    return requests


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


# --- the request id -------------------------------------------------------------------------------


def find_request_ids(material: Material, requests: list[Request]) -> None:
    for request in requests:
        request.request_id = next((i for leg in reversed(request.legs) if (i := rest(leg).answered_id)), "")
        for leg in request.legs:
            request.server_ids += [i for i in _servers(leg) if i not in request.server_ids]
    missing = [request for request in requests if not request.request_id and not _refused_outside(request)]
    if not missing:
        return
    known = {server_id for request in requests for server_id in request.server_ids}
    for request in missing:
        if material.creates and not request.server_ids and request.inner is not None:
            find_server_by_insert(material, request, known)
    owned = {request.request_id for request in requests if request.request_id}
    candidates = [(key, calls) for key, calls in material.by_request.items() if key not in owned]
    for request in missing:
        found = [key for key, calls in candidates if _carries(material, request, calls)]
        if len(found) == 1:
            request.request_id = found[0]


def _servers(leg: Call) -> tuple[str, ...]:
    """Return the servers of a request: those that its answer names when it makes them, else its own."""
    facts = rest(leg)
    if facts.creates or facts.method == "?":
        return facts.answered_ids if 200 <= facts.status < 300 else ()
    return (facts.server_id,) if facts.server_id else ()


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


def _refused_outside(request: Request) -> bool:
    """Tell whether the proxy answered by itself: no service has given the request an id."""
    return request.inner is None and request.outer is not None and rest(request.outer).status >= 500


def _carries(material: Material, request: Request, calls: list[Call]) -> bool:
    """Tell whether *calls*, which share a request id, were made by the service that got this POST.

    By the VM's id, else by the token that nova-api hands on while it works, else by the first RPC.
    """
    leg = request.at_api
    if leg is None:
        return False
    if request.server_ids and material.creates:
        return any(
            isinstance(c.facts, RpcFacts)
            and c.facts.method in _BUILDS
            and set(c.facts.ids) & set(request.server_ids)
            for c in calls
        )
    until_ns = leg.ended_ns if leg.ended_ns is not None else calls[-1].started_ns
    for call in calls:
        facts = call.facts
        inside = leg.started_ns - SKEW_NS <= call.started_ns <= until_ns + SKEW_NS
        same_place = call.connection.client.address == leg.connection.server.address
        if not inside or request.inner is None:
            continue
        if isinstance(facts, RestFacts) and facts.token and facts.token == rest(leg).token:
            return material.creates or rest(leg).server_id in facts.ids
        if isinstance(facts, RpcFacts) and material.is_seed(call) and same_place:
            return material.creates or rest(leg).server_id in facts.ids
    return False


def seeded_by_rpc(material: Material, requests: list[Request]) -> list[Request]:
    """Return requests that are not in the capture, but a message is that only this workflow sends."""
    owned = {request.request_id for request in requests if request.request_id}
    known = {server_id for request in requests for server_id in request.server_ids}
    seeded = []
    for key, calls in material.by_request.items():
        if key in owned:
            continue
        seeds = [c for c in calls if material.is_seed(c)]
        ids = dict.fromkeys(i for c in seeds if isinstance(c.facts, RpcFacts) for i in c.facts.ids)
        if seeds and material.creates and not known & set(ids):
            seeded.append(Request(request_id=key))
        elif seeds and not material.creates:
            seeded.append(Request(request_id=key, server_ids=list(ids)[:1]))
    return seeded


def find_server_by_insert(material: Material, request: Request, owned: set[str]) -> None:
    """A POST without an answer or an RPC still wrote its VM's id into the database.

    One that was refused for an error of the service made no VM, but what it wrote is part of it. VMs that
    other requests own are left out; what is left must be certain.
    """
    leg = request.inner
    if leg is None or 400 <= rest(leg).status < 500:
        return
    written = [
        (uuid, calls)
        for uuid, calls in material.by_uuid.items()
        if uuid not in owned and any(_is_written_by(call, uuid, leg) for call in calls)
    ]
    if len(written) > 1 and _others_open(material, leg):
        return
    for uuid, calls in written:
        if rest(leg).status >= 500:
            request.add(call for call in calls if isinstance(call.facts, SqlFacts))
        else:
            request.server_ids.append(uuid)


def _is_written_by(call: Call, uuid: str, leg: Call) -> bool:
    """Tell whether *call* wrote the VM *uuid* at the service of *leg* while that was at work."""
    facts = call.facts
    return (
        isinstance(facts, SqlFacts)
        and facts.verb == "INSERT"
        and facts.table in _FIRST_TABLES
        and facts.ids[:1] == (uuid,)
        and leg.started_ns <= call.started_ns <= (leg.ended_ns or call.started_ns)
        and call.connection.client.address == leg.connection.server.address
    )


def _others_open(material: Material, leg: Call) -> bool:
    """Tell whether another POST was open at the same nova-api at the same time."""
    return any(
        other is not leg
        and other.connection.server.address == leg.connection.server.address
        and other.started_ns < (leg.ended_ns or other.started_ns + 1)
        and (other.ended_ns or leg.started_ns + 1) > leg.started_ns
        for other in material.legs
    )
