"""What `tracer grammar check` finds: the size of a grammar, and what is valid but hardly meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from tracer.grammar.files import grammars_dir
from tracer.grammar.grammar import Grammar
from tracer.grammar.lark_files import GrammarSource, base_name
from tracer.grammar.reading import RESERVED

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


def inspect(grammar: Grammar, source: GrammarSource) -> Inspection:
    """Return what there is to say of a grammar that loads, with the files it was read from."""
    machine = grammar.automaton
    warnings = [
        *_untitled(grammar),
        *_blind(grammar, source),
        *_unused(source),
        *_misspelt(source),
        *_without_refusals(grammar, source),
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


def _blind(grammar: Grammar, source: GrammarSource) -> Iterator[str]:
    """A step of which nobody knows who calls whom can only be unobserved."""
    for step in grammar.steps:
        for name in step.terminals:
            if any("*" in (leg.caller, leg.callee, leg.protocol) for leg in grammar.terminal_legs(name)):
                yield (
                    f"{source.place(name)}: {name} does not name its caller and callee, so its step can only"
                    " be unobserved; write the roles as text, as in openstack.lark"
                )


def _unused(source: GrammarSource) -> Iterator[str]:
    """Names of the grammar's own file that nothing uses."""
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
        close = get_close_matches(base, _MEANINGFUL, 1, 0.8) if rule.parameters and not known else []
        if close:
            yield (
                f"{source.place(name)}: the template {base} has no meaning here. Did you mean {close[0]}?"
            )


def _without_refusals(grammar: Grammar, source: GrammarSource) -> Iterator[str]:
    """What was imported may say which step a refusal belongs to, and the importing file leaves it out."""
    path = str(source.path)
    rule = re.compile(r"^refusals\s*:", re.MULTILINE)
    beside = [other for other, text in source.texts.items() if other != path and rule.search(text)]
    if beside and not grammar.refusals:
        yield (
            f"{path}: start is imported from {Path(beside[0]).name} without its refusals, which name the step"
            " of a refused request; add refusals to the %import"
        )


def _plain(source: GrammarSource) -> Iterator[str]:
    """Plain Lark should be able to read it: then other tools can, too."""
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
