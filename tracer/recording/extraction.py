"""Writes the packets of some calls as one pcapng file, with a comment on each packet.

The captures are read twice more. A call's evidence names the first and the last frame of each message. The
first reading finds the connections of these frames; the second takes all packets in between that the same
connection carried in the same direction. A fragmented packet is taken with all its fragments. Handshakes and
bare acknowledgements are left out.
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
from tracer.model.tables import trim
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
"""Fragments kept while their datagrams are incomplete."""
_HEAD = struct.Struct("<II")


@dataclass(slots=True)
class Extraction:
    """The extracted file, and what it holds."""

    blocks: list[bytes] = field(default_factory=list)
    """The pcapng blocks of the file, in order."""
    packets: int = 0
    overwritten: int = 0
    """Number of byte ranges with secrets that were overwritten."""


class _Span(NamedTuple):
    """The frames of one message: from *first* to *last* in one direction of its connection."""

    first: int
    last: int
    comment: str


def extract(verdicts: Iterable[Verdict], captures: Sequence[Capture], *, raw: bool) -> Extraction:
    """Return the packets of the traces' calls; secrets are overwritten in place unless *raw*.

    Raises UsageError for standard input, which cannot be read twice; SourceError for an unreadable capture.
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
    """Return path -> (comment, frames) of each message that the capture holds.

    An acknowledgement counts as a message: other messages may pass between it and the one it acknowledges.
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
    """Return flow -> spans of the messages of *calls*; a flow is one direction of a connection."""
    wanted = frozenset().union(*(frames for _, frames in calls))
    flows: dict[int, bytes] = {}
    layers = Layers()
    for batch in reopen(capture):
        for segment in layers.read(batch, {}):
            # A segment has several frames when its datagram came in fragments.
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

    The redactor reads all packets of their connections, because a secret may have appeared earlier.
    """
    comments: dict[int, str] = {}
    layers = Layers()
    fragments: OrderedDict[int, PacketFields] = OrderedDict()
    for batch in reopen(capture):
        of_frame = {packet[4][1]: packet for packet in batch}
        segments = layers.read(batch, {})
        if layers.fragment_at >= 0:
            # The batch holds fragments. Only the last one of a datagram yields a segment, so packets without
            # a segment are kept until their datagram is complete.
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
                # Payload, or FIN, SYN or RST: a bare acknowledgement shows nothing of a message.
                if words and (segment[5] or segment[4] & 7):
                    comments[frame] = "; ".join(words)
        trim(fragments, _MOST_FRAGMENTS)
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
    """Yield the blocks: interfaces (one for each capture and link type), packets by time, end times.

    Interfaces are named after the plane. The end time of a capture is needed to recognise a creation that is
    stuck: the silence after its last packet shows it.
    """
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
    """Return a packet block with a comment option after the data (draft-ietf-opsawg-pcapng §3.5)."""
    # The last 4 bytes repeat the block's length, so they are cut off and written again.
    text = words.encode("utf-8", "backslashreplace")[:_COMMENT_BYTES]
    option = struct.pack("<HH", _COMMENT, len(text)) + text + bytes(-len(text) & 3) + bytes(4)
    kind, length = _HEAD.unpack_from(block)
    length += len(option)
    return _HEAD.pack(kind, length) + block[_HEAD.size : -4] + option + struct.pack("<I", length)
