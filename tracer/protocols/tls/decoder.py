"""Decoder of one TLS connection: what its ends say openly, and with keys what they say within.

With keys, records wait until those of both directions are known: hellos may be reordered, and the key log of
a live run may be written later. Records wait up to a number of bytes and a time; then the connection is told
to be dark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar, Protocol

from tracer.model import BOTH, TO_CLIENT, TO_SERVER, Closed, Connection, Data, Frames, Gap, Message, Undecoded
from tracer.protocols.tls.greeting import Greeting
from tracer.protocols.tls.handshake import (
    CLIENT_HELLO,
    END_OF_EARLY_DATA,
    FINISHED,
    KEY_UPDATE,
    SERVER_HELLO,
    SESSION_TICKET,
    Messages,
    session_ticket,
)
from tracer.protocols.tls.keylog import KeyLog
from tracer.protocols.tls.records import (
    APPLICATION,
    CHANGE_CIPHER,
    HANDSHAKE,
    HEAD_BYTES,
    LONGEST_BYTES,
    Missing,
    Record,
    Records,
)

if TYPE_CHECKING:
    from tracer.protocols.tls.opening import Opening
    from tracer.protocols.tls.side import Side

__all__ = ["Begin", "Tls", "Within"]


class Within(Protocol):
    """The decoder of what is within: what `tracer.protocols.Decoder` offers once it is made."""

    def receive(self, data: Data) -> Iterable[Message]:
        """Return the messages that *data* completes."""

    def gap(self, gap: Gap) -> Iterable[Message]:
        """Return the messages that the missing bytes end."""

    def closed(self, closed: Closed) -> Iterable[Message]:
        """Return the messages that the end completes."""


Begin = Callable[[Data], tuple[Within | None, Iterable[Message]]]
"""(first data within) -> the decoder of it, once it is known; messages: why there will be none."""

_HEAD = re.compile(rb"[\x14-\x17]\x03[\x00-\x04]")
_HOLD_BYTES = 256 << 10
"""Records of one connection that wait for their key."""
_HOLD_NS = 10_000_000_000
"""So long records wait for their key."""
_HOLD_RECORDS = 512
_EARLY_BYTES = 64 << 10
"""Early data that wait for the proof that the server took them; servers take 16 KiB by default."""
_Item = Record | Missing


class Tls:
    """Decoder of one TLS connection.

    *keys* open it; None or an empty key log: only what is said openly is told. *begin* chooses the decoder of
    what is within. *turn* is called when a key shows that client and server were mistaken for each other.
    """

    name: ClassVar[str] = "tls"

    @staticmethod
    def recognises(payload: bytes, direction: int) -> int | None:
        """Return the direction in which *payload* travels if it begins with a TLS record, else None.

        A hello shows it; any other record gives *direction* back.
        """
        if len(payload) < HEAD_BYTES + 1 or not _HEAD.match(payload):
            return None
        end = HEAD_BYTES + (payload[3] << 8 | payload[4])
        if not HEAD_BYTES < end <= HEAD_BYTES + LONGEST_BYTES:
            return None
        following = payload[end : end + HEAD_BYTES]
        if len(following) >= 3 and not _HEAD.match(following):
            return None
        if payload[0] == HANDSHAKE:
            return {CLIENT_HELLO: TO_SERVER, SERVER_HELLO: TO_CLIENT}.get(payload[HEAD_BYTES], direction)
        return direction

    def __init__(
        self,
        connection: Connection,
        keys: KeyLog | None = None,
        begin: Begin | None = None,
        turn: Callable[[Connection], None] | None = None,
    ) -> None:
        self._connection = connection
        self._keys = keys or KeyLog()
        self._begin = begin
        self._turn = turn
        in_step = not connection.joined
        self._records = [Records(in_step), Records(in_step)]
        self._greeting = Greeting(connection)
        self._opening: Opening | None = None
        self._sides: list[Side | None] = [None, None]
        self._encrypted = [False, False]
        """The direction has changed to encrypted records (TLS 1.2)."""
        self._lost_hello = connection.joined
        """A hello may be missing: the keys are found by trial."""
        self._held: list[tuple[int, _Item]] = []
        self._held_bytes = 0
        self._held_ns = 0
        self._early: list[Record] = []
        self._early_bytes = 0
        self._messages = (Messages(), Messages())
        """Handshake messages that are encrypted, and those of the server of TLS 1.2."""
        self._inner: Within | None = None
        self._dark = False
        """Nothing is opened any more."""
        self._out: list[Message] = []

    # --- what comes in ---

    def receive(self, data: Data) -> Iterable[Message]:
        """Return what *data* completes: what the ends say openly, and the messages within."""
        if self._dark and self._greeting.told:
            return ()
        if not self._dark and (not self._keys.may_open()):
            self._give_up("tls", data.time_ns, data.frames)
        records = self._records[data.direction]
        for item in records.receive(data):
            # One of the records may show that client and server were mistaken for each other.
            self._take(self._records.index(records), item, data.frames)
        return self._told()

    def gap(self, gap: Gap) -> Iterable[Message]:
        """Return the messages that the missing bytes end."""
        if self._dark and self._greeting.told:
            return ()
        missing = self._records[gap.direction].gap(gap)
        if missing is not None:
            self._take(gap.direction, missing, gap.frames)
        return self._told()

    def closed(self, closed: Closed) -> Iterable[Message]:
        """Return what the end completes; records that still wait are told to be dark."""
        over = closed.how != "fin" or closed.direction == TO_CLIENT
        if over:
            self._out += self._greeting.finish()
            if self._held and not self._dark:
                self._last_look(closed.time_ns, closed.frames)
        if self._inner is not None:
            self._out += self._inner.closed(closed)
        return self._told()

    def _told(self) -> Iterable[Message]:
        told, self._out = self._out, []
        return told

    # --- records ---

    def _take(self, direction: int, item: _Item, frames: Frames) -> None:
        if isinstance(item, Missing):
            self._greeting.gap(direction)
            self._lost_hello = True
        elif not self._greeting.told:
            self._out += self._greeting.receive(direction, item)
        if self._dark:
            return
        if not self._is_encrypted(direction, item):
            if isinstance(item, Record) and direction == TO_CLIENT and item.kind == HANDSHAKE:
                self._learn_ticket(item)
        elif not self._held and self._sides[direction] is not None:
            self._open(direction, item)
        else:
            self._hold(direction, item, frames)

    def _is_encrypted(self, direction: int, item: _Item) -> bool:
        """Return whether *item* is to be opened; a change of ciphers is remembered."""
        if item.kind == CHANGE_CIPHER:
            self._encrypted[direction] = True
            return False
        if isinstance(item, Missing) and not item.kind:
            return True
        return self._encrypted[direction] or item.kind == APPLICATION

    def _hold(self, direction: int, item: _Item, frames: Frames) -> None:
        """Keep *item* until its key is known, and look for the key."""
        keys = self._keys
        size_bytes = len(item.body) if isinstance(item, Record) else 0
        self._held.append((direction, item))
        self._held_bytes += size_bytes
        keys.held_bytes += size_bytes
        self._held_ns = self._held_ns or item.time_ns
        if isinstance(item, Record):
            self._look(direction, item)
            if self._is_ready():
                self._release()
                return
        reason = self._opening.reason if self._opening is not None else ""
        too_much = self._held_bytes > _HOLD_BYTES or keys.held_bytes > keys.most_held_bytes
        too_long = item.time_ns - self._held_ns > _HOLD_NS and self._sides == [None, None]
        if reason or too_much or too_long or len(self._held) > _HOLD_RECORDS:
            self._last_look(item.time_ns, frames)

    def _last_look(self, time_ns: int, frames: Frames) -> None:
        """Look for the keys of what waits for the last time; open it, or say that there are none."""
        last = {self._records[way]: item for way, item in self._held if isinstance(item, Record)}
        for records, item in last.items():
            direction = self._records.index(records)
            if self._sides[direction] is None:
                self._look(direction, item, is_last=True)
        if all(self._sides[direction] is not None for direction in dict(self._held)):
            self._release()
        else:
            self._give_up(self._why(), time_ns, frames)

    def _is_ready(self) -> bool:
        """Return whether the keys are there of all that waits.

        One side alone is not opened: its requests would look as if nobody had answered them.
        """
        waits = {direction for direction, _ in self._held}
        if self._connection.seen == BOTH or not self._lost_hello:
            waits = {TO_SERVER, TO_CLIENT}
        return all(self._sides[direction] is not None for direction in waits)

    def _look(self, direction: int, record: Record, is_last: bool = False) -> None:
        """Look for the keys, now that *record* waits for that of its *direction*; *is_last*: none follows."""
        if self._opening is None:
            # Imported here: the library is needed only where there are keys.
            from tracer.protocols.tls.opening import Opening

            self._opening = Opening(self._keys, self._greeting, self._connection.joined)
        opening, greeting = self._opening, self._greeting
        if greeting.client is not None and greeting.server is not None:
            self._sides[:] = opening.by_hellos(greeting.client, greeting.server)
        elif self._lost_hello and self._sides[direction] is None:
            is_sure = self._connection.certain or opening.random
            labels = (direction,) if is_sure else (direction, 1 - direction)
            before = sum(d == direction and isinstance(item, Record) for d, item in self._held) - 1
            side = opening.by_trial(direction, record, labels, before, is_last)
            if side is not None and opening.label != direction:
                self._swap()
                direction = 1 - direction
            self._sides[direction] = side

    def _swap(self) -> None:
        """Client and server were mistaken for each other."""
        if self._turn is not None:
            self._turn(self._connection)
        self._records.reverse()
        self._sides.reverse()
        self._held = [(1 - direction, item) for direction, item in self._held]

    def _release(self) -> None:
        """Open what has waited."""
        held, self._held = self._held, []
        self._drop_held()
        for direction, item in held:
            if not self._dark:
                self._open(direction, item)

    def _drop_held(self) -> None:
        self._keys.held_bytes -= self._held_bytes
        self._held_bytes = self._held_ns = 0

    # --- opened records ---

    def _open(self, direction: int, item: _Item) -> None:
        side, opening = self._sides[direction], self._opening
        if side is None or opening is None:
            return
        if isinstance(item, Missing):
            self._within_gap(direction, item.time_ns, side.size_bytes(item))
            side.miss(item)
            return
        if opening.is_1_3 and item.kind != APPLICATION:
            return
        found = side.open(item)
        if found is None:
            self._within_gap(direction, item.time_ns, side.size_of(item))
            if side.is_lost:
                self._give_up("tls: no key opens its records", item.time_ns, item.frames)
            return
        kind, content = found
        if kind == HANDSHAKE:
            if opening.is_1_3:
                self._handshake(direction, content, side)
        elif kind == APPLICATION and content:
            if opening.has_early_data and direction == TO_SERVER and not side.epoch:
                self._keep_early(item._replace(body=content))
            else:
                self._within(direction, content, item)

    def _handshake(self, direction: int, content: bytes, side: Side) -> None:
        """Follow the encrypted messages of TLS 1.3 that change the key."""
        for kind, _ in self._messages[direction].receive(content):
            if kind == END_OF_EARLY_DATA:
                early, self._early = self._early, []
                for record in early:
                    self._within(direction, record.body, record)
            if kind in (END_OF_EARLY_DATA, FINISHED, KEY_UPDATE):
                side.advance()
                # What the server did not take, the client sends again.
                self._early.clear()

    def _keep_early(self, record: Record) -> None:
        self._early_bytes += len(record.body)
        if self._early_bytes <= _EARLY_BYTES:
            self._early.append(record)

    def _learn_ticket(self, record: Record) -> None:
        """Remember the session of TLS 1.2, which may go on in another connection."""
        opening, keys, server = self._opening, self._keys, self._greeting.server
        if server is None or opening is None or not opening.master:
            return
        for kind, body in self._messages[TO_CLIENT].receive(record.body):
            if kind == SESSION_TICKET:
                keys.remember(session_ticket(body), opening.master)

    # --- what is within ---

    def _within(self, direction: int, content: bytes, record: Record) -> None:
        """Hand *content* on to the decoder of what is within."""
        data = Data(self._connection, direction, record.time_ns, content, record.frames)
        if self._inner is None:
            if self._begin is None:
                return
            self._inner, messages = self._begin(data)
            self._out += messages
            if self._inner is None:
                if messages:
                    self._darken()
                return
        self._out += self._inner.receive(data)
        # All records are needed, whatever the decoder has a use for.
        self._connection.deaf = False

    def _within_gap(self, direction: int, time_ns: int, size_bytes: int) -> None:
        if self._inner is not None:
            self._out += self._inner.gap(Gap(self._connection, direction, time_ns, size_bytes))

    # --- giving up ---

    def _why(self) -> str:
        return self._opening.why() if self._opening is not None else "tls: no key"

    def _give_up(self, reason: str, time_ns: int, frames: Frames) -> None:
        """Open nothing more, and say why."""
        self._darken()
        self._out.append(Undecoded(self._connection, time_ns, reason, frames))

    def _darken(self) -> None:
        self._dark = True
        self._held.clear()
        self._drop_held()
        self._sides = [None, None]
