"""The methods of AMQP 0-9-1 as a table, and the decoders of their arguments.

One row is one method: class and method number, sender, name, fields in wire order. The decoders, the pattern
that finds a method frame in the middle of a stream, and the guess which end is the client are all made from
the table. RabbitMQ's extensions are rows like any other.

Field types are those of the specification. A field whose name starts with '-' is skipped. Credentials are
among these: `response`, `challenge` and `new_secret` are never read.

Source: AMQP 0-9-1 specification, amqp0-9-1.xml; RabbitMQ extensions, amqp0-9-1.extended.xml.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from tracer.model import DEATH_REASON, DELIVERY_COUNT

__all__ = ["CLIENT", "EITHER", "METHODS", "METHOD_HEAD", "SERVER", "Arguments", "Method", "properties_of"]

CLIENT, SERVER, EITHER = "client", "server", "either"

Arguments = dict[str, str | int | bool]


class Method(NamedTuple):
    """One row of the table, with a decoder in place of its fields."""

    name: str
    sender: str
    """CLIENT, SERVER or EITHER."""
    content: bool
    """True if a header and a body follow."""
    emitted: bool
    """False for methods that no later stage reads."""
    decode: Callable[[bytes], Arguments | None]
    """Frame payload -> arguments; None if the fields are longer than the payload."""


# '+': a content follows. '.': no message is made: basic.qos is of no interest, secure holds credentials.
_TABLE = """
10 10  server  connection.start             -major:octet -minor:octet server_properties:table -mechanisms:longstr -locales:longstr
10 11  client  connection.start-ok          client_properties:table mechanism:shortstr -response:longstr -locale:shortstr
10 20  server  .connection.secure           -challenge:longstr
10 21  client  .connection.secure-ok        -response:longstr
10 30  server  connection.tune              channel_max:short frame_max:long heartbeat:short
10 31  client  connection.tune-ok           channel_max:short frame_max:long heartbeat:short
10 40  client  connection.open              virtual_host:shortstr -reserved:shortstr -reserved:bit
10 41  server  connection.open-ok           -reserved:shortstr
10 50  either  connection.close             reply_code:short reply_text:shortstr class_id:short method_id:short
10 51  either  connection.close-ok
10 60  server  connection.blocked           reason:shortstr
10 61  server  connection.unblocked
10 70  client  connection.update-secret     -new_secret:longstr -reason:shortstr
10 71  server  connection.update-secret-ok
20 10  client  channel.open                 -reserved:shortstr
20 11  server  channel.open-ok              -reserved:longstr
20 20  either  channel.flow                 active:bit
20 21  either  channel.flow-ok              active:bit
20 40  either  channel.close                reply_code:short reply_text:shortstr class_id:short method_id:short
20 41  either  channel.close-ok
30 10  client  .access.request              -realm:shortstr -bits:octet
30 11  server  .access.request-ok           -ticket:short
40 10  client  exchange.declare             -ticket:short exchange:shortstr type:shortstr passive:bit durable:bit auto_delete:bit internal:bit no_wait:bit -arguments:table
40 11  server  exchange.declare-ok
40 20  client  exchange.delete              -ticket:short exchange:shortstr if_unused:bit no_wait:bit
40 21  server  exchange.delete-ok
40 30  client  exchange.bind                -ticket:short destination:shortstr source:shortstr routing_key:shortstr no_wait:bit -arguments:table
40 31  server  exchange.bind-ok
40 40  client  exchange.unbind              -ticket:short destination:shortstr source:shortstr routing_key:shortstr no_wait:bit -arguments:table
40 51  server  exchange.unbind-ok
50 10  client  queue.declare                -ticket:short queue:shortstr passive:bit durable:bit exclusive:bit auto_delete:bit no_wait:bit -arguments:table
50 11  server  queue.declare-ok             queue:shortstr message_count:long consumer_count:long
50 20  client  queue.bind                   -ticket:short queue:shortstr exchange:shortstr routing_key:shortstr no_wait:bit -arguments:table
50 21  server  queue.bind-ok
50 30  client  queue.purge                  -ticket:short queue:shortstr no_wait:bit
50 31  server  queue.purge-ok               message_count:long
50 40  client  queue.delete                 -ticket:short queue:shortstr if_unused:bit if_empty:bit no_wait:bit
50 41  server  queue.delete-ok              message_count:long
50 50  client  queue.unbind                 -ticket:short queue:shortstr exchange:shortstr routing_key:shortstr -arguments:table
50 51  server  queue.unbind-ok
60 10  client  .basic.qos                   -prefetch_size:long -prefetch_count:short -global:bit
60 11  server  .basic.qos-ok
60 20  client  basic.consume                -ticket:short queue:shortstr consumer_tag:shortstr no_local:bit no_ack:bit exclusive:bit no_wait:bit -arguments:table
60 21  server  basic.consume-ok             consumer_tag:shortstr
60 30  either  basic.cancel                 consumer_tag:shortstr no_wait:bit
60 31  either  basic.cancel-ok              consumer_tag:shortstr
60 40  client  +basic.publish               -ticket:short exchange:shortstr routing_key:shortstr mandatory:bit -immediate:bit
60 50  server  +basic.return                reply_code:short reply_text:shortstr exchange:shortstr routing_key:shortstr
60 60  server  +basic.deliver               consumer_tag:shortstr delivery_tag:longlong redelivered:bit exchange:shortstr routing_key:shortstr
60 70  client  basic.get                    -ticket:short queue:shortstr no_ack:bit
60 71  server  +basic.get-ok                delivery_tag:longlong redelivered:bit exchange:shortstr routing_key:shortstr message_count:long
60 72  server  basic.get-empty              -reserved:shortstr
60 80  either  basic.ack                    delivery_tag:longlong multiple:bit
60 90  client  basic.reject                 delivery_tag:longlong requeue:bit
60 100 client  basic.recover-async          requeue:bit
60 110 client  basic.recover                requeue:bit
60 111 server  basic.recover-ok
60 120 either  basic.nack                   delivery_tag:longlong multiple:bit requeue:bit
85 10  client  confirm.select               no_wait:bit
85 11  server  confirm.select-ok
90 10  client  tx.select
90 11  server  tx.select-ok
90 20  client  tx.commit
90 21  server  tx.commit-ok
90 30  client  tx.rollback
90 31  server  tx.rollback-ok
"""  # noqa: E501  (a row is a line)

# --- field types ----------------------------------------------------------------------------------

# Type -> its reader (section 4.2.5). Strings, tables and bits have no fixed size; see `_generic`.
_NUMBERS = {
    "octet": struct.Struct(">B"),
    "short": struct.Struct(">H"),
    "long": struct.Struct(">I"),
    "longlong": struct.Struct(">Q"),
}
_LONG = _NUMBERS["long"]

# Sizes of the values in a field table, as RabbitMQ writes them: its 's' is a 16-bit integer, not the
# short string of the 0-9-1 document (RabbitMQ errata, section 3). Types with a length of their own
# (S string, A array, F table, x bytes) are in _LENGTH_FIRST.
_SIZES = {
    "t": 1,
    "b": 1,
    "B": 1,
    "s": 2,
    "u": 2,
    "I": 4,
    "i": 4,
    "f": 4,
    "l": 8,
    "L": 8,
    "d": 8,
    "T": 8,
    "D": 5,
    "V": 0,
}
_FIXED = {ord(kind): size for kind, size in _SIZES.items()}
_LENGTH_FIRST = frozenset(b"SAFx")
_STRING = ord("S")
_LONGEST_STRING = 255
"""Longer strings of a table (access tokens, for one) are left out."""
_UNWANTED = re.compile("copyright|information|passw|secret|token|credential", re.IGNORECASE)


def _table_strings(table: bytes) -> Arguments:
    """Return the top-level strings of a field table, without long strings, licences and secrets.

    A damaged table gives the strings before the damage.

    Source: AMQP 0-9-1 section 4.2.5.5.
    """
    found: Arguments = {}
    at, end = 0, len(table)
    while at < end:
        name_end = at + 1 + table[at]
        if name_end + 1 > end:
            break
        name, kind = table[at + 1 : name_end], table[name_end]
        at = name_end + 1
        if kind in _LENGTH_FIRST:
            if at + 4 > end:
                break
            size = _LONG.unpack_from(table, at)[0]
            at += 4
            if kind == _STRING and size <= _LONGEST_STRING and at + size <= end:
                key = name.decode("utf-8", "replace")
                if not _UNWANTED.search(key):
                    found[key] = table[at : at + size].decode("utf-8", "replace")
            at += size
        elif kind in _FIXED:
            at += _FIXED[kind]
        else:
            # The size of an unknown type is unknown, too.
            break
    return found


def _generic(fields: tuple[tuple[str, str], ...]) -> Callable[[bytes], Arguments | None]:
    """Return a decoder of a method payload for *fields*, each (name, type).

    Consecutive bits share an octet, the first one in the lowest bit (section 4.2.5.2).
    """

    def decode(payload: bytes) -> Arguments | None:
        arguments: Arguments = {}
        # Fields begin behind class and method, two shorts. `bit` 8 means: the next bit begins an octet.
        at, bit, end = 4, 8, len(payload)
        for name, kind in fields:
            wanted = name[0] != "-"
            if kind == "bit":
                if bit == 8 or bit == 0:
                    at, bit = at + 1, 0
                if at > end:
                    return None
                if wanted:
                    arguments[name] = bool(payload[at - 1] >> bit & 1)
                bit = (bit + 1) % 8
                continue
            bit = 8
            if kind in _NUMBERS:
                number = _NUMBERS[kind]
                if at + number.size > end:
                    return None
                if wanted:
                    arguments[name] = number.unpack_from(payload, at)[0]
                at += number.size
                continue
            # Any other type ends the octet of bits.
            at, size = _sized(payload, at, kind)
            if at + size > end:
                return None
            if wanted and kind == "table":
                arguments.update(_table_strings(payload[at : at + size]))
            elif wanted:
                arguments[name] = payload[at : at + size].decode("utf-8", "replace")
            at += size
        return arguments

    return decode


def _sized(payload: bytes, at: int, kind: str) -> tuple[int, int]:
    """Return the offset and the size of a string or table; a size beyond the payload if it is cut."""
    if kind == "shortstr":
        return at + 1, payload[at] if at < len(payload) else 1
    if at + 4 > len(payload):
        # Size 1 behind the end of the payload: the caller's check fails.
        return at + 4, 1
    return at + 4, _LONG.unpack_from(payload, at)[0]


# --- the three methods that are nearly all of the traffic -----------------------------------------
# Written out for speed: a third of the time of the generic decoder. A test compares them with the table.

_DELIVERY_TAG = struct.Struct(">QB")
"""The tag, then an octet of bits."""


def _publish(payload: bytes) -> Arguments | None:
    end = len(payload)
    if end < 9:
        return None
    # Class and method take 4 bytes, the ticket 2; then the exchange, its length first.
    exchange_end = 7 + payload[6]
    if exchange_end >= end:
        return None
    key_end = exchange_end + 1 + payload[exchange_end]
    if key_end >= end:
        return None
    return {
        "exchange": payload[7:exchange_end].decode("utf-8", "replace"),
        "routing_key": payload[exchange_end + 1 : key_end].decode("utf-8", "replace"),
        "mandatory": payload[key_end] & 1 == 1,
    }


def _deliver(payload: bytes) -> Arguments | None:
    end = len(payload)
    if end < 5:
        return None
    # The consumer tag, then 8 bytes of delivery tag, an octet of bits and the length of the exchange.
    tag_end = 5 + payload[4]
    if tag_end + 10 > end:
        return None
    delivery_tag, redelivered = _DELIVERY_TAG.unpack_from(payload, tag_end)
    exchange_at = tag_end + 10
    exchange_end = exchange_at + payload[exchange_at - 1]
    if exchange_end >= end:
        return None
    key_end = exchange_end + 1 + payload[exchange_end]
    if key_end > end:
        return None
    return {
        "consumer_tag": payload[5:tag_end].decode("utf-8", "replace"),
        "delivery_tag": delivery_tag,
        "redelivered": redelivered & 1 == 1,
        "exchange": payload[exchange_at:exchange_end].decode("utf-8", "replace"),
        "routing_key": payload[exchange_end + 1 : key_end].decode("utf-8", "replace"),
    }


def _ack(payload: bytes) -> Arguments | None:
    if len(payload) < 13:
        return None
    delivery_tag, bits = _DELIVERY_TAG.unpack_from(payload, 4)
    return {"delivery_tag": delivery_tag, "multiple": bits & 1 == 1}


_WRITTEN_OUT = {"basic.publish": _publish, "basic.deliver": _deliver, "basic.ack": _ack}


def _fields(words: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, kind) for name, _, kind in (word.partition(":") for word in words))


def _rows() -> dict[tuple[int, int], Method]:
    """Return the methods of `_TABLE` by class and method number."""
    methods = {}
    for line in _TABLE.strip().splitlines():
        class_id, method_id, sender, marked, *words = line.split()
        name = marked.lstrip("+.")
        methods[int(class_id), int(method_id)] = Method(
            name=name,
            sender=sender,
            content=marked[0] == "+",
            emitted=marked[0] != ".",
            decode=_WRITTEN_OUT.get(name) or _generic(_fields(words)),
        )
    return methods


METHODS = _rows()
"""(class, method) -> the method."""


def _method_head() -> re.Pattern[bytes]:
    # Class and method are shorts whose upper byte is always 0.
    by_class: dict[int, bytes] = {}
    for class_id, method_id in METHODS:
        by_class[class_id] = by_class.get(class_id, b"") + re.escape(bytes([method_id]))
    methods = b"|".join(re.escape(bytes([0, c])) + b"\\x00[" + m + b"]" for c, m in by_class.items())
    return re.compile(b"\\x01[\\x00-\\x07].\\x00\\x00..(?:" + methods + b")", re.DOTALL)


METHOD_HEAD = _method_head()
"""Matches the first 11 bytes of a method frame: channel <= 2047, size < 64 KiB, known class and method.

2047 is RabbitMQ's default channel_max. Header and body frames are not searched: their 7 bytes could match in
any binary data, and the reader would wait for a frame that never ends.
"""

# --- content properties ---------------------------------------------------------------------------

# Bit 15 first (section 4.2.6.1). None: skipped. user_id is an account's name; of headers few keys are read.
_PROPERTIES: tuple[tuple[str | None, str], ...] = (
    ("content_type", "shortstr"),
    ("content_encoding", "shortstr"),
    (None, "table"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "shortstr"),
    ("reply_to", "shortstr"),
    ("expiration", "shortstr"),
    ("message_id", "shortstr"),
    ("timestamp", "longlong"),
    ("type", "shortstr"),
    (None, "shortstr"),
    ("app_id", "shortstr"),
    (None, "shortstr"),
)
# kombu names its body compression in a header (kombu.compression). The length octet of the name and the type
# are part of each pattern, so it cannot match inside a value by accident.
_COMPRESSION = "compression"
_TEXTS = {name: b"%c%bS" % (len(name), name.encode()) for name in (_COMPRESSION, DEATH_REASON)}
_OF_BROKER = b"x-"
_COUNT = re.compile(b"%c%b([bBsuIilL])" % (len(DELIVERY_COUNT), DELIVERY_COUNT.encode()))
_INTEGERS = {kind: struct.Struct(">" + code) for kind, code in zip("bBsuIilL", "bBhHiIqQ", strict=True)}
"""Types of integers in a table as RabbitMQ writes them (rabbitmq.com/amqp-0-9-1-errata)."""


@lru_cache(maxsize=256)
def _layout(flags: int) -> tuple[tuple[str | None, str], ...]:
    return tuple(prop for bit, prop in enumerate(_PROPERTIES) if flags >> (15 - bit) & 1)


def properties_of(payload: bytes) -> dict[str, str | int]:
    """Return the properties in the payload of a content header; of a cut one those before the cut.

    Source: AMQP 0-9-1 section 4.2.6.1.
    """
    # Class, weight and body size come first: 2, 2 and 8 bytes.
    words = payload[12:]
    return _seen_before(words).copy() if len(words) <= _SHORT else _properties(words)


def _properties(payload: bytes) -> dict[str, str | int]:
    """Return the properties that the flags announce.

    Bit 0 of a word of flags announces another word. No class of 0-9-1 uses it, so further words are skipped.
    """
    found: dict[str, str | int] = {}
    at, end = 2, len(payload)
    if end < at:
        return found
    flags = word = payload[0] << 8 | payload[1]
    # `flags` keeps the first word; further words are only passed over.
    while word & 1 and at + 2 <= end:
        word = payload[at] << 8 | payload[at + 1]
        at += 2
    for name, kind in _layout(flags & 0xFFFC):
        if kind == "shortstr":
            if at >= end:
                break
            stop = at + 1 + payload[at]
            if stop > end:
                break
            if name:
                found[name] = payload[at + 1 : stop].decode("utf-8", "replace")
            at = stop
        elif kind == "table":
            if at + 4 > end:
                break
            stop = at + 4 + _LONG.unpack_from(payload, at)[0]
            _look_at_headers(payload, at + 4, min(stop, end), found)
            at = stop
        else:
            number = _NUMBERS[kind]
            if at + number.size > end:
                break
            if name:
                found[name] = number.unpack_from(payload, at)[0]
            at += number.size
    return found


# A client's messages have the same properties byte for byte, unless there is an id among them; so the decoded
# ones are cached. Long ones are not: they would fill the cache with bytes.
_SHORT = 200
_seen_before = lru_cache(maxsize=256)(_properties)


def _look_at_headers(payload: bytes, at: int, stop: int, found: dict[str, str | int]) -> None:
    """Add those headers in payload[at:stop] that a stage needs; the table is not decoded."""
    if stop - at < len(_COMPRESSION) + 4:
        return
    is_of_broker = payload.find(_OF_BROKER, at, stop) >= 0
    for name, pattern in _TEXTS.items() if is_of_broker else ((_COMPRESSION, _TEXTS[_COMPRESSION]),):
        key = payload.find(pattern, at, stop)
        value = key + len(pattern) + 4
        if key >= 0 and value <= stop:
            size = min(_LONG.unpack_from(payload, value - 4)[0], stop - value, _LONGEST_STRING)
            found[name] = payload[value : value + size].decode("utf-8", "replace")
    count = _COUNT.search(payload, at, stop) if is_of_broker else None
    if count is not None:
        number = _INTEGERS[count[1].decode()]
        if count.end() + number.size <= stop:
            found[DELIVERY_COUNT] = number.unpack_from(payload, count.end())[0]
