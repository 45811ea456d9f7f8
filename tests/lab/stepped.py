"""A live run that is looked at each second of capture time, or oftener: what it tells depends on no clock."""

from __future__ import annotations

from dataclasses import replace

from tracer.capture.layers import Layers
from tracer.engine import Stages
from tracer.live.checkpoint import State
from tracer.live.follow import Follow, Patience
from tracer.live.hold_up import Queues
from tracer.live.restart import Restart
from tracer.model.events import Event

SECOND_NS = 1_000_000_000
UNTIL_S = 260


class Stepped:
    """A live run over *stages* that are fed by hand."""

    def __init__(self, stages: Stages, resumed: State | None = None) -> None:
        self.stages, self.resumed = stages, resumed
        self.restart: Restart | None = None
        """Of the last run: it makes the state with which the next one goes on."""

    def events_of(
        self,
        packets: list[tuple[int, int, bytes]],
        patience: Patience | None = None,
        every_ns: int = SECOND_NS,
    ) -> list[Event]:
        """Take (time, capture, frame) and look each second; what a look told, with its second as time."""
        layers, told = Layers(), list[Event]()
        clock = iter(range(10_000_000)).__next__
        patience = patience or Patience(checks_s=0)
        follow = Follow(self.stages, Queues(), patience, lambda: float(clock()) / 1e6)
        self.restart = Restart(self.stages, follow)
        if self.resumed is not None:
            self.restart.resume(self.resumed)
        due_ns = packets[0][0] // SECOND_NS * SECOND_NS
        until_ns = due_ns + UNTIL_S * SECOND_NS
        for number, (time_ns, capture, frame) in enumerate(packets, 1):
            while until_ns > due_ns <= time_ns:
                self.stages.expire(due_ns)
                for each in self.stages.captures:
                    each.last_ns = due_ns
                told += [replace(event, time_ns=due_ns) for event in follow.look(due_ns)]
                due_ns += every_ns
            read = self.stages.captures[capture]
            read.first_ns = read.first_ns or time_ns
            packet = (time_ns, frame, len(frame), 1, (capture, number), 0)
            self.stages.read((layers.read((packet,), {}),))
        return told
