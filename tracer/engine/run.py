"""Joins the stages; the only module that knows them all.

sources -> layers -> points -> reassembly -> protocols -> calls -> topology, coverage, correlation
                                                                     -> conformance -> Report
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, get_args

from tracer.calls import Calls, wants_body, wants_statement
from tracer.capture import CaptureArgument, open_capture, resolve
from tracer.capture.arguments import example_path
from tracer.capture.layers import Layers
from tracer.capture.points import Clocks, in_time_order, join_sightings, merge
from tracer.conformance import Checker, Coverage
from tracer.correlation import Correlator
from tracer.engine.baseline import Learner
from tracer.engine.baseline import load as load_baseline
from tracer.errors import UsageError
from tracer.grammar import Grammar, load
from tracer.model import (
    AmqpMethod,
    Call,
    CallRecord,
    Capture,
    Closed,
    Data,
    DeviationKind,
    Gap,
    Message,
    PacketFields,
    Report,
    SegmentFields,
    SqlLogin,
    Trace,
    Undecoded,
    Verdict,
)
from tracer.protocols import PORTS, Decoders, Options
from tracer.reassembly import Event, Reassembler
from tracer.settings import Settings
from tracer.topology import GivenTopology, Topology, load_topology
from tracer.topology.planes import KNOWN_PLANES

__all__ = [
    "Progress",
    "Settings",
    "Stages",
    "calls",
    "check",
    "given_topology",
    "learn",
    "rare_collections",
    "require_known",
    "segments",
    "trace_id",
]

TICK = 4096
"""Pieces of data between two reports of progress."""


class Progress(Protocol):
    """Hears how far a run has come."""

    def opened(self, path: str, size_bytes: int | None) -> None: ...

    def advanced(self, path: str, bytes_read: int, packets: int, traces: int) -> None: ...

    def ignored(self, path: str, why: str) -> None: ...


def check(arguments: Sequence[str], settings: Settings, progress: Progress | None = None) -> Report:
    """Read the captures that *arguments* mean and return the verdict on each creation in them.

    Raises SourceError, GrammarError or UsageError before any packet is read. An interrupt ends the
    reading: the report then covers what was read and is `partial`.
    """
    grammar = load(settings.grammar)
    usual = load_baseline(settings.baseline, grammar.name) if settings.baseline else None
    _require_steps(grammar, "--where step", settings.steps)
    run = _Run(arguments, settings, grammar, progress, every_statement=False)
    require_known(grammar, run.allowed)
    partial = run.read()
    report = run.report(partial)
    if usual is None:
        return report
    verdicts = [usual.compare(verdict) for verdict in report.verdicts]
    return replace(report, verdicts=verdicts, baseline=(usual.path, usual.traces))


def learn(report: Report) -> tuple[bytes, int]:
    """Return a baseline (schema tracer.baseline/1) of the good creations in *report*, and how many they are.

    Raises UsageError when there is none.
    """
    learner = Learner(report.grammar)
    for verdict in report.verdicts:
        learner.add(verdict)
    if not learner.learnt:
        left_out = [f"{count} {why}" for why, count in learner.left_out.items() if count]
        told = f" ({', '.join(left_out)})" if left_out else ""
        raise UsageError(f"the captures hold no creation to learn from{told}; a baseline is of good ones")
    return learner.render(), learner.learnt


_ALLOWED = (*get_args(DeviationKind), "unobserved")


def require_known(grammar: Grammar, allowed: Sequence[tuple[str, str]]) -> None:
    """Raise UsageError for what --allow or the topology file accepts and cannot come about."""
    for source, text in allowed:
        kind, colon, step = text.partition(":")
        if kind not in _ALLOWED:
            raise UsageError(f"{source} {text!r}: no kind {kind!r}; known: {', '.join(_ALLOWED)}")
        if colon:
            _require_steps(grammar, f"{source} {kind}", (step,))


def _require_steps(grammar: Grammar, source: str, steps: Sequence[str]) -> None:
    known = [step.name for step in grammar.steps]
    # A step without its letter stands for its parts in a selection: 8 is 8a, 8b and 8c.
    whole = {name.rstrip("abcdefghijklmnopqrstuvwxyz") for name in known} if "--where" in source else set()
    for step in steps:
        if step not in known and step not in whole:
            raise UsageError(f"{source}: {grammar.name} has no step {step!r}; known: {', '.join(known)}")


def calls(
    arguments: Sequence[str], settings: Settings, progress: Progress | None = None
) -> Iterator[CallRecord]:
    """Read the captures and yield every call in time order, with the ids of the traces it belongs to.

    Raises as `check` does.
    """
    run = _Run(arguments, settings, load(settings.grammar), progress, every_statement=True)
    partial = run.read()
    return _interrupted_behind(run.records()) if partial else run.records()


def _interrupted_behind(records: Iterator[CallRecord]) -> Iterator[CallRecord]:
    """Yield what was read before the interrupt, then raise it: the list is not whole."""
    yield from records
    raise KeyboardInterrupt


class Stages:
    """The stages from segments to verdicts, joined, for the *captures* of one run.

    `check` and `calls` read files through them, `tracer.live` what is happening now.
    """

    def __init__(
        self,
        captures: list[Capture],
        given: GivenTopology,
        settings: Settings,
        grammar: Grammar,
        *,
        every_statement: bool,
    ) -> None:
        self._settings = settings
        self._grammar = grammar
        self._given = given
        self.allowed = [
            *((f"{settings.topology}: allow", text) for text in given.allow),
            *(("--allow", text) for text in settings.allow),
        ]
        self.captures = captures
        ports = {**PORTS, **given.ports}
        self.topology = Topology(self.captures, given)
        self._reassembler = Reassembler(self.captures, ports)
        statements = None if every_statement else wants_statement
        self._calls = Calls(ports)
        options = Options(wants_body, statements, self._calls.numbering.skipped)
        self._decoders = Decoders(ports, options, self._reassembler.turn)
        roles = self.topology.roles
        self.coverage = Coverage(self.captures, roles.addresses, self.topology.plane_of, roles.serves)
        self.correlator = Correlator(roles.is_front, roles.addresses, roles.host_name, grammar.begun_at)
        self._newest = 0
        self._last_ns = 0
        self._counts: Counter[str] = Counter()
        self._every: list[Call] | None = [] if every_statement else None

    def _finish(self) -> None:
        """Take what the end of all captures tells."""
        self._last_ns = max((c.last_ns or 0 for c in self.captures), default=0)
        self._events(self._reassembler.flush(self._last_ns))
        self._new_or_changed(self._calls.flush())
        self._calls.numbering.advance(self._last_ns)
        for capture in self.captures:
            capture.skipped_statements = self._calls.numbering.skipped_in[capture.number]

    def _events(self, events: Iterable[Event]) -> None:
        for event in events:
            for message in self._decoders.receive(event):
                self._message(message)
            self._hole_or_end(event)

    def _hole_or_end(self, event: Event) -> None:
        if type(event) is Gap:
            self.coverage.gap(event)
        elif type(event) is Closed:
            self._new_or_changed(self._calls.receive(event))

    def _message(self, message: Message) -> None:
        kind = type(message)
        if kind is AmqpMethod:
            self.topology.roles.method(message)  # type: ignore[arg-type]
        elif kind is SqlLogin:
            self.topology.roles.login(message)  # type: ignore[arg-type]
        elif kind is Undecoded:
            self._undecoded(message)  # type: ignore[arg-type]
            return
        self._new_or_changed(self._calls.receive(message))

    def _undecoded(self, message: Undecoded) -> None:
        self.topology.roles.undecoded(message.connection)
        self.coverage.undecoded(message.connection, message.reason)
        capture = self.captures[message.connection.captures[0]]
        capture.undecoded_streams += 1
        capture.undecoded[f"{message.reason} on port {message.connection.server.port}"] += 1

    def _new_or_changed(self, changed: Iterable[Call]) -> None:
        for call in changed:
            new = call.serial > self._newest
            self.topology.observe(call, new)
            self.correlator.receive(call)
            if new:
                self._newest = call.serial
                frames = call.frames
                capture = self.captures[frames[0][0] if frames else call.connection.captures[0]]
                capture.calls += 1
                self._counts[call.protocol] += 1
                if self._every is not None:
                    self._every.append(call)
                self.coverage.observe(call)
            elif call.protocol == "RPC":
                self.coverage.observe(call)

    # --- answering ---

    def _traces(self) -> list[tuple[str, Trace]]:
        """Return all traces with their ids, unique in the run."""
        found: dict[str, Trace] = {}
        for trace in self.correlator.traces():
            if not self._is_of_the_workflow(trace):
                continue
            key = trace_id(trace)
            found[key if key not in found else f"{key}#{trace.number}"] = trace
        return list(found.items())

    def _is_of_the_workflow(self, trace: Trace) -> bool:
        """Tell whether *trace* began as the grammar says: who called whom is known only now."""
        if trace.creates:
            return True
        starts, record = self._grammar.starts, self.topology.record
        return any(
            self._grammar.begun_at(call.protocol, call.asked) and starts(record(call).matched)
            for call in trace.calls
        )

    def checker(self) -> Checker:
        """Return what checks a trace of this run."""
        roles = self.topology.roles
        settings = self._settings
        return Checker(
            self._grammar,
            lambda call, ambiguous: self.topology.record(call, None, ambiguous),
            self.coverage,
            roles.addresses,
            roles.fronts_of,
            roles.host_name,
            int(settings.stall_s * 1e9),
            (*self._given.allow, *settings.allow),
        )

    def report(self, partial: bool) -> Report:
        """Return the verdicts on all traces that the settings ask for."""
        checker = self.checker()
        traces = self._traces()
        verdicts = [_named(checker.check(trace), key) for key, trace in traces if self._is_selected(trace)]
        left_out = [trace.calls[0].started_ns for _, trace in traces if not self._is_selected(trace)]
        return self._reported(verdicts, partial, left_out)

    def _reported(self, verdicts: Sequence[Verdict], partial: bool, left_out: Sequence[int] = ()) -> Report:
        for capture in self.captures:
            capture.planes |= self._planes_of(capture)
        return Report(
            self._grammar.name,
            self.captures,
            verdicts,
            partial,
            () if verdicts else self._seen(len(left_out)),
            _advice(verdicts),
            remarks=(*self._given.remarks, *self._misnamed()),
            forgotten=self._forgotten(),
            left_out=tuple(sorted(left_out)),
        )

    def _misnamed(self) -> tuple[str, ...]:
        words = self.topology.misnamed(self.coverage.connections())
        return (words,) if words else ()

    def _forgotten(self) -> tuple[tuple[str, int], ...]:
        found = {"connections": self._reassembler.evicted, **self.correlator.forgotten()}
        return tuple((what, count) for what, count in found.items() if count)

    def _is_selected(self, trace: Trace) -> bool:
        begun_ns = trace.calls[0].started_ns
        since_ns, until_ns = self._settings.since_ns, self._settings.until_ns
        return (since_ns is None or begun_ns >= since_ns) and (until_ns is None or begun_ns < until_ns)

    def _planes_of(self, capture: Capture) -> set[str]:
        if capture.plane:
            return {capture.plane}
        return {
            self.topology.plane_of(connection)
            for connection in self.coverage.connections()
            if capture.number in connection.captures
        }

    def _seen(self, traces: int) -> tuple[tuple[str, int], ...]:
        names = {"REST": "REST calls", "RPC": "RPC messages", "SQL": "SQL statements"}
        skipped = sum(c.skipped_statements for c in self.captures)
        packets = sum(c.packets for c in self.captures if not c.protocol)
        told = sum(c.packets for c in self.captures if c.protocol)
        counts = [("packets", packets)] if packets or not told else []
        counts += [("messages of the firehose", told)] if told else []
        counts += [(names[p], n + (skipped if p == "SQL" else 0)) for p, n in sorted(self._counts.items())]
        if skipped and "SQL" not in self._counts:
            counts.append((names["SQL"], skipped))
        creates = self._grammar.begun_at("REST", "POST /v2.1/servers")
        counts.append(("creations of a server" if creates else f"runs of {self._grammar.name}", traces))
        return tuple(counts)


class _Run(Stages):
    """One pass over the captures."""

    def __init__(
        self,
        arguments: Sequence[str],
        settings: Settings,
        grammar: Grammar,
        progress: Progress | None,
        *,
        every_statement: bool,
    ) -> None:
        self._progress = progress
        given = given_topology(settings)
        planes = {*KNOWN_PLANES, *given.plane_names}
        resolved = resolve([example_path(a) for a in arguments], planes)
        if progress is not None:
            for path in resolved.ignored:
                progress.ignored(path, "not a capture by its name")
        captures = [Capture(i, c.path, c.plane) for i, c in enumerate(resolved.captures)]
        self._packets = [
            self._open(c, capture) for c, capture in zip(resolved.captures, captures, strict=True)
        ]
        super().__init__(captures, given, settings, grammar, every_statement=every_statement)

    # --- reading ---

    def _open(self, argument: CaptureArgument, capture: Capture) -> Iterator[list[PacketFields]]:
        packets = open_capture(argument.path, capture)
        if self._progress is not None:
            plain = argument.path != "-" and os.path.isfile(argument.path)
            self._progress.opened(argument.path, os.path.getsize(argument.path) if plain else None)
        return packets

    def read(self) -> bool:
        """Read all captures; return True when the user interrupted."""
        with rare_collections():
            return self._read()

    def _read(self) -> bool:
        decode = self._decoders.receive
        partial = False
        countdown = TICK
        try:
            for event in self._reassembler.read(segments(self._packets, self.captures)):
                for message in decode(event):
                    self._message(message)
                if type(event) is not Data:
                    self._hole_or_end(event)
                countdown -= 1
                if not countdown:
                    countdown = TICK
                    self._tick(event.time_ns)
        except KeyboardInterrupt:
            partial = True
        for capture in self.captures:
            for since_ns, until_ns, count in capture.drops:
                self.coverage.dropped(capture, since_ns, until_ns)
                capture.anomalies["packets dropped by the kernel"] += count
        self._finish()
        self._tick(self._last_ns)
        return partial

    def _tick(self, time_ns: int) -> None:
        self._calls.numbering.advance(time_ns)
        if self._progress is not None:
            for capture in self.captures:
                self._progress.advanced(
                    capture.path, capture.size_bytes, capture.packets, self.correlator.open_count()
                )

    def records(self) -> Iterator[CallRecord]:
        """Yield all calls, resolved, in order of their index."""
        ids: dict[int, list[str]] = {}
        for key, trace in self._traces():
            for call in trace.calls:
                ids.setdefault(call.serial, []).append(key)
        since_ns, until_ns = self._settings.since_ns, self._settings.until_ns
        for call in sorted(self._every or (), key=lambda call: call.index):
            if since_ns is not None and call.started_ns < since_ns:
                continue
            if until_ns is not None and call.started_ns >= until_ns:
                continue
            yield replace(self.topology.record(call), traces=tuple(ids.get(call.serial, ())))


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for garbage in cycles a hundred times less often.

    Nearly all that a capture gives rise to is freed by reference counts, while each look walks over
    all calls that are kept: a fifth of the time of a large capture.
    """
    before = gc.get_threshold()
    gc.set_threshold(100_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def trace_id(trace: Trace) -> str:
    """Return the id by which a report knows *trace*."""
    if trace.shared and trace.request_id and trace.server_id:
        return f"{trace.request_id}/{trace.server_id}"
    return trace.request_id or trace.server_id or f"trace-{trace.number}"


def given_topology(settings: Settings) -> GivenTopology:
    """Return what the topology file of *settings* says, nothing without one."""
    return load_topology(settings.topology) if settings.topology else GivenTopology()


def segments(
    packets: Sequence[Iterator[list[PacketFields]]], captures: Sequence[Capture]
) -> Iterator[list[SegmentFields]]:
    """Return the segments of all *captures* in time order, in batches, each packet once."""
    streams = [in_time_order(_decode(each, capture)) for each, capture in zip(packets, captures, strict=True)]
    if len(streams) == 1:
        return streams[0]
    named = [capture.plane for capture in captures]
    if None not in named and len(set(named)) == len(named):
        # A tap per plane: no packet can be in two of them.
        return merge(streams)
    clocks = Clocks()
    return join_sightings(merge(streams, clocks), clocks)


def _decode(batches: Iterator[list[PacketFields]], capture: Capture) -> Iterator[list[SegmentFields]]:
    """Yield the TCP segments of *batches*; count what cannot be read."""
    layers = Layers()
    for batch in batches:
        yield layers.read(batch, capture.anomalies)
    capture.anomalies.update(layers.flush())


def _named(verdict: Verdict, key: str) -> Verdict:
    return replace(verdict, id=key)


_ADVICE = (
    ("snap length", "capture whole packets: tcpdump -s 0"),
    ("are missing in the capture", "capture without loss: a larger buffer (tcpdump -B 65536), fewer ports"),
    ("behind the capture points", "capture on the controller too: tcpdump -i any"),
    ("host is not captured", "capture on the controller too: tcpdump -i any"),
    ("not decoded", "capture where the traffic is plain: behind the TLS end, or at the broker's firehose"),
)


def _advice(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return what to capture next time, by what could not be seen this time."""
    found: dict[str, None] = {}
    for verdict in verdicts:
        allowed = {note.step for note in verdict.notes if note.kind == "allowed"}
        for step in verdict.steps:
            if step.status == "unobserved" and step.step not in allowed:
                found.update(dict.fromkeys(_advised(step.reason)))
    return tuple(sorted(found))


def _advised(reason: str) -> list[str]:
    words = reason.split()
    if reason.endswith("is not captured") and len(words) == 4:
        return [f"tap {words[0]} too"]
    if reason.startswith("no ") and "traffic" in reason:
        return [f"capture {words[1]} too: do not filter its port"]
    if reason.startswith("nothing is known from"):
        return [f"{reason}: let `tracer capture` run beside it"]
    return [advice for part, advice in _ADVICE if part in reason][:1]
