"""Clouds without a VRM, an SC or a load balancer: what nova says of itself places each end of a creation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tracer.engine import check
from tracer.model import Report, Verdict
from tracer.reports import call_words
from tracer.settings import Settings
from tracer.testing import SPREAD, Cloud, Connection, Creation, UpstreamCreation
from tracer.testing.messages import amqp_set_up

GRAMMARS = ("openstack_create", "cloudvm_create")
REASON = "the virtual switch is not there"
BOTH = ("RPC", "SQL")


def report(
    folder: Path,
    grammar: str = "openstack_create",
    *,
    portal: bool = True,
    proxy: bool = True,
    **options: Any,
) -> Report:
    """The report on one creation in a cloud without a VRM, and 100 s of other traffic after it."""
    cloud = Cloud(SPREAD, portal=portal, proxy=proxy)
    cloud.background(0, 200)
    UpstreamCreation(cloud, at=100, reason=REASON, **options).run()
    return check(cloud.network.write(folder), Settings(grammar=grammar, stall_s=60))


def judged(folder: Path, grammar: str = "openstack_create", **options: Any) -> Verdict:
    (verdict,) = report(folder, grammar, **options).verdicts
    return verdict


def statuses(verdict: Verdict) -> dict[str, str]:
    return {step.step: step.status for step in verdict.steps}


# --- a good creation conforms --------------------------------------------------------------------

ARRANGED = {
    "an SC": {},
    "a client and a load balancer": {"portal": False},
    "a client and nova-api": {"portal": False, "proxy": False},
    "an SC and nova-api": {"proxy": False},
}
VARIANTS: dict[str, dict[str, Any]] = {
    "image": {},
    "volume": {"volume": True},
    "three VMs": {"hosts": [{"compute1": {}}, {"compute2": {}}, {"compute1": {}}]},
    "second host": {"hosts": [{"compute1": {"8c": "fails"}, "compute2": {}}]},
    "second host, late refusal": {"hosts": [{"compute1": {"7": "late"}, "compute2": {}}]},
    "third host, volume": {
        "hosts": [{"compute1": {"8b": "fails"}, "compute2": {"8a": "fails"}, "compute3": {}}],
        "volume": True,
    },
    "states by RPC alone": {"tells": ("RPC",)},
    "states in SQL alone": {"tells": ("SQL",)},
    "token in nova-api's cache": {"breaks": {"4a": "cached"}},
}


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("arranged", ["a client and a load balancer", "a client and nova-api"])
def test_a_good_creation_conforms(arranged: str, variant: str, grammar: str, tmp_path: Path) -> None:
    verdicts = report(tmp_path, grammar, **ARRANGED[arranged], **VARIANTS[variant]).verdicts
    assert len(verdicts) == len(VARIANTS[variant].get("hosts", [0]))
    for verdict in verdicts:
        assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("conforms", "active", None)
        assert "unobserved" not in statuses(verdict).values()


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("arranged", ARRANGED)
def test_each_arrangement_conforms(arranged: str, grammar: str, tmp_path: Path) -> None:
    verdict = judged(tmp_path, grammar, **ARRANGED[arranged])
    assert (verdict.verdict, verdict.outcome) == ("conforms", "active")


@pytest.mark.parametrize(
    ("arranged", "absent"),
    [
        ("an SC", {"8c"}),
        ("a client and a load balancer", {"1", "8c"}),
        ("a client and nova-api", {"1", "3", "8c"}),
        ("an SC and nova-api", {"3", "8c"}),
    ],
)
def test_the_documented_flow_says_what_this_cloud_does_not_have(
    arranged: str, absent: set[str], tmp_path: Path
) -> None:
    verdict = judged(tmp_path, "cloudvm_create", **ARRANGED[arranged])
    assert {note.step for note in verdict.notes if note.kind == "absent"} == absent


def test_a_client_is_no_portal(tmp_path: Path) -> None:
    verdict = judged(tmp_path, portal=False)
    lines = {call.line for call in verdict.calls if call.step == "2"}
    assert lines == {"External_api REST admin > lb POST /v2.1/servers 202"}


def test_an_api_that_clients_ask_itself_is_no_proxy(tmp_path: Path) -> None:
    verdict = judged(tmp_path, portal=False, proxy=False)
    assert {c.line for c in verdict.calls if c.step == "2"} == {
        "External_api REST admin > nova-api POST /v2.1/servers 202"
    }
    assert statuses(verdict)["4c"] == "seen"
    assert statuses(verdict)["3"] == "skipped"


def test_a_proxy_is_taken_to_be_there_where_the_inside_is_not_captured(tmp_path: Path) -> None:
    """External_api alone: nothing shows whether a proxy is before nova-api, so the document's is."""
    cloud = Cloud(SPREAD, portal=False)
    cloud.background(0, 200)
    UpstreamCreation(cloud, at=100).run()
    cloud.network.write(tmp_path)
    (path,) = tmp_path.glob("External_api*")
    (verdict,) = check([str(path)], Settings(grammar="openstack_create")).verdicts
    assert verdict.verdict == "inconclusive"
    assert "External_api REST admin > lb POST /v2.1/servers 202" in {call.line for call in verdict.calls}


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_without_the_external_plane_nothing_is_sure(grammar: str, tmp_path: Path) -> None:
    """A cloud that has an SC, whose plane was not captured: no clean bill."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 200)
    UpstreamCreation(cloud, at=100).run()
    cloud.network.write(tmp_path)
    (path,) = tmp_path.glob("Internal_base*")
    (verdict,) = check([str(path)], Settings(grammar=grammar)).verdicts
    assert (verdict.verdict, verdict.outcome) == ("inconclusive", "active")
    assert statuses(verdict)["2"] == "unobserved"


def test_a_vrm_that_was_seen_owes_its_own_calls(tmp_path: Path) -> None:
    """Where a VRM is known, nova's own word does not stand in for the calls that are owed to it."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 200)
    Creation(cloud, at=30, name="before").run()
    UpstreamCreation(cloud, at=100, name="after").run()
    found = {v.name: v for v in check(cloud.network.write(tmp_path), Settings()).verdicts}
    assert found["before"].verdict == "conforms"
    assert found["after"].verdict == "deviates"
    assert statuses(found["after"])["8c"] == "missing"


class VendorsCloud(Cloud):
    """Its hosts run the vendor's nova-compute, whose driver asks a VRM."""

    def _standing(self, role: str, what: str, queues: Sequence[str]) -> Connection:
        key = (role, what)
        if role.startswith("compute") and key not in self._amqp:
            made = self.network.connection(self.address[role], self.address["rabbitmq"], 5672, at=0.0)
            amqp_set_up(made, 0.01, "fc-nova-compute", queues)
            self._amqp[key] = made
        return super()._standing(role, what, queues)


def test_a_vrm_whose_plane_was_not_captured_leaves_its_step_open(tmp_path: Path) -> None:
    """No clean bill: the vendor's driver was seen, so there is a VRM."""
    cloud = VendorsCloud(SPREAD)
    cloud.background(0, 200)
    UpstreamCreation(cloud, at=100).run()
    (verdict,) = check(cloud.network.write(tmp_path), Settings()).verdicts
    assert (verdict.verdict, statuses(verdict)["8c"]) == ("inconclusive", "unobserved")


# --- each end is placed --------------------------------------------------------------------------


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("tells", [("RPC",), ("SQL",), BOTH], ids="+".join)
@pytest.mark.parametrize("step", ["8a", "8b", "8c"])
def test_a_host_that_hangs_is_stuck_in_its_state(
    step: str, tells: tuple[str, ...], grammar: str, tmp_path: Path
) -> None:
    verdict = judged(tmp_path, grammar, breaks={step: "hangs"}, tells=tells, volume=step == "8a")
    assert (verdict.outcome, verdict.verdict, verdict.stopped_at) == ("stuck", "deviates", step)
    state = {"8a": "block_device_mapping", "8b": "networking", "8c": "spawning"}[step]
    assert f"owed by nova-compute on compute1: it saved the state {state} at +" in verdict.summary


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("tells", [("RPC",), ("SQL",), BOTH], ids="+".join)
@pytest.mark.parametrize("how", ["aborts", "fails", "dies"])
@pytest.mark.parametrize("step", ["8a", "8b", "8c"])
def test_a_host_that_fails_stopped_in_its_state(
    step: str, how: str, tells: tuple[str, ...], grammar: str, tmp_path: Path
) -> None:
    verdict = judged(tmp_path, grammar, breaks={step: how}, tells=tells, volume=step == "8a")
    assert (verdict.outcome, verdict.verdict, verdict.stopped_at) == ("error", "deviates", step)
    assert (REASON in verdict.summary) == (how != "dies")
    (attempt,) = verdict.attempt_details
    assert (attempt.stopped_at, attempt.built) == (step, False)


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("last", ["fails", "aborts"])
def test_the_last_host_that_failed_is_the_failure_and_what_was_left_is_told(
    last: str, grammar: str, tmp_path: Path
) -> None:
    left = "No valid host was found. There are not enough hosts available."
    hosts = [{"compute1": {"8b": "fails"}, "compute2": {"8c": last}}]
    verdict = judged(tmp_path, grammar, hosts=hosts, left=left)
    assert (verdict.outcome, verdict.stopped_at) == ("error", "8c")
    assert [a.stopped_at for a in verdict.attempt_details] == ["8b", "8c"]
    assert [REASON in a.error for a in verdict.attempt_details] == [True, True]
    assert (f"no other host was left: {left}" in verdict.summary) == (last == "fails")


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("tells", [("RPC",), ("SQL",), BOTH], ids="+".join)
def test_a_host_that_refused_late_did_not_build(tells: tuple[str, ...], grammar: str, tmp_path: Path) -> None:
    hosts = [{"compute1": {"7": "late"}, "compute2": {}}]
    verdict = judged(tmp_path, grammar, hosts=hosts, tells=tells)
    assert (verdict.verdict, verdict.compute_host) == ("conforms", "compute2")
    first, second = verdict.attempt_details
    assert (first.stopped_at, first.error, first.built, second.built) == (None, REASON, False, True)
    assert any(note.kind == "retry" and REASON in note.message for note in verdict.notes)


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_a_refusal_by_neutron_comes_before_the_state(grammar: str, tmp_path: Path) -> None:
    """The state is spawning by then: neutron is asked in a thread of its own."""
    verdict = judged(tmp_path, grammar, breaks={"8b": "503"})
    assert verdict.stopped_at == "8b"


# --- a request that is never answered -------------------------------------------------------------


UNANSWERED = {
    "RabbitMQ is down": {"4e": "refused silent"},
    "RabbitMQ is down, token in cache": {"4a": "cached", "4e": "refused silent"},
}


@pytest.mark.parametrize("arranged", ARRANGED)
@pytest.mark.parametrize("others", [0, 1])
@pytest.mark.parametrize("why", UNANSWERED)
def test_what_nova_api_asked_others_names_a_request_without_an_answer(
    why: str, others: int, arranged: str, tmp_path: Path
) -> None:
    """The only request id is the one that nova-api sent to glance and neutron."""
    cloud = Cloud(SPREAD, **ARRANGED[arranged])
    cloud.background(0, 200)
    made = [
        UpstreamCreation(
            cloud, at=100 + 0.05 * n, name=f"vm-{n}", breaks=UNANSWERED[why], token=f"gAAAAAB{n:060}"
        ).run()
        for n in range(1 + others)
    ]
    verdicts = check(cloud.network.write(tmp_path), Settings(grammar="openstack_create")).verdicts
    assert {v.name: v.request_id for v in verdicts} == {each.name: each.request_id for each in made}
    assert {(v.outcome, v.stopped_at) for v in verdicts} == {("stuck", "4e")}


# --- what is shown of a failure that only nova's states tell --------------------------------------

HOST = "RPC nova-compute > nova-conductor "
SAVE = f"{HOST}call object_action Instance.save "
SHOWN = {
    "aborts": f"{HOST}call object_action InstanceFault.create ok",
    "fails": f"{HOST}cast build_instances ok",
    "dies": f"{SAVE}error ok",
    "hangs": f"{SAVE}spawning ok",
}


@pytest.mark.parametrize("grammar", GRAMMARS)
@pytest.mark.parametrize("how", SHOWN)
def test_what_was_seen_is_a_state_and_so_is_what_was_expected(how: str, grammar: str, tmp_path: Path) -> None:
    verdict = judged(tmp_path, grammar, breaks={"8c": how})
    deviation = verdict.deviations[0]
    title = next(step.title for step in verdict.steps if step.step == "8c")
    assert deviation.call is not None
    assert deviation.call.matched == f"Internal_base {SHOWN[how]}"
    assert deviation.expected == (f"{SAVE}active ok: {title}",)


@pytest.mark.parametrize("how", SHOWN)
def test_a_failure_without_a_vrm_says_that_there_is_none(how: str, tmp_path: Path) -> None:
    verdict = judged(tmp_path, "cloudvm_create", breaks={"8c": how})
    (note,) = [note for note in verdict.notes if note.kind == "absent"]
    assert (note.step, note.message) == (
        "8c",
        "no vrm in these captures: nova-compute saved Instance.save spawning",
    )


def test_a_vrm_that_was_seen_is_expected_to_be_asked(tmp_path: Path) -> None:
    cloud = Cloud(SPREAD)
    cloud.background(0, 200)
    Creation(cloud, at=30, name="before").run()
    UpstreamCreation(cloud, at=100, name="after", reason=REASON, breaks={"8c": "aborts"}).run()
    found = {v.name: v for v in check(cloud.network.write(tmp_path), Settings()).verdicts}
    assert found["after"].deviations[0].expected[0].startswith("REST nova-compute > vrm POST ")
    assert not [note for note in found["after"].notes if note.kind == "absent"]


@pytest.mark.parametrize("how", ["", "dies", "hangs", "aborts", "fails"])
def test_a_step_begun_by_a_state_begins_when_the_step_before_has_ended(how: str, tmp_path: Path) -> None:
    """The state is saved while another thread still asks neutron."""
    verdict = judged(tmp_path, "cloudvm_create", breaks={"8c": how} if how else {})
    (saved, *_) = [call for call in verdict.calls if call.action == "Instance.save spawning"]
    asked, started = (step for step in verdict.steps if step.step in ("8b", "8c"))
    assert asked.started_ns is not None and asked.duration_ns is not None
    assert started.started_ns == asked.started_ns + asked.duration_ns > saved.started_ns


@pytest.mark.parametrize("step", ["8a", "8b"])
def test_a_step_begun_by_a_state_has_its_time(step: str, tmp_path: Path) -> None:
    verdict = judged(tmp_path, breaks={step: "hangs"}, volume=True)
    state = {"8a": "block_device_mapping", "8b": "networking"}[step]
    (saved, *_) = [call for call in verdict.calls if call.action == f"Instance.save {state}"]
    assert [s.started_ns for s in verdict.steps if s.step == step] == [saved.started_ns]


def test_an_error_without_a_reason_names_the_host_and_says_so(tmp_path: Path) -> None:
    words = (
        "step 8c failed: the VM was put in state error, after spawning on compute1; no reason was recorded"
    )
    assert judged(tmp_path, breaks={"8c": "dies"}).summary.startswith(words)


def test_the_step_table_shows_the_state(tmp_path: Path) -> None:
    verdict = judged(tmp_path, breaks={"8c": "dies"})
    (saved, *_) = [call for call in verdict.calls if call.action == "Instance.save error"]
    assert [call_words(saved, limit) for limit in (100, 62, 54, 40)] == [
        "nova-compute > nova-conductor call object_action Instance.save error ok",
        "compute > conductor call object_action Instance.save error ok",
        "nova-compute > nova-conductor Instance.save error ok",
        "compute > conductor Instance.save er… ok",
    ]


# --- nova-api has one address for clients, and another one inside -----------------------------------

STOPS = {
    "keystone does not know the token": ({"4a": "404"}, "4a"),
    "keystone is overloaded": ({"4a": "503"}, "4a"),
    "keystone refuses": ({"4a": "refused"}, "4a"),
    "glance refuses": ({"4b": "glance refused"}, "4b"),
    "glance refuses, token in cache": ({"4a": "cached", "4b": "glance refused"}, "4b"),
    "neutron is overloaded": ({"4b": "neutron 503"}, "4b"),
    "the INSERT fails": ({"4d": "error"}, "4d"),
    "the broker refuses, no answer": ({"4e": "refused silent"}, "4e"),
    "the broker refuses": ({"4e": "refused"}, "4e"),
}


@pytest.mark.parametrize("stop", STOPS)
def test_the_inner_address_of_an_api_that_clients_ask_itself_is_found(stop: str, tmp_path: Path) -> None:
    """Nothing that nova-api sends inside names it, and no message of a creation was seen before."""
    breaks, step = STOPS[stop]
    verdict = judged(tmp_path, portal=False, proxy=False, breaks=breaks)
    assert (verdict.verdict, verdict.stopped_at) == ("deviates", step)
    assert not {"missing", "unobserved"} & set(statuses(verdict).values())
    assert {call.caller for call in verdict.calls} == {"admin", "nova-api"}
    assert "lb" not in {call.callee for call in verdict.calls}


@pytest.mark.parametrize("stop", STOPS)
def test_behind_a_load_balancer_the_same_stops_are_told(stop: str, tmp_path: Path) -> None:
    breaks, step = STOPS[stop]
    verdict = judged(tmp_path, portal=False, breaks=breaks)
    assert verdict.stopped_at == step
    assert "External_api REST admin > lb" in " ".join(call.line for call in verdict.calls)
