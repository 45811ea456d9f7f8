"""The paths of the APIs: their service, their meaning, the ids in them, and the bodies that must not be read.

Sources: the API references of nova, keystone, neutron, glance, cinder and placement (docs.openstack.org,
api-ref); FusionCompute's interface reference and the vendor's captures for /service/…, tasks and virtual
machines (captures/README.md). A prefix such as /compute or /identity is that of a cloud whose
APIs share a port.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from tracer.openstack.services import (
    CINDER_API,
    GLANCE_API,
    KEYSTONE,
    NEUTRON_SERVER,
    NOVA_API,
    PLACEMENT,
    VRM,
)

__all__ = [
    "ACTION",
    "ALLOCATION_REQUESTS",
    "CANDIDATES",
    "CLAIM",
    "COMPUTE_REQUEST_ID",
    "CREATED",
    "CREATE_SERVER",
    "DISKS",
    "EVENTS",
    "EXTERNAL_EVENTS",
    "FRAGMENTS",
    "HOLDS_IDS",
    "ID",
    "ID_WORDS",
    "NAMES",
    "NETWORKS",
    "NO_NETWORK",
    "OBJECTS_OF_VRM",
    "OLD_PROJECT",
    "PATHS",
    "PLUGGED",
    "PREFIXES",
    "PROJECT",
    "REQUEST_ID",
    "SECRETS",
    "SERVER",
    "SERVERS",
    "SHOWS_WHAT_A_CREATION_IS",
    "STARTS_VM",
    "STATUS",
    "SUBJECT_TOKEN",
    "TASK_URI",
    "TOKEN",
    "TOKENS",
    "TOKEN_IN_PATH",
    "UNNAMED",
    "UUID",
    "VM_URI",
    "VRM_PATHS",
    "Path",
    "asks_for_resources",
    "creates_server",
    "deletes_server",
    "is_login",
    "is_secret",
    "is_vrm",
    "leaves_hosts_out",
    "names_vrm_object",
    "networks_listed",
    "role_of_path",
    "role_of_prefix",
    "sender_of_event",
    "server_named",
    "validates_token",
]

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
"""As OpenStack writes them: lower case, with dashes."""

# --- whose a path is ------------------------------------------------------------------------------


class Path(NamedTuple):
    """Paths that only one service has."""

    role: str
    pattern: str
    """An expression for the beginning of the path, after the prefix of the service if there is one, up to the
    end of a word."""


PREFIXES = {
    "identity": KEYSTONE,
    "compute": NOVA_API,
    "image": GLANCE_API,
    "network": NEUTRON_SERVER,
    "networking": NEUTRON_SERVER,
    "placement": PLACEMENT,
    "volume": CINDER_API,
}
"""First part of the path -> role, where one server stands for several services (devstack/lib: uwsgi)."""
PATHS = (
    Path(VRM, r"/service/(session|sites)"),
    Path(KEYSTONE, r"/v3/(auth|users|projects|domains|limits)"),
    Path(KEYSTONE, r"/v2\.0/tokens"),
    Path(
        NEUTRON_SERVER,
        r"/v2\.0/(networks|ports|subnets|extensions|quotas|floatingips|routers|security-groups)",
    ),
    Path(GLANCE_API, r"/v2/(images|schemas)"),
    Path(
        PLACEMENT,
        r"/(allocation_candidates|allocations|resource_providers|resource_classes|traits|usages)",
    ),
    Path(CINDER_API, r"/v3/[0-9a-f]{32}/(volumes|attachments|snapshots|types)"),
    Path(NOVA_API, r"/v2(\.\d+)?(/[0-9a-f]{32})?/(servers|os-[\w-]+|flavors)"),
)
"""The first row that fits counts."""


def _prefix(role: str) -> str:
    words = [word for word, its in PREFIXES.items() if its == role]
    return rf"(?:/(?:{'|'.join(words)}))?" if words else ""


_PATHS = tuple((re.compile(rf"{_prefix(path.role)}(?:{path.pattern})\b"), path.role) for path in PATHS)


@lru_cache(maxsize=1024)
def role_of_path(path: str) -> str:
    """Return the role that has such a path, or nothing.

    >>> role_of_path("/v2.0/ports.json")
    'neutron-server'
    """
    return next((role for pattern, role in _PATHS if pattern.match(path)), "")


def role_of_prefix(path: str) -> str:
    """Return the role whose prefix *path* begins with, or nothing.

    Only a server of several services has prefixes: elsewhere the word means nothing.

    >>> role_of_prefix("/image")
    'glance-api'
    """
    return PREFIXES.get(path[1:].partition("/")[0], "")


# --- servers --------------------------------------------------------------------------------------

CREATE_SERVER = "POST /v2.1/servers"
"""The operation that creates servers, in its plainest form. A grammar in which it begins a trace is one of a
creation."""
CREATED = 202
"""The status of its good answer, which holds the server's id."""
SERVERS = "/servers"
"""End of the path of all servers."""
_SERVERS = re.compile(
    r"(?:/[a-z][\w-]*)?/v2(?:\.\d+)?(?:/(?!(?:servers|os-volumes_boot)$)[^/]+)?/(?:servers|os-volumes_boot)/?"
)
"""With or without prefix and project. os-volumes_boot is the same controller under its older name, which
gophercloud and others ask to boot from a volume (nova/api/openstack/compute/routes.py)."""
_DELETING = ("forceDelete", "os-forceDelete")
_A_SERVER = "/servers/"
_SERVER = re.compile(rf"{_A_SERVER}({UUID})(?:/|$)")
ACTION = "/action"
"""End of the path of an action. The only member of the body names the action: {"os-stop": null}."""


def creates_server(method: str, path: str) -> bool:
    """Return whether this request creates servers: a POST to /servers, or to its older name.

    >>> creates_server("POST", "/compute/v2.1/e114495f4b7d49c18a052454413cd3db/os-volumes_boot")
    True
    """
    return method == "POST" and _SERVERS.fullmatch(path) is not None


def deletes_server(method: str, path: str, action: str) -> bool:
    """Return whether this request deletes the server that *path* names.

    >>> deletes_server("DELETE", "/v2.1/servers/8450a932-0b29-461a-8419-ffccd7096a3d", "")
    True
    """
    if method == "DELETE":
        return server_named(path) != "" and path.rstrip("/").endswith(server_named(path))
    return action in _DELETING


def server_named(path: str) -> str:
    """Return the server that *path* is about, or nothing.

    >>> server_named("/v2.1/servers/8450a932-0b29-461a-8419-ffccd7096a3d/action")
    '8450a932-0b29-461a-8419-ffccd7096a3d'
    """
    found = _SERVER.search(path) if _A_SERVER in path else None
    return found[1] if found else ""


# --- tokens and other secrets ---------------------------------------------------------------------

TOKENS = "/auth/tokens"
"""Keystone's: POST is a login, GET validates a token."""
TOKEN_IN_PATH = "/v2.0/tokens/"  # noqa: S105  # a path, not a token
"""In keystone's v2 API the token to be validated followed this."""
SECRETS = (TOKENS, "/service/session", "/v2.0/tokens", "/login")
"""Bodies of requests to these, and of their answers, hold passwords and tokens: they are never read."""


def is_secret(path: str) -> bool:
    """Return whether bodies on *path* are never read, however it is written."""
    # Substrings: an expression that ignores case takes ten times as long, and this is asked of each message.
    lower = path.lower()
    return any(part in lower for part in SECRETS)


def is_login(path: str) -> bool:
    """Return whether *path* is keystone's for logins and for the validation of tokens."""
    return TOKENS in path


def validates_token(operation: str) -> bool:
    """Return whether *operation* validates a token that is in a header (Identity API v3)."""
    return operation.startswith("GET") and operation.endswith(TOKENS)


# --- placement ------------------------------------------------------------------------------------

CANDIDATES = "/allocation_candidates"
"""End of the path that lists the hosts which could take a server."""
CLAIM = "PUT /allocations/"
"""Start of the operation that claims a host's resources for a server."""
_RESOURCES = "resources"
_NARROWING = ("required", "member_of", "in_tree")


def asks_for_resources(field: str) -> bool:
    """Return whether a field of the query for candidates asks for amounts: VCPU, MEMORY_MB."""
    return field.startswith(_RESOURCES)


def leaves_hosts_out(field: str) -> bool:
    """Return whether a field of the query for candidates excludes hosts: traits, aggregates, trees."""
    return field.startswith(_NARROWING)


# --- the VRM --------------------------------------------------------------------------------------

VRM_PATHS = ("/service/sites", "/service/session")
OBJECTS_OF_VRM = ("/tasks/", "/vms/")
"""Parts of a path before the id of a task or a virtual machine."""
STARTS_VM = "/action/start"
"""End of the path with which a virtual machine is started: the last request of a creation to the VRM."""
_OF_VRM = "/service/s"
"""What they have in common: of most paths no more is looked at."""
_VRM = re.compile(rf"(?:{'|'.join(map(re.escape, VRM_PATHS))})\b")


def is_vrm(path: str) -> bool:
    """Return whether *path* is one of the VRM's."""
    return _OF_VRM in path and _VRM.search(path) is not None


def names_vrm_object(path: str) -> bool:
    """Return whether *path* is that of one task or one virtual machine of the VRM."""
    return any(word in path for word in OBJECTS_OF_VRM)


# --- ids in paths ---------------------------------------------------------------------------------

ID = r"""
    [0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}
    | (?=[0-9a-fA-F]*\d) [0-9a-fA-F]{6,}     # project ids, FusionCompute's sites
    | \d+
    | [a-z]{1,4}-[0-9a-fA-F]{6,}             # FusionCompute's i-00000072
    | urn:.*
    | req-.*
"""
"""Matches a part of a path that is an id (verbose expression)."""
HOLDS_IDS = frozenset({"sites", "vms", "tasks", "hosts", "volumes", "servers", "ports", "attachments"})
"""Collections: the part of a path that follows one is an id, unless it is in `ID_WORDS`."""
ID_WORDS = frozenset({"action", "detail", "default", "defaults", "summary"})
"""Words that follow a collection and are no ids."""

# --- what bodies and headers say ------------------------------------------------------------------

SHOWS_WHAT_A_CREATION_IS = (
    r"/servers/[0-9a-f-]{36}$",
    r"/tasks/[^/]+$",
    r"/v[123](?:/[^/]+)?/volumes/[0-9a-f-]{36}$",
    r"/v2\.0/ports/[0-9a-f-]{36}(?:\.json)?$",
    CANDIDATES,
    # the portal's
    r"/cloudhosts/",
    r"/orders?/",
)
"""Paths whose answers to a GET are read: one server, task, volume or port; candidates, orders."""
NAMES = ("name", "vmName", "hostname")
"""Members, and fields of a form, that hold the name of a server."""
DISKS = ("block_device_mapping_v2", "block_device_mapping")
"""Members of a request for a server that name its disks, the newer form first."""
NETWORKS = "networks"
"""Member of a request for a server that names its networks."""
NO_NETWORK = "none"
"""Its value for a server that shall have no network (compute API 2.37)."""
UNNAMED = "unnamed"
"""Not a value of nova's: the request leaves its networks to the cloud."""
_LIST_OF_NETWORKS = re.compile(r"(?:/network(?:ing)?)?/v2\.0/networks(?:\.json)?")
_LONGEST_QUERY = 1_000


def networks_listed(path: str, query: str) -> str:
    """Return which networks a request lists, of those that a project may use: own, shared, or nothing.

    nova asks for both where a server names none, and for those that it names by id
    (nova/network/neutron.py, _get_available_networks).

    >>> networks_listed("/v2.0/networks", "tenant_id=e114495f4b7d49c18a052454413cd3db&shared=False")
    'own'
    """
    if not _LIST_OF_NETWORKS.fullmatch(path):
        return ""
    fields = dict(part.partition("=")[::2] for part in query[:_LONGEST_QUERY].split("&"))
    if "id" in fields:
        return ""
    if fields.get("shared", "").lower() == "true":
        return "shared"
    return "own" if {PROJECT, OLD_PROJECT} & fields.keys() else ""


SERVER = "server"
"""Member that holds a server."""
STATUS = "status"
"""Member that holds the state of a server or task."""
PROJECT, OLD_PROJECT = "project_id", "tenant_id"
"""Members that hold the project; nova's API still has the old one."""
TASK_URI, VM_URI = "taskUri", "uri"
"""Members of the VRM's answers that name a task and a virtual machine."""
ALLOCATION_REQUESTS = "allocation_requests"
"""Member of placement's answer with one entry for each candidate."""

REQUEST_ID, COMPUTE_REQUEST_ID = "x-openstack-request-id", "x-compute-request-id"
"""Headers: the id of a request, of all services and of nova before Newton (oslo_middleware/request_id.py)."""
TOKEN, SUBJECT_TOKEN = "x-auth-token", "x-subject-token"  # names of headers
"""Headers: the client's token, and the token to be validated (keystone's API reference)."""

# --- what neutron and cinder tell nova --------------------------------------------------------------

EXTERNAL_EVENTS = "/os-server-external-events"
"""End of the path by which other services report to nova-api what became of a server's ports and volumes."""
EVENTS = "events"
"""Member of the request and of the answer with one entry for each event."""
_SENDERS = {"network": NEUTRON_SERVER, "volume": CINDER_API}
PLUGGED = "network-vif-plugged"
"""What nova waits for before it starts a server: its ports work (nova/virt/libvirt/driver.py and others)."""


def sender_of_event(name: str) -> str:
    """Return the service that reports such an event, or nothing.

    >>> sender_of_event("volume-extended")
    'cinder-api'
    """
    return _SENDERS.get(name.partition("-")[0], "")


FRAGMENTS = (
    *(TOKENS, TOKEN_IN_PATH, *SECRETS, SERVERS, ACTION, STARTS_VM, *VRM_PATHS, *OBJECTS_OF_VRM),
    *("/v2.1/", "/v2.0/", CANDIDATES, CLAIM, "/cloudhosts/", EXTERNAL_EVENTS, PLUGGED),
)
"""Parts by which a path of the cloud is recognised. A test holds that only this module contains them."""
