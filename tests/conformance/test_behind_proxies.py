"""A proxy before each service, with both sides of it on the captured plane, changes no verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lab.behind_proxy import behind_proxy
from lab.judging import kinds, only

import tracer.engine
from tracer.engine import Settings
from tracer.model import Verdict
from tracer.testing.cloud import PORTS, SPREAD, Cloud
from tracer.testing.creation import Creation
from tracer.testing.packets import pcap

PROXY = "172.28.0.99"
BOTH_HOSTS = ({"compute1": {"8c": "500"}, "compute2": {}},)
CREATIONS: list[tuple[str, dict[str, Any]]] = [
    (
        "rabbitmq",
        {
            "good": {},
            "two hosts": {"hosts": BOTH_HOSTS},
            "three VMs": {"hosts": ({"compute1": {}}, {"compute2": {}}, {"compute3": {}})},
            "4e undelivered": {"breaks": {"4e": "undelivered"}},
            "4e unroutable": {"breaks": {"4e": "unroutable"}},
            "4e nacked": {"breaks": {"4e": "nacked"}},
            "4e refused": {"breaks": {"4e": "refused"}},
            "5 unacked": {"breaks": {"5": "unacked"}},
            "6 failure": {"breaks": {"6": "failure"}},
            "6 late": {"breaks": {"6": "late"}},
            "6 silent": {"breaks": {"6": "silent"}},
            "7 undelivered": {"hosts": ({"compute1": {"7": "undelivered"}},)},
        },
    ),
    (
        "db",
        {
            "good": {"volume": True},
            "4c error": {"breaks": {"4c": "error"}},
            "4c 403": {"breaks": {"4c": "403"}},
            "4d error": {"breaks": {"4d": "error"}},
            "two hosts": {"hosts": BOTH_HOSTS},
        },
    ),
    (
        "keystone",
        {
            "good": {},
            "503": {"breaks": {"4a": "503"}},
            "unanswered": {"breaks": {"4a": "unanswered"}},
            "refused": {"breaks": {"4a": "refused"}},
            "404": {"breaks": {"4a": "404"}},
        },
    ),
    (
        "glance-api",
        {
            "good": {},
            "404": {"breaks": {"4b": "glance 404"}},
            "refused": {"breaks": {"4b": "glance refused"}},
        },
    ),
    (
        "neutron-server",
        {
            "good": {},
            "4b 503": {"breaks": {"4b": "neutron 503"}},
            "8b 503": {"hosts": ({"compute1": {"8b": "503"}},)},
            "8b silent": {"hosts": ({"compute1": {"8b": "silent"}},)},
            "8b unanswered": {"hosts": ({"compute1": {"8b": "unanswered"}},)},
            "8b refused": {"hosts": ({"compute1": {"8b": "refused"}},)},
        },
    ),
    (
        "cinder-api",
        {
            "good": {"volume": True},
            "8a 500": {"volume": True, "hosts": ({"compute1": {"8a": "500"}},)},
            "8a silent": {"volume": True, "hosts": ({"compute1": {"8a": "silent"}},)},
        },
    ),
    ("placement", {"good": {}, "filtered": {"breaks": {"6": "filtered"}}}),
    (
        "vrm",
        {
            "good": {},
            "8c 500": {"hosts": ({"compute1": {"8c": "500"}},)},
            "8c silent": {"hosts": ({"compute1": {"8c": "silent"}},)},
            "two hosts": {"hosts": BOTH_HOSTS},
        },
    ),
    ("nova-api", {"good": {}, "4c 403": {"breaks": {"4c": "403"}}}),
]
CASES = [(role, what, given) for role, all_ in CREATIONS for what, given in all_.items()]


def verdicts(folder: Path, cloud: Cloud, role: str, proxy: str) -> list[Verdict]:
    paths = []
    for point, packets in sorted(cloud.network.packets().items()):
        path = folder / f"{point}.pcap"
        if proxy:
            packets = behind_proxy(packets, cloud.address[role], PORTS[role], proxy)
        path.write_bytes(pcap(packets))
        paths.append(str(path))
    return tracer.engine.check(paths, Settings()).verdicts


def essence(verdict: Verdict) -> object:
    steps = [(s.step, s.status) for s in verdict.steps]
    hosts = [(a.host, a.stopped_at) for a in verdict.attempt_details]
    return verdict.verdict, verdict.outcome, verdict.stopped_at, kinds(verdict), steps, hosts


@pytest.mark.parametrize(("role", "what", "given"), CASES, ids=[f"{role} {what}" for role, what, _ in CASES])
def test_a_proxy_changes_no_verdict(tmp_path: Path, role: str, what: str, given: dict[str, Any]) -> None:
    cloud = Cloud(SPREAD)
    cloud.background(0, 260, every=20)
    Creation(cloud, **given).run()
    plain, behind = (verdicts(tmp_path, cloud, role, proxy) for proxy in ("", PROXY))
    assert [essence(v) for v in behind] == [essence(v) for v in plain]
    # Each call and each statement is there once.
    assert [len(v.calls) for v in behind] == [len(v.calls) for v in plain]
    address = cloud.address[role]
    said = [v.summary.replace(PROXY, address) for v in behind]
    assert [s.split(" (after")[0] for s in said] == [v.summary.split(" (after")[0] for v in plain]


@pytest.mark.parametrize(
    "roles", [("rabbitmq", "db"), ("neutron-server", "cinder-api", "placement", "keystone")]
)
def test_proxies_before_several_services(tmp_path: Path, roles: tuple[str, ...]) -> None:
    cloud = Cloud(SPREAD)
    cloud.background(0, 200, every=20)
    Creation(cloud, volume=True, hosts=BOTH_HOSTS).run()
    paths = []
    for point, packets in sorted(cloud.network.packets().items()):
        for role in roles:
            packets = behind_proxy(packets, cloud.address[role], PORTS[role], PROXY)
        (tmp_path / f"{point}.pcap").write_bytes(pcap(packets))
        paths.append(str(tmp_path / f"{point}.pcap"))
    verdict = only(tracer.engine.check(paths, Settings()))
    assert (verdict.verdict, verdict.outcome, verdict.compute_host) == ("conforms", "active", "compute2")
