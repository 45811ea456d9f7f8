"""What a firehose tells becomes the messages of a sniffed connection; URLs keep their password."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.capture.rabbitmq.broker import PASSWORD, broker_of, refusal
from tracer.capture.rabbitmq.messages import BODY_LIMIT, EVENTS, TRACE, UNREADABLE, Firehose
from tracer.capture.rabbitmq.source import RabbitMQ
from tracer.errors import SourceError, UsageError
from tracer.model import AmqpContent, AmqpMethod, Capture, Closed, Endpoint, Heard

NAME = "10.0.0.31:40000 -> 10.0.0.9:5672"


def firehose() -> Firehose:
    return Firehose(Capture(3, "amqp://b:5672/%2F", protocol="RPC"), Endpoint("10.0.0.9", 5672))


def headers(**more: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        "exchange_name": "nova",
        "routing_keys": ["conductor"],
        "properties": {"message_id": "7", "headers": {"x": 1}, "delivery_mode": 2},
        "node": "rabbit@b",
        "vhost": "/",
        "connection": NAME,
        "channel": 4,
        "user": "nova",
        "routed_queues": ["conductor"],
    }
    return given | more


def content(heard: Heard) -> AmqpContent:
    assert isinstance(heard.message, AmqpContent)
    return heard.message


def test_a_message_that_is_published_and_delivered() -> None:
    published, delivered = firehose().read(
        [
            (5, TRACE, "publish.nova", headers(), b"{}"),
            (6, TRACE, "deliver.conductor", headers(redelivered=1, connection="[::1]:7 -> [::2]:8"), b"{}"),
        ]
    )
    assert (published.time_ns, published.capture) == (5, 3)
    first, second = content(published), content(delivered)
    assert (first.name, first.arguments) == (
        "basic.publish",
        {"exchange": "nova", "routing_key": "conductor"},
    )
    assert (second.name, second.arguments["redelivered"]) == ("basic.deliver", True)
    assert (first.body, first.body_bytes, first.truncated, first.channel) == (b"{}", 2, False, 4)
    assert first.properties == {"message_id": "7", "delivery_mode": 2}
    assert (first.frames, second.frames) == (((3, 1),), ((3, 2),))
    assert (first.connection.client, first.connection.server) == (("10.0.0.31", 40000), ("10.0.0.9", 5672))
    assert (second.connection.client, second.connection.server) == (("::1", 7), ("::2", 8))


def test_a_message_that_no_queue_took_is_returned() -> None:
    names = [
        content(h).name for h in firehose().read([(1, TRACE, "publish.nova", headers(routed_queues=[]), b"")])
    ]
    assert names == ["basic.publish", "basic.return"]


@pytest.mark.parametrize(
    "more",
    [
        {"exchange_name": EVENTS},
        {"exchange_name": "", "routing_keys": ["tracer.firehose.0123"]},
    ],
    ids=["an event to a listener", "our own probe"],
)
def test_what_watching_causes_is_left_out(more: dict[str, Any]) -> None:
    assert firehose().read([(1, TRACE, "deliver.q", headers(**more), b"")]) == []


def test_of_a_large_body_so_much_is_kept_as_of_a_sniffed_one() -> None:
    (heard,) = firehose().read([(1, TRACE, "publish.nova", headers(), b"x" * (BODY_LIMIT + 10))])
    assert (len(content(heard).body), content(heard).body_bytes) == (BODY_LIMIT, BODY_LIMIT + 10)


def test_events_tell_who_is_connected() -> None:
    created = {
        "name": NAME,
        "pid": "<1>",
        "user_provided_name": "nova-conductor:7:x",
        "peer_host": "{10,0,0,31}",
    }
    channel = {"name": f"{NAME} (4)", "pid": "<2>", "connection": "<1>", "number": 4}
    consumer = {"queue": "conductor", "channel": "<2>", "consumer_tag": "t", "ack_required": True}
    heard = firehose().read(
        [
            (1, EVENTS, "connection.created", created, b""),
            (2, EVENTS, "channel.created", channel, b""),
            (3, EVENTS, "consumer.created", consumer, b""),
            (4, TRACE, "publish.nova", headers(), b""),
            (5, EVENTS, "consumer.deleted", consumer, b""),
            (6, EVENTS, "channel.closed", {"pid": "<2>"}, b""),
            (7, EVENTS, "connection.closed", {"name": NAME, "pid": "<1>"}, b""),
        ]
    )
    said = [(m.name, m.channel) for m in (h.message for h in heard) if isinstance(m, AmqpMethod)]
    assert said == [
        ("connection.start-ok", 0),
        ("basic.consume", 4),
        ("basic.cancel", 4),
        ("channel.close", 4),
    ]
    first, last = heard[0].message, heard[-1].message
    assert isinstance(first, AmqpMethod) and first.arguments == {"connection_name": "nova-conductor:7:x"}
    assert isinstance(last, Closed) and last.how == "reset"
    assert len({id(h.message.connection) for h in heard}) == 1


def test_names_instead_of_addresses() -> None:
    """With reverse look-ups a connection's name holds host names; its event still has the address."""
    name = "cmp1.lab:40000 -> ctl1.lab:5672"
    event = {
        "name": name,
        "pid": "<1>",
        "peer_host": "{10,0,0,31}",
        "peer_port": 40000,
        "user_provided_name": "x",
    }
    known, unknown = firehose().read(
        [
            (1, EVENTS, "connection.created", event, b""),
            (2, TRACE, "publish.nova", headers(connection="<rabbit@b.1.2.3>"), b""),
        ]
    )
    assert known.message.connection.client == ("10.0.0.31", 40000)
    assert unknown.message.connection.client == ("0.0.0.0", 0)


STRANGE = (
    None,
    True,
    -1,
    10**30,
    "",
    "x",
    "{1,,2}",
    "1.2.3.4:99999 -> :",
    b"\xff",
    [],
    [None],
    ["a"],
    [{}],
    {},
    {"a": 1},
)


@given(
    st.sampled_from([TRACE, EVENTS]),
    st.sampled_from(
        ["publish.x", "deliver.x", "connection.created", "connection.closed", "channel.created", ""]
    ),
    st.dictionaries(
        st.sampled_from([*headers(), "name", "pid", "number", "peer_host", "queue"]), st.sampled_from(STRANGE)
    ),
)
def test_nothing_raises(exchange: str, key: str, given: dict[str, Any]) -> None:
    """Whoever may publish to the broker's exchanges may say anything there: it is read or counted."""
    capture = Capture(0, "b")
    heard = Firehose(capture, Endpoint("10.0.0.9", 5672)).read([(1, exchange, key, given, b"{")])
    assert len(heard) <= 2 and capture.anomalies[UNREADABLE] <= 1


def test_connections_end_with_their_broker() -> None:
    hose = firehose()
    hose.read([(1, TRACE, "publish.nova", headers(), b"")])
    (ended,) = hose.reset(9)
    assert isinstance(ended.message, Closed) and (ended.time_ns, hose.reset(9)) == (9, [])


@pytest.mark.parametrize(
    ("url", "name", "user", "vhost"),
    [
        ("amqp://u:secret@h", "amqp://h:5672/%2F", "u", "/"),
        ("amqp://u:secret@h/", "amqp://h:5672/%2F", "u", "/"),
        ("amqp://u:secret@h:1/%2Fnova", "amqp://h:1/%2Fnova", "u", "/nova"),
        ("amqps://u:secret@[::1]/nova", "amqps://[::1]:5671/nova", "u", "nova"),
        ("amqp://u%40x:secret@h/a?heartbeat=1#secret", "amqp://h:5672/a", "u@x", "a"),
    ],
)
def test_a_url(url: str, name: str, user: str, vhost: str) -> None:
    broker = broker_of(url)
    assert (broker.name, broker.user, broker.vhost) == (name, user, vhost)
    assert "secret" not in repr(broker)
    assert broker.parameters.credentials.password == "secret"


def test_a_password_that_is_not_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "secret")
    assert broker_of("amqp://u@h/").parameters.credentials.password == "secret"


@pytest.mark.parametrize(
    "url",
    [
        "h:5672",
        "http://u:secret@h/",
        "amqp://u:secret@/x",
        "amqp://u:secret@h:port/x",
        "amqp://u:secret@h:99999/",
        "amqp://a..b/",
        "amqp://u:12/secret@h/",
        "amqp://u:12?secret@h/",
        "amqp://u:12#secret@h/",
    ],
)
def test_no_url_of_a_broker(url: str) -> None:
    with pytest.raises(UsageError, match="write amqp://USER:PASSWORD@HOST:5672/VHOST") as raised:
        broker_of(url)
    assert "secret" not in str(raised.value)


def opened(url: str) -> str:
    """Why the broker at *url* cannot be listened to."""
    broker = broker_of(url)
    with pytest.raises(SourceError) as raised:
        RabbitMQ(broker, Capture(0, broker.name, protocol="RPC")).open()
    words = str(raised.value)
    assert "secret" not in words and "\n" not in words
    return words


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert opened(f"amqp://u:secret@127.0.0.1:{port}/x").endswith("cannot be reached: Connection refused")


def test_no_such_host() -> None:
    assert opened("amqp://u:secret@no-such-host.invalid/").endswith("no such host")


def test_errors_that_wrap_each_other() -> None:
    inner, outer = ConnectionRefusedError(111, "Connection refused"), ValueError()
    outer.args = (inner, outer)
    inner.__cause__ = outer
    assert (
        refusal(broker_of("amqp://h/"), outer) == "amqp://h:5672/%2F: cannot be reached: Connection refused"
    )
