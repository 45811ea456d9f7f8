"""The names that a TLS connection tells openly name the role of its server, where the port does not."""

from __future__ import annotations

import pytest

from tracer.model import Connection, Endpoint, TlsHello, Undecoded
from tracer.openstack.services import role_of_host_name
from tracer.topology import GivenTopology
from tracer.topology.evidence import Evidence


def evidence_of(port: int, server_name: str, names: tuple[str, ...] = ()) -> tuple[Evidence, Endpoint]:
    server = Endpoint("10.0.0.2", port)
    connection = Connection(0, Endpoint("10.0.0.1", 40000), server, 0)
    found = Evidence(GivenTopology())
    found.hello(TlsHello(connection, 0, (), server_name, (), "1.3", names))
    found.undecoded(Undecoded(connection, 0, "tls: no key", ()))
    return found, server


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("keystone.cloud.example", "keystone"),
        ("rabbitmq-0.rabbitmq.svc", "rabbitmq"),
        ("glance.cloud.example", "glance-api"),
        ("nova-api", "nova-api"),
        ("portal.cloud.example", ""),
        ("", ""),
    ],
)
def test_the_first_part_of_a_host_name_is_a_role_or_none(name: str, role: str) -> None:
    assert role_of_host_name(name) == role


def test_the_name_that_the_client_asks_for_counts_on_a_port_of_no_service() -> None:
    found, server = evidence_of(8443, "placement.cloud.example")
    assert found.places.serves[server.address] == {8443: "placement"}


def test_a_certificate_with_the_names_of_several_services_tells_nothing() -> None:
    found, server = evidence_of(8443, "api.cloud.example", ("keystone.example", "glance.example"))
    assert server not in found.named


def test_the_port_of_a_service_counts_more() -> None:
    found, server = evidence_of(9292, "keystone.cloud.example")
    assert found.places.serves[server.address] == {9292: "glance-api"}
