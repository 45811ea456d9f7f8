"""Proxies before the APIs, and APIs that stand alone: which of the two is at an endpoint that clients ask."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from tracer.model import Connection, Endpoint, RestFacts
from tracer.openstack.rest import role_of_path
from tracer.openstack.services import NOVA_API, ROLE_OF_PORT

__all__ = ["Fronts"]

MOST_SEEN = 4_096
"""Proxies that are remembered: a forged Host names one more with each request."""
MOST_PRESUMED = 100_000
"""Servers on the external plane that are remembered."""
DEFAULT_PORTS = (443, 80)
"""Those of https and http, which Host leaves out."""
_PORT = re.compile(r"[0-9]{1,5}")
_FEW = 4
"""Of so many requests with a whole head one may be cut, and still nothing was forwarded."""


class Fronts:
    """Collects the endpoints at which a proxy listens, or may listen."""

    def __init__(self) -> None:
        self.seen: dict[Endpoint, str] = {}
        """Proxy's listening endpoint -> role of the service behind it ('' while unknown)."""
        self._seen_roles: set[str] = set()
        """The roles in `seen`: it is asked for them with each call."""
        self._addresses: set[str] = set()
        self.presumed: dict[Endpoint, str] = {}
        """Server of an API call on the external plane -> role of the service, which may be behind it"""
        self._presumed_roles: set[str] = set()
        self._presumed_at: dict[str, set[str]] = {}
        """address of these servers -> roles of the services"""
        self.forwarded: set[str] = set()
        """roles of which a forwarded request was seen"""
        self._heads: Counter[str] = Counter()
        """role -> requests to it with a whole head"""
        self._cut_heads: Counter[str] = Counter()
        """role -> requests to it whose head was cut"""
        self.is_rest_inside = False
        """A service was seen to ask another one by REST."""
        self.acting: set[str] = set()
        """roles that were seen as clients, at any address"""
        self.presumed_acting: Counter[str] = Counter()
        """role -> clients that are presumed to be it"""

    # --- collecting ---

    def add(self, endpoint: Endpoint, role: str) -> None:
        """Record that a proxy listens at *endpoint*, with *role* behind it ('' while unknown)."""
        if endpoint not in self.seen and len(self.seen) >= MOST_SEEN:
            return
        if not self.seen.get(endpoint):
            self.seen[endpoint] = role
            self._seen_roles.add(role)
        self._addresses.add(endpoint.address)

    def presume(self, server: Endpoint, role: str) -> None:
        """Record that clients outside of the cloud ask *server* for *role*: a proxy, or the API itself."""
        if server not in self.presumed and len(self.presumed) < MOST_PRESUMED:
            self.presumed[server] = role
            self._presumed_roles.add(role)
            self._presumed_at.setdefault(server.address, set()).add(role)

    def forwards(
        self, connection: Connection, facts: RestFacts, asked: Collection[Endpoint] = ()
    ) -> Endpoint | None:
        """Learn from a forwarded request; return the proxy's outer endpoint, if the request names it.

        Host is where the client sent the request. Without a port it is the scheme's (RFC 9110, 7.2), unless
        the proxy left out another one: of those, the one that is in *asked*, the servers that are known.
        """
        # "Serves two or more APIs" was tried as the mark of a proxy and fails: where the SC brings its own
        # token, nothing but nova-api's port is asked at the proxy.
        self.forwarded.add(role_of_path(facts.path) or ROLE_OF_PORT.get(connection.server.port, ""))
        host, _, port = facts.host.rpartition(":")
        if not host:
            host, port = facts.host, str(connection.server.port)
            for usual in DEFAULT_PORTS:
                port = str(usual) if Endpoint(host.strip("[]"), usual) in asked else port
        host = host.strip("[]")
        outer = Endpoint(host, int(port)) if _PORT.fullmatch(port) and _is_address(host) else None
        if outer is None or outer == connection.server:
            return None
        self.add(outer, role_of_path(facts.path) or ROLE_OF_PORT.get(outer.port, ""))
        return outer

    def head(self, role: str, is_cut: bool) -> None:
        """Count a request to *role* by whether its head was cut: a proxy's header may be lost."""
        (self._cut_heads if is_cut else self._heads)[role] += 1

    # --- answering ---

    def stands_alone(self, role: str) -> bool:
        """Return whether no proxy is before the API of *role*: a client outside of the cloud asks it itself.

        That is so where the services inside are seen to ask each other, and no request to this API, or to
        any, was seen to be forwarded. The proxy of the document is taken to be there where the inside is not
        captured, or hidden within one host, or where many requests are cut before a proxy's header.
        """
        if role in self.forwarded or role in self._seen_roles or not self.is_rest_inside:
            return False
        if self._cut_heads[role] * _FEW > self._heads[role]:
            return False
        return self._is_acting(role) or (self._is_acting(NOVA_API) and not self.forwarded and not self.seen)

    def _is_acting(self, role: str) -> bool:
        return role in self.acting or self.presumed_acting[role] > 0

    def behind(self, endpoint: Endpoint) -> str | None:
        """Return the role of the service behind the proxy at *endpoint*, '' if unknown; None for no proxy."""
        role = self.seen.get(endpoint)
        if role is None:
            presumed = self.presumed.get(endpoint)
            role = presumed if presumed is not None and not self.stands_alone(presumed) else None
        return role

    def is_address(self, address: str) -> bool:
        """Return whether a proxy listens at *address*."""
        presumed = self._presumed_at.get(address, ())
        return address in self._addresses or any(not self.stands_alone(role) for role in presumed)

    def is_asked_for(self, role: str) -> bool:
        """Return whether a proxy before *role*, or an API that clients outside take for it, was seen."""
        return role in self._seen_roles or role in self._presumed_roles

    def is_asked_outside(self, address: str) -> bool:
        """Return whether clients outside of the cloud ask a server at *address*."""
        return address in self._presumed_at

    def all(self) -> dict[Endpoint, str]:
        """Return the proxies' endpoints, those on the external plane included, and what is behind each."""
        presumed = {e: role for e, role in self.presumed.items() if self.behind(e) is not None}
        return presumed | self.seen


def _is_address(text: str) -> bool:
    # Host may hold a name; a name is no endpoint that a capture shows.
    return bool(re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}|[0-9a-fA-F:]*:[0-9a-fA-F:.]*", text))
