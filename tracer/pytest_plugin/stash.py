"""What the plugin remembers of a test, in pytest's own stash. The other modules share nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["FAILED", "HEARD", "KEPT", "SECTIONS"]

SECTIONS = pytest.StashKey[list[tuple[str, str]]]()
"""What is to be a section of a test's report: (title, text)."""
FAILED = pytest.StashKey[bool]()
"""Whether a phase of a test has failed so far."""
KEPT = pytest.StashKey[list[Path]]()
"""Folders of what was recorded while a test ran."""
HEARD = pytest.StashKey[list[str]]()
"""Brokers that were listened to while a test ran, without user and password."""
