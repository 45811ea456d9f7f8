"""Quorum queues, streams, publisher confirms or none: what the broker did is told alike, and truly.

Made conversations with the documented shapes (tests/lab/queues.py); of quorum queues there are real captures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pika.spec
import pytest
from lab.queues import LIMIT, NoConfirms, QuorumQueues, QuorumWithoutConfirms, Streams

from tracer.engine import calls, check
from tracer.model import Verdict
from tracer.protocols.amqp091.methods import properties_of
from tracer.settings import Settings
from tracer.testing import UpstreamCreation
from tracer.testing.messages import content

CLOUDS = (QuorumQueues, QuorumWithoutConfirms, NoConfirms, Streams)
HOST = "compute.compute2"


def judged(
    folder: Path, made: type[QuorumQueues], fates: dict[str, str] | None = None, **options: Any
) -> Verdict:
    cloud = made(portal=False)
    cloud.background(0, 60, 30)
    cloud.fates = dict(fates or {})
    UpstreamCreation(cloud, at=100, **({"hosts": [{"compute2": {}}]} | options)).run()
    assert not cloud.fates
    if isinstance(cloud, Streams):
        body = cloud.message("update_instance_info", {"host_name": "compute2"}, "")
        cloud.fanout(109, "compute2", "scheduler", ["nova-scheduler", "nova-conductor"], body)
    cloud.background(110, 230, 20)
    (verdict,) = check(cloud.network.write(folder), Settings()).verdicts
    return verdict


def notes(verdict: Verdict, kind: str) -> list[str]:
    return [note.message for note in verdict.notes if note.kind == kind]


@pytest.mark.parametrize("made", CLOUDS)
def test_a_good_creation_conforms(made: type[QuorumQueues], tmp_path: Path) -> None:
    verdict = judged(tmp_path, made)
    assert (verdict.verdict, notes(verdict, "broker")) == ("conforms", [])


@pytest.mark.parametrize("made", [QuorumQueues, Streams])
def test_a_message_that_the_broker_refuses_fails_its_step(made: type[QuorumQueues], tmp_path: Path) -> None:
    verdict = judged(tmp_path, made, {"conductor": "nacked"}, breaks={"4e": "nacked"})
    assert (verdict.outcome, verdict.stopped_at) == ("rejected", "4e")
    assert "was refused by rabbitmq" in verdict.summary and "basic.nack" in verdict.summary


WAITS = {
    "conductor": ("5", {"breaks": {"4e": "undelivered"}}),
    HOST: ("8b", {"hosts": [{"compute2": {"7": "undelivered"}}]}),
}


@pytest.mark.parametrize("queue", WAITS)
@pytest.mark.parametrize("made", [QuorumQueues, QuorumWithoutConfirms, NoConfirms])
def test_only_a_confirm_that_was_asked_for_is_missed(
    made: type[QuorumQueues], queue: str, tmp_path: Path
) -> None:
    step, options = WAITS[queue]
    verdict = judged(tmp_path, made, {queue: "unconfirmed"}, **options)
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", step)
    assert ("rabbitmq never confirmed" in verdict.summary) is made.confirms
    assert ("published and never delivered" in verdict.summary) is not made.confirms


@pytest.mark.parametrize("made", [QuorumQueues, NoConfirms])
def test_a_message_that_comes_again_is_told_and_no_deviation(
    made: type[QuorumQueues], tmp_path: Path
) -> None:
    verdict = judged(tmp_path, made, {"conductor": "requeued"})
    assert verdict.verdict == "conforms"
    assert notes(verdict, "redelivered") == ["cast schedule_and_build_instances was delivered again"]


@pytest.mark.parametrize("fate", ["limit", "dead"])
@pytest.mark.parametrize("made", [QuorumQueues, QuorumWithoutConfirms])
def test_a_message_beyond_the_limit_of_deliveries_was_taken_by_nobody(
    made: type[QuorumQueues], fate: str, tmp_path: Path
) -> None:
    """Who reads the dead letters is not who was asked, though it acknowledges the message."""
    verdict = judged(tmp_path, made, {HOST: fate}, hosts=[{"compute2": {"7": "undelivered"}}])
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", "8b")
    assert "was not acknowledged" in verdict.summary and "nova-compute reset" in verdict.summary
    assert f"delivered again {LIMIT} times" in notes(verdict, "redelivered")[0]
    (said,) = notes(verdict, "broker")
    assert "from queue compute.compute2 and not acknowledged" in said and "172.28.0.32" in said
    assert ("made a dead letter of it (delivery_limit)" in said) is (fate == "dead")


def test_a_dead_letter_that_nobody_took_before_waits_for_nobody(tmp_path: Path) -> None:
    """It expired in its queue."""
    verdict = judged(tmp_path, QuorumQueues, {HOST: "expired"}, hosts=[{"compute2": {"7": "undelivered"}}])
    (said,) = notes(verdict, "broker")
    assert "no consumer took it, and the broker made a dead letter of it (expired)" in said
    assert "waits" not in said


def test_a_retry_by_way_of_a_dead_letter_queue_is_a_delivery(tmp_path: Path) -> None:
    """It expires in a queue of waiting messages, and goes to its own exchange and queue again."""
    assert judged(tmp_path, QuorumQueues, {"conductor": "retried"}).verdict == "conforms"


def test_a_stream_is_read_by_many_and_each_is_its_consumer(tmp_path: Path) -> None:
    judged(tmp_path, Streams)
    (fanout,) = [c for c in calls([str(tmp_path)], Settings()) if "update_instance_info" in c.operation]
    assert (fanout.operation, fanout.result) == ("fanout update_instance_info", "ok")
    assert len(fanout.evidence) == 3


@pytest.mark.parametrize("count", [1, 127, 128, 70_000, 1 << 40])
def test_counts_are_read_in_every_size(count: int) -> None:
    """pika writes the smallest type that holds a number; RabbitMQ always a long."""
    headers = {"x-delivery-count": count, "x-first-death-reason": "expired", "x-death": [{"count": 1}]}
    frames = content(pika.spec.Basic.Deliver("1", 1, True, "", "q"), b"", headers=headers)
    at = frames.index(b"\xce\x02") + 1
    properties = properties_of(frames[at + 7 : -1])
    assert properties["x-delivery-count"] == count
    assert properties["x-first-death-reason"] == "expired"


def test_a_cut_table_of_headers_is_read_up_to_the_cut() -> None:
    headers = {"x-first-death-reason": "expired", "x-delivery-count": 70_000}
    frames = content(pika.spec.Basic.Deliver("1", 1, True, "", "q"), b"", headers=headers)
    at = frames.index(b"\xce\x02") + 1
    for cut in range(1, 60):
        properties = properties_of(frames[at + 7 : -1 - cut])
        assert properties.get("x-delivery-count", 70_000) == 70_000
        assert "expired".startswith(str(properties.get("x-first-death-reason", "")))
