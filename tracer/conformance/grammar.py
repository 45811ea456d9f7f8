"""Grammars of workflows: Lark files, read through Lark, compiled to one automaton.

    file -> lark.load_grammar -> rules as trees, terminals as patterns -> term -> automaton

Lark's own parser is not used: it knows no interleaving, and stops at the first error. Lark's reader
keeps rules as written (`?*+~` and the use of templates), which its parser's tables do not. The notation
is documented in grammars/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from lark.grammar import NonTerminal, Terminal
from lark.tree import Tree

from tracer.conformance.alignment import NEAR, Candidate
from tracer.conformance.automaton import (
    MOST_STATES,
    Alt,
    Automaton,
    Rep,
    Seq,
    Shuffle,
    Sym,
    Symbol,
    Term,
    compile_term,
)
from tracer.conformance.lark_files import EXTENSION, GrammarSource, base_name, grammars_dir, shipped
from tracer.conformance.legs import Leg, legs_of
from tracer.errors import GrammarError

__all__ = ["Grammar", "Leg", "Step", "Symbol", "load", "shipped"]

BEGINS = "begins"
HARMLESS = "harmless"
GOOD_RESULTS = ("?", "ok", "200", "201", "202", "204", "302")
"""What a failing result is replaced by to ask whether the line is a near miss."""
MOST_LINES = 100_000
"""Distinct lines that are remembered; a real run has some hundreds."""
FAILED_RESULTS = frozenset(("failure", "error", "refused", "unroutable", "none"))

_K = TypeVar("_K")
_T = TypeVar("_T")
_STEP = re.compile(r"(step|tried|refused)_(\w+)")
_DEADLINE = re.compile(r"within_([1-9]\d{0,8})(ms|s|min)")
_UNITS_NS = {"ms": 10**6, "s": 10**9, "min": 60 * 10**9}


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
        source: GrammarSource,
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
        self.source = source
        """The files as they were read."""
        self._step_of = {step.name: step for step in steps}
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


def load(name_or_path: str | Path, most_states: int = MOST_STATES) -> Grammar:
    """Return the grammar of a shipped name or of a file (anything with a `/` or ending in .lark).

    Everything that is wrong with it raises GrammarError, in one line: place, what, what to do.
    """
    text = str(name_or_path)
    if text.endswith(EXTENSION) or "/" in text or "\\" in text:
        path = Path(text)
    else:
        path = grammars_dir() / (text + EXTENSION)
        if not path.is_file():
            close = get_close_matches(text, shipped(), 1)
            hint = f". Did you mean {close[0]}?" if close else f"; a file's name ends in {EXTENSION}"
            raise GrammarError(f"no grammar '{text}' (known: {', '.join(shipped())}){hint}")
    source = GrammarSource(path)
    source.read()
    return _compiled(source, most_states)


# --- from rules to a term -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Context:
    """What the rules and templates around say about a terminal."""

    step: str | None = None
    rule: str = ""
    """The rule of the step."""
    role: str = "other"
    note: str = ""
    inferred: bool = False
    deadline_ns: int | None = None


@dataclass(slots=True)
class _Found:
    """A step as far as it is known while the rules are read."""

    rule: str
    inferred: bool = False
    deadline_ns: int | None = None
    symbols: list[Symbol] = field(default_factory=list)


class _Scope(NamedTuple):
    """What a template's parameters stand for, and the rules on the way here."""

    arguments: Mapping[str, tuple[Tree[Any], _Scope]]
    way: tuple[str, ...]


_NO_CONTEXT = _Context()


class _Reader:
    """Rules -> one term, the symbols in order of appearance, the steps in documented order."""

    def __init__(self, source: GrammarSource) -> None:
        self.source = source
        self.symbols: dict[tuple[str, str | None, str, str], Symbol] = {}
        self.steps: dict[str, _Found] = {}
        self.read: dict[tuple[str, _Context], Term] = {}

    def rule(self, name: str, context: _Context, way: tuple[str, ...] = ()) -> Term:
        """Return the term of a rule without parameters."""
        if name in way:
            circle = " -> ".join(base_name(rule) for rule in (*way[way.index(name) :], name))
            raise GrammarError(
                f"{self.source.place(name)}: recursion {circle}; steps form no nested structure, write a"
                " repetition instead: ( … )*"
            )
        within = self.entered(name, context)
        known = self.read.get((name, within))
        if known is None:
            scope = _Scope({}, (*way, name))
            known = self.read[name, within] = self.term(self.source.rules[name].tree, within, scope)
        return known

    def entered(self, name: str, context: _Context) -> _Context:
        """Return the context inside a rule: step_8a, tried_8a and refused_8a belong to step 8a."""
        match = _STEP.fullmatch(base_name(name))
        if match is None:
            return context
        rule = name if match[1] == "step" else context.rule
        return replace(context, step=match[2], role=match[1], rule=rule)

    def term(self, tree: Tree[Any], context: _Context, scope: _Scope) -> Term:
        children = tree.children
        match tree.data:
            case "expansions":
                parts = tuple(self.term(child, context, scope) for child in children)
                return parts[0] if len(parts) == 1 else Alt(parts)
            case "expansion":
                return Seq(tuple(self.term(child, context, scope) for child in children))
            case "alias":
                return self.term(children[0], context, scope)
            case "maybe":
                return Rep(self.term(children[0], context, scope), 0, 1)
            case "expr":
                return self.repetition(self.term(children[0], context, scope), children[1:])
            case "value":
                return self.value(children[0], context, scope)
        place = self.source.place(scope.way[-1])
        raise GrammarError(f"{place}: Lark's '{tree.data}' has no meaning here; see grammars/README.md")

    def repetition(self, part: Term, marks: Sequence[Any]) -> Term:
        bounds = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(str(marks[0]))
        low, high = bounds or (int(marks[1]), int(marks[-1]))
        return Rep(part, low, high)

    def value(self, item: Any, context: _Context, scope: _Scope) -> Term:
        if isinstance(item, Terminal):
            return self.terminal(str(item.name), context, scope)
        if isinstance(item, NonTerminal):
            name = str(item.name)
            if name in scope.arguments:
                tree, outside = scope.arguments[name]
                return self.term(tree, context, outside)
            return self.rule(name, context, scope.way)
        return self.template(item, context, scope)

    def template(self, usage: Any, context: _Context, scope: _Scope) -> Term:
        name, arguments = str(usage.children[0].name), usage.children[1:]
        base = base_name(name)
        if base == "interleave":
            place = self.source.place(scope.way[-1])
            where = f"{place}: interleave in rule {base_name(scope.way[-1])}"
            return Shuffle(tuple(self.term(argument, context, scope) for argument in arguments), where)
        if name in scope.way:
            return self.rule(name, context, scope.way)  # refuses it
        if base == "inferred":
            context = replace(context, inferred=True)
        elif base.startswith("noted_"):
            context = replace(context, note=base.removeprefix("noted_"))
        elif deadline := _DEADLINE.fullmatch(base):
            context = replace(context, deadline_ns=int(deadline[1]) * _UNITS_NS[deadline[2]])
        elif base.startswith("within"):
            raise GrammarError(
                f"{self.source.place(name)}: {base} is no deadline; write within_60s, within_500ms or"
                " within_5min"
            )
        rule = self.source.rules[name]
        given = dict(zip(rule.parameters, ((argument, scope) for argument in arguments), strict=True))
        return self.term(rule.tree, context, _Scope(given, (*scope.way, name)))

    def terminal(self, name: str, context: _Context, scope: _Scope) -> Term:
        if name not in self.source.shown:
            raise GrammarError(
                f"{self.source.place(scope.way[-1])}: terminal {name} has no pattern; define it, as in"
                f' {base_name(name)}: "Internal_base REST lb > nova-api …"'
            )
        key = (self.source.shown[name], context.step, context.role, context.note)
        symbol = self.symbols.setdefault(key, Symbol(len(self.symbols), *key))
        if context.step is not None:
            found = self.steps.setdefault(context.step, _Found(context.rule))
            found.rule = found.rule or context.rule
            found.inferred |= context.inferred
            found.deadline_ns = context.deadline_ns or found.deadline_ns
            if symbol not in found.symbols:
                found.symbols.append(symbol)
        return Sym(symbol.id)


def _compiled(source: GrammarSource, most_states: int) -> Grammar:
    if not source.rules and source.patterns:
        raise GrammarError(
            f"{source.path}: a vocabulary: it holds terminals and no steps; %import from it in a grammar, or"
            f" check against one: {', '.join(shipped())}"
        )
    if "start" not in source.rules:
        raise GrammarError(f"{source.path}: no rule `start`; write start: step_1 step_2 …, or %import it")
    begins = _listed(source, BEGINS)
    reader = _Reader(source)
    term = reader.rule("start", _NO_CONTEXT)
    steps = {name: found for name, found in reader.steps.items() if found.rule}
    if not steps:
        raise GrammarError(
            f"{source.place('start')}: start reaches no step; name the documented steps step_1, step_2 …"
        )
    if not begins:
        raise GrammarError(
            f"{source.path}: no rule `begins`; list the terminals of the calls that begin a trace"
            " (begins: A | B), or add begins to the %import of start"
        )
    automaton = compile_term(term, tuple(reader.symbols.values()), most_states, source.place("start"))
    harmless = _listed(source, HARMLESS)
    used = dict.fromkeys((*(symbol.terminal for symbol in automaton.symbols), *begins, *harmless))
    terminals = {name: _pattern(source, name) for name in used}
    comment = re.search(r"^//(.*)", source.texts[str(source.path)], re.MULTILINE)
    title = comment[1].strip() if comment else ""
    made = tuple(_step(source, automaton, name, found) for name, found in steps.items())
    return Grammar(source.path, title, made, terminals, begins, harmless, automaton, term, source)


def _listed(source: GrammarSource, rule: str) -> tuple[str, ...]:
    """Return the terminals of an otherwise unused rule, () without it."""
    if rule not in source.rules:
        return ()
    reader = _Reader(source)
    reader.rule(rule, _NO_CONTEXT)
    return tuple(dict.fromkeys(symbol.terminal for symbol in reader.symbols.values()))


def _pattern(source: GrammarSource, name: str) -> re.Pattern[str]:
    try:
        return re.compile(source.patterns[name])
    except re.error as error:
        place = source.place(name)
        raise GrammarError(f"{place}: terminal {name} is no regular expression: {error}; mend it") from None


def _step(source: GrammarSource, automaton: Automaton, name: str, found: _Found) -> Step:
    own = [symbol for symbol in found.symbols if symbol.role == "step"]
    presence = "inferred" if found.inferred else "optional"
    if automaton.needs(symbol.id for symbol in own):
        presence = "required"
    places = list(source.definition(found.rule))
    path, line, _ = places[0] if places else (str(source.path), 1, "")
    title = next((comment for _, _, comment in places if comment), f"step {name}")
    terminals = tuple(dict.fromkeys(symbol.terminal for symbol in own))
    return Step(name, title, presence, line, path, terminals, found.deadline_ns)
