"""The first stages, a packet at a time, for tests that look at each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tracer.capture import open_capture
from tracer.capture.layers import Layers
from tracer.model import Capture, Packet, PacketFields, Segment, SegmentFields


def packets_of(path: str, capture: Capture) -> Iterator[Packet]:
    """The packets of a capture file, one by one."""
    for batch in open_capture(path, capture):
        yield from map(Packet._make, batch)


def one_by_one(segments: Iterable[SegmentFields]) -> Iterator[list[SegmentFields]]:
    """Each segment as a batch of its own."""
    return ([segment] for segment in segments)


def segment_of(layers: Layers, packet: PacketFields) -> Segment | str | None:
    """Return the segment in *packet*, None without one, or the anomaly in it, in words."""
    anomalies: dict[str, int] = {}
    found = layers.read((packet,), anomalies)
    assert len(found) + sum(anomalies.values()) <= 1
    return Segment._make(found[0]) if found else next(iter(anomalies), None)
