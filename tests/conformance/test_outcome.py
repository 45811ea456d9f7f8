"""What became of the VM, by whatever evidence there is, and where it stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab.judging import judge, only, run, statuses

from tracer.engine import Settings
from tracer.testing.cloud import TOKEN, Cloud
from tracer.testing.creation import Creation


def on(host_breaks: dict[str, str], **more: Any) -> dict[str, Any]:
    return {"hosts": ({"compute1": host_breaks},), **more}


def no(*ports: int) -> Callable[[Cloud], None]:
    def change(cloud: Cloud) -> None:
        cloud.network.events = [e for e in cloud.network.events if e[1].server[1] not in ports]

    return change


@pytest.mark.parametrize(
    "gone",
    [(), (3306,), (5672,), (3306, 5672)],
)
def test_a_poll_alone_tells_error(gone: tuple[int, ...], tmp_path: Path) -> None:
    """The SC sees ERROR: error at the failing call of nova-compute, whatever else is not captured."""
    verdict = only(run(tmp_path, change=no(*gone), **on({"8b": "503"})))
    assert (verdict.outcome, verdict.verdict, verdict.stopped_at) == ("error", "deviates", "8b")


def test_an_error_without_a_failing_call_is_between(tmp_path: Path) -> None:
    """No broker in the capture, nothing after the request: stopped_at null, stopped_between what is known."""
    verdict = only(run(tmp_path, change=no(5672), breaks={"6": "failure"}))
    assert verdict.outcome == "error"
    assert verdict.stopped_at is None
    assert verdict.stopped_between is not None
    first, last = verdict.stopped_between
    order = list(statuses(verdict))
    assert order.index(first) < order.index("6") <= order.index(last)


def test_active_first_stays_active(tmp_path: Path) -> None:
    """What fails on a VM that was active is another story."""
    cloud = Cloud()
    cloud.background(0, 260)
    made = Creation(cloud).run()
    made.poll(0, 150, "ERROR")
    assert only(judge(cloud, tmp_path)).outcome == "active"


@pytest.mark.parametrize("end, outcome", [(150.0, "unfinished"), (155.0, "unfinished"), (190.0, "stuck")])
def test_stuck_needs_the_stall_limit(end: float, outcome: str, tmp_path: Path) -> None:
    """60 s behind the last own call; before that it is only not finished."""
    verdict = only(run(tmp_path, until=end, breaks={"5": "undelivered stop"}))
    assert (verdict.outcome, verdict.stopped_at) == (outcome, "6")
    assert verdict.verdict == ("deviates" if outcome == "stuck" else "inconclusive")


@pytest.mark.parametrize("seconds", [5, 20, 100])
def test_the_stall_limit_may_be_set(seconds: int, tmp_path: Path) -> None:
    settings = Settings(stall_s=seconds)
    assert only(run(tmp_path, until=150, settings=settings, breaks={"5": "stop"})).outcome == (
        "stuck" if seconds < 50 else "unfinished"
    )


@pytest.mark.parametrize("step", ["4a", "4b", "4c"])
def test_a_refusal_is_told_once_at_the_innermost_step(step: str, tmp_path: Path) -> None:
    """Seen at 3, 2 and 1, it is one failure with the fault's text, and ends with the answer."""
    how = {"4a": "404", "4b": "400", "4c": "403"}[step]
    verdict = only(run(tmp_path, breaks={step: how}))
    assert [(d.kind, d.step) for d in verdict.deviations] == [("failed", step)]
    found = statuses(verdict)
    assert {found["1"], found["2"], found["3"]} == {"seen"}
    assert verdict.server_id is None
    assert verdict.attempts == ()
    assert verdict.compute_host is None


def test_a_refusal_whose_words_are_lost_is_between(tmp_path: Path) -> None:
    """403 of quota or of policy: where the body does not say, the steps between which it lies."""

    def change(cloud: Cloud) -> None:
        cloud.network.events = [
            (at, made, side, flags, without_body(data), lost)
            for at, made, side, flags, data, lost in cloud.network.events
        ]

    def without_body(data: bytes) -> bytes:
        if not data.startswith(b"HTTP/1.1 403"):
            return data
        head = data.partition(b"\r\n\r\n")[0]
        lines = [line for line in head.split(b"\r\n") if not line.startswith(b"Content-")]
        return b"\r\n".join([*lines, b"Content-Length: 0", b"", b""])

    verdict = only(run(tmp_path, change=change, breaks={"4b": "403"}))
    assert verdict.outcome == "rejected"
    assert (verdict.stopped_at, verdict.stopped_between) == (None, ("4a", "4c"))


def test_times_of_a_verdict_come_from_the_capture(tmp_path: Path) -> None:
    """It starts with the first call of the creation and ends with its last sign of life."""
    from tracer.testing.packets import T0_NS

    verdict = only(run(tmp_path))
    assert verdict.started_ns == T0_NS + 100_000_000_000
    assert 0 < verdict.ended_ns - verdict.started_ns < 3_000_000_000


def test_an_error_behind_the_start_is_an_error(tmp_path: Path) -> None:
    """The VRM started it, then nova-compute gave it up, under the same request: error, and no green."""
    cloud = Cloud()
    cloud.background(0, 260)
    made = Creation(cloud, ends="nothing", polls=False).run()
    made.wait(5)
    made.save("compute1", 0, "error")
    made.poll(0, made.now + 1, "ERROR")
    verdict = only(judge(cloud, tmp_path))
    assert (verdict.outcome, verdict.verdict) == ("error", "deviates")


def test_a_statement_that_failed_beside_another_creation(tmp_path: Path) -> None:
    """The VM of the other one is known by its own calls: what is left over is the refused one's."""
    cloud = Cloud()
    cloud.background(0, 260)
    Creation(cloud, at=100, name="web-1", breaks={"4d": "error"}).run()
    Creation(cloud, at=100.05, name="web-2").run()
    found = {v.name: (v.outcome, v.stopped_at) for v in judge(cloud, tmp_path).verdicts}
    assert found == {"web-1": ("rejected", "4d"), "web-2": ("active", None)}


@pytest.mark.parametrize(
    "status, stopped",
    [
        (None, "3"),
        ("unanswered", "4b"),
        ("refused", "4b"),
    ],
)
def test_everybody_gave_up_waiting(status: str | None, stopped: str, tmp_path: Path) -> None:
    """No request on the way in was answered, all connections are closed: it hangs at the innermost call."""
    cloud = Cloud()
    cloud.background(0, 260)
    cloud.rest(100, "admin", "sc", "POST", "/sc/cloudhosts", "unanswered", took=20, body={"name": "web-1"})
    asked = {"server": {"name": "web-1"}}
    cloud.from_outside(100.01, "nova-api", "POST", "/v2.1/servers", "unanswered", 20, body=asked)
    if status is not None:
        token = {"X-Subject-Token": TOKEN}
        cloud.rest(100.1, "nova-api", "keystone", "GET", "/v3/auth/tokens", 200, headers=token)
        networks = ("nova-api", "neutron-server", "GET", "/v2.0/networks?id=1e645f04")
        cloud.rest(100.2, *networks, status, took=21, request_id=cloud.fresh_id("req-"))
    verdict = only(judge(cloud, tmp_path))
    assert (verdict.outcome, verdict.stopped_at) == ("stuck", stopped), verdict.summary
