"""Merges several live sources into one stream of segments and broker messages, in time order.

Items are given out up to the time that every source has reached; a source that has been silent for a moment
is not waited for. When the sources are live (their packets carry wall-clock time), items older than
LAG_NS are given out in any case. A recording sent through a pipe has other times: there the slowest pipe sets
the pace, and the result equals that of `tracer check` on the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from queue import SimpleQueue
from threading import Lock

from tracer.capture.clocks import ClockEstimates
from tracer.capture.layers import Layers
from tracer.capture.live import Arrivals, LiveSource, Reader, hear, monotonic_s, wall_ns
from tracer.capture.points import Clocks, Sightings
from tracer.model import Capture, Heard, PacketFields, SegmentFields

__all__ = ["Feed", "Item"]

Item = SegmentFields | Heard

WINDOW_NS = 20_000_000
"""How far segments of one source may be out of order (tracer.capture.points)."""
LAG_NS = 250_000_000
"""Live packets older than this are not held back for a slower source."""
BEHIND = 4
"""Waiting batches; with more of them the run counts as behind. A burst leaves fewer."""
LEARN_S = 3.0
"""So long nothing may come before recorded sources are given out whose clocks could not be compared yet."""
AHEAD = 20_000
"""Segments of one recorded source that may be read ahead of the others."""


class Feed:
    """The segments and broker messages of all *sources* in time order, each packet once."""

    def __init__(self, sources: Sequence[LiveSource]) -> None:
        self._arrivals: Arrivals[Item] = SimpleQueue()
        self._layers = [_Decoding(source.capture) for source in sources if not source.capture.protocol]
        decoders = {each.capture.number: each for each in self._layers}
        # A broker's messages are decoded already.
        self._readers = [
            Reader(source, decoders.get(source.capture.number, _unchanged), self._arrivals)
            for source in sources
        ]
        self._pending: list[Item] = []
        self._late: list[Item] = []
        """Broker messages that wait while segments of the same time wait for their other sightings."""
        self._by_capture = {reader.source.capture.number: reader for reader in self._readers}
        named = [source.capture.plane for source in sources if not source.capture.protocol]
        apart = None not in named and len(set(named)) == len(named)
        captures = sorted((source.capture for source in sources), key=lambda each: each.number)
        self._captures = {capture.number: capture for capture in captures}
        # With one source there is nothing to compare its clock with.
        self._estimates = ClockEstimates(captures) if len(named) > 1 else None
        self._version = 0
        self._reached_ns: dict[int, int] = {}
        # With one capture per named plane no packet can be in two of them, so nothing is compared.
        self._sightings = None if apart or len(named) < 2 else Sightings(Clocks())
        self._newest_ns = 0
        self._heard_s = monotonic_s()
        """When something came last, in monotonic time."""
        self.ended = False
        """True when all sources have ended and every item was given out."""

    def start(self) -> None:
        """Start the reader threads. The sources must be open."""
        for reader in self._readers:
            reader.start()

    @property
    def is_live(self) -> bool:
        """Whether the packets of all running sources carry wall-clock time."""
        running = [r for r in self._readers if not r.ended and r.newest_ns]
        return bool(running) and all(r.is_live for r in running)

    @property
    def is_behind(self) -> bool:
        """Whether packets arrive faster than they are processed."""
        return self._arrivals.qsize() > BEHIND

    @property
    def was_live(self) -> bool:
        """Whether the latest packets of any source carried wall-clock time."""
        return any(r.is_live for r in self._readers)

    def now_ns(self) -> int:
        """Return the time up to which all packets are known: wall clock minus a lag, or recorded time."""
        return max(self._newest_ns, wall_ns() - 2 * LAG_NS) if self.is_live else self._newest_ns

    def errors(self) -> list[tuple[Capture, BaseException]]:
        """Return the errors that ended sources early, each once."""
        found = []
        for reader in self._readers:
            if reader.ended and reader.error is not None:
                found.append((reader.source.capture, reader.error))
                reader.error = None
        return found

    def state(self, capture: Capture) -> str:
        """Return the state of the source of *capture*: ended, waiting, quiet, or '' while packets come."""
        reader = self._by_capture[capture.number]
        if reader.ended:
            return "ended"
        if not reader.newest_ns:
            return "waiting"
        return "quiet" if reader.silent_s() > 10 and not reader.backlog else ""

    def known_ns(self, capture: Capture) -> int:
        """Return the time up to which the packets of the source of *capture* were read."""
        return self._by_capture[capture.number].known_ns()

    def segments(self, timeout_s: float) -> list[Item]:
        """Return the next items in time order; none when none came within *timeout_s*."""
        # A reader with a backlog has items already: waiting for more would only delay them.
        idle = not any(r.backlog for r in self._readers)
        hear(self._arrivals, timeout_s if idle else 0)
        watermark_ns = self._watermark()
        before = len(self._pending)
        for reader in self._readers:
            while reader.backlog and (
                reader.in_hand < AHEAD or reader.newest_ns - self._ahead_ns(reader) <= watermark_ns
            ):
                self._take(reader)
                watermark_ns = self._watermark()
        if before < len(self._pending):
            self._heard_s = monotonic_s()
        if len(self._pending) < AHEAD and self._may_learn():
            return []
        self._pending.sort(key=itemgetter(0))
        ready = self._split(watermark_ns)
        for segment in ready:
            number = segment.capture if isinstance(segment, Heard) else segment[8][0][0]
            self._by_capture[number].in_hand -= 1
        if ready:
            self._newest_ns = max(self._newest_ns, ready[-1][0])
        if self._newest_ns < watermark_ns < 1 << 62:
            # All sources have passed the watermark without packets, so capture time goes on to it.
            self._newest_ns = watermark_ns
        if self._sightings is not None:
            ready = self._join(self._sightings, ready)
        if all(r.ended and not r.backlog for r in self._readers) and not self._pending:
            self.ended = True
            if self._sightings is not None:
                ready = self._in_order([*ready, *self._sightings.flush(), *self._late])
                self._late = []
        return ready

    def conclude(self) -> None:
        """Write into the clock of each source what it was compared with."""
        if self._estimates is not None:
            self._estimates.conclude()

    def stop(self) -> None:
        """Stop the sources; items that were read already are still given out, by `segments` and `rest`."""
        for reader in self._readers:
            reader.source.stop()

    @property
    def is_draining(self) -> bool:
        """Whether, after `stop`, packets that were captured before it are still to be read."""
        return any(r.backlog or (r.source.ends_on_stop and not r.ended) for r in self._readers)

    def rest(self) -> list[Item]:
        """Return all items that were read, without waiting for any source. Later packets are not read."""
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
        capture = reader.source.capture
        if self._estimates is not None and batch and not capture.protocol:
            estimates = self._estimates
            segments = [item for item in batch if not isinstance(item, Heard)]
            estimates.see(capture.number, segments)
            ahead_ns, _ = estimates.ahead(capture.number, segments[0][0])
            if estimates.version != self._version:
                self._version = estimates.version
                self._correct_pending()
            batch = [*estimates.correct(capture.number, segments, ahead_ns, self._reached_ns)]
        self._pending += batch

    def _correct_pending(self) -> None:
        """Correct what is pending by what is known of the clocks now, and how far each capture has come."""
        self._pending = [self._corrected(item) for item in self._pending]
        # What was given out stays as it is. Nothing of it is later than `_newest_ns`.
        for number, reached_ns in self._reached_ns.items():
            self._reached_ns[number] = min(reached_ns, self._newest_ns)
        for item in self._pending:
            if not isinstance(item, Heard):
                number = item[8][0][0]
                self._reached_ns[number] = max(self._reached_ns.get(number, 0), item[0])

    def _may_learn(self) -> bool:
        """Return whether recorded sources, of which more comes, are still to tell how their clocks differ."""
        # Not that nothing came just now: what writes into a pipe may have to wait for a busy machine.
        return (
            self._estimates is not None
            and not self._newest_ns
            and not self.is_live
            and monotonic_s() - self._heard_s < LEARN_S
            and not any(self._estimates.has_pairs(number) for number in self._captures)
            and not all(r.ended for r in self._readers)
        )

    def _corrected(self, item: Item) -> Item:
        """Return what is pending by what is known of its clock now."""
        if isinstance(item, Heard) or self._estimates is None:
            return item
        number = item[8][0][0]
        captured_ns = self._captures[number].clock.as_captured(item[0])
        return (captured_ns - self._estimates.ahead(number, captured_ns)[0], *item[1:])

    def _ahead_ns(self, reader: Reader[Item]) -> int:
        """Return how far the clock of *reader* is ahead, as far as is known."""
        capture = reader.source.capture
        if self._estimates is None or capture.protocol:
            return 0
        return self._estimates.ahead(capture.number, reader.newest_ns)[0]

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
        """Return the pending items up to *until_ns* and keep the rest."""
        # When everything is due, the test of the last item saves the search and the copies.
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
        """Return the time that all sources have reached; a time later than any when none is waited for."""
        waited = [r.known_ns() - self._ahead_ns(r) - WINDOW_NS for r in self._readers if r.is_waited_for()]
        if not waited:
            return 1 << 62
        reached_ns = min(waited)
        return max(reached_ns, wall_ns() - LAG_NS) if self.is_live else reached_ns


class _Decoding:
    """Finds the TCP segments in packets of *capture* and counts anomalies. Runs in the reader's thread."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self._layers = Layers()
        self._lock = Lock()
        """Guards `_layers`: the thread of a source that never ends still reads at the end of the run."""
        self._finished = False

    def __call__(self, packets: list[PacketFields]) -> list[Item]:
        with self._lock:
            return [] if self._finished else [*self._layers.read(packets, self.capture.anomalies)]

    def finish(self) -> None:
        """Count incomplete datagrams as anomalies; later packets are ignored."""
        with self._lock:
            self._finished = True
            for anomaly in self._layers.flush():
                self.capture.anomalies[anomaly] += 1


def _unchanged(heard: list[Item]) -> list[Item]:
    return heard
