"""Wires of a test's own: a namespace with pairs of virtual interfaces, and recorded packets on them."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from tracer.capture import open_capture
from tracer.model import Capture

CLONE_NEWNET = 0x40000000
COOKED = 113


def why_not() -> str | None:
    """Why there can be no wires here; None when there can."""
    if sys.platform != "linux":
        return "network namespaces are of Linux"
    if shutil.which("ip") is None:
        return "network namespaces need ip (iproute2)"
    if os.geteuid() != 0:
        return "network namespaces need root"
    made = subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False)
    return None if made.returncode == 0 else "no network namespace can be made here"


@contextmanager
def wires(names: Sequence[str]) -> Iterator[str]:
    """A namespace, by its name, in which what is sent on NAME-tx comes in on NAME."""
    space = f"tracer-test-{os.getpid()}-{time.monotonic_ns() % 1_000_000}"
    _ip("netns", "add", space)
    try:
        for name in names:
            _ip("-n", space, "link", "add", name, "type", "veth", "peer", "name", f"{name}-tx")
            for end in (name, f"{name}-tx"):
                subprocess.run(
                    ["ip", "netns", "exec", space, "sysctl", "-qw", f"net.ipv6.conf.{end}.disable_ipv6=1"],
                    check=False,
                    capture_output=True,
                )
                _ip("-n", space, "link", "set", end, "mtu", "65535", "up")
        yield space
    finally:
        _ip("netns", "del", space)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def inside(space: str, *command: str) -> list[str]:
    """The command line that runs *command* in the namespace *space*."""
    return ["ip", "netns", "exec", space, *command]


def listens(process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Wait until the command that `inside` began has its sockets open, or has ended.

    It gives up its privileges then, and the namespace's `ip` has become it: it is the same process.
    """
    until_s = time.monotonic() + seconds
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None and "CapEff:\t0000000000000000" not in status.read_text(encoding="ascii"):
        assert time.monotonic() < until_s, "it does not listen"
        time.sleep(0.02)


def send(captures: dict[str, Path], speed: float) -> int:
    """Send the packets of *captures* (interface -> file) at their recorded pace times *speed*; how many.

    Runs inside the namespace.
    """
    packets = []
    sockets = {}
    for number, (interface, path) in enumerate(captures.items()):
        out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        out.bind((interface, 0))
        sockets[number] = out
        for packet in chain.from_iterable(open_capture(str(path), Capture(number, str(path)))):
            time_ns, data, _, link_type, _, _ = packet
            if link_type == COOKED:
                # What a host saw on any interface: another link layer before the same packet.
                data = bytes(12) + data[14:]
            packets.append((time_ns, number, data))
    packets.sort(key=lambda item: item[0])
    first_ns, begun_ns = packets[0][0], time.monotonic_ns()
    for time_ns, number, data in packets:
        due_ns = begun_ns + int((time_ns - first_ns) / speed)
        wait_ns = due_ns - time.monotonic_ns()
        if wait_ns > 200_000:
            time.sleep(wait_ns / 1e9)
        sockets[number].send(data)
    return len(packets)


def enter(space: str) -> None:
    """Make *space* the namespace of this thread."""
    fd = os.open(f"/run/netns/{space}", os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(fd, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


if __name__ == "__main__":
    # wires.py SPACE SPEED INTERFACE=FILE…
    enter(sys.argv[1])
    given = (argument.partition("=") for argument in sys.argv[3:])
    print(send({name: Path(path) for name, _, path in given}, float(sys.argv[2])))
