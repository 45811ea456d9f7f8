"""What captures hold, and which documented steps could be seen in them: `tracer doctor CAPTURE`.

The stages are the same as those of `check`; only the question is another one. What flows on the interfaces of
this host is asked in the same way, of packets that are kept in memory for a moment.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain

from tracer.capture.arguments import ANY
from tracer.capture.interface import Interface
from tracer.engine.captures import InHand, OpenCaptures, Progress, open_captures
from tracer.engine.keys import require_key_log
from tracer.engine.results import report
from tracer.engine.run import given_topology, key_log_hint, read
from tracer.engine.stages import Listeners, Stages
from tracer.engine.workflows import load_workflows
from tracer.errors import SourceError
from tracer.grammar import Leg, Step
from tracer.model import Call, Capture, Connection, PacketFields, Undecoded
from tracer.model.diagnosis import Diagnosis, RolePlace, StepSight, Traffic
from tracer.openstack.services import BROKER, FLOW
from tracer.settings import Settings
from tracer.topology import GivenTopology

__all__ = ["diagnose", "diagnose_interfaces"]

MOST_ADDRESSES = 8
"""Addresses of a role that are listed."""
MOST_CONNECTIONS = 50_000
"""Connections whose traffic is listed; those of a scan beyond it are counted by their captures alone."""
MOST_BYTES = 64 << 20
"""Bytes of packets of this host that are kept while it listens."""
MOST_INTERFACES = 4
"""More are listened to as one."""


def diagnose(arguments: Sequence[str], settings: Settings, progress: Progress | None = None) -> Diagnosis:
    """Read the captures that *arguments* name and return what they hold.

    Raises SourceError, GrammarError or UsageError before any packet is read, as `check` does.
    """
    require_key_log(settings.keylog)
    given = given_topology(settings)
    opened = open_captures(arguments, given, progress)
    found = _diagnosed(opened, given, settings, progress)
    hint = key_log_hint(opened, settings)
    return replace(found, remarks=(*found.remarks, hint)) if hint else found


def diagnose_interfaces(names: Sequence[str], listen_s: float, settings: Settings) -> Diagnosis:
    """Listen on the interfaces *names* for *listen_s* seconds and return what flows there.

    Raises SourceError without the privilege, or for an interface that is not there.
    """
    # Each has a ring of its own in the kernel's memory, and a host has an interface for each VM.
    names = names if len(names) <= MOST_INTERFACES else [ANY]
    kept: list[list[list[PacketFields]]] = [[] for _ in names]
    sources = [Interface(name, Capture(number, name), "tcp") for number, name in enumerate(names)]
    for source in sources:
        source.open()
    threads = [
        threading.Thread(target=_listen, args=(source, into, MOST_BYTES // len(names)), daemon=True)
        for source, into in zip(sources, kept, strict=True)
    ]
    for thread in threads:
        thread.start()
    with suppress(KeyboardInterrupt):  # what came until then is shown
        threading.Event().wait(listen_s)
    for source in sources:
        source.stop()
    for thread in threads:
        thread.join()
    opened = OpenCaptures([source.capture for source in sources], [InHand(batches) for batches in kept])
    return _diagnosed(opened, given_topology(settings), settings)


def _listen(source: Interface, into: list[list[PacketFields]], most_bytes: int) -> None:
    """Keep what *source* hands over, as far as *most_bytes*; the rest is counted by its capture."""
    size_bytes = 0

    def keep(packets: list[PacketFields], _: int) -> None:
        nonlocal size_bytes
        size_bytes += sum(len(packet[1]) for packet in packets)
        if size_bytes < most_bytes:
            into.append(packets)

    try:
        source.read(keep)
    except SourceError:  # the interface went away: what came before is shown
        return


def _diagnosed(
    opened: OpenCaptures, given: GivenTopology, settings: Settings, progress: Progress | None = None
) -> Diagnosis:
    seen = _Seen()
    listeners = Listeners({Undecoded: seen.undecoded}, calls=seen.calls)
    stages = Stages(opened.captures, given, settings, load_workflows(settings.grammar), listeners=listeners)
    partial = read(stages, opened, progress)
    found = report(stages, partial=partial)
    grammar = stages.grammar
    places = [(role, sorted(stages.topology.roles.addresses(role))) for role in (*FLOW, BROKER)]
    return Diagnosis(
        opened.captures,
        found.grammar,
        found.grammar_reason,
        len(found.verdicts),
        tuple(sorted(seen.traffic(stages))),
        tuple(RolePlace(r, tuple(a[:MOST_ADDRESSES]), len(a[MOST_ADDRESSES:])) for r, a in places if a),
        tuple(StepSight(step.name, step.title, _hidden(stages, step)) for step in grammar.steps),
        found.remarks,
        found.advice,
        partial,
    )


class _Seen:
    """Counts calls and connections that cannot be decoded, each under its connection."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[Connection, Counter[str]]] = {}
        self._dark: dict[int, tuple[Connection, str]] = {}
        self._newest = 0

    def calls(self, changed: Iterable[Call]) -> None:
        """Count the calls that are new."""
        for call in changed:
            if call.serial <= self._newest:
                continue
            self._newest = call.serial
            number = call.connection.number
            if number not in self._calls:
                if len(self._calls) >= MOST_CONNECTIONS:
                    continue
                self._calls[number] = (call.connection, Counter())
            self._calls[number][1][call.protocol] += 1

    def undecoded(self, message: Undecoded) -> None:
        """Record a connection that cannot be decoded."""
        if len(self._dark) < MOST_CONNECTIONS:
            self._dark.setdefault(message.connection.number, (message.connection, message.reason))

    def traffic(self, stages: Stages) -> Iterator[Traffic]:
        """Yield what was counted, by capture, plane, protocol or reason, and port."""
        connections: Counter[tuple[str, str, str, int]] = Counter()
        calls: Counter[tuple[str, str, str, int]] = Counter()
        read = ((c, protocol, n) for c, counts in self._calls.values() for protocol, n in counts.items())
        for connection, what, count in chain(read, ((c, reason, 0) for c, reason in self._dark.values())):
            capture = stages.captures[connection.captures[0]].path
            key = (capture, stages.topology.plane_of(connection), what, connection.server.port)
            connections[key] += 1
            calls[key] += count
        for key, number in connections.items():
            yield Traffic(*key, number, calls[key])


def _hidden(stages: Stages, step: Step) -> str:
    """Return why no call of *step* could be seen in these captures; '' if one could.

    Also where a service would say that the step is done: nova, of a hypervisor that no packet shows.
    """
    grammar = stages.grammar
    told = (state.terminal for state in grammar.states if state.step == step.name and state.is_done)
    legs = dict.fromkeys(leg for name in (*step.terminals, *told) for leg in grammar.terminal_legs(name))
    reasons = [_unseen(stages, leg) for leg in legs]
    return "" if "" in reasons else next(iter(reasons), "")


def _unseen(stages: Stages, leg: Leg) -> str:
    """Return why a call on *leg* could not be seen; '' if it could."""
    roles = stages.topology.roles
    callees = roles.addresses(leg.callee) | roles.fronts_of(leg.callee)
    ends = (roles.addresses(leg.caller), callees, (leg.caller, leg.callee))
    return stages.coverage.unseen(leg.plane, leg.protocol, *ends) or ""
