"""The values of sources: captures, their packets, and the TCP segments in these."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from tracer.model.clocks import Clock

__all__ = ["Capture", "Frame", "Frames", "Packet", "PacketFields", "Segment", "SegmentFields", "reverse_flow"]

Frame = tuple[int, int]
"""The place of a packet: the position of its capture in the run's list of captures, and its number there,
from 1, which is Wireshark's `frame.number`."""

Frames = tuple[Frame, ...]
"""Evidence. For a packet: one frame for each capture point that saw it. For a message: the frame in which
Wireshark shows the message, then the others."""


_FEW = 16
"""So few packets may come within one tick of a clock, and so often a clock may be set."""


def place_of(path: str) -> str:
    """Return the name of *path* in reports."""
    return "standard input" if path == "-" else path


@dataclass(slots=True, eq=False)
class Capture:
    """One capture while it is read: its name, its counters, and what is wrong in it."""

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
    """End of the recording, if the file is an extract that holds it: nothing came after `last_ns`."""
    drops: list[tuple[int, int, int]] = field(default_factory=list)
    """(since, until, packets) that the recorder's kernel dropped, if the file holds it."""
    truncated_packets: int = 0
    """Packets cut by the snap length."""
    interfaces: dict[int, str] = field(default_factory=dict)
    """pcapng: number of an interface over the whole file -> its name."""
    anomalies: Counter[str] = field(default_factory=Counter)
    """What is wrong in the file or in its packets, in words -> how often. For a file that breaks off, it
    has 'file ends inside a record' or the like."""
    broke_off: bool = False
    """The file is cut, or unreadable from some place on: nothing after that is known."""
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
    """Reason why streams of this capture were not decoded -> number of streams."""
    secrets: list[bytes] = field(default_factory=list, repr=False)
    """pcapng: TLS secrets in it, key logs (NSS format), until the decoders take them."""
    protocol: str = ""
    """The only protocol that it can show: RPC for a broker's firehose, whose `packets` are messages. Empty:
    all protocols."""
    clock: Clock = field(default_factory=Clock)
    """What was found out about its clock. Times here are those of the capture."""

    @property
    def is_untimed(self) -> bool:
        """Whether its times say nothing: all are the same, or they go back again and again."""
        same = self.packets > _FEW and self.first_ns == self.last_ns
        return same or self.clock.steps_back > _FEW

    @property
    def corrected_first_ns(self) -> int | None:
        """When its first packet was captured, by the clock that all captures are judged by."""
        return None if self.first_ns is None else self.clock.corrected_first_ns(self.first_ns)

    @property
    def corrected_last_ns(self) -> int | None:
        """When its last packet was captured, by that clock."""
        return None if self.last_ns is None else self.clock.corrected_last_ns(self.last_ns)

    @property
    def corrected_end_ns(self) -> int | None:
        """When its last packet was captured, or the recording ended, by that clock."""
        last_ns = self.corrected_last_ns
        if last_ns is None or self.ended_ns is None:
            return last_ns
        return max(last_ns, self.clock.corrected_last_ns(self.ended_ns))

    @property
    def words(self) -> str:
        """Its name in a live run: its plane, if it has one, and its place."""
        place = place_of(self.path)
        return f"{self.plane} ({place})" if self.plane else place


class Packet(NamedTuple):
    """One captured packet, not decoded."""

    time_ns: int
    data: bytes
    """From the link layer on, as captured."""
    wire_bytes: int
    """Its length on the wire; more than `len(data)` if the snap length cut it."""
    link_type: int
    """A LINKTYPE_ number, upper bits masked off."""
    frame: Frame
    interface: int = 0
    """pcapng: key in `Capture.interfaces`."""


PacketFields = tuple[int, bytes, int, int, Frame, int]
"""A Packet, or its fields in a plain tuple. Stages pass plain tuples, because there are hundreds of thousands
and a named tuple takes ten times as long to make. `Packet._make` adds the names."""


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
    """Cut to the IP length, so that it holds no Ethernet padding."""
    missing_bytes: int
    """Bytes of the payload that the snap length cut away, behind `payload`."""
    ip_id: int
    """IPv4 identification, which distinguishes a copy of a packet from a retransmission. 0 for IPv6."""
    frames: Frames
    vlan: int = 0
    """Outermost 802.1Q id, 0 without a tag."""
    interface: int = 0


SegmentFields = tuple[int, bytes, int, int, int, bytes, int, int, Frames, int, int]
"""A Segment, or its fields in a plain tuple, as with PacketFields."""


def reverse_flow(flow: bytes) -> bytes:
    """Return `Segment.flow` of the other direction of *flow*: ends swapped, the same tunnel id."""
    if len(flow) == 12:
        return flow[4:8] + flow[:4] + flow[10:] + flow[8:10]
    size = 4 if len(flow) < 36 else 16
    at = 2 * size
    return flow[size:at] + flow[:size] + flow[at + 2 : at + 4] + flow[at : at + 2] + flow[at + 4 :]
