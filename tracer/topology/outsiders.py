"""Who is outside of the cloud, by elimination: the portal calls the cloud's API for others, the administrator
calls the portal, or the API for itself."""

from __future__ import annotations

from tracer.model import Endpoint
from tracer.openstack.services import APIS, NOVA_COMPUTE, ROLE_OF_PORT
from tracer.topology.evidence import Evidence

__all__ = ["Outsiders"]


class Outsiders:
    """Tells portals and administrators among the addresses that no evidence makes a part of the cloud."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence

    def portals(self) -> set[str]:
        """Return the addresses outside of the cloud that call its API for others."""
        return {client for client in self._askers() if not self.is_client(client)}

    def administrators(self) -> set[str]:
        """Return the addresses that call a portal, or the API for themselves."""
        portals = self.portals()
        clients = {client for client in self._askers() if self.is_client(client)}
        return clients | {
            client
            for client, server in self._evidence.asked
            if server.address in portals and client not in portals and server.port not in ROLE_OF_PORT
        }

    def _askers(self) -> set[str]:
        """Return the addresses outside of the cloud that call its API."""
        seen = self._evidence
        return {client for client, server in seen.asked if self.is_api(server) and seen.is_stranger(client)}

    def is_client(self, address: str) -> bool:
        """Return whether *address*, outside of the cloud, asks its API for itself: it is no portal.

        Nobody asks anything of it; and it names a tool of clients, or hosts were seen and none that works
        with a VRM. In a vendor's cloud a portal may get its orders unseen.
        """
        seen = self._evidence
        if address in seen.portal_addresses:
            return False
        return address in seen.tools or (NOVA_COMPUTE in seen.fronts.acting and not seen.sign_of_vendor())

    def is_api(self, server: Endpoint) -> bool:
        """Return whether *server* is an API of the cloud or a proxy of one."""
        fronts, served = self._evidence.fronts, self._evidence.places.serves.get(server.address, {})
        if server in fronts.seen or server in fronts.presumed or server.port in ROLE_OF_PORT:
            return True
        # By its paths, where the port is another one than usual.
        return served.get(server.port) in APIS

    def is_portal(self, server: Endpoint) -> bool:
        """Return whether *server* is outside of the cloud and on none of its ports: then it is the portal."""
        return server.port not in ROLE_OF_PORT and self._evidence.is_stranger(server.address)
