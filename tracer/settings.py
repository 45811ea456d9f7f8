"""What a run is asked for. Cheap to import: the command line knows it before the pipeline is needed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ALL", "AUTO", "ENGINES", "TSHARK", "Settings"]

AUTO, ALL = "auto", "all"
"""In place of a grammar: the one of a creation that fits what is seen; each operation against its own."""

TSHARK = "tshark"
ENGINES = ("tracer", TSHARK)
"""Who decodes captures: our own stages, or tshark."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What of the captures is to be checked, against what, and how."""

    grammar: str = AUTO
    """The name of a grammar that comes with tracer, a file, AUTO or ALL."""
    topology: Path | None = None
    stall_s: float = 60.0
    since_ns: int | None = None
    """Only traces (of `calls`: calls) that began at or after this time, and before `until_ns`."""
    until_ns: int | None = None
    allow: tuple[str, ...] = ()
    """KIND or KIND:STEP, accepted as a note."""
    steps: tuple[str, ...] = ()
    """Steps that a selection names: the grammar must know them."""
    keylog: Path | None = None
    """TLS secrets (NSS key log format)."""
    baseline: Path | None = None
    """Times of good creations, to compare with (`tracer.engine.learn`)."""
    engine: str = ENGINES[0]
    """Who decodes: one of ENGINES."""
