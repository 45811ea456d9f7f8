"""Clusters: which creations stopped for the same reason, and what of it is the same."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from tracer.model import Deviation, Verdict
from tracer.reports import json
from tracer.reports.clusters import clusters, normalised

ID = "9f6acf79-0dff-4a6c-aaf7-a824b4544d46"


@pytest.mark.parametrize(
    "text, same",
    [
        (f"Build of instance {ID} aborted", "Build of instance {id} aborted"),
        (f"see req-{ID}", "see {request}"),
        ("message ID 9cab629451a9455791897a6f4b676c82", "message ID {id}"),
        ("after 3.1 s, 2 of 3", "after {n} s, {n} of {n}"),
        ("http://172.28.0.44:9696/v2.0/networks", "http://{address}/v2.0/networks"),
        ("to [fd00::1:2] from fe80::1", "to [{address}] from {address}"),
        ("fa:16:3e:00:00:01 is in use", "{address} is in use"),
        ("at 2026-11-22 07:04:08.957585: gone", "at {time}: gone"),
        ("at 2026-11-22T07:04:08Z", "at {time}"),
        ("POST /v2.1/servers answered", "POST /v2.1/servers answered"),
        ("neutron-server (10.0.0.1:9696) refused", "neutron-server ({address}) refused"),
        ("nothing volatile here", "nothing volatile here"),
        ("waited 15s for 512MB at step 8c, not 4a", "waited {n}s for {n}MB at step 8c, not 4a"),
    ],
)
def test_what_differs_for_every_vm_is_left_out(text: str, same: str) -> None:
    """Ids, addresses, times and numbers; versions in paths are no numbers."""
    assert normalised(text) == same


def test_names_and_hosts_are_left_out(build: SimpleNamespace) -> None:
    """The VM's own name and the hosts that were asked, as whole words."""
    verdict = build.stopped_at_8b()
    text = f"{verdict.name} on compute1: compute10 is not {verdict.name}b"
    assert normalised(text, verdict) == f"{{name}} on {{host}}: compute10 is not {verdict.name}b"


def test_a_hostile_cause_costs_little() -> None:
    """A megabyte of digits, dots and colons."""
    begun = time.process_time()
    for text in ("1." * 500_000, "a:" * 500_000, "0x" * 500_000, "[red]\x1b[2J" * 100_000):
        assert len(normalised(text)) <= 240
    assert time.process_time() - begun < 5


def broken(build: SimpleNamespace, **more: Any) -> Verdict:
    verdict: Verdict = build.stopped_at_8b()
    [deviation] = verdict.deviations
    known = {field: more.pop(field) for field in ("kind", "peer", "cause") if field in more}
    return replace(verdict, deviations=(replace(deviation, **known),), **more)


def test_the_same_reason_is_one_cluster(build: SimpleNamespace) -> None:
    """Whatever id and duration it is told with; members in their order, the largest cluster first."""
    causes = [
        f"no answer to POST /servers/{n}f6acf79-0dff-4a6c-aaf7-a824b4544d46 after {n}.1 s" for n in (1, 2)
    ]
    found = clusters(
        [
            broken(build, id="a", peer="neutron-server", cause="Quota exceeded"),
            build.conforming(),
            broken(build, id="b", peer="nova-api", cause=causes[0]),
            broken(build, id="c", peer="nova-api", cause=causes[1], compute_host="compute2"),
        ]
    )
    assert [[v.id for v in cluster.verdicts] for cluster in found] == [["b", "c"], ["a"]]
    assert found[0].words == found[0].cause == "no answer to POST /servers/{id} after {n} s"
    assert found[0].hosts == {"compute1": 1, "compute2": 1}
    assert (found[1].peer, found[1].words) == ("neutron-server", "Quota exceeded")


def test_a_cause_that_is_the_same_for_all_is_told_as_it_was(build: SimpleNamespace) -> None:
    """One address refused them all: that address is what the operator wants."""
    refused = "neutron-server (172.28.0.44:9696) refused the connection"
    [cluster] = clusters([broken(build, id=name, cause=refused) for name in "ab"])
    assert cluster.words == refused
    assert cluster.cause == "neutron-server ({address}) refused the connection"


@pytest.mark.parametrize(
    "different", [{"stopped_at": "8c"}, {"outcome": "stuck"}, {"kind": "stalled"}, {"peer": "cinder-api"}]
)
def test_another_place_is_another_cluster(build: SimpleNamespace, different: dict[str, str]) -> None:
    """Step, outcome, kind and peer tell reasons apart."""
    same = {"peer": "neutron-server", "cause": "it is unwell"}
    assert len(clusters([broken(build, **same), broken(build, **same)])) == 1
    assert len(clusters([broken(build, **same), broken(build, **{**same, **different})])) == 2


def test_what_could_not_be_seen_is_a_reason_too(build: SimpleNamespace) -> None:
    """Inconclusive traces: the steps and why, or that the capture ends first."""
    [blind] = clusters([build.unobserved()])
    assert (blind.kind, blind.step) == ("unobserved", None)
    assert blind.cause.startswith("4a, 4c, 4d, 5, 6 could not be seen: both ends are on controller")
    unfinished = replace(build.conforming(), verdict="inconclusive", outcome="unfinished", stopped_at="8c")
    [ends] = clusters([unfinished])
    assert (ends.kind, ends.step, ends.cause) == ("unfinished", "8c", "the capture ends first")


def test_a_deviation_of_an_active_vm_has_its_own_step(build: SimpleNamespace) -> None:
    """Nothing stopped: the step is that of what deviates."""
    wrong = Deviation("plane", "8c", "step 8c: on the wrong plane")
    [cluster] = clusters([replace(build.conforming(), verdict="deviates", deviations=(wrong,))])
    assert (cluster.kind, cluster.step, cluster.cause) == ("plane", "8c", "step 8c: on the wrong plane")


def test_clusters_in_json(build: SimpleNamespace) -> None:
    """The whole members' ids, and hosts with their counts."""
    document = msgspec.json.decode(
        json.render(
            build.report(broken(build, id="a", peer="neutron-server", cause="5 failed"), build.conforming())
        )
    )
    assert document["clusters"] == [
        {
            "count": 1,
            "outcome": "error",
            "kind": "failed",
            "step": "8b",
            "between": None,
            "peer": "neutron-server",
            "error": "{n} failed",
            "compute_hosts": {"compute1": 1},
            "traces": ["a"],
        }
    ]
