"""Planes and roles: given by the user, or inferred from the traffic.

A role belongs to an end of a connection, not to an address: a controller runs a dozen services on one
address, behind a virtual one. Evidence is collected as calls pass (`observe`) and evaluated when a call is
reported (`record`), because a connection may name itself minutes after its first bytes.
"""

from tracer.topology.file import GivenTopology, load_topology
from tracer.topology.planes import Planes
from tracer.topology.roles import Roles
from tracer.topology.topology import Topology

__all__ = ["GivenTopology", "Planes", "Roles", "Topology", "load_topology"]
