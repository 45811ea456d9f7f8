"""A grammar of a workflow: its steps, its terminals as patterns over canonical lines, its automaton.

How a Lark file becomes one is told in reading.py. The notation is documented in grammars/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tracer.grammar.automaton import Automaton, Symbol, Term
from tracer.grammar.candidates import NEAR, Candidate
from tracer.grammar.legs import Leg, legs_of

__all__ = ["Grammar", "Step"]

GOOD_RESULTS = ("?", "ok", "200", "201", "202", "204", "302")
"""What a failing result is replaced by to ask whether the line is a near miss."""
MOST_LINES = 100_000
"""Distinct lines that are remembered; a real run has some hundreds."""
FAILED_RESULTS = frozenset(("failure", "error", "refused", "unroutable", "none"))

_K = TypeVar("_K")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Step:
    """One documented step."""

    name: str
    """4a"""
    title: str
    """The comment on the rule's line."""
    presence: str
    """required · inferred (may leave nothing on the wire) · optional (may not happen)"""
    rule_line: int
    """1-based; in `path`."""
    path: str
    terminals: tuple[str, ...]
    """That may witness it."""
    deadline_ns: int | None = None
    """From `within_60s{…}`: the most time from the call before it to the end of its own last one."""


class Grammar:
    """A workflow's steps, its terminals as patterns over canonical lines, and its automaton."""

    def __init__(
        self,
        path: Path,
        title: str,
        steps: tuple[Step, ...],
        terminals: Mapping[str, re.Pattern[str]],
        begins: tuple[str, ...],
        harmless: tuple[str, ...],
        automaton: Automaton,
        term: Term,
    ) -> None:
        self.name = path.stem
        self.path = path
        self.title = title
        self.steps = steps
        self.terminals = terminals
        """Of the rules, of `begins` and of `harmless`; to be matched in full."""
        self.begins = begins
        """Terminals of the calls that begin a trace of this workflow."""
        self.harmless = harmless
        """Terminals of refusals that a healthy run contains."""
        self.automaton = automaton
        self.term = term
        """What the automaton was made of."""
        self._step_of = {step.name: step for step in steps}
        self.places = {step.name: place for place, step in enumerate(steps)}
        """Name of a step -> its place in the document, from 0."""
        self.required = frozenset(step.name for step in steps if step.presence == "required")
        self.inferred = frozenset(step.name for step in steps if step.presence == "inferred")
        used = {symbol.terminal for symbol in automaton.symbols}
        self._legs = {name: legs_of(terminals[name].pattern) for name in dict.fromkeys((*used, *begins))}
        self._planes = sorted({leg.plane for name in used for leg in self._legs[name]} - {"*"})
        self.inward = frozenset(
            step.name
            for step in steps
            for name in {*step.terminals} & {*begins}
            if any(leg.protocol == "REST" for leg in self._legs[name])
        )
        """Steps on which the request comes in: a refusal travels outwards through them."""
        self._begun: dict[tuple[str, str], frozenset[str]] = {}
        self._symbols: dict[str, tuple[Symbol, ...]] = {}
        self._near: dict[str, tuple[tuple[Symbol, str], ...]] = {}
        self._candidates: dict[str, tuple[Candidate, ...]] = {}

    def step(self, name: str) -> Step:
        """Return the step of this name; an unknown name raises KeyError."""
        return self._step_of[name]

    def starts(self, line: str) -> bool:
        """Return whether the call of *line* begins a trace of this workflow, whatever its result."""
        words = line.rsplit(" ", 1)
        return any(
            self.terminals[name].fullmatch(f"{words[0]} {result}")
            for name in self.begins
            for result in (words[-1], *GOOD_RESULTS)
        )

    def begun_at(self, protocol: str, operation: str) -> frozenset[str]:
        """Return the roles to which a call begins a trace of this workflow, as far as its operation tells.

        Roles and planes may be known late; what is asked for is known at once. Kept by operation.
        """
        key = (protocol, operation)
        found = self._begun.get(key)
        if found is None:
            found = _keep(self._begun, key, frozenset(self._asked(protocol, operation)))
        return found

    def _asked(self, protocol: str, operation: str) -> Iterator[str]:
        for name in self.begins:
            for leg in self._legs[name]:
                plane, caller, callee = (
                    word if word != "*" else "?" for word in (leg.plane, leg.caller, leg.callee)
                )
                line = f"{plane} {protocol} {caller} > {callee} {operation}"
                if any(self.terminals[name].fullmatch(f"{line} {result}") for result in GOOD_RESULTS):
                    yield callee

    def symbols(self, line: str) -> tuple[Symbol, ...]:
        """Return what a canonical line can be taken as, in order of ids; () outside of the alphabet.

        A plane that is not known (`?`) fits every plane. Kept by line: a run has few distinct lines.
        """
        found = self._symbols.get(line)
        if found is None:
            found = _keep(self._symbols, line, self._match(line))
        return found

    def near(self, line: str) -> tuple[tuple[Symbol, str], ...]:
        """Return what the line would be with another result, plane or protocol, as (symbol, kind).

        Kinds: failed (result), plane, mode (REST instead of RPC or the reverse). () for a line that
        fits a step as it is, and for a harmless refusal. Kept by line.
        """
        found = self._near.get(line)
        if found is None:
            found = _keep(self._near, line, self._nearly(line))
        return found

    def candidates(self, line: str) -> tuple[Candidate, ...]:
        """Return all the ways to take a line, as an event for `align`; () is outside of the alphabet."""
        found = self._candidates.get(line)
        if found is None:
            exact = (Candidate(symbol.id) for symbol in self.symbols(line))
            near = (Candidate(symbol.id, NEAR[kind], kind) for symbol, kind in self.near(line))
            found = _keep(self._candidates, line, (*exact, *near))
        return found

    def legs(self, step: str) -> tuple[Leg, ...]:
        """Return who may call whom, on which plane and how, for a witness of the step, without repeats.

        `*` stands for anything. An unknown step raises KeyError.
        """
        return tuple(dict.fromkeys(leg for name in self.step(step).terminals for leg in self._legs[name]))

    def terminal_legs(self, name: str) -> tuple[Leg, ...]:
        """Return the legs that the pattern of a terminal can match."""
        return self._legs[name]

    def _match(self, line: str) -> tuple[Symbol, ...]:
        if self._is_harmless(line):
            return ()
        plane, _, rest = line.partition(" ")
        lines = [f"{known} {rest}" for known in self._planes] if plane == "?" and self._planes else [line]
        return tuple(
            symbol
            for symbol in self.automaton.symbols
            if any(self.terminals[symbol.terminal].fullmatch(line) for line in lines)
        )

    def _is_harmless(self, line: str) -> bool:
        return any(self.terminals[name].fullmatch(line) for name in self.harmless)

    def _nearly(self, line: str) -> tuple[tuple[Symbol, str], ...]:
        words = line.split(" ")
        if len(words) < 7 or self._is_harmless(line) or any(s.role == "step" for s in self.symbols(line)):
            return ()
        found: dict[Symbol, str] = {}
        for kind, symbols in (
            ("failed", self._failed(words)),
            ("plane", self._misplaced(words)),
            ("mode", self._in_other_mode(words)),
        ):
            for symbol in symbols:
                if symbol.role in ("step", "other"):
                    found.setdefault(symbol, kind)
        return tuple(found.items())

    def _failed(self, words: Sequence[str]) -> Iterator[Symbol]:
        _, protocol, caller, _, callee, operation, *_, result = words
        if operation == "CONNECT":
            for symbol in self.automaton.symbols:
                for leg in self._legs[symbol.terminal]:
                    # A message's callee is a service; what was refused is the way through the broker.
                    to = callee in (leg.callee, "rabbitmq" if protocol == "RPC" else leg.callee)
                    if to and (leg.protocol, leg.caller) == (protocol, caller):
                        yield symbol
        elif result != "?":
            for good in GOOD_RESULTS:
                yield from self.symbols(" ".join((*words[:-1], good)))

    def _misplaced(self, words: Sequence[str]) -> Iterator[Symbol]:
        for plane in self._planes:
            if plane != words[0]:
                yield from self.symbols(" ".join((plane, *words[1:])))

    def _in_other_mode(self, words: Sequence[str]) -> Iterator[Symbol]:
        """Yield symbols of steps that know this leg in the other protocol only.

        Only calls that ask for something count: a step that is documented as a message is not done by a GET.
        """
        plane, protocol, caller, _, callee, operation, *_, result = words
        asks = {"REST": ("POST", "PUT", "PATCH"), "RPC": ("call", "cast")}.get(protocol, ())
        if operation not in asks or result in FAILED_RESULTS or result[:1] in ("4", "5"):
            return
        for symbol in self.automaton.symbols:
            if symbol.step is not None:
                known = self._protocols(self._legs[symbol.terminal], plane, caller, callee)
                of_step = self._protocols(self.legs(symbol.step), plane, caller, callee)
                if known & {"REST", "RPC"} and not of_step & {protocol, "*"}:
                    yield symbol

    def _protocols(self, legs: Sequence[Leg], plane: str, caller: str, callee: str) -> set[str]:
        ends = (caller, callee)
        return {
            leg.protocol for leg in legs if (leg.caller, leg.callee) == ends and leg.plane in (plane, "*")
        }


def _keep(cache: dict[_K, _T], line: _K, value: _T) -> _T:
    """Store and return *value*; a full cache starts anew, for lines of strange traffic have no end."""
    if len(cache) >= MOST_LINES:
        cache.clear()
    cache[line] = value
    return value
