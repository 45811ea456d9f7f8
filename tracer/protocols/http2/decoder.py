"""Decoder of HTTP/2: bytes of one connection -> the messages of its streams, as those of HTTP/1.

Strategy. Each direction is a row of frames, and each stream one exchange. The content of DATA is handed on
as it arrives; other frames are small, and read when they are whole. A hole inside the content of DATA is
skipped. Behind any other hole the next frame is searched; the messages under way end, flagged as truncated,
and entries of the header table from before it are unknown from then on (`fields`).

Flow control, priorities and pushed responses are passed over.

Source: RFC 9113; RFC 7540 §3.2 (upgrade from HTTP/1.1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar

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
from tracer.protocols.http1.body import UNTIL_CLOSE, Body
from tracer.protocols.http1.head import VALUE_LIMIT, Head, read_fields, without_secrets
from tracer.protocols.http1.stream import Mark, MessageUnderWay
from tracer.protocols.http2 import frames
from tracer.protocols.http2.fields import UNKNOWN, Fields
from tracer.protocols.http2.frames import FrameHead
from tracer.protocols.http2.streams import Block, Exchange, Side

__all__ = ["Http2"]

WantsBody = Callable[[str, str, dict[str, str], int], bool]
"""(method, target, headers, status; 0 for the request) -> keep the body?"""

BODY_LIMIT = 256 << 10
"""Bytes of a body that are kept, before decompression."""
BODIES_LIMIT = 4 << 20
"""Bytes of all bodies of one connection that are kept while they arrive."""
HEAD_LIMIT = 65_536
"""Bytes of a frame that is not DATA, and of a header block in several frames."""
MOST_STREAMS = 1_024
"""Exchanges under way; servers allow 100 to 250 by default."""


class Http2:
    """Decoder of one HTTP/2 connection.

    *wants_body*, *body_limit* and *raw* are as those of `Http1`; a raw head is written as HTTP/1.1 would be.
    *upgraded* is (exchange, method, target) of the HTTP/1.1 request that asked for HTTP/2; stream 1 has its
    answer.

    What only an unknown entry of the header table tells is method '?', target '' or status 0, and the message
    is truncated.
    """

    name: ClassVar[str] = "http2"

    @staticmethod
    def recognises(payload: bytes, direction: int) -> int | None:
        """Return the direction in which *payload*, the first bytes, travels; None if it is not HTTP/2."""
        # Cut after 3 bytes or more: no other protocol has a method PRI.
        if payload.startswith(frames.PREFACE) or (len(payload) > 2 and frames.PREFACE.startswith(payload)):
            return TO_SERVER
        return direction if frames.begins_connection(payload) else None

    def __init__(
        self,
        connection: Connection,
        *,
        wants_body: WantsBody | None = None,
        body_limit: int = BODY_LIMIT,
        raw: bool = False,
        upgraded: tuple[int, str, str] | None = None,
    ) -> None:
        # A gap before the first recognised bytes has the same effect as a late start of the capture.
        joined = upgraded is None and (connection.joined or connection.gaps > 0)
        self._connection = connection
        self._wants_body = wants_body
        self._body_limit = body_limit
        self._raw = raw
        self._sides = (Side(TO_SERVER, joined), Side(TO_CLIENT, joined))
        self._streams: dict[int, Exchange] = {}
        self._first = 0
        """Added to the number of a stream, it makes the number of its exchange."""
        self._kept = 0
        """Bytes of bodies that are kept for messages under way."""
        self._complaints: set[str] = set()
        """Reasons of the `Undecoded` that were emitted; one of each is enough."""
        self._out: list[Message] = []
        """Messages of the current call."""
        if upgraded is not None:
            exchange = self._streams[1] = Exchange()
            number, exchange.method, exchange.target = upgraded
            exchange.asked = True
            self._first = number - 1

    # --- what comes in ---

    def receive(self, data: Data) -> Iterable[Message]:
        """Return the messages that *data*, the next bytes of its direction, completes."""
        out = self._out = []
        side = self._sides[data.direction]
        side.mark = Mark(data.time_ns, data.frames)
        payload, at = data.payload, 0
        if side.fresh:
            payload = self._begin(side, payload)
        while at < len(payload):
            if side.in_data:
                at = self._data(side, payload, at)
            elif side.lost:
                payload, at = self._search(side, payload, at)
            else:
                payload, at = self._frame(side, payload, at)
        return out

    def gap(self, gap: Gap) -> Iterable[Message]:
        """Return the messages that the hole ends; one inside of DATA goes on behind the hole."""
        out = self._out = []
        side = self._sides[gap.direction]
        side.fresh = False
        if side.in_data and 0 < gap.size_bytes <= side.left + side.padding:
            message = self._receiver(side)
            content = min(gap.size_bytes, side.left)
            if message is not None and content:
                message.truncated = True
                message.body.lose(content)
            side.left -= content
            side.padding -= gap.size_bytes - content
            if not side.left and not side.padding:
                self._data_end(side)
            return out
        self._lose(side)
        return out

    def closed(self, closed: Closed) -> Iterable[Message]:
        """Return the unfinished messages of a direction that ends (fin), or of both, as truncated."""
        out = self._out = []
        for side in self._sides:
            if closed.how == "fin" and side.direction != closed.direction:
                continue
            self._cut(side)
            side.buffer.clear()
        return out

    # --- frames ---

    def _begin(self, side: Side, payload: bytes) -> bytes:
        """Read the preface of the client; return the bytes behind it."""
        if side.direction == TO_CLIENT:
            side.fresh = False
            return payload
        begun = bytes(side.buffer) + payload
        if begun.startswith(frames.PREFACE):
            # The connection begins here, whatever the capture lacks before.
            for each in self._sides:
                if not each.buffer or each is side:
                    each.step()
                    each.start = None
                    # Behind an upgrade the server may have answered already.
                    each.fields = each.fields if each.highest else Fields(joined=False)
            return begun[len(frames.PREFACE) :]
        if frames.PREFACE.startswith(begun):
            side.keep(payload, len(frames.PREFACE))
            return b""
        side.fresh = False
        side.buffer.clear()
        return begun

    def _frame(self, side: Side, payload: bytes, at: int) -> tuple[bytes, int]:
        """Read one frame, or the head of DATA; return the bytes that are left, and the offset in them."""
        if side.buffer:
            side.buffer += payload[at:]
            if len(side.buffer) < side.needed:
                return b"", 0
            payload, at = bytes(side.buffer), 0
            side.buffer.clear()
        rest = len(payload) - at
        if rest < frames.HEAD_BYTES:
            side.keep(payload[at:], frames.HEAD_BYTES)
            return b"", 0
        head = frames.read_head(payload, at)
        is_data = head.kind == frames.DATA
        if not frames.is_possible(head) or (not is_data and head.size > HEAD_LIMIT):
            self._complain(side, "garbage")
            self._lose(side)
            return payload, at + 1
        padded = is_data and head.flags & frames.PADDED
        needed = frames.HEAD_BYTES + (bool(padded) if is_data else head.size)
        if rest < needed:
            side.keep(payload[at:], needed)
            return b"", 0
        content = at + frames.HEAD_BYTES
        if is_data:
            self._data_begin(side, head, payload[content] if padded else -1)
        else:
            self._control(side, head, payload[content : at + needed])
        side.start = None
        return payload, at + needed

    def _search(self, side: Side, payload: bytes, at: int) -> tuple[bytes, int]:
        """Search the head of a frame."""
        side.marks.append((len(side.buffer), side.mark))
        side.buffer += payload[at:]
        found, side.scanned = frames.find_frame(side.buffer, side.scanned)
        if found < 0:
            side.drop_scanned()
            return b"", 0
        rest = bytes(side.buffer[found:])
        start = side.mark_at(found)
        side.step()
        side.start = start
        return rest, 0

    def _control(self, side: Side, head: FrameHead, payload: bytes) -> None:
        block = side.block
        if block is not None or head.kind == frames.CONTINUATION:
            # Nothing may come between the frames of a block (§6.10).
            if block is None or head.kind != frames.CONTINUATION or head.stream != block.stream:
                side.block = None
                side.fields.lose()
            else:
                block.parts += payload
                self._block_grown(side, block, head.flags)
                return
        if head.kind in (frames.HEADERS, frames.PUSH_PROMISE):
            content = frames.without_padding(head.flags, payload)
            promise = head.kind == frames.PUSH_PROMISE
            # Before the block stands the stream that is promised, or the priority.
            skipped = 4 if promise else 5 if head.flags & frames.PRIORITY else 0
            if content is None or len(content) < skipped:
                side.fields.lose()
                return
            ends = not promise and bool(head.flags & frames.END_STREAM)
            side.block = block = Block(head.stream, ends, promise, side.start or side.mark)
            block.parts += content[skipped:]
            self._block_grown(side, block, head.flags)
        elif head.kind == frames.RST_STREAM:
            self._drop(head.stream)
        elif head.kind == frames.GOAWAY and side.direction == TO_CLIENT:
            # Later streams were not looked at, and will not be (§6.8).
            last = int.from_bytes(payload[:4], "big") & 0x7FFFFFFF
            for stream in [stream for stream in self._streams if stream > last]:
                self._drop(stream)

    def _block_grown(self, side: Side, block: Block, flags: int) -> None:
        """Read the header block if it is whole."""
        if len(block.parts) > HEAD_LIMIT:
            side.block = None
            side.fields.lose()
            self._complain(side, "headers too long")
        elif flags & frames.END_HEADERS:
            side.block = None
            self._block(side, block)

    # --- heads ---

    def _block(self, side: Side, block: Block) -> None:
        fields = side.fields.decode(bytes(block.parts))
        # Clients have the odd streams; even ones are pushed.
        if block.promise or not block.stream % 2:
            return
        if fields is None:
            self._complain(side, "garbage")
            fields = [(UNKNOWN, UNKNOWN)]
        known = {name: value for name, value in fields if name.startswith(b":") and value != UNKNOWN}
        pseudo = {name.decode("latin-1"): value.decode("latin-1") for name, value in known.items()}
        headers = read_fields(
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in fields
            if not name.startswith(b":") and UNKNOWN not in (name, value)
        )
        block.fields = fields
        block.unsure = any(UNKNOWN in field for field in fields)
        block.start = Mark(block.start.time_ns, side.mark.frames)
        if side.direction == TO_SERVER:
            self._request(side, block, pseudo, headers)
        else:
            self._response(side, block, pseudo, headers)
        side.highest = max(side.highest, block.stream)

    def _request(self, side: Side, block: Block, pseudo: dict[str, str], headers: dict[str, str]) -> None:
        exchange = self._streams.get(block.stream)
        if (exchange is not None and exchange.asked) or (
            # Trailers of a request that was not seen; the streams of requests count upwards (§5.1.1).
            not pseudo and (not block.unsure or block.stream <= side.highest)
        ):
            self._trailers(side, exchange, block)
            return
        if exchange is None:
            exchange = self._stream(block.stream)
        method = pseudo.get(":method", "?")
        written = pseudo.get(":authority" if method == "CONNECT" else ":path", "")
        target = without_secrets(written)
        if ":authority" in pseudo:
            headers.setdefault("host", pseudo[":authority"][:VALUE_LIMIT])
        exchange.asked = True
        exchange.method, exchange.target = method, target
        message = MessageUnderWay(
            Head(method, target, 0, "", headers), block.start, side.mark, self._first + block.stream, method
        )
        message.truncated = block.unsure
        if method == "?" or not target:
            message.truncated = True
            self._complain(side, "headers unknown")
        self._under_way(message, method, target)
        if self._raw:
            message.raw = _as_http1(f"{method} {written} HTTP/1.1", block.fields)
        exchange.request = message
        if block.ends:
            self._finish_request(block.stream, exchange)
        elif not message.keep:
            self._emit_request(exchange, message)

    def _response(self, side: Side, block: Block, pseudo: dict[str, str], headers: dict[str, str]) -> None:
        exchange = self._streams.get(block.stream)
        written = pseudo.get(":status", "")
        status = int(written) if len(written) == 3 and written.isascii() and written.isdigit() else 0
        if (exchange is None and not status) or (exchange is not None and exchange.answered):
            if exchange is None and block.unsure:
                self._complain(side, "headers unknown")
            self._trailers(side, exchange, block)
            return
        if 100 <= status < 200:
            return
        if exchange is None:
            exchange = self._stream(block.stream)
        exchange.answered = True
        message = MessageUnderWay(
            Head("", "", status, "", headers),
            block.start,
            side.mark,
            self._first + block.stream,
            exchange.method,
        )
        message.truncated = block.unsure or not status
        if not status:
            self._complain(side, "headers unknown")
        self._under_way(message, exchange.method, exchange.target)
        if self._raw:
            message.raw = _as_http1(f"HTTP/1.1 {status}", block.fields)
        exchange.response = message
        if block.ends:
            self._finish_response(block.stream, exchange)

    def _under_way(self, message: MessageUnderWay, method: str, target: str) -> None:
        """Decide whether the body is kept; *method* and *target* are those of the request."""
        head = message.head
        if self._wants_body is None or self._wants_body(method, target, head.headers, head.status):
            message.keep = self._body_limit
        message.body = Body(UNTIL_CLOSE, 0, message.keep)

    def _trailers(self, side: Side, exchange: Exchange | None, block: Block) -> None:
        """Pass over a block behind the content, which may end its message."""
        if exchange is not None and block.ends:
            self._end_of_stream(side, block.stream, exchange)

    # --- content ---

    def _data_begin(self, side: Side, head: FrameHead, padding: int) -> None:
        """Begin the payload of DATA; *padding* is -1 without the byte that says how much there is."""
        if side.block is not None:
            side.block = None
            side.fields.lose()
        side.in_data = True
        side.data_stream = head.stream
        side.data_ends = bool(head.flags & frames.END_STREAM)
        size = head.size - (padding >= 0)
        side.padding = min(max(padding, 0), size)
        side.left = size - side.padding
        if not size:
            self._data_end(side)

    def _receiver(self, side: Side) -> MessageUnderWay | None:
        """Return the message whose content the DATA of *side* is."""
        exchange = self._streams.get(side.data_stream)
        if exchange is None:
            return None
        return exchange.request if side.direction == TO_SERVER else exchange.response

    def _data(self, side: Side, payload: bytes, at: int) -> int:
        content = min(side.left, len(payload) - at)
        if content:
            message = self._receiver(side)
            if message is not None:
                self._content(side, message, payload, at, content)
            side.left -= content
            at += content
        padding = min(side.padding, len(payload) - at)
        side.padding -= padding
        if not side.left and not side.padding:
            self._data_end(side)
        return at + padding

    def _content(self, side: Side, message: MessageUnderWay, payload: bytes, at: int, size: int) -> None:
        message.end = side.mark
        room = min(size, self._body_limit - message.body.received) if message.keep else 0
        if room > 0:
            if self._kept + room > BODIES_LIMIT:
                message.truncated = True
            else:
                self._kept += room
                message.body.feed(payload[at : at + room], 0)
                size -= room
        message.body.received += size

    def _data_end(self, side: Side) -> None:
        side.in_data = False
        exchange = self._streams.get(side.data_stream)
        if side.data_ends and exchange is not None:
            self._end_of_stream(side, side.data_stream, exchange)

    def _end_of_stream(self, side: Side, stream: int, exchange: Exchange) -> None:
        """Finish the message of *exchange* in the direction of *side*: END_STREAM was seen."""
        if side.direction == TO_SERVER:
            if exchange.request is not None:
                exchange.request.end = side.mark
                self._finish_request(stream, exchange)
        elif exchange.response is not None:
            exchange.response.end = side.mark
            self._finish_response(stream, exchange)

    # --- ends ---

    def _stream(self, number: int) -> Exchange:
        """Return a new exchange; of too many, the oldest ends."""
        if len(self._streams) >= MOST_STREAMS:
            self._drop(next(iter(self._streams)))
        exchange = self._streams[number] = Exchange()
        return exchange

    def _drop(self, stream: int) -> None:
        """End the exchange of *stream*: what is under way of it will not be complete."""
        exchange = self._streams.pop(stream, None)
        if exchange is None:
            return
        for message in (exchange.request, exchange.response):
            if message is not None:
                message.truncated = True
        self._finish_request(stream, exchange)
        if exchange.response is not None:
            self._finish_response(stream, exchange)

    def _cut(self, side: Side) -> None:
        """End the messages under way of a direction: more of it may be missing, or none will come."""
        for stream, exchange in list(self._streams.items()):
            message = exchange.request if side.direction == TO_SERVER else exchange.response
            if message is None:
                continue
            message.truncated = True
            if side.direction == TO_SERVER:
                self._finish_request(stream, exchange)
            else:
                self._finish_response(stream, exchange)

    def _lose(self, side: Side) -> None:
        """Be out of step: heads of messages may be missing, and with them entries of the header table."""
        self._cut(side)
        side.lose()

    def _complain(self, side: Side, what: str) -> None:
        reason = f"http2 {what}"
        if reason not in self._complaints:
            self._complaints.add(reason)
            self._out.append(Undecoded(self._connection, side.mark.time_ns, reason, side.mark.frames))

    # --- what goes out ---

    def _finish_request(self, stream: int, exchange: Exchange) -> None:
        """Emit the request unless that was done, then the response that waited for it."""
        message, exchange.request = exchange.request, None
        if message is not None:
            if not message.emitted:
                self._emit_request(exchange, message)
            self._release(message)
        if exchange.held is not None:
            self._out.append(exchange.held)
            exchange.held = None
        if exchange.answered and exchange.response is None:
            self._streams.pop(stream, None)

    def _emit_request(self, exchange: Exchange, message: MessageUnderWay) -> None:
        head = message.head
        message.emitted = True
        self._out.append(
            HttpRequest(
                self._connection,
                message.exchange,
                message.start.time_ns,
                message.end.time_ns,
                _frames(message),
                head.method,
                head.target,
                head.headers,
                message.content(),
                message.truncated,
                TO_SERVER,
                message.raw,
            )
        )

    def _finish_response(self, stream: int, exchange: Exchange) -> None:
        """Emit the response, behind its request."""
        message, exchange.response = exchange.response, None
        if message is None:
            return
        head = message.head
        response = HttpResponse(
            self._connection,
            message.exchange,
            message.start.time_ns,
            message.end.time_ns,
            _frames(message),
            head.status,
            head.reason,
            head.headers,
            message.content(),
            message.truncated,
            message.raw,
        )
        self._release(message)
        request = exchange.request
        if request is None:
            self._streams.pop(stream, None)
        elif not request.emitted:
            # A mirror port may show the response before the end of its request.
            exchange.held = response
            return
        self._out.append(response)

    def _release(self, message: MessageUnderWay) -> None:
        """Count the body of *message* no more among those that are kept."""
        if message.keep:
            self._kept = max(0, self._kept - message.body.kept_bytes)


def _frames(message: MessageUnderWay) -> tuple[tuple[int, int], ...]:
    """Return the frame of its HEADERS, where Wireshark shows it, then that of its end."""
    start, end = message.start.frames, message.end.frames
    return start if start == end else start + end


def _as_http1(line: str, fields: list[tuple[bytes, bytes]]) -> bytes:
    """Return a head in the words of HTTP/1.1, secrets and all."""
    lines = [line.encode("latin-1", "replace")]
    for name, value in fields:
        if name == b":authority":
            lines.append(b"host: " + value)
        elif not name.startswith(b":") and UNKNOWN not in (name, value):
            lines.append(name + b": " + value)
    return b"\r\n".join([*lines, b"", b""])
