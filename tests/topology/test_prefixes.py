"""One server for several services: the prefix of a path says whose a request is, where nothing else does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.engine import Settings, calls
from tracer.testing.messages import request, response
from tracer.testing.packets import Network

PROXY = "172.28.0.20"
KNOWN = ["/identity/v3/auth/tokens", "/compute/v2.1/servers"]


def ask(network: Network, server: str, port: int, path: str, at: float, **headers: str) -> None:
    made = network.connection(PROXY if headers else "172.28.0.11", server, port, at - 0.01)
    made.say(at, request("GET", path, {name.replace("_", "-"): text for name, text in headers.items()}))
    made.hear(at + 0.1, response(200))


def callees(folder: Path, *paths: str, port: int = 80) -> dict[str, str]:
    """Path -> who is asked, of requests to one server."""
    network = Network(lambda a, b: ("Internal_base",))
    for number, path in enumerate(paths):
        ask(network, PROXY, port, path, 1 + number, User_Agent="nova-api keystoneauth1/5.0.0")
    network.write(folder)
    return {call.operation.split()[1]: call.callee for call in calls([str(folder)], Settings())}


@pytest.mark.parametrize("first", KNOWN, ids=["keystone", "nova-api"])
@pytest.mark.parametrize(
    ("path", "role"),
    [
        ("/image", "glance-api"),
        ("/image/", "glance-api"),
        ("/network/healthcheck", "neutron-server"),
        ("/volume/v3", "cinder-api"),
        ("/compute/v2.1/limits", "nova-api"),
        ("/placement/", "placement"),
    ],
)
def test_a_prefix_tells_the_service(path: str, role: str, first: str, tmp_path: Path) -> None:
    """Whatever the server was asked for first."""
    assert callees(tmp_path, first, path)[path] == role


@pytest.mark.parametrize("path", ["/load-balancer/v2/lbaas", "/", "/dashboard"])
def test_a_prefix_of_no_known_service_tells_none(path: str, tmp_path: Path) -> None:
    assert callees(tmp_path, *KNOWN, path)[path] == PROXY


def test_a_server_without_prefixes_has_none(tmp_path: Path) -> None:
    """A web server with a page /image is not an API."""
    assert callees(tmp_path, "/login", "/image/logo.png")["/image/logo.png"] == PROXY


def test_the_port_of_a_service_outweighs_a_prefix(tmp_path: Path) -> None:
    assert callees(tmp_path, "/v2/images", "/compute/", port=9292)["/compute/"] == "glance-api"


@pytest.mark.parametrize("port", [80, 443])
def test_host_without_a_port_names_that_of_the_scheme(port: int, tmp_path: Path) -> None:
    """The proxy is known by what it forwards: its own health checks, from the same address, are its."""
    network = Network(lambda a, b: ("Internal_base",))
    for number, path in enumerate(KNOWN):
        ask(network, PROXY, port, path, 1 + number)
    ask(network, "172.28.0.41", 5000, "/v3/auth/tokens", 1.01, Host=PROXY, X_Forwarded_For="172.28.0.11")
    ask(network, "172.28.0.12", 8774, "/", 3, Host="172.28.0.12:8774")
    network.write(tmp_path)
    callers = {f"{c.callee} {c.operation}": c.caller for c in calls([str(tmp_path)], Settings())}
    assert callers["nova-api GET /"] == "lb"
