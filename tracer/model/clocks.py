"""The clock of one capture: how far it was found to be off, and since when."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

__all__ = ["Clock"]

_CHANGES = 4_096


@dataclass(slots=True, eq=False)
class Clock:
    """What was added to the times of a capture, and taken off them, to judge all captures by one clock.

    Times are nanoseconds. `corrected = captured + added - ahead`.
    """

    given_ns: int | None = None
    """What the user says that it is behind by; then nothing is estimated."""
    reference: int | None = None
    """The number of the capture whose clock it is compared with; None where it is not compared."""
    pairs: int = 0
    """Calls or packets, seen here and there, that bound the offset."""
    uncertain_ns: int = 0
    """Half of the width that the pairs leave, where it is widest."""
    is_bounded: bool = True
    """Whether the pairs say both how far it is ahead at least, and at most."""
    steps_back: int = 0
    """How often it was set back within the capture."""
    begun_ns: int | None = None
    """When the first packet came, and when the last one did, with what was added: where it was set back."""
    reached_ns: int = 0
    _added: list[tuple[int, int]] = field(default_factory=list)
    """(time from which, what is added): given, and steps back. By times that hold what was added."""
    _ahead: list[tuple[int, int]] = field(default_factory=list)
    """(corrected time from which, how far it is ahead), one for each change."""

    @property
    def is_right(self) -> bool:
        """Whether times are those of the capture."""
        changes = (*self._added, *self._ahead)
        return not self.given_ns and not any(by_ns for _, by_ns in changes)

    @property
    def range_ahead_ns(self) -> tuple[int, int]:
        """The least and the most that it was ahead of its reference."""
        offsets = [ahead_ns for _, ahead_ns in self._ahead]
        return (min(offsets), max(offsets)) if offsets else (0, 0)

    def add(self, since_ns: int, by_ns: int) -> None:
        """Take note that *by_ns* is added to times, which are then *since_ns* and later."""
        if not self._added:
            self._added.append((0, self.given_ns or 0))
        self._added.append((since_ns, by_ns + (self.given_ns or 0)))

    def ahead(self, since_ns: int, by_ns: int) -> None:
        """Take note that *by_ns* is taken off times, which are then *since_ns* and later."""
        if not self._ahead or by_ns != self._ahead[-1][1]:
            self._ahead.append((since_ns, by_ns))
            if len(self._ahead) > _CHANGES:
                # A run without an end: what began so long ago has been told.
                del self._ahead[: _CHANGES // 2]

    def as_captured(self, corrected_ns: int) -> int:
        """Return the time by the capture's own clock."""
        if self._ahead:
            corrected_ns += _at(self._ahead, corrected_ns)
        return corrected_ns - (_at(self._added, corrected_ns) if self._added else self.given_ns or 0)

    def corrected(self, captured_ns: int) -> int:
        """Return when that was by the clock that all captures are judged by."""
        time_ns = captured_ns + (self.given_ns or 0)
        for since_ns, by_ns in self._added:
            if captured_ns + by_ns >= since_ns:
                time_ns = captured_ns + by_ns
        corrected_ns = time_ns
        for since_ns, by_ns in self._ahead:
            if time_ns - by_ns >= since_ns or since_ns == self._ahead[0][0]:
                corrected_ns = time_ns - by_ns
        return corrected_ns

    def corrected_first_ns(self, captured_ns: int) -> int:
        """Return the corrected time of the capture's first packet."""
        time_ns = captured_ns + (self.given_ns or 0) if self.begun_ns is None else self.begun_ns
        return time_ns - (self._ahead[0][1] if self._ahead else 0)

    def corrected_last_ns(self, captured_ns: int) -> int:
        """Return the corrected time of the capture's last packet."""
        time_ns = captured_ns + (self.given_ns or 0) if self.begun_ns is None else self.reached_ns
        return time_ns - (self._ahead[-1][1] if self._ahead else 0)


def _at(changes: list[tuple[int, int]], time_ns: int) -> int:
    """Return the value at *time_ns*; before the first change it is the first one's."""
    at = bisect_right(changes, time_ns, key=lambda change: change[0]) - 1
    return changes[max(at, 0)][1]
