"""Our decoders without the stages behind them: captures in, every message out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tracer.capture import open_capture
from tracer.capture.clocks import ClockEstimates, read_ahead
from tracer.capture.layers import Layers
from tracer.capture.points import Clocks, in_time_order, join_sightings, merge
from tracer.model import (
    AmqpContent,
    Capture,
    HttpRequest,
    HttpResponse,
    Message,
    SegmentFields,
    SqlStatement,
)
from tracer.protocols import PORTS, Decoders, Options
from tracer.reassembly import Reassembler

__all__ = ["counts", "decode", "kind_of"]

_KINDS = {"basic.publish": "publish", "basic.deliver": "deliver"}


def decode(
    paths: Sequence[Path], more_ports: dict[int, str] | None = None
) -> tuple[list[Message], list[Capture]]:
    """Return every message in the captures at *paths*, and the captures with their counters."""
    captures = [Capture(number, str(path)) for number, path in enumerate(paths)]
    ports = {**PORTS, **(more_ports or {})}
    reassembler = Reassembler(captures, ports)
    decoders = Decoders(ports, Options(), reassembler.turn)
    streams = [in_time_order(_segments(c)) for c in captures]
    segments: Iterable[list[SegmentFields]] = streams[0]
    if len(streams) > 1:
        clocks = ClockEstimates(captures)
        ahead = [read_ahead(stream, number, clocks) for number, stream in enumerate(streams)]
        segments = join_sightings(merge(ahead, clocks), Clocks())
    messages: list[Message] = []
    for event in reassembler.read(segments):
        messages += decoders.receive(event)
    for event in reassembler.flush(max(c.last_ns or 0 for c in captures)):
        messages += decoders.receive(event)
    return messages, captures


def _segments(capture: Capture) -> Iterator[list[SegmentFields]]:
    layers = Layers()
    for batch in open_capture(capture.path, capture):
        yield layers.read(batch, capture.anomalies)


def kind_of(message: Message) -> str:
    """Return which of the kinds that tshark counts *message* is, '' if none."""
    if isinstance(message, HttpRequest):
        return "request"
    if isinstance(message, HttpResponse):
        return "response"
    if isinstance(message, AmqpContent):
        return _KINDS.get(message.name, "")
    return "command" if isinstance(message, SqlStatement) else ""


def counts(messages: Iterable[Message], *, truncated: bool = True) -> dict[str, int]:
    """Return how many messages of each kind there are; without *truncated* only the whole ones."""
    found = dict.fromkeys(("request", "response", "publish", "deliver", "command"), 0)
    for message in messages:
        kind = kind_of(message)
        if kind and (truncated or not message.truncated):  # type: ignore[union-attr]
            found[kind] += 1
    return found
