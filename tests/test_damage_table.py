"""The damage table in short: some damages on some captures, and what is said wrongly of them.

The whole table: python tests/benchmarks/damage.py.
"""

from __future__ import annotations

import json
import random
from functools import cache

import pytest
from lab.captures import CAPTURES
from lab.harms import ROWS, SAME_EACH_TIME
from lab.truths import KINDS, Scenario, Wrong, judged

SCENARIOS = ("ok-volume", "fail-quota-403", "fail-vrm-500-reschedule", "fail-no-valid-host")
NEVER = ("false", "missing", "phantom that deviates", "crash")
"""What no damage may lead to."""


@cache
def scenario(name: str) -> Scenario:
    return Scenario(CAPTURES / name)


def wrong(row: str) -> list[Wrong]:
    """What is wrong in one row, of what may never be."""
    return [each for name in SCENARIOS for each in scenario(name).run(row, 1).wrong if each.kind in NEVER]


@pytest.mark.parametrize("row", ROWS)
def test_nothing_false_is_said_of_damaged_captures(row: str) -> None:
    assert list(map(str, wrong(row))) == []


ONCE_WRONG = [
    ("ok-volume", "burst-50ms", 11),
    ("ok-volume", "burst-50ms", 25),
    ("ok-volume", "burst-3x200ms", 7),
    ("ok-volume", "burst-2x2s", 13),
    ("ok-volume", "reordered-20-100ms", 1),
    ("ok-volume", "reordered-20-100ms", 5),
    ("fail-vrm-500-reschedule", "burst-50ms", 7),
    ("fail-vrm-500-reschedule", "burst-2x2s", 12),
    ("fail-no-valid-host", "burst-3x200ms", 2),
    ("fail-no-valid-host", "burst-3x200ms", 4),
    ("fail-no-valid-host", "burst-3x200ms", 16),
    ("fail-no-valid-host", "reordered-20-100ms", 2),
    ("fail-no-valid-host", "reordered-20-100ms", 10),
    ("fail-no-valid-host", "reordered-20-100ms", 19),
    ("fail-neutron-down-midway", "burst-2x2s", 1),
    ("fail-scheduler-down", "loss-2", 1),
    ("fail-scheduler-down", "loss-20", 1),
    ("fail-scheduler-down", "reordered-5-5ms", 1),
    ("fail-scheduler-down", "no-direction", 1),
    ("fail-conductor-down", "reordered-20-100ms", 2),
    ("fail-conductor-down", "reordered-20-100ms", 6),
]
"""A step was told missing or wrong: a hole that shows elsewhere, an answer that came before its question, a
handshake of which a part is lost, a state of a host that is."""


@pytest.mark.parametrize(("name", "row", "seed"), ONCE_WRONG)
def test_what_was_told_wrongly_once(name: str, row: str, seed: int) -> None:
    found = scenario(name).run(row, seed).wrong
    assert [str(each) for each in found if each.kind in (*NEVER, "wrong step")] == []


MORE = {"burst-50ms": 12, "burst-3x200ms": 12, "burst-2x2s": 12, "reordered-20-100ms": 8}
"""Rows that are made of chance alone: with how many other seeds they hold."""


@pytest.mark.long
@pytest.mark.parametrize("row", MORE)
def test_nothing_false_is_said_whatever_the_chance(row: str) -> None:
    seeds = range(2, 2 + MORE[row])
    found = [w for seed in seeds for name in SCENARIOS for w in scenario(name).run(row, seed).wrong]
    assert [str(each) for each in found if each.kind in NEVER] == []
    assert sum(each.kind == "wrong step" for each in found) * 100 <= MORE[row] * 5


@pytest.mark.parametrize("row", ROWS)
def test_each_row_is_repeatable_and_changes_nothing_that_it_is_given(row: str) -> None:
    """The same seed gives the same damage, and another seed another one unless there is no chance in it."""
    files = scenario("fail-no-valid-host").files
    before = {name: (link, list(packets)) for name, (link, packets) in files.items()}
    once, again = ([*ROWS[row](files, random.Random(1))] for _ in range(2))
    assert once == again
    assert once and (row == "none" or all(harmed.files != files or harmed.kept for harmed in once))
    assert files == before
    others = [[*ROWS[row](files, random.Random(seed))] for seed in range(2, 8)]
    assert any(other != once for other in others) == (row not in SAME_EACH_TIME)


def test_truth_decides_what_is_wrong() -> None:
    """Each kind of mistake is found when the truth is another than what is said."""
    quota = scenario("fail-quota-403")
    assert not quota.wrong_undamaged
    made, refused = quota.creates
    elsewhere = json.loads(json.dumps([{**made, "outcome": "error", "failed_step": "6"}, refused]))
    well = [made, {**refused, "outcome": "active", "failed_step": None}]
    stranger = {**made, "server_id": "another", "request_id": "another", "name": "another"}

    def kinds(creates: list[dict[str, object]]) -> list[str]:
        return [each.kind for each in judged(creates, quota.undamaged)]

    assert kinds([made, {**refused, "failed_step": "4b"}]) == ["wrong step"]
    assert kinds([made, {**refused, "failed_step": ["4b", "4c"]}]) == []
    # That it is told nowhere is no wrong step.
    assert kinds(elsewhere) == []
    assert kinds(well) == ["false"]
    assert kinds([made]) == ["phantom", "phantom that deviates"]
    assert kinds([stranger, refused]) == ["missed", "phantom"]
    assert {*KINDS} >= {*NEVER}
