"""Proxies are learnt from requests that anybody may send: what a forged Host costs, and what it breaks."""

from __future__ import annotations

import time

import pytest

from tracer.model import Connection, Endpoint, RestFacts
from tracer.topology.fronts import MOST_SEEN, Fronts

MADE = Connection(1, Endpoint("10.0.0.1", 40_000), Endpoint("10.0.0.2", 8774), 0)


def forwarded(host: str) -> RestFacts:
    return RestFacts("GET", "/v2.1/servers", host=host, forwarded_for="10.0.0.9")


def test_forged_hosts_are_bounded() -> None:
    """With each request another Host: not all are kept, and to ask for a role costs no more with them."""
    fronts = Fronts()
    for n in range(3 * MOST_SEEN):
        fronts.forwards(MADE, forwarded(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:8774"))
    assert len(fronts.seen) == MOST_SEEN
    begun = time.process_time()
    for _ in range(50_000):
        assert not fronts.is_asked_for("glance-api")
    assert time.process_time() - begun < 1.0
    assert fronts.is_asked_for("nova-api")


@pytest.mark.parametrize("port", ["²", "8774²", "99999999999", "9" * 5000, "-1", " 1"])
def test_a_port_that_is_no_number_names_no_proxy(port: str) -> None:
    assert Fronts().forwards(MADE, forwarded(f"10.0.0.3:{port}")) is None
