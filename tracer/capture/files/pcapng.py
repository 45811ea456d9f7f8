"""Blocks of a pcapng file.

A file is a sequence of sections, each with its own byte order and its own interfaces. An interface has its
own link type and unit of time. Blocks without packets are skipped. A block whose two lengths differ is
damaged: the reader continues at the next place where two valid blocks follow each other.

Source: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tracer.capture.files.compression import ByteStream
from tracer.errors import SourceError
from tracer.model import Capture, PacketFields, SegmentFields

__all__ = ["SECTION_HEADER", "PcapngReader"]

SECTION_HEADER = b"\x0a\x0d\x0d\x0a"
"""Type of the section header block: the same in either byte order."""

_ORDERS = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
# Block types.
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 2, 3, 5, 6
_SECRETS, _TLS_KEY_LOG = 10, 0x544C534B
"""Decryption secrets block, and its type of secrets in NSS key log format."""
_KNOWN_TYPES = frozenset((_SECTION, *range(1, 11), 0xBAD, 0x40000BAD))
# Options: if_name, if_description, if_tsresol, if_tsoffset; shb_userappl, isb_endtime, isb_ifdrop,
# isb_osdrop, isb_usrdeliv.
_NAME, _DESCRIPTION, _RESOLUTION, _OFFSET = 2, 3, 9, 14
_APPLICATION, _END_TIME, _DROPPED, _DROPPED_BY_OS, _DELIVERED = 4, 3, 5, 7, 8
_EXTRACT = b"tracer extract "
"""shb_userappl of an extract of ours, whose statistics hold the end of the recording."""

_LONGEST_BLOCK_BYTES = (16 << 20) + (64 << 10)
"""A packet of 16 MiB, and its options."""
_SEARCH_BYTES = 1 << 20
"""Distance within which the next undamaged block is searched."""
_MOST_INTERFACES = 65_536
_MOST_SECRETS_BYTES = 16 << 20
_END_OF_TIME_NS = 1 << 63
"""In the year 2262; later times are damage."""


class _Interface(NamedTuple):
    key: int
    """Number in the whole file; block numbers begin again in each section."""
    link_type: int
    snap_bytes: int
    multiplier: int
    divisor: int
    """A time stamp times multiplier, divided by divisor, is nanoseconds."""
    offset_ns: int


class _Counts(NamedTuple):
    """Counters of the packets so far."""

    number: int
    size_bytes: int
    truncated: int
    first_ns: int
    last_ns: int
    """-1 before the first packet."""
    time_ns: int
    """Time of the previous packet."""


class _Structs(NamedTuple):
    """The layouts of the blocks of a section, for its byte order."""

    order: str
    block: struct.Struct
    enhanced: struct.Struct
    """A whole enhanced packet block, up to its data."""
    length: struct.Struct
    packet: struct.Struct
    old_packet: struct.Struct


_STRUCTS = {
    order: _Structs(
        order,
        block=struct.Struct(order + "2I"),
        enhanced=struct.Struct(order + "7I"),
        length=struct.Struct(order + "I"),
        packet=struct.Struct(order + "5I"),
        old_packet=struct.Struct(order + "2H4I"),
    )
    for order in "<>"
}


class PcapngReader:
    """Reads one pcapng file. *head* is what was already read of *stream*, at least the block type.

    Raises SourceError if the first section header is cut or invalid.
    """

    def __init__(self, stream: ByteStream, head: bytes, capture: Capture) -> None:
        if len(head) < 28:
            head = stream.extend(head, 28)
        if len(head) < 28:
            raise SourceError(
                f"{capture.path}: pcapng file breaks off inside its header,"
                f" after {len(head)} of 28 bytes: capture it again"
            )
        order = _ORDERS.get(head[8:12])
        if order is None:
            raise SourceError(
                f"{capture.path}: begins like a pcapng file, but its byte order mark is"
                f" {head[8:12].hex(' ')}: was it transferred as text?"
            )
        self._stream = stream
        self._buffer = head
        self._capture = capture
        self._structs = _STRUCTS[order]
        self._interfaces: list[_Interface] = []
        self._declared = 0
        self._is_extract = False
        self._delivered = 0
        self._ended_ns = _END_OF_TIME_NS
        self._dropped: dict[int, tuple[int, int | None]] = {}
        """Interface -> (packets that the kernel dropped up to its latest statistics, time of these)."""
        self._counts = _Counts(0, 0, 0, _END_OF_TIME_NS, -1, 0)
        self._takers = {
            _INTERFACE: self._interface,
            _PACKET: self._packet,
            _SIMPLE_PACKET: self._simple_packet,
            _OLD_PACKET: self._old_packet,
            _STATISTICS: self._statistics,
            _SECRETS: self._secrets,
        }

    def segments(
        self, decode: Callable[[list[PacketFields]], list[SegmentFields]]
    ) -> Iterator[list[SegmentFields]]:
        """Yield the TCP segments of each run of blocks, as `batches`; *decode* returns those of packets."""
        return map(decode, self.batches())

    def batches(self) -> Iterator[list[PacketFields]]:
        """Yield the packets of each run of blocks, in file order, then close the stream.

        Damage is counted, never raised.
        """
        capture_number = self._capture.number
        buffer, offset = self._buffer, 0
        try:
            while True:
                # The hot loop, for undamaged enhanced packet blocks, which nearly all blocks are. Any other
                # block is left to `_block`.
                size, counts = len(buffer), self._counts
                batch: list[PacketFields] = []
                append = batch.append
                unpack, unpack_length = self._structs.enhanced.unpack_from, self._structs.length.unpack_from
                interfaces, declared = self._interfaces, len(self._interfaces)
                number, size_bytes, truncated, first_ns, last_ns, time_ns = counts
                while offset + 32 <= size:
                    kind, length, identifier, high, low, captured, wire = unpack(buffer, offset)
                    end = offset + length
                    if kind != _PACKET or end > size or identifier >= declared or captured + 32 > length:
                        break
                    key, link_type, _, multiplier, divisor, offset_ns = interfaces[identifier]
                    stamp_ns = (high << 32 | low) * multiplier // divisor + offset_ns
                    if not 0 <= stamp_ns < _END_OF_TIME_NS or unpack_length(buffer, end - 4)[0] != length:
                        break
                    time_ns = stamp_ns
                    if time_ns > last_ns:
                        last_ns = time_ns
                    if time_ns < first_ns:
                        first_ns = time_ns
                    if captured != wire:
                        truncated += captured < wire
                        wire = max(wire, captured)
                    number += 1
                    size_bytes += captured
                    data = buffer[offset + 28 : offset + 28 + captured]
                    append((time_ns, data, wire, link_type, (capture_number, number), key))
                    offset = end
                self._count(_Counts(number, size_bytes, truncated, first_ns, last_ns, time_ns))
                if batch:
                    yield batch
                buffer, offset, packet = self._block(buffer, offset)
                if offset < 0:
                    return
                if packet is not None:
                    yield [packet]
        finally:
            self._stream.close()

    def _block(self, buffer: bytes, offset: int) -> tuple[bytes, int, PacketFields | None]:
        """Use one block of any type; read on if it is incomplete.

        Returns the buffer, the offset behind the block, and the packet in it. The offset is -1 at the end.
        """
        length, damaged = self._measure(buffer, offset)
        if damaged:
            buffer, offset, length = self._mend(buffer, offset)
            if offset < 0:
                return buffer, -1, None
        elif length == 0:
            rest = buffer[offset:]
            buffer = self._stream.extend(rest, self._wanted(buffer, offset))
            if len(buffer) > len(rest):
                return buffer, 0, None
            offset = self._search(rest, 0)
            if offset < 0:
                self._end(bool(rest))
            return rest, offset, None
        packet = None
        kind = self._structs.block.unpack_from(buffer, offset)[0]
        if kind == _SECTION:
            self._section(buffer, offset, offset + length - 4)
        elif take := self._takers.get(kind):
            packet = take(buffer, offset + 8, offset + length - 4)
        return buffer, offset + length, packet

    def _count(self, counts: _Counts) -> None:
        self._counts = counts
        capture = self._capture
        capture.packets, capture.size_bytes, capture.truncated_packets = counts[:3]
        if counts.last_ns >= 0:
            capture.first_ns, capture.last_ns = counts.first_ns, counts.last_ns

    def _end(self, inside: bool) -> None:
        capture = self._capture
        if self._stream.damage:
            capture.anomalies[self._stream.damage] += 1
        elif inside:
            capture.anomalies["file ends inside a block"] += 1
        capture.broke_off = inside or bool(self._stream.damage)

    # --- blocks -----------------------------------------------------------------------------------

    def _measure(self, buffer: bytes, offset: int) -> tuple[int, bool]:
        """Return the length of the whole block at *offset*, and whether it is damaged.

        A length of 0 without damage means that more bytes are needed.
        """
        size = len(buffer)
        structs = self._structs
        if offset + 12 > size:
            return 0, False
        if buffer[offset : offset + 4] == SECTION_HEADER:
            # A section header has its own byte order, by the mark behind its length.
            order = _ORDERS.get(buffer[offset + 8 : offset + 12])
            if order is None:
                return 0, True
            structs = _STRUCTS[order]
        length: int = structs.block.unpack_from(buffer, offset)[1]
        # Some writers leave the padding out of the length. It is accepted if both lengths agree.
        if not 12 <= length <= _LONGEST_BLOCK_BYTES:
            return 0, True
        if offset + length > size:
            return 0, False
        if structs.length.unpack_from(buffer, offset + length - 4)[0] != length:
            return length, True
        return length, False

    def _wanted(self, buffer: bytes, offset: int) -> int:
        """Return the number of bytes that the incomplete block at *offset* needs."""
        if offset + 12 > len(buffer):
            return 12
        structs = self._structs
        if buffer[offset : offset + 4] == SECTION_HEADER:
            structs = _STRUCTS[_ORDERS[buffer[offset + 8 : offset + 12]]]
        return int(structs.block.unpack_from(buffer, offset)[1])

    def _mend(self, buffer: bytes, offset: int) -> tuple[bytes, int, int]:
        """Return a buffer, the offset of the next readable block in it, and its length.

        The offset is -1 if none is found; then the rest of the file is not read.
        """
        # The buffer is copied only to read more, because every block of a file may be damaged.
        if not self._stream.ended and len(buffer) - offset < 2 * _SEARCH_BYTES:
            buffer, offset = self._stream.extend(buffer[offset:], 2 * _SEARCH_BYTES), 0
        anomalies = self._capture.anomalies
        length, _ = self._measure(buffer, offset)
        if length and self._leads_on(buffer, offset + length, 1):
            anomalies["length behind a block differs from the one before it"] += 1
            return buffer, offset, length
        start = self._search(buffer, offset)
        if start > 0:
            return buffer, start, self._measure(buffer, start)[0]
        anomalies["block is damaged and none follows: the rest is not read"] += 1
        self._capture.broke_off = True
        return b"", -1, 0

    def _search(self, buffer: bytes, offset: int) -> int:
        """Return the offset behind *offset* where valid blocks continue; -1 if there is none nearby."""
        for start in range(offset + 1, min(offset + _SEARCH_BYTES, len(buffer) - 11)):
            if self._leads_on(buffer, start, 2):
                self._capture.anomalies["block is damaged, read on at the next one"] += 1
                return start
        return -1

    def _leads_on(self, buffer: bytes, offset: int, blocks: int) -> bool:
        """Return whether *blocks* undamaged blocks follow at *offset*, or fewer up to the end of the file."""
        for count in range(blocks):
            if offset >= len(buffer):
                return offset == len(buffer) and (count > 0 or (self._stream.ended and blocks == 1))
            if offset + 12 > len(buffer):
                return count > 0
            if self._structs.block.unpack_from(buffer, offset)[0] not in _KNOWN_TYPES:
                return False
            length, damaged = self._measure(buffer, offset)
            if damaged:
                return False
            if not length:
                return count > 0
            offset += length
        return True

    def _section(self, buffer: bytes, offset: int, end: int) -> None:
        self._structs = _STRUCTS[_ORDERS[buffer[offset + 8 : offset + 12]]]
        self._interfaces = []
        application = self._options(buffer, offset + 24, end).get(_APPLICATION, b"")
        self._is_extract = application.startswith(_EXTRACT)

    def _statistics(self, buffer: bytes, offset: int, end: int) -> PacketFields | None:
        """Use the statistics of an interface: packets that the kernel dropped, and the end of an extract.

        The end of an extract is that of the first interface that ended. It counts only if all packets of the
        extract are there: a tool that cuts packets off keeps these statistics, and the missing packets would
        look like silence.
        """
        if end - offset < 12:
            return None
        identifier = self._structs.length.unpack_from(buffer, offset)[0]
        if identifier >= len(self._interfaces):
            return None
        options = self._options(buffer, offset + 12, end)
        self._take_drops(identifier, self._time_ns(identifier, buffer[offset + 4 : offset + 12]), options)
        stamp, delivered = options.get(_END_TIME, b""), options.get(_DELIVERED, b"")
        if not self._is_extract or len(stamp) != 8 or len(delivered) != 8:
            return None
        ended_ns = self._time_ns(identifier, stamp)
        if 0 <= ended_ns < _END_OF_TIME_NS:
            self._ended_ns = min(ended_ns, self._ended_ns)
            self._delivered += struct.unpack(self._structs.order + "Q", delivered)[0]
            self._capture.ended_ns = self._ended_ns if self._delivered == self._counts.number else None
        return None

    def _secrets(self, buffer: bytes, offset: int, end: int) -> PacketFields | None:
        """Keep the TLS secrets of a decryption secrets block (section 4.7), for the decoders."""
        if end - offset < 8:
            return None
        kind, size = self._structs.block.unpack_from(buffer, offset)
        secrets = self._capture.secrets
        if kind == _TLS_KEY_LOG and sum(map(len, secrets)) < _MOST_SECRETS_BYTES:
            secrets.append(buffer[offset + 8 : min(offset + 8 + size, end)])
        return None

    def _time_ns(self, identifier: int, stamp: bytes) -> int:
        high, low = self._structs.block.unpack(stamp)
        _, _, _, multiplier, divisor, offset_ns = self._interfaces[identifier]
        return int((high << 32 | low) * multiplier // divisor + offset_ns)

    def _take_drops(self, identifier: int, time_ns: int, options: dict[int, bytes]) -> None:
        """Record packets that were dropped between the previous statistics of an interface and these.

        Counters are cumulative. A count before the first packet belongs to an earlier file of the recording.
        """
        counts = [options.get(code, b"") for code in (_DROPPED, _DROPPED_BY_OS)]
        count = max(
            (struct.unpack(self._structs.order + "Q", c)[0] for c in counts if len(c) == 8), default=0
        )
        key = self._interfaces[identifier].key
        before, since_ns = self._dropped.get(key, (0, None))
        if not self._counts.number or not 0 <= time_ns < _END_OF_TIME_NS:
            self._dropped[key] = (count, None)
            return
        if count > before:
            first_ns = since_ns if since_ns is not None else self._capture.first_ns
            begin_ns = min(first_ns if first_ns is not None else time_ns, time_ns)
            self._capture.drops.append((begin_ns, time_ns, count - before))
        self._dropped[key] = (count, time_ns)

    def _interface(self, buffer: bytes, offset: int, end: int) -> PacketFields | None:
        if end - offset < 8 or self._declared >= _MOST_INTERFACES:
            self._capture.anomalies["interface description is damaged"] += 1
            return None
        link_type, _, snap_bytes = struct.unpack_from(self._structs.order + "2HI", buffer, offset)
        options = self._options(buffer, offset + 8, end)
        name = options.get(_NAME) or options.get(_DESCRIPTION) or b""
        resolution = options.get(_RESOLUTION, b"\x06")[:1] or b"\x06"
        # The upper bit selects a power of 2 instead of 10; the default is 10**6.
        exponent = resolution[0] & 0x7F
        per_second = 1 << exponent if resolution[0] & 0x80 else 10**exponent
        multiplier, divisor = 1_000_000_000, per_second
        if 1_000_000_000 % per_second == 0:
            multiplier, divisor = 1_000_000_000 // per_second, 1
        shift = options.get(_OFFSET, b"")
        offset_s = struct.unpack(self._structs.order + "q", shift)[0] if len(shift) == 8 else 0
        key = self._declared
        self._declared += 1
        if name:
            self._capture.interfaces[key] = name.rstrip(b"\0").decode("utf-8", "replace")
        self._interfaces.append(
            _Interface(key, link_type, snap_bytes, multiplier, divisor, offset_s * 1_000_000_000)
        )
        return None

    def _options(self, buffer: bytes, offset: int, end: int) -> dict[int, bytes]:
        """Return the options of a block by their code; the first one of a repeated code."""
        found: dict[int, bytes] = {}
        two = struct.Struct(self._structs.order + "2H")
        while offset + 4 <= end:
            code, length = two.unpack_from(buffer, offset)
            offset += 4
            if code == 0 or offset + length > end:
                break
            found.setdefault(code, buffer[offset : offset + length])
            # Options are padded to 4 bytes.
            offset += length + (-length & 3)
        return found

    # --- packets ----------------------------------------------------------------------------------

    def _packet(self, buffer: bytes, offset: int, end: int) -> PacketFields | None:
        if end - offset < 20:
            self._count_unreadable("packet block is damaged")
            return None
        identifier, high, low, captured, wire = self._structs.packet.unpack_from(buffer, offset)
        return self._take(buffer, identifier, (high << 32) | low, offset + 20, captured, wire, end)

    def _old_packet(self, buffer: bytes, offset: int, end: int) -> PacketFields | None:
        if end - offset < 20:
            self._count_unreadable("packet block is damaged")
            return None
        identifier, _, high, low, captured, wire = self._structs.old_packet.unpack_from(buffer, offset)
        return self._take(buffer, identifier, (high << 32) | low, offset + 20, captured, wire, end)

    def _simple_packet(self, buffer: bytes, offset: int, end: int) -> PacketFields | None:
        """Return the packet of a simple packet block, which has no time: it gets the previous packet's."""
        if end - offset < 4 or not self._interfaces:
            self._count_unreadable("packet block is damaged")
            return None
        wire: int = self._structs.length.unpack_from(buffer, offset)[0]
        snap_bytes = self._interfaces[0].snap_bytes
        captured = min(wire, snap_bytes or wire, end - offset - 4)
        return self._take(buffer, 0, -1, offset + 4, captured, wire, end)

    def _take(
        self, buffer: bytes, identifier: int, stamp: int, start: int, captured: int, wire: int, end: int
    ) -> PacketFields | None:
        capture = self._capture
        if identifier >= len(self._interfaces):
            self._count_unreadable("packet of an interface that is not described")
            return None
        if captured > end - start:
            capture.anomalies["packet is longer than its block"] += 1
            captured = end - start
        key, link_type, _, multiplier, divisor, offset_ns = self._interfaces[identifier]
        number, size_bytes, truncated, first_ns, last_ns, time_ns = self._counts
        stamp_ns = time_ns if stamp < 0 else stamp * multiplier // divisor + offset_ns
        if 0 <= stamp_ns < _END_OF_TIME_NS:
            time_ns = stamp_ns
        else:
            capture.anomalies["time of a packet is damaged"] += 1
        number += 1
        self._count(
            _Counts(
                number,
                size_bytes + captured,
                truncated + (captured < wire),
                min(first_ns, time_ns),
                max(last_ns, time_ns),
                time_ns,
            )
        )
        data = buffer[start : start + captured]
        return time_ns, data, max(wire, captured), link_type, (capture.number, number), key

    def _count_unreadable(self, words: str) -> None:
        """Count a packet that cannot be read; it keeps its frame number."""
        self._capture.anomalies[words] += 1
        self._count(self._counts._replace(number=self._counts.number + 1))
