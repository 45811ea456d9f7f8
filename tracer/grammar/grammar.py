"""A grammar of a workflow: its steps, its terminals as patterns over canonical lines, its automaton.

How a Lark file becomes one is told in reading.py. The notation is documented in grammars/README.md.

What a judgement needs to know of a step stands here, as the grammar says it or as it follows from who calls
whom: on which steps the request comes in, which steps every attempt repeats, which step a failure belongs to.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tracer.grammar.alphabet import GOOD_RESULTS, Alphabet, Candidate, remember
from tracer.grammar.automaton import Automaton, Symbol, Term
from tracer.grammar.patterns import Leg, example_of, legs_of
from tracer.openstack.services import HOST_SERVICE, PORTAL, PROXY

__all__ = ["Grammar", "Refusal", "Reserved", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One documented step."""

    name: str
    """What follows `step_` in the name of its rule."""
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


class Refusal(NamedTuple):
    """What a failure that is no step's own call belongs to."""

    terminal: str
    """Matches the line of the call that failed, a colon, and the words of the fault."""
    steps: tuple[str, ...]
    """More than one where the grammar leaves it open."""


class Reserved(NamedTuple):
    """What the rules with a meaning of their own say."""

    begins: tuple[str, ...] = ()
    """Terminals of the calls that begin a trace of this workflow."""
    harmless: tuple[str, ...] = ()
    """Terminals of refusals that a healthy run contains."""
    attempt: tuple[str, ...] = ()
    """Steps that each host goes through that is asked, in documented order."""
    refusals: tuple[Refusal, ...] = ()
    """In the order in which they are tried."""


class Grammar:
    """A workflow's steps, its terminals as patterns over canonical lines, and its automaton."""

    def __init__(
        self,
        path: Path,
        title: str,
        steps: tuple[Step, ...],
        terminals: Mapping[str, re.Pattern[str]],
        reserved: Reserved,
        automaton: Automaton,
        term: Term,
    ) -> None:
        self.name = path.stem
        self.path = path
        self.title = title
        self.steps = steps
        self.terminals = terminals
        """Of the rules and of the reserved rules; to be matched in full."""
        self.begins = reserved.begins
        self.harmless = reserved.harmless
        self.refusals = reserved.refusals
        self.automaton = automaton
        self.term = term
        """What the automaton was made of."""
        self._step_of = {step.name: step for step in steps}
        self.places = {step.name: place for place, step in enumerate(steps)}
        """Name of a step -> its place in the document, from 0."""
        self.required = frozenset(step.name for step in steps if step.presence == "required")
        self.inferred = frozenset(step.name for step in steps if step.presence == "inferred")
        used = {symbol.terminal for symbol in automaton.symbols}
        self._legs = {name: legs_of(terminals[name].pattern) for name in dict.fromkeys((*used, *self.begins))}
        self._step_legs = {
            step.name: tuple(dict.fromkeys(leg for name in step.terminals for leg in self._legs[name]))
            for step in steps
        }
        self.alphabet = Alphabet(
            automaton.symbols,
            terminals,
            self._legs,
            self._step_legs,
            [terminals[name] for name in self.harmless],
        )
        self.request = tuple(
            step.name
            for step in steps
            if any(
                leg.protocol == "REST"
                for name in {*step.terminals} & {*self.begins}
                for leg in self._legs[name]
            )
        )
        """Steps on which the request comes in, from the outside inwards: a refusal travels outwards through
        them."""
        self.inward = frozenset(self.request)
        self.attempt = reserved.attempt or self._usual_attempt()
        """Steps that each host goes through that is asked; the first asks it."""
        self._begun: dict[tuple[str, str], frozenset[str]] = {}
        self._by_operation: dict[tuple[str, str], frozenset[str]] = {}

    # --- steps ---

    def step(self, name: str) -> Step:
        """Return the step of this name; an unknown name raises KeyError."""
        return self._step_of[name]

    def legs(self, step: str) -> tuple[Leg, ...]:
        """Return who may call whom, on which plane and how, for a witness of the step, without repeats.

        `*` stands for anything. An unknown step raises KeyError.
        """
        return self._step_legs[step]

    def earliest(self, steps: Collection[str]) -> str | None:
        """Return that of *steps* which comes first in the document; None of none."""
        return min(steps, key=lambda step: self.places.get(step, len(self.places)), default=None)

    def caller(self, step: str | None) -> str:
        """Return the role that makes the call of *step*; empty where the grammar does not say."""
        legs = self._step_legs.get(step or "", ())[:1]
        return legs[0].caller if legs and "*" not in legs[0].caller else ""

    def replies(self, step: str | None) -> frozenset[str]:
        """Return the methods whose replies witness *step*; none of a step that is no reply."""
        names = self._step_of[step].terminals if step in self._step_of else ()
        lines = (example_of(self.terminals[name].pattern).split() for name in names)
        return frozenset(words[5] for words in lines if len(words) > 5 and words[4] == "reply")

    def is_read(self, step: str) -> bool:
        """Tell whether *step* only reads the database: such a statement holds no id of the request."""
        names = self.step(step).terminals[:1]
        lines = (example_of(self.terminals[name].pattern).split() for name in names)
        return any(words[:1] == ["SQL"] and words[4:5] == ["SELECT"] for words in lines)

    def _usual_attempt(self) -> tuple[str, ...]:
        """Return the step that asks a host first, and those that the host does, where no rule says it."""
        asking = [s for s in self.places if any(leg.callee == HOST_SERVICE for leg in self._step_legs[s])]
        doing = [s for s in self.asked_by(HOST_SERVICE) if s not in asking]
        return (*asking[:1], *doing)

    # --- the request on its way in ---

    @property
    def portal_step(self) -> str | None:
        """The step on which the portal is asked; None in a workflow without a portal."""
        steps = (s for s in self.request if any(leg.callee == PORTAL for leg in self._step_legs[s]))
        return next(steps, None)

    @property
    def proxy_step(self) -> str | None:
        """The step on which the proxy passes the request on; None in a workflow without a proxy."""
        steps = (s for s in self.request if any(leg.caller == PROXY for leg in self._step_legs[s]))
        return next(steps, None)

    @property
    def api(self) -> str:
        """The role of the service that the request is for; empty where the grammar does not say."""
        legs = self._step_legs[self.request[-1]] if self.request else ()
        return legs[-1].callee if legs else ""

    @property
    def askers(self) -> frozenset[str]:
        """Roles that pass the request on, the one who asks first included."""
        return frozenset(leg.caller for step in self.request for leg in self._step_legs[step])

    def asked_by(self, role: str) -> tuple[str, ...]:
        """Return the steps that *role* does, in documented order."""
        return tuple(s for s in self.places if any(leg.caller == role for leg in self._step_legs[s]))

    # --- calls ---

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
            callees = (leg.callee for _, leg in self._asked(self.begins, protocol, operation))
            found = remember(self._begun, key, frozenset("?" if role == "*" else role for role in callees))
        return found

    def steps_by_operation(self, protocol: str, operation: str) -> frozenset[str]:
        """Return the steps that a call witnesses as far as its operation tells, whoever calls whom.

        As in ("RPC", "cast build_and_run_instance"). Kept by operation.
        """
        key = (protocol, operation)
        found = self._by_operation.get(key)
        if found is None:
            steps = (
                step.name for step in self.steps for _ in self._asked(step.terminals, protocol, operation)
            )
            found = remember(self._by_operation, key, frozenset(steps))
        return found

    def _asked(self, terminals: Collection[str], protocol: str, operation: str) -> Iterator[tuple[str, Leg]]:
        """Yield each of *terminals* that such a call would match with the right ends, with these ends."""
        for name in terminals:
            for leg in self._legs[name]:
                plane, caller, callee = (
                    word if word != "*" else "?" for word in (leg.plane, leg.caller, leg.callee)
                )
                line = f"{plane} {protocol} {caller} > {callee} {operation}"
                if any(self.terminals[name].fullmatch(f"{line} {result}") for result in GOOD_RESULTS):
                    yield name, leg

    def steps_refusing(self, line: str, fault: str, is_cut: bool = False) -> tuple[str, ...]:
        """Return the steps that a failed call belongs to by the rule `refusals`; () where it does not say.

        *line* is the canonical line of the call; *fault* the words of its answer, empty when they are lost.
        Of words that are cut (*is_cut*) the rest may say something else.
        """
        texts = [f"{line}: {fault or '?'}"]
        if is_cut:
            texts.append(f"{line}: ?")
        for refusal in self.refusals:
            if any(self.terminals[refusal.terminal].fullmatch(text) for text in texts):
                return refusal.steps
        return ()

    def symbols(self, line: str) -> tuple[Symbol, ...]:
        """Return what a canonical line can be taken as; see `Alphabet.symbols`."""
        return self.alphabet.symbols(line)

    def near(self, line: str) -> tuple[tuple[Symbol, str], ...]:
        """Return what a canonical line is a near miss of; see `Alphabet.near`."""
        return self.alphabet.near(line)

    def candidates(self, line: str) -> tuple[Candidate, ...]:
        """Return all the ways to take a canonical line; see `Alphabet.candidates`."""
        return self.alphabet.candidates(line)

    def terminal_legs(self, name: str) -> tuple[Leg, ...]:
        """Return the legs that the pattern of a terminal can match."""
        return self._legs[name]
