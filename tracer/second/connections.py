"""The connections of one capture as tshark numbers them, and how they end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tracer.model import TO_CLIENT, TO_SERVER, Closed, Connection, Endpoint, Frames
from tracer.second.tshark import Frame, yes

__all__ = ["Connections", "Link"]

REMEMBERED_FRAMES = 200_000
"""Times of so many frames are kept: a message is told by its last frame, and began on an earlier one."""
UNANSWERED_NS = 1_000_000_000
"""A SYN so short before the end may be answered behind it."""


@dataclass(slots=True)
class Link:
    """A connection, and what the protocols remember of it."""

    connection: Connection
    answered: bool = False
    """The server sent something."""
    accepted: bool = False
    """The connection was established."""
    attempts: int = 0
    last_ns: int = 0
    asked: Frames = ()
    """The first SYN."""
    encrypted: Frames = ()
    """The first frame of TLS."""
    ended: set[int] = field(default_factory=set)
    """Directions that have ended."""
    state: dict[str, Any] = field(default_factory=dict)
    """Protocol -> its state."""


class Connections:
    """Gives each frame its connection. *ports* are those of servers; *numbers* counts over all captures."""

    def __init__(self, capture: int, ports: Mapping[int, str], numbers: Iterator[int]) -> None:
        self._capture = capture
        self._ports = ports
        self._numbers = numbers
        self._links: dict[int, Link] = {}
        self._times: dict[int, int] = {}

    def of(self, frame: Frame) -> tuple[Link, int]:
        """Return the connection of *frame*, and its direction."""
        self._times[frame.number] = frame.time_ns
        if len(self._times) > REMEMBERED_FRAMES:
            for number in list(self._times)[: REMEMBERED_FRAMES // 2]:
                del self._times[number]
        link = self._links.get(frame.stream)
        if link is None:
            link = self._links[frame.stream] = Link(self._opened(frame))
        connection = link.connection
        direction = TO_SERVER if frame.source == tuple(connection.client) else TO_CLIENT
        connection.seen |= 1 << direction
        link.answered = link.answered or direction == TO_CLIENT
        link.last_ns = frame.time_ns
        syn = yes(frame.tcp.get("tcp_tcp_flags_syn"))
        if syn and direction == TO_SERVER:
            link.attempts += 1
            link.asked = link.asked or self.at(frame)
        elif syn or not yes(frame.tcp.get("tcp_tcp_flags_reset")):
            link.accepted = True
        return link, direction

    def began_ns(self, frame: Frame) -> int:
        """Return when what *frame* shows began."""
        return self._times.get(frame.first, frame.time_ns)

    def at(self, frame: Frame) -> Frames:
        """Return the evidence of what *frame* shows: that frame, and the one in which it began."""
        shown = (self._capture, frame.number)
        return (shown,) if frame.first == frame.number else (shown, (self._capture, frame.first))

    def ended(self, link: Link, direction: int, frame: Frame) -> Iterator[Closed]:
        """Yield the end of one or both directions that *frame* tells."""
        if len(link.ended) == 2 or direction in link.ended:
            return
        if yes(frame.tcp.get("tcp_tcp_flags_reset")):
            refused = link.attempts and direction == TO_CLIENT and not link.accepted
            how = "refused" if refused else "reset"
        elif yes(frame.tcp.get("tcp_tcp_flags_fin")):
            how = "fin"
        else:
            return
        link.ended |= {direction} if how == "fin" else {TO_SERVER, TO_CLIENT}
        refused = how == "refused"
        where = link.asked + self.at(frame) if refused else self.at(frame)
        attempts = max(1, link.attempts) if refused else 1
        yield Closed(link.connection, frame.time_ns, how, direction, where, attempts)

    def flush(self, time_ns: int) -> Iterator[tuple[Link, Closed]]:
        """Yield the connections that are open when the capture ends, and their ends."""
        for link in self._links.values():
            if len(link.ended) == 2:
                continue
            unanswered = link.attempts and not link.answered
            if unanswered and time_ns - link.last_ns < UNANSWERED_NS:
                continue
            how, where = ("unanswered", link.asked) if unanswered else ("end", ())
            yield link, Closed(link.connection, time_ns, how, TO_SERVER, where, max(1, link.attempts))

    def _opened(self, frame: Frame) -> Connection:
        syn = yes(frame.tcp.get("tcp_tcp_flags_syn"))
        source, destination = Endpoint(*frame.source), Endpoint(*frame.destination)
        if syn:
            to_server = not yes(frame.tcp.get("tcp_tcp_flags_ack"))
        elif destination.port in self._ports or source.port in self._ports:
            to_server = destination.port in self._ports
        else:
            to_server = destination.port <= source.port
        client, server = (source, destination) if to_server else (destination, source)
        made = Connection(next(self._numbers), client, server, frame.time_ns, joined=not syn)
        made.captures.append(self._capture)
        return made
