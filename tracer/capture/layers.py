"""Decoding of a packet to the TCP segment in it: link layer, VLAN tags, tunnels, IP, fragments.

Nearly every packet is Ethernet (or has the cooked header of `-i any`), IPv4 without options, and TCP. For
these, one `unpack_from` reads all headers. Any other packet is walked layer by layer: each layer moves the
walk behind its header and passes it to the next layer.

Checksums are not verified, because offloading leaves them empty in valid captures. Lengths come from the IP
header, not from the captured bytes, so padding is never taken for data, and it is known how much the snap
length cut.

A packet without TCP gives None. A packet that contradicts itself gives an anomaly, in words. Nothing is
raised.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, NamedTuple

from tracer.model import Frames, Packet, PacketFields, SegmentFields

__all__ = ["FAST", "NEVER", "FastPath", "Layers"]

# LINKTYPE_ numbers (tcpdump.org/linktypes.html).
NULL, ETHERNET, LOOP, COOKED, COOKED2 = 0, 1, 108, 113, 276
RAW_IP = frozenset((12, 14, 101, 228, 229))

# EtherTypes (IEEE 802 numbers of IANA). Besides 0x8100 and 0x88A8, old switches tag with 0x9100 and 0x9200.
_IPV4, _IPV6, _BRIDGED, _ERSPAN2, _ERSPAN3 = 0x0800, 0x86DD, 0x6558, 0x88BE, 0x22EB
_TAGS = frozenset((0x8100, 0x88A8, 0x9100, 0x9200))
_MPLS = frozenset((0x8847, 0x8848))
_TCP, _UDP, _IPIP, _IPV6_INSIDE, _GRE = 6, 17, 4, 41, 47
_WALKED = frozenset((_TCP, _UDP, _IPIP, _IPV6_INSIDE, _GRE))
"""Protocols that are TCP or may carry it; fragments of other protocols are not kept."""
# IPv6 extension headers (RFC 8200 section 4; IANA).
_FRAGMENT, _AUTHENTICATION = 44, 51
_EXTENSIONS = frozenset((0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140))
# 8472 is the default of Linux's VXLAN driver, which is older than the assigned 4789.
_VXLAN_PORTS, _GPE_PORT, _GENEVE_PORT = frozenset((4789, 8472)), 4790, 6081
_GPE_NEXT = {1: _IPV4, 2: _IPV6, 3: _BRIDGED}
_MOST_LAYERS = 16
"""Limit of nested headers: a packet can be built to nest without end."""
_LONGEST_PACKET_BYTES = 1 << 20
"""BIG TCP reaches 512 KiB; a longer length on the wire is damage."""
_TOO_DEEP = "more layers than can be true"

_HEADERS = "BxHHHxB2x12sIIBB"
"""IPv4 without options, then TCP: version and header length, length, id, fragment, protocol, addresses
and ports (one run of bytes: the flow), sequence, acknowledgement, header length, flags."""
Unpack = Callable[..., tuple[Any, ...]]
FastPath = tuple[int, int, Unpack, Unpack]
"""Least length of a packet with one VLAN tag, offset of IP, reader of all headers, and reader of all headers
behind one VLAN tag."""
# For link types without a fast path: no packet has this length.
NEVER: FastPath = (1 << 62, 0, struct.Struct("").unpack_from, struct.Struct("").unpack_from)
FAST: dict[int, FastPath] = {
    ETHERNET: (
        52,
        14,
        struct.Struct(f">12xH{_HEADERS}").unpack_from,
        struct.Struct(f">14xHH{_HEADERS}").unpack_from,
    ),
    COOKED: (
        54,
        16,
        struct.Struct(f">14xH{_HEADERS}").unpack_from,
        struct.Struct(f">16xHH{_HEADERS}").unpack_from,
    ),
    COOKED2: (
        58,
        20,
        struct.Struct(f">H18x{_HEADERS}").unpack_from,
        struct.Struct(f">20xHH{_HEADERS}").unpack_from,
    ),
}
"""By link type. The reader of pcap files reads with these, too."""
_TCP_HEADER = struct.Struct(">4sIIBB")
_IPV4_HEADER = struct.Struct(">BxHHHxB2x8s")
_IPV6_HEADER = struct.Struct(">4xHBx32s")

Decoded = SegmentFields | str | None
"""The TCP segment in a packet; or what is wrong with the packet, in words; or None without TCP."""


class _Walk:
    """A position in a packet, and the facts of its outer layers. Each layer moves it on."""

    __slots__ = ("data", "depth", "end", "frames", "offset", "packet", "tunnel", "vlan")

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.data = packet.data
        self.offset = 0
        self.end = max(min(packet.wire_bytes, _LONGEST_PACKET_BYTES), len(packet.data))
        """End of this layer on the wire; beyond the data if the snap length cut the packet."""
        self.frames: Frames = (packet.frame,)
        self.vlan = 0
        self.tunnel = b""
        self.depth = 0

    def goes_deeper(self) -> bool:
        """Count a layer; return False beyond the limit."""
        self.depth += 1
        return self.depth <= _MOST_LAYERS


class Layers:
    """Decodes the packets of one capture to TCP segments. Its only state are IP fragments that wait."""

    def __init__(self) -> None:
        self._fragments = Fragments()
        self.fragment_at = -1
        """Offset of the data of the first IP fragment in the latest `read`; -1 if there was none."""
        self.fragment_start = 0
        """Offset of that fragment in its datagram."""

    def read(
        self, packets: Iterable[PacketFields], anomalies: MutableMapping[str, int]
    ) -> list[SegmentFields]:
        """Return the TCP segments in *packets*; *anomalies* counts, in words, what is wrong with others.

        With several IP headers the innermost one counts, and the tunnel's number becomes a part of the flow.
        A fragment waits until its datagram is complete. The segment then has the frame of the latest
        fragment, followed by those of the others. The flags URG, ECE and CWR are dropped.

        Source: RFC 791 §3.1, RFC 8200, RFC 9293 §3.1; LINKTYPE_ registry of tcpdump.org.
        """
        segments: list[SegmentFields] = []
        # Locals: this loop runs once for each packet. The readers are looked up when the link type changes.
        append = segments.append
        self.fragment_at = known = -1
        fast_bytes, start, unpack, unpack_tagged = NEVER
        for packet in packets:
            time_ns, data, _, link_type, frame, interface = packet
            if link_type != known:
                known = link_type
                fast_bytes, start, unpack, unpack_tagged = FAST.get(link_type, NEVER)
            size = len(data)
            if size >= fast_bytes:
                kind, version, length, ip_id, fragment, protocol, flow, seq, ack, words, flags = unpack(data)
                begin, vlan = start, 0
                if kind == 0x8100:
                    tag, kind, version, length, ip_id, fragment, protocol, flow, *rest = unpack_tagged(data)
                    seq, ack, words, flags = rest
                    vlan = tag & 0xFFF
                    begin = start + 4
                # IPv4 without options, TCP, no fragment (more-fragments bit and offset are 0), and a TCP
                # header of at least 20 bytes.
                if (
                    kind == 0x0800
                    and version == 0x45
                    and protocol == 6
                    and not fragment & 0x3FFF
                    and words >= 0x50
                ):
                    end = begin + length
                    # The upper four bits count words of 4 bytes: shifted by 2, they are bytes.
                    begin += 20 + (words >> 2 & 0x3C)
                    # False for a total length of 0 (segmentation offload), which the slow path handles.
                    if begin <= end:
                        payload = data[begin:end]
                        missing = 0 if end <= size else end - begin - len(payload)
                        flags &= 0x1F
                        # fmt: off
                        append((time_ns, flow, seq, ack, flags, payload, missing, ip_id, (frame,),
                                vlan, interface))
                        # fmt: on
                        continue
            decoded = self._decode_slowly(Packet._make(packet))
            if type(decoded) is str:
                anomalies[decoded] = anomalies.get(decoded, 0) + 1
            elif decoded is not None:
                append(decoded)  # type: ignore[arg-type]
        return segments

    def flush(self) -> Iterator[str]:
        """Yield an anomaly for each fragmented datagram that was never complete."""
        for _ in range(self._fragments.drop_all()):
            yield "IP fragments of a datagram that never became complete"

    def _decode_slowly(self, packet: Packet) -> Decoded:
        walk = _Walk(packet)
        data, link_type = packet.data, packet.link_type
        if link_type == ETHERNET:
            return self._ethernet(walk)
        if link_type in RAW_IP:
            return self._ip(walk)
        if link_type in (COOKED, COOKED2):
            walk.offset, at = (16, 14) if link_type == COOKED else (20, 0)
            if len(data) < walk.offset:
                return "packet shorter than its cooked header"
            return self._ethertype(int.from_bytes(data[at : at + 2], "big"), walk)
        if link_type in (NULL, LOOP):
            if len(data) < 5:
                return "packet shorter than its loopback header"
            # The header is an address family in the numbering and byte order of the capturing host. The first
            # byte behind it shows the IP version more reliably.
            walk.offset = 4
            return self._ip(walk) if data[4] >> 4 in (4, 6) else None
        return f"link type {link_type} is not supported: tracer check --engine tshark may read it"

    # --- below IP ---------------------------------------------------------------------------------

    def _ethernet(self, walk: _Walk) -> Decoded:
        walk.offset += 14
        if len(walk.data) < walk.offset:
            return "packet shorter than its Ethernet header"
        return self._ethertype(int.from_bytes(walk.data[walk.offset - 2 : walk.offset], "big"), walk)

    def _ethertype(self, kind: int, walk: _Walk) -> Decoded:
        data = walk.data
        while kind in _TAGS:
            if len(data) < walk.offset + 4:
                return "packet ends inside a VLAN tag"
            tag, kind = struct.unpack_from(">2H", data, walk.offset)
            walk.offset += 4
            # The outermost tag is kept.
            walk.vlan = walk.vlan or tag & 0xFFF
        if kind in (_IPV4, _IPV6):
            return self._ip(walk)
        if kind == _BRIDGED:
            return self._ethernet(walk) if walk.goes_deeper() else _TOO_DEEP
        return self._mpls(walk) if kind in _MPLS else None

    def _mpls(self, walk: _Walk) -> Decoded:
        """Skip the labels (RFC 3032). IP follows, or a control word of zeros and Ethernet (RFC 4448)."""
        data = walk.data
        bottom = False
        while not bottom:
            if len(data) < walk.offset + 5:
                return "packet ends inside its MPLS labels"
            bottom = bool(data[walk.offset + 2] & 1)
            walk.offset += 4
        first = data[walk.offset] >> 4
        if first == 0:
            walk.offset += 4
            return self._ethernet(walk) if walk.goes_deeper() else _TOO_DEEP
        return self._ip(walk) if first in (4, 6) else None

    # --- IP ---------------------------------------------------------------------------------------

    def _ip(self, walk: _Walk) -> Decoded:
        if not walk.goes_deeper():
            return _TOO_DEEP
        if walk.offset >= len(walk.data):
            return "packet ends before its IP header"
        version = walk.data[walk.offset] >> 4
        if version == 4:
            return self._ipv4(walk)
        return self._ipv6(walk) if version == 6 else "IP version is neither 4 nor 6"

    def _ipv4(self, walk: _Walk) -> Decoded:
        data, offset = walk.data, walk.offset
        if len(data) < offset + 20:
            return "packet ends inside its IPv4 header"
        first, length, ip_id, fragment, protocol, addresses = _IPV4_HEADER.unpack_from(data, offset)
        header_bytes = (first & 15) * 4
        if header_bytes < 20:
            return "IPv4 header shorter than 20 bytes"
        # Length 0: the network card segments the packet, which is as long as on the wire.
        walk.end = offset + length if length else walk.end
        walk.offset += header_bytes
        if walk.offset > walk.end:
            return "IPv4 header longer than the packet"
        if fragment & 0x3FFF:
            start, more = (fragment & 0x1FFF) * 8, bool(fragment & 0x2000)
            return self._fragment(walk, protocol, addresses, ip_id, start, more, ip_id)
        return self._inside_ip(protocol, walk, addresses, ip_id)

    def _ipv6(self, walk: _Walk) -> Decoded:
        data, offset = walk.data, walk.offset
        if len(data) < offset + 40:
            return "packet ends inside its IPv6 header"
        length, protocol, addresses = _IPV6_HEADER.unpack_from(data, offset)
        offset += 40
        # Length 0: a jumbogram (BIG TCP), or the network card segments the packet.
        end = walk.end = offset + length if length else max(walk.end, offset)
        while protocol in _EXTENSIONS:
            if len(data) < offset + 8 or offset + 8 > end:
                return "packet ends inside its IPv6 extension headers"
            following, units = data[offset], data[offset + 1]
            if protocol == _FRAGMENT:
                fragment, identification = struct.unpack_from(">HI", data, offset + 2)
                offset += 8
                # A fragment header on a whole datagram (RFC 6946) makes no fragment.
                if fragment & 0xFFF9:
                    walk.offset = offset
                    start, more = fragment & 0xFFF8, bool(fragment & 1)
                    return self._fragment(walk, following, addresses, identification, start, more, 0)
            else:
                # AH counts words of 4 bytes less 2 (RFC 4302 section 2.2), other headers 8 bytes less the
                # first 8 (RFC 8200 section 4).
                offset += (units + 2) * 4 if protocol == _AUTHENTICATION else (units + 1) * 8
            protocol = following
        walk.offset = offset
        return self._inside_ip(protocol, walk, addresses, 0)

    def _inside_ip(self, protocol: int, walk: _Walk, addresses: bytes, ip_id: int) -> Decoded:
        if protocol == _TCP:
            return _tcp(walk, addresses, ip_id)
        if protocol == _UDP:
            return self._udp(walk)
        if protocol in (_IPIP, _IPV6_INSIDE):
            return self._ip(walk)
        return self._gre(walk) if protocol == _GRE else None

    def _fragment(
        self,
        walk: _Walk,
        protocol: int,
        addresses: bytes,
        identification: int,
        start: int,
        more: bool,
        ip_id: int,
    ) -> Decoded:
        """Keep a fragment; decode its datagram once it is complete."""
        if self.fragment_at < 0:
            self.fragment_at, self.fragment_start = walk.offset, start
        if protocol not in _WALKED:
            return None
        if not walk.goes_deeper():
            return _TOO_DEEP
        piece = Piece(start, start + walk.end - walk.offset, walk.data[walk.offset : walk.end])
        # A datagram is identified by addresses, protocol and identification (RFC 791 section 3.2).
        key = addresses + identification.to_bytes(4, "big") + bytes((protocol,)) + walk.tunnel
        whole = self._fragments.receive(key, walk.packet, piece, more)
        if whole is None or isinstance(whole, str):
            return whole
        walk.data, walk.end, walk.frames = whole
        walk.offset = 0
        return self._inside_ip(protocol, walk, addresses, ip_id)

    # --- tunnels ----------------------------------------------------------------------------------

    def _udp(self, walk: _Walk) -> Decoded:
        """Decode VXLAN (RFC 7348), VXLAN-GPE and Geneve (RFC 8926); other UDP gives None."""
        data, offset = walk.data, walk.offset
        # UDP header and tunnel header have 8 bytes each.
        if len(data) < offset + 16:
            return None
        port = int.from_bytes(data[offset + 2 : offset + 4], "big")
        flags = data[offset + 8]
        kind, header_bytes = _BRIDGED, 16
        if port == _GENEVE_PORT and flags >> 6 == 0:
            kind = int.from_bytes(data[offset + 10 : offset + 12], "big")
            header_bytes += (flags & 0x3F) * 4
        elif port == _GPE_PORT and flags & 0x0C == 0x0C:
            kind = _GPE_NEXT.get(data[offset + 11], 0)
        elif port not in _VXLAN_PORTS or not flags & 0x08:
            return None
        # The VNI: two networks may use the same addresses, so it becomes a part of the flow.
        walk.tunnel = b"\0" + data[offset + 12 : offset + 15]
        walk.offset += header_bytes
        return self._ethertype(kind, walk)

    def _gre(self, walk: _Walk) -> Decoded:
        """Decode GRE (RFC 2784, 2890) and ERSPAN, which mirrors packets of another link."""
        data, offset = walk.data, walk.offset
        if len(data) < offset + 4:
            return "packet ends inside its GRE header"
        flags, kind = struct.unpack_from(">2H", data, offset)
        if flags & 0x4007:
            # Source routing and version 1 (PPTP) are not used for what we decode.
            return None
        # Optional fields in this order: checksum (0x8000), key (0x2000), sequence number (0x1000).
        key_at = offset + (8 if flags & 0x8000 else 4)
        numbered = bool(flags & 0x1000)
        walk.offset = key_at + (4 if flags & 0x2000 else 0) + (4 if numbered else 0)
        if len(data) < walk.offset:
            return "packet ends inside its GRE header"
        if flags & 0x2000:
            walk.tunnel = data[key_at : key_at + 4]
        if kind == _ERSPAN2:
            # ERSPAN type I has no sequence number and no header of its own; type II has one of 8 bytes.
            walk.offset += 8 if numbered else 0
            kind = _BRIDGED
        elif kind == _ERSPAN3 and len(data) >= walk.offset + 12:
            # Type III: 12 bytes, and 8 more with the O bit.
            walk.offset += 20 if data[walk.offset + 11] & 1 else 12
            kind = _BRIDGED
        return self._ethertype(kind, walk)


def _tcp(walk: _Walk, addresses: bytes, ip_id: int) -> SegmentFields | str:
    data, offset, end = walk.data, walk.offset, walk.end
    if offset + 20 > end:
        return "TCP header longer than the packet"
    # The flags must be there; the rest of the header may be cut by the snap length.
    if len(data) < offset + 14:
        return "packet is cut inside its TCP header"
    ports, seq, ack, words, flags = _TCP_HEADER.unpack_from(data, offset)
    if words < 0x50:
        return "TCP header shorter than 20 bytes"
    begin = offset + (words >> 4) * 4
    if begin > end:
        return "TCP header longer than the packet"
    payload = data[begin:end]
    packet, flow = walk.packet, addresses + ports + walk.tunnel
    missing_bytes = end - begin - len(payload)
    first = (packet.time_ns, flow, seq, ack, flags & 0x1F, payload, missing_bytes, ip_id)
    return (*first, walk.frames, walk.vlan, packet.interface)


# --- fragments ------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """The part of a datagram in one fragment, from *start* to *end*; `data` is shorter if it was cut."""

    start: int
    end: int
    data: bytes


class Datagram:
    """The fragments of one datagram, in order of arrival."""

    __slots__ = ("first_ns", "frames", "pieces", "size_bytes", "total_bytes")

    def __init__(self, first_ns: int) -> None:
        self.first_ns = first_ns
        self.frames: Frames = ()
        self.pieces: list[Piece] = []
        self.size_bytes = 0
        self.total_bytes: int | None = None
        """None before the last fragment, which alone shows it."""

    def is_complete(self) -> bool:
        """Return whether the fragments cover the datagram without a hole."""
        # The sum of the sizes first: it excludes most cases without sorting.
        if self.total_bytes is None or self.size_bytes < self.total_bytes:
            return False
        reached = 0
        for start, end, _ in sorted(self.pieces):
            if start > reached:
                return False
            reached = max(reached, end)
        return reached >= self.total_bytes

    def assembled(self) -> bytes:
        """Return the bytes up to the first uncaptured one; of overlapping fragments the earlier counts."""
        # In reverse order of arrival, so that earlier fragments overwrite later ones.
        data = bytearray(max(piece.end for piece in self.pieces))
        for piece in reversed(self.pieces):
            data[piece.start : piece.start + len(piece.data)] = piece.data
        captured = 0
        for start, _, part in sorted(self.pieces):
            if start > captured:
                break
            captured = max(captured, start + len(part))
        return bytes(data[: min(captured, self.total_bytes or 0)])


class Fragments:
    """Datagrams that wait for fragments: bounded in number, bytes and capture time."""

    TIMEOUT_NS = 30_000_000_000
    """Linux waits as long for IPv4 (ipfrag_time)."""
    MOST_DATAGRAMS = 256
    MOST_BYTES = 4 << 20
    MOST_PIECES = 512
    """Limit of the fragments of one datagram; with an MTU of 576 the largest one has about 120."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, Datagram] = OrderedDict()
        self._size_bytes = 0
        self._given_up = 0

    def receive(
        self, key: bytes, packet: Packet, piece: Piece, more: bool
    ) -> tuple[bytes, int, Frames] | str | None:
        """Return the datagram that *piece* completes: its captured bytes, its length, its frames.

        None while fragments are missing; an anomaly, in words, if the fragments contradict each other.
        """
        self._expire(packet.time_ns)
        datagram = self._waiting.get(key)
        if datagram is None:
            datagram = self._waiting[key] = Datagram(packet.time_ns)
        if not more and datagram.total_bytes is None:
            datagram.total_bytes = piece.end
        if len(datagram.pieces) >= self.MOST_PIECES or piece.end > (datagram.total_bytes or piece.end):
            self._forget(key)
            return "IP fragments contradict each other"
        datagram.pieces.append(piece)
        datagram.frames = (packet.frame, *datagram.frames)
        datagram.size_bytes += piece.end - piece.start
        self._size_bytes += len(piece.data)
        if not datagram.is_complete():
            self._shrink()
            return None
        self._forget(key)
        latest, *earlier = datagram.frames
        return datagram.assembled(), datagram.total_bytes or 0, (latest, *reversed(earlier))

    def drop_all(self) -> int:
        """Drop all waiting datagrams; return how many were never completed since the last call."""
        given_up = self._given_up + len(self._waiting)
        self._waiting.clear()
        self._size_bytes = self._given_up = 0
        return given_up

    def _expire(self, now_ns: int) -> None:
        while self._waiting:
            key, oldest = next(iter(self._waiting.items()))
            if now_ns - oldest.first_ns <= self.TIMEOUT_NS:
                return
            self._forget(key)
            self._given_up += 1

    def _shrink(self) -> None:
        while len(self._waiting) > self.MOST_DATAGRAMS or self._size_bytes > self.MOST_BYTES:
            self._forget(next(iter(self._waiting)))
            self._given_up += 1

    def _forget(self, key: bytes) -> None:
        self._size_bytes -= sum(len(piece.data) for piece in self._waiting.pop(key).pieces)
