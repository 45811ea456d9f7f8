"""Traces from written lines get the verdict that captured ones get."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tracer.errors import GrammarError, UsageError
from tracer.testing import Cloud, Creation, check, conforms, written
from tracer.testing.claims import nanoseconds

EXT, INT = "External_api", "Internal_base"
REQUEST = [
    f"{EXT} REST admin > sc POST /sc/cloudhosts 202",
    f"{EXT} REST sc > lb POST /v2.1/servers 202",
    f"{INT} REST lb > nova-api POST /v2.1/servers 202",
]
INSIDE = [
    f"{INT} REST nova-api > keystone GET /v3/auth/tokens 200",
    f"{INT} REST nova-api > glance-api GET /v2/images/{{id}} 200",
    f"{INT} SQL nova-api > db SELECT quotas ok",
    f"{INT} SQL nova-api > db INSERT request_specs ok",
    f"{INT} RPC nova-api > nova-conductor cast schedule_and_build_instances ok",
]
SCHEDULED = [
    f"{INT} RPC nova-conductor > nova-scheduler call select_destinations ok",
    f"{INT} RPC nova-scheduler > nova-conductor reply select_destinations ok",
    f"{INT} RPC nova-conductor > nova-compute cast build_and_run_instance ok",
]
PORT = f"{INT} REST nova-compute > neutron-server POST /v2.0/ports 201"
START = f"{INT} REST nova-compute > vrm POST /service/sites/{{id}}/vms 202"
GOOD = [*REQUEST, *INSIDE, *SCHEDULED, PORT, START]

CASES: dict[str, tuple[list[str], str, tuple[str, str, str | None], list[tuple[str, str | None]]]] = {
    # name: lines, how it ends, (verdict, outcome, stopped at), deviations
    "all of it": (GOOD, "active", ("conforms", "active", None), []),
    "without 4d": (
        [line for line in GOOD if "INSERT" not in line],
        "active",
        ("deviates", "active", None),
        [("missing", "4d")],
    ),
    "8b fails": (
        [*GOOD[:-2], PORT.replace("201", "500")],
        "error",
        ("deviates", "error", "8b"),
        [("failed", "8b")],
    ),
    "8b refused": (
        [*GOOD[:-2], f"{INT} REST nova-compute > neutron-server CONNECT :9696 refused"],
        "error",
        ("deviates", "error", "8b"),
        [("failed", "8b")],
    ),
    "silence": (GOOD[:-3], "stuck", ("deviates", "stuck", "7"), [("stalled", "7")]),
    "the end of the capture": (GOOD[:-3], "unfinished", ("inconclusive", "unfinished", "7"), []),
    "4a refuses": (
        [line.replace("202", "401") for line in REQUEST],
        "active",
        ("deviates", "rejected", "4a"),
        [("failed", "4a")],
    ),
    "wrong plane": (
        [line.replace(INT, EXT) if "request_specs" in line else line for line in GOOD],
        "active",
        ("deviates", "active", None),
        [("plane", "4d")],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_written_trace_has_its_verdict(case: str) -> None:
    lines, ends, answer, deviations = CASES[case]
    trace = written(*lines, ends=ends)
    assert (trace.verdict.verdict, trace.outcome, trace.stopped_at) == answer
    assert [(d.kind, d.step) for d in trace.verdict.deviations] == deviations
    assert bool(trace.conforms()) == (answer[0] == "conforms")


def test_other_grammars_and_what_is_allowed() -> None:
    """The same lines against another grammar; an accepted deviation is none."""
    trace = written(*GOOD)
    assert trace == conforms("cloudvm_create")
    assert not trace == conforms("cloudvm_create_literal")  # noqa: SIM201  # what is tested
    assert trace != conforms("cloudvm_create_literal")
    assert written(*GOOD, grammar="cloudvm_create_literal", allow=["mode"]).conforms()
    assert written(*GOOD[:-3], ends="unfinished", allow=["inconclusive"]).conforms()


def test_lines_come_when_they_say() -> None:
    """In seconds; else 10 ms apart, in the order in which they are written."""
    timed = [(float(n), line) for n, line in enumerate(GOOD)]
    assert written(*reversed(timed)).before("4e", "5")
    assert written(*timed).step("5").started_ns == written(*timed).verdict.started_ns + 8 * 10**9
    assert written(*GOOD).step("5").started_ns == written(*GOOD).verdict.started_ns + 8 * 10**7


@pytest.mark.parametrize(
    "lines, more, error, words",
    [
        (["GET /v3/auth/tokens 200"], {}, UsageError, "no canonical line"),
        (GOOD, {"ends": "well"}, UsageError, "known are active, error, stuck, unfinished"),
        (GOOD, {"grammar": "nix"}, GrammarError, "no grammar 'nix'"),
    ],
)
def test_a_mistake_says_what_to_do(
    lines: list[str], more: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        written(*lines, **more).conforms()


@pytest.mark.parametrize(
    "span, ns",
    [
        ("2s", 2 * 10**9),
        ("1.5 m", 90 * 10**9),
        ("300ms", 3 * 10**8),
        ("5 us", 5000),
        ("1h", 3600 * 10**9),
        (0.25, 25 * 10**7),
        (timedelta(minutes=1), 60 * 10**9),
    ],
)
def test_spans_of_time(span: Any, ns: int) -> None:
    assert nanoseconds(span) == ns


@pytest.mark.parametrize("span", ["", "2", "s", "2 days", "-1s", "1e3s"])
def test_no_span_of_time(span: str) -> None:
    with pytest.raises(UsageError, match="no span of time"):
        nanoseconds(span)


def test_only_documented_steps_can_be_broken() -> None:
    """A slip of the pen would make a creation in which nothing breaks."""
    with pytest.raises(UsageError, match="no step '4f' to break"):
        Creation(Cloud(), breaks={"4f": "403"})
    with pytest.raises(UsageError, match="no step '8' to break"):
        Creation(Cloud(), hosts=({"compute1": {"8": "500"}},))


def test_checked_traffic_is_read_once_and_when_asked(tmp_path: Path) -> None:
    """`check` names captures; reading them is what finds that they are none."""
    with pytest.raises(UsageError, match="no captures to check"):
        check()
    cloud = Cloud()
    Creation(cloud).run()
    traffic = check(*cloud.network.write(tmp_path))
    assert traffic.report is traffic.report
    for path in tmp_path.iterdir():
        path.unlink()
    assert traffic.only().name == "web-1"
