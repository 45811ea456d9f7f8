"""Writes the packets of several live sources to one series of files, in time order.

Packets wait for HELD_NS, so that packets of a slower source can be sorted in: readers of the files correct
only a disorder of some milliseconds. Packets of recordings that come through pipes wait for the slowest pipe.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from queue import SimpleQueue

from tracer.capture.interface import Interface
from tracer.capture.live import NEAR_NS, Arrivals, LiveSource, Reader, hear, monotonic_s, wall_ns
from tracer.errors import SourceError
from tracer.model import PacketFields, place_of
from tracer.recording.pcapng_writer import Described, drops_block, packet_block
from tracer.recording.redaction import Redactor
from tracer.recording.rotation import Files

__all__ = ["Recorder"]

WAIT_S = 0.1
DRAIN_S = 10.0
HELD_NS = 500_000_000
SILENCE_S = 1.0
"""Silence after which the redactor releases packets that may hold the begin of a secret."""
AHEAD = 20_000
"""Packets of one recorded source that may be read ahead of the others."""
BLOCKS = 256
"""Most packets in one write."""
MOST_INTERFACES = 256
"""Interfaces of one source with a description of their own; each file repeats all descriptions. Further
interfaces share one description for each link type."""
MOST_NAME = 1_024
"""Characters kept of an interface name, which a capture stream may choose freely."""
_SHARED = -1


class Recorder:
    """Writes the packets of *sources* to *files*; a *redactor*, if given, overwrites secrets first."""

    def __init__(self, sources: Sequence[LiveSource], files: Files, redactor: Redactor | None) -> None:
        self._sources = list(sources)
        self._files = files
        self._redactor = redactor
        self._arrivals: Arrivals[PacketFields] = SimpleQueue()
        self._readers = [Reader(source, _unchanged, self._arrivals) for source in sources]
        self._by_capture = {reader.source.capture.number: reader for reader in self._readers}
        self._pending: list[PacketFields] = []
        self._numbers: dict[tuple[int, int, int], int] = {}
        """(capture, link type, interface of a pcapng stream) -> number of the interface in the files"""
        self._described: Counter[int] = Counter()
        """capture -> number of its interfaces in the files"""
        for source in sources:
            if isinstance(source, Interface):
                self._number(source.capture.number, source.link_type, 0)
        self._redacted_s = monotonic_s()
        """Monotonic time at which the redactor last received packets."""
        self._stopping = False
        self.packets: Counter[int] = Counter()
        """capture -> packets written"""
        self._dropped = [0 for _ in sources]
        """Drop counts as last written to the files."""
        self.troubles: list[str] = []
        """Messages about sources that ended early."""

    def stop(self) -> None:
        """End soon; packets that were captured before are still written."""
        # Only a flag: a signal handler calls this.
        self._stopping = True

    def run(self, packets: int | None = None, duration_s: float | None = None) -> None:
        """Record until all sources have ended, a limit is reached, or `stop`.

        Raises SourceError when a source cannot be read at all; OSError when the disk is full.
        """
        begun_s = monotonic_s()
        for reader in self._readers:
            reader.start()
        goes_on = False
        while not self._stopping and not all(r.ended and not r.backlog for r in self._readers):
            goes_on = self._take(0 if goes_on else WAIT_S)
            self._write(self._due_ns())
            self._let_go()
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

    def _take(self, timeout_s: float, *, whole: bool = False) -> bool:
        """Take packets that have arrived; return whether there were any.

        Of a recorded source, at most AHEAD packets are taken before the slower sources have caught up, unless
        *whole*.
        """
        hear(self._arrivals, timeout_s)
        took = False
        due_ns = self._due_ns()
        for reader in self._readers:
            while reader.backlog and (
                whole or reader.is_live or reader.in_hand < AHEAD or reader.newest_ns <= due_ns
            ):
                self._pending += reader.take()
                took = True
            if reader.ended and reader.error is not None:
                error, reader.error = reader.error, None
                # Before the first packet it is most likely a mistake in the arguments: it ends the run.
                if not isinstance(error, SourceError) or not self.packets:
                    raise error
                self.troubles.append(str(error))
        return took

    def _drain(self) -> None:
        """Take the packets that were captured before the end, for at most DRAIN_S."""
        for source in self._sources:
            source.stop()
        until_s = monotonic_s() + DRAIN_S
        while monotonic_s() < until_s and any(
            reader.source.ends_on_stop and not reader.ended for reader in self._readers
        ):
            self._take(WAIT_S, whole=True)
        self._take(0, whole=True)

    def _due_ns(self) -> int:
        """Return the time up to which packets are written.

        With live sources, HELD_NS before now. With recordings, the time that all sources have reached; silent
        ones are not waited for.
        """
        if any(reader.is_live and not reader.ended for reader in self._readers):
            return wall_ns() - HELD_NS
        return min((reader.known_ns() for reader in self._readers if reader.is_waited_for()), default=1 << 62)

    def _write(self, until_ns: int) -> None:
        pending = self._pending
        if not pending:
            return
        pending.sort(key=itemgetter(0))
        count = bisect_right(pending, until_ns, key=itemgetter(0))
        # Packets far in the future come from a wrong clock and would never be due: they are written at once.
        far = max(count, bisect_right(pending, wall_ns() + NEAR_NS, key=itemgetter(0)))
        ready, self._pending = pending[:count] + pending[far:], pending[count:far]
        for capture, taken in Counter(packet[4][0] for packet in ready).items():
            self._by_capture[capture].in_hand -= taken
        if ready and self._redactor is not None:
            ready = self._redactor.receive(ready)
            self._redacted_s = monotonic_s()
        self._put(ready)

    def _let_go(self) -> None:
        """Write what the redactor holds after SILENCE_S without packets.

        The redactor measures waiting in capture time, which does not advance without packets.
        """
        redactor = self._redactor
        if redactor is None or self._pending or not redactor.holds:
            return
        if monotonic_s() - self._redacted_s > SILENCE_S:
            self._put(redactor.flush())

    def _write_drops(self) -> None:
        """Write the drop counters of the kernel if they have changed since they were last written."""
        dropped = [source.dropped for source in self._sources]
        if dropped == self._dropped:
            return
        now_ns = wall_ns()
        blocks = {
            n: drops_block(self._first_number(n), now_ns, count) for n, count in enumerate(dropped) if count
        }
        changed = [block for n, block in blocks.items() if dropped[n] != self._dropped[n]]
        self._dropped = dropped
        self._files.add(changed, now_ns)
        # The counters are totals. A new file starts with the current ones, so that drops of earlier files are
        # not taken for its own.
        self._files.preface = b"".join(blocks.values())

    def _put(self, ready: list[PacketFields]) -> None:
        for start in range(0, len(ready), BLOCKS):
            part = ready[start : start + BLOCKS]
            self.packets.update(packet[4][0] for packet in part)
            blocks = [packet_block(self._number(p[4][0], p[3], p[5]), p[0], p[1], p[2]) for p in part]
            self._files.write(blocks, part[-1][0])

    def _number(self, capture: int, link_type: int, interface: int) -> int:
        """Return the interface number in the files for a packet's origin; describe a new interface."""
        number = self._numbers.get((capture, link_type, interface))
        if number is not None:
            return number
        if interface != _SHARED and self._described[capture] >= MOST_INTERFACES:
            return self._number(capture, link_type, _SHARED)
        source = self._sources[capture]
        place = place_of(source.capture.path)
        name = source.capture.interfaces.get(interface, "")[:MOST_NAME] or place
        if interface == _SHARED:
            name = f"{place}, further interfaces"
        bpf = (source.bpf or "") if isinstance(source, Interface) else ""
        described = Described(source.capture.plane or name, name, link_type, bpf)
        number = self._numbers[capture, link_type, interface] = self._files.describe(described)
        self._described[capture] += 1
        return number

    def _first_number(self, capture: int) -> int:
        """Return the lowest interface number of *capture* in the files."""
        # 1 is Ethernet: drops may be counted before a stream's first packet shows its link type.
        known = [number for (its, _, _), number in self._numbers.items() if its == capture]
        return known[0] if known else self._number(capture, 1, 0)


def _unchanged(packets: list[PacketFields]) -> list[PacketFields]:
    return packets
