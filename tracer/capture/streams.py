"""Capture streams that are still being written: standard input and named pipes.

A thread of its own reads each stream, so that a quiet one keeps nobody waiting.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tracer.capture.opening import open_capture
from tracer.errors import SourceError
from tracer.model import Capture, PacketFields

__all__ = ["CaptureStream", "Deliver"]

Deliver = Callable[[list[PacketFields], int], None]
"""Takes packets, and up to which time all were handed over, where the source knows; else 0."""


class CaptureStream:
    """A capture read as it is written: pcap or pcapng, from '-', a named pipe or a file."""

    ends_on_stop = False

    def __init__(self, path: str, capture: Capture) -> None:
        self.path = path
        self.capture = capture

    @property
    def dropped(self) -> int:
        """What its sender lost, where the stream tells: pcapng does, at its end mostly."""
        return sum(count for _, _, count in self.capture.drops)

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
        for batch in open_capture(self.path, self.capture):
            deliver(batch, 0)
