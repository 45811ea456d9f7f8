"""Completeness under damage: what is in the file whole comes out whole.

The oracle is computed from the undamaged traffic: the messages of which every byte is in the damaged
file. The very same messages come out, each once, and none that is not whole is called so.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from lab import traffic
from lab.ours import decode, kind_of
from lab.shark import KINDS
from lab.traffic import Packet, Traffic

from tracer.model import AmqpContent, Capture, HttpRequest, HttpResponse, Message, SqlStatement

Damage = Callable[[list[Packet], random.Random], list[Packet]]


@cache
def made(coalesced: bool) -> Traffic:
    return traffic.make(coalesced=coalesced)


# --- damage ---------------------------------------------------------------------------------------


def _again(packets: list[Packet]) -> list[Packet]:
    """Give *packets* times in their new order: the network, not the file, mixed them up."""
    times = sorted(packet.time_ns for packet in packets)
    return [packet._replace(time_ns=time_ns) for packet, time_ns in zip(packets, times, strict=True)]


def nothing(packets: list[Packet], rng: random.Random) -> list[Packet]:
    return packets


def midstream(share: float) -> Damage:
    return lambda packets, rng: packets[int(len(packets) * share) :]


def loss(share: float) -> Damage:
    return lambda packets, rng: [packet for packet in packets if rng.random() >= share]


def reordered(packets: list[Packet], rng: random.Random) -> list[Packet]:
    """Delay 2 % of the packets by 1 to 3 places."""
    places = [i + (rng.randint(1, 3) + 0.5 if rng.random() < 0.02 else 0) for i in range(len(packets))]
    return _again([packet for _, packet in sorted(zip(places, packets, strict=True))])


def doubled(packets: list[Packet], rng: random.Random) -> list[Packet]:
    """Show each packet twice, as a mirror port does."""
    return [packet for packet in packets for _ in range(2)]


def retransmitted(packets: list[Packet], rng: random.Random) -> list[Packet]:
    """Send 2 % of the packets again, 3 to 10 packets later."""
    places = [(float(i), packet) for i, packet in enumerate(packets)]
    places += [(i + rng.randint(3, 10) + 0.5, p._replace(ip_id=0)) for i, p in places if rng.random() < 0.02]
    return _again([packet for _, packet in sorted(places)])


def one_direction(way: str) -> Damage:
    return lambda packets, rng: [packet for packet in packets if packet.way == way]


def cut(packets: list[Packet], rng: random.Random) -> list[Packet]:
    """Cut each packet at 256 bytes."""
    return [p._replace(payload=p.payload[: 256 - 54], wire_bytes=len(p.payload)) for p in packets]


def both(first: Damage, second: Damage) -> Damage:
    return lambda packets, rng: second(first(packets, rng), rng)


CASES: list[tuple[str, bool, Damage]] = [
    ("none", False, nothing),
    ("starts 10 % in", False, midstream(0.10)),
    ("0.1 % lost", False, loss(0.001)),
    ("1 % lost", False, loss(0.01)),
    ("10 % lost", False, loss(0.10)),
    ("2 % reordered by 1 to 3", False, reordered),
    ("2 % reordered and 1 % lost", False, both(reordered, loss(0.01))),
    ("each packet twice", False, doubled),
    ("each packet twice and 1 % lost", False, both(doubled, loss(0.01))),
    ("2 % retransmitted", False, retransmitted),
    ("client to server only", False, one_direction(">")),
    ("server to client only", False, one_direction("<")),
    ("snap length 256", False, cut),
    ("coalesced", True, nothing),
    ("coalesced, starts 35 % in", True, midstream(0.35)),
    ("coalesced, 1 % lost", True, loss(0.01)),
    ("coalesced, starts 35 % in, 1 % lost", True, both(midstream(0.35), loss(0.01))),
    ("coalesced, 2 % reordered", True, reordered),
]


# --- what came out --------------------------------------------------------------------------------


def number_of(message: Message) -> int:
    """Return the number that the traffic gave a message, 0 if it cannot be read."""
    if isinstance(message, HttpRequest):
        text = message.target.rpartition("/")[2]
    elif isinstance(message, HttpResponse):
        text = message.headers.get("x-number", "")
    elif isinstance(message, AmqpContent):
        text = str(message.properties.get("correlation_id", ""))
    else:
        assert isinstance(message, SqlStatement)
        text = message.text.rpartition(b" = ")[2].decode(errors="replace")
    return int(text) if text.isdecimal() else 0


def came_out(path: Path) -> tuple[dict[str, Counter[int]], Counter[str], Capture]:
    """Return the numbers of the whole messages by kind, how many are flagged truncated, and the counters."""
    messages, (capture,) = decode([path])
    whole: dict[str, Counter[int]] = {kind: Counter() for kind in KINDS}
    flagged: Counter[str] = Counter()
    for message in messages:
        kind = kind_of(message)
        if not kind:
            continue
        if message.truncated:  # type: ignore[union-attr]
            flagged[kind] += 1
        else:
            whole[kind][number_of(message)] += 1
    return whole, flagged, capture


@pytest.mark.parametrize(("name", "coalesced", "damage"), CASES, ids=[case[0] for case in CASES])
def test_what_is_whole_in_the_file_comes_out_whole(
    name: str, coalesced: bool, damage: Damage, tmp_path: Path
) -> None:
    """Every message of which all bytes are in the damaged file comes out once, whole; no other does."""
    clean = made(coalesced)
    packets = damage(clean.packets, random.Random(7))
    oracle = traffic.whole(clean.places, packets)
    found, _, _ = came_out(traffic.write(packets, tmp_path / "damaged.pcap"))
    for kind in KINDS:
        expected = oracle[kind]
        assert set(found[kind]) >= expected, f"{kind}: {len(expected - set(found[kind]))} missing"
        assert set(found[kind]) <= expected, f"{kind}: {sorted(set(found[kind]) - expected)[:5]} not whole"
        assert found[kind].total() == len(expected), f"{kind}: some came twice"


def test_the_traffic_is_as_large_as_the_reference_says() -> None:
    """About 20,000 packets with 781 exchanges, 738 contents each way and 368 queries."""
    clean = made(False)
    counts = Counter(place.kind for place in clean.places)
    assert counts == {"request": 781, "response": 781, "publish": 738, "deliver": 738, "command": 368}
    assert 15_000 < len(clean.packets) < 30_000


@pytest.mark.parametrize("share", [0.001, 0.01])
def test_what_loss_has_damaged_is_flagged_not_hidden(share: float, tmp_path: Path) -> None:
    """Most messages with a hole are still told, as truncated; the counters tell how much was lost."""
    clean = made(False)
    packets = loss(share)(clean.packets, random.Random(7))
    oracle = traffic.whole(clean.places, packets)
    _, flagged, capture = came_out(traffic.write(packets, tmp_path / "damaged.pcap"))
    damaged = sum(len(traffic.whole(clean.places, clean.packets)[kind] - oracle[kind]) for kind in KINDS)
    assert flagged.total() >= damaged * 0.6
    gone = sum(len(p.payload) for p in set(clean.packets) - set(packets))
    assert 0.9 * gone <= capture.lost_bytes <= gone


def test_copies_are_counted(tmp_path: Path) -> None:
    """A mirror port's copies are duplicates, one for each packet with data (of one byte: maybe a probe)."""
    clean = made(False)
    packets = doubled(clean.packets, random.Random(7))
    _, _, capture = came_out(traffic.write(packets, tmp_path / "damaged.pcap"))
    assert capture.duplicate_segments == sum(len(packet.payload) > 1 for packet in clean.packets)
    assert (capture.gaps, capture.reordered_segments) == (0, 0)


def test_reordering_is_counted(tmp_path: Path) -> None:
    """Reordered segments are counted, and no hole is declared for them."""
    packets = reordered(made(False).packets, random.Random(7))
    _, _, capture = came_out(traffic.write(packets, tmp_path / "damaged.pcap"))
    assert capture.reordered_segments > 50
    assert capture.gaps == 0


def test_heads_of_cut_packets_are_told(tmp_path: Path) -> None:
    """With a snap length of 256 most requests and contents come out truncated, by their heads."""
    clean = made(False)
    packets = cut(clean.packets, random.Random(7))
    _, flagged, _ = came_out(traffic.write(packets, tmp_path / "damaged.pcap"))
    assert flagged["publish"] + flagged["deliver"] >= 1400
    assert flagged["response"] >= 700
