"""The administrator's call at the portal around each request, and those that came no further."""

from __future__ import annotations

from tracer.correlation.material import SKEW_NS, Material, Request, rest
from tracer.model import Call

__all__ = ["find_portal_calls", "refused_at_portal"]


def find_portal_calls(material: Material, requests: list[Request]) -> None:
    """Find the administrator's call around each request: same name or same VM, and around it in time."""
    taken: set[int] = set()
    for request in requests:
        first = request.first
        if first is None:
            continue
        name = rest(first).name
        best: Call | None = None
        for call in material.portal:
            facts = rest(call)
            named = {*facts.answered_ids, *facts.ids} if not material.creates else set(facts.answered_ids)
            same = (name and facts.name == name) or named & set(request.server_ids)
            if (
                same
                and call.serial not in taken
                and call.connection.client.address != first.connection.client.address
                and _around(call, first)
                and (best is None or call.started_ns > best.started_ns)
            ):
                best = call
        if best is not None:
            taken.add(best.serial)
            request.portal = best
            request.add([best])
    _find_lone_portal_calls(material, requests, taken)


def _find_lone_portal_calls(material: Material, requests: list[Request], taken: set[int]) -> None:
    """Join a portal call to the one request of its server within its time, where a name is lost."""
    for request in requests:
        first = request.first
        if first is None or request.portal is not None:
            continue
        fitting = [
            call
            for call in material.portal
            if call.serial not in taken
            and call.connection.server.address == first.connection.client.address
            and _around(call, first)
            and (not rest(first).name or rest(call).name == rest(first).name or rest(call).broken)
            and (material.creates or not rest(call).ids)
        ]
        if len(fitting) == 1:
            request.portal = fitting[0]
            taken.add(fitting[0].serial)
            request.add(fitting)


def _around(call: Call, leg: Call) -> bool:
    return call.started_ns <= leg.started_ns + SKEW_NS and (
        call.ended_ns is None or call.ended_ns + SKEW_NS >= leg.started_ns
    )


def refused_at_portal(material: Material, requests: list[Request]) -> list[Request]:
    """Return requests that the SC refused without asking the cloud."""
    taken = {request.portal.serial for request in requests if request.portal is not None}
    callers = {leg.connection.client.address for request in requests for leg in request.legs}
    callers |= {login.connection.client.address for login in material.logins}
    refused = []
    for call in material.portal:
        facts = rest(call)
        sc = call.connection.server.address
        if call.serial in taken or facts.status < 400 or facts.forwarded_for:
            continue
        if callers and sc not in callers and any(c != sc for c in callers):
            continue
        request = Request(portal=call, server_ids=list(() if material.creates else facts.ids[:1]))
        request.add([call])
        request.add(
            login
            for login in material.logins
            if login.connection.client.address == sc and _around(call, login) and login.front is None
        )
        refused.append(request)
    return refused
