"""The open traces of a run in a file, so that the next run can go on with them.

The file holds their calls, the announced steps, their numbers, and the counts of finished traces. It holds no
packet data and no digest of a secret: tokens are replaced by names that are equal for equal tokens and mean
nothing outside the file. The file is validated like any other input, and its calls are passed to the stages
as if they happened again.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from tracer.capture.live import monotonic_s
from tracer.errors import UsageError, reason
from tracer.model import (
    Call,
    ConnectFacts,
    Connection,
    End,
    Endpoint,
    RestFacts,
    RpcFacts,
    SqlFacts,
)

__all__ = [
    "MOST_CALLS",
    "SCHEMA",
    "Keeper",
    "KeptTrace",
    "State",
    "in_order",
    "load",
    "pack",
    "save",
    "unpack",
    "whole",
]

SCHEMA = "tracer.checkpoint/1"
EVERY_S = 2.0
"""Shortest time between two writes."""
SHARE = 20
"""Shortest time between two writes, as a multiple of the time that the last one took."""
MOST_CALLS = 50_000
MOST_BYTES = 256 << 20
_FACTS: dict[str, Any] = {"REST": RestFacts, "RPC": RpcFacts, "SQL": SqlFacts, "": ConnectFacts}
_SECRETS = ("token", "subject_token")


class KeptConnection(msgspec.Struct, array_like=True):
    """The part of a connection that its calls need: its endpoints, their roles, and its captures."""

    client: tuple[str, int]
    server: tuple[str, int]
    first_ns: int
    captures: list[int]
    protocol: str | None
    vlan: int
    interface: int
    seen: int
    client_role: str
    server_role: str


class KeptCall(msgspec.Struct, array_like=True):
    """A call. Other calls and connections are referred to by their index in `State`."""

    protocol: str
    operation: str
    result: str
    started_ns: int
    ended_ns: int | None
    frames: list[tuple[int, int]]
    connection: int
    caller: tuple[int, int] | None
    callee: tuple[int, int] | None
    consumer: tuple[int, int] | None
    error: str
    index: int
    closed: bool
    front: int | None
    back: int | None
    parent: int | None
    facts_of: str
    facts: dict[str, Any]


class KeptTrace(msgspec.Struct):
    """What was announced of one open trace. Its calls are found again by its ids, or by its first call."""

    number: int
    request_id: str
    server_id: str
    call: int
    """Index of its first call; of the order at the portal while it has no other call."""
    steps: dict[str, str] = msgspec.field(name="told")
    """step -> status, of the steps that were announced"""
    announced: str = msgspec.field()
    """Verdict and outcome as announced last (`OpenTrace.announced`)."""


class State(msgspec.Struct):
    """The content of a checkpoint file."""

    schema: str
    grammar: str
    sources: list[tuple[str, str | None]]
    """Path or interface, and plane, of each source."""
    until_ns: int
    """Time of the last packet that the run processed."""
    first_ns: list[int | None]
    """Time of each source's first packet."""
    opened: int
    """How many traces were opened so far."""
    verdicts: dict[str, int]
    outcomes: dict[str, int]
    traces: list[KeptTrace]
    left_out: int
    """Number of open traces that are not in the file for lack of room."""
    connections: list[KeptConnection]
    calls: list[KeptCall]
    orders: list[str] = []
    """Operations of portal orders that led to a creation; absent in files of earlier versions."""
    led: list[int] = []
    """Indices of the orders that led to a trace which is over; absent in files of earlier versions."""


# --- the file -------------------------------------------------------------------------------------


def save(path: Path, state: State) -> int:
    """Replace *path* by *state* atomically, readable by its owner only; return the size. Raises OSError."""
    content = msgspec.json.encode(state)
    # A new file beside the old one: a kill while writing leaves the old checkpoint intact.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(fd, "wb") as file:
            # The mode of os.open holds only for a file that did not exist.
            os.fchmod(fd, 0o600)
            file.write(content)
            file.flush()
            os.fsync(fd)
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink()
        raise
    return len(content)


def load(path: Path) -> State | None:
    """Return the state in *path*; None when there is no such file. Raises UsageError for an invalid file."""
    way_out = "move it away to start anew, or name another file"
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"--checkpoint {path}: cannot be read: {reason(error)}") from None
    try:
        if len(content) > MOST_BYTES:
            raise ValueError
        # The schema alone first: a file of another version is reported as such and not as damaged.
        schema = msgspec.json.decode(content, type=_Head).schema
        if schema != SCHEMA and schema.startswith("tracer.checkpoint/"):
            raise UsageError(f"--checkpoint {path}: {schema[:40]!a}, of another version of tracer: {way_out}")
        state = msgspec.json.decode(content, type=State)
        if schema != SCHEMA or not all(0 <= place < len(state.calls) for place in state.led):
            raise ValueError
        unpack(state)
    except (msgspec.MsgspecError, ValueError, IndexError, RecursionError):
        raise UsageError(f"--checkpoint {path}: damaged, or not a checkpoint of tracer: {way_out}") from None
    return state


class _Head(msgspec.Struct):
    schema: str


class Keeper:
    """Writes the state that *state* returns to *path* every few seconds, when it has changed.

    `begin` raises UsageError when the file cannot be written; a later failure is reported once, by `trouble`.
    """

    def __init__(self, path: Path, state: Callable[[], State]) -> None:
        self._path, self._state = path, state
        self._next_s = 0.0
        self._kept: tuple[object, ...] = ()
        self._trouble = ""
        self._is_reported = False

    def begin(self) -> None:
        """Write the file for the first time. Raises UsageError when that fails."""
        try:
            save(self._path, self._state())
        except OSError as error:
            raise UsageError(f"--checkpoint {self._path}: cannot be written: {reason(error)}") from None

    def look(self) -> None:
        """Write the file if the time since the last write is long enough."""
        now_s = monotonic_s()
        if now_s < self._next_s:
            return
        self.write()
        # A large state takes long to write: at most 1/SHARE of the time is spent on it.
        self._next_s = now_s + max(EVERY_S, SHARE * (monotonic_s() - now_s))

    def write(self) -> None:
        """Write the file if the state has changed since the last write."""
        state = self._state()
        # Without open traces the time alone is no change: an idle run writes nothing.
        now = (state.opened, len(state.calls), state.until_ns if state.traces else 0, state.verdicts)
        if now == self._kept:
            return
        try:
            save(self._path, state)
            self._kept, self._trouble, self._is_reported = now, "", False
        except OSError as error:
            self._trouble = f"--checkpoint {self._path}: cannot be written: {reason(error)}"

    def trouble(self) -> str:
        """Return a message when the file cannot be written, once for each failure period; else ''."""
        if not self._trouble or self._is_reported:
            return ""
        self._is_reported = True
        return self._trouble


# --- calls ----------------------------------------------------------------------------------------


def whole(calls: Iterable[Call]) -> list[Call]:
    """Return *calls* and all calls that they refer to, in order of start and serial."""
    found: dict[int, Call] = {}
    waiting = list(calls)
    while waiting:
        call = waiting.pop()
        if call.serial not in found:
            found[call.serial] = call
            waiting += [other for other in (call.front, call.back, call.parent) if other is not None]
    return sorted(found.values(), key=lambda call: (call.started_ns, call.serial))


def in_order(calls: Iterable[Call]) -> list[tuple[Call, bool]]:
    """Return each call at its start (True), and each answered REST call at its answer (False), by time."""
    times = [(call.started_ns, call.serial, call, True) for call in calls]
    times += [
        (max(call.started_ns, call.ended_ns or 0), call.serial, call, False)
        for call in calls
        if call.protocol == "REST" and call.closed
    ]
    return [
        (call, begins)
        for _, _, call, begins in sorted(times, key=lambda item: (item[0], item[1], not item[3]))
    ]


def pack(calls: Sequence[Call]) -> tuple[list[KeptCall], list[KeptConnection]]:
    """Return *calls* (a result of `whole`) and their connections in the form of the file."""
    places = {call.serial: place for place, call in enumerate(calls)}
    connections: dict[int, int] = {}
    kept: list[KeptConnection] = []
    names: dict[str, str] = {}

    def at(connection: Connection) -> int:
        place = connections.get(connection.number)
        if place is None:
            place = connections[connection.number] = len(kept)
            kept.append(
                KeptConnection(
                    (connection.client.address, connection.client.port),
                    (connection.server.address, connection.server.port),
                    connection.first_ns,
                    list(connection.captures),
                    connection.protocol,
                    connection.vlan,
                    connection.interface,
                    connection.seen,
                    connection.client_role,
                    connection.server_role,
                )
            )
        return place

    def end(of: End | None) -> tuple[int, int] | None:
        return None if of is None else (at(of.connection), of.side)

    def place(call: Call | None) -> int | None:
        return None if call is None else places.get(call.serial)

    packed = []
    for call in calls:
        consumer = getattr(call.facts, "consumer", None)
        facts = _plain(call.facts)
        for name in _SECRETS:
            # Correlation compares tokens for equality only, so a name for each is enough.
            if facts.get(name):
                facts[name] = names.setdefault(facts[name], f"secret {len(names) + 1}")
        packed.append(
            KeptCall(
                call.protocol,
                call.operation,
                call.result,
                call.started_ns,
                call.ended_ns,
                # Bounded: one long message may span thousands of frames.
                list(call.frames[:64]),
                at(call.connection),
                end(call.caller),
                end(call.callee),
                end(consumer),
                call.error,
                call.index,
                call.closed,
                place(call.front),
                place(call.back),
                place(call.parent),
                "" if isinstance(call.facts, ConnectFacts) else call.protocol,
                facts,
            )
        )
    return packed, kept


def _plain(facts: RestFacts | RpcFacts | SqlFacts | ConnectFacts) -> dict[str, Any]:
    if isinstance(facts, RpcFacts):
        # asdict would copy the consumer's whole connection; the file has its index instead.
        consumer, facts.consumer = facts.consumer, None
        try:
            return asdict(facts)
        finally:
            facts.consumer = consumer
    return asdict(facts)


def unpack(state: State) -> list[Call]:
    """Return the calls of *state*: serials from 1, connection numbers below 0, which no new connection has.

    Raises ValueError, IndexError or msgspec.ValidationError for a state that no run can have written.
    """
    sources = len(state.sources)
    if len(state.first_ns) != sources or not all(0 <= t.call < len(state.calls) for t in state.traces):
        raise ValueError
    connections = [_connection(kept, -1 - number, sources) for number, kept in enumerate(state.connections)]

    def end(kept: tuple[int, int] | None) -> End | None:
        if kept is None:
            return None
        # A negative index would be valid in Python, and refer to another connection.
        if kept[0] < 0 or kept[1] not in (0, 1):
            raise ValueError
        return End(connections[kept[0]], kept[1])

    calls = []
    for serial, kept in enumerate(state.calls, 1):
        if any(not 0 <= capture < sources for capture, _ in kept.frames) or kept.connection < 0:
            raise ValueError
        if kept.facts_of not in (kept.protocol, "") or kept.protocol not in ("REST", "RPC", "SQL"):
            raise ValueError
        if not kept.facts_of and "attempts" not in kept.facts:
            raise ValueError
        facts = msgspec.convert(kept.facts, _FACTS[kept.facts_of])
        if isinstance(facts, RpcFacts):
            facts.consumer = end(kept.consumer)
        calls.append(
            Call(
                serial,
                kept.protocol,
                kept.operation,
                kept.result,
                kept.started_ns,
                kept.ended_ns,
                list(kept.frames),
                end(kept.caller),
                end(kept.callee),
                facts,
                connections[kept.connection],
                kept.error,
                kept.index,
                closed=kept.closed,
            )
        )
    for call, kept in zip(calls, state.calls, strict=True):
        named = (kept.front, kept.back, kept.parent)
        if any(place is not None and place < 0 for place in named):
            raise ValueError
        call.front, call.back, call.parent = (None if place is None else calls[place] for place in named)
    return calls


def _connection(kept: KeptConnection, number: int, sources: int) -> Connection:
    for address, port in (kept.client, kept.server):
        ipaddress.ip_address(address)
        if not 0 <= port <= 0xFFFF:
            raise ValueError
    if not kept.captures or any(not 0 <= capture < sources for capture in kept.captures):
        raise ValueError
    return Connection(
        number,
        Endpoint(*kept.client),
        Endpoint(*kept.server),
        kept.first_ns,
        vlan=kept.vlan,
        interface=kept.interface,
        captures=kept.captures,
        protocol=kept.protocol,
        client_role=kept.client_role,
        server_role=kept.server_role,
        seen=kept.seen,
    )
