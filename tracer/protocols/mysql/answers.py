"""The server's side of a MySQL connection: which command an answer belongs to, and whether it worked.

Of an answer only the first packet is read. While no answer is wanted, the server is not listened to.

Time pairs: a client sends no command before it has the whole answer to the one before, but for drivers
that send a few in one go. So the first answer that begins behind a command is that command's, if the
server's bytes are whole from the command on. Where they are not, the answer behind the hole belongs to
the latest command before it, and that is only known for sure when a later command is there and no
hole on the client's side: until then the answer is in doubt and kept back. A wrong pair is worse than
none: what stays ambiguous is left without a result.
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
"""Kept of an answer that nobody awaits."""
_RECENT = 96
"""So many of them: reassembly waits 48 packets for a lost one, and there may be two in a row."""
_AWAITED = 64
"""More commands do not wait for an answer, unless the server's side is not in the capture."""
_PREPARED = 512
"""Statements remembered of a connection; MySQL allows 16382 for the whole server."""
_FIRST_PACKET = 4_096
"""Kept of an answer's first packet: the longest is an error's text."""

_UNKNOWN = -1
"""The exchange that stands for commands in a hole."""

Mark = tuple[int, Frames]
"""Time and frames of some bytes."""


class Awaited(NamedTuple):
    """A command whose answer has not come; `exchange` is 0 if nobody wants it."""

    exchange: int
    time_ns: int
    command: int
    text: bytes


class _Packet(NamedTuple):
    """A packet of the server that decides about a command."""

    body: bytes
    start: Mark
    end: Mark
    truncated: bool


def frames_of(start: Mark, end: Mark) -> Frames:
    """Return the evidence of what lies between: the last frame first."""
    return end[1] if start[1] == end[1] else end[1] + start[1]


class Answers:
    """Reads the server's side of one connection; what it finds is appended to the list it is given."""

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
        """Nothing that the server says is wanted."""
        self.offered: int | None = None
        """The server's capability flags, once seen."""
        self.prepared: dict[int, bytes] = {}
        """Statement number -> text."""
        self.recent: deque[tuple[int, bytes, Frames]] = deque(maxlen=_RECENT)
        """What may have begun an answer, for commands that reach us late."""
        self._packets = Packets(_FIRST_PACKET)
        self._login = not joined
        """Before the first command: greeting and authentication."""
        self._in_step = not joined
        """The server's next byte begins or continues a packet."""
        self._asked = False
        """A command was sent since the server was heard: its next data begins an answer."""
        self._answer_seq = -1
        """Of the packet before."""
        self._awaited: deque[Awaited] = deque(maxlen=_AWAITED)
        self._unsettled: Awaited | None = None
        """Its answer has begun, and a later packet decides."""
        self._holed = joined
        """Bytes are missing: what begins an answer must also look like it."""
        self._gap_open = False
        """The next data is the first one behind a hole."""
        self._whole_ns = 0
        """Since when the server's bytes are whole."""
        self._doubt: _Packet | None = None

    # --- what the client does ---

    @property
    def awaits(self) -> bool:
        """Whether a command has no answer yet; then the ones behind it matter, too."""
        return bool(self._awaited)

    def begin_commands(self) -> None:
        """The login is over, or out of sight: what follows is commands."""
        self._login = False
        self._leave_step()
        self.deaf = not self._awaited and not self._gap_open

    def expect(self, awaited: Awaited, out: list[Message]) -> None:
        """Take a command that the client has sent and that will be answered."""
        recent = self.recent
        if self._doubt is None and recent and recent[-1][0] > awaited.time_ns:
            # Reassembly held the command back, waiting for a lost segment, and its answer was faster.
            self._answer_late(awaited, out)
            return
        if self._awaited and awaited.time_ns < self._awaited[-1].time_ns:
            # The capture is out of order here; time says nothing.
            self._awaited.clear()
            self._doubt = None
            self.deaf = not self._gap_open
            return
        self._awaited.append(awaited)
        self._asked = True
        self.deaf = False
        self._reconsider(out)

    def _answer_late(self, late: Awaited, out: list[Message]) -> None:
        """Find the answer to a command among those that came before it reached us."""
        oldest_ns = self.recent[0][0] if len(self.recent) == _RECENT else 0
        if late.time_ns < max(self._whole_ns, oldest_ns):
            # Its answer may be in a hole, or forgotten.
            return
        before, asked, deaf = self._awaited, self._asked, self.deaf
        for time_ns, payload, frames in tuple(self.recent):
            if time_ns > late.time_ns:
                self._awaited, self._asked, self.deaf = deque([late]), True, False
                self.hear(Data(self._connection, TO_CLIENT, time_ns, payload, frames), out)
                self._leave_step()
                break
        self._awaited, self._asked, self.deaf = before, asked, deaf

    def lose_commands(self, gap: Gap, out: list[Message]) -> None:
        """Take note of a hole on the client's side, where commands may have been."""
        if self._awaited:
            self._awaited.append(Awaited(_UNKNOWN, gap.since_ns + 1, -1, b""))
            self._reconsider(out)

    def end_commands(self, out: list[Message]) -> None:
        """The client says no more: what is in doubt was its last command's answer."""
        if self._doubt is not None:
            self._awaited.append(Awaited(_UNKNOWN, 1 << 62, -1, b""))
            self._reconsider(out)

    def _reconsider(self, out: list[Message]) -> None:
        """Look again at an answer in doubt, and at those behind it."""
        doubt = self._doubt
        if doubt is None:
            return
        self._doubt = None
        self._pair(doubt, out)
        if self._doubt is None:
            recent = tuple(self.recent)
            self.recent.clear()
            for time_ns, payload, frames in recent:
                self._asked = True
                self.hear(Data(self._connection, TO_CLIENT, time_ns, payload, frames), out)
            self._leave_step()
            self._asked = bool(self._awaited)
            self.deaf = not self._awaited

    # --- what the server says ---

    def hear(self, data: Data, out: list[Message]) -> None:
        """Read *data* of the server, as far as an answer is awaited."""
        time_ns, payload, at, packets = data.time_ns, data.payload, 0, self._packets
        if self._gap_open:
            self._gap_open = False
            self._whole_ns = time_ns
        if not self._login and not self._heeds(time_ns):
            self.deaf = not self._awaited
            if payload[3:4] == b"\x01":
                self.recent.append((time_ns, payload[:RECENT_BYTES], data.frames))
            return
        packets.mark = (time_ns, data.frames)
        while at < len(payload) and not self.deaf:
            at = packets.feed(payload, at)
            if not self._in_step and packets.first_byte >= 0:
                if packets.seq != 1 or (self._holed and not is_answer(packets.size, packets.first_byte)):
                    # The rest of something else; the answer will begin a later piece of data.
                    packets.reset()
                    self._asked = True
                    return
                self._in_step = True
            if packets.complete:
                self._take(out)

    def _heeds(self, time_ns: int) -> bool:
        """Return whether data of this time is, or goes on with, an answer that is awaited."""
        if self._doubt is not None or not (self._awaited or self._unsettled):
            return False
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
        """Take one whole packet of the server."""
        packets = self._packets
        packet = _Packet(packets.body(), packets.start, packets.mark, packets.truncated)
        seq = packets.seq
        # The numbers of a long answer's packets wrap.
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
        """Take a packet of greeting or authentication."""
        first = packet.body[:1]
        if first == b"\xff":
            self._emit(0, packet, out)
        elif first == b"\x0a" and self.offered is None:
            self.offered = greeting_capabilities(packet.body)
        elif first == b"\x00":
            # Logged in. Commands follow, and they will say whether they are wanted.
            self.deaf = True

    def _pair(self, packet: _Packet, out: list[Message]) -> None:
        """Give an answer to the command it belongs to; of those sent in one go, to the first."""
        awaited, began_ns = self._awaited, packet.start[0]
        before = [one for one in awaited if one.time_ns <= began_ns]
        known = [one for one in before if one.exchange != _UNKNOWN]
        if not known:
            return
        latest_ns = known[-1].time_ns
        if latest_ns < self._whole_ns:
            # Earlier answers may lie in the server's hole: this is the latest command's answer, if
            # that is known to be the latest one.
            if before[-1].exchange == _UNKNOWN:
                self._forget_before(began_ns)
                return
            if len(before) == len(awaited):
                self._doubt = packet
                return
        elif any(self._whole_ns <= one.time_ns < latest_ns for one in known):
            # The one before had no answer, and no hole: commands do not wait, or packets are out of order.
            self._forget_before(began_ns)
            return
        self._forget_before(latest_ns - 1)
        answered = awaited.popleft()
        while awaited and awaited[0].exchange == _UNKNOWN:
            awaited.popleft()
        self._settle(answered, packet, out)

    def _forget_before(self, time_ns: int) -> None:
        """Leave the commands up to *time_ns* without an answer."""
        while self._awaited and self._awaited[0].time_ns <= time_ns:
            self._awaited.popleft()

    def _settle(self, awaited: Awaited, packet: _Packet, out: list[Message]) -> None:
        """Take the packet that decides about a command, or note that a later one will."""
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
        """Go on behind a hole in the server's data."""
        if not gap.size_bytes or gap.since_ns != gap.time_ns:
            # Else the snap length cut one segment, and no other answer is gone.
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
        """Nothing more of this connection can be read."""
        self.deaf = True
        self._awaited.clear()
        self.recent.clear()
        self.prepared.clear()

    def _cut(self, out: list[Message]) -> None:
        """Take the first packet of an answer as far as it is there."""
        packets = self._packets
        if packets.seq == 1 and packets.first_byte >= 0 and not self._login:
            packets.truncated = True
            self._take(out)
        self._leave_step()
        # Whatever comes next may begin an answer; what does not look like one is passed over.
        self._asked = bool(self._awaited)
