"""Probes: messages of ours to our own queue. Is trace on, and how far are we behind?

The broker traces a probe as it traces all else, and queues the trace before the probe itself: one that
comes back untraced says that trace is off. The time that it was under way is the time that we are behind.
"""

from __future__ import annotations

from typing import Any

__all__ = ["Probes"]

MOST = 10_000
"""Probes under way whose time is remembered."""


class Probes:
    """Those of one connection, numbered from 1."""

    def __init__(self) -> None:
        self.sent = 0
        self.returned = 0
        """The latest that came back."""
        self.finds_trace_off = False
        """What the latest that came back says."""
        self._traced = 0
        self._under_way: dict[int, int] = {}
        """Probe -> when it was sent."""

    def next(self, now_ns: int) -> str:
        """Return the message id of a new one, which is sent now."""
        self.sent += 1
        self._under_way[self.sent] = now_ns
        if len(self._under_way) > MOST:
            del self._under_way[next(iter(self._under_way))]
        return str(self.sent)

    def traced(self, key: str, headers: dict[str, Any]) -> None:
        """Take the trace of a message to our queue."""
        properties = headers.get("properties")
        if key == "publish." and type(properties) is dict:
            self._traced = max(self._traced, _number(properties.get("message_id")))

    def came_back(self, message_id: str) -> tuple[int, bool]:
        """Return when the probe was sent, and whether it was traced; (0, False) for what is none of ours."""
        number = _number(message_id)
        self.returned = max(self.returned, number)
        return self._under_way.pop(number, 0), self._traced >= number


def _number(name: object) -> int:
    """Return which probe is called *name*; 0 for what somebody else sent to our queue."""
    return int(name) if type(name) is str and name.isdecimal() and len(name) < 12 else 0
