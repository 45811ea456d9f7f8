"""What gives a service away, and where it stands."""

from __future__ import annotations

from collections import Counter

import pytest

from tracer.openstack import services
from tracer.openstack.services import SERVICES
from tracer.protocols import BUILTIN, PORTS


@pytest.mark.parametrize(
    "port, role",
    [
        (8774, "nova-api"),
        (5000, "keystone"),
        (35357, "keystone"),
        (9292, "glance-api"),
        (9696, "neutron-server"),
        (8776, "cinder-api"),
        (8778, "placement"),
        (3306, "db"),
        (5432, "db"),
        (5672, "rabbitmq"),
        (7443, "vrm"),
        (7070, "vrm"),
    ],
)
def test_default_ports(port: int, role: str) -> None:
    """The install guides of OpenStack's services, IANA's registry, and the vendor's captures."""
    assert services.ROLE_OF_PORT[port] == role
    assert port in services.ports_of(role)


def test_what_is_spoken_on_a_port() -> None:
    """HTTP on all but the broker's and the database's; the VRM's 7443 is TLS, which nobody decodes."""
    assert PORTS == services.PROTOCOL_OF_PORT
    spoken = {PORTS[port] for port in services.ROLE_OF_PORT if port in PORTS}
    assert spoken == {"http1", "amqp091", "mysql", "postgres"}
    assert (PORTS[5672], PORTS[3306], PORTS[5432]) == ("amqp091", "mysql", "postgres")
    assert 7443 not in PORTS
    # HTTP/2 is spoken on the ports of HTTP: its first bytes show it.
    assert set(PORTS.values()) == {decoder.name for decoder in BUILTIN} - {"http2"}


@pytest.mark.parametrize(
    "topic, role",
    [
        ("conductor", "nova-conductor"),
        ("scheduler", "nova-scheduler"),
        ("compute", "nova-compute"),
        ("compute-alt", "nova-compute"),
        ("q-plugin", "neutron-server"),
        ("cinder-volume", "cinder-volume"),
    ],
)
def test_topics(topic: str, role: str) -> None:
    """The topics of the services' rpcapi.py."""
    assert services.ROLE_OF_TOPIC[topic] == role


@pytest.mark.parametrize(
    "user_agent, role",
    [
        ("nova-compute keystoneauth1/5.6.0 python-requests/2.31.0 CPython/3.11.2", "nova-compute"),
        ("nova-osapi_compute keystoneauth1/4.2 python-requests/2.25", "nova-api"),
        ("fc-nova-compute/1.0 keystoneauth1/4.2", "nova-compute"),
        ("glance-api keystonemiddleware.auth_token/10.1 keystoneauth1/5.0", "glance-api"),
        ("python-novaclient keystoneauth1/5.6.0", ""),
        ("curl/7.88.1", ""),
        ("", ""),
    ],
)
def test_user_agents(user_agent: str, role: str) -> None:
    """Keystoneauth names the program that uses it; a client's name is no service's."""
    assert services.role_of_user_agent(user_agent) == role


def test_every_service_stands_in_one_place() -> None:
    """Outside, a medium, inside; and beside these the proxy in front and the VRM behind."""
    assert {"admin", "sc"} == services.OUTSIDE
    assert {"db", "rabbitmq"} == services.MEDIA
    rest = services.ROLES - services.OUTSIDE - services.MEDIA - services.CALLS_OTHERS
    assert rest == {"lb", "vrm"}


def test_services_with_a_rest_api() -> None:
    apis = {"nova-api", "keystone", "glance-api", "neutron-server", "cinder-api", "placement"}
    assert apis == services.APIS


def test_a_role_has_one_row_and_a_sign_one_role() -> None:
    """A port, a program or a topic in two rows would belong to whichever comes last."""
    signs = [s.role for s in SERVICES]
    signs += [str(port) for s in SERVICES for port, _ in s.ports]
    signs += [str(port) for port, _ in services.OTHER_PORTS]
    for kind in (signs, [p for s in SERVICES for p in s.programs], [t for s in SERVICES for t in s.topics]):
        assert [sign for sign, count in Counter(kind).items() if count > 1] == []


def test_names_fit_their_columns() -> None:
    """Eight and five characters, and no two alike; the broker has no column."""
    ends = [s for s in SERVICES if s.role in services.FLOW]
    columns, narrow = [s.column or s.role for s in ends], [s.narrow or s.role for s in ends]
    assert max(map(len, columns)) <= 8
    assert max(map(len, narrow)) <= 5
    assert len(set(columns)) == len(set(narrow)) == len(ends)


def test_the_flow_holds_every_end() -> None:
    """The broker is the medium of RPC and an end of nothing."""
    assert [*services.FLOW, "rabbitmq"] == [s.role for s in SERVICES]


def test_services_of_one_project() -> None:
    assert services.is_same_project("cinder-api", "cinder-volume")
    assert not services.is_same_project("cinder-api", "nova-api")
