"""Times in which messages of a broker pass unseen, and the probes that detect it.

A probe is a message of ours to our own queue. The broker traces it like any other message, and queues the
trace before the probe itself. So a probe that comes back without a trace shows that trace is off. The time
that a probe takes is the delay of this source.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from tracer.capture.live import wall_ns

__all__ = ["Probes", "Visibility"]

MOST = 10_000
"""Outstanding probes whose time is remembered."""


class Visibility:
    """The times in which messages of a broker passed unseen, and its state, over several connections."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.state = "connecting"
        """The state of the broker in a few words; '' while all is well."""
        self._news: deque[tuple[int, str]] = deque()
        self._unseen: deque[tuple[int, int]] = deque()
        self._blind_ns = 0
        """Time since which messages are unseen; 0 while all are seen."""
        self._reported_ns = 0
        """Time up to which `unseen` has reported it."""

    @property
    def is_blind(self) -> bool:
        """Whether messages pass unseen now."""
        return bool(self._blind_ns)

    def news(self) -> list[tuple[int, str]]:
        """Return the news since the last call: (time in ns, words)."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def unseen(self) -> list[tuple[int, int]]:
        """Return the times (since, until) in which messages passed unseen, as learnt since the last call."""
        found = [self._unseen.popleft() for _ in range(len(self._unseen))]
        since_ns = self._blind_ns
        if since_ns:
            now_ns = wall_ns()
            found.append((max(since_ns, self._reported_ns), now_ns))
            self._reported_ns = now_ns
        return found

    def lose(self, since_ns: int) -> None:
        """Record that messages are unseen from *since_ns* on."""
        if not self._blind_ns:
            self._blind_ns = self._reported_ns = since_ns

    def regain(self, now_ns: int) -> None:
        """Record that all messages are seen from *now_ns* on."""
        since_ns = self._blind_ns
        if since_ns:
            self._blind_ns = 0
            self._unseen.append((max(since_ns, self._reported_ns), max(now_ns, self._reported_ns)))
            passed_s = (now_ns - since_ns) / 1e9
            self.say(f"RPC is seen again; what passed for {passed_s:.0f} s is unobserved")

    def say(self, words: str, time_ns: int = 0) -> None:
        """Add *words* to `news`, with the broker's name and *time_ns* (0: now)."""
        self._news.append((time_ns or wall_ns(), f"{self._name}: {words}"))

    # pika calls these two when the broker runs out of memory or disk, and when it has recovered.

    def blocked(self, _: object, frame: object) -> None:
        """Report that the broker blocks publishers (connection.blocked)."""
        why = str(getattr(getattr(frame, "method", None), "reason", ""))
        self.state = f"blocks publishers: {why}"
        self.say(f"the broker blocks all that publish: {why}. RPC hangs until it does no more")

    def unblocked(self, *_: object) -> None:
        """Report that the broker accepts messages again (connection.unblocked)."""
        self.state = ""
        self.say("the broker takes messages again")


class Probes:
    """The probes of one connection, numbered from 1."""

    def __init__(self) -> None:
        self.sent = 0
        self.returned = 0
        """Number of the latest probe that came back."""
        self.finds_trace_off = False
        """The latest probe that came back was not traced."""
        self._traced = 0
        """Number of the latest traced probe."""
        self._under_way: dict[int, int] = {}
        """Number of a probe -> time at which it was sent."""

    def next(self, now_ns: int) -> str:
        """Return the message id of a new probe, which is sent now."""
        self.sent += 1
        self._under_way[self.sent] = now_ns
        if len(self._under_way) > MOST:
            del self._under_way[next(iter(self._under_way))]
        return str(self.sent)

    def traced(self, key: str, headers: dict[str, Any]) -> None:
        """Record the trace of a message to our queue."""
        properties = headers.get("properties")
        # The publish of a message to the default exchange, '', by which a probe reaches our queue.
        if key == "publish." and type(properties) is dict:
            self._traced = max(self._traced, _number(properties.get("message_id")))

    def came_back(self, message_id: str) -> tuple[int, bool]:
        """Return when a probe was sent, and whether it was traced; 0 as the time if it is not ours."""
        number = _number(message_id)
        self.returned = max(self.returned, number)
        return self._under_way.pop(number, 0), self._traced >= number


def _number(name: object) -> int:
    """Return the number of the probe with the message id *name*; 0 if it is not ours."""
    return int(name) if type(name) is str and name.isdecimal() and len(name) < 12 else 0
