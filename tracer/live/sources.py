"""The sources of a live run: what was processed of each, what it lost, and how it is doing."""

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
    """The *sources* of a run, the brokers among them, and a capture of each.

    A source counts ahead of what the stages have seen, so what was processed of it is counted in a capture of
    its own: `captures`, brought up to date by `follow`.
    """

    def __init__(self, sources: Sequence[LiveSource], feed: Feed) -> None:
        self._sources = list(sources)
        self._feed = feed
        self.captures = [_twin(source.capture) for source in sources]
        self.began_ns: list[int | None] = [None for _ in sources]
        """When each source began in an earlier run that this one goes on with."""
        self._dropped = [0 for _ in sources]
        self._rates = [Rate() for _ in sources]
        pairs = zip(sources, self.captures, strict=True)
        self._brokers = [(cast("RabbitMQ", s), capture) for s, capture in pairs if capture.protocol]
        self._blind: set[int] = set()

    @property
    def has_brokers(self) -> bool:
        """Whether there is a broker among them."""
        return bool(self._brokers)

    def first_ns(self, default: int) -> int:
        """Return when the first packet of all was captured; *default* before that."""
        return min((s.capture.first_ns for s in self._sources if s.capture.first_ns), default=default)

    def silent_brokers(self) -> list[str]:
        """Return why brokers that are there tell nothing, before the run: the news of each that matters."""
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
        """Bring the captures up to date; *stages* learn what could not be seen, and *tell* what has happened.

        *since_ns* is when this was done before, 0 at first; *last*: at the end of the run.
        """
        for number in self._follow_brokers(stages, tell):
            stages.lose_sight(number)
        for capture, source in zip(self.captures, self._sources, strict=True):
            self._update(capture, source, now_ns, last=last)
            self._follow_drops(capture, source, now_ns, since_ns, stages, tell)

    def _follow_brokers(self, stages: Stages, tell: Callable[[Event], None]) -> list[int]:
        """Tell what has happened to the brokers; return the captures of which something was not seen."""
        unseen = []
        for source, capture in self._brokers:
            for time_ns, words in source.news():
                tell(Event("trouble", time_ns, message=words))
            spans = source.unseen()
            for since_ns, until_ns in spans:
                stages.coverage.dropped(capture, since_ns, until_ns)
            if spans:
                unseen.append(capture.number)
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
            # What was read and not handed over yet has not been seen.
            reached_ns = now_ns if self._feed.is_live and not ended else self._feed.known_ns(read)
            capture.last_ns = max(capture.last_ns or 0, min(reached_ns, now_ns) if now_ns else 0)
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
        # The source is ahead of what is processed: it lost them somewhere in between.
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
        """Return how each source is doing; *now_s* is of a clock that is never set."""
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
        """Return how the broker of *capture* is doing; '' while all is well, or when it is no broker."""
        return next((s.state for s, c in self._brokers if c.number == capture.number), "")


class Rate:
    """How fast a counter grows, over the last seconds."""

    def __init__(self) -> None:
        self._count = 0
        self._since_s = 0.0
        self._rate = 0.0

    def of(self, count: int, now_s: float) -> float:
        """Return the growth of the counter per second, up to *now_s*, when it was *count*."""
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
