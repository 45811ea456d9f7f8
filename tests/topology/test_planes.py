"""Planes: by name, interface, VLAN, subnet, and else by the address graph."""

from __future__ import annotations

import ipaddress

import pytest

from tracer.model import Capture, Connection, Endpoint
from tracer.topology import GivenTopology, Planes


def connection(
    client: str,
    server: str,
    port: int = 80,
    vlan: int = 0,
    interface: int = 0,
    captures: tuple[int, ...] = (0,),
) -> Connection:
    made = Connection(1, Endpoint(client, 40000), Endpoint(server, port), 0, vlan=vlan, interface=interface)
    made.captures = list(captures)
    return made


def given() -> GivenTopology:
    made = GivenTopology()
    made.vlans, made.interfaces = {101: "External_api"}, {"eth1": "Storage"}
    made.subnets = [(ipaddress.ip_network("10.10.0.0/24"), "External_api")]
    made.plane_names = ("External_api", "Storage")
    return made


@pytest.mark.parametrize(
    "capture, made, plane",
    [
        (Capture(0, "a", "Internal_base"), connection("10.10.0.1", "10.10.0.2", vlan=101), "Internal_base"),
        (Capture(0, "a", interfaces={0: "eth1"}), connection("10.10.0.1", "10.10.0.2", vlan=101), "Storage"),
        (
            Capture(0, "a", interfaces={0: "Internal_base"}),
            connection("10.10.0.1", "10.10.0.2"),
            "Internal_base",
        ),
        (Capture(0, "a", interfaces={0: "Storage"}), connection("10.10.0.1", "10.10.0.2"), "Storage"),
        (Capture(0, "a", interfaces={0: "eth9"}), connection("1.1.1.1", "1.1.1.2", vlan=101), "External_api"),
        (Capture(0, "a"), connection("1.1.1.1", "10.10.0.2"), "External_api"),
        (Capture(0, "a"), connection("10.10.0.2", "1.1.1.1"), "External_api"),
        (Capture(0, "a"), connection("1.1.1.1", "1.1.1.2", vlan=7), None),
    ],
)
def test_what_is_given(capture: Capture, made: Connection, plane: str | None) -> None:
    """The capture's name before the interface's, then VLAN, then subnet of server or client."""
    assert Planes([capture], given()).given(made) == plane


def test_the_part_with_amqp_or_sql_is_internal() -> None:
    """Connected parts of the address graph; a part that joins later is one with it."""
    planes = Planes([Capture(0, "a")], GivenTopology())
    sc, api, sql = (
        connection("10.10.0.10", "10.10.0.20"),
        connection("172.28.0.20", "172.28.0.11"),
        connection("172.28.0.11", "172.28.0.51"),
    )
    planes.observe(sc, "REST")
    planes.observe(api, "REST")
    assert planes.inferred(api) == "External_api"
    planes.observe(sql, "SQL")
    assert (planes.inferred(sc), planes.inferred(api), planes.inferred(sql)) == (
        "External_api",
        "Internal_base",
        "Internal_base",
    )


def test_the_same_subnet_in_two_vlans_is_two_parts() -> None:
    planes = Planes([Capture(0, "a")], GivenTopology())
    inside, outside = connection("10.0.0.1", "10.0.0.2", vlan=1), connection("10.0.0.1", "10.0.0.2", vlan=2)
    planes.observe(inside, "SQL")
    planes.observe(outside, "REST")
    assert (planes.inferred(inside), planes.inferred(outside)) == ("Internal_base", "External_api")


def test_loopback_is_internal() -> None:
    planes = Planes([Capture(0, "a")], GivenTopology())
    for made in (connection("127.0.0.1", "127.0.0.1"), connection("::1", "::1")):
        planes.observe(made, "REST")
        assert planes.inferred(made) == "Internal_base"


def test_a_part_with_the_vrm_alone_is_om() -> None:
    """The way from compute hosts to the VRM is management, unless it hangs on one of the other planes."""
    planes = Planes([Capture(0, "a")], GivenTopology())
    vrm, sql = connection("10.20.0.1", "10.20.0.9", 7443), connection("172.28.0.11", "172.28.0.51")
    planes.observe(vrm, "REST")
    planes.observe(vrm, "vrm")
    planes.observe(sql, "SQL")
    assert planes.inferred(vrm) == "External_om"


def test_services_that_call_each_other_are_internal() -> None:
    """A virtual address that no AMQP and no SQL uses is on the inner plane all the same."""
    planes = Planes([Capture(0, "a")], GivenTopology())
    virtual, sql = (
        connection("172.28.0.9", "172.28.0.9", 5000),
        connection("172.28.0.10", "172.28.0.10", 3306),
    )
    planes.observe(virtual, "REST")
    planes.observe(sql, "SQL")
    planes.observe(virtual, "service")
    assert planes.inferred(virtual) == "Internal_base"


def test_behind_a_proxy_is_internal_though_the_broker_is_elsewhere() -> None:
    """The API's part is not tied to the broker's in a short capture; its proxy's clients are not there."""
    planes = Planes([Capture(0, "a")], GivenTopology())
    behind = connection("172.28.0.5", "172.28.0.11", 8774)
    planes.observe(behind, "REST")
    planes.observe(behind, "behind")
    planes.observe(connection("172.28.0.31", "172.28.0.20", 5672), "RPC")
    assert planes.inferred(behind) == "Internal_base"
