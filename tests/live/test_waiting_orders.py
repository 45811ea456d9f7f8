"""Orders that wait at the portal, looked at each second of capture time: told while they wait."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lab.stepped import UNTIL_S, Stepped

from tracer.engine import Settings, Stages
from tracer.grammar import load
from tracer.model import Capture
from tracer.testing.cloud import SPREAD, Cloud
from tracer.testing.creation import Creation
from tracer.testing.packets import T0_NS
from tracer.topology import GivenTopology


def told(build: Callable[[Cloud], None], lost: bytes = b"lost") -> list[tuple[float, str, str, str | None]]:
    """Second, event, name and step (of a stall: what is said) of all but the steps of good creations.

    Packets in which *lost* stands are not in the capture.
    """
    cloud = Cloud(SPREAD)
    cloud.background(0, UNTIL_S, every=2)
    build(cloud)
    planes = cloud.network.packets()
    packets = sorted(
        (time_ns, capture, frame)
        for capture, plane in enumerate(sorted(planes))
        for time_ns, frame in planes[plane]
        if lost not in frame
    )
    captures = [Capture(number, plane, plane) for number, plane in enumerate(sorted(planes))]
    run = Stepped(Stages(captures, GivenTopology(), Settings(), load("cloudvm_create")))
    return [
        ((e.time_ns - T0_NS) / 1e9, e.kind, (e.verdict and e.verdict.name) or "", e.message)
        for e in run.events_of(packets)
        if e.kind != "step_seen"
    ]


def order(
    cloud: Cloud, at: float, name: str, status: int | str, took: float, path: str = "cloudhosts"
) -> None:
    cloud.rest(
        at, "admin", "sc", "POST", f"/sc/{path}", status, took=took, token="", body={"name": name}, answer={}
    )


STALLED = "stalled for {} s before step 2, owed by sc: POST /sc/cloudhosts unanswered"


def test_an_order_that_hangs_is_told_while_it_waits() -> None:
    """Where an order was seen to lead to a creation: after seconds, and as stalled at the stall limit."""

    def build(cloud: Cloud) -> None:
        Creation(cloud, at=20, name="good").run()
        order(cloud, 100, "hangs", "silent", 0)

    assert [each for each in told(build) if each[2] == "hangs"] == [
        (106, "trace_opened", "hangs", ""),
        (160, "stalled", "hangs", STALLED.format(60)),
    ]


def test_where_no_order_has_led_anywhere_it_is_told_at_the_stall_limit() -> None:
    """All orders hang since before the run began: nobody knows what an order looks like."""
    found = told(lambda cloud: order(cloud, 100, "hangs", "silent", 0))
    assert found == [(161, "trace_opened", "hangs", ""), (161, "stalled", "hangs", STALLED.format(61))]


def test_an_order_that_goes_on_is_the_same_trace() -> None:
    """Its request to the cloud comes 20 s later: no second trace, none withdrawn."""

    def build(cloud: Cloud) -> None:
        Creation(cloud, at=20, name="good").run()
        late = Creation(cloud, at=120, name="late", breaks={"1": "left out"})
        late.run()
        order(cloud, 100, "late", 202, 30)

    kinds = [(at, kind) for at, kind, name, _ in told(build) if name == "late"]
    assert kinds[0] == (106, "trace_opened")
    assert [kind for _, kind in kinds] == ["trace_opened", "verdict"]


def test_an_order_that_is_refused_late_has_its_verdict_in_the_same_trace() -> None:
    def build(cloud: Cloud) -> None:
        Creation(cloud, at=20, name="good").run()
        order(cloud, 100, "late", 403, 20)

    found = [(at, kind) for at, kind, name, _ in told(build) if name == "late"]
    assert found == [(106, "trace_opened"), (121, "verdict")]


@pytest.mark.parametrize("took", [0.5, 4, 90])
def test_orders_of_another_kind_are_no_creations(took: float) -> None:
    """Slow or not: what never led to a creation, where others did, is none."""

    def build(cloud: Cloud) -> None:
        Creation(cloud, at=20, name="good").run()
        order(cloud, 100, "disk", 202, took, path="volumes")

    assert [each for each in told(build) if each[2] == "disk"] == []


def test_a_request_to_somebody_who_never_calls_the_cloud_is_no_order() -> None:
    """A stranger asks a stranger: not told while it waits, whatever the path."""

    def build(cloud: Cloud) -> None:
        made = cloud.network.connection("10.10.0.5", "10.10.0.77", 9000, 99.9)
        body = b'{"name": "x"}'
        made.say(100, b"POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    assert told(build) == []


def test_what_was_told_and_came_to_nothing_is_withdrawn() -> None:
    """Accepted without a request to the cloud that was seen: said in so many words."""

    def build(cloud: Cloud) -> None:
        Creation(cloud, at=20, name="good").run()
        order(cloud, 100, "odd", 202, 20)

    found = [(at, kind, words) for at, kind, name, words in told(build) if name == "odd"]
    assert found == [
        (106, "trace_opened", ""),
        (121, "withdrawn", "was answered, and no creation was seen for it"),
    ]


def test_an_order_that_was_told_stays_so_whatever_is_learnt_of_others() -> None:
    """Told while nobody knew what an order looks like; another kind leads to a creation while it hangs on."""

    def build(cloud: Cloud) -> None:
        order(cloud, 20, "hangs", "silent", 0, path="other")
        Creation(cloud, at=100, name="good").run()

    found = [(at, kind) for at, kind, name, _ in told(build) if name == "hangs"]
    assert found[:2] == [(81, "trace_opened"), (81, "stalled")]
    assert "withdrawn" not in {kind for _, kind in found}


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (202, "withdrawn", "was answered, and no creation was seen for it"),
        (403, "verdict", "step 2 failed: sc answered 403 to POST /sc/other"),
    ],
)
def test_what_was_told_has_its_end_when_it_is_answered(status: int, kind: str, words: str) -> None:
    """Of another kind than what led to a creation meanwhile: not before it is answered, at 130 s."""

    def build(cloud: Cloud) -> None:
        order(cloud, 20, "late", status, 110, path="other")
        Creation(cloud, at=100, name="good").run()

    found = [each for each in told(build) if each[2] == "late" and each[1] in ("withdrawn", "verdict")]
    assert [(at, event) for at, event, _, _ in found] == [(131, kind)]
    assert words in (found[0][3] or "")


def test_what_was_lost_is_not_called_answered() -> None:
    """The connection ends behind a hole that held the answer: nobody knows what it was."""

    def build(cloud: Cloud) -> None:
        Creation(cloud, at=20, name="good").run()
        order(cloud, 100, "odd", 299, 20)

    found = [(at, kind, words) for at, kind, name, words in told(build, lost=b" 299 ") if name == "odd"]
    assert [(kind, words) for _, kind, words in found] == [
        ("trace_opened", ""),
        (
            "withdrawn",
            "ended outside the capture: whether it was answered, or led to a creation, is not known",
        ),
    ]
