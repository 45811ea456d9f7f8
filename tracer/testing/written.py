"""Checks traces that are written as canonical lines: for trying out a grammar.

    trace = written(
        "Internal_base REST nova-api > keystone GET /v3/auth/tokens 200",
        "Internal_base RPC nova-conductor > nova-scheduler call select_destinations ok",
        grammar="mine.lark",
    )
    assert trace.conforms()

Coverage is complete: a step without a line is missing, never unobserved. Decoding, correlation and roles are
not exercised; packets do that (`tracer.testing.Creation`).
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Sequence
from functools import cached_property

from tracer.conformance.checker import Checker
from tracer.errors import UsageError
from tracer.grammar import load
from tracer.model import (
    CLIENT,
    SERVER,
    Call,
    CallRecord,
    Capture,
    ConnectFacts,
    Connection,
    End,
    Endpoint,
    Report,
    RestFacts,
    RpcFacts,
    SqlFacts,
    Trace,
)
from tracer.settings import Settings
from tracer.testing.cloud import PORTS, SPREAD
from tracer.testing.packets import T0_NS
from tracer.testing.traffic import INCONCLUSIVE, CheckedTrace, Traffic

__all__ = ["call", "written"]

SERVER_ID = "6ef71c2d-0f7c-4b8e-9a51-3e2f8a1c9b40"
REQUEST_ID = "req-2f3ede67-5c1b-4f3c-9a6e-0b7f4b2f9d01"
WHERE = "written"
"""Path of the capture in the evidence of the calls; their frame is the number of their line."""
SPACING_S = 0.01
ENDS = ("active", "error", "stuck", "unfinished")
_LINE = re.compile(r"(\S+) (REST|RPC|SQL) (\S+) > (\S+) (\S.*) (\S+)")

Line = str | tuple[float, str]
"""A canonical line, or (second at which it begins, canonical line)."""


def written(
    *lines: Line,
    grammar: str | os.PathLike[str] = "cloudvm_create",
    ends: str = "active",
    allow: Sequence[str] = (),
    stall_s: float = 60.0,
    name: str = "written",
) -> CheckedTrace:
    """Return a trace of the calls in *lines*, 10 ms apart unless they have times.

    *ends* is the end state of the VM, which no line shows: active, error, stuck (long silence after the last
    line) or unfinished. It is not needed for a refused request, nor for a workflow that creates no VM. Raises
    UsageError for an invalid line, GrammarError for the grammar.
    """
    if ends not in ENDS:
        raise UsageError(f"ends={ends!r}: known are {', '.join(ENDS)}")
    timed = [line if isinstance(line, tuple) else (n * SPACING_S, line) for n, line in enumerate(lines)]
    settings = Settings(grammar=os.fspath(grammar), stall_s=stall_s, allow=tuple(allow))
    (trace,) = _Written(timed, settings, ends, name).traces
    return trace


def call(line: str, at_s: float = 0.0, took_s: float = 0.005, serial: int = 1) -> tuple[Call, CallRecord]:
    """Return the call of a canonical line: as the stages produce it, and as reports show it."""
    match = _LINE.fullmatch(line)
    if match is None:
        form = "<plane> <REST|RPC|SQL> <caller> > <callee> <operation> <result>"
        raise UsageError(f"no canonical line: {line[:120]!r}; write {form}")
    plane, protocol, caller, callee, operation, result = match.groups()
    medium = {"RPC": "rabbitmq", "SQL": "db"}.get(protocol, callee)
    connection = Connection(
        serial,
        Endpoint(_address(caller), 40_000 + serial),
        Endpoint(_address(medium), PORTS.get(medium, 80)),
        T0_NS,
    )
    ends = End(connection, CLIENT), End(connection, SERVER)
    began = T0_NS + round(at_s * 1e9)
    ended = None if result in ("?", "none", "undelivered") else began + round(took_s * 1e9)
    made = Call(
        serial,
        protocol,
        operation,
        result,
        began,
        ended,
        [(0, serial)],
        *ends,
        _facts(protocol, operation, result, ends[1]),
        connection,
        index=serial,
        closed=True,
    )
    shown = CallRecord(
        serial,
        plane,
        protocol,
        caller,
        callee,
        operation,
        result,
        began,
        None if ended is None else ended - began,
        ((WHERE, serial),),
        caller_address=_address(caller),
        callee_address=_address(callee),
        request_id=REQUEST_ID,
    )
    return made, shown


def _address(role: str) -> str:
    """Return the address of *role* in `SPREAD`, or another address that is always the same for the role."""
    known = SPREAD.address.get("compute1" if role == "nova-compute" else role)
    crc = zlib.crc32(role.encode())
    return known or f"172.29.{crc >> 8 & 255}.{crc & 255}"


def _facts(
    protocol: str, operation: str, result: str, server: End
) -> RestFacts | RpcFacts | SqlFacts | ConnectFacts:
    verb, _, rest = operation.partition(" ")
    if verb == "CONNECT":
        return ConnectFacts()
    if protocol == "REST":
        status = int(result) if result.isdigit() else 0
        path = rest.replace("{id}", SERVER_ID)
        creates = verb == "POST" and path.endswith("/servers")
        return RestFacts(
            verb,
            path,
            status=status,
            request_id="" if creates else REQUEST_ID,
            # A service adds a request id to its answer; a proxy that answers itself does not.
            answered_id=REQUEST_ID if status else "",
            creates=creates,
        )
    if protocol == "RPC":
        return RpcFacts(
            rest,
            verb,
            routing_key="compute.compute1" if rest == "build_and_run_instance" else "",
            request_id=REQUEST_ID,
            ids=(SERVER_ID,),
            failure="failed" if result == "failure" else "",
            published=True,
            delivered=result not in ("undelivered", "unroutable", "?"),
            consumer=server if result in ("ok", "unacked", "failure") else None,
        )
    return SqlFacts(verb, rest, ids=(SERVER_ID,))


class _Written(Traffic):
    """Traffic of written lines, without captures."""

    def __init__(self, lines: Sequence[tuple[float, str]], settings: Settings, ends: str, name: str) -> None:
        super().__init__((WHERE,), settings)
        self._lines, self._ends, self._name = lines, ends, name

    def __repr__(self) -> str:
        return f"<{len(self._lines)} written lines>"

    def checked_with(self, settings: Settings) -> Traffic:
        return _Written(self._lines, settings, self._ends, self._name)

    @cached_property
    def report(self) -> Report:
        grammar = load(self.settings.grammar)
        made = [call(line, at, serial=n) for n, (at, line) in enumerate(self._lines, 1)]
        if not made:
            return Report(grammar.name, [Capture(0, WHERE)], [])
        records = {one.serial: shown for one, shown in made}
        made.sort(key=lambda pair: pair[0].started_ns)
        trace = Trace(1, REQUEST_ID, SERVER_ID, name=self._name, calls=[one for one, _ in made])
        begun = [one for one, shown in made if grammar.starts(shown.matched)]
        inner = [one for one in begun if records[one.serial].callee not in ("sc", "lb")]
        trace.created = inner[-1] if inner else None
        trace.creates = bool(grammar.begun_at("REST", "POST /v2.1/servers"))
        last = max((one.ended_ns or one.started_ns for one, _ in made), default=T0_NS)
        refused = any(isinstance(one.facts, RestFacts) and one.facts.status >= 400 for one in begun)
        if self._ends == "active" and not refused:
            trace.active_ns, trace.active_call = last, made[-1][0]
        elif self._ends == "error":
            trace.failed_ns, trace.failed_call = last, None
        stall_ns = round(self.settings.stall_s * 1e9)
        coverage = _AllSeen(last + (0 if self._ends == "unfinished" else 2 * stall_ns))
        checker = Checker(
            grammar,
            lambda one, _: records[one.serial],
            coverage,
            lambda role: {_address(role)},
            lambda role: set(),
            lambda address: "compute1" if address == _address("nova-compute") else None,
            stall_ns,
            tuple(kind for kind in self.settings.allow if kind != INCONCLUSIVE),
        )
        return Report(grammar.name, [Capture(0, WHERE)], [checker.check(trace)])


class _AllSeen:
    """Complete coverage, from long before the trace until *end_ns*."""

    def __init__(self, end_ns: int) -> None:
        self._end_ns = end_ns

    def planes(self) -> set[str]:
        return {"External_api", "Internal_base"}

    def span_ns(self, plane: str, protocol: str = "", ends: object = ()) -> tuple[int, int]:
        return T0_NS - 3600 * 10**9, self._end_ns

    def one_way(self, protocol: str, caller: object, callee: object, since_ns: int, until_ns: int) -> bool:
        return False

    def plane_is_given(self, connection: Connection) -> bool:
        return True

    def unseen(
        self,
        plane: str,
        protocol: str,
        caller: object,
        callee: object,
        names: tuple[str, str],
        strict: bool = True,
    ) -> str | None:
        return None

    def damaged(self, protocol: str, caller: object, callee: object, since_ns: int, until_ns: int) -> bool:
        return False

    def is_elsewhere(self, plane: str, protocol: str, servers: object) -> bool:
        return False

    def spoke(self, protocol: str, caller: object, callee: object) -> bool:
        return True

    def without_times(self) -> str | None:
        return None

    def clock_error_ns(self, some: object, others: object) -> int | None:
        return None

    def clock_error_on(self, plane: str, captures: object, servers: object = ()) -> int | None:
        return 0

    def is_in_burst(self, since_ns: int, until_ns: int, captures: object = (), plane: str = "*") -> bool:
        return False

    def lost_packets(self, since_ns: int, until_ns: int, plane: str) -> bool:
        return False

    def fell_silent(self, since_ns: int, until_ns: int, plane: str) -> bool:
        return False

    def interruption(self, since_ns: int, until_ns: int) -> str | None:
        return None

    def cut_short(self) -> bool:
        return False

    def broke_off(self, plane: str, until_ns: int) -> str | None:
        return None
