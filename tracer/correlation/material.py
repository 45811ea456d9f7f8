"""The calls that may belong to a trace, by the key that may join them, and the requests made of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from tracer.correlation.index import CallIndex, RecentCalls
from tracer.model import Call, Endpoint, RestFacts, RpcFacts
from tracer.openstack.rest import CREATE_SERVER
from tracer.openstack.services import PORTAL

__all__ = ["NEAR_NS", "SKEW_NS", "Begins", "Material", "Request", "rest"]

NEAR_NS = 50_000_000
"""Two legs without any readable id belong together when they begin within 50 ms."""
SKEW_NS = 5_000_000
MOST_NAMES = 100_000
MOST_SEEDS = 50_000
MOST_CHANGES = 1_000
MOST_ORDERS = 100

Begins = Callable[[str, str], frozenset[str]]
"""(protocol, operation) -> the roles to which such a call would begin a trace; none when it does not."""


class Material:
    """All calls that may belong to a trace, by the key that may join them.

    *begins* is the grammar's word on what begins a trace.
    """

    def __init__(
        self,
        is_front: Callable[[Endpoint], bool],
        addresses_of: Callable[[str], set[str]],
        host_of: Callable[[str], str | None],
        begins: Begins,
    ) -> None:
        self.begins = begins
        self.creates = bool(begins("REST", CREATE_SERVER) - {PORTAL})
        """The workflow makes servers; else it does something to one that is there, which its calls name."""
        self.is_front = is_front
        self.addresses_of = addresses_of
        self.host_of = host_of
        self.in_flight = False
        """True while more is to come: nothing is guessed then that the answer of a POST will tell."""
        self.told_before_ns = (0, 0)
        """In flight, an order that still waits at the portal is told when it began before that: one like
        those that led to a creation, and any while there was none."""
        self.told: Collection[int] = ()
        """Serials of orders that were told: each is, until it is answered or goes on."""
        self.orders: set[str] = set()
        """What the portal was asked when it led to a creation."""
        self.legs: list[Call] = []
        """Requests that begin a trace, every leg of each."""
        self.by_request = CallIndex()
        self.seeds: OrderedDict[str, None] = OrderedDict()
        """Request ids under which a message came that only this workflow sends."""
        self.by_uuid = CallIndex(max_calls=1_000)
        self.validations: dict[int, list[Call]] = {}
        """serial of a leg -> token validations made for it"""
        self.quota: list[tuple[Call, list[Call]]] = []
        """Quota reads with the legs that were open at that service then."""
        self.shared_reads: set[int] = set()
        """Serials of those that a trace may have made which was retired: they stay ambiguous."""
        self.portal = RecentCalls()
        """Requests to the portal that may begin a trace."""
        self.logins = RecentCalls()
        self.loose = RecentCalls()
        """Failed connections and VRM calls without an id."""
        self.states: dict[str, dict[str, Call]] = {}
        """server id -> status -> first poll that showed it"""
        self.changes: OrderedDict[str, list[Call]] = OrderedDict()
        """server id -> requests to change it, of whatever workflow"""
        self.names: dict[str, str] = {}
        """server id -> name, of those whose creation was seen"""

    def seeded(self, request_id: str) -> None:
        self.seeds[request_id] = None
        while len(self.seeds) > MOST_SEEDS:
            self.seeds.popitem(last=False)

    def led_further(self, order: Call) -> None:
        """Take note of what the portal was asked when it asked the cloud for a creation."""
        self.know_order(order.operation)

    def know_order(self, operation: str) -> None:
        if len(self.orders) < MOST_ORDERS:
            self.orders.add(operation)

    def state(self, server_id: str, status: str, call: Call) -> None:
        if len(self.states) < 100_000 or server_id in self.states:
            self.states.setdefault(server_id, {}).setdefault(status, call)

    def changed(self, server_id: str, call: Call) -> None:
        calls = self.changes.setdefault(server_id, [])
        if len(calls) < MOST_CHANGES:
            calls.append(call)
        if len(self.changes) > MOST_NAMES:
            self.changes.popitem(last=False)

    def named(self, server_id: str, name: str) -> None:
        if name and len(self.names) < MOST_NAMES:
            self.names.setdefault(server_id, name)

    def is_contested(self, request: Request) -> bool:
        """Tell whether a request still waits for its answer, and another one at the same service does too.

        What one of them did cannot be told from what the other did before one is answered.
        """
        leg = request.at_api
        return (
            self.in_flight
            and leg is not None
            and not leg.closed
            and any(
                not other.closed
                and other not in request.legs
                and other.connection.server.address == leg.connection.server.address
                for other in self.legs
            )
        )

    def is_leg(self, call: Call) -> bool:
        """Tell whether *call* is a leg of a request that begins a trace, behind the portal."""
        if not isinstance(call.facts, RestFacts):
            return False
        return call.facts.method == "?" or bool(self.begins("REST", call.asked) - {PORTAL})

    def is_seed(self, call: Call) -> bool:
        """Tell whether *call* is a message that only a workflow of this kind sends."""
        return (
            isinstance(call.facts, RpcFacts)
            and call.facts.mode in ("call", "cast")
            and bool(self.begins("RPC", call.operation))
        )


@dataclass(eq=False)
class Request:
    """One request, for one or more VMs."""

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


def rest(call: Call) -> RestFacts:
    assert isinstance(call.facts, RestFacts)  # noqa: S101  # legs and portal calls are REST
    return call.facts
