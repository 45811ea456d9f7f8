"""Capture streams that are still being written: standard input and named pipes.

A thread of its own reads each stream, so that a quiet one keeps nobody waiting. What has arrived is handed
on before the thread waits for more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import IO, cast

from tracer.errors import SourceError
from tracer.model import Capture, PacketFields
from tracer.sources.opening import read_capture

__all__ = ["BATCH", "CaptureStream", "Deliver"]

STANDARD_INPUT = 0
BATCH = 512
"""Packets handed over at once, when more are there."""

Deliver = Callable[[list[PacketFields], int], None]
"""Takes packets, and up to which time all were handed over, where the source knows; else 0."""


class CaptureStream:
    """A capture read as it is written: pcap or pcapng, from '-', a named pipe or a file."""

    ends_on_stop = False

    def __init__(self, path: str, capture: Capture) -> None:
        self.path = path
        self.capture = capture
        self.dropped = 0
        """A stream does not tell what its sender lost."""

    def open(self) -> None:
        """Raise SourceError for what can never be read, before anything is started."""
        if self.path == "-":
            if sys.stdin is None or sys.stdin.isatty():
                raise SourceError(
                    "standard input is a terminal, not a capture: pipe one in"
                    " (ssh HOST tcpdump -U -w - | tracer watch -i PLANE=-)"
                )
        elif not os.access(self.path, os.R_OK):
            raise SourceError(f"{self.path}: no permission to read it: run as its owner")

    def stop(self) -> None:
        """What is not read stays with its sender."""

    def read(self, deliver: Deliver) -> None:
        """Hand over the stream's packets until it ends. Raises SourceError when it is no capture."""
        batch: list[PacketFields] = []

        def hand_over() -> None:
            nonlocal batch
            if batch:
                deliver(batch, 0)
                batch = []

        arriving = cast("IO[bytes]", _Arriving(self._fd(), hand_over))
        for packet in read_capture(arriving, self.path, self.capture):
            batch.append(packet)
            if len(batch) >= BATCH:
                hand_over()
        hand_over()

    def _fd(self) -> int:
        # Opening a named pipe waits for its writer.
        return STANDARD_INPUT if self.path == "-" else os.open(self.path, os.O_RDONLY)


class _Arriving:
    """A descriptor that says when there is nothing left to read for now."""

    def __init__(self, fd: int, before_waiting: Callable[[], None]) -> None:
        self._fd = fd
        self._before_waiting = before_waiting

    def read1(self, size: int) -> bytes:
        self._before_waiting()
        return os.read(self._fd, size)

    read = read1

    def close(self) -> None:
        if self._fd != STANDARD_INPUT:
            os.close(self._fd)
