"""`tracer doctor` as text and as JSON (`tracer.doctor/1`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from rich.text import Text

from tracer.model import Capture
from tracer.model.diagnosis import Diagnosis, Finding, HostDiagnosis, Traffic
from tracer.reports import losses, plain, plural, timestamp
from tracer.reports.page import Page

__all__ = ["json_pieces", "write"]

_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "bad": ("BAD", "bold red")}
"""Level of a finding -> its word and style."""
_READ = ("REST", "RPC", "SQL")


def write(page: Page, host: HostDiagnosis | None, found: Diagnosis | None) -> None:
    """Write what was found of this host, and of captures, as text."""
    if host is not None:
        _write_host(page, host)
    if host is not None and found is not None:
        page.line("")
    if found is not None:
        _write_captures(page, found)


def _write_host(page: Page, host: HostDiagnosis) -> None:
    page.line(Text("this host", "bold"))
    for finding in host.findings:
        _write_finding(page, finding)
    page.line(Text("interfaces", "bold"))
    wide = max((len(each.name) for each in host.interfaces), default=0)
    for each in host.interfaces:
        state = Text(f"{'up' if each.is_up else 'down':<5}", "green" if each.is_up else "dim")
        about = f"{each.packets:>15,} packets  {', '.join(each.addresses)}".rstrip()
        page.line(Text.assemble(f"{plain(each.name, 40):<{wide}}  ", state, plain(about, 200)), 2)


def _write_finding(page: Page, finding: Finding) -> None:
    word, style = _MARKS[finding.level]
    page.line(
        Text.assemble((f"{word:<5}", style), f"{finding.subject}: {plain(finding.text, 300)}"), 2, hang=5
    )
    if finding.remedy:
        page.line(Text(f"do: {plain(finding.remedy, 300)}", "dim"), 7, hang=4)


def _write_captures(page: Page, found: Diagnosis) -> None:
    for capture in found.captures:
        _write_capture(page, capture, [row for row in found.traffic if row.capture == capture.path])
    page.line(Text("roles", "bold"))
    if not found.roles:
        page.line("none is known: no call was read", 2)
    for role in found.roles:
        more = f" and {role.more:,} more" if role.more else ""
        page.line(f"{role.role:<18}{plain(', '.join(role.addresses), 300)}{more}", 2, hang=18)
    why = f": {found.grammar_reason}" if found.grammar_reason else ""
    page.line(Text.assemble(("steps", "bold"), plain(f" of {found.grammar}{why}", 300)))
    for step in found.steps:
        mark = ("no   ", "yellow") if step.reason else ("yes  ", "green")
        reason = f": {step.reason}" if step.reason else ""
        page.line(Text.assemble(f"{step.step:<4}", mark, plain(f"{step.title}{reason}", 300)), 2, hang=9)
    for remark in (*found.remarks, *(f"advice: {advice}" for advice in found.advice)):
        page.line(plain(remark, 500))
    seen = sum(not step.reason for step in found.steps)
    steps = f"{seen} of {plural(len(found.steps), 'step')} could be seen"
    page.line(f"{plural(found.traces, 'trace')}; {steps}{'; interrupted' if found.partial else ''}")


def _write_capture(page: Page, capture: Capture, traffic: Sequence[Traffic]) -> None:
    name = page.names.get(capture.path, capture.path)
    span = ""
    if capture.first_ns is not None and capture.last_ns is not None:
        seconds = (capture.last_ns - capture.first_ns) / 1e9
        span = f" from {timestamp(capture.first_ns)}, {seconds:,.1f} s"
    point = "a tap of " if capture.plane else "a capture point with "
    planes = ", ".join(sorted(capture.planes)) or "no known plane"
    head = (
        f" {plain(capture.path, 200)}: {plural(capture.packets, 'packet')}{span}; {point}{plain(planes, 200)}"
    )
    page.line(Text.assemble((plain(name, 60), "bold"), head))
    for row in traffic:
        is_read = row.protocol in _READ
        words = f"{plural(row.connections, 'connection')} to port {row.port}"
        words += f", {plural(row.calls, 'call')}" if is_read else ""
        what = (
            (f"{row.protocol:<5}", "green")
            if is_read
            else (f"{plain(row.protocol, 40)}: not decoded ", "yellow")
        )
        page.line(Text.assemble(what, plain(f"{row.plane} ", 60), words), 2)
    if not traffic:
        page.line("no call, and nothing that looks like one", 2)
    damage = losses(capture)
    if damage:
        page.line(Text(f"damage: {damage}", "yellow"), 2)


def json_pieces(host: HostDiagnosis | None, found: Diagnosis | None) -> Iterator[bytes]:
    """Yield the document `tracer.doctor/1`: `host` and `captures` are null where they were not asked for."""
    document: dict[str, Any] = {"schema": "tracer.doctor/1", "host": None, "captures": None}
    if host is not None:
        document["host"] = {
            "findings": [finding._asdict() for finding in host.findings],
            "interfaces": [each._asdict() for each in host.interfaces],
        }
    if found is not None:
        document["captures"] = {
            "files": [_file(capture) for capture in found.captures],
            "grammar": found.grammar,
            "grammar_reason": found.grammar_reason,
            "traces": found.traces,
            "traffic": [row._asdict() for row in found.traffic],
            "roles": [role._asdict() for role in found.roles],
            "steps": [step._asdict() | {"visible": not step.reason} for step in found.steps],
            "remarks": found.remarks,
            "advice": found.advice,
            "partial": found.partial,
        }
    yield msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n"


def _file(capture: Capture) -> dict[str, Any]:
    return {
        "path": capture.path,
        "planes": sorted(capture.planes),
        "packets": capture.packets,
        "bytes": capture.size_bytes,
        "first": timestamp(capture.first_ns) if capture.first_ns is not None else None,
        "last": timestamp(capture.last_ns) if capture.last_ns is not None else None,
        "truncated_packets": capture.truncated_packets,
        "gaps": capture.gaps,
        "lost_bytes": capture.lost_bytes,
        "undecoded_streams": capture.undecoded_streams,
    }
