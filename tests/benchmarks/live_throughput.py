"""Packets a second without a drop: `tracer watch`, its source alone, dumpcap and scapy's sniff, side by side.

    python tests/benchmarks/live_throughput.py [--seconds 8] [--each 60] [FOLDER]     as root

In a network namespace a sender puts recorded packets on one end of a veth pair (sendmmsg), at a rate that
goes up until the receiver's kernel counters show a drop; said is the highest rate that each took without one.
Receivers run one after the other, each in a process of its own, with the same traffic. Their rings hold 64
MiB: only what is several times as much tells what they can bear for long. On a machine with two cores one of
them is the sender's.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

# Behind the path that they need.
from lab.wires import inside, why_not, wires

from tracer.capture import open_capture
from tracer.model import Capture

IN, OUT = "w0", "w0-tx"
BATCH = 32
MOST_PACKETS = 250_000
"""Sent again from the first: the second time they are duplicates, which cost less."""
GOAL = 10.0
LEAST, MOST = 500, 800_000


class _Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class _Message(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(_Vector)),
        ("count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("received", ctypes.c_uint),
    ]


def send(path: Path, rate: float, seconds: float) -> tuple[int, float]:
    """Send the packets of *path* again and again at *rate* packets a second; how many, in how long."""
    found = [p[1] for p in chain.from_iterable(open_capture(str(path), Capture(0, str(path))))]
    packets = found[:MOST_PACKETS]
    vectors = (_Vector * len(packets))(*[_Vector(data, len(data)) for data in packets])
    messages = (_Message * len(packets))()
    for number in range(len(packets)):
        messages[number].vectors = ctypes.pointer(vectors[number])
        messages[number].count = 1
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    out.bind((OUT, 0))
    sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg
    begun_s, sent, at = time.monotonic(), 0, 0
    while (passed_s := time.monotonic() - begun_s) < seconds:
        due = int(passed_s * rate)
        if sent >= due:
            time.sleep(min(0.001, (sent + 1) / rate - passed_s) if sent + 1 > due else 0)
            continue
        count = min(BATCH, due - sent, len(packets) - at)
        done = sendmmsg(out.fileno(), ctypes.byref(messages, at * ctypes.sizeof(_Message)), count, 0)
        if done < 0:
            continue
        sent, at = sent + done, (at + done) % len(packets)
    return sent, time.monotonic() - begun_s


def receive_source(interface: str) -> None:
    """tracer's source alone: packets as watch gets them, counted."""
    from tracer.capture.interface import Interface

    source = Interface(interface, Capture(0, interface), None)
    source.open()
    signal.signal(signal.SIGTERM, lambda *_: source.stop())
    print("ready", flush=True)
    source.read(lambda packets, reached: None)
    print(json.dumps({"packets": source.capture.packets, "dropped": source.dropped}))


def receive_scapy(interface: str) -> None:
    """scapy's sniff, which dissects each packet; its socket has the counters."""
    from scapy.all import conf, sniff

    listening = conf.L2listen(iface=interface)
    # What scapy gives its sockets by default is what its users have.
    count = [0]
    ended = [False]

    def stop(*_: object) -> None:
        ended[0] = True

    def counted(_: object) -> None:
        count[0] += 1

    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    while not ended[0]:
        sniff(opened_socket=listening, prn=counted, store=False, timeout=0.5)
    _, dropped = struct.unpack("2I", listening.ins.getsockopt(263, 6, 8))
    print(json.dumps({"packets": count[0], "dropped": dropped}))


def command(name: str, folder: str) -> list[str]:
    if name == "tracer watch":
        return [sys.executable, "-m", "tracer", "watch", "-i", f"Internal_base={IN}", "--format", "jsonl"]
    if name == "dumpcap":
        return ["dumpcap", "-i", IN, "-q", "-w", "/dev/null", "-P", "-B", "64"]
    return [sys.executable, __file__, "--receive", name]


def dropped(name: str, output: str, errors: str) -> int:
    """What the receiver says that the kernel dropped."""
    if name == "tracer watch":
        report = json.loads(output.splitlines()[-1])["report"]
        return sum(c["anomalies"].get("packets dropped by the kernel", 0) for c in report["captures"])
    if name == "dumpcap":
        # Packets received/dropped on interface 'w0': 123/0 (pcap:0/dumpcap:0/flushed:0/ps_ifdrop:0) …
        line = next(line for line in errors.splitlines() if "received/dropped" in line)
        return int(line.rpartition("': ")[2].partition("/")[2].split()[0])
    return int(json.loads(output.splitlines()[-1])["dropped"])


def attempt(name: str, space: str, path: Path, rate: float, seconds: float) -> tuple[int, float]:
    """Let *name* receive at *rate*; return what it lost and the rate that was reached."""
    with tempfile.TemporaryDirectory() as folder:
        receiver = subprocess.Popen(
            inside(space, *command(name, folder)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        time.sleep(3 if name in ("tracer watch", "scapy") else 1.5)
        arguments = ["--send", str(path), "--rate", str(rate), "--seconds", str(seconds)]
        sender = subprocess.run(
            inside(space, sys.executable, __file__, *arguments),
            check=True,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        sent, took_s = json.loads(sender.stdout)
        time.sleep(0.3)
        receiver.send_signal(signal.SIGINT if name == "dumpcap" else signal.SIGTERM)
        output, errors = receiver.communicate(timeout=120)
    return dropped(name, output, errors), sent / took_s


def highest(name: str, space: str, path: Path, seconds: float, until_s: float) -> tuple[float, str]:
    """Return the highest rate without a drop, and what ended the search."""
    best, rate, bad = 0.0, float(LEAST if name == "scapy" else 16_000), 0.0
    while time.monotonic() < until_s:
        lost, reached = attempt(name, space, path, rate, seconds)
        print(f"  {name:13} {reached:10,.0f} packets/s  {lost:10,} dropped", flush=True)
        if lost:
            bad = rate
        else:
            best = max(best, reached)
            if reached < 0.9 * rate:
                return best, "the sender is no faster"
        if bad and bad < 1.3 * (best or LEAST):
            return best, "drops"
        rate = (best + bad) / 2 if bad else rate * 2
        if rate > MOST:
            return best, "no faster was tried"
    return best, "drops" if bad else "time was up"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path("captures/ok-concurrent-20"))
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--each", type=float, default=60, help="seconds to search for each receiver")
    parser.add_argument("--receive")
    parser.add_argument("--send", type=Path)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    if given.receive:
        {"source": receive_source, "scapy": receive_scapy}[given.receive](IN)
        return 0
    if given.send:
        print(json.dumps(send(given.send, given.rate, given.seconds)))
        return 0
    if why := why_not():
        print(why)
        return 2
    path = max((p for p in given.folder.iterdir() if ".pcap" in p.name), key=lambda p: p.stat().st_size)
    found: dict[str, float] = {}
    with wires([IN]) as space:
        for name in given.only or ("scapy", "source", "tracer watch", "dumpcap"):
            best, why = highest(name, space, path, given.seconds, time.monotonic() + given.each)
            found[name] = best
            ratio = f"{best / found['scapy']:6.1f} times scapy" if found.get("scapy") else ""
            print(f"{name:15} {best:10,.0f} packets/s without a drop  {ratio}  ({why})", flush=True)
    return int(found.get("tracer watch", 0) < GOAL * found.get("scapy", 0))


if __name__ == "__main__":
    sys.exit(main())
