"""The values of a report: plain, with roles and planes resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tracer.model.packets import Capture

if TYPE_CHECKING:
    from tracer.model.second import CrossCheck

__all__ = [
    "Attempt",
    "CallRecord",
    "Conformance",
    "Dark",
    "Deviation",
    "DeviationKind",
    "Note",
    "NoteKind",
    "Outcome",
    "Report",
    "StepResult",
    "StepStatus",
    "Verdict",
]

# The words of reports, JSON and `--allow`; the README explains each of them (tests/test_readme.py).
Conformance = Literal["conforms", "deviates", "inconclusive"]
Outcome = Literal["active", "done", "rejected", "error", "stuck", "deleted", "unfinished"]
StepStatus = Literal["seen", "inferred", "failed", "missing", "unobserved", "skipped", "not_reached"]
DeviationKind = Literal["failed", "stalled", "missing", "extra", "order", "plane", "mode", "late"]
NoteKind = Literal[
    "mode",
    "retry",
    "host",
    "redelivered",
    "ambiguous",
    "allowed",
    "slow",
    "baseline",
    "placement",
    "reply",
    "broker",
    "fault",
    "absent",
]


@dataclass(slots=True, frozen=True)
class CallRecord:
    """A call in a report: roles, planes and evidence resolved."""

    index: int
    plane: str
    protocol: str
    caller: str
    callee: str
    operation: str
    result: str
    started_ns: int
    duration_ns: int | None
    evidence: tuple[tuple[str, int], ...]
    """(path, frame). The first one is the frame in which Wireshark shows the message."""
    step: str | None = None
    """The documented step that it shows."""
    ambiguous: bool = False
    error: str = ""
    via: str = ""
    """'lb' when it went through a proxy."""
    caller_address: str = ""
    callee_address: str = ""
    request_id: str = ""
    """The id to grep for in the callee's log."""
    traces: tuple[str, ...] = ()
    """Ids of the traces it belongs to."""
    action: str = ""
    """The action of a POST to `/action`; what a message or a statement says of a server's state."""
    message_id: str = ""
    """RPC: the id that oslo.messaging logs when no reply comes."""
    queue: str = ""
    """RPC: the routing key, which names the queue."""
    fate: tuple[tuple[str, int], ...] = ()
    """RPC: (path, frame) of the consumer's acknowledgement. Not shown, since it has no content."""
    ahead_ns: int = 0
    """How far the clock of the capture is ahead of the one by which all is judged, `started_ns` too."""
    answered_by: str = ""
    """The proxy that answered by itself, in place of the callee."""
    said: str = ""
    """What the body of a good answer says is wrong with what was asked for."""
    spoken: str = ""
    """Name of the decoder of its connection; of one that was not established, by its port."""

    @property
    def captured_ns(self) -> int:
        """When it began, by the clock of the capture that shows it."""
        return self.started_ns + self.ahead_ns

    @property
    def line(self) -> str:
        """The canonical line: `<plane> <protocol> <caller> > <callee> <operation> <result>`."""
        return f"{self.plane} {self.protocol} {self.caller} > {self.callee} {self.operation} {self.result}"

    @property
    def matched(self) -> str:
        """The line as grammars match it: an action from the body ends the path, a state the operation.

        `… POST /v2.1/servers/{id}/action/os-stop 202`, `… call object_action Instance.save spawning ok`
        """
        between = "/" if self.protocol == "REST" else " "
        action = f"{between}{self.action}" if self.action else ""
        ends = f"{self.plane} {self.protocol} {self.caller} > {self.callee}"
        return f"{ends} {self.operation}{action} {self.result}"


@dataclass(slots=True, frozen=True)
class StepResult:
    """The result of one documented step in one trace."""

    step: str
    """4a"""
    title: str
    status: StepStatus
    started_ns: int | None = None
    duration_ns: int | None = None
    calls: tuple[CallRecord, ...] = ()
    reason: str = ""
    """Why it is unobserved, and which capture point would show it; or the role that owes it."""
    waited_ns: int | None = None
    """Time before it in which nothing documented happened; None if it is not known."""
    usual_ns: int | None = None
    """With a baseline: its mean duration in good creations."""
    usual_p95_ns: int | None = None
    """With a baseline: its 95th percentile in good creations."""

    @property
    def captured_ns(self) -> int | None:
        """When it began, by the clock of the capture that shows it."""
        return None if self.started_ns is None else _captured(self.started_ns, self.calls)


@dataclass(slots=True, frozen=True)
class Deviation:
    """A difference from the workflow that makes a trace deviate."""

    kind: DeviationKind
    step: str | None
    message: str
    call: CallRecord | None = None
    expected: tuple[str, ...] = ()
    peer: str = ""
    """The role that failed, or that owes the missing step."""
    cause: str = ""
    """The text of the fault, or what the last call did."""
    hindrance: str = ""
    """What at the broker kept the creation from going on; the message and the cause hold it, too."""


@dataclass(slots=True, frozen=True)
class Note:
    """A remark on a trace, which by itself does not make it deviate."""

    kind: NoteKind
    step: str | None
    message: str
    call: CallRecord | None = None
    """The call that shows it."""


@dataclass(slots=True, frozen=True)
class Attempt:
    """One attempt of a host to build the VM."""

    host: str
    stopped_at: str | None
    error: str
    started_ns: int
    duration_ns: int | None
    steps: tuple[StepResult, ...] = ()
    """Steps 7 to 8c of this attempt."""
    built: bool = False
    """Something says that this host built the VM."""

    @property
    def captured_ns(self) -> int:
        """When it began, by the clock of the capture that shows it."""
        return _captured(self.started_ns, [call for step in self.steps for call in step.calls])


@dataclass(slots=True, frozen=True)
class Verdict:
    """One trace checked against a grammar."""

    id: str
    request_id: str | None
    server_id: str | None
    project_id: str | None
    name: str | None
    verdict: Conformance
    outcome: Outcome
    """`done` is the `active` of workflows that make no server."""
    stopped_at: str | None
    stopped_between: tuple[str, str] | None
    api_host: str | None
    compute_host: str | None
    attempts: tuple[str, ...]
    attempt_details: tuple[Attempt, ...]
    started_ns: int
    ended_ns: int
    summary: str
    steps: tuple[StepResult, ...]
    deviations: tuple[Deviation, ...]
    notes: tuple[Note, ...]
    calls: tuple[CallRecord, ...]
    log_ids: tuple[tuple[str, str], ...] = ()
    """(service, request id to grep for in its log)."""
    settled_ns: int | None = None
    """Time at which success or failure was seen, from which the summary counts; None while it is open."""
    grammar: str = ""
    """Name of the grammar that it was checked against."""

    @property
    def captured_ns(self) -> int:
        """When it began, by the clock of the capture that shows it."""
        return _captured(self.started_ns, self.calls)

    @property
    def captured_end_ns(self) -> int:
        """When it ended, by the clock of the capture that shows it."""
        for call in reversed(self.calls):
            if call.ahead_ns and call.started_ns + (call.duration_ns or 0) == self.ended_ns:
                return self.ended_ns + call.ahead_ns
        return self.ended_ns


def _captured(time_ns: int, calls: Sequence[CallRecord]) -> int:
    """Return *time_ns*, when the first of *calls* began, by the clock of its capture."""
    first = min(calls, key=lambda call: abs(call.started_ns - time_ns), default=None)
    return time_ns if first is None else time_ns + first.ahead_ns


@dataclass(frozen=True, slots=True)
class Dark:
    """Connections between two roles on one plane that are TLS without keys."""

    plane: str
    """Empty for the rest, of any planes, for which there was no room."""
    caller: str
    """A role, or `?`."""
    callee: str
    port: int
    """That of the server; 0 for the rest."""
    connections: int
    steps: tuple[str, ...]
    """The steps that they hide, of those that could not be seen."""


@dataclass(slots=True, frozen=True)
class Report:
    """One run of `tracer check`."""

    grammar: str
    """Name of the grammar; `all` where each trace was checked against its own."""
    captures: Sequence[Capture]
    verdicts: Sequence[Verdict]
    partial: bool = False
    """The run was interrupted."""
    seen: tuple[tuple[str, int], ...] = ()
    """For a run without a trace, what the captures hold instead: (words, count)."""
    advice: tuple[str, ...] = ()
    """What the captures could not show, and what to capture next time."""
    baseline: tuple[str, int] | None = None
    """The baseline of step times: its file, and the number of creations it was learnt from."""
    remarks: tuple[str, ...] = ()
    """Probable mistakes in the arguments; for standard error."""
    anonymized: bool = False
    """Names, addresses and ids are replaced."""
    forgotten: tuple[tuple[str, int], ...] = ()
    """What was dropped by limits of memory: (what, how often). Traces may lack calls then."""
    internal_errors: tuple[tuple[str, int], ...] = ()
    """Mistakes of ours that were met: (type and place, how often). What they concern is left out."""
    left_out: tuple[int, ...] = ()
    """Start times in ns of the traces outside of the requested time."""
    grammar_reason: str = ""
    """Why this grammar of a creation was chosen; empty where the user asked for it."""
    cross_check: CrossCheck | None = None
    """What tshark decodes otherwise, where that was asked for."""
    dark: tuple[Dark, ...] = ()
    """The connections that cannot be read because they are TLS, those that hide steps first."""
