"""Collects the calls that can belong to a trace, each under the key that may join it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence

from tracer.correlation import expiry
from tracer.correlation.assembly import assemble
from tracer.correlation.material import Begins, Material
from tracer.model import Call, ConnectFacts, Endpoint, RestFacts, RpcFacts, SqlFacts, Trace
from tracer.openstack.rest import CREATED, is_login, is_vrm, names_vrm_object
from tracer.openstack.services import NOVA_API, PORTAL

__all__ = ["Correlator"]

LOOSE = 20_000
"""Calls without any key that are kept for a join by time and address."""
RETIRED = 200_000
"""Ids of retired traces that are remembered, so that what comes late opens no other trace."""


class Correlator:
    """Receives calls as they begin and change; gives traces at the end.

    *is_front* tells whether an endpoint is a proxy's; *addresses_of* the addresses of a role; both come
    from the topology. *begins* tells what begins a trace, and comes from the grammar.
    """

    def __init__(
        self,
        is_front: Callable[[Endpoint], bool],
        addresses_of: Callable[[str], set[str]],
        host_of: Callable[[str], str | None],
        begins: Begins,
    ) -> None:
        self._material = Material(is_front, addresses_of, host_of, begins)
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
            self._material.loose.add(call)

    def traces(
        self,
        *,
        in_flight: bool = False,
        told_before_ns: tuple[int, int] = (0, 0),
        told: Collection[int] = (),
    ) -> list[Trace]:
        """Return the traces that were seen, in order of their start.

        *in_flight* while more is to come: what only a POST's answer makes certain then waits for it. An order
        that waits at the portal is told when it began before *told_before_ns*: the first holds for one like
        those that led to a creation, the second for any while there was none. One whose serial is in *told*
        was told before, and is as long as it waits.
        """
        self._material.in_flight, self._material.told_before_ns = in_flight, told_before_ns
        self._material.told = told
        return assemble(self._material)

    def open_count(self) -> int:
        """Return how many requests that begin a trace were seen so far, for a progress line."""
        return len(self._material.legs)

    # --- forgetting, which only a live run does ---

    def retire(self, traces: Sequence[Trace]) -> None:
        """Forget *traces*, all that share one request: they have their verdicts."""
        keys = expiry.retire(self._material, traces)
        self._retired.update(dict.fromkeys(keys))
        expiry.forget_oldest(self._retired, RETIRED)
        for trace in traces:
            for call in trace.calls:
                self._open_legs.pop(call.serial, None)

    def forget(self, before_ns: int, open_traces: Collection[Trace]) -> None:
        """Forget what was last heard of before *before_ns* and belongs to none of *open_traces*."""
        keys = {trace.request_id for trace in open_traces}
        uuids = {trace.server_id for trace in open_traces}
        serials = {call.serial for trace in open_traces for call in trace.calls}
        expiry.forget(self._material, before_ns, keys, serials, uuids)

    def calls_since(self, since_ns: int) -> list[Call]:
        """Return the calls begun since then that may still be found to belong to a trace."""
        material = self._material
        kept: list[Iterable[Call]] = [calls for _, calls in material.by_request.items()]
        kept += [calls for _, calls in material.by_uuid.items()]
        kept += [material.portal, material.logins, material.loose, [call for call, _ in material.quota]]
        return [call for calls in kept for call in calls if call.started_ns >= since_ns]

    def orders(self) -> list[str]:
        """Return what the portal was asked when it led to a creation."""
        return sorted(self._material.orders)

    def know_orders(self, orders: Iterable[str]) -> None:
        """Take *orders* of an earlier run for what the portal is asked when it leads to a creation."""
        for operation in orders:
            self._material.know_order(operation)

    def has_candidates(self) -> bool:
        """Tell whether there is anything of which a trace can be made."""
        material = self._material
        return bool(material.legs or material.seeds or material.portal)

    def forgotten(self) -> dict[str, int]:
        """Return what was dropped for lack of room: what -> how often."""
        indexes = (self._material.by_request, self._material.by_uuid)
        return {
            "ids": sum(index.forgotten for index in indexes),
            "calls of one id": sum(index.left_out for index in indexes),
            "requests to the portal": self._material.portal.forgotten,
            "logins": self._material.logins.forgotten,
            "calls without an id": self._material.loose.forgotten,
        }

    # --- REST ---

    def _rest(self, call: Call, facts: RestFacts, new: bool) -> None:
        material = self._material
        if new:
            self._rest_begun(call, facts)
        if not call.closed:
            return
        if call.serial in self._open_legs:
            del self._open_legs[call.serial]
        elif facts.answered_id and facts.answered_id != facts.request_id and facts.method != "?":
            # Another operation's id: nothing that carries it is part of a creation.
            material.by_request.discard(facts.answered_id)
        if facts.method == "?" and material.creates and _looks_like_creation(call, facts):
            material.legs.append(call)
        if facts.method == "GET" and facts.status_text and facts.path.endswith(facts.server_id or "?"):
            material.state(facts.server_id, facts.status_text, call)
        if facts.creates:
            for server_id in facts.answered_ids[:1]:
                material.named(server_id, facts.name)
        if facts.task_uri or facts.vm_uri:
            self._learn_uris(call, facts)

    def _rest_begun(self, call: Call, facts: RestFacts) -> None:
        material = self._material
        asked = material.begins("REST", call.asked)
        if facts.server_id and facts.method != "GET" and not material.creates:
            material.changed(facts.server_id, call)
        if asked - {PORTAL}:
            material.legs.append(call)
            self._open_legs[call.serial] = call
            return
        if facts.request_id:
            material.by_request.add(facts.request_id, call)
            return
        if facts.subject_token and call.parent is not None and call.parent.serial in self._open_legs:
            material.validations.setdefault(call.parent.serial, []).append(call.front or call)
            return
        if is_vrm(facts.path):
            self._vrm(call, facts)
        elif asked and (facts.name or not material.creates) and not call.connection.server_role:
            material.portal.add(call)
        elif facts.method in ("POST", "GET") and is_login(facts.path):
            material.logins.add(call)

    def _vrm(self, call: Call, facts: RestFacts) -> None:
        known = next((self._vrm_uris[p] for p in _prefixes(facts.path) if p in self._vrm_uris), None)
        if known:
            self._material.by_uuid.add(known, call)
        elif facts.ids:
            for uuid in facts.ids[:8]:
                self._material.by_uuid.add(uuid, call)
        elif not self._material.creates or not names_vrm_object(facts.path):
            # Logins and the like. For a VM that is being made, a task that nobody named is that of an older
            # operation; a VM that is there may have been made before the capture.
            self._material.loose.add(call)

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
            self._material.by_request.add(facts.request_id, call)
            if self._material.is_seed(call):
                self._material.seeded(facts.request_id)
        elif facts.ids:
            for uuid in facts.ids[:64]:
                self._material.by_uuid.add(uuid, call)

    def _sql(self, call: Call, facts: SqlFacts) -> None:
        if facts.quota:
            address = call.connection.client.address
            candidates = [leg for leg in self._open_legs.values() if leg.connection.server.address == address]
            if candidates:
                self._material.quota.append((call, candidates))
        for uuid in facts.ids[:16]:
            self._material.by_uuid.add(uuid, call)


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
