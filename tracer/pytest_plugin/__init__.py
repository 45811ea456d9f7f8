"""The pytest plugin: the fixture `tracer`, the marker that configures it, and `--tracer-check`.

pytest loads this module in every run where tracer is installed, although few runs use it. So it imports only
pytest and `stash`; hooks and fixtures import other modules when they need them.

stash      data that the plugin stores for each test
settings   settings from ini file, command line and markers
fixture    the fixture `tracer`
folder     each trace of a capture folder as a test
explain    additions to a failed test's report, and removal of passwords
recording  captures made while a test runs
recorder   the process that makes them
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tracer.pytest_plugin.stash import FAILED, HEARD, SECTIONS

if TYPE_CHECKING:
    from tracer.pytest_plugin.fixture import Tracer

MARKER = (
    "tracer(grammar, topology, captures, allow, stall): what the fixture `tracer` of this test checks, "
    "and how; also on a class or in pytestmark (README, 'In a pipeline')"
)
HELP = {
    "grammar": "what to check against: the name of a grammar, or a file",
    "topology": "planes, roles and ports (TOML)",
    "stall": "silence after which a creation is stuck: 60s, 2m",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; the command line overrides the ini file, and a marker overrides both."""
    group = parser.getgroup("tracer", "conformance of the creation of cloud VMs")
    group.addoption(
        "--tracer-check",
        metavar="CAPTURE",
        action="append",
        default=[],
        help="check this folder of captures (or file, or example:NAME): each trace is a test. Repeatable",
    )
    for name, words in HELP.items():
        group.addoption(f"--tracer-{name}", metavar=name.upper(), help=words)
        parser.addini(f"tracer_{name}", words)
    accepted = "accept a deviation of that kind, 'unobserved', or any 'inconclusive' trace"
    group.addoption("--tracer-allow", metavar="KIND[:STEP]", action="append", default=[], help=accepted)
    parser.addini("tracer_allow", accepted, type="args", default=[])
    parser.addini(
        "tracer_captures", "captures that `tracer.check()` reads by default", type="args", default=[]
    )
    group.addoption(
        "--tracer-keep",
        choices=("failed", "all", "none"),
        default="failed",
        help="tests whose recorded captures are kept (failed)",
    )
    group.addoption(
        "--tracer-folder", metavar="DIR", help="folder of the recorded captures (tracer-captures)"
    )
    parser.addini("tracer_folder", "folder of the recorded captures", default="tracer-captures")
    group.addoption(
        "--tracer-raw",
        action="store_true",
        help="do not redact recordings; by default tokens, passwords and database rows are overwritten",
    )
    group.addoption(
        "--tracer-strict",
        action="store_true",
        help="fail where a recording is not permitted; else such tests are skipped",
    )
    group.addoption(
        "--tracer-properties",
        action="store_true",
        help="record verdict, outcome and ids as properties of --junitxml (the xunit2 schema knows none)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, for --strict-markers; resolve the folders of --tracer-check."""
    config.addinivalue_line("markers", MARKER)
    if config.getoption("tracer_check"):
        from tracer.pytest_plugin import folder

        folder.configure(config)


@pytest.fixture
def tracer(request: pytest.FixtureRequest) -> Generator[Tracer]:
    """Checks captures, given or recorded while the test runs; configured by `@pytest.mark.tracer(...)`."""
    from tracer.pytest_plugin.fixture import fixture

    yield from fixture(request)


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Return a collector for a capture file of --tracer-check."""
    return _checked(file_path, parent)


def pytest_collect_directory(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Return a collector for a folder of --tracer-check."""
    return _checked(path, parent)


def _checked(path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if not parent.config.getoption("tracer_check"):
        return None
    from tracer.pytest_plugin import folder

    return folder.collector(path, parent)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Add the explanation of the traffic to a failed assertion about it."""
    claims = sys.modules.get("tracer.testing.claims")
    if claims is not None:
        claims.denied.clear()
    try:
        return (yield)
    except AssertionError as error:
        if "tracer.testing.claims" in sys.modules:
            from tracer.pytest_plugin import explain

            explain.add(item, error)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add ladder diagrams to the report as sections; remove passwords of brokers from it.

    A mistake in the test, such as a missing capture, is shown by its line and message only.
    """
    errors = sys.modules.get("tracer.errors")
    raised = call.excinfo
    if errors is not None and raised is not None and isinstance(raised.value, errors.TracerError):
        from tracer.pytest_plugin import explain

        explain.shorten(item, raised)
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    if report.when == "call":
        sections: list[tuple[str, str]] = item.stash.get(SECTIONS, [])
        report.sections.extend(sections)
    if item.stash.get(HEARD, None):
        from tracer.pytest_plugin import explain

        explain.scrub(report)
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain `trace == conforms(...)`."""
    if op != "==" or "tracer.testing.traffic" not in sys.modules:
        return None
    from tracer.testing.traffic import difference

    return difference(left, right)
