"""Compiled grammars are kept: the same grammar, sooner, and never one of other sources."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.grammar import Grammar, load, loading, shipped
from tracer.grammar.files import find, grammars_dir
from tracer.grammar.reading import read

LINE = "Internal_base RPC nova-api > nova-conductor cast schedule_and_build_instances ok"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tracer"


def told(grammar: Grammar) -> object:
    machine = grammar.automaton
    known = (grammar.name, grammar.title, grammar.steps, grammar.begins, grammar.harmless, grammar.term)
    compiled = (machine.symbols, machine.arcs, machine.start, machine.accepting)
    return known, compiled, grammar.candidates(LINE)


@pytest.mark.parametrize("name", shipped())
def test_what_is_kept_is_what_is_read(name: str, cache: Path) -> None:
    load(name)
    assert len(list(cache.glob(f"{name}-*.pickle"))) == 1
    assert told(load(name)) == told(read(find(name))[0])


def test_a_kept_grammar_does_without_lark(cache: Path) -> None:
    load("cloudvm_create")
    code = "import sys, tracer.grammar as g; g.load('cloudvm_create'); print('lark' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True
    )
    assert run.stdout == "False\n"


def test_other_sources_are_read_anew(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grammar that was changed since; what was kept of it before is gone."""
    for path in grammars_dir().glob("*.lark"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(loading, "grammars_dir", lambda: tmp_path)
    monkeypatch.setattr(loading, "find", lambda name: tmp_path / f"{name}.lark")
    load("cloudvm_create")
    path = tmp_path / "cloudvm_create.lark"
    path.write_text(path.read_text(encoding="utf-8").replace("apply for network", "ask for a port"))
    assert load("cloudvm_create").step("8b").title == "ask for a port"
    assert len(list(cache.glob("cloudvm_create-*.pickle"))) == 1


@pytest.mark.parametrize("damage", [b"", b"garbage", pickle.dumps("no grammar"), None], ids=str)
def test_what_cannot_be_unpacked_is_made_again(damage: bytes | None, cache: Path) -> None:
    load("cloudvm_create")
    (kept,) = cache.glob("*.pickle")
    kept.write_bytes(kept.read_bytes()[:-100] if damage is None else damage)
    assert load("cloudvm_create").name == "cloudvm_create"
    with kept.open("rb") as file:
        assert isinstance(pickle.load(file), Grammar)


def test_what_others_may_write_is_not_unpacked(cache: Path) -> None:
    """A pickle is a program: one that another user could have written is never run."""
    load("cloudvm_create")
    (kept,) = cache.glob("*.pickle")
    kept.write_bytes(pickle.dumps(Bomb()))
    kept.chmod(0o666)
    assert load("cloudvm_create").name == "cloudvm_create"


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("it was run",)


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load("cloudvm_create").name == "cloudvm_create"


def test_a_users_own_file_is_read_each_time(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.lark"
    path.write_text("%import cloudvm_create (start, begins)\n")
    load(path)
    assert not cache.exists()


def test_a_user_without_a_home_has_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who is a number alone, as in containers: nothing is kept, neither in a folder named ~."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    assert load("cloudvm_create").name == "cloudvm_create"
    assert list(tmp_path.iterdir()) == []
