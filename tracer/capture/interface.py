"""Live capture of a network interface: raw packets as the kernel sees them.

The socket is scapy's listening socket, with its filter and its promiscuous mode; scapy dissects nothing.
Packets come through a ring that the kernel shares with this process (PACKET_RX_RING, TPACKET_V3). It needs no
system call for each packet, and holds a burst of 64 MiB while we are busy. `dropped` has the number of
packets that the kernel dropped all the same.

Source: linux/if_packet.h; Documentation/networking/packet_mmap.rst.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from tracer.capture.arguments import ANY
from tracer.capture.live import monotonic_s, wall_ns
from tracer.capture.streams import Deliver
from tracer.errors import SourceError, UsageError
from tracer.model import CALLS_OVER, Capture, PacketFields

if TYPE_CHECKING:
    from scapy.arch.linux import L2ListenSocket

__all__ = ["Interface", "default_filter"]

SOL_PACKET, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, TPACKET_V3 = 263, 5, 6, 10, 2
BLOCK_BYTES = 256 << 10
RING_BYTES = 64 << 20
# TPACKET_V3 packs packets tightly; the kernel only checks that size and number of frames fit the ring.
FRAME_BYTES = 2048
RETIRE_MS = 50
"""The kernel hands over a block that is not full after this time."""
STATISTICS_S = 0.5
"""Interval between two readings of the drop counters."""
_BLOCK_STATUS_AT = 8
_BLOCK = struct.Struct("=8xIII")
"""Header of a block: status, number of packets, offset of the first one (tpacket_hdr_v1)."""
_PACKET = struct.Struct("=IIIIIIHHIIH")
"""Header of a packet (tpacket3_hdr): next offset, seconds, nanoseconds, captured, wire, status, begin, (net),
(hash), VLAN tag and its type."""
_ADDRESS_BYTES = 48
"""Offset of the address (sockaddr_ll) behind a packet's header: hardware type at 8, direction at 10."""
# TP_STATUS_USER, TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID, PACKET_OUTGOING.
_OURS, _VLAN_VALID, _TPID_VALID, _OUTGOING = 1, 1 << 4, 1 << 6, 4
# ARPHRD_LOOPBACK and ETH_P_ALL.
_LOOPBACK = 772
_ALL = 3
_LINK_TYPES = {1: 1, _LOOPBACK: 1, 65534: 101, 512: 101, 768: 101, 769: 101, 776: 101, 778: 101}
"""Hardware type -> LINKTYPE_: Ethernet, or bare IP for tunnels."""


class Interface:
    """One interface, or all of them ('any'); *bpf* is a filter in tcpdump's syntax, None for all packets."""

    ends_on_stop = True

    def __init__(self, name: str, capture: Capture, bpf: str | None) -> None:
        self.name = name
        self.capture = capture
        self.bpf = bpf
        self.dropped = 0
        self._socket: L2ListenSocket | None = None
        self._ring: mmap.mmap | None = None
        self._blocks = 0
        self._stopping = False

    def open(self) -> None:
        """Open the socket and its ring; packets are kept from now on.

        Raises SourceError without the privilege or the interface, UsageError for an invalid filter.
        """
        try:
            listening = self._listen()
        except PermissionError:
            python = os.path.realpath(sys.executable)
            raise SourceError(
                f"{self.name}: to sniff it needs the capability CAP_NET_RAW: run tracer with sudo,"
                f" or give it once with: sudo setcap cap_net_raw+ep {python}"
            ) from None
        except OSError as error:
            raise SourceError(f"{self.name}: cannot be sniffed: {error.strerror or error}") from error
        self._socket = listening
        if self.name == ANY:
            _bind_to_all(listening.ins)
        self._make_ring(listening.ins)
        # Packets that came before the ring existed are not counted as dropped: reading resets the counters.
        self._count_drops(listening.ins)
        self.dropped = 0
        self.capture.first_ns = self.capture.last_ns = wall_ns()

    @property
    def link_type(self) -> int:
        """The LINKTYPE_ of its packets, known once it is open; for 'any' that of nearly all packets."""
        if self._socket is None or self.name == ANY:
            return 1
        return _LINK_TYPES.get(self._socket.ins.getsockname()[3], 1)

    def _listen(self) -> L2ListenSocket:
        # Imported here, because scapy takes long to import and other sources do not need it.
        import logging

        logging.getLogger("scapy").setLevel(logging.ERROR)
        from scapy.arch.linux import L2ListenSocket
        from scapy.error import Scapy_Exception

        iface = "lo" if self.name == ANY else self.name
        promiscuous = self.name not in (ANY, "lo")
        try:
            return L2ListenSocket(iface=iface, promisc=promiscuous, filter=self.bpf)
        except Scapy_Exception as error:
            if "libpcap is not available" in str(error):
                raise SourceError(
                    f"{self.name}: a filter needs libpcap: install it (libpcap0.8), or read all with -f ''"
                ) from None
            raise UsageError(f"-f {self.bpf!r}: {str(error).rpartition('(')[2].rstrip(')')}") from None

    def _make_ring(self, sock: socket.socket) -> None:
        sock.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V3)
        # Half the size, again and again, if the kernel has too little memory for the ring.
        size_bytes = RING_BYTES
        while True:
            blocks = size_bytes // BLOCK_BYTES
            ring = (BLOCK_BYTES, blocks, FRAME_BYTES, size_bytes // FRAME_BYTES, RETIRE_MS, 0, 0)
            try:
                sock.setsockopt(SOL_PACKET, PACKET_RX_RING, struct.pack("7I", *ring))
                break
            except OSError as error:
                if size_bytes <= 16 * BLOCK_BYTES:
                    raise SourceError(f"{self.name}: no memory for its packets: {error.strerror}") from error
                size_bytes //= 2
        self._blocks = blocks
        self._ring = mmap.mmap(sock.fileno(), size_bytes, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)

    def stop(self) -> None:
        """Make `read` hand over the packets in the ring, and return."""
        self._stopping = True

    def read(self, deliver: Deliver) -> None:
        """Hand over packets until `stop`. Raises SourceError when the interface goes away."""
        ring, listening = self._ring, self._socket
        assert ring is not None and listening is not None  # noqa: S101  # `open` comes first
        sock = listening.ins
        poll = select.poll()
        poll.register(sock, select.POLLIN | select.POLLERR)
        block, counted_s, left = 0, monotonic_s(), self._blocks
        while left > 0:
            at = block * BLOCK_BYTES
            status, count, first = _BLOCK.unpack_from(ring, at)
            if status & _OURS:
                packets = self._packets(ring, at + first, count)
                struct.pack_into("=I", ring, at + _BLOCK_STATUS_AT, 0)
                block = (block + 1) % self._blocks
                # After `stop` one round at most: packets may come faster than they are taken.
                left -= self._stopping
                if packets:
                    deliver(packets, 0)
            else:
                if self._stopping:
                    break
                for _, what in poll.poll(2 * RETIRE_MS):
                    if what & (select.POLLERR | select.POLLHUP):
                        self._look_at_error(sock)
            if monotonic_s() - counted_s > STATISTICS_S:
                counted_s = monotonic_s()
                self._count_drops(sock)
        self._count_drops(sock)

    def _packets(self, ring: mmap.mmap, at: int, count: int) -> list[PacketFields]:
        """Return the packets of one block. A packet on loopback is seen leaving and arriving; one is kept."""
        unpack, capture = _PACKET.unpack_from, self.capture
        number, size_bytes, time_ns = capture.packets, 0, 0
        found: list[PacketFields] = []
        for _ in range(count):
            step, seconds, nanoseconds, captured, wire, status, begin, _, _, tag, kind = unpack(ring, at)
            hardware = ring[at + 56] | ring[at + 57] << 8
            if not (hardware == _LOOPBACK and ring[at + 58] == _OUTGOING):
                start = at + begin
                data = ring[start : start + captured]
                if status & _VLAN_VALID:
                    # The kernel removes the tag from the packet. It is put back behind the two MAC addresses.
                    tpid = kind if status & _TPID_VALID else 0x8100
                    data = data[:12] + struct.pack(">HH", tpid, tag & 0xFFFF) + data[12:]
                    wire += 4
                time_ns = seconds * 1_000_000_000 + nanoseconds
                number += 1
                size_bytes += captured
                capture.truncated_packets += len(data) < wire
                link_type = _LINK_TYPES.get(hardware, 1)
                found.append((time_ns, data, wire, link_type, (capture.number, number), 0))
            at += step
        capture.packets = number
        capture.size_bytes += size_bytes
        if time_ns:
            capture.last_ns = max(capture.last_ns or 0, time_ns)
        return found

    def _count_drops(self, sock: socket.socket) -> None:
        # Reading the counters resets them.
        with suppress(OSError):
            _, drops, _ = struct.unpack("3I", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12))
            self.dropped += drops

    def _look_at_error(self, sock: socket.socket) -> None:
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise SourceError(f"{self.name}: no packets any more: {os.strerror(error)}")


def _bind_to_all(sock: socket.socket) -> None:
    """Bind to ETH_P_ALL on all interfaces; Python's bind accepts only the name of one interface."""
    address = struct.pack("=HHi12x", socket.AF_PACKET, socket.htons(_ALL), 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)):
        number = ctypes.get_errno()
        raise SourceError(f"{ANY}: cannot be sniffed: {os.strerror(number)}")


def default_filter(ports: Mapping[int, str], api_addresses: tuple[str, ...] = ()) -> str:
    """Return the filter for the protocols on *ports* (port -> protocol), in tcpdump's syntax.

    SQL is four fifths of the packets, and only that of nova-api is needed. With *api_addresses*, other SQL is
    left out.
    """
    database = sorted(port for port, protocol in ports.items() if CALLS_OVER.get(protocol) == "SQL")
    others = sorted(port for port, protocol in ports.items() if CALLS_OVER.get(protocol) != "SQL")
    words = _ports(others)
    if database:
        sql = _ports(database)
        if api_addresses:
            hosts = " or ".join(f"host {address}" for address in api_addresses)
            sql = f"({sql}) and ({hosts})"
        words += f" or ({sql})"
    return f"tcp and ({words})"


def _ports(ports: list[int]) -> str:
    return " or ".join(f"port {port}" for port in ports)
