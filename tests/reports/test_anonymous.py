"""What may be mailed: nothing of the cloud is left, and all that is said can still be followed."""

from __future__ import annotations

import contextlib
import io
import ipaddress
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.parquet import read_table

from tracer.capture.arguments import example_names
from tracer.cli.formats import FORMATS, pieces
from tracer.engine import Settings, check
from tracer.model import Report
from tracer.reports.anonymous import anonymous, anonymous_calls
from tracer.reports.html.compact import Packer

ROOT = Path(__file__).parent.parent.parent
ADDRESS = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])")


def secrets(report: Report) -> set[str]:
    """What must not be found any more."""
    found = {"captures/"}
    for verdict in report.verdicts:
        found |= {verdict.name or "", verdict.project_id or "", verdict.compute_host or "", *verdict.attempts}
        for call in verdict.calls:
            found |= {call.caller_address, call.callee_address}
    return found - {""}


def readable(form: str, report: Report) -> str:
    """All that a report says, also what is packed in it."""
    written = b"".join(pieces(form, report))
    if form == "parquet":
        return str(read_table(io.BytesIO(written)).to_pylist())
    packed = ""
    if form == "html":
        packer = Packer(report)
        packed = str([packer.members(verdict) for verdict in report.verdicts]) + str(packer.shapes)
    return written.decode("utf-8", "replace") + packed


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] if name == "ok-concurrent-20" else [])
        for name in example_names()
    ],
)
def test_nothing_of_the_cloud_is_left(name: str) -> None:
    with contextlib.chdir(ROOT):
        report = check([f"captures/{name}"], Settings(stall_s=20))
    mailed = anonymous(report)
    for form in FORMATS:
        text = readable(form, mailed)
        text = text.replace("captures alone", "").replace('id="captures"', "").replace("captures/NAME", "")
        assert [
            word for word in secrets(report) if re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text)
        ] == []
        assert {
            a
            for a in ADDRESS.findall(text)
            if ipaddress.ip_address(a) not in ipaddress.ip_network("10.0.0.0/16")
        } == set()


@pytest.mark.parametrize("name", example_names())
def test_the_verdicts_stay(name: str) -> None:
    report = check([f"example:{name}"], Settings(stall_s=20))
    mailed = anonymous(report)
    for before, after in zip(report.verdicts, mailed.verdicts, strict=True):
        assert (before.id, before.verdict, before.outcome, before.stopped_at) == (
            after.id, after.verdict, after.outcome, after.stopped_at,
        )  # fmt: skip
        assert [ADDRESS.sub("", c.line) for c in before.calls] == [
            ADDRESS.sub("", c.line) for c in after.calls
        ]
        assert [step.status for step in before.steps] == [step.status for step in after.steps]
        own = {id(call) for call in after.calls}
        assert all(id(call) in own for step in after.steps for call in step.calls)


def test_the_same_stands_for_the_same(build: SimpleNamespace) -> None:
    mailed = anonymous(build.report(build.stopped_at_8b(), build.rescheduled(), build.conforming()))
    first, second, third = mailed.verdicts
    assert first.compute_host == third.compute_host == second.attempts[1] == "host-1"
    assert second.attempts == ("host-2", "host-1")
    assert [verdict.name for verdict in mailed.verdicts] == ["vm-1", "vm-2", "vm-1"]
    assert first.project_id == second.project_id == "project-1"
    assert first.calls[-1].error.endswith("no agent for binding host host-1")
    assert "rescheduled: host-2 → host-1" in [note.message for note in second.notes]
    assert "vrm (10.0.1.3) refused the connection of nova-compute (10.0.1.4)" in second.summary


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("queue compute.compute1.cloud.example.com", "queue compute.host-1"),
        ("compute1: down", "host-1: down"),
        ("http://172.28.0.44:9696/v2.0", "http://10.0.1.1:9696/v2.0"),
        ("https://api.customer.example:8774/v2.1", "https://server-1:8774/v2.1"),
        ("mail to j.doe@customer.example", "mail to user-1@example.org"),
        ("fe80::5054:ff:fe12:3456 and 52:54:00:12:34:56", "2001:db8::1 and 02:00:00:00:00:01"),
        ("user 'j.doe' of \"Sales\" may not", "user 'text-1' of \"text-2\" may not"),
        ("host='172.28.0.44', port=9696", "host='10.0.1.1', port=9696"),
        ("server 9f6acf79-0dff-4a6c-aaf7-a824b4544d46", "server 9f6acf79-0dff-4a6c-aaf7-a824b4544d46"),
        ("user 0123456789abcdef0123456789abcdef", f"user {1:032x}"),
        ("nova.exception.NoValidHost at 12:30:45", "nova.exception.NoValidHost at 12:30:45"),
        ("127.0.0.1 refused", "127.0.0.1 refused"),
        ("my web server failed", "vm-1 failed"),
    ],
)
def test_texts(build: SimpleNamespace, text: str, left: str) -> None:
    verdict = replace(build.conforming(), name="my web server", summary=text, api_host=None, calls=())
    verdict = replace(verdict, attempts=("compute1.cloud.example.com",), compute_host=None, project_id=None)
    assert anonymous(build.report(verdict)).verdicts[0].summary == left


def test_addresses_keep_who_shares_a_net(build: SimpleNamespace) -> None:
    text = "172.28.0.11 172.28.0.12 10.10.0.5 172.28.0.11"
    summary = anonymous(build.report(replace(build.conforming(), summary=text))).verdicts[0].summary
    nets = [address.rpartition(".")[0] for address in summary.split()]
    assert nets[0] == nets[1] == nets[3] != nets[2]
    assert summary.split()[0] == summary.split()[3] != summary.split()[1]


def test_calls_alone(build: SimpleNamespace) -> None:
    call = replace(
        build.flow()[0], queue="compute.compute1", error="no host compute1", caller_address="172.28.0.11"
    )
    (mailed,) = anonymous_calls([call])
    assert (mailed.queue, mailed.error, mailed.caller_address) == (
        "compute.host-1",
        "no host host-1",
        "10.0.1.1",
    )
    assert mailed.evidence[0] == ("External_api.pcap", call.evidence[0][1])


@given(st.text(max_size=300))
def test_any_text_is_taken(text: str) -> None:
    from tracer.reports.anonymous import _Pseudonyms

    names = _Pseudonyms(())
    assert names.text(text) == names.text(text)
