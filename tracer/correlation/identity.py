"""Which request id and which VMs a request has: by its answer, the calls made for it, or the database."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from tracer.correlation.material import SKEW_NS, Material, Request, rest
from tracer.model import Call, RestFacts, RpcFacts, SqlFacts
from tracer.openstack.rpc import NAMES_NEW_SERVERS
from tracer.openstack.sql import FIRST_OF_A_SERVER

__all__ = ["Inserts", "find_request_ids", "find_server_by_insert", "seeded_by_rpc"]


def find_request_ids(material: Material, requests: list[Request], inserts: Inserts) -> None:
    """Set the request id of each request, and the VMs that its own legs name.

    Where no answer tells the id, it is that of the calls that its service made meanwhile, if these are of
    one id only.
    """
    for request in requests:
        request.request_id = next((i for leg in reversed(request.legs) if (i := rest(leg).answered_id)), "")
        for leg in request.legs:
            request.server_ids += [i for i in _servers(leg) if i not in request.server_ids]
    missing = [
        request
        for request in requests
        if not request.request_id and not _refused_outside(request) and not material.is_contested(request)
    ]
    if not missing:
        return
    known = {server_id for request in requests for server_id in request.server_ids}
    for request in missing:
        if material.creates and not request.server_ids and request.inner is not None:
            find_server_by_insert(material, request, known, inserts)
    owned = {request.request_id for request in requests if request.request_id}
    tracks = _Tracks(material, owned)
    for request in missing:
        found = [
            key
            for key in tracks.perhaps_of(request)
            if _carries(material, request, material.by_request.get(key))
        ]
        if len(found) == 1:
            request.request_id = found[0]


class _Tracks:
    """The request ids of calls that may have been made for a request, by what they share with it."""

    def __init__(self, material: Material, owned: set[str]) -> None:
        self._material = material
        self._by_server: dict[str, dict[str, None]] = {}
        self._by_mark: dict[tuple[str, str], list[tuple[int, str]]] = {}
        """token, or address of who sent the first message -> (time, request id), in order of time"""
        for key, calls in material.by_request.items():
            for call in calls if key not in owned else ():
                self._note(key, call)
        for marked in self._by_mark.values():
            marked.sort()

    def _note(self, key: str, call: Call) -> None:
        facts = call.facts
        if isinstance(facts, RestFacts) and facts.token:
            self._by_mark.setdefault(("token", facts.token), []).append((call.started_ns, key))
        elif isinstance(facts, RpcFacts):
            if facts.method in NAMES_NEW_SERVERS:
                for server_id in facts.ids:
                    self._by_server.setdefault(server_id, {})[key] = None
            if self._material.is_seed(call):
                place = ("address", call.connection.client.address)
                self._by_mark.setdefault(place, []).append((call.started_ns, key))

    def perhaps_of(self, request: Request) -> list[str]:
        """Return request ids among which is that of *request*, if it is known at all."""
        leg = request.at_api
        if leg is None:
            return []
        if request.server_ids and self._material.creates:
            return list({key: None for i in request.server_ids for key in self._by_server.get(i, ())})
        until_ns = leg.ended_ns if leg.ended_ns is not None else 1 << 62
        found: dict[str, None] = {}
        for mark in (("token", rest(leg).token), ("address", leg.connection.server.address)):
            marked = self._by_mark.get(mark, [])
            since = bisect_left(marked, (leg.started_ns - SKEW_NS, ""))
            until = bisect_right(marked, until_ns + SKEW_NS, key=lambda each: each[0])
            found.update((key, None) for _, key in marked[since:until])
        return list(found)


def _servers(leg: Call) -> tuple[str, ...]:
    """Return the servers of a request: those that its answer names when it makes them, else its own."""
    facts = rest(leg)
    if facts.creates or facts.method == "?":
        return facts.answered_ids if 200 <= facts.status < 300 else ()
    return (facts.server_id,) if facts.server_id else ()


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
            and c.facts.method in NAMES_NEW_SERVERS
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
    for key in material.seeds:
        if key in owned:
            continue
        seeds = [c for c in material.by_request.get(key) if material.is_seed(c)]
        ids = dict.fromkeys(i for c in seeds if isinstance(c.facts, RpcFacts) for i in c.facts.ids)
        if seeds and material.creates and not known & set(ids):
            seeded.append(Request(request_id=key))
        elif seeds and not material.creates:
            seeded.append(Request(request_id=key, server_ids=list(ids)[:1]))
    return seeded


class Inserts:
    """The statements with which services first wrote of a VM, by the address of the service."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._at: dict[str, list[tuple[int, int, str]]] = {}
        self._uuids: list[str] = []

    def _gather(self) -> None:
        """Nearly all requests tell their VMs themselves: the statements are looked at when one does not."""
        for place, (uuid, calls) in enumerate(self._material.by_uuid.items()):
            self._uuids.append(uuid)
            for call in calls:
                if _is_first(call, uuid):
                    at = self._at.setdefault(call.connection.client.address, [])
                    at.append((call.started_ns, place, uuid))
        for written in self._at.values():
            written.sort()

    def of(self, leg: Call) -> list[str]:
        """Return the VMs that were written of at the service of *leg* while that was at work."""
        if not self._uuids:
            self._gather()
        written = self._at.get(leg.connection.server.address, [])
        since = bisect_left(written, (leg.started_ns, -1, ""))
        until_ns = leg.ended_ns or 1 << 62
        until = bisect_right(written, until_ns, key=lambda each: each[0])
        return [self._uuids[place] for place in sorted({place for _, place, _ in written[since:until]})]


def _is_first(call: Call, uuid: str) -> bool:
    facts = call.facts
    return (
        isinstance(facts, SqlFacts)
        and facts.verb == "INSERT"
        and facts.table in FIRST_OF_A_SERVER
        and facts.ids[:1] == (uuid,)
    )


def find_server_by_insert(material: Material, request: Request, owned: set[str], inserts: Inserts) -> None:
    """A POST without an answer or an RPC still wrote its VM's id into the database.

    One that was refused for an error of the service made no VM, but what it wrote is part of it. VMs that
    other requests own are left out; what is left must be certain.
    """
    leg = request.inner
    if leg is None or 400 <= rest(leg).status < 500:
        return
    written = [uuid for uuid in inserts.of(leg) if uuid not in owned]
    if len(written) > 1 and _others_open(material, leg):
        return
    for uuid in written:
        if rest(leg).status >= 500:
            request.add(call for call in material.by_uuid.get(uuid) if isinstance(call.facts, SqlFacts))
        else:
            request.server_ids.append(uuid)


def _others_open(material: Material, leg: Call) -> bool:
    """Tell whether another POST was open at the same nova-api at the same time."""
    return any(
        other is not leg
        and other.connection.server.address == leg.connection.server.address
        and other.started_ns < (leg.ended_ns or other.started_ns + 1)
        and (other.ended_ns or leg.started_ns + 1) > leg.started_ns
        for other in material.legs
    )
