"""No step is known by its name: a grammar with other names gives the same reports, with the other names.

The names of the copy come in the opposite order of letters and hold no number of the document, so that
whatever sorts steps by name, or asks for one by name, gives another report.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tracer.engine import Settings, check
from tracer.grammar import load
from tracer.grammar.files import grammars_dir
from tracer.reports import csv, json, junit

CAPTURES = Path(__file__).parents[2] / "captures"
SHARED = os.environ.get("TRACER_SHARED_CAPTURES")
FOLDERS = sorted(
    {path.name: path for root in (CAPTURES, SHARED) if root for path in Path(root).glob("*fail-*")}.values()
)
FORMATS = {"json": json, "csv": csv, "junit": junit}
OTHERS = [CAPTURES / "ok-volume", CAPTURES / "colo-ok"]


def renamed(name: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """A copy of the grammar *name* in which each step has another name; other name -> name."""
    steps = [step.name for step in load(name).steps]
    others = {step: f"q{len(steps) - place:02}" for place, step in enumerate(steps)}
    text = (grammars_dir() / f"{name}.lark").read_text(encoding="utf-8")
    copy = re.sub(
        r"\b(step|tried|refused|begun|shown)_(\w+)",
        lambda m: f"{m[1]}_{others.get(m[2], 'all_of_' + m[2])}",
        text,
    )
    path = folder / f"{name}.lark"
    path.write_text(copy, encoding="utf-8")
    return path, {other: step for step, other in others.items()}


def told(path: Path, grammar: str, names: dict[str, str]) -> dict[str, str]:
    """The report of a folder of captures by format, with the names of the steps put back."""
    report = check([str(path)], Settings(grammar=grammar, stall_s=20))
    written = {form: b"".join(module.pieces(report)).decode() for form, module in FORMATS.items()}
    back = {form: re.sub(r"q\d\d", lambda m: names[m[0]], text) for form, text in written.items()}
    # Columns are as wide as the longest name.
    return {form: re.sub(r"\s+", " ", text) for form, text in back.items()}


@pytest.mark.parametrize("path", [*FOLDERS, *OTHERS], ids=lambda path: path.name)
def test_other_names_give_the_same_report(path: Path, tmp_path: Path) -> None:
    """Failing step, expected calls, titles, notes and words are the grammar's."""
    grammar, names = renamed("cloudvm_create", tmp_path)
    assert told(path, str(grammar), names) == told(path, "cloudvm_create", {})


@pytest.mark.skipif(SHARED is None, reason="TRACER_SHARED_CAPTURES is not set: no captured operations")
@pytest.mark.parametrize("name", ["server_delete", "server_stop"])
def test_other_workflows_too(name: str, tmp_path: Path) -> None:
    """An operation on a server that is there has names of its own as well."""
    grammar, names = renamed(name, tmp_path)
    path = Path(str(SHARED)) / "ops-mixed"
    assert told(path, str(grammar), names) == told(path, name, {})
