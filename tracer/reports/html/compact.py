"""Packs traces into a compact form, which the page unpacks when a trace is opened.

A page may hold thousands of traces: shared values are in one table, numbers are written as differences, and
each trace is deflated separately. `unpacked` in details.js reads what `packed` writes.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from tracer.model import Attempt, CallRecord, Deviation, Report, StepResult, Verdict
from tracer.reports import asked_words, file_names, plain, refused, shown_status, timestamp
from tracer.reports.sequence import arrives, marks

__all__ = ["Packer"]

_WIRE_LIMIT = 400
"""Most characters of a string from the wire."""


class Packer:
    """Packs traces; keeps the table of shared values."""

    def __init__(self, report: Report) -> None:
        self.shapes: list[list[Any]] = []
        """The parts of calls that traces share: plane, protocol, caller, callee, operation, result, whether
        it failed, whether it arrived."""
        self._shape_numbers: dict[tuple[str, ...], int] = {}
        paths = [capture.path for capture in report.captures]
        names = file_names(paths)
        self.files = [names[path] for path in paths]
        self._file_numbers = {path: number for number, path in enumerate(paths)}

    def packed(self, verdict: Verdict) -> str:
        """Return `members` as JSON, deflated, in base64."""
        return base64.b64encode(zlib.compress(msgspec.json.encode(self.members(verdict)), 9)).decode()

    def members(self, verdict: Verdict) -> dict[str, Any]:
        """Return the members of one trace in the page; times are microseconds since its start."""
        strings = _Strings()
        steps = {step.step: number for number, step in enumerate(verdict.steps)}
        position = {call.index: number for number, call in enumerate(verdict.calls)}
        return {
            "name": _or_none(verdict.name),
            "id": plain(verdict.id, _WIRE_LIMIT),
            "ids": [
                [what, plain(value, _WIRE_LIMIT)]
                for what, value in (
                    ("server", verdict.server_id),
                    ("request", verdict.request_id),
                    ("project", verdict.project_id),
                )
                if value
            ],
            "verdict": verdict.verdict,
            "outcome": verdict.outcome,
            "stopped": verdict.stopped_at or " – ".join(verdict.stopped_between or ()),
            "api": _or_none(verdict.api_host),
            "summary": plain(verdict.summary, 1000),
            "usual": any(step.usual_ns is not None for step in verdict.steps),
            "started": timestamp(verdict.captured_ns),
            "took": _micro(verdict.ended_ns - verdict.started_ns),
            "attempts": [_attempt(attempt, verdict.started_ns) for attempt in verdict.attempt_details],
            "steps": [_step(step, verdict, position) for step in verdict.steps],
            "deviations": [_deviation(each, position) for each in verdict.deviations],
            "notes": [
                [note.kind, note.step or "", plain(note.message, _WIRE_LIMIT), _at(note.call, position)]
                for note in verdict.notes
            ],
            "marks": [
                [mark.before, mark.kind, mark.step, mark.words, list(mark.ends or ())]
                for mark in marks(verdict)
            ],
            "logs": [[plain(service, 200), plain(key, _WIRE_LIMIT)] for service, key in verdict.log_ids],
            "calls": self._calls(verdict, steps, strings),
            "strings": strings.all,
        }

    def _calls(self, verdict: Verdict, steps: Mapping[str, int], strings: _Strings) -> list[list[Any]]:
        found, index, started_ns = [], 0, verdict.started_ns
        for call in verdict.calls:
            own = [
                call.index - index,
                self._shape(call),
                _micro(call.started_ns) - _micro(started_ns),
                -1 if call.duration_ns is None else _micro(call.duration_ns),
                steps.get(call.step or "", -1),
                self._frames(call.evidence),
                int(call.ambiguous),
            ]
            texts = [call.request_id, call.caller_address, call.callee_address, call.via, call.error]
            texts += [call.message_id, call.queue]
            found.append(own + [strings.number(plain(text, _WIRE_LIMIT)) for text in texts])
            index, started_ns = call.index, call.started_ns
        return found

    def _shape(self, call: CallRecord) -> int:
        key = (call.plane, call.protocol, call.caller, call.callee, asked_words(call), call.result)
        number = self._shape_numbers.get(key)
        if number is None:
            number = self._shape_numbers[key] = len(self.shapes)
            words = [plain(text, limit) for text, limit in zip(key, (60, 20, 60, 60, 400, 60), strict=True)]
            self.shapes.append([*words, int(refused(call)), int(arrives(call))])
        return number

    def _frames(self, evidence: Sequence[tuple[str, int]]) -> list[int]:
        """Return file, frame, file, frame …; a frame in the file of the one before is a difference to it."""
        found: list[int] = []
        file, last = -1, 0
        for path, frame in evidence:
            number = self._file_numbers.get(path, -1)
            found += (number, frame - last if number == file else frame)
            file, last = number, frame
        return found


class _Strings:
    """The strings of one trace, each once; 0 is the empty string."""

    def __init__(self) -> None:
        self.all = [""]
        self._numbers = {"": 0}

    def number(self, text: str) -> int:
        if text not in self._numbers:
            self._numbers[text] = len(self.all)
            self.all.append(text)
        return self._numbers[text]


def _step(step: StepResult, verdict: Verdict, position: Mapping[int, int]) -> list[Any]:
    since = None if step.started_ns is None else _micro(step.started_ns - verdict.started_ns)
    return [
        step.step,
        plain(step.title, 200),
        shown_status(step, verdict),
        since,
        _micro(step.duration_ns),
        [position[call.index] for call in step.calls if call.index in position],
        plain(step.reason, _WIRE_LIMIT),
        _micro(step.usual_ns),
        any(note.kind == "slow" and note.step == step.step for note in verdict.notes),
    ]


def _attempt(attempt: Attempt, origin_ns: int) -> list[Any]:
    since, took = _micro(attempt.started_ns - origin_ns), _micro(attempt.duration_ns)
    return [
        plain(attempt.host, 120),
        attempt.stopped_at or "",
        plain(attempt.error, _WIRE_LIMIT),
        since,
        took,
    ]


def _deviation(deviation: Deviation, position: Mapping[int, int]) -> list[Any]:
    expected = [plain(line, _WIRE_LIMIT) for line in deviation.expected]
    at = _at(deviation.call, position)
    return [deviation.kind, deviation.step or "", plain(_rest(deviation), 1000), at, expected]


def _rest(deviation: Deviation) -> str:
    """Return the message without step and kind, which are written before it."""
    step = deviation.step
    return deviation.message.removeprefix(f"step {step} failed: ").removeprefix(f"step {step} ")


def _at(call: CallRecord | None, position: Mapping[int, int]) -> int:
    return position.get(call.index, -1) if call else -1


def _micro(time_ns: int | None) -> Any:
    return None if time_ns is None else time_ns // 1000


def _or_none(text: str | None) -> str | None:
    return plain(text, 255) if text else None
