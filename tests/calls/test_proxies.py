"""The two legs of a call through a proxy find each other, and only each other."""

from __future__ import annotations

from itertools import permutations

import pytest
from lab.judging import built

from tracer.model import Call
from tracer.testing.messages import request, response
from tracer.testing.packets import Network

SC, FRONT, LB, API = "10.10.0.10", "10.10.0.20", "172.28.0.20", "172.28.0.11"
ID = "req-3fff385c-4b13-4f7e-844a-f2d25f9d2d{:02x}"


def proxied(
    network: Network,
    at: float,
    number: int,
    *,
    name: str = "web",
    forwarded: bool = True,
    answered: bool = True,
    target: str = "/v2.1/servers",
) -> None:
    """One POST through the proxy, answered by the service behind it."""
    body = {"server": {"name": name}}
    outer = network.connection(SC, FRONT, 8774, at - 0.01)
    inner = network.connection(LB, API, 8774, at)
    outer.say(at, request("POST", target, {"Host": f"{FRONT}:8774"}, body))
    sent = {"Host": f"{FRONT}:8774"} | ({"X-Forwarded-For": SC} if forwarded else {})
    inner.say(at + 0.001, request("POST", target, sent, body))
    if answered:
        back = {"X-OpenStack-Request-ID": ID.format(number)}
        inner.hear(at + 0.2, response(202, back))
        outer.hear(at + 0.201, response(202, back))


def legs(network: Network) -> list[Call]:
    """The outer legs, each of which must have its inner one."""
    calls = built(network)
    outer = [call for call in calls if call.connection.server.address == FRONT]
    for call in outer:
        if call.back is not None:
            assert call.back.front is call
            assert call.back.connection.server.address == API
    return outer


@pytest.mark.parametrize("forwarded", [True, False])
def test_legs_are_joined_by_the_id_of_the_answer(forwarded: bool) -> None:
    """With X-Forwarded-For or without."""
    network = Network()
    proxied(network, 1, 1, forwarded=forwarded)
    (outer,) = legs(network)
    assert outer.back is not None


def test_legs_without_an_answer_are_joined_by_x_forwarded_for() -> None:
    network = Network()
    proxied(network, 1, 1, answered=False)
    (outer,) = legs(network)
    assert outer.back is not None


@pytest.mark.parametrize("order", list(permutations(range(3)))[:4])
def test_several_at_once_are_not_mixed_up(order: tuple[int, ...]) -> None:
    """Same client, same target, same name, open at once: the ids of the answers tell."""
    network = Network()
    for place, number in enumerate(order):
        proxied(network, 1 + place * 0.01, number)
    outer = legs(network)
    assert len(outer) == 3
    for call in outer:
        assert call.back is not None
        assert call.back.facts.answered_id == call.facts.answered_id  # type: ignore[union-attr]


def test_an_answer_of_the_proxy_itself_has_no_inner_leg() -> None:
    network = Network()
    outer = network.connection(SC, FRONT, 8774, 1)
    outer.say(1.1, request("POST", "/v2.1/servers", None, {"server": {"name": "web"}}))
    outer.hear(1.2, response(503))
    (call,) = legs(network)
    assert call.back is None


def test_one_leg_twice_on_one_connection_is_no_pair() -> None:
    """A repeated request on one connection is not its own proxy leg."""
    network = Network()
    made = network.connection(SC, FRONT, 8774, 1)
    for n in range(2):
        made.say(1.1 + n, request("GET", "/v2.1/flavors"))
        made.hear(1.2 + n, response(200, {"X-OpenStack-Request-ID": ID.format(1)}))
    calls = built(network)
    assert [(call.back, call.front) for call in calls] == [(None, None)] * 2


@pytest.mark.parametrize(
    "second", [(1.1, 1.4), (1.1, 1.7), (1.003, 1.5)], ids=["within", "across", "at once"]
)
@pytest.mark.parametrize(
    ("method", "target", "port"),
    [
        ("POST", "/v2.1/os-server-external-events", 8774),
        ("GET", "/v2.0/ports?device_id=1", 9696),
        ("POST", "/v2.1/servers", 18774),
    ],
)
def test_two_requests_to_one_server_are_no_legs(
    method: str, target: str, port: int, second: tuple[float, float]
) -> None:
    """They overlap, and an old nova answers both with one id."""
    network = Network()
    for client, (begun, ended) in (("172.28.0.44", (1, 1.5)), ("172.28.0.45", second)):
        made = network.connection(client, API, port, begun - 0.001)
        made.say(begun, request(method, target))
        made.hear(ended, response(200, {"X-OpenStack-Request-ID": ID.format(1)}))
    calls = built(network)
    assert [(call.back, call.front) for call in calls] == [(None, None)] * 2


def test_two_requests_with_one_id_behind_a_proxy_keep_their_own_legs() -> None:
    """Both go through the proxy at once, without X-Forwarded-For."""
    network = Network()
    for start in (1, 1.05):
        proxied(network, start, 1, forwarded=False)
    outer = sorted(legs(network), key=lambda call: call.started_ns)
    assert [round((call.back.started_ns - call.started_ns) / 1e6) for call in outer if call.back] == [1, 1]
