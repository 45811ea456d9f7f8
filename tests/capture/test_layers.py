"""From the bytes of a packet to its TCP segment, through every layer that may be around it."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.long import examples
from lab.reading import segment_of
from scapy.contrib.erspan import ERSPAN_II
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    fragment6,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, GRE, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether, Loopback
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet as Built
from scapy.packet import Raw

from tracer.capture.layers import Fragments, Layers
from tracer.model import Packet, Segment

PAYLOAD = b"GET / HTTP/1.1\r\n\r\n"
SECOND = 1_000_000_000
FLOW4 = bytes([10, 0, 0, 1, 10, 0, 0, 2]) + struct.pack(">2H", 40000, 8774)
FLOW6 = (
    socket.inet_pton(socket.AF_INET6, "fd00::1") + socket.inet_pton(socket.AF_INET6, "fd00::2") + FLOW4[8:]
)


def ether(**fields: Any) -> Built:
    # With both addresses: scapy asks the network for one that is left out, and waits for the answer.
    return Ether(src="52:54:00:00:00:01", dst="52:54:00:00:00:02", **fields)


def ip4(**fields: Any) -> Built:
    return IP(src="10.0.0.1", dst="10.0.0.2", id=77, **fields)


def ip6(**fields: Any) -> Built:
    return IPv6(src="fd00::1", dst="fd00::2", **fields)


def tcp(**fields: Any) -> Built:
    return TCP(sport=40000, dport=8774, seq=1000, ack=2000, flags="PA", **fields) / Raw(PAYLOAD)


def packet(
    built: Built | bytes, link_type: int = 1, number: int = 1, wire: int = 0, time_ns: int = 5
) -> Packet:
    data = bytes(built)
    return Packet(time_ns, data, max(wire, len(data)), link_type, (2, number), 9)


def decode(built: Built | bytes, link_type: int = 1, wire: int = 0) -> Segment | str | None:
    return segment_of(Layers(), packet(built, link_type, wire=wire))


def segment(flow: bytes = FLOW4, ip_id: int = 77, vlan: int = 0, **changes: Any) -> Segment:
    whole = Segment(5, flow, 1000, 2000, 24, PAYLOAD, 0, ip_id, ((2, 1),), vlan, 9)
    return whole._replace(**changes)


OUTER = ether() / IP(src="192.0.2.1", dst="192.0.2.2", id=5)
OUTER6 = ether() / IPv6(src="2001:db8::1", dst="2001:db8::2")
INNER = ether() / ip4() / tcp()

# --- what is around it ----------------------------------------------------------------------------

LINKS = [
    (1, ether() / ip4() / tcp()),
    (113, CookedLinux(proto=0x0800) / ip4() / tcp()),
    (276, CookedLinuxV2(proto=0x0800) / ip4() / tcp()),
    (0, Loopback(type=2) / ip4() / tcp()),
    (0, b"\x02\0\0\0" + bytes(ip4() / tcp())),
    (108, b"\0\0\0\x02" + bytes(ip4() / tcp())),
    (101, ip4() / tcp()),
    (12, ip4() / tcp()),
    (14, ip4() / tcp()),
    (228, ip4() / tcp()),
]


@pytest.mark.parametrize(("link_type", "built"), LINKS)
def test_link_types_over_ipv4(link_type: int, built: Built | bytes) -> None:
    """The segment is the same on every link layer."""
    assert decode(built, link_type) == segment()


@pytest.mark.parametrize(
    ("link_type", "built"),
    [
        (1, ether() / ip6() / tcp()),
        (113, CookedLinux(proto=0x86DD) / ip6() / tcp()),
        (276, CookedLinuxV2(proto=0x86DD) / ip6() / tcp()),
        (0, b"\x1e\0\0\0" + bytes(ip6() / tcp())),
        (108, b"\0\0\0\x18" + bytes(ip6() / tcp())),
        (101, ip6() / tcp()),
        (229, ip6() / tcp()),
    ],
)
def test_link_types_over_ipv6(link_type: int, built: Built | bytes) -> None:
    """IPv6 has addresses of 16 bytes in its flow, and no identification."""
    assert decode(built, link_type) == segment(FLOW6, 0)


def cooked_tag(vlan: int) -> bytes:
    header = bytearray(bytes(CookedLinuxV2(proto=0x8100)))
    return bytes(header) + struct.pack(">2H", vlan, 0x0800) + bytes(ip4() / tcp())


@pytest.mark.parametrize(
    ("built", "link_type", "vlan"),
    [
        (ether() / Dot1Q(vlan=101) / ip4() / tcp(), 1, 101),
        (ether() / Dot1Q(vlan=101, prio=7) / ip4() / tcp(), 1, 101),
        (ether() / Dot1AD(vlan=7) / Dot1Q(vlan=101) / ip4() / tcp(), 1, 7),
        (ether() / Dot1Q(vlan=7) / Dot1Q(vlan=101) / ip4() / tcp(), 1, 7),
        (ether() / Dot1Q(vlan=0) / Dot1Q(vlan=101) / ip4() / tcp(), 1, 101),
        (ether(type=0x9100) / Dot1Q(vlan=3, type=0x8100) / Dot1Q(vlan=4) / ip4() / tcp(), 1, 3),
        (ether() / Dot1Q(vlan=101) / ip4(options=[IPOption_NOP()] * 4) / tcp(), 1, 101),
        (cooked_tag(42), 276, 42),
    ],
)
def test_the_outermost_tag_is_the_vlan(built: Built | bytes, link_type: int, vlan: int) -> None:
    """Tags may be nested; the outermost one that holds a number counts."""
    assert decode(built, link_type) == segment(vlan=vlan)


@pytest.mark.parametrize(
    ("built", "tunnel"),
    [
        (OUTER / UDP(dport=4789) / VXLAN(vni=0xABCDEF) / INNER, b"\0\xab\xcd\xef"),
        (OUTER6 / UDP(dport=4789) / VXLAN(vni=7) / INNER, b"\0\0\0\7"),
        (OUTER / UDP(dport=8472) / VXLAN(vni=7) / INNER, b"\0\0\0\7"),
        (OUTER / UDP(dport=4790) / (b"\x0c\0\0\1" + b"\0\0\7\0" + bytes(ip4() / tcp())), b"\0\0\0\7"),
        (OUTER / UDP(dport=6081) / GENEVE(vni=7) / INNER, b"\0\0\0\7"),
        (
            OUTER / UDP(dport=6081) / GENEVE(vni=7, options=[GeneveOptions(data=b"abcd")] * 3) / INNER,
            b"\0\0\0\7",
        ),
        (OUTER / UDP(dport=6081) / GENEVE(vni=7, proto=0x0800) / ip4() / tcp(), b"\0\0\0\7"),
        (OUTER / GRE() / ip4() / tcp(), b""),
        (OUTER / GRE(chksum_present=1) / ip4() / tcp(), b""),
        (OUTER / GRE(key_present=1, key=0x01020304) / ip4() / tcp(), b"\1\2\3\4"),
        (
            OUTER / GRE(chksum_present=1, key_present=1, key=9, seqnum_present=1) / ip4() / tcp(),
            b"\0\0\0\x09",
        ),
        (OUTER / GRE(proto=0x6558, key_present=1, key=9) / INNER, b"\0\0\0\x09"),
        (OUTER / GRE(proto=0x88BE, seqnum_present=1) / ERSPAN_II(session_id=5) / INNER, b""),
        (OUTER / GRE(proto=0x88BE) / INNER, b""),
        (OUTER / ip4() / tcp(), b""),
        (OUTER6 / ip4() / tcp(), b""),
        (ether() / MPLS(label=16, s=0) / MPLS(label=17, s=1) / ip4() / tcp(), b""),
        (ether() / MPLS(label=16, s=1) / Raw(bytes(4) + bytes(INNER)), b""),
    ],
)
def test_tunnels(built: Built, tunnel: bytes) -> None:
    """The innermost addresses and ports count; the tunnel's number, where it has one, is part of the flow."""
    assert decode(built) == segment(FLOW4 + tunnel)


def test_a_tunnel_s_vlan_is_the_outermost() -> None:
    """A tag outside a tunnel hides the one inside; without it, the inner one counts."""
    inner = ether() / Dot1Q(vlan=9) / ip4() / tcp()
    outer = IP() / UDP(dport=4789) / VXLAN(vni=7) / inner
    found = [decode(ether() / Dot1Q(vlan=3) / outer), decode(ether() / outer)]
    assert [each.vlan for each in found if isinstance(each, Segment)] == [3, 9]


@pytest.mark.parametrize(
    "built",
    [
        ether() / ip6() / IPv6ExtHdrHopByHop() / tcp(),
        ether() / ip6() / IPv6ExtHdrDestOpt() / tcp(),
        ether() / ip6() / IPv6ExtHdrRouting(addresses=["fd00::9"]) / tcp(),
        ether() / ip6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrFragment(id=1) / tcp(),
        ether() / ip6(nh=51) / AH(nh=6, payloadlen=4, icv=bytes(12)) / tcp(),
    ],
)
def test_ipv6_extension_headers(built: Built) -> None:
    """Extension headers are passed, atomic fragments (RFC 6946) among them."""
    assert decode(built) == segment(FLOW6, 0)


def test_ipv4_options() -> None:
    """IPv4 and TCP options are no payload."""
    built = ether() / ip4(options=[IPOption_NOP()] * 8) / tcp(options=[("MSS", 1460), ("Timestamp", (1, 2))])
    assert decode(built) == segment()


@pytest.mark.parametrize(
    "built",
    [
        ether() / ARP(),
        ether() / ip4() / UDP(dport=53) / Raw(b"x" * 40),
        ether() / ip4() / UDP(dport=4789) / Raw(bytes(40)),
        ether() / ip4() / ICMP(type=3) / ip4() / tcp(),
        ether(type=0x88CC) / Raw(b"lldp"),
        OUTER / GRE(version=1) / Raw(b"pptp"),
        b"\xff" * 12 + b"\0\x26" + b"B" * 38,
    ],
)
def test_what_has_no_tcp_is_none(built: Built | bytes) -> None:
    """Other traffic is nothing to count: ARP, UDP, ICMP (though it quotes TCP), 802.3 …"""
    assert decode(built) is None


# --- lengths --------------------------------------------------------------------------------------


def test_padding_never_shows() -> None:
    """An acknowledgement in a padded frame of 60 bytes has no payload."""
    built = bytes(ether() / ip4() / TCP(sport=40000, dport=8774, seq=1000, ack=2000, flags="A"))
    assert decode(built + bytes(6)) == segment(payload=b"", flags=16)
    assert decode(built) == segment(payload=b"", flags=16)
    assert decode(bytes(INNER) + b"\xee" * 4) == segment()


@pytest.mark.parametrize("link_type", [1, 276])
def test_segmentation_offload(link_type: int) -> None:
    """An IP length of 0 means as long as the packet is on the wire."""
    link = ether() if link_type == 1 else CookedLinuxV2(proto=0x0800)
    whole = bytes(link / ip4(len=0) / tcp())
    assert decode(whole, link_type) == segment()
    assert decode(whole, link_type, wire=len(whole) + 100) == segment(missing_bytes=100)
    assert decode(ether() / ip6(plen=0) / tcp()) == segment(FLOW6, 0)


@pytest.mark.parametrize(
    ("built", "link_type"),
    [
        (INNER, 1),
        (CookedLinuxV2(proto=0x0800) / ip4() / tcp(), 276),
        (ether() / Dot1Q(vlan=3) / ip4() / tcp(), 1),
        (ether() / ip6() / tcp(), 1),
        (OUTER / UDP(dport=4789) / VXLAN(vni=7) / INNER, 1),
    ],
)
def test_what_the_snap_length_cut_is_known(built: Built, link_type: int) -> None:
    """However short a packet was cut: payload and missing bytes are the whole, or it says that it cannot."""
    data = bytes(built)
    header_bytes = len(data) - len(PAYLOAD)
    for kept in range(len(data) + 1):
        found = decode(data[:kept], link_type, wire=len(data))
        if isinstance(found, Segment):
            assert found.payload == PAYLOAD[: max(0, kept - header_bytes)]
            assert len(found.payload) + found.missing_bytes == len(PAYLOAD)
        else:
            assert kept < header_bytes
            # A tunnel cut before its inner headers is UDP like any other.
            assert isinstance(found, str) or found is None
    assert isinstance(decode(data[:header_bytes], link_type, wire=len(data)), Segment)


@pytest.mark.parametrize(
    ("built", "words"),
    [
        (b"\0" * 10, "packet shorter than its Ethernet header"),
        (ether(type=0x0800), "packet ends before its IP header"),
        (ether(type=0x8100) / Raw(b"\0"), "packet ends inside a VLAN tag"),
        (ether(type=0x0800) / Raw(b"\x25" + bytes(40)), "IP version is neither 4 nor 6"),
        (ether() / ip4(ihl=4) / tcp(), "IPv4 header shorter than 20 bytes"),
        (ether() / ip4(ihl=15, len=40) / tcp(), "IPv4 header longer than the packet"),
        (ether() / ip4(len=30) / tcp(), "TCP header longer than the packet"),
        (ether() / ip4() / tcp(dataofs=15), "TCP header longer than the packet"),
        (ether() / ip4() / tcp(dataofs=4), "TCP header shorter than 20 bytes"),
        (ether() / ip6(nh=0) / Raw(b"\6\xff"), "packet ends inside its IPv6 extension headers"),
        (ether() / ip6(plen=10) / tcp(), "TCP header longer than the packet"),
        (ether() / ip4(proto=47) / Raw(b"\xb0\0"), "packet ends inside its GRE header"),
        (ether(type=0x8847) / Raw(b"\0\0\0\0\0\0"), "packet ends inside its MPLS labels"),
    ],
)
def test_contradictions_are_said_in_words(built: Built | bytes, words: str) -> None:
    """A header that contradicts its packet is an anomaly; nothing is raised."""
    assert decode(built) == words


def test_unknown_link_types_are_said() -> None:
    """A capture of another kind of network does not look empty."""
    assert decode(bytes(60), 147).startswith("link type 147 is not supported: tracer check --engine tshark")


def test_layers_without_end() -> None:
    """A packet of tunnels in tunnels is given up, not followed for ever."""
    endless = bytes(ether())[:12] + b"\x08\0" + bytes(IP(proto=4, len=0)) * 2000
    assert decode(endless) == "more layers than can be true"
    tags = bytes(ether())[:12] + b"\x81\0\0\5" * 5000
    assert decode(tags) == "packet ends inside a VLAN tag"


@given(
    st.binary(max_size=200),
    st.sampled_from([0, 1, 12, 101, 108, 113, 228, 229, 276, 999]),
    st.integers(0, 70000),
)
@settings(deadline=None, max_examples=examples(300))
def test_any_bytes_give_an_answer(data: bytes, link_type: int, wire: int) -> None:
    """Whatever the bytes, nothing is raised."""
    check(decode(data, link_type, wire))


BUILT = [
    bytes(each)
    for each in (
        INNER,
        ether() / ip6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=1, m=1) / tcp(),
        OUTER / UDP(dport=4789) / VXLAN(vni=7) / INNER,
        OUTER / UDP(dport=6081) / GENEVE(vni=7, options=[GeneveOptions(data=b"abcd")]) / INNER,
        OUTER / GRE(proto=0x88BE, seqnum_present=1, key_present=1) / ERSPAN_II() / INNER,
        ether() / Dot1Q(vlan=3) / MPLS(s=1) / ip4(flags="MF") / tcp(),
    )
]


@given(
    st.sampled_from(BUILT),
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 255)), max_size=4),
    st.data(),
)
@settings(deadline=None, max_examples=examples(300))
def test_any_damage_gives_an_answer(data: bytes, damage: list[tuple[int, int]], draw: st.DataObject) -> None:
    """Good packets with bytes replaced and their end cut off never raise either."""
    damaged = bytearray(data)
    for position, value in damage:
        damaged[position % len(damaged)] = value
    kept = draw.draw(st.integers(0, len(damaged)))
    check(decode(bytes(damaged[:kept]), wire=len(damaged)))


def check(found: Segment | str | None) -> None:
    if isinstance(found, Segment):
        assert found.missing_bytes >= 0
        assert len(found.flow) in (12, 16, 36, 40)
        assert 0 <= found.flags <= 31
    else:
        assert found is None or (isinstance(found, str) and found)


# --- fragments ------------------------------------------------------------------------------------

BODY = bytes(range(256)) * 12


def pieces4() -> list[bytes]:
    return [
        bytes(ether() / part)
        for part in fragment(ip4() / TCP(sport=40000, dport=8774, seq=1000) / Raw(BODY), 800)  # type: ignore[no-untyped-call]
    ]


def pieces6() -> list[bytes]:
    whole = ip6() / IPv6ExtHdrFragment(id=99) / TCP(sport=40000, dport=8774, seq=1000) / Raw(BODY)
    return [bytes(ether() / part) for part in fragment6(whole, 900)]  # type: ignore[no-untyped-call]


def pieces_of_a_tunnel() -> list[bytes]:
    inner = ether() / ip4() / TCP(sport=40000, dport=8774, seq=1000) / Raw(BODY)
    outer = IP(src="192.0.2.1", dst="192.0.2.2", id=5) / UDP(dport=4789) / VXLAN(vni=7) / inner
    return [bytes(ether() / part) for part in fragment(outer, 800)]  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("pieces", [pieces4, pieces6, pieces_of_a_tunnel])
@pytest.mark.parametrize("seed", range(4))
def test_fragments_in_any_order(pieces: Callable[[], list[bytes]], seed: int) -> None:
    """A datagram is complete with the fragment that comes last; its frame is the first evidence."""
    parts = pieces()
    assert len(parts) > 3
    if seed:
        random.Random(seed).shuffle(parts)
    layers = Layers()
    found = [segment_of(layers, packet(part, number=n)) for n, part in enumerate(parts, 1)]
    assert found[:-1] == [None] * (len(parts) - 1)
    whole = found[-1]
    assert isinstance(whole, Segment)
    assert (whole.payload, whole.seq, whole.missing_bytes) == (BODY, 1000, 0)
    assert whole.frames == tuple((2, n) for n in (len(parts), *range(1, len(parts))))
    assert list(layers.flush()) == []


def test_two_datagrams_at_once() -> None:
    """Fragments belong together by addresses, protocol and identification."""
    parts = pieces4()
    other = [part[:18] + struct.pack(">H", 78) + part[20:] for part in parts]
    layers = Layers()
    mixed = [part for pair in zip(parts, other, strict=True) for part in pair]
    found = [segment_of(layers, packet(part)) for part in mixed]
    assert [each.ip_id for each in found if isinstance(each, Segment)] == [77, 78]


def test_where_fragments_overlap_the_first_wins() -> None:
    """Bytes that come a second time, and differ, change nothing."""
    parts = pieces4()
    layers = Layers()
    other = parts[1][:34] + b"\xff" * (len(parts[1]) - 34)
    found = [segment_of(layers, packet(part)) for part in [parts[1], other, parts[0], *parts[2:]]]
    whole = found[-1]
    assert isinstance(whole, Segment)
    assert whole.payload == BODY


def test_fragments_cut_by_the_snap_length() -> None:
    """A datagram goes up to its first byte that was not captured; the rest is missing."""
    layers = Layers()
    found = None
    for part in pieces4():
        found = segment_of(layers, packet(part[:200], wire=len(part)))
    assert isinstance(found, Segment)
    assert found.payload == BODY[: 200 - 34 - 20]
    assert len(found.payload) + found.missing_bytes == len(BODY)


def test_a_datagram_that_is_never_complete() -> None:
    """It is forgotten after 30 s of capture time, and counted at the end."""
    first, second, *rest = pieces4()
    layers = Layers()
    assert segment_of(layers, packet(first, time_ns=0)) is None
    assert [segment_of(layers, packet(part, time_ns=31 * SECOND)) for part in (second, *rest)] == [None] * (
        1 + len(rest)
    )
    assert list(layers.flush()) == ["IP fragments of a datagram that never became complete"] * 2
    assert list(layers.flush()) == []


@pytest.mark.parametrize("size", [8, 20_000])
def test_waiting_fragments_are_bounded(size: int) -> None:
    """A flood of first fragments keeps at most so many datagrams and bytes."""
    layers = Layers()
    sent = 400
    for number in range(sent):
        part = ip4(flags="MF", proto=6) / Raw(bytes(size))
        part.id = number
        assert segment_of(layers, packet(part, 101)) is None
    waiting = layers._fragments
    assert len(waiting._waiting) <= Fragments.MOST_DATAGRAMS
    assert waiting._size_bytes <= Fragments.MOST_BYTES
    assert len(list(layers.flush())) == sent


def test_many_tiny_fragments_are_given_up() -> None:
    """A datagram in more pieces than any network makes is an anomaly."""
    layers = Layers()
    found = [
        segment_of(layers, packet(IP(id=1, proto=6, flags="MF", frag=n) / Raw(bytes(8)), 101))
        for n in range(600)
    ]
    assert "IP fragments contradict each other" in found


def test_fragments_of_other_protocols_are_not_kept() -> None:
    """ICMP cannot carry TCP: its fragments are none, and leave nothing behind."""
    layers = Layers()
    assert segment_of(layers, packet(ether() / ip4(flags="MF", proto=1) / Raw(bytes(64)))) is None
    assert list(layers.flush()) == []
