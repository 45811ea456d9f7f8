"""Which HTTP response answers which request, also where parts of the traffic are missing."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["Exchanges", "Open"]

_MOST_OPEN = 256
"""Unpaired requests or responses that are remembered; more happen only where one direction is missing."""


class Open(NamedTuple):
    """A request without its response yet, or a response without its request."""

    exchange: int
    time_ns: int
    method: str = ""
    target: str = ""
    after_hole: bool = False


class Exchanges:
    """Gives requests and responses of one connection their numbers.

    While both directions are whole from their first byte the n-th response answers the n-th request,
    in whatever order the two directions reach us. After a hole that may hold whole messages (and from
    the start on a connection that we joined) time decides: without pipelining the answer to a request
    begins after it and before the next one. Where pipelining was seen, too, nothing is paired after
    such a hole: a wrong pair is worse than none.
    """

    __slots__ = ("_aligned", "_last", "_orphans", "_outstanding", "_pipelined", "_realign")

    def __init__(self, joined: bool) -> None:
        self._aligned = not joined
        self._realign = joined
        """The next response is the first one behind a hole: earlier answers may lie in the hole."""
        self._pipelined = False
        self._last = 0
        self._outstanding: deque[Open] = deque()
        self._orphans: deque[Open] = deque()

    def request(self, time_ns: int, method: str, target: str) -> int:
        """Return the exchange of a request whose first byte was seen at *time_ns*.

        It may be that of a response that reached us earlier: reassembly holds a direction back while
        it waits for a lost segment, and the other direction goes on.
        """
        orphans = self._orphans
        if self._aligned:
            if orphans:
                return orphans.popleft().exchange
        elif not self._pipelined:
            while orphans and orphans[0].time_ns < time_ns:
                orphans.popleft()
            if orphans and not orphans[0].after_hole:
                return orphans.popleft().exchange
        self._last += 1
        if self._aligned or not self._pipelined:
            self._outstanding.append(Open(self._last, time_ns, method, target))
            self._bound(self._outstanding)
        return self._last

    def response(self, time_ns: int) -> Open:
        """Return the request (its method '' if unknown) that a response from *time_ns* answers."""
        outstanding = self._outstanding
        after_hole, self._realign = self._realign, False
        if self._aligned:
            if outstanding:
                answered = outstanding.popleft()
                if outstanding and outstanding[0].time_ns < time_ns:
                    self._pipelined = True
                return answered
        elif outstanding and outstanding[0].time_ns <= time_ns:
            answered = outstanding.popleft()
            while after_hole and outstanding and outstanding[0].time_ns <= time_ns:
                answered = outstanding.popleft()
            return answered
        self._last += 1
        orphan = Open(self._last, time_ns, after_hole=after_hole)
        self._orphans.append(orphan)
        self._bound(self._orphans)
        return orphan

    def lose(self, responses: bool) -> None:
        """Take note that messages of one direction, *responses* or requests, may be gone."""
        self._aligned = False
        if self._pipelined:
            self._outstanding.clear()
            self._orphans.clear()
        if responses:
            self._realign = True

    def _bound(self, opened: deque[Open]) -> None:
        if len(opened) > _MOST_OPEN:
            # Counting needs all of them, time does not.
            self._aligned = False
            opened.popleft()
