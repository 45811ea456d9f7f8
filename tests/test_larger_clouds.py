"""More than one of something, and services in other places: creations there conform, and failures are told.

grammars/README.md has the table. All of these are made conversations; of the cluster, of the paths and of
quorum queues there are real captures, too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lab.larger_clouds import (
    BrokerCluster,
    GaleraBehindProxy,
    OtherPorts,
    PathPrefixes,
    SixOnly,
    TlsEndsAtProxy,
    TwoCells,
    chunked,
    until_closed,
)

from tracer.engine import check
from tracer.model import Verdict
from tracer.settings import Settings
from tracer.testing import Cloud, UpstreamCreation

REASON = "the virtual switch is not there"
Made = tuple[Callable[..., Cloud], Callable[[Cloud], None] | None]
CLOUDS: dict[str, Made] = {
    "two cells": (TwoCells, None),
    "a cluster of brokers": (BrokerCluster, None),
    "Galera behind a proxy": (GaleraBehindProxy, None),
    "answers in chunks": (Cloud, chunked),
    "answers until the end of the connection": (Cloud, until_closed),
    "path prefixes": (PathPrefixes, None),
    "TLS ends at the proxy": (TlsEndsAtProxy, None),
    "IPv6 only": (SixOnly, None),
    "other ports": (OtherPorts, None),
}
HIDDEN = {"TLS ends at the proxy": {"2"}}
"""Steps that nothing in the captures can show."""


def judged(folder: Path, which: str, proxy: bool = True, **options: Any) -> Verdict:
    made, change = CLOUDS[which]
    cloud = made(portal=False, proxy=proxy)
    cloud.background(0, 200)
    UpstreamCreation(cloud, at=100, reason=REASON, **options).run()
    if change is not None:
        change(cloud)
    (verdict,) = check(cloud.network.write(folder), Settings()).verdicts
    assert verdict.grammar == "openstack_create"
    return verdict


def unobserved(verdict: Verdict) -> set[str]:
    return {step.step for step in verdict.steps if step.status == "unobserved"}


BESIDE_A_PROXY = [
    (which, proxy) for which in CLOUDS for proxy in (True, False) if proxy or which not in HIDDEN
]


@pytest.mark.parametrize("volume", [False, True], ids=["image", "volume"])
@pytest.mark.parametrize(("which", "proxy"), BESIDE_A_PROXY)
def test_a_good_creation_conforms(which: str, volume: bool, proxy: bool, tmp_path: Path) -> None:
    """With a load balancer or without; it is inconclusive only by what is encrypted."""
    verdict = judged(tmp_path, which, proxy, volume=volume, hosts=[{"compute2": {}}])
    assert unobserved(verdict) == HIDDEN.get(which, set())
    assert (verdict.outcome, verdict.compute_host) == ("active", "compute2")
    assert verdict.verdict == ("inconclusive" if which in HIDDEN else "conforms"), verdict.deviations


@pytest.mark.parametrize("which", CLOUDS)
def test_a_reschedule_tells_why(which: str, tmp_path: Path) -> None:
    verdict = judged(tmp_path, which, hosts=[{"compute2": {"8c": "fails"}, "compute3": {}}])
    assert (verdict.outcome, verdict.attempts) == ("active", ("compute2", "compute3"))
    assert (verdict.attempt_details[0].stopped_at, verdict.attempt_details[0].error) == ("8c", REASON)


STOPS: dict[str, tuple[dict[str, str], str, str]] = {
    "quota": ({"4c": "403"}, "rejected", "4c"),
    "policy": ({"4b": "403"}, "rejected", "4b"),
    "token": ({"4a": "404"}, "rejected", "4a"),
    "database": ({"4d": "error"}, "rejected", "4d"),
    "no conductor": ({"4e": "undelivered"}, "stuck", "5"),
    "no host": ({"6": "failure"}, "error", "6"),
    "host is down": ({"7": "undelivered"}, "stuck", "8b"),
    "network": ({"8b": "503"}, "error", "8b"),
    "hypervisor": ({"8c": "aborts"}, "error", "8c"),
    "hypervisor hangs": ({"8c": "hangs"}, "stuck", "8c"),
}


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("which", CLOUDS)
def test_a_failure_is_told(which: str, stop: str, tmp_path: Path) -> None:
    breaks, outcome, step = STOPS[stop]
    verdict = judged(tmp_path, which, breaks=breaks, hosts=[{"compute2": {}}])
    assert (verdict.outcome, verdict.stopped_at) == (outcome, step), verdict.summary
