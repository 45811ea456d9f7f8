"""The loop of a live run: segments go through the stages, open traces are checked, events come out."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import cast

from tracer.capture.live import LiveSource, monotonic_s, wall_ns
from tracer.engine import Listeners, Settings, Stages, Workflows, rare_collections, report_on
from tracer.errors import SourceError
from tracer.live.checkpoint import State
from tracer.live.feed import Feed, Item
from tracer.live.follow import Follow, Patience
from tracer.live.hold_up import Queues
from tracer.live.restart import Restart
from tracer.live.sources import Rate, Sources
from tracer.model import AmqpMethod, Call, Heard, Report, SegmentFields
from tracer.model.events import Event, Picture
from tracer.topology import GivenTopology

__all__ = ["Limits", "Watch"]

WAIT_S = 0.1
DRAIN_S = 60.0
"""Longest time that is spent, after the end of the run, on packets that the kernel has already captured."""
LOOK_EVERY_S = 0.2
SHOW_EVERY_S = 0.25
LOOK_SHARE, BEHIND_SHARE = 1, 5
"""Shortest pause between two looks, as a multiple of the time that the last look took.

BEHIND_SHARE holds while packets arrive faster than they are processed: the backlog then delays verdicts more
than rarer looks do."""
BEHIND_S = 0.5
"""Longest pause that BEHIND_SHARE may cause."""
FORGET_EVERY_NS = 10_000_000_000
COLLECT_EVERY_S = 60.0
"""How often reference cycles are collected: the two directions of a connection refer to each other, and so do
the two legs of a call through a proxy."""

Tell = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits at which a run ends by itself; None for no limit."""

    packets: int | None = None
    duration_s: float | None = None


class Watch:
    """One live run over *sources*. `run` returns when all have ended, at a limit, or after `stop`.

    *tell* receives events as they happen. The report at the end is that of `tracer check`. The run owns the
    stages of `tracer.engine` and listens to them: AMQP methods, calls, and connections that end.
    """

    def __init__(
        self,
        sources: Sequence[LiveSource],
        given: GivenTopology,
        settings: Settings,
        workflows: Workflows,
        tell: Tell,
        patience: Patience | None = None,
    ) -> None:
        self._tell = tell
        self._feed = Feed(sources)
        self._sources = Sources(sources, self._feed)
        self.captures = self._sources.captures
        self.queues = Queues()
        listeners = Listeners({AmqpMethod: self.queues.method}, self.queues.closed, self._hear_calls)
        self.stages = Stages(self.captures, given, settings, workflows, listeners=listeners)
        self._patience = patience or Patience(stall_ns=int(settings.stall_s * 1e9))
        self.follow = Follow(self.stages, self.queues, self._patience, monotonic_s)
        self._restart = Restart(self.stages, self.follow)
        self._stopping = False
        self._looked_s = self._look_s = 0.0
        self._looked_ns = self._forgot_ns = 0
        self._errors_reported = 0
        self._collected_s = monotonic_s()
        self._call_rate = Rate()
        self._taken_in = 0
        self.before_end: Callable[[], None] = lambda: None
        """Called after the last packet was processed, before open traces are closed."""

    # --- running ---

    def silent_brokers(self) -> list[str]:
        """Return why brokers send no messages, one text for each such broker; call it before `run` only."""
        return self._sources.silent_brokers()

    def stop(self) -> None:
        """End the run soon, with its report. A signal handler or another thread may call it."""
        # Only a flag: the loop reads it, so no lock is taken in a signal handler.
        self._stopping = True

    def run(self, limits: Limits | None = None, show: Callable[[Picture], None] | None = None) -> Report:
        """Read until the end and return the report; *show* receives a picture every SHOW_EVERY_S.

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
                # At most BEHIND_S: the rarer the looks, the more work is in each of them.
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
        """Process what the sources have already captured when the run is ended from outside."""
        self._feed.stop()
        until_s = monotonic_s() + DRAIN_S
        while not self._feed.ended and self._feed.is_draining and monotonic_s() < until_s:
            self._receive(self._feed.segments(WAIT_S / 2))
        self._receive(self._feed.rest())

    def _receive(self, items: Sequence[Item]) -> None:
        """Process *items* in their order: segments, and messages reported by brokers."""
        self._taken_in += len(items)
        # Casts instead of isinstance: only brokers produce Heard, every other item is a segment, and a check
        # of each item would cost time on the path of every packet.
        if not self._sources.has_brokers:
            self.stages.read((cast("Sequence[SegmentFields]", items),))
            return
        for kind, group in groupby(items, type):
            if kind is Heard:
                self.stages.hear(cast("Iterable[Heard]", group))
            else:
                self.stages.read((cast("Iterable[SegmentFields]", group),))

    def _hear_calls(self, changed: Iterable[Call]) -> None:
        self._restart.recognise(changed)
        for call in changed:
            if call.protocol == "RPC":
                self.queues.call(call)

    # --- looking ---

    def _look(self, now_s: float, *, last: bool = False) -> None:
        now_ns = self._feed.now_ns()
        self._follow_sources(now_ns, last=last)
        if not now_ns:
            return
        if self._restart.has_gap_to_report:
            self._report_gap(now_ns)
        if not last and self._feed.is_live:
            self.stages.expire(now_ns)
        self.stages.advance(now_ns)
        self._tell_all(self.follow.look(now_ns, last=last))
        self._report_internal_errors(now_ns)
        if now_ns - self._forgot_ns > FORGET_EVERY_NS:
            self._forget(now_ns)
        if now_s - self._collected_s > COLLECT_EVERY_S:
            # `rare_collections` holds the automatic collection back during a run.
            self._collected_s = now_s
            gc.collect()
        self._looked_s, self._looked_ns = monotonic_s(), now_ns
        self._look_s = self._looked_s - now_s

    def _report_internal_errors(self, now_ns: int) -> None:
        """Say once that mistakes of ours were met, and again when there are ten times as many."""
        count = sum(self.stages.errors.counts.values())
        if count >= max(1, 10 * self._errors_reported):
            self._errors_reported = count
            self._tell(Event("trouble", now_ns, message=self.stages.internal_error_words()))

    def _tell_all(self, events: Iterable[Event]) -> None:
        for event in events:
            # The lag is measured against the wall clock: a recording sent through a pipe has none.
            if event.kind == "verdict" and self._feed.was_live:
                event = replace(event, lag_ns=max(0, wall_ns() - event.time_ns))
            self._tell(event)

    def _follow_sources(self, now_ns: int, *, last: bool = False) -> None:
        self._sources.follow(now_ns, self._looked_ns, self.stages, self._tell, last=last)

    def _troubles(self) -> None:
        for capture, error in self._feed.errors():
            if not isinstance(error, SourceError):
                raise error
            # Nothing was read so far: most likely a mistake in the arguments, so the run ends with it.
            if not self._taken_in:
                raise error
            self._tell(Event("trouble", self._feed.now_ns(), message=str(error)))
            self.captures[capture.number].anomalies[str(error)] += 1

    def _forget(self, now_ns: int) -> None:
        self._forgot_ns = now_ns
        self.stages.forget(now_ns - self._patience.stray_ns, self.follow.traces())
        self.queues.forget(now_ns - self._patience.forget_ns)

    # --- across a restart ---

    def state(self) -> State:
        """Return the state with which the next run goes on with the open traces."""
        return self._restart.state(self._feed.now_ns())

    def resume(self, state: State) -> None:
        """Take over the traces of *state*; call it before `run`.

        Raises UsageError when *state* is that of a run with another grammar or other sources.
        """
        self._sources.began_ns = list(state.first_ns)
        self._restart.resume(state)

    def _report_gap(self, now_ns: int) -> None:
        words = self._restart.close_gap(self._sources.first_ns(now_ns))
        self._tell(Event("trouble", now_ns, message=words))

    def picture(self) -> Picture:
        """Return the state of the run for a live view and for metrics."""
        now_ns = self._feed.now_ns()
        now_s = monotonic_s()
        history = self.follow.history
        traces = self.follow.open()
        done = [trace.verdict for trace in traces if trace.is_done]
        return Picture(
            now_ns,
            [trace for trace in traces if not trace.is_done],
            self._sources.planes(now_s),
            self.queues.unwell(now_ns),
            history.verdicts + Counter(verdict.verdict for verdict in done),
            self._call_rate.of(self.stages.newest, now_s),
            Counter(self.stages.counts),
            self.stages.grammar.name,
        )

    # --- the end ---

    def _end(self) -> Report:
        now_ns = self._feed.now_ns()
        self._follow_sources(now_ns, last=True)
        end_ns = max(now_ns, self.stages.finish())
        self._tell_all(self.follow.look(end_ns, last=True))
        for event in self.follow.end(end_ns):
            self._tell(event)
        verdicts = sorted(self.follow.history.kept(), key=lambda verdict: verdict.started_ns)
        self._feed.conclude()
        return report_on(self.stages, verdicts)
