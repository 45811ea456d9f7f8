"""What a watch that is started again takes over from the run before: traces, who was who, and the hole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime

from tracer.engine import Stages
from tracer.errors import UsageError
from tracer.live.checkpoint import MOST_CALLS, SCHEMA, KeptTrace, State, in_order, pack, unpack, whole
from tracer.live.follow import Follow, order_of
from tracer.model import Call, Connection, Endpoint, RpcFacts

__all__ = ["Restart"]


class Restart:
    """Gives the state of a run for a checkpoint, and takes over that of an earlier one."""

    def __init__(self, stages: Stages, follow: Follow) -> None:
        self._stages = stages
        self._follow = follow
        self._until_ns = 0
        """Up to when an earlier run has seen, whose traces this one goes on with; 0 without one."""
        self._ends: dict[tuple[Endpoint, Endpoint], Connection] = {}
        """Connections of that run of which it knew who is at an end."""

    @property
    def is_unsaid(self) -> bool:
        """Whether there was a run before, and `hole` was not asked yet."""
        return bool(self._until_ns)

    def state(self, now_ns: int) -> State:
        """Return what a watch that is started again needs to go on with the open traces.

        *now_ns* is 0 before the first packet.
        """
        history = self._follow.history
        open_ = self._follow.in_progress()
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
        return State(
            SCHEMA,
            self._stages.grammar.name,
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
        """Go on with the traces of *state*: their calls pass through the stages again, in order.

        Raises UsageError when it is that of a run of another grammar or other sources.
        """
        paths = [capture.path for capture in self._stages.captures]
        for what, theirs, ours in (
            ("grammar", state.grammar, self._stages.grammar.name),
            ("sources", [path for path, _ in state.sources], paths),
        ):
            if theirs != ours:
                raise UsageError(
                    f"--checkpoint: it is of a run with other {what} ({theirs}): name another file,"
                    f" or the same {what}"
                )
        calls = unpack(state)
        stages, orders = self._stages, self._follow.orders
        orders.know(state.orders)
        stages.calls.restore(calls)
        for call in calls:
            for end in (call.caller, call.callee, getattr(call.facts, "consumer", None)):
                if end is not None and (end.connection.client_role or end.connection.server_role):
                    self._ends[end.connection.client, end.connection.server] = end.connection
        for capture, first_ns in zip(self._stages.captures, state.first_ns, strict=True):
            capture.first_ns, capture.last_ns = first_ns, state.until_ns
        self._until_ns = state.until_ns
        happened = in_order(calls)
        answered = {call.serial for call in calls if call.closed}
        for call in calls:
            call.closed = False
        for call, begins in happened:
            # What a REST call leads to comes while it is open: it is closed when its answer's time comes.
            call.closed = not begins
            stages.receive((call,))
            call.closed = call.serial in answered and not (begins and call.protocol == "REST")
        self._follow.history.verdicts.update(state.verdicts)
        self._follow.history.outcomes.update(state.outcomes)
        # They were counted when they happened.
        stages.counts.clear()
        for capture in stages.captures:
            capture.calls = 0
        # An order that waits is shown again whatever is known of the portal now: it was shown before.
        shown = {calls[kept.call].serial for kept in state.traces if not kept.request_id}
        orders.look(shown, (state.until_ns, 0))
        found = stages.correlator.traces(orders)
        for kept in state.traces:
            first = calls[kept.call]
            mine = [
                trace
                for trace in found
                if (first in trace.calls or trace.request_id == kept.request_id != "")
                and (not kept.server_id or trace.server_id in ("", kept.server_id))
            ]
            if mine:
                found.remove(mine[0])
                self._follow.resume(mine[0], kept.number, dict(kept.steps), kept.announced)
        self._follow.count_from(state.opened)

    def hole(self, first_ns: int) -> str:
        """Take note of the time between the runs, up to *first_ns*: nothing of it was seen. In words."""
        since_ns, self._until_ns = self._until_ns, 0
        count = len(self._follow.open())
        words = f"goes on with {count} open trace{'s' if count != 1 else ''}"
        if first_ns > since_ns:
            span = f"nothing is known from {_moment(since_ns)} to {_moment(first_ns)} UTC"
            self._stages.coverage.interrupted(since_ns, first_ns, f"{span}, between two runs of the watch")
            words += f"; what happened in the {(first_ns - since_ns) / 1e9:,.1f} s before was not seen"
        return words

    def recognise(self, calls: Iterable[Call]) -> None:
        """Let connections that the earlier run knew be who they were: each names itself only once."""
        if not self._ends:
            return
        for call in calls:
            self._recognise(call.connection)
            if isinstance(call.facts, RpcFacts) and call.facts.consumer is not None:
                self._recognise(call.facts.consumer.connection)

    def _recognise(self, connection: Connection) -> None:
        known = self._ends.get((connection.client, connection.server)) if connection.joined else None
        if known is not None:
            connection.client_role = connection.client_role or known.client_role
            connection.server_role = connection.server_role or known.server_role


def _moment(time_ns: int) -> str:
    """Date and time as they stand in reports, of a time that a file may have told."""
    try:
        moment = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC)
    except (OverflowError, OSError, ValueError):
        return "?"
    return f"{moment:%Y-%m-%d %H:%M:%S}.{time_ns // 1_000_000 % 1000:03d}"
