"""Metrics of a live run for Prometheus: packets, losses, calls, traces, steps, stalls, the broker's queues.

No label holds a value from the traffic: sources are named as on the command line, steps and roles as in the
grammar. So hostile traffic cannot increase the number of time series.

Source: prometheus.io/docs/practices/naming.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from tracer import __version__
from tracer.errors import UsageError, reason
from tracer.model.events import Event, Picture

__all__ = ["LOCALHOST", "Metrics", "address"]

LOCALHOST = "127.0.0.1"
_STEP_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_LAG_S = (0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 60)
_SOURCE = ("plane", "source")

Posted = Callable[[], dict[str, int]]
"""Returns the counts of notifications: result -> number."""


def address(text: str) -> tuple[str, int]:
    """Return host and port of PORT, ADDRESS:PORT or [ADDRESS]:PORT. Raises UsageError for anything else."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= 65535) or (":" in host and host[:1] != "["):
        raise UsageError(f"--metrics {text}: write PORT or ADDRESS:PORT, such as 9464 or 0.0.0.0:9464")
    return host.strip("[]") or LOCALHOST, int(port)


class Metrics:
    """Receives events and pictures of a live run, and answers scrapes in a separate thread.

    *listen* is an argument of `address`; *grammar* is told until a picture names the one that was chosen.
    Raises UsageError when the port cannot be bound.
    """

    def __init__(self, listen: str, grammar: str, posted: Posted = dict) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._opened = Counter("tracer_traces_opened", "Creations that were begun", registry=registry)
        self._told = Counter(
            "tracer_verdicts",
            "Verdicts given; a revised verdict counts again",
            ("verdict", "outcome", "revised"),
            registry=registry,
        )
        self._steps = Histogram(
            "tracer_step_duration_seconds",
            "How long the documented steps took, by the first verdict of each creation",
            ("step",),
            buckets=_STEP_S,
            registry=registry,
        )
        self._lag = Histogram(
            "tracer_verdict_lag_seconds",
            "From the last packet of a creation to its verdict",
            buckets=_LAG_S,
            registry=registry,
        )
        self._troubles = Counter("tracer_troubles", "Troubles of the run itself", registry=registry)
        registry.register(_State(self))
        self.picture = Picture(grammar=grammar)
        self.posted = posted
        host, port = address(listen)
        try:
            server, _ = start_http_server(port, host, registry)
        except PermissionError:
            raise UsageError(f"--metrics {listen}: no permission: take a port from 1024 on") from None
        except (OSError, OverflowError, UnicodeError) as error:
            why = reason(error) if isinstance(error, OSError) else str(error)
            raise UsageError(f"--metrics {listen}: {why}: give another port, or 0 for any") from None
        self._server = server
        self.port: int = server.server_address[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/metrics"

    def tell(self, event: Event) -> None:
        """Count *event*."""
        if event.kind == "trace_opened":
            self._opened.inc()
        elif event.kind == "trouble":
            self._troubles.inc()
        elif event.kind == "verdict" and event.verdict is not None:
            verdict = event.verdict
            self._told.labels(verdict.verdict, verdict.outcome, str(event.revised).lower()).inc()
            if event.revised:
                return
            if event.lag_ns is not None:
                self._lag.observe(event.lag_ns / 1e9)
            for step in verdict.steps:
                if step.duration_ns is not None:
                    self._steps.labels(step.step).observe(step.duration_ns / 1e9)

    def show(self, picture: Picture) -> None:
        """Answer later scrapes with *picture*."""
        self.picture = picture

    def close(self) -> None:
        """Stop answering scrapes and free the port."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


class _State(Collector):
    """The collector that derives metrics from the latest picture at each scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[CounterMetricFamily]:
        # Without this method the registry would call `collect` to learn the names.
        return []

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily]:
        picture = self._metrics.picture
        yield InfoMetricFamily(
            "tracer_build",
            "Version of tracer, and the grammar that it checks",
            {"version": __version__, "grammar": picture.grammar},
        )
        yield from self._sources(picture)
        calls = CounterMetricFamily("tracer_calls", "REST, RPC and SQL calls", labels=["protocol"])
        for protocol in ("REST", "RPC", "SQL"):
            calls.add_metric([protocol], picture.calls[protocol])
        yield calls
        stalled = [trace for trace in picture.open if trace.announced == "stuck"]
        yield GaugeMetricFamily("tracer_traces_open", "Creations in progress", len(picture.open))
        waiting = GaugeMetricFamily(
            "tracer_traces_stalled",
            "Creations that stall, by the step that did not come and the role that owes it",
            labels=["step", "owed_by"],
        )
        counts: dict[tuple[str, str], int] = {}
        for trace in stalled:
            verdict = trace.verdict
            step = verdict.stopped_at or (verdict.stopped_between or ("", "?"))[1]
            # The host after the role comes from the traffic, and is left out.
            key = step, trace.owes.partition(" on ")[0]
            counts[key] = counts.get(key, 0) + 1
        for labels, count in sorted(counts.items()):
            waiting.add_metric(labels, count)
        yield waiting
        yield from self._broker(picture)
        posted = CounterMetricFamily("tracer_notifications", "Notifications, by result", labels=["result"])
        for result, count in self._metrics.posted().items():
            posted.add_metric([result], count)
        yield posted

    def _sources(self, picture: Picture) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        packets = CounterMetricFamily("tracer_packets", "Packets read", labels=_SOURCE)
        drops = CounterMetricFamily("tracer_packets_dropped", "Packets dropped by the kernel", labels=_SOURCE)
        gaps = CounterMetricFamily("tracer_gaps", "Holes in TCP streams", labels=_SOURCE)
        messages = CounterMetricFamily("tracer_messages", "Messages of a broker's firehose", labels=_SOURCE)
        up = GaugeMetricFamily("tracer_source_up", "1 until a source has ended", labels=_SOURCE)
        for plane in picture.planes:
            labels = [plane.plane, plane.name]
            packets.add_metric(labels, plane.packets)
            drops.add_metric(labels, plane.dropped)
            gaps.add_metric(labels, plane.gaps)
            if plane.messages:
                messages.add_metric(labels, plane.messages)
            up.add_metric(labels, plane.state != "ended")
        yield from (packets, drops, gaps, messages, up)

    def _broker(self, picture: Picture) -> Iterator[GaugeMetricFamily]:
        queues = picture.queues
        waiting, alone = sum(q.waiting for q in queues), sum(q.consumers == 0 for q in queues)
        oldest_ns = min((q.oldest_ns for q in queues), default=picture.now_ns)
        for name, words, value in (
            ("tracer_queues_unwell", "Queues in which messages wait for longer than 2 s", len(queues)),
            ("tracer_queues_without_consumer", "Of these, known to have no consumer", alone),
            ("tracer_queue_messages_waiting", "Messages undelivered in these", waiting),
            ("tracer_queue_oldest_seconds", "Age of the oldest", max(0, picture.now_ns - oldest_ns) / 1e9),
        ):
            yield GaugeMetricFamily(name, words, value)
