"""Calls kept by key until a trace asks for them; what nobody asks for is forgotten, oldest first."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from tracer.model import Call

__all__ = ["CallIndex", "RecentCalls"]


class CallIndex:
    """key -> calls, bounded in keys and in calls per key."""

    def __init__(self, max_keys: int = 50_000, max_calls: int = 4_000) -> None:
        self._calls: OrderedDict[str, list[Call]] = OrderedDict()
        self._max_keys = max_keys
        self._max_calls = max_calls
        self.forgotten = 0
        """Keys dropped for lack of room."""
        self.left_out = 0
        """Calls that were one too many for their key."""
        self._full: set[str] = set()
        """Keys of which calls were left out."""
        self._forgotten_ns = -1
        """When the newest call began that went with its key."""

    def add(self, key: str, call: Call) -> None:
        calls = self._calls.get(key)
        if calls is None:
            self._calls[key] = [call]
            if len(self._calls) > self._max_keys:
                _, dropped = self._calls.popitem(last=False)
                self.forgotten += 1
                self._forgotten_ns = max(self._forgotten_ns, *(call.started_ns for call in dropped))
        else:
            if len(calls) < self._max_calls:
                calls.append(call)
            else:
                self.left_out += 1
                self._full.add(key)
            self._calls.move_to_end(key)

    def get(self, key: str) -> list[Call]:
        return self._calls.get(key, [])

    def may_lack(self, key: str, since_ns: int) -> bool:
        """Tell whether calls of *key* that began at *since_ns* or later may have been dropped."""
        return key in self._full or since_ns <= self._forgotten_ns

    def items(self) -> list[tuple[str, list[Call]]]:
        return list(self._calls.items())

    def oldest(self) -> Iterator[tuple[str, list[Call]]]:
        """Yield keys and calls, those that were last added to longest ago first."""
        return iter(self._calls.items())

    def discard(self, key: str) -> None:
        self._calls.pop(key, None)
        self._full.discard(key)


class RecentCalls:
    """Calls without a key, in the order in which they came; the oldest are dropped for lack of room."""

    def __init__(self, max_calls: int = 20_000) -> None:
        self._calls: deque[Call] = deque()
        self._max_calls = max_calls
        self.forgotten = 0
        self._forgotten_ns = -1

    def add(self, call: Call) -> None:
        self._calls.append(call)
        if len(self._calls) > self._max_calls:
            dropped = self._calls.popleft()
            self.forgotten += 1
            self._forgotten_ns = max(self._forgotten_ns, dropped.started_ns)

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def may_lack(self, since_ns: int) -> bool:
        """Tell whether calls that began at *since_ns* or later may have been dropped."""
        return since_ns <= self._forgotten_ns

    def discard(self, is_over: Callable[[Call], bool]) -> None:
        """Drop the calls of which nobody will ask any more."""
        kept = [call for call in self._calls if not is_over(call)]
        if len(kept) < len(self._calls):
            self._calls.clear()
            self._calls.extend(kept)
