"""Clocks that differ between captures make no other verdict, step or order of steps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from lab import damage as D

from tracer.engine import Settings, check
from tracer.model import Report

CAPTURES = Path(__file__).parent.parent / "captures"
MS = 1_000_000
NAMES = sorted(path.name for path in CAPTURES.iterdir() if path.is_dir())

Files = dict[str, tuple[int, D.Packets]]
Told = list[tuple[object, ...]]

OFFSETS_MS = (0.5, 5, 50, 2_000, 3_600_000)


def shifted(point: str, by_ns: int) -> Callable[[Files], Files]:
    """The clock of one capture is off."""
    return lambda files: {
        name: (link, D.shift(packets, by_ns) if name == point else packets)
        for name, (link, packets) in files.items()
    }


def drifting(point: str, parts_per_million: int) -> Callable[[Files], Files]:
    """The clock of one capture is too fast."""

    def drift(packets: D.Packets) -> D.Packets:
        begin_ns = packets[0][0]
        return [(ns + (ns - begin_ns) * parts_per_million // 1_000_000, *rest) for ns, *rest in packets]

    return lambda files: {
        name: (link, drift(packets) if name == point else packets) for name, (link, packets) in files.items()
    }


def stepped(point: str, by_ns: int) -> Callable[[Files], Files]:
    """The clock of one capture, or of all, is set in the middle."""

    def harm(files: Files) -> Files:
        middle_ns = D.time_at([packets for _, packets in files.values()], 0.5)
        return {
            name: (
                link,
                [(ns + by_ns if ns >= middle_ns else ns, *rest) for ns, *rest in packets]
                if point in ("all", name)
                else packets,
            )
            for name, (link, packets) in files.items()
        }

    return harm


def late(share: float, within_ms: int) -> Callable[[Files], Files]:
    """A share of the packets is recorded late, with its own time."""
    return lambda files: {
        name: (link, D.reorder(packets, share, within_ns=within_ms * MS))
        for name, (link, packets) in files.items()
    }


@cache
def read(name: str) -> Files:
    paths = sorted((CAPTURES / name).glob("*.pcap.zst"))
    return {path.name.split(".")[0]: D.read(path) for path in paths}


def told(report: Report) -> Told:
    """Return what is told of each creation: its verdict, its steps, and their order."""
    found: Told = []
    for verdict in report.verdicts:
        begun = sorted((s.started_ns, s.step) for s in verdict.steps if s.started_ns is not None)
        found.append(
            (
                str(verdict.server_id),
                verdict.verdict,
                verdict.outcome,
                verdict.stopped_at,
                [(step.step, step.status) for step in verdict.steps],
                [step for _, step in begun],
                sorted((deviation.kind, str(deviation.step)) for deviation in verdict.deviations),
            )
        )
    return sorted(found, key=str)


@cache
def undamaged(name: str) -> Told:
    return told(check([str(CAPTURES / name)], Settings()))


def check_damaged(name: str, harm: Callable[[Files], Files], folder: Path) -> Report:
    for point, (link, packets) in harm(read(name)).items():
        D.write(folder / f"{point}.pcap", packets, link)
    return check([str(folder)], Settings())


def points(name: str) -> list[str]:
    return sorted(path.name.split(".")[0] for path in (CAPTURES / name).glob("*.pcap.zst"))


SHORT: list[tuple[str, str, Callable[[Files], Files]]] = [
    *(
        ("ok-image", f"External_api {sign * ms:+} ms", shifted("External_api", int(sign * ms * MS)))
        for ms in OFFSETS_MS
        for sign in (1, -1)
    ),
    ("fail-quota-403", "Internal_base +50 ms", shifted("Internal_base", 50 * MS)),
    ("fail-401", "External_api -1 ms in the middle", stepped("External_api", -MS)),
    ("fail-no-valid-host", "Internal_base drifts by 100 ppm", drifting("Internal_base", 100)),
    ("fail-no-valid-host", "all -50 ms in the middle", stepped("all", -50 * MS)),
    ("fail-vrm-500-reschedule", "all -2 s in the middle", stepped("all", -2_000 * MS)),
    ("fail-vrm-500-reschedule", "20 % late by up to 100 ms", late(0.2, 100)),
    ("colo-ok", "compute2-any -2 s", shifted("compute2-any", -2_000 * MS)),
    ("colo-ok", "sc-any +1 h", shifted("sc-any", 3_600_000 * MS)),
    ("colo-ok", "ctl-any +50 ms", shifted("ctl-any", 50 * MS)),
]

ALL: list[tuple[str, str, Callable[[Files], Files]]] = [
    (name, f"{point} {words}", harm)
    for name in NAMES
    for point in points(name)
    for words, harm in (
        *(
            (f"{sign * ms:+} ms", shifted(point, int(sign * ms * MS)))
            for ms in OFFSETS_MS
            for sign in (1, -1)
        ),
        *((f"drifts by {ppm} ppm", drifting(point, ppm)) for ppm in (100, -100)),
        *((f"{ms:+} ms in the middle", stepped(point, ms * MS)) for ms in (1, -1, 50, -50, 2000, -2000)),
    )
]
ALL += [
    (name, words, harm)
    for name in NAMES
    for words, harm in (
        *((f"all {ms:+} ms in the middle", stepped("all", ms * MS)) for ms in (1, -1, 50, -50, 2000, -2000)),
        ("5 % late by up to 5 ms", late(0.05, 5)),
        ("20 % late by up to 100 ms", late(0.2, 100)),
    )
]


@pytest.mark.parametrize(("name", "words", "harm"), SHORT, ids=[f"{n}: {words}" for n, words, _ in SHORT])
def test_clocks_change_no_verdict(
    name: str, words: str, harm: Callable[[Files], Files], tmp_path: Path
) -> None:
    assert told(check_damaged(name, harm, tmp_path)) == undamaged(name)


SOME = ALL[::7]
"""All of them take nine minutes; the rows of tests/benchmarks/damage.py are the whole table."""


@pytest.mark.long
@pytest.mark.parametrize(("name", "words", "harm"), SOME, ids=[f"{n}: {words}" for n, words, _ in SOME])
def test_no_clock_changes_a_verdict(
    name: str, words: str, harm: Callable[[Files], Files], tmp_path: Path
) -> None:
    assert told(check_damaged(name, harm, tmp_path)) == undamaged(name)


def test_a_correction_is_told(tmp_path: Path) -> None:
    """By how much, from how much, and how sure; times stay those of the capture."""
    report = check_damaged("ok-image", shifted("External_api", 5 * MS), tmp_path)
    words = "External_api's clock is 5.0 ms ahead of Internal_base's (from 8 pairs, ± 0.1 ms)"
    assert [words in remark for remark in report.remarks] == [True]
    before = check([str(CAPTURES / "ok-image")], Settings()).verdicts[0]
    after = report.verdicts[0]
    assert abs(after.captured_ns - before.captured_ns - 5 * MS) < MS // 10
    outer = [call for call in after.calls if call.plane == "External_api"]
    inner = [call for call in after.calls if call.plane != "External_api"]
    assert all(call.ahead_ns for call in outer) and not any(call.ahead_ns for call in inner)


def test_a_given_offset_is_taken_as_true(tmp_path: Path) -> None:
    """It is added to the times of that capture, and told."""
    check_damaged("ok-image", shifted("External_api", 50 * MS), tmp_path)
    given = [f"External_api={tmp_path}/External_api.pcap@-50ms", f"{tmp_path}/Internal_base.pcap"]
    report = check(given, Settings())
    assert told(report) == undamaged("ok-image")
    assert report.remarks == ("External_api's clock is corrected by -50.0 ms, as given",)
    assert report.captures[0].clock.range_ahead_ns == (0, 0)


@pytest.mark.parametrize(("offset", "words"), [("-50us", "-50 µs"), ("+1.2ms", "1.2 ms"), ("+2s", "2.000 s")])
def test_a_given_offset_is_told_in_its_unit(offset: str, words: str) -> None:
    folder = CAPTURES / "fail-400"
    external = next(folder.glob("External_api*"))
    report = check([f"External_api={external}@{offset}"], Settings())
    assert f"External_api's clock is corrected by {words}, as given" in report.remarks


def test_the_help_says_how_to_give_an_offset() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tracer", "check", "--help"], capture_output=True, check=True
    )
    assert b"PLANE=FILE@OFFSET" in told.stdout and b"@-50us" in told.stdout


def test_clocks_that_agree_are_not_told() -> None:
    """Nothing is said of what was not corrected."""
    report = check([str(CAPTURES / "ok-image")], Settings())
    assert not report.remarks and all(capture.clock.is_right for capture in report.captures)
