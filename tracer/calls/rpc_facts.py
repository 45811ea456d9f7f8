"""What one AMQP message says: method, ids and states of an RPC call, as oslo.messaging wrote them."""

from __future__ import annotations

from tracer.calls import oslo
from tracer.calls.bodies import clean
from tracer.model import DEATH_REASON, DELIVERY_COUNT, AmqpContent, AmqpMethod, Call, RpcFacts
from tracer.openstack.rpc import ABOUT_SERVERS, ACTION_EVENT, FAULT, GIVES_UP, INSTANCE, OF_OBJECTS, SAVE
from tracer.openstack.services import FANOUT
from tracer.openstack.states import saved_word

__all__ = [
    "death_of",
    "deliveries_before",
    "facts_of",
    "is_dead_letter",
    "read",
    "reply_text",
    "routing_key",
    "set_result",
]


def read(message: AmqpContent, envelope: oslo.OsloMessage | None) -> RpcFacts:
    """Return what *message* says; *envelope* is what oslo.messaging wrote around it, None if unreadable.

    A reply carries the message id of its request and nothing else of it.
    """
    exchange, key = str(message.arguments.get("exchange", "")), routing_key(message)
    if envelope is None:
        # Unreadable. oslo.messaging publishes replies on the default exchange '', all else on named ones.
        return RpcFacts("?", "cast" if exchange else "reply", exchange, key, broken=message.truncated)
    facts = RpcFacts(
        envelope.method or "?",
        _mode(envelope, exchange),
        exchange,
        key,
        envelope.msg_id or "",
        envelope.unique_id or "",
        envelope.request_id or "",
        envelope.global_request_id or "",
        envelope.project_id or "",
        failure=clean(envelope.failure or ""),
        broken=message.truncated,
    )
    if facts.mode == "notify":
        facts.method = envelope.event_type or "?"
        _read_notification(facts, message.body)
    elif facts.mode == "reply":
        facts.method = "?"
    elif facts.method in ABOUT_SERVERS:
        facts.ids = tuple(oslo.instance_uuids(facts.method, message.body))
        if facts.method in GIVES_UP and not message.truncated:
            facts.fault = clean(oslo.reason_given(facts.method, message.body))
    elif facts.method in OF_OBJECTS:
        _read_object(facts, message.body)
    return facts


def _mode(envelope: oslo.OsloMessage, exchange: str) -> str:
    if envelope.kind == "reply":
        return "reply"
    if envelope.kind == "notification":
        return "notify"
    if envelope.msg_id:
        return "call"
    return "fanout" if exchange.endswith(FANOUT) else "cast"


def _read_object(facts: RpcFacts, body: bytes) -> None:
    found = oslo.object_action_facts(body)
    if found is None:
        return
    facts.object_method = f"{found.objname}.{found.objmethod}" if found.objname else ""
    if found.instance_uuid:
        facts.ids = (found.instance_uuid,)
    facts.vm_state, facts.task_state = found.vm_state or "", found.task_state or ""
    facts.binary = found.binary or ""
    if found.objname == INSTANCE and found.objmethod == SAVE:
        word = saved_word(facts.vm_state, found.task_state or "", found.changes)
        facts.action = f"{facts.object_method} {word}" if word else ""
    elif found.objname == ACTION_EVENT:
        facts.event_error = clean(found.error or "")
    elif found.objname == FAULT:
        facts.action = facts.object_method
        facts.fault = clean(found.error or "")


def _read_notification(facts: RpcFacts, body: bytes) -> None:
    found = oslo.notified(facts.method, body)
    if found is not None:
        facts.ids, facts.fault, facts.told_by = found.servers, clean(found.words), found.host


def facts_of(call: Call) -> RpcFacts:
    """Return the facts of an RPC call."""
    assert isinstance(call.facts, RpcFacts)  # noqa: S101  # every call made here holds them
    return call.facts


def set_result(call: Call, result: str) -> None:
    """Set the result of *call*; that of a reply is the method's, whatever the broker does with it."""
    if facts_of(call).mode != "reply":
        call.result = result


def routing_key(message: AmqpContent) -> str:
    """Return the routing key of *message*: the name of its queue, as oslo.messaging names queues."""
    return str(message.arguments.get("routing_key", ""))


def reply_text(message: AmqpContent | AmqpMethod) -> str:
    """Return code and text with which a peer returns a message or closes a channel or connection."""
    return clean(f"{message.arguments.get('reply_code', '')} {message.arguments.get('reply_text', '')}")


def is_dead_letter(message: AmqpContent, facts: RpcFacts) -> bool:
    """Return whether *message* is a dead letter, and not delivered from a queue that it was sent to.

    A queue for retries sends it to its exchange again: then it is a delivery like others.
    """
    if DEATH_REASON not in message.properties:
        return False
    return not facts.published or message.arguments.get("exchange") != facts.exchange


def deliveries_before(message: AmqpContent, known: int, is_copy: bool) -> int:
    """Return how often *message*, which comes again, was delivered before; *known* is what was seen of that.

    A quorum queue counts itself. Elsewhere a copy (the other side of a proxy, the firehose) counts once.
    """
    counted = message.properties.get(DELIVERY_COUNT)
    if isinstance(counted, int):
        return max(known, counted, 1)
    return max(known, 1) if is_copy else known + 1


def death_of(message: AmqpContent) -> str:
    """Return why the broker made a dead letter of *message*."""
    return clean(str(message.properties.get(DEATH_REASON, "")))
