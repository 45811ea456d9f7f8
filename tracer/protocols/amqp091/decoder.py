"""Decoder of AMQP 0-9-1: bytes of one connection -> methods and contents.

Strategy. Each direction is read by itself. It is *in step* while the reader knows where frames begin. Then
the stream is a sequence of frames:

    type:1  channel:2  size:4  payload  0xCE           (specification section 4.2.3)

A content is the method, header and body frames of one channel; frames of other channels may lie between them.

It is *out of step* if it began before the capture, behind a hole, and after damage. Then the reader searches
for the head of a *method* frame with a known class and method, with a frame end where its size says, followed
by what may be another frame. A heartbeat, eight fixed bytes, is accepted as well. Messages need not start at
the start of a segment, so all bytes are searched. The search must not wait long, so a size above the
negotiated maximum counts as damage.

A hole inside a frame costs that frame only: its size is known, so the start of the next frame is known, too.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import ClassVar

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    AmqpContent,
    AmqpMethod,
    Closed,
    Connection,
    Data,
    Gap,
    Message,
    Undecoded,
)
from tracer.protocols.amqp091.methods import (
    CLIENT,
    METHOD_HEAD,
    METHODS,
    SERVER,
    properties_of,
)
from tracer.protocols.amqp091.stream import (
    BODY,
    FRAME_END,
    HEAD,
    HEADER,
    HEARTBEAT,
    KINDS,
    METHOD,
    Content,
    Direction,
    Mark,
    evidence,
    may_be_frame,
)

__all__ = ["Amqp091"]

_HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"
_IN_STEP = re.compile(METHOD_HEAD.pattern + b"|" + re.escape(_HEARTBEAT_FRAME), re.DOTALL)
"""The head of a method frame, or a heartbeat."""
_METHOD_ID = struct.Struct(">HH")
_BODY_SIZE = struct.Struct(">Q")

DEFAULT_FRAME_MAX = 131_072
"""What RabbitMQ proposes and clients accept."""
_FRAME_MAX_BOUNDS = (4_096, 16 << 20)
"""4096 is the specification's frame-min-size. 16 MiB is ours: a frame is buffered whole."""
BODY_LIMIT = 256 << 10
"""Bytes of a body that are kept."""
_MOST_PENDING = 64
"""Limit of unfinished contents in one direction. There are one or two, since clients write a content at once;
the limit is for hostile streams, in which each channel could hold a body."""
_GREETING = b"AMQP\x00\x00\x09\x01"
"""The protocol header (section 4.2.2)."""
_HOLE = b"\x00"
"""Replaces bytes of a body that are not in the capture. JSON and ids hold no NUL, so the bytes before and
behind a hole are never read as one value."""


class Amqp091:
    """Decoder of one connection.

    *body_limit* bytes of a body are kept; `AmqpContent.body_bytes` has its full size. With *raw*, messages
    also hold the payloads of their method and header frames, and basic.qos becomes a message, too.
    """

    name: ClassVar[str] = "amqp091"

    @staticmethod
    def recognises(payload: bytes, direction: int) -> int | None:
        """Return the direction in which *payload* travels, by its content; None if it is not AMQP.

        The first byte of *payload* must be that of the protocol header or of a frame. Frames that both ends
        may send (a heartbeat, a body) give *direction* back.
        """
        if payload[:4] == b"AMQP":
            return TO_SERVER
        at, seen = 0, False
        # Frame by frame, until a method shows which end sends it.
        while at + 8 <= len(payload):
            kind, _, size = HEAD.unpack_from(payload, at)
            stop = at + 7 + size
            if not may_be_frame(payload, at, DEFAULT_FRAME_MAX):
                break
            if kind == METHOD:
                if not METHOD_HEAD.match(payload, at):
                    break
                sender = METHODS[_METHOD_ID.unpack_from(payload, at + 7)].sender
                if sender == CLIENT:
                    return TO_SERVER
                if sender == SERVER:
                    return TO_CLIENT
            elif stop >= len(payload):
                # A header or body frame without its end is too weak a sign: any bytes look like one.
                break
            seen, at = True, stop + 1
        return direction if seen else None

    def __init__(self, connection: Connection, *, body_limit: int = BODY_LIMIT, raw: bool = False) -> None:
        self._connection = connection
        self._body_limit = body_limit
        self._raw = raw
        self._frame_max = DEFAULT_FRAME_MAX
        self._directions = (
            Direction(TO_SERVER, connection.joined),
            Direction(TO_CLIENT, connection.joined),
        )
        self._ignored = False
        """The connection was given up: TLS, or another version."""
        self._understood = False
        """At least one frame was read."""
        self._first: Mark | None = None
        """Where the connection's first bytes were seen."""

    # --- what arrives -------------------------------------------------------------------------

    def receive(self, data: Data) -> Iterable[Message]:
        """Return the messages that *data* completes."""
        if self._ignored:
            return ()
        stream = self._directions[data.direction]
        stream.last = (stream.offset + len(stream.buffer), data.time_ns, data.frames)
        stream.marks.append(stream.last)
        # With nothing buffered, which is usual, the payload is read in place and not copied.
        if stream.buffer:
            stream.buffer += data.payload
            return self._read(stream, stream.buffer)
        return self._read(stream, data.payload)

    def gap(self, gap: Gap) -> Iterable[Message]:
        """Return the messages that the hole ends.

        A hole inside a frame with a known end is skipped. Behind any other hole the direction is out of step,
        and its unfinished contents are returned as truncated.
        """
        if self._ignored:
            return ()
        stream = self._directions[gap.direction]
        stream.fresh = False
        messages: list[Message] = []
        # Out of step, the search may wait for the end of what looks like a frame. It will not come, so the
        # bytes behind that place are searched now.
        if stream.lost:
            messages += self._read(stream, stream.buffer, final=True)
        if not stream.lost and self._bridge(stream, gap.size_bytes):
            messages += self._read(stream, stream.buffer)
            return messages
        self._break_off(stream, messages)
        stream.offset += gap.size_bytes
        return messages

    def closed(self, closed: Closed) -> Iterable[Message]:
        """Return the unfinished contents as truncated, and an `Undecoded` if no frame was ever read."""
        if self._ignored:
            return ()
        messages: list[Message] = []
        heard_ns = self._directions[TO_SERVER].last[1]
        self._connection.quiet_ns = closed.time_ns - heard_ns if heard_ns else 0
        for direction, stream in enumerate(self._directions):
            if stream.ended or (closed.how == "fin" and direction != closed.direction):
                continue
            stream.ended = True
            stream.fresh = False
            if stream.lost:
                # As in `gap`.
                messages += self._read(stream, stream.buffer, final=True)
            self._break_off(stream, messages)
        if self._first and not self._understood and all(stream.ended for stream in self._directions):
            messages.append(self._give_up("garbage", self._first))
        return messages

    # --- frames -------------------------------------------------------------------------------

    def _read(self, stream: Direction, view: bytes | bytearray, *, final: bool = False) -> list[Message]:
        """Read all whole frames of *view* and keep the rest in the stream's buffer.

        *final*: no more bytes follow, so the search passes over what looks like an incomplete frame.
        """
        messages: list[Message] = []
        at = 0
        if stream.fresh:
            at = self._greeting(stream, view, messages)
            if at < 0:
                stream.keep_from(view, 0)
                return messages
        # Search and read take turns until the bytes are used up: reading ends at damage, where the search
        # begins again.
        while True:
            if stream.lost:
                at = self._search(stream, view, at, final)
                if stream.lost:
                    break
            at = self._frames(stream, view, at, messages)
            if not stream.lost:
                break
        stream.keep_from(view, at)
        return messages

    def _frames(self, stream: Direction, view: bytes | bytearray, at: int, messages: list[Message]) -> int:
        """Read frames from *at* on; return the start of the first incomplete frame, or of the next search."""
        end = len(view)
        while at + 7 < end:
            kind, channel, size = HEAD.unpack_from(view, at)
            stop = at + 7 + size
            # Before waiting for the frame's end: a damaged size must not make us buffer.
            if size > self._frame_max or kind not in KINDS or (kind == HEARTBEAT and size):
                return self._lose_step(stream, at, messages)
            if stop >= end:
                break
            if view[stop] != FRAME_END:
                return self._lose_step(stream, at, messages)
            self._understood = True
            # A frame with a hole is the first one of the buffer, so the holes are its own.
            if stream.holes:
                self._partial_frame(stream, stop, messages)
                stream.holes.clear()
            elif kind == METHOD:
                self._method(stream, channel, bytes(view[at + 7 : stop]), at, messages)
            elif kind == HEADER:
                self._header(stream, channel, bytes(view[at + 7 : stop]), messages)
            elif kind == BODY and channel in stream.contents:
                self._body(stream, channel, bytes(view[at + 7 : stop]), size, messages)
            at = stop + 1
        return at

    def _greeting(self, stream: Direction, view: bytes | bytearray, messages: list[Message]) -> int:
        """Read what precedes the first frame; return the offset of the frames, -1 to wait for more bytes.

        A client begins with the protocol header. A server that wants another version answers with its own
        (section 4.2.2). A TLS record begins with its type and a version from 3.0 to 3.4 (RFC 8446 §5.1).
        """
        head = bytes(view[:8])
        if self._first is None and head:
            self._first = stream.marks[0]
        # Wait while the bytes may still become a protocol header, or a TLS record.
        if len(head) < 8 and head[:4] == _GREETING[: len(head[:4])]:
            return -1
        if len(head) < 3 and 0x14 <= head[0] <= 0x17 and head[1:] in (b"", b"\x03"):
            return -1
        stream.fresh = False
        if head == _GREETING:
            # The header stands at the start of a connection, so frames follow even if no SYN was seen.
            self._understood = True
            stream.lost = False
            return 8
        reason = None
        if head[:4] == b"AMQP":
            reason = "amqp 1.0" if head[5:] == b"\x01\x00\x00" else "amqp of another version"
        elif 0x14 <= head[0] <= 0x17 and head[1] == 3 and head[2] <= 4:
            reason = "tls"
        if reason:
            messages.append(self._give_up(reason, stream.marks[0]))
            return len(view)
        return 0

    # --- in step and out of step --------------------------------------------------------------

    def _search(self, stream: Direction, view: bytes | bytearray, at: int, final: bool) -> int:
        """Search a frame from *at* on; return its offset, or the offset where to search again."""
        while found := _IN_STEP.search(view, at):
            at = found.start()
            _, _, size = HEAD.unpack_from(view, at)
            stop = at + 7 + size
            if stop >= len(view):
                if not final:
                    return at
            elif view[stop] == FRAME_END and may_be_frame(view, stop + 1, self._frame_max):
                stream.lost = False
                return at
            at += 1
        # The pattern needs 11 bytes, so a match may begin in the last 10.
        return max(at, len(view) - 10)

    def _lose_step(self, stream: Direction, at: int, messages: list[Message]) -> int:
        """Give up the frame at *at*; return where to search from."""
        stream.lost = True
        if stream.holes:
            # Behind the last hole: its bytes are only placeholders.
            at = stream.holes[-1][1] - 1
            stream.holes.clear()
        self._finish_all(stream, messages)
        return at + 1

    def _bridge(self, stream: Direction, size: int) -> bool:
        """Skip a hole of *size* bytes that ends inside the buffered frame; return whether it does.

        Zeros fill the buffer in place of the missing bytes; `holes` records where, and they are never read.
        """
        buffer = stream.buffer
        if size <= 0 or len(buffer) < 7 or not may_be_frame(buffer, 0, self._frame_max):
            return False
        _, _, frame_size = HEAD.unpack_from(buffer)
        left = 8 + frame_size - len(buffer)
        if size > left:
            return False
        stream.holes.append((len(buffer), len(buffer) + size))
        buffer += bytes(size)
        if size == left:
            # The hole covers the frame end as well.
            buffer[-1] = FRAME_END
        return True

    def _break_off(self, stream: Direction, messages: list[Message]) -> None:
        """Return the unfinished contents, clear the buffer, and be out of step."""
        if not stream.lost and len(stream.buffer) > 7 and stream.contents:
            self._partial_frame(stream, len(stream.buffer), messages)
        stream.lost = True
        stream.holes.clear()
        stream.keep_from(stream.buffer, len(stream.buffer))
        self._finish_all(stream, messages)

    def _partial_frame(self, stream: Direction, stop: int, messages: list[Message]) -> None:
        """Use the captured bytes of the frame at the start of the buffer, up to *stop*."""
        kind, channel, size = HEAD.unpack_from(stream.buffer)
        content = stream.contents.get(channel)
        # Without a content in progress nothing of the frame is of use: a method needs all of its bytes.
        if content is None:
            return
        stop = min(stop, 7 + size)
        pieces, at = [], 7
        for hole_start, hole_end in stream.holes:
            pieces.append(bytes(stream.buffer[at:hole_start]))
            at = hole_end
        pieces.append(bytes(stream.buffer[at:stop]))
        content.truncated |= bool(stream.holes)
        if kind == BODY:
            # A whole frame with holes counts in full, so that the content ends where it should.
            received = size if stream.holes else len(pieces[0])
            self._body(stream, channel, _HOLE.join(pieces), received, messages)
        elif kind == HEADER:
            content.truncated = True
            self._header(stream, channel, pieces[0], messages)
        elif kind == METHOD:
            # A method on this channel ends the content, whatever it is.
            self._finish(stream, channel, messages)

    # --- methods and contents -----------------------------------------------------------------

    def _method(
        self, stream: Direction, channel: int, payload: bytes, at: int, messages: list[Message]
    ) -> None:
        # A method inside a content violates section 4.2.6, so frames were lost: the content ends here.
        if channel in stream.contents:
            self._finish(stream, channel, messages)
        method = METHODS.get(_METHOD_ID.unpack_from(payload)) if len(payload) >= 4 else None
        if method is None or not (method.emitted or (self._raw and method.name == "basic.qos")):
            return
        arguments = method.decode(payload)
        if arguments is None:
            return
        mark = stream.mark_at(at)
        if method.content:
            if len(stream.contents) >= _MOST_PENDING:
                # The oldest one; a dict keeps the order of insertion.
                self._finish(stream, next(iter(stream.contents)), messages)
            stream.contents[channel] = Content(method.name, arguments, mark)
            return
        if method.name == "connection.tune-ok":
            lowest, highest = _FRAME_MAX_BOUNDS
            # 0 means no limit (section 1.4.2.6).
            self._frame_max = max(lowest, min(int(arguments["frame_max"]) or highest, highest))
        elif method.name == "channel.close":
            # The other end sends nothing more on this channel: an unfinished content stays unfinished.
            other = self._directions[1 - stream.direction]
            if channel in other.contents:
                self._finish(other, channel, messages)
        frames = evidence(mark, stream.last)
        # Methods of the connection class hold credentials (start-ok, secure-ok, update-secret).
        raw = payload if self._raw and not method.name.startswith("connection.") else b""
        messages.append(
            AmqpMethod(
                self._connection, stream.direction, mark[1], frames, channel, method.name, arguments, raw
            )
        )

    def _header(self, stream: Direction, channel: int, payload: bytes, messages: list[Message]) -> None:
        content = stream.contents.get(channel)
        if content is None:
            return
        if len(payload) < 12 or content.body_bytes >= 0:
            # The header is cut before its size, or is a second one: the end of the body is unknown.
            self._finish(stream, channel, messages)
            return
        content.body_bytes = _BODY_SIZE.unpack_from(payload, 4)[0]
        content.properties = properties_of(payload)
        if self._raw:
            content.raw_header = payload
        if content.body_bytes == 0:
            self._finish(stream, channel, messages)

    def _body(self, stream: Direction, channel: int, part: bytes, size: int, messages: list[Message]) -> None:
        content = stream.contents[channel]
        content.received += size
        content.add(part, self._body_limit)
        if content.received >= content.body_bytes:
            self._finish(stream, channel, messages)

    def _finish(self, stream: Direction, channel: int, messages: list[Message]) -> None:
        """End the content of *channel* and append its message."""
        content = stream.contents.pop(channel)
        parts = content.parts
        messages.append(
            AmqpContent(
                self._connection,
                stream.direction,
                content.mark[1],
                stream.last[1],
                evidence(content.mark, stream.last),
                channel,
                content.name,
                content.arguments,
                content.properties,
                parts[0] if len(parts) == 1 else b"".join(parts),
                max(content.body_bytes, 0),
                content.truncated or content.received != content.body_bytes,
                content.raw_header,
            )
        )

    def _finish_all(self, stream: Direction, messages: list[Message]) -> None:
        for channel in list(stream.contents):
            self._finish(stream, channel, messages)

    def _give_up(self, reason: str, mark: Mark) -> Undecoded:
        """Ignore the connection from here on, and free its buffers."""
        self._ignored = True
        for stream in self._directions:
            stream.contents.clear()
            stream.buffer = bytearray()
            stream.marks.clear()
        return Undecoded(self._connection, mark[1], reason, mark[2])
