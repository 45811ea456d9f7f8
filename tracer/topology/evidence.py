"""What the traffic shows of who is where: evidence of roles, collected as messages and calls pass.

A role is noted at the end of a connection where the connection identifies itself, and besides at its address,
which alone tells little: many services share one.
"""

from __future__ import annotations

from collections import OrderedDict

from tracer.model import (
    AmqpMethod,
    Call,
    Connection,
    Endpoint,
    RestFacts,
    RpcFacts,
    SqlFacts,
    SqlLogin,
    TlsHello,
    Undecoded,
)
from tracer.model.tables import trim
from tracer.openstack import rpc, sql
from tracer.openstack.rest import role_of_path, role_of_prefix
from tracer.openstack.services import (
    BROKER,
    DATABASE,
    DRIVES_VRM,
    FANOUT,
    FANOUT_QUEUE,
    LISTENS,
    NOVA_API,
    NOVA_COMPUTE,
    PORTAL,
    PROXY,
    ROLE_OF_PORT,
    ROLE_OF_PROGRAM,
    ROLE_OF_TOPIC,
    VRM,
    is_client_tool,
    is_of_vrm_driver,
    role_of_host_name,
    role_of_user_agent,
)
from tracer.topology.file import GivenTopology
from tracer.topology.fronts import Fronts
from tracer.topology.inner import InnerAddresses
from tracer.topology.places import Places
from tracer.topology.requests import OpenRequests

__all__ = ["Evidence"]

REMEMBERED = 100_000


class Evidence:
    """Collects what is seen of roles, at addresses and at ends of connections."""

    def __init__(self, given: GivenTopology) -> None:
        self._given = given
        self.fronts = Fronts()
        self.places = Places(self.fronts)
        self.inner = InnerAddresses(self.fronts, self.places)
        self.requests = OpenRequests(self.fronts, self.inner, self.places)
        self.by_prefix: set[Endpoint] = set()
        """servers that were asked for paths of several services"""
        self._by_path: OrderedDict[Endpoint, str] = OrderedDict()
        """server -> role according to the paths that it is asked for"""
        self.hosts: dict[str, str] = {}
        """address -> host name, from the queue compute.<host> that it consumes"""
        self._programs: OrderedDict[tuple[str, str], str] = OrderedDict()
        """(address, process id) -> role"""
        self.portal_addresses: OrderedDict[str, None] = OrderedDict()
        """addresses that were asked over HTTP on a port that is no service's: a portal may be there"""
        self.tools: OrderedDict[str, None] = OrderedDict()
        """addresses of clients whose User-Agent names a tool or a library for OpenStack's APIs"""
        self.asked: OrderedDict[tuple[str, Endpoint], None] = OrderedDict()
        """(client's address, server) of HTTP requests whose client does not identify itself"""
        self._drivers: set[str] = set()
        """Programs that were seen whose virtualisation is a VRM's"""
        self._of_broker: OrderedDict[str, None] = OrderedDict()
        """Addresses of clients of the broker whose connections to it cannot be read."""
        self.named: OrderedDict[Endpoint, str] = OrderedDict()
        """Server under TLS -> the role that its name is."""
        self._hides_requests = False
        """A connection to the service that takes the requests, or that may be, cannot be read."""
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
                trim(self._programs, REMEMBERED)
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
            self.fronts.acting.add(role)

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
            self.places.serve(call.connection.server, BROKER)
            if facts.published and (sender := rpc.SENDER.get(facts.method)):
                self.fronts.acting.add(sender)
            # Service.save names its own program every 10 s: the only sign of a host that does nothing else.
            if facts.binary in ROLE_OF_PROGRAM and facts.published:
                self._runs(facts.binary)
                self._act(call.connection.client.address, ROLE_OF_PROGRAM[facts.binary])
        elif isinstance(facts, SqlFacts):
            self.places.serve(call.connection.server, DATABASE)
            if writer := sql.writer(facts.verb, facts.table, facts.quota):
                self.fronts.acting.add(writer)
                if writer == NOVA_API and not facts.quota and not call.connection.client_role:
                    # nova-conductor reads the quota as well; only nova-api writes these rows.
                    self.inner.acts(call.connection.client.address, writer)
        else:
            self.failed(call.connection)

    def hello(self, message: TlsHello) -> None:
        """Learn the names of a server under TLS: the one that its client asks for, else its certificate's.

        A certificate with the names of several services is a proxy's, or that of a host: it tells nothing.
        """
        role = role_of_host_name(message.server_name)
        if not role:
            roles = {role_of_host_name(name) for name in message.certificate_names} - {""}
            role = roles.pop() if len(roles) == 1 else ""
        if role:
            self.named[message.connection.server] = role
            trim(self.named, REMEMBERED)

    def undecoded(self, message: Undecoded) -> None:
        """Learn from a connection that cannot be decoded what its port tells; it may hide requests.

        A name is weaker: it counts where the port is that of no service. Any port may be that of an API under
        TLS; what else speaks no known protocol is none.
        """
        connection, is_encrypted = message.connection, message.reason.startswith("tls")
        self.failed(connection)
        named = self.named.get(connection.server)
        if named and connection.server.port not in ROLE_OF_PORT and connection.server not in self.fronts.seen:
            self.places.serve(connection.server, named)
        role = self._given.role(connection.server.address, connection.server.port)
        role = role or ROLE_OF_PORT.get(connection.server.port, named or (NOVA_API if is_encrypted else ""))
        self._hides_requests |= role in (NOVA_API, PROXY)
        if role == BROKER:
            self._of_broker[connection.client.address] = None
            trim(self._of_broker, REMEMBERED)

    def failed(self, connection: Connection) -> None:
        """Learn a server's role from its port alone: it refused the connection, or cannot be decoded."""
        role = ROLE_OF_PORT.get(connection.server.port)
        if role and connection.server not in self.fronts.seen:
            self.places.serve(connection.server, role)
        if role == VRM:
            self._tried_vrm[connection.client.address] = None
            trim(self._tried_vrm, REMEMBERED)

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
                self.requests.answered(call, facts.answered_id)
                if role := self.fronts.presumed.get(connection.server):
                    self.inner.answers(facts.answered_id, role, connection.server)
            self.inner.ended_outside(call)
            if call.back is not None:
                self._listens(connection.server, _behind(call.back))
            self.requests.ended(call, facts)
            return
        if facts.forwarded_for:
            # Before the User-Agent: a proxy passes on the one of its client.
            connection.client_role = PROXY
            self.places.proxied.add(connection.client.address)
            outer = self.fronts.forwards(connection, facts, self._by_path)
            if outer is not None:
                self.places.unserve(outer)
        elif role := role_of_user_agent(facts.user_agent):
            self._acts_as(connection, role)
            self.fronts.is_rest_inside = True
            if is_of_vrm_driver(facts.user_agent):
                self._drivers |= DRIVES_VRM
        else:
            client, server = connection.client.address, connection.server
            self.asked[client, server] = None
            trim(self.asked, REMEMBERED)
            if server.port not in ROLE_OF_PORT:
                self.portal_addresses[server.address] = None
                trim(self.portal_addresses, REMEMBERED)
            if is_client_tool(facts.user_agent):
                self.tools[client] = None
                trim(self.tools, REMEMBERED)
        if not connection.server_role or connection.server in self.by_prefix:
            self._learn_server(connection, facts.path)
        self.fronts.head(connection.server_role, facts.broken)
        self.requests.begun(call, facts)

    def _learn_server(self, connection: Connection, path: str) -> None:
        """Learn a server's role from the first path that only one service has; else from its port.

        A port of no service may be that of several, told apart by their paths: then each request counts. That
        is so where several were asked for, or one with its prefix.
        """
        server = connection.server
        first = self._by_path.get(server, "")
        role = first or role_of_path(path)
        if role and not first:
            self._asks_vrm |= role == VRM
            self._by_path[server] = role
            trim(self._by_path, REMEMBERED)
        if server.port not in ROLE_OF_PORT:
            own = role_of_path(path)
            of_prefix = role_of_prefix(path)
            is_one_of_several = own not in ("", first or own) or own == of_prefix != ""
            if is_one_of_several and len(self.by_prefix) < REMEMBERED:
                self.by_prefix.add(server)
            role = own or (of_prefix if server in self.by_prefix else "") or role
        connection.server_role = role or ROLE_OF_PORT.get(server.port, "")
        if connection.server_role and server not in self.fronts.seen:
            self.places.serve(server, connection.server_role)

    def asked_outside(self, call: Call) -> None:
        """Record the server of an API call on the external plane: a proxy, unless the API stands alone."""
        connection = call.connection
        server = connection.server
        role = connection.server_role
        if role in LISTENS and role != VRM and self._given.role(server.address, server.port) is None:
            self.fronts.presume(server, role)
            self.places.unserve(server)
            if not call.closed:
                self.inner.begun_outside(call, role)

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
            self.hosts[connection.client.address] = host

    def _acts_as(self, connection: Connection, role: str) -> None:
        connection.client_role = role
        self._act(connection.client.address, role)

    def _act(self, address: str, role: str) -> None:
        self.inner.drop(address)
        self.places.act(address, role)

    def _listens(self, endpoint: Endpoint, role: str) -> None:
        """Record *endpoint* as a proxy's."""
        self.fronts.add(endpoint, role)
        self.places.unserve(endpoint)

    def forget(self, before_ns: int) -> None:
        """Drop requests that are older than *before_ns*."""
        self.requests.forget(before_ns)

    # --- answering ---

    def is_stranger(self, address: str) -> bool:
        """Return whether no evidence makes *address* a part of the cloud."""
        return (
            self.places.is_unknown(address) and address not in self.inner and self.inner.role(address) is None
        )

    def sign_of_vendor(self) -> str:
        """Return what shows that the cloud has a VRM, or what the topology file names; empty without a sign.

        A port of the VRM is a sign only where it is a host's nova-compute that tries it.
        """
        given = set(self._given.roles.values()) & {VRM, PORTAL}
        if given:
            return f"the topology file names a {max(given)}"
        if self._asks_vrm:
            return f"a {VRM} was called"
        if any(NOVA_COMPUTE in self.places.acts.get(address, ()) for address in self._tried_vrm):
            return f"{NOVA_COMPUTE} called the port of a {VRM}"
        if any(address in self._of_broker for address in self._tried_vrm):
            # What it says to the broker cannot be read, so which service it is.
            return f"a client of {BROKER} called the port of a {VRM}"
        if self._drivers:
            return f"{min(self._drivers)} was seen, which works with a {VRM}"
        return ""

    def may_hide_requests(self) -> bool:
        """Return whether requests for a server may have been made that cannot be read."""
        return self._hides_requests

    def works_with(self, role: str) -> bool:
        """Return whether something was seen that works with *role*: a program with a driver for the VRM."""
        return role == VRM and (self._asks_vrm or bool(self._drivers))


def _behind(back: Call) -> str:
    """Return the role of the server of *back*, a proxy's inner leg."""
    return back.connection.server_role or ROLE_OF_PORT.get(back.connection.server.port, "")
