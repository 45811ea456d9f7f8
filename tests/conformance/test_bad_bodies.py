"""A status is not the answer: 200 and 202 with a body that says that nothing came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab.judging import only, run, statuses

from tracer.calls.bodies import fault_text, read_answer, wants_body
from tracer.model import RestFacts
from tracer.testing.cloud import PROJECT

ID = "145c135d-63cb-41ba-98cd-3235a30c2e27"
FAILED = [
    # where, how, step, who failed, what the report must hold
    ("8a", "volume error", "8a", "cinder-api", "status is error"),
    ("8a", "volume creating", "8a", "cinder-api", "status was still creating"),
    ("8b", "vif binding_failed", "8b", "neutron-server", "binding:vif_type is binding_failed"),
    ("8b", "vif unbound", "8b", "neutron-server", "binding:vif_type was still unbound"),
    ("8c", "task failed", "8c", "vrm", "the datastore is full"),
    ("8c", "task running", "8c", "vrm", "status was still running"),
]


@pytest.mark.parametrize("at, how, step, who, words", FAILED)
def test_a_good_status_with_a_bad_body(
    at: str, how: str, step: str, who: str, words: str, tmp_path: Path
) -> None:
    """The step of that call failed, its callee is to blame, and the report quotes the body."""
    verdict = only(run(tmp_path, hosts=({"compute1": {at: how}},)))
    assert (verdict.outcome, verdict.stopped_at, statuses(verdict)[step]) == ("error", step, "failed")
    assert words in verdict.summary
    (found,) = verdict.deviations
    assert (found.kind, found.step, found.peer) == ("failed", step, who)
    assert words in found.cause


@pytest.mark.parametrize("at, how", [("8a", "volume late"), ("8b", "vif ovs")])
def test_what_was_open_and_then_done(at: str, how: str, tmp_path: Path) -> None:
    """A volume takes its time, and a port is unbound before it is bound: nothing is wrong."""
    verdict = only(run(tmp_path, hosts=({"compute1": {at: how}},)))
    assert (verdict.verdict, verdict.outcome) == ("conforms", "active")


@pytest.mark.parametrize("how", ["vif ovs", "vif unbound"])
def test_a_call_that_failed_comes_before_what_was_open(how: str, tmp_path: Path) -> None:
    """The VRM refused: a volume that was not polled to its end is not the cause."""
    verdict = only(run(tmp_path, hosts=({"compute1": {"8a": "volume late", "8b": "vif ovs", "8c": "500"}},)))
    assert (verdict.outcome, verdict.stopped_at) == ("error", "8c")


def test_the_first_host_could_not_bind(tmp_path: Path) -> None:
    """The last host counts; of the one before the attempts tell what failed."""
    verdict = only(run(tmp_path, hosts=({"compute1": {"8c": "task failed"}, "compute2": {}},)))
    assert (verdict.outcome, verdict.verdict) == ("active", "conforms")
    first = verdict.attempt_details[0]
    assert (first.stopped_at, first.error) == ("8c", "the datastore is full")


READ = [
    (
        "/v2.0/ports",
        {"port": {"binding:vif_type": "binding_failed"}},
        "bad",
        "binding:vif_type is binding_failed",
    ),
    ("/v2.0/ports", {"port": {"binding:vif_type": "ovs"}}, "good", ""),
    ("/v2.0/ports", {"port": {"binding:vif_type": "unbound"}}, "", ""),
    ("/v2.0/ports", {"port": {"binding:vif_type": "unbound", "binding:host_id": ""}}, "", ""),
    ("/v2.0/ports", {"port": {"binding:vif_type": "unbound", "binding:host_id": "c1"}}, "open", "unbound"),
    ("/v2.0/ports", {"port": {"binding:vif_type": 7}}, "", ""),
    ("/v2.0/ports", {"port": ["binding_failed"]}, "", ""),
    (f"/v3/{PROJECT}/volumes", {"volume": {"status": "error"}}, "bad", "status is error"),
    (f"/v3/{PROJECT}/volumes", {"volume": {"status": "downloading"}}, "open", "status is downloading"),
    (f"/v3/{PROJECT}/volumes", {"volume": {"status": "in-use"}}, "good", ""),
    ("/service/sites/1/tasks/2", {"status": "failed"}, "bad", "status is failed"),
    # An order of a portal is no task of the VRM.
    ("/orders/7", {"status": "failed"}, "", ""),
]


@pytest.mark.parametrize("path, body, condition, said", READ)
def test_what_a_body_says_of_its_resource(path: str, body: Any, condition: str, said: str) -> None:
    """Whether it is usable, still in the making, or failed; nothing where the body says nothing."""
    facts = RestFacts("POST", path, status=200)
    read_answer(facts, json.dumps(body).encode(), {})
    assert facts.condition == condition
    assert said in facts.said and bool(said) == bool(facts.said)


def test_a_refusal_has_no_condition() -> None:
    """The status says it."""
    facts = RestFacts("POST", f"/v3/{PROJECT}/volumes", status=500)
    read_answer(facts, b'{"volume": {"status": "error"}}', {})
    assert facts.condition == ""


def test_the_words_of_a_server_in_error_are_in_its_fault() -> None:
    """Its description is its user's."""
    body = {
        "server": {
            "status": "ERROR",
            "description": "my server",
            "fault": {"code": 500, "message": "No disk"},
        }
    }
    assert fault_text(json.dumps(body).encode()) == "No disk"
    del body["server"]["fault"]
    assert fault_text(json.dumps(body).encode()) == ""


@pytest.mark.parametrize(
    "target, wanted",
    [
        (f"/v3/{PROJECT}/volumes/{ID}", True),
        (f"/v2/volumes/{ID}", True),
        (f"/v2.0/ports/{ID}.json", True),
        (f"/v3/{PROJECT}/volumes/detail?all_tenants=1", False),
        ("/v2.0/ports?device_owner=compute", False),
    ],
)
def test_only_the_bodies_of_one_resource_are_read(target: str, wanted: bool) -> None:
    """A list of all volumes or ports is long, and of nobody's creation."""
    assert wants_body("GET", target, {}, 200) is wanted
