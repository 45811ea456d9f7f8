"""The summary of a replay: counts, as text and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tracer.reports import plain

__all__ = ["AmqpSummary", "RestSummary", "Summary"]


@dataclass(slots=True)
class AmqpSummary:
    """Counts of a replay to a broker; the recorded counts beside the live ones."""

    where: str
    published: int = 0
    published_recorded: int = 0
    delivered: int = 0
    delivered_recorded: int = 0
    acknowledged: int = 0
    returned: int = 0
    returned_recorded: int = 0
    undelivered: dict[str, int] = field(default_factory=dict)
    """queue -> messages in it at the end: never delivered, or requeued"""
    not_delivered: int = 0
    """Recorded as delivered, and not delivered live within the time limit."""
    unasked: int = 0
    """Delivered live, and not recorded as delivered."""
    supplied: int = 0
    """Published by tracer, because the recording holds only their delivery."""
    channel_errors: int = 0
    channel_errors_recorded: int = 0
    exchanges: int = 0
    exchanges_inferred: int = 0
    queues: int = 0
    queues_inferred: int = 0
    bindings: int = 0
    bindings_inferred: int = 0
    consumers: int = 0
    consumers_inferred: int = 0
    vhosts: list[str] = field(default_factory=list)
    kept: bool = False
    foreign: list[str] = field(default_factory=list)
    """Exchanges and queues that existed before and were used (--force)."""


@dataclass(slots=True)
class RestSummary:
    """Counts of a replay to the endpoint of one role."""

    role: str
    url: str
    recorded: int = 0
    sent: int = 0
    same: int = 0
    different: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(recorded status, live status) -> requests; 'none': no answer"""
    old_tokens: int = 0
    """Requests sent with the recorded token, because no replayed answer gave a live one."""
    uncompared: int = 0
    """Requests without a recorded answer to compare with."""
    problems: Counter[str] = field(default_factory=Counter)
    """reason -> requests without an answer"""

    @property
    def is_dead(self) -> bool:
        """Whether requests were sent and none of them was answered."""
        return 0 < self.sent <= self.problems.total()


@dataclass(slots=True)
class Summary:
    """The result of a replay: schema tracer.replay/1 as JSON, and text for people."""

    captures: list[str]
    recorded_s: float
    speed: float
    """Factor to the recorded pace; 0: as fast as possible"""
    took_s: float = 0.0
    behind_s: float = 0.0
    """The largest delay of a message against its due time."""
    dry_run: bool = False
    stopped: bool = False
    amqp: AmqpSummary | None = None
    rest: list[RestSummary] = field(default_factory=list)
    mapped: int = 0
    """Requests sent with live ids or tokens in the place of recorded ones."""
    left_out: Counter[str] = field(default_factory=Counter)

    def failure(self) -> str:
        """Return a message about endpoints that answered no request; '' when there are none.

        After a replay that was stopped it is always '': its answers may have been still to come.
        """
        dead = [rest for rest in self.rest if rest.is_dead]
        if not dead or self.stopped:
            return ""
        places = ", ".join(f"{rest.url} ({rest.role}: {rest.problems.most_common(1)[0][0]})" for rest in dead)
        option = f"--rest {dead[0].role}=URL"
        return (
            f"no request was answered by {plain(places, 600)}: check that it is running and can be reached"
            f" from here, or name another endpoint with {option}"
        )

    def json(self) -> str:
        """Return the summary as JSON, schema tracer.replay/1."""
        amqp = self.amqp
        found: dict[str, Any] = {
            "schema": "tracer.replay/1",
            "captures": self.captures,
            "recorded_s": round(self.recorded_s, 3),
            "speed": self.speed or "max",
            "took_s": round(self.took_s, 3),
            "behind_s": round(self.behind_s, 3),
            "dry_run": self.dry_run,
            "stopped": self.stopped,
            "amqp": None if amqp is None else {n: getattr(amqp, n) for n in AmqpSummary.__slots__},
            "rest": [_rest_json(each) for each in self.rest],
            "mapped": self.mapped,
            "left_out": dict(self.left_out.most_common()),
        }
        return json.dumps(found, indent=2, ensure_ascii=False)

    def text(self) -> str:
        """Return the summary as text, several lines."""
        lines: list[str] = []
        if self.amqp is not None:
            lines += _amqp_text(self.amqp, self.dry_run)
        for rest in self.rest:
            lines += _rest_text(rest, self.dry_run)
        if self.mapped:
            lines.append(
                f"      {self.mapped:,} requests held ids or tokens of live answers in place of recorded ones"
            )
        lines += [f"left out: {count:,} {plain(why, 200)}" for why, count in self.left_out.most_common()]
        if self.stopped:
            lines.append("stopped before the end of the captures")
        lines.append(self._pace())
        return "\n".join(lines)

    def _pace(self) -> str:
        speed = f"{self.speed:g} times faster" if self.speed not in (0.0, 1.0) else "at its pace"
        speed = speed if self.speed else "as fast as possible"
        if self.dry_run:
            span = f"the captures span {self.recorded_s:,.1f} s"
            return f"nothing was sent (--dry-run); {span}, to be sent {speed}"
        behind = f", at worst {self.behind_s:,.1f} s late" if self.speed and self.behind_s >= 0.5 else ""
        return f"{self.recorded_s:,.1f} s of recorded traffic in {self.took_s:,.1f} s, {speed}{behind}"


def _rest_json(rest: RestSummary) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(rest, name) for name in RestSummary.__slots__}
    found["different"] = [
        {"recorded": recorded, "live": live, "requests": count}
        for (recorded, live), count in rest.different.most_common()
    ]
    return found


def _amqp_text(amqp: AmqpSummary, dry_run: bool) -> list[str]:
    lines = [f"AMQP  {'would be sent to' if dry_run else 'sent to'} {amqp.where}"]
    parts = [
        _declared(amqp.exchanges, amqp.exchanges_inferred, "exchange"),
        _declared(amqp.queues, amqp.queues_inferred, "queue"),
        _declared(amqp.bindings, amqp.bindings_inferred, "binding"),
        _declared(amqp.consumers, amqp.consumers_inferred, "consumer"),
    ]
    lines.append(f"      {', '.join(parts)}")
    if dry_run:
        lines.append(
            f"      {amqp.published_recorded:,} messages published, {amqp.delivered_recorded:,} delivered,"
            f" {amqp.returned_recorded:,} returned in the captures"
        )
    else:
        left = sum(amqp.undelivered.values())
        lines.append(
            f"      {amqp.published:,} messages published (recorded {amqp.published_recorded:,}),"
            f" {amqp.delivered:,} delivered (recorded {amqp.delivered_recorded:,}),"
            f" {amqp.returned:,} returned (recorded {amqp.returned_recorded:,}), {left:,} left in queues"
        )
        held = sorted(amqp.undelivered.items(), key=lambda item: -item[1])
        lines += [f"      left in queue {plain(queue)}: {count:,}" for queue, count in held[:10]]
        if len(held) > 10:
            lines.append(f"      and in {len(held) - 10} more queues")
    notes = [
        (amqp.not_delivered, "recorded as delivered did not arrive"),
        (amqp.unasked, "were delivered that the captures do not show as delivered"),
        (amqp.supplied, "were published by tracer itself: the captures hold only their delivery"),
    ]
    lines += [f"      {count:,} {words}" for count, words in notes if count]
    if amqp.channel_errors or amqp.channel_errors_recorded:
        lines.append(
            f"      channel errors: {amqp.channel_errors:,} (recorded {amqp.channel_errors_recorded:,})"
        )
    if len(amqp.vhosts) > 1:
        lines.append(
            f"      {len(amqp.vhosts)} vhosts were recorded ({', '.join(amqp.vhosts)}), all sent to one"
        )
    if amqp.foreign:
        lines.append(f"      {len(amqp.foreign):,} of the names existed before (--force) and are kept")
    if not dry_run:
        lines.append(
            "      what was declared is kept; the next replay clears it away"
            if amqp.kept
            else "      what was declared is deleted"
        )
    return lines


def _declared(count: int, inferred: int, what: str) -> str:
    note = f" ({inferred:,} inferred)" if inferred else ""
    return f"{count:,} {what}{'' if count == 1 else 's'}{note}"


def _rest_text(rest: RestSummary, dry_run: bool) -> list[str]:
    if dry_run:
        return [f"REST  {rest.recorded:,} requests to {rest.role} would be sent to {rest.url}"]
    unanswered = sum(count for (_, live), count in rest.different.items() if live == "none")
    lines = [
        f"REST  {rest.sent:,} of {rest.recorded:,} requests to {rest.role} sent to {rest.url}:"
        f" {rest.same:,} with the recorded status, {rest.different.total() - unanswered:,} with another"
        + (f", {unanswered:,} without an answer" if unanswered else "")
    ]
    lines += [
        f"      recorded {recorded}, now {live}: {count:,}"
        for (recorded, live), count in rest.different.most_common()
    ]
    if rest.old_tokens:
        lines.append(f"      {rest.old_tokens:,} held the recorded token: no replayed answer gave another")
    if rest.uncompared:
        lines.append(f"      {rest.uncompared:,} without a recorded answer to compare with")
    lines += [f"      no answer: {why}: {count:,}" for why, count in rest.problems.most_common(5)]
    return lines
