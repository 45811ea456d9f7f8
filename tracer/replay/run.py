"""One replay: reads the captures once for the plan, and again to send each message when it is due."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from tracer.capture.live import monotonic_s
from tracer.errors import UsageError
from tracer.model import (
    CALLS_OVER,
    AmqpContent,
    AmqpMethod,
    Closed,
    Endpoint,
    HttpRequest,
    HttpResponse,
    Message,
)
from tracer.protocols import PORTS
from tracer.replay.amqp import OntoBroker
from tracer.replay.plan import Plan, make_plan
from tracer.replay.recorded import read, resolve_twice
from tracer.replay.rest import Target, ToEndpoints, endpoint_at
from tracer.replay.sessions import broker_at
from tracer.replay.summary import AmqpSummary, RestSummary, Summary
from tracer.topology import GivenTopology

__all__ = ["Onward", "Targets"]


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets and options of a replay, as on the command line."""

    amqp: str | None = None
    """URL of a broker."""
    rest: tuple[str, ...] = ()
    """ROLE=URL, one for each role."""
    force: bool = False
    """Use exchanges and queues that exist on the broker already."""
    keep: bool = False
    """Leave on the broker what the replay declared."""
    dry_run: bool = False
    """Plan only."""


class Onward:
    """Sends the traffic of *captures* to *targets*, at *speed* times its pace; 0 is as fast as possible.

    Raises UsageError for invalid targets, before a capture is read.
    """

    def __init__(self, captures: Sequence[str], given: GivenTopology, targets: Targets, speed: float) -> None:
        self._targets = targets
        self._given = given
        self._speed = speed
        self._broker = broker_at(targets.amqp) if targets.amqp is not None else None
        self._rest = [_rest_argument(each) for each in targets.rest]
        roles = [role for role, _, _ in self._rest]
        for role in roles:
            if roles.count(role) > 1:
                raise UsageError(f"--rest {role}: given twice; one role has one URL")
        self._arguments = resolve_twice(captures, given)
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End soon; `run` still deletes what was declared and returns the summary."""
        self._stopped.set()

    def run(self) -> Summary:
        """Plan, send, and delete what was declared; return the summary. Raises SourceError or UsageError."""
        plan = make_plan(self._arguments, self._given, self._stopped.is_set)
        summary = Summary(
            [argument.path for argument in self._arguments],
            (plan.last_ns - plan.first_ns) / 1e9,
            self._speed,
            dry_run=self._targets.dry_run,
        )
        if self._broker is not None:
            if not (plan.published or plan.delivered or plan.broker.queues or plan.broker.exchanges):
                raise UsageError("--amqp: the captures hold no AMQP that can be read" + _unread(plan))
            summary.amqp = _amqp_summary(plan, self._broker[1])
        servers = self._servers(plan, summary)
        for why, count in plan.undecoded.items():
            summary.left_out[f"connections that cannot be read: {why}"] += count
        if not self._targets.dry_run:
            self._send(plan, summary, servers)
        summary.stopped = self._stopped.is_set()
        return summary

    def _servers(self, plan: Plan, summary: Summary) -> dict[Endpoint, tuple[Target, RestSummary]]:
        found: dict[Endpoint, tuple[Target, RestSummary]] = {}
        for role, target, url in self._rest:
            rest = RestSummary(role, url)
            summary.rest.append(rest)
            for server in plan.targets(role):
                found[server] = target, rest
                rest.recorded += plan.requests[server]
        return found

    def _send(
        self, plan: Plan, summary: Summary, servers: dict[Endpoint, tuple[Target, RestSummary]]
    ) -> None:
        targets = self._targets
        onto = None
        if self._broker is not None and summary.amqp is not None:
            onto = OntoBroker(
                self._broker[0], summary.amqp, plan, summary.left_out, force=targets.force, keep=targets.keep
            )
        rest = ToEndpoints(servers, summary.left_out, in_step=not self._speed) if servers else None
        begun_s = monotonic_s()
        try:
            if onto is not None:
                onto.open()
                # Again: the declarations before the first message do not count as delay.
                begun_s = monotonic_s()
            self._play(plan, summary, onto, rest, begun_s)
        finally:
            # REST first: its last requests are still being answered; then the broker is cleared.
            if rest is not None:
                summary.mapped = rest.mapped
                rest.close(at_once=self._stopped.is_set())
                summary.mapped = rest.mapped
            summary.took_s = monotonic_s() - begun_s
            if onto is not None:
                onto.close()

    def _play(
        self, plan: Plan, summary: Summary, onto: OntoBroker | None, rest: ToEndpoints | None, begun_s: float
    ) -> None:
        reading = read(
            self._arguments,
            {**PORTS, **self._given.ports},
            # Without a REST target no body of HTTP is needed.
            None if rest is not None else lambda *_: False,
        )
        for message in reading.messages:
            if self._stopped.is_set() or not self._is_due(message, plan.first_ns, begun_s, summary):
                break
            self._hand_on(message, onto, rest)
        if reading.gaps[0]:
            lost = f"holes in the captured streams, {reading.gaps[1]:,} bytes"
            summary.left_out[lost] += reading.gaps[0]

    def _is_due(self, message: Message | Closed, first_ns: int, begun_s: float, summary: Summary) -> bool:
        """Wait until *message* is due; return False when the run was stopped meanwhile."""
        if not self._speed:
            return True
        # A message is due when its last byte was captured.
        when_ns = getattr(message, "end_ns", message.time_ns)
        due_s = begun_s + (when_ns - first_ns) / 1e9 / self._speed
        late_s = monotonic_s() - due_s
        if late_s >= 0:
            summary.behind_s = max(summary.behind_s, late_s)
            return True
        return not self._stopped.wait(-late_s)

    @staticmethod
    def _hand_on(message: Message | Closed, onto: OntoBroker | None, rest: ToEndpoints | None) -> None:
        if isinstance(message, AmqpMethod | AmqpContent):
            if onto is not None:
                onto.receive(message)
        elif isinstance(message, HttpRequest | HttpResponse):
            if rest is not None:
                rest.receive(message)
        elif isinstance(message, Closed):
            if onto is not None and message.connection.protocol == "amqp091":
                onto.receive(message)
            elif rest is not None and CALLS_OVER.get(message.connection.protocol or "") == "REST":
                rest.receive(message)


def _unread(plan: Plan) -> str:
    why = ", ".join(f"{count:,} of {why}" for why, count in plan.undecoded.most_common(3))
    return f"; connections that cannot be read: {why}" if why else ""


def _rest_argument(text: str) -> tuple[str, Target, str]:
    role, equals, url = text.partition("=")
    if not equals or not role or not url:
        raise UsageError("--rest: write ROLE=URL, as --rest nova-api=http://localhost:8774")
    target = endpoint_at(role, url)
    return role, target, url


def _amqp_summary(plan: Plan, where: str) -> AmqpSummary:
    broker = plan.broker
    bindings = sum(len(each) for each in broker.bound.values())
    return AmqpSummary(
        where,
        published_recorded=plan.published,
        delivered_recorded=plan.delivered,
        returned_recorded=plan.returned,
        channel_errors_recorded=plan.channel_errors,
        exchanges=len(broker.exchanges),
        exchanges_inferred=sum(not each.declared for each in broker.exchanges.values()),
        queues=len(broker.queues),
        queues_inferred=sum(not each.declared for each in broker.queues.values()),
        bindings=bindings,
        bindings_inferred=len(broker.inferred_bindings),
        consumers=broker.consumed + broker.inferred_consumers,
        consumers_inferred=broker.inferred_consumers,
        vhosts=sorted(plan.vhosts),
    )
