"""The steps of a grammar as the picture that a person has of them: in a row, side by side, or tried again.

The automaton is no such picture (the documented creation has some 230 states). This one is made of the rules:
calls within a step are left out, and a repetition of steps that come again afterwards is a way back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tracer.grammar.automaton import Alt, Rep, Seq, Shuffle, Sym, Term, symbols_in
from tracer.grammar.grammar import Grammar

__all__ = ["Again", "Choice", "Flow", "Part", "Row", "SideBySide", "flow_of"]


@dataclass(frozen=True, slots=True)
class Row:
    """Parts one after the other."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class SideBySide:
    """Parts at the same time, in any order."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the parts."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Again:
    """A way back: from any of `since` to `to`, by what the grammar calls `by`."""

    since: tuple[str, ...]
    to: str
    by: tuple[str, ...]


Part = str | Row | SideBySide | Choice
"""A string is a step's name."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The whole picture."""

    row: Part
    again: tuple[Again, ...]


def flow_of(grammar: Grammar) -> Flow:
    """Return the picture of *grammar*."""
    reader = _Reader(grammar)
    row = reader.part(grammar.term)
    return Flow(row if row is not None else Row(()), tuple(dict.fromkeys(reader.again)))


class _Reader:
    def __init__(self, grammar: Grammar) -> None:
        self.symbols = grammar.automaton.symbols
        self.order = {step.name: position for position, step in enumerate(grammar.steps)}
        self.again: list[Again] = []
        self.main = self._without_loops(grammar.term)

    def _steps(self, term: Term) -> list[str]:
        """Return the steps in *term*, in documented order."""
        found = {self.symbols[i].step for i in symbols_in(term) if self.symbols[i].role == "step"}
        return sorted((step for step in found if step is not None), key=lambda step: self.order.get(step, 0))

    def _is_loop(self, term: Rep) -> bool:
        return (term.high is None or term.high > 1) and len(self._steps(term.part)) > 1

    def _without_loops(self, term: Term) -> set[str]:
        ids = symbols_in(term, lambda loop: not self._is_loop(loop))
        return {step for i in ids if (step := self.symbols[i].step) and self.symbols[i].role == "step"}

    def part(self, term: Term) -> Part | None:
        """Return the picture of *term*, None where it holds no step."""
        steps = self._steps(term)
        if len(steps) < 2:
            return steps[0] if steps else None
        match term:
            case Seq(parts):
                return self.joined(Row, parts)
            case Shuffle(parts):
                return self.joined(SideBySide, parts)
            case Alt(parts):
                return self.choice(parts)
            case Rep(part, _, _) if not self._is_loop(term):
                return self.part(part)
            case Rep(part, _, _):
                return self.loop(part, steps)
        return None

    def joined(self, kind: type[Row] | type[SideBySide], terms: Iterable[Term]) -> Part | None:
        parts: list[Part] = []
        for term in terms:
            part = self.part(term)
            if isinstance(part, kind):
                parts += part.parts
            elif part is not None and part not in parts:
                parts.append(part)
        return kind(tuple(parts)) if len(parts) > 1 else (parts[0] if parts else None)

    def choice(self, terms: Iterable[Term]) -> Part | None:
        """Return the alternatives; one that only leaves out steps of another is told by its steps."""
        sets = {id(term): set(self._steps(term)) for term in terms}
        kept: list[Part] = []
        for term in terms:
            mine = sets[id(term)]
            if not mine or any(mine < other for other in sets.values()):
                continue
            part = self.part(term)
            if part is not None and part not in kept:
                kept.append(part)
        return Choice(tuple(kept)) if len(kept) > 1 else (kept[0] if kept else None)

    def loop(self, term: Term, steps: list[str]) -> Part | None:
        """Note the way back; the steps themselves are drawn here only when they come nowhere else."""
        failing = {self.symbols[i].step for i in symbols_in(term) if self.symbols[i].role == "refused"}
        others = (self.symbols[i].terminal for i in symbols_in(term) if self.symbols[i].role == "other")
        since = tuple(step for step in steps if step in failing) or steps[-1:]
        self.again.append(Again(tuple(since), self._first(term) or steps[0], tuple(dict.fromkeys(others))))
        return None if set(steps) <= self.main else self.part(term)

    def _first(self, term: Term) -> str | None:
        """Return the step with which *term* begins."""
        match term:
            case Sym(symbol):
                return self.symbols[symbol].step
            case Rep(part, _, _):
                return self._first(part)
            case Seq(parts) | Alt(parts) | Shuffle(parts):
                return next((step for part in parts if (step := self._first(part))), None)
