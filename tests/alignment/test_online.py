"""Fed call by call, a trace always stands where the alignment of its calls so far puts it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.chance import distinct_traces, events_of, load_with_term
from lab.long import examples

from tracer.alignment.alignment import EXTRA, MISSING, Candidate, Event, Sync, align
from tracer.alignment.online import Online
from tracer.grammar import Grammar, load

EXT, INT = "External_api", "Internal_base"
LINES = [
    f"{EXT} REST admin > sc POST /sc/cloudhosts 202",
    f"{EXT} REST sc > lb POST /v2.1/servers 202",
    f"{INT} REST lb > nova-api POST /v2.1/servers 202",
    f"{INT} SQL nova-api > db SELECT quotas ok",
    f"{INT} SQL nova-api > db INSERT request_specs ok",
    f"{INT} RPC nova-api > nova-conductor cast schedule_and_build_instances ok",
    f"{INT} RPC nova-conductor > nova-scheduler call select_destinations ok",
]
S = 1_000_000_000


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    return load("cloudvm_create")


def fed(grammar: Grammar, lines: list[str]) -> Online[str]:
    online: Online[str] = Online(grammar)
    for second, line in enumerate(lines):
        online.feed("VM", line, second * S)
    return online


def test_what_is_owed_and_by_whom(grammar: Grammar) -> None:
    """After each call: the steps that may come next, and the one who has to send it."""
    told = []
    for count in range(1, len(LINES) + 1):
        now = fed(grammar, LINES[:count]).standing("VM")
        assert now.owed is not None
        told.append((now.cost, now.last_step, now.to_go, now.owed.symbol.step, now.owed.by, now.owed.to))
        assert now.owed in now.expected
    assert told == [
        (0, "1", 10, "2", ("sc",), ("lb",)),
        (0, "2", 9, "3", ("lb",), ("nova-api",)),
        (0, "3", 8, "4c", ("nova-api",), ("db",)),
        (0, "4c", 7, "4d", ("nova-api",), ("db",)),
        (0, "4d", 6, "4e", ("nova-api",), ("nova-conductor",)),
        (0, "4e", 5, "5", ("nova-conductor",), ("nova-scheduler",)),
        # A reply is owed by the one who was asked.
        (0, "5", 4, "6", ("nova-scheduler",), ("nova-conductor",)),
    ]


def test_a_gap_costs_and_the_trace_goes_on(grammar: Grammar) -> None:
    """A missing step costs once; the standing is that behind it."""
    now = fed(grammar, [*LINES[:3], *LINES[4:]]).standing("VM")
    assert (now.cost, now.last_step, now.to_go) == (MISSING, "5", 4)


def test_a_call_outside_of_the_alphabet_is_a_sign_of_life(grammar: Grammar) -> None:
    online = fed(grammar, LINES)
    before = online.standing("VM")
    assert online.feed("VM", f"{INT} REST nova-api > keystone GET / 300", 77 * S) == 0
    after = online.standing("VM")
    assert (after.cost, after.last_step, after.expected) == (before.cost, before.last_step, before.expected)
    assert after.last_ns == 77 * S


def test_traces_are_told_apart_and_forgotten(grammar: Grammar) -> None:
    online: Online[int] = Online(grammar)
    for line in LINES[:2]:
        for key in (1, 2):
            online.feed(key, line, 0)
    online.feed(2, LINES[2], 0)
    assert [online.standing(key).last_step for key in (1, 2)] == ["2", "3"]
    online.close(1)
    assert (len(online), 1 in online, 2 in online) == (1, False, True)
    with pytest.raises(KeyError):
        online.standing(1)


def test_quiet_traces_are_told_once(grammar: Grammar) -> None:
    """And again when they have spoken in between."""
    online: Online[str] = Online(grammar, quiet_ns=10 * S)
    online.feed("early", LINES[0], 0)
    online.feed("late", LINES[0], 5 * S)
    assert [list(online.expire(at * S)) for at in (9, 10, 11, 15, 16)] == [[], ["early"], [], ["late"], []]
    online.feed("early", LINES[1], 20 * S)
    assert [list(online.expire(at * S)) for at in (29, 30, 31)] == [[], ["early"], []]
    assert len(online) == 2


def damaged() -> Iterator[tuple[Grammar, list[Event]]]:
    """Random creations, reschedules and interleavings included, with one to five things gone wrong."""
    grammar, term = load_with_term("cloudvm_create")
    events = events_of(grammar.automaton)
    for labels in islice(distinct_traces(term, grammar.automaton, 7), 120):
        yield grammar, [events[label] or (Candidate(0, 39),) for label in labels]


def test_each_prefix_costs_what_its_alignment_costs() -> None:
    """And the last step is that of the alignment; at the end, complete, too."""
    online: Online[int] | None = None
    for number, (grammar, events) in enumerate(damaged()):
        online = online or Online(grammar)
        automaton = grammar.automaton
        for count, event in enumerate(events, 1):
            cost = online.feed_event(number, event, count)
            prefix = align(automaton, events[:count], complete=False)
            assert cost == prefix.cost
            assert online.alignment(number) == prefix
            if count % 5 == 0:
                steps = [m.symbol.step for m in prefix.moves if isinstance(m, Sync) and m.symbol.step]
                assert online.standing(number).last_step == (steps[-1] if steps else None)
        assert online.alignment(number, complete=True).cost == align(automaton, events).cost


SMALL = """// Turns
%import common.NEWLINE
%ignore NEWLINE
start: step_1 (step_2 step_3 | step_3 step_2 step_2)* interleave{step_4, step_5}

step_1: A
step_2: B
step_3: C
step_4: A B
step_5: C+
interleave{a, b}: a b | b a
begins: A
A: "P REST a > b GET /a 200"
B: "P REST b > c GET /b 200"
C: "P REST c > a GET /c 200"
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Grammar:
    path = tmp_path_factory.mktemp("grammar") / "turns.lark"
    path.write_text(SMALL, encoding="utf-8")
    return load(path)


@settings(deadline=None, max_examples=examples(300))
@given(calls=st.text("ABCx", max_size=30), missing=st.sampled_from([1, 3, 40]))
def test_any_order_of_calls(small: Grammar, calls: str, missing: int) -> None:
    """However bad it gets, the cost is exact: what was pruned is brought back when it matters."""
    online: Online[str] = Online(small, lambda step: missing)
    lines = {n: f"P REST {a} > {b} GET /{n.lower()} 200" for n, a, b in ("Aab", "Bbc", "Cca")}
    events = []
    for count, call in enumerate(calls, 1):
        line = lines.get(call, "P REST a > b GET /a 500")
        events.append(small.candidates(line))
        cost = online.feed("x", line, count)
        assert cost == align(small.automaton, events, lambda step: missing, complete=False).cost


def test_what_was_pruned_is_brought_back(tmp_path: Path) -> None:
    """Six calls fit the one way and none the other; the next twenty tell that it was the other."""
    path = tmp_path / "ways.lark"
    steps = "start: step_1 | step_2 step_3\nstep_1: A~6\nstep_2: B~6\nstep_3: C~20\n"
    path.write_text(
        SMALL[: SMALL.index("start:")] + steps + SMALL[SMALL.index("begins:") :], encoding="utf-8"
    )
    ways = load(path)
    online: Online[str] = Online(ways)
    lines = ["P REST a > b GET /a 200"] * 6 + ["P REST c > a GET /c 200"] * 20
    costs = [online.feed("x", line, 0) for line in lines]
    events = [ways.candidates(line) for line in lines]
    assert costs == [
        align(ways.automaton, events[:count], complete=False).cost for count in range(1, len(lines) + 1)
    ]
    assert costs[-1] == 6 * (EXTRA + MISSING)
    assert online.standing("x").last_step == "3"
