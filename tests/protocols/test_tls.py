"""What is read of a TLS connection; all bytes are OpenSSL's."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from itertools import chain

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from hypothesis import example, given
from hypothesis import strategies as st
from lab.tls import NAME, Talk, connection, decoded, key_log, talk

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    HttpRequest,
    HttpResponse,
    Message,
    SqlLogin,
    SqlResult,
    SqlStatement,
    TlsHello,
    Undecoded,
)
from tracer.protocols.tls import KeyLog

GET = b"GET /v3/auth/tokens HTTP/1.1\r\nHost: keystone\r\nX-Auth-Token: canary-7f3a\r\n\r\n"
BODY = bytes(range(33, 127)) * 400
"""More than two records."""
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
SAID = [(TO_SERVER, GET), (TO_CLIENT, ANSWER)] * 3
SUITES = [
    ("1.3", ""),
    ("1.2", "ECDHE-ECDSA-AES128-GCM-SHA256"),
    ("1.2", "ECDHE-ECDSA-AES256-GCM-SHA384"),
    ("1.2", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ("1.2", "ECDHE-ECDSA-AES128-SHA"),
    ("1.2", "ECDHE-ECDSA-AES256-SHA384"),
    ("1.2", "ECDHE-ECDSA-AES128-CCM"),
    ("1.2", "ECDHE-ECDSA-AES256-CCM8"),
]


def hello(told: Iterable[Message]) -> TlsHello:
    [found] = [message for message in told if isinstance(message, TlsHello)]
    return found


def reasons(told: Iterable[Message]) -> list[str]:
    return [message.reason for message in told if isinstance(message, Undecoded)]


def said(told: Iterable[Message]) -> list[tuple[str, bytes]]:
    """Requests and answers as text, with the bodies of the answers."""
    found = []
    for message in told:
        if isinstance(message, HttpRequest):
            found.append((f"{message.method} {message.target}", b""))
        elif isinstance(message, HttpResponse):
            found.append((str(message.status), message.body))
    return found


WHOLE = [("GET /v3/auth/tokens", b""), ("200", BODY)] * 3


def cut(sent: Sequence[tuple[int, bytes]], cuts: random.Random) -> list[tuple[int, bytes]]:
    """The same bytes in segments of any size; the first one is left whole."""
    found = [sent[0]]
    for direction, payload in sent[1:]:
        at = 0
        while at < len(payload):
            size = cuts.choice((1, 3, 5, 40, 1448, 9000))
            found.append((direction, payload[at : at + size]))
            at += size
    return found


# --- what the ends say openly ---------------------------------------------------------------------


def test_the_hellos_of_tls_1_3_are_told() -> None:
    """Without keys: the certificate and the chosen protocol are encrypted."""
    found = hello(decoded([*talk(SAID[:1], alpn=("h2", "http/1.1")).segments()]))
    assert found[1:] == (2, ((0, 2),), NAME, ("h2", "http/1.1"), "1.3", ())


def test_the_hellos_of_tls_1_2_are_told_with_the_certificate() -> None:
    """The chosen protocol is told, and not the offered ones."""
    found = hello(decoded([*talk(SAID[:1], version="1.2", alpn=("http/1.1",)).segments()]))
    assert (found.server_name, found.alpn, found.version) == (NAME, ("http/1.1",), "1.2")
    assert found.certificate_names == (NAME, "identity", "172.28.0.41")


def test_a_session_that_goes_on_has_no_certificate() -> None:
    first = talk(SAID[:1], version="1.2")
    second = talk(SAID[:1], version="1.2", session=first.session)
    assert second.resumed
    found = hello(decoded([*second.segments()]))
    assert (found.server_name, found.version, found.certificate_names) == (NAME, "1.2", ())


def test_a_client_that_nobody_answers_is_told_at_the_end() -> None:
    found = hello(decoded(talk(SAID[:1]).flights[:1]))
    assert (found.server_name, found.version) == (NAME, "")


@given(st.integers(), st.sampled_from(["1.2", "1.3"]))
def test_records_may_be_cut_anywhere(seed: int, version: str) -> None:
    """TCP knows no records; of the first only the head must be whole."""
    sent = [*talk(SAID[:1], version=version).segments()]
    told = decoded(cut(sent, random.Random(seed)))
    assert hello(told)[3:] == hello(decoded(sent))[3:]
    assert reasons(told) == ["tls"]


# --- with keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "ciphers"), SUITES)
def test_with_its_keys_a_connection_is_read_as_if_it_were_plain(version: str, ciphers: str) -> None:
    """Each message on the frame that completes its last record, where Wireshark shows it."""
    sent = talk(SAID, version=version, ciphers=ciphers)
    segments = [*sent.segments()]
    told = decoded(segments, key_log(sent.keys))
    assert said(told) == WHOLE
    assert not reasons(told)
    ends = [m.frames[0][1] for m in told if isinstance(m, HttpResponse)]
    assert segments[ends[-1] - 1] == segments[-1]
    assert all(segments[end - 1][0] == TO_CLIENT for end in ends)


@given(st.integers(), st.sampled_from([("1.3", ""), SUITES[1], SUITES[4]]))
def test_records_with_keys_may_be_cut_anywhere(seed: int, suite: tuple[str, str]) -> None:
    """One segment may hold several records, and a record several segments."""
    sent = _talk_of(*suite)
    assert said(decoded(cut([*sent.segments()], random.Random(seed)), key_log(sent.keys))) == WHOLE


_TALKS: dict[tuple[str, str], Talk] = {}


def _talk_of(version: str, ciphers: str) -> Talk:
    found = _TALKS.get((version, ciphers))
    if found is None:
        found = _TALKS[version, ciphers] = talk(SAID, version=version, ciphers=ciphers)
    return found


def test_a_session_of_tls_1_2_goes_on_with_the_keys_of_its_first_connection() -> None:
    """Some tools write a master secret once. The ticket, or the session's id, leads to it."""
    first = talk(SAID, version="1.2")
    second = talk(SAID, version="1.2", session=first.session)
    assert second.resumed
    keys = key_log(first.keys)
    assert said(decoded([*first.segments()], keys)) == WHOLE
    assert said(decoded([*second.segments()], keys, connection(number=2))) == WHOLE


def test_tokens_within_are_digested() -> None:
    """As those of plain HTTP."""
    sent = talk(SAID)
    told = decoded([*sent.segments()], key_log(sent.keys))
    requests = [message for message in told if isinstance(message, HttpRequest)]
    assert requests and "canary-7f3a" not in str([request.headers for request in requests])


def test_a_connection_without_a_key_is_told_once() -> None:
    sent, other = talk(SAID), talk(SAID)
    assert reasons(decoded([*sent.segments()], key_log(other.keys))) == ["tls: no key"]


def test_keys_may_come_after_the_records() -> None:
    """A live run: what waits is read once they are there."""
    sent = talk(SAID)
    pieces = iter([b"", b"", b"", sent.keys.encode()])
    keys = KeyLog(lambda: keys.add(next(pieces, b"")))
    keys.is_given = True
    assert said(decoded([*sent.segments()], keys)) == WHOLE


def test_hellos_may_come_in_any_order() -> None:
    """The server's direction may be read before the client's."""
    sent = talk(SAID)
    segments = [*sent.segments()]
    to_client = [each for each in segments if each[0] == TO_CLIENT]
    to_server = [each for each in segments if each[0] == TO_SERVER]
    told = decoded([*to_client[:1], *to_server, *to_client[1:]], key_log(sent.keys))
    assert sorted(said(told)) == sorted(WHOLE)


def test_a_key_that_is_updated_is_followed() -> None:
    """KeyUpdate (RFC 8446 §4.6.3). No end that Python has sends one, so it is made here."""
    sent = talk(SAID[:1] * 3)
    found = re.search(r"CLIENT_TRAFFIC_SECRET_0 \S+ (\S+)", sent.keys)
    assert found is not None
    secret = bytes.fromhex(found[1])
    update = sealed(secret, 3, b"\x18\0\0\x01\0" + b"\x16")
    renewed = expanded(secret, b"traffic upd", len(secret))
    sent.flights += [(TO_SERVER, update), (TO_SERVER, sealed(renewed, 0, GET + b"\x17"))]
    told = decoded([*sent.segments()], key_log(sent.keys))
    assert said(told) == [("GET /v3/auth/tokens", b"")] * 4


def expanded(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label, as the library has it."""
    label = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
    return HKDFExpand(hashes.SHA384(), size, info).derive(secret)


def sealed(secret: bytes, number: int, inner: bytes) -> bytes:
    """A record of TLS 1.3 with AES-256-GCM."""
    head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
    nonce = int.from_bytes(expanded(secret, b"iv", 12), "big") ^ number
    return head + AESGCM(expanded(secret, b"key", 32)).encrypt(nonce.to_bytes(12, "big"), inner, head)


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_postgresql_is_read_behind_its_request_for_tls(version: str) -> None:
    def message(kind: bytes, body: bytes) -> bytes:
        return kind + (len(body) + 4).to_bytes(4, "big") + body

    start = message(b"", b"\0\3\0\0user\0nova\0database\0nova_api\0\0")
    ready = message(b"Z", b"I")
    within = [
        (TO_SERVER, start),
        (TO_CLIENT, message(b"R", bytes(4)) + ready),
        (TO_SERVER, message(b"Q", b"SELECT 1\0")),
        (TO_CLIENT, message(b"C", b"SELECT 1\0") + ready),
    ]
    sent = talk(within, version=version)
    begin = [(TO_SERVER, bytes.fromhex("0000000804d2162f")), (TO_CLIENT, b"S")]
    told = decoded([*begin, *sent.segments()], key_log(sent.keys), connection(5432))
    assert [type(each) for each in told] == [TlsHello, SqlLogin, SqlStatement, SqlResult]
    assert reasons(decoded([*begin, *sent.segments()], of=connection(5432))) == ["tls"]


# --- what began before the capture ----------------------------------------------------------------


def joined(sent: Talk, flights: int, *logs: str) -> list[Message]:
    """The messages of *sent* without its first flights, of a connection that was up before."""
    rest = Talk(sent.flights[flights:])
    return decoded([*rest.segments()], key_log(*logs), connection(joined=True))


def test_tls_1_3_is_opened_by_trial() -> None:
    """Among the secrets of others, and from the middle of the connection."""
    others = [talk(SAID[:1]).keys for _ in range(3)]
    sent = talk(SAID)
    told = joined(sent, len(sent.flights) - 3, others[0], sent.keys, *others[1:])
    assert said(told)[-2:] == WHOLE[-2:]
    assert not reasons(told)


def test_mistaken_ends_are_turned_within_a_piece_of_several_records() -> None:
    """The first record that is opened shows who is the client; the next ones of its piece follow it."""
    sent = talk([(TO_SERVER, GET)] * 4 + [(TO_CLIENT, ANSWER)] * 4)
    begun = next(at for at in range(len(sent.flights)) if len(sent.flights) - at == 8)
    pieces: dict[int, bytes] = {}
    for direction, payload in Talk(sent.flights[begun:]).segments():
        pieces[1 - direction] = pieces.get(1 - direction, b"") + payload
    of = connection(joined=True)
    of.certain = False
    told = decoded([*pieces.items()], key_log(sent.keys), of)
    assert len([text for text, _ in said(told) if text.startswith("GET")]) == 4


def test_tls_1_2_that_began_before_stays_dark() -> None:
    """Its keys need the server's random, which no log holds."""
    sent = talk(SAID, version="1.2")
    told = joined(sent, len(sent.flights) - 4, sent.keys)
    assert (said(told), reasons(told)) == ([], ["tls 1.2: began before the capture"])


def test_tls_1_3_without_its_key_stays_dark() -> None:
    sent = talk(SAID)
    told = joined(sent, len(sent.flights) - 4, talk(SAID[:1]).keys)
    assert (said(told), reasons(told)) == ([], ["tls: began before the capture, and no key fits"])


def test_a_capture_may_begin_within_a_record() -> None:
    """On the port of an API, where its bytes look like a part of a body."""
    sent = talk(SAID)
    first, *rest = Talk(sent.flights[-3:]).segments()
    segments = [(first[0], first[1][7:]), *rest]
    told = decoded(segments, key_log(sent.keys), connection(joined=True))
    assert said(told)[-2:] == WHOLE[-2:]


def test_a_lost_hello_is_not_an_early_beginning() -> None:
    """Of TLS 1.2 the connection stays dark; the reason is another one."""
    sent = talk(SAID, version="1.2")
    segments: list[tuple[int, bytes | None]] = [*sent.segments()]
    server = next(at for at, (direction, _) in enumerate(segments) if direction == TO_CLIENT)
    segments[server] = TO_CLIENT, None
    assert reasons(decoded(segments, key_log(sent.keys))) == ["tls 1.2: its hellos are lost"]


def test_the_search_for_a_key_has_an_end() -> None:
    """And it is said."""
    sent = talk(SAID)
    keys = key_log(sent.keys)
    keys.left = 0
    rest = Talk(sent.flights[-4:])
    told = decoded([*rest.segments()], keys, connection(joined=True))
    assert reasons(told) == ["tls: began before the capture, key search ended"]


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "ciphers"), [("1.3", ""), SUITES[1], SUITES[3], SUITES[4]])
def test_behind_a_hole_records_are_opened_again(version: str, ciphers: str) -> None:
    """The number of the next record is found by its tag."""
    sent = talk([(TO_SERVER, GET)] * 40, version=version, ciphers=ciphers)
    segments = [*sent.segments()]
    without: list[tuple[int, bytes | None]] = [*segments[:-30], (TO_SERVER, None), *segments[-10:]]
    told = said(decoded(without, key_log(sent.keys)))
    assert len(told) == 20 and set(told) == {("GET /v3/auth/tokens", b"")}


@given(st.data())
def test_damage_makes_no_wrong_text(data: st.DataObject) -> None:
    """Segments that are lost or come in another order: what is told was said, or is told to be cut."""
    sent = _talk_of(*data.draw(st.sampled_from([("1.3", ""), SUITES[1], SUITES[4]])))
    segments: list[tuple[int, bytes | None]] = [*sent.segments()]
    for at in data.draw(st.lists(st.integers(0, len(segments) - 1), max_size=3)):
        segments[at] = (segments[at][0], None)
    for at in data.draw(st.lists(st.integers(0, len(segments) - 2), max_size=2)):
        segments[at : at + 2] = reversed(segments[at : at + 2])
    for message in decoded(segments, key_log(sent.keys)):
        if isinstance(message, HttpResponse) and not message.truncated:
            assert message.body == BODY
        elif isinstance(message, HttpRequest):
            assert message.target == "/v3/auth/tokens"


@given(st.data())
def test_damaged_bytes_make_no_wrong_text(data: st.DataObject) -> None:
    """Any byte of any record may be another one."""
    sent = _talk_of(*data.draw(st.sampled_from([("1.3", ""), SUITES[1], SUITES[4]])))
    segments = [*sent.segments()]
    for at in data.draw(st.lists(st.integers(1, len(segments) - 1), max_size=3)):
        direction, payload = segments[at]
        place = data.draw(st.integers(0, len(payload) - 1))
        segments[at] = direction, payload[:place] + bytes((payload[place] ^ 0x55,)) + payload[place + 1 :]
    for message in decoded(segments, key_log(sent.keys)):
        if isinstance(message, HttpResponse) and not message.truncated:
            assert message.body == BODY


@given(st.binary(max_size=200), st.binary(max_size=400), st.integers(0, 1))
def test_anything_behind_a_record_head_is_taken(first: bytes, more: bytes, direction: int) -> None:
    """Hostile bytes raise nothing."""
    head = b"\x16\x03\x01" + len(first).to_bytes(2, "big")
    segments = [(direction, head + first), (1 - direction, more), (direction, more)]
    decoded(segments, key_log(talk(SAID[:1]).keys if not _TALKS else next(iter(_TALKS.values())).keys))


# --- the key log ----------------------------------------------------------------------------------


def test_a_key_log_may_hold_anything() -> None:
    """Comments, garbage, cut lines and wrong lengths: what can be read is used, the rest is counted."""
    sent = talk(SAID)
    garbage = ["# a comment", "", "CLIENT_RANDOM 00 11", "\0\xff" * 50, "x" * 10_000, "CLIENT_RANDOM zz zz"]
    lines = [*chain.from_iterable(zip(garbage, sent.keys.splitlines(), strict=False))]
    keys = key_log("\r\n".join(lines))
    assert said(decoded([*sent.segments()], keys)) == WHOLE
    assert keys.unreadable == 4


@example([b"\x1c\n"])
@given(st.lists(st.binary(max_size=300), max_size=5))
def test_any_bytes_are_taken_as_a_key_log(pieces: list[bytes]) -> None:
    keys = KeyLog()
    for piece in pieces:
        keys.add(piece)


@given(st.integers(1, 200))
def test_a_key_log_may_be_read_in_pieces(size: int) -> None:
    """A live run meets lines that are half written."""
    sent = _talk_of("1.3", "")
    text, keys = sent.keys.encode().rstrip(), KeyLog()
    for at in range(0, len(text), size):
        keys.add(text[at : at + size])
    assert said(decoded([*sent.segments()], keys)) == WHOLE


def test_secrets_do_not_show() -> None:
    """In no text that an error could print."""
    sent = talk(SAID)
    keys = key_log(sent.keys)
    secrets = re.findall(r" ([0-9a-f]{64,96})$", sent.keys, re.MULTILINE)
    assert secrets and not any(secret in repr(keys) for secret in secrets)
