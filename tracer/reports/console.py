"""The text of `tracer check`: for somebody with an incident, who reads the last screen first.

What conforms comes first and takes little room; what deviates comes after it, each with its answer on
the first line, the steps, the evidence and what to grep for; the numbers of all come last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.console import Console
from rich.text import Text

from tracer.model import Attempt, CallRecord, Deviation, Report, StepResult, Verdict
from tracer.reports import (
    call_words,
    clock,
    duration,
    file_names,
    fragment,
    lead,
    losses,
    offset,
    plain,
    plural,
    refused,
    stop_words,
    timestamp,
    witnesses,
)

__all__ = ["Page", "deviations", "faults", "heading", "identity", "render", "step_status"]

_LISTED = 50
"""More conforming traces than this become one line; more others than this are shown by example."""
_EXAMPLES = 3
"""Traces that are shown in full of each cluster, when there are more than `_LISTED`."""
_WIDE = 180
"""From so many columns on, frames are given with whole file names."""
_CALL_WIDTH = 62
_REFUSED = "Connection refused"
_TITLE_LEAST = 24

_STYLES = {"conforms": "green", "deviates": "bold red", "inconclusive": "yellow"}
_MARKS = {"conforms": ("✓", "+"), "deviates": ("✗", "x"), "inconclusive": ("?", "?")}
_STATUS = {
    "seen": ("ok", "green"),
    "inferred": ("inferred", "green dim"),
    "failed": ("FAILED", "bold red"),
    "missing": ("MISSING", "bold red"),
    "unobserved": ("unobserved", "yellow"),
    "skipped": ("skipped", "dim"),
    "not_reached": ("not reached", "dim"),
}


@dataclass(slots=True)
class Page:
    """Where is written, how wide, and what the captures are called there."""

    console: Console
    names: Mapping[str, str]
    verbose: int

    @classmethod
    def of(cls, report: Report, console: Console, verbose: int) -> Page:
        paths = [capture.path for capture in report.captures]
        return cls(console, file_names(paths, short=console.width < _WIDE), verbose)

    @property
    def width(self) -> int:
        return self.console.width

    @property
    def encodable(self) -> bool:
        """Whether more than ASCII can be written."""
        return self.console.encoding.lower().startswith("utf")

    def line(self, text: Text | str, indent: int = 0, hang: int = 2) -> None:
        """Write one line; on a terminal wrapped with a hanging indent, into a pipe as it is."""
        text = Text(text) if isinstance(text, str) else text
        if not self.console.is_terminal:
            self.console.print(Text.assemble(" " * indent, text), soft_wrap=True)
            return
        rows = text.wrap(self.console, max(20, self.width - indent - hang))
        for number, row in enumerate(rows):
            row.rstrip()
            self.console.print(Text(" " * (indent + (hang if number else 0))) + row, soft_wrap=True)


def render(report: Report, console: Console, verbose: int = 0) -> None:
    """Write the report; with *verbose* 1 every trace's steps, with 2 every trace's calls too."""
    page = Page.of(report, console, verbose)
    groups: dict[str, list[Verdict]] = {"conforms": [], "inconclusive": [], "deviates": []}
    for verdict in report.verdicts:
        groups.setdefault(verdict.verdict, []).append(verdict)
    _conforming(page, groups.pop("conforms"))
    others = [verdict for group in groups.values() for verdict in group]
    in_full = _in_full(others, verbose)
    for verdict in others:
        if id(verdict) in in_full:
            _trace(page, verdict)
        else:
            page.line(heading(page, verdict))
    if not report.verdicts:
        _nothing(page, report)
    _totals(page, report, len(others) - len(in_full))
    _captures(page, report)


# --- one trace --------------------------------------------------------------------------------------


def _conforming(page: Page, verdicts: Sequence[Verdict]) -> None:
    if page.verbose:
        for verdict in verdicts:
            _trace(page, verdict)
        return
    if len(verdicts) <= _LISTED:
        for verdict in verdicts:
            page.line(heading(page, verdict))
        return
    spans = sorted(verdict.ended_ns - verdict.started_ns for verdict in verdicts)
    words = (
        f"{plural(len(verdicts), 'VM')} conform; they took {duration(spans[0])} to {duration(spans[-1])}, "
    )
    page.line(
        _mark(page, "conforms")
        + f" {words}half of them less than {duration(round(median(spans)))}"
        + "; -v lists them"
    )


def _in_full(verdicts: Sequence[Verdict], verbose: int) -> set[int]:
    """Which traces are shown with their steps: all, or, of too many, the first ones of every cluster."""
    if verbose or len(verdicts) <= _LISTED:
        return {id(verdict) for verdict in verdicts}
    seen: Counter[str] = Counter()
    chosen = set()
    for verdict in verdicts:
        where = stop_words(verdict)
        seen[where] += 1
        if seen[where] <= _EXAMPLES:
            chosen.add(id(verdict))
    return chosen


def _mark(page: Page, verdict: str) -> Text:
    fine, coarse = _MARKS.get(verdict, ("?", "?"))
    return Text(fine if page.encodable else coarse, style=_STYLES.get(verdict, ""))


def heading(page: Page, verdict: Verdict) -> Text:
    """The answer: which VM, what became of it, where it stopped and why."""
    name = f"{plain(verdict.name, 60)} " if verdict.name else ""
    which = lead(plain(verdict.server_id or verdict.id, 80))
    style = _STYLES.get(verdict.verdict, "")
    words = Text.assemble(_mark(page, verdict.verdict), (f" VM {name}", "bold"), (which, "dim"), "  ")
    words.append(plain(verdict.summary, 300), style)
    if verdict.verdict == "conforms":
        told = [plain(note.message, 120) for note in verdict.notes if note.kind not in ("mode", "ambiguous")]
        words.append(f"  ({'; '.join(told)})" if told else "", "dim")
    return words


def _trace(page: Page, verdict: Verdict) -> None:
    page.line(heading(page, verdict))
    page.line(identity(verdict), 2)
    for who, fault in faults(verdict):
        page.line(Text.assemble(f"{who}: ", (f"“{fault}”", "bold")), 2, hang=4)
    _steps(page, verdict.steps, verdict, 2)
    _earlier_attempts(page, verdict)
    deviations(page, verdict)
    _unobserved(page, verdict.steps)
    _notes(page, verdict)
    outside = sum(call.step is None for call in verdict.calls)
    own = plural(len(verdict.calls), "call")
    page.line(Text(f"{own} of this VM, {outside:,} outside the documented steps", "dim"), 2)
    _log_ids(page, verdict)
    if page.verbose > 1:
        _calls(page, verdict)
    page.line("")


def identity(verdict: Verdict) -> Text:
    """Everything that a person may search for elsewhere: the time, the ids, the hosts."""
    hosts = " → ".join(plain(host, 40) for host in verdict.attempts)
    parts = [
        f"{verdict.verdict}, {verdict.outcome}",
        f"{(timestamp(verdict.started_ns) or '?')[:23].replace('T', ' ')} UTC",
        f"server {plain(verdict.server_id, 80)}" if verdict.server_id else "",
        f"request {plain(verdict.request_id, 80)}" if verdict.request_id else "",
        f"nova-api at {plain(verdict.api_host, 60)}" if verdict.api_host else "",
        f"built on {hosts}" if hosts else "",
    ]
    return Text(" · ".join(part for part in parts if part), "dim")


def faults(verdict: Verdict) -> list[tuple[str, str]]:
    """Who said what: the faults' own texts, each once, unless the first line has them already."""
    told: dict[str, str] = {}
    for call in (deviation.call for deviation in verdict.deviations):
        if call and call.error and not call.operation.startswith("CONNECT"):
            told.setdefault(call.error, f"{plain(call.caller if _replies(call) else call.callee, 60)} said")
    for attempt in verdict.attempt_details[-1:]:
        told.setdefault(attempt.error, f"fault on {plain(attempt.host, 60)}")
    told.pop(_REFUSED, None)  # nobody's words, but a reset; the first line says who refused whom
    return [(who, plain(text, 400)) for text, who in told.items() if text and text not in verdict.summary]


def _replies(call: CallRecord) -> bool:
    return call.protocol == "RPC" and call.operation.startswith("reply ")


def _earlier_attempts(page: Page, verdict: Verdict) -> None:
    """The hosts that were tried before; the last one's steps are in the main table."""
    if len(verdict.attempt_details) < 2:
        return
    for number, attempt in enumerate(verdict.attempt_details, start=1):
        last = number == len(verdict.attempt_details)
        page.line(_attempt(number, attempt, last), 2, hang=4)
        if not last:
            _steps(
                page, [step for step in attempt.steps if step.status != "not_reached"], verdict, 4, head=False
            )


def _attempt(number: int, attempt: Attempt, last: bool) -> Text:
    words = Text.assemble((f"attempt {number} on {plain(attempt.host, 60)}: ", "bold"))
    words.append(f"stopped at {attempt.stopped_at}" if attempt.stopped_at else "built it")
    words.append(f" after {duration(attempt.duration_ns)}" if attempt.duration_ns is not None else "")
    words.append(f": {plain(attempt.error, 300)}" if attempt.error else "", "red")
    return words.append("  (the steps above)" if last else "", "dim")


def deviations(page: Page, verdict: Verdict) -> None:
    """What is wrong, with its evidence and what was expected; what happened again and again is one line."""
    alike: dict[tuple[str, str | None, str], list[Deviation]] = {}
    for deviation in verdict.deviations:
        alike.setdefault((deviation.kind, deviation.step, deviation.message), []).append(deviation)
    for (kind, step, message), group in alike.items():
        text = Text.assemble(
            (f"! {kind} {step or ''}".rstrip(), "bold red"), f"  {_without_step(message, step)}"
        )
        text.append(f" ×{len(group)}" if len(group) > 1 else "", "bold")
        places = [each.call.evidence[0] for each in group if each.call and each.call.evidence]
        for place in places[:3]:
            text.append(f"  {fragment(place, page.names)}", "cyan")
        page.line(text, 2, hang=4)
        for number, line in enumerate(group[0].expected[:4]):
            head = "      or " if number else "expected "
            page.line(Text.assemble((head, "dim"), plain(line, 300)), 4, hang=9)


def _without_step(message: str, step: str | None) -> str:
    """The message without the step and kind that stand before it anyway."""
    return plain(message.removeprefix(f"step {step} failed: "), 300)


def _notes(page: Page, verdict: Verdict) -> None:
    steps: dict[tuple[str, str], list[str]] = {}
    for note in verdict.notes:
        steps.setdefault((note.kind, note.message), []).append(note.step or "")
    for (kind, message), where in steps.items():
        head = " ".join(filter(None, ["note:", kind, ", ".join(filter(None, dict.fromkeys(where)))]))
        page.line(Text.assemble((f"{head}  ", "dim"), plain(message, 300)), 2, hang=6)


def _unobserved(page: Page, steps: Iterable[StepResult]) -> None:
    """Why steps could not be seen: one line for all that share a reason."""
    reasons: dict[str, list[str]] = {}
    for step in steps:
        if step.status == "unobserved":
            reasons.setdefault(step.reason, []).append(step.step)
    for reason, hidden in reasons.items():
        words = Text.assemble((f"not observed: {', '.join(hidden)}", "yellow"))
        page.line(words.append(f": {plain(reason, 400)}" if reason else ""), 2, hang=4)


def _log_ids(page: Page, verdict: Verdict) -> None:
    """What to grep for, and in whose log; services that log the same ids share a line."""
    ids: dict[str, dict[str, None]] = {}
    for service, key in verdict.log_ids:
        ids.setdefault(plain(service, 60), {})[plain(key, 100)] = None
    logs: dict[tuple[str, ...], list[str]] = {}
    for service, keys in ids.items():
        logs.setdefault(tuple(keys), []).append(service)
    for shared, services in logs.items():
        shown = shared if page.verbose else shared[:3]
        text = Text.assemble(("grep ", "dim"), (" ".join(shown), "cyan"))
        text.append(f" and {len(shared) - len(shown)} more (-v)" if len(shown) < len(shared) else "", "dim")
        page.line(text.append(f" in the log of {', '.join(services)}", "dim"), 2, hang=5)


def _calls(page: Page, verdict: Verdict) -> None:
    for call in verdict.calls:
        since = offset(call.started_ns, verdict.started_ns)
        row = Text.assemble((f"{call.index:>6} {since:>8} {call.step or '':<3}", "dim"))
        row.append(plain(call.line, 300), "red" if refused(call) else "")
        row.append(f"  {duration(call.duration_ns)}", "dim")
        row.append(f"  {fragment(call.evidence[0], page.names)}" if call.evidence else "", "cyan")
        page.line(row, 2, hang=19)


# --- the step table ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    width: int
    right: bool = False


def _columns(page: Page, indent: int) -> list[_Column]:
    """The columns share the width: the call has what the longest documented one needs, then the title."""
    frames = 10 if page.width < 100 else 22 if page.width < _WIDE else 42
    room = page.width - indent - (4 + 11 + 8 + 7) - frames - 2 * 5
    title = min(46, room - 2 - _CALL_WIDTH)
    title = title if title >= _TITLE_LEAST else 0
    call = max(20, min(room - title - (2 if title else 0), 100))
    columns = [
        _Column("step", 4),
        _Column("what", title),
        _Column("status", 11),
        _Column("since", 8, True),
        _Column("took", 7, True),
        _Column("call", call),
        _Column("frames", frames),
    ]
    return [column for column in columns if column.width]


def _steps(page: Page, steps: Sequence[StepResult], verdict: Verdict, indent: int, head: bool = True) -> None:
    """A row for each step. Not rich's Table: it pads every row to the right edge, which pipes carry on."""
    columns = _columns(page, indent)
    if head and steps:
        _row(page, columns, {column.title: Text(column.title, "dim") for column in columns}, indent)
    room = next(column.width for column in columns if column.title == "call")
    titled = any(column.title == "what" for column in columns)
    for step in steps:
        status, style = step_status(step, verdict)
        group = witnesses(step, verdict)
        cells = {
            "step": Text(step.step, style),
            "what": Text(plain(step.title, 80), "dim" if "dim" in style else ""),
            "status": Text(status, style),
            "since": Text(offset(step.started_ns, verdict.started_ns)),
            "took": Text(duration(step.duration_ns)),
            "call": _witness_words(step, group, room, titled),
            "frames": Text(_frames(page, group, columns[-1].width), "cyan"),
        }
        _row(page, columns, cells, indent)


def _row(page: Page, columns: Sequence[_Column], cells: Mapping[str, Text], indent: int) -> None:
    row = Text(" " * indent)
    for column in columns:
        cell = cells[column.title].copy()
        cell.truncate(column.width, overflow="ellipsis")
        space = " " * (column.width - cell.cell_len)
        row.append(space if column.right else "").append_text(cell).append(
            "  " if column.right else space + "  "
        )
    row.rstrip()
    page.console.print(row, soft_wrap=True)


def _frames(page: Page, group: Sequence[CallRecord], width: int) -> str:
    """The frame of each call; of a single call all its frames; as many as fit."""
    places = (
        [call.evidence[0] for call in group if call.evidence]
        if len(group) > 1
        else [place for call in group for place in call.evidence]
    )
    text = ""
    for place in dict.fromkeys(places):
        longer = f"{text} {fragment(place, page.names)}".strip()
        if text and len(longer) > width:
            break
        text = longer
    return text


def step_status(step: StepResult, verdict: Verdict) -> tuple[str, str]:
    owed = verdict.outcome == "stuck" and step.step == verdict.stopped_at
    if owed and step.status in ("missing", "not_reached"):
        return "OWED", "bold red"
    return _STATUS.get(step.status, (step.status, ""))


def _witness_words(step: StepResult, group: Sequence[CallRecord], room: int, titled: bool) -> Text:
    if not group:
        words = plain(step.reason, 200) if step.status != "unobserved" else ""
        return Text(words or ("" if titled else plain(step.title, 80)), "dim" if not words else "")
    more = f" ×{len(group)}" if len(group) > 1 else ""
    others = sum(call not in group for call in step.calls)
    more += f" (+{others})" if others else ""
    more += " shared" if step.calls and all(call.ambiguous for call in step.calls) else ""
    bad = refused(group[0])
    words = call_words(group[0], room - len(more))
    return Text.assemble((words, "red" if bad else ""), (more, "bold" if bad else "dim"))


# --- all traces -------------------------------------------------------------------------------------


def _totals(page: Page, report: Report, cut: int) -> None:
    if report.partial:
        page.line(Text("interrupted: the captures were read in part, and so is this report", "bold yellow"))
    if not report.verdicts:
        return
    counts = Counter(verdict.verdict for verdict in report.verdicts)
    outcomes = Counter(verdict.outcome for verdict in report.verdicts)
    text = Text.assemble((f"{plural(len(report.verdicts), 'trace')}: ", "bold"))
    comma = ""
    for verdict, one, many in (
        ("conforms", "conforms", "conform"),
        ("deviates", "deviates", "deviate"),
        ("inconclusive", "inconclusive", "inconclusive"),
    ):
        if count := counts[verdict]:
            text.append(comma).append(f"{count:,} {one if count == 1 else many}", _STYLES[verdict])
            comma = ", "
    became = ", ".join(f"{count:,} {outcome}" for outcome, count in outcomes.most_common())
    page.line(text.append(f"  ({became})", "dim"))
    _clusters(page, report.verdicts)
    if cut:
        page.line(Text(f"{plural(cut, 'trace')} shown by one line each; -v shows their steps too", "dim"))


def _clusters(page: Page, verdicts: Sequence[Verdict]) -> None:
    """Where creations stopped, when several did: one broken service makes many broken VMs."""
    broken = [verdict for verdict in verdicts if verdict.stopped_at or verdict.stopped_between]
    members: dict[str, list[Verdict]] = {}
    for verdict in broken:
        members.setdefault(stop_words(verdict), []).append(verdict)
    ranked = sorted(members.items(), key=lambda item: -len(item[1]))
    if not ranked or len(ranked[0][1]) < 2:
        return
    for where, group in ranked[:10]:
        names = [plain(verdict.name or verdict.id, 30) for verdict in group[:3]]
        more = ", …" if len(group) > 3 else ""
        text = Text.assemble((f"{len(group):>5,} of {len(broken):,} ", "bold"), where)
        page.line(text.append(f"  ({', '.join(names)}{more})", "dim"), 0, hang=8)
    if len(ranked) > 10:
        page.line(Text(f"      and {len(ranked) - 10} other places", "dim"))


def _nothing(page: Page, report: Report) -> None:
    packets = sum(capture.packets for capture in report.captures)
    where = f"{plural(len(report.captures), 'capture')} ({plural(packets, 'packet')})"
    page.line(Text(f"No trace of {plain(report.grammar, 80)} found in {where}.", "bold yellow"))
    if report.seen:
        page.line("seen instead:", 2)
    else:
        page.line("nothing else was seen either: no call of any protocol that tracer reads", 2)
    for words, count in report.seen:
        page.line(f"{count:>9,}  {plain(words, 200)}", 2, hang=11)


# --- the captures -----------------------------------------------------------------------------------


def _captures(page: Page, report: Report) -> None:
    """What the captures are called here, and what they lost."""
    used = {path for verdict in report.verdicts for path in _shown_paths(verdict, page.verbose)}
    for capture in report.captures:
        lost = losses(capture)
        abbreviated = capture.path in used and page.names[capture.path] != capture.path
        if not (lost or page.verbose or abbreviated):
            continue
        name = f"{page.names[capture.path]}# is " if abbreviated else ""
        text = Text.assemble((f"{name}{plain(capture.path, 200)}", "cyan"))
        if page.verbose or lost:
            text.append(f"  {plural(capture.packets, 'packet')}, {plural(capture.calls, 'call')}", "dim")
        if page.verbose:
            planes = ", ".join(plain(plane, 40) for plane in sorted(capture.planes))
            text.append(f", {planes or 'no plane'}", "dim")
            if capture.first_ns is not None and capture.last_ns is not None:
                text.append(f", {clock(capture.first_ns)} to {clock(capture.last_ns)}", "dim")
        text.append(f"  {lost}" if lost else "", "yellow")
        page.line(text, hang=4)
    for words in report.advice:
        page.line(Text.assemble(("advice: ", "bold"), plain(words, 400)), hang=8)


def _shown_paths(verdict: Verdict, verbose: int) -> set[str]:
    if verdict.verdict == "conforms" and not verbose:
        return set()
    return {call.evidence[0][0] for call in verdict.calls if call.evidence}
