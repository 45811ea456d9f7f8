"""Writes one trace as text: its heading, its steps, what deviates and why, and where to look next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from rich.text import Text

from tracer.model import Attempt, CallRecord, Deviation, Note, StepResult, Verdict
from tracer.openstack.services import NOVA_API
from tracer.reports import (
    called,
    duration,
    fragment,
    offset,
    plain,
    plural,
    refused,
    timestamp,
)
from tracer.reports.page import Page, steps

__all__ = ["STYLES", "begin", "conclude", "heading", "mark", "render"]

_WAIT = "wait before "
_MOMENT_NS = 10_000_000
_LONG_NS = 1_000_000_000
"""Duration of a creation below which the longest steps are not listed."""
_BEGUN = 40
"""Characters of a message that a headline must have to be taken for its beginning."""
_NOT_NEWS = ("mode", "ambiguous", "baseline", "host")
_REFUSED = "Connection refused"
_ANSWERS = {"placement": "host", "reply": "reply", "broker": "broker", "fault": "fault"}
"""Kind of a note for operators -> the label before it."""

STYLES = {"conforms": "green", "deviates": "bold red", "inconclusive": "yellow"}
_MARKS = {"conforms": ("✓", "+"), "deviates": ("✗", "x"), "inconclusive": ("?", "?")}


def mark(page: Page, verdict: str) -> Text:
    """Return the mark before a trace, by its verdict."""
    fine, coarse = _MARKS.get(verdict, ("?", "?"))
    return Text(fine if page.encodable else coarse, style=STYLES.get(verdict, ""))


def heading(page: Page, verdict: Verdict) -> Text:
    """Return the first line: the VM, its outcome, where it stopped and why."""
    name = f"{plain(verdict.name, 60)} " if verdict.name else ""
    style = STYLES.get(verdict.verdict, "")
    words = Text.assemble(
        mark(page, verdict.verdict), (f" VM {name}", "bold"), (called(verdict), "dim"), "  "
    )
    if verdict.grammar not in ("", page.grammar):
        words.append(f"{plain(verdict.grammar, 80)}: ")
    words.append(plain(verdict.summary, 400), style)
    if verdict.verdict == "conforms":
        news = [plain(note.message, 120) for note in verdict.notes if note.kind not in _NOT_NEWS]
        more = f"; and {len(news) - 2} more (-v)" if len(news) > 2 else ""
        words.append(f"  ({'; '.join(news[:2])}{more})" if news else "", "dim")
    return words


def render(page: Page, verdict: Verdict) -> None:
    """Write the details of one trace; with `verbose` its calls too."""
    begin(page, verdict)
    steps(page, verdict.steps, verdict, 2)
    _longest(page, verdict)
    _earlier_attempts(page, verdict)
    conclude(page, verdict)
    _unobserved(page, verdict.steps)
    _notes(page, verdict)
    outside = sum(call.step is None for call in verdict.calls)
    own = plural(len(verdict.calls), "call")
    page.line(Text(f"{own} of this VM, {outside:,} outside the documented steps", "dim"), 2)
    _log_ids(page, verdict)
    if page.verbose > 1:
        _calls(page, verdict)
    page.line("")


def begin(page: Page, verdict: Verdict) -> None:
    """Write the heading, the findings that say why, and the ids. Of a success the ids come at once."""
    page.line(heading(page, verdict))
    for group in _groups(verdict)[:1]:
        rest = _continued(verdict.summary, group[0].message)
        found = _finding(verdict, group, _own_words(verdict, group[0]) if rest is None else rest)
        for place in _places(group):
            found.append(f"  {fragment(place, page.names)}", "cyan")
        page.line(found, 2, hang=4)
    for who, fault in faults(verdict):
        page.line(Text.assemble(f"{who}: ", (f"“{fault}”", "bold")), 2, hang=4)
    _answers(page, verdict, lambda note: not _begins_alike(note, verdict))
    page.line(identity(verdict), 2)


def identity(verdict: Verdict) -> Text:
    """Return what a reader may search for in other places: times, ids, hosts."""
    hosts = " → ".join(plain(host, 40) for host in verdict.attempts)
    built = {"active": "built on", "done": "on"}.get(verdict.outcome, "tried")
    built = "asked" if _host_is_unknown(verdict) else built
    parts = [
        f"{verdict.verdict}, {verdict.outcome}",
        f"{(timestamp(verdict.captured_ns) or '?')[:23].replace('T', ' ')} UTC",
        f"server {plain(verdict.server_id, 80)}" if verdict.server_id else "",
        f"request {plain(verdict.request_id, 80)}" if verdict.request_id else "",
        f"{NOVA_API} at {plain(verdict.api_host, 60)}" if verdict.api_host else "",
        f"{built} {hosts}" if hosts else "",
    ]
    return Text(" · ".join(part for part in parts if part), "dim")


def faults(verdict: Verdict) -> list[tuple[str, str]]:
    """Return the texts of the faults with their origin, each once, unless the first line has them."""
    errors: dict[str, str] = {}
    for deviation in verdict.deviations:
        call = deviation.call
        # What was seen last before a stall is no cause: a look-up may be answered 404 in a healthy creation.
        is_last = deviation.kind == "stalled" and call is not None and call.step is None
        if call and call.error and not is_last and not call.operation.startswith("CONNECT"):
            errors.setdefault(call.error, f"{plain(call.caller if _replies(call) else call.callee, 60)} said")
    for attempt in verdict.attempt_details[-1:]:
        errors.setdefault(attempt.error, f"fault on {plain(attempt.host, 60)}")
    errors.pop(_REFUSED, None)  # a TCP reset has no text; the first line names both sides
    told = _told_at_first(verdict)
    return [(who, plain(text, 400)) for text, who in errors.items() if text and text not in told]


def _told_at_first(verdict: Verdict) -> str:
    """Return what the headline and the line below it say."""
    return verdict.summary + " ".join(each.message for each in verdict.deviations[:1])


def _replies(call: CallRecord) -> bool:
    return call.protocol == "RPC" and call.operation.startswith("reply ")


def _longest(page: Page, verdict: Verdict) -> None:
    """Return the steps that took longest, and the longest waits between steps.

    Steps that enclose others are not counted: 1 to 3 wait for all of 4.
    """
    spans: list[_Span] = []
    for step in verdict.steps:
        if step.started_ns is not None:
            spans.append((step.started_ns, step.started_ns + (step.duration_ns or 0), step.step))
            if step.waited_ns:
                spans.append((step.started_ns - step.waited_ns, step.started_ns, f"{_WAIT}{step.step}"))
    for number, attempt in enumerate(verdict.attempt_details[:-1], 1):
        until_ns = attempt.started_ns + (attempt.duration_ns or 0)
        spans.append((attempt.started_ns, until_ns, f"attempt {number}"))
    last_ns = max((until_ns for _, until_ns, _ in spans), default=0)
    end_ns = verdict.settled_ns or max(verdict.ended_ns, last_ns)
    whole = end_ns - verdict.started_ns
    shares = []
    for since_ns, until_ns, what in sorted(_side_by_side(spans, end_ns), key=lambda span: span[0] - span[1]):
        length = until_ns - since_ns
        if length * 20 >= whole > 0:
            shares.append(f"{what} {duration(length)} ({100 * length // whole} %)")
    if shares and whole >= _LONG_NS:
        words = f"of {duration(whole)}: "
        page.line(Text.assemble((f"time {words}", "dim"), ", ".join(shares[:4])), 2, hang=4)


_Span = tuple[int, int, str]


def _side_by_side(spans: Sequence[_Span], end_ns: int) -> list[_Span]:
    """Return the spans until *end_ns* that enclose no other; overlapping spans are joined, because their
    shares of the total could not be given."""
    busy = [span for span in spans if not span[2].startswith(_WAIT) and span[1] > span[0]]
    busy = [span for span in busy if not any(_is_within(other, span) for other in busy if other != span)]
    waits = [span for span in spans if span[2].startswith(_WAIT)]
    joined: list[_Span] = []
    for since_ns, until_ns, what in sorted(
        busy + [wait for wait in waits if not any(_is_within(wait, step) for step in busy)]
    ):
        until_ns = min(until_ns, end_ns)
        if until_ns <= since_ns:
            continue
        begun_ns, open_ns, before = joined[-1] if joined else (0, 0, "")
        if since_ns < open_ns:
            # Short overlaps are ignored: a message is acknowledged while the next one is sent.
            if min(until_ns, open_ns) - since_ns < _MOMENT_NS:
                joined.append((open_ns, max(until_ns, open_ns), what))
            else:
                joined[-1] = (begun_ns, max(until_ns, open_ns), f"{before} with {what}")
        else:
            joined.append((since_ns, until_ns, what))
    return joined


def _is_within(inner: _Span, outer: _Span) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _earlier_attempts(page: Page, verdict: Verdict) -> None:
    """Write the hosts that were tried before the last one, whose steps are in the main table."""
    if len(verdict.attempt_details) < 2:
        return
    for number, attempt in enumerate(verdict.attempt_details, start=1):
        last = number == len(verdict.attempt_details)
        page.line(_attempt(number, attempt, last, _host_is_unknown(verdict)), 2, hang=4)
        if not last:
            shown = [step for step in attempt.steps if step.status != "not_reached"]
            steps(page, shown, verdict, 4, head=False)


def _host_is_unknown(verdict: Verdict) -> bool:
    """Return whether the captures end before the last host has built the VM."""
    return any(note.kind == "host" for note in verdict.notes)


def _attempt(number: int, attempt: Attempt, last: bool, is_unknown: bool) -> Text:
    words = Text.assemble((f"attempt {number} on {plain(attempt.host, 60)}: ", "bold"))
    if attempt.stopped_at:
        words.append(f"stopped at {attempt.stopped_at}")
    elif attempt.built and not is_unknown:
        words.append("built it")
    elif attempt.error and not attempt.built:
        words.append("gave up")
    else:
        words.append("how it ended is not in the captures")
        return words.append("  (the steps above)", "dim") if last else words
    words.append(f" after {duration(attempt.duration_ns)}" if attempt.duration_ns is not None else "")
    words.append(f": {plain(attempt.error, 300)}" if attempt.error else "", "red")
    return words.append("  (the steps above)" if last else "", "dim")


def deviations(page: Page, verdict: Verdict) -> None:
    """Write the deviations with evidence and expected calls; the first one is named at the beginning."""
    for number, group in enumerate(_groups(verdict)):
        if number:
            rest = _own_words(verdict, group[0])
            page.line(_finding(verdict, group, "" if rest in verdict.summary else rest), 2, hang=4)
        _evidence(page, verdict, group)


def _own_words(verdict: Verdict, deviation: Deviation) -> str:
    """Return the message of a deviation without what is written before it: its step, kind and title."""
    return _untitled(_rest(deviation.message, deviation.step), _title(verdict, deviation.step))


def _groups(verdict: Verdict) -> list[list[Deviation]]:
    """Return the deviations; repeated ones are together."""
    alike: dict[tuple[str, str | None, str], list[Deviation]] = {}
    for deviation in verdict.deviations:
        alike.setdefault((deviation.kind, deviation.step, deviation.message), []).append(deviation)
    return list(alike.values())


def _title(verdict: Verdict, step: str | None) -> str:
    return next((each.title for each in verdict.steps if each.step == step), "")


def _finding(verdict: Verdict, group: Sequence[Deviation], words: str) -> Text:
    """Return the kind, the step and its title, and *words*."""
    kind, step = group[0].kind, group[0].step
    text, title = Text.assemble((f"! {kind} {step or ''}".rstrip(), "bold red")), _title(verdict, step)
    text.append(f" ({plain(title, 80)})" if title else "", "dim")
    text.append(f"  {plain(words, 1000)}" if words else "")
    return text.append(f" ×{len(group)}" if len(group) > 1 else "", "bold")


def _continued(summary: str, message: str) -> str | None:
    """Return what the headline, which was cut, leaves out of *message*; '' where it has all of it.

    None where the headline says something else.
    """
    if message in summary:
        return ""
    told = max(range(min(len(message), 1000) + 1), key=lambda end: end if message[:end] in summary else 0)
    return f"…{message[told:]}" if told >= _BEGUN else None


def _places(group: Sequence[Deviation]) -> list[tuple[str, int]]:
    return [each.call.evidence[0] for each in group if each.call and each.call.evidence][:3]


def _evidence(page: Page, verdict: Verdict, group: Sequence[Deviation]) -> None:
    """Write the call that shows a deviation, and those that were expected."""
    kind, title = group[0].kind, _title(verdict, group[0].step)
    lines = dict.fromkeys(_seen(each.call) for each in group if each.call)
    for line in list(lines)[:1]:
        seen = Text.assemble(("seen     ", "dim"), plain(line, 300))
        for place in _places(group):
            seen.append(f"  {fragment(place, page.names)}", "cyan")
        if kind == "stalled" and group[0].call:
            seen.append(f"  at {offset(group[0].call.started_ns, verdict.started_ns)}", "dim")
        page.line(seen, 4, hang=9)
    for number, line in enumerate(group[0].expected[:4]):
        head = "      or " if number else "expected "
        page.line(Text.assemble((head, "dim"), plain(_without_title(line, title), 300)), 4, hang=9)


def _seen(call: CallRecord) -> str:
    """Return the line of *call*, with what a good answer says is wrong: else it would look as expected."""
    return f"{call.matched}: {call.said}" if call.said else call.matched


def _rest(message: str, step: str | None) -> str:
    """Return the message without step and kind, which are written before it."""
    return message.removeprefix(f"step {step} failed: ").removeprefix(f"step {step} ")


def _untitled(rest: str, title: str) -> str:
    """Return the rest of a message without the title, which is written before it."""
    return rest.removeprefix(f"({title}) ").removeprefix(f"({title}): ") if title else rest


def _without_title(expected: str, title: str) -> str:
    return expected.removesuffix(f": {title}") if title else expected


def conclude(page: Page, verdict: Verdict) -> None:
    """Write what belongs below the steps: the evidence, further deviations, and notes that say it again."""
    deviations(page, verdict)
    _answers(page, verdict, lambda note: _begins_alike(note, verdict))


def _begins_alike(note: Note, verdict: Verdict) -> bool:
    """Return whether the headline has the beginning of *note* already."""
    return note.message[:24] in verdict.summary


def _answers(page: Page, verdict: Verdict, wanted: Callable[[Note], bool]) -> None:
    """Write notes for operators: placement or filter, late or never, what the broker did, nova's fault."""
    for note in verdict.notes:
        if note.kind not in _ANSWERS or (note.kind == "fault" and _told(note.message, verdict)):
            continue
        if not wanted(note):
            continue
        text = Text.assemble((f"{_ANSWERS[note.kind]}: ", "bold"), plain(note.message, 400))
        if note.call and note.call.evidence:
            text.append(f"  {fragment(note.call.evidence[0], page.names)}", "cyan")
        page.line(text, 2, hang=4)


def _told(message: str, verdict: Verdict) -> bool:
    said = message.partition(": ")[2].rstrip(". ")
    return said in _told_at_first(verdict) or said in " ".join(text for _, text in faults(verdict))


def _notes(page: Page, verdict: Verdict) -> None:
    """Write the notes that are neither in the heading nor in `answers`."""
    steps: dict[tuple[str, str], list[str]] = {}
    for note in verdict.notes:
        if note.kind not in _ANSWERS and note.message not in _told_at_first(verdict):
            steps.setdefault((note.kind, note.message), []).append(note.step or "")
    for (kind, message), where in steps.items():
        head = " ".join(filter(None, ["note:", kind, ", ".join(filter(None, dict.fromkeys(where)))]))
        page.line(Text.assemble((f"{head}  ", "dim"), plain(message, 300)), 2, hang=6)


def _unobserved(page: Page, steps: Iterable[StepResult]) -> None:
    """Write why steps could not be observed: one line for each reason."""
    reasons: dict[str, list[str]] = {}
    for step in steps:
        if step.status == "unobserved":
            reasons.setdefault(step.reason, []).append(step.step)
    for reason, hidden in reasons.items():
        words = Text.assemble((f"not observed: {', '.join(hidden)}", "yellow"))
        page.line(words.append(f": {plain(reason, 400)}" if reason else ""), 2, hang=4)


def _log_ids(page: Page, verdict: Verdict) -> None:
    """Write the ids to search for, and in which log; services that log the same ids share a line."""
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
