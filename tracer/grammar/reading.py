"""Makes a Grammar from a Lark file.

    file -> lark.load_grammar -> rules as trees, terminals as patterns -> term -> automaton

Lark's own parser is not used: it has no interleaving and stops at the first error. Lark's grammar reader
keeps rules as they are written (`?*+~` and the use of templates); the tables of its parsers do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from lark.grammar import NonTerminal, Terminal
from lark.tree import Tree

from tracer.errors import GrammarError
from tracer.grammar.automaton import (
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
    symbols_in,
)
from tracer.grammar.files import shipped
from tracer.grammar.grammar import Grammar, Refusal, Reserved, State, Step
from tracer.grammar.lark_files import GrammarSource, base_name
from tracer.grammar.patterns import LinePattern, endless_part, legs_of

__all__ = ["RESERVED", "read"]

_BEGINS, _HARMLESS, _REFUSALS, _ATTEMPT = "begins", "harmless", "refusals", "attempt"
_STATES = "states"
RESERVED = (_BEGINS, _HARMLESS, _REFUSALS, _STATES)
"""Reserved rules: they have a meaning of their own, and no other rule uses them."""
_STEP = re.compile(r"(step|tried|refused|begun|shown)_(\w+)")
_BEGUN, _SHOWN = "begun", "shown"
_DEADLINE = re.compile(r"within_([1-9]\d{0,8})(ms|s|min)")
_UNITS_NS = {"ms": 10**6, "s": 10**9, "min": 60 * 10**9}


def read(path: Path, most_states: int = MOST_STATES) -> tuple[Grammar, GrammarSource]:
    """Return the grammar in a file, and the files from which it was read.

    Anything wrong with it raises GrammarError, in one line: place, what, what to do.
    """
    source = GrammarSource(path)
    source.read()
    return _compiled(source, most_states), source


# --- from rules to a term -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Context:
    """What the enclosing rules and templates state about a terminal."""

    step: str | None = None
    rule: str = ""
    """The rule of the step."""
    role: str = "other"
    note: str = ""
    inferred: bool = False
    deadline_ns: int | None = None


@dataclass(slots=True)
class _Found:
    """What is known of a step while the rules are being read."""

    rule: str
    inferred: bool = False
    deadline_ns: int | None = None
    symbols: list[Symbol] = field(default_factory=list)


class _Scope(NamedTuple):
    """The arguments of the template that is being read, and the rules that lead to it."""

    arguments: Mapping[str, tuple[Tree[Any], _Scope]]
    way: tuple[str, ...]


_NO_CONTEXT = _Context()


class _Reader:
    """Makes one term of the rules; collects symbols in order of appearance and steps in documented order."""

    def __init__(self, source: GrammarSource) -> None:
        self.source = source
        self.symbols: dict[tuple[str, str | None, str, str], Symbol] = {}
        self.steps: dict[str, _Found] = {}
        self.read: dict[tuple[str, _Context], Term] = {}
        self.attempt = ""
        """The rule of that name, as Lark calls it; empty where none was reached."""
        self.found_in: dict[str, str] = {}
        """step -> the first rule that names it"""

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
            if base_name(name) == _ATTEMPT:
                self.attempt = name
        return known

    def entered(self, name: str, context: _Context) -> _Context:
        """Return the context inside a rule: step_8a, tried_8a and refused_8a belong to step 8a."""
        match = _STEP.fullmatch(base_name(name))
        if match is None:
            return context
        self.found_in.setdefault(match[2], name)
        rule = name if match[1] == "step" else context.rule
        return replace(context, step=match[2], role=match[1], rule=rule)

    def steps_in(self, term: Term) -> set[str]:
        """Return the steps of the symbols in *term*."""
        symbols = list(self.symbols.values())
        return {step for number in symbols_in(term) if (step := symbols[number].step) is not None}

    def term(self, tree: Tree[Any], context: _Context, scope: _Scope) -> Term:
        """Return the term of a part of a rule, by the kind of Lark's node."""
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
        """Return *part* repeated as `?`, `*`, `+`, `~2` or `~2..4` in *marks* states."""
        bounds = {"?": (0, 1), "*": (0, None), "+": (1, None)}.get(str(marks[0]))
        low, high = bounds or (int(marks[1]), int(marks[-1]))
        return Rep(part, low, high)

    def value(self, item: Any, context: _Context, scope: _Scope) -> Term:
        """Return the term of a name: a terminal, a rule, a template's argument, or the use of a template."""
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
        """Return the term of the use of a template; some names have a meaning (grammars/README.md)."""
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
                f"{self.source.place(name)}: {base} is not a deadline; write within_60s, within_500ms or"
                " within_5min"
            )
        rule = self.source.rules[name]
        given = dict(zip(rule.parameters, ((argument, scope) for argument in arguments), strict=True))
        term = self.term(rule.tree, context, _Scope(given, (*scope.way, name)))
        if base.startswith(("within_", "noted_")) and len(self.steps_in(term)) != 1:
            # A deadline and a note belong to one step: around several or none of them they would be lost.
            raise GrammarError(
                f"{self.source.place(scope.way[-1])}: {base} in rule {base_name(scope.way[-1])} does not"
                " belong to one step; write it around what one step consists of"
            )
        return term

    def terminal(self, name: str, context: _Context, scope: _Scope) -> Term:
        """Return the symbol of a terminal in its context, and record it as evidence of the step around it."""
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
    begins = _listed(source, _BEGINS)
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
    for name in reader.steps.keys() - steps.keys():
        raise GrammarError(_no_such_step(source, reader.found_in[name], name, list(steps)))
    automaton = compile_term(term, tuple(reader.symbols.values()), most_states, source.place("start"))
    reserved = Reserved(
        begins,
        _listed(source, _HARMLESS),
        _attempt(source, reader, list(steps)),
        _refusals(source, list(steps)),
        _states(source, list(steps)),
    )
    used = dict.fromkeys(
        (
            *(symbol.terminal for symbol in automaton.symbols),
            *begins,
            *reserved.harmless,
            *(refusal.terminal for refusal in reserved.refusals),
            *(state.terminal for state in reserved.states),
        )
    )
    terminals = {name: _pattern(source, name) for name in used}
    comment = re.search(r"^//(.*)", source.texts[str(source.path)], re.MULTILINE)
    title = comment[1].strip() if comment else ""
    documented = tuple(_step(source, automaton, name, found) for name, found in steps.items())
    return Grammar(source.path, title, documented, terminals, reserved, automaton, term)


# --- the rules with a meaning of their own ----------------------------------------------------------


def _listed(source: GrammarSource, rule: str) -> tuple[str, ...]:
    """Return the terminals of an otherwise unused rule, () without it."""
    return tuple(dict.fromkeys(symbol.terminal for symbol in _symbols_of(source, rule)))


def _symbols_of(source: GrammarSource, rule: str) -> tuple[Symbol, ...]:
    if rule not in source.rules:
        return ()
    reader = _Reader(source)
    reader.rule(rule, _NO_CONTEXT)
    return tuple(reader.symbols.values())


def _attempt(source: GrammarSource, reader: _Reader, known: Sequence[str]) -> tuple[str, ...]:
    """Return the steps of the rule `attempt`, in documented order; () without it."""
    rule = next((name for name in source.rules if base_name(name) == _ATTEMPT), "")
    if not rule:
        return ()
    place = source.place(rule)
    if not reader.attempt:
        raise GrammarError(f"{place}: start does not reach attempt; use it in start, or rename it")
    reached = reader.steps_in(reader.rule(reader.attempt, _NO_CONTEXT))
    steps = tuple(name for name in known if name in reached)
    if not steps:
        raise GrammarError(f"{place}: attempt holds no step; write attempt: step_N …, where a host is asked")
    first = reader.steps[steps[0]].symbols
    legs = [leg for symbol in first for leg in legs_of(source.patterns[symbol.terminal])]
    if any(leg.callee == "*" for leg in legs):
        raise GrammarError(
            f"{place}: attempt begins with step {steps[0]}, whose callee is not known; write the callee of"
            " its terminal as text"
        )
    return steps


def _refusals(source: GrammarSource, known: Sequence[str]) -> tuple[Refusal, ...]:
    """Return the entries of the rule `refusals`, in the order in which they are tried; () without it."""
    found: dict[str, list[str]] = {}
    for symbol in _symbols_of(source, _REFUSALS):
        if symbol.role != "refused" or symbol.step is None:
            raise GrammarError(
                f"{source.place(_REFUSALS)}: refusals holds {symbol.terminal}, which names no step; write a"
                " rule for it, refused_N, and list that"
            )
        if symbol.step not in known:
            raise GrammarError(_no_such_step(source, f"refused_{symbol.step}", symbol.step, known))
        found.setdefault(symbol.terminal, []).append(symbol.step)
    return tuple(Refusal(name, tuple(sorted(steps, key=known.index))) for name, steps in found.items())


def _states(source: GrammarSource, known: Sequence[str]) -> tuple[State, ...]:
    """Return the entries of the rule `states`, in the order in which they stand; () without it."""
    found = []
    for symbol in _symbols_of(source, _STATES):
        if symbol.role not in (_BEGUN, _SHOWN) or symbol.step is None:
            raise GrammarError(
                f"{source.place(_STATES)}: states holds {symbol.terminal}, which names no step; write a rule"
                " for it, begun_N or shown_N, and list that"
            )
        if symbol.step not in known:
            raise GrammarError(_no_such_step(source, f"{symbol.role}_{symbol.step}", symbol.step, known))
        found.append(State(symbol.terminal, symbol.step, symbol.role == _SHOWN))
    return tuple(found)


def _no_such_step(source: GrammarSource, rule: str, step: str, known: Sequence[str]) -> str:
    return (
        f"{source.place(rule)}: {base_name(rule)} belongs to step {step}, which start does not reach;"
        f" known: {', '.join(known)}"
    )


# --- terminals and steps ----------------------------------------------------------------------------


def _pattern(source: GrammarSource, name: str) -> LinePattern:
    pattern = source.patterns[name]
    try:
        re.compile(pattern)
    except re.error as error:
        place = source.place(name)
        raise GrammarError(
            f"{place}: terminal {name} is not a regular expression: {error}; correct it"
        ) from None
    # A path comes from outside: one that is long would hold up the check for ever.
    endless = endless_part(pattern)
    if endless is not None:
        raise GrammarError(
            f"{source.place(name)}: terminal {name} may take forever on a long line: it has {endless};"
            " write one repetition, as in /a+b/ for /(a+)+b/, or narrower ones, as in /[^/]*/ for /.*/"
        )
    return LinePattern(pattern)


def _step(source: GrammarSource, automaton: Automaton, name: str, found: _Found) -> Step:
    own = [symbol for symbol in found.symbols if symbol.role == "step"]
    presence = "inferred" if found.inferred else "optional"
    if automaton.needs(symbol.id for symbol in own):
        presence = "required"
    places = list(source.definition(found.rule))
    path, line, _ = places[0] if places else (str(source.path), 1, "")
    remarks = (source.remark(path, number) for path, number, _ in places)
    title = next((comment for _, _, comment in places if comment), f"step {name}")
    terminals = tuple(dict.fromkeys(symbol.terminal for symbol in own))
    breaks = next(filter(None, remarks), "")
    return Step(name, title, presence, line, path, terminals, found.deadline_ns, breaks)
