"""What is said of a creation that does not go on, while it does not: of a real capture, second by second."""

from __future__ import annotations

from collections import Counter

import pytest
from lab.stepped import SECOND_NS, Stepped
from lab.streams import files

from tracer.capture import open_capture
from tracer.engine import Settings, Stages
from tracer.grammar import load
from tracer.live.follow import Patience
from tracer.model import Capture
from tracer.model.events import Event
from tracer.topology import GivenTopology


def looked_at(name: str, stall_s: float, every_ns: int) -> list[Event]:
    """What is told of a shipped scenario."""
    paths = files(name)
    captures = [Capture(number, str(path), path.name.split(".")[0]) for number, path in enumerate(paths)]
    packets = sorted(
        (packet[0], capture.number, bytes(packet[1]))
        for capture in captures
        for batch in open_capture(capture.path, capture)
        for packet in batch
    )
    settings = Settings(stall_s=stall_s)
    run = Stepped(Stages(captures, GivenTopology(), settings, load("cloudvm_create")))
    return run.events_of(packets, Patience(stall_ns=round(stall_s * 1e9), checks_s=0), every_ns)


@pytest.mark.parametrize("every_ns", [500_000_000, pytest.param(370_000_000, marks=pytest.mark.long)])
def test_each_of_twenty_at_once_is_opened_once(every_ns: int) -> None:
    """nova-api takes many seconds for each: its cast may be seen long before the POST is answered."""
    kinds = Counter(event.kind for event in looked_at("ok-concurrent-20", 60, every_ns))
    assert (kinds["trace_opened"], kinds["withdrawn"], kinds["verdict"]) == (20, 0, 20)


def test_a_service_that_refuses_is_named_while_it_is_asked_again() -> None:
    events = looked_at("fail-neutron-down-midway", 0.5, SECOND_NS)
    said = [event.message for event in events if event.kind == "stalled"]
    assert "nova-compute on compute1: neutron-server refused 10 connections" in "\n".join(said)
