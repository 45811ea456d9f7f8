"""From a packet to the TCP segment inside it: link layer, VLAN tags, tunnels, IP, fragments.

Nearly every packet is Ethernet (or `-i any`'s cooked header), IPv4 without options, TCP: those take
one `unpack_from` for all headers. Everything else is walked layer by layer, each layer a function
that takes the rest of the packet and hands the rest of that to the next. Checksums are not verified:
offloading leaves them unfilled in honest captures. Lengths come from the IP header, not from what was
captured, so padding never shows and what the snap length cut is known.

What has no TCP in it is None; what contradicts itself is an anomaly, in words; nothing is raised.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from tracer.model import Frames, Packet, Segment

__all__ = ["Layers"]

NULL, ETHERNET, LOOP, COOKED, COOKED2 = 0, 1, 108, 113, 276
RAW_IP = frozenset((12, 14, 101, 228, 229))

_IPV4, _IPV6, _BRIDGED, _CISCO_ERSPAN2, _CISCO_ERSPAN3 = 0x0800, 0x86DD, 0x6558, 0x88BE, 0x22EB
_TAGS = frozenset((0x8100, 0x88A8, 0x9100, 0x9200))
_MPLS = frozenset((0x8847, 0x8848))
_TCP, _UDP, _IPIP, _IPV6_INSIDE, _GRE = 6, 17, 4, 41, 47
_HOP_BY_HOP, _ROUTING, _FRAGMENT, _AUTHENTICATION, _DESTINATION, _MOBILITY = 0, 43, 44, 51, 60, 135
_WALKED = frozenset((_TCP, _UDP, _IPIP, _IPV6_INSIDE, _GRE))
"""Protocols that are, or may carry, TCP: fragments of others are not kept."""
_VXLAN_PORTS, _GPE_PORT, _GENEVE_PORT = frozenset((4789, 8472)), 4790, 6081
_GPE_NEXT = {1: _IPV4, 2: _IPV6, 3: _BRIDGED}
_NO_MORE_THAN = 16
"""Layers (tags, IP headers, tunnels) in one packet: a packet can be built to never end."""
_FLAGS = 0x1F

_HEADERS = "BxHHHxB2x12sIIBB"
"""IPv4 without options, then TCP: version and header length, length, id, fragment, protocol, addresses
and ports (one run of bytes: the flow), sequence, acknowledgement, header length, flags."""
_FAST = {
    ETHERNET: (14, struct.Struct(f">12xH{_HEADERS}").unpack_from, struct.Struct(f">14xHH{_HEADERS}").unpack_from),
    COOKED: (16, struct.Struct(f">14xH{_HEADERS}").unpack_from, struct.Struct(f">16xHH{_HEADERS}").unpack_from),
    COOKED2: (20, struct.Struct(f">H18x{_HEADERS}").unpack_from, struct.Struct(f">20xHH{_HEADERS}").unpack_from),
}
"""By link type: where IP begins, how to read all headers at once, and how behind one VLAN tag."""
_FAST_BYTES = 58
"""The longest of these: a tagged cooked packet."""
_new = tuple.__new__
_TCP_HEADER = struct.Struct(">4sIIBB")
_IPV4_HEADER = struct.Struct(">BxHHHxB2x4s4s")
_IPV6_HEADER = struct.Struct(">4xHBx16s16s")


class _Walk:
    """Where we are in a packet, and what its outer layers said. Each layer moves it on."""

    __slots__ = ("data", "depth", "end", "frames", "offset", "packet", "tunnel", "vlan")

    def __init__(self, packet: Packet) -> None:
        self.packet = packet
        self.data = packet.data
        self.offset = 0
        self.end = max(packet.wire_bytes, len(packet.data))
        """Where this layer ends on the wire; behind the data when the snap length cut it."""
        self.frames: Frames = (packet.frame,)
        self.vlan = 0
        self.tunnel = b""
        self.depth = 0


class Layers:
    """Finds the TCP segments in the packets of one capture; remembers IP fragments, nothing else."""

    def __init__(self) -> None:
        self._fragments = Fragments()

    def decode(self, packet: Packet) -> Segment | str | None:
        """Return the TCP segment in *packet*, None if it has none, or what is wrong with it, in words.

        Of several IP headers the innermost counts, and the tunnel's number becomes part of the flow. A
        fragment is None until its datagram is complete; the segment then has the frame of the fragment
        that came last, followed by the others. URG, ECE and CWR are not kept in the flags.

        Source: RFC 791 §3.1, RFC 8200, RFC 9293 §3.1; LINKTYPE_ registry of tcpdump.org.
        """
        time_ns, data, _, link_type, frame, interface = packet
        fast = _FAST.get(link_type)
        size = len(data)
        if fast is not None and size >= _FAST_BYTES:
            start, unpack, unpack_tagged = fast
            kind, version, length, ip_id, fragment, protocol, flow, seq, ack, words, flags = unpack(data)
            vlan = 0
            if kind == 0x8100:
                tag, kind, version, length, ip_id, fragment, protocol, flow, *rest = unpack_tagged(data)
                seq, ack, words, flags = rest
                vlan = tag & 0xFFF
                start += 4
            if kind == 0x0800 and version == 0x45 and protocol == 6 and not fragment & 0x3FFF and words >= 0x50:
                begin = start + 20 + (words >> 2 & 0x3C)
                end = start + length
                if begin <= end:
                    payload = data[begin:end]
                    missing = 0 if end <= size else end - begin - len(payload)
                    flags &= 0x1F
                    return _new(
                        Segment,
                        (time_ns, flow, seq, ack, flags, payload, missing, ip_id, (frame,), vlan, interface),
                    )
        return self._decode_slowly(packet)

    def flush(self) -> Iterator[str]:
        """Yield an anomaly for each fragmented datagram that never became complete."""
        for _ in range(self._fragments.drop_all()):
            yield "IP fragments of a datagram that never became complete"

    def _decode_slowly(self, packet: Packet) -> Segment | str | None:
        data = packet.data
        link_type = packet.link_type
        walk = _Walk(packet)
        if link_type == ETHERNET:
            return self._ethernet(walk)
        if link_type in RAW_IP:
            return self._ip(walk)
        if link_type in (COOKED, COOKED2):
            header_bytes, at = (16, 14) if link_type == COOKED else (20, 0)
            if len(data) < header_bytes:
                return "packet shorter than its cooked header"
            kind = int.from_bytes(data[at : at + 2], "big")
            return self._ethertype(kind, walk._replace(offset=header_bytes))
        if link_type in (NULL, LOOP):
            if len(data) < 4:
                return "packet shorter than its loopback header"
            # The family of an address, in the byte order of whoever captured: the bytes behind tell.
            return self._ip(walk._replace(offset=4)) if data[4:5] and data[4] >> 4 in (4, 6) else None
        return f"link type {link_type} is not supported"

    # --- below IP ---------------------------------------------------------------------------------

    def _ethernet(self, walk: _Walk) -> Segment | str | None:
        offset = walk.offset
        if len(walk.data) < offset + 14:
            return "packet shorter than its Ethernet header"
        kind = int.from_bytes(walk.data[offset + 12 : offset + 14], "big")
        return self._ethertype(kind, walk._replace(offset=offset + 14))

    def _ethertype(self, kind: int, walk: _Walk) -> Segment | str | None:
        depth = walk.depth + 1
        if depth > _NO_MORE_THAN:
            return "more layers than can be true"
        if kind in (_IPV4, _IPV6):
            return self._ip(walk)
        data, offset = walk.data, walk.offset
        if kind in _TAGS:
            if len(data) < offset + 4:
                return "packet ends inside a VLAN tag"
            tag, kind = struct.unpack_from(">2H", data, offset)
            return self._ethertype(
                kind, walk._replace(offset=offset + 4, vlan=walk.vlan or tag & 0xFFF, depth=depth)
            )
        if kind == _BRIDGED:
            return self._ethernet(walk._replace(depth=depth))
        return self._mpls(walk._replace(depth=depth)) if kind in _MPLS else None

    def _mpls(self, walk: _Walk) -> Segment | str | None:
        """RFC 3032; an Ethernet pseudowire has a control word of zeros, RFC 4448."""
        data, offset = walk.data, walk.offset
        for _ in range(_NO_MORE_THAN):
            if len(data) < offset + 5:
                return "packet ends inside its MPLS labels"
            bottom = data[offset + 2] & 1
            offset += 4
            if bottom:
                break
        else:
            return "more layers than can be true"
        first = data[offset] >> 4
        if first == 0:
            return self._ethernet(walk._replace(offset=offset + 4))
        return self._ip(walk._replace(offset=offset)) if first in (4, 6) else None

    # --- IP ---------------------------------------------------------------------------------------

    def _ip(self, walk: _Walk) -> Segment | str | None:
        if walk.depth >= _NO_MORE_THAN:
            return "more layers than can be true"
        if walk.offset >= len(walk.data):
            return "packet ends before its IP header"
        version = walk.data[walk.offset] >> 4
        if version == 4:
            return self._ipv4(walk._replace(depth=walk.depth + 1))
        if version == 6:
            return self._ipv6(walk._replace(depth=walk.depth + 1))
        return "IP version is neither 4 nor 6"

    def _ipv4(self, walk: _Walk) -> Segment | str | None:
        data, offset = walk.data, walk.offset
        if len(data) < offset + 20:
            return "packet ends inside its IPv4 header"
        first, length, ip_id, fragment, protocol, source, target = _IPV4_HEADER.unpack_from(data, offset)
        header_bytes = (first & 15) * 4
        # Length 0: segmentation was left to the network card, and the packet is as long as the wire's.
        end = offset + length if length else walk.end
        if header_bytes < 20:
            return "IPv4 header shorter than 20 bytes"
        if offset + header_bytes > end:
            return "IPv4 header longer than the packet"
        rest = walk._replace(offset=offset + header_bytes, end=end)
        if fragment & 0x3FFF:
            key = source + target + ip_id.to_bytes(4, "big") + bytes((protocol,)) + walk.tunnel
            return self._fragment(rest, key, protocol, fragment, source + target, ip_id)
        return self._inside_ip(protocol, rest, source + target, ip_id)

    def _ipv6(self, walk: _Walk) -> Segment | str | None:
        data, offset = walk.data, walk.offset
        if len(data) < offset + 40:
            return "packet ends inside its IPv6 header"
        length, protocol, source, target = _IPV6_HEADER.unpack_from(data, offset)
        # Length 0: a jumbogram (BIG TCP) or segmentation left to the network card.
        end = offset + 40 + length if length else walk.end
        offset += 40
        for _ in range(_NO_MORE_THAN):
            if protocol == _FRAGMENT:
                if len(data) < offset + 8 or offset + 8 > end:
                    return "packet ends inside its IPv6 extension headers"
                protocol, fragment, identification = struct.unpack_from(">BxHI", data, offset)
                offset += 8
                if fragment & 0xFFF9:
                    key = source + target + identification.to_bytes(4, "big") + walk.tunnel
                    # As in IPv4: offset in units of 8 bytes, bit 13 for 'more follow'.
                    alike = (fragment & 1) << 13 | fragment >> 3
                    rest = walk._replace(offset=offset, end=end)
                    return self._fragment(rest, key, protocol, alike, source + target, 0)
                continue
            if protocol not in (_HOP_BY_HOP, _ROUTING, _DESTINATION, _AUTHENTICATION, _MOBILITY):
                rest = walk._replace(offset=offset, end=end)
                return self._inside_ip(protocol, rest, source + target, 0)
            if len(data) < offset + 2 or offset + 8 > end:
                return "packet ends inside its IPv6 extension headers"
            following, units = data[offset], data[offset + 1]
            offset += (units + 2) * 4 if protocol == _AUTHENTICATION else (units + 1) * 8
            protocol = following
        return "more layers than can be true"

    def _fragment(
        self, walk: _Walk, key: bytes, protocol: int, fragment: int, addresses: bytes, ip_id: int
    ) -> Segment | str | None:
        """Keep a fragment; go on with its datagram once that is complete."""
        if protocol not in _WALKED:
            return None
        start = (fragment & 0x1FFF) * 8
        piece = Piece(start, start + walk.end - walk.offset, walk.data[walk.offset : walk.end])
        if piece.end > 65_535 + 8:
            return "IP fragment ends behind the longest datagram"
        whole = self._fragments.receive(key, walk.packet, piece, bool(fragment & 0x2000))
        if whole is None or isinstance(whole, str):
            return whole
        data, size_bytes, frames = whole
        return self._inside_ip(
            protocol, walk._replace(data=data, offset=0, end=size_bytes, frames=frames), addresses, ip_id
        )

    def _inside_ip(self, protocol: int, walk: _Walk, addresses: bytes, ip_id: int) -> Segment | str | None:
        if protocol == _TCP:
            return _tcp(rest, addresses, ip_id)
        if protocol == _UDP:
            return self._udp(walk)
        if protocol in (_IPIP, _IPV6_INSIDE):
            return self._ip(walk)
        return self._gre(walk) if protocol == _GRE else None

    # --- tunnels ----------------------------------------------------------------------------------

    def _udp(self, walk: _Walk) -> Segment | str | None:
        """Look into VXLAN (RFC 7348), VXLAN-GPE and Geneve (RFC 8926); other UDP is None."""
        data, offset = walk.data, walk.offset
        if len(data) < offset + 16:
            return None
        port = int.from_bytes(data[offset + 2 : offset + 4], "big")
        flags = data[offset + 8]
        if port in _VXLAN_PORTS or port == _GPE_PORT:
            if not flags & 0x08:
                return None
            kind = _GPE_NEXT.get(data[offset + 11], 0) if port == _GPE_PORT and flags & 0x04 else _BRIDGED
            header_bytes = 16
        elif port == _GENEVE_PORT and flags >> 6 == 0:
            kind = int.from_bytes(data[offset + 10 : offset + 12], "big")
            header_bytes = 16 + (flags & 0x3F) * 4
        else:
            return None
        tunnel = b"\0" + data[offset + 12 : offset + 15]
        return self._ethertype(kind, walk._replace(offset=offset + header_bytes, tunnel=tunnel))

    def _gre(self, walk: _Walk) -> Segment | str | None:
        """Look into GRE (RFC 2784, 2890) and ERSPAN, which mirrors and is no tunnel of the flow's own."""
        data, offset = walk.data, walk.offset
        if len(data) < offset + 4:
            return "packet ends inside its GRE header"
        flags, kind = struct.unpack_from(">2H", data, offset)
        if flags & 0x4007:
            # Source routing and version 1 (PPTP) carry nothing that we look for.
            return None
        offset += 8 if flags & 0x8000 else 4
        tunnel = walk.tunnel
        if flags & 0x2000:
            tunnel = data[offset : offset + 4]
            offset += 4
        offset += 4 if flags & 0x1000 else 0
        if len(data) < offset:
            return "packet ends inside its GRE header"
        if kind == _CISCO_ERSPAN2:
            kind, offset = _BRIDGED, offset + (8 if flags & 0x1000 else 0)
        elif kind == _CISCO_ERSPAN3:
            optional = data[offset + 11] & 1 if len(data) > offset + 11 else 0
            kind, offset = _BRIDGED, offset + 12 + 8 * optional
        return self._ethertype(kind, walk._replace(offset=offset, tunnel=tunnel))


def _tcp(walk: _Walk, addresses: bytes, ip_id: int) -> Segment | str:
    packet, data, offset, end, frames, vlan, tunnel, _ = rest
    if offset + 20 > end:
        return "TCP header longer than the packet"
    if len(data) < offset + 14:
        return "packet is cut inside its TCP header"
    ports, seq, ack, words, flags = _TCP_HEADER.unpack_from(data, offset)
    if words < 0x50:
        return "TCP header shorter than 20 bytes"
    begin = offset + (words >> 4) * 4
    if begin > end:
        return "TCP header longer than the packet"
    payload = data[begin:end]
    return Segment(
        packet.time_ns,
        addresses + ports + tunnel,
        seq,
        ack,
        flags & _FLAGS,
        payload,
        end - begin - len(payload),
        ip_id,
        frames,
        vlan,
        packet.interface,
    )


# --- fragments ------------------------------------------------------------------------------------


class Piece(NamedTuple):
    """One fragment's part of a datagram, from *start* to *end*; the data is shorter when it was cut."""

    start: int
    end: int
    data: bytes


class Datagram:
    """Fragments of one datagram, in the order they came."""

    __slots__ = ("first_ns", "frames", "pieces", "size_bytes", "total_bytes")

    def __init__(self, first_ns: int) -> None:
        self.first_ns = first_ns
        self.frames: Frames = ()
        self.pieces: list[Piece] = []
        self.size_bytes = 0
        self.total_bytes: int | None = None
        """Known with the last fragment."""

    def is_complete(self) -> bool:
        if self.total_bytes is None or self.size_bytes < self.total_bytes:
            return False
        reached = 0
        for start, end, _ in sorted(self.pieces):
            if start > reached:
                return False
            reached = max(reached, end)
        return reached >= self.total_bytes

    def assembled(self) -> bytes:
        """Return its bytes up to the first one that was not captured; where fragments overlap, the first wins."""
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
    MOST_DATAGRAMS = 256
    MOST_BYTES = 4 << 20
    MOST_PIECES = 512
    """Of one datagram: the smallest MTU of the Internet makes about 120."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[bytes, Datagram] = OrderedDict()
        self._size_bytes = 0
        self._given_up = 0

    def receive(self, key: bytes, packet: Packet, piece: Piece, more: bool) -> tuple[bytes, int, Frames] | str | None:
        """Return the datagram that *piece* completes: its captured bytes, its length and its frames.

        None while others are missing; an anomaly when the fragments contradict each other.
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
        """Forget what waits and return how many datagrams were never completed, in all."""
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


