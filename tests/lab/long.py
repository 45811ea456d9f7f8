"""What a long run (-m long) does, and the default one in a short form."""

from __future__ import annotations

from hypothesis import settings

USUAL = 100
"""Hypothesis' own number of examples, and that of the profile "long"."""


def examples(count: int) -> int:
    """Return *count* in a long run, and as many fewer in a short one as its profile says."""
    return max(1, count * settings.default.max_examples // USUAL)
