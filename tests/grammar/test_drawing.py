"""A grammar as a picture: the boxes and arrows that a person expects, in words that two languages take."""

from __future__ import annotations

import re
from pathlib import Path

import pydot
import pytest

from tracer.grammar import Grammar, load
from tracer.grammar.drawing import FORMATS, Again, Choice, Row, SideBySide, draw, flow_of
from tracer.grammar.files import shipped

VOCABULARY = 'begins: A\nA: "a"\nB: "b"\nC: "c"\nD: "d"\ninterleave{a, b}: a b | b a\n'
ODD = 'the "title" <script>alert(1)</script> #35; & `x` \\n [a]{b}|c| ;-->%% end'
BOX = re.compile(
    r'( {2}){1,2}\w+(\["[^"<>`#&]*(<br/>[^"<>`#&]*)*"\]|\(\["\w+"\]\)|\(\("\d+"\)\)|\(\(\("\d+"\)\)\))'
)
ARROW = re.compile(r' {2}\w+ (-->|-\.->)(\|"[^"<>`#&]*"\|)? \w+')


def written(folder: Path, text: str) -> Grammar:
    path = folder / "g.lark"
    path.write_text(text + VOCABULARY, encoding="utf-8")
    return load(path)


def parsed(text: str) -> pydot.Dot:
    graphs = pydot.graph_from_dot_data(text)
    assert graphs is not None
    (graph,) = graphs
    return graph


def arrows(text: str) -> dict[tuple[str, str], bool]:
    """Source and target -> whether the arrow is dashed, as pydot's parser reads it."""
    edges = parsed(text).get_edges()
    found = {(e.get_source(), e.get_destination()): e.get("style") == "dashed" for e in edges}
    assert len(found) == len(edges)
    return found


def test_the_creation_is_drawn_as_it_is_documented() -> None:
    """In a row, 4b beside 4c, 8a beside 8b, and back to 7 from what may fail there."""
    flow = flow_of(load("cloudvm_create"))
    assert flow.row == Row(
        (
            "1", "2", "3", "4a", SideBySide(("4b", "4c")), "4d", "4e", "5", "6", "7",
            SideBySide(("8a", "8b")), "8c",
        )
    )  # fmt: skip
    assert flow.again == (Again(("8a", "8b", "8c"), "7", ("RESCHEDULE",)),)


def test_the_arrows_of_the_creation() -> None:
    """Read back by a parser of DOT: every way from step to step, those back dashed."""
    found = arrows(draw(load("cloudvm_create"), "dot"))
    ahead = [
        "begin 1", "1 2", "2 3", "3 4a", "4a 4b", "4a 4c", "4b 4d", "4c 4d", "4d 4e", "4e 5", "5 6", "6 7",
        "7 8a", "7 8b", "8a 8c", "8b 8c", "8c end",
    ]  # fmt: skip
    back = ["8a 7", "8b 7", "8c 7"]
    names = {"begin": "begin", "end": "end_"}
    expected = {
        (names.get(a, f"step_{a}"), names.get(b, f"step_{b}")): dashed
        for pairs, dashed in ((ahead, False), (back, True))
        for a, b in (pair.split() for pair in pairs)
    }
    assert found == expected


FLOWS = [
    ("start: step_1 step_2\nstep_1: A B*\nstep_2: C\n", Row(("1", "2")), ()),
    ("start: step_1 [step_2 | step_3]\nstep_1: A\nstep_2: B\nstep_3: C\n",
     Row(("1", Choice(("2", "3")))), ()),
    ("start: (step_1 step_2)+ step_3\nstep_1: A\nstep_2: B\nstep_3: C\n", Row(("1", "2", "3")),
     (Again(("2",), "1", ()),)),
    ("start: interleave{two, step_3}\ntwo: step_1 step_2\nstep_1: A\nstep_2: B\nstep_3: C\n",
     SideBySide((Row(("1", "2")), "3")), ()),
    ("start: step_1 [interleave{step_2, step_3} | step_2 | step_3]\nstep_1: A\nstep_2: B\nstep_3: C\n",
     Row(("1", SideBySide(("2", "3")))), ()),
    ("start: step_1 D step_2\nstep_1: A\nstep_2: B\n", Row(("1", "2")), ()),
    ("start: step_1\nstep_1: A | B\n", "1", ()),
]  # fmt: skip


@pytest.mark.parametrize("text, row, again", FLOWS)
def test_what_rules_look_like(text: str, row: object, again: object, tmp_path: Path) -> None:
    """Rules that combine are seen through; calls within a step, and of no step, are left out."""
    flow = flow_of(written(tmp_path, text))
    assert (flow.row, flow.again) == (row, again)


@pytest.mark.parametrize("name", shipped())
@pytest.mark.parametrize("automaton", [False, True])
def test_every_shipped_grammar_is_drawn(name: str, automaton: bool) -> None:
    """DOT parses, with a box for each step or state; each line of Mermaid is a box, an arrow or a frame."""
    grammar = load(name)
    graph = parsed(draw(grammar, "dot", automaton=automaton))
    inner = [node for sub in graph.get_subgraphs() for node in sub.get_nodes()]
    boxes = {n.get_name() for n in [*graph.get_nodes(), *inner]} - {"node", "edge", "begin", "end_"}
    states = range(len(grammar.automaton.arcs))
    assert boxes == ({f"q{n}" for n in states} if automaton else {f"step_{s.name}" for s in grammar.steps})
    if automaton:
        assert {(int(a[1:]), int(b[1:])) for a, b in arrows(draw(grammar, "dot", automaton=True))} == {
            (state, target) for state in states for target in grammar.automaton.arcs[state].values()
        }
    assert well_formed(draw(grammar, "mermaid", automaton=automaton)) >= len(boxes)


def well_formed(text: str) -> int:
    """How many boxes a Mermaid text has; each of its lines must be of a known form."""
    lines = text.splitlines()
    assert lines[0] == lines[2] == "---"
    assert re.fullmatch(r'title: "[^"\\]*"', lines[1])
    assert lines[3] in ("flowchart TD", "flowchart LR")
    frames = 0
    boxes = 0
    for line in lines[4:]:
        if re.fullmatch(r'  subgraph side_\d+ \["[\w ]+"\]', line):
            frames += 1
        elif line == "  end":
            frames -= 1
        elif line.startswith(("  classDef maybe ", "  class step_")):
            continue
        elif BOX.fullmatch(line):
            boxes += 1
        else:
            assert ARROW.fullmatch(line), line
    assert frames == 0
    return boxes


@pytest.mark.parametrize("form", FORMATS)
def test_hostile_words_stay_words(form: str, tmp_path: Path) -> None:
    """A title may hold anything: it ends no string, opens no tag, and adds no box."""
    text = f"// {ODD}\nstart: step_1 step_2\nstep_1: A // {ODD}\nstep_2: B // {ODD}\n"
    drawn = draw(written(tmp_path, text), form)
    if form == "mermaid":
        assert well_formed(drawn) == 4
        assert "<script" not in drawn
    else:
        assert set(arrows(drawn)) == {("begin", "step_1"), ("step_1", "step_2"), ("step_2", "end_")}


def test_what_is_said_of_a_step(tmp_path: Path) -> None:
    """Name, title, who calls whom, whether it may be absent, its deadline."""
    text = (
        "start: step_1 step_2\nstep_1: within_90s{E} // ask\nstep_2: B* // tell\nwithin_90s{x}: x\n"
        'E: "Internal_base RPC nova-api > " /(nova-compute|nova-conductor)/ " cast x ok"\n'
    )
    drawn = draw(written(tmp_path, text), "mermaid")
    assert '["1  ask<br/>RPC nova-api → nova-compute, nova-conductor<br/>within 90 s"]' in drawn
    assert re.search(r"2  tell<br/>.*<br/>optional", drawn)
    assert "  class step_2 maybe" in drawn
