"""What the captures could have shown: decides when a missing step is unobserved rather than missing.

A step is missing only if its message, had it been sent, would be in the captures. Asked for a leg (plane,
protocol, caller, callee), this module returns None (it would be there) or the reason why not, in words,
from which the reader sees what to capture next time.
"""

# The evidence: planes and protocols that were captured, pairs of addresses that spoke, times in which bytes
# are missing. A tap between the hosts shows nothing of two services on one host (their packets pass loopback
# only): in captures/colo-ok-taps eight steps leave nothing, and none of them may be called missing.

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from tracer.conformance.losses import Losses, Silences
from tracer.model import (
    BOTH,
    CALLS_OVER,
    Call,
    Capture,
    Closed,
    ConnectFacts,
    Connection,
    Gap,
    RestFacts,
    RpcFacts,
    SqlFacts,
)
from tracer.openstack.services import BROKER, DATABASE, MEDIUM_OF

__all__ = ["CLOCK_NS", "Coverage"]

SECOND_NS = 1_000_000_000
MAX_PAIRS = 100_000
CLOCK_NS = 120_000_000
"""So far two capture points may be apart beyond what bounds their clocks: packets captured late, a drift."""
_NEVER_NS = 1 << 80
BURST_NS = 10_000_000_000
"""A gap that took longer to show says little of when its bytes were lost."""
BURST_CONNECTIONS = 3
"""Where so many connections of one capture lack bytes at once, the capture point lost packets then: of any
connection, also of one of which no packet was captured."""
LONGEST_WAIT_NS = 60_000_000_000
"""How long before its answer a request may have been sent: the usual time-out of a proxy or client."""


class Coverage:
    """Collects where traffic was seen and where bytes are missing.

    *addresses_of* returns the addresses of a role, *plane_of* the plane of a connection, *serves* whether a
    role was seen as a server. They are called at the end, when roles and planes are known.
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
        """(protocol, client's address, server's address) -> one connection between them"""
        self._speaking: set[str] = set()
        """Addresses of those that more than tried to connect."""
        self._holes: dict[tuple[str, str, str], set[int]] = {}
        """(protocol, client, server) -> seconds in which bytes of it are missing"""
        self._bursts: dict[tuple[int, int], set[int]] = {}
        """(capture, second) -> connections of which bytes are missing then, as far as `BURST_CONNECTIONS`"""
        self._losses = Losses()
        self._silences = Silences()
        self._half_seen: dict[tuple[str, str, str], tuple[int, int]] = {}
        """(protocol, client, server) of connections captured in one direction -> when the first one began and
        the last one ended; which end is which may be guessed"""
        self._ended: dict[int, None] = {}
        """Numbers of the connections of one direction that have ended."""
        self._planes: dict[str, set[str]] = {}
        """protocol ('' for any) -> planes on which it could be seen; filled when asked for"""
        self._drops: list[tuple[Capture, int, int]] = []
        """(capture, since, until) of packets that the kernel dropped before they were captured"""
        self._interruptions: list[tuple[int, int, str]] = []
        """(since, until, words) of times of which nothing was captured, or nothing is left"""
        self._undecoded: dict[str, str] = {}
        """address of a server -> why its traffic cannot be decoded"""
        self._dark: dict[tuple[str, str], dict[str, str]] = {}
        """(protocol, server) of encrypted connections -> client -> why they cannot be decoded; others of the
        same ends may be read"""
        self._dark_count = 0

    # --- collecting ---

    def observe(self, call: Call) -> None:
        """Record which addresses spoke with each other."""
        connection = call.connection
        for capture in connection.captures:
            self._silences.heard(capture, call.started_ns)
        self._pair(call.protocol, connection, speaks=not isinstance(call.facts, ConnectFacts))
        facts = call.facts
        # A message has two legs, and its delivery shows the consumer's leg.
        if isinstance(facts, RpcFacts) and facts.consumer is not None:
            self._pair(call.protocol, facts.consumer.connection)
        elif isinstance(facts, SqlFacts) and facts.broken and not facts.table:
            # What it does is not in the capture: cut, or prepared before.
            self._hole(call.protocol, connection, call.started_ns, call.started_ns)
        elif isinstance(facts, RestFacts) and facts.method == "?":
            # An answer whose request is not in the capture: it was sent before, nobody knows when. Where the
            # connection is new to the capture, that may be before its first packet.
            since_ns = connection.first_ns if connection.certain else call.started_ns - LONGEST_WAIT_NS
            self._hole(call.protocol, connection, since_ns, call.started_ns)
            if not connection.joined:
                self._losses.add(connection.captures, since_ns, call.started_ns)

    def _pair(self, protocol: str, connection: Connection, speaks: bool = True) -> None:
        key = (protocol, connection.client.address, connection.server.address)
        speaking = self._speaking
        # Nearly every call is of a pair that is known.
        if speaks and (key[1] not in speaking or key[2] not in speaking) and len(speaking) < MAX_PAIRS:
            speaking.update(key[1:])
        if key not in self._pairs and len(self._pairs) < MAX_PAIRS:
            self._pairs[key] = connection
            self._planes.clear()

    def speaks(self, address: str) -> bool:
        """Return whether *address* was seen to do more than try to connect."""
        return address in self._speaking

    def undecoded(self, connection: Connection, reason: str) -> None:
        """Record a connection that cannot be decoded, and why (TLS, compression)."""
        if len(self._undecoded) < MAX_PAIRS:
            self._undecoded.setdefault(connection.server.address, reason)
        if reason.startswith("tls") and self._dark_count < MAX_PAIRS:
            over = CALLS_OVER.get(connection.protocol or "", "REST")
            clients = self._dark.setdefault((over, connection.server.address), {})
            self._dark_count += connection.client.address not in clients
            clients.setdefault(connection.client.address, reason)

    def gap(self, gap: Gap) -> None:
        """Record missing bytes, by the seconds in which they may have been sent."""
        # Seconds, because a set of seconds is small and answers any question about a time in one look-up.
        connection = gap.connection
        protocol = CALLS_OVER.get(connection.protocol or "", "?")
        since_ns = gap.since_ns or gap.time_ns
        self._hole(protocol, connection, since_ns, gap.time_ns)
        if gap.time_ns - since_ns <= BURST_NS:
            for second in range(since_ns // SECOND_NS, gap.time_ns // SECOND_NS + 1):
                for capture in connection.captures:
                    hit = self._bursts.setdefault((capture, second), set())
                    if len(hit) < BURST_CONNECTIONS:
                        hit.add(connection.number)
        if gap.time_ns - since_ns <= LONGEST_WAIT_NS:
            self._losses.add(connection.captures, since_ns, gap.time_ns)

    def closed(self, closed: Closed) -> None:
        """Record whether both directions were captured of a connection that ended, or was open at the end."""
        connection = closed.connection
        is_made = closed.how not in ("refused", "unanswered")
        if connection.seen != BOTH and is_made:
            # One that is idle shows an acknowledgement or its end, and hides no call.
            protocol = CALLS_OVER.get(connection.protocol or "")
            key = protocol or "", connection.client.address, connection.server.address
            if protocol and (key in self._half_seen or len(self._half_seen) < MAX_PAIRS):
                first_ns, last_ns = self._half_seen.get(key, (connection.first_ns, closed.time_ns))
                self._half_seen[key] = min(first_ns, connection.first_ns), max(last_ns, closed.time_ns)
            self._ended[connection.number] = None
            if len(self._ended) > MAX_PAIRS:
                del self._ended[next(iter(self._ended))]

    def _hole(self, protocol: str, connection: Connection, since_ns: int, until_ns: int) -> None:
        """Record that bytes between the ends of *connection* are missing in that time."""
        key = (protocol, connection.client.address, connection.server.address)
        if len(self._holes) >= MAX_PAIRS and key not in self._holes:
            # No room to record whose bytes: any connection's.
            self.dropped(self._captures[connection.captures[0]], since_ns, until_ns)
            return
        since = since_ns // SECOND_NS
        # At most an hour: a connection that was idle for days before its gap says nothing of all that time.
        seconds = range(since, min(until_ns // SECOND_NS, since + 3600) + 1)
        self._holes.setdefault(key, set()).update(seconds)

    def dropped(self, capture: Capture, since_ns: int, until_ns: int) -> None:
        """Record that *capture* lost packets (a broker: messages) in that time; which ones is not known."""
        # Reports within a second of each other are joined: a kernel that is overloaded reports many.
        if self._drops and self._drops[-1][0] is capture and since_ns - self._drops[-1][2] <= SECOND_NS:
            _, begun_ns, ended_ns = self._drops.pop()
            since_ns, until_ns = min(begun_ns, since_ns), max(ended_ns, until_ns)
        self._drops.append((capture, since_ns, until_ns))

    def interrupted(self, since_ns: int, until_ns: int, words: str) -> None:
        """Record that nothing is known of that time; *words* are the reason that reports give."""
        self._interruptions.append((since_ns, until_ns, words))

    def forget(self, before_ns: int) -> None:
        """Drop what is recorded of missing bytes, directions and times before *before_ns*."""
        before = before_ns // SECOND_NS
        for key, seconds in list(self._holes.items()):
            seconds -= {second for second in seconds if second < before}
            if not seconds:
                del self._holes[key]
        self._half_seen = {key: at for key, at in self._half_seen.items() if at[1] >= before_ns}
        self._bursts = {key: hit for key, hit in self._bursts.items() if key[1] >= before}
        self._losses.forget(before_ns)
        self._silences.forget(before_ns)
        self._drops = [drop for drop in self._drops if drop[2] >= before_ns]
        self._interruptions = [each for each in self._interruptions if each[1] >= before_ns]

    # --- answering ---

    def connections(self) -> Iterable[Connection]:
        """Return one connection of each pair of addresses that spoke."""
        return self._pairs.values()

    def planes(self, protocol: str = "") -> set[str]:
        """Return the planes with a capture, or a connection in one, that could show *protocol*."""
        found = self._planes.get(protocol)
        if found is None:
            found = self._planes[protocol] = {c.plane for c in self._able(protocol) if c.plane}
            able = {c.number for c in self._able(protocol)}
            found |= {self._plane_of(c) for c in self._pairs.values() if not able.isdisjoint(c.captures)}
        return found

    def _able(self, protocol: str) -> list[Capture]:
        """Return the captures that could show *protocol*: a broker's firehose shows RPC alone."""
        return [c for c in self._captures if not (c.protocol and protocol and c.protocol != protocol)]

    def _is_reported(self, protocol: str) -> bool:
        """Return whether a source reports *protocol* by itself (a broker's firehose), not by its packets."""
        return bool(protocol) and any(c.protocol == protocol for c in self._captures)

    def span_ns(self, plane: str, protocol: str = "", ends: Iterable[str] = ()) -> tuple[int, int]:
        """Return when the capture of *plane* begins and ends ('*': of all); (0, 0) without packets.

        Of several capture points only those count that saw packets between the *ends* (addresses).
        """
        able = self._able(protocol)
        captures = [c for c in able if plane == "*" or c.plane is None or c.plane == plane]
        if protocol and (plane == "*" or any(c.plane is None for c in captures)):
            # Captures without a plane may be of other hosts: one that never saw these ends would make the
            # span longer than what was captured of them.
            medium = MEDIUM_OF.get(protocol)
            some = {*ends, *(self._addresses_of(medium) if medium else ())}
            between, served = set[int](), set[int]()
            for (_, client, server), connection in self._pairs.items():
                if server in some:
                    served.update(connection.captures)
                    if client in some:
                        between.update(connection.captures)
            # On any plane, and never seen together: the captures in which the server was called by others.
            at = between if between or plane != "*" else served
            given = [] if plane == "*" else [c.number for c in captures if c.plane is not None]
            captures = [c for c in captures if c.number in at or c.number in given] or captures
        starts = [ns for ns in (c.corrected_first_ns for c in captures) if ns is not None]
        lasts = [ns for ns in (c.corrected_end_ns for c in captures) if ns is not None]
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
        # The most general reason first: it says what to capture. Times and gaps are checked by the caller.
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
            # A message passes the broker: one of its two legs is enough to see it.
            brokers = self._addresses_of(BROKER)
            legs = [self._passes(callers, brokers, protocol), self._passes(callees, brokers, protocol)]
            return None if any(legs) else self._hidden_words(callers | callees, brokers, names)
        if protocol == "SQL":
            callees = self._addresses_of(DATABASE)
        if not callers or not callees or (protocol == "REST" and not self._serves(names[1])):
            return f"{names[0]} > {names[1]} was never seen in the captures"
        return (
            None if self._passes(callers, callees, protocol) else self._hidden_words(callers, callees, names)
        )

    def _unreadable(
        self, protocol: str, callers: set[str], callees: set[str], names: tuple[str, str]
    ) -> str | None:
        """Return, in words, that the server of this leg was seen but cannot be decoded; else None."""
        medium = MEDIUM_OF.get(protocol)
        servers = self._addresses_of(medium) if medium else callees
        if self._is_reported(protocol):
            return None
        # One connection that is dark may have carried the message, though others of these ends are read. The
        # broker's clients are not all known by what they say.
        for server in servers:
            clients = self._dark.get((protocol, server), {})
            reason = next((why for c, why in clients.items() if protocol == "RPC" or c in callers), "")
            if reason:
                return f"the traffic of {medium or names[1]} is not decoded: {reason}"
        reasons = [self._undecoded[a] for a in servers if a in self._undecoded]
        read = any((protocol, c, s) in self._pairs for s in servers for c in callers or {""})
        if not reasons or read:
            return None
        return f"the traffic of {medium or names[1]} is not decoded: {reasons[0]}"

    def _hidden_words(self, some: set[str], others: set[str], names: tuple[str, str]) -> str:
        """Return the reason for two ends whose packets pass no capture point, or none that is known to."""
        if not some:
            return f"{names[0]} and {names[1]} were never seen: their host is not captured"
        if some & others:
            return f"{names[0]} and {names[1]} are on one host: no capture point sees traffic within it"
        return f"no capture point is known to see traffic between {names[0]} and {names[1]}"

    def _passes(self, some: set[str], others: set[str], protocol: str) -> bool:
        """Return whether packets between any of these addresses pass a capture point."""
        # Two addresses that never spoke: a capture that is named after a plane is a tap of that plane, and
        # would see packets between two hosts; packets within one host reach no tap.
        taps = any(c.plane for c in self._able(protocol))
        for a in some:
            for b in others:
                if (protocol, a, b) in self._pairs or (protocol, b, a) in self._pairs:
                    return True
                if taps and a != b:
                    return True
        return False

    def spoke(self, protocol: str, caller: Iterable[str], callee: Iterable[str]) -> bool:
        """Return whether any call of *protocol* from one of *caller* to one of *callee* is captured."""
        servers = set(callee)
        return any((protocol, client, server) in self._pairs for client in caller for server in servers)

    def is_elsewhere(self, plane: str, protocol: str, servers: Iterable[str]) -> bool:
        """Return whether calls to *servers* are captured on other planes alone."""
        some = set(servers)
        found = {
            self._plane_of(c) for (p, _, server), c in self._pairs.items() if p == protocol and server in some
        }
        return plane != "*" and bool(found) and plane not in found

    def one_way(
        self,
        protocol: str,
        caller: Iterable[str],
        callee: Iterable[str],
        since_ns: int = 0,
        until_ns: int = _NEVER_NS,
    ) -> bool:
        """Return whether in that time one direction only of a connection between these ends was captured."""
        callers, callees = set(caller), set(callee)
        medium = MEDIUM_OF.get(protocol)
        servers = self._addresses_of(medium) if medium else callees
        clients = callers | callees if protocol == "RPC" else callers
        # Those that are open still; what ended is in `_half_seen`.
        if any(
            spoken == protocol and a in clients and b in servers and connection.first_ns <= until_ns
            for (spoken, a, b), connection in self._pairs.items()
            if connection.protocol and connection.seen != BOTH and connection.number not in self._ended
        ):
            return True
        # Where only answers are seen nothing becomes a call, and the two ends may be taken for each other.
        return any(
            spoken in (protocol, "?")
            and ((a in clients and b in servers) or (a in servers and b in clients))
            and first_ns <= until_ns
            and last_ns >= since_ns
            for (spoken, a, b), (first_ns, last_ns) in self._half_seen.items()
        )

    def without_times(self) -> str | None:
        """Return the path of a capture whose packets have no times that make sense; None without one."""
        return next((capture.path for capture in self._captures if capture.is_untimed), None)

    def clock_error_ns(self, some: Collection[int], others: Collection[int]) -> int | None:
        """Return how far the clocks of two groups of captures may differ; None where it is not known."""
        both = {*some, *others}
        clocks = [self._captures[number].clock for number in both]
        compared = {c.clock.reference for c in self._captures} | {
            c.number for c in self._captures if c.clock.reference is not None
        }
        if not both <= compared or not all(clock.is_bounded for clock in clocks):
            return None
        return CLOCK_NS + sum(clock.uncertain_ns for clock in clocks)

    def clock_error_on(
        self, plane: str, captures: Collection[int], servers: Collection[str] = ()
    ) -> int | None:
        """Return how far the clock of *plane* may differ from those of *captures*; None where unknown.

        0 where one of them may show *plane* itself. '*' is where *servers* were called.
        """
        of_plane = {c.number for c in self._captures if c.packets and c.plane in (None, plane)}
        if plane == "*":
            called = (c for (_, _, server), c in self._pairs.items() if server in servers)
            of_plane = {number for connection in called for number in connection.captures}
        if not of_plane or not of_plane.isdisjoint(captures):
            return 0
        if any(self._captures[number].clock.steps_back for number in (*of_plane, *captures)):
            # How long it was silent then is not known.
            return None
        known = [self.clock_error_ns((number,), captures) for number in of_plane]
        return min((error_ns for error_ns in known if error_ns is not None), default=None)

    def plane_is_given(self, connection: Connection) -> bool:
        """Return whether a capture's name states the plane of *connection*; an inferred plane is a guess."""
        return any(self._captures[n].plane for n in connection.captures)

    def damaged(
        self, protocol: str, caller: Iterable[str], callee: Iterable[str], since_ns: int, until_ns: int
    ) -> bool:
        """Return whether bytes between these ends are missing in that time."""
        for capture, since, until in self._drops:
            if since <= until_ns and until >= since_ns and capture.protocol in ("", protocol):
                return True
        callers, callees = set(caller), set(callee)
        # A second more on each side: gaps are kept by whole seconds, and known by the packet after them.
        first, last = since_ns // SECOND_NS - 1, until_ns // SECOND_NS + 1
        return any(
            _fits(key, protocol, callers, callees) and any(first <= second <= last for second in seconds)
            for key, seconds in self._holes.items()
        )

    def is_in_burst(
        self, since_ns: int, until_ns: int, captures: Collection[int] = (), plane: str = "*"
    ) -> bool:
        """Return whether in that time a capture point lost packets of many connections at once.

        One of *captures*, all without them, that may show *plane*.
        """
        first, last = since_ns // SECOND_NS - 1, until_ns // SECOND_NS + 1
        return any(
            first <= second <= last
            and len(hit) >= BURST_CONNECTIONS
            and (not captures or capture in captures)
            and (plane == "*" or self._captures[capture].plane in (None, plane))
            for (capture, second), hit in self._bursts.items()
        )

    def lost_packets(self, since_ns: int, until_ns: int, plane: str) -> bool:
        """Return whether a capture point of *plane* may have lost any packet in that time."""
        # Where one is lost, others may be, of connections that show no hole: all of whose packets were lost,
        # or that begin in the middle after it.
        return any(
            plane == "*" or self._captures[capture].plane in (None, plane)
            for capture in self._losses.captures_in(since_ns, until_ns)
        )

    def fell_silent(self, since_ns: int, until_ns: int, plane: str) -> bool:
        """Return whether no capture point that may show *plane* saw a call in nearly all of that time."""
        seen = [c.number for c in self._captures if c.packets and (plane == "*" or c.plane in (None, plane))]
        return bool(seen) and all(self._silences.covers(number, since_ns, until_ns) for number in seen)

    def interruption(self, since_ns: int, until_ns: int) -> str | None:
        """Return the words of an interruption that overlaps that time; None without one."""
        return next((words for s, u, words in self._interruptions if s <= until_ns and u >= since_ns), None)

    def cut_short(self) -> bool:
        """Return whether a snap length has cut so many packets that any message may be unreadable."""
        # One in a hundred. With snap length 256 none of 1,878 requests kept its request id, so nothing may be
        # called missing there.
        return any(c.truncated_packets * 100 > c.packets for c in self._captures)

    def broke_off(self, plane: str, until_ns: int) -> str | None:
        """Return the path of a capture of *plane* whose file is cut off before *until_ns*."""
        for capture in self._captures:
            is_of_plane = (capture.plane in (None, plane) or plane == "*") and not capture.protocol
            if is_of_plane and capture.broke_off and ((capture.corrected_last_ns or 0) < until_ns):
                return capture.path
        return None


def _fits(key: tuple[str, str, str], protocol: str, callers: set[str], callees: set[str]) -> bool:
    """Return whether traffic of *key* (protocol, client, server) may be what *callers* ask of *callees*."""
    spoken, client, server = key
    if spoken not in (protocol, "?"):
        return False
    if protocol == "RPC":
        return client in callers or client in callees or not (callers or callees)
    return (not callers or client in callers) and (not callees or server in callees)
