"""Pairing of messages to calls: request with response, publish with delivery, statement with result.

A call is yielded when it begins, and the same object again when its answer or its fate is known. `Calls`
passes each message to the module of its protocol; nothing here reads bytes.

broker          what happens at the broker apart from messages
handshakes      clients that hang while they connect to the broker
rest, rpc, sql  one module for each kind of call
bodies, paths   the facts of HTTP bodies and request targets
oslo*           the facts of oslo.messaging bodies
proxies         the two legs of a call through a reverse proxy
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count

from tracer.calls.bodies import wants_body
from tracer.calls.broker import BrokerLog
from tracer.calls.proxies import ProxyLegs
from tracer.calls.rest import RestCalls
from tracer.calls.rpc import RpcCalls
from tracer.calls.sql import SqlCalls, wants_statement
from tracer.model import (
    CALLS_OVER,
    CLIENT,
    SERVER,
    AmqpContent,
    AmqpMethod,
    Call,
    Closed,
    ConnectFacts,
    End,
    Frame,
    Frames,
    HttpRequest,
    HttpResponse,
    Message,
    RpcFacts,
    SqlResult,
    SqlStatement,
    Undecoded,
)

__all__ = ["Calls", "Numbering", "wants_body", "wants_statement"]

MOST_UNNUMBERED = 50_000
"""Calls that wait for their number."""


class Calls:
    """Turns the messages of all connections into calls, and numbers them.

    A failed connection becomes a call if its server port is in *ports* (server port -> protocol).
    """

    def __init__(self, ports: Mapping[int, str]) -> None:
        self._ports = dict(ports)
        self._serials = count(1)
        self._rest = RestCalls(self._serials.__next__)
        self.broker = BrokerLog()
        self._rpc = RpcCalls(self._serials.__next__, self.broker)
        self._sql = SqlCalls(self._serials.__next__)
        self._proxies = ProxyLegs()
        self._newest = 0
        """Highest serial that was handed out: a call with a higher one has just begun."""
        self.numbering = Numbering()

    def receive(self, message: Message | Closed) -> Iterable[Call]:
        """Return the calls that *message* begins or completes."""
        calls = self._receive(message)
        for call in calls:
            if call.serial > self._newest:
                self._newest = call.serial
                self.numbering.begun(call)
            if call.protocol == "REST":
                self._proxies.receive(call)
        return calls

    def _receive(self, message: Message | Closed) -> Iterable[Call]:
        # Compared by identity, not with isinstance: this runs for each message.
        kind = type(message)
        if kind is HttpRequest:
            # A later refused connection to this port is then a failed REST call.
            self._ports.setdefault(message.connection.server.port, message.connection.protocol or "")
            return self._rest.request(message)  # type: ignore[arg-type]
        if kind is HttpResponse:
            return (self._rest.response(message),)  # type: ignore[arg-type]
        if kind is AmqpContent:
            return self._rpc.content(message)  # type: ignore[arg-type]
        if kind is AmqpMethod:
            return self._rpc.method(message)  # type: ignore[arg-type]
        if kind is SqlStatement:
            return (self._sql.statement(message),)  # type: ignore[arg-type]
        if kind is SqlResult:
            call = self._sql.result(message)  # type: ignore[arg-type]
            return (call,) if call is not None else ()
        if kind is Undecoded:
            self._rpc.undecoded(message)  # type: ignore[arg-type]
        elif kind is Closed:
            return self._closed(message)  # type: ignore[arg-type]
        return ()

    def forget(self, before_ns: int, kept: Collection[int]) -> None:
        """Forget waiting messages older than *before_ns*, except those with the serials *kept*."""
        self._rpc.forget(before_ns, kept)
        self._proxies.forget(before_ns)

    def restore(self, calls: Sequence[Call]) -> None:
        """Continue after *calls* of an earlier run, whose serials count from 1 without holes."""
        for call in calls:
            # One serial for each call, so that the next new call follows the last restored one.
            next(self._serials)
            if call.protocol == "RPC" and isinstance(call.facts, RpcFacts):
                self._rpc.restore(call)
            elif call.protocol == "REST" and not call.closed:
                self._rest.restore(call)
        self._newest = len(calls)
        self.numbering.restore(calls)

    def unseen(self, capture: int) -> Iterable[Call]:
        """Return the calls whose fate stays unknown, because the broker of *capture* reports nothing now."""
        return self._rpc.unseen(capture)

    def flush(self) -> Iterable[Call]:
        """Return the calls whose result changes at the end of the capture."""
        self.numbering.flush()
        return self._rpc.flush()

    def _closed(self, closed: Closed) -> list[Call]:
        if closed.how in ("refused", "unanswered"):
            protocol = self._ports.get(closed.connection.server.port)
            return [self._failed_connection(closed, protocol)] if protocol else []
        kind = CALLS_OVER.get(closed.connection.protocol or "")
        if kind == "REST":
            return self._rest.closed(closed)
        if kind == "RPC":
            return self._rpc.closed(closed)
        return self._sql.closed(closed) if kind == "SQL" else []

    def _failed_connection(self, closed: Closed, protocol: str) -> Call:
        connection = closed.connection
        refused = closed.how == "refused"
        return Call(
            next(self._serials),
            CALLS_OVER.get(protocol, "REST"),
            f"CONNECT :{connection.server.port}",
            "refused" if refused else "none",
            connection.first_ns,
            closed.time_ns if refused else None,
            list(closed.frames),
            End(connection, CLIENT),
            End(connection, SERVER),
            ConnectFacts(closed.attempts),
            connection,
            error="Connection refused" if refused else "Connection attempt unanswered",
            closed=True,
        )


class Numbering:
    """Numbers calls from 1 in order of their start; skipped statements take numbers, too.

    A call gets its number when the capture is *window_ns* past its start, so that a call recognised late
    still gets its place. Because skipped statements count, `check` and `calls` give the same numbers.
    """

    def __init__(self, window_ns: int = 2_000_000_000) -> None:
        self._window_ns = window_ns
        self._calls: list[Call] = []
        self._skipped: list[tuple[int, Frame]] = []
        self.skipped_in: Counter[int] = Counter()
        """Capture number -> statements that were skipped in it."""
        self._next = 1

    def begun(self, call: Call) -> None:
        """Add a call that has just begun; it gets its number later."""
        self._calls.append(call)
        if len(self._calls) > MOST_UNNUMBERED:
            # A flood: one that is recognised late may get a later place.
            self._calls.sort(key=_place)
            self._number(self._calls[MOST_UNNUMBERED // 2].started_ns + 1)

    def restore(self, calls: Iterable[Call]) -> None:
        """Continue after *calls* of an earlier run; the latest of them may have no number yet (0)."""
        for call in calls:
            self._next = max(self._next, call.index + 1)
            if not call.index:
                self._calls.append(call)

    def skipped(self, time_ns: int, frames: Frames) -> None:
        """Add a statement that becomes no call; it takes a number all the same."""
        self._skipped.append((time_ns, frames[0]))

    def advance(self, time_ns: int) -> None:
        """Number the calls and statements that began more than one window before *time_ns*."""
        # Sorting is paid in batches: once a window, or after 4096 skipped statements, which bounds the list.
        if (self._calls and self._calls[0].started_ns < time_ns - 2 * self._window_ns) or len(
            self._skipped
        ) > 4096:
            self._number(time_ns - self._window_ns)

    def flush(self) -> None:
        """Number all calls that are left."""
        self._number(None)

    def _number(self, until_ns: int | None) -> None:
        """Number calls and skipped statements that began before *until_ns*, merged in order of start."""
        self._calls.sort(key=_place)
        skipped = self._skipped
        skipped.sort()
        done = passed = 0
        for call in self._calls:
            if until_ns is not None and call.started_ns >= until_ns:
                break
            before = bisect_left(skipped, _place(call), passed)
            self._next += before - passed
            passed = before
            call.index = self._next
            self._next += 1
            done += 1
        del self._calls[:done]
        end = len(skipped) if until_ns is None else bisect_left(skipped, (until_ns, (0, 0)), passed)
        self._next += end - passed
        self.skipped_in.update(capture for _, (capture, _) in skipped[:end])
        del skipped[:end]


def _place(call: Call) -> tuple[int, Frame]:
    """Return the sort key of a call: its start, then its first frame."""
    return call.started_ns, min(call.frames) if call.frames else (0, 0)
