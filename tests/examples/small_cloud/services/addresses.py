"""Where everybody is: host -> plane -> address, and the ports."""

EXTERNAL_API, INTERNAL_BASE = "External_api", "Internal_base"
ADMIN = "10.10.0.5"
BROKER = "172.28.0.52"
DATABASE = "172.28.0.51"
HOSTS = {
    "sc": {EXTERNAL_API: "10.10.0.10"},
    "lb": {EXTERNAL_API: "10.10.0.20", INTERNAL_BASE: "172.28.0.20"},
    "nova-api": {INTERNAL_BASE: "172.28.0.11"},
    "nova-conductor": {INTERNAL_BASE: "172.28.0.21"},
    "nova-scheduler": {INTERNAL_BASE: "172.28.0.22"},
    "nova-compute": {INTERNAL_BASE: "172.28.0.31"},
    "keystone": {INTERNAL_BASE: "172.28.0.41"},
    "neutron-server": {INTERNAL_BASE: "172.28.0.44"},
    "cinder-api": {INTERNAL_BASE: "172.28.0.45"},
    "vrm": {INTERNAL_BASE: "172.28.0.61"},
}
PORTS = {
    "sc": 8080,
    "keystone": 5000,
    "nova-api": 8774,
    "cinder-api": 8776,
    "neutron-server": 9696,
    "vrm": 7070,
}
LB = HOSTS["lb"][EXTERNAL_API]
"""The reverse proxy's address: the SC does not know that a proxy is there."""


def where(service: str) -> tuple[str, int]:
    """Address and port of an HTTP service."""
    return next(iter(HOSTS[service].values())), PORTS[service]
