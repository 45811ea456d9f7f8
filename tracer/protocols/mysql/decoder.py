"""Decoder of the MySQL client protocol: bytes of one connection -> logins, statements and results.

Strategy. The client's side is read packet by packet, `length:3 seq:1 payload`; a command begins with sequence
number 0. Only the first packet of an answer is read, which holds OK or an error; rows are never read. Most
packets are MySQL's and most statements are of no interest. So behind a statement that is not wanted the
decoder is *deaf*: it skips the server's bytes until the next wanted statement.

This module reads the client's side; `answers` reads the server's.

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
from tracer.protocols.mysql.compressed import Unpacker, is_packed
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
"""Bytes of a statement that are kept. OpenStack's largest (a request spec) has some tens of kilobytes."""
_TAIL = 64
"""Bytes that are kept while out of step: the head of a query and its first word."""
_HEAD = Struct("<IB").unpack_from
"""Length (lower three bytes) and sequence number (upper byte) in one integer; then the command. With sequence
number 0, which begins a command, the integer is the length."""
_LAST_PREPARED = 0xFFFFFFFF
"""MariaDB: this number stands for the statement that was prepared just before."""
_KNOWN = frozenset((-1, *COMMANDS))
"""Valid first bytes of a command; -1 while the byte is not known."""
ENOUGH_BYTES = 512
"""Bytes of a statement that are enough to decide whether it is wanted: verb and table stand in front."""
LARGEST = 0xFFFFFF
"""A packet of this size continues in the next packet (PAGE_PROTOCOL_BASIC_PACKETS)."""


ENOUGH_PACKED = 11
"""Bytes of a compressed packet that show that it is one: its header, and how its data begin."""


class MySql:
    """Decoder of one MySQL connection.

    *wanted* is called with the text of each command, or with the beginning of a long text. The text is the
    SQL; for prepare, execute and close the prepared statement, or b'#7' if it was not seen; for init_db the
    schema; else b''. If it returns False, no message is made, and *skipped* is called with time and frames.
    At most *text_limit* bytes of a text are kept; a longer text is flagged as truncated. *encrypted* is
    called when the client asks for TLS; it returns what takes the rest of that piece of data. User names,
    passwords and rows are never read.

    `Connection.deaf` is True while no byte of the server is wanted; reassembly then does not hand them on.

    Exchanges count the commands from 1. A refused connection or login is a SqlResult of exchange 0.
    """

    name: ClassVar[str] = "mysql"

    @staticmethod
    def recognises(payload: bytes, direction: int) -> int | None:
        """Return the direction in which *payload*, the first bytes of a stream, travels, or None."""
        # Of the commands, only a query is characteristic enough to be recognised by its bytes.
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
        encrypted: Callable[[MySql], Callable[[Data], Iterable[Message]]] | None = None,
        text_limit: int = TEXT_LIMIT,
    ) -> None:
        # A gap before the first recognised bytes has the same effect as a late start of the capture.
        joined = connection.joined or connection.gaps > 0
        self._connection = connection
        self._wanted = wanted
        self._skipped = skipped
        self._encrypted = encrypted
        self._secure: Callable[[Data], Iterable[Message]] | None = None
        """Takes what follows a request for TLS; what is within comes back to `receive`."""
        self._exchange = 0
        """Number of the latest command."""
        self._opaque = False
        """Nothing that follows can be read: TLS."""
        self._unpackers: tuple[Unpacker, Unpacker] | None = None
        """Of both directions, once the login has agreed on compression."""
        self._beginning = b""
        """The first bytes behind the login, too few to tell whether they are compressed."""
        self._packed = False
        """Compressed packets have begun: they follow the login."""
        self._whole = not joined
        """No byte of the client is missing so far, so unreadable bytes are not MySQL."""
        self._out: list[Message] = []
        self._last_prepared = b"#%d" % _LAST_PREPARED
        # The client's side.
        self._client = Packets(text_limit)
        self._between = joined
        """The client's next byte may be the first of a command."""
        self._lost = joined
        """Out of step on the client's side: it is unknown where packets begin."""
        self._tail = b""
        """Out of step: the latest bytes, which may be the beginning of a query."""
        self._last_seq = -1
        """Sequence number of the client's previous packet."""
        self._unread_bytes = 0
        """Bytes still to come of a statement that is not wanted."""
        self._follow_ups = False
        """Packets followed a command, as with LOCAL INFILE; their sequence numbers may wrap to 0."""
        self._login = not joined
        """Before the first command: login and authentication."""
        self._answers = Answers(connection, joined)

    # --- what comes in ---

    def receive(self, data: Data) -> Iterable[Message]:
        """Return the messages that *data*, the next bytes of its direction, completes."""
        if self._unpackers is not None:
            return self._unpack(data, self._unpackers)
        # Fields by their index: most calls come for packets of no interest, and end after a few lines.
        # data[1] is the direction, 1 is TO_CLIENT.
        if data[1]:
            answers = self._answers
            if answers.deaf:
                payload = data[3]
                # Sequence number 1: it may begin the answer to a command that reassembly still holds back.
                if len(payload) > 4 and payload[3] == 1:
                    answers.recent.append((data[2], payload[:RECENT_BYTES], data[4]))
                # Within a command its answer may come first, if the rest of the command is held back.
                data[0].deaf = self._between or self._opaque
                return ()
            out: list[Message] = []
            answers.receive(data, out)
            data[0].deaf = answers.deaf and self._between
            return out
        if self._unread_bytes:
            rest = self._past_unread(data)
            if rest is None:
                return ()
            data = rest
        payload = data[3]
        if self._between and len(payload) > 5:
            size, code = _HEAD(payload)
            # A byte below 9 (TAB) cannot begin SQL; it begins query attributes.
            if code == QUERY and payload[5] > 8:
                # Fast path: the payload is exactly one query, which is the usual case. Mostly it is not
                # wanted, and nothing is awaited: then its answer does not matter either.
                if size == len(payload) - 4:
                    text = payload[5:]
                    self._lost = False
                    is_wanted = self._wanted is None or self._wanted(text)
                    if is_wanted or self._answers.awaits:
                        return self._query(data, text, is_wanted)
                    self._exchange += 1
                    self._skipped(data[2], data[4])
                    return ()
                if self._is_start_of_unwanted(size, payload):
                    self._exchange += 1
                    self._skipped(data[2], data[4])
                    self._between = False
                    self._unread_bytes = size - (len(payload) - 4)
                    return ()
        if self._opaque:
            return ()
        out = self._out = []
        self._read(data)
        data[0].deaf = self._answers.deaf and (self._between or self._opaque)
        return out

    def _unpack(self, data: Data, unpackers: tuple[Unpacker, Unpacker]) -> list[Message]:
        """Return the messages of a connection that is compressed once the login is over."""
        out: list[Message] = []
        if not self._packed and not data.direction and not self._client.busy:
            data = data._replace(payload=self._beginning + data.payload)
            self._beginning = b""
            if len(data.payload) < ENOUGH_PACKED and data.payload[3:4] in (b"", b"\0"):
                self._beginning = data.payload
                return out
        # The plain bytes take the usual way.
        self._unpackers = None
        if not self._packed and not data.direction and data.payload[3:4] == b"\0" and not self._client.busy:
            # Sequence number 0 begins a command, so the login is over. Its form tells whether the server
            # has agreed, too.
            self._packed = is_packed(data.payload)
            unpackers = unpackers if self._packed else ()  # type: ignore[assignment]
        if not self._packed:
            out += self.receive(data)
            self._unpackers = self._unpackers or unpackers or None
            return out
        wanted = not data.direction or not self._answers.deaf or self._client.busy
        unpacker = unpackers[data.direction]
        for piece in unpacker.feed(data.time_ns, data.frames, data.payload, wanted):
            if piece.payload:
                out += self.receive(
                    data._replace(time_ns=piece.time_ns, payload=piece.payload, frames=piece.frames)
                )
            if piece.missing and wanted:
                size = max(0, piece.missing)
                out += self.gap(Gap(data.connection, data.direction, data.time_ns, size, data.time_ns))
        self._unpackers = unpackers
        # Boundaries of compressed packets must be followed, whether their contents are wanted or not.
        data.connection.deaf = self._opaque
        return out

    def _past_unread(self, data: Data) -> Data | None:
        """Return what of *data* follows the statement that is not wanted: its rest is counted, not read."""
        payload = data.payload
        self._unread_bytes -= len(payload)
        if self._unread_bytes > 0:
            return None
        # `_unread_bytes` is 0 or negative now: the statement ends at this offset of the payload.
        past = self._unread_bytes + len(payload)
        self._unread_bytes, self._between = 0, True
        return data._replace(payload=payload[past:]) if past < len(payload) else None

    def _query(self, data: Data, text: bytes, is_wanted: bool) -> Iterable[Message]:
        """Return the messages that a whole query makes: it is wanted, or an earlier answer is awaited."""
        connection, _, time_ns, _, frames = data
        out = self._out = []
        if is_wanted:
            mark = (time_ns, frames)
            self._emit_statement(QUERY, text, mark, mark, False, True)
        else:
            self._exchange += 1
            self._skipped(time_ns, frames)
            self._answers.expect(Awaited(0, time_ns, QUERY, b""), out)
        connection.deaf = self._answers.deaf
        return out

    def _is_start_of_unwanted(self, size: int, payload: bytes) -> bool:
        """Return whether the beginning of a long query shows that it is not wanted.

        Its rest is then not buffered. The query must end with this packet (size below LARGEST, sequence
        number 0), and no earlier command may await its answer.
        """
        return (
            ENOUGH_BYTES < len(payload) - 4 < size < LARGEST
            and not self._lost
            and self._wanted is not None
            and not self._answers.awaits
            and not self._wanted(payload[5:])
        )

    def gap(self, gap: Gap) -> Iterable[Message]:
        """Return the statement or result that the hole in a direction ends."""
        if self._opaque:
            return ()
        if self._unpackers is not None and self._packed:
            hidden = self._unpackers[gap.direction].lose(gap.size_bytes)
            if not hidden:
                return ()
            gap = gap._replace(size_bytes=max(0, hidden))
        out = self._out = []
        client = self._client
        # A hole inside a statement that is not wanted only shortens its rest.
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
        """Return the statement or result that the end of a direction (fin) or of both cuts off."""
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
        """Read data of the client, packet by packet."""
        payload, at, client = data.payload, 0, self._client
        client.mark = (data.time_ns, data.frames)
        if self._lost:
            payload = self._search(payload)
        while at < len(payload) and not self._opaque:
            at = client.feed(payload, at)
            if client.complete:
                self._take_packet(client.mark)
                if self._secure is not None:
                    secure, self._secure = self._secure, None
                    if at < len(payload):
                        self._out += secure(data._replace(payload=payload[at:]))
                    return
            elif client.seq == 0 and client.first_byte not in _KNOWN and not self._follow_ups:
                # Not a command: report it now, before 16 MiB of it are awaited.
                self._garbage(client.mark)
            if self._lost:
                payload, at = self._search(payload[at:]), 0
        self._between = self._is_between()

    def _is_between(self) -> bool:
        """Return whether the client's next byte may be the first one of a command."""
        if self._opaque or self._login or self._follow_ups:
            return False
        return self._lost or not self._client.busy

    def _search(self, payload: bytes) -> bytes:
        """Search the next command while out of step; return the bytes from it on, or b''.

        A command is recognised if it fills its piece of data, as commands usually do. Otherwise a query is
        recognised by a plausible length, sequence number 0 and a first word of SQL in a row.
        """
        if not is_command(payload):
            reason = foreign(payload)
            if reason == "compressed":
                return self._begin_packed(payload)
            if reason is not None:
                self._stop(self._client.mark, reason)
                return b""
            # The beginning of a query may lie in the data before.
            payload = self._tail + payload
            found = search_query(payload)
            if found < 0:
                self._tail = payload[-_TAIL:]
                return b""
            payload = payload[found:]
        self._tail = b""
        self._lost = False
        return payload

    def _begin_packed(self, payload: bytes) -> bytes:
        """Find out in the middle of a connection that it is compressed; *payload* is a whole packet of it."""
        unpackers = Unpacker(), Unpacker()
        # Where the server's packets begin is not known.
        unpackers[TO_CLIENT].in_step = False
        self._packed = True
        self._unpackers = unpackers
        time_ns, frames = self._client.mark
        return b"".join(piece.payload for piece in unpackers[TO_SERVER].feed(time_ns, frames, payload, True))

    def _take_packet(self, end: Mark) -> None:
        """Use one packet of the client, whose last byte was seen at *end*."""
        client = self._client
        seq, body, start, truncated = client.seq, client.body(), client.start, client.truncated
        before, self._last_seq = self._last_seq, client.last_seq
        client.reset()
        # In the login, the client's packets answer the server's and have numbers above 0. The first one is
        # the handshake response; later ones authenticate, and are not read.
        if self._login and seq:
            if before < 0:
                self._log_in(body, start, end)
        elif seq or (self._follow_ups and before == 255):
            # A packet that continues a command (LOCAL INFILE, a change of user). Its number follows that of
            # the client's previous packet, or of a packet of the server in between.
            if seq > 3 and not (self._follow_ups and (seq - before) & 0xFF in (1, 2)):
                self._garbage(start)
            self._follow_ups = not self._lost
        elif not body or body[0] not in COMMANDS:
            self._garbage(start)
        else:
            self._take_command(body, start, end, truncated)

    def _log_in(self, body: bytes, start: Mark, end: Mark) -> None:
        """Use the handshake response: it makes a SqlLogin, or ends the decoding (TLS, compression)."""
        login = login_of(body, self._answers.offered)
        if login is None:
            self._garbage(start)
        elif login.tls and self._encrypted is not None:
            # The handshake response comes once more, within.
            self._last_seq = -1
            self._secure = self._encrypted(self)
        elif login.tls:
            self._stop(end, "tls")
        else:
            frames = frames_of(start, end)
            self._out.append(SqlLogin(self._connection, start[0], frames, login.schema, login.attributes))
            if login.compressed:
                self._unpackers = Unpacker(), Unpacker()

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
        # The answer to a prepare holds the statement's number, so it is needed even if nothing else is.
        if code not in SILENT and (wanted or code == PREPARE or self._answers.awaits):
            number = self._exchange if wanted else 0
            self._answers.expect(Awaited(number, start[0], code, text), self._out)

    def _text(self, code: int, body: bytes) -> bytes:
        """Return the text of a command, and keep the table of prepared statements up to date."""
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
        """Emit the statement whose rest is missing, if its command is known."""
        client = self._client
        if client.seq == 0 and not self._lost and client.first_byte in COMMANDS:
            body, start, end = client.body(), client.start, client.mark
            client.reset()
            self._take_command(body, start, end, truncated=True)

    def _lose_step(self) -> None:
        """Be out of step on the client's side, and search the next command."""
        self._client.reset()
        self._lost = True
        self._whole = False
        self._tail = b""
        self._follow_ups = False
        if self._login:
            # The hole may hold the login and first commands.
            self._login = False
            self._answers.begin_commands()
        self._between = True

    def _garbage(self, mark: Mark) -> None:
        """Handle bytes that are not MySQL: report them if no byte was missing before, and search on."""
        if self._whole:
            self._out.append(Undecoded(self._connection, mark[0], "garbage", mark[1]))
        self._lose_step()

    def _stop(self, mark: Mark, reason: str) -> None:
        """Stop decoding: no later byte of this connection can be read."""
        self._out.append(Undecoded(self._connection, mark[0], reason, mark[1]))
        self._opaque = True
        self._between = False
        self._client.reset()
        self._answers.stop()
