"""The services of a cloud, one row each: what identifies a service, other than paths, methods and tables.

Sources. OpenStack: each service's install guide (ports), its `setup.cfg` (programs: the names of its console
scripts, which oslo.messaging puts into the name of a connection and keystoneauth into User-Agent), and the
rpcapi.py of nova's and cinder's services and neutron_lib/agent/topics.py (topics). The portal, the proxy and
the VRM: the vendor's article and captures (captures/README.md). The broker and the database: IANA's
registry of ports.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

__all__ = [
    "ADMIN",
    "APIS",
    "BROKER",
    "CALLS_OTHERS",
    "CINDER_API",
    "CINDER_SCHEDULER",
    "CINDER_VOLUME",
    "DATABASE",
    "DRIVES_VRM",
    "FANOUT",
    "FANOUT_QUEUE",
    "FLOW",
    "GLANCE_API",
    "HOST_SERVICE",
    "KEYSTONE",
    "LISTENS",
    "LOOKED_AT_BEFORE_QUOTA",
    "MEDIA",
    "MEDIUM_OF",
    "NEUTRON_SERVER",
    "NOVA",
    "NOVA_API",
    "NOVA_COMPUTE",
    "NOVA_CONDUCTOR",
    "NOVA_SCHEDULER",
    "OUTSIDE",
    "PLACEMENT",
    "PORTAL",
    "PROJECTS",
    "PROTOCOL_OF_PORT",
    "PROTOCOL_WITHIN_TLS",
    "PROXY",
    "ROLES",
    "ROLE_OF_PORT",
    "ROLE_OF_PROGRAM",
    "ROLE_OF_TOPIC",
    "RUNS_PROGRAM",
    "SERVICES",
    "VRM",
    "Place",
    "Service",
    "is_client_tool",
    "is_command_line",
    "is_of_vrm_driver",
    "is_same_project",
    "ports_of",
    "role_of_host_name",
    "role_of_user_agent",
]

# Outside of OpenStack: the administrator asks the portal (ServiceCenter), the portal asks the proxy in front
# of the APIs, and nova-compute asks the virtualisation manager (FusionCompute's VRM).
ADMIN = "admin"
PORTAL = "sc"
PROXY = "lb"
VRM = "vrm"

NOVA_API = "nova-api"
NOVA_CONDUCTOR = "nova-conductor"
NOVA_SCHEDULER = "nova-scheduler"
NOVA_COMPUTE = "nova-compute"
KEYSTONE = "keystone"
GLANCE_API = "glance-api"
NEUTRON_SERVER = "neutron-server"
CINDER_API = "cinder-api"
CINDER_SCHEDULER = "cinder-scheduler"
CINDER_VOLUME = "cinder-volume"
PLACEMENT = "placement"

DATABASE = "db"
BROKER = "rabbitmq"
"""The medium of RPC, never the callee of a message."""
MEDIUM_OF = {"RPC": BROKER, "SQL": DATABASE}
"""protocol of a call -> the server that all of its traffic passes through."""

HOST_SERVICE = NOVA_COMPUTE
"""The service that runs once on each host: reports name the host with it; its queue is `<topic>.<host>`."""
NOVA = (NOVA_API, NOVA_CONDUCTOR, NOVA_SCHEDULER, NOVA_COMPUTE)
"""Nova's services, in the order in which a creation passes through them."""

Place = str
"""The position of a service in the cloud: one of the five below."""
_OUTSIDE = "outside"
"""A client outside of the cloud."""
_FRONT = "front"
"""A proxy: it forwards requests and adds nothing to them."""
_INSIDE = "inside"
"""A service of the cloud: it calls others through the proxy, and the two legs of that are one hop."""
_MEDIUM = "medium"
"""The broker or the database, which all messages or statements pass."""
_BEHIND = "behind"
"""A service that only nova-compute calls."""

_HTTP, _AMQP, _MYSQL, _POSTGRES = "http1", "amqp091", "mysql", "postgres"
"""Names of decoders (tracer/protocols)."""


class Service(NamedTuple):
    """What is known of one role."""

    role: str
    place: Place
    ports: tuple[tuple[int, str], ...] = ()
    """(default port, name of the decoder); an empty decoder means TLS."""
    programs: tuple[str, ...] = ()
    """Names by which its processes identify themselves."""
    topics: tuple[str, ...] = ()
    """RPC topics that it consumes: queues are TOPIC, TOPIC.HOST and, of a fanout, TOPIC_fanout_ID."""
    looked_at_before_quota: bool = False
    """nova-api calls it for what a request names, or for its token, before it reads the quota. Volumes are
    read after the quota (nova/compute/api.py, _create_instance)."""
    short: str = ""
    """Its name in short lines; empty: the role, which has no shorter name that is not ambiguous."""
    column: str = ""
    """Its name in at most eight characters; empty: the role."""
    narrow: str = ""
    """Its name in at most five characters; empty: the role."""


SERVICES = (
    Service(ADMIN, _OUTSIDE),
    Service(PORTAL, _OUTSIDE),
    Service(PROXY, _FRONT),
    Service(
        NOVA_API,
        _INSIDE,
        ((8774, _HTTP),),
        ("nova-api", "nova-api-wsgi", "nova-osapi_compute"),
        narrow="n-api",
    ),
    # 35357 was the port of its administration until Queens.
    Service(KEYSTONE, _INSIDE, ((5000, _HTTP), (35357, _HTTP)), looked_at_before_quota=True, narrow="keyst"),
    Service(
        GLANCE_API,
        _INSIDE,
        ((9292, _HTTP),),
        ("glance-api",),
        looked_at_before_quota=True,
        short="glance",
        column="glance",
        narrow="glnce",
    ),
    Service(
        NEUTRON_SERVER,
        _INSIDE,
        ((9696, _HTTP),),
        ("neutron-server", "neutron-api"),
        ("q-plugin", "q-server-resource-versions", "q-reports-plugin"),
        looked_at_before_quota=True,
        short="neutron",
        column="neutron",
        narrow="neutr",
    ),
    Service(
        CINDER_API,
        _INSIDE,
        ((8776, _HTTP),),
        ("cinder-api",),
        short="cinder",
        column="cinder",
        narrow="cindr",
    ),
    Service(
        CINDER_SCHEDULER,
        _INSIDE,
        (),
        ("cinder-scheduler",),
        ("cinder-scheduler",),
        column="cin-schd",
        narrow="c-sch",
    ),
    Service(
        CINDER_VOLUME,
        _INSIDE,
        (),
        ("cinder-volume",),
        ("cinder-volume",),
        column="cin-vol",
        narrow="c-vol",
    ),
    Service(PLACEMENT, _INSIDE, ((8778, _HTTP),), ("placement-api",), column="placemnt", narrow="place"),
    Service(DATABASE, _MEDIUM, ((3306, _MYSQL), (5432, _POSTGRES))),
    Service(
        NOVA_CONDUCTOR,
        _INSIDE,
        (),
        ("nova-conductor",),
        ("conductor",),
        short="conductor",
        column="conduct.",
        narrow="cond",
    ),
    Service(
        NOVA_SCHEDULER,
        _INSIDE,
        (),
        ("nova-scheduler",),
        ("scheduler",),
        short="scheduler",
        column="schedulr",
        narrow="sched",
    ),
    # fc-nova-compute is the vendor's; compute-alt is nova's second topic from RPC 6.5 on (2026.1).
    Service(
        NOVA_COMPUTE,
        _INSIDE,
        (),
        ("nova-compute", "fc-nova-compute"),
        ("compute", "compute-alt"),
        short="compute",
        column="compute",
        narrow="comp",
    ),
    Service(VRM, _BEHIND, ((7443, ""), (7070, _HTTP))),
    Service(BROKER, _MEDIUM, ((5672, _AMQP), (5671, ""))),
)
"""In the order in which a creation meets them; the broker, which is an end of no step, comes last."""

OTHER_PORTS = (
    # OpenStack services that take no part in a workflow: nova's metadata, placement where an installer moves
    # it, heat, barbican, octavia, ironic, manila, designate, magnum, telemetry.
    *((port, _HTTP) for port in (8775, 8780, 8004, 8000, 9311, 9876, 6385, 8786, 9001, 9511)),
    *((port, _HTTP) for port in (8777, 8041, 8042)),
    # The broker's management API, and usual ports of other HTTP servers.
    *((port, _HTTP) for port in (15672, 80, 8080, 8081, 8888)),
)
"""(port, decoder) of servers that have no role. Source: the services' install guides."""

DRIVES_VRM = frozenset({"fc-nova-compute"})
"""Programs whose virtualisation is a VRM's: the vendor's nova-compute, with its driver for FusionCompute."""

FANOUT = "_fanout"
"""End of the name of a fanout's exchange: TOPIC_fanout (oslo_messaging/_drivers/amqpdriver.py)."""
FANOUT_QUEUE = "_fanout_"
"""Text between topic and id in the name of a fanout's queue."""
PROJECTS = ("nova", "glance", "cinder", "keystone", "neutron")
"""Python packages of the services: the full names of their exceptions begin with them."""

# --- look-ups -------------------------------------------------------------------------------------

ROLES = frozenset(service.role for service in SERVICES)
FLOW = tuple(service.role for service in SERVICES if service.role != BROKER)
"""The roles as a creation meets them. The broker is the medium, not an end."""
ROLE_OF_PORT = {port: service.role for service in SERVICES for port, _ in service.ports}
PROTOCOL_OF_PORT = {
    port: decoder
    for ports in (*(service.ports for service in SERVICES), OTHER_PORTS)
    for port, decoder in ports
    if decoder
}
"""Server port -> name of the decoder of its traffic."""
PROTOCOL_WITHIN_TLS = {5671: _AMQP, 7443: _HTTP, 443: _HTTP, 8443: _HTTP, 15671: _HTTP}
"""Server port -> name of the decoder of what is encrypted there. An API may encrypt on its own port."""
ROLE_OF_PROGRAM = {name: service.role for service in SERVICES for name in service.programs}
ROLE_OF_TOPIC = {topic: service.role for service in SERVICES for topic in service.topics}
RUNS_PROGRAM = frozenset(ROLE_OF_PROGRAM.values())
"""Roles that identify themselves, by the name of a connection or by User-Agent."""

OUTSIDE = frozenset(service.role for service in SERVICES if service.place == _OUTSIDE)
MEDIA = frozenset(service.role for service in SERVICES if service.place == _MEDIUM)
CALLS_OTHERS = frozenset(service.role for service in SERVICES if service.place == _INSIDE)
"""Services that call others through the proxy: the two legs are one hop of the flow. The portal's request to
the proxy and the proxy's to nova-api are two documented steps."""
LOOKED_AT_BEFORE_QUOTA = frozenset(s.role for s in SERVICES if s.looked_at_before_quota)
LISTENS = frozenset(ROLE_OF_PORT.values())
"""Roles that are known by their ports."""
APIS = LISTENS & CALLS_OTHERS
"""Services with a REST API: from outside they are known only behind the proxy."""

_COMMAND_LINE = ("openstacksdk", "openstackclient", "python-openstackclient", "curl")
"""What User-Agent begins with where the command line asks an API, or a script on its library."""
_CLIENT_TOOLS = (
    *_COMMAND_LINE,
    "python-novaclient",
    "gophercloud",
    "Terraform",
    "HashiCorp Terraform",
    "jclouds",
    "fog-core",
    "OpenStack4j",
)
"""What User-Agent begins with where a client outside of the cloud asks an API: the command line, libraries
(gophercloud is that of Terraform and Kubernetes). Services use novaclient, too."""

_NUMBER = re.compile(r"[-_]?\d{1,4}$")
_ROLE_OF_LABEL = {
    label: service.role
    for service in SERVICES
    if service.ports
    for label in (service.role, service.short, *service.programs)
    if label
}
"""First part of the name of a host -> role, of services that listen."""
_USER_AGENT = re.compile(r"([a-z][\w-]+)(?:/[\w.]+)? (?:keystoneauth1|keystonemiddleware)")
"""PROGRAM keystoneauth1/VERSION …: keystoneauth1/session.py, keystonemiddleware/auth_token."""
_MARKS_OF_VRM = tuple(DRIVES_VRM)


@lru_cache(maxsize=1024)
def role_of_host_name(name: str) -> str:
    """Return the role that the first part of a host name is, its number left out; '' for any other name.

    >>> role_of_host_name("keystone-1.cloud.example")
    'keystone'
    """
    label = _NUMBER.sub("", name.partition(".")[0].lower())
    return _ROLE_OF_LABEL.get(label, "")


@lru_cache(maxsize=1024)
def role_of_user_agent(user_agent: str) -> str:
    """Return the role that User-Agent names, or ''.

    >>> role_of_user_agent("nova-compute keystoneauth1/5.6.0 python-requests/2.31.0 CPython/3.11.2")
    'nova-compute'
    """
    match = _USER_AGENT.match(user_agent)
    return ROLE_OF_PROGRAM.get(match.group(1), "") if match else ""


def is_of_vrm_driver(user_agent: str) -> bool:
    """Return whether User-Agent begins with the name of a program whose virtualisation is a VRM's."""
    return user_agent.startswith(_MARKS_OF_VRM)


def is_client_tool(user_agent: str) -> bool:
    """Return whether User-Agent names a tool or a library with which clients ask OpenStack's APIs."""
    return user_agent.startswith(_CLIENT_TOOLS)


def is_command_line(user_agent: str) -> bool:
    """Return whether User-Agent names the command line or its library, which no service uses to ask nova."""
    return user_agent.startswith(_COMMAND_LINE)


def ports_of(role: str) -> tuple[int, ...]:
    """Return the default ports of *role*."""
    return tuple(port for port, its in ROLE_OF_PORT.items() if its == role)


def is_same_project(role: str, other: str) -> bool:
    """Return whether two roles are services of one project, as cinder-api and cinder-volume are."""
    return role.split("-")[0] == other.split("-")[0]
