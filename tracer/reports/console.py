"""Writes the text of `tracer check`, ordered for a terminal, where the last screen is read first.

Traces that conform come first and are short. Traces that deviate follow: each with its result on the first
line, its steps, its evidence, and the ids to search logs for. Totals come last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from tracer.model import Report, Verdict
from tracer.reports import (
    choice_words,
    clock,
    cross_check,
    dark_words,
    duration,
    losses,
    plain,
    plural,
    starts_words,
    trace,
)
from tracer.reports.clusters import Cluster, clusters
from tracer.reports.page import Page
from tracer.reports.trace import STYLES, heading, mark
from tracer.settings import ALL

__all__ = ["render"]

_LISTED = 50
"""Above this number, conforming traces become one line, and of other traces only examples are shown."""
_EXAMPLES = 3
"""Traces of each cluster that are shown in full when there are more than `_LISTED`."""
_CLUSTERS = 10
_LEAST = 5
"""Good runs that a baseline needs. Repeats tracer.engine.baseline.LEAST: reports do not import engine."""


def render(report: Report, console: Console, verbose: int = 0) -> None:
    """Write the report to *screen*; *verbose* 1: the steps of every trace, 2: its calls too."""
    page = Page.of(report, console, verbose)
    groups: dict[str, list[Verdict]] = {"conforms": [], "inconclusive": [], "deviates": []}
    for verdict in report.verdicts:
        groups.setdefault(verdict.verdict, []).append(verdict)
    _conforming(page, groups.pop("conforms"))
    others = [verdict for group in groups.values() for verdict in group]
    in_full = _in_full(others, verbose)
    for verdict in others:
        if id(verdict) in in_full:
            trace.render(page, verdict)
        else:
            page.line(heading(page, verdict))
    if not report.verdicts:
        _nothing(page, report)
    _totals(page, report, len(others) - len(in_full))
    _choice(page, report)
    _captures(page, report)
    if report.cross_check is not None:
        for line in cross_check.text(report.cross_check, page.names):
            page.line(line, hang=6)


# --- which traces, and how much of each -------------------------------------------------------------


def _conforming(page: Page, verdicts: Sequence[Verdict]) -> None:
    if page.verbose:
        for verdict in verdicts:
            trace.render(page, verdict)
        return
    if len(verdicts) <= _LISTED:
        for verdict in verdicts:
            page.line(heading(page, verdict))
        return
    spans = sorted(verdict.ended_ns - verdict.started_ns for verdict in verdicts)
    median_ns = (spans[(len(spans) - 1) // 2] + spans[len(spans) // 2]) // 2
    words = (
        f"{plural(len(verdicts), 'VM')} conform; they took {duration(spans[0])} to {duration(spans[-1])}, "
    )
    page.line(
        mark(page, "conforms") + f" {words}half of them less than {duration(median_ns)}" + "; -v lists them"
    )


def _in_full(verdicts: Sequence[Verdict], verbose: int) -> set[int]:
    """Return the traces that are shown with their steps: all, or the first of each cluster if too many."""
    if verbose or len(verdicts) <= _LISTED:
        return {id(verdict) for verdict in verdicts}
    return {id(verdict) for cluster in clusters(verdicts) for verdict in cluster.verdicts[:_EXAMPLES]}


# --- all traces -------------------------------------------------------------------------------------


def _totals(page: Page, report: Report, cut: int) -> None:
    if report.partial:
        page.line(Text("interrupted: the captures were read in part, and so is this report", "bold yellow"))
    if report.internal_errors:
        count = sum(often for _, often in report.internal_errors)
        times = plural(count, "time")
        page.line(Text(f"not complete: tracer failed {times} by a bug of its own", "bold red"))
    if not report.verdicts:
        return
    counts: Counter[str] = Counter(verdict.verdict for verdict in report.verdicts)
    outcomes = Counter(verdict.outcome for verdict in report.verdicts)
    text = Text.assemble((f"{plural(len(report.verdicts), 'trace')}: ", "bold"))
    comma = ""
    for verdict, one, many in (
        ("conforms", "conforms", "conform"),
        ("deviates", "deviates", "deviate"),
        ("inconclusive", "inconclusive", "inconclusive"),
    ):
        if count := counts[verdict]:
            text.append(comma).append(f"{count:,} {one if count == 1 else many}", STYLES[verdict])
            comma = ", "
    became = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
    page.line(text.append(f"  ({became})", "dim"))
    workflows = Counter(verdict.grammar for verdict in report.verdicts)
    if len(workflows) > 1:
        page.line(", ".join(f"{count:,} of {plain(name, 80)}" for name, count in workflows.most_common()))
    _clusters(page, report)
    if cut:
        page.line(Text(f"{plural(cut, 'trace')} shown by one line each; -v shows their steps too", "dim"))


def _clusters(page: Page, report: Report) -> None:
    """Write the clusters of traces that stopped for one reason, if more than one trace does not conform."""
    found = clusters(report.verdicts)
    if sum(len(cluster.verdicts) for cluster in found) < 2:
        return
    shown = found[:_CLUSTERS]
    peers = max(3, *(len(plain(cluster.peer, 16)) for cluster in shown))
    places = max(4, *(len(_place(cluster)) for cluster in shown))
    page.line(Text(f"{'VMs':>5}  {'what':<10}  {'step':<{places}}  {'who':<{peers}}  why", "dim"))
    for cluster in shown:
        text = Text.assemble((f"{len(cluster.verdicts):>5,}", "bold"), f"  {cluster.kind:<10}")
        text.append(f"  {_place(cluster):<{places}}  {plain(cluster.peer, 16):<{peers}}  {cluster.words}")
        text.append(f"  ({_members(cluster)})", "dim")
        page.line(text, 0, hang=8)
    if len(found) > len(shown):
        page.line(Text(f"       and {len(found) - len(shown)} other reasons", "dim"))


def _members(cluster: Cluster) -> str:
    """Return a few names of members, and the host if it is the same for all."""
    names = [plain(verdict.name or verdict.id, 30) for verdict in cluster.verdicts[:3]]
    more = ", …" if len(cluster.verdicts) > 3 else ""
    hosts = list(cluster.hosts)
    same = len(hosts) == 1 and cluster.hosts.total() == len(cluster.verdicts) > 1
    return f"{', '.join(names)}{more}" + (f"; all on {plain(hosts[0], 40)}" if same else "")


def _place(cluster: Cluster) -> str:
    return cluster.step or "–".join(cluster.between or ()) or "?"


def _asked_for(report: Report) -> str:
    """Return the workflow of which there is no trace, in words."""
    return "any workflow" if report.grammar == ALL else plain(report.grammar, 80)


def _nothing(page: Page, report: Report) -> None:
    packets = sum(capture.packets for capture in report.captures)
    what = "message" if all(capture.protocol for capture in report.captures) else "packet"
    where = f"{plural(len(report.captures), 'capture')} ({plural(packets, what)})"
    if report.left_out:
        count = len(report.left_out)
        words = "The one trace" if count == 1 else f"None of {count} traces"
        words += f" of {_asked_for(report)} in {where} {'does not start' if count == 1 else 'starts'}"
        words += " at the time asked for:"
        page.line(Text(f"{words} {starts_words(report.left_out)}.", "bold yellow"))
        return
    page.line(Text(f"No trace of {_asked_for(report)} found in {where}.", "bold yellow"))
    if report.seen:
        page.line("seen instead:", 2)
    else:
        page.line("nothing else was seen either: no call of any protocol that tracer reads", 2)
    for words, count in report.seen:
        page.line(f"{count:>9,}  {plain(words, 200)}", 2, hang=11)


# --- the captures -----------------------------------------------------------------------------------


def _choice(page: Page, report: Report) -> None:
    """Write which grammar the traces were checked against, and why."""
    if report.verdicts:
        page.line(Text(choice_words(report), "dim"), hang=4)


def _captures(page: Page, report: Report) -> None:
    """Write the legend of capture names, and what each capture lost."""
    used = {path for verdict in report.verdicts for path in _shown_paths(verdict, page.verbose)}
    for capture in report.captures:
        lost = losses(capture)
        abbreviated = capture.path in used and page.names[capture.path] != capture.path
        if not (lost or page.verbose or abbreviated):
            continue
        name = f"{page.names[capture.path]}# is " if abbreviated else ""
        text = Text.assemble((f"{name}{plain(capture.path, 200)}", "cyan"))
        if page.verbose or lost:
            what = "message" if capture.protocol else "packet"
            text.append(f"  {plural(capture.packets, what)}, {plural(capture.calls, 'call')}", "dim")
        if page.verbose:
            planes = ", ".join(plain(plane, 40) for plane in sorted(capture.planes))
            text.append(f", {planes or 'no plane'}", "dim")
            if capture.first_ns is not None and capture.last_ns is not None:
                text.append(f", {clock(capture.first_ns)} to {clock(capture.last_ns)}", "dim")
        text.append(f"  {lost}" if lost else "", "yellow")
        page.line(text, hang=4)
    if report.forgotten:
        forgotten = ", ".join(f"{count:,} {what}" for what, count in report.forgotten)
        page.line(Text(f"forgotten for lack of room: {forgotten}; traces may lack calls", "yellow"))
    if report.baseline:
        path, traces = report.baseline
        few = traces < _LEAST
        runs, where = plural(traces, "good run"), plain(path, 200)
        words = f"times compared with {where}, of {runs}"
        if few:
            words = f"nothing was compared with {where}: {runs}, {_LEAST} are needed"
        page.line(Text(words, "yellow" if few else "dim"))
    if dark := dark_words(report):
        page.line(Text("TLS without keys, not read:", "yellow"))
        for words in dark:
            page.line(Text(f"  {words}", "yellow"), hang=4)
    for words in report.advice:
        page.line(Text.assemble(("advice: ", "bold"), plain(words, 400)), hang=8)


def _shown_paths(verdict: Verdict, verbose: int) -> set[str]:
    if verdict.verdict == "conforms" and not verbose:
        return set()
    return {call.evidence[0][0] for call in verdict.calls if call.evidence}
