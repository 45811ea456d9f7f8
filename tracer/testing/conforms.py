"""The right side of `assert trace == conforms("cloudvm_create")`."""

from __future__ import annotations

import os

from tracer.reports import failure
from tracer.testing.claims import Claim
from tracer.testing.traffic import CheckedTrace, Traffic

__all__ = ["conforms", "difference"]

LINE = 140
"""pytest cuts an explanation at 640 characters; the first lines are to be whole."""


class conforms:
    """Equal to each trace (or traffic) that follows the grammar.

    Without a grammar: the one that it was checked with. In lower case, for it reads as a word of the
    assertion, as pytest.raises does.
    """

    def __init__(self, grammar: str | os.PathLike[str] | None = None) -> None:
        self.grammar = grammar

    def __repr__(self) -> str:
        return f"conforms({'' if self.grammar is None else repr(os.fspath(self.grammar))})"

    def __eq__(self, other: object) -> Claim:  # type: ignore[override]
        if isinstance(other, CheckedTrace | Traffic):
            return other.conforms(self.grammar)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]


def difference(left: object, right: object) -> list[str] | None:
    """Return why *left* == *right* is false, for pytest_assertrepr_compare; None if it is not about us."""
    if isinstance(left, conforms):
        left, right = right, left
    if not (isinstance(right, conforms) and isinstance(left, CheckedTrace | Traffic)):
        return None
    claim = left.conforms(right.grammar)
    lines = [f"{left!r} == {right!r}", repr(claim)]
    if isinstance(left, CheckedTrace) and right.grammar is None:
        lines += [line[:LINE] for line in failure.found(left.verdict)[:2]]
    return lines
