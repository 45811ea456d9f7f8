"""Options of the whole test run."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Golden files are rewritten on demand only: read the diff before you commit it."""
    text = "rewrite the golden files and the outputs in the README"
    parser.addoption("--update-golden", action="store_true", help=text)


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Tell whether golden files are to be rewritten."""
    return bool(request.config.getoption("--update-golden"))
