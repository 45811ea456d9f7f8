"""The traffic of operations on an existing server, as nova sends it; each part can be made to fail.

    Action(cloud, "resize", server_id).run()
    Action(cloud, "rebuild", server_id, breaks={"rebuild_instance@nova-conductor": "undelivered"}).run()

Source: nova's compute/api.py, conductor/manager.py, compute/manager.py and their rpcapi.py, as of Zed. The
parts that no step needs are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tracer.testing.cloud import SITE, TOKEN, Cloud
from tracer.testing.messages import nova_object, query, sql_ok

__all__ = ["KINDS", "Action"]

NEW, OLD = "compute1", "compute2"
"""The host that a server goes to, or is on; and the one that it comes from."""
SERVICE_TOKEN = "gAAAAABservice-own-token"


class Call(NamedTuple):
    """A REST call between services. Breaks, by `callee`: a status of 400 or more, or silent."""

    caller: str
    callee: str
    method: str
    target: str
    status: int = 200


class Sent(NamedTuple):
    """An RPC message. Breaks, by `method`, or `method@sender`: undelivered; failure (of a reply)."""

    sender: str
    receiver: str
    method: str
    answered: bool = False
    """It is a call, and is answered."""
    meanwhile: tuple[Call, ...] = ()
    """What its receiver asks of others before it answers."""


class Saved(NamedTuple):
    """What a host saves of the server, for nova-conductor to write. Breaks, by `saved`: left out."""

    host: str
    vm_state: str
    task_state: str = ""


@dataclass(frozen=True)
class Kind:
    """One operation: its request, and what follows."""

    body: Any
    parts: Sequence[Call | Sent | Saved]
    tail: str = "/action"
    method: str = "POST"
    good: int = 202
    vrm: str = ""
    """What the VRM is asked for, where there is one; sent before the last part."""


_IMAGE, _VOLUME, _PORT = "/v2/images/{image}", "/v3/{project}/volumes/{volume}", "/v2.0/ports/{port}"
_ATTACHMENTS = "/v3/{project}/attachments"
_SCHEDULED = (Sent("nova-conductor", "nova-scheduler", "select_destinations", answered=True),)
_MOVED = (
    Sent("nova-api", "nova-conductor", "migrate_server"),
    *_SCHEDULED,
    Sent("nova-conductor", NEW, "prep_resize"),
    Saved(NEW, "active", "resize_prep"),
    Sent(NEW, OLD, "resize_instance"),
    Saved(OLD, "active", "resize_migrating"),
    Sent(OLD, NEW, "finish_resize"),
    Saved(NEW, "active", "resize_finish"),
    Saved(NEW, "resized"),
)
_BUILT = (
    Saved(NEW, "active", "rebuild_spawning"),
    Call(NEW, "neutron-server", "PUT", _PORT),
    Saved(NEW, "active"),
)

KINDS = {
    "start": Kind(
        {"os-start": None},
        (Sent("nova-api", NEW, "start_instance"), Saved(NEW, "active")),
        vrm="POST /vms/{vm}/action/start",
    ),
    "reboot": Kind(
        {"reboot": {"type": "SOFT"}},
        (
            Sent("nova-api", NEW, "reboot_instance"),
            Saved(NEW, "active", "reboot_started"),
            Saved(NEW, "active"),
        ),
        vrm="POST /vms/{vm}/action/reboot",
    ),
    "resize": Kind({"resize": {"flavorRef": "2"}}, _MOVED, vrm="PUT /vms/{vm}"),
    "resize_confirm": Kind(
        {"confirmResize": None},
        (Sent("nova-api", OLD, "confirm_resize"), Saved(OLD, "active")),
        good=204,
        vrm="DELETE /vms/{vm}",
    ),
    "migrate": Kind({"migrate": None}, _MOVED, vrm="PUT /vms/{vm}"),
    "live_migrate": Kind(
        {"os-migrateLive": {"host": None, "block_migration": "auto"}},
        (
            Sent("nova-api", "nova-conductor", "live_migrate_instance"),
            *_SCHEDULED,
            Sent("nova-conductor", NEW, "check_can_live_migrate_destination", answered=True),
            Sent(NEW, OLD, "check_can_live_migrate_source", answered=True),
            Sent("nova-conductor", OLD, "live_migration"),
            Saved(OLD, "active", "migrating"),
            Sent(OLD, NEW, "pre_live_migration", answered=True),
            Sent(OLD, NEW, "post_live_migration_at_destination", answered=True),
            Saved(NEW, "active"),
        ),
        vrm="POST /vms/{vm}/action/migrate",
    ),
    "rebuild": Kind(
        {"rebuild": {"imageRef": "70a599e0-31e7-49b7-b260-868f441e862b"}},
        (
            Call("nova-api", "glance-api", "GET", _IMAGE),
            Sent("nova-api", "nova-conductor", "rebuild_instance"),
            *_SCHEDULED,
            Sent("nova-conductor", NEW, "rebuild_instance"),
            *_BUILT,
        ),
        vrm="POST /vms",
    ),
    "evacuate": Kind(
        {"evacuate": {"host": NEW}},
        (
            Sent("nova-api", "nova-conductor", "rebuild_instance"),
            Sent("nova-conductor", NEW, "rebuild_instance"),
            *_BUILT,
        ),
        good=200,
        vrm="POST /vms",
    ),
    "shelve": Kind(
        {"shelve": None},
        (
            Call("nova-api", "glance-api", "POST", "/v2/images", 201),
            Sent("nova-api", NEW, "shelve_instance"),
            Saved(NEW, "active", "shelving_image_uploading"),
            Call(NEW, "glance-api", "PUT", f"{_IMAGE}/file", 204),
            Saved(NEW, "shelved"),
        ),
        vrm="POST /vms/{vm}/action/stop",
    ),
    "unshelve": Kind(
        {"unshelve": None},
        (
            Sent("nova-api", "nova-conductor", "unshelve_instance"),
            *_SCHEDULED,
            Sent("nova-conductor", NEW, "unshelve_instance"),
            Saved(NEW, "shelved_offloaded", "spawning"),
            Call(NEW, "neutron-server", "PUT", _PORT),
            Saved(NEW, "active"),
        ),
        vrm="POST /vms",
    ),
    "snapshot": Kind(
        {"createImage": {"name": "before-upgrade"}},
        (
            Call("nova-api", "glance-api", "POST", "/v2/images", 201),
            Sent("nova-api", NEW, "snapshot_instance"),
            Saved(NEW, "active", "image_uploading"),
            Call(NEW, "glance-api", "PUT", f"{_IMAGE}/file", 204),
            Saved(NEW, "active"),
        ),
        vrm="POST /vms/{vm}/action/export",
    ),
    "attach_volume": Kind(
        {"volumeAttachment": {"volumeId": "11111111-2222-4333-8444-555555555555"}},
        (
            Sent("nova-api", NEW, "reserve_block_device_name", answered=True),
            Call("nova-api", "cinder-api", "POST", _ATTACHMENTS),
            Sent("nova-api", NEW, "attach_volume"),
            Call(NEW, "cinder-api", "PUT", f"{_ATTACHMENTS}/{{volume}}"),
            Call(NEW, "cinder-api", "POST", f"{_ATTACHMENTS}/{{volume}}/action", 204),
        ),
        tail="/os-volume_attachments",
        good=200,
        vrm="POST /vms/{vm}/action/attachvol",
    ),
    "detach_volume": Kind(
        None,
        (
            Call("nova-api", "cinder-api", "POST", f"{_VOLUME}/action", 202),
            Sent("nova-api", NEW, "detach_volume"),
            Call(NEW, "cinder-api", "DELETE", f"{_ATTACHMENTS}/{{volume}}"),
        ),
        tail="/os-volume_attachments/{volume}",
        method="DELETE",
        vrm="POST /vms/{vm}/action/detachvol",
    ),
    "attach_interface": Kind(
        {"interfaceAttachment": {"net_id": "33333333-2222-4333-8444-555555555555"}},
        (
            Sent(
                "nova-api",
                NEW,
                "attach_interface",
                answered=True,
                meanwhile=(Call(NEW, "neutron-server", "POST", "/v2.0/ports", 201),),
            ),
        ),
        tail="/os-interface",
        good=200,
    ),
}
"""Operation -> what it consists of."""


class Action:
    """The traffic of one request for an operation of `KINDS` on a server.

    *breaks*: what fails -> how; a key is documented at the class of the part. `vrm` breaks what the VRM is
    asked for (its status, or silent), `hypervisor` what one on the host does (the text of the exception),
    `api` the request itself (its status). *has_vrm*: without one, the hypervisor is on the host.
    *has_portal*: without one, a client asks the proxy.
    """

    def __init__(
        self,
        cloud: Cloud,
        kind: str,
        server_id: str,
        at: float = 100.0,
        breaks: Mapping[str, str] | None = None,
        *,
        has_vrm: bool = True,
        has_portal: bool = True,
    ) -> None:
        self.cloud, self.kind, self.server_id, self.now = cloud, KINDS[kind], server_id, at
        self.breaks = dict(breaks or {})
        self.has_vrm, self.has_portal = has_vrm, has_portal
        self.request_id = cloud.fresh_id("req-")
        self.ids = {
            "vm": "i-00000042",
            "image": cloud.fresh_id(),
            "volume": cloud.fresh_id(),
            "port": cloud.fresh_id(),
            "project": cloud.fresh_id().replace("-", ""),
        }
        self.is_over = False
        self.answered = at

    def wait(self, seconds: float = 0.01) -> float:
        """Advance the time of the operation; return it, in seconds since T0."""
        self.now += seconds
        return self.now

    def run(self) -> Action:
        """Write the whole operation; return it."""
        cloud, begun, kind = self.cloud, self.now, self.kind
        tail = kind.tail.format(**self.ids)
        asked = self.wait(0.05)
        status: int | str = kind.good
        answer: Any = None
        self._authenticate()
        if how := self.breaks.get("api"):
            status = int(how)
            answer = {"conflictingRequest": {"message": "Cannot do this while it is in vm_state error"}}
            self.answered = self.wait()
        else:
            self._record_task()
            for number, part in enumerate(kind.parts):
                if self.is_over:
                    break
                if number == len(kind.parts) - 1:
                    self._virtualise()
                if not self.is_over:
                    self._part(part)
        made = {"X-OpenStack-Request-ID": self.request_id, "X-Compute-Request-ID": self.request_id}
        cloud.from_outside(
            asked, "nova-api", kind.method, f"/v2.1/servers/{self.server_id}{tail}", status,
            max(self.answered + 0.02 - asked, 0.05), body=kind.body, answer=answer, answer_headers=made,
        )  # fmt: skip
        if self.has_portal:
            cloud.rest(
                begun, "admin", "sc", kind.method, f"/sc/cloudhosts/{self.server_id}{tail}", status,
                took=max(self.answered + 0.05 - begun, 0.15), token="", body=kind.body,
                headers={"Cookie": "JSESSIONID=ab3aa03758bb427a89e39745182aee25"},
            )  # fmt: skip
        return self

    def _authenticate(self) -> None:
        self.cloud.rest(
            self.wait(), "nova-api", "keystone", "GET", "/v3/auth/tokens", took=0.02,
            token=SERVICE_TOKEN, agent="python-keystoneclient",
            headers={"X-Subject-Token": TOKEN},
        )  # fmt: skip
        self.answered = self.wait(0.04)

    def _record_task(self) -> None:
        made = self.cloud.database("nova-api", self.wait())
        for text in (
            f"UPDATE instances SET task_state='working' WHERE instances.uuid = '{self.server_id}'",
            f"INSERT INTO instance_actions (instance_uuid) VALUES ('{self.server_id}')",
        ):
            made.say(self.wait(), query(text))
            made.hear(self.wait(), sql_ok())

    def _part(self, part: Call | Sent | Saved) -> None:
        if isinstance(part, Saved):
            if self.breaks.get("saved") == "left out" and not part.task_state:
                self.is_over = True
            else:
                self._save(part)
        elif isinstance(part, Call):
            self._call(part)
        else:
            self._send(part)
        if "nova-api" in part or (isinstance(part, Sent) and part.answered and part.sender == "nova-api"):
            self.answered = self.now

    def _call(self, part: Call) -> None:
        how = self.breaks.get(part.callee)
        status: int | str = part.status if how is None else int(how) if how.isdigit() else how
        agent = (
            "nova-compute keystoneauth1/5.0.0"
            if part.caller.startswith("compute")
            else "nova-api keystoneauth1"
        )
        self.cloud.rest(
            self.wait(), part.caller, part.callee, part.method, part.target.format(**self.ids), status,
            agent=agent, request_id=self.request_id,
            answer={"message": f"{part.callee} is unwell"} if how else None,
        )  # fmt: skip
        self.wait(0.03)
        if how is not None:
            self._fail(part.caller, f"{part.callee} is unwell", is_silent=status == "silent")

    def _send(self, part: Sent) -> None:
        cloud = self.cloud
        how = self.breaks.get(f"{part.method}@{part.sender}") or self.breaks.get(part.method, "ok")
        instance = nova_object("Instance", uuid=self.server_id, vm_state="active", host=NEW)
        args: dict[str, Any] = {"instance": instance}
        topic = f"compute.{part.receiver}" if part.receiver.startswith("compute") else part.receiver[5:]
        if part.method == "select_destinations":
            args = {"instance_uuids": [self.server_id]}
        msg_id = cloud.fresh_id().replace("-", "") if part.answered else ""
        sender = part.sender if part.answered else ""
        message = cloud.message(part.method, args, self.request_id, call=sender, msg_id=msg_id)
        fate = how if how in ("undelivered", "unroutable") else "ok"
        cloud.rpc(self.wait(), part.sender, part.receiver, "nova", topic, message, fate)
        self.wait(0.02)
        if fate != "ok":
            self.is_over = True
            return
        if not part.answered:
            return
        for call in part.meanwhile:
            self._call(call)
        if self.is_over:
            how = "failure"
        result: Any = None
        if part.method == "select_destinations":
            result = [[nova_object("Selection", service_host=NEW)]]
        failure = None
        if how == "failure":
            text = f"{part.method} failed"
            failure = json.dumps({"class": "NovaException", "message": text, "module": "nova.exception"})
            self.is_over = True
        reply = cloud.reply(msg_id, result, failure)
        cloud.rpc(self.wait(), part.receiver, part.sender, "", f"reply_{part.sender}", reply)
        self.wait(0.01)

    def _save(self, part: Saved) -> None:
        cloud = self.cloud
        changed = {"vm_state": part.vm_state, "task_state": part.task_state or None}
        data = {"uuid": self.server_id, "host": part.host, **changed}
        instance = nova_object("Instance", **data) | {"nova_object.changes": ["task_state"]}
        self._object(part.host, {"objinst": instance, "objmethod": "save", "args": [], "kwargs": {}})
        made = cloud.database("nova-conductor", self.wait())
        text = f"UPDATE instances SET vm_state='{part.vm_state}' WHERE instances.uuid = '{self.server_id}'"
        made.say(self.wait(), query(text))
        made.hear(self.wait(), sql_ok())

    def _object(self, host: str, args: dict[str, Any], method: str = "object_action") -> None:
        msg_id = self.cloud.fresh_id().replace("-", "")
        message = self.cloud.message(method, args, self.request_id, call=host, msg_id=msg_id)
        self.cloud.rpc(self.wait(), host, "nova-conductor", "nova", "conductor", message)
        self.cloud.rpc(self.wait(), "nova-conductor", host, "", f"reply_{host}", self.cloud.reply(msg_id))

    def _virtualise(self) -> None:
        """Write what the host asks of the VRM; what a hypervisor of its own does leaves nothing."""
        if text := self.breaks.get("hypervisor"):
            self._fail(NEW, text)
        elif self.kind.vrm and self.has_vrm:
            self._ask_vrm()

    def _ask_vrm(self) -> None:
        method, _, path = self.kind.vrm.partition(" ")
        how = self.breaks.get("vrm")
        status: int | str = 200 if how is None else int(how) if how.isdigit() else how
        task = f"{SITE}/tasks/{int(self.now * 1000)}"
        answer = (
            {"taskUri": task, "uuid": self.server_id} if how is None else {"errorDes": "the VRM is unwell"}
        )
        target = f"{SITE}{path.format(**self.ids)}"
        body = {"params": {"uuid": self.server_id}}
        self.cloud.rest(self.wait(), NEW, "vrm", method, target, status, token="", body=body, answer=answer)
        self.wait(0.02)
        if how is not None:
            self._fail(NEW, "the VRM is unwell", is_silent=status == "silent")
            return
        done = {"status": "success", "progress": 100}
        self.cloud.rest(self.wait(), NEW, "vrm", "GET", task, 200, token="", answer=done)
        self.wait(0.02)

    def _fail(self, host: str, text: str, *, is_silent: bool = False) -> None:
        """End the operation: the host saves the state error, and reports the exception."""
        self.is_over = True
        if is_silent or not host.startswith("compute"):
            return
        self._save(Saved(host, "error"))
        self._object(
            host,
            {
                "context": {},
                "objname": "InstanceActionEvent",
                "objmethod": "event_finish_with_failure",
                "object_versions": {"InstanceActionEvent": "1.4"},
                "args": [self.server_id, "compute_operation"],
                "kwargs": {"exc_val": text, "exc_tb": None, "want_result": False},
            },
            "object_class_action_versions",
        )
