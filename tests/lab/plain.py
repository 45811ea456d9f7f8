"""Plain Lark as a reader of our grammars: what it makes of a file, and of a trace's lines."""

from __future__ import annotations

import functools
from pathlib import Path

from lark import Lark, Token, Tree

from tracer.grammar.grammar import Grammar


@functools.cache
def reader(path: Path, parser: str) -> Lark:
    return Lark.open(str(path), parser=parser)


def tokens(grammar: Grammar, parser: str, lines: list[str]) -> list[str]:
    """The lines as plain Lark found them in the trace, one token each; LarkError for what it refuses."""
    tree = reader(grammar.path, parser).parse("\n".join(lines))
    assert isinstance(tree, Tree)
    return [str(token) for token in tree.scan_values(lambda value: isinstance(value, Token))]


def rules(grammar: Grammar, parser: str) -> set[str]:
    """The names of the rules that plain Lark reaches from start."""
    return {str(rule.origin.name) for rule in reader(grammar.path, parser).rules}
