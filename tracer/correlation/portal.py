"""The administrator's calls to the portal: the one around each request, and those without a request."""

# The portal (SC) is called by the administrator and calls the cloud; nothing on the wire joins the two calls
# by an id when the portal's answer names no server. So the name in the body and nesting in time decide.
# Time alone does not: in ok-concurrent-20 twenty such calls are open at once.

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import islice

from tracer.correlation.call_store import CallStore
from tracer.correlation.requests import SKEW_NS, Pending, Request, rest
from tracer.model import BOTH, Call

__all__ = ["find_portal_calls", "refused_at_portal"]


def find_portal_calls(store: CallStore, requests: list[Request], pending: Pending) -> None:
    """Find the administrator's call of each request: same name or same VM, and around it in time.

    One order may lead to several requests: after one that was refused the portal tries again.
    """
    known = _portal_calls_by_name(store)
    tries = _Tries()
    for request in sorted(requests, key=_begun):
        first = request.first
        if first is None:
            continue
        best: Call | None = None
        for key in (("name", rest(first).name), *(("id", server_id) for server_id in request.server_ids)):
            for call in _begun_before(known.get(key, []), first.started_ns + SKEW_NS):
                # The latest order that fits is taken: an earlier one of the same name has its own request.
                # One with an earlier try comes second, since that try may have been its only one.
                if best is not None and not tries.prefers(call, best):
                    if tries.is_free(best):
                        break
                    continue
                if (
                    tries.may_lead_to(call, request)
                    and call.connection.client.address != first.connection.client.address
                    and _around(call, first)
                ):
                    best = call
        if best is not None:
            tries.leads_to(best, request)
            pending.led_further(best)
    _find_lone_portal_calls(store, requests, tries)
    store.orders_shared = tries.shared


class _Tries:
    """The latest request to which each order led. The order may lead to another once this one was refused."""

    def __init__(self) -> None:
        self._latest: dict[int, Request] = {}
        self.shared: set[int] = set()
        """Serials of the orders that led to several requests."""

    def leads_to(self, order: Call, request: Request) -> None:
        """Record that *order* is the portal's call of *request*."""
        if order.serial in self._latest:
            self.shared.add(order.serial)
        self._latest[order.serial] = request
        request.portal = order
        request.add([order])

    def is_free(self, order: Call) -> bool:
        """Return whether *order* led to no request yet."""
        return order.serial not in self._latest

    def is_open(self, order: Call) -> bool:
        """Return whether *order* may lead to one more request at some time."""
        latest = self._latest.get(order.serial)
        return latest is None or _was_refused(latest)

    def may_lead_to(self, order: Call, request: Request) -> bool:
        """Return whether *request* may have come of *order*: the try before was refused by then."""
        latest = self._latest.get(order.serial)
        if latest is None:
            return True
        before, first = latest.first, request.first
        if before is None or first is None or not _was_refused(latest):
            return False
        if (
            latest.outer
            and request.outer
            and before.connection.client.address != first.connection.client.address
        ):
            return False
        return (before.ended_ns or 0) <= first.started_ns + SKEW_NS

    def prefers(self, order: Call, other: Call) -> bool:
        """Return whether *order* fits a request better than *other*: it has no other try, or it is later."""
        return (self.is_free(order), _lateness(order)) > (self.is_free(other), _lateness(other))


def _begun(request: Request) -> int:
    """Return when *request* began; a request without legs comes last."""
    return request.first.started_ns if request.first is not None else 1 << 62


def _was_refused(request: Request) -> bool:
    """Return whether the client of *request* was refused, or left without an answer."""
    asked = request.first
    return asked is not None and (rest(asked).status >= 400 or asked.result == "none")


def _portal_calls_by_name(store: CallStore) -> dict[tuple[str, str], list[Call]]:
    """Return the portal's calls by their name and by each VM that they name, in order of `_lateness`."""
    known: dict[tuple[str, str], list[Call]] = {}
    for call in sorted(store.portal, key=_lateness):
        facts = rest(call)
        # A creation's order cannot name the VM in its request; an order on an existing VM does.
        ids = facts.answered_ids if store.creates else (*facts.answered_ids, *facts.ids)
        keys = [("name", facts.name)] if facts.name else []
        for key in dict.fromkeys((*keys, *(("id", server_id) for server_id in ids))):
            known.setdefault(key, []).append(call)
    return known


def _lateness(call: Call) -> tuple[int, int]:
    """Order calls by start; of calls that began at the same time the first received counts as the latest."""
    return call.started_ns, -call.serial


def _begun_before(calls: list[Call], time_ns: int) -> Iterable[Call]:
    """Return those of *calls* that began at *time_ns* or earlier, latest first; *calls* ascend by start."""
    end = bisect_right(calls, time_ns, key=lambda call: call.started_ns)
    return (calls[at] for at in range(end - 1, -1, -1))


def _find_lone_portal_calls(store: CallStore, requests: list[Request], tries: _Tries) -> None:
    """Join requests without a portal call to a portal call of the same SC, where only one fits in time.

    This finds calls whose name was lost (a body that was cut or not captured).
    """
    left: dict[str, list[Call]] = {}
    for call in sorted(store.portal, key=_lateness):
        if tries.is_open(call):
            left.setdefault(call.connection.server.address, []).append(call)
    for request in sorted(requests, key=_begun):
        first = request.first
        if first is None or request.portal is not None:
            continue
        fitting = (
            call
            for call in _begun_before(
                left.get(first.connection.client.address, []), first.started_ns + SKEW_NS
            )
            if tries.may_lead_to(call, request)
            and _around(call, first)
            and (not rest(first).name or rest(call).name == rest(first).name or rest(call).broken)
            and (store.creates or not rest(call).ids)
        )
        # Two are enough to know that it is ambiguous.
        found = list(islice(fitting, 2))
        if len(found) == 1:
            tries.leads_to(found[0], request)


def _around(call: Call, leg: Call) -> bool:
    """Return whether *leg* began while *call* was open, clocks of capture points allowed for."""
    return call.started_ns <= leg.started_ns + SKEW_NS and (
        call.ended_ns is None or call.ended_ns + SKEW_NS >= leg.started_ns
    )


def refused_at_portal(store: CallStore, requests: list[Request], pending: Pending) -> list[Request]:
    """Return requests that the SC refused, or never answered, without asking the cloud.

    A login of the SC belongs to an order by time alone: one made while several orders waited is ambiguous.
    """
    # Such an order is a trace of its own: when keystone is down the SC gets no token, and its failed login
    # is the only other call.
    taken = {request.portal.serial: request for request in requests if request.portal is not None}
    callers = {leg.connection.client.address for request in requests for leg in request.legs}
    callers |= {login.connection.client.address for login in store.logins}
    logins = sorted(store.logins, key=lambda login: login.started_ns)
    refused: list[Request] = []
    waiting: dict[int, list[Request]] = {}
    """serial of a login -> the requests whose orders were open when it was made"""
    for call in store.portal:
        request = taken.get(call.serial)
        has_led = call.serial in store.orders_led
        may_be_new = request is None and not has_led and _may_stand_alone(call, pending)
        is_new = may_be_new and _came_no_further(call, callers, pending)
        if is_new:
            request = Request(portal=call, server_ids=list(() if store.creates else rest(call).ids[:1]))
            request.add([call])
            refused.append(request)
        if request is None:
            continue
        for login in _logins_within(logins, call, request):
            waiting.setdefault(login.serial, []).append(request)
            if is_new:
                request.add([login])
    for request in refused:
        request.ambiguous |= {c.serial for c in request.calls if len(waiting.get(c.serial, ())) > 1}
    return refused


def _may_stand_alone(call: Call, pending: Pending) -> bool:
    """Return whether an order without a request to the cloud is a trace: no request may follow any more."""
    return call.closed or not pending.more_to_come or pending.is_shown(call) or pending.may_show(call)


def _came_no_further(call: Call, callers: set[str], pending: Pending) -> bool:
    """Return whether *call* is an order that the SC refused or never answered.

    *callers* are the addresses that call the cloud: an SC that is none of them may be any HTTP server.
    """
    facts = rest(call)
    was_shown = pending.is_shown(call)
    if was_shown and not call.closed:
        return True
    sc = call.connection.server.address
    if facts.forwarded_for or (facts.status < 400 and not _is_unanswered(call)):
        return False
    return was_shown or not callers or sc in callers


def _logins_within(logins: list[Call], order: Call, request: Request) -> list[Call]:
    """Return the SC's logins while *order* was open, up to the request to the cloud if there is one."""
    until_ns = 1 << 62 if order.ended_ns is None else order.ended_ns + SKEW_NS
    if request.first is not None:
        until_ns = request.first.started_ns
    begin = bisect_left(logins, order.started_ns - SKEW_NS, key=lambda login: login.started_ns)
    end = bisect_right(logins, until_ns, lo=begin, key=lambda login: login.started_ns)
    sc = order.connection.server.address
    return [
        login for login in logins[begin:end] if login.connection.client.address == sc and login.front is None
    ]


def _is_unanswered(call: Call) -> bool:
    """Return whether *call* has no answer although both directions were captured without a gap."""
    connection = call.connection
    return not rest(call).status and connection.seen == BOTH and not connection.gaps
