"""Live sources: the clock, and a thread for each source. No other module reads a clock."""

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
"""Packets whose time is so near to the wall's are live."""
SILENCE_S = 0.3
RECORDED_SILENCE_S = 3.0
"""After so long without a batch a source is not waited for, live and recorded."""
FIRST_S = 5.0
"""How long the first packet of a source is waited for, while others have theirs."""
SLOTS = 64
"""Batches of one source that may wait: then its thread waits, and the kernel buffers."""

Item = TypeVar("Item", PacketFields, SegmentFields | Heard)
"""What a source is read as; its time comes first."""
Decode = Callable[[list[Any]], list[Item]]
"""Of packets; of messages that a broker reported."""
Arrivals = SimpleQueue["tuple[Reader[Item], list[Item] | None, int]"]


def wall_ns() -> int:
    """Return the wall's time."""
    return time.time_ns()


def monotonic_s() -> float:
    """Return seconds on a clock that is never set: for intervals and rates."""
    return time.monotonic()


class LiveSource(Protocol):
    """What a source of packets must offer, or of messages of a broker."""

    capture: Capture
    ends_on_stop: bool
    """Whether `stop` ends it soon."""

    @property
    def dropped(self) -> int:
        """Packets that the kernel dropped, so far."""

    def open(self) -> None:
        """Raise SourceError for what can never be read, before anything is started."""

    def stop(self) -> None:
        """Make `read` hand over what has arrived and end, where it can."""

    def read(self, deliver: Callable[[list[Any], int], None]) -> None:
        """Hand over packets, or what was heard, until the source ends: in its own thread, so it may block."""


class Reader(Generic[Item]):
    """One source, its thread, and what of it is in hand: batches of segments.

    *decode* makes of packets what is wanted, in the thread. What arrives is put into *arrivals*, with None at
    the end.
    """

    def __init__(self, source: LiveSource, decode: Decode[Item], arrivals: Arrivals[Item]) -> None:
        self.source = source
        self.newest_ns = 0
        self.is_live = False
        """Its packets carry the time of the wall."""
        self.ended = False
        self.in_hand = 0
        """Segments taken in and not given out yet."""
        self.error: BaseException | None = None
        """What ended it, when that is not its end."""
        self.backlog: deque[list[Item]] = deque()
        self._heard_s = monotonic_s()
        self._reached_ns = 0
        self._decode: Decode[Item] = decode
        self._arrivals: Arrivals[Item] = arrivals
        self._slots = threading.Semaphore(SLOTS)
        self._thread = threading.Thread(target=self._run, name=f"reads {source.capture.path}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            self.source.read(self._deliver)
        except BaseException as error:
            self.error = error
        self._arrivals.put((self, None, 0))

    def _deliver(self, packets: list[Any], reached_ns: int) -> None:
        batch = self._decode(packets)
        if batch:
            self._slots.acquire()
        if batch or reached_ns:
            self._arrivals.put((self, batch, reached_ns))

    def heard(self, batch: list[Item] | None, reached_ns: int) -> None:
        """Take what has arrived: all up to *reached_ns*, if that is known."""
        self._heard_s = monotonic_s()
        if batch is None:
            self.ended = True
        elif batch:
            self.backlog.append(batch)
            self._reached_ns = 0
        if reached_ns:
            self._reached_ns = reached_ns

    def take(self) -> list[Item]:
        """Return the next batch in hand."""
        batch = self.backlog.popleft()
        self._slots.release()
        last_ns = batch[-1][0]
        self.newest_ns = max(self.newest_ns, last_ns)
        self.is_live = abs(wall_ns() - last_ns) < NEAR_NS
        self.in_hand += len(batch)
        return batch

    def known_ns(self) -> int:
        """Return the time up to which all of this source was taken."""
        return self.newest_ns if self.backlog else max(self.newest_ns, self._reached_ns)

    def is_waited_for(self) -> bool:
        """Return whether others wait for what this source says next."""
        if self.backlog:
            return True
        if self.ended:
            return False
        silent_s = self.silent_s()
        if not self.newest_ns:
            return silent_s < FIRST_S
        return silent_s < (SILENCE_S if self.is_live else RECORDED_SILENCE_S)

    def silent_s(self) -> float:
        """Return for how long nothing has arrived, in seconds."""
        return monotonic_s() - self._heard_s


def hear(arrivals: Arrivals[Item], timeout_s: float) -> None:
    """Take in what has arrived; wait for the first of it if *timeout_s* is more than 0."""
    try:
        first = arrivals.get(timeout=timeout_s) if timeout_s > 0 else arrivals.get_nowait()
        first[0].heard(*first[1:])
        for _ in range(4 * SLOTS):
            reader, batch, reached_ns = arrivals.get_nowait()
            reader.heard(batch, reached_ns)
    except Empty:
        return
