"""A creation whose REST and RPC are encrypted is found in the statements, once, and nothing is made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from lab.captures import CAPTURES, SHARED, needs_shared
from lab.darkening import AMQP, REST, SQL, dark_copy

from tracer.engine import Settings, check
from tracer.model import Verdict

DARK = {
    "REST and RPC": (REST | AMQP, ""),
    "REST": (REST, ""),
    "RPC": (AMQP, ""),
    "REST inside and RPC": (REST | AMQP, "Internal_base"),
    "REST outside": (REST, "External_api"),
}
SCENARIOS = ["fail-no-valid-host", "fail-vrm-500-reschedule"]


def truth(source: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((source / "truth.json").read_text(encoding="utf-8"))[
        "creates"
    ]
    return found


def verdicts(source: Path, folder: Path, what: str, stall_s: float = 60) -> Sequence[Verdict]:
    ports, only = DARK[what]
    return check(dark_copy(source, folder, ports, only), Settings(stall_s=stall_s)).verdicts


@pytest.mark.parametrize("what", DARK)
@pytest.mark.parametrize("name", SCENARIOS)
def test_each_creation_is_found_once(tmp_path: Path, name: str, what: str) -> None:
    found = verdicts(CAPTURES / name, tmp_path, what)
    assert [(v.server_id, v.request_id, v.outcome) for v in found] == [
        (each["server_id"], each["request_id"], each["outcome"]) for each in truth(CAPTURES / name)
    ]


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_only_statements_tell_of_has_a_name_a_project_and_its_hosts(tmp_path: Path, name: str) -> None:
    (verdict,) = verdicts(CAPTURES / name, tmp_path, "REST and RPC")
    (true,) = truth(CAPTURES / name)
    assert verdict.name == true["name"]
    assert verdict.project_id
    assert list(verdict.attempts) == true["attempted_hosts"]


@pytest.mark.parametrize("what", DARK)
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_step_is_missing_in_the_dark(tmp_path: Path, name: str, what: str) -> None:
    for verdict in verdicts(CAPTURES / name, tmp_path, what):
        assert "missing" not in {step.status for step in verdict.steps}
        assert verdict.outcome != "active" or verdict.verdict == "inconclusive"


def test_an_error_without_evidence_of_a_step_stopped_between_two(tmp_path: Path) -> None:
    (verdict,) = verdicts(CAPTURES / "fail-no-valid-host", tmp_path, "REST and RPC")
    assert verdict.stopped_at is None
    assert verdict.stopped_between is not None
    assert verdict.stopped_between[0] == "4d"
    assert "No valid host" in verdict.summary


def test_a_message_that_nobody_was_seen_to_take_is_no_stall(tmp_path: Path) -> None:
    (verdict,) = verdicts(CAPTURES / "fail-conductor-down", tmp_path, "REST and RPC", 20)
    assert (verdict.outcome, verdict.verdict) == ("unfinished", "inconclusive")


@pytest.mark.parametrize("name", ["fail-400", "fail-401"])
def test_a_refused_request_that_left_no_row_is_no_trace(tmp_path: Path, name: str) -> None:
    assert not verdicts(CAPTURES / name, tmp_path, "REST and RPC")


def test_where_all_is_dark_there_is_no_trace(tmp_path: Path) -> None:
    paths = dark_copy(CAPTURES / "fail-no-valid-host", tmp_path, REST | AMQP | SQL)
    assert not check(paths, Settings()).verdicts


@needs_shared
@pytest.mark.parametrize(
    ("name", "outcomes"),
    [
        ("tls-ok-image", ["active"]),
        ("tls-fail-quota-403", ["active"]),
        ("tls-fail-no-valid-host", ["error"]),
        ("tls-ok-image-mid-session", ["active"]),
    ],
)
def test_real_tls_without_keys(name: str, outcomes: list[str]) -> None:
    found = check([str(SHARED / name)], Settings()).verdicts
    assert [verdict.outcome for verdict in found] == outcomes
    assert all(verdict.verdict == "inconclusive" for verdict in found if verdict.outcome == "active")


@needs_shared
def test_the_servers_of_one_request_are_found_where_its_messages_are_dark(tmp_path: Path) -> None:
    found = verdicts(SHARED / "ok-multi-3", tmp_path, "RPC")
    assert {v.server_id for v in found} == {each["server_id"] for each in truth(SHARED / "ok-multi-3")}
