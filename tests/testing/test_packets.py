"""The packets that the builders make, in the order in which a capture point would have seen them."""

from __future__ import annotations

import struct

from tracer.testing.packets import Network


def sequence_number(frame: bytes) -> int:
    """Of an IPv4 packet without options in an Ethernet frame."""
    return int(struct.unpack_from(">I", frame, 14 + 20 + 4)[0])


def test_what_follows_on_a_long_message_at_once_comes_after_it() -> None:
    network = Network()
    made = network.connection("10.0.0.1", "10.0.0.2", 5672)
    for number in range(5):
        made.say(number * 1e-9, b"x" * 60_000)
    made.hear(5e-9, b"got it")
    [packets] = network.packets().values()
    numbers = [sequence_number(frame) for _, frame in packets]
    assert numbers[:-1] == sorted(numbers[:-1]) and len(set(numbers)) == len(numbers) == 5 * 42 + 1
    assert [time_ns for time_ns, _ in packets] == sorted(time_ns for time_ns, _ in packets)
