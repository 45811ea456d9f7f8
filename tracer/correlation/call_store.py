"""The calls that may belong to a trace, indexed by the keys that join them, and their removal.

Offline, calls are dropped only for lack of room. Live, a trace that has its verdict is retired together
with its calls, and calls of no trace are dropped by age, in capture time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator

from tracer.model import Call, Endpoint, RestFacts, RpcFacts, Trace
from tracer.model.tables import trim
from tracer.openstack.rest import CREATE_SERVER
from tracer.openstack.services import PORTAL

__all__ = ["Begins", "CallIndex", "CallStore", "RecentCalls"]

# Every table here is bounded, because a live run has no end.
MOST_NAMES = 100_000
MOST_SEEDS = 50_000
MOST_CHANGES = 1_000

Begins = Callable[[str, str], frozenset[str]]
"""(protocol, operation) -> the callee roles with which such a call begins a trace; empty if with none."""


class CallStore:
    """All calls that may belong to a trace, by the keys that join them.

    *begins* comes from the grammar and states which calls begin a trace.
    """

    def __init__(
        self,
        is_front: Callable[[Endpoint], bool],
        begins: Begins,
        inner_addresses: Callable[[Endpoint], Collection[str]],
        may_hide_requests: Callable[[], bool] = lambda: False,
    ) -> None:
        self.begins = begins
        self.may_hide_requests = may_hide_requests
        self.creates = bool(begins("REST", CREATE_SERVER) - {PORTAL})
        """Whether the workflow creates servers; else it acts on an existing server, which its calls name."""
        self.is_front = is_front
        self.inner_addresses = inner_addresses
        self.legs: list[Call] = []
        """Requests that begin a trace, every leg of each."""
        self.by_request = CallIndex()
        self.seeds: OrderedDict[str, None] = OrderedDict()
        """Request ids of messages that only this workflow sends."""
        self.by_uuid = CallIndex(max_calls=1_000)
        self.records: OrderedDict[str, Call] = OrderedDict()
        """server id -> first statement that records this new server (the grammar's `begins`)"""
        self.reads_requests = False
        """Whether any request to the service that takes the requests of this workflow was read."""
        self.validations: dict[int, list[Call]] = {}
        """serial of a leg -> token validations made for it"""
        self.quota: list[tuple[Call, list[Call]]] = []
        """Quota reads, each with the legs that were open at that service when it began."""
        self.shared_reads: set[int] = set()
        """Serials of quota reads that a retired trace may have made: they stay ambiguous."""
        self.portal = RecentCalls()
        """Requests to the portal that may begin a trace."""
        self.orders_shared: set[int] = set()
        """Serials of those that led to several requests, as of the last look."""
        self.orders_led: set[int] = set()
        """Serials of those that led to a retired trace, and are kept: the portal may try again, or did."""
        self.logins = RecentCalls()
        self.loose = RecentCalls()
        """Failed connections and VRM calls without an id."""
        self.states: dict[str, dict[str, Call]] = {}
        """server id -> status -> first poll that showed it"""
        self.changes: OrderedDict[str, list[Call]] = OrderedDict()
        """server id -> requests to change it, of any workflow"""
        self.names: dict[str, str] = {}
        """server id -> name, of servers whose creation was seen"""

    def seeded(self, request_id: str) -> None:
        """Record that a message that only this workflow sends carries *request_id*."""
        self.seeds[request_id] = None
        trim(self.seeds, MOST_SEEDS)

    def recorded(self, server_id: str, call: Call) -> None:
        """Record that *call*, a statement, is the record of the new server *server_id*."""
        self.records.setdefault(server_id, call)
        trim(self.records, MOST_SEEDS)

    def state(self, server_id: str, status: str, call: Call) -> None:
        """Record that *call*, a poll, showed *status*; only the first poll of each status is kept."""
        if len(self.states) < 100_000 or server_id in self.states:
            self.states.setdefault(server_id, {}).setdefault(status, call)

    def changed(self, server_id: str, call: Call) -> None:
        """Record a request to change a server."""
        calls = self.changes.setdefault(server_id, [])
        if len(calls) < MOST_CHANGES:
            calls.append(call)
        trim(self.changes, MOST_NAMES)

    def named(self, server_id: str, name: str) -> None:
        """Record the name that a server was created with."""
        if name and len(self.names) < MOST_NAMES:
            self.names.setdefault(server_id, name)

    def is_leg(self, call: Call) -> bool:
        """Return whether *call* is a leg of a request that begins a trace; a call to the portal is none."""
        if not isinstance(call.facts, RestFacts):
            return False
        # "?": the answer was captured and the request was not. `Correlator` keeps only those answers that
        # look like the answer to POST /servers.
        return call.facts.method == "?" or bool(self.begins("REST", call.asked) - {PORTAL})

    def is_seed(self, call: Call) -> bool:
        """Return whether *call* is an RPC that only this workflow sends."""
        # select_destinations is none: a resize sends it too, with the uuid of the same VM.
        return (
            isinstance(call.facts, RpcFacts)
            and call.facts.mode in ("call", "cast")
            and bool(self.begins("RPC", call.operation))
        )

    # --- forgetting ---

    def retire(self, traces: Iterable[Trace]) -> set[str]:
        """Drop the calls that belong only to *traces*; return their request and server ids.

        *traces* are all traces of one request, so that its legs can be dropped as well.
        """
        keys: set[str] = set()
        serials: set[int] = set()
        shared: set[int] = set()
        legs: set[int] = set()
        known = {leg.serial for leg in self.legs}
        for trace in traces:
            keys |= {key for key in (trace.request_id, trace.server_id) if key}
            for call in trace.calls:
                for leg in (call, call.front, call.back):
                    if leg is not None and leg.serial in known:
                        legs.add(leg.serial)
                (shared if call.serial in trace.ambiguous else serials).add(call.serial)
        for key in keys:
            self.by_request.discard(key)
            self.by_uuid.discard(key)
            self.seeds.pop(key, None)
            self.records.pop(key, None)
            self.states.pop(key, None)
        for serial in legs:
            self.validations.pop(serial, None)
        self.legs = [leg for leg in self.legs if leg.serial not in legs]
        self.quota = self._left_to_others(legs, serials)
        self.shared_reads = (self.shared_reads | shared) & {call.serial for call, _ in self.quota}
        self.orders_led |= {
            call.serial
            for call in self.portal
            if call.serial in serials and (not call.closed or call.serial in self.orders_shared)
        }
        for calls in (self.portal, self.loose, self.logins):
            calls.discard(lambda call: call.serial in serials and call.serial not in self.orders_led)
        return keys

    def _left_to_others(self, legs: set[int], own: set[int]) -> list[tuple[Call, list[Call]]]:
        """Return the quota reads that are not *own*, each with its candidates without *legs*."""
        left = []
        for call, candidates in self.quota:
            kept = [leg for leg in candidates if leg.serial not in legs]
            if kept and call.serial not in own:
                left.append((call, kept))
        return left

    def forget(
        self, before_ns: int, keys: Collection[str], serials: Collection[int], uuids: Collection[str]
    ) -> None:
        """Drop the calls that were last active before *before_ns* and belong to no open trace.

        *keys*, *serials* and *uuids* are the request ids, calls and servers of the open traces.
        """
        _forget_keys(self.by_request, before_ns, keys)
        _forget_keys(self.by_uuid, before_ns, uuids)
        for key in [key for key in self.seeds if not self.by_request.get(key)]:
            del self.seeds[key]
        for server_id in [
            s for s, call in self.records.items() if s not in uuids and _is_old(call, before_ns)
        ]:
            del self.records[server_id]
        for server_id in [s for s in self.changes if s not in uuids]:
            if all(_is_old(call, before_ns) for call in self.changes[server_id]):
                del self.changes[server_id]
        for calls in (self.portal, self.loose, self.logins):
            calls.discard(lambda call: _is_old(call, before_ns) and call.serial not in serials)
        self.orders_led &= {call.serial for call in self.portal}
        legs = {leg.serial for leg in self.legs}
        for serial in [s for s in self.validations if s not in legs]:
            del self.validations[serial]
        self.quota = [item for item in self.quota if any(leg.serial in legs for leg in item[1])]
        for server_id in [s for s in self.states if s not in uuids]:
            polls = self.states[server_id].values()
            if all(_is_old(call, before_ns) for call in polls):
                del self.states[server_id]


def _forget_keys(index: CallIndex, before_ns: int, kept: Collection[str]) -> None:
    """Drop keys that were last active before *before_ns*, and the older calls of the other keys."""
    old = []
    for key, calls in index.oldest():
        if key in kept or not _is_old(calls[0], before_ns):
            continue
        if _is_old(calls[-1], before_ns):
            old.append(key)
        else:
            # The periodic tasks of a service use one request id for as long as it runs, so such a key
            # never gets old.
            calls[:] = [call for call in calls if not _is_old(call, before_ns)]
    for key in old:
        index.discard(key)


def _is_old(call: Call, before_ns: int) -> bool:
    if isinstance(call.facts, RestFacts) and not call.closed:
        # The answer may still come. The call ends at the latest when reassembly closes the idle connection.
        return False
    return max(call.started_ns, call.ended_ns or 0) < before_ns


# --- indexes -----------------------------------------------------------------------------------------


class CallIndex:
    """key -> calls, bounded in keys and in calls per key."""

    def __init__(self, max_keys: int = 50_000, max_calls: int = 4_000) -> None:
        self._calls: OrderedDict[str, list[Call]] = OrderedDict()
        self._max_keys = max_keys
        self._max_calls = max_calls
        self.forgotten = 0
        """Keys dropped for lack of room."""
        self.left_out = 0
        """Calls that were not kept because their key had the most calls already."""
        self._full: set[str] = set()
        """Keys with calls that were not kept."""
        self._forgotten_ns = -1
        """Start of the newest call that was dropped with its key."""

    def add(self, key: str, call: Call) -> None:
        """Keep *call* under *key*.

        With too many keys the one is dropped that was added to longest ago; with too many calls under *key*
        the call is not kept.
        """
        calls = self._calls.get(key)
        if calls is None:
            self._calls[key] = [call]
            if len(self._calls) > self._max_keys:
                _, dropped = self._calls.popitem(last=False)
                self.forgotten += 1
                self._forgotten_ns = max(self._forgotten_ns, *(call.started_ns for call in dropped))
        else:
            if len(calls) < self._max_calls:
                calls.append(call)
            else:
                self.left_out += 1
                self._full.add(key)
            self._calls.move_to_end(key)

    def get(self, key: str) -> list[Call]:
        """Return the calls of *key*, in the order in which they were added."""
        return self._calls.get(key, [])

    def may_lack(self, key: str, since_ns: int) -> bool:
        """Return whether calls of *key* that began at *since_ns* or later may have been dropped."""
        return key in self._full or since_ns <= self._forgotten_ns

    def items(self) -> list[tuple[str, list[Call]]]:
        """Return all keys with their calls."""
        return list(self._calls.items())

    def oldest(self) -> Iterator[tuple[str, list[Call]]]:
        """Yield keys and calls, the key that was added to longest ago first."""
        return iter(self._calls.items())

    def discard(self, key: str) -> None:
        """Drop *key* and its calls, if it is there."""
        self._calls.pop(key, None)
        self._full.discard(key)


class RecentCalls:
    """Calls without a key, in the order of their start; the oldest are dropped for lack of room."""

    def __init__(self, max_calls: int = 20_000) -> None:
        self._calls: deque[Call] = deque()
        self._max_calls = max_calls
        self.forgotten = 0
        self._forgotten_ns = -1

    def add(self, call: Call) -> None:
        """Keep *call*; where there is no room, the oldest call is dropped."""
        self._calls.append(call)
        if len(self._calls) > self._max_calls:
            dropped = self._calls.popleft()
            self.forgotten += 1
            self._forgotten_ns = max(self._forgotten_ns, dropped.started_ns)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def may_lack(self, since_ns: int) -> bool:
        """Return whether calls that began at *since_ns* or later may have been dropped."""
        return since_ns <= self._forgotten_ns

    def discard(self, is_over: Callable[[Call], bool]) -> None:
        """Drop the calls for which *is_over* is true."""
        kept = [call for call in self._calls if not is_over(call)]
        if len(kept) < len(self._calls):
            self._calls.clear()
            self._calls.extend(kept)
