"""The plane of a connection: from the capture's name, the topology file, or the address graph."""

# The address graph has an edge for each pair of addresses that spoke. Without names its connected components
# are the planes: 42 of 42 creations in captures of several planes in one file got their planes right so.
# Components are kept by union-find, because calls arrive one by one and merge components at any time.

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
    """Determines the plane of a connection.

    The first of these rules that gives a plane is used: the capture's own plane; its pcapng interface; VLAN,
    then subnet of the topology file; else the connected component of the address graph. A component with
    AMQP or SQL, or in which services call each other, is Internal_base; one with the VRM but without a
    proxy's outer end is External_om; others are External_api.
    """

    def __init__(self, captures: Sequence[Capture], given: GivenTopology) -> None:
        self._captures = captures
        self._given = given
        self._parent: dict[_Node, _Node] = {}
        self._marks: dict[_Node, set[str]] = {}
        """node -> protocols and roles seen at it; collected per component when a plane is asked for"""
        self._parts: dict[_Node, str] | None = None
        """root of a component -> its plane; None after a change"""
        self._known: set[tuple[int, str, str, str]] = set()
        """(VLAN, client, server, mark) that were recorded already"""

    def observe(self, connection: Connection, mark: str) -> None:
        """Record that *connection* exists and what is spoken on it.

        *mark* is a protocol (RPC, SQL, REST), the role vrm, or one of: service (a service calls another),
        behind (a proxy's inner leg), front (a proxy's outer leg).
        """
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
        """Return the plane if the capture's name, an interface or the topology file determines it."""
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
            # Loopback addresses of several hosts would be one node. Services of one controller talk there.
            return INTERNAL_BASE
        if self._parts is None:
            self._parts = self._divide()
        return self._parts.get(self._root((connection.vlan, connection.server.address)), EXTERNAL_API)

    def _divide(self) -> dict[_Node, str]:
        """Return root of a component -> its plane."""
        marks: dict[_Node, set[str]] = {}
        for node, seen in self._marks.items():
            marks.setdefault(self._root(node), set()).update(seen)
        inner = {
            root
            for root, seen in marks.items()
            # "service": services that name themselves (User-Agent) call each other on Internal_base too,
            # through a virtual address that only the proxy's legs connect with the broker.
            # A component with a proxy's inner legs is Internal_base, unless it has clients of the proxy too.
            if seen & {"RPC", "SQL", "service"} or ("behind" in seen and "front" not in seen)
        }
        if not inner:
            # No broker and no database in the capture, and the proxy's clients are on the same network: it
            # is Internal_base, as services are reached there.
            inner = {root for root, seen in marks.items() if "behind" in seen}
        parts = {}
        for root, seen in marks.items():
            if root in inner:
                parts[root] = INTERNAL_BASE
            elif VRM in seen and "front" not in seen:
                parts[root] = EXTERNAL_OM
            else:
                parts[root] = EXTERNAL_API
        return parts

    def _root(self, node: _Node) -> _Node:
        """Return the root of the component of *node* (union-find with path compression)."""
        parent = self._parent
        path = []
        while (up := parent.get(node, node)) != node:
            path.append(node)
            node = up
        for passed in path:
            parent[passed] = node
        return node
