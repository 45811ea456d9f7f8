"""Exact alignments per second beside PM4Py's, on the same distinct traces, in one run.

    pip install -e '.[oracle]'
    python tests/benchmarks/alignment_vs_pm4py.py [--traces N] [--seconds S]

The traces are random words of a shipped grammar; about half of them had one to five things go wrong with
them. No two are equal, so that nothing is gained by remembering whole traces. tracer starts cold. The
engines take turns, a batch each, by process CPU time: what else the machine does hits all. PM4Py's get as
many traces as fit into their share of the time; on those each cost must equal ours. PM4Py gets its net
without silent transitions, by its own reduction; with them it is three times as slow.
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
    from petri import A_STAR, EXACT, Net
except ImportError:
    sys.exit("PM4Py is not installed: pip install -e '.[oracle]'")
from chance import Labels, distinct_traces, events_of, load_with_term

from tracer.conformance.alignment import MISSING, Aligner

GOALS = {"A*": 50.0, "fastest": 8.0}
BATCH = 20


class Lane:
    """One engine: what it has done, and how long it took."""

    def __init__(self, name: str, cost: Callable[[Labels], int]) -> None:
        self.name, self.cost = name, cost
        self.costs: list[int] = []
        self.seconds = 0.0
        self.split = {True: [0, 0.0], False: [0, 0.0]}
        """conforms -> traces, seconds"""

    def run(self, traces: Sequence[Labels]) -> None:
        for labels in traces:
            begun = time.process_time()
            cost = self.cost(labels)
            took = time.process_time() - begun
            self.seconds += took
            self.split[cost == 0][0] += 1
            self.split[cost == 0][1] += took
            self.costs.append(cost)

    @property
    def rate(self) -> float:
        return len(self.costs) / self.seconds

    def line(self, ours: Lane) -> str:
        each = [f"{n / seconds:9,.0f}" if seconds else "        -" for n, seconds in self.split.values()]
        differ = sum(a != b for a, b in zip(self.costs, ours.costs, strict=False))
        factor = f"{ours.rate / self.rate:7.1f}" if self is not ours else "      1"
        return f"{self.name:26} {len(self.costs):6} {self.rate:9,.0f} {each[0]} {each[1]} {differ:9} {factor}"


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
            if lane.seconds < arguments.seconds:
                done = len(lane.costs)
                lane.run(traces[done : done + 1 + int(BATCH * lane.seconds < arguments.seconds)])
    warm = Lane("tracer, the same again", ours.cost)
    warm.run(traces)
    mean = sum(map(len, traces)) / len(traces)
    share = sum(1 for cost in ours.costs if cost) / len(traces)
    print(
        f"{grammar.name}: {len(automaton.arcs)} states, PM4Py's net {net.size()}\n"
        f"{len(traces)} distinct traces of {mean:.0f} calls on average, {share:.0%} deviate\n"
    )
    print("engine                     traces  traces/s  conforming  deviating  differ  times slower")
    for lane in (ours, warm, *theirs):
        print(lane.line(ours))
    rates = {name: lane.rate for name, lane in zip(EXACT.values(), theirs, strict=True)}
    print(
        f"\nours is {ours.rate / rates[A_STAR]:.0f} times PM4Py's A* (goal {GOALS['A*']:.0f}) and"
        f" {ours.rate / max(rates.values()):.0f} times its fastest (goal {GOALS['fastest']:.0f})"
    )


if __name__ == "__main__":
    main()
