"""Two nova-apis that clients ask themselves, each with one address for them and another one inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tracer.engine import check
from tracer.model import Verdict
from tracer.settings import Settings
from tracer.testing import SPREAD, Cloud, UpstreamCreation
from tracer.testing.cloud import Layout

OUTSIDE = {"nova-api": "10.10.0.11", "nova-api-2": "10.10.0.12"}
INSIDE = {"nova-api": "172.28.0.11", "nova-api-2": "172.28.0.12"}


class TwoApis(Cloud):
    """A cloud without a load balancer, whose clients know both nova-apis."""

    def __init__(self) -> None:
        super().__init__(Layout(dict(SPREAD.address)), portal=False, proxy=False)

    def from_outside(self, at: float, service: str, *more: Any, api: str = "nova-api", **named: Any) -> None:
        known = self.address
        if service == "nova-api":
            self.address = {**known, "nova-api-outside": OUTSIDE[api]}
        super().from_outside(at, service, *more, api=api, **named)
        self.address = known


def judged(folder: Path, before: int, breaks: dict[str, str]) -> dict[str, Verdict]:
    """Two creations at once, one at each nova-api, after *before* good ones (the first at the second)."""
    cloud = TwoApis()
    cloud.background(0, 200)
    for n, api in enumerate(list(OUTSIDE)[::-1][:before]):
        UpstreamCreation(cloud, at=20 + 20 * n, name=f"good-{n}", api=api, token=f"gAAAAAB{n:060}").run()
    for n, api in enumerate(OUTSIDE):
        UpstreamCreation(
            cloud, at=100 + 0.005 * n, name=api, api=api, breaks=breaks, token=f"gAAAAAB{10 + n:060}"
        ).run()
    return {v.name or "": v for v in check(cloud.network.write(folder), Settings()).verdicts}


REFUSED = {
    "keystone": ({"4a": "refused"}, "4a"),
    "glance": ({"4a": "cached", "4b": "glance refused"}, "4b"),
}


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("callee", REFUSED)
def test_what_was_refused_to_one_is_not_told_of_the_other(callee: str, before: int, tmp_path: Path) -> None:
    """The refused connections carry no id; what each asked for a request before shows its inner address."""
    breaks, step = REFUSED[callee]
    found = judged(tmp_path, before, breaks)
    for api, inside in INSIDE.items():
        assert (found[api].outcome, found[api].stopped_at) == ("rejected", step)
        assert f"refused the connection of nova-api ({inside})" in found[api].summary
    assert {found[f"good-{n}"].verdict for n in range(before)} == {"conforms"}


@pytest.mark.parametrize("callee, step", [("keystone", "4a"), ("glance", None)])
def test_where_nothing_was_seen_before_nothing_is_said_of_a_connection(
    callee: str, step: str | None, tmp_path: Path
) -> None:
    """Either may be the one that was refused. The answer names keystone; of glance it says nothing."""
    breaks, _ = REFUSED[callee]
    found = judged(tmp_path, 0, breaks)
    for api in INSIDE:
        assert (found[api].outcome, found[api].stopped_at) == ("rejected", step)
        assert "refused the connection" not in found[api].summary


@pytest.mark.parametrize(
    "words",
    [
        "The server is currently unavailable. Please try again at a later time.",
        "The Keystone service is temporarily unavailable.",
    ],
)
@pytest.mark.parametrize("grammar", ["cloudvm_create", "openstack_create"])
def test_a_token_that_could_not_be_validated_is_told_by_the_answer(
    grammar: str, words: str, tmp_path: Path
) -> None:
    """keystone is not in the captures: the words of keystonemiddleware name the step."""

    class Away(UpstreamCreation):
        def step_4a(self) -> tuple[int | str, Any]:
            return 503, {"message": words}

    cloud = Cloud(SPREAD, portal=False)
    cloud.background(0, 200)
    Away(cloud, at=100).run()
    (verdict,) = check(cloud.network.write(tmp_path), Settings(grammar=grammar)).verdicts
    assert (verdict.outcome, verdict.stopped_at) == ("rejected", "4a")
