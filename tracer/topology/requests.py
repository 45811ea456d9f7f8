"""The request for which a call is made: known by the token that it validates, or by its request id."""

from __future__ import annotations

from collections import OrderedDict

from tracer.model import Call, Connection, RestFacts
from tracer.model.tables import forget, trim
from tracer.topology.fronts import Fronts
from tracer.topology.inner import InnerAddresses
from tracer.topology.places import Places

__all__ = ["OpenRequests"]

REMEMBERED = 100_000
"""Tokens, and request ids, that are remembered."""
MOST_WITH_A_TOKEN = 256
"""Requests that carry one token; those that are never answered stay in the list."""


class OpenRequests:
    """Collects the requests that carry a token, and the calls whose answers introduce a request id."""

    def __init__(self, fronts: Fronts, inner: InnerAddresses, places: Places) -> None:
        self._fronts = fronts
        self._inner = inner
        self._places = places
        self._owners: OrderedDict[str, Call] = OrderedDict()
        """request id -> the call whose answer introduced it: its callee made the id"""
        self._by_token: OrderedDict[str, list[Call]] = OrderedDict()
        """digest of a token -> open requests that carry it, in order of their start"""

    # --- collecting ---

    def begun(self, call: Call, facts: RestFacts) -> None:
        """Join a validation with the request for which it is made, and remember *call* by its own token."""
        if facts.subject_token:
            # X-Subject-Token of the validation is X-Auth-Token of the request for which it is made.
            call.parent = self._serving(facts.subject_token, call.connection)
            if call.front is not None:
                call.front.parent = call.front.parent or call.parent
        if facts.token:
            waiting = self._by_token.setdefault(facts.token, [])
            waiting.append(call)
            del waiting[:-MOST_WITH_A_TOKEN]
            trim(self._by_token, REMEMBERED)

    def answered(self, call: Call, request_id: str) -> None:
        """Record that the answer to *call* introduces *request_id*: the service that answers made it."""
        self._owners.setdefault(request_id, call)
        trim(self._owners, REMEMBERED)

    def ended(self, call: Call, facts: RestFacts) -> None:
        """Record that *call* is open no more."""
        waiting = self._by_token.get(facts.token)
        if waiting and call in waiting:
            waiting.remove(call)
            if not waiting:
                del self._by_token[facts.token]

    def _serving(self, token: str, connection: Connection) -> Call | None:
        """Return the request for which *token* is validated: the latest open one that carries it.

        *connection* is that of the validation. Its client is the request's server, or, where services share
        an address with the proxy, has the proxy's virtual address.
        """
        address, fronts = connection.client.address, self._fronts
        found = None
        elsewhere: list[Call] = []
        for call in self._by_token.get(token, ()):
            at = call.connection.server
            if call.closed or call.connection is connection or at in fronts.seen:
                continue
            if at in fronts.presumed and at.address != address:
                # A service that clients ask itself has one address for them, and another one inside.
                if fronts.presumed[at] not in fronts.forwarded:
                    elsewhere.append(call)
            elif fronts.behind(at) is None and (at.address == address or fronts.is_address(address)):
                found = call
        if found is not None or not elsewhere:
            return found
        roles = {fronts.presumed[call.connection.server] for call in elsewhere}
        if len(roles) == 1 and not connection.client_role and self._places.is_unknown(address):
            self._inner.acts(address, *roles)
        servers = {call.connection.server for call in elsewhere}
        if len(servers) == 1:
            self._inner.works_for(address, *servers)
        return elsewhere[-1]

    def forget(self, before_ns: int) -> None:
        """Drop the owners of request ids, and the open requests of tokens, older than *before_ns*."""
        forget(self._owners, before_ns)
        for token in [t for t, calls in self._by_token.items() if calls[-1].started_ns < before_ns]:
            del self._by_token[token]

    # --- answering ---

    def owner(self, call: Call) -> Call | None:
        """Return the call whose service made the request id of *call* and sent *call* itself, if known.

        Other services pass the id on, so *call* must come from its address and while the owner was open.
        """
        owner = self._owners.get(call.facts.request_id) if isinstance(call.facts, RestFacts) else None
        if owner is None or call.caller is None:
            return None
        address = call.caller.endpoint.address
        ended_ns = owner.ended_ns or call.started_ns
        # 5 ms: records of several capture points may be out of order by that much.
        if not owner.started_ns <= call.started_ns <= ended_ns + 5_000_000:
            return None
        own = (owner.connection.server.address, owner.connection.client.address)
        return owner if self._fronts.is_address(address) or address in own else None
