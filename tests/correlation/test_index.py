"""Calls by key: bounded, and what is dropped is counted."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from lab.judging import only, run, statuses

from tracer.correlation import call_store
from tracer.correlation.call_store import CallIndex, RecentCalls
from tracer.model import Call, ConnectFacts, Connection, Endpoint


def call(serial: int) -> Call:
    made = Connection(1, Endpoint("10.0.0.1", 1), Endpoint("10.0.0.2", 2), 0)
    return Call(serial, "REST", "", "?", 0, None, [], None, None, ConnectFacts(), made)


def test_what_is_dropped_is_counted() -> None:
    """The oldest key goes when there are too many; a key takes no more than its share of calls."""
    index = CallIndex(max_keys=2, max_calls=2)
    for serial in range(3):
        index.add("a", call(serial))
    assert ([c.serial for c in index.get("a")], index.left_out, index.forgotten) == ([0, 1], 1, 0)
    index.add("b", call(3))
    index.add("c", call(4))
    assert (index.get("a"), index.forgotten) == ([], 1)


def test_what_may_lack_calls_is_known() -> None:
    """A full key lacks calls; so may all that began before the newest call that went with its key."""
    index = CallIndex(max_keys=1, max_calls=1)
    index.add("a", call(0))
    assert not index.may_lack("a", 0)
    index.add("a", call(1))
    assert index.may_lack("a", 0)
    assert not index.may_lack("b", 0)
    index.add("b", call(2))
    assert (index.may_lack("b", 0), index.may_lack("b", 1)) == (True, False)


def test_a_step_that_was_forgotten_is_no_missing_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a request with more calls than there is room for, what is not there is unobserved."""
    monkeypatch.setattr(call_store, "CallIndex", partial(CallIndex, max_calls=4))
    verdict = only(run(tmp_path))
    found = statuses(verdict)
    assert verdict.verdict == "inconclusive", verdict.deviations
    assert found["7"] == "unobserved"
    assert "missing" not in found.values()


def test_recent_calls_keep_the_last_and_count_the_others() -> None:
    recent = RecentCalls(max_calls=2)
    for number in range(2):
        recent.add(call(number))
    assert (recent.forgotten, recent.may_lack(0)) == (0, False)
    recent.add(call(2))
    assert ([c.serial for c in recent], recent.forgotten) == ([1, 2], 1)
    assert (recent.may_lack(0), recent.may_lack(1)) == (True, False)
    recent.discard(lambda found: found.serial == 1)
    assert [c.serial for c in recent] == [2]


def test_a_portal_request_that_was_forgotten_is_no_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(call_store, "RecentCalls", partial(RecentCalls, max_calls=0))
    assert statuses(only(run(tmp_path)))["1"] == "unobserved"
