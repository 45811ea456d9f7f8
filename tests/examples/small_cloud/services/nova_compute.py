"""nova-compute: gets storage and network for a VM, and has the VRM start it (steps 8a to 8c)."""

import uuid
from typing import Any

from services.addresses import where
from services.database import PROJECT
from services.rpc import Context, Peer, versioned
from services.web import BREAK, Answer, call

HOST, SITE = "compute1", "/service/sites/43BC08E8"
broker = Peer("nova-compute")


class Asking:
    """Asks other services for the sake of one VM. Raises RuntimeError when one refuses."""

    def __init__(self, context: Context, service: str, agent: str = "") -> None:
        self._service = service
        self._headers = {
            "X-Auth-Token": context["auth_token"],
            "X-OpenStack-Request-ID": context["request_id"],
            BREAK: context["break"],
        }
        if agent:
            self._headers["User-Agent"] = agent

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        told: Answer = call(where(self._service), method, path, body, self._headers)
        if told.status >= 400:
            raise RuntimeError(
                f"Build of instance aborted: {self._service} answered {told.status}: {told.body}"
            )
        return told.body


def answer(method: str, args: Any, context: Context) -> None:
    if method != "build_and_run_instance":
        return
    server_id, requested = args["instance"]["nova_object.data"]["uuid"], args["requested"]
    try:
        apply_for_storage(requested["volume"], context)
        apply_for_network(server_id, requested["network"], context)
        start(server_id, context)
        save(server_id, "active", context)
    except RuntimeError as error:
        save(server_id, "error", context, str(error))


def apply_for_storage(volume: str, context: Context) -> None:
    """Step 8a."""
    cinder = Asking(context, "cinder-api", "python-cinderclient")
    cinder("GET", f"/v3/{PROJECT}/volumes/{volume}")
    cinder("PUT", f"/v3/{PROJECT}/attachments/{uuid.uuid4()}", {"attachment": {"connector": {"host": HOST}}})


def apply_for_network(server_id: str, network: str, context: Context) -> None:
    """Step 8b."""
    neutron = Asking(context, "neutron-server", "python-neutronclient")
    port = neutron("POST", "/v2.0/ports", {"port": {"device_id": server_id, "network_id": network}})["port"][
        "id"
    ]
    neutron("PUT", f"/v2.0/ports/{port}", {"port": {"binding:host_id": HOST}})


def start(server_id: str, context: Context) -> None:
    """Step 8c."""
    vrm = Asking(context, "vrm")
    vm = vrm("POST", f"{SITE}/vms", {"name": "instance-00000039", "uuid": server_id})
    vrm("GET", vm["taskUri"])
    vrm("GET", vrm("POST", f"{vm['uri']}/action/start", {})["taskUri"])


def save(server_id: str, vm_state: str, context: Context, fault: str = "") -> None:
    instance = versioned("Instance", uuid=server_id, vm_state=vm_state, host=HOST, fault=fault)
    args = {
        "objinst": instance | {"nova_object.changes": ["vm_state"]},
        "objmethod": "save",
        "args": [],
        "kwargs": {},
    }
    broker.call("conductor", "object_action", args, context)


if __name__ == "__main__":
    broker.serve("compute", f"compute.{HOST}", answer=answer)
