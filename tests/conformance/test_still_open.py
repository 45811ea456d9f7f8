"""What a creation waits for that goes on asking, is kept from sending, or is deleted meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pika.spec
import pytest
from lab.agreement import disagreements
from lab.judging import judge, only

from tracer.testing.breaks import OF_A_CREATION
from tracer.testing.cloud import PROJECT, SITE, SPREAD, Cloud
from tracer.testing.creation import Creation
from tracer.testing.messages import method, nova_object, publish
from tracer.testing.upstream import UpstreamCreation

POLLS = 20


class _Asks(Creation):
    """A host that asks again and again for what is never done, until the capture shows no more of it."""

    breaks_known: ClassVar = {**OF_A_CREATION, "8a": ("creating for ever",), "8c": ("running for ever",)}

    def step_8a(self, number: int, host: str) -> str:
        if self.broken("8a") != "creating for ever":
            return super().step_8a(number, host)
        volume = {"volume": {"id": self.cloud.fresh_id(), "status": "creating"}}
        path, agent = f"/v3/{PROJECT}/volumes", "python-cinderclient"
        body = {"volume": {"size": 20}}
        self.compute_call(host, "cinder-api", "POST", path, 202, volume, agent=agent, body=body)
        shown = f"{path}/{volume['volume']['id']}"
        for _ in range(POLLS):
            self.compute_call(host, "cinder-api", "GET", shown, 200, volume, agent=agent)
            self.wait(3)
        return "stop"

    def step_8c(self, number: int, host: str) -> str:
        if self.broken("8c") != "running for ever":
            return super().step_8c(number, host)
        task = f"{SITE}/tasks/77"
        made = {"taskUri": task, "uri": f"{SITE}/vms/i-1"}
        body = {"name": "x", "uuid": self.server_ids[number]}
        self.compute_call(host, "vrm", "POST", f"{SITE}/vms", 202, made, body=body)
        for _ in range(POLLS):
            self.compute_call(host, "vrm", "GET", task, 200, {"status": "running", "progress": 50})
            self.wait(3)
        return "stop"


OPEN = [
    ("8a", "creating for ever", "cinder-api", "status was still creating"),
    ("8c", "running for ever", "vrm", "status was still running"),
]


@pytest.mark.parametrize("step, how, peer, words", OPEN)
def test_the_answer_that_leaves_it_open_is_what_is_waited_for(
    step: str, how: str, peer: str, words: str, tmp_path: Path
) -> None:
    """Not the step behind it, and not a host that makes no further call."""
    cloud = Cloud()
    cloud.background(0, 300)
    _Asks(cloud, hosts=({"compute1": {step: how}},)).run()
    verdict = only(judge(cloud, tmp_path))
    first = verdict.deviations[0]
    assert (verdict.outcome, verdict.stopped_at, first.peer) == ("stuck", step, peer)
    assert words in verdict.summary and words in first.cause
    assert disagreements(verdict) == []


class _Blocked(Creation):
    """A host whose broker connection is blocked: its first message of the build is never confirmed."""

    breaks_known: ClassVar = {**OF_A_CREATION, "7": ("blocked", "silent")}

    def attempt(self, number: int, host: str) -> str:
        cloud, server_id = self.cloud, self.server_ids[number]
        body = cloud.message(
            "build_and_run_instance", {"instance": nova_object("Instance", uuid=server_id)}, self.request_id
        )
        cloud.rpc(self.wait(), "nova-conductor", host, "nova", f"compute.{host}", body)
        publisher = cloud.publisher(host)
        if self.broken("7") == "blocked":
            blocked = pika.spec.Connection.Blocked("low on disk")
            publisher.hear(self.now - 3, method(blocked, 0))
        saved = nova_object("Instance", vm_state="building", uuid=server_id)
        args = {"objinst": saved, "objmethod": "save", "args": [], "kwargs": {}}
        body = cloud.message("object_action", args, self.request_id, host)
        publisher.say(self.wait(0.05), publish("nova", "conductor", body))
        return "stop"


@pytest.mark.parametrize(
    "how, words",
    [
        ("blocked", "rabbitmq blocked the publishers of nova-compute 3.0 s before the call (low on disk)"),
        ("silent", "rabbitmq never confirmed call object_action of nova-compute"),
    ],
)
def test_a_host_whose_message_was_not_taken_is_not_silent(how: str, words: str, tmp_path: Path) -> None:
    cloud = Cloud()
    Creation(cloud, 20, name="good").run()
    _Blocked(cloud, 100, hosts=({"compute1": {"7": how}},)).run()
    cloud.background(0, 60)
    for at in range(70, 300, 10):
        cloud.rest(at, "compute2", "placement", "GET", "/resource_providers", 200)
    verdict = next(v for v in judge(cloud, tmp_path).verdicts if v.name == "web-1")
    assert (verdict.outcome, verdict.stopped_at, verdict.deviations[0].peer) == ("stuck", "8b", "rabbitmq")
    assert words in verdict.summary and "then silence" not in verdict.summary


@pytest.mark.parametrize(
    "verb, tail, body, status",
    [("DELETE", "", None, 204), ("POST", "/action", {"forceDelete": None}, 202)],
)
def test_a_vm_that_is_deleted_while_its_hypervisor_works(
    verb: str, tail: str, body: object, status: int, tmp_path: Path
) -> None:
    """No packet shows the hypervisor: the state that the host saved tells what it waited for."""
    cloud = Cloud(SPREAD, portal=False, proxy=False)
    cloud.background(0, 300)
    made = UpstreamCreation(cloud, 100, hosts=({"compute1": {"8c": "hangs"}},)).run()
    path = f"/v2.1/servers/{made.server_ids[0]}{tail}"
    cloud.from_outside(150, "nova-api", verb, path, status, 0.1, body=body)
    verdict = only(judge(cloud, tmp_path))
    assert (verdict.outcome, verdict.stopped_at) == ("deleted", "8c")
    assert "by admin" in verdict.summary
    assert (
        "while step 8c had not ended: nova-compute on compute1 had saved the state spawning"
        in verdict.summary
    )
