"""The README's examples are run, so that they stay true.

A console block is a command and the output that it really has: `pytest --update-golden` rewrites the output.
In sh blocks, each line that reads a shipped capture is run.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from tracer.cli.watch import watch
from tracer.model import Conformance, DeviationKind, NoteKind, Outcome, StepStatus
from tracer.model.comparison import ChangeKind
from tracer.model.events import EventKind
from tracer.reports.page import STATUSES

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
COMMANDS = {
    "baseline",
    "calls",
    "capture",
    "check",
    "compare",
    "doctor",
    "explain",
    "extract",
    "grammar",
    "replay",
    "show",
    "watch",
}

Block = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """The code blocks of a language, without their indent."""
    return [
        "\n".join(line.removeprefix(m[1]) for line in m[3].splitlines())
        for m in Block.finditer(TEXT)
        if m[2] == language
    ]


LINES = [line for block in blocks("sh") for line in block.splitlines()]
RUNNABLE = [line for line in LINES if line.startswith("tracer ") and re.search(r"captures/|example:", line)]
FIRST, TESTS = (line for line in LINES if line.startswith("python3 -m venv"))


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `tracer` and `python3` are what is being tested."""
    for name, command in (("tracer", f'"{sys.executable}" -m tracer'), ("python3", f'"{sys.executable}"')):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        script.chmod(0o755)
    kept = {k: v for k, v in os.environ.items() if k not in {"FORCE_COLOR", "CLICOLOR_FORCE"}}
    path = f"{tmp_path}{os.pathsep}{kept.get('PATH', '')}"
    ours = {"PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "NO_COLOR": "1", "PYTHONUTF8": "1"}
    return kept | ours


def run(line: str, environment: dict[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """One line of the README in a shell."""
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("line", RUNNABLE, ids=[line.partition("#")[0].strip() for line in RUNNABLE])
def test_a_command(line: str, shell: dict[str, str]) -> None:
    ran = run(line, shell)
    assert ran.returncode in (0, 1), ran.stderr
    assert ran.stdout


def test_outputs(shell: dict[str, str], update_golden: bool) -> None:
    text = TEXT
    for block in blocks("console"):
        command = block.splitlines()[0].removeprefix("$ ")
        ran = run(command, shell)
        assert ran.returncode in (0, 1), ran.stderr
        assert ran.stdout, ran.stderr
        now = f"$ {command}\n{ran.stdout.rstrip()}"
        if update_golden:
            text = text.replace(f"```console\n{block}\n```", f"```console\n{now}\n```")
        else:
            assert now == block
    if update_golden:
        README.write_text(text, encoding="utf-8")


def test_the_first_command_checks_a_capture_of_the_repository(shell: dict[str, str]) -> None:
    command = FIRST.rpartition("&& .venv/bin/")[2]
    assert run(command, shell).returncode == 1


def test_ci_runs_the_test_command() -> None:
    """CI passes by the very line that the README promises."""
    assert TESTS in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()


def test_the_topology_file(tmp_path: Path, shell: dict[str, str]) -> None:
    (toml,) = blocks("toml")
    (tmp_path / "topology.toml").write_text(toml, encoding="utf-8")
    ran = run(f"tracer check captures/ok-image --topology {tmp_path}/topology.toml", shell)
    assert (ran.returncode, ran.stdout.splitlines()[-2]) == (0, "1 trace: 1 conforms  (1 active)")


def test_the_filter_of_the_capture_guide_loses_nothing() -> None:
    """It is the one by which ok-concurrent-20 was cut: test_captures.py shows what it leaves."""
    kept = "not port 3306 or host 172.28.0.11 or host 172.28.0.12"
    assert f"tcp and ({kept})" in TEXT
    assert f"api='{kept}'" in (ROOT / "captures" / "README.md").read_text(encoding="utf-8")


def test_only_commands_that_exist() -> None:
    named = set(re.findall(r"(?<![\w/.-])tracer ([a-z]+)(?= |`)", TEXT))
    assert named - COMMANDS <= {"checks", "has", "infers", "met", "needs", "reads", "replaces", "was"}


@pytest.mark.parametrize("folder", ["tracer", ".github", "grammars", "captures"])
def test_links_of_other_readmes_lead_somewhere(folder: str) -> None:
    (page,) = (ROOT / folder).glob("*.md")
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_the_architecture_names_modules_that_exist() -> None:
    """Also the functions named behind a module in brackets, as in `topology/file.py` (`load_topology`)."""
    text = (ROOT / "tracer" / "README.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"`([\w./]+(?:\.py|\.lark|/))`", text))
    assert len(paths) > 50
    assert [path for path in paths if not any((ROOT / top / path).exists() for top in ("tracer", ""))] == []
    named = re.findall(r"`([\w/]+\.py)` \(`(\w+)`\)", text)
    assert named
    sources = {path: (ROOT / "tracer" / path).read_text(encoding="utf-8") for path, _ in named}
    assert [name for path, name in named if not re.search(rf"\b{name}\b", sources[path])] == []


DOCUMENTS = ("tracer/README.md", "grammars/README.md", ".github/CONTRIBUTING.md")


@cache
def words_of_the_code() -> frozenset[str]:
    """Every name, and every other word, in the sources, the tests and the grammars."""
    kinds = (("tracer", "*.py"), ("tracer", "*.js"), ("tests", "*.py"), ("grammars", "*.lark"))
    paths = [path for top, ending in kinds for path in (ROOT / top).rglob(ending)]
    texts = [path.read_text(encoding="utf-8") for path in paths if path != Path(__file__)]
    return frozenset(re.findall(r"\w+", "\n".join([*texts, (ROOT / "pyproject.toml").read_text("utf-8")])))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_documents_name_code_that_exists(document: str) -> None:
    """Files and folders; and what looks like a name of the code, by a capital letter or `_`."""
    text = re.sub(r"(?s)```.*?```", "", (ROOT / document).read_text(encoding="utf-8"))
    spans = re.findall(r"`([^`\n]+)`", text)
    files = {span for span in spans if re.fullmatch(r"[\w./-]+(\.py|/)", span)}
    assert [file for file in files if not any((ROOT / top / file).exists() for top in ("", "tracer"))] == []
    names = {span.partition("(")[0] for span in spans if re.fullmatch(r"\w+(\.\w+)*(\([\w, ]*\))?", span)}
    parts = {part for name in names for part in name.split(".") if "_" in part or re.search(r"[A-Z]", part)}
    assert sorted(parts - words_of_the_code()) == []


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


# --- the words of a report --------------------------------------------------------------------------


def told(node: ast.expr) -> Iterator[str]:
    """The words that an expression may be, without its condition."""
    if isinstance(node, ast.IfExp):
        yield from told(node.body)
        yield from told(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def results() -> set[str]:
    """What the stage `calls` makes the result of a call, apart from the status of an HTTP answer."""
    found: set[str] = set()
    for path in (ROOT / "tracer" / "calls").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "attr", "") == "result":
                found.update(told(node.value))
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "set_result":
                found.update(told(node.args[1]))
            elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Call":
                found.update(told(node.args[3]))
    return found


def table(head: str) -> set[str]:
    """The words that the first column of a table explains: what stands between commas and brackets."""
    rows = TEXT[TEXT.index(f"\n| {head} | |\n") :].split("\n\n", 1)[0].strip().splitlines()[2:]
    cells = [row.split("|")[1].replace("JSON: ", "") for row in rows]
    return {word.strip(" `") for cell in cells for word in re.split(r"[,()…]", cell)} - {""}


VOCABULARIES = {
    "verdict": set(get_args(Conformance)),
    "outcome": set(get_args(Outcome)),
    "status of a step": {words for words, _ in STATUSES.values()} | {"seen"},
    "deviation (`!`, and what `--allow` takes)": set(get_args(DeviationKind)),
    "note": set(get_args(NoteKind)),
    "result of a call": results() | {"200", "404"},
}


@pytest.mark.parametrize("head", VOCABULARIES)
def test_a_table_explains_each_word_that_a_report_may_say(head: str) -> None:
    """And none that no report says: mypy holds the code to these words."""
    assert table(head) == VOCABULARIES[head]


def test_results_are_found_in_the_code() -> None:
    """Some of each protocol: else the table of results would be held to nothing."""
    assert results() >= {
        "ok",
        "error",
        "failure",
        "unroutable",
        "undelivered",
        "unacked",
        "refused",
        "none",
        "?",
    }


def test_each_status_of_a_step_is_written_somehow() -> None:
    assert set(STATUSES) >= set(get_args(StepStatus))


@pytest.mark.parametrize(
    ("begins", "words"),
    [
        ("one JSON object a line (`tracer.watch/1`)", get_args(EventKind)),
        ("(the\nkinds ", get_args(ChangeKind)),
    ],
)
def test_a_sentence_names_each_kind(begins: str, words: tuple[str, ...]) -> None:
    """Of the events of `watch`, and of the differences that `compare` tells."""
    assert not_named(words, TEXT[TEXT.index(begins) :].split(". ", 1)[0]) == []


def test_the_help_of_watch_names_each_kind_of_event() -> None:
    assert watch.help is not None
    _, begins, rest = watch.help.partition("JSON object a line:")
    assert begins
    assert not_named(get_args(EventKind), rest.split("\n\n", 1)[0]) == []


def not_named(words: tuple[str, ...], sentence: str) -> list[str]:
    return [word for word in words if not re.search(rf"\b{word}\b", sentence)]
