"""Captures read by tshark in place of our own stages up to messages (`--engine tshark`), and both compared.

Everything behind messages is the same. tshark is given each file as it is: clocks are not compared, and of a
connection that several capture points saw, what the first of them shows is taken.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import count
from pathlib import Path
from typing import NamedTuple

from tracer.engine.captures import Progress, resolve_captures
from tracer.engine.stages import TICK, Stages
from tracer.errors import SourceError, UsageError
from tracer.model import Capture, Closed, Connection, Endpoint, Gap, Heard, Message
from tracer.protocols import PORTS
from tracer.second import heard, require
from tracer.topology import GivenTopology

__all__ = ["TsharkCaptures", "open_for_tshark"]

_Ends = tuple[Endpoint, Endpoint]


class _Told(NamedTuple):
    time_ns: int
    capture: int
    event: Message | Closed | Gap


@dataclass(frozen=True, slots=True)
class TsharkCaptures:
    """Captures that tshark reads."""

    captures: list[Capture]
    ports: dict[int, str]
    keylog: Path | None = None

    def feed(self, stages: Stages, tick: Callable[[int], None]) -> None:
        """Pass the messages of all captures to *stages*, in order of time."""
        numbers = count(1)
        owners: dict[_Ends, int] = {}
        streams = [self._told(capture, stages, numbers) for capture in self.captures]
        number = 0
        for told in merge(*streams, key=_time):
            if len(streams) > 1 and not _is_first(told, owners):
                continue
            stages.hear((Heard(*told),))
            number += 1
            if not number % TICK:
                tick(told.time_ns)

    def _told(self, capture: Capture, stages: Stages, numbers: Iterator[int]) -> Iterator[_Told]:
        for time_ns, event in heard(capture, self.ports, stages.options, numbers, self.keylog):
            yield _Told(time_ns, capture.number, event)


def _time(told: _Told) -> int:
    return told.time_ns


def _is_first(told: _Told, owners: dict[_Ends, int]) -> bool:
    """Return whether the capture that tells this is the one that its connection is taken from."""
    connection: Connection = told.event.connection
    ends = connection.client, connection.server
    owner = owners.setdefault(ends, told.capture)
    if isinstance(told.event, Closed) and told.event.how != "fin" and owner == told.capture:
        del owners[ends]
    return owner == told.capture


def open_for_tshark(
    arguments: Sequence[str],
    given: GivenTopology,
    progress: Progress | None = None,
    keylog: Path | None = None,
) -> TsharkCaptures:
    """Return the captures that CAPTURE *arguments* name, for tshark to read; *keylog* opens TLS.

    Raises UsageError where tshark or pyshark cannot be used, or cannot do what an argument asks for.
    """
    require(keylog)
    resolved = resolve_captures(arguments, given)
    captures = []
    for number, argument in enumerate(resolved.captures):
        if argument.path == "-" or not os.path.isfile(argument.path):
            raise UsageError(f"--engine tshark reads files, not {argument.path}: write it to a file first")
        if argument.behind_ns:
            raise UsageError(f"--engine tshark: {argument.path}: no offset can be given to a clock")
        if not os.access(argument.path, os.R_OK):
            raise SourceError(f"{argument.path}: cannot be read: no permission: run as its owner")
        captures.append(Capture(number, argument.path, argument.plane))
        if progress is not None:
            progress.opened(argument.path, os.path.getsize(argument.path))
    return TsharkCaptures(captures, {**PORTS, **given.ports}, keylog)
