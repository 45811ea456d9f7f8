"""The role at each end of a connection.

Evidence, strongest first: the topology file; how a connection identifies itself (AMQP connection name,
User-Agent, the queues it consumes); X-Forwarded-For and pairs of legs (proxies); the role of the address,
when everything seen there is of one role; the request for which a call was made; what only one service
does; what an unknown address does inside for requests that a service is asked on the external plane (the
inner address of that service); and by elimination the SC (an unknown client of the proxy) and the
administrator (an unknown client of the SC).
"""

# A role given to an address is wrong wherever services share one: with such rules 0 of 24 creations of the
# captures colo-* came out right. There a controller's address serves nine ports, and a virtual address is
# the proxy's as a destination but any service's as a source. An address alone (`alone`) is therefore used
# only after everything that a connection says of itself.

from __future__ import annotations

from tracer.model import Call, ConnectFacts, Endpoint, RestFacts, RpcFacts, SqlFacts
from tracer.openstack import rpc, sql
from tracer.openstack.rest import role_of_path, role_of_prefix
from tracer.openstack.services import (
    ADMIN,
    BROKER,
    CALLS_OTHERS,
    DATABASE,
    FANOUT,
    LISTENS,
    MEDIA,
    NOVA_API,
    PORTAL,
    PROXY,
    ROLE_OF_PORT,
    ROLE_OF_TOPIC,
    RUNS_PROGRAM,
    is_command_line,
    is_same_project,
    role_of_user_agent,
)
from tracer.topology.evidence import Evidence
from tracer.topology.file import GivenTopology
from tracer.topology.outsiders import Outsiders

__all__ = ["Roles"]


class Roles:
    """Resolves the caller and the callee of a call, from what the topology file gives and from evidence."""

    def __init__(self, given: GivenTopology, evidence: Evidence) -> None:
        self._given = given
        self._seen = evidence
        self._fronts = evidence.fronts
        self._places = evidence.places
        self._outsiders = Outsiders(evidence)

    def host_name(self, address: str) -> str | None:
        """Return the name of the compute host at *address*, known from the queue that it consumes."""
        return self._seen.hosts.get(address)

    def addresses(self, role: str) -> set[str]:
        """Return the addresses at which *role* was seen, as a server or as a client."""
        found = {address for address, roles in self._places.acts.items() if role in roles}
        found |= {address for address, ports in self._places.serves.items() if role in ports.values()}
        found |= {address for (address, _), given in self._given.roles.items() if given == role}
        if role == PROXY:
            found |= {endpoint.address for endpoint in self._fronts.all()} | self._places.proxied
        elif role == PORTAL:
            found |= self._outsiders.portals()
        elif role == ADMIN:
            found |= self._outsiders.administrators()
        else:
            found |= self._seen.inner.of(role)
            asked = (endpoint for endpoint, its in self._fronts.presumed.items() if its == role)
            found |= {endpoint.address for endpoint in asked if self._fronts.behind(endpoint) is None}
        return found

    def inner_addresses(self, outer: Endpoint) -> set[str]:
        """Return the addresses from which the service that clients ask at *outer* itself asks others."""
        role = self._fronts.presumed.get(outer)
        if role is None or not self._fronts.stands_alone(role):
            return set()
        return self._seen.inner.of_server(outer, role) - {outer.address}

    def fronts_of(self, role: str) -> set[str]:
        """Return the addresses of the proxies that forward to *role*."""
        return {endpoint.address for endpoint, behind in self._fronts.all().items() if behind == role}

    def serves(self, role: str) -> bool:
        """Return whether *role* was seen as a server, itself or behind a proxy."""
        if role == PORTAL:
            return bool(self.addresses(ADMIN))
        if role == PROXY:
            # `fronts` is no evidence: an inner leg names the outer endpoint in Host even where the outer leg
            # is not captured. Only a call to the endpoint shows that the outer leg is visible.
            asked = any(self._fronts.behind(server) == NOVA_API for _, server in self._seen.asked)
            return asked or PROXY in self._given.roles.values()
        if self._fronts.is_asked_for(role):
            return True
        return any(role in ports.values() for ports in self._places.serves.values())

    def is_front(self, endpoint: Endpoint) -> bool:
        """Return whether *endpoint* is a proxy's listening endpoint."""
        given = self._given.role(endpoint.address, endpoint.port)
        return self._fronts.behind(endpoint) is not None or given == PROXY

    def alone(self, address: str) -> str | None:
        """Return the role of *address* when everything seen there is of one role."""
        served = set(self._places.serves.get(address, {}).values()) & (LISTENS | {PORTAL})
        acting = self._places.acts.get(address, set())
        if address in self._places.proxied:
            return PROXY if not served and not acting else None
        if self._fronts.is_address(address):
            # A virtual address is the proxy's as a destination only. As a source it is any service of the
            # host that holds it.
            return None
        if len(served) == 1 and all(is_same_project(role, next(iter(served))) for role in acting):
            # cinder-scheduler and cinder-volume run beside cinder-api, and only the API speaks HTTP.
            only = next(iter(served))
            return only if only not in MEDIA or not acting else None
        return next(iter(acting)) if len(acting) == 1 and not served else None

    def caller(self, call: Call) -> str:
        """Return the role that made *call*, 'sc' and 'admin' by elimination, else its address."""
        end = call.caller
        facts = call.facts
        if isinstance(facts, RpcFacts) and facts.mode == "reply" and call.parent is not None:
            # A reply goes through a connection of its own: whoever was asked sends it.
            return self.callee(call.parent)
        if end is None:
            sender = self._sender(call, facts) if isinstance(facts, RpcFacts) else ""
            return sender or "?"
        endpoint = end.endpoint
        role = self._given.role(endpoint.address, endpoint.port)
        if role is None and isinstance(facts, RestFacts) and call.front is None and facts.forwarded_for:
            role = self._behind_proxy(call, facts)
        role = role or end.connection.client_role or self.alone(endpoint.address)
        if role and isinstance(facts, RestFacts) and role == call.connection.server_role:
            # A service does not call its own API on another address; a proxy that forwards a request does,
            # with the User-Agent of its client.
            role = PROXY if endpoint.address != call.connection.server.address else role
        if role:
            return role
        if isinstance(facts, RpcFacts):
            return self._sender(call, facts) or endpoint.address
        if isinstance(facts, SqlFacts):
            return sql.writer(facts.verb, facts.table, facts.quota) or endpoint.address
        return self._rest_caller(call, endpoint)

    def _sender(self, call: Call, facts: RpcFacts) -> str:
        """Return the role that sends such a message, by its method and by whom it is for; '' if unknown."""
        return "" if facts.mode == "reply" else rpc.sender_of(facts.method, self._rpc_callee(call, facts))

    def _behind_proxy(self, call: Call, facts: RestFacts) -> str | None:
        """Return the client of a proxy whose outer leg was not captured, when it is a service."""
        role = role_of_user_agent(facts.user_agent) or self.alone(facts.forwarded_from)
        return role if role in RUNS_PROGRAM else None

    def _rest_caller(self, call: Call, endpoint: Endpoint) -> str:
        """Return the caller by the request for which *call* was made, else by elimination, else its address.

        python-keystoneclient, -neutronclient and -glanceclient do not name the service in User-Agent, so the
        request id is what remains.
        """
        facts, server = call.facts, call.connection.server
        if call.parent is not None and call.parent.callee is not None:
            service = self.callee(call.parent)
            if service != PROXY:
                return service
        owner = self._seen.requests.owner(call)
        if owner is not None:
            return owner.connection.server_role or self._fronts.behind(owner.connection.server) or "?"
        inside = self._seen.inner.role(endpoint.address)
        if inside is not None and self._places.is_unknown(endpoint.address):
            return inside
        if self._seen.is_stranger(endpoint.address):
            if self._outsiders.is_api(server):
                return ADMIN if self._outsiders.is_client(endpoint.address) else PORTAL
            if self._outsiders.is_portal(server):
                return ADMIN
        elif (
            isinstance(facts, RestFacts)
            and is_command_line(facts.user_agent)
            and self._outsiders.is_api(server)
        ):
            # A client on a host of the cloud.
            return ADMIN
        return endpoint.address

    def is_stranger(self, call: Call) -> bool:
        """Return whether a REST call comes from outside of the cloud to a server without a given role."""
        server = call.connection.server
        return (
            isinstance(call.facts, RestFacts | ConnectFacts)
            and not getattr(call.facts, "forwarded_for", "")
            and self._given.role(server.address, server.port) is None
            and self._seen.is_stranger(call.connection.client.address)
        )

    def callee(self, call: Call) -> str:
        """Return the role that *call* is made to, else its address."""
        facts = call.facts
        if isinstance(facts, RpcFacts):
            return self._rpc_callee(call, facts)
        endpoint = call.connection.server
        role = self._given.role(endpoint.address, endpoint.port)
        if role:
            return role
        if isinstance(facts, SqlFacts):
            return DATABASE
        behind, own = self._fronts.behind(endpoint), call.connection.server_role
        if endpoint in self._seen.by_prefix and isinstance(facts, RestFacts):
            # A path of no known service tells nothing, nor do those that were asked for before it.
            own = role_of_path(facts.path) or role_of_prefix(facts.path)
            if not own:
                return PROXY if behind is not None else endpoint.address
        if behind is not None:
            behind = own or behind
            # Internal HTTP goes through the proxy as well. There the document names the service as the
            # callee; only a client from outside calls the proxy.
            return behind if behind and self.caller(call) in CALLS_OTHERS else PROXY
        served = self._places.serves.get(endpoint.address, {})
        role = own or served.get(endpoint.port) or ROLE_OF_PORT.get(endpoint.port)
        if role:
            return role
        return PORTAL if self._outsiders.is_portal(endpoint) else endpoint.address

    def _rpc_callee(self, call: Call, facts: RpcFacts) -> str:
        """Return the role that a message is for: by its topic, else by the connection that consumed it."""
        if facts.mode == "reply":
            if call.parent is not None:
                return self.caller(call.parent)
            return (
                call.callee.connection.client_role
                if call.callee and call.callee.connection.client_role
                else "?"
            )
        if facts.mode == "notify":
            return BROKER
        topic = (facts.routing_key or facts.exchange.removesuffix(FANOUT)).partition(".")[0]
        role = ROLE_OF_TOPIC.get(topic)
        if role:
            return role
        end = facts.consumer
        if end is not None:
            return end.connection.client_role or self.alone(end.endpoint.address) or end.endpoint.address
        return topic[:64] or "?"
