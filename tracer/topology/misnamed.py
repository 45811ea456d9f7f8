"""Finds planes whose names were swapped or mistyped by the user, from the traffic on them.

Only unmistakable traffic counts. The broker, the database and the proxy's legs to the services are on
Internal_base; the portal, called by the administrator, calls the cloud on External_api. On a plane with both
(one flat network) any name is accepted.
"""

# With the names swapped, calls of all steps are on the wrong plane, and each gives a deviation `plane`. One
# sentence with the arguments that fit is of more use than those.

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tracer.model import CALLS_OVER, Capture, Connection
from tracer.openstack.services import ADMIN, PORTAL, PROXY, ROLE_OF_PORT
from tracer.topology.planes import EXTERNAL_API, INTERNAL_BASE
from tracer.topology.roles import Roles

__all__ = ["misnamed"]

_INSIDE = {"RPC": "AMQP", "SQL": "SQL"}
"""Protocol of calls -> its traffic, as the message names it."""


class _Signs:
    """The evidence found on all planes of one name, and the captures that hold it."""

    def __init__(self) -> None:
        self.inside: set[str] = set()
        """Kinds of traffic that belong on Internal_base, as the message names them."""
        self.outside: set[str] = set()
        """asked: the administrator called the portal. asks: the portal called the cloud."""
        self.captures: set[int] = set()

    @property
    def is_outside(self) -> bool:
        """Whether the traffic is External_api's: the portal calls the cloud, and is called itself.

        A client of the cloud alone proves nothing: it may be any host.
        """
        return self.outside == {"asked", "asks"} and not self.inside


def misnamed(
    captures: Sequence[Capture],
    connections: Iterable[Connection],
    given: Callable[[Connection], str | None],
    roles: Roles,
) -> str | None:
    """Return which planes look misnamed and which names fit, in words; None where the names may be right.

    *given* returns the plane of a connection by the user's names.
    """
    signs = {EXTERNAL_API: _Signs(), INTERNAL_BASE: _Signs()}
    portals, administrators = roles.addresses(PORTAL), roles.addresses(ADMIN)
    for connection in connections:
        seen = signs.get(given(connection) or "")
        if seen is None:
            continue
        client, server = connection.client.address, connection.server
        inside = _INSIDE.get(CALLS_OVER.get(connection.protocol or "", ""))
        if inside:
            seen.inside.add(inside)
        elif connection.client_role == PROXY:
            seen.inside.add("forwarded requests")
        elif server.address in portals and client in administrators:
            seen.outside.add("asked")
        elif client in portals and (roles.is_front(server) or server.port in ROLE_OF_PORT):
            seen.outside.add("asks")
        else:
            continue
        seen.captures.update(connection.captures)
    external, internal = signs[EXTERNAL_API], signs[INTERNAL_BASE]
    named = {capture.plane for capture in captures}
    as_internal = _files(captures, EXTERNAL_API, external, INTERNAL_BASE)
    as_external = _files(captures, INTERNAL_BASE, internal, EXTERNAL_API)
    if external.inside and internal.is_outside:
        words = f"{EXTERNAL_API} and {INTERNAL_BASE} look swapped: {_list(external.inside)} on what is called"
        words += f" {EXTERNAL_API}, the SC's calls on {INTERNAL_BASE}"
        fits = as_internal + as_external
    elif external.inside and not external.outside and INTERNAL_BASE not in named:
        words = f"what is called {EXTERNAL_API} looks like {INTERNAL_BASE}: {_list(external.inside)} on it"
        fits = as_internal
    elif internal.is_outside and EXTERNAL_API not in named:
        words = f"what is called {INTERNAL_BASE} looks like {EXTERNAL_API}: nothing but the SC's calls on it"
        fits = as_external
    else:
        return None
    return f"{words}; this fits: {' '.join(fits)}" if fits else words


def _list(found: Iterable[str]) -> str:
    *most, last = sorted(found)
    return f"{', '.join(most)} and {last}" if most else last


def _files(captures: Sequence[Capture], named: str, signs: _Signs, plane: str) -> list[str]:
    """Return the captures named *named* that hold evidence, as command line arguments for *plane*."""
    misnamed = [c for c in captures if c.plane == named and c.number in signs.captures]
    return [f"{plane}={capture.path}" for capture in misnamed]
