"""The command line: options, streams, exit codes. The pipeline is a stand-in that hands out reports."""

from __future__ import annotations

import io
import json
import os
import pty
import runpy
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import tracer
from tracer.cli import main
from tracer.cli.formats import FORMATS
from tracer.errors import SourceError
from tracer.model import CallRecord, Report
from tracer.settings import Settings

BUILD = SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "reports" / "conftest.py")))
KNOWN = ", ".join(map(repr, ("text", *FORMATS)))
ROOT = Path(__file__).parent.parent


@dataclass
class Pipeline:
    """What the commands asked of the pipeline, and what it is to answer."""

    report: Report = field(default_factory=BUILD.report)
    error: BaseException | None = None
    asked: list[tuple[list[str], Any]] = field(default_factory=list)

    def check(self, arguments: Sequence[str], settings: Settings, progress: Any = None) -> Report:
        self.asked.append((list(arguments), settings))
        progress.opened("a.pcap", 100)
        progress.advanced("a.pcap", 50, 7, 1)
        progress.ignored("notes.txt", "no capture")
        if self.error:
            raise self.error
        return self.report

    def calls(
        self, arguments: Sequence[str], settings: Settings, progress: Any = None
    ) -> Iterator[CallRecord]:
        for verdict in self.check(arguments, settings, progress).verdicts:
            for call in verdict.calls:
                yield replace(call, traces=(verdict.id,))


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    """A pipeline that has found one conforming creation."""
    stand_in = Pipeline(BUILD.report(BUILD.conforming()))
    module = ModuleType("tracer.engine")
    module.__dict__.update(check=stand_in.check, calls=stand_in.calls)
    monkeypatch.setitem(sys.modules, "tracer.engine", module)
    monkeypatch.setattr(tracer, "engine", module, raising=False)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return stand_in


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left behind."""

    exit_code: int
    stdout: str
    stderr: str


def run(*arguments: str) -> Result:
    """One run of the command line, through the door that the console script takes."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]), pytest.raises(SystemExit) as end:
        main(arguments)
    assert isinstance(end.value.code, int)
    stdout, stderr = (stream.buffer.getvalue().decode() for stream in streams)
    return Result(end.value.code, stdout, stderr)


# --- exit codes -------------------------------------------------------------------------------------

EXITS = [
    (["conforming"], 0),
    (["conforming", "stopped_at_8b"], 1),
    (["conforming", "unobserved"], 3),
    (["unobserved", "stuck"], 1),
    ([], 5),
]


@pytest.mark.parametrize("format", ["text", "json"])
@pytest.mark.parametrize("names, code", EXITS)
def test_the_exit_code_is_the_worst_verdict(
    names: list[str], code: int, format: str, pipeline: Pipeline
) -> None:
    """0 conform, 1 deviates, 3 inconclusive, 5 none; the same in either format."""
    pipeline.report = BUILD.report(*[getattr(BUILD, name)() for name in names])
    assert run("check", "x.pcap", "--format", format).exit_code == code


def test_an_interrupted_check_prints_what_it_has(pipeline: Pipeline) -> None:
    """130, and the report says that it is partial."""
    pipeline.report = BUILD.report(BUILD.conforming(), partial=True)
    result = run("check", "x.pcap", "--format", "json")
    assert result.exit_code == 130
    assert json.loads(result.stdout)["partial"] is True


def test_an_interrupt_without_a_report_is_130_too(pipeline: Pipeline) -> None:
    """No traceback for ^C."""
    pipeline.error = KeyboardInterrupt()
    result = run("calls", "x.pcap")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == "tracer: interrupted\n"


def test_a_mistake_is_one_line_and_2(pipeline: Pipeline) -> None:
    """What, where, what to do; hostile names in it are escaped."""
    pipeline.error = SourceError("x\x1b[2J.pcap: not a capture")
    result = run("check", "x.pcap")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "tracer: error: x\\e[2J.pcap: not a capture\n"


@pytest.mark.parametrize("flags, traceback", [([], False), (["--debug"], True)])
def test_a_bug_says_that_it_is_one(flags: list[str], traceback: bool, pipeline: Pipeline) -> None:
    """2 and never 1, which would mean that a trace deviates; with --debug the trace is there."""
    pipeline.error = KeyError("x\ny")
    result = run("check", "x.pcap", *flags)
    assert result.exit_code == 2
    assert "tracer: internal error: KeyError in " in result.stderr
    assert "(this is a bug; run with --debug for the traceback)" in result.stderr.splitlines()[-1]
    assert ("Traceback" in result.stderr) is traceback


def test_an_error_of_the_system_is_no_bug(pipeline: Pipeline) -> None:
    """A full disk is told as such."""
    pipeline.error = OSError(28, "No space left on device", "/tmp/x")
    result = run("check", "x.pcap")
    assert (result.exit_code, result.stderr) == (2, "tracer: error: /tmp/x: No space left on device\n")


CAPTURES = "no captures given: name capture files, PLANE=FILE, a folder of them, - or example:NAME"
MISTAKES = [
    (["check"], f"tracer check: {CAPTURES}"),
    (["show"], f"tracer show: {CAPTURES}"),
    (["chek", "x"], "no command 'chek'; did you mean check?"),
    (
        ["nope"],
        "no command 'nope'; there are check, calls, show, watch, capture, replay, baseline, extract, compare,"
        " grammar, doctor, explain, completion",
    ),
    (["example:ok-image", "-v"], "to check captures, write `tracer check example:ok-image -v`"),
    (["check", "x", "--formt", "json"], "tracer check has no option --formt; did you mean --format?"),
    (["--colr=never", "check", "x"], "tracer has no option --colr; did you mean --color?"),
    (["check", "x", "-z"], "tracer check has no option -z; `tracer check --help` lists those it has"),
    (["check", "x", "--format", "xml"], f"--format: 'xml' is not one of {KNOWN}"),
    (["check", "x", "--color", "blue"], "--color: 'blue' is not one of 'auto', 'always', 'never'"),
    (["check", "x", "--grammar"], "option '--grammar' requires an argument; --help shows how"),
    (
        ["extract", "x", "--trace", "a", "--trace", "b", "-w", "y"],
        "--trace is given 2 times; name one, and run once for each",
    ),
    (["completion"], "tracer completion needs bash|zsh|fish; `tracer completion --help` shows how"),
    (["completion", "bsh"], "tracer completion: 'bsh' is not one of 'bash', 'zsh', 'fish'"),
    (["completion", "bash", "x"], "got unexpected extra argument (x); `tracer completion --help` shows how"),
]


@pytest.mark.parametrize("arguments, words", MISTAKES, ids=lambda part: " ".join(part) if part else "")
def test_wrong_usage_is_one_line_and_2(arguments: list[str], words: str, pipeline: Pipeline) -> None:
    """What is wrong, and what to write instead."""
    result = run(*arguments)
    assert (result.exit_code, result.stdout, pipeline.asked) == (2, "", [])
    assert result.stderr.startswith("tracer: error: ")
    assert result.stderr.endswith(f"{words}\n")
    assert result.stderr.count("\n") == 1


def test_no_arguments_are_wrong_usage_too(pipeline: Pipeline) -> None:
    """A script whose command came out empty has checked nothing; a person gets the help."""
    result = run()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: tracer ")
    assert "Examples:" in result.stderr


@pytest.mark.parametrize(
    "option, words",
    [
        (["--stall", "0"], "--stall 0: must be more than 0"),
        (["--stall", "nan"], "--stall nan"),
        (["--stall", "soon"], "--stall 'soon': not a number of seconds"),
        (["--since", "yesterday"], "--since 'yesterday': not a time"),
        (["--since", "20", "--until", "10"], "is not before --until 1970-01-01T00:00:10.000000Z"),
        (["--until", "10", "--since", "10"], "--since 1970-01-01T00:00:10.000000Z is not before"),
        (["--where", "nam=x"], "Did you mean name?"),
    ],
)
def test_an_option_that_makes_no_sense_stops_before_the_work(
    option: list[str], words: str, pipeline: Pipeline
) -> None:
    """No capture is read for nothing."""
    result = run("check", "x.pcap", *option)
    assert result.exit_code == 2
    assert words in result.stderr
    assert pipeline.asked == []


# --- settings ---------------------------------------------------------------------------------------


def test_options_reach_the_pipeline(pipeline: Pipeline) -> None:
    """Every option has its setting."""
    options = "--grammar g.lark --topology t.toml --stall 15 --since 1 --until 2026-01-01T00:00:00Z"
    run("check", "A=a.pcap", "b.pcap", *options.split(), "--allow", "unobserved", "--allow", "failed:8b")
    expected = Settings(
        "g.lark", Path("t.toml"), 15.0, 1_000_000_000, 1_767_225_600_000_000_000, ("unobserved", "failed:8b")
    )
    assert pipeline.asked == [(["A=a.pcap", "b.pcap"], expected)]


def test_without_options_the_settings_are_the_defaults(pipeline: Pipeline) -> None:
    """The command line has no defaults of its own."""
    for command in ("check", "show", "calls"):
        run(command, "x.pcap")
    assert {settings for _, settings in pipeline.asked} == {Settings()}


def test_where_chooses_traces_and_the_exit_code_follows(pipeline: Pipeline) -> None:
    """What is filtered out neither shows nor counts."""
    pipeline.report = BUILD.report(BUILD.conforming(), BUILD.stuck())
    result = run("check", "x.pcap", "--where", "verdict=conforms")
    assert result.exit_code == 0
    assert "fail-cdown" not in result.stdout


def test_where_that_fits_nothing_is_5_and_says_so(pipeline: Pipeline) -> None:
    """Not the captures are empty, the selection is."""
    result = run("check", "x.pcap", "--where", "name=zzz")
    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr == "tracer: the only trace does not match --where name=zzz\n"


@pytest.mark.parametrize(
    "begun, words",
    [
        ((5,), "the one trace does not start from 1970-01-01T00:00:20.000000Z: it starts at 1970-01-01"),
        ((5, 7_000_000_000), "none of 2 traces starts from 1970-01-01T00:00:20.000000Z: the first starts at"),
    ],
)
def test_a_time_that_fits_nothing_is_5_and_says_so(
    begun: tuple[int, ...], words: str, pipeline: Pipeline
) -> None:
    """There are traces, at another time: which is said."""
    pipeline.report = replace(BUILD.report(), verdicts=[], left_out=begun)
    result = run("check", "x.pcap", "--since", "20")
    assert result.exit_code == 5
    assert words in result.stderr
    assert "at the time asked for" in result.stdout
    assert "No trace" not in result.stdout


def test_times_of_calls_are_said_of_calls() -> None:
    assert "Only calls that start" in " ".join(run("calls", "--help").stdout.split())
    assert "Only traces that start" in " ".join(run("check", "--help").stdout.split())


# --- streams ----------------------------------------------------------------------------------------


def test_without_a_trace_standard_error_says_what_was_seen(pipeline: Pipeline) -> None:
    """Also when standard output is JSON for a machine."""
    pipeline.report = BUILD.report(seen=(("SQL statements", 1200),))
    result = run("check", "x.pcap", "--format", "json")
    assert json.loads(result.stdout)["traces"] == []
    assert result.stderr == "tracer: no trace found; the captures hold 1,200 SQL statements\n"


def test_losses_are_warned_of_beside_json(pipeline: Pipeline) -> None:
    """-q silences them; the document has them anyway."""
    pipeline.report = replace(pipeline.report, captures=[BUILD.damaged()])
    loud, quiet = run("check", "x", "--format", "json"), run("check", "x", "--format", "json", "-q")
    assert "warning: captures/ctl-any.pcap: 3 gaps" in loud.stderr
    assert quiet.stderr == ""
    assert loud.stdout == quiet.stdout


def test_ignored_files_are_told_with_v(pipeline: Pipeline) -> None:
    """-v may stand before the command and after it."""
    assert run("check", "x.pcap").stderr == ""
    for arguments in (["check", "x.pcap", "-v"], ["-v", "check", "x.pcap"]):
        assert run(*arguments).stderr == "tracer: ignored notes.txt: no capture\n"


def test_a_file_gets_what_standard_output_would(pipeline: Pipeline, tmp_path: Path) -> None:
    """And a longer file from before leaves nothing behind."""
    target = tmp_path / "report"
    for options in (
        ["check"],
        ["check", "--format", "json"],
        ["calls"],
        ["calls", "--format", "jsonl"],
        ["show"],
    ):
        target.write_text("old\n" * 100_000)
        shown = run(*options, "x.pcap").stdout
        written = run(*options, "x.pcap", "-o", str(target))
        assert written.stdout == ""
        assert target.read_text() == shown


@pytest.mark.parametrize("where", ["missing/report.json", "."])
def test_an_unwritable_file_is_found_out_before_the_work(
    where: str, pipeline: Pipeline, tmp_path: Path
) -> None:
    """An hour of reading must not end in 'no such directory'."""
    result = run("check", "x.pcap", "-o", str(tmp_path / where))
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr
    assert pipeline.asked == []


def test_a_failed_run_leaves_files_as_they_were(pipeline: Pipeline, tmp_path: Path) -> None:
    """The report of yesterday stays, and no empty one appears."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("yesterday")
    pipeline.error = SourceError("x")
    for target in (old, new):
        assert run("check", "x.pcap", "-o", str(target)).exit_code == 2
    assert old.read_text() == "yesterday"
    assert not new.exists()


def test_a_capture_is_never_overwritten(pipeline: Pipeline, tmp_path: Path) -> None:
    """-o before the file name, forgotten: tracer check -o a.pcap a.pcap."""
    capture = tmp_path / "a.pcap"
    capture.write_bytes(b"precious")
    result = run("check", f"External_api={capture}", "-o", str(capture))
    assert result.exit_code == 2
    assert capture.read_bytes() == b"precious"


@pytest.mark.parametrize(
    "flags, environment, coloured",
    [
        ([], {}, False),
        (["--color", "always"], {}, True),
        (["--color", "always"], {"NO_COLOR": "1"}, True),
        (["--color", "never"], {"FORCE_COLOR": "1"}, False),
        ([], {"FORCE_COLOR": "1"}, True),
        ([], {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_colours_are_asked_for_or_refused(
    flags: list[str],
    environment: dict[str, str],
    coloured: bool,
    pipeline: Pipeline,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The option beats the environment; a pipe has none of its own accord."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for command in ("check", "show", "calls"):
        assert ("\x1b[" in run(command, "x.pcap", *flags).stdout) is coloured


# --- show and calls ---------------------------------------------------------------------------------


def test_show_draws_the_trace_that_is_meant(pipeline: Pipeline) -> None:
    """By name here; 0 although it deviates, for nothing was asked but a picture."""
    pipeline.report = BUILD.report(BUILD.conforming(), BUILD.stuck())
    result = run("show", "x.pcap", "--trace", "fail-cdown")
    assert result.exit_code == 0
    assert "fail-cdown" in result.stdout
    assert "web-1" not in result.stdout


def test_show_knows_json(pipeline: Pipeline) -> None:
    """The same schema, with that trace alone."""
    pipeline.report = BUILD.report(BUILD.conforming(), BUILD.stuck())
    [trace] = json.loads(run("show", "x", "--trace", "fail-cdown", "--format", "json").stdout)["traces"]
    assert trace["name"] == "fail-cdown"


@pytest.mark.parametrize("trace, words", [("zzz", "known: web-1"), ("web-2", "near it: web-1")])
def test_an_unknown_trace_is_2_and_names_others(trace: str, words: str, pipeline: Pipeline) -> None:
    """What a person would ask next."""
    result = run("show", "x.pcap", "--trace", trace)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_calls_are_json_lines_with_their_traces(pipeline: Pipeline) -> None:
    """One object a line."""
    lines = run("calls", "x.pcap", "--format", "jsonl").stdout.splitlines()
    assert len(lines) == len(BUILD.flow())
    assert json.loads(lines[0])["traces"] == [BUILD.conforming().id]


# --- the program ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["check"],
        ["calls"],
        ["show"],
        ["baseline"],
        ["completion"],
        ["grammar"],
        ["watch"],
        ["capture"],
        ["replay"],
    ],
)
def test_help_begins_with_three_examples(command: list[str], pipeline: Pipeline) -> None:
    """Each on a line of its own, that can be copied."""
    result = run(*command, "--help")
    lines = [line.strip() for line in result.stdout.splitlines()]
    start = lines.index("Examples:")
    assert result.exit_code == 0
    assert start < lines.index("Options:")
    assert all(line.startswith("tracer ") for line in lines[start + 1 : start + 4])
    assert max(map(len, result.stdout.splitlines())) < 80


def program(*arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """`python -m tracer` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "tracer", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        **how,
    )


def test_the_package_is_a_program() -> None:
    """python -m tracer --version."""
    result = program("--version")
    assert (result.returncode, result.stdout.split()[0]) == (0, "tracer")


HEAVY = {"scapy", "pika", "pyshark", "lark", "msgspec", "rich", "zstandard", "pydantic", "typer", "pytest"}


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["--help"], 0),
        (["check", "--help"], 0),
        (["--version"], 0),
        (["completion", "zsh"], 0),
        (["nope"], 2),
    ],
)
def test_what_reads_no_capture_imports_nothing_heavy(arguments: list[str], code: int) -> None:
    """Import time counts in completion and in every wrong call."""
    assert imported(arguments, code) & {*HEAVY, "tracer.engine"} == set()


@pytest.mark.parametrize("arguments", [["check", "--format", "json"], ["calls"]])
def test_rich_is_imported_only_where_it_draws(arguments: list[str]) -> None:
    """Not for JSON and not for calls, when nobody is looking at a terminal."""
    modules = imported([*arguments, "captures/ok-image"], 0)
    assert "tracer.engine" in modules
    assert modules & {"rich", "scapy", "pika", "pyshark", "pytest"} == set()


def imported(arguments: list[str], code: int) -> set[str]:
    """The modules that a run of the program has imported by its end."""
    script = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('imported:', *sys.modules, file=sys.stderr))\n"
        "from tracer.cli import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == code
    return set(result.stderr.rpartition("imported:")[2].split())


def test_help_imports_nothing_heavy() -> None:
    """The same in words of its own: nothing at all on standard error."""
    code = (
        "import sys; sys.argv = ['tracer', '--help']\n"
        "from tracer.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'scapy', 'pika', 'pyshark', 'lark', 'msgspec', 'rich', 'zstandard', 'jinja2'}\n"
        "heavy = (heavy | {'junitparser'}) & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_the_version_is_that_of_the_package() -> None:
    """Also from a source tree that was never installed."""
    assert program("--version").stdout == f"tracer {tracer.__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_completion_script(shell: str, pipeline: Pipeline) -> None:
    """Click's, which asks the program itself."""
    result = run("completion", shell)
    assert result.exit_code == 0
    assert f"_TRACER_COMPLETE={shell}_complete" in result.stdout


@pytest.mark.parametrize(
    "words, found",
    [
        (
            "tracer ",
            [
                "check",
                "calls",
                "show",
                "watch",
                "capture",
                "replay",
                "baseline",
                "extract",
                "compare",
                "grammar",
                "doctor",
                "explain",
                "completion",
            ],
        ),
        ("tracer grammar ", ["list", "show", "check", "draw"]),
        ("tracer check x --form", ["--format"]),
        ("tracer check x --format ", ["text", *FORMATS]),
        ("tracer check --where nonsense --stall nonsense x --wher", ["--where"]),
    ],
)
def test_completion_knows_commands_options_and_values(words: str, found: list[str]) -> None:
    """As bash asks, with the last word still being typed; what is wrong before it does not matter."""
    question = {
        "_TRACER_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    result = program(env={**os.environ, **question})
    assert (result.returncode, result.stderr) == (0, "")
    assert [line.partition(",")[2] for line in result.stdout.splitlines()] == found


def test_bars_are_drawn_for_a_person_alone(pipeline: Pipeline, tmp_path: Path) -> None:
    """On a terminal, unless -q; and never on standard output."""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER.format(root=str(ROOT), suite=__file__))
    drawn = {}
    for flag in ("-v", "-q"):
        ours, theirs = pty.openpty()
        command = [sys.executable, str(driver), "check", "x", "--format", "json", flag]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, timeout=60)
        os.close(theirs)
        drawn[flag] = b""
        with suppress(OSError):  # the end of a pseudo-terminal is an error
            while piece := os.read(ours, 65536):
                drawn[flag] += piece
        os.close(ours)
        assert json.loads(result.stdout)["schema"] == "tracer.check/1"
    assert b"a.pcap" in drawn["-v"]
    assert b"7 packets" in drawn["-v"]
    assert drawn["-q"] == b""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["completion", "fish"]])
def test_help_for_a_reader_that_leaves_is_no_error(arguments: list[str]) -> None:
    """0 and silence; 1 would mean that a trace deviates."""
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "tracer", *arguments],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (0, b"")


def test_remarks_that_nobody_hears_end_no_run(pipeline: Pipeline, tmp_path: Path) -> None:
    """Standard error may be a pipe that is closed, too."""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER.format(root=str(ROOT), suite=__file__))
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, str(driver), "check", "x", "-v", "--format", "json"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=writer, timeout=60)
    os.close(writer)
    assert result.returncode == 1
    assert json.loads(result.stdout)["schema"] == "tracer.check/1"


DRIVER = """
import sys, runpy
sys.path.insert(0, {root!r})
import tracer
from types import ModuleType
suite = runpy.run_path({suite!r})
stand_in = suite["Pipeline"](suite["BUILD"].report(*[suite["BUILD"].conforming(n) for n in range(400)],
                                                   suite["BUILD"].stuck()))
module = ModuleType("tracer.engine")
module.__dict__.update(check=stand_in.check, calls=stand_in.calls)
tracer.engine = sys.modules["tracer.engine"] = module
from tracer.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["check", "x", "--format", "json"], 1),
        (["check", "x", "-qv", "--where", "verdict=conforms"], 0),
        (["calls", "x"], 0),
    ],
)
def test_a_reader_that_leaves_is_no_error(arguments: list[str], code: int, tmp_path: Path) -> None:
    """`| head` ends the output quietly, and the exit code still says what was found."""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER.format(root=str(ROOT), suite=__file__))
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, str(driver), *arguments], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    os.read(reader, 10)
    os.close(reader)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, "")
