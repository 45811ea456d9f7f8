"""A page of text: its console and width, and the step table that `check` and `watch` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from tracer.model import CallRecord, Report, StepResult, Verdict
from tracer.reports import (
    call_words,
    duration,
    file_names,
    fragment,
    offset,
    plain,
    refused,
    shown_status,
    witnesses,
)

__all__ = ["STATUSES", "Page", "step_status", "steps"]

_NARROW, _WIDE = 100, 180
"""Below _NARROW columns frames have a line of their own; from _WIDE on they have complete file names."""
_CALL_WIDTH = 62
_TITLE_LEAST = 24

STATUSES = {
    "seen": ("ok", "green"),
    "inferred": ("inferred", "green dim"),
    "failed": ("FAILED", "bold red"),
    "missing": ("MISSING", "bold red"),
    "unobserved": ("unobserved", "yellow"),
    "skipped": ("skipped", "dim"),
    "not_reached": ("not reached", "dim"),
    # Derived from the others by the end of the creation:
    "owed": ("OWED", "bold red"),
    "retrying": ("retrying", "bold yellow"),
    "open": ("not ended", "bold red"),
    "refused": ("refused", "green"),
    "unanswered": ("no answer", "yellow"),
    "given_up": ("gave up", "yellow"),
    "sent": ("sent", "yellow"),
}
"""Status of a step -> its text and style."""


@dataclass(slots=True)
class Page:
    """The console to write to, its width, and the short names of the captures."""

    console: Console
    names: Mapping[str, str]
    verbose: int
    grammar: str = ""
    """The grammar of the report; a trace that was checked against another says so."""

    @classmethod
    def of(cls, report: Report, console: Console, verbose: int) -> Page:
        """Return the page for *report* on *console*; capture names depend on its width."""
        paths = [capture.path for capture in report.captures]
        return cls(console, file_names(paths, short=console.width < _WIDE), verbose, report.grammar)

    @property
    def width(self) -> int:
        """Columns of the console."""
        return self.console.width

    @property
    def encodable(self) -> bool:
        """Whether the console can write more than ASCII."""
        return self.console.encoding.lower().startswith("utf")

    def line(self, text: Text | str, indent: int = 0, hang: int = 2) -> None:
        """Write one line: on a terminal wrapped with a hanging indent, into a pipe unchanged."""
        text = Text(text) if isinstance(text, str) else text
        if not self.console.is_terminal:
            self.console.print(Text.assemble(" " * indent, text), soft_wrap=True)
            return
        rows = text.wrap(self.console, max(20, self.width - indent - hang))
        for number, row in enumerate(rows):
            row.rstrip()
            self.console.print(Text(" " * (indent + (hang if number else 0))) + row, soft_wrap=True)


# --- the step table ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    width: int
    right: bool = False


def _columns(page: Page, indent: int, usual: bool) -> list[_Column]:
    """Divide the width: first what the longest documented call needs, then the title."""
    narrow = page.width < _NARROW
    frames = 0 if narrow else 22 if page.width < _WIDE else 42
    columns = [
        _Column("step", 4),
        _Column("what", 0),
        _Column("status", 11),
        _Column("since", 8, True),
        _Column("took", 7, True),
        _Column("usual", 7 if usual and not narrow else 0, True),
        _Column("call", 0),
        _Column("frames", frames),
    ]
    room = page.width - indent - sum(column.width + 2 for column in columns if column.width)
    title = min(46, room - 2 - _CALL_WIDTH)
    title = title if title >= _TITLE_LEAST else 0
    call = max(20, min(room - title - (2 if title else 0), 100))
    widths = {"what": title, "call": call}
    columns = [_Column(c.title, widths.get(c.title, c.width), c.right) for c in columns]
    return [column for column in columns if column.width]


def steps(page: Page, found: Sequence[StepResult], verdict: Verdict, indent: int, head: bool = True) -> None:
    """Write a row for each step. Not with rich's Table, which pads rows with blanks, in a pipe too."""
    columns = _columns(page, indent, any(step.usual_ns is not None for step in verdict.steps))
    if head and found:
        _row(page, columns, {column.title: Text(column.title, "dim") for column in columns}, indent)
    room = next(column.width for column in columns if column.title == "call")
    titled = any(column.title == "what" for column in columns)
    below = 0 if columns[-1].title == "frames" else indent + sum(c.width + 2 for c in columns[:-1])
    slow = {note.step for note in verdict.notes if note.kind == "slow"}
    for step in found:
        status, style = step_status(step, verdict)
        group = witnesses(step, verdict)
        call = _witness_words(step, group, room, titled)
        frames = Text(_frames(page, group, room if below else columns[-1].width), "cyan")
        if below and frames and call.cell_len + 2 + frames.cell_len <= room:
            call.append("  ").append_text(frames)
            frames = Text()
        cells = {
            "step": Text(step.step, style),
            "what": Text(plain(step.title, 80), "dim" if "dim" in style else ""),
            "status": Text(status, style),
            "since": Text(offset(step.started_ns, verdict.started_ns)),
            "took": Text(duration(step.duration_ns), "bold yellow" if step.step in slow else ""),
            "usual": Text(duration(step.usual_ns), "dim"),
            "call": call,
            "frames": frames,
        }
        _row(page, columns, cells, indent)
        if below and frames:
            page.console.print(Text(" " * below).append_text(frames), soft_wrap=True)


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
    """Return the frame of each call, or all frames of a single call; as many as fit."""
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
    """Return the text of a step's status, and its style."""
    return STATUSES[shown_status(step, verdict)]


def _witness_words(step: StepResult, group: Sequence[CallRecord], room: int, titled: bool) -> Text:
    if not group:
        words = plain(step.reason, 200) if step.status != "unobserved" else ""
        return Text(words or ("" if titled else plain(step.title, 80)), "dim" if not words else "")
    more = f" ×{len(group)}" if len(group) > 1 else ""
    others = [call for call in step.calls if call not in group]
    failed = sum(map(refused, others)) if not refused(group[0]) else 0
    more += f" (+{len(others)}{f', {failed} failed' if failed else ''})" if others else ""
    more += " shared" if step.calls and all(call.ambiguous for call in step.calls) else ""
    bad = refused(group[0])
    words = call_words(group[0], room - len(more))
    return Text.assemble((words, "red" if bad else ""), (more, "bold" if bad or failed else "dim"))
