"""What this host can do: privileges, tools, clock, interfaces, optional libraries, brokers. Changes nothing.

`tracer doctor` shows it. What is missing is a finding, with what to do about it, and never an exception.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from tracer.errors import SourceError
from tracer.model.diagnosis import Finding, HostDiagnosis, InterfaceState

__all__ = ["diagnose_host", "may_sniff"]

DISTRIBUTION = "cloudvm-tracer"
_ALL_PROTOCOLS = 3
"""ETH_P_ALL"""
_UNSYNCHRONISED = 0x40
"""STA_UNSYNC of adjtimex(2)."""
_TOOLS = (
    ("tshark", "a second opinion, and formats that tracer does not read", "apt install tshark"),
    ("dumpcap", "records captures with few losses", "apt install tshark"),
    ("tcpdump", "records captures on hosts without tracer", "apt install tcpdump"),
)
"""(program, what it is good for, how to get it)"""
_DEVELOPERS = ("test", "oracle")
"""Extras that no user needs."""
_WAIT_S = 10


def diagnose_host(brokers: Iterable[str] = ()) -> HostDiagnosis:
    """Return what this host can do; *brokers* are URLs as of `--amqp`. Raises UsageError for a wrong URL."""
    findings = (
        _python(),
        _sniffing(),
        _filter(),
        *(_tool(*tool) for tool in _TOOLS),
        _clock(),
        *_extras(),
        *_brokers(brokers),
    )
    return HostDiagnosis(findings, tuple(_interfaces()))


def may_sniff() -> bool:
    """Return whether this process may open a packet socket (CAP_NET_RAW)."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS)).close()
    except (OSError, AttributeError):
        return False
    return True


def _python() -> Finding:
    from tracer import __version__

    return Finding("tracer", "ok", f"{__version__}, Python {platform.python_version()}, {platform.system()}")


def _sniffing() -> Finding:
    subject = "live capture"
    if not hasattr(socket, "AF_PACKET"):
        return Finding(subject, "bad", "needs Linux", "record with tcpdump here, and check the files")
    if may_sniff():
        return Finding(subject, "ok", "this process may open packet sockets (CAP_NET_RAW)")
    python = os.path.realpath(sys.executable)
    remedy = f"run tracer with sudo, or once: sudo setcap cap_net_raw+ep {python}"
    return Finding(subject, "bad", "this process may not open packet sockets (CAP_NET_RAW)", remedy)


def _filter() -> Finding:
    if ctypes.util.find_library("pcap"):
        return Finding("capture filter", "ok", "libpcap is here")
    return Finding("capture filter", "bad", "libpcap is missing: -f needs it", "apt install libpcap0.8")


def _tool(name: str, purpose: str, remedy: str) -> Finding:
    path = shutil.which(name)
    if path is None:
        return Finding(name, "note", f"not here ({purpose})", remedy)
    said = ""
    with suppress(OSError, subprocess.SubprocessError):
        ran = subprocess.run(  # noqa: S603  # a program of our table, found on PATH
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=_WAIT_S,
            check=False,
            errors="replace",
        )
        said = next(iter((ran.stdout or ran.stderr).splitlines()), "")
    return Finding(name, "ok", f"{path}: {said.rstrip('.')[:80]}" if said else path)


def _clock() -> Finding:
    subject = "clock"
    # struct timex of Linux, 64 bit: modes, offset, freq, maxerror, esterror, status (adjtimex(2)).
    buffer = ctypes.create_string_buffer(256)
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        state = -1
    if state < 0:
        return Finding(subject, "note", "whether it is synchronised cannot be told here")
    word = ctypes.sizeof(ctypes.c_long)
    status = ctypes.c_int.from_buffer(buffer, 5 * word).value
    error_us = ctypes.c_long.from_buffer(buffer, 3 * word).value
    if status & _UNSYNCHRONISED:
        remedy = "run chronyd or systemd-timesyncd; offsets between captures are estimated from the traffic"
        return Finding(subject, "note", "not synchronised", remedy)
    return Finding(subject, "ok", f"synchronised, error at most {error_us / 1e3:,.1f} ms")


def _extras() -> Iterator[Finding]:
    """Yield a finding for each optional part: whether the libraries of its extra are installed."""
    try:
        required = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return
    needed: dict[str, list[str]] = {}
    for line in required:
        requirement, _, marker = line.partition(";")
        extra = marker.rpartition("extra ==")[2].strip().strip("'\"")
        if "extra" in marker and extra not in _DEVELOPERS:
            name = requirement.split("[")[0]
            needed.setdefault(extra, []).append(name.split(">")[0].split("=")[0].split("<")[0].strip())
    for extra, names in sorted(needed.items()):
        missing = [name for name in names if not _is_installed(name)]
        subject = f"extra {extra}"
        if missing:
            remedy = f"pip install '{DISTRIBUTION}[{extra}]'"
            yield Finding(subject, "note", f"not installed: {', '.join(missing)}", remedy)
        else:
            yield Finding(subject, "ok", ", ".join(names))


def _is_installed(name: str) -> bool:
    with suppress(metadata.PackageNotFoundError):
        metadata.version(name)
        return True
    return False


def _brokers(urls: Iterable[str]) -> Iterator[Finding]:
    """Yield whether each broker lets us listen, and whether its trace is on."""
    from tracer.capture.sources import broker_sources

    for source in broker_sources(tuple(urls)):
        name = source.capture.path
        try:
            source.open()
        except SourceError as error:
            yield Finding("RabbitMQ", "bad", str(error))
            continue
        source.stop()
        source.read(lambda batch, reached_ns: None)
        events = getattr(source, "knows_peers", False)
        text = f"{name}: the trace is on and this user may listen"
        remedy = (
            "" if events else "rabbitmq-plugins enable rabbitmq_event_exchange, to be told who is connected"
        )
        yield Finding("RabbitMQ", "ok" if events else "note", text, remedy)


def _interfaces() -> Iterator[InterfaceState]:
    """Yield the interfaces of this host, by name (sysfs-class-net)."""
    addresses = _addresses()
    for place in sorted(Path("/sys/class/net").glob("*")):
        if not place.is_dir():  # bonding_masters, a list of the bonding driver
            continue
        state = _text(place / "operstate")
        flags = int(_text(place / "flags") or "0", 16)
        packets = sum(int(_text(place / "statistics" / f"{way}_packets") or 0) for way in ("rx", "tx"))
        # The loopback has no operational state; IFF_UP is 1.
        is_up = state == "up" or (state == "unknown" and bool(flags & 1))
        yield InterfaceState(place.name, is_up, addresses.get(place.name, ()), packets)


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="ascii", errors="replace").strip()
    return ""


def _addresses() -> dict[str, tuple[str, ...]]:
    """Return the addresses of each interface, as scapy reads them; {} where it cannot."""
    try:
        import logging

        logging.getLogger("scapy").setLevel(logging.CRITICAL)
        from scapy.config import conf

        found = conf.ifaces.values()
        return {i.name: tuple(a for family in (4, 6) for a in i.ips.get(family, ()) if a) for i in found}
    except Exception:  # whatever scapy meets here: the interfaces are shown without their addresses
        return {}
