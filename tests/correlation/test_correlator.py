"""Which calls belong to which creation."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.judging import judge, kinds, only, statuses

from tracer.model import Report, Verdict
from tracer.testing.cloud import COLOCATED, PROJECT, SPREAD, TOKEN, Cloud, Layout
from tracer.testing.creation import Creation
from tracer.testing.messages import query, sql_ok, sql_rows

LAYOUTS = {"spread": SPREAD, "colocated": COLOCATED}


def by_name(report: Report) -> dict[str | None, Verdict]:
    found = {v.name: v for v in report.verdicts}
    assert len(found) == len(report.verdicts)
    return found


def operations(verdict: Verdict) -> list[str]:
    return [call.operation for call in verdict.calls]


@pytest.fixture
def cloud() -> Cloud:
    made = Cloud()
    made.background(0, 260)
    return made


def test_ids_are_the_request_the_server_and_the_project(cloud: Cloud, tmp_path: Path) -> None:
    made = Creation(cloud).run()
    verdict = only(judge(cloud, tmp_path))
    assert (verdict.id, verdict.request_id) == (made.request_id, made.request_id)
    assert (verdict.server_id, verdict.project_id, verdict.name) == (made.server_ids[0], PROJECT, "web-1")
    assert verdict.api_host == "172.28.0.11"


def test_no_call_of_the_noise_belongs_to_it(cloud: Cloud, tmp_path: Path) -> None:
    """Health checks, other look-ups and reports of services are nobody's."""
    Creation(cloud).run()
    verdict = only(judge(cloud, tmp_path))
    assert not {"GET /", "GET /v2.1/flavors", "GET /resource_providers/{id}/allocations"} & set(
        operations(verdict)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_validation_of_another_token_is_not_4a(layout: str, tmp_path: Path) -> None:
    """Made by the same nova-api at the same time, for somebody else."""
    cloud = Cloud(LAYOUTS[layout])
    cloud.background(0, 130)
    Creation(cloud, breaks={"4a": "cached"}).run()
    cloud.rest(
        100.12,
        "nova-api",
        "keystone",
        "GET",
        "/v3/auth/tokens",
        404,
        token="gAAAAABservice",
        headers={"X-Subject-Token": "gAAAAABanother-token-of-another-user"},
        agent="python-keystoneclient",
    )
    verdict = only(judge(cloud, tmp_path))
    assert statuses(verdict)["4a"] == "inferred"
    assert verdict.verdict == "conforms"


def test_a_refused_connection_of_another_service_is_not_its_failure(cloud: Cloud, tmp_path: Path) -> None:
    """While the creation runs, services that it has nothing to do with are refused."""
    for caller, callee, port in (("cinder-api", "keystone", 5000), ("nova-scheduler", "placement", 8778)):
        cloud.network.refuse(100.15, cloud.address[caller], cloud.address[callee], port)
    Creation(cloud).run()
    assert only(judge(cloud, tmp_path)).verdict == "conforms"


@pytest.mark.parametrize("apart", [0.0, 0.01, 0.03])
def test_quota_reads_of_two_at_once_fail_nobody(apart: float, tmp_path: Path) -> None:
    """Reads that may be of either are given to both, marked, timeless, and make no step missing."""
    cloud = Cloud()
    cloud.background(0, 130)
    for n in range(3):
        Creation(cloud, at=100 + n * apart, name=f"web-{n}").run()
    found = by_name(judge(cloud, tmp_path))
    assert [v.verdict for v in found.values()] == ["conforms"] * 3
    for verdict in found.values():
        step = next(s for s in verdict.steps if s.step == "4c")
        assert step.status == "seen"
        if any(call.ambiguous for call in step.calls):
            assert (step.started_ns, step.duration_ns) == (None, None)


def test_quota_reads_without_a_creation_are_nobodys(cloud: Cloud, tmp_path: Path) -> None:
    """A resize reads the quota too."""
    made = cloud.database("nova-api", 150)
    made.say(151, query("SELECT quotas.hard_limit AS quotas_hard_limit FROM quotas"))
    made.hear(151.1, sql_rows("1"))
    Creation(cloud, breaks={"4c": "403"}).run()
    step = next(s for s in only(judge(cloud, tmp_path)).steps if s.step == "4c")
    assert len(step.calls) == 4


def test_another_request_that_names_the_vm_is_not_part_of_it(cloud: Cloud, tmp_path: Path) -> None:
    """The resource tracker looks at its neighbours under its own request: the request id decides."""
    first = Creation(cloud, at=100, name="web-1").run()
    second = Creation(cloud, at=130, name="web-2").run()
    cloud.rest(
        130.5,
        "compute1",
        "placement",
        "GET",
        f"/allocations/{first.server_ids[0]}",
        200,
        agent="nova-compute keystoneauth1/5.0.0",
        request_id=second.request_id,
    )
    found = by_name(judge(cloud, tmp_path))
    assert "GET /allocations/{id}" not in operations(found["web-1"])
    assert "GET /allocations/{id}" in operations(found["web-2"])


def test_a_later_operation_changes_nothing(cloud: Cloud, tmp_path: Path) -> None:
    """A resize of the VM that fails: other request, same uuid; the creation conformed."""
    made = Creation(cloud).run()
    uuid, other = made.server_ids[0], cloud.fresh_id("req-")
    cloud.rest(
        150,
        "lb",
        "nova-api",
        "POST",
        f"/v2.1/servers/{uuid}/action",
        202,
        body={"resize": {}},
        headers={"X-Forwarded-For": "10.10.0.10", "Host": "10.10.0.20:8774"},
        answer_headers={"X-OpenStack-Request-ID": other},
    )
    msg_id = cloud.fresh_id().replace("-", "")
    ask = cloud.message("select_destinations", {"instance_uuids": [uuid]}, other, "nova-conductor", msg_id)
    cloud.rpc(150.1, "nova-conductor", "nova-scheduler", "nova", "scheduler", ask)
    failure = '{"class": "NoValidHost", "message": "none"}'
    cloud.rpc(
        150.2,
        "nova-scheduler",
        "nova-conductor",
        "",
        "reply_nova-conductor",
        cloud.reply(msg_id, None, failure),
    )
    database = cloud.database("nova-conductor", 150.3)
    database.say(150.4, query(f"UPDATE instances SET vm_state='error' WHERE instances.uuid = '{uuid}'"))
    database.hear(150.5, sql_ok())
    verdict = only(judge(cloud, tmp_path))
    assert (verdict.verdict, verdict.outcome, verdict.request_id) == ("conforms", "active", made.request_id)
    assert verdict.ended_ns - verdict.started_ns < 10_000_000_000


@pytest.mark.parametrize("step", ["2", "3"])
def test_one_leg_is_enough(step: str, tmp_path: Path) -> None:
    """With one leg of the request on the wire there is one trace, with all of its calls."""
    cloud = Cloud()
    cloud.background(0, 130)
    made = Creation(cloud, breaks={step: "left out"}).run()
    verdict = only(judge(cloud, tmp_path))
    assert verdict.request_id == made.request_id
    assert "cast build_and_run_instance" in operations(verdict)


def test_without_http_the_messages_make_the_trace(tmp_path: Path) -> None:
    """Only the broker's port captured: the request id and the VM are in the messages."""
    cloud = Cloud()
    cloud.background(0, 260)
    made = Creation(cloud).run()
    cloud.network.events = [e for e in cloud.network.events if e[1].server[1] == 5672]
    verdict = only(judge(cloud, tmp_path))
    assert (verdict.request_id, verdict.server_id) == (made.request_id, made.server_ids[0])
    assert (verdict.outcome, verdict.compute_host, verdict.deviations) == ("active", "compute1", ())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gap", [0.0, 0.5])
def test_two_with_the_same_name_and_token(layout: str, gap: float, tmp_path: Path) -> None:
    """An impatient administrator: the name tells nothing, the ids do."""
    cloud = Cloud(LAYOUTS[layout])
    cloud.background(0, 130)
    made = [Creation(cloud, at=100 + n * gap, api="nova-api", token=TOKEN).run() for n in range(2)]
    report = judge(cloud, tmp_path)
    assert {v.server_id for v in report.verdicts} == {m.server_ids[0] for m in made}
    assert [kinds(v) for v in report.verdicts] == [[], []], [v.deviations for v in report.verdicts]


def test_many_at_once_are_told_apart(tmp_path: Path) -> None:
    """Twelve through one nova-api within a second, every third refused for its quota."""
    cloud = Cloud()
    cloud.background(0, 130)
    for n in range(12):
        breaks = {"4c": "403"} if n % 3 == 2 else {}
        Creation(
            cloud, at=100 + n * 0.07, name=f"web-{n}", breaks=breaks, hosts=({f"compute{n % 2 + 1}": {}},)
        ).run()
    found = by_name(judge(cloud, tmp_path))
    assert len(found) == 12
    for n in range(12):
        verdict = found[f"web-{n}"]
        expected = ("rejected", "4c", ()) if n % 3 == 2 else ("active", None, (f"compute{n % 2 + 1}",))
        assert (verdict.outcome, verdict.stopped_at, verdict.attempts) == expected, verdict.summary
        assert verdict.verdict == ("deviates" if n % 3 == 2 else "conforms"), verdict.deviations


def test_layouts_agree(tmp_path: Path) -> None:
    """The same creation, another layout: the same calls under the same steps."""
    told = []
    for name, layout in LAYOUTS.items():
        folder = tmp_path / name
        folder.mkdir()
        cloud: Cloud = Cloud(layout if isinstance(layout, Layout) else SPREAD)
        cloud.background(0, 130)
        Creation(cloud, volume=True, hosts=({"compute1": {"8c": "500"}, "compute2": {}},)).run()
        verdict = only(judge(cloud, folder))
        told.append([(s.step, s.status, [c.line for c in s.calls]) for s in verdict.steps])
    assert told[0] == told[1]
