"""Where the CPU time of `tracer check` goes: how much each stage takes of it.

    python tests/benchmarks/check_by_stage.py [--rounds N] CAPTURE_DIR…

The run is cut off behind each stage in turn, each time in a process of its own; a stage takes what it adds.
The rounds alternate, and of each cut the least is taken. Compressed captures are unpacked first, as in
check_vs_tshark.py. `start` is imports and the grammar; `answers` is all behind the calls: topology,
correlation, verdicts and the report.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from check_vs_tshark import TRACER, cpu_and_peak, unpacked

STAGES = ("start", "read", "merge", "reassembly", "decode", "calls", "answers")


def run_up_to(stage: str, arguments: Sequence[str]) -> None:
    """Do what `check` of *arguments* does, up to *stage*."""
    # As the command does; and inside, since each process of this benchmark starts with it.
    import gc

    gc.set_threshold(100_000, 20, 100)
    from tracer.calls import Calls, wants_body, wants_statement
    from tracer.engine import load_workflows, open_captures
    from tracer.engine.captures import _decoded as decoded
    from tracer.engine.internal_errors import InternalErrors
    from tracer.protocols import PORTS, Decoders, Options
    from tracer.reassembly import Reassembler
    from tracer.topology import GivenTopology

    load_workflows("auto")
    opened = open_captures(arguments, GivenTopology())
    calls = Calls(PORTS)
    reassembler = Reassembler(opened.captures, PORTS)
    options = Options(wants_body, wants_statement, calls.numbering.skipped)
    decoders = Decoders(PORTS, options, reassembler.turn)

    def drain_messages(receive: Callable[[object], object]) -> None:
        for event in reassembler.read(opened.segments()):
            for message in decoders.receive(event):
                receive(message)

    drain = deque(maxlen=0).extend
    if stage == "read":
        for reader, capture in zip(opened.readers, opened.captures, strict=True):
            drain(decoded(reader, capture, InternalErrors()))
    elif stage == "merge":
        drain(opened.segments())
    elif stage == "reassembly":
        drain(reassembler.read(opened.segments()))
    elif stage == "decode":
        drain_messages(lambda message: None)
    elif stage == "calls":
        drain_messages(calls.receive)  # type: ignore[arg-type]


def measure(folder: Path, rounds: int) -> None:
    """Print the table of one folder of captures."""
    least = dict.fromkeys(STAGES, float("inf"))
    with tempfile.TemporaryDirectory() as temporary:
        unpacked(folder, Path(temporary))
        for _ in range(rounds):
            for stage in STAGES:
                ours = [sys.executable, __file__, "--up-to", stage, temporary]
                command = [*TRACER, temporary] if stage == STAGES[-1] else ours
                least[stage] = min(least[stage], cpu_and_peak(command)[0])
    print(f"{folder.name}: {least[STAGES[-1]]:.2f} s CPU")
    before = 0.0
    for stage in STAGES:
        share = (least[stage] - before) / least[STAGES[-1]]
        print(f"  {stage:12} {least[stage] - before:6.2f} s {share:6.0%}")
        before = least[stage]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("captures", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--up-to", choices=STAGES[:-1], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.up_to:
        run_up_to(arguments.up_to, [str(path) for path in arguments.captures])
        return
    for folder in arguments.captures:
        measure(folder, arguments.rounds)


if __name__ == "__main__":
    main()
