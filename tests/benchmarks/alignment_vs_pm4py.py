"""Exact alignments per second beside PM4Py's, on the same distinct traces, in one run.

    pip install -e '.[oracle]'
    python tests/benchmarks/alignment_vs_pm4py.py [--traces N] [--seconds S]

The traces are random words of a shipped grammar; about half of them had one to five things go wrong with
them. No two are equal, so that nothing is gained by remembering whole traces. tracer starts cold. The
engines take turns, a batch each, by process CPU time: what else the machine does hits all. PM4Py's get as
many traces as fit into their share of the time, and are held against ours on these very traces. Their net
is freed of silent transitions by PM4Py's own reduction: with them it is three times as slow.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

try:
    from lab.petri import A_STAR, EXACT, Net
except ImportError:
    sys.exit("PM4Py is not installed: pip install -e '.[oracle]'")
from lab.chance import Labels, distinct_traces, events_of, load_with_term

from tracer.alignment.alignment import MISSING, Aligner

GOALS = {"A*": 50.0, "fastest": 8.0}
BATCH = 20


class Lane:
    """One engine: what it has found, and how long each trace took."""

    def __init__(self, name: str, cost: Callable[[Labels], int]) -> None:
        self.name, self.cost = name, cost
        self.costs: list[int] = []
        self.seconds: list[float] = []

    def run(self, traces: Sequence[Labels]) -> None:
        for labels in traces:
            begun = time.process_time()
            self.costs.append(self.cost(labels))
            self.seconds.append(time.process_time() - begun)

    def rate(self, first: int = 1 << 60, conforming: bool | None = None) -> float:
        """Traces per second, of the first so many."""
        took = [
            seconds
            for cost, seconds in zip(self.costs[:first], self.seconds, strict=False)
            if conforming in (None, cost == 0)
        ]
        return len(took) / sum(took) if took else 0.0

    def line(self, ours: Lane) -> str:
        count = len(self.costs)
        differ = sum(a != b for a, b in zip(self.costs, ours.costs, strict=False))
        rates = (
            f"{self.rate():9,.0f} {self.rate(conforming=True):11,.0f} {self.rate(conforming=False):10,.0f}"
        )
        factor = f"{ours.rate(count) / self.rate():10.1f}"
        return f"{self.name:24} {count:6} {rates} {differ:7} {ours.rate(count):9,.0f} {factor}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--grammar", default="cloudvm_create")
    parser.add_argument("--traces", type=int, default=4000)
    parser.add_argument("--seconds", type=float, default=60, help="CPU time for each engine of PM4Py")
    arguments = parser.parse_args()
    grammar, term = load_with_term(arguments.grammar)
    automaton, events = grammar.automaton, events_of(grammar.automaton)
    # The ones and the others in turns; a mutation may leave a trace conforming.
    good = distinct_traces(term, automaton, 1, most=0)
    bad = distinct_traces(term, automaton, 2)
    both = chain.from_iterable(zip(good, bad, strict=True))
    traces = list(dict.fromkeys(islice(both, arguments.traces)))
    net = Net(term, automaton.symbols)
    aligner = Aligner(automaton)
    ours = Lane(
        "tracer, cold",
        lambda labels: aligner.align([events[label] for label in labels]).cost // MISSING,
    )
    theirs = [
        Lane(f"PM4Py {name}", lambda labels, v=variant: net.cost(labels, v))  # type: ignore[misc]
        for name, variant in EXACT.items()
    ]
    for begin in range(0, len(traces), BATCH):
        ours.run(traces[begin : begin + BATCH])
        for lane in theirs:
            done = len(lane.costs)
            if sum(lane.seconds) <= arguments.seconds * begin / len(traces):
                lane.run(traces[done : done + BATCH])
    warm = Lane("tracer, the same again", ours.cost)
    warm.run(traces)
    mean = sum(map(len, traces)) / len(traces)
    share = sum(1 for cost in ours.costs if cost) / len(traces)
    print(
        f"{grammar.name}: {len(automaton.arcs)} states, PM4Py's net {net.size()}\n"
        f"{len(traces)} distinct traces of {mean:.0f} calls on average, {share:.0%} deviate\n"
    )
    print(
        "engine                   traces  traces/s  conforming  deviating  differ  ours on the same, factor"
    )
    for lane in (ours, warm, *theirs):
        print(lane.line(ours))
    factors = {
        variant: ours.rate(len(lane.costs)) / lane.rate()
        for variant, lane in zip(EXACT.values(), theirs, strict=True)
    }
    print(
        f"\nours is {factors[A_STAR]:.0f} times as fast as PM4Py's A* (goal {GOALS['A*']:.0f}) and"
        f" {min(factors.values()):.0f} times as fast as its fastest (goal {GOALS['fastest']:.0f})"
    )


if __name__ == "__main__":
    main()
