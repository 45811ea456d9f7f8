"""What brokers say of themselves in a live run: news of them, and when what passed there was not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from tracer.capture.live import LiveSource
from tracer.conformance import Coverage
from tracer.model import Capture
from tracer.model.events import Event

if TYPE_CHECKING:
    from tracer.capture.rabbitmq import RabbitMQ

__all__ = ["Brokers"]

LOST = "messages dropped: the firehose's queue was full"
UNSEEN = "times without the firehose"


class Brokers:
    """The brokers among the *sources* of a run; *captures* hold what the run has processed of them."""

    def __init__(self, sources: Sequence[LiveSource], captures: Sequence[Capture]) -> None:
        pairs = zip(sources, captures, strict=True)
        self._brokers = [(cast("RabbitMQ", s), capture) for s, capture in pairs if capture.protocol]
        self._blind: set[int] = set()

    def follow(self, coverage: Coverage, tell: Callable[[Event], None]) -> list[int]:
        """Tell what has happened to the brokers, and let *coverage* know what could not be seen.

        Return the captures of which something was not.
        """
        unseen = []
        for source, capture in self._brokers:
            for time_ns, words in source.news():
                tell(Event("trouble", time_ns, message=words))
            spans = source.unseen()
            for since_ns, until_ns in spans:
                coverage.dropped(capture, since_ns, until_ns)
            if spans:
                unseen.append(capture.number)
            if spans and capture.number not in self._blind:
                capture.anomalies[UNSEEN] += 1
            (self._blind.add if source.is_blind else self._blind.discard)(capture.number)
        return unseen

    def state(self, capture: Capture) -> str:
        """Return how the broker of *capture* is doing; '' while all is well, or when it is no broker."""
        return next((s.state for s, c in self._brokers if c.number == capture.number), "")

    def silent(self) -> list[str]:
        """Return why brokers that are there tell nothing, before the run: the news of each that matters."""
        return [source.news()[-1][1] for source, _ in self._brokers if source.is_blind]
