"""Reports: one module for each format. They import `model`, `errors` and the cloud's tables only.

This module holds what the formats share: how times, frames and strings from the wire are written, and how
traces are selected. Strings from the wire are hostile until `plain` has escaped them: a server's name may
hold terminal escapes, line feeds, rich markup or a megabyte.
"""

from __future__ import annotations

import fnmatch
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import get_args

from tracer.errors import UsageError, close_matches
from tracer.model import CallRecord, Capture, Conformance, Outcome, Report, StepResult, Verdict
from tracer.openstack.services import SERVICES

__all__ = [
    "asked_words",
    "call_words",
    "called",
    "choice_words",
    "chosen",
    "clock",
    "dark_words",
    "duration",
    "file_names",
    "fragment",
    "lead",
    "losses",
    "named_steps",
    "nanoseconds",
    "offset",
    "plain",
    "plural",
    "refused",
    "seen_instead",
    "selection",
    "shown_status",
    "starts_words",
    "timestamp",
    "witnesses",
]

# Control (escapes, line feeds), format (bidi controls, zero width), surrogate, private use,
# unassigned, line and paragraph separators: none of these is ever sent to a terminal.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORT_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\x1b": "\\e"}


def plain(text: str, limit: int = 120) -> str:
    """Return *text* on one line, safe for any terminal, at most *limit* characters, cut with `…`.

    Unprintable characters are escaped, so that they stay visible.
    """
    if text.isascii() and text.isprintable():
        return text if len(text) <= limit else text[: limit - 1] + "…"
    # Escaping never shortens a text, so it is cut first: a megabyte costs no more than a line.
    # Combining marks are dropped: hundreds of them on one letter paint over the lines above.
    marks = 0
    written: list[str] = []
    for character in text[: limit + 1]:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= 2:
            written.append(_escaped(character))
    shown = "".join(written)
    if len(shown) <= limit and len(text) <= limit:
        return shown
    return shown[: limit - 1] + "…"


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in _UNPRINTABLE:
        return character
    if character in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[character]
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


@lru_cache(maxsize=4096)
def _second(seconds: int) -> str | None:
    """Return date and time of a second since the epoch; None outside the years 1 to 9999."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (OverflowError, OSError, ValueError):
        # A pcapng time stamp may hold any 64 bits; a damaged one must not end the report.
        return None


def timestamp(time_ns: int | None) -> str | None:
    """Return RFC 3339 in UTC with six fractional digits; None for None and for a year beyond 9999."""
    if time_ns is None:
        return None
    seconds, rest = divmod(time_ns, 1_000_000_000)
    second = _second(seconds)
    return None if second is None else f"{second}.{rest // 1000:06d}Z"


def nanoseconds(text: str) -> int:
    """Return the time that *text* means, in nanoseconds since the epoch. Raises ValueError.

    RFC 3339 (UTC without a zone), seconds since the epoch, or a time as reports write it, followed by UTC.
    Computed with integers only: a float cannot hold nanoseconds.
    """
    seconds = re.fullmatch(r"(\d{1,12})(?:\.(\d{1,9}))?", text.strip(), re.ASCII)
    if seconds:
        return int(seconds[1]) * 1_000_000_000 + int((seconds[2] or "").ljust(9, "0"))
    moment = datetime.fromisoformat(text.strip().removesuffix("UTC").rstrip())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_epoch.days * 86400 + since_epoch.seconds) * 1_000_000_000 + since_epoch.microseconds * 1000


def clock(time_ns: int) -> str:
    """Return the time of day in UTC, to the millisecond: 06:53:32.739."""
    whole = timestamp(time_ns)
    return whole[11:23] if whole else "?"


def duration(duration_ns: int | None) -> str:
    """Return a duration with a suitable unit: 0.4 ms · 16 ms · 3.1 s · 2 m 05 s · 3 h 20 m; '' for None."""
    if duration_ns is None:
        return ""
    if duration_ns < 0:
        return f"-{duration(-duration_ns)}"
    ms = duration_ns / 1e6
    if ms < 9.95:
        return f"{ms:.1f} ms"
    if ms < 999.5:
        return f"{ms:.0f} ms"
    seconds = ms / 1000
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} m"


def offset(time_ns: int | None, origin_ns: int) -> str:
    """Return the seconds since the origin with their sign: +0.456; '' for None."""
    return "" if time_ns is None else f"{(time_ns - origin_ns) / 1e9:+.3f}"


def plural(count: int, noun: str, many: str = "") -> str:
    """Return a count with its noun: 1 call · 2 calls · 12,345 packets."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def lead(text: str) -> str:
    """Return the first characters of an id, without the prefix that all ids share, and `…` for the rest."""
    return text if len(text) <= 12 else f"{text[:8]}…"


def called(verdict: Verdict) -> str:
    """Return which one a trace is: its server id, else its request id, cut, else its number."""
    known = verdict.server_id or verdict.request_id
    return lead(plain(known, 80)) if known else f"({plain(verdict.id, 80)}, no id seen)"


def file_names(paths: Sequence[str], short: bool = False) -> dict[str, str]:
    """Return path -> shortest name that is unique: Internal_base, or Int for narrow tables (*short*).

    Longer forms are tried for all captures alike: first letters, name up to the first dot, file name. Equal
    names in several folders get as much of the path as makes them unique, or a number.
    """
    last = {path: _broker_name(path) or path.rsplit("/", 1)[-1] for path in paths}
    stems = {path: name.split(".", 1)[0] or name for path, name in last.items()}
    cuts = [{path: stem[:width] for path, stem in stems.items()} for width in (3, 5, 8)] if short else []
    for names in (*cuts, stems, last):
        if len(set(names.values())) == len(names) and all(names.values()):
            return {path: plain(name, 60) for path, name in names.items()}
    shown = cuts[0] if short else stems
    folders = {path: path.split("/")[:-1] for path in paths}
    for depth in (1, 2, 3):
        names = {path: "/".join((*folders[path][-depth:], shown[path])) for path in paths}
        if len(set(names.values())) == len(names) and (not short or max(map(len, names.values())) <= 12):
            return {path: plain(name, 60) for path, name in names.items()}
    # Always unique; the legend at the end of the report explains the numbers.
    return {path: plain(f"{stem[:8]}{number}", 60) for number, (path, stem) in enumerate(shown.items(), 1)}


def _broker_name(path: str) -> str:
    """Return the name of a broker's firehose: broker-HOST-VHOST; '' for a file or an interface."""
    scheme, _, rest = path.partition("://")
    if scheme not in ("amqp", "amqps"):
        return ""
    host, _, vhost = rest.partition("/")
    words = (host.replace(":5672", "").replace(".", "-"), "" if vhost == "%2F" else vhost)
    return "-".join(("broker", *filter(None, words)))


def fragment(evidence: tuple[str, int], names: Mapping[str, str]) -> str:
    """Return one piece of evidence as text: Internal_base#1234."""
    path, frame = evidence
    return f"{names.get(path) or plain(path, 120)}#{frame}"


_SHORT_ROLES = {service.role: service.short for service in SERVICES if service.short}
"""Abbreviations of roles for narrow columns. Other roles would be ambiguous when abbreviated."""


def call_words(call: CallRecord, limit: int = 400) -> str:
    """Return a call without its plane and protocol, at most *limit* characters.

    The end of the operation is cut first, then the roles are abbreviated, then the caller is left out. The
    result is never cut: it matters most. Of a call that says a state, as `call object_action Instance.save
    spawning`, the words before it are left out first.
    """
    caller, callee = plain(call.caller, 60), plain(call.callee, 60)
    operation, result = plain(call.operation, 400), plain(call.result, 40)
    short = f"{_SHORT_ROLES.get(caller, caller)} > {_SHORT_ROLES.get(callee, callee)}"
    if call.action and call.protocol != "REST":
        action = plain(call.action, 100)
        operation = f"{operation} {action}"
        for brief in (operation, operation.partition(" ")[2], action):
            for ends in (f"{caller} > {callee}", short):
                words = f"{ends} {brief} {result}"
                if len(words) <= limit:
                    return words
        operation = action
    for ends, least in ((f"{caller} > {callee}", 18), (short, 6), (f"> {callee}", 16)):
        room = limit - len(ends) - len(result) - 2
        if len(operation) <= room:
            return f"{ends} {operation} {result}"
        if room >= least:
            return f"{ends} {operation[: room - 1]}… {result}"
    return f"> {callee} {operation}"[: max(limit - len(result) - 2, 1)] + f"… {result}"


def asked_words(call: CallRecord) -> str:
    """Return what a call asks, for a label: its operation, and the state that it saves."""
    if not call.action or call.protocol == "REST":
        return call.operation
    return call.action if call.protocol == "RPC" else f"{call.operation} {call.action}"


_NO = frozenset({"failure", "error", "unroutable", "undelivered", "unacked", "refused", "none"})


def refused(call: CallRecord) -> bool:
    """Return whether the call failed: status 400 or above, failure, refused connection, or no answer."""
    result = call.result
    return result in _NO or (len(result) == 3 and result.isdigit() and result >= "400")


# --- texts that several reports share -------------------------------------------------------------


def witnesses(step: StepResult, verdict: Verdict) -> list[CallRecord]:
    """Return the calls that show most of a step, all of the same kind: of a failed step the failed calls."""
    shown = step.calls[0] if step.calls else None
    if step.status == "failed":
        # The last failed call is where it broke. Without one, the step failed in the answer to an outer call.
        failed = [call for call in step.calls if refused(call)]
        failed += [
            each.call
            for each in verdict.deviations
            # What a notification tells is no call of the step.
            if each.step == step.step and each.call and not failed and not _is_told(each.call)
        ]
        shown = failed[-1] if failed else shown
    if shown is None:
        return []
    return [call for call in step.calls if _alike(call) == _alike(shown)] or [shown]


def _is_told(call: CallRecord) -> bool:
    return call.protocol == "RPC" and call.operation.startswith("notify ")


def _alike(call: CallRecord) -> tuple[str, ...]:
    return call.caller, call.callee, call.operation, call.action, call.result


_HELD = frozenset({"undelivered", "unacked"})
_WAITS = ("stuck", "deleted", "unfinished")
_SILENT, _GATEWAY = frozenset({"none", "?"}), frozenset({"502", "504", "none", "?"})


def shown_status(step: StepResult, verdict: Verdict) -> str:
    """Return the status of a step for a reader; more than its own where the end of the creation tells more.

    owed: it never came, and the creation waits for it. open: it began, and the creation waits for its end.
    retrying: it failed, and may be tried again. refused: it was done, and its answer passes on the failure of
    another step; unanswered: it has no answer; given_up: a proxy answered that it got none. sent: the broker
    has its message, and its consumer has not dealt with it.
    """
    if verdict.outcome in _WAITS and step.step == verdict.stopped_at:
        if step.status == "seen":
            return "open"
        if verdict.outcome != "unfinished" and step.status in ("missing", "not_reached"):
            return "owed"
    if step.status == "failed" and verdict.outcome == "unfinished":
        return "retrying"
    if step.status == "seen" and step.calls:
        if all(call.protocol == "RPC" and call.result in _HELD for call in step.calls):
            return "sent"
        if verdict.outcome == "rejected" and all(refused(call) for call in step.calls):
            results = {call.result for call in step.calls}
            return "unanswered" if results <= _SILENT else "given_up" if results <= _GATEWAY else "refused"
    return step.status


def losses(capture: Capture) -> str:
    """Return what was lost of a capture or could not be read, as text; '' for nothing."""
    gaps = plural(capture.gaps, "gap")
    lost = f" ({plural(capture.lost_bytes, 'byte')} lost)" if capture.lost_bytes else ""
    undecoded = ", ".join(f"{count:,} {plain(why, 60)}" for why, count in capture.undecoded.most_common(6))
    end = f" after {clock(capture.last_ns)}" if capture.last_ns is not None else ""
    parts = [
        (capture.gaps or capture.lost_bytes, gaps + lost),
        (capture.truncated_packets, f"{plural(capture.truncated_packets, 'packet')} cut by the snap length"),
        (
            capture.undecoded_streams,
            f"{plural(capture.undecoded_streams, 'stream')} not decoded"
            + (f" ({undecoded})" if undecoded else ""),
        ),
        (capture.duplicate_segments, f"{plural(capture.duplicate_segments, 'segment')} seen twice"),
        (capture.reordered_segments, f"{plural(capture.reordered_segments, 'segment')} out of order"),
        (capture.broke_off, f"breaks off: nothing{end} is known"),
    ]
    found = [words for count, words in parts if count]
    found += [
        f"{plain(what, 120)}" + (f" (×{count:,})" if count > 1 else "")
        for what, count in capture.anomalies.most_common(5)
    ]
    return "; ".join(found)


def dark_words(report: Report) -> list[str]:
    """Return what TLS hides, a line for each plane and pair of roles."""
    lines = []
    for group in report.dark:
        connections = plural(group.connections, "connection")
        if not group.plane:
            lines.append(f"{connections} more")
            continue
        steps = ", ".join(plain(step, 20) for step in group.steps)
        lines.append(
            f"{plain(group.plane, 40)} {plain(group.caller, 40)} > {plain(group.callee, 40)} :{group.port}"
            f"  {connections}"
            + (f", hides {'steps' if len(group.steps) > 1 else 'step'} {steps}" if steps else "")
        )
    return lines


def choice_words(report: Report) -> str:
    """Return which grammar *report* was checked against and why, on one line."""
    return f"checked against {plain(report.grammar, 80)}: {plain(report.grammar_reason, 300) or 'asked for'}"


def seen_instead(report: Report) -> str:
    """Return what captures without a trace hold: 1,200 SQL statements, 40 RPC messages."""
    return ", ".join(f"{count:,} {plain(words, 80)}" for words, count in report.seen) or "no call at all"


def starts_words(left_out: Sequence[int]) -> str:
    """Return the start times of the traces that were left out, as text: 'the first at …, the last at …'."""
    first, last = timestamp(min(left_out)), timestamp(max(left_out))
    return (
        f"it starts at {first}" if len(left_out) == 1 else f"the first starts at {first}, the last at {last}"
    )


# --- choosing traces ------------------------------------------------------------------------------


def _hosts(verdict: Verdict) -> list[str]:
    return [host for host in (verdict.api_host, verdict.compute_host, *verdict.attempts) if host]


def _ids(verdict: Verdict) -> list[str]:
    return [key for key in (verdict.id, verdict.request_id, verdict.server_id) if key]


def _messages(verdict: Verdict) -> Iterable[str]:
    """Return the ids of the trace's RPC messages, which a log names when a reply does not come."""
    return (call.message_id for call in verdict.calls if call.message_id)


def _stops(verdict: Verdict) -> list[str]:
    return [step for step in (verdict.stopped_at, *(verdict.stopped_between or ())) if step]


# A step without its letter matches all of its parts: step=8 matches 8a, 8b and 8c.
_KEYS: dict[str, Callable[[Verdict, str], bool]] = {
    "name": lambda verdict, value: fnmatch.fnmatchcase(verdict.name or "", value),
    "id": lambda verdict, value: any(value in key for key in (*_ids(verdict), *_messages(verdict))),
    "host": lambda verdict, value: any(fnmatch.fnmatchcase(host, value) for host in _hosts(verdict)),
    "outcome": lambda verdict, value: verdict.outcome == value,
    "step": lambda verdict, value: any(
        re.sub(r"[a-z]+$", "", s) == value or s == value for s in _stops(verdict)
    ),
    "verdict": lambda verdict, value: verdict.verdict == value,
}
_VALUES = {"outcome": get_args(Outcome), "verdict": get_args(Conformance)}


def named_steps(conditions: Sequence[str]) -> tuple[str, ...]:
    """Return the steps that conditions of --where name."""
    pairs = (condition.partition("=") for condition in conditions)
    return tuple(value for key, _, value in pairs if key.strip() == "step")


def selection(conditions: Sequence[str]) -> Callable[[Verdict], bool]:
    """Return the predicate of --where: values of one key are alternatives, all keys must match.

    Raises UsageError for a condition that is not KEY=VALUE with a known key.
    """
    wanted: dict[str, list[str]] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        key = key.strip()
        if not equals:
            raise UsageError(f"--where {condition!r}: write KEY=VALUE (keys: {', '.join(_KEYS)})")
        if key not in _KEYS:
            raise UsageError(f"--where: no key {key!r} (known: {', '.join(_KEYS)}){_perhaps(key, _KEYS)}")
        if key in _VALUES and value not in _VALUES[key]:
            known = ", ".join(_VALUES[key])
            raise UsageError(f"--where: no {key} {value!r} (known: {known}){_perhaps(value, _VALUES[key])}")
        wanted.setdefault(key, []).append(value)

    def fits(verdict: Verdict) -> bool:
        return all(any(_KEYS[key](verdict, value) for value in values) for key, values in wanted.items())

    return fits


def _perhaps(word: str, known: Iterable[str]) -> str:
    near = close_matches(word, list(known), n=1)
    return f". Did you mean {near[0]}?" if near else ""


def chosen(verdicts: Sequence[Verdict], wanted: str | None) -> list[Verdict]:
    """Return the traces that `--trace` means: all with that id, or the only one whose id begins so.

    Raises UsageError when there is none, or when several different traces match.
    """
    if not verdicts:
        raise UsageError("the captures hold no trace to show; `tracer check` says what they hold instead")
    if wanted is None:
        if len(verdicts) == 1:
            return list(verdicts)
        raise UsageError(f"no trace given: use --trace ID; {_some(verdicts)}")
    exact = [v for v in verdicts if wanted in (*_ids(v), v.name) or (wanted and wanted in _messages(v))]
    if exact:
        return exact
    begins = [verdict for verdict in verdicts if any(_begins(key, wanted) for key in _names(verdict))]
    # Traces of one request share its id, so its beginning selects all of them.
    if len(begins) == 1 or len({verdict.request_id or verdict.id for verdict in begins}) == 1:
        return begins
    if begins:
        raise UsageError(f"--trace {wanted!r} fits {len(begins)} traces; {_some(begins)}")
    # Names are cut: one may be a megabyte, and the comparison takes quadratic time.
    known = dict.fromkeys(key[:80] for verdict in verdicts for key in _names(verdict))
    near = close_matches(wanted[:80], known, n=3, cutoff=0.7)
    hint = f"near it: {', '.join(plain(key, 60) for key in near)}" if near else _some(verdicts)
    raise UsageError(f"no trace {plain(wanted, 60)!r}; {hint}")


def _names(verdict: Verdict) -> list[str]:
    return [*_ids(verdict), *([verdict.name] if verdict.name else [])]


def _begins(key: str, wanted: str) -> bool:
    return bool(wanted) and key.startswith((wanted, f"req-{wanted}"))


def _some(verdicts: Sequence[Verdict], most: int = 5) -> str:
    listed = [
        f"{plain(v.name, 60)} ({plain(v.id, 90)})" if v.name else plain(v.id, 90) for v in verdicts[:most]
    ]
    more = f" and {len(verdicts) - most} more" if len(verdicts) > most else ""
    return f"known: {', '.join(listed)}{more}"
