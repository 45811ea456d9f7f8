"""nova-api: takes the request for a VM, and sees to it that it is good (steps 4a to 4e)."""

import uuid
from threading import Lock
from typing import Any

from pika.exceptions import UnroutableError

from services.addresses import where
from services.database import PROJECT, Database
from services.rpc import Context, Peer, versioned
from services.web import BREAK, Answer, Request, call, serve

REQUEST_ID = "X-OpenStack-Request-ID"
database, broker = Database("nova-api"), Peer("nova-api")
one_at_a_time = Lock()


def answer(asked: Request) -> Answer:
    request_id = f"req-{uuid.uuid4()}"
    with one_at_a_time:
        if asked.is_for("POST", "/v2.1/servers"):
            told = create(asked, request_id)
        elif asked.is_for("GET", "/v2.1/servers/.+"):
            told = show(asked.path.rpartition("/")[2])
        else:
            told = Answer(404)
    return told._replace(headers={REQUEST_ID: request_id})


def create(asked: Request, request_id: str) -> Answer:
    server_id, steps = str(uuid.uuid4()), (authenticate, verify, check_quota, record, ask_for_it)
    for step in steps:
        refused = step(asked, request_id, server_id)
        if refused is not None:
            return refused
    return Answer(202, {"server": {"id": server_id}})


def ask(service: str, path: str, asked: Request, request_id: str, **more: str) -> Answer:
    headers = {**asked.carried, "User-Agent": f"nova-api {service}client", REQUEST_ID: request_id, **more}
    return call(where(service), "GET", path, headers=headers)


def authenticate(asked: Request, request_id: str, _: str) -> Answer | None:
    """Step 4a."""
    token = {"X-Subject-Token": asked.headers["X-Auth-Token"], "User-Agent": "python-keystoneclient"}
    known = ask("keystone", "/v3/auth/tokens", asked, request_id, **token)
    return None if known.status == 200 else fault(401, "unauthorized", "The request you have made requires authentication.")


def verify(asked: Request, request_id: str, _: str) -> Answer | None:
    """Step 4b: are the network and the volume there?"""
    ask("neutron-server", f"/v2.0/networks?id={asked.body['server']['network']}", asked, request_id)
    volume = asked.body["server"]["volume"]
    found = ask("cinder-api", f"/v3/{PROJECT}/volumes/{volume}", asked, request_id)
    return None if found.status == 200 else fault(400, "badRequest", f"Block Device Mapping is Invalid: volume {volume}.")


def check_quota(asked: Request, *_: str) -> Answer | None:
    """Step 4c."""
    [(limit,)] = database("SELECT hard_limit FROM quotas WHERE project_id = %s AND resource = 'instances'", PROJECT)
    [(used,)] = database("SELECT count(instances.uuid) FROM instances WHERE project_id = %s AND deleted = 0", PROJECT)
    if used < limit and not asked.breaks("4c"):
        return None
    return fault(403, "forbidden", f"Quota exceeded for instances: Requested 1, but already used {used}")


def record(asked: Request, _: str, server_id: str) -> Answer | None:
    """Step 4d."""
    try:
        for table, columns in (
            ("request_specs", "instance_uuid, spec"),
            ("build_requests", "instance_uuid, project_id"),
            ("instance_mappings", "instance_uuid, project_id"),
        ):
            value = "{}" if table == "request_specs" else PROJECT
            # A key that is there already: what the database says then is its own.
            for _n in range(2 if asked.breaks("4d") else 1):
                database(f"INSERT INTO {table} ({columns}) VALUES (%s, %s)", server_id, value)
    except RuntimeError as error:
        return fault(500, "computeFault", f"Unexpected API Error. {error}")
    return None


def ask_for_it(asked: Request, request_id: str, server_id: str) -> Answer | None:
    """Step 4e."""
    context: Context = {
        "request_id": request_id,
        "global_request_id": None,
        "project_id": PROJECT,
        "auth_token": asked.headers["X-Auth-Token"],
        "break": asked.headers.get(BREAK, ""),
    }
    server: dict[str, Any] = asked.body["server"]
    args = {
        "build_requests": [versioned("BuildRequest", instance_uuid=server_id, display_name=server["name"])],
        "request_specs": [versioned("RequestSpec", instance_uuid=server_id)],
        "requested": server,
    }
    try:
        topic = "conductor.nowhere" if asked.breaks("4e") else "conductor"
        broker.cast(topic, "schedule_and_build_instances", args, context)
    except UnroutableError:
        return fault(500, "computeFault", "Unexpected API Error. MessageUndeliverable")
    return None


def show(server_id: str) -> Answer:
    """What became of it, as the SC asks again and again."""
    rows = database("SELECT vm_state FROM instances WHERE uuid = %s", server_id)
    status = {"active": "ACTIVE", "error": "ERROR"}.get(rows[0][0] if rows else "", "BUILD")
    server: dict[str, Any] = {"id": server_id, "status": status, "tenant_id": PROJECT}
    if status == "ERROR":
        [(code, message)] = database("SELECT code, message FROM instance_faults WHERE instance_uuid = %s", server_id)
        server["fault"] = {"code": code, "message": message}
    return Answer(200, {"server": server})


def fault(status: int, kind: str, message: str) -> Answer:
    return Answer(status, {kind: {"code": status, "message": message}})


if __name__ == "__main__":
    address, port = where("nova-api")
    serve(address, [port], answer)
