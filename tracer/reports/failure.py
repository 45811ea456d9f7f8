"""Writes the text of a failed assertion: the result first, then the evidence, then where to look.

It is about one trace and has no colours: it goes into test reports, JUnit files and logs of pipelines.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from rich.console import Console

from tracer.model import Report, Verdict
from tracer.reports import called, console, ladder, plain, seen_instead
from tracer.reports.page import Page
from tracer.reports.trace import heading

__all__ = ["crowd", "diagram", "found", "headline", "nothing", "story"]

WIDTH = 116
"""Columns that fit into a test report, with its margins, on a wide terminal."""
_LISTED = 12


def _written(write: Callable[[Console], None]) -> str:
    file = io.StringIO()
    write(Console(file=file, width=WIDTH, color_system=None, highlight=False, markup=False, emoji=False))
    return file.getvalue().rstrip("\n")


def headline(verdict: Verdict) -> str:
    """Return the VM, its verdict and the reason in one line."""
    name = f"{plain(verdict.name, 60)} " if verdict.name else ""
    # A deviation explains itself. An inconclusive trace has none, so the line begins with that.
    word = "is inconclusive" if verdict.verdict == "inconclusive" else verdict.verdict
    return f"VM {name}{called(verdict)} {word}: {plain(verdict.summary, 400)}"


def found(verdict: Verdict) -> list[str]:
    """Return lines: the first finding, then each call that was expected next."""
    if not verdict.deviations:
        return []
    first = verdict.deviations[0]
    message = plain(first.message.removeprefix(f"step {first.step} failed: "), 300)
    lines = [f"! {first.kind} {first.step or ''}".rstrip() + f"  {message}"]
    if first.call and first.call.evidence:
        path, frame = first.call.evidence[0]
        lines.append(f"at {plain(path, 300)}#{frame}")
    return lines + [f"expected {plain(line, 300)}" for line in first.expected[:4]]


def story(verdict: Verdict, report: Report) -> str:
    """Return the text of `tracer check` on one trace, with the legend of its captures."""
    alone = Report(report.grammar, report.captures, [verdict], report.partial, (), report.advice)
    return _written(lambda screen: console.render(alone, screen, verbose=1))


def diagram(verdict: Verdict, report: Report) -> str:
    """Return the trace as a ladder diagram in text."""
    return _written(lambda screen: ladder.render(verdict, report, screen))


def nothing(report: Report) -> str:
    """Return a message that there is no trace, and what the captures hold instead."""
    paths = ", ".join(plain(capture.path, 200) for capture in report.captures) or "no capture"
    return f"no trace of {plain(report.grammar, 80)} in {paths}: they hold {seen_instead(report)}"


def crowd(verdicts: Sequence[Verdict], report: Report) -> list[str]:
    """Return one line for each trace, at most a dozen; traces that do not conform come first."""
    page = Page.of(report, Console(file=io.StringIO(), width=WIDTH, color_system=None), 0)
    ranked = sorted(verdicts, key=lambda v: ("deviates", "inconclusive", "conforms").index(v.verdict))
    lines = [heading(page, verdict).plain for verdict in ranked[:_LISTED]]
    return lines + ([f"and {len(ranked) - _LISTED} more"] if len(ranked) > _LISTED else [])
