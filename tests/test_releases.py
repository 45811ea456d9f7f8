"""Older and newer releases of OpenStack: a creation of each conforms, and its failures are told.

grammars/README.md has the table of releases, of what was run, and of shapes. These are those of the source
of each release; only Zed was run. What is made here is a fixture of the messages that differ.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tracer.engine import check
from tracer.model import Verdict
from tracer.settings import Settings
from tracer.testing import SPREAD, Cloud, UpstreamCreation
from tracer.testing.cloud import PROJECT, VOLUME
from tracer.testing.messages import amqp_set_up, nova_object
from tracer.testing.packets import Connection

REASON = "the virtual switch is not there"


class Pike(UpstreamCreation):
    """The reply to select_destinations names one host as a dict; a reschedule asks nova-scheduler again."""

    asked_with_spec = True

    def conduct(self) -> None:
        for number in range(len(self.server_ids)):
            self.select(number, next(iter(self.hosts[number])))
        for number in range(len(self.server_ids)):
            self.build(number)

    def attempt(self, number: int, host: str) -> str:
        if host != next(iter(self.hosts[number])):
            self.select(number, host)
        return super().attempt(number, host)

    def select(self, number: int, host: str) -> None:
        cloud, uuid, msg_id = self.cloud, self.server_ids[number], self.cloud.fresh_id().replace("-", "")
        old = {"instance_properties": {"uuid": uuid}, "num_instances": 1, "instance_uuids": [uuid]}
        args: dict[str, Any] = {"request_spec": old, "filter_properties": {"retry": {"num_attempts": 1}}}
        if self.asked_with_spec:
            args = {"spec_obj": nova_object("RequestSpec", instance_uuid=uuid), "instance_uuids": [uuid]}
        body = cloud.message("select_destinations", args, self.request_id, "nova-conductor", msg_id)
        cloud.rpc(self.wait(), "nova-conductor", "nova-scheduler", "nova", "scheduler", body)
        chosen = cloud.reply(msg_id, [{"host": host, "nodename": host, "limits": {"memory_mb": 9}}])
        cloud.rpc(self.wait(), "nova-scheduler", "nova-conductor", "", "reply_nova-conductor", chosen)


class Newton(Pike):
    """nova-api writes the instance itself and casts build_instances; volumes are attached by os-attach."""

    asked_with_spec = False

    def step_4d(self) -> tuple[int | str, Any]:
        for server_id in self.server_ids:
            self.sql(self.api, f"INSERT INTO instances (uuid, vm_state) VALUES ('{server_id}', 'building')")
        return 202, None

    def step_4e(self) -> tuple[int | str, Any]:
        instances = [nova_object("Instance", uuid=uuid) for uuid in self.server_ids]
        args = {"instances": instances, "filter_properties": {"retry": {"num_attempts": 1, "hosts": []}}}
        body = self.cloud.message("build_instances", args, self.request_id)
        self.cloud.rpc(self.wait(), self.api, "nova-conductor", "nova", "conductor", body)
        return 202, None

    def step_8a(self, number: int, host: str) -> str:
        if not self.volume or self.broken("8a") in ("hangs", "fails", "aborts", "dies"):
            return ""
        for action in ("os-reserve", "os-initialize_connection", "os-attach"):
            target = f"/v2/{PROJECT}/volumes/{VOLUME}/action"
            body = {action: {"instance_uuid": self.server_ids[number]}}
            self.compute_call(host, "cinder-api", "POST", target, 202, agent="python-cinderclient", body=body)
        return ""


class OsAttach(UpstreamCreation):
    """A release of today whose volumes are attached by the older API of cinder."""

    step_8a = Newton.step_8a


class UnifiedLimits(UpstreamCreation):
    """The quota is keystone's, the usage placement's (nova/limit/placement.py)."""

    def step_4c(self) -> tuple[int | str, Any]:
        agent = "openstacksdk/1.5.0 keystoneauth1/5.3.0"
        for callee, target in (
            ("keystone", f"/v3/limits?project_id={PROJECT}&service_id=1"),
            ("placement", f"/usages?project_id={PROJECT}"),
        ):
            self.cloud.rest(
                self.wait(), self.api, callee, "GET", target, 200, agent=agent, request_id=self.request_id,
                answer={"limits": []},
            )  # fmt: skip
            self.wait(0.02)
        return 202, None


class AltCloud(Cloud):
    """nova's second topic: the messages to a host go to compute-alt.HOST (RPC 6.5)."""

    def rpc(self, at: float, caller: str, consumer: str, exchange: str, key: str, *more: Any) -> None:
        key = key.replace("compute.", "compute-alt.") if key.startswith("compute.") else key
        super().rpc(at, caller, consumer, exchange, key, *more)


class ManagedCloud(Cloud):
    """A queue manager names reply queues HOST:PROGRAM:N; a stream stands for all fanout queues of a topic."""

    def _standing(self, role: str, what: str, queues: Any) -> Connection:
        key = (role, what)
        if key not in self._amqp:
            made = self.network.connection(self.address[role], self.address["rabbitmq"], 5672, at=0.0)
            topics = [queue.partition("_aa")[0] for queue in queues if not queue.startswith("reply_")]
            names = [*topics, f"reply_{role}:nova:1"] if queues else []
            amqp_set_up(made, 0.01, "", names)
            self._amqp[key] = made
        return self._amqp[key]

    def rpc(self, at: float, caller: str, consumer: str, exchange: str, key: str, *more: Any) -> None:
        key = f"{key}:nova:1" if key.startswith("reply_") else key
        super().rpc(at, caller, consumer, exchange, key, *more)


RELEASES: dict[str, tuple[type[UpstreamCreation], type[Cloud]]] = {
    "newton": (Newton, Cloud),
    "pike": (Pike, Cloud),
    "zed": (UpstreamCreation, Cloud),
    "os-attach": (OsAttach, Cloud),
    "queue manager": (UpstreamCreation, ManagedCloud),
    "unified limits": (UnifiedLimits, Cloud),
    "compute-alt": (UpstreamCreation, AltCloud),
}


def table() -> list[list[str]]:
    """The rows of the table of releases in grammars/README.md, without its heading."""
    text = (Path(__file__).parents[1] / "grammars" / "README.md").read_text(encoding="utf-8")
    lines = text.partition("**Releases of OpenStack.**")[2].partition("**Larger clouds.**")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return rows[2:]


def test_the_table_names_each_conversation() -> None:
    """And no other one."""
    run = " ".join(row[1] for row in table())
    named = {name for name in re.findall(r"`([^`]+)`", run) if "*" not in name}
    assert named == set(RELEASES)


def test_the_table_names_a_test_in_each_row() -> None:
    root = Path(__file__).parents[1]
    for releases, _, _, test in table():
        names = re.findall(r"`([^`]+)`", test)
        assert names and all((root / name).is_file() for name in names), releases


def judged(folder: Path, release: str, **options: Any) -> Verdict:
    creation, cloud_of = RELEASES[release]
    cloud = cloud_of(SPREAD, portal=False)
    cloud.background(0, 200)
    creation(cloud, at=100, reason=REASON, **options).run()
    (verdict,) = check(cloud.network.write(folder), Settings(grammar="openstack_create")).verdicts
    return verdict


@pytest.mark.parametrize("volume", [False, True], ids=["image", "volume"])
@pytest.mark.parametrize("release", RELEASES)
def test_a_good_creation_conforms(release: str, volume: bool, tmp_path: Path) -> None:
    verdict = judged(tmp_path, release, volume=volume)
    statuses = {step.step: step.status for step in verdict.steps}
    assert (verdict.verdict, verdict.outcome) == ("conforms", "active")
    assert {s for s in statuses.values()} <= {"seen", "inferred", "skipped"}
    assert statuses["8a"] == ("seen" if volume else "skipped")
    assert verdict.compute_host == "compute1"


@pytest.mark.parametrize("release", RELEASES)
def test_a_reschedule_conforms_and_tells_why(release: str, tmp_path: Path) -> None:
    verdict = judged(tmp_path, release, hosts=[{"compute1": {"8c": "fails"}, "compute2": {}}])
    assert (verdict.verdict, verdict.attempts) == ("conforms", ("compute1", "compute2"))
    assert (verdict.attempt_details[0].stopped_at, verdict.attempt_details[0].error) == ("8c", REASON)


@pytest.mark.parametrize("release", RELEASES)
def test_a_failure_of_the_last_host_is_told(release: str, tmp_path: Path) -> None:
    hosts = [{"compute1": {"8b": "fails"}, "compute2": {"8c": "fails"}}]
    verdict = judged(tmp_path, release, hosts=hosts, left="No valid host was found.")
    assert (verdict.outcome, verdict.stopped_at) == ("error", "8c")
    assert REASON in verdict.summary and "No valid host was found." in verdict.summary
