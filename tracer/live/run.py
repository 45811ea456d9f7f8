"""From the words of a command line to a live run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tracer.capture import resolve
from tracer.capture.arguments import LiveArgument, example_path, resolve_live
from tracer.capture.interface import Interface, default_filter
from tracer.capture.live import LiveSource
from tracer.capture.streams import CaptureStream, Pace, Replay
from tracer.engine import Settings, given_topology, require_known
from tracer.errors import UsageError
from tracer.grammar import load
from tracer.live.follow import Patience
from tracer.live.watch import Watch
from tracer.model import Capture
from tracer.model.events import Event
from tracer.protocols import PORTS
from tracer.topology import GivenTopology
from tracer.topology.planes import KNOWN_PLANES

__all__ = ["open_replay", "open_watch", "proposed_filter"]


def open_watch(
    interfaces: Sequence[str],
    settings: Settings,
    tell: Callable[[Event], None],
    patience: Patience | None = None,
    bpf: str | None = None,
    brokers: Sequence[str] = (),
) -> Watch:
    """Return a live run over the sources that *interfaces* mean and the *brokers* (URLs), all of them open.

    *bpf* replaces the filter for interfaces, which comes from the protocols' ports. Raises UsageError,
    GrammarError or SourceError.
    """
    given = given_topology(settings)
    grammar = load(settings.grammar)
    arguments = resolve_live(interfaces, {*KNOWN_PLANES, *given.plane_names})
    if not arguments and not brokers:
        raise UsageError(
            "no source given: use -i PLANE=INTERFACE, -i PLANE=FIFO, -i PLANE=- (standard input)"
            " or --amqp URL"
        )
    wanted = proposed_filter(given) if bpf is None else bpf
    sources = [_source(argument, number, wanted) for number, argument in enumerate(arguments)]
    sources += open_brokers(brokers, len(sources))
    for source in sources:
        source.open()
    run = Watch(sources, given, settings, grammar, tell, patience)
    require_known(grammar, run.allowed)
    return run


def open_brokers(urls: Sequence[str], number: int = 0) -> list[LiveSource]:
    """Return the firehoses of the brokers at *urls*, not open yet; the first one's capture is *number*.

    Raises UsageError, whose words hold no password.
    """
    if not urls:
        return []
    # Only who listens to a broker pays for the client's import.
    from tracer.capture.rabbitmq import RabbitMQ, broker_of

    found = [broker_of(url) for url in urls]
    names = [broker.name for broker in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(f"--amqp: {twice} is given twice")
    return [
        RabbitMQ(broker, Capture(number + at, broker.name, protocol="RPC")) for at, broker in enumerate(found)
    ]


def open_replay(
    captures: Sequence[str],
    settings: Settings,
    speed: float,
    tell: Callable[[Event], None],
    patience: Patience | None = None,
) -> Watch:
    """Return a run that replays *captures* (CAPTURE arguments) at *speed* times their pace; 0 is all at once.

    Raises UsageError, GrammarError or SourceError.
    """
    given = given_topology(settings)
    grammar = load(settings.grammar)
    resolved = resolve([example_path(each) for each in captures], {*KNOWN_PLANES, *given.plane_names})
    pace = Pace(speed)
    sources = [
        Replay(argument.path, Capture(number, argument.path, argument.plane), pace)
        for number, argument in enumerate(resolved.captures)
    ]
    for source in sources:
        source.open()
    run = Watch(sources, given, settings, grammar, tell, patience)
    require_known(grammar, run.allowed)
    return run


def proposed_filter(given: GivenTopology) -> str:
    """Return the filter for interfaces: the protocols' ports, of SQL only nova-api's where that is given."""
    apis = {address for (address, _), role in given.roles.items() if role == "nova-api"}
    return default_filter({**PORTS, **given.ports}, tuple(sorted(apis)))


def _source(argument: LiveArgument, number: int, bpf: str) -> LiveSource:
    capture = Capture(number, argument.target, argument.plane)
    if argument.is_stream:
        return CaptureStream(argument.target, capture)
    return Interface(argument.target, capture, bpf or None)
