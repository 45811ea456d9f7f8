"""nova-api: takes the request for a VM, and sees to it that it is good (steps 4a to 4e)."""

import uuid
from threading import Lock
from typing import Any

from pika.exceptions import UnroutableError

from services.addresses import where
from services.database import PROJECT, Database
from services.rpc import Peer, versioned
from services.web import BREAK, Answer, Request, call, serve

REQUEST_ID = "X-OpenStack-Request-ID"
RECORDS = {
    "request_specs": ("instance_uuid, spec", "{}"),
    "build_requests": ("instance_uuid, project_id", PROJECT),
    "instance_mappings": ("instance_uuid, project_id", PROJECT),
}
database, broker = Database("nova-api"), Peer("nova-api")
one_at_a_time = Lock()


class Refused(Exception):
    """A step went wrong: how it is told to whoever asked."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.answer = Answer(status, {kind: {"code": status, "message": message}})


def answer(asked: Request) -> Answer:
    request_id = f"req-{uuid.uuid4()}"
    with one_at_a_time:
        try:
            if asked.is_for("POST", "/v2.1/servers"):
                told = Creation(asked, request_id).run()
            else:
                told = show(asked.path.rpartition("/")[2])
        except Refused as refused:
            told = refused.answer
    return told._replace(headers={REQUEST_ID: request_id})


class Creation:
    """One request for a VM."""

    def __init__(self, asked: Request, request_id: str) -> None:
        self.asked, self.request_id = asked, request_id
        self.wanted: dict[str, Any] = asked.body["server"]
        self.server_id = str(uuid.uuid4())

    def run(self) -> Answer:
        self.authenticate()
        self.verify()
        self.check_quota()
        self.record()
        self.ask_for_it()
        return Answer(202, {"server": {"id": self.server_id}})

    def ask(self, service: str, path: str, **headers: str) -> bool:
        """Whether another service says yes."""
        carried = {**self.asked.carried, REQUEST_ID: self.request_id}
        return call(where(service), "GET", path, headers={**carried, **headers}).status == 200

    def authenticate(self) -> None:
        """Step 4a: is the token good?"""
        if not self.ask(
            "keystone", "/v3/auth/tokens", **{"X-Subject-Token": self.asked.headers["X-Auth-Token"]}
        ):
            raise Refused(401, "unauthorized", "The request you have made requires authentication.")

    def verify(self) -> None:
        """Step 4b: are network and volume there?"""
        network, volume = self.wanted["network"], self.wanted["volume"]
        if not self.ask("neutron-server", f"/v2.0/networks?id={network}"):
            raise Refused(400, "badRequest", f"Network {network} could not be found.")
        if not self.ask("cinder-api", f"/v3/{PROJECT}/volumes/{volume}"):
            raise Refused(
                400, "badRequest", f"Block Device Mapping is Invalid: failed to get volume {volume}."
            )

    def check_quota(self) -> None:
        """Step 4c: may the project have another one?"""
        [(limit,)] = database(
            "SELECT quotas.hard_limit AS quotas_hard_limit FROM quotas"
            " WHERE quotas.project_id = %s AND quotas.resource = 'instances'",
            PROJECT,
        )
        [(used,)] = database(
            "SELECT count(instances.uuid) AS count_1 FROM instances WHERE instances.project_id = %s", PROJECT
        )
        if used >= limit or self.asked.breaks("4c"):
            words = f"Quota exceeded for instances: Requested 1, but already used {used} of {limit}"
            raise Refused(403, "forbidden", words)

    def record(self) -> None:
        """Step 4d. A key that is there already: the database itself refuses."""
        for table, (columns, value) in RECORDS.items():
            for _ in range(2 if self.asked.breaks("4d") else 1):
                try:
                    database(f"INSERT INTO {table} ({columns}) VALUES (%s, %s)", self.server_id, value)
                except RuntimeError as error:
                    raise Refused(500, "computeFault", f"Unexpected API Error. {error}") from error

    def ask_for_it(self) -> None:
        """Step 4e. To a queue that nobody has declared: the broker itself refuses."""
        topic = "conductor.nowhere" if self.asked.breaks("4e") else "conductor"
        context = {
            "request_id": self.request_id,
            "global_request_id": None,
            "project_id": PROJECT,
            "auth_token": self.asked.headers["X-Auth-Token"],
            "break": self.asked.headers.get(BREAK, ""),
        }
        args = {
            "build_requests": [versioned("BuildRequest", instance_uuid=self.server_id)],
            "request_specs": [versioned("RequestSpec", instance_uuid=self.server_id)],
            "requested": self.wanted,
        }
        try:
            broker.cast(topic, "schedule_and_build_instances", args, context)
        except UnroutableError as error:
            raise Refused(500, "computeFault", "Unexpected API Error. MessageUndeliverable") from error


def show(server_id: str) -> Answer:
    """What became of it, as the SC asks again and again."""
    rows = database("SELECT vm_state FROM instances WHERE uuid = %s", server_id)
    status = {"active": "ACTIVE", "error": "ERROR"}.get(rows[0][0] if rows else "", "BUILD")
    server: dict[str, Any] = {"id": server_id, "status": status, "tenant_id": PROJECT}
    if status == "ERROR":
        [(code, message)] = database(
            "SELECT code, message FROM instance_faults WHERE instance_uuid = %s", server_id
        )
        server["fault"] = {"code": code, "message": message}
    return Answer(200, {"server": server})


if __name__ == "__main__":
    address, port = where("nova-api")
    serve(address, [port], answer)
