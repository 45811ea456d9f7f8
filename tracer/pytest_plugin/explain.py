"""What is added to a failed assertion: the story of the trace, its ladder, and where its captures are."""

from __future__ import annotations

from types import TracebackType

import pytest

from tracer import pytest_plugin
from tracer.pytest_plugin import HEARD, KEPT, SECTIONS
from tracer.testing.claims import Claim, denied

__all__ = ["add", "draw", "shorten"]


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
    return module.startswith("tracer.") and module != pytest_plugin.__name__
