"""What TLS hides is told: the connections by plane and roles, the steps, and the ways out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lab.captures import CAPTURES
from lab.darkening import AMQP, REST, dark_copy

from tracer.engine import Settings, check
from tracer.model import Capture, Connection, Endpoint, Report, Undecoded
from tracer.openstack.services import BROKER
from tracer.reports import dark_words
from tracer.reports import json as as_json
from tracer.topology import Topology


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("dark")
    return check(dark_copy(CAPTURES / "fail-vrm-500-reschedule", folder, REST | AMQP), Settings())


def test_the_broker_hides_the_steps_by_rpc(report: Report) -> None:
    hidden = {step for group in report.dark if group.callee == BROKER for step in group.steps}
    assert hidden == {"4e", "5", "6", "7"}


def test_each_connection_is_counted_once(report: Report) -> None:
    undecoded = sum(capture.undecoded_streams for capture in report.captures)
    assert sum(group.connections for group in report.dark) == undecoded


def test_groups_that_hide_steps_come_first_and_are_bounded(report: Report) -> None:
    hides = [bool(group.steps) for group in report.dark]
    assert hides == sorted(hides, reverse=True)
    assert len(dark_words(report)) <= 13


def test_the_advice_names_three_ways_out(report: Report) -> None:
    said = " ".join(report.advice)
    assert all(way in said for way in ("--keylog", "behind the point where TLS ends", "--amqp"))


def test_json_tells_the_same(report: Report) -> None:
    told = json.loads(b"".join(as_json.pieces(report)))
    assert [group["connections"] for group in told["dark"]] == [g.connections for g in report.dark]


def test_a_vrm_is_known_by_a_client_of_the_broker_that_calls_its_port(report: Report) -> None:
    assert report.grammar == "cloudvm_create"
    assert next(step for step in report.verdicts[0].steps if step.step == "8c").status == "unobserved"


def test_a_choice_by_what_was_not_seen_says_what_cannot_be_read(tmp_path: Path) -> None:
    paths = dark_copy(CAPTURES / "fail-no-valid-host", tmp_path, REST | AMQP)
    reason = check(paths, Settings()).grammar_reason
    assert "cannot be read (TLS)" in reason


def test_plain_captures_tell_of_no_tls() -> None:
    found = check([str(CAPTURES / "fail-no-valid-host")], Settings())
    assert not found.dark
    assert "TLS" not in found.grammar_reason


@pytest.mark.parametrize(("reason", "hides"), [("tls: no key", True), ("unknown protocol", False)])
def test_only_what_is_encrypted_may_hide_requests(reason: str, hides: bool) -> None:
    """A session of SSH beside a cloud makes no trace of a lone statement."""
    topology = Topology([Capture(0, "a.pcap")])
    ends = Endpoint("10.0.0.1", 40_000), Endpoint("10.0.0.2", 2222)
    topology.evidence.undecoded(Undecoded(Connection(1, *ends, 0, captures=[0]), 1, reason, ()))
    assert topology.evidence.may_hide_requests() is hides
