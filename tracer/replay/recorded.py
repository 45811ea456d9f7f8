"""Reads captures into messages in time order, each with its bytes as recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tracer.capture import CaptureArgument
from tracer.engine import open_resolved, resolve_captures
from tracer.errors import UsageError
from tracer.model import CALLS_OVER, Capture, Closed, Gap, Message, SegmentFields
from tracer.protocols import Decoders, Options
from tracer.reassembly import Event, Reassembler
from tracer.topology import GivenTopology

__all__ = ["Reading", "read", "resolve_twice"]

PORTS_AT = (8, 32)
"""Index of the ports in a flow: after two addresses of IPv4 or of IPv6."""
WantsBody = Callable[[str, str, dict[str, str], int], bool]


@dataclass(slots=True)
class Reading:
    """One reading of captures: the messages in order, and the captures with their counters."""

    captures: list[Capture]
    messages: Iterator[Message | Closed]
    gaps: list[int] = field(default_factory=lambda: [0, 0])
    """Number of gaps in the streams, and the known bytes in them; complete after the last message."""


def resolve_twice(captures: Sequence[str], given: GivenTopology) -> list[CaptureArgument]:
    """Return the captures that the arguments name. Raises SourceError; UsageError for standard input."""
    found = resolve_captures(captures, given).captures
    if any(argument.path == "-" for argument in found):
        raise UsageError("- : a replay to a target reads its captures twice: save the stream to a file first")
    return found


def read(
    arguments: Sequence[CaptureArgument], ports: Mapping[int, str], wants_body: WantsBody | None
) -> Reading:
    """Return the messages of the captures, in the order in which they were complete.

    SQL is skipped: it is most of the packets and is not replayed. *wants_body* decides which HTTP bodies are
    kept. Raises SourceError.
    """
    opened = open_resolved(arguments)
    captures = opened.captures
    reassembler = Reassembler(captures, ports)
    options = Options(wants_body, raw=True)
    decoders = Decoders(ports, options, reassembler.turn)
    gaps = [0, 0]
    unread = {port for port, protocol in ports.items() if CALLS_OVER.get(protocol) == "SQL"}

    def messages() -> Iterator[Message | Closed]:
        for event in reassembler.read(_without(opened.segments(), unread)):
            yield from _of(event)
        last_ns = max((c.corrected_last_ns or 0 for c in captures), default=0)
        for event in reassembler.flush(last_ns):
            yield from _of(event)

    def _of(event: Event) -> Iterator[Message | Closed]:
        yield from decoders.receive(event)
        if type(event) is Gap:
            gaps[0] += 1
            gaps[1] += event.size_bytes
        elif type(event) is Closed:
            yield event

    return Reading(captures, messages(), gaps)


def _without(batches: Iterator[list[SegmentFields]], ports: Collection[int]) -> Iterator[list[SegmentFields]]:
    """Yield the segments that are neither to nor from *ports*."""
    unwanted = {port.to_bytes(2, "big") for port in ports}
    for batch in batches:
        wanted: list[SegmentFields] = []
        for segment in batch:
            flow = segment[1]
            at = PORTS_AT[len(flow) >= 36]
            if flow[at : at + 2] not in unwanted and flow[at + 2 : at + 4] not in unwanted:
                wanted.append(segment)
        yield wanted
