"""Calls kept by key until a trace asks for them; what nobody asks for is forgotten, oldest first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from tracer.model import Call

__all__ = ["CallIndex"]


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

    def add(self, key: str, call: Call) -> None:
        calls = self._calls.get(key)
        if calls is None:
            self._calls[key] = [call]
            if len(self._calls) > self._max_keys:
                self._calls.popitem(last=False)
                self.forgotten += 1
        else:
            if len(calls) < self._max_calls:
                calls.append(call)
            else:
                self.left_out += 1
            self._calls.move_to_end(key)

    def get(self, key: str) -> list[Call]:
        return self._calls.get(key, [])

    def items(self) -> list[tuple[str, list[Call]]]:
        return list(self._calls.items())

    def oldest(self) -> Iterator[tuple[str, list[Call]]]:
        """Yield keys and calls, those that were last added to longest ago first."""
        return iter(self._calls.items())

    def discard(self, key: str) -> None:
        self._calls.pop(key, None)
