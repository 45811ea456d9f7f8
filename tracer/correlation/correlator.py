"""Collects the calls that can belong to a trace, each under the keys that may join it."""

# Most calls of a cloud belong to no creation (polls, heartbeats, periodic tasks). What is kept here is what
# has a key (request id, server id, token of a request that is open) or is one of the few kinds of calls that
# are joined without one. Everything else is dropped at once, so memory follows the open traces.

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice

from tracer.correlation.assembly import assemble
from tracer.correlation.call_store import Begins, CallStore
from tracer.correlation.records import is_new_server
from tracer.correlation.requests import NothingPending, Pending, rest
from tracer.model import Call, ConnectFacts, Endpoint, RestFacts, RpcFacts, SqlFacts, Trace
from tracer.model.tables import trim
from tracer.openstack.rest import CREATED, deletes_server, is_login, is_vrm, names_vrm_object
from tracer.openstack.rpc import DELETES
from tracer.openstack.services import NOVA_API, PORTAL

__all__ = ["Correlator"]

LOOSE = 20_000
"""The most URIs of VRM tasks and virtual machines that are remembered."""
CLOSED_LEGS = 64
"""The latest answered creation requests, for reads that are known later than the answer."""
MOST_LEGS = 64
"""The most open requests that one quota read is kept for."""
EARLY_READS = 64
"""The latest quota reads, for a request that is known later than they are."""
RETIRED = 200_000
"""The most ids of retired traces that are remembered, so that a late call opens no second trace."""

NOTHING_PENDING = NothingPending()


class Correlator:
    """Receives calls as they begin and change; returns the traces that they form.

    *is_front* comes from the topology and returns whether an endpoint is a proxy's. *begins* comes from the
    grammar and states which calls begin a trace. *inner_addresses* comes from the topology: from where the
    service asks others that clients ask itself at an endpoint. *may_hide_requests* comes from the coverage:
    whether requests may have been made that cannot be read.
    """

    def __init__(
        self,
        is_front: Callable[[Endpoint], bool],
        begins: Begins,
        inner_addresses: Callable[[Endpoint], Collection[str]],
        may_hide_requests: Callable[[], bool] = lambda: False,
    ) -> None:
        self._store = CallStore(is_front, begins, inner_addresses, may_hide_requests)
        self._newest = 0
        self._open_legs: dict[int, Call] = {}
        self._closed_legs: deque[Call] = deque(maxlen=CLOSED_LEGS)
        self._early_reads: deque[tuple[Call, list[Call]]] = deque(maxlen=EARLY_READS)
        """Quota reads, each with the requests that may have made it."""
        self._vrm_uris: OrderedDict[str, str] = OrderedDict()
        """URI of a task or a virtual machine -> instance uuid"""
        self._retired: OrderedDict[str, None] = OrderedDict()

    def receive(self, call: Call) -> None:
        """Record *call*, which has begun, changed or ended."""
        facts = call.facts
        # Serials ascend with the start of calls: a serial that is not higher is an update of a known call.
        # Only REST is looked at again, because its answer holds ids; RPC and SQL have all keys at the start.
        new = call.serial > self._newest
        if new:
            self._newest = call.serial
        if isinstance(facts, RestFacts):
            self._rest(call, facts, new)
        elif isinstance(facts, RpcFacts):
            if new:
                self._rpc(call, facts)
        elif isinstance(facts, SqlFacts):
            if new:
                self._sql(call, facts)
        elif isinstance(facts, ConnectFacts) and new:
            self._store.loose.add(call)

    def traces(self, pending: Pending = NOTHING_PENDING) -> list[Trace]:
        """Return the traces found so far, in order of their start.

        *pending* decides about requests that are not answered yet; by default no more calls follow.
        """
        return assemble(self._store, pending)

    def holds_order(self, traces: Iterable[Trace]) -> bool:
        """Return whether one of *traces* holds a call to the portal: an order that it took."""
        orders = {call.serial for call in self._store.portal}
        return bool(orders) and any(call.serial in orders for trace in traces for call in trace.calls)

    def open_count(self) -> int:
        """Return how many requests that begin a trace were seen so far, for a progress line."""
        return len(self._store.legs) or len(self._store.records)

    # --- for live runs, which have no end ---

    def retire(self, traces: Sequence[Trace]) -> None:
        """Drop *traces*, which are all traces of one request and have their verdicts."""
        keys = self._store.retire(traces)
        self._retired.update(dict.fromkeys(keys))
        trim(self._retired, RETIRED)
        for trace in traces:
            for call in trace.calls:
                self._open_legs.pop(call.serial, None)
            serials = {call.serial for call in trace.calls}
            kept = [leg for leg in self._closed_legs if leg.serial not in serials]
            self._closed_legs = deque(kept, CLOSED_LEGS)

    def forget(self, before_ns: int, open_traces: Collection[Trace]) -> None:
        """Drop the calls that were last active before *before_ns* and belong to none of *open_traces*."""
        keys = {trace.request_id for trace in open_traces}
        uuids = {trace.server_id for trace in open_traces}
        serials = {call.serial for trace in open_traces for call in trace.calls}
        self._store.forget(before_ns, keys, serials, uuids)
        while self._early_reads and self._early_reads[0][0].started_ns < before_ns:
            self._early_reads.popleft()

    def calls_since(self, since_ns: int) -> list[Call]:
        """Return the calls that began at *since_ns* or later and may still turn out to belong to a trace."""
        store = self._store
        kept: list[Iterable[Call]] = [calls for _, calls in store.by_request.items()]
        kept += [calls for _, calls in store.by_uuid.items()]
        kept += [store.portal, store.logins, store.loose, [call for call, _ in store.quota]]
        return [call for calls in kept for call in calls if call.started_ns >= since_ns]

    def orders_led(self) -> list[Call]:
        """Return the kept orders at the portal that led to a trace which is over: none is a trace again."""
        return [call for call in self._store.portal if call.serial in self._store.orders_led]

    def know_led(self, serials: Iterable[int]) -> None:
        """Remember that the orders with *serials* led to a trace which is over."""
        self._store.orders_led.update(serials)

    def has_candidates(self) -> bool:
        """Return whether there is a call from which a trace can be built."""
        store = self._store
        return bool(store.legs or store.seeds or store.portal or store.records)

    def forgotten(self) -> dict[str, int]:
        """Return kind of call -> how many were dropped for lack of room."""
        indexes = (self._store.by_request, self._store.by_uuid)
        return {
            "ids": sum(index.forgotten for index in indexes),
            "calls of one id": sum(index.left_out for index in indexes),
            "requests to the portal": self._store.portal.forgotten,
            "logins": self._store.logins.forgotten,
            "calls without an id": self._store.loose.forgotten,
        }

    # --- REST ---

    def _rest(self, call: Call, facts: RestFacts, new: bool) -> None:
        store = self._store
        if new:
            self._rest_begun(call, facts)
        if not store.reads_requests and call.connection.server_role == NOVA_API:
            store.reads_requests = True
        if not call.closed:
            return
        if call.serial in self._open_legs:
            self._closed_legs.append(self._open_legs.pop(call.serial))
        elif store.begins("REST", call.asked) - {PORTAL}:
            # Its answer was known before its request: data behind a hole comes late. It is no other request.
            self._late_leg(call, facts)
        elif facts.answered_id and facts.answered_id != facts.request_id and facts.method != "?":
            # This answer gave a new request id to a request that begins no trace: whatever carries that id
            # belongs to another operation.
            store.by_request.discard(facts.answered_id)
        if facts.method == "?" and store.creates and _looks_like_creation(call, facts):
            store.legs.append(call)
            self._take_early_reads(call)
        if facts.method == "GET" and facts.status_text and facts.path.endswith(facts.server_id or "?"):
            store.state(facts.server_id, facts.status_text, call)
        if facts.creates:
            for server_id in facts.answered_ids[:1]:
                store.named(server_id, facts.name)
        if facts.task_uri or facts.vm_uri:
            self._learn_uris(call, facts)

    def _late_leg(self, call: Call, facts: RestFacts) -> None:
        """Keep *call*, which turns out to begin a trace, unless it is kept or has its verdict."""
        if facts.answered_id in self._retired or any(leg.serial == call.serial for leg in self._store.legs):
            return
        self._store.legs.append(call)
        self._closed_legs.append(call)
        self._take_early_reads(call)

    def _rest_begun(self, call: Call, facts: RestFacts) -> None:
        store = self._store
        asked = store.begins("REST", call.asked)
        # Of all that is asked of a server in the making only its deletion matters.
        if (
            facts.server_id
            and facts.method != "GET"
            and (not store.creates or deletes_server(facts.method, facts.path, facts.action))
        ):
            store.changed(facts.server_id, call)
        # Most reliable key first; a call is kept under one of them only.
        if asked - {PORTAL}:
            store.legs.append(call)
            self._open_legs[call.serial] = call
            self._take_early_reads(call)
            return
        if facts.events:
            # Under the servers that it names: its request id is that of neutron's own work.
            for server_id in dict.fromkeys(event.server_id for event in facts.events):
                store.by_uuid.add(server_id, call)
            return
        if facts.request_id:
            store.by_request.add(facts.request_id, call)
            return
        if facts.subject_token and call.parent is not None and call.parent.serial in self._open_legs:
            # The topology has found the request whose token is validated here. By time and address alone
            # only 4 of 42 validations have a single candidate (measured on recorded creations).
            store.validations.setdefault(call.parent.serial, []).append(call.front or call)
            return
        if is_vrm(facts.path):
            self._vrm(call, facts)
        elif asked and (facts.name or not store.creates) and not call.connection.server_role:
            # The portal's API is not documented. Its server has no known role, and an order to create has a
            # name in its body.
            store.portal.add(call)
        elif facts.method in ("POST", "GET") and is_login(facts.path):
            store.logins.add(call)

    def _vrm(self, call: Call, facts: RestFacts) -> None:
        """Keep a call to the VRM under the VM of its URI, else under the ids in its body, else without."""
        known = next((self._vrm_uris[p] for p in _prefixes(facts.path) if p in self._vrm_uris), None)
        if known:
            self._store.by_uuid.add(known, call)
        elif facts.ids:
            for uuid in facts.ids[:8]:
                self._store.by_uuid.add(uuid, call)
        elif not self._store.creates or not names_vrm_object(facts.path):
            # Logins and similar calls. In a creation, a task URI that no answer has named is of an older
            # operation. An existing VM may have been created before the capture began, so its URI counts.
            self._store.loose.add(call)

    def _learn_uris(self, call: Call, facts: RestFacts) -> None:
        """Record to which VM the task and VM URIs in the VRM's answer belong: its polls carry no other id."""
        owner = next((self._vrm_uris[p] for p in _prefixes(facts.path) if p in self._vrm_uris), None)
        owner = owner or next(iter(facts.ids), None)
        if owner:
            for uri in (facts.task_uri, facts.vm_uri):
                if uri:
                    self._vrm_uris[uri] = owner
            trim(self._vrm_uris, LOOSE)

    # --- RPC and SQL ---

    def _rpc(self, call: Call, facts: RpcFacts) -> None:
        """Keep a message under its request id, else under the server ids in it."""
        if self._store.creates and facts.method in DELETES and facts.mode == "cast":
            for uuid in facts.ids[:64]:
                self._store.changed(uuid, call)
        if facts.request_id:
            # A message of a creation that has its verdict; as a seed it would open the trace again.
            if facts.request_id in self._retired:
                return
            self._store.by_request.add(facts.request_id, call)
            if self._store.is_seed(call):
                self._store.seeded(facts.request_id)
        elif facts.ids:
            for uuid in facts.ids[:64]:
                self._store.by_uuid.add(uuid, call)

    def _sql(self, call: Call, facts: SqlFacts) -> None:
        """Keep a statement under the ids in it; a quota read has none: under the legs open then."""
        if facts.quota:
            # Quota reads outside of a creation are normal (a resize makes 20): without an open leg at that
            # address they are dropped. Data behind a hole comes late: the answer of the request that caused
            # it may be known by then.
            at_ns = call.started_ns
            closed = [leg for leg in self._closed_legs if leg.started_ns <= at_ns <= (leg.ended_ns or 0)]
            legs = [*self._open_legs.values(), *closed]
            address = call.connection.client.address
            candidates = [leg for leg in legs if leg.connection.server.address == address]
            if not candidates:
                # A service that clients ask itself has one address for them and another one inside: which one
                # is known once the calls of its request are (assembly.py).
                unforwarded = (leg for leg in legs if leg.back is None and not rest(leg).forwarded_for)
                candidates = list(islice(unforwarded, MOST_LEGS))
            if candidates:
                self._store.quota.append((call, candidates))
            self._early_reads.append((call, candidates))
        if is_new_server(facts) and facts.server_id not in self._retired and self._begins_trace(call):
            self._store.recorded(facts.server_id, call)
        for uuid in facts.ids[:16]:
            self._store.by_uuid.add(uuid, call)

    def _begins_trace(self, call: Call) -> bool:
        """Return whether *call*, a statement, begins a trace of this workflow by its operation."""
        return bool(self._store.begins("SQL", call.operation))

    def _take_early_reads(self, leg: Call) -> None:
        """Make *leg* a candidate of the quota reads that came before it, although it may have begun earlier.

        It waited for bytes that were lost before it on its connection. The reads that it caused did not wait.
        """
        for read, candidates in self._early_reads:
            # When it began may become known with its request; assembly.py compares the times.
            if read.started_ns <= (leg.ended_ns or read.started_ns) and len(candidates) < MOST_LEGS:
                if not candidates:
                    self._store.quota.append((read, candidates))
                candidates.append(leg)


def _prefixes(path: str) -> list[str]:
    """Return *path* and its parents, the longest first."""
    parts = path.rstrip("/").split("/")
    return ["/".join(parts[:n]) for n in range(len(parts), 2, -1)]


def _looks_like_creation(call: Call, facts: RestFacts) -> bool:
    """Return whether an answer whose request was not captured is that of POST /servers.

    It is a 202 with a request id and a server's id, from nova-api or from a server of unknown role.
    """
    return (
        facts.status == CREATED
        and bool(facts.answered_id and facts.answered_ids)
        and NOVA_API in (call.connection.server_role or NOVA_API)
    )
