"""Options of the whole test run."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


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


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Tell whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))
