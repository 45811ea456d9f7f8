"""Which grammar a creation is checked against: what is seen decides, and the report says which and why."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from lab.judging import judge, only
from lab.stepped import Stepped

import tracer.engine.run
import tracer.engine.workflows
from tracer.engine import Settings, Stages, comparison, learn, load_workflows
from tracer.engine.workflows import DOCUMENTED, UPSTREAM, common
from tracer.errors import UsageError
from tracer.grammar import Grammar, load, shipped
from tracer.live.run import open_watch
from tracer.model import Capture, Report
from tracer.reports import choice_words
from tracer.reports import json as json_report
from tracer.settings import ALL, AUTO
from tracer.testing.cloud import COLOCATED, SPREAD, Cloud
from tracer.testing.creation import Creation
from tracer.testing.operations import Operation
from tracer.topology import GivenTopology

STAND_IN = """// Creation of a server, in place of the one that is shipped
%import cloudvm_create (start, begins, harmless, refusals, step_1, step_8c, APPLY, VM_CREATE)
%override step_1: APPLY?          // ask for a server
%override step_8c: VM_CREATE?     // start it
"""


@pytest.fixture(autouse=True)
def _both_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both grammars of a creation can be chosen, though one of them may not be shipped yet."""
    if UPSTREAM in shipped():
        return
    folder = tmp_path / "grammars"
    folder.mkdir()
    (folder / f"{UPSTREAM}.lark").write_text(STAND_IN)

    @functools.cache
    def found(name: str) -> Grammar:
        return load(folder / f"{name}.lark" if name == UPSTREAM else name)

    monkeypatch.setattr(tracer.engine.workflows, "load", found)
    monkeypatch.setattr(tracer.engine.workflows, "shipped", lambda: [*shipped(), UPSTREAM])


def without(cloud: Cloud, *roles: str) -> Cloud:
    """Leave out every connection with an end of one of *roles*, as if it was not captured."""
    gone = {cloud.address[role] for role in roles}
    cloud.network.events = [e for e in cloud.network.events if not gone & {e[1].client[0], e[1].server[0]}]
    return cloud


def ports(cloud: Cloud, *kept: int) -> Cloud:
    cloud.network.events = [e for e in cloud.network.events if e[1].server[1] in kept]
    return cloud


def refused_by_a_vrm(cloud: Cloud) -> None:
    without(cloud, "admin", "vrm")
    cloud.rest(100.6, "compute1", "vrm", "GET", "/", "refused")


def someone_else_tries_its_port(cloud: Cloud) -> None:
    without(cloud, "admin", "vrm")
    cloud.rest(100.6, "glance-api", "vrm", "GET", "/", "refused")


def a_scraper_asks_the_client(cloud: Cloud) -> None:
    without(cloud, "admin", "vrm")
    for n in range(5):
        client = cloud.address["sc"]
        cloud._leg(99.0 + n, "10.10.0.77", client, 9100, "GET", "/metrics", 200, 0.01, {}, None, {}, None)


def the_driver_names_itself(cloud: Cloud) -> None:
    without(cloud, "admin", "vrm")
    cloud.rest(
        100.6, "compute1", "neutron-server", "GET", "/v2.0/networks",
        agent="fc-nova-compute keystoneauth1/5.0.0 python-requests/2.28.1 CPython/3.11.2",
    )  # fmt: skip


SEEN: list[tuple[str, Callable[[Cloud], object], str, str]] = [
    # what is captured, the grammar, words of the reason
    ("all", lambda cloud: cloud, DOCUMENTED, "a vrm was called"),
    ("no portal", lambda cloud: without(cloud, "admin"), DOCUMENTED, "a vrm was called"),
    ("the portal, no VRM", lambda cloud: without(cloud, "vrm"), DOCUMENTED, "an sc took an order"),
    ("neither", lambda cloud: without(cloud, "admin", "vrm"), UPSTREAM, "External_api and Internal_base"),
    ("the inside", lambda cloud: without(cloud, "sc", "vrm"), UPSTREAM, "no sc on Internal_base"),
    ("the broker alone", lambda cloud: ports(cloud, 5672), UPSTREAM, "no vrm and no sc on Internal_base"),
    ("the VRM is down", refused_by_a_vrm, DOCUMENTED, "nova-compute called the port of a vrm"),
    ("a port like the VRM's", someone_else_tries_its_port, UPSTREAM, "no vrm"),
    ("a client that is scraped", a_scraper_asks_the_client, UPSTREAM, "no vrm"),
    ("the vendor's program", the_driver_names_itself, DOCUMENTED, "fc-nova-compute was seen"),
]


@pytest.mark.parametrize("seen, change, grammar, words", SEEN, ids=[row[0] for row in SEEN])
def test_what_is_seen_chooses(
    seen: str, change: Callable[[Cloud], object], grammar: str, words: str, tmp_path: Path
) -> None:
    """A VRM or a portal: the documented flow; else upstream's, and the reason says what was captured."""
    cloud = Cloud(SPREAD)
    cloud.background(60, 260)
    Creation(cloud).run()
    change(cloud)
    report = judge(cloud, folder(tmp_path), Settings())
    assert (report.grammar, only(report).grammar) == (grammar, grammar)
    assert words in report.grammar_reason


def folder(tmp_path: Path, name: str = "c") -> Path:
    made = tmp_path / name
    made.mkdir()
    return made


def hidden(tmp_path: Path, settings: Settings | None = None) -> Report:
    """A creation of which neither the portal nor the VRM is captured."""
    cloud = Cloud(SPREAD)
    cloud.background(60, 260)
    Creation(cloud).run()
    return judge(without(cloud, "admin", "vrm"), folder(tmp_path, "hidden"), settings or Settings())


@pytest.mark.parametrize("role", ["vrm", "sc"])
def test_a_topology_file_that_names_a_vrm_or_a_portal_decides(role: str, tmp_path: Path) -> None:
    """Though none of its packets is captured."""
    given = tmp_path / "topology.toml"
    given.write_text(f'[roles]\n{role} = ["192.0.2.7"]\n')
    report = hidden(tmp_path, Settings(topology=given))
    assert (report.grammar, report.grammar_reason) == (DOCUMENTED, f"the topology file names a {role}")


def test_a_refusal_of_the_portal_shows_the_portal(tmp_path: Path) -> None:
    """It asked the cloud for nothing: its refusal alone is the trace, as of the documented flow."""
    cloud = Cloud(SPREAD)
    cloud.background(60, 200)
    Creation(cloud, breaks={"1": "403"}).run()
    report = judge(cloud, folder(tmp_path), Settings())
    assert (report.grammar, report.grammar_reason) == (DOCUMENTED, "an sc took an order")
    assert (only(report).outcome, only(report).stopped_at) == ("rejected", "1")


def test_who_asks_for_a_grammar_gets_it(tmp_path: Path) -> None:
    """Nothing is chosen then; the text says that it was asked for."""
    report = hidden(tmp_path, Settings(grammar=DOCUMENTED))
    assert (report.grammar, report.grammar_reason) == (DOCUMENTED, "")
    assert "grammar_reason" not in json.loads(json_report.render(report))
    assert choice_words(report) == f"checked against {DOCUMENTED}: asked for"


def test_the_document_says_which_and_why(tmp_path: Path) -> None:
    document = json.loads(json_report.render(hidden(tmp_path)))
    assert document["grammar"] == document["traces"][0]["grammar"] == UPSTREAM
    assert document["grammar_reason"].startswith("no vrm and no sc on ")


def test_a_baseline_decides(tmp_path: Path) -> None:
    """Times are compared step by step, under the grammar under which they were learnt."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 300)
    for n in range(6):
        Creation(cloud, at=20 + 40 * n, name=f"web-{n}").run()
    learnt, count = learn(judge(cloud, folder(tmp_path, "good"), Settings()))
    (tmp_path / "usual.json").write_bytes(learnt)
    assert count == 6
    report = hidden(tmp_path, Settings(baseline=tmp_path / "usual.json"))
    assert (report.grammar, report.grammar_reason) == (DOCUMENTED, "the baseline was learnt under it")


COMMON = [
    # chosen, given in files, the grammar for both
    ([DOCUMENTED, DOCUMENTED], [], ""),
    ([DOCUMENTED, UPSTREAM], [], DOCUMENTED),
    ([DOCUMENTED], [UPSTREAM], UPSTREAM),
    ([UPSTREAM], [DOCUMENTED], DOCUMENTED),
    ([UPSTREAM], ["mine"], ""),
]


@pytest.mark.parametrize("chosen, fixed, grammar", COMMON)
def test_two_reports_are_compared_under_one(chosen: list[str], fixed: list[str], grammar: str) -> None:
    """A report in a file stays as it is."""
    assert common(chosen, fixed) == grammar


# --- each operation against its own -----------------------------------------------------------------


def mixed(cloud: Cloud) -> list[tuple[str, str, str]]:
    """Make a creation, a stop, a failing and a refused delete: (request id, grammar, outcome) of each."""
    made = Creation(cloud, name="web-1").run()
    server_id = made.server_ids[0]
    stop = Operation(cloud, server_id, at=120, stops=True).run()
    delete = Operation(cloud, server_id, at=140, breaks={"6": "500"}).run()
    refused = Operation(cloud, cloud.fresh_id(), at=160, breaks={"4b": "404"}).run()
    return [
        (made.request_id, DOCUMENTED, "active"),
        (stop.request_id, "server_stop", "done"),
        (delete.request_id, "server_delete", "error"),
        (refused.request_id, "server_delete", "rejected"),
    ]


@pytest.mark.parametrize("layout", [SPREAD, COLOCATED], ids=["spread", "colocated"])
def test_all_tells_the_operations_apart(layout: object, tmp_path: Path) -> None:
    """One pass; each trace with its grammar, in order of time; the verdicts are those under each alone."""
    cloud = Cloud(layout)  # type: ignore[arg-type]
    cloud.background(0, 260)
    expected = mixed(cloud)
    captures = cloud.network.write(folder(tmp_path))
    report = tracer.engine.check(captures, Settings(grammar=ALL))
    assert (report.grammar, len({v.id for v in report.verdicts})) == (ALL, 4)
    assert [(v.request_id, v.grammar, v.outcome) for v in report.verdicts] == expected
    for grammar in dict.fromkeys(row[1] for row in expected):
        alone = tracer.engine.check(captures, Settings(grammar=grammar)).verdicts
        assert [v for v in report.verdicts if v.grammar == grammar] == list(alone)


def test_all_tells_each_call_its_traces(tmp_path: Path) -> None:
    cloud = Cloud(SPREAD)
    cloud.background(0, 260)
    expected = mixed(cloud)
    calls = tracer.engine.calls(cloud.network.write(folder(tmp_path)), Settings(grammar=ALL))
    assert {trace for call in calls for trace in call.traces} == {row[0] for row in expected}


def test_several_workflows_are_no_baseline_and_no_comparison(tmp_path: Path) -> None:
    cloud = Cloud(SPREAD)
    cloud.background(60, 200)
    Creation(cloud).run()
    report = judge(cloud, folder(tmp_path), Settings(grammar=ALL))
    document = comparison.decode(json_report.render(report), "before")
    with pytest.raises(UsageError, match="steps of several workflows"):
        comparison.compare(document, document, ("before", "after"))
    with pytest.raises(UsageError, match="a baseline is of one workflow"):
        learn(report)


# --- the choice itself ------------------------------------------------------------------------------


def test_a_sign_settles_the_choice() -> None:
    """Before one was seen the choice may change, after it never."""
    workflows = load_workflows(AUTO)
    assert [workflows.choose(sign) for sign in ("", "", "a vrm was called", "")] == [True, False, True, False]
    assert (workflows.chosen.name, workflows.is_settled) == (DOCUMENTED, True)
    assert workflows.reason({"Internal_base"}) == "a vrm was called"


def test_a_grammar_that_is_asked_for_is_settled() -> None:
    workflows = load_workflows(DOCUMENTED)
    assert (workflows.is_settled, workflows.choose("a vrm was called"), workflows.reason(())) == (
        True,
        False,
        "",
    )


# --- live -------------------------------------------------------------------------------------------


def followed(build: Callable[[Cloud], None]) -> tuple[Stages, list[tuple[str, str, str]]]:
    """Follow what *build* makes; return the stages and (event, grammar, message) of verdicts and troubles."""
    cloud = Cloud(SPREAD)
    cloud.background(0, 260, every=5)
    build(cloud)
    planes = cloud.network.packets()
    packets = sorted(
        (time_ns, capture, frame)
        for capture, plane in enumerate(sorted(planes))
        for time_ns, frame in planes[plane]
    )
    captures = [Capture(number, plane, plane) for number, plane in enumerate(sorted(planes))]
    stages = Stages(captures, GivenTopology(), Settings(), load_workflows(AUTO))
    told = Stepped(stages).events_of(packets)
    return stages, [
        (e.kind, e.verdict.grammar if e.verdict else "", e.message)
        for e in told
        if e.kind in ("verdict", "trouble")
    ]


def test_a_verdict_that_was_told_stays_when_the_vendor_is_seen_later() -> None:
    """The first creations show neither; a later one calls a VRM: said once, and the next go by it."""

    def build(cloud: Cloud) -> None:
        Creation(cloud, at=20, name="first").run()
        without(cloud, "admin", "vrm")
        Creation(cloud, at=100, name="second").run()

    stages, told = followed(build)
    (kind, grammar, _), (trouble, _, words), *later = told
    assert (kind, grammar, trouble) == ("verdict", UPSTREAM, "trouble")
    assert words.startswith(f"from now on checked against {DOCUMENTED}: ")
    assert words.endswith(f"the verdict before rests on {UPSTREAM}")
    assert [row[:2] for row in later] == [("verdict", DOCUMENTED)]
    assert stages.workflows.name == DOCUMENTED


def test_what_is_seen_before_the_first_verdict_decides_in_silence() -> None:
    """The VRM is called at the end of the first creation, and nothing was told by then."""

    def build(cloud: Cloud) -> None:
        Creation(cloud, at=20, name="first").run()
        without(cloud, "admin")

    _, told = followed(build)
    assert [row[:2] for row in told] == [("verdict", DOCUMENTED)]


def test_a_live_run_follows_one_workflow() -> None:
    with pytest.raises(UsageError, match="--grammar all: a live run follows one workflow; name one grammar"):
        open_watch(["Internal_base=-"], Settings(grammar=ALL), lambda event: None)
