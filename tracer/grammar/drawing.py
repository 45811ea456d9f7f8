"""Draws a grammar as Mermaid or DOT: its steps, or its automaton.

A box is a step, with protocol, caller and callees; a dashed box is a step that is not required. Boxes in one
frame run side by side. A dashed arrow is a repetition.

The steps are drawn from the rules: an automaton has a state for each order in which steps side by side can
come. Calls within a step are left out. A repetition of steps that are drawn already is one arrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tracer.grammar.automaton import Alt, Rep, Seq, Shuffle, Sym, Term, symbols_in
from tracer.grammar.grammar import Grammar, Step

__all__ = ["FORMATS", "Again", "Choice", "Flow", "Part", "Row", "SideBySide", "draw", "flow_of"]


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
    """A repetition: from any step of `since` back to `to`, by the terminals `by`."""

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
        """Return the alternatives, without those whose steps are all in another one."""
        sets = {id(term): set(self._steps(term)) for term in terms}
        kept: list[Part] = []
        for term in terms:
            steps = sets[id(term)]
            if not steps or any(steps < other for other in sets.values()):
                continue
            part = self.part(term)
            if part is not None and part not in kept:
                kept.append(part)
        return Choice(tuple(kept)) if len(kept) > 1 else (kept[0] if kept else None)

    def loop(self, term: Term, steps: list[str]) -> Part | None:
        """Record the repetition; return its steps only when they are drawn nowhere else."""
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


# --- Mermaid and DOT ----------------------------------------------------------------------------


FORMATS = ("mermaid", "dot")


@dataclass(slots=True)
class _Box:
    name: str
    lines: tuple[str, ...]
    shape: str = "box"
    """box · round (begin and end) · circle (a state) · ring (a state where it may end)"""
    dashed: bool = False


@dataclass(slots=True)
class _Arrow:
    source: str
    target: str
    label: str = ""
    dashed: bool = False


@dataclass(slots=True)
class _Frame:
    title: str
    boxes: list[_Box] = field(default_factory=list)


@dataclass(slots=True)
class _Picture:
    """Boxes, some of them in frames, and arrows."""

    title: str
    boxes: list[_Box] = field(default_factory=list)
    frames: list[_Frame] = field(default_factory=list)
    arrows: list[_Arrow] = field(default_factory=list)
    sideways: bool = False


def draw(grammar: Grammar, form: str, *, automaton: bool = False) -> str:
    """Return *grammar* as text of the *form* `mermaid` or `dot`: its steps, or its *automaton*."""
    picture = _of_states(grammar) if automaton else _of_steps(grammar, flow_of(grammar))
    return _mermaid(picture) if form == "mermaid" else _dot(picture)


# --- the picture ----------------------------------------------------------------------------------


def _of_steps(grammar: Grammar, flow: Flow) -> _Picture:
    picture = _Picture(grammar.title or grammar.name)
    steps = {step.name: step for step in grammar.steps}
    picture.boxes.append(_Box("begin", ("begin",), "round"))
    ends = _place(picture, grammar, steps, flow.row, ["begin"], None)
    picture.boxes.append(_Box("end_", ("end",), "round"))
    picture.arrows += [_Arrow(end, "end_") for end in ends]
    for again in flow.again:
        label = "again" + (f": {', '.join(again.by)}" if again.by else "")
        picture.arrows += [_Arrow(_id(since), _id(again.to), label, True) for since in again.since]
    return picture


def _place(
    picture: _Picture,
    grammar: Grammar,
    steps: dict[str, Step],
    part: Part,
    before: list[str],
    frame: _Frame | None,
) -> list[str]:
    """Draw *part* after the boxes *before*; return the boxes with which it ends."""
    match part:
        case Row(parts):
            for inner in parts:
                before = _place(picture, grammar, steps, inner, before, frame)
            return before
        case SideBySide(parts) | Choice(parts):
            inside = frame
            if isinstance(part, SideBySide) and frame is None:
                inside = _Frame("side by side")
                picture.frames.append(inside)
            ends = [_place(picture, grammar, steps, inner, before, inside) for inner in parts]
            return [end for lane in ends for end in lane]
        case str():
            box = _Box(_id(part), _words(grammar, steps[part]), dashed=steps[part].presence != "required")
            (picture.boxes if frame is None else frame.boxes).append(box)
            picture.arrows += [_Arrow(source, box.name) for source in before]
            return [box.name]


def _words(grammar: Grammar, step: Step) -> tuple[str, ...]:
    """Return the lines of a step's box: name and title, callers and callees, presence and deadline."""
    ends: dict[str, list[str]] = {}
    for leg in grammar.legs(step.name):
        callees = ends.setdefault(f"{leg.protocol} {leg.caller} → ", [])
        if leg.callee not in callees:
            callees.append(leg.callee)
    special = [step.presence] if step.presence != "required" else []
    if step.deadline_ns is not None:
        special.append(f"within {step.deadline_ns / 1e9:g} s")
    lines = [f"{step.name}  {step.title}", *(end + ", ".join(callees[:4]) for end, callees in ends.items())]
    return (*lines, *([", ".join(special)] if special else []))


def _id(step: str) -> str:
    return "step_" + re.sub(r"\W", "_", step)


def _of_states(grammar: Grammar) -> _Picture:
    machine = grammar.automaton
    picture = _Picture(grammar.title or grammar.name, sideways=True)
    for state, out in enumerate(machine.arcs):
        shape = "ring" if state in machine.accepting else "circle"
        picture.boxes.append(_Box(f"q{state}", (str(state),), shape))
        labels: dict[int, list[str]] = {}
        for symbol, target in out.items():
            known = machine.symbols[symbol]
            labels.setdefault(target, []).append(f"{known.step or ''} {known.terminal}".strip())
        for target, words in labels.items():
            picture.arrows.append(_Arrow(f"q{state}", f"q{target}", ", ".join(dict.fromkeys(words))))
    return picture


# --- Mermaid --------------------------------------------------------------------------------------

_MERMAID_SHAPES = {"box": '["{}"]', "round": '(["{}"])', "circle": '(("{}"))', "ring": '((("{}")))'}


def _mermaid(picture: _Picture) -> str:
    lines = ["---", f'title: "{_mermaid_text(picture.title)}"', "---"]
    lines.append(f"flowchart {'LR' if picture.sideways else 'TD'}")
    lines += [f"  {_mermaid_box(box)}" for box in picture.boxes]
    for number, frame in enumerate(picture.frames, 1):
        lines.append(f'  subgraph side_{number} ["{_mermaid_text(frame.title)}"]')
        lines += [f"    {_mermaid_box(box)}" for box in frame.boxes]
        lines.append("  end")
    for arrow in picture.arrows:
        line = "-.->" if arrow.dashed else "-->"
        label = f'|"{_mermaid_text(arrow.label)}"|' if arrow.label else ""
        lines.append(f"  {arrow.source} {line}{label} {arrow.target}")
    dashed = [box.name for box in _boxes(picture) if box.dashed]
    if dashed:
        lines.append("  classDef maybe stroke-dasharray: 5 4")
        lines.append(f"  class {','.join(dashed)} maybe")
    return "\n".join(lines) + "\n"


def _mermaid_box(box: _Box) -> str:
    text = "<br/>".join(_mermaid_text(line) for line in box.lines)
    return box.name + _MERMAID_SHAPES[box.shape].format(text)


_LOOKS_LIKE = str.maketrans({'"': "'", "`": "'", "<": "‹", ">": "›", "#": "♯", "&": "＆", "\\": "∖"})


def _mermaid_text(text: str) -> str:
    """Return *text* with look-alikes in place of Mermaid's syntax characters.

    Escapes are no solution: Mermaid breaks lines within them (#59;) and then shows their parts.
    """
    return "".join(c for c in text.translate(_LOOKS_LIKE) if c.isprintable())


# --- DOT ------------------------------------------------------------------------------------------

_DOT_SHAPES = {"box": "box", "round": "ellipse", "circle": "circle", "ring": "doublecircle"}


def _dot(picture: _Picture) -> str:
    lines = ["digraph grammar {", f"  label={_quoted(picture.title)}; labelloc=t;"]
    lines.append(
        f"  rankdir={'LR' if picture.sideways else 'TB'}; node [fontname=sans]; edge [fontname=sans];"
    )
    lines += [f"  {_dot_box(box)}" for box in picture.boxes]
    for number, frame in enumerate(picture.frames, 1):
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(f"    label={_quoted(frame.title)}; fontname=sans;")
        lines += [f"    {_dot_box(box)}" for box in frame.boxes]
        lines.append("  }")
    for arrow in picture.arrows:
        how = [f"label={_quoted(arrow.label)}"] if arrow.label else []
        how += ["style=dashed", "constraint=false"] if arrow.dashed else []
        lines.append(f"  {arrow.source} -> {arrow.target}{' [' + ', '.join(how) + ']' if how else ''};")
    return "\n".join([*lines, "}"]) + "\n"


def _dot_box(box: _Box) -> str:
    style = ", style=dashed" if box.dashed else ""
    label = "\\n".join(_escaped(line) for line in box.lines)
    return f'{box.name} [shape={_DOT_SHAPES[box.shape]}, label="{label}"{style}];'


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return "".join(c for c in text.replace("\\", "\\\\").replace('"', '\\"') if c.isprintable())


def _boxes(picture: _Picture) -> Iterator[_Box]:
    yield from picture.boxes
    for frame in picture.frames:
        yield from frame.boxes
