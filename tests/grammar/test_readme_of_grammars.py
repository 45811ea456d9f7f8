"""grammars/README.md is true: its example is run on a real capture. (Its messages: test_grammar.py.)"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.grammar.files import grammars_dir

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "grammars" / "README.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (\S+) -->\n```lark\n(.*?)```", TEXT, re.DOTALL))
NAME, EXAMPLE = next(iter(EXAMPLES.items()))
TEST_NAME, TEST = re.findall(r"<!-- example: (\S+) -->\n```python\n(.*?)```", TEXT, re.DOTALL)[0]
CONSOLE = re.findall(r"```console\n\$ (.*?)\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The examples written down, beside the captures."""
    for name, example in EXAMPLES.items():
        (tmp_path / name).write_text(example, encoding="utf-8")
    (tmp_path / "captures").symlink_to(ROOT / "captures")
    return tmp_path


def tracer(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in {"FORCE_COLOR", "CLICOLOR_FORCE"}}
    return subprocess.run(
        [sys.executable, "-m", "tracer", *arguments],
        cwd=folder,
        env=kept | {"COLUMNS": "120", "NO_COLOR": "1", "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("command, output", CONSOLE, ids=[command for command, _ in CONSOLE])
def test_the_example_does_what_it_says(folder: Path, command: str, output: str) -> None:
    """Each command of the example, on a capture that comes with tracer, to the letter."""
    ran = tracer(folder, *command.split()[1:])
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == output


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_a_grammar_without_warnings(folder: Path, name: str) -> None:
    """Each of them, also those that no command of the page checks."""
    ran = tracer(folder, "grammar", "check", name)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("capture", "step"), [("fail-quota-403", "2"), ("fail-400", "1"), ("fail-no-valid-host", "5")]
)
def test_the_example_of_refusals_names_the_step(folder: Path, capture: str, step: str) -> None:
    """A refusal of the quota, one of the request itself, and a reply with a failure."""
    ran = tracer(folder, "check", f"captures/{capture}", "--grammar", "short.lark")
    assert ran.returncode == 1
    assert f"step {step} failed: " in ran.stdout


def test_the_example_can_fail(folder: Path) -> None:
    """With a deadline that no keystone meets each trace is late."""
    (folder / NAME).write_text(EXAMPLE.replace("within_2s", "within_100ms"), encoding="utf-8")
    ran = tracer(folder, "check", "captures/ok-image", "--grammar", NAME)
    assert ran.returncode == 1
    assert ran.stdout.count("! late 3") == 5


def test_the_example_of_tests_passes(folder: Path) -> None:
    """As it stands there, in a folder with nothing but the grammar."""
    (folder / TEST_NAME).write_text(TEST, encoding="utf-8")
    ran = pytest_in(folder, TEST_NAME)
    assert ran.returncode == 0, ran.stdout
    assert f"{TEST.count('def test_')} passed" in ran.stdout


def test_the_example_of_tests_can_fail(folder: Path) -> None:
    """Each of them notices a grammar that is wrong in what it is about."""
    (folder / TEST_NAME).write_text(TEST, encoding="utf-8")
    wrong = EXAMPLE.replace("step_1 step_2 step_3", "step_2 step_1 step_3").replace(
        "within_2s", "within_2min"
    )
    (folder / NAME).write_text(wrong, encoding="utf-8")
    ran = pytest_in(folder, TEST_NAME)
    assert ran.returncode == 1, ran.stdout
    assert " 4 failed, 1 passed" in ran.stdout


def test_there_are_examples() -> None:
    assert len(CONSOLE) == 4
    assert list(EXAMPLES) == ["look.lark", "claim.lark", "short.lark", "other_vrm.lark"]


def test_the_shipped_files_are_listed() -> None:
    listed = re.findall(r"^\| `(\w+\.lark)` \|", TEXT, re.MULTILINE)
    assert sorted(listed) == sorted(path.name for path in grammars_dir().glob("*.lark"))
