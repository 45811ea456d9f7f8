"""The stages joined: captures in, verdicts out. The only package that knows all of them."""

from tracer.engine.run import (
    Progress,
    Stages,
    calls,
    check,
    given_topology,
    learn,
    rare_collections,
    require_known,
    segments,
    trace_id,
)
from tracer.settings import Settings

__all__ = [
    "Progress",
    "Settings",
    "Stages",
    "calls",
    "check",
    "given_topology",
    "learn",
    "rare_collections",
    "require_known",
    "segments",
    "trace_id",
]
