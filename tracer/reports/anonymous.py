"""Makes a report that may be mailed: replaces names, hosts, addresses, and ids of projects and users.

Equal values get equal replacements. Roles, planes, steps, times, frames, and the ids of requests and servers
stay: these ids mean nothing outside the cloud, and both sides need them to refer to a trace. Texts of faults
may hold anything, so quoted parts of them are replaced too. Addresses in one /24 stay in one /24.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from tracer.model import Attempt, CallRecord, Capture, Deviation, Note, Report, StepResult, Verdict
from tracer.openstack.services import PROJECTS, ROLES

__all__ = ["anonymous", "anonymous_calls"]

_ROLES = ROLES | {"?", ""}
_PLANES = frozenset({"External_api", "Internal_base", "External_om", "?", ""})
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_PARTS = re.compile(
    rf"""(?xi)
      (?P<kept> (?:\breq-)?{_UUID}\b | \b(?:{"|".join(PROJECTS)})(?:\.\w+)+)
    | (?P<quoted> '[^'\n]{{1,400}}' | "[^"\n]{{1,400}}")
    | (?P<mail> [\w.+-]+@[\w-]+(?:\.[\w-]+)+)
    | (?P<server> (?<=://)[^/\s:'"\[\]]+)
    | (?P<mac> \b(?:[0-9a-f]{{2}}:){{5}}[0-9a-f]{{2}}\b)
    | (?P<v4> (?<![\w.])\d{{1,3}}(?:\.\d{{1,3}}){{3}}(?![\w.]*\d))
    | (?P<v6> (?<![\w:])(?:[0-9a-f]{{0,4}}:){{2,7}}[0-9a-f]{{0,4}}(?![\w:]))
    | (?P<hex> (?<![0-9a-f])[0-9a-f]{{32}}(?![0-9a-f]))
    | (?P<word> \w(?:[\w.-]*\w)?)
    """
)
_ENDING = re.compile(r"(?:pcap|pcapng|cap)\d*(?:\.(?:gz|zst))?")
_HEX = re.compile(r"[0-9a-fA-F]{32}")
_WHOLE = re.compile(r"\w(?:[\w.-]*\w)?")


def anonymous(report: Report) -> Report:
    """Return a copy of the report without values that identify the cloud."""
    names = _Pseudonyms(report.captures)
    for verdict in report.verdicts:
        names.learn(verdict)
    return replace(
        report,
        captures=[_capture(capture, names) for capture in report.captures],
        verdicts=[_verdict(verdict, names) for verdict in report.verdicts],
        baseline=("baseline", report.baseline[1]) if report.baseline else None,
        anonymized=True,
        remarks=tuple(names.text(words) for words in report.remarks),
    )


def anonymous_calls(calls: Iterable[CallRecord]) -> Iterator[CallRecord]:
    """Yield calls without values that identify the cloud.

    Hosts and names that only a verdict holds are unknown here. The part of a queue's name after the first dot
    is a host, and is replaced as one.
    """
    names = _Pseudonyms(())
    for call in calls:
        if "." in call.queue:
            names.host(call.queue.partition(".")[2])
        yield _call(call, names)


class _Pseudonyms:
    """The replacements. They are numbered in the order of the report: every run gives the same."""

    def __init__(self, captures: Iterable[Capture]) -> None:
        self._words: dict[str, str] = {}
        """Words that are replaced everywhere."""
        self._phrases: dict[str, str] = {}
        """The same for names of more than one word."""
        self._hosts: set[str] = set()
        self._known: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        for capture in captures:
            self.path(capture.path)

    def path(self, path: str) -> str:
        """Return the replacement of a capture's path: its plane's name if the file has it, else a number."""
        return self._same("path", path, lambda: self._file_name(path))

    def _file_name(self, path: str) -> str:
        stem, _, rest = path.rsplit("/", 1)[-1].partition(".")
        ending = f".{rest}" if _ENDING.fullmatch(rest) else ""
        name = self._next(f"capture-{{}}{ending}") if stem not in _PLANES else stem + ending
        taken = name in self._known.values()
        return self._next(f"{{}}/{name}") if taken else name

    def learn(self, verdict: Verdict) -> None:
        """Learn the names and hosts that a verdict holds in fields of their own."""
        if verdict.name:
            self._learn(verdict.name, "vm-{}")
        if verdict.project_id:
            self._learn(verdict.project_id, "project-{}")
        for host in (verdict.api_host, verdict.compute_host, *verdict.attempts):
            self.host(host or "")
        for call in verdict.calls:
            for role in (call.caller, call.callee):
                if role not in _ROLES and not _is_address(role):
                    self._learn(role, "role-{}")
            if call.plane not in _PLANES:
                self._learn(call.plane, "plane-{}")

    def host(self, host: str) -> None:
        """Learn the name of a host, and its name without domain."""
        if host and not _is_address(host) and host not in _ROLES:
            alias = self._learn(host, "host-{}")
            first = host.partition(".")[0]
            self._hosts |= {host, first}
            self._words.setdefault(first, alias)

    def _learn(self, word: str, form: str) -> str:
        table = self._words if _WHOLE.fullmatch(word) else self._phrases
        if word not in table:
            table[word] = self._next(form)
        return table[word]

    def _next(self, form: str) -> str:
        self._counts[form] = self._counts.get(form, 0) + 1
        return form.format(self._counts[form])

    def _same(self, kind: str, value: str, make: Callable[[], str]) -> str:
        key = (kind, value.lower())
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def text(self, text: str) -> str:
        """Return *text* with all identifying parts replaced."""
        if not text:
            return text
        for phrase, alias in self._phrases.items():
            text = text.replace(phrase, alias)
        return _PARTS.sub(self._replaced, text)

    def value(self, text: str | None) -> str | None:
        """Return the replacement of a field that is a name, a host, an address or an id as a whole."""
        if not text:
            return text
        return self._words.get(text) or self._phrases.get(text) or self.text(text)

    def _replaced(self, match: re.Match[str]) -> str:
        kind, found = match.lastgroup, match[0]
        if kind == "quoted":
            inside = self.text(found[1:-1])
            if inside == found[1:-1] and not inside.isdigit():
                inside = self._same("text", inside, lambda: self._next("text-{}"))
            return found[0] + inside + found[-1]
        if kind == "kept":
            return self._words.get(found, found)
        if kind == "mail":
            return self._same("mail", found, lambda: self._next("user-{}@example.org"))
        if kind == "server" and not _is_address(found):
            return self._words.get(found) or self._same("server", found, lambda: self._next("server-{}"))
        if kind == "mac":
            return self._same("mac", found, lambda: self._next("02:00:00:00:00:{:02x}"))
        if kind in ("v4", "v6", "server"):
            return self._address(found)
        if kind == "hex":
            return self._hex(found)
        if kind == "word":
            return self._word(found)
        return found

    def _word(self, word: str) -> str:
        """Return the replacement of a word; a host may follow a topic (compute.HOST) and have a domain."""
        if word in self._words:
            return self._words[word]
        parts = word.split(".")
        for at in range(1, len(parts)):
            rest = ".".join(parts[at:])
            if rest in self._words:
                return ".".join((*parts[:at], self._words[rest]))
        for at, part in enumerate(parts):
            if part in self._hosts:
                return ".".join((*parts[:at], self._words[part]))
        return _HEX.sub(lambda match: self._hex(match[0]), word)  # reply_0123…

    def _hex(self, found: str) -> str:
        return self._words.get(found) or self._same("hex", found, lambda: self._next("{:032x}"))

    def _address(self, text: str) -> str:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return text  # 999.1.2.3, or the time of day
        if address.is_loopback or address.is_unspecified:
            return text
        if isinstance(address, ipaddress.IPv6Address):
            return self._same("v6", address.compressed, lambda: self._next("2001:db8::{:x}"))
        net = text.rpartition(".")[0]
        number = int(self._same("net", net, lambda: self._next("{}")))
        form = f"10.{number >> 8 & 255}.{number & 255}." + "{:d}"
        return self._same("v4", text, lambda: self._next(form))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


# --- the nouns, one by one --------------------------------------------------------------------------


def _capture(capture: Capture, names: _Pseudonyms) -> Capture:
    return replace(
        capture,
        path=names.path(capture.path),
        plane=names.value(capture.plane),
        planes={names.value(plane) or "" for plane in capture.planes},
        interfaces={},
    )


def _call(call: CallRecord, names: _Pseudonyms) -> CallRecord:
    return replace(
        call,
        plane=names.value(call.plane) or "",
        caller=names.value(call.caller) or "",
        callee=names.value(call.callee) or "",
        operation=names.text(call.operation),
        evidence=tuple((names.path(path), frame) for path, frame in call.evidence),
        error=names.text(call.error),
        said=names.text(call.said),
        caller_address=names.text(call.caller_address),
        callee_address=names.text(call.callee_address),
        message_id=names.text(call.message_id),
        queue=names.text(call.queue),
        fate=tuple((names.path(path), frame) for path, frame in call.fate),
    )


def _verdict(verdict: Verdict, names: _Pseudonyms) -> Verdict:
    calls = {call.index: _call(call, names) for call in verdict.calls}

    def known(call: CallRecord) -> CallRecord:
        return calls.get(call.index) or _call(call, names)

    def step(found: StepResult) -> StepResult:
        return replace(found, calls=tuple(map(known, found.calls)), reason=names.text(found.reason))

    def attempt(found: Attempt) -> Attempt:
        steps = tuple(map(step, found.steps))
        return replace(found, host=names.value(found.host) or "", error=names.text(found.error), steps=steps)

    def deviation(found: Deviation) -> Deviation:
        return replace(
            found,
            message=names.text(found.message),
            call=known(found.call) if found.call else None,
            expected=tuple(map(names.text, found.expected)),
            peer=names.text(found.peer),
            cause=names.text(found.cause),
        )

    def note(found: Note) -> Note:
        return replace(
            found, message=names.text(found.message), call=known(found.call) if found.call else None
        )

    return replace(
        verdict,
        project_id=names.value(verdict.project_id),
        name=names.value(verdict.name),
        api_host=names.value(verdict.api_host),
        compute_host=names.value(verdict.compute_host),
        attempts=tuple(names.value(host) or "" for host in verdict.attempts),
        attempt_details=tuple(map(attempt, verdict.attempt_details)),
        summary=names.text(verdict.summary),
        steps=tuple(map(step, verdict.steps)),
        deviations=tuple(map(deviation, verdict.deviations)),
        notes=tuple(map(note, verdict.notes)),
        calls=tuple(calls.values()),
        log_ids=tuple((names.text(service), key) for service, key in verdict.log_ids),
    )
