"""The traffic of nova-conductor and nova-compute once a host is chosen: steps 7 to 8c, and the end."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from tracer.testing.breaks import OF_A_CREATION, check_breaks
from tracer.testing.cloud import NETWORK, PROJECT, SECRETS, SITE, TOKEN, VOLUME, Cloud
from tracer.testing.messages import nova_object, query, sql_error, sql_ok, sql_rows
from tracer.testing.packets import Connection

__all__ = ["Building"]


class Building:
    """The second half of a `Creation`, whose docstring explains the arguments."""

    breaks_known: Mapping[str, tuple[str, ...]] = OF_A_CREATION
    """Step -> what can go wrong there."""

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
        path: str = "/v2.1/servers",
        reservation: bool = False,
    ) -> None:
        each_host = [pair for vm in hosts for host in vm.values() for pair in host.items()]
        check_breaks(
            self.breaks_known, [*(breaks or {}).items(), *((step, "") for step in on or ()), *each_host]
        )
        self.cloud, self.now, self.name, self.token = cloud, at, name, token
        self.breaks, self.on = dict(breaks or {}), dict(on or {})
        self.hosts = hosts
        self.ends, self.volume, self.api, self.polls = ends, volume, api, polls
        self.path, self.reservation = path, reservation
        self.request_id = cloud.fresh_id("req-")
        self.server_ids = [cloud.fresh_id() for _ in hosts]
        self.states = ["BUILD" for _ in hosts]
        self.outer_ends = 0.0
        self._db: dict[str, Connection] = {}

    def wait(self, seconds: float = 0.01) -> float:
        """Advance the time of the creation; return it, in seconds since T0."""
        self.now += seconds
        return self.now

    def broken(self, step: str) -> str:
        """Return what goes wrong at *step*; '' for nothing."""
        return self.breaks.get(step, "")

    # --- what both halves do ---

    def sql(self, role: str, text: str, error: tuple[int, str] | None = None) -> None:
        """Write a statement of *role* and its answer: rows, OK, or *error* (code, text)."""
        if role not in self._db:
            self._db[role] = self.cloud.database(role, self.now)
        made, at = self._db[role], self.wait(0.002)
        made.say(at, query(text))
        answer = sql_rows("10") if text.startswith("SELECT") else sql_ok()
        made.hear(at + 0.0005, answer if error is None else sql_error(*error))

    def put_in_error(self, numbers: Iterable[int], fault: str = "") -> None:
        """Write the error state of VMs by nova-conductor, with *fault* as the reason if given."""
        for number in numbers:
            server_id = self.server_ids[number]
            self.sql(
                "nova-conductor", f"INSERT INTO instances (uuid, vm_state) VALUES ('{server_id}', 'building')"
            )
            self.sql(
                "nova-conductor",
                f"UPDATE instances SET vm_state='error' WHERE instances.uuid = '{server_id}'",
            )
            if fault:
                self.sql(
                    "nova-conductor",
                    "INSERT INTO instance_faults (deleted, instance_uuid, code, message, details, host)"
                    f" VALUES (0, '{server_id}', 500, 'Timed out: {fault}', 'Traceback', NULL)",
                )
            self.poll(number, self.now + 0.5, "ERROR")

    # --- 7, 8 ---

    def build(self, number: int) -> None:
        """Ask the hosts of VM *number* in turn until one builds it or no other is asked."""
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
        """Build on one host; return the result: active, stop, abort (no other host is asked), reschedule.

        Breaks of 7: undelivered, unacked, stop (never sent), left out, silence (acknowledged, then nothing).
        reply late (late told: the host says so), reply never, reply CLASS: how nova-conductor answers the
        first save of the host.
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
        if how.startswith("reply "):
            return self.bad_reply(number, host, how.removeprefix("reply "))
        self.save(host, number, "building")
        for step in (self.step_8a, self.step_8b, self.step_8c):
            end = step(number, host)
            if end:
                return end
        if self.broken("8b").startswith("event "):
            end = self.callback(number, host, self.broken("8b").removeprefix("event "))
            if end:
                return end
        self.succeed(number, host)
        return "active"

    def bad_reply(self, number: int, host: str, how: str) -> str:
        """Write the first save of *host*, and its reply: late, never, or a failure of the class *how*."""
        cloud, msg_id = self.cloud, self.cloud.fresh_id().replace("-", "")
        instance = nova_object("Instance", vm_state="building", uuid=self.server_ids[number])
        args = {"objinst": instance, "objmethod": "save", "args": [], "kwargs": {}}
        body = cloud.message("object_action", args, self.request_id, host, msg_id)
        cloud.rpc(self.wait(), host, "nova-conductor", "nova", "conductor", body)
        failure = json.dumps({"class": how, "module": "m", "message": "it is not supported"})
        is_late = how in ("late", "late told")
        self.wait(75 if is_late else 65 if how == "never" else 0.01)
        if how != "never":
            reply = cloud.reply(msg_id, None, None if is_late else failure)
            cloud.rpc(self.now, "nova-conductor", host, "", f"reply_{host}", reply)
        if how == "late told":
            self.wait(3)
            self.record_fault(number, host, f"Timed out waiting for a reply to message ID {msg_id}")
        if is_late or how == "never":
            self.wait(3)
            return "abort"
        self.poll(number, self.now + 11, "BUILD")
        return "stop"

    def callback(self, number: int, host: str, how: str) -> str:
        """Write what neutron reports to nova-api once the VM runs, and what nova-compute makes of it.

        ok; 404, 503 (nova-api refuses); 207 (it refuses this event of two); failed (the report says so);
        unanswered; again (refused, then accepted); never; late (after 310 s); freed (never, and nova-api
        refuses that the port was deleted). Where it is not good, nova-compute gives up after 300 s.
        """
        begun, port = self.now, self.cloud.fresh_id()
        status: dict[str, int | str] = {"404": 404, "503": 503, "207": 207, "unanswered": "unanswered"}
        if how not in ("never", "late", "freed"):
            self.report(number, status.get(how, 404 if how == "again" else 200), port, how)
        if how == "again":
            self.wait(1)
            self.report(number, 200, port)
        if how in ("ok", "again"):
            return ""
        self.now = begun + (0.5 if how == "failed" else 300)
        self.compute_call(host, "neutron-server", "DELETE", f"/v2.0/ports/{port}", 204, agent="neutronclient")
        if how == "freed":
            self.report(number, 422, port, name="network-vif-deleted")
        self.record_fault(number, host, "Failed to allocate the network(s), not rescheduling.")
        if how == "late":
            self.report(number, 200, port, at=begun + 310)
        return "abort"

    def report(
        self,
        number: int,
        status: int | str,
        port: str,
        how: str = "",
        name: str = "network-vif-plugged",
        at: float | None = None,
    ) -> None:
        """Write a report of neutron about VM *number*."""
        told = "failed" if how == "failed" else "completed"
        own = {"name": name, "server_uuid": self.server_ids[number], "tag": port, "status": told}
        other = own | {"server_uuid": self.cloud.fresh_id(), "code": 200}
        answer: Any = {"events": [own | {"code": 404 if status == 207 else 200}, other]}
        if isinstance(status, int) and status >= 400:
            answer = {"itemNotFound": {"code": status, "message": "No instances found for any event"}}
        path = "/v2.1/os-server-external-events"
        self.cloud.rest(
            at or self.wait(), "neutron-server", "nova-api", "POST", path, status,
            agent="python-novaclient", request_id=self.cloud.fresh_id("req-"), answer=answer,
            body={"events": [own, {key: value for key, value in other.items() if key != "code"}]},
        )  # fmt: skip
        self.wait(0.02)

    def tell(self, number: int, host: str, how: str) -> str:
        """Write nova's words of why the VM is in error: 'versioned: CLASS: words', legacy, sql, poll."""
        way, _, words = how.partition(": ")
        name, _, text = words.partition(": ")
        server_id = self.server_ids[number]
        if way == "sql":
            self.record_fault(number, host, words)
        elif way == "poll":
            self.poll(number, self.wait(0.1), "ERROR", words)
        else:
            exception = nova_object("ExceptionPayload", exception=name, exception_message=text)
            payload: dict[str, Any] = {"instance_id": server_id, "host": host, "message": words, "code": 500}
            if way == "versioned":
                payload = nova_object("InstanceCreatePayload", uuid=server_id, host=host, fault=exception)
            event = "instance.create.error" if way == "versioned" else "compute.instance.create.error"
            self.cloud.notify(self.wait(), host, event, payload, self.request_id)
        return "abort"

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
        """Write a REST call of nova-compute; return whether its status is below 400."""
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
        """Return the status for the break *how*: a number, a word such as refused, or *good* if empty."""
        return int(how) if how.isdigit() else how or good

    def step_8a(self, number: int, host: str) -> str:
        """Write step 8a. Breaks: 500, refused, unanswered (by cinder; the VM is given up), left out.

        volume error, volume creating: cinder accepts a new volume, and the polls of it show this state until
        the VM is given up. volume late: they show it three times before the volume is available.
        """
        how = self.broken("8a")
        if how.startswith("volume "):
            return self.new_volume(number, host, how.removeprefix("volume "))
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

    def new_volume(self, number: int, host: str, how: str) -> str:
        """Write the creation of a volume that ends as *how* says: error, creating, late."""
        volume, agent = self.cloud.fresh_id(), "python-cinderclient"
        path, body = f"/v3/{PROJECT}/volumes", {"volume": {"id": volume, "status": "creating", "size": 20}}
        self.compute_call(
            host, "cinder-api", "POST", path, 202, body, agent=agent, body={"volume": {"size": 20}}
        )
        last = {"error": "error", "creating": "creating", "late": "available"}[how]
        for status in ("creating", "creating", "creating", last):
            state = {"volume": body["volume"] | {"status": status}}
            self.compute_call(host, "cinder-api", "GET", f"{path}/{volume}", 200, state, agent=agent)
            self.wait(3)
        if how == "late":
            return ""
        words = f"Volume {volume} did not finish being created even after we waited 12 seconds or 4 attempts."
        self.record_fault(number, host, f"{words} And its status is {last}.")
        return "abort"

    def record_fault(self, number: int, host: str, words: str) -> None:
        """Write nova-conductor's INSERT of why VM *number* is in error."""
        server_id = self.server_ids[number]
        self.sql(
            "nova-conductor",
            "INSERT INTO instance_faults (deleted, instance_uuid, code, message, details, host) VALUES"
            f" (0, '{server_id}', 500, 'Build of instance {server_id} aborted: {words}', 'Trace', '{host}')",
        )

    def port(self, host: str, port: str, vif_type: str) -> dict[str, Any]:
        """Return neutron's answer about a port that *host* binds."""
        return {"port": {"id": port, "status": "DOWN", "binding:host_id": host, "binding:vif_type": vif_type}}

    def bad_port(self, number: int, host: str, how: str) -> str:
        """Write a port that neutron makes, and whose binding fails as *how* says: its last vif_type."""
        agent, port, body = "python-neutronclient", self.cloud.fresh_id(), {"binding:host_id": host}
        for method, path, status, vif_type in (
            ("POST", "/v2.0/ports", 201, "unbound"),
            ("PUT", f"/v2.0/ports/{port}", 200, how),
        ):
            self.compute_call(
                host, "neutron-server", method, path, status, self.port(host, port, vif_type), agent=agent,
                body={"port": body | {"device_id": self.server_ids[number]}},
            )  # fmt: skip
        if how == "ovs":
            return ""
        self.compute_call(host, "neutron-server", "DELETE", f"/v2.0/ports/{port}", 204, agent=agent)
        self.record_fault(number, host, "Failed to allocate the network(s), not rescheduling.")
        return "abort"

    def step_8b(self, number: int, host: str) -> str:
        """Write step 8b. Breaks: 503, 500, refused, unanswered (the VM is given up), silent, left out.

        event HOW: what neutron reports at the end (`callback`).
        vif binding_failed, vif unbound: neutron answers 200 with this vif_type, and the VM is given up. vif
        ovs: unbound first, then a good one.
        """
        how, server_id = self.broken("8b"), self.server_ids[number]
        if how == "left out":
            return ""
        if how.startswith("event "):
            how = ""
        if how.startswith("vif "):
            return self.bad_port(number, host, how.removeprefix("vif "))
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
        """Write step 8c.

        Breaks: 500, refused, unanswered, task failed, start fails (the next host is asked); task running (it
        never ends, and the VM is given up); silent; left out; start unknown (its task is not
        queried); 401 (the session has expired; all calls are repeated); told HOW: no call, the VM is given
        up, and nova says why (`tell`).
        """
        how, server_id = self.broken("8c"), self.server_ids[number]
        if how == "left out":
            return ""
        if how.startswith("told "):
            return self.tell(number, host, how.removeprefix("told "))
        if how == "refused":
            self.vrm(host, "POST", f"{SITE}/vms", "refused", None)
            return "reschedule"
        self.vrm(host, "POST", "/service/session", 200, {"userName": "gesysman"})
        task, vm = f"{SITE}/tasks/{self.next_number()}", f"{SITE}/vms/i-{self.next_number():08X}"
        body = {
            "name": "instance-00000039",
            "uuid": server_id,
            "location": f"urn:sites:43BC08E8:hosts:{host}",
        }
        if how == "401":
            self.vrm(host, "POST", f"{SITE}/vms", 401, {"errorDes": "session expired"}, body)
            self.vrm(host, "POST", "/service/session", 200, {"userName": "gesysman"})
        elif how and how not in ("task failed", "task running", "start fails", "start unknown"):
            unwell = {"errorCode": "1", "errorDes": "the VRM is unwell"}
            self.vrm(host, "POST", f"{SITE}/vms", self.status(how, 202), unwell, body)
            return "stop" if how == "silent" else "reschedule"
        self.vrm(host, "POST", f"{SITE}/vms", 202, {"taskUri": task, "uri": vm}, body)
        return self.do_tasks(host, how, task, vm)

    def do_tasks(self, host: str, how: str, task: str, vm: str) -> str:
        """Write the tasks of the VRM that make and start *vm*; return what comes of it, as step 8c does."""
        self.vrm(host, "GET", task, 200, {"status": "running", "progress": 50})
        self.wait(0.5)
        if how == "task failed":
            self.vrm(host, "GET", task, 200, {"status": "failed", "reasonDes": "the datastore is full"})
            return "reschedule"
        if how == "task running":
            self.vrm(host, "GET", task, 200, {"status": "running", "progress": 50})
            return "abort"
        self.vrm(host, "GET", task, 200, {"status": "success", "progress": 100})
        start = f"{SITE}/tasks/{self.next_number()}"
        self.vrm(host, "POST", f"{vm}/action/start", 200, {"taskUri": start, "uri": vm}, {})
        if how == "start fails":
            self.vrm(host, "GET", start, 200, {"status": "failed", "reasonDes": "no host has the memory"})
            return "reschedule"
        if how != "start unknown":
            self.vrm(host, "GET", start, 200, {"status": "success", "progress": 100})
        return ""

    def vrm(
        self, host: str, method: str, target: str, status: int | str, answer: Any, body: Any = None
    ) -> None:
        """Write a call of *host* to the VRM, and its log-in with its headers."""
        logs_in = "session" in target
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
            plane=self.on.get("8c"),
            token=SECRETS["session of the VRM"],
            headers={"X-Auth-User": "gesysman", "X-Auth-Key": SECRETS["key of the VRM"]} if logs_in else {},
            answer_headers={"X-Auth-Token": SECRETS["session of the VRM"]} if logs_in else {},
        )
        self.wait(0.01)

    _numbers = 100

    @classmethod
    def next_number(cls) -> int:
        """Return a number that no other call of this method returned."""
        Building._numbers += 1
        return Building._numbers

    # --- the end ---

    def save(self, host: str, number: int, vm_state: str, task_state: str | None = None) -> None:
        """Write Instance.save of *host*: RPC to nova-conductor, its UPDATE, and the reply."""
        server_id = self.server_ids[number]
        states = {"vm_state": vm_state} | ({"task_state": task_state} if task_state else {})
        args = {
            "objinst": nova_object(
                "Instance",
                id=2,
                vm_state=vm_state,
                task_state=task_state,
                host=host,
                node=host,
                user_data=None,
                uuid=server_id,
            )
            | {"nova_object.changes": list(states)},
            "objmethod": "save",
            "args": [],
            "kwargs": {},
        }
        written = ", ".join(f"{column}='{state}'" for column, state in states.items())
        statement = f"UPDATE instances SET {written} WHERE instances.uuid = '{server_id}'"
        self.act_on_object(host, args, statement)

    tells: Collection[str] = ("RPC", "SQL")
    """How the captures show what nova-compute saves."""

    def act_on_object(self, host: str, args: dict[str, Any], statement: str) -> None:
        """Write object_action of *host* with *args*, nova-conductor's *statement* for it, and the reply."""
        msg_id = self.cloud.fresh_id().replace("-", "")
        body = self.cloud.message("object_action", args, self.request_id, host, msg_id)
        if "RPC" in self.tells:
            self.cloud.rpc(self.wait(), host, "nova-conductor", "nova", "conductor", body)
        if "SQL" in self.tells:
            self.sql("nova-conductor", statement)
        if "RPC" in self.tells:
            reply = self.cloud.reply(msg_id)
            self.cloud.rpc(self.wait(0.005), "nova-conductor", host, "", f"reply_{host}", reply)

    def succeed(self, number: int, host: str) -> None:
        """Write the success of VM *number* as *ends* asks: saved (with a poll), poll, or nothing."""
        if self.ends == "saved":
            self.save(host, number, "active")
        if self.ends in ("saved", "poll"):
            self.poll(number, self.now + 0.3, "ACTIVE")

    def poll(self, number: int, at: float, status: str, fault: str = "") -> None:
        """Write a GET of the VM by the SC, answered with *status* and *fault*, at the time *at*."""
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
            answer={
                "server": {"id": server_id, "status": status, "tenant_id": PROJECT}
                | ({"fault": {"code": 500, "message": fault}} if fault else {})
            },
        )

    def poll_all(self, *after: float) -> None:
        """Write a poll of every VM, still in BUILD, so many seconds *after* now."""
        for seconds in after:
            for number in range(len(self.server_ids)):
                self.poll(number, self.now + seconds, "BUILD")
