"""AMQP 0-9-1 messages, made from what tshark shows.

tshark writes the entries of a field table as text only, which JSON output leaves out. The name that a client
gives its connection is such an entry; it is read from the bytes of the frame by our own table of methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tracer.model import AmqpContent, AmqpMethod, Connection, Frames, Message
from tracer.protocols.amqp091 import Amqp091
from tracer.protocols.amqp091.methods import METHODS, Arguments, Method
from tracer.second.http import octets
from tracer.second.tshark import Frame, Layer, layers

__all__ = ["read_amqp"]

BODY_LIMIT = 1 << 20
"""Bytes of a message that are kept."""
MOST_OPEN = 2_048
"""Channels of which a content is under way."""
_METHOD, _HEADER, _BODY = 1, 2, 3
"""Types of frames (section 2.3.5)."""
_ARGUMENT = "amqp_amqp_method_arguments_"
_PROPERTY = "amqp_amqp_method_properties_"
_NUMBERS = frozenset(
    ("delivery_tag", "reply_code", "class_id", "method_id", "message_count", "consumer_count", "channel_max",
     "frame_max", "heartbeat")
)  # fmt: skip
_NUMBER_PROPERTIES = frozenset(("delivery_mode", "priority"))
_RENAMED = {"nowait": "no_wait"}


@dataclass(slots=True)
class _Content:
    method: Method
    arguments: Arguments
    time_ns: int
    at: Frames
    properties: dict[str, str | int]
    body: bytes = b""
    size_bytes: int = -1
    received: int = 0


def read_amqp(
    frame: Frame, connection: Connection, began_ns: int, at: Frames, direction: int, state: dict[str, Any]
) -> Iterator[Message]:
    """Yield the methods, and the contents that are whole, that *frame* shows."""
    open_: dict[tuple[int, int], _Content] = state.setdefault(Amqp091.name, {})
    shown = layers(frame, "amqp")
    for layer in shown:
        if "amqp_amqp_type" not in layer:
            continue
        connection.protocol = Amqp091.name
        channel = int(layer.get("amqp_amqp_channel", 0))
        key = direction, channel
        kind = int(layer["amqp_amqp_type"])
        # Only the first message of a frame can have begun in an earlier one.
        begins_ns = began_ns if layer is shown[0] else frame.time_ns
        if kind == _METHOD:
            method = _method(layer)
            if method is None:
                continue
            arguments = _arguments(layer, frame, method)
            if method.content:
                if len(open_) < MOST_OPEN:
                    open_[key] = _Content(method, arguments, begins_ns, at, {})
            elif method.emitted:
                yield AmqpMethod(connection, direction, begins_ns, at, channel, method.name, arguments)
        elif key in open_:
            content = open_[key]
            if kind == _HEADER:
                content.size_bytes = int(layer.get("amqp_amqp_header_body-size", 0))
                content.properties = _properties(layer)
            elif kind == _BODY:
                body = octets(layer.get("amqp_amqp_payload"))
                content.received += len(body)
                content.body += body[: BODY_LIMIT - len(content.body)]
            if 0 <= content.size_bytes <= content.received:
                del open_[key]
                yield _whole(content, connection, direction, channel, frame, at)


def _whole(
    content: _Content, connection: Connection, direction: int, channel: int, frame: Frame, at: Frames
) -> AmqpContent:
    return AmqpContent(
        connection,
        direction,
        content.time_ns,
        frame.time_ns,
        content.at if content.at == at else content.at + at,
        channel,
        content.method.name,
        content.arguments,
        content.properties,
        content.body,
        content.size_bytes,
        truncated=False,
    )


def _method(layer: Layer) -> Method | None:
    try:
        number = int(layer["amqp_amqp_method_class"]), int(layer["amqp_amqp_method_method"])
    except (KeyError, TypeError, ValueError):
        return None
    return METHODS.get(number)


def _arguments(layer: Layer, frame: Frame, method: Method) -> Arguments:
    found: Arguments = {}
    for key, value in layer.items():
        if not key.startswith(_ARGUMENT) or value is None or isinstance(value, list):
            continue
        name = key.removeprefix(_ARGUMENT)
        name = _RENAMED.get(name, name)
        if name in ("response", "challenge"):
            # Credentials.
            continue
        if isinstance(value, bool):
            found[name] = value
        elif name in _NUMBERS:
            found[name] = int(value)
        else:
            found[name] = str(value)
    if "amqp_amqp_method_arguments_client_properties" in layer:
        payload = octets(frame.tcp.get("tcp_tcp_payload"))
        # Type, channel and size stand before the method.
        found.update((method.decode(payload[7:-1]) if payload[:1] == b"\x01" else None) or {})
    return found


def _properties(layer: Layer) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for key, value in layer.items():
        if key.startswith(_PROPERTY) and isinstance(value, str):
            name = key.removeprefix(_PROPERTY)
            found[name] = int(value) if name in _NUMBER_PROPERTIES and value.isdigit() else value
    return found
