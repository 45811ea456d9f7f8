"""tshark, run through pyshark: its dissection of a capture file, frame by frame.

One process for each file, closed when its frames are read or given up. Output is JSON lines (`-T ek`), which
stream. tshark itself keeps what it reassembles: its memory grows with the capture, ours does not.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from tracer.errors import SourceError, UsageError, reason

__all__ = ["Frame", "Layer", "frames", "layers", "require", "totals", "yes"]

PROGRAM = "tshark"
OLDEST = (3, 6)
"""Older ones show several messages of one frame as one."""
GET_IT = (
    "install it: apt install tshark, dnf install wireshark-cli, or https://www.wireshark.org/download.html"
)
KEYLOG = "tls.keylog_file"
SHOWN = "frame vlan ip ipv6 tcp tcp.segments tcp.segment http http2 amqp mysql"
"""The protocols whose fields are written."""
WANTED = "tcp && (tcp.len > 0 || tcp.flags.syn == 1 || tcp.flags.fin == 1 || tcp.flags.reset == 1)"
DECODE_AS = {"http1": "http", "http2": "http2", "amqp091": "amqp", "mysql": "mysql"}
"""Our decoder -> what tshark calls it."""

Layer = Mapping[str, Any]
"""Field -> value, or list of values, as tshark writes them."""


class Frame(NamedTuple):
    """What tshark shows of one frame with a TCP segment."""

    number: int
    time_ns: int
    size_bytes: int
    stream: int
    """tcp.stream"""
    source: tuple[str, int]
    destination: tuple[str, int]
    tcp: Layer
    layers: Mapping[str, Any]
    first: int
    """The frame in which what is shown here began."""


def require(keylog: Path | None = None) -> str:
    """Return the version of tshark. Raises UsageError where it is not there or is too old."""
    path = shutil.which(PROGRAM)
    if path is None:
        raise UsageError(f"--engine tshark: {PROGRAM} is not installed: {GET_IT}")
    said = _run(path, "--version")
    found = re.search(r"(\d+)\.(\d+)\.\d+", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST:
        old = found[0] if found else "of unknown version"
        oldest = ".".join(map(str, OLDEST))
        raise UsageError(f"--engine tshark: {path} is {old}, and {oldest} is needed: {GET_IT}")
    if keylog is not None and not keylog.is_file():
        raise UsageError(f"--keylog {keylog}: no such file")
    return found[0]


def _run(*command: str) -> str:
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout


def totals(path: str) -> tuple[int, int, int, int] | None:
    """Return (packets, bytes, first time, last time) of the whole file by capinfos; None without it."""
    program = shutil.which("capinfos")
    if program is None:
        return None
    line = _run(program, "-T", "-r", "-M", "-S", "-c", "-d", "-a", "-e", path).strip().split("\t")
    try:
        return int(line[1]), int(line[2]), _nanoseconds(line[3]), _nanoseconds(line[4])
    except (IndexError, ValueError):
        return None


def frames(path: str, ports: Mapping[int, str], keylog: Path | None = None) -> Iterator[Frame]:
    """Yield the TCP frames of the file *path* that carry data, or begin or end a connection.

    *ports*: port -> decoder. Raises SourceError if tshark cannot read the file.
    """
    # Imported here: pyshark is slow to import and needed for nothing else.
    from pyshark import FileCapture
    from pyshark.capture.capture import TSharkCrashException
    from pyshark.tshark.output_parser.tshark_ek import TsharkEkJsonParser

    class Parser(TsharkEkJsonParser):  # type: ignore[misc]
        def _parse_single_packet(self, packet: bytes) -> Any:
            # pyshark's own layers cannot tell several messages of one frame apart.
            return json.loads(packet)

    class Frames(FileCapture):  # type: ignore[misc]
        crash = ""

        def _setup_tshark_output_parser(self) -> Any:
            return Parser()

        async def _cleanup_subprocess(self, process: Any) -> None:
            # To kill one that is just exiting takes its exit code from asyncio, which then reports 255.
            if self._eof_reached:
                await process.wait()
            # It would raise again whenever the object is closed or freed.
            try:
                await super()._cleanup_subprocess(process)
            except TSharkCrashException as error:
                self.crash = self.crash or str(error)

    shown: Any = None
    # Without a loop of its own, pyshark replaces asyncio's child watcher for the whole process:
    # subprocesses of the caller's loops fail after it.
    loop = asyncio.new_event_loop()
    try:
        shown = Frames(
            path,
            eventloop=loop,
            use_ek=True,
            keep_packets=False,
            display_filter=WANTED,
            decode_as=_decode_as(ports, encrypted=keylog is not None),
            override_prefs={KEYLOG: str(keylog)} if keylog else None,
            custom_parameters=["-n", "-J", SHOWN],
        )
        for packet in shown:
            frame = _frame(packet)
            if frame is not None:
                yield frame
    except TSharkCrashException as error:
        shown.crash = str(error)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {reason(error)}") from None
    finally:
        if shown is not None:
            shown.close()
        loop.close()
    # A file that is cut is read up to there.
    if shown.crash and "cut short" not in shown.crash:
        raise SourceError(f"{path}: tshark cannot read it: {_error_line(shown.crash)}")


def _decode_as(ports: Mapping[int, str], encrypted: bool) -> dict[str, str]:
    """Return what tshark is told of ports.

    Told that a port is HTTP, it does not look for TLS there; within TLS it can be told of HTTP only.
    """
    if not encrypted:
        return {f"tcp.port=={port}": DECODE_AS[name] for port, name in ports.items() if name in DECODE_AS}
    return {f"tls.port=={port}": "http" for port, name in ports.items() if DECODE_AS.get(name) == "http"}


def _error_line(text: str) -> str:
    """Return what tshark said last, as pyshark quotes it."""
    found = re.search(r"Last error line: (.*)", text)
    return (found[1] if found else text.strip().partition("\n")[0])[:300]


def layers(frame: Frame, name: str) -> list[Layer]:
    """Return the layers *name* of a frame: one for each message."""
    found = frame.layers.get(name)
    if isinstance(found, list):
        return [each for each in found if isinstance(each, dict)]
    return [found] if isinstance(found, dict) else []


def yes(value: Any) -> bool:
    """Return whether a boolean field is set, however this version writes it."""
    text = str(value)
    return text.lower() == "true" or (text.isdigit() and int(text) > 0)


def _frame(packet: Mapping[str, Any]) -> Frame | None:
    shown = packet["layers"]
    tcp, about = _last(shown.get("tcp")), _last(shown.get("frame"))
    ip = _last(shown.get("ipv6"), shown.get("ip"))
    if tcp is None or ip is None or about is None:
        return None
    version = "ipv6_ipv6" if "ipv6_ipv6_src" in ip else "ip_ip"
    number = int(about["frame_frame_number"])
    # The segments that were joined to what is shown: fields without a layer of their own.
    first = shown.get("tcp_tcp_segment", number)
    return Frame(
        number,
        _nanoseconds(about["frame_frame_time_epoch"]),
        int(about["frame_frame_len"]),
        int(tcp["tcp_tcp_stream"]),
        (ip[f"{version}_src"], int(tcp["tcp_tcp_srcport"])),
        (ip[f"{version}_dst"], int(tcp["tcp_tcp_dstport"])),
        tcp,
        shown,
        int(first[0] if isinstance(first, list) else number if isinstance(first, dict) else first),
    )


def _last(*found: Any) -> Layer | None:
    """Return the innermost layer: of tunnels there are several."""
    for each in found:
        if isinstance(each, list):
            each = each[-1]
        if isinstance(each, dict) and "filtered" not in each:
            return each
    return None


def _nanoseconds(text: str) -> int:
    """Return a time in seconds with a fraction, or in ISO 8601, as nanoseconds."""
    if "T" in text:
        whole, _, fraction = text.rstrip("Z").partition(".")
        seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
    else:
        whole, _, fraction = text.partition(".")
        seconds = int(whole)
    return seconds * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
