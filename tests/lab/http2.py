"""Conversations of HTTP/1.1 said in HTTP/2 instead, in frames that the makers of h2 write."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpack import Encoder
from hyperframe.frame import DataFrame, HeadersFrame, SettingsFrame

from tracer.testing.packets import Connection, Network

__all__ = ["as_http2", "message"]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_NOT_IN_HTTP2 = ("connection", "host", "transfer-encoding", "content-length")


@dataclass
class _Talk:
    """What one connection has said so far."""

    encoders: tuple[Encoder, Encoder] = field(default_factory=lambda: (Encoder(), Encoder()))
    asked: int = 0
    answered: int = 0
    begun: set[int] = field(default_factory=set)
    """The directions that have said something."""


def message(stream: int, fields: list[tuple[str, str]], body: bytes, encoder: Encoder) -> bytes:
    """Return HEADERS and DATA of a whole message."""
    head = HeadersFrame(stream, encoder.encode(fields))
    head.flags.add("END_HEADERS")
    if not body:
        head.flags.add("END_STREAM")
        return head.serialize()
    data = DataFrame(stream, body)
    data.flags.add("END_STREAM")
    return head.serialize() + data.serialize()


def as_http2(network: Network) -> int:
    """Say in HTTP/2, with prior knowledge, what *network* says in HTTP/1.1; return how many messages that is.

    Each event must hold one whole message.
    """
    talks: dict[Connection, _Talk] = {}
    events = []
    for at, made, side, flags, data, lost in sorted(network.events, key=lambda event: event[0]):
        if b" HTTP/1.1\r\n" in data[:4096] or data.startswith(b"HTTP/1.1 "):
            data = _said(talks.setdefault(made, _Talk()), side, data)
        events.append((at, made, side, flags, data, lost))
    network.events[:] = events
    return sum(talk.asked + talk.answered for talk in talks.values())


def _said(talk: _Talk, side: int, data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    named = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    fields = [(name, value) for name, value in named if name not in _NOT_IN_HTTP2]
    if side == 0:
        method, target, _ = start.split(" ")
        talk.asked += 1
        stream = 2 * talk.asked - 1
        authority = dict(named).get("host", "server")
        pseudo = [(":method", method), (":scheme", "http"), (":authority", authority), (":path", target)]
    else:
        talk.answered += 1
        stream = 2 * talk.answered - 1
        pseudo = [(":status", start.split(" ")[1])]
    begin = b""
    if side not in talk.begun:
        talk.begun.add(side)
        begin = (PREFACE if side == 0 else b"") + SettingsFrame(0).serialize()
    return begin + message(stream, [*pseudo, *fields], body, talk.encoders[side])
