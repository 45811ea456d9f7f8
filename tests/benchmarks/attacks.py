"""What traffic meant to exhaust `tracer check` costs it: CPU seconds and peak memory, one line per attack.

    python tests/benchmarks/attacks.py [--scale 0.1] [--tree DIR] [--only NAME]…

Each capture is written packet by packet to a temporary file, the same in every run, and read by a process
of its own. `--tree` measures another checkout. Attacks are in time order and use the ports of a cloud, which
is the worst case: traffic on other ports becomes no call.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import zstandard

REPOSITORY = Path(__file__).parents[2]
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
NOVA_API, BROKER = 8774, 5672
SERVER = 0x0A000002
CLIENT = 0x0A000003
START_US = 1_700_000_000_000_000

Packet = tuple[int, bytes]
"""Microseconds since the start, Ethernet frame."""

_HEADERS = struct.Struct(">12xHBBHHHBBHIIHHIIBBHHH")


def tcp(
    source: tuple[int, int], target: tuple[int, int], seq: int, ack: int, flags: int, payload: bytes = b""
) -> bytes:
    """Return an Ethernet frame with a TCP segment between two (IPv4 address, port)."""
    size = 40 + len(payload)
    head = _HEADERS.pack(
        0x0800, 0x45, 0, size, seq & 0xFFFF, 0, 64, 6, 0, source[0], target[0],
        source[1], target[1], seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, 65535, 0, 0,
    )  # fmt: skip
    return head + payload


class Stream:
    """One connection whose packets are made one by one."""

    def __init__(self, client: tuple[int, int], port: int = NOVA_API) -> None:
        self.client, self.server = client, (SERVER, port)
        self.sent, self.answered = 1000, 5000

    def opened(self) -> list[bytes]:
        frames = [
            tcp(self.client, self.server, self.sent, 0, SYN),
            tcp(self.server, self.client, self.answered, self.sent + 1, SYN | ACK),
            tcp(self.client, self.server, self.sent + 1, self.answered + 1, ACK),
        ]
        self.sent += 1
        self.answered += 1
        return frames

    def asks(self, payload: bytes) -> bytes:
        frame = tcp(self.client, self.server, self.sent, self.answered, PSH | ACK, payload)
        self.sent += len(payload)
        return frame

    def answers(self, payload: bytes) -> bytes:
        frame = tcp(self.server, self.client, self.answered, self.sent, PSH | ACK, payload)
        self.answered += len(payload)
        return frame


def _timed(frames: Iterable[bytes], step_us: int = 10) -> Iterator[Packet]:
    for number, frame in enumerate(frames):
        yield number * step_us, frame


def _client(number: int) -> tuple[int, int]:
    """A client of its own for each *number*, by address and port."""
    return 0x0B000000 + number // 50_000 * 7 + number % 50_000 * 64, 10_000 + number % 50_000


def syn_flood(count: int) -> Iterator[Packet]:
    """A SYN each from an address of its own; nobody answers."""
    return _timed((tcp(_client(n), (SERVER, NOVA_API), n * 77, 0, SYN) for n in range(count)), 5)


def few_bytes(count: int) -> Iterator[Packet]:
    """Connections that are opened, carry a few bytes, and are left open (half of them) or reset."""

    def frames() -> Iterator[bytes]:
        for number in range(count):
            stream = Stream(_client(number))
            yield from stream.opened()
            yield stream.asks(b"GET /v")
            if number % 2:
                yield tcp(stream.client, stream.server, stream.sent, 0, RST)

    return _timed(frames(), 5)


def finished(count: int) -> Iterator[Packet]:
    """Connections on a port of no service that carry a few bytes each way and are closed."""

    def frames() -> Iterator[bytes]:
        for number in range(count):
            stream = Stream(_client(number), 7777)
            yield from stream.opened()
            yield stream.asks(b"hello")
            yield stream.answers(b"you")
            yield tcp(stream.client, stream.server, stream.sent, stream.answered, FIN | ACK)
            yield tcp(stream.server, stream.client, stream.answered, stream.sent + 1, FIN | ACK)

    return _timed(frames(), 5)


def port_scan(count: int) -> Iterator[Packet]:
    """One host asks *count* others for nova-api; one in two refuses, the others are silent."""

    def frames() -> Iterator[bytes]:
        for number in range(count):
            target = (0x0A010000 + number, NOVA_API)
            yield tcp((CLIENT, 40_000), target, number, 0, SYN)
            if number % 2:
                yield tcp(target, (CLIENT, 40_000), 0, number + 1, RST | ACK)

    return _timed(frames(), 100)


def pipelined(count: int) -> Iterator[Packet]:
    """Requests on one connection, none of which is answered."""

    def frames() -> Iterator[bytes]:
        stream = Stream((CLIENT, 40_000))
        yield from stream.opened()
        for number in range(0, count, 10):
            yield stream.asks(
                b"".join(
                    b"GET /v2.1/servers/%08x-0000-4000-8000-000000000000 HTTP/1.1\r\nHost: api\r\n\r\n" % n
                    for n in range(number, min(count, number + 10))
                )
            )

    return _timed(frames())


def fragments(count: int) -> Iterator[Packet]:
    """First fragments of IP packets whose rest never comes."""

    def frames() -> Iterator[bytes]:
        for number in range(count):
            frame = bytearray(tcp((CLIENT, 40_000), (SERVER, NOVA_API), number, 0, ACK, bytes(1400)))
            struct.pack_into(">HH", frame, 18, number & 0xFFFF, 0x2000)
            struct.pack_into(">I", frame, 26, 0x0B000000 + number)
            yield bytes(frame)

    return _timed(frames())


def bomb(count: int) -> Iterator[Packet]:
    """Packets of zeros: they pack to a thousandth and less."""
    return _timed(tcp((CLIENT, 40_000), (SERVER, 7777), 1, 0, ACK, bytes(60_000)) for _ in range(count))


def _in_one_message(payload: bytes, port: int = NOVA_API) -> Iterator[Packet]:
    def frames() -> Iterator[bytes]:
        stream = Stream((CLIENT, 40_000), port)
        yield from stream.opened()
        for at in range(0, len(payload), 1400):
            yield stream.asks(payload[at : at + 1400])

    return _timed(frames())


def deep_json(count: int) -> Iterator[Packet]:
    """A body that opens *count* lists."""
    body = b'{"server": ' + b"[" * count
    return _in_one_message(b"POST /v2.1/servers HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def headers(count: int) -> Iterator[Packet]:
    """A request of *count* headers."""
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(count))
    return _in_one_message(b"GET /v2.1/servers HTTP/1.1\r\n" + lines + b"\r\n")


def channels(count: int) -> Iterator[Packet]:
    """An AMQP connection that begins a message on every channel."""
    frames = [b"AMQP\0\0\x09\x01"]
    publish = struct.pack(">HHHBBB", 60, 40, 0, 0, 0, 0)
    head = struct.pack(">HHQH", 60, 0, 1 << 20, 0)
    for number in range(1, count + 1):
        frames += [struct.pack(">BHI", 1, number & 0xFFFF, 5) + struct.pack(">HHB", 20, 10, 0) + b"\xce"]
        frames += [struct.pack(">BHI", 1, number & 0xFFFF, len(publish)) + publish + b"\xce"]
        frames += [struct.pack(">BHI", 2, number & 0xFFFF, len(head)) + head + b"\xce"]
        frames += [struct.pack(">BHI", 3, number & 0xFFFF, 64) + bytes(64) + b"\xce"]
    return _in_one_message(b"".join(frames), BROKER)


def holes(count: int) -> Iterator[Packet]:
    """A connection of which every second segment is missing."""

    def frames() -> Iterator[bytes]:
        stream = Stream((CLIENT, 40_000))
        yield from stream.opened()
        for _ in range(count):
            yield stream.asks(b"GET /v2.1/servers HTTP/1.1\r\n")
            stream.sent += 100

    return _timed(frames())


class Attack(NamedTuple):
    make: Callable[[int], Iterator[Packet]]
    count: int
    packing: str = ""
    interrupts: bool = False
    """Is ended by Ctrl-C half a second after its start, and must be within a second."""


ATTACKS = {
    "syn-flood": Attack(syn_flood, 1_000_000),
    "few-bytes": Attack(few_bytes, 1_000_000),
    "finished": Attack(finished, 1_000_000),
    "port-scan": Attack(port_scan, 65_536),
    "pipelined": Attack(pipelined, 200_000),
    "fragments": Attack(fragments, 50_000),
    "bomb-zst": Attack(bomb, 20_000, "zst"),
    "bomb-gz": Attack(bomb, 20_000, "gz"),
    "bomb-ctrl-c": Attack(bomb, 40_000, "zst", interrupts=True),
    "deep-json": Attack(deep_json, 200_000),
    "headers": Attack(headers, 1_000_000),
    "channels": Attack(channels, 65_000),
    "holes": Attack(holes, 300_000),
}


class Cost(NamedTuple):
    cpu_s: float
    peak_mib: float
    code: int
    ended_s: float
    """From the interrupt to the end; 0 without one."""
    answer: dict[str, object]
    packed_bytes: int
    unpacked_bytes: int


def write(path: Path, attack: Attack, count: int) -> int:
    """Write the capture of *count* to *path*; return its size before it is packed."""
    with path.open("wb") as plain:
        if attack.packing == "zst":
            with zstandard.ZstdCompressor().stream_writer(plain, closefd=False) as packed:
                return _write(packed, attack.make(count))  # type: ignore[arg-type]
        if attack.packing == "gz":
            with gzip.GzipFile(fileobj=plain, mode="wb", mtime=0) as packed:
                return _write(packed, attack.make(count))  # type: ignore[arg-type]
        return _write(plain, attack.make(count))


def _write(file: BinaryIO, packets: Iterable[Packet]) -> int:
    size = file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))
    record = struct.Struct("<IIII").pack
    for time_us, frame in packets:
        seconds, micro = divmod(START_US + time_us, 1_000_000)
        size += file.write(record(seconds, micro, len(frame), len(frame)) + frame)
    return size


def run(name: str, scale: float, tree: Path = REPOSITORY) -> Cost:
    """Return what reading the attack *name* costs the program of *tree*."""
    attack = ATTACKS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"attack.pcap{'.' + attack.packing if attack.packing else ''}"
        # One that is over before the interrupt shows nothing.
        count = attack.count if attack.interrupts else max(20, int(attack.count * scale))
        unpacked = write(path, attack, count)
        command = [sys.executable, "-m", "tracer", "check", "--format", "json", str(path)]
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        out = Path(folder) / "out"
        told = subprocess.run(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                LAUNCHER,
                "1" if attack.interrupts else "",
                str(out),
                *command,
            ],
            env=environment | {"PYTHONPATH": str(tree)},
            cwd=folder,
            capture_output=True,
            check=True,
        )
        cpu_s, peak_mib, code, ended_s = json.loads(told.stdout)
        text = out.read_bytes()
        answer = json.loads(text) if text.strip().startswith(b"{") else {}
        return Cost(cpu_s, peak_mib, code, ended_s, answer, path.stat().st_size, unpacked)


LAUNCHER = """
import os, signal, sys, time
to = [(os.POSIX_SPAWN_OPEN, 1, sys.argv[2], os.O_WRONLY | os.O_CREAT, 0o600)]
to += [(os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)]
child = os.posix_spawn(sys.argv[3], sys.argv[3:], os.environ, file_actions=to, setsigdef=[signal.SIGINT])
ended, capture = 0, sys.argv[-1]
def is_reading():
    try:
        for number in os.listdir(f"/proc/{child}/fd"):
            if os.readlink(f"/proc/{child}/fd/{number}") == capture:
                with open(f"/proc/{child}/fdinfo/{number}") as info:
                    return int(info.readline().split()[1]) > 100_000
    except OSError:
        pass
    return False
if sys.argv[1]:
    # However busy the machine is: once it is in the middle of the file.
    until = time.monotonic() + 60
    while not is_reading() and time.monotonic() < until:
        time.sleep(0.02)
    ended = time.monotonic()
    os.kill(child, signal.SIGINT)
_, status, usage = os.wait4(child, 0)
ended = time.monotonic() - ended if ended else 0
code = os.waitstatus_to_exitcode(status)
print([usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, code, ended])
"""
"""Starts the program from a small process: to the kernel a child's peak begins with that of its parent."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of each attack's full size")
    parser.add_argument("--tree", type=Path, default=REPOSITORY, help="checkout to measure")
    parser.add_argument("--only", action="append", choices=list(ATTACKS), help="only this attack")
    options = parser.parse_args()
    print(f"{'attack':12} {'CPU s':>7} {'peak MiB':>9}  exit")
    for name in options.only or ATTACKS:
        cost = run(name, options.scale, options.tree)
        notes = [f"ended {cost.ended_s:.2f} s after Ctrl-C"] if cost.ended_s else []
        if ATTACKS[name].packing:
            notes.append(f"{cost.packed_bytes:,} bytes packed, {cost.unpacked_bytes:,} unpacked")
        if forgotten := cost.answer.get("forgotten"):
            notes.append(f"forgotten: {forgotten}")
        figures = f"{name:12} {cost.cpu_s:7.1f} {cost.peak_mib:9.0f}  {cost.code:4}"
        print(f"{figures}  {'; '.join(notes)}", flush=True)


if __name__ == "__main__":
    main()
