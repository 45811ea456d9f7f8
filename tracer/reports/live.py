"""Draws the live view: one row for each creation in progress, and the state of planes and brokers.

Finished creations scroll upwards with their verdict, into the terminal's history. Every mark is a different
character, so the view can be read without colours; without UTF-8 the marks are ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from tracer.model import StepResult
from tracer.model.events import BrokerQueue, Event, OpenTrace, Picture, Plane
from tracer.reports import clock, lead, plain, plural
from tracer.reports.events import text_line

__all__ = ["View", "picture", "view"]

_LEAST_ROWS = 3
_OTHER_LINES = 6
"""Lines of the screen that are no rows of traces."""
_NAME_WIDTH = (12, 34)
_WIDE = 120
"""From this width on, a row has the server's id and the host too."""
_MARKS = {
    "seen": ("●", "*", "green"),
    "inferred": ("○", "o", "green"),
    "skipped": ("–", "-", "dim"),
    "failed": ("✗", "x", "bold red"),
    "missing": ("✗", "x", "bold red"),
    "unobserved": ("?", "?", "yellow"),
    "next": ("▸", ">", "bold cyan"),
    "stalled": ("▲", "!", "bold yellow"),
    "not_reached": ("·", ".", "dim"),
}
_EVENT_STYLES = {"conforms": "green", "deviates": "bold red", "inconclusive": "yellow"}
_PLACE = re.compile(r"(\d+)(\w*)")


def picture(shown: Picture, console: Console, rows: int) -> RenderableType:
    """Return the view of *shown*, as wide as *console* is, with at most *rows* traces."""
    page = _Page(console)
    traces = sorted(shown.open, key=lambda each: (each.announced != "stuck", each.verdict.started_ns))
    lines = [_title(shown, page)]
    if traces:
        lines.append(_head(traces[0], page))
        lines += [_row(each, shown.now_ns, page) for each in traces[:rows]]
    if len(traces) > rows:
        lines.append(Text(f"  and {plural(len(traces) - rows, 'more creation')}", "dim"))
    if not traces:
        lines.append(Text("  no creation in progress", "dim"))
    lines += [_plane(plane) for plane in shown.planes]
    lines += [_queue(queue, shown.now_ns) for queue in shown.queues[:3]]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis" if page.encodable else "crop"
        line.truncate(console.width, overflow=line.overflow)
    return Group(*lines)


class _Page:
    """The width of the view, and the characters that the console can write."""

    def __init__(self, console: Console) -> None:
        self.width = console.width
        self.is_wide = console.width >= _WIDE
        self.encodable = console.encoding.lower().startswith("utf")

    @property
    def name_width(self) -> int:
        least, most = _NAME_WIDTH
        return max(least, min(most, self.width // 5))

    def mark(self, status: str) -> tuple[str, str]:
        fine, coarse, style = _MARKS.get(status, _MARKS["not_reached"])
        return (fine if self.encodable else coarse), style


def _title(shown: Picture, page: _Page) -> Text:
    """Return the title: capture time, and how many creations are done."""
    words = Text()
    words.append(f"{clock(shown.now_ns)[:8] if shown.now_ns else '--:--:--'} UTC  ", "bold")
    words.append(f"{len(shown.open)} in progress", "bold" if shown.open else "")
    for verdict in ("conforms", "deviates", "inconclusive"):
        count = shown.verdicts[verdict]
        style = _EVENT_STYLES[verdict] if count else "dim"
        words.append(
            f"  {count:,} {verdict if count == 1 or verdict == 'inconclusive' else verdict[:-1]}", style
        )
    words.append(f"  {shown.calls_per_second:,.0f} calls/s", "dim")
    return words


def _places(steps: Sequence[StepResult]) -> list[list[StepResult]]:
    """Return the steps grouped by their leading number: 4a to 4e share one column."""
    return [list(group) for _, group in groupby(steps, key=lambda step: _place(step.step)[0])]


def _place(name: str) -> tuple[str, str]:
    match = _PLACE.fullmatch(name)
    return (match[1], match[2]) if match else (name, "")


def _head(trace: OpenTrace, page: _Page) -> Text:
    """Return the heading, with the names of the steps over their marks."""
    names = []
    for group in _places(trace.verdict.steps):
        number, part = _place(group[0].step)
        names.append(number + "".join(_place(s.step)[1][:1] for s in group) if part else number)
    columns = [f"{'VM':<{page.name_width}}"]
    if page.is_wide:
        columns += [f"{'server':<9}", f"{'host':<12}"]
    columns += [f"{'age':>7}", " ".join(names), "waits for"]
    return Text("  " + "  ".join(columns), "dim")


def _row(trace: OpenTrace, now_ns: int, page: _Page) -> Text:
    verdict = trace.verdict
    row = Text("  ")
    name = plain(trace.name, page.name_width)
    row.append(f"{name:<{page.name_width}}  ", "bold")
    if page.is_wide:
        row.append(f"{lead(verdict.server_id or ''):<9}  ", "dim")
        row.append(f"{plain(verdict.compute_host or '', 12):<12}  ")
    row.append(f"{_age(now_ns - verdict.started_ns):>7}  ")
    stalled = trace.announced == "stuck"
    came = [number for number, step in enumerate(verdict.steps) if step.status in ("seen", "failed")]
    behind = {step.step for step in verdict.steps[came[-1] + 1 :]} if came else set()
    for number, group in enumerate(_places(verdict.steps)):
        row.append(" " if number else "")
        if _place(group[0].step)[1]:
            row.append(" ")
        for step in group:
            # While a creation goes on, a step that was not seen yet may still come: it is not marked missing.
            status: str = "unobserved" if step.status == "missing" else step.status
            if status == "unobserved" and step.step in behind:
                status = "not_reached"
            if step.step == verdict.stopped_at and verdict.outcome in ("stuck", "unfinished"):
                status = "stalled" if stalled else "next"
            row.append(*page.mark(status))
    row.append("  ")
    row.append_text(_waits(trace, now_ns, stalled))
    return row


def _waits(trace: OpenTrace, now_ns: int, stalled: bool) -> Text:
    """Return which role owes the next step, for how long, and why."""
    verdict = trace.verdict
    if verdict.outcome not in ("stuck", "unfinished"):
        return Text(plain(verdict.summary, 200), _EVENT_STYLES.get(verdict.verdict, ""))
    quiet_ns = max(0, now_ns - trace.quiet_since_ns)
    words = Text()
    words.append(f"{_age(quiet_ns):>7}", "bold yellow" if stalled else "dim")
    words.append(f"  {plain(trace.owes, 60) or 'nobody known'}", "bold yellow" if stalled else "")
    if trace.why:
        words.append(f": {plain(trace.why, 160)}", "yellow" if stalled else "dim")
    return words


def _age(age_ns: int) -> str:
    seconds = max(0, age_ns) / 1e9
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} m {int(seconds) % 60:02d}" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _plane(plane: Plane) -> Text:
    name = plane.plane or "capture point"
    is_broker = plane.plane == "broker"
    line = Text()
    line.append(f"  {plain(name, 20):<15}", "dim")
    line.append(f"{plain(plane.name, 40)}  ", "")
    line.append(f"{plane.per_second:,.0f} {'messages' if is_broker else 'packets'}/s", "dim")
    if plane.dropped:
        what, who = ("message", "broker") if is_broker else ("packet", "kernel")
        line.append(f"  {plural(plane.dropped, what)} DROPPED by the {who}", "bold red")
    if plane.gaps:
        line.append(f"  {plural(plane.gaps, 'gap')}", "yellow")
    if plane.state:
        line.append(f"  {plain(plane.state, 60)}", "yellow")
    return line


def _queue(queue: BrokerQueue, now_ns: int) -> Text:
    line = Text()
    line.append(f"  {'queue':<15}", "dim")
    line.append(f"{plain(queue.name, 40)}  ")
    line.append(f"{plural(queue.waiting, 'message')} undelivered", "yellow")
    line.append(f" for {_age(now_ns - queue.oldest_ns)}", "yellow")
    if queue.consumers == 0:
        line.append("  no consumer", "bold red")
    return line


class View:
    """Draws pictures in place and writes lines that scroll above them."""

    def __init__(self, live: Live, console: Console) -> None:
        self._live = live
        self._console = console

    def tell(self, event: Event) -> None:
        """Write a line for *event*; a step gets none, as it only changes a mark of its row."""
        if event.kind in ("trace_opened", "step_seen", "resumed", "withdrawn"):
            return
        style = "yellow" if event.verdict is None or event.kind == "stalled" else ""
        if event.kind == "verdict" and event.verdict is not None:
            style = _EVENT_STYLES.get(event.verdict.verdict, "")
        self._console.print(Text(text_line(event), style), soft_wrap=True)

    def draw(self, shown: Picture) -> None:
        """Replace the picture by *shown*."""
        rows = max(_LEAST_ROWS, self._console.height - _OTHER_LINES - len(shown.planes))
        self._live.update(picture(shown, self._console, rows), refresh=True)


@contextmanager
def view(console: Console) -> Iterator[View]:
    """Open a live view on *console*; at the end it is removed, and the lines above it stay."""
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop") as live:
        yield View(live, console)
