"""Records of a classic pcap file.

The loop over the records is the hottest loop of the program. It works on chunks, makes four comparisons for
each record, and leaves every unusual record to `_mend`. The counters of the capture are updated once a chunk.

For `segments` the same loop reads the headers of a plain packet too, as `capture/layers.py` does, where the
record stands: to cut each packet out and hand it on took as long as to read both headers.

Behind a damaged record header the reader searches for the next place where several valid record headers
follow each other. The bytes in between are lost and counted. Frame numbers then count the records that were
read; Wireshark stops at such a place.

Source: draft-ietf-opsawg-pcap.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from tracer.capture.files.compression import ByteStream
from tracer.capture.layers import FAST, NEVER, FastPath
from tracer.errors import SourceError
from tracer.model import Capture, PacketFields, SegmentFields

__all__ = ["MAGICS", "PcapReader"]

MICROSECONDS, NANOSECONDS, MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
"""Magic numbers. MODIFIED is Kuznetzov's: 8 more bytes in each record header, microseconds."""
MAGICS = {
    struct.pack(order + "I", magic): (order, magic)
    for order in "<>"
    for magic in (MICROSECONDS, NANOSECONDS, MODIFIED)
}

_FILE_HEADER_BYTES = 24
_RECORD_BYTES = 256 << 10
"""Longest plausible record: tcpdump's default snap length. A longer one is damage, unless the file header
declares a larger snap length."""
_LONGEST_RECORD_BYTES = 16 << 20
"""Longest record, whatever the file header declares."""
_SEARCH_BYTES = 1 << 20
"""Distance within which the next undamaged record is searched."""
_DAY_NS = 86_400_000_000_000
_SPAN_S = 400 * 86_400
"""In the search, a record whose time is further from the first packet than this is not a record."""
_BOTH_BYTES = [20 + (words >> 4) * 4 if words >= 0x50 else 1 << 16 for words in range(256)]
"""The byte that holds the length of a TCP header -> what it and an IP header take; if it cannot be one, more
than any packet has."""

Take = Callable[[list[Any], PacketFields], object]
"""Adds what becomes of a packet to a batch."""


class PcapReader:
    """Reads one pcap file. *head* is what was already read of *stream*, at least the magic number.

    Raises SourceError if the file header is cut.
    """

    def __init__(self, stream: ByteStream, head: bytes, capture: Capture) -> None:
        order, magic = MAGICS[head[:4]]
        if len(head) < _FILE_HEADER_BYTES:
            head = stream.extend(head, _FILE_HEADER_BYTES)
        if len(head) < _FILE_HEADER_BYTES:
            raise SourceError(
                f"{capture.path}: pcap file breaks off inside its header,"
                f" after {len(head)} of {_FILE_HEADER_BYTES} bytes: capture it again"
            )
        snap_bytes, link_type = struct.unpack_from(order + "2I", head, 16)
        self._stream = stream
        self._buffer = head[_FILE_HEADER_BYTES:]
        self._capture = capture
        self._record = struct.Struct(order + ("4I8x" if magic == MODIFIED else "4I"))
        self._per_second = 1_000_000_000 if magic == NANOSECONDS else 1_000_000
        self._longest = max(_RECORD_BYTES, min(snap_bytes, _LONGEST_RECORD_BYTES))
        # The upper bits hold the length of the frame check sequence and reserved bits.
        self._link_type = link_type & 0xFFFF
        self._trusted = -1
        """Offset of a record that `_mend` accepted although its header contradicts itself."""
        self._reached = capture.number, 0, -2 * _DAY_NS
        """The number of the capture, the records that were read, and the time of the last one: at first so
        early that the first record is checked by `_odd_time`."""

    def batches(self) -> Iterator[list[PacketFields]]:
        """Yield the packets of each buffer read, in file order, then close the stream.

        Damage is counted, never raised.
        """
        return self._batches(NEVER, list.append)

    def segments(
        self, decode: Callable[[list[PacketFields]], list[SegmentFields]]
    ) -> Iterator[list[SegmentFields]]:
        """Yield the TCP segments of each buffer read, as `batches`; *decode* reads what is not plain."""
        if self._link_type not in FAST:
            return map(decode, self.batches())
        return self._batches(FAST[self._link_type], lambda found, packet: found.extend(decode([packet])))

    def _batches(self, fast: FastPath, take: Take) -> Iterator[list[Any]]:
        buffer, offset = self._buffer, 0
        try:
            while True:
                batch: list[Any] = []
                offset, wanted = self._chunk(buffer, offset, batch, fast, take)
                if batch:
                    yield batch
                if not wanted:
                    buffer, offset, self._trusted = self._mend(buffer, offset)
                    if offset < 0:
                        return
                    continue
                # The record is incomplete: read on, and keep what is there of it.
                rest = buffer[offset:]
                self._trusted = -1 if offset != self._trusted else 0
                buffer, offset = self._stream.extend(rest, wanted), 0
                if len(buffer) == len(rest):
                    # The end of the file. A record that reaches beyond it may have a damaged length, with
                    # valid records inside.
                    offset = self._search(rest, 0)
                    if offset < 0:
                        self._end(bool(rest))
                        return
        finally:
            self._stream.close()

    def _chunk(
        self, buffer: bytes, offset: int, batch: list[Any], fast: FastPath, take: Take
    ) -> tuple[int, int]:
        """Read the records in *buffer* from *offset* on: segments that *fast* finds, and what *take* adds.

        Return the offset of the first record that cannot be read, and how many bytes it needs; 0 if it
        contradicts itself.
        """
        # Locals: this loop runs once for each packet.
        link_type, capture_number, number, last_ns = self._link_type, *self._reached
        unpack, header_bytes, longest = self._record.unpack_from, self._record.size, self._longest
        per_second, unit_ns = self._per_second, 1_000_000_000 // self._per_second
        fast_bytes, ip_at, unpack_headers, unpack_tagged = fast
        append, begin, counted, truncated, both_bytes = batch.append, offset, number, 0, _BOTH_BYTES
        size, wanted = len(buffer), header_bytes
        last_header = size - header_bytes
        # What is computed once a second: the time of its begin, and the latest time that is not odd.
        second, second_ns, most_ns = -1, 0, 0
        while offset <= last_header:
            seconds, fraction, captured, wire = unpack(buffer, offset)
            start = offset + header_bytes
            end = start + captured
            if captured != wire or captured > longest or fraction >= per_second:
                if captured > wire or captured > longest or fraction >= per_second:
                    if offset != self._trusted:
                        wanted = 0
                        break
                    wire = max(wire, captured)
                if captured != wire and end <= size:
                    truncated += 1
            if end > size:
                wanted = end - offset
                break
            if seconds != second:
                second, second_ns, most_ns = seconds, seconds * 1_000_000_000, last_ns + _DAY_NS
            time_ns = second_ns + fraction * unit_ns
            if not last_ns <= time_ns <= most_ns:
                if not seconds and not wire and offset != self._trusted:
                    # Zeros: this part of the file was never written.
                    wanted = 0
                    break
                time_ns = self._odd_time(time_ns, last_ns, buffer, end)
            last_ns = time_ns
            number += 1
            offset = end
            if captured >= fast_bytes:
                # As `Layers.read`, which says what these are, and which gets all that is not so plain.
                kind, version, length, ip_id, fragment, protocol, flow, seq, ack, words, flags = (
                    unpack_headers(buffer, start)
                )
                at, vlan = start + ip_at, 0
                if kind == 0x8100:
                    tag, kind, version, length, ip_id, fragment, protocol, flow, *others = unpack_tagged(
                        buffer, start
                    )
                    seq, ack, words, flags = others
                    at, vlan = at + 4, tag & 0xFFF
                if kind == 0x0800 and version == 0x45 and protocol == 6 and not fragment & 0x3FFF:
                    stop = at + length
                    at += both_bytes[words]
                    if at <= stop:
                        missing = 0
                        if stop > end:
                            missing = stop - max(at, end)
                            stop = end
                        # fmt: off
                        append((time_ns, flow, seq, ack, flags & 0x1F, buffer[at:stop], missing, ip_id,
                                ((capture_number, number),), vlan, 0))
                        # fmt: on
                        continue
            take(batch, (time_ns, buffer[start:end], wire, link_type, (capture_number, number), 0))
        self._reached = capture_number, number, last_ns
        self._count(number, offset - begin - (number - counted) * header_bytes, truncated, last_ns)
        return offset, wanted

    def _count(self, number: int, size_bytes: int, truncated: int, last_ns: int) -> None:
        capture = self._capture
        capture.packets = number
        capture.size_bytes += size_bytes
        capture.truncated_packets += truncated
        if number:
            capture.last_ns = max(last_ns, capture.last_ns or 0)

    def _end(self, inside: bool) -> None:
        capture = self._capture
        if self._stream.damage:
            capture.anomalies[self._stream.damage] += 1
        elif inside:
            capture.anomalies["file ends inside a record"] += 1
        capture.broke_off = inside or bool(self._stream.damage)

    # --- what is strange --------------------------------------------------------------------------

    def _odd_time(self, time_ns: int, last_ns: int, buffer: bytes, following: int) -> int:
        """Return the time to use for a packet that is earlier than the last one, or more than a day later.

        Small steps backwards are normal (several queues), and a leap may be true (merged files). A leap that
        the next record takes back is damage: to accept it would expire everything that waits for a time.
        """
        capture = self._capture
        if capture.first_ns is None or last_ns < 0:
            capture.first_ns = time_ns
            return time_ns
        leap = abs(time_ns - last_ns) > _DAY_NS
        if leap and following + self._record.size <= len(buffer):
            seconds = self._record.unpack_from(buffer, following)[0]
            if abs(seconds * 1_000_000_000 - last_ns) <= _DAY_NS:
                capture.anomalies["time of a record is damaged"] += 1
                return last_ns
        capture.first_ns = min(capture.first_ns, time_ns)
        capture.last_ns = max(capture.last_ns or 0, last_ns)
        return time_ns

    def _mend(self, buffer: bytes, offset: int) -> tuple[bytes, int, int]:
        """Return a buffer, the offset of the next record in it, and the offset of a record to be trusted.

        Called at a record that contradicts itself. The offset is -1 if no record is found; then the rest of
        the file is not read.
        """
        # The buffer is copied only to read more, because every record of a file may contradict itself.
        if not self._stream.ended and len(buffer) - offset < 2 * _SEARCH_BYTES:
            buffer, offset = self._stream.extend(buffer[offset:], 2 * _SEARCH_BYTES), 0
        anomalies = self._capture.anomalies
        _, _, captured, _ = self._record.unpack_from(buffer, offset)
        end = offset + self._record.size + captured
        is_last = self._stream.ended and end == len(buffer)
        if captured <= self._longest and (is_last or self._leads_on(buffer, end, strict=False)):
            # Valid records follow, so the length is right. Some writers leave the length on the wire at 0, or
            # write a million microseconds and more.
            anomalies["record header contradicts itself"] += 1
            return buffer, offset, offset
        start = self._search(buffer, offset)
        if start > 0:
            return buffer, start, -1
        anomalies["record header is damaged and none follows: the rest is not read"] += 1
        self._capture.broke_off = True
        return b"", -1, -1

    def _search(self, buffer: bytes, offset: int) -> int:
        """Return the offset behind *offset* where valid records continue; -1 if there is none nearby."""
        for start in range(offset + 1, min(offset + _SEARCH_BYTES, len(buffer) - self._record.size + 1)):
            if self._leads_on(buffer, start):
                self._capture.anomalies["record header is damaged, read on at the next one"] += 1
                return start
        return -1

    def _leads_on(self, buffer: bytes, offset: int, strict: bool = True) -> bool:
        """Return whether three plausible records follow at *offset*, or fewer up to the end of the file."""
        header_bytes, size = self._record.size, len(buffer)
        for count in range(3):
            if offset == size:
                return count > 0
            if offset + header_bytes > size:
                return count > 1 or (count > 0 and not self._stream.ended)
            captured = self._plausible(buffer, offset, strict)
            if captured <= 0:
                return False
            offset += header_bytes + captured
        return True

    def _plausible(self, buffer: bytes, offset: int, strict: bool) -> int:
        """Return the captured length in the record header at *offset*; 0 if it is not plausible.

        *strict* checks all fields. Otherwise the header may contradict itself, like the one before it.
        """
        seconds, fraction, captured, wire = self._record.unpack_from(buffer, offset)
        if not 0 < captured <= self._longest:
            return 0
        if strict and (fraction >= self._per_second or not captured <= wire <= _LONGEST_RECORD_BYTES):
            return 0
        first_ns = self._capture.first_ns
        near = seconds > 0 if first_ns is None else abs(seconds - first_ns // 1_000_000_000) < _SPAN_S
        return captured if near else 0
