"""The damage table in short: some damages on some captures, and what is said wrongly of them.

The whole table: python tests/benchmarks/damage.py.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from functools import cache

import pytest
from lab.captures import CAPTURES
from lab.harms import ROWS, SAME_EACH_TIME
from lab.truths import KINDS, Scenario, Wrong, judged

SCENARIOS = ("ok-volume", "fail-quota-403", "fail-vrm-500-reschedule", "fail-no-valid-host")
NEVER = ("false", "missing", "phantom that deviates", "crash")
"""What no damage may lead to."""

HOLDS = tuple(row for row in ROWS if row != "reordered-20-100ms")
NOT_YET: dict[str, dict[str, int]] = {"reordered-20-100ms": {"false": 1, "missing": 1}}
"""Rows of which something wrong is said yet: how often at most, with seed 1 and `SCENARIOS`."""


@cache
def scenario(name: str) -> Scenario:
    return Scenario(CAPTURES / name)


def wrong(row: str) -> list[Wrong]:
    """What is wrong in one row, of what may never be."""
    return [each for name in SCENARIOS for each in scenario(name).run(row, 1).wrong if each.kind in NEVER]


@pytest.mark.parametrize("row", HOLDS)
def test_nothing_false_is_said_of_damaged_captures(row: str) -> None:
    assert list(map(str, wrong(row))) == []


@pytest.mark.parametrize("row", NOT_YET)
def test_no_more_that_is_false_is_said_than_before(row: str) -> None:
    """Who mends a row moves it to `HOLDS`."""
    found = wrong(row)
    counts = Counter(each.kind for each in found)
    assert all(counts[kind] <= NOT_YET[row].get(kind, 0) for kind in NEVER), "\n".join(map(str, found))


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
