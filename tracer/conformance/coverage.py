"""What the captures could have shown: planes, protocols, hosts, holes. The ground of every *unobserved*.

A step may only be called missing when its message, had it been sent, would be in the captures. Asked
for a leg (plane, protocol, caller, callee), this room answers with None (it would be there) or with the
reason why not, in words, and with what to capture next time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from tracer.model import Call, Capture, Connection, Gap, RpcFacts
from tracer.openstack.services import BROKER, DATABASE, MEDIUM_OF

__all__ = ["Coverage", "Visibility"]

SECOND_NS = 1_000_000_000
MAX_PAIRS = 200_000
_PROTOCOLS = {"http1": "REST", "amqp091": "RPC", "mysql": "SQL"}


class Visibility(Protocol):
    """What the checker asks about the captures; `Coverage` answers from what was seen."""

    def planes(self) -> set[str]: ...

    def span_ns(
        self, plane: str, protocol: str = "", ends: Sequence[str] | set[str] = ()
    ) -> tuple[int, int]: ...

    def one_way(
        self, protocol: str, caller: Sequence[str] | set[str], callee: Sequence[str] | set[str]
    ) -> bool: ...

    def plane_is_given(self, connection: Connection) -> bool: ...

    def unseen(
        self,
        plane: str,
        protocol: str,
        caller: Sequence[str] | set[str],
        callee: Sequence[str] | set[str],
        names: tuple[str, str],
        strict: bool = True,
    ) -> str | None: ...

    def damaged(
        self,
        protocol: str,
        caller: Sequence[str] | set[str],
        callee: Sequence[str] | set[str],
        since_ns: int,
        until_ns: int,
    ) -> bool: ...

    def interruption(self, since_ns: int, until_ns: int) -> str | None: ...

    def cut_short(self) -> bool: ...

    def broke_off(self, plane: str, until_ns: int) -> str | None: ...


class Coverage:
    """Collects where traffic was seen and where bytes are missing.

    *addresses_of* gives the addresses of a role, *plane_of* the plane of a connection; both are asked at
    the end, when roles and planes are known.
    """

    def __init__(
        self,
        captures: Sequence[Capture],
        addresses_of: Callable[[str], set[str]],
        plane_of: Callable[[Connection], str],
        serves: Callable[[str], bool],
    ) -> None:
        self._captures = captures
        self._addresses_of = addresses_of
        self._plane_of = plane_of
        self._serves = serves
        self._pairs: dict[tuple[str, str, str], Connection] = {}
        """(protocol, address, address) -> a connection between them"""
        self._holes: dict[tuple[str, str, str], set[int]] = {}
        """(protocol, client, server) -> seconds in which bytes of it are missing"""
        self._planes: dict[str, set[str]] = {}
        """Protocol -> planes on which it could be seen; '' is any."""
        self._drops: list[tuple[Capture, int, int]] = []
        """(capture, since, until): packets that the kernel dropped before anybody saw them"""
        self._interruptions: list[tuple[int, int, str]] = []
        """(since, until, words): nothing at all was captured, or nothing is left of it"""
        self._undecoded: dict[str, str] = {}
        """address of a server -> why what it says cannot be read"""

    # --- collecting ---

    def observe(self, call: Call) -> None:
        """Take note of who spoke with whom."""
        connection = call.connection
        self._pair(call.protocol, connection)
        if isinstance(call.facts, RpcFacts) and call.facts.consumer is not None:
            self._pair(call.protocol, call.facts.consumer.connection)

    def _pair(self, protocol: str, connection: Connection) -> None:
        key = (protocol, connection.client.address, connection.server.address)
        if key not in self._pairs and len(self._pairs) < MAX_PAIRS:
            self._pairs[key] = connection
            self._planes.clear()

    def undecoded(self, connection: Connection, reason: str) -> None:
        """Take note of a connection of which nothing can be read."""
        if len(self._undecoded) < MAX_PAIRS:
            self._undecoded.setdefault(connection.server.address, reason)

    def gap(self, gap: Gap) -> None:
        """Take note of missing bytes."""
        connection = gap.connection
        protocol = _PROTOCOLS.get(connection.protocol or "", "?")
        key = (protocol, connection.client.address, connection.server.address)
        seconds = self._holes.setdefault(key, set())
        since = (gap.since_ns or gap.time_ns) // SECOND_NS
        # A hole of hours is no news in each of its seconds.
        seconds.update(range(since, min(gap.time_ns // SECOND_NS, since + 3600) + 1))

    def dropped(self, capture: Capture, since_ns: int, until_ns: int) -> None:
        """Take note that *capture* lost packets in that time, nobody knows which; of a broker, messages."""
        if self._drops and self._drops[-1][0] is capture and since_ns - self._drops[-1][2] <= SECOND_NS:
            _, begun_ns, ended_ns = self._drops.pop()
            since_ns, until_ns = min(begun_ns, since_ns), max(ended_ns, until_ns)
        self._drops.append((capture, since_ns, until_ns))

    def interrupted(self, since_ns: int, until_ns: int, words: str) -> None:
        """Take note that nothing at all is known of that time; *words* say so to the reader."""
        self._interruptions.append((since_ns, until_ns, words))

    def forget(self, before_ns: int) -> None:
        """Forget holes older than *before_ns*."""
        before = before_ns // SECOND_NS
        for key, seconds in list(self._holes.items()):
            seconds -= {second for second in seconds if second < before}
            if not seconds:
                del self._holes[key]
        self._drops = [drop for drop in self._drops if drop[2] >= before_ns]
        self._interruptions = [each for each in self._interruptions if each[1] >= before_ns]

    # --- answering ---

    def connections(self) -> Iterable[Connection]:
        """Return one connection of each pair of addresses that spoke."""
        return self._pairs.values()

    def planes(self, protocol: str = "") -> set[str]:
        """Return the planes of which there is a capture or a connection that could show *protocol*."""
        found = self._planes.get(protocol)
        if found is None:
            found = self._planes[protocol] = {c.plane for c in self._able(protocol) if c.plane}
            able = {c.number for c in self._able(protocol)}
            found |= {self._plane_of(c) for c in self._pairs.values() if not able.isdisjoint(c.captures)}
        return found

    def _able(self, protocol: str) -> list[Capture]:
        """Return the captures that could show *protocol*: a broker's firehose shows RPC alone."""
        return [c for c in self._captures if not (c.protocol and protocol and c.protocol != protocol)]

    def _is_told(self, protocol: str) -> bool:
        """Tell whether a server itself tells of *protocol*: no wire can hide it."""
        return bool(protocol) and any(c.protocol == protocol for c in self._captures)

    def span_ns(self, plane: str, protocol: str = "", ends: Iterable[str] = ()) -> tuple[int, int]:
        """Return when the capture of *plane* begins and ends ('*': of all); (0, 0) without packets.

        Of several capture points, those count that saw packets between the *ends* (addresses).
        """
        able = self._able(protocol)
        mine = [c for c in able if plane == "*" or c.plane is None or c.plane == plane]
        if protocol and (plane == "*" or any(c.plane is None for c in mine)):
            medium = MEDIUM_OF.get(protocol)
            some = {*ends, *(self._addresses_of(medium) if medium else ())}
            between, served = set[int](), set[int]()
            for (_, client, server), connection in self._pairs.items():
                if server in some:
                    served.update(connection.captures)
                    if client in some:
                        between.update(connection.captures)
            # On any plane: where the one that is called is seen to be called, by others at least.
            at = between if between or plane != "*" else served
            given = [] if plane == "*" else [c.number for c in mine if c.plane is not None]
            mine = [c for c in mine if c.number in at or c.number in given] or mine
        starts = [ns for ns in (c.corrected_first_ns for c in mine) if ns is not None]
        lasts = [ns for ns in (c.corrected_last_ns for c in mine) if ns is not None]
        return (min(starts), max(lasts)) if starts and lasts else (0, 0)

    def unseen(
        self,
        plane: str,
        protocol: str,
        caller: Iterable[str],
        callee: Iterable[str],
        names: tuple[str, str],
        strict: bool = True,
    ) -> str | None:
        """Return why a message from *caller* to *callee* (addresses) could not have been seen, or None.

        *names* are the roles, for the words. Without *strict* an end that was never seen is no reason.
        """
        if plane != "*" and plane not in self.planes(protocol):
            return f"{plane} is not captured"
        hidden = self._unreadable(protocol, set(caller), set(callee), names)
        if hidden is not None:
            return hidden
        spoken = {p for p, _, _ in self._pairs}
        if protocol not in spoken:
            return f"no {protocol} traffic is in the captures"
        if not strict:
            return None
        callers, callees = set(caller), set(callee)
        if protocol == "RPC":
            brokers = self._addresses_of(BROKER)
            ways = [self._way(callers, brokers, protocol), self._way(callees, brokers, protocol)]
            return None if any(ways) else self._hidden_words(callers | callees, names)
        if protocol == "SQL":
            callees = self._addresses_of(DATABASE)
        if not callers or not callees or (protocol == "REST" and not self._serves(names[1])):
            return f"{names[0]} > {names[1]} was never seen in the captures"
        return None if self._way(callers, callees, protocol) else self._hidden_words(callers, names)

    def _unreadable(
        self, protocol: str, callers: set[str], callees: set[str], names: tuple[str, str]
    ) -> str | None:
        """Return that the server of this leg was seen, but nothing of it can be read (TLS, compression)."""
        medium = MEDIUM_OF.get(protocol)
        servers = self._addresses_of(medium) if medium else callees
        if self._is_told(protocol):
            return None
        reasons = [self._undecoded[a] for a in servers if a in self._undecoded]
        read = any((protocol, c, s) in self._pairs for s in servers for c in callers or {""})
        if not reasons or read:
            return None
        return f"the traffic of {medium or names[1]} is not decoded: {reasons[0]}"

    def _hidden_words(self, ends: set[str], names: tuple[str, str]) -> str:
        if not ends:
            return f"{names[0]} and {names[1]} were never seen: their host is not captured"
        return f"{names[0]} and {names[1]} are on one host behind the capture points"

    def _way(self, some: set[str], others: set[str], protocol: str) -> bool:
        """Tell whether packets between any of these addresses pass a capture point."""
        taps = any(c.plane for c in self._able(protocol))
        for a in some:
            for b in others:
                if (protocol, a, b) in self._pairs or (protocol, b, a) in self._pairs:
                    return True
                if taps and a != b:
                    return True
        return False

    def one_way(self, protocol: str, caller: Iterable[str], callee: Iterable[str]) -> bool:
        """Tell whether of the connections between these ends only one direction is captured."""
        callers, callees = set(caller), set(callee)
        medium = MEDIUM_OF.get(protocol)
        servers = self._addresses_of(medium) if medium else callees
        clients = callers | callees if protocol == "RPC" else callers
        mine = [
            connection
            for (spoken, a, b), connection in self._pairs.items()
            if spoken == protocol and a in clients and b in servers and connection.protocol
        ]
        return bool(mine) and all(connection.seen != 3 for connection in mine)

    def plane_is_given(self, connection: Connection) -> bool:
        """Tell whether a capture's name tells the plane of *connection*; an inferred one proves nothing."""
        return any(self._captures[n].plane for n in connection.captures)

    def damaged(
        self, protocol: str, caller: Iterable[str], callee: Iterable[str], since_ns: int, until_ns: int
    ) -> bool:
        """Tell whether bytes between these ends are missing in that time."""
        for capture, since, until in self._drops:
            if since <= until_ns and until >= since_ns and capture.protocol in ("", protocol):
                return True
        callers, callees = set(caller), set(callee)
        first, last = since_ns // SECOND_NS - 1, until_ns // SECOND_NS + 1
        for (spoken, client, server), seconds in self._holes.items():
            if spoken not in (protocol, "?"):
                continue
            if protocol == "RPC":
                fits = client in callers or client in callees or not (callers or callees)
            else:
                fits = (not callers or client in callers) and (not callees or server in callees)
            if fits and any(first <= second <= last for second in seconds):
                return True
        return False

    def interruption(self, since_ns: int, until_ns: int) -> str | None:
        """Return in words when in that time nothing at all is known; None when something always is."""
        return next((words for s, u, words in self._interruptions if s <= until_ns and u >= since_ns), None)

    def cut_short(self) -> bool:
        """Tell whether a snap length has cut so many packets that any message may be unreadable."""
        return any(c.truncated_packets * 100 > c.packets for c in self._captures)

    def broke_off(self, plane: str, until_ns: int) -> str | None:
        """Return the path of a capture of *plane* that is cut before *until_ns*."""
        for capture in self._captures:
            mine = (capture.plane in (None, plane) or plane == "*") and not capture.protocol
            if mine and capture.broke_off and (capture.last_ns is None or capture.last_ns < until_ns):
                return capture.path
        return None
