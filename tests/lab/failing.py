"""Creations in which one service fails in one way, and what nova makes of that: for every service and way.

A fault is met at one call: the service refuses it, answers it badly with a good status, never answers, dies
while it works on it, or a proxy before it answers for it. What follows is what nova does then.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, NamedTuple

import pika.spec

from tracer.testing.cloud import IMAGE, PORTS, PROJECT, SPREAD, VOLUME, Cloud
from tracer.testing.creation import Creation
from tracer.testing.messages import amqp_set_up, method, nova_object, publish, query, request
from tracer.testing.packets import ACK, RST
from tracer.testing.upstream import UpstreamCreation

__all__ = ["FLOWS", "ROWS", "Row", "conversation"]

spec = pika.spec
FLOWS = ("documented", "upstream")
GOOD_AT, AT = 20.0, 100.0
"""A creation that goes well, and the one that fails."""
UNTIL_S = 300
GIVES_UP_S = 60.0
"""How long a proxy waits for the service behind it."""
_TITLES = {
    403: "Forbidden",
    429: "Too Many Requests",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Time-out",
}
FRONTED = replace(SPREAD, front="172.28.0.9")
"""Services call each other through a proxy."""

_UNWELL = "The server has either erred or is incapable of performing the requested operation."
_REFUSALS: dict[str, Any] = {
    "keystone": {"error": {"code": 500, "message": "An unexpected error prevented the server"}},
    "neutron-server": {"NeutronError": {"type": "HTTPInternalServerError", "message": _UNWELL, "detail": ""}},
    "vrm": {"errorCode": "10300001", "errorDes": "the VRM is unwell"},
    "placement": {"errors": [{"status": 500, "title": "Internal Server Error", "detail": _UNWELL}]},
}
"""Service -> the body with which it refuses."""
_PORT = "6c0ffee0-0000-4000-8000-00000000beef"
_BAD: dict[tuple[str, str], Any] = {
    ("keystone", "GET"): {"token": {}},
    ("glance-api", "GET"): {"id": IMAGE, "status": "deactivated"},
    ("neutron-server", "GET"): {"networks": []},
    ("neutron-server", "POST"): {
        "port": {"id": _PORT, "status": "DOWN", "binding:vif_type": "binding_failed"}
    },
    ("cinder-api", "GET"): {"volume": {"id": VOLUME, "status": "error"}},
    ("placement", "GET"): {"allocation_requests": [], "provider_summaries": {}},
}
"""(service, method) -> the body of a good answer that says that nothing is good."""
_SAID = {
    "keystone": (401, "The request you have made requires authentication."),
    "glance-api": (400, f"Image {IMAGE} is not active."),
    "neutron-server": (400, "Network 1e645f04 could not be found."),
    "cinder-api": (400, f"Invalid volume: volume {VOLUME} status must be available."),
    "placement": (403, "Quota exceeded for cores: Requested 1, but already used 20 of 20 cores"),
    "db": (403, "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"),
}
"""Service that nova-api asked -> how nova-api refuses after a good answer with a bad body."""


_FATES = ("undelivered", "unacked", "unroutable", "nacked")


def page(status: int) -> bytes:
    """The page of HAProxy with which it answers by itself."""
    return b"<html><body><h1>%d %s</h1>\nThe proxy says so.\n</body></html>" % (
        status,
        _TITLES[status].encode(),
    )


class Fault(NamedTuple):
    """What fails: *callee*, when *caller* asks it what begins with or holds *asks*; and how."""

    caller: str
    callee: str
    asks: str
    way: str


class Met(Exception):  # no error of ours: what the written service meets
    """The fault was written; what its caller makes of it is written by who catches this."""


class FailingCloud(Cloud):
    """A cloud in which one call meets a fault, once."""

    fault: Fault | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.dead: dict[str, float] = {}
        """Role -> when its process ended, in s."""

    def rest(  # as of Cloud
        self, at: float, caller: str, callee: str, method: str, target: str, *args: Any, **options: Any
    ) -> None:
        fault = self.fault
        if fault is None or (caller, callee) != fault[:2] or fault.asks not in f"{method} {target}":
            super().rest(at, caller, callee, method, target, *args, **options)
            return
        self.fault = None
        way, took = fault.way, 0.02
        if way.startswith("proxy "):
            self._answer_for(at, caller, callee, method, target, int(way[6:]), options)
        else:
            status, answer = _ways(callee, method).get(way, (int(way) if way.isdigit() else way, None))
            options |= {"answer": answer or _REFUSALS.get(callee, {"computeFault": {"message": _UNWELL}})}
            options["took"] = took
            super().rest(at, caller, callee, method, target, status, **options)
        raise Met

    def _answer_for(
        self, at: float, caller: str, callee: str, method: str, target: str, status: int, options: Any
    ) -> None:
        """Write the answer of a proxy before *callee*; *callee* gets no request."""
        server = self.layout.front or self.address[callee]
        named = {"User-Agent": "agent", "X-Auth-Token": "token", "X-OpenStack-Request-ID": "request_id"}
        sent = {name: options[key] for name, key in named.items() if options.get(key)}
        sent |= options.get("headers") or {}
        took = 50.0 if status == 504 else 0.01
        self._leg(
            at, self.address[caller], server, PORTS[callee], method, target, status, took, sent,
            options.get("body"), {"Content-Type": "text/html"}, page(status),
        )  # fmt: skip

    def _leg(self, at: float, client: str, server: str, port: int, *args: Any) -> None:
        method, target, status, took, headers, body = args[:6]
        if status not in ("closes", "resets"):
            super()._leg(at, client, server, port, *args)
            return
        made = self.network.connection(client, server, port, at - 0.0003)
        made.say(at, request_of(method, target, server, port, headers, body))
        if status == "resets":
            made.close(at + took, RST | ACK, by=1)
        else:
            made.close(at + took, by=1)

    def from_outside(  # as of Cloud
        self,
        at: float,
        service: str,
        method: str,
        target: str,
        status: int | str,
        took: float,
        **options: Any,
    ) -> None:
        if service != "nova-api" or method != "POST" or not isinstance(status, str):
            super().from_outside(at, service, method, target, status, took, **options)
            return
        if not self.proxy:
            super().from_outside(at, service, method, target, status, took, **options)
            return
        # The proxy gives a service up that hangs, and answers for one that dies.
        outer = {"hangs": 504, "silent": 504, "closes": 502, "resets": 502}[status]
        waits = GIVES_UP_S if outer == 504 else took
        options = {key: each for key, each in options.items() if key not in ("answer", "answer_headers")}
        super().from_outside(at, service, method, target, outer, waits, **options | {"legs": "outer"})
        inner = "unanswered" if outer == 504 else status
        super().from_outside(at, service, method, target, inner, waits - 0.002, **options | {"legs": "inner"})

    def rpc(  # as of Cloud
        self, at: float, caller: str, consumer: str, exchange: str, key: str, body: bytes, fate: str = "ok"
    ) -> None:
        if at > self.dead.get(caller, at):
            return
        if at > self.dead.get(consumer, at):
            fate = "undelivered"
        fault = self.fault
        asked = fault is not None and caller == fault.caller and fault.callee in (consumer, "rabbitmq")
        if fault is None or not asked or fault.asks.encode() not in body:
            super().rpc(at, caller, consumer, exchange, key, body, fate)
            return
        self.fault = None
        way = fault.way
        if fault.callee == "rabbitmq" and way not in ("unroutable", "nacked"):
            self._lose(at, caller, exchange, key, body, way)
        else:
            super().rpc(at, caller, consumer, exchange, key, body, way if way in _FATES else "ok")
        if way.startswith("dies"):
            self.die(consumer, at + 0.2, 8.0 if way == "dies, comes back" else 0.0)
        raise Met

    def _lose(self, at: float, caller: str, exchange: str, key: str, body: bytes, way: str) -> None:
        """Write a message that RabbitMQ does not take."""
        publisher, ends = self.publisher(caller), (self.address[caller], self.address["rabbitmq"])
        if way == "refused":
            for n in range(3):
                self.network.refuse(at + n, *ends, 5672)
            return
        if way == "blocks":
            publisher.hear(at - 5, method(spec.Connection.Blocked("low on memory"), 0))
        publisher.say(at, publish(exchange, key, body))
        if way == "resets":
            publisher.close(at + 0.02, RST | ACK, by=1)
            self.dead[caller] = at
        elif way == "closes the channel":
            text = "NOT_FOUND - no exchange 'nova' in vhost '/'"
            publisher.hear(at + 0.001, method(spec.Channel.Close(404, text, 60, 40)))
            publisher.say(at + 0.002, method(spec.Channel.CloseOk()))

    def die(self, role: str, at: float, back: float = 0.0) -> None:
        """Write the end of the process of *role*; a new one connects *back* seconds later, if at all."""
        for what in ("publish", "consume"):
            made = self._amqp.get((role, what))
            if made is not None:
                made.close(at, RST | ACK, by=0)
        self.dead[role] = at
        if back:
            program = "nova-compute" if role.startswith("compute") else role
            topic = {"nova-conductor": "conductor", "nova-scheduler": "scheduler"}.get(
                role, f"compute.{role}"
            )
            for queues in ((), (topic, f"reply_new_{role}")):
                made = self.network.connection(self.address[role], self.address["rabbitmq"], 5672, at + back)
                amqp_set_up(made, at + back + 0.01, f"{program}:77", queues)


def request_of(method: str, target: str, server: str, port: int, headers: Any, body: Any) -> bytes:
    """The request of a call between services."""
    return request(method, target, {"Host": f"{server}:{port}"} | dict(headers), body)


def _ways(callee: str, method: str) -> dict[str, tuple[int | str, Any]]:
    """Way -> status and body of the answer."""
    good = {"POST": 201}.get(method, 200)
    return {
        "bad": (good, _BAD.get((callee, method), {})),
        "hangs": ("silent", None),
        "closes": ("closes", None),
        "resets": ("resets", None),
        "refused": ("refused", None),
    }


class _Failing(Creation):
    """A creation that meets the fault of its cloud; and what nova does then."""

    cloud: FailingCloud
    fault: Fault | None = None

    def run(self) -> Creation:
        self.cloud.fault = self.fault
        return super().run()

    def build(self, number: int) -> None:
        """As of Creation, until nova-conductor meets the fault before a host is asked."""
        try:
            super().build(number)
        except Met:
            self.poll(number, self.now + 11, "BUILD")

    # --- nova-api ---

    def step_1(self) -> None:
        """As of Creation; the portal itself may fail, too."""
        if self.fault is None or self.fault.callee != "sc":
            super().step_1()
            return
        body = {"name": self.name, "image": IMAGE, "password": "portal-Pass-9"}
        answer = {"500": {"error": "the portal is unwell"}, "bad": {"orderId": "1", "status": "failed"}}
        way = self.fault.way
        options: dict[str, Any] = {"took": 0.2, "token": "", "body": body, "answer": answer.get(way)}
        status: int | str = {"500": 500, "bad": 202, "hangs": "silent"}.get(way, way)
        if way.startswith("proxy "):
            self.cloud._answer_for(self.now, "admin", "sc", "POST", "/sc/cloudhosts", int(way[6:]), options)
            return
        self.cloud.fault = None
        self.cloud.rest(self.now, "admin", "sc", "POST", "/sc/cloudhosts", status, **options)

    def step_2(self) -> str:
        """As of Creation; and the load balancer may fail. What it says of a dead service is a status."""
        fault = self.fault
        if fault is not None and fault.callee == "lb":
            way, begun = fault.way.removeprefix("proxy "), self.wait()
            status: int | str = {"hangs": "silent"}.get(way, int(way) if way.isdigit() else way)
            address = self.cloud.address
            took = GIVES_UP_S if way == "504" else 0.01
            back, html = {"Content-Type": "text/html"}, page(status) if isinstance(status, int) else b""
            sent = {"User-Agent": "python-requests/2.28.1", "X-Auth-Token": self.token}
            client = address["sc" if self.cloud.portal else "admin"]
            server = {"name": self.name, "imageRef": IMAGE}
            self.cloud._leg(
                begun, client, address["lb-outside"], 8774, "POST", self.path, status, took, sent,
                {"server": server}, back, html,
            )  # fmt: skip
            self.wait(took + 0.01)
            return "silent" if status == "silent" else way if way.isdigit() else "502"
        said = super().step_2()
        if not self.cloud.proxy:
            return said
        self.wait(GIVES_UP_S if said in ("hangs", "silent") else 0)
        return {"hangs": "504", "silent": "504", "closes": "502", "resets": "502"}.get(said, said)

    def step_4(self, begun: float) -> tuple[int | str, Any]:
        """As of Creation, until nova-api meets the fault or fails itself."""
        self.now = begun + 0.002
        try:
            if self.fault is not None and self.fault.callee == "nova-api":
                self.step_4a()
                self.ended = self.wait(0.02)
                way = self.fault.way
                status: int | str = {"500": 500, "bad": 202, "hangs": "silent"}.get(way, way)
                said = {"computeFault": {"code": 500, "message": "Unexpected API Error."}}
                return status, said if status == 500 else None
            return super().step_4(begun)
        except Met:
            assert self.fault is not None
            self.ended = self.wait(0.03)
            return self.met_in_api(self.fault)

    def met_in_api(self, fault: Fault) -> tuple[int | str, Any]:
        """How nova-api answers after it met *fault*."""
        if fault.callee in ("nova-conductor", "rabbitmq") and fault.way not in (
            "nacked",
            "closes the channel",
        ):
            if fault.callee == "nova-conductor" or fault.way == "unroutable":
                self.poll_all(1, 11)
                return 202, None
            self.wait(3)
            return "silent", None
        if fault.way == "hangs":
            return "silent", None
        if fault.way == "proxy 504":
            self.ended = self.wait(50)
        if fault.way in ("bad", "over"):
            code, words = _SAID[fault.callee]
            return code, {"badRequest": {"code": code, "message": words}}
        if fault.callee == "keystone":
            return 503, {"message": "The server is currently unavailable. Please try again at a later time."}
        return 500, {"computeFault": {"code": 500, "message": "Unexpected API Error."}}

    def step_4c(self) -> tuple[int | str, Any]:
        """As of Creation; with unified limits keystone has the limits, and placement the usage."""
        fault = self.fault
        if fault is not None and fault.asks in ("/limits", "/usages"):
            for callee, target in (
                ("keystone", f"/v3/limits?project_id={PROJECT}"),
                ("placement", f"/usages?project_id={PROJECT}"),
            ):
                self.cloud.rest(
                    self.wait(), self.api, callee, "GET", target, 200, agent="python-openstacksdk/1.0",
                    request_id=self.request_id, answer={}, token=self.token,
                )  # fmt: skip
                self.wait(0.02)
            return 202, None
        found = super().step_4c()
        if fault is not None and fault.way == "over" and fault.callee == "db":
            raise Met
        return found

    def step_4b(self) -> tuple[int | str, Any]:
        """As of Creation; a volume is looked up, too."""
        found = super().step_4b()
        if self.volume:
            target = f"/v3/{PROJECT}/volumes/{VOLUME}"
            self.look_up("cinder-api", target, "python-cinderclient", 200, {"volume": {"id": VOLUME}})
        return found

    # --- statements ---

    def sql(self, role: str, text: str, error: tuple[int, str] | None = None) -> None:
        """As of Creation, unless the database fails at this statement."""
        fault = self.cloud.fault
        asked = fault is not None and (role, "db") == fault[:2] and fault.asks in text
        if fault is None or not asked or fault.way == "over":
            super().sql(role, text, error)
            return
        self.cloud.fault = None
        if fault.way == "refused":
            for n in range(2):
                address = self.cloud.address
                self.cloud.network.refuse(self.wait(0.01) + n, address[role], address["db"], 3306)
            self.wait(2)
            raise Met
        if fault.way.isdigit():
            super().sql(
                role, text, (int(fault.way), "Lock wait timeout exceeded; try restarting transaction")
            )
            raise Met
        if role not in self._db:
            self._db[role] = self.cloud.database(role, self.now)
        made, at = self._db.pop(role), self.wait(0.002)
        made.say(at, query(text))
        if fault.way == "resets":
            made.close(self.wait(0.02), RST | ACK, by=1)
        elif fault.way == "closes":
            # A proxy for TCP whose server is gone.
            made.close(self.wait(30), by=1)
        raise Met

    # --- nova-conductor, nova-scheduler ---

    def conduct(self) -> None:
        """As of Creation, until nova-conductor or nova-scheduler meets the fault."""
        try:
            super().conduct()
        except Met:
            assert self.fault is not None
            self.met_in_scheduling(self.fault)

    def met_in_scheduling(self, fault: Fault) -> None:
        """What nova-scheduler, or nova-conductor, does after it met *fault*."""
        asked = self.asked_id()
        if fault.callee not in ("placement", "nova-scheduler"):
            self.poll_all(1, 11)
            return
        if fault.callee == "nova-scheduler" and fault.way in ("refuses", "unsupported"):
            name = "UnsupportedVersion" if fault.way == "unsupported" else "RemoteError"
            failure = json.dumps({"class": name, "module": "m", "message": "the scheduler is unwell"})
            reply = self.cloud.reply(asked, None, failure)
            self.cloud.rpc(self.wait(), "nova-scheduler", "nova-conductor", "", "reply_nova-conductor", reply)
            self.put_in_error([0], "the scheduler is unwell")
            return
        if fault.way == "hangs" or fault.callee == "nova-scheduler":
            self.wait(60)
            self.put_in_error([0], f"waiting for a reply to message ID {asked}")
            return
        self.wait(50 if fault.way == "proxy 504" else 0.02)
        words = "No valid host was found. "
        failure = json.dumps({"class": "NoValidHost", "module": "nova.exception", "message": words})
        reply = self.cloud.reply(asked, None, failure)
        self.cloud.rpc(self.wait(), "nova-scheduler", "nova-conductor", "", "reply_nova-conductor", reply)
        self.put_in_error([0], words)

    def asked_id(self) -> str:
        """The message id of the call to nova-scheduler, which was written last."""
        found = ""
        for _, _, _, _, data, _ in self.cloud.network.events:
            text = data.replace(b"\\", b"")
            if b'"method": "select_destinations"' in text:
                found = text.partition(b'"_msg_id": "')[2].partition(b'"')[0].decode()
        return found

    # --- nova-compute ---

    def attempt(self, number: int, host: str) -> str:
        """As of Creation, until the host meets the fault."""
        try:
            return super().attempt(number, host)
        except Met:
            assert self.fault is not None
            return self.met_on_host(number, host, self.fault)

    def words(self, fault: Fault, server_id: str) -> str:
        """What nova-compute says of the fault that it met."""
        where = f"http://{self.cloud.address[fault.callee]}:{PORTS[fault.callee]}"
        if fault.way in ("closes", "resets", "refused"):
            why = f"Unable to establish connection to {where}: (Connection aborted.)"
        elif fault.way == "bad" and fault.callee == "neutron-server":
            why = f"Binding failed for port {_PORT}, please check neutron logs for more information."
        elif fault.way == "bad":
            why = f"Volume {VOLUME} did not finish being created. And its status is error."
        else:
            why = f"{_UNWELL} (HTTP {fault.way[-3:]})"
        return f"Build of instance {server_id} aborted: {why}"

    def met_on_host(self, number: int, host: str, fault: Fault) -> str:
        """What a host does after it met *fault*; the result of its attempt."""
        if fault.way == "hangs" or fault.callee in ("compute1", "rabbitmq"):
            self.poll(number, self.now + 11, "BUILD")
            return "stop"
        self.wait(50 if fault.way == "proxy 504" else 0.05)
        if fault.callee == "vrm":
            return "reschedule"
        words = self.words(fault, self.server_ids[number])
        if fault.callee == "db":
            self.poll(number, self.now + 11, "BUILD")
            return "stop"
        fault_row = nova_object(
            "InstanceFault", instance_uuid=self.server_ids[number], code=500, message=words, host=host
        )
        args = {"objinst": fault_row, "objmethod": "create", "args": [], "kwargs": {}}
        self.act_on_object(host, args, self.record(number, words, host))
        return "abort"

    def record(self, number: int, words: str, host: str) -> str:
        """The statement that records a fault."""
        values = f"0, '{self.server_ids[number]}', 500, '{words}', 'Traceback', '{host}'"
        columns = "deleted, instance_uuid, code, message, details, host"
        return f"INSERT INTO instance_faults ({columns}) VALUES ({values})"


class _FailingUpstream(_Failing, UpstreamCreation):
    """The same in a cloud of upstream."""


class Row(NamedTuple):
    """A service that fails at one place, and the ways in which it does."""

    role: str
    """The role that fails, as reports name it."""
    place: str
    steps: tuple[str, ...]
    """The steps at which such a creation may stop: where it failed, or what is owed next."""
    faults: dict[str, Fault | dict[str, str]]
    """Way -> the fault; or the breaks of `Creation`."""
    volume: bool = False
    flows: tuple[str, ...] = FLOWS

    def __str__(self) -> str:
        return f"{self.role}, {self.place}"


REST = ("500", "bad", "hangs", "closes", "resets", "refused")
PROXY = tuple(f"proxy {status}" for status in (403, 429, 502, 503, 504))
SQL = ("1205", "hangs", "resets", "closes", "refused")
MESSAGE = ("undelivered", "unacked", "hangs", "dies", "dies, comes back")
BROKER = ("unroutable", "nacked", "refused", "hangs", "blocks", "resets", "closes the channel")


def _asked(caller: str, callee: str, asks: str, *ways: str) -> dict[str, Fault | dict[str, str]]:
    return {way: Fault(caller, callee, asks, way) for way in ways}


def _api(callee: str, asks: str, *ways: str) -> dict[str, Fault | dict[str, str]]:
    return _asked("nova-api", callee, asks, *ways)


def _conductor(callee: str, asks: str, *ways: str) -> dict[str, Fault | dict[str, str]]:
    return _asked("nova-conductor", callee, asks, *ways)


def _host(callee: str, asks: str, *ways: str) -> dict[str, Fault | dict[str, str]]:
    return _asked("compute1", callee, asks, *ways)


_BUILD, _SELECT, _CAST = "build_and_run_instance", "select_destinations", "schedule_and_build"
_TO_API = "asked by nova-api"
_REPLIES: dict[str, Fault | dict[str, str]] = {
    way: {"7": f"reply {way}"} for way in ("late", "late told", "never", "RemoteError")
}
_LIBVIRT: dict[str, Fault | dict[str, str]] = {
    way: {"8c": way} for way in ("fails", "aborts", "hangs", "dies")
}
_TASK: dict[str, Fault | dict[str, str]] = {"bad": {"8c": "task failed"}}
ROWS = [
    Row(
        "sc", "asked by the administrator", ("1", "2"), _asked("admin", "sc", "", *REST, *PROXY),
        flows=FLOWS[:1],
    ),
    Row(
        "lb", "asked for a server", ("2", "3"),
        _asked("sc", "lb", "", "hangs", "closes", "resets", "refused", *PROXY),
    ),
    Row(
        "nova-api", "asked for a server", ("4b", "4c"),
        _asked("lb", "nova-api", "", "500", "bad", "hangs", "closes", "resets"),
    ),
    Row("keystone", f"{_TO_API} for the token", ("4a",), _api("keystone", "auth/tokens", *REST, *PROXY)),
    Row("glance-api", _TO_API, ("4b",), _api("glance-api", "", *REST, *PROXY)),
    Row("neutron-server", _TO_API, ("4b",), _api("neutron-server", "networks", *REST, *PROXY)),
    Row("cinder-api", _TO_API, ("4b",), _api("cinder-api", "", *REST, *PROXY), volume=True),
    Row("db", f"{_TO_API} for the quota", ("4c",), _api("db", "quota", "over", *SQL)),
    Row(
        "keystone", f"{_TO_API} for limits", ("4c",),
        _api("keystone", "/limits", "500", "hangs", "closes", "proxy 503"),
    ),
    Row("placement", f"{_TO_API} for usage", ("4c",), _api("placement", "/usages", *REST, "proxy 503")),
    Row("db", f"{_TO_API} to record the task", ("4d",), _api("db", "request_specs", *SQL)),
    Row("rabbitmq", f"{_TO_API} for nova-conductor", ("4e",), _api("rabbitmq", _CAST, *BROKER)),
    Row("nova-conductor", "sent the task", ("5",), _api("nova-conductor", _CAST, *MESSAGE)),
    Row(
        "rabbitmq", "asked by nova-conductor for nova-scheduler", ("5", "6"),
        _conductor("rabbitmq", _SELECT, *BROKER),
    ),
    Row(
        "nova-scheduler", "asked for a host", ("6",),
        _conductor("nova-scheduler", _SELECT, *MESSAGE, "refuses", "unsupported"),
    ),
    Row(
        "placement", "asked by nova-scheduler", ("6",),
        _asked("nova-scheduler", "placement", "candidates", *REST, *PROXY),
    ),
    Row("db", "asked by nova-conductor", ("7",), _conductor("db", "INSERT INTO instances", *SQL)),
    Row(
        "rabbitmq", "asked by nova-conductor for nova-compute", ("7", "8b"),
        _conductor("rabbitmq", _BUILD, *BROKER),
    ),
    Row("nova-compute", "sent the task", ("8b",), _conductor("compute1", _BUILD, *MESSAGE)),
    Row("nova-conductor", "asked by nova-compute", ("8b",), _REPLIES),
    Row(
        "cinder-api", "asked by nova-compute", ("8a",), _host("cinder-api", "GET", *REST, *PROXY), volume=True
    ),
    Row("neutron-server", "asked by nova-compute", ("8b",), _host("neutron-server", "POST", *REST, *PROXY)),
    Row(
        "vrm", "asked by nova-compute", ("8c",),
        _host("vrm", "/vms", "500", "hangs", "closes", "resets", "refused", *PROXY) | _TASK, flows=FLOWS[:1],
    ),
    Row("nova-compute", "whose hypervisor is libvirt", ("8c",), _LIBVIRT, flows=FLOWS[1:]),
]  # fmt: skip


def conversation(flow: str, row: Row, way: str) -> FailingCloud:
    """Return the cloud of *flow* in which *row* fails in this *way*; a creation before it went well."""
    # The ids are those of the first cloud of a process: what is said of it is the same in each run.
    Cloud._ids = 0
    is_documented = flow == FLOWS[0]
    has_proxy = is_documented or row.role == "lb"
    layout = FRONTED if way.startswith("proxy") and row.role not in ("sc", "lb", "vrm") else SPREAD
    cloud = FailingCloud(layout, portal=is_documented, proxy=has_proxy)
    kind = _Failing if is_documented else _FailingUpstream
    kind(cloud, GOOD_AT, name="good", volume=row.volume).run()
    fault = row.faults[way]
    host = fault if isinstance(fault, dict) else {}
    made = kind(cloud, AT, volume=row.volume, hosts=({"compute1": host},))
    made.fault = None if isinstance(fault, dict) else fault
    made.run()
    cloud.background(0, UNTIL_S)
    return cloud
