"""Lark files become steps, patterns and an automaton; mistakes become one clear line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.plain import rules
from lark.load_grammar import load_grammar

from tracer.errors import GrammarError
from tracer.grammar import Grammar, load
from tracer.grammar.automaton import MOST_STATES
from tracer.grammar.files import find, grammars_dir, shipped
from tracer.grammar.inspection import inspect
from tracer.grammar.patterns import Leg, legs_of
from tracer.grammar.reading import read
from tracer.openstack.services import ROLES

WORDS = """
begins: A
A: "Internal_base REST lb > nova-api POST /a 202"
B: "Internal_base REST nova-api > keystone GET /b " /2\\d\\d|\\?/
C: "Internal_base RPC nova-api > nova-conductor cast c " /ok|undelivered|\\?/
D: "Internal_base SQL nova-api > db INSERT d ok"
interleave{a, b}: a b | b a
inferred{x}: x*
optional{x}: x*
noted_mode{x}: x
within_60s{x}: x
"""
A = "Internal_base REST lb > nova-api POST /a 202"
B = "Internal_base REST nova-api > keystone GET /b 200"
C = "Internal_base RPC nova-api > nova-conductor cast c ok"
D = "Internal_base SQL nova-api > db INSERT d ok"

Write = Callable[..., Grammar]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Load a grammar from its text, with other files beside it; messages name it g.lark."""
    monkeypatch.chdir(tmp_path)

    def write(text: str, most_states: int = MOST_STATES, **beside: str) -> Grammar:
        for name, content in beside.items():
            Path(f"{name}.lark").write_text(content, encoding="utf-8")
        Path("g.lark").write_text(text, encoding="utf-8")
        return load("g.lark", most_states)

    return write


def accepts(grammar: Grammar, lines: str) -> bool:
    """Whether a word of terminals, A B C, is accepted; each must have one meaning."""
    named = {symbol.terminal: symbol.id for symbol in grammar.automaton.symbols}
    return grammar.automaton.accepts(named[name] for name in lines.split())


# --- what Lark gives us ---------------------------------------------------------------------------


def test_larks_reader_keeps_rules_as_written() -> None:
    """The node names of lark.load_grammar, which is no documented interface, are those we read."""
    text = 'start: a [B] (B | C)* B~2 B~2..4 t{B} -> name\n     | C\na: B?\nt{x}: x "lit"\nB: "b"\nC: /c/\n'
    grammar, _ = load_grammar(text, "x.lark", [], True)
    names, parameters, trees, _ = zip(*grammar.rule_defs, strict=True)
    assert ([str(name) for name in names], parameters) == (["start", "a", "t"], ((), (), ("x",)))
    assert {node.data for tree in trees for node in tree.iter_subtrees()} == {
        "expansions", "expansion", "alias", "expr", "maybe", "value", "template_usage", "literal",
    }  # fmt: skip
    marks = [[str(mark) for mark in node.children[1:]] for node in trees[0].find_data("expr")]
    assert sorted(marks) == [["*"], ["~", "2"], ["~", "2", "4"]]


# --- rules ----------------------------------------------------------------------------------------

RULES = [
    ("step_1: A B", "A B", ["A", "B", "B A", ""]),
    ("step_1: A | B", "A", ["A B", ""]),
    ("step_1: A [B]", "A", ["B", "A B B"]),
    ("step_1: A B?", "A B", ["A B B"]),
    ("step_1: A+", "A A A", [""]),
    ("step_1: A B*", "A B B B", ["B"]),
    ("step_1: A~2", "A A", ["A", "A A A"]),
    ("step_1: A~2..3 B", "A A A B", ["A B", "A A A A B"]),
    ("step_1: (A B)~2", "A B A B", ["A B"]),
    ("step_1: A -> first\n  | B -> second", "B", ["A B"]),
    ("step_1: interleave{A, B}", "B A", ["A", "A B A"]),
    ("step_1: interleave{l, C}\nl: A B", "A C B", ["B A C", "A B"]),
    ("step_1: interleave{A, interleave{B, C}}", "B A C", ["A B"]),
    ("step_1: A inferred{B} C", "A C", ["A B"]),
    ("step_1: pair{A, B}\npair{x, y}: x y y", "A B B", ["A B"]),
    ("step_1: twice{interleave{A, B}}\ntwice{x}: x x", "A B B A", ["A B"]),
]


@pytest.mark.parametrize("rules, accepted, refused", RULES)
def test_rules_mean_what_lark_says(written: Write, rules: str, accepted: str, refused: list[str]) -> None:
    """Lark's operators and templates keep their meaning, but for interleave, a true shuffle."""
    grammar = written(f"start: step_1 D*\n{rules}\n{WORDS}")
    assert accepts(grammar, accepted)
    assert not any(accepts(grammar, word) for word in refused)


STEPS = """// Making a thing
start: step_2 interleave{step_10a, step_10b} [step_3]
step_10a: optional{B}      // look the thing up
step_10b: C+               // order the thing
// more about it
step_2: inferred{A}
step_3: within_60s{D}      // write it down
"""


def test_steps_come_in_documented_order_with_title_presence_and_line(written: Write) -> None:
    """Steps are in the order in which start reaches them; the comment on the rule's line is the title."""
    grammar = written(STEPS + WORDS)
    assert (grammar.name, grammar.title, grammar.begins) == ("g", "Making a thing", ("A",))
    facts = [(s.name, s.title, s.presence, s.rule_line, s.terminals) for s in grammar.steps]
    assert facts == [
        ("2", "step 2", "inferred", 6, ("A",)),
        ("10a", "look the thing up", "optional", 3, ("B",)),
        ("10b", "order the thing", "required", 4, ("C",)),
        ("3", "write it down", "optional", 7, ("D",)),
    ]
    assert [s.deadline_ns for s in grammar.steps] == [None, None, None, 60 * 10**9]
    assert {s.path for s in grammar.steps} == {"g.lark"}


def test_one_terminal_can_witness_two_steps(written: Write) -> None:
    """A line then has two symbols, one for each step."""
    grammar = written("start: step_1 step_2\nstep_1: A\nstep_2: A B\n" + WORDS)
    assert [(s.terminal, s.step) for s in grammar.symbols(A)] == [("A", "1"), ("A", "2")]


def test_rules_of_a_failed_attempt_belong_to_the_step_but_do_not_witness_it(written: Write) -> None:
    """tried_N and refused_N give symbols of step N with another role; other rules give none of a step."""
    grammar = written(
        "start: (D refused_1 tried_1)* step_1\nstep_1: A B?\nrefused_1: C\ntried_1: noted_mode{B}\n" + WORDS
    )
    assert {(s.terminal, s.step, s.role, s.note) for s in grammar.automaton.symbols} == {
        ("D", None, "other", ""),
        ("C", "1", "refused", ""),
        ("B", "1", "tried", "mode"),
        ("A", "1", "step", ""),
        ("B", "1", "step", ""),
    }
    assert grammar.step("1").terminals == ("A", "B")


# --- lines ----------------------------------------------------------------------------------------

LINES = """
start: step_1 step_2 step_3 step_4 step_5
step_1: POST_IT
step_2: GET_IT
step_3: CAST
step_4: STORE
step_5: ASK | TELL
begins: POST_IT
harmless: FORBIDDEN
POST_IT: "External_api REST sc > lb POST /v2.1/servers " /202|\\?/
GET_IT: "Internal_base REST nova-api > " /(keystone|glance-api) GET \\/\\S+/ " 200"
CAST: "Internal_base RPC nova-api > nova-conductor cast build " /ok|undelivered/
STORE: "Internal_base SQL nova-api > db INSERT instances ok"
ASK: /\\S+ REST nova-compute > vrm POST \\S+ 202/
TELL: "Internal_base RPC nova-compute > neutron-server cast port ok"
FORBIDDEN: "Internal_base REST nova-api > keystone GET /tokens 401"
"""

NEAR = [
    # line, terminals it fits, terminals it nearly fits, and how
    ("External_api REST sc > lb POST /v2.1/servers 202", "POST_IT", ""),
    ("External_api REST sc > lb POST /v2.1/servers ?", "POST_IT", ""),
    ("? REST sc > lb POST /v2.1/servers 202", "POST_IT", ""),
    ("External_api REST sc > lb POST /v2.1/servers 503", "", "POST_IT failed"),
    ("External_api REST sc > lb POST /v2.1/servers none", "", "POST_IT failed"),
    ("External_api REST sc > lb CONNECT :8774 refused", "", "POST_IT failed"),
    ("Internal_base REST sc > lb POST /v2.1/servers 202", "", "POST_IT plane"),
    ("External_api REST sc > lb POST /v2.1/servers/x 202", "", ""),
    ("External_api REST sc > nova-api POST /v2.1/servers 202", "", ""),
    ("Internal_base REST nova-api > glance-api CONNECT :9292 none", "", "GET_IT failed"),
    ("Internal_base REST nova-api > keystone GET /tokens 404", "", "GET_IT failed"),
    ("Internal_base REST nova-api > keystone GET /tokens 401", "", ""),
    ("Internal_base REST nova-api > keystone GET /tokens ?", "", ""),
    ("Internal_base RPC nova-api > nova-conductor cast build undelivered", "CAST", ""),
    ("Internal_base RPC nova-api > nova-conductor cast build unroutable", "", "CAST failed"),
    ("Internal_base RPC nova-api > rabbitmq CONNECT :5672 refused", "", "CAST failed"),
    ("Internal_base REST nova-api > nova-conductor POST /build 202", "", "CAST mode"),
    ("Internal_base REST nova-api > nova-conductor GET /build 200", "", ""),
    ("Internal_base REST nova-api > nova-conductor POST /build 500", "", ""),
    ("Internal_base SQL nova-api > db INSERT instances error", "", "STORE failed"),
    ("Internal_base SQL nova-api > db CONNECT :3306 refused", "", "STORE failed"),
    ("Anywhere REST nova-compute > vrm POST /vms 202", "ASK", ""),
    ("Internal_base REST nova-compute > neutron-server POST /ports 201", "", "TELL mode"),
    ("Internal_base RPC nova-compute > vrm call start ok", "", "ASK mode"),
    ("Internal_base RPC nova-compute > vrm reply start ok", "", ""),
    ("Internal_base REST nova-compute > placement PUT /x 204", "", ""),
    ("short line", "", ""),
]


@pytest.mark.parametrize("line, fits, nearly", NEAR)
def test_lines_and_near_misses(written: Write, line: str, fits: str, nearly: str) -> None:
    """A line fits a terminal, or would with another result, plane or protocol, or is none of ours."""
    grammar = written(LINES)
    assert " ".join(symbol.terminal for symbol in grammar.symbols(line)) == fits
    near = grammar.near(line)
    assert " ".join(f"{symbol.terminal} {kind}" for symbol, kind in near) == nearly
    candidates = grammar.candidates(line)
    assert [c.symbol for c in candidates] == [s.id for s in grammar.symbols(line)] + [s.id for s, _ in near]
    assert all((c.cost == 0) == (c.kind == "sync") for c in candidates)


def test_a_trace_begins_with_any_result(written: Write) -> None:
    """A refused request begins a trace as well."""
    grammar = written(LINES)
    assert grammar.starts("External_api REST sc > lb POST /v2.1/servers 202")
    assert grammar.starts("External_api REST sc > lb POST /v2.1/servers 403")
    assert not grammar.starts("Internal_base SQL nova-api > db INSERT instances ok")


def test_a_choice_in_a_pattern_is_a_group(written: Write) -> None:
    """Lark joins patterns as text, "x" /a|b/ to "xa" or "b"; tracer takes them as they look."""
    grammar = written('start: step_1\nstep_1: A\nA: "x " OK\nOK: /2\\d\\d|ok/\nbegins: A\n')
    assert [bool(grammar.symbols(line)) for line in ("x 200", "x ok", "ok", "x ")] == [
        True,
        True,
        False,
        False,
    ]


LEGS = [
    ("P REST a > b GET /x 200", {("P", "REST", "a", "b")}),
    ("(?:P|Q) REST a > (b|c-d) .*", {(p, "REST", "a", c) for p in "PQ" for c in ("b", "c-d")}),
    (r"\S+ RPC a > b cast x", {("*", "RPC", "a", "b")}),
    (r"P\ REST\ nova\-api\ >\ (?:keystone GET x|glance PUT y)", {
        ("P", "REST", "nova-api", "keystone"), ("P", "REST", "nova-api", "glance")}),
    ("P RES?T a > [bc] GET", {("P", r, "a", c) for r in ("REST", "RET") for c in "bc"}),
    ("P REST nova-.* > b GET", {("P", "REST", "*", "b")}),
    (".*", {("*", "*", "*", "*")}),
    ("(a|b|c|d|e|f|g)" * 4, {("*", "*", "*", "*")}),
]  # fmt: skip


@pytest.mark.parametrize("pattern, legs", LEGS)
def test_legs_of_a_pattern(pattern: str, legs: set[tuple[str, ...]]) -> None:
    """Plane, protocol, caller and callee are read from the pattern; what is no plain text is `*`."""
    assert set(legs_of(pattern)) == {Leg(*leg) for leg in legs}


def test_legs_of_a_step(written: Write) -> None:
    """A step has the legs of all its terminals."""
    assert written(LINES).legs("5") == (
        Leg("*", "REST", "nova-compute", "vrm"),
        Leg("Internal_base", "RPC", "nova-compute", "neutron-server"),
    )


# --- files ----------------------------------------------------------------------------------------


def test_imports_from_beside_the_grammar_and_from_the_shipped_ones(written: Write) -> None:
    """A file beside the grammar comes first; a shipped vocabulary needs no path."""
    grammar = written(
        "%import .mine (A)\n%import .openstack (RECORD)\n"
        "start: step_1 step_2\nstep_1: A\nstep_2: RECORD\nbegins: A\n",
        mine='A: "mine"\n',
    )
    assert [symbol.terminal for symbol in grammar.symbols("mine")] == ["A"]
    assert [s.terminal for s in grammar.symbols("Internal_base SQL nova-api > db INSERT instances ok")] == [
        "RECORD"
    ]
    own = written("%import .openstack (A)\nstart: step_1\nstep_1: A\nbegins: A\n", openstack='A: "own"\n')
    assert own.symbols("own")


def test_overriding_a_terminal_keeps_the_steps(written: Write) -> None:
    """Another vendor's VRM: the shipped steps, titles and lines, with one terminal replaced."""
    grammar = written(
        "// Another VRM\n%import .cloudvm_create (start, begins, harmless, VM_CREATE)\n"
        '%override VM_CREATE: "Internal_base REST nova-compute > vrm PUT /machines 201"\n'
    )
    base = load("cloudvm_create")
    assert [(s.name, s.title, s.rule_line) for s in grammar.steps] == [
        (s.name, s.title, s.rule_line) for s in base.steps
    ]
    assert grammar.title == "Another VRM"
    assert {s.step for s in grammar.symbols("Internal_base REST nova-compute > vrm PUT /machines 201")} == {
        "8c"
    }
    assert not grammar.symbols("Internal_base REST nova-compute > vrm POST /service/sites/{id}/vms 202")
    assert not any("__" in name for name in grammar.terminals)


def test_overriding_and_extending_a_step(written: Write) -> None:
    """A step keeps its title when it is extended, and takes a new one when it is overridden."""
    grammar = written(
        "%import .base (start, begins, step_1, step_2, A)\n%override step_1: A A // twice\n"
        'E: "e"\n%extend step_2: E\n',
        base="start: step_1 step_2\nstep_1: A // once\nstep_2: B // then\n" + WORDS,
    )
    assert [(s.title, Path(s.path).name, s.rule_line) for s in grammar.steps] == [
        ("twice", "g.lark", 2), ("then", "g.lark", 4)]  # fmt: skip
    assert [symbol.terminal for symbol in grammar.symbols("e")] == ["E"]


def test_terminals_of_one_name_and_two_meanings_are_told_apart(written: Write) -> None:
    """A terminal hidden in an imported rule keeps Lark's prefix when another has its name."""
    grammar = written(
        '%import .base (start, begins, step_1)\nA: "other"\n%override step_1: A\n',
        base="start: step_1 step_2\nstep_1: A\nstep_2: A\n" + WORDS,
    )
    assert [symbol.terminal for symbol in grammar.symbols("other")] == ["A"]
    assert [symbol.terminal for symbol in grammar.symbols(A)] == ["base__A"]


# --- mistakes -------------------------------------------------------------------------------------

MISTAKES = [
    ("start: step_1\nstep_1: (A\n", "g.lark:2: unexpected end of the line", "README.md"),
    ("start: step_1\nstep_1 = A\n", "g.lark:2: Unexpected input in `step_1 = A`", ""),
    ("start: step_1\nstep_1: two{A B}\n", "g.lark:2: unexpected `B`", "a template's argument is one name"),
    ("start: step_1\nstep_1: nothing\n", "g.lark:2: Rule 'nothing' used but not defined", "define it"),
    ("start: step_1\nstep_1: BEE\nBE: /b/\n", "g.lark:2: Terminal 'BEE' used but not", "Did you mean BE?"),
    ("start: step_1\nstep_1: what{A}\n", "g.lark:2: Template 'what' used but not defined", "define it"),
    ("start: step_1\nstep_1: A\nA: /x/\n", "g.lark:6: Terminal 'A' defined more than once", "%override"),
    ("%override step_1: A\nstart: step_1\n", "g.lark:1: Cannot override", "%import it first"),
    ("%extend step_1: A\nstart: step_1\n", "g.lark:1: Can't extend", "%import it first"),
    ("start: step_1\nstep_1: interleave{A}\n", "g.lark:2: Wrong number of template arguments", ""),
    ("\n%import .nowhere (B)\nstart: step_1\n",
     "g.lark:2: no grammar file nowhere.lark to import", "openstack"),
    ("start: step_1\nstep_1: A more\nmore: B step_1\n", "g.lark:2: recursion step_1 -> more -> step_1", "*"),
    ("start: step_1\nstep_1: own{A}\nown{x}: x own{x}\n", "g.lark:3: recursion own -> own", "( … )*"),
    ("start: step_1\nstep_1: E\nE: E2\nE2: E\n", "g.lark:3: Recursion in terminal 'E'", "write it out"),
    ("start: A\n", "g.lark:1: start reaches no step", "step_1, step_2"),
    ("step_1: A\n", "g.lark: no rule `start`", "%import"),
    ('start: step_1\nstep_1: "text"\n', 'g.lark:2: rule step_1 holds the literal "text"', "in capitals"),
    ("start: step_1\nstep_1: E\n%declare E\n", "g.lark:2: terminal E has no pattern", "define it"),
    ("start: step_1\nstep_1: E\nE: /(/\n", "g.lark:3: terminal E is not a regular expression", ""),
    ("start: step_1\nstep_1: interleave{l, m}\nl: A~60\nm: B~60", 
     "g.lark:2: interleave in rule step_1: needs more than", ""),
    ("%import openstack (TERMNATE)\nstart: step_1\nstep_1: TERMNATE\n",
     "g.lark:1: openstack.lark defines no TERMNATE", "Did you mean TERMINATE?"),
    ("%import .openstak (BUILD)\nstart: step_1\nstep_1: BUILD\n",
     "g.lark:1: no grammar file openstak.lark to import", "Did you mean openstack?"),
    ("start: step_1\nstep_1: within_soon{A}\nwithin_soon{x}: x\n",
     "g.lark:3: within_soon is not a deadline", "within_60s"),
    ("start: within_60s{both}\nboth: step_1 step_2\nstep_1: A\nstep_2: B\n",
     "g.lark:1: within_60s in rule start does not belong to one step", "one step consists of"),
    ("start: step_1 noted_mode{B}\nstep_1: A\n",
     "g.lark:1: noted_mode in rule start does not belong to one step", "one step consists of"),
    ("start: tried_2* step_1\nstep_1: A\ntried_2: B\n",
     "g.lark:3: tried_2 belongs to step 2, which start does not reach", "known: 1"),
    ("start: step_1\nstep_1: A\nrefusals: refused_9\nrefused_9: B\n",
     "g.lark:4: refused_9 belongs to step 9, which start does not reach", "known: 1"),
    ("start: step_1\nstep_1: A\nrefusals: B\n",
     "g.lark:3: refusals holds B, which names no step", "refused_N"),
    ("start: step_1\nstep_1: A\nstates: begun_9\nbegun_9: B\n",
     "g.lark:4: begun_9 belongs to step 9, which start does not reach", "known: 1"),
    ("start: step_1\nstep_1: A\nstates: B\n",
     "g.lark:3: states holds B, which names no step", "begun_N or shown_N"),
    ("start: step_1\nstep_1: A\nattempt: step_1\n", "g.lark:3: start does not reach attempt", "rename it"),
    ("start: attempt step_1\nattempt: B\nstep_1: A\n", "g.lark:2: attempt holds no step", "a host is asked"),
    ("start: attempt\nattempt: step_1\nstep_1: E\nE: /.* > .*/\n",
     "g.lark:2: attempt begins with step 1, whose callee is not known", "as text"),
    ("start: step_1\nstep_1: (A | B)* A (A | B)~20\n",
     "g.lark:1: needs more than 3,000 states; split it", "split"),
]  # fmt: skip


@pytest.mark.parametrize("text, said, advice", MISTAKES)
def test_a_mistake_is_one_clear_line(written: Write, text: str, said: str, advice: str) -> None:
    """Place, what, what to do: in one line, whatever Lark makes of it."""
    with pytest.raises(GrammarError) as caught:
        written(text + WORDS, most_states=3000)
    message = str(caught.value)
    assert message.startswith(said)
    assert advice in message
    assert "\n" not in message


README = (grammars_dir() / "README.md").read_text(encoding="utf-8").partition("## What is refused")[2]
ANY = re.compile(r"a -> b -> a|openstack\.lark|within_x|\b[xX]\b|…|\d[\d,]+")
TOLD = [
    ".*".join(re.escape(part) for part in ANY.split(told))
    for row in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE)
    for told in re.findall(r"`([^`]+)`", row)
]


@pytest.mark.parametrize("said", [case[1] for case in MISTAKES])
def test_every_message_is_told_in_the_readme(said: str) -> None:
    """By its beginning, in the table of grammars/README.md."""
    words = re.sub(r"^\S+: ", "", said).replace("`", "")
    # What is told may be longer than what is said here, and the other way round.
    assert any(re.match(told, words) or told.replace("\\", "").startswith(words) for told in TOLD), words


def test_a_mistake_in_an_imported_file_names_that_file(written: Write) -> None:
    """The place is where the mistake is, not where the import is."""
    with pytest.raises(GrammarError, match=r"base\.lark:2: "):
        written("%import .base (start, begins)\n", base="start: step_1\nstep_1 A\n" + WORDS)


def test_an_import_without_refusals_is_warned_of(written: Write) -> None:
    """A grammar that takes `start` without `refusals` would answer worse than the one it imports."""
    warned = "without its refusals"
    with_them = written("%import .cloudvm_create (start, begins, harmless, refusals)\n")
    assert with_them.refusals
    path = written("%import .cloudvm_create (start, begins, harmless)\n").path
    assert any(warned in line for line in inspect(*read(path)).warnings)


@pytest.mark.parametrize(
    "role, said",
    [
        ("placment", "did you mean placement? Else give its addresses"),
        ("sdn", "known; give its addresses"),
    ],
)
def test_a_role_that_is_not_known_is_warned_of(tmp_path: Path, role: str, said: str) -> None:
    """Its steps could only be unobserved, which sends the user to capture more."""
    for name in ("cloudvm_create.lark", "openstack.lark"):
        text = (grammars_dir() / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace("placement", role), encoding="utf-8")
    found = inspect(*read(tmp_path / "cloudvm_create.lark"), ROLES)
    assert len(found.warnings) == 1 and said in found.warnings[0]
    assert inspect(*read(find("cloudvm_create")), ROLES).warnings == ()


def test_the_attempt_of_a_grammar_that_names_none(written: Write) -> None:
    """The step that asks a host, and what the host does: so a workflow of one's own has attempts, too."""
    grammar = written(
        "%import openstack (BUILD, NETWORK_REST, CREATE_SERVER, SELECT_HOST)\n"
        "start: step_a step_b step_c step_d\n"
        "step_a: CREATE_SERVER\nstep_b: SELECT_HOST\nstep_c: BUILD\nstep_d: NETWORK_REST\n"
        "begins: CREATE_SERVER\n"
    )
    assert grammar.attempt == ("c", "d")


def test_what_follows_from_who_calls_whom() -> None:
    """The portal's step, the proxy's, the API, replies and reads: told by no name."""
    grammar = load("cloudvm_create")
    assert (grammar.portal_step, grammar.proxy_step, grammar.api) == ("1", "3", "nova-api")
    assert grammar.askers == {"admin", "sc", "lb"}
    assert grammar.attempt == ("7", "8a", "8b", "8c")
    assert [step for step in grammar.places if grammar.replies(step)] == ["6"]
    assert [step for step in grammar.places if grammar.is_read(step)] == ["4c"]
    assert grammar.earliest({"8c", "4b", "7"}) == "4b"


REFUSED = [
    ("Internal_base REST lb > nova-api POST /v2.1/servers 401", "", False, ("4a",)),
    ("Internal_base REST lb > nova-api POST /v2.1/servers 403", "Quota exceeded for cores", False, ("4c",)),
    ("? REST ? > nova-api POST /v2.1/servers 413", "Exceeded maximum limit", False, ("4c",)),
    ("Internal_base REST lb > nova-api POST /v2.1/servers 403", "Policy doesn't allow", False, ("4b",)),
    ("Internal_base REST lb > nova-api POST /v2.1/servers 403", "", False, ("4b", "4c")),
    ("Internal_base REST lb > nova-api POST /v2.1/servers 403", "Policy does", True, ("4b", "4c")),
    ("Internal_base REST lb > nova-api POST /v2.1/servers 403", "Quota exc", True, ("4c",)),
    ("Internal_base REST lb > nova-api POST /v2.1/servers 400", "x 401: y", False, ("4b",)),
    ("Internal_base SQL nova-api > db SELECT quotas error", "gone away", False, ("4c",)),
    ("Internal_base SQL nova-api > db CONNECT :3306 refused", "", False, ("4d",)),
    ("Internal_base RPC nova-api > rabbitmq CONNECT :5672 refused", "", False, ("4e",)),
    ("Internal_base REST nova-api > glance-api GET /v2/images/{id} 503", "", False, ("4b",)),
    ("Internal_base REST nova-api > placement GET /usages 500", "", False, ("4c",)),
]


@pytest.mark.parametrize("line, fault, is_cut, steps", REFUSED)
def test_the_step_of_a_refusal(line: str, fault: str, is_cut: bool, steps: tuple[str, ...]) -> None:
    """By status and words, by the call that failed; lost words leave open whether policy or quota refused."""
    assert load("cloudvm_create").steps_refusing(line, fault, is_cut) == steps


OVER_QUOTA = [
    # nova/exception.py, nova/compute/api.py
    (403, "Quota exceeded for cores, ram: Requested 4, 8192, but already used 18, 49152 of 20, 51200 cores"),
    (403, "Maximum number of ports exceeded"),
    (403, "Maximum number of fixed IPs exceeded"),
    (403, "Maximum number of key pairs exceeded"),
    (403, "Maximum number of metadata items exceeds 128"),
    (403, "Quota exceeded, too many servers in group"),
    (403, "Quota exceeded, too many server groups."),
    (403, "Volume resource quota exceeded"),
    (413, "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"),
    (429, "Quota exceeded for instances: Requested 1, but already used 10 of 10 instances"),
    # oslo.limit
    (403, "Project e114495f is over a limit for [Resource servers is over limit of 10 due to usage 10]"),
    # neutron
    (409, "Quota exceeded for resources: ['port']."),
    (409, "Quota limit exceeded"),
    # cinder
    (413, "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded for quota 'volumes'."),
    (413, "Requested volume or snapshot exceeds allowed gigabytes quota. Requested 20G, quota is 10G"),
    (413, "Requested volume size 2000G is larger than maximum allowed limit 1000G."),
]
NO_QUOTA = [
    (429, "This request was rate-limited."),
    (429, "Too Many Requests"),
    (429, "API rate limit exceeded"),
    (413, "Only 10 POST request(s) can be made to * every minute."),
    (413, "Request is too large. Larger than max_request_body_size (114688)."),
    (403, "Policy doesn't allow os_compute_api:os-quota-sets:show to be performed."),
    (409, "Port 483adf83-f3ce-42c2-bec4-1e7a40489d40 is still in use."),
    (400, "Quota exceeded"),
]


@pytest.mark.parametrize("status, words", OVER_QUOTA)
def test_a_quota_in_any_words(status: int, words: str) -> None:
    """The words of nova, oslo.limit, neutron and cinder, passed on by nova-api."""
    line = f"Internal_base REST lb > nova-api POST /v2.1/servers {status}"
    assert load("cloudvm_create").steps_refusing(line, words) == ("4c",)


@pytest.mark.parametrize("status, words", NO_QUOTA)
def test_no_quota(status: int, words: str) -> None:
    """The rate of requests, the size of one, a policy whose name holds the word, an invalid request."""
    line = f"Internal_base REST lb > nova-api POST /v2.1/servers {status}"
    assert load("cloudvm_create").steps_refusing(line, words) == ("4b",)


def test_no_begins(written: Write) -> None:
    """Without `begins` no trace could be opened; an import forgets it easily."""
    with pytest.raises(GrammarError, match=r"g\.lark: no rule `begins`.*%import of start"):
        written("%import .cloudvm_create (start)\n")


UNKNOWN = [
    ("cloudvm_creat", "no grammar 'cloudvm_creat' (known: cloudvm_create, ", "Did you mean cloudvm_create?"),
    ("zzz", "no grammar 'zzz'", "a file's name ends in .lark"),
    (
        "nowhere/x.lark",
        "nowhere/x.lark: cannot read this grammar: No such file",
        "known by name: cloudvm_create",
    ),
    ("/", "/: cannot read this grammar: Is a directory", ""),
]


@pytest.mark.parametrize("name, said, advice", UNKNOWN)
def test_unknown_grammars(name: str, said: str, advice: str) -> None:
    """A wrong name gives the known ones, and the one that was probably meant."""
    with pytest.raises(GrammarError) as caught:
        load(name)
    assert str(caught.value).startswith(said)
    assert advice in str(caught.value)


def test_a_vocabulary_is_no_grammar(written: Write) -> None:
    """By name, and a file: terminals alone are said to be a vocabulary."""
    with pytest.raises(GrammarError, match=r"openstack\.lark: a vocabulary: .*cloudvm_create"):
        load("openstack")
    with pytest.raises(GrammarError, match=r"g\.lark: a vocabulary: "):
        written('A: "a"\n')


def test_imports_by_absolute_name_and_from_a_folder(written: Write, tmp_path: Path) -> None:
    """`%import openstack` is the shipped one, `.parts.mine` lies in a folder beside the grammar."""
    grammar = written(
        "%import cloudvm_create (start, begins, harmless, VM_CREATE)\n"
        '%override VM_CREATE: "Internal_base REST nova-compute > vrm PUT /machines 201"\n'
    )
    assert [s.name for s in grammar.steps] == [s.name for s in load("cloudvm_create").steps]
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "mine.lark").write_text('X: "x"\n', encoding="utf-8")
    own = written("%import .parts.mine (X)\nstart: step_1\nstep_1: X\nbegins: X\n")
    assert own.symbols("x")


def test_what_an_operation_tells_of_the_beginning(written: Write) -> None:
    """Before roles are known, by what is asked for: the roles to which that would begin a trace."""
    grammar = written(LINES)
    assert grammar.begun_at("REST", "POST /v2.1/servers") == {"lb"}
    assert grammar.begun_at("RPC", "POST /v2.1/servers") == frozenset()
    assert grammar.begun_at("REST", "GET /v2.1/servers") == frozenset()


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 are said to be so."""
    (tmp_path / "x.lark").write_bytes(b"\xff\xfe")
    with pytest.raises(GrammarError, match="not UTF-8 text"):
        load(tmp_path / "x.lark")


def test_shipped_names_are_grammars_not_vocabularies() -> None:
    """openstack.lark holds terminals only, so it is no grammar to check against."""
    assert {"cloudvm_create", "cloudvm_create_literal", "server_delete", "server_stop"} < set(shipped())
    assert "openstack" not in shipped()


def test_plain_lark_reads_every_notation(tmp_path: Path) -> None:
    """Templates with a meaning for tracer are nothing but templates for Lark, and the steps are its rules."""
    path = tmp_path / "g.lark"
    path.write_text(STEPS + WORDS, encoding="utf-8")
    grammar = load(path)
    for parser in ("lalr", "earley"):
        assert {f"step_{step.name}" for step in grammar.steps} <= rules(grammar, parser)
