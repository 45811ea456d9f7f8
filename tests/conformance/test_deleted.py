"""A VM that its user deletes while it is being built: an outcome of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from lab.judging import judge, only, statuses

from tracer.model import Verdict
from tracer.testing.cloud import Cloud
from tracer.testing.creation import Creation
from tracer.testing.operations import Operation

Change = Callable[[Cloud], None]


def deleted(
    folder: Path, breaks: dict[str, str], at: float = 160, change: Change | None = None, refused: str = ""
) -> Verdict:
    cloud = Cloud()
    cloud.background(0, 400)
    host = {step: how for step, how in breaks.items() if step in ("7", "8a", "8b", "8c")}
    rest = {step: how for step, how in breaks.items() if step not in host}
    made = Creation(cloud, breaks=rest, hosts=({"compute1": host},)).run()
    Operation(cloud, made.server_ids[0], at, {"4b": refused} if refused else None).run()
    if change is not None:
        change(cloud)
    return only(judge(cloud, folder))


def no(*ports: int) -> Change:
    def change(cloud: Cloud) -> None:
        cloud.network.events = [e for e in cloud.network.events if e[1].server[1] not in ports]

    return change


WAITED = [
    ({"8b": "silent"}, "8b", "step 8b had not ended: neutron-server had not answered POST /v2.0/ports"),
    ({"8c": "silent"}, "8c", "step 8c had not ended: vrm had not answered POST /service/sites/"),
    ({"7": "undelivered"}, "8b", "before step 8b, owed by nova-compute on compute1"),
    ({"6": "stop"}, "6", "before step 6, owed by nova-scheduler"),
    ({"4e": "stop"}, "5", "before step 5, owed by nova-conductor"),
]


@pytest.mark.parametrize("breaks, step, words", WAITED)
def test_at_whichever_step_it_was(breaks: dict[str, str], step: str, words: str, tmp_path: Path) -> None:
    """Who deleted it, when, and what it was waiting for; nothing of it is told to have never come."""
    verdict = deleted(tmp_path, breaks)
    assert (verdict.outcome, verdict.verdict, verdict.stopped_at) == ("deleted", "deviates", step)
    assert verdict.summary.startswith("deleted after ")
    assert "by sc (DELETE /v2.1/servers/{id})" in verdict.summary and words in verdict.summary
    found = verdict.deviations[0]
    assert (found.kind, found.step) == ("stalled", step)
    assert verdict.summary.endswith(found.cause.removeprefix("deleted "))
    assert statuses(verdict)[step] != "failed"
    assert "never came" not in verdict.summary


GONE = [((8774, 8080), "nova-api"), ((8774, 8080, 3306), "nova-api"), ((), "sc")]


@pytest.mark.parametrize("gone, who", GONE)
def test_whatever_shows_it(gone: tuple[int, ...], who: str, tmp_path: Path) -> None:
    """Without HTTP of nova the message to the host shows it."""
    verdict = deleted(tmp_path, {"8c": "silent"}, change=no(*gone))
    assert verdict.outcome == "deleted"
    assert f"by {who} (" in verdict.summary


def test_what_deletes_it_is_no_part_of_its_creation(tmp_path: Path) -> None:
    """The VRM is asked to delete it, the port is freed: calls of another request."""
    verdict = deleted(tmp_path, {"8c": "silent"})
    found = [c.operation for c in verdict.calls if c.operation.startswith("DELETE")]
    assert found == ["DELETE /v2.1/servers/{id}"]


@pytest.mark.parametrize("how", ["404", "409"])
def test_a_refused_deletion_deletes_nothing(how: str, tmp_path: Path) -> None:
    """The VM is still being built."""
    assert deleted(tmp_path, {"8c": "silent"}, refused=how).outcome == "stuck"


OVER = [({}, "active"), ({"8b": "503"}, "error"), ({"8c": "500"}, "error")]


@pytest.mark.parametrize("breaks, outcome", OVER)
def test_a_deletion_after_the_end_is_another_story(
    breaks: dict[str, str], outcome: str, tmp_path: Path
) -> None:
    """What was active, or in error, is deleted all the time."""
    assert deleted(tmp_path, breaks).outcome == outcome
