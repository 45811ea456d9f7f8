"""The rows of the damage table: what is done to a scenario's captures, in which variants.

    for harmed in ROWS["loss-5"](files, random.Random(1)):
        harmed.write(folder)

A row takes the files of one scenario and a source of chance, and yields one or more damaged copies.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from lab import damage as D

__all__ = ["BURSTS", "ENDS_A_FILE", "ROWS", "SAME_EACH_TIME", "Files", "Harmed", "Row", "read"]

Files = dict[str, tuple[int, D.Packets]]
"""Name of the file up to its first dot -> link type, packets."""
MILLISECOND_NS, SECOND_NS = 1_000_000, 1_000_000_000


@dataclass(frozen=True)
class Harmed:
    """One damaged copy of a scenario's captures."""

    what: str
    """What was done where; empty when the row's name says it all."""
    files: Files
    kept: Mapping[str, float] = field(default_factory=dict)
    """Name of a file -> the share of its bytes that is written; the others are whole."""

    def ends_earlier(self, files: Files) -> bool:
        """Return whether the last packet of one of *files*, which it was made of, is not in it.

        A hole at the end of a file cannot be told from its end.
        """
        return any(
            name in self.files and bool(packets) and self.files[name][1][-1:] != packets[-1:]
            for name, (_, packets) in files.items()
        )

    def write(self, folder: Path) -> None:
        """Write the files as pcap in nanoseconds."""
        for name, (link, packets) in self.files.items():
            data = D.pcap(packets, link, unit_ns=1)
            if name in self.kept:
                data = D.cut_bytes(data, self.kept[name])
            (folder / f"{name}.pcap").write_bytes(data)


Row = Callable[[Files, random.Random], Iterator[Harmed]]


def read(folder: Path) -> Files:
    """The captures of a scenario's folder."""
    return {path.name.partition(".")[0]: D.read(path) for path in sorted(folder.glob("*.pcap*"))}


def _each(harm: Callable[[D.Packets, int, int], D.Packets]) -> Row:
    """The same damage to each file; *harm* takes packets, a link type and a seed."""

    def row(files: Files, chance: random.Random) -> Iterator[Harmed]:
        yield Harmed(
            "", {name: (link, harm(p, link, chance.randrange(1 << 32))) for name, (link, p) in files.items()}
        )

    return row


def _changed(files: Files, names: Sequence[str], harm: Callable[[D.Packets], D.Packets]) -> Files:
    return {name: (link, harm(p) if name in names else p) for name, (link, p) in files.items()}


def _instant(files: Files, chance: random.Random) -> int:
    """When a random packet of a random file was captured: quiet files tell most of a creation."""
    packets = chance.choice([packets for _, packets in files.values() if packets])
    return chance.choice(packets)[0]


# Loss


def _bursts(count: int, length_ns: int) -> Row:
    """Holes in each file, at times of its own: a buffer overflows at one capture point."""

    def row(files: Files, chance: random.Random) -> Iterator[Harmed]:
        holed: Files = {}
        for name, (link, packets) in files.items():
            middles = [chance.choice(packets)[0] for _ in range(count)] if packets else []
            starts = [middle - chance.randrange(length_ns) for middle in middles]
            holed[name] = link, D.outside(packets, [(start, start + length_ns) for start in starts])
        yield Harmed("", holed)

    return row


# Clocks


def _off(files: Files, chance: random.Random) -> list[str]:
    """Whose clock is off, in turn: of two files one, for the other early is this one late; else each."""
    return list(files) if len(files) > 2 else [chance.choice(list(files))]


def _clock(by_ns: int) -> Row:
    """The clock of one file is fast, and slow."""

    def row(files: Files, chance: random.Random) -> Iterator[Harmed]:
        for name, sign in product(_off(files, chance), (1, -1)):
            shifted = _changed(files, [name], lambda p, by_ns=sign * by_ns: D.shift(p, by_ns))  # type: ignore[misc]
            yield Harmed(f"{name} {'+-'[sign < 0]}", shifted)

    return row


def _drift(parts_per_million: float) -> Row:
    def row(files: Files, chance: random.Random) -> Iterator[Harmed]:
        for name, rate in product(_off(files, chance), (parts_per_million, -parts_per_million)):
            drifting = _changed(files, [name], lambda p, rate=rate: D.drift(p, rate))  # type: ignore[misc]
            yield Harmed(f"{name} {'+-'[rate < 0]}", drifting)

    return row


def _step(by_ns: int, of_all: bool, signs: Sequence[int] = (1, -1)) -> Row:
    """The clock of one file, or that of all, is set once."""

    def row(files: Files, chance: random.Random) -> Iterator[Harmed]:
        names = list(files) if of_all else [chance.choice(list(files))]
        for sign in signs:
            at_ns = _instant(files, chance)
            stepped = _changed(
                files,
                names,
                lambda p, at_ns=at_ns, by_ns=sign * by_ns: D.step_clock(p, at_ns, by_ns),  # type: ignore[misc]
            )
            yield Harmed(f"{'all' if of_all else names[0]} {'+-'[sign < 0]}", stepped)

    return row


def _reordered(share: float, within_ns: int) -> Row:
    """Packets that are captured late; records that are written late, with the right times."""

    def row(files: Files, chance: random.Random) -> Iterator[Harmed]:
        for what, harm in (("late", D.delay), ("written late", D.displace)):
            seed = chance.randrange(1 << 32)
            yield Harmed(what, _changed(files, list(files), lambda p: harm(p, share, within_ns, seed)))  # noqa: B023

    return row


# Missing parts


def _directions(files: Files, _: random.Random) -> Iterator[Harmed]:
    for to_server, what in ((True, "to the client"), (False, "to the server")):
        yield Harmed(
            what, {name: (link, D.one_direction(p, link, to_server)) for name, (link, p) in files.items()}
        )


def _ends(files: Files) -> tuple[list[bytes], list[int]]:
    """The IPv4 addresses and the server ports of the captures, each with ten packets or more."""
    addresses: Counter[bytes] = Counter()
    ports: Counter[int] = Counter()
    for link, packets in files.values():
        for _, frame, _ in packets:
            at = D.segment(frame, link)
            if at:
                addresses[at.source[0]] += 1
                addresses[at.destination[0]] += 1
                ports[min(at.source[1], at.destination[1])] += 1
    return (
        sorted(address for address, count in addresses.items() if count >= 10),
        sorted(port for port, count in ports.items() if count >= 10),
    )


SAMPLE = 2
"""So many hosts, or ports, of a capture are missing in turn, for each seed."""


def _dotted(address: bytes) -> str:
    return ".".join(map(str, address))


def _hosts(without: Callable[[D.Packets, int, bytes], D.Packets]) -> Row:
    def row(files: Files, chance: random.Random) -> Iterator[Harmed]:
        addresses, _ = _ends(files)
        for address in chance.sample(addresses, min(SAMPLE, len(addresses))):
            left = {name: (link, without(p, link, address)) for name, (link, p) in files.items()}
            yield Harmed(_dotted(address), left)

    return row


def _ports(files: Files, chance: random.Random) -> Iterator[Harmed]:
    _, ports = _ends(files)
    for port in chance.sample(ports, min(SAMPLE, len(ports))):
        left = {name: (link, D.without_port(p, link, port)) for name, (link, p) in files.items()}
        yield Harmed(str(port), left)


def _a_file(files: Files, _: random.Random) -> Iterator[Harmed]:
    for name in files if len(files) > 1 else ():
        yield Harmed(name, {other: file for other, file in files.items() if other != name})


def _ends_earlier(files: Files, chance: random.Random) -> Iterator[Harmed]:
    name, end_ns = chance.choice(list(files)), _instant(files, chance)
    yield Harmed(name, _changed(files, [name], lambda p: D.until(p, end_ns)))


def _starts_later(files: Files, chance: random.Random) -> Iterator[Harmed]:
    name, start_ns = chance.choice(list(files)), _instant(files, chance)
    yield Harmed(name, _changed(files, [name], lambda p: D.since(p, start_ns)))


def _cut(files: Files, chance: random.Random) -> Iterator[Harmed]:
    name, share = chance.choice(list(files)), chance.uniform(0.1, 0.95)
    yield Harmed(f"{name} at {share:.0%}", files, {name: share})


WINDOWS = 3
"""So many windows of each capture, and of all together, for each seed."""


def _windows(from_begin: bool, to_end: bool) -> Row:
    """All files, and each alone, from the begin or from a random instant, to the end or to another one."""

    def row(files: Files, chance: random.Random) -> Iterator[Harmed]:
        for names in [[*files], *([name] for name in files if len(files) > 1)]:
            for _ in range(WINDOWS):
                first, last = sorted((_instant(files, chance), _instant(files, chance)))
                begin_ns, end_ns = 0 if from_begin else first, 1 << 62 if to_end else last + 1
                left = _changed(
                    files,
                    names,
                    lambda p, begin_ns=begin_ns, end_ns=end_ns: D.until(D.since(p, begin_ns), end_ns),  # type: ignore[misc]
                )
                yield Harmed(f"{' and '.join(names)} {begin_ns} to {end_ns}", left)

    return row


CLOCKS_NS = {
    "0.5ms": MILLISECOND_NS // 2,
    **{f"{ms}ms": ms * MILLISECOND_NS for ms in (5, 50, 200, 500)},
    **{f"{s}s": s * SECOND_NS for s in (1, 2, 5)},
    "1h": 3600 * SECOND_NS,
}
STEPS_NS = {name: CLOCKS_NS[name] for name in ("50ms", "500ms", "2s")}

ROWS: dict[str, Row] = {
    "none": lambda files, _: iter([Harmed("", files)]),
    **{
        f"duplicates-{percent}": _each(lambda p, _, s, x=percent / 100: D.duplicate(p, share=x, seed=s))  # type: ignore[misc]
        for percent in (5, 50)
    },
    **{
        f"loss-{percent}": _each(lambda p, _, s, x=percent / 100: D.lose(p, x, s))  # type: ignore[misc]
        for percent in (0.1, 0.5, 1, 2, 5, 10, 20)
    },
    "bit-flips": _each(lambda p, _, s: D.flip_bits(p, 0.01, s)),
    "half-connections": _each(lambda p, link, s: D.half_connections(p, link, 0.1, s)),
    "burst-50ms": _bursts(1, 50 * MILLISECOND_NS),
    "burst-3x200ms": _bursts(3, 200 * MILLISECOND_NS),
    "burst-2x2s": _bursts(2, 2 * SECOND_NS),
    **{f"clock-{name}": _clock(by_ns) for name, by_ns in CLOCKS_NS.items()},
    "drift-100ppm": _drift(100),
    "back-1ms": _step(MILLISECOND_NS, True, (-1,)),
    **{
        f"step-{name}-{'all' if of_all else 'one'}": _step(STEPS_NS[name], of_all)
        for name, of_all in product(STEPS_NS, (False, True))
    },
    "reordered-5-5ms": _reordered(0.05, 5 * MILLISECOND_NS),
    "reordered-20-100ms": _reordered(0.2, 100 * MILLISECOND_NS),
    "no-direction": _directions,
    "no-host": _hosts(D.without_host),
    "no-sender": _hosts(D.without_sender),
    "no-port": _ports,
    "no-file": _a_file,
    "ends-earlier": _ends_earlier,
    "starts-later": _starts_later,
    "cut": _cut,
    "window-ends": _windows(True, False),
    "window-begins": _windows(False, True),
    "window": _windows(False, False),
    **{
        f"snap-{size}": _each(lambda p, _, __, x=size: D.snap(p, x))  # type: ignore[misc]
        for size in (1024, 512, 256, 128, 96, 64)
    },
}
"""Name -> what is done; in the order of the table."""
ENDS_A_FILE = ("ends-earlier", "cut", "window-ends", "window")
"""Rows in which a creation is rightly told as unfinished, wherever that is."""
BURSTS = tuple(name for name in ROWS if name.startswith("burst"))
"""Rows of which those variants are like that too that hide the end of a file."""
SAME_EACH_TIME = ("none", "no-direction", "no-file", *(name for name in ROWS if name.startswith("snap-")))
"""Rows without chance in them."""
