"""Turns a call into the record that reports show: its plane and roles, resolved when they are asked for."""

from __future__ import annotations

from collections.abc import Iterable

from tracer.model import Call, CallRecord, Capture, ConnectFacts, Connection, RestFacts
from tracer.openstack.services import APIS, CALLS_OTHERS, OUTSIDE, PROTOCOL_OF_PORT, PROXY, VRM
from tracer.topology.evidence import Evidence
from tracer.topology.file import GivenTopology
from tracer.topology.misnamed import misnamed
from tracer.topology.planes import EXTERNAL_API, INTERNAL_BASE, Planes
from tracer.topology.roles import Roles

__all__ = ["Topology"]


class Topology:
    """Planes and roles together; turns calls into records."""

    def __init__(self, captures: list[Capture], given: GivenTopology | None = None) -> None:
        self.given = given or GivenTopology()
        self._captures = captures
        self.planes = Planes(captures, self.given)
        self.evidence = Evidence(self.given)
        self.roles = Roles(self.given, self.evidence)

    def observe(self, call: Call, new: bool = True) -> None:
        """Learn from *call*, which has begun (*new*) or changed."""
        self.evidence.observe(call)
        if not new and call.back is None:
            return
        connection = call.connection
        self.planes.observe(connection, call.protocol if not isinstance(call.facts, ConnectFacts) else "?")
        if isinstance(call.facts, RestFacts | ConnectFacts) and self.planes.given(connection) != EXTERNAL_API:
            self.evidence.inner.asks(call)
        if isinstance(call.facts, RestFacts):
            if not call.facts.forwarded_for and self.planes.given(connection) == EXTERNAL_API:
                # According to the document, APIs on the external plane are reached through the proxy.
                self.evidence.asked_outside(call)
            if connection.server_role == VRM:
                self.planes.observe(connection, VRM)
            if call.facts.forwarded_for:
                self.planes.observe(connection, "behind")
            elif connection.client_role in CALLS_OTHERS:
                self.planes.observe(connection, "service")
            if call.back is not None:
                self.planes.observe(connection, "front")

    def plane_of(self, connection: Connection) -> str:
        """Return the plane of *connection*: given, else inferred."""
        return self.planes.given(connection) or self.planes.inferred(connection)

    def plane(self, call: Call, caller: str) -> str:
        """Return the plane of *call*; *caller* is its caller's role."""
        given = self.planes.given(call.connection)
        if given is not None:
            return given
        plane = self.planes.inferred(call.connection)
        if plane == INTERNAL_BASE and caller in OUTSIDE:
            # One flat network: the addresses say Internal_base for everything. The administrator's and the
            # SC's calls are on External_api by the document.
            return EXTERNAL_API
        return plane

    def misnamed(self, connections: Iterable[Connection]) -> str | None:
        """Return which planes look misnamed by what *connections* carry, in words; None where none does."""
        return misnamed(self._captures, connections, self.planes.given, self.roles)

    def record(self, call: Call, step: str | None = None, ambiguous: bool = False) -> CallRecord:
        """Return *call* as reports show it: roles, plane and evidence resolved.

        *step* is the step that it is taken for; *ambiguous* says that it may belong to another trace.
        """
        caller, callee = self.caller(call), self.callee(call)
        through = self.evidence.fronts.behind(call.connection.server) is not None and callee != PROXY
        frames = call.frames
        if through and call.back is not None:
            # Both legs are one call between services: its evidence is the frames of both.
            frames = frames + call.back.frames
        facts = call.facts
        ahead_ns = 0
        if frames:
            clock = self._captures[frames[0][0]].clock
            ahead_ns = 0 if clock.is_right else clock.as_captured(call.started_ns) - call.started_ns
        own = facts.answered_id if isinstance(facts, RestFacts) else ""
        return CallRecord(
            call.index,
            self.plane(call, caller),
            call.protocol,
            caller,
            callee,
            call.operation,
            call.result,
            call.started_ns,
            None if call.ended_ns is None else max(0, call.ended_ns - call.started_ns),
            tuple(dict.fromkeys((self._captures[capture].path, number) for capture, number in frames)),
            step,
            ambiguous,
            call.error,
            PROXY if through else "",
            str(call.caller.endpoint.address) if call.caller else "",
            str(call.callee.endpoint.address) if call.callee else "",
            own or getattr(facts, "request_id", ""),
            action=getattr(facts, "action", ""),
            message_id=getattr(facts, "msg_id", ""),
            queue=getattr(facts, "routing_key", ""),
            fate=tuple((self._captures[capture].path, number) for capture, number in call.fate),
            ahead_ns=ahead_ns,
            answered_by=PROXY if through and _lacks_service(call, callee) else "",
            said=getattr(facts, "said", ""),
            spoken=call.connection.protocol or PROTOCOL_OF_PORT.get(call.connection.server.port, ""),
        )

    def caller(self, call: Call) -> str:
        """Return the role that made *call*."""
        return self.roles.caller(call)

    def callee(self, call: Call) -> str:
        """Return the role that *call* is made to.

        A client outside of the cloud reaches an API through its proxy, even where no forwarded request shows
        that there is one; but not where the service is seen to stand alone.
        """
        callee = self.roles.callee(call)
        if callee in APIS and self.roles.is_stranger(call) and self.plane_of(call.connection) == EXTERNAL_API:
            return callee if self.evidence.fronts.stands_alone(callee) else PROXY
        return callee


def _lacks_service(call: Call, callee: str) -> bool:
    """Return whether a proxy answered *call* by itself, in place of *callee* behind it.

    Nothing was passed on, and the answer lacks the request id that a service gives each of its own. That of
    a missing login may lack it: glance checks the token before it gives one.
    """
    facts = call.facts
    if not isinstance(facts, RestFacts) or callee not in APIS or call.back is not None:
        return False
    return facts.status >= 400 and facts.status != 401 and not facts.answered_id
