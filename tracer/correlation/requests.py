"""The requests that begin traces: their legs paired across the proxy, their request ids and VMs found."""

# A POST /servers goes through the load balancer: the outer leg (SC > proxy) is step 2 and the inner leg
# (proxy > nova-api) is step 3. Either may be outside of the capture.

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from tracer.correlation.call_store import CallStore
from tracer.model import Call, RestFacts, RpcFacts, SqlFacts
from tracer.openstack.rpc import NAMES_NEW_SERVERS
from tracer.openstack.services import LOOKED_AT_BEFORE_QUOTA
from tracer.openstack.sql import FIRST_OF_A_SERVER

__all__ = [
    "SKEW_NS",
    "Inserts",
    "NothingPending",
    "Pending",
    "Request",
    "addresses_of",
    "find_request_ids",
    "find_server_by_insert",
    "is_contested",
    "join_by_elimination",
    "merged",
    "pair_legs",
    "rest",
    "seeded_by_rpc",
]

NEAR_NS = 50_000_000
"""Two legs without a readable id belong together when they begin within 50 ms."""
SKEW_NS = 5_000_000
"""By how much calls of two capture points may seem out of order: records were up to 5 ms out of order."""
MOST_SHARING = 64
"""Requests that one id is known to be shared by; more of them are taken for one."""
LONGEST_NS = 120_000_000_000
"""How long nova-api may work on a request before the first call that names the server."""


class Pending(Protocol):
    """Decides about requests whose answers may still come. Live runs implement it."""

    @property
    def more_to_come(self) -> bool:
        """Whether calls may follow; then nothing is guessed that the answer of a POST will contain."""

    def is_shown(self, order: Call) -> bool:
        """Return whether *order*, a call to the portal, was reported as a trace before.

        It stays a trace until it is answered.
        """

    def may_show(self, order: Call) -> bool:
        """Return whether *order*, unanswered and not reported yet, may be reported as a trace now."""

    def led_further(self, order: Call) -> None:
        """Record that the portal asked the cloud for a creation because of *order*."""


class NothingPending:
    """Pending requests at the end of all captures: no more calls follow."""

    more_to_come = False

    def is_shown(self, order: Call) -> bool:
        """Return False: nothing was reported before."""
        return False

    def may_show(self, order: Call) -> bool:
        """Return True: an order that is not answered by now has no answer in the captures."""
        return True

    def led_further(self, order: Call) -> None:
        """Do nothing: there is no later look that could use it."""


@dataclass(eq=False)
class Request:
    """One request, for one or more VMs, and the calls that belong to it."""

    outer: Call | None = None
    """The leg to the proxy; the only leg that is known where the proxy answered by itself."""
    inner: Call | None = None
    """The leg to nova-api."""
    request_id: str = ""
    portal: Call | None = None
    server_ids: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    ambiguous: set[int] = field(default_factory=set)

    @property
    def legs(self) -> list[Call]:
        """The legs that were captured, the outer one first."""
        return [leg for leg in (self.outer, self.inner) if leg is not None]

    @property
    def first(self) -> Call | None:
        """The leg nearest to the client."""
        return self.outer or self.inner

    @property
    def at_api(self) -> Call | None:
        """The leg nearest to nova-api."""
        return self.inner or self.outer

    def add(self, calls: Iterable[Call]) -> None:
        """Add those of *calls* that are not there yet."""
        known = {call.serial: call for call in self.calls}
        self.calls.extend({call.serial: call for call in calls if call.serial not in known}.values())


def rest(call: Call) -> RestFacts:
    """Return the facts of a call that is known to be REST."""
    assert isinstance(call.facts, RestFacts)  # noqa: S101  # legs and portal calls are REST
    return call.facts


# --- legs --------------------------------------------------------------------------------------------


def _is_outer(store: CallStore, leg: Call) -> bool:
    """Return whether *leg* goes to a proxy. X-Forwarded-For is added by a proxy, so it marks an inner leg."""
    return not rest(leg).forwarded_for and (leg.back is not None or store.is_front(leg.connection.server))


def pair_legs(store: CallStore) -> list[Request]:
    """Return the requests, each with its two legs where both were captured.

    Legs are paired by what the calls stage found (`back`), else by answer, by content, by time.
    """
    requests: list[Request] = []
    taken: set[int] = set()
    known = {leg.serial for leg in store.legs}
    for leg in store.legs:
        if leg.back is not None and leg.back.serial in known:
            requests.append(Request(leg, leg.back))
            taken |= {leg.serial, leg.back.serial}
    single = [leg for leg in store.legs if leg.serial not in taken]
    outers = [leg for leg in single if _is_outer(store, leg)]
    outside = {leg.serial for leg in outers}
    inners = [leg for leg in single if leg.serial not in outside]
    rules = ((_same_answer, _answers), (_same_content, _contents), (_close_in_time, _times))
    for rule, keys_of in rules:
        # An index by key first: comparing each outer leg with each inner one is quadratic.
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
            # Ids in answers are unique, so the first match is right. Content and time may fit several legs:
            # then none is taken, because a wrong pair costs two traces.
            if len(fitting) == 1 or (fitting and rule is _same_answer):
                requests.append(Request(outer, fitting[0]))
                taken |= {outer.serial, fitting[0].serial}
        outers = [leg for leg in outers if leg.serial not in taken]
        inners = [leg for leg in inners if leg.serial not in taken]
    requests += [Request(outer=leg) for leg in outers]
    requests += [Request(inner=leg) for leg in inners]
    return requests


# The index keys of a leg, for each rule: legs that the rule can pair share a key. *around* is by how many
# keys an outer leg looks to each side; only times, which are cut into slots of NEAR_NS, need that.


def _answers(leg: Call, around: int) -> list[object]:
    """Return the request id and the server ids of the answer."""
    facts = rest(leg)
    return [key for key in (facts.answered_id, *facts.answered_ids) if key]


def _contents(leg: Call, around: int) -> list[object]:
    """Return token and name of the request."""
    facts = rest(leg)
    return [(facts.token, facts.name)] if facts.token else []


def _times(leg: Call, around: int) -> list[object]:
    """Return the time slot in which the leg began, and the neighbouring ones."""
    return [leg.started_ns // NEAR_NS + offset for offset in range(-around, around + 1)]


def _same_answer(outer: Call, inner: Call) -> bool:
    """Return whether both answers have the same request id, else name the same server."""
    a, b = rest(outer), rest(inner)
    if a.answered_id and b.answered_id:
        return a.answered_id == b.answered_id
    # One answer was cut: the Location header and the body hold the server's id even where the id is lost.
    return bool(set(a.answered_ids) & set(b.answered_ids))


def _within(outer: Call, inner: Call) -> bool:
    """Return whether *inner* lies within *outer* in time, as far as the answers of both were seen."""
    # Without an answer a call ends with its connection, whenever that is.
    are_answered = bool(rest(outer).status and rest(inner).status)
    is_over = outer.ended_ns is not None and inner.ended_ns is not None and are_answered
    return outer.started_ns <= inner.started_ns + SKEW_NS and (
        not is_over or (inner.ended_ns or 0) <= (outer.ended_ns or 0) + SKEW_NS
    )


def _same_content(outer: Call, inner: Call) -> bool:
    """Return whether token, name and subject are the same, and *inner* lies within *outer*."""
    a, b = rest(outer), rest(inner)
    different = a.answered_id and b.answered_id and a.answered_id != b.answered_id
    same = a.token == b.token and a.name == b.name and _same_subject(a, b)
    return bool(not different and a.token and same and _within(outer, inner))


def _same_subject(a: RestFacts, b: RestFacts) -> bool:
    """Return whether both ask for the same action on the same server; a lost request fits any."""
    return "?" in (a.method, b.method) or (a.server_id, a.action) == (b.server_id, b.action)


def _close_in_time(outer: Call, inner: Call) -> bool:
    """Return whether *inner* begins within `NEAR_NS` of *outer* and nothing that is readable contradicts."""
    a, b = rest(outer), rest(inner)
    if (a.answered_id and b.answered_id) or (a.token and b.token and a.token != b.token):
        return False
    if not _same_subject(a, b):
        return False
    return _within(outer, inner) and abs(inner.started_ns - outer.started_ns) < NEAR_NS


def merged(store: CallStore, requests: list[Request]) -> list[Request]:
    """Return *requests* with those made one that share a request id or a new VM: legs not paired before.

    An existing VM does not make two requests one: it may be asked for the same action twice. Nor does the id
    of an answer: nova answered overlapping requests with that of the last one.
    """
    found: list[Request] = []
    by_key: dict[str, list[Request]] = {}
    for request in requests:
        new_servers = request.server_ids if store.creates else ()
        keys = [key for key in (request.request_id, *new_servers) if key]
        known = (each for key in keys for each in by_key.get(key, ()))
        full = (by_key[key][-1] for key in keys if len(by_key.get(key, ())) >= MOST_SHARING)
        same = next((each for each in known if not _are_two(each, request)), next(full, None))
        if same is None:
            found.append(request)
            same = request
        else:
            # Of more than two legs (retransmissions, two capture points) the first is the client's and the
            # last is nova-api's.
            legs = sorted({*same.legs, *request.legs}, key=lambda leg: (leg.started_ns, leg.serial))
            same.outer, same.inner = (legs[0], legs[-1]) if len(legs) > 1 else (same.outer, same.inner)
            if legs and not same.legs:
                same.outer, same.inner = request.outer, request.inner
            same.request_id = same.request_id or request.request_id
            same.server_ids += [i for i in request.server_ids if i not in same.server_ids]
            same.add(request.calls)
        for key in keys:
            if same not in (sharing := by_key.setdefault(key, [])) and len(sharing) < MOST_SHARING:
                sharing.append(same)
    return found


def _are_two(some: Request, other: Request) -> bool:
    """Return whether two requests that share an id are not one: one server got both, for different VMs."""
    servers = {leg.connection.server for leg in some.legs} & {leg.connection.server for leg in other.legs}
    if not servers:
        return False
    made = {i for leg in some.legs for i in _servers(leg)}, {i for leg in other.legs for i in _servers(leg)}
    names = {rest(leg).name for leg in some.legs}, {rest(leg).name for leg in other.legs}
    differ = (
        all(each) and each[0].isdisjoint(each[1]) for each in (made, (names[0] - {""}, names[1] - {""}))
    )
    return any(differ)


def join_by_elimination(requests: list[Request]) -> list[Request]:
    """Make one of a request without its answer and a creation without its request, where no other fits.

    Of both there is one only that fits the other in time, and no token speaks against it.
    """
    askers = [r for r in requests if r.legs and not r.request_id and not r.server_ids and not _is_answered(r)]
    made = [r for r in requests if r.calls and _is_headless(r)]
    fitting = {id(each): [asker for asker in askers if _may_have_asked(asker, each)] for each in made}
    joined: set[int] = set()
    for each in made:
        found = fitting[id(each)]
        if len(found) != 1 or sum(found[0] in others for others in fitting.values()) != 1:
            continue
        asker = found[0]
        asker.request_id, asker.server_ids = each.request_id, each.server_ids
        for answer in each.legs:
            # An answer alone: that of the leg of which no request was seen.
            if asker.outer is None:
                asker.outer = answer
            elif asker.inner is None:
                asker.inner = answer
        asker.add(each.calls)
        joined.add(id(each))
    return [request for request in requests if id(request) not in joined]


def _is_headless(request: Request) -> bool:
    """Return whether of *request* answers are known at most, and what came of it."""
    return all(rest(leg).method == "?" for leg in request.legs) and bool(
        request.request_id or request.server_ids
    )


def _is_answered(request: Request) -> bool:
    return any(rest(leg).status for leg in request.legs)


def _may_have_asked(asker: Request, made: Request) -> bool:
    """Return whether *made* may have come of *asker*: begun after it, while it could wait for its answer."""
    first = asker.first
    if first is None:
        return False
    waited_ns = min(call.started_ns for call in made.calls) - first.started_ns
    token, facts = rest(first).token, [call.facts for call in made.calls]
    tokens = {each.token for each in facts if isinstance(each, RestFacts) and each.token}
    return -SKEW_NS <= waited_ns <= LONGEST_NS and (not token or not tokens or token in tokens)


# --- ids ---------------------------------------------------------------------------------------------


def is_contested(store: CallStore, request: Request, pending: Pending) -> bool:
    """Return whether *request* and another one at the same service still wait for answers that may come.

    Until one is answered, the calls of the one cannot be separated from those of the other.
    """
    leg = request.at_api
    return (
        pending.more_to_come
        and leg is not None
        and not leg.closed
        and any(
            not other.closed
            and other not in request.legs
            and other.connection.server.address == leg.connection.server.address
            for other in store.legs
        )
    )


def find_request_ids(store: CallStore, requests: list[Request], inserts: Inserts, pending: Pending) -> None:
    """Set the request id of each request, and the VMs that its own legs name.

    Where no answer holds the id, it is taken from the calls that its service made while the request was
    open, if these calls have one id only.
    """
    # Of two legs the inner one is preferred: its answer comes from nova-api itself. On the legs the id
    # occurs in answers only, so a request that is never answered (message queue down) has none.
    for request in requests:
        request.request_id = next((i for leg in reversed(request.legs) if (i := rest(leg).answered_id)), "")
        for leg in request.legs:
            request.server_ids += [i for i in _servers(leg) if i not in request.server_ids]
    missing = [
        request
        for request in requests
        if not request.request_id
        and not _refused_outside(request)
        and not is_contested(store, request, pending)
    ]
    if not missing:
        return
    known = {server_id for request in requests for server_id in request.server_ids}
    for request in missing:
        if store.creates and not request.server_ids and request.inner is not None:
            find_server_by_insert(store, request, known, inserts)
    owned = {request.request_id for request in requests if request.request_id}
    tracks = _Tracks(store, owned)
    for request in missing:
        found = [
            key for key in tracks.candidates(request) if _carries(store, request, store.by_request.get(key))
        ]
        # Several ids: a wrong one would take another creation's calls, so none is set.
        if len(found) == 1:
            request.request_id = found[0]


class _Tracks:
    """Request ids of calls that no request owns, indexed by what they share with a request."""

    def __init__(self, store: CallStore, owned: set[str]) -> None:
        self._store = store
        self._by_server: dict[str, dict[str, None]] = {}
        self._by_mark: dict[tuple[str, str], list[tuple[int, str]]] = {}
        """("token", token) or ("address", sender of a seed) -> (time, request id), in order of time"""
        for key, calls in store.by_request.items():
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
            if self._store.is_seed(call):
                place = ("address", call.connection.client.address)
                self._by_mark.setdefault(place, []).append((call.started_ns, key))

    def candidates(self, request: Request) -> list[str]:
        """Return request ids that may be that of *request*: by its VMs, else by token and address in time."""
        leg = request.at_api
        if leg is None:
            return []
        if request.server_ids and self._store.creates:
            named = {key: None for i in request.server_ids for key in self._by_server.get(i, ())}
            if named:
                return list(named)
        until_ns = leg.ended_ns if leg.ended_ns is not None else 1 << 62
        found: dict[str, None] = {}
        for mark in (("token", rest(leg).token), ("address", leg.connection.server.address)):
            marked = self._by_mark.get(mark, [])
            since = bisect_left(marked, (leg.started_ns - SKEW_NS, ""))
            until = bisect_right(marked, until_ns + SKEW_NS, key=lambda each: each[0])
            found.update((key, None) for _, key in marked[since:until])
        return list(found)


def _servers(leg: Call) -> tuple[str, ...]:
    """Return the servers of a request: those in its answer if it creates them, else the one in its path."""
    facts = rest(leg)
    if facts.creates or facts.method == "?":
        return facts.answered_ids if 200 <= facts.status < 300 else ()
    return (facts.server_id,) if facts.server_id else ()


def _refused_outside(request: Request) -> bool:
    """Return whether the proxy answered the request by itself (5xx): no service has given it an id."""
    return request.inner is None and request.outer is not None and rest(request.outer).status >= 500


def _carries(store: CallStore, request: Request, calls: list[Call]) -> bool:
    """Return whether *calls*, which share a request id, were made by the service that received this POST.

    Decided by the VM's id, else by the token that nova-api passes on to other services, else by the first
    RPC of the workflow from nova-api's address; the latter two only while the POST is open.
    """
    leg = request.at_api
    if leg is None:
        return False
    if request.server_ids and store.creates:
        named = [c.facts.ids for c in calls if isinstance(c.facts, RpcFacts) and c.facts.ids]
        if (
            any(isinstance(c.facts, RpcFacts) and c.facts.method in NAMES_NEW_SERVERS for c in calls)
            and named
        ):
            return any(set(ids) & set(request.server_ids) for ids in named)
        # The service never got as far as its first message.
    until_ns = leg.ended_ns if leg.ended_ns is not None else calls[-1].started_ns
    for call in calls:
        facts = call.facts
        inside = leg.started_ns - SKEW_NS <= call.started_ns <= until_ns + SKEW_NS
        same_address = call.connection.client.address == leg.connection.server.address
        if not inside or request.inner is None:
            continue
        if isinstance(facts, RestFacts) and facts.token and facts.token == rest(leg).token:
            return store.creates or rest(leg).server_id in facts.ids
        if isinstance(facts, RpcFacts) and store.is_seed(call) and same_address:
            return store.creates or rest(leg).server_id in facts.ids
    return False


def seeded_by_rpc(store: CallStore, requests: list[Request]) -> list[Request]:
    """Return requests that were not captured themselves, found by an RPC that only this workflow sends."""
    # HTTP may be encrypted, or the tap may see the broker only. The RPC carries the request id and the VMs.
    owned = {request.request_id for request in requests if request.request_id}
    known = {server_id for request in requests for server_id in request.server_ids}
    seeded = []
    for key in store.seeds:
        if key in owned:
            continue
        seeds = [c for c in store.by_request.get(key) if store.is_seed(c)]
        ids = dict.fromkeys(i for c in seeds if isinstance(c.facts, RpcFacts) for i in c.facts.ids)
        if seeds and store.creates and not known & set(ids):
            seeded.append(Request(request_id=key))
        elif seeds and not store.creates:
            seeded.append(Request(request_id=key, server_ids=list(ids)[:1]))
    return seeded


def addresses_of(store: CallStore, leg: Call, calls: Iterable[Call]) -> set[str]:
    """Return the addresses of the service that took *leg*; *calls* are those of its request."""
    found = {leg.connection.server.address}
    if leg.front is not None or leg.back is not None or rest(leg).forwarded_for:
        return found
    if store.is_front(leg.connection.server):
        return found
    until_ns = leg.ended_ns or 1 << 62
    for call in calls:
        ends = call.connection
        looks_up = (
            isinstance(call.facts, RestFacts)
            and ends.server_role in LOOKED_AT_BEFORE_QUOTA
            and ends.client_role in ("", leg.connection.server_role)
            and leg.started_ns <= call.started_ns <= until_ns
        )
        if looks_up or (store.is_seed(call) and getattr(call.facts, "published", False)):
            found.add(ends.client.address)
    if len(found) == 1:
        # It got no answer from any service that it asked. Of several nova-apis any may be the one.
        inner = store.inner_addresses(leg.connection.server)
        found.update(inner if len(inner) == 1 else ())
    return found


class Inserts:
    """The first INSERTs about each VM, by the address of the service that sent them."""

    def __init__(self, store: CallStore) -> None:
        self._store = store
        self._at: dict[str, list[tuple[int, int, str]]] = {}
        self._uuids: list[str] = []

    def _gather(self) -> None:
        """Index the INSERTs. Done when first asked: nearly all requests name their VMs themselves."""
        for place, (uuid, calls) in enumerate(self._store.by_uuid.items()):
            self._uuids.append(uuid)
            for call in calls:
                if _is_first(call, uuid):
                    at = self._at.setdefault(call.connection.client.address, [])
                    at.append((call.started_ns, place, uuid))
        for written in self._at.values():
            written.sort()

    def of(self, leg: Call, addresses: Iterable[str]) -> list[str]:
        """Return the VMs for which the service of *leg* sent a first INSERT while *leg* was open.

        *addresses* are those of this service.
        """
        if not self._uuids:
            self._gather()
        until_ns = leg.ended_ns or 1 << 62
        places: set[int] = set()
        for address in addresses:
            written = self._at.get(address, [])
            since = bisect_left(written, (leg.started_ns, -1, ""))
            until = bisect_right(written, until_ns, key=lambda each: each[0])
            places.update(place for _, place, _ in written[since:until])
        return [self._uuids[place] for place in sorted(places)]


def _is_first(call: Call, uuid: str) -> bool:
    """Return whether *call* is the first statement about the VM *uuid* in any database."""
    facts = call.facts
    return (
        isinstance(facts, SqlFacts)
        and facts.verb == "INSERT"
        and facts.table in FIRST_OF_A_SERVER
        and facts.ids[:1] == (uuid,)
    )


def find_server_by_insert(store: CallStore, request: Request, owned: set[str], inserts: Inserts) -> None:
    """Find the VMs of a request without answer and RPC by the INSERTs of its nova-api.

    After a 5xx there is no VM, but the statements are part of the request. VMs of other requests (*owned*)
    are left out. Where another POST was open at that nova-api, several VMs are ambiguous and none is taken.
    """
    leg = request.inner
    if leg is None or 400 <= rest(leg).status < 500:
        return
    written = [uuid for uuid in inserts.of(leg, addresses_of(store, leg, request.calls)) if uuid not in owned]
    if len(written) > 1 and _others_open(store, leg):
        return
    for uuid in written:
        if rest(leg).status >= 500:
            request.add(call for call in store.by_uuid.get(uuid) if isinstance(call.facts, SqlFacts))
        else:
            request.server_ids.append(uuid)


def _others_open(store: CallStore, leg: Call) -> bool:
    """Return whether another POST was open at the same nova-api at the same time."""
    return any(
        other is not leg
        and other.connection.server.address == leg.connection.server.address
        and other.started_ns < (leg.ended_ns or other.started_ns + 1)
        and (other.ended_ns or leg.started_ns + 1) > leg.started_ns
        for other in store.legs
    )
