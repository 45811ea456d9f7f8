"""Which HTTP response answers which request, also where parts of the traffic are missing."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Exchanges", "Open"]

_MOST_OPEN = 256
"""Unpaired requests or responses that are remembered; more happen only where one direction is missing."""
_UNKNOWN = 0
"""The exchange that stands for requests in a hole."""


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
    in whatever order the two directions reach us. Once whole messages may be missing (and from the
    start on a connection that we joined) time decides: a client that does not pipeline sends no request
    before it has the answer to the one before, so the first response that begins behind a request is
    its answer. Behind a hole among the responses it is the latest request's, if a later request
    shows that it was the latest. What stays open is not paired: a wrong pair is worse than none.
    """

    __slots__ = ("_aligned", "_answered_ns", "_holed", "_joined", "_last", "_orphans", "_outstanding",
                 "_pipelined")  # fmt: skip

    def __init__(self, joined: bool) -> None:
        self._aligned = not joined
        self._joined = joined
        """No response was seen yet on a connection that began before the capture."""
        self._holed = False
        """The next response is the first one behind a hole: earlier answers may lie in the hole."""
        self._pipelined = False
        self._answered_ns = 0
        """When the latest response began."""
        self._last = 0
        # Lists: nearly always short, and an empty deque takes 600 bytes.
        self._outstanding: list[Open] = []
        self._orphans: list[Open] = []

    def request(self, time_ns: int, method: str, target: str) -> int:
        """Return the exchange of a request whose first byte was seen at *time_ns*.

        It may be that of a response that reached us earlier: reassembly holds a direction back while
        it waits for a lost segment, and the other direction goes on.
        """
        orphans = self._orphans
        if self._aligned:
            if orphans:
                return orphans.pop(0).exchange
        elif not self._pipelined:
            while orphans and orphans[0].time_ns < time_ns:
                orphans.pop(0)
            if orphans and not orphans[0].after_hole:
                return orphans.pop(0).exchange
        self._last += 1
        # Out of order a request that is older than the latest response will have no other.
        if self._aligned or (not self._pipelined and time_ns >= self._answered_ns):
            self._outstanding.append(Open(self._last, time_ns, method, target))
            self._bound(self._outstanding)
        return self._last

    def response(self, time_ns: int) -> Open:
        """Return the request (its method '' if unknown) that a response from *time_ns* answers."""
        answered = self._counted(time_ns) if self._aligned else self._timed(time_ns)
        after_hole, self._holed, self._joined = self._holed, False, False
        self._answered_ns = time_ns
        if answered is None:
            self._last += 1
            answered = Open(self._last, time_ns, after_hole=after_hole)
            self._orphans.append(answered)
            self._bound(self._orphans)
        return answered

    def _counted(self, time_ns: int) -> Open | None:
        outstanding = self._outstanding
        if not outstanding:
            return None
        answered = outstanding.pop(0)
        if outstanding and outstanding[0].time_ns < time_ns:
            self._pipelined = True
        return answered

    def _timed(self, time_ns: int) -> Open | None:
        outstanding = self._outstanding
        before: list[Open] = []
        while outstanding and outstanding[0].time_ns <= time_ns:
            before.append(outstanding.pop(0))
        known = [request for request in before if request.exchange]
        if not known:
            return None
        if self._holed:
            return known[-1] if outstanding and before[-1].exchange else None
        # Two without a hole: it does pipeline, or the capture is out of order.
        return known[-1] if len(known) == 1 or self._joined else None

    def lose(self, responses: bool, since_ns: int, whole: bool) -> None:
        """Take note that messages of one direction, *responses* or requests, may be gone.

        *since_ns* is the time of the last byte before; *whole* is False where only the end of one segment
        is missing (snap length), so that no other message can be.
        """
        self._aligned = False
        if self._pipelined:
            self._outstanding.clear()
            self._orphans.clear()
        elif whole and responses:
            self._holed = True
        elif whole and self._outstanding:
            self._outstanding.append(Open(_UNKNOWN, since_ns + 1))

    def _bound(self, opened: list[Open]) -> None:
        if len(opened) > _MOST_OPEN:
            # Counting needs all of them, time does not.
            self._aligned = False
            opened.pop(0)
