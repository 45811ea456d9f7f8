"""Writes the report as one HTML page that needs no network: overview, list, and traces drawn on demand.

overview         counts and times over all traces
compact          the compact form of a trace inside the page
base.html        common frame of the pages (Jinja2, everything escaped); *.css and *.js are inlined
page.html        the report
comparison.html  the comparison of two reports

The page's policy (Content-Security-Policy) allows nothing but its own style sheet and script, by their
digests, and no address to load anything from. What came from the wire is escaped in the page, and the
script writes it as text only.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
import msgspec
from markupsafe import Markup

from tracer import __version__
from tracer.model import Capture, Report, Verdict
from tracer.openstack.services import FLOW
from tracer.reports import choice_words, clock, dark_words, duration, lead, losses, plain, plural, timestamp
from tracer.reports.html import overview
from tracer.reports.html.compact import Packer

__all__ = ["pieces", "rendered"]

_SCRIPTS = ("base.js", "details.js", "list.js", "ladder.js", "waterfall.js", "trace.js", "main.js")
_PIECE = 64


def pieces(report: Report) -> Iterator[bytes]:
    """Yield the page in parts, in UTF-8."""
    packer = Packer(report)
    packed = [packer.packed(verdict) for verdict in report.verdicts]
    style, script = _text("page.css"), "\n".join(_text(name) for name in _SCRIPTS)
    rows = overview.step_rows(report.verdicts)
    page = (
        _environment()
        .get_template("page.html")
        .stream(
            policy=_policy(style, script),
            style=Markup(style),  # noqa: S704  our own file
            script=Markup(script),  # noqa: S704
            version=__version__,
            report=report,
            grammar=plain(report.grammar, 80),
            choice=choice_words(report),
            title=_title(report),
            verdicts=Counter(verdict.verdict for verdict in report.verdicts),
            outcomes=Counter(verdict.outcome for verdict in report.verdicts),
            groups=overview.groups(report.verdicts),
            steps=rows,
            axis=overview.axis(rows),
            between=Counter(
                overview.stop(v) for v in report.verdicts if v.stopped_between and not v.stopped_at
            ),
            traces=[_row(number, verdict, report) for number, verdict in enumerate(report.verdicts)],
            stops=sorted({overview.stop(verdict) for verdict in report.verdicts} - {""}),
            hosts=sorted({host for verdict in report.verdicts for host in _hosts(verdict)}),
            captures=[_capture(capture) for capture in report.captures],
            anonymized=report.anonymized,
            dark=dark_words(report),
            advice=[plain(words, 200) for words in report.advice],
            seen=[(plain(words, 80), count) for words, count in report.seen],
            shared=_json(
                {"shapes": packer.shapes, "files": packer.files, "roles": FLOW, "traces": len(packed)}
            ),
            details=Markup("\n".join(packed)),  # noqa: S704  base64
        )
    )
    page.enable_buffering(_PIECE)
    for piece in page:
        yield piece.encode("utf-8", "backslashreplace")


def rendered(name: str, **values: Any) -> bytes:
    """Return the page of another template in the same style, without a script."""
    style = _text("page.css")
    values |= {"policy": _policy(style, ""), "style": Markup(style), "version": __version__}  # noqa: S704
    return _environment().get_template(name).render(values).encode("utf-8", "backslashreplace")


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.PackageLoader("tracer.reports", "html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["plural"] = plural
    return environment


def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; style-src 'sha256-{digest(style)}'; script-src 'sha256-{digest(script)}';"
        " img-src data:; base-uri 'none'; form-action 'none'"
    )


def _json(value: Any) -> Markup:
    """Return JSON that can neither end the script element nor begin a comment in it."""
    return Markup(msgspec.json.encode(value).replace(b"<", b"\\u003c").decode())  # noqa: S704


def _title(report: Report) -> str:
    """Return the title: the result in one line."""
    verdicts = report.verdicts
    if not verdicts:
        return "no creation of a VM found"
    if len(verdicts) == 1:
        (only,) = verdicts
        return f"{plain(only.name or lead(only.id), 80)}: {plain(only.summary, 300)}"
    counts: Counter[str] = Counter(verdict.verdict for verdict in verdicts)
    words = {"deviates": ("deviates", "deviate"), "inconclusive": ("is inconclusive", "are inconclusive")}
    phrases = [
        f"{counts[key]:,} {one if counts[key] == 1 else many}"
        for key, (one, many) in words.items()
        if counts[key]
    ]
    if counts["conforms"]:
        all_of_them = counts["conforms"] == len(verdicts)
        phrases.append(
            "all conform"
            if all_of_them
            else f"{counts['conforms']:,} conform" + "s" * (counts["conforms"] == 1)
        )
    return f"{len(verdicts):,} creations: {', '.join(phrases)}"


def _hosts(verdict: Verdict) -> list[str]:
    return [plain(host, 60) for host in (verdict.compute_host, verdict.api_host) if host]


def _row(number: int, verdict: Verdict, report: Report) -> dict[str, Any]:
    """Return the list's row for a trace, with the values to search and sort by."""
    ids = [key for key in (verdict.server_id, verdict.request_id, verdict.id) if key]
    return {
        "number": number,
        "verdict": verdict.verdict,
        "outcome": verdict.outcome,
        "name": plain(verdict.name or "", 255) or lead(plain(verdict.id, 60)),
        "id": lead(plain(ids[0], 60)) if ids else "",
        "find": " ".join(dict.fromkeys(plain(key, 120) for key in (*ids, *_hosts(verdict)))).lower(),
        "stop": overview.stop(verdict),
        "workflow": f"{plain(verdict.grammar, 80)}: " if verdict.grammar != report.grammar else "",
        "summary": plain(verdict.summary, 300),
        "hosts": _hosts(verdict),
        "started": clock(verdict.captured_ns),
        "started_us": verdict.started_ns // 1000,
        "took": duration(verdict.ended_ns - verdict.started_ns),
        "took_us": (verdict.ended_ns - verdict.started_ns) // 1000,
    }


def _capture(capture: Capture) -> dict[str, Any]:
    span = None if capture.first_ns is None or capture.last_ns is None else capture.last_ns - capture.first_ns
    return {
        "path": plain(capture.path, 300),
        "planes": ", ".join(plain(plane, 60) for plane in sorted(capture.planes)),
        "packets": capture.packets,
        "calls": capture.calls,
        "first": (timestamp(capture.first_ns) or "")[:19].replace("T", " "),
        "span": duration(span),
        "lost": losses(capture),
        "harmless": not (
            capture.gaps
            or capture.lost_bytes
            or capture.truncated_packets
            or capture.undecoded_streams
            or capture.broke_off
            or capture.anomalies
        ),
    }
