"""Operations on a server that is there, each against its own grammar: good ones and broken ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.judging import judge, kinds, only, statuses

from tracer import engine
from tracer.engine import Settings
from tracer.grammar import load, shipped
from tracer.settings import ALL
from tracer.testing.actions import KINDS, Action
from tracer.testing.cloud import COLOCATED, SPREAD, Cloud, Layout
from tracer.testing.creation import Creation
from tracer.testing.operations import Operation
from tracer.testing.upstream import UpstreamCreation

CLOUDS: dict[str, tuple[Layout, bool, bool]] = {
    # layout, VRM, portal
    "documented": (SPREAD, True, True),
    "colocated": (COLOCATED, True, True),
    "upstream": (SPREAD, False, False),
}


def settings(kind: str) -> Settings:
    return Settings(grammar=f"server_{kind}")


def test_every_grammar_of_an_operation_has_its_traffic() -> None:
    """The two that came first have theirs in tracer.testing.operations."""
    own = {name.removeprefix("server_") for name in shipped() if name.startswith("server_")}
    assert own == {*KINDS, "delete", "stop"}


@pytest.mark.parametrize("where", CLOUDS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_good_one_is_done(kind: str, where: str, tmp_path: Path) -> None:
    """It conforms, in clouds with and without a portal and a VRM; no step that is needed is inferred."""
    layout, has_vrm, has_portal = CLOUDS[where]
    cloud = Cloud(layout)
    cloud.background(0, 200)
    made = Action(cloud, kind, cloud.fresh_id(), has_vrm=has_vrm, has_portal=has_portal).run()
    verdict = only(judge(cloud, tmp_path, settings(kind)))
    assert (verdict.verdict, verdict.outcome, kinds(verdict)) == ("conforms", "done", []), verdict.summary
    assert (verdict.request_id, verdict.server_id) == (made.request_id, made.server_id)
    required = load(f"server_{kind}").required
    assert {statuses(verdict)[step] for step in required} == {"seen"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_one(kind: str, tmp_path: Path) -> None:
    """Rejected, in the words of the fault, before anything was recorded."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 200)
    Action(cloud, kind, cloud.fresh_id(), breaks={"api": "409"}).run()
    verdict = only(judge(cloud, tmp_path, settings(kind)))
    assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("deviates", "rejected", "4b")
    assert "Cannot do this while it is in vm_state error" in verdict.summary


def with_a_vrm() -> list[str]:
    return [kind for kind, made in KINDS.items() if made.vrm]


def of_the_vrm(kind: str) -> str:
    """The step in which the VRM is asked."""
    grammar = load(f"server_{kind}")
    return next(s.name for s in grammar.steps if any(leg.callee == "vrm" for leg in grammar.legs(s.name)))


@pytest.mark.parametrize("kind", with_a_vrm())
def test_one_that_the_vrm_refuses(kind: str, tmp_path: Path) -> None:
    """In error at the step in which the VRM is asked, with its words."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 200)
    Action(cloud, kind, cloud.fresh_id(), breaks={"vrm": "500"}).run()
    verdict = only(judge(cloud, tmp_path, settings(kind)))
    assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("deviates", "error", of_the_vrm(kind))
    assert "the VRM is unwell" in verdict.summary


@pytest.mark.parametrize("kind", with_a_vrm())
def test_one_that_the_hypervisor_of_the_host_refuses(kind: str, tmp_path: Path) -> None:
    """No packet shows the hypervisor: the host's own report says that it failed, and why."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 200)
    text = "libvirtError: internal error: process exited"
    Action(cloud, kind, cloud.fresh_id(), breaks={"hypervisor": text}, has_vrm=False).run()
    verdict = only(judge(cloud, tmp_path, settings(kind)))
    assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("deviates", "error", of_the_vrm(kind))
    assert text in verdict.summary


STUCK = [
    # operation, what does not come, where it stopped, who owes it
    ("start", {"start_instance": "undelivered"}, "7", "nova-compute on compute1"),
    ("reboot", {"saved": "left out"}, "7", "nova-compute"),
    ("resize", {"migrate_server": "undelivered"}, "6a", "nova-conductor"),
    ("resize", {"prep_resize": "undelivered"}, "8", "nova-compute"),
    ("resize", {"resize_instance": "undelivered"}, "9", "nova-compute"),
    ("resize", {"saved": "left out"}, "11", "nova-compute"),
    ("resize_confirm", {"confirm_resize": "undelivered"}, "7", "nova-compute"),
    ("migrate", {"finish_resize": "undelivered"}, "11", "nova-compute"),
    ("live_migrate", {"live_migration": "undelivered"}, "9", "nova-compute"),
    ("live_migrate", {"pre_live_migration": "undelivered"}, "10", "nova-compute"),
    ("rebuild", {"rebuild_instance@nova-conductor": "undelivered"}, "9", "nova-compute"),
    ("rebuild", {"rebuild_instance@nova-api": "undelivered"}, "7", "nova-conductor"),
    ("evacuate", {"rebuild_instance@nova-conductor": "undelivered"}, "9", "nova-compute"),
    ("unshelve", {"unshelve_instance@nova-conductor": "undelivered"}, "9", "nova-compute"),
    ("shelve", {"shelve_instance": "undelivered"}, "8", "nova-compute"),
    ("snapshot", {"saved": "left out"}, "8", "nova-compute"),
    ("attach_volume", {"attach_volume": "undelivered"}, "9", "nova-compute"),
    ("detach_volume", {"detach_volume": "undelivered"}, "8", "nova-compute"),
    ("attach_interface", {"attach_interface": "undelivered"}, "6", "nova-compute"),
]


@pytest.mark.parametrize("kind, breaks, stopped, owed", STUCK)
def test_one_of_which_nothing_more_comes(
    kind: str, breaks: dict[str, str], stopped: str, owed: str, tmp_path: Path
) -> None:
    """Stuck, also where the last that was saved says that a task goes on."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 260)
    Action(cloud, kind, cloud.fresh_id(), breaks=breaks, has_vrm=False).run()
    verdict = only(judge(cloud, tmp_path, settings(kind)))
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", stopped), verdict.summary
    assert owed in verdict.summary


FAILED = [
    ("attach_interface", {"neutron-server": "503"}, "6", "neutron-server is unwell"),
    ("attach_interface", {"attach_interface": "failure"}, "8", "attach_interface failed"),
    ("resize", {"select_destinations": "failure"}, "6b", "select_destinations failed"),
    ("unshelve", {"select_destinations": "failure"}, "6b", "select_destinations failed"),
    ("rebuild", {"neutron-server": "503"}, "8b", "neutron-server is unwell"),
    ("shelve", {"glance-api": "503"}, "4d", "glance-api is unwell"),
]


@pytest.mark.parametrize("kind, breaks, stopped, words", FAILED)
def test_one_that_another_service_fails(
    kind: str, breaks: dict[str, str], stopped: str, words: str, tmp_path: Path
) -> None:
    cloud = Cloud(SPREAD)
    cloud.background(0, 260)
    Action(cloud, kind, cloud.fresh_id(), breaks=breaks, has_vrm=False).run()
    verdict = only(judge(cloud, tmp_path, settings(kind)))
    assert (verdict.verdict, verdict.outcome, verdict.stopped_at) == ("deviates", "error", stopped)
    assert words in verdict.summary


@pytest.mark.parametrize("layout", [SPREAD, COLOCATED], ids=["spread", "colocated"])
def test_none_is_taken_for_a_creation(layout: Layout, tmp_path: Path) -> None:
    """Not by their messages, which a creation sends too: under the grammar of one there is no trace."""
    cloud = Cloud(layout)
    cloud.background(0, 300)
    for n, kind in enumerate(KINDS):
        Action(cloud, kind, cloud.fresh_id(), at=20 + 15 * n).run()
    captures = cloud.network.write(tmp_path)
    assert engine.check(captures, Settings()).verdicts == []
    cloud.network.events = [e for e in cloud.network.events if e[1].server[1] == 5672]
    (tmp_path / "broker").mkdir()
    assert judge(cloud, tmp_path / "broker", Settings()).verdicts == []


@pytest.mark.parametrize("layout", [SPREAD, COLOCATED], ids=["spread", "colocated"])
def test_all_of_them_on_one_server_are_told_apart(layout: Layout, tmp_path: Path) -> None:
    """One after the other, from its creation on: each is one trace, of its own workflow, and done."""
    cloud = Cloud(layout)
    cloud.background(0, 300)
    server_id = Creation(cloud, at=10, name="web-1").run().server_ids[0]
    made = [
        (f"server_{kind}", Action(cloud, kind, server_id, at=30 + 15 * n).run().request_id)
        for n, kind in enumerate(KINDS)
    ]
    report = judge(cloud, tmp_path, Settings(grammar=ALL))
    assert [(v.grammar, v.request_id) for v in report.verdicts[1:]] == made
    assert {v.verdict for v in report.verdicts} == {"conforms"}, [v.summary for v in report.verdicts]


# --- a cloud without a portal, a proxy and a VRM ---------------------------------------------------


@pytest.mark.parametrize("proxy", [False, True], ids=["no proxy", "a proxy"])
def test_all_of_them_are_done_on_a_plain_cloud(proxy: bool, tmp_path: Path) -> None:
    """The client asks nova-api, and the hypervisor is on its host: from a creation to the deletion."""
    cloud = Cloud(SPREAD, portal=False, proxy=proxy)
    cloud.background(0, 400)
    (server_id,) = UpstreamCreation(cloud, at=10).run().server_ids
    made = [
        (
            f"server_{kind}",
            Action(cloud, kind, server_id, at=30 + 15 * n, has_vrm=False, has_portal=False).run(),
        )
        for n, kind in enumerate(KINDS)
    ]
    found: list[tuple[str, str]] = [(name, each.request_id) for name, each in made]
    for name, stops, at in (("server_stop", True, 300), ("server_delete", False, 320)):
        found.append((name, Operation(cloud, server_id, at=at, stops=stops, has_vrm=False).run().request_id))
    report = judge(cloud, tmp_path, Settings(grammar=ALL))
    assert [(v.grammar, v.request_id) for v in report.verdicts[1:]] == found
    assert report.verdicts[0].grammar == "openstack_create"
    assert {v.verdict for v in report.verdicts} == {"conforms"}, [v.summary for v in report.verdicts]


OF_THE_HYPERVISOR = {"stop": "6", "delete": "6a"}


@pytest.mark.parametrize("kind", OF_THE_HYPERVISOR)
def test_where_there_is_no_vrm_nova_says_that_the_vm_is_stopped_or_gone(kind: str, tmp_path: Path) -> None:
    cloud = Cloud(SPREAD, portal=False)
    cloud.background(0, 200)
    Operation(cloud, cloud.fresh_id(), stops=kind == "stop", has_vrm=False).run()
    verdict = only(judge(cloud, tmp_path, settings(kind)))
    assert (verdict.verdict, verdict.outcome) == ("conforms", "done"), verdict.summary
    step = OF_THE_HYPERVISOR[kind]
    assert statuses(verdict)[step] == "inferred"
    (note,) = [note for note in verdict.notes if (note.kind, note.step) == ("absent", step)]
    assert note.message.startswith("no vrm in these captures: nova-compute saved Instance.save ")


@pytest.mark.parametrize("kind", OF_THE_HYPERVISOR)
def test_a_vrm_that_was_seen_is_owed_the_request(kind: str, tmp_path: Path) -> None:
    """Nova's own word does not stand in for it."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 200)
    Creation(cloud, at=30, name="before").run()
    Operation(cloud, cloud.fresh_id(), stops=kind == "stop", has_vrm=False).run()
    verdict = only(judge(cloud, tmp_path, settings(kind)))
    assert (verdict.verdict, statuses(verdict)[OF_THE_HYPERVISOR[kind]]) == ("deviates", "missing")


@pytest.mark.parametrize("breaks", [{"5": "undelivered"}, {"6": "silent"}])
@pytest.mark.parametrize("kind", OF_THE_HYPERVISOR)
def test_a_hypervisor_that_does_not_end_is_owed(kind: str, breaks: dict[str, str], tmp_path: Path) -> None:
    cloud = Cloud(SPREAD, portal=False)
    cloud.background(0, 260)
    Operation(cloud, cloud.fresh_id(), breaks=breaks, stops=kind == "stop", has_vrm=False).run()
    verdict = only(judge(cloud, tmp_path, settings(kind)))
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", OF_THE_HYPERVISOR[kind]), verdict.summary
    assert "owed by nova-compute on compute1" in verdict.summary
