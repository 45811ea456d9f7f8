"""Writes creations as an object-centric event log (OCEL 2.0, JSON), for process miners.

Each documented step that was seen is one event, related to all creations that share its calls: a request for
three VMs has one step 1. Objects are creations, requests, the services at both ends of a step's call, and
compute hosts. A step that was not seen is no event; a miner finds it by comparison with other creations.

Source: ocel-standard.org, "OCEL 2.0 Specification"; r4pm (Rust4PM) writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import r4pm
from r4pm.bindings import (
    locel_add_e2o,
    locel_add_event,
    locel_add_event_type,
    locel_add_o2o,
    locel_add_object,
    locel_add_object_type,
    locel_new,
)

from tracer.model import Report, StepResult, Verdict
from tracer.openstack.services import HOST_SERVICE
from tracer.reports import plain, timestamp, witnesses

__all__ = ["pieces"]

_CREATION = ("name", "server_id", "verdict", "outcome", "stopped_at", "summary")
_EVENT = (
    ("status", "string"),
    ("line", "string"),
    ("error", "string"),
    ("frame", "string"),
    ("took_ms", "float"),
)
_Attributes = list[list[tuple[str, bool | float | int | str | None]]]
_ALWAYS = "1970-01-01T00:00:00Z"
"""The time of attributes that never change."""


def pieces(report: Report) -> Iterator[bytes]:
    """Yield the log in parts. It passes through a temporary file: the library only writes files."""
    log = _Log()
    try:
        for verdict in report.verdicts:
            log.add(verdict)
        with TemporaryDirectory(prefix="tracer-") as folder:
            file = Path(folder, "log.json")
            r4pm.export_item(log.id, str(file))
            with file.open("rb") as written:
                while piece := written.read(1 << 20):
                    yield piece
    finally:
        r4pm.remove_item(log.id)


class _Log:
    """A log to which creations are added."""

    def __init__(self) -> None:
        self.id: str = locel_new()
        self._objects: dict[tuple[str, str], int] = {}
        self._events: dict[tuple[str, ...], int] = {}
        locel_add_object_type(self.id, "creation", [{"name": name, "type": "string"} for name in _CREATION])
        for kind in ("request", "service", "host"):
            locel_add_object_type(self.id, kind, [])

    def add(self, verdict: Verdict) -> None:
        """Add a creation, its events, and the related objects."""
        values = [_text(getattr(verdict, name)) for name in _CREATION]
        creation = self._object("creation", verdict.id, values)
        request = self._object("request", verdict.request_id) if verdict.request_id else None
        if request is not None:
            locel_add_o2o(self.id, creation, request, "asked for by")
        if verdict.compute_host:
            locel_add_o2o(self.id, creation, self._object("host", verdict.compute_host), "placed on")
        for step, host in _steps(verdict):
            event = self._event(step, verdict)
            locel_add_e2o(self.id, event, creation, "creates")
            if request is not None:
                locel_add_e2o(self.id, event, request, "answers")
            if host:
                locel_add_e2o(self.id, event, self._object("host", host), "on")
            for call in witnesses(step, verdict)[:1]:
                locel_add_e2o(self.id, event, self._object("service", call.caller), "from")
                locel_add_e2o(self.id, event, self._object("service", call.callee), "to")

    def _object(self, kind: str, name: str, values: Iterable[str] = ()) -> int:
        """Return the id of the object of that kind and name. Ids begin with the kind, to be unique."""
        key = (kind, name)
        if key not in self._objects:
            label = f"{kind} {plain(name, 400)}"
            attributes: _Attributes = [[(_ALWAYS, value)] for value in values]
            made = locel_add_object(self.id, kind, label, attributes, [])
            if made is None:  # the id is taken: two names look alike once they are plain
                label = f"{label} #{len(self._objects)}"
                made = locel_add_object(self.id, kind, label, attributes, [])
            self._objects[key] = _known(made)
        return self._objects[key]

    def _event(self, step: StepResult, verdict: Verdict) -> int:
        shared = tuple(str(call.index) for call in step.calls)
        key = (step.step, *(shared or (verdict.id,)))
        if key not in self._events:
            title = f"{step.step} {plain(step.title, 200)}"
            locel_add_event_type(self.id, title, [{"name": name, "type": kind} for name, kind in _EVENT])
            first = next(iter(witnesses(step, verdict)), None)
            path, frame = first.evidence[0] if first and first.evidence else ("", 0)
            took_ms = None if step.duration_ns is None else round(step.duration_ns / 1e6, 3)
            made = locel_add_event(
                self.id,
                title,
                timestamp(step.started_ns) or _ALWAYS,
                f"event {len(self._events) + 1}",
                [
                    step.status,
                    _text(first.line if first else ""),
                    _text(first.error if first else ""),
                    f"{_text(path)}#{frame}" if path else "",
                    took_ms,
                ],
                [],
            )
            self._events[key] = _known(made)
        return self._events[key]


def _steps(verdict: Verdict) -> Iterator[tuple[StepResult, str]]:
    """Return the seen steps of all attempts in order of time, with the compute host that each is about."""
    host = verdict.compute_host or ""
    earlier = [(step, attempt.host) for attempt in verdict.attempt_details[:-1] for step in attempt.steps]
    last = [(step, host if _is_hosted(step) else "") for step in verdict.steps]
    came = [each for each in earlier + last if each[0].calls and timestamp(each[0].started_ns)]
    yield from sorted(came, key=lambda each: each[0].started_ns or 0)


def _is_hosted(step: StepResult) -> bool:
    """Return whether *step* happened on a compute host, or asked one."""
    return any(HOST_SERVICE in (call.caller, call.callee) for call in step.calls)


def _known(index: int | None) -> int:
    if index is None:
        raise ValueError("r4pm takes no object or event of a type that was declared")
    return index


def _text(text: str | None) -> str:
    return plain(text, 1000) if text else ""
