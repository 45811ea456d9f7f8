"""For one trace: which steps could have been seen, and why not.

The captures as a whole answer for legs (coverage); this adds what the trace itself knows: the hosts that
took part, the time in which a step must have happened, what the broker still holds.
"""

from __future__ import annotations

from collections.abc import Callable

from tracer.conformance.case import Case
from tracer.conformance.coverage import Visibility
from tracer.grammar import Leg
from tracer.model import Connection, RpcFacts
from tracer.openstack.services import HOST_SERVICE, PORTAL, PROXY

__all__ = ["StepCoverage"]


LEAD_NS = 60_000_000_000
"""A creation that is first seen so shortly behind the begin of a capture may have begun before it, however
short the stall limit is: that tells how patient somebody is, not how fast the cloud is."""


class StepCoverage:
    """Answers whether a step's messages would be in the captures."""

    def __init__(
        self,
        case: Case,
        coverage: Visibility,
        addresses_of: Callable[[str], set[str]],
        fronts_of: Callable[[str], set[str]],
        stall_ns: int,
    ) -> None:
        self._fronts_of = fronts_of
        self._case = case
        self._captures = coverage
        self._addresses_of = addresses_of
        self._stall_ns = stall_ns
        self._known: dict[tuple[str, bool], str | None] = {}

    def would_show(self, step: str) -> bool:
        return self.why_not(step) is None

    def plane_is_given(self, connection: Connection) -> bool:
        """Tell whether a capture's name tells the plane of *connection*."""
        return self._captures.plane_is_given(connection)

    def whole(self, step: str) -> bool:
        """Tell whether the plane of *step* is captured without holes, from before this trace on."""
        return self.why_not(step, strict=False) is None

    def why_not(self, step: str, strict: bool = True) -> str | None:
        """Return why *step* could not have been seen in this trace, None if it would have been.

        Without *strict*, an end that was never seen at all is no reason: of an optional step it only
        says that nobody needed it.
        """
        key = (step, strict)
        if key not in self._known:
            reasons = [self._leg(step, leg, strict) for leg in self._case.grammar.legs(step)[:1]]
            # Of several ways of doing a step the grammar names the usual one first: its absence counts.
            self._known[key] = reasons[0] if reasons else None
        return self._known[key]

    def _ends(self, role: str) -> set[str]:
        """Return the addresses of *role* in this trace, else in all captures."""
        case = self._case
        if role == HOST_SERVICE and case.attempts:
            return set(case.attempts[-1].addresses)
        if role == case.grammar.api and case.trace.created is not None:
            record = case.records.get(case.trace.created.serial)
            if record is not None and record.callee == role:
                return {record.callee_address}
        return self._addresses_of(role)

    def _leg(self, step: str, leg: Leg, strict: bool) -> str | None:
        callers, callees = self._ends(leg.caller), self._ends(leg.callee)
        if leg.protocol == "REST" and leg.caller not in (PORTAL, PROXY):
            callees = callees | self._fronts_of(leg.callee)
        coverage = self._captures
        names = leg.caller, leg.callee
        reason = coverage.unseen(leg.plane, leg.protocol, callers, callees, names, strict)
        if reason is not None:
            interruption = coverage.interruption(*self._window(step)[:2])
            # Ends that were never seen may have spoken in the time of which nothing is known.
            may_be = (
                interruption
                and coverage.unseen(leg.plane, leg.protocol, callers, callees, names, False) is None
            )
            return interruption if may_be else reason
        if not self._question_was_seen(step):
            return "a reply is known by its question alone, which is not in the captures"
        if self._case.trace.creates and self._case.grammar.is_read(step) and not self._post_was_seen():
            # What only reads the database holds no id in any release: time and place join it to the request.
            api = self._case.grammar.api
            return f"it carries no id: it is found by {api}'s POST, which is not in the captures"
        since_ns, until_ns, closed = self._window(step)
        begin_ns, end_ns = coverage.span_ns(leg.plane, leg.protocol, callers | callees)
        where = leg.plane if leg.plane != "*" else f"{leg.caller} > {leg.callee}"
        first_ns = self._case.first_ns
        first_step = self._first_step()
        lead_ns = max(self._stall_ns, LEAD_NS)
        if first_step is None or (self._order(step) < first_step and first_ns - begin_ns < lead_ns):
            return "the capture may have begun behind it"
        if begin_ns > since_ns:
            return f"the capture of {where} may have begun behind it"
        if end_ns < (until_ns if closed else since_ns):
            return f"the capture of {where} may end before it"
        if coverage.one_way(leg.protocol, callers, callees):
            return f"only one direction between {leg.caller} and {leg.callee} is captured"
        path = coverage.broke_off(leg.plane, until_ns)
        if path is not None:
            return f"{path} breaks off before it"
        if coverage.cut_short():
            return "the packets are cut by the snap length"
        interruption = coverage.interruption(since_ns, until_ns)
        if interruption is not None:
            return interruption
        if coverage.damaged(leg.protocol, callers, callees, since_ns, until_ns):
            return f"bytes between {leg.caller} and {leg.callee} are missing in the capture at that time"
        if self._is_passed_on(step):
            return "the request was passed on, but these packets of it are not in the captures"
        if self._case.trace.curtailed:
            return "calls of that time were forgotten for lack of room"
        return None

    def _is_passed_on(self, step: str) -> bool:
        """Tell whether the request must have passed *step*: it was seen, or answered, further inwards.

        Only a service gives a request an id. A proxy that answers by itself gives none.
        """
        request = self._case.grammar.request
        if step not in request:
            return False
        inner = request[request.index(step) + 1 :]
        if any(not w.all_steps.isdisjoint(inner) for w in self._case.witnesses):
            return True
        legs = (self._case.trace.created, getattr(self._case.trace.created, "front", None))
        return any(leg is not None and bool(getattr(leg.facts, "answered_id", "")) for leg in legs)

    def _order(self, step: str) -> int:
        return self._case.grammar.places.get(step, 0)

    def _first_step(self) -> int | None:
        """Return the place of the first step that was seen of this trace; None when none was."""
        return min((self._order(s) for w in self._case.witnesses for s in w.all_steps), default=None)

    def _question_was_seen(self, step: str) -> bool:
        """Tell whether a reply that *step* is would be known for what it is; True for other steps."""
        methods = self._case.grammar.replies(step)
        return not methods or any(
            isinstance(call.facts, RpcFacts) and call.facts.mode == "call" and call.facts.method in methods
            for call in self._case.trace.calls
        )

    def _post_was_seen(self) -> bool:
        created = self._case.trace.created
        if created is None or not created.operation.startswith("POST "):
            return False
        return self._case.records[created.serial].callee == self._case.grammar.api

    def _window(self, step: str) -> tuple[int, int, bool]:
        """Return the time in which *step* must have happened, by the steps seen around it.

        The third is False where no later step and no end was seen: then it may happen yet, and the time ends
        with what is known of the trace.
        """
        order = self._order(step)
        since_ns, until_ns = self._case.first_ns, 0
        for witness in self._case.witnesses:
            for seen in witness.steps:
                at = self._order(seen)
                if at < order:
                    since_ns = max(since_ns, witness.call.started_ns)
                elif at > order and (not until_ns or witness.call.started_ns < until_ns):
                    until_ns = witness.call.started_ns
        trace = self._case.trace
        # A server that is active has all its steps behind it, and one that failed the step that did.
        ended_ns = trace.active_ns or trace.failed_ns or 0
        closed = until_ns != 0 or ended_ns > since_ns
        last_ns = max(ended_ns, self._case.last_own_ns(), since_ns)
        if not until_ns or self._case.step_calls(step):
            # One that was seen is lacking in another attempt, which is later than the steps around this one.
            until_ns = last_ns
        return min(since_ns, until_ns), until_ns, closed

    def captured_until_ns(self, step: str | None) -> int:
        """Return until when every plane that could carry *step* is captured."""
        planes = {leg.plane for leg in self._case.grammar.legs(step)} if step else {"*"}
        ends = [
            self._captures.span_ns(plane)[1]
            for plane in planes
            if plane == "*" or plane in self._captures.planes()
        ]
        return min(ends, default=0)

    @property
    def stall_ns(self) -> int:
        """Silence from which on something will not come any more."""
        return self._stall_ns

    def seen_for_ns(self, plane: str, since_ns: int) -> int:
        """Return how long *plane* is captured behind *since_ns*: more is not known of what came later."""
        return max(0, self._captures.span_ns(plane)[1] - since_ns)

    def quiet_is_known(self, step: str | None, last_ns: int) -> bool:
        """Tell whether silence after *last_ns* means something: the next step would be seen."""
        if step is None:
            return False
        return self.would_show(step) or self.owed_by_broker(step)

    def owed_by_broker(self, step: str) -> bool:
        """Tell whether the broker still holds the message that *step* waits for."""
        last = [
            w
            for w in self._case.witnesses
            if isinstance(w.call.facts, RpcFacts) and w.call.facts.mode in ("call", "cast") and w.steps
        ]
        return (
            bool(last)
            and last[-1].call.result in ("undelivered", "unacked", "unroutable")
            and (min(map(self._order, last[-1].steps)) < self._order(step))
        )
