"""Joining of the two legs of a call through a reverse proxy: client -> proxy and proxy -> service.

Both legs carry the same method and target. If both are answered, the answers hold the same request id, which
only one service can have made, and one leg lies within the other in time. Without an answer,
X-Forwarded-For names the client of the outer leg. A proxy for TCP changes nothing: then both requests are the
same, and one comes from the address that the other went to. The legs end at different servers: the proxy, and
the service behind it. Two requests to one server are never two legs, whatever ids its answers hold.
"""

from __future__ import annotations

from collections import OrderedDict

from tracer.model import Call, RestFacts
from tracer.model.tables import trim

__all__ = ["ProxyLegs"]

SKEW_NS = 5_000_000
"""Tolerance for legs that two capture points with different clocks have seen."""
OPEN_LIMIT = 20_000
"""Targets of unanswered calls that are remembered."""
SAME_TARGET_LIMIT = 64
"""Unanswered calls of one target that are remembered: with several candidates there is no pair anyway."""
ANSWERED_LIMIT = 4_096
"""Answered calls that wait for the answer of their other leg."""

_Target = tuple[str, str, str]
"""Method, path, query."""


class ProxyLegs:
    """Sets `Call.front` and `Call.back` as calls begin and end."""

    def __init__(self) -> None:
        self._open: OrderedDict[_Target, list[Call]] = OrderedDict()
        self._answered: OrderedDict[tuple[str, str, str, str], Call] = OrderedDict()
        """Target and request id -> the call that was answered so."""

    def receive(self, call: Call) -> None:
        """Look for the other leg of *call*, which has just begun or ended."""
        facts = call.facts
        # Method "?": the request was not seen, so nothing identifies the call.
        if not isinstance(facts, RestFacts) or facts.method == "?":
            return
        if not call.closed:
            self._begun(call, facts)
        else:
            self._forget_open(call, facts)
            if facts.answered_id:
                self._ended(call, facts)

    def forget(self, before_ns: int) -> None:
        """Forget answers given before *before_ns*: the other leg's answer follows at once or never."""
        answered = self._answered
        while answered and (next(iter(answered.values())).ended_ns or 0) < before_ns:
            answered.popitem(last=False)

    def _begun(self, call: Call, facts: RestFacts) -> None:
        target = (facts.method, facts.path, facts.query)
        waiting = self._open.get(target)
        if waiting is None:
            self._open[target] = [call]
            trim(self._open, OPEN_LIMIT)
            return
        outer = [leg for leg in waiting if leg.back is None and _is_outer(leg, call, facts)]
        # With several candidates the pairing would be a guess; the request ids decide later.
        if len(outer) == 1 and _may_be_legs(outer[0], call):
            _join(outer[0], call)
        waiting.append(call)
        if len(waiting) > SAME_TARGET_LIMIT:
            del waiting[0]

    def _forget_open(self, call: Call, facts: RestFacts) -> None:
        target = (facts.method, facts.path, facts.query)
        waiting = self._open.get(target)
        if waiting is None:
            return
        if call in waiting:
            waiting.remove(call)
        if not waiting:
            del self._open[target]

    def _ended(self, call: Call, facts: RestFacts) -> None:
        """Join *call* with the leg that was answered with the same request id, if it came before."""
        key = (facts.method, facts.path, facts.query, facts.answered_id)
        other = self._answered.get(key)
        if other is None or not _may_be_legs(other, call):
            self._answered[key] = call
            self._answered.move_to_end(key)
            trim(self._answered, ANSWERED_LIMIT)
            return
        # Within the tolerance each leg may enclose the other. Then the leg with X-Forwarded-For is the inner
        # one: the proxy added the header.
        if _encloses(call, other) and not (_encloses(other, call) and _facts(call).forwarded_for):
            _join(call, other)
        elif _encloses(other, call):
            _join(other, call)


def _is_outer(leg: Call, call: Call, facts: RestFacts) -> bool:
    """Return whether *leg*, an open call of the same target, may be the one towards the proxy of *call*."""
    if facts.forwarded_for:
        is_client = leg.connection.client.address == facts.forwarded_from
        return is_client and _facts(leg).name == facts.name
    # A proxy for TCP: the address that the other went to asks the same.
    return leg.connection.server.address == call.connection.client.address and _is_same(_facts(leg), facts)


def _is_same(a: RestFacts, b: RestFacts) -> bool:
    """Return whether two requests for one target are the same in all that tells requests apart."""
    return (
        a.token == b.token
        and a.subject_token == b.subject_token
        and a.request_id == b.request_id
        and a.user_agent == b.user_agent
        and a.forwarded_for == b.forwarded_for
        and a.name == b.name
        and a.ids == b.ids
    )


def _facts(call: Call) -> RestFacts:
    assert isinstance(call.facts, RestFacts)  # noqa: S101  # only REST calls come here
    return call.facts


def _encloses(outer: Call, inner: Call) -> bool:
    return outer.started_ns <= inner.started_ns + SKEW_NS and (outer.ended_ns or 0) + SKEW_NS >= (
        inner.ended_ns or 0
    )


def _may_be_legs(call: Call, other: Call) -> bool:
    """Return whether the two calls end at different servers, as the legs of one call through a proxy do."""
    # Nova answered overlapping requests with the id of the last one (its context was kept for the thread).
    return call.connection.server != other.connection.server


def _join(front: Call, back: Call) -> None:
    """Link the leg towards the proxy with the leg behind it."""
    if _facts(front).forwarded_for and not _facts(back).forwarded_for:
        # The front leg has passed a proxy, which adds the header; the leg behind it would have it, too.
        return
    # A join by request ids is proof and replaces one by X-Forwarded-For, which is a guess.
    if front.back is not None and front.back is not back:
        front.back.front = None
    if back.front is not None and back.front is not front:
        back.front.back = None
    front.back, back.front = back, front
