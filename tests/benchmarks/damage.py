"""The damage table: what is said wrongly of captures that were damaged on purpose.

    python tests/benchmarks/damage.py [--rows NAME…] [--captures NAME…] [--seeds N] [--jobs N]
                                      [--at-most PACKETS] [--all] [--json FILE] [-v] [--list]

Takes the captures of captures/ and, where TRACER_SHARED_CAPTURES names a folder, those in there. Prints a
row per damage, in Markdown; with -v also each creation of which something wrong is said. A scenario of which
something wrong is said without damage counts in the row `none` alone. The same seeds give the same table.
NAME may have * and ?; a shared scenario is known as shared/NAME. Columns: tests/lab/truths.py.
"""

from __future__ import annotations

import argparse
import fnmatch
import functools
import hashlib
import json
import multiprocessing
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT.parent)]  # for lab, and for tracer as it is here

from lab.captures import CAPTURES, SHARED  # noqa: E402
from lab.harms import ROWS, SAME_EACH_TIME, read  # noqa: E402
from lab.truths import KINDS, Runs, Scenario  # noqa: E402

BIG_PACKETS = 250_000
"""Captures of more packets are left out unless --all is given."""


class Task(NamedTuple):
    """One row on one scenario, with some seeds."""

    folder: Path
    name: str
    row: str
    seeds: int


class Result(NamedTuple):
    """What came of a task; `sound`: nothing wrong is said of the scenario without damage."""

    name: str
    row: str
    sound: bool
    runs: Runs


def scenarios() -> dict[str, Path]:
    """Return the folders of the scenarios by name; captures that are there twice once."""
    found: dict[str, Path] = {}
    known: set[bytes] = set()
    for root, prefix in ((CAPTURES, ""), (SHARED, "shared/")):
        for truth in sorted(root.glob("*/truth.json")):
            digest = hashlib.sha256()
            for path in sorted(truth.parent.glob("*.pcap*")):
                digest.update(path.read_bytes())
            if digest.digest() not in known:
                known.add(digest.digest())
                found[prefix + truth.parent.name] = truth.parent
    return found


def packets_in(folder: Path) -> int:
    """Return how many packets the captures of *folder* hold."""
    return sum(len(packets) for _, packets in read(folder).values())


@functools.lru_cache(maxsize=1)
def _scenario(folder: Path, name: str) -> Scenario:
    """A scenario is read once by each process: its tasks come one after the other."""
    return Scenario(folder, name)


def work(task: Task) -> Result:
    """Run one task."""
    scenario = _scenario(task.folder, task.name)
    sound = not scenario.wrong_undamaged
    total = Runs(0, 0, [])
    if sound or task.row == "none":
        for seed in range(1, 2 if task.row in SAME_EACH_TIME else task.seeds + 1):
            _add(total, scenario.run(task.row, seed))
    return Result(task.name, task.row, sound, total)


def _add(total: Runs, more: Runs) -> None:
    total.runs += more.runs
    total.creations += more.creations
    total.wrong += more.wrong


def results(tasks: Sequence[Task], jobs: int) -> Iterator[Result]:
    """Run the tasks in as many processes, in order."""
    if jobs <= 1:
        yield from map(work, tasks)
        return
    # Forked, not spawned: what is imported need not be imported again.
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        yield from pool.imap(work, tasks)


def table(rows: dict[str, Runs]) -> str:
    """Return the rows in Markdown."""
    crashes = any(runs.counts()["crash"] for runs in rows.values())
    columns = [kind for kind in KINDS if kind != "crash" or crashes]
    lines = [
        "| damage | creations | " + " | ".join(columns) + " |",
        "|---|--:|" + "--:|" * len(columns),
    ]
    for name, runs in rows.items():
        counts = runs.counts()
        cells = [str(counts[kind]) for kind in columns]
        lines.append(f"| {name} | {runs.creations} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chosen(names: Iterable[str], patterns: Sequence[str] | None) -> list[str]:
    """Return the names that one of the patterns fits; ends the program for a pattern that fits none."""
    known = list(names)
    if not patterns:
        return known
    for pattern in patterns:
        if not fnmatch.filter(known, pattern):
            sys.exit(f"{pattern!r}: none of {', '.join(known)}")
    return [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", nargs="+", metavar="NAME")
    parser.add_argument("--captures", nargs="+", metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1, metavar="N")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (2)")
    parser.add_argument("--at-most", type=int, default=BIG_PACKETS, metavar="PACKETS")
    parser.add_argument("--all", action="store_true", help="captures of any size")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("-v", "--verbose", action="store_true", help="print each wrong creation")
    parser.add_argument("--list", action="store_true", help="print the names of rows and captures")
    arguments = parser.parse_args()
    folders = scenarios()
    rows = chosen(ROWS, arguments.rows)
    sizes = {name: packets_in(folders[name]) for name in chosen(folders, arguments.captures)}
    names = [name for name, packets in sizes.items() if arguments.all or packets <= arguments.at_most]
    if arguments.list:
        print("rows:", *rows, sep="\n  ")
        print("captures:", *(f"{name} ({sizes[name]} packets)" for name in names), sep="\n  ")
        return
    # The largest first: a long one that is begun last leaves the other cores idle.
    order = sorted(names, key=lambda name: (-sizes[name], name))
    tasks = [Task(folders[name], name, row, arguments.seeds) for name in order for row in rows]
    found = {row: Runs(0, 0, []) for row in rows}
    left_out = set()
    for result in results(tasks, arguments.jobs):
        _add(found[result.row], result.runs)
        if not result.sound:
            left_out.add(result.name)
        if arguments.verbose:
            for wrong in result.runs.wrong:
                print(wrong, flush=True)
    runs = sum(each.runs for each in found.values())
    print(f"\n{len(names)} scenarios, {arguments.seeds} seeds, {runs} damaged captures", flush=True)
    if left_out:
        print("Something wrong is said of these without damage:", ", ".join(sorted(left_out)))
    print("\n" + table(found))
    if arguments.json:
        report = {
            "seeds": arguments.seeds,
            "captures": names,
            "wrong undamaged": sorted(left_out),
            "rows": {row: each.as_json() for row, each in found.items()},
            "wrong": [wrong for each in found.values() for wrong in each.wrong_as_json()],
        }
        arguments.json.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
