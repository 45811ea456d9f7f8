"""Who is at an end: told by real conversations, not by addresses alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.judging import judge, only

from tracer.engine import Settings, calls
from tracer.model import CallRecord
from tracer.testing.cloud import COLOCATED, COLOCATED_TAPS, PROJECT, SPREAD, Cloud, Layout
from tracer.testing.creation import Creation
from tracer.testing.messages import (
    amqp_set_up,
    mysql_login,
    pid_of,
    publish,
    query,
    request,
    response,
    sql_ok,
)
from tracer.testing.packets import Network
from tracer.testing.upstream import UpstreamCreation

VM = "145c135d-63cb-41ba-98cd-3235a30c2e27"


def lines(network: Network, folder: Path, topology: str = "") -> list[str]:
    """caller > callee operation of each call."""
    network.write(folder)
    settings = Settings()
    if topology:
        (folder / "topology.toml").write_text(topology, encoding="utf-8")
        settings = Settings(topology=folder / "topology.toml")
    return [f"{c.caller} > {c.callee} {c.operation}" for c in calls([str(folder)], settings)]


def inside() -> Network:
    """On the external plane an API is only known behind its proxy: this is the inner one."""
    return Network(lambda a, b: ("Internal_base",))


def rest(
    network: Network, client: str, server: str, port: int, path: str = "/x", at: float = 1, **headers: str
) -> None:
    made = network.connection(client, server, port, at - 0.01)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    made.say(at, request("GET", path, sent))
    made.hear(at + 0.1, response(200))


@pytest.mark.parametrize(
    "port, role",
    [
        (8774, "nova-api"),
        (5000, "keystone"),
        (9292, "glance-api"),
        (9696, "neutron-server"),
        (8776, "cinder-api"),
        (8778, "placement"),
        (7070, "vrm"),
        (7443, "vrm"),
    ],
)
def test_a_port_tells_the_callee(port: int, role: str, tmp_path: Path) -> None:
    network = inside()
    rest(network, "172.28.0.99", "172.28.0.50", port)
    assert lines(network, tmp_path)[0].split(" > ")[1] == f"{role} GET /x"


@pytest.mark.parametrize(
    "path, role",
    [
        ("/v2.1/servers", "nova-api"),
        ("/compute/v2.1/servers", "nova-api"),
        (f"/v2/{PROJECT}/servers", "nova-api"),
        ("/identity/v3/auth/tokens", "keystone"),
        ("/v3/auth/tokens", "keystone"),
        ("/v2.0/ports", "neutron-server"),
        (f"/v2/images/{VM}", "glance-api"),
        (f"/allocations/{VM}", "placement"),
        (f"/v3/{PROJECT}/attachments", "cinder-api"),
        ("/service/sites/43BC08E8/vms", "vrm"),
    ],
)
def test_a_path_tells_the_callee_on_any_port(path: str, role: str, tmp_path: Path) -> None:
    network = inside()
    rest(network, "172.28.0.99", "172.28.0.50", 18080, path)
    assert f"> {role} " in lines(network, tmp_path)[0]


@pytest.mark.parametrize(
    "agent, role",
    [
        ("nova-api keystoneauth1/5.0.0 python-requests/2.28.1", "nova-api"),
        ("nova-compute keystoneauth1/5.0.0", "nova-compute"),
        ("neutron-server keystoneauth1/5.0.0", "neutron-server"),
        ("nova-scheduler/26.2 keystonemiddleware", "nova-scheduler"),
    ],
)
def test_a_user_agent_tells_the_caller(agent: str, role: str, tmp_path: Path) -> None:
    network = Network()
    rest(network, "172.28.0.99", "172.28.0.42", 8778, User_Agent=agent)
    assert lines(network, tmp_path) == [f"{role} > placement GET /x"]


@pytest.mark.parametrize(
    "program", ["nova-api", "nova-conductor", "nova-scheduler", "nova-compute", "neutron-server"]
)
def test_a_connection_name_tells_the_publisher(program: str, tmp_path: Path) -> None:
    network = Network()
    made = network.connection("172.28.0.10", "172.28.0.10", 5672, 0)
    amqp_set_up(made, 0.1, program)
    made.say(1, publish("nova", "conductor", Cloud().message("anything", {}, "")))
    assert lines(network, tmp_path) == [f"{program} > nova-conductor cast anything"]


@pytest.mark.parametrize(
    "exchange, key, callee",
    [
        ("nova", "conductor", "nova-conductor"),
        ("nova", "conductor.ctl1", "nova-conductor"),
        ("nova", "scheduler", "nova-scheduler"),
        ("nova", "compute.host7", "nova-compute"),
        ("nova", "compute-alt.host7", "nova-compute"),
        ("scheduler_fanout", "", "nova-scheduler"),
        ("openstack", "cinder-volume.host@lvm", "cinder-volume"),
        ("neutron", "q-plugin", "neutron-server"),
    ],
)
def test_a_routing_key_tells_who_is_meant(exchange: str, key: str, callee: str, tmp_path: Path) -> None:
    """Delivered or not."""
    network = Network()
    made = network.connection("172.28.0.10", "172.28.0.10", 5672)
    made.say(1, publish(exchange, key, Cloud().message("anything", {}, "")))
    assert f"> {callee} " in lines(network, tmp_path)[0]


def test_a_database_login_names_its_process(tmp_path: Path) -> None:
    """The process id of the login is that of a broker connection of the same host."""
    network = Network()
    broker = network.connection("172.28.0.10", "172.28.0.10", 5672, 0)
    amqp_set_up(broker, 0.1, "nova-conductor")
    pid = str(pid_of("nova-conductor"))
    for n, attributes in enumerate(({"_pid": pid}, {"_pid": "99999"})):
        made = network.connection("172.28.0.10", "172.28.0.10", 3306, 1 + n)
        mysql_login(made, 1.1 + n, "nova", **attributes)
        made.say(1.5 + n, query("INSERT INTO something VALUES (1)"))
        made.hear(1.6 + n, sql_ok())
    first, second = lines(network, tmp_path)
    assert first == "nova-conductor > db INSERT something"
    assert second != first


def test_the_proxy_is_known_by_x_forwarded_for(tmp_path: Path) -> None:
    """Its sender is the LB, the address in Host is the LB's outer one; the stranger before it is the SC, and
    the stranger before that the administrator."""
    network = Network()
    rest(network, "10.10.0.5", "10.10.0.10", 8080, "/sc/cloudhosts", at=0.9)
    rest(network, "10.10.0.10", "10.10.0.20", 8774, "/v2.1/flavors", at=1, Host="10.10.0.20:8774")
    rest(
        network,
        "172.28.0.20",
        "172.28.0.11",
        8774,
        "/v2.1/flavors",
        at=1.01,
        Host="10.10.0.20:8774",
        X_Forwarded_For="10.10.0.10",
    )
    assert lines(network, tmp_path) == [
        "admin > sc GET /sc/cloudhosts",
        "sc > lb GET /v2.1/flavors",
        "lb > nova-api GET /v2.1/flavors",
    ]


def test_a_virtual_address_is_the_proxy_as_a_destination_only(tmp_path: Path) -> None:
    """As a source it is whatever service runs there: told by the request that it works for."""
    cloud = Cloud(COLOCATED)
    Creation(cloud, breaks={"4c": "403"}).run()
    verdict = only(judge(cloud, tmp_path))
    assert {c.caller for c in verdict.calls if c.callee in ("glance-api", "neutron-server")} == {"nova-api"}


def test_the_topology_file_is_believed(tmp_path: Path) -> None:
    """Given roles before anything inferred, with or without a port; given ports decode."""
    network = Network()
    rest(network, "172.28.0.99", "172.28.0.50", 8774, "/v2.1/servers", User_Agent="nova-api keystoneauth1/5")
    assert lines(network, tmp_path, '[roles]\nfirst = "172.28.0.99"\nsecond = "172.28.0.50:8774"\n') == [
        "first > second GET /v2.1/servers"
    ]


def test_unknown_ends_are_addresses(tmp_path: Path) -> None:
    """Nothing known is said as it is: the address, and never a wrong role."""
    network = Network()
    rest(network, "172.28.0.99", "172.28.0.50", 18081, "/health")
    rest(
        network,
        "172.28.0.50",
        "172.28.0.11",
        8774,
        "/v2.1/servers",
        User_Agent="nova-compute keystoneauth1/5",
    )
    assert lines(network, tmp_path)[0] == "172.28.0.99 > 172.28.0.50 GET /health"


EXPECTED = {
    "POST /sc/cloudhosts": {"admin > sc"},
    "POST /v2.1/servers": {"sc > lb", "lb > nova-api"},
    "GET /v3/auth/tokens": {"nova-api > keystone"},
    "GET /v2/images/{id}": {"nova-api > glance-api"},
    "GET /v2.0/quotas/{id}": {"nova-api > neutron-server"},
    "GET /v2.0/networks": {"nova-api > neutron-server", "nova-compute > neutron-server"},
    "GET /allocation_candidates": {"nova-scheduler > placement"},
    "POST /v2.0/ports": {"nova-compute > neutron-server"},
    "PUT /v2.0/ports/{id}": {"nova-compute > neutron-server"},
    "POST /service/sites/{id}/vms": {"nova-compute > vrm"},
    "INSERT request_specs": {"nova-api > db"},
    "UPDATE instances": {"nova-conductor > db"},
    "cast schedule_and_build_instances": {"nova-api > nova-conductor"},
    "call select_destinations": {"nova-conductor > nova-scheduler"},
    "reply select_destinations": {"nova-scheduler > nova-conductor"},
    "cast build_and_run_instance": {"nova-conductor > nova-compute"},
    "call object_action": {"nova-compute > nova-conductor"},
    "reply object_action": {"nova-conductor > nova-compute"},
}


def hops(records: list[CallRecord]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for record in records:
        found.setdefault(record.operation, set()).add(f"{record.caller} > {record.callee}")
    return found


@pytest.mark.parametrize("layout", [SPREAD, COLOCATED])
def test_every_system_of_a_creation_is_recognised(layout: Layout, tmp_path: Path) -> None:
    """All roles of the documented table, on any layout, without a topology file."""
    cloud = Cloud(layout)
    cloud.background(0, 120)
    Creation(cloud).run()
    found = hops(list(only(judge(cloud, tmp_path)).calls))
    assert {operation: found[operation] for operation in EXPECTED} == EXPECTED


def test_taps_see_what_crosses_the_wire(tmp_path: Path) -> None:
    """Beside a controller: the delivered 7 comes from nova-conductor, though its host is not seen."""
    cloud = Cloud(COLOCATED_TAPS)
    cloud.background(0, 120)
    Creation(cloud).run()
    found = hops(list(only(judge(cloud, tmp_path)).calls))
    assert found["cast build_and_run_instance"] == {"nova-conductor > nova-compute"}
    assert found["POST /v2.0/ports"] == {"nova-compute > neutron-server"}


# --- a client that names no tool ------------------------------------------------------------------


@pytest.mark.parametrize("proxy", [True, False])
@pytest.mark.parametrize("agent", ["python-requests/2.28.1", "curl/8.5.0", "Go-http-client/1.1", ""])
def test_a_client_of_a_cloud_without_a_vendor_is_no_portal(agent: str, proxy: bool, tmp_path: Path) -> None:
    """Nobody asks anything of it, and nothing shows a VRM: it asks for itself, whatever its library."""
    cloud = Cloud(SPREAD, portal=False, proxy=proxy)
    UpstreamCreation(cloud, at=20).run()
    named = b"openstacksdk/0.101.0 keystoneauth1/5.0.0 python-requests/2.28.1 CPython/3.11.2"
    cloud.network.events = [
        (at, made, side, flags, data.replace(named, agent.encode()), lost)
        for at, made, side, flags, data, lost in cloud.network.events
    ]
    verdict = only(judge(cloud, tmp_path, Settings()))
    assert verdict.verdict == "conforms"
    assert {call.caller for call in verdict.calls if call.step == "2"} == {"admin"}
