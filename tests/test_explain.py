"""`tracer explain`: what it prints, and with which exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.grammar import load, shipped
from tracer.openstack.duty import DUTIES
from tracer.openstack.services import ROLES
from tracer.reports.glossary import entries

ROOT = Path(__file__).parent.parent
CREATIONS = ("cloudvm_create", "openstack_create")


def explain(*words: str, columns: str = "160") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracer", "explain", *words],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": columns, "NO_COLOR": "1", "PYTHONUTF8": "1"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def test_every_role_has_a_duty() -> None:
    assert set(DUTIES) == ROLES


@pytest.mark.parametrize("name", CREATIONS)
def test_each_step_of_a_creation_says_what_breaks_it(name: str) -> None:
    assert [step.name for step in load(name).steps if not step.breaks] == []


def test_a_step_names_who_does_it_what_breaks_it_and_where_to_look() -> None:
    ran = explain("8b")
    assert (ran.returncode, ran.stderr) == (0, "")
    for part in (
        "apply for network",
        "nova-compute calls neutron-server",
        "network-vif-plugged",
        "/var/log/",
    ):
        assert part in ran.stdout
    for name in CREATIONS:
        assert f"step 8b of {name}" in ran.stdout


def test_a_step_without_its_letter_stands_for_its_parts() -> None:
    ran = explain("step", "8")
    assert [part for part in ("8a", "8b", "8c") if f"step {part} of" in ran.stdout] == ["8a", "8b", "8c"]


def test_steps_of_another_grammar() -> None:
    ran = explain("6", "--grammar", "server_reboot")
    assert ran.stdout.startswith("step 6 of server_reboot: ask the VRM to reboot the VM\n")


def test_steps_of_a_grammar_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "mine.lark").write_text(
        "// Mine\n%import openstack (TERMINATE)\nstart: step_1\nbegins: TERMINATE\n"
        "//: the host is\n//: down\nstep_1: TERMINATE  // ask for the end\n",
        encoding="utf-8",
    )
    ran = explain("1", "--grammar", str(tmp_path / "mine.lark"))
    assert "  breaks  the host is down\n" in ran.stdout


def test_a_service() -> None:
    said = explain("Nova-Conductor").stdout
    assert said.startswith("nova-conductor: a service\n") and DUTIES["nova-conductor"].logs in said


def test_words_of_a_report_and_grammars_are_listed() -> None:
    listed = {word for line in explain().stdout.splitlines() for word in re.split(r",? {2,}|, ", line)}
    assert {*(entry.word for entry in entries()), *ROLES, *shipped(), "4a", "8c"} <= listed | {
        word.rstrip(",") for word in listed
    }


@pytest.mark.parametrize("columns", ["60", "80"])
def test_no_line_is_wider_than_the_terminal(columns: str) -> None:
    assert max(map(len, explain("8b", columns=columns).stdout.splitlines())) <= int(columns)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("unobsrved",), "did you mean unobserved?"),
        (("99",), "`tracer explain` lists what it knows"),
        (("\x1b[31mred",), "`tracer explain` lists what it knows"),
        (("8b", "--grammar", "nonsense"), "no grammar 'nonsense'"),
    ],
)
def test_what_it_does_not_know(words: tuple[str, ...], says: str) -> None:
    ran = explain(*words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert says in ran.stderr and ran.stderr.count("\n") == 1
    assert "\x1b" not in ran.stderr
