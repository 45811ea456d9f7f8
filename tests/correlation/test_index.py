"""Calls by key: bounded, and what is dropped is counted."""

from __future__ import annotations

from tracer.correlation.index import CallIndex
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
