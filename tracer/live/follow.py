"""Open traces: which steps were seen, who owes the next one, when a trace is done and when it is forgotten.

Each look correlates all calls again, which is cheap, and checks only the traces that have changed. A trace
with a verdict is kept for a while, because late calls may change it, and is then retired. So memory use
depends on the number of open traces, not on the length of the run.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from tracer.conformance import Checker, owes
from tracer.engine import Stages, trace_id
from tracer.live.hold_up import Queues, stall_words, why_held_up
from tracer.model import Call, RestFacts, RpcFacts, Trace, Verdict
from tracer.model.events import Event, OpenTrace
from tracer.openstack.rest import is_login
from tracer.openstack.services import PORTAL

__all__ = ["Follow", "History", "Patience", "WaitingOrders", "order_of"]

CHECKS_S, URGENT_S = 0.03, 1.0
"""Real time that one look spends on checks: of all traces, and of urgent ones, which may have ended."""
UNANSWERED_NS = 5_000_000_000
"""How long a creation that is known by its RPC alone waits for the answer to its POST, and an order at the
portal for its POST to be sent."""
MOST_ORDERS = 100
WHOLE = 200
"""Latest verdicts that keep all of their calls."""
SLIM = 2_000
"""Older verdicts that keep only the calls of their steps."""

_Key = tuple[str, str | int]
_Fingerprint = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Patience:
    """Time-outs of a live run, in capture time; `checks_s` in real time."""

    stall_ns: int = 60_000_000_000
    """Silence after which a creation counts as stuck."""
    settle_ns: int = 30_000_000_000
    """Time after which a verdict is final."""
    settle_busy_ns: int = 10_000_000_000
    """The same while there are more traces than `most_settling`: each trace costs time in every look."""
    most_settling: int = 60
    settle_good_ns: int = 3_000_000_000
    """The same for a creation that conforms: late calls do not change its verdict."""
    forget_ns: int = 3_600_000_000_000
    """Time after which a trace that is stuck is closed."""
    stray_ns: int = 600_000_000_000
    """How long calls that belong to no trace are kept."""
    most_open: int = 5_000
    checks_s: float = 0.5
    """Shortest time between two checks of a trace that has news and is not urgent."""


class WaitingOrders:
    """Decides which orders at the portal are shown before they are answered (`Pending` of correlation).

    An order is a request to the portal; not every order is for a creation. The operations of orders that led
    to a creation are remembered as known. A known order is shown after a short wait. While no operation is
    known, any order is shown after a longer wait. *portal* returns the addresses that are known to call the
    cloud; an order at another address is not shown before its answer. An order that was shown stays shown
    until it is answered.
    """

    def __init__(self, portal: Callable[[], Collection[str]]) -> None:
        self._portal = portal
        self.more_to_come = True
        self.known: set[str] = set()
        """Operations of orders that led to a creation."""
        self._shown: Collection[int] = ()
        self._before_ns = (0, 0)

    def look(self, shown: Collection[int], before_ns: tuple[int, int], *, more_to_come: bool = True) -> None:
        """Prepare for a look; *shown* are the serials of the orders that are shown already.

        An order is shown when it began before *before_ns*: the first time is for known operations, the second
        for any operation while none is known.
        """
        self._shown, self._before_ns, self.more_to_come = shown, before_ns, more_to_come

    def is_shown(self, order: Call) -> bool:
        """Return whether *order* was shown in the look before."""
        return order.serial in self._shown

    def may_show(self, order: Call) -> bool:
        """Return whether *order* has waited long enough, at a portal that is known to call the cloud."""
        if self.known and order.operation not in self.known:
            return False
        before_ns = self._before_ns[not self.known]
        return order.started_ns < before_ns and order.connection.server.address in self._portal()

    def led_further(self, order: Call) -> None:
        """Remember the operation of *order*, which led to a creation."""
        self.know((order.operation,))

    def know(self, operations: Iterable[str]) -> None:
        """Remember *operations* as those of orders that lead to a creation."""
        for operation in operations:
            # Bounded: operations come from the wire, and a hostile client may send any number of them.
            if len(self.known) < MOST_ORDERS:
                self.known.add(operation)


class History:
    """Keeps the final verdicts, a bounded number of them, and counts all."""

    def __init__(self) -> None:
        self._whole: deque[Verdict] = deque()
        self._slim: deque[Verdict] = deque()
        self.verdicts: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        """verdict -> traces that were counted and are no longer kept"""

    def add(self, verdict: Verdict) -> None:
        """Keep *verdict*; the oldest lose their calls, then are dropped."""
        self.verdicts[verdict.verdict] += 1
        self.outcomes[verdict.outcome] += 1
        self._whole.append(verdict)
        if len(self._whole) > WHOLE:
            self._slim.append(_slim(self._whole.popleft()))
        if len(self._slim) > SLIM:
            self.dropped[self._slim.popleft().verdict] += 1

    def kept(self) -> list[Verdict]:
        """Return the kept verdicts, the oldest first."""
        return [*self._slim, *self._whole]


def _slim(verdict: Verdict) -> Verdict:
    calls = tuple(call for call in verdict.calls if call.step)
    return replace(verdict, calls=calls)


@dataclass(slots=True, eq=False)
class _Followed:
    """One open trace and the state of following it."""

    number: int
    trace: Trace
    open: OpenTrace | None = None
    fingerprint: _Fingerprint = ()
    checked_s: float = float("-inf")
    is_dirty: bool = True
    """Its calls have changed since the last check."""
    is_urgent: bool = False
    """It may have ended since the last check."""
    due_ns: int = 0
    """Time of the next check when no call comes: it may have stalled by then."""
    steps: dict[str, str] = field(default_factory=dict)
    """step -> status, of the steps that were announced"""
    done_ns: int | None = None
    checker: Checker | None = None
    """With which its verdict was told; a grammar that is chosen later changes no verdict."""


class Follow:
    """Turns the traces of the correlator into events."""

    def __init__(
        self, stages: Stages, queues: Queues, patience: Patience, clock: Callable[[], float]
    ) -> None:
        self._stages = stages
        self._correlator = stages.correlator
        self._checker = stages.checker()
        self._queues = queues
        self._patience = patience
        self._clock = clock
        self._followed: dict[int, _Followed] = {}
        self._by_key: dict[_Key, _Followed] = {}
        self._count = 0
        self.orders = WaitingOrders(lambda: stages.topology.roles.addresses(PORTAL))
        self.history = History()

    # --- looking ---

    def look(self, now_ns: int, *, last: bool = False) -> list[Event]:
        """Return the events since the last look, in order of time.

        The time for checks is limited: urgent traces come first, and the rest waits for the next look. The
        *last* look checks every open trace once more.
        """
        if not self._followed and not self._correlator.has_candidates():
            return []
        events = self._match(now_ns, last)
        begun_s = now_s = self._clock()
        for followed in self._due(now_ns, now_s, last):
            if not last and now_s - begun_s > (URGENT_S if followed.is_urgent else CHECKS_S):
                break
            events += self._check(followed, now_ns, now_s)
            now_s = self._clock()
        if not last:
            self._retire(now_ns, events)
        events.sort(key=lambda event: event.time_ns)
        return events

    def _due(self, now_ns: int, now_s: float, last: bool) -> list[_Followed]:
        """Return the traces to be checked, urgent ones first, then those that were checked longest ago."""
        due = []
        for followed in self._followed.values():
            fingerprint = _fingerprint(followed.trace)
            if fingerprint != followed.fingerprint:
                followed.is_dirty = True
                # The first four numbers are those that change when a trace may have ended.
                followed.is_urgent |= fingerprint[:4] != followed.fingerprint[:4]
                followed.fingerprint = fingerprint
            waited = now_s - followed.checked_s >= self._patience.checks_s
            if last or followed.is_urgent or (followed.is_dirty and waited) or now_ns >= followed.due_ns:
                due.append(followed)
        due.sort(key=lambda f: (not f.is_urgent, f.checked_s))
        return due

    def open(self) -> list[OpenTrace]:
        """Return the traces in progress, the oldest first."""
        return [f.open for f in self._followed.values() if f.open is not None]

    def traces(self) -> list[Trace]:
        """Return all traces that are kept, including those that are done."""
        return [f.trace for f in self._followed.values()]

    # --- across a restart ---

    @property
    def opened(self) -> int:
        """How many traces were opened so far."""
        return self._count

    def count_from(self, opened: int) -> None:
        """Number the next trace *opened* + 1 at least."""
        self._count = max(self._count, opened)

    def in_progress(self) -> list[tuple[OpenTrace, Trace, dict[str, str]]]:
        """Return the traces in progress, each with its calls and the steps that were announced."""
        return [
            (f.open, f.trace, f.steps)
            for f in self._followed.values()
            if f.open is not None and not f.open.is_done
        ]

    def renew_checker(self) -> None:
        """Check by the grammar that is chosen by now; no verdict was told by another one."""
        self._checker = self._stages.checker()

    def resume(self, trace: Trace, number: int, steps: dict[str, str], announced: str) -> None:
        """Follow *trace*, which an earlier run opened under *number*; *announced* as in `OpenTrace`."""
        followed = self._followed[number] = _Followed(number, trace, steps=steps)
        verdict = replace(self._checker.check(trace), id=trace_id(trace))
        followed.open = OpenTrace(number, verdict, verdict.ended_ns, announced=announced)
        for key in _keys(trace):
            self._by_key.setdefault(key, followed)

    # --- matching the correlated traces to the followed ones ---

    def _match(self, now_ns: int, last: bool) -> list[Event]:
        events: list[Event] = []
        taken: set[int] = set()
        waiting_ns = (now_ns - UNANSWERED_NS, now_ns - self._patience.stall_ns)
        orders = {
            call.serial
            for f in self._followed.values()
            if f.open is not None and (call := order_of(f.trace)) is not None
        }
        self.orders.look(orders, waiting_ns, more_to_come=not last)
        found = self._stages.assembled(self.orders)
        events += self._choose(found, now_ns)
        for trace in found:
            if not self._is_wanted(trace):
                continue
            followed = self._known(trace, taken)
            # Opened later: an event for it now would have to be withdrawn.
            if followed is None and not last and _may_be_another(trace, now_ns):
                continue
            if followed is None:
                self._count += 1
                followed = self._followed[self._count] = _Followed(self._count, trace)
            taken.add(followed.number)
            followed.trace = trace
            for key in _keys(trace):
                self._by_key.setdefault(key, followed)
        # Correlation has joined these with others, or found that they are no creation.
        for number in [n for n in self._followed if n not in taken]:
            gone = self._drop(number)
            shown = gone.open
            if shown is not None:
                words = _withdrawal_words(gone.trace, found)
                events.append(Event("withdrawn", now_ns, shown, shown.verdict, message=words))
        return events

    def _choose(self, found: Iterable[Trace], now_ns: int) -> list[Event]:
        """Choose the grammar by what is seen by now; say so where verdicts were told by another."""
        before = self._checker.grammar.name
        self._stages.choose(found)
        if self._stages.grammar.name == before:
            return []
        self._checker = self._stages.checker()
        for followed in self._followed.values():
            followed.is_dirty |= followed.checker is None
        told = self.history.verdicts.total() + sum(f.checker is not None for f in self._followed.values())
        if not told:
            return []
        verdicts = "the verdict before rests" if told == 1 else f"the {told:,} verdicts before rest"
        words = (
            f"from now on checked against {self._checker.grammar.name}: {self._stages.grammar_reason()};"
            f" {verdicts} on {before}"
        )
        return [Event("trouble", now_ns, message=words)]

    def _is_wanted(self, trace: Trace) -> bool:
        stages = self._stages
        is_ours = stages.is_of_the_workflow(trace) and not stages.is_nameless(trace)
        return is_ours and stages.is_selected(trace.calls[0].started_ns)

    def _known(self, trace: Trace, taken: set[int]) -> _Followed | None:
        for key in _keys(trace):
            followed = self._by_key.get(key)
            if followed is None or followed.number in taken or followed.number not in self._followed:
                continue
            # One request for several VMs: a request id alone does not identify the trace.
            known = followed.trace.server_id
            if not known or not trace.server_id or known == trace.server_id:
                return followed
        return None

    def _drop(self, number: int) -> _Followed:
        followed = self._followed.pop(number)
        for key in [key for key, other in self._by_key.items() if other is followed]:
            del self._by_key[key]
        return followed

    # --- one trace ---

    def _check(self, followed: _Followed, now_ns: int, now_s: float) -> list[Event]:
        followed.checked_s, followed.is_dirty, followed.is_urgent = now_s, False, False
        checker = followed.checker or self._checker
        checked = self._stages.checked(checker, followed.trace)
        if checked is None:
            followed.due_ns = 1 << 62
            return []
        verdict = replace(checked, id=trace_id(followed.trace))
        events: list[Event] = []
        shown = followed.open
        if shown is None:
            shown = followed.open = OpenTrace(followed.number, verdict, verdict.ended_ns)
            events.append(Event("trace_opened", verdict.started_ns, shown, verdict))
        shown.verdict, shown.quiet_since_ns = verdict, verdict.ended_ns
        events += _steps(followed, shown, verdict)
        step = verdict.stopped_at or (verdict.stopped_between[1] if verdict.stopped_between else None)
        shown.owes = owes(checker.grammar, step, verdict.compute_host) if step else ""
        shown.why = why_held_up(followed.trace, verdict, checker.grammar, self._queues)
        if verdict.outcome in ("stuck", "unfinished"):
            followed.done_ns = None
            events += self._waiting(followed, shown, now_ns)
        else:
            followed.due_ns = 1 << 62
            words = f"{verdict.verdict} {verdict.outcome} {verdict.stopped_at}"
            if words != shown.announced:
                again = shown.announced not in ("", "stuck")
                shown.announced = words
                followed.done_ns, followed.checker = now_ns, checker
                events.append(
                    Event("verdict", verdict.ended_ns, shown, verdict, message=verdict.summary, revised=again)
                )
        return events

    def _waiting(self, followed: _Followed, shown: OpenTrace, now_ns: int) -> list[Event]:
        verdict = shown.verdict
        quiet_ns = max(0, now_ns - shown.quiet_since_ns)
        stall_ns = self._patience.stall_ns
        if verdict.outcome == "stuck":
            # The summary holds the age of the stall: it is checked again when the age has doubled.
            followed.due_ns = shown.quiet_since_ns + max(2 * quiet_ns, stall_ns)
            if shown.announced == "stuck":
                return []
            shown.announced = "stuck"
            words = stall_words(shown, quiet_ns)
            return [Event("stalled", now_ns, shown, verdict, message=words, quiet_ns=quiet_ns)]
        resumed = bool(shown.announced)
        shown.announced = ""
        followed.due_ns = shown.quiet_since_ns + stall_ns
        if followed.due_ns <= now_ns:
            # Silent past the limit and still not stuck: a loss in the capture may explain the silence.
            followed.due_ns = now_ns + stall_ns
        return [Event("resumed", shown.quiet_since_ns, shown, verdict)] if resumed else []

    # --- retiring ---

    def _retire(self, now_ns: int, events: list[Event]) -> None:
        # Traces of one request share calls, so they are retired together.
        groups: dict[str, list[_Followed]] = {}
        for followed in self._followed.values():
            trace = followed.trace
            key = trace.request_id if trace.request_id else f"#{followed.number}"
            groups.setdefault(key, []).append(followed)
        patience = self._patience
        excess = len(self._followed) - patience.most_open
        is_busy = len(self._followed) > patience.most_settling
        settle_ns = min(patience.settle_ns, patience.settle_busy_ns) if is_busy else patience.settle_ns
        for group in groups.values():
            if excess > 0 or all(self._is_over(f, now_ns, settle_ns) for f in group):
                excess -= len(group)
                self._correlator.retire([f.trace for f in group])
                for followed in group:
                    events += self.close(followed, now_ns)

    def _is_over(self, followed: _Followed, now_ns: int, settle_ns: int) -> bool:
        if followed.open is None:
            return False
        if followed.done_ns is None:
            return now_ns - followed.open.quiet_since_ns > self._patience.forget_ns
        age_ns = now_ns - max(followed.done_ns, followed.open.verdict.ended_ns)
        verdict = followed.open.verdict
        if verdict.verdict == "conforms":
            settle_ns = min(settle_ns, self._patience.settle_good_ns)
        if age_ns < settle_ns:
            return False
        # The portal's own call is answered only after the VM is built.
        waits = any(isinstance(c.facts, RestFacts) and not c.closed for c in followed.trace.calls)
        return not waits or age_ns > 4 * settle_ns

    def close(self, followed: _Followed, now_ns: int) -> list[Event]:
        """Close a trace: its verdict goes to the history; return a verdict event if there was none before."""
        self._drop(followed.number)
        shown = followed.open
        if shown is None:
            return []
        self.history.add(shown.verdict)
        if followed.done_ns is not None:
            return []
        return [Event("verdict", now_ns, shown, shown.verdict, message=shown.verdict.summary)]

    def end(self, now_ns: int) -> list[Event]:
        """Close all open traces at the end of the run; return their verdict events."""
        return [event for f in list(self._followed.values()) for event in self.close(f, now_ns)]


def order_of(trace: Trace) -> Call | None:
    """Return the order at the portal if *trace* has no other calls but logins; else None."""
    if trace.created is not None or trace.request_id:
        return None
    return _first_request(trace)


def _first_request(trace: Trace) -> Call | None:
    return next((call for call in trace.calls if call.protocol == "REST" and not _is_login(call)), None)


def _is_login(call: Call) -> bool:
    return isinstance(call.facts, RestFacts) and is_login(call.facts.path)


def _withdrawal_words(gone: Trace, found: Iterable[Trace]) -> str:
    """Return why *gone* is no trace of its own: it was joined with another, or created nothing."""
    order = order_of(gone)
    if order is None or any(order in trace.calls for trace in found):
        return "turned out to be part of another creation"
    if isinstance(order.facts, RestFacts) and order.facts.status:
        return "was answered, and no creation was seen for it"
    return "ended outside the capture: whether it was answered, or led to a creation, is not known"


def _keys(trace: Trace) -> list[_Key]:
    """Return the keys that identify a trace across looks, the most certain first."""
    keys: list[_Key] = []
    if trace.server_id:
        keys.append(("server", trace.server_id))
    if trace.request_id:
        keys.append(("request", trace.request_id))
    keys += [("call", call.serial) for call in trace.calls if getattr(call.facts, "creates", False)]
    first = _first_request(trace)
    if first is not None:
        # The order at the portal identifies a trace that was shown before its creation began. Logins do not:
        # several orders may share one.
        keys.append(("call", first.serial))
    return keys


def _fingerprint(trace: Trace) -> _Fingerprint:
    """Return numbers that change with the calls of *trace*; the first four change when it may have ended."""
    created = trace.created
    status = created.facts.status if created is not None and isinstance(created.facts, RestFacts) else 0
    failures = sum(
        1
        for call in trace.calls
        if call.result == "failure" and isinstance(call.facts, RpcFacts) and call.facts.mode == "reply"
    )
    ended = (trace.active_ns or 0, trace.failed_ns or 0, status if status >= 400 else 0, failures)
    state = hash(tuple((call.result, call.ended_ns) for call in trace.calls))
    return (*ended, len(trace.calls), state)


def _steps(followed: _Followed, shown: OpenTrace, verdict: Verdict) -> Iterable[Event]:
    """Yield an event for each step that is seen, or that fails, for the first time."""
    for step in verdict.steps:
        if step.status not in ("seen", "failed") or followed.steps.get(step.step) == step.status:
            continue
        followed.steps[step.step] = step.status
        time_ns = step.started_ns or (step.calls[0].started_ns if step.calls else verdict.ended_ns)
        yield Event("step_seen", time_ns, shown, verdict, step, step.calls[0] if step.calls else None)


def _may_be_another(trace: Trace, now_ns: int) -> bool:
    """Return whether *trace* may belong to a POST that is still unanswered: its answer joins the two."""
    if trace.created is not None:
        return False
    # nova-api answers the POST after its cast. Its calls before the cast, under the same request id, may take
    # long, so the wait starts at the cast.
    since = next((call for call in trace.calls if call.protocol == "RPC"), trace.calls[0])
    return now_ns - since.started_ns < UNANSWERED_NS
