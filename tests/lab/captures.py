"""Where real captures are: those of captures/, and material beside the project that variables name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = ROOT / "captures"
NOWHERE = Path("/nowhere")
SHARED = Path(os.environ.get("TRACER_SHARED_CAPTURES") or NOWHERE)
"""More captures of the cloud that those of captures/ are of."""
FOREIGN = Path(os.environ.get("TRACER_FOREIGN_CAPTURES") or NOWHERE)
"""Captures that other projects test with."""
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="TRACER_SHARED_CAPTURES names no folder")
needs_foreign = pytest.mark.skipif(not FOREIGN.is_dir(), reason="TRACER_FOREIGN_CAPTURES names no folder")


def files(name: str) -> list[Path]:
    """The captures of one shipped scenario, in the order of their names."""
    return sorted((CAPTURES / name).glob("*.zst"))
