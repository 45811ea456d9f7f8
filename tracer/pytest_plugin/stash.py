"""Keys of the data that the plugin stores for a test in pytest's stash. Modules share no other state."""

from __future__ import annotations

from pathlib import Path

import pytest

__all__ = ["FAILED", "HEARD", "KEPT", "SECTIONS"]

SECTIONS = pytest.StashKey[list[tuple[str, str]]]()
"""Sections for the report of a test: (title, text)."""
FAILED = pytest.StashKey[bool]()
"""Whether a phase of a test has failed so far."""
KEPT = pytest.StashKey[list[Path]]()
"""Folders of the recordings of a test."""
HEARD = pytest.StashKey[list[str]]()
"""URLs of the brokers that a test recorded from, without user and password."""
