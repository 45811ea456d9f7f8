"""What at the broker keeps a creation from going on is told as the cause, with who did it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pika.spec
import pytest
from lab.agreement import is_told
from lab.judging import judge
from lab.stepped import UNTIL_S, Stepped

from tracer.engine import Settings, Stages
from tracer.grammar import load
from tracer.model import Capture, Verdict
from tracer.testing.cloud import COLOCATED, SPREAD, Cloud, Layout
from tracer.testing.creation import Creation
from tracer.testing.messages import amqp_set_up, method, publish, returned
from tracer.testing.packets import ACK, FIN, RST
from tracer.topology import GivenTopology

spec = pika.spec
UNTIL = 280


def told(folder: Path, cloud: Cloud, name: str = "web-1") -> Verdict:
    """The verdict on the creation; the services talk to the broker until a minute before it."""
    cloud.background(0, 60)
    for at in range(70, UNTIL, 10):
        cloud.rest(at, "compute1", "placement", "GET", "/resource_providers", 200)
    return next(v for v in judge(cloud, folder).verdicts if v.name == name)


def agrees(verdict: Verdict, outcome: str, step: str, peer: str, *words: str) -> None:
    """Headline, first finding and step table name one step; the finding has the peer and the words."""
    first = verdict.deviations[0]
    assert (verdict.outcome, verdict.stopped_at, first.step) == (outcome, step, step), verdict.summary
    assert is_told(first.message, verdict.summary)
    assert first.peer == peer
    for text in words:
        assert text in first.message
        assert text in first.cause or text.startswith("step ")
    assert "waits in queue" not in " ".join(note.message for note in verdict.notes)
    assert "then silence" not in verdict.summary


def started(layout: Layout = SPREAD) -> Cloud:
    """A cloud in which one creation went well: all services are connected."""
    cloud = Cloud(layout)
    Creation(cloud, 20, name="good").run()
    return cloud


# --- consumers that are gone ----------------------------------------------------------------------

QUEUES = {
    "compute1": ("compute.compute1", "8b", {"hosts": ({"compute1": {"7": "undelivered"}},)}),
    "nova-conductor": ("conductor", "5", {"breaks": {"4e": "undelivered"}}),
    "nova-scheduler": ("scheduler", "6", {"breaks": {"5": "undelivered stop"}}),
}
CLOSED = spec.Channel.Close(406, "PRECONDITION_FAILED - delivery acknowledgement timed out", 0, 0)


@pytest.mark.parametrize("how", ["cancel", "channel", "reset", "died"])
@pytest.mark.parametrize("role", list(QUEUES))
def test_a_consumer_that_is_gone_is_why_nobody_takes_the_message(tmp_path: Path, role: str, how: str) -> None:
    queue, step, broken = QUEUES[role]
    cloud = started()
    taker = cloud.consumer(role)
    if how == "cancel":
        taker.hear(70, method(spec.Basic.Cancel(queue, True)))
    elif how == "channel":
        taker.hear(70, method(CLOSED))
    else:
        taker.close(70, RST | ACK, by=1 if how == "reset" else 0)
    Creation(cloud, 100, polls=False, **broken).run()
    verdict = told(tmp_path, cloud)
    service = "nova-compute" if role == "compute1" else role
    said = {
        "cancel": "cancelled the consumer",
        "channel": "406 PRECONDITION_FAILED",
        "reset": "reset",
        "died": "reset",
    }
    agrees(verdict, "stuck", step, service if how == "died" else "rabbitmq", said[how], queue, "30.")


def test_a_consumer_whose_beginning_is_not_captured_is_known_by_its_deliveries(tmp_path: Path) -> None:
    cloud = started(COLOCATED)
    cloud.consumer("compute1").hear(70, method(spec.Basic.Cancel("1", True)))
    Creation(cloud, 100, polls=False, hosts=({"compute1": {"7": "undelivered"}},)).run()
    agrees(told(tmp_path, cloud), "stuck", "8b", "rabbitmq", "cancelled the consumer", "compute.compute1")


@pytest.mark.parametrize("case", ["again", "another", "other queue"])
def test_a_consumer_that_came_back_or_is_another_is_no_cause(tmp_path: Path, case: str) -> None:
    cloud = started()
    taker = cloud.consumer("compute1")
    queue = "compute.compute2" if case == "other queue" else "compute.compute1"
    if case == "another":
        other = cloud.network.connection(cloud.address["compute1"], cloud.address["rabbitmq"], 5672, 1)
        amqp_set_up(other, 1.1, "nova-compute", ["compute.compute1"])
    taker.hear(70, method(spec.Basic.Cancel(queue, True)))
    if case == "again":
        taker.say(71, method(spec.Basic.Consume(queue=queue, consumer_tag="2")))
        taker.hear(71.1, method(spec.Basic.ConsumeOk("2")))
    Creation(cloud, 100, polls=False, hosts=({"compute1": {"7": "undelivered"}},)).run()
    verdict = told(tmp_path, cloud)
    assert verdict.stopped_at == "8b" and "cancelled" not in verdict.summary
    assert any("waits in queue compute.compute1" in note.message for note in verdict.notes)


# --- publishers that are blocked ------------------------------------------------------------------


def blocked(cloud: Cloud, role: str, at: float, reason: str = "low on memory") -> None:
    cloud.publisher(role).hear(at, method(spec.Connection.Blocked(reason), 0))


@pytest.mark.parametrize("reason", ["low on memory", "low on disk"])
@pytest.mark.parametrize("at", [80, 100.15])
def test_a_blocked_publisher_is_why_a_message_is_not_confirmed(
    tmp_path: Path, at: float, reason: str
) -> None:
    cloud = started()
    blocked(cloud, "nova-conductor", at, reason)
    made = Creation(cloud, 100, polls=False, breaks={"5": "stop"})
    made.run()
    args = {"spec_obj": {"nova_object.data": {"instance_uuid": made.server_ids[0]}}}
    body = cloud.message("select_destinations", args, made.request_id, call="nova-conductor")
    cloud.publisher("nova-conductor").say(made.now + 0.1, publish("nova", "scheduler", body))
    agrees(
        told(tmp_path, cloud), "stuck", "6", "rabbitmq", "blocked the publishers of nova-conductor", reason
    )


def test_a_service_that_cannot_publish_at_all_is_blocked(tmp_path: Path) -> None:
    """The broker reads nothing more of the connection, so the message never leaves its host."""
    cloud = started()
    blocked(cloud, "nova-conductor", 80)
    Creation(cloud, 100, polls=False, breaks={"5": "stop"}).run()
    agrees(
        told(tmp_path, cloud),
        "stuck",
        "5",
        "rabbitmq",
        "blocked the publishers",
        "20 s before this creation began",
    )


def test_a_publisher_that_was_unblocked_is_no_cause(tmp_path: Path) -> None:
    cloud = started()
    blocked(cloud, "nova-conductor", 80)
    cloud.publisher("nova-conductor").hear(90, method(spec.Connection.Unblocked(), 0))
    Creation(cloud, 100, polls=False, breaks={"5": "stop"}).run()
    assert "blocked" not in told(tmp_path, cloud).summary


@pytest.mark.parametrize("silent", ["cancelled", "blocked"])
def test_a_live_run_says_the_same(silent: str) -> None:
    cloud = started()
    cloud.background(0, 60)
    for at in range(70, UNTIL_S, 2):
        cloud.rest(at, "compute1", "placement", "GET", "/resource_providers", 200)
    if silent == "cancelled":
        cloud.consumer("nova-conductor").hear(70, method(spec.Basic.Cancel("conductor", True)))
        Creation(cloud, 100, polls=False, breaks={"4e": "undelivered"}).run()
    else:
        blocked(cloud, "nova-conductor", 80)
        Creation(cloud, 100, polls=False, breaks={"5": "stop"}).run()
    planes = cloud.network.packets()
    packets = sorted((t, n, f) for n, plane in enumerate(sorted(planes)) for t, f in planes[plane])
    captures = [Capture(number, plane, plane) for number, plane in enumerate(sorted(planes))]
    stepped = Stepped(Stages(captures, GivenTopology(), Settings(), load("cloudvm_create")))
    (stalled,) = [event for event in stepped.events_of(packets) if event.kind == "stalled"]
    assert silent in stalled.message and "rabbitmq" in stalled.message


# --- replies without a queue ----------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 12])
def test_a_reply_without_a_queue_is_what_the_service_waits_for(tmp_path: Path, times: int) -> None:
    cloud = started()
    made = Creation(cloud, 100, polls=False, hosts=({"compute1": {"7": "silence"}},))
    made.run()
    at, msg_id = made.now + 0.1, cloud.fresh_id().replace("-", "")
    args: dict[str, Any] = {
        "objinst": {"nova_object.name": "Instance", "nova_object.data": {"uuid": made.server_ids[0]}},
        "objmethod": "save",
    }
    body = cloud.message("object_action", args, made.request_id, call="compute1", msg_id=msg_id)
    cloud.rpc(at, "compute1", "nova-conductor", "nova", "conductor", body)
    for n in range(times):
        answer, conductor = cloud.reply(msg_id, {}), cloud.publisher("nova-conductor")
        conductor.say(at + 0.1 + n, publish("", "reply_compute1", answer, mandatory=True))
        conductor.hear(at + 0.11 + n, returned("", "reply_compute1", answer))
    verdict = told(tmp_path, cloud)
    often = "returned once" if times == 1 else f"returned {times} times in 11 s"
    agrees(
        verdict,
        "stuck",
        "8b",
        "rabbitmq",
        "reply_compute1",
        "312 NO_ROUTE",
        often,
        "for which nova-compute waits",
    )


def test_the_reply_with_the_hosts_may_have_no_queue(tmp_path: Path) -> None:
    cloud = started()
    made = Creation(cloud, 100, polls=False, breaks={"6": "stop"})
    messages: list[bytes] = []
    message = cloud.message
    cloud.message = lambda *a, **k: messages.append(message(*a, **k)) or messages[-1]  # type: ignore[method-assign,func-returns-value]
    made.run()
    msg_id = (
        next(m for m in messages if b"select_destinations" in m).split(b'_msg_id\\": \\"')[1][:32].decode()
    )
    answer, scheduler = cloud.reply(msg_id, []), cloud.publisher("nova-scheduler")
    scheduler.say(made.now + 1, publish("", "reply_nova-conductor", answer))
    scheduler.hear(made.now + 1.1, returned("", "reply_nova-conductor", answer))
    words = ("for which nova-conductor waits", "there is no queue reply_nova-conductor")
    agrees(told(tmp_path, cloud), "stuck", "6", "rabbitmq", *words)


# --- restarts and lost connections ----------------------------------------------------------------

RESTARTS = {
    "compute1": ("8b", {"hosts": ({"compute1": {"7": "silence"}},)}),
    "nova-conductor": ("5", {"breaks": {"4e": "stop"}}),
}


@pytest.mark.parametrize("proof", ["process", "queue", "none"])
@pytest.mark.parametrize("role", list(RESTARTS))
def test_a_service_that_was_restarted(tmp_path: Path, role: str, proof: str) -> None:
    """Another process id, or another queue for replies; without these it only connected again."""
    step, broken = RESTARTS[role]
    service = "nova-compute" if role == "compute1" else role
    cloud = started()
    made = Creation(cloud, 100, polls=False, **broken)
    made.run()
    for connection in (cloud.consumer(role), cloud.publisher(role)):
        connection.close(made.now + 1, RST | ACK, by=0)
    again = cloud.network.connection(cloud.address[role], cloud.address["rabbitmq"], 5672, made.now + 6)
    queues = ["other", "reply_new" if proof == "queue" else f"reply_{role}"]
    amqp_set_up(again, made.now + 6.01, f"{service}:77" if proof == "process" else service, queues)
    del cloud._amqp[role, "consume"], cloud._amqp[role, "publish"]
    verdict = told(tmp_path, cloud)
    said = "connected again 5.0 s later" if proof == "none" else "was restarted"
    agrees(verdict, "stuck", step, service, said, "5.0 s later")


@pytest.mark.parametrize("how", [RST | ACK, FIN | ACK])
@pytest.mark.parametrize("silent", [30, 130])
def test_a_client_that_sends_no_heartbeats_is_dropped(tmp_path: Path, how: int, silent: int) -> None:
    """The broker closes the connection, after it has heard nothing of the client for two heartbeats."""
    cloud = Cloud(SPREAD)
    cloud.consumer("nova-scheduler").say(100.3 + 40 - silent, b"\x08\0\0\0\0\0\0\xce")
    Creation(cloud, 100, polls=False, breaks={"5": "stop"}).run()
    Creation(cloud, 100.1, "web-2", polls=False, breaks={"6": "stop"}).run()
    scheduler = cloud.consumer("nova-scheduler")
    quiet = [
        e for e in cloud.network.events if e[1] is scheduler and e[2] == 0 and e[0] > 100.3 + 40 - silent + 1
    ]
    for event in quiet if silent > 40 else ():
        cloud.network.events.remove(event)
    scheduler.close(140.3, how, by=1)
    verdict = told(tmp_path, cloud, "web-2")
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", "6")
    assert "rabbitmq" in verdict.summary
    assert ("heartbeats missed" in verdict.deviations[0].message) == (silent > 60)


def test_a_broker_that_refuses_the_login_is_named(tmp_path: Path) -> None:
    cloud = started()
    made = Creation(cloud, 100, breaks={"4e": "nacked"})
    api = cloud.network.connection(cloud.address["nova-api"], cloud.address["rabbitmq"], 5672, 100.2)
    start_ok = spec.Connection.StartOk({"product": "py-amqp"}, "PLAIN", "\0a\0b", "en_US")
    close = spec.Connection.Close(403, "ACCESS_REFUSED - Login was refused", 0, 0)
    start = spec.Connection.Start(0, 9, {"product": "RabbitMQ"}, "PLAIN", "en_US")
    made.step_4e = lambda: refuse()  # type: ignore[method-assign]

    def refuse() -> tuple[int, Any]:
        at = made.wait()
        api.say(at, b"AMQP\x00\x00\x09\x01")
        api.hear(at + 0.001, method(start, 0))
        api.say(at + 0.002, method(start_ok, 0))
        api.hear(at + 0.003, method(close, 0))
        return 500, {"computeFault": {"code": 500, "message": "Unexpected API Error."}}

    made.run()
    verdict = told(tmp_path, cloud)
    assert (verdict.outcome, verdict.stopped_at) == ("rejected", "4e")
    assert "rabbitmq" in verdict.summary and "403 ACCESS_REFUSED" in verdict.summary


def test_a_message_that_the_broker_refuses_has_a_reason(tmp_path: Path) -> None:
    cloud = started()
    Creation(cloud, 100, breaks={"4e": "nacked"}).run()
    verdict = told(tmp_path, cloud)
    assert (verdict.outcome, verdict.stopped_at, verdict.deviations[0].peer) == ("rejected", "4e", "rabbitmq")
    assert "basic.nack" in verdict.summary
