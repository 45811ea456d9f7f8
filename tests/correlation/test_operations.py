"""Workflows on a server that is there: which calls belong to which, and how they end."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.judging import judge, kinds, only, statuses

from tracer.engine import Settings
from tracer.model import Report, Verdict
from tracer.testing.cloud import COLOCATED, SPREAD, TOKEN, Cloud
from tracer.testing.creation import Creation
from tracer.testing.operations import Operation

LAYOUTS = {"spread": SPREAD, "colocated": COLOCATED}
DELETE = Settings(grammar="server_delete")
STOP = Settings(grammar="server_stop")


@pytest.fixture
def cloud() -> Cloud:
    made = Cloud()
    made.background(0, 260)
    return made


def by_server(report: Report) -> dict[str | None, Verdict]:
    found = {verdict.server_id: verdict for verdict in report.verdicts}
    assert len(found) == len(report.verdicts)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stops", [False, True])
def test_a_good_run_is_done(layout: str, stops: bool, tmp_path: Path) -> None:
    """One trace with the ids of the request and of the server in its path; no step but 4b is inferred."""
    cloud = Cloud(LAYOUTS[layout])
    cloud.background(0, 130)
    made = Operation(cloud, cloud.fresh_id(), stops=stops).run()
    verdict = only(judge(cloud, tmp_path, STOP if stops else DELETE))
    assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("conforms", "done", None), (
        verdict.summary
    )
    assert (verdict.id, verdict.server_id) == (made.request_id, made.server_id)
    assert verdict.compute_host == "compute1"
    optional = {} if stops else {"6c": "skipped"}
    assert {s: k for s, k in statuses(verdict).items() if k != "seen"} == {"4b": "inferred"} | optional


def test_each_workflow_exists_only_under_its_grammar(cloud: Cloud, tmp_path: Path) -> None:
    """A server that is made, stopped and deleted in one capture: a trace each, and none of the others."""
    made = Creation(cloud, name="web-1").run()
    server_id = made.server_ids[0]
    stop = Operation(cloud, server_id, at=120, stops=True).run()
    delete = Operation(cloud, server_id, at=140).run()
    for grammar, request_id, outcome in (
        ("cloudvm_create", made.request_id, "active"),
        ("server_stop", stop.request_id, "done"),
        ("server_delete", delete.request_id, "done"),
    ):
        folder = tmp_path / grammar
        folder.mkdir()
        verdict = only(judge(cloud, folder, Settings(grammar=grammar)))
        assert (verdict.request_id, verdict.outcome, verdict.verdict) == (request_id, outcome, "conforms")
        assert verdict.name == "web-1"


def test_a_stop_and_a_delete_right_behind_it(cloud: Cloud, tmp_path: Path) -> None:
    """What the second request brings about is none of the first's, although it names the same server."""
    server_id = cloud.fresh_id()
    first = Operation(cloud, server_id, at=100, stops=True).run()
    second = Operation(cloud, server_id, at=first.now + 0.3).run()
    (tmp_path / "stop").mkdir()
    verdict = only(judge(cloud, tmp_path / "stop", STOP))
    assert (verdict.request_id, verdict.verdict, kinds(verdict)) == (first.request_id, "conforms", [])
    (tmp_path / "delete").mkdir()
    verdict = only(judge(cloud, tmp_path / "delete", DELETE))
    assert (verdict.request_id, verdict.verdict, kinds(verdict)) == (second.request_id, "conforms", [])


REFUSED = [
    # what goes wrong, where it stopped, words of the summary
    ({"1": "403"}, "1", "sc answered 403"),
    ({"3": "503"}, "3", "lb answered 503"),
    ({"4a": "401"}, "4a", "answered 401"),
    ({"4b": "404"}, "4b", "Instance could not be found."),
    ({"4b": "409"}, "4b", "Cannot do this while it is in vm_state error"),
    ({"4c": "error"}, "4c", "Deadlock found"),
]


@pytest.mark.parametrize("breaks, stopped, words", REFUSED)
@pytest.mark.parametrize("stops", [False, True])
def test_a_refused_request(
    cloud: Cloud, breaks: dict[str, str], stopped: str, words: str, stops: bool, tmp_path: Path
) -> None:
    """Rejected, at the innermost step, with the fault's own words; one trace although nothing came of it."""
    Operation(cloud, cloud.fresh_id(), stops=stops, breaks=breaks).run()
    verdict = only(judge(cloud, tmp_path, STOP if stops else DELETE))
    assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("deviates", "rejected", stopped)
    assert words in verdict.summary
    assert kinds(verdict) == [("failed", stopped)]


FAILED = [
    (False, {"6": "500"}, "6a", "vrm answered 500"),
    (False, {"6": "refused"}, "6a", "refused the connection of nova-compute"),
    (False, {"6": "unanswered"}, "6a", "vrm never answered"),
    (False, {"6b": "503"}, "6b", "neutron is unwell"),
    (True, {"6": "500"}, "6", "the VRM is unwell"),
    (True, {"6": "refused"}, "6", "refused the connection of nova-compute"),
]


@pytest.mark.parametrize("stops, breaks, stopped, words", FAILED)
def test_an_accepted_request_that_failed(
    cloud: Cloud, stops: bool, breaks: dict[str, str], stopped: str, words: str, tmp_path: Path
) -> None:
    """In error, at the step whose call failed; what records the error is no last step."""
    Operation(cloud, cloud.fresh_id(), stops=stops, breaks=breaks).run()
    verdict = only(judge(cloud, tmp_path, STOP if stops else DELETE))
    assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("deviates", "error", stopped), (
        verdict.summary
    )
    assert words in verdict.summary
    assert statuses(verdict)["7"] == "not_reached"  # what was recorded is the error


STUCK = [
    ({"5": "undelivered"}, "6a", "nova-compute on compute1"),
    ({"6": "silent"}, "6a", "nova-compute"),
    ({"7": "left out"}, "7", "nova-compute"),
]


@pytest.mark.parametrize("breaks, stopped, owed", STUCK)
def test_a_request_of_which_nothing_more_comes(
    cloud: Cloud, breaks: dict[str, str], stopped: str, owed: str, tmp_path: Path
) -> None:
    """Stuck before the step that is owed, and by whom."""
    Operation(cloud, cloud.fresh_id(), breaks=breaks).run()
    verdict = only(judge(cloud, tmp_path, DELETE))
    assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("deviates", "stuck", stopped), (
        verdict.summary
    )
    assert owed in verdict.summary


def test_the_capture_ends_first(tmp_path: Path) -> None:
    """Unfinished, which is neither good nor bad."""
    cloud = Cloud()
    cloud.background(0, 110)
    Operation(cloud, cloud.fresh_id(), breaks={"5": "undelivered"}).run()
    verdict = only(judge(cloud, tmp_path, DELETE))
    assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("inconclusive", "unfinished", "6a")


def test_the_same_asked_twice(cloud: Cloud, tmp_path: Path) -> None:
    """A delete that is refused, and a second one: two traces of one server."""
    server_id = cloud.fresh_id()
    first = Operation(cloud, server_id, at=100, breaks={"4b": "409"}).run()
    second = Operation(cloud, server_id, at=103).run()
    report = judge(cloud, tmp_path, DELETE)
    assert [(v.id, v.outcome) for v in report.verdicts] == [
        (first.request_id, "rejected"),
        (second.request_id, "done"),
    ]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_many_at_once_are_told_apart(layout: str, tmp_path: Path) -> None:
    """Ten deletes within a second with one token, some refused; of VMs made before the capture."""
    cloud = Cloud(LAYOUTS[layout])
    cloud.background(0, 200)
    made = [
        Operation(
            cloud, cloud.fresh_id(), at=100 + n * 0.09, host=f"compute{n % 3 + 1}", vm=f"i-0000{n:04d}",
            breaks={"4b": "404"} if n % 4 == 3 else {}, token=TOKEN,
        ).run()
        for n in range(10)
    ]  # fmt: skip
    found = by_server(judge(cloud, tmp_path, DELETE))
    assert set(found) == {operation.server_id for operation in made}
    for n, operation in enumerate(made):
        verdict = found[operation.server_id]
        assert verdict.outcome == ("rejected" if n % 4 == 3 else "done"), verdict.summary
        assert verdict.verdict == ("deviates" if n % 4 == 3 else "conforms"), verdict.deviations


def test_the_messages_alone_make_the_trace(cloud: Cloud, tmp_path: Path) -> None:
    """Only the broker's port captured: the request and the server are in terminate_instance."""
    made = Operation(cloud, cloud.fresh_id()).run()
    cloud.network.events = [e for e in cloud.network.events if e[1].server[1] == 5672]
    verdict = only(judge(cloud, tmp_path, DELETE))
    assert (verdict.request_id, verdict.server_id) == (made.request_id, made.server_id)
    assert "missing" not in statuses(verdict).values()
    assert verdict.deviations == ()


def test_without_the_database_the_end_is_what_can_be_seen(cloud: Cloud, tmp_path: Path) -> None:
    """What the host saves shows the end; the verdict is inconclusive, because step 4c is SQL alone."""
    Operation(cloud, cloud.fresh_id()).run()
    cloud.network.events = [e for e in cloud.network.events if e[1].server[1] != 3306]
    verdict = only(judge(cloud, tmp_path, DELETE))
    assert (verdict.outcome, verdict.verdict) == ("done", "inconclusive")
    assert (statuses(verdict)["4c"], statuses(verdict)["7"]) == ("unobserved", "seen")


def test_an_action_is_told_by_its_body(cloud: Cloud, tmp_path: Path) -> None:
    """Other actions have the same path: a reboot and a refused resize are no stops."""
    server_id = cloud.fresh_id()
    for n, body in enumerate(
        ({"reboot": {"type": "SOFT"}}, {"resize": {"flavorRef": "x"}}, {"os-start": None})
    ):
        cloud.from_outside(
            100 + n,
            "nova-api",
            "POST",
            f"/v2.1/servers/{server_id}/action",
            202 if n != 1 else 409,
            0.1,
            body=body,
        )
    assert judge(cloud, tmp_path, STOP).verdicts == []
