"""Memory of a long live run: a capture again and again, each time as other traffic of a later time.

    python tests/benchmarks/live_long_run.py [SECONDS] [CAPTURE_FOLDER]

Each turn has other client ports, request ids and uuids, so that every creation is a new one. Printed after
each turn: capture time so far, resident memory, traces that are kept, verdicts. Memory must be flat after the
first turns, and no trace may stay open.
"""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from tracer.conformance import load
from tracer.live.watch import Watch
from tracer.model import Capture, PacketFields
from tracer.pipeline import Settings
from tracer.sources import open_capture
from tracer.sources.streams import BATCH, Deliver
from tracer.topology import GivenTopology

UUID = re.compile(rb"[0-9a-f]{8}(?=-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
PAUSE_NS = 60_000_000_000
FIRST_CLIENT_PORT = 32768


class Together:
    """Lets all planes begin a turn together, and end together."""

    def __init__(self, count: int, until_s: float) -> None:
        self._until_s = until_s
        self._go = True
        self._barrier = threading.Barrier(count, self._decide)

    def _decide(self) -> None:
        self._go = time.monotonic() < self._until_s

    def goes_on(self) -> bool:
        self._barrier.wait()
        return self._go


class Turns:
    """One plane of a capture, in turns."""

    ends_on_stop = False
    dropped = 0

    def __init__(self, path: Path, number: int, begin_ns: int, span_ns: int, together: Together) -> None:
        self.capture = Capture(number, str(path), path.name.partition(".")[0])
        self._packets = list(chain.from_iterable(open_capture(str(path), Capture(number, str(path)))))
        self._span_ns = span_ns
        self._begin_ns = begin_ns
        self._together = together

    def open(self) -> None:
        return

    def stop(self) -> None:
        return

    def read(self, deliver: Deliver) -> None:
        turn = 0
        while self._together.goes_on():
            batch: list[PacketFields] = []
            for packet in self._turn(turn):
                batch.append(packet)
                if len(batch) >= BATCH:
                    deliver(batch, 0)
                    batch = []
            turn += 1
            # Nothing more comes of this turn: the others need not wait for it.
            deliver(batch, self._begin_ns + turn * self._span_ns)

    def _turn(self, turn: int) -> Iterator[PacketFields]:
        capture = self.capture
        mask = turn * 613 & 0x7FFF
        names = turn * 2654435761 & 0xFFFFFFFF
        shift_ns = turn * self._span_ns
        for time_ns, data, wire, link_type, _, _ in self._packets:
            changed = bytearray(data)
            for at in (34, 36):
                port = changed[at] << 8 | changed[at + 1]
                if port >= FIRST_CLIENT_PORT:
                    changed[at : at + 2] = ((port ^ mask) | FIRST_CLIENT_PORT).to_bytes(2, "big")
            if turn:
                for found in UUID.finditer(data, 54):
                    mixed = int(found[0], 16) ^ names
                    changed[found.start() : found.end()] = b"%08x" % mixed
            capture.packets += 1
            capture.last_ns = time_ns + shift_ns
            capture.first_ns = capture.first_ns or capture.last_ns
            yield time_ns + shift_ns, bytes(changed), wire, link_type, (capture.number, capture.packets), 0


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "captures/ok-concurrent-20")
    paths = sorted(p for p in folder.iterdir() if ".pcap" in p.name)
    times = [p[0] for path in paths for p in chain.from_iterable(open_capture(str(path), Capture(0, "")))]
    span_ns = max(times) - min(times) + PAUSE_NS
    together = Together(len(paths), time.monotonic() + seconds)
    sources = [Turns(path, number, min(times), span_ns, together) for number, path in enumerate(paths)]
    run = Watch(sources, GivenTopology(), Settings(), load("cloudvm_create"), lambda event: None)
    first_ns, last = min(times), [-1]

    def show(shown: object) -> None:
        picture = run.picture()
        turn = (picture.now_ns - first_ns) // span_ns
        if turn != last[0]:
            last[0] = turn
            hours = (picture.now_ns - first_ns) / 3.6e12
            done = dict(run.follow.history.verdicts)
            traces = len(run.follow.traces())
            print(
                f"turn {turn:4d}  {hours:6.2f} h  {resident_mb():7.1f} MB  {traces:4d} kept  {done}",
                flush=True,
            )

    run.run(show=show)
    print(f"at the end: {resident_mb():.1f} MB, {dict(run.follow.history.verdicts)}")


if __name__ == "__main__":
    main()
