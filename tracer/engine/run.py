"""One pass over captures: from arguments to a report or to the list of calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

from tracer.engine.baseline import load as load_baseline
from tracer.engine.captures import OpenCaptures, Progress, open_captures
from tracer.engine.keys import key_log_beside, require_key_log
from tracer.engine.results import records, report
from tracer.engine.stages import Stages, rare_collections
from tracer.engine.workflows import Workflows, load_workflows, one_workflow
from tracer.errors import UsageError
from tracer.model import CallRecord, DeviationKind, Report
from tracer.settings import TSHARK, Settings
from tracer.topology import GivenTopology, load_topology

if TYPE_CHECKING:
    from tracer.engine.second_opinion import TsharkCaptures

__all__ = [
    "calls",
    "check",
    "given_topology",
    "key_log_hint",
    "read",
    "require_known_allowances",
    "require_known_steps",
]

_ALLOWED = (*get_args(DeviationKind), "unobserved")


def given_topology(settings: Settings) -> GivenTopology:
    """Return the contents of the topology file of *settings*, empty without a file. Raises UsageError."""
    return load_topology(settings.topology) if settings.topology else GivenTopology()


def require_known_allowances(workflows: Workflows, settings: Settings, given: GivenTopology) -> None:
    """Raise UsageError for a KIND or KIND:STEP of --allow or of the topology file that does not exist."""
    allowed = [
        *((f"{settings.topology}: allow", text) for text in given.allow),
        *(("--allow", text) for text in settings.allow),
    ]
    for source, text in allowed:
        kind, colon, step = text.partition(":")
        if kind not in _ALLOWED:
            raise UsageError(f"{source} {text!r}: no kind {kind!r}; known: {', '.join(_ALLOWED)}")
        if colon:
            _require_steps(workflows, f"{source} {kind}", (step,), set())


def require_known_steps(workflows: Workflows, steps: Sequence[str]) -> None:
    """Raise UsageError for a step of `--where step=` that no grammar of *workflows* has.

    A step without its letter stands for its parts in a selection: 8 is 8a, 8b and 8c.
    """
    known = (step.name for grammar in workflows.grammars for step in grammar.steps)
    wholes = {name.rstrip("abcdefghijklmnopqrstuvwxyz") for name in known}
    _require_steps(workflows, "--where step", steps, wholes)


def _require_steps(workflows: Workflows, source: str, steps: Sequence[str], wholes: set[str]) -> None:
    known = list(dict.fromkeys(step.name for grammar in workflows.grammars for step in grammar.steps))
    names = workflows.name if workflows.operations else " or ".join(g.name for g in workflows.grammars)
    for step in steps:
        if step not in known and step not in wholes:
            raise UsageError(f"{source}: {names} has no step {step!r}; known: {', '.join(known)}")


# --- one pass over captures ---------------------------------------------------------------------


def check(arguments: Sequence[str], settings: Settings, progress: Progress | None = None) -> Report:
    """Read the captures that *arguments* name and return the verdict on each creation in them.

    Raises SourceError, GrammarError or UsageError before any packet is read. An interrupt ends the
    reading: the report then covers what was read and is `partial`.
    """
    # Every argument is checked before the first packet: a mistake must not show after an hour of reading.
    workflows = load_workflows(settings.grammar)
    if settings.baseline:
        one_workflow(settings.grammar, "a baseline is of one workflow")
    usual = load_baseline(settings.baseline, workflows.names) if settings.baseline else None
    if usual is not None:
        workflows.adopt(usual.grammar, "the baseline was learnt under it")
    require_known_steps(workflows, settings.steps)
    require_key_log(settings.keylog)
    given = given_topology(settings)
    opened = _open(arguments, given, settings, progress)
    stages = Stages(opened.captures, given, settings, workflows)
    require_known_allowances(workflows, settings, given)
    found = report(stages, partial=read(stages, opened, progress))
    if hint := key_log_hint(opened, settings):
        found = replace(found, remarks=(*found.remarks, hint))
    if usual is None:
        return found
    verdicts = [usual.compare(verdict) for verdict in found.verdicts]
    return replace(found, verdicts=verdicts, baseline=(usual.path, usual.traces))


def key_log_hint(opened: OpenCaptures | TsharkCaptures, settings: Settings) -> str:
    """Return that a key log lies beside captures with encrypted connections; empty if none does."""
    reasons = (why for capture in opened.captures for why in capture.undecoded)
    if settings.keylog is not None or not isinstance(opened, OpenCaptures):
        return ""
    path = key_log_beside(opened.ignored) if any(why.startswith("tls") for why in reasons) else None
    return f"encrypted connections are read as well with --keylog {path}" if path else ""


def calls(
    arguments: Sequence[str], settings: Settings, progress: Progress | None = None
) -> Iterator[CallRecord]:
    """Read the captures and yield every call in time order, with the ids of the traces it belongs to.

    Raises as `check` does.
    """
    workflows = load_workflows(settings.grammar)
    given = given_topology(settings)
    require_key_log(settings.keylog)
    opened = _open(arguments, given, settings, progress)
    stages = Stages(opened.captures, given, settings, workflows, every_statement=True)
    partial = read(stages, opened, progress)
    return _then_interrupted(records(stages)) if partial else records(stages)


def _then_interrupted(records: Iterator[CallRecord]) -> Iterator[CallRecord]:
    """Yield the calls from before the interrupt, then raise KeyboardInterrupt: the list is incomplete."""
    yield from records
    raise KeyboardInterrupt


def _open(
    arguments: Sequence[str], given: GivenTopology, settings: Settings, progress: Progress | None
) -> OpenCaptures | TsharkCaptures:
    if settings.engine != TSHARK:
        return open_captures(arguments, given, progress)
    # Imported here: nearly all runs do without.
    from tracer.engine.second_opinion import open_for_tshark

    return open_for_tshark(arguments, given, progress, settings.keylog)


def read(stages: Stages, opened: OpenCaptures | TsharkCaptures, progress: Progress | None = None) -> bool:
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
            opened.feed(stages, tick)
        except KeyboardInterrupt:
            partial = True
        for capture in opened.captures:
            for since_ns, until_ns, count in capture.drops:
                corrected = capture.clock.corrected
                stages.coverage.dropped(capture, corrected(since_ns), corrected(until_ns))
                capture.anomalies["packets dropped by the kernel"] += count
        tick(stages.finish())
    return partial
