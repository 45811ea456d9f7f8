"""What is added to a failed test's report: the story of the trace, its ladder, where its captures are.

And what is taken out of it: passwords of brokers, and the part of a traceback that lies in tracer. Here alone
the plugin uses what is private to pytest: the objects that it makes of a traceback, whose classes pytest does
not export (tests/pytest_plugin/test_explain.py fails when they change).
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
    """Add a note to *error* for the claim that made it fail, and its ladder as a section of the report.

    A claim that was false may have been meant to be (`assert not …`): the one that failed is the one whose
    words stand in the message. Without rewritten assertions there is no message, and it is the last one.
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

        # First, since a story ends with a legend that names the same place.
        error.add_note(kept_words(item))
    story = claim.explain()
    if story:
        error.add_note(story)
    draw(item, claim)


def draw(item: pytest.Item, claim: Claim) -> None:
    """Add the ladder of the trace that *claim* is about."""
    if claim.ladder is not None:
        # Not add_report_section: it would call a drawing "captured".
        item.stash.setdefault(SECTIONS, []).append(("tracer ladder", claim.ladder()))


def shorten(item: pytest.Item, found: pytest.ExceptionInfo[BaseException]) -> None:
    """Leave off what of a traceback lies in tracer: the mistake is on the line that called it.

    What the system said is in the message already, and is no traceback of its own. `--full-trace` shows all.
    """
    if item.config.getoption("fulltrace", False):
        return
    place = found.tb
    while place.tb_next is not None and not _is_ours(place.tb_next):
        place = place.tb_next
    # In the chain itself: pytest goes back to it, whatever its own list of entries is made to say.
    place.tb_next = None
    found.value.__cause__ = None


def _is_ours(place: TracebackType) -> bool:
    # The hooks of the plugin stand around the test; all else of ours is called by it.
    module = str(place.tb_frame.f_globals.get("__name__"))
    return module.startswith("tracer.") and module != __package__


def scrub(report: pytest.TestReport) -> None:
    """Take passwords in URLs of brokers out of *report*: pytest shows arguments and locals of tests."""
    from tracer.pytest_plugin.recording import scrubbed

    report.longrepr = _without_passwords(report.longrepr, scrubbed)
    report.sections = [(title, scrubbed(text)) for title, text in report.sections]


def _without_passwords(shown: Any, scrubbed: Callable[[str], str]) -> Any:
    """Return what a report shows without passwords; what pytest made of a traceback is changed in place."""
    if isinstance(shown, str):
        return scrubbed(shown)
    if type(shown) in (list, tuple):
        return type(shown)(_without_passwords(each, scrubbed) for each in shown)
    # The parts of a traceback are objects of pytest's, which hold strings, lists and one another.
    if type(shown).__module__.startswith("_pytest."):
        for name, value in list(vars(shown).items()):
            setattr(shown, name, _without_passwords(value, scrubbed))
    return shown
