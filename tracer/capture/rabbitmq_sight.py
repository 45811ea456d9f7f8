"""What is seen of a broker and what is not, how it is doing, and what there is to say of that."""

from __future__ import annotations

from collections import deque

from tracer.capture.live import wall_ns

__all__ = ["Sight"]


class Sight:
    """The times in which what a broker would have told passed unseen; it outlives connections."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.state = "connecting"
        """How the broker is doing, in a few words; '' while all is well."""
        self._news: deque[tuple[int, str]] = deque()
        self._unseen: deque[tuple[int, int]] = deque()
        self._blind_ns = 0
        """Since when nothing is known; 0 while all is seen."""
        self._told_ns = 0
        """Up to when that was handed out by `unseen`."""

    @property
    def is_blind(self) -> bool:
        """Whether messages pass unseen now."""
        return bool(self._blind_ns)

    def news(self) -> list[tuple[int, str]]:
        """Return what there is to say since the last time: (when, words)."""
        return [self._news.popleft() for _ in range(len(self._news))]

    def unseen(self) -> list[tuple[int, int]]:
        """Return the times (since, until) in which messages passed unseen, as known since the last time."""
        found = [self._unseen.popleft() for _ in range(len(self._unseen))]
        since_ns = self._blind_ns
        if since_ns:
            now_ns = wall_ns()
            found.append((max(since_ns, self._told_ns), now_ns))
            self._told_ns = now_ns
        return found

    def lose(self, since_ns: int) -> None:
        """Take note that nothing is seen from *since_ns* on."""
        if not self._blind_ns:
            self._blind_ns = self._told_ns = since_ns

    def regain(self, now_ns: int) -> None:
        """Take note that all is seen from *now_ns* on."""
        since_ns = self._blind_ns
        if since_ns:
            self._blind_ns = 0
            self._unseen.append((max(since_ns, self._told_ns), max(now_ns, self._told_ns)))
            passed_s = (now_ns - since_ns) / 1e9
            self.say(f"RPC is seen again; what passed for {passed_s:.0f} s is unobserved")

    def say(self, words: str, time_ns: int = 0) -> None:
        """Have *words* told of the broker; now, unless *time_ns* says when."""
        self._news.append((time_ns or wall_ns(), f"{self._name}: {words}"))

    # What pika calls when the broker has run out of memory or disk, and when it is well again.

    def blocked(self, _: object, frame: object) -> None:
        why = str(getattr(getattr(frame, "method", None), "reason", ""))
        self.state = f"blocks publishers: {why}"
        self.say(f"the broker blocks all that publish: {why}. RPC hangs until it does no more")

    def unblocked(self, *_: object) -> None:
        self.state = ""
        self.say("the broker takes messages again")
