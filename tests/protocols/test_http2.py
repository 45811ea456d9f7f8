"""HTTP/2 decoding: conversations that the library h2 writes, cut in several ways; then damage."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Closed,
    Connection,
    Data,
    Endpoint,
    Gap,
    HttpRequest,
    HttpResponse,
    Message,
    Undecoded,
)
from tracer.model.digest import digest
from tracer.protocols import PORTS, Decoders, Options
from tracer.protocols.http2 import frames
from tracer.protocols.http2.decoder import MOST_STREAMS
from tracer.protocols.http2.fields import JOINED_BYTES

Line = tuple[str, Any]
"""('>', bytes) to the server · ('<', bytes) to the client · ('>gap', size) · ('end', None) …"""
PREFACE = frames.PREFACE + SettingsFrame(0).serialize()
READY = ("<", SettingsFrame(0).serialize())
GET = [(":method", "GET"), (":scheme", "http"), (":authority", "nova:8774"), (":path", "/v2.1/servers")]
OK = [(":status", "200"), ("content-type", "application/json")]


def whole(payload: bytes) -> list[bytes]:
    return [payload]


def byte_by_byte(payload: bytes) -> list[bytes]:
    return [payload[at : at + 1] for at in range(len(payload))]


def by_seven(payload: bytes) -> list[bytes]:
    return [payload[at : at + 7] for at in range(0, len(payload), 7)]


def events(
    script: Iterable[Line], feed: Callable[[bytes], list[bytes]] = whole, joined: bool = False
) -> list[Data | Gap | Closed]:
    """Return the events of *script*: each piece has its own frame, and a microsecond of its own."""
    link = Connection(1, Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 8774), 1_000, joined=joined)
    out: list[Data | Gap | Closed] = []
    number = 0
    for kind, value in script:
        direction = TO_CLIENT if kind[0] == "<" else TO_SERVER
        for piece in feed(value) if kind in ("<", ">") else (value,):
            number += 1
            at = ((0, number),)
            if kind in ("<", ">"):
                out.append(Data(link, direction, number * 1_000, piece, at))
            elif kind.endswith("gap"):
                out.append(Gap(link, direction, number * 1_000, value, (number - 1) * 1_000))
            else:
                out.append(Closed(link, number * 1_000, kind.lstrip("<>"), direction, at))
    return out


def decode(
    script: Iterable[Line], feed: Callable[[bytes], list[bytes]] = whole, joined: bool = False, **options: Any
) -> list[Message]:
    decoders = Decoders(PORTS, Options(**options))
    return [m for event in events(script, feed, joined) for m in decoders.receive(event)]


def said(messages: Iterable[Message]) -> list[tuple[Any, ...]]:
    """Return what the messages say, without when and where."""
    out: list[tuple[Any, ...]] = []
    for message in messages:
        if isinstance(message, HttpRequest):
            out.append((message.exchange, message.method, message.target, message.body, message.truncated))
        elif isinstance(message, HttpResponse):
            out.append((message.exchange, message.status, message.body, message.truncated))
        elif isinstance(message, Undecoded):
            out.append((message.reason,))
    return out


def conversation() -> list[Line]:
    """Two requests side by side, as h2 writes them: the second one is answered first."""
    client = H2Connection(H2Configuration(client_side=True))
    server = H2Connection(H2Configuration(client_side=False))
    script: list[Line] = []

    def flush(sender: H2Connection, receiver: H2Connection, mark: str) -> None:
        data = sender.data_to_send()
        if data:
            script.append((mark, data))
            receiver.receive_data(data)

    client.initiate_connection()
    server.initiate_connection()
    flush(client, server, ">")
    flush(server, client, "<")
    client.send_headers(1, [(":method", "POST"), *GET[1:], ("x-auth-token", "t")])
    client.send_data(1, b'{"server":', pad_length=9)
    client.send_headers(3, GET, end_stream=True, priority_weight=16, priority_depends_on=0)
    flush(client, server, ">")
    client.send_data(1, b" {}}", end_stream=True)
    flush(client, server, ">")
    server.send_headers(3, OK)
    server.send_data(3, b"[]", end_stream=True)
    flush(server, client, "<")
    server.send_headers(1, [(":status", "103")])
    server.send_headers(1, [(":status", "202"), ("location", "http://u:p@nova/x")])
    server.send_data(1, b"{}")
    server.send_headers(1, [("grpc-status", "0")], end_stream=True)
    flush(server, client, "<")
    return [*script, ("end", None)]


TALK = [
    (1, "POST", "/v2.1/servers", b'{"server": {}}', False),
    (3, "GET", "/v2.1/servers", b"", False),
    (3, 200, b"[]", False),
    (1, 202, b"{}", False),
]


def headers(stream: int, fields: list[tuple[str, str]], encoder: Encoder, *flags: str) -> bytes:
    frame = HeadersFrame(stream, encoder.encode(fields))
    for flag in ("END_HEADERS", *flags):
        frame.flags.add(flag)
    return frame.serialize()


def data(stream: int, content: bytes, *flags: str) -> bytes:
    frame = DataFrame(stream, content)
    for flag in flags:
        frame.flags.add(flag)
    return frame.serialize()


def get(encoder: Encoder | None = None, stream: int = 1) -> bytes:
    return headers(stream, GET, encoder or Encoder(), "END_STREAM")


# --- whole conversations --------------------------------------------------------------------------


@pytest.mark.parametrize("feed", [whole, byte_by_byte, by_seven])
def test_streams_are_told_apart_however_the_bytes_are_cut(feed: Callable[[bytes], list[bytes]]) -> None:
    """Padding, priority, interim answers and trailers are passed over."""
    assert sorted(said(decode(conversation(), feed)), key=repr) == sorted(TALK, key=repr)


def test_secrets_are_digests() -> None:
    """As in HTTP/1: a token, and user and password of a link."""
    messages = decode(conversation())
    request = next(m for m in messages if isinstance(m, HttpRequest) and m.exchange == 1)
    response = next(m for m in messages if isinstance(m, HttpResponse) and m.exchange == 1)
    assert request.headers == {"x-auth-token": digest("t"), "host": "nova:8774"}
    assert response.headers == {"location": "http://nova/x"}


def test_a_message_is_shown_on_the_frame_of_its_headers() -> None:
    """Then comes the frame of its end; Wireshark shows method and path on the former."""
    messages = decode(conversation())
    request = next(m for m in messages if isinstance(m, HttpRequest) and m.exchange == 1)
    assert (request.frames, request.time_ns, request.end_ns) == (((0, 3), (0, 4)), 3_000, 4_000)


def test_a_block_in_several_frames_is_one() -> None:
    """CONTINUATION, with nothing between."""
    block = Encoder().encode(GET)
    first = HeadersFrame(1, block[:5])
    first.flags.add("END_STREAM")
    middle, last = ContinuationFrame(1, block[5:9]), ContinuationFrame(1, block[9:])
    last.flags.add("END_HEADERS")
    written = b"".join(frame.serialize() for frame in (first, middle, last))
    assert said(decode([(">", PREFACE + written)])) == [(1, "GET", "/v2.1/servers", b"", False)]


def test_a_body_is_decompressed() -> None:
    """By Content-Encoding, as in HTTP/1."""
    encoder = Encoder()
    answer = headers(1, [*OK, ("content-encoding", "gzip")], encoder)
    answer += data(1, gzip.compress(b"{}"), "END_STREAM")
    assert said(decode([(">", PREFACE + get()), READY, ("<", answer)]))[1] == (1, 200, b"{}", False)


def test_a_body_that_nobody_wants_is_not_kept() -> None:
    script = conversation()
    assert {m[-2] for m in said(decode(script, wants_body=lambda *about: False))} == {b""}


def test_a_pushed_answer_is_no_message() -> None:
    """But its block counts for the table of its direction."""
    encoder = Encoder()
    promise = PushPromiseFrame(1, 2, encoder.encode([*GET[:3], (":path", "/pushed"), ("x-new", "one")]))
    promise.flags.add("END_HEADERS")
    answer = promise.serialize() + headers(1, [*OK, ("x-new", "one")], encoder, "END_STREAM")
    pushed = headers(2, OK, encoder, "END_STREAM")
    messages = decode([(">", PREFACE + get()), READY, ("<", answer + pushed)])
    (response,) = (m for m in messages if isinstance(m, HttpResponse))
    assert response.headers["x-new"] == "one"


def test_the_sender_may_shrink_its_table() -> None:
    """A table size update at the start of a block (RFC 7541 §6.3)."""
    encoder = Encoder()
    first = headers(1, [*GET, ("x-a", "1")], encoder, "END_STREAM")
    encoder.header_table_size = 0
    second = headers(3, [*GET, ("x-a", "1")], encoder, "END_STREAM")
    encoder.header_table_size = 4096
    third = headers(5, [*GET, ("x-a", "2")], encoder, "END_STREAM")
    messages = decode([(">", PREFACE + first + second + third)])
    assert [m.headers["x-a"] for m in messages if isinstance(m, HttpRequest)] == ["1", "1", "2"]


# --- upgrade --------------------------------------------------------------------------------------

ASKS = (
    b"GET /v2.1/servers HTTP/1.1\r\nHost: nova\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
)
AGREES = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"


@pytest.mark.parametrize("feed", [whole, byte_by_byte])
def test_an_upgrade_is_answered_in_http2(feed: Callable[[bytes], list[bytes]]) -> None:
    """The answer on stream 1 belongs to the request of HTTP/1.1; the interim 101 is no answer."""
    encoder = Encoder()
    answer = headers(1, OK, encoder) + data(1, b"[]", "END_STREAM")
    script = [
        (">", ASKS),
        ("<", AGREES + READY[1] + answer),
        (">", PREFACE + get(stream=3)),
        ("<", headers(3, OK, encoder, "END_STREAM")),
    ]
    assert said(decode(script, feed)) == [
        (1, "GET", "/v2.1/servers", b"", False),
        (1, 200, b"[]", False),
        (3, "GET", "/v2.1/servers", b"", False),
        (3, 200, b"", False),
    ]


def test_an_upgrade_whose_answer_is_lost_is_seen_by_the_preface() -> None:
    encoder = Encoder()
    script = [(">", ASKS), ("<gap", 200), (">", PREFACE + get(stream=3))]
    script += [("<", READY[1] + headers(3, [(":status", "404")], encoder, "END_STREAM"))]
    request, answer = said(decode(script))[1:]
    assert request[0] == answer[0]
    assert (request[1:], answer[1:]) == (("GET", "/v2.1/servers", b"", False), (404, b"", False))


def test_a_refused_upgrade_stays_http1() -> None:
    script = [(">", ASKS), ("<", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")]
    assert said(decode(script))[1] == (1, 200, b"[]", False)


# --- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["reset", "goaway", "close"])
def test_what_is_broken_off_is_truncated(end: str) -> None:
    """RST_STREAM, GOAWAY with an earlier last stream, the end of the connection."""
    encoder = Encoder()
    begun = headers(3, OK, encoder) + data(3, b"[1,")
    script: list[Line] = [(">", PREFACE + get(stream=3)), READY, ("<", begun)]
    frame: Frame = RstStreamFrame(3, 8) if end == "reset" else GoAwayFrame(0, last_stream_id=1)
    script.append(("<reset", None) if end == "close" else ("<", frame.serialize()))
    assert said(decode(script))[1] == (3, 200, b"[1,", True)


def test_goaway_leaves_earlier_streams_alone() -> None:
    encoder = Encoder()
    script = [(">", PREFACE + get()), READY, ("<", GoAwayFrame(0, last_stream_id=1).serialize())]
    assert said(decode([*script, ("<", headers(1, OK, encoder, "END_STREAM"))]))[1] == (1, 200, b"", False)


# --- joined, and holes ----------------------------------------------------------------------------


def test_what_stands_in_an_unseen_table_is_not_guessed() -> None:
    """Joined at the second request, whose path refers to an entry from before. What was seen being added is
    known from then on, by its place behind the newest entry."""
    encoder = Encoder()
    get(encoder)
    second = headers(3, GET, encoder, "END_STREAM")
    third = headers(5, [*GET[:3], (":path", "/v2.1/flavors")], encoder, "END_STREAM")
    fourth = headers(7, [*GET[:3], (":path", "/v2.1/flavors")], encoder, "END_STREAM")
    messages = decode([(">", second), (">", third), (">", fourth)], joined=True)
    assert said(messages) == [
        ("http2 headers unknown",),
        (3, "GET", "", b"", True),
        (5, "GET", "/v2.1/flavors", b"", True),
        (7, "GET", "/v2.1/flavors", b"", True),
    ]
    assert all("host" not in m.headers for m in messages if isinstance(m, HttpRequest))


def test_an_unknown_status_is_told_as_unknown() -> None:
    """The answer is there, and what it says is not known."""
    encoder = Encoder()
    headers(1, [(":status", "409")], encoder)
    answer = headers(3, [(":status", "409")], encoder, "END_STREAM")
    messages = decode([(">", get(stream=3)), ("<", answer)], joined=True)
    assert said(messages)[-1] == (3, 0, b"", True)


def test_a_known_table_survives_a_hole_in_a_body() -> None:
    """Its size is known, so the frames behind it are, too."""
    encoder = Encoder()
    answer = headers(1, [*OK, ("x-new", "one")], encoder)
    body = data(1, bytes(1000), "END_STREAM")
    script = [(">", PREFACE + get() + get(stream=3)), READY, ("<", answer + body[:100]), ("<gap", 500)]
    script += [("<", body[600:] + headers(3, [*OK, ("x-new", "one")], encoder, "END_STREAM"))]
    one, three = (m for m in decode(script) if isinstance(m, HttpResponse))
    assert (one.exchange, one.truncated) == (1, True)
    assert (three.truncated, three.headers["x-new"]) == (False, "one")


def test_a_lost_block_makes_the_table_unknown() -> None:
    encoder = Encoder()
    first, lost = get(encoder), headers(3, [*GET, ("x-lost", "1")], encoder, "END_STREAM")
    third = headers(5, GET, encoder, "END_STREAM")
    script = [(">", PREFACE + first), (">gap", len(lost)), (">", third), (">", get(stream=7))]
    assert said(decode(script)) == [
        (1, "GET", "/v2.1/servers", b"", False),
        ("http2 headers unknown",),
        (5, "GET", "", b"", True),
        (7, "GET", "/v2.1/servers", b"", False),
    ]


def test_a_connection_joined_inside_of_a_long_frame_is_found_later() -> None:
    """The port says HTTP, and the first bytes say nothing."""
    script = [("<", b"\x89" * 1400), (">", get(stream=9)), ("<", headers(9, OK, Encoder(), "END_STREAM"))]
    assert said(decode(script, joined=True)) == [
        (9, "GET", "/v2.1/servers", b"", False),
        (9, 200, b"", False),
    ]


def test_a_search_finds_frames_anywhere() -> None:
    """Behind a hole, in the middle of a piece of data."""
    rest = data(1, b"x" * 50, "END_STREAM") + get(stream=5) + get(stream=7)
    script = [(">", PREFACE + get()), (">gap", 0), (">", b"\x00\x01{}" * 9 + rest)]
    assert [m[0] for m in said(decode(script))] == [1, 5, 7]


# --- strange input --------------------------------------------------------------------------------


def test_garbage_is_told_once() -> None:
    bad = b"\x00\x00\x05\x04\x00\x00\x00\x00\x01"
    assert said(decode([(">", PREFACE + bad + b"x" * 300), (">", bad)])) == [("http2 garbage",)]


def test_a_bomb_of_headers_is_given_up() -> None:
    """A large entry that is referred to many times (RFC 9113 §10.5.1)."""
    encoder = Encoder()
    large = ("x-large", "v" * 4000)
    bomb = headers(1, [*GET, large], encoder) + headers(3, [large] * 9999, encoder)
    messages = decode([(">", PREFACE + bomb)])
    assert max((len(m.headers) for m in messages if isinstance(m, HttpRequest)), default=0) < 10


def test_streams_that_never_end_are_bounded() -> None:
    encoder = Encoder()
    many = b"".join(headers(2 * i + 1, GET, encoder) for i in range(2 * MOST_STREAMS))
    script = [(">", PREFACE + many)]
    found = [m for m in decode(script) if isinstance(m, HttpRequest)]
    assert len(found) == MOST_STREAMS and all(m.truncated for m in found)


def test_the_table_of_a_joined_connection_is_bounded() -> None:
    encoder = Encoder()
    encoder.header_table_size = 1 << 20
    block = [(f"x-{i}", "v" * 1000) for i in range(2 * JOINED_BYTES // 1000)]
    first, second = headers(1, [*GET, *block], encoder), headers(3, [*GET, *block], encoder)
    assert all(isinstance(m, HttpRequest | Undecoded) for m in decode([(">", first + second)], joined=True))


@given(st.data())
def test_damage_raises_nothing_and_invents_nothing(data: st.DataObject) -> None:
    """Whatever is cut out of a conversation: each whole message that is told was said, and is told once."""
    script: list[Line] = []
    for kind, value in conversation():
        if kind not in ("<", ">"):
            continue
        begin = data.draw(st.integers(0, len(value)))
        end = data.draw(st.integers(begin, min(len(value), begin + 60)))
        script.append((kind, value[:begin]))
        if end > begin:
            script.append((f"{kind}gap", end - begin))
        script.append((kind, value[end:]))
    script = [line for line in script if line[1]]
    found = [m for m in said(decode([*script, ("end", None)], joined=data.draw(st.booleans()))) if len(m) > 1]
    whole_ones = [m for m in found if not m[-1]]
    assert len(set(whole_ones)) == len(whole_ones)
    assert set(whole_ones) <= set(TALK)


@given(st.lists(st.tuples(st.sampled_from("<>"), st.binary(max_size=80)), max_size=8))
def test_random_bytes_raise_nothing(noise: list[Line]) -> None:
    decode([(">", PREFACE + get()), *noise, ("end", None)])


@given(st.binary(max_size=120), st.integers(0, 60))
def test_a_search_makes_progress(noise: bytes, at: int) -> None:
    """The offset never goes back, and a frame that is found is possible."""
    found, onward = frames.find_frame(noise, at)
    assert onward >= min(at, len(noise)) or found >= 0
    assert found < 0 or frames.is_possible(frames.read_head(noise, found))
