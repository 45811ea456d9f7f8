"""One pass over captures: arguments in, a report or the list of calls out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tracer.engine import results
from tracer.engine.baseline import load as load_baseline
from tracer.engine.captures import OpenCaptures, Progress, open_captures
from tracer.engine.requirements import given_topology, require_known_allowances, require_known_steps
from tracer.engine.stages import Stages, rare_collections
from tracer.grammar import load
from tracer.model import CallRecord, Report
from tracer.settings import Settings

__all__ = ["calls", "check", "read"]


def check(arguments: Sequence[str], settings: Settings, progress: Progress | None = None) -> Report:
    """Read the captures that *arguments* mean and return the verdict on each creation in them.

    Raises SourceError, GrammarError or UsageError before any packet is read. An interrupt ends the
    reading: the report then covers what was read and is `partial`.
    """
    grammar = load(settings.grammar)
    usual = load_baseline(settings.baseline, grammar.name) if settings.baseline else None
    require_known_steps(grammar, settings.steps)
    given = given_topology(settings)
    opened = open_captures(arguments, given, progress)
    stages = Stages(opened.captures, given, settings, grammar)
    require_known_allowances(grammar, settings, given)
    report = results.report(stages, partial=read(stages, opened, progress))
    if usual is None:
        return report
    verdicts = [usual.compare(verdict) for verdict in report.verdicts]
    return replace(report, verdicts=verdicts, baseline=(usual.path, usual.traces))


def calls(
    arguments: Sequence[str], settings: Settings, progress: Progress | None = None
) -> Iterator[CallRecord]:
    """Read the captures and yield every call in time order, with the ids of the traces it belongs to.

    Raises as `check` does.
    """
    grammar = load(settings.grammar)
    given = given_topology(settings)
    opened = open_captures(arguments, given, progress)
    stages = Stages(opened.captures, given, settings, grammar, every_statement=True)
    partial = read(stages, opened, progress)
    return _interrupted_behind(results.records(stages)) if partial else results.records(stages)


def _interrupted_behind(records: Iterator[CallRecord]) -> Iterator[CallRecord]:
    """Yield what was read before the interrupt, then raise it: the list is not whole."""
    yield from records
    raise KeyboardInterrupt


def read(stages: Stages, opened: OpenCaptures, progress: Progress | None = None) -> bool:
    """Read all of *opened*, the captures of *stages*; return True when the user interrupted."""

    def tick(time_ns: int) -> None:
        stages.advance(time_ns)
        if progress is not None:
            traces = stages.correlator.open_count()
            for capture in opened.captures:
                progress.advanced(capture.path, capture.size_bytes, capture.packets, traces)

    partial = False
    with rare_collections():
        try:
            stages.read(opened.segments(), tick)
        except KeyboardInterrupt:
            partial = True
        for capture in opened.captures:
            for since_ns, until_ns, count in capture.drops:
                stages.coverage.dropped(capture, since_ns, until_ns)
                capture.anomalies["packets dropped by the kernel"] += count
        tick(stages.finish())
    return partial
