"""Requests of which only a part was captured, and which parts are one."""

from __future__ import annotations

import pytest

from tracer.correlation.requests import LONGEST_NS, Request, join_by_elimination
from tracer.model import CLIENT, SERVER, Call, Connection, End, Endpoint, RestFacts

SECOND_NS = 1_000_000_000
REQUEST_ID = "req-1"


def call(serial: int, at_s: float, **facts: object) -> Call:
    made = Connection(serial, Endpoint("10.0.0.1", serial), Endpoint("10.0.0.2", 8774), 0)
    found = RestFacts(**{"method": "POST", "path": "/v2.1/servers", **facts})  # type: ignore[arg-type]
    at_ns = round(at_s * SECOND_NS)
    return Call(
        serial,
        "REST",
        "POST /v2.1/servers",
        "?",
        at_ns,
        None,
        [],
        End(made, CLIENT),
        End(made, SERVER),
        found,
        made,
    )


def asker(serial: int, at_s: float = 100, **facts: object) -> Request:
    """A request of which no answer was captured."""
    leg = call(serial, at_s, **facts)
    return Request(inner=leg, calls=[leg])


def creation(serial: int, at_s: float = 101, request_id: str = REQUEST_ID, **facts: object) -> Request:
    """What came of a request that was not captured."""
    return Request(
        request_id=request_id, calls=[call(serial, at_s, method="GET", path="/v2/images", **facts)]
    )


def test_a_request_and_a_creation_are_one_where_no_other_fits() -> None:
    asked, made = asker(1), creation(2)
    assert join_by_elimination([asked, made]) == [asked]
    assert asked.request_id == REQUEST_ID
    assert [each.serial for each in asked.calls] == [1, 2]


def test_an_answer_alone_is_of_the_leg_without_a_request() -> None:
    asked, made = asker(1), creation(2)
    answer = call(3, 101, method="?", status=202)
    made.outer = answer
    assert join_by_elimination([asked, made]) == [asked]
    assert (asked.outer, asked.inner) == (answer, asked.calls[0])


@pytest.mark.parametrize(
    "requests",
    [
        [asker(1), creation(2), creation(3, request_id="req-2")],
        [asker(1), asker(2, 100.5), creation(3)],
        [asker(1), creation(2, 99)],
        [asker(1), creation(2, 100 + LONGEST_NS / SECOND_NS + 1)],
        [asker(1, token="a"), creation(2, token="b")],
        [asker(1, status=202), creation(2)],
        [Request(inner=call(1, 100), request_id="req-0"), creation(2)],
    ],
    ids=[
        "two creations",
        "two requests",
        "before it",
        "long after it",
        "other token",
        "answered",
        "has an id",
    ],
)
def test_what_is_not_certain_stays_apart(requests: list[Request]) -> None:
    assert join_by_elimination(requests) == requests
