"""Opens a live run, with all of its sources, for the arguments of a command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tracer.capture.arguments import resolve_live
from tracer.capture.interface import default_filter
from tracer.capture.live import LiveSource
from tracer.capture.sources import broker_sources, interface_sources, replay_sources
from tracer.engine import (
    Settings,
    Workflows,
    given_topology,
    known_planes,
    load_workflows,
    one_workflow,
    require_key_log,
    require_known_allowances,
    resolve_captures,
)
from tracer.errors import UsageError
from tracer.live.follow import Patience
from tracer.live.watch import Watch
from tracer.model.events import Event
from tracer.openstack.services import NOVA_API, PROTOCOL_WITHIN_TLS
from tracer.protocols import PORTS
from tracer.topology import GivenTopology

__all__ = ["open_replay", "open_watch", "proposed_filter"]

_Tell = Callable[[Event], None]


def open_watch(
    interfaces: Sequence[str],
    settings: Settings,
    tell: _Tell,
    patience: Patience | None = None,
    bpf: str | None = None,
    brokers: Sequence[str] = (),
) -> Watch:
    """Return a live run over *interfaces* (PLANE=INTERFACE) and *brokers* (URLs); all sources are open.

    *bpf* replaces the default filter of interfaces, which is made from the protocols' ports. *tell* receives
    each event. Raises UsageError, GrammarError or SourceError.
    """
    given = given_topology(settings)
    require_key_log(settings.keylog, may_come=True)
    workflows = _workflows(settings)
    arguments = resolve_live(interfaces, known_planes(given))
    if not arguments and not brokers:
        raise UsageError(
            "no source given: use -i PLANE=INTERFACE, -i PLANE=FIFO, -i PLANE=- (standard input)"
            " or --amqp URL"
        )
    encrypted = PROTOCOL_WITHIN_TLS if settings.keylog else {}
    wanted = proposed_filter(given, encrypted) if bpf is None else bpf
    sources = [*interface_sources(arguments, wanted), *broker_sources(brokers, len(arguments))]
    return _opened(sources, given, settings, workflows, tell, patience)


def open_replay(
    captures: Sequence[str],
    settings: Settings,
    speed: float,
    tell: _Tell,
    patience: Patience | None = None,
) -> Watch:
    """Return a run that replays *captures* at *speed* times their pace; 0: without waiting.

    Raises UsageError, GrammarError or SourceError.
    """
    given = given_topology(settings)
    workflows = _workflows(settings)
    sources = replay_sources(resolve_captures(captures, given).captures, speed)
    return _opened(sources, given, settings, workflows, tell, patience)


def _opened(
    sources: Sequence[LiveSource],
    given: GivenTopology,
    settings: Settings,
    workflows: Workflows,
    tell: _Tell,
    patience: Patience | None,
) -> Watch:
    for source in sources:
        source.open()
    # After the sources: a source that cannot be opened is reported before a wrong --allow.
    require_known_allowances(workflows, settings, given)
    return Watch(sources, given, settings, workflows, tell, patience)


def _workflows(settings: Settings) -> Workflows:
    """Return the grammars of a live run; raises UsageError for all workflows at once."""
    one_workflow(settings.grammar, "a live run follows one workflow")
    return load_workflows(settings.grammar)


def proposed_filter(given: GivenTopology, encrypted: Mapping[int, str] | None = None) -> str:
    """Return the default capture filter for interfaces: the ports of the protocols, and those *encrypted*.

    When *given* has addresses of nova-api, SQL is captured for these addresses only.
    """
    apis = {address for (address, _), role in given.roles.items() if role == NOVA_API}
    return default_filter({**PORTS, **(encrypted or {}), **given.ports}, tuple(sorted(apis)))
