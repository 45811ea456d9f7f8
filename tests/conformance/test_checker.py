"""Verdicts on creations whose calls are in the wrong order, too many, or told by fewer words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab.judging import judge, kinds, only, run, statuses

from tracer.engine import Settings, check
from tracer.testing.cloud import SPREAD, Cloud
from tracer.testing.creation import Creation
from tracer.testing.packets import Connection, pcap


def moved(seconds: float, *words: bytes) -> Callable[[Cloud], None]:
    """Messages that hold one of *words* come later, with what is said on the same connection within 2 ms;
    of HTTP the whole connection, which is there for this one call."""

    def change(cloud: Cloud) -> None:
        events = cloud.network.events
        places = [(e[1], e[0]) for e in events if any(word in e[4] for word in words)]

        def edits(made: Connection, at: float) -> bool:
            whole = made.server[1] not in (3306, 5672)
            return any(made is m and (whole or 0 <= at - t < 0.002) for m, t in places)

        cloud.network.events = [
            (at + seconds if edits(made, at) else at, made, *rest) for at, made, *rest in events
        ]

    return change


INSERTS = (b"INSERT INTO request_specs", b"INSERT INTO build_requests", b"INSERT INTO instance_mappings")
# Of two steps that changed places either may be called the wrong one.
ORDERS = {
    "4d after 4e": (moved(0.02, *INSERTS), {"4d", "4e"}),
    "8b after 8c has begun": (moved(0.3, b"POST /v2.0/ports", b"PUT /v2.0/ports"), {"8b", "8c"}),
    "7 before 5": (moved(-0.06, b"build_and_run_instance"), {"5", "7"}),
}


@pytest.mark.parametrize(
    "name",
    list(ORDERS),
)
def test_a_step_out_of_order(name: str, tmp_path: Path) -> None:
    """One deviation of kind order, none of kind missing or extra for the same step."""
    change, steps = ORDERS[name]
    verdict = only(run(tmp_path, change=change))
    assert (verdict.verdict, verdict.outcome) == ("deviates", "active")
    ((kind, step),) = kinds(verdict)
    assert kind == "order"
    assert step in steps
    (deviation,) = verdict.deviations
    assert "it belongs after step" in deviation.message or "have changed places" in deviation.message
    assert deviation.call is not None


def test_8a_and_8b_may_come_in_any_order(tmp_path: Path) -> None:
    """They run side by side."""
    for seconds in (0.05, 0.1):
        folder = tmp_path / str(seconds)
        folder.mkdir()
        verdict = only(run(folder, change=moved(seconds, b"/attachments/"), volume=True))
        assert verdict.verdict == "conforms", verdict.deviations


def test_a_second_question_to_the_scheduler_is_extra(tmp_path: Path) -> None:
    """What the grammar knows and the creation needs not is one deviation of kind extra."""
    cloud = Cloud()
    cloud.background(0, 260)
    made = Creation(cloud).run()
    for n in range(2):
        body = cloud.message(
            "select_destinations", {"instance_uuids": made.server_ids}, made.request_id, "nova-conductor"
        )
        cloud.rpc(100.35 + n / 100, "nova-conductor", "nova-scheduler", "nova", "scheduler", body)
    verdict = only(judge(cloud, tmp_path))
    assert verdict.outcome == "active"
    assert kinds(verdict) == [("extra", "5")], verdict.deviations


def test_calls_outside_the_alphabet_never_deviate(tmp_path: Path) -> None:
    """Whatever else carries the request id is listed and counts for nothing."""
    cloud = Cloud()
    cloud.background(0, 260)
    made = Creation(cloud).run()
    for n, status in enumerate((200, 404, 500, 503)):
        cloud.rest(
            100.3 + n / 50,
            "compute1",
            "placement",
            "GET",
            f"/resource_providers/{cloud.fresh_id()}/inventories",
            status,
            request_id=made.request_id,
            agent="nova-compute keystoneauth1/5.0.0",
        )
    verdict = only(judge(cloud, tmp_path))
    assert (verdict.verdict, verdict.deviations) == ("conforms", ())
    assert len([c for c in verdict.calls if c.operation.endswith("/inventories")]) == 4


STUCK = {
    "4e": ({"4e": "undelivered"}, {}, "5"),
    "7": ({}, {"7": "undelivered"}, "8b"),
}


@pytest.mark.parametrize("case", STUCK)
def test_a_published_message_is_a_step_that_happened(case: str, tmp_path: Path) -> None:
    """Published and never delivered: the step is seen, the next one is owed."""
    breaks, host, stopped = STUCK[case]
    verdict = only(run(tmp_path, breaks=breaks, hosts=({"compute1": host},)))
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", stopped)
    assert statuses(verdict)[case] == "seen"


def test_a_failed_step_shows_its_witness(tmp_path: Path) -> None:
    """The call of the deviation and those of the step are the ones that failed, with evidence."""
    verdict = only(run(tmp_path, hosts=({"compute1": {"8b": "503"}},)))
    (deviation,) = verdict.deviations
    assert deviation.call is not None
    assert deviation.call.line == "Internal_base REST nova-compute > neutron-server POST /v2.0/ports 503"
    assert deviation.call.evidence
    assert "neutron is unwell" in deviation.message
    step = next(s for s in verdict.steps if s.step == "8b")
    assert [c.result for c in step.calls] == ["503"]


@pytest.mark.parametrize(
    "breaks, host, step",
    [
        ({"4a": "refused"}, {}, "4a"),
        ({"4b": "neutron refused"}, {}, "4b"),
        ({}, {"8b": "refused"}, "8b"),
        ({}, {"8c": "refused"}, "8c"),
    ],
)
def test_a_refused_connection_is_the_witness(breaks: Any, host: Any, step: str, tmp_path: Path) -> None:
    """It is the only message of the failing step: its line and frames are under it."""
    verdict = only(run(tmp_path, breaks=breaks, hosts=({"compute1": host},)))
    assert verdict.stopped_at == step
    calls = next(s for s in verdict.steps if s.step == step).calls
    assert any(c.operation.startswith("CONNECT :") and c.result == "refused" and c.evidence for c in calls)


@pytest.mark.parametrize("kind", ["failed", "failed:8b"])
def test_an_allowed_failure_keeps_its_outcome(kind: str, tmp_path: Path) -> None:
    """--allow has no effect on what became of the VM, only on the verdict."""
    verdict = only(run(tmp_path, settings=Settings(allow=(kind,)), hosts=({"compute1": {"8b": "503"}},)))
    assert (verdict.outcome, verdict.stopped_at, verdict.deviations) == ("error", "8b", ())
    assert "allowed" in {n.kind for n in verdict.notes}


def test_every_step_of_the_documents_is_reported_in_order(tmp_path: Path) -> None:
    """1 to 8c, each once, whatever happened."""
    for n, breaks in enumerate(({}, {"1": "403"}, {"4e": "undelivered"})):
        folder = tmp_path / str(n)
        folder.mkdir()
        verdict = only(run(folder, breaks=breaks))
        assert list(statuses(verdict)) == [
            "1",
            "2",
            "3",
            "4a",
            "4b",
            "4c",
            "4d",
            "4e",
            "5",
            "6",
            "7",
            "8a",
            "8b",
            "8c",
        ]


def test_a_call_between_the_steps_on_another_plane(tmp_path: Path) -> None:
    """What asks for the next host belongs to no step; on the wrong plane it deviates all the same."""

    def change(cloud: Cloud) -> None:
        for event in cloud.network.events:
            if b"build_instances" in event[4] and b"schedule_and" not in event[4]:
                event[1].points = ("External_api",)

    hosts = ({"compute1": {"8c": "500"}, "compute2": {}},)
    verdict = only(run(tmp_path, change=change, hosts=hosts))
    assert ("plane", None) in kinds(verdict), verdict.deviations


@pytest.mark.parametrize("ahead_ms", [-40, -3, 3, 40])
def test_a_request_comes_before_what_it_caused(ahead_ms: int, tmp_path: Path) -> None:
    """A clock is off and said to be right: the order between two capture points is no deviation."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 160)
    Creation(cloud).run()
    captures = []
    for plane, packets in cloud.network.packets().items():
        ahead_ns = ahead_ms * 1_000_000 if plane == "External_api" else 0
        path = tmp_path / f"{plane}.pcap"
        path.write_bytes(pcap([(time_ns + ahead_ns, frame) for time_ns, frame in packets]))
        captures.append(f"{plane}={path}@+0ms")
    verdict = only(check(captures, Settings()))
    assert (verdict.verdict, verdict.outcome, verdict.deviations) == ("conforms", "active", ())
