"""The adapter to Lark: a grammar file and what it imports, as Lark reads them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lark.exceptions import LarkError
from lark.lexer import Token
from lark.load_grammar import load_grammar
from lark.tree import Tree

from tracer.errors import GrammarError, close_matches, reason
from tracer.grammar.files import EXTENSION, grammars_dir, shipped

__all__ = ["GrammarSource", "Rule", "base_name"]

_HINTS = {
    "not defined": "define it, import it, or correct the name",
    "defined more than once": "to replace it write %override, to add to it %extend",
    "Cannot override": "%import it first, or leave out %override",
    "an't extend": "%import it first, or leave out %extend",
    "Recursion in terminal": "a terminal is one pattern: write it out",
    "Wrong number of template arguments": "give as many as its definition names",
    "Symbol already defined": "import it once",
}
"""Part of Lark's message -> what to do."""
_REMARK = "//:"
"""Begins a comment above the rule of a step that says what usually breaks the step."""


class Rule(NamedTuple):
    """A rule or template as Lark reads it: its parameters, and its tree."""

    parameters: tuple[str, ...]
    tree: Tree[Any]


class GrammarSource:
    """A grammar file and what it imports, as Lark reads them. Only this class touches Lark's internals.

    `lark.load_grammar` is not a documented interface; we rely on 1.2 to 1.x, and a test checks the names of
    the nodes. Lark calls an imported name that was not imported by name `file__name`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.texts: dict[str, str] = {}
        """Path -> text, in order of reading."""
        self.rules: dict[str, Rule] = {}
        self.shown: dict[str, str] = {}
        """Lark's name of a terminal -> the name it has in reports."""
        self.patterns: dict[str, str] = {}
        """Terminal as shown -> regular expression."""

    def read(self) -> None:
        """Read the file and its imports into `rules` and `patterns`; raises GrammarError."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            what = reason(error) if isinstance(error, OSError) else "not UTF-8 text"
            raise GrammarError(
                f"{self.path}: cannot read this grammar: {what} (known by name: {', '.join(shipped())})"
            ) from None
        self.texts[str(self.path)] = text
        try:
            grammar, _ = load_grammar(text, str(self.path), [self.imported], True)  # type: ignore[no-untyped-call]
            for name, parameters, tree, _ in grammar.rule_defs:
                self.rules[str(name)] = Rule(tuple(map(str, parameters)), tree)
            self.refuse_literals()
            for _, (tree, _) in grammar.term_defs:
                group_choices(tree)
            # Terminals only: compiling rules, Lark writes out every alternative of (A | B)~20.
            grammar.rule_defs = []
            terminals, _, _ = grammar.compile([], "*")
        except (LarkError, OSError, AssertionError, RuntimeError) as error:
            raise GrammarError(self.explain(error)) from error
        self.name_terminals({str(terminal.name): terminal.pattern.to_regexp() for terminal in terminals})

    def name_terminals(self, patterns: Mapping[str, str]) -> None:
        """Name terminals without the prefix of an import, where the short name has one meaning only."""
        meanings: dict[str, set[str]] = {}
        for name, pattern in patterns.items():
            meanings.setdefault(base_name(name), set()).add(pattern)
        for name, pattern in patterns.items():
            self.shown[name] = base_name(name) if len(meanings[base_name(name)]) == 1 else name
            self.patterns[self.shown[name]] = pattern

    def imported(self, base: str | None, name: str) -> tuple[str, str]:
        """Return path and text of an imported file: beside the importing one, else a shipped one."""
        for folder in ([Path(base)] if base is not None else []) + [grammars_dir()]:
            path = folder / name
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                self.texts[str(path)] = text
                return str(path), text
        raise FileNotFoundError(2, "not found", name)

    def refuse_literals(self) -> None:
        """Raise GrammarError for a literal in a rule: reports name terminals, and a literal has no name."""
        for name, rule in self.rules.items():
            for node in rule.tree.find_pred(lambda node: node.data in ("literal", "range")):
                raise GrammarError(
                    f"{self.place(name)}: rule {base_name(name)} holds the literal {node.children[0]};"
                    " give it a name: a terminal in capitals, used here"
                )

    def definition(self, name: str) -> Iterator[tuple[str, int, str]]:
        """Yield (path, line, comment) of each definition of a rule or terminal, the nearest file first."""
        prefix, _, base = name.rpartition("__")
        pattern = re.compile(
            rf"^\s*(?:%(?:override|extend)\s+)?[?!]*_?{re.escape(base)}(?:\.-?\d+)?(?:\{{[^}}]*\}})?\s*:"
        )
        stem = prefix.rpartition("__")[2].lstrip("_")
        paths = sorted(self.texts, key=lambda path: bool(stem) and Path(path).stem != stem)
        for path in paths:
            for number, line in enumerate(self.texts[path].splitlines(), 1):
                if pattern.match(line):
                    yield path, number, line.partition("//")[2].strip()

    def remark(self, path: str, number: int) -> str:
        """Return the text of the lines `//: …` directly above line *number* of a file, joined; '' without."""
        found: list[str] = []
        for line in reversed(self.texts[path].splitlines()[: number - 1]):
            if not line.startswith(_REMARK):
                break
            found.insert(0, line.removeprefix(_REMARK).strip())
        return " ".join(found)

    def place(self, name: str) -> str:
        """Return `file:line` of a rule or terminal."""
        path, number, _ = next(self.definition(name), (str(self.path), 1, ""))
        return f"{path}:{number}"

    def explain(self, error: Exception) -> str:
        """Return Lark's error as one line: place, what, what to do."""
        if isinstance(error, FileNotFoundError):
            name = Path(str(error.filename)).stem
            known = self.importable()
            close = close_matches(name, known, 1)
            return (
                f"{self.mention(name, '%import')}: no grammar file {name}{EXTENSION} to import;"
                f" put it beside this file, or import a shipped one: {', '.join(known)}"
                + (f". Did you mean {close[0]}?" if close else "")
            )
        text = " ".join(str(error).split("\n")[0].split()) or type(error).__name__
        position = re.search(r",?\s*at line (\d+),? column (\d+)", text)
        return (
            self.explain_syntax(text[: position.start()], int(position[1]))
            if position
            else self.explain_name(text)
        )

    def explain_syntax(self, what: str, number: int) -> str:
        """Return the message of a syntax error in line *number* of the file that was read last."""
        path, content = list(self.texts.items())[-1]  # a file is parsed right after it is read
        lines = content.splitlines() or [""]
        what = re.sub(r"Unexpected token Token\('_NL.*", "unexpected end of the line", what)
        what = re.sub(r"Unexpected token Token\('\w+', '?(.*?)'?\)$", r"unexpected `\1`", what)
        line = lines[min(number, len(lines)) - 1].strip()
        hint = (
            "a template's argument is one name, so name the group"
            if "{" in line
            else "see grammars/README.md"
        )
        return f"{path}:{number}: {what} in `{line}`; {hint}"

    def explain_name(self, what: str) -> str:
        """Return the message of an error about a name: not defined, defined twice, recursive."""
        inside = re.search(r"\(in (?:rule|terminal) (\w+)\)", what)
        found = re.search(r"'(\w+)'", what) or re.search(r"(?:rule|terminal) (\w+)|: (\w+)$", what)
        name = next((group for group in found.groups() if group), "") if found else ""
        if name.isupper():
            what = what.replace("Rule '", "Terminal '")  # Lark's slip
        missed = self.missing_import(base_name(name)) if "not defined" in what else ""
        if missed:
            return missed
        what = re.sub(r"\b[a-z]\w*?__(?=\w)", "", what)  # Lark's prefixes of what was imported
        places = [f"{path}:{number}" for path, number, _ in self.definition(inside[1] if inside else name)]
        again = "more than once" in what and len(places) > 1
        place = places[again] if places else self.mention(name)
        hint = next((hint for words, hint in _HINTS.items() if words in what), "see grammars/README.md")
        if "not defined" in what:
            defined = set(re.findall(r"^[?!]*(\w+)", "\n".join(self.texts.values()), re.MULTILINE))
            close = close_matches(name, sorted(defined - {name}), 1)
            hint += f". Did you mean {close[0]}?" if close else ""
        return f"{place}: {what}; {hint}"

    def missing_import(self, name: str) -> str:
        """Return the message for a *name* that is imported from a file that does not define it, else ''."""
        for path, content in self.texts.items():
            for number, line in enumerate(content.splitlines(), 1):
                found = re.match(r"\s*%import\s+\.?([\w.]+?)(?:\.(\w+)\s*(?:->.*)?|\s*\((.*?)\).*)?$", line)
                listed = re.findall(r"\w+", found[2] or found[3] or "") if found else []
                if found is None or name not in listed:
                    continue
                stem = found[1].rpartition(".")[2]
                texts = [text for file, text in self.texts.items() if Path(file).stem == stem]
                defined = set(
                    re.findall(r"^(?:%override\s+|%extend\s+)?[?!]*(\w+)", "\n".join(texts), re.MULTILINE)
                )
                if texts and name not in defined:
                    close = close_matches(name, sorted(defined), 1)
                    hint = f". Did you mean {close[0]}?" if close else ""
                    return f"{path}:{number}: {stem}{EXTENSION} defines no {name}; correct the name{hint}"
        return ""

    def mention(self, word: str, *also: str) -> str:
        """Return `file:line` of the first line that holds *word* (and *also*), the file alone without one."""
        for path, content in self.texts.items():
            for number, line in enumerate(content.splitlines(), 1):
                if word and re.search(rf"\b{re.escape(word)}\b", line) and all(part in line for part in also):
                    return f"{path}:{number}"
        return str(self.path)

    def importable(self) -> list[str]:
        """Return the names of the shipped files that a grammar can import, vocabularies included."""
        return sorted(path.stem for path in grammars_dir().glob(f"*{EXTENSION}"))


def group_choices(tree: Tree[Any] | None) -> None:
    """Put each /a|b/ in a terminal into a group, in place.

    Lark joins the patterns of a terminal as text, so that "x" /a|b/ would mean "xa" or "b".
    """
    for node in tree.find_data("literal") if tree is not None else ():
        text = str(node.children[0])
        if text.startswith("/") and "|" in text and not text.startswith("/(?:"):
            pattern, slash, flags = text[1:].rpartition("/")
            node.children[0] = Token("REGEXP", f"/(?:{pattern}){slash}{flags}")


def base_name(name: str) -> str:
    """Return a name without Lark's prefix of the file it was imported from."""
    return name.rpartition("__")[2]
