"""How much longer `pytest --collect-only` takes on an empty suite with the plugin than without it.

    python tests/benchmarks/plugin_collect.py [ROUNDS]

Interleaved runs of pytest in an empty folder, with the plugin and without, and without all other plugins,
whose times would drown it; the medians and the least times of both, of processor time, since others use the
machine too. The plugin has to be installed by its entry point. It must stay below 30 ms.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points

WITH = ["-p", "tracer"]
ALONE = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def run(folder: str, *arguments: str) -> float:
    """Seconds of processor time of one run."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *arguments]
    subprocess.run(command, cwd=folder, env=ALONE, stdout=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    if not any(point.name == "tracer" for point in entry_points(group="pytest11")):
        sys.exit("the plugin is not installed: pip install -e .")
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    with tempfile.TemporaryDirectory() as folder:
        run(folder, *WITH)
        times = [(run(folder), run(folder, *WITH)) for _ in range(rounds)]
    without, with_it = zip(*times, strict=True)
    for name, one, other in (
        ("median", statistics.median(without), statistics.median(with_it)),
        ("least", min(without), min(with_it)),
    ):
        more = f"{(other - one) * 1e3:+.1f} ms"
        print(f"{name:>6}: {one * 1e3:6.1f} ms without, {other * 1e3:6.1f} ms with: {more}")


if __name__ == "__main__":
    main()
