"""What gives a service away: its port, its program's name, its queue, its paths, its methods, its tables.

The names are those of OpenStack's services as they ship; a topology file says what differs.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tracer.model import SqlFacts

__all__ = [
    "API_ROLES",
    "INSIDE",
    "PORT_ROLES",
    "PROGRAMS",
    "RPC_CALLERS",
    "SERVICES",
    "TOPICS",
    "program",
    "role_by_path",
    "sql_caller",
]

PORT_ROLES = {
    8774: "nova-api",
    5000: "keystone",
    35357: "keystone",
    9292: "glance-api",
    9696: "neutron-server",
    8776: "cinder-api",
    8778: "placement",
    3306: "db",
    5672: "rabbitmq",
    7443: "vrm",
    7070: "vrm",
}
SERVICES = frozenset(PORT_ROLES.values())
API_ROLES = SERVICES - {"db", "rabbitmq", "vrm"}
PROGRAMS = {
    "nova-api": "nova-api",
    "nova-api-wsgi": "nova-api",
    "nova-osapi_compute": "nova-api",
    "nova-conductor": "nova-conductor",
    "nova-scheduler": "nova-scheduler",
    "nova-compute": "nova-compute",
    "fc-nova-compute": "nova-compute",
    "neutron-server": "neutron-server",
    "neutron-api": "neutron-server",
    "cinder-api": "cinder-api",
    "cinder-scheduler": "cinder-scheduler",
    "cinder-volume": "cinder-volume",
    "glance-api": "glance-api",
    "placement-api": "placement",
}
INSIDE = frozenset(PROGRAMS.values()) | {"keystone", "placement", "glance-api", "cinder-api", "nova-api"}
"""Services that call others through the proxy: the two legs are one hop of the flow. The SC's request to
the proxy and the proxy's to nova-api are two documented steps."""
TOPICS = {
    "conductor": "nova-conductor",
    "scheduler": "nova-scheduler",
    "compute": "nova-compute",
    "compute-alt": "nova-compute",
    "cinder-scheduler": "cinder-scheduler",
    "cinder-volume": "cinder-volume",
    "q-plugin": "neutron-server",
    "q-server-resource-versions": "neutron-server",
    "q-reports-plugin": "neutron-server",
}
_PATH_ROLES = (
    (re.compile(r"/service/(session|sites)\b"), "vrm"),
    (re.compile(r"(/identity)?/v3/(auth|users|projects|domains|limits)\b|/v2\.0/tokens"), "keystone"),
    (
        re.compile(
            r"/v2\.0/(networks|ports|subnets|extensions|quotas|floatingips|routers|security-groups)\b"
        ),
        "neutron-server",
    ),
    (re.compile(r"/v2/(images|schemas)\b"), "glance-api"),
    (
        re.compile(
            r"/(allocation_candidates|allocations|resource_providers|resource_classes|traits|usages)\b"
        ),
        "placement",
    ),
    (re.compile(r"/v3/[0-9a-f]{32}/(volumes|attachments|snapshots|types)\b"), "cinder-api"),
    (re.compile(r"(/compute)?/v2(\.\d+)?(/[0-9a-f]{32})?/(servers|os-[\w-]+|flavors)\b"), "nova-api"),
)
RPC_CALLERS = {
    "schedule_and_build_instances": "nova-api",
    "select_destinations": "nova-conductor",
    "build_and_run_instance": "nova-conductor",
    "build_instances": "nova-compute",
    "external_instance_event": "nova-api",
    "terminate_instance": "nova-api",
    "stop_instance": "nova-api",
    "start_instance": "nova-api",
    "reboot_instance": "nova-api",
    "attach_volume": "nova-api",
    "reserve_block_device_name": "nova-api",
    "object_action": "nova-compute",
    "object_class_action_versions": "nova-compute",
    "object_backport_versions": "nova-compute",
    "update_instance_info": "nova-compute",
    "sync_instance_info": "nova-compute",
    "delete_instance_info": "nova-compute",
}
"""Who sends these, where a connection says nothing of itself; `build_instances` of old releases comes
from nova-api and is then told by its address."""
_API_TABLES = frozenset({"request_specs", "build_requests", "instance_mappings"})
_CELL_TABLES = re.compile(
    r"instances|instance_(?!mappings)\w+|block_device_mapping|services|compute_nodes|migrations"
)
_UA_PROGRAM = re.compile(r"([a-z][\w-]+)(?:/[\w.]+)? (?:keystoneauth1|keystonemiddleware)")


@lru_cache(maxsize=1024)
def program(user_agent: str) -> str:
    match = _UA_PROGRAM.match(user_agent)
    return PROGRAMS.get(match.group(1), "") if match else ""


@lru_cache(maxsize=1024)
def role_by_path(path: str) -> str:
    return next((role for pattern, role in _PATH_ROLES if pattern.match(path)), "")


def sql_caller(facts: SqlFacts) -> str:
    """Return who writes this table or reads these limits, on a connection that says nothing else."""
    if facts.quota or (facts.table in _API_TABLES and facts.verb == "INSERT"):
        return "nova-api"
    if _CELL_TABLES.fullmatch(facts.table) or facts.table in _API_TABLES:
        return "nova-conductor"
    return ""
