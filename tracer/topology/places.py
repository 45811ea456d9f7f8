"""What serves, and what acts, at each address."""

from __future__ import annotations

from tracer.model import Endpoint
from tracer.openstack.services import LISTENS
from tracer.topology.fronts import Fronts

__all__ = ["Places"]


class Places:
    """Collects the roles that were seen at addresses, as servers and as clients."""

    def __init__(self, fronts: Fronts) -> None:
        self._fronts = fronts
        self.serves: dict[str, dict[int, str]] = {}
        """address -> port -> role served there"""
        self.acts: dict[str, set[str]] = {}
        """address -> roles of clients with this address"""
        self.proxied: set[str] = set()
        """addresses that forward requests"""

    def serve(self, endpoint: Endpoint, role: str) -> None:
        """Record that *endpoint* serves *role*, unless it is known to serve another one."""
        self.serves.setdefault(endpoint.address, {}).setdefault(endpoint.port, role)

    def unserve(self, endpoint: Endpoint) -> None:
        """Count *endpoint* no longer as a server of its own: a proxy listens there, or may."""
        self.serves.get(endpoint.address, {}).pop(endpoint.port, None)

    def act(self, address: str, role: str) -> None:
        """Record that a client at *address* is *role*."""
        self.acts.setdefault(address, set()).add(role)
        self._fronts.acting.add(role)

    def is_unknown(self, address: str) -> bool:
        """Return whether nothing serves at *address*, and nothing there identifies itself."""
        return (
            address not in self.acts
            and not self._fronts.is_address(address)
            and not self._fronts.is_asked_outside(address)
            and address not in self.proxied
            and not set(self.serves.get(address, {}).values()) & LISTENS
        )
