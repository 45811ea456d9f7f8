"""What a save of a server tells, and the states that the vocabulary names."""

from __future__ import annotations

import pytest

from tracer.grammar import load
from tracer.openstack.states import ACTIVE, BUILD_TASKS, saved_word


@pytest.mark.parametrize(
    ("vm_state", "task_state", "changed", "word"),
    [
        ("building", "spawning", ("vm_state", "task_state"), "spawning"),
        ("building", "spawning", ("task_state",), "spawning"),
        ("active", "", ("vm_state", "task_state", "launched_at"), "active"),
        ("error", "", ("vm_state",), "error"),
        ("building", "spawning", ("host", "node"), ""),
        ("building", "", ("task_state",), ""),
        ("building", "networking", (), "networking"),
        ("active", "", (), "active"),
        ("", "", (), ""),
    ],
)
def test_a_save_tells_what_it_changes(
    vm_state: str, task_state: str, changed: tuple[str, ...], word: str
) -> None:
    assert saved_word(vm_state, task_state, changed) == word


@pytest.mark.parametrize("grammar", ["cloudvm_create", "cloudvm_create_literal", "openstack_create"])
@pytest.mark.parametrize(
    "called",
    [
        "RPC nova-compute > nova-conductor call object_action Instance.save",
        "SQL nova-conductor > db UPDATE instances",
    ],
)
def test_each_task_of_a_build_begins_a_step(called: str, grammar: str) -> None:
    known = load(grammar)
    for task in BUILD_TASKS:
        (state,) = known.told(f"Internal_base {called} {task} ok")
        assert not state.is_done
    assert all(state.is_done for state in known.told(f"Internal_base {called} {ACTIVE} ok"))
