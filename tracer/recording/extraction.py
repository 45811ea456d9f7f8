"""The packets of some calls, out of captures, as one pcapng file with a comment on each packet.

The captures are read twice more: a call's evidence names the first and the last frame of its messages,
and which connections these belong to is found first; all that the connection carried in that direction in
between is of the message too, and is taken then. A fragmented packet is taken with all its fragments.
Handshakes and bare acknowledgements are left out.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tracer import __version__
from tracer.capture.layers import Layers
from tracer.engine import reopen
from tracer.errors import UsageError
from tracer.model import CallRecord, Capture, PacketFields, Verdict
from tracer.recording.pcapng_writer import (
    Described,
    interface_block,
    packet_block,
    section_block,
    statistics_block,
)
from tracer.recording.redaction import Redactor

__all__ = ["Extraction", "extract"]

_COMMENT = 1
_COMMENT_BYTES = 4000
_MOST_FRAGMENTS = 20_000
"""Packets kept, of captures with fragments, until a datagram may be complete."""
_HEAD = struct.Struct("<II")


@dataclass(slots=True)
class Extraction:
    """What was taken."""

    blocks: list[bytes] = field(default_factory=list)
    """The file, in order."""
    packets: int = 0
    overwritten: int = 0
    """Pieces of secrets that were overwritten."""


class _Span(NamedTuple):
    """A message on its connection: all that went that way from one frame to another."""

    first: int
    last: int
    comment: str


def extract(verdicts: Iterable[Verdict], captures: Sequence[Capture], *, raw: bool) -> Extraction:
    """Return the packets of the traces' calls; secrets overwritten in place unless *raw*.

    Raises UsageError for a capture that cannot be read twice, SourceError for one that cannot be read.
    """
    calls = _calls(verdicts)
    redactor = None if raw else Redactor()
    taken: list[tuple[PacketFields, Capture, str]] = []
    for capture in captures:
        wanted = calls.get(capture.path, [])
        if not wanted:
            continue
        if capture.path == "-":
            raise UsageError("extract reads its captures twice: give files, not standard input")
        spans = _spans(capture, wanted)
        taken += ((packet, capture, words) for packet, words in _taken(capture, spans, redactor))
    taken.sort(key=lambda each: each[0][0])
    made = Extraction(packets=len(taken), overwritten=redactor.overwritten if redactor else 0)
    made.blocks = list(_file(taken))
    return made


def _calls(verdicts: Iterable[Verdict]) -> Mapping[str, list[tuple[str, frozenset[int]]]]:
    """For each capture the messages that are seen in it: what is to be said of them, and their frames.

    An acknowledgement is one of its own: between it and its message others may pass.
    """
    found: dict[str, dict[tuple[int, bool], tuple[str, frozenset[int]]]] = {}
    for verdict in verdicts:
        for call in verdict.calls:
            for is_fate, evidence in enumerate((call.evidence, call.fate)):
                for path in {path for path, _ in evidence}:
                    frames = frozenset(frame for where, frame in evidence if where == path)
                    words = f"{_words(call)}, acknowledged" if is_fate else _words(call)
                    found.setdefault(path, {})[call.index, bool(is_fate)] = (words, frames)
    return {path: list(own.values()) for path, own in found.items()}


def _words(call: CallRecord) -> str:
    step = f"step {call.step}" if call.step else "no documented step"
    return f"{step}: {call.line}"


def _spans(capture: Capture, calls: Sequence[tuple[str, frozenset[int]]]) -> dict[bytes, list[_Span]]:
    """The messages of *calls* by the direction of the connection that carried them."""
    wanted = frozenset().union(*(frames for _, frames in calls))
    flows: dict[int, bytes] = {}
    layers = Layers()
    for batch in reopen(capture):
        for segment in layers.read(batch, {}):
            # Several frames: the fragments of one datagram.
            for _, frame in segment[8]:
                if frame in wanted:
                    flows[frame] = segment[1]
    found: dict[bytes, list[_Span]] = {}
    for words, frames in calls:
        own: dict[bytes, list[int]] = {}
        for frame in frames:
            if frame in flows:
                own.setdefault(flows[frame], []).append(frame)
        for flow, numbers in own.items():
            found.setdefault(flow, []).append(_Span(min(numbers), max(numbers), words))
    return found


def _taken(
    capture: Capture, spans: Mapping[bytes, Sequence[_Span]], redactor: Redactor | None
) -> Iterator[tuple[PacketFields, str]]:
    """Yield the packets of the spans with their comments.

    The redactor sees the whole of their connections: a secret may have appeared before.
    """
    comments: dict[int, str] = {}
    layers = Layers()
    fragments: OrderedDict[int, PacketFields] = OrderedDict()
    for batch in reopen(capture):
        of_frame = {packet[4][1]: packet for packet in batch}
        segments = layers.read(batch, {})
        if layers.fragment_at >= 0:
            # One of these: a fragment makes no segment before its datagram is complete.
            known = {segment[8][0][1] for segment in segments}
            fragments.update((frame, packet) for frame, packet in of_frame.items() if frame not in known)
        fed = []
        for segment in segments:
            own = spans.get(segment[1])
            if own is None:
                continue
            number = segment[8][0][1]
            words = dict.fromkeys(span.comment for span in own if span.first <= number <= span.last)
            for frame in sorted(frame for _, frame in segment[8]):
                packet = of_frame.get(frame) or fragments.get(frame)
                if packet is None:
                    continue
                fed.append(packet)
                if words and (segment[5] or segment[4] & 7):
                    comments[frame] = "; ".join(words)
        while len(fragments) > _MOST_FRAGMENTS:
            fragments.popitem(last=False)
        ready = fed if redactor is None else redactor.receive(fed)
        yield from _commented(ready, comments)
    if redactor is not None:
        yield from _commented(redactor.flush(), comments)


def _commented(
    packets: Iterable[PacketFields], comments: Mapping[int, str]
) -> Iterator[tuple[PacketFields, str]]:
    for packet in packets:
        if words := comments.get(packet[4][1]):
            yield packet, words


# --- the file ---------------------------------------------------------------------------------------


def _file(taken: Sequence[tuple[PacketFields, Capture, str]]) -> Iterator[bytes]:
    """An interface for each capture and link type, named after the plane, then the packets by time, then when
    the captures ended: that a creation is stuck is told by the silence after it."""
    interfaces: dict[tuple[int, int], int] = {}
    ends: dict[int, int] = {}
    yield section_block(f"tracer extract {__version__}")
    for packet, capture, _ in taken:
        key = (capture.number, packet[3])
        if key not in interfaces:
            interfaces[key] = len(interfaces)
            file = capture.path.rsplit("/", 1)[-1]
            yield interface_block(Described(capture.plane or file.split(".")[0], file, packet[3]))
            ends[interfaces[key]] = max(capture.last_ns or 0, capture.ended_ns or 0)
    for packet, capture, words in taken:
        block = packet_block(interfaces[capture.number, packet[3]], max(packet[0], 0), packet[1], packet[2])
        yield _with_comment(block, f"{words} (frame {packet[4][1]} of {capture.path})")
    counts = Counter((capture.number, packet[3]) for packet, capture, _ in taken)
    for key, interface in interfaces.items():
        yield statistics_block(interface, ends[interface], counts[key])


def _with_comment(block: bytes, words: str) -> bytes:
    """A packet's block with a comment behind the packet (draft-ietf-opsawg-pcapng §3.5)."""
    text = words.encode("utf-8", "backslashreplace")[:_COMMENT_BYTES]
    option = struct.pack("<HH", _COMMENT, len(text)) + text + bytes(-len(text) & 3) + bytes(4)
    kind, length = _HEAD.unpack_from(block)
    length += len(option)
    return _HEAD.pack(kind, length) + block[_HEAD.size : -4] + option + struct.pack("<I", length)
