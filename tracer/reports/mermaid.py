"""Writes a creation as a Mermaid sequence diagram, for wikis and tickets that draw it.

Several traces become one diagram, one after the other, because a document holds one diagram. Characters with
a meaning in Mermaid are written as numbers (`#59;`), so no name can end a line or begin a command.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from tracer.model import Report, Verdict
from tracer.reports import asked_words, duration, plain, refused
from tracer.reports.sequence import Mark, Row, arrives, entries, in_flow_order

__all__ = ["pieces"]

_TEXT_LIMIT = 160
_SPECIAL = re.compile(r"[^\w .,:/()\[\]=+*×…→·–-]")
_RED, _AMBER, _GREY = "rgb(253, 236, 236)", "rgb(253, 243, 224)", "rgb(241, 242, 245)"
_GROUNDS = {"deviation": _RED, "missing": _RED, "unobserved": _AMBER, "attempt": _GREY, "rest": _GREY}


def pieces(report: Report) -> Iterator[bytes]:
    """Yield the diagram as text in UTF-8."""
    yield "".join(f"{line}\n" for line in _lines(report.verdicts)).encode()


def _lines(verdicts: Sequence[Verdict]) -> Iterator[str]:
    yield "sequenceDiagram"
    used: list[str] = []
    for verdict in verdicts:
        for entry in entries(verdict):
            used += (entry.call.caller, entry.call.callee) if isinstance(entry, Row) else entry.ends or ()
    roles = in_flow_order(used)
    # A role may be an address or any text of a topology file. The id of a participant is restricted: r0, r1 …
    ids = {role: f"r{number}" for number, role in enumerate(roles)}
    for role, key in ids.items():
        yield f"  participant {key} as {_text(role, 60)}"
    if not roles:
        yield "  participant r0 as tracer"
        yield "  Note over r0: no creation of a VM found"
        return
    across = f"{ids[roles[0]]},{ids[roles[-1]]}" if len(roles) > 1 else ids[roles[0]]
    for verdict in verdicts:
        yield f"  Note over {across}: {_title(verdict)}"
        step = ""
        for entry in entries(verdict):
            if isinstance(entry, Mark):
                yield from _mark(entry, ids, across)
            else:
                yield from _row(entry, "" if entry.call.step == step else entry.call.step or "", ids)
                step = entry.call.step or step


def _title(verdict: Verdict) -> str:
    name = verdict.name or verdict.id
    return f"{_text(name, 80)} – {verdict.verdict}<br/>{_lines_of(verdict.summary)}"


def _row(row: Row, step: str, ids: dict[str, str]) -> Iterator[str]:
    call = row.call
    # RPC is asynchronous: an open arrow. A cross: it never arrived.
    arrow = ("-)" if call.protocol == "RPC" else "->>") if arrives(call) else "-x"
    times = f" ×{row.count}" if row.count > 1 else ""
    took = row.count == 1 and call.duration_ns is not None and call.duration_ns >= 100_000_000
    words = f"{_text(asked_words(call))} {_text(call.result, 40)}{times}"
    words = f"{step} · {words}" if step else words
    words += f" ({duration(call.duration_ns)})" if took else ""
    line = f"{ids[call.caller]}{arrow}{ids[call.callee]}: {words}"
    if not refused(call):
        yield f"  {line}"
        return
    yield f"  rect {_RED}"
    yield f"    {line}"
    if call.error:
        yield f"    Note over {ids[call.caller]},{ids[call.callee]}: {_lines_of(call.error, 50)}"
    yield "  end"


def _mark(mark: Mark, ids: dict[str, str], across: str) -> Iterator[str]:
    words = _lines_of(mark.words)
    yield f"  rect {_GROUNDS[mark.kind]}"
    if mark.kind == "missing" and mark.ends and mark.ends[0] != mark.ends[1]:
        yield f"    {ids[mark.ends[0]]}--x{ids[mark.ends[1]]}: {mark.step} never came".replace(":  ", ": ")
    yield f"    Note over {across}: {words}"
    yield "  end"


def _lines_of(text: str, width: int = 100) -> str:
    """Return a note with line breaks, because Mermaid does not wrap it."""
    return "<br/>".join(_text(line) for line in textwrap.wrap(plain(text, 300), width)) or "?"


def _text(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Return text from the wire escaped, so that Mermaid shows it and does not interpret it."""
    return _SPECIAL.sub(lambda match: f"#{ord(match[0])};", plain(text, limit)) or "?"
