"""What each service does, what usually breaks it, and where a person on duty looks: one row a role.

Sources. The tasks: nova's architecture guide and each project's overview. Logs: the packages of Debian and of
RDO, which write to /var/log/PROJECT; kolla writes below /var/log/kolla, systemd's journal holds the rest.
Commands: python-openstackclient, rabbitmqctl(8), the MariaDB and HAProxy manuals. What breaks: the
troubleshooting chapters of the operations guide, and public bug reports.
"""

from __future__ import annotations

from typing import NamedTuple

from tracer.openstack.services import (
    ADMIN,
    BROKER,
    CINDER_API,
    CINDER_SCHEDULER,
    CINDER_VOLUME,
    DATABASE,
    GLANCE_API,
    KEYSTONE,
    NEUTRON_SERVER,
    NOVA_API,
    NOVA_COMPUTE,
    NOVA_CONDUCTOR,
    NOVA_SCHEDULER,
    PLACEMENT,
    PORTAL,
    PROXY,
    VRM,
)

__all__ = ["DUTIES", "Duty"]


class Duty(NamedTuple):
    """What a role does, what usually breaks it, and where to look."""

    does: str
    breaks: str
    logs: str
    """Its usual log, or where its log is to be found."""
    commands: tuple[str, ...] = ()
    """Commands that show its state; they change nothing."""


DUTIES = {
    ADMIN: Duty(
        "the client that asks for a VM: a browser, a command line, Terraform",
        "an expired token, a request that is not complete, a time-out shorter than the cloud needs",
        "the client's own output (openstack --debug)",
    ),
    PORTAL: Duty(
        "ServiceCenter, the portal: takes orders and asks the cloud for them",
        "its session with the cloud expired, its own quota or approval, an order that it does not pass on",
        "the portal's own log of the order",
    ),
    PROXY: Duty(
        "the load balancer in front of the APIs: passes each request on to one server",
        "no server behind it is up, time-outs shorter than the API needs, limits of its own",
        "/var/log/haproxy.log",
        ('echo "show servers state" | socat - /run/haproxy/admin.sock',),
    ),
    NOVA_API: Duty(
        "takes requests, checks token, policy, input and quota, records the request, asks nova-conductor",
        "the database, RabbitMQ or keystone does not answer it; too few workers",
        "/var/log/nova/nova-api.log",
        ("openstack server show ID", "openstack server event list ID"),
    ),
    NOVA_CONDUCTOR: Duty(
        "asks for a host, claims it, asks its nova-compute; writes to the database for nova-compute",
        "it is down or cut off from RabbitMQ, so that messages wait; the database is slow",
        "/var/log/nova/nova-conductor.log",
        ("openstack compute service list",),
    ),
    NOVA_SCHEDULER: Duty(
        "chooses hosts: asks placement for candidates, then filters and weighs them",
        "no candidate is left, placement does not answer, it is down or cut off from RabbitMQ",
        "/var/log/nova/nova-scheduler.log",
        ("openstack hypervisor list --long", "openstack allocation candidate list --resource VCPU=N"),
    ),
    NOVA_COMPUTE: Duty(
        "builds the VM on its host: network, storage, then the hypervisor",
        "cut off from RabbitMQ while it counts as up; waits for neutron, cinder, the hypervisor; a full disk",
        "/var/log/nova/nova-compute.log, on the host",
        ("openstack compute service list --service nova-compute", "openstack server event list ID"),
    ),
    KEYSTONE: Duty(
        "checks tokens and issues them",
        "an expired or revoked token, wrong credentials of a service, its memcached or database is slow",
        "/var/log/keystone/keystone.log",
        ("openstack token issue", "openstack catalog list"),
    ),
    GLANCE_API: Duty(
        "holds the images",
        "the image is not active, its store does not answer, the download is slow",
        "/var/log/glance/glance-api.log",
        ("openstack image show ID",),
    ),
    NEUTRON_SERVER: Duty(
        "makes the ports, binds them to the host, and tells nova when they are plugged",
        "no free address, no agent on the host can bind the port, an agent is down, a slow database",
        "/var/log/neutron/neutron-server.log, and its agent's log on the host",
        ("openstack port list --server ID --long", "openstack network agent list"),
    ),
    CINDER_API: Duty(
        "takes requests for volumes and attachments",
        "the volume is not available, its quota is used up, cinder-volume does not answer",
        "/var/log/cinder/cinder-api.log",
        ("openstack volume show ID", "openstack volume attachment list"),
    ),
    CINDER_SCHEDULER: Duty(
        "chooses the backend of a volume",
        "no backend has room or fits the volume's type",
        "/var/log/cinder/cinder-scheduler.log",
        ("openstack volume backend pool list --long",),
    ),
    CINDER_VOLUME: Duty(
        "makes volumes at the backend and connects hosts to them",
        "the backend does not answer or is full, it is cut off from RabbitMQ",
        "/var/log/cinder/cinder-volume.log",
        ("openstack volume service list",),
    ),
    PLACEMENT: Duty(
        "counts the resources of each host, and claims them for a VM",
        "claims of VMs that are gone, an inventory that is wrong, two claims at the same time (409)",
        "/var/log/placement/placement-api.log",
        ("openstack resource provider usage show HOST", "openstack resource provider allocation show ID"),
    ),
    DATABASE: Duty(
        "holds the state of all services",
        "down, read-only, full, locks held too long, no connection left, a cluster without quorum",
        "the database's error log, on its host",
        ("SHOW FULL PROCESSLIST", "SHOW STATUS LIKE 'wsrep%'"),
    ),
    VRM: Duty(
        "FusionCompute's manager of hosts: makes and starts the VM",
        "no room on the datastore, a wrong template, an expired session, a task that never ends",
        "the VRM's list of tasks, and its log",
    ),
    BROKER: Duty(
        "passes the messages between the services",
        "memory or disk alarm (publishers are blocked), a queue without consumer, a partition, reply queues"
        " that expired",
        "/var/log/rabbitmq/rabbit@HOST.log",
        ("rabbitmqctl list_queues name messages consumers", "rabbitmqctl list_alarms"),
    ),
}
"""Role -> its duty."""
