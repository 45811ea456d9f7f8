"""Memory of a long live run: captures again and again, each time as other traffic of a later time.

    python tests/benchmarks/live_long_run.py [--seconds 1800] [--grows] [CAPTURE_FOLDER…]

Printed now and then: capture time so far, resident memory, open traces and all that are kept, verdicts. Ends
with 1 when memory grew by more than a tenth from the middle of the run to its end, or a trace stayed open.
`--grows` counts Python's objects by type as well, and says at the end which became more since the middle.
CI runs the short form: tests/live/test_long_run.py.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from lab.turns import Recording, Together, Turns

from tracer.engine import Settings
from tracer.grammar import load
from tracer.live.watch import Watch
from tracer.model.events import Picture
from tracer.topology import GivenTopology

PAUSE_NS = 60_000_000_000
BEGIN_NS = 1_700_000_000_000_000_000
GROWTH = 1.1


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def by_type() -> Counter[str]:
    gc.collect()
    return Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=1800)
    parser.add_argument("--grows", action="store_true")
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("captures/ok-concurrent-20")])
    given = parser.parse_args()
    recordings = [Recording.of(folder) for folder in given.folders]
    together = Together(len(recordings[0].planes), seconds=given.seconds)
    sources = [Turns(recordings, n, together, BEGIN_NS, PAUSE_NS) for n in range(len(recordings[0].planes))]
    run = Watch(sources, GivenTopology(), Settings(), load("cloudvm_create"), lambda event: None)
    begun_s = time.monotonic()
    printed = [-1]
    middle: list[tuple[float, Counter[str]]] = []

    def show(picture: Picture) -> None:
        passed_s = time.monotonic() - begun_s
        if not middle and passed_s > given.seconds / 2:
            middle.append((resident_mb(), by_type() if given.grows else Counter()))
        point = int(passed_s // (given.seconds / 60))
        if point != printed[0]:
            printed[0] = point
            hours = max(0, picture.now_ns - BEGIN_NS) / 3.6e12
            print(
                f"{passed_s:6.0f} s  {hours:7.2f} h of traffic  {resident_mb():7.1f} MB"
                f"  {len(picture.open):4d} open  {len(run.follow.traces()):4d} kept"
                f"  {sum(picture.verdicts.values()):7,d} done  {dict(picture.verdicts)}",
                flush=True,
            )

    report = run.run(show=show)
    memory_mb = resident_mb()
    left = [v for v in report.verdicts if v.outcome == "unfinished"]
    print(f"at the end {memory_mb:.1f} MB, {dict(run.follow.history.verdicts)}, {len(left)} unfinished")
    before_mb, before = middle[0] if middle else (memory_mb, Counter())
    if given.grows:
        for name, count in (by_type() - before).most_common(25):
            print(f"  {count:+8,d}  {name}")
    grew = memory_mb / before_mb
    print(f"from the middle of the run to its end: {before_mb:.1f} -> {memory_mb:.1f} MB ({grew:.2f} times)")
    return int(grew > GROWTH or bool(left))


if __name__ == "__main__":
    sys.exit(main())
