"""REST calls: a request with its answer, or with what became of it."""

from __future__ import annotations

import pytest
from lab.judging import built, told

from tracer.calls.paths import operation_path
from tracer.model import ConnectFacts, RestFacts
from tracer.testing.messages import request, response
from tracer.testing.packets import RST, Network

A, B = "172.28.0.11", "172.28.0.44"
REQUEST_ID = "req-3fff385c-4b13-4f7e-844a-f2d25f9d2d7b"
VM = "145c135d-63cb-41ba-98cd-3235a30c2e27"


def test_a_request_and_its_answer_are_one_call() -> None:
    """Operation without query and ids, the status as the result, the time from first to last byte."""
    network = Network()
    made = network.connection(A, B, 9696, at=0)
    made.say(0.1, request("GET", f"/v2.0/ports/{VM}?fields=id", {"X-OpenStack-Request-ID": REQUEST_ID}))
    made.hear(
        0.3, response(200, {"X-OpenStack-Request-ID": REQUEST_ID.replace("3", "4")}, {"port": {"id": VM}})
    )
    (call,) = built(network)
    assert (call.operation, call.result, call.closed) == ("GET /v2.0/ports/{id}", "200", True)
    assert call.ended_ns is not None
    assert call.ended_ns - call.started_ns == 200_000_000
    assert isinstance(call.facts, RestFacts)
    assert (call.facts.request_id, call.facts.answered_id) == (REQUEST_ID, REQUEST_ID.replace("3", "4"))
    assert VM in call.facts.ids


def test_answers_belong_to_requests_in_turn() -> None:
    """Requests sent one after the other without waiting get their answers in that order."""
    network = Network()
    made = network.connection(A, B, 9696, at=0)
    for at, path in ((0.1, "/v2.0/networks"), (0.2, "/v2.0/extensions"), (0.3, "/v2.0/subnets")):
        made.say(at, request("GET", path))
    for at, status in ((0.4, 200), (0.5, 404), (0.6, 500)):
        made.hear(at, response(status))
    assert told(built(network)) == [
        "GET /v2.0/networks 200",
        "GET /v2.0/extensions 404",
        "GET /v2.0/subnets 500",
    ]


@pytest.mark.parametrize(
    "end, result",
    [
        (None, "?"),  # the capture ends first
        ("fin of both", "none"),
        ("reset by the server", "none"),
        ("the client gives up", "none"),
    ],
)
def test_no_answer(end: str | None, result: str) -> None:
    """An answer that was seen not to come is none; one that may lie behind the capture's end is ?."""
    network = Network()
    made = network.connection(A, B, 9696, at=0)
    made.say(0.1, request("GET", "/v2.0/networks"))
    if end == "reset by the server":
        made.close(0.2, RST)
    elif end:
        made.close(0.2, by=0 if end == "the client gives up" else 1)
    network.connection(A, B, 9696, at=90).say(90.1, request("GET", "/v2.0/extensions"))
    assert told(built(network))[0] == f"GET /v2.0/networks {result}"


def test_an_answer_in_a_hole_is_not_none() -> None:
    """Bytes of the answer are missing in the capture: ? and not none."""
    network = Network()
    made = network.connection(A, B, 9696, at=0)
    made.say(0.1, request("GET", "/v2.0/networks"))
    made.hear(0.2, response(200, body={"networks": []}), lost=True)
    made.close(0.3)
    assert told(built(network)) == ["GET /v2.0/networks ?"]


def test_an_answer_without_its_request() -> None:
    """The capture began in between: a call of which only the answer is known."""
    network = Network()
    made = network.connection(A, "172.28.0.12", 8774)
    made.hear(
        0.1, response(202, {"X-OpenStack-Request-ID": REQUEST_ID, "Location": f"http://a/v2.1/servers/{VM}"})
    )
    (call,) = built(network)
    assert call.result == "202"
    assert isinstance(call.facts, RestFacts)
    assert (call.facts.answered_id, call.facts.answered_ids) == (REQUEST_ID, (VM,))


def test_a_request_id_has_its_shape() -> None:
    """A hole filled with NULs, or any other text, is no request id."""
    network = Network()
    made = network.connection(A, B, 9696, at=0)
    for n, value in enumerate(("\0" * 40, "req-1", REQUEST_ID + "0", REQUEST_ID.upper())):
        made.say(n + 0.1, request("GET", "/v2.0/networks", {"X-OpenStack-Request-ID": value}))
        made.hear(n + 0.2, response(200))
    assert {call.facts.request_id for call in built(network) if isinstance(call.facts, RestFacts)} == {""}


@pytest.mark.parametrize("how, result", [("refuse", "refused"), ("ignore", "none")])
@pytest.mark.parametrize("port, protocol", [(9696, "REST"), (5672, "RPC"), (3306, "SQL"), (7070, "REST")])
def test_a_connection_that_never_came_to_be(how: str, result: str, port: int, protocol: str) -> None:
    """A call of its own, CONNECT and the port, in the protocol of that port."""
    network = Network()
    getattr(network, how)(0.1, A, B, port)
    network.connection(A, B, 22, at=300)
    (call,) = built(network)
    assert (call.protocol, call.operation, call.result) == (protocol, f"CONNECT :{port}", result)
    assert isinstance(call.facts, ConnectFacts)
    assert call.facts.attempts == (1 if how == "refuse" else 3)


def test_a_refused_connection_of_no_interest() -> None:
    """On a port of which nothing is known it is no call."""
    network = Network()
    network.refuse(0.1, A, B, 22)
    assert built(network) == []


def test_repr_of_a_call_holds_no_secret() -> None:
    """Token, password and user data are not in a call, nor in anything that hangs on it."""
    network = Network()
    made = network.connection(A, "172.28.0.12", 8774, at=0)
    secrets = {"adminPass": "s3cret-a", "user_data": "s3cretb", "personality": [{"contents": "s3cretc"}]}
    made.say(
        0.1,
        request(
            "POST",
            "/v2.1/servers?password=s3cretd&token=s3crete",
            {"X-Auth-Token": "s3cret-f", "Cookie": "id=s3cretg", "Authorization": "Basic s3creth"},
            {"server": {"name": "web-1", **secrets}},
        ),
    )
    made.hear(
        0.2, response(202, {"X-Subject-Token": "s3creti"}, {"server": {"id": VM, "adminPass": "s3cretj"}})
    )
    (call,) = built(network)
    assert "s3cret" not in repr(call)
    assert isinstance(call.facts, RestFacts)
    assert (call.facts.name, call.facts.token != "") == ("web-1", True)


@pytest.mark.parametrize(
    "path, operation",
    [
        ("/v2.1/servers", "/v2.1/servers"),
        (f"/v2.1/servers/{VM}/action", "/v2.1/servers/{id}/action"),
        ("/v2.1/servers/detail", "/v2.1/servers/detail"),
        ("/v3/e114495f4b7d49c18a052454413cd3db/attachments", "/v3/{id}/attachments"),
        ("/v2/e114495f4b7d49c18a052454413cd3db/servers", "/v2/{id}/servers"),
        ("/service/sites/43BC08E8/vms/i-00000072/action/start", "/service/sites/{id}/vms/{id}/action/start"),
        ("/service/sites/43BC08E8/tasks/115", "/service/sites/{id}/tasks/{id}"),
        ("/v2.0/tokens/0123456789abcdef", "/v2.0/tokens/{id}"),
        ("/sc/cloudhosts/7988585352804cc1b23b70f1afd9bef4", "/sc/cloudhosts/{id}"),
        ("/facade", "/facade"),
        ("/v2.0/security-groups", "/v2.0/security-groups"),
        ("/", "/"),
    ],
)
def test_operations_hold_no_ids(path: str, operation: str) -> None:
    """Ids become {id}, words stay."""
    assert operation_path(path) == operation
