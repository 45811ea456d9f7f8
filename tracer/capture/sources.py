"""Live sources of the arguments of a command line; none of them is open yet.

Captures are numbered in the order of the sources, from *first* on, since a run may have sources of several
kinds.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracer.capture.arguments import CaptureArgument, LiveArgument
from tracer.capture.interface import Interface
from tracer.capture.live import LiveSource
from tracer.capture.streams import CaptureStream, Pace, Replay
from tracer.errors import UsageError
from tracer.model import Capture

__all__ = ["broker_sources", "interface_sources", "replay_sources"]


def interface_sources(arguments: Sequence[LiveArgument], bpf: str, first: int = 0) -> list[LiveSource]:
    """Return the interfaces and capture streams of *arguments* (from `resolve_live`).

    *bpf* is the filter of the interfaces; '' for none.
    """
    found: list[LiveSource] = []
    for number, argument in enumerate(arguments, first):
        capture = Capture(number, argument.target, argument.plane)
        if argument.is_stream:
            found.append(CaptureStream(argument.target, capture))
        else:
            found.append(Interface(argument.target, capture, bpf or None))
    return found


def broker_sources(urls: Sequence[str], first: int = 0) -> list[LiveSource]:
    """Return the firehoses of the brokers at *urls*. Raises UsageError; its message holds no password."""
    if not urls:
        return []
    # Imported here, because only runs with a broker need the client library.
    from tracer.capture.rabbitmq import RabbitMQ
    from tracer.capture.rabbitmq.broker import broker_of

    found = [broker_of(url) for url in urls]
    names = [broker.name for broker in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--amqp: {twice} is given twice")
    return [
        RabbitMQ(broker, Capture(number, broker.name, protocol="RPC"))
        for number, broker in enumerate(found, first)
    ]


def replay_sources(arguments: Sequence[CaptureArgument], speed: float) -> list[LiveSource]:
    """Return *arguments* (from `resolve`) as sources at *speed* times the recorded pace; 0: no pauses."""
    pace = Pace(speed)
    return [
        Replay(argument.path, Capture(number, argument.path, argument.plane), pace)
        for number, argument in enumerate(arguments)
    ]
