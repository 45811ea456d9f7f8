"""A synthetic cloud: the addresses of its services, and the traffic between them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tracer.testing.messages import (
    ack,
    amqp_set_up,
    deliver,
    envelope,
    mysql_login,
    nack,
    nova_object,
    publish,
    request,
    response,
    returned,
)
from tracer.testing.packets import Connection, Network

PORTS = {
    "sc": 8080,
    "keystone": 5000,
    "nova-api": 8774,
    "glance-api": 9292,
    "neutron-server": 9696,
    "cinder-api": 8776,
    "placement": 8778,
    "db": 3306,
    "rabbitmq": 5672,
    "vrm": 7070,
}
PROJECT = "e114495f4b7d49c18a052454413cd3db"
IMAGE = "ccf1cf31-0691-4195-bd27-1b7a43b71501"
NETWORK = "1e645f04-3324-489c-a24f-f90f662730a3"
VOLUME = "99b49bd1-d802-4696-9109-16f736970e2d"
FLAVOR = "bdd2ed93-b163-4b59-bcae-0e4f91d614dc"
SITE = "/service/sites/43BC08E8"
TOKEN = "gAAAAABrApGcfnwBgTWZ4gHfkGMiWo4Q-PimsH0htKDWZFSWGzmNivt-YUevfQZc"
SECRETS = {
    "token": TOKEN,
    "admin password": "Adm1n-Pass-Word",
    "user data": "IyEvYmluL3NoIGVjaG8gaHVzaC1odXNo",
    "portal password": "portal-Pass-9",
    "service password": "service-Pass-7",
    "key of the VRM": "vrm-Key-5",
    "session of the VRM": "fbe376d545eb42a6b0313075411c981b",
    "volume password": "chap-Pass-3",
    "broker password": "broker-password",
}
QUOTA_TEXT = "Quota exceeded for instances: Requested 1, but already used 1 of 1 instances"
NO_HOST = "No valid host was found. There are not enough hosts available."
QUOTA_READS = (
    "SELECT project_user_quotas.resource AS project_user_quotas_resource, project_user_quotas.hard_limit "
    f"AS project_user_quotas_hard_limit \nFROM project_user_quotas \nWHERE project_id = '{PROJECT}'",
    "SELECT count(instances.id) AS count_1, sum(instances.vcpus) AS sum_1 \nFROM instances \n"
    f"WHERE instances.project_id = '{PROJECT}'",
    "SELECT quotas.id AS quotas_id, quotas.hard_limit AS quotas_hard_limit \nFROM quotas \n"
    f"WHERE quotas.project_id = '{PROJECT}'",
    "SELECT quota_classes.id AS quota_classes_id \nFROM quota_classes \nWHERE class_name = 'default'",
)
PROXY_PAGE = b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available.\n</body></html>"


# --- where everything is ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """The addresses of a cloud's services, and the capture points that see them."""

    address: Mapping[str, str]
    front: str = ""
    """The inner address of the proxy, if services call each other through it."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """address -> host, for capture points on hosts; empty: a tap for each plane."""
    taps: bool = True
    named: bool = True
    """Whether the capture holds the opening of connections, which names their programs."""

    def points(self, a: str, b: str) -> Sequence[str]:
        """Return the names of the capture points that see a packet between the addresses *a* and *b*."""
        plane = "External_api" if a.startswith("10.10.") and b.startswith("10.10.") else "Internal_base"
        if not self.hosts:
            return (plane,)
        hosts = dict.fromkeys((self.hosts[a], self.hosts[b]))
        if self.taps:
            return (plane,) if len(hosts) > 1 else ()
        return [f"{host}-any" for host in hosts if host.startswith(("ctl", "compute", "sc"))]


_INSIDE = {
    "lb": "172.28.0.20",
    "nova-api": "172.28.0.11",
    "nova-api-2": "172.28.0.12",
    "nova-conductor": "172.28.0.21",
    "nova-scheduler": "172.28.0.22",
    "compute1": "172.28.0.31",
    "compute2": "172.28.0.32",
    "compute3": "172.28.0.33",
    "keystone": "172.28.0.41",
    "placement": "172.28.0.42",
    "glance-api": "172.28.0.43",
    "neutron-server": "172.28.0.44",
    "cinder-api": "172.28.0.45",
    "db": "172.28.0.51",
    "rabbitmq": "172.28.0.52",
    "vrm": "172.28.0.61",
}
_OUTSIDE = {
    "admin": "10.10.0.5",
    "sc": "10.10.0.10",
    "lb-outside": "10.10.0.20",
    "nova-api-outside": "10.10.0.11",
    "keystone-outside": "10.10.0.41",
}
SPREAD = Layout(_OUTSIDE | _INSIDE)
"""Each service has its own address; there is a tap for each plane."""
_ELSEWHERE = {"compute1", "compute2", "compute3", "vrm"}
_TOGETHER = {role: a if role in _ELSEWHERE else "172.28.0.10" for role, a in _INSIDE.items()}
_HOSTS = {a: "ctl" for a in ("10.10.0.20", "172.28.0.9", "172.28.0.10")} | {
    "10.10.0.5": "admin",
    "10.10.0.10": "sc",
    "172.28.0.31": "compute1",
    "172.28.0.32": "compute2",
    "172.28.0.33": "compute3",
    "172.28.0.61": "vrm",
}
COLOCATED = Layout(_OUTSIDE | _TOGETHER, "172.28.0.9", _HOSTS, taps=False, named=False)
"""One controller behind a virtual address; captured on the hosts, with connections opened before."""
COLOCATED_TAPS = Layout(_OUTSIDE | _TOGETHER, "172.28.0.9", _HOSTS, taps=True, named=False)
"""The same controller captured by taps: traffic inside the controller is not seen."""


class Cloud:
    """The services of a cloud and their long-lived connections; its methods write traffic to `network`."""

    def __init__(self, layout: Layout = SPREAD, *, portal: bool = True, proxy: bool = True) -> None:
        """Make a cloud without traffic.

        Without a *portal* the administrator's command line asks the cloud itself; without a *proxy* every
        client asks the services themselves, at their addresses outside.
        """
        self.layout, self.portal, self.proxy = layout, portal, proxy
        self.network = Network(layout.points)
        self.address = layout.address
        self._amqp: dict[tuple[str, str], Connection] = {}
        self._tags = 0
        self._published = 0

    # --- REST ---

    def rest(
        self,
        at: float,
        caller: str,
        callee: str,
        method: str,
        target: str,
        status: int | str = 200,
        *,
        took: float = 0.01,
        agent: str = "python-requests/2.28.1",
        token: str = TOKEN,
        request_id: str = "",
        headers: Mapping[str, str] | None = None,
        body: Any = None,
        answer: Any = None,
        answer_headers: Mapping[str, str] | None = None,
        plane: str | None = None,
    ) -> None:
        """Write one call between services.

        *status* is a number, refused, unanswered (the connection is closed) or silent (it is left open).
        """
        sent = {"User-Agent": agent, "Accept": "application/json"}
        if token:
            sent["X-Auth-Token"] = token
        if request_id:
            sent["X-OpenStack-Request-ID"] = request_id
        sent |= headers or {}
        back = {"X-OpenStack-Request-ID": self.fresh_id("req-")} if callee not in ("vrm", "sc") else {}
        back |= answer_headers or {}
        a, b, port = self.address[caller], self.address[callee], PORTS[callee]
        front = self.layout.front
        if not front or callee in ("vrm", "sc"):
            self._leg(at, a, b, port, method, target, status, took, sent, body, back, answer, plane)
            return
        # Through the virtual address; who is on its host has it as its own address.
        outer = front if a == b else a
        inner = sent | {"X-Forwarded-For": outer, "Host": f"{front}:{port}"}
        shown = status
        if status == "refused":
            shown, answer, back = 503, PROXY_PAGE, {"Content-Type": "text/html"}
        self._leg(at, outer, front, port, method, target, shown, took, sent, body, back, answer, plane)
        self._leg(
            at + 0.001,
            b,
            b,
            port,
            method,
            target,
            status,
            max(took - 0.002, 0.001),
            inner,
            body,
            back,
            answer,
            plane,
        )

    def _leg(
        self,
        at: float,
        client: str,
        server: str,
        port: int,
        method: str,
        target: str,
        status: int | str,
        took: float,
        headers: Mapping[str, str],
        body: Any,
        answer_headers: Mapping[str, str],
        answer: Any,
        plane: str | None = None,
    ) -> None:
        points = (plane,) if plane else None
        if status == "refused":
            for n in range(2):
                self.network.refuse(at + n * took / 2, client, server, port, points)
            return
        made = self.network.connection(client, server, port, at - 0.0003, points)
        made.say(at, request(method, target, {"Host": f"{server}:{port}"} | dict(headers), body))
        if status == "silent":
            return
        if status == "unanswered":
            made.close(at + took, by=0)
            return
        assert isinstance(status, int)
        made.hear(at + took, response(status, dict(answer_headers), answer))
        made.close(at + took + 0.0001)

    def from_outside(
        self,
        at: float,
        service: str,
        method: str,
        target: str,
        status: int | str,
        took: float,
        *,
        token: str = TOKEN,
        body: Any = None,
        answer: Any = None,
        answer_headers: Mapping[str, str] | None = None,
        legs: str = "both",
        outside: str | None = None,
        api: str = "nova-api",
    ) -> None:
        """Write a call of the SC through the proxy; *legs*: both, outer (the proxy answers itself), inner.

        In a cloud without a portal or a proxy: of the administrator, or to the service itself.
        """
        port, front = PORTS[service], self.address["lb-outside" if self.proxy else f"{service}-outside"]
        legs = legs if self.proxy else "outer"
        agent = "python-requests/2.28.1"
        if not self.portal:
            agent = "openstacksdk/0.101.0 keystoneauth1/5.0.0 python-requests/2.28.1 CPython/3.11.2"
        sent = {"User-Agent": agent, "Accept": "application/json"}
        sent |= {"X-Auth-Token": token} if token else {}
        back = dict(answer_headers or {"X-OpenStack-Request-ID": self.fresh_id("req-")})
        if self.proxy and legs == "outer" and answer is None and isinstance(status, int) and status >= 500:
            answer, back = PROXY_PAGE, {"Content-Type": "text/html"}
        sc = self.address["sc" if self.portal else "admin"]
        if legs != "inner":
            self._leg(at, sc, front, port, method, target, status, took, sent, body, back, answer, outside)
        if legs != "outer":
            inner = {k.lower(): v for k, v in sent.items()} | {
                "host": f"{front}:{port}",
                "x-forwarded-for": sc,
            }
            behind = self.address[api if service == "nova-api" else service]
            took = max(took - 0.001, 0.001)
            self._leg(
                at + 0.0005,
                self.address["lb"],
                behind,
                port,
                method,
                target,
                status,
                took,
                inner,
                body,
                back,
                answer,
            )

    # --- the broker ---

    def publisher(self, role: str) -> Connection:
        """Return the broker connection on which *role* publishes."""
        return self._standing(role, "publish", ())

    def consumer(self, role: str) -> Connection:
        """Return the broker connection on which *role* consumes its topic, its fanout and its replies."""
        topic = {"nova-conductor": "conductor", "nova-scheduler": "scheduler"}.get(role, f"compute.{role}")
        return self._standing(
            role, "consume", (topic, topic.partition(".")[0] + "_fanout_aa", f"reply_{role}")
        )

    def _standing(self, role: str, what: str, queues: Sequence[str]) -> Connection:
        key = (role, what)
        if key not in self._amqp:
            named = self.layout.named
            port = PORTS["rabbitmq"]
            made = self.network.connection(
                self.address[role], self.address["rabbitmq"], port, at=0.0 if named else None
            )
            if named:
                program = "nova-compute" if role.startswith("compute") else role
                amqp_set_up(made, 0.01, "nova-api" if role.startswith("nova-api") else program, queues)
            self._amqp[key] = made
        return self._amqp[key]

    def rpc(
        self,
        at: float,
        caller: str,
        consumer: str,
        exchange: str,
        key: str,
        body: bytes,
        fate: str = "ok",
    ) -> None:
        """Write one message. *fate*: ok, undelivered, unacked, unroutable, nacked, redelivered."""
        self._tags += 1
        self._published += 1
        made = self.publisher(caller)
        made.say(at, publish(exchange, key, body))
        if fate == "nacked":
            made.hear(at + 0.0003, nack(self._published))
            return
        if fate == "unroutable":
            made.hear(at + 0.0002, returned(exchange, key, body))
        made.hear(at + 0.0003, ack(self._published))
        if fate in ("unroutable", "undelivered"):
            return
        taker = self.consumer(consumer)
        taker.hear(at + 0.0005, deliver(exchange, key, body, self._tags))
        if fate == "redelivered":
            self._tags += 1
            taker.hear(at + 0.0008, deliver(exchange, key, body, self._tags, redelivered=True))
        if fate != "unacked":
            taker.say(at + 0.001, ack(self._tags))

    def notify(self, at: float, host: str, event: str, payload: dict[str, Any], request_id: str) -> None:
        """Write a notification of a host's nova-compute, which nobody takes from its queue."""
        publisher = f"nova-compute:{host}" if "nova_object.name" in payload else f"compute.{host}"
        body = envelope(
            {
                "message_id": self.fresh_id(),
                "publisher_id": publisher,
                "event_type": event,
                "priority": "ERROR",
                "payload": payload,
                "timestamp": "2026-11-22 06:48:21",
                "_unique_id": self.fresh_id().replace("-", ""),
                "_context_request_id": request_id,
                "_context_project_id": PROJECT,
            }
        )
        self.rpc(at, host, host, "nova", "versioned_notifications.error", body, "undelivered")

    # --- the database ---

    def database(self, role: str, at: float) -> Connection:
        """Return a new connection of *role* to the database, with its login if connections are named."""
        named = self.layout.named
        made = self.network.connection(
            self.address[role], self.address["db"], PORTS["db"], at - 0.01 if named else None
        )
        if named:
            mysql_login(made, at - 0.009, "nova_api", program_name=role)
        return made

    # --- noise ---

    def background(self, since: float, until: float, every: float = 10.0) -> None:
        """Write unrelated traffic on all planes: health checks, look-ups of the SC, reports of services."""
        at, number = since, 0
        while at <= until:
            number += 1
            token = f"gAAAAABbackground{number:04d}xxxxxxxxxxxxxxxxxxxx"
            if self.proxy:
                ends = self.address["lb"], self.address["nova-api"]
                self._leg(at, *ends, 8774, "GET", "/", 300, 0.002, {}, None, {}, None)
            self.from_outside(at + 0.1, "nova-api", "GET", "/v2.1/flavors", 200, 0.02, token=token)
            body = self.message(
                "object_action",
                {
                    "objinst": nova_object("Service", binary="nova-compute", host="compute1"),
                    "objmethod": "save",
                },
                self.fresh_id("req-"),
                call="compute1",
            )
            self.rpc(at + 0.2, "compute1", "nova-conductor", "nova", "conductor", body)
            self.rest(
                at + 0.3,
                "compute1",
                "placement",
                "GET",
                f"/resource_providers/{self.fresh_id()}/allocations",
                200,
                agent="nova-compute keystoneauth1/5.0.0",
                token=token,
                answer={"allocations": {}},
            )
            at += every

    @staticmethod
    def fresh_id(prefix: str = "") -> str:
        """Return a UUID after *prefix*, another one at each call and the same ones in each run."""
        Cloud._ids += 1
        return prefix + str(uuid.UUID(int=(Cloud._ids * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128)))

    _ids = 0

    def message(
        self, method: str, args: dict[str, Any], request_id: str, call: str = "", msg_id: str = ""
    ) -> bytes:
        """Return the body of an oslo.messaging request; *call*: the role that waits for the reply."""
        message: dict[str, Any] = {"method": method, "args": args, "version": "6.0"}
        if call:
            msg_id = msg_id or self.fresh_id().replace("-", "")
            message |= {"_msg_id": msg_id, "_reply_q": f"reply_{call}", "_timeout": None}
        message["_unique_id"] = self.fresh_id().replace("-", "")
        return envelope(
            message
            | {
                "_context_request_id": request_id,
                "_context_global_request_id": None,
                "_context_project_id": PROJECT,
                "_context_auth_token": TOKEN,
            }
        )

    def reply(self, msg_id: str, result: Any = None, failure: str | None = None) -> bytes:
        """Return the body of the oslo.messaging reply to the request *msg_id*."""
        ids = {"_msg_id": msg_id, "_unique_id": self.fresh_id().replace("-", "")}
        return envelope({"result": result, "failure": failure, "ending": True} | ids)
