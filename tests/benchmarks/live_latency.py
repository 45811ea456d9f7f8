"""From the last packet of a creation to its verdict, at so many creations a minute, and what it costs.

    python tests/benchmarks/live_latency.py [--per-minute 200] [--seconds 90] [--speed 10] [FOLDER]
    python tests/benchmarks/live_latency.py --per-minute 1000 --nova-sql 172.28.0.11 172.28.0.12

A sender, a process of its own, writes the recorded creations into named pipes as if they happened now, turn
upon turn with ids of their own (tests/lab/alive.py); `--speed` compresses their time. The second line is the
traffic that the filter lets through which `tracer watch` proposes. The first seconds do not count: until as
many turns run side by side as ever will, and traces that are done are forgotten. FOLDER has a truth.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from datetime import datetime
from itertools import chain
from pathlib import Path

from tracer.capture import open_capture
from tracer.capture.live import wall_ns
from tracer.model import Capture

TESTS = Path(__file__).parent.parent
SETTLE_S = 30
GOAL_S = 1.0
PLANES = ("External_api", "Internal_base")


def _span_s(folder: Path) -> float:
    """Return how long what is recorded there takes."""
    path = min((p for p in folder.iterdir() if ".pcap" in p.name), key=lambda p: p.stat().st_size)
    times = [p[0] for p in chain.from_iterable(open_capture(str(path), Capture(0, "")))]
    return (times[-1] - times[0]) / 1e9


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", default="captures/ok-concurrent-20")
    parser.add_argument("--per-minute", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--speed", type=float, default=10)
    parser.add_argument("--nova-sql", nargs="*", default=[])
    given = parser.parse_args()
    truth = json.loads((Path(given.folder) / "truth.json").read_text(encoding="utf-8"))
    words = [given.folder, "PIPES", "--creations", len(truth["creates"]), "--speed", given.speed]
    words += ["--per-minute", given.per_minute, "--seconds", given.seconds]
    words += ["--nova-sql", *given.nova_sql] if given.nova_sql else []
    span_s = _span_s(Path(given.folder))
    lags: list[tuple[float, float]] = []
    verdicts: Counter[str] = Counter()
    begun_s = 0.0
    with tempfile.TemporaryDirectory() as folder:
        words[1] = folder
        pipes = [f"{folder}/{plane}.pcap" for plane in PLANES]
        for pipe in pipes:
            os.mkfifo(pipe)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
        sending = [sys.executable, TESTS / "lab" / "alive.py", *map(str, words)]
        sender = subprocess.Popen(sending, env=environment)
        command = [sys.executable, "-m", "tracer", "watch", "--format", "jsonl"]
        command += [word for pipe in pipes for word in ("-i", pipe)]
        watch = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert watch.stdout is not None
        for line in watch.stdout:
            now_s = wall_ns() / 1e9
            begun_s = begun_s or now_s
            event = json.loads(line)
            if event["event"] == "verdict":
                verdicts[f"{event['verdict']} {event['outcome']}"] += 1
                if not event["revised"]:
                    lags.append((now_s - begun_s, now_s - datetime.fromisoformat(event["time"]).timestamp()))
        _, _, usage = os.wait4(watch.pid, 0)
        sender.wait()
    passed_s = wall_ns() / 1e9 - begun_s
    # Until as many turns run side by side as ever will, and those that are done are forgotten.
    from_s = min(span_s / given.speed + SETTLE_S, passed_s / 2)
    steady = sorted(lag for at_s, lag in lags if at_s > from_s)
    print(f"{dict(verdicts)}, {len(steady)} of them from second {from_s:.0f} on")
    if not steady:
        return 1
    cpu_s = usage.ru_utime + usage.ru_stime
    p99_s = steady[int(len(steady) * 0.99)]
    print(
        f"lag p50 {steady[len(steady) // 2]:.3f} s, p99 {p99_s:.3f} s, at most {steady[-1]:.3f} s;"
        f" watch: {cpu_s:.0f} s CPU, {cpu_s / passed_s:.0%} of a core, {usage.ru_maxrss / 1024:.0f} MB"
    )
    return int(p99_s > GOAL_S)


if __name__ == "__main__":
    sys.exit(main())
