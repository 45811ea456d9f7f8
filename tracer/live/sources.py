"""The sources of a live run: per source the packets processed, the packets lost, and its state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from tracer.capture.live import LiveSource
from tracer.engine import Stages
from tracer.live.feed import Feed
from tracer.model import Capture
from tracer.model.events import Event, Plane

if TYPE_CHECKING:
    from tracer.capture.rabbitmq import RabbitMQ

__all__ = ["Rate", "Sources"]

LOST = "messages dropped: the firehose's queue was full"
UNSEEN = "times without the firehose"


class Sources:
    """The *sources* of a run, the brokers among them, and one capture for each.

    A source counts packets when it reads them, ahead of the stages. What the stages have processed is counted
    in separate captures, `captures`, which `follow` updates.
    """

    def __init__(self, sources: Sequence[LiveSource], feed: Feed) -> None:
        self._sources = list(sources)
        self._feed = feed
        self.captures = [_copy_of(source.capture) for source in sources]
        self.began_ns: list[int | None] = [None for _ in sources]
        """Time of each source's first packet in the earlier run that this run continues; else None."""
        self._dropped = [0 for _ in sources]
        self._rates = [Rate() for _ in sources]
        pairs = zip(sources, self.captures, strict=True)
        self._brokers = [(cast("RabbitMQ", s), capture) for s, capture in pairs if capture.protocol]
        self._blind: set[int] = set()

    @property
    def has_brokers(self) -> bool:
        """Whether a broker is among the sources."""
        return bool(self._brokers)

    def first_ns(self, default: int) -> int:
        """Return the time of the first packet of all sources; *default* when there is none yet."""
        return min((s.capture.first_ns for s in self._sources if s.capture.first_ns), default=default)

    def silent_brokers(self) -> list[str]:
        """Return why reachable brokers send no messages: the latest report of each such broker."""
        return [source.news()[-1][1] for source, _ in self._brokers if source.is_blind]

    # --- following ---

    def follow(
        self,
        now_ns: int,
        since_ns: int,
        stages: Stages,
        tell: Callable[[Event], None],
        *,
        last: bool = False,
    ) -> None:
        """Update the captures; report losses to *stages* (coverage) and to *tell* (events).

        *since_ns* is the time of the update before, 0 at first; *last*: the run ends.
        """
        for number in self._follow_brokers(stages, tell):
            stages.lose_sight(number)
        for capture, source in zip(self.captures, self._sources, strict=True):
            self._update(capture, source, now_ns, last=last)
            self._follow_drops(capture, source, now_ns, since_ns, stages, tell)

    def _follow_brokers(self, stages: Stages, tell: Callable[[Event], None]) -> list[int]:
        """Report news of the brokers; return the captures (numbers) with a time that was not observed."""
        unseen = []
        for source, capture in self._brokers:
            for time_ns, words in source.news():
                tell(Event("trouble", time_ns, message=words))
            spans = source.unseen()
            for since_ns, until_ns in spans:
                stages.coverage.dropped(capture, since_ns, until_ns)
            if spans:
                unseen.append(capture.number)
            # One interruption may be reported as several spans: it is counted once, when it begins.
            if spans and capture.number not in self._blind:
                capture.anomalies[UNSEEN] += 1
            (self._blind.add if source.is_blind else self._blind.discard)(capture.number)
        return unseen

    def _update(self, capture: Capture, source: LiveSource, now_ns: int, *, last: bool) -> None:
        read = source.capture
        capture.packets, capture.size_bytes = read.packets, read.size_bytes
        capture.truncated_packets = read.truncated_packets
        capture.first_ns = self.began_ns[capture.number] or read.first_ns
        ended = self._feed.state(read) == "ended"
        if read.last_ns is not None:
            # Packets that were read and not handed to the stages yet do not count as seen.
            until_ns = read.clock.as_captured(now_ns) if now_ns else 0
            reached_ns = until_ns if self._feed.is_live and not ended else self._feed.known_ns(read)
            capture.last_ns = max(capture.last_ns or 0, min(reached_ns, until_ns))
        if ended and (last or self._feed.ended):
            capture.last_ns, capture.broke_off = read.last_ns, read.broke_off

    def _follow_drops(
        self,
        capture: Capture,
        source: LiveSource,
        now_ns: int,
        since_ns: int,
        stages: Stages,
        tell: Callable[[Event], None],
    ) -> None:
        lost = source.dropped - self._dropped[capture.number]
        if lost <= 0:
            return
        self._dropped[capture.number] = source.dropped
        # The source is ahead of the stages, so the drops lie between the last update and its newest packet.
        since_ns = since_ns or source.capture.first_ns or now_ns
        stages.coverage.dropped(capture, since_ns, max(now_ns, source.capture.last_ns or 0))
        if capture.protocol:
            stages.lose_sight(capture.number)
        dropped = "packet" if not capture.protocol else "message"
        capture.anomalies["packets dropped by the kernel" if not capture.protocol else LOST] += lost
        who = "kernel" if not capture.protocol else "broker"
        words = f"the {who} dropped {lost:,} {dropped}{'s' if lost > 1 else ''} on {capture.path}"
        tell(Event("trouble", now_ns, message=words))

    # --- showing ---

    def planes(self, now_s: float) -> list[Plane]:
        """Return the state of each source; *now_s* is monotonic time."""
        return [
            Plane(
                capture.path,
                capture.plane or ("broker" if capture.protocol else ""),
                capture.packets,
                capture.packets if capture.protocol else 0,
                per_second=rate.of(capture.packets, now_s),
                dropped=source.dropped,
                gaps=capture.gaps,
                state=self._broker_state(capture) or self._feed.state(source.capture),
            )
            for capture, source, rate in zip(self.captures, self._sources, self._rates, strict=True)
        ]

    def _broker_state(self, capture: Capture) -> str:
        """Return the state of the broker of *capture*; '' while all is well, or when it is no broker."""
        return next((s.state for s, c in self._brokers if c.number == capture.number), "")


class Rate:
    """The growth of a counter per second, measured over one second at least."""

    def __init__(self) -> None:
        self._count = 0
        self._since_s = 0.0
        self._rate = 0.0

    def of(self, count: int, now_s: float) -> float:
        """Return the growth of the counter per second; its value is *count* at *now_s*."""
        passed_s = now_s - self._since_s
        if passed_s >= 1:
            self._rate = (count - self._count) / passed_s if self._since_s else 0.0
            self._count, self._since_s = count, now_s
        return self._rate


def _copy_of(capture: Capture) -> Capture:
    """Return a capture that counts what is processed of *capture*; both share the anomalies and the clock."""
    return Capture(
        capture.number,
        capture.path,
        capture.plane,
        interfaces=capture.interfaces,
        anomalies=capture.anomalies,
        protocol=capture.protocol,
        clock=capture.clock,
    )
