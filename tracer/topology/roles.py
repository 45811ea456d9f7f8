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

import re
from collections import Counter, OrderedDict
from typing import Any

from tracer.model import (
    AmqpMethod,
    Call,
    ConnectFacts,
    Connection,
    Endpoint,
    RestFacts,
    RpcFacts,
    SqlFacts,
    SqlLogin,
)
from tracer.openstack import rpc, sql
from tracer.openstack.rest import role_of_path
from tracer.openstack.services import (
    ADMIN,
    APIS,
    BROKER,
    CALLS_OTHERS,
    DATABASE,
    DRIVES_VRM,
    FANOUT,
    FANOUT_QUEUE,
    LISTENS,
    MEDIA,
    NOVA_API,
    NOVA_COMPUTE,
    PORTAL,
    PROXY,
    ROLE_OF_PORT,
    ROLE_OF_PROGRAM,
    ROLE_OF_TOPIC,
    RUNS_PROGRAM,
    VRM,
    is_client_tool,
    is_command_line,
    is_of_vrm_driver,
    is_same_project,
    role_of_user_agent,
)
from tracer.topology.file import GivenTopology

__all__ = ["Roles"]

REMEMBERED = 100_000
MOST_OPEN = 64
"""Requests open on the external plane that are remembered, the newest ones."""
MOST_INNER = 1_000
"""Inner addresses that are remembered: each look for those of a service goes through all."""
LONGEST_NS = 120_000_000_000
"""How long a request on the external plane counts as open where no answer of it is seen."""

_FEW = 4
"""Of so many requests with a whole head one may be cut, and still nothing was forwarded."""


class Roles:
    """Collects evidence of roles, and resolves the caller and the callee of a call."""

    def __init__(self, given: GivenTopology) -> None:
        self._given = given
        self.fronts: dict[Endpoint, str] = {}
        """Proxy's listening endpoint -> role of the service behind it ('' while unknown)."""
        self._presumed: dict[Endpoint, str] = {}
        """Server of an API call on the external plane -> role of the service, which may be behind it"""
        self._presumed_at: dict[str, set[str]] = {}
        """address of these servers -> roles of the services"""
        self._open_outside: OrderedDict[int, tuple[int, str]] = OrderedDict()
        """serial -> (start, role of the server) of open requests on the external plane"""
        self._inner: dict[str, set[str]] = {}
        """address -> roles that did there what only they do, and name themselves nowhere"""
        self._asks_from: dict[Endpoint, set[str]] = {}
        """server of an API call on the external plane -> addresses from which it asked others meanwhile"""
        self._first_with: OrderedDict[str, str] = OrderedDict()
        """request id -> address of the first unknown client that sent it"""
        self._presumed_inner: dict[str, str] = {}
        """unknown client -> role of which requests were open outside whenever this client asked an API"""
        self._presumed_acting: Counter[str] = Counter()
        """role -> clients that are presumed to be it"""
        self._asks_anyway: OrderedDict[str, None] = OrderedDict()
        """unknown clients that asked an API inside while nothing was open outside"""
        self._front_addresses: set[str] = set()
        self._serves: dict[str, dict[int, str]] = {}
        """address -> port -> role served there"""
        self._by_path: OrderedDict[Endpoint, str] = OrderedDict()
        """server -> role according to the paths that it is asked for"""
        self._acts: dict[str, set[str]] = {}
        """address -> roles of clients with this address"""
        self._hosts: dict[str, str] = {}
        """address -> host name, from the queue compute.<host> that it consumes"""
        self._owners: OrderedDict[str, Call] = OrderedDict()
        """request id -> the call whose answer introduced it: its callee made the id"""
        self._programs: OrderedDict[tuple[str, str], str] = OrderedDict()
        """(address, process id) -> role"""
        self._proxied: set[str] = set()
        """addresses that forward requests"""
        self._forwarded: set[str] = set()
        """roles of which a forwarded request was seen"""
        self._heads: Counter[str] = Counter()
        """role -> requests to it with a whole head"""
        self._cut_heads: Counter[str] = Counter()
        """role -> requests to it whose head was cut"""
        self._is_rest_inside = False
        """A service was seen to ask another one by REST."""
        self._acting: set[str] = set()
        """roles that were seen as clients, at any address"""
        self._portal_addresses: OrderedDict[str, None] = OrderedDict()
        """addresses that were asked over HTTP on a port that is no service's: a portal may be there"""
        self._tools: OrderedDict[str, None] = OrderedDict()
        """addresses of clients whose User-Agent names a tool or a library for OpenStack's APIs"""
        self._asked: OrderedDict[tuple[str, Endpoint], None] = OrderedDict()
        """(client's address, server) of HTTP requests whose client does not identify itself"""
        self._by_token: OrderedDict[str, list[Call]] = OrderedDict()
        """digest of a token -> open requests that carry it, in order of their start"""
        self._drivers: set[str] = set()
        """Programs that were seen whose virtualisation is a VRM's"""
        self._asks_vrm = False
        """Whether a path of the VRM was asked for"""
        self._tried_vrm: OrderedDict[str, None] = OrderedDict()
        """addresses with a connection to a VRM's port that failed or cannot be decoded"""

    # --- collecting ---

    def method(self, message: AmqpMethod) -> None:
        """Learn from connection names and consumed queues."""
        arguments, connection = message.arguments, message.connection
        if message.name == "connection.start-ok":
            # oslo.messaging names a connection <program>:<process id>:<uuid>.
            name, _, rest = str(arguments.get("connection_name", "")).partition(":")
            program = name.rpartition("/")[2]
            role = ROLE_OF_PROGRAM.get(program)
            if role:
                self._runs(program)
                self._acts_as(connection, role)
                self._programs[connection.client.address, rest.partition(":")[0]] = role
                _trim(self._programs)
        elif message.name == "basic.consume":
            queue = str(arguments.get("queue", ""))
            # A fanout's queue is TOPIC_fanout_ID; with streams it is TOPIC_fanout, one for all consumers.
            self._consumes(connection, queue.partition(FANOUT_QUEUE)[0].removesuffix(FANOUT))

    def login(self, message: SqlLogin) -> None:
        """Learn from a database login: its process id may be that of a broker connection.

        Source: PyMySQL sends `_pid` and `program_name` as connection attributes.
        """
        role = self._programs.get((message.connection.client.address, message.attributes.get("_pid", "")))
        program = message.attributes.get("program_name", "").rpartition("/")[2]
        role = role or ROLE_OF_PROGRAM.get(program)
        if role:
            self._runs(program)
            message.connection.client_role = role
            self._acting.add(role)

    def observe(self, call: Call) -> None:
        """Learn from *call*, which has begun or changed."""
        facts = call.facts
        if isinstance(facts, RestFacts):
            self._observe_rest(call, facts)
        elif isinstance(facts, RpcFacts):
            if facts.consumer is not None and facts.mode != "reply":
                self._consumes(
                    facts.consumer.connection, facts.routing_key or facts.exchange.removesuffix(FANOUT)
                )
            self._serve(call.connection.server, BROKER)
            if facts.published and (sender := rpc.SENDER.get(facts.method)):
                self._acting.add(sender)
            # Service.save names its own program every 10 s: the only sign of a host that does nothing else.
            if facts.binary in ROLE_OF_PROGRAM and facts.published:
                self._runs(facts.binary)
                self._act(call.connection.client.address, ROLE_OF_PROGRAM[facts.binary])
        elif isinstance(facts, SqlFacts):
            self._serve(call.connection.server, DATABASE)
            if writer := sql.writer(facts.verb, facts.table, facts.quota):
                self._acting.add(writer)
                if writer == NOVA_API and not facts.quota and not call.connection.client_role:
                    # nova-conductor reads the quota as well; only nova-api writes these rows.
                    self._acts_inside(call.connection.client.address, writer)
        else:
            self.undecoded(call.connection)

    def undecoded(self, connection: Connection) -> None:
        """Learn a server's role from its port alone: it refused the connection, or cannot be decoded."""
        role = ROLE_OF_PORT.get(connection.server.port)
        if role and connection.server not in self.fronts:
            self._serve(connection.server, role)
        if role == VRM:
            self._tried_vrm[connection.client.address] = None
            _trim(self._tried_vrm)

    def _runs(self, program: str) -> None:
        """Record that *program* was seen, if its virtualisation is a VRM's."""
        if program in DRIVES_VRM:
            self._drivers.add(program)

    def _observe_rest(self, call: Call, facts: RestFacts) -> None:
        """Learn from the head of a request, and, once *call* is closed, from its answer."""
        connection = call.connection
        if call.closed:
            # An id that differs from the request's was made by the service that answers.
            if facts.answered_id and facts.answered_id != facts.request_id:
                self._owners.setdefault(facts.answered_id, call)
                _trim(self._owners)
                first = self._first_with.get(facts.answered_id)
                if first is not None and (role := self._presumed.get(connection.server)):
                    self._acts_inside(first, role)
                    self._asks(first, connection.server)
            self._open_outside.pop(call.serial, None)
            if call.back is not None:
                self._front(connection.server, _behind(call.back))
            self._forget_token(call, facts)
            return
        if facts.forwarded_for:
            # Before the User-Agent: a proxy passes on the one of its client.
            connection.client_role = PROXY
            self._proxied.add(connection.client.address)
            self._forwarded.add(role_of_path(facts.path) or ROLE_OF_PORT.get(connection.server.port, ""))
            self._learn_front(connection, facts)
        elif role := role_of_user_agent(facts.user_agent):
            self._acts_as(connection, role)
            self._is_rest_inside = True
            if is_of_vrm_driver(facts.user_agent):
                self._drivers |= DRIVES_VRM
        else:
            client, server = connection.client.address, connection.server
            self._asked[client, server] = None
            _trim(self._asked)
            if server.port not in ROLE_OF_PORT:
                self._portal_addresses[server.address] = None
                _trim(self._portal_addresses)
            if is_client_tool(facts.user_agent):
                self._tools[client] = None
                _trim(self._tools)
        if not connection.server_role:
            self._learn_server(connection, facts.path)
        (self._cut_heads if facts.broken else self._heads)[connection.server_role] += 1
        if facts.subject_token:
            # X-Subject-Token of the validation is X-Auth-Token of the request for which it is made.
            call.parent = self._serving(facts.subject_token, connection)
            if call.front is not None:
                call.front.parent = call.front.parent or call.parent
        if facts.token:
            waiting = self._by_token.setdefault(facts.token, [])
            waiting.append(call)
            # Requests that are never answered stay in the list, so its length is bounded.
            del waiting[:-256]
            _trim(self._by_token)

    def _learn_server(self, connection: Connection, path: str) -> None:
        """Learn a server's role from the first path that only one service has; else from its port."""
        server = connection.server
        role = self._by_path.get(server)
        if role is None:
            role = role_of_path(path)
            if role:
                self._asks_vrm |= role == VRM
                self._by_path[server] = role
                _trim(self._by_path)
        connection.server_role = role or ROLE_OF_PORT.get(server.port, "")
        if connection.server_role and server not in self.fronts:
            self._serve(server, connection.server_role)

    def _learn_front(self, connection: Connection, facts: RestFacts) -> None:
        """Learn the proxy's outer endpoint from a forwarded request: Host is where the client sent it."""
        # "Serves two or more APIs" was tried as the mark of a proxy and fails: where the SC brings its own
        # token, nothing but nova-api's port is asked at the proxy.
        host, _, port = facts.host.rpartition(":")
        if not host:
            host, port = facts.host, str(connection.server.port)
        host = host.strip("[]")
        outer = Endpoint(host, int(port)) if port.isdigit() and _is_address(host) else None
        if outer is not None and outer != connection.server:
            self._front(outer, role_of_path(facts.path) or ROLE_OF_PORT.get(outer.port, ""))

    def asked_outside(self, call: Call) -> None:
        """Record the server of an API call on the external plane: a proxy, unless the API stands alone."""
        connection = call.connection
        server = connection.server
        role = connection.server_role
        if role in LISTENS and role != VRM and self._given.role(server.address, server.port) is None:
            if server not in self._presumed and len(self._presumed) < REMEMBERED:
                self._presumed[server] = role
                self._presumed_at.setdefault(server.address, set()).add(role)
            self._serves.get(server.address, {}).pop(server.port, None)
            if not call.closed:
                self._open_outside[call.serial] = (call.started_ns, role)
                if len(self._open_outside) > MOST_OPEN:
                    self._open_outside.popitem(last=False)

    def asked_inside(self, call: Call) -> None:
        """Learn from a call on an inner plane, or an attempt of one, whose client is not known.

        A service that clients ask itself has one address for them and another one inside. From there it asks
        other APIs for the requests that are open outside, and sends the request id that it answers later.
        """
        connection = call.connection
        address, server = connection.client.address, connection.server
        if (
            connection.client_role
            or not self._presumed
            or server in self._presumed
            or address in self._inner
            or getattr(call.facts, "forwarded_for", "")
            or not self._is_unknown(address)
        ):
            return
        if request_id := getattr(call.facts, "request_id", ""):
            self._first_with.setdefault(request_id, address)
            _trim(self._first_with)
        asked = connection.server_role or ROLE_OF_PORT.get(server.port, "")
        if asked not in APIS or address in self._asks_anyway:
            return
        open_ = self._open_outside
        while open_ and next(iter(open_.values()))[0] < call.started_ns - LONGEST_NS:
            open_.popitem(last=False)
        roles = {role for _, role in open_.values()}
        known = self._presumed_inner.get(address)
        if not roles or asked in (known, *roles) or (known is not None and known not in roles):
            # A portal or a probe asks whenever it likes, and no service asks its own API.
            self._not_presumed(address)
            self._asks_anyway[address] = None
            _trim(self._asks_anyway)
        elif len(roles) == 1 and known is None and len(self._presumed_inner) < MOST_INNER:
            (role,) = roles
            self._presumed_inner[address] = role
            self._presumed_acting[role] += 1

    def _acts_inside(self, address: str, role: str) -> None:
        """Record that *address* does what only *role* does, for which *role* does not name itself."""
        if address in self._inner or len(self._inner) < MOST_INNER:
            self._inner.setdefault(address, set()).add(role)
        self._acting.add(role)

    def _asks(self, address: str, outer: Endpoint) -> None:
        """Record that *address* asked others for a request that was sent to *outer*, its other address."""
        if outer in self._asks_from or len(self._asks_from) < MOST_INNER:
            self._asks_from.setdefault(outer, set()).add(address)

    def _not_presumed(self, address: str) -> None:
        role = self._presumed_inner.pop(address, None)
        if role is not None:
            self._presumed_acting[role] -= 1

    def _inside(self, address: str) -> str | None:
        """Return the service whose inner address an address without a role is; None if unknown."""
        roles = self._inner.get(address)
        if roles:
            return next(iter(roles)) if len(roles) == 1 else None
        role = self._presumed_inner.get(address)
        return role if role is not None and self.stands_alone(role) else None

    def stands_alone(self, role: str) -> bool:
        """Return whether no proxy is before the API of *role*: a client outside of the cloud asks it itself.

        That is so where the services inside are seen to ask each other, and no request to this API, or to
        any, was seen to be forwarded. The proxy of the document is taken to be there where the inside is not
        captured, or hidden within one host, or where many requests are cut before a proxy's header.
        """
        if role in self._forwarded or role in self.fronts.values() or not self._is_rest_inside:
            return False
        if self._cut_heads[role] * _FEW > self._heads[role]:
            return False
        return self._is_acting(role) or (
            self._is_acting(NOVA_API) and not self._forwarded and not self.fronts
        )

    def _is_acting(self, role: str) -> bool:
        return role in self._acting or self._presumed_acting[role] > 0

    def behind(self, endpoint: Endpoint) -> str | None:
        """Return the role of the service behind the proxy at *endpoint*, '' if unknown; None for no proxy."""
        role = self.fronts.get(endpoint)
        if role is None:
            presumed = self._presumed.get(endpoint)
            role = presumed if presumed is not None and not self.stands_alone(presumed) else None
        return role

    def _is_front_address(self, address: str) -> bool:
        """Return whether a proxy listens at *address*."""
        presumed = self._presumed_at.get(address, ())
        return address in self._front_addresses or any(not self.stands_alone(role) for role in presumed)

    def _all_fronts(self) -> dict[Endpoint, str]:
        """Return the proxies' endpoints, those on the external plane included, and what is behind each."""
        presumed = {e: role for e, role in self._presumed.items() if self.behind(e) is not None}
        return presumed | self.fronts

    def _front(self, endpoint: Endpoint, role: str) -> None:
        """Record *endpoint* as a proxy's; it then no longer counts as a server of its own."""
        if not self.fronts.get(endpoint):
            self.fronts[endpoint] = role
        self._front_addresses.add(endpoint.address)
        self._serves.get(endpoint.address, {}).pop(endpoint.port, None)

    def _serving(self, token: str, connection: Connection) -> Call | None:
        """Return the request for which *token* is validated: the latest open one that carries it.

        *connection* is that of the validation. Its client is the request's server, or, where services share
        an address with the proxy, has the proxy's virtual address.
        """
        address = connection.client.address
        found = None
        elsewhere: list[Call] = []
        for call in self._by_token.get(token, ()):
            at = call.connection.server
            if call.closed or call.connection is connection or at in self.fronts:
                continue
            if at in self._presumed and at.address != address:
                # A service that clients ask itself has one address for them, and another one inside.
                if self._presumed[at] not in self._forwarded:
                    elsewhere.append(call)
            elif self.behind(at) is None and (at.address == address or self._is_front_address(address)):
                found = call
        if found is not None or not elsewhere:
            return found
        roles = {self._presumed[call.connection.server] for call in elsewhere}
        if len(roles) == 1 and not connection.client_role and self._is_unknown(address):
            self._acts_inside(address, *roles)
        servers = {call.connection.server for call in elsewhere}
        if len(servers) == 1:
            self._asks(address, *servers)
        return elsewhere[-1]

    def _forget_token(self, call: Call, facts: RestFacts) -> None:
        waiting = self._by_token.get(facts.token)
        if waiting and call in waiting:
            waiting.remove(call)
            if not waiting:
                del self._by_token[facts.token]

    def _consumes(self, connection: Connection, topic: str) -> None:
        """Learn the client's role, and a compute host's name, from a queue `<topic>.<host>`."""
        name, _, host = topic.partition(".")
        role = ROLE_OF_TOPIC.get(name)
        if role is None:
            return
        # What the connection says of itself is stronger than its queues.
        if not connection.client_role:
            connection.client_role = role
        self._act(connection.client.address, role)
        if host and role == NOVA_COMPUTE:
            self._hosts[connection.client.address] = host

    def _acts_as(self, connection: Connection, role: str) -> None:
        connection.client_role = role
        self._act(connection.client.address, role)

    def _act(self, address: str, role: str) -> None:
        self._not_presumed(address)
        self._acts.setdefault(address, set()).add(role)
        self._acting.add(role)

    def _serve(self, endpoint: Endpoint, role: str) -> None:
        self._serves.setdefault(endpoint.address, {}).setdefault(endpoint.port, role)

    def forget(self, before_ns: int) -> None:
        """Drop the owners of request ids, and the open requests of tokens, older than *before_ns*."""
        old = []
        for key, call in self._owners.items():
            if call.started_ns >= before_ns:
                break
            old.append(key)
        for key in old:
            del self._owners[key]
        for token in [t for t, calls in self._by_token.items() if calls[-1].started_ns < before_ns]:
            del self._by_token[token]

    # --- answering ---

    def host_name(self, address: str) -> str | None:
        """Return the name of the compute host at *address*, known from the queue that it consumes."""
        return self._hosts.get(address)

    def addresses(self, role: str) -> set[str]:
        """Return the addresses at which *role* was seen, as a server or as a client."""
        found = {address for address, roles in self._acts.items() if role in roles}
        found |= {address for address, ports in self._serves.items() if role in ports.values()}
        found |= {address for (address, _), given in self._given.roles.items() if given == role}
        if role == PROXY:
            found |= {endpoint.address for endpoint in self._all_fronts()} | self._proxied
        elif role == PORTAL:
            found |= self._portals()
        elif role == ADMIN:
            portals = self._portals()
            found |= {client for client in self._askers() if self._is_client(client)}
            found |= {
                client
                for client, server in self._asked
                if server.address in portals and client not in portals and server.port not in ROLE_OF_PORT
            }
        else:
            found |= self._inside_of(role)
            alone = (e for e, its in self._presumed.items() if its == role and self.behind(e) is None)
            found |= {endpoint.address for endpoint in alone}
        return found

    def inner_addresses(self, outer: Endpoint) -> set[str]:
        """Return the addresses from which the service that clients ask at *outer* itself asks others.

        Those that were seen to do so for *outer*; else all of this service but those of another such server.
        """
        role = self._presumed.get(outer)
        if role is None or not self.stands_alone(role):
            return set()
        if own := self._asks_from.get(outer):
            return own
        acting = {address for address, roles in self._acts.items() if role in roles}
        return (acting | self._inside_of(role)).difference(*self._asks_from.values())

    def _inside_of(self, role: str) -> set[str]:
        """Return the addresses that nothing identifies but what *role* does inside."""
        known = (*self._inner, *self._presumed_inner)
        return {each for each in known if self._is_unknown(each) and self._inside(each) == role}

    def _askers(self) -> set[str]:
        """Return the addresses outside of the cloud that call its API."""
        return {
            client for client, server in self._asked if self._is_api(server) and self._is_stranger(client)
        }

    def _portals(self) -> set[str]:
        """Return the addresses outside of the cloud that call its API for others."""
        return {client for client in self._askers() if not self._is_client(client)}

    def _is_client(self, address: str) -> bool:
        """Return whether *address*, outside of the cloud, asks its API for itself: it is no portal.

        Nobody asks anything of it; and it names a tool of clients, or hosts were seen and none that works
        with a VRM. In a vendor's cloud a portal may get its orders unseen.
        """
        if address in self._portal_addresses:
            return False
        return address in self._tools or (NOVA_COMPUTE in self._acting and not self.sign_of_vendor())

    def fronts_of(self, role: str) -> set[str]:
        """Return the addresses of the proxies that forward to *role*."""
        return {endpoint.address for endpoint, behind in self._all_fronts().items() if behind == role}

    def serves(self, role: str) -> bool:
        """Return whether *role* was seen as a server, itself or behind a proxy."""
        if role == PORTAL:
            return bool(self.addresses(ADMIN))
        if role == PROXY:
            # `fronts` is no evidence: an inner leg names the outer endpoint in Host even where the outer leg
            # is not captured. Only a call to the endpoint shows that the outer leg is visible.
            asked = any(self.behind(server) == NOVA_API for _, server in self._asked)
            return asked or PROXY in self._given.roles.values()
        if role in self.fronts.values() or role in self._presumed.values():
            return True
        return any(role in ports.values() for ports in self._serves.values())

    def sign_of_vendor(self) -> str:
        """Return what shows that the cloud has a VRM, or what the topology file names; empty without a sign.

        A port of the VRM is a sign only where it is a host's nova-compute that tries it.
        """
        given = set(self._given.roles.values()) & {VRM, PORTAL}
        if given:
            return f"the topology file names a {max(given)}"
        if self._asks_vrm:
            return f"a {VRM} was called"
        if any(NOVA_COMPUTE in self._acts.get(address, ()) for address in self._tried_vrm):
            return f"{NOVA_COMPUTE} called the port of a {VRM}"
        if self._drivers:
            return f"{min(self._drivers)} was seen, which works with a {VRM}"
        return ""

    def works_with(self, role: str) -> bool:
        """Return whether something was seen that works with *role*: a program with a driver for the VRM."""
        return role == VRM and (self._asks_vrm or bool(self._drivers))

    def is_front(self, endpoint: Endpoint) -> bool:
        """Return whether *endpoint* is a proxy's listening endpoint."""
        return self.behind(endpoint) is not None or self._given.role(endpoint.address, endpoint.port) == PROXY

    def alone(self, address: str) -> str | None:
        """Return the role of *address* when everything seen there is of one role."""
        served = set(self._serves.get(address, {}).values()) & (LISTENS | {PORTAL})
        acting = self._acts.get(address, set())
        if address in self._proxied:
            return PROXY if not served and not acting else None
        if self._is_front_address(address):
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
        # The last entry of X-Forwarded-For is the one that this proxy added; earlier ones come from outside.
        client = facts.forwarded_for.rpartition(",")[2].strip()
        role = role_of_user_agent(facts.user_agent) or self.alone(client)
        return role if role in RUNS_PROGRAM else None

    def _rest_caller(self, call: Call, endpoint: Endpoint) -> str:
        """Return the caller by the request for which *call* was made, else by elimination, else its address.

        python-keystoneclient, -neutronclient and -glanceclient do not name the service in User-Agent, so the
        request id is what remains.
        """
        facts = call.facts
        if call.parent is not None and call.parent.callee is not None:
            service = self.callee(call.parent)
            if service != PROXY:
                return service
        if isinstance(facts, RestFacts) and facts.request_id:
            owner = self._owners.get(facts.request_id)
            if owner is not None and self._works_on(owner, call, endpoint):
                return self._service(owner)
        inside = self._inside(endpoint.address)
        if inside is not None and self._is_unknown(endpoint.address):
            return inside
        if self._is_stranger(endpoint.address):
            if self._calls_api(call):
                return ADMIN if self._is_client(endpoint.address) else PORTAL
            if self._is_sc(call.connection.server):
                return ADMIN
        elif isinstance(facts, RestFacts) and is_command_line(facts.user_agent) and self._calls_api(call):
            # A client on a host of the cloud.
            return ADMIN
        return endpoint.address

    def _works_on(self, owner: Call, call: Call, endpoint: Endpoint) -> bool:
        """Return whether the service that made a request id sent *call* with that id itself.

        Other services pass the id on, so *call* must come from its address and while *owner* was open.
        """
        ended_ns = owner.ended_ns or call.started_ns
        # 5 ms: records of several capture points may be out of order by that much.
        return owner.started_ns <= call.started_ns <= ended_ns + 5_000_000 and (
            self._is_front_address(endpoint.address)
            or endpoint.address in {owner.connection.server.address, owner.connection.client.address}
        )

    def _service(self, call: Call) -> str:
        """Return the service that answers *call*, also through a proxy."""
        return call.connection.server_role or self.behind(call.connection.server) or "?"

    def is_stranger(self, call: Call) -> bool:
        """Return whether a REST call comes from outside of the cloud to a server without a given role."""
        server = call.connection.server
        return (
            isinstance(call.facts, RestFacts | ConnectFacts)
            and not getattr(call.facts, "forwarded_for", "")
            and self._given.role(server.address, server.port) is None
            and self._is_stranger(call.connection.client.address)
        )

    def _is_stranger(self, address: str) -> bool:
        """Return whether no evidence makes *address* a part of the cloud."""
        return self._is_unknown(address) and address not in self._inner and self._inside(address) is None

    def _is_unknown(self, address: str) -> bool:
        """Return whether nothing serves at *address*, and nothing there identifies itself."""
        return (
            address not in self._acts
            and not self._is_front_address(address)
            and address not in self._presumed_at
            and address not in self._proxied
            and not set(self._serves.get(address, {}).values()) & LISTENS
        )

    def _calls_api(self, call: Call) -> bool:
        """Return whether *call* goes to an API of the cloud or to a proxy of one."""
        return self._is_api(call.connection.server)

    def _is_api(self, server: Endpoint) -> bool:
        return server in self.fronts or server in self._presumed or server.port in ROLE_OF_PORT

    def _is_sc(self, server: Endpoint) -> bool:
        """Return whether *server* is outside of the cloud and on none of its ports: then it is the SC."""
        return server.port not in ROLE_OF_PORT and self._is_stranger(server.address)

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
        behind = self.behind(endpoint)
        if behind is not None:
            behind = call.connection.server_role or behind
            # Internal HTTP goes through the proxy as well. There the document names the service as the
            # callee; only a client from outside calls the proxy.
            return behind if behind and self.caller(call) in CALLS_OTHERS else PROXY
        role = call.connection.server_role or self._serves.get(endpoint.address, {}).get(endpoint.port)
        role = role or ROLE_OF_PORT.get(endpoint.port)
        if role:
            return role
        return PORTAL if self._is_sc(endpoint) else endpoint.address

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


def _behind(back: Call) -> str:
    """Return the role of the server of *back*, a proxy's inner leg."""
    return back.connection.server_role or ROLE_OF_PORT.get(back.connection.server.port, "")


def _is_address(text: str) -> bool:
    # Host may hold a name; a name is no endpoint that a capture shows.
    return bool(re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*", text))


def _trim(table: OrderedDict[Any, Any]) -> None:
    while len(table) > REMEMBERED:
        table.popitem(last=False)
