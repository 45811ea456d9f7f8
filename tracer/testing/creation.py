"""The traffic of whole creations, steps 1 to 8c, as nova sends it; each step can be made to fail.

    cloud = Cloud(SPREAD)
    Creation(cloud, at=100, breaks={"4c": "403"}).run()
    cloud.background(0, 300)
    cloud.network.write(folder)

The method of a step documents its breaks. With "left out" its messages are not sent, and the creation goes on
as if they had been.
"""

from __future__ import annotations

import json
from typing import Any

from tracer.testing.building import Building
from tracer.testing.cloud import (
    FLAVOR,
    IMAGE,
    NETWORK,
    NO_HOST,
    PROJECT,
    QUOTA_READS,
    QUOTA_TEXT,
    SECRETS,
    VOLUME,
)
from tracer.testing.messages import nova_object, query, sql_rows

__all__ = ["Creation"]

# --- one creation -----------------------------------------------------------------------------------


class Creation(Building):
    """The traffic of one request for one or more VMs.

    *breaks*: step -> what goes wrong there. *hosts*: for each VM the hosts that are asked in turn, each with
    its own breaks of steps 7 to 8c; after a host that fails the next one is asked. *on*: step -> plane on
    which it is seen. *ends*: how success is visible (saved, poll, nothing). *path*: that of the request
    for servers. *reservation*: the client wants a reservation, so the answer names no server.
    """

    def run(self) -> Creation:
        """Write the whole creation; return it."""
        self.step_1()
        return self

    # --- 1, 2, 3 ---

    def step_1(self) -> None:
        """Write step 1 and all that it causes.

        In a cloud without a portal that is the login of the client, and step 2.
        Breaks: 403 (the SC refuses itself); silent (it never answers); login 503 (it gets no token);
        login silent (its login is never answered, and it never answers).
        """
        cloud, begun, how = self.cloud, self.now, self.broken("1")
        if not cloud.portal:
            self.log_in()
            self.step_2()
            self.outer_ends = max(self.now, self.outer_ends)
            return
        body = {"name": self.name, "image": IMAGE, "network": NETWORK, "password": SECRETS["portal password"]}
        status: int | str = 202
        answer: Any = {"orderId": "7988585352804cc1b23b70f1afd9bef4", "status": "processing"}
        if how == "403":
            self.wait(0.05)
            status, answer = 403, {"error": "the order is not allowed"}
        elif how == "silent":
            status = "silent"
        elif how in ("login 503", "login silent"):
            login = {"auth": {"identity": {"password": {"user": {"password": SECRETS["service password"]}}}}}
            cloud.from_outside(
                self.wait(),
                "keystone",
                "POST",
                "/v3/auth/tokens",
                503 if how == "login 503" else "silent",
                0.01,
                token="",
                body=login,
                legs="outer",
            )
            self.wait(0.05)
            status, answer = (502, {"error": "cannot log in"}) if how == "login 503" else ("silent", None)
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
        """Write the login of the SC at keystone, which gives it a token."""
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
        """Write steps 2 and 3; return the status with which the cloud refused, or ''.

        Breaks: 3: 503 (the proxy answers itself). 2, 3: left out (that leg).
        """
        cloud, begun = self.cloud, self.wait()
        server, how = self.server_asked_for(), self.broken("3")
        if how in ("503", "504"):
            took = 0.01 if how == "503" else 50.0
            cloud.from_outside(
                begun,
                "nova-api",
                "POST",
                self.path,
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
        answer, answered = self.answer_of_the_api(status, fault)
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
            self.path,
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

    def server_asked_for(self) -> dict[str, Any]:
        """Return the server in the body of the request."""
        server: dict[str, Any] = {
            "name": self.name,
            "flavorRef": FLAVOR,
            "networks": [{"uuid": NETWORK}],
            "imageRef": IMAGE,
            "adminPass": SECRETS["admin password"],
            "user_data": SECRETS["user data"],
        }
        if self.volume:
            disk = {"boot_index": 0, "uuid": VOLUME, "source_type": "volume", "destination_type": "volume"}
            server = {key: value for key, value in server.items() if key != "imageRef"}
            server["block_device_mapping_v2"] = [disk]
        if len(self.server_ids) > 1:
            server |= {"min_count": len(self.server_ids), "max_count": len(self.server_ids)}
        if self.reservation:
            server["return_reservation_id"] = True
        return server

    def answer_of_the_api(self, status: int | str, fault: Any) -> tuple[Any, dict[str, str]]:
        """Return body and headers of the answer to the request; *fault* is the body of a refusal."""
        headers = {"X-OpenStack-Request-ID": self.request_id, "X-Compute-Request-ID": self.request_id}
        if status != 202:
            return fault, headers
        if self.reservation:
            return {"reservation_id": "r-3fhpjulh"}, headers
        first = self.server_ids[0]
        headers["Location"] = f"http://10.10.0.20:8774/v2.1/servers/{first}"
        return {"server": {"id": first, "adminPass": SECRETS["admin password"]}}, headers

    # --- 4 ---

    def step_4(self, begun: float) -> tuple[int | str, Any]:
        """Write everything from nova-api on; return its status and the body of its answer."""
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
        """Write step 4a. Breaks: cached; refused, 503, unanswered (keystone); 404 (keystone, then 401)."""
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
        """Write step 4b. Breaks: 400 (invalid request); 403 (policy); glance 404; neutron refused,
        neutron 503; neutron silent (no answer to the request either); left out."""
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
        if neutron == "silent":
            return "silent", None
        if neutron != 200:
            return 500, {"computeFault": {"code": 500, "message": "Unexpected API Error."}}
        self.look_up("neutron-server", f"/v2.0/quotas/{PROJECT}", "python-neutronclient", 200, {"quota": {}})
        if how == "403":
            return 403, {
                "forbidden": {"code": 403, "message": "Policy doesn't allow os_compute_api:servers:create"}
            }
        return 202, None

    def look_up(self, callee: str, target: str, agent: str, status: int | str, answer: Any) -> None:
        """Write a GET of nova-api to *callee*, part of step 4b."""
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

    def step_4c(self) -> tuple[int | str, Any]:
        """Write step 4c. Breaks: 403; error (of the database); left out; lost (sent, not captured)."""
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
        """Write step 4d. Breaks: error (of the database); left out."""
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
                f"INSERT INTO request_specs (instance_uuid, spec) VALUES ('{server_id}', '{spec}')",
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
        """Write step 4e.

        Breaks: refused (500), refused silent (no answer); unroutable (500), unroutable 202; nacked (500);
        undelivered, unacked; stop (acknowledged, then nothing); left out.
        """
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
        """Write steps 5 and 6, then the build of each VM.

        Breaks of 5: undelivered, unacked (no reply, vm_state error by time-out); undelivered stop (no error
        either); unroutable; stop (5 is never sent); left out. Breaks of 6: failure (placement has no host),
        filtered (placement has two, the filters leave none); silent; late (the reply comes 3 s after the
        time-out); stop; left out.
        """
        five, six = self.broken("5"), self.broken("6")
        if five == "stop":
            self.poll_all(1, 11)
            return
        msg_id = self.cloud.fresh_id().replace("-", "")
        fate = five.removesuffix(" stop") or "ok"
        if five != "left out":
            self.ask_for_hosts(msg_id, fate if fate in ("undelivered", "unacked", "unroutable") else "ok")
        if five.endswith("stop") or six == "stop":
            self.poll_all(1, 11)
        elif (fate != "ok" and five != "left out") or six in ("silent", "late"):
            self.get_no_hosts(msg_id, is_late=six == "late")
        elif self.get_hosts(msg_id, six):
            self.build_all()

    def ask_for_hosts(self, msg_id: str, fate: str) -> None:
        """Write step 5; *fate* is what the broker does with the message."""
        args = {
            "instance_uuids": self.server_ids,
            "spec_obj": nova_object("RequestSpec", instance_uuid=self.server_ids[0]),
        }
        ask = self.cloud.message("select_destinations", args, self.request_id, "nova-conductor", msg_id)
        self.cloud.rpc(self.wait(0.01), "nova-conductor", "nova-scheduler", "nova", "scheduler", ask, fate)

    def get_no_hosts(self, msg_id: str, is_late: bool) -> None:
        """Write the time-out of step 5, and its reply if it comes late."""
        self.wait(15)
        self.put_in_error(range(len(self.server_ids)), f"no reply to message ID {msg_id}")
        if is_late:
            late = [[nova_object("Selection", service_host="compute1")]]
            self.answer_with_hosts(msg_id, late, seconds=3)

    def get_hosts(self, msg_id: str, six: str) -> bool:
        """Write the work of the scheduler and step 6; return whether there are hosts."""
        is_failed = six in ("failure", "filtered")
        candidates: dict[str, Any] = {
            "allocation_requests": [] if six == "failure" else [{}, {}],
            "provider_summaries": {},
        }
        self.cloud.rest(
            self.wait(),
            "nova-scheduler",
            "placement",
            "GET",
            "/allocation_candidates?limit=1000&resources=VCPU%3A5000%2CMEMORY_MB%3A512",
            200,
            agent="nova-scheduler keystoneauth1/5.0.0",
            request_id=self.request_id,
            answer=candidates,
        )
        self.wait(0.02)
        if is_failed:
            failure = {"class": "NoValidHost_Remote", "module": "nova.exception", "message": NO_HOST}
            self.answer_with_hosts(msg_id, None, json.dumps(failure))
            self.put_in_error(range(len(self.server_ids)), NO_HOST)
        elif six != "left out":
            chosen = [[nova_object("Selection", service_host=host) for host in tried] for tried in self.hosts]
            self.answer_with_hosts(msg_id, chosen)
        return not is_failed

    def answer_with_hosts(
        self, msg_id: str, hosts: Any, failure: str | None = None, seconds: float = 0.01
    ) -> None:
        """Write step 6, *seconds* from now."""
        reply = self.cloud.reply(msg_id, hosts, failure)
        sent_at = self.wait(seconds)
        self.cloud.rpc(sent_at, "nova-scheduler", "nova-conductor", "", "reply_nova-conductor", reply)

    def build_all(self) -> None:
        """Write the builds of all VMs, side by side."""
        begun, ends = self.now, []
        for number in range(len(self.server_ids)):
            self.now = begun + 0.003 * number
            self.build(number)
            ends.append(self.now)
        self.now = max(ends)
