"""What tracer.pytest_plugin.explain uses of pytest's private parts is there and means what it meant.

pytest does not export the classes of what it shows of a traceback. `scrub` goes through their attributes, so
that no password of a broker stays in a report. When this fails, a release of pytest has changed them.
"""

from __future__ import annotations

import pytest

from tracer.pytest_plugin import explain

OURS = f"tracer.pytest_plugin.explain must follow pytest {pytest.__version__}"
URL = "amqp://guest:hidden@127.0.0.1/"


def failing(url: str) -> None:
    raise ValueError(f"cannot use {url}")


def test_what_pytest_makes_of_a_traceback_is_objects_of_its_own_with_attributes() -> None:
    with pytest.raises(ValueError) as caught:
        failing(URL)
    shown = caught.getrepr(showlocals=True, style="long", funcargs=True)
    assert type(shown).__module__.startswith("_pytest."), f"{OURS}: {type(shown)} is from elsewhere"
    for name in ("reprtraceback", "reprcrash", "chain"):
        assert name in vars(shown), f"{OURS}: a traceback has no {name}"
    for entry in shown.reprtraceback.reprentries:
        assert type(entry).__module__.startswith("_pytest."), f"{OURS}: {type(entry)} is from elsewhere"
        assert vars(entry)["lines"], f"{OURS}: an entry of a traceback has no lines"


def test_no_password_stays_in_arguments_locals_and_messages() -> None:
    with pytest.raises(ValueError) as caught:
        failing(URL)
    shown = caught.getrepr(showlocals=True, style="long", funcargs=True)
    before = str(shown)
    report = pytest.TestReport("a", ("a", 0, "a"), {}, "failed", shown, "call", [("stdout", f"to {URL}")])
    explain.scrub(report)
    assert before.count("hidden") >= 3
    assert "hidden" not in f"{report.longrepr}{report.sections}", f"{OURS}: passwords stay in reports"
