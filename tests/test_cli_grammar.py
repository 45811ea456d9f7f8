"""`tracer grammar`: what it prints, where, and with which exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracer.grammar import load, shipped

ROOT = Path(__file__).parent.parent
MINE = """// Mine
%import openstack (TERMINATE, STOP)
start: step_1 step_2
begins: TERMINATE
step_1: TERMINATE           // ask for the end
step_2: within_90s{told}    // tell it
told: STOP
within_90s{x}: x
"""


def tracer(*arguments: str, cwd: Path = ROOT, columns: str = "160") -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if k not in {"FORCE_COLOR", "CLICOLOR_FORCE"}}
    return subprocess.run(
        [sys.executable, "-m", "tracer", "grammar", *arguments],
        cwd=cwd,
        env=kept | {"COLUMNS": columns, "NO_COLOR": "1", "PYTHONUTF8": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.lark").write_text(MINE, encoding="utf-8")
    return tmp_path


def test_list_names_every_grammar() -> None:
    """Name, number of steps, title: a line each, vocabularies left out."""
    ran = tracer("list")
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = ran.stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == shipped()
    assert ran.stdout == "".join(f"{line.rstrip()}\n" for line in ran.stdout.splitlines())
    for line in lines:
        grammar = load(line.split()[0])
        assert int(line.split()[1]) == len(grammar.steps)
        assert line.endswith(grammar.title)


@pytest.mark.parametrize("arguments", [("list",), ("list", "-v")])
def test_a_list_fits_into_80_columns(arguments: tuple[str, ...]) -> None:
    """As many terminals are; -v shows the calls that begin a trace as well."""
    lines = tracer(*arguments, columns="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(" ".join(line.split()) for line in lines)
    assert "Creation of a VM in any OpenStack cloud" in text or arguments != ("list",)
    assert ("ASK_TO_CREATE" in text) is (arguments != ("list",))


@pytest.mark.parametrize("name", shipped())
def test_show_prints_every_step(name: str) -> None:
    """Step, title, what its absence means, plane, mode, who calls whom, the terminals."""
    ran = tracer("show", name)
    assert (ran.returncode, ran.stderr) == (0, "")
    shown = " ".join(ran.stdout.split())
    grammar = load(name)
    for step in grammar.steps:
        assert f"\n{step.name} " in ran.stdout
        assert step.title.split()[0] in shown
        assert all(terminal in shown for terminal in step.terminals)
    assert f"begins with {', '.join(grammar.begins)}" in shown


def test_show_tells_modes_deadlines_and_patterns(mine: Path) -> None:
    """A noted mode and a deadline stand with their step; -v adds the patterns."""
    assert "STORAGE_REST (noted: mode)" in tracer("show", "cloudvm_create", columns="220").stdout
    ran = tracer("show", "mine.lark", "-v", cwd=mine)
    assert "deviates, late after 90 s" in ran.stdout
    assert "nova-api\\ >\\ nova-compute\\ cast\\ terminate_instance" in ran.stdout.replace("\\-", "-")
    assert "cast" not in tracer("show", "mine.lark", cwd=mine).stdout


def test_show_tells_attempts_and_refusals(mine: Path) -> None:
    """The steps of one attempt, and those to which a refusal belongs, in the order of the rule."""
    shown = tracer("show", "cloudvm_create").stdout
    assert "\nattempt      7, 8a, 8b, 8c\n" in shown
    assert "\nrefusals     4a: UNAUTHORIZED, NOT_VALIDATED, AUTHENTICATE_FAILED\n" in shown
    assert "\n             4b or 4c: FORBIDDEN\n" in shown
    assert "refusals" not in tracer("show", "mine.lark", cwd=mine).stdout


def test_check_says_ok_and_counts(mine: Path) -> None:
    ran = tracer("check", "mine.lark", cwd=mine)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "mine: ok: 2 files, 6 rules, 2 terminals, 2 steps; 3 states, 2 arcs\n"


@pytest.mark.parametrize("name", shipped())
def test_check_warns_of_nothing_that_is_shipped(name: str) -> None:
    ran = tracer("check", name)
    assert (ran.returncode, ran.stderr) == (0, "")


WARNED = [
    (("// ask for the end", ""), "mine.lark:5: step 1 has no title"),
    (("told: STOP", "told: STOP\nUNUSED: STOP"), "mine.lark:8: UNUSED is defined and not used"),
    (("within_90s{told}", "interleve{told}"), "has no meaning here. Did you mean interleave?"),
    (("told: STOP", "told: ANY\nANY: /.+ cast x ok/"), "ANY does not name its caller and callee"),
    (("told: STOP", "told: EMPTY\nEMPTY: /x*/"), "plain Lark's LALR parser cannot be built from it"),
    (
        (
            "told: STOP",
            "told: STOP\nrefusals: refused_1\nrefused_1: NEVER\nNEVER: /\\S+ REST \\S+ (401|407)/",
        ),
        "mine.lark:10: NEVER in refusals never matches",
    ),
    (
        (
            "start: step_1 step_2",
            "start: attempt step_2\nattempt: step_1\n"
            '%override TERMINATE: "Internal_base RPC nova-api > db cast x ok"',
        ),
        "mine.lark:4: attempt begins with step 1, which asks db and no host",
    ),
]


@pytest.mark.parametrize("change, warning", WARNED)
def test_check_warns_of_what_is_hardly_meant(change: tuple[str, str], warning: str, mine: Path) -> None:
    """A line each on standard error, the count on standard output, and still 0."""
    text = MINE.replace(*change).replace(
        "\nwithin_90s{x}", "\ninterleve{x}" if "interleve" in change[1] else "\nwithin_90s{x}"
    )
    (mine / "mine.lark").write_text(text, encoding="utf-8")
    ran = tracer("check", "mine.lark", cwd=mine)
    assert ran.returncode == 0
    assert any(line.startswith("tracer: warning: ") and warning in line for line in ran.stderr.splitlines())
    assert "warning" in ran.stdout


REFUSED = [
    (
        ("check", "mine.lark"),
        "mine.lark:6: Rule 'tld' used but not defined (in rule step_2)",
        "Did you mean told?",
    ),
    (("show", "mine.lark"), "mine.lark:6: Rule 'tld'", ""),
    (("draw", "mine.lark"), "mine.lark:6: Rule 'tld'", ""),
    (("check", "openstack"), "openstack.lark: a vocabulary", "cloudvm_create"),
    (("show", "server_delet"), "no grammar 'server_delet'", "Did you mean server_delete?"),
    (("check", "nowhere.lark"), "nowhere.lark: cannot read this grammar: No such file", ""),
    (("check",), "tracer grammar check needs NAME|FILE", "--help"),
    (("paint", "x"), "grammar: no command 'paint'", "draw"),
    (("draw", "server_stop", "--format", "png"), "--format", "mermaid"),
    (("draw", "server_stop", "-o", "no/such/folder/x"), "no/such/folder", ""),
]


@pytest.mark.parametrize("arguments, said, advice", REFUSED)
def test_a_mistake_is_one_line_and_2(arguments: tuple[str, ...], said: str, advice: str, mine: Path) -> None:
    """Nothing on standard output; place, what, what to do on standard error."""
    (mine / "mine.lark").write_text(MINE.replace("{told}", "{tld}"), encoding="utf-8")
    ran = tracer(*arguments, cwd=mine)
    assert (ran.returncode, ran.stdout) == (2, "")
    (line,) = ran.stderr.splitlines()
    assert line.startswith("tracer: error: ")
    assert said in line
    assert advice in line


def test_check_of_a_capture_refuses_it_before_any_packet(mine: Path) -> None:
    """`tracer check --grammar` says the same, and opens no capture."""
    (mine / "mine.lark").write_text(MINE.replace("{told}", "{tld}"), encoding="utf-8")
    command = [sys.executable, "-m", "tracer", "check", "nothing.pcap", "--grammar", str(mine / "mine.lark")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert ran.returncode == 2
    assert "Rule 'tld' used but not defined" in ran.stderr


@pytest.mark.parametrize("flags, beginning", [
    ((), "---\ntitle: "),
    (("--format", "dot"), "digraph grammar {\n"),
    (("--automaton",), "---\ntitle: "),
])  # fmt: skip
def test_draw_writes_the_picture(flags: tuple[str, ...], beginning: str, mine: Path) -> None:
    """To standard output, or to a file."""
    ran = tracer("draw", "mine.lark", *flags, cwd=mine)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith(beginning)
    filed = tracer("draw", "mine.lark", *flags, "-o", "picture", cwd=mine)
    assert (filed.returncode, filed.stdout) == (0, "")
    assert (mine / "picture").read_text(encoding="utf-8") == ran.stdout


def test_without_a_command_it_helps() -> None:
    """And ends with 2: nothing was done."""
    ran = tracer()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert all(f"  {command} " in ran.stderr for command in ("list", "show", "check", "draw"))
