"""Pairing of HTTP requests and responses, also where parts of the traffic are missing."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Exchanges", "Open"]

_MOST_OPEN = 256
"""Unpaired requests or responses that are remembered. There are more only if one direction is missing."""
_LATE_NS = 100_000_000
"""Packets may be captured so late, and a clock of another capture point be so far off."""
_UNKNOWN = 0
"""Exchange of an entry that stands for possible requests in a hole; real ones count from 1."""


class Open(NamedTuple):
    """A request that has no response yet, or a response that has no request."""

    exchange: int
    time_ns: int
    method: str = ""
    target: str = ""
    after_hole: bool = False


class Exchanges:
    """Numbers the exchanges of one connection: a request and its response get the same number.

    While both directions are whole from their first byte, messages are counted: the n-th response answers
    the n-th request (RFC 9112 §9.2), in whatever order the directions reach us.

    Once whole messages may be missing, and from the start on a connection that began before the capture, time
    decides. A client that does not pipeline sends no request before it has the response to the previous one,
    so the first response that begins after a request is its response. Behind a hole among the responses, a
    response belongs to the latest request before it, but only if a later request shows which one that was.
    Messages that stay ambiguous are not paired, because a wrong pair is worse than none.
    """

    __slots__ = ("_aligned", "_answered_ns", "_holed", "_joined", "_last", "_orphans", "_outstanding",
                 "_pipelined")  # fmt: skip

    def __init__(self, joined: bool) -> None:
        self._aligned = not joined
        """Messages can be counted: no whole message is missing so far."""
        self._joined = joined
        """The connection began before the capture, and no response was seen yet."""
        self._holed = False
        """The next response is the first one behind a hole: earlier responses may be in the hole."""
        self._pipelined = False
        """The client sent a request before the response to the previous one, so time pairs nothing."""
        self._answered_ns = 0
        """Time of the first byte of the latest response."""
        self._last = 0
        """Latest number that was given."""
        # Lists: nearly always short, and an empty deque takes 600 bytes.
        self._outstanding: list[Open] = []
        """Requests without a response, in order."""
        self._orphans: list[Open] = []
        """Responses without a request, in order."""

    def request(self, time_ns: int, method: str, target: str) -> int:
        """Return the exchange of a request whose first byte was seen at *time_ns*.

        Its response may have reached us earlier: reassembly holds a direction back while it waits for a lost
        segment, and the other direction goes on.
        """
        orphans = self._orphans
        if orphans and time_ns - orphans[0].time_ns > _LATE_NS:
            # No answer comes before its request: a request is missing, and no hole tells it.
            self._aligned = False
        if self._aligned:
            if orphans:
                return orphans.pop(0).exchange
        elif not self._pipelined:
            # Responses that began before this request answer earlier ones, which are missing.
            while orphans and orphans[0].time_ns < time_ns:
                orphans.pop(0)
            if orphans and not orphans[0].after_hole:
                return orphans.pop(0).exchange
        self._last += 1
        # If messages reach us out of order, a request older than the latest response gets no response.
        if self._aligned or (not self._pipelined and time_ns >= self._answered_ns):
            self._outstanding.append(Open(self._last, time_ns, method, target))
            self._bound(self._outstanding)
        return self._last

    def response(self, time_ns: int) -> Open:
        """Return the request that a response from *time_ns* answers; with method '' if it is unknown."""
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
        """Return the request of the next response by counting; None if it has not reached us yet."""
        outstanding = self._outstanding
        if not outstanding:
            return None
        answered = outstanding.pop(0)
        if outstanding and outstanding[0].time_ns < time_ns:
            self._pipelined = True
        return answered

    def _timed(self, time_ns: int) -> Open | None:
        """Return the request of a response from *time_ns* by time; None if it is ambiguous."""
        outstanding = self._outstanding
        before: list[Open] = []
        while outstanding and outstanding[0].time_ns <= time_ns:
            before.append(outstanding.pop(0))
        known = [request for request in before if request.exchange]
        if not known:
            return None
        if self._holed:
            # `outstanding` has a later request, and no hole among the requests hides one in between.
            return known[-1] if outstanding and before[-1].exchange else None
        # Two requests without a hole: the client pipelines, or the capture is out of order. Before the first
        # response of a joined connection, the earlier requests' responses may precede the capture's start.
        return known[-1] if len(known) == 1 or self._joined else None

    def lose(self, responses: bool, since_ns: int, whole: bool) -> None:
        """Record that messages of one direction, *responses* or requests, may be missing.

        *since_ns* is the time of the last byte before the hole. *whole* is False if only the end of one
        segment is missing (snap length), so that no other message can be missing.
        """
        self._aligned = False
        if self._pipelined:
            # Neither counting nor time can pair what is open.
            self._outstanding.clear()
            self._orphans.clear()
        elif whole and responses:
            self._holed = True
        elif whole and self._outstanding:
            self._outstanding.append(Open(_UNKNOWN, since_ns + 1))

    def _bound(self, opened: list[Open]) -> None:
        if len(opened) > _MOST_OPEN:
            # Counting needs all entries; pairing by time does not.
            self._aligned = False
            opened.pop(0)
