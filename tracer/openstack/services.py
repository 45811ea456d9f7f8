"""The services of a cloud, by role.

Sources: the services' own documentation (default ports, console scripts, RPC topics); for the SC, the load
balancer and the VRM the vendor's article and captures (captures/README.md).
"""

from __future__ import annotations

__all__ = [
    "ADMIN",
    "BROKER",
    "CINDER_API",
    "CINDER_SCHEDULER",
    "CINDER_VOLUME",
    "DATABASE",
    "GLANCE_API",
    "HOST_SERVICE",
    "KEYSTONE",
    "MEDIUM_OF",
    "NEUTRON_SERVER",
    "NOVA",
    "NOVA_API",
    "NOVA_COMPUTE",
    "NOVA_CONDUCTOR",
    "NOVA_SCHEDULER",
    "PLACEMENT",
    "PORTAL",
    "PROXY",
    "VRM",
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
"""The service that runs once on each host: the host is named with it; its messages go to `<topic>.<host>`."""
NOVA = (NOVA_API, NOVA_CONDUCTOR, NOVA_SCHEDULER, NOVA_COMPUTE)
"""Nova's services, in the order in which a creation passes through them."""
