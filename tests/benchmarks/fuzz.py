"""Fuzz each place where foreign bytes enter: mutated inputs must raise nothing but our caller's mistakes.

    python tests/benchmarks/fuzz.py [--executions 20000] [--seed 1] [--entry NAME]… [--coverage]

The inputs are those of captures/: packets, streams, messages, statements, files. Each entry gets its
executions; with the same seed they are the same. A finding is made as small as it still fails, and printed
with its exception; the exit code is then 1. `--coverage` lets atheris guide the mutations of one `--entry`,
where it is installed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import zstandard

from tracer.calls import Calls
from tracer.capture import open_capture
from tracer.capture.layers import Layers
from tracer.capture.rabbitmq.frames import Deliveries
from tracer.capture.rabbitmq.messages import EVENTS, TRACE, Firehose
from tracer.engine import Settings
from tracer.engine import baseline as baselines
from tracer.engine.internal_errors import InternalErrors
from tracer.engine.stages import Stages
from tracer.errors import TracerError
from tracer.grammar import load as load_grammar
from tracer.grammar.reading import read as read_grammar
from tracer.live import checkpoint
from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Call,
    Capture,
    Closed,
    Connection,
    Data,
    Endpoint,
    Gap,
    Segment,
)
from tracer.protocols import PORTS, Decoders, Options
from tracer.reassembly import Reassembler
from tracer.topology import GivenTopology, load_topology

sys.path.insert(0, str(Path(__file__).parents[1]))  # for lab, where this runs by itself
from lab import postgres

CAPTURES = Path(__file__).parents[2] / "captures"
GRAMMARS = Path(__file__).parents[2] / "grammars"
SCENARIOS = ("fail-vrm-500-reschedule", "fail-quota-403", "fail-conductor-down")
FRAMES = ((0, 1),)
INTERESTING = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
TOKENS = (
    b"\r\n\r\n", b"\r\n", b"\x00", b"\xff\xff", b"\xce", b"HTTP/1.1", b"Content-Length: -1", b"chunked",
    b"ffffffffffffffff\r\n", b"%zz", b"&a=1" * 101, b"[" * 2000, b'{"a":' * 500, b"'", b"\\", b"/*", b"--",
    b"1e999", b"-0", b"NaN", b"\xed\xa0\x80", "\u202e\u0661".encode(), b"null", b"[]", b"{}", b"9" * 5000,
    b"\"",
    b"oslo.message", b'"oslo.version"', b"req-", b"..", b"://", b"[::", b"S" + struct.pack(">I", 1 << 31),
)  # fmt: skip
NUMBERS = (b"-1", b"0", b"99999999999999999999", b"1.5", b"null", b'"x"', b"[]")

Run = Callable[[list[bytes]], object]


class Entry(NamedTuple):
    """A place where foreign bytes enter: inputs to begin with, each in parts, and what takes one."""

    seeds: Callable[[], list[list[bytes]]]
    run: Run
    weight: float = 1.0
    """Share of the executions: what is slow gets fewer."""


# --- inputs -----------------------------------------------------------------------------------------


@cache
def packets() -> dict[str, list[tuple[int, bytes]]]:
    """Scenario -> its packets by time."""
    found = {}
    for name in SCENARIOS:
        files = sorted((CAPTURES / name).glob("*.zst"))
        read = chain.from_iterable(
            packet for path in files for packet in open_capture(str(path), Capture(0, str(path)))
        )
        found[name] = sorted((packet[0], bytes(packet[1])) for packet in read)
    return found


def _pcap(some: Sequence[tuple[int, bytes]]) -> bytes:
    head = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262_144, 1)
    return head + b"".join(
        struct.pack("<IIII", *divmod(time_ns, 1_000_000_000), len(data), len(data)) + data
        for time_ns, data in some
    )


def _block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


def _pcapng(some: Sequence[tuple[int, bytes]]) -> bytes:
    options = struct.pack("<HH4sHH", 2, 4, b"eth0", 0, 0)
    blocks = [_block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))]
    blocks += [_block(1, struct.pack("<HHI", 1, 0, 262_144) + options)]
    for time_ns, data in some:
        stamp = time_ns // 1000
        head = struct.pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(data), len(data))
        blocks.append(_block(6, head + data))
    return b"".join(blocks)


@cache
def segments() -> list[Segment]:
    layers, found = Layers(), []
    for number, (time_ns, data) in enumerate(packets()[SCENARIOS[0]], 1):
        found += layers.read([(time_ns, data, len(data), 1, (0, number), 0)], Counter())
    return [Segment._make(segment) for segment in found]


@cache
def streams() -> dict[str, list[list[bytes]]]:
    """Protocol -> the pieces of connections, of each piece the direction in its first byte."""
    by_connection: dict[int, list[bytes]] = {}
    protocols: dict[int, str] = {}
    reassembler = Reassembler([Capture(0, "x")], PORTS)
    for event in reassembler.read([segments()]):
        if isinstance(event, Data):
            number = event.connection.number
            protocols.setdefault(number, PORTS.get(event.connection.server.port, "http1"))
            by_connection.setdefault(number, []).append(bytes([event.direction]) + bytes(event.payload))
    found: dict[str, list[list[bytes]]] = {}
    for number, pieces in by_connection.items():
        for at in range(0, min(len(pieces), 240), 24):
            found.setdefault(protocols[number], []).append(pieces[at : at + 24])
    return {name: some[:300] for name, some in found.items()}


def _postgres() -> list[list[bytes]]:
    """A conversation in both protocols, of each piece the direction in its first byte."""
    talk: list[tuple[bytes, bytes]] = [(postgres.startup(), postgres.LOGGED_IN)]
    parsed = postgres.message("1") + postgres.message("2")
    for number in range(8):
        told = postgres.rows("a", "b") if number % 2 else postgres.error("42601", "no", "such")
        talk.append((postgres.query(f"SELECT {number}"), told + postgres.READY))
        asked = postgres.extended(f"INSERT INTO t{number} VALUES ($1)", b"x" * number, binary=number % 2 > 0)
        talk.append((asked, parsed + postgres.done() + postgres.READY))
        named = postgres.bind(b"y", name=f"s{number % 3}", portal="p") + postgres.execute("p", 1)
        talk.append((postgres.parse("SELECT $1", f"s{number % 3}") + named + postgres.SYNC, parsed + told))
    pieces = [[b"\0" + said, b"\1" + heard] for said, heard in talk]
    return [[*chain.from_iterable(pieces[at:])] for at in range(12)]


@cache
def _stages() -> Stages:
    stages = Stages(
        [Capture(0, "x")], GivenTopology(), Settings(), load_grammar("cloudvm_create"), every_statement=True
    )
    stages.read([segments()])
    stages.finish()
    return stages


def _checkpoints() -> list[list[bytes]]:
    calls = checkpoint.whole(_stages().every_call or [])[:60]
    packed, connections = checkpoint.pack(calls)
    trace = checkpoint.KeptTrace(1, "", "", 0, {"1": "ok"}, "")
    state = checkpoint.State(
        checkpoint.SCHEMA, "cloudvm_create", [("x", None)], 1, [1], 1, {}, {}, [trace], 0, connections, packed
    )
    return [[msgspec.json.encode(state)]]


HEADERS: dict[str, Any] = {
    "exchange_name": "nova", "routing_keys": ["conductor"], "channel": 4,
    "properties": {"message_id": "7", "headers": {"x": 1}},
    "node": "rabbit@b", "vhost": "/", "connection": "10.0.0.31:40000 -> 10.0.0.9:5672",
    "routed_queues": ["conductor"],
}  # fmt: skip
EVENT: dict[str, Any] = {
    "name": "10.0.0.31:40000 -> 10.0.0.9:5672", "pid": "<1>", "user_provided_name": "nova-conductor:7:x",
    "connection": "<1>", "number": 4, "queue": "conductor", "channel": "<1>", "consumer_tag": "t",
    "ack_required": True, "peer_host": "{10,0,0,31}", "node": "rabbit@b", "peer_port": 40000,
}  # fmt: skip
KINDS = ("connection.created", "channel.created", "consumer.created", "consumer.deleted", "channel.closed",
         "connection.closed", "queue.deleted")  # fmt: skip


def _broker_frames() -> list[list[bytes]]:
    """Deliveries to a consumer as a broker sends them: those of the scenario that are for a queue."""
    sent = [piece[1:] for pieces in streams()["amqp091"] for piece in pieces if piece[0] == TO_CLIENT]
    return [sent[at : at + 12] for at in range(0, min(len(sent), 240), 12)]


# --- what takes them --------------------------------------------------------------------------------


def _on_disk(content: bytes, suffix: str, take: Callable[[Path], object]) -> None:
    path = _folder() / f"input{suffix}"
    path.write_bytes(content)
    with suppress(TracerError):
        take(path)


@cache
def _folder() -> Path:
    at = Path("/dev/shm")
    kept = tempfile.TemporaryDirectory(dir=at if at.is_dir() else None)
    _kept.append(kept)
    return Path(kept.name)


_kept: list[Any] = []


def _file(parts: list[bytes]) -> None:
    capture = Capture(0, "x")
    layers = Layers()

    def take(path: Path) -> None:
        for batch in open_capture(str(path), capture):
            layers.read(batch, capture.anomalies)

    _on_disk(parts[0], "", take)


def _layers(parts: list[bytes]) -> None:
    layers, anomalies = Layers(), Counter[str]()
    for number, part in enumerate(parts):
        if part:
            kind = (1, 113, 276, 101, 0, 108, 12, part[0])[part[0] & 7]
            layers.read([(number * 1000, part[1:], len(part) + part[0], kind, (0, number), 0)], anomalies)
    list(layers.flush())


_SEGMENT = struct.Struct(">IIIBBH")


def _segment_parts() -> list[list[bytes]]:
    found: list[bytes] = []
    flows: dict[bytes, int] = {}
    for one in segments()[:4000]:
        number = flows.setdefault(one.flow, len(flows))
        found.append(_SEGMENT.pack(number, one.seq, one.ack, one.flags, 0, 1) + bytes(one.payload[:60]))
    _flows[:] = list(flows)
    return [found[at : at + 40] for at in range(0, len(found), 40)]


_flows: list[bytes] = []


def _reassembly(parts: list[bytes]) -> None:
    reassembler = Reassembler([Capture(0, "x")], PORTS)
    decoders = Decoders(PORTS, Options(), reassembler.turn)
    now_ns, some = 0, []
    for number, part in enumerate(parts, 1):
        if len(part) < _SEGMENT.size:
            continue
        flow, seq, ack, flags, missing, later = _SEGMENT.unpack_from(part)
        now_ns += later * 1_000_000
        payload = part[_SEGMENT.size :]
        frames = ((0, number),)
        named = _flows[flow % len(_flows)]
        some.append(Segment(now_ns, named, seq, ack, flags, payload, missing, number & 0xFFFF, frames, 0, 0))
    for event in chain(reassembler.read([some]), reassembler.expire(now_ns + 5_000_000_000),
                       reassembler.flush(now_ns)):  # fmt: skip
        list(decoders.receive(event))


def _protocol(port: int) -> Run:
    def run(parts: list[bytes]) -> None:
        connection = Connection(1, Endpoint("10.0.0.1", 4), Endpoint("10.0.0.2", port), 0, captures=[0])
        if parts and len(parts[0]) > 1 and parts[0][1] & 1:
            connection.joined = True
        capture = Capture(0, "x")
        decoders = Decoders(PORTS, Options())
        calls = Calls(PORTS)
        for number, part in enumerate(parts):
            if not part:
                continue
            direction = TO_CLIENT if part[0] & 1 else TO_SERVER
            event: Data | Gap = Data(connection, direction, number, part[1:], FRAMES)
            if part[0] & 0xF0 == 0xF0:
                event = Gap(connection, direction, number, len(part) * (part[0] & 2), number - 1, FRAMES)
            if len(part) > 1 or isinstance(event, Gap):
                for message in decoders.receive(event):
                    _shown(calls.receive(message))
        for how in ("fin", "fin", "end") if len(parts) & 1 else ("reset",):
            closed = Closed(connection, 99, how, TO_CLIENT if how == "end" else TO_SERVER, FRAMES)
            for message in decoders.receive(closed):
                _shown(calls.receive(message))
            _shown(calls.receive(closed))
        _shown(calls.flush())
        assert capture is not None

    return run


def _shown(calls: Any) -> None:
    for call in calls:
        assert isinstance(call, Call)
        repr(call)


def _whole(parts: list[bytes]) -> None:
    """All stages on packets, and the verdicts on what they give."""
    capture = Capture(0, "x")
    stages = Stages([capture], GivenTopology(), Settings(), load_grammar("cloudvm_create"))
    layers = Layers()
    found = []
    for number, part in enumerate(parts, 1):
        if len(part) > 8:
            time_ns = int.from_bytes(part[:8], "big") % (1 << 62)
            found += layers.read([(time_ns, part[8:], len(part) - 8, 1, (0, number), 0)], capture.anomalies)
    capture.first_ns, capture.last_ns = 1, max((segment[0] for segment in found), default=1)
    stages.read([found])
    stages.finish()
    checker = stages.checker()
    for _, trace in stages.traces().named:
        stages.checked(checker, trace)


def _whole_seeds() -> list[list[bytes]]:
    return [
        [time_ns.to_bytes(8, "big") + data for time_ns, data in some if b"\x0c\xea" not in data[34:38]]
        for some in packets().values()
    ]


def _firehose(parts: list[bytes]) -> None:
    """Frames of a broker, and then what a firehose would tell in them."""
    capture = Capture(0, "x", protocol="RPC")
    arrived: list[Any] = []
    deliveries = Deliveries(lambda *one: arrived.append(one), capture.anomalies)
    deliveries.channel = 1
    for part in parts[2:]:
        deliveries.receive(part)
    firehose = Firehose(capture, Endpoint("10.0.0.9", 5672))
    told: list[Any] = [(1, TRACE, one[1], one[2], one[4]) for one in arrived]
    for exchange, text in ((TRACE, parts[0]), (EVENTS, parts[1])):
        with suppress(ValueError, RecursionError):
            given = json.loads(text)
            if isinstance(given, dict):
                keys = KINDS if exchange == EVENTS else ("publish.nova", "deliver.conductor")
                told += [(2, exchange, key, given, b"{}") for key in keys]
    calls = Calls(PORTS)
    for heard in [*firehose.read(told), *firehose.reset(3)]:
        _shown(calls.receive(heard.message))
    _shown(calls.flush())


def _oslo(parts: list[bytes]) -> None:
    """Bodies alone: of RPC messages, requests and answers, and the text of statements."""
    from tracer.calls.bodies import fault_text, read_answer, read_request
    from tracer.calls.oslo import read as read_oslo
    from tracer.model import RestFacts

    for part in parts:
        facts = RestFacts("POST", "/v2.1/servers", creates=True)
        read_request(facts, part)
        for path in ("/v2.1/servers", "/v3/auth/tokens", "/placement/allocation_candidates", "/service/vms"):
            answer = RestFacts("GET", path, status=200)
            read_answer(answer, part, {})
        fault_text(part)
        read_oslo(part)


def _bodies() -> list[list[bytes]]:
    found = []
    for protocol in ("amqp091", "http1"):
        for pieces in streams()[protocol]:
            for piece in pieces:
                at = piece.find(b"{")
                if at >= 0:
                    found.append([piece[at:].rstrip(b"\xce")])
    return found[:600]


def _text_files(folder: Path, *names: str) -> list[list[bytes]]:
    return [[(folder / name).read_bytes()] for name in names]


TOPOLOGY = b"""allow = ["unobserved:4c"]
[planes.External_api]
subnets = ["10.10.0.0/16", "fd00::/8"]
vlan = 101
interface = "eth1"
[planes.Narrow]
vlan = [102, 103]
[roles]
nova-api = ["172.28.0.11:8774", "[fd00::1]:8774"]
vrm = "172.28.0.61"
[ports]
7070 = "http"
3307 = "mysql"
5433 = "postgres"
"""

TIMES = {"n": 3, "min_ms": 1, "p50_ms": 2.5, "mean_ms": 2, "sd_ms": 1, "p95_ms": 3, "max_ms": 4}
BASELINE = json.dumps(
    {
        "schema": baselines.SCHEMA,
        "grammar": "g",
        "traces": 3,
        "steps": {"1": {"took": TIMES, "waited": TIMES}},
    }
).encode()


def _files() -> list[list[bytes]]:
    some = packets()[SCENARIOS[1]][:60]
    plain = [_pcap(some), _pcapng(some)]
    packed = [gzip.compress(one) for one in plain] + [zstandard.compress(one) for one in plain]
    return [[one] for one in plain * 3 + packed]


ENTRIES: dict[str, Entry] = {
    "files": Entry(_files, _file),
    "layers": Entry(lambda: [[b"\0" + data for _, data in packets()[SCENARIOS[0]][at : at + 4]]
                             for at in range(0, 2000, 4)], _layers, 2),
    "reassembly": Entry(_segment_parts, _reassembly),
    "http1": Entry(lambda: streams()["http1"], _protocol(8774)),
    "amqp091": Entry(lambda: streams()["amqp091"], _protocol(5672)),
    "mysql": Entry(lambda: streams()["mysql"], _protocol(3306)),
    "postgres": Entry(_postgres, _protocol(5432)),
    "unknown": Entry(lambda: [*streams()["http1"], *streams()["amqp091"]], _protocol(7777)),
    "bodies": Entry(_bodies, _oslo, 2),
    "stages": Entry(_whole_seeds, _whole, 0.005),
    "topology": Entry(lambda: [[TOPOLOGY]], lambda parts: _on_disk(parts[0], ".toml", load_topology), 0.5),
    "grammar": Entry(lambda: _text_files(GRAMMARS, "server_stop.lark"),
                     lambda parts: _on_disk(parts[0], ".lark", lambda p: read_grammar(p, 100_000)), 0.01),
    "checkpoint": Entry(_checkpoints, lambda parts: _on_disk(parts[0], ".json", checkpoint.load), 0.5),
    "baseline": Entry(lambda: [[BASELINE]],
                      lambda parts: _on_disk(parts[0], ".json", lambda p: baselines.load(p, "g")), 0.5),
    "firehose": Entry(lambda: [[json.dumps(HEADERS).encode(), json.dumps(EVENT).encode(), *some]
                               for some in _broker_frames()], _firehose),
}  # fmt: skip


# --- mutation ---------------------------------------------------------------------------------------


def mutated(parts: list[bytes], chance: random.Random) -> list[bytes]:
    """Return *parts* with some of them changed, cut, joined, repeated, moved or left out."""
    parts = list(parts)
    for _ in range(chance.choice((1, 1, 2, 3, 6))):
        if not parts:
            break
        at = chance.randrange(len(parts))
        what = chance.random()
        if what < 0.7 or len(parts) == 1:
            parts[at] = _changed(bytearray(parts[at]), chance)
        elif what < 0.78:
            del parts[at]
        elif what < 0.86:
            parts.insert(at, chance.choice(parts))
        elif what < 0.94:
            parts.insert(at, parts.pop(chance.randrange(len(parts))))
        else:
            one = parts[at]
            cut = chance.randrange(len(one) + 1)
            parts[at : at + 1] = [one[:cut], one[:1] + one[cut:]]
    return parts


def _changed(one: bytearray, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        size = len(one)
        at = chance.randrange(size + 1)
        what = chance.randrange(9)
        if what == 0 and size:
            one[at % size] ^= 1 << chance.randrange(8)
        elif what == 1 and size:
            one[at % size] = chance.randrange(256)
        elif what == 2:
            del one[at : at + chance.choice((1, 2, 4, 16, 200))]
        elif what == 3:
            one[at:at] = chance.choice(TOKENS)
        elif what == 4:
            wide = chance.choice((1, 2, 4, 8))
            value = chance.choice(INTERESTING) & ((1 << 8 * wide) - 1)
            one[at : at + wide] = value.to_bytes(wide, chance.choice(("big", "little")))
        elif what == 5 and size:
            other = chance.randrange(size)
            one[at:at] = one[other : other + chance.choice((1, 4, 32, 300))]
        elif what == 6:
            del one[at:]
        elif what == 7 and size:
            token = chance.choice(TOKENS)
            one[at : at + len(token)] = token
        elif what == 8:
            digits = [i for i in range(min(size, 4000)) if 48 <= one[i] <= 57]
            if digits:
                at = chance.choice(digits)
                one[at : at + 1] = chance.choice(NUMBERS)
        if not one:
            break
    return bytes(one)


# --- running ----------------------------------------------------------------------------------------


class Finding(NamedTuple):
    entry: str
    parts: list[bytes]
    error: str


def failure(run: Run, parts: list[bytes]) -> str:
    """Return what *run* raises on *parts*, with its place; '' when it raises nothing."""
    try:
        run(parts)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {str(error)[:200]}"
    return ""


def minimised(run: Run, parts: list[bytes], error: str) -> list[bytes]:
    """Return the least of *parts* that still fails at the same place."""
    place = error.split(": ")[0]
    until_s = time.monotonic() + 10

    def fails(some: list[bytes]) -> bool:
        return time.monotonic() < until_s and failure(run, some).split(": ")[0] == place

    for _ in range(3):
        before = parts
        for at in range(len(parts) - 1, -1, -1):
            fewer = parts[:at] + parts[at + 1 :]
            if fewer and fails(fewer):
                parts = fewer
        for at in range(len(parts)):
            step = max(1, len(parts[at]) // 2)
            while step:
                begin = 0
                while begin < len(parts[at]):
                    shorter = parts[at][:begin] + parts[at][begin + step :]
                    if fails([*parts[:at], shorter, *parts[at + 1 :]]):
                        parts = [*parts[:at], shorter, *parts[at + 1 :]]
                    else:
                        begin += step
                step //= 2
        if parts == before:
            break
    return parts


def fuzz(name: str, executions: int, seed: int) -> Iterator[Finding]:
    """Yield what is found in so many executions of entry *name*: each place once, minimised."""
    entry = ENTRIES[name]
    chance = random.Random(f"{name} {seed}")
    seeds = [parts for parts in entry.seeds() if parts]
    seen: set[str] = set()
    for _ in range(executions):
        parts = mutated(chance.choice(seeds), chance)
        if name == "firehose" and len(parts) < 2:
            continue
        error = failure(entry.run, parts) if parts else ""
        if error and error.split(": ")[0] not in seen:
            seen.add(error.split(": ")[0])
            yield Finding(name, minimised(entry.run, parts, error), error)


def _guided(name: str) -> None:
    """Let atheris make the inputs, guided by what they reach."""
    import atheris

    entry = ENTRIES[name]
    seeds = [parts for parts in entry.seeds() if parts]

    def one(data: bytes) -> None:
        chance = random.Random(data[:4])
        parts = list(chance.choice(seeds))
        at = chance.randrange(len(parts))
        parts[at] = data[4:]
        entry.run(parts)

    atheris.instrument_all()
    atheris.Setup(sys.argv[:1], one)
    atheris.Fuzz()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--executions", type=int, default=20_000, help="of each entry, times its weight")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--entry", action="append", choices=list(ENTRIES), help="only this entry")
    parser.add_argument("--coverage", action="store_true", help="let atheris guide the mutations")
    options = parser.parse_args()
    InternalErrors.is_strict = True
    names = options.entry or list(ENTRIES)
    if options.coverage:
        _guided(names[0])
    found = total = 0
    for name in names:
        count = max(1, int(options.executions * ENTRIES[name].weight))
        begun = time.perf_counter()
        findings = list(fuzz(name, count, options.seed))
        total += count
        found += len(findings)
        took_s = time.perf_counter() - begun
        print(f"{name:11} {count:8,} executions {took_s:7.1f} s  {len(findings)} findings", flush=True)
        for finding in findings:
            print(f"  {finding.error}")
            for part in finding.parts:
                print(f"    {part[:400].hex()}{' …' if len(part) > 400 else ''}")
    print(f"{total:,} executions, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
