"""Ids and tokens: what stands at the same place of a recorded and a live answer is the same thing."""

from __future__ import annotations

import json
import random
import re
import uuid
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracer.replay.ids import Ids, candidates, ids_of_answer

RECORDED = [str(uuid.UUID(int=n)) for n in range(1, 9)] + [uuid.UUID(int=n).hex for n in range(100, 104)]
LIVE = {
    each: str(uuid.UUID(int=n + 1000)) if "-" in each else uuid.UUID(int=n + 1000).hex
    for n, each in enumerate(RECORDED)
}
ANY = re.compile("|".join(RECORDED))


def live(text: str) -> str:
    """*text* with every recorded id replaced: by search, not by words."""
    return ANY.sub(lambda found: LIVE[found[0]], text)


names = st.sampled_from(["id", "server", "name", "links", "href", "tenant_id", "ports", "x"])
leaves = st.one_of(
    st.sampled_from(RECORDED),
    st.sampled_from(RECORDED).map(lambda each: f"http://host:8774/v2.1/servers/{each}"),
    st.sampled_from(RECORDED).map(lambda each: f"/v2.1/servers/{each}/action"),
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=8),
)
values = st.recursive(
    leaves, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner)), max_leaves=12
)


@given(values, st.lists(st.sampled_from(RECORDED), max_size=4))
def test_what_an_answer_told_is_used_and_nothing_else_changes(value: Any, asked: list[str]) -> None:
    recorded = json.dumps(value)
    ids = Ids()
    ids.learn_json(recorded.encode(), live(recorded).encode())
    known = set(ANY.findall(recorded))
    text = "/".join(["/v2.1/servers", *asked]) + "?marker=" + ",".join(asked)
    assert ids.mapped(text) == ANY.sub(lambda found: LIVE[found[0]] if found[0] in known else found[0], text)
    assert known <= ids_of_answer(recorded.encode(), "", "")
    assert len(ids) >= len(known)


@given(values)
def test_an_endpoint_that_answers_as_recorded_changes_nothing(value: Any) -> None:
    ids = Ids()
    ids.learn_json(json.dumps(value).encode(), json.dumps(value).encode())
    assert len(ids) == 0


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_any_two_bodies_are_survived(one: bytes, other: bytes) -> None:
    """Whatever they are, no id is told that stands in neither, and none is learnt that was not told."""
    ids = Ids()
    ids.learn_json(one, other)
    ids.learn_url(one.decode("latin-1"), other.decode("latin-1"))
    text = one.decode("latin-1")
    assert ids.mapped(text) == text or len(ids) > 0
    assert all(isinstance(each, str) and each for each in ids_of_answer(one, other.decode("latin-1"), ""))


@given(st.text(max_size=80))
@example("0000=0")
def test_a_word_that_is_looked_up_is_one_that_is_replaced(text: str) -> None:
    """None is left. What stands for them holds no character of a word, so that no neighbour joins it."""
    ids = Ids()
    for word in candidates(text):
        ids.learn(word, "<!>")
    assert candidates(ids.mapped(text)) == set()


def test_members_of_a_list_are_paired_by_their_names() -> None:
    made = [{"name": f"vm{n}", "id": RECORDED[n]} for n in range(4)]
    theirs = [{"name": f"vm{n}", "id": LIVE[RECORDED[n]]} for n in range(4)]
    random.Random(1).shuffle(theirs)
    ids = Ids()
    ids.learn_json(json.dumps({"servers": made}).encode(), json.dumps({"servers": theirs}).encode())
    assert ids.mapped(" ".join(RECORDED[:4])) == " ".join(LIVE[each] for each in RECORDED[:4])


@pytest.mark.parametrize(
    ("recorded", "now", "text", "expected"),
    [
        # An id of the vendor's own form, which only its name tells.
        ('{"id": "i-0001"}', '{"id": "i-0042"}', "/vms/i-0001/start", "/vms/i-0042/start"),
        ('{"uri": "/service/sites/1/vms/i-0001"}', '{"uri": "/service/sites/1/vms/i-7"}', "i-0001", "i-7"),
        # What is no id stays: a status, a time, a name.
        ('{"status": "BUILD"}', '{"status": "ACTIVE"}', "BUILD", "BUILD"),
        ('{"name": "vm-one"}', '{"name": "vm-two"}', "vm-one", "vm-one"),
        ('{"valid": "2026-01-01T00:00:00Z"}', '{"valid": "2027-01-01T00:00:00Z"}', "2026-01", "2026-01"),
        # Lists of different lengths tell nothing.
        (f'{{"p": ["{RECORDED[0]}"]}}', '{"p": []}', RECORDED[0], RECORDED[0]),
        # Elsewhere without dashes.
        (f'{{"id": "{RECORDED[0]}"}}', f'{{"id": "{LIVE[RECORDED[0]]}"}}',
         RECORDED[0].replace("-", ""), LIVE[RECORDED[0]].replace("-", "")),
        # Inside a longer word.
        (f'{{"id": "{RECORDED[0]}"}}', f'{{"id": "{LIVE[RECORDED[0]]}"}}',
         f"volume-{RECORDED[0]}", f"volume-{LIVE[RECORDED[0]]}"),
    ],
)  # fmt: skip
def test_what_is_an_id(recorded: str, now: str, text: str, expected: str) -> None:
    ids = Ids()
    ids.learn_json(recorded.encode(), now.encode())
    assert ids.mapped(text) == expected


def test_what_made_a_thing_beats_what_lists_it() -> None:
    ids = Ids()
    ids.learn(RECORDED[0], LIVE[RECORDED[0]])
    ids.learn(RECORDED[0], LIVE[RECORDED[1]])
    assert ids.mapped(RECORDED[0]) == LIVE[RECORDED[0]]


def test_a_live_id_that_is_also_a_recorded_one_is_not_replaced_twice() -> None:
    ids = Ids()
    ids.learn(RECORDED[0], RECORDED[1])
    ids.learn(RECORDED[1], RECORDED[0])
    assert ids.mapped(f"{RECORDED[0]} {RECORDED[1]}") == f"{RECORDED[1]} {RECORDED[0]}"


def test_ids_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.replay.ids.MOST", 10)
    ids = Ids()
    for n in range(100):
        ids.learn(uuid.UUID(int=n).hex, uuid.UUID(int=n + 1000).hex)
    assert len(ids) == 10
