"""CPU time and memory of `tracer check` beside tshark's, on the same files, in one run.

    python tests/benchmarks/check_vs_tshark.py [--rounds N] CAPTURE_DIR…

Compressed captures are unpacked first (tshark 4.0 reads zstd not at all), so both read plain files. The
runs of the two alternate, and of each the least is taken: what other processes do to the machine then
hits both. Prints one line per capture: CPU seconds (user and system), their ratio, peak memory.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import zstandard

TSHARK = ["tshark", "-T", "fields", "-Y", "http||amqp||mysql", "-e", "frame.number", "-r"]
TRACER = [sys.executable, "-m", "tracer", "check", "--format", "json"]
GOAL = 5.0


def unpacked(folder: Path, into: Path) -> list[Path]:
    """Copy the captures of *folder* to *into*, without compression."""
    found = []
    for path in sorted(folder.iterdir()):
        target = into / path.name.removesuffix(".zst")
        if path.suffix == ".zst":
            with path.open("rb") as packed, target.open("wb") as plain:
                zstandard.ZstdDecompressor().copy_stream(packed, plain)
        elif path.suffix in (".pcap", ".pcapng"):
            shutil.copy(path, target)
        else:
            continue
        found.append(target)
    return found


def cpu_and_peak(command: list[str]) -> tuple[float, float]:
    """Run *command*; return its CPU seconds and its peak memory in MiB."""
    # As installed: Python keeps what it has compiled.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    with open(os.devnull, "wb") as nothing:
        child = subprocess.Popen(command, stdout=nothing, stderr=nothing, env=environment)
        _, _, usage = os.wait4(child.pid, 0)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def compare(folder: Path, rounds: int) -> float:
    """Print the comparison on one folder of captures; return tshark's CPU time over tracer's."""
    with tempfile.TemporaryDirectory() as temporary:
        files = unpacked(folder, Path(temporary))
        packets_bytes = sum(f.stat().st_size for f in files)
        ours: list[tuple[float, float]] = []
        theirs: list[tuple[float, float]] = []
        for _ in range(rounds):
            ours.append(cpu_and_peak([*TRACER, temporary]))
            each = [cpu_and_peak([*TSHARK, str(file)]) for file in files]
            theirs.append((sum(e[0] for e in each), max(e[1] for e in each)))
    tracer_s, tshark_s = min(o[0] for o in ours), min(t[0] for t in theirs)
    ratio = tshark_s / tracer_s
    ours_mib, theirs_mib = max(o[1] for o in ours), max(t[1] for t in theirs)
    print(
        f"{folder.name:24} {packets_bytes / 1e6:7.1f} MB   tracer {tracer_s:6.2f} s {ours_mib:5.0f} MiB"
        f"   tshark {tshark_s:6.2f} s {theirs_mib:5.0f} MiB   ratio {ratio:4.1f}"
    )
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("captures", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if shutil.which("tshark") is None:
        sys.exit("tshark is not installed: apt-get install tshark")
    ratios = [compare(folder, arguments.rounds) for folder in arguments.captures]
    print(f"least ratio {min(ratios):.1f}; the goal on ok-concurrent-20 is {GOAL}")


if __name__ == "__main__":
    main()
