"""Options of the whole test run: what it leaves out, how it is shared among cores, what may be skipped."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator
from pathlib import Path

import pytest

pytest_plugins = ["pytester", "lab.brokers"]

TESTS = Path(__file__).parent
FIRST = ("live/test_firehose", "pytest_plugin", "live", "replay", "recording", "examples", "test_damage")
"""Files that take longest, begun first: a long one that is begun last leaves the other cores idle."""
LONG_STEPS = ("[1]", "[2]", "[3]", "[4a]", "[4b]", "[4d]", "[5]", "[6]", "[7]", "[8a]")
"""Broken steps of the example that only a long run breaks. Marked here: a copy of it knows no such marker."""
MAY_BE_SKIPPED = ("TRACER_SHARED_CAPTURES", "TRACER_FOREIGN_CAPTURES", "no mermaid")
"""How reasons begin for which a test is skipped in CI, too: material beside the project, npm's registry."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are rewritten on demand only: read the diff before you commit it."""
    text = "rewrite the golden files and the outputs in the README"
    parser.addoption("--update-golden", action="store_true", help=text)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """On all cores, a file on one of them, so that what its fixtures made is made once.

    Here and not in pyproject.toml: who checks captures with the plugin in this clone runs no tests of ours,
    and may have no xdist.
    """
    is_ours = not config.getoption("--tracer-check", None) and not hasattr(config, "workerinput")
    if is_ours and config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None:
        config.option.numprocesses, config.option.dist = "auto", "loadfile"
        # Files in the order of `FIRST`, not those with most tests first.
        config.option.loadscopereorder = False


def is_long(config: pytest.Config) -> bool:
    """Tell whether this is the run of what the default leaves out (-m long)."""
    return str(config.option.markexpr).strip() == "long"


def pytest_configure(config: pytest.Config) -> None:
    """Properties are tried with fewer examples, unless the run is a long one."""
    if importlib.util.find_spec("hypothesis") is None:
        return
    from hypothesis import settings

    settings.register_profile("short", max_examples=25, deadline=None)
    settings.register_profile("long", max_examples=100, deadline=None)
    settings.load_profile("long" if is_long(config) else "short")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Bring the files that take longest to the front; add to the long tests those that `lab` cannot mark."""
    for item in items:
        is_property = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
        is_broken_step = "small_cloud" in item.nodeid and item.name.endswith(LONG_STEPS)
        if (is_property and is_long(config)) or is_broken_step:
            item.add_marker(pytest.mark.long)
    items.sort(key=lambda item: _rank(item.path))


def _rank(path: Path) -> int:
    place = path.relative_to(TESTS).as_posix() if path.is_relative_to(TESTS) else ""
    return next((rank for rank, first in enumerate(FIRST) if place.startswith(first)), len(FIRST))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail in CI what would be skipped there: .ci/run installs all that a test may need."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(MAY_BE_SKIPPED):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI, where .ci/run installs what tests need: {reason}"
    return report


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Tell whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(autouse=True, scope="session")
def strict() -> Generator[None]:
    """An exception in a stage fails the test that met it: the product would count it and go on."""
    from tracer.engine.internal_errors import InternalErrors

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(InternalErrors, "is_strict", True)
        yield
