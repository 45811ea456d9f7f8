"""Recorded captures again, at their recorded pace, faster, or as fast as possible.

All captures of one replay keep their distance in time: what lies a second apart in them comes a second apart,
divided by the speed.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import chain

from tracer.capture.live import monotonic_s
from tracer.capture.opening import open_capture
from tracer.capture.streams import Deliver
from tracer.model import Capture, PacketFields

__all__ = ["Pace", "Replay"]

STEP_S = 0.02
"""Packets of so much real time are handed over at once."""


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
