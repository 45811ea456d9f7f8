"""The loop of a live run: segments through the stages, a look at the open traces, events told."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from tracer.capture.live import LiveSource, monotonic_s, wall_ns
from tracer.engine import Settings, Stages, rare_collections, trace_id
from tracer.errors import SourceError
from tracer.grammar import Grammar
from tracer.live.brokers import LOST, Brokers
from tracer.live.checkpoint import State
from tracer.live.feed import Feed, Item
from tracer.live.follow import Follow, Patience
from tracer.live.queues import Queues
from tracer.live.restart import Restart
from tracer.model import (
    AmqpMethod,
    Call,
    Capture,
    Closed,
    Data,
    Heard,
    Message,
    Report,
    SegmentFields,
    Trace,
)
from tracer.model.events import Event, Picture, Plane
from tracer.reassembly import Event as StreamEvent
from tracer.topology import GivenTopology

__all__ = ["Limits", "Watch"]

WAIT_S = 0.1
DRAIN_S = 60.0
"""What the kernel had captured when the run was ended is processed, if it takes no longer."""
LOOK_EVERY_S = 0.2
SHOW_EVERY_S = 0.25
LOOK_SHARE, BEHIND_SHARE = 1, 5
"""A look that took long is not repeated before so many times as long has passed; the second while more comes
than is processed: then what waits is late by more than looks are."""
BEHIND_S = 0.5
"""By more than that looks are not put off for it."""
FORGET_EVERY_NS = 10_000_000_000
COLLECT_EVERY_S = 60.0
"""Both directions of a connection, and both legs of a call through a proxy, hold each other."""

Tell = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run ends by itself."""

    packets: int | None = None
    duration_s: float | None = None


class Watch(Stages):
    """One live run over *sources*. `run` returns when all have ended, at a limit, or after `stop`.

    Events go to *tell* as they happen. The report at the end is that of `tracer check`.
    """

    def __init__(
        self,
        sources: Sequence[LiveSource],
        given: GivenTopology,
        settings: Settings,
        grammar: Grammar,
        tell: Tell,
        patience: Patience | None = None,
    ) -> None:
        # A source counts ahead of what the stages have seen: they have a capture of their own, which
        # `_follow_sources` keeps up to date.
        captures = [_twin(source.capture) for source in sources]
        super().__init__(captures, given, settings, grammar, every_statement=False)
        self._sources = list(sources)
        self._tell = tell
        self._feed = Feed(sources)
        self.queues = Queues()
        self._brokers = Brokers(sources, captures)
        self._hears = any(capture.protocol for capture in captures)
        self._patience = patience or Patience(stall_ns=int(settings.stall_s * 1e9))
        checker = self.checker()
        self.follow = Follow(
            self.correlator, checker, self.queues, trace_id, self._patience, monotonic_s, self._is_wanted
        )
        self._stopping = False
        self._dropped = [0] * len(captures)
        self._looked_s = self._look_s = 0.0
        self._looked_ns = self._forgot_ns = 0
        self._collected_s = monotonic_s()
        self._rates = [_Rate() for _ in sources]
        self._call_rate = _Rate()
        self._taken_in = 0
        self._restart = Restart(grammar.name, captures, self._calls, self.correlator, self.follow)
        self.before_end: Callable[[], None] = lambda: None
        """Called when all is taken in, before the traces that are open are closed."""

    # --- running ---

    def silent_brokers(self) -> list[str]:
        """Return why brokers tell nothing, for a run that shall not begin then; only before `run`."""
        return self._brokers.silent()

    def stop(self) -> None:
        """End the run soon, with its report. May be called by a signal or another thread."""
        self._stopping = True

    def run(self, limits: Limits | None = None, show: Callable[[Picture], None] | None = None) -> Report:
        """Read until the end and return the report; *show* is given a picture of the state now and then.

        Raises SourceError when a source cannot be read at all, before anything else was.
        """
        with rare_collections():
            return self._run(limits, show)

    def _run(self, limits: Limits | None, show: Callable[[Picture], None] | None) -> Report:
        limits = limits or Limits()
        begun_s, shown_s = monotonic_s(), 0.0
        feed = self._feed
        feed.start()
        while not self._stopping and not feed.ended:
            self._receive(feed.segments(WAIT_S))
            self._troubles()
            now_s = monotonic_s()
            pause_s = max(LOOK_EVERY_S, LOOK_SHARE * self._look_s)
            if feed.is_live and feed.is_behind:
                # Not for long: the rarer the looks, the more there is to do in each.
                pause_s = max(pause_s, min(BEHIND_SHARE * self._look_s, BEHIND_S))
            if now_s - self._looked_s >= pause_s:
                self._look(now_s)
            if show is not None and now_s - shown_s >= SHOW_EVERY_S:
                shown_s = now_s
                show(self.picture())
            if limits.duration_s is not None and now_s - begun_s >= limits.duration_s:
                break
            if limits.packets is not None and sum(c.packets for c in self.captures) >= limits.packets:
                break
        self._drain()
        self._look(monotonic_s())
        self.before_end()
        return self._end()

    def _drain(self) -> None:
        """Take in what the sources have in hand when the run is ended from outside."""
        self._feed.stop()
        until_s = monotonic_s() + DRAIN_S
        while not self._feed.ended and self._feed.is_draining and monotonic_s() < until_s:
            self._receive(self._feed.segments(WAIT_S / 2))
        self._receive(self._feed.rest())

    def _receive(self, items: Sequence[Item]) -> None:
        """Take *items* in their order: segments, and what brokers tell."""
        self._taken_in += len(items)
        if not self._hears:
            self._segments_in(items)  # type: ignore[arg-type]
            return
        for kind, group in groupby(items, type):
            if kind is Heard:
                self._heard(group)  # type: ignore[arg-type]
            else:
                self._segments_in([*group])  # type: ignore[list-item]

    def _heard(self, told: Iterable[Heard]) -> None:
        for _, _, message in told:
            if type(message) is Closed:
                self._hole_or_end(message)
            else:
                self._message(message)  # type: ignore[arg-type]

    def _segments_in(self, segments: Sequence[SegmentFields]) -> None:
        decode = self._decoders.receive
        for event in self._reassembler.read((segments,)):
            for message in decode(event):
                self._message(message)
            if type(event) is not Data:
                self._hole_or_end(event)

    def _message(self, message: Message) -> None:
        if type(message) is AmqpMethod:
            self.queues.method(message)
        super()._message(message)

    def _hole_or_end(self, event: StreamEvent) -> None:
        super()._hole_or_end(event)
        if type(event) is Closed and event.connection.protocol in ("amqp091", "firehose"):
            self.queues.closed(event)

    def _new_or_changed(self, changed: Sequence[Call]) -> None:  # type: ignore[override]
        self._restart.recognise(changed)
        super()._new_or_changed(changed)
        for call in changed:
            if call.protocol == "RPC":
                self.queues.call(call)

    def _is_wanted(self, trace: Trace) -> bool:
        return self._is_of_the_workflow(trace) and self._is_selected(trace)

    # --- looking ---

    def _look(self, now_s: float, *, last: bool = False) -> None:
        now_ns = self._feed.now_ns()
        self._follow_brokers()
        self._follow_sources(now_ns, last=last)
        if not now_ns:
            return
        if self._restart.is_unsaid:
            self._say_hole(now_ns)
        if not last:
            self._pass_time(now_ns)
        self._calls.numbering.advance(now_ns)
        self._tell_all(self.follow.look(now_ns, last=last))
        if now_ns - self._forgot_ns > FORGET_EVERY_NS:
            self._forget(now_ns)
        if now_s - self._collected_s > COLLECT_EVERY_S:
            self._collected_s = now_s
            gc.collect()
        self._looked_s, self._looked_ns = monotonic_s(), now_ns
        self._look_s = self._looked_s - now_s

    def _tell_all(self, events: Iterable[Event]) -> None:
        for event in events:
            if event.kind == "verdict" and self._feed.was_live:
                event = replace(event, lag_ns=max(0, wall_ns() - event.time_ns))
            self._tell(event)

    def _follow_brokers(self) -> None:
        for capture in self._brokers.follow(self.coverage, self._tell):
            self._new_or_changed([*self._calls.unseen(capture)])

    def _pass_time(self, now_ns: int) -> None:
        """Let time do its work in reassembly, also while nothing comes: unanswered SYNs, holes."""
        if self._feed.is_live:
            self._events(self._reassembler.expire(now_ns))

    def _follow_sources(self, now_ns: int, *, last: bool = False) -> None:
        """Bring the captures up to date with what was processed of their sources."""
        for capture, source in zip(self.captures, self._sources, strict=True):
            read = source.capture
            capture.packets, capture.size_bytes = read.packets, read.size_bytes
            capture.truncated_packets = read.truncated_packets
            capture.first_ns = self._restart.began_ns[capture.number] or read.first_ns
            ended = self._feed.state(read) == "ended"
            if read.last_ns is not None:
                # What was read and not handed over yet has not been seen.
                reached_ns = now_ns if self._feed.is_live and not ended else self._feed.known_ns(read)
                capture.last_ns = max(capture.last_ns or 0, min(reached_ns, now_ns) if now_ns else 0)
            if ended and (last or self._feed.ended):
                capture.last_ns, capture.broke_off = read.last_ns, read.broke_off
            lost = source.dropped - self._dropped[capture.number]
            if lost > 0:
                self._dropped[capture.number] = source.dropped
                # The source is ahead of what is processed: it lost them somewhere in between.
                since_ns = self._looked_ns or read.first_ns or now_ns
                self.coverage.dropped(capture, since_ns, max(now_ns, read.last_ns or 0))
                if capture.protocol:
                    self._new_or_changed([*self._calls.unseen(capture.number)])
                dropped = "packet" if not capture.protocol else "message"
                capture.anomalies["packets dropped by the kernel" if not capture.protocol else LOST] += lost
                who = "kernel" if not capture.protocol else "broker"
                words = f"the {who} dropped {lost:,} {dropped}{'s' if lost > 1 else ''} on {capture.path}"
                self._tell(Event("trouble", now_ns, message=words))

    def _troubles(self) -> None:
        for capture, error in self._feed.errors():
            if not isinstance(error, SourceError):
                raise error
            if not self._taken_in:
                raise error
            self._tell(Event("trouble", self._feed.now_ns(), message=str(error)))
            self.captures[capture.number].anomalies[str(error)] += 1

    def _forget(self, now_ns: int) -> None:
        self._forgot_ns = now_ns
        before_ns = now_ns - self._patience.stray_ns
        traces = self.follow.traces()
        self.correlator.forget(before_ns, traces)
        self._calls.forget(before_ns, {call.serial for trace in traces for call in trace.calls})
        self.topology.roles.forget(before_ns)
        self.queues.forget(now_ns - self._patience.forget_ns)
        oldest_ns = min((trace.calls[0].started_ns for trace in traces if trace.calls), default=now_ns)
        self.coverage.forget(min(before_ns, oldest_ns))

    # --- across a restart ---

    def state(self) -> State:
        """Return what a watch that is started again needs to go on with the open traces."""
        return self._restart.state(self._feed.now_ns())

    def resume(self, state: State) -> None:
        """Go on with the traces of *state*, before anything is read.

        Raises UsageError when it is that of a run of another grammar or other sources.
        """
        self._restart.resume(state, self._new_or_changed)
        # They were counted when they happened.
        self._counts.clear()
        for capture in self.captures:
            capture.calls = 0

    def _say_hole(self, now_ns: int) -> None:
        first_ns = min((s.capture.first_ns for s in self._sources if s.capture.first_ns), default=now_ns)
        words = self._restart.hole(first_ns, self.coverage)
        self._tell(Event("trouble", now_ns, message=words))

    def picture(self) -> Picture:
        """Return how things are, for a live view."""
        now_ns = self._feed.now_ns()
        now_s = monotonic_s()
        history = self.follow.history
        planes = []
        for capture, source, rate in zip(self.captures, self._sources, self._rates, strict=True):
            planes.append(
                Plane(
                    capture.path,
                    capture.plane or ("broker" if capture.protocol else ""),
                    capture.packets,
                    capture.packets if capture.protocol else 0,
                    per_second=rate.of(capture.packets, now_s),
                    dropped=source.dropped,
                    gaps=capture.gaps,
                    state=self._brokers.state(capture) or self._feed.state(source.capture),
                )
            )
        traces = self.follow.open()
        done = [trace.verdict for trace in traces if trace.is_done]
        return Picture(
            now_ns,
            [trace for trace in traces if not trace.is_done],
            planes,
            self.queues.unwell(now_ns),
            history.verdicts + Counter(verdict.verdict for verdict in done),
            history.outcomes + Counter(verdict.outcome for verdict in done),
            self._call_rate.of(self._newest, now_s),
            Counter(self._counts),
        )

    # --- the end ---

    def _end(self) -> Report:
        now_ns = self._feed.now_ns()
        self._follow_brokers()
        self._follow_sources(now_ns, last=True)
        self._finish()
        self._tell_all(self.follow.look(max(now_ns, self._last_ns), last=True))
        for event in self.follow.end(max(now_ns, self._last_ns)):
            self._tell(event)
        history = self.follow.history
        verdicts = sorted(history.kept(), key=lambda verdict: verdict.started_ns)
        return self._reported(verdicts, partial=False)


class _Rate:
    """How fast a counter grows, over the last seconds."""

    def __init__(self) -> None:
        self._count = 0
        self._since_s = 0.0
        self._rate = 0.0

    def of(self, count: int, now_s: float) -> float:
        passed_s = now_s - self._since_s
        if passed_s >= 1:
            self._rate = (count - self._count) / passed_s if self._since_s else 0.0
            self._count, self._since_s = count, now_s
        return self._rate


def _twin(capture: Capture) -> Capture:
    """Return another capture for what is processed of one that is read."""
    return Capture(
        capture.number,
        capture.path,
        capture.plane,
        interfaces=capture.interfaces,
        anomalies=capture.anomalies,
        protocol=capture.protocol,
    )
