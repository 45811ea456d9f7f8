"""Records of a classic pcap file.

The loop over the records is the hottest loop of the program. It works on chunks, makes four comparisons for
each record, and leaves every unusual record to `_mend`. The counters of the capture are updated once a chunk.

Behind a damaged record header the reader searches for the next place where several valid record headers
follow each other. The bytes in between are lost and counted. Frame numbers then count the records that were
read; Wireshark stops at such a place.

Source: draft-ietf-opsawg-pcap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tracer.capture.files.compression import ByteStream
from tracer.errors import SourceError
from tracer.model import Capture, PacketFields

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

    def batches(self) -> Iterator[list[PacketFields]]:
        """Yield the packets of each buffer read, in file order, then close the stream.

        Damage is counted, never raised.
        """
        capture, link_type = self._capture, self._link_type
        capture_number, number = capture.number, 0
        unpack, header_bytes, longest = self._record.unpack_from, self._record.size, self._longest
        per_second, unit_ns = self._per_second, 1_000_000_000 // self._per_second
        # `trusted`: offset of a record that `_mend` accepted although its header contradicts itself.
        buffer, offset, trusted = self._buffer, 0, -1
        # Before the first record, so that its time is checked by `_odd_time`.
        last_ns = -2 * _DAY_NS
        # What is computed once a second: the time of its begin, and the latest time that is not odd.
        second, second_ns, most_ns = -1, 0, 0
        try:
            while True:
                size, begin, counted, truncated = len(buffer), offset, number, 0
                last_header = size - header_bytes
                strange = False
                wanted = header_bytes
                batch: list[PacketFields] = []
                append = batch.append
                while offset <= last_header:
                    seconds, fraction, captured, wire = unpack(buffer, offset)
                    start = offset + header_bytes
                    end = start + captured
                    if captured > longest or fraction >= per_second or captured > wire:
                        if offset != trusted:
                            strange = True
                            break
                        wire = max(wire, captured)
                    if end > size:
                        wanted = end - offset
                        break
                    if seconds != second:
                        second, second_ns, most_ns = seconds, seconds * 1_000_000_000, last_ns + _DAY_NS
                    time_ns = second_ns + fraction * unit_ns
                    if not last_ns <= time_ns <= most_ns:
                        if not seconds and not wire and offset != trusted:
                            # Zeros: this part of the file was never written.
                            strange = True
                            break
                        time_ns = self._odd_time(time_ns, last_ns, buffer, end)
                    last_ns = time_ns
                    if captured != wire:
                        truncated += 1
                    number += 1
                    append((time_ns, buffer[start:end], wire, link_type, (capture_number, number), 0))
                    offset = end
                self._count(number, offset - begin - (number - counted) * header_bytes, truncated, last_ns)
                if batch:
                    yield batch
                if strange:
                    buffer, offset, trusted = self._mend(buffer, offset)
                    if offset < 0:
                        return
                    continue
                # The record is incomplete: read on, and keep what is there of it.
                rest = buffer[offset:]
                buffer, offset, trusted = self._stream.extend(rest, wanted), 0, -1 if offset != trusted else 0
                if len(buffer) == len(rest):
                    # The end of the file. A record that reaches beyond it may have a damaged length, with
                    # valid records inside.
                    offset = self._search(rest, 0)
                    if offset < 0:
                        self._end(bool(rest))
                        return
        finally:
            self._stream.close()

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
