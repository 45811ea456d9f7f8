"""Captures as live sources: streams that are still being written, and recordings replayed at their pace.

Each source has its own thread, so a quiet one does not block the others. All captures of one replay keep
their distances in time: packets that are a second apart are handed over a second apart, divided by the speed.
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
"""Accepts packets, and the time up to which the source has handed over everything, 0 if it does not know."""
STEP_S = 0.02
"""Packets of this much real time are handed over at once."""


class CaptureStream:
    """A capture that is read while it is written: pcap or pcapng, from '-', a named pipe or a file."""

    ends_on_stop = False

    def __init__(self, path: str, capture: Capture) -> None:
        self.path = path
        self.capture = capture

    @property
    def dropped(self) -> int:
        """Packets that the recorder dropped, if the stream reports it: pcapng does, mostly at its end."""
        return sum(count for _, _, count in self.capture.drops)

    def open(self) -> None:
        """Check that the stream can be read, without reading. Raises SourceError."""
        if self.path == "-":
            if sys.stdin is None or sys.stdin.isatty():
                raise SourceError(
                    "standard input is a terminal, not a capture: pipe one in"
                    " (ssh HOST tcpdump -U -w - | tracer watch -i PLANE=-)"
                )
        elif not os.access(self.path, os.R_OK):
            raise SourceError(f"{self.path}: no permission to read it: run as its owner")

    def stop(self) -> None:
        """Do nothing: a read that waits for the sender cannot be interrupted."""

    def read(self, deliver: Deliver) -> None:
        """Hand over the packets of the stream until it ends. Raises SourceError if it is not a capture."""
        for batch in open_capture(self.path, self.capture):
            deliver(batch, 0)


class Pace:
    """The clock of a replay, shared by its captures: when packets are due. *speed* 0: without pauses."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self.first_ns: int | None = None
        """Time of the first packet of all captures."""
        self._begun_s: float | None = None
        # The threads of the captures start the clock together.
        self._lock = threading.Lock()

    def due_ns(self) -> int | None:
        """Return the capture time up to which packets are due now; None if all are."""
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
        """Make `read` return at its next pause or batch."""
        self._stopped.set()

    def read(self, deliver: Deliver) -> None:
        """Hand over packets when they are due, with the time that is reached, also if no packet is due."""
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
