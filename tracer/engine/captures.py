"""Opens captures: from CAPTURE arguments to packets and segments.

`check`, `calls`, `extract` and `replay` all read captures through this module.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from tracer.capture import CaptureArgument, Resolved, open_capture, open_reader, resolve
from tracer.capture.arguments import example_path
from tracer.capture.clocks import ClockEstimates, read_ahead
from tracer.capture.layers import Layers
from tracer.capture.points import Clocks, in_time_order, join_sightings, merge
from tracer.engine.internal_errors import InternalErrors
from tracer.model import Capture, PacketFields, SegmentFields
from tracer.topology import GivenTopology
from tracer.topology.planes import KNOWN_PLANES

if TYPE_CHECKING:
    from tracer.engine.stages import Stages

__all__ = [
    "InHand",
    "OpenCaptures",
    "Progress",
    "known_planes",
    "open_captures",
    "open_resolved",
    "reopen",
    "resolve_captures",
]


class Progress(Protocol):
    """Receives the progress of a run."""

    def opened(self, path: str, size_bytes: int | None) -> None:
        """Receive that a capture was opened; its size is None for a stream."""

    def advanced(self, path: str, bytes_read: int, packets: int, traces: int) -> None:
        """Receive how much of a capture was read, and how many traces have begun in all captures."""

    def ignored(self, path: str, why: str) -> None:
        """Receive that a file in a given folder is not read, and why."""


class OpenCapture(Protocol):
    """An open capture. It can be read once: as packets, or as segments."""

    def batches(self) -> Iterator[list[PacketFields]]:
        """Yield the packets."""

    def segments(
        self, decode: Callable[[list[PacketFields]], list[SegmentFields]]
    ) -> Iterator[list[SegmentFields]]:
        """Yield the TCP segments; *decode* returns those of packets that need a closer look."""


@dataclass(frozen=True, slots=True)
class InHand:
    """Packets that were read before, as an open capture."""

    kept: Sequence[list[PacketFields]]

    def batches(self) -> Iterator[list[PacketFields]]:
        """Yield the packets."""
        return iter(self.kept)

    def segments(
        self, decode: Callable[[list[PacketFields]], list[SegmentFields]]
    ) -> Iterator[list[SegmentFields]]:
        """Yield what *decode* returns of the packets."""
        return map(decode, self.kept)


@dataclass(frozen=True, slots=True)
class OpenCaptures:
    """Captures that are open and can be read once."""

    captures: list[Capture]
    """The captures; counts of what was read are kept in them."""
    readers: Sequence[OpenCapture]
    """The open file of each capture."""
    ignored: list[str] = field(default_factory=list)
    """Entries of the given folders that are not captures by their name."""

    @property
    def packets(self) -> list[Iterator[list[PacketFields]]]:
        """The packets of each capture, in batches."""
        return [reader.batches() for reader in self.readers]

    def feed(self, stages: Stages, tick: Callable[[int], None]) -> None:
        """Pass all packets to *stages*."""
        stages.read(self.segments(stages.errors), tick)

    def segments(self, errors: InternalErrors | None = None) -> Iterator[list[SegmentFields]]:
        """Return the TCP segments of all captures in time order, in batches, each packet once.

        Packets that meet a mistake of ours are left out and counted in *errors*.
        """
        errors = errors or InternalErrors()
        streams = [
            in_time_order(_decoded(reader, capture, errors), clock=capture.clock)
            for reader, capture in zip(self.readers, self.captures, strict=True)
        ]
        if len(streams) == 1:
            return streams[0]
        estimates = ClockEstimates(self.captures)
        merged = merge(
            [read_ahead(stream, number, estimates) for number, stream in enumerate(streams)], estimates
        )
        named = [capture.plane for capture in self.captures]
        if None in named or len(set(named)) < len(named):
            # Not one tap per plane: a packet can be in two of them.
            merged = join_sightings(merged, Clocks())
        return _concluding(merged, estimates)


def _concluding(
    batches: Iterator[list[SegmentFields]], estimates: ClockEstimates
) -> Iterator[list[SegmentFields]]:
    yield from batches
    estimates.conclude()


def known_planes(given: GivenTopology) -> set[str]:
    """Return the names of planes that PLANE=FILE and PLANE=INTERFACE may use."""
    return {*KNOWN_PLANES, *given.plane_names}


def resolve_captures(arguments: Sequence[str], given: GivenTopology) -> Resolved:
    """Return the captures that CAPTURE arguments name: paths, folders, PLANE=FILE, '-', example:NAME.

    Raises SourceError for a file that is not there, UsageError for arguments that contradict each other.
    """
    return resolve([example_path(argument) for argument in arguments], known_planes(given))


def open_captures(
    arguments: Sequence[str], given: GivenTopology, progress: Progress | None = None
) -> OpenCaptures:
    """Open the captures that CAPTURE *arguments* name; *progress* receives each, and each ignored file.

    Raises SourceError or UsageError before any packet is read.
    """
    resolved = resolve_captures(arguments, given)
    if progress is not None:
        for path in resolved.ignored:
            progress.ignored(path, "not a capture by its name")
    return replace(open_resolved(resolved.captures, progress), ignored=resolved.ignored)


def open_resolved(arguments: Sequence[CaptureArgument], progress: Progress | None = None) -> OpenCaptures:
    """Open the captures of `resolve_captures`, as often as they can be read. Raises SourceError."""
    captures = [Capture(number, each.path, each.plane) for number, each in enumerate(arguments)]
    readers = []
    for capture, argument in zip(captures, arguments, strict=True):
        capture.clock.given_ns = argument.behind_ns
        readers.append(open_reader(capture.path, capture))
        if progress is not None:
            is_file = capture.path != "-" and os.path.isfile(capture.path)
            progress.opened(capture.path, os.path.getsize(capture.path) if is_file else None)
    return OpenCaptures(captures, readers)


def reopen(capture: Capture) -> Iterator[list[PacketFields]]:
    """Return the packets of *capture* once more, counted in a Capture of their own that is not reported.

    Raises SourceError.
    """
    return open_capture(capture.path, Capture(capture.number, capture.path, capture.plane))


def _decoded(reader: OpenCapture, capture: Capture, errors: InternalErrors) -> Iterator[list[SegmentFields]]:
    """Yield the TCP segments that *reader* reads; count what cannot be read."""
    layers = Layers()
    given_ns = capture.clock.given_ns

    def decode(batch: list[PacketFields]) -> list[SegmentFields]:
        try:
            return layers.read(batch, capture.anomalies)
        except Exception as error:
            # The packet that did it is not known: the batch is, as far as it goes, read one by one.
            errors.add(error)
            return _one_by_one(layers, batch, capture)

    for segments in reader.segments(decode):
        yield [(s[0] + given_ns, *s[1:]) for s in segments] if given_ns else segments
    capture.anomalies.update(layers.flush())


def _one_by_one(layers: Layers, batch: list[PacketFields], capture: Capture) -> list[SegmentFields]:
    """Return the segments of those packets of *batch* that can be taken."""
    found: list[SegmentFields] = []
    for packet in batch:
        with suppress(Exception):
            found += layers.read([packet], capture.anomalies)
    return found
