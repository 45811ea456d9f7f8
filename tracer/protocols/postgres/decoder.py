"""Decoder of the PostgreSQL protocol, version 3: bytes of one connection -> logins, statements and results.

Strategy. The client's side is read message by message, `type:1 length:4 body`; rows and copied data are
skipped by their length. A statement is a Query, or an Execute of what was parsed and bound, with its
parameters. A Parse that is executed before the next Sync or Flush is no statement of its own. Behind a query
that is not wanted the decoder is *deaf*: it skips the server's bytes until the next wanted statement.

This module reads the client's side; `answers` reads the server's.

Source: PostgreSQL documentation, "Frontend/Backend Protocol"; openGauss speaks the same with version 3.51.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from struct import Struct
from typing import ClassVar

from tracer.model import (
    TO_CLIENT,
    TO_SERVER,
    Closed,
    Connection,
    Data,
    Frames,
    Gap,
    Message,
    SqlLogin,
    SqlStatement,
    Undecoded,
)
from tracer.protocols.postgres.answers import RECENT_BYTES, Answers, Cycle, Item, Mark, frames_of
from tracer.protocols.postgres.fields import Value, parameters_of
from tracer.protocols.postgres.framing import (
    FROM_CLIENT,
    REQUESTS,
    Splitter,
    are_answers,
    are_commands,
    is_query,
    is_startup,
    is_tls,
    search_command,
)
from tracer.protocols.postgres.statements import Prepared, Statements

__all__ = ["Postgres"]

_TAIL = 96
"""Bytes that are kept while out of step: the head of a query and its first word."""
_HEAD = Struct(">BI").unpack_from
_QUERY = 0x51
ENOUGH_BYTES = 512
"""Bytes of a query that are enough to decide whether it is wanted: verb and table stand in front."""
_LARGEST_STARTUP = 10_000
"""MAX_STARTUP_PACKET_LENGTH of the server."""
_CANCEL, _GSSENC = 80877102, 80877104


class Postgres:
    """Decoder of one connection to PostgreSQL, openGauss or GaussDB.

    *wanted* is called with the text of each statement, or with the beginning of a long text. The text of an
    execute is the prepared one; b'#name' if the Parse was not seen; that of quit and of a function call is
    b''. If it returns False, no message is made, and *skipped* is called with time and frames. User names,
    passwords and rows are never kept.

    `Connection.deaf` is True while no byte of the server is wanted; reassembly then does not hand them on.

    Exchanges count the statements from 1. A refused connection or login is a SqlResult of exchange 0.
    """

    name: ClassVar[str] = "postgres"

    @staticmethod
    def recognises(payload: bytes, direction: int) -> int | None:
        """Return the direction in which *payload*, the first bytes of a stream, travels, or None."""
        if is_startup(payload):
            return TO_SERVER
        # A query with its SQL, or an answer up to its ReadyForQuery, or an error.
        if is_query(payload) and are_commands(payload):
            return TO_SERVER
        if (payload[-6:-1] == b"Z\0\0\0\x05" or payload[5:6] == b"S") and are_answers(payload):
            return TO_CLIENT
        return None

    def __init__(
        self,
        connection: Connection,
        *,
        wanted: Callable[[bytes], bool] | None = None,
        skipped: Callable[[int, Frames], object] = lambda time_ns, frames: None,
        encrypted: Callable[[Postgres], object] | None = None,
    ) -> None:
        # A gap before the first recognised bytes has the same effect as a late start of the capture.
        joined = connection.joined or connection.gaps > 0
        self._connection = connection
        self._skipped = skipped
        self._encrypted = encrypted
        """Called when the server agrees to TLS: what follows comes from within."""
        self._statements = Statements(wanted)
        self._exchange = 0
        """Number of the latest statement."""
        self._opaque = False
        """Nothing that follows can be read: encryption."""
        self._whole = not joined
        """No byte of the client is missing so far, so unreadable bytes are not PostgreSQL."""
        self._out: list[Message] = []
        self._split = Splitter(FROM_CLIENT)
        self._lost = joined
        """Out of step on the client's side: it is unknown where messages begin."""
        self._tail = b""
        """Out of step: the latest bytes, which may be the beginning of a query."""
        self._starts = not joined
        """Before the start-up message: messages have no type."""
        self._startup = b""
        """The bytes of a message without a type so far."""
        self._unread_bytes = 0
        """Bytes still to come of a query that is not wanted."""
        self._cycle: Cycle | None = None
        """The cycle of the extended protocol that has no Sync yet."""
        self._parsed: tuple[Prepared, Item, Mark, Mark] | None = None
        """The latest Parse, while it may still be executed in its cycle."""
        self._answers = Answers(connection, joined)

    # --- what comes in ---

    def receive(self, data: Data) -> Iterable[Message]:
        """Return the messages that *data*, the next bytes of its direction, completes."""
        if self._opaque:
            return ()
        # Fields by their index: most calls come for packets of no interest. data[1] is the direction.
        if data[1]:
            return self._hear(data)
        payload = data[3]
        if self._unread_bytes:
            if len(payload) < self._unread_bytes:
                self._unread_bytes -= len(payload)
                return ()
            payload, self._unread_bytes = payload[self._unread_bytes :], 0
            if not payload:
                return ()
            data = data._replace(payload=payload)
        if payload[0] == _QUERY and len(payload) > 5 and not self._split.busy and not self._starts:
            # Fast path: exactly one query, not wanted, and nothing is awaited. Then its answer does not
            # matter either. Of a long one the beginning decides, and its rest is not kept.
            missing = _HEAD(payload)[1] + 1 - len(payload)
            whole = not missing and payload[-1] == 0
            is_long = missing > 0 and len(payload) > ENOUGH_BYTES and not self._lost
            if (whole or is_long) and not self._answers.awaits and self._cycle is None:
                text = payload[5:-1] if whole else payload[5:]
                if not self._statements.is_wanted(text):
                    self._lost = False
                    self._exchange += 1
                    self._skipped(data[2], data[4])
                    self._unread_bytes = missing
                    return ()
        out = self._out = []
        self._read(data)
        self._listen()
        return out

    def _hear(self, data: Data) -> Iterable[Message]:
        answers = self._answers
        if answers.deaf:
            answers.recent.append((data[2], data[3][:RECENT_BYTES], data[4]))
            self._listen()
            return ()
        out: list[Message] = []
        answers.receive(data, out)
        if answers.encrypted == "tls" and self._encrypted is not None:
            # The start-up comes once more, within.
            answers.encrypted = ""
            self._encrypted(self)
        elif answers.encrypted:
            out.append(Undecoded(self._connection, data.time_ns, answers.encrypted, data.frames))
            self._stop()
        self._listen()
        return out

    def _listen(self) -> None:
        """Tell reassembly whether the server's bytes are needed."""
        # Within a message of the client its answer may come first, if the rest is held back.
        self._connection.deaf = self._opaque or (
            self._answers.deaf and not self._starts and not self._split.busy and not self._lost
        )

    def gap(self, gap: Gap) -> Iterable[Message]:
        """Return the statement or result that the hole in a direction ends."""
        if self._opaque:
            return ()
        out = self._out = []
        split = self._split
        if gap.direction == TO_CLIENT:
            self._answers.lose(gap, out)
        elif self._unread_bytes and 0 < gap.size_bytes <= self._unread_bytes:
            # A hole inside a query that is not wanted only shortens its rest.
            self._unread_bytes -= gap.size_bytes
        elif not self._unread_bytes and split.skip(gap.size_bytes):
            if split.complete:
                self._take_message()
        else:
            self._unread_bytes = 0
            self._cut_command()
            self._lose_step()
            self._answers.lose_commands(gap)
        self._listen()
        return out

    def closed(self, closed: Closed) -> Iterable[Message]:
        """Return the statement or result that the end of a direction (fin) or of both cuts off."""
        if self._opaque:
            return ()
        out = self._out = []
        if closed.how != "fin" or closed.direction == TO_SERVER:
            self._cut_command()
            self._flush_parse()
            self._split.reset()
            self._answers.end_commands(out)
        if closed.how != "fin" or closed.direction == TO_CLIENT:
            self._answers.end(out)
            self._answers.end_commands(out)
        return out

    # --- the client ---

    def _read(self, data: Data) -> None:
        """Read data of the client, message by message."""
        payload, at, split = data.payload, 0, self._split
        split.mark = (data.time_ns, data.frames)
        if self._starts:
            payload = self._start(payload)
        if self._lost and payload:
            payload = self._search(payload)
        while at < len(payload) and not self._opaque:
            at = split.feed(payload, at)
            if split.broken:
                self._garbage(split.start)
                return
            if split.complete:
                self._take_message()

    def _start(self, payload: bytes) -> bytes:
        """Read messages without a type; return the bytes behind the start-up message."""
        mark = self._split.mark
        payload = self._startup + payload
        while len(payload) >= 8:
            length, code = int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")
            if is_tls(payload):
                # TLS without a request (sslnegotiation=direct), or the answer to it was not seen.
                self._out.append(Undecoded(self._connection, mark[0], "tls", mark[1]))
                self._stop()
                return b""
            if not 8 <= length <= _LARGEST_STARTUP or (code not in REQUESTS and code >> 16 != 3):
                # No start-up: the connection may have begun before, in spite of what its packets say.
                self._starts = False
                self._garbage(mark)
                return payload if are_commands(payload) else b""
            if len(payload) < length:
                break
            body, payload = payload[8:length], payload[length:]
            if code not in REQUESTS:
                schema, attributes = parameters_of(body)
                self._out.append(SqlLogin(self._connection, mark[0], mark[1], schema, attributes))
                self._starts, self._startup = False, b""
                return payload
            if code != _CANCEL:
                self._answers.asked_for_encryption += 1
        self._startup = payload
        return b""

    def _search(self, payload: bytes) -> bytes:
        """Search the next message while out of step; return the bytes from it on, or b''.

        Messages are recognised if they fill a piece of data, as they usually do. Otherwise a query is
        recognised by a plausible length and a first word of SQL.
        """
        mark = self._split.mark
        if is_startup(payload):
            self._starts, self._startup, self._lost = True, b"", False
            return self._start(payload)
        if not are_commands(payload):
            if is_tls(payload) and not self._tail and not self._exchange:
                self._out.append(Undecoded(self._connection, mark[0], "tls", mark[1]))
                self._stop()
                return b""
            # The beginning of a query may lie in the data before.
            payload = self._tail + payload
            found = search_command(payload)
            if found < 0:
                self._tail = payload[-_TAIL:]
                return b""
            payload = payload[found:]
        self._tail = b""
        self._lost = False
        return payload

    def _take_message(self) -> None:
        """Use one message of the client."""
        split = self._split
        kind, start, end, truncated = chr(split.kind), split.start, split.mark, split.truncated
        body = split.body()
        split.reset()
        if kind == "Q":
            self._flush_parse()
            text = body[:-1] if body[-1:] == b"\0" else body
            self._emit_simple("query", text, start, end, truncated)
        elif kind == "P":
            self._flush_parse()
            item = Item(executes=False)
            self._answers.add(self._open(start), item)
            self._parsed = self._statements.parse(body, truncated), item, start, end
        elif kind == "B":
            self._open(start)
            self._statements.bind(body, truncated)
        elif kind == "E":
            self._execute(body, start, end)
        elif kind == "D":
            self._open(start)
        elif kind == "C":
            self._open(start)
            self._statements.close(body)
        elif kind == "H":
            self._flush_parse()
        elif kind == "S":
            self._flush_parse()
            cycle, self._cycle = self._open(start), None
            self._answers.seal(cycle, self._out)
        elif kind == "F":
            self._emit_simple("function_call", b"", start, end, truncated)
        elif kind == "X":
            self._emit("quit", b"", start, end, truncated, self._statements.is_wanted(b""))

    def _open(self, start: Mark) -> Cycle:
        """Return the cycle of the extended protocol that is open, or begin one."""
        if self._cycle is None:
            self._cycle = self._answers.begin(start[0], False, self._out)
        return self._cycle

    def _execute(self, body: bytes, start: Mark, end: Mark) -> None:
        cycle, portal = self._open(start), self._statements.execute(body)
        prepared, parsed = portal.prepared, self._parsed
        if parsed is not None and prepared.number == parsed[0].number:
            # The Parse and its Execute are one statement.
            self._parsed = None
            start = parsed[2]
        else:
            self._flush_parse()
        self._emit(
            "fetch" if portal.executed else "execute",
            prepared.text,
            start,
            end,
            prepared.truncated or portal.truncated,
            prepared.wanted,
            portal.values,
        )
        self._answers.add(cycle, Item(True, self._exchange if prepared.wanted else 0))

    def _flush_parse(self) -> None:
        """Make a statement of the latest Parse: it is not executed in its cycle."""
        if self._parsed is None:
            return
        prepared, item, start, end = self._parsed
        self._parsed = None
        self._emit("prepare", prepared.text, start, end, prepared.truncated, prepared.wanted)
        item.exchange = self._exchange if prepared.wanted else 0

    def _emit_simple(self, command: str, text: bytes, start: Mark, end: Mark, truncated: bool) -> None:
        wanted = self._statements.is_wanted(text)
        self._emit(command, text, start, end, truncated, wanted)
        if wanted or self._answers.awaits or self._cycle is not None:
            self._cycle = None
            cycle = self._answers.begin(start[0], True, self._out)
            self._answers.add(cycle, Item(True, self._exchange if wanted else 0))
            self._answers.seal(cycle, self._out)

    def _emit(
        self,
        command: str,
        text: bytes,
        start: Mark,
        end: Mark,
        truncated: bool,
        wanted: bool,
        values: tuple[Value, ...] = (),
    ) -> None:
        self._exchange += 1
        if wanted:
            frames, number = frames_of(start, end), self._exchange
            self._out.append(
                SqlStatement(
                    self._connection, number, start[0], end[0], frames, command, text, truncated, values
                )
            )
        else:
            self._skipped(start[0], start[1])

    def _cut_command(self) -> None:
        """Emit the statement whose rest is missing, if its beginning is there."""
        split = self._split
        if split.kind in (_QUERY, 0x50) and not split.complete and not split.broken and split.body():
            split.truncated = True
            self._take_message()

    def _lose_step(self) -> None:
        """Be out of step on the client's side, and search the next message."""
        self._split.reset()
        self._flush_parse()
        self._lost, self._whole, self._tail = True, False, b""
        self._starts, self._startup = False, b""
        self._cycle = None
        self._statements.lose()

    def _garbage(self, mark: Mark) -> None:
        """Handle bytes that are not PostgreSQL: report them if no byte was missing before, and search on."""
        if self._whole:
            self._out.append(Undecoded(self._connection, mark[0], "garbage", mark[1]))
        self._lose_step()

    def _stop(self) -> None:
        """Stop decoding: no later byte of this connection can be read."""
        self._opaque = True
        self._split.reset()
        self._statements.clear()
        self._answers.stop()
