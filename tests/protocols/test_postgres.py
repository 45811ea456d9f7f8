"""PostgreSQL decoding: conversations and what they say, each cut in several ways; then damage."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.captures import SHARED, needs_shared
from lab.long import examples
from lab.postgres import (
    CLOSED,
    LOGGED_IN,
    READY,
    SYNC,
    bind,
    done,
    error,
    execute,
    extended,
    message,
    parse,
    query,
    rows,
    startup,
)

from tracer import engine
from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Closed,
    Connection,
    Data,
    Endpoint,
    Gap,
    Message,
    SqlLogin,
    SqlResult,
    SqlStatement,
    Undecoded,
)
from tracer.protocols.postgres import Postgres
from tracer.protocols.postgres.framing import TEXT_LIMIT

Line = tuple[Any, ...]
"""('>', bytes) to the server · ('<', bytes) to the client · ('>gap', size) · ('<gap', size) · ('end',)"""
SSL, GSS = struct.pack(">II", 8, 80877103), struct.pack(">II", 8, 80877104)
CANCEL = struct.pack(">IIII", 16, 80877102, 7, 8)
VM = "145c135d-63cb-41ba-98cd-3235a30c2e27"


def whole(payload: bytes) -> list[bytes]:
    return [payload]


def byte_by_byte(payload: bytes) -> list[bytes]:
    return [payload[at : at + 1] for at in range(len(payload))]


def by_seven(payload: bytes) -> list[bytes]:
    return [payload[at : at + 7] for at in range(0, len(payload), 7)]


def talk(
    script: Iterable[Line],
    feed: Callable[[bytes], list[bytes]] = whole,
    joined: bool = False,
    **options: Any,
) -> list[Message]:
    """Every message of a conversation; reassembly's deafness is honoured."""
    link = Connection(1, Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 5432), 0, joined)
    decoder, found, at = Postgres(link, **options), [], 0
    for what, *rest in script:
        at += 1_000
        direction = TO_CLIENT if what[0] == "<" else TO_SERVER
        if what in "<>":
            for part in feed(rest[0]):
                at += 1
                if not (link.deaf and direction):
                    found += decoder.receive(Data(link, direction, at, part, ((0, at),)))
        elif what == "end":
            found += decoder.closed(Closed(link, at, "end"))
        else:
            link.gaps += 1
            found += decoder.gap(Gap(link, direction, at, rest[0], at - 500))
    return found


def short(found: Sequence[Message]) -> list[tuple[Any, ...]]:
    said: list[tuple[Any, ...]] = []
    for each in found:
        if isinstance(each, SqlStatement):
            said.append((each.exchange, each.command, each.text.decode(), *each.values))
        elif isinstance(each, SqlResult):
            said.append((each.exchange, "ok" if each.ok else each.error_code))
        elif isinstance(each, SqlLogin):
            said.append(("login", each.schema, each.attributes))
        elif isinstance(each, Undecoded):
            said.append(("undecoded", each.reason))
    return said


BEGIN: list[Line] = [(">", startup()), ("<", LOGGED_IN)]
LOGIN = ("login", "nova_api", {"application_name": "nova-api"})
SASL = message("R", struct.pack(">I", 10) + b"SCRAM-SHA-256\0\0")
PARSED, BOUND, NO_ROWS, EMPTY = message("1"), message("2"), message("n"), message("I")
ANSWER = PARSED + BOUND + NO_ROWS + done() + READY

CONVERSATIONS: dict[str, tuple[list[Line], list[tuple[Any, ...]]]] = {
    "simple query": (
        [*BEGIN, (">", query("SELECT 1")), ("<", rows("1") + READY), (">", CLOSED)],
        [LOGIN, (1, "query", "SELECT 1"), (1, "ok"), (2, "quit", "")],
    ),
    "refused encryption, then SCRAM": (
        [(">", GSS), ("<", b"N"), (">", SSL), ("<", b"N"), (">", startup()), ("<", SASL),
         (">", message("p", b"SCRAM-SHA-256\0\0\0\0\x05n,,n=")),
         ("<", message("R", struct.pack(">I", 11) + b"r")),
         (">", message("p", b"c=biws")), ("<", message("R", struct.pack(">I", 12) + b"v") + LOGGED_IN),
         (">", query("BEGIN")), ("<", done("BEGIN") + message("Z", b"T"))],
        [LOGIN, (1, "query", "BEGIN"), (1, "ok")],
    ),
    "openGauss's version": (
        [(">", startup(0x00030033)), ("<", LOGGED_IN), (">", query("SELECT 1")), ("<", rows() + READY)],
        [LOGIN, (1, "query", "SELECT 1"), (1, "ok")],
    ),
    "wrong password": (
        [(">", startup()), ("<", SASL), (">", message("p", b"x")), ("<", error("28P01", "password failed"))],
        [LOGIN, (0, "28P01")],
    ),
    "an error, and several completions in one query": (
        [*BEGIN, (">", query("SELECT 1; SELEKT")), ("<", rows("1") + error("42601", "syntax error") + READY),
         (">", query("SELECT 1; SELECT 2")), ("<", rows("1") + rows("2") + READY),
         (">", query("")), ("<", EMPTY + READY)],
        [LOGIN, (1, "query", "SELECT 1; SELEKT"), (1, "42601"), (2, "query", "SELECT 1; SELECT 2"), (2, "ok"),
         (3, "query", ""), (3, "ok")],
    ),
    "extended": (
        [*BEGIN, (">", extended("INSERT INTO t VALUES ($1, $2)", b"a", None)), ("<", ANSWER)],
        [LOGIN, (1, "execute", "INSERT INTO t VALUES ($1, $2)", b"a", None), (1, "ok")],
    ),
    "prepared once, executed twice, closed": (
        [*BEGIN, (">", parse("UPDATE t SET a = $1", "s1") + message("D", b"Ss1\0") + SYNC),
         ("<", PARSED + message("t", b"\0\x01\0\0\0\x19") + NO_ROWS + READY),
         (">", bind(b"x", name="s1") + execute() + SYNC), ("<", BOUND + done("UPDATE 1") + READY),
         (">", bind(b"y", name="s1") + execute() + SYNC), ("<", BOUND + error("40001", "again") + READY),
         (">", message("C", b"Ss1\0") + SYNC), ("<", message("3") + READY),
         (">", bind(b"z", name="s1") + execute() + SYNC), ("<", error("26000", "does not exist") + READY)],
        [LOGIN, (1, "prepare", "UPDATE t SET a = $1"), (1, "ok"), (2, "execute", "UPDATE t SET a = $1", b"x"),
         (2, "ok"), (3, "execute", "UPDATE t SET a = $1", b"y"), (3, "40001"), (4, "execute", "#s1", b"z"),
         (4, "26000")],
    ),
    "a portal that is fetched in parts": (
        [*BEGIN, (">", parse("SELECT a") + bind(portal="c") + execute("c", 1) + message("H")),
         ("<", PARSED + BOUND + message("D", b"\0\x01\0\0\0\x01a") + message("s")),
         (">", execute("c", 1) + SYNC), ("<", message("D", b"\0\x01\0\0\0\x01a") + done("SELECT 1") + READY)],
        [LOGIN, (1, "execute", "SELECT a"), (1, "ok"), (2, "fetch", "SELECT a"), (2, "ok")],
    ),
    "a pipeline, whose second statement fails": (
        [*BEGIN, (">", extended("INSERT 1")[:-5] + extended("INSERT 2")[:-5] + extended("INSERT 3")),
         ("<", PARSED + BOUND + NO_ROWS + done() + PARSED + error("23505", "duplicate") + READY),
         (">", extended("INSERT 4") + extended("INSERT 5")), ("<", ANSWER), ("<", ANSWER)],
        [LOGIN, (1, "execute", "INSERT 1"), (2, "execute", "INSERT 2"), (3, "execute", "INSERT 3"), (1, "ok"),
         (2, "23505"), (3, "23505"), (4, "execute", "INSERT 4"), (5, "execute", "INSERT 5"), (4, "ok"),
         (5, "ok")],
    ),
    "a statement that is sent behind an error, before its Sync": (
        [*BEGIN, (">", extended("INSERT 1")[:-5]), ("<", PARSED + error("23505", "duplicate")),
         (">", extended("INSERT 2")), ("<", READY), (">", extended("INSERT 3")), ("<", ANSWER)],
        [LOGIN, (1, "execute", "INSERT 1"), (1, "23505"), (2, "execute", "INSERT 2"), (2, "23505"),
         (3, "execute", "INSERT 3"), (3, "ok")],
    ),
    "copy in and out": (
        [*BEGIN, (">", query("COPY t FROM STDIN")), ("<", message("G", b"\0\0\x01\0\0")),
         (">", message("d", b"x" * 3000) + message("c")), ("<", done("COPY 1") + READY),
         (">", query("COPY t TO STDOUT")),
         ("<", message("H", b"\0\0\x01\0\0") + message("d", b"x" * 900) + message("c")),
         ("<", done("COPY 1") + READY)],
        [LOGIN, (1, "query", "COPY t FROM STDIN"), (1, "ok"), (2, "query", "COPY t TO STDOUT"), (2, "ok")],
    ),
    "function call, notice, notification": (
        [*BEGIN, (">", message("F", bytes(10))), ("<", message("N", b"SNOTICE\0MHello\0\0")),
         ("<", message("V", struct.pack(">i", -1)) + READY), ("<", message("A", b"\0\0\0\x01a\0b\0")),
         (">", query("SELECT 1")), ("<", message("S", b"TimeZone\0UTC\0") + rows() + READY)],
        [LOGIN, (1, "function_call", ""), (1, "ok"), (2, "query", "SELECT 1"), (2, "ok")],
    ),
    "a request to cancel": ([(">", CANCEL), ("end",)], []),
    "encryption that is agreed to": (
        [(">", SSL), ("<", b"S"), (">", b"\x16\x03\x01\x02\0\x01")], [("undecoded", "tls")],
    ),
    "encryption by GSSAPI": ([(">", GSS), ("<", b"G"), (">", b"\0\0\0\x10x")], [("undecoded", "gssapi")]),
    "encryption without a request": ([(">", b"\x16\x03\x01\x02\0\x01\0\0\0")], [("undecoded", "tls")]),
}  # fmt: skip


@pytest.mark.parametrize("feed", [whole, byte_by_byte, by_seven])
@pytest.mark.parametrize("name", CONVERSATIONS)
def test_what_a_conversation_says(name: str, feed: Callable[[bytes], list[bytes]]) -> None:
    """However its bytes are cut into pieces."""
    script, expected = CONVERSATIONS[name]
    found = talk(script, feed)
    if feed is not whole and any(line[1][:1] == b"\x16" for line in script if line[0] == ">"):
        found = found[:1]
    assert short(found) == expected


@pytest.mark.parametrize(
    "value, kind, text",
    [
        (VM.encode(), 1043, VM),
        (VM.encode(), 0, VM),
        (uuid.UUID(VM).bytes, 2950, VM),
        (uuid.UUID(VM).bytes, 0, VM),
        (struct.pack(">i", -7), 23, "-7"),
        (struct.pack(">q", 1 << 40), 0, str(1 << 40)),
        (b"\x01" + b'{"a": 1}', 3802, '{"a": 1}'),
        (b"\x01\x02\x03", 17, "010203"),
        (b"", 0, ""),
    ],
)
def test_binary_parameters_become_text(value: bytes, kind: int, text: str) -> None:
    """By the number of their type, or by their form where the client leaves the type to the server."""
    script = [*BEGIN, (">", parse("SELECT $1", types=(kind,)) + bind(value, binary=True) + execute() + SYNC)]
    (statement,) = (each for each in talk(script) if isinstance(each, SqlStatement))
    assert statement.values == (text.encode(),)
    assert not statement.truncated


def test_a_password_is_in_no_message() -> None:
    """Not that of the password message, nor the user's name, nor a value that an error quotes at length."""
    script = [
        (">", startup(user="canaryUser", database="nova", options="-c secret=canaryOption")),
        (">", message("p", b"canaryPassword\0")),
        ("<", LOGGED_IN),
        (">", query("SELECT 1")),
        ("<", error("22P02", f'invalid input: "{"canary" * 20}"', "Key (a)=(canaryDetail)") + READY),
    ]
    assert not [each for each in map(str, map(tuple, talk(script))) if "canary" in each]


@pytest.mark.parametrize(
    "payload, direction",
    [
        (startup(), TO_SERVER),
        (SSL, TO_SERVER),
        (CANCEL, TO_SERVER),
        (query("select 1"), TO_SERVER),
        (extended("/* x */ INSERT INTO t VALUES (1)"), TO_SERVER),
        (query("SELECT " + "x" * 9000)[:1400], TO_SERVER),
        (rows("1", "2") + READY, TO_CLIENT),
        (error("42601", "no") + READY, TO_CLIENT),
        (LOGGED_IN, TO_CLIENT),
        (b"GET / HTTP/1.1\r\n\r\n", None),
        (b"AMQP\0\0\x09\x01", None),
        (b"\x09\0\0\0\x03SELECT 1", None),
        (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", None),
        (bytes(40), None),
        (b"Quite a text", None),
    ],
)
def test_what_is_recognised(payload: bytes, direction: int | None) -> None:
    """On a port that nobody knows, whatever the guess of reassembly."""
    for guess in (TO_SERVER, TO_CLIENT):
        assert Postgres.recognises(payload, guess) == direction


def test_a_connection_that_is_joined_in_the_middle_of_messages() -> None:
    """Of both sides the rest of a message is seen first."""
    script: list[Line] = [
        (">", query("UPDATE old SET a = 1")[12:]),
        ("<", rows("1", "2")[17:] + READY),
        (">", query("SELECT 1")),
        ("<", rows("1") + READY),
        (">", bind(b"7", name="s1") + execute() + SYNC),
        ("<", BOUND + done() + READY),
    ]
    found = talk(script, joined=True)
    assert short(found) == [(1, "query", "SELECT 1"), (1, "ok"), (2, "execute", "#s1", b"7"), (2, "ok")]


def test_a_statement_that_is_not_wanted_is_skipped_with_its_answer() -> None:
    """The server's bytes are not asked for, and the next wanted statement gets its own answer."""
    skipped: list[int] = []
    script: list[Line] = [*BEGIN]
    for number in range(4):
        script += [(">", query(f"SELECT {number} {'x' * 900}")), ("<", rows("1") + READY)]
    script += [(">", query("INSERT 1")), ("<", error("42601", "no") + READY)]
    script += [(">", extended("SELECT 5")), ("<", ANSWER)]
    for feed in (whole, byte_by_byte, lambda p: [p[at : at + 600] for at in range(0, len(p), 600)]):
        skipped.clear()
        found = talk(
            script,
            feed,
            wanted=lambda text: text[:6] == b"INSERT",
            skipped=lambda time_ns, frames: skipped.append(time_ns),
        )
        assert short(found) == [LOGIN, (5, "query", "INSERT 1"), (5, "42601")]
        assert len(skipped) == 5


def test_a_long_statement_is_kept_in_part() -> None:
    """What follows is in step."""
    script = [*BEGIN, (">", query("INSERT " + "x" * (1 << 20))), ("<", done() + READY), (">", query("BEGIN"))]
    _, first, result, second = talk(script, lambda p: [p[at : at + 1400] for at in range(0, len(p), 1400)])
    assert isinstance(first, SqlStatement) and first.truncated and len(first.text) == TEXT_LIMIT
    assert isinstance(result, SqlResult) and result.ok
    assert isinstance(second, SqlStatement) and second.text == b"BEGIN"


def test_what_a_connection_remembers_is_bounded() -> None:
    """Statements are prepared and bound without end."""
    link = Connection(1, Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 5432), 0)
    decoder = Postgres(link)
    decoder.receive(Data(link, TO_SERVER, 1, startup(), ()))
    for number in range(2_000):
        sent = parse("SELECT " + "x" * 9_000, f"s{number}") + bind(
            b"y" * 9_000, name="s", portal=f"p{number}"
        )
        decoder.receive(Data(link, TO_SERVER, number + 2, sent + SYNC, ()))
    statements = decoder._statements
    kept = [len(each.text) for each in statements._prepared.values()]
    kept += [len(value or b"") for each in statements._portals.values() for value in each.values]
    assert sum(kept) <= 2 << 20
    assert len(decoder._answers._cycles) <= 256


def test_a_hole_in_a_row_hides_no_result() -> None:
    """The lengths of the messages lead over it."""
    answer = rows("x" * 5_000) + READY
    script = [*BEGIN, (">", query("SELECT 1")), ("<", answer[:100]), ("<gap", 3000), ("<", answer[3100:])]
    assert short(talk(script))[1:] == [(1, "query", "SELECT 1"), (1, "ok")]


def test_a_hole_in_a_statement_cuts_it() -> None:
    """What follows it is read."""
    sent = query("INSERT INTO t VALUES ('" + "x" * 5_000 + "')")
    script = [*BEGIN, (">", sent[:100]), (">gap", 3000), (">", sent[3100:]), ("<", done() + READY)]
    _, statement, result = talk([*script, ("end",)])
    assert isinstance(statement, SqlStatement) and statement.truncated
    assert isinstance(result, SqlResult) and result.ok


@needs_shared
@pytest.mark.parametrize(
    "name, expected",
    [
        ("pg-ok-image", [("conforms", "active", None)]),
        ("pg-ok-image-midstream", [("conforms", "active", None)]),
        ("pg-fail-quota-403", [("conforms", "active", None), ("deviates", "rejected", "4c")]),
    ],
)
def test_creations_of_a_cloud_on_postgresql(name: str, expected: list[tuple[str, str, str | None]]) -> None:
    """Real nova with PostgreSQL 15: what psycopg2 sends shows 4c and 4d. Nothing is left undecoded."""
    report = engine.check([str(SHARED / name)], engine.Settings())
    assert [(v.verdict, v.outcome, v.stopped_at) for v in report.verdicts] == expected
    assert not any(capture.undecoded for capture in report.captures)


ANYTHING = st.sampled_from(
    [line for script, _ in CONVERSATIONS.values() for line in script if line[0] in "<>"]
)


@settings(max_examples=examples(150))
@given(st.data())
def test_no_damage_raises_or_invents_a_statement(data: st.DataObject) -> None:
    """A conversation is cut anywhere, parts are dropped: every statement that is told was sent, or is the
    beginning of one that was, and is said to be truncated."""
    texts = [f"INSERT INTO t{n} VALUES ($1, '{'v' * n}')" for n in range(6)]
    script: list[Line] = [*BEGIN]
    for n, text in enumerate(texts):
        script += [
            (">", extended(text, b"a") if n % 2 else query(text)),
            ("<", ANSWER if n % 2 else done() + READY),
        ]
    damaged: list[Line] = []
    for what, payload in script:
        begin = data.draw(st.integers(0, len(payload)))
        end = begin + data.draw(st.integers(0, 40))
        lost = payload[begin:end]
        known = data.draw(st.booleans())
        if payload[:begin]:
            damaged.append((what, payload[:begin]))
        if lost:
            damaged.append((what + "gap", len(lost) if known else 0))
        if payload[end:]:
            damaged.append((what, payload[end:]))
    for found in talk([*damaged, ("end",)], joined=data.draw(st.booleans())):
        if isinstance(found, SqlStatement) and found.text[:1] != b"#":
            text = found.text.decode()
            assert text in texts or (found.truncated and any(sent.startswith(text) for sent in texts))


@settings(max_examples=examples(150))
@given(st.lists(st.tuples(ANYTHING, st.binary(max_size=12), st.integers(0, 60)), max_size=12), st.booleans())
def test_garbage_raises_nothing(lines: list[tuple[Line, bytes, int]], joined: bool) -> None:
    """Messages out of any conversation, in any order, with bytes replaced."""
    script: list[Line] = []
    for (what, payload), junk, at in lines:
        script.append((what, payload[:at] + junk + payload[at + len(junk) :] or b"x"))
    talk([*script, ("end",)], joined=joined)
