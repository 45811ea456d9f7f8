"""Decoder of HTTP/1.x: bytes of one connection -> requests and responses, paired.

Strategy. Each direction is read by itself. It is in one of four states:

    HEAD   at the start of a message, collecting its head
    BODY   inside a body whose end is known: by a length, by chunks, or by the close
    PEEK   behind a head, where it is unknown whether a body follows: the next bytes decide
    LOST   out of step: searching the next start line, anywhere in the bytes

A hole inside a body of known length is skipped. Any other hole ends its message, flagged as truncated, and
LOST follows. `Exchanges` pairs requests and responses, also around such holes.

Source: RFC 9112; RFC 9110 §9.3, §10.1.1 (100-continue), §15.2.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Closed,
    Connection,
    Data,
    Gap,
    HttpRequest,
    HttpResponse,
    Message,
    Undecoded,
)
from tracer.protocols.http1.body import (
    LENGTH,
    UNTIL_CLOSE,
    Body,
    request_framing,
    response_framing,
)
from tracer.protocols.http1.exchanges import Exchanges, Open
from tracer.protocols.http1.head import (
    H2_PREFACE,
    METHODS,
    Head,
    begins_with,
    find_start,
    foreign,
    parse_head,
    parse_start,
)
from tracer.protocols.http1.stream import BODY, HEAD, LOST, PEEK, Mark, MessageUnderWay, Stream

__all__ = ["Http1", "WantsBody"]

WantsBody = Callable[[str, str, dict[str, str], int], bool]
"""(method, target, headers, status; 0 for the request) -> keep the body?"""


class _Next(Protocol):
    """The decoder of what follows an upgrade."""

    def receive(self, data: Data) -> Iterable[Message]: ...

    def gap(self, gap: Gap) -> Iterable[Message]: ...

    def closed(self, closed: Closed) -> Iterable[Message]: ...


Upgrade = Callable[[Connection, tuple[int, str, str] | None], _Next]
"""(connection; exchange, method and target of the request that asked for HTTP/2, or None) -> its decoder."""

HEAD_LIMIT = 65_536
"""More than servers accept by default: Apache 8 KiB a line and 100 lines, nginx 32 KiB, Node.js 16 KiB."""
BODY_LIMIT = 256 << 10
"""Bytes of a body that are kept, before decompression."""

# Method and the start of a target in origin, asterisk, absolute or authority form (RFC 9112 §3.2).
_REQUEST = re.compile(rb"(?:" + b"|".join(METHODS) + rb") (?:/|\*|https?://|[\w.\-]+:\d+ HTTP/1)")
_RESPONSE = re.compile(rb"HTTP/1\.[01] [1-5]\d\d[ \r\n]")
_METHOD_STARTS = tuple(method + b" " for method in METHODS)
_RESPONSE_STARTS = (b"HTTP/1.",)
_H2C = "h2c"
"""Of the header Upgrade: HTTP/2 without TLS (RFC 7540 §3.2)."""


def _is_http2(head: Head) -> bool:
    return head.headers.get("upgrade", "").lower() == _H2C


def _end_of_head(data: bytes | bytearray, start: int, limit: int) -> int:
    """Return the offset behind the empty line that ends a head, searched from *start* to *limit*; 0 without.

    A bare LF ends a line, too (RFC 9112 §2.2).
    """
    usual = data.find(b"\n\r\n", start, limit)
    bare = data.find(b"\n\n", start, usual + 1 if usual >= 0 else limit)
    if bare >= 0:
        return bare + 2
    return usual + 3 if usual >= 0 else 0


class Http1:
    """Decoder of one HTTP/1.x connection.

    *wants_body* decides whose body is kept (None: all), up to *body_limit* bytes before decompression. For a
    response it gets method and target of the request, or '' if the request is unknown. With *raw*, messages
    hold their heads as they were sent, and requests their bodies without decompression. *upgrade* makes the
    decoder that goes on when the connection changes to HTTP/2; without it, that is reported as undecoded.

    A response can be emitted before its request, if a lost segment held up the request's direction; both have
    the same `exchange`. A response that comes before the end of the request's body is emitted behind the
    request, because packets may be reordered.
    """

    name: ClassVar[str] = "http1"

    @staticmethod
    def recognises(payload: bytes, direction: int) -> int | None:
        """Return the direction in which *payload*, the first bytes of a stream, travels; None if not HTTP."""
        if _RESPONSE.match(payload):
            return TO_CLIENT
        if _REQUEST.match(payload):
            line, newline, _ = payload.partition(b"\n")
            # A request line without its end (longer than the segment) is accepted without a check.
            if not newline or parse_start(line) is not None:
                return TO_SERVER
        return None

    def __init__(
        self,
        connection: Connection,
        *,
        wants_body: WantsBody | None = None,
        body_limit: int = BODY_LIMIT,
        raw: bool = False,
        upgrade: Upgrade | None = None,
    ) -> None:
        # A gap before the first recognised bytes has the same effect as a late start of the capture.
        joined = connection.joined or connection.gaps > 0
        self._connection = connection
        self._wants_body = wants_body
        self._body_limit = body_limit
        self._raw = raw
        self._upgrade = upgrade
        self._next: _Next | None = None
        """The decoder that goes on behind an upgrade."""
        self._streams = (Stream(TO_SERVER, joined), Stream(TO_CLIENT, joined))
        self._exchanges = Exchanges(joined)
        self._opaque = False
        """Nothing that follows is HTTP/1: TLS, HTTP/2, an upgrade, a tunnel."""
        self._complained = False
        """An `Undecoded` for garbage was emitted; one for a connection is enough."""
        self._out: list[Message] = []
        """Messages of the current call."""
        self._held: list[Message] = []
        """Responses that wait for the end of their request's body."""

    # --- what comes in ---

    def receive(self, data: Data) -> Iterable[Message]:
        """Return the messages that *data*, the next bytes of its direction, completes."""
        if self._opaque:
            return () if self._next is None else self._next.receive(data)
        out = self._out = []
        stream = self._streams[data.direction]
        stream.mark = Mark(data.time_ns, data.frames)
        payload, at = data.payload, 0
        # One step for each state; a step may replace the payload (by its buffer) and always moves on.
        while at < len(payload) and not self._opaque:
            if stream.state == BODY:
                at = self._body(stream, payload, at)
            elif stream.state == HEAD:
                payload, at = self._head(stream, payload, at)
            elif stream.state == LOST:
                payload, at = self._search(stream, payload, at)
            else:
                payload, at = self._peek(stream, payload, at)
        if self._next is not None and at < len(payload):
            out += self._next.receive(data._replace(payload=payload[at:]))
        return out

    def gap(self, gap: Gap) -> Iterable[Message]:
        """Return the message that the hole ends; a body of known length goes on behind the hole."""
        if self._opaque:
            return () if self._next is None else self._next.gap(gap)
        out = self._out = []
        stream = self._streams[gap.direction]
        self._settle_peek(stream)
        message = stream.message
        if message is not None:
            message.truncated = True
            if message.body.lose(gap.size_bytes):
                if message.body.complete:
                    self._finish(stream, stream.mark)
                return out
            self._finish(stream, stream.mark)
        else:
            self._emit_cut_head(stream)
        if not self._opaque:
            # Gap and last byte have one time: the snap length cut a segment, so no other segment is missing.
            cut = gap.size_bytes > 0 and gap.since_ns == gap.time_ns
            self._lose_step(stream, gap.since_ns, whole=not cut)
        return out

    def closed(self, closed: Closed) -> Iterable[Message]:
        """Return the messages that the end of one direction (fin) or of both completes."""
        if self._opaque:
            return () if self._next is None else self._next.closed(closed)
        out = self._out = []
        for stream in self._streams:
            if closed.how == "fin" and stream.direction != closed.direction:
                continue
            # A FIN or RST that was captured is the evidence of the end; else it is the direction's last data.
            if closed.frames and closed.direction == stream.direction and closed.how in ("fin", "reset"):
                self._end(stream, Mark(closed.time_ns, closed.frames), closed.how)
            else:
                self._end(stream, stream.mark, closed.how)
            if self._opaque:
                break
        return out

    # --- heads ---

    def _head(self, stream: Stream, payload: bytes, at: int) -> tuple[bytes, int]:
        """Collect a head; return the bytes that are left, and the offset in them to continue from."""
        buffer = stream.buffer
        if not buffer:
            # Empty lines before a request line are ignored (RFC 9112 §2.2).
            while payload[at] in b"\r\n":
                at += 1
                if at == len(payload):
                    return payload, at
            if stream.start is None:
                stream.start = stream.mark
            # A head within one segment, which is usual, is parsed without a copy into the buffer.
            end = _end_of_head(payload, at, at + HEAD_LIMIT)
            if end:
                if self._begin(stream, payload[at:end]):
                    return payload, end
                return self._garbage(stream, payload[at:])
        buffer += payload[at:]
        # The end has up to three bytes, so the last two that were searched before may be its beginning.
        end = _end_of_head(buffer, max(0, stream.scanned - 2), HEAD_LIMIT)
        if end:
            # The head was incomplete before, so all bytes behind its end came with this Data.
            rest = bytes(buffer[end:])
            head = bytes(buffer[:end])
            buffer.clear()
            stream.scanned, stream.checked = 0, False
            if self._begin(stream, head):
                return rest, 0
            return self._garbage(stream, head + rest)
        stream.scanned = len(buffer)
        if len(buffer) < HEAD_LIMIT and self._plausible(stream):
            return b"", 0
        return self._garbage(stream, bytes(buffer))

    @staticmethod
    def _plausible(stream: Stream) -> bool:
        """Return whether the incomplete head in the buffer can begin with a start line."""
        if stream.checked:
            return True
        buffer = stream.buffer
        if foreign(bytes(buffer[:3])):
            return False
        end = buffer.find(b"\n")
        if end < 0:
            return True
        stream.checked = parse_start(bytes(buffer[:end])) is not None
        return stream.checked

    def _garbage(self, stream: Stream, rest: bytes) -> tuple[bytes, int]:
        """Report that *rest* is not HTTP/1; search a start line in it, unless it is another protocol."""
        # Only the first bytes of a direction identify a protocol: later ones may be a part of anything.
        if self._upgrade is not None and rest.startswith(H2_PREFACE):
            # The answer that agrees to HTTP/2 is missing, or comes late.
            late = None if stream.fresh else self._exchanges.response(stream.mark.time_ns)
            self._go_on(self._upgrade, late)
            return rest, 0
        reason = foreign(rest) if stream.fresh else None
        if reason is not None:
            self._stop(stream, reason)
            return b"", 0
        self._complain(stream)
        self._lose_step(stream, stream.mark.time_ns)
        # The search begins one byte further on, since no start line begins here.
        stream.fresh = False
        return rest[1:], 0

    def _complain(self, stream: Stream) -> None:
        if not self._complained:
            self._complained = True
            mark = stream.start or stream.mark
            self._out.append(Undecoded(self._connection, mark.time_ns, "garbage", mark.frames))

    def _begin(self, stream: Stream, raw: bytes, cut: bool = False) -> bool:
        """Begin the message of the head *raw*; return False if it is not a head.

        *cut*: its last header lines are missing, so the message ends with it.
        """
        head = parse_head(raw)
        if head is None:
            return False
        start, stream.start = stream.start or stream.mark, None
        stream.fresh = False
        if head.status == 0:
            stream.responses = False
            number = self._exchanges.request(start.time_ns, head.method, head.target)
            message = MessageUnderWay(head, start, stream.mark, number, head.method)
            self._frame(message, head.target)
        else:
            stream.responses = True
            # Interim responses precede the final one (RFC 9110 §15.2). Behind a 101 there is no other.
            if 100 <= head.status < 200 and head.status != 101:
                return True
            answered = self._exchanges.response(start.time_ns)
            self._answer_early(stream, answered.exchange)
            if head.status == 101 and self._upgrade is not None and _is_http2(head):
                # The answer to the request itself follows in HTTP/2.
                self._go_on(self._upgrade, answered)
                return True
            message = MessageUnderWay(head, start, stream.mark, answered.exchange, answered.method)
            self._frame(message, answered.target)
        stream.message = message
        if self._raw:
            message.raw = raw
        if cut:
            message.truncated = True
            message.keep = 0
            self._finish(stream, stream.mark)
        elif message.body.complete:
            self._finish(stream, stream.mark)
        elif not message.request_method:
            # The request is unknown. If it was a HEAD, no body follows although a length is declared.
            stream.state = PEEK
        else:
            stream.state = BODY
            # A request with a long body that is not wanted is emitted at once.
            if head.status == 0 and not message.waits:
                self._emit_request(stream, message)
        return True

    def _frame(self, message: MessageUnderWay, target: str) -> None:
        """Determine the length of a body and whether it is kept; *target* is that of the request."""
        head = message.head
        if head.status:
            framing, size = response_framing(head.headers, head.status, message.request_method)
        else:
            framing, size = request_framing(head.headers)
        if (size or framing != LENGTH) and self._wants(message.request_method, target, head):
            message.keep = self._body_limit
        message.body = Body(framing, size, message.keep)

    def _wants(self, method: str, target: str, head: Head) -> bool:
        return self._wants_body is None or self._wants_body(method, target, head.headers, head.status)

    def _answer_early(self, stream: Stream, exchange: int) -> None:
        """Handle a response that begins before the end of its request's body."""
        request = self._unanswered(stream, exchange)
        if request is None:
            return
        if request.body.received == 0 and "100-continue" in request.head.headers.get("expect", "").lower():
            # The server refuses in place of 100 Continue, so the client may omit the body (RFC 9110 §10.1.1).
            other = self._streams[1 - stream.direction]
            self._cut_request(other, request)
            other.state = PEEK

    def _unanswered(self, stream: Stream, exchange: int) -> MessageUnderWay | None:
        """Return the request of *exchange* if its body has not ended; else None."""
        request = self._streams[1 - stream.direction].message
        if request is None or request.exchange != exchange or not request.is_request:
            return None
        return request

    def _cut_request(self, stream: Stream, request: MessageUnderWay) -> None:
        """Emit a request whose body will not be completed."""
        if not request.emitted:
            request.truncated = request.truncated or request.keep > 0
            request.end = stream.mark
            self._emit_request(stream, request)

    # --- bodies ---

    def _body(self, stream: Stream, payload: bytes, at: int) -> int:
        message = stream.message
        assert message is not None  # noqa: S101 - BODY always has one; mypy cannot know
        at = message.body.feed(payload, at)
        if message.body.complete:
            self._finish(stream, stream.mark)
        elif message.body.broken:
            message.truncated = True
            self._finish(stream, stream.mark)
            if not self._opaque:
                self._lose_step(stream, stream.mark.time_ns)
        return at

    def _peek(self, stream: Stream, payload: bytes, at: int) -> tuple[bytes, int]:
        """Decide whether a body follows: it does unless the next bytes begin another message.

        A response to an unseen HEAD request declares a length and has no body.
        """
        stream.buffer += payload[at:]
        # 16 bytes are longer than each start that is compared.
        begun = bytes(stream.buffer[:16])
        follows = begins_with(begun, _RESPONSE_STARTS if stream.responses else _METHOD_STARTS)
        if follows is None:
            return b"", 0
        rest = bytes(stream.buffer)
        stream.buffer.clear()
        if follows and stream.message is not None:
            self._finish(stream, stream.message.end)
        else:
            stream.state = BODY
        return rest, 0

    def _settle_peek(self, stream: Stream) -> None:
        """Treat the bytes in the buffer as the start of a body: no further bytes can decide it."""
        if stream.state == PEEK and stream.message is not None:
            rest = bytes(stream.buffer)
            stream.buffer.clear()
            stream.state = BODY
            stream.message.body.feed(rest, 0)

    # --- out of step ---

    def _search(self, stream: Stream, payload: bytes, at: int) -> tuple[bytes, int]:
        """Search the next start line."""
        buffer = stream.buffer
        stream.marks.append((len(buffer), stream.mark))
        buffer += payload[at:]
        if stream.fresh and len(buffer) >= 3:
            reason = foreign(bytes(buffer[:16]))
            if reason is not None:
                self._stop(stream, reason)
                return b"", 0
            stream.fresh = False
        found, stream.scanned = find_start(buffer, stream.scanned)
        if found < 0:
            stream.trim()
            return b"", 0
        return self._found(stream, found), 0

    def _found(self, stream: Stream, offset: int) -> bytes:
        """Be in step again at *offset* of the buffer; return the bytes from there on."""
        rest = bytes(stream.buffer[offset:])
        # The mark of the Data that holds the offset.
        at = bisect_right(stream.marks, offset, key=lambda mark: mark[0]) - 1
        start = stream.marks[at][1] if at >= 0 else stream.mark
        stream.reset(HEAD)
        stream.start = start
        return rest

    def _lose_step(self, stream: Stream, since_ns: int, whole: bool = True) -> None:
        """Be out of step, and report to `Exchanges` that messages may be missing.

        *whole*: whole messages may be missing. False if the snap length cut one segment.
        """
        stream.reset(LOST)
        self._exchanges.lose(stream.responses, since_ns, whole)

    def _emit_cut_head(self, stream: Stream) -> None:
        """Emit the message whose head breaks off, if its start line is complete."""
        if stream.state == LOST and stream.buffer:
            found, _ = find_start(stream.buffer, 0, final=True)
            if found < 0:
                return
            stream.buffer[:] = self._found(stream, found)
        if stream.state == HEAD and stream.buffer:
            raw = bytes(stream.buffer)
            # Up to the last complete line.
            end = raw.rfind(b"\n") + 1
            stream.buffer.clear()
            if end:
                self._begin(stream, raw[:end], cut=True)

    # --- what goes out ---

    def _finish(self, stream: Stream, end: Mark) -> None:
        """Emit the message of *stream* and expect the next one."""
        message = stream.message
        stream.reset(HEAD)
        if message is None:
            return
        message.end = end
        if message.is_request:
            if not message.emitted:
                self._emit_request(stream, message)
            return
        head = message.head
        request = self._unanswered(stream, message.exchange)
        # A mirror port may show the response before the end of its request.
        out = self._out if request is None or request.emitted else self._held
        out.append(
            HttpResponse(
                self._connection,
                message.exchange,
                message.start.time_ns,
                end.time_ns,
                message.frames(),
                head.status,
                head.reason,
                head.headers,
                message.content(),
                message.truncated,
                message.raw,
            )
        )
        if head.status == 101:
            protocol = head.headers.get("upgrade", "").lower()
            self._stop(stream, {"websocket": "websocket", _H2C: "http2"}.get(protocol, "upgraded"))
        elif message.request_method == "CONNECT" and 200 <= head.status < 300:
            self._stop(stream, "tunnel")

    def _emit_request(self, stream: Stream, message: MessageUnderWay) -> None:
        head = message.head
        message.emitted = True
        self._out.append(
            HttpRequest(
                self._connection,
                message.exchange,
                message.start.time_ns,
                message.end.time_ns,
                message.frames(),
                head.method,
                head.target,
                head.headers,
                message.content(),
                message.truncated,
                stream.direction,
                message.raw,
            )
        )
        if self._held:
            self._out += self._held
            self._held.clear()

    def _stop(self, stream: Stream, reason: str) -> None:
        """Stop decoding: no later byte of this connection is HTTP/1."""
        self._leave()
        self._out.append(Undecoded(self._connection, stream.mark.time_ns, reason, stream.mark.frames))

    def _go_on(self, upgrade: Upgrade, request: Open | None) -> None:
        """Hand the connection over to the decoder of HTTP/2, whose first stream answers *request*."""
        self._leave()
        asked = (request.exchange, request.method, request.target) if request is not None else None
        self._next = upgrade(self._connection, asked)

    def _leave(self) -> None:
        for side in self._streams:
            if side.message is not None and side.message.is_request:
                self._cut_request(side, side.message)
        self._opaque = True
        for side in self._streams:
            side.reset(LOST)

    def _end(self, stream: Stream, mark: Mark, how: str) -> None:
        """Emit the unfinished message of a direction that has ended."""
        if stream.state == HEAD and stream.message is None and stream.start is None and not stream.buffer:
            return
        self._settle_peek(stream)
        message = stream.message
        if message is None:
            # A few first bytes that never became a head: report them if they cannot begin one.
            begun = bytes(stream.buffer[:64]) if stream.fresh and stream.state == HEAD else b""
            self._emit_cut_head(stream)
            if begun and not (_REQUEST.match(begun) or _RESPONSE.match(begun)):
                self._complain(stream)
        else:
            # Only a FIN ends a body that lasts until the close; a reset may cut it (RFC 9112 §8).
            whole = message.body.framing == UNTIL_CLOSE and how == "fin"
            message.truncated = message.truncated or not (whole or message.body.ended)
            self._finish(stream, mark)
        if not self._opaque:
            stream.reset(HEAD)
