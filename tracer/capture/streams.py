"""Captures as live sources: streams that are still being written, and recordings replayed at their pace.

A thread of its own reads each, so that a quiet one keeps nobody waiting. All captures of one replay keep
their distance in time: what lies a second apart in them comes a second apart, divided by the speed.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import chain

from tracer.capture.files import open_capture
from tracer.capture.live import monotonic_s
from tracer.errors import SourceError
from tracer.model import Capture, PacketFields

__all__ = ["CaptureStream", "Deliver", "Pace", "Replay"]

Deliver = Callable[[list[PacketFields], int], None]
"""Takes packets, and up to which time all were handed over, where the source knows; else 0."""
STEP_S = 0.02
"""Packets of so much real time are handed over at once."""


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


class Pace:
    """When packets are due: the clock of all captures of a replay. *speed* 0 is as fast as possible."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self.first_ns: int | None = None
        """Time of the first packet of all."""
        self._begun_s: float | None = None
        self._lock = threading.Lock()

    def due_ns(self) -> int | None:
        """Return up to which time packets are due now; None when all are."""
        if not self._speed or self.first_ns is None:
            return None
        with self._lock:
            if self._begun_s is None:
                self._begun_s = monotonic_s()
        return self.first_ns + int((monotonic_s() - self._begun_s) * self._speed * 1e9)


class Replay:
    """One capture, replayed."""

    ends_on_stop = False

    def __init__(self, path: str, capture: Capture, pace: Pace) -> None:
        self.path = path
        self.capture = capture
        self.dropped = 0
        self._pace = pace
        self._batches: Iterator[list[PacketFields]] = iter(())
        self._stopped = threading.Event()

    def open(self) -> None:
        """Open the capture and look at its first packet. Raises SourceError."""
        batches = open_capture(self.path, self.capture)
        first = next((batch for batch in batches if batch), None)
        if first is None:
            return
        self._batches = chain((first,), batches)
        pace = self._pace
        pace.first_ns = first[0][0] if pace.first_ns is None else min(pace.first_ns, first[0][0])

    def stop(self) -> None:
        self._stopped.set()

    def read(self, deliver: Deliver) -> None:
        """Hand over packets as they are due, and how far that is where there are none."""
        for packets in self._batches:
            begin = 0
            while (due_ns := self._pace.due_ns()) is not None and begin < len(packets):
                end = begin
                while end < len(packets) and packets[end][0] <= due_ns:
                    end += 1
                deliver(packets[begin:end], due_ns if end < len(packets) else 0)
                begin = end
                if end < len(packets) and self._stopped.wait(STEP_S):
                    return
            if begin < len(packets):
                deliver(packets, 0)
            if self._stopped.is_set():
                return
