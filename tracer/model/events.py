"""Events and state of a live run: the values of `tracer watch`.

As in `model`, times are nanoseconds since the epoch from the capture. Reports write these values as lines or
draw them. An `OpenTrace` gets more facts as traffic flows; an `Event` never changes.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from tracer.model import CallRecord, StepResult, Verdict

__all__ = ["BrokerQueue", "Event", "EventKind", "OpenTrace", "Picture", "Plane"]

EventKind = Literal[
    "watching", "trace_opened", "step_seen", "stalled", "resumed", "verdict", "withdrawn", "trouble"
]
"""`watching`: all sources are open. `withdrawn`: the trace is a part of another creation, or of none."""


@dataclass(slots=True, eq=False)
class OpenTrace:
    """A creation in progress, as far as it is known now."""

    number: int
    """Order in which traces were opened, from 1. It never changes, whereas the id is learnt later."""
    verdict: Verdict
    """The verdict if the capture ended now."""
    quiet_since_ns: int
    """Time of its latest call or change."""
    owes: str = ""
    """The role that has to make the next step."""
    why: str = ""
    """The known reason of a delay: an undelivered message, a queue without a consumer."""
    announced: str = ""
    """Verdict and outcome of its latest event; empty while it runs."""

    @property
    def is_done(self) -> bool:
        """Whether it has its verdict; it is kept only for late calls."""
        return self.announced not in ("", "stuck")

    @property
    def name(self) -> str:
        """The name of the server, else its id, else the id of the trace."""
        return self.verdict.name or self.verdict.server_id or self.verdict.id


@dataclass(slots=True, frozen=True)
class Event:
    """One thing that happened in a live run."""

    kind: EventKind
    time_ns: int
    """When it happened, in capture time; 0 while there is none."""
    trace: OpenTrace | None = None
    verdict: Verdict | None = None
    """The trace's, at the time of the event."""
    step: StepResult | None = None
    call: CallRecord | None = None
    """The call that shows it."""
    message: str = ""
    revised: bool = False
    """The verdict replaces one that was reported before."""
    quiet_ns: int = 0
    lag_ns: int | None = None
    """Time from the last packet to the report; None if packets do not carry the time of the wall clock."""


@dataclass(slots=True, eq=False)
class Plane:
    """The state of one source."""

    name: str
    """eth0, a path, a broker's address"""
    plane: str
    packets: int = 0
    messages: int = 0
    """Firehose only."""
    per_second: float = 0.0
    dropped: int = 0
    gaps: int = 0
    state: str = ""
    """waiting · quiet · ended · the reason of an interruption; empty while all is well."""


@dataclass(slots=True, eq=False)
class BrokerQueue:
    """The state of one queue, identified by its routing key."""

    name: str
    waiting: int = 0
    """Messages published for it and not delivered."""
    consumers: int | None = None
    """None if it is not known."""
    oldest_ns: int = 0
    """When the oldest of the waiting messages was published."""


@dataclass(slots=True, eq=False)
class Picture:
    """Everything that a live view shows."""

    now_ns: int = 0
    open: list[OpenTrace] = field(default_factory=list)
    planes: list[Plane] = field(default_factory=list)
    queues: list[BrokerQueue] = field(default_factory=list)
    """Queues with a problem."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """Verdicts of the traces that are done."""
    calls_per_second: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    """Calls of the whole run, by protocol."""
    grammar: str = ""
    """The grammar that is checked, as chosen by now."""
