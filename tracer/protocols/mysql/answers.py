"""The server's side of a MySQL connection: pairing of answers with commands, and whether they succeeded.

Only the first packet of an answer is read. While no answer is wanted, the server's bytes are skipped.

Answers are paired by time. A client sends no command before it has the whole answer to the previous one,
except for drivers that send a few at once. So the first answer that begins after a command belongs to it, if
no byte of the server is missing since the command. If bytes are missing, the answer behind the hole belongs
to the latest command before it. Which command that was is known only when a later command is there and no
bytes of the client are missing in between. Until then the answer is *in doubt* and held back. An answer that
stays ambiguous is not paired, because a wrong pair is worse than none.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from tracer.model import TO_CLIENT, Connection, Data, Frames, Gap, Message, SqlResult
from tracer.protocols.mysql.packets import (
    CHANGE_USER,
    PREPARE,
    QUERY,
    Packets,
    error_of,
    greeting_capabilities,
    is_answer,
)

__all__ = ["RECENT_BYTES", "Answers", "Awaited", "Mark", "frames_of"]

RECENT_BYTES = 256
"""Bytes that are kept of an answer which no command awaits yet."""
_RECENT = 96
"""Number of such answers: reassembly waits 48 packets for a lost one, and two may be lost in a row."""
_AWAITED = 64
"""Commands that wait for an answer. There are more only if the server's side is not in the capture."""
_PREPARED = 512
"""Prepared statements of a connection that are remembered; MySQL allows 16382 for the whole server."""
_FIRST_PACKET = 4_096
"""Bytes that are kept of an answer's first packet; the longest one read is an error with its text."""

_UNKNOWN = -1
"""Exchange of an entry that stands for possible commands in a hole."""

Mark = tuple[int, Frames]
"""Time and frames of a byte."""


class Awaited(NamedTuple):
    """A command without an answer yet; `exchange` is 0 if its result is not wanted."""

    exchange: int
    time_ns: int
    command: int
    text: bytes


class _Packet(NamedTuple):
    """A packet of the server that may hold the result of a command."""

    body: bytes
    start: Mark
    end: Mark
    truncated: bool


def frames_of(start: Mark, end: Mark) -> Frames:
    """Return the frames of a message from *start* to *end*: the last one first, as Wireshark shows it."""
    return end[1] if start[1] == end[1] else end[1] + start[1]


class Answers:
    """Reads the server's side of one connection; results are appended to the list that is passed in."""

    __slots__ = (
        "_answer_seq",
        "_asked",
        "_awaited",
        "_connection",
        "_doubt",
        "_gap_open",
        "_holed",
        "_in_step",
        "_login",
        "_packets",
        "_unsettled",
        "_whole_ns",
        "deaf",
        "offered",
        "prepared",
        "recent",
    )

    def __init__(self, connection: Connection, joined: bool) -> None:
        self._connection = connection
        self.deaf = joined
        """No byte of the server is wanted now, so they are skipped."""
        self.offered: int | None = None
        """The server's capability flags; None before its greeting."""
        self.prepared: dict[int, bytes] = {}
        """Number of a prepared statement -> its text."""
        self.recent: deque[tuple[int, bytes, Frames]] = deque(maxlen=_RECENT)
        """Data that may begin an answer (time, first bytes, frames), for commands that reach us late."""
        self._packets = Packets(_FIRST_PACKET)
        self._login = not joined
        """Before the first command: greeting and authentication."""
        self._in_step = not joined
        """The server's next byte begins or continues a packet."""
        self._asked = False
        """A command was sent after the server's latest data, so its next data begins an answer."""
        self._answer_seq = -1
        """Sequence number of the server's previous packet."""
        self._awaited: deque[Awaited] = deque(maxlen=_AWAITED)
        """Commands without an answer, in order."""
        self._unsettled: Awaited | None = None
        """A command whose answer has begun, and whose result is in a later packet."""
        self._holed = joined
        """Bytes are missing, so the first packet of an answer is recognised by its form as well."""
        self._gap_open = False
        """The next data is the first one behind a hole."""
        self._whole_ns = 0
        """Time since when no byte of the server is missing."""
        self._doubt: _Packet | None = None
        """An answer behind a hole whose command is not certain yet."""

    # --- the client's side ---

    @property
    def awaits(self) -> bool:
        """Whether a command has no answer yet; pairing then needs the commands behind it, too."""
        return bool(self._awaited)

    def begin_commands(self) -> None:
        """End the login: it is complete, or lies in a hole, and commands follow."""
        self._login = False
        self._leave_step()
        self.deaf = not self._awaited and not self._gap_open

    def expect(self, awaited: Awaited, out: list[Message]) -> None:
        """Add a command that the server will answer; *out* gets the results that this makes certain."""
        recent = self.recent
        if self._doubt is None and recent and recent[-1][0] > awaited.time_ns:
            # Reassembly held the command back while it waited for a lost segment. Its answer came first.
            self._answer_late(awaited, out)
            return
        if self._awaited and awaited.time_ns < self._awaited[-1].time_ns:
            # The capture is out of order here, so times cannot pair the open commands.
            self._awaited.clear()
            self._doubt = None
            self.deaf = not self._gap_open
            return
        self._awaited.append(awaited)
        self._asked = True
        self.deaf = False
        self._reconsider(out)

    def _answer_late(self, late: Awaited, out: list[Message]) -> None:
        """Search the answer to a command among the data that came before the command reached us."""
        oldest_ns = self.recent[0][0] if len(self.recent) == _RECENT else 0
        if late.time_ns < max(self._whole_ns, oldest_ns):
            # Its answer may be in a hole, or dropped from `recent`.
            return
        # Read the data again with this command alone, then restore the state.
        before, asked, deaf = self._awaited, self._asked, self.deaf
        for time_ns, payload, frames in tuple(self.recent):
            if time_ns > late.time_ns:
                self._awaited, self._asked, self.deaf = deque([late]), True, False
                self.receive(Data(self._connection, TO_CLIENT, time_ns, payload, frames), out)
                self._leave_step()
                break
        self._awaited, self._asked, self.deaf = before, asked, deaf

    def lose_commands(self, gap: Gap, out: list[Message]) -> None:
        """Record a hole on the client's side, which may hide commands."""
        # Only behind an open command the hidden ones make a difference.
        if self._awaited:
            self._awaited.append(Awaited(_UNKNOWN, gap.since_ns + 1, -1, b""))
            self._reconsider(out)

    def end_commands(self, out: list[Message]) -> None:
        """Record the end of the client's side: an answer in doubt belongs to its last command."""
        if self._doubt is not None:
            # A command after all others, in place of the later one that would have decided it.
            self._awaited.append(Awaited(_UNKNOWN, 1 << 62, -1, b""))
            self._reconsider(out)

    def _reconsider(self, out: list[Message]) -> None:
        """Try to pair the answer in doubt, and then the answers behind it."""
        doubt = self._doubt
        if doubt is None:
            return
        self._doubt = None
        self._pair(doubt, out)
        if self._doubt is None:
            # While the answer was in doubt, later ones were only put into `recent`.
            recent = tuple(self.recent)
            self.recent.clear()
            for time_ns, payload, frames in recent:
                self._asked = True
                self.receive(Data(self._connection, TO_CLIENT, time_ns, payload, frames), out)
            self._leave_step()
            self._asked = bool(self._awaited)
            self.deaf = not self._awaited

    # --- the server's side ---

    def receive(self, data: Data, out: list[Message]) -> None:
        """Read *data* of the server while an answer is awaited, else remember its first bytes."""
        time_ns, payload, at, packets = data.time_ns, data.payload, 0, self._packets
        if self._gap_open:
            self._gap_open = False
            self._whole_ns = time_ns
        if not self._login and not self._is_awaited(time_ns):
            self.deaf = not self._awaited
            # Sequence number 1: the first packet behind a command's 0.
            if payload[3:4] == b"\x01":
                self.recent.append((time_ns, payload[:RECENT_BYTES], data.frames))
            return
        packets.mark = (time_ns, data.frames)
        while at < len(payload) and not self.deaf:
            at = packets.feed(payload, at)
            if not self._in_step and packets.first_byte >= 0:
                if packets.seq != 1 or (self._holed and not is_answer(packets.size, packets.first_byte)):
                    # This data continues something else. The answer will begin with later data.
                    packets.reset()
                    self._asked = True
                    return
                self._in_step = True
            if packets.complete:
                self._take(out)

    def _is_awaited(self, time_ns: int) -> bool:
        """Return whether data of this time begins or continues an awaited answer."""
        if self._doubt is not None or not (self._awaited or self._unsettled):
            return False
        # The first data behind a command begins its answer, whatever was read before.
        if self._asked and self._awaited and self._awaited[0].time_ns <= time_ns:
            self._leave_step()
            self._asked = False
            return True
        return self._in_step or self._packets.busy

    def _leave_step(self) -> None:
        self._packets.reset()
        self._in_step = False
        self._answer_seq = -1
        self._unsettled = None

    def _take(self, out: list[Message]) -> None:
        """Use one packet of the server, by the state of the login or of the answer."""
        packets = self._packets
        packet = _Packet(packets.body(), packets.start, packets.mark, packets.truncated)
        seq = packets.seq
        # In a long answer the numbers wrap at 255, so 1 also follows 0 in the middle of it.
        first = seq == 1 and self._answer_seq != 0
        self._answer_seq = packets.last_seq
        packets.reset()
        if self._login:
            self._take_greeting(packet, out)
            return
        if self._unsettled is not None:
            self._settle(self._unsettled, packet, out)
        elif first:
            self._pair(packet, out)
        if (not self._awaited and self._unsettled is None) or self._doubt is not None:
            self.deaf = self._doubt is None
            self._in_step = False

    def _take_greeting(self, packet: _Packet, out: list[Message]) -> None:
        """Use a packet of greeting or authentication."""
        first = packet.body[:1]
        if first == b"\xff":
            # ERR: connection or login is refused.
            self._emit(0, packet, out)
        elif first == b"\x0a" and self.offered is None:
            # Protocol version 10: the greeting ("Connection Phase", HandshakeV10).
            self.offered = greeting_capabilities(packet.body)
        elif first == b"\x00":
            # OK: logged in. Commands follow; the first wanted one ends the deafness.
            self.deaf = True

    def _pair(self, packet: _Packet, out: list[Message]) -> None:
        """Pair the answer that begins with *packet*; of commands sent at once, the first one gets it."""
        awaited, began_ns = self._awaited, packet.start[0]
        before = [command for command in awaited if command.time_ns <= began_ns]
        known = [command for command in before if command.exchange != _UNKNOWN]
        if not known:
            return
        latest_ns = known[-1].time_ns
        if latest_ns < self._whole_ns:
            # Earlier answers may be in the server's hole. This answer belongs to the latest command, if no
            # hole of the client hides a later one.
            if before[-1].exchange == _UNKNOWN:
                self._forget_before(began_ns)
                return
            if len(before) == len(awaited):
                # No command behind the answer yet: a later command, captured before, may still be held back.
                self._doubt = packet
                return
        elif any(self._whole_ns <= command.time_ns < latest_ns for command in known):
            # An earlier command has no answer although no byte of the server is missing since then. The
            # client does not wait for answers, or packets are out of order.
            self._forget_before(began_ns)
            return
        self._forget_before(latest_ns - 1)
        answered = awaited.popleft()
        # A hole directly behind the answered command hides nothing that this answer could belong to.
        while awaited and awaited[0].exchange == _UNKNOWN:
            awaited.popleft()
        self._settle(answered, packet, out)

    def _forget_before(self, time_ns: int) -> None:
        """Drop the commands up to *time_ns*; they get no result."""
        while self._awaited and self._awaited[0].time_ns <= time_ns:
            self._awaited.popleft()

    def _settle(self, awaited: Awaited, packet: _Packet, out: list[Message]) -> None:
        """Use the packet that holds a command's result, or wait for a later one."""
        body, first = packet.body, packet.body[:1]
        self._unsettled = None
        if (
            not packet.truncated
            and (
                (first == b"\xfb" and awaited.command == QUERY)  # LOCAL INFILE: the client's turn
                or (first in (b"\xfe", b"\x01") and awaited.command == CHANGE_USER)  # authentication goes on
                or body[:3] == b"\xff\xff\xff"  # MariaDB's progress report
            )
        ):
            self._unsettled = awaited
            return
        # COM_STMT_PREPARE_OK: status 0, then the number of the statement.
        if awaited.command == PREPARE and first == b"\x00" and len(body) >= 5:
            if len(self.prepared) >= _PREPARED:
                del self.prepared[next(iter(self.prepared))]
            self.prepared[int.from_bytes(body[1:5], "little")] = awaited.text
        if awaited.exchange:
            self._emit(awaited.exchange, packet, out)

    def _emit(self, exchange: int, packet: _Packet, out: list[Message]) -> None:
        body, start, end, truncated = packet
        ok = body[:1] != b"\xff"
        code, text = (0, "") if ok else error_of(body)
        frames = frames_of(start, end)
        out.append(SqlResult(self._connection, exchange, start[0], end[0], frames, ok, code, text, truncated))

    # --- holes and ends ---

    def lose(self, gap: Gap, out: list[Message]) -> None:
        """Continue behind a hole in the server's data."""
        if not gap.size_bytes or gap.since_ns != gap.time_ns:
            # Answers may be missing. Otherwise the snap length cut one segment, and no other answer is.
            self.recent.clear()
            self._gap_open = True
        if not self.deaf and not self._packets.skip(gap.size_bytes):
            self._cut(out)
        elif self._packets.complete:
            self._take(out)
        self._holed = True
        if self._gap_open:
            self.deaf = False

    def end(self, out: list[Message]) -> None:
        """Emit the result that the end of the connection cuts off."""
        if not self.deaf:
            self._cut(out)

    def stop(self) -> None:
        """Stop reading: no later byte of this connection can be decoded."""
        self.deaf = True
        self._awaited.clear()
        self.recent.clear()
        self.prepared.clear()

    def _cut(self, out: list[Message]) -> None:
        """Use the first packet of an answer as far as it is there; its first byte decides the result."""
        packets = self._packets
        if packets.seq == 1 and packets.first_byte >= 0 and not self._login:
            packets.truncated = True
            self._take(out)
        self._leave_step()
        # The next data may begin an answer; data without the form of an answer is skipped.
        self._asked = bool(self._awaited)
