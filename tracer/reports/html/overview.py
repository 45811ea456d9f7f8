"""Computes the page's overview of all traces: counts, where they stopped and why, how long steps took."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tracer.model import Verdict
from tracer.reports import duration, plain
from tracer.reports.clusters import clusters

__all__ = ["Axis", "Group", "StepRow", "axis", "groups", "step_rows", "stop"]

_PLACES = 1000
"""Width of a plot in units of its viewBox."""


@dataclass(frozen=True, slots=True)
class Group:
    """A cluster as the page shows it."""

    verdict: str
    badge: str
    """Their outcome, and the step at which they stopped."""
    words: str
    hosts: str
    members: tuple[int, ...]
    """Positions of its traces in the report."""


def groups(verdicts: Sequence[Verdict]) -> list[Group]:
    """Return the traces that did not conform by their common reason, the largest group first."""
    position = {id(verdict): number for number, verdict in enumerate(verdicts)}
    found = []
    for cluster in clusters(verdicts):
        place = cluster.step or " – ".join(cluster.between or ())
        badge = " · ".join(
            filter(None, (cluster.outcome, place and f"step {place}", plain(cluster.peer, 60)))
        )
        hosts = ", ".join(f"{plain(host, 60)} ({count})" for host, count in cluster.hosts.most_common(4))
        members = tuple(position[id(verdict)] for verdict in cluster.verdicts)
        found.append(Group(cluster.verdicts[0].verdict, badge, plain(cluster.words, 300), hosts, members))
    return found


def stop(verdict: Verdict) -> str:
    """Return the step at which the trace stopped: 8b; '2 – 7' if only the range is known; or ''."""
    return verdict.stopped_at or " – ".join(verdict.stopped_between or ())


@dataclass(slots=True)
class StepRow:
    """One documented step over all traces."""

    step: str
    title: str
    statuses: Counter[str] = field(default_factory=Counter)
    stopped: int = 0
    times_ns: list[int] = field(default_factory=list)

    def quantile(self, share: float) -> int:
        """Return the time within which *share* (0 to 1) of the traces finished the step, in nanoseconds."""
        return self.times_ns[min(len(self.times_ns) - 1, math.ceil(share * len(self.times_ns)) - 1)]

    @property
    def median(self) -> str:
        """The median time as text; '' without times."""
        return duration(self.quantile(0.5)) if self.times_ns else ""

    @property
    def p95(self) -> str:
        """The 95th percentile as text; '' with less than two times."""
        return duration(self.quantile(0.95)) if len(self.times_ns) > 1 else ""

    @property
    def longest(self) -> str:
        """The longest time as text; '' with less than two times."""
        return duration(self.times_ns[-1]) if len(self.times_ns) > 1 else ""


def step_rows(verdicts: Sequence[Verdict]) -> list[StepRow]:
    """Return a row for each documented step, with sorted times."""
    rows: dict[str, StepRow] = {}
    for verdict in verdicts:
        for step in verdict.steps:
            row = rows.setdefault(step.step, StepRow(step.step, plain(step.title, 200)))
            row.statuses[step.status] += 1
            row.stopped += step.step == verdict.stopped_at
            if step.duration_ns is not None and step.status in ("seen", "failed"):
                row.times_ns.append(step.duration_ns)
    for row in rows.values():
        row.times_ns.sort()
    return list(rows.values())


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic axis of times."""

    low: float
    """Decimal logarithms of its ends."""
    high: float
    ticks: tuple[tuple[str, int], ...]
    """What is written, where."""

    def at(self, time_ns: int) -> int:
        """Return the position of a time, 0 to 1000."""
        share = (math.log10(max(time_ns, 1)) - self.low) / (self.high - self.low)
        return round(_PLACES * min(max(share, 0.0), 1.0))


def axis(rows: Sequence[StepRow]) -> Axis | None:
    """Return an axis of whole decades that holds all step times; None without a time."""
    times = [time_ns for row in rows for time_ns in (row.times_ns[:1] + row.times_ns[-1:])]
    if not times:
        return None
    low = math.floor(math.log10(max(min(times), 100_000)))
    high = max(math.ceil(math.log10(max(times) + 1)), low + 1)
    decades = [(exponent - low) / (high - low) for exponent in range(low, high + 1)]
    ticks = [(_decade(low + n), round(_PLACES * place)) for n, place in enumerate(decades)]
    return Axis(low, high, tuple(ticks))


def _decade(exponent: int) -> str:
    """Return the axis label of a power of ten of nanoseconds."""
    if exponent < 6:
        return f"{10 ** (exponent - 3)} µs"
    if exponent < 9:
        return f"{10 ** (exponent - 6)} ms"
    return f"{10 ** (exponent - 9):,} s"
