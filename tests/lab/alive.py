"""Recorded scenarios as if they happened now: through pipes, at their pace, with the time of the wall.

    PYTHONPATH=tests python tests/lab/alive.py FOLDER PIPE_DIR --speed 10 --per-minute 200 --seconds 60
        [--nova-sql ADDRESS…]

writes a pipe for each plane into PIPE_DIR, turn upon turn (turns.py), begun so often that so many creations
begin in a minute.
"""

from __future__ import annotations

import argparse
import heapq
import os
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.turns import Recording
from tracer.capture.live import wall_ns

HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
RECORD = struct.Struct("<IIII")
STEP_S = 0.005
LATE_S = 0.05

Timed = tuple[int, int, bytes, int]
"""Nanoseconds since the begin, plane, packet, length on the wire."""


def staggered(recording: Recording, speed: float, every_ns: int, until_ns: int) -> Iterator[Timed]:
    """Yield the packets of turns, one begun each *every_ns*, up to *until_ns*, in time order."""

    def turn(number: int) -> Iterator[Timed]:
        begin_ns = number * every_ns
        for since_ns, plane, data, wire in recording.turn(number):
            yield begin_ns + int(since_ns / speed), plane, data, wire

    number, running = 0, []
    while True:
        next_ns = number * every_ns
        # All that comes before the next turn begins.
        while running and running[0][0] < next_ns:
            time_ns, order, packet, packets = running[0]
            if time_ns > until_ns:
                return
            yield packet
            following = next(packets, None)
            if following is None:
                heapq.heappop(running)
            else:
                heapq.heapreplace(running, (following[0], order, following, packets))
        if next_ns > until_ns:
            return
        packets = turn(number)
        first = next(packets)
        heapq.heappush(running, (first[0], number, first, packets))
        number += 1


def send(packets: Iterator[Timed], fds: Sequence[int], late: Callable[[float], None] | None = None) -> int:
    """Write *packets* to their planes' pipes as they are due, stamped with the time they are due; how many.

    When the pipes are full, or the machine is, all that follows comes later: a packet's stamp is never much
    older than its sending. *late* hears of each such delay, in seconds.
    """
    for fd in fds:
        os.write(fd, HEADER)
    begun_s, count, now_s = time.monotonic(), 0, 0.0
    begun_ns = wall_ns()
    waiting: list[bytearray] = [bytearray() for _ in fds]
    for since_ns, plane, data, wire in packets:
        due_s = since_ns / 1e9
        if due_s > now_s:
            for fd, buffer in zip(fds, waiting, strict=True):
                _write(fd, buffer)
            now_s = time.monotonic() - begun_s
            if due_s > now_s:
                time.sleep(max(STEP_S, due_s - now_s))
                now_s = time.monotonic() - begun_s
            elif now_s - due_s > LATE_S:
                delay_s = now_s - due_s
                begun_s += delay_s
                begun_ns += int(delay_s * 1e9)
                now_s = due_s
                if late is not None:
                    late(delay_s)
        stamp_ns = begun_ns + since_ns
        waiting[plane] += RECORD.pack(*divmod(stamp_ns, 1_000_000_000), len(data), wire) + data
        count += 1
    for fd, buffer in zip(fds, waiting, strict=True):
        _write(fd, buffer)
    return count


def _write(fd: int, buffer: bytearray) -> None:
    at = 0
    while at < len(buffer):
        at += os.write(fd, bytes(buffer[at : at + (1 << 16)]))
    buffer.clear()


@contextmanager
def sent_now(folder: Path, recording: Recording, speed: float = 1) -> Iterator[list[str]]:
    """Pipes of the planes, out of which *recording* comes once, now."""
    pipes = [folder / f"{plane}.pcap" for plane in recording.planes]
    for pipe in pipes:
        os.mkfifo(pipe)

    def run() -> None:
        fds = [os.open(pipe, os.O_WRONLY) for pipe in pipes]
        send(((int(t / speed), *rest) for t, *rest in recording.turn(0)), fds)  # type: ignore[misc]
        for fd in fds:
            os.close(fd)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield [str(pipe) for pipe in pipes]
    thread.join(10)


def not_sql_but_of(addresses: Sequence[str]) -> Callable[[bytes], bool]:
    """What `tracer watch` proposes to sniff: of SQL only what these addresses say and hear."""
    mine = {bytes(map(int, address.split("."))) for address in addresses}
    sql = (3306).to_bytes(2, "big")

    def keep(data: bytes) -> bool:
        if data[12:15] != b"\x08\x00\x45" or sql not in (data[34:36], data[36:38]):
            return True
        return data[26:30] in mine or data[30:34] in mine

    return keep


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("pipes", type=Path)
    parser.add_argument("--creations", type=int, required=True, help="how many are in FOLDER")
    parser.add_argument("--speed", type=float, default=10)
    parser.add_argument("--per-minute", type=float, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--nova-sql", nargs="*", help="of SQL only what these addresses say and hear")
    given = parser.parse_args()
    keep = not_sql_but_of(given.nova_sql) if given.nova_sql else lambda data: True
    recording = Recording.of(given.folder, keep)
    every_ns = int(given.creations / given.per_minute * 60e9)
    fds = [os.open(given.pipes / f"{plane}.pcap", os.O_WRONLY) for plane in recording.planes]
    delays: list[float] = []
    packets = staggered(recording, given.speed, every_ns, int(given.seconds * 1e9))
    begun_s = time.monotonic()
    count = send(packets, fds, delays.append)
    passed_s, used = time.monotonic() - begun_s, os.times()
    print(
        f"sender: {count:,} packets, {count / passed_s:,.0f}/s, {used.user + used.system:.0f} s CPU,"
        f" held up {len(delays)} times for {sum(delays):.2f} s in all",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
