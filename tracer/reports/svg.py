"""Draws ladder and waterfall as one SVG picture, for tickets and wikis; several traces below each other.

The background is white in every surrounding. The picture has nothing that an image may not have: no script,
no font, no link.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.etree import ElementTree

from tracer.model import Report, Verdict
from tracer.reports import asked_words, duration, offset, plain, refused
from tracer.reports.sequence import Mark, Row, arrives, entries, in_flow_order, rows

__all__ = ["pieces"]

_MARGIN, _GUTTER, _COLUMN, _ROW, _HEAD = 24, 150, 118, 31, 40
_LEAST_WIDTH = 900
_LABEL, _BARS, _BAR_ROW = 330, 640, 19
_CHARACTER = 6.65
"""Width in px of a character in the labels' fixed-width font of 11 px."""
_PLANES = ("#2457c5", "#a8460f", "#0c7a74", "#7a3fb3", "#6b6f1f")
_TEXT, _QUIET, _LINE, _SOFT, _BAD, _BAD_SOFT, _DOUBT, _DOUBT_SOFT = (
    "#1c1f24", "#667080", "#d5d8de", "#f1f2f5", "#c8292f", "#fdecec", "#8a5600", "#fdf3e0",
)  # fmt: skip
_BANDS = {
    "deviation": (_BAD_SOFT, _BAD, "✗ "),
    "missing": (_BAD_SOFT, _BAD, "✗ "),
    "unobserved": (_DOUBT_SOFT, _DOUBT, "? "),
    "attempt": (_SOFT, _TEXT, "↻ "),
    "rest": (_SOFT, _QUIET, "… "),
}
_VERDICTS = {"conforms": ("✓", "#1a7f4b"), "deviates": ("✗", _BAD), "inconclusive": ("?", _DOUBT)}
_STYLE = (
    "text{font-family:system-ui,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;font-size:12px}"
    ".m{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;font-size:11px;"
    "paint-order:stroke;stroke:#fff;stroke-width:4px;stroke-linejoin:round}"
    ".g{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;font-size:11px}"
)


def pieces(report: Report) -> Iterator[bytes]:
    """Yield the picture as XML in UTF-8."""
    sheet = _Sheet(report.verdicts)
    top = float(_MARGIN)
    for verdict in report.verdicts:
        top = _Picture(sheet, verdict, top).draw() + 2 * _MARGIN
    if not report.verdicts:
        sheet.text(_MARGIN, top + 14, "no creation of a VM found", fill=_QUIET)
        top += 40
    sheet.root.set("height", _number(top))
    sheet.root.set("viewBox", f"0 0 {_number(sheet.width)} {_number(top)}")
    ElementTree.indent(sheet.root, " ")
    yield b'<?xml version="1.0" encoding="UTF-8"?>\n'
    yield ElementTree.tostring(sheet.root, encoding="utf-8") + b"\n"


class _Sheet:
    """The elements of the picture; it is as wide as its widest trace."""

    def __init__(self, verdicts: Sequence[Verdict]) -> None:
        columns = max((len(_roles(verdict)) for verdict in verdicts), default=0)
        ladder = _GUTTER + _COLUMN * columns
        self.width = max(_LEAST_WIDTH, ladder, _LABEL + _BARS) + 2 * _MARGIN
        self.root = ElementTree.Element(
            "svg", {"xmlns": "http://www.w3.org/2000/svg", "width": _number(self.width), "height": "0"}
        )
        self.put("style").text = _STYLE
        self.put("rect", width="100%", height="100%", fill="#fff")

    def put(self, tag: str, **attributes: str | float) -> ElementTree.Element:
        """Add an element; `_` in an attribute's name is written as `-`."""
        written = {
            key.replace("_", "-"): value if isinstance(value, str) else _number(value)
            for key, value in attributes.items()
        }
        return ElementTree.SubElement(self.root, tag, written)

    def text(self, x: float, y: float, words: str, **attributes: str) -> None:
        self.put("text", x=x, y=y, **attributes).text = words


def _roles(verdict: Verdict) -> list[str]:
    used: list[str] = []
    for entry in entries(verdict):
        used += (entry.call.caller, entry.call.callee) if isinstance(entry, Row) else entry.ends or ()
    return in_flow_order(used)


class _Picture:
    """One trace on the sheet, from *top* down."""

    def __init__(self, sheet: _Sheet, verdict: Verdict, top: float) -> None:
        self._sheet = sheet
        self._verdict = verdict
        self._y = top
        self._x = {
            role: _MARGIN + _GUTTER + _COLUMN * (number + 0.5) for number, role in enumerate(_roles(verdict))
        }
        self._right = sheet.width - _MARGIN
        self._left = float(_MARGIN + _GUTTER)
        planes = sorted({call.plane for call in verdict.calls})
        self._ink = {plane: _PLANES[number % len(_PLANES)] for number, plane in enumerate(planes)}

    def draw(self) -> float:
        """Draw the trace; return the y coordinate of its end."""
        self._title()
        self._legend()
        self._ladder()
        self._waterfall()
        return self._y

    def _title(self) -> None:
        mark, colour = _VERDICTS.get(self._verdict.verdict, ("", _TEXT))
        name = plain(self._verdict.name or self._verdict.id, 80)
        place = f" · stopped at {self._verdict.stopped_at}" if self._verdict.stopped_at else ""
        words = f"{mark} {name}  ({self._verdict.verdict} · {self._verdict.outcome}{place})"
        self._sheet.text(_MARGIN, self._y + 16, words, fill=colour, style="font-size:17px;font-weight:650")
        most = int((self._right - _MARGIN) / 6.4)
        self._sheet.text(_MARGIN, self._y + 38, plain(self._verdict.summary, most), fill=_TEXT)
        ids = [key for key in (self._verdict.server_id, self._verdict.request_id) if key]
        self._sheet.text(
            _MARGIN, self._y + 56, "  ".join(plain(key, 90) for key in ids), fill=_QUIET, **{"class": "g"}
        )
        self._y += 68

    def _legend(self) -> None:
        x = float(_MARGIN)
        for plane, ink in self._ink.items():
            name = plain(plane, 40)
            self._sheet.put("path", d=f"M{_number(x)} {_number(self._y + 8)}h22", stroke=ink, stroke_width=3)
            self._sheet.text(x + 28, self._y + 12, name, fill=_QUIET)
            x += 28 + 7.5 * len(name) + 20
        self._y += 22

    # --- the ladder ---

    def _ladder(self) -> None:
        head = self._y
        for role, x in self._x.items():
            self._sheet.text(
                x, head + 24, plain(role, 16), text_anchor="middle", style="font-weight:600", fill=_TEXT
            )
        lives = self._sheet.put("path", fill="none", stroke=_LINE, stroke_width=1.5)
        self._y = head + _HEAD
        step, before = "", None
        for entry in entries(self._verdict):
            if isinstance(entry, Mark):
                self._band(entry)
                # Behind a band the step is named again: that of the next attempt may be the same.
                step = ""
                continue
            call = entry.call
            self._row(entry, "" if call.step == step else call.step or "", before)
            step, before = call.step or step, call.started_ns
        lives.set(
            "d",
            "".join(f"M{_number(x)} {_number(head + 34)}V{_number(self._y + 6)}" for x in self._x.values()),
        )
        self._y += _MARGIN

    def _row(self, row: Row, step: str, before_ns: int | None) -> None:
        call = row.call
        y = self._y + _ROW - 8
        bad = refused(call)
        ink = _BAD if bad else self._ink[call.plane]
        if step:
            self._sheet.text(
                _MARGIN, y, step, fill=_BAD if bad else _TEXT, style="font-weight:700", **{"class": "g"}
            )
        since = offset(call.started_ns, self._verdict.started_ns)
        self._sheet.text(_MARGIN + 76, y, since, fill=_QUIET, text_anchor="end", **{"class": "g"})
        if before_ns is not None and call.started_ns - before_ns >= 1_000_000:
            pause, late = f"+{duration(call.started_ns - before_ns)}", call.started_ns - before_ns >= 10**9
            colour = _DOUBT if late else _QUIET
            self._sheet.text(_MARGIN + 142, y, pause, fill=colour, text_anchor="end", **{"class": "g"})
        self._arrow(self._x[call.caller], self._x[call.callee], y, ink, arrives(call))
        self._label(row, y, bad)
        self._y += _ROW

    def _arrow(self, start: float, end: float, y: float, ink: str, arrived: bool) -> None:
        if start == end:
            d = f"M{_number(start)} {_number(y - 8)}h18v8h-14"
            tip = f"M{_number(start + 1)} {_number(y)}l6 -3.5v7z"
        else:
            way = 1 if end > start else -1
            stop = end - way * (6 if arrived else 9)
            d = f"M{_number(start)} {_number(y)}H{_number(stop)}"
            tip = f"M{_number(end - way)} {_number(y)}l{-way * 7} -3.5v7z"
            if not arrived:
                tip = f"M{_number(stop - 4)} {_number(y - 4)}l8 8m0 -8l-8 8"
        self._sheet.put("path", d=d, fill="none", stroke=ink, stroke_width=1.6)
        self._sheet.put("path", d=tip, fill=ink, stroke=ink, stroke_width=1.2)
        self._sheet.put("circle", cx=start, cy=y, r=2.6, fill=ink)

    def _label(self, row: Row, y: float, bad: bool) -> None:
        call = row.call
        end = f" {plain(call.result, 40)}" + (f" ×{row.count}" if row.count > 1 else "")
        if row.count == 1 and call.duration_ns is not None and call.duration_ns >= 100_000_000:
            end += f" {duration(call.duration_ns)}"
        low, high = sorted((self._x[call.caller], self._x[call.callee]))
        most = int((self._right - self._left) / _CHARACTER) - len(end)
        operation = plain(asked_words(call), max(most, 8))
        size = (len(operation) + len(end)) * _CHARACTER
        if size <= high - low - 12:
            x, anchor = (low + high) / 2, "middle"
        elif size <= self._right - low - 8:
            x, anchor = low + 6, "start"
        elif size <= high - self._left:
            x, anchor = high - 6, "end"
        else:
            x, anchor = self._left, "start"
        attributes = {"class": "m", "text_anchor": anchor, "fill": _BAD if bad else _TEXT}
        if bad:
            attributes["style"] = "font-weight:650"
        self._sheet.text(x, y - 6, operation + end, **attributes)

    def _band(self, mark: Mark) -> None:
        ground, ink, sign = _BANDS[mark.kind]
        ends = [self._x[end] for end in mark.ends or () if end in self._x]
        dashed = len(ends) == 2 and ends[0] != ends[1]
        height = 44 if dashed else 24
        top = self._y + 4
        width = self._right - self._left
        self._sheet.put("rect", x=self._left, y=top, width=width, height=height, fill=ground)
        if mark.step:
            self._sheet.text(
                _MARGIN, top + 16, mark.step, fill=ink, style="font-weight:700", **{"class": "g"}
            )
        words = plain(sign + mark.words, int((width - 20) / 6.6))
        self._sheet.text(self._left + 10, top + 16, words, fill=ink, style="font-weight:600")
        if dashed:
            start, end = ends
            way = 1 if end > start else -1
            d = f"M{_number(start)} {_number(top + 33)}H{_number(end - 2 * way)}"
            d += f"m{-way * 8} -4l{way * 8} 4l{-way * 8} 4"
            self._sheet.put("path", d=d, fill="none", stroke=ink, stroke_width=1.5, stroke_dasharray="5 4")
        self._y = top + height

    # --- the waterfall ---

    def _waterfall(self) -> None:
        drawn = rows(self._verdict)
        if not drawn:
            return
        first = drawn[0].call.started_ns
        span = max(1, max(row.ended_ns for row in drawn) - first)
        scale = (self._right - _MARGIN - _LABEL - 70) / span
        titles = {step.step: step.title for step in self._verdict.steps}
        step = None
        for row in drawn:
            call = row.call
            if call.step and call.step != step:
                step = call.step
                self._sheet.text(_MARGIN, self._y + 14, step, fill=_TEXT, style="font-weight:700")
                self._sheet.text(
                    _MARGIN + 30,
                    self._y + 14,
                    plain(titles.get(step, ""), 90),
                    fill=_TEXT,
                    style="font-weight:600",
                )
                self._y += _BAR_ROW
            ink = _BAD if refused(call) else self._ink[call.plane]
            x = _MARGIN + _LABEL + (call.started_ns - first) * scale
            long = max(2.0, (row.ended_ns - call.started_ns) * scale)
            times = f" ×{row.count}" if row.count > 1 else ""
            words = f"{plain(call.caller, 20)} > {plain(call.callee, 20)} {plain(asked_words(call), 60)}"
            words = plain(words, 42 - len(times)) + times
            self._sheet.text(_MARGIN + 30, self._y + 13, words, fill=_QUIET, **{"class": "g"})
            self._sheet.put("rect", x=x, y=self._y + 4, width=long, height=11, rx=2, fill=ink, opacity=0.8)
            took = row.ended_ns - call.started_ns
            if took:
                self._sheet.text(
                    x + long + 5, self._y + 13, duration(took), fill=_QUIET, style="font-size:11px"
                )
            self._y += _BAR_ROW


def _number(value: float) -> str:
    """Return a coordinate without needless digits, the same on every machine."""
    return f"{value:.1f}".removesuffix(".0")
