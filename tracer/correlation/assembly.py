"""Builds the traces out of what the correlator has collected.

Steps, each by the most trustworthy key that fits (reference: keys in order of trust): legs of one POST
-> request id -> VMs -> the calls of the request and of each VM -> the portal's call around it.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from tracer.correlation.call_store import CallStore
from tracer.correlation.existing_server import add_by_place, add_by_server, find_failure
from tracer.correlation.portal import find_portal_calls, refused_at_portal
from tracer.correlation.requests import (
    SKEW_NS,
    Inserts,
    Pending,
    Request,
    find_request_ids,
    find_server_by_insert,
    is_contested,
    merged,
    pair_legs,
    rest,
    seeded_by_rpc,
)
from tracer.model import Call, RestFacts, RpcFacts, SqlFacts, Trace
from tracer.openstack import rpc, sql
from tracer.openstack.rest import STARTS_VM
from tracer.openstack.services import LOOKED_AT_BEFORE_QUOTA
from tracer.openstack.states import ACTIVE, ENDS_CREATION, ERROR, STATE_OF_STATUS, TASK_SUCCEEDED

__all__ = ["assemble"]

PORTAL_NS = 60_000_000_000
"""How long a request to the portal may have been under way before anything was done for it."""


def assemble(store: CallStore, pending: Pending) -> list[Trace]:
    """Return one trace per VM, and one per request that made none, in order of start.

    *pending* decides about what is not answered yet.
    """
    requests = pair_legs(store)
    inserts = Inserts(store)
    find_request_ids(store, requests, inserts, pending)
    requests += seeded_by_rpc(store, requests)
    requests = merged(store, requests)
    for request in requests:
        _collect(store, request)
    if store.creates:
        owned = {server_id for request in requests for server_id in request.server_ids}
        for request in requests:
            if not request.server_ids and not is_contested(store, request, pending):
                find_server_by_insert(store, request, owned, inserts)
        requests = merged(store, requests)
        _share_quota_reads(store, requests)
    find_portal_calls(store, requests, pending)
    requests += refused_at_portal(store, requests, pending)
    traces = [trace for request in requests for trace in _fork(store, request)]
    if store.creates:
        _share_loose(store, traces)
    else:
        add_by_place(store, traces)
    traces.sort(key=lambda trace: trace.calls[0].started_ns)
    for number, trace in enumerate(traces, 1):
        trace.number = number
        trace.curtailed = _may_lack(store, trace)
    return traces


def _may_lack(store: CallStore, trace: Trace) -> bool:
    """Tell whether calls of *trace* may have been dropped for lack of room."""
    since_ns = trace.calls[0].started_ns
    return (
        store.by_request.may_lack(trace.request_id, since_ns)
        or store.by_uuid.may_lack(trace.server_id, since_ns)
        or store.loose.may_lack(since_ns)
        # The request to the portal comes first: without it the trace seems to begin later.
        or store.portal.may_lack(since_ns - PORTAL_NS)
    )


# --- the calls of a request -----------------------------------------------------------------------


def _collect(store: CallStore, request: Request) -> None:
    request.add(request.legs)
    for leg in request.legs:
        request.add(store.validations.get(leg.serial, ()))
    if request.request_id:
        request.add(store.by_request.get(request.request_id))
    for call in request.calls if store.creates else ():
        facts = call.facts
        if isinstance(facts, RpcFacts) and facts.method in rpc.FORKS:
            request.server_ids += [i for i in facts.ids if i not in request.server_ids]


def _share_quota_reads(store: CallStore, requests: list[Request]) -> None:
    """Give each quota read to the request that made it, or to all that may have.

    First the requests open at that service then; of several, those between whose last look at glance,
    neutron or keystone and whose first INSERT it lies. Cinder does not count: a volume is looked at after
    the quota.
    """
    by_leg = {leg.serial: request for request in requests for leg in request.legs}
    bounds = {id(request): _quota_window(store, request) for request in requests}
    for call, legs in store.quota:
        candidates = list(dict.fromkeys(by_leg[leg.serial] for leg in legs if leg.serial in by_leg))
        # After its INSERT a request reads no more; on a shared address conductor's recheck comes then.
        open_ = [
            r for r in candidates if bounds[id(r)][1] is None or call.started_ns < (bounds[id(r)][1] or 0)
        ]
        narrow = [r for r in open_ if call.started_ns >= bounds[id(r)][0]]
        chosen = open_ if len(open_) == 1 else (narrow or open_)
        for request in chosen:
            request.calls.append(call)
            if len(chosen) > 1 or call.serial in store.shared_reads:
                request.ambiguous.add(call.serial)


def _quota_window(store: CallStore, request: Request) -> tuple[int, int | None]:
    since_ns = 0
    for call in request.calls:
        facts = call.facts
        role = call.connection.server_role
        if isinstance(facts, RestFacts) and facts.method == "GET" and role in LOOKED_AT_BEFORE_QUOTA:
            leg = request.at_api
            if leg is not None and leg.ended_ns is not None and call.started_ns > leg.ended_ns:
                continue
            since_ns = max(since_ns, call.ended_ns or call.started_ns)
    until_ns = None
    for server_id in request.server_ids:
        for call in store.by_uuid.get(server_id):
            facts = call.facts
            if isinstance(facts, SqlFacts) and sql.ends_quota_check(facts.verb, facts.table):
                until_ns = min(until_ns or call.started_ns, call.started_ns)
    if until_ns is None:
        rpc = [c for c in request.calls if store.is_seed(c)]
        until_ns = min((c.started_ns for c in rpc), default=None)
    return since_ns, until_ns


# --- one trace per VM -----------------------------------------------------------------------------


def _fork(store: CallStore, request: Request) -> list[Trace]:
    server_ids: list[str] = list(request.server_ids)
    shared = len(server_ids) > 1
    siblings = _Siblings(request) if shared else None
    traces = []
    for server_id in server_ids or [""]:
        trace = Trace(0, request.request_id, server_id, shared=shared, creates=store.creates)
        trace.ambiguous |= request.ambiguous
        for call in request.calls:
            if call.front is not None and not store.is_leg(call):
                # The leg behind the proxy: its outer leg stands for the hop.
                continue
            mine = siblings.belongs(call, server_id) if siblings is not None else "yes"
            if mine:
                trace.calls.append(call)
                if mine == "perhaps":
                    trace.ambiguous.add(call.serial)
        _complete(store, request, trace)
        if trace.calls:
            traces.append(trace)
    return traces


class _Siblings:
    """The VMs of one request: what tells their calls apart."""

    def __init__(self, request: Request) -> None:
        self._owners = _resource_owners(request, set(request.server_ids))
        self._hosts = _hosts_of_servers(request)
        self._known = {*self._hosts, *self._owners.values()}
        self._builders = {address for addresses in self._hosts.values() for address in addresses}

    def belongs(self, call: Call, server_id: str) -> str:
        """Return 'yes', 'perhaps' or '' for a call of the request and one of its VMs."""
        facts = call.facts
        ids = facts.ids if isinstance(facts, RestFacts | RpcFacts | SqlFacts) else ()
        if isinstance(facts, RpcFacts) and facts.method in rpc.ASKS_A_HOST_TO_BUILD and not ids:
            return "perhaps"
        named = {self._owners.get(i, i) for i in ids}
        if server_id in named:
            return "yes"
        if not named.isdisjoint(self._known):
            return ""
        hosts = self._hosts.get(server_id)
        if isinstance(facts, RestFacts) and hosts:
            address = call.connection.client.address
            if address in self._builders:
                return "perhaps" if address in hosts else ""
        return "yes"


def _resource_owners(request: Request, server_ids: set[str]) -> dict[str, str]:
    """Return port, attachment … -> VM, learnt from the calls that made them for one VM."""
    owners: dict[str, str] = {}
    for call in request.calls:
        facts = call.facts
        if isinstance(facts, RestFacts) and facts.method == "POST":
            named = [i for i in facts.ids if i in server_ids]
            if len(named) == 1:
                owners.update((made, named[0]) for made in facts.answered_ids if made not in server_ids)
    return owners


def _hosts_of_servers(request: Request) -> dict[str, set[str]]:
    """Return VM -> addresses of the computes that were asked to build it."""
    hosts: dict[str, set[str]] = {}
    for call in request.calls:
        facts = call.facts
        if isinstance(facts, RpcFacts) and facts.method in rpc.ASKS_A_HOST_TO_BUILD and facts.consumer:
            for server_id in facts.ids:
                hosts.setdefault(server_id, set()).add(facts.consumer.endpoint.address)
    return hosts


def _complete(store: CallStore, request: Request, trace: Trace) -> None:
    """Add what only the VM's id joins, and set what is known of the trace as a whole."""
    trace.created = request.at_api
    named = [request.at_api, request.portal]
    trace.name = next((rest(call).name for call in named if call is not None and rest(call).name), "")
    if store.creates:
        _add_of_the_new(store, trace)
    else:
        trace.name = trace.name or store.names.get(trace.server_id, "")
        add_by_server(store, trace)
        find_failure(trace)
    for call in trace.calls:
        if call.back is not None:
            _enclose(call, call.back)
    trace.calls.sort(key=lambda call: (call.started_ns, call.serial))
    projects = [getattr(call.facts, "project_id", "") for call in trace.calls]
    trace.project_id = next((project for project in projects if project), "")


def _enclose(outer: Call, inner: Call) -> None:
    """Let *outer*, the leg towards a proxy, enclose the leg behind it, where two clocks say otherwise.

    What is not known of the clocks when the calls are read never decides which of the two came first.
    """
    if not outer.frames or not inner.frames or outer.frames[0][0] == inner.frames[0][0]:
        return
    if outer.started_ns > inner.started_ns:
        outer.started_ns = inner.started_ns - 1
    if outer.ended_ns is not None and inner.ended_ns is not None and outer.ended_ns < inner.ended_ns:
        outer.ended_ns = inner.ended_ns + 1


def _add_of_the_new(store: CallStore, trace: Trace) -> None:
    """Add the calls that name the VM and no other request, and set when it was active or in error."""
    active_ns = _find_state(store, trace)
    known = {id(call) for call in trace.calls}
    if trace.server_id:
        for call in store.by_uuid.get(trace.server_id):
            if id(call) in known or (call.front is not None):
                continue
            if _wanted_by_uuid(call, trace, active_ns):
                trace.calls.append(call)
                known.add(id(call))
    states = store.states.get(trace.server_id, {})
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


def _find_state(store: CallStore, trace: Trace) -> int | None:
    """Set when and by which call the VM was seen active or in error."""
    candidates: list[tuple[int, str, Call]] = []
    starts: set[str] = set()
    started: Call | None = None
    for call in [*trace.calls, *(store.by_uuid.get(trace.server_id) if trace.server_id else ())]:
        facts = call.facts
        if isinstance(facts, RestFacts):
            if facts.path.endswith(STARTS_VM) and facts.task_uri:
                starts.add(facts.task_uri)
            elif facts.path in starts and facts.status_text == TASK_SUCCEEDED:
                started = started or call
        if isinstance(facts, RpcFacts) and facts.mode != "reply" and facts.vm_state in ENDS_CREATION:
            candidates.append((call.started_ns, facts.vm_state, call))
    for call in store.by_uuid.get(trace.server_id) if trace.server_id else ():
        facts = call.facts
        if isinstance(facts, SqlFacts) and facts.vm_state in ENDS_CREATION:
            candidates.append((call.started_ns, facts.vm_state, call))
    for status, call in store.states.get(trace.server_id, {}).items():
        if status in STATE_OF_STATUS:
            candidates.append((call.ended_ns or call.started_ns, STATE_OF_STATUS[status], call))
    if started is not None and not any(state == ERROR for _, state, _ in candidates):
        # The VRM's word counts where nova's own is not heard.
        candidates.append((started.ended_ns or started.started_ns, ACTIVE, started))
    for time_ns, state, call in sorted(candidates, key=lambda item: (item[0], item[2].serial)):
        if state == ACTIVE and trace.active_ns is None:
            trace.active_ns, trace.active_call = time_ns, call
        elif state == ERROR and trace.failed_ns is None:
            trace.failed_ns, trace.failed_call = time_ns, call
    if trace.active_ns is not None and trace.failed_ns is not None and trace.failed_ns > trace.active_ns:
        # Active first: what failed later is another operation.
        trace.failed_ns = trace.failed_call = None
    return trace.active_ns


def _share_loose(store: CallStore, traces: list[Trace]) -> None:
    """Give failed connections, and VRM calls without an id, to the creations that were at work there."""
    spans: dict[str, list[tuple[int, int, int]]] = {}
    for position, trace in enumerate(traces):
        for address, since_ns, until_ns in _places(store, trace):
            spans.setdefault(address, []).append((since_ns - SKEW_NS, until_ns + SKEW_NS, position))
    calls: dict[str, list[Call]] = {}
    for call in store.loose:
        if call.connection.client.address in spans:
            calls.setdefault(call.connection.client.address, []).append(call)
    found: dict[int, list[tuple[Call, bool]]] = {}
    for address, mine in calls.items():
        for call, positions in _at_work(spans[address], mine):
            for position in positions:
                found.setdefault(position, []).append((call, len(positions) > 1))
    for position, perhaps in found.items():
        trace = traces[position]
        known = {call.serial for call in trace.calls}
        new = [(call, shared) for call, shared in perhaps if call.serial not in known]
        trace.calls += [call for call, _ in new]
        trace.ambiguous.update(call.serial for call, shared in new if shared)
        trace.calls.sort(key=lambda call: (call.started_ns, call.serial))


def _at_work(spans: list[tuple[int, int, int]], calls: list[Call]) -> Iterator[tuple[Call, set[int]]]:
    """Yield each of *calls* with the numbers of the spans (since, until, number) in which it began."""
    waiting = sorted(spans, reverse=True)
    open_: list[tuple[int, int]] = []
    for call in sorted(calls, key=lambda call: call.started_ns):
        while waiting and waiting[-1][0] <= call.started_ns:
            _, until_ns, number = waiting.pop()
            heappush(open_, (until_ns, number))
        while open_ and open_[0][0] < call.started_ns:
            heappop(open_)
        if open_:
            yield call, {number for _, number in open_}


def _places(store: CallStore, trace: Trace) -> list[tuple[str, int, int]]:
    """Return (address, since, until): where and when somebody worked on this trace."""
    places: list[tuple[str, int, int]] = []
    end_ns = trace.active_ns or trace.failed_ns or 1 << 62
    for call in trace.calls:
        facts = call.facts
        if store.is_leg(call):
            until_ns = call.ended_ns if call.ended_ns is not None else end_ns
            places.append((call.connection.server.address, call.started_ns, until_ns))
        elif (
            isinstance(facts, RpcFacts)
            and facts.method in rpc.FORKS
            and facts.consumer
            and facts.mode != "reply"
        ):
            places.append((facts.consumer.endpoint.address, call.started_ns, end_ns))
    return places
