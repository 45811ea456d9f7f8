"""Answers with one request id for several requests make no proxy of the service that gives them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lab.judging import judge, only

from tracer.testing.cloud import COLOCATED, SPREAD, Cloud, Layout
from tracer.testing.creation import Creation

SHARED = {"X-OpenStack-Request-ID": "req-00000000-0000-4000-8000-00000000000a"}


@pytest.mark.parametrize("layout", [SPREAD, COLOCATED], ids=["spread", "colocated"])
@pytest.mark.parametrize(
    ("caller", "callee", "method", "target"),
    [
        ("neutron-server", "nova-api", "POST", "/v2.1/os-server-external-events"),
        ("nova-scheduler", "placement", "GET", "/allocation_candidates"),
        ("compute2", "neutron-server", "GET", "/v2.0/ports"),
        ("nova-api", "keystone", "GET", "/v3/projects"),
    ],
)
def test_a_service_that_answers_two_requests_with_one_id_is_no_proxy(
    tmp_path: Path, layout: Layout, caller: str, callee: str, method: str, target: str
) -> None:
    cloud = Cloud(layout)
    Creation(cloud, 100).run()
    for begun, took in ((140.0, 0.6), (140.4, 0.1)):
        cloud.rest(begun, caller, callee, method, target, took=took, answer_headers=SHARED)
    cloud.background(0, 200)
    verdict = only(judge(cloud, tmp_path))
    assert (verdict.verdict, verdict.outcome) == ("conforms", "active")
    assert all(step.status in ("seen", "inferred", "skipped") for step in verdict.steps)
