"""Writes JUnit XML, for pipelines without pytest: a test case for each trace.

Only elements and attributes are used that GitLab, GitHub's actions and Jenkins' plugins read and that the
strict xunit2 schema allows: a case has no properties, and the text of a failure explains it.
"""

from __future__ import annotations

from collections.abc import Iterator

from junitparser import Failure, JUnitXml, TestCase, TestSuite

from tracer.model import Report, Verdict
from tracer.reports import failure, plain, timestamp

__all__ = ["pieces"]


def pieces(report: Report) -> Iterator[bytes]:
    """Yield the XML document in UTF-8, in one part."""
    suite = TestSuite(f"tracer {plain(report.grammar, 80)}")
    first_ns = min((verdict.started_ns for verdict in report.verdicts), default=None)
    if first_ns is not None:
        suite.timestamp = (timestamp(first_ns) or "")[:19]
    for verdict in report.verdicts:
        suite.add_testcase(_case(verdict, report))
    if not report.verdicts:
        case = TestCase("no-trace", _class_name(report), 0)
        case.result = [Failure(f"no trace of {plain(report.grammar, 80)} found", "no trace")]
        case.result[0].text = failure.nothing(report)
        suite.add_testcase(case)
    if report.partial:
        case = TestCase("interrupted", _class_name(report), 0)
        # A failure, because the schema allows no <error> in a case.
        words = "interrupted: the captures were read in part, and so is this report"
        case.result = [Failure(words, "interrupted")]
        suite.add_testcase(case)
    document = JUnitXml("tracer")
    document.add_testsuite(suite)
    # Not update_statistics: it writes an attribute for skipped tests on the root, which the schema forbids.
    document.tests, document.failures, document.errors = suite.tests, suite.failures, suite.errors
    # The schema allows three decimals; sums of floats have more.
    suite.time = document.time = round(sum(_seconds(verdict) for verdict in report.verdicts), 3)
    yield b"<?xml version='1.0' encoding='utf-8'?>\n" + document.tostring()  # type: ignore[no-untyped-call]


def _class_name(report: Report) -> str:
    return f"tracer.{plain(report.grammar, 80)}"


def _seconds(verdict: Verdict) -> float:
    return round(max(0, verdict.ended_ns - verdict.started_ns) / 1e9, 3)


def _case(verdict: Verdict, report: Report) -> TestCase:
    case = TestCase(plain(verdict.id, 200), _class_name(report), _seconds(verdict))
    if verdict.verdict != "conforms":
        first = verdict.deviations[0].kind if verdict.deviations else verdict.verdict
        result = Failure(failure.headline(verdict), first)
        result.text = "\n".join([*failure.found(verdict), "", failure.story(verdict, report)])
        case.result = [result]
    return case
