"""Joins the stages, from segments to traces. No other module imports all of them.

segments -> reassembly -> protocols -> calls -> topology, coverage, correlation -> traces -> Checker

`check` and `calls` read files through them, `tracer.live` reads live traffic. `Listeners` are given messages
and calls as these pass.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from tracer.calls import Calls, wants_body, wants_statement
from tracer.conformance import Checker, Coverage
from tracer.correlation import Correlator, Pending
from tracer.engine.darkness import Darkness
from tracer.engine.internal_errors import InternalErrors
from tracer.engine.keys import KeySource
from tracer.engine.workflows import Workflows
from tracer.grammar import Grammar
from tracer.model import (
    AmqpMethod,
    Call,
    Capture,
    Closed,
    Data,
    Gap,
    Heard,
    Message,
    SegmentFields,
    SqlLogin,
    TlsHello,
    Trace,
    Undecoded,
    Verdict,
)
from tracer.openstack.services import PORTAL
from tracer.protocols import PORTS, SERVER_PORTS, Decoders, Options
from tracer.reassembly import Event, Reassembler
from tracer.settings import Settings
from tracer.topology import GivenTopology, Topology
from tracer.topology.evidence import Evidence

__all__ = ["Listeners", "Stages", "rare_collections", "trace_id"]

TICK = 4096
"""Number of stream events between two ticks."""

MAX_STRANGERS = 5_000
"""Failed connections that become calls though nothing else is seen of the client; more are a flood."""
MAX_FAILED = 5_000
"""Failed connections of one client that become calls; more are a scan."""

_See = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Listeners:
    """Functions that receive what passes through the stages."""

    messages: Mapping[type[Message], _See] = field(default_factory=dict)
    """Type of message -> function that receives each one, before calls are made from it."""
    closed: Callable[[Closed], None] | None = None
    """Receives each connection that ends, after its calls."""
    calls: Callable[[Iterable[Call]], None] | None = None
    """Receives the calls that have begun or changed, before topology and correlation do."""


class Traces(NamedTuple):
    """The traces of a run."""

    named: list[tuple[str, Trace]]
    """Each with its id, unique in the run."""
    nameless: int
    """How many are left out, since the snap length cut their ids."""


class Stages:
    """The joined stages from segments to traces, for the *captures* of one run.

    *workflows*, or one grammar, say what begins a trace and what it is checked against. With
    *every_statement* all SQL statements become calls, and all calls are kept in `every_call`.
    *listeners* are set once, so that a run without them has no cost for them.
    """

    def __init__(
        self,
        captures: list[Capture],
        given: GivenTopology,
        settings: Settings,
        workflows: Workflows | Grammar,
        *,
        every_statement: bool = False,
        listeners: Listeners | None = None,
    ) -> None:
        self.captures = captures
        self.given = given
        self.settings = settings
        self.workflows = Workflows([workflows]) if isinstance(workflows, Grammar) else workflows
        ports = {**PORTS, **given.ports}
        self.topology = Topology(captures, given)
        roles, evidence = self.topology.roles, self.topology.evidence
        self.calls = Calls(ports)
        self.coverage = Coverage(captures, roles.addresses, self.topology.plane_of, roles.serves)
        self.correlator = Correlator(
            roles.is_front, self.workflows.begun_at, roles.inner_addresses, evidence.may_hide_requests
        )
        self._operations = (
            Correlator(roles.is_front, self.workflows.operation_begun_at, roles.inner_addresses)
            if self.workflows.operations
            else None
        )
        """The calls of operations on servers that are there, where these are checked beside creations."""
        self.darkness = Darkness()
        self.newest = 0
        """Highest serial of a call so far."""
        self.counts: Counter[str] = Counter()
        """Calls by protocol."""
        self.every_call: list[Call] | None = [] if every_statement else None
        self.errors = InternalErrors()
        self._failed: Counter[str] = Counter()
        """Failed connections that became calls, by the client's address; '' of all that are strangers."""
        self._failed_more = 0
        self._reassembler = Reassembler(captures, SERVER_PORTS | ports.keys())
        statements = None if every_statement else wants_statement
        self.keys = KeySource(settings.keylog, captures)
        self.options = Options(wants_body, statements, self.calls.numbering.skipped, self.keys.log)
        """What the stages behind them need of decoders."""
        self._decoders = Decoders(ports, self.options, self._reassembler.turn)
        listeners = listeners or Listeners()
        self._hears_closed = listeners.closed
        self._hears_calls = listeners.calls
        # No bound methods of this object: a reference cycle would be freed late, by the garbage collector.
        own: dict[type, _See] = {
            AmqpMethod: evidence.method,
            SqlLogin: evidence.login,
            TlsHello: evidence.hello,
            Undecoded: partial(_undecoded, evidence, self.coverage, self.darkness, captures),
        }
        heard = {kind: _both(see, own.get(kind)) for kind, see in listeners.messages.items()}
        self._sees = {**own, **heard}
        """Type of message -> function that receives it, in addition to the calls stage."""

    # --- reading ---

    def read(
        self, batches: Iterable[Iterable[SegmentFields]], tick: Callable[[int], None] | None = None
    ) -> None:
        """Process segments, in time order. *tick* is called with the time after every `TICK` events."""
        left = iter(batches)
        while True:
            try:
                self._read(left, tick)
                return
            except Exception as error:
                # The reassembler could not take a segment: the rest of that batch is lost with it.
                self.errors.add(error)

    def _read(self, batches: Iterable[Iterable[SegmentFields]], tick: Callable[[int], None] | None) -> None:
        decode, message_in = self._decoders.receive, self._message
        countdown = TICK
        for event in self._reassembler.read(batches):
            try:
                for message in decode(event):
                    message_in(message)
            except Exception as error:
                self._give_up(event, error)
            if type(event) is not Data:
                self._hole_or_end(event)
            countdown -= 1
            if not countdown:
                countdown = TICK
                if tick is not None:
                    tick(event.time_ns)

    def _give_up(self, event: Event, error: Exception) -> None:
        """Read nothing more of a connection that a decoder could not take: its state is doubtful now."""
        self.errors.add(error)
        self._decoders.give_up(event.connection)
        self.coverage.undecoded(event.connection, "internal error")

    def hear(self, heard: Iterable[Heard]) -> None:
        """Process what was decoded elsewhere, by a broker or by tshark: messages, holes, and ends."""
        for _, _, message in heard:
            if isinstance(message, Closed | Gap):
                self._hole_or_end(message)
            else:
                self._message(message)

    def expire(self, now_ns: int) -> None:
        """Process time-outs up to *now_ns* while no packet arrives: unanswered SYNs, gaps."""
        self._events(self._reassembler.expire(now_ns))

    def advance(self, now_ns: int) -> None:
        """Number the calls that began long enough before *now_ns*."""
        self.calls.numbering.advance(now_ns)

    def lose_sight(self, capture: int) -> None:
        """Record that the broker of *capture* was out of sight: what became of its messages is not known."""
        self.receive([*self.calls.unseen(capture)])

    def forget(self, before_ns: int, kept: Collection[Trace]) -> None:
        """Drop what is older than *before_ns* and belongs to none of the traces *kept*."""
        self.correlator.forget(before_ns, kept)
        self._failed.clear()
        self.calls.forget(before_ns, {call.serial for trace in kept for call in trace.calls})
        self.topology.evidence.forget(before_ns)
        oldest_ns = min((trace.calls[0].started_ns for trace in kept if trace.calls), default=before_ns)
        self.coverage.forget(min(before_ns, oldest_ns))

    def finish(self) -> int:
        """Process the end of all captures; return its time, in capture time."""
        last_ns = max((c.corrected_last_ns or 0 for c in self.captures), default=0)
        self._events(self._reassembler.flush(last_ns))
        self.receive(self.calls.flush())
        self.advance(last_ns)
        for capture in self.captures:
            capture.skipped_statements = self.calls.numbering.skipped_in[capture.number]
        return last_ns

    def _events(self, events: Iterable[Event]) -> None:
        for event in events:
            try:
                for message in self._decoders.receive(event):
                    self._message(message)
            except Exception as error:
                self._give_up(event, error)
            self._hole_or_end(event)

    def _hole_or_end(self, event: Event) -> None:
        try:
            if type(event) is Gap:
                self.coverage.gap(event)
            elif type(event) is Closed:
                self.coverage.closed(event)
                if event.how in ("refused", "unanswered") and self._is_flood(event):
                    return
                if event.connection.protocol or event.how in ("refused", "unanswered"):
                    self.receive(self.calls.receive(event))
                if self._hears_closed is not None:
                    self._hears_closed(event)
        except Exception as error:
            self.errors.add(error)

    def _is_flood(self, closed: Closed) -> bool:
        """Tell, and count, that a failed connection is one of too many: no call is made of it."""
        client = closed.connection.client.address
        speaks = self.coverage.speaks(client)
        key, most = (client, MAX_FAILED) if speaks else ("", MAX_STRANGERS)
        self._failed[key] += 1
        if self._failed[key] <= most:
            return False
        self._failed_more += 1
        return True

    def _message(self, message: Message) -> None:
        kind = type(message)
        try:
            if kind in self._sees:
                self._sees[kind](message)
            self.receive(self.calls.receive(message))
        except Exception as error:
            self.errors.add(error)

    def receive(self, changed: Iterable[Call]) -> None:
        """Pass calls that have begun or changed to topology, correlation and coverage."""
        if self._hears_calls is not None:
            self._hears_calls(changed)
        for call in changed:
            new = call.serial > self.newest
            self.topology.observe(call, new)
            self.correlator.receive(call)
            if self._operations is not None:
                self._operations.receive(call)
            if new:
                self.newest = call.serial
                frames = call.frames
                capture = self.captures[frames[0][0] if frames else call.connection.captures[0]]
                capture.calls += 1
                self.counts[call.protocol] += 1
                if self.every_call is not None:
                    self.every_call.append(call)
                self.coverage.observe(call)
            elif call.protocol == "RPC":
                self.coverage.observe(call)

    # --- answering ---

    @property
    def grammar(self) -> Grammar:
        """The grammar of a creation, as far as it is chosen now; the only one where one was asked for."""
        return self.workflows.chosen

    def choose(self, traces: Iterable[Trace]) -> bool:
        """Choose the grammar by what is seen so far; return whether it is another one than before.

        *traces* are all that were assembled: an order that one of them holds shows the portal.
        """
        if self.workflows.is_settled:
            return False
        sign = self.topology.evidence.sign_of_vendor()
        if not sign and self.correlator.holds_order(traces):
            sign = f"an {PORTAL} took an order"
        return self.workflows.choose(sign)

    def grammar_reason(self) -> str:
        """Return why the grammar was chosen; empty where it was asked for."""
        planes = {plane for capture in self.captures for plane in capture.planes}
        return self.workflows.reason(planes, self.darkness.count)

    def traces(self) -> Traces:
        """Return all traces with their ids, unique in the run."""
        found: dict[str, Trace] = {}
        nameless = 0
        assembled = self.assembled()
        self.choose(assembled)
        if self._operations is not None:
            assembled += self.assembled_by(self._operations)
            assembled.sort(key=lambda trace: trace.calls[0].started_ns)
            for number, trace in enumerate(assembled, 1):
                trace.number = number
        for trace in assembled:
            if not self.is_of_the_workflow(trace):
                continue
            if self.is_nameless(trace):
                nameless += 1
                continue
            key = trace_id(trace)
            found[key if key not in found else f"{key}#{trace.number}"] = trace
        return Traces(list(found.items()), nameless)

    def assembled(self, pending: Pending | None = None) -> list[Trace]:
        """Return all that the correlator makes of the calls; *pending* decides on what still waits."""
        return self.assembled_by(self.correlator, pending)

    def assembled_by(self, correlator: Correlator, pending: Pending | None = None) -> list[Trace]:
        """Return all that *correlator* makes of the calls; none, and an error is counted, where it fails."""
        try:
            return correlator.traces(pending) if pending is not None else correlator.traces()
        except Exception as error:
            self.errors.add(error)
            return []

    def checked(self, checker: Checker, trace: Trace) -> Verdict | None:
        """Return the verdict on *trace*; None where the checker could not take it, which is counted."""
        try:
            return checker.check(trace)
        except Exception as error:
            self.errors.add(error)
            return None

    def is_nameless(self, trace: Trace) -> bool:
        """Return whether nothing tells which creation *trace* is: its ids lie beyond the snap length.

        What such a trace lacks may be cut as well, and its parts may be those of one that has a name.
        """
        has_name = trace.request_id or trace.server_id or trace.name
        return not has_name and self.coverage.cut_short()

    def is_of_the_workflow(self, trace: Trace) -> bool:
        """Return whether *trace* began with a call that begins the workflow, caller and callee included."""
        return self.grammar_of(trace) is not None

    def grammar_of(self, trace: Trace) -> Grammar | None:
        """Return the grammar that *trace* is checked against; None where its calls begin no workflow."""
        # The correlator knew the operation only; roles may be known late.
        return self.workflows.of(trace, self.topology.record)

    def is_selected(self, time_ns: int) -> bool:
        """Return whether *time_ns* is in the selected time."""
        since_ns, until_ns = self.settings.since_ns, self.settings.until_ns
        return (since_ns is None or time_ns >= since_ns) and (until_ns is None or time_ns < until_ns)

    def checker(self, grammar: Grammar | None = None) -> Checker:
        """Return the checker for the traces of this run, against *grammar* or the one that is chosen."""
        roles = self.topology.roles
        return Checker(
            grammar or self.grammar,
            lambda call, ambiguous: self.topology.record(call, None, ambiguous),
            self.coverage,
            roles.addresses,
            roles.fronts_of,
            roles.host_name,
            int(self.settings.stall_s * 1e9),
            (*self.given.allow, *self.settings.allow),
            self.calls.broker,
            self.topology.evidence.works_with,
        )

    def internal_error_words(self) -> str:
        """Return what is said of the mistakes of ours that were met; empty without any."""
        found = self.errors.found()
        if not found:
            return ""
        count, where = sum(often for _, often in found), "; ".join(what for what, _ in found[:3])
        return (
            f"internal error in {count:,} of {self.newest:,} calls ({where}): what they concern is left out,"
            " the rest is checked; this is a bug, please report it"
        )

    def forgotten(self) -> tuple[tuple[str, int], ...]:
        """Return (kind, count) of what was dropped for lack of room."""
        attempts = self._failed_more + self._reassembler.unanswered
        found = {"connections": self._reassembler.evicted, "connection attempts": attempts}
        for correlator in filter(None, (self.correlator, self._operations)):
            for what, count in correlator.forgotten().items():
                found[what] = found.get(what, 0) + count
        return tuple((what, count) for what, count in found.items() if count)


def _undecoded(
    evidence: Evidence,
    coverage: Coverage,
    darkness: Darkness,
    captures: Sequence[Capture],
    message: Undecoded,
) -> None:
    """Record a connection that cannot be decoded."""
    evidence.undecoded(message)
    coverage.undecoded(message.connection, message.reason)
    darkness.receive(message)
    capture = captures[message.connection.captures[0]]
    capture.undecoded_streams += 1
    capture.undecoded[f"{message.reason} on port {message.connection.server.port}"] += 1


def _both(first: _See, second: _See | None) -> _See:
    """Return a function that calls *first*, and then *second* if there is one."""
    if second is None:
        return first

    def both(seen: Any) -> None:
        first(seen)
        second(seen)

    return both


def trace_id(trace: Trace) -> str:
    """Return the id of *trace* in reports: of several VMs of a request the server's id is added."""
    if trace.shared and trace.request_id and trace.server_id:
        return f"{trace.request_id}/{trace.server_id}"
    return trace.request_id or trace.server_id or f"trace-{trace.number}"


@contextmanager
def rare_collections() -> Iterator[None]:
    """Run the garbage collector a hundred times less often, and not on what was there before.

    Nearly all objects of a run are freed by reference counts, while each collection walks over all calls that
    are kept: a fifth of the time of a large capture. Code and tables stay for good.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 100)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
