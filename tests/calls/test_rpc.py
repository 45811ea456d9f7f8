"""RPC calls: publish, delivery, acknowledgement and reply of one message are told apart and joined."""

from __future__ import annotations

import json

import pika.spec
import pytest
from lab.judging import built, told

from tracer.model import Call, RpcFacts
from tracer.testing.cloud import PROJECT, TOKEN
from tracer.testing.messages import ack, amqp_set_up, deliver, envelope, method, nack, publish, returned
from tracer.testing.packets import Connection, Network

BROKER, API, CONDUCTOR = "172.28.0.52", "172.28.0.11", "172.28.0.21"
REQUEST_ID = "req-3fff385c-4b13-4f7e-844a-f2d25f9d2d7b"
VM = "145c135d-63cb-41ba-98cd-3235a30c2e27"
HEX = "{:032x}".format


def message(name: str = "ping", unique: int = 1, msg_id: int = 0, **args: object) -> bytes:
    ids = {"_msg_id": HEX(msg_id), "_reply_q": "reply_a", "_timeout": None} if msg_id else {}
    context = {
        "_context_request_id": REQUEST_ID,
        "_context_project_id": PROJECT,
        "_context_auth_token": TOKEN,
    }
    return envelope(
        {"method": name, "args": args, "version": "1.0", **ids, "_unique_id": HEX(unique), **context}
    )


def reply(msg_id: int, unique: int, failure: str | None = None, ending: bool = True) -> bytes:
    return envelope(
        {
            "result": None,
            "failure": failure,
            "ending": ending,
            "_msg_id": HEX(msg_id),
            "_unique_id": HEX(unique),
        }
    )


HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"


class Bus:
    """A publisher and a consumer at one broker."""

    def __init__(self, joined: bool = False) -> None:
        self.network = Network()
        at = None if joined else 0.0
        self.api: Connection = self.network.connection(API, BROKER, 5672, at)
        self.conductor: Connection = self.network.connection(CONDUCTOR, BROKER, 5672, at)
        if not joined:
            amqp_set_up(self.api, 0.01, "nova-api")
            amqp_set_up(self.conductor, 0.02, "nova-conductor", ["conductor"])

    def calls(self) -> list[Call]:
        return built(self.network)


def facts(call: Call) -> RpcFacts:
    assert isinstance(call.facts, RpcFacts)
    return call.facts


def sent(bus: Bus, *fate: str) -> None:
    """A cast, and what became of it."""
    body = message()
    bus.api.say(1, publish("nova", "conductor", body))
    for n, what in enumerate(fate, 1):
        at = 1 + n / 1000
        if what == "confirmed":
            bus.api.hear(at, ack(1))
        elif what == "not confirmed":
            bus.api.hear(at, nack(1))
        elif what == "returned":
            bus.api.hear(at, returned("nova", "conductor", body))
        elif what == "delivered":
            bus.conductor.hear(at, deliver("nova", "conductor", body, 1))
        elif what == "delivered again":
            bus.conductor.hear(at, deliver("nova", "conductor", body, 2, redelivered=True))
        elif what == "acknowledged":
            bus.conductor.say(at, ack(1))
        elif what == "acknowledged all":
            bus.conductor.say(at, ack(9, multiple=True))
        elif what == "rejected":
            bus.conductor.say(at, method(pika.spec.Basic.Reject(1, False)))
        elif what == "put back":
            bus.conductor.say(at, nack(1, requeue=True))
        elif what == "channel closed":
            bus.api.hear(at, method(pika.spec.Channel.Close(404, "NOT_FOUND - no exchange 'nova'", 60, 40)))


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize(
    "fate, result",
    [
        ((), "undelivered"),
        (("confirmed",), "undelivered"),
        (("returned",), "unroutable"),
        (("returned", "confirmed"), "unroutable"),
        (("not confirmed",), "error"),
        (("channel closed",), "error"),
        (("confirmed", "delivered"), "unacked"),
        (("delivered", "acknowledged"), "ok"),
        (("delivered", "acknowledged all"), "ok"),
        (("confirmed", "delivered", "acknowledged"), "ok"),
        (("delivered", "confirmed", "acknowledged"), "ok"),
        (("delivered", "rejected"), "error"),
        (("delivered", "put back"), "undelivered"),
        (("delivered", "delivered again", "acknowledged"), "ok"),
    ],
)
def test_the_fate_of_a_cast(fate: tuple[str, ...], result: str, joined: bool) -> None:
    """What the broker did with a message is its result, however long the connections are up."""
    bus = Bus(joined)
    sent(bus, *fate)
    assert told(bus.calls()) == [f"cast ping {result}"]


def test_acknowledgements_that_are_not_captured_are_not_missed() -> None:
    """Of the consumer's connection the broker's direction alone is captured: nobody knows what it sent."""
    bus = Bus(joined=True)
    bus.conductor.say(0.5, HEARTBEAT, lost=True)
    sent(bus, "confirmed", "delivered")
    (call,) = bus.calls()
    assert call.result == "?"


def test_a_message_is_one_call_with_both_ends() -> None:
    """Publish and delivery are joined by _unique_id: caller, consumer, both frames."""
    bus = Bus()
    sent(bus, "confirmed", "delivered", "acknowledged")
    (call,) = bus.calls()
    assert call.caller is not None and call.callee is not None
    assert (call.caller.endpoint.address, call.callee.endpoint.address) == (API, CONDUCTOR)
    assert (facts(call).request_id, facts(call).project_id) == (REQUEST_ID, PROJECT)
    assert len(set(call.frames)) == 2


def test_the_delivery_may_be_seen_first() -> None:
    """The clock of another capture point: still one call, which begins with the earlier one."""
    bus = Bus()
    body = message()
    bus.conductor.hear(1.0, deliver("nova", "conductor", body, 1))
    bus.api.say(1.0004, publish("nova", "conductor", body))
    bus.conductor.say(1.001, ack(1))
    assert told(bus.calls()) == ["cast ping ok"]


def test_a_delivery_without_its_publish() -> None:
    """The publisher's connection is not captured: the caller is not known, all else is."""
    bus = Bus()
    bus.conductor.hear(1, deliver("nova", "conductor", message(), 1))
    bus.conductor.say(1.001, ack(1))
    (call,) = bus.calls()
    assert (call.operation, call.result, call.caller) == ("cast ping", "ok", None)


def test_call_cast_fanout() -> None:
    """A call waits for a reply (_msg_id); a fanout goes to an exchange of that name."""
    bus = Bus()
    bus.api.say(1, publish("nova", "conductor", message("a", 1)))
    bus.api.say(2, publish("nova", "conductor", message("b", 2, msg_id=5)))
    bus.api.say(3, publish("scheduler_fanout", "", message("c", 3)))
    assert [call.operation for call in bus.calls()] == ["cast a", "call b", "fanout c"]


def asked(bus: Bus, failure: str | None = None) -> None:
    body = message("select_destinations", 1, msg_id=5, instance_uuids=[VM])
    bus.api.say(1, publish("nova", "conductor", body))
    bus.conductor.hear(1.1, deliver("nova", "conductor", body, 1))
    bus.conductor.say(1.2, ack(1))
    back = reply(5, 2, failure)
    bus.conductor.say(2, publish("", "reply_a", back))
    bus.api.hear(2.1, deliver("", "reply_a", back, 1))
    bus.api.say(2.2, ack(1))


def test_a_reply_belongs_to_its_call() -> None:
    """It has the call's method, request and instances, and the call as its parent."""
    bus = Bus()
    asked(bus)
    question, answer = bus.calls()
    assert told((question, answer)) == ["call select_destinations ok", "reply select_destinations ok"]
    assert answer.parent is question
    assert (facts(answer).request_id, facts(answer).ids) == (REQUEST_ID, (VM,))


def test_a_failure_is_a_reply_that_failed() -> None:
    """Class and message of the exception are the error; the result is failure."""
    bus = Bus()
    asked(bus, json.dumps({"class": "NoValidHost", "message": "No valid host was found. "}))
    _, answer = bus.calls()
    assert (answer.result, answer.error) == ("failure", "NoValidHost: No valid host was found.")


def test_a_heartbeat_is_no_reply() -> None:
    """A long call's server says that it is alive: no call of its own."""
    bus = Bus()
    body = message("select_destinations", 1, msg_id=5)
    bus.api.say(1, publish("nova", "conductor", body))
    bus.conductor.hear(1.1, deliver("nova", "conductor", body, 1))
    bus.conductor.say(1.2, ack(1))
    bus.conductor.say(2, publish("", "reply_a", reply(5, 2, ending=False)))
    assert told(bus.calls()) == ["call select_destinations ok"]


def test_a_reply_shows_that_the_call_was_delivered() -> None:
    """Where deliveries to a consumer cannot be seen but it answers, its silence means nothing: ?."""
    bus = Bus()
    bus.api.say(1, publish("nova", "conductor", message("a", 1, msg_id=5)))
    bus.api.hear(2, deliver("", "reply_a", reply(5, 2), 1))
    bus.api.say(3, publish("nova", "conductor", message("b", 3)))
    assert told(bus.calls()) == ["call a ok", "reply a ok", "cast b ?"]


@pytest.mark.parametrize("tag", ["1", ""])
def test_a_consumer_without_acknowledgements(tag: str) -> None:
    """basic.consume with no-ack: delivered is done, whether the client or the broker names the consumer."""
    bus = Bus(joined=True)
    bus.conductor.say(0.5, method(pika.spec.Basic.Consume(queue="conductor", consumer_tag=tag, no_ack=True)))
    bus.conductor.hear(0.6, method(pika.spec.Basic.ConsumeOk("1")))
    sent(bus, "confirmed", "delivered")
    (call,) = bus.calls()
    assert (call.result, call.fate) == ("ok", ())


def test_no_ack_is_of_one_consumer() -> None:
    """Another consumer of the same name on another channel owes its acknowledgement."""
    bus = Bus(joined=True)
    asks = pika.spec.Basic.Consume(queue="other", consumer_tag="1", no_ack=True)
    bus.conductor.say(0.5, method(asks, channel=2))
    bus.conductor.hear(0.6, method(pika.spec.Basic.ConsumeOk("1"), channel=2))
    sent(bus, "confirmed", "delivered")
    assert told(bus.calls()) == ["cast ping unacked"]


def test_messages_without_a_unique_id_are_not_one() -> None:
    """Three of one exchange, key and size, delivered in turn: three calls, each with both legs."""
    bus = Bus()
    body = envelope({"method": "ping", "args": {}, "_context_request_id": REQUEST_ID})
    for n in range(3):
        bus.api.say(1 + n / 10, publish("nova", "conductor", body))
    for n in range(3):
        bus.conductor.hear(2 + n / 10, deliver("nova", "conductor", body, n + 1))
        bus.conductor.say(2.05 + n / 10, ack(n + 1))
    calls = bus.calls()
    assert told(calls) == ["cast ping ok"] * 3
    assert [len(set(call.frames)) for call in calls] == [2, 2, 2]
    assert all(facts(call).published and facts(call).delivered for call in calls)


def test_deliveries_alone_without_a_unique_id_are_not_one() -> None:
    """The publisher's connection is not captured: each delivery is a message of its own."""
    bus = Bus()
    body = envelope({"method": "ping", "args": {}})
    for n in range(3):
        bus.conductor.hear(2 + n / 10, deliver("nova", "conductor", body, n + 1))
    assert told(bus.calls()) == ["cast ping unacked"] * 3


def test_a_question_knows_when_it_was_answered() -> None:
    """`answered_ns` of a call is when its first reply was published; None while there is none."""
    bus = Bus()
    asked(bus)
    bus.api.say(5, publish("nova", "conductor", message("b", 9, msg_id=8)))
    question, answer, unanswered = bus.calls()
    assert facts(question).answered_ns == answer.started_ns
    assert facts(unanswered).answered_ns is None


def test_a_failure_holds_no_secret() -> None:
    """An exception repeats its arguments; what is kept of it is cleaned."""
    bus = Bus()
    asked(bus, json.dumps({"class": "Refused", "message": f"bad token={TOKEN} password='s3cret'"}))
    _, answer = bus.calls()
    assert "s3cret" not in repr(answer.facts) and TOKEN not in repr(answer.facts)


def test_other_messages_are_no_trouble() -> None:
    """What is no oslo.messaging is a message all the same."""
    bus = Bus()
    bus.api.say(1, publish("other", "key", b"\x00\x01\x02"))
    (call,) = bus.calls()
    assert call.protocol == "RPC"


def test_repr_of_a_call_holds_no_secret() -> None:
    """The context's token and the arguments' password are not in a call."""
    bus = Bus()
    body = message(
        "build_and_run_instance", admin_password="s3cret-a", instance={"uuid": VM, "user_data": "s3cretb"}
    )
    bus.api.say(1, publish("nova", "compute.compute1", body))
    (call,) = bus.calls()
    assert TOKEN not in repr(call)
    assert "s3cret" not in repr(call)
    assert "broker-password" not in repr(call)


@pytest.mark.parametrize(("acknowledges", "told_"), [(True, "cast ping ok"), (False, "cast ping unacked")])
def test_a_hole_before_the_delivery_loses_no_acknowledgement(acknowledges: bool, told_: str) -> None:
    """A delivery waits for the lost bytes before it; the acknowledgement on its own stream does not."""
    bus = Bus()
    bus.api.say(1, publish("nova", "conductor", message()))
    bus.conductor.hear(1.1, deliver("nova", "conductor", message("other", unique=2), 1), lost=True)
    bus.conductor.hear(1.2, deliver("nova", "conductor", message(), 2))
    if acknowledges:
        bus.conductor.say(1.201, ack(2))
    bus.api.say(60, publish("nova", "nowhere", message("later", unique=3)))
    assert told_ in told(bus.calls())


def test_an_old_acknowledgement_is_not_of_a_later_delivery() -> None:
    """One that came before the delivery of its number was of a channel that was opened anew since."""
    bus = Bus(joined=True)
    bus.conductor.say(0.5, ack(1))
    sent(bus, "confirmed", "delivered")
    assert told(bus.calls()) == ["cast ping unacked"]
