"""From the last packet of a creation to its verdict, at so many creations a minute, and what it costs.

    python tests/benchmarks/live_latency.py [--per-minute 200] [--seconds 90] [--speed 10] [FOLDER]
    python tests/benchmarks/live_latency.py --per-minute 1000 --nova-sql 172.28.0.11 172.28.0.12

A sender, a process of its own, writes the recorded creations into named pipes as if they happened now, turn upon
turn with ids of their own (tests/live/alive.py); `--speed` compresses their time. The second line is the traffic
that the filter lets through which `tracer watch` proposes. What is measured begins when as many turns run side
by side as ever will, and traces that are done begin to be forgotten. FOLDER has a truth.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIVE = Path(__file__).parent.parent / "live"
SETTLE_S = 30
GOAL_S = 1.0


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def main() -> int:
    from tracer.events import Event
    from tracer.live.run import open_watch
    from tracer.pipeline import Settings

    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", default="/tmp/cap/load-300")
    parser.add_argument("--per-minute", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--speed", type=float, default=10)
    parser.add_argument("--nova-sql", nargs="*", default=[])
    given = parser.parse_args()
    truth = json.loads((Path(given.folder) / "truth.json").read_text(encoding="utf-8"))
    creations = len(truth["creates"])
    lags: list[tuple[float, float]] = []
    opened = [0]
    verdicts: dict[str, int] = {}
    begun: list[float] = []

    def tell(event: Event) -> None:
        if not begun:
            begun.append(time.monotonic())
        if event.kind == "trace_opened":
            opened[0] += 1
        if event.kind == "verdict" and not event.revised and event.lag_ns is not None and event.verdict:
            lags.append((time.monotonic() - begun[0], event.lag_ns / 1e9))
            told = f"{event.verdict.verdict} {event.verdict.outcome}"
            verdicts[told] = verdicts.get(told, 0) + 1

    with tempfile.TemporaryDirectory() as folder:
        planes = ["External_api", "Internal_base"]
        for plane in planes:
            os.mkfifo(f"{folder}/{plane}.pcap")
        words = [given.folder, folder, "--creations", creations, "--speed", given.speed]
        words += ["--per-minute", given.per_minute, "--seconds", given.seconds]
        words += ["--nova-sql", *given.nova_sql] if given.nova_sql else []
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(LIVE), *sys.path])}
        sender = subprocess.Popen([sys.executable, LIVE / "alive.py", *map(str, words)], env=environment)
        run = open_watch([f"{folder}/{plane}.pcap" for plane in planes], Settings(), tell)
        run.run()
        sender.wait()
    used = os.times()
    span_s = 290 / given.speed
    steady = [
        lag for at, lag in lags if at > min(span_s + SETTLE_S, given.seconds / 2) and at < given.seconds
    ]
    cpu_s = used.user + used.system
    print(f"{opened[0]} creations opened, {verdicts}, {len(steady)} verdicts in the steady part")
    if not steady:
        return 1
    print(
        f"lag p50 {statistics.median(steady):.3f} s, p99 {percentile(steady, 0.99):.3f} s,"
        f" at most {max(steady):.3f} s; watch used {cpu_s / given.seconds:.0%} of one core"
    )
    return int(percentile(steady, 0.99) > GOAL_S)


if __name__ == "__main__":
    sys.exit(main())
