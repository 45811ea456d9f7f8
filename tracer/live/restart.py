"""What a run takes over from an earlier one: open traces, roles of connections, the gap between the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from tracer.engine import Stages
from tracer.errors import UsageError
from tracer.live.checkpoint import MOST_CALLS, SCHEMA, KeptTrace, State, in_order, pack, unpack, whole
from tracer.live.follow import Follow, order_of
from tracer.model import Call, Connection, Endpoint, RpcFacts, Trace

__all__ = ["Restart"]


class Restart:
    """Makes the state of a run for a checkpoint, and takes over the state of an earlier run."""

    def __init__(self, stages: Stages, follow: Follow) -> None:
        self._stages = stages
        self._follow = follow
        self._until_ns = 0
        """Time up to which the earlier run processed packets; 0 without one, or after `close_gap`."""
        self._ends: dict[tuple[Endpoint, Endpoint], Connection] = {}
        """Connections of the earlier run with a known role at one end at least."""

    @property
    def has_gap_to_report(self) -> bool:
        """Whether there was an earlier run and `close_gap` was not called yet."""
        return bool(self._until_ns)

    def state(self, now_ns: int) -> State:
        """Return the state with which the next run goes on with the open traces.

        *now_ns* is 0 before the first packet. At most MOST_CALLS calls are kept; the oldest traces are left
        out first.
        """
        history = self._follow.history
        open_ = self._follow.in_progress()
        # While the POST of a trace is open, calls without an id are assigned to it by time. Calls that belong
        # to no trace yet are therefore kept from the start of the oldest such trace on.
        unsure = [t.calls[0].started_ns for _, t, _ in open_ if t.created is None or not t.created.closed]
        calls = whole(self._stages.correlator.calls_since(min(unsure))) if unsure else []
        traces, left_out = [], 0
        for shown, trace, steps in reversed(open_):
            if len(calls) + len(trace.calls) > MOST_CALLS:
                left_out += 1
                continue
            traces.append((shown, trace, steps))
            calls += trace.calls + trace.polls
        calls = whole(calls)
        places = {call.serial: place for place, call in enumerate(calls)}
        kept, connections = pack(calls)
        done = [trace.verdict for trace in self._follow.open() if trace.is_done]
        workflows = self._stages.workflows
        # What was only taken for want of a sign binds no later run.
        grammar = self._stages.grammar.name if workflows.is_settled else workflows.names[-1]
        return State(
            SCHEMA,
            grammar,
            [(capture.path, capture.plane) for capture in self._stages.captures],
            now_ns or self._until_ns,
            [capture.first_ns for capture in self._stages.captures],
            self._follow.opened,
            history.verdicts + Counter(verdict.verdict for verdict in done),
            history.outcomes + Counter(verdict.outcome for verdict in done),
            [
                KeptTrace(
                    shown.number,
                    trace.request_id,
                    trace.server_id,
                    places[(order_of(trace) or trace.calls[0]).serial],
                    dict(steps),
                    shown.announced,
                )
                for shown, trace, steps in reversed(traces)
            ],
            left_out,
            connections,
            kept,
            sorted(self._follow.orders.known),
        )

    def resume(self, state: State) -> None:
        """Take over the traces of *state*: their calls pass through the stages again, in order.

        Raises UsageError when *state* is that of a run with another grammar or other sources.
        """
        self._must_be_ours(state)
        calls = unpack(state)
        stages, orders = self._stages, self._follow.orders
        orders.know(state.orders)
        stages.calls.restore(calls)
        self._know_ends(calls)
        for capture, first_ns in zip(stages.captures, state.first_ns, strict=True):
            capture.first_ns, capture.last_ns = first_ns, state.until_ns
        self._until_ns = state.until_ns
        self._repeat(calls)
        self._follow.history.verdicts.update(state.verdicts)
        self._follow.history.outcomes.update(state.outcomes)
        # A waiting order that the earlier run showed stays shown, whatever is known of the portal now.
        shown = {calls[kept.call].serial for kept in state.traces if not kept.request_id}
        orders.look(shown, (state.until_ns, 0))
        found = stages.correlator.traces(orders)
        if stages.choose(found):
            self._follow.renew_checker()
        for kept in state.traces:
            trace = _trace_of(kept, calls[kept.call], found)
            if trace is not None:
                found.remove(trace)
                self._follow.resume(trace, kept.number, dict(kept.steps), kept.announced)
        self._follow.count_from(state.opened)

    def _must_be_ours(self, state: State) -> None:
        """Raise UsageError for the state of another run; go by the grammar that the earlier run chose."""
        workflows = self._stages.workflows
        is_ours = state.grammar in workflows.names
        for what, theirs, ours in (
            ("grammar", state.grammar, state.grammar if is_ours else workflows.name),
            (
                "sources",
                [path for path, _ in state.sources],
                [capture.path for capture in self._stages.captures],
            ),
        ):
            if theirs != ours:
                raise UsageError(
                    f"--checkpoint: the file is of a run with {what} {theirs}: name another file,"
                    f" or use the same {what}"
                )
        if state.grammar == workflows.names[0]:
            workflows.adopt(state.grammar, "the run before went by it")

    def _know_ends(self, calls: Iterable[Call]) -> None:
        """Remember the connections of *calls* with a known role."""
        for call in calls:
            for end in (call.caller, call.callee, getattr(call.facts, "consumer", None)):
                if end is not None and (end.connection.client_role or end.connection.server_role):
                    self._ends[end.connection.client, end.connection.server] = end.connection

    def _repeat(self, calls: Sequence[Call]) -> None:
        """Pass *calls* through the stages as they happened; the earlier run has counted them."""
        happened = in_order(calls)
        answered = {call.serial for call in calls if call.closed}
        for call in calls:
            call.closed = False
        for call, begins in happened:
            # The calls that a REST call causes happen while it is open, and correlation depends on that. So
            # it is replayed as open and closed at the time of its answer.
            call.closed = not begins
            self._stages.receive((call,))
            call.closed = call.serial in answered and not (begins and call.protocol == "REST")
        self._stages.counts.clear()
        for capture in self._stages.captures:
            capture.calls = 0

    def close_gap(self, first_ns: int) -> str:
        """Record that nothing was captured between the runs, up to *first_ns*; return a message about it."""
        since_ns, self._until_ns = self._until_ns, 0
        count = len(self._follow.open())
        words = f"resumed with {count} open trace{'s' if count != 1 else ''}"
        if first_ns > since_ns:
            span = f"nothing is known from {_moment(since_ns)} to {_moment(first_ns)} UTC"
            self._stages.coverage.interrupted(since_ns, first_ns, f"{span}, between two runs of the watch")
            words += f"; the {(first_ns - since_ns) / 1e9:,.1f} s before were not captured"
        return words

    def recognise(self, calls: Iterable[Call]) -> None:
        """Give the connections of *calls* the roles that the earlier run knew.

        A client names its program only when the connection is opened.
        """
        if not self._ends:
            return
        for call in calls:
            self._recognise(call.connection)
            if isinstance(call.facts, RpcFacts) and call.facts.consumer is not None:
                self._recognise(call.facts.consumer.connection)

    def _recognise(self, connection: Connection) -> None:
        # Only connections whose opening was not captured: others may reuse the same ports.
        known = self._ends.get((connection.client, connection.server)) if connection.joined else None
        if known is not None:
            connection.client_role = connection.client_role or known.client_role
            connection.server_role = connection.server_role or known.server_role


def _trace_of(kept: KeptTrace, first: Call, found: Iterable[Trace]) -> Trace | None:
    """Return the trace of *found* that *kept* stands for; *first* is the call that it was kept with."""
    for trace in found:
        is_of_request = first in trace.calls or trace.request_id == kept.request_id != ""
        if is_of_request and (not kept.server_id or trace.server_id in ("", kept.server_id)):
            return trace
    return None


def _moment(time_ns: int) -> str:
    """Return date and time as reports write them; '?' for a time, read from a file, that no calendar has."""
    try:
        moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    except (OverflowError, OSError, ValueError):
        return "?"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns // 1_000_000 % 1000:03d}"
