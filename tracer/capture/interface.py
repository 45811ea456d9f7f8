"""Packets of a network interface, as the kernel sees them: raw bytes, not looked into.

The socket is scapy's listening socket, with its filter and its promiscuous mode; scapy dissects nothing.
Packets come through a ring that the kernel and this process share (PACKET_RX_RING, TPACKET_V3): no system
call a packet, and a burst of 64 MiB is not lost while we are busy. What the kernel had to drop all the
same it counts, and `dropped` tells.

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
from tracer.model import Capture, PacketFields

if TYPE_CHECKING:
    from scapy.arch.linux import L2ListenSocket

__all__ = ["Interface", "default_filter"]

SOL_PACKET, PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, TPACKET_V3 = 263, 5, 6, 10, 2
BLOCK_BYTES = 256 << 10
RING_BYTES = 64 << 20
FRAME_BYTES = 2048
RETIRE_MS = 50
"""A block that is not full is handed over after that."""
STATISTICS_S = 0.5
_BLOCK_STATUS_AT = 8
_BLOCK = struct.Struct("=8xIII")
"""Of a block: status, number of packets, offset of the first one."""
_PACKET = struct.Struct("=IIIIIIHHIIH")
"""Next offset, seconds, nanoseconds, captured, wire, status, begin, (net), (hash), VLAN tag and its type."""
_ADDRESS_BYTES = 48
"""Where the address stands behind a packet's header: hardware type at 8, direction at 10."""
_OURS, _VLAN_VALID, _TPID_VALID, _OUTGOING = 1, 1 << 4, 1 << 6, 4
_LOOPBACK = 772
_ALL = 3
_LINK_TYPES = {1: 1, _LOOPBACK: 1, 65534: 101, 512: 101, 768: 101, 769: 101, 776: 101, 778: 101}
"""Hardware type -> LINKTYPE_: Ethernet, or bare IP for tunnels."""


class Interface:
    """One interface, or 'any' of them; *bpf* is what of it is wanted, in tcpdump's words."""

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
        """Open the socket and its ring: packets are kept from now on.

        Raises SourceError without the privilege, UsageError for a filter that makes no sense.
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
        # What passed before the ring was there is no loss: counting begins now.
        self._count_drops(listening.ins)
        self.dropped = 0
        self.capture.first_ns = self.capture.last_ns = wall_ns()

    @property
    def link_type(self) -> int:
        """The LINKTYPE_ of its packets; of 'any' that of nearly all. Known once it is open."""
        if self._socket is None or self.name == ANY:
            return 1
        return _LINK_TYPES.get(self._socket.ins.getsockname()[3], 1)

    def _listen(self) -> L2ListenSocket:
        # Imported with the first interface: nobody else pays for it.
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
        """Hand over what is in the ring, then end."""
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
                # Not for ever: more may come than we take.
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
        """Return the packets of one block. What leaves on loopback comes in again: it is taken once."""
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
                    # The kernel takes the tag out of the packet; it belongs behind the addresses.
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
        # Reading the counters sets them to zero.
        with suppress(OSError):
            _, drops, _ = struct.unpack("3I", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 12))
            self.dropped += drops

    def _look_at_error(self, sock: socket.socket) -> None:
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise SourceError(f"{self.name}: no packets any more: {os.strerror(error)}")


def _bind_to_all(sock: socket.socket) -> None:
    """Bind to ETH_P_ALL of every interface: Python's own bind knows only one interface, by its name."""
    address = struct.pack("=HHi12x", socket.AF_PACKET, socket.htons(_ALL), 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(sock.fileno(), address, len(address)):
        number = ctypes.get_errno()
        raise SourceError(f"{ANY}: cannot be sniffed: {os.strerror(number)}")


def default_filter(ports: Mapping[int, str], api_addresses: tuple[str, ...] = ()) -> str:
    """Return the filter for the protocols on *ports* (port -> protocol), in tcpdump's words.

    SQL is four fifths of the packets, and only nova-api's is needed: with *api_addresses* all other is
    left out.
    """
    database = sorted(port for port, protocol in ports.items() if protocol == "mysql")
    others = sorted(port for port, protocol in ports.items() if protocol != "mysql")
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
