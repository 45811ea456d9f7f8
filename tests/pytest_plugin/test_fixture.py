"""The fixture and the marker, as a user's tests use them: pytest is run on tests of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

Run = Callable[..., pytest.RunResult]


def test_a_conforming_creation_passes(run: Run) -> None:
    """Whatever is claimed of it and true passes, by all ways of saying it."""
    result = run(
        "--strict-markers",
        test="""
        import pytest
        from tracer.testing import conforms

        @pytest.mark.tracer(captures="captures/ok")
        def test_creation(tracer):
            traffic = tracer.check()
            assert traffic.conforms()
            assert traffic == conforms() and traffic == tracer.conforms("cloudvm_create")
            assert len(traffic) == 1 and [t.name for t in traffic] == ["web-1"]
            trace = traffic.only(name="web-*")
            assert trace is not None and trace == conforms("cloudvm_create")
            assert trace.outcome == "active" and trace.stopped_at is None
            assert trace.before("4e", "5") and not trace.before("5", "4e")
            assert trace.step("8b").on("Internal_base") and not trace.step("8b").on("External_api")
            assert trace.step("8b").within("2s") and not trace.step("8b").within("1 us")
            assert trace.step("7").count == 1 and trace.step("8a").count == 0
            assert traffic.where(server_id=trace.server_id[:8]).only().id == trace.id
            assert traffic.only(request_id=trace.request_id).id == trace.id
            assert trace.calls[0].line.endswith("REST admin > sc POST /sc/cloudhosts 202")
        """,
    )
    result.assert_outcomes(passed=1)


REFUSED = "assert <VM web-2 * deviates: step 8b failed: neutron-server *refused the connection*"
FAILING = {
    "traffic.conforms()": REFUSED,
    "trace.conforms()": REFUSED,
    "trace == conforms('cloudvm_create')": "* == conforms('cloudvm_create')",
    "traffic == conforms()": "* == conforms()",
    "trace.step('8b').within('2s')": "assert <step 8b failed after *>",
    "trace.step('8c').on('Internal_base')": "assert <step 8c is on no plane: it was not reached>",
    "trace.before('8b', '8c')": "assert <8b before 8c: not known, 8c was not reached>",
    "trace.before('5', '4e')": "assert <5 began * s after 4e>",
}


@pytest.mark.parametrize("claim", FAILING)
def test_a_failure_ends_the_debugging(claim: str, run: Run) -> None:
    """The claim in one line, the first finding, what was expected, the steps, where to look, the ladder."""
    result = run(
        test=f"""
        import pytest
        from tracer.testing import conforms

        @pytest.mark.tracer(captures="captures/broken")
        def test_creation(tracer):
            traffic = tracer.check()
            trace = traffic.only()
            assert {claim}
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E *{FAILING[claim].removeprefix('assert ')}*"])
    result.stdout.fnmatch_lines(
        [
            "E   *✗ VM web-2 *step 8b failed: neutron-server *refused the connection of nova-compute*",
            "E   *! failed 8b*",
            "E   *  7     ok *nova-conductor > nova-compute cast build_and_run*",
            "E   *  8b    FAILED *",
            "E   *expected * nova-compute > neutron-server*",
            "E   *Int# is *captures/broken/Internal_base.pcap*",
            "*- tracer ladder -*",
            "*CONNECT :9696 refused*",
        ]
    )
    if "conforms" in claim:
        result.stdout.fnmatch_lines(["E   *! failed 8b*", "E   *expected *", "E   *  8b    FAILED *"])


def test_only_the_claim_that_failed_is_told(run: Run) -> None:
    """A claim that was meant to be false says nothing when another assertion fails."""
    result = run(
        test="""
        import pytest

        @pytest.mark.tracer(captures="captures/broken")
        def test_creation(tracer):
            assert not tracer.check().conforms()
            assert 1 == 2
        """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*FAILED *CONNECT*")
    result.stdout.no_fnmatch_line("*tracer ladder*")


def test_without_rewritten_assertions_the_story_is_told_all_the_same(run: Run) -> None:
    result = run(
        "--assert=plain",
        test="""
        def test_creation(tracer):
            assert tracer.check("captures/broken").conforms()
        """,
    )
    result.stdout.fnmatch_lines(["E   *! failed 8b*", "*- tracer ladder -*"])


def test_an_inconclusive_trace_fails_with_its_own_words(run: Run) -> None:
    """Nothing deviates and something was not seen: it says so, and how to accept it."""
    test = """
        def test_creation(tracer):
            assert tracer.check("captures/blind"{}).conforms()
        """
    result = run(test=test.format(""))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "E *assert <VM web-1 * is inconclusive: *",
            "E *inconclusive: nothing that was seen deviates, and something that is needed was not seen.",
            "E *allow=?'inconclusive'?*",
            "E *not observed: *Internal_base is not captured*",
        ]
    )
    run(test=test.format(", allow=['inconclusive']")).assert_outcomes(passed=1)
    run(test=test.format(", allow='unobserved'")).assert_outcomes(passed=1)


def test_no_trace_is_no_conformance(run: Run) -> None:
    """What is there instead is said."""
    result = run(
        test="""
        def test_all(tracer):
            assert tracer.check("captures/empty").conforms()

        def test_one(tracer):
            tracer.check("captures/ok").only(name="web-9")
        """,
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "E *assert <no trace found>*",
            "E *no trace of openstack_create in *: they hold * packets*",
            "E *no trace where there should be one with name 'web-9'*",
            "E *✓ VM web-1 *active*",
        ]
    )


def test_several_traces_are_told_with_one_line_each(run: Run) -> None:
    result = run(
        test="""
        def test_all(tracer):
            assert tracer.check("captures/mixed").conforms()

        def test_one(tracer):
            tracer.check("captures/mixed").only()
        """,
    )
    result.stdout.fnmatch_lines(
        [
            "E *assert <VM web-2 * deviates: *(and 1 more of 3 traces)>",
            "E *1 trace more:",
            "E *✗ VM web-3 *step 4c failed*",
            "E *3 traces where there should be one",
        ]
    )


# What is wrong in a marker is an error of the set-up: no line of the test is to blame.
MARKED = "import pytest\n@pytest.mark.tracer({})\ndef test_it(tracer):\n    raise SystemError\n"
CALLED = "def test_it(tracer):\n    {}\n"
MISTAKES = {
    "tracer.check()": (CALLED, "UsageError: no captures to check: *"),
    "tracer.check(5)": (CALLED, "UsageError: no path and no name: 5"),
    "tracer.check('captures/garbage')": (CALLED, "SourceError: *Internal_base.pcap*"),
    "tracer.check('captures/nowhere')": (CALLED, "SourceError: *nowhere*"),
    "tracer.check('captures/ok', grammar='nix')": (CALLED, "GrammarError: no grammar 'nix'*"),
    "tracer.check('captures/ok', grammar='./nix.lark')": (CALLED, "GrammarError: *nix.lark*"),
    "tracer.check('captures/ok', topology='nix')": (CALLED, "UsageError: nix: cannot be read: *"),
    "tracer.check('captures/ok', stall='soon')": (CALLED, "UsageError: no span of time: 'soon'*"),
    "tracer.check('captures/ok', allow='all')": (CALLED, "UsageError: *'all': no kind 'all'; known: *"),
    "tracer.check('captures/ok').only().step('8d')": (CALLED, "UsageError: no step '8d' in cloudvm_create*"),
    "tracer.record()": (CALLED, "UsageError: no source given: *"),
    "'captures/ok'": (MARKED, "tracer: @pytest.mark.tracer takes names: *"),
    "capture='captures/ok'": (MARKED, "tracer: @pytest.mark.tracer has no 'capture' *did you mean captures?"),
    "captures=5": (MARKED, "tracer: captures=5: neither a text nor a list of them"),
    "captures=[5]": (MARKED, "tracer: captures=*5*: neither a text nor a list of them"),
    "allow=5": (MARKED, "tracer: allow=5: neither a text nor a list of them"),
    "grammar=5": (MARKED, "tracer: no path and no name: 5"),
    "stall='x'": (MARKED, "tracer: no span of time: 'x'*"),
    "stall=['60s']": (MARKED, "tracer: no span of time: *60s*"),
    "stall='nan'": (MARKED, "tracer: no span of time: nan*"),
    "stall=0": (MARKED, "tracer: stall=0*: must be more than 0 seconds"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake: str, run: Run) -> None:
    """It names what, where and what to do, below the line of the test that made it, and nothing of ours."""
    test, words = MISTAKES[mistake]
    result = run("-rN", test=test.format(mistake))
    result.assert_outcomes(failed=test == CALLED, errors=test == MARKED)
    _, _, told = result.stdout.str().rpartition("___\n")
    *lines, _end = [line for line in told.splitlines() if line.strip(" ^")]
    assert len(lines) == (5 if test == CALLED else 1)
    result.stdout.fnmatch_lines([f"E *{words}" if test == CALLED else words])


@pytest.mark.parametrize(("option", "shown"), [("", False), ("--full-trace", True)])
def test_all_of_a_mistake_is_shown_when_asked_for(option: str, shown: bool, run: Run) -> None:
    result = run(*option.split(), test=CALLED.format("tracer.check('captures/nowhere')"))
    assert ("arguments.py" in result.stdout.str()) == shown


def test_the_closest_word_holds(run: Run) -> None:
    """ini file, command line, module, class, test: each beats what is before it; what is allowed adds up."""
    result = run(
        "--tracer-grammar=cloudvm_create_literal",
        "--tracer-allow=mode",
        ini="""
        [pytest]
        tracer_grammar = server_delete
        tracer_captures = captures/ok
        tracer_allow = unobserved:1
        """,
        test="""
        import pytest

        def test_command_line_beats_ini(tracer):
            traffic = tracer.check()
            assert traffic.settings.grammar == "cloudvm_create_literal"
            assert traffic.settings.allow == ("unobserved:1", "mode")
            assert traffic.captures[0].endswith("captures/ok")
            assert traffic.conforms()

        @pytest.mark.tracer(grammar="cloudvm_create", stall="2 m", allow="inconclusive")
        class TestMarked:
            def test_class_beats_command_line(self, tracer):
                settings = tracer.check().settings
                assert (settings.grammar, settings.stall_s) == ("cloudvm_create", 120)
                assert settings.allow == ("unobserved:1", "mode", "inconclusive")

            @pytest.mark.tracer(grammar="server_stop", captures=["captures/mixed"])
            def test_test_beats_class(self, tracer):
                traffic = tracer.check()
                assert traffic.settings.grammar == "server_stop"
                assert traffic.settings.stall_s == 120
                assert traffic.captures[0].endswith("captures/mixed")
                other = tracer.check("captures/ok", grammar="cloudvm_create")
                assert other.settings.grammar == "cloudvm_create"
        """,
    )
    result.assert_outcomes(passed=3)


def test_files_are_looked_for_beside_the_test_first(pytester: pytest.Pytester, run: Run) -> None:
    """Then under pytest's root; a plane before a file stays there."""
    below = pytester.mkdir("below")
    (below / "here").symlink_to(pytester.path / "captures" / "broken")
    (below / "test_below.py").write_text(
        "def test_it(tracer):\n"
        "    assert tracer.check('here').only().stopped_at == '8b'\n"
        "    assert tracer.check('captures/ok').conforms()\n"
        "    one = tracer.check('External_api=here/External_api.pcap', 'here/Internal_base.pcap')\n"
        "    assert one.only().stopped_at == '8b'\n",
        encoding="utf-8",
    )
    run("below").assert_outcomes(passed=1)


def test_another_grammar_reads_the_same_captures(run: Run) -> None:
    """What does not conform to the other one says so with that one's steps."""
    result = run(
        test="""
        from tracer.testing import conforms

        def test_it(tracer):
            trace = tracer.check("captures/ok").only()
            assert trace == conforms("cloudvm_create")
            assert trace == conforms("cloudvm_create_literal")

        def test_not_its_workflow(tracer):
            assert tracer.check("captures/ok").only() == conforms("server_delete")
        """,
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        ["E *deviates: *step 8b*", "E *no trace of server_delete*", "E *no trace of server_delete in *"]
    )


def test_the_marker_is_known(run: Run) -> None:
    run("--markers").stdout.fnmatch_lines(
        ["@pytest.mark.tracer(grammar, topology, captures, allow, stall): *"]
    )


def test_strict_markers(run: Run) -> None:
    """The marker is registered; one that looks like it is not."""
    test = """
        import pytest

        @pytest.mark.{}(captures="captures/ok")
        def test_it(tracer):
            assert tracer.check().conforms()
        """
    run("--strict-markers", test=test.format("tracer")).assert_outcomes(passed=1)
    run("--strict-markers", test=test.format("trace")).assert_outcomes(errors=1)


def test_the_plugin_loads_nothing() -> None:
    """A run that does not use it imports no stage, no report, no library of ours."""
    program = (
        "import pytest, sys; before = set(sys.modules); import tracer.pytest_plugin; "
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == ["tracer", "tracer.pytest_plugin", "tracer.pytest_plugin.stash"]


def test_it_is_invisible_until_used(run: Run) -> None:
    """A suite that does not ask for it never hears of it, not even when a test fails."""
    result = run("-q", test="def test_nothing():\n    assert {1: 2} == {1: 3}\n")
    result.assert_outcomes(failed=1)
    assert "tracer" not in result.stdout.str()


def test_hostile_names_stay_on_their_line(run: Run) -> None:
    """A VM's name with escapes, markup and line feeds reaches no terminal as it is."""
    result = run(
        test="""
        from tracer.testing import Cloud, Creation

        def test_it(tracer, tmp_path):
            cloud = Cloud()
            name = "\\x1b[31m<script>\\n{0}[/red] %s " + "x" * 10_000
            Creation(cloud, name=name, breaks={"4c": "403"}).run()
            cloud.network.write(tmp_path)
            assert tracer.check(tmp_path).conforms()
        """,
    )
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert "\x1b" not in text
    assert "x" * 500 not in text
    result.stdout.fnmatch_lines(["E *assert <VM ?e?31m<script>*"])
