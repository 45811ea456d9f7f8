"""Which plane a connection is on: from the capture's name, the topology file, or the address graph."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from tracer.model import Capture, Connection
from tracer.openstack.services import VRM
from tracer.topology.file import GivenTopology

__all__ = ["EXTERNAL_API", "EXTERNAL_OM", "INTERNAL_BASE", "KNOWN_PLANES", "Planes"]

EXTERNAL_API, INTERNAL_BASE, EXTERNAL_OM = "External_api", "Internal_base", "External_om"
KNOWN_PLANES = (EXTERNAL_API, INTERNAL_BASE, EXTERNAL_OM)

_Node = tuple[int, str]
"""(VLAN, address): the same subnet may exist in two VLANs."""


class Planes:
    """Answers which plane a connection is on.

    Rules, first that answers: the capture's own plane; its pcapng interface; VLAN, then subnet of the
    topology file; else the connected part of the address graph: the part in which AMQP or SQL is spoken,
    or in which services call each other, is Internal_base, one that holds the VRM but no front end is
    External_om, others are External_api.
    """

    def __init__(self, captures: Sequence[Capture], given: GivenTopology) -> None:
        self._captures = captures
        self._given = given
        self._parent: dict[_Node, _Node] = {}
        self._marks: dict[_Node, set[str]] = {}
        """Root or not, node -> protocols and roles seen there; gathered per part when asked."""
        self._parts: dict[_Node, str] | None = None
        self._known: set[tuple[int, str, str, str]] = set()
        """(VLAN, client, server, mark) that were taken note of"""

    def observe(self, connection: Connection, mark: str) -> None:
        """Take note that *connection* exists and what is spoken on it."""
        known = (connection.vlan, connection.client.address, connection.server.address, mark)
        if known in self._known:
            return
        self._known.add(known)
        client = (connection.vlan, connection.client.address)
        server = (connection.vlan, connection.server.address)
        a, b = self._root(client), self._root(server)
        if a != b:
            self._parent[a] = b
            self._parts = None
        marks = self._marks.setdefault(server, set())
        if mark not in marks:
            marks.add(mark)
            self._parts = None

    def given(self, connection: Connection) -> str | None:
        """Return the plane if a name, an interface or the topology file tells it."""
        for number in connection.captures:
            capture = self._captures[number]
            if capture.plane:
                return capture.plane
            name = capture.interfaces.get(connection.interface, "")
            if name in self._given.interfaces:
                return self._given.interfaces[name]
            if name in KNOWN_PLANES or name in self._given.plane_names:
                return name
        if connection.vlan in self._given.vlans:
            return self._given.vlans[connection.vlan]
        return self._given.plane_of_subnet(connection.server.address) or self._given.plane_of_subnet(
            connection.client.address
        )

    def inferred(self, connection: Connection) -> str:
        """Return the plane that the address graph suggests."""
        if ipaddress.ip_address(connection.server.address).is_loopback:
            return INTERNAL_BASE
        if self._parts is None:
            self._parts = self._divide()
        return self._parts.get(self._root((connection.vlan, connection.server.address)), EXTERNAL_API)

    def _divide(self) -> dict[_Node, str]:
        marks: dict[_Node, set[str]] = {}
        for node, seen in self._marks.items():
            marks.setdefault(self._root(node), set()).update(seen)
        # Services that name themselves (User-Agent) call each other there too, through a virtual address
        # that nothing but its legs ties to the broker.
        speaks = {
            root
            for root, seen in marks.items()
            # Behind a proxy is inside, unless clients of the proxy are there as well.
            if seen & {"RPC", "SQL", "service"} or ("behind" in seen and "front" not in seen)
        }
        if not speaks:
            # No broker and no database in the capture: the plane behind the proxies is the inner one.
            speaks = {root for root, seen in marks.items() if "behind" in seen}
        parts = {}
        for root, seen in marks.items():
            if root in speaks:
                parts[root] = INTERNAL_BASE
            elif VRM in seen and "front" not in seen:
                parts[root] = EXTERNAL_OM
            else:
                parts[root] = EXTERNAL_API
        return parts

    def _root(self, node: _Node) -> _Node:
        parent = self._parent
        path = []
        while (up := parent.get(node, node)) != node:
            path.append(node)
            node = up
        for passed in path:
            parent[passed] = node
        return node
