"""The compressed protocol of MySQL: the same statements and results as without compression."""

from __future__ import annotations

import zlib

import pytest
import zstandard
from protocols.test_mysql import USUAL, greeting, login, packet, query

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Connection,
    Data,
    Endpoint,
    Gap,
    Message,
    SqlResult,
    SqlStatement,
)
from tracer.protocols.mysql import MySql
from tracer.protocols.mysql.compressed import MOST_PLAIN, Unpacker

COMPRESS = 0x20
LOGGED_IN = packet(2, b"\0\0\0\x02\0\0\0")
OK = packet(1, b"\0\0\0\x02\0\0\0")


def packed(data: bytes, seq: int = 0, how: str = "zlib") -> bytes:
    body = {"zlib": zlib.compress, "zstd": zstandard.ZstdCompressor().compress, "plain": bytes}[how](data)
    plain = 0 if how == "plain" else len(data)
    return len(body).to_bytes(3, "little") + bytes((seq,)) + plain.to_bytes(3, "little") + body


def said(parts: list[tuple[int, bytes | int]], cut: int = 1 << 20) -> list[tuple[int, object]]:
    """Exchange and text of each statement, exchange and success of each result."""
    link = Connection(1, Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 3306), 0)
    decoder, at = MySql(link), 0
    found: list[Message] = []
    start: list[tuple[int, bytes | int]] = [
        (TO_CLIENT, greeting(0xFFFFF7FF)), (TO_SERVER, login(USUAL | COMPRESS)), (TO_CLIENT, LOGGED_IN)
    ]  # fmt: skip
    for direction, content in [*start, *parts]:
        at += 1_000
        if isinstance(content, int):
            found += decoder.gap(Gap(link, direction, at, content, at))
            continue
        for begin in range(0, len(content), cut):
            at += 1
            found += decoder.receive(Data(link, direction, at, content[begin : begin + cut], ((0, at),)))
    shown: list[tuple[int, object]] = []
    for each in found:
        if isinstance(each, SqlStatement):
            shown.append((each.exchange, each.text.decode()[:20]))
        elif isinstance(each, SqlResult):
            shown.append((each.exchange, each.ok))
    return shown


@pytest.mark.parametrize("cut", [1 << 20, 9, 1])
@pytest.mark.parametrize("how", ["zlib", "zstd", "plain"])
def test_statements_and_results_are_those_of_plain_packets(how: str, cut: int) -> None:
    """A long statement is split over compressed packets."""
    long = query(b"INSERT INTO t VALUES ('" + b"x" * 3_000 + b"')")
    parts: list[tuple[int, bytes | int]] = [
        (TO_SERVER, packed(query(b"SELECT 1"), 0, how)), (TO_CLIENT, packed(OK, 1, how)),
        (TO_SERVER, packed(long[:1_500], 0, how) + packed(long[1_500:], 1, how)),
        (TO_CLIENT, packed(OK, 2, how)),
    ]  # fmt: skip
    assert said(parts, cut) == [(1, "SELECT 1"), (1, True), (2, "INSERT INTO t VALUES"), (2, True)]


def test_a_hole_in_a_compressed_packet_costs_that_packet_alone() -> None:
    lost = packed(query(b"INSERT INTO t VALUES (1)" + bytes(range(200))))
    parts: list[tuple[int, bytes | int]] = [
        (TO_SERVER, lost[:20]), (TO_SERVER, 10), (TO_SERVER, lost[30:]),
        (TO_SERVER, packed(query(b"SELECT 2"))), (TO_CLIENT, packed(OK, 1)),
    ]  # fmt: skip
    assert [each for each in said(parts) if each[1] == "SELECT 2"]


def test_a_bomb_is_opened_up_to_a_limit() -> None:
    """A packet of 16 KB that holds 16 MiB."""
    (piece,) = Unpacker().feed(1, (), packed(bytes(0xFFFFFF)), True)
    assert (len(piece.payload), piece.missing) == (MOST_PLAIN, 0xFFFFFF - MOST_PLAIN)
