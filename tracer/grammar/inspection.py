"""The findings of `tracer grammar check`: the size of a grammar, and what is valid but probably a mistake."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tracer.errors import close_matches
from tracer.grammar.files import grammars_dir
from tracer.grammar.grammar import Grammar
from tracer.grammar.lark_files import GrammarSource, base_name
from tracer.grammar.patterns import holds_text
from tracer.grammar.reading import RESERVED
from tracer.openstack.services import HOST_SERVICE

__all__ = ["Inspection", "inspect"]

_MEANINGFUL = ("interleave", "inferred", "optional", "noted_mode")


@dataclass(frozen=True, slots=True)
class Inspection:
    """Counts, and warnings of one line each."""

    files: int
    rules: int
    terminals: int
    steps: int
    states: int
    arcs: int
    warnings: tuple[str, ...]


def inspect(grammar: Grammar, source: GrammarSource, roles: Collection[str] = ()) -> Inspection:
    """Return the size of a grammar that loads, and warnings; *source* holds the files it was read from.

    *roles* are those that are known without a topology file.
    """
    machine = grammar.automaton
    warnings = [
        *_untitled(grammar),
        *_without_ends(grammar, source),
        *_unknown_roles(grammar, source, roles),
        *_unused(source),
        *_misspelt(source),
        *_without_refusals(grammar, source),
        *_never_refused(grammar, source),
        *_asking_no_host(grammar, source),
        *_plain(source),
    ]
    return Inspection(
        len(source.texts),
        len(source.rules),
        len(grammar.terminals),
        len(grammar.steps),
        len(machine.arcs),
        sum(map(len, machine.arcs)),
        tuple(warnings),
    )


def _untitled(grammar: Grammar) -> Iterator[str]:
    for step in grammar.steps:
        if step.title == f"step {step.name}":
            yield (
                f"{step.path}:{step.rule_line}: step {step.name} has no title; end the line with"
                " // what the document says"
            )


def _without_ends(grammar: Grammar, source: GrammarSource) -> Iterator[str]:
    """Warn of terminals without a known caller, callee or protocol: such a step can only be unobserved."""
    for step in grammar.steps:
        for name in step.terminals:
            if any("*" in (leg.caller, leg.callee, leg.protocol) for leg in grammar.terminal_legs(name)):
                yield (
                    f"{source.place(name)}: {name} does not name its caller and callee, so its step can only"
                    " be unobserved; write the roles as text, as in openstack.lark"
                )


def _unknown_roles(grammar: Grammar, source: GrammarSource, roles: Collection[str]) -> Iterator[str]:
    """Warn of callers and callees that no address has unless a topology file says so."""
    warned = {"*"}
    for step in grammar.steps:
        for name in step.terminals:
            for leg in grammar.terminal_legs(name):
                for role in (leg.caller, leg.callee):
                    if roles and role not in roles and role not in warned:
                        warned.add(role)
                        close = close_matches(role[:80], roles, n=1, cutoff=0.8)
                        meant = f"did you mean {close[0]}? Else " if close else ""
                        yield (
                            f"{source.place(name)}: {name} names {role!r}, a role that is not known; {meant}"
                            "give its addresses in [roles] of a topology file"
                        )


def _unused(source: GrammarSource) -> Iterator[str]:
    """Warn of names in the grammar's own file that nothing uses."""
    path = str(source.path)
    text = re.sub(r"//.*", "", source.texts[path])
    defined = re.compile(r"^(?:%(?:override|extend)\s+)?[?!]*(\w+)(?:\.\d+)?(?:\{[^}]*\})?\s*:", re.MULTILINE)
    for found in defined.finditer(text):
        name = found[1]
        uses = len(re.findall(rf"\b{re.escape(name)}\b", text))
        named = name in ("start", *RESERVED) or found[0].startswith("%")
        if uses < 2 and not named:
            line = text.count("\n", 0, found.start()) + 1
            yield f"{path}:{line}: {name} is defined and not used"


def _misspelt(source: GrammarSource) -> Iterator[str]:
    for name, rule in source.rules.items():
        base = base_name(name)
        known = base in _MEANINGFUL or base.startswith("within_")
        close = close_matches(base, _MEANINGFUL, 1, 0.8) if rule.parameters and not known else []
        if close:
            yield f"{source.place(name)}: the template {base} has no meaning here. Did you mean {close[0]}?"


def _without_refusals(grammar: Grammar, source: GrammarSource) -> Iterator[str]:
    """Warn when an imported file has a rule `refusals` that the importing file does not import."""
    path = str(source.path)
    rule = re.compile(r"^refusals\s*:", re.MULTILINE)
    beside = [other for other, text in source.texts.items() if other != path and rule.search(text)]
    if beside and not grammar.refusals:
        yield (
            f"{path}: start is imported from {Path(beside[0]).name} without its refusals, which name the step"
            " of a refused request; add refusals to the %import"
        )


def _never_refused(grammar: Grammar, source: GrammarSource) -> Iterator[str]:
    """Warn of terminals of `refusals` that match no line: theirs end with `: ` and the text of a fault."""
    for name in dict.fromkeys(refusal.terminal for refusal in grammar.refusals):
        if not holds_text(grammar.terminals[name].pattern, ": "):
            yield (
                f"{source.place(name)}: {name} in refusals never matches: such a line is that of the call,"
                ' ": ", and the text of its fault; end it with /: .*/'
            )


def _asking_no_host(grammar: Grammar, source: GrammarSource) -> Iterator[str]:
    """Warn of a rule `attempt` whose first step is no call to a host: then no attempt is ever found."""
    rule = next((name for name in source.rules if base_name(name) == "attempt"), None)
    first = grammar.attempt[:1] if rule is not None else ()
    for step in first:
        legs = grammar.legs(step)
        if not any(leg.callee == HOST_SERVICE and leg.protocol == "RPC" for leg in legs):
            asked = ", ".join(dict.fromkeys(leg.callee for leg in legs))
            yield (
                f"{source.place(rule or '')}: attempt begins with step {step}, which asks {asked} and no"
                f" host; begin it with the message to {HOST_SERVICE}, else no attempt is found"
            )


def _plain(source: GrammarSource) -> Iterator[str]:
    """Warn when plain Lark cannot read the file: then other tools cannot read it either."""
    from lark import Lark
    from lark.exceptions import LarkError

    folders = [str(source.path.resolve().parent), str(grammars_dir())]
    for parser in ("lalr", "earley"):
        try:
            Lark(
                source.texts[str(source.path)],
                parser=parser,
                import_paths=[*folders, source.imported],
                source_path=str(source.path),
            )
        except LarkError as error:
            said = " ".join(str(error).split())[:160]
            yield f"{source.path}: plain Lark's {parser.upper()} parser cannot be built from it: {said}"
