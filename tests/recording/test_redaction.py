"""Secrets are overwritten in place, wherever they are cut, and the verdicts stay the same."""

from __future__ import annotations

import json
import random
import re
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab import postgres
from lab.long import examples
from scapy.layers.inet import IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from tracer import engine
from tracer.capture import open_capture
from tracer.engine import Settings
from tracer.model import Capture, PacketFields
from tracer.recording.pcapng_writer import Described, interface_block, packet_block, section_block
from tracer.recording.redaction import Redactor

CAPTURES = Path(__file__).parent.parent.parent / "captures"
NAMES = sorted(p.parent.name for p in CAPTURES.glob("*/truth.json") if p.parent.name[:3] != "ok-")
SECRETS = re.compile(rb"gAAAAA[\w-]{20}|Admin-lab|vdcpass")


def redacted(packets: list[PacketFields], batch: int = 300) -> list[PacketFields]:
    redactor = Redactor()
    found = []
    for start in range(0, len(packets), batch):
        found += redactor.receive(packets[start : start + batch])
    return found + redactor.flush()


def write(packets: list[PacketFields], path: Path) -> None:
    blocks = [packet_block(0, p[0], p[1], p[2]) for p in packets]
    described = interface_block(Described(path.name.partition(".")[0], "test", packets[0][3]))
    path.write_bytes(section_block("test") + described + b"".join(blocks))


@pytest.mark.parametrize("name", NAMES)
def test_a_redacted_capture_gives_the_same_verdicts_and_holds_no_secret(name: str, tmp_path: Path) -> None:
    for path in (CAPTURES / name).glob("*.zst"):
        packets = sorted(
            chain.from_iterable(open_capture(str(path), Capture(0, ""))), key=lambda packet: packet[0]
        )
        found = redacted(packets)
        assert [(p[0], len(p[1]), *p[2:]) for p in found] == [(p[0], len(p[1]), *p[2:]) for p in packets]
        assert not SECRETS.search(b"".join(p[1] for p in found))
        write(found, tmp_path / (path.name.partition(".")[0] + ".pcapng"))
    settings = Settings(stall_s=20)
    before, after = (engine.check([str(p)], settings) for p in (CAPTURES / name, tmp_path))
    key = [
        (v.id, v.name, v.verdict, v.outcome, v.stopped_at, v.summary, [(s.step, s.status) for s in v.steps])
        for v in before.verdicts
    ]
    assert [
        (v.id, v.name, v.verdict, v.outcome, v.stopped_at, v.summary, [(s.step, s.status) for s in v.steps])
        for v in after.verdicts
    ] == key
    counts = [(c.calls, c.undecoded, c.gaps) for c in before.captures]
    assert [(c.calls, c.undecoded, c.gaps) for c in after.captures] == counts


def _json(**members: object) -> bytes:
    return json.dumps(members).encode()


def _twice(**members: object) -> bytes:
    """As oslo.messaging does it: JSON inside of JSON."""
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(members)}).encode()


HIDDEN = "s3cr3t-Value/of+this=test"
CASES = {
    "header": (8774, b"GET / HTTP/1.1\r\nX-Auth-Token: " + HIDDEN.encode() + b"\r\nHost: a\r\n\r\n"),
    "cookie": (8774, b"GET / HTTP/1.1\r\nHost: a\r\ncookie:" + HIDDEN.encode() + b"\r\n\r\n"),
    "json": (8774, _json(server={"name": "web-1", "user_data": HIDDEN, "adminPass": HIDDEN})),
    "json with quotes": (8774, _json(password=HIDDEN + '"\\"' + HIDDEN)),
    "json inside of json": (5672, _twice(args={"admin_password": HIDDEN, "name": "web-1"})),
    "json inside of json, quoted": (5672, _twice(args={"admin_password": HIDDEN + '"' + HIDDEN})),
    "auth by token": (5000, _json(auth={"identity": {"token": {"id": HIDDEN}}})),
    "fernet": (5000, b"x=gAAAAABk" + b"Zz09-_" * 30 + b"\n"),
    "query": (8774, b"GET /x?a=1&token=" + HIDDEN.encode() + b" HTTP/1.1\r\n\r\n"),
    "amqp amqplain": (
        5672,
        b"\x08AMQPLAIN\0\0\0\x32\x05LOGINS\0\0\0\x04user\x08PASSWORDS\0\0\0\x15"
        + HIDDEN[:21].encode()
        + b"\x05en_US",
    ),
    "amqp plain": (5672, b"\x05PLAIN\0\0\0\x1b\0user\0" + HIDDEN[:21].encode() + b"\x05en_US"),
    "chunked": (
        8774,
        b'{"user_data": "' + HIDDEN.encode() + b"\r\n1a\r\n" + HIDDEN.encode() + b'", "name": "web-1"}',
    ),
}


def _query(text: str) -> bytes:
    data = b"\x03" + text.encode()
    return len(data).to_bytes(3, "little") + b"\0" + data


CASES["sql insert"] = (
    3306,
    _query(f"INSERT INTO instances (name, user_data, n) VALUES ('it''s', '{HIDDEN}''{HIDDEN}', 3)"),
)
CASES["sql login by password"] = (
    3306,
    b"\x04\0\0\x01"
    + bytes(4)
    + bytes((len(HIDDEN) + 1, 0, 0, 3))
    + HIDDEN.encode()
    + b"\0"
    + _query("SELECT 1"),
)
CASES["sql change of user"] = (
    3306,
    bytes((len(HIDDEN) + 7 + 5, 0, 0, 0, 0x11))
    + b"nova\0"
    + bytes((len(HIDDEN),))
    + HIDDEN.encode()
    + b"cell\0",
)
CASES["postgres insert"] = (
    5432,
    postgres.startup()
    + postgres.query(f"INSERT INTO instances (name, user_data, n) VALUES ('it''s', '{HIDDEN}''{HIDDEN}', 3)"),
)
CASES["postgres parameters"] = (
    5432,
    postgres.startup() + postgres.extended("UPDATE t SET a = $1, b = $2, n=3", HIDDEN.encode(), None),
)
CASES["postgres password"] = (
    5432,
    postgres.startup()
    + postgres.message("p", HIDDEN.encode() + b"\0")
    + postgres.message("d", HIDDEN.encode())
    + postgres.query("SELECT 1"),
)
CASES["sql update"] = (3306, _query(f"UPDATE instances SET user_data='{HIDDEN}', n=3"))


def _sent(port: int, content: bytes, cuts: list[int]) -> list[PacketFields]:
    """One direction of a connection that carries *content* in pieces."""
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True) if b > a]
    packets: list[PacketFields] = []
    seq, time_ns = 1000, 10**18
    for number, piece in enumerate(pieces):
        ip = bytes.fromhex("450000000000400040060000") + bytes((10, 0, 0, 1, 10, 0, 0, 2))
        ip = ip[:2] + (40 + len(piece)).to_bytes(2, "big") + number.to_bytes(2, "big") + ip[6:]
        tcp = (40000).to_bytes(2, "big") + port.to_bytes(2, "big") + seq.to_bytes(4, "big")
        tcp += bytes(4) + b"\x50\x18\xff\xff" + bytes(4)
        data = bytes(12) + b"\x08\0" + ip + tcp + piece
        packets.append((time_ns + number * 1000, data, len(data), 1, (0, number + 1), 0))
        seq += len(piece)
    return packets


def _stream(packets: list[PacketFields]) -> bytes:
    by_seq = {p[1][38:42]: p[1][54:] for p in packets}
    return b"".join(by_seq[seq] for seq in sorted(by_seq))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("seed", range(12))
def test_a_secret_is_found_however_tcp_cut_it(case: str, seed: int) -> None:
    port, content = CASES[case]
    choose = random.Random(seed)
    count = choose.choice((0, 1, 2, 5, 20))
    cuts = sorted(choose.sample(range(1, len(content)), min(count, len(content) - 1)))
    packets = _sent(port, content, cuts)
    if seed % 3 == 2:
        # As a network may bring them, some of them twice.
        again = [(p[0] + 500, *p[1:]) for p in packets if choose.random() < 0.5]
        packets[1:] = sorted([*packets[1:], *again], key=lambda p: choose.random())
    stream = _stream(redacted(packets, batch=choose.choice((1, 3, 100))))
    assert len(stream) == len(content)
    for part in (HIDDEN.encode(), HIDDEN.encode()[:12], HIDDEN.encode()[13:21], b"gAAAAABk", b"Zz09-_Zz"):
        assert part not in stream
    for kept in (
        b"web-1",
        b"Host: a",
        b"\r\n1a\r\n",
        b"it''s",
        b", 3)",
        b", n=3",
        b"oslo.message",
        b"HTTP/1.1",
    ):
        assert (kept in stream) is (kept in content), kept


def test_equal_secrets_stay_equal_and_others_differ() -> None:
    """A token joins two calls also when nobody can read it."""
    named = enumerate(("a" * 30, "b" * 30, "a" * 30))
    texts = [f"GET /{n} HTTP/1.1\r\nX-Auth-Token: {token}\r\n\r\n".encode() for n, token in named]
    packets = _sent(8774, b"".join(texts), [len(texts[0]), len(texts[0]) * 2])
    tokens = re.findall(rb"X-Auth-Token: (\S+)", _stream(redacted(packets)))
    assert tokens[0] == tokens[2] != tokens[1]
    assert [len(token) for token in tokens] == [30] * 3


def test_a_secret_once_known_is_overwritten_where_nothing_names_it() -> None:
    content = _json(user_data="IyEvYmluL3NoCmVjaG8=") + b" " * 600 + b"/* IyEvYmluL3NoCmVjaG8= */"
    assert b"IyEv" not in _stream(redacted(_sent(8774, content, [70])))


def test_rows_of_the_database_are_overwritten_and_their_frame_is_not(tmp_path: Path) -> None:
    def packet(number: int, data: bytes) -> bytes:
        return len(data).to_bytes(3, "little") + bytes([number]) + data

    ok = b"\x00\x01\x00\x02\x00\x00\x00"
    content = packet(1, b"\x02") + packet(2, b"\x03def" + b"c" * 30) + packet(3, b"\xfe\0\0\2\0")
    content += packet(4, b"\x15private data of a guest") + packet(5, b"\xfe\0\0\2\0") + packet(1, ok)
    packets = _sent(3306, content, [20])
    swapped = [(p[0], p[1][:34] + p[1][36:38] + p[1][34:36] + p[1][38:], *p[2:]) for p in packets]
    stream = _stream(redacted(swapped))
    assert b"private" not in stream and b"guest" not in stream
    assert b"\x03def" + b"c" * 30 in stream and stream.endswith(packet(1, ok))
    assert len(stream) == len(content)


def test_rows_and_details_of_postgresql_are_overwritten_and_ids_are_not() -> None:
    """The answer to a request for encryption stands before them; lengths, tags and parameters that are ids
    stay, so statements and results are those of before."""
    told = postgres.error("23505", "duplicate key", "Key (a)=(private data)")
    content = b"N" + postgres.LOGGED_IN + postgres.rows("private data", "of a guest") + postgres.READY + told
    packets = _sent(5432, content, [1, 30, 80])
    swapped = [(p[0], p[1][:34] + p[1][36:38] + p[1][34:36] + p[1][38:], *p[2:]) for p in packets]
    stream = _stream(redacted(swapped))
    assert len(stream) == len(content)
    assert b"private" not in stream and b"guest" not in stream
    assert postgres.done("SELECT 2") + postgres.READY in stream and b"duplicate key" in stream
    vm = b"145c135d-63cb-41ba-98cd-3235a30c2e27"
    sent = postgres.startup() + postgres.extended("UPDATE t SET a = $1", vm, b"spawning", b"7")
    assert _stream(redacted(_sent(5432, sent, [100]))) == sent


def test_what_is_not_tcp_passes_as_it_is() -> None:
    packets: list[PacketFields] = [(n, b"\x00" * 14 + b"passwords x", 25, 1, (0, n), 0) for n in range(5)]
    assert redacted(packets) == packets


def test_a_hole_does_not_stop_it() -> None:
    """What follows behind lost bytes comes out after a second, and what it holds is overwritten."""
    port, content = CASES["json"]
    packets = _sent(port, b"x" * 100 + content, [50, 60])
    found = redacted([packets[0], packets[2]])
    assert len(found) == 2
    assert HIDDEN.encode() not in found[1][1]


def test_what_comes_behind_two_holes_is_overwritten_as_well() -> None:
    """It came first of what waits, and the hole before the others is not its own."""
    port, content = CASES["json"]
    packets = _sent(port, b"x" * 400 + content, [100, 150, 200, 300])
    time_ns = packets[-1][0]
    found = redacted([packets[0], (time_ns, *packets[4][1:]), (time_ns + 1, *packets[2][1:])])
    assert len(found) == 3
    assert not any(HIDDEN.encode() in packet[1] for packet in found)


def _whole(content: bytes) -> list[PacketFields]:
    return _sent(8774, content, [])


@pytest.mark.parametrize("kind", ["IPv4", "IPv6", "VXLAN"])
def test_fragments_hold_nothing_of_a_secret(kind: str) -> None:
    """Each may be the middle of one: the first alone tells its name."""
    content = b"GET / HTTP/1.1\r\nX-Auth-Token: " + HIDDEN.encode() * 100 + b"\r\n\r\n"
    tcp = TCP(sport=40000, dport=8774, seq=1000) / Raw(content)
    if kind == "IPv6":
        pieces = fragment6(IPv6(src="::1", dst="::2") / IPv6ExtHdrFragment() / tcp, 900)  # type: ignore[no-untyped-call]
    else:
        inner = IP(src="10.0.0.1", dst="10.0.0.2") / tcp
        if kind == "VXLAN":
            inner = IP(src="10.0.1.1", dst="10.0.1.2") / UDP(dport=4789) / VXLAN(vni=7) / Ether() / inner
        pieces = fragment(inner, 800)  # type: ignore[no-untyped-call]
    frames = [bytes(Ether() / piece) for piece in pieces]
    assert len(frames) > 2
    packets = [(10**18 + n, data, len(data), 1, (0, n + 1), 0) for n, data in enumerate(frames)]
    found = redacted(packets)
    assert [(p[0], len(p[1]), *p[2:]) for p in found] == [(p[0], len(p[1]), *p[2:]) for p in packets]
    assert not any(HIDDEN.encode()[at : at + 8] in p[1] for p in found for at in range(len(HIDDEN) - 8))
    # What is known from there is a secret elsewhere, too.
    again = redacted([*packets, *_sent(5000, b"GET /" + HIDDEN.encode() * 100 + b" HTTP/1.1\r\n\r\n", [])])
    assert HIDDEN.encode() not in again[-1][1]


TOGETHER = (
    b"GET / HTTP/1.1\r\nX-Auth-Token: " + HIDDEN.encode() * 4 + b"\r\nHost: a\r\n\r\n" + b"abcdefgh" * 200
)
_S = 1_000_000_000
FRAGMENTS = {
    # from, to, captured up to, when: of the TCP segment, whose header has 24 bytes
    "whole": ([(0, 800, 800, 0), (800, 1600, 1600, 1)], False),
    "one of them twice": ([(0, 800, 800, 0), (0, 800, 800, 1), (800, 1600, 1600, 2)], True),
    "overlapping": ([(0, 800, 800, 0), (400, 1200, 1200, 1), (1200, 1600, 1600, 2)], True),
    "the first one missing": ([(800, 1600, 1600, 0)], True),
    "the last one missing": ([(0, 800, 800, 0), (800, 1200, 1200, 1)], True),
    "the first one written before": ([(0, 24, 24, 0), (24, 1600, 1600, 2 * _S)], True),
    "the first one cut": ([(0, 800, 600, 0), (800, 1600, 1600, 1)], True),
    "the last one cut": ([(0, 800, 800, 0), (800, 1600, 1000, 1)], True),
}


@pytest.mark.parametrize("case", FRAGMENTS)
def test_fragments_that_are_not_all_of_a_datagram_are_overwritten_whole(case: str) -> None:
    """Where in the stream their bytes are is told by the whole datagram only."""
    pieces, is_overwritten = FRAGMENTS[case]
    tcp = bytes(TCP(sport=40000, dport=8774, seq=1000, options=[("MSS", 1400)]) / Raw(TOGETHER))[:1600]
    packets: list[PacketFields] = []
    for begin, end, captured, time_ns in pieces:
        ip = IP(src="10.0.0.1", dst="10.0.0.2", proto=6, id=7, frag=begin // 8, flags="MF" * (end < 1600))
        data = bytes(Ether() / ip / Raw(tcp[begin:end]))
        kept = data[: len(data) - end + captured]
        packets.append((10**18 + time_ns, kept, len(data), 1, (0, len(packets) + 1), 0))
    # Something else tells that time goes on.
    other = (packets[-1][0] - 1, b"\xff" * 60, 60, 1, (0, 99), 0)
    found = redacted([*packets[:-1], other, packets[-1]], batch=1)
    found.remove(other)
    assert [(p[0], p[1][:34], len(p[1]), *p[2:]) for p in found] == [
        (p[0], p[1][:34], len(p[1]), *p[2:]) for p in packets
    ]
    assert not any(HIDDEN.encode()[at : at + 8] in p[1] for p in found for at in range(len(HIDDEN) - 8))
    for before, after in zip(packets, found, strict=True):
        kept_runs = [
            at for at in range(34, len(before[1]) - 8) if before[1][at : at + 8] == after[1][at : at + 8]
        ]
        assert bool(kept_runs) is not is_overwritten


def test_what_is_no_tcp_is_looked_at_as_well() -> None:
    """With -f, anything may be recorded: a service's log, sent by UDP."""
    told = b'<14>nova-api: {"password": "' + HIDDEN.encode() + b'", "name": "web-1"} {"token": "' + b"x" * 50
    data = bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=514) / Raw(told))
    [found] = redacted([(10**18, data, len(data), 1, (0, 1), 0)])
    assert HIDDEN.encode() not in found[1] and b"x" * 8 not in found[1]
    assert b'"name": "web-1"' in found[1] and len(found[1]) == len(data)


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    """A packet of an hour ahead, whose stream says no more, is not waited for."""
    [late] = _whole(b"GET / HTTP/1.1\r\n")
    hour_ns = 3_600_000_000_000
    redactor = Redactor()
    assert redactor.receive([late]) == []
    others = [(late[0] - hour_ns, *p[1:]) for p in _sent(8775, b"x" * 2_000, list(range(1, 2_000, 100)))]
    assert len(redactor.receive(others)) > len(others) / 2


def test_ten_thousand_rows_at_once_are_all_overwritten() -> None:
    """What is kept of a stream for what is sent again is bounded, but not before it was written once."""
    rows = b"".join(
        len(text).to_bytes(3, "little") + bytes((number % 255 + 1,)) + text
        for number in range(10_000)
        for text in [b"\x0bsecret%05d" % number]
    )
    packets = _sent(8774, rows, list(range(1_400, len(rows), 1_400)))
    # From the database to its client.
    sent = [(*p[:1], p[1][:34] + p[1][36:38] + p[1][34:36] + p[1][38:], *p[2:]) for p in packets]
    sent = [(*p[:1], p[1][:34] + (3306).to_bytes(2, "big") + p[1][36:], *p[2:]) for p in sent]
    for batch in (1, 100_000):
        assert b"secret" not in _stream(redacted(sent, batch))


def test_thousands_of_segments_behind_a_hole_are_read_in_their_order() -> None:
    """They come last first; the one that fills the hole is the last of all, or never comes."""
    content = b"y" * 100 + CASES["header"][1] + b"x" * 20_000
    first, filling, *others = _sent(8774, content, list(range(4, len(content), 4)))
    assert len(others) > 5_000
    for packets in ([first, *reversed(others)], [first, *reversed(others), filling]):
        found = redacted(packets)
        assert [p[4] for p in found] == [p[4] for p in packets]
        assert HIDDEN.encode()[:8] not in _stream(found)
        assert _stream(found).endswith(b"\r\nHost: a\r\n\r\n" + b"x" * 20_000)


def test_a_secret_whose_second_half_came_first_of_all_is_overwritten() -> None:
    """It came 1 ms before the first half, as the first that is seen of the connection."""
    port, content = CASES["header"]
    first, second = _sent(port, content, [content.index(HIDDEN.encode()) + 10])
    redactor = Redactor()
    found = redactor.receive([(first[0] - 1_000_000, *second[1:]), first])
    found += redactor.flush()
    stream = _stream(found)
    assert [len(p[1]) for p in found] == [len(second[1]), len(first[1])]
    assert HIDDEN.encode()[:8] not in stream and HIDDEN.encode()[-8:] not in stream
    assert stream.startswith(b"GET / HTTP/1.1\r\nX-Auth-Token: ")
    assert stream.endswith(b"\r\nHost: a\r\n\r\n") and len(stream) == len(content)
    in_order = Redactor()
    in_order.receive([first, second])
    assert redactor.overwritten == in_order.overwritten > 0


def test_thousands_of_segments_from_before_the_first_one_are_read_in_their_order() -> None:
    content = CASES["header"][1] + b"x" * 20_000
    packets = _sent(8774, content, list(range(4, len(content), 4)))[::-1]
    found = redacted([(10**18 + n, *p[1:]) for n, p in enumerate(packets)])
    assert [p[4] for p in found] == [p[4] for p in packets]
    assert HIDDEN.encode()[:8] not in _stream(found)
    assert _stream(found).endswith(b"\r\nHost: a\r\n\r\n" + b"x" * 20_000)


@settings(deadline=None, max_examples=examples(200), derandomize=True)
@given(data=st.data(), case=st.sampled_from(sorted(CASES)), batch=st.sampled_from((1, 2, 100)))
def test_no_order_of_the_first_packets_leaves_a_secret(data: st.DataObject, case: str, batch: int) -> None:
    """Nothing of the connection was seen before, not even how it began; what is kept is as in order."""
    port, content = CASES[case]
    cuts = data.draw(st.sets(st.integers(1, len(content) - 1), min_size=1, max_size=6))
    packets = _sent(port, content, sorted(cuts))
    mixed = [
        (10**18 + n * 1000, *p[1:4], (0, n + 1), 0) for n, p in enumerate(data.draw(st.permutations(packets)))
    ]
    # The same pseudonyms in both runs.
    with patch("secrets.token_bytes", bytes):
        found, in_order = redacted(mixed, batch), redacted(packets)
    assert [(p[0], len(p[1]), *p[2:]) for p in found] == [(p[0], len(p[1]), *p[2:]) for p in mixed]
    stream = _stream(found)
    assert stream == _stream(in_order)
    for part in (HIDDEN.encode(), HIDDEN.encode()[:12], HIDDEN.encode()[13:21], b"gAAAAABk", b"Zz09-_Zz"):
        assert part not in stream


@pytest.mark.parametrize("how", ["a hole", "a cut packet"])
def test_what_is_sent_again_from_before_lost_bytes_is_overwritten_as_before(how: str) -> None:
    """Its bytes are where they were: what was lost is in no stream, but counts in sequence numbers."""
    content = b"x" * 600 + CASES["header"][1] + b"y" * 800
    at = content.index(HIDDEN.encode()) + 2
    first, again, lost, last = _sent(8774, content, [at, at + 200, at + 300])
    first = _sent(8774, content[: at + 200], [])[0]
    if how == "a cut packet":
        before = [first, (lost[0], lost[1][:60], *lost[2:]), last]
    else:
        # Another packet, two seconds later: the hole is not waited for any more.
        before = [first, last, (last[0] + 2 * _S, b"\xff" * 60, 60, 1, (0, 99), 0)]
    found = redacted([*before, (last[0] + 2 * _S + 1, *again[1:])], batch=1)
    assert found[-1][1][54:] == found[0][1][54 + at :]
    assert HIDDEN.encode()[2:10] not in found[-1][1]
