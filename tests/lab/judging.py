"""Synthesised creations through the whole pipeline, and short words for what it says of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tracer.engine.workflows
from lab.reading import segment_of
from tracer.calls import Calls, wants_body, wants_statement
from tracer.capture.layers import Layers
from tracer.engine import Settings
from tracer.model import Call, Capture, Closed, Packet, Report, Segment, Verdict
from tracer.protocols import PORTS, Decoders, Options
from tracer.reassembly import Reassembler
from tracer.testing.cloud import SPREAD, Cloud, Layout
from tracer.testing.creation import Creation
from tracer.testing.packets import Network

# A grammar is the same each time; to read it takes longer than a small capture does.
tracer.engine.workflows.load = functools.cache(tracer.engine.workflows.load)

UNTIL_S = 260
"""The capture goes on so long after T0; creations begin at 100 s: time for a stall on either side."""


def judge(cloud: Cloud, folder: Path, settings: Settings | None = None) -> Report:
    """What `tracer check` says of the captures of *cloud*."""
    return tracer.engine.check(cloud.network.write(folder), settings or Settings())


def run(
    folder: Path,
    layout: Layout = SPREAD,
    *,
    until: float = UNTIL_S,
    since: float = 0,
    settings: Settings | None = None,
    change: Callable[[Cloud], None] | None = None,
    **creation: Any,
) -> Report:
    """One creation among noise; *change* has the last word on the packets."""
    cloud = Cloud(layout)
    cloud.background(since, until)
    Creation(cloud, **creation).run()
    if change is not None:
        change(cloud)
    return judge(cloud, folder, settings)


def only(report: Report) -> Verdict:
    assert len(report.verdicts) == 1, [v.summary for v in report.verdicts]
    return report.verdicts[0]


def statuses(verdict: Verdict) -> dict[str, str]:
    return {s.step: s.status for s in verdict.steps}


def kinds(verdict: Verdict) -> list[tuple[str, str | None]]:
    return [(d.kind, d.step) for d in verdict.deviations]


def note_kinds(verdict: Verdict) -> set[str]:
    return {note.kind for note in verdict.notes}


def built(network: Network) -> list[Call]:
    """The calls in the packets of *network*, by the stages up to there, in order of recognition."""
    names = sorted(network.packets())
    captures = [Capture(number, name) for number, name in enumerate(names)]
    reassembler, calls = Reassembler(captures, PORTS), Calls(PORTS)
    decoders = Decoders(
        PORTS, Options(wants_body, wants_statement, calls.numbering.skipped), reassembler.turn
    )
    found: dict[int, Call] = {}
    packets = [
        Packet(time_ns, data, len(data), 1, (capture, number))
        for capture, name in enumerate(names)
        for number, (time_ns, data) in enumerate(network.packets()[name], 1)
    ]
    layers, last_ns = Layers(), 0

    def take(events: Iterable[Any]) -> None:
        for event in events:
            for message in decoders.receive(event):
                found.update((call.serial, call) for call in calls.receive(message))
            if isinstance(event, Closed):
                found.update((call.serial, call) for call in calls.receive(event))

    for packet in sorted(packets, key=lambda packet: packet.time_ns):
        segment = segment_of(layers, packet)
        assert isinstance(segment, Segment), segment
        last_ns = packet.time_ns
        take(reassembler.read(((segment,),)))
    take(reassembler.flush(last_ns))
    found.update((call.serial, call) for call in calls.flush())
    return [found[serial] for serial in sorted(found)]


def told(calls: Iterable[Call]) -> list[str]:
    """Each call as 'operation result'."""
    return [f"{call.operation} {call.result}" for call in calls]
