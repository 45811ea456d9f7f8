"""Clients that connect to the broker and get no further: the handshake of AMQP 0-9-1 never ends.

    greeting > start < start-ok > [secure <, secure-ok >] tune < tune-ok, open > open-ok <     (section 2.2.4)

A client hangs meanwhile, since nothing is published before open-ok. Health checks of a proxy break a
handshake off, too, but within milliseconds: only one that lasts counts.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from tracer.calls.rpc_facts import reply_text
from tracer.model import (
    BOTH,
    CLIENT,
    CLIENT_SILENT,
    SERVER,
    TO_CLIENT,
    AmqpMethod,
    Call,
    Closed,
    ConnectFacts,
    Connection,
    End,
    Frames,
)
from tracer.model.tables import trim

__all__ = ["Handshakes"]

PATIENCE_NS = 5_000_000_000
"""A healthy handshake takes milliseconds; over WANs and through proxies below a second."""
MOST_OPEN = 10_000
MOST_DONE = 100_000
"""Connections that are known to have talked; of those before them nothing is claimed."""
STEPS = frozenset(
    f"connection.{name}" for name in ("start", "start-ok", "secure", "secure-ok", "tune", "tune-ok", "open")
)
_BROKEN_OFF = "the AMQP handshake went no further than"
_LAST = "connection.open-ok"
_REFUSAL = "connection.close"


class Handshakes:
    """Follows the handshakes of all connections to brokers; makes a failed connection of each that fails."""

    def __init__(self, serial: Callable[[], int]) -> None:
        self._serial = serial
        self._waiting: OrderedDict[int, AmqpMethod] = OrderedDict()
        """Connection number -> latest method of its handshake, the one that waits longest first."""
        self._told: dict[int, Call] = {}
        self._done: OrderedDict[int, None] = OrderedDict()
        """Connections of which nothing more is claimed: they have talked, or their end was told."""
        self._all_done_to = -1
        """Highest number of a connection that was dropped from these."""

    def __bool__(self) -> bool:
        """Whether a handshake is going on."""
        return bool(self._waiting)

    def method(self, message: AmqpMethod) -> list[Call]:
        """Return the call that *message*, a method of a connection, makes: the broker refused the client."""
        number = message.connection.number
        if message.name == _LAST:
            self._waiting.pop(number, None)
            self._finish(number)
            told = self._told.pop(number, None)
            if told is not None:
                # It ended after all, late.
                told.result, told.ended_ns, told.error = "ok", message.time_ns, ""
            return [told] if told is not None else []
        if message.name in STEPS:
            if number in self._done:
                # A packet that was captured late: what comes after it was seen before.
                return []
            self._waiting.pop(number, None)
            self._waiting[number] = message
            trim(self._waiting, MOST_OPEN)
        elif message.name == _REFUSAL and message.direction == TO_CLIENT and number in self._waiting:
            before = self._waiting.pop(number)
            self._finish(number)
            said = reply_text(message)
            return [self._failed(before.connection, message.frames, "error", said, message.time_ns)]
        return []

    def overdue(self, now_ns: int) -> list[Call]:
        """Return the failed connections of the handshakes that last too long at *now_ns*, each once."""
        calls = []
        while self._waiting:
            number, message = next(iter(self._waiting.items()))
            if now_ns - message.time_ns < PATIENCE_NS:
                break
            del self._waiting[number]
            if message.connection.gaps or message.connection.seen != BOTH:
                # The rest of it may be what the capture lacks.
                self._finish(number)
            else:
                calls.append(self._broken_off(message.connection, message, None))
        return calls

    def closed(self, closed: Closed) -> list[Call]:
        """Return the failed connection, if *closed* ends one whose handshake lasted and did not end.

        Each of the two directions of a connection may end; the first end counts.
        """
        connection = closed.connection
        number = connection.number
        message = self._waiting.pop(number, None)
        told = self._told.pop(number, None)
        if told is not None:
            self._finish(number)
            told.ended_ns = closed.time_ns if closed.how != "end" else None
            if connection.gaps:
                told.result, told.error = "?", ""
            return [told]
        was_done = number in self._done or number <= self._all_done_to
        self._finish(number)
        since_ns = message.time_ns if message is not None else connection.first_ns
        is_known = connection.seen == BOTH and not connection.gaps and not connection.is_reported
        if was_done or not is_known or closed.time_ns - since_ns < PATIENCE_NS:
            return []
        ended_ns = closed.time_ns if closed.how != "end" else None
        if message is not None:
            return [self._broken_off(connection, message, ended_ns)]
        # Not one method: the broker took the connection and never answered the greeting.
        words = f"{_BROKEN_OFF} the greeting"
        return [] if connection.joined else [self._failed(connection, closed.frames, "none", words, ended_ns)]

    def ignore(self, connection: Connection) -> None:
        """Follow *connection* no more: it cannot be decoded."""
        self._waiting.pop(connection.number, None)
        self._finish(connection.number)

    def _finish(self, number: int) -> None:
        """Record that nothing more is claimed of a connection."""
        self._done[number] = None
        if len(self._done) > MOST_DONE:
            oldest, _ = self._done.popitem(last=False)
            self._all_done_to = max(self._all_done_to, oldest)

    def _broken_off(self, connection: Connection, message: AmqpMethod, ended_ns: int | None) -> Call:
        words = f"{_BROKEN_OFF} {message.name}"
        if message.direction == TO_CLIENT:
            words = f"{CLIENT_SILENT} {message.name}"
        call = self._failed(connection, message.frames, "none", words, ended_ns)
        if ended_ns is None:
            self._told[connection.number] = call
        return call

    def _failed(
        self, connection: Connection, frames: Frames, result: str, words: str, ended_ns: int | None
    ) -> Call:
        return Call(
            self._serial(),
            "RPC",
            f"CONNECT :{connection.server.port}",
            result,
            connection.first_ns,
            ended_ns,
            list(frames),
            End(connection, CLIENT),
            End(connection, SERVER),
            ConnectFacts(),
            connection,
            error=words,
            closed=True,
        )
