"""What the tests know of a recording, read by the decoders and not by the replay's own plan."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from lab.captures import CAPTURES, ROOT
from tracer.model import AmqpContent, AmqpMethod, Closed, HttpRequest, HttpResponse, Message
from tracer.protocols import PORTS
from tracer.replay.recorded import read, resolve_twice
from tracer.topology import GivenTopology

__all__ = ["CAPTURES", "ROOT", "Exchanged", "delivered", "exchanged", "messages", "published"]


def messages(*captures: str | Path) -> list[Message | Closed]:
    """All messages of captures, with the bytes they came as."""
    arguments = resolve_twice([str(each) for each in captures], GivenTopology())
    return list(read(arguments, PORTS, None).messages)


def published(found: list[Message | Closed]) -> list[tuple[str, str, bytes, bytes]]:
    """(exchange, routing key, properties as sent, body) of what clients published, in order."""
    return [
        (str(m.arguments["exchange"]), str(m.arguments["routing_key"]), m.raw_header[12:], m.body)
        for m in found
        if isinstance(m, AmqpContent) and m.name == "basic.publish"
    ]


def delivered(found: list[Message | Closed]) -> dict[str, list[tuple[str, str, bytes]]]:
    """queue -> (exchange, routing key, body) of what was delivered from it, in order.

    The queue is that which the consumer named when it began, else the routing key, oslo.messaging's rule; of
    a fanout the exchange stands for it.
    """
    consumers: dict[tuple[int, int, str], str] = {}
    queues = defaultdict(list)
    for m in found:
        if isinstance(m, AmqpMethod) and m.name == "basic.consume":
            consumers[m.connection.number, m.channel, str(m.arguments["consumer_tag"])] = str(
                m.arguments["queue"]
            )
        elif isinstance(m, AmqpContent) and m.name == "basic.deliver":
            key = str(m.arguments["routing_key"])
            tag = m.connection.number, m.channel, str(m.arguments["consumer_tag"])
            queue = consumers.get(tag) or key or str(m.arguments["exchange"])
            queues[queue].append((str(m.arguments["exchange"]), key, m.body))
    return dict(queues)


class Exchanged(NamedTuple):
    """One recorded request with its answer."""

    request: HttpRequest
    answer: HttpResponse


def exchanged(found: list[Message | Closed]) -> list[Exchanged]:
    """All recorded requests that were answered, in the order of their requests."""
    answers = {(m.connection.number, m.exchange): m for m in found if isinstance(m, HttpResponse)}
    return [
        Exchanged(m, answers[m.connection.number, m.exchange])
        for m in found
        if isinstance(m, HttpRequest) and (m.connection.number, m.exchange) in answers
    ]
