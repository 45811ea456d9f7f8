"""Completes a failed test's report: adds the explanation of the trace, its ladder, the path of its captures.

It also removes passwords of brokers, and the part of a traceback that is inside tracer. This is the only
module of the plugin that uses private parts of pytest: the classes of traceback entries, which it does not
export (tests/pytest_plugin/test_explain.py fails when they change).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import pytest

from tracer.pytest_plugin.stash import HEARD, KEPT, SECTIONS
from tracer.testing.claims import Claim, denied

__all__ = ["add", "draw", "scrub", "shorten"]


def add(item: pytest.Item, error: AssertionError) -> None:
    """Add a note to *error* for the claim that failed, and its ladder as a section of the report.

    A false claim may be intended (`assert not …`), so the claim is used whose text is in the message. Without
    assertion rewriting there is no message; then the last false claim is used.
    """
    words = str(error)
    claim = next((c for c in reversed(denied) if repr(c) in words), None)
    if claim is None and not words and denied:
        claim = denied[-1]
    if claim is not None:
        tell(item, error, claim)


def tell(item: pytest.Item, error: AssertionError, claim: Claim) -> None:
    """Add what *claim* has to say."""
    if item.stash.get(KEPT, None) or item.stash.get(HEARD, None):
        from tracer.pytest_plugin.recording import kept_words

        # Before the explanation, which ends with a legend that names the same folder.
        error.add_note(kept_words(item))
    story = claim.explain()
    if story:
        error.add_note(story)
    draw(item, claim)


def draw(item: pytest.Item, claim: Claim) -> None:
    """Add the ladder diagram of the trace of *claim*."""
    if claim.ladder is not None:
        # Not add_report_section: it would write "captured" into the heading.
        item.stash.setdefault(SECTIONS, []).append(("tracer ladder", claim.ladder()))


def shorten(item: pytest.Item, found: pytest.ExceptionInfo[BaseException]) -> None:
    """Remove the entries inside tracer from a traceback: the mistake is in the line that called it.

    The causes are dropped too, as the message contains their text. `--full-trace` shows everything.
    """
    if item.config.getoption("fulltrace", False):
        return
    place = found.tb
    while place.tb_next is not None and not _is_ours(place.tb_next):
        place = place.tb_next
    # The traceback itself is changed: pytest reads it again, so a changed list of entries has no effect.
    place.tb_next = None
    found.value.__cause__ = None


def _is_ours(place: TracebackType) -> bool:
    # The plugin's hooks are called around the test; everything else of tracer is called by the test.
    module = str(place.tb_frame.f_globals.get("__name__"))
    return module.startswith("tracer.") and module != __package__


def scrub(report: pytest.TestReport) -> None:
    """Remove passwords in URLs of brokers from *report*: pytest shows arguments and locals of tests."""
    from tracer.pytest_plugin.recording import scrubbed

    report.longrepr = _without_passwords(report.longrepr, scrubbed)
    report.sections = [(title, scrubbed(text)) for title, text in report.sections]


def _without_passwords(shown: Any, scrubbed: Callable[[str], str]) -> Any:
    """Return a part of a report without passwords; traceback objects of pytest are changed in place."""
    if isinstance(shown, str):
        return scrubbed(shown)
    if type(shown) in (list, tuple):
        return type(shown)(_without_passwords(each, scrubbed) for each in shown)
    # Parts of a traceback are objects of pytest, which hold strings, lists and other such objects.
    if type(shown).__module__.startswith("_pytest."):
        for name, value in list(vars(shown).items()):
            setattr(shown, name, _without_passwords(value, scrubbed))
    return shown
