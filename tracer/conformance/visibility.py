"""What the checker asks about the captures. `Coverage` answers it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from tracer.model import Connection

__all__ = ["Visibility"]


class Visibility(Protocol):
    """What the checker asks about the captures, of all captures of a run. Ends are given as addresses."""

    def planes(self) -> set[str]:
        """Return the planes that are captured."""

    def span_ns(self, plane: str, protocol: str = "", ends: Sequence[str] | set[str] = ()) -> tuple[int, int]:
        """Return when the capture of *plane* begins and ends; (0, 0) without packets."""

    def spoke(
        self, protocol: str, caller: Sequence[str] | set[str], callee: Sequence[str] | set[str]
    ) -> bool:
        """Return whether any call between these ends is captured."""

    def is_elsewhere(self, plane: str, protocol: str, servers: Sequence[str] | set[str]) -> bool:
        """Return whether calls to *servers* are captured on other planes alone."""

    def one_way(
        self,
        protocol: str,
        caller: Sequence[str] | set[str],
        callee: Sequence[str] | set[str],
        since_ns: int,
        until_ns: int,
    ) -> bool:
        """Return whether in that time only one direction of a connection between these ends is captured."""

    def without_times(self) -> str | None:
        """Return the path of a capture whose packets have no times that make sense; None without one."""

    def clock_error_ns(self, some: Collection[int], others: Collection[int]) -> int | None:
        """Return how far the clocks of two groups of captures may differ; None where it is not known."""

    def clock_error_on(
        self, plane: str, captures: Collection[int], servers: Collection[str] = ()
    ) -> int | None:
        """Return how far the clock of *plane* may differ from those of *captures*; None where unknown.

        '*' is where *servers* were called.
        """

    def plane_is_given(self, connection: Connection) -> bool:
        """Return whether the plane of *connection* is known from the name of its capture."""

    def unseen(
        self,
        plane: str,
        protocol: str,
        caller: Sequence[str] | set[str],
        callee: Sequence[str] | set[str],
        names: tuple[str, str],
        strict: bool = True,
    ) -> str | None:
        """Return why a message from *caller* to *callee* could not have been seen, None if it would have."""

    def damaged(
        self,
        protocol: str,
        caller: Sequence[str] | set[str],
        callee: Sequence[str] | set[str],
        since_ns: int,
        until_ns: int,
    ) -> bool:
        """Return whether bytes between these ends are missing in that time."""

    def is_in_burst(
        self, since_ns: int, until_ns: int, captures: Collection[int] = (), plane: str = "*"
    ) -> bool:
        """Return whether in that time a capture point lost packets of many connections at once.

        One of *captures*, all without them, that may show *plane*.
        """

    def lost_packets(self, since_ns: int, until_ns: int, plane: str) -> bool:
        """Return whether a capture point of *plane* may have lost any packet in that time."""

    def fell_silent(self, since_ns: int, until_ns: int, plane: str) -> bool:
        """Return whether no capture point that may show *plane* saw a call in nearly all of that time."""

    def interruption(self, since_ns: int, until_ns: int) -> str | None:
        """Return, in words, a time in it of which nothing is known; None without one."""

    def cut_short(self) -> bool:
        """Return whether a snap length has cut so many packets that any message may be unreadable."""

    def broke_off(self, plane: str, until_ns: int) -> str | None:
        """Return the path of a capture of *plane* that was cut off before *until_ns*, None without one."""
