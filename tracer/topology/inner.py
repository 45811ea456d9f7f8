"""Inner addresses: a service that clients ask itself has one address for them, and another one inside.

Nothing identifies the inner address but what the service does there: what only that service does, or calls
to other APIs for the requests that are open outside, with the request id that the service answers later.
"""

from __future__ import annotations

from collections import OrderedDict

from tracer.model import Call, Endpoint
from tracer.model.tables import trim
from tracer.openstack.services import APIS, ROLE_OF_PORT
from tracer.topology.fronts import Fronts
from tracer.topology.places import Places

__all__ = ["InnerAddresses"]

REMEMBERED = 100_000
"""Request ids, and clients that ask an API while nothing is open outside."""
MOST_OPEN = 64
"""Requests open on the external plane that are remembered, the newest ones."""
MOST_INNER = 1_000
"""Inner addresses that are remembered: each look for those of a service goes through all."""
LONGEST_NS = 120_000_000_000
"""How long a request on the external plane counts as open where no answer of it is seen."""


class InnerAddresses:
    """Collects what is done at addresses without a role."""

    def __init__(self, fronts: Fronts, places: Places) -> None:
        self._fronts = fronts
        self._places = places
        self._open: OrderedDict[int, tuple[int, str]] = OrderedDict()
        """serial -> (start, role of the server) of open requests on the external plane"""
        self._acts: dict[str, set[str]] = {}
        """address -> roles that did there what only they do, and name themselves nowhere"""
        self._first_with: OrderedDict[str, str] = OrderedDict()
        """request id -> address of the first unknown client that sent it"""
        self._asked_from: dict[Endpoint, set[str]] = {}
        """server on the external plane -> addresses from which it asked others meanwhile"""
        self._presumed: dict[str, str] = {}
        """unknown client -> role of which requests were open outside whenever this client asked an API"""
        self._asks_anyway: OrderedDict[str, None] = OrderedDict()
        """unknown clients that asked an API inside while nothing was open outside"""

    def __contains__(self, address: str) -> bool:
        """Whether a service did at *address* what only it does."""
        return address in self._acts

    # --- collecting ---

    def begun_outside(self, call: Call, role: str) -> None:
        """Record that a request to *role* on the external plane is open."""
        self._open[call.serial] = (call.started_ns, role)
        trim(self._open, MOST_OPEN)

    def ended_outside(self, call: Call) -> None:
        """Record that *call* is open no more."""
        self._open.pop(call.serial, None)

    def answers(self, request_id: str, role: str, server: Endpoint) -> None:
        """Record that *role*, at *server*, answered with *request_id*: who sent it first is that service."""
        first = self._first_with.get(request_id)
        if first is not None:
            self.acts(first, role)
            self.works_for(first, server)

    def works_for(self, address: str, server: Endpoint) -> None:
        """Record that *address* asked others for a request that was sent to *server*, its other address."""
        if server in self._asked_from or len(self._asked_from) < MOST_INNER:
            self._asked_from.setdefault(server, set()).add(address)

    def asks(self, call: Call) -> None:
        """Learn from a call on an inner plane, or an attempt of one, whose client is not known."""
        connection, fronts = call.connection, self._fronts
        address, server = connection.client.address, connection.server
        if (
            connection.client_role
            or not fronts.presumed
            or server in fronts.presumed
            or address in self._acts
            or getattr(call.facts, "forwarded_for", "")
            or not self._places.is_unknown(address)
        ):
            return
        if request_id := getattr(call.facts, "request_id", ""):
            self._first_with.setdefault(request_id, address)
            trim(self._first_with, REMEMBERED)
        asked = connection.server_role or ROLE_OF_PORT.get(server.port, "")
        if asked in APIS and address not in self._asks_anyway:
            self._presume(address, asked, call.started_ns)

    def _presume(self, address: str, asked: str, time_ns: int) -> None:
        """Presume the service at *address*, which asks the API *asked*, by the requests that are open."""
        while self._open and next(iter(self._open.values()))[0] < time_ns - LONGEST_NS:
            self._open.popitem(last=False)
        roles = {role for _, role in self._open.values()}
        known = self._presumed.get(address)
        if not roles or asked in (known, *roles) or (known is not None and known not in roles):
            # A portal or a probe asks whenever it likes, and no service asks its own API.
            self.drop(address)
            self._asks_anyway[address] = None
            trim(self._asks_anyway, REMEMBERED)
        elif len(roles) == 1 and known is None and len(self._presumed) < MOST_INNER:
            (role,) = roles
            self._presumed[address] = role
            self._fronts.presumed_acting[role] += 1

    def acts(self, address: str, role: str) -> None:
        """Record that *address* does what only *role* does, for which *role* does not name itself."""
        if address in self._acts or len(self._acts) < MOST_INNER:
            self._acts.setdefault(address, set()).add(role)
        self._fronts.acting.add(role)

    def drop(self, address: str) -> None:
        """Presume no role of *address* any more."""
        role = self._presumed.pop(address, None)
        if role is not None:
            self._fronts.presumed_acting[role] -= 1

    # --- answering ---

    def role(self, address: str) -> str | None:
        """Return the service whose inner address an address without a role is; None if unknown."""
        roles = self._acts.get(address)
        if roles:
            return next(iter(roles)) if len(roles) == 1 else None
        role = self._presumed.get(address)
        return role if role is not None and self._fronts.stands_alone(role) else None

    def of_server(self, server: Endpoint, role: str) -> set[str]:
        """Return the addresses from which the service *role* that clients ask at *server* asks others.

        Those that were seen to do so for *server*; else all of this service but those of another such server.
        """
        if own := self._asked_from.get(server):
            return own
        acting = {address for address, roles in self._places.acts.items() if role in roles}
        return (acting | self.of(role)).difference(*self._asked_from.values())

    def of(self, role: str) -> set[str]:
        """Return the addresses that nothing identifies but what *role* does inside."""
        known = (*self._acts, *self._presumed)
        return {each for each in known if self._places.is_unknown(each) and self.role(each) == role}
