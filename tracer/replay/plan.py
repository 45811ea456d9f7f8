"""The first reading of the captures: their content, the roles of servers, and the state of the broker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from tracer.calls import Calls, wants_body
from tracer.capture import CaptureArgument
from tracer.errors import UsageError
from tracer.model import (
    TO_SERVER,
    AmqpContent,
    AmqpMethod,
    Call,
    Closed,
    Connection,
    Endpoint,
    HttpRequest,
    Message,
    RestFacts,
    RpcFacts,
    Undecoded,
)
from tracer.openstack.services import PROXY, ROLE_OF_PROGRAM
from tracer.protocols import PORTS
from tracer.replay.broker import Broker
from tracer.replay.recorded import read
from tracer.topology import GivenTopology, Topology

__all__ = ["Plan", "make_plan"]

FORGET_NS = 120_000_000_000
TICK = 4_096


@dataclass(slots=True)
class Plan:
    """What a replay needs to know of a recording before it sends."""

    broker: Broker = field(default_factory=Broker)
    roles: dict[Endpoint, str] = field(default_factory=dict)
    """Role of each server of HTTP requests."""
    requests: Counter[Endpoint] = field(default_factory=Counter)
    published: int = 0
    delivered: int = 0
    returned: int = 0
    channel_errors: int = 0
    names: dict[int, str] = field(default_factory=dict)
    """Connection to a broker that began before the capture, so that its name is unknown -> a name that shows
    its role"""
    vhosts: set[str] = field(default_factory=set)
    undecoded: Counter[str] = field(default_factory=Counter)
    """reason -> connections that cannot be decoded"""
    first_ns: int = 0
    last_ns: int = 0

    def targets(self, role: str) -> set[Endpoint]:
        """Return the servers of *role*, which is a role or one server as ADDRESS:PORT.

        Raises UsageError, which lists the known roles, when the captures hold no request to it.
        """
        found = {server for server, its in self.roles.items() if role in (its, str(server))}
        if found:
            return found
        there = ", ".join(f"{name} ({count:,})" for name, count in self.by_role().items())
        raise UsageError(
            f"--rest {role}: the captures hold no request to it; "
            + (f"there are requests to {there}" if there else "they hold no HTTP request at all")
        )

    def by_role(self) -> dict[str, int]:
        """Return role -> number of requests to it, the largest first."""
        found: Counter[str] = Counter()
        for server, count in self.requests.items():
            found[self.roles[server]] += count
        return dict(found.most_common())


def make_plan(
    arguments: Sequence[CaptureArgument], given: GivenTopology, stopped: Callable[[], bool]
) -> Plan:
    """Read the captures once and return what they hold. Raises SourceError."""
    plan = Plan()
    ports = {**PORTS, **given.ports}
    reading = read(arguments, ports, wants_body)
    ends = _Ends(Calls(ports), Topology(reading.captures, given))
    for count, message in enumerate(reading.messages):
        if stopped():
            break
        _take(plan, message)
        ends.learn(message)
        if not count % TICK:
            ends.forget(message.time_ns)
    ends.finish()
    plan.broker.finish(midstream=bool(ends.joined))
    plan.first_ns = min(
        (c.corrected_first_ns for c in reading.captures if c.corrected_first_ns is not None), default=0
    )
    plan.last_ns = max(
        (c.corrected_last_ns for c in reading.captures if c.corrected_last_ns is not None), default=0
    )
    plan.names = ends.names()
    plan.roles = ends.roles()
    # A server without a complete call has no known role: it is named by its address.
    for server in plan.requests:
        plan.roles.setdefault(server, str(server))
    return plan


class _Ends:
    """Learns who is at the ends of connections."""

    def __init__(self, calls: Calls, topology: Topology) -> None:
        self._calls = calls
        self._topology = topology
        self._samples: dict[Endpoint, Call] = {}
        """Server of HTTP requests -> its latest call."""
        self.joined: dict[int, Connection] = {}
        """Connections to a broker that began before the capture."""
        self._senders: dict[int, Call] = {}
        """Connection of these -> its latest call."""
        self._newest = 0

    def learn(self, message: Message | Closed) -> None:
        """Learn from *message*, and from the calls that it begins or completes."""
        if isinstance(message, AmqpMethod | AmqpContent) and message.connection.joined:
            self.joined[message.connection.number] = message.connection
        if isinstance(message, AmqpMethod):
            self._topology.evidence.method(message)
        elif isinstance(message, Undecoded):
            self._topology.evidence.undecoded(message)
        self._observe(self._calls.receive(message))

    def finish(self) -> None:
        """Learn from what is left at the end."""
        self._observe(self._calls.flush())

    def _observe(self, changed: Iterable[Call]) -> None:
        for call in changed:
            self._topology.observe(call, call.serial > self._newest)
            self._newest = max(self._newest, call.serial)
            if isinstance(call.facts, RestFacts) and call.facts.method != "?":
                self._samples[call.connection.server] = call
            elif isinstance(call.facts, RpcFacts) and call.caller and call.caller.connection.joined:
                self._senders[call.caller.connection.number] = call

    def forget(self, time_ns: int) -> None:
        """Drop what is older than FORGET_NS at *time_ns*: this bounds the memory."""
        self._calls.numbering.advance(time_ns)
        self._calls.forget(time_ns - FORGET_NS, ())
        self._topology.evidence.forget(time_ns - FORGET_NS)

    def names(self) -> dict[int, str]:
        """Return connection -> a name that shows its role, of those whose name is not in the capture."""
        found = {}
        for number, connection in self.joined.items():
            sent = self._senders.get(number)
            role = connection.client_role or (self._topology.caller(sent) if sent is not None else "")
            if role in ROLE_OF_PROGRAM:
                # The form of oslo.messaging (program:pid:id): a capture of the replay shows roles by it.
                found[number] = f"{role}:0:replayed"
        return found

    def roles(self) -> dict[Endpoint, str]:
        """Return the role of each server of HTTP requests."""
        samples, topology = self._samples, self._topology
        fronts = [server for server in samples if topology.roles.is_front(server)]
        found = {server: topology.callee(call) for server, call in samples.items() if server not in fronts}
        inner = set(found.values())
        for server in fronts:
            # A request through a proxy may be recorded twice. If both legs are there, the inner one is the
            # service's, and the outer one the proxy's.
            behind = topology.evidence.fronts.behind(server) or ""
            found[server] = PROXY if not behind or behind in inner else topology.callee(samples[server])
        return found


def _take(plan: Plan, message: Message | Closed) -> None:
    match message:
        case AmqpContent():
            plan.broker.content(message)
            plan.published += message.name == "basic.publish"
            plan.delivered += message.name in ("basic.deliver", "basic.get-ok")
            plan.returned += message.name == "basic.return"
        case AmqpMethod():
            if message.name == "connection.open":
                plan.vhosts.add(str(message.arguments.get("virtual_host", "/")))
            elif message.name == "channel.close" and message.direction != TO_SERVER:
                plan.channel_errors += 1
            plan.broker.method(message)
        case HttpRequest():
            plan.requests[message.connection.server] += 1
        case Undecoded():
            plan.undecoded[f"{message.reason} on port {message.connection.server.port}"] += 1
        case Closed():
            if message.how != "fin":
                plan.broker.closed(message.connection.number)
