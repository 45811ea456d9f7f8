"""What a run is asked for, read and held against the grammar before anything is read of the captures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from tracer.errors import UsageError
from tracer.grammar import Grammar
from tracer.model import DeviationKind
from tracer.settings import Settings
from tracer.topology import GivenTopology, load_topology

__all__ = ["given_topology", "require_known_allowances", "require_known_steps"]

_ALLOWED = (*get_args(DeviationKind), "unobserved")


def given_topology(settings: Settings) -> GivenTopology:
    """Return what the topology file of *settings* says; an empty one without a file. Raises UsageError."""
    return load_topology(settings.topology) if settings.topology else GivenTopology()


def require_known_allowances(grammar: Grammar, settings: Settings, given: GivenTopology) -> None:
    """Raise UsageError for a KIND or KIND:STEP of --allow or of the topology file that cannot come about."""
    allowed = [
        *((f"{settings.topology}: allow", text) for text in given.allow),
        *(("--allow", text) for text in settings.allow),
    ]
    for source, text in allowed:
        kind, colon, step = text.partition(":")
        if kind not in _ALLOWED:
            raise UsageError(f"{source} {text!r}: no kind {kind!r}; known: {', '.join(_ALLOWED)}")
        if colon:
            _require_steps(grammar, f"{source} {kind}", (step,), set())


def require_known_steps(grammar: Grammar, steps: Sequence[str]) -> None:
    """Raise UsageError for a step of `--where step=` that *grammar* does not have.

    A step without its letter stands for its parts in a selection: 8 is 8a, 8b and 8c.
    """
    wholes = {step.name.rstrip("abcdefghijklmnopqrstuvwxyz") for step in grammar.steps}
    _require_steps(grammar, "--where step", steps, wholes)


def _require_steps(grammar: Grammar, source: str, steps: Sequence[str], wholes: set[str]) -> None:
    known = [step.name for step in grammar.steps]
    for step in steps:
        if step not in known and step not in wholes:
            raise UsageError(f"{source}: {grammar.name} has no step {step!r}; known: {', '.join(known)}")
