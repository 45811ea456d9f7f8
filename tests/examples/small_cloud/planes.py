"""Two network planes of one's own, and hosts on them: bridges and network namespaces of Linux.

The planes are interfaces of a namespace that belongs to the thread that makes them, and so to all that it
starts: nothing of it is seen outside, and any address will do. Every host is a namespace, too, with a leg on
its planes. What hosts say to each other passes a bridge, where it is seen as at the SPAN port of a switch.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000


def why_not() -> str | None:
    """Why there can be no planes here; None when there can."""
    if not sys.platform.startswith("linux") or shutil.which("ip") is None:
        return "needs network namespaces (Linux, with iproute2)"
    if subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode != 0:
        return "needs root, to make network namespaces"
    return None


class Planes:
    """The planes by interface, and what runs a command on a host."""

    def __init__(self, interfaces: Mapping[str, str]) -> None:
        self.interfaces = interfaces
        """plane -> the bridge's interface"""
        self._prefix = f"small-cloud-{os.getpid()}"
        self._hosts: list[str] = []

    def here(self, plane: str, *addresses: str) -> None:
        """Give this namespace addresses on a plane."""
        for address in addresses:
            _ip("addr", "add", f"{address}/24", "dev", self.interfaces[plane])

    def host(self, name: str, addresses: Mapping[str, str]) -> None:
        """Add a host with an address on each of its planes (plane -> address)."""
        space = f"{self._prefix}-{name}"
        _ip("netns", "add", space)
        self._hosts.append(space)
        _ip("-n", space, "link", "set", "lo", "up")
        for plane, address in addresses.items():
            # An interface's name has room for 15 characters.
            bridge, port = self.interfaces[plane], f"port{len(self._hosts)}-{self.interfaces[plane]}"
            _ip("link", "add", port, "master", bridge, "type", "veth", "peer", "name", bridge, "netns", space)
            _ip("link", "set", port, "up")
            _ip("-n", space, "addr", "add", f"{address}/24", "dev", bridge)
            _ip("-n", space, "link", "set", bridge, "up")

    def on(self, name: str, *command: str) -> list[str]:
        """The command line that runs *command* on a host."""
        return ["ip", "netns", "exec", f"{self._prefix}-{name}", *command]

    def close(self) -> None:
        for space in self._hosts:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


@contextmanager
def planes(interfaces: Mapping[str, str]) -> Iterator[Planes]:
    """Move this thread, until the end of the block, into a namespace with a bridge for each plane.

    *interfaces*: plane -> the bridge's name.
    """
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    made = Planes(interfaces)
    _system("unshare", CLONE_NEWNET)
    try:
        _ip("link", "set", "lo", "up")
        for bridge in interfaces.values():
            _ip("link", "add", bridge, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0")
            _ip("link", "set", bridge, "up")
        yield made
    finally:
        made.close()
        _system("setns", outside, CLONE_NEWNET)
        os.close(outside)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _system(name: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
