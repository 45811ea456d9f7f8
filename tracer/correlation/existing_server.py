"""The calls of a workflow on an existing server, separated by time from those before and after.

The server's id and its VM's URI occur in all operations on the server. So they join only calls in a window:
from the request until two seconds without a call of the trace have passed, or until the next request to
change the server.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracer.correlation.call_store import CallStore
from tracer.correlation.requests import SKEW_NS
from tracer.model import Call, RestFacts, RpcFacts, SqlFacts, Trace
from tracer.openstack.states import ERROR

__all__ = ["add_by_place", "add_by_server", "find_failure"]

QUIET_NS = 2_000_000_000
"""After this time without a call of the trace, a call without its request id belongs to something else."""


class _Window:
    """The time in which a trace's calls may lie; each call that is found in it extends it."""

    def __init__(self, store: CallStore, trace: Trace) -> None:
        calls = trace.calls
        self._since_ns = min(call.started_ns for call in calls) - SKEW_NS
        self._until_ns = max(call.ended_ns or call.started_ns for call in calls) + QUIET_NS
        own = {call.serial for call in calls}
        begun_ns = max((call.started_ns for call in calls if store.is_leg(call)), default=self._since_ns)
        # The next request to change the same server ends the window: a stop and a start right after it must
        # not share their calls.
        others = (call for call in store.changes.get(trace.server_id, ()) if call.serial not in own)
        self._next_ns = min((c.started_ns for c in others if c.started_ns > begun_ns), default=1 << 62)

    def takes(self, call: Call) -> bool:
        """Return whether *call* lies in the window, and extend the window by it; ask in order of start."""
        inside = self._since_ns <= call.started_ns <= min(self._until_ns, self._next_ns)
        if inside:
            self._until_ns = max(self._until_ns, (call.ended_ns or call.started_ns) + QUIET_NS)
        return inside


def add_by_server(store: CallStore, trace: Trace) -> None:
    """Add to *trace* the calls in its window that name its server and no other request."""
    if not trace.server_id or not trace.calls:
        return
    known = {call.serial for call in trace.calls}
    window = _Window(store, trace)
    for call in sorted(store.by_uuid.get(trace.server_id), key=lambda call: call.started_ns):
        facts = call.facts
        request_id = getattr(facts, "request_id", "")
        of_another = request_id and trace.request_id and request_id != trace.request_id
        reads = isinstance(facts, SqlFacts) and facts.verb == "SELECT"
        # `front`: of a call through the proxy the outer leg alone is taken.
        if call.serial in known or call.front is not None or of_another or reads:
            continue
        if window.takes(call):
            trace.calls.append(call)
            known.add(call.serial)


def find_failure(trace: Trace) -> None:
    """Set when, and by which call, this workflow failed: its host says so, or puts the server into error.

    Only a change of state counts: a server that is in error already is saved with that state at any time.
    """
    before = ""
    for call in sorted(trace.calls, key=lambda call: (call.started_ns, call.serial)):
        facts = call.facts
        if trace.failed_ns is None and isinstance(facts, SqlFacts) and facts.vm_state == ERROR:
            # An UPDATE writes changed columns only, so this is a change. An Instance.save over RPC, below,
            # carries the state even where it did not change.
            trace.failed_ns, trace.failed_call = call.started_ns, call
        if isinstance(facts, RpcFacts) and facts.event_error:
            # The reason comes after the state that it explains.
            trace.failed_ns, trace.failed_call = trace.failed_ns or call.started_ns, call
            return
        if (
            trace.failed_ns is None
            and isinstance(facts, RpcFacts)
            and facts.mode != "reply"
            and facts.vm_state
        ):
            if facts.vm_state == ERROR and before not in ("", ERROR):
                trace.failed_ns, trace.failed_call = call.started_ns, call
            before = facts.vm_state


def add_by_place(store: CallStore, traces: Sequence[Trace]) -> None:
    """Give calls without an id to the trace on which their caller worked then; of several traces, to all."""
    at: dict[str, list[tuple[Trace, _Window]]] = {}
    for trace in traces:
        window = _Window(store, trace)
        for address in _workers(store, trace):
            at.setdefault(address, []).append((trace, window))
    # In order of start, because each call that a window takes extends it.
    for call in sorted(store.loose, key=lambda call: call.started_ns):
        address = call.connection.client.address
        takers = [trace for trace, window in at.get(address, ()) if window.takes(call)]
        for trace in takers:
            trace.calls.append(call)
            if len(takers) > 1:
                trace.ambiguous.add(call.serial)
    for trace in traces:
        trace.calls.sort(key=lambda call: (call.started_ns, call.serial))


def _workers(store: CallStore, trace: Trace) -> set[str]:
    """Return the addresses of the services that received the request or a message about the server."""
    found = set()
    for call in trace.calls:
        facts = call.facts
        if isinstance(facts, RestFacts) and store.is_leg(call):
            found.add(call.connection.server.address)
        elif (
            isinstance(facts, RpcFacts)
            and facts.consumer is not None
            and facts.mode in ("call", "cast")
            and trace.server_id in facts.ids
            # nova-compute reports to nova-conductor by object_action; that makes conductor no worker.
            and not facts.object_method
        ):
            found.add(facts.consumer.endpoint.address)
    return found
