"""Whole creations, broken at each step in each way: captures in, the documented answer out."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from lab.judging import judge, kinds, note_kinds, only, run, statuses
from rich.console import Console

from tracer.engine import Settings, calls
from tracer.model import Verdict
from tracer.reports import console, ladder
from tracer.reports.calls import write_lines, write_text
from tracer.reports.json import render as render_json
from tracer.testing.cloud import COLOCATED, COLOCATED_TAPS, NO_HOST, QUOTA_TEXT, SECRETS, SPREAD, Cloud
from tracer.testing.creation import Creation

Breaks = Mapping[str, str]
TWO = ({"compute1": {}, "compute2": {}},)


class Case(NamedTuple):
    breaks: Breaks
    outcome: str
    stopped_at: str | None
    words: str = ""
    """What the summary says."""
    hosts: Sequence[Mapping[str, Breaks]] = ({"compute1": {}},)
    more: Mapping[str, Any] = {}  # read only


def on_host(step: str, how: str) -> Sequence[Mapping[str, Breaks]]:
    return ({"compute1": {step: how}},)


UNWELL = {"volume": True}
FAILURES = {
    "the SC refuses": Case({"1": "403"}, "rejected", "1"),
    "the SC gets no token": Case({"1": "login 503"}, "rejected", "2"),
    "the SC never answers": Case(
        {"1": "silent"}, "stuck", "2", "owed by sc: sc never answered POST /sc/cloudhosts"
    ),
    "the SC's login is never answered": Case(
        {"1": "login silent"}, "stuck", "2", "lb owes sc the answer to POST /v3/auth/tokens"
    ),
    "the LB answers 503 itself": Case({"3": "503"}, "rejected", "3"),
    "the LB answers 504 itself": Case({"3": "504"}, "rejected", "3"),
    "keystone refuses connections": Case({"4a": "refused"}, "rejected", "4a", "keystone"),
    "keystone answers 503": Case({"4a": "503"}, "rejected", "4a", "keystone answered 503"),
    "keystone never answers": Case({"4a": "unanswered"}, "rejected", "4a", "keystone never answered"),
    "keystone does not know the token": Case(
        {"4a": "404"}, "rejected", "4a", "keystone does not know the token"
    ),
    "the body is not valid": Case({"4b": "400"}, "rejected", "4b", "Invalid input for field"),
    "the image is not there": Case({"4b": "glance 404"}, "rejected", "4b", "Can not find requested image"),
    "glance refuses connections": Case({"4b": "glance refused"}, "rejected", "4b", "glance-api"),
    "neutron refuses nova-api": Case({"4b": "neutron refused"}, "rejected", "4b", "neutron-server"),
    "neutron answers nova-api 503": Case(
        {"4b": "neutron 503"}, "rejected", "4b", "neutron-server answered 503"
    ),
    "policy forbids it": Case({"4b": "403"}, "rejected", "4b", "Policy doesn't allow"),
    "the quota is exceeded": Case({"4c": "403"}, "rejected", "4c", QUOTA_TEXT),
    "the quota cannot be read": Case({"4c": "error"}, "rejected", "4c", "Lost connection"),
    "the request cannot be recorded": Case({"4d": "error"}, "rejected", "4d", "Lock wait timeout"),
    "the broker refuses, 500": Case({"4e": "refused"}, "rejected", "4e", "refused"),
    "the broker refuses, no answer": Case({"4e": "refused silent"}, "stuck", "4e", "owed by nova-api"),
    "4e is unroutable, 500": Case({"4e": "unroutable"}, "rejected", "4e", "312"),
    "4e is unroutable, 202": Case({"4e": "unroutable 202"}, "stuck", "4e", "could not be routed"),
    "the broker nacks 4e": Case({"4e": "nacked"}, "rejected", "4e"),
    "4e is never delivered": Case({"4e": "undelivered"}, "stuck", "5", "owed by nova-conductor"),
    "4e is never acknowledged": Case({"4e": "unacked"}, "stuck", "5", "not acknowledged"),
    "nova-conductor falls silent": Case({"4e": "stop"}, "stuck", "5", "owed by nova-conductor"),
    "5 is never delivered": Case({"5": "undelivered"}, "error", "6", "never delivered"),
    "5 is never delivered, no error": Case({"5": "undelivered stop"}, "stuck", "6", "owed by nova-scheduler"),
    "nova-scheduler never answers": Case({"6": "silent"}, "error", "6", "never answered"),
    "nova-scheduler falls silent": Case({"6": "stop"}, "stuck", "6", "owed by nova-scheduler"),
    "no valid host": Case({"6": "failure"}, "error", "6", NO_HOST),
    "7 is never sent": Case({}, "stuck", "7", "owed by nova-conductor", on_host("7", "stop")),
    "7 is never delivered": Case(
        {}, "stuck", "8b", "owed by nova-compute on compute1", on_host("7", "undelivered")
    ),
    "7 is never acknowledged": Case({}, "stuck", "8b", "owed by nova-compute", on_host("7", "unacked")),
    "7 is unroutable": Case({}, "stuck", "7", "could not be routed", on_host("7", "unroutable")),
    "nova-compute falls silent": Case({}, "stuck", "8b", "owed by nova-compute", on_host("7", "silence")),
    "cinder answers 500": Case({}, "error", "8a", "cinder-api answered 500", on_host("8a", "500"), UNWELL),
    "cinder refuses": Case({}, "error", "8a", "cinder-api", on_host("8a", "refused"), UNWELL),
    "cinder never answers": Case({}, "error", "8a", "cinder-api", on_host("8a", "unanswered"), UNWELL),
    "cinder is silent": Case({}, "stuck", "8a", "", on_host("8a", "silent"), UNWELL),
    "neutron answers 503": Case({}, "error", "8b", "neutron-server answered 503", on_host("8b", "503")),
    "neutron refuses": Case({}, "error", "8b", "neutron-server", on_host("8b", "refused")),
    "neutron never answers": Case(
        {}, "error", "8b", "neutron-server never answered", on_host("8b", "unanswered")
    ),
    "neutron is silent": Case({}, "stuck", "8b", "", on_host("8b", "silent")),
    "the VRM answers 500": Case({}, "error", "8c", "the VRM is unwell", on_host("8c", "500")),
    "the VRM refuses": Case({}, "error", "8c", "refused the connection", on_host("8c", "refused")),
    "the VRM never answers": Case({}, "error", "8c", "vrm never answered", on_host("8c", "unanswered")),
    "the VRM is silent": Case({}, "stuck", "8c", "", on_host("8c", "silent")),
    "the VRM's task fails": Case({}, "error", "8c", "the datastore is full", on_host("8c", "task failed")),
    "the VRM's start fails": Case({}, "error", "8c", "no host has the memory", on_host("8c", "start fails")),
    "the VRM fails on both hosts": Case(
        {}, "error", "8c", "", ({"compute1": {"8c": "500"}, "compute2": {"8c": "task failed"}},)
    ),
    "the VRM, then neutron": Case(
        {}, "error", "8b", "", ({"compute1": {"8c": "500"}, "compute2": {"8b": "503"}},)
    ),
    "the second host is never asked": Case(
        {},
        "stuck",
        "8b",
        "nova-compute on compute2",
        ({"compute1": {"8c": "500"}, "compute2": {"7": "undelivered"}},),
    ),
}


def failures(layout: str) -> list[Any]:
    return list(FAILURES)


def assert_failed_as(case: Case, verdict: Verdict) -> None:
    assert (verdict.outcome, verdict.stopped_at) == (case.outcome, case.stopped_at), verdict.summary
    assert verdict.verdict == "deviates"
    failed = case.outcome in ("rejected", "error")
    assert kinds(verdict) == [("failed" if failed else "stalled", case.stopped_at)], verdict.deviations
    assert case.words in verdict.summary
    found = statuses(verdict)
    if failed:
        assert found[str(case.stopped_at)] == "failed"
    order = list(found)
    at = order.index(str(case.stopped_at))
    before = {step: found[step] for step in order[:at] if step != "8a"}
    assert set(before.values()) <= {"seen", "inferred"}, before
    # Outside of the step that failed the request was seen to go; beside 8a goes 8b.
    beside = {"seen", "inferred"} if case.stopped_at in ("1", "2", "8a") else set()
    after = {step: found[step] for step in order[at + 1 :]}
    assert set(after.values()) <= {"not_reached"} | beside, after


@pytest.mark.parametrize("name", failures("spread"))
def test_each_failure_is_told_at_its_step(name: str, tmp_path: Path) -> None:
    """An address for each service: outcome, step and one deviation are the documented ones."""
    case = FAILURES[name]
    report = run(tmp_path, breaks=case.breaks, hosts=case.hosts, **case.more)
    assert_failed_as(case, only(report))


@pytest.mark.parametrize("name", failures("colocated"))
def test_each_failure_is_told_on_one_controller(name: str, tmp_path: Path) -> None:
    """All services on one address behind a virtual one, captured on the hosts: the same answers."""
    case = FAILURES[name]
    report = run(tmp_path, COLOCATED, breaks=case.breaks, hosts=case.hosts, **case.more)
    assert_failed_as(case, only(report))


# --- success ----------------------------------------------------------------------------------------

LAYOUTS = {"spread": SPREAD, "colocated": COLOCATED}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ends", ["saved", "poll"])
def test_a_healthy_creation_conforms(layout: str, ends: str, tmp_path: Path) -> None:
    """Active by Instance.save or by the SC's poll alone; each step seen, the optional one skipped."""
    verdict = only(run(tmp_path, LAYOUTS[layout], ends=ends))
    assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("conforms", "active", None)
    found = statuses(verdict)
    assert found.pop("8a") == "skipped"
    assert set(found.values()) == {"seen"}
    assert (verdict.attempts, verdict.compute_host, verdict.name) == (("compute1",), "compute1", "web-1")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_boot_from_volume_shows_8a(layout: str, tmp_path: Path) -> None:
    """8a is seen, with the note that it is REST where RPC is documented."""
    verdict = only(run(tmp_path, LAYOUTS[layout], volume=True))
    assert verdict.verdict == "conforms"
    assert statuses(verdict)["8a"] == "seen"
    assert ("mode", "8a") in [(n.kind, n.step) for n in verdict.notes]


def test_a_boot_from_volume_without_cinder_is_not_skipped(tmp_path: Path) -> None:
    """The request names a volume: cinder's traffic is not captured, so 8a could not be seen."""

    def without_cinder(cloud: Cloud) -> None:
        cloud.network.events = [e for e in cloud.network.events if e[1].server[1] != 8776]

    verdict = only(run(tmp_path, volume=True, change=without_cinder))
    assert (verdict.outcome, statuses(verdict)["8a"]) == ("active", "unobserved")


def test_a_boot_from_volume_that_never_asked_cinder(tmp_path: Path) -> None:
    """Another VM's storage was seen to pass here, and of this one nothing: missing."""
    cloud = Cloud()
    cloud.background(0, 260)
    Creation(cloud, at=100, name="good", volume=True).run()
    Creation(cloud, at=120, name="bad", volume=True, hosts=({"compute1": {"8a": "left out"}},)).run()
    found = {verdict.name: verdict for verdict in judge(cloud, tmp_path).verdicts}
    assert found["good"].verdict == "conforms"
    assert kinds(found["bad"]) == [("missing", "8a")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_cached_token_is_inferred(layout: str, tmp_path: Path) -> None:
    """4a leaves nothing on the wire while the token is cached: inferred, and conforms."""
    verdict = only(run(tmp_path, LAYOUTS[layout], breaks={"4a": "cached"}))
    assert (verdict.verdict, statuses(verdict)["4a"]) == ("conforms", "inferred")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", ["500", "refused", "unanswered", "task failed"])
def test_a_reschedule_that_succeeds_conforms(how: str, layout: str, tmp_path: Path) -> None:
    """A note retry, two attempts, steps of the last one."""
    verdict = only(run(tmp_path, LAYOUTS[layout], hosts=({"compute1": {"8c": how}, "compute2": {}},)))
    assert (verdict.verdict, verdict.outcome) == ("conforms", "active"), verdict.deviations
    assert (verdict.attempts, verdict.compute_host) == (("compute1", "compute2"), "compute2")
    assert "retry" in note_kinds(verdict)
    assert statuses(verdict)["8c"] == "seen"
    assert [a.stopped_at for a in verdict.attempt_details] == ["8c", None]


def test_both_hosts_fail(tmp_path: Path) -> None:
    """Error at the step of the last attempt; each attempt tells its own step and words."""
    hosts = ({"compute1": {"8c": "500"}, "compute2": {"8c": "task failed"}},)
    verdict = only(run(tmp_path, hosts=hosts))
    assert (verdict.outcome, verdict.stopped_at, verdict.compute_host) == ("error", "8c", "compute2")
    told = [(a.host, a.stopped_at, a.error) for a in verdict.attempt_details]
    assert told == [("compute1", "8c", "the VRM is unwell"), ("compute2", "8c", "the datastore is full")]


def test_a_session_that_ran_out_is_no_failure(tmp_path: Path) -> None:
    """The VRM's 401, a new login and the same request again are normal."""
    verdict = only(run(tmp_path, hosts=({"compute1": {"8c": "401"}},)))
    assert (verdict.verdict, verdict.outcome) == ("conforms", "active"), verdict.deviations


def test_redelivery_is_noted(tmp_path: Path) -> None:
    """A message delivered twice is one step."""
    verdict = only(run(tmp_path, hosts=({"compute1": {"7": "redelivered"}},)))
    assert verdict.verdict == "conforms"
    assert verdict.attempts == ("compute1",)
    assert "redelivered" in note_kinds(verdict)


def test_a_capture_that_ends_first_is_unfinished(tmp_path: Path) -> None:
    """Less than the stall limit behind the last call nothing is said to be stuck."""
    verdict = only(run(tmp_path, until=130, breaks={"4e": "undelivered"}))
    assert (verdict.outcome, verdict.verdict, verdict.stopped_at) == ("unfinished", "inconclusive", "5")
    assert (
        only(run(tmp_path, until=130, breaks={"4e": "undelivered"}, settings=Settings(stall_s=15))).outcome
        == "stuck"
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_vrm_alone_tells_active(layout: str, tmp_path: Path) -> None:
    """Neither saved nor polled: the start at the VRM was seen to succeed."""
    verdict = only(run(tmp_path, LAYOUTS[layout], ends="nothing", polls=False))
    assert (verdict.outcome, verdict.verdict) == ("active", "conforms"), verdict.summary


def test_a_start_whose_end_was_not_seen_is_not_active(tmp_path: Path) -> None:
    """Asked to start, never seen to succeed, and silence: stuck at 8c."""
    hosts = on_host("8c", "start unknown")
    verdict = only(run(tmp_path, hosts=hosts, ends="nothing", polls=False))
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", "8c"), verdict.summary


def test_the_first_call_through_a_virtual_address_is_understood(tmp_path: Path) -> None:
    """A capture that begins with the creation: 4a is seen though nothing went that way before."""
    cloud = Cloud(COLOCATED)
    Creation(cloud).run()
    cloud.background(150, 200)
    assert statuses(only(judge(cloud, tmp_path)))["4a"] == "seen"


# --- what is not there ------------------------------------------------------------------------------

LEFT_OUT = {
    "1": "missing",
    # nova-api has the request from the load balancer, which had it from somebody.
    "2": "unobserved",
    "4a": "inferred",
    "4b": "inferred",
    "4c": "missing",
    "4d": "missing",
    "4e": "missing",
    "5": "missing",
    "7": "missing",
    "8b": "missing",
    "8c": "missing",
}


def left_out(step: str) -> dict[str, Any]:
    if step in ("7", "8b", "8c"):
        return {"hosts": on_host(step, "left out")}
    return {"breaks": {step: "left out"}}


@pytest.mark.parametrize(
    "layout, step",
    [(layout, step) for layout in LAYOUTS for step in LEFT_OUT],
)
def test_a_step_that_never_came(step: str, layout: str, tmp_path: Path) -> None:
    """Another creation shows that the step would be in the captures: missing, or inferred where it may be."""
    cloud = Cloud(LAYOUTS[layout])
    cloud.background(0, 260)
    Creation(cloud, at=80, name="other").run()
    Creation(cloud, at=100, **left_out(step)).run()
    verdict = next(v for v in judge(cloud, tmp_path).verdicts if v.name == "web-1")
    assert verdict.outcome == "active"
    assert statuses(verdict)[step] == LEFT_OUT[step], verdict.steps
    missing = [("missing", step)] if LEFT_OUT[step] == "missing" else []
    if step == "5":
        # A reply is known by the call that it answers: without 5, 6 cannot be told. One finding, not two.
        assert statuses(verdict)["6"] == "unobserved"
    assert kinds(verdict) == missing, verdict.deviations
    otherwise = "inconclusive" if LEFT_OUT[step] == "unobserved" else "conforms"
    assert verdict.verdict == ("deviates" if missing else otherwise)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_state_in_error_names_no_step(layout: str, tmp_path: Path) -> None:
    """7 was never sent, and nova put the VM in error: what was seen last, and what may have failed."""
    verdict = only(run(tmp_path, LAYOUTS[layout], hosts=on_host("7", "error")))
    assert (verdict.outcome, verdict.stopped_at, verdict.stopped_between) == ("error", None, ("6", "7"))
    assert "after step 6, at step 7 at the latest" in verdict.summary


def without(port: int) -> Any:
    def change(cloud: Cloud) -> None:
        cloud.network.events = [e for e in cloud.network.events if e[1].server[1] != port]

    return change


BLIND = {
    "SQL": (3306, {"4c", "4d"}),
    "AMQP": (5672, {"4e", "5", "6", "7"}),
    "nova-api": (8774, {"2", "3", "4c"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("what", BLIND)
def test_what_is_not_captured_is_unobserved(what: str, layout: str, tmp_path: Path) -> None:
    """Without a port the steps on it are unobserved, none is missing, and the verdict is inconclusive."""
    port, steps = BLIND[what]
    report = run(tmp_path, LAYOUTS[layout], change=without(port))
    verdict = only(report)
    found = statuses(verdict)
    assert verdict.deviations == ()
    assert (verdict.verdict, verdict.outcome) == ("inconclusive", "active")
    assert {step for step, status in found.items() if status == "unobserved"} >= steps, found
    assert "missing" not in found.values()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_a_vrm_nova_itself_is_believed(layout: str, tmp_path: Path) -> None:
    """A VRM that was not captured looks like a hypervisor that no packet shows. A note says so."""
    report = run(tmp_path, LAYOUTS[layout], change=without(7070))
    verdict = only(report)
    assert (verdict.verdict, verdict.outcome, statuses(verdict)["8c"]) == ("conforms", "active", "inferred")
    assert [note.step for note in verdict.notes if note.kind == "absent"] == ["8c"]


def test_statements_lost_in_a_hole_are_unobserved(tmp_path: Path) -> None:
    """Bytes of the database connection are missing at that time: nothing is said of 4c."""
    verdict = only(run(tmp_path, breaks={"4c": "lost"}))
    assert statuses(verdict)["4c"] == "unobserved"
    assert (verdict.verdict, verdict.deviations) == ("inconclusive", ())


@pytest.mark.parametrize(
    "plane, steps",
    [
        ("External_api", {"1", "2"}),
        ("Internal_base", {"3", "4c", "4d", "4e", "5", "6", "7", "8a", "8b", "8c"}),
    ],
)
def test_one_plane_alone(plane: str, steps: set[str], tmp_path: Path) -> None:
    """The other plane's steps are unobserved; without Internal_base the SC's poll still tells the outcome."""
    other = {"External_api": "Internal_base", "Internal_base": "External_api"}[plane]

    def change(cloud: Cloud) -> None:
        points_of = cloud.network.points_of
        cloud.network.points_of = lambda a, b: [p for p in points_of(a, b) if p == other]

    verdict = only(run(tmp_path, change=change))
    assert (verdict.verdict, verdict.outcome) == ("inconclusive", "active")
    assert {step for step, status in statuses(verdict).items() if status == "unobserved"} == steps


def test_taps_beside_a_controller(tmp_path: Path) -> None:
    """What stays on one host is unobserved; the halves of the creation are joined by the delivered 7."""
    verdict = only(run(tmp_path, COLOCATED_TAPS))
    assert (verdict.verdict, verdict.outcome, verdict.deviations) == ("inconclusive", "active", ())
    seen = {step for step, status in statuses(verdict).items() if status == "seen"}
    assert seen == {"1", "2", "7", "8b", "8c"}
    unobserved = {step for step, status in statuses(verdict).items() if status == "unobserved"}
    assert unobserved == {"3", "4c", "4d", "4e", "5", "6"}


def test_taps_beside_a_controller_whose_scheduler_is_down(tmp_path: Path) -> None:
    """A 202 and a poll with ERROR: error, somewhere between 2 and 7."""
    verdict = only(run(tmp_path, COLOCATED_TAPS, breaks={"5": "undelivered"}))
    assert (verdict.outcome, verdict.stopped_at, verdict.stopped_between) == ("error", None, ("2", "7"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("since", [100.09, 100.12, 100.2, 100.22, 100.235, 100.27, 100.285])
def test_a_capture_that_began_too_late(since: float, layout: str, tmp_path: Path) -> None:
    """What may lie before the capture's first packet is unobserved, not missing, whatever came last."""

    def change(cloud: Cloud) -> None:
        cloud.network.events = [e for e in cloud.network.events if e[0] >= since]

    report = run(tmp_path, LAYOUTS[layout], change=change)
    verdict = only(report)
    assert verdict.outcome == "active"
    assert verdict.deviations == (), statuses(verdict)
    assert "missing" not in statuses(verdict).values()
    assert verdict.verdict == "inconclusive"


# --- the wrong place, the wrong way -----------------------------------------------------------------


@pytest.mark.parametrize(
    "step, plane",
    [("1", "Internal_base"), ("2", "Internal_base"), ("4a", "External_api"), ("8b", "External_api")],
)
def test_a_call_on_the_wrong_plane(step: str, plane: str, tmp_path: Path) -> None:
    """The right message on the wrong plane is a deviation of its own kind."""
    verdict = only(run(tmp_path, on={step: plane}))
    assert verdict.outcome == "active"
    assert kinds(verdict) == [("plane", step)], verdict.deviations
    assert statuses(verdict)[step] == "seen"


def test_the_vrm_may_be_on_any_plane(tmp_path: Path) -> None:
    """8c is documented without a plane."""
    assert only(run(tmp_path, on={"8c": "External_om"})).verdict == "conforms"


def test_the_literal_grammar_wants_the_documented_mode(tmp_path: Path) -> None:
    """REST where RPC is documented deviates there, by kind mode."""
    settings = Settings(grammar="cloudvm_create_literal")
    verdict = only(run(tmp_path, settings=settings, volume=True))
    assert verdict.outcome == "active"
    assert kinds(verdict) == [("mode", "8a"), ("mode", "8b")], verdict.deviations


def test_what_is_allowed_does_not_deviate(tmp_path: Path) -> None:
    """--allow turns a deviation into a note."""
    verdict = only(run(tmp_path, settings=Settings(allow=("plane:8b",)), on={"8b": "External_api"}))
    assert (verdict.verdict, verdict.deviations) == ("conforms", ())
    assert ("allowed", "8b") in [(n.kind, n.step) for n in verdict.notes]


# --- several ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_request_for_two_gives_two(layout: str, tmp_path: Path) -> None:
    """min_count 2: one trace per VM, ids of request and VM, on the host that each was built on."""
    report = run(tmp_path, LAYOUTS[layout], hosts=({"compute1": {}}, {"compute2": {}}))
    assert [v.verdict for v in report.verdicts] == ["conforms", "conforms"], [
        v.summary for v in report.verdicts
    ]
    assert {v.id for v in report.verdicts} == {f"{v.request_id}/{v.server_id}" for v in report.verdicts}
    assert sorted(v.attempts for v in report.verdicts) == [("compute1",), ("compute2",)]
    for verdict in report.verdicts:
        lines = [c for s in verdict.steps if s.step in ("7", "8b", "8c") for c in s.calls]
        assert len([c for c in lines if c.operation == "cast build_and_run_instance"]) == 1
        assert len([c for c in lines if c.operation == "POST /v2.0/ports"]) == 1


def test_of_two_one_fails(tmp_path: Path) -> None:
    """The one whose host fails deviates, the other conforms."""
    report = run(tmp_path, hosts=({"compute1": {}}, {"compute2": {"8b": "503"}}))
    found = {v.compute_host: (v.verdict, v.outcome, v.stopped_at) for v in report.verdicts}
    assert found == {"compute1": ("conforms", "active", None), "compute2": ("deviates", "error", "8b")}


def test_a_refused_request_for_two_is_one(tmp_path: Path) -> None:
    """No VM has an id yet: one trace."""
    verdict = only(run(tmp_path, breaks={"4c": "403"}, hosts=({"compute1": {}}, {"compute2": {}})))
    assert (verdict.outcome, verdict.stopped_at, verdict.server_id) == ("rejected", "4c", None)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("apart", [0.004, 0.05, 0.3, 5.0])
def test_two_at_once_with_one_token(apart: float, layout: str, tmp_path: Path) -> None:
    """Two creations through one nova-api with one token: each has its own calls, both conform."""
    cloud = Cloud(LAYOUTS[layout])
    cloud.background(0, 260)
    first = Creation(cloud, at=100, name="web-1").run()
    second = Creation(cloud, at=100 + apart, name="web-2", hosts=({"compute2": {}},)).run()
    found = {v.name: v for v in judge(cloud, tmp_path).verdicts}
    assert sorted(found) == ["web-1", "web-2"]
    for made in (first, second):
        verdict = found[made.name]
        assert verdict.verdict == "conforms", (verdict.summary, verdict.deviations)
        assert (verdict.request_id, verdict.server_id) == (made.request_id, made.server_ids[0])
        asked = [c for c in verdict.calls if c.operation == "cast build_and_run_instance"]
        assert len(asked) == 1


def test_two_at_once_one_over_quota(tmp_path: Path) -> None:
    """The refusal of one is not the other's, and not the other's name."""
    cloud = Cloud()
    cloud.background(0, 260)
    Creation(cloud, at=100, name="web-1").run()
    Creation(cloud, at=100.05, name="web-2", breaks={"4c": "403"}).run()
    found = {v.name: (v.verdict, v.outcome, v.stopped_at) for v in judge(cloud, tmp_path).verdicts}
    assert found == {"web-1": ("conforms", "active", None), "web-2": ("deviates", "rejected", "4c")}


@pytest.mark.parametrize(
    ("apart", "orders"),
    [
        (5.0, {"web-1": ("2", None), "web-2": ("1", None)}),
        (0.002, {"web-1": (None, ("1", "2")), "web-2": (None, ("1", "2"))}),
    ],
)
def test_two_orders_refused_by_the_sc(
    apart: float, orders: dict[str, tuple[str | None, tuple[str, str] | None]], tmp_path: Path
) -> None:
    """One gets no token, the other is not allowed. At once, whose login failed is not known."""
    cloud = Cloud()
    cloud.background(0, 260)
    Creation(cloud, at=100, name="web-1", breaks={"1": "login 503"}).run()
    Creation(cloud, at=100 + apart, name="web-2", breaks={"1": "403"}).run()
    found = judge(cloud, tmp_path).verdicts
    assert {v.name: (v.stopped_at, v.stopped_between) for v in found} == orders
    assert {v.outcome for v in found} == {"rejected"}


def test_no_creation_no_trace(tmp_path: Path) -> None:
    """Noise alone gives no trace, and says what was there instead."""
    cloud = Cloud()
    cloud.background(0, 60)
    report = judge(cloud, tmp_path)
    assert report.verdicts == []
    assert dict(report.seen)["creations of a server"] == 0
    assert dict(report.seen)["packets"] > 0


# --- secrets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("breaks", [{}, {"4c": "403"}, {"4d": "error"}, {"4a": "404"}, {"4e": "unroutable"}])
def test_no_secret_gets_out(breaks: Breaks, layout: str, tmp_path: Path) -> None:
    """Neither in a report of any kind nor in the repr of anything that one is made of."""
    cloud = Cloud(LAYOUTS[layout])
    cloud.background(0, 120)
    Creation(cloud, breaks=breaks, volume=True).run()
    report = judge(cloud, tmp_path)
    records = list(calls([str(tmp_path)], Settings()))
    page = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    screen = Console(file=page, width=200)
    console.render(report, screen, verbose=2)
    ladder.render(only(report), report, screen, verbose=2)
    write_text(records, page)
    write_lines(records, page)
    page.seek(0)
    shown = page.read() + render_json(report).decode() + repr(report) + repr(records)
    assert "web-1" in shown
    for what, secret in SECRETS.items():
        assert secret not in shown, what
