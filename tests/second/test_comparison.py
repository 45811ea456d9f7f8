"""How the calls of two decoders are held against each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.model import CallRecord
from tracer.second.comparison import EXAMPLES, compared


def call(index: int, **parts: Any) -> CallRecord:
    made = CallRecord(
        index, "Internal_base", "REST", "nova-api", "keystone", "GET /v3", "200", index * 1000, 500,
        (("a.pcap", 2 * index), ("a.pcap", 2 * index + 1)),
    )  # fmt: skip
    return replace(made, **parts)


CALLS = [call(index) for index in range(1, 6)]


def ways(theirs: list[CallRecord]) -> list[tuple[str, str, int]]:
    return [(d.kind, d.what, d.count) for d in compared(CALLS, theirs, "4.0").differences]


def test_the_same_calls_do_not_differ() -> None:
    found = compared(CALLS, list(reversed(CALLS)), "4.0")
    assert (found.same, found.different, found.differences) == (5, 0, ())


@pytest.mark.parametrize(
    "change, expected",
    [
        ({"result": "?"}, ("line", "result 200, tshark: ?", 1)),
        ({"caller": "nova-compute"}, ("line", "caller nova-api, tshark: nova-compute", 1)),
        ({"started_ns": 7}, ("time", "start of REST", 1)),
        ({"duration_ns": None}, ("time", "duration of REST", 1)),
        ({"evidence": (("a.pcap", 3), ("a.pcap", 2))}, ("frames", "first frame of REST", 1)),
        ({"evidence": (("a.pcap", 2),)}, ("frames", "later frames of REST", 1)),
    ],
)
def test_what_differs_is_told(change: dict[str, Any], expected: tuple[str, str, int]) -> None:
    assert ways([replace(CALLS[0], **change), *CALLS[1:]]) == [expected]


def test_a_call_that_only_one_saw() -> None:
    assert ways(CALLS[1:]) == [("only tracer", "REST GET /v3 200", 1)]
    assert ways([*CALLS, call(9)]) == [("only tshark", "REST GET /v3 200", 1)]


def test_calls_that_differ_alike_are_one_entry_with_a_few_examples() -> None:
    found = compared(CALLS, [replace(each, result="?") for each in CALLS], "4.0")
    (only,) = found.differences
    assert (only.count, len(only.examples), found.different) == (5, EXAMPLES, 5)


@given(st.lists(st.sampled_from(CALLS)), st.lists(st.sampled_from(CALLS)))
def test_every_call_is_the_same_or_different(ours: list[CallRecord], theirs: list[CallRecord]) -> None:
    """Each of both lists is counted once."""
    found = compared(ours, theirs, "4.0")
    alone = sum(d.count for d in found.differences)
    assert found.same + found.different == found.same + alone
    assert 2 * found.same + alone == len(ours) + len(theirs)
