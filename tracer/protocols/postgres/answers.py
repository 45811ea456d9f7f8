"""The server's side of a PostgreSQL connection: pairing of answers with statements, and how they ended.

A *cycle* is what the server answers with one ReadyForQuery: a Query or a FunctionCall, or the messages of the
extended protocol up to Sync. While no answer is wanted, the server's bytes are skipped.

While no byte is missing, cycles are answered in order. Behind a hole of the server they are paired by time:
a client that sends nothing before it has the whole answer (most do) gets the answer to its latest cycle. One
that sends cycles ahead (a pipeline) gets none then, until both sides were silent for a while. What a later
message of the client could refute is held back until that message is there: a wrong pair is worse than none.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from tracer.model import TO_CLIENT, Connection, Data, Frames, Gap, Message, SqlResult
from tracer.protocols.postgres.fields import error_of
from tracer.protocols.postgres.framing import FROM_SERVER, Splitter, are_answers, is_head, ready_at

__all__ = ["RECENT_BYTES", "Answers", "Cycle", "Item", "Mark", "frames_of"]

RECENT_BYTES = 512
"""Bytes that are kept of an answer which no cycle awaits yet."""
_RECENT = 96
"""Number of such answers: reassembly waits 48 packets for a lost one, and two may be lost in a row."""
_MOST_CYCLES, _MOST_ITEMS = 256, 4_096
"""Cycles that wait for their answer, and statements of one cycle. There are more only if the server's side is
not in the capture, or floods."""
_PARSED = chr(0x31)
"""ParseComplete, a digit."""
_ERROR = 0x45
_QUIET_NS = 1_000_000_000
"""Silence behind a ReadyForQuery after which a pipeline has been answered completely."""

Mark = tuple[int, Frames]
"""Time and frames of a byte."""


def frames_of(start: Mark, end: Mark) -> Frames:
    """Return the frames of a message from *start* to *end*: the last one first, as Wireshark shows it."""
    return end[1] if start[1] == end[1] else end[1] + start[1]


_NOT_EXECUTED = "not executed: a statement before it failed"


@dataclass(slots=True, eq=False)
class Item:
    """A Parse or an Execute that waits for its completion."""

    executes: bool
    exchange: int = 0
    """0 if its result is not wanted."""


@dataclass(slots=True, eq=False)
class Cycle:
    """What one ReadyForQuery answers."""

    time_ns: int
    simple: bool
    """A Query or FunctionCall: one item, several completions."""
    items: deque[Item] = field(default_factory=deque)
    closed: bool = False
    """Its Sync was seen: no item follows."""
    failed: int | str = 0
    """The code of its ErrorResponse: what comes up to its Sync is not executed, and not answered either."""


class _Result(NamedTuple):
    """What is known of a simple query's result before its ReadyForQuery."""

    start: Mark
    end: Mark
    truncated: bool


class Answers:
    """Reads the server's side of one connection; results are appended to the list that is passed in."""

    def __init__(self, connection: Connection, joined: bool) -> None:
        self._connection = connection
        self.deaf = joined
        """No byte of the server is wanted now, so they are skipped."""
        self.asked_for_encryption = 0
        """SSLRequest and GSSENCRequest that are not answered yet."""
        self.encrypted = ""
        """What the server has agreed to: tls or gssapi."""
        self.recent: deque[tuple[int, bytes, Frames]] = deque(maxlen=_RECENT)
        """Data that may begin an answer (time, first bytes, frames), for cycles that reach us late."""
        self._split = Splitter(FROM_SERVER)
        self._login = not joined
        self._in_step = not joined
        """The server's next byte begins or continues a message."""
        self._asked = False
        """A cycle has begun since the latest data, and none was open before."""
        self._cycles: deque[Cycle] = deque()
        self._current: Cycle | None = None
        """The cycle whose answer has begun."""
        self._simple: _Result | None = None
        self._began: Mark = (0, ())
        """Start of the answer of `_current`."""
        self._in_order = True
        """No byte is missing since the cycles that wait, so they are answered in order."""
        self._pipelines = False
        """The client sends cycles before it has the answers to earlier ones."""
        self._whole_ns = 0
        """Time since when no byte of the server is missing."""
        self._gap_open = False
        self._hidden: deque[int] = deque(maxlen=_RECENT)
        """Times behind which the client's holes may hide cycles."""
        self._ready_ns = 0
        """Time of the last ReadyForQuery."""
        self._doubt: list[tuple[int, SqlResult]] = []
        """Results behind a hole: (start of the answer, result); a later message of the client decides."""

    # --- the client's side ---

    @property
    def awaits(self) -> bool:
        """Whether a cycle has no answer yet; pairing then needs the cycles behind it, too."""
        return bool(self._cycles)

    @property
    def is_login(self) -> bool:
        """Whether no ReadyForQuery has ended the login."""
        return self._login

    def begin(self, time_ns: int, simple: bool, out: list[Message]) -> Cycle:
        """Add a cycle, which begins at *time_ns*."""
        self._login = False
        self._decide(time_ns, out)
        cycles = self._cycles
        cycle = Cycle(time_ns, simple, closed=simple)
        last = cycles[-1] if cycles else None
        if last is not None and last.time_ns == time_ns:
            self._pipelines = True
        elif last is not None and time_ns < last.time_ns:
            # The capture is out of order here, so times cannot pair the open cycles.
            self._forget()
        elif not self._in_order and time_ns - self._ready_ns > _QUIET_NS and not self._gap_open:
            cycles.clear()
            self._in_order = True
        if len(cycles) >= _MOST_CYCLES:
            self._forget()
        if not cycles and self._current is None:
            self._leave_step()
            self._asked = True
        cycles.append(cycle)
        self.deaf = False
        return cycle

    def seal(self, cycle: Cycle, out: list[Message]) -> None:
        """End *cycle* on the client's side, and search its answer if that came before it reached us."""
        cycle.closed = True
        if self.recent and self.recent[-1][0] > cycle.time_ns and len(self._cycles) == 1:
            self._answer_late(cycle, out)

    def _answer_late(self, cycle: Cycle, out: list[Message]) -> None:
        oldest_ns = self.recent[0][0] if len(self.recent) == _RECENT else 0
        late = [data for data in self.recent if data[0] > cycle.time_ns]
        self.recent.clear()
        if cycle.time_ns < max(self._whole_ns, oldest_ns) or not self._in_order:
            # Its answer may be in a hole, or dropped from `recent`.
            self._forget()
            return
        for time_ns, payload, frames in late:
            if self._cycles:
                self.receive(Data(self._connection, TO_CLIENT, time_ns, payload, frames), out)
        # The data are kept in part, and the next ones begin a message.
        if self._cycles and self._current is cycle:
            self._cut(out)
        self._forget()

    def add(self, cycle: Cycle, item: Item) -> None:
        """Add a statement to *cycle*."""
        if len(cycle.items) < _MOST_ITEMS:
            cycle.items.append(item)

    def lose_commands(self, gap: Gap) -> None:
        """Record a hole on the client's side, which may hide cycles."""
        self._hidden.append(gap.since_ns + 1)
        self._doubt = [(start_ns, result) for start_ns, result in self._doubt if start_ns <= gap.since_ns]
        if self._pipelines or any(not cycle.closed for cycle in self._cycles):
            self._forget()

    def _decide(self, time_ns: int, out: list[Message]) -> None:
        """Emit the results that a cycle of *time_ns* confirms, and drop those that it refutes."""
        if self._doubt:
            out += [result for start_ns, result in self._doubt if time_ns > start_ns]
            self._doubt.clear()

    def _forget(self) -> None:
        """Give up the results of the cycles that wait."""
        self._cycles.clear()
        self._current = self._simple = None
        self._leave_step()
        # Those of a pipeline are still to be answered, so the next answer is not the next cycle's.
        self._in_order = not self._pipelines
        self.deaf = not self._gap_open

    # --- the server's side ---

    def receive(self, data: Data, out: list[Message]) -> None:
        """Read *data* of the server while an answer is awaited, else remember its first bytes."""
        _, _, time_ns, payload, frames = data
        if self._gap_open:
            self._gap_open = False
            self._whole_ns = time_ns
        at = 0
        if self._login and self.asked_for_encryption and not self._split.busy:
            at = self._answer_to_request(payload)
            if self.encrypted:
                return
        elif not self._login and not self._cycles:
            self.deaf = True
            self.recent.append((time_ns, payload[:RECENT_BYTES], frames))
            return
        split = self._split
        split.mark = (time_ns, frames)
        if not self._in_step:
            at = self._find_step(payload)
        while at < len(payload):
            at = split.feed(payload, at)
            if split.broken:
                self._lose_step(out)
                return
            if split.complete:
                self._take(out)
                if self.deaf:
                    return

    def _answer_to_request(self, payload: bytes) -> int:
        """Read the single byte that answers a request for encryption; return the offset behind it."""
        first = payload[:1]
        self.asked_for_encryption -= 1
        if first in (b"S", b"G") and len(payload) == 1:
            self.encrypted = "tls" if first == b"S" else "gssapi"
        # An old server answers with an ErrorResponse.
        return int(first in (b"N", b"S", b"G") and payload[1:2] != b"\0")

    def _find_step(self, payload: bytes) -> int:
        """Return the offset at which a message begins; the length of *payload* where it is not known."""
        # The first data behind a cycle begin its answer: less is demanded of them.
        asked, self._asked = self._asked and self._in_order, False
        if are_answers(payload) or (asked and is_head(payload, FROM_SERVER)):
            self._in_step = True
            return 0
        ready = ready_at(payload)
        if ready < 0:
            return len(payload)
        self._in_step = True
        return ready

    def _leave_step(self) -> None:
        self._split.reset()
        self._in_step = False

    def _take(self, out: list[Message]) -> None:
        """Use one message of the server."""
        split = self._split
        kind, start, end, truncated = chr(split.kind), split.start, split.mark, split.truncated
        body = split.body()
        split.reset()
        if kind in "SNA":
            # They may come at any time, and belong to no cycle.
            return
        if self._login:
            self._take_login(kind, body, start, end, truncated, out)
            return
        if self._current is None:
            self._choose(start)
        cycle = self._current
        if cycle is None:
            if kind == "Z":
                self._ready_ns = end[0]
            return
        if kind == "Z":
            self._end_cycle(cycle, end, out)
        elif kind == "E":
            self._fail(cycle, body, start, end, truncated, out)
        elif cycle.simple:
            if kind in "CITDGHWV":
                self._simple = _Result(self._began, end, kind in "TDGHW")
        elif kind == _PARSED:
            if cycle.items and not cycle.items[0].executes:
                self._settle(cycle.items.popleft(), start, end, out)
        elif kind in "CIs":
            while cycle.items and not cycle.items[0].executes:
                cycle.items.popleft()
            if cycle.items:
                self._settle(cycle.items.popleft(), self._began, end, out)

    def _take_login(
        self, kind: str, body: bytes, start: Mark, end: Mark, truncated: bool, out: list[Message]
    ) -> None:
        """Use a message before the first ReadyForQuery: connection or login may be refused."""
        if kind == "Z":
            self._login = False
            self.deaf = True
            self._ready_ns = end[0]
        elif kind == "E":
            code, text = error_of(body)
            self._out(Item(True, 0), start, end, (False, code, text, truncated), out)

    def _choose(self, start: Mark) -> None:
        """Decide to which cycle the answer that begins at *start* belongs."""
        cycles, began_ns = self._cycles, start[0]
        before = [cycle for cycle in cycles if cycle.time_ns <= began_ns]
        self._began = start
        if not before:
            return
        if self._in_order:
            # The first one has waited while later ones were sent.
            self._pipelines = self._pipelines or len(before) > 1
            self._current = cycles[0]
            return
        for _ in before[:-1]:
            cycles.popleft()
        latest_ns = before[-1].time_ns
        if self._pipelines or any(latest_ns <= hidden_ns <= began_ns for hidden_ns in self._hidden):
            cycles.popleft()
            return
        self._current = before[-1]

    def _fail(
        self, cycle: Cycle, body: bytes, start: Mark, end: Mark, truncated: bool, out: list[Message]
    ) -> None:
        """Use an ErrorResponse: the first open statement failed, and those behind it are not executed."""
        code, text = error_of(body)
        self._simple = None
        cycle.failed = code
        while cycle.items:
            item = cycle.items.popleft()
            self._out(item, start, end, (False, code, text, truncated), out)
            # A Parse and its Execute are one statement.
            if item.executes or item.exchange:
                text = _NOT_EXECUTED

    def _end_cycle(self, cycle: Cycle, end: Mark, out: list[Message]) -> None:
        """Use the ReadyForQuery of *cycle*."""
        if cycle.simple and cycle.items and self._simple is not None:
            self._settle(cycle.items.popleft(), self._simple.start, self._simple.end, out)
        while cycle.failed and cycle.items:
            # Sent before the client had read of the error.
            self._out(cycle.items.popleft(), end, end, (False, cycle.failed, _NOT_EXECUTED, False), out)
        self._current = self._simple = None
        self._ready_ns = end[0]
        if self._cycles and self._cycles[0] is cycle:
            self._cycles.popleft()
        if not self._cycles:
            self.deaf = True
            self._leave_step()
            # All is answered: the next cycle is the next one to be answered.
            self._in_order = self._in_order or not self._pipelines

    def _settle(self, item: Item, start: Mark, end: Mark, out: list[Message], cut: bool = False) -> None:
        self._out(item, start, end, (True, 0, "", cut), out)

    def _out(
        self,
        item: Item,
        start: Mark,
        end: Mark,
        what: tuple[bool, int | str, str, bool],
        out: list[Message],
    ) -> None:
        if not item.exchange and not self._login:
            return
        frames = frames_of(start, end)
        result = SqlResult(self._connection, item.exchange, start[0], end[0], frames, *what)
        if self._in_order:
            out.append(result)
        else:
            self._doubt.append((start[0], result))

    # --- holes and ends ---

    def lose(self, gap: Gap, out: list[Message]) -> None:
        """Continue behind a hole in the server's data."""
        self.recent.clear()
        self._gap_open = True
        if self._in_step and self._split.skip(gap.size_bytes):
            if self._split.complete:
                self._take(out)
            return
        self._lose_step(out)

    def _lose_step(self, out: list[Message]) -> None:
        self._cut(out)
        self._leave_step()
        self._in_order = False
        self._login = False
        self.deaf = not self._cycles and not self._gap_open

    def _cut(self, out: list[Message]) -> None:
        """Use what is there of an answer: completed, or its rows have begun."""
        cycle, split = self._current, self._split
        if split.kind == _ERROR and not split.truncated and cycle is not None and split.body():
            split.truncated = True
            self._take(out)
        elif cycle is not None and cycle.items and cycle.simple and self._simple is not None:
            simple = self._simple
            self._settle(cycle.items.popleft(), simple.start, simple.end, out, simple.truncated)
        self._current = self._simple = None
        if cycle is not None and self._cycles and self._cycles[0] is cycle:
            self._cycles.popleft()

    def end_commands(self, out: list[Message]) -> None:
        """Record the end of the client's side: nothing can refute the results in doubt any more."""
        self._decide(1 << 63, out)

    def end(self, out: list[Message]) -> None:
        """Emit the result that the end of the connection cuts off."""
        self._cut(out)

    def stop(self) -> None:
        """Stop reading: no later byte of this connection can be decoded."""
        self.deaf = True
        self._cycles.clear()
        self._current = None
        self.recent.clear()
