"""Writes the text of `tracer show`: one creation as a ladder diagram, as telephony tools draw it.

Each role has a column, each call a row; time runs downwards. A label that does not fit into its arrow is
written beside it, over the lifelines of other roles, so that every call needs only one row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from tracer.model import CallRecord, Report, StepResult, Verdict
from tracer.openstack.services import FLOW, SERVICES
from tracer.reports import asked_words, duration, fragment, offset, plain, plural, refused
from tracer.reports.page import Page, step_status
from tracer.reports.sequence import attempt_words, look
from tracer.reports.trace import begin, conclude

__all__ = ["render"]

_ROLES = {s.role: (s.column or s.role, s.narrow or s.role) for s in SERVICES if s.role in FLOW}
"""Roles in flow order, with their names in a narrow and in a very narrow column."""
_LINES = {"External_api": "═", "External_om": "┄"}
_LINE = "─"
_STYLES = {"RPC": "cyan", "SQL": "blue"}
_ASCII = str.maketrans(
    {
        "═": "=",
        "┄": ".",
        "─": "-",
        "│": "|",
        "▶": ">",
        "◀": "<",
        "├": "+",
        "┤": "+",
        "╌": "-",
        "✗": "x",
        "×": "x",
        "…": "~",
        "→": ">",
        "·": ",",
    }
)
_LEAST, _MOST = 6, 24
_NEVER_ARRIVED = frozenset({"refused", "none", "unroutable", "undelivered"})


@dataclass(slots=True)
class _Row:
    """One call, or consecutive calls of the same kind."""

    call: CallRecord
    count: int = 1


@dataclass(slots=True)
class _Sheet:
    """The geometry of the diagram: the column of every role's lifeline, and the gutters beside them."""

    page: Page
    places: Mapping[str, int]
    names: Mapping[str, str]
    body: int
    deltas: bool

    def blank(self) -> list[str]:
        cells = [" "] * self.body
        for place in self.places.values():
            cells[place] = "│"
        return cells

    def write(self, text: Text) -> None:
        text.rstrip()
        if not self.page.encodable:
            text.plain = text.plain.translate(_ASCII)
        self.page.console.print(text, soft_wrap=True)


def render(verdict: Verdict, report: Report, console: Console, verbose: int = 0) -> None:
    """Write one trace as a diagram; with *verbose* the calls outside the documented steps too."""
    page = Page.of(report, console, verbose)
    begin(page, verdict)
    page.line("")
    # Without a call of any step the other calls are all there is to show.
    shown = [call for call in verdict.calls if call.step or verbose] or list(verdict.calls)
    rows = _folded(shown, verdict)
    sheet = _sheet(page, rows)
    _header(sheet)
    _rungs(sheet, verdict, rows)
    page.line("")
    conclude(page, verdict)
    hidden = len(verdict.calls) - len(shown)
    if hidden:
        page.line(
            Text(f"{plural(hidden, 'call')} outside the documented steps hidden; -v draws them", "dim"), 2
        )
    _key(page, rows)
    page.line("")


def _folded(calls: Sequence[CallRecord], verdict: Verdict) -> list[_Row]:
    rows: list[_Row] = []
    for call in calls:
        if rows and look(rows[-1].call, verdict) == look(call, verdict):
            rows[-1].count += 1
        else:
            rows.append(_Row(call))
    return rows


# --- the sheet --------------------------------------------------------------------------------------


def _sheet(page: Page, rows: Sequence[_Row]) -> _Sheet:
    """Divide the width among the roles; with many roles the time deltas are left out."""
    used = dict.fromkeys(end for row in rows for end in (row.call.caller, row.call.callee))
    roles = [role for role in _ROLES if role in used] + [role for role in used if role not in _ROLES]
    right = max((len(_place(page, row.call)) for row in rows), default=0) + 2
    deltas = page.width - 22 - right >= _LEAST * len(roles)
    room = page.width - (22 if deltas else 14) - right
    width = max(4, min(_MOST, room // max(len(roles), 1)))
    places = {role: number * width + width // 2 for number, role in enumerate(roles)}
    names = {role: _name(role, width - 1) for role in roles}
    # With few roles, room is left on the right for the labels of the last ones.
    body = max(width * len(roles), min(room, width * len(roles) + 44))
    return _Sheet(page, places, names, body, deltas)


def _name(role: str, width: int) -> str:
    names = (_narrow(plain(role, 40)), *_ROLES.get(role, ()))
    return next((name for name in names if len(name) <= width), plain(names[-1], max(width, 2)))


def _place(page: Page, call: CallRecord) -> str:
    return fragment(call.evidence[0], page.names) if call.evidence else ""


def _gutter(sheet: _Sheet, step: str | None, since: str, delta: str) -> str:
    return f"{step or '':<4}{since:>9} " + (f"{delta:>7} " if sheet.deltas else "")


def _header(sheet: _Sheet) -> None:
    cells = [" "] * (sheet.body + 8)
    for role, place in sheet.places.items():
        name = sheet.names[role]
        start = max(0, place - len(name) // 2)
        cells[start : start + len(name)] = name
    head = _gutter(sheet, "step", "since", "delta") + "".join(cells)
    sheet.write(Text(head, "bold"))


# --- the rungs --------------------------------------------------------------------------------------


def _rungs(sheet: _Sheet, verdict: Verdict, rows: Sequence[_Row]) -> None:
    order = {step.step: number for number, step in enumerate(verdict.steps)}
    absent = [step for step in verdict.steps if _is_absent(step, verdict)]
    attempts = list(enumerate(verdict.attempt_details, start=1))[1:]
    before: int | None = None
    for row in rows:
        call = row.call
        while attempts and call.started_ns >= attempts[0][1].started_ns:
            number, _ = attempts.pop(0)
            _band(sheet, "", attempt_words(number, verdict.attempt_details), "bold")
        due = [step for step in absent if call.step and order.get(call.step, -1) > order[step.step]]
        absent = absent[len(due) :]
        _absences(sheet, due, verdict)
        sheet.write(_rung(sheet, row, verdict.started_ns, before))
        before = call.started_ns
    _absences(sheet, absent, verdict)


def _is_absent(step: StepResult, verdict: Verdict) -> bool:
    """Return whether *step* needs a row of its own: no arrow shows it, or none that it failed."""
    status, _ = step_status(step, verdict)
    if status == "FAILED":
        return not any(call.step == step.step and refused(call) for call in verdict.calls)
    return not step.calls and status in ("unobserved", "MISSING", "OWED")


def _absences(sheet: _Sheet, steps: Sequence[StepResult], verdict: Verdict) -> None:
    """Write rows for missing, failed and unobserved steps; unobserved ones with one reason share a row."""
    unseen: dict[str, list[str]] = {}
    for step in steps:
        if step.status == "unobserved":
            unseen.setdefault(plain(step.reason, 200), []).append(step.step)
    for why, names in unseen.items():
        _band(
            sheet,
            names[0] if len(names) == 1 else "",
            f"? {', '.join(names)} not observed{': ' + why if why else ''}",
            "yellow",
        )
    for step in steps:
        status, style = step_status(step, verdict)
        if step.status != "unobserved":
            why = plain(step.reason, 200)
            words = why if why.startswith(status.lower()) else f"{status}{': ' + why if why else ''}"
            sign = "✗" if status == "FAILED" else "?"
            _band(sheet, step.step, f"{sign} {plain(step.title, 60)} – {words}", style)


def _band(sheet: _Sheet, step: str, words: str, style: str) -> None:
    """Return a dashed row over all columns, for something that is no call."""
    room = sheet.page.width - len(_gutter(sheet, "", "", "")) - 6
    label = f" {words if len(words) <= room else words[: room - 1] + '…'} "
    line = f"╌╌{label}".ljust(sheet.body, "╌")
    sheet.write(Text(_gutter(sheet, step, "", "") + line, style))


def _rung(sheet: _Sheet, row: _Row, origin_ns: int, before: int | None) -> Text:
    call = row.call
    style = _style(call)
    since = offset(call.started_ns, origin_ns)
    delta = "" if before is None else f"{(call.started_ns - before) / 1e9:.3f}"
    cells, drawn = _drawn(sheet, row)
    body = Text("".join(cells))
    body.stylize("dim")
    for start, end in drawn:
        body.stylize(f"not dim {style}" if call.step else style, start, end)
    return Text.assemble(
        (f"{call.step or '':<4}", "bold red" if refused(call) else "bold"),
        (_gutter(sheet, None, since, delta)[4:], "dim"),
        body,
        (f"  {_place(sheet.page, call)}", "cyan"),
    )


def _style(call: CallRecord) -> str:
    if refused(call):
        return "bold red"
    return _STYLES.get(call.protocol, "default") if call.step else "dim"


def _drawn(sheet: _Sheet, row: _Row) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the cells of a row, and which of them belong to the call."""
    call = row.call
    cells = sheet.blank()
    start, end = sheet.places[call.caller], sheet.places[call.callee]
    low, high = min(start, end), max(start, end)
    if low == high:
        cells[low] = "↺" if sheet.page.encodable else "@"
    else:
        line = _LINES.get(call.plane, _LINE)
        cells[low + 1 : high] = line * (high - low - 1)
        arrived = call.result not in _NEVER_ARRIVED
        cells[end + (-1 if end > start else 1)] = ("▶" if end > start else "◀") if arrived else "✗"
    at, label = _label(sheet, row, low, high, towards_right=end > start)
    cells[at : at + len(label)] = label
    return cells, [(low + (low != high and low != start), high + (low == high)), (at, at + len(label))]


def _label(sheet: _Sheet, row: _Row, low: int, high: int, towards_right: bool) -> tuple[int, str]:
    """Place the label in the arrow, right of it or left of it; else cut it to the largest of these places."""
    within, right, left = high - low - 4, sheet.body - high - 2, low - 2
    for label in _labels(row):
        size = len(label)
        if size <= within - 2:
            # Over the line of the arrow, not over its head.
            return low + (1 if towards_right else 2) + (within + 1 - size) // 2, f" {label} "
        if size <= right:
            return high + 1, f" {label} " if size + 2 <= sheet.body - high - 1 else f" {label}"
        if size <= left:
            return low - size - 1, f"{label} "
    room, at = max((within - 2, 0), (right, 1), (left, 2))
    label = _cut(row, max(room, 4))
    if at == 0:
        return low + 2, f" {label} "
    return (high + 1, f" {label}") if at == 1 else (max(low - len(label) - 1, 0), f"{label} ")


def _labels(row: _Row) -> Iterator[str]:
    """Return the forms of the label: in full, then without its duration."""
    call = row.call
    short = f"{_narrow(plain(asked_words(call), 80))} {_end(row)}"
    took = duration(call.duration_ns) if call.duration_ns and call.duration_ns >= 100_000_000 else ""
    if took and row.count == 1:
        yield f"{short} · {took}"
    yield short


def _cut(row: _Row, room: int) -> str:
    end = _end(row)
    return f"{_narrow(plain(asked_words(row.call), 80))[: max(room - len(end) - 2, 0)]}… {end}"


def _end(row: _Row) -> str:
    result = _narrow(plain(row.call.result, 40))
    return f"{result} × {row.count}" if row.count > 1 else result


def _narrow(text: str) -> str:
    """Return *text* in characters that are one cell wide, because it is written into a grid."""
    return text if cell_len(text) == len(text) else text.encode("ascii", "backslashreplace").decode()


def _key(page: Page, rows: Sequence[_Row]) -> None:
    """Write the legend of line styles and file names."""
    planes = dict.fromkeys(row.call.plane for row in rows)
    lines = [f"{_LINES.get(plane, _LINE) * 2} {plain(plane, 40)}" for plane in planes]
    used = dict.fromkeys(row.call.evidence[0][0] for row in rows if row.call.evidence)
    files = [
        f"{page.names.get(path, path)}# is {plain(path, 200)}"
        for path in used
        if page.names.get(path, path) != path
    ]
    text = Text(" · ".join([*lines, *files]), "dim")
    if not page.encodable:
        text.plain = text.plain.translate(_ASCII)
    page.line(text, 2, hang=4)
