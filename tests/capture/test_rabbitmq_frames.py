"""Deliveries are taken out of the bytes as the client library reads them; all else passes as it came."""

from __future__ import annotations

import struct
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import frame, spec
from pika.adapters.base_connection import BaseConnection

from tracer.capture.rabbitmq.connection import FirehoseConnection
from tracer.capture.rabbitmq.frames import Deliveries, properties_of
from tracer.capture.rabbitmq.messages import UNREADABLE

OURS = 3
Told = tuple[str, str, dict[str, Any], str, bytes]

short = st.text(max_size=20)
scalars = (
    st.text(max_size=30)
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.none()
    | st.just(datetime(2026, 11, 23, tzinfo=UTC))
)
headers_of = st.dictionaries(
    short, scalars | st.lists(scalars, max_size=3) | st.dictionaries(short, scalars, max_size=3), max_size=6
)
deliveries_of = st.tuples(short, short, headers_of, short, st.binary(max_size=300))


def message(channel: int, one: Told, body_piece: int, **more: Any) -> list[bytes]:
    """The frames of a delivery, made by the client library."""
    exchange, key, headers, message_id, body = one
    properties = pika.BasicProperties(headers=headers, message_id=message_id or None, **more)
    pieces = [body[at : at + body_piece] for at in range(0, len(body), body_piece)]
    return [
        frame.Method(channel, spec.Basic.Deliver("tag", 7, False, exchange, key)).marshal(),
        frame.Header(channel, len(body), properties).marshal(),
        *(frame.Body(channel, piece).marshal() for piece in pieces),
    ]


def read(parts: list[bytes], channel: int = OURS) -> tuple[list[Told], bytes]:
    told: list[Told] = []
    deliveries = Deliveries(lambda *one: told.append(one), Counter())
    deliveries.channel = channel
    return told, b"".join(deliveries.receive(part) for part in parts)


def as_pika_reads(header: bytes) -> dict[str, Any]:
    return _plain(spec.BasicProperties().decode(header[12:]).headers or {})


def _plain(found: Any) -> Any:
    """Times as the seconds that they were sent as."""
    if isinstance(found, dict):
        return {key: _plain(value) for key, value in found.items()}
    if isinstance(found, list):
        return [_plain(value) for value in found]
    if isinstance(found, datetime):
        return int(found.replace(tzinfo=found.tzinfo or UTC).timestamp())
    return found


@given(st.lists(st.tuples(deliveries_of, st.booleans()), max_size=5), st.integers(1, 100), st.data())
def test_messages_of_our_channel_are_taken_and_the_rest_is_left_however_it_is_cut(
    sent: list[tuple[Told, bool]], piece: int, data: st.DataObject
) -> None:
    ours: list[bytes] = []
    others: list[bytes] = []
    stream: list[bytes] = []
    for one, is_ours in sent:
        frames = message(OURS if is_ours else 4, one, piece)
        noise = [frame.Heartbeat().marshal(), frame.Method(OURS, spec.Queue.PurgeOk(5)).marshal()]
        stream += [*frames, *noise]
        others += [*([] if is_ours else frames), *noise]
        ours += frames if is_ours else []
    whole = b"".join(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    told, rest = read([whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)])
    assert rest == b"".join(others)
    wanted = [one for one, is_ours in sent if is_ours]
    assert [(x, k, i, b) for x, k, _, i, b in told] == [(x, k, i, b) for x, k, _, i, b in wanted]
    assert [_plain(h) for _, _, h, _, _ in told] == [as_pika_reads(_header(one)) for one in wanted]


def _header(one: Told) -> bytes:
    return message(OURS, one, 1 << 20)[1][7:-1]


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"content_type": "application/json", "content_encoding": "utf-8"},
        {"delivery_mode": 2, "priority": 3},
        {"correlation_id": "c", "reply_to": "r", "expiration": "60000"},
        {"timestamp": 5, "type": "t", "user_id": "u", "app_id": "a", "cluster_id": "x"},
    ],
)
def test_the_message_id_is_found_behind_what_stands_before_it(more: dict[str, Any]) -> None:
    header = frame.Header(1, 0, pika.BasicProperties(headers={"a": 1}, message_id="m-7", **more)).marshal()
    assert properties_of(header[7:-1]) == ({"a": 1}, "m-7")


def test_what_a_sender_put_into_the_headers_of_a_traced_message_is_left_out() -> None:
    inner = {"reply_to": "q", "headers": {"password": "hidden", "in": {"x": [1]}}, "delivery_mode": 2}
    header = frame.Header(1, 0, pika.BasicProperties(headers={"properties": inner, "n": 1})).marshal()
    expected = {"properties": {"reply_to": "q", "headers": {}, "delivery_mode": 2}, "n": 1}
    assert properties_of(header[7:-1]) == (expected, "")


@given(st.binary(max_size=80))
def test_headers_that_are_damaged_raise_nothing(noise: bytes) -> None:
    headers, message_id = properties_of(struct.pack(">HHQH", 60, 0, 0, 0x2000 | 0x0080) + noise)
    assert isinstance(headers, dict) and isinstance(message_id, str)


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_what_is_no_frames_passes_as_it_came(noise: list[bytes]) -> None:
    broken = frame.Heartbeat().marshal()[:-1] + b"\x00"
    told, rest = read([broken, *noise])
    assert (told, rest) == ([], broken + b"".join(noise))


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3, 8]), st.binary(max_size=40)), max_size=6))
def test_damaged_frames_of_our_channel_raise_nothing(noise: list[tuple[int, bytes]]) -> None:
    """Cut short, or of one kind where another is due; what comes behind them is read all the same."""
    frames = [
        struct.pack(">BHL", kind, OURS, len(payload)) + payload + b"\xce"
        for kind, content in noise
        for payload in (content, b"\x00\x3c\x00\x3c" + content)
    ]
    one: Told = ("x", "k", {"a": 1}, "m", b"0123456789")
    told, _ = read([*frames, *message(OURS, one, 5)])
    assert told[-1] == one


@pytest.mark.parametrize(
    ("cut", "whole"), [(0, 5), (1, 4), (1, 11)], ids=["method", "header without size", "header, nearly"]
)
def test_a_damaged_delivery_is_counted_and_left_out(cut: int, whole: int) -> None:
    frames = message(OURS, ("x", "k", {}, "", b"body"), 9)
    payload = frames[cut][7 : 7 + whole]
    frames[cut] = frames[cut][:3] + struct.pack(">L", whole) + payload + b"\xce"
    told: list[Told] = []
    anomalies: Counter[str] = Counter()
    deliveries = Deliveries(lambda *one: told.append(one), anomalies)
    deliveries.channel = OURS
    assert deliveries.receive(b"".join(frames)) == b""
    assert (told, anomalies) == ([], {UNREADABLE: 1})


def test_of_damaged_headers_those_before_the_damage_are_told() -> None:
    table = b"\x01aI" + struct.pack(">i", 7) + b"\x01b?"
    header = struct.pack(">HHQHL", 60, 0, 0, 0x2000 | 0x0080, len(table)) + table + b"\x03m-7"
    assert properties_of(header) == ({"a": 7}, "m-7")


def test_a_connection_hands_its_deliveries_over_and_knows_that_the_broker_lives() -> None:
    """By the methods of the client library that bytes come through, whatever its release."""
    told: list[Told] = []
    connection = FirehoseConnection(pika.ConnectionParameters("127.0.0.1", 1))
    connection.deliveries = Deliveries(lambda *one: told.append(one), Counter())
    connection.deliveries.channel = OURS
    one: Told = ("x", "k", {"a": 1}, "m", b"0123456789")
    before = connection.bytes_received
    frames = b"".join(message(OURS, one, 5))
    for method in ("_proto_data_received", "_proto_connection_made"):
        assert method in vars(BaseConnection), "the client library reads another way now"
    connection._proto_data_received(frames)
    assert told == [one]
    assert connection.bytes_received - before == len(frames)


def test_a_delivery_that_another_method_breaks_off_is_none() -> None:
    one: Told = ("x", "k", {}, "", b"0123456789")
    end = frame.Method(OURS, spec.Channel.Close(541, "INTERNAL_ERROR", 0, 0)).marshal()
    told, rest = read([*message(OURS, one, 5)[:-1], end, *message(OURS, one, 5)])
    assert (told, rest) == ([one], end)
