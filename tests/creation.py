"""The traffic of whole creations, steps 1 to 8c, as nova sends it; each step can be broken.

    cloud = Cloud(SPREAD)
    Creation(cloud, at=100, breaks={"4c": "403"}).run()
    cloud.background(0, 300)
    cloud.network.write(folder)

What a break does is said in `Creation`, beside the step that it breaks. "left out": the message is never
sent, and all goes on as if it had been.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from traffic import (
    Connection,
    Network,
    ack,
    amqp_set_up,
    deliver,
    envelope,
    mysql_login,
    nack,
    nova_object,
    publish,
    query,
    request,
    response,
    returned,
    sql_error,
    sql_ok,
    sql_rows,
)

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
    """Addresses, and what the capture points see of them."""

    address: Mapping[str, str]
    front: str = ""
    """The proxy's inner address, when services call each other through it."""
    hosts: Mapping[str, str] = field(default_factory=dict)
    """address -> host, for capture points on hosts; without it there is a tap for each plane."""
    taps: bool = True
    named: bool = True
    """Whether connections are set up in the capture, and so name their programs."""

    def points(self, a: str, b: str) -> Sequence[str]:
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
_OUTSIDE = {"admin": "10.10.0.5", "sc": "10.10.0.10", "lb-outside": "10.10.0.20"}
SPREAD = Layout(_OUTSIDE | _INSIDE)
"""An address for each service, a tap for each plane."""
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
"""One controller behind a virtual address; captured on its hosts, long after it was started."""
COLOCATED_TAPS = Layout(_OUTSIDE | _TOGETHER, "172.28.0.9", _HOSTS, taps=True, named=False)
"""The same, seen by taps only: what stays on the controller is not seen."""


class Cloud:
    """Services and their standing connections."""

    def __init__(self, layout: Layout = SPREAD) -> None:
        self.layout = layout
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
        """One call between services; *status* may be refused, unanswered (closed) or silent (left open)."""
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
        """The SC's call through the proxy; *legs*: both, outer (the proxy answers by itself), inner."""
        port, front = PORTS[service], self.address["lb-outside"]
        sent = {"User-Agent": "python-requests/2.28.1", "Accept": "application/json"}
        sent |= {"X-Auth-Token": token} if token else {}
        back = dict(answer_headers or {"X-OpenStack-Request-ID": self.fresh_id("req-")})
        if legs == "outer" and answer is None and isinstance(status, int) and status >= 500:
            answer, back = PROXY_PAGE, {"Content-Type": "text/html"}
        sc = self.address["sc"]
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
        return self._standing(role, "publish", ())

    def consumer(self, role: str) -> Connection:
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
        """One message. *fate*: ok, undelivered, unacked, unroutable, nacked, redelivered."""
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

    # --- the database ---

    def database(self, role: str, at: float) -> Connection:
        """A connection of *role* to the database."""
        named = self.layout.named
        made = self.network.connection(
            self.address[role], self.address["db"], PORTS["db"], at - 0.01 if named else None
        )
        if named:
            mysql_login(made, at - 0.009, "nova_api", program_name=role)
        return made

    # --- noise ---

    def background(self, since: float, until: float, every: float = 10.0) -> None:
        """Health checks of the proxy, look-ups of the SC, reports of the services: on all planes, all the time."""
        at, number = since, 0
        while at <= until:
            number += 1
            token = f"gAAAAABbackground{number:04d}xxxxxxxxxxxxxxxxxxxx"
            self._leg(
                at,
                self.address["lb"],
                self.address["nova-api"],
                8774,
                "GET",
                "/",
                300,
                0.002,
                {},
                None,
                {},
                None,
            )
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
        Cloud._ids += 1
        return prefix + str(uuid.UUID(int=(Cloud._ids * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128)))

    _ids = 0

    def message(
        self, method: str, args: dict[str, Any], request_id: str, call: str = "", msg_id: str = ""
    ) -> bytes:
        """A request of oslo.messaging; *call*: who waits for the reply."""
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
        ids = {"_msg_id": msg_id, "_unique_id": self.fresh_id().replace("-", "")}
        return envelope({"result": result, "failure": failure, "ending": True} | ids)


# --- one creation -----------------------------------------------------------------------------------


class Creation:
    """One request for one or more VMs.

    *breaks*: step -> what goes wrong there. *hosts*: for each VM the hosts that are asked in turn, each
    with its own breaks of steps 7 to 8c; a host without the last word of success is followed by the next.
    *on*: step -> plane on which it is seen. *ends*: how its success shows (saved, poll, nothing).
    """

    def __init__(
        self,
        cloud: Cloud,
        at: float = 100.0,
        name: str = "web-1",
        breaks: Mapping[str, str] | None = None,
        hosts: Sequence[Mapping[str, Mapping[str, str]]] = ({"compute1": {}},),
        on: Mapping[str, str] | None = None,
        *,
        ends: str = "saved",
        volume: bool = False,
        api: str = "nova-api",
        token: str = TOKEN,
        polls: bool = True,
    ) -> None:
        self.cloud, self.now, self.name, self.token = cloud, at, name, token
        self.breaks, self.on = dict(breaks or {}), dict(on or {})
        self.hosts = hosts
        self.ends, self.volume, self.api, self.polls = ends, volume, api, polls
        self.request_id = cloud.fresh_id("req-")
        self.server_ids = [cloud.fresh_id() for _ in hosts]
        self.states = ["BUILD" for _ in hosts]
        self.outer_ends = 0.0
        self._db: dict[str, Connection] = {}

    def run(self) -> Creation:
        self.step_1()
        return self

    def wait(self, seconds: float = 0.01) -> float:
        self.now += seconds
        return self.now

    def broken(self, step: str) -> str:
        return self.breaks.get(step, "")

    # --- 1, 2, 3 ---

    def step_1(self) -> None:
        """403: the SC refuses by itself. "silent": it never answers. "login 503": it gets no token."""
        cloud, begun, how = self.cloud, self.now, self.broken("1")
        body = {"name": self.name, "image": IMAGE, "network": NETWORK, "password": SECRETS["portal password"]}
        status: int | str = 202
        answer: Any = {"orderId": "7988585352804cc1b23b70f1afd9bef4", "status": "processing"}
        if how == "403":
            self.wait(0.05)
            status, answer = 403, {"error": "the order is not allowed"}
        elif how == "login 503":
            login = {"auth": {"identity": {"password": {"user": {"password": SECRETS["service password"]}}}}}
            cloud.from_outside(
                self.wait(),
                "keystone",
                "POST",
                "/v3/auth/tokens",
                503,
                0.01,
                token="",
                body=login,
                legs="outer",
            )
            self.wait(0.05)
            status, answer = 502, {"error": "cannot log in"}
        else:
            self.log_in()
            refusal = self.step_2()
            if refusal == "silent":
                status = "silent"
            elif refusal:
                status, answer = int(refusal), {"error": "the cloud refused"}
            else:
                answer["servers"] = dict.fromkeys(self.server_ids, "BUILD")
        self.outer_ends = max(self.now, self.outer_ends)
        if how != "left out":
            took = self.outer_ends + 0.03 - begun
            cloud.rest(
                begun,
                "admin",
                "sc",
                "POST",
                "/sc/cloudhosts",
                status,
                took=took,
                token="",
                body=body,
                headers={"Cookie": "JSESSIONID=ab3aa03758bb427a89e39745182aee25"},
                answer=answer,
                plane=self.on.get("1"),
            )

    def log_in(self) -> None:
        login = {"auth": {"identity": {"password": {"user": {"password": SECRETS["service password"]}}}}}
        self.cloud.from_outside(
            self.wait(),
            "keystone",
            "POST",
            "/v3/auth/tokens",
            201,
            0.04,
            token="",
            body=login,
            answer={"token": {"project": {"id": PROJECT}}},
            answer_headers={"X-Subject-Token": self.token},
        )
        self.wait(0.06)

    def step_2(self) -> str:
        """Return the status with which the cloud refused, or nothing.

        "3": "503": the proxy answers by itself. "2", "3": "left out": that leg.
        """
        cloud, begun = self.cloud, self.wait()
        server: dict[str, Any] = {
            "name": self.name,
            "flavorRef": FLAVOR,
            "networks": [{"uuid": NETWORK}],
            "imageRef": IMAGE,
            "adminPass": SECRETS["admin password"],
            "user_data": SECRETS["user data"],
        }
        if len(self.server_ids) > 1:
            server |= {"min_count": len(self.server_ids), "max_count": len(self.server_ids)}
        how = self.broken("3")
        if how in ("503", "504"):
            took = 0.01 if how == "503" else 50.0
            cloud.from_outside(
                begun,
                "nova-api",
                "POST",
                "/v2.1/servers",
                int(how),
                took,
                body={"server": server},
                legs="outer",
                token=self.token,
            )
            self.wait(took + 0.01)
            return how
        status, fault = self.step_4(begun)
        self.outer_ends = max(self.outer_ends, self.now)
        answered = {"X-OpenStack-Request-ID": self.request_id, "X-Compute-Request-ID": self.request_id}
        answer: Any = fault
        if status == 202:
            first = self.server_ids[0]
            answered["Location"] = f"http://10.10.0.20:8774/v2.1/servers/{first}"
            answer = {"server": {"id": first, "adminPass": SECRETS["admin password"]}}
        took = self.ended - begun
        legs = "both"
        if self.broken("2") == "left out":
            legs = "inner"
        if how == "left out":
            legs = "outer"
        cloud.from_outside(
            begun,
            "nova-api",
            "POST",
            "/v2.1/servers",
            status,
            took,
            body={"server": server},
            answer=answer,
            answer_headers=answered,
            legs=legs,
            token=self.token,
            outside=self.on.get("2"),
            api=self.api,
        )
        return "" if status == 202 else str(status)

    # --- 4 ---

    def step_4(self, begun: float) -> tuple[int | str, Any]:
        """Run everything from nova-api on; return how it answers."""
        self.now = begun + 0.002
        for step in (self.step_4a, self.step_4b, self.step_4c, self.step_4d, self.step_4e):
            status, fault = step()
            if status != 202:
                self.ended = self.wait(0.01)
                return status, fault
        self.ended = self.wait(0.005)
        if self.broken("4e") == "silence":
            return 202, None
        if self.broken("4e") not in ("undelivered", "unroutable 202", "unacked", "stop"):
            self.conduct()
        elif self.polls:
            self.poll_all(1, 11)
        return 202, None

    def step_4a(self) -> tuple[int | str, Any]:
        """cached; refused, 503, unanswered: keystone; 404: of keystone, then 401."""
        how = self.broken("4a")
        if how in ("cached", "left out"):
            return 202, None
        status: int | str = int(how) if how.isdigit() else how or 200
        self.cloud.rest(
            self.wait(),
            self.api,
            "keystone",
            "GET",
            "/v3/auth/tokens",
            status,
            took=0.02,
            token="gAAAAABservice-own-token",
            agent="python-keystoneclient",
            headers={"X-Subject-Token": self.token},
            answer={"token": {"project": {"id": PROJECT}}}
            if status == 200
            else {"error": {"message": "Could not find token"}},
            plane=self.on.get("4a"),
        )
        self.wait(0.03)
        if status == 404:
            return 401, {
                "error": {"code": 401, "message": "The request you have made requires authentication."}
            }
        if status != 200:
            return 503, {"message": "The server is currently unavailable. Please try again at a later time."}
        return 202, None

    def step_4b(self) -> tuple[int | str, Any]:
        """400: a message that is not legitimate; 403: policy; glance 404; neutron refused, neutron 503; left out."""
        how = self.broken("4b")
        if how == "left out":
            return 202, None
        if how == "400":
            self.wait(0.02)
            return 400, {"badRequest": {"code": 400, "message": "Invalid input for field/attribute name."}}
        glance: int | str = 404 if how == "glance 404" else "refused" if how == "glance refused" else 200
        self.look_up("glance-api", f"/v2/images/{IMAGE}", "python-glanceclient", glance, {"id": IMAGE})
        if glance == 404:
            return 400, {"badRequest": {"code": 400, "message": f"Can not find requested image {IMAGE}"}}
        if glance == "refused":
            return 500, {"computeFault": {"code": 500, "message": "Unexpected API Error."}}
        neutron: int | str = 200
        if how.startswith("neutron "):
            neutron = int(how[8:]) if how[8:].isdigit() else how[8:]
        self.look_up(
            "neutron-server",
            f"/v2.0/networks?id={NETWORK}",
            "python-neutronclient",
            neutron,
            {"networks": []},
        )
        if neutron != 200:
            return 500, {"computeFault": {"code": 500, "message": "Unexpected API Error."}}
        self.look_up("neutron-server", f"/v2.0/quotas/{PROJECT}", "python-neutronclient", 200, {"quota": {}})
        if how == "403":
            return 403, {
                "forbidden": {"code": 403, "message": "Policy doesn't allow os_compute_api:servers:create"}
            }
        return 202, None

    def look_up(self, callee: str, target: str, agent: str, status: int | str, answer: Any) -> None:
        self.cloud.rest(
            self.wait(),
            self.api,
            callee,
            "GET",
            target,
            status,
            agent=agent,
            request_id=self.request_id,
            answer=answer,
            token=self.token,
            plane=self.on.get("4b"),
        )
        self.wait(0.015)

    def sql(self, role: str, text: str, error: tuple[int, str] | None = None) -> None:
        if role not in self._db:
            self._db[role] = self.cloud.database(role, self.now)
        made, at = self._db[role], self.wait(0.002)
        made.say(at, query(text))
        answer = sql_rows("10") if text.startswith("SELECT") else sql_ok()
        made.hear(at + 0.0005, answer if error is None else sql_error(*error))

    def step_4c(self) -> tuple[int | str, Any]:
        """403; error: of the database; left out; "lost": sent and not captured."""
        how = self.broken("4c")
        if how == "left out":
            return 202, None
        for n, text in enumerate(QUOTA_READS):
            if how == "error" and n == 1:
                self.sql(self.api, text, (2013, "Lost connection to MySQL server during query"))
                return 500, {"computeFault": {"code": 500, "message": "Unexpected API Error."}}
            if how == "lost":
                made, at = (
                    self._db.setdefault(self.api, self.cloud.database(self.api, self.now)),
                    self.wait(0.002),
                )
                made.say(at, query(text), lost=True)
                made.hear(at + 0.0005, sql_rows("10"), lost=True)
                continue
            self.sql(self.api, text)
        self.wait(0.005)
        if how == "403":
            return 403, {"forbidden": {"code": 403, "message": QUOTA_TEXT}}
        return 202, None

    def step_4d(self) -> tuple[int | str, Any]:
        """error: of the database; left out."""
        how = self.broken("4d")
        if how == "left out":
            return 202, None
        for server_id in self.server_ids:
            spec = json.dumps(
                {"user_data": SECRETS["user data"], "admin_password": SECRETS["admin password"]}
            )
            error = (
                (1205, "Lock wait timeout exceeded; try restarting transaction") if how == "error" else None
            )
            self.sql(
                self.api,
                f"INSERT INTO request_specs (created_at, instance_uuid, spec) VALUES (NOW(), '{server_id}', '{spec}')",
                error,
            )
            if error:
                return 500, {"computeFault": {"code": 500, "message": "Unexpected API Error."}}
            for table in ("build_requests", "instance_mappings"):
                self.sql(
                    self.api,
                    f"INSERT INTO {table} (instance_uuid, project_id) VALUES ('{server_id}', '{PROJECT}')",
                )
        return 202, None

    def step_4e(self) -> tuple[int | str, Any]:
        """refused (500), refused silent (no answer); unroutable (500), unroutable 202; nacked (500);
        undelivered, unacked; stop: acknowledged, then nothing; left out."""
        cloud, how, at = self.cloud, self.broken("4e"), self.wait()
        fault = {"computeFault": {"code": 500, "message": "Unexpected API Error."}}
        if how.startswith("refused"):
            for n in range(3):
                cloud.network.refuse(at + n, cloud.address[self.api], cloud.address["rabbitmq"], 5672)
            self.wait(3.5)
            return ("silent", None) if how == "refused silent" else (500, fault)
        if how == "left out":
            return 202, None
        specs = [nova_object("RequestSpec", instance_uuid=i) for i in self.server_ids]
        args = {
            "build_requests": [nova_object("BuildRequest", instance_uuid=i) for i in self.server_ids],
            "request_specs": specs,
            "admin_password": SECRETS["admin password"],
        }
        body = cloud.message("schedule_and_build_instances", args, self.request_id)
        fate = {"": "ok", "stop": "ok", "unroutable 202": "unroutable"}.get(how, how)
        cloud.rpc(at, self.api, "nova-conductor", "nova", "conductor", body, fate)
        if how in ("unroutable", "nacked"):
            return 500, fault
        return 202, None

    # --- 5, 6 ---

    def conduct(self) -> None:
        """5: undelivered, unacked (nobody answers, vm_state error by time-out); undelivered stop (no error
        either); unroutable; stop (5 is never sent); left out. 6: failure; silent; stop; left out."""
        cloud, five, six = self.cloud, self.broken("5"), self.broken("6")
        if five == "stop":
            self.poll_all(1, 11)
            return
        msg_id = cloud.fresh_id().replace("-", "")
        args = {
            "instance_uuids": self.server_ids,
            "spec_obj": nova_object("RequestSpec", instance_uuid=self.server_ids[0]),
        }
        fate = five.removesuffix(" stop") or "ok"
        if five != "left out":
            ask = cloud.message("select_destinations", args, self.request_id, "nova-conductor", msg_id)
            cloud.rpc(
                self.wait(0.01),
                "nova-conductor",
                "nova-scheduler",
                "nova",
                "scheduler",
                ask,
                fate if fate in ("undelivered", "unacked", "unroutable") else "ok",
            )
        if five.endswith("stop") or six == "stop":
            self.poll_all(1, 11)
            return
        if (fate != "ok" and five != "left out") or six == "silent":
            self.wait(15)
            self.put_in_error(range(len(self.server_ids)))
            return
        failed = six == "failure"
        candidates = {"allocation_requests": [] if failed else [{}, {}], "provider_summaries": {}}
        cloud.rest(
            self.wait(),
            "nova-scheduler",
            "placement",
            "GET",
            "/allocation_candidates?limit=1000",
            200,
            agent="nova-scheduler keystoneauth1/5.0.0",
            request_id=self.request_id,
            answer=candidates,
        )
        self.wait(0.02)
        if six != "left out":
            failure = json.dumps(
                {"class": "NoValidHost_Remote", "module": "nova.exception", "message": NO_HOST}
            )
            chosen = [[nova_object("Selection", service_host=host) for host in tried] for tried in self.hosts]
            told = cloud.reply(msg_id, None if failed else chosen, failure if failed else None)
            cloud.rpc(self.wait(), "nova-scheduler", "nova-conductor", "", "reply_nova-conductor", told)
        if failed:
            self.put_in_error(range(len(self.server_ids)))
            return
        begun, ends = self.now, []
        for number in range(len(self.server_ids)):
            self.now = begun + 0.003 * number
            self.build(number)
            ends.append(self.now)
        self.now = max(ends)

    def put_in_error(self, numbers: Iterable[int]) -> None:
        """nova-conductor gives up: it writes the error itself."""
        for number in numbers:
            server_id = self.server_ids[number]
            self.sql(
                "nova-conductor", f"INSERT INTO instances (uuid, vm_state) VALUES ('{server_id}', 'building')"
            )
            self.sql(
                "nova-conductor",
                f"UPDATE instances SET vm_state='error' WHERE instances.uuid = '{server_id}'",
            )
            self.poll(number, self.now + 0.5, "ERROR")

    # --- 7, 8 ---

    def build(self, number: int) -> None:
        """Ask the hosts of VM *number* in turn."""
        server_id = self.server_ids[number]
        self.sql(
            "nova-conductor", f"INSERT INTO instances (uuid, vm_state) VALUES ('{server_id}', 'building')"
        )
        tried = list(self.hosts[number].items())
        for n, (host, breaks) in enumerate(tried):
            self.breaks |= breaks
            end = self.attempt(number, host)
            for step in breaks:
                del self.breaks[step]
            if end in ("active", "stop"):
                return
            if end == "reschedule":
                instances = [nova_object("Instance", uuid=server_id)]
                body = self.cloud.message("build_instances", {"instances": instances}, self.request_id)
                self.cloud.rpc(self.wait(), host, "nova-conductor", "nova", "conductor", body)
                if n + 1 == len(tried):
                    self.sql(
                        "nova-conductor",
                        f"UPDATE instances SET vm_state='error' WHERE instances.uuid = '{server_id}'",
                    )
                    self.poll(number, self.now + 0.5, "ERROR")
            if end == "abort":
                self.save(host, number, "error")
                self.poll(number, self.now + 0.5, "ERROR")
                return

    def attempt(self, number: int, host: str) -> str:
        """Return what became of it: active, stop, abort (no other host is asked), reschedule.

        7: undelivered, unacked, stop (never sent); left out; silence (acknowledged, then nothing).
        """
        cloud, how, server_id = self.cloud, self.broken("7"), self.server_ids[number]
        if how == "stop":
            self.poll(number, self.now + 11, "BUILD")
            return "stop"
        if how == "error":
            self.put_in_error([number])
            return "stop"
        if how != "left out":
            instance = nova_object("Instance", uuid=server_id, user_data=SECRETS["user data"])
            body = cloud.message("build_and_run_instance", {"instance": instance}, self.request_id)
            cloud.rpc(
                self.wait(),
                "nova-conductor",
                host,
                "nova",
                f"compute.{host}",
                body,
                how if how in ("undelivered", "unacked", "unroutable", "redelivered") else "ok",
            )
        if how in ("undelivered", "unacked", "silence", "unroutable"):
            self.poll(number, self.now + 11, "BUILD")
            return "stop"
        self.wait(0.05)
        self.save(host, number, "building")
        for step in (self.step_8a, self.step_8b, self.step_8c):
            end = step(number, host)
            if end:
                return end
        self.succeed(number, host)
        return "active"

    def compute_call(
        self,
        host: str,
        callee: str,
        method: str,
        target: str,
        status: int | str,
        answer: Any = None,
        *,
        body: Any = None,
        agent: str = "",
        took: float = 0.02,
        step: str = "",
    ) -> bool:
        """A REST call of nova-compute; tell whether it was answered well."""
        self.cloud.rest(
            self.wait(),
            host,
            callee,
            method,
            target,
            status,
            took=took,
            agent=agent,
            body=body,
            answer=answer,
            request_id=self.request_id,
            token=self.token,
            plane=self.on.get(step),
        )
        self.wait(took + 0.005)
        return isinstance(status, int) and status < 400

    @staticmethod
    def status(how: str, good: int) -> int | str:
        return int(how) if how.isdigit() else how or good

    def step_8a(self, number: int, host: str) -> str:
        """500, refused, unanswered: cinder, then the VM is given up; left out."""
        how = self.broken("8a")
        if not self.volume or how == "left out":
            return ""
        attachment = f"/v3/{PROJECT}/attachments/3f40d174-af6d-4fd0-9776-99dfde14a908"
        agent = "python-cinderclient"
        self.compute_call(host, "cinder-api", "GET", f"/v3/{PROJECT}/volumes/{VOLUME}", 200, {}, agent=agent)
        good = self.compute_call(
            host,
            "cinder-api",
            "PUT",
            attachment,
            self.status(how, 200),
            agent=agent,
            step="8a",
            answer={"attachment": {"connection_info": {"auth_password": SECRETS["volume password"]}}}
            if not how
            else {"computeFault": {"message": "cinder is unwell"}},
        )
        return "" if good else "stop" if how == "silent" else "abort"

    def step_8b(self, number: int, host: str) -> str:
        """503, 500, refused, unanswered: neutron, then the VM is given up; silent; left out."""
        how, server_id = self.broken("8b"), self.server_ids[number]
        if how == "left out":
            return ""
        agent, port = "python-neutronclient", self.cloud.fresh_id()
        if how != "refused":
            self.compute_call(
                host, "neutron-server", "GET", f"/v2.0/networks?id={NETWORK}", 200, {}, agent=agent
            )
        good = self.compute_call(
            host,
            "neutron-server",
            "POST",
            "/v2.0/ports",
            self.status(how, 201),
            agent=agent,
            step="8b",
            body={"port": {"device_id": server_id, "network_id": NETWORK}},
            answer={"port": {"id": port}} if not how else {"NeutronError": {"message": "neutron is unwell"}},
        )
        if not good:
            return "stop" if how == "silent" else "abort"
        self.compute_call(
            host,
            "neutron-server",
            "PUT",
            f"/v2.0/ports/{port}",
            200,
            {"port": {"id": port}},
            agent=agent,
            step="8b",
            body={"port": {"binding:host_id": host}},
        )
        self.compute_call(host, "neutron-server", "GET", "/v2.0/floatingips", 404, agent=agent)
        return ""

    def step_8c(self, number: int, host: str) -> str:
        """500, refused, unanswered, task failed: the next host is asked; silent; left out; 401 (a session
        that has run out: logged in again, asked again)."""
        how, server_id = self.broken("8c"), self.server_ids[number]
        if how == "left out":
            return ""
        plane, site, task = self.on.get("8c"), SITE, f"{SITE}/tasks/{100 + number * 10 + len(server_id)}"

        def vrm(
            method: str, target: str, status: int | str, answer: Any, body: Any = None, token: str = ""
        ) -> None:
            self.cloud.rest(
                self.wait(),
                host,
                "vrm",
                method,
                target,
                status,
                took=0.005,
                body=body,
                answer=answer,
                plane=plane,
                token=token or SECRETS["session of the VRM"],
                headers={"X-Auth-User": "gesysman", "X-Auth-Key": SECRETS["key of the VRM"]}
                if "session" in target
                else {},
                answer_headers={"X-Auth-Token": SECRETS["session of the VRM"]} if "session" in target else {},
            )
            self.wait(0.01)

        if how == "refused":
            vrm("POST", f"{site}/vms", "refused", None)
            return "reschedule"
        vrm("POST", "/service/session", 200, {"userName": "gesysman"})
        task, vm = f"{SITE}/tasks/{self.next_number()}", f"{SITE}/vms/i-{self.next_number():08X}"
        made = {"taskUri": task, "uri": vm}
        body = {
            "name": "instance-00000039",
            "uuid": server_id,
            "location": f"urn:sites:43BC08E8:hosts:{host}",
        }
        if how == "401":
            vrm("POST", f"{site}/vms", 401, {"errorDes": "session expired"}, body)
            vrm("POST", "/service/session", 200, {"userName": "gesysman"})
        elif how and how != "task failed":
            vrm(
                "POST",
                f"{site}/vms",
                self.status(how, 202),
                {"errorCode": "1", "errorDes": "the VRM is unwell"},
                body,
            )
            return "stop" if how == "silent" else "reschedule"
        vrm("POST", f"{site}/vms", 202, made, body)
        vrm("GET", task, 200, {"status": "running", "progress": 50})
        self.wait(0.5)
        if how == "task failed":
            vrm("GET", task, 200, {"status": "failed", "reasonDes": "the datastore is full"})
            return "reschedule"
        vrm("GET", task, 200, {"status": "success", "progress": 100})
        vrm("POST", f"{vm}/action/start", 200, made, {})
        return ""

    _numbers = 100

    @classmethod
    def next_number(cls) -> int:
        Creation._numbers += 1
        return Creation._numbers

    # --- the end ---

    def save(self, host: str, number: int, vm_state: str) -> None:
        """Instance.save by way of nova-conductor."""
        server_id = self.server_ids[number]
        args = {
            "objinst": nova_object(
                "Instance",
                id=2,
                vm_state=vm_state,
                task_state=None,
                host=host,
                node=host,
                user_data=None,
                uuid=server_id,
            )
            | {"nova_object.changes": ["vm_state"]},
            "objmethod": "save",
            "args": [],
            "kwargs": {},
        }
        msg_id = self.cloud.fresh_id().replace("-", "")
        body = self.cloud.message("object_action", args, self.request_id, host, msg_id)
        self.cloud.rpc(self.wait(), host, "nova-conductor", "nova", "conductor", body)
        self.sql(
            "nova-conductor",
            f"UPDATE instances SET vm_state='{vm_state}' WHERE instances.uuid = '{server_id}'",
        )
        self.cloud.rpc(
            self.wait(0.005), "nova-conductor", host, "", f"reply_{host}", self.cloud.reply(msg_id)
        )

    def succeed(self, number: int, host: str) -> None:
        if self.ends == "saved":
            self.save(host, number, "active")
        if self.ends in ("saved", "poll"):
            self.poll(number, self.now + 0.3, "ACTIVE")

    def poll(self, number: int, at: float, status: str) -> None:
        """The SC looks at the VM."""
        if not self.polls:
            return
        server_id = self.server_ids[number]
        self.cloud.from_outside(
            at,
            "nova-api",
            "GET",
            f"/v2.1/servers/{server_id}",
            200,
            0.02,
            token=self.token,
            answer={"server": {"id": server_id, "status": status, "tenant_id": PROJECT}},
        )

    def poll_all(self, *after: float) -> None:
        for seconds in after:
            for number in range(len(self.server_ids)):
                self.poll(number, self.now + seconds, "BUILD")
