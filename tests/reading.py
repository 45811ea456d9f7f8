"""One packet at a time through the first stage, for tests that look at each."""

from __future__ import annotations

from tracer.layers import Layers
from tracer.model import PacketFields, Segment


def segment_of(layers: Layers, packet: PacketFields) -> Segment | str | None:
    """Return the segment in *packet*, None without one, or the anomaly in it, in words."""
    anomalies: dict[str, int] = {}
    found = list(layers.read((packet,), anomalies))
    assert len(found) + sum(anomalies.values()) <= 1
    return Segment._make(found[0]) if found else next(iter(anomalies), None)
