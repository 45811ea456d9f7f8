"""JUnit XML: what pipelines read, valid by the strict schema, whatever came from the wire."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import xmlschema

from tracer.model import Capture, Report, Verdict
from tracer.reports import junit
from tracer.testing import written

SCHEMA = xmlschema.XMLSchema10(str(Path(__file__).parent.parent / "pytest_plugin" / "xunit2.xsd"))
APPLY = "External_api REST admin > sc POST /sc/cloudhosts 202"
BROKEN = "Internal_base REST nova-compute > neutron-server POST /v2.0/ports 500"


def verdict(**change: object) -> Verdict:
    """One that deviates, unless *change* says otherwise."""
    made = written(APPLY, BROKEN, ends="error").verdict
    return dataclasses.replace(made, **change)  # type: ignore[arg-type]


def document(*verdicts: Verdict, partial: bool = False) -> ET.Element:
    report = Report("cloudvm_create", [Capture(0, "a.pcap")], verdicts, partial, (("packets", 7),))
    text = b"".join(junit.pieces(report)).decode()
    SCHEMA.validate(text)
    return ET.fromstring(text)


def test_a_trace_is_a_case() -> None:
    """Named by its id; what deviates or is inconclusive is a failure with the whole story."""
    good = verdict(id="req-1", verdict="conforms", deviations=())
    unknown = verdict(id="req-3", verdict="inconclusive", deviations=())
    root = document(good, verdict(id="req-2"), unknown)
    suite = root.find("testsuite")
    assert suite is not None
    assert {k: suite.get(k) for k in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "2",
        "errors": "0",
    }
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert list(cases) == ["req-1", "req-2", "req-3"]
    assert {case.get("classname") for case in cases.values()} == {"tracer.cloudvm_create"}
    kinds = {name: [f.get("type") for f in case.findall("failure")] for name, case in cases.items()}
    assert kinds == {"req-1": [], "req-2": ["failed"], "req-3": ["inconclusive"]}
    failure = cases["req-2"].find("failure")
    assert failure is not None
    assert failure.get("message", "").startswith("VM written ")
    assert "8b    FAILED" in (failure.text or "")


def test_no_trace_is_a_failure() -> None:
    """An empty report would be green."""
    root = document()
    (case,) = root.iter("testcase")
    failure = case.find("failure")
    assert failure is not None
    assert case.get("name") == "no-trace"
    assert "they hold 7 packets" in (failure.text or "")


def test_an_interrupted_run_is_a_failure() -> None:
    """A report on a part is not green. (The schema knows no errors of a case.)"""
    root = document(verdict(verdict="conforms", deviations=()), partial=True)
    failed = [case.get("name") for case in root.iter("testcase") if case.find("failure") is not None]
    assert failed == ["interrupted"]


@pytest.mark.parametrize("text", ["\x00\x1b[31m", "]]><script>", "\ud800\ufffe", "x" * 10_000, "a\nb\u202e"])
def test_what_comes_from_the_wire_breaks_no_document(text: str) -> None:
    """Names, ids and words of a fault hold what XML forbids, or a megabyte."""
    made = verdict(id=text, name=text, summary=text)
    broken = dataclasses.replace(made.deviations[0], message=text, cause=text)
    root = document(dataclasses.replace(made, deviations=(broken,)))
    (case,) = root.iter("testcase")
    assert "\x1b" not in ET.tostring(root, encoding="unicode")
    assert len(case.get("name", "")) <= 200


def test_times_have_three_decimals() -> None:
    """The schema has no more."""
    root = document(*(verdict(id=f"req-{n}", ended_ns=verdict().started_ns + 100_000_001) for n in range(3)))
    assert root.get("time") == "0.3"
