"""Builds the traces out of what the correlator has collected.

Steps, each by the most trustworthy key that fits (reference: keys in order of trust): legs of one POST
-> request id -> VMs -> the calls of the request and of each VM -> the portal's call around it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tracer.correlation.index import CallIndex
from tracer.model import Call, Endpoint, RestFacts, RpcFacts, SqlFacts, Trace

__all__ = ["Material", "assemble"]

NEAR_NS = 50_000_000
"""Two legs without any readable id belong together when they begin within 50 ms."""
SKEW_NS = 5_000_000
BUILD = frozenset({"schedule_and_build_instances", "build_and_run_instance"})
_FIRST_TABLES = frozenset({"request_specs", "build_requests"})
_FORK = frozenset({"schedule_and_build_instances", "select_destinations", "build_and_run_instance"})


class Material:
    """All calls that may belong to a creation, by the key that may join them."""

    def __init__(
        self,
        is_front: Callable[[Endpoint], bool],
        addresses_of: Callable[[str], set[str]],
        host_of: Callable[[str], str | None],
    ) -> None:
        self.is_front = is_front
        self.addresses_of = addresses_of
        self.host_of = host_of
        self.in_flight = False
        """True while more is to come: nothing is guessed then that the answer of a POST will tell."""
        self.legs: list[Call] = []
        """POST /servers, every leg of every request."""
        self.by_request = CallIndex()
        self.builds: OrderedDict[str, None] = OrderedDict()
        """Request ids under which a VM was built: those that may begin a trace without a POST."""
        self.by_uuid = CallIndex(max_calls=1_000)
        self.validations: dict[int, list[Call]] = {}
        """serial of a leg -> token validations made for it"""
        self.quota: list[tuple[Call, list[Call]]] = []
        """Quota reads with the legs that were open at that service then."""
        self.portal: deque[Call] = deque(maxlen=20_000)
        """POSTs that name something, to a service that is none of OpenStack's."""
        self.logins: deque[Call] = deque(maxlen=20_000)
        self.loose: deque[Call] = deque(maxlen=20_000)
        """Failed connections and VRM calls without an id."""
        self.states: dict[str, dict[str, Call]] = {}
        """server id -> status -> first poll that showed it"""

    def build(self, request_id: str) -> None:
        self.builds[request_id] = None
        while len(self.builds) > 50_000:
            self.builds.popitem(last=False)

    def state(self, server_id: str, status: str, call: Call) -> None:
        if len(self.states) < 100_000 or server_id in self.states:
            self.states.setdefault(server_id, {}).setdefault(status, call)


@dataclass(eq=False)
class _Request:
    """One request for one or more VMs."""

    outer: Call | None = None
    inner: Call | None = None
    request_id: str = ""
    portal: Call | None = None
    server_ids: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    ambiguous: set[int] = field(default_factory=set)

    @property
    def legs(self) -> list[Call]:
        return [leg for leg in (self.outer, self.inner) if leg is not None]

    @property
    def first(self) -> Call | None:
        return self.outer or self.inner

    @property
    def at_api(self) -> Call | None:
        """The leg nearest to nova-api."""
        return self.inner or self.outer

    def add(self, calls: Iterable[Call]) -> None:
        known = {call.serial: call for call in self.calls}
        self.calls.extend({call.serial: call for call in calls if call.serial not in known}.values())


def assemble(material: Material) -> list[Trace]:
    """Return one trace per VM, and one per request that made none, in order of start."""
    requests = _pair_legs(material)
    _find_request_ids(material, requests)
    requests += _seeded_by_rpc(material, requests)
    requests = _merged(requests)
    for request in requests:
        _collect(material, request)
    owned = {server_id for request in requests for server_id in request.server_ids}
    for request in requests:
        if not request.server_ids and not _is_contested(material, request):
            _find_server_by_insert(material, request, owned)
    requests = _merged(requests)
    _share_quota_reads(material, requests)
    _find_portal_calls(material, requests)
    requests += _refused_at_portal(material, requests)
    traces = [trace for request in requests for trace in _fork(material, request)]
    _share_loose(material, traces)
    traces.sort(key=lambda trace: trace.calls[0].started_ns)
    for number, trace in enumerate(traces, 1):
        trace.number = number
    return traces


# --- the legs of one POST -------------------------------------------------------------------------


def _facts(call: Call) -> RestFacts:
    assert isinstance(call.facts, RestFacts)  # noqa: S101  # legs and portal calls are REST
    return call.facts


def _is_outer(material: Material, leg: Call) -> bool:
    return not _facts(leg).forwarded_for and (
        leg.back is not None or material.is_front(leg.connection.server)
    )


def _pair_legs(material: Material) -> list[_Request]:
    requests: list[_Request] = []
    single: list[Call] = []
    taken: set[int] = set()
    known = {leg.serial for leg in material.legs}
    for leg in material.legs:
        if leg.back is not None and leg.back.serial in known:
            requests.append(_Request(leg, leg.back))
            taken |= {leg.serial, leg.back.serial}
    single = [leg for leg in material.legs if leg.serial not in taken]
    outers = [leg for leg in single if _is_outer(material, leg)]
    inners = [leg for leg in single if leg not in outers]
    for rule in (_same_answer, _same_content, _near):
        for outer in list(outers):
            fitting = [inner for inner in inners if rule(outer, inner)]
            if len(fitting) == 1 or (fitting and rule is _same_answer):
                requests.append(_Request(outer, fitting[0]))
                outers.remove(outer)
                inners.remove(fitting[0])
    requests += [_Request(outer=leg) for leg in outers]
    requests += [_Request(inner=leg) for leg in inners]
    return requests


def _same_answer(outer: Call, inner: Call) -> bool:
    a, b = _facts(outer), _facts(inner)
    if a.answered_id and b.answered_id:
        return a.answered_id == b.answered_id
    return bool(set(a.answered_ids) & set(b.answered_ids))


def _within(outer: Call, inner: Call) -> bool:
    return outer.started_ns <= inner.started_ns + SKEW_NS and (
        outer.ended_ns is None or inner.ended_ns is None or inner.ended_ns <= outer.ended_ns + SKEW_NS
    )


def _same_content(outer: Call, inner: Call) -> bool:
    a, b = _facts(outer), _facts(inner)
    different = a.answered_id and b.answered_id and a.answered_id != b.answered_id
    return bool(
        not different and a.token and a.token == b.token and a.name == b.name and _within(outer, inner)
    )


def _near(outer: Call, inner: Call) -> bool:
    a, b = _facts(outer), _facts(inner)
    if (a.answered_id and b.answered_id) or (a.token and b.token and a.token != b.token):
        return False
    return _within(outer, inner) and abs(inner.started_ns - outer.started_ns) < NEAR_NS


# --- the request id -------------------------------------------------------------------------------


def _find_request_ids(material: Material, requests: list[_Request]) -> None:
    for request in requests:
        request.request_id = next((i for leg in reversed(request.legs) if (i := _facts(leg).answered_id)), "")
        for leg in request.legs:
            if 200 <= _facts(leg).status < 300:
                request.server_ids += [i for i in _facts(leg).answered_ids if i not in request.server_ids]
    missing = [
        request
        for request in requests
        if not request.request_id and not _refused_outside(request) and not _is_contested(material, request)
    ]
    if not missing:
        return
    known = {server_id for request in requests for server_id in request.server_ids}
    for request in missing:
        if not request.server_ids and request.inner is not None:
            _find_server_by_insert(material, request, known)
    owned = {request.request_id for request in requests if request.request_id}
    candidates = [(key, calls) for key, calls in material.by_request.items() if key not in owned]
    for request in missing:
        found = [key for key, calls in candidates if _carries(material, request, calls)]
        if len(found) == 1:
            request.request_id = found[0]


def _merged(requests: list[_Request]) -> list[_Request]:
    """Make one of requests that share their request id or a VM: legs that could not be paired."""
    found: list[_Request] = []
    by_key: dict[str, _Request] = {}
    for request in requests:
        keys = [key for key in (request.request_id, *request.server_ids) if key]
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


def _refused_outside(request: _Request) -> bool:
    """Tell whether the proxy answered by itself: no service has given the request an id."""
    return request.inner is None and request.outer is not None and _facts(request.outer).status >= 500


def _carries(material: Material, request: _Request, calls: list[Call]) -> bool:
    """Tell whether *calls*, which share a request id, were made by the service that got this POST.

    By the VM's id, else by the token that nova-api hands on while it works, else by the first RPC.
    """
    leg = request.at_api
    if leg is None:
        return False
    if request.server_ids:
        return any(
            isinstance(c.facts, RpcFacts) and set(c.facts.ids) & set(request.server_ids) for c in calls
        )
    until_ns = leg.ended_ns if leg.ended_ns is not None else calls[-1].started_ns
    for call in calls:
        facts = call.facts
        inside = leg.started_ns - SKEW_NS <= call.started_ns <= until_ns + SKEW_NS
        same_place = call.connection.client.address == leg.connection.server.address
        if not inside or request.inner is None:
            continue
        if isinstance(facts, RestFacts) and facts.token and facts.token == _facts(leg).token:
            return True
        if isinstance(facts, RpcFacts) and facts.method in BUILD and same_place:
            return True
    return False


def _seeded_by_rpc(material: Material, requests: list[_Request]) -> list[_Request]:
    """Return requests whose POST is not in the capture: only these two RPCs begin a creation."""
    owned = {request.request_id for request in requests if request.request_id}
    known = {server_id for request in requests for server_id in request.server_ids}
    seeded = []
    for key in material.builds:
        calls = material.by_request.get(key)
        if key in owned:
            continue
        builds = [c for c in calls if isinstance(c.facts, RpcFacts) and c.facts.method in BUILD]
        ids = {i for c in builds if isinstance(c.facts, RpcFacts) for i in c.facts.ids}
        if builds and not ids & known:
            seeded.append(_Request(request_id=key))
    return seeded


# --- the calls of a request -----------------------------------------------------------------------


def _collect(material: Material, request: _Request) -> None:
    request.add(request.legs)
    for leg in request.legs:
        request.add(material.validations.get(leg.serial, ()))
    if request.request_id:
        request.add(material.by_request.get(request.request_id))
    for call in request.calls:
        facts = call.facts
        if isinstance(facts, RpcFacts) and facts.method in _FORK:
            request.server_ids += [i for i in facts.ids if i not in request.server_ids]


def _find_server_by_insert(material: Material, request: _Request, owned: set[str]) -> None:
    """A POST without an answer or an RPC still wrote its VM's id into the database.

    One that was refused for an error of the service made no VM, but what it wrote is part of it. VMs that
    other requests own are left out; what is left must be certain.
    """
    leg = request.inner
    if leg is None or 400 <= _facts(leg).status < 500:
        return
    written = [
        (uuid, calls)
        for uuid, calls in material.by_uuid.items()
        if uuid not in owned and any(_is_written_by(call, uuid, leg) for call in calls)
    ]
    if len(written) > 1 and _others_open(material, leg):
        return
    for uuid, calls in written:
        if _facts(leg).status >= 500:
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


def _is_contested(material: Material, request: _Request) -> bool:
    """Tell whether a POST still waits for its answer, and another one at the same nova-api does too.

    What one of them did cannot be told from what the other did before one is answered.
    """
    leg = request.at_api
    return (
        material.in_flight
        and leg is not None
        and not leg.closed
        and any(
            not other.closed
            and other not in request.legs
            and other.connection.server.address == leg.connection.server.address
            for other in material.legs
        )
    )


def _share_quota_reads(material: Material, requests: list[_Request]) -> None:
    """Give each quota read to the request that made it, or to all that may have.

    First the requests open at that service then; of several, those between whose last look at glance,
    neutron or keystone and whose first INSERT it lies. Cinder does not count: a volume is looked at after
    the quota.
    """
    by_leg = {leg.serial: request for request in requests for leg in request.legs}
    bounds = {id(request): _quota_window(material, request) for request in requests}
    for call, legs in material.quota:
        candidates = list(dict.fromkeys(by_leg[leg.serial] for leg in legs if leg.serial in by_leg))
        # After its INSERT a request reads no more; on a shared address conductor's recheck comes then.
        open_ = [
            r for r in candidates if bounds[id(r)][1] is None or call.started_ns < (bounds[id(r)][1] or 0)
        ]
        narrow = [r for r in open_ if call.started_ns >= bounds[id(r)][0]]
        chosen = open_ if len(open_) == 1 else (narrow or open_)
        for request in chosen:
            request.calls.append(call)
            if len(chosen) > 1:
                request.ambiguous.add(call.serial)


def _quota_window(material: Material, request: _Request) -> tuple[int, int | None]:
    since_ns = 0
    for call in request.calls:
        facts = call.facts
        role = call.connection.server_role
        if (
            isinstance(facts, RestFacts)
            and facts.method == "GET"
            and role in ("glance-api", "neutron-server", "keystone")
        ):
            leg = request.at_api
            if leg is not None and leg.ended_ns is not None and call.started_ns > leg.ended_ns:
                continue
            since_ns = max(since_ns, call.ended_ns or call.started_ns)
    until_ns = None
    for server_id in request.server_ids:
        for call in material.by_uuid.get(server_id):
            if (
                isinstance(call.facts, SqlFacts)
                and call.facts.verb == "INSERT"
                and call.facts.table == "request_specs"
            ):
                until_ns = min(until_ns or call.started_ns, call.started_ns)
    if until_ns is None:
        rpc = [c for c in request.calls if isinstance(c.facts, RpcFacts) and c.facts.method in BUILD]
        until_ns = min((c.started_ns for c in rpc), default=None)
    return since_ns, until_ns


# --- the portal -----------------------------------------------------------------------------------


def _find_portal_calls(material: Material, requests: list[_Request]) -> None:
    """Find the administrator's call around each request: same name or same VM, and around it in time."""
    taken: set[int] = set()
    for request in requests:
        first = request.first
        if first is None:
            continue
        name = _facts(first).name
        best: Call | None = None
        for call in material.portal:
            facts = _facts(call)
            same = (name and facts.name == name) or set(facts.answered_ids) & set(request.server_ids)
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


def _find_lone_portal_calls(material: Material, requests: list[_Request], taken: set[int]) -> None:
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
            and (not _facts(first).name or _facts(call).name == _facts(first).name or _facts(call).broken)
        ]
        if len(fitting) == 1:
            request.portal = fitting[0]
            taken.add(fitting[0].serial)
            request.add(fitting)


def _around(call: Call, leg: Call) -> bool:
    return call.started_ns <= leg.started_ns + SKEW_NS and (
        call.ended_ns is None or call.ended_ns + SKEW_NS >= leg.started_ns
    )


def _refused_at_portal(material: Material, requests: list[_Request]) -> list[_Request]:
    """Return creations that the SC refused without any POST /servers."""
    taken = {request.portal.serial for request in requests if request.portal is not None}
    callers = {leg.connection.client.address for request in requests for leg in request.legs}
    callers |= {login.connection.client.address for login in material.logins}
    refused = []
    for call in material.portal:
        facts = _facts(call)
        collection = not any(word in facts.path for word in ("action", "login", "session", "auth", "token"))
        sc = call.connection.server.address
        if call.serial in taken or facts.status < 400 or not collection or facts.forwarded_for:
            continue
        if callers and sc not in callers and any(c != sc for c in callers):
            continue
        request = _Request(portal=call)
        request.add([call])
        request.add(
            login
            for login in material.logins
            if login.connection.client.address == sc and _around(call, login) and login.front is None
        )
        refused.append(request)
    return refused


# --- one trace per VM -----------------------------------------------------------------------------


def _fork(material: Material, request: _Request) -> list[Trace]:
    server_ids: list[str] = list(request.server_ids)
    shared = len(server_ids) > 1
    owners = _resource_owners(request, set(server_ids))
    hosts = _hosts_of_servers(request)
    traces = []
    for server_id in server_ids or [""]:
        trace = Trace(0, request.request_id, server_id, shared=shared)
        trace.ambiguous |= request.ambiguous
        for call in request.calls:
            mine = _belongs(material, call, server_id, owners, hosts, shared)
            if mine:
                trace.calls.append(call)
                if mine == "perhaps":
                    trace.ambiguous.add(call.serial)
        _complete(material, request, trace)
        if trace.calls:
            traces.append(trace)
    return traces


def _resource_owners(request: _Request, server_ids: set[str]) -> dict[str, str]:
    """Return port, attachment … -> VM, learnt from the calls that made them for one VM."""
    owners: dict[str, str] = {}
    for call in request.calls:
        facts = call.facts
        if isinstance(facts, RestFacts) and facts.method == "POST":
            named = [i for i in facts.ids if i in server_ids]
            if len(named) == 1:
                owners.update((made, named[0]) for made in facts.answered_ids if made not in server_ids)
    return owners


def _hosts_of_servers(request: _Request) -> dict[str, set[str]]:
    """Return VM -> addresses of the computes that were asked to build it."""
    hosts: dict[str, set[str]] = {}
    for call in request.calls:
        facts = call.facts
        if isinstance(facts, RpcFacts) and facts.method == "build_and_run_instance" and facts.consumer:
            for server_id in facts.ids:
                hosts.setdefault(server_id, set()).add(facts.consumer.endpoint.address)
    return hosts


def _belongs(
    material: Material,
    call: Call,
    server_id: str,
    owners: dict[str, str],
    hosts: dict[str, set[str]],
    shared: bool,
) -> str:
    """Return 'yes', 'perhaps' or '' for *call* of a request and one of its VMs."""
    if call.front is not None and not _is_creation(call):
        # The leg behind the proxy: its outer leg stands for the hop.
        return ""
    if not shared:
        return "yes"
    facts = call.facts
    ids = facts.ids if isinstance(facts, RestFacts | RpcFacts | SqlFacts) else ()
    if isinstance(facts, RpcFacts) and facts.method == "build_and_run_instance" and not ids:
        return "perhaps"
    named = {owners.get(i, i) for i in ids} & (set(hosts) | set(owners.values()) | {server_id})
    if named:
        return "yes" if server_id in named else ""
    if isinstance(facts, RestFacts) and hosts.get(server_id):
        builders = {a for addresses in hosts.values() for a in addresses}
        address = call.connection.client.address
        if address in builders:
            return "perhaps" if address in hosts[server_id] else ""
    return "yes"


def _is_creation(call: Call) -> bool:
    return (
        isinstance(call.facts, RestFacts)
        and call.facts.method == "POST"
        and call.operation.endswith("/servers")
    )


def _complete(material: Material, request: _Request, trace: Trace) -> None:
    """Add what only the VM's id joins, and set what is known of the trace as a whole."""
    trace.created = request.at_api
    active_ns = _find_state(material, trace)
    known = {id(call) for call in trace.calls}
    if trace.server_id:
        for call in material.by_uuid.get(trace.server_id):
            if id(call) in known or (call.front is not None):
                continue
            if _wanted_by_uuid(call, trace, active_ns):
                trace.calls.append(call)
                known.add(id(call))
    trace.calls.sort(key=lambda call: (call.started_ns, call.serial))
    named = [request.at_api, request.portal]
    trace.name = next((_facts(call).name for call in named if call is not None and _facts(call).name), "")
    projects = [getattr(call.facts, "project_id", "") for call in trace.calls]
    trace.project_id = next((project for project in projects if project), "")
    states = material.states.get(trace.server_id, {})
    trace.polls = sorted(states.values(), key=lambda call: call.started_ns)


def _wanted_by_uuid(call: Call, trace: Trace, active_ns: int | None) -> bool:
    """Tell whether a call that names the VM, and no other request, belongs to its creation."""
    facts = call.facts
    request_id = getattr(facts, "request_id", "")
    if request_id and trace.request_id and request_id != trace.request_id:
        return False
    # Later operations on the same VM (resize, rebuild) are another story.
    if active_ns is not None and call.started_ns > active_ns + 1_000_000_000:
        return False
    return not isinstance(facts, SqlFacts) or facts.verb in ("INSERT", "UPDATE", "DELETE", "REPLACE")


def _find_state(material: Material, trace: Trace) -> int | None:
    """Set when and by which call the VM was seen active or in error."""
    candidates: list[tuple[int, str, Call]] = []
    starts: set[str] = set()
    started: Call | None = None
    for call in [*trace.calls, *(material.by_uuid.get(trace.server_id) if trace.server_id else ())]:
        facts = call.facts
        if isinstance(facts, RestFacts):
            if facts.path.endswith("/action/start") and facts.task_uri:
                starts.add(facts.task_uri)
            elif facts.path in starts and facts.status_text == "success":
                started = started or call
        if isinstance(facts, RpcFacts) and facts.mode != "reply" and facts.vm_state in ("active", "error"):
            candidates.append((call.started_ns, facts.vm_state, call))
    for call in material.by_uuid.get(trace.server_id) if trace.server_id else ():
        facts = call.facts
        if isinstance(facts, SqlFacts) and facts.vm_state in ("active", "error"):
            candidates.append((call.started_ns, facts.vm_state, call))
    for status, call in material.states.get(trace.server_id, {}).items():
        if status in ("ACTIVE", "ERROR"):
            candidates.append((call.ended_ns or call.started_ns, status.lower(), call))
    if started is not None and not any(state == "error" for _, state, _ in candidates):
        # The VRM's word counts where nova's own is not heard.
        candidates.append((started.ended_ns or started.started_ns, "active", started))
    for time_ns, state, call in sorted(candidates, key=lambda item: (item[0], item[2].serial)):
        if state == "active" and trace.active_ns is None:
            trace.active_ns, trace.active_call = time_ns, call
        elif state == "error" and trace.failed_ns is None:
            trace.failed_ns, trace.failed_call = time_ns, call
    if trace.active_ns is not None and trace.failed_ns is not None and trace.failed_ns > trace.active_ns:
        # Active first: what failed later is another operation.
        trace.failed_ns = trace.failed_call = None
    return trace.active_ns


def _share_loose(material: Material, traces: list[Trace]) -> None:
    """Give failed connections, and VRM calls without an id, to the creations that were at work there."""
    spans = [(trace, _places(trace)) for trace in traces]
    for call in material.loose:
        address = call.connection.client.address
        takers = []
        for trace, places in spans:
            for place, since_ns, until_ns in places:
                if place == address and since_ns - SKEW_NS <= call.started_ns <= until_ns + SKEW_NS:
                    takers.append(trace)
                    break
        for trace in takers:
            if call not in trace.calls:
                trace.calls.append(call)
                trace.calls.sort(key=lambda c: (c.started_ns, c.serial))
                if len(takers) > 1:
                    trace.ambiguous.add(call.serial)


def _places(trace: Trace) -> list[tuple[str, int, int]]:
    """Return (address, since, until): where and when somebody worked on this trace."""
    places: list[tuple[str, int, int]] = []
    end_ns = trace.active_ns or trace.failed_ns or 1 << 62
    for call in trace.calls:
        facts = call.facts
        if _is_creation(call):
            until_ns = call.ended_ns if call.ended_ns is not None else end_ns
            places.append((call.connection.server.address, call.started_ns, until_ns))
        elif (
            isinstance(facts, RpcFacts) and facts.method in _FORK and facts.consumer and facts.mode != "reply"
        ):
            places.append((facts.consumer.endpoint.address, call.started_ns, end_ns))
    return places
