"""MySQL client protocol: bytes of one connection -> logins, statements and whether they worked.

Strategy. The client's side is read packet by packet, `length:3 seq:1 payload`; a command begins with
sequence number 0. Of an answer only the first packet is read, which says OK or error; rows never are.
MySQL is most of all traffic and most of it is of no interest, so a statement that is not wanted makes
this decoder deaf for the server's side until the next one that is.

This module is the client's side; `answers` is the server's.

Source: MySQL source documentation, "Client/Server Protocol" (PAGE_PROTOCOL); MariaDB knowledge base,
"MariaDB Client/Server Protocol".
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
from tracer.protocols.mysql.answers import RECENT_BYTES, Answers, Awaited, Mark, frames_of
from tracer.protocols.mysql.packets import (
    COMMANDS,
    NEW_SESSION,
    PREPARE,
    QUERY,
    SILENT,
    WITH_SCHEMA,
    WITH_STATEMENT,
    Packets,
    foreign,
    is_command,
    is_first_answer,
    is_greeting,
    is_login,
    login_of,
    query_text,
    search_query,
)

__all__ = ["MySql"]

TEXT_LIMIT = 256 << 10
"""Of one statement. The largest of OpenStack's (a request spec) are some tens of kilobytes."""
_TAIL = 64
"""Bytes kept while out of step: the head of a query and its first word."""
_HEAD = Struct("<IB").unpack_from
"""Length and, in the uppermost byte, sequence number; then the command."""
_LAST_PREPARED = 0xFFFFFFFF
"""MariaDB: the statement that was prepared just before."""
_KNOWN = frozenset((-1, *COMMANDS))
ENOUGH_BYTES = 512
"""So much of a statement is enough to ask whether it is wanted: verb and table stand in front."""
LARGEST = 0xFFFFFF
"""A packet of this size goes on in the next one."""


class MySql:
    """Decoder of one MySQL connection.

    *wanted* is asked with the text of each command, of a long one with its beginning: the SQL; of
    prepare, execute and close that of the prepared statement, b'#7' if it was not seen; of init_db the
    schema; else b''. Where it says no, *skipped* is called (time, frames); no message is made. At most
    *text_limit* bytes of a text are kept; a longer one is flagged truncated. User names, passwords and rows
    are never read.

    While nothing of the server is wanted, `Connection.deaf` says so.

    Exchanges count the commands, from 1. A refused connection or login is a SqlResult of exchange 0.
    """

    name: ClassVar[str] = "mysql"

    @staticmethod
    def recognises(payload: bytes, direction: int) -> int | None:
        """Return the direction in which *payload*, first bytes of a stream, really travels, or None."""
        if is_greeting(payload) or is_first_answer(payload):
            return TO_CLIENT
        if is_login(payload) or (is_command(payload) and payload[4] in (QUERY, PREPARE)):
            return TO_SERVER
        return None

    def __init__(
        self,
        connection: Connection,
        *,
        wanted: Callable[[bytes], bool] | None = None,
        skipped: Callable[[int, Frames], object] = lambda time_ns, frames: None,
        text_limit: int = TEXT_LIMIT,
    ) -> None:
        # Gaps from before this decoder was made count as well.
        joined = connection.joined or connection.gaps > 0
        self._connection = connection
        self._wanted = wanted
        self._skipped = skipped
        self._exchange = 0
        self._opaque = False
        self._whole = not joined
        """No byte of the client is missing so far: what cannot be read is not MySQL."""
        self._out: list[Message] = []
        self._last_prepared = b"#%d" % _LAST_PREPARED
        # The client's side.
        self._client = Packets(text_limit)
        self._between = joined
        """The client's next byte may be the first of a command."""
        self._lost = joined
        """Out of step on the client's side."""
        self._tail = b""
        """Bytes seen while out of step that may be the beginning of a query."""
        self._last_seq = -1
        """Of the client's packet before."""
        self._unread_bytes = 0
        """Of a statement that is not wanted, still to come."""
        self._follow_ups = False
        """Packets came behind a command, as LOCAL INFILE's do: their numbers may wrap to 0."""
        self._login = not joined
        """Before the first command: the login is sent."""
        self._answers = Answers(connection, joined)

    # --- what comes in ---

    def receive(self, data: Data) -> Iterable[Message]:
        """Return the messages that *data*, the next bytes of its direction, completes."""
        if data[1]:
            answers = self._answers
            if answers.deaf:
                payload = data[3]
                if len(payload) > 4 and payload[3] == 1:
                    answers.recent.append((data[2], payload[:RECENT_BYTES], data[4]))
                # Behind half a command its answer may come before its other half.
                data[0].deaf = self._between or self._opaque
                return ()
            out: list[Message] = []
            answers.hear(data, out)
            data[0].deaf = answers.deaf and self._between
            return out
        connection, _, time_ns, payload, _ = data
        if self._unread_bytes:
            # The rest of a statement that is not wanted.
            self._unread_bytes -= len(payload)
            if self._unread_bytes > 0:
                return ()
            past = self._unread_bytes + len(payload)
            self._unread_bytes, self._between = 0, True
            if past == len(payload):
                return ()
            payload = payload[past:]
            data = data._replace(payload=payload)
        if self._between and len(payload) > 5:
            size, code = _HEAD(payload)
            # One whole query, as nearly always. A byte below 9 would begin query attributes.
            if code == QUERY and size == len(payload) - 4 and payload[5] > 8:
                text = payload[5:]
                wanted = self._wanted
                self._lost = False
                if wanted is not None and not wanted(text):
                    self._exchange += 1
                    self._skipped(time_ns, data[4])
                    if not self._answers.awaits:
                        return ()
                    out = []
                    self._answers.expect(Awaited(0, time_ns, QUERY, b""), out)
                    connection.deaf = self._answers.deaf
                    return out
                out = self._out = []
                mark = (time_ns, data[4])
                self._emit_statement(QUERY, text, mark, mark, False, True)
                connection.deaf = self._answers.deaf
                return out
            if (
                code == QUERY
                and ENOUGH_BYTES < len(payload) - 4 < (size & 0xFFFFFF) < LARGEST
                and size < 1 << 24
                and payload[5] > 8
                and not self._lost
                and self._wanted is not None
                and not self._answers.awaits
                and not self._wanted(payload[5:])
            ):
                # The beginning of a long one tells that nobody wants it.
                self._exchange += 1
                self._skipped(time_ns, data[4])
                self._lost = self._between = False
                self._unread_bytes = size - (len(payload) - 4)
                return ()
        if self._opaque:
            return ()
        out = self._out = []
        self._read(data)
        connection.deaf = self._answers.deaf and (self._between or self._opaque)
        return out

    def gap(self, gap: Gap) -> Iterable[Message]:
        """Return the statement or result that the hole in a direction ends."""
        if self._opaque:
            return ()
        out = self._out = []
        client = self._client
        if gap.direction == TO_SERVER and self._unread_bytes:
            if 0 < gap.size_bytes < self._unread_bytes:
                self._unread_bytes -= gap.size_bytes
                return ()
            self._between = gap.size_bytes == self._unread_bytes
            self._unread_bytes = 0
            if self._between:
                return ()
        if gap.direction == TO_CLIENT:
            self._answers.lose(gap, out)
        elif client.skip(gap.size_bytes):
            if client.complete:
                self._take_packet(client.mark)
                self._between = self._is_between()
        else:
            self._cut_command()
            self._answers.lose_commands(gap, out)
            self._lose_step()
        self._connection.deaf = self._answers.deaf and (self._between or self._opaque)
        return out

    def closed(self, closed: Closed) -> Iterable[Message]:
        """Return the statement or result that the end of a direction (fin), or of both, cuts off."""
        if self._opaque:
            return ()
        out = self._out = []
        if closed.how != "fin" or closed.direction == TO_SERVER:
            self._cut_command()
            self._client.reset()
            self._answers.end_commands(out)
        if closed.how != "fin" or closed.direction == TO_CLIENT:
            self._answers.end(out)
        return out

    # --- the client ---

    def _read(self, data: Data) -> None:
        """Read what the client sends."""
        payload, at, client = data.payload, 0, self._client
        client.mark = (data.time_ns, data.frames)
        if self._lost:
            payload = self._search(payload)
        while at < len(payload) and not self._opaque:
            at = client.feed(payload, at)
            if client.complete:
                self._take_packet(client.mark)
            elif client.seq == 0 and client.first_byte not in _KNOWN and not self._follow_ups:
                self._garbage(client.mark)
            if self._lost:
                payload, at = self._search(payload[at:]), 0
        self._between = self._is_between()

    def _is_between(self) -> bool:
        if self._opaque or self._login or self._follow_ups:
            return False
        return self._lost or not self._client.busy

    def _search(self, payload: bytes) -> bytes:
        """Out of step: return the bytes from the next command on, or b''.

        A command is found where it fills its piece of data, as commands do; else where a plausible
        length, the sequence number 0 and the first word of a query follow each other.
        """
        if not is_command(payload):
            reason = foreign(payload)
            if reason is not None:
                self._stop(self._client.mark, reason)
                return b""
            payload = self._tail + payload
            found = search_query(payload)
            if found < 0:
                self._tail = payload[-_TAIL:]
                return b""
            payload = payload[found:]
        self._tail = b""
        self._lost = False
        return payload

    def _take_packet(self, end: Mark) -> None:
        """Take one whole packet of the client, which ended at *end*."""
        client = self._client
        seq, body, start, truncated = client.seq, client.body(), client.start, client.truncated
        before, self._last_seq = self._last_seq, client.last_seq
        client.reset()
        if self._login and seq:
            if before < 0:
                self._log_in(body, start, end)
        elif seq or (self._follow_ups and before == 255):
            # A command follows no command's numbers. The server's packet may lie between two of ours.
            if seq > 3 and not (self._follow_ups and (seq - before) & 0xFF in (1, 2)):
                self._garbage(start)
            self._follow_ups = not self._lost
        elif not body or body[0] not in COMMANDS:
            self._garbage(start)
        else:
            self._take_command(body, start, end, truncated)

    def _log_in(self, body: bytes, start: Mark, end: Mark) -> None:
        login = login_of(body, self._answers.offered)
        if login is None:
            self._garbage(start)
        elif login.tls:
            self._stop(end, "tls")
        else:
            frames = frames_of(start, end)
            self._out.append(SqlLogin(self._connection, start[0], frames, login.schema, login.attributes))
            if login.compressed:
                self._stop(end, "compressed")

    def _take_command(self, body: bytes, start: Mark, end: Mark, truncated: bool) -> None:
        if self._login:
            self._login = False
            self._answers.begin_commands()
        self._follow_ups = False
        code = body[0]
        text = self._text(code, body)
        wanted = self._wanted is None or self._wanted(text)
        self._emit_statement(code, text, start, end, truncated, wanted)

    def _emit_statement(
        self, code: int, text: bytes, start: Mark, end: Mark, truncated: bool, wanted: bool
    ) -> None:
        self._exchange += 1
        if wanted:
            frames, number, name = frames_of(start, end), self._exchange, COMMANDS[code]
            self._out.append(
                SqlStatement(self._connection, number, start[0], end[0], frames, name, text, truncated)
            )
        else:
            self._skipped(start[0], start[1])
        if code not in SILENT and (wanted or code == PREPARE or self._answers.awaits):
            number = self._exchange if wanted else 0
            self._answers.expect(Awaited(number, start[0], code, text), self._out)

    def _text(self, code: int, body: bytes) -> bytes:
        """Return the text of a command, and keep account of the prepared statements."""
        if code == QUERY:
            return query_text(body)
        if code == PREPARE:
            self._last_prepared = body[1:]
        elif code in WITH_STATEMENT:
            number = int.from_bytes(body[1:5], "little")
            if number == _LAST_PREPARED:
                return self._last_prepared
            text = self._answers.prepared.get(number, b"#%d" % number)
            if COMMANDS[code] == "close":
                self._answers.prepared.pop(number, None)
            return text
        elif code in NEW_SESSION:
            self._answers.prepared.clear()
        return body[1:] if code == PREPARE or code in WITH_SCHEMA else b""

    def _cut_command(self) -> None:
        """Emit the statement of which the rest is missing, if its command is known."""
        client = self._client
        if client.seq == 0 and not self._lost and client.first_byte in COMMANDS:
            body, start, end = client.body(), client.start, client.mark
            client.reset()
            self._take_command(body, start, end, truncated=True)

    def _lose_step(self) -> None:
        self._client.reset()
        self._lost = True
        self._whole = False
        self._tail = b""
        self._follow_ups = False
        if self._login:
            # The login may be in the hole, and commands, too.
            self._login = False
            self._answers.begin_commands()
        self._between = True

    def _garbage(self, mark: Mark) -> None:
        if self._whole:
            self._out.append(Undecoded(self._connection, mark[0], "garbage", mark[1]))
        self._lose_step()

    def _stop(self, mark: Mark, reason: str) -> None:
        """From here on nothing of this connection can be read."""
        self._out.append(Undecoded(self._connection, mark[0], reason, mark[1]))
        self._opaque = True
        self._between = False
        self._client.reset()
        self._answers.stop()
