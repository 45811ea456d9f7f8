"""Builds the traces from the calls that the correlator has collected.

The order is: pair the legs of each POST, find its request id, find its VMs, collect the calls of the
request and of each VM, find the portal's call around it. Each step uses the most reliable key that is
there: request id, then server id, then token, then time and address.
"""

# A uuid alone must never decide to which trace a call belongs: under the request id of VM A nova-compute's
# resource tracker calls GET /allocations/{B} for the other VMs of its host (157 such calls in
# ok-concurrent-20), and update_instance_info lists all VMs of a host. So the request id decides the trace,
# and the uuid picks the VM within it; the uuid alone counts only where no other request id is present.

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

from tracer.correlation.call_store import CallStore
from tracer.correlation.existing_server import add_by_place, add_by_server, find_failure
from tracer.correlation.portal import find_portal_calls, refused_at_portal
from tracer.correlation.records import name_in_records, recorded
from tracer.correlation.requests import (
    SKEW_NS,
    Inserts,
    Pending,
    Request,
    addresses_of,
    find_request_ids,
    find_server_by_insert,
    is_contested,
    join_by_elimination,
    merged,
    pair_legs,
    rest,
    seeded_by_rpc,
)
from tracer.model import Call, RestFacts, RpcFacts, SqlFacts, Trace
from tracer.openstack import rpc, sql
from tracer.openstack.rest import STARTS_VM
from tracer.openstack.services import LOOKED_AT_BEFORE_QUOTA
from tracer.openstack.states import ACTIVE, DELETED, ENDS_CREATION, ERROR, STATE_OF_STATUS, TASK_SUCCEEDED

__all__ = ["assemble"]

_ACCEPTED = ("?", "ok", "unacked", "undelivered")
"""Results of a request to delete a VM that was not refused, or may not have been."""
PORTAL_NS = 60_000_000_000
"""The longest time from a request to the portal to the first call that the portal makes for it."""


def assemble(store: CallStore, pending: Pending) -> list[Trace]:
    """Return one trace per VM, and one per request that made no VM, in order of start.

    *pending* decides about requests that are not answered yet.
    """
    requests = pair_legs(store)
    inserts = Inserts(store)
    find_request_ids(store, requests, inserts, pending)
    requests += seeded_by_rpc(store, requests)
    # Legs that `pair_legs` could not pair may turn out to have the same request id or VM.
    requests = merged(store, requests)
    sharing: dict[str, list[Request]] = {}
    for request in requests:
        sharing.setdefault(request.request_id, []).append(request)
    for request in requests:
        _collect(store, request, sharing[request.request_id] if request.request_id else ())
    if store.creates:
        owned = {server_id for request in requests for server_id in request.server_ids}
        for request in requests:
            if not request.server_ids and not is_contested(store, request, pending):
                find_server_by_insert(store, request, owned, inserts)
        # Once more: the INSERTs may have shown that two requests made the same VM.
        requests = merged(store, requests)
        requests += _of_the_database(store, requests)
        if not pending.more_to_come:
            requests = join_by_elimination(requests)
        _share_quota_reads(store, requests)
    # The portal's call needs the VMs (its answer may name one), so it comes after all of the above.
    find_portal_calls(store, requests, pending)
    requests += refused_at_portal(store, requests, pending)
    traces = [trace for request in requests for trace in _fork(store, request)]
    # Calls without an id need the finished traces: who worked on what, and when.
    if store.creates:
        _share_loose(store, traces)
    else:
        add_by_place(store, traces)
    traces.sort(key=_begun)
    for number, trace in enumerate(traces, 1):
        trace.number = number
        trace.curtailed = _may_lack(store, trace)
    return traces


def _begun(trace: Trace) -> tuple[int, int]:
    """Return when *trace* began, and when its own request did: several tries may share one order."""
    created = trace.created
    first = trace.calls[0].started_ns
    return first, created.started_ns if created is not None else first


def _may_lack(store: CallStore, trace: Trace) -> bool:
    """Return whether calls of *trace* may have been dropped for lack of room."""
    since_ns = trace.calls[0].started_ns
    return (
        store.by_request.may_lack(trace.request_id, since_ns)
        or store.by_uuid.may_lack(trace.server_id, since_ns)
        or store.loose.may_lack(since_ns)
        # The request to the portal comes first: if it was dropped, the trace seems to begin later.
        or store.portal.may_lack(since_ns - PORTAL_NS)
    )


def _of_the_database(store: CallStore, requests: list[Request]) -> list[Request]:
    """Return the requests that only the database tells of, with the calls of their request ids."""
    found = recorded(store, requests)
    for request in found:
        if request.request_id:
            request.add(store.by_request.get(request.request_id))
    return found


# --- the calls of a request -----------------------------------------------------------------------


def _collect(store: CallStore, request: Request, sharing: Sequence[Request]) -> None:
    """Add the legs, their token validations and the calls with the request id; learn VMs from the RPCs.

    Of *sharing*, the requests that were answered with one id, each gets the calls that name its own VMs or
    carry its token; those that tell nothing are ambiguous.
    """
    request.add(request.legs)
    for leg in request.legs:
        request.add(store.validations.get(leg.serial, ()))
    if request.request_id and len(sharing) > 1:
        _collect_own(store, request, [each for each in sharing if each is not request])
    elif request.request_id:
        request.add(store.by_request.get(request.request_id))
    # The answer of a request for N VMs names one of them. The RPCs before the fork carry the uuids of all.
    for call in request.calls if store.creates else ():
        facts = call.facts
        if isinstance(facts, RpcFacts) and facts.method in rpc.FORKS:
            request.server_ids += [i for i in facts.ids if i not in request.server_ids]


def _collect_own(store: CallStore, request: Request, others: Sequence[Request]) -> None:
    """Add those calls with the request's id that are not known to be those of *others* with the same id."""
    own = {i for leg in request.legs for i in rest(leg).answered_ids}
    theirs = {i for each in others for leg in each.legs for i in rest(leg).answered_ids}
    tokens = {rest(leg).token for leg in request.legs} - {""}
    their_tokens = {rest(leg).token for each in others for leg in each.legs} - tokens
    their_legs = {leg.serial for each in others for leg in each.legs}
    for call in store.by_request.get(request.request_id):
        ids, token = set(getattr(call.facts, "ids", ())), getattr(call.facts, "token", "")
        is_own = bool(ids & own) or token in tokens
        if call.serial in their_legs or (not is_own and (ids & theirs or token in their_tokens)):
            continue
        request.add([call])
        parent = call.parent.facts if call.parent is not None else None
        if not is_own and not own & set(getattr(parent, "ids", ())):
            request.ambiguous.add(call.serial)


def _share_quota_reads(store: CallStore, requests: list[Request]) -> None:
    """Give each quota read to the request that made it, or to all requests that may have made it.

    Candidates are the requests that were open at that service when the read began. Of several, those are
    taken whose narrow window holds the read: after their last GET to glance, neutron or keystone and before
    their first INSERT. Cinder does not bound the window: nova-api reads volumes after the quota.
    """
    # Quota reads carry no id, and a database connection is no key either: in ok-concurrent-20 only 18 of
    # 188 reads came on the connection of their request's INSERT. The narrow window decides 188 of 200 there
    # and 772 of 960 under a load of 300. What stays ambiguous goes to all candidates: when it went to the
    # nearest one alone, healthy creations were reported with step 4c missing.
    by_leg = {leg.serial: request for request in requests for leg in request.legs}
    bounds = {id(request): _quota_window(store, request) for request in requests}
    addresses = {id(request): _api_addresses(store, request) for request in requests}
    for call, legs in store.quota:
        address = call.connection.client.address
        candidates = list(
            dict.fromkeys(
                by_leg[leg.serial]
                for leg in legs
                if leg.serial in by_leg
                and leg.started_ns <= call.started_ns
                and address in addresses[id(by_leg[leg.serial])]
            )
        )
        # After its INSERT nova-api reads no quota for the request. Where services share an address, reads
        # after that are nova-conductor's recheck.
        open_ = [
            r for r in candidates if bounds[id(r)][1] is None or call.started_ns < (bounds[id(r)][1] or 0)
        ]
        narrow = [r for r in open_ if call.started_ns >= bounds[id(r)][0]]
        chosen = open_ if len(open_) == 1 else (narrow or open_)
        for request in chosen:
            request.calls.append(call)
            if len(chosen) > 1 or call.serial in store.shared_reads:
                request.ambiguous.add(call.serial)


def _api_addresses(store: CallStore, request: Request) -> set[str]:
    """Return the addresses of the service that took *request*: where it is asked, and from where it asks.

    The two differ where clients ask it itself on a plane of their own.
    """
    return {address for leg in request.legs for address in addresses_of(store, leg, request.calls)}


def _quota_window(store: CallStore, request: Request) -> tuple[int, int | None]:
    """Return (since, until) of the time in which *request* can have read the quota; None: no upper bound."""
    since_ns = 0
    for call in request.calls:
        facts = call.facts
        role = call.connection.server_role
        if isinstance(facts, RestFacts) and facts.method == "GET" and role in LOOKED_AT_BEFORE_QUOTA:
            leg = request.at_api
            if leg is not None and leg.ended_ns is not None and call.started_ns > leg.ended_ns:
                # Other services use the request id after nova-api has answered.
                continue
            since_ns = max(since_ns, call.ended_ns or call.started_ns)
    until_ns = None
    for server_id in request.server_ids:
        for call in store.by_uuid.get(server_id):
            facts = call.facts
            if isinstance(facts, SqlFacts) and sql.ends_quota_check(facts.verb, facts.table):
                until_ns = min(until_ns or call.started_ns, call.started_ns)
    if until_ns is None:
        # SQL was not captured, or the INSERT is lost: the first RPC of the creation follows the INSERT.
        seeds = [c for c in request.calls if store.is_seed(c)]
        until_ns = min((c.started_ns for c in seeds), default=None)
    return since_ns, until_ns


# --- one trace per VM -----------------------------------------------------------------------------


def _fork(store: CallStore, request: Request) -> list[Trace]:
    """Return a trace for each VM of *request*; one without a VM where it made none or none is known."""
    server_ids: list[str] = list(request.server_ids)
    shared = len(server_ids) > 1
    siblings = _Siblings(request) if shared else None
    traces = []
    for server_id in server_ids or [""]:
        trace = Trace(0, request.request_id, server_id, shared=shared, creates=store.creates)
        trace.ambiguous |= request.ambiguous
        for call in request.calls:
            if call.front is not None and not store.is_leg(call):
                # The leg behind the proxy: its outer leg stands for the hop. Legs of the request itself stay,
                # because steps 2 and 3 are the two legs of one POST.
                continue
            belongs = siblings.belongs(call, server_id) if siblings is not None else "yes"
            if belongs:
                trace.calls.append(call)
                if belongs == "perhaps":
                    trace.ambiguous.add(call.serial)
        _complete(store, request, trace)
        if trace.calls:
            traces.append(trace)
    return traces


class _Siblings:
    """Separates the calls of the VMs of one request: by id, by what was made for a VM, by host."""

    def __init__(self, request: Request) -> None:
        self._owners = _resource_owners(request, set(request.server_ids))
        self._hosts = _hosts_of_servers(request)
        self._known = {*self._hosts, *self._owners.values()}
        self._builders = {address for addresses in self._hosts.values() for address in addresses}

    def belongs(self, call: Call, server_id: str) -> str:
        """Return 'yes', 'perhaps' or '' (no) for a call of the request and one of its VMs."""
        facts = call.facts
        ids = facts.ids if isinstance(facts, RestFacts | RpcFacts | SqlFacts) else ()
        if isinstance(facts, RpcFacts) and facts.method in rpc.ASKS_A_HOST_TO_BUILD and not ids:
            # This message is for exactly one VM, but the part of it that names the VM was not captured.
            return "perhaps"
        named = {self._owners.get(i, i) for i in ids}
        if server_id in named:
            return "yes"
        if not named.isdisjoint(self._known):
            return ""
        hosts = self._hosts.get(server_id)
        if isinstance(facts, RestFacts) and hosts:
            # Calls such as GET /networks carry the request id alone (21 calls in ok-multi-3). The host that
            # makes them builds for its own VMs, which may be several.
            address = call.connection.client.address
            if address in self._builders:
                return "perhaps" if address in hosts else ""
        # It names no VM and was not made by a host that builds one: it was made for all of them.
        return "yes"


def _resource_owners(request: Request, server_ids: set[str]) -> dict[str, str]:
    """Return id of a port, an attachment … -> VM, from the POSTs that made these for one VM."""
    owners: dict[str, str] = {}
    for call in request.calls:
        facts = call.facts
        if isinstance(facts, RestFacts) and facts.method == "POST":
            named = [i for i in facts.ids if i in server_ids]
            # One POST of external events names several VMs and makes nothing for one of them.
            if len(named) == 1:
                owners.update((new_id, named[0]) for new_id in facts.answered_ids if new_id not in server_ids)
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
    """Add the calls that only the VM's id joins, and set name, project, and when it was active or failed."""
    trace.created = request.at_api
    # The portal may know the server under another name: the one sent to nova-api counts.
    named = [request.at_api, request.portal]
    trace.name = next((rest(call).name for call in named if call is not None and rest(call).name), "")
    if store.creates:
        _add_of_the_new(store, trace)
        trace.name = trace.name or name_in_records(trace.calls, trace.server_id)
    else:
        trace.name = trace.name or store.names.get(trace.server_id, "")
        add_by_server(store, trace)
        find_failure(trace)
    for call in trace.calls:
        if call.back is not None:
            _enclose(call, call.back)
    if request.outer is not None and request.inner is not None:
        _enclose(request.outer, request.inner)
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
    """Add the calls that name the VM and no other request; set when the VM was active or in error."""
    active_ns = _find_state(store, trace)
    if trace.deleted_call is not None and trace.deleted_call not in trace.calls:
        trace.calls.append(trace.deleted_call)
    known = {id(call) for call in trace.calls}
    if trace.server_id:
        for call in store.by_uuid.get(trace.server_id):
            if id(call) in known or (call.front is not None):
                continue
            if _is_of_creation(call, trace, active_ns):
                trace.calls.append(call)
                known.add(id(call))
    # Polls are evidence of the state but no calls of the trace: they go on while a creation is stuck, and
    # would hide that (fail-compute-down: 26 s without a call of the creation, 0.4 s without a poll).
    states = store.states.get(trace.server_id, {})
    trace.polls = sorted(states.values(), key=lambda call: call.started_ns)


def _is_of_creation(call: Call, trace: Trace, active_ns: int | None) -> bool:
    """Return whether *call*, which names the VM, belongs to its creation and not to another request."""
    facts = call.facts
    request_id = getattr(facts, "request_id", "")
    is_report = isinstance(facts, RestFacts) and bool(facts.events)
    if request_id and trace.request_id and request_id != trace.request_id and not is_report:
        return False
    # Later operations on the same VM (resize, rebuild) are no part of its creation. They have request ids of
    # their own, but not all of their calls carry one; so nothing is taken from one second after active on.
    if active_ns is not None and call.started_ns > active_ns + 1_000_000_000:
        return False
    # Nor is what its deletion does, which names the VM likewise.
    if trace.deleted_ns is not None and call.started_ns > trace.deleted_ns and not request_id:
        return False
    # A read of the VM's rows is no step of its creation.
    return not isinstance(facts, SqlFacts) or facts.verb in ("INSERT", "UPDATE", "DELETE", "REPLACE")


_Sighting = tuple[int, str, Call]
"""(time, vm_state, call that shows it)"""


def _find_state(store: CallStore, trace: Trace) -> int | None:
    """Set when, and by which call, the VM was first seen active or in error; return when it was active."""
    by_uuid = store.by_uuid.get(trace.server_id) if trace.server_id else []
    calls = [*trace.calls, *by_uuid]
    seen = [*_saved_states(calls), *_written_states(by_uuid)]
    seen += _polled_states(store.states.get(trace.server_id, {}))
    deleted = _deletion(store, trace, calls)
    started = _successful_start(calls)
    if started is not None and deleted is not None and deleted.started_ns < started.started_ns:
        started = None
    if started is not None and not any(state == ERROR for _, state, _ in seen):
        # The VRM started the VM. That counts where nova's own messages were not captured; where nova
        # recorded an error all the same, the error is the outcome.
        seen.append((started.ended_ns or started.started_ns, ACTIVE, started))
    _set_outcome(trace, seen)
    ended_ns = min((t for t in (trace.active_ns, trace.failed_ns) if t is not None), default=None)
    if deleted is not None and (ended_ns is None or (deleted.started_ns < ended_ns and not trace.active_ns)):
        trace.deleted_ns, trace.deleted_call = deleted.started_ns, deleted
    return trace.active_ns


def _deletion(store: CallStore, trace: Trace, calls: list[Call]) -> Call | None:
    """Return the first call that shows that the VM was deleted: a request not refused, else a state."""
    asked = [
        call
        for call in store.changes.get(trace.server_id, ())
        if call.result in _ACCEPTED or (call.result.isdigit() and int(call.result) < 300)
    ]
    # Saved by the host's nova-compute, or written into the database.
    states = [
        call
        for call in calls
        if isinstance(call.facts, RpcFacts | SqlFacts) and call.facts.vm_state in DELETED
    ]
    return min(asked or states, key=lambda call: call.started_ns, default=None)


def _saved_states(calls: list[Call]) -> list[_Sighting]:
    """Return the final states that nova-compute saved over RPC (Instance.save)."""
    return [
        (call.started_ns, call.facts.vm_state, call)
        for call in calls
        if isinstance(call.facts, RpcFacts)
        and call.facts.mode != "reply"
        and call.facts.vm_state in ENDS_CREATION
    ]


def _written_states(calls: list[Call]) -> list[_Sighting]:
    """Return the final states that were written into the database."""
    return [
        (call.started_ns, call.facts.vm_state, call)
        for call in calls
        if isinstance(call.facts, SqlFacts) and call.facts.vm_state in ENDS_CREATION
    ]


def _polled_states(polls: dict[str, Call]) -> list[_Sighting]:
    """Return the final states that polls showed, at the time of their answers."""
    return [
        (call.ended_ns or call.started_ns, STATE_OF_STATUS[status], call)
        for status, call in polls.items()
        if status in STATE_OF_STATUS
    ]


def _successful_start(calls: list[Call]) -> Call | None:
    """Return the first poll of the VRM that shows the VM's start task as successful."""
    tasks: set[str] = set()
    for call in calls:
        facts = call.facts
        if isinstance(facts, RestFacts):
            if facts.path.endswith(STARTS_VM) and facts.task_uri:
                tasks.add(facts.task_uri)
            elif facts.path in tasks and facts.status_text == TASK_SUCCEEDED:
                return call
    return None


def _set_outcome(trace: Trace, seen: list[_Sighting]) -> None:
    """Set the first time of *active* and of *error* among what was seen."""
    for time_ns, state, call in sorted(seen, key=lambda item: (item[0], item[2].serial)):
        if state == ACTIVE and trace.active_ns is None:
            trace.active_ns, trace.active_call = time_ns, call
        elif state == ERROR and trace.failed_ns is None:
            trace.failed_ns, trace.failed_call = time_ns, call
    if trace.active_ns is not None and trace.failed_ns is not None and trace.failed_ns > trace.active_ns:
        # The creation ended when the VM was active: what failed later is another operation. Where the error
        # came first, both times stay.
        trace.failed_ns = trace.failed_call = None


def _share_loose(store: CallStore, traces: list[Trace]) -> None:
    """Give failed connections, and VRM calls without an id, to the creations that their caller worked on."""
    # A refused connection (SYN answered by RST) carries no id at all; in seven of the failure scenarios it
    # is the only trace of the failing step, so it is joined by address and time.
    spans: dict[str, list[tuple[int, int, int]]] = {}
    for position, trace in enumerate(traces):
        for address, since_ns, until_ns in _places(store, trace):
            spans.setdefault(address, []).append((since_ns - SKEW_NS, until_ns + SKEW_NS, position))
    calls: dict[str, list[Call]] = {}
    for call in store.loose:
        if call.connection.client.address in spans:
            calls.setdefault(call.connection.client.address, []).append(call)
    found: dict[int, list[tuple[Call, bool]]] = {}
    for address, from_address in calls.items():
        for call, positions in _at_work(spans[address], from_address):
            for position in positions:
                found.setdefault(position, []).append((call, len(positions) > 1))
    for position, loose in found.items():
        trace = traces[position]
        known = {call.serial for call in trace.calls}
        new = [(call, shared) for call, shared in loose if call.serial not in known]
        trace.calls += [call for call, _ in new]
        trace.ambiguous.update(call.serial for call, shared in new if shared)
        trace.calls.sort(key=lambda call: (call.started_ns, call.serial))


def _at_work(spans: list[tuple[int, int, int]], calls: list[Call]) -> Iterator[tuple[Call, set[int]]]:
    """Yield each of *calls* with the numbers of the spans (since, until, number) in which it began."""
    # A sweep over time: of each pair of a call and a span only those are looked at that overlap.
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
    """Return (address, since, until) of each service that worked on this trace.

    nova-api works from the request to its answer, and the portal while the order led to no request;
    nova-conductor, nova-scheduler and nova-compute work from the message that they got to the end of the
    creation.
    """
    places: list[tuple[str, int, int]] = []
    # No end was seen: the service may still be retrying a connection.
    end_ns = trace.active_ns or trace.failed_ns or 1 << 62
    for call in trace.calls:
        facts = call.facts
        if store.is_leg(call):
            until_ns = call.ended_ns if call.ended_ns is not None else end_ns
            places += [
                (address, call.started_ns, until_ns) for address in addresses_of(store, call, trace.calls)
            ]
        elif trace.created is None and isinstance(facts, RestFacts) and facts.name:
            places.append((call.connection.server.address, call.started_ns, call.ended_ns or end_ns))
        elif (
            isinstance(facts, RpcFacts)
            and facts.method in rpc.FORKS
            and facts.consumer
            and facts.mode != "reply"
        ):
            places.append((facts.consumer.endpoint.address, call.started_ns, end_ns))
    return places
