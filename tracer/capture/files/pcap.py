"""Records of a classic pcap file.

The loop over the records is the hottest one of the program: it works on chunks, does
four comparisons a record, and leaves everything that is strange to `_mend`. Counters of the capture
are brought up to date once a chunk.

A damaged record header is not the end: the reader looks for the next place where several record
headers follow each other. What was between is lost and counted; frame numbers then are those of the
records that were read (Wireshark stops at such a place).

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
"""What no snap length exceeds in practice; a longer record is damage, unless the file header says so."""
_LONGEST_RECORD_BYTES = 16 << 20
_SEARCH_BYTES = 1 << 20
"""How far the next undamaged record is looked for."""
_DAY_NS = 86_400_000_000_000
_SPAN_S = 400 * 86_400
"""While looking for a record: one this far from the first packet is none."""


class PcapReader:
    """Reads one pcap file; *head* is what was read of *stream* already, at least its magic.

    Raises SourceError when the file header is cut short.
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
        # The upper bits tell the length of a frame check sequence and the like.
        self._link_type = link_type & 0xFFFF

    def batches(self) -> Iterator[list[PacketFields]]:
        """Yield the packets of each buffer read, in file order, then close the stream.

        Damage is counted, never raised.
        """
        capture, link_type = self._capture, self._link_type
        capture_number, number = capture.number, 0
        unpack, header_bytes, longest = self._record.unpack_from, self._record.size, self._longest
        per_second, unit_ns = self._per_second, 1_000_000_000 // self._per_second
        buffer, offset, trusted = self._buffer, 0, -1
        last_ns = -2 * _DAY_NS
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
                    time_ns = seconds * 1_000_000_000 + fraction * unit_ns
                    if not last_ns <= time_ns <= last_ns + _DAY_NS:
                        if not seconds and not wire and offset != trusted:
                            # Zeros: a part of the file that was never written.
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
                rest = buffer[offset:]
                buffer, offset, trusted = self._stream.extend(rest, wanted), 0, -1 if offset != trusted else 0
                if len(buffer) == len(rest):
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
        """Return the time to give to a packet that is earlier than the last, or later by a day.

        A little backwards is normal (several queues), a leap may be true (merged files). A leap that
        the next record takes back is damage: believed, it would expire all that waits.
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
        """Return a buffer, the offset of the next record in it, and of one to be taken as it is.

        Called at a record that contradicts itself. The offset is -1 when none is found: the file is
        read no further.
        """
        # Copied only where more is to be read: every record of a file may contradict itself.
        if not self._stream.ended and len(buffer) - offset < 2 * _SEARCH_BYTES:
            buffer, offset = self._stream.extend(buffer[offset:], 2 * _SEARCH_BYTES), 0
        anomalies = self._capture.anomalies
        _, _, captured, _ = self._record.unpack_from(buffer, offset)
        end = offset + self._record.size + captured
        is_last = self._stream.ended and end == len(buffer)
        if captured <= self._longest and (is_last or self._leads_on(buffer, end, strict=False)):
            # Some writers note no length on the wire, or more than a second of microseconds.
            anomalies["record header contradicts itself"] += 1
            return buffer, offset, offset
        start = self._search(buffer, offset)
        if start > 0:
            return buffer, start, -1
        anomalies["record header is damaged and none follows: the rest is not read"] += 1
        self._capture.broke_off = True
        return b"", -1, -1

    def _search(self, buffer: bytes, offset: int) -> int:
        """Return where in *buffer*, behind *offset*, records go on; -1 if nowhere near."""
        for start in range(offset + 1, min(offset + _SEARCH_BYTES, len(buffer) - self._record.size + 1)):
            if self._leads_on(buffer, start):
                self._capture.anomalies["record header is damaged, read on at the next one"] += 1
                return start
        return -1

    def _leads_on(self, buffer: bytes, offset: int, strict: bool = True) -> bool:
        """Return whether three plausible records follow from *offset*, or fewer up to the end."""
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
        """Return the captured length that the record header at *offset* states, 0 if it is none.

        *strict* demands as much as can be told; else a header may contradict itself, like the one
        before it.
        """
        seconds, fraction, captured, wire = self._record.unpack_from(buffer, offset)
        if not 0 < captured <= self._longest:
            return 0
        if strict and (fraction >= self._per_second or not captured <= wire <= _LONGEST_RECORD_BYTES):
            return 0
        first_ns = self._capture.first_ns
        near = seconds > 0 if first_ns is None else abs(seconds - first_ns // 1_000_000_000) < _SPAN_S
        return captured if near else 0
