"""Captures of other hands: tshark is the second opinion, malformed files only must come to an end."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from lab.captures import FOREIGN, SHARED, needs_foreign, needs_shared
from lab.reading import packets_of, segment_of

from tracer.capture import open_capture
from tracer.capture.layers import Layers
from tracer.errors import SourceError
from tracer.model import Capture, Segment

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")

Seen = dict[int, tuple[int, int, int, int]]
"""Frame -> source port, length of the TCP payload, sequence number, flags."""


def ours(path: Path) -> tuple[int, Seen]:
    capture, layers, seen = Capture(0, str(path)), Layers(), {}
    for packet in packets_of(str(path), capture):
        segment = segment_of(layers, packet)
        if isinstance(segment, Segment):
            addresses = 8 if len(segment.flow) < 36 else 32
            port = int.from_bytes(segment.flow[addresses : addresses + 2], "big")
            length = len(segment.payload) + segment.missing_bytes
            seen[packet[4][1]] = (port, length, segment.seq, segment.flags)
    return capture.packets, seen


def tsharks(path: Path) -> tuple[int, Seen]:
    fields = [
        "frame.number",
        "tcp.srcport",
        "tcp.len",
        "tcp.seq_raw",
        "tcp.flags",
        "icmp.type",
        "icmpv6.type",
    ]
    command = ["tshark", "-r", str(path), "-T", "fields", "-E", "occurrence=l"]
    for field in fields:
        command += ["-e", field]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    seen = {}
    for line in lines:
        number, port, length, seq, flags, *icmp = line.split("\t")
        if length and not any(icmp):
            seen[int(number)] = (int(port), int(length), int(seq), int(flags, 16) & 31)
    return len(lines), seen


@needs_tshark
@needs_shared
@pytest.mark.parametrize(
    "name",
    [
        "colo-ok/sc-any",
        "colo-ok/compute1-any",
        "fail-400/External_api",
        "fail-400/Internal_base",
        "ok-gro/Internal_base",
        "snaplen-256/External_api",
    ],
)
def test_the_lab_s_captures_read_as_by_tshark(name: str) -> None:
    """Every packet, and port, payload length, sequence number and flags of every segment."""
    path = SHARED / f"{name}.pcap.zst"
    assert ours(path) == tsharks(path)


@needs_shared
def test_tagged_packets_read_as_those_without_a_tag() -> None:
    """A VLAN tag changes nothing of the segment but its VLAN."""
    tagged, plain = (
        SHARED / "vlan-tagged" / "both.pcap.zst",
        SHARED / "single-file-both-planes" / "both.pcap.zst",
    )
    assert ours(tagged) == ours(plain)


@needs_tshark
@needs_foreign
@pytest.mark.parametrize(
    "name",
    [
        "deepflow/common/ff-vxlan.pcap",
        "deepflow/common/geneve.pcap",
        "deepflow/common/vxlan-nsh.pcap",
        "deepflow/tcp-segment.pcap",
        "packetbeat/802.1q-q-in-q-icmp.pcap",
        "packetbeat/gap_in_stream.pcap",
        "packetbeat/http_over_vlan.pcap",
    ],
)
def test_foreign_captures_read_as_by_tshark(name: str) -> None:
    """Tunnels, tags and damage in captures of other projects are read as by tshark."""
    path = FOREIGN / name
    assert ours(path) == tsharks(path)


@needs_foreign
def test_malformed_captures_come_to_an_end() -> None:
    """Files made to crash tcpdump are read: every packet is a segment, none, or an anomaly in words."""
    paths = sorted((FOREIGN / "tcpdump-malformed").glob("*.pcap*"))
    assert len(paths) > 100
    anomalies: Counter[str] = Counter()
    for path in paths:
        layers = Layers()
        try:
            batches = open_capture(str(path), Capture(0, str(path)))
        except SourceError:
            continue
        for batch in batches:
            layers.read(batch, anomalies)
    assert anomalies
