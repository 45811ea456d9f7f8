"""Captures opened, once for all doors: from CAPTURE arguments to packets and segments.

`check`, `calls`, `extract` and `replay` read captures through this module alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tracer.capture import CaptureArgument, Resolved, open_capture, resolve
from tracer.capture.arguments import example_path
from tracer.capture.layers import Layers
from tracer.capture.points import Clocks, in_time_order, join_sightings, merge
from tracer.model import Capture, PacketFields, SegmentFields
from tracer.topology import GivenTopology
from tracer.topology.planes import KNOWN_PLANES

__all__ = [
    "OpenCaptures",
    "Progress",
    "known_planes",
    "open_captures",
    "open_resolved",
    "reopen",
    "resolve_captures",
]


class Progress(Protocol):
    """Hears how far a run has come."""

    def opened(self, path: str, size_bytes: int | None) -> None:
        """Take note of a capture that is open; its size is None for a stream."""

    def advanced(self, path: str, bytes_read: int, packets: int, traces: int) -> None:
        """Take note of how much was read of a capture, and how many traces have begun in all."""

    def ignored(self, path: str, why: str) -> None:
        """Take note of what lies in a given folder and is not read."""


@dataclass(frozen=True, slots=True)
class OpenCaptures:
    """Captures that are open and can be read once."""

    captures: list[Capture]
    """What each is; what is read is counted there."""
    packets: list[Iterator[list[PacketFields]]]
    """The packets of each, in batches."""

    def segments(self) -> Iterator[list[SegmentFields]]:
        """Return the TCP segments of all captures in time order, in batches, each packet once."""
        streams = [
            in_time_order(_decoded(packets, capture))
            for packets, capture in zip(self.packets, self.captures, strict=True)
        ]
        if len(streams) == 1:
            return streams[0]
        named = [capture.plane for capture in self.captures]
        if None not in named and len(set(named)) == len(named):
            # A tap per plane: no packet can be in two of them.
            return merge(streams)
        clocks = Clocks()
        return join_sightings(merge(streams, clocks), clocks)


def known_planes(given: GivenTopology) -> set[str]:
    """Return the names of planes that PLANE=FILE and PLANE=INTERFACE may use."""
    return {*KNOWN_PLANES, *given.plane_names}


def resolve_captures(arguments: Sequence[str], given: GivenTopology) -> Resolved:
    """Return the captures that CAPTURE arguments mean: paths, folders, PLANE=FILE, '-', example:NAME.

    Raises SourceError for what is not there, UsageError for what makes no sense.
    """
    return resolve([example_path(argument) for argument in arguments], known_planes(given))


def open_captures(
    arguments: Sequence[str], given: GivenTopology, progress: Progress | None = None
) -> OpenCaptures:
    """Open the captures that CAPTURE *arguments* mean; *progress* is told of each, and of what is ignored.

    Raises SourceError or UsageError before any packet is read.
    """
    resolved = resolve_captures(arguments, given)
    if progress is not None:
        for path in resolved.ignored:
            progress.ignored(path, "not a capture by its name")
    return open_resolved(resolved.captures, progress)


def open_resolved(arguments: Sequence[CaptureArgument], progress: Progress | None = None) -> OpenCaptures:
    """Open the captures of `resolve_captures`, as often as they can be read. Raises SourceError."""
    captures = [Capture(number, each.path, each.plane) for number, each in enumerate(arguments)]
    packets = []
    for capture in captures:
        packets.append(open_capture(capture.path, capture))
        if progress is not None:
            is_file = capture.path != "-" and os.path.isfile(capture.path)
            progress.opened(capture.path, os.path.getsize(capture.path) if is_file else None)
    return OpenCaptures(captures, packets)


def reopen(capture: Capture) -> Iterator[list[PacketFields]]:
    """Return the packets of *capture* once more, counted in a Capture that nobody reports.

    Raises SourceError.
    """
    return open_capture(capture.path, Capture(capture.number, capture.path, capture.plane))


def _decoded(batches: Iterator[list[PacketFields]], capture: Capture) -> Iterator[list[SegmentFields]]:
    """Yield the TCP segments of *batches*; count what cannot be read."""
    layers = Layers()
    for batch in batches:
        yield layers.read(batch, capture.anomalies)
    capture.anomalies.update(layers.flush())
