"""Which decoder a connection gets, and when it is given up."""

from __future__ import annotations

import pytest

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Closed,
    Connection,
    Data,
    Endpoint,
    HttpRequest,
    Undecoded,
)
from tracer.protocols import PORTS, UNKNOWN_AFTER, Decoders, Options

FRAMES = ((0, 1),)
TLS_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
TLS_ALERT = b"\x15\x03\x03\x00\x02\x01\x00"
GET = b"GET /v3 HTTP/1.1\r\nHost: keystone\r\n\r\n"


def connection(port: int, *, certain: bool = True) -> Connection:
    return Connection(1, Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", port), 0, certain=certain)


def decoders() -> Decoders:
    return Decoders(PORTS, Options())


def fin(of: Connection, direction: int) -> Closed:
    return Closed(of, 9, "fin", direction)


def test_an_undecodable_connection_is_told_once() -> None:
    """Half of it may be closed already: what the other half still says is not another connection."""
    given, tls = decoders(), connection(7777)
    told = list(given.receive(Data(tls, TO_SERVER, 1, TLS_HELLO, FRAMES)))
    told += given.receive(fin(tls, TO_SERVER))
    told += given.receive(Data(tls, TO_CLIENT, 2, TLS_ALERT, FRAMES))
    told += given.receive(fin(tls, TO_CLIENT))
    assert [m.reason for m in told if isinstance(m, Undecoded)] == ["tls"]


@pytest.mark.parametrize("ends", ["fin fin", "reset", "fin reset", "end"])
def test_nothing_is_remembered_of_a_connection_that_is_over(ends: str) -> None:
    """A long capture has many connections."""
    given = decoders()
    for port, payload in ((5000, GET), (7777, TLS_HELLO), (7777, b"\x00")):
        one = connection(port)
        given.receive(Data(one, TO_SERVER, 1, payload, FRAMES))
        for direction, how in enumerate(ends.split()):
            given.receive(Closed(one, 2, how, direction))
    kept = (given._decoders, given._ignored, given._tries, given._half_closed, given._short)
    assert not any(kept)


def test_an_answer_behind_the_clients_fin_is_read() -> None:
    """One direction's end is not the connection's."""
    given, http = decoders(), connection(5000)
    told = list(given.receive(Data(http, TO_SERVER, 1, GET, FRAMES)))
    told += given.receive(fin(http, TO_SERVER))
    told += given.receive(Data(http, TO_CLIENT, 2, b"HTTP/1.1 204 No Content\r\n\r\n", FRAMES))
    assert [type(m).__name__ for m in told] == ["HttpRequest", "HttpResponse"]


def test_bytes_decide_against_the_port() -> None:
    """HTTP on the broker's port, and on a port that nobody knows, is HTTP."""
    for port in (5672, 7777):
        told = decoders().receive(Data(connection(port), TO_SERVER, 1, GET, FRAMES))
        assert [type(m) for m in told] == [HttpRequest]


def test_what_nobody_knows_is_given_up_and_said() -> None:
    """After a few pieces of data, once."""
    given, unknown = decoders(), connection(7777)
    told = []
    for i in range(3 * UNKNOWN_AFTER):
        told += given.receive(Data(unknown, i % 2, i, b"\x00\x01\x02", FRAMES))
    assert [m.reason for m in told if isinstance(m, Undecoded)] == ["unknown protocol"]


def test_a_guess_is_turned_by_the_bytes() -> None:
    """A request that seems to come from the server: client and server were taken for each other."""
    turned = []
    given, guessed = Decoders(PORTS, Options(), turned.append), connection(7777, certain=False)
    (request,) = given.receive(Data(guessed, TO_CLIENT, 1, GET, FRAMES))
    assert turned == [guessed]
    assert isinstance(request, HttpRequest) and request.direction == TO_SERVER


def test_a_request_that_comes_in_small_pieces_is_read_whole() -> None:
    """What is too short to say anything waits, and keeps its time and frame."""
    given, one = decoders(), connection(8774)
    told: list[object] = []
    for at in range(0, len(GET), 3):
        told += given.receive(Data(one, TO_SERVER, at, GET[at : at + 3], ((0, at),)))
    (request,) = (m for m in told if isinstance(m, HttpRequest))
    assert (request.target, request.time_ns, request.truncated) == ("/v3", 0, False)


def test_a_few_bytes_take_no_decoder() -> None:
    """Of a flood of connections that say nothing, nearly nothing is kept."""
    given, one = decoders(), connection(8774)
    assert not list(given.receive(Data(one, TO_SERVER, 1, b"GET /v", FRAMES)))
    assert not given._decoders and not list(given.receive(Closed(one, 2, "reset", TO_SERVER)))
    assert not given._short
