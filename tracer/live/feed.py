"""Several live sources, one stream of segments, and of what brokers tell, in time order.

What is in hand is given out up to the time that every source has reached; a source that has been silent for
a moment is not waited for. Where the sources are live (their packets carry the time of the wall), what is
older than a quarter of a second goes out in any case. A recording sent through a pipe has no such time:
its pace is that of the slowest pipe, and the answer is that of `tracer check` on the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from queue import SimpleQueue
from threading import Lock

from tracer.capture.layers import Layers
from tracer.capture.live import Arrivals, LiveSource, Reader, hear, wall_ns
from tracer.capture.points import Clocks, Sightings
from tracer.model import Capture, Heard, PacketFields, SegmentFields

__all__ = ["Feed", "Item"]

Item = SegmentFields | Heard

WINDOW_NS = 20_000_000
"""How far segments of one source may be out of order (points.py)."""
LAG_NS = 250_000_000
"""Live packets older than this are not held back for a slower source."""
BEHIND = 4
"""Batches that have arrived and wait: more of them is no mere burst."""
AHEAD = 20_000
"""Segments of one recorded source that are taken in ahead of the others."""


class Feed:
    """The segments of all *sources* and what brokers among them tell, in time order, each packet once."""

    def __init__(self, sources: Sequence[LiveSource]) -> None:
        self._arrivals: Arrivals[Item] = SimpleQueue()
        self._layers = [_Decoding(source.capture) for source in sources if not source.capture.protocol]
        decoders = {each.capture.number: each for each in self._layers}
        # What a broker tells is no packets.
        self._readers = [
            Reader(source, decoders.get(source.capture.number, _as_it_is), self._arrivals)
            for source in sources
        ]
        self._pending: list[Item] = []
        self._late: list[Item] = []
        """Heard while segments of the same time wait for their other sightings."""
        self._by_capture = {reader.source.capture.number: reader for reader in self._readers}
        named = [source.capture.plane for source in sources if not source.capture.protocol]
        apart = None not in named and len(set(named)) == len(named)
        self._clocks = Clocks()
        # A tap per plane: no packet can be in two of them.
        self._sightings = None if apart or len(named) < 2 else Sightings(self._clocks)
        self._newest_ns = 0
        self.ended = False
        """True when all sources have ended and all of them was given out."""

    def start(self) -> None:
        """Start to read. The sources are open."""
        for reader in self._readers:
            reader.start()

    @property
    def is_live(self) -> bool:
        """Whether what comes in now carries the time of the wall."""
        running = [r for r in self._readers if not r.ended and r.newest_ns]
        return bool(running) and all(r.is_live for r in running)

    @property
    def is_behind(self) -> bool:
        """Whether more comes than is taken."""
        return self._arrivals.qsize() > BEHIND

    @property
    def was_live(self) -> bool:
        """Whether what came last, of any source, carried the time of the wall."""
        return any(r.is_live for r in self._readers)

    def now_ns(self) -> int:
        """Return the time up to which all is known: the wall's, less a lag, or that of a recording."""
        return max(self._newest_ns, wall_ns() - 2 * LAG_NS) if self.is_live else self._newest_ns

    def errors(self) -> list[tuple[Capture, BaseException]]:
        """Return what ended sources before their end, each once."""
        found = []
        for reader in self._readers:
            if reader.ended and reader.error is not None:
                found.append((reader.source.capture, reader.error))
                reader.error = None
        return found

    def state(self, capture: Capture) -> str:
        """Return how the source of *capture* is doing, in a word; '' while it speaks."""
        reader = self._by_capture[capture.number]
        if reader.ended:
            return "ended"
        if not reader.newest_ns:
            return "waiting"
        return "quiet" if reader.silent_s() > 10 and not reader.backlog else ""

    def known_ns(self, capture: Capture) -> int:
        """Return the time up to which all that the source of *capture* has was given out, or is in hand."""
        return self._by_capture[capture.number].known_ns()

    def segments(self, timeout_s: float) -> list[Item]:
        """Return the segments that are next, in time order; none when none came in time."""
        idle = not any(r.backlog for r in self._readers)
        hear(self._arrivals, timeout_s if idle else 0)
        watermark_ns = self._watermark()
        for reader in self._readers:
            while reader.backlog and (reader.in_hand < AHEAD or reader.newest_ns <= watermark_ns):
                self._take(reader)
                watermark_ns = self._watermark()
        self._pending.sort(key=itemgetter(0))
        ready = self._split(watermark_ns)
        for segment in ready:
            number = segment.capture if isinstance(segment, Heard) else segment[8][0][0]
            self._by_capture[number].in_hand -= 1
        if ready:
            self._newest_ns = max(self._newest_ns, ready[-1][0])
        if self._newest_ns < watermark_ns < 1 << 62:
            # Nothing came up to then, and that is known.
            self._newest_ns = watermark_ns
        if self._sightings is not None:
            ready = self._join(self._sightings, ready)
        if all(r.ended and not r.backlog for r in self._readers) and not self._pending:
            self.ended = True
            if self._sightings is not None:
                ready = self._in_order([*ready, *self._sightings.flush(), *self._late])
                self._late = []
        return ready

    def stop(self) -> None:
        """Let the sources end that can; what is in hand is still given out, by `segments` and `rest`."""
        for reader in self._readers:
            reader.source.stop()

    @property
    def is_draining(self) -> bool:
        """Whether, after `stop`, there is more to come of what was captured before."""
        return any(r.backlog or (r.source.ends_on_stop and not r.ended) for r in self._readers)

    def rest(self) -> list[Item]:
        """Return all that is in hand, without waiting for anybody: the end. What comes later is left."""
        hear(self._arrivals, 0)
        for reader in self._readers:
            while reader.backlog:
                self._take(reader)
        for each in self._layers:
            each.finish()
        self._pending.sort(key=itemgetter(0))
        ready, self._pending = self._pending, []
        if ready:
            self._newest_ns = max(self._newest_ns, ready[-1][0])
        if self._sightings is not None:
            ready = self._in_order(
                [*self._join(self._sightings, ready), *self._sightings.flush(), *self._late]
            )
            self._late = []
        return ready

    def _take(self, reader: Reader[Item]) -> None:
        batch = reader.take()
        offset_ns = self._clocks.offset_ns(reader.source.capture.number)
        if offset_ns:
            batch = [(segment[0] - offset_ns, *segment[1:]) for segment in batch]
        self._pending += batch

    def _join(self, sightings: Sightings, ready: list[Item]) -> list[Item]:
        joined = self._joined(sightings, [item for item in ready if not isinstance(item, Heard)])
        self._late += [item for item in ready if isinstance(item, Heard)]
        until_ns = joined[-1][0] if joined else 0
        if not sightings.holds():
            until_ns = self._newest_ns
        passed = [item for item in self._late if item[0] <= until_ns]
        del self._late[: len(passed)]
        return self._in_order([*joined, *passed])

    @staticmethod
    def _in_order(items: list[Item]) -> list[Item]:
        items.sort(key=itemgetter(0))
        return items

    def _joined(self, sightings: Sightings, ready: list[SegmentFields]) -> list[SegmentFields]:
        joined = sightings.read(ready)
        if not self._pending and not any(r.is_waited_for() for r in self._readers):
            joined += sightings.flush()
        elif self.is_live:
            joined += sightings.release(wall_ns() - LAG_NS - WINDOW_NS)
        return joined

    def _split(self, until_ns: int) -> list[Item]:
        """Return what is pending up to *until_ns* and keep the rest."""
        pending = self._pending
        if not pending or pending[-1][0] <= until_ns:
            self._pending = []
            return pending
        low, high = 0, len(pending)
        while low < high:
            middle = (low + high) // 2
            if pending[middle][0] <= until_ns:
                low = middle + 1
            else:
                high = middle
        self._pending = pending[low:]
        return pending[:low]

    def _watermark(self) -> int:
        """Return the time that all sources have reached."""
        waited = [r.known_ns() - WINDOW_NS for r in self._readers if r.is_waited_for()]
        if not waited:
            return 1 << 62
        reached_ns = min(waited)
        return max(reached_ns, wall_ns() - LAG_NS) if self.is_live else reached_ns


class _Decoding:
    """Finds the TCP segments in packets of *capture*, in its reader's thread; counts what cannot be read."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self._layers = Layers()
        self._lock = Lock()
        """The thread of a source that never ends is still reading at the end of the run."""
        self._finished = False

    def __call__(self, packets: list[PacketFields]) -> list[Item]:
        with self._lock:
            return [] if self._finished else [*self._layers.read(packets, self.capture.anomalies)]

    def finish(self) -> None:
        """Count what waits for the rest of itself, once all was taken."""
        with self._lock:
            self._finished = True
            for anomaly in self._layers.flush():
                self.capture.anomalies[anomaly] += 1


def _as_it_is(heard: list[Item]) -> list[Item]:
    return heard
