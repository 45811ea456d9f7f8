"""AMQP 0-9-1 decoding: tables of wire and message, conversations, damage; pika is the other opinion."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pika.frame
import pika.spec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.long import examples

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    AmqpContent,
    AmqpMethod,
    Closed,
    Connection,
    Data,
    Endpoint,
    Gap,
    Message,
    Undecoded,
)
from tracer.protocols.amqp091 import Amqp091
from tracer.protocols.amqp091.methods import _TABLE, _WRITTEN_OUT, METHODS, _fields, _generic, properties_of

HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT = pika.frame.Heartbeat().marshal()


# --- building -------------------------------------------------------------------------------------


def connection(joined: bool = False) -> Connection:
    return Connection(
        1, Endpoint("10.0.0.1", 40000), Endpoint("10.0.0.2", 5672), first_ns=1_000, joined=joined
    )


def method(spec: pika.amqp_object.Method, channel: int = 1) -> bytes:
    return bytes(pika.frame.Method(channel, spec).marshal())


def header(size: int, channel: int = 1, **properties: Any) -> bytes:
    return bytes(pika.frame.Header(channel, size, pika.spec.BasicProperties(**properties)).marshal())


def body(part: bytes, channel: int = 1) -> bytes:
    return bytes(pika.frame.Body(channel, part).marshal())


def publish(text: bytes = b"hello", channel: int = 1, key: str = "conductor", *, piece: int = 0) -> bytes:
    pieces = [text[at : at + piece] for at in range(0, len(text), piece)] if piece else [text] if text else []
    start = method(pika.spec.Basic.Publish(exchange="nova", routing_key=key), channel)
    return start + header(len(text), channel) + b"".join(body(part, channel) for part in pieces)


def deliver(text: bytes = b"hello", tag: int = 7, channel: int = 1) -> bytes:
    start = method(pika.spec.Basic.Deliver("tag", tag, False, "nova", "conductor"), channel)
    return start + header(len(text), channel) + body(text, channel)


class Talk:
    """Feeds one decoder; each piece is a frame and a nanosecond of its own."""

    def __init__(self, joined: bool = False, **options: int) -> None:
        self.connection = connection(joined)
        self.decoder = Amqp091(self.connection, **options)
        self.messages: list[Message] = []
        self.number = 0

    def data(self, *pieces: bytes, direction: int = TO_SERVER) -> Talk:
        for piece in pieces:
            self.number += 1
            frames = ((0, self.number),)
            data = Data(self.connection, direction, self.number, piece, frames)
            self.messages += self.decoder.receive(data)
        return self

    def gap(self, size: int, direction: int = TO_SERVER) -> Talk:
        self.messages += self.decoder.gap(Gap(self.connection, direction, self.number, size))
        return self

    def closed(self, how: str = "end", direction: int = TO_SERVER) -> Talk:
        self.messages += self.decoder.closed(Closed(self.connection, self.number, how, direction))
        return self

    def contents(self) -> list[AmqpContent]:
        return [message for message in self.messages if isinstance(message, AmqpContent)]

    def reasons(self) -> list[str]:
        return [message.reason for message in self.messages if isinstance(message, Undecoded)]


def told(messages: Sequence[Message]) -> list[tuple[object, ...]]:
    """What does not depend on where TCP cut."""
    found: list[tuple[object, ...]] = []
    for m in messages:
        if isinstance(m, AmqpContent):
            content = (m.name, m.channel, m.arguments, m.properties, m.body, m.body_bytes, m.truncated)
            found.append(content)
        elif isinstance(m, AmqpMethod):
            found.append((m.name, m.channel, m.arguments))
        elif isinstance(m, Undecoded):
            found.append((m.reason,))
    return found


# --- methods --------------------------------------------------------------------------------------

Spec = pika.spec
METHOD_CASES: list[tuple[pika.amqp_object.Method, dict[str, object]]] = [
    (Spec.Connection.Tune(2047, 131072, 60), {"channel_max": 2047, "frame_max": 131072, "heartbeat": 60}),
    (Spec.Connection.TuneOk(2047, 131072, 60), {"channel_max": 2047, "frame_max": 131072, "heartbeat": 60}),
    (Spec.Connection.Open("/nova"), {"virtual_host": "/nova"}),
    (
        Spec.Connection.Close(320, "CONNECTION_FORCED", 0, 0),
        {"reply_code": 320, "reply_text": "CONNECTION_FORCED", "class_id": 0, "method_id": 0},
    ),
    (
        Spec.Channel.Close(404, "NOT_FOUND - no exchange", 60, 40),
        {"reply_code": 404, "reply_text": "NOT_FOUND - no exchange", "class_id": 60, "method_id": 40},
    ),
    (Spec.Connection.Blocked("low on memory"), {"reason": "low on memory"}),
    (Spec.Connection.Unblocked(), {}),
    (Spec.Connection.UpdateSecret("s3cret", "rotation"), {}),
    (
        Spec.Basic.Consume(queue="conductor", consumer_tag="3", no_ack=True, arguments={"x": 1}),
        {
            "queue": "conductor",
            "consumer_tag": "3",
            "no_local": False,
            "no_ack": True,
            "exclusive": False,
            "no_wait": False,
        },
    ),
    (Spec.Basic.ConsumeOk("3"), {"consumer_tag": "3"}),
    (Spec.Basic.Cancel("3", True), {"consumer_tag": "3", "no_wait": True}),
    (Spec.Basic.Ack(2**40, True), {"delivery_tag": 2**40, "multiple": True}),
    (Spec.Basic.Nack(9, False, True), {"delivery_tag": 9, "multiple": False, "requeue": True}),
    (Spec.Basic.Reject(9, False), {"delivery_tag": 9, "requeue": False}),
    (Spec.Basic.Get(0, "q", True), {"queue": "q", "no_ack": True}),
    (Spec.Basic.GetEmpty(), {}),
    (
        Spec.Queue.Declare(queue="reply_1", durable=True, auto_delete=True, arguments={"x-expires": 600000}),
        {
            "queue": "reply_1",
            "passive": False,
            "durable": True,
            "exclusive": False,
            "auto_delete": True,
            "no_wait": False,
        },
    ),
    (
        Spec.Queue.DeclareOk("reply_1", 3, 2),
        {"queue": "reply_1", "message_count": 3, "consumer_count": 2},
    ),
    (
        Spec.Queue.Bind(queue="q", exchange="nova", routing_key="k"),
        {"queue": "q", "exchange": "nova", "routing_key": "k", "no_wait": False},
    ),
    (Spec.Queue.Delete(queue="q"), {"queue": "q", "if_unused": False, "if_empty": False, "no_wait": False}),
    (
        Spec.Exchange.Bind(destination="a", source="b", routing_key="c"),
        {"destination": "a", "source": "b", "routing_key": "c", "no_wait": False},
    ),
    (Spec.Confirm.Select(), {"no_wait": False}),
    (Spec.Confirm.SelectOk(), {}),
    (Spec.Tx.Commit(), {}),
]


@pytest.mark.parametrize(("spec", "expected"), METHOD_CASES, ids=lambda value: getattr(value, "NAME", ""))
def test_reads_arguments(spec: pika.amqp_object.Method, expected: dict[str, object]) -> None:
    """A method that pika encodes has the arguments that pika was given, and only those worth keeping."""
    (message,) = Talk().data(method(spec)).messages
    assert isinstance(message, AmqpMethod)
    assert message.arguments == expected
    assert message.name.replace("-", "") == spec.NAME.lower()


def test_the_table_is_the_specification() -> None:
    """Every method that pika knows is in our table, under the same numbers, and no other."""
    ours = {(class_id << 16 | number): m.name.replace("-", "") for (class_id, number), m in METHODS.items()}
    assert ours == {number: spec.NAME.lower() for number, spec in pika.spec.methods.items()}


def test_content_methods_are_those_of_pika() -> None:
    """A header follows a method exactly when pika says that it has content."""
    contents = {name for name in (m.name for m in METHODS.values() if m.content)}
    assert contents == {"basic.publish", "basic.deliver", "basic.return", "basic.get-ok"}
    assert all(pika.spec.has_content(c << 16 | n) == m.content for (c, n), m in METHODS.items())


@given(st.binary(max_size=60), st.sampled_from(sorted(_WRITTEN_OUT)))
@settings(max_examples=examples(400))
def test_written_out_decoders_agree_with_the_table(payload: bytes, name: str) -> None:
    """The decoders written out for speed read what the table's fields say, for any payload."""
    rows = [line.split() for line in _TABLE.strip().splitlines()]
    words = next(fields for _, _, _, marked, *fields in rows if marked.lstrip("+.") == name)
    payload = b"\x00\x3c\x00\x00" + payload
    assert _WRITTEN_OUT[name](payload) == _generic(_fields(words))(payload)


def test_a_client_names_itself() -> None:
    """connection.start-ok gives the strings of the client's properties, and never its response."""
    properties = {
        "product": "py-amqp",
        "capabilities": {"consumer_cancel_notify": True},
        "pid": 31475,
        "connection_name": "nova-conductor:31475:bee61c3f",
        "auth_token": "gAAAAA",
    }
    start_ok = Spec.Connection.StartOk(properties, "PLAIN", "\0guest\0hunter2", "en_US")
    (message,) = Talk().data(HEADER, method(start_ok, 0)).messages
    assert isinstance(message, AmqpMethod)
    assert message.arguments == {
        "product": "py-amqp",
        "connection_name": "nova-conductor:31475:bee61c3f",
        "mechanism": "PLAIN",
    }
    assert "hunter2" not in repr(message)


def test_a_server_names_itself() -> None:
    """connection.start gives the broker's product, version and cluster, not its licence."""
    table = {
        "product": "RabbitMQ",
        "version": "3.10.8",
        "cluster_name": "rabbit@mq",
        "copyright": "Copyright",
    }
    start = Spec.Connection.Start(0, 9, table, "PLAIN AMQPLAIN", "en_US")
    (message,) = Talk().data(method(start, 0), direction=TO_CLIENT).messages
    assert isinstance(message, AmqpMethod)
    assert message.arguments == {"product": "RabbitMQ", "version": "3.10.8", "cluster_name": "rabbit@mq"}


def test_qos_and_challenges_are_not_messages() -> None:
    """basic.qos is noise and connection.secure-ok is a credential: neither is emitted."""
    talk = Talk().data(method(Spec.Basic.Qos(prefetch_count=1)), method(Spec.Connection.SecureOk("x"), 0))
    assert talk.messages == []


# --- contents -------------------------------------------------------------------------------------


def test_publish_is_one_content() -> None:
    """Method, header and body become one message with its properties."""
    start = method(Spec.Basic.Publish(exchange="", routing_key="reply_1", mandatory=True))
    props: dict[str, Any] = {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {"compression": "gzip"},
        "delivery_mode": 2,
        "priority": 0,
        "correlation_id": "c1",
        "reply_to": "r1",
        "expiration": "60000",
        "message_id": "m1",
        "timestamp": 1_700_000_000,
        "type": "t",
        "user_id": "nova",
        "app_id": "a",
    }
    (content,) = Talk().data(start + header(2, **props) + body(b"{}")).contents()
    assert content.arguments == {"exchange": "", "routing_key": "reply_1", "mandatory": True}
    expected = {name: value for name, value in props.items() if name not in ("headers", "user_id")}
    assert content.properties == {**expected, "compression": "gzip"}
    assert (content.body, content.body_bytes, content.truncated) == (b"{}", 2, False)


CONTENT_CASES = [
    (
        Spec.Basic.Deliver("3", 5, True, "nova", "k"),
        {"consumer_tag": "3", "delivery_tag": 5, "redelivered": True, "exchange": "nova", "routing_key": "k"},
    ),
    (
        Spec.Basic.Return(312, "NO_ROUTE", "", "reply_1"),
        {"reply_code": 312, "reply_text": "NO_ROUTE", "exchange": "", "routing_key": "reply_1"},
    ),
    (
        Spec.Basic.GetOk(5, False, "nova", "k", 12),
        {
            "delivery_tag": 5,
            "redelivered": False,
            "exchange": "nova",
            "routing_key": "k",
            "message_count": 12,
        },
    ),
]


@pytest.mark.parametrize(("spec", "expected"), CONTENT_CASES, ids=lambda value: getattr(value, "NAME", ""))
def test_contents_from_the_server(spec: pika.amqp_object.Method, expected: dict[str, object]) -> None:
    """deliver, return and get-ok carry content as publish does."""
    (content,) = Talk().data(method(spec) + header(1) + body(b"x"), direction=TO_CLIENT).contents()
    assert (content.arguments, content.body, content.direction) == (expected, b"x", TO_CLIENT)


def test_an_empty_body_has_no_frame() -> None:
    """A content of size 0 is complete at its header."""
    (content,) = Talk().data(publish(b"")).contents()
    assert (content.body, content.body_bytes, content.truncated) == (b"", 0, False)


def test_a_body_over_several_frames() -> None:
    """A body is assembled from its frames."""
    text = bytes(range(256)) * 40
    (content,) = Talk().data(publish(text, piece=1000)).contents()
    assert (content.body, content.truncated) == (text, False)


def test_channels_interleave() -> None:
    """Frames of another channel, heartbeats and acks may stand between those of a content."""
    one = [
        method(Spec.Basic.Publish(exchange="a", routing_key="1"), 1),
        header(4, 1),
        body(b"on", 1),
        body(b"e!", 1),
    ]
    two = [
        method(Spec.Basic.Publish(exchange="b", routing_key="2"), 2),
        header(4, 2),
        body(b"tw", 2),
        body(b"o!", 2),
    ]
    ack = method(Spec.Basic.Ack(1), 3)
    wire = one[0] + two[0] + HEARTBEAT + two[1] + one[1] + ack + one[2] + two[2] + HEARTBEAT + two[3] + one[3]
    talk = Talk().data(wire)
    assert [(m.channel, m.body, m.truncated) for m in talk.contents()] == [
        (2, b"two!", False),
        (1, b"one!", False),
    ]
    assert [m.name for m in talk.messages if isinstance(m, AmqpMethod)] == ["basic.ack"]


def test_directions_do_not_mix() -> None:
    """A publish and a delivery on the same channel number are two contents."""
    up, down = publish(b"up"), deliver(b"down")
    talk = Talk().data(up[:40]).data(down[:50], direction=TO_CLIENT)
    talk.data(up[40:]).data(down[50:], direction=TO_CLIENT)
    assert [m.body for m in talk.contents()] == [b"up", b"down"]


def test_a_body_larger_than_it_says() -> None:
    """Frames that overrun the declared size end the content, flagged."""
    wire = method(Spec.Basic.Publish(exchange="a", routing_key="1")) + header(3) + body(b"abcdef")
    (content,) = Talk().data(wire).contents()
    assert (content.body, content.body_bytes, content.truncated) == (b"abcdef", 3, True)


def test_a_body_smaller_than_it_says() -> None:
    """The next method on the channel ends a content that is short, flagged; the next one is whole."""
    wire = method(Spec.Basic.Publish(exchange="a", routing_key="1")) + header(9) + body(b"abc")
    short, whole = Talk().data(wire + publish(b"next")).contents()
    assert (short.body, short.truncated, whole.body, whole.truncated) == (b"abc", True, b"next", False)


def test_a_large_body_keeps_its_beginning() -> None:
    """Beyond the limit a body is counted, not kept, and that is no damage."""
    text = b"0123456789" * 1000
    (content,) = Talk(body_limit=25).data(publish(text, piece=700)).contents()
    assert (content.body, content.body_bytes, content.truncated) == (text[:25], 10_000, False)


def test_channel_close_ends_what_is_under_way() -> None:
    """channel.close from either end gives that channel's unfinished content as truncated."""
    close = method(Spec.Channel.Close(404, "NOT_FOUND", 60, 40))
    talk = Talk().data(publish(b"0123456789")[:-5]).data(close, direction=TO_CLIENT)
    assert [type(m).__name__ for m in talk.messages] == ["AmqpContent", "AmqpMethod"]
    assert talk.contents()[0].truncated


# --- frames and time ------------------------------------------------------------------------------


def test_evidence_of_messages_in_one_segment() -> None:
    """Messages that share a segment share its frame and time."""
    talk = Talk().data(publish(b"a") + publish(b"b"))
    assert [(m.frames, m.time_ns, m.end_ns) for m in talk.contents()] == [(((0, 1),), 1, 1)] * 2


def test_evidence_of_a_message_over_segments() -> None:
    """A content's first frame is where its method starts, its last where its body ends."""
    first, second = publish(b"a" * 100), publish(b"b" * 100)
    wire = first + second
    cut = len(first) + 10
    talk = Talk().data(wire[:cut], wire[cut : cut + 50], wire[cut + 50 :])
    assert [(m.frames, m.time_ns, m.end_ns) for m in talk.contents()] == [
        (((0, 1),), 1, 1),
        (((0, 1), (0, 3)), 1, 3),
    ]


def test_evidence_of_a_method_that_is_cut() -> None:
    """A method frame that spans two segments is hung on the one where it starts."""
    wire = method(Spec.Basic.Ack(1)) + method(Spec.Basic.Ack(2))
    talk = Talk().data(wire[:25], wire[25:])
    assert [m.frames for m in talk.messages if isinstance(m, AmqpMethod)] == [
        ((0, 1),),
        ((0, 1), (0, 2)),
    ]


# --- any cut --------------------------------------------------------------------------------------

CONVERSATION = (
    HEADER
    + method(Spec.Connection.StartOk({"product": "x"}, "PLAIN", "secret", "en_US"), 0)
    + method(Spec.Connection.TuneOk(0, 4096, 60), 0)
    + method(Spec.Channel.Open())
    + HEARTBEAT
    + publish(b"x" * 3000, piece=1000)
    + publish(b"")
    + method(Spec.Basic.Ack(3))
    + publish(b"\xce\x01\x00\x01" * 30, 2)
    + method(Spec.Channel.Close(200, "bye", 0, 0))
)
WHOLE = told(Talk().data(CONVERSATION).messages)


def whole(wire: bytes) -> list[bytes]:
    return [wire]


def byte_by_byte(wire: bytes) -> list[bytes]:
    return [wire[at : at + 1] for at in range(len(wire))]


@pytest.mark.parametrize("cut", [whole, byte_by_byte])
@pytest.mark.parametrize("trailing", [b"", HEARTBEAT, publish(b"tail")[:-4]])
def test_any_cut_and_trailing_data(cut: Callable[[bytes], list[bytes]], trailing: bytes) -> None:
    """Messages are the same whole, byte by byte, and with something behind them."""
    assert len(WHOLE) == 8
    assert told(Talk().data(*cut(CONVERSATION + trailing)).messages) == WHOLE


@given(st.lists(st.integers(0, len(CONVERSATION)), max_size=12))
def test_any_split_gives_the_same_messages(cuts: list[int]) -> None:
    """A message is the same however TCP happened to cut it."""
    edges = [0, *sorted(cuts), len(CONVERSATION)]
    pieces = [CONVERSATION[a:b] for a, b in pairwise(edges) if a < b]
    assert told(Talk().data(*pieces).messages) == WHOLE


@given(st.integers(0, len(CONVERSATION)), st.lists(st.integers(0, len(CONVERSATION)), max_size=6))
def test_joined_anywhere_split_anyhow(start: int, cuts: list[int]) -> None:
    """What a decoder that joins in mid-stream reads does not depend on how TCP cut the rest."""
    wire = CONVERSATION[start:]
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    pieces = [wire[a:b] for a, b in pairwise(edges) if a < b]
    once = Talk(joined=True)
    if wire:
        once.data(wire)
    assert told(Talk(joined=True).data(*pieces).closed().messages) == told(once.closed().messages)


# --- out of step ----------------------------------------------------------------------------------


def test_joins_in_the_middle_of_a_body() -> None:
    """A capture that starts inside a body reads everything from the next method on."""
    wire = publish(b"first" * 500) + publish(b"second") + method(Spec.Basic.Ack(1))
    talk = Talk(joined=True).data(*(wire[at : at + 100] for at in range(300, len(wire), 100)))
    assert [m.body for m in talk.contents()] == [b"second"]
    assert told(talk.messages)[-1][0] == "basic.ack"


def test_a_body_that_looks_like_a_method_does_not_mislead() -> None:
    """A method's head inside a body is refused when no frame ends where it says."""
    fake = method(Spec.Basic.Ack(66))[:-1] + b"\x00"
    wire = b"#" * 50 + fake + b"#" * 100 + b"\xce" + publish(b"real")
    talk = Talk(joined=True).data(wire)
    assert told(talk.messages) == told(Talk().data(publish(b"real")).messages)


def test_a_false_head_does_not_stall() -> None:
    """A false head is given up at the end of the capture, and what follows it is read."""
    fake = b"\x01\x00\x01\x00\x00\xff\xff\x00\x3c\x00\x28"
    talk = Talk(joined=True).data(fake + publish(b"real")).closed()
    assert [m.body for m in talk.contents()] == [b"real"]


def test_a_heartbeat_is_in_step() -> None:
    """A joined connection that only beats is understood: it is idle, not garbage."""
    talk = Talk(joined=True).data(HEARTBEAT, HEARTBEAT).closed()
    assert talk.messages == []


def test_a_size_above_frame_max_is_damage() -> None:
    """A frame above what was negotiated is not waited for."""
    tune = method(Spec.Connection.TuneOk(0, 4096, 60), 0)
    big = struct.pack(">BHI", 3, 1, 5000)
    talk = Talk().data(tune, publish(b"0123456789")[:-5], publish(b"a")).data(tune + big + publish(b"b"))
    assert [m.body for m in talk.contents() if not m.truncated][-1] == b"b"


def test_a_larger_frame_max_is_learnt() -> None:
    """tune-ok with 0 or a large value lifts the limit for both directions."""
    text = b"z" * 300_000
    talk = Talk().data(method(Spec.Connection.TuneOk(0, 0, 60), 0)).data(deliver(text), direction=TO_CLIENT)
    (content,) = talk.contents()
    assert (content.body_bytes, content.truncated) == (300_000, False)
    assert len(content.body) == 256 << 10


# --- holes ----------------------------------------------------------------------------------------


def lose(wire: bytes, start: int, size: int) -> Talk:
    talk = Talk().data(wire[:start]) if start else Talk()
    talk.gap(size)
    if wire[start + size :]:
        talk.data(wire[start + size :])
    return talk


def test_a_hole_in_a_body_is_stepped_over() -> None:
    """Inside a body frame a hole costs that body only; both parts are kept, with one NUL between."""
    first = publish(b"a" * 100 + b"b" * 100 + b"c" * 100)
    at = first.index(b"b" * 100)
    lost, next_one = lose(first + publish(b"next"), at, 100).contents()
    assert lost.body == b"a" * 100 + b"\x00" + b"c" * 100
    assert (lost.truncated, lost.body_bytes) == (True, 300)
    assert (next_one.body, next_one.truncated) == (b"next", False)


def test_a_hole_up_to_the_end_of_a_frame() -> None:
    """The snap length cuts a segment's end: the content is truncated and the next is read at once."""
    first = publish(b"a" * 300)
    lost, next_one = lose(first + publish(b"next"), len(first) - 200, 200).contents()
    assert (lost.body.rstrip(b"\x00"), lost.truncated) == (b"a" * 101, True)
    assert lost.arguments["routing_key"] == "conductor"
    assert next_one.body == b"next"


def test_a_hole_in_a_header() -> None:
    """A header that is cut behind its size keeps the content's end known."""
    first = publish(b"a" * 300)
    at = first.index(b"\x02\x00\x01") + 20
    lost, next_one = lose(first + publish(b"next"), at, 1).contents()
    assert (lost.body, lost.body_bytes, lost.truncated) == (b"a" * 300, 300, True)
    assert next_one.body == b"next"


def test_a_hole_over_several_frames() -> None:
    """Behind a hole across frames the unfinished content is given, and the next method is found."""
    first = publish(b"a" * 300, piece=100)
    wire = first + publish(b"second") + publish(b"third")
    start = first.index(b"a" * 100) + 50
    contents = lose(wire, start, len(first) + 20 - start).contents()
    assert [(m.body, m.truncated) for m in contents] == [(b"a" * 50, True), (b"third", False)]


def test_a_hole_of_unknown_size() -> None:
    """A gap of size 0 says nothing about where frames begin."""
    talk = Talk().data(publish(b"0123456789")[:-5]).gap(0).data(b"6789\xce" + publish(b"next"))
    assert [(m.body, m.truncated) for m in talk.contents()] == [(b"012345", True), (b"next", False)]


@given(st.integers(0, 900), st.integers(1, 900))
def test_no_hole_makes_up_messages(start: int, size: int) -> None:
    """With any hole, whole messages are messages of the undamaged stream, and the last one is read."""
    wire = b"".join(publish(str(number).encode() * 60) for number in range(8)) + publish(b"last")
    original = told(Talk().data(wire).messages)
    start = min(start, len(wire) - 200)
    talk = lose(wire, start, min(size, len(wire) - 150 - start)).closed()
    complete = told([m for m in talk.contents() if not m.truncated])
    assert [message for message in complete if message not in original] == []
    assert talk.contents()[-1].body == b"last"


# --- the end --------------------------------------------------------------------------------------


def test_the_end_gives_what_is_unfinished() -> None:
    """A content under way when the capture ends is given once, as truncated."""
    talk = Talk().data(publish(b"0123456789")[:-5]).closed("reset").closed("end")
    (content,) = talk.contents()
    assert (content.body, content.body_bytes, content.truncated) == (b"012345", 10, True)


def test_fin_closes_one_direction() -> None:
    """FIN ends the sender's contents and leaves the other direction alone."""
    talk = Talk().data(publish(b"0123456789")[:-5]).data(deliver(b"abc")[:-2], direction=TO_CLIENT)
    talk.closed("fin", TO_SERVER)
    assert [m.name for m in talk.contents()] == ["basic.publish"]
    talk.data(deliver(b"abc")[-2:], direction=TO_CLIENT)
    assert [(m.name, m.truncated) for m in talk.contents()][1:] == [("basic.deliver", False)]


# --- not ours -------------------------------------------------------------------------------------

FOREIGN = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls"),
    (b"AMQP\x00\x01\x00\x00", "amqp 1.0"),
    (b"AMQP\x03\x01\x00\x00", "amqp 1.0"),
    (b"AMQP\x01\x01\x00\x0a", "amqp of another version"),
]


@pytest.mark.parametrize(("wire", "reason"), FOREIGN)
@pytest.mark.parametrize("cut", [whole, byte_by_byte])
def test_foreign_streams_are_told_once(wire: bytes, reason: str, cut: Callable[[bytes], list[bytes]]) -> None:
    """TLS and other versions of AMQP are said once, and then ignored."""
    talk = Talk().data(*cut(wire)).data(publish(b"x")).gap(5).closed()
    assert told(talk.messages) == [(reason,)]


def test_garbage_is_told_at_the_end() -> None:
    """A stream that never made sense is told when it closes, hung on its first frame."""
    talk = Talk().data(b"GET / HTTP/1.1\r\n", b"Host: x\r\n\r\n")
    assert talk.messages == []
    (message,) = talk.closed("reset").messages
    assert isinstance(message, Undecoded)
    assert (message.reason, message.frames) == ("garbage", ((0, 1),))


RECOGNISED = [
    (HEADER, TO_CLIENT, TO_SERVER),
    (b"AMQP\x00\x01\x00\x00", TO_CLIENT, TO_SERVER),
    (publish(b"x"), TO_CLIENT, TO_SERVER),
    (publish(b"x" * 5000)[:1448], TO_CLIENT, TO_SERVER),
    (deliver(b"x"), TO_SERVER, TO_CLIENT),
    (method(Spec.Queue.DeclareOk("q", 0, 0)), TO_SERVER, TO_CLIENT),
    (method(Spec.Basic.Ack(1)), TO_CLIENT, TO_CLIENT),
    (method(Spec.Basic.Ack(1)) + publish(b"x"), TO_CLIENT, TO_SERVER),
    (HEARTBEAT, TO_SERVER, TO_SERVER),
    (HEARTBEAT + deliver(b"x"), TO_SERVER, TO_CLIENT),
    (body(b"x" * 20) + deliver(b"x"), TO_SERVER, TO_CLIENT),
    (b"GET / HTTP/1.1\r\n\r\n", TO_SERVER, None),
    (b"J\x00\x00\x00\x0a8.0.36\x00\x08\x00\x00\x00", TO_CLIENT, None),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", TO_SERVER, None),
    (b"", TO_SERVER, None),
]


@pytest.mark.parametrize(("payload", "direction", "expected"), RECOGNISED)
def test_recognises_by_content(payload: bytes, direction: int, expected: int | None) -> None:
    """What only one end may send shows in which direction the bytes travel."""
    assert Amqp091.recognises(payload, direction) == expected


# --- hostile traffic ------------------------------------------------------------------------------

PIECE = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [HEADER, HEARTBEAT, publish(b"abc"), publish(b"abc")[:-3], deliver(b"abc"), header(2**63)]
    ),
    st.sampled_from(
        [b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50", b"\x03\x00\x01\xff\xff\xff\xff", b"\xce"]
    ),
)
EVENT = st.one_of(
    st.tuples(st.just("data"), PIECE, st.integers(0, 1)),
    st.tuples(st.just("gap"), st.integers(0, 200), st.integers(0, 1)),
    st.tuples(st.just("closed"), st.sampled_from(["fin", "reset", "end"]), st.integers(0, 1)),
)


@given(st.booleans(), st.lists(EVENT, max_size=25))
@settings(max_examples=examples(400))
def test_nothing_raises(joined: bool, events: list[tuple[str, object, int]]) -> None:
    """Any bytes, holes and ends in any order give messages or nothing, never an exception."""
    talk = Talk(joined)
    for kind, what, direction in events:
        getattr(talk, kind)(what, direction=direction)
    talk.closed()
    assert {type(message) for message in talk.messages} <= {AmqpContent, AmqpMethod, Undecoded}


HOSTILE = {
    "method heads without end": b"\x01\x00\x01\x00\x00\xff\xff\x00\x3c\x00\x28",
    "heads that end nowhere": b"\x01\x00\x01\x00\x00\x00\x0d\x00\x3c\x00\x50",
    "ones": b"\x01",
    "frame ends": b"\xce",
    "heartbeats": HEARTBEAT,
    "publishes without a body": method(Spec.Basic.Publish(exchange="", routing_key="")),
}


@pytest.mark.parametrize("unit", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("step", [7, 1448, 1 << 20])
def test_time_is_linear(unit: bytes, step: int) -> None:
    """Half a megabyte made to be slow takes no longer than half a megabyte; buffers stay bounded."""
    wire = (unit * (500_000 // len(unit) + 1))[:500_000]
    talk = Talk(joined=True)
    began = time.process_time()
    talk.data(*(wire[at : at + step] for at in range(0, len(wire), step)))
    talk.closed()
    assert time.process_time() - began < 5
    assert all(len(stream.buffer) <= 140_000 for stream in talk.decoder._directions)


def test_pending_contents_are_bounded() -> None:
    """A stream that opens a content on every channel holds 64 of them at most."""
    wire = b"".join(method(Spec.Basic.Publish(exchange="", routing_key=""), c) for c in range(1, 200))
    talk = Talk().data(wire)
    assert len(talk.contents()) == 199 - 64


@given(st.binary(max_size=80))
def test_properties_of_anything(payload: bytes) -> None:
    """Any header payload gives properties or none."""
    assert isinstance(properties_of(payload), dict)


@given(
    st.text(max_size=40),
    st.text(max_size=40),
    st.dictionaries(
        st.sampled_from(
            ["content_type", "correlation_id", "reply_to", "expiration", "message_id", "type", "app_id"]
        ),
        st.text(max_size=40),
    ),
    st.binary(max_size=300),
)
def test_agrees_with_pika(exchange: str, key: str, properties: dict[str, Any], text: bytes) -> None:
    """What pika encodes we decode: arguments, properties and body."""
    wire = method(Spec.Basic.Publish(exchange=exchange, routing_key=key)) + header(len(text), **properties)
    (content,) = Talk().data(wire + (body(text) if text else b"")).contents()
    assert content.arguments == {"exchange": exchange, "routing_key": key, "mandatory": False}
    assert (content.properties, content.body) == (properties, text)


def test_what_is_to_be_sent_again_comes_with_its_bytes() -> None:
    """The payloads of method and header frames; of the connection's own methods, with credentials, none."""
    payloads = header(5, headers={"n": 1}, reply_to="x")
    wire = method(pika.spec.Connection.StartOk(mechanism="PLAIN", response="\0guest\0hidden"), 0)
    wire += method(pika.spec.Basic.Qos(0, 7, False)) + method(
        pika.spec.Basic.Publish(exchange="nova", routing_key="conductor")
    )
    talk = Talk(raw=True).data(HEADER + wire + payloads + body(b"hello"))
    start, qos, content = talk.messages
    assert (start.raw, qos.name, qos.raw) == (
        b"",
        "basic.qos",
        method(pika.spec.Basic.Qos(0, 7, False))[7:-1],
    )
    assert content.raw_header == payloads[7:-1]
    assert b"hidden" not in repr(talk.messages).encode()
    [plain] = Talk().data(HEADER + wire + payloads + body(b"hello")).contents()
    assert plain.raw_header == b""
