"""Both decoders over the same captures, and how their calls differ (`--cross-check`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tracer.engine.captures import Progress
from tracer.engine.run import calls
from tracer.model.second import CrossCheck
from tracer.second import compared, require
from tracer.settings import ENGINES, TSHARK, Settings

__all__ = ["cross_check"]


def cross_check(arguments: Sequence[str], settings: Settings, progress: Progress | None = None) -> CrossCheck:
    """Read the captures that *arguments* name twice, and return how the calls differ.

    All calls of both runs are held at once, as `tracer calls` holds those of one. Raises as `calls` does.
    """
    version = require()
    # Before the hour that our own reading may take.
    theirs = list(calls(arguments, replace(settings, engine=TSHARK), progress))
    ours = list(calls(arguments, replace(settings, engine=ENGINES[0]), progress))
    return compared(ours, theirs, version)
