"""Writes the calls as aligned text, or as one JSON object a line; each line as soon as it is known.

Columns have fixed widths, because the first line is written before the last call is known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from tracer.model import CallRecord
from tracer.reports import clock, duration, plain, refused
from tracer.reports.json import call_members, encoded

__all__ = ["write_lines", "write_text"]

_FAILED = "\x1b[31m"
_FAINT = "\x1b[2m"
_RESET = "\x1b[0m"
_LINE_WIDTH = 96


def write_lines(records: Iterable[CallRecord], file: TextIO) -> None:
    """Write JSON Lines: the members of a call in tracer.check/1, and the ids of its traces."""
    file.flush()
    raw = getattr(file, "buffer", None)
    for record in records:
        members = call_members(record)
        members["traces"] = [plain(trace, 255) for trace in record.traces]
        line = encoded(members) + b"\n"
        if raw is not None:
            raw.write(line)
        else:
            file.write(line.decode())
    if raw is not None:
        raw.flush()


def write_text(records: Iterable[CallRecord], file: TextIO, color: bool = False) -> None:
    """Write one line a call: index, time of day, canonical line, duration, step, evidence, error."""
    for record in records:
        file.write(_row(record, color) + "\n")


def _row(record: CallRecord, color: bool) -> str:
    line = plain(record.line, 400)
    path, frame = record.evidence[0] if record.evidence else ("", 0)
    where = f"{plain(path.rsplit('/', 1)[-1], 60)}#{frame}" if record.evidence else ""
    # The action in the request body, which grammars match at the end of the path.
    action = f"  ({plain(record.action, 60)})" if record.action else ""
    error = action + (f"  {plain(record.error, 200)}" if record.error else "")
    head = f"{record.index:>7}  {clock(record.captured_ns)}  "
    tail = f"  {duration(record.duration_ns):>8}  {record.step or '':<3}  {where}{error}"
    gap = " " * max(0, _LINE_WIDTH - len(line))
    if not color:
        return f"{head}{line}{gap}{tail}".rstrip()
    shown = f"{_FAILED}{line}{_RESET}" if refused(record) else line
    return f"{_FAINT}{head}{_RESET}{shown}{gap}{_FAINT}{tail}{_RESET}"
