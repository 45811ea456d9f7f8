"""Reading of a firehose's deliveries from the broker's bytes, without an object for each frame.

`tracer watch` needs exchange, routing key, headers and body of each message, at the pace of the broker. The
client library makes a dozen objects for one message. So the frames of the consuming channel are removed from
the broker's bytes, and the library gets all other frames unchanged.

Source: AMQP 0-9-1 sections 2.3.5 (frames), 4.2 (types); RabbitMQ's errata, section 3, for field tables.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tracer.capture.rabbitmq.messages import UNREADABLE

__all__ = ["Arrived", "Deliveries", "properties_of"]

_FRAME = struct.Struct(">BHL")
_FRAME_END = 0xCE
_METHOD, _HEADER, _BODY = 1, 2, 3
_DELIVER = b"\x00\x3c\x00\x3c"
_SIZE = struct.Struct(">Q")
_LONG = struct.Struct(">L")
_SHORT = struct.Struct(">H")
_STRING, _TABLE, _ARRAY = ord("S"), ord("F"), ord("A")
_NUMBERS = {
    ord(kind): struct.Struct(">" + form)
    for kind, form in (
        *(("b", "b"), ("B", "B"), ("s", "h"), ("u", "H"), ("I", "i"), ("i", "I"), ("l", "q"), ("L", "Q")),
        *(("f", "f"), ("d", "d"), ("T", "Q")),
    )
}
_BOOLEAN, _NOTHING, _BYTES, _DECIMAL = ord("t"), ord("V"), ord("x"), ord("D")
_DEEP = 2
"""Depth of nested tables that is read. Deeper ones hold the headers of the traced message, which are not
needed."""

Arrived = Callable[[str, str, dict[str, Any], str, bytes], None]
"""Accepts exchange, routing key, headers, message id and body."""


class Deliveries:
    """Removes the deliveries of one channel from the bytes of a broker."""

    def __init__(self, arrived: Arrived, anomalies: Counter[str]) -> None:
        self.channel = 0
        """The consuming channel; 0 before there is one."""
        self._arrived = arrived
        self._anomalies = anomalies
        self._left = b""
        """An incomplete frame."""
        self._is_lost = False
        """The bytes are not frames. All go to the client library, which reports the error."""
        self._deliver: tuple[str, str] | None = None
        """(exchange, routing key) of the delivery in progress."""
        self._skips = False
        """The current delivery is unreadable: its header and body frames are dropped."""
        self._header = b""
        self._missing = 0
        """Bytes of the body still to come."""
        self._parts: list[bytes] = []

    def receive(self, data: bytes) -> bytes:
        """Hand over the messages that are complete with *data*; return all other frames, whole."""
        if self._is_lost:
            return data
        if self._left:
            data = self._left + data
        at, end = 0, len(data)
        rest: list[bytes] = []
        while end - at >= 8:
            kind, channel, size = _FRAME.unpack_from(data, at)
            stop = at + 8 + size
            if stop > end and kind <= 8:
                break
            # 8 is the heartbeat, the highest frame type.
            if kind > 8 or data[stop - 1] != _FRAME_END:
                self._is_lost, self._left = True, b""
                return b"".join([*rest, data[at:]])
            if channel != self.channel or not channel or not self._take(kind, data[at + 7 : stop - 1]):
                rest.append(data[at:stop])
            at = stop
        self._left = data[at:]
        return b"".join(rest)

    def _take(self, kind: int, payload: bytes) -> bool:
        """Use a frame of the consuming channel; return False if it is not part of a delivery."""
        if kind == _METHOD:
            self._deliver, self._parts, self._skips = None, [], False
            if payload[:4] != _DELIVER:
                return False
            try:
                # Class and method (4 bytes), consumer tag with its length, delivery tag (8) and a bit.
                exchange, at = _short_string(payload, 4 + 1 + payload[4] + 9)
                self._deliver = exchange, _short_string(payload, at)[0]
            except IndexError:
                self._skip()
            return True
        if self._deliver is None:
            return self._skips
        if kind == _HEADER:
            if len(payload) < 12:
                self._skip()
                return True
            self._header, self._missing = payload, _SIZE.unpack_from(payload, 4)[0]
        elif kind == _BODY:
            self._parts.append(payload)
            self._missing -= len(payload)
        if self._missing <= 0:
            (exchange, key), self._deliver = self._deliver, None
            parts, self._parts = self._parts, []
            headers, message_id = properties_of(self._header)
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._arrived(exchange, key, headers, message_id, body)
        return True

    def _skip(self) -> None:
        """Drop an unreadable delivery with all of its frames, and count it."""
        self._deliver, self._skips = None, True
        self._anomalies[UNREADABLE] += 1


def properties_of(header: bytes) -> tuple[dict[str, Any], str]:
    """Return the headers and the message id in a content header frame, as far as they can be read.

    Source: AMQP 0-9-1 sections 4.2.6.1 and 1.8 (the properties of basic, in the order of their flags).
    """
    headers: dict[str, Any] = {}
    try:
        flags = _SHORT.unpack_from(header, 12)[0]
        at = 14
        # content_type and content_encoding.
        for flag in (0x8000, 0x4000):
            if flags & flag:
                at += 1 + header[at]
        if flags & 0x2000:
            at += 4
            size = _LONG.unpack_from(header, at - 4)[0]
            headers = _table(header, at, min(at + size, len(header)), 0)
            at += size
        if not flags & 0x0080:
            return headers, ""
        # delivery_mode and priority, one byte each; then correlation_id, reply_to and expiration.
        at += (flags >> 12 & 1) + (flags >> 11 & 1)
        for flag in (0x0400, 0x0200, 0x0100):
            if flags & flag:
                at += 1 + header[at]
        return headers, _short_string(header, at)[0]
    except (struct.error, IndexError):
        return headers, ""


def _short_string(payload: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + payload[at]
    return payload[at + 1 : end].decode("utf-8", "replace"), end


def _table(data: bytes, at: int, end: int, depth: int) -> dict[str, Any]:
    """Return the fields of the table in data[at:end]; of a damaged table those before the damage."""
    found: dict[str, Any] = {}
    with suppress(struct.error, IndexError):
        while at < end:
            name_end = at + 1 + data[at]
            kind = data[name_end]
            name = data[at + 1 : name_end].decode("utf-8", "replace")
            if kind == _STRING:
                # The same as in `_value`, without the call, because nearly all fields are strings.
                at = name_end + 5 + _LONG.unpack_from(data, name_end + 1)[0]
                found[name] = data[name_end + 5 : at].decode("utf-8", "replace")
            else:
                found[name], at = _value(data, name_end + 1, kind, depth)
    return found


def _value(data: bytes, at: int, kind: int, depth: int) -> tuple[Any, int]:
    """Return the value of type *kind* at *at*, and the offset of the next field."""
    number = _NUMBERS.get(kind)
    if number is not None:
        return number.unpack_from(data, at)[0], at + number.size
    if kind == _BOOLEAN:
        return bool(data[at]), at + 1
    if kind == _NOTHING:
        return None, at
    if kind == _DECIMAL:
        return None, at + 5
    end = at + 4 + _LONG.unpack_from(data, at)[0]
    if kind == _STRING:
        return data[at + 4 : end].decode("utf-8", "replace"), end
    if kind == _BYTES:
        return data[at + 4 : end], end
    if kind == _TABLE:
        return {} if depth + 1 >= _DEEP else _table(data, at + 4, end, depth + 1), end
    if kind != _ARRAY:
        raise IndexError(f"field of unknown type {kind}")
    values, at = [], at + 4
    while depth + 1 <= _DEEP and at < end:
        value, at = _value(data, at + 1, data[at], depth + 1)
        values.append(value)
    return values, end
