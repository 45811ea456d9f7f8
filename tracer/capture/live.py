"""Live sources: a thread for each source, and the clock. No other module reads a clock."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from tracer.model import Capture, Heard, PacketFields, SegmentFields

__all__ = ["Arrivals", "LiveSource", "Reader", "hear", "monotonic_s", "wall_ns"]

NEAR_NS = 30_000_000_000
"""A source is live if its packets' time differs from the wall clock by less than this."""
SILENCE_S = 0.3
"""The merge does not wait longer than this for the next batch of a live source."""
RECORDED_SILENCE_S = 3.0
"""The same for a source that hands over a recording."""
FIRST_S = 5.0
"""The merge does not wait longer than this for the first batch of a source."""
SLOTS = 64
"""Batches of one source that may wait. Beyond that its thread waits, and the kernel buffers packets."""

Item = TypeVar("Item", PacketFields, SegmentFields | Heard)
"""What a source is decoded to; the first field is the time."""
Decode = Callable[[list[Any]], list[Item]]
"""Decodes packets, or messages that a broker reported."""
# (reader, batch or None at the end, time up to which the source has handed over everything, or 0).
Arrivals = SimpleQueue["tuple[Reader[Item], list[Item] | None, int]"]


def wall_ns() -> int:
    """Return the time of the wall clock in nanoseconds since the Unix epoch."""
    return time.time_ns()


def monotonic_s() -> float:
    """Return seconds of a clock that is never adjusted, for intervals and rates."""
    return time.monotonic()


class LiveSource(Protocol):
    """The interface of a live source, of packets or of a broker's messages."""

    capture: Capture
    ends_on_stop: bool
    """Whether `read` returns soon after `stop`."""

    @property
    def dropped(self) -> int:
        """Packets that the kernel has dropped so far."""

    def open(self) -> None:
        """Prepare the source, before any thread starts. Raises SourceError if it cannot be read."""

    def stop(self) -> None:
        """Make `read` hand over what has arrived, and return if it can."""

    def read(self, deliver: Callable[[list[Any], int], None]) -> None:
        """Hand over packets or messages until the source ends; runs in its own thread, so it may block."""


class Reader(Generic[Item]):
    """One source, its thread, and its batches that wait for the merge.

    The thread decodes packets with *decode* and puts the batches into *arrivals*, with None at the end. All
    public methods are called by the merging thread.
    """

    def __init__(self, source: LiveSource, decode: Decode[Item], arrivals: Arrivals[Item]) -> None:
        self.source = source
        self.newest_ns = 0
        self.is_live = False
        """Its packets carry the time of the wall clock."""
        self.ended = False
        self.in_hand = 0
        """Segments that the merge has taken and not handed on yet."""
        self.error: BaseException | None = None
        """The error that ended it, if it did not end by itself."""
        self.backlog: deque[list[Item]] = deque()
        self._heard_s = monotonic_s()
        self._reached_ns = 0
        self._decode: Decode[Item] = decode
        self._arrivals: Arrivals[Item] = arrivals
        self._slots = threading.Semaphore(SLOTS)
        self._thread = threading.Thread(target=self._run, name=f"reads {source.capture.path}", daemon=True)

    def start(self) -> None:
        """Start the thread; the source must be open."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self.source.read(self._deliver)
        except BaseException as error:
            self.error = error
        self._arrivals.put((self, None, 0))

    def _deliver(self, packets: list[Any], reached_ns: int) -> None:
        batch = self._decode(packets)
        # Back-pressure: wait until the merge has taken a batch. A time alone needs no slot.
        if batch:
            self._slots.acquire()
        if batch or reached_ns:
            self._arrivals.put((self, batch, reached_ns))

    def heard(self, batch: list[Item] | None, reached_ns: int) -> None:
        """Add a batch that has arrived; None is the end.

        *reached_ns* is the time up to which the source has handed over everything, 0 if unknown.
        """
        self._heard_s = monotonic_s()
        if batch is None:
            self.ended = True
        elif batch:
            # The time that an earlier arrival reached is outdated: packets came after it.
            self.backlog.append(batch)
            self._reached_ns = 0
        if reached_ns:
            self._reached_ns = reached_ns

    def take(self) -> list[Item]:
        """Return the next waiting batch, and free its slot."""
        batch = self.backlog.popleft()
        self._slots.release()
        last_ns = batch[-1][0]
        self.newest_ns = max(self.newest_ns, last_ns)
        self.is_live = abs(wall_ns() - last_ns) < NEAR_NS
        self.in_hand += len(batch)
        return batch

    def known_ns(self) -> int:
        """Return the time up to which everything of this source was taken."""
        return self.newest_ns if self.backlog else max(self.newest_ns, self._reached_ns)

    def is_waited_for(self) -> bool:
        """Return whether the merge has to wait for the next batch of this source."""
        if self.backlog:
            return True
        if self.ended:
            return False
        silent_s = self.silent_s()
        if not self.newest_ns:
            return silent_s < FIRST_S
        return silent_s < (SILENCE_S if self.is_live else RECORDED_SILENCE_S)

    def silent_s(self) -> float:
        """Return the seconds since the last arrival."""
        return monotonic_s() - self._heard_s


def hear(arrivals: Arrivals[Item], timeout_s: float) -> None:
    """Pass waiting arrivals to their readers; wait up to *timeout_s* for the first one."""
    try:
        first = arrivals.get(timeout=timeout_s) if timeout_s > 0 else arrivals.get_nowait()
        first[0].heard(*first[1:])
        # Bounded, so that fast sources cannot keep the caller here.
        for _ in range(4 * SLOTS):
            reader, batch, reached_ns = arrivals.get_nowait()
            reader.heard(batch, reached_ns)
    except Empty:
        return
