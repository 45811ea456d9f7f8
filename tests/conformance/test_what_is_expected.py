"""What a failed creation is told to have expected, to have seen last, and to have failed by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tracer.engine import check
from tracer.model import Verdict
from tracer.settings import Settings
from tracer.testing import SPREAD, Cloud, UpstreamCreation
from tracer.testing.cloud import PROJECT, VOLUME, Layout

REASON = "the hypervisor is unwell"


class AskingCloud(Cloud):
    """A cloud whose clients ask for servers with more members than usual."""

    asks: dict[str, Any] = {}  # noqa: RUF012  set by a test

    def from_outside(
        self, at: float, service: str, method: str, target: str, *more: Any, **named: Any
    ) -> None:
        if method == "POST" and service == "nova-api":
            server = named["body"]["server"] | self.asks
            named["body"] = {"server": {key: value for key, value in server.items() if value is not None}}
        super().from_outside(at, service, method, target, *more, **named)


class OneState(UpstreamCreation):
    """Of the states of the host only `building` is seen: the others change what is not in the message."""

    def save(self, host: str, number: int, vm_state: str, task_state: str | None = None) -> None:
        if task_state is None:
            super().save(host, number, vm_state)


class WithoutPorts(UpstreamCreation):
    """The host asks neutron for nothing; or for the networks of a project, and for nothing more."""

    def step_8b(self, number: int, host: str) -> str:
        return ""


def judged(
    folder: Path,
    made_by: type[UpstreamCreation] = UpstreamCreation,
    asks: dict[str, Any] | None = None,
    grammar: str = "openstack_create",
    proxy: bool = True,
    **options: Any,
) -> Verdict:
    """The verdict on one creation in a cloud without a VRM; *asks* is added to the server in its request."""
    cloud = AskingCloud(SPREAD, portal=False, proxy=proxy)
    cloud.asks = asks or {}
    cloud.background(0, 200)
    made_by(cloud, at=100, reason=REASON, **options).run()
    (verdict,) = check(cloud.network.write(folder), Settings(grammar=grammar)).verdicts
    return verdict


# --- what was expected ----------------------------------------------------------------------------


@pytest.mark.parametrize("proxy", [True, False])
@pytest.mark.parametrize(("step", "how"), [("4b", "400"), ("4b", "403"), ("4c", "403")])
def test_of_a_refusal_another_answer_is_expected(step: str, how: str, proxy: bool, tmp_path: Path) -> None:
    """No call that was seen to succeed: nova-api has read the quota when it refuses by it."""
    verdict = judged(tmp_path, breaks={step: how}, proxy=proxy)
    (deviation,) = verdict.deviations
    assert deviation.call is not None and deviation.step == step
    ends = "lb > nova-api" if proxy else "admin > nova-api"
    title = next(each.title for each in verdict.steps if each.step == step)
    assert deviation.expected == (f"REST {ends} POST /v2.1/servers 2xx|3xx: {title}",)


def test_of_a_call_that_failed_its_success_is_expected(tmp_path: Path) -> None:
    (deviation,) = judged(tmp_path, breaks={"4b": "glance 404"}).deviations
    assert deviation.call is not None and deviation.call.callee == "glance-api"
    assert "glance-api" in deviation.expected[0] and "POST" not in deviation.expected[0]


def test_the_example_of_storage_is_of_today(tmp_path: Path) -> None:
    (deviation,) = judged(tmp_path, breaks={"8a": "500"}, volume=True).deviations
    assert deviation.expected == (
        "REST nova-compute > cinder-api PUT /v3/attachments 2xx|3xx: apply for storage",
    )


# --- how it is told -------------------------------------------------------------------------------


def test_a_message_that_no_queue_takes_came_and_did_not_get_through(tmp_path: Path) -> None:
    verdict = judged(tmp_path, breaks={"7": "unroutable"})
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", "7")
    assert "never came" not in verdict.summary
    assert "did not get through" in verdict.summary and "no queue is bound for it" in verdict.summary


@pytest.mark.parametrize("grammar", ["openstack_create", "cloudvm_create"])
def test_a_host_that_refuses_before_it_begins_failed_at_no_step_of_its_own(
    grammar: str, tmp_path: Path
) -> None:
    verdict = judged(tmp_path, breaks={"7": "late"}, grammar=grammar)
    assert (verdict.outcome, verdict.stopped_at, verdict.stopped_between) == ("error", None, ("7", "8b"))
    assert f"nova-compute on compute1 gave up: {REASON}" in verdict.summary
    assert {s.step: s.status for s in verdict.steps}["8b"] != "failed"


@pytest.mark.parametrize(
    ("how", "step", "cause"),
    [
        ("hangs", "8c", "no state after spawning"),
        ("hangs", "8b", "no state after networking"),
        ("dies", "8c", "state error, after spawning"),
        ("aborts", "8c", REASON),
    ],
)
def test_a_failure_that_only_a_state_tells_has_a_cause(
    how: str, step: str, cause: str, tmp_path: Path
) -> None:
    assert judged(tmp_path, breaks={step: how}).deviations[0].cause == cause


@pytest.mark.parametrize("grammar", ["openstack_create", "cloudvm_create"])
def test_a_look_up_that_is_refused_is_not_what_was_seen_last(grammar: str, tmp_path: Path) -> None:
    """neutron answers 404 to the question for floating IPs in a cloud without that extension."""
    verdict = judged(tmp_path, OneState, grammar=grammar, breaks={"8c": "hangs"}, polls=False)
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", "8c")
    assert verdict.calls[-1].line.endswith("GET /v2.0/floatingips 404")
    seen = verdict.deviations[0].call
    assert seen is not None and seen.line.endswith("PUT /v2.0/ports/{id} 200")


def test_an_earlier_attempt_has_the_time_of_the_step_at_which_it_failed(tmp_path: Path) -> None:
    verdict = judged(tmp_path, hosts=[{"compute1": {"8b": "fails"}, "compute2": {}}])
    (failed,) = [step for step in verdict.attempt_details[0].steps if step.status == "failed"]
    (saved, *_) = [call for call in verdict.calls if call.action == "Instance.save networking"]
    (asked,) = failed.calls
    assert failed.started_ns == saved.started_ns
    assert failed.duration_ns == asked.started_ns - saved.started_ns


# --- a request for no network ---------------------------------------------------------------------


@pytest.mark.parametrize("grammar", ["openstack_create", "cloudvm_create"])
def test_a_server_without_a_network_owes_no_port(grammar: str, tmp_path: Path) -> None:
    verdict = judged(tmp_path, WithoutPorts, {"networks": "none"}, grammar)
    assert (verdict.verdict, verdict.outcome) == ("conforms", "active")
    (step,) = [each for each in verdict.steps if each.step == "8b"]
    assert (step.status, step.reason) == ("skipped", "the request asks for no network")


@pytest.mark.parametrize("networks", ["auto", [{"uuid": "1e645f04-3324-489c-a24f-f90f662730a3"}]])
def test_any_other_server_owes_its_port(networks: Any, tmp_path: Path) -> None:
    verdict = judged(tmp_path, WithoutPorts, {"networks": networks})
    assert (verdict.verdict, {s.step: s.status for s in verdict.steps}["8b"]) == ("deviates", "missing")


def lists(own: int | None, shared: int | None) -> type[UpstreamCreation]:
    """A host that asks neutron which networks it may use, and is told so many; None: it does not ask."""

    class Listed(UpstreamCreation):
        def step_8b(self, number: int, host: str) -> str:
            for count, query in ((own, f"tenant_id={PROJECT}&shared=False"), (shared, "shared=True")):
                if count is not None:
                    networks = [{"id": self.cloud.fresh_id(), "name": "private"}] * count
                    target = f"/v2.0/networks?{query}"
                    answer = {"networks": networks}
                    self.compute_call(host, "neutron-server", "GET", target, 200, answer)
            return ""

    return Listed


UNNAMED: dict[str, Any] = {"networks": None}


@pytest.mark.parametrize("asks", [UNNAMED, {"networks": []}], ids=["absent", "empty"])
@pytest.mark.parametrize("grammar", ["openstack_create", "cloudvm_create"])
def test_a_project_without_a_network_owes_no_port(grammar: str, asks: dict[str, Any], tmp_path: Path) -> None:
    verdict = judged(tmp_path, lists(0, 0), asks, grammar)
    assert (verdict.verdict, verdict.outcome) == ("conforms", "active")
    (step,) = [each for each in verdict.steps if each.step == "8b"]
    assert (step.status, step.reason) == ("skipped", "the request names no network, and the project has none")


@pytest.mark.parametrize("networks", [(1, 0), (0, 1), (None, 1)])
def test_a_project_with_a_network_owes_its_port(networks: tuple[int, int], tmp_path: Path) -> None:
    verdict = judged(tmp_path, lists(*networks), UNNAMED)
    assert (verdict.verdict, {s.step: s.status for s in verdict.steps}["8b"]) == ("deviates", "missing")


@pytest.mark.parametrize("networks", [(None, None), (0, None), (None, 0)])
def test_without_both_lists_nobody_can_say_whether_a_port_is_owed(
    networks: tuple[int | None, int | None], tmp_path: Path
) -> None:
    verdict = judged(tmp_path, lists(*networks), UNNAMED)
    (step,) = [each for each in verdict.steps if each.step == "8b"]
    assert (verdict.verdict, verdict.deviations, step.status) == ("inconclusive", (), "unobserved")
    assert "whether the project has one" in step.reason


@pytest.mark.parametrize("asks", [{"networks": "auto"}, {"networks": [{"uuid": VOLUME}]}])
def test_empty_lists_excuse_no_request_for_a_network(asks: dict[str, Any], tmp_path: Path) -> None:
    verdict = judged(tmp_path, lists(0, 0), asks)
    assert {s.step: s.status for s in verdict.steps}["8b"] == "missing"


def test_a_port_that_was_made_is_seen_whatever_the_request_says(tmp_path: Path) -> None:
    verdict = judged(tmp_path, UpstreamCreation, UNNAMED)
    assert (verdict.verdict, {s.step: s.status for s in verdict.steps}["8b"]) == ("conforms", "seen")


@pytest.mark.parametrize(("how", "step"), [("hangs", "8c"), ("dies", "8c"), ("aborts", "8c")])
def test_a_project_without_a_network_fails_where_its_host_says(how: str, step: str, tmp_path: Path) -> None:
    verdict = judged(tmp_path, lists(0, 0), UNNAMED, breaks={"8c": how})
    assert verdict.stopped_at == step


@pytest.mark.parametrize(("how", "outcome"), [("hangs", "stuck"), ("dies", "error"), ("aborts", "error")])
def test_a_server_without_a_network_fails_where_its_host_says(how: str, outcome: str, tmp_path: Path) -> None:
    verdict = judged(tmp_path, WithoutPorts, {"networks": "none"}, breaks={"8c": how})
    assert (verdict.outcome, verdict.stopped_at) == (outcome, "8c")


# --- why a step could not have been seen ----------------------------------------------------------


class _OnePoint(Layout):
    def points(self, a: str, b: str) -> Sequence[str]:
        return ("somewhere",)


def test_two_addresses_are_not_said_to_be_one_host(tmp_path: Path) -> None:
    """A capture point of no plane saw them both, and nothing between them."""
    cloud = Cloud(_OnePoint(SPREAD.address), portal=False)
    UpstreamCreation(cloud, at=100, reason=REASON, breaks={"7": "late"}).run()
    (verdict,) = check(cloud.network.write(tmp_path), Settings(grammar="openstack_create")).verdicts
    (step,) = [each for each in verdict.steps if each.step == "8b"]
    words = "no capture point is known to see traffic between nova-compute and neutron-server"
    assert (step.status, step.reason) == ("unobserved", words)
