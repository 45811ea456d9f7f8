"""What a live run tells while traffic flows: the nouns of `tracer watch`.

As in `model`, times are nanoseconds since the epoch from the capture, and what is here is plain: reports
write it as lines or draw it. An `OpenTrace` is filled as the wire tells more; an `Event` never changes.
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
"""`watching`: all sources are open. `withdrawn`: it is part of another creation, or none."""


@dataclass(slots=True, eq=False)
class OpenTrace:
    """A creation in progress, as it is known now."""

    number: int
    """Order in which it was opened, from 1: its name for life, while its id is learnt later."""
    verdict: Verdict
    """As if the capture ended now."""
    quiet_since_ns: int
    """Its last sign of life."""
    owes: str = ""
    """Who has to make the next step."""
    why: str = ""
    """What is known of the hold-up: an undelivered message, a queue without a consumer."""
    announced: str = ""
    """Verdict and outcome that were told last; empty while it runs."""

    @property
    def is_done(self) -> bool:
        """Whether it has its verdict; it is only kept for what may come late."""
        return self.announced not in ("", "stuck")

    @property
    def name(self) -> str:
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
    """What shows it."""
    message: str = ""
    revised: bool = False
    """A verdict that was told before and is another one now."""
    quiet_ns: int = 0
    lag_ns: int | None = None
    """From its last packet to its being told, where packets carry the time of the wall."""


@dataclass(slots=True, eq=False)
class Plane:
    """How one source is doing."""

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
    """waiting · quiet · ended · why it is cut off; empty while all is well."""


@dataclass(slots=True, eq=False)
class BrokerQueue:
    """What is known of one queue, by its routing key."""

    name: str
    waiting: int = 0
    """Messages published for it and not delivered."""
    consumers: int | None = None
    """None while nothing tells."""
    oldest_ns: int = 0
    """When the oldest of the waiting messages was published."""


@dataclass(slots=True, eq=False)
class Picture:
    """All that a live view shows."""

    now_ns: int = 0
    open: list[OpenTrace] = field(default_factory=list)
    planes: list[Plane] = field(default_factory=list)
    queues: list[BrokerQueue] = field(default_factory=list)
    """Those with something wrong."""
    verdicts: Counter[str] = field(default_factory=Counter)
    """Of the traces that are done."""
    outcomes: Counter[str] = field(default_factory=Counter)
    calls_per_second: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)
    """Of all the run, by protocol."""
