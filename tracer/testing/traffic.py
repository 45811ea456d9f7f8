"""Checked traffic for tests: all traces, one trace, one step, and claims about them.

    traffic = check("captures/boot")
    assert traffic.conforms()
    trace = traffic.only(name="web-1")
    assert trace.step("8b").within("2s") and trace.before("4e", "5")

This module does not import pytest: the fixture `tracer` returns these values; other runners can use them.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

from tracer import engine
from tracer.errors import UsageError, close_matches
from tracer.model import CallRecord, Report, Verdict
from tracer.reports import failure, lead, plain
from tracer.settings import AUTO, Settings
from tracer.testing.claims import CheckedStep, Claim

__all__ = ["CheckedTrace", "Traffic", "check", "conforms", "difference"]

LINE = 140
"""pytest cuts an explanation at 640 characters; the first lines are to be whole."""
INCONCLUSIVE = "inconclusive"
"""Beside KIND and KIND:STEP, what `allow` may hold: an inconclusive trace is as good as a conforming one."""


def check(
    *captures: str | os.PathLike[str],
    grammar: str | os.PathLike[str] = AUTO,
    topology: str | os.PathLike[str] | None = None,
    stall_s: float = 60.0,
    allow: Sequence[str] = (),
) -> Traffic:
    """Return the traffic in *captures*, which are arguments as of `tracer check`.

    They are read once, when a result is first needed. SourceError, GrammarError or UsageError is raised then.
    """
    if not captures:
        raise UsageError("no captures to check: name a file or a folder")
    settings = Settings(
        grammar=os.fspath(grammar),
        topology=None if topology is None else Path(topology),
        stall_s=stall_s,
        allow=tuple(allow),
    )
    return Traffic([os.fspath(capture) for capture in captures], settings)


class Traffic:
    """The traces of some captures, checked against a grammar."""

    def __init__(self, captures: Sequence[str], settings: Settings) -> None:
        self.captures = tuple(captures)
        self.settings = settings
        self._known: dict[str, Traffic] = {settings.grammar: self}

    def __repr__(self) -> str:
        return f"<traffic of {', '.join(plain(path, 100) for path in self.captures)}>"

    @cached_property
    def report(self) -> Report:
        """The report of `tracer check` on these captures."""
        kinds = tuple(kind for kind in self.settings.allow if kind != INCONCLUSIVE)
        return engine.check(self.captures, replace(self.settings, allow=kinds))

    @property
    def traces(self) -> list[CheckedTrace]:
        """The traces, one for each VM, in order of their start."""
        return [CheckedTrace(verdict, self) for verdict in self.report.verdicts]

    def __iter__(self) -> Iterator[CheckedTrace]:
        return iter(self.traces)

    def __len__(self) -> int:
        return len(self.report.verdicts)

    def where(
        self,
        *,
        name: str | None = None,
        server_id: str | None = None,
        request_id: str | None = None,
        outcome: str | None = None,
    ) -> Traffic:
        """Return the traffic with only the traces that match all given arguments.

        *name* may hold `*` and `?`; ids may be prefixes.
        """
        wanted = {"name": name, "server_id": server_id, "request_id": request_id, "outcome": outcome}
        return _Part(self, {key: value for key, value in wanted.items() if value is not None})

    def only(
        self, *, name: str | None = None, server_id: str | None = None, request_id: str | None = None
    ) -> CheckedTrace:
        """Return the only trace that matches. Raises AssertionError unless there is exactly one."""
        __tracebackhide__ = True
        part = self.where(name=name, server_id=server_id, request_id=request_id)
        traces = part.traces
        if len(traces) == 1:
            return traces[0]
        reasons = [part._none()] if not traces else failure.crowd(part.report.verdicts, part.report)
        found = "no trace" if not traces else f"{len(traces)} traces"
        raise AssertionError("\n".join([f"{found} where there should be one{part._words()}", *reasons]))

    def against(self, grammar: str | os.PathLike[str]) -> Traffic:
        """Return the same captures checked against another grammar."""
        wanted = os.fspath(grammar)
        if wanted not in self._known:
            other = self.checked_with(replace(self.settings, grammar=wanted))
            other._known = self._known
            self._known[wanted] = other
        return self._known[wanted]

    def checked_with(self, settings: Settings) -> Traffic:
        """Return the same captures checked with *settings*; subclasses without captures override it."""
        return Traffic(self.captures, settings)

    def conforms(self, grammar: str | os.PathLike[str] | None = None) -> Claim:
        """Claim that there is a trace at least, and that every trace follows the grammar."""
        if grammar is not None and os.fspath(grammar) != self.settings.grammar:
            return self.against(grammar).conforms()
        verdicts, report = self.report.verdicts, self.report
        if not verdicts:
            return Claim(False, f"no trace found{self._words()}", self._none)
        allow = self.settings.allow
        bad = [v for v in verdicts if not accepted(v, allow)]
        if not bad:
            return Claim(True, f"{_counted(len(verdicts))} conform{'s' if len(verdicts) == 1 else ''}")
        # A deviation is a finding, an inconclusive trace is none: traces that deviate come first.
        first = min(bad, key=lambda v: v.verdict == "inconclusive")
        more = f" (and {len(bad) - 1} more of {len(verdicts)} traces)" if len(bad) > 1 else ""
        return Claim(
            False,
            f"{failure.headline(first)[: 190 - len(more)]}{more}",
            partial(_explain, bad, report, allow),
            partial(failure.diagram, first, report),
        )

    def _words(self) -> str:
        return ""

    def _none(self) -> str:
        return failure.nothing(self.report)


class _Part(Traffic):
    """A selection of the traces of some traffic."""

    def __init__(self, whole: Traffic, wanted: dict[str, str]) -> None:
        super().__init__(whole.captures, whole.settings)
        self._whole, self._wanted = whole, wanted

    @cached_property
    def report(self) -> Report:
        whole = self._whole.report
        return replace(whole, verdicts=[v for v in whole.verdicts if _fits(v, self._wanted)])

    def against(self, grammar: str | os.PathLike[str]) -> Traffic:
        return _Part(self._whole.against(grammar), self._wanted)

    def _words(self) -> str:
        return self._whole._words() + "".join(f" with {k} {plain(v, 60)!r}" for k, v in self._wanted.items())

    def _none(self) -> str:
        verdicts = self._whole.report.verdicts
        if not verdicts:
            return self._whole._none()
        return "\n".join(["there are:", *failure.crowd(verdicts, self._whole.report)])


class CheckedTrace:
    """The creation of one VM, checked against a grammar."""

    def __init__(self, verdict: Verdict, traffic: Traffic) -> None:
        self.verdict = verdict
        """The verdict, from which reports are made (tracer.model.Verdict)."""
        self.traffic = traffic

    def __repr__(self) -> str:
        name = f"{plain(self.verdict.name, 40)} " if self.verdict.name else ""
        stopped = f" at {self.verdict.stopped_at}" if self.verdict.stopped_at else ""
        which = lead(plain(self.verdict.server_id or self.id, 80))
        return f"<VM {name}{which}: {self.verdict.verdict}, {self.outcome}{stopped}>"

    @property
    def id(self) -> str:
        """The trace's id in every report: mostly the request id."""
        return self.verdict.id

    @property
    def name(self) -> str | None:
        """The name of the VM; None when it was not seen."""
        return self.verdict.name

    @property
    def server_id(self) -> str | None:
        """The UUID of the server; None when it was not seen."""
        return self.verdict.server_id

    @property
    def request_id(self) -> str | None:
        """The request id of nova-api; None when it was not seen."""
        return self.verdict.request_id

    @property
    def outcome(self) -> str:
        """active (done) · rejected · error · stuck · deleted · unfinished"""
        return self.verdict.outcome

    @property
    def stopped_at(self) -> str | None:
        """The documented step at which it stopped; None when it did not stop, or that is not known."""
        return self.verdict.stopped_at

    @property
    def steps(self) -> list[CheckedStep]:
        """The documented steps, in their order."""
        return [
            CheckedStep(result, self.verdict, self._story, self._diagram) for result in self.verdict.steps
        ]

    @property
    def calls(self) -> Sequence[CallRecord]:
        """The calls in order of their start (tracer.model.CallRecord); `call.line` is the canonical line."""
        return self.verdict.calls

    def step(self, name: str) -> CheckedStep:
        """Return a documented step, such as '8b'. Raises UsageError for a step that the grammar lacks."""
        __tracebackhide__ = True
        for step in self.steps:
            if step.name == name:
                return step
        known = [step.name for step in self.steps]
        near = close_matches(name, known, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"no step {name!r} in {self.traffic.report.grammar}: {', '.join(known)}{hint}")

    def before(self, first: str, second: str) -> Claim:
        """Claim that step *first* began before step *second*."""
        __tracebackhide__ = True
        one, other = self.step(first), self.step(second)
        if one.started_ns is None or other.started_ns is None:
            unknown = " and ".join(f"{s.name} {s.state}" for s in (one, other) if s.started_ns is None)
            return self._claim(False, f"{first} before {second}: not known, {unknown}")
        gap = (other.started_ns - one.started_ns) / 1e9
        words = f"{first} began {abs(gap):.3f} s {'before' if gap > 0 else 'after'} {second}"
        return self._claim(gap > 0, words)

    def conforms(self, grammar: str | os.PathLike[str] | None = None) -> Claim:
        """Claim that this trace follows *grammar*; without it, the one it was checked with."""
        if grammar is not None and os.fspath(grammar) != self.traffic.settings.grammar:
            other = self.traffic.against(grammar)
            trace = next((t for t in other.traces if t.id == self.id), None)
            if trace is not None:
                return trace.conforms()
            # Traces of another grammar begin with another step: this trace may be none of them.
            return Claim(False, f"{self!r} is no trace of {plain(os.fspath(grammar), 80)}", other._none)
        allow = self.traffic.settings.allow
        story = partial(_explain, [self.verdict], self.traffic.report, allow)
        return self._claim(accepted(self.verdict, allow), failure.headline(self.verdict), story)

    def _claim(self, holds: bool, words: str, story: Callable[[], str] | None = None) -> Claim:
        return Claim(holds, words, story or self._story, self._diagram)

    def _story(self) -> str:
        return failure.story(self.verdict, self.traffic.report)

    def _diagram(self) -> str:
        return failure.diagram(self.verdict, self.traffic.report)


class conforms:
    """A value that equals each trace (or traffic) that follows the grammar.

    Without *grammar*, the one that it was checked with counts. The name is in lower case, like pytest.raises,
    because it reads as a verb of the assertion.
    """

    def __init__(self, grammar: str | os.PathLike[str] | None = None) -> None:
        self.grammar = grammar

    def __repr__(self) -> str:
        return f"conforms({'' if self.grammar is None else repr(os.fspath(self.grammar))})"

    def __eq__(self, other: object) -> Claim:  # type: ignore[override]
        if isinstance(other, CheckedTrace | Traffic):
            return other.conforms(self.grammar)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]


def difference(left: object, right: object) -> list[str] | None:
    """Return why *left* == *right* is false, for pytest_assertrepr_compare; None without a `conforms`."""
    if isinstance(left, conforms):
        left, right = right, left
    if not (isinstance(right, conforms) and isinstance(left, CheckedTrace | Traffic)):
        return None
    claim = left.conforms(right.grammar)
    lines = [f"{left!r} == {right!r}", repr(claim)]
    if isinstance(left, CheckedTrace) and right.grammar is None:
        lines += [line[:LINE] for line in failure.found(left.verdict)[:2]]
    return lines


def accepted(verdict: Verdict, allow: Sequence[str]) -> bool:
    """Return whether *verdict* passes a test: it conforms, or it is inconclusive and *allow* accepts that."""
    return verdict.verdict == "conforms" or (verdict.verdict == INCONCLUSIVE and INCONCLUSIVE in allow)


def _counted(count: int) -> str:
    return f"{count} trace{'' if count == 1 else 's'}"


def _fits(verdict: Verdict, wanted: dict[str, str]) -> bool:
    for key, value in wanted.items():
        found = getattr(verdict, key) or ""
        if key == "name":
            fits = fnmatch.fnmatchcase(found, value)
        elif key == "outcome":
            fits = found == value
        else:
            fits = bool(value) and found.startswith((value, f"req-{value}"))
        if not fits:
            return False
    return True


def _explain(bad: Sequence[Verdict], report: Report, allow: Sequence[str]) -> str:
    """Return the explanation of the first failed trace, and one line for each other failed trace."""
    first = min(bad, key=lambda v: v.verdict == INCONCLUSIVE)
    lines = failure.found(first)
    if first.verdict == INCONCLUSIVE:
        lines.append(
            "inconclusive: nothing that was seen deviates, and something that is needed was not seen."
        )
        unseen = [step.step for step in first.steps if step.status == "unobserved"]
        more = "".join(f", allow=['unobserved:{step}']" for step in unseen[:1])
        lines.append(f"Capture it, or accept it: allow=['{INCONCLUSIVE}']{more}")
    lines += ["", failure.story(first, report)]
    others = [v for v in bad if v is not first]
    if others:
        lines += ["", f"{_counted(len(others))} more:", *failure.crowd(others, report)]
    return "\n".join(lines)
