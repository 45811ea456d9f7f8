"""A grammar of a workflow: its steps, its terminals as patterns over canonical lines, its automaton.

reading.py makes it from a Lark file. The notation is documented in grammars/README.md.

The judgement asks here what it needs to know of a step: by which steps the request comes in, which steps
every attempt repeats, which step a failure belongs to. The answers are stated in the grammar, or follow from
the callers and callees of its terminals.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from tracer.grammar.alphabet import GOOD_RESULTS, Alphabet, Candidate, remember
from tracer.grammar.automaton import Alt, Automaton, Rep, Seq, Shuffle, Symbol, Term, symbols_in
from tracer.grammar.patterns import Leg, LinePattern, example_of, legs_of
from tracer.openstack.services import HOST_SERVICE, PORTAL, PROXY

__all__ = ["Grammar", "Refusal", "Reserved", "State", "Step"]


@dataclass(frozen=True, slots=True)
class Step:
    """One documented step."""

    name: str
    """The part after `step_` in the name of its rule."""
    title: str
    """The comment on the rule's line."""
    presence: str
    """required · inferred (may leave nothing on the wire) · optional (may not happen)"""
    rule_line: int
    """Line of its rule in `path`, from 1."""
    path: str
    terminals: tuple[str, ...]
    """Terminals that are evidence of it."""
    deadline_ns: int | None = None
    """From `within_60s{…}`: the most time from the call before it to the end of its own last call."""
    breaks: str = ""
    """What usually breaks it: the comment `//: …` above its rule; '' without one."""


class Refusal(NamedTuple):
    """One entry of the rule `refusals`: the steps to which a failure belongs that is no step's own call."""

    terminal: str
    """It matches the line of the call that failed, a colon, and the text of the fault."""
    steps: tuple[str, ...]
    """More than one where the grammar does not decide."""


class State(NamedTuple):
    """One entry of the rule `states`: what a service that works on a step says of it."""

    terminal: str
    step: str
    is_done: bool
    """The step is done (`shown_N`); else it has begun, and nothing more is said (`begun_N`)."""


class Reserved(NamedTuple):
    """The contents of the reserved rules."""

    begins: tuple[str, ...] = ()
    """Terminals of the calls that begin a trace of this workflow."""
    harmless: tuple[str, ...] = ()
    """Terminals of refusals that a healthy run contains."""
    attempt: tuple[str, ...] = ()
    """Steps of an attempt of one host, in documented order."""
    refusals: tuple[Refusal, ...] = ()
    """In the order in which they are tried."""
    states: tuple[State, ...] = ()


class Grammar:
    """A workflow's steps, its terminals as patterns over canonical lines, and its automaton."""

    def __init__(
        self,
        path: Path,
        title: str,
        steps: tuple[Step, ...],
        terminals: Mapping[str, LinePattern],
        reserved: Reserved,
        automaton: Automaton,
        term: Term,
    ) -> None:
        self.name = path.stem
        self.path = path
        self.title = title
        self.steps = steps
        self.terminals = terminals
        """Terminals of all rules, the reserved ones included; to be matched in full."""
        self.begins = reserved.begins
        self.harmless = reserved.harmless
        self.refusals = reserved.refusals
        self.states = reserved.states
        self.automaton = automaton
        self.term = term
        """The term from which the automaton was made."""
        self._beside: dict[str, set[str]] = {}
        self._repeated: set[str] = set()
        self._interleaved(term)
        self._step_of = {step.name: step for step in steps}
        # Kept with the compiled grammar: to read them from the patterns takes long.
        self._replies, self._reads = _replies_and_reads(steps, terminals)
        self.places = {step.name: place for place, step in enumerate(steps)}
        """Name of a step -> its place in the document, from 0."""
        self.required = frozenset(step.name for step in steps if step.presence == "required")
        self.inferred = frozenset(step.name for step in steps if step.presence == "inferred")
        used = {symbol.terminal for symbol in automaton.symbols}
        told = (state.terminal for state in self.states)
        names = dict.fromkeys((*used, *self.begins, *told))
        self._legs = {name: legs_of(terminals[name].pattern) for name in names}
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
        """Steps by which the request comes in, from the outside inwards. A refusal travels outwards through
        them."""
        self.inward = frozenset(self.request)
        self.attempt = reserved.attempt or self._usual_attempt()
        """Steps of an attempt of one host; the first asks the host."""
        self._told: dict[str, tuple[State, ...]] = {}
        self._begun: dict[tuple[str, str], frozenset[str]] = {}
        self._by_operation: dict[tuple[str, str], frozenset[str]] = {}

    # --- steps ---

    def step(self, name: str) -> Step:
        """Return the step of this name; an unknown name raises KeyError."""
        return self._step_of[name]

    def legs(self, step: str) -> tuple[Leg, ...]:
        """Return the legs (plane, protocol, caller, callee) of the step's terminals, without repeats.

        `*` stands for anything. An unknown step raises KeyError.
        """
        return self._step_legs[step]

    def earliest(self, steps: Collection[str]) -> str | None:
        """Return the one of *steps* that comes first in the document; None without steps."""
        return min(steps, key=lambda step: self.places.get(step, len(self.places)), default=None)

    def beside(self, step: str) -> Collection[str]:
        """Return the steps that run side by side with *step*: they are neither before nor after it."""
        return self._beside.get(step, ())

    def repeats(self, step: str) -> bool:
        """Return whether *step* may have several calls in one attempt."""
        return step in self._repeated

    def _interleaved(self, term: Term) -> None:
        """Record the steps in different lanes of an interleaving, and those that hold a repetition."""
        match term:
            case Seq(parts) | Alt(parts) | Shuffle(parts):
                for part in parts:
                    self._interleaved(part)
            case Rep(part, _, high):
                self._interleaved(part)
                steps = {self.automaton.symbols[number].step or "" for number in symbols_in(part)}
                if high != 1 and len(steps) == 1:
                    self._repeated |= steps
        if isinstance(term, Shuffle):
            symbols = self.automaton.symbols
            lanes = [{symbols[number].step or "" for number in symbols_in(lane)} for lane in term.parts]
            for lane, other in permutations(lanes, 2):
                for step in lane - other:
                    self._beside.setdefault(step, set()).update(other - lane)

    def caller(self, step: str | None) -> str:
        """Return the role that makes the call of *step*; empty where the grammar does not state it."""
        legs = self._step_legs.get(step or "", ())[:1]
        return legs[0].caller if legs and "*" not in legs[0].caller else ""

    def replies(self, step: str | None) -> frozenset[str]:
        """Return the methods whose replies are evidence of *step*; empty for a step that is no reply."""
        return self._replies.get(step or "", frozenset())

    def is_read(self, step: str) -> bool:
        """Return whether *step* only reads the database: such a statement holds no id of the request."""
        return step in self._reads

    def _usual_attempt(self) -> tuple[str, ...]:
        """Return the steps of an attempt where no rule states them: asking a host, and what the host does."""
        asking = [s for s in self.places if any(leg.callee == HOST_SERVICE for leg in self._step_legs[s])]
        doing = [s for s in self.asked_by(HOST_SERVICE) if s not in asking]
        return (*asking[:1], *doing)

    # --- the request on its way in ---

    @property
    def portal_step(self) -> str | None:
        """The step in which the portal is called; None in a workflow without a portal."""
        steps = (s for s in self.request if any(leg.callee == PORTAL for leg in self._step_legs[s]))
        return next(steps, None)

    @property
    def proxy_step(self) -> str | None:
        """The step in which the proxy forwards the request; None in a workflow without a proxy."""
        steps = (s for s in self.request if any(leg.caller == PROXY for leg in self._step_legs[s]))
        return next(steps, None)

    @property
    def api(self) -> str:
        """The role of the service that the request is for; empty where the grammar does not state it."""
        legs = self._step_legs[self.request[-1]] if self.request else ()
        return legs[-1].callee if legs else ""

    @property
    def askers(self) -> frozenset[str]:
        """Roles that send the request on its way in: the first client and all that forward it."""
        return frozenset(leg.caller for step in self.request for leg in self._step_legs[step])

    def asked_by(self, role: str) -> tuple[str, ...]:
        """Return the steps whose calls *role* makes, in documented order."""
        return tuple(s for s in self.places if any(leg.caller == role for leg in self._step_legs[s]))

    # --- calls ---

    def starts(self, line: str) -> bool:
        """Return whether the call of *line* begins a trace of this workflow, whatever its result."""
        words = line.rsplit(" ", 1)
        return any(
            self.terminals[name].matches(f"{words[0]} {result}")
            for name in self.begins
            for result in (words[-1], *GOOD_RESULTS)
        )

    def begun_at(self, protocol: str, operation: str) -> frozenset[str]:
        """Return the callee roles with which a call of this operation begins a trace of this workflow.

        Empty if with none. Remembered by operation.
        """
        # By the operation alone: it is known at the start of a call, caller and callee perhaps much later.
        key = (protocol, operation)
        found = self._begun.get(key)
        if found is None:
            callees = (leg.callee for _, leg in self._asked(self.begins, protocol, operation))
            found = remember(self._begun, key, frozenset("?" if role == "*" else role for role in callees))
        return found

    def steps_by_operation(self, protocol: str, operation: str) -> frozenset[str]:
        """Return the steps that a call of this operation may be evidence of, for any caller and callee.

        As in ("RPC", "cast build_and_run_instance"). Remembered by operation.
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
        """Yield (terminal, leg) for those of *terminals* that such an operation matches on that leg."""
        for name in terminals:
            for leg in self._legs[name]:
                if leg.protocol not in ("*", protocol):
                    continue
                plane, caller, callee = (
                    word if word != "*" else "?" for word in (leg.plane, leg.caller, leg.callee)
                )
                line = f"{plane} {protocol} {caller} > {callee} {operation}"
                if any(self.terminals[name].matches(f"{line} {result}") for result in GOOD_RESULTS):
                    yield name, leg

    def steps_refusing(self, line: str, fault: str, is_cut: bool = False) -> tuple[str, ...]:
        """Return the steps that a failed call belongs to by the rule `refusals`; () where it has no entry.

        *line* is the canonical line of the call, *fault* the text of its answer, empty when it is lost. A
        text that was cut (*is_cut*) is also tried as a lost one: the deciding words may be in the rest.
        """
        texts = [f"{line}: {fault or '?'}"]
        if is_cut:
            texts.append(f"{line}: ?")
        for refusal in self.refusals:
            if any(self.terminals[refusal.terminal].matches(text) for text in texts):
                return refusal.steps
        return ()

    def told(self, line: str) -> tuple[State, ...]:
        """Return what a call of this line says of the steps, by the rule `states`. Remembered by line."""
        found = self._told.get(line)
        if found is None:
            states = (state for state in self.states if self.terminals[state.terminal].matches(line))
            found = remember(self._told, line, tuple(states))
        return found

    def telling(self, step: str) -> tuple[Leg, ...]:
        """Return the legs of the calls that say that *step* is done (`shown_N`), without repeats."""
        return tuple(dict.fromkeys(leg for name in self.shown_by(step) for leg in self._legs[name]))

    def shown_by(self, step: str | None) -> tuple[str, ...]:
        """Return the terminals of the calls that say that *step* is done (`shown_N`); () for most steps."""
        return tuple(state.terminal for state in self.states if state.step == step and state.is_done)

    @property
    def state_legs(self) -> tuple[Leg, ...]:
        """The legs of all calls of the rule `states`, without repeats."""
        return tuple(dict.fromkeys(leg for state in self.states for leg in self._legs[state.terminal]))

    def symbols(self, line: str) -> tuple[Symbol, ...]:
        """Return the symbols that a canonical line fits; see `Alphabet.symbols`."""
        return self.alphabet.symbols(line)

    def near(self, line: str) -> tuple[tuple[Symbol, str], ...]:
        """Return the symbols of which a canonical line is a near miss; see `Alphabet.near`."""
        return self.alphabet.near(line)

    def candidates(self, line: str) -> tuple[Candidate, ...]:
        """Return all candidates of a canonical line; see `Alphabet.candidates`."""
        return self.alphabet.candidates(line)

    def terminal_legs(self, name: str) -> tuple[Leg, ...]:
        """Return the legs that the pattern of a terminal can match."""
        return self._legs[name]


def _replies_and_reads(
    steps: Iterable[Step], terminals: Mapping[str, LinePattern]
) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """Return step -> the methods whose replies are evidence of it, and the steps that only read data."""
    replies, reads = {}, []
    for step in steps:
        lines = [example_of(terminals[name].pattern).split() for name in step.terminals]
        replies[step.name] = frozenset(words[5] for words in lines if len(words) > 5 and words[4] == "reply")
        if lines and lines[0][:1] == ["SQL"] and lines[0][4:5] == ["SELECT"]:
            reads.append(step.name)
    return replies, frozenset(reads)
