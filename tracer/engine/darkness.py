"""The connections that TLS hides: how many between which roles and on which planes, and which steps."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence

from tracer.grammar import Grammar
from tracer.model import Connection, Dark, Endpoint, Undecoded, Verdict
from tracer.model.messages import TLS_UNKNOWN
from tracer.openstack.services import APIS, MEDIUM_OF, PROXY, ROLE_OF_PORT
from tracer.topology import GivenTopology, Topology
from tracer.topology.planes import EXTERNAL_API

__all__ = ["Darkness"]

MOST_PAIRS = 10_000
"""Pairs of an address and a server that are told apart; more are counted together."""
MOST_GROUPS = 12
"""Groups that a report tells; those with the fewest connections are told as one."""
UNKNOWN = "?"


class Darkness:
    """Collects the connections that are TLS without keys."""

    def __init__(self) -> None:
        self._pairs: OrderedDict[tuple[str, Endpoint], tuple[Connection, int]] = OrderedDict()
        self._more = 0
        """Connections of pairs for which there was no room."""

    def receive(self, message: Undecoded) -> None:
        """Record a connection that cannot be decoded, if TLS is the reason."""
        # What was opened and is of no known protocol needs no keys.
        if not message.reason.startswith("tls") or message.reason == TLS_UNKNOWN:
            return
        connection = message.connection
        key = (connection.client.address, connection.server)
        known = self._pairs.get(key)
        if known is not None:
            self._pairs[key] = known[0], known[1] + 1
        elif len(self._pairs) < MOST_PAIRS:
            self._pairs[key] = connection, 1
        else:
            self._more += 1

    @property
    def count(self) -> int:
        """How many connections are dark."""
        return self._more + sum(count for _, count in self._pairs.values())

    def groups(
        self, topology: Topology, given: GivenTopology, grammar: Grammar, verdicts: Sequence[Verdict]
    ) -> tuple[Dark, ...]:
        """Return the dark connections by plane and pair of roles, those that hide steps first.

        Their steps are those that *verdicts* tell as unobserved; without verdicts, those of *grammar* that
        such connections carry.
        """
        found: Counter[tuple[str, str, str, int]] = Counter()
        for connection, count in self._pairs.values():
            plane = topology.plane_of(connection)
            callee = _server(connection, plane, topology, given)
            caller = connection.client_role or topology.roles.alone(connection.client.address) or UNKNOWN
            if caller == callee != UNKNOWN and connection.client.address != connection.server.address:
                # No service calls its own API on another address: a proxy on its host does.
                caller = PROXY
            found[plane, caller, callee, connection.server.port] += count
        unseen = {
            step.step for verdict in verdicts for step in verdict.steps if step.status == "unobserved"
        } or (set() if verdicts else {step.name for step in grammar.steps})
        groups = [
            Dark(
                plane,
                caller,
                callee,
                port,
                count,
                tuple(_steps(grammar, unseen, (plane, caller, callee, port))),
            )
            for (plane, caller, callee, port), count in found.most_common()
        ]
        groups.sort(key=lambda group: not group.steps)
        left = self._more + sum(group.connections for group in groups[MOST_GROUPS:])
        rest = (Dark("", UNKNOWN, UNKNOWN, 0, left, ()),) if left else ()
        return (*groups[:MOST_GROUPS], *rest)


def _server(connection: Connection, plane: str, topology: Topology, given: GivenTopology) -> str:
    """Return the role of the server: given, else by what else was seen of it, its port, its names in TLS."""
    server = connection.server
    own = given.role(server.address, server.port)
    role = own or connection.server_role or ROLE_OF_PORT.get(server.port)
    role = role or topology.evidence.named.get(server, UNKNOWN)
    # By the document, APIs on the external plane are reached through the proxy.
    return PROXY if own is None and plane == EXTERNAL_API and role in APIS else role


def _steps(grammar: Grammar, unseen: set[str], ends: tuple[str, str, str, int]) -> Iterator[str]:
    """Yield the steps of *unseen* whose usual call goes over such connections, in documented order.

    *ends* are plane, caller, callee and port.
    """
    plane, caller, callee, port = ends
    if callee == PROXY and ROLE_OF_PORT.get(port, grammar.api) != grammar.api:
        # The proxy's endpoint of another service.
        return
    for step in grammar.steps:
        for leg in grammar.legs(step.name)[:1] if step.name in unseen else ():
            to = MEDIUM_OF.get(leg.protocol, leg.callee)
            # A message passes the broker: sent by the one, delivered to the other.
            own = (leg.caller, leg.callee) if leg.protocol in MEDIUM_OF else (leg.caller,)
            is_caller = caller == UNKNOWN or caller in own or "*" in own
            if to == callee and is_caller and leg.plane in ("*", plane):
                yield step.name
