"""What is said of a creation that does not go on, while it does not: of a real capture, second by second."""

from __future__ import annotations

from stepped import Stepped
from streams import files

from tracer.conformance import load
from tracer.live.follow import Patience
from tracer.model import Capture
from tracer.pipeline import Settings
from tracer.sources import open_capture
from tracer.topology import GivenTopology


def test_a_service_that_refuses_is_named_while_it_is_asked_again() -> None:
    paths = files("fail-neutron-down-midway")
    captures = [Capture(number, str(path), path.name.split(".")[0]) for number, path in enumerate(paths)]
    packets = sorted(
        (packet[0], capture.number, bytes(packet[1]))
        for capture in captures
        for batch in open_capture(capture.path, capture)
        for packet in batch
    )
    settings = Settings(stall_s=0.5)
    run = Stepped(captures, GivenTopology(), settings, load("cloudvm_create"), every_statement=False)
    events = run.events_of(packets, Patience(stall_ns=500_000_000, checks_s=0))
    said = [event.message for event in events if event.kind == "stalled"]
    assert "nova-compute on compute1: neutron-server refused 10 connections" in "\n".join(said)
