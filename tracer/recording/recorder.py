"""Several live sources into one row of files, in time order.

Packets wait for half a second, so that those of a slower source get their place: readers sort what is out
of order by some milliseconds only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from queue import SimpleQueue

from tracer.errors import SourceError
from tracer.model import PacketFields
from tracer.recording.pcapng_writer import drops_block, packet_block
from tracer.recording.redaction import Redactor
from tracer.recording.rotation import Files
from tracer.sources.live import Arrivals, LiveSource, Reader, hear, monotonic_s, wall_ns

__all__ = ["Recorder"]

WAIT_S = 0.1
DRAIN_S = 10.0
HELD_NS = 500_000_000
BLOCKS = 256
"""Packets that are written at once, at most."""


class Recorder:
    """Writes what *sources* capture to *files*, without secrets if there is a *redactor*."""

    def __init__(self, sources: Sequence[LiveSource], files: Files, redactor: Redactor | None) -> None:
        self._sources = list(sources)
        self._files = files
        self._redactor = redactor
        self._arrivals: Arrivals[PacketFields] = SimpleQueue()
        self._readers = [Reader(source, _as_they_are, self._arrivals) for source in sources]
        self._pending: list[PacketFields] = []
        self._stopping = False
        self.packets: Counter[int] = Counter()
        """capture -> packets written"""
        self._dropped = [0 for _ in sources]
        """As written."""
        self.troubles: list[str] = []
        """Why sources ended before their time."""

    def stop(self) -> None:
        """End soon, with all written that was captured."""
        self._stopping = True

    def run(self, packets: int | None = None, duration_s: float | None = None) -> None:
        """Record until all sources have ended, a limit is reached, or `stop`.

        Raises SourceError when a source cannot be read at all; OSError when the disk is full.
        """
        begun_s = monotonic_s()
        for reader in self._readers:
            reader.start()
        while not self._stopping and not all(reader.ended for reader in self._readers):
            self._take(WAIT_S)
            self._write(wall_ns() - HELD_NS)
            self._write_drops()
            if duration_s is not None and monotonic_s() - begun_s >= duration_s:
                break
            if packets is not None and self.packets.total() >= packets:
                break
        self._drain()
        self._write(1 << 62)
        if self._redactor is not None:
            self._put(self._redactor.flush())
        self._write_drops()
        self._files.close()

    def _take(self, timeout_s: float) -> None:
        """Take in what has arrived."""
        hear(self._arrivals, timeout_s)
        for reader in self._readers:
            while reader.backlog:
                self._pending += reader.take()
            if reader.ended and reader.error is not None:
                error, reader.error = reader.error, None
                if not isinstance(error, SourceError) or not self.packets:
                    raise error
                self.troubles.append(str(error))

    def _drain(self) -> None:
        """Take in what was captured before the end."""
        for source in self._sources:
            source.stop()
        until_s = monotonic_s() + DRAIN_S
        while monotonic_s() < until_s and any(
            reader.source.ends_on_stop and not reader.ended for reader in self._readers
        ):
            self._take(WAIT_S)
        self._take(0)

    def _write(self, until_ns: int) -> None:
        pending = self._pending
        if not pending:
            return
        pending.sort(key=itemgetter(0))
        count = next((n for n, packet in enumerate(pending) if packet[0] > until_ns), len(pending))
        ready, self._pending = pending[:count], pending[count:]
        if ready and self._redactor is not None:
            ready = self._redactor.receive(ready)
        self._put(ready)

    def _write_drops(self) -> None:
        """Say in the file what the kernel dropped since it was last said there."""
        dropped = [source.dropped for source in self._sources]
        if dropped == self._dropped:
            return
        now_ns = wall_ns()
        blocks = {n: drops_block(n, now_ns, count) for n, count in enumerate(dropped) if count}
        told = [block for n, block in blocks.items() if dropped[n] != self._dropped[n]]
        self._dropped = dropped
        self._files.add(told, now_ns)
        # Of what earlier files lack, a later one says that it is not its own.
        self._files.preface = b"".join(blocks.values())

    def _put(self, ready: list[PacketFields]) -> None:
        for start in range(0, len(ready), BLOCKS):
            part = ready[start : start + BLOCKS]
            self.packets.update(packet[4][0] for packet in part)
            blocks = [packet_block(p[4][0], p[0], p[1], p[2]) for p in part]
            self._files.write(blocks, part[-1][0])


def _as_they_are(packets: list[PacketFields]) -> list[PacketFields]:
    return packets
