"""HTTP/1.x decoding: conversations and what they say, each cut in several ways; then damage."""

from __future__ import annotations

import gzip
import os
import re
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.long import examples

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
from tracer.protocols.http1.body import DECODED_LIMIT
from tracer.protocols.http1.decoder import BODY_LIMIT, HEAD_LIMIT, Http1
from tracer.protocols.http1.head import VALUE_LIMIT

# --- conversations --------------------------------------------------------------------------------

Line = tuple[Any, ...]
"""('>', bytes) to the server · ('<', bytes) to the client · ('>gap', size) · ('<gap', size) ·
('>fin',) · ('<fin',) · ('reset',) · ('end',)"""


def whole(payload: bytes) -> list[bytes]:
    return [payload]


def byte_by_byte(payload: bytes) -> list[bytes]:
    return [payload[at : at + 1] for at in range(len(payload))]


def by_seven(payload: bytes) -> list[bytes]:
    return [payload[at : at + 7] for at in range(0, len(payload), 7)]


FEEDS = [whole, byte_by_byte, by_seven]


def connection(*, joined: bool = False) -> Connection:
    return Connection(1, Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 8774), 1_000, joined=joined)


def events(
    script: Iterable[Line], feed: Callable[[bytes], list[bytes]] = whole, *, joined: bool = False
) -> list[Data | Gap | Closed]:
    """Return the events of *script*: each piece has its own frame, and a microsecond of its own."""
    link, number, last_ns = connection(joined=joined), 0, 0
    out: list[Data | Gap | Closed] = []
    for kind, *rest in script:
        direction = TO_CLIENT if kind[0] == "<" else TO_SERVER
        for piece in feed(rest[0]) if kind in "<>" else (None,):
            number += 1
            now, frames = number * 1_000, ((0, number),)
            if piece is not None:
                out.append(Data(link, direction, now, piece, frames))
                last_ns = now
            elif kind.endswith("gap"):
                out.append(Gap(link, direction, now, rest[0], rest[1] if len(rest) > 1 else last_ns))
            else:
                how = "fin" if kind.endswith("fin") else kind
                out.append(Closed(link, now, how, direction, frames))
    return out


def decode(script: Iterable[Data | Gap | Closed], **options: Any) -> list[Message]:
    script = list(script)
    decoder = Http1(script[0].connection, **options)
    out: list[Message] = []
    for event in script:
        if isinstance(event, Data):
            out += decoder.receive(event)
        elif isinstance(event, Gap):
            out += decoder.gap(event)
        else:
            out += decoder.closed(event)
    return out


def when(messages: Iterable[Message]) -> list[tuple[Any, ...]]:
    return [(m.frames, m.time_ns, m.end_ns) for m in messages if isinstance(m, HttpRequest | HttpResponse)]


def plain(messages: Iterable[Message]) -> list[tuple[Any, ...]]:
    """Return what the messages say, without when and where."""
    out: list[tuple[Any, ...]] = []
    for message in messages:
        cut = ("cut",) if getattr(message, "truncated", False) else ()
        if isinstance(message, HttpRequest):
            out.append((message.exchange, message.method, message.target, message.body, *cut))
        elif isinstance(message, HttpResponse):
            out.append((message.exchange, message.status, message.body, *cut))
        elif isinstance(message, Undecoded):
            out.append((message.reason,))
    return out


def talk(script: Iterable[Line], feed: Callable[[bytes], list[bytes]] = whole, **options: Any) -> Any:
    joined = options.pop("joined", False)
    return plain(decode(events(script, feed, joined=joined), **options))


GET = b"GET /v2.1/servers HTTP/1.1\r\nHost: nova\r\n\r\n"
GOT = (1, "GET", "/v2.1/servers", b"")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def post(body: bytes, *lines: bytes, path: bytes = b"/v2.1/servers") -> bytes:
    head = [b"POST " + path + b" HTTP/1.1", b"Host: nova", b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def answer(body: bytes, *lines: bytes, status: bytes = b"200 OK") -> bytes:
    head = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def chunked(*chunks: bytes, tail: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + tail


RAW = zlib.compressobj(wbits=-15)
DEFLATED = RAW.compress(b'{"raw": 1}') + RAW.flush()
TE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

CASES: dict[str, tuple[list[Line], list[tuple[Any, ...]]]] = {
    "keep-alive": (
        [(">", GET), ("<", OK), (">", GET), ("<", OK)],
        [GOT, (1, 200, b"{}"), (2, *GOT[1:]), (2, 200, b"{}")],
    ),
    "pipelining is first in, first out": (
        [(">", GET + post(b"abc") + GET), ("<", answer(b"1") + answer(b"2") + answer(b"3"))],
        [
            GOT,
            (2, "POST", "/v2.1/servers", b"abc"),
            (3, *GOT[1:]),
            (1, 200, b"1"),
            (2, 200, b"2"),
            (3, 200, b"3"),
        ],
    ),
    "request body": (
        [(">", post(b'{"server": {}}')), ("<", answer(b"", status=b"202 Accepted"))],
        [(1, "POST", "/v2.1/servers", b'{"server": {}}'), (1, 202, b"")],
    ),
    "chunks with extensions and a trailer": (
        [
            (">", GET),
            ("<", TE + b"4;a=b\r\nwiki\r\n5 \r\npedia\r\n0\r\nX-Sum: 9\r\n\r\n"),
            (">", GET),
            ("<", OK),
        ],
        [GOT, (1, 200, b"wikipedia"), (2, *GOT[1:]), (2, 200, b"{}")],
    ),
    "chunked request": (
        [(">", b"PUT /x HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n" + chunked(b"ab", b"c")), ("<", OK)],
        [(1, "PUT", "/x", b"abc"), (1, 200, b"{}")],
    ),
    "an answer to HEAD has no body": (
        [
            (">", b"HEAD /v3 HTTP/1.1\r\n\r\n"),
            ("<", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
            (">", GET),
        ],
        [(1, "HEAD", "/v3", b""), (1, 200, b""), (2, *GOT[1:])],
    ),
    "204 and 304 have no body": (
        [
            (">", GET + GET + GET),
            ("<", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
            ("<", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
            ("<", OK),
        ],
        [GOT, (2, *GOT[1:]), (3, *GOT[1:]), (1, 204, b""), (2, 304, b""), (3, 200, b"{}")],
    ),
    "100 does not complete the pair": (
        [
            (">", post(b"", b"Expect: 100-continue").replace(b"Length: 0", b"Length: 4")),
            ("<", b"HTTP/1.1 100 Continue\r\n\r\n"),
            (">", b"body"),
            ("<", OK),
        ],
        [(1, "POST", "/v2.1/servers", b"body"), (1, 200, b"{}")],
    ),
    "refused instead of continued, the body is left out": (
        [
            (">", post(b"", b"Expect: 100-continue").replace(b"Length: 0", b"Length: 4")),
            ("<", answer(b"", status=b"417 No")),
            (">", GET),
            ("<", OK),
        ],
        [
            (1, "POST", "/v2.1/servers", b"", "cut"),
            (1, 417, b""),
            (2, *GOT[1:]),
            (2, 200, b"{}"),
        ],
    ),
    "transfer-encoding beats content-length": (
        [
            (">", GET),
            (
                "<",
                b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
                + chunked(b"xyz"),
            ),
            (">", GET),
            ("<", OK),
        ],
        [GOT, (1, 200, b"xyz"), (2, *GOT[1:]), (2, 200, b"{}")],
    ),
    "a body without length lasts until the FIN": (
        [(">", GET), ("<", b"HTTP/1.0 200 OK\r\n\r\nall of "), ("<", b"it"), ("<fin",)],
        [GOT, (1, 200, b"all of it")],
    ),
    "a reset may have cut it": (
        [(">", GET), ("<", b"HTTP/1.0 200 OK\r\n\r\nall"), ("reset",)],
        [GOT, (1, 200, b"all", "cut")],
    ),
    "LF alone ends a line": (
        [(">", b"GET /a HTTP/1.1\nHost: x\n\n"), ("<", b"HTTP/1.1 200 OK\nContent-Length: 1\n\n1")],
        [(1, "GET", "/a", b""), (1, 200, b"1")],
    ),
    "empty lines before a request": (
        [(">", b"\r\n\r\n" + GET), ("<", OK), (">", b"\r\n" + GET), ("<", OK)],
        [GOT, (1, 200, b"{}"), (2, *GOT[1:]), (2, 200, b"{}")],
    ),
    "no reason phrase": (
        [(">", GET), ("<", b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n")],
        [GOT, (1, 404, b"")],
    ),
    "absolute form": (
        [(">", b"GET http://nova:8774/v2.1 HTTP/1.1\r\n\r\n"), ("<", OK)],
        [(1, "GET", "http://nova:8774/v2.1", b""), (1, 200, b"{}")],
    ),
    "an early answer waits for the end of its request": (
        [
            (">", post(b"12345678")[:-4]),
            ("<", answer(b"", status=b"413 Too Large")),
            (">", b"5678"),
            (">", GET),
        ],
        [(1, "POST", "/v2.1/servers", b"12345678"), (1, 413, b""), (2, *GOT[1:])],
    ),
    "an early answer to a request that never ends": (
        [(">", post(b"12345678")[:-4]), ("<", answer(b"", status=b"413 Too Large")), ("end",)],
        [(1, "POST", "/v2.1/servers", b"1234", "cut"), (1, 413, b"")],
    ),
    "gzip": (
        [(">", GET), ("<", answer(gzip.compress(b'{"a": 1}'), b"Content-Encoding: gzip"))],
        [GOT, (1, 200, b'{"a": 1}')],
    ),
    "deflate as zlib": (
        [(">", GET), ("<", answer(zlib.compress(b'{"a": 1}'), b"Content-Encoding: deflate"))],
        [GOT, (1, 200, b'{"a": 1}')],
    ),
    "deflate as it should not be": (
        [(">", GET), ("<", answer(DEFLATED, b"Content-Encoding: deflate"))],
        [GOT, (1, 200, b'{"raw": 1}')],
    ),
    "gzip that is none": (
        [(">", GET), ("<", answer(b"plain", b"Content-Encoding: gzip"))],
        [GOT, (1, 200, b"plain")],
    ),
    "websocket": (
        [
            (">", b"GET /console HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"),
            ("<", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\n\r\n"),
            (">", b"\x81\x85binary"),
            ("<", b"\x81\x05HTTP/1.1 200 OK\r\n\r\n"),
        ],
        [(1, "GET", "/console", b""), (1, 101, b""), ("websocket",)],
    ),
    "CONNECT opens a tunnel": (
        [
            (">", b"CONNECT nova:443 HTTP/1.1\r\n\r\n"),
            ("<", b"HTTP/1.1 200 Connection established\r\n\r\n"),
            (">", b"\x16\x03\x01"),
        ],
        [(1, "CONNECT", "nova:443", b""), (1, 200, b""), ("tunnel",)],
    ),
    "HTTP/2 with prior knowledge": (
        [
            (">", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04"),
            ("<", b"\x00\x00\x12\x04\x00"),
            (">", GET),
        ],
        [("http2",)],
    ),
    "TLS": (
        [(">", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"), ("<", b"\x16\x03\x03\x00\x7a"), ("end",)],
        [("tls",)],
    ),
    "garbage is said once, and survived": (
        [(">", b"what is this\r\n\r\n" + GET), ("<", b"no idea\r\n" + OK), ("end",)],
        [("garbage",), GOT, (2, 200, b"{}")],
    ),
    "a bad chunk size ends the message": (
        [(">", GET), ("<", TE + b"4\r\nwiki\r\nxyz\r\n"), (">", GET), ("<", OK), (">", GET), ("<", OK)],
        [GOT, (1, 200, b"wiki", "cut"), (2, *GOT[1:]), (3, 200, b"{}"), (4, *GOT[1:]), (4, 200, b"{}")],
    ),
    "a request is whole with its declared body, not with the segment": (
        [(">", post(b"abc") + GET[:10]), (">", GET[10:]), ("<", OK), ("<", OK)],
        [(1, "POST", "/v2.1/servers", b"abc"), (2, *GOT[1:]), (1, 200, b"{}"), (2, 200, b"{}")],
    ),
    "what is cut off at the end is said to be": (
        [(">", post(b"abc")[:-1]), ("end",)],
        [(1, "POST", "/v2.1/servers", b"ab", "cut")],
    ),
    "a head cut off at the end": (
        [(">", GET), ("<", b"HTTP/1.1 200 OK\r\nContent-Le"), ("end",)],
        [GOT, (1, 200, b"", "cut")],
    ),
}


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("name", CASES)
def test_conversation(name: str, feed: Callable[[bytes], list[bytes]]) -> None:
    """A message is the same however TCP happened to cut it."""
    script, expected = CASES[name]
    assert talk(script, feed) == expected


@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from(sorted(CASES)), st.randoms(use_true_random=False))
def test_any_split(name: str, random: Any) -> None:
    """Any cutting at all gives the same messages."""

    def at_random(payload: bytes) -> list[bytes]:
        cuts = sorted(random.sample(range(1, len(payload)), min(3, len(payload) - 1)))
        return [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]

    script, expected = CASES[name]
    assert talk(script, at_random) == expected


# --- heads ----------------------------------------------------------------------------------------


def headers(*lines: bytes) -> dict[str, str]:
    message = decode(
        events([(">", b"GET / HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n")])
    )
    assert isinstance(message[0], HttpRequest)
    return message[0].headers


@pytest.mark.parametrize(
    "line, name, value",
    [
        (b"X-OpenStack-Request-ID: req-1", "x-openstack-request-id", "req-1"),
        (b"Content-Type:application/json ", "content-type", "application/json"),
        (b"X-Folded: one\r\n  two\r\n\tthree", "x-folded", "one two three"),
        (b"Accept: a\r\nACCEPT: b", "accept", "a, b"),
        (b"X-Long: " + b"x" * 5000, "x-long", "x" * VALUE_LIMIT),
        (b"no header at all\r\nA: b", "a", "b"),
        (b"X-Token-Request-Id: req-2", "x-token-request-id", "req-2"),
    ],
)
def test_header(line: bytes, name: str, value: str) -> None:
    """Names are lower case, values trimmed, folded lines and repeated headers joined."""
    assert headers(line)[name] == value


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "Proxy-Authorization", "X-Auth-Token", "X-Subject-Token", "X-Service-Token",
        "X-Storage-Token", "Cookie", "Set-Cookie", "X-Auth-Key", "X-Auth-User-Key", "X-My-Secret",
        "X-Admin-Password", "X-Instance-ID-Signature", "X-Api-Key",
    ],
)  # fmt: skip
def test_secret_header(name: str) -> None:
    """A secret is a digest from the start, and equal secrets have equal digests."""
    found = headers(name.encode() + b": gAAAAAB")
    assert found == {name.lower(): digest("gAAAAAB")}


@pytest.mark.parametrize(
    "target, expected",
    [
        ("/v3/auth/tokens?nocatalog", "/v3/auth/tokens?nocatalog"),
        ("/x?limit=5&token=abc", "/x?limit=5&token=<abc>"),
        ("/x?X-Amz-Signature=abc;a=1", "/x?X-Amz-Signature=<abc>;a=1"),
        (
            "/v1/o?temp_url_sig=abc&temp_url_expires=1",
            "/v1/o?temp_url_sig=<abc>&temp_url_expires=1",
        ),
        ("/x?Pass%77ord=abc", "/x?Pass%77ord=<abc>"),
        ("/vnc_lite.html?path=%3Ftoken%3Dabc", "/vnc_lite.html?path=<?token=abc>"),
        ("http://user:pass@nova/v2", "http://nova/v2"),
        ("/v2.0/tokens/abc?a=b", "/v2.0/tokens/<abc>?a=b"),
        ("/v2.1/servers/detail?name=a@b", "/v2.1/servers/detail?name=a@b"),
    ],
)
def test_secret_in_target(target: str, expected: str) -> None:
    """Secret parameters are digests (here <secret>), user and password of a URL are gone."""
    expected = re.sub("<(.*?)>", lambda secret: digest(secret[1]), expected)
    assert talk([(">", b"GET %s HTTP/1.1\r\n\r\n" % target.encode())]) == [(1, "GET", expected, b"")]


def test_secret_in_location() -> None:
    """A header that is a URL is treated as one."""
    assert headers(b"Location: http://u:p@x/?token=abc") == {"location": f"http://x/?token={digest('abc')}"}


def test_no_secret_survives() -> None:
    """No message holds a secret anywhere."""
    found = decode(
        events([(">", b"GET /?password=hush HTTP/1.1\r\nX-Auth-Token: hush\r\nCookie: hush\r\n\r\n")])
    )
    assert "hush" not in repr(found)


def test_head_limit() -> None:
    """A head without end is garbage after 64 KiB; the next message is found."""
    endless = b"GET / HTTP/1.1\r\n" + b"A: bbbbbbbbbbb\r\n" * (HEAD_LIMIT // 15)
    assert talk([(">", endless + b"\r\n" + GET), ("end",)]) == [("garbage",), GOT]


# --- times and evidence ---------------------------------------------------------------------------


def test_frames() -> None:
    """The last frame of a message comes first, as Wireshark shows it there; then its first one."""
    found = decode(events([(">", GET[:20]), (">", GET[20:]), ("<", OK[:10]), ("<", OK[10:])]))
    assert when(found) == [
        (((0, 2), (0, 1)), 1_000, 2_000),
        (((0, 4), (0, 3)), 3_000, 4_000),
    ]


def test_frame_of_a_body_until_the_close() -> None:
    """A response that the FIN ends is shown on the FIN."""
    found = decode(events([(">", GET), ("<", b"HTTP/1.0 200 OK\r\n\r\nx"), ("<fin",)]))
    assert isinstance(found[1], HttpResponse)
    assert found[1].frames == ((0, 3), (0, 2))
    assert found[1].end_ns == 3_000


def test_second_message_in_one_segment() -> None:
    """Pipelined messages have the times of their own first bytes."""
    found = decode(events([(">", GET + GET[:5]), (">", GET[5:])]))
    assert [times[1:] for times in when(found)] == [(1_000, 1_000), (1_000, 2_000)]


# --- bodies ---------------------------------------------------------------------------------------


def test_body_that_nobody_wants() -> None:
    """wants_body is asked with the request's method and target, and its no leaves the body out."""
    asked = []

    def wants(method: str, target: str, headers: dict[str, str], status: int) -> bool:
        asked.append((method, target, headers["content-length"], status))
        return status != 0

    script = [(">", post(b"abc")), ("<", OK)]
    assert talk(script, wants_body=wants) == [(1, "POST", "/v2.1/servers", b""), (1, 200, b"{}")]
    assert asked == [("POST", "/v2.1/servers", "3", 0), ("POST", "/v2.1/servers", "2", 200)]


def test_large_upload_that_nobody_wants() -> None:
    """A request with a large body is emitted at the end of its head; what follows it is found."""
    image = post(b"\x00" * 100_000, path=b"/v2/images/1/file")
    script = events([(">", image[:1000]), (">", image[1000:] + GET)])
    found = decode(script, wants_body=lambda *_: False)
    assert plain(found) == [(1, "POST", "/v2/images/1/file", b""), (2, *GOT[1:])]
    assert found[0].frames == ((0, 1),)


def test_small_upload_that_nobody_wants() -> None:
    """A request with a small body is emitted at its last frame even if the body is not wanted."""
    script = events([(">", post(b"abc")[:-1]), (">", b"c")])
    assert decode(script, wants_body=lambda *_: False)[0].frames == ((0, 2), (0, 1))


def test_body_limit() -> None:
    """Of a body at most the limit is kept, and what follows is found."""
    script = [(">", GET), ("<", answer(b"x" * (BODY_LIMIT + 1)) + answer(b"y"))]
    assert talk(script) == [GOT, (1, 200, b"x" * BODY_LIMIT), (2, 200, b"y")]


def test_decompression_bomb() -> None:
    """A body never swells beyond 1 MiB."""
    bomb = gzip.compress(b"\x00" * (50 << 20))
    found = decode(events([(">", GET), ("<", answer(bomb, b"Content-Encoding: gzip"))]))
    assert isinstance(found[1], HttpResponse)
    assert len(found[1].body) == DECODED_LIMIT


@pytest.mark.parametrize("size", [b"9" * 18, b"99999999999999999999999", b"-1", b"abc", b"5, 5"])
def test_declared_size_allocates_nothing(size: bytes) -> None:
    """An absurd length is not believed to the point of reserving memory."""
    found = talk(
        [(">", GET), ("<", b"HTTP/1.1 200 OK\r\nContent-Length: " + size + b"\r\n\r\nhello"), ("end",)]
    )
    assert found[1][2] == b"hello"


# --- roles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload, expected",
    [
        (GET, TO_SERVER),
        (OK, TO_CLIENT),
        (b"HTTP/1.1 404 Not Found\r\n", TO_CLIENT),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None),
        (b"POST /a-target-longer-than-the-segment", TO_SERVER),
        (b"OPTIONS * HTTP/1.1\r\n\r\n", TO_SERVER),
        (b"GET / is how it starts\r\n", None),
        (b"AMQP\x00\x00\x09\x01", None),
        (b"\x16\x03\x01\x02\x00", None),
        (b'{"server": "GET / HTTP/1.1"}', None),
        (b"", None),
        (b"G", None),
    ],
)
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
def test_recognises(payload: bytes, direction: int, expected: int | None) -> None:
    """The content says which way it travels, whatever was believed."""
    assert Http1.recognises(payload, direction) == expected


def test_roles_the_wrong_way_round() -> None:
    """Requests that travel to what was taken for the client are requests."""
    found = decode(events([("<", GET), (">", OK)]))
    assert plain(found) == [GOT, (1, 200, b"{}")]
    assert isinstance(found[0], HttpRequest)
    assert found[0].direction == TO_CLIENT


def test_one_direction() -> None:
    """Of either direction alone all messages are found, each an exchange of its own."""
    assert talk([(">", GET), (">", post(b"a")), (">", GET)]) == [
        GOT,
        (2, "POST", "/v2.1/servers", b"a"),
        (3, *GOT[1:]),
    ]
    assert talk([("<", OK), ("<", OK)]) == [(1, 200, b"{}"), (2, 200, b"{}")]


@pytest.mark.parametrize("feed", FEEDS)
def test_answers_to_unseen_head_requests(feed: Callable[[bytes], list[bytes]]) -> None:
    """A declared body that is another status line was never there."""
    bare = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"
    assert talk([("<", bare), ("<", bare), ("<", OK)], feed) == [
        (1, 200, b""),
        (2, 200, b""),
        (3, 200, b"{}"),
    ]


# --- joined in mid-stream -------------------------------------------------------------------------


@pytest.mark.parametrize("feed", FEEDS)
def test_joined_inside_a_body(feed: Callable[[bytes], list[bytes]]) -> None:
    """The first start line is found behind the rest of a body, even where it quotes a request."""
    rest = b'4": "GET /x HTTP/1.1" and GET /y HTTP/1.1\r\nnot a header"}'
    assert talk([(">", rest + GET), ("<", b"}]}" + OK), (">", GET), ("<", OK)], feed, joined=True) == [
        GOT,
        (1, 200, b"{}"),
        (2, *GOT[1:]),
        (2, 200, b"{}"),
    ]


def test_joined_between_request_and_response() -> None:
    """A response without its request has an exchange of its own; the next pair is right."""
    assert talk([("<", OK), (">", GET), ("<", OK)], joined=True) == [
        (1, 200, b"{}"),
        (2, *GOT[1:]),
        (2, 200, b"{}"),
    ]


def test_response_that_reaches_us_before_its_request() -> None:
    """Reassembly may hold the request back; time pairs them all the same."""
    script = events([(">", GET), ("<", OK)], joined=True)
    assert plain(decode([script[1], script[0]])) == [(1, 200, b"{}"), GOT]


# --- holes ----------------------------------------------------------------------------------------

BIG = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n"


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize(
    "script, expected",
    [
        pytest.param(
            [(">", GET), ("<", BIG + b"0123"), ("<gap", 12), ("<", b"6789" + OK), (">", GET)],
            [GOT, (1, 200, b"0123\x006789", "cut"), (2, 200, b"{}"), (2, *GOT[1:])],
            id="inside a known length it is skipped",
        ),
        pytest.param(
            [(">", GET), ("<", BIG + b"0123"), ("<gap", 16), ("<", OK)],
            [GOT, (1, 200, b"0123\x00", "cut"), (2, 200, b"{}")],
            id="up to the body's end",
        ),
        pytest.param(
            [
                (">", GET),
                ("<", TE + b"14\r\n0123"),
                ("<gap", 12),
                ("<", b"6789\r\n0\r\n\r\n"),
                (">", GET),
                ("<", OK),
            ],
            [GOT, (1, 200, b"0123\x006789", "cut"), (2, *GOT[1:]), (2, 200, b"{}")],
            id="inside a chunk",
        ),
        pytest.param(
            [(">", GET), ("<", b"HTTP/1.0 200 OK\r\n\r\nab"), ("<gap", 5), ("<", b"cd"), ("<fin",)],
            [GOT, (1, 200, b"ab\x00cd", "cut")],
            id="in a body until the close",
        ),
        pytest.param(
            [(">", GET[:30]), (">gap", 12), (">", b"rest of it"), ("<", OK), (">", GET), ("<", OK)],
            [(1, *GOT[1:], "cut"), (1, 200, b"{}"), (2, *GOT[1:]), (2, 200, b"{}")],
            id="in a request's head",
        ),
        pytest.param(
            [
                (">", GET),
                ("<", TE + b"4\r\nwiki\r\n"),
                ("<gap", 100),
                (">", GET),
                ("<", b"\r\n" + OK),
                (">", GET),
            ],
            [GOT, (1, 200, b"wiki", "cut"), (2, *GOT[1:]), (3, 200, b"{}"), (4, *GOT[1:])],
            id="between chunks: what follows may be anybody's",
        ),
        pytest.param(
            [(">", GET), ("<gap", 0), (">", GET), ("<", OK), (">", GET), ("<", OK)],
            [GOT, (2, *GOT[1:]), (3, 200, b"{}"), (4, *GOT[1:]), (4, 200, b"{}")],
            id="a lost answer is not made up for by the next one",
        ),
        pytest.param(
            [(">", GET), ("<", OK), (">gap", 60), ("<", OK), (">", GET), ("<", OK)],
            [GOT, (1, 200, b"{}"), (2, 200, b"{}"), (3, *GOT[1:]), (3, 200, b"{}")],
            id="the answer to a lost request",
        ),
    ],
)
def test_hole(
    script: Sequence[Line], expected: list[tuple[Any, ...]], feed: Callable[[bytes], list[bytes]]
) -> None:
    """A hole costs its own message; what is behind it is found, and never paired across it."""
    assert talk(script, feed) == expected


def test_hole_that_is_noticed_late() -> None:
    """Behind a hole among the answers, the times pair what both directions held at once."""
    ask, late = events([(">", GET)] * 4), events([("<", OK)] * 4)
    link = ask[0].connection
    questions = [Data(link, TO_SERVER, n * 1000, GET, ((0, n),)) for n in (10, 20, 30, 40)]
    answers = [Data(link, TO_CLIENT, n * 1000, OK, ((0, n),)) for n in (15, 25, 35)]
    hole = Gap(link, TO_CLIENT, 45_000, len(OK), 15_000)
    found = decode([questions[0], answers[0], *questions[1:], hole, answers[2]])
    assert plain(found)[-1] == (3, 200, b"{}")
    assert len(late) == 4


def test_requests_that_were_held_back() -> None:
    """Behind a hole among the requests, they find the answers that came before they did."""
    link = connection()
    asked = {n: Data(link, TO_SERVER, n * 1000, GET, ((0, n),)) for n in (10, 30, 40)}
    said = {n: Data(link, TO_CLIENT, n * 1000, OK, ((0, n),)) for n in (15, 25, 35, 45)}
    hole = Gap(link, TO_SERVER, 46_000, len(GET), 10_000)
    found = decode([asked[10], said[15], said[25], said[35], said[45], hole, asked[30], asked[40]])
    assert [(m[0], m[1]) for m in plain(found)] == [
        (1, "GET"), (1, 200), (2, 200), (3, 200), (4, 200), (3, "GET"), (4, "GET"),
    ]  # fmt: skip


def test_snap_length() -> None:
    """Of a head that the snap length cut, the complete lines are read, and the pair is right."""
    head = b"GET /v2.1/servers HTTP/1.1\r\nHost: nova\r\nX-Openstack-Request-Id: req-1\r\nUser-Ag"
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nDa"
    script: list[Line] = []
    for _ in range(3):
        script += [(">", head), (">gap", 40), ("<", reply), ("<gap", 1100)]
    made = events(script)
    for at, event in enumerate(made):
        if isinstance(event, Gap):
            made[at] = event._replace(time_ns=made[at - 1].time_ns, since_ns=made[at - 1].time_ns)
    found = decode(made)
    assert plain(found) == [
        message for n in (1, 2, 3) for message in ((n, *GOT[1:], "cut"), (n, 200, b"", "cut"))
    ]
    assert isinstance(found[0], HttpRequest)
    assert found[0].headers == {"host": "nova", "x-openstack-request-id": "req-1"}


def test_gzip_with_a_hole() -> None:
    """Of a compressed body with a hole the part before the hole is read."""
    text = os.urandom(3000).hex().encode()
    packed = gzip.compress(text)
    reply = answer(packed, b"Content-Encoding: gzip")
    cut = len(reply) - 500
    found = decode(events([(">", GET), ("<", reply[:cut]), ("<gap", 200), ("<", reply[cut + 200 :])]))
    assert isinstance(found[1], HttpResponse)
    assert found[1].truncated
    assert text.startswith(found[1].body)
    assert len(found[1].body) > 1000


def test_pipelining_is_not_paired_across_a_hole() -> None:
    """Where requests do not wait for answers, time says nothing: no pair is better than a wrong one."""
    script: list[Line] = [
        (">", GET),
        (">", GET),
        (">", GET),
        ("<", OK),
        ("<gap", 0),
        ("<", OK),
        (">", GET),
        ("<", OK),
    ]
    numbers = [message[0] for message in talk(script)]
    assert numbers == [1, 2, 3, 1, 4, 5, 6]


# --- robustness -----------------------------------------------------------------------------------

FRAGMENTS = [
    GET,
    OK,
    BIG,
    TE,
    post(b"abc"),
    b"4\r\nwiki\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1",
    b"\r\n\r\n",
    b"\n",
    b"\x16\x03\x01",
]
PIECES = st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=60))
ANY_EVENT = st.one_of(
    st.tuples(st.sampled_from("<>"), PIECES.filter(bool)),
    st.tuples(st.sampled_from(["<gap", ">gap"]), st.integers(0, 3000)),
    st.sampled_from([("<fin",), (">fin",), ("reset",), ("end",)]),
)


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(ANY_EVENT, min_size=1, max_size=25), st.booleans())
def test_nothing_raises(script: list[Line], joined: bool) -> None:
    """Any bytes, any holes, any ends: messages or none, but never an exception or an exchange used twice."""
    found = decode(events(script, joined=joined))
    for kind in (HttpRequest, HttpResponse):
        numbers = [m.exchange for m in found if isinstance(m, kind)]
        assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize(
    "unit",
    [
        b"GET / HTTP/1.",
        b"HTTP/1.1 200 OK\r\n",
        b"A: b\n",
        b"\n",
        b"x",
        b"1\r\na\r\n",
        b"GET / HTTP/1.1\r\n\r\nz",
    ],
)
@pytest.mark.parametrize(
    "start",
    [b"", *(pytest.param(head, marks=pytest.mark.long) for head in (b"GET / HTTP/1.1\r\n", TE))],
)
@pytest.mark.parametrize("joined", [False, True])
def test_linear_time(unit: bytes, start: bytes, joined: bool) -> None:
    """A megabyte of anything takes about a second at most, in segments or byte by byte."""
    flood = unit * (1_000_000 // len(unit))
    pieces = [flood[at : at + 1448] for at in range(0, len(flood), 1448)]
    began = time.process_time()
    decode(events([("<", start + b"\r\n"), *(("<", piece) for piece in pieces)], joined=joined))
    assert time.process_time() - began < 5


@pytest.mark.parametrize("joined", [False, True])
def test_linear_time_byte_by_byte(joined: bool) -> None:
    """So do its bytes one at a time."""
    script = events([("<", b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000)], byte_by_byte, joined=joined)
    began = time.process_time()
    decode(script)
    assert time.process_time() - began < 5


def test_buffers_are_bounded() -> None:
    """What is kept while waiting does not grow with the stream."""
    decoder = Http1(connection(joined=True))
    link = connection()
    for number in range(2_000):
        decoder.receive(Data(link, TO_SERVER, number, os.urandom(1448), ((0, number),)))
    assert len(decoder._streams[TO_SERVER].buffer) < 200_000


def test_what_is_to_be_sent_again_comes_as_it_was_sent() -> None:
    """The head with its secrets and the body as it was compressed; nothing of them is in the repr."""
    body = gzip.compress(b'{"auth": 1}')
    request = post(body, b"X-Auth-Token: hidden", b"Content-Encoding: gzip")
    reply = answer(b"{}", b"X-Subject-Token: hidden")
    script = events([(">", request), ("<", reply)])
    asked, answered = decode(script, raw=True)
    assert isinstance(asked, HttpRequest) and isinstance(answered, HttpResponse)
    assert asked.raw_head + asked.body == request
    assert answered.raw_head + answered.body == reply
    assert asked.headers["x-auth-token"] != "hidden" and "hidden" not in repr([asked, answered])
    plain_asked, plain_answered = decode(script)
    assert isinstance(plain_asked, HttpRequest) and isinstance(plain_answered, HttpResponse)
    assert (plain_asked.raw_head, plain_answered.raw_head) == (b"", b"")
    assert plain_asked.body == b'{"auth": 1}'


def test_an_answer_from_long_before_a_request_is_not_its_own() -> None:
    """The request that it answers was left out of the capture, and no hole shows it."""
    link = connection()
    decoder = Http1(link)
    answer = b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n"
    out = [
        *decoder.receive(Data(link, TO_CLIENT, 1_000_000_000, answer % 404, ((0, 1),))),
        *decoder.receive(Data(link, TO_SERVER, 1_500_000_000, b"GET /b HTTP/1.1\r\n\r\n", ((0, 2),))),
        *decoder.receive(Data(link, TO_CLIENT, 2_000_000_000, answer % 200, ((0, 3),))),
    ]
    assert plain(out) == [(1, 404, b""), (2, "GET", "/b", b""), (2, 200, b"")]
