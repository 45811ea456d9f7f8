"""Requests that overlap at one nova-api and are answered with one id are two, each with its own calls."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.judging import judge

from tracer.testing.cloud import SPREAD, Cloud
from tracer.testing.creation import Creation
from tracer.testing.upstream import UpstreamCreation

TOKENS = {name: f"gAAAAABtoken-{name}-xxxxxxxxxxxxxxxxxxxx" for name in ("a", "b", "c")}


@pytest.mark.parametrize("portal, proxy", [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("names", ["ab", "abc"])
@pytest.mark.parametrize("gap_s", [0.01, 0.05, 0.1])
def test_each_is_a_trace_of_its_own(
    portal: bool, proxy: bool, names: str, gap_s: float, tmp_path: Path
) -> None:
    cloud = Cloud(SPREAD, portal=portal, proxy=proxy)
    cloud.background(0, 260)
    kind = Creation if portal else UpstreamCreation
    made = [kind(cloud, 100 + n * gap_s, name=name, token=TOKENS[name]) for n, name in enumerate(names)]
    for each in made:
        each.request_id = made[0].request_id
        each.run()
    found = judge(cloud, tmp_path).verdicts
    assert {v.name: v.server_id for v in found} == {each.name: each.server_ids[0] for each in made}
    assert {(v.outcome, v.verdict) for v in found} == {("active", "conforms")}
    assert len({v.id for v in found}) == len(names)


def test_the_failure_of_one_is_not_the_others(tmp_path: Path) -> None:
    """Of two with one id, one host fails."""
    cloud = Cloud()
    cloud.background(0, 260)
    good = Creation(cloud, 100, name="good", token=TOKENS["a"])
    bad = Creation(cloud, 100.05, name="bad", token=TOKENS["b"], hosts=({"compute2": {"8b": "503"}},))
    bad.request_id = good.request_id
    good.run()
    bad.run()
    found = {v.name: v for v in judge(cloud, tmp_path).verdicts}
    assert (found["good"].outcome, found["good"].compute_host) == ("active", "compute1")
    assert (found["bad"].outcome, found["bad"].stopped_at, found["bad"].attempts) == (
        "error",
        "8b",
        ("compute2",),
    )
