"""`pytest --tracer-check`: traces as tests, without any Python."""

from __future__ import annotations

import os
import re
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
import xmlschema

import tracer
from tracer.pytest_plugin.folder import item_name
from tracer.testing import check, written

Run = Callable[..., pytest.RunResult]
ROOT = Path(tracer.__file__).parent.parent
SCHEMA = Path(__file__).parent / "xunit2.xsd"


def ids(captures: Path, folder: str) -> dict[str | None, str]:
    """Name of a VM -> request id."""
    return {trace.name: trace.id for trace in check(captures / folder)}


def test_each_trace_is_a_test(run: Run, captures: Path) -> None:
    """With its request id as its name, and the whole story when it fails."""
    named = ids(captures, "mixed")
    result = run("--tracer-check=captures/mixed", "-v", "--strict-markers", "--strict-config")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            f"captures/mixed::{named['web-1']} PASSED*",
            f"captures/mixed::{named['web-2']} FAILED*",
            f"captures/mixed::{named['web-3']} FAILED*",
            f"*{named['web-2']} 'web-2'*",
            "VM web-2 * deviates: step 8b failed: neutron-server *refused the connection*",
            "! failed 8b *",
            "at *captures/mixed/Internal_base.pcap#*",
            "expected REST nova-compute > neutron-server*",
            "  8b    FAILED *",
            "*- tracer ladder -*",
            f"FAILED captures/mixed::{named['web-2']} - VM web-2 *",
        ]
    )


def test_nothing_else_is_collected(run: Run) -> None:
    """The option alone is a pipeline step; with a path beside it, the path is collected too."""
    test = "def test_mine(): pass"
    run("--tracer-check=captures/ok", test=test).assert_outcomes(passed=1)
    run("--tracer-check=captures/ok", ".").assert_outcomes(passed=2)
    ini = "[pytest]\ntestpaths = ."
    run("--tracer-check=captures/ok", ini=ini).assert_outcomes(passed=1)


def test_a_test_suite_may_name_its_folders_in_its_ini_file(run: Run) -> None:
    ini = "[pytest]\naddopts = --tracer-check=captures/ok --tracer-check=captures/broken"
    run(ini=ini).assert_outcomes(passed=1, failed=1)


def test_a_file_or_an_example_will_do(run: Run, captures: Path) -> None:
    """One plane alone is inconclusive; what is allowed is accepted."""
    result = run("--tracer-check=captures/ok/External_api.pcap")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["VM * is inconclusive: *", "inconclusive: nothing that was seen deviates*"])
    run("--tracer-check=captures/blind", "--tracer-allow=inconclusive").assert_outcomes(passed=1)
    run("--tracer-check=captures/blind", ini="[pytest]\ntracer_allow = unobserved").assert_outcomes(passed=1)
    run("--tracer-check=example:ok-volume").assert_outcomes(passed=1)


def test_a_trace_is_run_by_its_name(run: Run, captures: Path) -> None:
    """As a failure names it, by -k, and by a part of its id."""
    named = ids(captures, "mixed")
    check_mixed = "--tracer-check=captures/mixed"
    run(check_mixed, f"captures/mixed::{named['web-2']}").assert_outcomes(failed=1)
    run(check_mixed, "-k", named["web-1"]).assert_outcomes(passed=1, deselected=2)
    run(check_mixed, "--deselect", f"captures/mixed::{named['web-3']}").assert_outcomes(
        passed=1, failed=1, deselected=1
    )


def test_the_last_failed_ones_are_run_again(
    pytester: pytest.Pytester, captures: Path, installed: list[str]
) -> None:
    arguments = [*installed, f"--tracer-check={captures / 'mixed'}"]
    pytester.runpytest_inprocess(*arguments).assert_outcomes(passed=1, failed=2)
    pytester.runpytest_inprocess(*arguments, "--lf").assert_outcomes(failed=2, deselected=1)


def test_no_trace_is_a_failure(run: Run) -> None:
    """A pipeline that captured the wrong thing must not be green."""
    result = run("--tracer-check=captures/empty")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["no trace found in *", "no trace of openstack_create in *: they hold *"])


MISTAKES = {
    ("--tracer-check=captures/garbage",): (2, "tracer: *Internal_base.pcap*"),
    ("--tracer-check=captures/nothing",): (2, "tracer: *no captures in this folder*"),
    ("--tracer-check=captures/nowhere",): (4, "*--tracer-check: no such file or folder: captures/nowhere"),
    ("--tracer-check=example:nix",): (4, "*no such example; known are *"),
    ("--tracer-check=captures/ok", "--tracer-grammar=nix"): (2, "tracer: no grammar 'nix'*"),
    ("--tracer-check=captures/ok", "--tracer-stall=soon"): (4, "*no span of time: 'soon'*"),
}


@pytest.mark.parametrize("arguments", MISTAKES)
def test_a_mistake_stops_the_run_with_one_line(arguments: tuple[str, ...], run: Run) -> None:
    """Never green, never a traceback."""
    code, line = MISTAKES[arguments]
    result = run(*arguments)
    assert result.ret == code
    text = result.stdout.str() + result.stderr.str()
    assert re.search(line.replace("*", ".*").replace("(", r"\("), text), text
    assert "Traceback" not in text
    assert "INTERNALERROR" not in text


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_order_does_not_matter(seed: int, run: Run) -> None:
    """Traces among other tests, in any order, give the same answers; a failure is told with its own story."""
    pytest.importorskip("random_order")
    test = """
        import pytest

        @pytest.mark.parametrize("n", range(3))
        @pytest.mark.parametrize("folder, good", [("ok", True), ("broken", False)])
        def test_it(tracer, folder, good, n):
            assert bool(tracer.check(f"captures/{folder}").conforms()) == good

        def test_broken(tracer):
            assert tracer.check("captures/broken").conforms()
        """
    result = run(
        "--tracer-check=captures/mixed",
        ".",
        "--random-order-bucket=global",
        f"--random-order-seed={seed}",
        test=test,
    )
    result.assert_outcomes(passed=7, failed=3)
    assert "--random-order-bucket=global" in result.stdout.str()
    told = re.findall(r"VM (\S+) \S+  step (\w+) failed", result.stdout.str())
    assert set(told) == {("web-2", "8b"), ("web-3", "4c")}


@pytest.mark.long
def test_xdist(
    pytester: pytest.Pytester, captures: Path, installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers find the same traces, and tell as much of them."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    (pytester.path / "captures").symlink_to(captures)
    named = ids(captures, "mixed")
    arguments = [*installed, "--tracer-check=captures/mixed", "-n2", "-v"]
    result = pytester.runpytest_subprocess(*arguments)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["  8b    FAILED *", "*- tracer ladder -*"])
    result = pytester.runpytest_subprocess(*arguments, f"captures/mixed::{named['web-2']}")
    result.assert_outcomes(failed=1)


def test_xdist_and_the_fixture(
    pytester: pytest.Pytester, captures: Path, installed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker finds comes back whole: the story, and the ladder as a section."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))
    (pytester.path / "captures").symlink_to(captures)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.tracer(allow=["unobserved"])
        @pytest.mark.parametrize("folder", ["ok", "broken", "blind", "empty"])
        def test_it(tracer, folder):
            assert tracer.check(f"captures/{folder}").conforms()
        """
    )
    result = pytester.runpytest_subprocess(*installed, "-n2", "--strict-markers", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines_random(
        ["E *assert <VM web-2 * deviates: step 8b failed: *", "*- tracer ladder -*", "E *<no trace found>*"]
    )


# --- JUnit ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("properties", [False, True])
def test_junit_xml_is_valid(properties: bool, run: Run, captures: Path, pytester: pytest.Pytester) -> None:
    """By the xunit2 schema, unless properties are asked for: that schema knows none of a test."""
    named = ids(captures, "mixed")
    more = ["--tracer-properties"] if properties else []
    run("--tracer-check=captures/mixed", "--junitxml=report.xml", *more)
    report = pytester.path / "report.xml"
    assert xmlschema.XMLSchema10(str(SCHEMA)).is_valid(str(report)) is not properties
    cases = {case.get("name"): case for case in ET.parse(report).iter("testcase")}
    assert set(cases) == set(named.values())
    failure = cases[named["web-2"]].find("failure")
    assert failure is not None
    assert failure.get("message", "").startswith("VM web-2 ")
    assert "8b    FAILED" in (failure.text or "")
    told = {p.get("name"): p.get("value") for p in cases[named["web-2"]].iter("property")}
    assert told == (
        {
            "tracer_verdict": "deviates",
            "tracer_outcome": "error",
            "tracer_stopped_at": "8b",
            "tracer_request_id": named["web-2"],
            "tracer_server_id": told.get("tracer_server_id"),
            "tracer_name": "web-2",
        }
        if properties
        else {}
    )


# --- names ------------------------------------------------------------------------------------------


def test_a_name_is_fit_for_a_command_line() -> None:
    """An id comes from the wire: no colons, brackets, spaces or escapes are left, and each is unique."""
    verdict = written("External_api REST admin > sc POST /sc/cloudhosts 202").verdict
    taken: set[str] = set()
    object.__setattr__(verdict, "id", "req-1::[x]\x1b[31m a/b" + "y" * 1000)
    first, second = item_name(verdict, taken), item_name(verdict, taken)
    assert re.fullmatch(r"req-1_x_31m_a/by{1,200}", first)
    assert second == f"{first}#2"
    assert os.path.basename(first)
