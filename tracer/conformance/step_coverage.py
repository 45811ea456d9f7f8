"""Answers, for one trace, which steps the captures could have shown, and why not the others.

`Coverage` answers for legs, over all captures. This module adds what is known from the trace: the hosts that
took part, the time in which a step must have happened, and the messages that the broker still holds.
"""

from __future__ import annotations

from collections.abc import Callable

from tracer.conformance.case import Case
from tracer.conformance.coverage import CLOCK_NS
from tracer.conformance.hidden import clocks_hide, lacks_answer, taken_ns
from tracer.conformance.visibility import Visibility
from tracer.grammar import Leg
from tracer.model import Call, Connection, RpcFacts
from tracer.openstack.services import ADMIN, HOST_SERVICE, OUTSIDE, PORTAL, PROXY

__all__ = ["StepCoverage"]


SECOND_NS = 1_000_000_000
LEAD_NS = 60_000_000_000
"""A creation that is first seen within this time after the start of a capture may have begun before it.

A stall limit below it does not shorten it: that is the user's patience, not the speed of the cloud."""


class StepCoverage:
    """Answers whether the calls of a step would be in the captures, had they been made."""

    def __init__(
        self,
        case: Case,
        coverage: Visibility,
        addresses_of: Callable[[str], set[str]],
        fronts_of: Callable[[str], set[str]],
        stall_ns: int,
        works_with: Callable[[str], bool] = lambda role: False,
    ) -> None:
        self._works_with = works_with
        self._fronts_of = fronts_of
        self._case = case
        self._captures = coverage
        self._addresses_of = addresses_of
        self._stall_ns = stall_ns
        self._known: dict[tuple[str, bool], str | None] = {}

    def would_show(self, step: str) -> bool:
        """Return whether *step* would have been seen in this trace."""
        return self.why_not(step) is None

    def plane_is_given(self, connection: Connection) -> bool:
        """Return whether a capture's name states the plane of *connection*."""
        return self._captures.plane_is_given(connection)

    def would_show_call(self, plane: str, caller: str, callee: str, since_ns: int) -> bool:
        """Return whether a REST call of *caller* to *callee* from *since_ns* on would have been seen."""
        captures, trace = self._captures, self._case.trace
        until_ns = max(trace.failed_ns or 0, self._case.last_own_ns())
        callers = self._addresses_of(caller)
        callees = self._addresses_of(callee) | self._fronts_of(callee)
        begin_ns, end_ns = captures.span_ns(plane, "REST", callers | callees)
        return not (
            begin_ns > since_ns
            or end_ns < until_ns
            or captures.unseen(plane, "REST", callers, callees, (caller, callee))
            or captures.one_way("REST", callers, callees, since_ns, until_ns)
            or captures.cut_short()
            or captures.interruption(since_ns, until_ns)
            or captures.is_in_burst(since_ns, until_ns)
            or captures.damaged("REST", callers, callees, since_ns, until_ns)
            or captures.broke_off(plane, until_ns)
            or trace.curtailed
        )

    def has_shown_call(self, caller: str, callee: str) -> bool:
        """Return whether any REST call of *caller* to *callee*, or to a proxy before it, was seen."""
        servers = self._addresses_of(callee) | self._fronts_of(callee)
        return self._captures.spoke("REST", self._addresses_of(caller), servers)

    def whole(self, step: str) -> bool:
        """Return whether the plane of *step* was captured without gaps, from before this trace on."""
        return self.why_not(step, strict=False) is None

    def why_not(self, step: str, strict: bool = True) -> str | None:
        """Return why *step* could not have been seen in this trace, None if it would have been.

        Without *strict*, an end that was never seen at all is no reason: for an optional step it only means
        that it was not needed.
        """
        key = (step, strict)
        if key not in self._known:
            # Of several legs by which a step can be done the grammar names the usual one first.
            reasons = [self._leg(step, leg, strict) for leg in self._case.grammar.legs(step)[:1]]
            self._known[key] = reasons[0] if reasons else None
        return self._known[key]

    def would_be_told(self, step: str, by_state: bool = False) -> bool:
        """Return whether nova would have been seen to say that *step* is done, were it done.

        With *by_state* any further state counts: the host said that it has begun the step.
        """
        grammar = self._case.grammar
        legs = grammar.state_legs if by_state else grammar.telling(step)
        return any(self._leg(step, leg, strict=True) is None for leg in legs)

    def may_lack_states(self, since_ns: int, until_ns: int) -> bool:
        """Return whether a state that the last host saved in that time may lie in a hole of the captures.

        Or behind their end: another plane, which goes on for longer, may show that the VM is in error.
        """
        ends = [self._captures.span_ns(leg.plane)[1] for leg in self._case.grammar.state_legs]
        return (bool(ends) and max(ends) + CLOCK_NS < until_ns) or any(
            self._captures.is_in_burst(since_ns, until_ns, (), leg.plane)
            or self._captures.damaged(leg.protocol, self._ends(leg.caller), (), since_ns, until_ns)
            for leg in self._case.grammar.state_legs
        )

    def absent(self, step: str) -> str:
        """Return, in words, that this cloud lacks the service that *step* needs; '' where it may have it.

        The requester itself is seen to ask the service behind it. Of packets that are cut nothing is claimed.
        """
        grammar = self._case.grammar
        if step not in (grammar.portal_step, grammar.proxy_step) or self._captures.cut_short():
            return ""
        request = [w.record for w in self._case.witnesses if not w.all_steps.isdisjoint(grammar.inward)]
        legs = [leg for leg in request if leg.caller in OUTSIDE and not leg.operation.startswith("CONNECT")]
        lacks, asker = PORTAL, next((leg for leg in legs if leg.caller == ADMIN), None)
        if step == grammar.proxy_step:
            lacks, asker = PROXY, next((leg for leg in legs if leg.callee == grammar.api), None)
        if asker is None or asker.callee == lacks:
            return ""
        return f"no {lacks}: {asker.caller} ({asker.caller_address}) asks {asker.callee} itself"

    def callee(self, step: str) -> str:
        """Return the role that *step* asks, as the grammar states it."""
        return self._case.grammar.legs(step)[0].callee

    def has_callee(self, step: str) -> bool:
        """Return whether this cloud is known to have the service that *step* asks."""
        callee = self.callee(step)
        return bool(self._addresses_of(callee)) or self._works_with(callee)

    def _ends(self, role: str) -> set[str]:
        """Return the addresses of *role* in this trace, else in all captures."""
        # Of many hosts and API workers only those of this trace matter: another one may be captured.
        case = self._case
        if role == HOST_SERVICE and case.attempts and (case.attempts[-1].addresses or case.attempts[-1].call):
            return set(case.attempts[-1].addresses)
        if role == case.grammar.api and case.trace.created is not None:
            record = case.records.get(case.trace.created.serial)
            if record is not None and record.callee == role:
                # It may have one address for its clients and another one inside.
                inside = {w.record.caller_address for w in case.witnesses if w.record.caller == role}
                return {record.callee_address} | (inside - {""} if record.caller in OUTSIDE else set())
        return self._addresses_of(role)

    def _leg(self, step: str, leg: Leg, strict: bool) -> str | None:
        """Return why a call of *step* on *leg* could not have been seen, None if it would have been."""
        callers, callees = self._ends(leg.caller), self._ends(leg.callee)
        coverage = self._captures
        if leg.protocol == "REST" and leg.caller not in (PORTAL, PROXY):
            # Services reach each other directly or through the proxy's internal address.
            fronts = self._fronts_of(leg.callee)
            if strict and fronts and not callees and not coverage.spoke("REST", callers, fronts):
                # Known by the address alone at which clients from outside ask for it.
                return f"{leg.caller} > {leg.callee} was never seen in the captures"
            callees = callees | fronts
            if strict and coverage.is_elsewhere(leg.plane, leg.protocol, callees):
                return f"{leg.callee} was never seen on {leg.plane}"
        # From what concerns all captures to what concerns one moment: the first reason is reported.
        return (
            self._unheard(step, leg, callers, callees, strict)
            or self._not_joined(step)
            or self._out_of_time(step, leg, callers | callees)
            or self._lost(step, leg, callers, callees, strict)
            or self._elsewhere(step, leg)
        )

    def _unheard(self, step: str, leg: Leg, callers: set[str], callees: set[str], strict: bool) -> str | None:
        """Return why the captures show no traffic between the two ends at all, None if they would."""
        coverage, names = self._captures, (leg.caller, leg.callee)
        reason = coverage.unseen(leg.plane, leg.protocol, callers, callees, names, strict)
        if reason is not None:
            interruption = coverage.interruption(*self._window(step)[:2])
            # An end that was never seen may have spoken during an interruption: that is the better reason.
            may_be = (
                interruption
                and coverage.unseen(leg.plane, leg.protocol, callers, callees, names, False) is None
            )
            return interruption if may_be else reason
        return None

    def _not_joined(self, step: str) -> str | None:
        """Return why a call of *step* would not be known as one of this trace, None if it would."""
        if not self._question_was_seen(step):
            return "a reply is only recognised by its call, which is not in the captures"
        if self._case.trace.creates and self._case.grammar.is_read(step) and not self._post_was_seen():
            # Quota reads carry no id in any release: they are joined to the request by its time and address.
            api = self._case.grammar.api
            return f"it carries no id and is only found by {api}'s POST, which is not in the captures"
        return None

    def _out_of_time(self, step: str, leg: Leg, ends: set[str]) -> str | None:
        """Return why the time of *step* may lie outside of the captures, None if it is captured."""
        coverage = self._captures
        path = coverage.without_times()
        if path is not None:
            return f"the packets of {path} have no times, so their order is not known"
        since_ns, until_ns, closed = self._window(step)
        begin_ns, end_ns = coverage.span_ns(leg.plane, leg.protocol, ends)
        where = leg.plane if leg.plane != "*" else f"{leg.caller} > {leg.callee}"
        first_ns = self._case.first_ns
        first_step = self._first_step()
        lead_ns = max(self._stall_ns, LEAD_NS)
        if first_step is None or (self._order(step) < first_step and first_ns - begin_ns < lead_ns):
            return "the capture may have begun after it"
        if begin_ns > since_ns:
            return f"the capture of {where} may have begun after it"
        if end_ns < (until_ns if closed else since_ns):
            return f"the capture of {where} may end before it"
        return None

    def _lost(self, step: str, leg: Leg, callers: set[str], callees: set[str], strict: bool) -> str | None:
        """Return which bytes of that time are not in the captures, None if all are."""
        coverage = self._captures
        is_over = self._was_passed(step) or self._case.trace.active_ns is not None
        if is_over and clocks_hide(self._case, coverage, step, leg.plane, callees):
            return "the clocks of the captures cannot be compared well enough"
        since_ns, until_ns, _ = self._window(step)
        if coverage.one_way(leg.protocol, callers, callees, since_ns, until_ns):
            return f"only one direction between {leg.caller} and {leg.callee} is captured"
        path = coverage.broke_off(leg.plane, until_ns)
        if path is not None:
            return f"{path} breaks off before it"
        if coverage.cut_short():
            return "the packets are cut by the snap length"
        interruption = coverage.interruption(since_ns, until_ns)
        if interruption is not None:
            return interruption
        # What was optional and never seen is not needed, so a burst elsewhere does not make it doubtful.
        if strict and coverage.is_in_burst(since_ns, until_ns, (), leg.plane):
            return "packets of many connections are missing in the capture at that time"
        if coverage.damaged(leg.protocol, callers, callees, since_ns, until_ns):
            return f"bytes between {leg.caller} and {leg.callee} are missing in the capture at that time"
        if strict and (
            coverage.lost_packets(since_ns, until_ns, leg.plane)
            or lacks_answer(self._case, leg.plane, since_ns, until_ns)
        ):
            return "packets are missing in the capture at that time"
        if strict and self._was_passed(step) and coverage.fell_silent(since_ns, until_ns, leg.plane):
            return "the capture is silent at that time, and a later step was seen after it"
        return None

    def _elsewhere(self, step: str, leg: Leg) -> str | None:
        """Return what else may hide a call: it went past the capture points, or was dropped; or None."""
        if leg.caller == self._case.grammar.api and not self._api_is_known():
            return f"which {leg.caller} took the request is not in the captures"
        if self._is_passed_on(step):
            return "the request was passed on, but these packets of it are not in the captures"
        if self._case.trace.curtailed:
            return "calls of that time were dropped for lack of room"
        return None

    def _was_passed(self, step: str) -> bool:
        """Return whether a later step was seen."""
        order = self._order(step)
        return any(self._order(seen) > order for w in self._case.witnesses for seen in w.steps)

    def _api_is_known(self) -> bool:
        """Return whether the request was seen to reach one of the services that may have taken it."""
        # Another one may be on a host that is not captured: then nothing that it did is there.
        grammar, created = self._case.grammar, self._case.trace.created
        legs = [w.record for w in self._case.witnesses if not w.all_steps.isdisjoint(grammar.request)]
        if created is not None:
            legs.append(self._case.records[created.serial])
        return any(leg.callee == grammar.api for leg in legs)

    def _is_passed_on(self, step: str) -> bool:
        """Return whether the request must have passed *step*: it was seen, or answered, further inwards.

        Only a service gives a request an id. A proxy that answers by itself gives none.
        """
        request = self._case.grammar.request
        if step not in request or self._case.step_calls(step):
            return False
        if step == self._case.grammar.portal_step:
            # A portal may ask the cloud of its own accord.
            return False
        inner = request[request.index(step) + 1 :]
        worked = any(
            self._order(seen) > self._order(request[-1]) for w in self._case.witnesses for seen in w.steps
        )
        if worked and step == self._case.grammar.proxy_step and not self._proxy_is_seen():
            # Its service did the work. Where no request at all is seen to be forwarded, the client asks that
            # service itself, or the proxy's other side is not captured.
            return True
        if any(not w.all_steps.isdisjoint(inner) for w in self._case.witnesses):
            return True
        legs = (self._case.trace.created, getattr(self._case.trace.created, "front", None))
        return any(leg is not None and bool(getattr(leg.facts, "answered_id", "")) for leg in legs)

    def _proxy_is_seen(self) -> bool:
        """Return whether any request was seen to be forwarded by a proxy."""
        return self._captures.spoke(
            "REST", self._addresses_of(PROXY), self._addresses_of(self._case.grammar.api)
        )

    def _order(self, step: str) -> int:
        return self._case.grammar.places.get(step, 0)

    def _first_step(self) -> int | None:
        """Return the place of the first step that was seen; None when none was."""
        return min((self._order(s) for w in self._case.witnesses for s in w.all_steps), default=None)

    def _question_was_seen(self, step: str) -> bool:
        """Return whether the call was seen to which *step* is the reply; True for steps that are no reply."""
        # A reply on the wire names no method: it is known by the message id of its call.
        methods = self._case.grammar.replies(step)
        return not methods or any(
            isinstance(call.facts, RpcFacts) and call.facts.mode == "call" and call.facts.method in methods
            for call in self._case.trace.calls
        )

    def _post_was_seen(self) -> bool:
        """Return whether the inner leg of the POST, to nova-api itself, was seen with its request line."""
        created = self._case.trace.created
        if created is None or not created.operation.startswith("POST "):
            return False
        return self._case.records[created.serial].callee == self._case.grammar.api

    def _window(self, step: str) -> tuple[int, int, bool]:
        """Return (since, until, closed): the time in which *step* must have happened, by the steps around it.

        *closed* is False where no later step and no end was seen: the step may still come, and the time ends
        with the last activity of the trace.
        """
        order, places = self._order(step), self._case.grammar.places
        begun: dict[str, int] = {}
        until_ns = 0
        attempt = self._case.grammar.attempt if len(self._case.attempts) > 1 else ()
        for witness in self._case.witnesses:
            for seen in witness.steps:
                at = places.get(seen, 0)
                if at < order:
                    started_ns = witness.call.started_ns
                    is_earlier = (
                        step in attempt and seen in attempt and started_ns < self._case.attempts[-1].since_ns
                    )
                    if not is_earlier:
                        begun[seen] = min(begun.get(seen, started_ns), started_ns)
                elif at > order and (not until_ns or witness.call.started_ns < until_ns):
                    until_ns = witness.call.started_ns
        # A step before it may have calls after it as well: its first one counts, unless that may be hidden.
        since_ns = max(
            (ns for seen, ns in begun.items() if not self._may_have_begun_before(seen, ns)),
            default=self._case.first_ns,
        )
        trace = self._case.trace
        # Of an active VM all steps are over, and of a failed one the step that failed.
        ended_ns = trace.active_ns or trace.failed_ns or 0
        closed = until_ns != 0 or ended_ns > since_ns
        last_ns = max(ended_ns, self._case.last_own_ns(), since_ns)
        if not until_ns or self._case.step_calls(step):
            # A step that was seen is asked about because a later attempt lacks it: that one may lie after the
            # steps around the first.
            until_ns = last_ns
        return min(since_ns, until_ns), until_ns, closed

    def _may_have_begun_before(self, step: str, seen_ns: int) -> bool:
        """Return whether calls of *step*, which may be repeated, may be hidden before the first one seen.

        Before the begin of the capture, or where packets are missing.
        """
        grammar, first_ns, captures = self._case.grammar, self._case.first_ns, self._captures
        return grammar.repeats(step) and any(
            captures.span_ns(leg.plane)[0] > first_ns
            or captures.lost_packets(first_ns, seen_ns, leg.plane)
            or lacks_answer(self._case, leg.plane, first_ns, seen_ns)
            for leg in grammar.legs(step)[:1]
        )

    def captured_until_ns(self, step: str | None, by_state: bool = False) -> int:
        """Return until when every plane that could carry *step* is captured; 0 if none is.

        With *by_state* these are the planes that could carry the next state of a host at this step.
        """
        # The earliest end: what goes on only on another plane does not show that the step did not come.
        grammar = self._case.grammar
        legs = grammar.legs(step) if step else ()
        if step and not self.would_show(step):
            legs = (grammar.state_legs if by_state else grammar.telling(step)) or legs
        planes = {leg.plane for leg in legs} if step else {"*"}
        ends = [
            self._captures.span_ns(plane)[1]
            for plane in planes
            if plane == "*" or plane in self._captures.planes()
        ]
        return min(ends, default=0)

    def clock_error_ns(self, call: Call, other: Call) -> int | None:
        """Return how far the clocks by which two calls were seen may differ; None where it is not known."""
        some, others = ({capture for capture, _ in each.frames} for each in (call, other))
        return self._captures.clock_error_ns(some, others)

    def order_is_known(self) -> bool:
        """Return whether the clocks tell the order of the calls of this trace."""
        if self._captures.without_times() is not None:
            return False
        seen = {capture for w in self._case.witnesses for capture, _ in w.call.frames}
        took_ns = self._case.last_own_ns() - self._case.first_ns
        error_ns = self._captures.clock_error_ns(seen, ()) if len(seen) > 1 else 0
        return error_ns is None or error_ns - CLOCK_NS <= took_ns

    @property
    def stall_ns(self) -> int:
        """Silence after which a step counts as not coming any more."""
        return self._stall_ns

    def seen_for_ns(self, plane: str, since_ns: int) -> int:
        """Return how long *plane* is captured after *since_ns*."""
        return max(0, self._captures.span_ns(plane)[1] - since_ns)

    def quiet_is_known(self, step: str | None, last_ns: int, by_state: bool = False) -> bool:
        """Return whether silence after *last_ns* is evidence: *step*, the next one, would have been seen.

        Or nova would have been seen to say that it is done; *by_state* as in `would_be_told`.
        """
        if step is None:
            return False
        return self.would_show(step) or self.owed_by_broker(step) or self.would_be_told(step, by_state)

    def may_lack_answer(self, call: Call, ended_ns: int = 0) -> bool:
        """Return whether the answer to *call* may lie in a hole of the captures, or behind their end.

        Behind their end only where the workflow went on longer, until *ended_ns*.
        """
        connection = call.connection
        ends = connection.client.address, connection.server.address
        if self._until(call) < ended_ns:
            return True
        # An answer that comes later than a stall is none.
        until_ns = call.started_ns + max(self._stall_ns, LEAD_NS)
        if self._captures.is_in_burst(call.started_ns, until_ns, connection.captures):
            return True
        return self._captures.damaged(call.protocol, {ends[0]}, {ends[1]}, call.started_ns, until_ns)

    def _until(self, call: Call) -> int:
        """Return until when the plane of *call* is captured."""
        record = self._case.records.get(call.serial)
        plane = record.plane if record is not None and record.plane in self._captures.planes() else "*"
        ends = {call.connection.client.address, call.connection.server.address}
        return self._captures.span_ns(plane, call.protocol, ends)[1]

    def shows_attempts_until(self, ended_ns: int) -> bool:
        """Return whether another attempt before *ended_ns* would be in the captures, by the time alone."""
        attempt = self._case.grammar.attempt
        return not attempt or self.captured_until_ns(attempt[0]) >= ended_ns

    def owed_by_broker(self, step: str, ended_ns: int = 0) -> bool:
        """Return whether the broker still holds, or dropped, the message that *step* waits for.

        Where the workflow ended at *ended_ns* it must have held it until then.
        """
        # Then the step cannot have come, whether it would be seen or not.
        last = [
            w
            for w in self._case.witnesses
            if isinstance(w.call.facts, RpcFacts) and w.call.facts.mode in ("call", "cast") and w.steps
        ]
        if not last or min(map(self._order, last[-1].steps)) >= self._order(step):
            return False
        call, taker = last[-1].call, last[-1].record.callee
        if call.result not in ("undelivered", "unacked"):
            return call.result == "unroutable"
        if self._until(call) < ended_ns or (call.result == "undelivered" and taken_ns(self._case, last[-1])):
            return False
        # Its delivery comes at once, or is not seen because it was lost.
        since_ns, until_ns = call.started_ns, call.started_ns + SECOND_NS
        takers = self._addresses_of(taker)
        return not (
            self._captures.is_in_burst(since_ns, until_ns, call.connection.captures)
            or (takers and self._captures.damaged("RPC", takers, (), since_ns, until_ns))
        )
