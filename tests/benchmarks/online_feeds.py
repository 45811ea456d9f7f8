"""Calls fed per second to open traces, interleaved, cold and warm; memory for each open trace.

    python tests/benchmarks/online_feeds.py [--open N] [--memory N]

The traces are random creations, about half with one to five things gone wrong; their calls arrive in turns,
as those of as many creations at the same time. Cold: nothing like them was seen before. Warm: other traces
of the same kind were. By process CPU time.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from itertools import chain, islice
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent.parent))

from lab.chance import Labels, distinct_traces, events_of, load_with_term

from tracer.alignment.alignment import Event, aligner
from tracer.alignment.online import Online

GOAL = 43_000


def interleaved(traces: list[list[Event]], chance: Random) -> list[tuple[int, Event]]:
    """All calls of all traces, each trace in its order, the traces at random."""
    turns = [number for number, trace in enumerate(traces) for _ in trace]
    chance.shuffle(turns)
    rest = [iter(trace) for trace in traces]
    return [(number, next(rest[number])) for number in turns]


def feeds_per_s(online: Online[int], calls: list[tuple[int, Event]]) -> float:
    feed = online.feed_event
    begun = time.process_time()
    for at, (key, event) in enumerate(calls):
        feed(key, event, at)
    return len(calls) / (time.process_time() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--grammar", default="cloudvm_create")
    parser.add_argument("--open", type=int, default=2000)
    parser.add_argument("--memory", type=int, default=100_000, help="open traces to weigh")
    arguments = parser.parse_args()
    grammar, term = load_with_term(arguments.grammar)
    events = events_of(grammar.automaton)
    good = distinct_traces(term, grammar.automaton, 1, most=0)
    bad = distinct_traces(term, grammar.automaton, 2)
    both = chain.from_iterable(zip(good, bad, strict=True))

    def some(count: int) -> list[list[Event]]:
        labelled: list[Labels] = list(islice(both, count))
        return [[events[label] for label in labels if events[label]] for labels in labelled]

    chance = Random(3)
    first, second = some(arguments.open), some(arguments.open)
    print(f"{grammar.name}: {arguments.open:,} open traces, interleaved; goal {GOAL:,} feeds/s warm")
    for name, traces in (("cold", first), ("warm, other traces", second), ("warm, the same again", second)):
        calls = interleaved(traces, chance)
        rate = feeds_per_s(Online(grammar), calls)
        print(f"{name:22} {len(calls):8,} calls {rate:12,.0f} feeds/s")
    online: Online[int] = Online(grammar)
    feeds_per_s(online, interleaved(second, chance))
    begun = time.process_time()
    for key in range(len(second)):
        online.standing(key)
    print(f"{'standing, all of them':22} {len(second) / (time.process_time() - begun):27,.0f} /s")

    tracemalloc.start()
    weighed: Online[int] = Online(grammar)
    before, _ = tracemalloc.get_traced_memory()
    for key in range(arguments.memory):
        for event in second[key % len(second)]:
            weighed.feed_event(key, event, 1_700_000_000_000_000_000 + key)
    size = tracemalloc.get_traced_memory()[0] - before
    calls_each = sum(map(len, second)) / len(second)
    print(
        f"{arguments.memory:,} open traces of {calls_each:.0f} calls on average: {size / 1e6:.1f} MB,"
        f" {size / arguments.memory:.0f} bytes each"
    )
    begun = time.process_time()
    quiet = sum(1 for _ in weighed.expire(1 << 62))
    print(f"expire over {quiet:,} open traces: {(time.process_time() - begun) * 1000:.0f} ms of CPU")
    engine = aligner(grammar.automaton).engine
    print(f"shared by all: {sum(len(t.rows) for t in engine._tables):,} rows")


if __name__ == "__main__":
    main()
