"""MySQL decoding: conversations and what they say, each cut in several ways; then damage."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import tls
from lab.captures import FOREIGN, needs_foreign
from lab.long import examples
from scapy.layers.inet import IP, TCP
from scapy.utils import rdpcap

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Closed,
    Connection,
    Data,
    Endpoint,
    Frames,
    Gap,
    Message,
    SqlLogin,
    SqlResult,
    SqlStatement,
    TlsHello,
    Undecoded,
)
from tracer.protocols.mysql.decoder import TEXT_LIMIT, MySql
from tracer.protocols.mysql.packets import error_of, is_command, is_greeting, query_text

# --- packets --------------------------------------------------------------------------------------


def packet(seq: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes((seq & 0xFF,)) + body


def query(text: bytes) -> bytes:
    return packet(0, b"\x03" + text)


def prepare(text: bytes) -> bytes:
    return packet(0, b"\x16" + text)


def execute(number: int) -> bytes:
    return packet(0, b"\x17" + number.to_bytes(4, "little") + b"\x00\x01\x00\x00\x00")


def prepared(number: int) -> bytes:
    return packet(1, b"\x00" + number.to_bytes(4, "little") + bytes(7))


def error(code: int, text: bytes, seq: int = 1, state: bytes = b"#42S02") -> bytes:
    return packet(seq, b"\xff" + code.to_bytes(2, "little") + state + text)


OK = packet(1, b"\x00\x00\x00\x02\x00\x00\x00")
ROWS = (
    packet(1, b"\x01")
    + packet(2, b"\x03def\x00\x00\x00\x011\x00\x0c?\x00\x01\x00\x00\x00\x03\x81\x00\x00\x00\x00")
    + packet(3, b"\xfe\x00\x00\x02\x00")
    + packet(4, b"\x011")
    + packet(5, b"\xfe\x00\x00\x02\x00")
)
PLUGIN_AUTH, CONNECT_ATTRS, WITH_DB, LENENC = 0x80000, 0x100000, 0x8, 0x200000
USUAL = 0x200 | 0x8000 | PLUGIN_AUTH | CONNECT_ATTRS | WITH_DB | LENENC


def greeting(flags: int = 0xFFFFF7DF) -> bytes:
    low, high = (flags & 0xFFFF).to_bytes(2, "little"), (flags >> 16).to_bytes(2, "little")
    return packet(
        0,
        b"\x0a5.5.5-10.11.6-MariaDB\x00" + b"\x07\x00\x00\x00" + b"saltsalt\x00"
        + low + b"\x2d\x02\x00" + high + b"\x15" + bytes(10) + b"saltsaltsalt\x00mysql_native_password\x00",
    )  # fmt: skip


def text(value: bytes) -> bytes:
    return bytes((len(value),)) + value


def login(flags: int = USUAL, schema: bytes = b"nova", **attributes: bytes) -> bytes:
    said = attributes or {"_pid": b"7", "program_name": b"nova-api", "os_user": b"root"}
    pairs = b"".join(text(name.encode()) + text(value) for name, value in said.items())
    return packet(
        1,
        flags.to_bytes(4, "little") + b"\x00\x00\x00\x01\x2d" + bytes(23) + b"nova\x00" + text(b"S" * 20)
        + (schema + b"\x00" if flags & WITH_DB else b"") + b"mysql_native_password\x00" + text(pairs),
    )  # fmt: skip


LOGGED_IN = packet(2, b"\x00\x00\x00\x02\x00\x00\x00")

# --- conversations --------------------------------------------------------------------------------

Line = tuple[Any, ...]
"""('>', bytes) to the server · ('<', bytes) to the client · ('>gap', size) · ('<gap', size) ·
('>fin',) · ('<fin',) · ('reset',) · ('end',)"""
Feed = Callable[[bytes], list[bytes]]


def whole(payload: bytes) -> list[bytes]:
    return [payload]


def byte_by_byte(payload: bytes) -> list[bytes]:
    return [payload[at : at + 1] for at in range(len(payload))]


def by_seven(payload: bytes) -> list[bytes]:
    return [payload[at : at + 7] for at in range(0, len(payload), 7)]


FEEDS = [whole, byte_by_byte, by_seven]


def connection(*, joined: bool = False) -> Connection:
    return Connection(1, Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 3306), 1_000, joined=joined)


def events(script: Iterable[Line], feed: Feed = whole, *, joined: bool = False) -> list[Data | Gap | Closed]:
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
                out.append(Gap(link, direction, now, rest[0], last_ns))
            else:
                out.append(Closed(link, now, "fin" if kind.endswith("fin") else kind, direction, frames))
    return out


def decode(script: Iterable[Data | Gap | Closed], **options: Any) -> list[Message]:
    script = list(script)
    decoder = MySql(script[0].connection, **options)
    out: list[Message] = []
    for event in script:
        if isinstance(event, Data):
            if event.direction == TO_CLIENT and event.connection.deaf:
                continue  # as reassembly does
            out += decoder.receive(event)
        elif isinstance(event, Gap):
            out += decoder.gap(event)
        else:
            out += decoder.closed(event)
    return out


def plain(messages: Iterable[Message]) -> list[tuple[Any, ...]]:
    """Return what the messages say, without when and where."""
    out: list[tuple[Any, ...]] = []
    for message in messages:
        cut = ("cut",) if getattr(message, "truncated", False) else ()
        if isinstance(message, SqlStatement):
            out.append((message.exchange, message.command, message.text, *cut))
        elif isinstance(message, SqlResult):
            said = ("ok",) if message.ok else (message.error_code, message.error_text)
            out.append((message.exchange, *said, *cut))
        elif isinstance(message, SqlLogin):
            out.append(("login", message.schema, message.attributes))
        elif isinstance(message, Undecoded):
            out.append((message.reason,))
    return out


def talk(script: Iterable[Line], feed: Feed = whole, *, joined: bool = False, **options: Any) -> Any:
    return plain(decode(events(script, feed, joined=joined), **options))


BEGIN: list[Line] = [("<", greeting()), (">", login()), ("<", LOGGED_IN)]
LOGIN = ("login", "nova", {"_pid": "7", "program_name": "nova-api"})

CASES: dict[str, tuple[list[Line], list[tuple[Any, ...]]]] = {
    "login, query, rows, quit": (
        [*BEGIN, (">", query(b"SELECT 1")), ("<", ROWS), (">", packet(0, b"\x01"))],
        [LOGIN, (1, "query", b"SELECT 1"), (1, "ok"), (2, "quit", b"")],
    ),
    "an error": (
        [*BEGIN, (">", query(b"SELECT * FROM x")), ("<", error(1146, b"Table 'x' doesn't exist"))],
        [LOGIN, (1, "query", b"SELECT * FROM x"), (1, 1146, "Table 'x' doesn't exist")],
    ),
    "refused login": (
        [*BEGIN[:2], ("<", error(1045, b"Access denied for user 'nova'", 2, b"#28000"))],
        [LOGIN, (0, 1045, "Access denied for user 'nova'")],
    ),
    "refused connection": (
        [("<", error(1040, b"Too many connections", 0, b""))],
        [(0, 1040, "Too many connections")],
    ),
    "authentication in several steps": (
        [
            *BEGIN[:2],
            ("<", packet(2, b"\xfecaching_sha2_password\x00" + b"s" * 20)),
            (">", packet(3, b"S" * 32)),
            ("<", packet(4, b"\x01\x04")),
            (">", packet(5, b"secret\x00")),
            ("<", packet(6, b"\x00\x00\x00\x02\x00\x00\x00")),
            (">", query(b"BEGIN")),
            ("<", OK),
        ],
        [LOGIN, (1, "query", b"BEGIN"), (1, "ok")],
    ),
    "request for TLS": (
        [
            BEGIN[0],
            (">", packet(1, (USUAL | 0x800).to_bytes(4, "little") + bytes(28))),
            (">", b"\x16\x03\x01"),
        ],
        [("tls",)],
    ),
    "compression": (
        [
            ("<", greeting(0xFFFFFFFF)),
            (">", login(USUAL | 0x20)),
            ("<", LOGGED_IN),
            (">", b"\x0d\x00\x00\x00\x00\x00\x00" + query(b"SELECT 1")),
        ],
        [LOGIN, (1, "query", b"SELECT 1")],
    ),
    "compression that the server does not offer": (
        [*BEGIN[:1], (">", login(USUAL | 0x20)), ("<", LOGGED_IN), (">", query(b"COMMIT")), ("<", OK)],
        [LOGIN, (1, "query", b"COMMIT"), (1, "ok")],
    ),
    "prepare and execute": (
        [
            *BEGIN,
            (">", prepare(b"SELECT ?")),
            ("<", prepared(7) + packet(2, b"\x03def") + packet(3, b"\xfe\x00\x00\x02\x00")),
            (">", execute(7)),
            ("<", ROWS),
            (">", packet(0, b"\x19\x07\x00\x00\x00")),
            (">", execute(7)),
            ("<", error(1243, b"Unknown prepared statement handler")),
        ],
        [
            LOGIN,
            (1, "prepare", b"SELECT ?"),
            (1, "ok"),
            (2, "execute", b"SELECT ?"),
            (2, "ok"),
            (3, "close", b"SELECT ?"),
            (4, "execute", b"#7"),
            (4, 1243, "Unknown prepared statement handler"),
        ],
    ),
    "init_db, ping, reset": (
        [
            *BEGIN,
            (">", packet(0, b"\x02keystone")),
            ("<", OK),
            (">", packet(0, b"\x0e")),
            ("<", OK),
            (">", packet(0, b"\x1f")),
            ("<", OK),
        ],
        [
            LOGIN,
            (1, "init_db", b"keystone"),
            (1, "ok"),
            (2, "ping", b""),
            (2, "ok"),
            (3, "reset_connection", b""),
            (3, "ok"),
        ],
    ),
    "change of user: no name, no password": (
        [
            *BEGIN,
            (">", packet(0, b"\x11admin\x00\x14" + b"S" * 20 + b"nova\x00")),
            ("<", packet(1, b"\xfemysql_native_password\x00" + b"s" * 20)),
            (">", packet(2, b"S" * 20)),
            ("<", error(1045, b"Access denied", 3)),
            (">", query(b"SELECT 1")),
            ("<", ROWS),
        ],
        [LOGIN, (1, "change_user", b""), (1, 1045, "Access denied"), (2, "query", b"SELECT 1"), (2, "ok")],
    ),
    "query attributes": (
        [
            *BEGIN,
            (">", query(b"\x00\x01SELECT 1")),
            ("<", ROWS),
            (
                ">",
                query(b"\x02\x01\x02\x01\xfe\x00\x05trace\x03\x00\x01n\x03abcSELECT 2"),
            ),
            ("<", ROWS),
        ],
        [LOGIN, (1, "query", b"SELECT 1"), (1, "ok"), (2, "query", b"SELECT 2"), (2, "ok")],
    ),
    "LOCAL INFILE: the result comes behind the upload": (
        [
            *BEGIN,
            (">", query(b"LOAD DATA LOCAL INFILE 'x' INTO TABLE t")),
            ("<", packet(1, b"\xfbx")),
            (">", b"".join(packet(2 + n, b"\x03row %d\n" % n) for n in range(300)) + packet(302, b"")),
            ("<", error(1062, b"Duplicate entry", 303)),
            (">", query(b"SELECT 1")),
            ("<", ROWS),
        ],
        [
            LOGIN,
            (1, "query", b"LOAD DATA LOCAL INFILE 'x' INTO TABLE t"),
            (1, 1062, "Duplicate entry"),
            (2, "query", b"SELECT 1"),
            (2, "ok"),
        ],
    ),
    "MariaDB's progress report is no error": (
        [
            *BEGIN,
            (">", query(b"ALTER TABLE t")),
            ("<", packet(1, b"\xff\xff\xff\x01\x01\x02abc")),
            ("<", packet(2, OK[4:])),
        ],
        [LOGIN, (1, "query", b"ALTER TABLE t"), (1, "ok")],
    ),
    "several statements in one": (
        [
            *BEGIN,
            (">", query(b"SELECT 1; SELECT 2")),
            ("<", ROWS + ROWS[4:]),
            (">", query(b"BEGIN")),
            ("<", OK),
        ],
        [LOGIN, (1, "query", b"SELECT 1; SELECT 2"), (1, "ok"), (2, "query", b"BEGIN"), (2, "ok")],
    ),
    "rows whose numbers wrap": (
        [
            *BEGIN,
            (">", query(b"SELECT n")),
            (
                "<",
                packet(1, b"\x01") + b"".join(packet(2 + n, b"\x01" + b"%d" % (n % 10)) for n in range(600)),
            ),
            (">", query(b"BEGIN")),
            ("<", OK),
        ],
        [LOGIN, (1, "query", b"SELECT n"), (1, "ok"), (2, "query", b"BEGIN"), (2, "ok")],
    ),
    "what is cut off at the end is said to be": (
        [*BEGIN, (">", query(b"SELECT 1")[:-2]), ("end",)],
        [LOGIN, (1, "query", b"SELECT", "cut")],
    ),
    "an error cut off at the end": (
        [*BEGIN, (">", query(b"SELECT 1")), ("<", error(1064, b"You have an error")[:-6]), ("reset",)],
        [LOGIN, (1, "query", b"SELECT 1"), (1, 1064, "You have an", "cut")],
    ),
    "only the client": (
        [*BEGIN[1:2], (">", query(b"BEGIN")), (">", query(b"COMMIT")), (">", packet(0, b"\x01"))],
        [LOGIN, (1, "query", b"BEGIN"), (2, "query", b"COMMIT"), (3, "quit", b"")],
    ),
    "only the server": ([BEGIN[0], BEGIN[2], ("<", ROWS), ("<", OK)], []),
}


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("name", CASES)
def test_conversation(name: str, feed: Feed) -> None:
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


@pytest.mark.parametrize(
    "feed", [whole, lambda payload: [payload[i : i + 60_000] for i in range(0, len(payload), 60_000)]]
)
def test_statement_of_more_than_16_mib(feed: Feed) -> None:
    """A statement that is split over packets is one, of which the beginning is kept."""
    body = b"\x03INSERT INTO t VALUES ('" + b"x" * (0xFFFFFF + 100) + b"')"
    wire = packet(0, body[:0xFFFFFF]) + packet(1, body[0xFFFFFF:])
    found = talk([*BEGIN, (">", wire), ("<", OK), (">", query(b"COMMIT")), ("<", OK)], feed)
    assert found[1] == (1, "query", body[1:TEXT_LIMIT], "cut")
    assert found[2:] == [(1, "ok"), (2, "query", b"COMMIT"), (2, "ok")]


def test_statement_of_exactly_16_mib() -> None:
    """A packet of the largest size is followed by an empty one."""
    wire = packet(0, b"\x03" + b"SELECT" + b" " * (0xFFFFFF - 7)) + packet(1, b"")
    found = talk([*BEGIN, (">", wire), ("<", OK), (">", query(b"COMMIT")), ("<", OK)])
    assert [message[0] for message in found[1:]] == [1, 1, 2, 2]


def test_commands_in_one_go() -> None:
    """MariaDB's clients execute what they prepared last without waiting: number 0xFFFFFFFF."""
    script = [
        *BEGIN,
        (">", prepare(b"SELECT ?") + execute(0xFFFFFFFF)),
        ("<", prepared(9)),
        ("<", error(1, b"no")),
    ]
    assert talk(script) == [
        LOGIN,
        (1, "prepare", b"SELECT ?"),
        (2, "execute", b"SELECT ?"),
        (1, "ok"),
        (2, 1, "no"),
    ]


def test_commands_that_do_not_wait() -> None:
    """Of commands sent in pieces without waiting nobody knows whose answer it is; later ones are right."""
    script = [*BEGIN, (">", query(b"BEGIN")), (">", query(b"COMMIT")), ("<", OK), ("<", error(1, b"no"))]
    assert [m[:2] for m in talk([*script, (">", query(b"BEGIN")), ("<", OK)])][1:] == [
        (1, "query"),
        (2, "query"),
        (3, "query"),
        (3, "ok"),
    ]


def test_frames() -> None:
    """Times and evidence are those of the first and of the last piece."""
    wire = query(b"SELECT 1")
    found = decode(events([*BEGIN, (">", wire[:6]), (">", wire[6:]), ("<", ROWS[:2]), ("<", ROWS[2:])]))
    assert [(m.frames, m.time_ns, m.end_ns) for m in found[1:]] == [  # type: ignore[union-attr]
        (((0, 5), (0, 4)), 4_000, 5_000),
        (((0, 7), (0, 6)), 6_000, 7_000),
    ]


# --- what is wanted -------------------------------------------------------------------------------


def inserts(text: bytes) -> bool:
    return text.startswith(b"INSERT")


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("joined", [False, True])
def test_skipped_statements(feed: Feed, joined: bool) -> None:
    """What is not wanted is told to `skipped` and counts as an exchange; the others are paired."""
    skipped: list[tuple[int, Frames]] = []
    script: list[Line] = [] if joined else [*BEGIN]
    for number in range(4):
        script += [(">", query(b"SELECT %d" % number)), ("<", ROWS)]
        script += [(">", query(b"INSERT %d" % number)), ("<", error(number, b"no"))]
    if joined and feed is not whole:
        return  # out of step, commands are found where segments begin
    found = talk(script, feed, joined=joined, wanted=inserts, skipped=lambda *told: skipped.append(told))
    pairs = [((2 * n + 2, "query", b"INSERT %d" % n), (2 * n + 2, n, "no")) for n in range(4)]
    assert [m for m in found if m[0] != "login"] == [message for pair in pairs for message in pair]
    assert len(skipped) == 4
    assert all(isinstance(time_ns, int) and frames for time_ns, frames in skipped)


def test_skipped_long_statement() -> None:
    """A long statement that nobody wants is passed over without being collected."""
    long = query(b"SELECT " + b"x" * 5_000)
    script = [
        *BEGIN,
        (">", long[:1448]),
        (">", long[1448:2896]),
        (">", long[2896:] + query(b"INSERT 1")),
        ("<", OK),
    ]
    assert talk(script, wanted=inserts) == [LOGIN, (2, "query", b"INSERT 1"), (2, "ok")]


def test_prepared_statement_that_is_not_wanted() -> None:
    """Its text is remembered all the same: an execution may be asked about."""
    asked: list[bytes] = []
    script = [*BEGIN, (">", prepare(b"SELECT ?")), ("<", prepared(3)), (">", execute(3)), ("<", ROWS)]
    assert talk(script, wanted=lambda text: asked.append(text) or False) == [LOGIN]  # type: ignore[func-returns-value]
    assert asked == [b"SELECT ?", b"SELECT ?"]


def test_deaf_connection() -> None:
    """While no answer is wanted the connection says so, and reassembly need not hand data on."""
    script = events([*BEGIN, (">", query(b"INSERT 1")), ("<", OK), (">", query(b"SELECT 1"))])
    link = script[0].connection
    decoder = MySql(link, wanted=inserts)
    heard = []
    for event in script:
        assert isinstance(event, Data)
        list(decoder.receive(event))
        heard.append(not link.deaf)
    assert heard == [True, True, False, True, False, False] or heard[3:] == [True, False, False]


# --- insides --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body, expected",
    [
        (b"\x03SELECT 1", b"SELECT 1"),
        (b"\x03", b""),
        (b"\x03 ", b" "),
        (b"\x03\n SELECT 1", b"\n SELECT 1"),
        (b"\x03\x00\x01SELECT 1", b"SELECT 1"),
        (b"\x03\x01\x01\x01\x01\x03\x00\x01aSELECT 1", b"SELECT 1"),  # NULL
        (b"\x03\x01\x01\x00\x01\x08\x00\x01a" + bytes(8) + b"SELECT 1", b"SELECT 1"),
        (b"\x03\x01\x01\x00\x01\x0c\x00\x01a\x04\xe8\x07\x01\x02SELECT 1", b"SELECT 1"),
        (b"\x03\x01\x01\x00\x01\xfe\x00\x01a\xfc\x02\x00hiSELECT 1", b"SELECT 1"),
        (b"\x03\x01\x01\x00", b""),
    ],
)
def test_query_text(body: bytes, expected: bytes) -> None:
    """The statement begins behind its query attributes, of whatever type."""
    assert query_text(body) == expected


@pytest.mark.parametrize(
    "body, expected",
    [
        (b"\xff\x7a\x04#42S02Table 'a.b' doesn't exist", (1146, "Table 'a.b' doesn't exist")),
        (b"\xff\x10\x04Too many connections", (1040, "Too many connections")),
        (
            b"\xff\x26\x04#23000Duplicate entry '" + b"s" * 65 + b"' for key 'k'",
            (1062, "Duplicate entry '…' for key 'k'"),
        ),
        (
            b"\xff\x26\x04#23000Duplicate entry '" + b"s" * 64 + b"'",
            (1062, "Duplicate entry '" + "s" * 64 + "'"),
        ),
        (b"\xff\x28\x04#42000" + b"x" * 500, (1064, "x" * 200)),
        (b"\xff\x28", (0x28, "")),
        (b"\xff", (0, "")),
    ],
)
def test_error_text(body: bytes, expected: tuple[int, str]) -> None:
    """An error's text is short, and holds no long value."""
    assert error_of(body) == expected


def test_login_holds_no_credentials() -> None:
    """User, password and attributes that name a user are not in the message."""
    found = decode(events([BEGIN[0], (">", login(os_user=b"hush", _password=b"hush", _pid=b"1"))]))
    assert "hush" not in repr(found)
    assert "SSSS" not in repr(found)
    assert isinstance(found[0], SqlLogin)
    assert found[0].attributes == {"_pid": "1"}


def test_login_without_schema() -> None:
    """Not every login names a schema."""
    assert talk([BEGIN[0], (">", login(USUAL & ~WITH_DB))]) == [("login", "", LOGIN[2])]


@pytest.mark.parametrize(
    "payload, expected",
    [
        (greeting(), TO_CLIENT),
        (error(1040, b"Too many connections", 0, b""), TO_CLIENT),
        (OK, TO_CLIENT),
        (ROWS, TO_CLIENT),
        (login(), TO_SERVER),
        (packet(1, (USUAL | 0x800).to_bytes(4, "little") + b"\x00\x00\x00\x01\x2d" + bytes(23)), TO_SERVER),
        (query(b"SELECT 1"), TO_SERVER),
        (query(b"\x00\x01SELECT 1"), TO_SERVER),
        (query(b"/* a comment */ INSERT INTO t VALUES (" + b"1," * 4000)[:1448], TO_SERVER),
        (query(b"SELECT 1") + query(b"ROLLBACK"), TO_SERVER),
        (prepare(b"UPDATE t SET a = ?"), TO_SERVER),
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"AMQP\x00\x00\x09\x01", None),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", None),
        (b"\x01\x00\x00\x00", None),
        (b"", None),
    ],
)
@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
def test_recognises(payload: bytes, direction: int, expected: int | None) -> None:
    """The content says which way it travels, whatever was believed."""
    assert MySql.recognises(payload, direction) == expected


@pytest.mark.parametrize("code", range(256))
def test_random_bytes_are_no_command(code: int) -> None:
    """A byte is a command only with a fitting length behind a fitting head."""
    assert not is_command(b"\x40\x00\x00\x00" + bytes((code,)) + b"\x07binary")
    assert not is_command(b"\x02\x00\x00\x05" + bytes((code,)) + b"\x07")


# --- joined in mid-stream -------------------------------------------------------------------------


def test_joined_before_a_command() -> None:
    """The first command of a connection that was joined is found, and its answer."""
    script = [("<", b"rest of rows"), (">", query(b"SELECT 1")), ("<", ROWS), (">", execute(7)), ("<", OK)]
    assert talk(script, joined=True) == [
        (1, "query", b"SELECT 1"),
        (1, "ok"),
        (2, "execute", b"#7"),
        (2, "ok"),
    ]


@pytest.mark.parametrize("feed", FEEDS)
def test_joined_inside_a_statement(feed: Feed) -> None:
    """A query is found by its head and first word, wherever segments begin."""
    rest = b"'), ('values of an insert'), ('SELECT this')"
    found = talk([(">", rest + query(b"SELECT 1")), (">", query(b"COMMIT"))], feed, joined=True)
    assert found == [(1, "query", b"SELECT 1"), (2, "query", b"COMMIT")]


@pytest.mark.parametrize(
    "payload, reason",
    [
        (b"\x17\x03\x03\x00\x20" + b"\xa5" * 32, "tls"),
        (b"\x17\x03\x03\x00\x20" + b"\xa5" * 32 + b"\x17\x03\x03\x00\x02\x00\x00", "tls"),
    ],
)
def test_joined_to_something_else(payload: bytes, reason: str) -> None:
    """TLS is told by its lengths even in mid-stream."""
    assert talk([(">", payload), (">", query(b"SELECT 1"))], joined=True) == [(reason,)]


def test_garbage() -> None:
    """What is no MySQL is said once, and commands behind it are found."""
    script = [
        *BEGIN,
        (">", packet(0, b"\x77what")),
        (">", packet(9, b"x")),
        (">", query(b"SELECT 1")),
        ("<", ROWS),
    ]
    assert talk(script) == [LOGIN, ("garbage",), (1, "query", b"SELECT 1"), (1, "ok")]


# --- holes ----------------------------------------------------------------------------------------

ASK, ASKED = (">", query(b"SELECT 1")), "SELECT 1"


@pytest.mark.parametrize(
    "script, expected",
    [
        pytest.param(
            [(">", query(b"SELECT 1234567890")[:12]), (">gap", 10), ("<", ROWS), ASK, ("<", ROWS)],
            [(1, "query", b"SELECT ", "cut"), (1, "ok"), (2, "query", b"SELECT 1"), (2, "ok")],
            id="to the statement's end",
        ),
        pytest.param(
            [
                (">", query(b"SELECT 1234567890")[:12]),
                (">gap", 5),
                (">", b"67890"),
                ("<", ROWS),
                ASK,
                ("<", ROWS),
            ],
            [(1, "query", b"SELECT ", "cut"), (1, "ok"), (2, "query", b"SELECT 1"), (2, "ok")],
            id="inside a statement",
        ),
        pytest.param(
            [(">", query(b"SELECT 1234567890")[:12]), (">gap", 100), ("<", ROWS), ASK, ("<", ROWS)],
            [(1, "query", b"SELECT ", "cut"), (1, "ok"), (2, "query", b"SELECT 1"), (2, "ok")],
            id="beyond the statement",
        ),
        pytest.param(
            [ASK, ("<", ROWS), (">gap", 13), ("<", error(1, b"not ours")), ASK, ("<", OK)],
            [(1, "query", b"SELECT 1"), (1, "ok"), (2, "query", b"SELECT 1"), (2, "ok")],
            id="the answer to a lost statement",
        ),
        pytest.param(
            [ASK, ("<gap", 50), ASK, ("<", error(2, b"second")), ASK, ("<", OK)],
            [
                (1, "query", b"SELECT 1"),
                (2, "query", b"SELECT 1"),
                (3, "query", b"SELECT 1"),
                (2, 2, "second"),
                (3, "ok"),
            ],
            id="a lost answer: the next one is in doubt until a later statement comes",
        ),
        pytest.param(
            [ASK, ("<gap", 50), (">gap", 13), ("<", error(2, b"of a lost one")), ASK, ("<", OK)],
            [(1, "query", b"SELECT 1"), (2, "query", b"SELECT 1"), (2, "ok")],
            id="a lost answer and a lost statement: nobody knows",
        ),
        pytest.param(
            [ASK, ("<", ROWS[:30]), ("<gap", 10), ("<", ROWS[40:]), ASK, ("<", OK)],
            [(1, "query", b"SELECT 1"), (1, "ok"), (2, "query", b"SELECT 1"), (2, "ok")],
            id="inside rows",
        ),
    ],
)
def test_hole(script: Sequence[Line], expected: list[tuple[Any, ...]]) -> None:
    """A hole costs its own statement or result; nothing is paired across it on a guess."""
    found = talk([*BEGIN, *script])
    assert found[1:] == expected


def test_statements_that_were_held_back() -> None:
    """Behind a hole among the statements, they find the answers that came before they did."""
    link = connection(joined=True)
    asked = {n: Data(link, TO_SERVER, n * 1000, query(b"SELECT %d" % n), ((0, n),)) for n in (10, 30, 40)}
    said = {n: Data(link, TO_CLIENT, n * 1000, error(n, b""), ((0, n),)) for n in (15, 25, 35, 45)}
    hole = Gap(link, TO_SERVER, 46_000, 14, 10_000)
    decoder = MySql(link)
    found: list[Message] = []
    for event in (asked[10], said[15], said[25], said[35], said[45]):
        found += decoder.receive(event)
    found += decoder.gap(hole)
    for event in (asked[30], asked[40]):
        found += decoder.receive(event)
    pairs = [(m[0], m[1]) for m in plain(found)]
    assert pairs == [(1, "query"), (1, 15), (2, "query"), (2, 35), (3, "query"), (3, 45)]


def test_answers_that_were_held_back() -> None:
    """Behind a hole among the answers, each finds the statement before it."""
    link = connection(joined=True)
    asked = [Data(link, TO_SERVER, n * 1000, query(b"SELECT %d" % n), ((0, n),)) for n in (10, 20, 30, 40)]
    said = {n: Data(link, TO_CLIENT, n * 1000, error(n, b""), ((0, n),)) for n in (25, 35, 45)}
    decoder = MySql(link)
    found: list[Message] = []
    for event in asked:
        found += decoder.receive(event)
    found += decoder.gap(Gap(link, TO_CLIENT, 46_000, 14, 5_000))
    for answer in said.values():
        found += decoder.receive(answer)
    assert [(m[0], m[1]) for m in plain(found)[4:]] == [(2, 25), (3, 35), (4, 45)]


def test_snap_length() -> None:
    """Of what the snap length cut the beginning is read, and pairs are right."""
    script: list[Line] = []
    for number in range(3):
        script += [(">", query(b"SELECT " + b"x" * 100)[:40]), (">gap", 72)]
        script += [("<", error(number, b"an error of some length")[:20]), ("<gap", 16)]
    made = events(script, joined=True)
    for at, event in enumerate(made):
        if isinstance(event, Gap):
            made[at] = event._replace(time_ns=made[at - 1].time_ns, since_ns=made[at - 1].time_ns)
    found = plain(decode(made))
    assert [(m[0], m[1], m[-1]) for m in found] == [
        message for n in range(3) for message in ((n + 1, "query", "cut"), (n + 1, n, "cut"))
    ]


# --- robustness -----------------------------------------------------------------------------------

FRAGMENTS = [
    greeting(), login(), LOGGED_IN, OK, ROWS, query(b"SELECT 1"), query(b"INSERT 1"), prepare(b"SELECT ?"),
    prepared(7), execute(7), error(1064, b"no"), packet(1, b"\xfbfile"), packet(0, b"\x01"),
    packet(0, b"\x11x"), packet(255, b"x"),
    b"\xff\xff\xff\x00\x03SELECT", query(b"\x02\x01\x00\x01\xfe\x00"), query(b"SELECT " + b"x" * 2000),
]  # fmt: skip
PIECES = st.one_of(st.sampled_from(FRAGMENTS), st.binary(max_size=60))
ANY_EVENT = st.one_of(
    st.tuples(st.sampled_from("<>"), PIECES.filter(bool)),
    st.tuples(st.sampled_from(["<gap", ">gap"]), st.integers(0, 3000)),
    st.sampled_from([("<fin",), (">fin",), ("reset",), ("end",)]),
)


@settings(max_examples=examples(400), deadline=None)
@given(
    st.lists(ANY_EVENT, min_size=1, max_size=25),
    st.booleans(),
    st.sampled_from([None, inserts]),
    st.sampled_from(FEEDS[::2]),
)
def test_nothing_raises(script: list[Line], joined: bool, wanted: Any, feed: Feed) -> None:
    """Any bytes, any holes, any ends: messages or none, but never an exception or an exchange used twice."""
    found = decode(events(script, feed, joined=joined), wanted=wanted)
    asked = [m.exchange for m in found if isinstance(m, SqlStatement)]
    answered = [m.exchange for m in found if isinstance(m, SqlResult) and m.exchange]
    assert len(asked) == len(set(asked))
    assert len(answered) == len(set(answered))
    assert set(answered) <= set(asked)


@pytest.mark.parametrize(
    "unit",
    [
        query(b"SELECT 1"),
        packet(0, b"\x03"),
        packet(5, b"x"),
        b"\x00",
        b"\x03",
        os.urandom(9),
        query(b"SELECT 1") + b"zzz",
    ],
    ids=["query", "no body", "answer", "NUL", "quit", "random", "query and rest"],
)
@pytest.mark.parametrize("direction", ["<", pytest.param(">", marks=pytest.mark.long)])
@pytest.mark.parametrize("joined", [False, True])
def test_linear_time(unit: bytes, direction: str, joined: bool) -> None:
    """A megabyte of anything takes about a second at most."""
    flood = unit * (1_000_000 // len(unit))
    pieces = [flood[at : at + 1448] for at in range(0, len(flood), 1448)]
    script = events([ASK, *((direction, piece) for piece in pieces)], joined=joined)
    began = time.process_time()
    decode(script)
    assert time.process_time() - began < 5


def test_memory_is_bounded() -> None:
    """A connection remembers so many prepared statements, and the beginning of each."""
    link = connection(joined=True)
    decoder = MySql(link, text_limit=1_000)
    for number in range(2_000):
        decoder.receive(Data(link, TO_SERVER, 4 * number, prepare(b"SELECT " + b"x" * 3_000), ((0, 1),)))
        decoder.receive(Data(link, TO_CLIENT, 4 * number + 1, prepared(number), ((0, 2),)))
    texts = decoder._answers.prepared.values()
    assert len(texts) <= 512
    assert max(map(len, texts)) <= 1_000


# --- another project's captures and expectations --------------------------------------------------

"""DeepFlow decompresses; we say that it is compressed."""


def deepflow_captures() -> list[Path]:
    return sorted((FOREIGN / "deepflow/mysql").glob("*.result"))


def packets_of(path: Path) -> Iterable[tuple[int, tuple[str, int], tuple[str, int], bytes]]:
    """Yield (time, source, destination, payload) of a capture's TCP segments, in its order."""
    for number, frame in enumerate(rdpcap(str(path)), 1):
        if TCP in frame and frame[TCP].payload:
            ip = frame[IP]
            size = ip.len - 4 * ip.ihl - 4 * frame[TCP].dataofs
            payload = bytes(frame[TCP].payload)[:size]
            if payload:
                yield number, (ip.src, frame[TCP].sport), (ip.dst, frame[TCP].dport), payload


@needs_foreign
@pytest.mark.parametrize("result", deepflow_captures(), ids=lambda path: path.stem)
def test_deepflow_finds_the_same_statements(result: Path) -> None:
    """Queries and prepared statements of DeepFlow's captures are those that DeepFlow expects."""
    said = [
        json.loads(line.rpartition(" is_mysql:")[0])
        for line in result.read_text().splitlines()
        if line[:1] == "{"
    ]
    expected = [
        one["request_resource"].split("\n")[0].strip() for one in said if one["request_type"] in (3, 22)
    ]
    decoders: dict[frozenset[tuple[str, int]], MySql] = {}
    links: dict[frozenset[tuple[str, int]], Connection] = {}
    found: list[Message] = []
    for number, source, destination, payload in packets_of(result.with_suffix(".pcap")):
        ends = frozenset((source, destination))
        if ends not in decoders:
            server = min(source, destination, key=lambda end: end[1])
            client = destination if server == source else source
            links[ends] = Connection(
                1, Endpoint(*client), Endpoint(*server), 0, joined=not is_greeting(payload)
            )
            decoders[ends] = MySql(links[ends])
        link = links[ends]
        direction = TO_SERVER if destination[1] == link.server.port else TO_CLIENT
        found += decoders[ends].receive(Data(link, direction, number, payload, ((0, number),)))
    if result.stem == "partial-packet-compressed":
        # Its packets overlap: it is compared behind reassembly (tests/oracle/test_foreign.py).
        return
    texts = [m.text for m in found if isinstance(m, SqlStatement) and m.command in ("query", "prepare")]
    assert [text.decode("utf-8", "replace").split("\n")[0].strip() for text in texts] == expected


# --- TLS within -----------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
def test_with_the_keys_what_follows_a_request_for_tls_is_read(version: str, together: bool) -> None:
    """The request and the client's hello may share a segment. The login comes once more, within."""
    flags = USUAL | 0x800
    request = packet(1, flags.to_bytes(4, "little") + b"\x00\x00\x00\x01\x2d" + bytes(23))
    within = [
        (TO_SERVER, packet(2, login(flags)[4:])),
        (TO_CLIENT, packet(3, LOGGED_IN[4:])),
        (TO_SERVER, query(b"SELECT 1")),
        (TO_CLIENT, ROWS),
    ]
    sent = tls.talk(within, version=version)
    segments = [*sent.segments()]
    begin = [(TO_CLIENT, greeting()), (TO_SERVER, request)]
    if together:
        begin[1] = TO_SERVER, request + segments.pop(0)[1]
    told = tls.decoded([*begin, *segments], tls.key_log(sent.keys), tls.connection(3306))
    read = [LOGIN, (1, "query", b"SELECT 1"), (1, "ok")]
    assert plain(m for m in told if not isinstance(m, TlsHello)) == read
    dark = tls.decoded([*begin, *segments], of=tls.connection(3306))
    assert plain(m for m in dark if not isinstance(m, TlsHello)) == [("tls",)]
