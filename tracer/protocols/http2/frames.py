"""The frames of HTTP/2: their heads, and the search of one in the middle of a connection.

Source: RFC 9113 §3.4 (preface), §4.1 (frame format), §6 (kinds of frames), §7 (error codes).
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "ERRORS",
    "GOAWAY",
    "HEADERS",
    "HEAD_BYTES",
    "PADDED",
    "PREFACE",
    "PRIORITY",
    "PUSH_PROMISE",
    "RST_STREAM",
    "FrameHead",
    "find_frame",
    "is_possible",
    "read_head",
    "without_padding",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes that a client sends."""
HEAD_BYTES = 9
DATA, HEADERS, PRIORITY_FRAME, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
ERRORS = (
    "NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT",
    "STREAM_CLOSED", "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM", "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED",
)  # fmt: skip
"""Names of the error codes, from 0."""

_SIZE = {PRIORITY_FRAME: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
"""Kinds whose payload has one size."""
_OF_STREAMS = frozenset((DATA, HEADERS, PRIORITY_FRAME, RST_STREAM, PUSH_PROMISE, CONTINUATION))
_OF_CONNECTION = frozenset((SETTINGS, PING, GOAWAY))
_FLAGS = {
    DATA: END_STREAM | PADDED,
    HEADERS: END_STREAM | END_HEADERS | PADDED | PRIORITY,
    SETTINGS: ACK,
    PUSH_PROMISE: END_HEADERS | PADDED,
    PING: ACK,
    CONTINUATION: END_HEADERS,
}
"""Flags that a kind may have; the others have none."""
_USUAL_SIZE = 16_384
"""Largest payload unless the receiver allows more (SETTINGS_MAX_FRAME_SIZE)."""
_LARGEST_STREAM = 1 << 26
"""In the search: thirty million requests of one connection."""
_CHAIN = 3
"""So many frames in a row are no accident."""


class FrameHead(NamedTuple):
    """The head of a frame."""

    size: int
    """Bytes of its payload."""
    kind: int
    flags: int
    stream: int
    """0 is the connection itself."""


def read_head(data: bytes | bytearray, at: int) -> FrameHead:
    """Return the frame head at *at*, where `HEAD_BYTES` are there. The reserved bit is ignored (§4.1)."""
    size = int.from_bytes(data[at : at + 3], "big")
    stream = int.from_bytes(data[at + 5 : at + 9], "big") & 0x7FFFFFFF
    return FrameHead(size, data[at + 3], data[at + 4], stream)


def is_possible(head: FrameHead) -> bool:
    """Return whether a frame may have this head; a receiver would end the connection else (§4.2, §6)."""
    size, kind, flags, stream = head
    if kind in _SIZE and size != _SIZE[kind]:
        return False
    if kind in _OF_STREAMS:
        least = bool(flags & PADDED) if kind in (DATA, HEADERS, PUSH_PROMISE) else 0
        if kind == HEADERS and flags & PRIORITY:
            least += 5
        elif kind == PUSH_PROMISE:
            least += 4
        return stream > 0 and size >= least
    if kind in _OF_CONNECTION and stream:
        return False
    if kind == SETTINGS:
        return size % 6 == 0 and not (flags & ACK and size)
    # Unknown kinds are ignored by receivers (§5.5); a large one is more likely no frame at all.
    return (kind == GOAWAY and 8 <= size <= _USUAL_SIZE) or kind == PING or size <= _USUAL_SIZE


def _is_usual(head: FrameHead) -> bool:
    """Return whether *head* is one that programs send, too: for the search, where any bytes may be there."""
    if head.size > _USUAL_SIZE or head.kind > CONTINUATION or head.stream >= _LARGEST_STREAM:
        return False
    return not head.flags & ~_FLAGS.get(head.kind, 0) and is_possible(head)


# The first two bytes of the size, the kind, the flags, and the first byte of the stream.
_CANDIDATE = re.compile(rb"\x00[\x00-\x40].[\x00-\x09][\x00-\x2d][\x00-\x03]", re.DOTALL)


def find_frame(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Return the offset of the first frame (-1 if none is certain), and the offset to search from next time.

    A frame is certain if others follow it at once, or the end of the bytes: a program writes whole frames.
    """
    while True:
        found = _CANDIDATE.search(data, at)
        if found is None:
            # The last 5 bytes may be the beginning of a head.
            return -1, max(at, len(data) - 5)
        at = found.start()
        sure = _begins_frames(data, at)
        if sure:
            return at, at
        if sure is None:
            return -1, at
        at += 1


def _begins_frames(data: bytes | bytearray, at: int) -> bool | None:
    """Return whether frames begin at *at*; None if more bytes are needed to decide."""
    for _ in range(_CHAIN):
        if at + HEAD_BYTES > len(data):
            return None
        head = read_head(data, at)
        if not _is_usual(head):
            return False
        at += HEAD_BYTES + head.size
        if at == len(data):
            return True
    return True


def begins_connection(data: bytes) -> bool:
    """Return whether *data*, the first captured bytes of a direction, begin with frames."""
    if data[:1] != b"\x00" or len(data) < HEAD_BYTES:
        return False
    sure = _begins_frames(data, 0)
    if sure is not None:
        return sure
    # One head and more is there: a block of headers that goes on, or a second frame.
    head = read_head(data, 0)
    return head.kind == HEADERS or (len(data) >= 2 * HEAD_BYTES + head.size)


def without_padding(flags: int, payload: bytes) -> bytes | None:
    """Return the *payload* of HEADERS or PUSH_PROMISE without padding; None if that is too long (§6.2)."""
    if not flags & PADDED:
        return payload
    end = len(payload) - payload[0]
    return payload[1:end] if end >= 1 else None
