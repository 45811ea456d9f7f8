"""The traffic of deletes and stops of an existing server, as nova sends it; each step can be made to fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracer.testing.cloud import SITE, TOKEN, Cloud
from tracer.testing.messages import nova_object, query, sql_error, sql_ok


class Operation:
    """The traffic of one request to delete or to stop a server.

    *breaks*: step -> what goes wrong there, documented in the method of the step. *vm*: its name at the VRM.
    *has_vrm*: without one, the hypervisor is on the host. In a cloud without a portal a client asks itself.
    """

    def __init__(
        self,
        cloud: Cloud,
        server_id: str,
        at: float = 100.0,
        breaks: Mapping[str, str] | None = None,
        *,
        stops: bool = False,
        host: str = "compute1",
        vm: str = "i-00000042",
        api: str = "nova-api",
        token: str = TOKEN,
        has_vrm: bool = True,
    ) -> None:
        self.cloud, self.server_id, self.now, self.has_vrm = cloud, server_id, at, has_vrm
        self.breaks = dict(breaks or {})
        self.stops, self.host, self.vm, self.api, self.token = stops, host, vm, api, token
        self.request_id = cloud.fresh_id("req-")
        self.method = "POST" if stops else "DELETE"
        self.tail = "/action" if stops else ""
        self.body: Any = {"os-stop": None} if stops else None
        self.good = 202 if stops else 204

    def wait(self, seconds: float = 0.01) -> float:
        """Advance the time of the operation; return it, in seconds since T0."""
        self.now += seconds
        return self.now

    def run(self) -> Operation:
        """Write the whole operation; return it.

        Breaks: 1: 403 (the SC refuses itself). 3: 503 (the proxy finds no nova-api).
        """
        cloud, begun = self.cloud, self.now
        how = self.breaks.get("1", "")
        status: int | str = self.good
        if how:
            self.wait(0.02)
            status = int(how)
        else:
            status = self.ask()
        if not cloud.portal:
            return self
        cloud.rest(
            begun, "admin", "sc", self.method, f"/sc/cloudhosts/{self.server_id}{self.tail}", status,
            took=self.answered + 0.02 - begun if not how else 0.05, token="", body=self.body,
            headers={"Cookie": "JSESSIONID=ab3aa03758bb427a89e39745182aee25"},
        )  # fmt: skip
        return self

    def ask(self) -> int | str:
        """Write the SC's request to the cloud and all that it causes; return the status of its answer."""
        begun = self.wait(0.05)
        target = f"/v2.1/servers/{self.server_id}{self.tail}"
        if self.breaks.get("3") == "503":
            self.cloud.from_outside(
                begun,
                "nova-api",
                self.method,
                target,
                503,
                0.01,
                body=self.body,
                legs="outer",
                token=self.token,
            )
            self.answered = self.wait(0.02)
            return 503
        status, fault = self.at_api()
        ids = {"X-OpenStack-Request-ID": self.request_id, "X-Compute-Request-ID": self.request_id}
        self.cloud.from_outside(
            begun, "nova-api", self.method, target, status, self.answered - begun, body=self.body,
            answer=fault, answer_headers=ids, token=self.token, api=self.api,
        )  # fmt: skip
        return status

    def at_api(self) -> tuple[int, Any]:
        """Write what nova-api does; return its status and the body of its answer.

        Breaks: 4a: 401. 4b: 404, 409. 4c: error (of the database). 5: undelivered, unroutable.
        """
        cloud = self.cloud
        refused = self.breaks.get("4a") == "401"
        cloud.rest(
            self.wait(), self.api, "keystone", "GET", "/v3/auth/tokens", 404 if refused else 200, took=0.02,
            token="gAAAAABservice-own-token", agent="python-keystoneclient",
            headers={"X-Subject-Token": self.token},
        )  # fmt: skip
        self.wait(0.03)
        self.answered = self.wait()
        if refused:
            return 401, {
                "error": {"code": 401, "message": "The request you have made requires authentication."}
            }
        if how := self.breaks.get("4b"):
            words = {
                "404": "Instance could not be found.",
                "409": "Cannot do this while it is in vm_state error",
            }
            return int(how), {
                "itemNotFound" if how == "404" else "conflictingRequest": {"message": words[how]}
            }
        state = "powering-off" if self.stops else "deleting"
        made = cloud.database(self.api, self.wait())
        made.say(
            self.wait(),
            query(f"UPDATE instances SET task_state='{state}' WHERE instances.uuid = '{self.server_id}'"),
        )
        if self.breaks.get("4c") == "error":
            made.hear(self.wait(), sql_error(1213, "Deadlock found"))
            self.answered = self.wait()
            return 500, {"computeFault": {"message": "Unexpected API Error."}}
        made.hear(self.wait(), sql_ok())
        method = "stop_instance" if self.stops else "terminate_instance"
        instance = nova_object("Instance", uuid=self.server_id, vm_state="active", host=self.host)
        fate = self.breaks.get("5", "ok")
        message = cloud.message(method, {"instance": instance}, self.request_id)
        cloud.rpc(self.wait(), self.api, self.host, "nova", f"compute.{self.host}", message, fate)
        self.answered = self.wait(0.005)
        if fate == "ok":
            self.at_compute()
        return self.good, None

    def vrm(self, method: str, target: str, status: int | str, answer: Any = None) -> None:
        """Write a call of nova-compute to the VRM."""
        self.cloud.rest(
            self.wait(), self.host, "vrm", method, target, status, took=0.005, answer=answer, token=""
        )
        self.wait(0.02)

    def at_compute(self) -> None:
        """Write what nova-compute does.

        Breaks: 6: 500, refused, unanswered, silent (VRM, or the hypervisor of the host). 6b: 503 (neutron).
        7: left out.
        """
        cloud, how = self.cloud, self.breaks.get("6", "")
        task = f"{SITE}/tasks/{int(self.now * 1000)}"
        good: int | str = 200
        status = good if not how else int(how) if how.isdigit() else how
        path = f"{SITE}/vms/{self.vm}"
        made = {"taskUri": task} if status == 200 else {"errorDes": "the VRM is unwell"}
        if self.has_vrm and self.stops:
            self.vrm("POST", f"{path}/action/stop", status, made)
        elif self.has_vrm:
            self.vrm("DELETE", path, status, made)
        if status == "silent":
            return
        if status != 200:
            self.fail()
            return
        if self.has_vrm:
            self.vrm("GET", task, 200, {"status": "success", "progress": 100})
        if not self.stops:
            freed = 503 if self.breaks.get("6b") == "503" else 204
            cloud.rest(
                self.wait(), self.host, "neutron-server", "DELETE", f"/v2.0/ports/{cloud.fresh_id()}", freed,
                agent="python-neutronclient", request_id=self.request_id,
                answer={"NeutronError": {"message": "neutron is unwell"}} if freed == 503 else None,
            )  # fmt: skip
            self.wait(0.05)
            if freed == 503:
                self.fail()
                return
        if self.breaks.get("7") != "left out":
            self.record("stopped" if self.stops else "deleted")
            if not self.stops:
                self.record("deleted")

    def fail(self) -> None:
        """Write the error state of the server."""
        self.record("error")

    def record(self, state: str) -> None:
        """Write what the host saves of the server, and the UPDATE of its vm_state to *state*."""
        self.save(state)
        made = self.cloud.database("nova-conductor", self.wait())
        made.say(
            self.wait(),
            query(f"UPDATE instances SET vm_state='{state}' WHERE instances.uuid = '{self.server_id}'"),
        )
        made.hear(self.wait(), sql_ok())

    def save(self, state: str) -> None:
        """Write Instance.save of the host: its message to nova-conductor, and the reply."""
        cloud, msg_id = self.cloud, self.cloud.fresh_id().replace("-", "")
        data = {"uuid": self.server_id, "host": self.host, "vm_state": state, "task_state": None}
        instance = nova_object("Instance", **data) | {"nova_object.changes": ["vm_state", "task_state"]}
        args = {"objinst": instance, "objmethod": "save", "args": [], "kwargs": {}}
        message = cloud.message("object_action", args, self.request_id, call=self.host, msg_id=msg_id)
        cloud.rpc(self.wait(), self.host, "nova-conductor", "nova", "conductor", message)
        cloud.rpc(self.wait(), "nova-conductor", self.host, "", f"reply_{self.host}", cloud.reply(msg_id))
