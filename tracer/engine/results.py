"""The results of the stages: the report on their traces, and the list of all calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tracer.engine.stages import Stages
from tracer.errors import InternalError
from tracer.model import CallRecord, Capture, Dark, Report, Verdict
from tracer.model.packets import place_of
from tracer.openstack.rest import CREATE_SERVER
from tracer.openstack.services import BROKER

__all__ = ["records", "report", "report_on"]


def report(stages: Stages, *, partial: bool) -> Report:
    """Return the verdicts on all traces that the settings select; *partial* after an interrupt."""
    verdicts: list[Verdict] = []
    left_out: list[int] = []
    traces = stages.traces()
    checkers = {grammar.name: stages.checker(grammar) for grammar in stages.workflows.grammars}
    for key, trace in traces.named:
        begun_ns = trace.calls[0].started_ns
        if not stages.is_selected(begun_ns):
            left_out.append(begun_ns)
            continue
        grammar = stages.grammar_of(trace)
        verdict = stages.checked(checkers[grammar.name], trace) if grammar is not None else None
        if verdict is not None:
            verdicts.append(replace(verdict, id=key))
    return report_on(stages, verdicts, partial=partial, left_out=left_out, nameless=traces.nameless)


def report_on(
    stages: Stages,
    verdicts: Sequence[Verdict],
    *,
    partial: bool = False,
    left_out: Sequence[int] = (),
    nameless: int = 0,
) -> Report:
    """Return the report of *verdicts*.

    *left_out* holds the start times of traces that were not selected; *nameless* counts those whose ids were
    cut.
    """
    for capture in stages.captures:
        capture.planes |= _planes_of(stages, capture)
    dark = stages.darkness.groups(stages.topology, stages.given, stages.grammar, verdicts)
    misnamed = stages.topology.misnamed(stages.coverage.connections())
    return Report(
        stages.workflows.name,
        stages.captures,
        verdicts,
        partial,
        () if verdicts else _seen(stages, len(left_out)),
        (*_ways_out(dark, stages), *_advice(verdicts)),
        remarks=tuple(
            filter(
                None,
                (
                    *stages.given.remarks,
                    misnamed,
                    *_clocks(stages.captures),
                    _cut(nameless),
                    stages.keys.remark(),
                    stages.internal_error_words(),
                ),
            )
        ),
        forgotten=stages.forgotten(),
        left_out=tuple(sorted(left_out)),
        internal_errors=stages.errors.found(),
        grammar_reason=stages.grammar_reason(),
        dark=dark,
    )


MATTERS_NS = 1_000_000
"""A clock that is off by less is corrected in silence."""


def _clocks(captures: Sequence[Capture]) -> Iterator[str]:
    """Yield what is said of each clock that was corrected."""
    for capture in captures:
        clock = capture.clock
        name = capture.plane or place_of(capture.path)
        if clock.given_ns:
            yield f"{name}'s clock is corrected by {_offset(clock.given_ns)}, as given"
        if capture.is_untimed:
            how = "have the same time" if capture.first_ns == capture.last_ns else "have times without order"
            yield f"{name}'s packets {how}: neither order nor durations are judged"
            continue
        if not _is_comparable(capture, captures):
            yield (
                f"{name}'s clock cannot be compared with the others', whose times are all other than its own:"
                " one creation may be told as two; give its offset, as PLANE=FILE@+2s"
            )
        if clock.steps_back:
            yield f"{name}'s clock was set back {clock.steps_back} times: it is read as if it had gone on"
        least_ns, most_ns = clock.range_ahead_ns
        if clock.reference is None or max(-least_ns, most_ns) < MATTERS_NS:
            continue
        other = captures[clock.reference]
        given = other.clock.given_ns
        mean_ns = most_ns if most_ns > -least_ns else least_ns
        ahead = "ahead of" if mean_ns > 0 else "behind"
        far = _offset(abs(mean_ns))
        if most_ns - least_ns > MATTERS_NS:
            far = f"up to {far}"
        sure = f"± {clock.uncertain_ns / 1e6:.1f} ms" if clock.is_bounded else "at least"
        yield (
            f"{name}'s clock is {far} {ahead} {other.plane or place_of(other.path)}'s"
            f"{' as corrected' if given else ''} (from {clock.pairs:,}"
            f" pair{'s' if clock.pairs != 1 else ''}, {sure}):"
            f" {'is the given offset right? ' if given else ''}order is judged in corrected time"
        )


def _is_comparable(capture: Capture, captures: Sequence[Capture]) -> bool:
    """Return whether the times of *capture* can belong to those of another one."""
    begin_ns, end_ns = capture.corrected_first_ns, capture.corrected_last_ns
    linked = capture.clock.reference is not None or capture.number in {c.clock.reference for c in captures}
    others = [c for c in captures if c is not capture and c.plane != capture.plane and not c.protocol]
    if begin_ns is None or end_ns is None or linked or capture.clock.given_ns is not None or not others:
        return True
    spans = [(c.corrected_first_ns, c.corrected_last_ns) for c in others]
    return any(f is None or e is None or (f <= end_ns and e >= begin_ns) for f, e in spans)


def _offset(time_ns: int) -> str:
    if 0 < abs(time_ns) < MATTERS_NS:
        return f"{time_ns / 1e3:,.3g} µs"
    return f"{time_ns / 1e6:,.1f} ms" if abs(time_ns) < 1_000_000_000 else f"{time_ns / 1e9:,.3f} s"


def _cut(nameless: int) -> str:
    """Return what the snap length has cost in traces; empty when nothing."""
    if not nameless:
        return ""
    requests = "1 request is" if nameless == 1 else f"{nameless:,} requests are"
    why = "the packets are cut before their ids"
    return f"{requests} not in the report: {why}; capture whole packets (tcpdump -s 0)"


def records(stages: Stages) -> Iterator[CallRecord]:
    """Yield the records of all calls in the selected time, in order of their index."""
    ids: dict[int, list[str]] = {}
    for key, trace in stages.traces().named:
        for call in trace.calls:
            ids.setdefault(call.serial, []).append(key)
    for call in sorted(stages.every_call or (), key=lambda call: call.index):
        if stages.is_selected(call.started_ns):
            yield replace(stages.topology.record(call), traces=tuple(ids.get(call.serial, ())))
    if words := stages.internal_error_words():
        raise InternalError(words)


def _planes_of(stages: Stages, capture: Capture) -> set[str]:
    if capture.plane:
        return {capture.plane}
    return {
        stages.topology.plane_of(connection)
        for connection in stages.coverage.connections()
        if capture.number in connection.captures
    }


def _seen(stages: Stages, traces: int) -> tuple[tuple[str, int], ...]:
    """Return what the captures contain, as (words, count), for a report without a trace."""
    captures = stages.captures
    names = {"REST": "REST calls", "RPC": "RPC messages", "SQL": "SQL statements"}
    skipped = sum(c.skipped_statements for c in captures)
    packets = sum(c.packets for c in captures if not c.protocol)
    heard = sum(c.packets for c in captures if c.protocol)
    counts = [("packets", packets)] if packets or not heard else []
    counts += [("messages of the firehose", heard)] if heard else []
    counts += [(names[p], n + (skipped if p == "SQL" else 0)) for p, n in sorted(stages.counts.items())]
    if skipped and "SQL" not in stages.counts:
        counts.append((names["SQL"], skipped))
    creates = stages.grammar.begun_at("REST", CREATE_SERVER)
    if stages.workflows.operations:
        counts.append(("creations of a server, and operations on one", traces))
    else:
        counts.append(("creations of a server" if creates else f"runs of {stages.grammar.name}", traces))
    return tuple(counts)


def _ways_out(dark: Sequence[Dark], stages: Stages) -> Iterator[str]:
    """Yield what makes readable what TLS hides."""
    if not dark:
        return
    if not stages.keys.log.is_given:
        yield "read TLS with its keys: --keylog FILE, or as Decryption Secrets Blocks in the pcapng"
    else:
        reasons = {why for capture in stages.captures for why in capture.undecoded}
        if any("began before the capture" in why for why in reasons):
            yield "begin the capture before the connections: TLS 1.2 that was up before cannot be opened"
        if any("no key" in why for why in reasons):
            yield "let one end of each connection write its keys: the key log lacks those of some"
    yield "capture behind the point where TLS ends"
    if any(group.callee == BROKER for group in dark):
        yield "watch the messages at the broker itself: tracer watch --amqp URL"


# Keyed by a part of the reasons that conformance/coverage.py and conformance/step_coverage.py give.
_ADVICE = (
    ("snap length", "capture whole packets: tcpdump -s 0"),
    ("are missing in the capture", "capture without loss: a larger buffer (tcpdump -B 65536), fewer ports"),
    ("no capture point sees traffic within it", "capture on the controller too: tcpdump -i any"),
    ("host is not captured", "capture on the controller too: tcpdump -i any"),
    ("not decoded: tls", ""),
    ("not decoded", "capture where the traffic is plain: behind the TLS end, or at the broker's firehose"),
)


def _advice(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """Return what to capture next time, from the reasons of unobserved steps."""
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
    found = [advice for part, advice in _ADVICE if part in reason][:1]
    return [advice for advice in found if advice]
