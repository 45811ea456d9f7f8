"""A mistake of ours ends no run: it is counted, said, and the exit code is 2. Mistakes are put in by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tracer import cli
from tracer.capture.layers import Layers
from tracer.conformance import Checker
from tracer.correlation import Correlator
from tracer.engine import Settings, calls, check
from tracer.engine.internal_errors import InternalErrors
from tracer.errors import InternalError, SourceError
from tracer.model import Call, Trace, Verdict
from tracer.protocols.http1 import Http1

CAPTURE = str(Path(__file__).parents[2] / "captures" / "fail-quota-403")


@pytest.fixture(autouse=True)
def as_released(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our tests raise what the product counts; here it is counted."""
    monkeypatch.setattr(InternalErrors, "is_strict", False)


def failing(times: int, function: Any) -> Any:
    """*function*, of which the first *times* calls raise."""
    left = [times]

    def called(*arguments: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise ValueError("token gAAAAsecret")
        return function(*arguments, **named)

    return called


def test_a_trace_that_cannot_be_checked_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = check([CAPTURE], Settings())
    checked = Checker.check

    def check_one(self: Checker, trace: Trace) -> Verdict:
        if trace.number == 1:
            raise KeyError("x")
        return checked(self, trace)

    monkeypatch.setattr(Checker, "check", check_one)
    report = check([CAPTURE], Settings())
    assert [v.id for v in report.verdicts] == [v.id for v in whole.verdicts[1:]]
    ((what, count),) = report.internal_errors
    assert (what.split()[0], count) == ("KeyError", 1)


def test_a_call_that_correlation_cannot_take_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The calls before and behind it are in the report; where the mistake is, is said without its text."""
    receive = Correlator.receive
    met: list[int] = []

    def receive_all_but_one(self: Correlator, call: Call) -> None:
        if call.protocol == "SQL" and not met:
            met.append(call.serial)
            raise ValueError("token gAAAAsecret")
        receive(self, call)

    monkeypatch.setattr(Correlator, "receive", receive_all_but_one)
    report = check([CAPTURE], Settings())
    assert sorted(v.outcome for v in report.verdicts) == ["active", "rejected"]
    assert sum(count for _, count in report.internal_errors) == 1
    assert any("internal error in 1 of " in words for words in report.remarks)
    assert not any("secret" in words for words in report.remarks)


def test_a_connection_that_a_decoder_cannot_take_is_undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state is doubtful from then on: nothing more of it is read, all other connections are."""
    monkeypatch.setattr(Http1, "receive", failing(1, Http1.receive))
    report = check([CAPTURE], Settings())
    assert sum(count for _, count in report.internal_errors) == 1
    assert {"active", "rejected"} & {v.outcome for v in report.verdicts}


def test_packets_that_layers_cannot_take_together_are_taken_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = check([CAPTURE], Settings())
    monkeypatch.setattr(Layers, "read", failing(1, Layers.read))
    report = check([CAPTURE], Settings())
    assert [v.summary for v in report.verdicts] == [v.summary for v in whole.verdicts]
    assert report.internal_errors


def test_traces_that_cannot_be_assembled_leave_an_empty_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Correlator, "traces", failing(1, Correlator.traces))
    report = check([CAPTURE], Settings())
    assert (report.verdicts, bool(report.internal_errors)) == ([], True)


def test_the_list_of_calls_ends_with_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Correlator, "receive", failing(1, Correlator.receive))
    records = calls([CAPTURE], Settings())
    listed = [next(records) for _ in range(100)]
    with pytest.raises(InternalError, match="internal error in 1 of"):
        listed.extend(records)
    assert len({record.index for record in listed}) > 100


def test_the_exit_code_is_2_and_the_report_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Correlator, "receive", failing(1, Correlator.receive))
    with pytest.raises(SystemExit) as end:
        cli.main(["check", CAPTURE, "--format", "json"])
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert end.value.code == 2
    assert list(report["internal_errors"].values()) == [1]
    assert len(report["traces"]) == 2
    assert "this is a bug" in err
    assert "secret" not in out + err


def test_mistakes_of_our_caller_are_raised_on() -> None:
    """A capture that cannot be read is no bug of ours."""
    with pytest.raises(SourceError):
        InternalErrors().add(SourceError("x"))


def test_our_tests_are_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a bug would be a line in a report that no test reads."""
    monkeypatch.setattr(InternalErrors, "is_strict", True)
    monkeypatch.setattr(Correlator, "receive", failing(1, Correlator.receive))
    with pytest.raises(ValueError, match="token"):
        check([CAPTURE], Settings())
