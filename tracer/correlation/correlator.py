"""Collects the calls that can belong to a trace, each under the key that may join it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence

from tracer.correlation.assembly import assemble
from tracer.correlation.call_store import Begins, CallStore
from tracer.correlation.requests import NothingPending, Pending
from tracer.model import Call, ConnectFacts, Endpoint, RestFacts, RpcFacts, SqlFacts, Trace
from tracer.openstack.rest import CREATED, is_login, is_vrm, names_vrm_object
from tracer.openstack.services import NOVA_API, PORTAL

__all__ = ["Correlator"]

LOOSE = 20_000
"""Calls without any key that are kept for a join by time and address."""
RETIRED = 200_000
"""Ids of retired traces that are remembered, so that what comes late opens no other trace."""

NOTHING_PENDING = NothingPending()


class Correlator:
    """Receives calls as they begin and change; gives traces at the end.

    *is_front* tells whether an endpoint is a proxy's, and comes from the topology; *begins* tells what begins
    a trace, and comes from the grammar.
    """

    def __init__(self, is_front: Callable[[Endpoint], bool], begins: Begins) -> None:
        self._store = CallStore(is_front, begins)
        self._newest = 0
        self._open_legs: dict[int, Call] = {}
        self._vrm_uris: OrderedDict[str, str] = OrderedDict()
        """URI of a task or a virtual machine -> instance uuid"""
        self._retired: OrderedDict[str, None] = OrderedDict()

    def receive(self, call: Call) -> None:
        """Take note of *call*, which has begun, changed or ended."""
        facts = call.facts
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
        """Return the traces that were seen, in order of their start.

        *pending* decides about requests that are not answered yet; by default nothing more comes.
        """
        return assemble(self._store, pending)

    def open_count(self) -> int:
        """Return how many requests that begin a trace were seen so far, for a progress line."""
        return len(self._store.legs)

    # --- forgetting, and what else a run without an end needs ---

    def retire(self, traces: Sequence[Trace]) -> None:
        """Forget *traces*, all that share one request: they have their verdicts."""
        keys = self._store.retire(traces)
        self._retired.update(dict.fromkeys(keys))
        while len(self._retired) > RETIRED:
            self._retired.popitem(last=False)
        for trace in traces:
            for call in trace.calls:
                self._open_legs.pop(call.serial, None)

    def forget(self, before_ns: int, open_traces: Collection[Trace]) -> None:
        """Forget what was last heard of before *before_ns* and belongs to none of *open_traces*."""
        keys = {trace.request_id for trace in open_traces}
        uuids = {trace.server_id for trace in open_traces}
        serials = {call.serial for trace in open_traces for call in trace.calls}
        self._store.forget(before_ns, keys, serials, uuids)

    def calls_since(self, since_ns: int) -> list[Call]:
        """Return the calls begun since then that may still be found to belong to a trace."""
        store = self._store
        kept: list[Iterable[Call]] = [calls for _, calls in store.by_request.items()]
        kept += [calls for _, calls in store.by_uuid.items()]
        kept += [store.portal, store.logins, store.loose, [call for call, _ in store.quota]]
        return [call for calls in kept for call in calls if call.started_ns >= since_ns]

    def has_candidates(self) -> bool:
        """Tell whether there is anything of which a trace can be made."""
        store = self._store
        return bool(store.legs or store.seeds or store.portal)

    def forgotten(self) -> dict[str, int]:
        """Return what was dropped for lack of room: what -> how often."""
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
        if not call.closed:
            return
        if call.serial in self._open_legs:
            del self._open_legs[call.serial]
        elif facts.answered_id and facts.answered_id != facts.request_id and facts.method != "?":
            # Another operation's id: nothing that carries it is part of a creation.
            store.by_request.discard(facts.answered_id)
        if facts.method == "?" and store.creates and _looks_like_creation(call, facts):
            store.legs.append(call)
        if facts.method == "GET" and facts.status_text and facts.path.endswith(facts.server_id or "?"):
            store.state(facts.server_id, facts.status_text, call)
        if facts.creates:
            for server_id in facts.answered_ids[:1]:
                store.named(server_id, facts.name)
        if facts.task_uri or facts.vm_uri:
            self._learn_uris(call, facts)

    def _rest_begun(self, call: Call, facts: RestFacts) -> None:
        store = self._store
        asked = store.begins("REST", call.asked)
        if facts.server_id and facts.method != "GET" and not store.creates:
            store.changed(facts.server_id, call)
        if asked - {PORTAL}:
            store.legs.append(call)
            self._open_legs[call.serial] = call
            return
        if facts.request_id:
            store.by_request.add(facts.request_id, call)
            return
        if facts.subject_token and call.parent is not None and call.parent.serial in self._open_legs:
            store.validations.setdefault(call.parent.serial, []).append(call.front or call)
            return
        if is_vrm(facts.path):
            self._vrm(call, facts)
        elif asked and (facts.name or not store.creates) and not call.connection.server_role:
            store.portal.add(call)
        elif facts.method in ("POST", "GET") and is_login(facts.path):
            store.logins.add(call)

    def _vrm(self, call: Call, facts: RestFacts) -> None:
        known = next((self._vrm_uris[p] for p in _prefixes(facts.path) if p in self._vrm_uris), None)
        if known:
            self._store.by_uuid.add(known, call)
        elif facts.ids:
            for uuid in facts.ids[:8]:
                self._store.by_uuid.add(uuid, call)
        elif not self._store.creates or not names_vrm_object(facts.path):
            # Logins and the like. For a VM that is being made, a task that nobody named is that of an older
            # operation; a VM that is there may have been made before the capture.
            self._store.loose.add(call)

    def _learn_uris(self, call: Call, facts: RestFacts) -> None:
        owner = next((self._vrm_uris[p] for p in _prefixes(facts.path) if p in self._vrm_uris), None)
        owner = owner or next(iter(facts.ids), None)
        if owner:
            for uri in (facts.task_uri, facts.vm_uri):
                if uri:
                    self._vrm_uris[uri] = owner
            while len(self._vrm_uris) > LOOSE:
                self._vrm_uris.popitem(last=False)

    # --- RPC and SQL ---

    def _rpc(self, call: Call, facts: RpcFacts) -> None:
        if facts.request_id:
            if facts.request_id in self._retired:
                return
            self._store.by_request.add(facts.request_id, call)
            if self._store.is_seed(call):
                self._store.seeded(facts.request_id)
        elif facts.ids:
            for uuid in facts.ids[:64]:
                self._store.by_uuid.add(uuid, call)

    def _sql(self, call: Call, facts: SqlFacts) -> None:
        if facts.quota:
            address = call.connection.client.address
            candidates = [leg for leg in self._open_legs.values() if leg.connection.server.address == address]
            if candidates:
                self._store.quota.append((call, candidates))
        for uuid in facts.ids[:16]:
            self._store.by_uuid.add(uuid, call)


def _prefixes(path: str) -> list[str]:
    """Return *path* and its parents, the longest first."""
    parts = path.rstrip("/").split("/")
    return ["/".join(parts[:n]) for n in range(len(parts), 2, -1)]


def _looks_like_creation(call: Call, facts: RestFacts) -> bool:
    """Tell whether an answer without its request is that of POST /servers: 202 with a server's id."""
    return (
        facts.status == CREATED
        and bool(facts.answered_id and facts.answered_ids)
        and NOVA_API in (call.connection.server_role or NOVA_API)
    )
