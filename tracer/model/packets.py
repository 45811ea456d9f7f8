"""What sources give: captures, their packets, the TCP segments in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from tracer.model.clocks import Clock

__all__ = ["Capture", "Frame", "Frames", "Packet", "PacketFields", "Segment", "SegmentFields"]

Frame = tuple[int, int]
"""Where a packet is found: the position of its capture in the run's list of captures, and its number
there, 1-based, as Wireshark's `frame.number`: what a person types into Wireshark."""

Frames = tuple[Frame, ...]
"""Evidence. Of a packet: one frame for each capture point that saw it. Of a message: the frame on
which Wireshark shows the message first, then the others."""


def place_of(path: str) -> str:
    """Return how a report calls what is read from *path*."""
    return "standard input" if path == "-" else path


@dataclass(slots=True, eq=False)
class Capture:
    """One capture as it is read: its name, its counters, what went wrong in it."""

    number: int
    path: str
    """As reached from the argument."""
    plane: str | None = None
    """The plane this capture was recorded on; None for a capture point (a host's `-i any`)."""
    packets: int = 0
    size_bytes: int = 0
    """Captured bytes of packets, without record headers."""
    first_ns: int | None = None
    last_ns: int | None = None
    ended_ns: int | None = None
    """When the recording ended, where the file is an extract that says so: nothing came after `last_ns`."""
    drops: list[tuple[int, int, int]] = field(default_factory=list)
    """(since, until, packets): what the recorder's kernel dropped, where the file says so."""
    truncated_packets: int = 0
    """Packets cut by the snap length."""
    interfaces: dict[int, str] = field(default_factory=dict)
    """pcapng: number of an interface over the whole file -> its name."""
    anomalies: Counter[str] = field(default_factory=Counter)
    """What was wrong in the file or in its packets, in words -> how often. A file that breaks off
    holds 'file ends inside a record' or the like."""
    broke_off: bool = False
    """The file ends (or turns to garbage) before its end: nothing after that is known."""
    planes: set[str] = field(default_factory=set)
    """Planes seen in it (filled by the pipeline)."""
    calls: int = 0
    skipped_statements: int = 0
    duplicate_segments: int = 0
    reordered_segments: int = 0
    gaps: int = 0
    lost_bytes: int = 0
    undecoded_streams: int = 0
    undecoded: Counter[str] = field(default_factory=Counter)
    """Why streams of this capture were not decoded -> how many."""
    protocol: str = ""
    """What alone it can show: RPC, of a broker's firehose, whose `packets` are messages. Empty: all."""
    clock: Clock = field(default_factory=Clock)
    """What was found out about its clock. Times here are those of the capture."""

    @property
    def corrected_first_ns(self) -> int | None:
        """When its first packet was captured, by the clock that all captures are judged by."""
        return None if self.first_ns is None else self.clock.corrected_first_ns(self.first_ns)

    @property
    def corrected_last_ns(self) -> int | None:
        """When its last packet was captured, or the recording ended, by that clock."""
        if self.last_ns is None:
            return None
        return self.clock.corrected_last_ns(max(self.last_ns, self.ended_ns or 0))

    @property
    def words(self) -> str:
        """How a live run calls it: its plane, where it has one, and its place."""
        place = place_of(self.path)
        return f"{self.plane} ({place})" if self.plane else place


class Packet(NamedTuple):
    """One captured packet, not looked into."""

    time_ns: int
    data: bytes
    """From the link layer on, as captured."""
    wire_bytes: int
    """Its length on the wire; more than `len(data)` when the snap length cut it."""
    link_type: int
    """A LINKTYPE_ number, upper bits masked off."""
    frame: Frame
    interface: int = 0
    """pcapng: key in `Capture.interfaces`."""


PacketFields = tuple[int, bytes, int, int, Frame, int]
"""A Packet, or the same fields in a plain tuple: what goes from stage to stage, since there are hundreds
of thousands and a named tuple costs ten times as much to make. `Packet._make` gives the names back."""


class Segment(NamedTuple):
    """One TCP segment."""

    time_ns: int
    flow: bytes
    """Source address, destination address (4 or 16 bytes each), source port, destination port
    (2 bytes each), then the tunnel id where there is one (4 bytes). The reverse direction has the
    addresses and the ports swapped."""
    seq: int
    ack: int
    flags: int
    """FIN 1, SYN 2, RST 4, PSH 8, ACK 16."""
    payload: bytes
    """Cut to the IP length, so that Ethernet padding never shows."""
    missing_bytes: int
    """Bytes of the payload that the snap length cut away, behind `payload`."""
    ip_id: int
    """IPv4 identification; tells a packet seen twice from a retransmission. 0 for IPv6."""
    frames: Frames
    vlan: int = 0
    """Outermost 802.1Q id, 0 without a tag."""
    interface: int = 0


SegmentFields = tuple[int, bytes, int, int, int, bytes, int, int, Frames, int, int]
"""A Segment, or the same fields in a plain tuple, as with PacketFields."""
